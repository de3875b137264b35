//! What can go wrong with a statement, by what the caller can do about it.

use std::time::Duration;

use datafusion::error::DataFusionError;

/// Why a statement has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It cannot be parsed or planned: the caller must change it.
    #[error("{0}")]
    Invalid(String),
    /// It would do more than read.
    #[error("only one reading statement is allowed (SELECT, WITH, VALUES, SHOW, DESCRIBE or EXPLAIN), got {0:?}")]
    NotReadOnly(String),
    /// It is longer or deeper than the engine takes.
    #[error("the statement has {found} {what}, at most {max} are allowed; shorten it or split it")]
    TooComplex {
        /// What was counted.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many are allowed.
        max: usize,
    },
    /// It was planned, but its values do not allow an answer, like a division by zero.
    #[error("{0}")]
    Failed(String),
    /// It ran longer than allowed and was stopped.
    #[error("the statement was stopped after {0:?}; narrow its time range or join fewer rows")]
    Timeout(Duration),
    /// It needed more memory or spill space than allowed and was stopped.
    #[error("the statement needs more memory than it may use; narrow its time range or group by less ({0})")]
    OutOfMemory(String),
    /// Too many statements ran for as long as this one could wait.
    #[error("too many statements are running, none ended within {0:?}; try again later")]
    Overloaded(Duration),
    /// A fault of the server or of its storage.
    #[error("the statement failed inside the server: {0}")]
    Internal(String),
}

impl Error {
    /// A short name for counters and problem documents.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::NotReadOnly(_) => "not_read_only",
            Self::TooComplex { .. } => "too_complex",
            Self::Failed(_) => "failed",
            Self::Timeout(_) => "timeout",
            Self::OutOfMemory(_) => "out_of_memory",
            Self::Overloaded(_) => "overloaded",
            Self::Internal(_) => "internal",
        }
    }

    /// Every [`Error::kind`].
    pub const KINDS: [&'static str; 8] =
        ["invalid", "not_read_only", "too_complex", "failed", "timeout", "out_of_memory", "overloaded", "internal"];
}

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Self {
        let text = error.strip_backtrace();
        match error.find_root() {
            DataFusionError::ResourcesExhausted(_) => Self::OutOfMemory(text),
            DataFusionError::SQL(..)
            | DataFusionError::Plan(_)
            | DataFusionError::SchemaError(..)
            | DataFusionError::NotImplemented(_)
            | DataFusionError::Configuration(_)
            | DataFusionError::Diagnostic(..)
            | DataFusionError::Collection(_) => Self::Invalid(text),
            DataFusionError::Execution(_) | DataFusionError::ArrowError(..) => Self::Failed(text),
            _ => Self::Internal(text),
        }
    }
}
