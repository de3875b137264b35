use std::path::Path as FsPath;

use arrow::array::{Int64Array, StringArray, TimestampMicrosecondArray, new_null_array};
use arrow::datatypes::Schema;
use datafusion::prelude::SessionConfig;

use super::*;
use crate::fs::Fs;
use crate::fs::sim::SimFs;

fn session() -> Arc<SessionState> {
    let mut config = SessionConfig::new();
    config.options_mut().execution.parquet.schema_force_view_types = false;
    Arc::new(SessionContext::new_with_config(config).state())
}

/// A table as a version wrote it that did not know the last `fewer` columns, with one row.
fn create_earlier(table: Table, fewer: usize, store: &FsStore, runtime: &Handle) {
    let known = table.columns().len() - fewer;
    let url = Url::parse(&format!("memory:///{}/", table.name())).unwrap();
    let root: Arc<dyn ObjectStore> = Arc::new(store.clone());
    let log_store = logstore_with(root, &url, StorageConfig::default()).unwrap();
    let fields: Vec<StructField> = delta_fields(table).unwrap().into_iter().take(known).collect();
    let created = CreateBuilder::new().with_log_store(log_store).with_columns(fields).with_partition_columns(["date"]);
    runtime.block_on(created.into_future()).unwrap();

    let schema = Schema::new(table.schema().fields().iter().take(known).cloned().collect::<Vec<_>>());
    let columns = schema.fields().iter().map(|field| -> Arc<dyn Array> {
        match field.data_type() {
            arrow::datatypes::DataType::Date32 => Arc::new(Date32Array::from(vec![20_000])),
            arrow::datatypes::DataType::Timestamp(..) => {
                Arc::new(TimestampMicrosecondArray::from(vec![20_000 * 86_400_000_000_i64]).with_timezone("UTC"))
            }
            arrow::datatypes::DataType::Int64 => Arc::new(Int64Array::from(vec![7])),
            arrow::datatypes::DataType::Utf8 => Arc::new(StringArray::from(vec!["x"])),
            other => {
                let values = new_null_array(other, 1);
                if field.is_nullable() { values } else { compute::cast(&Int64Array::from(vec![1]), other).unwrap() }
            }
        }
    });
    let row = RecordBatch::try_new(Arc::new(schema.clone()), columns.collect()).unwrap();
    let stripped = row.project(&(1..known).collect::<Vec<_>>()).unwrap();
    let bytes = parquet::encode(&stripped.schema(), std::slice::from_ref(&stripped), &[]).unwrap();
    let path = format!("date={}/{}-{:020}-{:020}.parquet", date_text(20_000), "ab".repeat(16), 1, 7);
    let size = bytes.len() as i64;
    let full = Path::from(format!("{}/{path}", table.name()));
    store.put_durably(&full, &[Bytes::from(bytes)], false).unwrap();
    let file = DataFile { path, date: date_text(20_000), size, statistics: Statistics::of(table, &[row]) };
    let mut opened = DeltaWriter::open_as_it_is(table, store.clone(), runtime.clone(), session()).unwrap();
    let app_id = "ab".repeat(16);
    let transaction = Transaction { app_id: &app_id, first: 1, version: 7, time_ms: 0 };
    opened.snapshot = opened.commit(&[file], transaction).unwrap().unwrap();
}

fn world() -> (tokio::runtime::Runtime, FsStore) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let fs: Arc<dyn Fs> = SimFs::new(1);
    crate::fs::create_dir_all_synced(&*fs, FsPath::new("/lake")).unwrap();
    (runtime, FsStore::new(fs, "/lake".into()))
}

fn rows(table: &DeltaWriter, runtime: &Handle) -> Vec<RecordBatch> {
    let provider = table.provider().unwrap();
    let read = async { SessionContext::new().read_table(provider).unwrap().collect().await.unwrap() };
    runtime.block_on(read)
}

/// Scenario: tables of a version that had fewer columns are opened, twice, and written to.
/// Guarantees: they have all columns, in order; old rows have null there, new rows their values, and all are there once.
#[test]
fn tables_of_an_earlier_version_get_the_columns_that_they_lack() {
    for (table, fewer) in [(Table::Arrivals, 1), (Table::Calls1m, 5)] {
        let (runtime, store) = world();
        if table == Table::Arrivals {
            // Its last column is not nullable, and so no later version's.
            create_earlier(table, fewer, &store, runtime.handle());
            let opened = DeltaWriter::open(table, store, runtime.handle().clone(), session());
            let error = opened.unwrap_err().to_string();
            assert!(error.contains("\"arrivals\" has other columns than this version writes: date, minute"), "{error}");
            continue;
        }
        create_earlier(table, fewer, &store, runtime.handle());
        for again in [false, true] {
            let mut opened = DeltaWriter::open(table, store.clone(), runtime.handle().clone(), session()).unwrap();
            assert_eq!(opened.version(), 2 + u64::from(again));
            let found = rows(&opened, runtime.handle());
            let names: Vec<_> = found[0].schema().fields().iter().map(|field| field.name().clone()).collect();
            assert_eq!(names, table.columns().iter().map(|column| column.name).collect::<Vec<_>>());
            assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), 1 + usize::from(again));
            let sum = |name: &str| {
                found.iter().filter_map(|b| compute::sum(b[name].as_primitive::<Int64Type>())).sum::<i64>()
            };
            assert_eq!((sum("calls"), sum("further_attempts")), (7 + i64::from(again), 3 * i64::from(again)));
            if again {
                break;
            }
            let row = arrow::compute::concat_batches(&table.schema(), &found).unwrap();
            let mut columns = row.columns().to_vec();
            columns[table.index_of("calls")] = Arc::new(Int64Array::from(vec![1]));
            columns[table.index_of("further_attempts")] = Arc::new(Int64Array::from(vec![3]));
            let row = RecordBatch::try_new(table.schema(), columns).unwrap();
            let app_id = "ab".repeat(16);
            assert!(opened.append(&[row], Transaction { app_id: &app_id, first: 8, version: 9, time_ms: 0 }).unwrap());
        }
    }
}
