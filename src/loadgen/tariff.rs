//! What calls cost that leave it to the price book, where a fleet does: the book, and the same prices as the ledger knows them.
//!
//! The two say the same independently: nothing here reads the book, so that the ledger can find fault with what does.

use super::fleet::{Model, Tool};

/// The price book of a fleet that leaves some costs to it.
pub(crate) const BOOK: &str = r#"[currency]
EUR = { usd = 1.0842, on = 2026-01-02 }

[[price]]
tool = "read_page"
server = "docs.internal"
per_second = 0.0000123457
note = "billed by the nanosecond, and rounded for each call"

[[price]]
tool = "lookup_*"
per_call = 0.00031
currency = "EUR"

[[price]]
tool = "send_email"
per_call = 9
note = "never applies: the tool says what it costs, and that wins"

[[price]]
model = "small-*"
per_million_input_tokens = 0.25
per_million_cached_input_tokens = 0.0255
per_million_output_tokens = 2
"#;

/// What a call cost, and who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cost {
    pub(crate) nano_usd: u64,
    /// The call does not say it: the book does.
    pub(crate) by_book: bool,
}

impl Cost {
    pub(crate) const fn reported(nano_usd: u64) -> Self {
        Self { nano_usd, by_book: false }
    }

    const fn by_book(nano_usd: u64) -> Self {
        Self { nano_usd, by_book: true }
    }
}

/// `amount / parts`, half to even.
fn rounded(amount: u128, parts: u128) -> u64 {
    let (whole, rest) = (amount / parts, amount % parts);
    let up = rest * 2 > parts || (rest * 2 == parts && whole % 2 == 1);
    (whole + u128::from(up)) as u64
}

/// What the book says of a call of this tool.
pub(crate) fn tool(tool: &Tool, duration_ns: u64) -> Option<Cost> {
    match tool.name {
        // 12,345.7 billionths a second.
        "read_page" => Some(Cost::by_book(rounded(u128::from(duration_ns) * 123_457, 10_000_000_000))),
        // 0.00031 EUR, at 1.0842 USD each.
        "lookup_customer" => Some(Cost::by_book(336_102)),
        _ => None,
    }
}

/// What the book says of a call of this model, if it knows it.
pub(crate) fn model(model: &Model, input: u64, cached: u64, output: u64) -> Option<Cost> {
    let tenths = (input - cached) * 2_500 + cached * 255 + output * 20_000;
    (model.name == "small-1").then(|| Cost::by_book(rounded(tenths.into(), 10)))
}

#[cfg(test)]
mod tests {
    use super::super::fleet::{MODELS, TOOLS};
    use super::*;

    #[test]
    fn costs_are_rounded_half_to_even() {
        let read_page = TOOLS.iter().find(|tool| tool.name == "read_page").expect("there is one");
        // 1 ms costs 12.3457 billionths, 50 ns hardly anything.
        let costs = [1_000_000, 50].map(|ns| tool(read_page, ns));
        assert_eq!(costs, [Some(Cost::by_book(12)), Some(Cost::by_book(0))]);
        assert_eq!([15, 25, 26, 34].map(|tenths| rounded(tenths, 10)), [2, 2, 3, 3]);
        let small = MODELS.iter().find(|model| model.name == "small-1").expect("there is one");
        // 7 at 250, 3 at 25.5 and 2 at 2,000: 5,826.5.
        assert_eq!(model(small, 10, 3, 2), Some(Cost::by_book(5_826)));
    }
}
