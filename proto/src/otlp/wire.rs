//! The protobuf wire format: a cursor over the bytes of one message.

/// Nesting of messages and groups that is accepted, as in `prost`.
pub(super) const DEPTH_MAX: u32 = 100;

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LEN: u32 = 2;
const START_GROUP: u32 = 3;
const END_GROUP: u32 = 4;
const FIXED32: u32 = 5;

/// The key of field `tag` of type `int32`, `int64`, `uint32`, `bool` or an enumeration.
pub(super) const fn varint(tag: u32) -> u32 {
    tag << 3 | VARINT
}

/// The key of field `tag` of type `fixed64` or `double`.
pub(super) const fn fixed64(tag: u32) -> u32 {
    tag << 3 | FIXED64
}

/// The key of field `tag` that is a string, bytes or a message.
pub(super) const fn len(tag: u32) -> u32 {
    tag << 3 | LEN
}

/// The key of field `tag` of type `fixed32`.
pub(super) const fn fixed32(tag: u32) -> u32 {
    tag << 3 | FIXED32
}

/// Why bytes are not a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed protobuf at byte {offset}: {fault}")]
pub struct Malformed {
    /// Where, in bytes from the start of the request.
    pub offset: usize,
    /// What.
    pub fault: Fault,
}

/// What can be wrong with the framing of a protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The bytes end within a varint, or it has more than 64 bits.
    #[error("varint is cut off or longer than 64 bits")]
    Varint,
    /// A field number is 0 or above 2^29 - 1.
    #[error("field number is out of range")]
    FieldNumber,
    /// A field's value is longer than what is left of its message.
    #[error("field reaches past the end of its message")]
    PastEnd,
    /// A known field has another wire type than its own.
    #[error("known field has an unexpected wire type")]
    WireType,
    /// An unknown field has a wire type that does not exist.
    #[error("unknown wire type")]
    UnknownWireType,
    /// A group ends that was not begun.
    #[error("end of a group that was not begun")]
    EndGroup,
    /// Messages or groups nest too deep.
    #[error("nested deeper than 100 messages")]
    TooDeep,
}

/// A [`Fault`] and the address of the byte it was found at; the request's start makes it an offset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Broken {
    address: usize,
    fault: Fault,
}

impl Broken {
    /// The error for the caller, whose request is `whole`.
    #[cold]
    pub(super) fn within(self, whole: &[u8]) -> Malformed {
        Malformed { offset: self.address.saturating_sub(whole.as_ptr().addr()), fault: self.fault }
    }
}

/// A cursor over the bytes of one message.
///
/// It checks what it reads, and so serves both the check and the views; the views take an error as the end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline(always)]
    pub(super) const fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    #[inline(always)]
    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What is not read yet.
    #[inline(always)]
    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Bytes not read yet.
    #[inline(always)]
    pub(super) const fn left(&self) -> usize {
        self.rest.len()
    }

    #[inline(always)]
    fn broken(&self, fault: Fault) -> Broken {
        Broken { address: self.rest.as_ptr().addr(), fault }
    }

    #[inline(always)]
    pub(super) fn varint(&mut self) -> Result<u64, Broken> {
        match self.rest {
            [byte, rest @ ..] if *byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            [low, high, rest @ ..] if *high < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*low & 0x7f) | u64::from(*high) << 7)
            }
            _ => {
                let (value, rest) = long_varint(self.rest).ok_or_else(|| self.broken(Fault::Varint))?;
                self.rest = rest;
                Ok(value)
            }
        }
    }

    /// The next field's number and wire type.
    #[inline(always)]
    pub(super) fn key(&mut self) -> Result<u32, Broken> {
        let at = *self;
        match u32::try_from(self.varint()?) {
            Ok(key) if key > 7 => Ok(key),
            _ => Err(at.broken(Fault::FieldNumber)),
        }
    }

    #[inline(always)]
    fn take(&mut self, count: u64) -> Result<&'a [u8], Broken> {
        let taken = usize::try_from(count).ok().and_then(|count| self.rest.split_at_checked(count));
        let Some((taken, rest)) = taken else {
            return Err(self.broken(Fault::PastEnd));
        };
        self.rest = rest;
        Ok(taken)
    }

    /// The value of a string, bytes or message.
    #[inline(always)]
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Broken> {
        let count = self.varint()?;
        self.take(count)
    }

    #[inline(always)]
    pub(super) fn fixed32(&mut self) -> Result<u32, Broken> {
        let Some((value, rest)) = self.rest.split_first_chunk() else {
            return Err(self.broken(Fault::PastEnd));
        };
        self.rest = rest;
        Ok(u32::from_le_bytes(*value))
    }

    #[inline(always)]
    pub(super) fn fixed64(&mut self) -> Result<u64, Broken> {
        let Some((value, rest)) = self.rest.split_first_chunk() else {
            return Err(self.broken(Fault::PastEnd));
        };
        self.rest = rest;
        Ok(u64::from_le_bytes(*value))
    }

    /// Reads over the value of a field that is not in the schema, at `depth` levels of nesting left.
    #[inline(always)]
    pub(super) fn skip(&mut self, key: u32, depth: u32) -> Result<(), Broken> {
        // A copy, so that the cursor itself can stay in registers.
        let mut ahead = *self;
        ahead.skip_any(key, depth)?;
        *self = ahead;
        Ok(())
    }

    #[inline(never)]
    fn skip_any(&mut self, key: u32, depth: u32) -> Result<(), Broken> {
        if depth == 0 {
            return Err(self.broken(Fault::TooDeep));
        }
        match key & 7 {
            VARINT => self.varint().map(drop),
            FIXED64 => self.take(8).map(drop),
            LEN => self.bytes().map(drop),
            START_GROUP => loop {
                let at = *self;
                let inner = self.key()?;
                if inner & 7 != END_GROUP {
                    self.skip_any(inner, depth - 1)?;
                } else if inner >> 3 == key >> 3 {
                    return Ok(());
                } else {
                    return Err(at.broken(Fault::EndGroup));
                }
            },
            END_GROUP => Err(self.broken(Fault::EndGroup)),
            FIXED32 => self.take(4).map(drop),
            _ => Err(self.broken(Fault::UnknownWireType)),
        }
    }

    /// The fault of a known field whose key is `key` instead of `expected`.
    #[inline(always)]
    pub(super) fn expect(&self, key: u32, expected: u32) -> Result<(), Broken> {
        if key == expected { Ok(()) } else { Err(self.broken(Fault::WireType)) }
    }

    #[inline(always)]
    pub(super) fn too_deep(&self) -> Broken {
        self.broken(Fault::TooDeep)
    }

    /// Reads over the value of any field of a message that was checked.
    #[inline(always)]
    pub(super) fn pass(&mut self, key: u32) -> Option<()> {
        if key & 7 == LEN { self.bytes().map(drop).ok() } else { self.skip(key, DEPTH_MAX).ok() }
    }

    /// The value of the next field whose key is `wanted`, a string, bytes or a message.
    #[inline(always)]
    pub(super) fn find(&mut self, wanted: u32) -> Option<&'a [u8]> {
        while !self.is_empty() {
            let key = self.key().ok()?;
            if key == wanted {
                return self.bytes().ok();
            }
            self.pass(key)?;
        }
        None
    }
}

/// The varint at the start of `bytes`, and what follows it.
#[inline(never)]
fn long_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if *byte < 0x80 {
            // The tenth byte holds the 64th bit, and nothing more.
            return if index == 9 && *byte > 1 { None } else { Some((value, bytes.get(index + 1..)?)) };
        }
    }
    None
}

/// The fields 1 and 2 of a message that holds just these, in order and shorter than 128 bytes, as encoders write most
/// attributes. `None` says nothing: the message is to be read field by field.
#[inline(always)]
pub(super) fn usual_pair(message: &[u8]) -> Option<(&[u8], &[u8])> {
    let [0x0a, first_len @ ..=0x7f, rest @ ..] = message else { return None };
    let (first, [0x12, second_len @ ..=0x7f, second @ ..]) = rest.split_at_checked(usize::from(*first_len))? else {
        return None;
    };
    (second.len() == usize::from(*second_len)).then_some((first, second))
}

/// The field 1 of a message that holds just that, shorter than 128 bytes, as encoders write most values. `None` says
/// nothing: the message is to be read field by field.
#[inline(always)]
pub(super) fn usual_text(message: &[u8]) -> Option<&[u8]> {
    let [0x0a, len @ ..=0x7f, text @ ..] = message else { return None };
    (text.len() == usize::from(*len)).then_some(text)
}

/// The stretch of a message from the first to the last occurrence of a repeated field.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stretch {
    /// Bytes of the message left before the first occurrence; 0 if there is none.
    left_before: usize,
    /// Bytes of the message left after the last one.
    left_after: usize,
}

impl Stretch {
    /// Notes one occurrence.
    #[inline(always)]
    pub(super) fn note(&mut self, left_before: usize, left_after: usize) {
        if self.left_before == 0 {
            self.left_before = left_before;
        }
        self.left_after = left_after;
    }

    /// The stretch of `message`.
    #[inline(always)]
    pub(super) fn of(self, message: &[u8]) -> &[u8] {
        let range = message.len().wrapping_sub(self.left_before)..message.len().wrapping_sub(self.left_after);
        if self.left_before == 0 { &[] } else { message.get(range).unwrap_or_default() }
    }
}
