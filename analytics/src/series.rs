//! Which series have a name of their own in `calls_1m`, and which are folded into one of the name `__other__`.
//!
//! # Definition
//! A *series* is what the key of `calls_1m` says of whose and what calls they are: tenant, service, environment, server, tool, agent
//! and model. On each UTC date as many series as the limit says keep their names: **those that came first in the log**. First is the position
//! of the export in which a series has its first row of that date; of those that came in one export, the order of their names decides.
//! Of all others the names that are there become [`OTHER`]; tenant, kind, `counted`, outcome, error class and `final` stay, so that all totals and
//! success ratios stay exact, and only whose they are is lost. What is called [`OTHER`] in all its names counts as no series.
//!
//! # Guarantees
//! * The same rows of `calls` give the same rows of `calls_1m`, in whatever parts they are folded, as long as a part has all rows of an export
//!   or none, and parts follow each other in the log: what is known of a date is what the table has of it.
//! * Memory: 16 bytes for each series of a date that is known.

use std::collections::{BTreeMap, HashSet};
use std::hash::BuildHasher as _;
use std::sync::Arc;

use foldhash::fast::FixedState;

/// The name of everything that has none of its own.
pub const OTHER: &str = "__other__";

/// The columns that name a series: the tenant, and those that are folded.
pub const SERIES: [&str; 7] =
    ["tenant", "service_name", "environment", "tool_server", "tool_name", "agent_name", "model"];

/// The names of a series, in the order of [`SERIES`].
pub type Names<'a> = [Option<&'a str>; SERIES.len()];

/// Series that are not folded, by date. Cheap to clone.
#[derive(Debug, Clone)]
pub struct KnownSeries {
    max: usize,
    dates: BTreeMap<i32, Arc<HashSet<u128>>>,
}

/// What a part of the rows adds to what is known, and what it has that is folded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Admission {
    /// Dates and identities of new series.
    pub admitted: Vec<(i32, u128)>,
    /// Dates and names of series that are folded.
    pub folded: Vec<(i32, [Option<String>; SERIES.len()])>,
    /// Calls that are in those.
    pub folded_calls: u64,
}

/// Whether it is named so that nothing of it can be folded.
#[must_use]
pub fn is_other(names: &Names<'_>) -> bool {
    names.iter().skip(1).flatten().all(|name| *name == OTHER)
}

/// What tells a series from others.
#[must_use]
pub fn identity(names: &Names<'_>) -> u128 {
    let half = |seed: u64| FixedState::with_seed(seed).hash_one(names);
    u128::from(half(1)) << 64 | u128::from(half(2))
}

impl KnownSeries {
    /// Nothing is known yet; so many series of a date keep their names.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, dates: BTreeMap::new() }
    }

    /// Whether it is known which series of a date have names.
    #[must_use]
    pub fn knows(&self, date: i32) -> bool {
        self.dates.contains_key(&date)
    }

    /// Notes that these series of a date have names, and no others.
    pub fn learn(&mut self, date: i32, series: HashSet<u128>) {
        self.dates.insert(date, Arc::new(series));
    }

    /// How many series of a date have names.
    #[must_use]
    pub fn len(&self, date: i32) -> usize {
        self.dates.get(&date).map_or(0, |series| series.len())
    }

    /// The newest date that is known.
    #[must_use]
    pub fn newest(&self) -> Option<i32> {
        self.dates.last_key_value().map(|(date, _)| *date)
    }

    /// Forgets all but so many of the newest dates.
    pub fn keep_newest(&mut self, dates: usize) {
        while self.dates.len() > dates {
            self.dates.pop_first();
        }
    }

    /// From now on, new series of rows that were folded have names.
    pub fn admit(&mut self, admission: &Admission) {
        for (date, series) in &admission.admitted {
            Arc::make_mut(self.dates.entry(*date).or_default()).insert(*series);
        }
    }

    /// Whether a series has a name.
    #[must_use]
    pub fn has(&self, date: i32, series: u128) -> bool {
        self.dates.get(&date).is_some_and(|known| known.contains(&series))
    }

    /// How many more there may be.
    #[must_use]
    pub fn room(&self, date: i32) -> usize {
        self.max.saturating_sub(self.len(date))
    }
}
