//! A backup that is made while the collector goes on: opened as a data folder, it has every row up to its position.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use toolgauge_collector::backup::{Backup, BackupError, backup};
use toolgauge_collector::fs::sim::{SimFs, Survival};
use toolgauge_collector::fs::{DirEntry, DirLock, File, Fs, Metadata};
use toolgauge_collector::pipeline::{CollectorSettings, Fold, Opened};
use toolgauge_collector::wal::Frame;
use toolgauge_proto::table::Table;
use toolgauge_proto::time::UnixMicros;

use crate::derived::compare_sums;
use crate::machine::{Machine, RUNTIME, fold_view, fresh_disk, read, settings};
use crate::rows::Rows;
use crate::workload::{Plan, Size, Step};

/// A machine with a plan, which it carries out a step at a time.
struct Going {
    machine: Machine,
    plan: Plan,
    next: usize,
    frames: Vec<Frame>,
}

impl Going {
    fn step(&mut self) {
        let Some(step) = self.plan.steps.get(self.next) else { return };
        self.next += 1;
        let machine = &mut self.machine;
        match step {
            Step::Send { at_us, exports } => {
                for export in exports {
                    let _position = machine.wal.append(&self.plan.exports[*export], UnixMicros(*at_us)).unwrap();
                }
                if exports.is_empty() {
                    machine.wal.tick(UnixMicros(*at_us)).unwrap();
                }
                for frame in machine.wal.sync().unwrap() {
                    machine.fold.apply(&frame).unwrap();
                    self.frames.push(frame);
                }
            }
            Step::Commit => {
                machine.commit().unwrap();
                let [calls, arrivals] = [Table::Calls, Table::Arrivals].map(|table| machine.tables.up_to(table));
                let (up_to, not_younger_than) = machine.fold.forgettable(calls, arrivals);
                machine.wal.forget(up_to, not_younger_than).unwrap();
            }
            Step::Compact => drop(machine.compact().unwrap()),
        }
    }
}

/// A file system on which others are at work: every few calls of whoever uses it, something else happens.
struct Meanwhile {
    inner: Arc<SimFs>,
    others: Mutex<(usize, Going)>,
    every: usize,
}

impl fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meanwhile").finish_non_exhaustive()
    }
}

impl Meanwhile {
    fn fs(&self) -> &SimFs {
        let mut others = self.others.lock().unwrap();
        let (calls, going) = &mut *others;
        *calls += 1;
        if calls.is_multiple_of(self.every) {
            going.step();
        }
        &self.inner
    }
}

impl Fs for Meanwhile {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir_all(path)
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.fs().create_new(path)
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.fs().open_append(path)
    }

    fn read(&self, path: &Path) -> io::Result<Bytes> {
        self.fs().read(path)
    }

    fn read_range(&self, path: &Path, range: Range<u64>) -> io::Result<Bytes> {
        self.fs().read_range(path, range)
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.fs().metadata(path)
    }

    fn list_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.fs().list_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.fs().rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.fs().hard_link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.fs().remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.fs().remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.sync_dir(path)
    }

    fn available_bytes(&self, path: &Path) -> io::Result<u64> {
        self.inner.available_bytes(path)
    }

    fn lock(&self, dir: &Path) -> io::Result<Box<dyn DirLock>> {
        self.inner.lock(dir)
    }

    fn random_bytes(&self) -> io::Result<[u8; 16]> {
        self.inner.random_bytes()
    }
}

/// Opens a backup as a data folder, and compares it with a fold of the frames up to its position.
fn check(fs: &Arc<SimFs>, folder: &str, made: &Backup, frames: &[Frame], when: &str) {
    let settings = CollectorSettings { data: folder.into(), ..settings() };
    let dynamic: Arc<dyn Fs> = Arc::<SimFs>::clone(fs);
    let opened = Opened::open(&settings, dynamic, RUNTIME.handle());
    let Opened { wal, tables, mut fold, .. } =
        opened.unwrap_or_else(|error| panic!("{when}: {}", toolgauge_collector::pipeline::chain(&error)));
    assert_eq!(wal.synced(), made.position, "{when}");
    let mut oracle = Fold::new(&settings).unwrap();
    for frame in frames.iter().filter(|frame| frame.position <= made.position) {
        oracle.apply(frame).unwrap();
    }
    assert_eq!(frames[made.position.0 as usize - 1].receive_time, made.received, "{when}");
    let committed = tables.committed();
    let view = fold.view().unwrap();
    let minutes = committed.live_calls_1m(Arc::clone(&view.calls));
    let hours = committed.live_calls_1h(minutes.clone());
    let mut rows = committed.providers.clone().map(read);
    for (table, live) in [
        (Table::Calls, view.calls),
        (Table::Arrivals, view.arrivals),
        (Table::Quarantine, view.quarantine),
        (Table::Calls1m, minutes.get().unwrap()),
        (Table::Calls1h, hours.get().unwrap()),
    ] {
        rows[table as usize].extend(live.iter().cloned());
    }
    for table in [Table::Calls1m, Table::Calls1h] {
        compare_sums(table, &rows[table as usize], &rows[0], when);
    }
    let found = Rows::of([&rows[0], &rows[1], &rows[2]]);
    assert_eq!(found.difference(&fold_view(&mut oracle), &[]), None, "{when}");
}

/// Scenario: while a backup is made, exports come, rows are committed, the log forgets, files are merged and deleted; after every few
/// calls of the backup, or after each.
/// Guarantees: a backup that is there is exact up to its position, and that is what was acknowledged when it began, or more; if files were
/// deleted too early, there is none.
#[test]
fn a_backup_that_is_made_meanwhile_is_exact_up_to_its_position() {
    let (mut made, mut at_work) = (0, 0);
    for seed in 0..12 {
        let plan = Plan::draw(seed, Size { bursts: 6, ..Size::LONG });
        let fs = fresh_disk(seed);
        let mut going = Going { machine: Machine::open(&fs).unwrap(), next: 0, frames: Vec::new(), plan };
        while going.next < going.plan.steps.len() / 3 {
            going.step();
        }
        let (before, acknowledged) = (going.next, going.frames.len() as u64);
        let every = [60, 25, 10, 2][seed as usize % 4];
        let others = Mutex::new((0, going));
        let meanwhile = Meanwhile { inner: Arc::clone(&fs), others, every };
        let done = backup(&meanwhile, Path::new("/data"), Path::new("/backup"), None);
        let (_, going) = meanwhile.others.into_inner().unwrap();
        at_work += going.next - before;
        match done {
            Ok(backup) => {
                made += 1;
                assert!(backup.position.0 >= acknowledged, "seed {seed}");
                check(&fs, "/backup", &backup, &going.frames, &format!("seed {seed}"));
            }
            Err(BackupError::TooSlow { .. }) => assert!(fs.metadata(Path::new("/backup")).is_err(), "seed {seed}"),
            Err(error) => panic!("seed {seed}: {}", toolgauge_collector::pipeline::chain(&error)),
        }
    }
    assert!(made >= 6, "{made} backups came through");
    assert!(at_work > 60, "{at_work} steps were done meanwhile");
}

/// Scenario: a second backup, beside the first; then the power fails.
/// Guarantees: what has not changed is not copied again, both are durable and exact, and neither is overwritten.
#[test]
fn the_next_backup_shares_what_has_not_changed() {
    let fs = fresh_disk(5);
    let plan = Plan::draw(5, Size::LONG);
    let mut going = Going { machine: Machine::open(&fs).unwrap(), next: 0, frames: Vec::new(), plan };
    let steps = going.plan.steps.len();
    while going.next < steps - 12 {
        going.step();
    }
    let (data, first, second) = (Path::new("/data"), Path::new("/backups/1"), Path::new("/backups/2"));
    fs.create_dir_all(Path::new("/backups")).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    let one = backup(&*fs, data, first, None).unwrap();
    assert_eq!(one.shared, 0);
    while going.next < steps - 6 {
        going.step();
    }
    let two = backup(&*fs, data, second, Some(first)).unwrap();
    assert!(two.shared > 10 && two.bytes < one.bytes && two.position > one.position, "{one:?} {two:?}");
    let again = backup(&*fs, data, second, None).unwrap_err();
    assert!(matches!(again, BackupError::Exists { .. }), "{again}");
    let nothing = backup(&*fs, Path::new("/nowhere"), Path::new("/backups/3"), None).unwrap_err();
    assert_eq!(nothing.to_string(), "read \"/nowhere/wal/WRITER\"");

    let fs = fs.restart(1, Survival::None);
    check(&fs, "/backups/1", &one, &going.frames, "the first");
    check(&fs, "/backups/2", &two, &going.frames, "the second");
}
