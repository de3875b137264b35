//! Sessions.

use serde::{Deserialize, Serialize};

use super::Scope;

/// `GET /api/v1/sessions`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionsReport {
    /// What the answer covers.
    #[serde(flatten)]
    pub scope: Scope,
    /// Sessions of which the last call so far ended in the range, the latest first.
    pub sessions: Vec<SessionReport>,
    /// True if the limit cut the list.
    pub truncated: bool,
}

/// A session: the counted calls of one id, until nothing of it happens for a while.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionReport {
    /// Tenant.
    pub tenant: String,
    /// Its id, as reported.
    pub session_id: String,
    /// Start of its first call.
    pub start_time: String,
    /// End of its last call so far.
    pub end_time: String,
    /// From start to end, milliseconds.
    pub duration_ms: f64,
    /// Whether it has been idle for so long, at the watermark, that it is over.
    pub closed: bool,
    /// `ok` or `error`: how its last run of an agent ended, or its last call if it has none.
    pub outcome: String,
    /// Whether that is `ok`.
    pub completed: bool,
    /// Calls of models.
    pub iterations: u64,
    /// Attempts of tool calls.
    pub tool_calls: u64,
    /// Logical tool calls.
    pub logical_tool_calls: u64,
    /// Failed attempts.
    pub tool_errors: u64,
    /// Failed logical tool calls.
    pub logical_tool_errors: u64,
    /// Runs of agents.
    pub agent_runs: u64,
    /// Tokens that models and tools read; null if none tells.
    pub input_tokens: Option<u64>,
    /// Tokens that they wrote; null if none tells.
    pub output_tokens: Option<u64>,
    /// Known cost of tools and models, USD; null if none is known.
    pub cost_usd: Option<String>,
}
