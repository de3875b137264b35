//! Reading the log.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use toolgauge_proto::id::{WalPosition, WriterId};

use super::format::{self, FrameHead, HEAD_BYTES, SegmentHeader};
use super::{Frame, WalError};
use crate::fs::Fs;

/// What is read ahead of each head when bodies are skipped.
const HEAD_WINDOW_BYTES: u64 = 16 << 10;

/// A part of a segment of which everything is known to be synced.
#[derive(Clone, Debug)]
pub(super) struct Extent {
    pub(super) path: PathBuf,
    pub(super) first: WalPosition,
    /// `first - 1` if it holds no frame.
    pub(super) last: WalPosition,
    pub(super) bytes: u64,
}

/// The header of a segment's file, which must be this writer's and begin with `first`.
pub(super) fn check_header(
    path: &Path,
    bytes: &[u8],
    writer: WriterId,
    first: WalPosition,
) -> Result<SegmentHeader, WalError> {
    let header = SegmentHeader::decode(bytes).map_err(|fault| match fault {
        format::Fault::Version(version) => WalError::Version { file: path.to_owned(), version },
        fault => WalError::corrupt(path, 0, fault.to_string()),
    })?;
    if header.writer != writer {
        return Err(WalError::corrupt(
            path,
            0,
            format!("it belongs to writer \"{}\", not \"{writer}\"", header.writer),
        ));
    }
    if header.first != first {
        return Err(WalError::corrupt(path, 0, format!("it begins with position {}, not {first}", header.first)));
    }
    Ok(header)
}

/// The heads of all frames of an extent; bodies are not read, and not checked.
pub(super) fn read_heads(
    fs: &dyn Fs,
    extent: &Extent,
    header: &SegmentHeader,
    mut each: impl FnMut(&FrameHead),
) -> Result<(), WalError> {
    let mut at = HEAD_BYTES as u64;
    let mut window = Bytes::new();
    let mut window_at = 0;
    let mut next = extent.first;
    let corrupt = |at: u64, what: String| WalError::Corrupt { file: extent.path.clone(), offset: at, what };
    while at < extent.bytes {
        if at < window_at || at + HEAD_BYTES as u64 > window_at + window.len() as u64 {
            window = fs
                .read_range(&extent.path, at..extent.bytes.min(at + HEAD_WINDOW_BYTES))
                .map_err(WalError::io("read", &extent.path))?;
            window_at = at;
        }
        // The window reaches over `at`, so the difference is within it.
        let bytes = usize::try_from(at - window_at).ok().and_then(|skip| window.get(skip..)).unwrap_or_default();
        let head = FrameHead::decode_at(bytes, header.marker, next).map_err(|fault| corrupt(at, fault.to_string()))?;
        each(&head);
        at += head.frame_bytes() as u64;
        next = next.next();
    }
    if at != extent.bytes || next != extent.last.next() {
        return Err(corrupt(at, format!("frames up to {} are missing", extent.last)));
    }
    Ok(())
}

#[derive(Debug)]
struct Open {
    extent: Extent,
    /// What is not yet read of it.
    bytes: Bytes,
    at: usize,
    marker: u64,
    next: WalPosition,
}

/// Reads frames in order, each checked; the bodies are slices of the segment that was read, one segment at a time.
#[derive(Debug)]
pub struct Replay {
    fs: Arc<dyn Fs>,
    writer: WriterId,
    extents: VecDeque<Extent>,
    from: WalPosition,
    open: Option<Open>,
    tenant: Arc<str>,
}

impl Replay {
    pub(super) fn new(fs: Arc<dyn Fs>, writer: WriterId, extents: VecDeque<Extent>, from: WalPosition) -> Self {
        let mut extents = extents;
        extents.retain(|extent| extent.last >= from && extent.last >= extent.first);
        Self { fs, writer, extents, from, open: None, tenant: Arc::from("") }
    }

    fn open_next(&mut self) -> Result<Option<Open>, WalError> {
        let Some(extent) = self.extents.pop_front() else { return Ok(None) };
        let mut bytes =
            self.fs.read_range(&extent.path, 0..extent.bytes).map_err(WalError::io("read", &extent.path))?;
        let header = check_header(&extent.path, &bytes, self.writer, extent.first)?;
        bytes.advance(HEAD_BYTES);
        Ok(Some(Open { bytes, at: HEAD_BYTES, marker: header.marker, next: extent.first, extent }))
    }

    fn step(&mut self) -> Result<Option<Frame>, WalError> {
        loop {
            let mut open = match self.open.take() {
                Some(open) => open,
                None => match self.open_next()? {
                    Some(open) => open,
                    None => return Ok(None),
                },
            };
            if open.next > open.extent.last {
                if open.bytes.is_empty() {
                    continue;
                }
                return Err(WalError::corrupt(&open.extent.path, open.at, "more follows the last frame"));
            }
            let (head, frame) = format::decode_frame(&open.bytes, open.marker, open.next, &mut self.tenant)
                .map_err(|fault| WalError::corrupt(&open.extent.path, open.at, fault.to_string()))?;
            open.bytes.advance(head.frame_bytes());
            open.at += head.frame_bytes();
            open.next = open.next.next();
            self.open = Some(open);
            if frame.position >= self.from {
                return Ok(Some(frame));
            }
        }
    }
}

impl Iterator for Replay {
    type Item = Result<Frame, WalError>;

    /// After an error there is nothing more.
    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.extents.clear();
        }
        step.transpose()
    }
}
