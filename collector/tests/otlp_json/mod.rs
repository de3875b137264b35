//! Writes OTLP/JSON, as SDKs do or in any other way that is allowed; for tests of more than one crate.

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Kind;
use opentelemetry_proto::tonic::common::v1::{AnyValue, EntityRef, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use serde_json::{Map, Value, json};

/// How a writer of JSON may do as it likes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    pub(crate) long_as_text: bool,
    pub(crate) upper_hex: bool,
    pub(crate) url_base64: bool,
    /// Fields at their default are written, as `null` or as they are.
    pub(crate) defaults: Option<bool>,
    pub(crate) unknown: bool,
}

/// As SDKs write it.
pub(crate) const USUAL: Style =
    Style { long_as_text: true, upper_hex: false, url_base64: false, defaults: None, unknown: false };

/// Writes messages as JSON. `serde_json` sorts the keys, so they come in another order than the numbers.
struct Writer {
    style: Style,
    map: Map<String, Value>,
}

impl Style {
    fn object(self) -> Writer {
        let mut map = Map::new();
        if self.unknown {
            map.insert("a_new_field".into(), json!({ "x": [1, { "y": null }], "z": "\u{1F527}" }));
            map.insert("zero".into(), json!(0));
        }
        Writer { style: self, map }
    }

    fn long(self, value: impl Into<i128>) -> Value {
        let value = value.into();
        if self.long_as_text {
            json!(value.to_string())
        } else {
            serde_json::from_str(&value.to_string()).expect("number")
        }
    }

    fn hex(self, bytes: &[u8]) -> Value {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        json!(if self.upper_hex { digits.to_uppercase() } else { digits })
    }

    fn any(self, value: &AnyValue) -> Value {
        let object = self.object();
        let Some(kind) = &value.value else { return object.done() };
        match kind {
            Kind::StringValue(text) => object.set("stringValue", json!(text)),
            Kind::BoolValue(value) => object.set("boolValue", json!(value)),
            Kind::IntValue(value) => object.set("intValue", self.long(*value)),
            Kind::DoubleValue(value) => object.set(
                "doubleValue",
                match *value {
                    value if value.is_nan() => json!("NaN"),
                    f64::INFINITY => json!("Infinity"),
                    f64::NEG_INFINITY => json!("-Infinity"),
                    value => json!(value),
                },
            ),
            Kind::ArrayValue(list) => {
                object.set("arrayValue", self.object().list("values", &list.values, Self::any).done())
            }
            Kind::KvlistValue(list) => {
                object.set("kvlistValue", self.object().list("values", &list.values, Self::attribute).done())
            }
            Kind::BytesValue(bytes) => {
                let engine = if self.url_base64 { BASE64_URL_SAFE_NO_PAD } else { BASE64_STANDARD };
                object.set("bytesValue", json!(engine.encode(bytes)))
            }
            Kind::StringValueStrindex(at) => object.set("stringValueStrindex", json!(at)),
        }
        .done()
    }

    fn attribute(self, pair: &KeyValue) -> Value {
        let object = self.object().text("key", &pair.key).number("keyStrindex", pair.key_strindex);
        object.message("value", pair.value.as_ref(), Self::any).done()
    }

    fn resource(self, resource: &Resource) -> Value {
        let entity = |style: Self, entity: &EntityRef| {
            let texts = |_, text: &String| json!(text);
            let object = style.object().text("schemaUrl", &entity.schema_url).text("type", &entity.r#type);
            object
                .list("idKeys", &entity.id_keys, texts)
                .list("descriptionKeys", &entity.description_keys, texts)
                .done()
        };
        let object = self.object().list("attributes", &resource.attributes, Self::attribute);
        let object = object.number("droppedAttributesCount", resource.dropped_attributes_count);
        object.list("entityRefs", &resource.entity_refs, entity).done()
    }

    fn scope(self, scope: &InstrumentationScope) -> Value {
        let object = self.object().text("name", &scope.name).text("version", &scope.version);
        let object = object.list("attributes", &scope.attributes, Self::attribute);
        object.number("droppedAttributesCount", scope.dropped_attributes_count).done()
    }

    pub(crate) fn traces(self, request: &ExportTraceServiceRequest) -> Value {
        let event = |style: Self, event: &Event| {
            let object = style.object().long("timeUnixNano", event.time_unix_nano).text("name", &event.name);
            let object = object.list("attributes", &event.attributes, Self::attribute);
            object.number("droppedAttributesCount", event.dropped_attributes_count).done()
        };
        let link = |style: Self, link: &Link| {
            let object = style.object().id("traceId", &link.trace_id).id("spanId", &link.span_id);
            let object = object.text("traceState", &link.trace_state).number("flags", link.flags);
            let object = object.list("attributes", &link.attributes, Self::attribute);
            object.number("droppedAttributesCount", link.dropped_attributes_count).done()
        };
        let status = |style: Self, status: &Status| {
            style.object().text("message", &status.message).number("code", status.code).done()
        };
        let span = move |style: Self, span: &Span| {
            let object = style.object().id("traceId", &span.trace_id).id("spanId", &span.span_id);
            let object = object.id("parentSpanId", &span.parent_span_id).text("traceState", &span.trace_state);
            let object = object.text("name", &span.name).number("kind", span.kind).number("flags", span.flags);
            let object = object.long("startTimeUnixNano", span.start_time_unix_nano);
            let object = object.long("endTimeUnixNano", span.end_time_unix_nano);
            let object = object.list("attributes", &span.attributes, Self::attribute);
            let object = object.number("droppedAttributesCount", span.dropped_attributes_count);
            let object =
                object.list("events", &span.events, event).number("droppedEventsCount", span.dropped_events_count);
            let object = object.list("links", &span.links, link).number("droppedLinksCount", span.dropped_links_count);
            object.message("status", span.status.as_ref(), status).done()
        };
        let scope = move |style: Self, scope: &ScopeSpans| {
            let object = style.object().message("scope", scope.scope.as_ref(), Self::scope);
            object.list("spans", &scope.spans, span).text("schemaUrl", &scope.schema_url).done()
        };
        let resource = move |style: Self, resource: &ResourceSpans| {
            let object = style.object().message("resource", resource.resource.as_ref(), Self::resource);
            object.list("scopeSpans", &resource.scope_spans, scope).text("schemaUrl", &resource.schema_url).done()
        };
        self.object().list("resourceSpans", &request.resource_spans, resource).done()
    }

    pub(crate) fn logs(self, request: &ExportLogsServiceRequest) -> Value {
        let record = |style: Self, record: &LogRecord| {
            let object = style.object().id("traceId", &record.trace_id).id("spanId", &record.span_id);
            let object = object.number("severityNumber", record.severity_number).number("flags", record.flags);
            let object = object.text("severityText", &record.severity_text).text("eventName", &record.event_name);
            let object = object.long("timeUnixNano", record.time_unix_nano);
            let object = object.long("observedTimeUnixNano", record.observed_time_unix_nano);
            let object = object.list("attributes", &record.attributes, Self::attribute);
            let object = object.number("droppedAttributesCount", record.dropped_attributes_count);
            object.message("body", record.body.as_ref(), Self::any).done()
        };
        let scope = move |style: Self, scope: &ScopeLogs| {
            let object = style.object().message("scope", scope.scope.as_ref(), Self::scope);
            object.list("logRecords", &scope.log_records, record).text("schemaUrl", &scope.schema_url).done()
        };
        let resource = move |style: Self, resource: &ResourceLogs| {
            let object = style.object().message("resource", resource.resource.as_ref(), Self::resource);
            object.list("scopeLogs", &resource.scope_logs, scope).text("schemaUrl", &resource.schema_url).done()
        };
        self.object().list("resourceLogs", &request.resource_logs, resource).done()
    }
}

impl Writer {
    fn done(self) -> Value {
        self.map.into()
    }

    fn set(mut self, key: &str, value: Value) -> Self {
        self.map.insert(key.to_owned(), value);
        self
    }

    fn unless(self, default: bool, key: &str, value: Value) -> Self {
        match (default, self.style.defaults) {
            (true, None) => self,
            (true, Some(true)) => self.set(key, Value::Null),
            _ => self.set(key, value),
        }
    }

    fn text(self, key: &str, text: &str) -> Self {
        self.unless(text.is_empty(), key, json!(text))
    }

    fn id(self, key: &str, id: &[u8]) -> Self {
        let value = self.style.hex(id);
        self.unless(id.is_empty(), key, value)
    }

    fn number(self, key: &str, number: impl Into<i64>) -> Self {
        let number = number.into();
        self.unless(number == 0, key, json!(number))
    }

    fn long(self, key: &str, number: u64) -> Self {
        let value = self.style.long(number);
        self.unless(number == 0, key, value)
    }

    fn list<T>(self, key: &str, list: &[T], write: impl Fn(Style, &T) -> Value) -> Self {
        let style = self.style;
        self.unless(list.is_empty(), key, list.iter().map(|item| write(style, item)).collect())
    }

    fn message<T>(self, key: &str, message: Option<&T>, write: impl Fn(Style, &T) -> Value) -> Self {
        match message {
            Some(message) => {
                let value = write(self.style, message);
                self.set(key, value)
            }
            None => self,
        }
    }
}
