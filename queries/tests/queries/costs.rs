//! The costs report against a recount of the rows, and the worked examples of `docs/accounting.md`.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::common::ScalarValue;
use toolgauge_proto::api::costs::{CostGroup, Costs, CostsReport};
use toolgauge_proto::lake::Lake;
use toolgauge_proto::table::Table;
use toolgauge_proto::time::{MINUTE_MICROS, UnixMicros};
use toolgauge_queries::engine::Settings;
use toolgauge_queries::json::rfc3339;
use toolgauge_queries::report::{self, CostsBy, Range};

use crate::support::{
    MemoryLake, NOW, Rng, Row, Sql, get, get_int, get_text, is_true, minutes_ago, random_call, text, timestamp,
};

const DAY_MICROS: i64 = 86_400_000_000;

async fn costs(sql: &Sql, lake: &MemoryLake, range: &Range, by: CostsBy) -> CostsReport {
    report::costs(&sql.engine, &sql.catalog, lake.view(), NOW, range.clone(), by).await.unwrap()
}

/// A decimal of nine places as text, or the quotient of two rounded half-even, in plain big-number steps.
fn money(amount: i128, n: i128) -> String {
    let (mut quotient, rest) = (amount / n, amount % n);
    if rest * 2 > n || (rest * 2 == n && quotient % 2 == 1) {
        quotient += 1;
    }
    let text = format!("{}.{:09}", quotient / 1_000_000_000, quotient % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn cost(row: &Row) -> Option<i128> {
    match get(row, "cost_usd") {
        ScalarValue::Decimal128(cost, ..) => *cost,
        other => panic!("cost is {other}"),
    }
}

fn number(row: &Row, column: &str) -> u64 {
    match get(row, column) {
        ScalarValue::Int64(value) => value.unwrap_or(0).unsigned_abs(),
        other => panic!("{column} is {other}"),
    }
}

fn is_of(row: &Row, kinds: &[&str]) -> bool {
    is_true(row, "counted") && kinds.contains(&get_text(row, "kind").unwrap().as_str())
}

fn kinds(by: CostsBy) -> &'static [&'static str] {
    match by {
        CostsBy::Tool => &["tool"],
        CostsBy::Model => &["model"],
        _ => &["tool", "model"],
    }
}

fn key(row: &Row, by: CostsBy) -> (String, Option<String>, Option<String>) {
    let column = match by {
        CostsBy::Tool => "tool_name",
        CostsBy::Service => "service_name",
        CostsBy::Model => "model",
        CostsBy::Agent => "agent_name",
        CostsBy::Team => "team",
        CostsBy::Session => "session_id",
        CostsBy::User => "user_id",
        CostsBy::Day => {
            let day = rfc3339(UnixMicros(get_int(row, "end_time")));
            return (get_text(row, "tenant").unwrap(), Some(day[..10].to_owned()), None);
        }
    };
    let server = if by == CostsBy::Tool { get_text(row, "tool_server") } else { None };
    (get_text(row, "tenant").unwrap(), get_text(row, column), server)
}

/// What the figures of these rows are.
fn figures(rows: &[&Row]) -> Costs {
    let ok = |row: &&&Row| get_text(row, "outcome").as_deref() == Some("ok");
    let sum = |keep: &dyn Fn(&Row) -> bool| {
        let known: Vec<i128> = rows.iter().filter(|row| keep(row)).filter_map(|row| cost(row)).collect();
        (!known.is_empty()).then(|| known.iter().sum::<i128>())
    };
    let kind = |kind: &'static str| sum(&move |row: &Row| get_text(row, "kind").as_deref() == Some(kind));
    let (attempts, attempts_ok) = (rows.len(), rows.iter().filter(ok).count());
    let priced = rows.iter().filter(|row| cost(row).is_some()).count();
    let priced_ok = rows.iter().filter(ok).filter(|row| cost(row).is_some()).count();
    let all = sum(&|_| true);
    let wasted = sum(&|row| get_text(row, "outcome").as_deref() == Some("error"));
    let nothing = (attempts == attempts_ok && priced > 0).then_some(0);
    let weight: i128 = rows.iter().map(|row| weight(row)).sum();
    // Weights that are all 0 say nothing.
    let sampled = weight != 0 && weight != attempts as i128 * 1_000_000;
    let text = format!("{}.{:06}", weight / 1_000_000, weight % 1_000_000);
    Costs {
        attempts: attempts as u64,
        sampled,
        weighted_attempts: sampled.then(|| text.trim_end_matches('0').trim_end_matches('.').to_owned()),
        priced: priced as u64,
        unpriced: (attempts - priced) as u64,
        cost_coverage: (attempts > 0).then(|| priced as f64 / attempts as f64),
        attempts_ok: attempts_ok as u64,
        priced_ok: priced_ok as u64,
        cost_usd: all.map(|all| money(all, 1)),
        cost_per_call_usd: all.map(|all| money(all, priced as i128)),
        cost_per_success_usd: all
            .filter(|_| priced * 5 >= attempts * 4 && priced_ok > 0)
            .map(|all| money(all, priced_ok as i128)),
        wasted_cost_usd: wasted.or(nothing).map(|wasted| money(wasted, 1)),
        tools_cost_usd: kind("tool").map(|cost| money(cost, 1)),
        models_cost_usd: kind("model").map(|cost| money(cost, 1)),
        input_tokens: rows.iter().map(|row| number(row, "input_tokens")).sum(),
        output_tokens: rows.iter().map(|row| number(row, "output_tokens")).sum(),
    }
}

fn weight(row: &Row) -> i128 {
    match get(row, "weight") {
        ScalarValue::Decimal128(Some(weight), ..) => *weight,
        other => panic!("weight is {other}"),
    }
}

fn nanos(text: Option<&String>) -> i128 {
    let Some(text) = text else { return -1 };
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    format!("{whole}{rest:0<9}").parse().unwrap()
}

/// Scenario: random rows of all kinds, split between the halves, under random filters, over ranges that cut minutes and are answered
/// from calls or from sums. Guarantees: every number in every grouping is that of a recount, to the last digit.
#[tokio::test]
async fn every_cost_in_every_grouping_is_that_of_a_recount() {
    let sql = Sql::new(Settings::default()).await;
    for seed in 0..2 {
        let mut rng = Rng::new(seed);
        let rows: Vec<Row> = (1..=[30, 700][seed as usize]).map(|at| random_call(&mut rng, at)).collect();
        let (committed, live) = rows.split_at(rows.len() / 2);
        let lake = MemoryLake::of_calls(committed, live);
        let word = |rng: &mut Rng| rng.one_in(3).then(|| ["a", "b", "c"][rng.below(3) as usize].to_owned());
        for (at, by) in CostsBy::ALL.into_iter().enumerate() {
            assert_eq!(CostsBy::from_word(by.as_str()), Some(by));
            // Shorter ranges come from calls, longer ones from sums.
            let length = [40 * MINUTE_MICROS + 7, 3 * 60 * MINUTE_MICROS + 11][(at + seed as usize) % 2];
            let to = UnixMicros(NOW.0 - rng.below(600_000_000).cast_signed());
            let from = UnixMicros(to.0 - length);
            let range = Range { service: word(&mut rng), environment: word(&mut rng), ..Range::new(from, to) };
            let report = costs(&sql, &lake, &range, by).await;
            let chosen: Vec<&Row> = rows
                .iter()
                .filter(|row| is_of(row, kinds(by)) && (from.0..to.0).contains(&get_int(row, "end_time")))
                .filter(|row| range.service.is_none() || get_text(row, "service_name") == range.service)
                .filter(|row| range.environment.is_none() || get_text(row, "environment") == range.environment)
                .collect();
            let mut groups: BTreeMap<_, Vec<&Row>> = BTreeMap::new();
            for row in &chosen {
                groups.entry(key(row, by)).or_default().push(row);
            }
            let when = format!("seed {seed}, by {}, {length}", by.as_str());
            assert_eq!(report.groups.len(), groups.len(), "{when}");
            for CostGroup { tenant, name, tool_server, costs } in &report.groups {
                let key = (tenant.clone(), name.clone(), tool_server.clone());
                assert_eq!(*costs, figures(&groups[&key]), "{when}: {key:?}");
            }
            assert_eq!(report.total, figures(&chosen), "{when}");
            assert!(
                report.groups.is_sorted_by(|a, b| nanos(a.costs.cost_usd.as_ref()) >= nanos(b.costs.cost_usd.as_ref())),
                "{when}"
            );
            assert_eq!((report.by.as_str(), report.truncated), (by.as_str(), false));
        }
    }
}

/// What is cut off is in the total all the same.
#[tokio::test]
async fn the_row_limit_cuts_the_groups_and_not_the_total() {
    let sql = Sql::new(Settings { rows_max: 2, ..Settings::default() }).await;
    let mut rng = Rng::new(3);
    let rows: Vec<Row> = (1..=200).map(|at| random_call(&mut rng, at)).collect();
    let range = Range::new(minutes_ago(180), NOW);
    let report = costs(&sql, &MemoryLake::of_calls(&rows, &[]), &range, CostsBy::User).await;
    assert_eq!((report.groups.len(), report.truncated), (2, true));
    let times = range.from.0..range.to.0;
    let counted: Vec<&Row> =
        rows.iter().filter(|row| is_of(row, &["tool", "model"]) && times.contains(&get_int(row, "end_time"))).collect();
    assert_eq!(report.total, figures(&counted));
}

/// A call of a tool, or of a model if it has no tool.
fn call(tool: &str, ended_ago_us: i64, outcome: &str, nano_usd: Option<i128>) -> Row {
    let end = UnixMicros(NOW.0 - ended_ago_us);
    let mut row = random_call(&mut Rng::new(1), 1);
    for (column, value) in [
        ("date", ScalarValue::Date32(Some(end.date32()))),
        ("end_time", timestamp(end)),
        ("kind", text("tool")),
        ("counted", ScalarValue::Boolean(Some(true))),
        ("tenant", text("default")),
        ("tool_name", text(tool)),
        ("tool_server", ScalarValue::Utf8(None)),
        ("outcome", text(outcome)),
        ("error_class", text(if outcome == "ok" { "none" } else { "timeout" })),
        ("cost_usd", ScalarValue::Decimal128(nano_usd, 18, 9)),
    ] {
        row[Table::Calls.index_of(column)] = value;
    }
    row
}

/// What the document says of an example, by heading: its table's lines, cells trimmed.
fn example(heading: &str) -> Vec<Vec<String>> {
    let document = include_str!("../../../docs/accounting.md");
    let section = document.split(heading).nth(1).unwrap_or_else(|| panic!("no example {heading:?}"));
    let rows =
        section.lines().skip_while(|line| !line.starts_with("|---")).skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect())
        .collect()
}

fn cell(value: Option<&String>) -> String {
    value.cloned().unwrap_or_else(|| "unknown".to_owned())
}

/// The worked examples of the document, made of the calls that it tells of.
#[tokio::test]
async fn the_examples_of_the_document_are_what_the_report_says() {
    let sql = Sql::new(Settings::default()).await;
    let minute = MINUTE_MICROS;
    let many = |tool: &str, outcome: &str, n: usize, nano_usd: Option<i128>| -> Vec<Row> {
        (0..n).map(|at| call(tool, 5 * minute + at as i64, outcome, nano_usd)).collect()
    };
    // Cheap per call and dear per success.
    let rows = [
        many("scrape", "ok", 20, Some(1_000_000)),
        many("scrape", "error", 80, Some(1_000_000)),
        many("search", "ok", 98, Some(3_000_000)),
        many("search", "error", 2, Some(3_000_000)),
    ]
    .concat();
    let report = costs(&sql, &MemoryLake::of_calls(&rows, &[]), &Range::new(minutes_ago(60), NOW), CostsBy::Tool).await;
    let found: BTreeSet<Vec<String>> = report
        .groups
        .iter()
        .map(|CostGroup { name, costs, .. }| {
            vec![
                name.clone().unwrap(),
                costs.attempts.to_string(),
                costs.attempts_ok.to_string(),
                cell(costs.cost_usd.as_ref()),
                cell(costs.cost_per_call_usd.as_ref()),
                cell(costs.cost_per_success_usd.as_ref()),
                cell(costs.wasted_cost_usd.as_ref()),
            ]
        })
        .collect();
    assert_eq!(found, example("### Cheap per call and dear per success").into_iter().collect());

    // Half, and nine tenths, of the calls priced.
    let rows = [
        many("half", "ok", 50, Some(4_000_000)),
        many("half", "ok", 50, None),
        many("most", "ok", 81, Some(4_000_000)),
        many("most", "error", 10, Some(4_000_000)),
        many("most", "ok", 9, None),
        many("none", "ok", 10, None),
    ]
    .concat();
    let report = costs(&sql, &MemoryLake::of_calls(&rows, &[]), &Range::new(minutes_ago(60), NOW), CostsBy::Tool).await;
    let found: BTreeSet<Vec<String>> = report
        .groups
        .iter()
        .map(|CostGroup { name, costs, .. }| {
            vec![
                name.clone().unwrap(),
                costs.attempts.to_string(),
                costs.priced.to_string(),
                format!("{} %", costs.cost_coverage.unwrap() * 100.0),
                cell(costs.cost_usd.as_ref()),
                cell(costs.cost_per_call_usd.as_ref()),
                cell(costs.cost_per_success_usd.as_ref()),
            ]
        })
        .collect();
    assert_eq!(found, example("### 50 % priced").into_iter().collect());
}

/// [`NOW`] is 2025-10-09T12:34:56Z. Guarantees: the rest of the day goes on as the last 24 hours did, the rest of the month as the last
/// 7 days; with less history, as that; without any, nothing is said.
#[tokio::test]
async fn forecasts_go_on_from_the_last_day_and_week() {
    assert_eq!(rfc3339(NOW), "2025-10-09T12:34:56Z");
    let sql = Sql::new(Settings::default()).await;
    let range = Range::new(minutes_ago(60), NOW);
    let of = async |rows: &[Row]| costs(&sql, &MemoryLake::of_calls(rows, &[]), &range, CostsBy::Tool).await.forecast;
    let hour = 60 * MINUTE_MICROS;
    let dollar = Some(1_000_000_000);
    // One yesterday, within the last 24 hours; one today; one eight days ago, in this month.
    let rows =
        [call("a", 20 * hour, "ok", dollar), call("a", hour, "ok", dollar), call("a", 8 * 24 * hour, "ok", dollar)];
    let forecast = of(&rows).await;
    let now = NOW.0 - NOW.0.rem_euclid(MINUTE_MICROS);
    let day_end = NOW.0 - NOW.0.rem_euclid(DAY_MICROS) + DAY_MICROS;
    let month_end = day_end + 22 * DAY_MICROS;
    let rest = |window: i64, cost: i128, end: i64| {
        let (amount, window) = (cost * 1_000_000_000 * i128::from(end - now), i128::from(window));
        (amount + window / 2) / window
    };
    assert_eq!(
        (forecast.day.from.as_str(), forecast.day.to.as_str()),
        ("2025-10-09T00:00:00Z", "2025-10-10T00:00:00Z")
    );
    assert_eq!(forecast.day.cost_usd.as_deref(), Some("1"));
    let expected = 1_000_000_000 + rest(DAY_MICROS, 2, day_end);
    assert_eq!(forecast.day.forecast_usd, Some(money(expected, 1)));
    assert_eq!(
        (forecast.month.from.as_str(), forecast.month.to.as_str()),
        ("2025-10-01T00:00:00Z", "2025-11-01T00:00:00Z")
    );
    assert_eq!(forecast.month.cost_usd.as_deref(), Some("3"));
    let expected = 3_000_000_000 + rest(7 * DAY_MICROS, 2, month_end);
    assert_eq!(forecast.month.forecast_usd, Some(money(expected, 1)));

    // Since an hour only.
    let forecast = of(&[call("a", hour, "ok", dollar)]).await;
    let first = (NOW.0 - hour) - (NOW.0 - hour).rem_euclid(MINUTE_MICROS);
    let expected = 1_000_000_000 + rest(now - first, 1, month_end);
    assert_eq!(forecast.month.forecast_usd, Some(money(expected, 1)));
    let forecast = of(&[call("a", hour, "ok", None)]).await;
    assert_eq!((forecast.day.cost_usd, forecast.day.forecast_usd), (None, None));
}

#[tokio::test]
async fn tools_and_models_without_a_price_are_listed() {
    let sql = Sql::new(Settings::default()).await;
    let mut model = call("", 5 * MINUTE_MICROS, "ok", None);
    model[Table::Calls.index_of("kind")] = text("model");
    model[Table::Calls.index_of("model")] = text("large-9");
    let mut view = call("a", 5 * MINUTE_MICROS, "ok", None);
    view[Table::Calls.index_of("counted")] = ScalarValue::Boolean(Some(false));
    let rows = [
        call("a", 5 * MINUTE_MICROS, "ok", Some(1)),
        call("b", 5 * MINUTE_MICROS, "ok", Some(1)),
        call("b", 5 * MINUTE_MICROS, "ok", None),
        call("b", 6 * MINUTE_MICROS, "error", None),
        call("c", 90 * MINUTE_MICROS, "ok", None),
        model,
        view,
    ];
    let lake = MemoryLake::of_calls(&rows[..3], &rows[3..]);
    let report = report::unpriced(&sql.engine, &sql.catalog, lake.view(), NOW, minutes_ago(60)).await.unwrap();
    let found: Vec<_> = report
        .groups
        .iter()
        .map(|group| (group.kind.as_str(), group.name.as_deref().unwrap(), group.unpriced, group.attempts))
        .collect();
    assert_eq!(found, [("tool", "b", 2, 3), ("model", "large-9", 1, 1)]);
    assert_eq!((report.tools, report.models, report.calls), (1, 1, 3));
}
