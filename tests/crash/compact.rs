//! Files are merged and old dates removed: no answer changes, no reader loses a file, and nothing is there twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Decimal128Type, Int64Type, TimestampMicrosecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow::util::pretty::pretty_format_batches;
use datafusion::catalog::TableProvider;
use datafusion::prelude::{SessionConfig, SessionContext};
use toolgauge_analytics::hist::Histogram;
use toolgauge_collector::fs::Fs;
use toolgauge_collector::fs::sim::{SimFs, Survival};
use toolgauge_collector::lake::{CompactSettings, Compactor, Exchange, LakeTables};
use toolgauge_proto::id::WriterId;
use toolgauge_proto::table::{ColumnType, Merge, Table};
use toolgauge_proto::time::UnixMicros;

use crate::derived::repeated_keys;
use crate::disk::used;
use crate::files;
use crate::machine::{History, Machine, Query, RUNTIME, fresh_disk, settings};
use crate::rows::in_schema;
use crate::workload::{Plan, Size, Step};

/// Many commits, none of their files merged.
fn many_files(seed: u64) -> (Arc<SimFs>, Machine) {
    let mut plan = Plan::draw(seed, Size { bursts: 6, ..Size::LONG });
    plan.steps.retain(|step| !matches!(step, Step::Compact));
    let fs = fresh_disk(seed);
    let machine = History::new(&plan).live(&fs, Query::Files).unwrap();
    (fs, machine)
}

/// To many questions; the rows of each in the order of their texts.
fn answers(providers: &[Arc<dyn TableProvider>; Table::ALL.len()], trace: &str) -> Vec<String> {
    let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    for table in Table::ALL {
        session.register_table(table.name(), Arc::clone(&providers[table as usize])).unwrap();
    }
    let questions = [
        "SELECT count(*), count(cost_usd), sum(cost_usd), min(start_time), max(end_time), sum(duration_ns) FROM calls",
        "SELECT date, service_name, tool_name, outcome, count(*) FROM calls GROUP BY date, service_name, tool_name, outcome",
        "SELECT * FROM calls",
        "SELECT wal_position, count(*) FROM calls WHERE wal_position > 9 AND wal_position <= 31 GROUP BY wal_position",
        "SELECT count(*) FROM calls WHERE end_time >= timestamp '2026-01-02T00:00:00Z'",
        "SELECT min(tool_name), max(tool_name), min(wal_position), max(wal_position) FROM calls",
        "SELECT count(*) FROM calls WHERE tool_name = 'search' AND tool_name IS NOT NULL",
        "SELECT date, minute, tool_name, outcome, counted, final, sum(calls), sum(cost_usd) FROM calls_1m GROUP BY ALL",
        "SELECT date, hour, tool_name, outcome, counted, final, sum(calls), max(last_end_time) FROM calls_1h GROUP BY ALL",
        "SELECT date, minute, tenant, service_name, sum(spans), sum(calls), max(max_lag_ms) FROM arrivals GROUP BY ALL",
        "SELECT * FROM quarantine",
        "SELECT date, minute, slo, sum(good), sum(bad) FROM slo_1m GROUP BY ALL",
        "SELECT * FROM alerts",
    ]
    .map(str::to_owned);
    let one_trace = format!("SELECT * FROM calls WHERE trace_id = X'{trace}'");
    let ask = |question: String| {
        let rows = RUNTIME.block_on(async { session.sql(&question).await.unwrap().collect().await.unwrap() });
        let text = pretty_format_batches(&rows).unwrap().to_string();
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        format!("{question}\n{}", lines.join("\n"))
    };
    questions.into_iter().chain([one_trace]).map(ask).collect()
}

fn some_trace(calls: &[RecordBatch]) -> String {
    let rows = in_schema(Table::Calls, calls);
    let traces = rows.column(Table::Calls.index_of("trace_id")).as_binary::<i32>();
    let trace = traces.iter().flatten().nth(rows.num_rows() / 2).unwrap();
    trace.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Rows of a file in their order, by the log position they have.
fn is_in_order(calls: &[RecordBatch]) -> bool {
    calls.iter().all(|batch| {
        let positions = batch.column_by_name("wal_position").unwrap().as_primitive::<Int64Type>();
        positions.values().is_sorted()
    })
}

/// Scenario: many small files of all tables are merged while a reader holds what it had before.
/// Guarantees: each question has the same answer before and after, also by the view from before; few files are left, of
/// which the old ones are deleted only when they may be.
#[test]
fn every_question_has_the_same_answer_before_and_after_files_are_merged() {
    let (fs, mut machine) = many_files(1);
    let before = machine.tables.committed();
    let trace = some_trace(&machine.committed_rows()[0]);
    let sums = ADDITIVE.map(|table| rows_of(&fs, table));
    let expected = answers(&before.providers, &trace);
    assert!(before.files.iter().all(|files| *files > 3), "{:?}", before.files);
    assert!(expected[0].contains("2026-01-0") && expected[12].matches("2026-01-0").count() > 2, "{}", expected[12]);
    let on_disk = Table::ALL.map(|table| files::on_disk(&fs, table) as u64);
    assert_eq!(on_disk, before.files);

    assert!(machine.compact().unwrap()[0] >= Table::ALL.len() as u64);
    let after = machine.tables.committed();
    for table in Table::ALL {
        let (before, after) = (before.files[table as usize], after.files[table as usize]);
        assert!(after <= 4 && after < before, "{}: {before} files became {after}", table.name());
    }
    for (expected, found) in expected.iter().zip(answers(&after.providers, &trace)) {
        assert_eq!(*expected, found);
    }
    assert_eq!(answers(&before.providers, &trace), expected, "by a view from before");
    assert_eq!(ADDITIVE.map(|table| rows_of(&fs, table)), sums);
    for table in [Table::Arrivals, Table::Slo1m, Table::Calls1h] {
        assert_eq!(repeated_keys(table, &files::rows(&fs, table)), 0, "{}", table.name());
    }
    assert!(is_in_order(&files::rows(&fs, Table::Calls)));
    assert_eq!(machine.compact().unwrap(), [0; 2], "nothing is merged twice");

    // Nothing may be deleted yet; then everything that is in no table.
    let on_disk = Table::ALL.map(|table| files::on_disk(&fs, table) as u64);
    assert!(on_disk.iter().zip(&before.files).all(|(found, before)| found > before), "{on_disk:?}");
    assert!(machine.compactor.delete(u64::MAX).unwrap() > 20);
    assert_eq!(Table::ALL.map(|table| files::on_disk(&fs, table) as u64), after.files);
    assert_eq!(answers(&after.providers, &trace), expected);
}

/// Scenario: the process ends between the merge and the deletion.
/// Guarantees: files that a reader elsewhere may have open are kept at the start, and deleted by the next process.
#[test]
fn merged_files_are_deleted_by_the_next_process() {
    let (fs, mut machine) = many_files(2);
    machine.compact().unwrap();
    let before = Table::ALL.map(|table| files::on_disk(&fs, table));
    drop(machine);
    let fs = fs.restart(1, Survival::None);
    let mut machine = Machine::open(&fs).unwrap();
    assert_eq!(Table::ALL.map(|table| files::on_disk(&fs, table)), before);
    let keep_us = settings().compact.keep_removed_us;
    assert_eq!(machine.compactor.delete(keep_us - 1).unwrap(), 0);
    assert!(machine.compactor.delete(keep_us).unwrap() > 20);
    for table in Table::ALL {
        assert_eq!(files::on_disk(&fs, table), files::named(&fs, table).len(), "{}", table.name());
    }
    drop(machine.rows(&fs, Query::Files, "after the deletion"));
}

fn open(fs: &Arc<SimFs>, writer: WriterId) -> LakeTables {
    let fs: Arc<dyn Fs> = Arc::<SimFs>::clone(fs);
    LakeTables::open(fs, "/data/lake".into(), writer, settings().fold, RUNTIME.handle()).unwrap()
}

fn prepare(tables: &mut LakeTables, table: Table) -> (Compactor, Exchange) {
    let mut compactor = tables.compactor(settings().compact);
    let task = compactor.task(&tables.files(table).unwrap(), UnixMicros(0)).unwrap();
    let exchange = compactor.prepare(task, &|| false).unwrap().unwrap();
    (compactor, exchange)
}

/// Scenario: two processes have the same tables open, which the lock should have prevented, and merge the same files; then
/// one commits.
/// Guarantees: only one exchange comes through, its loser changes nothing, and every row is there once.
#[test]
fn of_two_compactors_of_the_same_files_one_commits() {
    let (fs, mut machine) = many_files(3);
    let writer = machine.wal.writer();
    for table in Table::ALL {
        let before = rows_of(&fs, table);
        let mut others = [open(&fs, writer), open(&fs, writer)];
        let [(first, one), (second, two)] = others.each_mut().map(|tables| prepare(tables, table));
        let [a, b] = &mut others;
        assert!(a.exchange(&one, UnixMicros(0)).unwrap());
        assert!(!b.exchange(&two, UnixMicros(0)).unwrap(), "{} has rows twice", table.name());
        second.abandon(&two);
        // What one has done, it does not do again.
        assert!(!a.exchange(&one, UnixMicros(0)).unwrap());
        assert_eq!(rows_of(&fs, table), before, "{}", table.name());
        drop(first);
        assert!(!b.exchange(&two, UnixMicros(0)).unwrap());
    }
    // The kept snapshot of the machine is behind: its next commit goes through all the same.
    let mut plan = Plan::draw(103, Size::TINY);
    plan.steps.retain(|step| !matches!(step, Step::Compact));
    for step in &plan.steps {
        match step {
            Step::Send { exports, at_us } => {
                for export in exports {
                    let _position =
                        machine.wal.append(&plan.exports[*export], UnixMicros(at_us + 3_600_000_000)).unwrap();
                }
                machine.wal.tick(UnixMicros(at_us + 3_600_000_000)).unwrap();
                for frame in machine.wal.sync().unwrap() {
                    machine.fold.apply(&frame).unwrap();
                }
            }
            Step::Commit => machine.commit().unwrap(),
            Step::Compact => {}
        }
    }
    drop(machine.rows(&fs, Query::Tables, "after the commits of others"));
}

const ADDITIVE: [Table; 4] = [Table::Arrivals, Table::Calls1m, Table::Slo1m, Table::Calls1h];

/// Each row's text, with how often it is there; of additive tables each key and its sums.
fn rows_of(fs: &SimFs, table: Table) -> BTreeMap<String, usize> {
    let all = in_schema(table, &files::rows(fs, table));
    if table.is_additive() {
        return sums_of(table, &all).into_iter().map(|(key, sums)| (format!("{key}: {sums:?}"), 1)).collect();
    }
    let mut rows = BTreeMap::new();
    for row in 0..all.num_rows() {
        let text = pretty_format_batches(&[all.slice(row, 1)]).unwrap().to_string();
        *rows.entry(text).or_default() += 1;
    }
    rows
}

/// By the text of each key the sums of its rows, those of histograms by bucket.
fn sums_of(table: Table, rows: &RecordBatch) -> BTreeMap<String, BTreeMap<String, i128>> {
    let options = FormatOptions::default().with_null("(null)");
    let mut all: BTreeMap<String, BTreeMap<String, i128>> = BTreeMap::new();
    for row in 0..rows.num_rows() {
        let (mut key, mut found) = (String::new(), Vec::new());
        for (column, array) in table.columns().iter().zip(rows.columns()) {
            let number = || match column.column_type {
                ColumnType::Decimal(_) => array.as_primitive::<Decimal128Type>().value(row),
                ColumnType::Timestamp => array.as_primitive::<TimestampMicrosecondType>().value(row).into(),
                _ => array.as_primitive::<Int64Type>().value(row).into(),
            };
            match table.merge(column) {
                Merge::Key => {
                    let text = ArrayFormatter::try_new(array, &options).unwrap().value(row).to_string();
                    key.push_str(&format!("{text} "));
                }
                Merge::Histogram => {
                    let payloads = array.as_binary::<i32>();
                    let histogram =
                        payloads.is_valid(row).then(|| Histogram::from_payload(payloads.value(row)).unwrap());
                    let buckets = histogram.iter().flat_map(Histogram::buckets);
                    let named = |end| format!("{} up to {end}", column.name);
                    found.extend(buckets.map(|(_, end, n)| (Merge::Sum, named(end), i128::from(n))));
                }
                merge if array.is_valid(row) => found.push((merge, column.name.to_owned(), number())),
                _ => {}
            }
        }
        let sums = all.entry(key).or_default();
        for (merge, name, value) in found {
            let sum = sums.entry(name);
            match merge {
                Merge::Greatest => sum.and_modify(|sum| *sum = value.max(*sum)).or_insert(value),
                _ => sum.and_modify(|sum| *sum += value).or_insert(value),
            };
        }
    }
    all
}

fn by_date(fs: &SimFs, table: Table) -> BTreeMap<String, usize> {
    let mut dates = BTreeMap::new();
    for path in files::named(fs, table) {
        *dates.entry(path[5..15].to_owned()).or_default() += 1;
    }
    dates
}

/// Scenario: a table has two dates; time goes by until one is too old, and much later the other.
/// Guarantees: a date goes as a whole when all of it is too old and not before, from every table but the history of alerts.
#[test]
fn dates_that_are_too_old_go_as_a_whole_and_nothing_else() {
    const DAY_US: i64 = 86_400_000_000;
    let (fs, machine) = many_files(4);
    let writer = machine.wal.writer();
    let before = Table::ALL.map(|table| by_date(&fs, table));
    assert_eq!(before[0].keys().collect::<Vec<_>>(), ["2026-01-01", "2026-01-02"]);
    let calls = rows_of(&fs, Table::Calls);
    drop(machine);

    let mut tables = open(&fs, writer);
    let settings = CompactSettings { merge: false, retention_us: 10 * DAY_US, ..settings().compact };
    let mut compactor = tables.compactor(settings);
    let mut expire = |fs: &SimFs, tables: &mut LakeTables, now: i64| {
        let mut gone = 0;
        for table in Table::ALL {
            while let Some(task) = compactor.task(&tables.files(table).unwrap(), UnixMicros(now)) {
                let exchange = compactor.prepare(task, &|| false).unwrap().unwrap();
                assert!(!exchange.is_merge());
                assert!(tables.exchange(&exchange, UnixMicros(now)).unwrap());
                gone += exchange.files();
                compactor.exchanged(exchange, 0);
            }
        }
        (gone, Table::ALL.map(|table| by_date(fs, table)))
    };
    // 2026-01-12T00:00:00Z: the last moment of the first date is just ten days ago.
    let old = 1_768_176_000_000_000;
    assert_eq!(expire(&fs, &mut tables, old - 1), (0, before.clone()));
    let (gone, after) = expire(&fs, &mut tables, old);
    assert!(gone > 0);
    for (table, (before, after)) in Table::ALL.into_iter().zip(before.iter().zip(&after)) {
        let mut expected = before.clone();
        if table != Table::Alerts {
            expected.remove("2026-01-01");
        }
        assert_eq!(*after, expected, "{}", table.name());
    }
    let mut kept = calls;
    kept.retain(|row, _| row.contains("| 2026-01-02 |"));
    assert!(!kept.is_empty());
    assert_eq!(rows_of(&fs, Table::Calls), kept);

    let (_, after) = expire(&fs, &mut tables, old + DAY_US);
    assert!(after.iter().zip(Table::ALL).all(|(dates, table)| dates.is_empty() == (table != Table::Alerts)));
    drop(tables);
    // A start finds what it needs, and the files of dates that went are deleted when it is time.
    let fs = fs.restart(1, Survival::None);
    let mut tables = open(&fs, writer);
    let mut compactor = tables.compactor(CompactSettings { keep_removed_us: 5, ..CompactSettings::default() });
    assert_eq!(compactor.delete(4).unwrap(), 0);
    assert!(compactor.delete(5).unwrap() > 20);
    assert!(Table::ALL.iter().all(|table| files::on_disk(&fs, *table) == files::named(&fs, *table).len()));
}

/// Scenario: a file is damaged on the disk.
/// Guarantees: what it stands with is not merged, the others are, and it is not tried again and again.
#[test]
fn a_damaged_file_is_left_alone() {
    let (fs, mut machine) = many_files(5);
    let damaged = files::named(&fs, Table::Calls).remove(0);
    let path = std::path::Path::new("/data/lake/calls").join(&damaged);
    let mut file = fs.open_append(&path).unwrap();
    file.write_all_at(0, &vec![0; usize::try_from(file.len().unwrap()).unwrap()]).unwrap();
    let mut failures = 0;
    let now = machine.fold.live().received();
    while let Some(task) = machine.compactor.task(&machine.tables.files(Table::Calls).unwrap(), now) {
        match machine.compactor.prepare(task, &|| false) {
            Ok(exchange) => assert!(machine.tables.exchange(&exchange.unwrap(), now).unwrap()),
            Err(error) => {
                let reason = toolgauge_collector::pipeline::chain(&error);
                assert!(reason.contains("merge files of table \"calls\""), "{reason}");
                failures += 1;
            }
        }
    }
    assert_eq!(failures, 1);
    assert!(files::named(&fs, Table::Calls).contains(&damaged));
}

/// Scenario: the disk has little room, or becomes full while files are merged.
/// Guarantees: no row is lost or doubled, whatever of the commit came through, and it goes through when there is room.
#[test]
fn a_merge_without_room_is_tried_again() {
    let (fs, mut machine) = many_files(6);
    let before = Table::ALL.map(|table| files::on_disk(&fs, table));
    fs.capacity(Some(used(&fs) + 1_000));
    let now = machine.fold.live().received();
    let task = machine.compactor.task(&machine.tables.files(Table::Calls).unwrap(), now).unwrap();
    let full = machine.compactor.prepare(task, &|| false);
    assert!(matches!(full, Err(toolgauge_collector::lake::LakeError::NoRoom { .. })), "{full:?}");
    assert_eq!(Table::ALL.map(|table| files::on_disk(&fs, table)), before);
    fs.capacity(None);

    let rows = Table::ALL.map(|table| rows_of(&fs, table));
    let mut failures = 0;
    for room in [0, 500, 1_000, 2_000, 4_000] {
        for table in Table::ALL {
            let Some(task) = machine.compactor.task(&machine.tables.files(table).unwrap(), now) else {
                continue;
            };
            let exchange = machine.compactor.prepare(task, &|| false).unwrap().unwrap();
            fs.capacity(Some(used(&fs) + room));
            match machine.tables.exchange(&exchange, now) {
                Ok(done) => assert!(done),
                Err(error) => {
                    assert!(matches!(error, toolgauge_collector::lake::LakeError::NoRoom { .. }), "{error:?}");
                    failures += 1;
                }
            }
            fs.capacity(None);
            assert_eq!(rows_of(&fs, table), rows[table as usize], "{} with room for {room} bytes", table.name());
        }
    }
    assert!(failures >= Table::ALL.len(), "{failures}");
    machine.compact().unwrap();
    assert_eq!(Table::ALL.map(|table| rows_of(&fs, table)), rows);
}
