//! A copy of a data folder that is being written to.
//!
//! # Guarantees
//! * What was acknowledged before the backup began is in it; of what came meanwhile a prefix. A server that starts on it answers
//!   what the original answers for the same calls, and goes on from there.
//! * The folder has its name only when it is whole and durable. Before, it is called `<name>.partial`.
//! * The original is only read. The server does not know of it.
//!
//! # How it works
//! A plain copy can hold a table that is ahead of what it is made of, or a log that begins after what the tables have. So the
//! order matters:
//!
//! 1. the log as it is, which keeps what may be forgotten before the end;
//! 2. the tables, each at one version: first the derived ones, `calls` last. A table's log is read first, then the files that it
//!    names are copied, which are never changed, and are kept for an hour after they have left the table;
//! 3. what the log has got meanwhile. Everything that the tables hold was synced there before.
//!
//! The log is looked at again after every few files, because it forgets what the tables have after a quarter of an hour. Files of a
//! segment that is still written are copied up to the length that they have when they are opened; a frame that is cut
//! off by that is like one that a crash tore.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Deserialize;
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::table::Table;
use toolgauge_proto::time::UnixMicros;

use crate::fs::{Fs, create_dir_all_synced};
use crate::wal;

/// Derived tables before what they are made of.
const ORDER: [Table; Table::ALL.len()] =
    [Table::Calls1h, Table::Calls1m, Table::Slo1m, Table::Alerts, Table::Arrivals, Table::Quarantine, Table::Calls];
/// Bytes that are copied at once.
const CHUNK_BYTES: u64 = 4 << 20;
/// Files between two looks at the log.
const FILES_BETWEEN: usize = 64;
/// How often a table is tried whose files go away meanwhile.
const TRIES: usize = 5;

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is something of that name.
    #[error("\"{}\" is there already (name a folder that is not; a \".partial\" one was left by a backup that was interrupted)", path.display())]
    Exists {
        /// What.
        path: PathBuf,
    },
    /// It is no data folder, or a file of it cannot be read.
    #[error("{action} \"{}\"", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A log is not as this program writes it.
    #[error("\"{}\" cannot be read: {reason}", path.display())]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The server was faster.
    #[error("\"{}\" was deleted before it was copied (copy to a faster disk, or at a quieter time)", path.display())]
    TooSlow {
        /// What is missing.
        path: PathBuf,
    },
}

impl BackupError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    fn is_gone(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// What was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backup {
    /// Every export up to here is in it.
    pub position: WalPosition,
    /// When that one was received.
    pub received: UnixMicros,
    /// Files.
    pub files: u64,
    /// Bytes that were copied.
    pub bytes: u64,
    /// Files that are shared with the backup before.
    pub shared: u64,
}

/// Copies the data folder `data` to `to`, which must not be there. Files that the backup `previous` has too get one more name
/// instead of a copy, if both are on one file system. Blocks.
///
/// # Errors
/// See [`BackupError`]; what was copied stays in `<to>.partial`.
pub fn backup(fs: &dyn Fs, data: &Path, to: &Path, previous: Option<&Path>) -> Result<Backup, BackupError> {
    let mut partial = to.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    for path in [to, &partial] {
        if fs.metadata(path).is_ok() {
            return Err(BackupError::Exists { path: path.to_owned() });
        }
    }
    let writer = wal::writer_file(&data.join("wal"));
    let content = fs.read(&writer).map_err(BackupError::io("read", &writer))?;
    let mut copy = Copy { fs, data, to: &partial, previous, files: 0, bytes: 0, shared: 0 };
    create_dir_all_synced(fs, &partial.join("wal")).map_err(BackupError::io("create", &partial))?;
    copy.write(&wal::writer_file(Path::new("wal")), &content)?;
    let mut log = Log { dir: data.join("wal"), done: HashSet::new(), open: None };
    log.round(&mut copy)?;
    for table in ORDER {
        copy.table(table, &mut log)?;
    }
    log.round(&mut copy)?;
    let dir = partial.join("wal");
    let found = wal::last_frame(fs, &dir)
        .map_err(|error| BackupError::Corrupt { path: dir.clone(), reason: crate::pipeline::chain(&error) })?;
    let (position, received) = found;
    fs.sync_dir(&dir).map_err(BackupError::io("sync", &dir))?;
    let Copy { files, bytes, shared, .. } = copy;
    fs.rename(&partial, to).map_err(BackupError::io("rename", &partial))?;
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs.sync_dir(parent).map_err(BackupError::io("sync", parent))?;
    Ok(Backup { position, received, files, bytes, shared })
}

struct Copy<'a> {
    fs: &'a dyn Fs,
    data: &'a Path,
    to: &'a Path,
    previous: Option<&'a Path>,
    files: u64,
    bytes: u64,
    shared: u64,
}

impl Copy<'_> {
    fn write(&mut self, name: &Path, content: &[u8]) -> Result<(), BackupError> {
        let path = self.to.join(name);
        let mut file = self.fs.create_new(&path).map_err(BackupError::io("create", &path))?;
        file.write_all(content).map_err(BackupError::io("write", &path))?;
        file.sync_all().map_err(BackupError::io("sync", &path))?;
        self.files += 1;
        self.bytes += content.len() as u64;
        Ok(())
    }

    /// Copies a file up to the length that it has now.
    fn file(&mut self, name: &Path) -> Result<(), BackupError> {
        let (from, to) = (self.data.join(name), self.to.join(name));
        let len = self.fs.metadata(&from).map_err(BackupError::io("look at", &from))?.len;
        let mut file = self.fs.create_new(&to).map_err(BackupError::io("create", &to))?;
        let mut at = 0;
        while at < len {
            let chunk = self.fs.read_range(&from, at..len.min(at + CHUNK_BYTES));
            let chunk = chunk.map_err(BackupError::io("read", &from))?;
            if chunk.is_empty() {
                return Err(BackupError::Corrupt { path: from, reason: format!("it ends at byte {at} of {len}") });
            }
            file.write_all(&chunk).map_err(BackupError::io("write", &to))?;
            at += chunk.len() as u64;
        }
        file.sync_all().map_err(BackupError::io("sync", &to))?;
        self.files += 1;
        self.bytes += len;
        Ok(())
    }

    /// As [`Copy::file`], of one that never changes.
    fn unchanging_file(&mut self, name: &Path) -> Result<(), BackupError> {
        let len = |path: &Path| self.fs.metadata(path).ok().map(|metadata| metadata.len);
        if let Some(known) = self.previous.map(|previous| previous.join(name))
            && len(&known).is_some_and(|known| len(&self.data.join(name)) == Some(known))
            && self.fs.hard_link(&known, &self.to.join(name)).is_ok()
        {
            self.files += 1;
            self.shared += 1;
            return Ok(());
        }
        self.file(name)
    }

    /// A table at one version.
    fn table(&mut self, table: Table, log: &mut Log) -> Result<(), BackupError> {
        let folder = Path::new("lake").join(table.name());
        let mut tries = 1;
        let names = self.data.join(&folder).join("_delta_log");
        if self.fs.metadata(&names).is_err() {
            // It is made anew at the next start, as it would be here.
            return Ok(());
        }
        loop {
            let copied = self.version(&folder, log);
            match copied {
                Err(error) if error.is_gone() && tries < TRIES => tries += 1,
                Err(BackupError::Io { path, source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    return Err(BackupError::TooSlow { path });
                }
                Err(error) => return Err(error),
                Ok(()) => return Ok(()),
            }
        }
    }

    fn version(&mut self, folder: &Path, log: &mut Log) -> Result<(), BackupError> {
        let version = TableLog::read(self.fs, &self.data.join(folder))?;
        let mut folders: HashSet<PathBuf> = HashSet::new();
        for (number, file) in version.files.iter().enumerate() {
            if number % FILES_BETWEEN == FILES_BETWEEN - 1 {
                log.round(self)?;
            }
            let name = folder.join(file);
            let Some(parent) = name.parent() else { continue };
            if folders.insert(parent.to_owned()) {
                let parent = self.to.join(parent);
                create_dir_all_synced(self.fs, &parent).map_err(BackupError::io("create", &parent))?;
            }
            // A second try finds the files of the first.
            if self.fs.metadata(&self.to.join(&name)).is_ok() {
                continue;
            }
            if let Err(error) = self.unchanging_file(&name) {
                drop(self.fs.remove_file(&self.to.join(&name)));
                return Err(error);
            }
        }
        folders.insert(folder.join("_delta_log"));
        let delta_log = self.to.join(folder).join("_delta_log");
        create_dir_all_synced(self.fs, &delta_log).map_err(BackupError::io("create", &delta_log))?;
        for (name, content) in &version.log {
            self.write(&folder.join("_delta_log").join(name), content)?;
        }
        for folder in folders {
            let folder = self.to.join(folder);
            self.fs.sync_dir(&folder).map_err(BackupError::io("sync", &folder))?;
        }
        Ok(())
    }
}

/// The segments of the log, as far as they were copied.
struct Log {
    dir: PathBuf,
    /// Those that get no more frames.
    done: HashSet<WalPosition>,
    /// The last one that there was: copied up to somewhere.
    open: Option<WalPosition>,
}

impl Log {
    /// Copies what the log has and the copy has not.
    fn round(&mut self, copy: &mut Copy<'_>) -> Result<(), BackupError> {
        let mut tries = 1;
        loop {
            match self.try_round(copy) {
                Err(error) if error.is_gone() && tries < TRIES => tries += 1,
                done => return done,
            }
        }
    }

    fn try_round(&mut self, copy: &mut Copy<'_>) -> Result<(), BackupError> {
        let segments = wal::segments_of(copy.fs, &self.dir).map_err(BackupError::io("list", &self.dir))?;
        if let Some(open) = self.open
            && !segments.contains(&open)
        {
            return Err(BackupError::TooSlow { path: self.dir.join(wal::segment_file(open)) });
        }
        for (number, first) in segments.iter().enumerate() {
            if self.done.contains(first) {
                continue;
            }
            let name = Path::new("wal").join(wal::segment_file(*first));
            let to = copy.to.join(&name);
            if copy.fs.metadata(&to).is_ok() {
                copy.fs.remove_file(&to).map_err(BackupError::io("remove", &to))?;
            }
            if let Err(error) = copy.file(&name) {
                drop(copy.fs.remove_file(&to));
                return Err(error);
            }
            if number + 1 < segments.len() {
                self.done.insert(*first);
            }
        }
        self.open = segments.last().copied();
        Ok(())
    }
}

/// The log of a table from its newest checkpoint on, and the files that it has then.
struct TableLog {
    log: Vec<(String, Bytes)>,
    files: Vec<String>,
}

#[derive(Deserialize)]
struct Action {
    add: Option<NamedFile>,
    remove: Option<NamedFile>,
}

#[derive(Deserialize)]
struct NamedFile {
    path: String,
}

impl TableLog {
    fn read(fs: &dyn Fs, folder: &Path) -> Result<Self, BackupError> {
        let dir = folder.join("_delta_log");
        let names = fs.list_dir(&dir).map_err(BackupError::io("list", &dir))?;
        let versions = |suffix: &str| -> Vec<u64> {
            let version = |name: &str| name.strip_suffix(suffix).filter(|digits| digits.len() == 20)?.parse().ok();
            names.iter().filter_map(|entry| version(&entry.name)).collect()
        };
        let (commits, checkpoints) = (versions(".json"), versions(".checkpoint.parquet"));
        let Some(last) = commits.iter().max().copied() else {
            return Err(BackupError::Corrupt { path: dir, reason: "it has no commit".into() });
        };
        let checkpoint = checkpoints.into_iter().filter(|version| *version <= last).max();
        let (mut log, mut files) = (Vec::new(), Vec::new());
        let mut read = |name: String| -> Result<(PathBuf, Bytes), BackupError> {
            let path = dir.join(&name);
            let content = fs.read(&path).map_err(BackupError::io("read", &path))?;
            log.push((name, content.clone()));
            Ok((path, content))
        };
        if let Some(version) = checkpoint {
            let (path, content) = read(format!("{version:020}.checkpoint.parquet"))?;
            files = files_of_checkpoint(content).map_err(|reason| BackupError::Corrupt { path, reason })?;
        }
        for version in checkpoint.map_or(0, |version| version + 1)..=last {
            let (path, content) = read(format!("{version:020}.json"))?;
            let corrupt =
                |error: serde_json::Error| BackupError::Corrupt { path: path.clone(), reason: error.to_string() };
            for action in serde_json::Deserializer::from_slice(&content).into_iter::<Action>() {
                match action.map_err(corrupt)? {
                    Action { remove: Some(file), .. } => files.retain(|known| *known != file.path),
                    Action { add: Some(file), .. } => files.push(file.path),
                    _ => {}
                }
            }
        }
        Ok(Self { log, files })
    }
}

/// The files that a checkpoint names.
fn files_of_checkpoint(content: Bytes) -> Result<Vec<String>, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let reader = ParquetRecordBatchReaderBuilder::try_new(content).map_err(|e| text(&e))?;
    let paths = ProjectionMask::columns(reader.parquet_schema(), ["add.path"]);
    let batches = reader.with_projection(paths).build().map_err(|e| text(&e))?;
    let mut files = Vec::new();
    for batch in batches {
        let batch = batch.map_err(|e| text(&e))?;
        let adds = batch.column_by_name("add").and_then(|adds| adds.as_struct_opt());
        let paths = adds.and_then(|adds| adds.column_by_name("path")).and_then(|paths| paths.as_string_opt::<i32>());
        let (Some(adds), Some(paths)) = (adds, paths) else { return Err("it has no column `add.path`".into()) };
        files.extend(
            (0..paths.len())
                .filter(|row| adds.is_valid(*row) && paths.is_valid(*row))
                .map(|row| paths.value(row).to_owned()),
        );
    }
    Ok(files)
}
