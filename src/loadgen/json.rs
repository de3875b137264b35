//! The exports of [`wire`](super::wire) as OTLP/JSON: ids as hex, 64-bit integers as text.

use std::fmt::Write as _;

/// What a field holds.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Message(&'static [Field]),
    Text,
    Hex,
    /// A number of 32 bits or an enumeration.
    Int,
    /// 64 bits: written as text.
    Long,
    Double,
}

/// A field that `wire` writes.
#[derive(Debug, Clone, Copy)]
struct Field {
    number: u64,
    name: &'static str,
    kind: Kind,
    repeated: bool,
}

const fn one(number: u64, name: &'static str, kind: Kind) -> Field {
    Field { number, name, kind, repeated: false }
}

const fn many(number: u64, name: &'static str, of: &'static [Field]) -> Field {
    Field { number, name, kind: Kind::Message(of), repeated: true }
}

const VALUE: &[Field] =
    &[one(1, "stringValue", Kind::Text), one(3, "intValue", Kind::Long), one(4, "doubleValue", Kind::Double)];
const ATTRIBUTE: &[Field] = &[one(1, "key", Kind::Text), one(2, "value", Kind::Message(VALUE))];
const STATUS: &[Field] = &[one(2, "message", Kind::Text), one(3, "code", Kind::Int)];
const SPAN: &[Field] = &[
    one(1, "traceId", Kind::Hex),
    one(2, "spanId", Kind::Hex),
    one(3, "traceState", Kind::Text),
    one(4, "parentSpanId", Kind::Hex),
    one(5, "name", Kind::Text),
    one(6, "kind", Kind::Int),
    one(7, "startTimeUnixNano", Kind::Long),
    one(8, "endTimeUnixNano", Kind::Long),
    many(9, "attributes", ATTRIBUTE),
    one(15, "status", Kind::Message(STATUS)),
];
const SCOPE_SPANS: &[Field] = &[one(1, "scope", Kind::Message(&[one(1, "name", Kind::Text)])), many(2, "spans", SPAN)];
const RESOURCE_SPANS: &[Field] =
    &[one(1, "resource", Kind::Message(&[many(1, "attributes", ATTRIBUTE)])), many(2, "scopeSpans", SCOPE_SPANS)];
const REQUEST: &[Field] = &[many(1, "resourceSpans", RESOURCE_SPANS)];

/// A value on the wire.
#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The next field's number and value; `None` at the end.
fn next<'a>(bytes: &mut &'a [u8]) -> Option<(u64, Value<'a>)> {
    let tag = varint(bytes)?;
    let value = match tag & 7 {
        0 => Value::Number(varint(bytes)?),
        1 => {
            let (value, rest) = bytes.split_first_chunk()?;
            *bytes = rest;
            Value::Number(u64::from_le_bytes(*value))
        }
        _ => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            let (value, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            Value::Bytes(value)
        }
    };
    Some((tag >> 3, value))
}

fn write_value(out: &mut String, kind: Kind, value: Value<'_>) {
    // A String takes everything.
    let _infallible = match (kind, value) {
        (Kind::Message(fields), Value::Bytes(bytes)) => {
            write_message(out, fields, bytes);
            Ok(())
        }
        (Kind::Text, Value::Bytes(bytes)) => {
            let text = serde_json::Value::from(String::from_utf8_lossy(bytes));
            write!(out, "{text}")
        }
        (Kind::Hex, Value::Bytes(bytes)) => {
            out.push('"');
            let _infallible = bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}"));
            out.push('"');
            Ok(())
        }
        (Kind::Int, Value::Number(number)) => write!(out, "{number}"),
        (Kind::Long, Value::Number(number)) => write!(out, "\"{number}\""),
        (Kind::Double, Value::Number(bits)) => write!(out, "{}", serde_json::Value::from(f64::from_bits(bits))),
        _ => write!(out, "null"),
    };
}

fn write_message(out: &mut String, fields: &[Field], message: &[u8]) {
    out.push('{');
    let mut is_first = true;
    for field in fields {
        let mut rest = message;
        let mut found = false;
        while let Some((number, value)) = next(&mut rest) {
            if number != field.number {
                continue;
            }
            if !found {
                let comma = if is_first { "" } else { "," };
                let _infallible = write!(out, "{comma}\"{}\":{}", field.name, if field.repeated { "[" } else { "" });
                is_first = false;
            } else if field.repeated {
                out.push(',');
            }
            write_value(out, field.kind, value);
            found = true;
            if !field.repeated {
                break;
            }
        }
        if found && field.repeated {
            out.push(']');
        }
    }
    out.push('}');
}

/// The JSON of an export.
pub(crate) fn of(request: &[u8]) -> String {
    // About what the names of fields add.
    let mut out = String::with_capacity(2 * request.len());
    write_message(&mut out, REQUEST, request);
    out
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::wire::{self, Message, Span, SpanKind, Value};
    use super::*;

    #[test]
    fn exports_are_written_as_otlp_wants_json() {
        let mut spans = Message::default();
        let span = Span {
            trace_id: [0xAB; 16],
            span_id: 7,
            trace_state: "ot=th:8",
            parent: None,
            name: "a \"b\"",
            kind: SpanKind::Client,
            start_ns: 1_769_817_600_000_000_001,
            end_ns: 5,
            failed: Some("no"),
        };
        wire::span(&mut spans, &span, &[("n", Value::Int(3)), ("d", Value::Double(0.5)), ("t", Value::Text("ü"))]);
        wire::span(&mut spans, &Span { trace_state: "", parent: Some(1), failed: None, ..span }, &[]);
        let body: Bytes = wire::request([("shop", &spans)].into_iter());
        let found: serde_json::Value = serde_json::from_str(&of(&body)).unwrap();
        let text = |key: &str, value: &str| serde_json::json!({"key": key, "value": {"stringValue": value}});
        let expected = serde_json::json!({"resourceSpans": [{
            "resource": {"attributes": [
                text("service.name", "shop"), text("service.version", "1.4.2"),
                text("deployment.environment.name", "production"),
            ]},
            "scopeSpans": [{"scope": {"name": "toolgauge.loadgen"}, "spans": [
                {
                    "traceId": "ab".repeat(16), "spanId": "0000000000000007", "traceState": "ot=th:8", "name": "a \"b\"", "kind": 3,
                    "startTimeUnixNano": "1769817600000000001", "endTimeUnixNano": "5",
                    "attributes": [
                        {"key": "n", "value": {"intValue": "3"}}, {"key": "d", "value": {"doubleValue": 0.5}}, text("t", "ü"),
                    ],
                    "status": {"message": "no", "code": 2},
                },
                {
                    "traceId": "ab".repeat(16), "spanId": "0000000000000007", "parentSpanId": "0000000000000001",
                    "name": "a \"b\"", "kind": 3, "startTimeUnixNano": "1769817600000000001", "endTimeUnixNano": "5",
                },
            ]}],
        }]});
        assert_eq!(found, expected);
    }
}
