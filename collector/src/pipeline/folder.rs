//! The fold's thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use arrow::error::ArrowError;
use toolgauge_analytics::price::date_text;
use toolgauge_analytics::series::SERIES;
use toolgauge_proto::api::FoldedSeries;
use toolgauge_proto::lake::SettledRows;
use toolgauge_proto::table::Table;

use super::committer::{Answer, Job};
use super::fold::{CommitMarks, Fold};
use super::shared::SharedLake;
use super::{CollectorError, CollectorSettings, chain};
use crate::lake::Committed;
use crate::wal::{FrameReceiver, Received, WalHandle};

/// How long a commit waits that found the disk full.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long a commit under way may still take at the end.
const LAST_COMMIT: Duration = Duration::from_secs(30);
/// How often it is looked whether a feed that was full has room again.
const FEED_CHECK: Duration = Duration::from_millis(10);

/// The fold, what it needs to commit and to publish, and what it counts.
pub(super) struct Folder {
    fold: Fold,
    committed: Committed,
    settings: CollectorSettings,
    frames: FrameReceiver,
    jobs: SyncSender<Job>,
    answers: Receiver<Answer>,
    in_flight: Option<CommitMarks>,
    last_commit: Instant,
    last_publish: Instant,
    commits: u64,
    commit_seconds: Duration,
    wal: WalHandle,
    lake: Arc<SharedLake>,
}

impl Drop for Folder {
    /// However it ends, nobody is left waiting.
    fn drop(&mut self) {
        self.lake.stop("the fold's thread has ended".into());
        // If the committer has ended already, that is as well.
        drop(self.jobs.send(Job::End));
    }
}

impl Folder {
    #[expect(clippy::too_many_arguments, reason = "the ends of its channels, each of another type")]
    pub(super) fn new(
        fold: Fold,
        committed: Committed,
        settings: CollectorSettings,
        frames: FrameReceiver,
        jobs: SyncSender<Job>,
        answers: Receiver<Answer>,
        wal: WalHandle,
        lake: Arc<SharedLake>,
    ) -> Self {
        Self {
            fold,
            committed,
            settings,
            frames,
            jobs,
            answers,
            in_flight: None,
            last_commit: Instant::now(),
            last_publish: Instant::now(),
            commits: 0,
            commit_seconds: Duration::ZERO,
            wal,
            lake,
        }
    }

    pub(super) fn run(&mut self) {
        if let Err(error) = self.fold_all() {
            let reason = chain(&error);
            tracing::error!(reason, "stopped; the log keeps what is not committed, and the next start replays it");
            self.lake.stop(reason);
        }
    }

    fn fold_all(&mut self) -> Result<(), CollectorError> {
        let publish_interval = Duration::from_micros(self.settings.publish_interval_us);
        loop {
            let wait = publish_interval.saturating_sub(self.last_publish.elapsed()).max(Duration::from_millis(1));
            let too_many = self.fold.live().settled_rows() > self.settings.settled_rows_max;
            if too_many && self.in_flight.is_some() {
                // The disk is behind: let the log wait rather than memory grow.
                self.await_commit(wait)?;
            } else if too_many && !self.lake.feeds_have_room() {
                // A reader is behind.
                self.await_commit(wait.min(FEED_CHECK))?;
            } else {
                match self.frames.receive(wait) {
                    Received::Frames(frames) => {
                        for frame in &frames {
                            self.fold.apply(frame)?;
                            if self.fold.live().settled_rows() >= self.settings.commit_rows {
                                self.begin_commit_if_idle()?;
                            }
                        }
                    }
                    Received::Nothing => {}
                    Received::End => break,
                }
                self.await_commit(Duration::ZERO)?;
            }
            self.take_prices();
            let due = self.last_commit.elapsed() >= Duration::from_micros(self.settings.commit_interval_us);
            if due || self.fold.live().settled_rows() >= self.settings.commit_rows {
                self.begin_commit_if_idle()?;
            }
            if self.last_publish.elapsed() >= publish_interval {
                self.publish(None)?;
            }
        }
        let until = Instant::now() + LAST_COMMIT;
        while self.in_flight.is_some() && !self.await_commit(until.saturating_duration_since(Instant::now()))? {}
        self.lake.stop("shutting down".into());
        Ok(())
    }

    /// Takes the price book that is in force now, if it is another one.
    fn take_prices(&mut self) {
        let book = self.settings.prices.get();
        // The rows of a commit that is under way have their prices; readers must not see others until it is done.
        if self.in_flight.is_none() && !Arc::ptr_eq(&book, self.fold.live().prices()) {
            self.fold.set_prices(book);
        }
    }

    fn begin_commit_if_idle(&mut self) -> Result<(), CollectorError> {
        if self.in_flight.is_some() || !self.lake.feeds_have_room() {
            return Ok(());
        }
        self.last_commit = Instant::now();
        let Some((commit, marks)) = self.fold.begin_commit()? else { return Ok(()) };
        if self.jobs.send(Job::Commit(commit)).is_ok() {
            self.in_flight = Some(marks);
        }
        Ok(())
    }

    /// Waits at most so long for the committer. `false` if it said something else than what became of a commit.
    fn await_commit(&mut self, wait: Duration) -> Result<bool, CollectorError> {
        match self.answers.recv_timeout(wait) {
            Ok(Answer::Done { commit, committed, took }) => {
                self.commits += 1;
                self.commit_seconds += took;
                self.committed = committed;
                if let Some(marks) = self.in_flight.take() {
                    self.fold.end_commit(marks);
                }
                let received = commit.received;
                let settled =
                    commit.calls.map(|calls| SettledRows { up_to: calls.up_to, received, rows: calls.batches.into() });
                self.publish(settled.as_ref())?;
                let [calls, arrivals] = [Table::Calls, Table::Arrivals].map(|table| self.committed.up_to(table));
                let (up_to, not_younger_than) = self.fold.forgettable(calls, arrivals);
                self.wal.forget(up_to, not_younger_than);
                Ok(true)
            }
            Ok(Answer::NoRoom { commit, error }) => {
                tracing::error!(reason = chain(&error), "no room for a commit; trying again (make room on the disk)");
                // The marks stay: the same rows are tried again, under the same names.
                let until = Instant::now() + RETRY_AFTER;
                while let Some(left) = until.checked_duration_since(Instant::now()) {
                    std::thread::park_timeout(left);
                }
                if self.jobs.send(Job::Commit(commit)).is_err() {
                    self.in_flight = None;
                }
                Ok(true)
            }
            Ok(Answer::Exchanged { committed, answer }) => {
                self.committed = committed;
                self.publish(None)?;
                drop(answer.send(Ok(true)));
                Ok(false)
            }
            Ok(Answer::Failed(error)) => Err(error.into()),
            Err(RecvTimeoutError::Timeout) => Ok(true),
            Err(RecvTimeoutError::Disconnected) => {
                self.in_flight = None;
                Err(CollectorError::Thread(std::io::Error::other("the committer's thread has ended")))
            }
        }
    }

    /// Shows readers what is known now, and the feeds the rows of a commit that is shown for the first time.
    pub(super) fn publish(&mut self, settled: Option<&SettledRows>) -> Result<(), ArrowError> {
        self.last_publish = Instant::now();
        let live = self.fold.view()?;
        let visible = live.position.0;
        self.lake.publish(&live, &self.committed, settled);
        let rows = self.fold.live();
        let counts = rows.counts();
        let mut counters = BTreeMap::new();
        for (name, value) in [
            ("toolgauge_calls_total", counts.rows),
            ("toolgauge_records_total", counts.records),
            ("toolgauge_duplicate_rows_total", counts.duplicates),
            ("toolgauge_quarantined_total", counts.quarantined),
            ("toolgauge_unreadable_total", counts.unreadable),
            ("toolgauge_settled_early_total", counts.settled_early),
            ("toolgauge_forgotten_early_total", counts.forgotten_early),
            ("toolgauge_late_views_total", counts.late_views),
            ("toolgauge_late_retries_total", counts.late_retries),
            ("toolgauge_unnamed_arrivals_total", counts.unnamed_arrivals),
            ("toolgauge_forgotten_identities_total", rows.forgotten_identities()),
            ("toolgauge_commits_total", self.commits),
            ("toolgauge_commit_microseconds_total", self.commit_seconds.as_micros() as u64),
        ] {
            counters.insert(name.to_owned(), value);
        }
        let (folded, named) = self.committed.folded();
        counters.insert("toolgauge_series_named".to_owned(), named as u64);
        counters.insert("toolgauge_series_folded_calls_total".to_owned(), folded.calls);
        let folded_dates = folded.dates.iter().rev().map(|date| date_text(*date)).collect();
        let folded: Vec<FoldedSeries> = folded.series.iter().map(|(date, names)| folded_series(*date, names)).collect();
        let by_table = |values: [u64; Table::ALL.len()]| {
            Table::ALL.iter().map(|table| (table.name().to_owned(), values[*table as usize])).collect()
        };
        let mut status = self.lake.status_mut();
        status.wal_visible = visible;
        status.wal_settled = rows.settled_position().0;
        status.wal_committed = self.committed.up_to(Table::Calls).0;
        status.live_rows = rows.live_rows();
        status.live_bytes = rows.live_bytes();
        status.table_versions = by_table(self.committed.versions);
        status.table_files = by_table(self.committed.files);
        status.counters = counters;
        status.folded_series = folded;
        status.folded_dates = folded_dates;
        Ok(())
    }
}

fn folded_series(date: i32, names: &[Option<String>; SERIES.len()]) -> FoldedSeries {
    let [tenant, service_name, environment, tool_server, tool_name, agent_name, model] = names.clone();
    FoldedSeries {
        date: date_text(date),
        tenant: tenant.unwrap_or_default(),
        service_name,
        environment,
        tool_server,
        tool_name,
        agent_name,
        model,
    }
}
