//! Minutes of SLOs are recounted from `calls` all the time, a few at random: what is in memory must be what SQL counts.
//!
//! Only settled rows are looked at: those never change, so that any difference is a fault of the program.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::Instant;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use toolgauge_analytics::sli::Counts;
use toolgauge_analytics::window::Minute;

use super::Thread;
use crate::engine::Error;
use crate::evaluate::definition::Past;
use crate::slo::group::{NAMED_MAX, NO_GROUP};
use crate::slo::sql::{Span, recount};

/// Good and bad events.
type Found = Result<(i64, i64), Error>;

/// One minute of one SLO that is being recounted.
struct Check {
    service: String,
    slo: String,
    group: Arc<str>,
    minute: Minute,
    expected: Counts,
    statement: String,
    found: Receiver<Found>,
}

/// What is due, and what is being recounted.
pub(super) struct Proof {
    due: Instant,
    check: Option<Check>,
    random: u64,
    /// Mismatches that were told: each once.
    told: HashSet<(String, String, Arc<str>, Minute)>,
}

/// Most mismatches that are remembered.
const TOLD_MAX: usize = 1_000;

impl Proof {
    pub(super) fn new(seed: i64) -> Self {
        Self { due: Instant::now(), check: None, random: seed.unsigned_abs(), told: HashSet::new() }
    }

    /// A number below `n`, which is not 0 (Splitmix64).
    fn below(&mut self, n: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

impl Thread {
    /// Looks at the minute that was recounted, and begins with the next one.
    pub(super) fn prove(&mut self) {
        if let Some(check) = &self.proof.check {
            let found = match check.found.try_recv() {
                Ok(found) => found,
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => Err(Error::Internal("the thread has ended".to_owned())),
            };
            if let Some(check) = self.proof.check.take() {
                self.judge(&check, found);
            }
        }
        let is_whole = self.folded <= self.lake.view().committed;
        if Instant::now() >= self.proof.due && is_whole {
            self.proof.due = Instant::now() + self.settings.proof_interval;
            self.begin_check();
        }
    }

    fn begin_check(&mut self) {
        let known: Vec<usize> =
            (0..self.definitions.len()).filter(|place| self.definitions[*place].past == Past::Known).collect();
        if known.is_empty() {
            return;
        }
        let place = known[self.proof.below(known.len() as u64) as usize];
        let definition = &mut self.definitions[place];
        definition.tell_other();
        if definition.watched.is_empty() {
            return;
        }
        let watched = &definition.watched[self.proof.below(definition.watched.len() as u64) as usize];
        // A statement cannot name more.
        if watched.group.as_ref().is_some_and(|group| group.others() > NAMED_MAX) {
            return;
        }
        let now = watched.ring.now();
        let Some(longest) = watched.ring.windows().last().map(|window| u64::from(window.minutes())) else { return };
        // One in four at random: also what is missing is wrong.
        let minute = if self.proof.below(4) == 0 {
            Minute(now.0 - self.proof.below(longest).cast_signed())
        } else {
            let minutes: Vec<Minute> =
                watched.ring.minutes(Minute(now.0 - longest.cast_signed())..=now).map(|(minute, _)| minute).collect();
            if minutes.is_empty() {
                return;
            }
            minutes[self.proof.below(minutes.len() as u64) as usize]
        };
        let (from, to) = (minute.start(), Minute(minute.0 + 1).start());
        let span = Span { from, to, position: Some(self.folded) };
        let group = watched.group.as_ref().map_or(String::new(), |group| group.condition(NAMED_MAX));
        let statement = recount(&watched.slo.slo.sli, &span) + &group;
        let (answer, found) = mpsc::sync_channel(1);
        let now = chrono::DateTime::from_timestamp_micros(self.time.now().0).unwrap_or_default();
        let (engine, schema, sql) =
            (Arc::clone(&self.engine), self.catalog.schema(self.lake.view()), statement.clone());
        let work = move || {
            let found = engine.block_on(async {
                let answer = engine.query(schema, now, sql).await?;
                let batch = answer.batches.iter().find(|batch| batch.num_rows() > 0);
                let int = |column: usize| {
                    let column = batch?.column(column).as_primitive_opt::<Int64Type>()?;
                    Some(column.value(0))
                };
                int(0).zip(int(1)).ok_or_else(|| Error::Internal("a recount gave no numbers".to_owned()))
            });
            // Nobody waits for it any more if the evaluation has ended.
            drop(answer.send(found));
        };
        let check = Check {
            service: watched.slo.slo.service.clone(),
            slo: watched.slo.slo.name.clone(),
            group: watched.group.as_ref().map_or(NO_GROUP.into(), |group| Arc::clone(group.text())),
            minute,
            expected: watched.ring.sum_of(minute..=minute),
            statement,
            found,
        };
        match std::thread::Builder::new().name("proof".into()).stack_size(16 << 20).spawn(work) {
            Ok(_) => self.proof.check = Some(check),
            Err(error) => tracing::warn!(%error, "start a thread"),
        }
    }

    fn judge(&mut self, check: &Check, found: Found) {
        let (good, bad) = match found {
            Ok(found) => found,
            // A busy engine is no mismatch.
            Err(error) => return tracing::warn!(error = error.to_string(), "recount a minute of an SLO"),
        };
        let counters = &self.shared.counters;
        counters.proofs.fetch_add(1, Relaxed);
        let is_equal = |counted: u64, found: i64| u64::try_from(found) == Ok(counted);
        if is_equal(check.expected.good, good) && is_equal(check.expected.bad, bad) {
            return;
        }
        counters.proof_mismatches.fetch_add(1, Relaxed);
        let key = (check.service.clone(), check.slo.clone(), Arc::clone(&check.group), check.minute);
        if self.proof.told.len() < TOLD_MAX && self.proof.told.insert(key) {
            tracing::error!(
                service = check.service,
                slo = check.slo,
                group = &*check.group,
                good_counted = check.expected.good,
                bad_counted = check.expected.bad,
                good_recounted = good,
                bad_recounted = bad,
                sql = check.statement,
                "an SLO's counts are not those of its rows: remove the table slo_1m and start anew, and report this"
            );
        }
    }
}
