//! Alerts beside those of SLOs: thresholds, budgets of money, heartbeats.
//!
//! # Guarantees
//! * An evaluation of calls is exact: it sums every row up to its log position, each once, over whole minutes of event time, and compares with
//!   integers. It runs no query. Figures of sessions are asked for by a query, about once a minute, and are as old.
//! * What telemetry cannot tell freezes: see [`toolgauge_analytics::alert`].
//! * Every change of an alert's state is committed to the table `alerts` before it is sent. A restart goes on from there, with the same start times;
//!   sums and heartbeats are read again from `calls` and `calls_1m`.
//! * Groups, alerts, services and tools that are watched, and what waits for the disk, are bounded; what finds no place is counted.
//!
//! # How it works
//! The rules stand in the files of SLOs, and are read with them ([`crate::slo::set`]). One thread takes settled rows from a feed of its own and sums them by
//! minute for each selection of rows that some rule looks at; rules that look at the same share it. The live rows are summed anew each time.
//! A new selection is `learning` until the rows of its window are read from `calls`. A quantile of latencies is not computed to be compared:
//! the `q` quantile reaches a threshold iff more than `n - ceil(q x n)` calls do, and these are counted.
//!
//! # Failure and recovery
//! A history that cannot be read is tried again a minute later. Changes that cannot be written down for good are sent all the same, logged and counted.
//! Where figures of sessions do not come for three minutes, their rules are stale.

mod book;
pub mod definition;
mod heartbeats;
mod said;
mod sessions;
mod sql;
mod state;
mod stream;
mod thread;
mod worker;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use toolgauge_proto::lake::Lake;
use toolgauge_proto::time::Clock;

use crate::engine::{Engine, Error};
use crate::evaluate::{AlertStatus, At, EvaluateSettings, Evaluator};
use crate::tables::Catalog;
pub use book::ALERTS_MAX;
pub use heartbeats::{HeartKey, HeartStatus, KEYS_MAX};
pub(crate) use said::shown;
pub use state::{BudgetStatus, Figures, GroupStatus, SpendingStatus, ThresholdStatus};

/// Rules that ship with Toolgauge: `toolgauge rules preset` prints them.
pub const PRESET: &str = include_str!("rules/preset.yaml");

/// What one evaluation came to.
#[derive(Debug, Clone, Default)]
pub struct Evaluated {
    /// When, and over which rows; `None` before the first.
    pub at: Option<At>,
    /// The figures.
    pub figures: Figures,
    /// The alerts that are not inactive.
    pub alerts: Vec<AlertStatus>,
}

/// What is counted of the evaluation.
#[derive(Debug, Default)]
pub struct RuleCounters {
    /// Evaluations.
    pub rounds: AtomicU64,
    /// Time that they took, in microseconds.
    pub round_micros: AtomicU64,
    /// Evaluations that were due while another one ran.
    pub missed: AtomicU64,
    /// Settled rows that were counted.
    pub rows: AtomicU64,
    /// Changes of state.
    pub changes: AtomicU64,
    /// Changes that were sent although they could not be written down.
    pub unrecorded: AtomicU64,
    /// Alerts that would have begun when there were too many.
    pub overflow: AtomicU64,
}

#[derive(Debug, Default)]
struct Shared {
    evaluated: ArcSwap<Evaluated>,
    stop: AtomicBool,
    counters: RuleCounters,
}

/// The evaluation of rules, as others see it.
#[derive(Debug)]
pub struct Rules {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Rules {
    /// Starts it. Files are those of `evaluator`, and alerts go where its alerts go.
    ///
    /// # Errors
    /// If the views do not fit the tables, or a thread cannot be started.
    pub async fn start(
        settings: EvaluateSettings,
        lake: Arc<dyn Lake>,
        engine: Arc<Engine>,
        clock: Arc<dyn Clock>,
        evaluator: Arc<Evaluator>,
    ) -> Result<Arc<Self>, Error> {
        let catalog = Catalog::new(&engine).await?;
        let shared = Arc::<Shared>::default();
        let asking = worker::Asking { lake, engine, catalog, clock };
        let thread = thread::start(settings, asking, evaluator, Arc::clone(&shared))
            .map_err(|error| Error::Internal(format!("start the evaluation of rules: {error}")))?;
        Ok(Arc::new(Self { shared, thread: Mutex::new(Some(thread)) }))
    }

    /// The last evaluation.
    #[must_use]
    pub fn evaluated(&self) -> Arc<Evaluated> {
        self.shared.evaluated.load_full()
    }

    /// The counters.
    #[must_use]
    pub fn counters(&self) -> &RuleCounters {
        &self.shared.counters
    }

    /// Ends the evaluation in order: what has changed is written down first. Blocks.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of the evaluation of rules has panicked");
        }
    }
}

#[cfg(test)]
mod tests;
