//! A disk that is full, or that fails, while rows are committed.

use std::sync::Arc;

use toolgauge_collector::fs::sim::{SimFs, Survival};
use toolgauge_collector::lake::LakeError;

use crate::each;
use crate::machine::{History, Machine, Query, fresh_disk};
use crate::workload::{Plan, Size, Step};

/// A plan that leaves everything settled and nothing committed.
fn uncommitted() -> Plan {
    let mut plan = Plan::draw(4, Size::SMALL);
    plan.steps.retain(|step| !matches!(step, Step::Commit));
    plan
}

fn settled(plan: &Plan) -> (Arc<SimFs>, History<'_>, Machine) {
    let fs = fresh_disk(4);
    let mut history = History::new(plan);
    let machine = history.live(&fs, Query::Files).unwrap();
    assert!(machine.fold.live().live_rows() > 20);
    (fs, history, machine)
}

/// The only failure that lets the committer try again.
fn is_full(error: &LakeError) -> bool {
    matches!(error, LakeError::NoRoom { .. })
}

/// Scenario: the disk is full; room is made piece by piece, and the same commit is tried again each time.
#[test]
fn a_commit_that_found_no_room_succeeds_when_there_is_some() {
    let plan = uncommitted();
    let (fs, mut history, mut machine) = settled(&plan);
    let (commit, marks) = machine.begin_commit().unwrap();
    let mut room = used(&fs);
    let mut failed = 0;
    loop {
        fs.capacity(Some(room));
        match machine.tables.commit(&commit) {
            Ok(()) => break,
            Err(error) => {
                assert!(is_full(&error), "{}", toolgauge_collector::pipeline::chain(&error));
                failed += 1;
            }
        }
        room += 1_000;
    }
    assert!(failed > 10, "{failed}");
    fs.capacity(None);
    machine.fold.end_commit(marks);
    drop(history.finish(&fs, machine, Query::Tables));
}

/// Scenario: as above, but the process ends after the failure.
#[test]
fn a_start_after_a_commit_that_found_no_room_has_every_row_once() {
    let plan = uncommitted();
    each(0..16, |step| {
        let (fs, mut history, mut machine) = settled(&plan);
        let (commit, _) = machine.begin_commit().unwrap();
        fs.capacity(Some(used(&fs) + step * 2_500));
        if let Err(error) = machine.tables.commit(&commit) {
            assert!(is_full(&error), "{}", toolgauge_collector::pipeline::chain(&error));
        }
        let survival = [Survival::None, Survival::ProcessKill, Survival::All, Survival::Random][(step % 4) as usize];
        let fs = fs.restart(step, survival);
        fs.capacity(None);
        again(&fs, &mut history);
    });
}

/// Scenario: each sync of a commit fails once; the process ends, as it must.
#[test]
fn a_failed_sync_fails_the_commit_and_the_next_start_has_every_row_once() {
    let plan = uncommitted();
    let syncs = 40;
    let failures = std::sync::atomic::AtomicU64::new(0);
    each(1..syncs, |nth| {
        let (fs, mut history, mut machine) = settled(&plan);
        let (commit, _) = machine.begin_commit().unwrap();
        fs.fail_sync("/data/lake", nth);
        if machine.tables.commit(&commit).is_err() {
            failures.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        let survival = [Survival::None, Survival::ProcessKill, Survival::All, Survival::Random][(nth % 4) as usize];
        let fs = fs.restart(nth, survival);
        again(&fs, &mut history);
    });
    // Three tables, two dates of calls: at least a file, its folder, a commit, the log's folder of each.
    assert!(failures.into_inner() >= 12);
}

fn again(fs: &Arc<SimFs>, history: &mut History<'_>) {
    let mut machine = history.live(fs, Query::Files).unwrap();
    machine.commit().unwrap();
    drop(history.finish(fs, machine, Query::Tables));
}

/// Bytes of all files.
pub(crate) fn used(fs: &SimFs) -> u64 {
    use toolgauge_collector::fs::Fs as _;
    fs.capacity(Some(1 << 30));
    let used = (1 << 30) - fs.available_bytes(std::path::Path::new("/data")).unwrap();
    fs.capacity(None);
    used
}
