//! Statements that would write, read files, or never end: each has its answer, and the engine answers afterwards.

use std::time::Duration;

use serde_json::json;
use toolgauge_proto::lake::Lake;
use toolgauge_queries::engine::{Error, LITERALS_MAX, OPERATORS_MAX, STATEMENT_BYTES_MAX, Settings};

use crate::support::{MemoryLake, Rng, Row, Sql, now, random_call, until};

fn tight() -> Settings {
    Settings {
        memory_bytes: 32 << 20,
        spill_bytes_max: 64 << 20,
        timeout: Duration::from_secs(2),
        concurrent_max: 2,
        target_partitions: 2,
        ..Settings::default()
    }
}

fn lake() -> std::sync::Arc<MemoryLake> {
    let mut rng = Rng::new(1);
    let rows: Vec<Row> = (1..=1_000).map(|position| random_call(&mut rng, position)).collect();
    MemoryLake::of_calls(&rows[..500], &rows[500..])
}

/// Scenario: each statement in turn. Guarantees: the kind of error, words of its message, and that the engine answers
/// the next statement.
#[tokio::test]
async fn statements_that_do_more_than_read_tables_are_refused() {
    let (sql, lake) = (Sql::new(tight()).await, lake());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "secret,words\n").unwrap();
    let path = file.path().display().to_string();
    let target = tempfile::tempdir().unwrap();
    let target = target.path().join("out.csv").display().to_string();
    let refused = [
        "INSERT INTO calls VALUES (1)".to_owned(),
        "WITH x AS (SELECT 1) INSERT INTO calls SELECT * FROM x".to_owned(),
        "UPDATE calls SET tenant = 'x'".to_owned(),
        "DELETE FROM calls".to_owned(),
        "TRUNCATE TABLE calls".to_owned(),
        "DROP TABLE calls".to_owned(),
        "DROP VIEW tool_calls".to_owned(),
        "CREATE TABLE t AS SELECT 1".to_owned(),
        "CREATE VIEW v AS SELECT 1".to_owned(),
        "CREATE SCHEMA s".to_owned(),
        "CREATE DATABASE d".to_owned(),
        "SELECT 1 AS a INTO t".to_owned(),
        format!("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{path}'"),
        format!("COPY (SELECT 1) TO '{target}' STORED AS CSV"),
        format!("COPY calls TO '{target}'"),
        format!("EXPLAIN COPY calls TO '{target}'"),
        format!("EXPLAIN ANALYZE COPY calls TO '{target}' STORED AS CSV"),
        "EXPLAIN ANALYZE INSERT INTO calls VALUES (1)".to_owned(),
        "SET datafusion.execution.batch_size = 1".to_owned(),
        "RESET datafusion.execution.batch_size".to_owned(),
        "PREPARE p AS SELECT 1".to_owned(),
        "EXECUTE p".to_owned(),
        "DEALLOCATE p".to_owned(),
        "BEGIN".to_owned(),
        "COMMIT".to_owned(),
        "SELECT 1; SELECT 2".to_owned(),
        "SELECT 1; DROP TABLE calls".to_owned(),
        "CREATE FUNCTION f() RETURNS INT RETURN 1".to_owned(),
        "GRANT ALL ON calls TO bob".to_owned(),
        "KILL 1".to_owned(),
        "USE x".to_owned(),
        "ANALYZE TABLE calls".to_owned(),
    ];
    for statement in refused {
        let error = sql.try_query(&lake, &statement).await.unwrap_err();
        assert!(matches!(error, Error::NotReadOnly(_)), "{statement}: {error:?}");
        assert!(error.to_string().starts_with("only one reading statement is allowed"), "{statement}: {error}");
    }
    assert!(!std::path::Path::new(&target).exists());
    let invalid = [
        ("SELECT * FROM '/etc/passwd'".to_owned(), "/etc/passwd' not found"),
        (format!("SELECT * FROM '{path}'"), "not found"),
        (format!("SELECT * FROM \"file://{path}\""), "not found"),
        (format!("SELECT * FROM read_csv('{path}')"), "read_csv"),
        (format!("SELECT * FROM read_parquet('{path}')"), "read_parquet"),
        (format!("SELECT * FROM parquet_metadata('{path}')"), "parquet_metadata"),
        ("SELECT * FROM glob('/etc/*')".to_owned(), "glob"),
        ("SELECT pg_read_file('/etc/passwd')".to_owned(), "pg_read_file"),
        ("SELECT repeat('x', 2000000000)".to_owned(), "repeat"),
        ("SELECT lpad('x', 2000000000)".to_owned(), "lpad"),
        ("SELECT range(0, 100000000000)".to_owned(), "range"),
        ("SELECT generate_series(0, 100000000000)".to_owned(), "generate_series"),
        ("SELECT list_repeat(1, 100000000000)".to_owned(), "list_repeat"),
        ("SELECT array_resize([1], 100000000000)".to_owned(), "array_resize"),
        ("SELECT * FROM nothing".to_owned(), "nothing"),
        ("SELECT nothing FROM calls".to_owned(), "nothing"),
        ("SELEC 1".to_owned(), "SELEC"),
        ("SELECT 'open".to_owned(), "string"),
        (String::new(), "there is no statement"),
        (" ; ; -- nothing".to_owned(), "there is no statement"),
        ("SELECT latency_quantile(duration_ns, 2) FROM calls".to_owned(), "from 0 to 1"),
        ("SELECT latency_quantile(duration_ns) FROM calls".to_owned(), "one quantile"),
        ("SELECT latency_quantiles(tenant, 0.5) FROM calls".to_owned(), "1 to 32 quantiles"),
    ];
    for (statement, words) in invalid {
        let error = sql.try_query(&lake, &statement).await.unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{statement}: {error:?}");
        assert!(error.to_string().to_lowercase().contains(&words.to_lowercase()), "{statement}: {error}");
    }
    let error = sql.try_query(&lake, "SELECT 1 / (attempt - attempt) FROM calls").await.unwrap_err();
    assert!(matches!(error, Error::Failed(_)), "{error:?}");
    assert_eq!(sql.query(&lake, "SELECT 1").await, [[json!(1)]]);
}

#[tokio::test]
async fn endless_statements_are_stopped() {
    let (sql, lake) = (Sql::new(tight()).await, lake());
    for statement in [
        "SELECT sum(a.attempt + b.attempt) FROM calls a, calls b, calls c, calls d, calls e",
        "SELECT sum(a.duration_ns * b.duration_ns) FROM calls a, calls b, calls c, calls d WHERE a.tenant <> d.tenant",
        "SELECT count(*) FROM generate_series(1, 1000000000000)",
        "SELECT sum(a.value + b.value) FROM range(0, 10000000) a, range(0, 10000000) b",
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t",
        "EXPLAIN ANALYZE SELECT sum(a.attempt + b.attempt) FROM calls a, calls b, calls c, calls d, calls e",
    ] {
        let error = sql.try_query(&lake, statement).await.unwrap_err();
        assert!(matches!(error, Error::Timeout(_) | Error::OutOfMemory(_)), "{statement}: {error:?}");
        until(statement, || sql.engine.running() == 0).await;
        assert_eq!(sql.query(&lake, "SELECT 1").await, [[json!(1)]]);
    }
}

#[tokio::test]
async fn statements_over_the_memory_end_with_an_error_that_says_so() {
    let settings = Settings { memory_bytes: 1 << 20, spill_bytes_max: 1 << 20, ..tight() };
    let (sql, lake) = (Sql::new(Settings { timeout: Duration::from_secs(20), ..settings }).await, lake());
    for statement in [
        "SELECT value, count(*) FROM generate_series(1, 10000000) GROUP BY value ORDER BY 2",
        "SELECT array_agg(a.row_id) FROM calls a, calls b",
        "SELECT count(*) FROM generate_series(1, 10000000) a JOIN generate_series(1, 10000000) b ON a.value = b.value",
    ] {
        let error = sql.try_query(&lake, statement).await.unwrap_err();
        assert!(matches!(error, Error::OutOfMemory(_)), "{statement}: {error:?}");
        assert_eq!(sql.query(&lake, "SELECT 1").await, [[json!(1)]]);
    }
}

#[tokio::test]
async fn sorts_over_the_memory_spill() {
    let settings = Settings { memory_bytes: 24 << 20, timeout: Duration::from_secs(60), rows_max: 3, ..tight() };
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { spill_folder: Some(folder.path().to_owned()), spill_bytes_max: 1 << 30, ..settings };
    let (sql, lake) = (Sql::new(settings).await, lake());
    let found = sql
        .query(
            &lake,
            "SELECT max(r) FROM (SELECT row_number() OVER (ORDER BY value % 1000, value) AS r \
             FROM generate_series(1, 3000000))",
        )
        .await;
    assert_eq!(found, [[json!(3_000_000)]]);
}

#[tokio::test]
async fn deep_and_long_statements_are_answered_or_refused() {
    let settings = Settings { timeout: Duration::from_secs(60), ..Settings::default() };
    let (sql, lake) = (Sql::new(settings).await, lake());
    let nested = |depth: usize| format!("SELECT {}1{}", "(".repeat(depth), ")".repeat(depth));
    let error = sql.try_query(&lake, &nested(900)).await.unwrap_err();
    assert!(error.to_string().contains("RecursionLimitExceeded") || error.to_string().contains("recursion"), "{error}");
    let subqueries = format!("SELECT * FROM {}calls{}", "(SELECT * FROM ".repeat(300), ")".repeat(300));
    assert!(matches!(sql.try_query(&lake, &subqueries).await.unwrap_err(), Error::Invalid(_)));
    let error = sql.try_query(&lake, &nested(STATEMENT_BYTES_MAX / 2 - 10)).await.unwrap_err();
    assert!(matches!(error, Error::TooComplex { what: "words and signs", .. }), "{error:?}");

    // As deep as is allowed: answered, without running out of stack.
    let terms = OPERATORS_MAX;
    let chain = format!("SELECT 1{}", " + 1".repeat(terms));
    assert_eq!(sql.query(&lake, &chain).await, [[json!(terms + 1)]]);
    let ors =
        format!("SELECT count(*) FROM calls WHERE attempt > 98{}", " OR attempt = 98".repeat(OPERATORS_MAX / 2 - 1));
    assert_eq!(sql.count(&lake, &ors).await, 0);
    let unions = format!("SELECT count(*) FROM (SELECT 1{})", " UNION ALL SELECT 1".repeat(300));
    assert_eq!(sql.count(&lake, &unions).await, 301);
    for chain in [" + 1", " OR true", " IS NULL", "::int", " || 'x'"] {
        let error = sql.try_query(&lake, &format!("SELECT 1{}", chain.repeat(OPERATORS_MAX + 1))).await.unwrap_err();
        assert!(matches!(error, Error::TooComplex { what: "operators", .. }), "{error:?}");
    }

    // Long lists of values are fine up to a limit of their own.
    let list = |n: usize| (1..n).map(|i| format!(",{}", i + 1_000)).collect::<String>();
    let within = |n: usize| format!("SELECT count(*) FROM calls WHERE attempt IN (1{})", list(n));
    let expected = sql.count(&lake, "SELECT count(*) FROM calls WHERE attempt = 1").await;
    assert_eq!(sql.count(&lake, &within(LITERALS_MAX)).await, expected);
    let error = sql.try_query(&lake, &within(LITERALS_MAX + 1)).await.unwrap_err();
    assert!(matches!(error, Error::TooComplex { what: "literals", .. }), "{error:?}");
    let long = format!("SELECT '{}'", "x".repeat(STATEMENT_BYTES_MAX));
    let error = sql.try_query(&lake, &long).await.unwrap_err();
    assert!(matches!(error, Error::TooComplex { what: "bytes", .. }), "{error:?}");
    assert_eq!(sql.query(&lake, "SELECT 1").await, [[json!(1)]]);
}

#[tokio::test]
async fn answers_are_cut_at_the_limits() {
    let (sql, lake) = (Sql::new(Settings { rows_max: 10, ..tight() }).await, lake());
    for (statement, rows, truncated) in [
        ("SELECT * FROM calls", 10, true),
        ("SELECT * FROM calls ORDER BY duration_ns", 10, true),
        ("SELECT * FROM generate_series(1, 1000000000000)", 10, true),
        ("SELECT * FROM generate_series(1, 11)", 10, true),
        ("SELECT * FROM generate_series(1, 10)", 10, false),
        ("SELECT * FROM calls WHERE false", 0, false),
        ("EXPLAIN SELECT * FROM calls", 2, false),
    ] {
        let answer = sql.try_query(&lake, statement).await.unwrap();
        assert_eq!((answer.rows(), answer.truncated), (rows, truncated), "{statement}");
    }
    let sql = Sql::new(Settings { result_bytes_max: 1, rows_max: usize::MAX, ..tight() }).await;
    let answer = sql.try_query(&lake, "SELECT * FROM generate_series(1, 1000000)").await.unwrap();
    assert!(answer.truncated && answer.rows() < 1_000_000);
}

/// Scenario: the only place is held by work that does not stop. Guarantees: a statement that finds no place in its time
/// is told so; one that waits gets the place when it comes free.
#[tokio::test]
async fn waiting_for_a_place_ends_with_an_overload() {
    let settings = Settings { concurrent_max: 1, timeout: Duration::from_secs(1), ..tight() };
    let (sql, lake) = (Sql::new(settings).await, lake());
    let (release, released) = std::sync::mpsc::channel::<()>();
    let holder = tokio::spawn({
        let (engine, schema) = (std::sync::Arc::clone(&sql.engine), sql.catalog.schema(lake.view()));
        async move { engine.run(schema, now(), async move |_| Ok(released.recv().is_ok())).await }
    });
    until("the place is taken", || sql.engine.running() == 1).await;
    assert!(matches!(sql.try_query(&lake, "SELECT 1").await, Err(Error::Overloaded(_))));
    assert!(matches!(holder.await.unwrap(), Err(Error::Timeout(_))));
    assert_eq!(sql.engine.running(), 1);
    release.send(()).unwrap();
    until("the place is free", || sql.engine.running() == 0).await;
    assert_eq!(sql.query(&lake, "SELECT 1").await, [[json!(1)]]);
}

#[tokio::test]
async fn a_statement_nobody_waits_for_is_stopped() {
    let settings = Settings { timeout: Duration::from_secs(600), ..tight() };
    let (sql, lake) = (Sql::new(settings).await, lake());
    let endless = tokio::spawn({
        let (sql, lake) = (sql.clone(), std::sync::Arc::clone(&lake));
        async move { sql.try_query(&lake, "SELECT count(*) FROM generate_series(1, 1000000000000)").await }
    });
    until("it runs", || sql.engine.running() == 1).await;
    endless.abort();
    until("it has stopped", || sql.engine.running() == 0).await;
}

#[tokio::test]
async fn a_panic_is_an_error_of_its_statement() {
    let (sql, lake) = (Sql::new(tight()).await, lake());
    let schema = sql.catalog.schema(lake.view());
    let panics = async |_| -> Result<(), Error> { panic!("a fault inside") };
    let error = sql.engine.run(schema, now(), panics).await.unwrap_err();
    assert!(matches!(error, Error::Internal(_)), "{error:?}");
    assert_eq!(sql.query(&lake, "SELECT 1").await, [[json!(1)]]);
}
