//! Requests as no encoder writes them: fields in any order, any number of times, unknown fields and groups everywhere,
//! varints longer than needed. What is written follows from the bytes of a [`Source`], so that proptest can shrink it.

/// The type of a field.
#[derive(Clone, Copy)]
enum Kind {
    Varint,
    Fixed32,
    Fixed64,
    Text,
    Bytes,
    Message(&'static [(u32, Kind)]),
    PackedVarint,
    PackedFixed64,
}

use Kind::{Bytes, Fixed32, Fixed64, Message, PackedFixed64, PackedVarint, Text, Varint};

static ANY_VALUE: [(u32, Kind); 8] = [
    (1, Text),
    (2, Varint),
    (3, Varint),
    (4, Fixed64),
    (5, Message(&[(1, Message(&ANY_VALUE))])),
    (6, Message(&[(1, Message(&KEY_VALUE))])),
    (7, Bytes),
    (8, Varint),
];
static KEY_VALUE: [(u32, Kind); 3] = [(1, Text), (2, Message(&ANY_VALUE)), (3, Varint)];
static ENTITY_REF: [(u32, Kind); 4] = [(1, Text), (2, Text), (3, Text), (4, Text)];
static RESOURCE: [(u32, Kind); 3] = [(1, Message(&KEY_VALUE)), (2, Varint), (3, Message(&ENTITY_REF))];
static SCOPE: [(u32, Kind); 4] = [(1, Text), (2, Text), (3, Message(&KEY_VALUE)), (4, Varint)];

static SPAN: [(u32, Kind); 16] = [
    (1, Bytes),
    (2, Bytes),
    (3, Text),
    (4, Bytes),
    (5, Text),
    (6, Varint),
    (7, Fixed64),
    (8, Fixed64),
    (9, Message(&KEY_VALUE)),
    (10, Varint),
    (11, Message(&[(1, Fixed64), (2, Text), (3, Message(&KEY_VALUE)), (4, Varint)])),
    (12, Varint),
    (13, Message(&[(1, Bytes), (2, Bytes), (3, Text), (4, Message(&KEY_VALUE)), (5, Varint), (6, Fixed32)])),
    (14, Varint),
    (15, Message(&[(2, Text), (3, Varint)])),
    (16, Fixed32),
];
static SCOPE_SPANS: [(u32, Kind); 3] = [(1, Message(&SCOPE)), (2, Message(&SPAN)), (3, Text)];
static RESOURCE_SPANS: [(u32, Kind); 3] = [(1, Message(&RESOURCE)), (2, Message(&SCOPE_SPANS)), (3, Text)];
static TRACES: [(u32, Kind); 1] = [(1, Message(&RESOURCE_SPANS))];

static LOG_RECORD: [(u32, Kind); 11] = [
    (1, Fixed64),
    (2, Varint),
    (3, Text),
    (5, Message(&ANY_VALUE)),
    (6, Message(&KEY_VALUE)),
    (7, Varint),
    (8, Fixed32),
    (9, Bytes),
    (10, Bytes),
    (11, Fixed64),
    (12, Text),
];
static SCOPE_LOGS: [(u32, Kind); 3] = [(1, Message(&SCOPE)), (2, Message(&LOG_RECORD)), (3, Text)];
static RESOURCE_LOGS: [(u32, Kind); 3] = [(1, Message(&RESOURCE)), (2, Message(&SCOPE_LOGS)), (3, Text)];
static LOGS: [(u32, Kind); 1] = [(1, Message(&RESOURCE_LOGS))];

static EXEMPLAR: [(u32, Kind); 6] =
    [(2, Fixed64), (3, Fixed64), (4, Bytes), (5, Bytes), (6, Fixed64), (7, Message(&KEY_VALUE))];
static NUMBER: [(u32, Kind); 7] = [
    (2, Fixed64),
    (3, Fixed64),
    (4, Fixed64),
    (5, Message(&EXEMPLAR)),
    (6, Fixed64),
    (7, Message(&KEY_VALUE)),
    (8, Varint),
];
static HISTOGRAM: [(u32, Kind); 11] = [
    (2, Fixed64),
    (3, Fixed64),
    (4, Fixed64),
    (5, Fixed64),
    (6, PackedFixed64),
    (7, PackedFixed64),
    (8, Message(&EXEMPLAR)),
    (9, Message(&KEY_VALUE)),
    (10, Varint),
    (11, Fixed64),
    (12, Fixed64),
];
static BUCKETS: [(u32, Kind); 2] = [(1, Varint), (2, PackedVarint)];
static EXPONENTIAL: [(u32, Kind); 14] = [
    (1, Message(&KEY_VALUE)),
    (2, Fixed64),
    (3, Fixed64),
    (4, Fixed64),
    (5, Fixed64),
    (6, Varint),
    (7, Fixed64),
    (8, Message(&BUCKETS)),
    (9, Message(&BUCKETS)),
    (10, Varint),
    (11, Message(&EXEMPLAR)),
    (12, Fixed64),
    (13, Fixed64),
    (14, Fixed64),
];
static SUMMARY: [(u32, Kind); 7] = [
    (2, Fixed64),
    (3, Fixed64),
    (4, Fixed64),
    (5, Fixed64),
    (6, Message(&[(1, Fixed64), (2, Fixed64)])),
    (7, Message(&KEY_VALUE)),
    (8, Varint),
];
static METRIC: [(u32, Kind); 9] = [
    (1, Text),
    (2, Text),
    (3, Text),
    (5, Message(&[(1, Message(&NUMBER))])),
    (7, Message(&[(1, Message(&NUMBER)), (2, Varint), (3, Varint)])),
    (9, Message(&[(1, Message(&HISTOGRAM)), (2, Varint)])),
    (10, Message(&[(1, Message(&EXPONENTIAL)), (2, Varint)])),
    (11, Message(&[(1, Message(&SUMMARY))])),
    (12, Message(&KEY_VALUE)),
];
static SCOPE_METRICS: [(u32, Kind); 3] = [(1, Message(&SCOPE)), (2, Message(&METRIC)), (3, Text)];
static RESOURCE_METRICS: [(u32, Kind); 3] = [(1, Message(&RESOURCE)), (2, Message(&SCOPE_METRICS)), (3, Text)];
static METRICS: [(u32, Kind); 1] = [(1, Message(&RESOURCE_METRICS))];

/// A trace request made from `entropy`.
pub(super) fn traces(entropy: &[u8]) -> Vec<u8> {
    Source(entropy).message(&TRACES, 0)
}

/// A log request made from `entropy`.
pub(super) fn logs(entropy: &[u8]) -> Vec<u8> {
    Source(entropy).message(&LOGS, 0)
}

/// A metrics request made from `entropy`.
pub(super) fn metrics(entropy: &[u8]) -> Vec<u8> {
    Source(entropy).message(&METRICS, 0)
}

/// One varint.
pub(super) fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// One field that is a string, bytes or a message.
pub(super) fn len(tag: u32, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint(u64::from(tag << 3 | 2), &mut out);
    varint(value.len() as u64, &mut out);
    out.extend_from_slice(value);
    out
}

/// Bytes that decide; 0 when there are no more.
struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::from(self.byte()) % limit
    }

    fn number(&mut self) -> u64 {
        match self.below(5) {
            0 => u64::from(self.byte() % 4),
            1 => u64::from(self.byte()),
            2 => u64::from_le_bytes([self.byte(), self.byte(), self.byte(), self.byte(), 0, 0, 0, 0]),
            3 => u64::MAX - u64::from(self.byte()),
            _ => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
        }
    }

    /// A varint, now and then longer than it needs to be.
    fn varint(&mut self, value: u64, out: &mut Vec<u8>) {
        varint(value, out);
        if value < 1 << 56 && self.below(16) == 15 {
            if let Some(last) = out.last_mut() {
                *last |= 0x80;
            }
            out.extend_from_slice(&[0x80, 0x00][self.below(2)..]);
        }
    }

    fn text(&mut self) -> Vec<u8> {
        let count = if self.below(32) == 31 { 300 } else { self.below(9) };
        let mut text: Vec<u8> = (0..count).map(|_| b'a' + self.byte() % 26).collect();
        if self.below(16) == 15 {
            text.extend_from_slice("é→".as_bytes());
        }
        text
    }

    fn raw(&mut self) -> Vec<u8> {
        let count = [0, 8, 16, 3][self.below(4)];
        (0..count).map(|_| self.byte()).collect()
    }

    fn delimited(&mut self, value: &[u8], out: &mut Vec<u8>) {
        self.varint(value.len() as u64, out);
        out.extend_from_slice(value);
    }

    fn message(&mut self, fields: &'static [(u32, Kind)], depth: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let count = if self.below(8) == 7 { 24 } else { self.below(8) };
        for _ in 0..count {
            if self.0.is_empty() {
                break;
            }
            match self.below(12) {
                11 => self.unknown(fields, 0, &mut out),
                _ => {
                    // Deep down only scalars, or values would nest without end.
                    let (tag, kind) = fields[self.below(fields.len())];
                    if depth < 14 || !matches!(kind, Message(_)) {
                        self.field(tag, kind, depth, &mut out);
                    }
                }
            }
        }
        out
    }

    fn field(&mut self, tag: u32, kind: Kind, depth: usize, out: &mut Vec<u8>) {
        let wire_type = match kind {
            Varint => 0,
            Fixed64 => 1,
            Text | Bytes | Message(_) | PackedVarint | PackedFixed64 => 2,
            Fixed32 => 5,
        };
        match kind {
            PackedVarint if self.below(2) == 0 => return self.field(tag, Varint, depth, out),
            PackedFixed64 if self.below(2) == 0 => return self.field(tag, Fixed64, depth, out),
            _ => self.varint(u64::from(tag << 3 | wire_type), out),
        }
        match kind {
            Varint => {
                let number = self.number();
                self.varint(number, out);
            }
            Fixed32 => out.extend_from_slice(&(self.number() as u32).to_le_bytes()),
            Fixed64 => out.extend_from_slice(&self.number().to_le_bytes()),
            Text => {
                let text = self.text();
                self.delimited(&text, out);
            }
            Bytes => {
                let raw = self.raw();
                self.delimited(&raw, out);
            }
            Message(fields) => {
                let message = self.message(fields, depth + 1);
                self.delimited(&message, out);
            }
            PackedVarint => {
                let mut packed = Vec::new();
                for _ in 0..self.below(5) {
                    let number = self.number();
                    self.varint(number, &mut packed);
                }
                self.delimited(&packed, out);
            }
            PackedFixed64 => {
                let packed: Vec<u8> = (0..self.below(5)).flat_map(|_| self.number().to_le_bytes()).collect();
                self.delimited(&packed, out);
            }
        }
    }

    /// A field, perhaps a group, that is not among `fields`.
    fn unknown(&mut self, fields: &'static [(u32, Kind)], depth: usize, out: &mut Vec<u8>) {
        let tag = [4, 17, 31, 99, 2000, (1 << 29) - 1][self.below(6)];
        if fields.iter().any(|(known, _)| *known == tag) {
            return;
        }
        match self.below(5) {
            4 if depth < 5 => {
                self.varint(u64::from(tag << 3 | 3), out);
                for _ in 0..self.below(3) {
                    self.unknown(&[], depth + 1, out);
                }
                self.varint(u64::from(tag << 3 | 4), out);
            }
            3 => self.field(tag, Fixed32, 0, out),
            2 => self.field(tag, Fixed64, 0, out),
            1 => self.field(tag, Bytes, 0, out),
            _ => self.field(tag, Varint, 0, out),
        }
    }
}
