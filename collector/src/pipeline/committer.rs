//! The committer's thread: the one owner of the tables.
//!
//! It does one thing after the other. A commit has a part for each table; what readers append is done between two parts,
//! so that it does not wait for a whole commit.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use toolgauge_proto::lake::{AppendError, Txn};
use toolgauge_proto::table::Table;
use toolgauge_proto::time::UnixMicros;

use super::chain;
use super::compact::Exchanged;
use super::shared::SharedLake;
use crate::lake::{Commit, Committed, Exchange, LakeError, LakeTables, TableFiles};

/// Jobs that may wait; who has one more waits to hand it over.
pub(super) const JOBS_MAX: usize = 16;

/// What the committer is to do.
#[derive(Debug)]
pub(super) enum Job {
    /// For the fold, which waits for the answer before it sends another.
    Commit(Commit),
    /// For a reader.
    Append {
        table: Table,
        rows: Vec<RecordBatch>,
        txn: Txn,
        /// Log time.
        now: UnixMicros,
        answer: SyncSender<Result<bool, AppendError>>,
    },
    /// For a reader.
    CommittedVersion { table: Table, app_id: String, answer: SyncSender<Result<Option<i64>, AppendError>> },
    /// For the compactor.
    Files { table: Table, answer: SyncSender<Result<TableFiles, LakeError>> },
    /// For the compactor, which waits for the answer before it sends another.
    Exchange {
        exchange: Arc<Exchange>,
        /// Log time.
        now: UnixMicros,
        answer: SyncSender<Exchanged>,
    },
    /// Nothing comes any more.
    End,
}

/// Answers to the fold that may wait: one to a commit and one to an exchange.
pub(super) const ANSWERS_MAX: usize = 2;

/// What it tells the fold.
#[derive(Debug)]
pub(super) enum Answer {
    /// The commit is durable.
    Done { commit: Commit, committed: Committed, took: Duration },
    /// The disk was full; the same commit may be tried again.
    NoRoom { commit: Commit, error: LakeError },
    /// The same rows are in other files. Whoever waits is told when readers have them.
    Exchanged { committed: Committed, answer: SyncSender<Exchanged> },
    /// It has failed, and has ended.
    Failed(LakeError),
}

/// See the module.
pub(super) struct Committer {
    pub(super) tables: LakeTables,
    pub(super) lake: Arc<SharedLake>,
    pub(super) jobs: Receiver<Job>,
    pub(super) answers: SyncSender<Answer>,
    /// A commit was begun that found no room and is tried again: the tables are between two views.
    pub(super) is_between: bool,
}

impl Committer {
    pub(super) fn run(mut self) {
        if let Err(error) = self.work() {
            // If the fold has ended too, it has said why.
            drop(self.answers.send(Answer::Failed(error)));
        }
    }

    fn work(&mut self) -> Result<(), LakeError> {
        let mut later = VecDeque::new();
        loop {
            let next = later.pop_front().map_or_else(|| self.jobs.recv(), Ok);
            match next {
                Ok(Job::Commit(commit)) => {
                    let answer = self.commit(commit, &mut later)?;
                    self.is_between = matches!(answer, Answer::NoRoom { .. });
                    if self.answers.send(answer).is_err() {
                        return Ok(());
                    }
                }
                Ok(Job::Exchange { exchange, now, answer }) => {
                    if let Some(answer) = self.exchange(exchange, now, answer)?
                        && self.answers.send(answer).is_err()
                    {
                        return Ok(());
                    }
                }
                Ok(Job::End) | Err(_) => return Ok(()),
                Ok(job) => self.serve(job)?,
            }
        }
    }

    fn commit(&mut self, commit: Commit, later: &mut VecDeque<Job>) -> Result<Answer, LakeError> {
        let began = Instant::now();
        for table in Commit::TABLES {
            match self.tables.commit_table(table, &commit) {
                Ok(()) => {}
                Err(error @ LakeError::NoRoom { .. }) => return Ok(Answer::NoRoom { commit, error }),
                Err(error) => return Err(error),
            }
            while let Ok(job) = self.jobs.try_recv() {
                match job {
                    Job::Commit(_) | Job::Exchange { .. } | Job::End => later.push_back(job),
                    job => self.serve(job)?,
                }
            }
        }
        let committed = self.tables.committed();
        Ok(Answer::Done { commit, committed, took: began.elapsed() })
    }

    /// Does something for a reader. An error stops the collector.
    fn serve(&mut self, job: Job) -> Result<(), LakeError> {
        match job {
            Job::Append { table, rows, txn, now, answer } => {
                let appended = self.tables.append(table, &rows, &txn, now).inspect(|new| {
                    if *new {
                        self.lake.publish_appended(table, self.tables.provider(table));
                    }
                });
                reply(table, appended, &answer)
            }
            Job::CommittedVersion { table, app_id, answer } => {
                reply(table, self.tables.committed_version(table, &app_id), &answer)
            }
            Job::Files { table, answer } => {
                drop(answer.send(self.tables.files(table)));
                Ok(())
            }
            Job::Commit(_) | Job::Exchange { .. } | Job::End => Ok(()),
        }
    }

    /// Commits an exchange, and tells the fold; or tells the compactor that nothing came of it. An error stops the collector.
    fn exchange(
        &mut self,
        exchange: Arc<Exchange>,
        now: UnixMicros,
        answer: SyncSender<Exchanged>,
    ) -> Result<Option<Answer>, LakeError> {
        if self.is_between {
            drop(exchange);
            drop(answer.send(Ok(false)));
            return Ok(None);
        }
        let table = exchange.table();
        let exchanged = self.tables.exchange(&exchange, now);
        drop(exchange);
        match exchanged {
            Ok(true) => {
                if table.is_appended_by_readers() {
                    self.lake.publish_appended(table, self.tables.provider(table));
                }
                Ok(Some(Answer::Exchanged { committed: self.tables.committed(), answer }))
            }
            Ok(false) => {
                drop(answer.send(Ok(false)));
                Ok(None)
            }
            Err(error @ LakeError::NoRoom { .. }) => {
                drop(answer.send(Err(error)));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Answers a reader, who may have gone; gives the error that must stop the collector.
fn reply<T>(
    table: Table,
    result: Result<T, LakeError>,
    answer: &SyncSender<Result<T, AppendError>>,
) -> Result<(), LakeError> {
    let (told, fault) = match result {
        Ok(done) => (Ok(done), None),
        Err(LakeError::NoRoom { .. }) => (Err(AppendError::NoRoom { table }), None),
        Err(LakeError::Invalid { reason, .. }) => (Err(AppendError::Invalid { table, reason }), None),
        Err(error @ LakeError::LostTransaction { .. }) => {
            (Err(AppendError::Invalid { table, reason: chain(&error) }), None)
        }
        Err(error) => (Err(AppendError::Stopped { table }), Some(error)),
    };
    drop(answer.send(told));
    fault.map_or(Ok(()), Err)
}
