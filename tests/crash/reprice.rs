//! History is priced anew: exactly once, whatever is cut off, and nothing else changes.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Date32Type, Decimal128Type};
use toolgauge_analytics::price::{self, PriceBook, Pricer};
use toolgauge_collector::fs::Fs;
use toolgauge_collector::fs::sim::{SimFs, Survival};
use toolgauge_collector::lake::Repriced;
use toolgauge_collector::pipeline::{self, CollectorError, CollectorSettings};
use toolgauge_collector::prices::Prices;
use toolgauge_proto::table::Table;
use toolgauge_proto::time::UnixMicros;

use crate::machine::{History, Machine, Query, RUNTIME, fresh_disk, settings};
use crate::rows::Rows;
use crate::workload::{Plan, Size};
use crate::{each, runs};

/// The first of the two dates that a plan has rows of.
const DATE: &str = "2026-01-01";
/// Its days since 1970-01-01.
const DAY: i32 = 20_454;

/// Prices what had none, another price for what had one, and none for what had one.
fn corrected() -> PriceBook {
    let text = "[[price]]\ntool = \"weather\"\nunpriced = true\n[[price]]\ntool = \"*\"\nper_call = 0.25\nper_second = 0.001\n";
    let file = price::parse(&Arc::from("corrected.toml"), text);
    assert_eq!(file.faults, []);
    PriceBook::new([file.entries], false)
}

fn reprice(fs: &Arc<SimFs>, book: PriceBook) -> Result<Repriced, CollectorError> {
    let settings = CollectorSettings { prices: Prices::new(book), ..settings() };
    let disk: Arc<dyn Fs> = Arc::<SimFs>::clone(fs);
    let dates = DATE.to_owned()..=DATE.to_owned();
    let now = UnixMicros(1_767_400_000_000_000);
    pipeline::reprice(&settings, disk, now, &dates, RUNTIME.handle(), &mut |_| true)
}

/// Everything that a start finds; it compares the sums with a recount.
fn found(fs: &Arc<SimFs>, when: &str) -> Rows {
    Machine::open(fs).unwrap_or_else(|error| panic!("{when}: {error:?}")).rows(fs, Query::Tables, when)
}

/// Cost and its source of each row.
fn costs(calls: &RecordBatch) -> Vec<Cost> {
    let costs = calls["cost_usd"].as_primitive::<Decimal128Type>();
    let sources = calls["cost_source"].as_string::<i32>();
    (0..calls.num_rows())
        .map(|row| {
            let source = sources.is_valid(row).then(|| sources.value(row).to_owned());
            (costs.is_valid(row).then(|| costs.value(row)), source)
        })
        .collect()
}

/// Amount and source of a cost.
type Cost = (Option<i128>, Option<String>);

/// A disk on which all of a plan is committed, its rows, and what they are to cost.
fn disk(seed: u64) -> (Arc<SimFs>, Rows, Vec<Cost>) {
    let plan = Plan::draw(seed, Size::USUAL);
    let fs = fresh_disk(seed);
    drop(History::new(&plan).live(&fs, Query::Files).unwrap());
    let fs = fs.restart(seed, Survival::ProcessKill);
    let before = found(&fs, "before");
    let priced = costs(&Pricer::new(Arc::new(corrected())).price(&before.calls).unwrap());
    let dates = before.calls.column(Table::Calls.index_of("date")).as_primitive::<Date32Type>();
    let expected = dates.values().iter().zip(priced.into_iter().zip(costs(&before.calls)));
    let expected: Vec<_> = expected.map(|(date, (new, old))| if *date == DAY { new } else { old }).collect();
    let fs = fs.restart(seed, Survival::ProcessKill);
    (fs, before, expected)
}

const COSTS: [&str; 2] = ["cost_usd", "cost_source"];

/// Scenario: one of two dates is priced anew. Guarantees: its costs are those of the new book, reported ones and those of the other
/// date stay, sums are those of a recount; once more changes nothing, and the old book gives the old costs.
#[test]
fn whole_dates_get_the_prices_of_another_book() {
    let (fs, before, expected) = disk(1);
    let old = costs(&before.calls);
    assert!(old.iter().any(|(_, source)| source.as_deref() == Some("reported")));
    assert!(old.iter().zip(&expected).any(|(old, new)| old.0.is_some() && new.0.is_none()));
    assert!(old.iter().zip(&expected).any(|(old, new)| old.0.is_none() && new.0.is_some()));

    let done = reprice(&fs, corrected()).unwrap();
    let changed = old.iter().zip(&expected).filter(|(old, new)| old.0 != new.0).count() as u64;
    assert_eq!((done.changed, done.files), (changed, done.files_total));
    let sum = |costs: &[(Option<i128>, Option<String>)]| costs.iter().filter_map(|(cost, _)| *cost).sum::<i128>();
    assert_eq!(done.after - done.before, sum(&expected) - sum(&old));
    let fs = fs.restart(1, Survival::ProcessKill);
    let after = found(&fs, "after");
    assert_eq!(after.difference(&before, &COSTS), None);
    assert_eq!(costs(&after.calls), expected);
    assert!(fs.metadata("/data/lake/repricing".as_ref()).is_err());

    let fs = fs.restart(2, Survival::ProcessKill);
    let again = reprice(&fs, corrected()).unwrap();
    assert_eq!((again.changed, again.before, again.after), (0, done.after, done.after));
    let fs = fs.restart(3, Survival::ProcessKill);
    let back = reprice(&fs, PriceBook::clone(&settings().prices.get())).unwrap();
    assert_eq!((back.changed, back.after), (changed, done.before));
    let fs = fs.restart(4, Survival::ProcessKill);
    assert_eq!(found(&fs, "back").difference(&before, &[]), None);
}

/// Scenario: the power is cut at any operation of a repricing, or of the start after it. Guarantees: nothing but costs changes, each is
/// the old or the new one, sums are those of a recount; the same command goes on from there.
#[test]
fn a_repricing_that_is_cut_off_leaves_old_or_new_costs_and_sums_that_fit() {
    let (fs, before, expected) = disk(2);
    let old = costs(&before.calls);
    let whole = fs.restart(9, Survival::ProcessKill);
    reprice(&whole, corrected()).unwrap();
    let operations = whole.operations();
    assert!(operations > 30, "{operations}");
    let step = operations.div_ceil(runs(45)).max(1);
    each((1..operations).step_by(usize::try_from(step).unwrap()), |at| {
        let survival = if at % 2 == 0 { Survival::None } else { Survival::Random };
        let disk = fs.restart(at, Survival::ProcessKill);
        disk.crash_at(at);
        let cut = reprice(&disk, corrected());
        assert!(cut.is_err() && disk.is_down(), "operation {at} is behind its end");
        let mut disk = disk.restart(at, survival);
        if at % 3 == 0 {
            disk.crash_at(1 + at % 17);
            if let Ok(machine) = Machine::open(&disk) {
                drop(machine);
            }
            disk = disk.restart(at, survival);
        }
        let rows = found(&disk, &format!("cut off at {at}"));
        assert_eq!(rows.difference(&before, &COSTS), None);
        for (row, found) in costs(&rows.calls).into_iter().enumerate() {
            assert!(found == old[row] || found == expected[row], "row {row}: {found:?}");
        }
        let disk = disk.restart(at, Survival::ProcessKill);
        reprice(&disk, corrected()).unwrap();
        let disk = disk.restart(at, Survival::ProcessKill);
        let rows = found(&disk, &format!("done after {at}"));
        assert_eq!(rows.difference(&before, &COSTS), None);
        assert_eq!(costs(&rows.calls), expected);
    });
}

/// Scenario: the disk becomes full. Guarantees: it is told as such, and the same command goes through when there is room.
#[test]
fn a_repricing_without_room_goes_on_later() {
    let (fs, before, expected) = disk(3);
    fs.capacity(Some(crate::disk::used(&fs) + 2_000));
    let error = reprice(&fs, corrected()).map(|_| ()).unwrap_err();
    assert!(pipeline::chain(&error).contains("no room"), "{}", pipeline::chain(&error));
    fs.capacity(None);
    let fs = fs.restart(1, Survival::ProcessKill);
    assert_eq!(found(&fs, "without room").difference(&before, &COSTS), None);
    let fs = fs.restart(2, Survival::ProcessKill);
    reprice(&fs, corrected()).unwrap();
    let fs = fs.restart(3, Survival::ProcessKill);
    assert_eq!(costs(&found(&fs, "with room").calls), expected);
}
