//! `calls_1m`: the committed rows of `calls`, folded.
//!
//! The rows after the cursor are kept in memory as rollups, and written about once a minute of log time, so that keys do
//! not shatter into a row for every commit of `calls`. The cursor is the version of the transaction `<writer>/calls_1m`:
//! rows of `calls` up to that position are in the table. Rollup and table together are always the fold of exactly what
//! `calls` has.
//!
//! Series beyond the limit of their date are folded into one before they get here ([`toolgauge_analytics::series`]). Which have names is
//! what the table says, so it is read for a date of which rows come for the first time.
//!
//! After a restart, and when the table was deleted, the rows after the cursor are read from `calls` again, a stretch of
//! positions at a time. The log is not needed for that.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use toolgauge_analytics::rollup::CallsRollup;
use toolgauge_analytics::series::{KnownSeries, SERIES};
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::time::{HOUR_MICROS, UnixMicros};

/// When rollups are written.
#[derive(Debug, Clone)]
pub struct FoldSettings {
    /// Rollups are written when so much log time has gone by since the last time, in microseconds.
    pub interval_us: i64,
    /// Rollups are written earlier when they have so many keys.
    pub keys_max: usize,
    /// Rows of `calls` that are read at once when the fold catches up.
    pub catch_up_rows: u64,
    /// So many series of a date have names of their own, see [`toolgauge_analytics::series`].
    pub series_max: usize,
    /// `calls_1h` is written when log time passes a multiple of this, in microseconds.
    pub hours_interval_us: i64,
}

impl Default for FoldSettings {
    fn default() -> Self {
        Self {
            interval_us: 60_000_000,
            // Some hundred bytes each.
            keys_max: 100_000,
            catch_up_rows: 1 << 20,
            // Far more than people look at; 16 bytes each in memory, and a row a minute each on the disk.
            series_max: 50_000,
            hours_interval_us: HOUR_MICROS,
        }
    }
}

/// Rollups of the rows after the cursor; their sum counts.
pub(super) type Rollups = Vec<Arc<CallsRollup>>;

/// See the module.
#[derive(Debug)]
pub(super) struct CallsFold {
    settings: FoldSettings,
    /// Each has more than twice the keys of the next, so that a row is merged a few times only, however many commits there
    /// are between two writes.
    rollups: Rollups,
    cursor: WalPosition,
    up_to: WalPosition,
    written: Option<UnixMicros>,
    series: KnownSeries,
    folded: Arc<Folded>,
}

/// What was folded into others since the start, and on which dates anything was, because too many series came.
#[derive(Debug, Clone, Default)]
pub struct Folded {
    /// Calls in those.
    pub calls: u64,
    /// The first of these series, at most [`FOLDED_LISTED_MAX`]: dates, as days since 1970, and names.
    pub series: BTreeSet<(i32, [Option<String>; SERIES.len()])>,
    /// The newest dates on which there are some, as far as dates were looked at: also before the start.
    pub dates: BTreeSet<i32>,
}

/// Folded series that are listed.
pub const FOLDED_LISTED_MAX: usize = 100;
/// Dates whose series are known; of others they are read again when rows of them come.
const DATES_MAX: usize = 4;

/// What is to be written.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) batches: Vec<RecordBatch>,
    pub(super) first: WalPosition,
    pub(super) up_to: WalPosition,
}

impl CallsFold {
    pub(super) fn new(settings: FoldSettings, cursor: WalPosition) -> Self {
        let series = KnownSeries::new(settings.series_max);
        Self { settings, rollups: Vec::new(), cursor, up_to: cursor, written: None, series, folded: Arc::default() }
    }

    /// Rows up to here are folded.
    pub(super) fn up_to(&self) -> WalPosition {
        self.up_to
    }

    pub(super) fn catch_up_rows(&self) -> u64 {
        self.settings.catch_up_rows
    }

    /// The rollups of the rows after the cursor.
    pub(super) fn rollups(&self) -> &Rollups {
        &self.rollups
    }

    /// The series that have names.
    pub(super) fn series(&self) -> &KnownSeries {
        &self.series
    }

    /// What was folded into others.
    pub(super) fn folded(&self) -> &Arc<Folded> {
        &self.folded
    }

    /// The series of a date that have names in the table, and whether it has others.
    pub(super) fn learn(&mut self, date: i32, series: HashSet<u128>, others: bool) {
        self.series.learn(date, series);
        if others {
            self.fold_date(date);
        }
    }

    fn fold_date(&mut self, date: i32) {
        if self.folded.dates.contains(&date) {
            return;
        }
        let dates = &mut Arc::make_mut(&mut self.folded).dates;
        dates.insert(date);
        if dates.len() > FOLDED_LISTED_MAX {
            dates.pop_first();
        }
    }

    /// Takes the rollup of the rows that follow, up to a position. It must be known which series of its dates have names.
    pub(super) fn push(&mut self, mut rollup: CallsRollup, up_to: WalPosition) {
        self.up_to = up_to;
        if rollup.is_empty() {
            return;
        }
        let admission = rollup.fold_series(&self.series);
        self.series.admit(&admission);
        if admission.folded_calls > 0 {
            admission.folded.iter().for_each(|(date, _)| self.fold_date(*date));
            let folded = Arc::make_mut(&mut self.folded);
            folded.calls += admission.folded_calls;
            let room = FOLDED_LISTED_MAX.saturating_sub(folded.series.len());
            folded.series.extend(admission.folded.into_iter().take(room));
        }
        while let Some(last) = self.rollups.pop_if(|last| last.len() <= 2 * rollup.len()) {
            rollup.merge(&last);
        }
        self.rollups.push(Arc::new(rollup));
    }

    /// What is to be written now; `None` if it is not time yet. `now` is log time, `None` while catching up.
    pub(super) fn due(&mut self, now: Option<UnixMicros>) -> Result<Option<Due>, ArrowError> {
        let keys: usize = self.rollups.iter().map(|rollup| rollup.len()).sum();
        let of_age = now.is_some_and(|now| {
            let written = *self.written.get_or_insert(now);
            now.0.saturating_sub(written.0) >= self.settings.interval_us
        });
        if of_age || keys >= self.settings.keys_max { self.all() } else { Ok(None) }
    }

    /// Everything that is not written yet; `None` if nothing is.
    pub(super) fn all(&self) -> Result<Option<Due>, ArrowError> {
        if self.rollups.is_empty() {
            return Ok(None);
        }
        Ok(Some(Due { batches: merged(&self.rollups).batches()?, first: self.cursor.next(), up_to: self.up_to }))
    }

    /// Rows up to here are in the table.
    pub(super) fn cursor(&self) -> WalPosition {
        self.cursor
    }

    /// What was due is durable.
    pub(super) fn written(&mut self, now: Option<UnixMicros>) {
        self.rollups.clear();
        self.series.keep_newest(DATES_MAX);
        self.cursor = self.up_to;
        self.written = now;
    }
}

/// The rows of `calls` in these batches.
pub(super) fn fold<'a>(batches: impl IntoIterator<Item = &'a RecordBatch>) -> Result<CallsRollup, ArrowError> {
    let mut rollup = CallsRollup::default();
    for batch in batches {
        rollup.add(batch)?;
    }
    Ok(rollup)
}

fn merged(rollups: &Rollups) -> CallsRollup {
    let mut all = CallsRollup::default();
    for rollup in rollups {
        all.merge(rollup);
    }
    all
}
