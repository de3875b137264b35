//! The committed rows of a table straight from its log and files, without the code that wrote them.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use toolgauge_collector::fs::Fs as _;
use toolgauge_collector::fs::sim::SimFs;
use toolgauge_proto::table::Table;

/// The paths of all files that the table has, in the order of the commits. What an `add` or `remove` names must fit.
fn paths(fs: &SimFs, folder: &Path) -> Vec<String> {
    let log = folder.join("_delta_log");
    let mut paths: Vec<String> = Vec::new();
    let mut version = 0;
    loop {
        let name = format!("{version:020}.json");
        let Ok(commit) = fs.read(&log.join(&name)) else { break };
        let text = std::str::from_utf8(&commit).unwrap();
        assert!(text.ends_with('}') || text.ends_with("}\n"), "commit {name} is cut off");
        for action in text.lines() {
            let action: Value = serde_json::from_str(action).unwrap();
            let path = |kind: &str| action.get(kind).map(|action| action["path"].as_str().unwrap().to_owned());
            if let Some(path) = path("remove") {
                let at = paths.iter().position(|known| *known == path);
                paths.remove(at.unwrap_or_else(|| panic!("{name} removes {path}, which is not there")));
            }
            if let Some(path) = path("add") {
                assert!(!paths.contains(&path), "{name} adds {path} again");
                paths.push(path);
            }
        }
        version += 1;
    }
    assert!(version > 0, "the log of {} does not begin with its first commit", folder.display());
    let last = format!("{version:020}");
    let names = fs.list_dir(&log).unwrap();
    assert!(names.iter().all(|entry| entry.name < last), "the log of {} has a gap", folder.display());
    paths
}

/// Whether the log has all commits since the first; a checkpoint lets the old ones go.
pub(crate) fn is_whole(fs: &SimFs, table: Table) -> bool {
    fs.metadata(&Path::new("/data/lake").join(table.name()).join("_delta_log/00000000000000000000.json")).is_ok()
}

/// Data files in a table's folder, named or not.
pub(crate) fn on_disk(fs: &SimFs, table: Table) -> usize {
    let folder = Path::new("/data/lake").join(table.name());
    let dates = fs.list_dir(&folder).unwrap().into_iter().filter(|entry| entry.name.starts_with("date="));
    dates.map(|date| fs.list_dir(&folder.join(date.name)).unwrap().len()).sum()
}

/// Data files that a table has.
pub(crate) fn named(fs: &SimFs, table: Table) -> Vec<String> {
    paths(fs, &Path::new("/data/lake").join(table.name()))
}

pub(crate) fn rows(fs: &SimFs, table: Table) -> Vec<RecordBatch> {
    let folder = Path::new("/data/lake").join(table.name());
    let mut batches = Vec::new();
    for path in paths(fs, &folder) {
        let date = path.strip_prefix("date=").and_then(|path| path.split('/').next()).unwrap();
        let bytes = fs.read(&folder.join(&path)).unwrap();
        for batch in ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap() {
            batches.push(with_date(&batch.unwrap(), date));
        }
    }
    batches
}

fn with_date(batch: &RecordBatch, date: &str) -> RecordBatch {
    let dates: ArrayRef = Arc::new(StringArray::from(vec![date; batch.num_rows()]));
    let mut fields: Vec<Arc<Field>> = vec![Arc::new(Field::new("date", DataType::Date32, false))];
    fields.extend(batch.schema().fields().iter().cloned());
    let mut columns = vec![cast(&dates, &DataType::Date32).unwrap()];
    columns.extend(batch.columns().iter().cloned());
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}
