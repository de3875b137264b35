//! Which files a table has.
//!
//! The list is read from the log when the table is opened, and follows each commit from then on. So what a commit costs until readers
//! have it does not grow with the table, but for a copy of pointers; reading the log again would look at all its files.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Date32Array, RecordBatch, UInt64Array};
use arrow::compute;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, ScalarValue};
use delta_kernel::SnapshotRef;
use delta_kernel::engine::arrow_data::ArrowEngineData;
use delta_kernel::scan::StatsOptions;
use toolgauge_proto::table::Table;

use super::LakeError;
use super::names::date32;
use super::statistics::{self, DataFile, Statistics, statistics_columns};

/// A file of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LakeFile {
    /// Within the table.
    pub(super) path: String,
    /// Its partition, in days since 1970.
    pub(super) date32: i32,
    pub(super) bytes: u64,
    /// When it was added, in milliseconds since 1970.
    pub(super) modified_ms: i64,
    /// As far as the log says.
    pub(super) statistics: Option<Statistics>,
}

impl LakeFile {
    fn new(file: &DataFile, modified_ms: i64) -> Self {
        Self {
            path: file.path.clone(),
            date32: file.date32,
            bytes: file.size.unsigned_abs(),
            modified_ms,
            statistics: Some(file.statistics.clone()),
        }
    }

    /// How many rows it has, if the log says so.
    pub(super) fn rows(&self) -> Option<u64> {
        self.statistics.as_ref().map(|statistics| statistics.rows.unsigned_abs())
    }
}

/// Files by path, at one version of a table; copies share them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Files {
    table: Table,
    version: u64,
    files: Arc<Vec<Arc<LakeFile>>>,
}

impl Files {
    /// Reads the log.
    pub(super) fn of(
        table: Table,
        snapshot: &SnapshotRef,
        engine: &dyn delta_kernel::Engine,
    ) -> Result<Self, LakeError> {
        let mut files = Vec::new();
        scan_log(table, snapshot, engine, StatsOptions::all_struct(), |data, selected| {
            add_logged(table, data.record_batch(), &selected, &mut files)
        })?;
        files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { table, version: snapshot.version(), files: Arc::new(files) })
    }

    /// Of which version of the table.
    #[cfg(test)]
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Follows a commit. What is not followed must be read again.
    pub(super) fn follow(
        &mut self,
        version: u64,
        removed: &HashSet<&str>,
        added: &[DataFile],
        modified_ms: i64,
    ) -> bool {
        if version != self.version + 1 {
            return false;
        }
        if !(removed.is_empty() && added.is_empty()) {
            let files = Arc::make_mut(&mut self.files);
            files.retain(|file| !removed.contains(file.path.as_str()));
            for file in added {
                let at = files.partition_point(|other| other.path < file.path);
                files.insert(at, Arc::new(LakeFile::new(file, modified_ms)));
            }
        }
        self.version = version;
        true
    }

    /// In the order of their paths: by date, writer and position.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<LakeFile>> {
        self.files.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.files.len()
    }
}

/// Goes through what the log of a snapshot says of the files: rows in the kernel's shape, and which of them are in the table.
pub(super) fn scan_log(
    table: Table,
    snapshot: &SnapshotRef,
    engine: &dyn delta_kernel::Engine,
    statistics: StatsOptions,
    mut each: impl FnMut(Box<ArrowEngineData>, Vec<bool>) -> Result<(), LakeError>,
) -> Result<(), LakeError> {
    let fault = |e| LakeError::kernel(table, "read the log of", e);
    let scan = Arc::clone(snapshot).scan_builder().with_stats(statistics).build().map_err(fault)?;
    for part in scan.scan_metadata(engine).map_err(fault)? {
        let (data, mut selected) = part.map_err(fault)?.scan_files.into_parts();
        let data = ArrowEngineData::try_from_engine_data(data).map_err(fault)?;
        selected.resize(data.record_batch().num_rows(), true);
        each(data, selected)?;
    }
    Ok(())
}

/// Adds what rows of a scan of the log say.
fn add_logged(
    table: Table,
    rows: &RecordBatch,
    selected: &[bool],
    files: &mut Vec<Arc<LakeFile>>,
) -> Result<(), LakeError> {
    let fault = |what: String| LakeError::other(table, "read the log of", what);
    let column = |name: &str| rows.column_by_name(name).ok_or_else(|| fault(format!("a scan gave no {name}")));
    let strings = |column: &ArrayRef| column.as_string_opt::<i32>().cloned();
    let numbers = |column: &ArrayRef| column.as_primitive_opt::<Int64Type>().cloned();
    let (Some(paths), Some(sizes), Some(modified), Some(constants), Some(vectors)) = (
        strings(column("path")?),
        numbers(column("size")?),
        numbers(column("modificationTime")?),
        column("fileConstantValues")?.as_struct_opt(),
        column("deletionVector")?.as_struct_opt(),
    ) else {
        return Err(fault("a scan gave other columns".into()));
    };
    let partitions = constants.column_by_name("partitionValues").and_then(|values| values.as_map_opt());
    let partitions = partitions.ok_or_else(|| fault("a scan gave no partitions".into()))?;
    let logged = rows.column_by_name("stats_parsed").and_then(|logged| logged.as_struct_opt());
    for row in selected.iter().enumerate().filter_map(|(row, selected)| selected.then_some(row)) {
        let path = paths.value(row);
        if vectors.is_valid(row) && vectors.columns().iter().any(|column| column.is_valid(row)) {
            return Err(LakeError::DeletionVector { table, file: path.to_owned() });
        }
        let values = partitions.value(row);
        let (keys, values) = (values.column(0).as_string::<i32>(), values.column(1).as_string::<i32>());
        let date = keys.iter().zip(values).find_map(|(key, value)| value.filter(|_| key == Some("date")));
        let date32 = date.and_then(date32).ok_or_else(|| fault(format!("the file \"{path}\" has no date")))?;
        files.push(Arc::new(LakeFile {
            path: path.to_owned(),
            date32,
            bytes: sizes.value(row).unsigned_abs(),
            modified_ms: modified.value(row),
            statistics: logged.and_then(|logged| Statistics::from_log(table, logged, row)),
        }));
    }
    Ok(())
}

/// What is known of the rows of each file, so that those can be left out that have none that are sought.
impl PruningStatistics for Files {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.ends(column, false)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.ends(column, true)
    }

    fn num_containers(&self) -> usize {
        self.files.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let nulls: ArrayRef = match self.statistics_column(column) {
            Some(at) => Arc::new(statistics::nulls(at, self.statistics())),
            None if column.name() == "date" => Arc::new(UInt64Array::from(vec![0; self.files.len()])),
            None => return None,
        };
        compute::cast(&nulls, &DataType::UInt64).ok()
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(self.files.iter().map(|file| file.rows()).collect::<UInt64Array>()))
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<arrow::array::BooleanArray> {
        None
    }
}

impl Files {
    fn statistics(&self) -> impl Iterator<Item = Option<&Statistics>> {
        self.files.iter().map(|file| file.statistics.as_ref())
    }

    fn statistics_column(&self, column: &Column) -> Option<usize> {
        statistics_columns(self.table).iter().position(|name| *name == column.name())
    }

    fn ends(&self, column: &Column, maximum: bool) -> Option<ArrayRef> {
        if column.name() == "date" {
            return Some(Arc::new(self.files.iter().map(|file| Some(file.date32)).collect::<Date32Array>()));
        }
        Some(statistics::ends(self.table, self.statistics_column(column)?, self.statistics(), maximum))
    }
}
