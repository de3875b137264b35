//! The write-ahead log: an export is acknowledged when its frame here is synced, and not before.
//!
//! # Guarantees
//! * **W-1** What was acknowledged is found after any crash, power loss included, once and unchanged.
//! * **W-2** What is found is a prefix of what was appended, in order; positions go on from it without a gap, and no
//!   acknowledged position is used twice.
//! * **W-3** Nothing is handed over, replayed or counted as synced before it is.
//! * **W-4** Receive times never decrease.
//! * **W-5** Damage is an error that names file and byte, never a silent end. The one exception is stated under
//!   "Recovery".
//!
//! # Limits
//! Local file systems with working `fsync`. One process holds a log folder (a lock on the folder). A body has at most
//! [`MAX_BODY_BYTES`]. Memory: the queues ([`WalSettings::queue_bytes`], [`WalSettings::handover_bytes`]), the digests
//! (about 100 bytes each, [`WalSettings::digests_max`]), at open and replay one segment.
//!
//! # How it works
//! [`Wal`] is the core: it does no waiting and has no threads. [`Wal::append`] stages a frame, [`Wal::sync`] writes all
//! staged frames with one gathering write and one `fdatasync`. [`WalHandle`] runs it on a thread of its own: it takes
//! what has queued up, syncs it once (group commit), answers, and hands the frames to the one [`FrameReceiver`].
//! Checksum and digest are computed by the caller of [`WalHandle::append`], so that they scale with the cores; bodies are
//! never copied.
//!
//! # Files
//! All integers are little-endian; CRC is CRC-32C (Castagnoli).
//!
//! `WRITER`, 20 bytes: `0` the writer id (16 random bytes, drawn when the folder is new), `16` u32 CRC of bytes 0..16.
//!
//! `<position of its first frame, 20 digits>.wal`, a segment: a header of 64 bytes, then frames without gaps.
//!
//! | at | segment header | |
//! |---|---|---|
//! | 0 | 8 bytes | magic `tgwal\r\n\0` |
//! | 8 | u32 | format version, 1 |
//! | 12 | u32 | 0 |
//! | 16 | 16 bytes | writer id |
//! | 32 | u64 | position of the first frame |
//! | 40 | i64 | receive time of the last frame before this segment, `i64::MIN` if there is none |
//! | 48 | u64 | marker: random, begins every frame of this segment |
//! | 56 | u32 | 0 |
//! | 60 | u32 | CRC of bytes 0..60 |
//!
//! | at | frame | |
//! |---|---|---|
//! | 0 | u64 | the segment's marker |
//! | 8 | u32 | CRC of tenant and body |
//! | 12 | u32 | length of the body in bytes |
//! | 16 | u64 | position: 1 more than that of the frame before |
//! | 24 | u64 | synced: every frame up to this position was synced when this one was written |
//! | 32 | i64 | receive time, microseconds since 1970-01-01T00:00:00Z |
//! | 40 | 16 bytes | digest: XXH3-128 over u16 length of the tenant, tenant, u8 signal, u8 encoding, body; 0 for ticks |
//! | 56 | u8 | signal: 1 traces, 2 logs, 3 tick (no tenant, no body: says that time went on) |
//! | 57 | u8 | encoding: 1 protobuf, 0 for ticks |
//! | 58 | u16 | length of the tenant in bytes |
//! | 60 | u32 | CRC of bytes 0..60 |
//! | 64 | | tenant (UTF-8), then body |
//!
//! Compatibility: magic, version and header CRC keep their places for ever. A reader refuses versions it does not know. A
//! new signal or encoding is a new version; bytes now 0 may get a meaning only in a new version. `tests/golden/`
//! holds a log that every later program must read.
//!
//! # Failure and recovery
//! * **No room** (`ENOSPC`, quota): the partial frames are cut off again, their callers get
//!   [`Refusal::Overloaded`](crate::export::Refusal::Overloaded), and the log goes on when there is room. If the cut
//!   fails, the log is closed.
//! * **A failed sync**, or any other failed write, closes the log for good: everything after gets
//!   [`Refusal::Closed`](crate::export::Refusal::Closed). A failed sync is never tried again, since the kernel has by then
//!   dropped the bytes and would answer `Ok`.
//! * **Recovery** reads the last segment whole. Where a frame does not check out, it looks at what follows: a later frame
//!   whose `synced` covers this place proves that it was durable once, so this is damage and [`WalError::Corrupt`].
//!   Without such a proof it is the tail of a group commit that a crash tore (a disk may write its pages in any order, so
//!   whole frames may follow a torn one), was never acknowledged, and is cut off and reported. The exception to W-5:
//!   damage within the last group commit cannot be told from a tear, and is reported as one; the ticks of an idle log
//!   keep that window to seconds. Bodies cannot forge a proof, since they do not know the marker.
//!   All other segments were synced before their successor was created: any fault in them is damage. Their heads are
//!   checked at open as far as digests are wanted, all of them when they are replayed.
//! * **Survivors** of the last group commit may have been readable without being durable, even after a failed sync: they
//!   are written once more in place, and synced with the cut and the folder, before the log opens.
//! * A segment is deleted only oldest first, with a sync of the folder after each, so no crash leaves a gap.
//!
//! # Why not an existing crate
//! See `docs/decisions/0002-wal.md`.

use std::io;
use std::path::{Path, PathBuf};

use toolgauge_proto::id::WalPosition;
use toolgauge_proto::time::UnixMicros;

use crate::export::Export;

mod actor;
mod counters;
mod digest;
mod format;
mod handover;
mod log;
mod recover;
mod replay;
mod scan;

pub use actor::WalHandle;
pub use counters::WalCounters;
pub use digest::Prepared;
pub use format::MAX_BODY_BYTES;
pub use handover::{FrameReceiver, Received};
pub use log::Wal;
pub use recover::Recovery;
pub(crate) use recover::{last_frame, segment_file, segments_of, writer_file};
pub use replay::Replay;
pub(crate) use scan::scan_back;

/// Default of [`WalSettings::segment_bytes`]: large enough that a new file every second is the most, small enough to read
/// at once.
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// Default of [`WalSettings::digest_horizon_us`]: exporters give up re-sending after minutes.
pub const DIGEST_HORIZON_US: i64 = 15 * 60 * 1_000_000;
/// Default of [`WalSettings::digests_max`]: 15 minutes of a thousand exports a second, in about 100 MB.
pub const DIGESTS_MAX: usize = 1_000_000;
/// Default of [`WalSettings::retain_bytes`].
pub const RETAIN_BYTES: u64 = 2 << 30;
/// Default of [`WalSettings::queue_bytes`]: one export of the greatest size the doors take.
pub const QUEUE_BYTES: usize = 64 << 20;
/// Default of [`WalSettings::queue_count`]: what 64 MiB hold of exports of 4 KiB.
pub const QUEUE_COUNT: usize = 16_384;
/// Default of [`WalSettings::handover_bytes`].
pub const HANDOVER_BYTES: usize = 64 << 20;
/// Default of [`WalSettings::group_commit_bytes`]: a write of some milliseconds.
pub const GROUP_COMMIT_BYTES: usize = 8 << 20;
/// Default of [`WalSettings::tick_interval_us`].
pub const TICK_INTERVAL_US: u64 = 5_000_000;

/// How the log is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WalSettings {
    /// Position of the first frame if the folder is new. Positions go on over the logs of one data folder, so that a
    /// later row always has a greater one.
    pub first_position: WalPosition,
    /// A segment that has reached so many bytes gets no further group commit.
    pub segment_bytes: u64,
    /// How far back in log time an identical export counts as a re-send, in microseconds.
    pub digest_horizon_us: i64,
    /// How many digests are kept at most; the oldest go first.
    pub digests_max: usize,
    /// Above so many bytes in all, segments that are no longer needed for replay go although the horizon wants them.
    pub retain_bytes: u64,
    /// Bytes of exports that may wait for their sync.
    pub queue_bytes: usize,
    /// Number of exports that may wait for their sync.
    pub queue_count: usize,
    /// Bytes of frames that may wait for the consumer; beyond, syncs wait.
    pub handover_bytes: usize,
    /// Bytes after which a group commit takes no further export.
    pub group_commit_bytes: usize,
    /// How long a group commit waits for more exports, in microseconds.
    pub group_commit_wait_us: u64,
    /// A tick is written when nothing was for so long, in microseconds.
    pub tick_interval_us: u64,
}

impl Default for WalSettings {
    fn default() -> Self {
        Self {
            first_position: WalPosition(1),
            segment_bytes: SEGMENT_BYTES,
            digest_horizon_us: DIGEST_HORIZON_US,
            digests_max: DIGESTS_MAX,
            retain_bytes: RETAIN_BYTES,
            queue_bytes: QUEUE_BYTES,
            queue_count: QUEUE_COUNT,
            handover_bytes: HANDOVER_BYTES,
            group_commit_bytes: GROUP_COMMIT_BYTES,
            group_commit_wait_us: 0,
            tick_interval_us: TICK_INTERVAL_US,
        }
    }
}

/// What became of an export given to [`Wal::append`]; in both cases it is durable after the next [`Wal::sync`].
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Appended {
    /// It stands at this position.
    New(WalPosition),
    /// An identical one stands at this position.
    Resend(WalPosition),
}

/// One entry of the log.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its running number.
    pub position: WalPosition,
    /// When it was received, in log time.
    pub receive_time: UnixMicros,
    /// What it holds.
    pub content: FrameContent,
}

/// What a frame holds.
#[derive(Clone, Debug)]
pub enum FrameContent {
    /// An export, as it was received.
    Export(Export),
    /// Nothing but the time.
    Tick,
}

/// Why a log could not be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The file system refused.
    #[error("{action} \"{}\"", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The answer.
        #[source]
        source: io::Error,
    },
    /// Another process has the folder.
    #[error("log folder \"{}\" is in use; stop the other process or choose another data folder", dir.display())]
    InUse {
        /// The folder.
        dir: PathBuf,
    },
    /// Something that was durable is damaged.
    #[error(
        "\"{}\" is damaged at byte {offset}: {what}; acknowledged exports are affected: restore the log folder, or move it \
         away to go on without what it holds",
        file.display()
    )]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// Where the first faulty thing in it begins, in bytes.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// Written by a later program.
    #[error("\"{}\" has format version {version}, not {}; use the program that wrote it", file.display(), format::VERSION)]
    Version {
        /// The file.
        file: PathBuf,
        /// Its version.
        version: u32,
    },
}

impl WalError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    fn corrupt(file: &Path, offset: usize, what: impl Into<String>) -> Self {
        Self::Corrupt { file: file.to_owned(), offset: offset as u64, what: what.into() }
    }
}
