//! Which rule recognised a span or a record, or why none did.

use toolgauge_proto::api::why::{WhyFailure, WhyField, WhyMissed, WhyRecord, WhyVerdict};
use toolgauge_proto::call::Kind;
use toolgauge_proto::explain::Missed;
use toolgauge_proto::id::TraceId;
use toolgauge_proto::otlp::{LogsView, Malformed, TracesView};

use super::attributes::Attributes;
use super::convention::{ALL_FIELDS, Condition, Field, Rule, SPAN_KINDS, STATUSES, Test};
use super::failure::Failure;
use super::record::{Record, fields, holds};
use super::value::Exception;
use super::{Hex, Recogniser, failure, value};
use crate::export::ExportSignal;

/// Longest value that an explanation repeats, in bytes.
const SHOWN_BYTES_MAX: usize = 60;

/// What is said of one span, span event or log record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// `span`, `span_event` or `log`.
    pub what: &'static str,
    /// Name of the span, or of the event.
    pub name: String,
    /// Its span, in hex; empty if it has none.
    pub span_id: String,
    /// What became of it.
    pub verdict: Verdict,
}

/// What became of a span or record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is a call.
    Recognised {
        /// Convention and rule.
        rule: RuleName,
        /// Of which kind.
        kind: Kind,
        /// The fields that were found, by their names in conventions. Arguments and results by their size.
        fields: Vec<(&'static str, String)>,
        /// If it failed: why it is known to have, its class, and what gave that class.
        failed: Option<(String, &'static str, String)>,
    },
    /// A rule says that it is no call.
    NoCall(RuleName),
    /// No rule recognises it: those that came near, nearest first, with the first condition that failed.
    Unrecognised(Vec<(RuleName, String)>),
}

/// Which rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleName {
    /// Name of the convention.
    pub convention: String,
    /// Name of the rule in it.
    pub rule: String,
}

impl std::fmt::Display for RuleName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} / {}", self.convention, self.rule)
    }
}

fn name(rule: &Rule) -> RuleName {
    RuleName { convention: rule.convention.clone(), rule: rule.name.clone() }
}

impl Explanation {
    /// As the API says it.
    #[must_use]
    pub fn into_record(self, missed: Missed) -> WhyRecord {
        let named = |rule: RuleName| (Some(rule.convention), Some(rule.rule));
        let verdict = match self.verdict {
            Verdict::Recognised { rule, kind, fields, failed } => {
                let (convention, rule) = named(rule);
                let fields = fields.into_iter().map(|(name, value)| WhyField { name: name.to_owned(), value });
                let failed = failed.map(|(because, class, class_because)| WhyFailure {
                    because,
                    error_class: class.to_owned(),
                    class_because,
                });
                let kind = Some(kind.as_str().to_owned());
                WhyVerdict {
                    recognised: true,
                    kind,
                    convention,
                    rule,
                    fields: fields.collect(),
                    failed,
                    missed: Vec::new(),
                }
            }
            Verdict::NoCall(rule) => {
                let (convention, rule) = named(rule);
                WhyVerdict { convention, rule, ..WhyVerdict::default() }
            }
            Verdict::Unrecognised(rules) => {
                let named = match missed {
                    Missed::Nearest => 1,
                    Missed::All => usize::MAX,
                };
                let missed = rules.into_iter().take(named).map(|(rule, condition)| WhyMissed {
                    convention: rule.convention,
                    rule: rule.rule,
                    condition,
                });
                WhyVerdict { missed: missed.collect(), ..WhyVerdict::default() }
            }
        };
        WhyRecord { what: self.what.to_owned(), name: self.name, span_id: self.span_id, verdict }
    }
}

impl Recogniser {
    /// What becomes of the records of one trace in an export that the doors have checked.
    pub(crate) fn explain_trace(&self, signal: ExportSignal, body: &[u8], trace_id: TraceId) -> Vec<Explanation> {
        let of_trace = |id: &[u8]| id == trace_id.as_bytes();
        let explained = match signal {
            ExportSignal::Traces => self.explain_spans(body, of_trace),
            ExportSignal::Logs => self.explain_records(body, of_trace),
        };
        explained.unwrap_or_default()
    }

    /// What becomes of every span of an `ExportTraceServiceRequest`, and of those of their events that tell of calls.
    ///
    /// # Errors
    /// If the bytes are no such request.
    pub fn explain_traces(&self, body: &[u8]) -> Result<Vec<Explanation>, Malformed> {
        self.explain_spans(body, |_| true)
    }

    /// As above, of the traces that are wanted.
    fn explain_spans(&self, body: &[u8], wanted: impl Fn(&[u8]) -> bool) -> Result<Vec<Explanation>, Malformed> {
        let mut out = Vec::new();
        let mut attributes = Attributes::new(self.conventions.slots());
        for resource in TracesView::new(body)?.resource_spans() {
            attributes.begin_resource(&self.conventions, resource.resource().attributes());
            for scope in resource.scope_spans() {
                attributes.begin_scope(&self.conventions, scope.scope().attributes());
                let scope_name = scope.scope().name;
                for span in scope.spans().filter(|span| wanted(span.trace_id)) {
                    let span_id = Hex(span.span_id).to_string();
                    attributes.begin_record(&self.conventions, span.attributes());
                    let said = (&*String::from_utf8_lossy(span.status.message), value::exception(Some(span.events())));
                    let verdict = self.verdict(&Record::of_span(&span, &attributes, scope_name), said);
                    let name = String::from_utf8_lossy(span.name).into_owned();
                    out.push(Explanation { what: "span", name, span_id: span_id.clone(), verdict });
                    for event in span.events() {
                        attributes.begin_record(&self.conventions, event.attributes());
                        let record = Record::of_event(&span, &event, &attributes, scope_name, self.event_name);
                        let verdict = self.verdict(&record, ("", None));
                        if matches!(verdict, Verdict::Recognised { .. }) {
                            let (what, name) = ("span_event", event_name(&record));
                            out.push(Explanation { what, name, span_id: span_id.clone(), verdict });
                        }
                    }
                }
            }
        }
        Ok(out)
    }

    /// What becomes of every record of an `ExportLogsServiceRequest`.
    ///
    /// # Errors
    /// If the bytes are no such request.
    pub fn explain_logs(&self, body: &[u8]) -> Result<Vec<Explanation>, Malformed> {
        self.explain_records(body, |_| true)
    }

    /// As above.
    fn explain_records(&self, body: &[u8], wanted: impl Fn(&[u8]) -> bool) -> Result<Vec<Explanation>, Malformed> {
        let mut out = Vec::new();
        let mut attributes = Attributes::new(self.conventions.slots());
        for resource in LogsView::new(body)?.resource_logs() {
            attributes.begin_resource(&self.conventions, resource.resource().attributes());
            for scope in resource.scope_logs() {
                attributes.begin_scope(&self.conventions, scope.scope().attributes());
                for log in scope.log_records().filter(|log| wanted(log.trace_id)) {
                    attributes.begin_record(&self.conventions, log.attributes());
                    let record = Record::of_log(&log, &attributes, scope.scope().name, self.event_name);
                    let (name, span_id) = (event_name(&record), Hex(log.span_id).to_string());
                    out.push(Explanation { what: "log", name, span_id, verdict: self.verdict(&record, ("", None)) });
                }
            }
        }
        Ok(out)
    }

    /// What becomes of a record. `said` is what its status and its exception tell of a failure.
    fn verdict<'a>(&'a self, record: &Record<'_, 'a>, said: (&str, Option<Exception>)) -> Verdict {
        let mut missed = Vec::new();
        for rule in self.conventions.rules.iter().filter(|rule| rule.looks == record.looks) {
            match self.first_fault(rule, record) {
                Some((passed, fault)) => missed.push((passed, name(rule), fault)),
                None => {
                    return match rule.kind {
                        Some(kind) => self.recognised(rule, kind, record, said),
                        None => Verdict::NoCall(name(rule)),
                    };
                }
            }
        }
        // The order of the rules decides between those that came equally near.
        missed.sort_by_key(|(passed, ..)| std::cmp::Reverse(*passed));
        Verdict::Unrecognised(missed.into_iter().map(|(_, rule, fault)| (rule, fault)).collect())
    }

    /// The first condition that fails, and how many held before it.
    fn first_fault(&self, rule: &Rule, record: &Record<'_, '_>) -> Option<(usize, String)> {
        let fails = rule.all.iter().position(|condition| !holds(condition, record));
        if let Some(at) = fails {
            return Some((at, self.fault(&rule.all[at], record)));
        }
        let excludes = rule.none.iter().find(|condition| holds(condition, record))?;
        Some((rule.all.len(), format!("{}, which excludes it", self.describe(excludes))))
    }

    fn recognised<'a>(
        &'a self,
        rule: &'a Rule,
        kind: Kind,
        record: &Record<'_, 'a>,
        (status_message, exception): (&str, Option<Exception>),
    ) -> Verdict {
        let found = fields(rule, record);
        let mut unreadable = 0;
        let mut text =
            |field: Field| found[field as usize].as_ref().and_then(|found| value::text(found, 4_096, &mut unreadable));
        let failed = rule.failed.iter().find(|condition| holds(condition, record)).map(|condition| {
            let reason = self.describe_held(condition, record);
            let told = rule.classes.iter().find(|(condition, _)| holds(condition, record));
            if let Some((condition, class)) = told {
                return (reason, class.as_str(), self.describe(condition));
            }
            let reported = (text(Field::ErrorType), text(Field::ErrorMessage));
            let Failure { error_type, message } = Failure::new(reported, exception.as_ref(), status_message.as_bytes());
            let code = found[Field::StatusCode as usize].and_then(|found| value::code(found, &mut 0));
            let (class, because) = failure::class(error_type.as_deref(), code, message.as_deref());
            (reason, class.as_str(), because.to_string())
        });
        let shown = ALL_FIELDS.into_iter().filter_map(|field| {
            let found = found[field as usize].as_ref()?;
            let text = match field {
                Field::Arguments | Field::Result => format!("{} bytes", value::content(found).len()),
                _ => shown(found),
            };
            Some((field.name(), text))
        });
        Verdict::Recognised { rule: name(rule), kind, fields: shown.collect(), failed }
    }

    /// Why a condition does not hold.
    fn fault(&self, condition: &Condition, record: &Record<'_, '_>) -> String {
        let wanted = self.describe(condition);
        let is = |found: &[u8]| format!("{:?}", failure::cut(&String::from_utf8_lossy(found), SHOWN_BYTES_MAX));
        let found = match condition {
            Condition::Attribute(slot, ..) => match record.attributes.get(*slot) {
                Some(found) => format!("it is {:?}", shown(found)),
                None => "it is not there".to_owned(),
            },
            Condition::SpanKind(_) => {
                let kind = usize::try_from(record.span_kind).ok().and_then(|kind| SPAN_KINDS.get(kind));
                format!("it is {}", kind.unwrap_or(&"unknown"))
            }
            Condition::SpanName(_) => format!("it is {}", is(record.name)),
            Condition::Status(_) => {
                let status = record.status.and_then(|status| STATUSES.get(usize::try_from(status).ok()?));
                format!("it is {}", status.unwrap_or(&"not there").to_uppercase())
            }
            Condition::SpanEvent(_) => "it has no such event".to_owned(),
            Condition::Event(_) => {
                let names: Vec<String> = record.events.iter().flatten().map(|event| is(event)).collect();
                if names.is_empty() { "it has none".to_owned() } else { format!("it is {}", names.join(" or ")) }
            }
            Condition::Scope(_) => format!("it is {}", is(record.scope)),
            Condition::Any(_) => "neither is so".to_owned(),
            Condition::All(_) => "not all of it is so".to_owned(),
        };
        format!("{wanted}: {found}")
    }

    /// What of a condition that holds does so.
    fn describe_held(&self, condition: &Condition, record: &Record<'_, '_>) -> String {
        match condition {
            Condition::Any(conditions) => (conditions.iter())
                .find(|condition| holds(condition, record))
                .map_or_else(|| self.describe(condition), |held| self.describe_held(held, record)),
            Condition::All(conditions) => {
                let all = conditions.iter().map(|condition| self.describe_held(condition, record));
                all.collect::<Vec<_>>().join(", and ")
            }
            one => self.describe(one),
        }
    }

    fn describe(&self, condition: &Condition) -> String {
        match condition {
            Condition::Attribute(slot, path, test) => {
                let path: String = path.iter().map(|key| format!(" > {}", String::from_utf8_lossy(key))).collect();
                format!("{}{path} {}", self.conventions.key(*slot), test_words(test))
            }
            Condition::SpanKind(kinds) => {
                let kinds = kinds.iter().filter_map(|kind| SPAN_KINDS.get(usize::try_from(*kind).ok()?).copied());
                format!("the span's kind is {}", kinds.collect::<Vec<_>>().join(" or "))
            }
            Condition::SpanName(test) => format!("the span's name {}", test_words(test)),
            Condition::Status(status) => {
                let status = usize::try_from(*status).ok().and_then(|status| STATUSES.get(status));
                format!("the status is {}", status.unwrap_or(&"unknown").to_uppercase())
            }
            Condition::SpanEvent(test) => format!("the name of an event of the span {}", test_words(test)),
            Condition::Event(test) => format!("the event's name {}", test_words(test)),
            Condition::Scope(test) => format!("the scope's name {}", test_words(test)),
            Condition::Any(conditions) => {
                conditions.iter().map(|condition| self.describe(condition)).collect::<Vec<_>>().join(", or ")
            }
            Condition::All(conditions) => {
                conditions.iter().map(|condition| self.describe(condition)).collect::<Vec<_>>().join(", and ")
            }
        }
    }
}

fn event_name(record: &Record<'_, '_>) -> String {
    let name = record.events.iter().flatten().next().copied().unwrap_or_default();
    failure::redact(failure::cut(&String::from_utf8_lossy(name), SHOWN_BYTES_MAX))
}

fn test_words(test: &Test) -> String {
    let list = |words: &[Vec<u8>]| {
        words.iter().map(|word| format!("{:?}", String::from_utf8_lossy(word))).collect::<Vec<_>>().join(" or ")
    };
    match test {
        Test::Present => "is there".to_owned(),
        Test::Is(words) => format!("is {}", list(words)),
        Test::IsNot(words) => format!("is there and not {}", list(words)),
        Test::StartsWith(words) => format!("starts with {}", list(words)),
        Test::AtLeast(number) => format!("is at least {number}"),
    }
}

/// A value as it is shown: short, and without secrets.
fn shown(found: &toolgauge_proto::otlp::AnyValueView<'_>) -> String {
    let mut unreadable = 0;
    let text = value::text(found, 4_096, &mut unreadable);
    let text = text.unwrap_or_else(|| format!("{} bytes", value::content(found).len()).into());
    let masked = failure::redact(&text);
    let cut = failure::cut(&masked, SHOWN_BYTES_MAX);
    if cut.len() < masked.len() { format!("{cut}...") } else { masked }
}
