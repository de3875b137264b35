//! The reports of the API. Each is made from one snapshot: its statements (`sql/*.sql`) run in one session.
//!
//! Over ranges of at least [`SUMS_FROM_US`] the whole minutes come from their sums in `calls_1m`, over ranges of at least
//! [`HOURS_FROM_US`] the whole hours from `calls_1h`, and what of the range lies before and after them from finer ones. The
//! figures are the same.
//!
//! Where too many series came on a date of the range, the sums know only some of their names ([`toolgauge_analytics::series`]). Then a
//! report over them has `__other__` and says `folded`; one that is asked for some names only is made from the calls, whatever the range.
//!
//! # What the numbers of the tools report mean
//! * Rows: the counted tool rows whose `end_time` is in [from, to). An attempt is a row, a logical call a `final` row.
//! * Cost per call = known cost / priced attempts; cost per success = known cost / priced successes, null while less
//!   than 80 % of the attempts are priced. Wasted cost = known cost of failed attempts; null if none of the attempts
//!   that it would be made of is priced. Unknown is null, never 0. Quotients are rounded half-even to 9 places; amounts
//!   are written without trailing zeros.
//! * Retries and samples: see [`attempts`].
//! * Coverage: of the minutes of the range that had ended at the watermark, the share in which exports were accepted.
//!   The minute that is running counts once it has an arrival, so that a fresh server is not held to be down. Without
//!   any such minute it is 0.

mod attempts;
mod costs;
mod latency;
mod owners;
mod sessions;
mod tail;
mod trace;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Decimal128Type, Int64Type, TimestampMicrosecondType};
use datafusion::common::ScalarValue;
use toolgauge_analytics::hist::Histogram;
use toolgauge_proto::api::slo::AlertChange;
use toolgauge_proto::api::{Latency, Scope, ToolReport, ToolsReport};
use toolgauge_proto::lake::View;
use toolgauge_proto::time::{HOUR_MICROS, MINUTE_MICROS, UnixMicros};

use crate::engine::{Answer, Engine, Error, Session};
use crate::json::rfc3339;
use crate::tables::Catalog;

pub(crate) use attempts::weighted_events;
pub use costs::{CostsBy, costs, unpriced};
pub use latency::latency;
pub use owners::owners;
pub use sessions::sessions;
pub use trace::calls_of;

const TOOLS: &str = include_str!("../sql/tools.sql");
const TOOL_SUMS: &str = include_str!("../sql/tool_sums.sql");
const TOOL_SUMS_1M: &str = include_str!("../sql/tool_sums_1m.sql");
const TOOL_SUMS_1H: &str = include_str!("../sql/tool_sums_1h.sql");
const PROVISIONAL: &str = include_str!("../sql/provisional.sql");
const ALERT_HISTORY: &str = include_str!("../sql/alert_history.sql");
const HAS_OTHERS: &str = include_str!("../sql/has_others.sql");
const COVERED_MINUTES: &str = include_str!("../sql/covered_minutes.sql");

/// Ranges of so many microseconds are summed from `calls_1m`: two hours. The live rows of `calls_1m` have to be summed first, which
/// is not worth it for less.
pub const SUMS_FROM_US: i64 = 2 * HOUR_MICROS;
/// Ranges of so many microseconds are summed from `calls_1h`: half a day, of which at most two hours are left to minutes.
pub const HOURS_FROM_US: i64 = 12 * HOUR_MICROS;
/// Price coverage below which a cost per success would mislead, in percent.
pub const PRICE_COVERAGE_MIN_PERCENT: u64 = 80;
/// Digits after the point of an amount of money.
const MONEY_SCALE: u32 = 9;

/// Which rows a report is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// Start, inclusive.
    pub from: UnixMicros,
    /// End, exclusive.
    pub to: UnixMicros,
    /// Only this service.
    pub service: Option<String>,
    /// Only this environment.
    pub environment: Option<String>,
    /// Only tools of this name.
    pub tool: Option<String>,
    /// Only tools of this server.
    pub server: Option<String>,
}

impl Range {
    /// All rows between two instants.
    #[must_use]
    pub fn new(from: UnixMicros, to: UnixMicros) -> Self {
        Self { from, to, service: None, environment: None, tool: None, server: None }
    }

    fn parameters(&self) -> Vec<(&'static str, ScalarValue)> {
        vec![
            ("from", timestamp(self.from)),
            ("to", timestamp(self.to)),
            ("service", ScalarValue::Utf8(self.service.clone())),
            ("environment", ScalarValue::Utf8(self.environment.clone())),
            ("tool", ScalarValue::Utf8(self.tool.clone())),
            ("server", ScalarValue::Utf8(self.server.clone())),
            ("recent", timestamp(attempts::recent(self))),
        ]
    }

    /// Whether only rows of some names are asked for.
    const fn is_filtered(&self) -> bool {
        self.service.is_some() || self.environment.is_some() || self.tool.is_some() || self.server.is_some()
    }

    /// Those of `tool_sums_1m.sql` and `tool_sums_1h.sql`: also the first whole minute and hour, and the ends of the last ones.
    fn parameters_of_sums(&self, names: Names) -> Vec<(&'static str, ScalarValue)> {
        let next = |time: UnixMicros, step: i64| UnixMicros(time.0.saturating_add(step - 1));
        let first = match names {
            Names::OfSums => next(self.from, MINUTE_MICROS).minute().min(self.to),
            // No minute is whole, and all of them come from the calls.
            Names::OfCalls => self.to,
        };
        let end = self.to.minute().max(first);
        let first_hour = next(first, HOUR_MICROS).hour().min(end);
        let mut parameters = self.parameters();
        parameters.push(("first", timestamp(first)));
        parameters.push(("end", timestamp(end)));
        parameters.push(("first_hour", timestamp(first_hour)));
        parameters.push(("end_hour", timestamp(end.hour().max(first_hour))));
        parameters
    }
}

/// Whose names a report over sums needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    /// Those that the sums have.
    OfSums,
    /// All: the sums of the range lack some that may be among those that are asked for.
    OfCalls,
}

/// Which names a report needs, and whether it lacks some.
async fn names(session: &Session, range: &Range) -> Result<(Names, bool), Error> {
    let date = |time: UnixMicros| ScalarValue::Date32(Some(time.date32()));
    let last = UnixMicros(range.to.0.saturating_sub(1));
    let answer = session.query(HAS_OTHERS, vec![("from_date", date(range.from)), ("to_date", date(last))]).await?;
    let others = Rows::new(&answer)?.column(0, DataType::Boolean)?.as_boolean().value(0);
    Ok(match (others, range.is_filtered()) {
        (true, true) => (Names::OfCalls, false),
        (others, _) => (Names::OfSums, others),
    })
}

/// Where the sums of a report come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The rows of `calls`.
    Calls,
    /// `calls_1m`, for all whole minutes.
    Minutes,
    /// `calls_1h`, for all whole hours.
    Hours,
}

impl Source {
    /// The one that is cheaper over this range.
    #[must_use]
    pub const fn of(range: &Range) -> Self {
        match range.to.0.saturating_sub(range.from.0) {
            ..SUMS_FROM_US => Self::Calls,
            SUMS_FROM_US..HOURS_FROM_US => Self::Minutes,
            HOURS_FROM_US.. => Self::Hours,
        }
    }

    /// The statement with the sums of this source.
    const fn sums(self) -> &'static str {
        match self {
            Self::Calls => TOOL_SUMS,
            Self::Minutes => TOOL_SUMS_1M,
            Self::Hours => TOOL_SUMS_1H,
        }
    }
}

/// The figures of every tool.
///
/// # Errors
/// See [`Error`].
pub async fn tools(
    engine: &Engine,
    catalog: &Catalog,
    view: Arc<View>,
    now: UnixMicros,
    range: Range,
    source: Source,
) -> Result<ToolsReport, Error> {
    over_snapshot(engine, catalog, &view, now, async move |session, snapshot| {
        // Most of the time goes into planning, a statement on one thread.
        let range = Arc::new(range);
        let of = || Arc::clone(&range);
        let usual = session.begin({
            let range = of();
            async move |session| attempts::usual(&session, &range).await
        });
        let scope = session.begin({
            let range = of();
            async move |session| snapshot.scope(&session, &range).await
        });
        let suspected = session.begin({
            let range = of();
            async move |session| tail::suspected(&session, &range, snapshot.watermark).await
        });
        let names = session.begin({
            let range = of();
            async move |session| names_of(&session, &range, source).await
        });
        let sums = over_sums(source.sums(), TOOLS);
        let (tools, folded) = if range.is_filtered() {
            let (names, folded) = names.end().await?;
            (session.query(&sums, range.parameters_of_sums(names)).await?, folded)
        } else {
            // Whether names are lacking changes only what is said of them.
            let tools = session.query(&sums, range.parameters_of_sums(Names::OfSums)).await?;
            (tools, names.end().await?.1)
        };
        let truncated = tools.truncated;
        let mut tools = tool_reports(&Rows::new(&tools)?, &range, &usual.end().await?)?;
        tail::mark(&session, &range, snapshot.watermark, &suspected.end().await?, &mut tools).await?;
        Ok(ToolsReport { scope: scope.end().await?, tools, folded, truncated })
    })
    .await
}

/// As [`names`]; calls have all names.
async fn names_of(session: &Session, range: &Range, source: Source) -> Result<(Names, bool), Error> {
    match source {
        Source::Calls => Ok((Names::OfSums, false)),
        Source::Minutes | Source::Hours => names(session, range).await,
    }
}

/// A statement over `tool_sums`.
fn over_sums(sums: &str, statement: &str) -> String {
    format!("WITH tool_sums AS (\n{sums})\n{statement}")
}

/// Up to where a snapshot goes.
#[derive(Debug, Clone, Copy)]
struct Snapshot {
    position: u64,
    settled: i64,
    watermark: UnixMicros,
}

impl Snapshot {
    async fn scope(&self, session: &Session, range: &Range) -> Result<Scope, Error> {
        let mut undecided = range.parameters();
        undecided.push(("settled", ScalarValue::Int64(Some(self.settled))));
        Ok(Scope {
            from: rfc3339(range.from),
            to: rfc3339(range.to),
            watermark: rfc3339(self.watermark),
            position: self.position,
            coverage: coverage(session, range, self.watermark).await?,
            provisional: Rows::new(&session.query(PROVISIONAL, undecided).await?)?.count(0, 0)?,
        })
    }
}

/// Runs the statements of a report in one session over one snapshot.
async fn over_snapshot<T, W, F>(
    engine: &Engine,
    catalog: &Catalog,
    view: &Arc<View>,
    now: UnixMicros,
    work: W,
) -> Result<T, Error>
where
    T: Send + 'static,
    W: FnOnce(Session, Snapshot) -> F + Send + 'static,
    F: Future<Output = Result<T, Error>> + Send,
{
    let snapshot = Snapshot { position: view.position.0, settled: view.settled.as_i64(), watermark: view.watermark };
    let now = chrono::DateTime::from_timestamp_micros(now.0).unwrap_or_default();
    engine.run(catalog.schema(Arc::clone(view)), now, move |session| work(session, snapshot)).await
}

/// Which changes of alerts are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertFilter {
    /// Start, inclusive.
    pub from: UnixMicros,
    /// End, exclusive.
    pub to: UnixMicros,
    /// Only changes to this state.
    pub state: Option<String>,
    /// Only alerts of this severity.
    pub severity: Option<String>,
}

/// The changes of state of the evaluator's alerts, newest first, and whether the row limit cut them.
///
/// # Errors
/// See [`Error`].
pub async fn alert_history(
    engine: &Engine,
    catalog: &Catalog,
    view: Arc<View>,
    now: UnixMicros,
    filter: AlertFilter,
) -> Result<(Vec<AlertChange>, bool), Error> {
    let schema = catalog.schema(view);
    let now = chrono::DateTime::from_timestamp_micros(now.0).unwrap_or_default();
    engine
        .run(schema, now, async move |session| {
            let parameters = vec![
                ("from", timestamp(filter.from)),
                ("to", timestamp(filter.to)),
                ("state", ScalarValue::Utf8(filter.state)),
                ("severity", ScalarValue::Utf8(filter.severity)),
            ];
            let answer = session.query(ALERT_HISTORY, parameters).await?;
            let rows = Rows::new(&answer)?;
            let change = |row: usize| -> Result<AlertChange, Error> {
                let labels = rows.text(3, row)?.unwrap_or_default();
                Ok(AlertChange {
                    time: rfc3339(rows.timestamp(0, row)?),
                    position: rows.count(1, row)?,
                    fingerprint: rows.text(2, row)?.unwrap_or_default(),
                    labels: serde_json::from_str(&labels).unwrap_or_default(),
                    previous_state: rows.text(4, row)?,
                    state: rows.text(5, row)?.unwrap_or_default(),
                    reason: rows.text(6, row)?,
                })
            };
            Ok(((0..rows.len()).map(change).collect::<Result<_, _>>()?, answer.truncated))
        })
        .await
}

async fn coverage(session: &Session, range: &Range, watermark: UnixMicros) -> Result<f64, Error> {
    let (first, running) = (range.from.minute(), watermark.minute());
    let parameters = vec![("from", timestamp(first)), ("to", timestamp(range.to)), ("running", timestamp(running))];
    let rows = Rows::new(&session.query(COVERED_MINUTES, parameters).await?)?;
    let covered = rows.count(0, 0)?;
    let running_counts = u64::from(rows.column(1, DataType::Boolean)?.as_boolean().value(0));
    // Minutes that begin in the range and had ended.
    let end = range.to.0.saturating_add(MINUTE_MICROS - 1).min(watermark.0);
    let ended = u64::try_from(UnixMicros(end).minute().0.saturating_sub(first.0) / MINUTE_MICROS).unwrap_or(0);
    let minutes = ended + running_counts;
    Ok(if minutes == 0 { 0.0 } else { (covered as f64 / minutes as f64).min(1.0) })
}

/// Where the columns of `tools.sql` begin that count failures; each is named after its error class.
const FIRST_ERROR_COLUMN: usize = attempts::FIRST_COLUMN + attempts::COLUMNS;

fn tool_reports(rows: &Rows, range: &Range, usual: &attempts::Usual) -> Result<Vec<ToolReport>, Error> {
    (0..rows.len()).map(|row| tool_report(rows, row, range, usual)).collect()
}

fn tool_report(rows: &Rows, row: usize, range: &Range, usual: &attempts::Usual) -> Result<ToolReport, Error> {
    let count = |column| rows.count(column, row);
    let (attempts, attempts_ok, calls, calls_ok, retries) = (count(3)?, count(4)?, count(5)?, count(6)?, count(7)?);
    let (priced, priced_ok) = (count(10)?, count(11)?);
    let (cost, wasted) = (rows.money(9, row)?, rows.money(12, row)?);
    let nothing_wasted = (attempts == attempts_ok && priced > 0).then_some(0);
    let enough_priced = u128::from(priced) * 100 >= u128::from(PRICE_COVERAGE_MIN_PERCENT) * u128::from(attempts);
    let last_seen = rows.timestamp(13, row)?;
    let weighted = attempts::weighted(rows, row)?;
    let mut errors = BTreeMap::new();
    for (index, field) in rows.0.schema_ref().fields().iter().enumerate().skip(FIRST_ERROR_COLUMN) {
        let failed = count(index)?;
        if failed > 0 {
            errors.insert(field.name().clone(), failed);
        }
    }
    Ok(ToolReport {
        tenant: rows.text(0, row)?.unwrap_or_default(),
        tool_server: rows.text(1, row)?,
        tool_name: rows.text(2, row)?,
        attempts,
        attempts_ok,
        calls,
        calls_ok,
        success_ratio_attempt: ratio(attempts_ok, attempts),
        success_ratio_logical: ratio(calls_ok, calls),
        retry_ratio: ratio(retries, attempts),
        retries: attempts::retries(rows, row, range, usual)?,
        sampled: weighted.is_some(),
        weighted,
        suspected_tail_sampling: None,
        latency: quantiles(&rows.histogram(8, row)?),
        cost_usd: cost.map(money_text),
        cost_coverage: ratio(priced, attempts),
        cost_per_call_usd: cost.and_then(|cost| per(cost, priced)).map(money_text),
        cost_per_success_usd: cost.filter(|_| enough_priced).and_then(|cost| per(cost, priced_ok)).map(money_text),
        wasted_cost_usd: wasted.or(nothing_wasted).map(money_text),
        errors,
        last_seen: rfc3339(last_seen),
        owners: Vec::new(),
    })
}

fn quantiles(histogram: &Histogram) -> Latency {
    let ms = |q| histogram.quantile(q).unwrap_or(0) as f64 / 1e3;
    Latency {
        p50_ms: ms(0.5),
        p90_ms: ms(0.9),
        p95_ms: ms(0.95),
        p99_ms: ms(0.99),
        p99_low_evidence: histogram.len() < 1_000,
    }
}

fn timestamp(time: UnixMicros) -> ScalarValue {
    ScalarValue::TimestampMicrosecond(Some(time.0), Some("UTC".into()))
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// `amount / n`, rounded half-even.
fn per(amount: i128, n: u64) -> Option<i128> {
    let n = i128::from(n);
    let (quotient, rest) = (amount.checked_div_euclid(n)?, amount.checked_rem_euclid(n)?);
    let up = match (rest * 2).cmp(&n) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Equal => quotient % 2 != 0,
        std::cmp::Ordering::Greater => true,
    };
    Some(quotient + i128::from(up))
}

/// An amount in units of 10^-9, without trailing zeros.
fn money_text(amount: i128) -> String {
    let unit = 10_u128.pow(MONEY_SCALE);
    let (whole, rest) = (amount.unsigned_abs() / unit, amount.unsigned_abs() % unit);
    let sign = if amount < 0 { "-" } else { "" };
    if rest == 0 {
        return format!("{sign}{whole}");
    }
    let rest = format!("{rest:09}");
    format!("{sign}{whole}.{}", rest.trim_end_matches('0'))
}

/// The rows of an answer in one batch, with columns of known types.
struct Rows(RecordBatch);

impl Rows {
    fn new(answer: &Answer) -> Result<Self, Error> {
        concat_batches(&answer.schema, &answer.batches)
            .map(Self)
            .map_err(|error| Error::Internal(format!("join the rows of a report: {error}")))
    }

    fn len(&self) -> usize {
        self.0.num_rows()
    }

    fn column(&self, index: usize, expected: DataType) -> Result<&ArrayRef, Error> {
        let column = self.0.columns().get(index).filter(|column| same_kind(column.data_type(), &expected));
        column.ok_or_else(|| Error::Internal(format!("column {index} of a report is not {expected}")))
    }

    /// A count; a sum over nothing is null, and 0.
    fn count(&self, index: usize, row: usize) -> Result<u64, Error> {
        let column = self.column(index, DataType::Int64)?.as_primitive::<Int64Type>();
        Ok(if column.is_null(row) { 0 } else { u64::try_from(column.value(row)).unwrap_or(0) })
    }

    fn integer(&self, index: usize, row: usize) -> Result<i64, Error> {
        Ok(self.column(index, DataType::Int64)?.as_primitive::<Int64Type>().value(row))
    }

    fn is_null(&self, index: usize, row: usize) -> bool {
        self.0.columns().get(index).is_none_or(|column| column.is_null(row))
    }

    fn histogram(&self, index: usize, row: usize) -> Result<Histogram, Error> {
        let column = self.column(index, DataType::Binary)?.as_binary::<i32>();
        if column.is_null(row) {
            return Ok(Histogram::default());
        }
        Histogram::from_payload(column.value(row)).map_err(|error| Error::Internal(error.to_string()))
    }

    fn text(&self, index: usize, row: usize) -> Result<Option<String>, Error> {
        let column = self.column(index, DataType::Utf8)?.as_string::<i32>();
        Ok(column.is_valid(row).then(|| column.value(row).to_owned()))
    }

    fn money(&self, index: usize, row: usize) -> Result<Option<i128>, Error> {
        let column = self.column(index, DataType::Decimal128(18, 9))?.as_primitive::<Decimal128Type>();
        Ok(column.is_valid(row).then(|| column.value(row)))
    }

    fn optional_timestamp(&self, index: usize, row: usize) -> Result<Option<UnixMicros>, Error> {
        let micros = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None);
        let is_known = self.column(index, micros)?.is_valid(row);
        is_known.then(|| self.timestamp(index, row)).transpose()
    }

    /// A decimal of six places, in millionths; a sum over nothing is null, and 0.
    fn weight(&self, index: usize, row: usize) -> Result<i128, Error> {
        let column = self.column(index, DataType::Decimal128(18, 6))?.as_primitive::<Decimal128Type>();
        Ok(if column.is_null(row) { 0 } else { column.value(row) })
    }

    fn timestamp(&self, index: usize, row: usize) -> Result<UnixMicros, Error> {
        let micros = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None);
        Ok(UnixMicros(self.column(index, micros)?.as_primitive::<TimestampMicrosecondType>().value(row)))
    }
}

/// Whether a column can be read as `expected`: a sum of decimals has more digits, a timestamp may have a zone.
fn same_kind(found: &DataType, expected: &DataType) -> bool {
    match (found, expected) {
        (DataType::Decimal128(_, found), DataType::Decimal128(_, expected)) => found == expected,
        (DataType::Timestamp(found, _), DataType::Timestamp(expected, _)) => found == expected,
        (found, expected) => found == expected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotients_are_rounded_half_even() {
        assert_eq!(per(5, 2), Some(2));
        assert_eq!(per(7, 2), Some(4));
        assert_eq!(per(-5, 2), Some(-2));
        assert_eq!(per(10, 3), Some(3));
        assert_eq!(per(11, 3), Some(4));
        assert_eq!(per(1, 0), None);
    }

    #[test]
    fn money_has_no_trailing_zeros_and_keeps_its_sign() {
        assert_eq!(money_text(0), "0");
        assert_eq!(money_text(1), "0.000000001");
        assert_eq!(money_text(1_230_000_000), "1.23");
        assert_eq!(money_text(-500_000_000), "-0.5");
        assert_eq!(money_text(7_000_000_000), "7");
    }
}
