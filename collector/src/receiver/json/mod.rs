//! Turns OTLP/JSON into the protobuf message that says the same.
//!
//! # Limits and guarantees
//!
//! * The result is what `prost` would write for the message: fields in the order of their numbers, defaults left out. It depends on
//!   nothing but the JSON, so that a request that is sent again gives the same bytes; and a record gives the same bytes whether
//!   it came as JSON or as protobuf from a usual encoder.
//! * Unknown fields are ignored, `null` is a field that is not there, 64-bit integers are strings or numbers, enums are numbers, ids
//!   are hex digits of either case, other bytes base 64 (either alphabet, padded or not), as OTLP and ProtoJSON have it.
//! * A lone surrogate in a string (`"\ud83d"`: what is left when JavaScript cuts an emoji in two) becomes U+FFFD, like
//!   everywhere else in Unicode, and does not cost the request.
//! * The result is never longer than the JSON. Besides both, there is at most a copy of the longest string.
//!
//! # How it works
//!
//! `serde_json` drives one visitor per field, which writes at the end of one buffer. The length of a message is put before it
//! when it is whole. [`schema`] has the messages.
//!
//! # Why not the serde feature of `opentelemetry-proto`
//!
//! It builds the whole tree of structs, fails on an unknown field in a value, and takes names of enums.

mod schema;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::alphabet::{Alphabet, STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize as _;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::export::ExportSignal;
use schema::{Field, Kind, Table};

/// The longest message about a fault, in characters; it may quote what was sent.
const DETAIL_CHARS_MAX: usize = 300;

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LEN: u32 = 2;
const FIXED32: u32 = 5;

/// The protobuf of an export request (`None`: of metrics, without what is in their points).
///
/// # Errors
/// What is wrong, and at which line and column.
pub fn to_protobuf(json: &[u8], signal: Option<ExportSignal>) -> Result<Vec<u8>, String> {
    let table = match signal {
        Some(ExportSignal::Traces) => &schema::TRACES,
        Some(ExportSignal::Logs) => &schema::LOGS,
        None => &schema::METRICS,
    };
    let text = std::str::from_utf8(json).map_err(|error| format!("JSON must be UTF-8: {error}"))?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let mut writer = Writer { out: Vec::with_capacity(json.len()), fields: Vec::new() };
    let read = reader.deserialize_map(Object { writer: &mut writer, table, key: "the request" });
    read.and_then(|()| reader.end())
        .map_err(|error| error.to_string().chars().take(DETAIL_CHARS_MAX).collect::<String>())?;
    let mut out = writer.out;
    out.shrink_to_fit();
    Ok(out)
}

/// The message as far as it is written.
struct Writer {
    out: Vec<u8>,
    /// Number and start of the fields of all messages that are being written, the innermost last.
    fields: Vec<(u32, usize)>,
}

fn varint_bytes(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

impl Writer {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    fn tag(&mut self, field: &Field, wire: u32) {
        self.fields.push((field.number, self.out.len()));
        self.varint(u64::from(field.number << 3 | wire));
    }

    fn bytes(&mut self, field: &Field, bytes: &[u8]) {
        self.tag(field, LEN);
        self.varint(bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    /// Puts the length of what follows `start` before it.
    fn close(&mut self, start: usize) {
        let length = self.out.len() - start;
        let room = varint_bytes(length as u64);
        self.out.resize(self.out.len() + room, 0);
        self.out.copy_within(start..start + length, start + room);
        let mut rest = length;
        for (at, byte) in self.out[start..start + room].iter_mut().enumerate() {
            *byte = (rest & 0x7F) as u8 | if at + 1 < room { 0x80 } else { 0 };
            rest >>= 7;
        }
    }

    /// Brings the fields of a message, from the `first` on the stack, into the order of their numbers.
    fn order(&mut self, first: usize) {
        let fields = &self.fields[first..];
        if !fields.is_sorted_by_key(|(number, _)| *number) {
            let start = fields[0].1;
            let mut pieces: Vec<(u32, usize, usize)> = Vec::with_capacity(fields.len());
            for (i, (number, from)) in fields.iter().enumerate() {
                let to = fields.get(i + 1).map_or(self.out.len(), |next| next.1);
                pieces.push((*number, *from, to));
            }
            pieces.sort_by_key(|(number, ..)| *number);
            let mut ordered = Vec::with_capacity(self.out.len() - start);
            for (_, from, to) in pieces {
                ordered.extend_from_slice(&self.out[from..to]);
            }
            self.out.truncate(start);
            self.out.extend_from_slice(&ordered);
        }
        self.fields.truncate(first);
    }
}

/// Reads an object and writes the fields of its message.
struct Object<'w> {
    writer: &'w mut Writer,
    table: &'static Table,
    key: &'static str,
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object for \"{}\"", self.key)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { writer, table, .. } = self;
        let (first, start) = (writer.fields.len(), writer.out.len());
        while let Some(field) = map.next_key_seed(Key(table))? {
            let Some(field) = field else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let before = writer.out.len();
            map.next_value_seed(Value { writer, field, one_of: table.one_of })?;
            if table.one_of && before > start && writer.out.len() > before {
                // The last one is the one.
                let last = writer.out.split_off(before);
                writer.out.truncate(start);
                writer.out.extend_from_slice(&last);
                writer.fields.truncate(first);
                writer.fields.push((field.number, start));
            }
        }
        writer.order(first);
        Ok(())
    }
}

/// Finds the field of a key.
struct Key(&'static Table);

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Option<&'static Field>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Option<&'static Field>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.field(key))
    }
}

/// Reads the value of a field, which may be `null`, and writes the field.
struct Value<'w> {
    writer: &'w mut Writer,
    field: &'static Field,
    one_of: bool,
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value for \"{}\"", self.field.key)
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let Self { writer, field, one_of } = self;
        let scalar = Scalar(field);
        match field.kind {
            Kind::Message(table) => Element { writer, field, table }.deserialize(deserializer),
            Kind::Messages(table) => deserializer.deserialize_seq(List { writer, field, table: Some(table) }),
            Kind::Texts => deserializer.deserialize_seq(List { writer, field, table: None }),
            Kind::Text | Kind::Hex | Kind::Base64 => {
                let bytes = deserializer.deserialize_bytes(scalar)?;
                if one_of || !bytes.is_empty() {
                    writer.bytes(field, &bytes);
                }
                Ok(())
            }
            Kind::Bool => {
                let value = deserializer.deserialize_bool(Truth(field))?;
                if one_of || value {
                    writer.tag(field, VARINT);
                    writer.varint(value.into());
                }
                Ok(())
            }
            Kind::Double => {
                // `serde_json` rounds the last bit of some doubles, unless a feature says otherwise for the whole program.
                let json = <&RawValue>::deserialize(deserializer)?.get();
                // Claude's desktop application writes `{}` for a cost that it does not know. That one value is
                // nothing; the export is not lost for it.
                let inside = json.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
                if one_of && inside.is_some_and(|inside| inside.trim_ascii().is_empty()) {
                    return Ok(());
                }
                let value = real(field, json)?;
                if one_of || value.to_bits() != 0 {
                    writer.tag(field, FIXED64);
                    writer.out.extend_from_slice(&value.to_le_bytes());
                }
                Ok(())
            }
            Kind::Enum | Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Fixed32 | Kind::Fixed64 => {
                let value = deserializer.deserialize_any(Integer(field))?;
                if !one_of && value == 0 {
                    return Ok(());
                }
                match field.kind {
                    Kind::Fixed32 => {
                        writer.tag(field, FIXED32);
                        writer.out.extend_from_slice(&(value as u32).to_le_bytes());
                    }
                    Kind::Fixed64 => {
                        writer.tag(field, FIXED64);
                        writer.out.extend_from_slice(&(value as u64).to_le_bytes());
                    }
                    // Negative numbers are extended to 64 bits.
                    _ => {
                        writer.tag(field, VARINT);
                        writer.varint(value as u64);
                    }
                }
                Ok(())
            }
        }
    }
}

/// Reads a list: of messages of the table, or of texts.
struct List<'w> {
    writer: &'w mut Writer,
    field: &'static Field,
    table: Option<&'static Table>,
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list for \"{}\"", self.field.key)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { writer, field, table } = self;
        match table {
            Some(table) => while list.next_element_seed(Element { writer: &mut *writer, field, table })?.is_some() {},
            None => {
                while let Some(text) = list.next_element_seed(Scalar(field))? {
                    writer.bytes(field, &text);
                }
            }
        }
        Ok(())
    }
}

/// Reads one object, and writes it as one field.
struct Element<'w> {
    writer: &'w mut Writer,
    field: &'static Field,
    table: &'static Table,
}

impl<'de> DeserializeSeed<'de> for Element<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let Self { writer, field, table } = self;
        writer.tag(field, LEN);
        let start = writer.out.len();
        deserializer.deserialize_map(Object { writer, table, key: field.key })?;
        writer.close(start);
        Ok(())
    }
}

/// Reads a string, and decodes what it stands for.
#[derive(Clone, Copy)]
struct Scalar(&'static Field);

impl<'de> DeserializeSeed<'de> for Scalar {
    type Value = Cow<'de, [u8]>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl Scalar {
    fn decode<E: Error>(self, bytes: &[u8]) -> Result<Option<Vec<u8>>, E> {
        let key = self.0.key;
        match self.0.kind {
            Kind::Hex => match hex(bytes) {
                Some(decoded) => Ok(Some(decoded)),
                None => Err(E::custom(format_args!(
                    "\"{key}\" must be hex digits, two for each byte, got \"{}\"",
                    String::from_utf8_lossy(&bytes[..bytes.len().min(64)])
                ))),
            },
            Kind::Base64 => base64(bytes)
                .map(Some)
                .map_err(|error| E::custom(format_args!("\"{key}\" must be bytes in base 64: {error}"))),
            _ => Ok(without_surrogates(bytes)),
        }
    }
}

impl<'de> Visitor<'de> for Scalar {
    type Value = Cow<'de, [u8]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a string for \"{}\"", self.0.key)
    }

    fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
        Ok(self.decode(bytes)?.map_or(Cow::Borrowed(bytes), Cow::Owned))
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Ok(Cow::Owned(match self.decode(bytes)? {
            Some(decoded) => decoded,
            None => bytes.to_vec(),
        }))
    }
}

/// Reads `true` or `false`.
struct Truth(&'static Field);

impl Visitor<'_> for Truth {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "true or false for \"{}\"", self.0.key)
    }

    fn visit_bool<E>(self, value: bool) -> Result<bool, E> {
        Ok(value)
    }
}

/// Reads an integer within the range of its field.
struct Integer(&'static Field);

impl Integer {
    fn within<E: Error>(self, value: i128) -> Result<i128, E> {
        let (least, most): (i128, i128) = match self.0.kind {
            Kind::Uint32 | Kind::Fixed32 => (0, u32::MAX.into()),
            Kind::Fixed64 => (0, u64::MAX.into()),
            Kind::Int64 => (i64::MIN.into(), i64::MAX.into()),
            _ => (i32::MIN.into(), i32::MAX.into()),
        };
        if (least..=most).contains(&value) {
            return Ok(value);
        }
        Err(E::custom(format_args!("\"{}\" must be between {least} and {most}, got \"{value}\"", self.0.key)))
    }
}

impl Visitor<'_> for Integer {
    type Value = i128;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.kind {
            Kind::Enum => write!(f, "the number of \"{}\", not its name", self.0.key),
            _ => write!(f, "an integer for \"{}\"", self.0.key),
        }
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<i128, E> {
        self.within(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<i128, E> {
        self.within(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<i128, E> {
        /// Up to here, every double that is whole stands for one integer only.
        const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
        if value.fract() != 0.0 || value.abs() > EXACT_MAX {
            return Err(E::invalid_value(serde::de::Unexpected::Float(value), &self));
        }
        self.within(value as i128)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<i128, E> {
        let digits = value.strip_prefix('-').unwrap_or(value);
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        match value.parse::<i128>() {
            Ok(number) if plain && !matches!(self.0.kind, Kind::Enum) => self.within(number),
            _ => Err(E::invalid_value(serde::de::Unexpected::Str(value), &self)),
        }
    }
}

/// The double that a JSON value stands for.
fn real<E: Error>(field: &Field, json: &str) -> Result<f64, E> {
    let text = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(json);
    match text {
        "NaN" => return Ok(f64::NAN),
        "Infinity" => return Ok(f64::INFINITY),
        "-Infinity" => return Ok(f64::NEG_INFINITY),
        _ => {}
    }
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    match text.parse::<f64>() {
        Ok(number) if plain && number.is_finite() => Ok(number),
        _ => Err(E::custom(format_args!("\"{}\" must be a number that a double can hold, got {json}", field.key))),
    }
}

fn hex(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

fn base64(text: &[u8]) -> Result<Vec<u8>, base64::DecodeError> {
    const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let url_safe = text.iter().any(|byte| matches!(byte, b'-' | b'_'));
    let alphabet: &Alphabet = if url_safe { &URL_SAFE } else { &STANDARD };
    GeneralPurpose::new(alphabet, LENIENT).decode(text)
}

/// The text with U+FFFD for each lone surrogate, which `serde_json` gives in three bytes; `None` if there is none.
fn without_surrogates(text: &[u8]) -> Option<Vec<u8>> {
    if std::str::from_utf8(text).is_ok() {
        return None;
    }
    let mut text = text.to_vec();
    for at in 0..text.len().saturating_sub(2) {
        if text[at] == 0xED && text[at + 1] >= 0xA0 {
            text[at..at + 3].copy_from_slice("\u{FFFD}".as_bytes());
        }
    }
    Some(text)
}
