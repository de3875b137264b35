//! However exports are cut, merged, shuffled and sent again, every row says the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::Array as _;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;

use super::*;
use crate::export::ExportSignal;
use crate::live::{FrameBody, LiveFrame, LiveRows, LiveSettings};
use crate::receiver::json_to_protobuf;

/// After the last of the captures, in seconds since 1970.
pub(super) const RECEIVED_S: i64 = 1_800_000_000;
/// Most arrangements of a capture; large ones are arranged less often.
const ARRANGEMENTS: u64 = 40;
/// Spans and records that are arranged of a capture in all.
const ARRANGED: u64 = 1_600;

#[derive(Debug, Clone)]
pub(super) enum Export {
    Traces(ExportTraceServiceRequest),
    Logs(ExportLogsServiceRequest),
}

/// A small generator of numbers that look random (Marsaglia's xorshift64).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % n
    }

    pub(super) fn shuffle<T>(&mut self, list: &mut [T]) {
        for i in (1..list.len()).rev() {
            list.swap(i, self.below(i + 1));
        }
    }
}

pub(super) fn captures() -> Vec<PathBuf> {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpora");
    let folders = std::fs::read_dir(corpora).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<PathBuf> = folders.filter(|path| path.join("manifest.json").exists()).collect();
    folders.sort();
    assert!(folders.len() > 10);
    folders
}

pub(super) fn exports(folder: &Path) -> Vec<Export> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
        .iter()
        .filter_map(|file| {
            let name = file.file_name().unwrap().to_str().unwrap();
            let bytes = std::fs::read(file).unwrap();
            if name.ends_with("-traces.pb") {
                Some(Export::Traces(ExportTraceServiceRequest::decode(&*bytes).unwrap()))
            } else if name.ends_with("-logs.pb") {
                Some(Export::Logs(ExportLogsServiceRequest::decode(&*bytes).unwrap()))
            } else if name.ends_with("-traces.json") {
                let bytes = json_to_protobuf(&bytes, Some(ExportSignal::Traces)).unwrap();
                Some(Export::Traces(ExportTraceServiceRequest::decode(&*bytes).unwrap()))
            } else {
                assert_eq!(name, "manifest.json", "a capture in a form that is not read");
                None
            }
        })
        .collect()
}

/// One export for every span and every record.
pub(super) fn single(exports: &[Export]) -> Vec<Export> {
    let mut out = Vec::new();
    for export in exports {
        match export {
            Export::Traces(request) => {
                for resource in &request.resource_spans {
                    for scope in &resource.scope_spans {
                        for span in &scope.spans {
                            let mut resource = resource.clone();
                            let mut scope = scope.clone();
                            scope.spans = vec![span.clone()];
                            resource.scope_spans = vec![scope];
                            out.push(Export::Traces(ExportTraceServiceRequest { resource_spans: vec![resource] }));
                        }
                    }
                }
            }
            Export::Logs(request) => {
                for resource in &request.resource_logs {
                    for scope in &resource.scope_logs {
                        for record in &scope.log_records {
                            let mut resource = resource.clone();
                            let mut scope = scope.clone();
                            scope.log_records = vec![record.clone()];
                            resource.scope_logs = vec![scope];
                            out.push(Export::Logs(ExportLogsServiceRequest { resource_logs: vec![resource] }));
                        }
                    }
                }
            }
        }
    }
    out
}

/// Puts neighbours of one signal into one export, as it comes.
fn merge(exports: Vec<Export>, random: &mut Random) -> Vec<Export> {
    let mut out: Vec<Export> = Vec::new();
    for export in exports {
        match (out.last_mut(), export) {
            (Some(Export::Traces(last)), Export::Traces(next)) if random.below(3) > 0 => {
                last.resource_spans.extend(next.resource_spans);
            }
            (Some(Export::Logs(last)), Export::Logs(next)) if random.below(3) > 0 => {
                last.resource_logs.extend(next.resource_logs);
            }
            (_, export) => out.push(export),
        }
    }
    out
}

/// Every row with all that readers see of it, in an order of their own.
fn rows(exports: &[Export]) -> Vec<String> {
    let mut rows: Vec<String> = decided(exports)
        .into_iter()
        // Its place in the log and its name may change.
        .map(|row| row.into_iter().filter(|(column, _)| !matches!(&**column, "wal_position" | "row_id")))
        .map(|row| row.map(|(column, value)| format!("{column}={value}")).collect::<Vec<_>>().join(" "))
        .collect();
    rows.sort();
    rows
}

/// What is decided of every row once all exports have arrived, by column; what is null is left out.
pub(super) fn decided(exports: &[Export]) -> Vec<BTreeMap<String, String>> {
    let settings = RecogniseSettings { retention_us: i64::MAX / 1_000, ..RecogniseSettings::default() };
    let recogniser = Recogniser::new(Conventions::built_in().unwrap(), settings).unwrap();
    let mut live = LiveRows::new(LiveSettings::default(), Arc::new(recogniser));
    for (export, position) in exports.iter().zip(1..) {
        let info = FrameInfo {
            position: WalPosition(position),
            received: UnixMicros(RECEIVED_S * 1_000_000),
            tenant: "default",
        };
        let bytes = match export {
            Export::Traces(request) => request.encode_to_vec(),
            Export::Logs(request) => request.encode_to_vec(),
        };
        let body = match export {
            Export::Traces(_) => FrameBody::Traces(&bytes),
            Export::Logs(_) => FrameBody::Logs(&bytes),
        };
        live.apply(LiveFrame { info, body }).unwrap();
    }
    let options = FormatOptions::default();
    let mut rows = Vec::new();
    for batch in live.view().unwrap().calls.iter() {
        let columns: Vec<_> = batch
            .columns()
            .iter()
            .zip(batch.schema_ref().fields())
            .map(|(column, field)| (column, field.name(), ArrayFormatter::try_new(column, &options).unwrap()))
            .collect();
        for row in 0..batch.num_rows() {
            let said = columns.iter().filter(|(column, ..)| !column.to_data().is_null(row));
            // A key into words is there although its word is not.
            let said = said.map(|(_, name, values)| ((*name).clone(), values.value(row).to_string()));
            rows.push(said.filter(|(_, value)| !value.is_empty()).collect());
        }
    }
    rows
}

#[test]
fn no_arrangement_of_exports_changes_a_row() {
    for folder in captures() {
        let sent = exports(&folder);
        let expect = rows(&sent);
        let spans = single(&sent);
        assert_eq!(rows(&spans), expect, "span by span: {}", folder.display());
        for seed in 1..=ARRANGEMENTS.min(ARRANGED / spans.len() as u64 + 1) {
            let mut random = Random(seed);
            let mut arranged = spans.clone();
            if random.below(2) == 0 {
                arranged.extend(spans.iter().cloned());
            }
            if random.below(2) == 0 {
                arranged.extend(sent.iter().cloned());
            }
            random.shuffle(&mut arranged);
            let arranged = merge(arranged, &mut random);
            assert_eq!(rows(&arranged), expect, "seed {seed}: {}", folder.display());
        }
    }
}
