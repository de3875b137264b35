use std::path::Path as FsPath;

use arrow::array::{BinaryArray, BooleanArray, Int64Array, StringArray, TimestampMicrosecondArray, new_null_array};
use arrow::datatypes::Schema;
use datafusion::datasource::MemTable;

use super::*;
use crate::fs::Fs;
use crate::fs::sim::{SimFs, SimRng};

fn session() -> Arc<SessionState> {
    Arc::new(SessionContext::new().state())
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
    let bytes = parquet::encode(&stripped.schema(), std::slice::from_ref(&stripped), table).unwrap();
    let path = names::dated(20_000, &format!("{}-{:020}-{:020}.parquet", "ab".repeat(16), 1, 7));
    let size = bytes.len() as i64;
    let full = in_table(table, &path);
    store.put_durably(&full, &[Bytes::from(bytes)], false).unwrap();
    let file = DataFile::new(path, 20_000, size, Statistics::of(table, &[row]));
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
    let provider = table.provider();
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

/// Rows of any content, some of their values null, on two dates.
fn any_rows(table: Table, rows: usize, random: &mut SimRng) -> RecordBatch {
    let columns = table.columns().iter().map(|column| -> Arc<dyn Array> {
        let numbers: Vec<Option<i64>> =
            (0..rows).map(|_| (!column.nullable || random.below(10) < 7).then(|| random.below(1_000) as i64)).collect();
        match column.column_type {
            ColumnType::Date => {
                Arc::new(numbers.iter().map(|n| n.map(|n| 20_000 + (n % 2) as i32)).collect::<Date32Array>())
            }
            ColumnType::Timestamp => {
                let micros = numbers.iter().map(|n| n.map(|n| 20_000 * 86_400_000_000_i64 + n * 7_001));
                Arc::new(micros.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
            }
            ColumnType::Word | ColumnType::Text => {
                // Some are too long for the statistics.
                let texts = numbers.iter().map(|n| n.map(|n| format!("{}{}", n % 20, "x".repeat(n as usize % 97))));
                Arc::new(texts.collect::<StringArray>())
            }
            ColumnType::Binary => Arc::new(numbers.iter().map(|n| n.map(i64::to_be_bytes)).collect::<BinaryArray>()),
            ColumnType::Bool => Arc::new(numbers.iter().map(|n| n.map(|n| n % 2 == 0)).collect::<BooleanArray>()),
            ColumnType::Int64 => Arc::new(numbers.into_iter().collect::<Int64Array>()),
            ColumnType::Int32 | ColumnType::Decimal(_) => {
                let field = table.schema().field(table.index_of(column.name)).data_type().clone();
                compute::cast(&numbers.into_iter().collect::<Int64Array>(), &field).unwrap()
            }
        }
    });
    RecordBatch::try_new(table.schema(), columns.collect()).unwrap()
}

fn append(table: &mut DeltaWriter, rows: &RecordBatch, version: i64) {
    let app_id = "ab".repeat(16);
    let transaction = Transaction { app_id: &app_id, first: version, version, time_ms: version };
    assert!(table.append(std::slice::from_ref(rows), transaction).unwrap());
}

fn exchange(table: &mut DeltaWriter, removed: &[String], added: Option<&DataFile>, version: i64) -> bool {
    let app_id = format!("{}/compact", "ab".repeat(16));
    let transaction = Transaction { app_id: &app_id, first: version, version, time_ms: version };
    table.exchange(removed, added, false, transaction).unwrap()
}

/// Scenario: commits that add files, replace and remove them, over checkpoints; and some of somebody else in between.
/// Guarantees: after each, the list of files is the one that the log gives who reads it from its beginning.
#[test]
fn files_that_follow_commits_are_those_of_the_log() {
    let (runtime, store) = world();
    let mut random = SimRng::new(1);
    for table in Table::ALL {
        let open = || DeltaWriter::open(table, store.clone(), runtime.handle().clone(), session()).unwrap();
        let mut ours = open();
        let mut version = 0;
        for round in 0..30 {
            for _ in 0..1 + random.below(3) {
                version += 1;
                let rows = random.below(20);
                append(&mut ours, &any_rows(table, rows, &mut random), version);
            }
            let removed: Vec<String> = ours.files().iter().take(2).map(|file| file.path.clone()).collect();
            match round % 4 {
                0 if !removed.is_empty() => {
                    let rows = any_rows(table, 5, &mut random);
                    let app_id = "ab".repeat(16);
                    let merged = Transaction { app_id: &app_id, first: 1, version: 1_000 + round, time_ms: 0 };
                    let added = ours.write_file(20_000, &[rows], merged).unwrap();
                    assert!(exchange(&mut ours, &removed, Some(&added), round));
                    assert!(!exchange(&mut ours, &removed, Some(&added), round + 1), "they are gone");
                }
                1 if !removed.is_empty() => assert!(exchange(&mut ours, &removed, None, round)),
                2 if !removed.is_empty() => {
                    let rows = any_rows(table, 5, &mut random);
                    let app_id = "ab".repeat(16);
                    let merged = Transaction { app_id: &app_id, first: 1, version: 2_000 + round, time_ms: 0 };
                    let added = ours.write_file(20_000, &[rows], merged).unwrap();
                    assert!(exchange(&mut open(), &removed, None, round));
                    assert!(!exchange(&mut ours, &removed, Some(&added), round), "somebody else was before us");
                }
                _ => {
                    version += 1;
                    append(&mut open(), &any_rows(table, 5, &mut random), version);
                }
            }
            assert_eq!(ours.files().version(), ours.snapshot.version());
            let read = Files::of(table, &ours.snapshot, ours.engine.as_ref()).unwrap();
            assert_eq!(*ours.files(), read, "{} in round {round}", table.name());
        }
        assert!(ours.version() > CHECKPOINT_COMMITS && ours.files().len() > 3);
    }
}

/// Scenario: conditions of every kind on columns of every type.
/// Guarantees: what is found is what a table in memory gives; and files that cannot have it are not looked into.
#[test]
fn files_are_left_out_only_if_they_have_nothing_that_is_sought() {
    let (runtime, store) = world();
    let mut random = SimRng::new(2);
    for table in Table::ALL {
        let mut ours = DeltaWriter::open(table, store.clone(), runtime.handle().clone(), session()).unwrap();
        let parts: Vec<RecordBatch> = (0..12).map(|_| any_rows(table, 1 + random.below(3), &mut random)).collect();
        for (part, version) in parts.iter().zip(1..) {
            append(&mut ours, part, version);
        }
        let memory = MemTable::try_new(table.schema(), vec![parts.clone()]).unwrap();
        let session = SessionContext::new_with_state(session().as_ref().clone());
        session.register_table("ours", ours.provider()).unwrap();
        session.register_table("memory", Arc::new(memory)).unwrap();
        let literal = |column: &str, random: &mut SimRng| {
            let part = &parts[random.below(parts.len())];
            let value = ScalarValue::try_from_array(&part[column], random.below(part.num_rows())).unwrap();
            lit(value)
        };
        let (mut left_out, mut answers) = (0, 0);
        for _ in 0..150 {
            let one = |random: &mut SimRng| {
                let columns = table.columns();
                let name = match random.below(3) {
                    0 => columns[random.below(columns.len())].name,
                    1 => "date",
                    _ => statistics_columns(table)[random.below(statistics_columns(table).len())],
                };
                let (column, value) = (col(name), literal(name, random));
                match random.below(8) {
                    0 => column.eq(value),
                    1 => column.not_eq(value),
                    2 => column.lt(value),
                    3 => column.gt_eq(value),
                    4 => column.is_null(),
                    5 => column.is_not_null(),
                    6 => column.in_list(vec![value, literal(name, random)], random.below(3) == 0),
                    _ => column.clone().gt(value).and(column.lt_eq(literal(name, random))),
                }
            };
            let condition = match random.below(3) {
                0 => one(&mut random),
                1 => one(&mut random).and(one(&mut random)),
                _ => one(&mut random).or(one(&mut random)),
            };
            let columns: Vec<&str> = table.columns().iter().map(|column| column.name).collect();
            let found = ["ours", "memory"].map(|name| {
                let rows = async {
                    let rows = session.table(name).await.unwrap().filter(condition.clone()).unwrap();
                    let rows = rows.sort_by(columns.iter().map(|name| col(*name)).collect()).unwrap();
                    rows.collect().await.unwrap()
                };
                let rows = compute::concat_batches(&table.schema(), &runtime.block_on(rows)).unwrap();
                (rows.num_rows(), arrow::util::pretty::pretty_format_batches(&[rows]).unwrap().to_string())
            });
            assert_eq!(found[0], found[1], "{condition}");
            answers += found[0].0;
            let plan = runtime.block_on(async {
                session.table("ours").await.unwrap().filter(condition).unwrap().create_physical_plan().await.unwrap()
            });
            let plan = datafusion::physical_plan::displayable(plan.as_ref()).indent(true).to_string();
            left_out += usize::from(plan.matches(".parquet").count() < ours.files().len() && !plan.contains("..."));
        }
        assert!(left_out > 10 && answers > 100, "{}: {left_out} {answers}", table.name());
    }
}

/// Scenario: a program that marks rows as deleted instead of writing files anew has done so.
/// Guarantees: the table is refused by the name of the file, and its deleted rows are not counted.
#[test]
fn a_table_with_deletion_vectors_is_refused() {
    let (runtime, store) = world();
    let table = Table::Quarantine;
    let open = || DeltaWriter::open(table, store.clone(), runtime.handle().clone(), session());
    let mut ours = open().unwrap();
    append(&mut ours, &any_rows(table, 1, &mut SimRng::new(3)), 1);
    let log = |version| Path::from(format!("{}/_delta_log/{version:020}.json", table.name()));
    let commit = String::from_utf8(store.read(&log(1)).unwrap().to_vec()).unwrap();
    let add = commit.lines().find(|line| line.starts_with("{\"add\"")).unwrap();
    let protocol = r#"{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["deletionVectors"],"writerFeatures":["deletionVectors"]}}"#;
    let vector = r#""deletionVector":{"storageType":"i","pathOrInlineDv":"wi5b=000010000siXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L","sizeInBytes":40,"cardinality":1}"#;
    let marked = add.replacen("{\"add\":{", &format!("{{\"add\":{{{vector},"), 1);
    let text = Bytes::from(format!("{protocol}\n{marked}\n"));
    store.put_durably(&log(2), &[text], true).unwrap();
    let error = open().unwrap_err().to_string();
    assert!(error.contains(".parquet\" of table \"quarantine\" has a deletion vector"), "{error}");
}
