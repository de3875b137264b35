//! Power cuts at every operation, and at random ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use toolgauge_collector::fs::sim::{SimFs, SimRng, Survival};
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::table::Table;

use crate::files;
use crate::machine::{Down, History, Machine, Query, fresh_disk};
use crate::rows::Rows;
use crate::spans::{SpanOf, export};
use crate::workload::{Plan, Size, Step};
use crate::{each, runs};

/// Carries out a plan on a disk that crashes after each of these numbers of operations, and gives the rows.
fn crash(
    plan: &Plan,
    mut fs: Arc<SimFs>,
    crashes: impl IntoIterator<Item = (u64, Survival, u64)>,
    query: Query,
) -> (Rows, Vec<u64>) {
    let mut history = History::new(plan);
    let mut operations = Vec::new();
    let mut may_be_unsynced = false;
    for (at, survival, seed) in crashes {
        fs.crash_at(at);
        match history.live(&fs, query) {
            // The plan has ended before the crash.
            Ok(_) => break,
            Err(Down) => {
                operations.push(fs.operations());
                fs = fs.restart(seed, survival);
                may_be_unsynced |= survival != Survival::None;
            }
        }
    }
    let fs = fs.restart(1, Survival::ProcessKill);
    let machine = history.live(&fs, query).unwrap();
    operations.push(fs.operations());
    let rows = history.finish(&fs, machine, query);
    if may_be_unsynced {
        // What was found after the crashes is durable by now, whatever a killed process had left unsynced.
        let fs = fs.restart(2, Survival::None);
        let machine = history.live(&fs, query).unwrap();
        drop(history.finish(&fs, machine, query));
    }
    (rows, operations)
}

/// How many operations a plan takes without a crash, and the disk then.
fn operations(plan: &Plan) -> (u64, Arc<SimFs>) {
    let fs = fresh_disk(1);
    let mut history = History::new(plan);
    history.live(&fs, Query::Files).unwrap();
    assert!(history.compacted[0] > 0, "nothing was merged");
    (fs.operations(), fs)
}

/// What a small plan takes, about; its last commits and merges are as likely to be cut off as its first ones.
const PLAN_OPERATIONS: usize = 400;

pub(crate) fn random_survival(rng: &mut SimRng) -> Survival {
    match rng.below(8) {
        0 => Survival::None,
        1 => Survival::All,
        2 => Survival::ProcessKill,
        _ => Survival::Random,
    }
}

/// A plan and its crashes, all from one seed. Crashes after the first often hit the recovery.
fn random_run(seed: u64) -> (Rows, Vec<u64>) {
    let mut rng = SimRng::new(seed);
    let plan = Plan::draw(seed, Size::SMALL);
    let mut crashes = vec![(1 + rng.below(PLAN_OPERATIONS) as u64, random_survival(&mut rng), rng.next_u64())];
    while rng.below(3) == 0 {
        crashes.push((1 + rng.below(30) as u64, random_survival(&mut rng), rng.next_u64()));
    }
    let query = if rng.below(16) == 0 { Query::Tables } else { Query::Files };
    crash(&plan, fresh_disk(seed), crashes, query)
}

/// Scenario: the power fails in each operation of a workload, merges and deletions among them, and everything that was not synced is gone.
/// Guarantees: every row that was acknowledged is found exactly once, decided as without a crash.
#[test]
fn a_power_cut_at_any_operation_leaves_every_row_once() {
    let writes_all = |seed| {
        let plan = Plan::draw(seed, Size::SMALL);
        let (operations, fs) = operations(&plan);
        let all = Table::ALL.iter().all(|table| !files::rows(&fs, *table).is_empty());
        let arrivals = files::rows(&fs, Table::Arrivals);
        let rows: usize = arrivals.iter().map(RecordBatch::num_rows).sum();
        let in_parts = rows > Rows::of([&[], &arrivals, &[]]).arrivals.len();
        (all && in_parts).then_some((plan, operations))
    };
    let found = (1..50).find_map(writes_all);
    let (plan, operations) = found.expect("no history writes every table, and a minute of arrivals in parts");
    assert!(operations > 100, "{operations}");
    each(1..operations + 1, |at| drop(crash(&plan, fresh_disk(1), [(at, Survival::None, at)], Query::Files)));
}

/// Scenario: a crash in each operation in which files of all tables are merged, and deleted later.
/// Guarantees: as above, and no file is left behind.
#[test]
fn a_crash_at_any_operation_of_a_merge_leaves_every_row_once_and_no_file() {
    let mut plan = Plan::draw(1, Size { commit_one_in: 1, ..Size::SMALL });
    plan.steps.retain(|step| !matches!(step, Step::Compact));
    let before = plan.clone();
    let Some(Step::Send { at_us, .. }) = plan.steps.iter().rfind(|step| matches!(step, Step::Send { .. })) else {
        panic!("nothing is sent")
    };
    let later = Step::Send { at_us: at_us + 70_000_000, exports: Vec::new() };
    plan.steps.extend([Step::Compact, later, Step::Commit, Step::Compact]);
    let begin = || {
        let fs = fresh_disk(1);
        let mut history = History::new(&before);
        drop(history.live(&fs, Query::Files).unwrap());
        (fs.restart(1, Survival::ProcessKill), history.with(&plan))
    };
    let (fs, mut history) = begin();
    drop(history.live(&fs, Query::Files).unwrap());
    let [merged, deleted] = history.compacted;
    assert!(merged >= 5 && deleted > 5, "{merged} merges, {deleted} files deleted");
    each(1..fs.operations() + 1, |at| {
        let (fs, mut history) = begin();
        fs.crash_at(at);
        assert!(history.live(&fs, Query::Files).is_err());
        let survival = [Survival::None, Survival::ProcessKill, Survival::Random, Survival::All][(at % 4) as usize];
        let fs = fs.restart(at, survival);
        let mut machine = history.live(&fs, Query::Files).unwrap();
        machine.compactor.delete(u64::MAX).unwrap();
        for table in Table::ALL {
            assert_eq!(files::on_disk(&fs, table), files::named(&fs, table).len(), "files of {}", table.name());
        }
        drop(history.finish(&fs, machine, Query::Files));
    });
}

/// Scenario: random histories live to their end, and every moment of each is looked at as the last one: the disk forgets what was
/// not synced, all of it, nothing of it, or any part. Guarantees: whatever had been acknowledged by then is found exactly once,
/// decided as without a crash, and every derived table says what a recount says. One life gives hundreds of crashes, each for
/// the price of its recovery.
#[test]
fn a_crash_at_any_moment_of_random_histories_leaves_every_row_once() {
    let (crashes, histories) = (AtomicU64::new(0), runs(5));
    each(100_000..100_000 + histories, |seed| {
        let rng = &mut SimRng::new(seed);
        let plan = Plan::draw(seed, Size::SMALL);
        let fs = fresh_disk(seed);
        fs.keep_moments();
        let mut history = History::new(&plan);
        let machine = history.live(&fs, Query::Files).unwrap();
        drop(history.finish(&fs, machine, Query::Files));
        let rows = history.rows_by_position();
        for (moment, operations) in fs.moments().into_iter().zip(0..) {
            history.recover(&moment.restart(rng.next_u64(), random_survival(rng)), operations, &rows);
            crashes.fetch_add(1, Ordering::Relaxed);
        }
    });
    let crashes = crashes.into_inner();
    assert!(crashes > 200 * histories, "{crashes} crashes in {histories} histories");
}

/// Scenario: power cuts anywhere; a part of what was not synced has reached the disk, and the recovery may crash too.
#[test]
fn random_power_cuts_leave_every_row_once() {
    let runs = runs(100);
    each(0..runs, |seed| drop(random_run(seed)));
}

#[test]
fn the_same_seed_is_the_same_run() {
    each(5_000..5_004, |seed| assert_eq!(random_run(seed), random_run(seed)));
}

#[test]
fn a_run_without_a_crash_gives_the_rows_of_a_fold_over_its_whole_log() {
    each(0..4, |seed| {
        let plan = Plan::draw(seed, Size::USUAL);
        let fs = fresh_disk(seed);
        let mut history = History::new(&plan);
        let machine = history.live(&fs, Query::Tables).unwrap();
        let rows = history.finish(&fs, machine, Query::Tables);
        assert_eq!(rows.difference(&history.refold(), &[]), None);
    });
}

/// Scenario: enough commits for several checkpoints of each table, and crashes among them.
#[test]
fn crashes_around_checkpoints_leave_every_row_once() {
    let plan = Plan::draw(1, Size::LONG);
    let (operations, _) = operations(&plan);
    let crashes = (1..=6).map(|seed| (operations / 7 + seed, Survival::Random, seed));
    let (rows, _) = crash(&plan, fresh_disk(1), crashes, Query::Tables);
    assert!(rows.calls.num_rows() > 300, "{}", rows.calls.num_rows());
}

/// Scenario: a first start is cut off at any operation.
#[test]
fn a_first_start_that_crashes_is_made_good_by_the_next() {
    let operations = |crash_at| {
        let fs = SimFs::new(7);
        if let Some(at) = crash_at {
            fs.crash_at(at);
        }
        let opened = Machine::open(&fs);
        assert_eq!(opened.is_err(), crash_at.is_some());
        fs
    };
    let all = operations(None).operations();
    each(1..all + 1, |at| {
        let survival = [Survival::None, Survival::ProcessKill, Survival::Random, Survival::All][(at % 4) as usize];
        let fs = operations(Some(at)).restart(at, survival);
        let plan = Plan::draw(3, Size::TINY);
        let mut history = History::new(&plan);
        let machine = history.live(&fs, Query::Files).unwrap();
        drop(history.finish(&fs, machine, Query::Files));
    });
}

/// Scenario: a span was committed, its frame was forgotten, the collector was started anew; then the span comes again
/// in another export.
#[test]
fn a_span_that_the_log_has_forgotten_is_still_known_after_a_restart() {
    let at_us = 1_767_312_060_000_000;
    let seconds = |s: i64| at_us + s * 1_000_000;
    let span = SpanOf::tool(1, 1, 0, "search").at(at_us - 10, at_us).0;
    let other = SpanOf::tool(2, 2, 0, "search").at(at_us - 10, at_us).0;
    let padding = SpanOf::new(3, 3, 0, "GET /").text("padding", &"x".repeat(5_000)).at(at_us - 10, at_us).0;
    let send = |s, exports: &[usize]| Step::Send { at_us: seconds(s), exports: exports.to_vec() };
    let mut steps = vec![send(0, &[0]), send(1, &[1])];
    // A log of several segments, of which the first can go.
    steps.extend([send(60, &[2]), Step::Commit, send(125, &[]), send(126, &[]), Step::Commit]);
    let forgotten = steps.len();
    steps.extend([send(127, &[3]), send(190, &[]), Step::Commit]);
    let exports = vec![
        export("planner", vec![span.clone(), padding.clone()]),
        export("planner", vec![padding.clone()]),
        export("planner", vec![other.clone(), padding]),
        export("planner", vec![other, span]),
    ];
    let plan = Plan { seed: 0, exports, steps };
    let before = Plan { steps: plan.steps[..forgotten].to_vec(), ..plan.clone() };
    let fs = fresh_disk(1);
    let mut history = History::new(&before);
    let machine = history.live(&fs, Query::Tables).unwrap();
    let first = machine.wal.replay(WalPosition(1)).next().unwrap().unwrap().position;
    assert!(first > WalPosition(1), "the log has forgotten nothing");
    drop(machine);
    let fs = fs.restart(1, Survival::None);
    let mut history = history.with(&plan);
    let machine = history.live(&fs, Query::Tables).unwrap();
    assert_eq!(history.finish(&fs, machine, Query::Tables).calls.num_rows(), 2);
}
