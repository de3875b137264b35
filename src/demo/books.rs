//! The history of a demo without a server, and its books: for tests and benchmarks, which put it into tables by themselves.

use std::fmt;

use bytes::Bytes;
use toolgauge_analytics::price::{self, PriceBook};

use super::check::{Answers, CheckError, Checked};
use super::history::Plan;
use crate::loadgen::ledger::Ledger;
use crate::loadgen::tariff;
use crate::loadgen::traffic::{Export, Manner};

/// The price book of the demo's fleet, which some of its calls leave their costs to.
#[must_use]
pub fn price_book() -> PriceBook {
    PriceBook::new([price::parse(&"prices.toml".into(), tariff::BOOK).entries], false)
}

/// The history of a demo as exports of about so many spans: each as protobuf, with the time at which the last of it ended, in
/// nanoseconds since 1970. Some agents are sampled, and say so; in the demo itself none is.
pub struct History {
    exports: Box<dyn Iterator<Item = (u64, Export)>>,
    ledger: Ledger,
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History").field("calls", &self.ledger.counted()).finish_non_exhaustive()
    }
}

impl History {
    /// About so many calls of tools, models and agents, in the days that end then.
    #[must_use]
    pub fn new(seed: u64, end_ns: u64, days: u64, calls: u64, spans: u64) -> Self {
        let manner = Manner { by_book: true, sampled: true };
        let exports = Plan { seed, end_ns, days, calls, manner }.exports(spans);
        Self { exports: Box::new(exports), ledger: Ledger::of_every_session() }
    }

    /// Compares what a server says with the books of the exports that were taken.
    ///
    /// # Errors
    /// If they differ in a figure.
    pub fn check(&self, answers: Answers) -> Result<Checked, CheckError> {
        answers.check(&self.ledger)
    }
}

impl Iterator for History {
    type Item = (u64, Bytes);

    fn next(&mut self) -> Option<(u64, Bytes)> {
        let (end_ns, export) = self.exports.next()?;
        self.ledger.add_all(&export.facts);
        Some((end_ns, export.body))
    }
}
