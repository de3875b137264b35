//! Looking through a log that somebody else may be writing.
//!
//! Nothing is changed, and nothing is locked. Segments that are forgotten meanwhile are passed over; the last one is read up to the last
//! whole frame that is there. Damage is not told from what is still being written: who opens the log finds it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Buf as _;
use toolgauge_proto::id::WalPosition;

use super::format::{self, HEAD_BYTES, SegmentHeader};
use super::recover::segments_of;
use super::{Frame, WalError};
use crate::fs::Fs;

/// Hands over all frames of the newest segments that are together at most so long (but of the last one in any case), segment by
/// segment, the newest segment first, its frames in order. Gives whether some segments were left out. At most one segment
/// is in memory.
pub(crate) fn scan_back(
    fs: &dyn Fs,
    dir: &Path,
    bytes_max: u64,
    mut each: impl FnMut(WalPosition, Frame),
) -> Result<bool, WalError> {
    let firsts = segments_of(fs, dir).map_err(WalError::io("list", dir))?;
    let mut left = bytes_max;
    for (read, first) in firsts.into_iter().rev().enumerate() {
        let path = dir.join(format::segment_name(first));
        let bytes = match fs.metadata(&path).map(|found| found.len) {
            Ok(len) if read > 0 && len > left => return Ok(true),
            Ok(len) => {
                left = left.saturating_sub(len);
                fs.read_range(&path, 0..len)
            }
            Err(error) => Err(error),
        };
        let mut bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(WalError::io("read", &path)(error)),
        };
        // A segment that has just begun has no header yet.
        let Ok(header) = SegmentHeader::decode(&bytes) else { continue };
        bytes.advance(HEAD_BYTES);
        let (mut next, mut tenant) = (first, Arc::from(""));
        while let Ok((head, frame)) = format::decode_frame(&bytes, header.marker, next, &mut tenant) {
            bytes.advance(head.frame_bytes());
            next = next.next();
            each(first, frame);
        }
    }
    Ok(false)
}
