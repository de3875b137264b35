//! The time of evaluations, and when alerts are sent.

use std::time::Duration;

use toolgauge_analytics::alert::{RESOLVED_FOR_US, State};
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::time::{Clock, UnixMicros};

use super::At;

/// A time that never goes back. While the clock is behind it, it stands; what passes meanwhile is measured by a clock
/// that nobody can set.
#[derive(Debug)]
pub(crate) struct Time {
    now: UnixMicros,
    /// When the clock was last not behind.
    since: Duration,
}

impl Time {
    /// From the time of the clock on, or that of the log if it is later.
    pub(crate) fn new(clock: &dyn Clock, watermark: UnixMicros) -> Self {
        Self { now: clock.now().max(watermark), since: clock.elapsed() }
    }

    pub(crate) fn now(&self) -> UnixMicros {
        self.now
    }

    /// Goes on with the clock; says when an evaluation over a view is.
    pub(crate) fn advance(&mut self, clock: &dyn Clock, position: WalPosition, watermark: UnixMicros) -> At {
        let (time, elapsed) = (clock.now(), clock.elapsed());
        if time >= self.now {
            (self.now, self.since) = (time, elapsed);
        }
        At {
            time: self.now,
            steady: self.steady(elapsed),
            position,
            watermark,
            clock_behind_us: self.now.max(watermark).0.saturating_sub(time.0),
        }
    }

    fn steady(&self, elapsed: Duration) -> UnixMicros {
        UnixMicros(self.now.0.saturating_add(micros(elapsed.saturating_sub(self.since))))
    }

    /// What is due now.
    pub(crate) fn sending(&self, clock: &dyn Clock, interval: Duration, resend_delay: Duration) -> Sending {
        let elapsed = clock.elapsed();
        // Long enough for two that get lost.
        let lives_us = 4 * micros(interval.max(resend_delay));
        Sending { now: self.steady(elapsed), elapsed, lives_us, resend_delay }
    }
}

/// A moment at which alerts are sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sending {
    now: UnixMicros,
    elapsed: Duration,
    lives_us: i64,
    resend_delay: Duration,
}

impl Sending {
    /// Start and end of an alert that is to be sent now: one that fires or was resolved a short while ago, and was not sent since it
    /// changed or for the delay. `last_sent` is when it was, and becomes now.
    pub(crate) fn due(&self, state: State, last_sent: &mut Option<Duration>) -> Option<(UnixMicros, UnixMicros)> {
        if last_sent.is_some_and(|last| self.elapsed.saturating_sub(last) < self.resend_delay) {
            return None;
        }
        let due = match state {
            State::Firing { starts_at, .. } => (starts_at, UnixMicros(self.now.0.saturating_add(self.lives_us))),
            State::Resolved { starts_at, ends_at } if self.now.0.saturating_sub(ends_at.0) < RESOLVED_FOR_US => {
                (starts_at, ends_at)
            }
            State::Resolved { .. } | State::Pending { .. } | State::Inactive => return None,
        };
        *last_sent = Some(self.elapsed);
        Some(due)
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 8)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

    use toolgauge_proto::time::MINUTE_MICROS;

    use super::*;

    const SECOND: i64 = 1_000_000;
    const RESEND: Duration = Duration::from_secs(60);

    /// A clock that can be set, and one that cannot.
    #[derive(Debug, Default)]
    struct Clocks {
        now: AtomicI64,
        elapsed: AtomicI64,
    }

    impl Clocks {
        fn pass(&self, micros: i64) {
            self.now.fetch_add(micros, Relaxed);
            self.elapsed.fetch_add(micros, Relaxed);
        }
    }

    impl Clock for Clocks {
        fn now(&self) -> UnixMicros {
            UnixMicros(self.now.load(Relaxed))
        }

        fn elapsed(&self) -> Duration {
            Duration::from_micros(self.elapsed.load(Relaxed).unsigned_abs())
        }
    }

    struct Sender {
        clocks: Clocks,
        time: Time,
        last_sent: Option<Duration>,
    }

    impl Sender {
        fn new() -> Self {
            let clocks = Clocks::default();
            clocks.now.store(1_000 * MINUTE_MICROS, Relaxed);
            Self { time: Time::new(&clocks, UnixMicros(0)), clocks, last_sent: None }
        }

        fn at(&mut self) -> At {
            self.time.advance(&self.clocks, WalPosition(1), UnixMicros(0))
        }

        /// The end that is sent now, in seconds after the time at which it was made.
        fn ends(&mut self, state: State) -> Option<i64> {
            self.at();
            let sending = self.time.sending(&self.clocks, Duration::from_secs(10), RESEND);
            let (starts_at, ends_at) = sending.due(state, &mut self.last_sent)?;
            assert_eq!(Some(starts_at), state.starts_at());
            Some((ends_at.0 - 1_000 * MINUTE_MICROS) / SECOND)
        }
    }

    fn firing() -> State {
        State::Firing { starts_at: UnixMicros(1_000 * MINUTE_MICROS), clear_since: None }
    }

    #[test]
    fn what_fires_is_sent_again_after_the_delay_and_not_before() {
        let mut sender = Sender::new();
        assert_eq!(sender.ends(firing()), Some(240));
        assert_eq!(sender.ends(firing()), None);
        sender.clocks.pass(60 * SECOND - 1);
        assert_eq!(sender.ends(firing()), None);
        sender.clocks.pass(1);
        assert_eq!(sender.ends(firing()), Some(300));
        // Rounds that come late do not bring the next one forward.
        sender.clocks.pass(95 * SECOND);
        assert_eq!(sender.ends(firing()), Some(60 + 95 + 240));
        sender.clocks.pass(59 * SECOND);
        assert_eq!(sender.ends(firing()), None);
        // A change is sent at once.
        sender.last_sent = None;
        assert_eq!(sender.ends(firing()), Some(60 + 95 + 59 + 240));
        assert_eq!(sender.ends(State::Pending { since: UnixMicros(0) }), None);
    }

    #[test]
    fn what_was_resolved_is_sent_again_for_fifteen_minutes() {
        let mut sender = Sender::new();
        let at = UnixMicros(1_000 * MINUTE_MICROS);
        let resolved = State::Resolved { starts_at: UnixMicros(at.0 - SECOND), ends_at: at };
        let mut sent = 0;
        for _ in 0..20 * 60 {
            sent += i64::from(sender.ends(resolved) == Some(0));
            sender.clocks.pass(SECOND);
        }
        assert_eq!(sent, 15);
    }

    #[test]
    fn a_clock_that_was_set_back_holds_up_nothing_that_is_sent() {
        let mut sender = Sender::new();
        assert_eq!(sender.ends(firing()), Some(240));
        sender.clocks.now.fetch_sub(3_600 * SECOND, Relaxed);
        assert_eq!(sender.ends(firing()), None);
        for minute in 1..=30 {
            sender.clocks.pass(60 * SECOND);
            assert_eq!(sender.ends(firing()), Some(minute * 60 + 240));
            let at = sender.at();
            assert_eq!((at.time.0, at.steady.0), (1_000 * MINUTE_MICROS, (1_000 + minute) * MINUTE_MICROS));
            assert_eq!(at.clock_behind_us, (60 - minute) * MINUTE_MICROS);
        }
        // Right again.
        sender.clocks.now.fetch_add(3_600 * SECOND, Relaxed);
        sender.clocks.pass(60 * SECOND);
        assert_eq!(sender.ends(firing()), Some(31 * 60 + 240));
        let at = sender.at();
        assert_eq!((at.time, at.clock_behind_us), (at.steady, 0));
    }
}
