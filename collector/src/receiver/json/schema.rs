//! The messages of OTLP 1.x as JSON names them: one table per message.
//!
//! The field numbers are those of `opentelemetry-proto` 0.33. A field that is newer is unknown here, and is skipped.

use Kind::{Base64, Bool, Double, Enum, Fixed32, Fixed64, Hex, Int32, Int64, Message, Messages, Text, Texts, Uint32};

/// What stands in a field, in JSON and in protobuf.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// A string.
    Text,
    /// A list of strings.
    Texts,
    /// Bytes as hex digits: trace and span ids.
    Hex,
    /// Bytes in base 64: all others.
    Base64,
    /// A varint of 0 or 1.
    Bool,
    /// A number, or `"NaN"`, `"Infinity"`, `"-Infinity"`.
    Double,
    /// A number; its name is not allowed.
    Enum,
    /// A varint, signed.
    Int32,
    /// A varint, signed.
    Int64,
    /// A varint.
    Uint32,
    /// Four bytes.
    Fixed32,
    /// Eight bytes.
    Fixed64,
    /// An object.
    Message(&'static Table),
    /// A list of objects.
    Messages(&'static Table),
}

/// One field of a message.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) key: &'static str,
    pub(super) number: u32,
    pub(super) kind: Kind,
}

/// One message.
#[derive(Debug)]
pub(super) struct Table {
    /// At most one of the fields is there, and it is there even if it is 0 or empty.
    pub(super) one_of: bool,
    pub(super) fields: &'static [Field],
}

impl Table {
    pub(super) fn field(&self, key: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.key == key)
    }
}

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident { $($number:literal $key:literal $kind:expr),* $(,)? })*) => {
        $($(#[$doc])* pub(super) static $name: Table =
            Table { one_of: false, fields: &[$(Field { key: $key, number: $number, kind: $kind }),*] };)*
    };
}

static ANY_VALUE: Table = Table {
    one_of: true,
    fields: &[
        Field { key: "stringValue", number: 1, kind: Text },
        Field { key: "boolValue", number: 2, kind: Bool },
        Field { key: "intValue", number: 3, kind: Int64 },
        Field { key: "doubleValue", number: 4, kind: Double },
        Field { key: "arrayValue", number: 5, kind: Message(&ARRAY_VALUE) },
        Field { key: "kvlistValue", number: 6, kind: Message(&KEY_VALUE_LIST) },
        Field { key: "bytesValue", number: 7, kind: Base64 },
        Field { key: "stringValueStrindex", number: 8, kind: Int32 },
    ],
};

messages! {
    ARRAY_VALUE { 1 "values" Messages(&ANY_VALUE) }
    KEY_VALUE_LIST { 1 "values" Messages(&KEY_VALUE) }
    KEY_VALUE { 1 "key" Text, 2 "value" Message(&ANY_VALUE), 3 "keyStrindex" Int32 }
    SCOPE { 1 "name" Text, 2 "version" Text, 3 "attributes" Messages(&KEY_VALUE), 4 "droppedAttributesCount" Uint32 }
    ENTITY_REF { 1 "schemaUrl" Text, 2 "type" Text, 3 "idKeys" Texts, 4 "descriptionKeys" Texts }
    RESOURCE {
        1 "attributes" Messages(&KEY_VALUE), 2 "droppedAttributesCount" Uint32, 3 "entityRefs" Messages(&ENTITY_REF),
    }

    TRACES { 1 "resourceSpans" Messages(&RESOURCE_SPANS) }
    RESOURCE_SPANS { 1 "resource" Message(&RESOURCE), 2 "scopeSpans" Messages(&SCOPE_SPANS), 3 "schemaUrl" Text }
    SCOPE_SPANS { 1 "scope" Message(&SCOPE), 2 "spans" Messages(&SPAN), 3 "schemaUrl" Text }
    SPAN {
        1 "traceId" Hex, 2 "spanId" Hex, 3 "traceState" Text, 4 "parentSpanId" Hex, 5 "name" Text, 6 "kind" Enum,
        7 "startTimeUnixNano" Fixed64, 8 "endTimeUnixNano" Fixed64, 9 "attributes" Messages(&KEY_VALUE),
        10 "droppedAttributesCount" Uint32, 11 "events" Messages(&EVENT), 12 "droppedEventsCount" Uint32,
        13 "links" Messages(&LINK), 14 "droppedLinksCount" Uint32, 15 "status" Message(&STATUS), 16 "flags" Fixed32,
    }
    EVENT {
        1 "timeUnixNano" Fixed64, 2 "name" Text, 3 "attributes" Messages(&KEY_VALUE), 4 "droppedAttributesCount" Uint32,
    }
    LINK {
        1 "traceId" Hex, 2 "spanId" Hex, 3 "traceState" Text, 4 "attributes" Messages(&KEY_VALUE),
        5 "droppedAttributesCount" Uint32, 6 "flags" Fixed32,
    }
    STATUS { 2 "message" Text, 3 "code" Enum }

    LOGS { 1 "resourceLogs" Messages(&RESOURCE_LOGS) }
    RESOURCE_LOGS { 1 "resource" Message(&RESOURCE), 2 "scopeLogs" Messages(&SCOPE_LOGS), 3 "schemaUrl" Text }
    SCOPE_LOGS { 1 "scope" Message(&SCOPE), 2 "logRecords" Messages(&LOG_RECORD), 3 "schemaUrl" Text }
    LOG_RECORD {
        1 "timeUnixNano" Fixed64, 2 "severityNumber" Enum, 3 "severityText" Text, 5 "body" Message(&ANY_VALUE),
        6 "attributes" Messages(&KEY_VALUE), 7 "droppedAttributesCount" Uint32, 8 "flags" Fixed32, 9 "traceId" Hex,
        10 "spanId" Hex, 11 "observedTimeUnixNano" Fixed64, 12 "eventName" Text,
    }

    /// Metrics are counted and refused: what is in a point does not matter.
    METRICS { 1 "resourceMetrics" Messages(&RESOURCE_METRICS) }
    RESOURCE_METRICS { 2 "scopeMetrics" Messages(&SCOPE_METRICS) }
    SCOPE_METRICS { 2 "metrics" Messages(&METRIC) }
    METRIC {
        5 "gauge" Message(&POINTS), 7 "sum" Message(&POINTS), 9 "histogram" Message(&POINTS),
        10 "exponentialHistogram" Message(&POINTS), 11 "summary" Message(&POINTS),
    }
    POINTS { 1 "dataPoints" Messages(&POINT) }
    POINT {}
}
