use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Date32Array, Decimal128Array, Int64Array, RecordBatch, StringArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Field, Schema};
use proptest::prelude::*;
use toolgauge_proto::call::Kind;

use super::*;

const DAY: i32 = 20_600;

fn file(text: &str) -> ParsedFile {
    parse(&Arc::from("prices.toml"), text)
}

fn book(text: &str) -> PriceBook {
    let file = file(text);
    assert_eq!(file.faults, [], "{text}");
    PriceBook::new([file.entries], false)
}

fn faults(text: &str) -> Vec<String> {
    file(text).faults.iter().map(ToString::to_string).collect()
}

fn tool(name: &str) -> Call<'_> {
    Call { kind: Kind::Tool, tool: Some(name), server: None, model: None, provider: None, date: DAY }
}

fn model<'a>(name: &'a str, provider: Option<&'a str>, date: i32) -> Call<'a> {
    Call { kind: Kind::Model, tool: None, server: None, model: Some(name), provider, date }
}

fn tokens(input: i64, cached: i64, written: i64, output: i64) -> Usage {
    let part = |count: i64| (count > 0).then_some(count);
    Usage {
        input_tokens: Some(input),
        output_tokens: Some(output),
        cached_input_tokens: part(cached),
        cache_write_input_tokens: part(written),
        ..Usage::default()
    }
}

fn date(text: &str) -> i32 {
    let part = |range: std::ops::Range<usize>| text[range].parse::<u16>().unwrap_or_else(|_| panic!("{text}"));
    file::days_of(part(0..4), part(5..7) as u8, part(8..10) as u8)
}

#[test]
fn dates_are_those_of_the_calendar() {
    for (text, days) in [("1970-01-01", 0), ("1969-12-31", -1), ("2000-02-29", 11_016), ("2026-11-21", 20_778)] {
        assert_eq!((date(text), &*file::date_text(days)), (days, text));
    }
    assert!((-700_000..2_000_000).step_by(997).all(|days| date(&file::date_text(days)) == days));
}

#[test]
fn the_table_of_models_says_what_its_source_computes() {
    assert_eq!(models().faults, []);
    let book = PriceBook::new([], true);
    let mut checked = 0;
    for line in include_str!("../../prices/models_check.csv").lines() {
        let fields: Vec<&str> = line.split(',').collect();
        let [provider, name, day, input, cached, written, output, cost] = fields[..] else { panic!("{line}") };
        let number = |text: &str| text.parse::<i64>().unwrap_or_else(|_| panic!("{line}"));
        let usage = tokens(number(input), number(cached), number(written), number(output));
        let entry = book.find(&model(name, Some(provider), date(day))).unwrap_or_else(|| panic!("{line}"));
        assert_eq!(entry.cost(&usage), Some(i128::from(number(cost))), "{line}: {entry:?}");
        checked += 1;
    }
    assert!(checked > 1_500);
}

#[test]
fn models_are_found_by_any_provider_that_is_known_to_serve_them() {
    let book = PriceBook::new([], true);
    let cost = |name, provider| book.find(&model(name, provider, DAY))?.cost(&tokens(1_000_000, 0, 0, 0));
    let mini = Some(150_000_000);
    assert_eq!(cost("gpt-4o-mini", Some("openai")), mini);
    assert_eq!(cost("GPT-4o-mini-2024-07-18", Some("OpenAI")), mini);
    assert_eq!(cost("gpt-4o-mini", Some("azure.ai.openai")), mini);
    assert_eq!(cost("gpt-4o-mini", None), mini);
    assert_eq!(cost("gpt-4o-mini", Some("autogen")), mini);
    // Who serves it on a machine of their own pays something else.
    assert_eq!(cost("gpt-4o-mini", Some("ollama")), None);
    assert_eq!(cost("large-1", None), None);
}

#[test]
fn what_is_paid_for_adds_up_and_is_rounded_once() {
    let book = book(
        "[[price]]\ntool = \"a\"\nper_call = 0.002\nper_second = 0.000001\nper_input_byte = 1e-12\nper_output_byte = \"0.0000000005\"\n",
    );
    let entry = book.find(&tool("a")).unwrap();
    let usage = Usage { duration_ns: 1_500_000, input_bytes: Some(2_000), output_bytes: Some(3), ..Usage::default() };
    // 2,000,000 + 1.5 + 2 + 1.5 nano-dollars.
    assert_eq!(entry.cost(&usage), Some(2_000_005));
    // 2,000,000 + 1.5 + 2 + 0.5: a half, rounded to the even neighbour.
    assert_eq!(entry.cost(&Usage { output_bytes: Some(1), ..usage }), Some(2_000_004));
    assert_eq!(entry.cost(&Usage { duration_ns: 500_000, output_bytes: Some(0), ..usage }), Some(2_000_002));
    // What is paid for and not known makes the whole unknown.
    assert_eq!(entry.cost(&Usage { output_bytes: None, ..usage }), None);
}

#[test]
fn parts_of_tokens_cost_their_own_price_and_the_rest_that_of_the_whole() {
    let text = "[[price]]\nmodel = \"m\"\nper_million_input_tokens = 10\nper_million_cached_input_tokens = 1\n\
        per_million_cache_write_input_tokens = 12.5\nper_million_output_tokens = 50\nper_million_reasoning_tokens = 40\n";
    let all = book(text);
    let cost = |usage: &Usage| all.entries()[0].cost(usage);
    // 700 x 10 + 200 x 1 + 100 x 12.5 + 500 x 50, in micro-dollars.
    assert_eq!(cost(&tokens(1_000, 200, 100, 500)), Some(33_450_000));
    let reasoning = Usage { reasoning_tokens: Some(400), ..tokens(1_000, 0, 0, 500) };
    assert_eq!(cost(&reasoning), Some(10_000_000 + 100 * 50_000 + 400 * 40_000));
    assert_eq!(cost(&Usage { reasoning_tokens: Some(501), ..reasoning }), None);
    assert_eq!(cost(&tokens(300, 200, 101, 0)), None, "the parts are more than the whole");
    assert_eq!(cost(&Usage { output_tokens: None, ..tokens(1, 0, 0, 0) }), None);
    assert_eq!(cost(&Usage::default()), None);
    let plain = book("[[price]]\nmodel = \"m\"\nper_million_input_tokens = 10\nper_million_output_tokens = 0\n");
    assert_eq!(plain.entries()[0].cost(&tokens(1_000, 200, 100, 500)), Some(10_000_000));
    assert_eq!(plain.entries()[0].cost(&Usage { output_tokens: None, ..tokens(5, 0, 0, 0) }), Some(50_000));
}

#[test]
fn above_a_tier_all_tokens_cost_its_prices() {
    let book = book(
        "[[price]]\nmodel = \"m\"\nper_million_input_tokens = 1\nper_million_output_tokens = 2\n\
         tiers = [{ above_input_tokens = 100, per_million_input_tokens = 3 }, { above_input_tokens = 200, per_million_output_tokens = 7 }]\n",
    );
    let cost = |input| book.entries()[0].cost(&tokens(input, 0, 0, 10)).unwrap();
    assert_eq!([100, 101, 200, 201].map(cost), [120_000, 323_000, 620_000, 201 * 1_000 + 70_000]);
}

#[test]
fn amounts_that_no_column_holds_are_unknown() {
    let book = book("[[price]]\ntool = \"*\"\nper_call = 999999999.999999999\nper_second = 999999999\n");
    let cost = |duration_ns| book.entries()[0].cost(&Usage { duration_ns, ..Usage::default() });
    assert_eq!(cost(0), Some(999_999_999_999_999_999));
    assert_eq!(cost(1_000_000_000), None);
    assert_eq!(cost(i64::MAX), None);
}

#[test]
fn the_first_entry_that_applies_decides() {
    let book = book(
        "[currency]\nEUR = { usd = 1.25, on = 2026-05-01 }\n\
         [[price]]\ntool = \"search_docs\"\nserver = \"beta\"\nunpriced = true\n\
         [[price]]\ntool = [\"search_*\", \"find\"]\nfrom = 2026-01-01\nuntil = 2026-07-01\nper_call = 0.1\ncurrency = \"EUR\"\n\
         [[price]]\ntool = \"search_*\"\nuntil = 2026-01-01\nper_call = 0.3\n\
         [[price]]\nserver = \"*\"\nmodel = \"large*\"\nper_call = 0.7\n\
         [[price]]\nmodel = \"*\"\nprovider = [\"acme\", \"\"]\nper_call = 0.9\n",
    );
    let cost = |call: Call<'_>| book.find(&call).map(|entry| entry.cost(&Usage::default()));
    let at = |day: &str, call| Call { date: date(day), ..call };
    assert_eq!(cost(at("2025-12-31", tool("search_docs"))), Some(Some(300_000_000)));
    assert_eq!(cost(at("2026-01-01", tool("search_docs"))), Some(Some(125_000_000)));
    assert_eq!(cost(at("2026-06-30", tool("find"))), Some(Some(125_000_000)));
    assert_eq!(cost(at("2026-07-01", tool("find"))), None);
    assert_eq!(cost(Call { server: Some("beta"), ..tool("search_docs") }), Some(None));
    assert_eq!(cost(Call { model: Some("Large-2"), ..tool("other") }), Some(Some(700_000_000)));
    assert_eq!(cost(Call { kind: Kind::Model, ..tool("search_docs") }), Some(Some(900_000_000)));
    assert_eq!(cost(model("x", Some("ACME"), DAY)), Some(Some(900_000_000)));
    assert_eq!(cost(model("x", Some("other"), DAY)), None);
}

#[test]
fn faults_say_where_and_what_to_write() {
    for (text, expect) in [
        ("[[price]]\ntool = \"a\"\nper_cal = 1\n", "prices.toml:3:1: error: `per_cal`: is unknown (there are `tool`, "),
        (
            "[[price]]\nper_call = 1\n",
            "prices.toml:1:1: error: `price`: does not say of what (add `tool`, `server` or `model`; \"*\" is all of them)",
        ),
        (
            "[[price]]\ntool = \"a\"\n",
            "prices.toml:1:1: error: `price`: has no price (add one such as `per_call`, or `unpriced = true`)",
        ),
        (
            "[[price]]\ntool = \"a\"\nper_call = 1\nunpriced = true\n",
            "prices.toml:1:1: error: `unpriced`: stands beside a price (remove one of them)",
        ),
        (
            "[[price]]\ntool = \"a\"\nper_call = -1\n",
            "prices.toml:3:12: error: `per_call`: must be a decimal of 0 or more with at most 18 digits after the point, got -1",
        ),
        (
            "[[price]]\ntool = \"a\"\nper_million_input_tokens = 0.0000000000001\n",
            "prices.toml:3:28: error: `per_million_input_tokens`: must be a decimal of 0 or more with at most 12 digits after the point, got 0.0000000000001",
        ),
        (
            "[[price]]\ntool = \"a\"\nper_call = true\n",
            "prices.toml:3:12: error: `per_call`: must be a decimal of 0 or more with at most 18 digits after the point, got true",
        ),
        (
            "[[price]]\ntool = \"a[\"\nper_call = 1\n",
            "prices.toml:2:8: error: `tool`: \"a[\" has a `[` that does not hold characters or ranges (write like \"[0-9]\", or `?`)",
        ),
        (
            "[[price]]\ntool = 5\nper_call = 1\n",
            "prices.toml:2:8: error: `tool`: must be a name or a pattern, or a list of them, got 5",
        ),
        (
            "[[price]]\ntool = \"a\"\nper_call = 1\ncurrency = \"EUR\"\n",
            "prices.toml:4:12: error: `currency`: there is no rate for \"EUR\" (there are USD; add one like [currency] EUR = { usd = 1.08, on = 2026-11-20 })",
        ),
        (
            "[currency]\nEUR = { usd = 0 }\n",
            "prices.toml:2:15: error: `currency.EUR`: `usd` must be how many dollars one EUR is, above 0 and with at most 12 digits after the point, got 0",
        ),
        (
            "[currency]\nEUR = { usd = 1.08 }\n[[price]]\ntool = \"a\"\nper_call = 1\ncurrency = \"EUR\"\n",
            "prices.toml:2:7: error: `currency.EUR`: does not say of which day (write like { usd = 1.08, on = 2026-11-20 })",
        ),
        (
            "[currency]\nEUR = { usd = 1.08, on = \"yesterday\" }\n",
            "prices.toml:2:26: error: `currency.EUR.on`: must be a date such as 2026-01-31 (UTC), got \"yesterday\"",
        ),
        (
            "[currency]\nEUR = 1.08\n",
            "prices.toml:2:7: error: `currency.EUR`: must be a table (write like { usd = 1.08, on = 2026-11-20 })",
        ),
        (
            "[[price]]\ntool = \"a\"\nper_call = 1\nfrom = 2026-02-01\nuntil = 2026-02-01\n",
            "prices.toml:1:1: error: `until`: must be later than `from`; it is the first day on which the price is no longer in force",
        ),
        (
            "[[price]]\ntool = \"a\"\nper_call = 1\nfrom = \"soon\"\n",
            "prices.toml:4:8: error: `from`: must be a date such as 2026-01-31 (UTC), got \"soon\"",
        ),
        (
            "[[price]]\nmodel = \"a\"\nper_call = 1\ntiers = [{ per_call = 2 }]\n",
            "prices.toml:4:10: error: `tiers`: does not say from where (add `above_input_tokens`)",
        ),
        ("[[prices]]\n", "prices.toml:1:3: error: `prices`: is unknown here (there are `price` and `currency`)"),
        ("[[price]\n", "prices.toml:1:"),
        ("price = 1\n", "prices.toml:1:9: error: `price`: must be a list (begin each price with [[price]])"),
    ] {
        let found = faults(text);
        assert!(found.len() == 1 && found[0].starts_with(expect), "{text}\n{found:#?}\n{expect}");
        assert!(file(text).is_broken());
    }
}

#[test]
fn prices_that_contend_for_calls_are_told() {
    let told = |text: &str| overlaps(&file(text).entries).iter().map(ToString::to_string).collect::<Vec<_>>();
    let price = |what: &str| format!("[[price]]\nper_call = 1\n{what}\n");
    let of = |parts: &[&str]| parts.iter().map(|part| price(part)).collect::<String>();
    assert_eq!(
        told(&of(&["tool = \"*\"", "tool = \"a\""])),
        [
            "prices.toml:4:1: warning: `price`: never applies: the price at prices.toml:1 comes first and takes all of its calls \
          (move it before that one, or remove it)"
        ]
    );
    assert_eq!(
        told(&of(&["tool = \"a\"\nuntil = 2026-03-01", "tool = \"a\"\nfrom = 2026-02-01"])),
        [
            "prices.toml:5:1: warning: `price`: the price at prices.toml:1 has a price for the same calls from 2026-02-01 until \
          2026-03-01; that one applies (let one end where the other begins)"
        ]
    );
    assert_eq!(
        told(&of(&["tool = \"search_*\"", "tool = \"*_docs\""])),
        [
            "prices.toml:4:1: warning: `price`: some calls fit the price at prices.toml:1 as well; that one comes first and applies \
          (say which one is meant)"
        ]
    );
    for fine in [
        &["tool = \"a\"", "tool = \"*\""][..],
        &["tool = \"a\"", "model = \"a\""],
        &["tool = \"a\"\nuntil = 2026-02-01", "tool = \"a\"\nfrom = 2026-02-01"],
        &["tool = \"a\"\nserver = \"x\"", "tool = \"a\"\nserver = \"y\"", "tool = \"a\""],
    ] {
        assert_eq!(told(&of(fine)), [""; 0], "{fine:?}");
    }
}

#[derive(Debug, Clone)]
struct Row {
    kind: &'static str,
    tool: Option<&'static str>,
    model: Option<&'static str>,
    date: i32,
    counted: bool,
    usage: Usage,
    cost: Option<(i128, &'static str)>,
}

fn rows_of(rows: &[Row]) -> RecordBatch {
    let text = |value: &dyn Fn(&Row) -> Option<&'static str>| -> ArrayRef {
        Arc::new(rows.iter().map(value).collect::<StringArray>())
    };
    let long =
        |value: &dyn Fn(&Row) -> Option<i64>| -> ArrayRef { Arc::new(rows.iter().map(value).collect::<Int64Array>()) };
    let costs = rows.iter().map(|row| row.cost.map(|(cost, _)| cost)).collect::<Decimal128Array>();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("date", Arc::new(Date32Array::from_iter_values(rows.iter().map(|row| row.date)))),
        ("kind", text(&|row| Some(row.kind))),
        ("tool_name", text(&|row| row.tool)),
        ("model", text(&|row| row.model)),
        ("counted", Arc::new(rows.iter().map(|row| Some(row.counted)).collect::<BooleanArray>())),
        ("duration_ns", long(&|row| Some(row.usage.duration_ns))),
        ("input_tokens", long(&|row| row.usage.input_tokens)),
        ("output_tokens", long(&|row| row.usage.output_tokens)),
        ("cost_usd", Arc::new(costs.with_precision_and_scale(18, 9).unwrap())),
        ("cost_source", text(&|row| row.cost.map(|(_, source)| source))),
    ];
    let fields: Vec<Field> =
        columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, column)| column).collect())
        .unwrap()
}

/// With dictionaries instead of texts, as live rows have them.
fn live(rows: &RecordBatch) -> RecordBatch {
    let dictionary = DataType::Dictionary(Box::new(DataType::UInt16), Box::new(DataType::Utf8));
    let columns: Vec<ArrayRef> = rows
        .columns()
        .iter()
        .map(|column| match column.data_type() {
            DataType::Utf8 => cast(column, &dictionary).unwrap(),
            _ => Arc::clone(column),
        })
        .collect();
    let schema = rows.schema();
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .zip(&columns)
        .map(|(field, column)| Field::new(field.name(), column.data_type().clone(), true))
        .collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn costs_of(rows: &RecordBatch) -> Vec<Option<(i128, String)>> {
    let costs = rows["cost_usd"].as_primitive::<Decimal128Type>();
    let sources = cast(&rows["cost_source"], &DataType::Utf8).unwrap();
    let sources = sources.as_string::<i32>();
    costs.iter().zip(sources).map(|(cost, source)| cost.zip(source.map(str::to_owned))).collect()
}

prop_compose! {
    fn a_row()(
        kind in prop::sample::select(&["tool", "model", "agent"][..]),
        tool in prop::option::of(prop::sample::select(&["a", "b", "ab"][..])),
        model in prop::option::of(prop::sample::select(&["m", "M2", "n"][..])),
        date in DAY - 1..DAY + 2,
        counted in prop::bool::weighted(0.8),
        duration_ns in 0..5_000_000_000_i64,
        input_tokens in prop::option::of(0..2_000_i64),
        output_tokens in prop::option::of(0..2_000_i64),
        cost in prop::option::of((0..1_000_i128, prop::sample::select(&["reported", "price_book"][..]))),
    ) -> Row {
        let usage = Usage { duration_ns, input_tokens, output_tokens, ..Usage::default() };
        Row { kind, tool, model, date, counted, usage, cost }
    }
}

proptest! {
    /// Scenario: any rows, under any of some books, priced in one batch or row by row, as text and as dictionaries.
    /// Guarantees: what the book says of each row on its own; reported costs, rows that do not count and runs of agents stay.
    #[test]
    fn rows_are_priced_one_by_one(rows in prop::collection::vec(a_row(), 1..60), which in 0..3_usize) {
        let book = Arc::new(match which {
            0 => PriceBook::default(),
            1 => book("[[price]]\ntool = \"a*\"\nper_second = 0.00123\n[[price]]\nmodel = \"m*\"\nper_million_input_tokens = 0.15\nper_million_output_tokens = 0.6\n"),
            _ => book(&format!(
                "[[price]]\ntool = \"a\"\nuntil = {}\nper_call = 0.001\n[[price]]\ntool = \"*\"\nper_call = 0.002\n[[price]]\nmodel = \"*\"\nunpriced = true\n",
                file::date_text(DAY)
            )),
        });
        let expected: Vec<_> = rows.iter().map(|row| {
            let kind = Kind::from_word(row.kind).unwrap();
            let own = row.cost.map(|(cost, source)| (cost, source.to_owned()));
            if matches!(row.cost, Some((_, "reported"))) || !row.counted || kind == Kind::Agent {
                return own;
            }
            let call = Call { kind, tool: row.tool, server: None, model: row.model, provider: None, date: row.date };
            Some((book.find(&call)?.cost(&row.usage)?, "price_book".to_owned()))
        }).collect();
        let (settled, mut pricer) = (rows_of(&rows), Pricer::new(Arc::clone(&book)));
        for batch in [settled.clone(), live(&settled), settled.slice(0, rows.len())] {
            let priced = pricer.price(&batch).unwrap();
            prop_assert_eq!(priced.schema(), batch.schema());
            prop_assert_eq!(&costs_of(&priced), &expected);
            // Once more changes nothing.
            prop_assert_eq!(&pricer.price(&priced).unwrap(), &priced);
        }
        let mut one_by_one = Vec::new();
        for row in 0..rows.len() {
            one_by_one.extend(costs_of(&pricer.price(&live(&settled).slice(row, 1)).unwrap()));
        }
        prop_assert_eq!(one_by_one, expected);
    }
}

/// Scenario: the same usage, told by a convention whose input tokens hold those of caches, and by one whose do not.
/// Guarantees: it costs the same; without the flag what is told of it contradicts itself, and has no price.
#[test]
fn input_without_caches_costs_what_it_does_with_them() {
    let usage = |input_tokens| Usage {
        input_tokens: Some(input_tokens),
        output_tokens: Some(10),
        cached_input_tokens: Some(900),
        cache_write_input_tokens: Some(50),
        ..Usage::default()
    };
    let row = |input_tokens| Row {
        kind: "model",
        tool: None,
        model: Some("m"),
        date: DAY,
        counted: true,
        usage: usage(input_tokens),
        cost: None,
    };
    let rows = rows_of(&[row(1_000), row(50), row(1_000)]);
    let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
    let mut fields: Vec<Field> = rows.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    let mut add = |name: &str, column: ArrayRef| {
        fields.push(Field::new(name, column.data_type().clone(), true));
        columns.push(column);
    };
    add("cached_input_tokens", Arc::new(Int64Array::from(vec![900; 3])));
    add("cache_write_input_tokens", Arc::new(Int64Array::from(vec![50; 3])));
    add("convention", Arc::new(StringArray::from(vec![Some("whole"), Some("apart"), None])));
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    let text = "[[price]]\nmodel = \"m\"\nper_million_input_tokens = 3\nper_million_output_tokens = 15\n\
                per_million_cached_input_tokens = 0.3\nper_million_cache_write_input_tokens = 3.75\n";
    // 50 at 3, 900 at 0.3, 50 at 3.75 and 10 at 15 dollars a million.
    let cost = Some((150_000 + 270_000 + 187_500 + 150_000, "price_book".to_owned()));
    let apart = book(text).input_excludes_cache(&["apart".to_owned()]);
    assert_eq!(
        costs_of(&Pricer::new(Arc::new(apart)).price(&rows).unwrap()),
        [cost.clone(), cost.clone(), cost.clone()]
    );
    assert_eq!(costs_of(&Pricer::new(Arc::new(book(text))).price(&rows).unwrap()), [cost.clone(), None, cost]);
}

#[test]
fn rows_without_what_every_call_has_are_refused() {
    let rows = rows_of(&[Row {
        kind: "tool",
        tool: Some("a"),
        model: None,
        date: DAY,
        counted: true,
        usage: Usage::default(),
        cost: None,
    }]);
    let mut pricer = Pricer::new(Arc::new(book("[[price]]\ntool = \"*\"\nper_call = 1\n")));
    let without = rows.project(&[0, 1, 2, 3, 5, 6, 7, 8, 9]).unwrap();
    let error = pricer.price(&without).unwrap_err().to_string();
    assert!(error.contains("rows to be priced have no column \"counted\""), "{error}");
}
