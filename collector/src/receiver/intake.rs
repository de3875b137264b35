//! The way of an export that is the same for all doors: from the message as it came to the sink.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsPartialSuccess, ExportMetricsServiceResponse};

use super::admission::Grant;
use super::inflate::{Compression, inflate};
use super::status::Fault;
use super::{Door, json, off_runtime};
use crate::export::{Export, ExportEncoding, ExportSignal, Sink};

/// What a client is told about its metrics.
pub(super) const METRICS_REFUSED: &str = "Toolgauge takes traces and logs; metric points are refused";
/// What is held for a JSON message: itself, what it becomes, and a copy of that while it is put in order.
const JSON_COPIES: usize = 3;

/// How a message is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Protobuf,
    Json,
}

/// A message as it came.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) tenant: Arc<str>,
    /// `None`: metrics, which are counted and refused.
    pub(super) signal: Option<ExportSignal>,
    pub(super) format: Format,
    pub(super) compression: Option<Compression>,
    pub(super) body: Bytes,
}

/// An export that is answered with success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// All of it is in the sink, or there was nothing in it.
    Whole,
    /// Metrics, with so many points.
    Refused { points: u64 },
}

impl Taken {
    /// What must be told of metrics.
    pub(super) fn partial_success(self) -> Option<ExportMetricsServiceResponse> {
        let Self::Refused { points } = self else { return None };
        Some(ExportMetricsServiceResponse {
            partial_success: Some(ExportMetricsPartialSuccess {
                rejected_data_points: i64::try_from(points).unwrap_or(i64::MAX),
                error_message: METRICS_REFUSED.to_owned(),
            }),
        })
    }
}

/// An export that was not taken.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) fault: Fault,
    /// When the client may come again, if it is asked to.
    pub(super) retry_after: Option<Duration>,
}

impl<S: Sink> Door<S> {
    /// Counts what becomes of an export, and tells the log of what is refused.
    pub(super) async fn counted(&self, export: impl Future<Output = Result<Taken, Fault>>) -> Result<Taken, Refused> {
        self.counters.requests.fetch_add(1, Relaxed);
        // A client that gives up drops this future wherever it stands.
        let cancelled = CountIfDropped(self);
        let result = export.await;
        std::mem::forget(cancelled);
        match result {
            Ok(taken) => {
                self.counters.accepted.fetch_add(1, Relaxed);
                Ok(taken)
            }
            Err(fault) => {
                let nth = self.counters.refuse(fault.kind());
                self.log.note(&fault, self.clock.now());
                let retry_after = fault.retry_after(self.settings.retry_delay, nth);
                Err(Refused { fault, retry_after })
            }
        }
    }

    /// Whose export it is.
    pub(super) fn tenant_of(&self, headers: &HeaderMap) -> Result<Arc<str>, Fault> {
        (self.tenant)(headers).map_err(|error| Fault::Unauthenticated { detail: error.detail })
    }

    /// Takes so many bytes, as sent, from the tenant's rate.
    pub(super) fn charge(&self, tenant: &Arc<str>, bytes: usize) -> Result<(), Fault> {
        self.rate.as_ref().map_or(Ok(()), |rate| rate.take(tenant, bytes, self.clock.now()))
    }

    /// Decompresses, checks and hands on a message; `grant` covers its body.
    pub(super) async fn take(&self, message: Incoming, mut grant: Grant) -> Result<Taken, Fault> {
        let Incoming { tenant, signal, format, compression, mut body } = message;
        self.counters.bytes_received.fetch_add(body.len() as u64, Relaxed);
        if let Some(compression) = compression
            && !body.is_empty()
        {
            (body, grant) = inflate(compression, body, self.settings.request_bytes_max, grant).await?;
        }
        let malformed = |detail| Fault::Malformed { detail };
        if format == Format::Json {
            grant.hold(JSON_COPIES * body.len()).await?;
            // The grant goes along, as in `inflate`.
            let written;
            (written, grant) = off_runtime(body.len(), move || (json::to_protobuf(&body, signal), grant)).await?;
            let written = written.map_err(malformed)?;
            grant.keep(written.capacity());
            body = Bytes::from(written);
        }
        if body.is_empty() {
            self.counters.empty.fetch_add(1, Relaxed);
            return Ok(Taken::Whole);
        }

        let (bytes, checked, check) = (body.len(), body.clone(), self.checks);
        let Some(signal) = signal else {
            let (points, _grant) = off_runtime(bytes, move || ((check.metrics)(&checked), grant)).await?;
            let points = points.map_err(malformed)?;
            self.counters.metric_points_refused.fetch_add(points, Relaxed);
            return Ok(if points == 0 { Taken::Whole } else { Taken::Refused { points } });
        };
        let (check, _grant) = off_runtime(bytes, move || {
            let check = match signal {
                ExportSignal::Traces => check.traces,
                ExportSignal::Logs => check.logs,
            };
            (check(&checked), grant)
        })
        .await?;
        check.map_err(malformed)?;
        self.sink.append(Export { tenant, signal, encoding: ExportEncoding::Protobuf, body }).await?;
        self.counters.bytes_accepted.fetch_add(bytes as u64, Relaxed);
        Ok(Taken::Whole)
    }
}

struct CountIfDropped<'a, S>(&'a Door<S>);

impl<S> Drop for CountIfDropped<'_, S> {
    fn drop(&mut self) {
        self.0.counters.cancelled.fetch_add(1, Relaxed);
    }
}
