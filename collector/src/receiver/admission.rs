//! Who may take how much memory, and who sends too much.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use toolgauge_proto::time::UnixMicros;

use super::counters::ReceiverCounters;
use super::status::Fault;

/// The unit of permits in bytes: a semaphore counts in 32 bits.
const UNIT_BYTES: usize = 1024;
/// What a request costs besides its body (task, headers, buffers of its stream), so that a flood of tiny ones is bounded too.
pub(super) const REQUEST_OVERHEAD_BYTES: usize = 8 * 1024;

/// The bytes that all requests in flight may hold together.
#[derive(Debug)]
pub(super) struct Budget {
    semaphore: Arc<Semaphore>,
    counters: Arc<ReceiverCounters>,
    patience: Duration,
}

impl Budget {
    pub(super) fn new(bytes: usize, patience: Duration, counters: Arc<ReceiverCounters>) -> Self {
        Self { semaphore: Arc::new(Semaphore::new(bytes / UNIT_BYTES)), counters, patience }
    }

    /// A grant that holds nothing yet.
    pub(super) fn open(&self) -> Grant {
        Grant {
            semaphore: Arc::clone(&self.semaphore),
            counters: Arc::clone(&self.counters),
            permit: None,
            patience: self.patience,
        }
    }
}

/// One request's share of the [`Budget`]; given back when dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct Grant {
    semaphore: Arc<Semaphore>,
    counters: Arc<ReceiverCounters>,
    permit: Option<OwnedSemaphorePermit>,
    patience: Duration,
}

impl Grant {
    fn units(&self) -> usize {
        self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }

    /// Holds at least this many bytes (the overhead comes on top), waiting for them if need be; all waits of a grant together
    /// last no longer than the admission timeout. The queue is fair: a large request is not starved by small ones.
    pub(super) async fn hold(&mut self, bytes: usize) -> Result<(), Fault> {
        let wanted = (bytes + REQUEST_OVERHEAD_BYTES).div_ceil(UNIT_BYTES);
        let missing = wanted.saturating_sub(self.units());
        if missing == 0 {
            return Ok(());
        }
        let full = || Fault::Overloaded { reason: "too many bytes in flight".to_owned() };
        let began = Instant::now();
        let count = u32::try_from(missing).map_err(|_| full())?;
        let acquired = timeout(self.patience, Arc::clone(&self.semaphore).acquire_many_owned(count)).await;
        self.patience = self.patience.saturating_sub(began.elapsed());
        match acquired {
            Ok(Ok(more)) => {
                self.counters.in_flight_bytes.fetch_add((missing * UNIT_BYTES) as u64, Relaxed);
                match &mut self.permit {
                    Some(permit) => permit.merge(more),
                    None => self.permit = Some(more),
                }
                Ok(())
            }
            Ok(Err(_)) => Err(Fault::Closed { reason: "the receiver is closed".to_owned() }),
            Err(_) => Err(full()),
        }
    }

    /// Gives back what is held beyond this many bytes.
    pub(super) fn keep(&mut self, bytes: usize) {
        let wanted = (bytes + REQUEST_OVERHEAD_BYTES).div_ceil(UNIT_BYTES);
        let spare = self.units().saturating_sub(wanted);
        if let Some(given_back) = self.permit.as_mut().and_then(|permit| permit.split(spare)) {
            self.counters.in_flight_bytes.fetch_sub((spare * UNIT_BYTES) as u64, Relaxed);
            drop(given_back);
        }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.counters.in_flight_bytes.fetch_sub((self.units() * UNIT_BYTES) as u64, Relaxed);
    }
}

/// Tenants whose rate is followed one by one. Beyond that they share one bucket, so that invented names cost no memory.
const TENANTS_MAX: usize = 10_000;

/// A token bucket per tenant, in bytes.
///
/// A request is let through as long as the bucket is not empty, and may leave it in debt: a request larger than a second's
/// worth is slow, but not impossible.
#[derive(Debug)]
pub(super) struct RateLimit {
    bytes_per_second: u64,
    buckets: Mutex<Buckets>,
}

#[derive(Debug, Default)]
struct Buckets {
    own: HashMap<Arc<str>, Bucket>,
    shared: Option<Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// In bytes times a million: exact sums of rate times microseconds.
    tokens: i128,
    at: UnixMicros,
}

impl RateLimit {
    pub(super) fn new(bytes_per_second: NonZeroU64) -> Self {
        Self { bytes_per_second: bytes_per_second.get(), buckets: Mutex::default() }
    }

    fn full(&self) -> i128 {
        i128::from(self.bytes_per_second) * 1_000_000
    }

    fn refilled(&self, bucket: Bucket, now: UnixMicros) -> Bucket {
        let elapsed = i128::from(now.0.saturating_sub(bucket.at.0).max(0));
        Bucket { tokens: (bucket.tokens + elapsed * i128::from(self.bytes_per_second)).min(self.full()), at: now }
    }

    /// Takes `bytes` from the tenant's bucket.
    pub(super) fn take(&self, tenant: &Arc<str>, bytes: usize, now: UnixMicros) -> Result<(), Fault> {
        let fresh = Bucket { tokens: self.full(), at: now };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if !buckets.own.contains_key(tenant) && buckets.own.len() >= TENANTS_MAX {
            // A full bucket is as good as none.
            buckets.own.retain(|_, bucket| self.refilled(*bucket, now).tokens < self.full());
        }
        let Buckets { own, shared } = &mut *buckets;
        let bucket = if own.contains_key(tenant) || own.len() < TENANTS_MAX {
            own.entry(Arc::clone(tenant)).or_insert(fresh)
        } else {
            shared.get_or_insert(fresh)
        };
        *bucket = self.refilled(*bucket, now);
        if bucket.tokens > 0 {
            bucket.tokens -= bytes as i128 * 1_000_000;
            return Ok(());
        }
        let wait = (-bucket.tokens / i128::from(self.bytes_per_second)) + 1;
        Err(Fault::RateLimited {
            tenant: Arc::clone(tenant),
            bytes_per_second: self.bytes_per_second,
            wait: Duration::from_micros(u64::try_from(wait).unwrap_or(u64::MAX)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(bytes: usize) -> (Budget, Arc<ReceiverCounters>) {
        let counters = Arc::new(ReceiverCounters::default());
        (Budget::new(bytes, Duration::from_secs(1), Arc::clone(&counters)), counters)
    }

    #[tokio::test]
    async fn a_grant_grows_shrinks_and_is_given_back_on_drop() {
        let (budget, counters) = budget(100 * 1024);
        let held = || counters.in_flight_bytes.load(Relaxed);
        let mut grant = budget.open();
        grant.hold(10 * 1024).await.expect("fits");
        assert_eq!(held(), 18 * 1024);
        grant.hold(20 * 1024 - 1).await.expect("fits");
        assert_eq!(held(), 28 * 1024);
        grant.hold(1).await.expect("holds it already");
        assert_eq!(held(), 28 * 1024);
        grant.keep(1024);
        assert_eq!((held(), budget.semaphore.available_permits()), (9 * 1024, 91));
        drop(grant);
        assert_eq!((held(), budget.semaphore.available_permits()), (0, 100));
    }

    #[tokio::test]
    async fn all_waits_of_a_grant_share_one_timeout() {
        let (mut budget, _) = budget(100 * 1024);
        budget.patience = Duration::from_millis(50);
        let mut first = budget.open();
        first.hold(80 * 1024).await.expect("fits");
        let mut second = budget.open();
        let began = Instant::now();
        assert!(matches!(second.hold(90 * 1024).await, Err(Fault::Overloaded { .. })));
        assert!(began.elapsed() >= budget.patience);
        assert_eq!(second.patience, Duration::ZERO);
        second.hold(1024).await.expect("what is free needs no patience");
        assert!(second.hold(90 * 1024).await.is_err());
    }

    #[test]
    fn a_tenant_over_its_rate_waits_as_long_as_its_debt_lasts() {
        let limit = RateLimit::new(NonZeroU64::new(1000).expect("not 0"));
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        assert_eq!(limit.take(&a, 3000, UnixMicros(0)), Ok(()));
        let Err(Fault::RateLimited { wait, .. }) = limit.take(&a, 1, UnixMicros(0)) else { panic!("in debt") };
        assert_eq!(wait, Duration::from_micros(2_000_001));
        assert_eq!(limit.take(&b, 1, UnixMicros(0)), Ok(()));
        assert!(limit.take(&a, 1, UnixMicros(2_000_000)).is_err());
        assert_eq!(limit.take(&a, 1, UnixMicros(2_000_001)), Ok(()));
        assert_eq!(limit.take(&a, 1, UnixMicros(1)).is_ok(), limit.take(&a, 1, UnixMicros(2)).is_ok());
    }

    #[test]
    fn more_tenants_than_are_followed_share_one_bucket() {
        let limit = RateLimit::new(NonZeroU64::new(10).expect("not 0"));
        for n in 0..TENANTS_MAX {
            assert_eq!(limit.take(&format!("t{n}").into(), 11, UnixMicros(0)), Ok(()));
        }
        assert_eq!(limit.take(&"x".into(), 11, UnixMicros(0)), Ok(()));
        assert!(limit.take(&"y".into(), 11, UnixMicros(0)).is_err());
        assert_eq!(limit.take(&"y".into(), 11, UnixMicros(10_000_000)), Ok(()));
        assert_eq!(limit.buckets.lock().expect("not poisoned").own.len(), 1);
    }
}
