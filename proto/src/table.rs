//! The tables at the waist: one list of columns each, from which Arrow's schema, Delta's schema and the documentation
//! come.
//!
//! Names follow OpenTelemetry attribute names, with `.` as `_`. Every table is partitioned by `date` (UTC).
//!
//! A new column goes to the end of its list and is nullable: a table of an earlier version gets it when it is opened, and
//! in the rows that are there already it is null.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// A table of the lake.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(usize)]
pub enum Table {
    /// One row per call attempt.
    Calls,
    /// Sums per minute of receipt.
    Arrivals,
    /// Records that were refused a place.
    Quarantine,
    /// Sums of `calls` per minute.
    Calls1m,
    /// Sums per SLO per minute.
    Slo1m,
    /// State changes of alerts.
    Alerts,
    /// Sums of `calls` per hour.
    Calls1h,
}

/// A column's type: the few that every Delta reader knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ColumnType {
    /// Days since 1970-01-01.
    Date,
    /// Microseconds since 1970-01-01T00:00:00Z.
    Timestamp,
    /// 64-bit signed integer.
    Int64,
    /// 32-bit signed integer.
    Int32,
    /// True or false.
    Bool,
    /// Bytes.
    Binary,
    /// UTF-8 text of few distinct values; live rows hold it as a dictionary.
    Word,
    /// UTF-8 text.
    Text,
    /// Decimal of 18 digits, so many of them after the point.
    Decimal(i8),
}

impl ColumnType {
    /// The Arrow type that readers see.
    #[must_use]
    pub fn arrow(self) -> DataType {
        match self {
            Self::Date => DataType::Date32,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Int64 => DataType::Int64,
            Self::Int32 => DataType::Int32,
            Self::Bool => DataType::Boolean,
            Self::Binary => DataType::Binary,
            Self::Word | Self::Text => DataType::Utf8,
            Self::Decimal(scale) => DataType::Decimal128(18, scale),
        }
    }

    /// The Arrow type of live rows in memory: as [`ColumnType::arrow`], but words as dictionaries.
    #[must_use]
    pub fn arrow_live(self) -> DataType {
        match self {
            Self::Word => DataType::Dictionary(Box::new(DataType::UInt16), Box::new(DataType::Utf8)),
            other => other.arrow(),
        }
    }
}

/// One column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its name in SQL.
    pub name: &'static str,
    /// Its type.
    pub column_type: ColumnType,
    /// Whether a row may leave it open.
    pub nullable: bool,
    /// What it means.
    pub meaning: &'static str,
}

/// What becomes of a column when rows with one key become one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Merge {
    /// It is part of the key.
    Key,
    /// The sum of what is not null.
    Sum,
    /// The greatest.
    Greatest,
    /// The histogram of all that was counted.
    Histogram,
}

const fn req(name: &'static str, column_type: ColumnType, meaning: &'static str) -> Column {
    Column { name, column_type, nullable: false, meaning }
}

const fn opt(name: &'static str, column_type: ColumnType, meaning: &'static str) -> Column {
    Column { name, column_type, nullable: true, meaning }
}

use ColumnType::{Binary, Bool, Date, Decimal, Int32, Int64, Text, Timestamp, Word};

/// `calls`: one row per call attempt.
pub const CALLS: &[Column] = &[
    req("date", Date, "partition: UTC date of end_time"),
    req(
        "row_id",
        Binary,
        "identity, 16 bytes: spans by (tenant, trace_id, span_id), logs by (tenant, resource, scope, record)",
    ),
    req("start_time", Timestamp, "when the attempt began"),
    req("end_time", Timestamp, "when it ended; the call belongs to this minute"),
    req("duration_ns", Int64, "exact duration in nanoseconds"),
    req("kind", Word, "tool, model, agent"),
    req("tenant", Word, "`default` unless authentication says otherwise"),
    opt("service_name", Word, "from the resource"),
    opt("service_version", Word, "from the resource"),
    opt("environment", Word, "from the resource"),
    opt("tool_name", Word, "a tool is identified by (tenant, tool_server, tool_name)"),
    opt("tool_type", Word, "function, extension, datastore, or as reported"),
    opt("tool_server", Word, "MCP server or peer"),
    opt("agent_name", Word, "the agent that runs or calls"),
    opt("session_id", Text, "session or conversation"),
    opt("user_id", Text, "end user, as reported"),
    opt("team", Word, "from an attribute or the ownership file"),
    opt("model", Word, "model that answered, else the one asked for"),
    req("layer", Word, "who saw it: agent, client, server"),
    req("counted", Bool, "false where another row counts the same call"),
    opt("trace_id", Binary, "16 bytes"),
    opt("span_id", Binary, "8 bytes"),
    opt("parent_span_id", Binary, "8 bytes"),
    opt("call_id", Text, "the producer's own id of the call"),
    opt("arguments_fingerprint", Int64, "hash of the arguments, never the arguments"),
    req("wal_position", Int64, "where its export stands in the log of its writer"),
    req("signal", Word, "span, log"),
    req("convention", Word, "the convention that recognised it"),
    req("outcome", Word, "ok, error"),
    req("error_class", Word, "why it failed; `none` if it did not"),
    opt("error_type", Word, "as reported"),
    opt("status_code", Int32, "as reported: HTTP, gRPC or JSON-RPC code"),
    opt("error_message", Text, "redacted, at most 512 bytes"),
    opt("error_fingerprint", Int64, "same root cause, same number"),
    req("attempt", Int32, "1 for a first try, more for retries"),
    req("final", Bool, "false for a failed attempt that a retry followed"),
    opt("fallback_level", Int32, "0 for the preferred tool, more for fallbacks"),
    opt("circuit_state", Word, "state of the circuit breaker, as reported"),
    opt("side_effect", Word, "committed, failed, compensated, compensation_failed"),
    opt("input_tokens", Int64, "all input tokens, cached ones included"),
    opt("output_tokens", Int64, "all output tokens, reasoning included"),
    opt("cached_input_tokens", Int64, "part of input_tokens read from a cache"),
    opt("reasoning_tokens", Int64, "part of output_tokens spent on reasoning"),
    opt("input_bytes", Int64, "size of the arguments"),
    opt("output_bytes", Int64, "size of the result"),
    opt("argument_keys", Word, "key names of the arguments, sorted, comma between"),
    opt("cost_usd", Decimal(9), "null when unknown, never 0 for unknown"),
    opt("cost_source", Word, "reported, price_book"),
    req("weight", Decimal(6), "adjusted count of a sampled span, else 1"),
    opt("attributes", Text, "JSON object of what redaction let through"),
    opt("provider", Word, "who serves the model, as reported"),
    opt("cache_write_input_tokens", Int64, "part of input_tokens written to a cache"),
    opt("logical_call_id", Binary, "row_id of the first attempt of its logical call; null on first attempts"),
    opt("retry_delay_ns", Int64, "from the end of the attempt that it retried to its start; null on first attempts"),
    opt("retry_lost_ns", Int64, "from the start of the first attempt to its start; null on first attempts"),
];

/// `arrivals`: sums per minute of receipt; additive, the truth of a key is the sum of its rows.
pub const ARRIVALS: &[Column] = &[
    req("date", Date, "partition: UTC date of minute"),
    req("minute", Timestamp, "start of the minute of receipt"),
    opt("tenant", Word, "null on the heartbeat row that every minute has"),
    opt("service_name", Word, "from the resource"),
    req("requests", Int64, "exports that had rows of this service"),
    req("spans", Int64, "spans received"),
    req("log_records", Int64, "log records received"),
    req("calls", Int64, "rows recognised as calls, duplicates not counted"),
    req("unreadable", Int64, "values or records that could not be read"),
    req("duplicates", Int64, "rows dropped because their row_id was known"),
    req("quarantined", Int64, "rows refused a place"),
    req("max_lag_ms", Int64, "largest receive time minus end time"),
];

/// `quarantine`: every record that was refused a place, with the reason.
pub const QUARANTINE: &[Column] = &[
    req("date", Date, "partition: UTC date of received"),
    req("received", Timestamp, "when its export was received"),
    req("tenant", Word, "tenant of the export"),
    opt("service_name", Word, "from the resource"),
    req("signal", Word, "span, log"),
    req("reason", Word, "why, one word"),
    req("detail", Text, "why, with the values that were refused"),
    opt("tool_name", Word, "as reported"),
    opt("trace_id", Binary, "as reported, whatever its length"),
    opt("span_id", Binary, "as reported, whatever its length"),
    opt("start_time", Timestamp, "as reported, if it can be represented"),
    opt("end_time", Timestamp, "as reported, if it can be represented"),
    req("wal_position", Int64, "where its export stands in the log of its writer"),
];

/// The columns of sums of `calls`, by the column with the start of what they are summed over.
macro_rules! sums_of_calls {
    ($start:literal, $meaning:literal) => {
        &[
            req("date", Date, concat!("partition: UTC date of ", $start)),
            req($start, Timestamp, $meaning),
            req("kind", Word, "tool, model, agent"),
            req("counted", Bool, "false where other rows count the same calls"),
            req("tenant", Word, "as in `calls`"),
            opt("service_name", Word, "as in `calls`"),
            opt("environment", Word, "as in `calls`"),
            opt("tool_server", Word, "as in `calls`"),
            opt("tool_name", Word, "as in `calls`"),
            opt("agent_name", Word, "as in `calls`"),
            opt("model", Word, "as in `calls`"),
            req("outcome", Word, "ok, error"),
            req("error_class", Word, "as in `calls`"),
            req("final", Bool, "false for failed attempts that a retry followed"),
            req("calls", Int64, "rows of `calls`"),
            req("retries", Int64, "rows whose attempt is above 1"),
            req("last_end_time", Timestamp, "latest end_time; of several rows of a key the latest"),
            req("weighted_calls", Decimal(6), "sum of weight"),
            req("duration_ns_sum", Int64, "sum of duration_ns"),
            req("latency", Binary, "HDR V2 histogram of durations, microseconds rounded up, 3 significant digits"),
            opt("cost_usd", Decimal(9), "sum of the known costs, null if none is known"),
            req("priced_calls", Int64, "rows whose cost is known"),
            req("input_tokens", Int64, "sum; unknown counts as 0"),
            req("output_tokens", Int64, "sum; unknown counts as 0"),
            req("input_bytes", Int64, "sum; unknown counts as 0"),
            req("output_bytes", Int64, "sum; unknown counts as 0"),
            opt("further_attempts", Int64, "sum of attempt - 1; null for 0"),
            opt("retry_lost_ns_sum", Int64, "sum of retry_lost_ns; null where none is known"),
            opt("retry_delay", Binary, "histogram of retry_delay_ns as `latency`; null where none is known"),
            opt("retries_further_weight", Decimal(6), "sum of weight - 1 of the retries; null for 0"),
            opt(
                "further_weight_squares",
                Decimal(6),
                "sum of weight^2 - 1, weights above 999999.999999 as that; null for 0",
            ),
        ]
    };
}

/// `calls_1m`: sums of `calls` per minute; additive, the truth of a key is the sum of its rows, of histograms their merge.
pub const CALLS_1M: &[Column] = sums_of_calls!("minute", "start of the minute in which the calls ended");

/// `calls_1h`: as `calls_1m`, per hour.
pub const CALLS_1H: &[Column] = sums_of_calls!("hour", "start of the hour in which the calls ended");

/// `slo_1m`: sums per SLO per minute; additive. A cache of what the SLO's expressions count over `calls`.
pub const SLO_1M: &[Column] = &[
    req("date", Date, "partition: UTC date of minute"),
    req("minute", Timestamp, "start of the minute in which the calls ended"),
    req("service", Word, "service of the SLO"),
    req("slo", Word, "name of the SLO"),
    req("slo_revision", Word, "hash of what the SLO counts"),
    req("group", Text, "values it is grouped by, canonical JSON, `{}` for none"),
    req("good", Int64, "good events"),
    req("bad", Int64, "bad events"),
    req("excluded", Int64, "events in its scope that are not in its total"),
    req("nulls", Int64, "events whose expression was null"),
    req("good_weighted", Decimal(6), "sum of weight of the good events"),
    req("bad_weighted", Decimal(6), "sum of weight of the bad events"),
];

/// `alerts`: every state change of an alert, with what caused it, and every notification received.
pub const ALERTS: &[Column] = &[
    req("date", Date, "partition: UTC date of time"),
    req("time", Timestamp, "time of the evaluation, or of receipt"),
    req("source", Word, "evaluator, alertmanager"),
    req("alertname", Word, "ErrorBudgetBurn and others"),
    opt("service", Word, "service of the SLO"),
    opt("slo", Word, "name of the SLO"),
    req("group", Text, "values the SLO is grouped by, canonical JSON, `{}` for none"),
    opt("tool", Word, "the tool, where the alert is about one"),
    opt("severity", Word, "page, ticket"),
    opt("burn_tier", Word, "windows of the tier that decided"),
    opt("tenant", Word, "tenant of the calls"),
    req("state", Word, "inactive, pending, firing, resolved"),
    opt("previous_state", Word, "state before, null for the first"),
    opt("evaluation", Word, "ok, stale, idle, learning"),
    opt("starts_at", Timestamp, "when it began to fire"),
    opt("ends_at", Timestamp, "when it was resolved"),
    req("position", Int64, "log position up to which rows were counted"),
    opt("long_window_s", Int64, "long window, seconds"),
    opt("short_window_s", Int64, "short window, seconds"),
    opt("long_good", Int64, "good events of the long window"),
    opt("long_bad", Int64, "bad events of the long window"),
    opt("short_good", Int64, "good events of the short window"),
    opt("short_bad", Int64, "bad events of the short window"),
    opt("long_burn_rate", Decimal(9), "burn rate over the long window"),
    opt("short_burn_rate", Decimal(9), "burn rate over the short window"),
    opt("threshold", Decimal(9), "burn rate from which it fires"),
    opt("reason", Text, "why the state changed"),
    req("fingerprint", Text, "identity of the alert: hash of its labels, 16 hex digits"),
    req("labels", Text, "JSON object"),
    req("annotations", Text, "JSON object"),
];

fn schema_of(columns: &[Column], data_type: fn(ColumnType) -> DataType) -> SchemaRef {
    Arc::new(Schema::new(
        columns.iter().map(|c| Field::new(c.name, data_type(c.column_type), c.nullable)).collect::<Vec<_>>(),
    ))
}

type Schemas = [SchemaRef; Table::ALL.len()];
static SCHEMAS: LazyLock<Schemas> = LazyLock::new(|| Table::ALL.map(|t| schema_of(t.columns(), ColumnType::arrow)));
static LIVE_SCHEMAS: LazyLock<Schemas> =
    LazyLock::new(|| Table::ALL.map(|t| schema_of(t.columns(), ColumnType::arrow_live)));

impl Table {
    /// Every table.
    pub const ALL: [Self; 7] =
        [Self::Calls, Self::Arrivals, Self::Quarantine, Self::Calls1m, Self::Slo1m, Self::Alerts, Self::Calls1h];

    /// Its name in SQL and its folder in the lake.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Arrivals => "arrivals",
            Self::Quarantine => "quarantine",
            Self::Calls1m => "calls_1m",
            Self::Slo1m => "slo_1m",
            Self::Alerts => "alerts",
            Self::Calls1h => "calls_1h",
        }
    }

    /// Its columns in order.
    #[must_use]
    pub const fn columns(self) -> &'static [Column] {
        match self {
            Self::Calls => CALLS,
            Self::Arrivals => ARRIVALS,
            Self::Quarantine => QUARANTINE,
            Self::Calls1m => CALLS_1M,
            Self::Slo1m => SLO_1M,
            Self::Alerts => ALERTS,
            Self::Calls1h => CALLS_1H,
        }
    }

    /// Whether readers write it, by [`Lake::append`](crate::lake::Lake::append); the collector writes the others.
    #[must_use]
    pub const fn is_appended_by_readers(self) -> bool {
        matches!(self, Self::Slo1m | Self::Alerts)
    }

    /// Whether several rows may have one key, of which the truth is the sum: what [`Table::merge`] is for.
    #[must_use]
    pub const fn is_additive(self) -> bool {
        matches!(self, Self::Arrivals | Self::Calls1m | Self::Slo1m | Self::Calls1h)
    }

    /// What becomes of a column when rows with one key become one; only of an additive table.
    #[must_use]
    pub fn merge(self, column: &Column) -> Merge {
        match (column.name, column.column_type) {
            ("last_end_time" | "max_lag_ms", _) => Merge::Greatest,
            (_, Int64 | Decimal(_)) => Merge::Sum,
            (_, Binary) => Merge::Histogram,
            _ => Merge::Key,
        }
    }

    /// The Arrow schema that readers see.
    #[must_use]
    pub fn schema(self) -> SchemaRef {
        Arc::clone(&SCHEMAS[self as usize])
    }

    /// The Arrow schema of live rows: [`Table::schema`] with words as dictionaries.
    #[must_use]
    pub fn live_schema(self) -> SchemaRef {
        Arc::clone(&LIVE_SCHEMAS[self as usize])
    }

    /// Where the column stands.
    ///
    /// # Panics
    /// If the table has no such column.
    #[must_use]
    pub fn index_of(self, column: &str) -> usize {
        self.columns()
            .iter()
            .position(|c| c.name == column)
            .unwrap_or_else(|| panic!("table {} has no column {column:?}", self.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_and_settled_schemas_name_the_same_columns() {
        for table in Table::ALL {
            let (settled, live) = (table.schema(), table.live_schema());
            assert_eq!(settled.fields().len(), live.fields().len());
            assert!(settled.fields().iter().zip(live.fields()).all(|(a, b)| a.name() == b.name()));
            assert_eq!(table.columns()[0].name, "date");
        }
    }

    #[test]
    fn additive_tables_have_their_time_second_and_sums() {
        for table in Table::ALL.into_iter().filter(|table| table.is_additive()) {
            let merges: Vec<_> = table.columns().iter().map(|column| table.merge(column)).collect();
            assert_eq!((table.columns()[1].column_type, merges[1]), (Timestamp, Merge::Key));
            assert!(merges.contains(&Merge::Sum), "{}", table.name());
        }
        let minutes = Table::Calls1m.columns().iter();
        assert!(
            minutes.zip(Table::Calls1h.columns()).skip(2).all(|(a, b)| (a.name, a.nullable) == (b.name, b.nullable))
        );
    }
}
