//! Does the cost of a commit grow with the number of commits? `./dev bench commits`: milliseconds per commit around the
//! 100th, 1,000th and 5,000th, on the real disk. Disks, and machines of which one has a share, become slower and faster by
//! far more than what is to be seen. So each of these commits is made in turn with one of tables that are new, and what
//! must stay is the ratio of the two.
//!
//! In the time of the log a commit is made as often as the server makes one by default, and small files are merged every minute. Merging
//! itself is not measured. The log of a table remembers files that were removed for an hour of real time, so that here it
//! remembers all of them, twenty times as many as a server's.

#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use toolgauge_collector::export::{Export, ExportEncoding, ExportSignal};
use toolgauge_collector::fs::real::RealFs;
use toolgauge_collector::lake::{Compactor, FoldSettings, LakeTables};
use toolgauge_collector::pipeline::{CollectorSettings, Fold};
use toolgauge_collector::wal::{Frame, FrameContent};
use toolgauge_proto::id::{WalPosition, WriterId};
use toolgauge_proto::table::Table;
use toolgauge_proto::time::{Clock as _, SystemClock, UnixMicros};

#[expect(dead_code, reason = "shared with the other benchmarks")]
mod load;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Commits whose median is taken: one in four also writes other tables, and one in fifty at most a checkpoint.
const WINDOW: u64 = 200;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// What stands behind the log of a server: the fold and the tables.
struct Server {
    fold: Fold,
    tables: LakeTables,
    compactor: Compactor,
    start: i64,
    commits: u64,
    commit_every: u64,
    merge_every: u64,
}

impl Server {
    fn new(folder: &Path, runtime: &Handle) -> Fallible<Self> {
        let mut settings = CollectorSettings::new(folder.to_owned());
        settings.live.settle_us = 1;
        let mut tables = LakeTables::open(
            Arc::new(RealFs::private()),
            folder.join("lake"),
            WriterId::from_bytes([7; 16]),
            FoldSettings::default(),
            runtime,
        )?;
        Ok(Self {
            fold: Fold::new(&settings)?,
            compactor: tables.compactor(settings.compact.clone()),
            tables,
            start: SystemClock.now().0,
            commits: 0,
            commit_every: settings.commit_interval_us,
            merge_every: settings.compact.interval_us,
        })
    }

    /// Commits one more export, and gives what it took until readers have it.
    fn commit(&mut self, template: &load::Template) -> Fallible<Duration> {
        self.commits += 1;
        let number = self.commits;
        let export = Export {
            tenant: "default".into(),
            signal: ExportSignal::Traces,
            encoding: ExportEncoding::Protobuf,
            body: template.export(number),
        };
        for (step, content) in [FrameContent::Export(export), FrameContent::Tick].into_iter().enumerate() {
            let position = WalPosition(number * 2 - 1 + step as u64);
            let receive_time = UnixMicros(self.start + (number * self.commit_every) as i64 + step as i64 * 10);
            self.fold.apply(&Frame { position, receive_time, content })?;
        }
        let Some((commit, marks)) = self.fold.begin_commit()? else { return Err("nothing settled".into()) };
        let began = Instant::now();
        self.tables.commit(&commit)?;
        let _providers = self.tables.committed();
        let took = began.elapsed();
        self.fold.end_commit(marks);
        if number.is_multiple_of((self.merge_every / self.commit_every).max(1)) {
            self.merge()?;
        }
        Ok(took)
    }

    fn merge(&mut self) -> Fallible<()> {
        let now = self.fold.live().received();
        let elapsed_us = now.0.saturating_sub(self.start).unsigned_abs();
        for table in Table::ALL {
            while let Some(task) = self.compactor.task(&self.tables.files(table)?, now)
                && let Some(exchange) = self.compactor.prepare(task, &|| false)?
            {
                self.tables.exchange(&exchange, now)?;
                self.compactor.exchanged(exchange, elapsed_us);
            }
        }
        self.compactor.delete(elapsed_us)?;
        Ok(())
    }
}

fn median_ms(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}

fn mean_ms(times: &[Duration]) -> f64 {
    times.iter().sum::<Duration>().as_secs_f64() * 1e3 / times.len() as f64
}

fn main() -> Fallible<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let parent = std::env::current_dir()?.join("target-bench");
    std::fs::create_dir_all(&parent)?;
    let folder = tempfile::tempdir_in(&parent)?;
    let template = load::Template::new();
    let mut server = Server::new(folder.path(), runtime.handle())?;
    for around in [100, 1_000, 5_000] {
        while server.commits < around - WINDOW / 2 {
            server.commit(&template)?;
        }
        let young_folder = tempfile::tempdir_in(&parent)?;
        let mut young = Server::new(young_folder.path(), runtime.handle())?;
        let (mut old_times, mut young_times) = (Vec::new(), Vec::new());
        for _ in 0..WINDOW {
            young_times.push(young.commit(&template)?);
            old_times.push(server.commit(&template)?);
        }
        let (old_mean, young_mean) = (mean_ms(&old_times), mean_ms(&young_times));
        let (old, young) = (median_ms(old_times), median_ms(young_times));
        println!(
            "at {around}: {old:.2} ms per commit of 512 rows until readers have it, {:.2} of that to new tables; mean {old_mean:.2}, {:.2}",
            old / young,
            old_mean / young_mean
        );
    }
    Ok(())
}
