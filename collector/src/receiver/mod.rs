//! The doors through which exports come in.
//!
//! OTLP over gRPC and over HTTP, for traces and logs, in front of a [`Sink`]. Metrics are counted and refused.
//!
//! # Limits and guarantees
//!
//! * An export is answered with success only after the sink has taken it (that is, after its bytes were synced), or if it is empty.
//! * The sink gets the message as it was sent, decompressed and checked to be well-formed, otherwise untouched. A message that
//!   was not compressed and came in one HTTP/2 frame is never copied, one in several frames once. What came as JSON is turned into
//!   the protobuf that says the same (`docs/decisions/0004-otlp-json.md`).
//! * Memory is reserved before it is used, and by all doors from one budget ([`Settings::in_flight_bytes_max`]): what the
//!   message's prefix or length declares before its body is read, more before each step of decompression. It is given back when the
//!   request is answered or given up by its client. Outside of the budget are only what HTTP/2 lets clients send ahead
//!   ([`Settings::connection_window_bytes`] per connection) and 4 KiB to one frame (64 KiB in HTTP/1) per connection of read
//!   buffer.
//! * Whatever is refused gets the code that [`status`] has for it, is counted, and is logged at most once a minute per reason.
//! * No request, however hostile, holds up others: bodies that stall or trickle, connections that never speak, decompression
//!   bombs and too many streams or connections each run into a limit of [`Settings`].
//!
//! # How it works
//!
//! | module | does |
//! |---|---|
//! | `incoming` | accepts connections, counts and limits them; tonic and hyper speak HTTP on them |
//! | `grpc` | one tower service for each export method: from headers to message, and from fate to answer |
//! | `http_door` | the same for OTLP/HTTP |
//! | `message` | the request's one message, from its frames |
//! | `intake` | the way of a message to the sink, the same for all doors |
//! | `json` | protobuf from OTLP/JSON |
//! | `admission` | the byte budget; the rate limit of tenants |
//! | `inflate` | gzip and zstd, in steps that are paid for first |
//! | [`status`] | what is answered to which fault |
//! | `counters`, `settings` | numbers out, numbers in |
//!
//! # Failure and recovery
//!
//! Nothing is kept here. If the sink closes, every export is answered `UNAVAILABLE` with a delay, for the process that follows.
//! When the door closes it stops accepting, lets requests in flight finish for [`Settings::drain_timeout`], then cuts the
//! connections; what was not answered by then, clients send again.

mod admission;
mod counters;
mod grpc;
mod http_door;
mod incoming;
mod inflate;
mod intake;
mod json;
mod message;
mod settings;
pub mod status;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::HeaderMap;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use toolgauge_proto::time::Clock;

pub use counters::ReceiverCounters;
pub use json::to_protobuf as json_to_protobuf;
pub use settings::*;

use crate::export::Sink;
use admission::{Budget, RateLimit};
use counters::RefusalLog;
use grpc::{ExportService, Logs, Metrics, Traces};
use incoming::Gate;
use status::Fault;

/// CPU work on more bytes than this leaves the runtime's threads: at about 2 GB/s it takes half a millisecond.
const INLINE_BYTES_MAX: usize = 1 << 20;
/// The tenant of everyone, unless a hook says otherwise.
pub const DEFAULT_TENANT: &str = "default";

/// How messages are checked before the sink gets them. An error says what is wrong, and at which byte.
#[derive(Debug, Clone, Copy)]
pub struct Checks {
    /// Of an `ExportTraceServiceRequest`.
    pub traces: fn(&[u8]) -> Result<(), String>,
    /// Of an `ExportLogsServiceRequest`.
    pub logs: fn(&[u8]) -> Result<(), String>,
    /// Of an `ExportMetricsServiceRequest`: its number of data points.
    pub metrics: fn(&[u8]) -> Result<u64, String>,
}

/// A request that names no tenant we know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unauthenticated: {detail}")]
pub struct Unauthenticated {
    /// What is missing or wrong, for the client to read.
    pub detail: String,
}

/// Finds the tenant by a request's headers.
pub type TenantHook = Arc<dyn Fn(&HeaderMap) -> Result<Arc<str>, Unauthenticated> + Send + Sync>;

/// What `grpc.health.v1` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Exports are taken.
    Serving,
    /// Starting, or closing.
    NotServing,
}

/// The door for gRPC failed as a whole.
#[derive(Debug, thiserror::Error)]
#[error("serve OTLP/gRPC")]
pub struct ServeError(#[source] tonic::transport::Error);

/// What the services of all doors share.
struct Door<S> {
    settings: Settings,
    sink: Arc<S>,
    clock: Arc<dyn Clock>,
    checks: Checks,
    tenant: TenantHook,
    budget: Budget,
    rate: Option<RateLimit>,
    counters: Arc<ReceiverCounters>,
    log: RefusalLog,
}

/// The doors. All that are served share one budget, one set of counters and one health.
pub struct Receiver<S> {
    door: Arc<Door<S>>,
    gate: Arc<Gate>,
    health: HealthReporter,
    serving: AtomicBool,
}

impl<S> fmt::Debug for Receiver<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("settings", &self.door.settings).finish_non_exhaustive()
    }
}

impl<S: Sink> Receiver<S> {
    /// A receiver whose exports all belong to [`DEFAULT_TENANT`]. Its health is [`Health::NotServing`] until
    /// [`set_health`](Self::set_health) says otherwise.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn new(settings: Settings, checks: Checks, sink: Arc<S>, clock: Arc<dyn Clock>) -> Result<Self, SettingsError> {
        let everyone: Arc<str> = DEFAULT_TENANT.into();
        Self::with_tenants(settings, checks, sink, clock, Arc::new(move |_| Ok(Arc::clone(&everyone))))
    }

    /// A receiver that asks the hook whose an export is.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn with_tenants(
        settings: Settings,
        checks: Checks,
        sink: Arc<S>,
        clock: Arc<dyn Clock>,
        tenant: TenantHook,
    ) -> Result<Self, SettingsError> {
        settings.check()?;
        let counters = Arc::new(ReceiverCounters::default());
        let gate =
            Gate::new(settings.connections_max, settings.handshake_timeout, Arc::clone(&counters), Arc::clone(&clock));
        let door = Door {
            budget: Budget::new(settings.in_flight_bytes_max, settings.admission_timeout, Arc::clone(&counters)),
            rate: settings.tenant_bytes_per_second.map(RateLimit::new),
            log: RefusalLog::new(),
            settings,
            sink,
            clock,
            checks,
            tenant,
            counters,
        };
        Ok(Self {
            door: Arc::new(door),
            gate: Arc::new(gate),
            health: HealthReporter::new(),
            serving: AtomicBool::new(false),
        })
    }

    /// What the doors did so far.
    #[must_use]
    pub fn counters(&self) -> Arc<ReceiverCounters> {
        Arc::clone(&self.door.counters)
    }

    /// Tells clients that ask, or watch, whether exports are taken. It refuses nothing by itself.
    pub async fn set_health(&self, health: Health) {
        self.serving.store(health == Health::Serving, Ordering::Release);
        self.publish_health().await;
    }

    async fn publish_health(&self) {
        let status =
            if self.serving.load(Ordering::Acquire) { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in Self::health_services() {
            self.health.set_service_status(service, status).await;
        }
    }

    fn health_services() -> [&'static str; 4] {
        ["", ExportService::<S, Traces>::NAME, ExportService::<S, Logs>::NAME, ExportService::<S, Metrics>::NAME]
    }

    /// Serves OTLP/HTTP on the listener until `shutdown` resolves and requests in flight are answered, or the drain timeout is
    /// over. Faults of single connections and requests are counted; the door as a whole cannot fail.
    pub async fn serve_http(&self, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) {
        http_door::serve(&self.door, &self.gate, listener, shutdown).await;
    }

    /// Serves OTLP/gRPC on the listener until `shutdown` resolves and requests in flight are answered, or the drain timeout
    /// is over.
    ///
    /// # Errors
    /// The transport failed as a whole; faults of single connections and requests are counted, not returned.
    pub async fn serve_grpc(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServeError> {
        let settings = &self.door.settings;
        self.publish_health().await;
        let (closing, cut) = (CancellationToken::new(), CancellationToken::new());
        let signal = async {
            shutdown.await;
            self.set_health(Health::NotServing).await;
            // Ends the streams of those who watch: they would hold up the end of their connections.
            let mut health = self.health.clone();
            for service in Self::health_services() {
                health.clear_service_status(service).await;
            }
            closing.cancel();
        };
        // No `max_connection_age_grace`: with it, tonic 0.14.9 cuts a connection of that age instead of letting it finish.
        let mut server = Server::builder()
            .max_concurrent_streams(settings.streams_per_connection_max)
            .initial_stream_window_size(settings.stream_window_bytes)
            .initial_connection_window_size(settings.connection_window_bytes)
            .max_frame_size(settings.frame_bytes_max)
            .http2_keepalive_interval(Some(settings.keepalive_interval))
            .http2_keepalive_timeout(Some(settings.keepalive_timeout));
        if let Some(age) = settings.connection_age_max {
            server = server.max_connection_age(age);
        }
        let serve = server
            .add_service(ExportService::<S, Traces>::new(&self.door))
            .add_service(ExportService::<S, Logs>::new(&self.door))
            .add_service(ExportService::<S, Metrics>::new(&self.door))
            .add_service(HealthServer::new(HealthService::from_health_reporter(self.health.clone())))
            .serve_with_incoming_shutdown(Arc::clone(&self.gate).connections(listener, cut.clone()), signal);
        let limit = async {
            closing.cancelled().await;
            sleep(settings.drain_timeout).await;
        };
        tokio::pin!(serve);
        tokio::select! {
            // Cancel-safe: it is pinned and polled on below.
            served = &mut serve => return served.map_err(ServeError),
            // Cancel-safe: nothing is lost with a timer.
            () = limit => {}
        }
        let connections = self.door.counters.connections.load(Ordering::Relaxed);
        tracing::warn!(connections, "requests are still in flight after drain_timeout, cutting their connections");
        cut.cancel();
        serve.await.map_err(ServeError)
    }
}

/// Runs CPU work on so many bytes here if it is short, else on a blocking thread.
async fn off_runtime<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Fault> {
    if bytes <= INLINE_BYTES_MAX {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        if error.is_panic() { Fault::Internal } else { Fault::Closed { reason: "the process is ending".to_owned() } }
    })
}
