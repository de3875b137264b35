//! W-1 and W-2 over every crash: what was acknowledged is there, what is there was appended, in order and unchanged.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use toolgauge_collector::fs::sim::{SimFs, SimRng, Survival};
use toolgauge_collector::wal::{Appended, WalSettings};
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::time::UnixMicros;

use crate::{contents, export, open};

/// What the outside knows of the log.
#[derive(Default)]
struct History {
    /// What was given last to each position.
    appended: BTreeMap<u64, Option<Bytes>>,
    acknowledged: u64,
    may_be_forgotten: u64,
    exports: u64,
    clock: i64,
}

fn settings() -> WalSettings {
    WalSettings { segment_bytes: 700, ..WalSettings::default() }
}

impl History {
    /// Opens the log, compares, and works on it; `None` if the machine went down meanwhile.
    fn run(&mut self, fs: &Arc<SimFs>, rng: &mut SimRng, steps: usize) -> Option<()> {
        let (mut wal, recovery) = match open(fs, &settings()) {
            Ok(opened) => opened,
            Err(error) => {
                assert!(fs.is_down(), "{error:?}");
                return None;
            }
        };
        let found = contents(&wal);
        assert!(recovery.last.0 >= self.acknowledged, "lost: {recovery:?}, acknowledged {}", self.acknowledged);
        assert!(recovery.first.0 <= self.may_be_forgotten + 1, "forgot too much: {recovery:?}");
        assert_eq!(found.len() as u64, recovery.last.0 + 1 - recovery.first.0);
        for (at, (position, body)) in found.iter().enumerate() {
            assert_eq!(*position, recovery.first.0 + at as u64);
            assert_eq!(Some(body), self.appended.get(position), "position {position}");
        }
        self.acknowledged = recovery.last.0;
        self.appended.split_off(&(recovery.last.0 + 1));

        for _ in 0..steps {
            self.clock += 1_000 - (rng.below(3_000) as i64);
            match rng.below(10) {
                0 => {
                    let position = wal.tick(UnixMicros(self.clock)).ok()?;
                    self.appended.insert(position.0, None);
                }
                1 => {
                    let up_to = self.acknowledged.saturating_sub(rng.below(4) as u64);
                    self.may_be_forgotten = self.may_be_forgotten.max(up_to);
                    wal.forget(WalPosition(up_to), UnixMicros(i64::MAX)).ok()?;
                }
                2 if !self.appended.is_empty() => {
                    let again = self.appended.values().nth(rng.below(self.appended.len())).cloned().flatten();
                    if let Some(body) = again {
                        let appended = wal.append(&export(body.clone()), UnixMicros(self.clock)).ok()?;
                        match appended {
                            Appended::Resend(at) => assert_eq!(self.appended.get(&at.0), Some(&Some(body))),
                            // It stood in a segment that was forgotten before the restart.
                            Appended::New(at) => {
                                self.appended.insert(at.0, Some(body));
                            }
                        }
                    }
                }
                _ => {
                    self.exports += 1;
                    let mut body = self.exports.to_le_bytes().to_vec();
                    body.resize(8 + rng.below(150), self.exports as u8);
                    let body = Bytes::from(body);
                    let Appended::New(at) = wal.append(&export(body.clone()), UnixMicros(self.clock)).ok()? else {
                        panic!("taken for a re-send");
                    };
                    self.appended.insert(at.0, Some(body));
                }
            }
            if rng.below(3) == 0 {
                let frames = wal.sync().ok()?;
                self.acknowledged = frames.last().map_or(self.acknowledged, |frame| frame.position.0);
            }
        }
        Some(())
    }
}

fn first_life(crash_at: Option<u64>) -> (Arc<SimFs>, History) {
    let fs = SimFs::new(1);
    if let Some(at) = crash_at {
        fs.crash_at(at);
    }
    let mut history = History::default();
    let _ = history.run(&fs, &mut SimRng::new(5), 60);
    (fs, history)
}

#[test]
fn a_crash_at_any_operation_loses_nothing_acknowledged() {
    let (fs, _) = first_life(None);
    let operations = fs.operations();
    assert!(operations > 60, "{operations}");
    let survivals = [Survival::None, Survival::All, Survival::ProcessKill].into_iter();
    let ways: Vec<_> = survivals.chain([Survival::Random; 12]).zip(0..).collect();
    for at in 1..=operations {
        for (survival, seed) in &ways {
            let (fs, mut history) = first_life(Some(at));
            let fs = fs.restart(*seed, *survival);
            history.run(&fs, &mut SimRng::new(*seed), 5);
            // What was found once is found again, now that nothing but it is durable.
            let fs = fs.restart(*seed, Survival::None);
            assert!(history.run(&fs, &mut SimRng::new(*seed), 0).is_some(), "crash at {at}, {survival:?}, seed {seed}");
        }
    }
}

#[test]
fn random_crashes_one_after_another_lose_nothing_acknowledged() {
    for seed in 0..3_000 {
        let mut rng = SimRng::new(seed);
        let mut fs = SimFs::new(seed);
        let mut history = History::default();
        for _ in 0..4 {
            fs.crash_at(1 + rng.below(50) as u64);
            history.run(&fs, &mut rng, 40);
            let survival = match rng.below(6) {
                0 => Survival::None,
                1 => Survival::All,
                2 => Survival::ProcessKill,
                _ => Survival::Random,
            };
            fs = fs.restart(rng.next_u64(), survival);
        }
        assert!(history.run(&fs, &mut rng, 20).is_some(), "seed {seed}");
    }
}

#[test]
fn bytes_of_a_failed_sync_are_written_again_before_they_count() {
    for nth in 1..=4 {
        let fs = SimFs::new(nth);
        let settings = WalSettings::default();
        let (mut wal, _) = open(&fs, &settings).unwrap();
        fs.fail_sync(".wal", nth);
        let mut failed = None;
        for body in [&b"a"[..], b"b", b"c", b"d"] {
            wal.append(&export(body), UnixMicros(1)).map(drop).unwrap();
            if wal.sync().is_err() {
                failed = Some(body);
                break;
            }
        }
        let failed = failed.expect("a sync failed");
        drop(wal);

        let fs = fs.restart(0, Survival::ProcessKill);
        let (mut wal, _) = open(&fs, &settings).unwrap();
        assert_eq!(wal.append(&export(failed), UnixMicros(1)), Ok(Appended::Resend(WalPosition(nth))));
        assert_eq!(wal.sync().map(|frames| frames.len()), Ok(0), "acknowledged as a re-send");
        drop(wal);

        let fs = fs.restart(0, Survival::None);
        let (wal, _) = open(&fs, &settings).unwrap();
        assert_eq!(contents(&wal).last(), Some(&(nth, Some(Bytes::from_static(failed)))));
    }
}
