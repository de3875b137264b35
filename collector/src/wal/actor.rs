//! The log on a thread of its own: group commit, answers, hand-over.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use toolgauge_proto::id::{WalPosition, WriterId};
use toolgauge_proto::time::{Clock, UnixMicros};

use super::digest::Prepared;
use super::handover::{FrameReceiver, FrameSender, handover};
use super::{Frame, Wal, WalCounters, WalSettings};
use crate::export::{Export, Refusal, Sink};

type Answer = Result<(), Refusal>;

/// Name of the log's thread.
const THREAD_NAME: &str = "wal";
/// How often refusals for lack of room are logged at most.
const WARN_EVERY: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Job {
    prepared: Prepared,
    answer: oneshot::Sender<Answer>,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Of the jobs here and of those that are being synced.
    bytes: usize,
    count: usize,
    forget: Option<(WalPosition, UnixMicros)>,
    /// Nothing is taken any more.
    closed: Option<String>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    settings: WalSettings,
    counters: Arc<WalCounters>,
    writer: WriterId,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self, reason: &str) {
        self.queue().closed.get_or_insert_with(|| reason.to_owned());
        self.changed.notify_all();
    }
}

/// Closes the log when the last handle goes.
#[derive(Debug)]
struct CloseOnDrop(Arc<Shared>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close("the log is no longer used");
    }
}

/// The log as the doors and the pipeline see it. Clones are the same log; when the last one is dropped it closes as by
/// [`WalHandle::close`], but without waiting.
#[derive(Clone, Debug)]
pub struct WalHandle {
    shared: Arc<Shared>,
    _close: Arc<CloseOnDrop>,
}

impl WalHandle {
    /// Starts the thread. Synced frames come out of the receiver, in order; it must be read, since syncs wait for it.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(wal: Wal, clock: Arc<dyn Clock>) -> io::Result<(Self, FrameReceiver)> {
        let settings = wal.settings().clone();
        let (sender, receiver) = handover(settings.handover_bytes);
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            changed: Condvar::new(),
            settings,
            counters: wal.counters(),
            writer: wal.writer(),
            thread: Mutex::default(),
        });
        let actor = Actor { wal, clock, sender, shared: Arc::clone(&shared), last_frame: Instant::now(), warned: None };
        let thread = std::thread::Builder::new().name(THREAD_NAME.to_owned()).spawn(move || actor.run())?;
        *shared.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok((Self { _close: Arc::new(CloseOnDrop(Arc::clone(&shared))), shared }, receiver))
    }

    /// Who writes this log.
    #[must_use]
    pub fn writer(&self) -> WriterId {
        self.shared.writer
    }

    /// Position up to which everything is durable.
    #[must_use]
    pub fn synced(&self) -> WalPosition {
        WalPosition(WalCounters::get(&self.shared.counters.synced_position))
    }

    /// Its figures.
    #[must_use]
    pub fn counters(&self) -> &Arc<WalCounters> {
        &self.shared.counters
    }

    /// Asks for [`Wal::forget`], soon, on the log's thread.
    pub fn forget(&self, up_to: WalPosition, not_younger_than: UnixMicros) {
        let mut queue = self.shared.queue();
        queue.forget = Some((up_to, not_younger_than));
        drop(queue);
        self.shared.changed.notify_all();
    }

    /// Takes nothing more, syncs and answers what has queued up, hands it over, and waits for the thread to end. The
    /// receiver must be read meanwhile, or be dropped. Blocks: not for async code.
    pub fn close(&self) {
        self.shared.close("the log is shutting down");
        let thread = self.shared.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Err(_)) = thread.map(JoinHandle::join) {
            tracing::error!("the log's thread has panicked");
        }
    }

    /// Queues an export; the answer comes after its sync.
    fn submit(&self, export: Export) -> Result<oneshot::Receiver<Answer>, Refusal> {
        let prepared = Prepared::new(export)?;
        let bytes = prepared.bytes();
        let (answer, answered) = oneshot::channel();
        let mut queue = self.shared.queue();
        if let Some(reason) = &queue.closed {
            return Err(Refusal::Closed { reason: reason.clone() });
        }
        // One export always fits into an empty queue.
        let full = queue.count >= self.shared.settings.queue_count
            || (queue.count > 0 && queue.bytes + bytes > self.shared.settings.queue_bytes);
        if full {
            return Err(Refusal::Overloaded { reason: format!("the log's queue holds {} bytes", queue.bytes) });
        }
        queue.bytes += bytes;
        queue.count += 1;
        queue.jobs.push_back(Job { prepared, answer });
        WalCounters::set(&self.shared.counters.queued_bytes, queue.bytes as u64);
        drop(queue);
        self.shared.changed.notify_all();
        Ok(answered)
    }

    fn count_refusal(&self, answer: Answer) -> Answer {
        match &answer {
            Ok(()) => {}
            Err(Refusal::Overloaded { .. }) => WalCounters::add(&self.shared.counters.refused_overloaded, 1),
            Err(Refusal::Closed { .. }) => WalCounters::add(&self.shared.counters.refused_closed, 1),
        }
        answer
    }
}

impl Sink for WalHandle {
    fn append(&self, export: Export) -> impl Future<Output = Answer> + Send {
        // Queued before the first await, so exports of one caller keep their order.
        let submitted = self.submit(export);
        async move {
            let answer = match submitted {
                Ok(answered) => answered
                    .await
                    .unwrap_or_else(|_| Err(Refusal::Closed { reason: "the log's thread ended".to_owned() })),
                Err(refusal) => Err(refusal),
            };
            self.count_refusal(answer)
        }
    }
}

/// What the thread woke up for.
enum Work {
    Group(Vec<Job>),
    Tick,
    Forget(WalPosition, UnixMicros),
    End,
}

struct Actor {
    wal: Wal,
    clock: Arc<dyn Clock>,
    sender: FrameSender,
    shared: Arc<Shared>,
    last_frame: Instant,
    warned: Option<Instant>,
}

impl Drop for Actor {
    /// Also when the thread panics: nobody may wait for it. Answers that are not given are dropped, which is `Closed`.
    fn drop(&mut self) {
        self.shared.close("the log's thread ended");
        self.shared.queue().jobs.clear();
    }
}

impl Actor {
    fn run(mut self) {
        loop {
            let end = match self.next_work() {
                Work::Group(jobs) => self.commit(jobs),
                Work::Tick => self.tick(),
                Work::Forget(up_to, not_younger_than) => self.wal.forget(up_to, not_younger_than),
                Work::End => return,
            };
            if let Err(refusal) = end {
                if self.wal.closed().is_some() {
                    tracing::error!(%refusal, "the log takes nothing more; restart the process");
                    self.refuse_rest(&refusal);
                    return;
                }
                self.warn(&refusal);
            }
        }
    }

    /// Says it once a minute; the counters know how often.
    fn warn(&mut self, refusal: &Refusal) {
        if self.warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            self.warned = Some(Instant::now());
            tracing::warn!(%refusal, "exports are refused");
        }
    }

    fn next_work(&self) -> Work {
        let settings = &self.shared.settings;
        let tick_at = self.last_frame + Duration::from_micros(settings.tick_interval_us);
        let mut queue = self.shared.queue();
        let mut group_until = None;
        loop {
            // Forgetting makes room, so it comes first.
            if let Some((up_to, not_younger_than)) = queue.forget.take() {
                return Work::Forget(up_to, not_younger_than);
            }
            let now = Instant::now();
            let until = if !queue.jobs.is_empty() {
                let wait = Duration::from_micros(settings.group_commit_wait_us);
                let until = *group_until.get_or_insert(now + wait);
                if queue.closed.is_some() || now >= until || queue.bytes >= settings.group_commit_bytes {
                    return Work::Group(take_group(&mut queue.jobs, settings.group_commit_bytes));
                }
                until
            } else if queue.closed.is_some() {
                return Work::End;
            } else if now >= tick_at {
                return Work::Tick;
            } else {
                tick_at
            };
            let timeout = until.saturating_duration_since(now);
            (queue, _) = self.shared.changed.wait_timeout(queue, timeout).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// One group commit: append, sync, answer, hand over, in this order.
    fn commit(&mut self, jobs: Vec<Job>) -> Answer {
        let now = self.clock.now();
        let (bytes, count) = (jobs.iter().map(|job| job.prepared.bytes()).sum::<usize>(), jobs.len());
        let mut answers = Vec::with_capacity(count);
        for job in jobs {
            // `Err` only if the log is closed, and then the sync says so too.
            let staged = self.wal.append_prepared(job.prepared, now).map(drop);
            answers.push((job.answer, staged));
        }
        let synced = self.wal.sync();
        self.release(bytes, count);
        let done = synced.as_ref().map(drop).map_err(Refusal::clone);
        for (answer, staged) in answers {
            // A caller that is gone needs no answer.
            drop(answer.send(staged.and(done.clone())));
        }
        synced.and_then(|frames| self.hand_over(frames))
    }

    fn tick(&mut self) -> Answer {
        // After a refusal the next one is due an interval later.
        self.last_frame = Instant::now();
        self.wal.tick(self.clock.now())?;
        let frames = self.wal.sync()?;
        self.hand_over(frames)
    }

    fn hand_over(&mut self, frames: Vec<Frame>) -> Answer {
        if !frames.is_empty() {
            self.last_frame = Instant::now();
        }
        self.sender.send(frames).map_err(|_| {
            let reason = "the consumer of the log is gone".to_owned();
            self.wal.close(reason.clone());
            Refusal::Closed { reason }
        })
    }

    fn release(&self, bytes: usize, count: usize) {
        let mut queue = self.shared.queue();
        queue.bytes -= bytes;
        queue.count -= count;
        WalCounters::set(&self.shared.counters.queued_bytes, queue.bytes as u64);
    }

    fn refuse_rest(&self, refusal: &Refusal) {
        let mut queue = self.shared.queue();
        queue.closed.get_or_insert_with(|| refusal.to_string());
        for job in queue.jobs.drain(..) {
            drop(job.answer.send(Err(refusal.clone())));
        }
    }
}

/// The first jobs up to so many bytes, at least one.
fn take_group(jobs: &mut VecDeque<Job>, bytes_max: usize) -> Vec<Job> {
    let mut bytes = 0;
    let count = jobs
        .iter()
        .take_while(|job| {
            let fits = bytes == 0 || bytes + job.prepared.bytes() <= bytes_max;
            bytes += job.prepared.bytes();
            fits
        })
        .count();
    jobs.drain(..count).collect()
}
