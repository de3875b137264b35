//! Why the records of a trace became what they are: the log is looked through for them, by the conventions in force.
//!
//! # Limits
//! One trace at a time is looked for, in at most [`LOG_BYTES_MAX`] of the newest exports, and at most [`RECORDS_MAX`] of its records are
//! given. Log records that say no trace are not found.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use regex::bytes::Regex;
use toolgauge_proto::explain::{Explain, Explained, Missed};
use toolgauge_proto::id::{TraceId, WalPosition};
use toolgauge_proto::time::UnixMicros;

use crate::fs::Fs;
use crate::pipeline::chain;
use crate::recognise::Recogniser;
use crate::wal::{FrameContent, scan_back};

/// How much of the log is read for one answer: what it keeps by default, read in seconds.
const LOG_BYTES_MAX: u64 = 2 << 30;
/// Most records of an answer.
const RECORDS_MAX: usize = 10_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct Explainer {
    fs: Arc<dyn Fs>,
    log: PathBuf,
    recogniser: Recogniser,
    one_at_a_time: Mutex<()>,
}

impl Explainer {
    /// Explains what the log in this folder has, by these rules.
    pub(crate) fn new(fs: Arc<dyn Fs>, log: PathBuf, recogniser: Recogniser) -> Self {
        Self { fs, log, recogniser, one_at_a_time: Mutex::new(()) }
    }
}

impl Explain for Explainer {
    fn explain(&self, trace_id: TraceId, missed: Missed) -> Result<Explained, String> {
        let _one = self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        let mut explained = Explained::default();
        // An export without these bytes is not of the trace; most are not.
        let pattern: String = trace_id.as_bytes().iter().map(|byte| format!("\\x{byte:02x}")).collect();
        let mentions = Regex::new(&format!("(?-u){pattern}")).map_err(|error| error.to_string())?;
        let mut found: Vec<(WalPosition, WalPosition, Vec<_>)> = Vec::new();
        let mut records = 0;
        let mut oldest: Option<UnixMicros> = None;
        let left_out = scan_back(&*self.fs, &self.log, LOG_BYTES_MAX, |segment, frame| {
            let FrameContent::Export(export) = frame.content else { return };
            oldest = Some(oldest.map_or(frame.receive_time, |oldest| oldest.min(frame.receive_time)));
            if records >= RECORDS_MAX || !mentions.is_match(&export.body) {
                explained.truncated |= records >= RECORDS_MAX;
                return;
            }
            let said = self.recogniser.explain_trace(export.signal, &export.body, trace_id);
            records += said.len();
            found.push((segment, frame.position, said));
        });
        explained.truncated |= left_out.map_err(|error| chain(&error))?;
        explained.log_from = oldest;
        found.sort_unstable_by_key(|(segment, position, _)| (*segment, *position));
        for explanation in found.into_iter().flat_map(|(.., said)| said).take(RECORDS_MAX) {
            let record = explanation.into_record(missed);
            // What was sent again says the same again.
            if !explained.records.contains(&record) {
                explained.records.push(record);
            }
        }
        Ok(explained)
    }
}
