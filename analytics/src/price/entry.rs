//! One entry of a price book: to which calls it applies, and what they cost.

use std::sync::Arc;

use toolgauge_proto::call::Kind;

use super::amount::{COST_MAX, COST_PLACES, PRICE_PLACES, half_even};
use super::glob::Glob;
use super::pricer::Call;

/// What is paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Per {
    /// A call.
    Call,
    /// A second of its duration.
    Second,
    /// A byte of its arguments.
    InputByte,
    /// A byte of its result.
    OutputByte,
    /// A token that is read, cached ones included unless they have a price of their own.
    InputToken,
    /// A token that is written, those of reasoning included unless they have a price of their own.
    OutputToken,
    /// A token that is read from a cache.
    CachedInputToken,
    /// A token that is read and written to a cache.
    CacheWriteInputToken,
    /// A token of reasoning.
    ReasoningToken,
}

impl Per {
    pub(super) const COUNT: usize = 9;
}

/// Prices in units of 10^-18 dollars, by [`Per`]; `None` where nothing is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rates(pub(super) [Option<i128>; Per::COUNT]);

/// What of a call may have to be paid for; `None` where it is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Duration in nanoseconds.
    pub duration_ns: i64,
    /// Size of the arguments.
    pub input_bytes: Option<i64>,
    /// Size of the result.
    pub output_bytes: Option<i64>,
    /// All tokens read.
    pub input_tokens: Option<i64>,
    /// All tokens written.
    pub output_tokens: Option<i64>,
    /// Those of `input_tokens` that came from a cache; unknown is none.
    pub cached_input_tokens: Option<i64>,
    /// Those of `input_tokens` that were written to a cache; unknown is none.
    pub cache_write_input_tokens: Option<i64>,
    /// Those of `output_tokens` that were spent on reasoning; unknown is none.
    pub reasoning_tokens: Option<i64>,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Entry {
    pub(super) file: Arc<str>,
    pub(super) line: usize,
    /// Tools or models.
    pub(super) kind: Kind,
    /// One of these, if there are any.
    pub(super) tools: Vec<Glob>,
    pub(super) servers: Vec<Glob>,
    pub(super) models: Vec<Glob>,
    pub(super) providers: Vec<Glob>,
    /// Days since 1970-01-01.
    pub(super) from: i32,
    /// Exclusive.
    pub(super) until: i32,
    /// `None`: what it applies to has no price.
    pub(super) rates: Option<Rates>,
    /// Above so many input tokens these hold instead, for all tokens; ascending.
    pub(super) tiers: Vec<(i64, Rates)>,
}

impl Entry {
    /// Where it stands: the file as it was named, and the line.
    #[must_use]
    pub fn place(&self) -> (&str, usize) {
        (&self.file, self.line)
    }

    /// Whether it says what such a call costs.
    #[must_use]
    pub fn applies(&self, call: &Call<'_>) -> bool {
        let one_of = |globs: &[Glob], text: Option<&str>| {
            globs.is_empty() || globs.iter().any(|glob| glob.matches(text.unwrap_or_default()))
        };
        // Names of models and providers are spelled in all cases.
        let lower = |globs: &[Glob], text: Option<&str>| match text {
            Some(text) if !globs.is_empty() && text.chars().any(char::is_uppercase) => {
                one_of(globs, Some(&text.to_lowercase()))
            }
            text => one_of(globs, text),
        };
        self.kind == call.kind
            && (self.from..self.until).contains(&call.date)
            && one_of(&self.tools, call.tool)
            && one_of(&self.servers, call.server)
            && lower(&self.models, call.model)
            && lower(&self.providers, call.provider)
    }

    /// What a call costs, in units of 10^-9 dollars; `None` if that cannot be said.
    #[must_use]
    pub fn cost(&self, usage: &Usage) -> Option<i128> {
        let input = usage.input_tokens.unwrap_or(0);
        let tier = self.tiers.iter().rev().find(|(above, _)| input > *above).map(|(_, rates)| rates);
        tier.or(self.rates.as_ref())?.cost(usage)
    }
}

impl Rates {
    pub(super) fn get(&self, per: Per) -> Option<i128> {
        self.0[per as usize]
    }

    fn cost(&self, usage: &Usage) -> Option<i128> {
        /// Nanoseconds of a second.
        const SECOND: i128 = 1_000_000_000;
        let count = |count: Option<i64>| count.map_or(0, i128::from);
        let (cached, written) = (count(usage.cached_input_tokens), count(usage.cache_write_input_tokens));
        let reasoning = count(usage.reasoning_tokens);
        let (input, output) = (usage.input_tokens.map(i128::from), usage.output_tokens.map(i128::from));
        // Parts that are more than their whole mean that it is not known what was counted.
        if input.is_some_and(|input| cached + written > input) || output.is_some_and(|output| reasoning > output) {
            return None;
        }
        // In units of 10^-27 dollars: a second is 10^9 of its units.
        let mut total = i128::from(usage.duration_ns.max(0)).checked_mul(self.get(Per::Second).unwrap_or(0))?;
        let mut add = |price: i128, quantity: Option<i128>| -> Option<()> {
            // What costs nothing need not be known.
            if price == 0 {
                return Some(());
            }
            let amount = price.checked_mul(quantity?)?.checked_mul(SECOND)?;
            total = total.checked_add(amount)?;
            Some(())
        };
        let mut all = |per: Per, quantity: Option<i128>| add(self.get(per).unwrap_or(0), quantity);
        all(Per::Call, Some(1))?;
        all(Per::InputByte, usage.input_bytes.map(i128::from))?;
        all(Per::OutputByte, usage.output_bytes.map(i128::from))?;
        // A part without a price of its own stays in the rest of its whole.
        let apart = |per: Per, part: i128| if self.get(per).is_some() { part } else { 0 };
        let (cached_apart, written_apart) =
            (apart(Per::CachedInputToken, cached), apart(Per::CacheWriteInputToken, written));
        let reasoning_apart = apart(Per::ReasoningToken, reasoning);
        all(Per::InputToken, input.map(|input| input - cached_apart - written_apart))?;
        all(Per::CachedInputToken, input.map(|_| cached))?;
        all(Per::CacheWriteInputToken, input.map(|_| written))?;
        all(Per::OutputToken, output.map(|output| output - reasoning_apart))?;
        all(Per::ReasoningToken, output.map(|_| reasoning))?;
        let cost = half_even(total, 10_i128.pow(PRICE_PLACES + 9 - COST_PLACES));
        (cost <= COST_MAX).then_some(cost)
    }
}
