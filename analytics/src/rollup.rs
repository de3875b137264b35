//! `calls_1m`: the sums per minute that rows of `calls` fold into. (Being written; the signatures stand.)

use arrow::array::RecordBatch;
use arrow::error::ArrowError;

/// The columns of `calls` that a rollup reads; a batch may have more, in any order.
pub const COLUMNS: &[&str] = &[
    "end_time",
    "duration_ns",
    "kind",
    "tenant",
    "service_name",
    "environment",
    "tool_name",
    "tool_server",
    "agent_name",
    "model",
    "counted",
    "outcome",
    "error_class",
    "attempt",
    "final",
    "input_tokens",
    "output_tokens",
    "input_bytes",
    "output_bytes",
    "cost_usd",
    "weight",
];

/// Rows of `calls`, summed by minute and key. Additive: rollups of parts, merged, are the rollup of the whole.
#[derive(Debug, Clone, Default)]
pub struct CallsRollup {}

impl CallsRollup {
    /// Adds rows of `calls`: words as text or as dictionaries of text.
    ///
    /// # Errors
    /// If a column is missing or of another type; then nothing is added.
    pub fn add(&mut self, _rows: &RecordBatch) -> Result<(), ArrowError> {
        Ok(())
    }

    /// Adds another one's sums.
    pub fn merge(&mut self, _other: &Self) {}

    /// How many keys it has: about the rows that it gives.
    #[must_use]
    pub fn len(&self) -> usize {
        0
    }

    /// Whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        true
    }

    /// What it holds in memory.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        0
    }

    /// The rows of `calls_1m`, in its live schema, ordered by minute and key; none if nothing was added.
    ///
    /// # Errors
    /// If Arrow refuses them.
    pub fn batches(&self) -> Result<Vec<RecordBatch>, ArrowError> {
        Ok(Vec::new())
    }
}
