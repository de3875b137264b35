//! Folders that were moved away: derived tables that are made anew, and a log that begins anew.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use toolgauge_collector::fs::Fs;
use toolgauge_collector::fs::sim::{SimFs, Survival};
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::table::Table;
use toolgauge_proto::time::UnixMicros;

use crate::each;
use crate::machine::{History, Machine, Query, fresh_disk};
use crate::rows::in_schema;
use crate::workload::{Plan, Size, Step};

pub(crate) fn remove(fs: &SimFs, folder: &Path) {
    for entry in fs.list_dir(folder).unwrap() {
        let path = folder.join(&entry.name);
        if entry.is_dir { remove(fs, &path) } else { fs.remove_file(&path).unwrap() }
    }
    fs.remove_dir(folder).unwrap();
    fs.sync_dir(folder.parent().unwrap()).unwrap();
}

/// Scenario: somewhere in a plan the collector is stopped, the folders of derived tables are removed, and it goes on.
#[test]
fn derived_tables_whose_folders_were_removed_are_made_anew() {
    each(0..12, |seed| {
        let plan = Plan::draw(seed, Size::USUAL);
        let half = Plan { steps: plan.steps[..plan.steps.len() / 2].to_vec(), ..plan.clone() };
        let fs = fresh_disk(seed);
        let mut history = History::new(&half);
        drop(history.live(&fs, Query::Files).unwrap());
        let fs = fs.restart(seed, Survival::ProcessKill);
        for (table, bit) in [(Table::Calls1m, 1), (Table::Slo1m, 2), (Table::Calls1h, 4)] {
            if (seed + 1) & bit != 0 {
                remove(&fs, &Path::new("/data/lake").join(table.name()));
            }
        }
        let mut history = history.with(&plan);
        let machine = history.live(&fs, Query::Files).unwrap();
        drop(history.finish(&fs, machine, Query::Tables));
    });
}

const HOUR_US: i64 = 3_600_000_000;

/// Carries out a plan on its own, without an oracle, later by so much.
fn carry_out(machine: &mut Machine, plan: &Plan, later_us: i64) {
    for step in &plan.steps {
        match step {
            Step::Commit => machine.commit().unwrap(),
            Step::Compact => {
                machine.compact().unwrap();
            }
            Step::Send { at_us, exports } => {
                let at = UnixMicros(at_us + later_us);
                for export in exports {
                    let _position = machine.wal.append(&plan.exports[*export], at).unwrap();
                }
                machine.wal.tick(at).unwrap();
                for frame in machine.wal.sync().unwrap() {
                    machine.fold.apply(&frame).unwrap();
                }
            }
        }
    }
}

fn calls(fs: &SimFs) -> Vec<RecordBatch> {
    crate::files::rows(fs, Table::Calls)
}

fn positions(calls: &[RecordBatch]) -> Vec<i64> {
    let rows = in_schema(Table::Calls, calls);
    let mut positions =
        rows.column(Table::Calls.index_of("wal_position")).as_primitive::<Int64Type>().values().to_vec();
    positions.sort_unstable();
    positions
}

/// Scenario: the log of a data folder is moved away, before and after its rows were folded, and another one begins; later
/// `calls_1m` is removed too.
/// Guarantees: positions go on, folds go on where those of the first log ended, and every row of both is counted once.
#[test]
fn another_log_of_the_same_folder_goes_on_with_positions_and_folds() {
    each(0..8, |seed| {
        let fs = fresh_disk(seed);
        let mut machine = Machine::open(&fs).unwrap();
        let first = machine.wal.writer();
        let mut plan = Plan::draw(seed, Size::SMALL);
        if seed % 2 == 0 {
            // What is not committed goes with the log.
            plan.steps.truncate(plan.steps.len() - 5);
        }
        carry_out(&mut machine, &plan, 0);
        drop(machine);
        remove(&fs, Path::new("/data/wal"));
        let before = positions(&calls(&fs));
        let end = before.iter().copied().max().unwrap();

        let mut machine = Machine::open(&fs).unwrap();
        assert_ne!(machine.wal.writer(), first);
        assert!(machine.wal.synced().as_i64() >= end, "{} goes on before {end}", machine.wal.synced());
        drop(machine.rows(&fs, Query::Files, "with the second log"));
        // The same spans again are known, others are new.
        carry_out(&mut machine, &plan, 0);
        carry_out(&mut machine, &Plan::draw(seed + 100, Size::SMALL), HOUR_US);
        let mut after = positions(&calls(&fs));
        let new = after.split_off(before.len());
        assert_eq!(after, before);
        let ids = Arc::clone(in_schema(Table::Calls, &calls(&fs)).column(Table::Calls.index_of("row_id")));
        let distinct: HashSet<&[u8]> = ids.as_binary::<i32>().iter().flatten().collect();
        assert_eq!(distinct.len(), ids.len(), "a row is there twice");
        assert!(!new.is_empty() && new.iter().all(|position| *position > end), "{new:?} after {end}");
        drop(machine.rows(&fs, Query::Files, "after the second log's rows"));
        drop(machine);

        let fs = fs.restart(seed, Survival::ProcessKill);
        let mut machine = Machine::open(&fs).unwrap();
        drop(machine.rows(&fs, Query::Tables, "after a restart"));
        drop(machine);
        let fs = fs.restart(seed, Survival::ProcessKill);
        for table in [Table::Calls1m, Table::Calls1h] {
            remove(&fs, &Path::new("/data/lake").join(table.name()));
            let mut machine = Machine::open(&fs).unwrap();
            drop(machine.rows(&fs, Query::Tables, &format!("after {} was removed", table.name())));
            drop(machine);
        }
    });
}

/// Scenario: another log begins, and ends before it has committed anything.
#[test]
fn another_log_that_has_committed_nothing_is_opened_again() {
    let fs = fresh_disk(1);
    let mut machine = Machine::open(&fs).unwrap();
    carry_out(&mut machine, &Plan::draw(1, Size::SMALL), 0);
    drop(machine);
    remove(&fs, Path::new("/data/wal"));
    let machine = Machine::open(&fs).unwrap();
    let begin = machine.wal.synced();
    assert!(begin > WalPosition(0));
    drop(machine);
    let fs = Arc::clone(&fs).restart(1, Survival::None);
    let mut machine = Machine::open(&fs).unwrap();
    assert_eq!(machine.wal.synced(), begin);
    let at = UnixMicros(1_767_400_000_000_000);
    machine.wal.tick(at).unwrap();
    for frame in machine.wal.sync().unwrap() {
        machine.fold.apply(&frame).unwrap();
    }
    drop(machine);
    let mut machine = Machine::open(&fs.restart(2, Survival::None)).unwrap();
    assert_eq!(machine.wal.synced(), begin.next());
    assert_eq!(machine.fold.view().unwrap().position, begin.next());
}
