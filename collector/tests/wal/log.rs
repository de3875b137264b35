//! Full disks, failed syncs, re-sends, retention.

use toolgauge_collector::export::Refusal;
use toolgauge_collector::fs::Fs;
use toolgauge_collector::fs::sim::{SimFs, Survival};
use toolgauge_collector::wal::{Appended, WalCounters, WalSettings};
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::time::UnixMicros;

use crate::{contents, export, open};

const SECOND: i64 = 1_000_000;

#[test]
fn after_a_failed_sync_the_log_is_closed() {
    for (pattern, segment_bytes) in [(".wal", u64::MAX), (".wal", 0), ("/data/wal", 0)] {
        let fs = SimFs::new(1);
        let settings = WalSettings { segment_bytes, ..WalSettings::default() };
        let (mut wal, _) = open(&fs, &settings).unwrap();
        wal.append(&export("a"), UnixMicros(1)).map(drop).unwrap();
        wal.sync().unwrap();
        fs.fail_sync(pattern, 1);
        wal.append(&export("b"), UnixMicros(1)).map(drop).unwrap();
        assert!(matches!(wal.sync(), Err(Refusal::Closed { .. })));
        assert_eq!(wal.synced(), WalPosition(1));
        assert!(matches!(wal.append(&export("c"), UnixMicros(1)), Err(Refusal::Closed { .. })));
        assert!(matches!(wal.sync(), Err(Refusal::Closed { .. })), "not tried again");
        drop(wal);
        let (wal, _) = open(&fs.restart(1, Survival::None), &settings).unwrap();
        assert_eq!(contents(&wal), [(1, Some("a".into()))]);
    }
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_room() {
    for segment_bytes in [u64::MAX, 0] {
        for room in 0..300 {
            let fs = SimFs::new(1);
            let settings = WalSettings { segment_bytes, ..WalSettings::default() };
            let (mut wal, _) = open(&fs, &settings).unwrap();
            wal.append(&export("a"), UnixMicros(1)).map(drop).unwrap();
            wal.sync().unwrap();
            let before = wal.bytes();
            fs.capacity(Some(20 + before + room));
            wal.append(&export(vec![1; 100]), UnixMicros(1)).map(drop).unwrap();
            wal.append(&export(vec![2; 100]), UnixMicros(1)).map(drop).unwrap();
            assert!(matches!(wal.sync(), Err(Refusal::Overloaded { .. })), "room {room}");
            assert_eq!((wal.bytes(), wal.synced()), (before, WalPosition(1)));
            fs.capacity(None);
            assert_eq!(wal.append(&export(vec![2; 100]), UnixMicros(1)), Ok(Appended::New(WalPosition(2))));
            assert_eq!(wal.sync().unwrap().len(), 1);
            drop(wal);
            let fs = fs.restart(1, Survival::None);
            let (wal, recovery) = open(&fs, &settings).unwrap();
            assert_eq!(contents(&wal), [(1, Some("a".into())), (2, Some(vec![2; 100].into()))]);
            assert_eq!(recovery.torn_bytes, 0);
        }
    }
}

#[test]
fn a_resend_is_recognised_within_the_horizon_and_after_a_restart() {
    let fs = SimFs::new(1);
    let settings = WalSettings { digest_horizon_us: 10 * SECOND, segment_bytes: 300, ..WalSettings::default() };
    let (mut wal, _) = open(&fs, &settings).unwrap();
    for n in 0..20_u8 {
        let at = UnixMicros(i64::from(n) * SECOND);
        assert_eq!(wal.append(&export(vec![n]), at), Ok(Appended::New(WalPosition(u64::from(n) + 1))));
        assert_eq!(wal.append(&export(vec![n]), at), Ok(Appended::Resend(WalPosition(u64::from(n) + 1))), "staged");
        wal.sync().unwrap();
    }
    let mut other = export(vec![19]);
    other.tenant = "other".into();
    assert!(matches!(wal.append(&other, UnixMicros(0)), Ok(Appended::New(_))), "another tenant's is another export");
    drop(wal);
    let (mut wal, _) = open(&fs.restart(1, Survival::None), &settings).unwrap();
    let mut new = 0;
    for n in 0..20_u8 {
        match wal.append(&export(vec![n]), UnixMicros(19 * SECOND)).unwrap() {
            Appended::Resend(at) => assert_eq!(at.0, u64::from(n) + 1),
            Appended::New(_) => new += 1,
        }
    }
    assert_eq!(new, 9, "those of seconds 0 to 8 are older than the horizon");
}

#[test]
fn digests_are_bounded_by_count() {
    let fs = SimFs::new(1);
    let (mut wal, _) = open(&fs, &WalSettings { digests_max: 2, ..WalSettings::default() }).unwrap();
    for n in 0..3_u8 {
        wal.append(&export(vec![n]), UnixMicros(0)).map(drop).unwrap();
    }
    assert!(matches!(wal.append(&export(vec![2]), UnixMicros(0)), Ok(Appended::Resend(_))));
    assert!(matches!(wal.append(&export(vec![0]), UnixMicros(0)), Ok(Appended::New(_))));
    assert_eq!(WalCounters::get(&wal.counters().digests_cut), 2);
}

#[test]
fn segments_go_when_neither_replay_nor_horizon_needs_them() {
    let fs = SimFs::new(1);
    let settings = WalSettings { segment_bytes: 0, ..WalSettings::default() };
    let (mut wal, _) = open(&fs, &settings).unwrap();
    for n in 0..10_u8 {
        wal.append(&export(vec![n]), UnixMicros(i64::from(n))).map(drop).unwrap();
        wal.sync().unwrap();
    }
    let first = |wal: &toolgauge_collector::wal::Wal| contents(wal)[0].0;
    wal.forget(WalPosition(3), UnixMicros(100)).unwrap();
    assert_eq!(first(&wal), 4, "not needed for replay, and old");
    wal.forget(WalPosition(100), UnixMicros(5)).unwrap();
    assert_eq!(first(&wal), 6, "the frame of time 5 is not before the horizon");
    wal.forget(WalPosition(100), UnixMicros(100)).unwrap();
    assert_eq!(first(&wal), 10, "the segment that is written stays");
    let counters = wal.counters();
    assert_eq!(WalCounters::get(&counters.segments_forgotten), 9);
    assert_eq!(WalCounters::get(&counters.segments_cut), 0);
    drop(wal);
    let (mut wal, recovery) = open(&fs.restart(1, Survival::None), &settings).unwrap();
    assert_eq!((recovery.first, recovery.last), (WalPosition(10), WalPosition(10)));
    assert_eq!(wal.append(&export("new"), UnixMicros(0)), Ok(Appended::New(WalPosition(11))));
}

#[test]
fn above_the_limit_the_horizon_yields_but_replay_does_not() {
    let fs = SimFs::new(1);
    let settings = WalSettings { segment_bytes: 0, retain_bytes: 500, ..WalSettings::default() };
    let (mut wal, _) = open(&fs, &settings).unwrap();
    for n in 0..10_u8 {
        wal.append(&export(vec![n; 100]), UnixMicros(0)).map(drop).unwrap();
        wal.sync().unwrap();
    }
    wal.forget(WalPosition(2), UnixMicros(0)).unwrap();
    assert_eq!(contents(&wal)[0].0, 3);
    wal.forget(WalPosition(100), UnixMicros(0)).unwrap();
    assert!(wal.bytes() <= 500);
    assert!(contents(&wal).len() > 1);
    assert_eq!(WalCounters::get(&wal.counters().bytes), wal.bytes());
}

#[test]
fn receive_times_never_decrease() {
    let fs = SimFs::new(1);
    let (mut wal, _) = open(&fs, &WalSettings::default()).unwrap();
    for (n, at) in [(0_u8, 50), (1, 40), (2, 60), (3, i64::MIN)] {
        wal.append(&export(vec![n]), UnixMicros(at)).map(drop).unwrap();
    }
    let times: Vec<_> = wal.sync().unwrap().iter().map(|frame| frame.receive_time.0).collect();
    assert_eq!(times, [50, 50, 60, 60]);
    assert_eq!(fs.list_dir(crate::dir()).unwrap().len(), 2);
}
