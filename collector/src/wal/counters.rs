//! What the log counts.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Running figures of a log since it was opened; read them with [`WalCounters::get`].
        #[derive(Debug, Default)]
        pub struct WalCounters {
            $($(#[$doc])* pub $name: AtomicU64,)*
        }

        impl WalCounters {
            /// Every figure with its name.
            #[must_use]
            pub fn figures(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), Self::get(&self.$name))),*]
            }
        }
    };
}

counters! {
    /// Exports that became durable as a new frame.
    appended,
    /// Bytes of the bodies of these.
    appended_bytes,
    /// Exports that repeated one of the log.
    resends,
    /// Tick frames.
    ticks,
    /// Group commits.
    syncs,
    /// Time spent in their sync calls, in nanoseconds.
    sync_ns,
    /// Exports refused because a queue or the disk was full.
    refused_overloaded,
    /// Exports refused because the log was closed.
    refused_closed,
    /// Bytes that were cut off at open as torn.
    torn_bytes,
    /// Segments deleted because nothing needs them any more.
    segments_forgotten,
    /// Segments deleted for lack of room although the horizon wants them.
    segments_cut,
    /// Digests forgotten for lack of room although the horizon wants them.
    digests_cut,
    /// Gauge: position up to which all is synced.
    synced_position,
    /// Gauge: bytes of all segments.
    bytes,
    /// Gauge: bytes of exports that wait for their sync.
    queued_bytes,
}

impl WalCounters {
    /// The value of a counter.
    #[must_use]
    pub fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }

    pub(super) fn add(counter: &AtomicU64, value: u64) {
        counter.fetch_add(value, Ordering::Relaxed);
    }

    pub(super) fn set(counter: &AtomicU64, value: u64) {
        counter.store(value, Ordering::Relaxed);
    }
}
