//! Counts the history of SLOs that are new, or count something else than before, on a thread of its own.
//!
//! # How it works
//! First the groups of those that have groups are found: the first ones of all rows, which stay. Then, with the rows up to a position of the
//! log pinned, everything is counted by date, the newest first. What was counted is handed on in parts, each of which is in `slo_1m` before it is
//! in memory, so that nothing grows with the history. The thread waits while a part is not taken.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::{Date32Type, Int64Type};
use arrow::error::ArrowError;
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::{col, lit};
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use toolgauge_analytics::sli::Counts;
use toolgauge_analytics::window::Minute;
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::lake::{AppendError, Lake, Txn, View};
use toolgauge_proto::table::Table;

use super::history::{self, COUNTING, Revision, SloRows};
use crate::engine::{Engine, Error};
use crate::slo::counter::{Counter, GroupAt, Tally};
use crate::slo::group::{self, Group, GroupKey, NO_GROUP};
use crate::slo::set::CompiledSlo;

/// Most sums of a part.
const PART_MAX: usize = 100_000;
/// Pause before an append that found no room is tried again.
const NO_ROOM_PAUSE: Duration = Duration::from_secs(1);

/// How far it has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    done: AtomicU64,
    rows: AtomicU64,
    /// Whether the rows are read twice: for the groups, too.
    is_twice: AtomicBool,
}

impl Progress {
    pub(super) fn new(is_twice: bool) -> Arc<Self> {
        Arc::new(Self { is_twice: is_twice.into(), ..Self::default() })
    }

    /// The share of the rows that are read, from 0 to 1.
    pub(super) fn ratio(&self) -> f64 {
        let all = self.rows.load(Ordering::Relaxed) * if self.is_twice.load(Ordering::Relaxed) { 2 } else { 1 };
        if all == 0 { 0.0 } else { (self.done.load(Ordering::Relaxed) as f64 / all as f64).min(1.0) }
    }

    fn add(&self, rows: usize) {
        self.done.fetch_add(rows as u64, Ordering::Relaxed);
    }
}

/// What is needed to read the history.
#[derive(Debug)]
pub(super) struct History {
    pub(super) engine: Arc<Engine>,
    /// Its committed rows are read.
    pub(super) view: Arc<View>,
    pub(super) progress: Arc<Progress>,
    /// Whoever waits for it drops the other end when it no longer does.
    pub(super) wanted: Receiver<()>,
}

/// The first groups of SLOs, in their order.
pub(super) type FirstGroups = Vec<Vec<(WalPosition, GroupKey)>>;

impl History {
    fn calls(&self) -> Arc<dyn TableProvider> {
        Arc::clone(&self.view.table(Table::Calls).committed)
    }

    fn is_wanted(&self) -> bool {
        !matches!(self.wanted.try_recv(), Err(std::sync::mpsc::TryRecvError::Disconnected))
    }

    /// The dates that have rows, the newest first; the progress begins with them.
    async fn dates(&self) -> Result<Vec<i32>, Error> {
        let session = SessionContext::new_with_state(self.engine.template().clone());
        let frame = session.read_table(self.calls())?;
        let mut answer = frame.aggregate(vec![col("date")], vec![count(lit(1_i64))])?.execute_stream().await?;
        let mut dates = Vec::new();
        while let Some(batch) = answer.next().await {
            let batch = batch?;
            let columns = batch.column(0).as_primitive_opt::<Date32Type>();
            let columns = columns.zip(batch.column(1).as_primitive_opt::<Int64Type>());
            let (found, rows) = columns.ok_or_else(|| Error::Internal("the dates of calls are no dates".to_owned()))?;
            dates.extend(found.values().iter().copied().zip(rows.values().iter().copied()));
        }
        let rows: i64 = dates.iter().map(|(_, rows)| rows).sum();
        self.progress.rows.store(rows.unsigned_abs(), Ordering::Relaxed);
        dates.sort_unstable_by_key(|(date, _)| std::cmp::Reverse(*date));
        Ok(dates.into_iter().map(|(date, _)| date).collect())
    }

    /// Finds the groups of SLOs that have groups.
    pub(super) fn groups(&self, slos: &[Arc<CompiledSlo>]) -> Result<FirstGroups, Error> {
        self.engine.block_on(async {
            self.dates().await?;
            let is_wanted = |rows| {
                self.progress.add(rows);
                self.is_wanted()
            };
            history::first_groups(&self.engine, self.calls(), slos, None, is_wanted).await
        })
    }

    /// Counts everything. The last thing that it sends is the end, or why there is none.
    pub(super) fn count(&self, targets: &[Target], lake: &Arc<dyn Lake>, parts: &SyncSender<Result<Part, Error>>) {
        let end = self.count_dates(targets, lake, parts).map(|()| Part::End);
        // Nobody waits for it any more if the evaluation has ended.
        drop(parts.send(end));
    }

    fn count_dates(
        &self,
        targets: &[Target],
        lake: &Arc<dyn Lake>,
        parts: &SyncSender<Result<Part, Error>>,
    ) -> Result<(), Error> {
        let app_id = format!("{}/{}/history", lake.writer(), Table::Slo1m.name());
        let version = lake.committed_version(Table::Slo1m, &app_id).map_err(not_appended)?.map_or(0, |last| last + 1);
        let counter =
            Counter::grouped(targets.iter().map(|target| (target.slo.sli.as_ref(), target.slo.slo.group_columns())))?;
        let columns = counter.columns();
        let mut tally = PartTally {
            history: self,
            targets,
            lake,
            parts,
            txn: Txn { app_id, version },
            sums: HashMap::new(),
            logical: HashMap::new(),
            fed_by: HashMap::new(),
            is_begun: false,
            failed: None,
        };
        let dates = self.engine.block_on(self.dates())?;
        for date in dates {
            let of_date = col("date").eq(lit(ScalarValue::Date32(Some(date))));
            let scanned = history::scan(&self.engine, self.calls(), &columns, Some(of_date), |batch| {
                self.progress.add(batch.num_rows());
                counter.count(batch, None, &mut tally)?;
                if tally.failed.is_none() && self.is_wanted() {
                    Ok(())
                } else {
                    Err(ArrowError::ComputeError("nobody waits for it any more".to_owned()))
                }
            });
            let scanned = self.engine.block_on(scanned);
            tally.hand_on();
            tally.failed.take().map_or(scanned, Err)?;
        }
        Ok(())
    }
}

/// An SLO whose history is counted.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) slo: Arc<CompiledSlo>,
    /// What its rows are called.
    pub(super) revision: Arc<Revision>,
    /// Its groups, with the positions of their first events; all others have none of their own.
    pub(super) groups: HashMap<GroupKey, WalPosition>,
}

/// What was counted.
#[derive(Debug)]
pub(super) enum Part {
    /// Some sums, which are in `slo_1m` now; SLOs by their places in the list.
    Sums {
        /// Of the SLO's group, if it has groups.
        counts: Vec<(usize, Option<GroupKey>, Minute, Counts)>,
        /// The same as logical calls, of SLOs of attempts; these are not in `slo_1m`.
        logical: Vec<(usize, Minute, Counts)>,
        /// The last minute with an event of a service.
        fed_by: Vec<(usize, Option<GroupKey>, String, Minute)>,
    },
    /// Everything was counted.
    End,
}

struct PartTally<'a> {
    history: &'a History,
    targets: &'a [Target],
    lake: &'a Arc<dyn Lake>,
    parts: &'a SyncSender<Result<Part, Error>>,
    /// Of the next append.
    txn: Txn,
    sums: HashMap<(usize, Option<GroupKey>, Minute), Counts>,
    logical: HashMap<(usize, Minute), Counts>,
    fed_by: HashMap<(usize, Option<GroupKey>, String), Minute>,
    /// Whether something was appended.
    is_begun: bool,
    failed: Option<Error>,
}

fn not_appended(error: AppendError) -> Error {
    Error::Internal(error.to_string())
}

impl PartTally<'_> {
    /// The group as it is counted.
    fn group(&self, slo: usize, group: Option<GroupAt<'_>>) -> Option<GroupKey> {
        let (key, _) = group?;
        let is_own = self.targets[slo].groups.contains_key(key);
        Some(if is_own { Arc::clone(key) } else { group::other(key.len()) })
    }

    /// Hands on what is there.
    fn hand_on(&mut self) {
        if (self.sums.is_empty() && self.logical.is_empty() && self.fed_by.is_empty()) || self.failed.is_some() {
            return;
        }
        self.failed = self.try_hand_on().err();
    }

    fn try_hand_on(&mut self) -> Result<(), Error> {
        let counts: Vec<(usize, Option<GroupKey>, Minute, Counts)> =
            self.sums.drain().map(|((slo, group, minute), counts)| (slo, group, minute, counts)).collect();
        let fed_by = self.fed_by.drain().map(|((slo, group, service), minute)| (slo, group, service, minute)).collect();
        let logical = self.logical.drain().map(|((slo, minute), counts)| (slo, minute, counts)).collect();
        let mut rows = SloRows::default();
        if !self.is_begun
            && let Some((_, _, minute, _)) = counts.first()
        {
            self.targets.iter().for_each(|target| rows.mark(&target.revision, COUNTING, *minute));
        }
        let none: Arc<str> = NO_GROUP.into();
        let mut texts: HashMap<(usize, GroupKey), Arc<str>> = HashMap::new();
        for (slo, group, minute, counts) in &counts {
            let target = &self.targets[*slo];
            let text = match group {
                None => &none,
                Some(key) => texts.entry((*slo, Arc::clone(key))).or_insert_with(|| {
                    Arc::clone(Group::new(&target.slo.slo.group_columns().into(), Arc::clone(key)).text())
                }),
            };
            rows.add(&target.revision, text, *minute, *counts);
        }
        let rows = rows.batch().map_err(|error| Error::Internal(error.to_string()))?;
        loop {
            match self.lake.append(Table::Slo1m, vec![rows.clone()], self.txn.clone()) {
                Ok(true) => break,
                Ok(false) => {
                    return Err(Error::Internal(format!("{} is appended by somebody else, too", self.txn.app_id)));
                }
                Err(error @ AppendError::NoRoom { .. }) => {
                    tracing::warn!(%error, "it is tried again");
                    if let Err(RecvTimeoutError::Disconnected) = self.history.wanted.recv_timeout(NO_ROOM_PAUSE) {
                        return Err(not_appended(error));
                    }
                }
                Err(error) => return Err(not_appended(error)),
            }
        }
        self.is_begun = true;
        self.txn.version += 1;
        let ended = |_| Error::Internal("nobody waits for it any more".to_owned());
        self.parts.send(Ok(Part::Sums { counts, logical, fed_by })).map_err(ended)
    }
}

impl Tally for PartTally<'_> {
    fn add(&mut self, slo: usize, group: Option<GroupAt<'_>>, minute: Minute, counts: &Counts) {
        let key = (slo, self.group(slo, group), minute);
        *self.sums.entry(key).or_default() += counts;
        if self.sums.len() >= PART_MAX {
            self.hand_on();
            // What cannot be handed on is not kept, either.
            self.sums.clear();
        }
    }

    fn add_logical(&mut self, slo: usize, minute: Minute, counts: &Counts) {
        *self.logical.entry((slo, minute)).or_default() += counts;
        if self.logical.len() >= PART_MAX {
            self.hand_on();
            self.logical.clear();
        }
    }

    fn fed_by(&mut self, slo: usize, group: Option<GroupAt<'_>>, service: &str, minute: Minute) {
        let key = (slo, self.group(slo, group), service.to_owned());
        let last = self.fed_by.entry(key).or_insert(minute);
        *last = minute.max(*last);
        if self.fed_by.len() >= PART_MAX {
            self.hand_on();
            self.fed_by.clear();
        }
    }

    fn outside(&mut self, slo: usize, group: &GroupKey, minute: Minute, counts: &Counts) {
        if self.targets[slo].groups.contains_key(group) {
            self.add(slo, Some((group, None)), minute, counts);
        }
    }

    fn began(&self, slo: usize, group: &GroupKey) -> Option<WalPosition> {
        self.targets[slo].groups.get(group).copied()
    }
}
