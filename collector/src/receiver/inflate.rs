//! Decompresses a message in steps, each paid for before it is made.
//!
//! [`inflate`] asks the [`Inflater`] how many bytes the next step holds, waits until the request's grant covers them, and makes
//! the step: on the spot if it is small, else on a blocking thread. What the data says about its own size decides only how
//! large the first step is; the limit is checked on what really comes out.

use std::io::{ErrorKind, Read};

use bytes::buf::Reader;
use bytes::{Buf, Bytes};
use flate2::bufread::MultiGzDecoder;
use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder, Operation};
use zstd::zstd_safe;

use super::admission::{Grant, REQUEST_OVERHEAD_BYTES};
use super::off_runtime;
use super::status::Fault;

/// The largest zstd window accepted: the 8 MiB that RFC 8878 asks every decoder to support and no encoder to exceed.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
const ZSTD_WINDOW_BYTES_MAX: usize = 1 << ZSTD_WINDOW_LOG_MAX;
/// What a decoder needs besides its window: tables and one block of input.
const DECODER_BYTES: usize = 256 << 10;
/// Telemetry shrinks to a tenth or so; what claims to be larger than this is believed as it comes out.
const EXPECTED_RATIO: usize = 16;
const FIRST_ROOM_BYTES_MIN: usize = 4 << 10;

/// The most that one request can hold while it is decompressed: itself, its output while that is moved to more room, the window.
pub(super) fn held_bytes_max(request_bytes_max: usize) -> usize {
    3 * (request_bytes_max + 1) + ZSTD_WINDOW_BYTES_MAX + DECODER_BYTES + REQUEST_OVERHEAD_BYTES + 1024
}

/// The compressions that requests may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    Gzip,
    Zstd,
}

impl Compression {
    const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    fn corrupt(self, detail: impl ToString) -> Fault {
        Fault::Corrupt { encoding: self.name(), detail: detail.to_string() }
    }
}

/// Decompresses `wire`; the grant then covers the result alone.
pub(super) async fn inflate(
    compression: Compression,
    wire: Bytes,
    bytes_max: usize,
    mut grant: Grant,
) -> Result<(Bytes, Grant), Fault> {
    let mut inflater = Inflater::new(compression, wire, bytes_max)?;
    loop {
        grant.hold(inflater.holds()).await?;
        // The grant goes along: if the client gives up, a step that still runs goes on paying.
        let step;
        (inflater, grant, step) = off_runtime(inflater.room, move || {
            let step = inflater.step();
            (inflater, grant, step)
        })
        .await?;
        if step? == Step::Done {
            let out = inflater.finish();
            grant.keep(out.capacity());
            return Ok((Bytes::from(out), grant));
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Done,
    More,
}

enum Decoder {
    Gzip(Box<MultiGzDecoder<Reader<Bytes>>>),
    Zstd { decoder: ZstdDecoder<'static>, rest: Bytes },
}

/// A decompression that stops whenever it needs more memory.
struct Inflater {
    compression: Compression,
    decoder: Decoder,
    wire_bytes: usize,
    window_bytes: usize,
    bytes_max: usize,
    /// How large `out` is to be in the next step.
    room: usize,
    out: Vec<u8>,
    filled: usize,
}

impl Inflater {
    fn new(compression: Compression, wire: Bytes, bytes_max: usize) -> Result<Self, Fault> {
        let wire_bytes = wire.len();
        let believable = wire_bytes.saturating_mul(EXPECTED_RATIO).max(FIRST_ROOM_BYTES_MIN);
        let mut window_bytes = 0;
        let (decoder, expected) = match compression {
            Compression::Gzip => {
                // The last four bytes are the length of what was compressed.
                let expected = wire.last_chunk().map_or(0, |length| u32::from_le_bytes(*length) as usize);
                (Decoder::Gzip(Box::new(MultiGzDecoder::new(wire.reader()))), expected.min(believable))
            }
            Compression::Zstd => {
                let mut decoder = ZstdDecoder::new().map_err(|error| compression.corrupt(error))?;
                decoder
                    .set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX))
                    .map_err(|error| compression.corrupt(error))?;
                window_bytes = zstd_window_bytes(&wire);
                let expected = match zstd_safe::get_frame_content_size(&wire) {
                    Ok(Some(bytes)) if bytes > bytes_max as u64 => return Err(Fault::TooLarge { bytes_max }),
                    // Believed in full: given room for all of it, zstd decodes in one pass, without a window.
                    Ok(Some(bytes)) => bytes as usize,
                    Ok(None) | Err(_) => believable,
                };
                (Decoder::Zstd { decoder, rest: wire }, expected)
            }
        };
        // One byte more than expected: the end is only seen by not filling the room.
        let room = expected.clamp(FIRST_ROOM_BYTES_MIN.min(bytes_max), bytes_max) + 1;
        Ok(Self { compression, decoder, wire_bytes, window_bytes, bytes_max, room, out: Vec::new(), filled: 0 })
    }

    /// Bytes held during the next step.
    fn holds(&self) -> usize {
        let moved = if self.room > self.out.len() { self.out.len() } else { 0 };
        self.wire_bytes + DECODER_BYTES + self.window_bytes + moved + self.room
    }

    fn step(&mut self) -> Result<Step, Fault> {
        if self.room > self.out.len() {
            self.out.reserve_exact(self.room - self.out.len());
            self.out.resize(self.room, 0);
        }
        let step = match &mut self.decoder {
            Decoder::Gzip(decoder) => loop {
                if self.filled == self.out.len() {
                    break Step::More;
                }
                match decoder.read(&mut self.out[self.filled..]) {
                    Ok(0) => break Step::Done,
                    Ok(bytes) => self.filled += bytes,
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                        return Err(self.compression.corrupt("it ends early"));
                    }
                    Err(error) => return Err(self.compression.corrupt(error)),
                }
            },
            Decoder::Zstd { decoder, rest } => loop {
                let status = decoder
                    .run_on_buffers(rest, &mut self.out[self.filled..])
                    .map_err(|error| self.compression.corrupt(error))?;
                rest.advance(status.bytes_read);
                self.filled += status.bytes_written;
                if status.remaining == 0 {
                    if rest.is_empty() {
                        break Step::Done;
                    }
                    // Another frame follows, perhaps with a larger window: pay for it first.
                    let window_bytes = zstd_window_bytes(rest);
                    if window_bytes > self.window_bytes {
                        self.window_bytes = window_bytes;
                        break Step::More;
                    }
                }
                if self.filled == self.out.len() {
                    break Step::More;
                }
                if status.bytes_read == 0 && status.bytes_written == 0 {
                    return Err(self.compression.corrupt("it ends early"));
                }
            },
        };
        if self.filled > self.bytes_max {
            return Err(Fault::TooLarge { bytes_max: self.bytes_max });
        }
        if step == Step::More && self.filled == self.out.len() {
            self.room = self.room.saturating_mul(2).min(self.bytes_max + 1);
        }
        Ok(step)
    }

    fn finish(mut self) -> Vec<u8> {
        self.out.truncate(self.filled);
        // Only what was wrongly announced is moved once more.
        if self.out.capacity() > self.filled + self.filled / 4 + FIRST_ROOM_BYTES_MIN {
            self.out.shrink_to_fit();
        }
        self.out
    }
}

/// The window that the zstd frame at the start of `data` asks for; 0 if there is none.
fn zstd_window_bytes(data: &[u8]) -> usize {
    const SINGLE_SEGMENT: u8 = 0x20;
    let bytes = match data {
        [0x28, 0xB5, 0x2F, 0xFD, descriptor, ..] if descriptor & SINGLE_SEGMENT != 0 => {
            zstd_safe::get_frame_content_size(data).ok().flatten().unwrap_or(0)
        }
        [0x28, 0xB5, 0x2F, 0xFD, _, window, ..] => {
            let base = 1_u64 << (10 + (window >> 3));
            base + base / 8 * u64::from(window & 7)
        }
        _ => 0,
    };
    // What asks for more is refused by the decoder.
    usize::try_from(bytes).unwrap_or(usize::MAX).min(ZSTD_WINDOW_BYTES_MAX)
}
