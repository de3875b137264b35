//! The write-ahead log: its bytes, crashes, damage, full disks, re-sends, retention, and its thread.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use toolgauge_collector::export::{Export, ExportEncoding, ExportSignal};
use toolgauge_collector::fs::sim::SimFs;
use toolgauge_collector::wal::{Frame, FrameContent, Recovery, Wal, WalError, WalSettings};
use toolgauge_proto::id::WalPosition;

mod actor;
mod crash;
mod damage;
mod format;
mod log;

const DIR: &str = "/data/wal";

fn dir() -> &'static Path {
    Path::new(DIR)
}

fn export(body: impl Into<Bytes>) -> Export {
    Export {
        tenant: Arc::from("default"),
        signal: ExportSignal::Traces,
        encoding: ExportEncoding::Protobuf,
        body: body.into(),
    }
}

fn open(fs: &Arc<SimFs>, settings: &WalSettings) -> Result<(Wal, Recovery), WalError> {
    Wal::open(Arc::<SimFs>::clone(fs), dir(), settings.clone())
}

/// Position and body of every frame; ticks have none.
fn contents(wal: &Wal) -> Vec<(u64, Option<Bytes>)> {
    wal.replay(WalPosition(0)).map(|frame| content(frame.unwrap())).collect()
}

fn content(frame: Frame) -> (u64, Option<Bytes>) {
    let body = match frame.content {
        FrameContent::Export(export) => Some(export.body),
        FrameContent::Tick => None,
    };
    (frame.position.0, body)
}
