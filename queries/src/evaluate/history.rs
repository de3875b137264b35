//! Reading what was counted or committed before: at the start, and for new SLOs; and the rows of `slo_1m`.
//!
//! The history of a revision may stand in `slo_1m` in many parts, each committed by itself. The first of them has a row whose group is
//! [`COUNTING`]; when all are there, and all rows of `calls` since, a row with [`COUNTED`] is committed with these. Without it the
//! parts are not all, and count for nothing.

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

use super::definition::{LooseOf, LooseTally};
use crate::engine::{Engine, Error};
use crate::slo::counter::{CompiledSli, Counter, GroupAt, Tally};
use crate::slo::group::{First, GroupKey};
use crate::slo::set::CompiledSlo;

/// Group of the row that says that a revision is no longer counted; rows of it that come later would miss some.
pub(super) const RETIRED: &str = "{\"toolgauge\":\"retired\"}";
/// Group of the row that says that what is there may not be the whole history.
pub(super) const COUNTING: &str = "{\"toolgauge\":\"counting\"}";
/// Group of the row that says that it is.
pub(super) const COUNTED: &str = "{\"toolgauge\":\"counted\"}";

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

/// The first groups of SLOs among the rows of `calls` that a condition selects, in their order: of each as many as it may have.
pub(super) async fn first_groups(
    engine: &Engine,
    calls: Arc<dyn TableProvider>,
    slos: &[Arc<CompiledSlo>],
    condition: Option<Expr>,
    mut is_wanted: impl FnMut(usize) -> bool,
) -> Result<Vec<Vec<(WalPosition, GroupKey)>>, Error> {
    let counter = Counter::grouped(slos.iter().map(|slo| (slo.sli.as_ref(), slo.slo.group_columns())))?;
    let mut tally = FirstTally(slos.iter().map(|slo| First::new(slo.slo.groups_max().saturating_sub(1))).collect());
    scan(engine, calls, &counter.columns(), condition, |batch| {
        if !is_wanted(batch.num_rows()) {
            return Err(ArrowError::ComputeError("nobody waits for it any more".to_owned()));
        }
        counter.count(batch, None, &mut tally)
    })
    .await?;
    Ok(tally.0.into_iter().map(|first| first.finish().collect()).collect())
}

#[derive(Debug)]
struct FirstTally(Vec<First>);

impl Tally for FirstTally {
    fn add(&mut self, slo: usize, group: Option<GroupAt<'_>>, _: Minute, _: &Counts) {
        if let Some((key, Some(position))) = group {
            self.0[slo].offer(key, position);
        }
    }

    fn fed_by(&mut self, _: usize, _: Option<GroupAt<'_>>, _: &str, _: Minute) {}

    fn outside(&mut self, _: usize, _: &GroupKey, _: Minute, _: &Counts) {}

    fn began(&self, _: usize, _: &GroupKey) -> Option<WalPosition> {
        None
    }
}

/// The services of the events of SLOs since a minute, with the last minute of each: from the sums per minute, which are few, where
/// those have all that the SLO asks for, else from the rows of `calls`.
pub(super) async fn services(
    engine: &Engine,
    view: &View,
    slos: &[Arc<CompiledSlo>],
    since: Minute,
) -> Result<Vec<LooseOf>, Error> {
    let date = col("date").gt_eq(lit(ScalarValue::Date32(Some(since.start().date32()))));
    let mut found: Vec<LooseOf> = slos.iter().map(|_| LooseOf::default()).collect();
    let is_of_minutes = |place: &usize| {
        let groups = slos[*place].slo.group_columns().iter().copied();
        let events = slos[*place].sli.events_columns();
        events.is_some_and(|events| has_minutes(events.iter().map(String::as_str).chain(groups)))
    };
    let (of_minutes, of_rows): (Vec<usize>, Vec<usize>) = (0..slos.len()).partition(is_of_minutes);
    for (places, are_minutes) in [(of_minutes, true), (of_rows, false)] {
        if places.is_empty() {
            continue;
        }
        let events: Vec<CompiledSli> = places.iter().map(|place| slos[*place].sli.events()).collect();
        let groups = places.iter().map(|place| slos[*place].slo.group_columns());
        let counter = Counter::grouped(events.iter().zip(groups))?;
        let mut tally = LooseTally::new(&[], places.len());
        if are_minutes {
            let mut columns = counter.columns();
            columns.retain(|name| !FROM_MINUTES.contains(name));
            columns.push("minute");
            let mut count = |batch: &RecordBatch| counter.count(&as_calls(batch, &columns)?, None, &mut tally);
            let minutes = view.table(Table::Calls1m);
            scan(engine, Arc::clone(&minutes.committed), &columns, Some(date.clone()), &mut count).await?;
            for batch in minutes.live.get().map_err(|error| Error::Internal(error.to_string()))?.iter() {
                count(batch).map_err(|error| Error::Internal(error.to_string()))?;
            }
        } else {
            let calls = Arc::clone(&view.table(Table::Calls).committed);
            let count = |batch: &RecordBatch| counter.count(batch, None, &mut tally);
            scan(engine, calls, &counter.columns(), Some(date.clone()), count).await?;
        }
        places.iter().zip(tally.of).for_each(|(place, services)| found[*place] = services);
    }
    Ok(found)
}

/// Columns of `calls` that stand in for those that sums per minute do not have.
const FROM_MINUTES: [&str; 3] = ["end_time", "wal_position", "weight"];

/// Whether sums per minute have these columns.
fn has_minutes<'a>(mut columns: impl Iterator<Item = &'a str>) -> bool {
    columns.all(|name| {
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

/// What `slo_1m` says of a revision.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    /// Its groups.
    pub(super) groups: HashSet<Box<str>>,
    is_retired: bool,
    is_counting: bool,
    is_counted: bool,
}

impl Recorded {
    /// Whether its rows are all up to the cursor.
    pub(super) const fn is_whole(&self) -> bool {
        !self.is_retired && (self.is_counted || !self.is_counting)
    }

    /// Whether nobody may take its rows for all, and that stands there.
    pub(super) const fn is_retired(&self) -> bool {
        self.is_retired
    }

    fn note(&mut self, group: &str) {
        match group {
            RETIRED => self.is_retired = true,
            COUNTING => self.is_counting = true,
            COUNTED => self.is_counted = true,
            _ if self.groups.contains(group) => {}
            _ => drop(self.groups.insert(group.into())),
        }
    }
}

/// The revisions that `slo_1m` has.
pub(super) async fn revisions(
    engine: &Engine,
    slo_1m: Arc<dyn TableProvider>,
) -> Result<HashMap<Revision, Recorded>, Error> {
    let mut found: HashMap<Revision, Recorded> = HashMap::new();
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
            found.entry(revision).or_default().note(text(3, row));
        }
        Ok(())
    })
    .await?;
    Ok(found)
}

/// The rows of `slo_1m` of some revisions since a minute.
pub(super) async fn load(
    engine: &Engine,
    slo_1m: Arc<dyn TableProvider>,
    revisions: &HashMap<Revision, usize>,
    since: Minute,
    mut add: impl FnMut(usize, &str, Minute, &Counts),
) -> Result<(), Error> {
    const COLUMNS: [&str; 11] = [
        "service",
        "slo",
        "slo_revision",
        "group",
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
            batch.columns()[..4].iter().map(|column| cast(column, &DataType::Utf8)).collect::<Result<_, _>>()?;
        let text = |column: usize, row: usize| names[column].as_string::<i32>().value(row);
        let minutes = batch.column(4).as_primitive::<TimestampMicrosecondType>();
        let count = |column: usize, row: usize| {
            u64::try_from(batch.column(column).as_primitive::<Int64Type>().value(row)).unwrap_or(0)
        };
        let weight = |column: usize, row: usize| batch.column(column).as_primitive::<Decimal128Type>().value(row);
        for row in 0..batch.num_rows() {
            let revision = Revision {
                service: text(0, row).to_owned(),
                slo: text(1, row).to_owned(),
                name: text(2, row).to_owned(),
            };
            let Some(slo) = revisions.get(&revision) else { continue };
            let counts = Counts {
                good: count(5, row),
                bad: count(6, row),
                excluded: count(7, row),
                nulls: count(8, row),
                good_weighted: weight(9, row),
                bad_weighted: weight(10, row),
            };
            add(*slo, text(3, row), Minute::of(UnixMicros(minutes.value(row))), &counts);
        }
        Ok(())
    })
    .await
}

/// Rows for `slo_1m`.
#[derive(Debug, Default)]
pub(super) struct SloRows(Vec<SloRow>);

type SloRow = (Arc<Revision>, Arc<str>, Minute, Counts);

impl SloRows {
    /// The counts of a group of a revision in a minute, or one of the marks.
    pub(super) fn add(&mut self, revision: &Arc<Revision>, group: &Arc<str>, minute: Minute, counts: Counts) {
        self.0.push((Arc::clone(revision), Arc::clone(group), minute, counts));
    }

    /// Says something of a revision: [`RETIRED`], [`COUNTING`], [`COUNTED`].
    pub(super) fn mark(&mut self, revision: &Arc<Revision>, mark: &str, minute: Minute) {
        self.0.push((Arc::clone(revision), mark.into(), minute, Counts::default()));
    }

    /// The rows, oldest first; those of a minute by SLO and group. There may be none.
    pub(super) fn batch(mut self) -> Result<RecordBatch, ArrowError> {
        self.0.sort_by(|(a, group_a, minute_a, _), (b, group_b, minute_b, _)| {
            (minute_a, a, group_a).cmp(&(minute_b, b, group_b))
        });
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
