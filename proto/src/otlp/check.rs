//! The check of a whole request: the schema of OTLP 1.x as tables, one function per message.
//!
//! The field numbers are those of `opentelemetry-proto` 0.33; a field that is newer is unknown here and is skipped.

use super::wire::{self, Broken, DEPTH_MAX, Malformed, Reader, usual_pair, usual_text};

type Check = fn(Reader<'_>, u32) -> Result<(), Broken>;

/// Runs `check` over the request `whole`.
pub(super) fn request(whole: &[u8], check: Check) -> Result<(), Malformed> {
    check(Reader::new(whole), DEPTH_MAX).map_err(|broken| broken.within(whole))
}

/// Reads one field of a known kind: `len` is a string or bytes.
macro_rules! field {
    ($reader:ident, $key:ident, $depth:ident, $tag:literal, varint) => {{
        $reader.expect($key, wire::varint($tag))?;
        $reader.varint()?;
    }};
    ($reader:ident, $key:ident, $depth:ident, $tag:literal, fixed32) => {{
        $reader.expect($key, wire::fixed32($tag))?;
        $reader.fixed32()?;
    }};
    ($reader:ident, $key:ident, $depth:ident, $tag:literal, fixed64) => {{
        $reader.expect($key, wire::fixed64($tag))?;
        $reader.fixed64()?;
    }};
    ($reader:ident, $key:ident, $depth:ident, $tag:literal, len) => {{
        $reader.expect($key, wire::len($tag))?;
        $reader.bytes()?;
    }};
    ($reader:ident, $key:ident, $depth:ident, $tag:literal, message($inner:ident)) => {{
        $reader.expect($key, wire::len($tag))?;
        if $depth == 0 {
            return Err($reader.too_deep());
        }
        $inner(Reader::new($reader.bytes()?), $depth - 1)?;
    }};
    // A repeated number, packed or one by one.
    ($reader:ident, $key:ident, $depth:ident, $tag:literal, repeated($kind:ident)) => {{
        if $key == wire::len($tag) {
            let mut packed = Reader::new($reader.bytes()?);
            while !packed.is_empty() {
                packed.$kind()?;
            }
        } else {
            field!($reader, $key, $depth, $tag, $kind);
        }
    }};
}

/// Writes the checks of messages: per field its number and its kind. `depth` is how many levels may follow.
macro_rules! messages {
    ($($name:ident { $($tag:literal: $kind:ident $(($inner:ident))?),* $(,)? })*) => {$(
        pub(super) fn $name(mut reader: Reader<'_>, depth: u32) -> Result<(), Broken> {
            while !reader.is_empty() {
                let key = reader.key()?;
                match key >> 3 {
                    $($tag => field!(reader, key, depth, $tag, $kind $(($inner))?),)*
                    _ => reader.skip(key, depth)?,
                }
            }
            Ok(())
        }
    )*};
}

/// Checks an attribute; most are of the usual form, and then this is all.
#[inline(always)]
fn key_value(message: Reader<'_>, depth: u32) -> Result<(), Broken> {
    match usual_pair(message.rest()) {
        Some((_, value)) if depth > 0 && usual_text(value).is_some() => Ok(()),
        Some((_, value)) if depth > 0 => any_value(Reader::new(value), depth - 1),
        _ => any_key_value(message, depth),
    }
}

messages! {
    any_value {
        1: len, 2: varint, 3: varint, 4: fixed64, 5: message(array_value), 6: message(key_value_list), 7: len, 8: varint,
    }
    array_value { 1: message(any_value) }
    key_value_list { 1: message(key_value) }
    any_key_value { 1: len, 2: message(any_value), 3: varint }
    scope { 1: len, 2: len, 3: message(key_value), 4: varint }
    entity_ref { 1: len, 2: len, 3: len, 4: len }
    resource { 1: message(key_value), 2: varint, 3: message(entity_ref) }

    traces { 1: message(resource_spans) }
    resource_spans { 1: message(resource), 2: message(scope_spans), 3: len }
    scope_spans { 1: message(scope), 2: message(span), 3: len }
    span {
        1: len, 2: len, 3: len, 4: len, 5: len, 6: varint, 7: fixed64, 8: fixed64, 9: message(key_value), 10: varint,
        11: message(event), 12: varint, 13: message(link), 14: varint, 15: message(status), 16: fixed32,
    }
    event { 1: fixed64, 2: len, 3: message(key_value), 4: varint }
    link { 1: len, 2: len, 3: len, 4: message(key_value), 5: varint, 6: fixed32 }
    status { 2: len, 3: varint }

    logs { 1: message(resource_logs) }
    resource_logs { 1: message(resource), 2: message(scope_logs), 3: len }
    scope_logs { 1: message(scope), 2: message(log_record), 3: len }
    log_record {
        1: fixed64, 2: varint, 3: len, 5: message(any_value), 6: message(key_value), 7: varint, 8: fixed32, 9: len, 10: len,
        11: fixed64, 12: len,
    }

    metrics { 1: message(resource_metrics) }
    resource_metrics { 1: message(resource), 2: message(scope_metrics), 3: len }
    scope_metrics { 1: message(scope), 2: message(metric), 3: len }
    metric {
        1: len, 2: len, 3: len, 5: message(gauge), 7: message(sum), 9: message(histogram), 10: message(exponential_histogram),
        11: message(summary), 12: message(key_value),
    }
    gauge { 1: message(number_point) }
    sum { 1: message(number_point), 2: varint, 3: varint }
    histogram { 1: message(histogram_point), 2: varint }
    exponential_histogram { 1: message(exponential_histogram_point), 2: varint }
    summary { 1: message(summary_point) }
    number_point {
        2: fixed64, 3: fixed64, 4: fixed64, 5: message(exemplar), 6: fixed64, 7: message(key_value), 8: varint,
    }
    histogram_point {
        2: fixed64, 3: fixed64, 4: fixed64, 5: fixed64, 6: repeated(fixed64), 7: repeated(fixed64), 8: message(exemplar),
        9: message(key_value), 10: varint, 11: fixed64, 12: fixed64,
    }
    exponential_histogram_point {
        1: message(key_value), 2: fixed64, 3: fixed64, 4: fixed64, 5: fixed64, 6: varint, 7: fixed64, 8: message(buckets),
        9: message(buckets), 10: varint, 11: message(exemplar), 12: fixed64, 13: fixed64, 14: fixed64,
    }
    buckets { 1: varint, 2: repeated(varint) }
    summary_point {
        2: fixed64, 3: fixed64, 4: fixed64, 5: fixed64, 6: message(quantile), 7: message(key_value), 8: varint,
    }
    quantile { 1: fixed64, 2: fixed64 }
    exemplar { 2: fixed64, 3: fixed64, 4: len, 5: len, 6: fixed64, 7: message(key_value) }
}
