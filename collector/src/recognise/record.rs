//! A span or a log record as rules look at it.

use toolgauge_proto::otlp::{AnyValueView, EventView, Events, LogRecordView, SpanView};

use super::attributes::Attributes;
use super::convention::{Condition, Derived, FIELDS, Looks, Rule, Slot, Source, Test};
use super::{json, value};

/// A span, an event of one, or a log record.
pub(super) struct Record<'r, 'a> {
    pub(super) looks: Looks,
    pub(super) attributes: &'r Attributes<'a>,
    /// Name of the span.
    pub(super) name: &'a [u8],
    pub(super) span_kind: i32,
    /// Of a span; anything else has none.
    pub(super) status: Option<i32>,
    /// As above.
    pub(super) span_events: Option<Events<'a>>,
    /// What may be the name of the event, most likely first.
    pub(super) events: [Option<&'a [u8]>; 3],
    /// Name of the instrumentation scope.
    pub(super) scope: &'a [u8],
}

impl<'r, 'a> Record<'r, 'a> {
    pub(super) fn of_span(span: &SpanView<'a>, attributes: &'r Attributes<'a>, scope: &'a [u8]) -> Self {
        Self {
            looks: Looks::Span,
            attributes,
            name: span.name,
            span_kind: span.kind,
            status: Some(span.status.code),
            span_events: Some(span.events()),
            events: [None; 3],
            scope,
        }
    }

    /// `event_name` is the slot of the attribute that may name it.
    pub(super) fn of_event(
        span: &SpanView<'a>,
        event: &EventView<'a>,
        attributes: &'r Attributes<'a>,
        scope: &'a [u8],
        event_name: Slot,
    ) -> Self {
        let events = [attributes.get(event_name).and_then(text), some(event.name), None];
        Self { looks: Looks::SpanEvent, events, ..Self::of_span(span, attributes, scope) }
    }

    /// As above.
    pub(super) fn of_log(
        log: &LogRecordView<'a>,
        attributes: &'r Attributes<'a>,
        scope: &'a [u8],
        event_name: Slot,
    ) -> Self {
        let events = [attributes.get(event_name).and_then(text), some(log.event_name), text(&log.body)];
        Self { looks: Looks::Log, attributes, name: &[], span_kind: 0, status: None, span_events: None, events, scope }
    }
}

fn text<'a>(value: &AnyValueView<'a>) -> Option<&'a [u8]> {
    match value {
        AnyValueView::String(text) => some(text),
        _ => None,
    }
}

fn some(text: &[u8]) -> Option<&[u8]> {
    (!text.is_empty()).then_some(text)
}

/// The first source that holds a value that says something.
pub(super) fn first<'a>(sources: &'a [Source], record: &Record<'_, 'a>) -> Option<AnyValueView<'a>> {
    sources.iter().find_map(|source| of_source(source, record))
}

fn of_source<'a>(source: &'a Source, record: &Record<'_, 'a>) -> Option<AnyValueView<'a>> {
    match source {
        Source::Attribute(slot) => record.attributes.get(*slot).copied(),
        Source::Derived(derived) => derive(derived, record),
        Source::NameAfter(prefix, until) => {
            let rest = after(record.name, prefix)?;
            let end = if until.is_empty() { None } else { find(rest, until) };
            let rest = &rest[..end.unwrap_or(rest.len())];
            (!rest.is_empty()).then_some(AnyValueView::String(rest))
        }
        Source::Value(text) => Some(AnyValueView::String(text)),
    }
}

/// What stands behind the first occurrence.
fn after<'a>(text: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    if prefix.is_empty() {
        return Some(text);
    }
    text.get(find(text, prefix)? + prefix.len()..)
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

fn derive<'a>(derived: &Derived, record: &Record<'_, 'a>) -> Option<AnyValueView<'a>> {
    let mut found = record.attributes.get(derived.slot).copied()?;
    if !derived.path.is_empty() {
        found = at_path(found, &derived.path)?;
    }
    if !derived.after.is_empty() {
        let AnyValueView::String(text) = found else { return None };
        let rest = after(text, &derived.after)?;
        let ends = |byte: &u8| matches!(byte, b'"' | b'\'' | b',' | b']' | b'}' | b')') || byte.is_ascii_whitespace();
        found = AnyValueView::String(&rest[..rest.iter().position(ends).unwrap_or(rest.len())]);
    }
    if let AnyValueView::String(text) = found
        && derived.not.iter().any(|not| not == text)
    {
        return None;
    }
    if derived.add != 0 || derived.exponent != 0 {
        found = calculate(found, derived);
    }
    (!value::is_empty(&found)).then_some(found)
}

/// The number that the convention makes of a number; anything else stays as it is, for the field to refuse.
fn calculate<'a>(found: AnyValueView<'a>, derived: &Derived) -> AnyValueView<'a> {
    let mut unreadable = 0;
    if derived.exponent == 0 {
        return match value::int(found, &mut unreadable) {
            Some(number) => AnyValueView::Int(number.saturating_add(derived.add)),
            None => found,
        };
    }
    match value::float(found, &mut unreadable) {
        #[expect(clippy::cast_precision_loss, reason = "what is added is a small number")]
        Some(number) => {
            let number = number + derived.add as f64;
            // Dividing by a power of ten that a double holds exactly gives the double nearest to the true quotient, so
            // that its shortest text is the decimal that was meant.
            let power = 10_f64.powi(derived.exponent.abs());
            AnyValueView::Double(if derived.exponent < 0 { number / power } else { number * power })
        }
        None => found,
    }
}

/// What stands at a path, in a structure or in the JSON of a text.
fn at_path<'a>(found: AnyValueView<'a>, path: &[Vec<u8>]) -> Option<AnyValueView<'a>> {
    match (found, path) {
        (found, []) => (!value::is_empty(&found)).then_some(found),
        (AnyValueView::KeyValueList(list), [key, rest @ ..]) => {
            at_path(list.iter().find(|pair| pair.key == key)?.value, rest)
        }
        (AnyValueView::String(text) | AnyValueView::Bytes(text), path) => {
            json::member(text, path).filter(|member| !member.is_empty()).map(AnyValueView::String)
        }
        _ => None,
    }
}

/// Every field that the record says, each from the source that the rule prefers.
#[inline]
pub(super) fn fields<'a>(rule: &'a Rule, record: &Record<'_, 'a>) -> [Option<AnyValueView<'a>>; FIELDS] {
    let mut found = [None; FIELDS];
    let mut preferences = [u8::MAX; FIELDS];
    for slot in record.attributes.slots() {
        for (field, preference) in rule.reads(slot) {
            let field = usize::from(*field);
            if *preference < preferences[field]
                && let Some(value) = record.attributes.get(slot)
            {
                preferences[field] = *preference;
                found[field] = Some(*value);
            }
        }
    }
    for (field, preference) in rule.other_reads() {
        let field = usize::from(*field);
        if *preference < preferences[field]
            && let Some(value) = of_source(&rule.fields[field][usize::from(*preference)], record)
        {
            preferences[field] = *preference;
            found[field] = Some(value);
        }
    }
    found
}

/// Whether the record is what the rule looks for.
#[inline]
pub(super) fn recognises(rule: &Rule, record: &Record<'_, '_>) -> bool {
    rule.looks == record.looks
        && rule.all.iter().all(|condition| holds(condition, record))
        && !rule.none.iter().any(|condition| holds(condition, record))
}

#[inline]
pub(super) fn holds(condition: &Condition, record: &Record<'_, '_>) -> bool {
    match condition {
        Condition::Attribute(slot, path, test) => {
            let found = record.attributes.get(*slot).copied();
            let found = if path.is_empty() { found } else { found.and_then(|found| at_path(found, path)) };
            found.is_some_and(|found| passes(test, &found))
        }
        Condition::SpanKind(kinds) => kinds.contains(&record.span_kind),
        Condition::SpanName(test) => passes_text(test, record.name),
        Condition::Status(status) => record.status == Some(*status),
        Condition::SpanEvent(test) => {
            record.span_events.clone().is_some_and(|mut events| events.any(|event| passes_text(test, event.name)))
        }
        Condition::Event(test) => record.events.iter().flatten().any(|event| passes_text(test, event)),
        Condition::Scope(test) => passes_text(test, record.scope),
        Condition::Any(conditions) => conditions.iter().any(|condition| holds(condition, record)),
        Condition::All(conditions) => conditions.iter().all(|condition| holds(condition, record)),
    }
}

fn passes(test: &Test, found: &AnyValueView<'_>) -> bool {
    match (test, found) {
        (Test::Present, _) => true,
        (Test::AtLeast(least), found) => value::float(*found, &mut 0).is_some_and(|number| number >= *least),
        (_, AnyValueView::String(text)) => passes_text(test, text),
        (_, AnyValueView::Bool(value)) => passes_text(test, if *value { b"true" } else { b"false" }),
        (_, AnyValueView::Int(value)) => passes_text(test, value.to_string().as_bytes()),
        (_, AnyValueView::Double(value)) => passes_text(test, value.to_string().as_bytes()),
        _ => false,
    }
}

fn passes_text(test: &Test, text: &[u8]) -> bool {
    match test {
        Test::Present => !text.is_empty(),
        Test::Is(words) => words.iter().any(|word| word.eq_ignore_ascii_case(text)),
        Test::IsNot(words) => !text.is_empty() && !words.iter().any(|word| word.eq_ignore_ascii_case(text)),
        Test::StartsWith(words) => words
            .iter()
            .any(|word| text.split_at_checked(word.len()).is_some_and(|(begin, _)| begin.eq_ignore_ascii_case(word))),
        Test::AtLeast(_) => false,
    }
}
