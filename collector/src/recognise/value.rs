//! Reading attribute values as producers really write them: numbers as texts, integers as doubles, texts as bytes.

use std::borrow::Cow;

use toolgauge_proto::otlp::{AnyValueView, Events};

use super::{decimal, failure};

/// Longest JSON text whose key names are read, in bytes.
const ARGUMENTS_BYTES_MAX: usize = 64 * 1_024;
/// Most key names of arguments that are kept.
const ARGUMENT_KEYS_MAX: usize = 64;
/// Longest key name of an argument that is kept, in bytes.
const ARGUMENT_KEY_BYTES_MAX: usize = 128;

/// Whether the value says nothing.
pub(super) fn is_empty(value: &AnyValueView<'_>) -> bool {
    matches!(value, AnyValueView::Empty | AnyValueView::String([]) | AnyValueView::Bytes([]))
}

/// The value as a short text; counts what had to be cut or could not be read.
#[inline]
pub(super) fn text<'a>(value: &AnyValueView<'a>, bytes_max: usize, unreadable: &mut i64) -> Option<Cow<'a, str>> {
    let text = match value {
        AnyValueView::String([]) | AnyValueView::Empty => return None,
        AnyValueView::String(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => {
                *unreadable += 1;
                String::from_utf8_lossy(bytes)
            }
        },
        AnyValueView::Bool(value) => Cow::Borrowed(if *value { "true" } else { "false" }),
        AnyValueView::Int(value) => Cow::Owned(value.to_string()),
        AnyValueView::Double(value) => Cow::Owned(value.to_string()),
        AnyValueView::Bytes(_) | AnyValueView::Array(_) | AnyValueView::KeyValueList(_) => {
            *unreadable += 1;
            return None;
        }
    };
    if text.len() <= bytes_max {
        return Some(text);
    }
    *unreadable += 1;
    Some(match text {
        Cow::Borrowed(text) => Cow::Borrowed(failure::cut(text, bytes_max)),
        Cow::Owned(text) => Cow::Owned(failure::cut(&text, bytes_max).to_owned()),
    })
}

/// The value as a number.
pub(super) fn float(value: AnyValueView<'_>, unreadable: &mut i64) -> Option<f64> {
    let number = match value {
        AnyValueView::Empty | AnyValueView::String([]) => return None,
        #[expect(clippy::cast_precision_loss, reason = "durations and counts are far below 2^53")]
        AnyValueView::Int(value) => Some(value as f64),
        AnyValueView::Double(value) => Some(value),
        AnyValueView::String(text) => std::str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok()),
        _ => None,
    };
    let number = number.filter(|number| number.is_finite());
    *unreadable += i64::from(number.is_none());
    number
}

/// The value as a whole number.
pub(super) fn int(value: AnyValueView<'_>, unreadable: &mut i64) -> Option<i64> {
    let number = match value {
        AnyValueView::Empty | AnyValueView::String([]) => return None,
        AnyValueView::Int(value) => Some(value),
        AnyValueView::String(text) => std::str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok()),
        _ => None,
    };
    if number.is_some() {
        return number;
    }
    #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and in range")]
    let whole = float(value, unreadable).filter(|n| n.fract() == 0.0 && n.abs() < 9e15).map(|n| n as i64);
    whole
}

/// The value as a status code: a number, or the name of a gRPC code.
pub(super) fn code(value: AnyValueView<'_>, unreadable: &mut i64) -> Option<i32> {
    if let AnyValueView::String(text) = value
        && let Some(code) = std::str::from_utf8(text).ok().and_then(failure::code_of)
    {
        return Some(code);
    }
    let code = int(value, unreadable)?;
    i32::try_from(code).inspect_err(|_| *unreadable += 1).ok()
}

/// The value as a count: a whole number, not negative.
pub(super) fn count(value: AnyValueView<'_>, unreadable: &mut i64) -> Option<i64> {
    let number = int(value, unreadable)?;
    *unreadable += i64::from(number < 0);
    (number >= 0).then_some(number)
}

/// The value as money, in units of 10^-9.
pub(super) fn cost(value: AnyValueView<'_>) -> Option<i128> {
    match value {
        AnyValueView::Double(value) => decimal::from_f64(value),
        AnyValueView::Int(value) => decimal::from_text(&value.to_string()),
        AnyValueView::String(text) => decimal::from_text(std::str::from_utf8(text).ok()?),
        _ => None,
    }
}

/// The bytes of arguments or of a result, whose size and fingerprint are kept: texts as they stand, structures as JSON.
pub(super) fn content<'a>(value: &AnyValueView<'a>) -> Cow<'a, [u8]> {
    match value {
        AnyValueView::Empty => Cow::Borrowed(&[]),
        AnyValueView::String(bytes) | AnyValueView::Bytes(bytes) => Cow::Borrowed(bytes),
        other => Cow::Owned(json(other).to_string().into_bytes()),
    }
}

fn json(value: &AnyValueView<'_>) -> serde_json::Value {
    match value {
        AnyValueView::Empty => serde_json::Value::Null,
        AnyValueView::String(bytes) | AnyValueView::Bytes(bytes) => String::from_utf8_lossy(bytes).into(),
        AnyValueView::Bool(value) => (*value).into(),
        AnyValueView::Int(value) => (*value).into(),
        AnyValueView::Double(value) => (*value).into(),
        AnyValueView::Array(values) => values.iter().map(|value| json(&value)).collect(),
        AnyValueView::KeyValueList(list) => {
            list.iter().map(|pair| (String::from_utf8_lossy(pair.key).into_owned(), json(&pair.value))).collect()
        }
    }
}

/// The key names of arguments, sorted, comma between; `None` if they are no JSON object.
pub(super) fn argument_keys(content: &[u8]) -> Option<String> {
    if content.first() != Some(&b'{') || content.len() > ARGUMENTS_BYTES_MAX {
        return None;
    }
    let mut keys = serde_json::from_slice::<Keys<'_>>(content).ok()?.0;
    keys.sort_unstable();
    keys.dedup();
    keys.truncate(ARGUMENT_KEYS_MAX);
    // Who has anything for a key may have a secret for one.
    let keys: Vec<Cow<'_, str>> = keys.into_iter().map(|key| shortened(failure::mask(key))).collect();
    let keys = keys.join(",");
    (!keys.is_empty()).then_some(keys)
}

fn shortened(key: Cow<'_, str>) -> Cow<'_, str> {
    if key.len() <= ARGUMENT_KEY_BYTES_MAX {
        return key;
    }
    Cow::Owned(failure::cut(&key, ARGUMENT_KEY_BYTES_MAX).to_owned())
}

/// The top-level key names of a JSON object; values are skipped.
struct Keys<'a>(Vec<Cow<'a, str>>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Keys<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeysVisitor;

        impl<'de> serde::de::Visitor<'de> for KeysVisitor {
            type Value = Keys<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut keys = Vec::new();
                while let Some(Key(key)) = map.next_key()? {
                    map.next_value::<serde::de::IgnoredAny>()?;
                    keys.push(key);
                }
                Ok(Keys(keys))
            }
        }

        deserializer.deserialize_map(KeysVisitor)
    }
}

#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// What the first `exception` event of a span says.
pub(super) struct Exception {
    pub(super) kind: Option<String>,
    pub(super) message: Option<String>,
}

/// The first `exception` event (OpenTelemetry semantic conventions, exceptions on spans).
pub(super) fn exception(events: Option<Events<'_>>) -> Option<Exception> {
    let event = events?.find(|event| event.name == b"exception")?;
    let mut exception = Exception { kind: None, message: None };
    let mut unreadable = 0;
    for attribute in event.attributes() {
        match attribute.key {
            b"exception.type" => exception.kind = text(&attribute.value, 256, &mut unreadable).map(Cow::into_owned),
            b"exception.message" => {
                exception.message = text(&attribute.value, 4_096, &mut unreadable).map(Cow::into_owned);
            }
            _ => {}
        }
    }
    Some(exception)
}

/// Of a rejection threshold so high, every span is rejected: what is there all the same stands for none.
const REJECTS_ALL: u64 = 1 << 56;

/// The rejection threshold T of a W3C tracestate's member `ot`: 1 to 14 hex digits, padded with zeros to 56 bits
/// (OpenTelemetry, tracestate probability sampling). Also the older `p:N`: probability 2^-N up to 62, and 63 for a span that stands for
/// none. `None` without either.
pub(super) fn threshold(trace_state: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(trace_state).ok()?;
    let member = text.split(',').find_map(|member| member.trim().strip_prefix("ot="))?;
    let value = |key: &str| member.split(';').find_map(|pair| pair.strip_prefix(key)?.strip_prefix(':'));
    if let Some(digits) = value("th") {
        // `from_str_radix` takes a sign as well.
        if !(1..=14).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        return u64::from_str_radix(digits, 16).ok().map(|t| t << (4 * (14 - digits.len())));
    }
    let digits = value("p").filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    match digits.parse::<u32>().ok()? {
        p @ 0..=56 => Some(REJECTS_ALL - (REJECTS_ALL >> p)),
        // Weights end long before that.
        57..=62 => Some(REJECTS_ALL - 1),
        63 => Some(REJECTS_ALL),
        _ => None,
    }
}

/// The rejection threshold of a span that stands for `events` spans; `None` if that is not at least 1.
pub(super) fn threshold_of_count(events: f64) -> Option<u64> {
    const ALL: u64 = 1 << 56;
    // A double has 53 bits of it, more than six places of the count need.
    (events >= 1.0 && events.is_finite()).then(|| ALL - ((ALL as f64 / events).round() as u64).clamp(1, ALL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_however_they_are_written() {
        let cases = [
            (AnyValueView::Int(7), Some(7), 0),
            (AnyValueView::Double(7.0), Some(7), 0),
            (AnyValueView::String(b" 7 "), Some(7), 0),
            (AnyValueView::String(b"7.0"), Some(7), 0),
            (AnyValueView::Empty, None, 0),
            (AnyValueView::String(b""), None, 0),
            (AnyValueView::Int(-7), None, 1),
            (AnyValueView::Bool(true), None, 1),
            (AnyValueView::String(b"seven"), None, 1),
        ];
        for (value, expect, expect_unreadable) in cases {
            let mut unreadable = 0;
            assert_eq!(count(value, &mut unreadable), expect, "{value:?}");
            assert_eq!(unreadable, expect_unreadable, "{value:?}");
        }
    }

    #[test]
    fn key_names_are_sorted_and_only_objects_have_them() {
        assert_eq!(argument_keys(br#"{"b":{"x":1},"a":[1]}"#).as_deref(), Some("a,b"));
        assert_eq!(argument_keys(b"{}"), None);
        assert_eq!(argument_keys(b"[1]"), None);
        assert_eq!(argument_keys(b"{\"a\":"), None);
        assert_eq!(argument_keys(br#"{"a\n":1}"#).as_deref(), Some("a\n"));
    }

    #[test]
    fn counts_that_a_span_stands_for_become_thresholds() {
        assert_eq!(threshold_of_count(1.0), Some(0));
        assert_eq!(threshold_of_count(4.0), Some(0xc0_0000_0000_0000));
        assert_eq!(threshold_of_count(10.0), Some((1 << 56) - 7_205_759_403_792_794));
        assert_eq!(threshold_of_count(1e30), Some((1 << 56) - 1));
        for none in [0.0, 0.5, -3.0, f64::NAN, f64::INFINITY] {
            assert_eq!(threshold_of_count(none), None, "{none}");
        }
    }

    #[test]
    fn thresholds_are_padded_to_56_bits() {
        let cases: [(&[u8], _); 16] = [
            (b"ot=th:0", Some(0)),
            (b"a=b, ot=rv:1;th:c", Some(0xc0_0000_0000_0000)),
            (b"ot=th:e6666666666666", Some(0xe6_6666_6666_6666)),
            (b"ot=p:2;r:62", Some(0xc0_0000_0000_0000)),
            (b"ot=p:0", Some(0)),
            (b"ot=p:56", Some((1 << 56) - 1)),
            (b"ot=p:62", Some((1 << 56) - 1)),
            (b"ot=p:63", Some(1 << 56)),
            (b"ot=p:64", None),
            (b"ot=p:+3", None),
            (b"ot=th:+f", None),
            (b"ot=th:g", None),
            (b"ot=th:", None),
            (b"ot=th:123456789abcdef", None),
            (b"xot=th:0", None),
            (b"", None),
        ];
        for (state, expect) in cases {
            assert_eq!(threshold(state), expect, "{}", String::from_utf8_lossy(state));
        }
    }
}
