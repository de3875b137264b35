//! What became of the records of a trace, and why.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `GET /api/v1/why/{trace_id}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WhyReport {
    /// The trace, in hex.
    pub trace_id: String,
    /// Its spans and log records that the log still has, in the order of the log.
    pub records: Vec<WhyRecord>,
    /// Receive time of the oldest export that was looked at: what came before it is known from `calls` alone. Null if the log
    /// holds no export.
    pub log_from: Option<String>,
    /// True if records are left out, because they are too many or the log is too long to be looked through.
    pub truncated: bool,
    /// Its rows in `calls`, whether the log has their records or not.
    pub calls: Vec<WhyCall>,
}

/// A span, an event of one, or a log record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WhyRecord {
    /// `span`, `span_event` or `log`.
    pub what: String,
    /// Name of the span, or of the event.
    pub name: String,
    /// Its span, in hex; empty if it has none.
    pub span_id: String,
    /// What became of it.
    pub verdict: WhyVerdict,
}

/// What became of a record.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WhyVerdict {
    /// Whether it is a call.
    pub recognised: bool,
    /// Of which kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The convention that recognised it, or that says that it is no call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub convention: Option<String>,
    /// The rule in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// What was read of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<WhyField>,
    /// If it failed: how that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<WhyFailure>,
    /// If no rule says anything of it: rules that came near, nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missed: Vec<WhyMissed>,
}

/// A field that was read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WhyField {
    /// Its name in conventions.
    pub name: String,
    /// What was found, short and masked; of arguments and results their size.
    pub value: String,
}

/// How a failure is known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WhyFailure {
    /// The condition that held.
    pub because: String,
    /// Its class.
    pub error_class: String,
    /// What gave that class.
    pub class_because: String,
}

/// A rule that did not recognise a record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WhyMissed {
    /// Its convention.
    pub convention: String,
    /// Its name.
    pub rule: String,
    /// The first condition that did not hold.
    pub condition: String,
}

/// A row of `calls`: what counted of the trace in the end. Null as there.
pub type WhyCall = BTreeMap<String, serde_json::Value>;
