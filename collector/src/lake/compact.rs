//! Compaction and the end of the retention: many small files become few, and dates that are too old go.
//!
//! A commit every few seconds leaves thousands of files a day, and what a reader and a refresh cost grows with the files. So
//! files of one date are merged, in their order and without changing a row, into larger ones with zstd(3) and a bloom filter on
//! the trace. Rows of additive tables that have one key become one, so that a key that came in many commits is read once.
//!
//! # How
//! 1. [`LakeTables::files`] gives the files of a table as they are.
//! 2. [`Compactor::task`] chooses. [`Compactor::prepare`] reads, and writes the new file; this takes long, and nobody waits for it.
//! 3. [`LakeTables::exchange`] commits one transaction that adds the new file and removes the old ones.
//! 4. When readers have the new version, [`Compactor::exchanged`] notes the old files. [`Compactor::delete`] deletes them when
//!    no query that began before can still be running.
//!
//! # Guarantees
//! * An exchange is committed only upon a version of the table that has all of the old files, and carries a transaction of its
//!   own. Of two that take the same file only one comes through.
//! * A file that a crash leaves is deleted at the next start: at once if it was never in the table, else later, as in 4.
//! * A row is written again only into a file that is larger by half, at least, and usually several times as large ([`choose`]).
//! * Files of `calls_1m` are merged only once `calls_1h` has their rows: what it lacks, it finds by the files' names.
//! * Files of other logs of the data folder are not merged: whose log is not locked, nobody may delete files of.
//!
//! [`LakeTables::files`]: super::LakeTables::files
//! [`LakeTables::exchange`]: super::LakeTables::exchange

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io::BufWriter;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{RecordBatch, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use object_store::path::Path;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use toolgauge_analytics::additive::Additive;
use toolgauge_proto::table::Table;
use toolgauge_proto::time::UnixMicros;

use super::files::{Files, LakeFile};
use super::names::{FileName, dated, in_table, merged_name};
use super::statistics::{DataFile, Statistics};
use super::store::FsStore;
use super::{LakeError, parquet as encoding};

/// Most files that are merged at once; each is opened, and has an entry in the commit.
const FILES_MAX: usize = 1_024;
/// Rows that are read at once.
const BATCH_ROWS: usize = 8_192;
/// Bytes that are written at once.
const WRITE_BYTES: usize = 1 << 20;
/// What an error was in.
const MERGE: &str = "merge files of";
/// Memory of the sums of additive tables: more are written, although later rows may have the same keys. Rows of one minute come
/// together, so that few do.
const SUMS_BYTES: usize = 64 << 20;
/// Files that could not be read and are left alone from then on; beyond that all are tried again.
const LEFT_ALONE_MAX: usize = 10_000;

/// What is merged and removed, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactSettings {
    /// Whether files are merged. What is too old goes anyway.
    pub merge: bool,
    /// How often it is looked whether something is to be done, in microseconds.
    pub interval_us: u64,
    /// So many files of the newest date are merged at once, or more; of earlier dates two are enough.
    pub files_min: usize,
    /// Only smaller files are merged, in bytes.
    pub small_bytes: u64,
    /// Of the newest date only files with fewer rows are merged: at full load every commit has a whole row group, and
    /// to write it again at once would cost as much as taking it in.
    pub small_rows: u64,
    /// Files are merged up to this size of all together, in bytes.
    pub target_bytes: u64,
    /// Files are deleted so long after they were taken out of the table, in microseconds. Longer than any query.
    pub keep_removed_us: u64,
    /// Dates that are older go, in microseconds.
    pub retention_us: i64,
}

impl Default for CompactSettings {
    fn default() -> Self {
        Self {
            merge: true,
            interval_us: 60_000_000,
            files_min: 8,
            small_bytes: 32 << 20,
            small_rows: encoding::ROW_GROUP_ROWS as u64,
            target_bytes: 256 << 20,
            keep_removed_us: 3_600_000_000,
            retention_us: crate::recognise::RecogniseSettings::default().retention_us,
        }
    }
}

/// The files of a table at one version.
#[derive(Debug)]
pub struct TableFiles {
    pub(super) table: Table,
    pub(super) files: Files,
    /// Of the newest exchange.
    pub(super) exchanged: i64,
    /// Files with later positions are not merged.
    pub(super) merge_up_to: i64,
}

/// Files to be merged, or to be dropped.
#[derive(Debug)]
pub struct Task {
    table: Table,
    /// Of the exchange that it becomes.
    version: i64,
    files: Vec<Arc<LakeFile>>,
    merge: bool,
}

/// Files that leave a table, and the one that has their rows, if they stay.
#[derive(Debug)]
pub struct Exchange {
    pub(super) table: Table,
    pub(super) version: i64,
    pub(super) removed: Vec<String>,
    pub(super) added: Option<DataFile>,
    /// Not only where the rows are.
    pub(super) changes_rows: bool,
}

impl Exchange {
    /// Of which table.
    #[must_use]
    pub fn table(&self) -> Table {
        self.table
    }

    /// How many files leave.
    #[must_use]
    pub fn files(&self) -> u64 {
        self.removed.len() as u64
    }

    /// How many rows were written anew.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.added.as_ref().map_or(0, |file| file.statistics.rows.unsigned_abs())
    }

    /// Whether the rows stay.
    #[must_use]
    pub fn is_merge(&self) -> bool {
        self.added.is_some()
    }
}

/// See the module. Exactly one for a data folder.
#[derive(Debug)]
pub struct Compactor {
    settings: CompactSettings,
    store: FsStore,
    writer: String,
    left_alone: HashSet<(Table, String)>,
    /// What left the tables, and from when on it may be deleted, in microseconds; the oldest first.
    removed: VecDeque<(u64, Path)>,
}

impl Compactor {
    /// `removed` are files that left the tables before the start.
    pub(super) fn new(settings: CompactSettings, store: FsStore, writer: String, removed: Vec<Path>) -> Self {
        let removed = removed.into_iter().map(|path| (settings.keep_removed_us, path)).collect();
        Self { settings, store, writer, left_alone: HashSet::new(), removed }
    }

    /// What is to be done next with a table; `None` if nothing is. `now` is log time.
    #[must_use]
    pub fn task(&self, of: &TableFiles, now: UnixMicros) -> Option<Task> {
        let TableFiles { table, files, exchanged, merge_up_to } = of;
        let mut files: Vec<Arc<LakeFile>> = files.iter().cloned().collect();
        let task = |files, merge| Task { table: *table, version: exchanged + 1, files, merge };
        // The state of alerts is read from their history, however old.
        if *table != Table::Alerts {
            let first = UnixMicros(now.0.saturating_sub(self.settings.retention_us)).date32();
            let old: Vec<Arc<LakeFile>> = files.extract_if(.., |file| file.date32 < first).take(FILES_MAX).collect();
            if !old.is_empty() {
                return Some(task(old, false));
            }
        }
        if !self.settings.merge {
            return None;
        }
        files.retain(|file| {
            let is_open = FileName::parse(&file.path).is_some_and(|name| name.last > *merge_up_to);
            !is_open && !self.left_alone.contains(&(*table, file.path.clone()))
        });
        choose(&files, &self.writer, &self.settings).map(|files| task(files, true))
    }

    /// Does what takes long of a task; `None` if it was cancelled, which is asked before each batch of rows.
    ///
    /// # Errors
    /// [`LakeError::NoRoom`] may pass. Else a file cannot be read or written; its task is not chosen again.
    pub fn prepare(&mut self, task: Task, is_cancelled: &dyn Fn() -> bool) -> Result<Option<Exchange>, LakeError> {
        let Task { table, version, files, merge } = task;
        let removed: Vec<String> = files.iter().map(|file| file.path.clone()).collect();
        if !merge {
            return Ok(Some(Exchange { table, version, removed, added: None, changes_rows: true }));
        }
        self.store.take_no_room();
        match self.merge(table, &files, is_cancelled) {
            Ok(added) => {
                Ok(added.map(|file| Exchange { table, version, removed, added: Some(file), changes_rows: false }))
            }
            Err(error) if self.store.take_no_room() => Err(LakeError::NoRoom { source: Box::new(error) }),
            Err(error) => {
                if self.left_alone.len() > LEFT_ALONE_MAX {
                    self.left_alone.clear();
                }
                self.left_alone.extend(removed.into_iter().map(|path| (table, path)));
                Err(error)
            }
        }
    }

    fn merge(
        &self,
        table: Table,
        files: &[Arc<LakeFile>],
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<DataFile>, LakeError> {
        let corrupt = |path: &str, what: String| LakeError::other(table, MERGE, format!("\"{path}\" {what}"));
        let (Some(first), Some(last)) = (files.first(), files.last()) else { return Ok(None) };
        let (Some(begin), Some(end)) = (FileName::parse(&first.path), FileName::parse(&last.path)) else {
            return Err(corrupt(&first.path, "is not one of ours".into()));
        };
        let io = |e: std::io::Error| LakeError::other(table, MERGE, e);
        let bytes: u64 = files.iter().map(|file| file.bytes).sum();
        if self.store.available_bytes().map_err(io)? < bytes.saturating_mul(2) {
            let source = LakeError::other(table, MERGE, "little room on the disk is left to the commits");
            return Err(LakeError::NoRoom { source: Box::new(source) });
        }
        let name = merged_name(FileName { last: end.last, ..begin }, &self.store.token().map_err(io)?);
        let path = dated(first.date32, &name);

        let schema = file_schema(table);
        let staged = self.store.stage(&in_table(table, &path)).map_err(io)?;
        let out = BufWriter::with_capacity(WRITE_BYTES, staged);
        let parquet = |e: ParquetError| LakeError::other(table, MERGE, e);
        let arrow = |e: ArrowError| LakeError::other(table, MERGE, e);
        let mut writer = encoding::merging_writer(out, &schema, table).map_err(parquet)?;
        let mut statistics = Statistics::new(table);
        let mut sums = table.is_additive().then(|| Additive::new(table)).transpose().map_err(arrow)?;
        let mut write = |batch: &RecordBatch| {
            statistics.add(batch);
            writer.write(batch).map_err(parquet)
        };
        for file in files {
            let mut rows = 0;
            for batch in read_file(&self.store, table, MERGE, &file.path, &schema)? {
                if is_cancelled() {
                    return Ok(None);
                }
                let batch = batch?;
                rows += batch.num_rows() as u64;
                let Some(sums) = &mut sums else {
                    write(&batch)?;
                    continue;
                };
                sums.add(&batch).map_err(|e| corrupt(&file.path, format!("cannot be read: {e}")))?;
                if sums.heap_bytes() > SUMS_BYTES {
                    write_sums(sums, &schema, &mut write)?;
                }
            }
            if let Some(expected) = file.rows().filter(|expected| *expected != rows) {
                return Err(corrupt(&file.path, format!("has {rows} rows, its log says {expected}")));
            }
        }
        if let Some(sums) = &mut sums {
            write_sums(sums, &schema, &mut write)?;
        }
        let staged = writer.into_inner().map_err(parquet)?.into_inner().map_err(|e| io(e.into_error()))?;
        let size = staged.publish(false).map_err(io)? as i64;
        Ok(Some(DataFile::new(path, first.date32, size, statistics)))
    }

    /// An exchange is committed, and readers have the version with it. `now_us` is any clock that does not go back.
    pub fn exchanged(&mut self, exchange: Exchange, now_us: u64) {
        let due = now_us.saturating_add(self.settings.keep_removed_us);
        self.removed.extend(exchange.removed.iter().map(|path| (due, in_table(exchange.table, path))));
    }

    /// An exchange is not committed, and never will be: somebody said so, and did not fail.
    pub fn abandon(&self, exchange: &Exchange) {
        if let Some(file) = &exchange.added {
            // Left behind, it is swept at the next start.
            drop(self.store.remove(&in_table(exchange.table, &file.path)));
        }
    }

    /// Deletes what left the tables long enough ago, and says how many files that were. By the clock of
    /// [`Compactor::exchanged`], which begins with 0 at the start.
    ///
    /// # Errors
    /// If a file cannot be deleted; it is tried again after the next start.
    pub fn delete(&mut self, now_us: u64) -> Result<u64, LakeError> {
        let mut deleted = 0;
        while let Some((_, path)) = self.removed.pop_front_if(|(due, _)| *due <= now_us) {
            match self.store.remove(&path) {
                Ok(()) => deleted += 1,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(LakeError::Folder { path: path.as_ref().into(), source }),
            }
        }
        Ok(deleted)
    }
}

/// Writes what was summed, and begins anew.
fn write_sums(
    sums: &mut Additive,
    schema: &SchemaRef,
    write: &mut impl FnMut(&RecordBatch) -> Result<(), LakeError>,
) -> Result<(), LakeError> {
    let table = sums.table();
    let arrow = |e: ArrowError| LakeError::other(table, MERGE, e);
    for batch in sums.batches().map_err(arrow)? {
        write(&in_schema(&batch, schema).map_err(arrow)?)?;
    }
    *sums = Additive::new(table).map_err(arrow)?;
    Ok(())
}

/// The rows of a file, in the columns that the table has now.
pub(super) fn read_file<'a>(
    store: &FsStore,
    table: Table,
    action: &'static str,
    path: &'a str,
    schema: &'a SchemaRef,
) -> Result<impl Iterator<Item = Result<RecordBatch, LakeError>> + 'a, LakeError> {
    let content = store.read(&in_table(table, path)).map_err(|e| LakeError::other(table, action, e))?;
    let fault = move |e: Box<dyn std::error::Error + Send + Sync>| {
        LakeError::other(table, action, format!("\"{path}\" cannot be read: {e}"))
    };
    let batches = ParquetRecordBatchReaderBuilder::try_new(content)
        .and_then(|reader| reader.with_batch_size(BATCH_ROWS).build())
        .map_err(|e| fault(e.into()))?;
    Ok(batches.map(move |batch| batch.and_then(|batch| in_schema(&batch, schema)).map_err(|e| fault(e.into()))))
}

/// The columns of a file: the date is in its path.
pub(super) fn file_schema(table: Table) -> SchemaRef {
    let schema = table.schema();
    let fields: Vec<_> = schema.fields().iter().skip(1).cloned().collect();
    Arc::new(arrow::datatypes::Schema::new(fields))
}

/// The columns that the table has now, null where the file is older than they are.
pub(super) fn in_schema(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = schema.fields().iter().map(|field| match batch.column_by_name(field.name()) {
        Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
        Some(column) => cast(column, field.data_type()),
        None => Ok(new_null_array(field.data_type(), batch.num_rows())),
    });
    RecordBatch::try_new(SchemaRef::clone(schema), columns.collect::<Result<_, _>>()?)
}

/// A file with its first and last log position.
type Placed<'a> = (i64, i64, &'a Arc<LakeFile>);

/// Files to be merged, in their order: small ones of one date and one fold of this writer that follow each other.
///
/// They are as many as `files_min`, and all together (`files_min` + 1) / 2 times as large as the largest of them. So a row is
/// written again only into a file that is larger by that factor, however slowly small files come in behind a large one.
fn choose(files: &[Arc<LakeFile>], writer: &str, settings: &CompactSettings) -> Option<Vec<Arc<LakeFile>>> {
    let mut groups: BTreeMap<(i32, &str), Vec<Placed<'_>>> = BTreeMap::new();
    for file in files {
        if let Some(name) = FileName::parse(&file.path)
            && name.writer == writer
        {
            groups.entry((file.date32, name.fold)).or_default().push((name.first, name.last, file));
        }
    }
    let newest = groups.keys().map(|(date, _)| *date).max()?;
    for ((date, _), mut group) in groups {
        let files_min = if date == newest { settings.files_min } else { 2 };
        group.sort_unstable_by_key(|(first, last, _)| (*first, *last));
        let rows_max = if date == newest { settings.small_rows } else { u64::MAX };
        let is_small =
            |file: &LakeFile| file.bytes < settings.small_bytes && file.rows().is_none_or(|rows| rows < rows_max);
        for run in group.split(|(_, _, file)| !is_small(file)) {
            let bytes: Vec<u64> = run.iter().map(|(_, _, file)| file.bytes).collect();
            if let Some(window) = window(&bytes, files_min.max(2), settings.target_bytes) {
                return Some(run[window].iter().map(|(_, _, file)| Arc::clone(file)).collect());
            }
        }
    }
    None
}

/// The first place with files to be merged, and as many as may be.
fn window(bytes: &[u64], files_min: usize, target_bytes: u64) -> Option<Range<usize>> {
    (0..bytes.len()).find_map(|start| {
        let (mut total, mut largest, mut found) = (0_u64, 0, None);
        for (count, bytes) in (1..=FILES_MAX).zip(&bytes[start..]) {
            total = total.saturating_add(*bytes);
            largest = largest.max(*bytes);
            if total > target_bytes {
                break;
            }
            if count >= files_min && largest.saturating_mul(files_min as u64 + 1) <= 2 * total {
                found = Some(start..start + count);
            }
        }
        found
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITER: &str = "00112233445566778899aabbccddeeff";

    fn file(date: &str, owner: &str, first: i64, bytes: u64) -> Arc<LakeFile> {
        let path = format!("date={date}/{owner}-{first:020}-{:020}.parquet", first + 9);
        named(date, path, bytes)
    }

    fn named(date: &str, path: String, bytes: u64) -> Arc<LakeFile> {
        let date32 = crate::lake::names::date32(date).unwrap();
        Arc::new(LakeFile { path, date32, bytes, modified_ms: 0, statistics: None })
    }

    fn settings() -> CompactSettings {
        CompactSettings { files_min: 3, small_bytes: 100, target_bytes: 300, ..CompactSettings::default() }
    }

    /// First positions of what is chosen.
    fn chosen(files: &[Arc<LakeFile>]) -> Vec<i64> {
        let chosen = choose(files, WRITER, &settings()).unwrap_or_default();
        chosen.iter().map(|file| FileName::parse(&file.path).unwrap().first).collect()
    }

    fn row(sizes: &[u64]) -> Vec<Arc<LakeFile>> {
        // In the log they stand in any order.
        let files = sizes.iter().enumerate().rev();
        files.map(|(at, bytes)| file("2026-01-02", WRITER, at as i64 * 10, *bytes)).collect()
    }

    #[test]
    fn files_of_whole_row_groups_wait_until_their_date_is_over() {
        let mut full = row(&[10, 10, 10]);
        for file in &mut full {
            let mut statistics = Statistics::new(Table::Calls);
            statistics.rows = settings().small_rows.cast_signed();
            Arc::make_mut(file).statistics = Some(statistics);
        }
        assert_eq!(chosen(&full), [0; 0]);
        full.push(file("2026-01-03", WRITER, 30, 10));
        assert_eq!(chosen(&full), [0, 10, 20]);
    }

    #[test]
    fn files_that_follow_each_other_are_chosen_oldest_first_up_to_the_target() {
        assert_eq!(chosen(&row(&[10, 10])), [0; 0]);
        assert_eq!(chosen(&row(&[10, 10, 10])), [0, 10, 20]);
        assert_eq!(chosen(&row(&[10, 10, 10, 10])), [0, 10, 20, 30]);
        assert_eq!(chosen(&row(&[90, 90, 90, 90])), [0, 10, 20]);
        assert_eq!(chosen(&row(&[10, 10, 100, 10, 10])), [0; 0]);
        assert_eq!(chosen(&row(&[10, 10, 100, 10, 10, 10])), [30, 40, 50]);
    }

    #[test]
    fn a_file_that_outweighs_the_others_waits_until_they_have_grown() {
        assert_eq!(chosen(&row(&[50, 10, 10])), [0; 0]);
        assert_eq!(chosen(&row(&[50, 10, 10, 10])), [10, 20, 30]);
        assert_eq!(chosen(&row(&[50, 30, 10, 10])), [0, 10, 20, 30]);
    }

    /// Scenario: files of one size come in one by one, thousands of them.
    /// Guarantees: few are left at any time, and rows are written a few times only.
    #[test]
    fn files_stay_few_and_rows_are_written_seldom() {
        let settings = CompactSettings { small_bytes: 4_096, target_bytes: 65_536, ..CompactSettings::default() };
        let (mut sizes, mut written): (Vec<u64>, u64) = (Vec::new(), 0);
        let all = 8_000;
        for _ in 0..all {
            sizes.push(1);
            let run = sizes.iter().rposition(|size| *size >= settings.small_bytes).map_or(0, |at| at + 1);
            if let Some(window) = window(&sizes[run..], settings.files_min, settings.target_bytes) {
                let window = run + window.start..run + window.end;
                let merged = sizes[window.clone()].iter().sum();
                sizes.splice(window, [merged]);
                written += merged;
            }
            assert!(sizes.len() < 50, "{sizes:?}");
        }
        assert_eq!(sizes.iter().sum::<u64>(), all);
        assert!(written <= 5 * all, "{written}");
    }

    #[test]
    fn files_of_other_dates_folds_and_writers_are_not_mixed() {
        let (other, fold) = ("ff".repeat(16), format!("{WRITER}.slo_1m"));
        let mut files = vec![
            file("2026-01-02", WRITER, 0, 10),
            file("2026-01-02", WRITER, 10, 10),
            file("2026-01-02", &fold, 20, 10),
            file("2026-01-02", &fold, 30, 10),
            file("2026-01-02", &other, 40, 10),
            file("2026-01-02", &other, 50, 10),
            file("2026-01-02", &other, 60, 10),
            file("2026-01-01", WRITER, 5, 10),
            named("2026-01-02", "date=2026-01-02/part-0.parquet".into(), 10),
        ];
        assert_eq!(chosen(&files), [0; 0]);
        // No more comes of an earlier date, so fewer are enough.
        files.push(file("2026-01-01", WRITER, 15, 10));
        assert_eq!(chosen(&files), [5, 15]);
    }
}
