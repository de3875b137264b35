//! The days before the demo: made up minute by minute, and sent in the order in which it happened.

use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::DemoError;
use crate::loadgen::fleet::{self, Break, FRAGILE};
use crate::loadgen::ledger::{Ledger, counted};
use crate::loadgen::send::Sender;
use crate::loadgen::traffic::{Batch, Export, Manner, Scenario, Traffic};
use crate::screen::Bar;

const MINUTE_NS: u64 = 60_000_000_000;
const HOUR_NS: u64 = 60 * MINUTE_NS;
const DAY_NS: u64 = 24 * HOUR_NS;
/// Spans of an export: as large as the collectors of busy services send.
const BATCH_SPANS: u64 = 2048;
/// Exports that wait to be sent: enough that neither side waits for the other.
const QUEUE: usize = 8;
/// Exports in flight: the log syncs them together.
const CONNECTIONS: usize = 4;
/// Runs that are made up to know how many calls one has.
const SAMPLE_RUNS: u64 = 2000;
/// No run lasts longer; the last ones begin so long before the end of the history.
const RUN_NS_MAX: u64 = 2 * MINUTE_NS;

/// The history that is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) end_ns: u64,
    pub(crate) days: u64,
    /// About so many, of tools, models and agents.
    pub(crate) calls: u64,
    pub(crate) manner: Manner,
}

impl Plan {
    pub(crate) fn start_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.days * DAY_NS)
    }

    /// In the afternoon, eleven days before the end or so, one tool fails now and then for 90 minutes.
    pub(crate) fn incident(&self) -> Break {
        let day = (self.end_ns - (self.days * DAY_NS * 11 / 30)) / DAY_NS;
        let from_ns = day * DAY_NS + 14 * HOUR_NS;
        Break { tool: FRAGILE, from_ns, to_ns: from_ns + 90 * MINUTE_NS, failure: 3, share_ppm: 120_000 }
    }

    pub(crate) fn traffic(&self) -> Traffic {
        Traffic::new(self.seed, self.end_ns, Scenario::Fleet, vec![self.incident()]).in_manner(self.manner)
    }

    /// The exports, each with the time at which the last of it ended.
    pub(crate) fn exports(self, spans: u64) -> impl Iterator<Item = (u64, Export)> {
        let (mut traffic, mut runs) = (self.traffic(), self.runs());
        std::iter::from_fn(move || {
            let (mut batch, mut end_ns) = (Batch::default(), 0);
            for start_ns in runs.by_ref() {
                let run = traffic.run(start_ns);
                end_ns = end_ns.max(run.end_ns);
                batch.push(run);
                if batch.span_count >= spans {
                    break;
                }
            }
            Some((end_ns, batch.take()?))
        })
    }

    /// Begins of runs, in order.
    fn runs(&self) -> impl Iterator<Item = u64> + use<> {
        let mut sample = self.traffic();
        let calls: u64 = (0..SAMPLE_RUNS).map(|_| counted(&sample.run(self.start_ns()).facts)).sum();
        let runs = u128::from(self.calls) * u128::from(SAMPLE_RUNS) / u128::from(calls.max(1));
        let (start, end) = (self.start_ns(), self.end_ns.saturating_sub(RUN_NS_MAX));
        let minutes = (end - start) / MINUTE_NS;
        let minute = move |number: u64| start + number * MINUTE_NS;
        let busy: u128 = (0..minutes).map(|number| u128::from(fleet::busy(minute(number)))).sum();
        let mut so_far = 0_u128;
        (0..minutes).flat_map(move |number| {
            let before = so_far * runs / busy.max(1);
            so_far += u128::from(fleet::busy(minute(number)));
            let here = (so_far * runs / busy.max(1) - before) as u64;
            (0..here).map(move |nth| minute(number) + nth * MINUTE_NS / here)
        })
    }
}

/// Makes up the history and sends it; gives the traffic, which goes on from there, and the ledger of what was acknowledged.
pub(crate) async fn send(plan: &Plan, sender: &Sender, progress: Arc<Bar>) -> Result<(Traffic, Ledger), DemoError> {
    let (exports, waiting) = mpsc::channel::<Export>(QUEUE);
    let waiting = Arc::new(Mutex::new(waiting));
    let mut senders = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (mut sender, waiting, progress) = (sender.clone(), Arc::clone(&waiting), Arc::clone(&progress));
        senders.spawn(async move {
            let mut ledger = Ledger::default();
            loop {
                let export = waiting.lock().await.recv().await;
                let Some(export) = export else { return Ok::<_, DemoError>(ledger) };
                sender.deliver(export.body).await?;
                ledger.add_all(&export.facts);
                progress.advance(counted(&export.facts));
            }
        });
    }
    let plan = plan.clone();
    // Making it up is work for a thread of its own.
    let made = tokio::task::spawn_blocking(move || {
        let (mut traffic, mut batch) = (plan.traffic(), Batch::default());
        for start_ns in plan.runs() {
            batch.push(traffic.run(start_ns));
            if batch.span_count >= BATCH_SPANS
                && let Some(export) = batch.take()
                && exports.blocking_send(export).is_err()
            {
                // The senders have failed, and say why.
                return traffic;
            }
        }
        if let Some(export) = batch.take() {
            let _senders_say_why = exports.blocking_send(export);
        }
        traffic
    });
    let mut ledger = Ledger::default();
    while let Some(ended) = senders.join_next().await {
        // The first failure ends all: what is dropped here is aborted.
        ledger.merge(ended??);
    }
    drop(waiting);
    Ok((made.await?, ledger))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_has_about_the_calls_that_are_asked_for_in_order_and_before_its_end() {
        let plan =
            Plan { seed: 1, end_ns: 1_795_233_600_000_000_000, days: 30, calls: 50_000, manner: Manner::default() };
        let (mut traffic, mut ledger, mut last) = (plan.traffic(), Ledger::default(), 0);
        for start_ns in plan.runs() {
            assert!((plan.start_ns()..plan.end_ns).contains(&start_ns) && start_ns >= last);
            last = start_ns;
            let run = traffic.run(start_ns);
            assert!(run.end_ns < plan.end_ns, "a run of {} s", (run.end_ns - start_ns) / 1_000_000_000);
            ledger.add_all(&run.facts);
        }
        assert!((47_500..52_500).contains(&ledger.counted()), "{}", ledger.counted());
        let days: std::collections::BTreeSet<u64> = ledger.tools.keys().map(|(day, _)| *day).collect();
        assert!((30..=31).contains(&days.len()));
    }
}
