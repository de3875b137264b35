//! The one table from what went wrong to what the wire says.
//!
//! A new [`FaultKind`] does not compile until it has its line in [`FaultKind::wire`]. OTLP decides by the code whether a client
//! sends again: what may succeed later must get a code that is resent, what never can must not, or it is resent for ever.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt, pb};

use crate::export::Refusal;

/// Why a request was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No room within the admission timeout, or the log's queues are full.
    #[error("overloaded: {reason}")]
    Overloaded {
        /// What is full.
        reason: String,
    },
    /// The log or the process is closing.
    #[error("closed: {reason}")]
    Closed {
        /// Why.
        reason: String,
    },
    /// The tenant sends more than its rate.
    #[error("tenant \"{tenant}\" is over its rate, {bytes_per_second} bytes per second")]
    RateLimited {
        /// Whose.
        tenant: Arc<str>,
        /// The limit.
        bytes_per_second: u64,
        /// When the next request fits.
        wait: Duration,
    },
    /// The message is over the size limit, before or after decompression.
    #[error("request is larger than {bytes_max} bytes (send smaller batches, or raise the setting `receiver.request`)")]
    TooLarge {
        /// The limit in bytes.
        bytes_max: usize,
    },
    /// The message is not the protobuf or JSON it should be.
    #[error("{detail}")]
    Malformed {
        /// What is wrong, and at which byte.
        detail: String,
    },
    /// The tenant hook did not accept the request.
    #[error("unauthenticated: {detail}")]
    Unauthenticated {
        /// What is missing or wrong.
        detail: String,
    },
    /// A compression that is not supported.
    #[error("compression \"{encoding}\" is not supported (use identity, gzip or zstd)")]
    UnknownEncoding {
        /// As the client named it, shortened.
        encoding: String,
    },
    /// The service has no such method.
    #[error("unknown method (the only one is \"Export\")")]
    UnknownMethod,
    /// Nothing is at this path of OTLP/HTTP.
    #[error("nothing is here (send to /v1/traces or /v1/logs; /v1/metrics are counted and refused)")]
    UnknownPath,
    /// Not a POST.
    #[error("exports are sent with POST")]
    WrongMethod,
    /// A content type that is not OTLP's.
    #[error("content type \"{content_type}\" is not OTLP (use application/x-protobuf or application/json)")]
    UnknownContentType {
        /// As the client named it, shortened.
        content_type: String,
    },
    /// The request does not consist of exactly one whole message.
    #[error("protocol error: {detail}")]
    Framing {
        /// What is wrong.
        detail: &'static str,
    },
    /// The compressed data cannot be decompressed.
    #[error("corrupt {encoding} data: {detail}")]
    Corrupt {
        /// Which compression.
        encoding: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// The body came too slowly.
    #[error("request body stalled: {detail}")]
    Stalled {
        /// Which limit was passed.
        detail: &'static str,
    },
    /// The client went away within its body.
    #[error("request was cancelled by the client")]
    Gone,
    /// A fault of ours.
    #[error("internal error, see the collector's log")]
    Internal,
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Overloaded { reason } => Self::Overloaded { reason },
            Refusal::Closed { reason } => Self::Closed { reason },
        }
    }
}

/// The kinds of [`Fault`]: what answers, counters and log lines go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is described at the fault of its name")]
pub enum FaultKind {
    Overloaded,
    Closed,
    RateLimited,
    TooLarge,
    Malformed,
    Unauthenticated,
    UnknownEncoding,
    UnknownMethod,
    UnknownPath,
    WrongMethod,
    UnknownContentType,
    Framing,
    Corrupt,
    Stalled,
    Gone,
    Internal,
}

/// Whether, and with which hint, a client is asked to send again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Never: the same request can never be taken.
    Never,
    /// Later: `RetryInfo` in gRPC, `Retry-After` in HTTP.
    Later,
    /// As the client sees fit: the code alone says that it may.
    AtWill,
}

/// What the wire says for one kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wire {
    /// The gRPC status code.
    pub grpc: Code,
    /// The HTTP status code.
    pub http: u16,
    /// Whether the client should send again.
    pub retry: Retry,
    /// The name in metrics and log lines.
    pub label: &'static str,
}

impl FaultKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 16] = [
        Self::Overloaded,
        Self::Closed,
        Self::RateLimited,
        Self::TooLarge,
        Self::Malformed,
        Self::Unauthenticated,
        Self::UnknownEncoding,
        Self::UnknownMethod,
        Self::UnknownPath,
        Self::WrongMethod,
        Self::UnknownContentType,
        Self::Framing,
        Self::Corrupt,
        Self::Stalled,
        Self::Gone,
        Self::Internal,
    ];

    /// The table.
    ///
    /// * gRPC itself asks for `INTERNAL` where a message is framed or compressed wrongly, and OTLP does not resend it.
    /// * `Stalled` is a slow or broken network more often than a hostile client, and nothing of it was taken: it must be resent.
    ///   `DEADLINE_EXCEEDED` is, and is not mistaken for an overload. HTTP's own word, 408, is not resent in OTLP; 503 is.
    #[must_use]
    pub const fn wire(self) -> Wire {
        use Retry::{AtWill, Later, Never};
        const fn wire(grpc: Code, http: u16, retry: Retry, label: &'static str) -> Wire {
            Wire { grpc, http, retry, label }
        }
        match self {
            Self::Overloaded => wire(Code::Unavailable, 503, Later, "overloaded"),
            Self::Closed => wire(Code::Unavailable, 503, Later, "closed"),
            Self::RateLimited => wire(Code::ResourceExhausted, 429, Later, "rate_limited"),
            Self::TooLarge => wire(Code::ResourceExhausted, 413, Never, "too_large"),
            Self::Malformed => wire(Code::InvalidArgument, 400, Never, "malformed"),
            Self::Unauthenticated => wire(Code::Unauthenticated, 401, Never, "unauthenticated"),
            Self::UnknownEncoding => wire(Code::Unimplemented, 415, Never, "unknown_encoding"),
            Self::UnknownMethod => wire(Code::Unimplemented, 404, Never, "unknown_method"),
            Self::UnknownPath => wire(Code::Unimplemented, 404, Never, "unknown_path"),
            Self::WrongMethod => wire(Code::Unimplemented, 405, Never, "wrong_method"),
            Self::UnknownContentType => wire(Code::Unimplemented, 415, Never, "unknown_content_type"),
            Self::Framing => wire(Code::Internal, 400, Never, "framing"),
            Self::Corrupt => wire(Code::Internal, 400, Never, "corrupt"),
            Self::Stalled => wire(Code::DeadlineExceeded, 503, AtWill, "stalled"),
            Self::Gone => wire(Code::Cancelled, 503, AtWill, "gone"),
            Self::Internal => wire(Code::Internal, 500, Never, "internal"),
        }
    }
}

/// A name that a client sent, short enough to be repeated to it.
pub(super) fn shortened(name: &[u8]) -> String {
    const CHARS_MAX: usize = 64;
    String::from_utf8_lossy(name).chars().take(CHARS_MAX).collect()
}

impl Fault {
    /// The kind.
    #[must_use]
    pub const fn kind(&self) -> FaultKind {
        match self {
            Self::Overloaded { .. } => FaultKind::Overloaded,
            Self::Closed { .. } => FaultKind::Closed,
            Self::RateLimited { .. } => FaultKind::RateLimited,
            Self::TooLarge { .. } => FaultKind::TooLarge,
            Self::Malformed { .. } => FaultKind::Malformed,
            Self::Unauthenticated { .. } => FaultKind::Unauthenticated,
            Self::UnknownEncoding { .. } => FaultKind::UnknownEncoding,
            Self::UnknownMethod => FaultKind::UnknownMethod,
            Self::UnknownPath => FaultKind::UnknownPath,
            Self::WrongMethod => FaultKind::WrongMethod,
            Self::UnknownContentType { .. } => FaultKind::UnknownContentType,
            Self::Framing { .. } => FaultKind::Framing,
            Self::Corrupt { .. } => FaultKind::Corrupt,
            Self::Stalled { .. } => FaultKind::Stalled,
            Self::Gone => FaultKind::Gone,
            Self::Internal => FaultKind::Internal,
        }
    }

    /// How long the client is asked to wait, if it is asked to come again: `delay`, or longer if the fault knows better,
    /// give or take a quarter by `nth`, the number of the refusal, so that those refused together do not return together.
    #[must_use]
    pub fn retry_after(&self, delay: Duration, nth: u64) -> Option<Duration> {
        if self.kind().wire().retry != Retry::Later {
            return None;
        }
        let delay = if let Self::RateLimited { wait, .. } = self { delay.max(*wait) } else { delay };
        // Multiples of the golden ratio, cut to their fraction, spread evenly however many there are.
        let fraction = f64::from((nth as u32).wrapping_mul(0x9E37_79B9)) / f64::from(u32::MAX);
        Some(delay.mul_f64(0.75 + 0.5 * fraction))
    }

    /// What the client did wrong within its message, if that is the fault.
    pub(super) fn bad_request(&self) -> Option<String> {
        matches!(self, Self::Malformed { .. } | Self::Framing { .. } | Self::Corrupt { .. }).then(|| self.to_string())
    }

    /// The gRPC status, with `RetryInfo` where there is a time to wait.
    #[must_use]
    pub fn to_grpc(&self, retry_after: Option<Duration>) -> Status {
        let code = self.kind().wire().grpc;
        match retry_after {
            Some(delay) => {
                Status::with_error_details(code, self.to_string(), ErrorDetails::with_retry_info(Some(delay)))
            }
            None => Status::new(code, self.to_string()),
        }
    }

    /// The body of an answer in OTLP/HTTP, with `RetryInfo` where there is a time to wait, and `BadRequest` where the message
    /// is at fault.
    #[must_use]
    pub fn to_status(&self, retry_after: Option<Duration>) -> pb::Status {
        let mut details = ErrorDetails::new();
        if let Some(delay) = retry_after {
            details.set_retry_info(Some(delay));
        }
        if let Some(description) = self.bad_request() {
            details.add_bad_request_violation("body", description);
        }
        let (code, message) = (self.kind().wire().grpc, self.to_string());
        let status = Status::with_error_details(code, message.as_str(), details);
        // tonic keeps the whole message among the details.
        pb::Status::decode(status.details()).unwrap_or_else(|_| pb::Status {
            code: code as i32,
            message,
            ..pb::Status::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_otlp_asks() {
        use Code::{
            Cancelled, DeadlineExceeded, Internal, InvalidArgument, ResourceExhausted, Unauthenticated, Unavailable,
            Unimplemented,
        };
        let expect = [
            (FaultKind::Overloaded, Unavailable, 503, Retry::Later),
            (FaultKind::Closed, Unavailable, 503, Retry::Later),
            (FaultKind::RateLimited, ResourceExhausted, 429, Retry::Later),
            (FaultKind::TooLarge, ResourceExhausted, 413, Retry::Never),
            (FaultKind::Malformed, InvalidArgument, 400, Retry::Never),
            (FaultKind::Unauthenticated, Unauthenticated, 401, Retry::Never),
            (FaultKind::UnknownEncoding, Unimplemented, 415, Retry::Never),
            (FaultKind::UnknownMethod, Unimplemented, 404, Retry::Never),
            (FaultKind::UnknownPath, Unimplemented, 404, Retry::Never),
            (FaultKind::WrongMethod, Unimplemented, 405, Retry::Never),
            (FaultKind::UnknownContentType, Unimplemented, 415, Retry::Never),
            (FaultKind::Framing, Internal, 400, Retry::Never),
            (FaultKind::Corrupt, Internal, 400, Retry::Never),
            (FaultKind::Stalled, DeadlineExceeded, 503, Retry::AtWill),
            (FaultKind::Gone, Cancelled, 503, Retry::AtWill),
            (FaultKind::Internal, Internal, 500, Retry::Never),
        ];
        assert_eq!(expect.map(|line| line.0), FaultKind::ALL);
        for (kind, grpc, http, retry) in expect {
            let wire = kind.wire();
            assert_eq!((wire.grpc, wire.http, wire.retry), (grpc, http, retry), "{kind:?}");
        }
    }

    /// Scenario: a client follows OTLP's list of codes. Guarantees: it resends exactly what may succeed later.
    #[test]
    fn a_client_that_follows_otlp_resends_exactly_what_may_succeed_later() {
        for kind in FaultKind::ALL {
            let wire = kind.wire();
            let grpc_resent = match wire.grpc {
                Code::Cancelled
                | Code::DeadlineExceeded
                | Code::Aborted
                | Code::OutOfRange
                | Code::Unavailable
                | Code::DataLoss => true,
                Code::ResourceExhausted => wire.retry == Retry::Later,
                _ => false,
            };
            let http_resent = matches!(wire.http, 429 | 502..=504);
            let meant = wire.retry != Retry::Never;
            assert_eq!((grpc_resent, http_resent), (meant, meant), "{kind:?}");
        }
    }

    #[test]
    fn kinds_number_their_place_in_the_list_and_labels_differ() {
        for (at, kind) in FaultKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, at);
        }
        let mut labels = FaultKind::ALL.map(|kind| kind.wire().label);
        labels.sort_unstable();
        assert!(labels.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn delays_stay_within_a_quarter_and_differ() {
        let fault = Fault::Overloaded { reason: String::new() };
        let delays: Vec<_> =
            (0..100).map(|nth| fault.retry_after(Duration::from_secs(1), nth).expect("a delay")).collect();
        assert!(delays.iter().all(|delay| (750..=1250).contains(&delay.as_millis())), "{delays:?}");
        assert!(delays.windows(2).all(|pair| pair[0].abs_diff(pair[1]) > Duration::from_millis(50)));
        assert!(delays.iter().any(|delay| delay.as_millis() < 800) && delays.iter().any(|d| d.as_millis() > 1200));
    }

    #[test]
    fn a_rate_limit_asks_for_as_long_as_it_takes() {
        let wait = Duration::from_secs(8);
        let fault = Fault::RateLimited { tenant: "a".into(), bytes_per_second: 1, wait };
        assert!(fault.retry_after(Duration::from_secs(1), 0).expect("a delay") >= Duration::from_secs(6));
    }
}
