//! The fold over the log, without threads.

use std::sync::Arc;

use arrow::error::ArrowError;
use toolgauge_analytics::price::PriceBook;
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::table::Table;
use toolgauge_proto::time::UnixMicros;

use super::{CollectorError, CollectorSettings, Progress};
use crate::export::ExportSignal;
use crate::lake::{Commit, LakeTables, TableCommit};
use crate::live::{FrameBody, LiveFrame, LiveRows, LiveView};
use crate::recognise::{Conventions, FrameInfo, Recogniser};
use crate::wal::{Frame, FrameContent, Wal};

/// The fold over the log, without threads: frames in, commits out. Crash tests drive it directly.
#[derive(Debug)]
pub struct Fold {
    live: LiveRows,
    /// How far back in log time frames are wanted for re-sends and late relatives, in microseconds.
    horizon_us: i64,
    /// How many identities of rows before the log are wanted.
    seen_rows_max: usize,
    progress: Progress,
}

/// What a commit took from the live rows; handed back when it is durable.
#[derive(Debug, Clone, Copy)]
pub struct CommitMarks {
    calls_seq_end: u64,
    arrivals: Option<WalPosition>,
    quarantine: Option<WalPosition>,
}

impl Fold {
    /// An empty fold.
    ///
    /// # Errors
    /// If the conventions are faulty.
    pub fn new(settings: &CollectorSettings) -> Result<Self, CollectorError> {
        let recogniser =
            Recogniser::new(Conventions::with(&settings.recognise.conventions)?, settings.recognise.clone())?;
        let horizon_us = settings.live.remember_us.max(settings.wal.digest_horizon_us);
        let seen_rows_max = settings.live.seen_rows_max;
        let mut live = LiveRows::new(settings.live.clone(), Arc::new(recogniser));
        live.set_prices(settings.prices.get());
        Ok(Self { live, horizon_us, seen_rows_max, progress: settings.progress.clone() })
    }

    /// Replays the log into an empty fold. What the tables have already is not kept to be committed again; of what the
    /// log has forgotten, the tables give the identities, so that rows that are sent again are still known.
    ///
    /// # Errors
    /// If the log cannot be read, or does not fit the tables.
    pub fn replay(&mut self, wal: &Wal, tables: &LakeTables) -> Result<(), CollectorError> {
        let [calls, arrivals, quarantine] =
            [Table::Calls, Table::Arrivals, Table::Quarantine].map(|table| tables.up_to(table));
        let mut first = None;
        for frame in wal.replay(WalPosition(1)) {
            let frame = frame?;
            if first.is_none() {
                first = Some(frame.position);
                self.progress.begin(frame.position, wal.synced());
                self.live.remember_identities(tables.identities_before(frame.position, self.seen_rows_max)?);
            }
            self.apply(&frame)?;
            self.live.discard_committed(calls, arrivals, quarantine);
            self.progress.replayed();
        }
        let last = wal.synced();
        if first.is_none() {
            // A new log; the tables may hold rows of the one before it.
            self.live.remember_identities(tables.identities_before(last.next(), self.seen_rows_max)?);
        }
        let first = first.unwrap_or(last.next());
        for (table, committed) in [(Table::Calls, calls), (Table::Arrivals, arrivals)] {
            if committed > last || committed.next() < first {
                return Err(CollectorError::MissingLog { table: table.name(), committed, first, last });
            }
        }
        Ok(())
    }

    /// Another price book is in force; not while a commit is under way, whose rows are priced already.
    pub fn set_prices(&mut self, book: Arc<PriceBook>) {
        self.live.set_prices(book);
    }

    /// Takes the next frame.
    ///
    /// # Errors
    /// On a fault of the program.
    pub fn apply(&mut self, frame: &Frame) -> Result<(), ArrowError> {
        let (tenant, body) = match &frame.content {
            FrameContent::Tick => ("", FrameBody::Tick),
            FrameContent::Export(export) => {
                let body = match export.signal {
                    ExportSignal::Traces => FrameBody::Traces(&export.body),
                    ExportSignal::Logs => FrameBody::Logs(&export.body),
                };
                (&*export.tenant, body)
            }
        };
        let info = FrameInfo { position: frame.position, received: frame.receive_time, tenant };
        self.live.apply(LiveFrame { info, body })
    }

    /// Everything that can be committed now; `None` if nothing can.
    ///
    /// # Errors
    /// On a fault of the program.
    pub fn begin_commit(&mut self) -> Result<Option<(Commit, CommitMarks)>, ArrowError> {
        let settled = self.live.settled()?;
        // Once a minute the position of `calls` moves even if there are no rows, so that the log can be forgotten.
        let calls = (!settled.calls.is_empty() || settled.arrivals.is_some())
            .then_some(TableCommit { batches: settled.calls, up_to: settled.calls_up_to })
            .filter(|calls| calls.up_to > WalPosition(0));
        let arrivals =
            settled.arrivals.map(|batch| TableCommit { batches: vec![batch], up_to: settled.arrivals_up_to });
        let quarantine =
            settled.quarantine.map(|batch| TableCommit { batches: vec![batch], up_to: settled.quarantine_up_to });
        if calls.is_none() && arrivals.is_none() && quarantine.is_none() {
            return Ok(None);
        }
        let marks = CommitMarks {
            calls_seq_end: settled.calls_seq_end,
            arrivals: arrivals.as_ref().map(|table| table.up_to),
            quarantine: quarantine.as_ref().map(|table| table.up_to),
        };
        Ok(Some((Commit { calls, arrivals, quarantine, received: settled.received }, marks)))
    }

    /// A commit is durable: its rows leave.
    pub fn end_commit(&mut self, marks: CommitMarks) {
        self.live.committed_calls(marks.calls_seq_end);
        if let Some(up_to) = marks.arrivals {
            self.live.committed_arrivals(up_to);
        }
        if let Some(up_to) = marks.quarantine {
            self.live.committed_quarantine(up_to);
        }
    }

    /// What the log may forget when `calls` and `arrivals` are complete up to these positions: frames up to a position, as
    /// far as they are older than a time. Derived tables are made of `calls` and need no log.
    #[must_use]
    pub fn forgettable(&self, calls: WalPosition, arrivals: WalPosition) -> (WalPosition, UnixMicros) {
        let needed = calls.min(arrivals);
        let up_to = match self.live.first_quarantined() {
            Some(first) if first <= needed => WalPosition(first.0.saturating_sub(1)),
            _ => needed,
        };
        (up_to, UnixMicros(self.live.received().0.saturating_sub(self.horizon_us)))
    }

    /// The live rows as readers see them.
    ///
    /// # Errors
    /// On a fault of the program.
    pub fn view(&mut self) -> Result<LiveView, ArrowError> {
        self.live.view()
    }

    /// The live rows.
    #[must_use]
    pub fn live(&self) -> &LiveRows {
        &self.live
    }
}
