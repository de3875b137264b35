//! The bytes of the log, as the module documentation specifies them.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use toolgauge_proto::id::{WalPosition, WriterId};
use toolgauge_proto::time::UnixMicros;

use super::{Frame, FrameContent};
use crate::export::{Export, ExportEncoding, ExportSignal};

/// Longest body of a frame, in bytes; the doors take less.
pub const MAX_BODY_BYTES: u32 = 256 << 20;

/// The format this program writes and reads.
pub(super) const VERSION: u32 = 1;
/// Length of a segment's header and of a frame's head.
pub(super) const HEAD_BYTES: usize = 64;
const CRC_AT: usize = 60;
const MAGIC: [u8; 8] = *b"tgwal\r\n\0";
const SIGNAL_TICK: u8 = 3;
const SUFFIX: &str = ".wal";

/// Name of the file that holds the writer id.
pub(super) const WRITER_FILE: &str = "WRITER";
/// Name under which it is written first.
pub(super) const WRITER_DRAFT: &str = "WRITER.tmp";

/// What is wrong with some bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    Short,
    Magic,
    HeadCrc,
    Marker,
    PayloadCrc,
    Version(u32),
    Position { expected: WalPosition, found: WalPosition },
    Unknown,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("it ends too early"),
            Self::Magic => f.write_str("this is no segment of a log"),
            Self::HeadCrc => f.write_str("the head does not match its checksum"),
            Self::Marker => f.write_str("no frame begins here"),
            Self::PayloadCrc => f.write_str("the content does not match its checksum"),
            Self::Version(version) => write!(f, "format version {version} is not known"),
            Self::Position { expected, found } => write!(f, "position {found} stands where {expected} belongs"),
            Self::Unknown => f.write_str("signal, encoding or tenant is not known"),
        }
    }
}

type Head = [u8; HEAD_BYTES];

fn head_of(bytes: &[u8]) -> Result<&Head, Fault> {
    bytes.first_chunk().ok_or(Fault::Short)
}

fn array<const N: usize>(head: &Head, at: usize) -> [u8; N] {
    std::array::from_fn(|i| head[at + i])
}

fn u32_at(head: &Head, at: usize) -> u32 {
    u32::from_le_bytes(array(head, at))
}

fn u64_at(head: &Head, at: usize) -> u64 {
    u64::from_le_bytes(array(head, at))
}

fn i64_at(head: &Head, at: usize) -> i64 {
    i64::from_le_bytes(array(head, at))
}

fn check_crc(head: &Head) -> Result<(), Fault> {
    if u32_at(head, CRC_AT) == crc32c::crc32c(&head[..CRC_AT]) { Ok(()) } else { Err(Fault::HeadCrc) }
}

fn seal(head: &mut Head) {
    let crc = crc32c::crc32c(&head[..CRC_AT]);
    head[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
}

/// The header of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SegmentHeader {
    pub(super) writer: WriterId,
    pub(super) first: WalPosition,
    /// Receive time of the last frame before this segment; `i64::MIN` if there is none.
    pub(super) previous_time_us: i64,
    pub(super) marker: u64,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Head {
        let mut head = [0; HEAD_BYTES];
        head[0..8].copy_from_slice(&MAGIC);
        head[8..12].copy_from_slice(&VERSION.to_le_bytes());
        head[16..32].copy_from_slice(self.writer.as_bytes());
        head[32..40].copy_from_slice(&self.first.0.to_le_bytes());
        head[40..48].copy_from_slice(&self.previous_time_us.to_le_bytes());
        head[48..56].copy_from_slice(&self.marker.to_le_bytes());
        seal(&mut head);
        head
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        let head = head_of(bytes)?;
        if array(head, 0) != MAGIC {
            return Err(Fault::Magic);
        }
        check_crc(head)?;
        let version = u32_at(head, 8);
        if version != VERSION {
            return Err(Fault::Version(version));
        }
        Ok(Self {
            writer: WriterId::from_bytes(array(head, 16)),
            first: WalPosition(u64_at(head, 32)),
            previous_time_us: i64_at(head, 40),
            marker: u64_at(head, 48),
        })
    }
}

/// The head of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FrameHead {
    pub(super) payload_crc: u32,
    pub(super) body_len: u32,
    pub(super) position: WalPosition,
    pub(super) synced: WalPosition,
    pub(super) receive_time_us: i64,
    pub(super) digest: u128,
    pub(super) signal: u8,
    pub(super) encoding: u8,
    pub(super) tenant_len: u16,
}

impl FrameHead {
    /// The head of a tick.
    pub(super) fn tick(position: WalPosition, receive_time_us: i64) -> Self {
        Self {
            payload_crc: crc32c::crc32c(&[]),
            body_len: 0,
            position,
            synced: WalPosition(0),
            receive_time_us,
            digest: 0,
            signal: SIGNAL_TICK,
            encoding: 0,
            tenant_len: 0,
        }
    }

    pub(super) const fn is_tick(&self) -> bool {
        self.signal == SIGNAL_TICK
    }

    /// Length of the whole frame.
    pub(super) fn frame_bytes(&self) -> usize {
        HEAD_BYTES + usize::from(self.tenant_len) + self.body_len as usize
    }

    pub(super) fn encode(&self, marker: u64) -> Head {
        let mut head = [0; HEAD_BYTES];
        head[0..8].copy_from_slice(&marker.to_le_bytes());
        head[8..12].copy_from_slice(&self.payload_crc.to_le_bytes());
        head[12..16].copy_from_slice(&self.body_len.to_le_bytes());
        head[16..24].copy_from_slice(&self.position.0.to_le_bytes());
        head[24..32].copy_from_slice(&self.synced.0.to_le_bytes());
        head[32..40].copy_from_slice(&self.receive_time_us.to_le_bytes());
        head[40..56].copy_from_slice(&self.digest.to_le_bytes());
        head[56] = self.signal;
        head[57] = self.encoding;
        head[58..60].copy_from_slice(&self.tenant_len.to_le_bytes());
        seal(&mut head);
        head
    }

    pub(super) fn decode(bytes: &[u8], marker: u64) -> Result<Self, Fault> {
        let head = head_of(bytes)?;
        if u64_at(head, 0) != marker {
            return Err(Fault::Marker);
        }
        check_crc(head)?;
        Ok(Self {
            payload_crc: u32_at(head, 8),
            body_len: u32_at(head, 12),
            position: WalPosition(u64_at(head, 16)),
            synced: WalPosition(u64_at(head, 24)),
            receive_time_us: i64_at(head, 32),
            digest: u128::from_le_bytes(array(head, 40)),
            signal: head[56],
            encoding: head[57],
            tenant_len: u16::from_le_bytes(array(head, 58)),
        })
    }

    /// As [`FrameHead::decode`], and it must have this position.
    pub(super) fn decode_at(bytes: &[u8], marker: u64, expected: WalPosition) -> Result<Self, Fault> {
        let head = Self::decode(bytes, marker)?;
        if head.position == expected { Ok(head) } else { Err(Fault::Position { expected, found: head.position }) }
    }
}

/// Checks and cuts out the frame that begins `bytes`; the body is a slice of them. `tenant` is the name seen last, which
/// is shared if it is this one's too.
pub(super) fn decode_frame(
    bytes: &Bytes,
    marker: u64,
    expected: WalPosition,
    tenant: &mut Arc<str>,
) -> Result<(FrameHead, Frame), Fault> {
    let head = FrameHead::decode_at(bytes, marker, expected)?;
    let payload = bytes.get(HEAD_BYTES..head.frame_bytes()).ok_or(Fault::Short)?;
    if crc32c::crc32c(payload) != head.payload_crc {
        return Err(Fault::PayloadCrc);
    }
    let (name, _) = payload.split_at_checked(usize::from(head.tenant_len)).ok_or(Fault::Short)?;
    let signal = match (head.signal, head.encoding) {
        (1, 1) => Some(ExportSignal::Traces),
        (2, 1) => Some(ExportSignal::Logs),
        (SIGNAL_TICK, 0) => None,
        _ => return Err(Fault::Unknown),
    };
    let content = match signal {
        None => FrameContent::Tick,
        Some(signal) => {
            if name != tenant.as_bytes() {
                *tenant = std::str::from_utf8(name).map_err(|_| Fault::Unknown)?.into();
            }
            let body = bytes.slice(HEAD_BYTES + name.len()..head.frame_bytes());
            FrameContent::Export(Export {
                tenant: Arc::clone(tenant),
                signal,
                encoding: ExportEncoding::Protobuf,
                body,
            })
        }
    };
    let frame = Frame { position: head.position, receive_time: UnixMicros(head.receive_time_us), content };
    Ok((head, frame))
}

/// Whether a frame within `bytes` proves that all up to `position` were durable.
pub(super) fn proves_synced(bytes: &[u8], marker: u64, position: WalPosition) -> bool {
    let wanted = marker.to_le_bytes();
    bytes.windows(wanted.len()).enumerate().any(|(at, window)| {
        window == wanted && FrameHead::decode(&bytes[at..], marker).is_ok_and(|head| head.synced >= position)
    })
}

/// The file name of the segment that begins with `first`.
pub(super) fn segment_name(first: WalPosition) -> String {
    format!("{:020}{SUFFIX}", first.0)
}

/// The first position of the segment of this file name.
pub(super) fn first_of(name: &str) -> Option<WalPosition> {
    let digits = name.strip_suffix(SUFFIX)?;
    let first = WalPosition(digits.parse().ok()?);
    (segment_name(first) == name).then_some(first)
}

/// The content of `WRITER`.
pub(super) fn encode_writer(writer: WriterId) -> Vec<u8> {
    let id = writer.as_bytes();
    [&id[..], &crc32c::crc32c(id).to_le_bytes()[..]].concat()
}

/// The id in the content of `WRITER`.
pub(super) fn decode_writer(bytes: &[u8]) -> Option<WriterId> {
    let (id, crc) = bytes.split_at_checked(16)?;
    (crc == crc32c::crc32c(id).to_le_bytes()).then(|| WriterId::from_slice(id)).flatten()
}
