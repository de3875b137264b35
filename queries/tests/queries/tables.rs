//! Tables and views: every row once, whatever half of its table it is in.

use std::collections::BTreeMap;
use std::time::Duration;

use datafusion::common::ScalarValue;
use serde_json::{Value, json};
use toolgauge_proto::table::{ColumnType, Table};
use toolgauge_proto::time::UnixMicros;
use toolgauge_queries::engine::Settings;

use crate::support::{
    MemoryLake, NOW, Rng, Row, Sql, arrival, get, get_int, get_text, is_true, minutes_ago, random_call,
};

fn random_calls(seed: u64, n: u64) -> Vec<Row> {
    let mut rng = Rng::new(seed);
    (1..=n).map(|position| random_call(&mut rng, position)).collect()
}

#[tokio::test]
async fn rows_of_both_halves_are_counted_once_each() {
    let rows = random_calls(1, 300);
    let sql = Sql::new(Settings::default()).await;
    for cut in [0, 1, 150, 299, 300] {
        let lake = MemoryLake::of_calls(&rows[..cut], &rows[cut..]);
        assert_eq!(sql.count(&lake, "SELECT count(*) FROM calls").await, 300, "cut {cut}");
        assert_eq!(sql.count(&lake, "SELECT count(DISTINCT row_id) FROM calls").await, 300, "cut {cut}");
        let all = "SELECT row_id, wal_position FROM calls ORDER BY wal_position LIMIT 7";
        let expected: Vec<Vec<Value>> =
            (1..=7_u64).map(|i| vec![json!(format!("{i:016x}").repeat(2)), json!(i)]).collect();
        assert_eq!(sql.query(&lake, all).await, expected, "cut {cut}");
    }
}

/// The literal that equals the value.
fn literal(column_type: ColumnType, value: &ScalarValue) -> String {
    match (column_type, value) {
        (ColumnType::Date, value) => format!("DATE '{value}'"),
        (ColumnType::Timestamp, ScalarValue::TimestampMicrosecond(Some(micros), _)) => {
            format!("TIMESTAMP '{}'", toolgauge_queries::json::rfc3339(toolgauge_proto::time::UnixMicros(*micros)))
        }
        (ColumnType::Binary, ScalarValue::Binary(Some(bytes))) => {
            format!("X'{}'", toolgauge_queries::hex::encode(bytes))
        }
        (ColumnType::Word | ColumnType::Text, value) => format!("'{value}'"),
        (ColumnType::Decimal(scale), ScalarValue::Decimal128(Some(value), ..)) => {
            let unit = 10_i128.pow(scale.unsigned_abs().into());
            format!("CAST('{}.{:0width$}' AS DECIMAL(18, {scale}))", value / unit, value % unit, width = scale as usize)
        }
        (_, value) => value.to_string(),
    }
}

/// Scenario: a filter on every column, with a value that occurs in it. Guarantees: the union gives what a recount of
/// the rows gives, however they are split between the halves, though the committed half applies filters exactly.
#[tokio::test]
async fn filters_on_every_column_find_the_same_rows_in_either_half() {
    let rows = random_calls(2, 120);
    let sql = Sql::new(Settings::default()).await;
    let lakes = [
        MemoryLake::of_calls(&rows, &[]),
        MemoryLake::of_calls(&[], &rows),
        MemoryLake::of_calls(&rows[..70], &rows[70..]),
    ];
    for column in Table::Calls.columns() {
        let value = rows.iter().map(|row| get(row, column.name)).find(|value| !value.is_null()).unwrap();
        let quoted = format!("\"{}\"", column.name);
        let literal = literal(column.column_type, value);
        let count = |keep: &dyn Fn(&ScalarValue) -> bool| rows.iter().filter(|row| keep(get(row, column.name))).count();
        let filters = [
            (format!("{quoted} = {literal}"), count(&|found| found == value)),
            (format!("{quoted} <> {literal}"), count(&|found| !found.is_null() && found != value)),
            (format!("{quoted} >= {literal}"), count(&|found| !found.is_null() && found >= value)),
            (format!("{quoted} IS NULL"), count(&ScalarValue::is_null)),
        ];
        for (filter, expected) in filters {
            for lake in &lakes {
                let statement = format!("SELECT count(*) FROM calls WHERE {filter}");
                assert_eq!(sql.count(lake, &statement).await, expected as u64, "{statement}");
            }
        }
    }
}

#[tokio::test]
async fn a_date_that_no_row_has_finds_none() {
    let rows = random_calls(3, 50);
    let sql = Sql::new(Settings::default()).await;
    let lake = MemoryLake::of_calls(&rows[..25], &rows[25..]);
    assert_eq!(sql.count(&lake, "SELECT count(*) FROM calls WHERE date = DATE '2031-01-01'").await, 0);
}

#[tokio::test]
async fn views_show_the_counted_rows_of_their_kind_with_ids_as_hex() {
    let rows = random_calls(4, 200);
    let sql = Sql::new(Settings::default()).await;
    let lake = MemoryLake::of_calls(&rows[..100], &rows[100..]);
    for (view, kind) in [("tool_calls", "tool"), ("model_calls", "model"), ("agent_runs", "agent")] {
        let expected: Vec<&Row> = rows
            .iter()
            .filter(|row| is_true(row, "counted") && get_text(row, "kind").as_deref() == Some(kind))
            .collect();
        let found = sql
            .query(
                &lake,
                &format!("SELECT row_id, trace_id, span_id, parent_span_id FROM {view} ORDER BY wal_position"),
            )
            .await;
        let ids = |row: &&Row| -> Vec<Value> {
            ["row_id", "trace_id", "span_id", "parent_span_id"]
                .map(|column| match get(row, column) {
                    ScalarValue::Binary(Some(bytes)) => json!(toolgauge_queries::hex::encode(bytes)),
                    _ => Value::Null,
                })
                .to_vec()
        };
        assert_eq!(found, expected.iter().map(ids).collect::<Vec<_>>(), "{view}");
        let columns = sql.try_query(&lake, &format!("SELECT * FROM {view} LIMIT 0")).await.unwrap();
        let names: Vec<_> = columns.schema.fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, Table::Calls.columns().iter().map(|column| column.name).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn logical_calls_are_the_last_attempts_of_tool_calls_with_what_they_lost() {
    let rows = random_calls(14, 200);
    let sql = Sql::new(Settings::default()).await;
    let lake = MemoryLake::of_calls(&rows[..100], &rows[100..]);
    let statement =
        "SELECT logical_call_id, first_start_time, lost_ns, attempts FROM logical_calls ORDER BY wal_position";
    let found = sql.query(&lake, statement).await;
    let expected = rows.iter().filter(|row| {
        is_true(row, "counted") && is_true(row, "final") && get_text(row, "kind").as_deref() == Some("tool")
    });
    let expected: Vec<Vec<Value>> = expected
        .map(|row| {
            let lost = match get(row, "retry_lost_ns") {
                ScalarValue::Int64(lost) => lost.unwrap_or(0),
                other => panic!("lost is {other}"),
            };
            let id = match (get(row, "logical_call_id"), get(row, "row_id")) {
                (ScalarValue::Binary(Some(id)), _) | (_, ScalarValue::Binary(Some(id))) => id,
                other => panic!("ids are {other:?}"),
            };
            let start = toolgauge_proto::time::UnixMicros(get_int(row, "start_time") - lost / 1_000);
            let start = toolgauge_queries::json::rfc3339(start);
            vec![json!(toolgauge_queries::hex::encode(id)), json!(start), json!(lost), json!(get_int(row, "attempt"))]
        })
        .collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_search_for_hex_compares_bytes() {
    let rows = random_calls(5, 200);
    let sql = Sql::new(Settings::default()).await;
    let lake = MemoryLake::of_calls(&rows[..100], &rows[100..]);
    let id = rows.iter().find_map(|row| match get(row, "trace_id") {
        ScalarValue::Binary(Some(bytes)) if is_true(row, "counted") => Some(bytes.clone()),
        _ => None,
    });
    let id = id.unwrap();
    let matching = |row: &&Row| {
        is_true(row, "counted")
            && get_text(row, "kind").as_deref() == Some("tool")
            && get(row, "trace_id") == &ScalarValue::Binary(Some(id.clone()))
    };
    let expected = rows.iter().filter(matching).count() as u64;
    let hex = toolgauge_queries::hex::encode(&id);
    for filter in [
        format!("trace_id = '{hex}'"),
        format!("'{hex}' = trace_id"),
        format!("trace_id IN ('{hex}', '00ff', '01ff', '02ff', '03ff')"),
    ] {
        assert_eq!(sql.count(&lake, &format!("SELECT count(*) FROM tool_calls WHERE {filter}")).await, expected);
        let plan = sql.query(&lake, &format!("EXPLAIN SELECT count(*) FROM tool_calls WHERE {filter}")).await;
        let plan = Value::from(plan).to_string();
        assert!(!plan.contains("hex("), "{plan}");
    }
    for not_hex in ["no id", "ABCD", "abc", ""] {
        assert_eq!(sql.count(&lake, &format!("SELECT count(*) FROM tool_calls WHERE trace_id = '{not_hex}'")).await, 0);
    }
}

#[tokio::test]
async fn sessions_end_after_some_quiet_and_sum_their_counted_rows() {
    let rows = random_calls(6, 250);
    let idle = Duration::from_secs(5 * 60);
    let sql = Sql::new(Settings { session_idle: idle, ..Settings::default() }).await;
    let lake = MemoryLake::of_calls(&rows[..120], &rows[120..]);
    let mut expected: BTreeMap<(String, String), Vec<&Row>> = BTreeMap::new();
    for row in rows.iter().filter(|row| is_true(row, "counted")) {
        if let Some(session) = get_text(row, "session_id") {
            expected.entry((get_text(row, "tenant").unwrap(), session)).or_default().push(row);
        }
    }
    let found = sql
        .query(
            &lake,
            "SELECT tenant, session_id, duration_ns, tool_calls, logical_tool_calls, tool_errors, logical_tool_errors, \
             model_calls, iterations, agent_runs, input_tokens, closed, outcome, completed FROM sessions \
             ORDER BY 1, 2, start_time",
        )
        .await;
    let ids = expected.len();
    let idle_us = i64::try_from(idle.as_micros()).unwrap();
    let parts = expected.into_iter().flat_map(|(key, mut rows)| {
        rows.sort_by_key(|row| (get_int(row, "start_time"), get_int(row, "end_time")));
        let mut parts: Vec<(_, Vec<&Row>)> = Vec::new();
        let mut active_until = i64::MIN / 2;
        for row in rows {
            if get_int(row, "start_time") - active_until > idle_us {
                parts.push((key.clone(), Vec::new()));
            }
            parts.last_mut().unwrap().1.push(row);
            active_until = active_until.max(get_int(row, "end_time"));
        }
        parts
    });
    let expected: Vec<Vec<Value>> = parts
        .map(|((tenant, session), rows)| {
            let start = rows.iter().map(|row| get_int(row, "start_time")).min().unwrap();
            let end = rows.iter().map(|row| get_int(row, "end_time")).max().unwrap();
            let kind = |row: &Row, kind: &str| get_text(row, "kind").as_deref() == Some(kind);
            let failed = |row: &Row| get_text(row, "outcome").as_deref() == Some("error");
            let count = |keep: &dyn Fn(&Row) -> bool| rows.iter().filter(|row| keep(row)).count();
            let tokens: Option<i64> = rows
                .iter()
                .filter(|row| !kind(row, "agent") && !get(row, "input_tokens").is_null())
                .map(|row| get_int(row, "input_tokens"))
                .reduce(|sum, tokens| sum + tokens);
            let last = |agent: bool| {
                let of_kind = rows.iter().filter(|row| !agent || kind(row, "agent"));
                of_kind.max_by_key(|row| get_int(row, "end_time")).map(|row| get_text(row, "outcome"))
            };
            let outcome = last(true).or_else(|| last(false)).unwrap();
            vec![
                json!(tenant),
                json!(session),
                json!((end - start) * 1_000),
                json!(count(&|row| kind(row, "tool"))),
                json!(count(&|row| kind(row, "tool") && is_true(row, "final"))),
                json!(count(&|row| kind(row, "tool") && failed(row))),
                json!(count(&|row| kind(row, "tool") && failed(row) && is_true(row, "final"))),
                json!(count(&|row| kind(row, "model"))),
                json!(count(&|row| kind(row, "model"))),
                json!(count(&|row| kind(row, "agent"))),
                json!(tokens),
                json!(NOW.0 - end > idle_us),
                json!(outcome),
                json!(outcome.as_deref() == Some("ok")),
            ]
        })
        .collect();
    let ids_alone = sql.query(&lake, "SELECT session_id FROM sessions").await;
    assert_eq!(ids_alone.len(), found.len(), "also where no sum is asked for");
    assert!(found.len() > ids, "some session is parted: {} of {ids}", found.len());
    assert_eq!(found, expected);
}

/// Scenario: the clock stands still while the watermark of the lake goes on. Guarantees: a session is over when it has been idle for more
/// than half an hour up to the watermark, to the microsecond, whatever the clock says.
#[tokio::test]
async fn a_session_is_over_half_an_hour_after_its_last_call() {
    let sql = Sql::new(Settings::default()).await;
    let mut row = random_calls(8, 1).remove(0);
    let mut set = |column: &str, value: ScalarValue| row[Table::Calls.index_of(column)] = value;
    set("counted", ScalarValue::Boolean(Some(true)));
    set("session_id", ScalarValue::Utf8(Some("s".into())));
    let end = get_int(&row, "end_time");
    let lake = MemoryLake::of_calls(&[row], &[]);
    const SECOND: i64 = 1_000_000;
    for (idle, closed) in [
        (0, false),
        (1_799 * SECOND, false),
        (1_800 * SECOND, false),
        (1_800 * SECOND + 1, true),
        (1_801 * SECOND, true),
    ] {
        let mut view = toolgauge_proto::lake::View::clone(&lake.view.lock().unwrap());
        view.watermark = UnixMicros(end + idle);
        *lake.view.lock().unwrap() = std::sync::Arc::new(view);
        assert_eq!(sql.query(&lake, "SELECT closed FROM sessions").await, [[json!(closed)]], "{idle}");
        let filtered = format!("SELECT count(*) FROM sessions WHERE closed = {closed} AND session_id = 's'");
        assert_eq!(sql.count(&lake, &filtered).await, 1, "{idle}");
    }
}

#[tokio::test]
async fn now_is_the_time_of_the_clock() {
    let sql = Sql::new(Settings::default()).await;
    let lake = MemoryLake::of_calls(&[], &[]);
    assert_eq!(sql.query(&lake, "SELECT now()").await, [[json!(toolgauge_queries::json::rfc3339(NOW))]]);
}

#[tokio::test]
async fn tables_and_columns_can_be_listed() {
    let sql = Sql::new(Settings::default()).await;
    let lake = MemoryLake::new((&[], &[]), (&[], &[arrival(minutes_ago(1), None)]), 0);
    let tables = sql
        .query(&lake, "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1")
        .await;
    let expected = [
        "agent_runs",
        "alerts",
        "arrivals",
        "calls",
        "calls_1h",
        "calls_1m",
        "logical_calls",
        "model_calls",
        "quarantine",
        "sessions",
        "slo_1m",
        "tool_calls",
    ];
    assert_eq!(tables, expected.map(|name| vec![json!(name)]));
    assert_eq!(sql.query(&lake, "DESCRIBE calls").await.len(), Table::Calls.columns().len());
    assert!(!sql.query(&lake, "SHOW TABLES").await.is_empty());
    assert!(!sql.query(&lake, "SHOW COLUMNS FROM sessions").await.is_empty());
    assert_eq!(sql.count(&lake, "SELECT count(*) FROM arrivals WHERE tenant IS NULL").await, 1);
}

#[tokio::test]
async fn a_query_lets_its_view_go() {
    let rows = random_calls(7, 20);
    let sql = Sql::new(Settings::default()).await;
    let lake = MemoryLake::of_calls(&rows[..10], &rows[10..]);
    sql.count(&lake, "SELECT count(*) FROM tool_calls").await;
    let view = std::sync::Arc::clone(&lake.view.lock().unwrap());
    crate::support::until("the view is let go", || std::sync::Arc::strong_count(&view) == 2).await;
}
