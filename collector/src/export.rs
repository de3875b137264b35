//! What the doors hand to the log: one export, and what may become of it.

use std::future::Future;

use bytes::Bytes;

/// Which OTLP signal an export carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum ExportSignal {
    /// An `ExportTraceServiceRequest`.
    Traces = 1,
    /// An `ExportLogsServiceRequest`.
    Logs = 2,
}

/// How the body is written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum ExportEncoding {
    /// Protobuf, not compressed.
    Protobuf = 1,
}

/// One export as it was received: decompressed, checked to be well-formed, never re-encoded.
#[derive(Clone, Debug)]
pub struct Export {
    /// Whose it is.
    pub tenant: std::sync::Arc<str>,
    /// What it carries.
    pub signal: ExportSignal,
    /// How it is written.
    pub encoding: ExportEncoding,
    /// The request message.
    pub body: Bytes,
}

/// Why an export was not taken. What the doors answer is decided by these kinds alone, in `receiver::status`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not now: queues are full or the disk has no room. The client should send it again later.
    #[error("overloaded: {reason}")]
    Overloaded {
        /// What is full.
        reason: String,
    },
    /// The log is closed, for a shutdown or after a failed sync; another process may take it later.
    #[error("closed: {reason}")]
    Closed {
        /// Why.
        reason: String,
    },
}

/// Where exports become durable. Implemented by the log's handle; tests put their own behind the doors.
pub trait Sink: Send + Sync + 'static {
    /// Resolves when the export's bytes are synced (or those of an identical one that was sent before).
    fn append(&self, export: Export) -> impl Future<Output = Result<(), Refusal>> + Send;
}
