//! Counts SLOs as rows settle, evaluates them every few seconds, and says what has changed.
//!
//! # Guarantees
//! * An evaluation is exact: it counts every row up to its log position, each once, by the definition in force. It runs no query: settled
//!   rows are in memory by the minute, live rows are counted anew each time.
//! * Every change of an alert's state is committed to the table `alerts` before it is sent (but see below).
//! * A restart goes on from where it was: states and start times come from `alerts`, counts from `slo_1m` and the rows of
//!   `calls` after its cursor. The table `slo_1m` is a cache: without it, everything is counted from `calls`.
//! * Time never goes back: an evaluation is not before the one before it. When the clock was set back, evaluations are stale
//!   until it has caught up. Meanwhile what fires is sent again, and stale telemetry told, by a clock that nobody can set.
//! * Nothing here holds up anybody else for long: appends and the reading of history are on threads of their own, delivery has
//!   queues of its own.
//!
//! # How it works
//! One thread takes settled rows from the feed. The rows up to F are in the rings; the rows after F are live in the
//! view (see [`toolgauge_proto::lake::Feed`]). About once a minute what was counted since the last time is appended to
//! `slo_1m`, with F as the version of the append; never before the rows up to F are committed to `calls`.
//!
//! A new definition is `learning` until its history is counted: a thread reads the committed rows of `calls` up to the F at which it was
//! begun, by date, in bounded parts, while the rows after it are counted as they come. Its rows in `slo_1m` are named by its hash and this F; when
//! it is no longer in force, a row says so, and should it come back it begins anew, since rows were missed. If it replaces one whose
//! history is known, that one answers, with its alerts, until then; over a restart it cannot, as its text is gone.
//!
//! An SLO with groups has a ring for each group. Which groups there are follows from the log alone ([`crate::slo::group`]).
//!
//! A hundred times an hour one minute of one SLO is recounted from `calls` by SQL. A difference is a fault of the program: it is logged and counted
//! (`toolgauge_slo_proof_mismatches_total`).
//!
//! # Failure and recovery
//! An append that finds the disk full is tried until there is room; one that fails otherwise, for three seconds. Changes of alerts that cannot
//! be written down even then are sent all the same, logged and counted: a page that nobody gets is worse than one that a restart may tell
//! again. Counts that cannot are not tried again until the next start, which counts them anew; evaluation goes on. When the history cannot be
//! read, it is tried again a minute later.

pub(crate) mod alerts;
mod append;
mod backfill;
mod days;
mod definition;
pub(crate) mod history;
mod round;
mod statement;
pub(crate) mod telemetry;
mod thread;
pub(crate) mod time;
mod watched;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use toolgauge_analytics::alert::State;
use toolgauge_analytics::ownership::Ownership;
use toolgauge_analytics::sli::Counts;
use toolgauge_analytics::window::Minute;
use toolgauge_proto::lake::Lake;
use toolgauge_proto::time::Clock;

use crate::engine::{Engine, Error};
use crate::notify::Notifier;
use crate::slo::group::GroupKey;
use crate::slo::learned::{Learned, Learner};
use crate::slo::set::{SloSet, Sources};
use crate::tables::Catalog;
pub use days::{Day, days};
pub use round::{At, Backfill, HEARTBEAT_US, HeldBack, STALE_FOR_US, SloStatus, TierStatus};
pub use statement::statement;

/// Requests for series that wait.
const REQUESTS_MAX: usize = 64;

/// Settings of the evaluation.
#[derive(Debug, Clone)]
pub struct EvaluateSettings {
    /// Files and folders of SLOs. Without any, SLOs are learned from the calls ([`crate::slo::learned`]).
    pub slos: Vec<PathBuf>,
    /// Time between two evaluations, and between two looks at the files.
    pub interval: Duration,
    /// Time after which a firing alert is sent again.
    pub resend_delay: Duration,
    /// Time between two appends to `slo_1m`.
    pub flush_interval: Duration,
    /// Time between two minutes of SLOs that are recounted to prove the counts.
    pub proof_interval: Duration,
    /// Longest time that is spent on finding causes, for all alerts together that begin to fire in one evaluation, those that page first.
    /// What has none by then goes out without: when everything fails at once, the last page must not wait for the causes of all others.
    pub findings_timeout: Duration,
    /// Address of the HTTP API as people reach it, for links in alerts.
    pub external_url: String,
    /// Whose the tools are that alerts are about; it may be replaced at any time.
    pub ownership: Arc<ArcSwap<Ownership>>,
}

impl Default for EvaluateSettings {
    fn default() -> Self {
        Self {
            slos: Vec::new(),
            interval: Duration::from_secs(10),
            // As Prometheus has it.
            resend_delay: Duration::from_secs(60),
            flush_interval: Duration::from_secs(60),
            // A hundred an hour.
            proof_interval: Duration::from_secs(36),
            findings_timeout: Duration::from_secs(3),
            external_url: String::new(),
            ownership: Arc::default(),
        }
    }
}

/// An alert that is not inactive.
#[derive(Debug, Clone)]
pub struct AlertStatus {
    /// Hash of its labels.
    pub fingerprint: Arc<str>,
    /// Its labels.
    pub labels: Arc<BTreeMap<String, String>>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its state.
    pub state: State,
}

/// What one evaluation came to.
#[derive(Debug, Clone, Default)]
pub struct Evaluated {
    /// When, and over which rows; `None` before the first.
    pub at: Option<At>,
    /// The files, as they were read last.
    pub set: Arc<SloSet>,
    /// How the SLOs stand, by service, name and group.
    pub slos: Vec<SloStatus>,
    /// The alerts that are not inactive.
    pub alerts: Vec<AlertStatus>,
}

/// What is counted of the evaluation.
#[derive(Debug, Default)]
pub struct EvaluateCounters {
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
    /// Appends that can never be made.
    pub failed_appends: AtomicU64,
    /// Minutes of SLOs that were recounted from `calls`.
    pub proofs: AtomicU64,
    /// Of these, minutes of which the counts were wrong: a fault of the program.
    pub proof_mismatches: AtomicU64,
    /// Slices of time that got another verdict, by rows that came late.
    pub verdicts_turned: AtomicU64,
    /// Changes of alerts that were sent although they could not be written down.
    pub unrecorded_changes: AtomicU64,
    /// Settled events that found no group of their own.
    pub overflowed_events: AtomicU64,
}

/// Counts of an SLO by the minute.
pub type Series = Vec<(Minute, Counts)>;

/// A request for the minutes of a range, both ends included.
#[derive(Debug)]
struct SeriesRequest {
    service: String,
    slo: String,
    group: Option<GroupKey>,
    from: Minute,
    to: Minute,
    answer: tokio::sync::oneshot::Sender<Option<Series>>,
}

#[derive(Debug)]
struct Shared {
    evaluated: ArcSwap<Evaluated>,
    ready: AtomicBool,
    stop: AtomicBool,
    counters: EvaluateCounters,
    notifier: Notifier,
}

/// The evaluation, as others see it.
#[derive(Debug)]
pub struct Evaluator {
    shared: Arc<Shared>,
    requests: SyncSender<SeriesRequest>,
    thread: Mutex<Option<JoinHandle<()>>>,
    learner: Mutex<Option<Learner>>,
}

impl Evaluator {
    /// Starts it. Alerts go to `notifier`.
    ///
    /// # Errors
    /// If the views do not fit the tables, or a thread cannot be started.
    pub async fn start(
        settings: EvaluateSettings,
        lake: Arc<dyn Lake>,
        engine: Arc<Engine>,
        clock: Arc<dyn Clock>,
        notifier: Notifier,
    ) -> Result<Arc<Self>, Error> {
        let catalog = Catalog::new(&engine).await?;
        let shared = Arc::new(Shared {
            evaluated: ArcSwap::default(),
            ready: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            counters: EvaluateCounters::default(),
            notifier,
        });
        let (requests, asked) = sync_channel(REQUESTS_MAX);
        let thread_error = |error| Error::Internal(format!("start the evaluation: {error}"));
        let (sources, learner) = if settings.slos.is_empty() {
            let learned = Arc::new(Learned::default());
            let (lake, engine, clock) = (Arc::clone(&lake), Arc::clone(&engine), Arc::clone(&clock));
            let learner = Learner::start(lake, engine, catalog.clone(), clock, Arc::clone(&learned)).await;
            (Sources::learned(learned), Some(learner.map_err(thread_error)?))
        } else {
            (Sources::new(settings.slos.clone()), None)
        };
        let context = append::Context { lake, engine, catalog, clock, findings_timeout: settings.findings_timeout };
        let thread = thread::start(settings, sources, context, Arc::clone(&shared), asked).map_err(thread_error)?;
        Ok(Arc::new(Self { shared, requests, thread: Mutex::new(Some(thread)), learner: Mutex::new(learner) }))
    }

    /// Whether what was there before the start is counted, and the evaluation goes on.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.ready.load(Ordering::Acquire) && thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// The last evaluation.
    #[must_use]
    pub fn evaluated(&self) -> Arc<Evaluated> {
        self.shared.evaluated.load_full()
    }

    /// The counters.
    #[must_use]
    pub fn counters(&self) -> &EvaluateCounters {
        &self.shared.counters
    }

    /// Where alerts go.
    #[must_use]
    pub fn notifier(&self) -> &Notifier {
        &self.shared.notifier
    }

    /// The counts of an SLO, or of one of its groups, by the minute, both ends included, as far back as its longest window; `None` if there is no
    /// such SLO or group.
    ///
    /// # Errors
    /// If too many requests wait, or the evaluation has ended.
    pub async fn series(
        &self,
        service: &str,
        slo: &str,
        group: Option<GroupKey>,
        from: Minute,
        to: Minute,
    ) -> Result<Option<Series>, Error> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let request = SeriesRequest { service: service.to_owned(), slo: slo.to_owned(), group, from, to, answer };
        let limit = Duration::from_secs(10);
        self.requests.try_send(request).map_err(|error| match error {
            TrySendError::Full(_) => Error::Overloaded(Duration::ZERO),
            TrySendError::Disconnected(_) => Error::Internal("the evaluation has ended".to_owned()),
        })?;
        match tokio::time::timeout(limit, answered).await {
            Ok(Ok(series)) => Ok(series),
            Ok(Err(_)) => Err(Error::Internal("the evaluation has ended".to_owned())),
            Err(_) => Err(Error::Overloaded(limit)),
        }
    }

    /// Ends the evaluation in order: what was counted is written down first. Blocks.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(learner) = self.learner.lock().unwrap_or_else(PoisonError::into_inner).take() {
            learner.stop();
        }
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the evaluation's thread has panicked");
        }
    }
}

#[cfg(test)]
mod tests;
