//! Writes the few OTLP messages that the fleet sends, straight as protobuf: a load tool must cost less than what it loads.

use bytes::Bytes;

/// `SPAN_KIND_...` of OTLP.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SpanKind {
    Internal = 1,
    Server = 2,
    Client = 3,
}

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LEN: u32 = 2;
const ERROR: u64 = 2;

/// A message that is being written.
#[derive(Debug, Default, Clone)]
pub(crate) struct Message(Vec<u8>);

fn varint_bytes(value: usize) -> usize {
    (70 - (value as u64 | 1).leading_zeros() as usize) / 7
}

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn tag(&mut self, number: u32, wire: u32) {
        self.varint(u64::from(number << 3 | wire));
    }

    fn number(&mut self, number: u32, value: u64) {
        self.tag(number, VARINT);
        self.varint(value);
    }

    fn fixed64(&mut self, number: u32, value: u64) {
        self.tag(number, FIXED64);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.tag(number, LEN);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// Writes a message into this one; its length is put before it when it is whole.
    fn message(&mut self, number: u32, write: impl FnOnce(&mut Self)) {
        self.tag(number, LEN);
        let start = self.0.len();
        write(self);
        let length = self.0.len() - start;
        let room = varint_bytes(length);
        self.0.resize(self.0.len() + room, 0);
        self.0.copy_within(start..start + length, start + room);
        let mut rest = length;
        for (at, byte) in self.0[start..start + room].iter_mut().enumerate() {
            *byte = (rest & 0x7F) as u8 | if at + 1 < room { 0x80 } else { 0 };
            rest >>= 7;
        }
    }
}

/// An attribute's value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value<'a> {
    Text(&'a str),
    Int(u64),
    Double(f64),
}

fn attribute(message: &mut Message, number: u32, key: &str, value: Value<'_>) {
    message.message(number, |pair| {
        pair.bytes(1, key.as_bytes());
        pair.message(2, |any| match value {
            Value::Text(text) => any.bytes(1, text.as_bytes()),
            Value::Int(value) => any.number(3, value),
            Value::Double(value) => any.fixed64(4, value.to_bits()),
        });
    });
}

/// What a span says.
#[derive(Debug)]
pub(crate) struct Span<'a> {
    pub(crate) trace_id: [u8; 16],
    pub(crate) span_id: u64,
    /// Empty for none.
    pub(crate) trace_state: &'a str,
    pub(crate) parent: Option<u64>,
    pub(crate) name: &'a str,
    pub(crate) kind: SpanKind,
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
    /// The message of its error, if it failed.
    pub(crate) failed: Option<&'a str>,
}

/// Appends a span to the list of a scope.
pub(crate) fn span(spans: &mut Message, span: &Span<'_>, attributes: &[(&str, Value<'_>)]) {
    const SPANS: u32 = 2;
    spans.message(SPANS, |message| {
        message.bytes(1, &span.trace_id);
        message.bytes(2, &span.span_id.to_be_bytes());
        if !span.trace_state.is_empty() {
            message.bytes(3, span.trace_state.as_bytes());
        }
        if let Some(parent) = span.parent {
            message.bytes(4, &parent.to_be_bytes());
        }
        message.bytes(5, span.name.as_bytes());
        message.number(6, span.kind as u64);
        message.fixed64(7, span.start_ns);
        message.fixed64(8, span.end_ns);
        for (key, value) in attributes {
            attribute(message, 9, key, *value);
        }
        if let Some(text) = span.failed {
            message.message(15, |status| {
                status.bytes(2, text.as_bytes());
                status.number(3, ERROR);
            });
        }
    });
}

/// An `ExportTraceServiceRequest` with the spans of each service.
pub(crate) fn request<'a>(services: impl Iterator<Item = (&'a str, &'a Message)>) -> Bytes {
    let mut request = Message::default();
    for (service, spans) in services {
        if spans.0.is_empty() {
            continue;
        }
        request.message(1, |resource_spans| {
            resource_spans.message(1, |resource| {
                for (key, value) in [
                    ("service.name", service),
                    ("service.version", "1.4.2"),
                    ("deployment.environment.name", "production"),
                ] {
                    attribute(resource, 1, key, Value::Text(value));
                }
            });
            resource_spans.message(2, |scope_spans| {
                scope_spans.message(1, |scope| scope.bytes(1, b"toolgauge.loadgen"));
                scope_spans.0.extend_from_slice(&spans.0);
            });
        });
    }
    request.0.into()
}

impl Message {
    pub(crate) fn append(&mut self, other: &Self) {
        self.0.extend_from_slice(&other.0);
    }
}
