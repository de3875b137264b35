//! Blocks of rows, and what was decided of them, written into their columns.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, BinaryBuilder, BooleanArray, Decimal128Array, Int32Array, Int64Builder, RecordBatch,
};
use arrow::compute::interleave;
use arrow::error::ArrowError;
use toolgauge_analytics::price::Pricer;
use toolgauge_analytics::settle::{Context, Decision, NO_THRESHOLD, Retry};
use toolgauge_proto::table::Table;

/// Columns that a row takes from the view whose failure it takes, null or not.
static ERROR_COLUMNS: LazyLock<Vec<usize>> = LazyLock::new(|| {
    ["outcome", "error_class", "error_type", "status_code", "error_message", "error_fingerprint", "attributes"]
        .map(|name| Table::Calls.index_of(name))
        .to_vec()
});

/// A column, and which row another one takes it from.
type ContextColumn = (usize, fn(&Context) -> Option<u64>);

/// Columns that say whose call a row is, and which row it takes each from.
static CONTEXT_COLUMNS: LazyLock<[ContextColumn; 3]> = LazyLock::new(|| {
    [
        (Table::Calls.index_of("session_id"), |context| context.session_from),
        (Table::Calls.index_of("user_id"), |context| context.user_from),
        (Table::Calls.index_of("agent_name"), |context| context.agent_from),
    ]
});
/// The first of them: of a session that is only a transport's, nobody takes anything.
static SESSION_COLUMN: LazyLock<usize> = LazyLock::new(|| Table::Calls.index_of("session_id"));

struct DecidedColumns {
    counted: usize,
    attempt: usize,
    is_final: usize,
    weight: usize,
    logical_call_id: usize,
    retry_delay_ns: usize,
    retry_lost_ns: usize,
}

static DECIDED: LazyLock<DecidedColumns> = LazyLock::new(|| DecidedColumns {
    counted: Table::Calls.index_of("counted"),
    attempt: Table::Calls.index_of("attempt"),
    is_final: Table::Calls.index_of("final"),
    weight: Table::Calls.index_of("weight"),
    logical_call_id: Table::Calls.index_of("logical_call_id"),
    retry_delay_ns: Table::Calls.index_of("retry_delay_ns"),
    retry_lost_ns: Table::Calls.index_of("retry_lost_ns"),
});

/// Rows that follow one another, with what was decided of them otherwise than by default.
#[derive(Debug)]
pub(super) struct Block {
    first: u64,
    raw: RecordBatch,
    decisions: HashMap<u64, Decision>,
    decided: Option<RecordBatch>,
}

impl Block {
    pub(super) fn new(first: u64, raw: RecordBatch) -> Self {
        Self { first, raw, decisions: HashMap::new(), decided: None }
    }

    pub(super) fn range(&self) -> Range<u64> {
        self.first..self.first + self.raw.num_rows() as u64
    }

    /// Notes what is decided of a row; `None` is the default.
    pub(super) fn decide(&mut self, seq: u64, decision: Option<Decision>) {
        match decision {
            Some(decision) => self.decisions.insert(seq, decision),
            None => self.decisions.remove(&seq),
        };
        self.decided = None;
    }

    /// Its rows have to be priced anew.
    pub(super) fn forget_prices(&mut self) {
        self.decided = None;
    }
}

/// A row by the number of its block and its place in it.
type Place = (usize, usize);

fn place_of(blocks: &VecDeque<Block>, seq: u64) -> Option<Place> {
    let index = blocks.partition_point(|block| block.range().end <= seq);
    let block = blocks.get(index).filter(|block| block.range().contains(&seq))?;
    Some((index, usize::try_from(seq - block.first).ok()?))
}

/// The decided and priced rows of a range, block by block.
pub(super) fn batches(
    blocks: &mut VecDeque<Block>,
    range: Range<u64>,
    pricer: &mut Pricer,
) -> Result<Vec<RecordBatch>, ArrowError> {
    let mut batches = Vec::new();
    for index in 0..blocks.len() {
        let own = blocks[index].range();
        let (from, to) = (own.start.max(range.start), own.end.min(range.end));
        if from >= to {
            continue;
        }
        if blocks[index].decided.is_none() {
            // After deciding: a cost that another view reports comes before one of the book.
            let decided = pricer.price(&decide(blocks, index)?)?;
            blocks[index].decided = Some(decided);
        }
        if let Some(batch) = &blocks[index].decided {
            batches.push(batch.slice((from - own.start) as usize, (to - from) as usize));
        }
    }
    Ok(batches)
}

fn decide(blocks: &VecDeque<Block>, index: usize) -> Result<RecordBatch, ArrowError> {
    let block = &blocks[index];
    if block.decisions.is_empty() {
        return Ok(block.raw.clone());
    }
    let rows = block.raw.num_rows();
    let mut counted = vec![true; rows];
    let mut is_final = vec![true; rows];
    let mut attempt = vec![1; rows];
    let mut weight = vec![1_000_000; rows];
    let mut taking = Vec::new();
    for (seq, decision) in &block.decisions {
        let row = (*seq - block.first) as usize;
        counted[row] = decision.counted;
        is_final[row] = decision.is_final;
        attempt[row] = i32::try_from(decision.attempt).unwrap_or(i32::MAX);
        weight[row] = adjusted_count(decision.threshold);
        if decision.error_from.is_some() || !decision.nulls_from.is_empty() || decision.context.is_some() {
            taking.push((row, decision));
        }
    }
    // A map has no order; the columns must not depend on it.
    taking.sort_unstable_by_key(|(row, _)| *row);
    let mut columns = if taking.is_empty() { block.raw.columns().to_vec() } else { taken(blocks, index, &taking)? };
    columns[DECIDED.counted] = Arc::new(BooleanArray::from(counted));
    columns[DECIDED.attempt] = Arc::new(Int32Array::from(attempt));
    columns[DECIDED.is_final] = Arc::new(BooleanArray::from(is_final));
    columns[DECIDED.weight] = Arc::new(Decimal128Array::from(weight).with_precision_and_scale(18, 6)?);
    write_retries(block, &mut columns);
    RecordBatch::try_new(block.raw.schema(), columns)
}

/// Writes what retries know of the attempts before them, if there are any.
fn write_retries(block: &Block, columns: &mut [ArrayRef]) {
    let mut retries: Vec<(usize, &Retry)> = block
        .decisions
        .iter()
        .filter_map(|(seq, decision)| Some(((*seq - block.first) as usize, decision.retry.as_deref()?)))
        .collect();
    if retries.is_empty() {
        return;
    }
    retries.sort_unstable_by_key(|(row, _)| *row);
    let rows = block.raw.num_rows();
    let mut first = BinaryBuilder::with_capacity(rows, retries.len() * 16);
    let (mut delay, mut lost) = (Int64Builder::with_capacity(rows), Int64Builder::with_capacity(rows));
    let mut next = 0;
    for (row, retry) in retries {
        first.append_nulls(row - next);
        delay.append_nulls(row - next);
        lost.append_nulls(row - next);
        first.append_value(retry.first.as_bytes());
        delay.append_value(retry.delay_ns);
        lost.append_value(retry.lost_ns);
        next = row + 1;
    }
    first.append_nulls(rows - next);
    delay.append_nulls(rows - next);
    lost.append_nulls(rows - next);
    columns[DECIDED.logical_call_id] = Arc::new(first.finish());
    columns[DECIDED.retry_delay_ns] = Arc::new(delay.finish());
    columns[DECIDED.retry_lost_ns] = Arc::new(lost.finish());
}

/// The columns of a block in which some rows take values from others.
fn taken(blocks: &VecDeque<Block>, index: usize, taking: &[(usize, &Decision)]) -> Result<Vec<ArrayRef>, ArrowError> {
    let block = &blocks[index];
    let errors: Vec<Option<Place>> =
        taking.iter().map(|(_, decision)| decision.error_from.and_then(|seq| place_of(blocks, seq))).collect();
    let fillers: Vec<Vec<Place>> = taking
        .iter()
        .map(|(_, decision)| decision.nulls_from.iter().filter_map(|seq| place_of(blocks, *seq)).collect())
        .collect();
    let mut columns = Vec::with_capacity(block.raw.num_columns());
    for (c, own) in block.raw.columns().iter().enumerate() {
        let is_error_column = ERROR_COLUMNS.contains(&c);
        let whose = CONTEXT_COLUMNS.iter().find(|(column, _)| *column == c).map(|(_, from)| from);
        let of_context = |decision: &Decision| place_of(blocks, whose?(decision.context.as_deref()?)?);
        let fills = c != *SESSION_COLUMN;
        let mut sources: Vec<usize> = vec![index];
        let mut indices: Vec<Place> = Vec::new();
        for (((row, decision), error), fillers) in taking.iter().zip(&errors).zip(&fillers) {
            let context = of_context(decision);
            let place = match error {
                Some(place) if is_error_column => Some(*place),
                // What an inner view repaired is not this row's error.
                _ if is_error_column && !decision.failed => None,
                _ if context.is_some() => context,
                _ if fills && own.is_null(*row) => {
                    fillers.iter().copied().find(|(b, r)| !blocks[*b].raw.column(c).is_null(*r))
                }
                _ => None,
            };
            let Some((b, r)) = place else { continue };
            if indices.is_empty() {
                indices = (0..own.len()).map(|row| (0, row)).collect();
            }
            let source = sources.iter().position(|known| *known == b).unwrap_or_else(|| {
                sources.push(b);
                sources.len() - 1
            });
            indices[*row] = (source, r);
        }
        if indices.is_empty() {
            columns.push(Arc::clone(own));
            continue;
        }
        let arrays: Vec<&dyn Array> = sources.iter().map(|b| blocks[*b].raw.column(c).as_ref()).collect();
        columns.push(interleave(&arrays, &indices)?);
    }
    Ok(columns)
}

/// The adjusted count of a span that was kept with this rejection threshold T, 2^56 / (2^56 - T), rounded half to even
/// to 6 places, in units of 10^-6 (OpenTelemetry, tracestate probability sampling). 0 of one that rejects all.
fn adjusted_count(threshold: u64) -> i128 {
    const ALL: u128 = 1 << 56;
    if threshold == NO_THRESHOLD {
        return 1_000_000;
    }
    if u128::from(threshold) >= ALL {
        return 0;
    }
    let kept = ALL - u128::from(threshold);
    let (whole, rest) = (ALL * 1_000_000 / kept, ALL * 1_000_000 % kept);
    let up = match (rest * 2).cmp(&kept) {
        std::cmp::Ordering::Less => 0,
        std::cmp::Ordering::Equal => whole % 2,
        std::cmp::Ordering::Greater => 1,
    };
    // 18 digits hold 2^56 / 1 only up to 10^12; no sampler keeps one span of so many.
    i128::try_from(whole + up).unwrap_or(i128::MAX).min(999_999_999_999_999_999)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjusted_counts_are_exact_to_six_places() {
        let cases = [
            (NO_THRESHOLD, 1_000_000),
            (0, 1_000_000),
            (0xc0_0000_0000_0000, 4_000_000),
            (0xe6_6666_6666_6666, 10_000_000),
            (0x55_5555_5555_5555, 1_500_000),
            ((1 << 56) - 1, 999_999_999_999_999_999),
            (1 << 56, 0),
        ];
        for (threshold, expect) in cases {
            assert_eq!(adjusted_count(threshold), expect, "{threshold:x}");
        }
    }
}
