//! How readers learn what became of the records of a trace: from the log, which has them all for a while.

use std::fmt::Debug;

use crate::api::why::WhyRecord;
use crate::id::TraceId;
use crate::time::UnixMicros;

/// What the log says of a trace.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Explained {
    /// Its records, in the order of the log.
    pub records: Vec<WhyRecord>,
    /// Receive time of the oldest export that was looked at, if the log holds any.
    pub log_from: Option<UnixMicros>,
    /// Whether records were left out.
    pub truncated: bool,
}

/// Whoever has the log and knows the conventions.
pub trait Explain: Send + Sync + Debug {
    /// What becomes of the records of a trace, with the rules that did not recognise them: all, or the one that came nearest.
    /// Blocks, for as long as it takes to read the log; the caller must not be one of the async runtime's threads.
    ///
    /// # Errors
    /// If the log cannot be read, with the reason.
    fn explain(&self, trace_id: TraceId, missed: Missed) -> Result<Explained, String>;
}

/// Which rules that did not recognise a record are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed {
    /// The one that came nearest.
    Nearest,
    /// All.
    All,
}
