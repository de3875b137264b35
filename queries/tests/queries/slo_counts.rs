//! What SLOs count, against SQL over the same rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{Decimal128Type, Int64Type, TimestampMicrosecondType};
use toolgauge_analytics::sli::Counts;
use toolgauge_analytics::window::Minute;
use toolgauge_proto::call::Layer;
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::table::Table;
use toolgauge_proto::time::UnixMicros;
use toolgauge_queries::engine::{Error, Settings};
use toolgauge_queries::slo::counter::{CompiledSli, Counter, GroupAt, Tally};
use toolgauge_queries::slo::definition::{Judged, Mode, Sli, Where};
use toolgauge_queries::slo::fault::Place;
use toolgauge_queries::slo::group::GroupKey;

use crate::support::{MemoryLake, Rng, Row, Sql, live_batch, random_call, settled_batch};

fn condition(text: &str) -> Where {
    Where { text: text.to_owned(), file: Arc::from("test.yaml"), place: Place::START, key: String::new() }
}

fn sli(mode: Mode, layer: Option<Layer>, total: &str, judged: Judged, judge: &str) -> Sli {
    Sli { mode, layer, total: condition(total), judged, judge: condition(judge) }
}

fn slis() -> Vec<(Sli, &'static str)> {
    use Judged::{Bad, Good};
    use Mode::{Attempt, Logical};
    // With what stands for the scope in SQL: the conditions `column = 'text'` of the total.
    vec![
        (sli(Logical, None, "kind = 'tool'", Good, "outcome = 'ok'"), "kind = 'tool'"),
        (sli(Attempt, None, "kind = 'tool'", Good, "outcome = 'ok'"), "kind = 'tool'"),
        (
            sli(Attempt, None, "kind = 'tool' AND tool_name = 'a'", Bad, "outcome = 'error'"),
            "kind = 'tool' AND tool_name = 'a'",
        ),
        (
            sli(Logical, None, "'b' = tool_name AND error_class <> 'cancelled'", Good, "duration_ns <= 5000000"),
            "tool_name = 'b'",
        ),
        (
            sli(Logical, None, "tool_name = 'c' AND tool_server = 'a'", Good, "lower(team) LIKE '%1'"),
            "tool_name = 'c' AND tool_server = 'a'",
        ),
        (sli(Attempt, Some(Layer::Server), "TRUE", Bad, "error_class IN ('timeout', 'server')"), "layer = 'server'"),
        (sli(Logical, None, "tool_name LIKE 'a%' OR cost_usd > 2.5", Good, "input_tokens < 500"), "TRUE"),
        (sli(Logical, None, "environment = 'nowhere'", Good, "TRUE"), "environment = 'nowhere'"),
        (sli(Attempt, None, "service_name = 'b'", Bad, "100 / (input_bytes % 3) > 60"), "service_name = 'b'"),
        (
            sli(Attempt, None, "kind = 'tool' AND session_id = 'a' AND kind = 'model'", Good, "TRUE"),
            "kind = 'tool' AND session_id = 'a'",
        ),
    ]
}

/// The same in SQL. A division by zero, which SQL does not answer, counts as null: the one that there is, is written out.
fn recount(sli: &Sli, scope: &str) -> String {
    let counted = sli.layer.map_or("counted".to_owned(), |layer| format!("layer = '{layer}'"));
    let mode = if sli.mode == Mode::Logical { "final" } else { "TRUE" };
    let judge = sli.judge.text.replace("input_bytes % 3)", "nullif(input_bytes % 3, 0))");
    let total = &sli.total.text;
    // A condition that is null filters out, which is what IS TRUE says.
    let judged = format!("({total}) AND ({judge})");
    let (count, sum) = ("count(*)", "sum(weight)");
    let of = |what: &str, filter: &str| format!("coalesce({what} FILTER (WHERE {filter}), 0)");
    let rest = |what: &str| format!("{} - {}", of(what, total), of(what, &judged));
    let (good, bad) = match sli.judged {
        Judged::Good => ((of(count, &judged), of(sum, &judged)), (rest(count), rest(sum))),
        Judged::Bad => ((rest(count), rest(sum)), (of(count, &judged), of(sum, &judged))),
    };
    format!(
        "SELECT date_trunc('minute', end_time), {}, {}, count(*) - {},
            count(*) FILTER (WHERE ({total}) IS NULL) + count(*) FILTER (WHERE ({total}) AND ({judge}) IS NULL), {}, {}
        FROM calls WHERE {counted} AND {mode} AND ({scope}) GROUP BY 1",
        good.0,
        bad.0,
        of(count, total),
        good.1,
        bad.1
    )
}

/// What a counter found.
struct Found {
    slos: Vec<BTreeMap<i64, Counts>>,
    groups: BTreeMap<(usize, GroupKey, i64), Counts>,
    first: BTreeMap<(usize, GroupKey), WalPosition>,
    services: BTreeMap<(usize, String), Minute>,
    /// What rows outside of the total find.
    began: Option<WalPosition>,
}

impl Found {
    fn new(slos: usize) -> Self {
        Self {
            slos: vec![BTreeMap::new(); slos],
            groups: BTreeMap::new(),
            first: BTreeMap::new(),
            services: BTreeMap::new(),
            began: None,
        }
    }
}

impl Tally for Found {
    fn add(&mut self, slo: usize, group: Option<GroupAt<'_>>, minute: Minute, counts: &Counts) {
        *self.slos[slo].entry(minute.0).or_default() += counts;
        let Some((key, first)) = group else { return };
        *self.groups.entry((slo, Arc::clone(key), minute.0)).or_default() += counts;
        if let Some(first) = first {
            let least = self.first.entry((slo, Arc::clone(key))).or_insert(first);
            *least = first.min(*least);
        }
    }

    fn fed_by(&mut self, slo: usize, _: Option<GroupAt<'_>>, service: &str, minute: Minute) {
        let newest = self.services.entry((slo, service.to_owned())).or_insert(minute);
        *newest = minute.max(*newest);
    }

    fn outside(&mut self, slo: usize, group: &GroupKey, minute: Minute, counts: &Counts) {
        self.add(slo, Some((group, None)), minute, counts);
    }

    fn began(&self, _: usize, _: &GroupKey) -> Option<WalPosition> {
        self.began
    }
}

async fn recounted(sql: &Sql, lake: &MemoryLake, statement: &str) -> BTreeMap<i64, Counts> {
    let answer = sql.try_query(lake, statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    let mut counts = BTreeMap::new();
    for batch in &answer.batches {
        let int = |index: usize| batch.column(index).as_primitive::<Int64Type>().values().to_vec();
        let sum = |index: usize| {
            let type_of = arrow::datatypes::DataType::Decimal128(38, 6);
            cast(batch.column(index), &type_of).unwrap().as_primitive::<Decimal128Type>().values().to_vec()
        };
        let minutes = batch.column(0).as_primitive::<TimestampMicrosecondType>();
        let (good, bad, excluded, nulls) = (int(1), int(2), int(3), int(4));
        let (good_weighted, bad_weighted) = (sum(5), sum(6));
        for row in 0..batch.num_rows() {
            let found = Counts {
                good: good[row] as u64,
                bad: bad[row] as u64,
                excluded: excluded[row] as u64,
                nulls: nulls[row] as u64,
                good_weighted: good_weighted[row],
                bad_weighted: bad_weighted[row],
            };
            counts.insert(Minute::of(UnixMicros(minutes.value(row))).0, found);
        }
    }
    counts
}

fn compiled(sql: &Sql, sli: &Sli) -> Result<CompiledSli, Error> {
    let schema = Table::Calls.schema();
    let (total, judge) =
        (sql.engine.condition(&sli.total.text, &schema)?, sql.engine.condition(&sli.judge.text, &schema)?);
    Ok(CompiledSli::new(sli.clone(), total, judge))
}

/// Random rows, half of them in the form in which they are live, are counted as SQL counts them: with nulls, other layers,
/// retries, divisions by zero.
#[tokio::test]
async fn every_count_of_every_minute_is_that_of_sql() {
    let sql = Sql::new(Settings::default()).await;
    for seed in 1..=5 {
        let mut rng = Rng::new(seed);
        let rows: Vec<Row> = (1..=3_000).map(|position| random_call(&mut rng, position)).collect();
        let (committed, live) = rows.split_at(1_500);
        let lake = MemoryLake::of_calls(committed, live);
        let slis = slis();
        let compiled: Vec<CompiledSli> = slis.iter().map(|(sli, _)| compiled(&sql, sli).unwrap()).collect();
        let counter = Counter::new(&compiled).unwrap();
        let mut found = Found::new(slis.len());
        counter.count(&settled_batch(Table::Calls, committed), None, &mut found).unwrap();
        for part in live.chunks(400) {
            counter.count(&live_batch(Table::Calls, part), None, &mut found).unwrap();
        }
        let mut judged = 0;
        for ((sli, scope), found) in slis.iter().zip(&found.slos) {
            let expected = recounted(&sql, &lake, &recount(sli, scope)).await;
            assert_eq!(found, &expected, "seed {seed}: {sli:?}");
            judged += expected
                .values()
                .map(|counts| counts.good.min(1) + counts.bad.min(1) + counts.nulls.min(1))
                .sum::<u64>();
        }
        assert!(judged > 1_000, "seed {seed}: there was something to count");
        let newest = "SELECT service_name, date_trunc('minute', max(end_time)) FROM calls
            WHERE counted AND kind = 'tool' AND tool_name = 'a' AND service_name IS NOT NULL GROUP BY 1";
        for row in sql.query(&lake, newest).await {
            let minute = chrono::DateTime::parse_from_rfc3339(row[1].as_str().unwrap()).unwrap();
            let found = found.services[&(2, row[0].as_str().unwrap().to_owned())];
            assert_eq!(found, Minute::of(UnixMicros(minute.timestamp_micros())));
        }
    }
}

/// Columns to group by, in turns; those of words and of texts, also one that the SLO may fix.
const GROUPED_BY: [&[&str]; 5] = [
    &["tool_name"],
    &["tenant", "service_name"],
    &["environment", "tool_server", "tool_name", "team"],
    &["agent_name"],
    &["model", "service_name"],
];

/// The same rows by groups, with groups that some rows have no value for: each is counted as SQL does with `GROUP BY`, and begins where SQL finds its
/// first event.
#[tokio::test]
async fn every_group_is_counted_as_sql_does() {
    let sql = Sql::new(Settings::default()).await;
    let mut rng = Rng::new(11);
    let rows: Vec<Row> = (1..=2_000).map(|position| random_call(&mut rng, position)).collect();
    let (committed, live) = rows.split_at(1_000);
    let lake = MemoryLake::of_calls(committed, live);
    let slis = slis();
    let compiled: Vec<CompiledSli> = slis.iter().map(|(sli, _)| compiled(&sql, sli).unwrap()).collect();
    let columns = |place: usize| GROUPED_BY[place % GROUPED_BY.len()];
    let counter = Counter::grouped(compiled.iter().enumerate().map(|(place, sli)| (sli, columns(place)))).unwrap();
    let count = |began: Option<WalPosition>| {
        let mut found = Found { began, ..Found::new(slis.len()) };
        counter.count(&settled_batch(Table::Calls, committed), None, &mut found).unwrap();
        for part in live.chunks(300) {
            counter.count(&live_batch(Table::Calls, part), None, &mut found).unwrap();
        }
        found
    };
    // As if all groups had been there before.
    let found = count(Some(WalPosition(0)));
    let mut groups = 0;
    for (place, (sli, scope)) in slis.iter().enumerate() {
        let mut keys: BTreeMap<&GroupKey, BTreeMap<i64, Counts>> = BTreeMap::new();
        for ((slo, key, minute), counts) in &found.groups {
            if *slo == place {
                keys.entry(key).or_default().insert(*minute, *counts);
            }
        }
        let values: Vec<String> = columns(place).iter().map(|column| format!("coalesce({column}, '')")).collect();
        let counted = sli.layer.map_or("counted".to_owned(), |layer| format!("layer = '{layer}'"));
        let mode = if sli.mode == Mode::Logical { "final" } else { "TRUE" };
        let statement = format!(
            "SELECT min(wal_position) FILTER (WHERE {}), {} FROM calls WHERE {counted} AND {mode} AND ({scope}) GROUP BY {1}",
            sli.total.text,
            values.join(", ")
        );
        let expected = sql.query(&lake, &statement).await;
        assert_eq!(expected.len(), keys.len(), "{statement}");
        for row in &expected {
            let key: GroupKey = row[1..].iter().map(|value| Arc::from(value.as_str().unwrap())).collect();
            let first = found.first.get(&(place, Arc::clone(&key))).map(|first| first.0);
            assert_eq!(first, row[0].as_u64(), "{key:?} of {statement}");
            let same = values.iter().zip(&*key).map(|(column, value)| format!(" AND {column} = '{value}'"));
            let scope = format!("({scope}){}", same.collect::<String>());
            assert_eq!(keys[&key], recounted(&sql, &lake, &recount(sli, &scope)).await, "{key:?} of {statement}");
            groups += 1;
        }
    }
    assert!(groups > 100, "{groups}");

    // Without an event before, what is not in total counts from the first event on; the events are the same.
    let bare = count(None);
    let sum = |found: &Found, of: fn(&Counts) -> u64| found.groups.values().map(of).sum::<u64>();
    assert_eq!(sum(&bare, Counts::total), sum(&found, Counts::total));
    let (before, after) = (sum(&found, |counts| counts.excluded), sum(&bare, |counts| counts.excluded));
    assert!(0 < after && after < before, "{after} of {before}");
}

#[tokio::test]
async fn rows_up_to_a_position_are_left_out() {
    let sql = Sql::new(Settings::default()).await;
    let mut rng = Rng::new(7);
    let rows: Vec<Row> = (1..=200).map(|position| random_call(&mut rng, position)).collect();
    let all = compiled(&sql, &sli(Mode::Attempt, None, "TRUE", Judged::Good, "outcome = 'ok'")).unwrap();
    let counter = Counter::new([&all]).unwrap();
    let count = |rows: &[Row], after| {
        let mut found = Found::new(1);
        counter.count(&live_batch(Table::Calls, rows), after, &mut found).unwrap();
        let mut sum = Counts::default();
        found.slos[0].values().for_each(|counts| sum += counts);
        sum
    };
    let first = count(&rows[..80], None);
    let mut both = count(&rows, Some(WalPosition(80)));
    assert!(!first.is_zero() && !both.is_zero());
    both += &first;
    assert_eq!(both, count(&rows, None));
    assert!(count(&rows, Some(WalPosition(200))).is_zero());
}

#[tokio::test]
async fn conditions_that_depend_on_more_than_the_row_are_refused() {
    let sql = Sql::new(Settings::default()).await;
    let refused = |text: &str| {
        let error = sql.engine.condition(text, &Table::Calls.schema()).err();
        error.unwrap_or_else(|| panic!("{text} was taken")).to_string()
    };
    for (text, reason) in [
        ("tool_name IN (SELECT tool_name FROM calls)", "subquer"),
        ("EXISTS (SELECT 1)", "subquer"),
        ("count(*) > 1", "aggregate"),
        ("row_number() OVER () = 1", "window"),
        ("end_time > now()", "does not depend on the row alone"),
        ("random() > 0.5", "does not depend on the row alone"),
        ("tool = 'a'", "tool"),
        ("duration_ns", "Int64, not true or false"),
        ("outcome = 'ok' x", "x"),
        ("TRUE); DROP TABLE calls; --", ")"),
        ("$1", "parameter"),
        ("", ""),
    ] {
        let message = refused(text);
        assert!(message.contains(reason), "{text}: {message}");
    }
    let chain = vec!["outcome = 'ok'"; 150].join(" OR ");
    assert!(refused(&chain).contains("at most 200 are allowed"));
    assert!(refused(&"(".repeat(500)).len() < 500);
}
