//! Prices history anew: whole dates of `calls` by a corrected book, and the sums that were made of them.
//!
//! A batch job on a folder that nobody else has open. Reported costs stay; of the other rows that count, `cost_usd` and
//! `cost_source` become what the book says now.
//!
//! # How
//! 1. A note that says which dates ([`NOTE`]) is made durable.
//! 2. Before the first cost changes, all rows leave `slo_1m`: SLOs may count costs, and those without rows are counted from `calls`
//!    at the next start.
//! 3. Of each file of `calls` of these dates in which a cost changes, a new one is written, and the two are exchanged in one
//!    transaction, as merged files are ([`compact`](super::compact)). What does not change is not written.
//! 4. The files of `calls_1m` and `calls_1h` of these dates are replaced likewise by ones that are folded from `calls`: those before
//!    the cursor of `calls_1h` by one, and those after it by another, so that what hours lack can still be told by names.
//! 5. The note is removed.
//!
//! # Guarantees
//! * No row is lost or doubled, and nothing else of a row changes: each file leaves its table in the commit that adds the one with its rows.
//! * After a crash at any moment each row has its old cost or its new one. The next opening finds the note and does 4 and 5, so
//!   that sums are never those of other rows. Whoever prices the same dates again goes on where it was.
//! * Other tables but `slo_1m`, rows of other dates, and the positions up to which tables are complete stay as they are.

use std::collections::BTreeMap;
use std::io::BufWriter;
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::compute::{filter_record_batch, kernels};
use arrow::datatypes::{Decimal128Type, Int64Type};
use arrow::error::ArrowError;
use bytes::Bytes;
use object_store::path::Path;
use parquet::errors::ParquetError;
use toolgauge_analytics::price::{PriceBook, Pricer};
use toolgauge_analytics::rollup::CallsRollup;
use toolgauge_analytics::series::KnownSeries;
use toolgauge_proto::table::Table;
use toolgauge_proto::time::UnixMicros;

use super::compact::{Exchange, file_schema, in_schema, read_file};
use super::files::LakeFile;
use super::names::{FileName, date_text, dated, in_table, merged_name};
use super::statistics::{DataFile, Statistics};
use super::{LakeError, LakeTables, compact_id, hours, parquet as encoding};

/// Says which dates are being priced anew, as `FROM TO`; in the lake's folder as long as that is not done.
const NOTE: &str = "repricing";
/// What an error was in.
const PRICE: &str = "price anew the rows of";
/// Bytes that are written at once.
const WRITE_BYTES: usize = 1 << 20;

/// How far it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Repriced {
    /// Files of `calls` that were looked at.
    pub files: u64,
    /// Those of the dates that were asked for.
    pub files_total: u64,
    /// Their rows.
    pub rows: u64,
    /// Rows whose cost is another one.
    pub changed: u64,
    /// Sum of the costs before, of all rows that count or not, in units of 10^-9 dollars.
    pub before: i128,
    /// Sum of the costs after.
    pub after: i128,
}

impl LakeTables {
    /// Prices the rows of these dates (like `2026-01-31`, both ends included) by a book. Afterwards the tables are to be opened
    /// anew: sums in memory are of the costs before. `progress` is told after each file; it gives false to stop there, which
    /// leaves whole files with new costs, and sums that fit. `now` is any time of day.
    ///
    /// # Errors
    /// If a table cannot be read or written.
    pub fn reprice(
        mut self,
        dates: &RangeInclusive<String>,
        book: Arc<PriceBook>,
        now: UnixMicros,
        progress: &mut dyn FnMut(&Repriced) -> bool,
    ) -> Result<Repriced, LakeError> {
        self.telling_no_room(|tables| {
            tables.note(dates)?;
            let done = tables.reprice_calls(dates, &mut Pricer::new(book), now, progress)?;
            tables.refold(dates, now)?;
            tables.forget_note()?;
            Ok(done)
        })
    }

    /// Does what a repricing that was cut off has left to do.
    pub(super) fn finish_repricing(&mut self) -> Result<(), LakeError> {
        let note = match self.store.read(&Path::from(NOTE)) {
            Ok(note) => note,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(fault(Table::Calls, error)),
        };
        let text = String::from_utf8_lossy(&note);
        let Some((from, to)) = text.trim().split_once(' ') else {
            return Err(fault(Table::Calls, format!("the file \"{NOTE}\" says no dates but \"{text}\"")));
        };
        tracing::info!(from, to, "finishing a repricing that was cut off");
        self.telling_no_room(|tables| {
            tables.refold(&(from.to_owned()..=to.to_owned()), UnixMicros(0))?;
            tables.forget_note()
        })
    }

    fn note(&self, dates: &RangeInclusive<String>) -> Result<(), LakeError> {
        let text = Bytes::from(format!("{} {}\n", dates.start(), dates.end()));
        self.store.put_durably(&Path::from(NOTE), &[text], false).map_err(|error| fault(Table::Calls, error))
    }

    /// It may come back after a power cut, which costs a refold.
    fn forget_note(&self) -> Result<(), LakeError> {
        self.store.remove(&Path::from(NOTE)).map_err(|error| fault(Table::Calls, error))
    }

    fn files_of(&self, table: Table, dates: &RangeInclusive<String>) -> Result<Vec<Arc<LakeFile>>, LakeError> {
        let files = self.writers[table as usize].files().iter();
        let files: Vec<Arc<LakeFile>> = files.filter(|file| dates.contains(&date_text(file.date32))).cloned().collect();
        if let Some(other) = files.iter().find(|file| FileName::parse(&file.path).is_none()) {
            let what = "is not one of ours; dates with such files cannot be priced anew";
            return Err(fault(table, format!("\"{}\" {what}", other.path)));
        }
        Ok(files)
    }

    fn reprice_calls(
        &mut self,
        dates: &RangeInclusive<String>,
        pricer: &mut Pricer,
        now: UnixMicros,
        progress: &mut dyn FnMut(&Repriced) -> bool,
    ) -> Result<Repriced, LakeError> {
        let files = self.files_of(Table::Calls, dates)?;
        let mut done = Repriced { files_total: files.len() as u64, ..Repriced::default() };
        for file in files {
            let before = done.changed;
            let Some(name) = FileName::parse(&file.path) else { continue };
            let mut new = NewFile::begin(self, Table::Calls, file.date32, name)?;
            self.read(&file, &mut |batch| {
                let priced = pricer.price(batch).map_err(|error| fault(Table::Calls, error))?;
                done.add(batch, &priced);
                new.write(&priced)
            })?;
            if done.changed > before {
                if before == 0 {
                    self.forget_slo_counts(now)?;
                }
                let added = new.publish()?;
                self.replace(Table::Calls, vec![file.path.clone()], Some(added), now)?;
            }
            done.files += 1;
            if !progress(&done) {
                break;
            }
        }
        Ok(done)
    }

    /// Takes everything out of `slo_1m`, which is a cache of `calls`: it does not say which of its counts are of costs.
    fn forget_slo_counts(&mut self, now: UnixMicros) -> Result<(), LakeError> {
        let files: Vec<String> =
            self.writers[Table::Slo1m as usize].files().iter().map(|file| file.path.clone()).collect();
        if files.is_empty() {
            return Ok(());
        }
        self.replace(Table::Slo1m, files, None, now)
    }

    /// Folds `calls` of these dates again into the files of `calls_1m` and `calls_1h` that there are.
    fn refold(&mut self, dates: &RangeInclusive<String>, now: UnixMicros) -> Result<(), LakeError> {
        let mut calls: BTreeMap<i32, Vec<Arc<LakeFile>>> = BTreeMap::new();
        for file in self.files_of(Table::Calls, dates)? {
            calls.entry(file.date32).or_default().push(file);
        }
        // What hours were summed up to must stay the end of a file.
        let hours = self.calls_1h.cursor().as_i64();
        for table in [Table::Calls1m, Table::Calls1h] {
            let mut sums: BTreeMap<(i32, String, bool), Vec<Arc<LakeFile>>> = BTreeMap::new();
            for file in self.files_of(table, dates)? {
                // Files of one writer, as the names of others must not be taken.
                if let Some(name) = FileName::parse(&file.path) {
                    let key = (file.date32, name.writer.to_owned(), name.last > hours);
                    sums.entry(key).or_default().push(file);
                }
            }
            for ((date, ..), files) in sums {
                // Sums of rows that are too old stay as long as they do.
                if let Some(calls) = calls.get(&date) {
                    self.refold_files(table, calls, files, now)?;
                }
            }
        }
        Ok(())
    }

    fn refold_files(
        &mut self,
        table: Table,
        calls: &[Arc<LakeFile>],
        files: Vec<Arc<LakeFile>>,
        now: UnixMicros,
    ) -> Result<(), LakeError> {
        let Some(date32) = files.first().map(|file| file.date32) else { return Ok(()) };
        let names: Vec<FileName<'_>> = files.iter().filter_map(|file| FileName::parse(&file.path)).collect();
        let Some(some) = names.first().copied() else { return Ok(()) };
        let (first, last) = names
            .iter()
            .fold((some.first, some.last), |(first, last), name| (first.min(name.first), last.max(name.last)));
        let mut rollup = CallsRollup::default();
        for file in calls {
            // Of rows in the order of the log, a file has those of its positions.
            if FileName::parse(&file.path).is_some_and(|name| name.last < first || name.first > last) {
                continue;
            }
            self.read(file, &mut |batch| {
                let here = between(batch, first, last).and_then(|rows| rollup.add(&rows));
                here.map_err(|error| fault(table, error))
            })?;
        }
        // Prices change no names: those of the table stay, and what had none gets none.
        let mut known = KnownSeries::new(0);
        for date in rollup.dates() {
            known.learn(date, self.writers[Table::Calls1m as usize].series_of(date)?.0);
        }
        drop(rollup.fold_series(&known));
        let mut new = NewFile::begin(self, table, date32, FileName { first, last, ..some })?;
        let mut batches = rollup.batches().map_err(|error| fault(table, error))?;
        if table == Table::Calls1h {
            batches = hours::of_minutes(&batches).map_err(|error| fault(table, error))?;
        }
        for batch in batches {
            new.write(&batch)?;
        }
        let added = new.publish()?;
        self.replace(table, files.iter().map(|file| file.path.clone()).collect(), Some(added), now)
    }

    /// The rows of a file of `calls`, a batch at a time.
    fn read(
        &self,
        file: &LakeFile,
        each: &mut dyn FnMut(&RecordBatch) -> Result<(), LakeError>,
    ) -> Result<(), LakeError> {
        let schema = file_schema(Table::Calls);
        let mut rows = 0;
        for batch in read_file(&self.store, Table::Calls, PRICE, &file.path, &schema)? {
            let batch = batch?;
            rows += batch.num_rows() as u64;
            each(&batch)?;
        }
        if let Some(expected) = file.rows().filter(|expected| *expected != rows) {
            let what = format!("\"{}\" has {rows} rows, its log says {expected}", file.path);
            return Err(fault(Table::Calls, what));
        }
        Ok(())
    }

    /// Exchanges files for one that has their rows with other costs, or for none.
    fn replace(
        &mut self,
        table: Table,
        removed: Vec<String>,
        added: Option<DataFile>,
        now: UnixMicros,
    ) -> Result<(), LakeError> {
        let version = self.writers[table as usize].committed(&compact_id(&self.writer))?.unwrap_or(0) + 1;
        let exchange = Exchange { table, version, removed, added, changes_rows: true };
        if self.exchange(&exchange, now)? {
            return Ok(());
        }
        Err(fault(table, "somebody else has replaced its files (stop whoever writes to them, and try again)"))
    }
}

impl Repriced {
    fn add(&mut self, before: &RecordBatch, after: &RecordBatch) {
        let [old, new] = [before, after].map(|rows| rows["cost_usd"].as_primitive::<Decimal128Type>());
        self.rows += old.len() as u64;
        self.changed += old.iter().zip(new).filter(|(old, new)| old != new).count() as u64;
        self.before += old.iter().flatten().sum::<i128>();
        self.after += new.iter().flatten().sum::<i128>();
    }
}

/// The rows of `calls` of these positions.
fn between(rows: &RecordBatch, first: i64, last: i64) -> Result<RecordBatch, ArrowError> {
    let positions = rows["wal_position"].as_primitive::<Int64Type>();
    if positions.values().iter().all(|position| (first..=last).contains(position)) {
        return Ok(rows.clone());
    }
    let here = arrow::compute::and(
        &kernels::cmp::gt_eq(positions, &Int64Array::new_scalar(first))?,
        &kernels::cmp::lt_eq(positions, &Int64Array::new_scalar(last))?,
    )?;
    filter_record_batch(rows, &here)
}

fn fault(table: Table, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> LakeError {
    LakeError::other(table, PRICE, error)
}

/// A file that is being written. Dropped, it never was.
struct NewFile {
    table: Table,
    path: String,
    date32: i32,
    writer: ::parquet::arrow::ArrowWriter<BufWriter<super::store::Staged>>,
    schema: arrow::datatypes::SchemaRef,
    statistics: Statistics,
}

impl NewFile {
    /// One that has the rows of files of these positions.
    fn begin(tables: &LakeTables, table: Table, date32: i32, name: FileName<'_>) -> Result<Self, LakeError> {
        let token = tables.store.token().map_err(|error| fault(table, error))?;
        let path = dated(date32, &merged_name(name, &token));
        let schema = file_schema(table);
        let staged = tables.store.stage(&in_table(table, &path)).map_err(|error| fault(table, error))?;
        let out = BufWriter::with_capacity(WRITE_BYTES, staged);
        let writer = encoding::merging_writer(out, &schema, table).map_err(|error| fault(table, error))?;
        Ok(Self { table, path, date32, writer, schema, statistics: Statistics::new(table) })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), LakeError> {
        let batch = in_schema(batch, &self.schema).map_err(|error| fault(self.table, error))?;
        self.statistics.add(&batch);
        self.writer.write(&batch).map_err(|error: ParquetError| fault(self.table, error))
    }

    fn publish(self) -> Result<DataFile, LakeError> {
        let table = self.table;
        let out = self.writer.into_inner().map_err(|error| fault(table, error))?;
        let staged = out.into_inner().map_err(|error| fault(table, error.into_error()))?;
        let size = staged.publish(false).map_err(|error| fault(table, error))? as i64;
        Ok(DataFile::new(self.path, self.date32, size, self.statistics))
    }
}
