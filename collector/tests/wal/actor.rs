//! The log's thread, on the real file system where that matters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use toolgauge_collector::export::{Refusal, Sink};
use toolgauge_collector::fs::Fs;
use toolgauge_collector::fs::real::RealFs;
use toolgauge_collector::fs::sim::SimFs;
use toolgauge_collector::wal::{FrameReceiver, Received, Wal, WalCounters, WalError, WalHandle, WalSettings};
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::time::{Clock, SystemClock, UnixMicros};

use crate::{content, contents, dir, export};

const LIMIT: Duration = Duration::from_secs(20);

#[derive(Debug, Default)]
struct Steps(AtomicI64);

impl Clock for Steps {
    fn now(&self) -> UnixMicros {
        UnixMicros(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

fn start(fs: Arc<dyn Fs>, settings: WalSettings) -> (WalHandle, FrameReceiver) {
    let (wal, _) = Wal::open(fs, dir(), settings).unwrap();
    WalHandle::start(wal, Arc::new(Steps::default())).unwrap()
}

/// All frames until the log is closed.
fn receive_all(receiver: &FrameReceiver) -> Vec<(u64, Option<Bytes>)> {
    let until = Instant::now() + LIMIT;
    let mut all = Vec::new();
    loop {
        match receiver.receive(Duration::from_millis(100)) {
            Received::Frames(frames) => all.extend(frames.into_iter().map(content)),
            Received::Nothing => assert!(Instant::now() < until, "no end after {LIMIT:?}"),
            Received::End => return all,
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn many_at_once_are_all_durable_and_handed_over_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/wal");
    let settings = WalSettings { segment_bytes: 1 << 20, ..WalSettings::default() };
    let fs: Arc<dyn Fs> = Arc::new(RealFs::private());
    let (wal, recovery) = Wal::open(Arc::clone(&fs), &path, settings.clone()).unwrap();
    assert!(recovery.created);
    let (handle, receiver) = WalHandle::start(wal, Arc::new(SystemClock)).unwrap();
    let consumer = std::thread::spawn(move || receive_all(&receiver));
    let bodies = |task: u32| (0..100_u32).map(move |n| [task.to_le_bytes(), n.to_le_bytes()].concat().repeat(200));
    runtime().block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..32 {
            let handle = handle.clone();
            tasks.spawn(async move {
                for body in bodies(task) {
                    handle.append(export(body)).await.unwrap();
                }
            });
        }
        tasks.join_all().await;
    });
    handle.close();
    let handed: Vec<_> = consumer.join().unwrap().into_iter().filter(|(_, body)| body.is_some()).collect();
    assert_eq!(handed.len(), 3_200);
    assert!(handed.is_sorted_by_key(|(position, _)| *position));
    let counters = handle.counters();
    assert_eq!(WalCounters::get(&counters.appended), 3_200);
    assert!(WalCounters::get(&counters.syncs) < 3_200, "group commit");
    assert_eq!(WalCounters::get(&counters.queued_bytes), 0);

    let (wal, recovery) = Wal::open(fs, &path, settings).unwrap();
    assert!(recovery.segments > 1);
    assert_eq!(wal.writer(), handle.writer());
    let found: BTreeMap<_, _> = contents(&wal).into_iter().filter(|(_, body)| body.is_some()).collect();
    assert_eq!(found, handed.into_iter().collect());
    let bodies: BTreeSet<Bytes> = (0..32).flat_map(bodies).map(Bytes::from).collect();
    assert_eq!(found.into_values().flatten().collect::<BTreeSet<_>>(), bodies);
}

#[test]
fn a_real_folder_is_private_and_held_by_one() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wal");
    let fs: Arc<dyn Fs> = Arc::new(RealFs::private());
    let (wal, _) = Wal::open(Arc::clone(&fs), &path, WalSettings::default()).unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&path.join("WRITER"))), (0o700, 0o600));
    let again = Wal::open(Arc::clone(&fs), &path, WalSettings::default());
    assert!(matches!(again, Err(WalError::InUse { .. })));
    drop(wal);
    assert!(Wal::open(fs, &path, WalSettings::default()).is_ok());
}

#[test]
fn a_resend_is_answered_once_its_first_is_synced() {
    let (handle, receiver) = start(SimFs::new(1), WalSettings::default());
    runtime().block_on(async {
        let (a, b, c) =
            tokio::join!(handle.append(export("same")), handle.append(export("same")), handle.append(export("other")));
        assert_eq!((a, b, c), (Ok(()), Ok(()), Ok(())));
        assert_eq!(handle.append(export("same")).await, Ok(()));
    });
    handle.close();
    assert_eq!(receive_all(&receiver).len(), 2);
    assert_eq!(WalCounters::get(&handle.counters().resends), 2);
}

#[test]
fn after_a_failed_sync_everyone_gets_closed_and_nothing_is_handed_over() {
    let fs = SimFs::new(1);
    let (handle, receiver) = start(Arc::<SimFs>::clone(&fs), WalSettings::default());
    fs.fail_sync(".wal", 1);
    runtime().block_on(async {
        for _ in 0..3 {
            assert!(matches!(handle.append(export("a")).await, Err(Refusal::Closed { .. })));
        }
    });
    assert_eq!(receive_all(&receiver).len(), 0);
    assert_eq!(handle.synced(), WalPosition(0));
    assert_eq!(WalCounters::get(&handle.counters().refused_closed), 3);
    handle.close();
}

#[test]
fn a_full_queue_is_overloaded_at_once() {
    // Nobody reads the receiver, and it takes one frame at a time: the second sync's hand-over waits.
    let settings =
        WalSettings { queue_bytes: 1_000, handover_bytes: 1, group_commit_bytes: 1, ..WalSettings::default() };
    let (handle, receiver) = start(SimFs::new(1), settings);
    runtime().block_on(async {
        handle.append(export("1")).await.unwrap();
        handle.append(export("2")).await.unwrap();
        let mut waits = tokio::task::JoinSet::new();
        for n in 0..20_u8 {
            let handle = handle.clone();
            waits.spawn(async move { handle.append(export(vec![n; 400])).await });
        }
        let mut overloaded = 0;
        while overloaded < 18 {
            let answer = waits.join_next().await.unwrap().unwrap();
            assert!(matches!(answer, Err(Refusal::Overloaded { .. })), "{answer:?}");
            overloaded += 1;
        }
        drop(receiver);
        while let Some(answer) = waits.join_next().await {
            assert!(matches!(answer.unwrap(), Err(Refusal::Closed { .. })), "the consumer is gone");
        }
    });
    assert_eq!(WalCounters::get(&handle.counters().refused_overloaded), 18);
}

#[test]
fn an_idle_log_ticks() {
    let (handle, receiver) = start(SimFs::new(1), WalSettings { tick_interval_us: 1_000, ..WalSettings::default() });
    let until = Instant::now() + LIMIT;
    let mut ticks = 0;
    while ticks < 3 {
        assert!(Instant::now() < until);
        if let Received::Frames(frames) = receiver.receive(LIMIT) {
            ticks += frames.len();
        }
    }
    drop(handle);
    receive_all(&receiver);
}

#[test]
fn what_was_queued_at_the_close_is_answered() {
    let settings = WalSettings { group_commit_wait_us: 60_000_000, ..WalSettings::default() };
    let (handle, receiver) = start(SimFs::new(1), settings);
    runtime().block_on(async {
        let queued: Vec<_> = (0..5_u8).map(|n| handle.append(export(vec![n]))).collect();
        let closing = handle.clone();
        tokio::task::spawn_blocking(move || closing.close()).await.unwrap();
        for answer in queued {
            assert_eq!(answer.await, Ok(()));
        }
        assert!(matches!(handle.append(export("late")).await, Err(Refusal::Closed { .. })));
    });
    assert_eq!(receive_all(&receiver).len(), 5);
}

#[test]
fn forgetting_works_through_the_handle() {
    let fs = SimFs::new(1);
    let (handle, _receiver) = start(fs, WalSettings { segment_bytes: 0, ..WalSettings::default() });
    runtime().block_on(async {
        for n in 0..5_u8 {
            handle.append(export(vec![n])).await.unwrap();
        }
    });
    handle.forget(handle.synced(), UnixMicros(i64::MAX));
    handle.close();
    assert_eq!(WalCounters::get(&handle.counters().segments_forgotten), 4);
}
