//! `calls_1h`: the committed rows of `calls_1m`, summed by hour.
//!
//! What is written to `calls_1m` is added to the hours in memory, and these are written when an hour of log time is over. The
//! cursor is the version of the transaction `<writer>/calls_1h`: rows of `calls_1m` up to that position are in the
//! table. Whatever comes late is one more row of its hour.
//!
//! After a restart, and when the table was deleted, the files of `calls_1m` after the cursor are read again. Their names say
//! which those are, since none is merged before the cursor has passed it ([`HoursFold::cursor`]).

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use toolgauge_analytics::additive::Additive;
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::table::Table;
use toolgauge_proto::time::UnixMicros;

use super::fold::Due;

/// Rows of `calls_1h` after the cursor; several may have one key.
pub(super) type Hours = Vec<Arc<[RecordBatch]>>;

/// See the module.
#[derive(Debug)]
pub(super) struct HoursFold {
    interval_us: i64,
    keys_max: usize,
    /// Each has more than twice the rows of the next, so that a row is added a few times only.
    hours: Hours,
    cursor: WalPosition,
    up_to: WalPosition,
    /// The hour in which the last rows were written, or the first ones came.
    written: Option<i64>,
}

fn rows(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::num_rows).sum()
}

/// Rows of `calls_1m` or `calls_1h`, by hour.
fn by_hour<'a>(batches: impl IntoIterator<Item = &'a RecordBatch>) -> Result<Additive, ArrowError> {
    let mut hours = Additive::new(Table::Calls1h)?;
    for batch in batches {
        hours.add(batch)?;
    }
    Ok(hours)
}

/// The rows of `calls_1h` that are the sums of these rows of `calls_1m`.
pub(super) fn of_minutes(calls_1m: &[RecordBatch]) -> Result<Vec<RecordBatch>, ArrowError> {
    by_hour(calls_1m)?.batches()
}

/// What a view adds to the table: the rows after the cursor, and those of the live rows of `calls_1m`.
pub(super) fn live(hours: &Hours, live_calls_1m: &[RecordBatch]) -> Result<Vec<RecordBatch>, ArrowError> {
    by_hour(hours.iter().flat_map(|batches| batches.iter()).chain(live_calls_1m))?.live_batches()
}

impl HoursFold {
    pub(super) fn new(interval_us: i64, keys_max: usize, cursor: WalPosition) -> Self {
        Self { interval_us, keys_max, hours: Vec::new(), cursor, up_to: cursor, written: None }
    }

    /// Rows of `calls_1m` up to here are in the table.
    pub(super) fn cursor(&self) -> WalPosition {
        self.cursor
    }

    pub(super) fn keys_max(&self) -> usize {
        self.keys_max
    }

    /// The rows after the cursor.
    pub(super) fn hours(&self) -> &Hours {
        &self.hours
    }

    /// Takes rows that were written to `calls_1m`, up to a position.
    pub(super) fn push(&mut self, calls_1m: &[RecordBatch], up_to: WalPosition) -> Result<(), ArrowError> {
        if up_to <= self.up_to {
            return Ok(());
        }
        let mut hours = by_hour(calls_1m)?;
        while let Some(last) = self.hours.pop_if(|last| rows(last) <= 2 * hours.len()) {
            last.iter().try_for_each(|batch| hours.add(batch))?;
        }
        if !hours.is_empty() {
            self.hours.push(hours.batches()?.into());
        }
        self.up_to = up_to;
        Ok(())
    }

    /// What is to be written now; `None` if it is not time yet. `now` is log time.
    pub(super) fn due(&mut self, now: Option<UnixMicros>) -> Result<Option<Due>, ArrowError> {
        let keys: usize = self.hours.iter().map(|batches| rows(batches)).sum();
        // As a rule in the minute after an hour's last rows have come.
        let is_over = now.is_some_and(|now| {
            let hour = now.0.div_euclid(self.interval_us.max(1));
            *self.written.get_or_insert(hour) < hour
        });
        if keys == 0 || !(is_over || keys >= self.keys_max) {
            return Ok(None);
        }
        let batches = by_hour(self.hours.iter().flat_map(|batches| batches.iter()))?.batches()?;
        Ok(Some(Due { batches, first: self.cursor.next(), up_to: self.up_to }))
    }

    /// What was due is durable.
    pub(super) fn written(&mut self, up_to: WalPosition, now: Option<UnixMicros>) {
        self.hours.clear();
        (self.cursor, self.up_to) = (up_to, up_to);
        self.written = now.map(|now| now.0.div_euclid(self.interval_us.max(1)));
    }
}
