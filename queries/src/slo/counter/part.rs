//! A batch, and the rows of it that some SLOs look at.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Decimal128Type, TimestampMicrosecondType};
use arrow::error::ArrowError;
use toolgauge_analytics::sli::Counts;
use toolgauge_analytics::window::Minute;
use toolgauge_proto::table::Table;
use toolgauge_proto::time::UnixMicros;

use super::bits::{Verdicts, ones};
use super::grouped::Groups;
use super::{Alike, Counted, Counter, Rows, Tally, column_of};
use crate::slo::definition::{Judged, Mode};

/// What rows have to have in common to be counted at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Class {
    pub(super) minute: i64,
    /// The place of the service in [`Batch::services`]; that after the last if there is none.
    pub(super) service: usize,
    pub(super) weight: i128,
}

/// A batch of `calls`.
pub(super) struct Batch<'a> {
    pub(super) counter: &'a Counter,
    rows: &'a RecordBatch,
    /// The rows that are counted, by their classes.
    wanted: Rows,
    /// What expressions read, as text.
    read: Vec<ArrayRef>,
    counted: BooleanBuffer,
    is_final: BooleanBuffer,
    /// Of each row that is counted, its place in `classes`.
    class_of: Vec<u32>,
    /// In order.
    classes: Vec<Class>,
    pub(super) services: Vec<String>,
}

impl<'a> Batch<'a> {
    /// Of which these rows are counted.
    pub(super) fn new(counter: &'a Counter, rows: &'a RecordBatch, wanted: Rows) -> Result<Self, ArrowError> {
        let named = |name: &str| {
            let column = column_of(rows, Table::Calls.index_of(name))?;
            let wanted = Table::Calls.schema().field_with_name(name)?.data_type().clone();
            if column.data_type().equals_datatype(&wanted) {
                Ok(column)
            } else {
                Err(ArrowError::SchemaError(format!("column {name} is {}, not {wanted}", column.data_type())))
            }
        };
        let typed = |index: &usize| cast(column_of(rows, *index)?, Table::Calls.schema().field(*index).data_type());
        let (service, services) = places_of(column_of(rows, Table::Calls.index_of("service_name"))?)?;
        let ends = named("end_time")?.as_primitive::<TimestampMicrosecondType>().values();
        let weights = named("weight")?.as_primitive::<Decimal128Type>().values();
        let class = |row: usize| Class {
            minute: Minute::of(UnixMicros(ends[row])).0,
            service: service[row],
            weight: weights[row],
        };
        let (classes, class_of) = classified(rows.num_rows(), &wanted, class);
        Ok(Self {
            counter,
            read: counter.read.iter().map(typed).collect::<Result<_, _>>()?,
            counted: named("counted")?.as_boolean().values().clone(),
            is_final: named("final")?.as_boolean().values().clone(),
            wanted: by_class(wanted, &class_of, classes.len()),
            class_of,
            classes,
            services,
            rows,
        })
    }

    pub(super) const fn rows(&self) -> &Rows {
        &self.wanted
    }
}

/// The classes of rows in order, and the place of each row's.
fn classified(all: usize, rows: &Rows, class: impl Fn(usize) -> Class) -> (Vec<Class>, Vec<u32>) {
    let mut known: HashMap<Class, u32> = HashMap::new();
    let mut found = Vec::new();
    let mut class_of = vec![0; all];
    let mut last: Option<(Class, u32)> = None;
    rows.each(|row| {
        let class = class(row);
        let place = match last {
            Some((last, place)) if last == class => place,
            _ => *known.entry(class).or_insert_with(|| {
                found.push(class);
                found.len() as u32 - 1
            }),
        };
        last = Some((class, place));
        class_of[row] = place;
    });
    let mut order: Vec<u32> = (0..found.len() as u32).collect();
    order.sort_unstable_by_key(|place| found[*place as usize]);
    let mut ranks = vec![0; found.len()];
    order.iter().enumerate().for_each(|(rank, place)| ranks[*place as usize] = rank as u32);
    rows.each(|row| class_of[row] = ranks[class_of[row] as usize]);
    found.sort_unstable();
    (found, class_of)
}

/// The rows by their classes, otherwise in their order.
fn by_class(rows: Rows, class_of: &[u32], classes: usize) -> Rows {
    let mut counts = vec![0; classes + 1];
    let (mut last, mut is_sorted) = (0, true);
    rows.each(|row| {
        let class = class_of[row];
        is_sorted &= last <= class;
        last = class;
        counts[class as usize + 1] += 1;
    });
    if is_sorted {
        return rows;
    }
    let mut begin = 0;
    counts.iter_mut().for_each(|count| {
        begin += *count;
        *count = begin;
    });
    let mut sorted = vec![0; begin];
    rows.each(|row| {
        let next = &mut counts[class_of[row] as usize];
        sorted[*next] = row as u32;
        *next += 1;
    });
    Rows::Some(sorted)
}

/// The different texts of a column, and of each row the place of its own; without one, the place after the last.
fn places_of(column: &ArrayRef) -> Result<(Vec<usize>, Vec<String>), ArrowError> {
    if let Some(words) = column.as_any_dictionary_opt() {
        let values = cast(words.values(), &DataType::Utf8)?;
        let texts: Vec<String> =
            values.as_string::<i32>().iter().map(|text| text.unwrap_or_default().to_owned()).collect();
        if texts.is_empty() {
            return Ok((vec![0; column.len()], texts));
        }
        let keys = words.normalized_keys();
        let places = (0..column.len()).map(|row| if column.is_null(row) { texts.len() } else { keys[row] });
        return Ok((places.collect(), texts));
    }
    let column = cast(column, &DataType::Utf8)?;
    let mut known: HashMap<&str, usize> = HashMap::new();
    let mut texts = Vec::new();
    let mut places = Vec::with_capacity(column.len());
    for text in column.as_string::<i32>() {
        places.push(text.map_or(usize::MAX, |text| {
            *known.entry(text).or_insert_with(|| {
                texts.push(text.to_owned());
                texts.len() - 1
            })
        }));
    }
    places.iter_mut().for_each(|place| *place = (*place).min(texts.len()));
    Ok((places, texts))
}

/// The rows that SLOs look at which fix the same columns to the same values; rows of a class follow each other.
pub(super) struct Part<'a> {
    pub(super) batch: &'a Batch<'a>,
    rows: usize,
    /// The rows of each class.
    runs: Vec<(Class, Range<usize>)>,
    /// What its SLOs read, by the places in `inputs`, in order.
    inputs: Vec<(usize, RecordBatch)>,
    /// Of expressions that several SLOs say, in order.
    said: Vec<(usize, Verdicts)>,
    is_final: BooleanBuffer,
    counted: BooleanBuffer,
    both: OnceCell<BooleanBuffer>,
    /// For the sets of columns that one of its SLOs is grouped by.
    groups: HashMap<usize, Groups>,
}

impl<'a> Part<'a> {
    /// What these SLOs need of these rows.
    pub(super) fn new(batch: &'a Batch<'a>, rows: Rows, slos: &Alike) -> Result<Self, ArrowError> {
        let counter = batch.counter;
        let mut runs: Vec<(Class, Range<usize>)> = Vec::new();
        let (mut at, mut open) = (0, None);
        rows.each(|row| {
            let class = batch.class_of[row];
            if open == Some(class)
                && let Some((_, run)) = runs.last_mut()
            {
                run.end += 1;
            } else {
                runs.push((batch.classes[class as usize], at..at + 1));
                open = Some(class);
            }
            at += 1;
        });
        let taken = match rows {
            Rows::All(_) => None,
            Rows::Some(rows) => Some(UInt32Array::from(rows)),
        };
        let of = |column: &ArrayRef| match &taken {
            Some(rows) => take(column, rows, None),
            None => Ok(Arc::clone(column)),
        };
        let bits = |bits: &BooleanBuffer| match &taken {
            Some(rows) => BooleanBuffer::collect_bool(rows.len(), |row| bits.value(rows.value(row) as usize)),
            None => bits.clone(),
        };
        let mut groups = HashMap::new();
        for set in slos.slos.iter().filter_map(|slo| counter.slos[*slo].group) {
            if let Entry::Vacant(entry) = groups.entry(set) {
                let column = |index: &usize| of(column_of(batch.rows, *index)?);
                let columns: Vec<ArrayRef> = counter.group_columns[set].iter().map(column).collect::<Result<_, _>>()?;
                // Sums per minute that stand in for rows have none.
                let positions = column(&Table::Calls.index_of("wal_position")).ok();
                entry.insert(Groups::of(&columns, positions.as_ref())?);
            }
        }
        let mut read: HashMap<usize, ArrayRef> = HashMap::new();
        let options = RecordBatchOptions::new().with_row_count(Some(at));
        let mut inputs = Vec::with_capacity(slos.inputs.len());
        for place in &slos.inputs {
            let input = &counter.inputs[*place];
            let columns = input.columns.iter().map(|column| match read.entry(*column) {
                Entry::Occupied(known) => Ok(Arc::clone(known.get())),
                Entry::Vacant(entry) => Ok(Arc::clone(entry.insert(of(&batch.read[*column])?))),
            });
            let columns = columns.collect::<Result<_, ArrowError>>()?;
            inputs.push((*place, RecordBatch::try_new_with_options(Arc::clone(&input.schema), columns, &options)?));
        }
        let mut part = Self {
            batch,
            rows: at,
            runs,
            inputs,
            said: Vec::new(),
            is_final: bits(&batch.is_final),
            counted: bits(&batch.counted),
            both: OnceCell::new(),
            groups,
        };
        let shared = slos.said.iter().filter(|(_, slos)| **slos > 1);
        part.said = shared.map(|(expression, _)| (*expression, part.evaluate(*expression))).collect();
        Ok(part)
    }

    /// Adds what an SLO counts.
    pub(super) fn count(&self, place: usize, tally: &mut impl Tally) {
        let slo = &self.batch.counter.slos[place];
        match slo.group.and_then(|set| self.groups.get(&set)) {
            None => self.count_whole(slo, place, tally),
            Some(groups) => self.count_groups(slo, place, groups, tally),
        }
    }

    /// The rows that an SLO looks at at all; `None` if they are all.
    pub(super) fn selected(&self, slo: &Counted) -> Option<&BooleanBuffer> {
        match (slo.counted_only, slo.mode == Mode::Logical) {
            (false, false) => None,
            (true, false) => Some(&self.counted),
            (false, true) => Some(&self.is_final),
            (true, true) => Some(self.both.get_or_init(|| &self.counted & &self.is_final)),
        }
    }

    /// What expressions say together.
    pub(super) fn verdicts(&self, expressions: &[usize]) -> Verdicts {
        let mut found: Option<Verdicts> = None;
        for expression in expressions {
            let known = self.said.binary_search_by_key(expression, |(known, _)| *known).ok();
            let verdicts = known.map_or_else(|| self.evaluate(*expression), |known| self.said[known].1.clone());
            found = Some(found.map_or_else(|| verdicts.clone(), |found| found.and(&verdicts)));
        }
        found.unwrap_or_else(|| Verdicts::always(self.rows))
    }

    fn evaluate(&self, expression: usize) -> Verdicts {
        let expression = &self.batch.counter.expressions[expression];
        let place = self.inputs.partition_point(|(known, _)| *known < expression.input);
        Verdicts::of(&expression.conjunct.evaluate(&self.inputs[place].1))
    }

    /// Each row with its class.
    pub(super) fn classes(&self) -> impl Iterator<Item = (usize, &Class)> {
        self.runs.iter().flat_map(|(class, rows)| rows.clone().map(move |row| (row, class)))
    }

    fn count_whole(&self, slo: &Counted, place: usize, tally: &mut impl Tally) {
        let (total, judge) = (self.verdicts(&slo.total), self.verdicts(&slo.judge));
        let selected = self.selected(slo);
        let within = |bits: &BooleanBuffer| selected.map_or_else(|| bits.clone(), |selected| bits & selected);
        let events = within(&total.yes);
        let good = match slo.judged {
            Judged::Good => &events & &judge.yes,
            Judged::Bad => &events & &!&judge.yes,
        };
        let nulls = [total.unknown.as_ref().map(within), judge.unknown.as_ref().map(|unknown| unknown & &events)];
        let is_final = (slo.mode == Mode::Attempt).then(|| (&events & &self.is_final, &good & &self.is_final));
        let (mut sums, mut logical): (Sums, Sums) = (Vec::new(), Vec::new());
        let mut fed_by: Vec<(usize, i64)> = Vec::new();
        for (class, run) in &self.runs {
            let ones = |bits: &BooleanBuffer| ones(bits, run.start, run.len());
            let looked_at = selected.map_or(run.len() as u64, ones);
            if looked_at == 0 {
                continue;
            }
            let events = ones(&events);
            let sum = sum_of(&mut sums, class.minute);
            sum.excluded += looked_at - events;
            sum.nulls += nulls.iter().flatten().map(ones).sum::<u64>();
            if events == 0 {
                continue;
            }
            add_events(sum, ones(&good), events, class.weight);
            fed_by.push((class.service, class.minute));
            if let Some((events, good)) = &is_final
                && ones(events) > 0
            {
                add_events(sum_of(&mut logical, class.minute), ones(good), ones(events), class.weight);
            }
        }
        for (minute, counts) in &sums {
            tally.add(place, None, Minute(*minute), counts);
        }
        for (minute, counts) in &logical {
            tally.add_logical(place, Minute(*minute), counts);
        }
        // Of each service the last minute.
        fed_by.sort_unstable_by(|a, b| b.cmp(a));
        fed_by.dedup_by_key(|(service, _)| *service);
        for (service, minute) in fed_by {
            if let Some(service) = self.batch.services.get(service) {
                tally.fed_by(place, None, service, Minute(minute));
            }
        }
    }
}

/// Counts by the minute, in order.
type Sums = Vec<(i64, Counts)>;

/// The sum of a minute that is not before the last one.
fn sum_of(sums: &mut Sums, minute: i64) -> &mut Counts {
    if sums.last().is_none_or(|(last, _)| *last != minute) {
        sums.push((minute, Counts::default()));
    }
    let last = sums.len() - 1;
    &mut sums[last].1
}

/// Adds so many events of this weight each, of which so many are good.
pub(super) const fn add_events(counts: &mut Counts, good: u64, events: u64, weight: i128) {
    let bad = events - good;
    counts.good += good;
    counts.bad += bad;
    counts.good_weighted += good as i128 * weight;
    counts.bad_weighted += bad as i128 * weight;
}
