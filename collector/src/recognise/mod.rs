//! From an export's bytes to rows of `calls`, by the rules of [`Conventions`].
//!
//! Pure: the same frame gives the same rows, links, quarantined records and sums, on whatever machine and however often
//! it is replayed. Only spans and log records that a rule marks as a call become rows; of the other spans of a trace
//! the parent links are kept, so that ancestors can be followed through them. Contents of arguments and results are
//! looked at (size, key names, fingerprint) and not kept.
//!
//! A value that cannot be read costs its column a null and a count, never the row. A record whose identity or times
//! make no sense is quarantined with the reason; nothing else of its export is lost.

#[cfg(test)]
mod arrangements;
mod arrivals;
mod attributes;
mod columns;
mod convention;
mod decimal;
#[cfg(test)]
mod dialects;
mod explain;
mod failure;
mod format;
#[cfg(test)]
mod fuzz;
mod json;
mod origin;
#[cfg(test)]
mod producers;
mod record;
#[cfg(test)]
mod relatives;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod untried;
mod value;

use std::sync::Arc;

use arc_swap::ArcSwap;
use toolgauge_analytics::ownership::Ownership;
use toolgauge_analytics::settle::{Facts, Link, NO_THRESHOLD};
use toolgauge_proto::call::{CostSource, ErrorClass, Kind, Outcome, Signal};
use toolgauge_proto::id::{RowId, SpanId, TraceId, WalPosition};
use toolgauge_proto::otlp::{
    AnyValueView, EventView, Events, LogRecordView, LogsView, ResourceView, SpanView, TracesView,
};
use toolgauge_proto::time::UnixMicros;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed, xxh3_128_with_seed};

pub use arrivals::ArrivalSums;
use attributes::Attributes;
pub(crate) use columns::{CallColumns, NULL_WORD};
use columns::{TextColumn, Word, WordColumn};
pub use convention::{ConventionError, Conventions};
use convention::{Field, Looks, Rule, Slot};
pub use explain::{Explanation, RuleName, Verdict};
use failure::Failure;
use origin::{LastText, Origin};
use record::{Record, fields, first, holds, recognises};

/// Longest name that is kept, in bytes; longer ones are cut and counted.
const WORD_BYTES_MAX: usize = 256;
/// Longest id that is kept, in bytes; longer ones are cut and counted.
const TEXT_BYTES_MAX: usize = 1_024;
/// Longest duration that a log record may report, in milliseconds: 31 years.
const DURATION_MS_MAX: f64 = 1e12;
/// `SpanFlags`: bit 8 says that bit 9 is known, bit 9 that the parent is remote (opentelemetry-proto, trace.proto).
const FLAG_PARENT_IS_REMOTE: u32 = 0x300;

/// Settings of recognition.
#[derive(Debug, Clone)]
pub struct RecogniseSettings {
    /// Rows that ended more than this ahead of their receipt are quarantined, in microseconds.
    pub ahead_max_us: i64,
    /// Rows that ended, or began, longer ago than this before their receipt are quarantined, in microseconds.
    pub retention_us: i64,
    /// Attributes that rows of failed attempts keep in the column `attributes`.
    pub keep_attributes: Vec<String>,
    /// Attributes that rows of successful attempts keep there.
    pub keep_attributes_of_successes: Vec<String>,
    /// Conventions of the user, as (place, text), tried before those that come with Toolgauge.
    pub conventions: Vec<(String, String)>,
    /// Whose the tools are whose producers name no team; it may be replaced at any time, and then holds for later exports.
    pub ownership: Arc<ArcSwap<Ownership>>,
}

impl Default for RecogniseSettings {
    fn default() -> Self {
        let keep = [
            "server.address",
            "server.port",
            "http.request.method",
            "http.response.status_code",
            "rpc.system",
            "db.system.name",
            "network.transport",
            "gen_ai.provider.name",
            "gen_ai.system",
        ];
        Self {
            ahead_max_us: 5 * 60 * 1_000_000,
            // 13 months, as whole tables are kept.
            retention_us: 396 * 24 * 3_600 * 1_000_000,
            keep_attributes: keep.map(str::to_owned).to_vec(),
            keep_attributes_of_successes: Vec::new(),
            conventions: Vec::new(),
            ownership: Arc::default(),
        }
    }
}

/// What a frame of the log says of its export.
#[derive(Debug, Clone, Copy)]
pub struct FrameInfo<'a> {
    /// Its position.
    pub position: WalPosition,
    /// When it was received.
    pub received: UnixMicros,
    /// Whose it is.
    pub tenant: &'a str,
}

/// A record that was refused a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// When its export was received.
    pub received: UnixMicros,
    /// Tenant of the export.
    pub tenant: String,
    /// `service.name` of the resource.
    pub service_name: Option<String>,
    /// Span or log.
    pub signal: Signal,
    /// Why, one word.
    pub reason: &'static str,
    /// Why, with the values refused.
    pub detail: String,
    /// The tool, as reported.
    pub tool_name: Option<String>,
    /// As reported, whatever its length.
    pub trace_id: Vec<u8>,
    /// As reported, whatever its length.
    pub span_id: Vec<u8>,
    /// Start, if it can be represented.
    pub start_time: Option<UnixMicros>,
    /// End, if it can be represented.
    pub end_time: Option<UnixMicros>,
    /// Where its export stands in the log.
    pub position: WalPosition,
}

/// Identity of a group of related rows: a 128-bit hash of (tenant, trace), or else (tenant, session), or else the row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKey(pub u128);

/// Where recognised rows go. Implemented by the live rows; it keeps this module free of what becomes of them.
pub(crate) trait RowSink {
    /// False if a row of this identity was taken before.
    fn is_new(&mut self, row_id: RowId) -> bool;
    /// These will be asked for next.
    fn announce(&mut self, _row_ids: impl Iterator<Item = RowId>) {}
    /// The block that takes the next row.
    fn columns(&mut self) -> &mut CallColumns;
    /// Number of the block that [`RowSink::columns`] gave; word keys are valid for one block only.
    fn block_number(&self) -> u64;
    /// The row just written is complete. The sink sets `facts.seq`.
    fn row(&mut self, group: GroupKey, facts: Facts);
    /// A span that is not a row, or whose parent is remote.
    fn link(&mut self, group: GroupKey, link: Link);
    /// A record that is refused a place.
    fn quarantine(&mut self, record: Quarantined);
    /// What one service sent in this export.
    fn arrived(&mut self, service_name: Option<&str>, sums: &ArrivalSums);
}

/// Spans whose identities are announced together.
const SPANS_ANNOUNCED: usize = 32;

/// Recognises calls.
#[derive(Debug)]
pub struct Recogniser {
    conventions: Conventions,
    settings: RecogniseSettings,
    /// Of failed attempts, and of successful ones.
    kept: [Vec<(Slot, String)>; 2],
    sample_marks: SampleMarks,
    service: ServiceSlots,
    event_name: Slot,
}

#[derive(Debug, Clone, Copy)]
struct ServiceSlots {
    name: Slot,
    version: Slot,
    environment: [Slot; 2],
}

/// Attributes by which samplers say how many spans one stands for.
#[derive(Debug)]
struct SampleMarks {
    counts: [Slot; 2],
    probability: Slot,
}

impl Recogniser {
    /// A recogniser by these conventions.
    ///
    /// # Errors
    /// If the conventions and settings together mention too many attribute keys.
    pub fn new(mut conventions: Conventions, settings: RecogniseSettings) -> Result<Self, ConventionError> {
        let mut slots = |keys: &[String]| {
            let allowed = keys.iter().filter(|key| !looks_like_credential(key));
            allowed.map(|key| Ok((conventions.slot_for(key)?, key.clone()))).collect::<Result<Vec<_>, _>>()
        };
        let kept = [slots(&settings.keep_attributes)?, slots(&settings.keep_attributes_of_successes)?];
        let service = ServiceSlots {
            name: conventions.slot_for("service.name")?,
            version: conventions.slot_for("service.version")?,
            environment: [
                conventions.slot_for("deployment.environment.name")?,
                conventions.slot_for("deployment.environment")?,
            ],
        };
        let event_name = conventions.slot_for("event.name")?;
        let sample_marks = SampleMarks {
            // Honeycomb's, and OpenTelemetry's enhancement proposal 148.
            counts: [conventions.slot_for("SampleRate")?, conventions.slot_for("sampling.adjusted_count")?],
            probability: conventions.slot_for("sampling.probability")?,
        };
        Ok(Self { conventions, settings, kept, service, event_name, sample_marks })
    }

    /// Recognises the calls of one `ExportTraceServiceRequest`; the doors have checked that it is one.
    pub(crate) fn traces(&self, frame: FrameInfo<'_>, body: &[u8], sink: &mut impl RowSink) {
        let mut attributes = Attributes::new(self.conventions.slots());
        let mut announced = Vec::with_capacity(SPANS_ANNOUNCED);
        for resource in TracesView::trusted(body).resource_spans() {
            attributes.begin_resource(&self.conventions, resource.resource().attributes());
            let mut origin = self.origin(frame, resource.resource(), &attributes);
            for scope in resource.scope_spans() {
                attributes.begin_scope(&self.conventions, scope.scope().attributes());
                origin.begin_scope(scope.scope().name);
                let mut spans = scope.spans();
                loop {
                    announced.clear();
                    announced.extend(spans.by_ref().take(SPANS_ANNOUNCED).map(|span| (span, origin.row_id(&span))));
                    if announced.is_empty() {
                        break;
                    }
                    sink.announce(announced.iter().filter_map(|(_, row_id)| *row_id));
                    for (span, row_id) in &announced {
                        attributes.begin_record(&self.conventions, span.attributes());
                        let threshold = self.threshold(span.trace_state, &attributes);
                        self.span(&mut origin, span, *row_id, threshold, &attributes, sink);
                        if self.conventions.looks_at_span_events() {
                            for event in span.events() {
                                attributes.begin_record(&self.conventions, event.attributes());
                                self.span_event(&mut origin, span, threshold, &event, &attributes, sink);
                            }
                        }
                    }
                }
            }
            sink.arrived(origin.service_name.as_deref(), &origin.sums);
        }
    }

    /// Recognises the calls of one `ExportLogsServiceRequest`; the doors have checked that it is one.
    pub(crate) fn logs(&self, frame: FrameInfo<'_>, body: &[u8], sink: &mut impl RowSink) {
        let mut attributes = Attributes::new(self.conventions.slots());
        for resource in LogsView::trusted(body).resource_logs() {
            attributes.begin_resource(&self.conventions, resource.resource().attributes());
            let mut origin = self.origin(frame, resource.resource(), &attributes);
            for scope in resource.scope_logs() {
                attributes.begin_scope(&self.conventions, scope.scope().attributes());
                origin.begin_scope(scope.scope().name);
                origin.scope_hash = xxh3_64(scope.scope().raw());
                for record in scope.log_records() {
                    attributes.begin_record(&self.conventions, record.attributes());
                    self.log_record(&mut origin, &record, &attributes, sink);
                }
            }
            sink.arrived(origin.service_name.as_deref(), &origin.sums);
        }
    }

    fn origin<'a, 'f>(
        &self,
        frame: FrameInfo<'f>,
        resource: ResourceView<'a>,
        attributes: &Attributes<'a>,
    ) -> Origin<'a, 'f> {
        let mut unreadable = 0;
        let mut word =
            |slot: Slot| value::text(attributes.get(slot)?, WORD_BYTES_MAX, &mut unreadable).map(failure::mask);
        let service_name = word(self.service.name);
        let service_version = word(self.service.version);
        let environment = word(self.service.environment[0]).or_else(|| word(self.service.environment[1]));
        Origin {
            frame,
            tenant_seed: xxh3_64(frame.tenant.as_bytes()),
            service_name,
            service_version,
            environment,
            resource_hash: xxh3_64(resource.raw()),
            scope_hash: 0,
            scope_name: &[],
            source: 0,
            sums: ArrivalSums { requests: 1, unreadable, ..ArrivalSums::default() },
            keys: None,
            ownership: Some(self.settings.ownership.load_full()).filter(|ownership| !ownership.is_empty()),
            teams: (0, Vec::new()),
            last_session: LastText::default(),
            last_user: LastText::default(),
        }
    }

    /// The rule that recognises the record, and what of.
    fn rule<'a>(&'a self, record: &Record<'_, 'a>) -> Option<(&'a Rule, Kind)> {
        let mut candidates = self.conventions.candidates(record.looks, record.attributes.slots());
        let rule = candidates.find(|rule| recognises(rule, record))?;
        Some((rule, rule.kind?))
    }

    fn span<'a>(
        &'a self,
        origin: &mut Origin<'a, '_>,
        span: &SpanView<'a>,
        row_id: Option<RowId>,
        threshold: u64,
        attributes: &Attributes<'a>,
        sink: &mut impl RowSink,
    ) {
        origin.sums.spans += 1;
        let record = Record::of_span(span, attributes, origin.scope_name);
        let trace_id = TraceId::from_slice(span.trace_id);
        let span_id = SpanId::from_slice(span.span_id);
        let parent = SpanId::from_slice(span.parent_span_id);
        let remote_parent = span.flags & FLAG_PARENT_IS_REMOTE == FLAG_PARENT_IS_REMOTE;
        let rule = self.rule(&record);
        if let (Some(trace_id), Some(span_id)) = (trace_id, span_id)
            && (rule.is_none() || remote_parent)
        {
            let link =
                Link { span_id: number(Some(span_id)), parent_span_id: number(parent), remote_parent, threshold };
            sink.link(group_of_trace(origin.tenant_seed, trace_id), link);
        }
        let Some((rule, kind)) = rule else {
            origin.sums.unreadable += i64::from(trace_id.is_none() || span_id.is_none());
            return;
        };
        let times = Times { start: span.start_time_unix_nano, end: span.end_time_unix_nano };
        let checked = match (trace_id, row_id) {
            (None, _) => Err((
                "invalid_trace_id",
                format!("trace_id must be 16 bytes and not all zero, got \"{}\"", Hex(span.trace_id)),
            )),
            (_, None) => Err((
                "invalid_span_id",
                format!("span_id must be 8 bytes and not all zero, got \"{}\"", Hex(span.span_id)),
            )),
            (_, Some(row_id)) => self.check_times(times, origin.frame.received).map(|interval| (row_id, interval)),
        };
        let (row_id, interval) = match checked {
            Ok(checked) => checked,
            Err(refused) => {
                return self.refuse(origin, rule, &record, refused, (span.trace_id, span.span_id), times, sink);
            }
        };
        if !sink.is_new(row_id) {
            origin.sums.duplicates += 1;
            return;
        }
        let ids = Ids { row_id, trace_id, span_id, parent };
        let said = Said { message: span.status.message, events: Some(span.events()), threshold };
        self.write(origin, (rule, kind), &record, &ids, interval, said, sink);
    }

    /// What a record says of how it was sampled: its tracestate, if it has one, or else its attributes.
    #[inline]
    fn threshold(&self, trace_state: &[u8], attributes: &Attributes<'_>) -> u64 {
        let told = if trace_state.is_empty() { None } else { value::threshold(trace_state) };
        told.or_else(|| self.sample_mark(attributes)).unwrap_or(NO_THRESHOLD)
    }

    /// The threshold that follows from attributes by which samplers said how many spans one stands for, before `th`.
    #[inline]
    fn sample_mark(&self, attributes: &Attributes<'_>) -> Option<u64> {
        let number = |slot: Slot| match attributes.get(slot)? {
            AnyValueView::Int(number) => Some(*number as f64),
            AnyValueView::Double(number) => Some(*number),
            AnyValueView::String(text) => std::str::from_utf8(text).ok()?.trim().parse::<f64>().ok(),
            _ => None,
        };
        let count = self.sample_marks.counts.iter().find_map(|slot| number(*slot));
        let count = count.or_else(|| number(self.sample_marks.probability).map(|share| 1.0 / share));
        value::threshold_of_count(count?)
    }

    /// An event of a span that tells of a call, as a log record would. It was sampled with its span, of which `span_threshold` is known.
    fn span_event<'a>(
        &'a self,
        origin: &mut Origin<'a, '_>,
        span: &SpanView<'a>,
        span_threshold: u64,
        event: &EventView<'a>,
        attributes: &Attributes<'a>,
        sink: &mut impl RowSink,
    ) {
        let record = Record::of_event(span, event, attributes, origin.scope_name, self.event_name);
        let Some((rule, kind)) = self.rule(&record) else { return };
        let end = event.time_unix_nano;
        let duration_ns = self.duration_ns(origin, rule, &record);
        let times = Times { start: end.saturating_sub(duration_ns), end };
        let interval = match self.check_times(times, origin.frame.received) {
            Ok(interval) => interval,
            Err(refused) => {
                return self.refuse(origin, rule, &record, refused, (span.trace_id, span.span_id), times, sink);
            }
        };
        let seed = xxh3_64_with_seed(span.span_id, xxh3_64_with_seed(span.trace_id, origin.tenant_seed));
        let row_id = RowId::from_bytes(xxh3_128_with_seed(event.raw(), seed).to_be_bytes());
        if !sink.is_new(row_id) {
            origin.sums.duplicates += 1;
            return;
        }
        // It hangs under its span, and is not that span.
        let parent = SpanId::from_slice(span.span_id);
        let ids = Ids { row_id, trace_id: TraceId::from_slice(span.trace_id), span_id: None, parent };
        let threshold = self.sample_mark(attributes).unwrap_or(span_threshold);
        let said = Said { message: &[], events: None, threshold };
        self.write(origin, (rule, kind), &record, &ids, interval, said, sink);
    }

    /// How long the call of a record took that has one time only, in nanoseconds.
    fn duration_ns<'a>(&self, origin: &mut Origin<'a, '_>, rule: &'a Rule, record: &Record<'_, 'a>) -> u64 {
        let mut unreadable = 0;
        let duration_ms = first(&rule.fields[Field::DurationMs as usize], record)
            .and_then(|value| value::float(value, &mut unreadable));
        let readable = duration_ms.filter(|ms| (0.0..=DURATION_MS_MAX).contains(ms));
        unreadable += i64::from(readable.is_none() && duration_ms.is_some());
        origin.sums.unreadable += unreadable;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded above")]
        readable.map_or(0, |ms| (ms * 1e6).round() as u64)
    }

    fn log_record<'a>(
        &'a self,
        origin: &mut Origin<'a, '_>,
        log: &LogRecordView<'a>,
        attributes: &Attributes<'a>,
        sink: &mut impl RowSink,
    ) {
        origin.sums.log_records += 1;
        let record = Record::of_log(log, attributes, origin.scope_name, self.event_name);
        let Some((rule, kind)) = self.rule(&record) else { return };
        let end = if log.time_unix_nano == 0 { log.observed_time_unix_nano } else { log.time_unix_nano };
        let duration_ns = self.duration_ns(origin, rule, &record);
        let times = Times { start: end.saturating_sub(duration_ns), end };
        let trace_id = TraceId::from_slice(log.trace_id);
        let span_id = SpanId::from_slice(log.span_id);
        let interval = match self.check_times(times, origin.frame.received) {
            Ok(interval) => interval,
            Err(refused) => {
                return self.refuse(origin, rule, &record, refused, (log.trace_id, log.span_id), times, sink);
            }
        };
        let seed = xxh3_64_with_seed(&origin.scope_hash.to_le_bytes(), origin.tenant_seed ^ origin.resource_hash);
        let row_id = RowId::from_bytes(xxh3_128_with_seed(log.raw(), seed).to_be_bytes());
        if !sink.is_new(row_id) {
            origin.sums.duplicates += 1;
            return;
        }
        let ids = Ids { row_id, trace_id, span_id, parent: None };
        let threshold = self.sample_mark(attributes).unwrap_or(NO_THRESHOLD);
        let said = Said { message: &[], events: None, threshold };
        self.write(origin, (rule, kind), &record, &ids, interval, said, sink);
    }

    fn check_times(&self, times: Times, received: UnixMicros) -> Result<Interval, (&'static str, String)> {
        let Times { start, end } = times;
        let (Ok(start), Ok(end)) = (i64::try_from(start), i64::try_from(end)) else {
            return Err(("in_future", format!("times must be before the year 2262, got {start} to {end} ns")));
        };
        let received_ns = received.0.saturating_mul(1_000);
        if end > received_ns.saturating_add(self.settings.ahead_max_us.saturating_mul(1_000)) {
            return Err(("in_future", format!("end time {end} ns is ahead of the receive time {received_ns} ns")));
        }
        if end < start {
            return Err(("end_before_start", format!("end time {end} ns is before start time {start} ns")));
        }
        let oldest = received_ns.saturating_sub(self.settings.retention_us.saturating_mul(1_000));
        if start < oldest {
            return Err(("too_old", format!("start time {start} ns is older than the retention allows, {oldest} ns")));
        }
        Ok(Interval { start_ns: start, end_ns: end })
    }

    #[expect(clippy::too_many_arguments, reason = "all of a refused record")]
    fn refuse<'a>(
        &self,
        origin: &mut Origin<'a, '_>,
        rule: &'a Rule,
        record: &Record<'_, 'a>,
        (reason, detail): (&'static str, String),
        (trace_id, span_id): (&[u8], &[u8]),
        times: Times,
        sink: &mut impl RowSink,
    ) {
        origin.sums.quarantined += 1;
        let mut unreadable = 0;
        let tool_name = first(&rule.fields[Field::ToolName as usize], record)
            .and_then(|value| value::text(&value, WORD_BYTES_MAX, &mut unreadable))
            .map(|name| failure::mask(name).into_owned());
        let micros = |ns: u64| i64::try_from(ns).ok().map(|ns| UnixMicros(ns.div_euclid(1_000)));
        sink.quarantine(Quarantined {
            received: origin.frame.received,
            tenant: origin.frame.tenant.to_owned(),
            service_name: origin.service_name.as_deref().map(str::to_owned),
            signal: signal_of(record),
            reason,
            detail,
            tool_name,
            trace_id: trace_id.iter().copied().take(TEXT_BYTES_MAX).collect(),
            span_id: span_id.iter().copied().take(TEXT_BYTES_MAX).collect(),
            start_time: micros(times.start),
            end_time: micros(times.end),
            position: origin.frame.position,
        });
    }

    #[expect(clippy::too_many_arguments, reason = "all of a row")]
    fn write<'a>(
        &self,
        origin: &mut Origin<'a, '_>,
        (rule, kind): (&'a Rule, Kind),
        record: &Record<'_, 'a>,
        ids: &Ids,
        interval: Interval,
        said: Said<'a>,
        sink: &mut impl RowSink,
    ) {
        let mut bad = 0;
        let found = fields(rule, record);
        let get = |field: Field| found[field as usize].as_ref();
        let failed = rule.failed.iter().any(|condition| holds(condition, record));

        let block = sink.block_number();
        let columns = sink.columns();
        let keys = origin.keys(block, columns);
        let row = columns.rows();
        let mut text_bytes = 0;

        columns.row_id.set(row, ids.row_id.as_bytes());
        columns.start_time.push(interval.start_ns.div_euclid(1_000));
        columns.end_time.push(interval.end_ns.div_euclid(1_000));
        columns.duration_ns.push(interval.end_ns - interval.start_ns);
        columns.kind.set(row, kind as u8);
        columns.layer.set(row, rule.layer as u8);
        columns.signal.set(row, signal_of(record) as u8);
        columns.convention.set(row, &rule.convention);
        columns.tenant.set_key(row, keys.tenant);
        columns.service_name.set_key(row, keys.service_name);
        columns.service_version.set_key(row, keys.service_version);
        columns.environment.set_key(row, keys.environment);
        columns.wal_position.push(origin.frame.position.as_i64());
        if let Some(id) = ids.trace_id {
            columns.trace_id.set(row, id.as_bytes());
        }
        if let Some(id) = ids.span_id {
            columns.span_id.set(row, id.as_bytes());
        }
        if let Some(id) = ids.parent {
            columns.parent_span_id.set(row, id.as_bytes());
        }

        let mut tool = 0;
        let mut server = 0;
        macro_rules! word {
            ($field:ident, $column:ident $(, $hash:ident)?) => {
                if let Some(word) = get(Field::$field).and_then(|value| word_of(value, &mut columns.$column, &mut bad)) {
                    columns.$column.set_key(row, word.key);
                    $($hash = word.hash.max(1);)?
                }
            };
        }
        if kind == Kind::Tool {
            word!(ToolName, tool_name, tool);
            word!(ToolType, tool_type);
            word!(ToolServer, tool_server, server);
        }
        let mut agent = 0;
        word!(AgentName, agent_name, agent);
        match get(Field::Team).and_then(|value| word_of(value, &mut columns.team, &mut bad)) {
            Some(team) => columns.team.set_key(row, team.key),
            None if origin.ownership.is_some() => {
                let told = (kind == Kind::Tool).then(|| [get(Field::ToolServer), get(Field::ToolName)]);
                let team = origin.team(block, (server, tool), told.unwrap_or_default(), columns);
                if team != NULL_WORD {
                    columns.team.set_key(row, team);
                }
            }
            None => {}
        }
        word!(Model, model);
        if kind == Kind::Model {
            word!(Provider, provider);
        }
        word!(CircuitState, circuit_state);
        word!(SideEffect, side_effect);
        let mut text = |field: Field, column: &mut TextColumn, last: &mut LastText<'a>| {
            let Some(text) = get(field).and_then(|value| last.read(value, &mut bad)) else { return 0 };
            column.set(row, &text.masked);
            text_bytes += text.masked.len();
            text.hash
        };
        let session = text(Field::SessionId, &mut columns.session_id, &mut origin.last_session);
        if session == 0 {
            // Relatives do not take it, and the row itself takes one that they say instead.
            text(Field::TransportSessionId, &mut columns.session_id, &mut LastText::default());
        }
        let user = text(Field::UserId, &mut columns.user_id, &mut origin.last_user);
        let call_id = text(Field::CallId, &mut columns.call_id, &mut LastText::default());
        macro_rules! number {
            ($field:ident, $column:ident) => {
                if let Some(count) = get(Field::$field).and_then(|value| value::count(*value, &mut bad)) {
                    columns.$column.set(row, count);
                }
            };
        }
        number!(InputTokens, input_tokens);
        number!(OutputTokens, output_tokens);
        number!(CachedInputTokens, cached_input_tokens);
        number!(ReasoningTokens, reasoning_tokens);
        number!(CacheWriteInputTokens, cache_write_input_tokens);
        let small = |field: Field, bad: &mut i64| {
            let number = get(field).and_then(|value| value::int(*value, bad))?;
            i32::try_from(number).inspect_err(|_| *bad += 1).ok()
        };
        if let Some(level) = small(Field::FallbackLevel, &mut bad) {
            columns.fallback_level.set(row, level);
        }
        let status_code = get(Field::StatusCode).and_then(|value| value::code(*value, &mut bad));
        if let Some(code) = status_code {
            columns.status_code.set(row, code);
        }
        let mut cost = |field: Field| {
            let value = get(field)?;
            let cost = value::cost(*value);
            bad += i64::from(cost.is_none());
            cost
        };
        let parts = |cost: &mut dyn FnMut(Field) -> Option<i128>| {
            cost(Field::InputCostUsd)?.checked_add(cost(Field::OutputCostUsd)?)
        };
        if let Some(cost) = cost(Field::CostUsd).or_else(|| parts(&mut cost)) {
            columns.cost_usd.set(row, cost);
            columns.cost_source.set(row, CostSource::Reported as u8);
        }

        let mut arguments = 0;
        if let Some(value) = get(Field::Arguments) {
            let content = value::content(value);
            columns.input_bytes.set(row, length(content.len()));
            arguments = hash_of(&content);
            columns.arguments_fingerprint.set(row, arguments.cast_signed());
            // What a person said to a model or an agent may be JSON, too; its keys are theirs.
            if kind == Kind::Tool
                && let Some(names) = value::argument_keys(&content)
            {
                columns.argument_keys.set(row, &names);
            }
        } else {
            number!(InputBytes, input_bytes);
        }
        if let Some(value) = get(Field::Result) {
            columns.output_bytes.set(row, length(value::content(value).len()));
        } else {
            number!(OutputBytes, output_bytes);
        }

        let mut asks_retry = false;
        if failed {
            let exception = value::exception(said.events);
            let reported = get(Field::ErrorType).and_then(|value| value::text(value, WORD_BYTES_MAX, &mut bad));
            let message = get(Field::ErrorMessage).and_then(|value| value::text(value, 4 * TEXT_BYTES_MAX, &mut bad));
            let failure = Failure::new((reported, message), exception.as_ref(), said.message);
            let Failure { error_type, message } = &failure;
            asks_retry = get(Field::AsksRetry).is_some() || error_type.as_deref().is_some_and(failure::asks_retry);
            columns.outcome.set(row, Outcome::Error as u8);
            let told = rule.classes.iter().find(|(condition, _)| holds(condition, record)).map(|(_, class)| *class);
            let class =
                told.unwrap_or_else(|| failure::class(error_type.as_deref(), status_code, message.as_deref()).0);
            columns.error_class.set(row, class as u8);
            columns.error_fingerprint.set(row, failure::fingerprint(error_type.as_deref(), message.as_deref()));
            if let Some(error_type) = error_type {
                columns.error_type.set(row, &failure::redact(error_type));
            }
            if let Some(message) = message {
                let message = failure::redact(message);
                columns.error_message.set(row, &message);
                text_bytes += message.len();
            }
        } else {
            columns.outcome.set(row, Outcome::Ok as u8);
            columns.error_class.set(row, ErrorClass::None as u8);
        }
        if let Some(kept) = kept_attributes(&self.kept[usize::from(!failed)], record) {
            columns.attributes.set(row, &kept);
            text_bytes += kept.len();
        }

        let resend =
            small(Field::ResendCount, &mut bad).filter(|count| *count > 0).map(|count| count.saturating_add(1));
        let attempt = small(Field::Attempt, &mut bad).or(resend).filter(|attempt| *attempt > 0);
        columns.add_text_bytes(text_bytes);
        columns.end_row();
        let lag_ms = (origin.frame.received.0 - interval.end_ns.div_euclid(1_000)).div_euclid(1_000);
        origin.sums.max_lag_ms = origin.sums.max_lag_ms.max(lag_ms);
        origin.sums.calls += 1;
        origin.sums.unreadable += bad;

        let group = match ids.trace_id {
            Some(trace_id) if session == 0 || !rule.related_by_session => group_of_trace(origin.tenant_seed, trace_id),
            _ if session != 0 => {
                GroupKey(xxh3_128_with_seed(&session.to_le_bytes(), origin.tenant_seed.wrapping_add(1)))
            }
            _ => GroupKey(u128::from_le_bytes(*ids.row_id.as_bytes())),
        };
        let facts = Facts {
            seq: 0,
            row_id: ids.row_id,
            span_id: number(ids.span_id),
            parent_span_id: number(ids.parent),
            kind,
            layer: rule.layer,
            signal: signal_of(record),
            tool,
            server,
            source: origin.source,
            call_id,
            arguments,
            session,
            user,
            agent,
            start_ns: interval.start_ns,
            end_ns: interval.end_ns,
            failed,
            asked: rule.asked,
            asks_retry,
            says_attempt: attempt.map_or(0, i32::unsigned_abs),
            threshold: said.threshold,
        };
        sink.row(group, facts);
    }
}

struct Ids {
    row_id: RowId,
    trace_id: Option<TraceId>,
    span_id: Option<SpanId>,
    parent: Option<SpanId>,
}

#[derive(Clone, Copy)]
struct Times {
    start: u64,
    end: u64,
}

#[derive(Clone, Copy)]
struct Interval {
    start_ns: i64,
    end_ns: i64,
}

/// What a span says of its failure and its sampling.
struct Said<'a> {
    message: &'a [u8],
    events: Option<Events<'a>>,
    threshold: u64,
}

/// What the column `signal` says of a record.
fn signal_of(record: &Record<'_, '_>) -> Signal {
    match record.looks {
        Looks::Span | Looks::SpanEvent => Signal::Span,
        Looks::Log => Signal::Log,
    }
}

/// The allowed attributes that the record has, as a JSON object.
fn kept_attributes(allowed: &[(Slot, String)], record: &Record<'_, '_>) -> Option<String> {
    let mut bad = 0;
    let kept: serde_json::Map<_, _> = allowed
        .iter()
        .filter_map(|(slot, key)| {
            let text = value::text(record.attributes.get(*slot)?, TEXT_BYTES_MAX, &mut bad)?;
            Some((key.clone(), serde_json::Value::String(failure::redact(&text))))
        })
        .collect();
    (!kept.is_empty()).then(|| serde_json::Value::Object(kept).to_string())
}

struct Hex<'a>(&'a [u8]);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().take(32).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn number(id: Option<SpanId>) -> u64 {
    id.map_or(0, |id| u64::from_be_bytes(*id.as_bytes()))
}

/// A 64-bit hash that is not 0, which stands for "none".
fn hash_of(bytes: &[u8]) -> u64 {
    xxh3_64(bytes).max(1)
}

/// The value as a word of this block. Most words are known already, and then nothing of them is looked at again.
#[inline]
fn word_of(value: &AnyValueView<'_>, column: &mut WordColumn, unreadable: &mut i64) -> Option<Word> {
    if let AnyValueView::String(bytes) = value
        && let Some(known) = column.known(bytes)
    {
        return Some(known);
    }
    Some(column.word(&failure::mask(value::text(value, WORD_BYTES_MAX, unreadable)?)))
}

fn length(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn group_of_trace(tenant_seed: u64, trace_id: TraceId) -> GroupKey {
    GroupKey(xxh3_128_with_seed(trace_id.as_bytes(), tenant_seed))
}

/// Key names that are never kept, whatever the configuration says.
fn looks_like_credential(key: &str) -> bool {
    let key = key.to_lowercase();
    ["password", "passwd", "secret", "token", "authorization", "credential", "api_key", "apikey", "cookie"]
        .iter()
        .any(|word| key.contains(word))
}
