//! Finding the log again after whatever happened.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use toolgauge_proto::id::{WalPosition, WriterId};
use toolgauge_proto::time::UnixMicros;

use super::digest::Digests;
use super::format::{self, FrameHead, HEAD_BYTES, SegmentHeader};
use super::replay::{Extent, check_header, read_heads};
use super::{WalError, WalSettings};
use crate::fs::{File, Fs};

/// What was found when a log was opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovery {
    /// Whether the folder was new.
    pub created: bool,
    /// The first frame that is still there; after `last` if there is none.
    pub first: WalPosition,
    /// The last frame.
    pub last: WalPosition,
    /// Bytes cut off the end because a crash tore them; they were never acknowledged.
    pub torn_bytes: u64,
    /// Segments, the one to be written included.
    pub segments: usize,
}

/// A segment that gets no more frames.
#[derive(Clone, Debug)]
pub(super) struct Sealed {
    pub(super) extent: Extent,
    /// No frame of it, and none before it, is younger.
    pub(super) last_time_us: i64,
}

/// The segment that gets the next frames.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) extent: Extent,
    pub(super) marker: u64,
    pub(super) file: Box<dyn File>,
}

/// All that is known of a log on the disk; everything in it is durable.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) writer: WriterId,
    pub(super) sealed: Vec<Sealed>,
    pub(super) active: Active,
    pub(super) last_time_us: i64,
    pub(super) digests: Digests,
    pub(super) recovery: Recovery,
}

pub(super) fn recover(fs: &Arc<dyn Fs>, dir: &Path, settings: &WalSettings) -> Result<Found, WalError> {
    let (writer, created) = find_writer(&**fs, dir, settings.first_position)?;
    let mut firsts = segments(&**fs, dir)?;
    let stillborn = find_stillborn(&**fs, dir, writer, &firsts)?;
    if stillborn.is_some() {
        firsts.pop();
    }
    let Some(first) = firsts.pop() else {
        return Err(WalError::corrupt(&dir.join(format::WRITER_FILE), 0, "all segments of this writer are missing"));
    };
    let (last, file) = recover_last(&**fs, dir, writer, first, stillborn)?;
    let mut torn_bytes = last.torn_bytes;
    if let Some(stillborn) = stillborn {
        let path = dir.join(format::segment_name(stillborn));
        torn_bytes += fs.metadata(&path).map_err(WalError::io("look at", &path))?.len;
        fs.remove_file(&path).map_err(WalError::io("remove", &path))?;
        fs.sync_dir(dir).map_err(WalError::io("sync", dir))?;
    }
    let recovery = Recovery {
        created,
        first: firsts.first().copied().unwrap_or(last.extent.first),
        last: last.extent.last,
        torn_bytes,
        segments: firsts.len() + 1,
    };
    let mut digests = Digests::new(settings.digest_horizon_us, settings.digests_max);
    let sealed = sealed_segments(&**fs, dir, writer, &firsts, &last, settings, &mut digests)?;
    for head in last.heads.iter().filter(|head| !head.is_tick()) {
        digests.insert(head.digest, head.receive_time_us, head.position);
    }
    let active = Active { extent: last.extent, marker: last.header.marker, file };
    Ok(Found { writer, sealed, active, last_time_us: last.last_time_us, digests, recovery })
}

/// The writer id; a new folder gets one, and its first segment, durably, the id last.
fn find_writer(fs: &dyn Fs, dir: &Path, first: WalPosition) -> Result<(WriterId, bool), WalError> {
    let path = dir.join(format::WRITER_FILE);
    match fs.read(&path) {
        Ok(bytes) => {
            let id = format::decode_writer(&bytes);
            return id
                .map(|id| (id, false))
                .ok_or_else(|| WalError::corrupt(&path, 0, "it does not match its checksum"));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(WalError::io("read", &path)(error)),
    }
    // A crash while the folder was made new leaves at most a header and a draft of the id.
    for draft in segments(fs, dir)? {
        let segment = dir.join(format::segment_name(draft));
        if fs.metadata(&segment).map_err(WalError::io("look at", &segment))?.len > HEAD_BYTES as u64 {
            return Err(WalError::corrupt(&path, 0, "it is missing although there are segments with frames"));
        }
        fs.remove_file(&segment).map_err(WalError::io("remove", &segment))?;
    }
    let draft = dir.join(format::WRITER_DRAFT);
    if fs.metadata(&draft).is_ok() {
        fs.remove_file(&draft).map_err(WalError::io("remove", &draft))?;
    }
    let random = || fs.random_bytes().map_err(WalError::io("draw a random id for", dir));
    let writer = WriterId::from_bytes(random()?);
    let header = SegmentHeader { writer, first, previous_time_us: i64::MIN, marker: draw_marker(random()?) };
    write_synced(fs, &dir.join(format::segment_name(first)), &header.encode())?;
    fs.sync_dir(dir).map_err(WalError::io("sync", dir))?;
    write_synced(fs, &draft, &format::encode_writer(writer))?;
    fs.rename(&draft, &path).map_err(WalError::io("rename", &draft))?;
    fs.sync_dir(dir).map_err(WalError::io("sync", dir))?;
    Ok((writer, true))
}

/// A segment's marker out of random bytes.
pub(super) fn draw_marker(random: [u8; 16]) -> u64 {
    // The low half of them.
    (u128::from_le_bytes(random) & u128::from(u64::MAX)) as u64
}

fn write_synced(fs: &dyn Fs, path: &Path, bytes: &[u8]) -> Result<(), WalError> {
    let mut file = fs.create_new(path).map_err(WalError::io("create", path))?;
    file.write_all(bytes).map_err(WalError::io("write", path))?;
    file.sync_all().map_err(WalError::io("sync", path))
}

/// The file with the writer id.
pub(crate) fn writer_file(dir: &Path) -> PathBuf {
    dir.join(format::WRITER_FILE)
}

/// The name of the segment that begins here.
pub(crate) fn segment_file(first: WalPosition) -> String {
    format::segment_name(first)
}

/// Position and receive time of the last whole frame of a log that nobody writes.
pub(crate) fn last_frame(fs: &dyn Fs, dir: &Path) -> Result<(WalPosition, UnixMicros), WalError> {
    let path = writer_file(dir);
    let bytes = fs.read(&path).map_err(WalError::io("read", &path))?;
    let writer = format::decode_writer(&bytes);
    let writer = writer.ok_or_else(|| WalError::corrupt(&path, 0, "it does not match its checksum"))?;
    let firsts = segments(fs, dir)?;
    let stillborn = find_stillborn(fs, dir, writer, &firsts)?;
    let first = firsts.into_iter().rev().find(|first| Some(*first) != stillborn);
    let first = first.ok_or_else(|| WalError::corrupt(&path, 0, "all segments of this writer are missing"))?;
    let path = dir.join(format::segment_name(first));
    let bytes = fs.read(&path).map_err(WalError::io("read", &path))?;
    let header = check_header(&path, &bytes, writer, first)?;
    let (mut at, mut next, mut time_us) = (HEAD_BYTES, first, header.previous_time_us);
    let mut tenant = Arc::from("");
    while let Ok((head, _)) =
        format::decode_frame(&bytes.slice(at.min(bytes.len())..), header.marker, next, &mut tenant)
    {
        (at, next, time_us) = (at + head.frame_bytes(), next.next(), head.receive_time_us);
    }
    Ok((WalPosition(next.0.saturating_sub(1)), UnixMicros(time_us)))
}

/// First positions of the segments in the folder, in order.
fn segments(fs: &dyn Fs, dir: &Path) -> Result<Vec<WalPosition>, WalError> {
    segments_of(fs, dir).map_err(WalError::io("list", dir))
}

/// As above.
pub(crate) fn segments_of(fs: &dyn Fs, dir: &Path) -> std::io::Result<Vec<WalPosition>> {
    let entries = fs.list_dir(dir)?;
    let mut firsts: Vec<_> = entries.iter().filter_map(|entry| format::first_of(&entry.name)).collect();
    firsts.sort_unstable();
    Ok(firsts)
}

struct Last {
    extent: Extent,
    header: SegmentHeader,
    heads: Vec<FrameHead>,
    last_time_us: i64,
    torn_bytes: u64,
}

/// The last segment, if a crash left not even its header; its predecessor is whole then.
fn find_stillborn(
    fs: &dyn Fs,
    dir: &Path,
    writer: WriterId,
    firsts: &[WalPosition],
) -> Result<Option<WalPosition>, WalError> {
    let [.., _, first] = firsts else { return Ok(None) };
    let path = dir.join(format::segment_name(*first));
    let bytes = fs.read(&path).map_err(WalError::io("read", &path))?;
    match check_header(&path, &bytes, writer, *first) {
        Err(WalError::Corrupt { .. }) if !was_synced(&bytes, *first) => Ok(Some(*first)),
        Ok(_) | Err(_) => Ok(None),
    }
}

/// Reads the last segment, decides where it ends, and makes that durable. If a segment was begun after it, it is whole.
fn recover_last(
    fs: &dyn Fs,
    dir: &Path,
    writer: WriterId,
    first: WalPosition,
    followed_by: Option<WalPosition>,
) -> Result<(Last, Box<dyn File>), WalError> {
    let path = dir.join(format::segment_name(first));
    let bytes = fs.read(&path).map_err(WalError::io("read", &path))?;
    let header = check_header(&path, &bytes, writer, first)?;

    let mut heads: Vec<FrameHead> = Vec::new();
    let mut starts = Vec::new();
    let mut end = HEAD_BYTES;
    let mut next = first;
    let mut tenant = Arc::from("");
    while end < bytes.len() {
        match format::decode_frame(&bytes.slice(end..), header.marker, next, &mut tenant) {
            Ok((head, _)) => {
                heads.push(head);
                starts.push(end);
                end += head.frame_bytes();
                next = next.next();
            }
            Err(fault) if followed_by.is_some() || format::proves_synced(&bytes[end..], header.marker, next) => {
                return Err(WalError::corrupt(&path, end, fault.to_string()));
            }
            Err(_) => break,
        }
    }
    if followed_by.is_some_and(|following| following != next) {
        return Err(WalError::corrupt(&path, end, format!("frames from {next} on are missing")));
    }

    // What no later frame vouches for is written again: an earlier run may have failed to sync it.
    let synced = heads.last().map_or(WalPosition(0), |head| head.synced);
    let doubtful = heads.iter().position(|head| head.position > synced);
    let rewrite = match doubtful {
        Some(at) if at > 0 => starts[at]..end,
        // The header too: it was synced together with the first frames.
        _ => 0..end,
    };
    let mut file = fs.open_append(&path).map_err(WalError::io("open", &path))?;
    if end < bytes.len() {
        file.set_len(end as u64).map_err(WalError::io("cut", &path))?;
    }
    file.write_all_at(rewrite.start as u64, &bytes[rewrite]).map_err(WalError::io("write", &path))?;
    file.sync_all().map_err(WalError::io("sync", &path))?;
    fs.sync_dir(dir).map_err(WalError::io("sync", dir))?;

    let extent = Extent { path, first, last: WalPosition(next.0 - 1), bytes: end as u64 };
    let last_time_us = heads.last().map_or(header.previous_time_us, |head| head.receive_time_us);
    Ok((Last { extent, header, heads, last_time_us, torn_bytes: (bytes.len() - end) as u64 }, file))
}

/// Whether a segment with a faulty header holds a frame that proves that the header was durable once.
fn was_synced(bytes: &Bytes, first: WalPosition) -> bool {
    let marker_at = |at: usize| bytes.get(at..).and_then(|bytes| bytes.first_chunk()).map(|m| u64::from_le_bytes(*m));
    // It stands in the header and begins the first frame.
    [48, HEAD_BYTES].into_iter().filter_map(marker_at).any(|marker| format::proves_synced(bytes, marker, first))
}

/// Checks the headers of all segments but the last, and takes the digests out of those the horizon reaches.
fn sealed_segments(
    fs: &dyn Fs,
    dir: &Path,
    writer: WriterId,
    firsts: &[WalPosition],
    last: &Last,
    settings: &WalSettings,
    digests: &mut Digests,
) -> Result<Vec<Sealed>, WalError> {
    let mut headers = Vec::with_capacity(firsts.len() + 1);
    for first in firsts {
        let path = dir.join(format::segment_name(*first));
        let bytes = fs.read_range(&path, 0..HEAD_BYTES as u64).map_err(WalError::io("read", &path))?;
        let len = fs.metadata(&path).map_err(WalError::io("look at", &path))?.len;
        headers.push((check_header(&path, &bytes, writer, *first)?, path, len));
    }
    headers.push((last.header, PathBuf::new(), 0));

    let horizon_us = last.last_time_us.saturating_sub(settings.digest_horizon_us);
    let mut sealed = Vec::with_capacity(firsts.len());
    for pair in headers.windows(2) {
        let [(header, path, bytes), (next, ..)] = pair else { continue };
        let extent = Extent {
            path: path.clone(),
            first: header.first,
            last: WalPosition(next.first.0.saturating_sub(1)),
            bytes: *bytes,
        };
        if next.previous_time_us >= horizon_us {
            read_heads(fs, &extent, header, |head| {
                if !head.is_tick() && head.receive_time_us >= horizon_us {
                    digests.insert(head.digest, head.receive_time_us, head.position);
                }
            })?;
        }
        sealed.push(Sealed { extent, last_time_us: next.previous_time_us });
    }
    Ok(sealed)
}
