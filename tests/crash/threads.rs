//! The collector on its threads: what readers see at any moment, the feed, and what readers append.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use toolgauge_collector::export::{Export, Sink as _};
use toolgauge_collector::fs::Fs;
use toolgauge_collector::fs::sim::{SimFs, SimRng};
use toolgauge_collector::pipeline::{Collector, CollectorSettings};
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::lake::{AppendError, Feed, FeedItem, Lake, Txn, View};
use toolgauge_proto::table::Table;
use toolgauge_proto::time::{Clock, UnixMicros};

use crate::derived::{compare_sums, live, rows_of};
use crate::machine::{RUNTIME, fresh_disk, read, settings};
use crate::rows::in_schema;
use crate::spans::{SpanOf, export};
use crate::workload::{Plan, Size, Step};

/// How long anything may take on a loaded machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
pub(crate) const AT_US: i64 = 1_767_312_060_000_000;

/// A clock that stands where it was set.
#[derive(Debug)]
pub(crate) struct Set(AtomicI64);

impl Set {
    pub(crate) fn at(at_us: i64) -> Self {
        Self(AtomicI64::new(at_us))
    }

    pub(crate) fn set(&self, at_us: i64) {
        self.0.store(at_us, Ordering::SeqCst);
    }
}

impl Clock for Set {
    fn now(&self) -> UnixMicros {
        UnixMicros(self.0.load(Ordering::SeqCst))
    }
}

struct Running {
    collector: Collector,
    lake: Arc<dyn Lake>,
    clock: Arc<Set>,
}

impl Running {
    /// Commits whenever something has settled; an idle log ticks all the time.
    fn start(fs: &Arc<SimFs>, change: impl FnOnce(&mut CollectorSettings)) -> Self {
        let mut settings = settings();
        settings.wal.tick_interval_us = 1_000;
        settings.commit_interval_us = 0;
        settings.publish_interval_us = 2_000;
        change(&mut settings);
        let clock = Arc::new(Set::at(AT_US));
        let fs: Arc<dyn Fs> = Arc::<SimFs>::clone(fs);
        let collector =
            Collector::start(settings, fs, Arc::<Set>::clone(&clock) as Arc<dyn Clock>, RUNTIME.handle()).unwrap();
        let lake = collector.lake();
        Self { collector, lake, clock }
    }

    fn set(&self, at_us: i64) {
        self.clock.set(at_us);
    }

    /// Sends one export of one call.
    fn call(&self, number: u64) {
        let now = self.clock.now().0;
        let span = SpanOf::tool(number, number, 0, "search").at(now - 10, now).0;
        self.send(export("planner", vec![span]));
    }

    fn send(&self, export: Export) {
        RUNTIME.block_on(self.collector.sink().append(export)).unwrap();
    }

    /// Looks at views until one is as wished; fails with the last one.
    fn until(&self, what: &str, wished: impl Fn(&View) -> bool) -> Arc<View> {
        let began = Instant::now();
        loop {
            let view = self.lake.view();
            if wished(&view) {
                return view;
            }
            let at = (view.position, view.settled, view.committed);
            assert!(began.elapsed() < LIMIT, "not within {LIMIT:?}: {what}; position, settled, committed: {at:?}");
            std::thread::yield_now();
        }
    }

    /// Lets everything that was acknowledged settle, and waits until that shows.
    fn settle(&self) {
        let last = WalPosition(self.lake.status().wal_synced);
        self.set(self.clock.now().0 + 3_000_000);
        self.until("settled", |view| view.settled >= last);
    }

    /// As above, and waits until all of it is committed.
    fn commit(&self) {
        self.settle();
        self.until("committed", |view| live_calls(view).is_empty());
    }

    fn append(&self, table: Table, name: &str, version: i64) -> Result<bool, AppendError> {
        let rows = rows_of(table, AT_US, &[("date", vec![AT_US])]);
        let app_id = format!("{}/{name}", self.lake.writer());
        self.lake.append(table, vec![live(table, &rows)], Txn { app_id, version })
    }
}

/// All rows of a table of a view.
pub(crate) fn rows(view: &View, table: Table) -> Vec<RecordBatch> {
    let mut rows = read(Arc::clone(&view.table(table).committed));
    rows.extend(view.table(table).live.get().unwrap().iter().cloned());
    rows
}

/// The calls that are not committed, by log position.
fn live_calls(view: &View) -> BTreeMap<i64, usize> {
    by_position(&view.table(Table::Calls).live.get().unwrap())
}

/// Calls by log position.
fn by_position(calls: &[RecordBatch]) -> BTreeMap<i64, usize> {
    let rows = in_schema(Table::Calls, calls);
    let positions = rows.column(Table::Calls.index_of("wal_position")).as_primitive::<Int64Type>();
    let mut counts = BTreeMap::new();
    for position in positions.values() {
        *counts.entry(*position).or_default() += 1;
    }
    counts
}

fn drain(feed: &dyn Feed, taken: &mut BTreeMap<i64, usize>, up_to: &mut WalPosition) {
    while let FeedItem::Rows(item) = feed.recv(Duration::ZERO) {
        let rows = by_position(&item.rows);
        let (after, last) = (up_to.as_i64(), item.up_to.as_i64());
        assert!(rows.keys().all(|position| (after + 1..=last).contains(position)), "{rows:?} in ({after}, {last}]");
        *up_to = item.up_to;
        taken.extend(rows);
    }
}

/// Scenario: traffic with retries and nested views; meanwhile somebody looks, drains a feed and appends, and files are merged.
/// Guarantees: in every view the sums of `calls_1m` are those of its `calls`; what the feed gave, and the later live rows
/// of any view, are exactly its `calls`; what was appended is in the next view.
#[test]
fn every_view_is_exact_and_the_feed_has_no_gap() {
    for seed in 0..3 {
        let plan = Plan::draw(seed, Size::USUAL);
        let running = Running::start(&fresh_disk(seed), |settings| settings.compact.interval_us = 1_000);
        let rng = &mut SimRng::new(seed);
        let feed = running.lake.feed();
        let (mut taken, mut up_to) = (BTreeMap::new(), feed.after());
        let mut appended = 0;
        for step in &plan.steps {
            if let Step::Send { at_us, exports } = step {
                running.set(*at_us);
                for number in exports {
                    running.send(plan.exports[*number].clone());
                }
            }
            if rng.below(3) == 0 {
                appended += 1;
                assert!(running.append(Table::Slo1m, "slo_1m", appended).unwrap());
                let slo_1m = in_schema(Table::Slo1m, &rows(&running.lake.view(), Table::Slo1m));
                let good = slo_1m.column(Table::Slo1m.index_of("good")).as_primitive::<Int64Type>();
                assert_eq!(good.values().iter().sum::<i64>(), appended * AT_US);
            }
            if rng.below(2) == 0 {
                look(&running, &*feed, &mut taken, &mut up_to);
            }
        }
        running.commit();
        look(&running, &*feed, &mut taken, &mut up_to);
        assert!(taken.values().sum::<usize>() > 20, "{taken:?}");
        running.until("all files are merged", |_| {
            let status = running.lake.status();
            assert_eq!(status.counters["toolgauge_compaction_failures_total"], 0);
            status.counters["toolgauge_compactions_total"] > 0 && status.table_files["calls"] <= 4
        });
        look(&running, &*feed, &mut taken, &mut up_to);
        assert!(!running.collector.is_stopped());
    }
}

/// Scenario: somebody holds a view of before; files are merged and deleted; then nothing comes any more.
/// Guarantees: the view that readers get stands on files that are there, without a commit that brings another one.
#[test]
fn readers_get_a_view_of_merged_files_before_the_old_ones_are_deleted() {
    let running = Running::start(&fresh_disk(1), |settings| {
        settings.compact.interval_us = 1_000;
        settings.compact.files_min = 3;
        settings.compact.keep_removed_us = 0;
        settings.wal.tick_interval_us = u64::MAX;
    });
    for call in 1..=3 {
        running.call(call);
        running.set(running.clock.now().0 + 3_000_000);
        running.call(100 + call);
        running.until("committed", |view| live_calls(view).len() == 1 && view.committed.0 >= 2 * call - 1);
    }
    running.until("the merged files are deleted", |_| {
        running.lake.status().counters["toolgauge_deleted_files_total"] >= 3
    });
    let view = running.lake.view();
    assert_eq!(in_schema(Table::Calls, &rows(&view, Table::Calls)).num_rows(), 6);
    assert_eq!(running.lake.status().counters["toolgauge_compacted_rows_total"], 5);
}

fn look(running: &Running, feed: &dyn Feed, taken: &mut BTreeMap<i64, usize>, up_to: &mut WalPosition) {
    let view = running.lake.view();
    drain(feed, taken, up_to);
    assert!(*up_to >= view.committed, "the feed ends at {up_to}, the view's committed rows at {}", view.committed);
    let calls = rows(&view, Table::Calls);
    for table in [Table::Calls1m, Table::Calls1h] {
        compare_sums(table, &rows(&view, table), &calls, &format!("at {}", view.position));
    }
    let mut all = taken.clone();
    all.extend(live_calls(&view).range(up_to.as_i64() + 1..));
    // Rows that settled after the view was taken are known from the feed already.
    all.retain(|position, _| *position <= view.position.as_i64());
    assert_eq!(all, by_position(&calls));
}

/// Scenario: a reader does not take what it is given.
/// Guarantees: nothing more is committed, nothing is lost, appends go on, and commits too when it takes again.
#[test]
fn a_full_feed_holds_up_commits_and_nothing_else() {
    let running = Running::start(&fresh_disk(1), |settings| settings.feed_rows_max = 1);
    let feed = running.lake.feed();
    running.call(1);
    running.commit();
    running.call(2);
    running.settle();
    assert!(running.append(Table::Alerts, "alerts", 1).unwrap());
    let view = running.lake.view();
    assert_eq!(live_calls(&view).len(), 1);
    assert_eq!(in_schema(Table::Calls, &rows(&view, Table::Calls)).num_rows(), 2);

    let (mut taken, mut up_to) = (BTreeMap::new(), feed.after());
    drain(&*feed, &mut taken, &mut up_to);
    running.until("the second commit", |view| live_calls(view).is_empty());
    drain(&*feed, &mut taken, &mut up_to);
    assert_eq!(taken.values().sum::<usize>(), 2);

    running.call(3);
    running.commit();
    running.call(4);
    running.settle();
    assert_eq!(live_calls(&running.lake.view()).len(), 1);
    drop(feed);
    running.until("the fourth commit", |view| live_calls(view).is_empty());
}

/// Scenario: a reader takes nothing, so much waits that the log is not read on, and the collector is closed.
/// Guarantees: the collector ends, and the next one has everything.
#[test]
fn a_full_feed_does_not_hold_up_the_shutdown() {
    let fs = fresh_disk(1);
    let running = Running::start(&fs, |settings| {
        settings.feed_rows_max = 1;
        settings.settled_rows_max = 0;
        settings.wal.handover_bytes = 1;
    });
    let feed = running.lake.feed();
    running.call(1);
    running.commit();
    running.call(2);
    running.settle();
    running.collector.close();
    assert!(matches!(feed.recv(Duration::ZERO), FeedItem::Rows(_)));
    let running = Running::start(&fs, |_| ());
    assert_eq!(in_schema(Table::Calls, &rows(&running.lake.view(), Table::Calls)).num_rows(), 2);
}

#[test]
fn a_feed_begins_where_the_committed_rows_end_and_ends_with_the_collector() {
    let running = Running::start(&fresh_disk(1), |_| ());
    running.call(1);
    running.commit();
    let feed = running.lake.feed();
    running.call(2);
    running.commit();
    let (mut taken, mut up_to) = (BTreeMap::new(), feed.after());
    drain(&*feed, &mut taken, &mut up_to);
    assert_eq!(taken.values().sum::<usize>(), 1);
    assert!(taken.keys().all(|position| *position > feed.after().as_i64()));
    let lake = Arc::clone(&running.lake);
    running.collector.close();
    while let FeedItem::Rows(_) = feed.recv(Duration::ZERO) {}
    assert!(matches!(feed.recv(LIMIT), FeedItem::End));
    assert!(matches!(lake.feed().recv(LIMIT), FeedItem::End));
    let stopped = lake.committed_version(Table::Slo1m, &format!("{}/slo_1m", lake.writer()));
    assert!(matches!(stopped, Err(AppendError::Stopped { .. })), "{stopped:?}");
}

#[test]
fn an_append_happens_once_and_only_to_the_tables_of_readers() {
    let fs = fresh_disk(1);
    let running = Running::start(&fs, |_| ());
    let id = format!("{}/alerts", running.lake.writer());
    assert_eq!(running.lake.committed_version(Table::Alerts, &id).unwrap(), None);
    for (version, new) in [(3, true), (3, false), (2, false), (4, true)] {
        assert_eq!(running.append(Table::Alerts, "alerts", version).unwrap(), new, "version {version}");
    }
    assert!(running.append(Table::Alerts, "alerts/alertmanager", 1).unwrap());
    assert_eq!(running.lake.committed_version(Table::Alerts, &id).unwrap(), Some(4));
    assert_eq!(in_schema(Table::Alerts, &rows(&running.lake.view(), Table::Alerts)).num_rows(), 3);

    let invalid = |result: Result<bool, AppendError>| match result {
        Err(AppendError::Invalid { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(invalid(running.append(Table::Calls, "calls", 1)), "readers do not own it");
    assert_eq!(invalid(running.append(Table::Alerts, "alerts", -1)), "version -1 is negative");
    assert!(invalid(running.append(Table::Alerts, "a.b", 1)).contains("cannot name a transaction"));
    let txn = Txn { app_id: id.clone(), version: 5 };
    let foreign = rows_of(Table::Slo1m, AT_US, &[("date", vec![AT_US])]);
    assert!(invalid(running.lake.append(Table::Alerts, vec![foreign], txn)).contains("schema"));

    // Without rows only the version is noted; all of it is known after a restart.
    assert!(running.lake.append(Table::Alerts, Vec::new(), Txn { app_id: id.clone(), version: 9 }).unwrap());
    drop(running);
    let running = Running::start(&fs, |_| ());
    assert_eq!(running.lake.committed_version(Table::Alerts, &id).unwrap(), Some(9));
    assert_eq!(in_schema(Table::Alerts, &rows(&running.lake.view(), Table::Alerts)).num_rows(), 3);
}

/// Scenario: the disk is full when somebody appends, and has room again.
#[test]
fn an_append_without_room_can_be_tried_again() {
    let fs = fresh_disk(1);
    let running = Running::start(&fs, |settings| settings.wal.tick_interval_us = u64::MAX);
    fs.capacity(Some(0));
    let full = running.append(Table::Alerts, "alerts", 1);
    assert!(matches!(full, Err(AppendError::NoRoom { .. })), "{full:?}");
    fs.capacity(None);
    assert!(running.append(Table::Alerts, "alerts", 1).unwrap());
    assert!(!running.collector.is_stopped());
}

/// Scenario: a sync fails while somebody appends.
#[test]
fn an_append_that_fails_stops_the_collector() {
    let fs = fresh_disk(1);
    let running = Running::start(&fs, |settings| settings.wal.tick_interval_us = u64::MAX);
    fs.fail_sync("/data/lake", 1);
    let failed = running.append(Table::Alerts, "alerts", 1);
    assert!(matches!(failed, Err(AppendError::Stopped { .. })), "{failed:?}");
    let began = Instant::now();
    while !running.collector.is_stopped() {
        assert!(began.elapsed() < LIMIT);
        std::thread::yield_now();
    }
    let reason = running.lake.status().not_ready_reason.unwrap();
    assert!(reason.contains("alerts"), "{reason}");
}
