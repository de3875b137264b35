//! What a call costs when its producer does not say: price books.
//!
//! A book is a list of entries, from files ([`file`]) and from the table of models that comes with Toolgauge
//! ([`models`]). An entry says to which calls it applies (globs on tool, server, model and provider, and dates) and what a
//! call, a second, a byte or a token of them costs. `docs/accounting.md` is the reference.
//!
//! # Guarantees
//! * The first entry that applies decides, in the order of the files and of the entries in them; the table of models comes last.
//! * A cost that a producer reported is never touched. Rows that do not count, and runs of agents, get no price: their
//!   usage is told again by the rows that count.
//! * A cost is exact until it is rounded, half to even, to 10^-9 dollars, once a row. No floats.
//! * Unknown stays null: without an entry, without a quantity that the entry has a price for, or if the quantities contradict
//!   each other. It is never 0 for unknown.
//!
//! # How it works
//! Prices are integers in units of 10^-18 dollars, quantities are integers; durations are nanoseconds, so that sums are in units of
//! 10^-27 dollars. [`Pricer`] looks an entry up once for each distinct (tool, server, model, provider, date) that it meets and
//! keeps it; rows of a batch are told apart by the codes of their dictionaries.
//!
//! Of `input_tokens`, those read from and written to a cache are parts (OpenTelemetry's semantic conventions), as
//! `reasoning_tokens` are of `output_tokens`: a part with a price of its own costs that, the rest costs the price of the whole.
//! Conventions that count them apart ([`PriceBook::input_excludes_cache`]) are known by their names: their input tokens are
//! the sum of the three.

mod amount;
mod entry;
pub mod file;
mod glob;
mod overlap;
mod pricer;
#[cfg(test)]
mod tests;

use std::sync::{Arc, LazyLock};

pub use entry::{Entry, Per, Usage};
pub use file::{Fault, ParsedFile, Severity, date_text, parse};
pub use pricer::{Call, Pricer};

/// The table of models that comes with Toolgauge, as TOML; `prices/generate.py` has made it.
const MODELS: &str = include_str!("../prices/models.toml");
/// What faults of that table are told of.
const MODELS_NAME: &str = "models.toml (built in)";

/// Entries in the order in which they are tried.
#[derive(Debug, Clone, Default)]
pub struct PriceBook {
    entries: Vec<Entry>,
    input_excludes_cache: Vec<String>,
}

impl PriceBook {
    /// A book of the entries of these files, in this order, and of the table of models after them if that is wanted.
    #[must_use]
    pub fn new(files: impl IntoIterator<Item = Vec<Entry>>, with_models: bool) -> Self {
        let mut entries: Vec<Entry> = files.into_iter().flatten().collect();
        if with_models {
            entries.extend(models().entries.iter().cloned());
        }
        Self { entries, input_excludes_cache: Vec::new() }
    }

    /// Says of which conventions (the column `convention`) `input_tokens` are without those read from and written to a cache.
    #[must_use]
    pub fn input_excludes_cache(self, conventions: &[String]) -> Self {
        Self { input_excludes_cache: conventions.to_vec(), ..self }
    }

    /// Its entries.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry that prices such a call, if any.
    #[must_use]
    pub fn find(&self, call: &Call<'_>) -> Option<&Entry> {
        self.position(call).map(|at| &self.entries[at])
    }

    fn position(&self, call: &Call<'_>) -> Option<usize> {
        self.entries.iter().position(|entry| entry.applies(call))
    }
}

/// The table of models that comes with Toolgauge.
#[must_use]
pub fn models() -> &'static ParsedFile {
    static PARSED: LazyLock<ParsedFile> = LazyLock::new(|| parse(&Arc::from(MODELS_NAME), MODELS));
    &PARSED
}

/// What is wrong with entries together that is not wrong with one alone: which never apply, and which contend for calls.
#[must_use]
pub fn overlaps(entries: &[Entry]) -> Vec<Fault> {
    overlap::overlaps(entries)
}
