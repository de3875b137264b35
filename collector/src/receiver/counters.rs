//! What the doors did, in numbers, and the log lines about what they refused.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use toolgauge_proto::time::{MINUTE_MICROS, UnixMicros};

use super::status::{Fault, FaultKind};

const KINDS: usize = FaultKind::ALL.len();

/// Counters of all doors of one [`Receiver`](super::Receiver). They only grow, except where they are called gauges.
#[derive(Debug, Default)]
pub struct ReceiverCounters {
    /// Export calls that began.
    pub requests: AtomicU64,
    /// Export calls answered with success: taken by the sink, empty, or metrics.
    pub accepted: AtomicU64,
    /// Of these, calls with an empty message, which never reach the sink.
    pub empty: AtomicU64,
    /// Export calls that the client gave up before they were answered.
    pub cancelled: AtomicU64,
    /// Bytes of messages as they were sent.
    pub bytes_received: AtomicU64,
    /// Bytes of messages, decompressed, that the sink took.
    pub bytes_accepted: AtomicU64,
    /// Metric data points that were refused.
    pub metric_points_refused: AtomicU64,
    /// Gauge: bytes that requests in flight hold or have reserved.
    pub in_flight_bytes: AtomicU64,
    /// Gauge: open connections.
    pub connections: AtomicU64,
    /// Connections closed at once because there were too many.
    pub connections_refused: AtomicU64,
    /// Connections that could not be accepted, for example for want of file descriptors.
    pub connections_failed: AtomicU64,
    refused: [AtomicU64; KINDS],
}

impl ReceiverCounters {
    /// Export calls refused for this reason.
    pub fn refused(&self, kind: FaultKind) -> u64 {
        self.refused[kind as usize].load(Relaxed)
    }

    /// Counts a refusal; its number among those of its kind.
    pub(super) fn refuse(&self, kind: FaultKind) -> u64 {
        self.refused[kind as usize].fetch_add(1, Relaxed)
    }
}

/// Lets one event of each of `N` sorts through per minute, and counts the others.
#[derive(Debug)]
pub(super) struct OncePerMinute<const N: usize> {
    last: [AtomicI64; N],
    held_back: [AtomicU64; N],
}

impl<const N: usize> OncePerMinute<N> {
    pub(super) fn new() -> Self {
        Self {
            last: std::array::from_fn(|_| AtomicI64::new(i64::MIN)),
            held_back: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// `Some` if this event is to be told: how many were not told since the last one that was.
    pub(super) fn due(&self, sort: usize, now: UnixMicros) -> Option<u64> {
        let last = self.last[sort].load(Relaxed);
        // A clock that was set back must not silence the log, hence the distance in either direction.
        let due = last == i64::MIN || now.0.abs_diff(last) >= MINUTE_MICROS as u64;
        if due && self.last[sort].compare_exchange(last, now.0, Relaxed, Relaxed).is_ok() {
            return Some(self.held_back[sort].swap(0, Relaxed));
        }
        self.held_back[sort].fetch_add(1, Relaxed);
        None
    }
}

/// The log lines about refusals: at most one a minute for each reason.
#[derive(Debug)]
pub(super) struct RefusalLog(OncePerMinute<KINDS>);

impl RefusalLog {
    pub(super) fn new() -> Self {
        Self(OncePerMinute::new())
    }

    pub(super) fn note(&self, fault: &Fault, now: UnixMicros) {
        let kind = fault.kind();
        if let Some(others) = self.0.due(kind as usize, now) {
            let reason = kind.wire().label;
            if kind == FaultKind::Internal {
                tracing::error!(reason, others, %fault, "request refused; others were refused for this reason before");
            } else {
                tracing::warn!(reason, others, %fault, "request refused; others were refused for this reason before");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_told_once_a_minute_with_the_number_of_the_others() {
        let log = OncePerMinute::<2>::new();
        assert_eq!(log.due(0, UnixMicros(5)), Some(0));
        assert_eq!(log.due(0, UnixMicros(6)), None);
        assert_eq!(log.due(1, UnixMicros(6)), Some(0));
        assert_eq!(log.due(0, UnixMicros(MINUTE_MICROS)), None);
        assert_eq!(log.due(0, UnixMicros(5 + MINUTE_MICROS)), Some(2));
        assert_eq!(log.due(0, UnixMicros(6 + MINUTE_MICROS)), None);
    }

    #[test]
    fn a_clock_set_back_does_not_silence_the_log() {
        let log = OncePerMinute::<1>::new();
        assert_eq!(log.due(0, UnixMicros(10 * MINUTE_MICROS)), Some(0));
        assert_eq!(log.due(0, UnixMicros(0)), Some(0));
    }
}
