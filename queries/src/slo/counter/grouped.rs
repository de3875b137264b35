//! Rows by the groups of an SLO.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::buffer::ScalarBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use arrow::error::ArrowError;
use toolgauge_analytics::sli::Counts;
use toolgauge_analytics::window::Minute;
use toolgauge_proto::id::WalPosition;

use super::part::{Class, Part, add_events};
use super::{Counted, Tally};
use crate::slo::annotations::GROUP_COLUMNS_MAX;
use crate::slo::definition::Judged;
use crate::slo::group::{GroupKey, is_other};

/// Of each row of a part, its group.
#[derive(Debug)]
pub(super) struct Groups {
    codes: Vec<u32>,
    /// By the codes; the same key may have several.
    keys: Vec<GroupKey>,
    positions: Option<ScalarBuffer<i64>>,
}

impl Groups {
    /// By the values of these columns, of which null is the empty one.
    pub(super) fn of(columns: &[ArrayRef], positions: Option<&ArrayRef>) -> Result<Self, ArrowError> {
        let words: Vec<(ArrayRef, StringArray)> = columns.iter().map(words_of).collect::<Result<_, _>>()?;
        let rows = columns.first().map_or(0, Array::len);
        let mut found = Self {
            codes: Vec::with_capacity(rows),
            keys: Vec::new(),
            positions: positions
                .and_then(|positions| positions.as_primitive_opt::<Int64Type>())
                .map(|positions| positions.values().clone()),
        };
        let mut index: HashMap<[i32; GROUP_COLUMNS_MAX], u32> = HashMap::new();
        let mut last: Option<([i32; GROUP_COLUMNS_MAX], u32)> = None;
        let keys: Vec<_> = words.iter().map(|(words, _)| words.as_dictionary::<Int32Type>().keys()).collect();
        for row in 0..rows {
            let mut place = [-1; GROUP_COLUMNS_MAX];
            for (place, keys) in place.iter_mut().zip(&keys) {
                *place = if keys.is_valid(row) { keys.value(row) } else { -1 };
            }
            // Rows of one export follow one another.
            let code = match last {
                Some((known, code)) if known == place => code,
                _ => *index.entry(place).or_insert_with(|| {
                    let texts = words.iter().zip(place).map(|((_, texts), at)| {
                        let at = usize::try_from(at).ok().filter(|at| texts.is_valid(*at));
                        Arc::from(at.map_or("", |at| texts.value(at)))
                    });
                    found.keys.push(texts.collect());
                    found.keys.len() as u32 - 1
                }),
            };
            last = Some((place, code));
            found.codes.push(code);
        }
        Ok(found)
    }

    fn position(&self, row: usize) -> i64 {
        self.positions.as_ref().map_or(0, |positions| positions[row])
    }
}

/// A column as a dictionary, and its words.
fn words_of(column: &ArrayRef) -> Result<(ArrayRef, StringArray), ArrowError> {
    let words = cast(column, &DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)))?;
    let texts = words.as_dictionary::<Int32Type>().values().as_string::<i32>().clone();
    Ok((words, texts))
}

impl Part<'_> {
    /// Counts an SLO by group and minute.
    pub(super) fn count_groups(&self, slo: &Counted, place: usize, groups: &Groups, tally: &mut impl Tally) {
        let (total, judge) = (self.verdicts(&slo.total), self.verdicts(&slo.judge));
        let selected = self.selected(slo);
        let mut sums: HashMap<(u32, i64), Counts> = HashMap::new();
        let mut running: Option<((u32, i64), Counts)> = None;
        let mut first: Vec<Option<i64>> = vec![None; groups.keys.len()];
        let mut fed_by: HashMap<(u32, usize), i64> = HashMap::new();
        let mut outside = Vec::new();
        for (row, Class { minute, service, weight }) in self.classes() {
            if selected.is_some_and(|selected| !selected.value(row)) {
                continue;
            }
            let (code, minute) = (groups.codes[row], *minute);
            if !total.yes.value(row) {
                outside.push((row, minute));
                continue;
            }
            let counts = match &mut running {
                Some((at, counts)) if *at == (code, minute) => counts,
                running => {
                    if let Some((at, counts)) = running.take() {
                        *sums.entry(at).or_default() += &counts;
                    }
                    &mut running.insert(((code, minute), Counts::default())).1
                }
            };
            let is_good = judge.yes.value(row) == (slo.judged == Judged::Good);
            add_events(counts, u64::from(is_good), 1, *weight);
            counts.nulls += u64::from(judge.unknown.as_ref().is_some_and(|unknown| unknown.value(row)));
            let first = &mut first[code as usize];
            let position = groups.position(row);
            *first = Some(first.map_or(position, |first| first.min(position)));
            let fed = fed_by.entry((code, *service)).or_insert(minute);
            *fed = minute.max(*fed);
        }
        if let Some((at, counts)) = running {
            *sums.entry(at).or_default() += &counts;
        }
        let position = |code: u32| first[code as usize].map(|first| WalPosition(first.unsigned_abs()));
        for ((code, minute), counts) in &sums {
            tally.add(place, Some((&groups.keys[*code as usize], position(*code))), Minute(*minute), counts);
        }
        for ((code, service), minute) in fed_by {
            if let Some(service) = self.batch.services.get(service) {
                tally.fed_by(place, Some((&groups.keys[code as usize], position(code))), service, Minute(minute));
            }
        }
        if outside.is_empty() {
            return;
        }
        let began = |(key, first): (&GroupKey, &Option<i64>)| {
            if is_other(key) {
                return None;
            }
            tally.began(place, key).map(WalPosition::as_i64).into_iter().chain(*first).min()
        };
        let began: Vec<Option<i64>> = groups.keys.iter().zip(&first).map(began).collect();
        let mut sums: HashMap<(u32, i64), Counts> = HashMap::new();
        for (row, minute) in outside {
            let code = groups.codes[row];
            if began[code as usize].is_some_and(|began| groups.position(row) > began) {
                let counts = sums.entry((code, minute)).or_default();
                counts.excluded += 1;
                counts.nulls += u64::from(total.unknown.as_ref().is_some_and(|unknown| unknown.value(row)));
            }
        }
        for ((code, minute), counts) in &sums {
            tally.outside(place, &groups.keys[*code as usize], Minute(*minute), counts);
        }
    }
}
