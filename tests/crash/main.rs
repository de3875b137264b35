//! The log, the fold and the tables through power cuts, full disks and failed syncs.
//!
//! Everything durable lies on `fs::sim::SimFs`, which forgets at a crash what was not synced. The pieces that the
//! collector runs on threads are driven here one after the other, so that a seed gives the same run each time.
//!
//! # The oracle
//! The frames that were durable, applied to one fold that never crashes and never commits. After every recovery and at
//! the end, committed and live rows together are to be exactly its rows: every row once, every column equal. The sums
//! of the derived tables are to be those of a recount of these rows.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod anew;
mod backup;
mod compact;
mod crashes;
mod derived;
mod disk;
mod evaluator;
mod files;
mod machine;
mod recount;
mod reprice;
mod rows;
mod spans;
mod threads;
mod workload;

use std::sync::{Mutex, PoisonError};

/// How many seeded random crashes are tried; the environment variable `TOOLGAUGE_TEST_CRASH_RUNS` sets another number.
fn runs(default: u64) -> u64 {
    std::env::var("TOOLGAUGE_TEST_CRASH_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(default)
}

/// Runs the numbers on all cores, and says on which one it failed.
fn each(numbers: impl Iterator<Item = u64> + Send, run: impl Fn(u64) + Sync) {
    let numbers = Mutex::new(numbers);
    let work = || {
        loop {
            let Some(number) = numbers.lock().unwrap_or_else(PoisonError::into_inner).next() else { return };
            if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(number))) {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
                panic!("seed {number}: {text}");
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
}
