//! Reading what was counted or committed before: at the start, and for new SLOs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Date32Array, Decimal128Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Int64Type, TimestampMicrosecondType};
use arrow::error::ArrowError;
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, col, lit};
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use toolgauge_analytics::sli::{Counts, WEIGHT_ONE};
use toolgauge_analytics::window::Minute;
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::lake::View;
use toolgauge_proto::table::Table;
use toolgauge_proto::time::UnixMicros;

use super::watched::LooseTally;
use crate::engine::{Engine, Error};
use crate::slo::counter::{CompiledSli, Counter};

/// Group of the row that says that a revision is no longer counted; rows of it that come later would miss some.
const RETIRED: &str = "{\"toolgauge\":\"retired\"}";
/// Group of an SLO that is not grouped.
const NO_GROUP: &str = "{}";

/// Reads all rows of a table that a condition selects, as they come, within the memory of one batch for each thread.
pub(crate) async fn scan(
    engine: &Engine,
    table: Arc<dyn TableProvider>,
    columns: &[&str],
    condition: Option<Expr>,
    mut each: impl FnMut(&RecordBatch) -> Result<(), ArrowError>,
) -> Result<(), Error> {
    let mut frame = SessionContext::new_with_state(engine.template().clone()).read_table(table)?;
    if let Some(condition) = condition {
        frame = frame.filter(condition)?;
    }
    // Names as they are: in lower case, and one of them a word of SQL.
    let columns = columns.iter().map(|name| Expr::Column(datafusion::common::Column::from_name(*name)));
    let mut rows = frame.select(columns)?.execute_stream().await?;
    while let Some(batch) = rows.next().await {
        each(&batch?).map_err(|error| Error::Internal(error.to_string()))?;
    }
    Ok(())
}

/// The condition `column > position`.
pub(super) fn after(position: WalPosition) -> Expr {
    col("wal_position").gt(lit(position.as_i64()))
}

/// Counts rows of `calls` from a table.
pub(super) async fn count(
    engine: &Engine,
    calls: Arc<dyn TableProvider>,
    slis: &[Arc<CompiledSli>],
    condition: Option<Expr>,
) -> Result<LooseTally, Error> {
    let counter = Counter::new(slis.iter().map(AsRef::as_ref))?;
    let mut tally = LooseTally::new(slis.len());
    scan(engine, calls, &counter.columns(), condition, |batch| counter.count(batch, None, &mut tally)).await?;
    Ok(tally)
}

/// The services of the events of SLOs since a minute, with the last minute of each: from the sums per minute, which are few, where
/// those have all that the SLO asks for, else from the rows of `calls`.
pub(super) async fn services(
    engine: &Engine,
    view: &View,
    slis: &[Arc<CompiledSli>],
    since: Minute,
) -> Result<Vec<HashMap<String, Minute>>, Error> {
    let date = col("date").gt_eq(lit(ScalarValue::Date32(Some(since.start().date32()))));
    let mut found = vec![HashMap::new(); slis.len()];
    let (of_minutes, of_rows): (Vec<usize>, Vec<usize>) =
        (0..slis.len()).partition(|place| slis[*place].events_columns().is_some_and(has_minutes));
    let events = |places: &[usize]| places.iter().map(|place| slis[*place].events()).collect::<Vec<CompiledSli>>();
    if !of_minutes.is_empty() {
        let counter = Counter::new(&events(&of_minutes))?;
        let mut columns = counter.columns();
        columns.retain(|name| !FROM_MINUTES.contains(name));
        columns.push("minute");
        let mut tally = LooseTally::new(of_minutes.len());
        let mut count = |batch: &RecordBatch| counter.count(&as_calls(batch, &columns)?, None, &mut tally);
        let minutes = view.table(Table::Calls1m);
        scan(engine, Arc::clone(&minutes.committed), &columns, Some(date.clone()), &mut count).await?;
        for batch in minutes.live.get().map_err(|error| Error::Internal(error.to_string()))?.iter() {
            count(batch).map_err(|error| Error::Internal(error.to_string()))?;
        }
        of_minutes.iter().zip(tally.fed_by).for_each(|(place, services)| found[*place] = services);
    }
    if !of_rows.is_empty() {
        let events: Vec<Arc<CompiledSli>> = events(&of_rows).into_iter().map(Arc::new).collect();
        let calls = Arc::clone(&view.table(Table::Calls).committed);
        let tally = count(engine, calls, &events, Some(date)).await?;
        of_rows.iter().zip(tally.fed_by).for_each(|(place, services)| found[*place] = services);
    }
    Ok(found)
}

/// Columns of `calls` that stand in for those that sums per minute do not have.
const FROM_MINUTES: [&str; 3] = ["end_time", "wal_position", "weight"];

/// Whether sums per minute have these columns.
fn has_minutes(columns: &[String]) -> bool {
    columns.iter().all(|name| {
        Table::Calls1m.columns().iter().take_while(|column| column.name != "calls").any(|column| column.name == name)
    })
}

/// Rows of `calls_1m` as if each were a call at the start of its minute.
fn as_calls(batch: &RecordBatch, columns: &[&str]) -> Result<RecordBatch, ArrowError> {
    let missing = |name: &str| ArrowError::SchemaError(format!("calls_1m has no column {name}"));
    let ones = Decimal128Array::from_iter_values(std::iter::repeat_n(WEIGHT_ONE, batch.num_rows()));
    let mut rows: Vec<(&str, ArrayRef)> = vec![("weight", Arc::new(ones.with_precision_and_scale(18, 6)?))];
    for name in columns {
        let column = batch.column_by_name(name).ok_or_else(|| missing(name))?;
        rows.push((if *name == "minute" { "end_time" } else { name }, Arc::clone(column)));
    }
    RecordBatch::try_from_iter_with_nullable(rows.into_iter().map(|(name, column)| (name, column, true)))
}

/// An SLO and what its rows in `slo_1m` are called.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Revision {
    pub(super) service: String,
    pub(super) slo: String,
    pub(super) name: String,
}

/// The revisions that `slo_1m` has, without those that are retired.
pub(super) async fn revisions(engine: &Engine, slo_1m: Arc<dyn TableProvider>) -> Result<HashSet<Revision>, Error> {
    let (mut found, mut retired) = (HashSet::new(), HashSet::new());
    scan(engine, slo_1m, &["service", "slo", "slo_revision", "group"], None, |batch| {
        let columns: Vec<ArrayRef> =
            batch.columns().iter().map(|column| cast(column, &DataType::Utf8)).collect::<Result<_, _>>()?;
        let text = |column: usize, row: usize| columns[column].as_string::<i32>().value(row);
        let mut last: Option<usize> = None;
        for row in 0..batch.num_rows() {
            if last.is_some_and(|last| (0..4).all(|column| text(column, row) == text(column, last))) {
                continue;
            }
            last = Some(row);
            let revision = Revision {
                service: text(0, row).to_owned(),
                slo: text(1, row).to_owned(),
                name: text(2, row).to_owned(),
            };
            if text(3, row) == RETIRED {
                retired.insert(revision);
            } else {
                found.insert(revision);
            }
        }
        Ok(())
    })
    .await?;
    found.retain(|revision| !retired.contains(revision));
    Ok(found)
}

/// The rows of `slo_1m` of some revisions since a minute.
pub(super) async fn load(
    engine: &Engine,
    slo_1m: Arc<dyn TableProvider>,
    revisions: &HashMap<Revision, usize>,
    since: Minute,
    mut add: impl FnMut(usize, Minute, &Counts),
) -> Result<(), Error> {
    const COLUMNS: [&str; 10] = [
        "service",
        "slo",
        "slo_revision",
        "minute",
        "good",
        "bad",
        "excluded",
        "nulls",
        "good_weighted",
        "bad_weighted",
    ];
    let condition = col("date").gt_eq(lit(ScalarValue::Date32(Some(since.start().date32()))));
    scan(engine, slo_1m, &COLUMNS, Some(condition), |batch| {
        let names: Vec<ArrayRef> =
            batch.columns()[..3].iter().map(|column| cast(column, &DataType::Utf8)).collect::<Result<_, _>>()?;
        let text = |column: usize, row: usize| names[column].as_string::<i32>().value(row).to_owned();
        let minutes = batch.column(3).as_primitive::<TimestampMicrosecondType>();
        let count = |column: usize, row: usize| {
            u64::try_from(batch.column(column).as_primitive::<Int64Type>().value(row)).unwrap_or(0)
        };
        let weight = |column: usize, row: usize| batch.column(column).as_primitive::<Decimal128Type>().value(row);
        for row in 0..batch.num_rows() {
            let revision = Revision { service: text(0, row), slo: text(1, row), name: text(2, row) };
            let Some(slo) = revisions.get(&revision) else { continue };
            let counts = Counts {
                good: count(4, row),
                bad: count(5, row),
                excluded: count(6, row),
                nulls: count(7, row),
                good_weighted: weight(8, row),
                bad_weighted: weight(9, row),
            };
            add(*slo, Minute::of(UnixMicros(minutes.value(row))), &counts);
        }
        Ok(())
    })
    .await
}

/// Rows for `slo_1m`.
#[derive(Debug, Default)]
pub(super) struct SloRows(Vec<SloRow>);

type SloRow = (Revision, &'static str, Minute, Counts);

impl SloRows {
    /// The counts of a minute.
    pub(super) fn add(&mut self, revision: &Revision, minute: Minute, counts: Counts) {
        self.0.push((revision.clone(), NO_GROUP, minute, counts));
    }

    /// Notes that a revision is not counted any more.
    pub(super) fn retire(&mut self, revision: Revision, minute: Minute) {
        self.0.push((revision, RETIRED, minute, Counts::default()));
    }

    /// The rows, oldest first; those of a minute by SLO. There may be none.
    pub(super) fn batch(mut self) -> Result<RecordBatch, ArrowError> {
        self.0.sort_by(|(a, _, minute_a, _), (b, _, minute_b, _)| (minute_a, a).cmp(&(minute_b, b)));
        let rows = &self.0;
        let text = |value: for<'a> fn(&'a SloRow) -> &'a str| -> ArrayRef {
            Arc::new(rows.iter().map(|row| Some(value(row))).collect::<StringArray>())
        };
        let count = |value: fn(&Counts) -> u64| -> ArrayRef {
            let counts = rows.iter().map(|(.., counts)| i64::try_from(value(counts)).unwrap_or(i64::MAX));
            Arc::new(Int64Array::from_iter_values(counts))
        };
        let weight = |value: fn(&Counts) -> i128| -> Result<ArrayRef, ArrowError> {
            let weights = rows.iter().map(|(.., counts)| value(counts));
            Ok(Arc::new(Decimal128Array::from_iter_values(weights).with_precision_and_scale(18, 6)?))
        };
        let starts = || rows.iter().map(|(_, _, minute, _)| minute.start());
        let columns: BTreeMap<&str, ArrayRef> = BTreeMap::from([
            ("date", Arc::new(Date32Array::from_iter_values(starts().map(UnixMicros::date32))) as ArrayRef),
            (
                "minute",
                Arc::new(
                    TimestampMicrosecondArray::from_iter_values(starts().map(|start| start.0)).with_timezone("UTC"),
                ),
            ),
            ("service", text(|(revision, ..)| &revision.service)),
            ("slo", text(|(revision, ..)| &revision.slo)),
            ("slo_revision", text(|(revision, ..)| &revision.name)),
            ("group", text(|(_, group, ..)| group)),
            ("good", count(|counts| counts.good)),
            ("bad", count(|counts| counts.bad)),
            ("excluded", count(|counts| counts.excluded)),
            ("nulls", count(|counts| counts.nulls)),
            ("good_weighted", weight(|counts| counts.good_weighted)?),
            ("bad_weighted", weight(|counts| counts.bad_weighted)?),
        ]);
        let missing = |name: &str| ArrowError::SchemaError(format!("slo_1m has a column {name} that nobody fills"));
        let in_order = Table::Slo1m
            .columns()
            .iter()
            .map(|column| columns.get(column.name).cloned().ok_or_else(|| missing(column.name)));
        RecordBatch::try_new(Table::Slo1m.schema(), in_order.collect::<Result<_, _>>()?)
    }
}
