//! What is written down: changes of alerts, and counts.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use toolgauge_analytics::window::Minute;

use super::Thread;
use crate::evaluate::alerts::Change;
use crate::evaluate::append::{Done, Job, findings};
use crate::evaluate::definition::Past;
use crate::evaluate::history::{COUNTED, RETIRED, SloRows};
use crate::slo::group::NO_GROUP;

/// Longest wait for an append at the end.
const LAST_APPEND: Duration = Duration::from_secs(10);

impl Thread {
    /// Writes down what can be written at the end.
    pub(super) fn finish(mut self) {
        self.last_flush = Instant::now().checked_sub(self.settings.flush_interval).unwrap_or(self.last_flush);
        for _ in 0..3 {
            if let Some(done) = self.appender.wait(LAST_APPEND) {
                self.appended(done);
            }
            self.append();
        }
        if let Some(done) = self.appender.wait(LAST_APPEND) {
            self.appended(done);
        }
        self.appender.stop();
    }

    /// Hands over what is to be written: changes of alerts first.
    pub(super) fn append(&mut self) {
        let view = self.lake.view();
        self.begin_reading(&view);
        if self.appender.is_busy() {
            return;
        }
        if !self.changes.is_empty() {
            return self.appender.begin(Job::Alerts(std::mem::take(&mut self.changes)));
        }
        let is_due = self.last_flush.elapsed() >= self.settings.flush_interval;
        let is_new = self.folded.as_i64() > self.slo_version && self.folded <= view.committed;
        let has_rows = !self.retired.is_empty()
            || self.definitions.iter().any(|definition| {
                let is_pending = || definition.watched.iter().any(|watched| !watched.pending.is_empty());
                definition.past == Past::Known && (definition.untold || is_pending())
            });
        // The cursor moves with the rows of others too, so that a start has few to read; an idle log is left alone.
        if !is_due || !is_new || !(has_rows || self.has_folded) || self.slo_broken {
            return;
        }
        self.has_folded = false;
        let mut rows = SloRows::default();
        let none: Arc<str> = NO_GROUP.into();
        let now = Minute::of(self.time.now());
        for definition in self.definitions.iter_mut().filter(|definition| definition.past == Past::Known) {
            let Some(revision) = definition.revision().map(Arc::new) else { continue };
            if std::mem::take(&mut definition.untold) {
                rows.mark(&revision, COUNTED, now);
            }
            for watched in &mut definition.watched {
                let group = watched.group.as_ref().map_or(&none, |group| group.text());
                watched.pending.drain().for_each(|(minute, counts)| rows.add(&revision, group, minute, counts));
            }
        }
        for revision in std::mem::take(&mut self.retired) {
            rows.mark(&Arc::new(revision), RETIRED, now);
        }
        self.last_flush = Instant::now();
        match rows.batch() {
            Ok(rows) => {
                self.slo_version = self.folded.as_i64();
                self.appender.begin(Job::Slo(rows, self.slo_version));
            }
            Err(error) => {
                tracing::error!(%error, "build rows of slo_1m");
                self.appended(Done::Failed);
            }
        }
    }

    pub(super) fn take_appended(&mut self) {
        if let Some(done) = self.appender.poll() {
            self.appended(done);
        }
    }

    fn appended(&mut self, done: Done) {
        match done {
            Done::Slo => {}
            Done::Alerts(changes) => self.release(&changes),
            Done::Unrecorded(changes) => {
                // A page that nobody gets is worse than one that a restart may tell again.
                self.shared.counters.failed_appends.fetch_add(1, Relaxed);
                self.shared.counters.unrecorded_changes.fetch_add(changes.len() as u64, Relaxed);
                tracing::error!(
                    changes = changes.len(),
                    "changes of alerts cannot be written to the table alerts; they are sent all the same, and a restart will not know of them"
                );
                self.release(&changes);
            }
            // What is not written is counted again after the next start.
            Done::Stopped => {}
            Done::Failed => {
                self.shared.counters.failed_appends.fetch_add(1, Relaxed);
                self.slo_broken = true;
            }
        }
    }

    /// Sends changes of alerts.
    fn release(&mut self, changes: &[Change]) {
        for change in changes {
            self.committed_change = self.committed_change.max(change.number);
            let alert = self.alerts.get_mut(&change.id.fingerprint);
            if let Some(alert) = alert.filter(|alert| alert.change == change.number) {
                alert.findings.extend(findings(change));
            }
        }
        self.deliver();
    }
}
