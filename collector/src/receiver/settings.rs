//! The doors' limits, with a reason for every default.

use std::num::NonZeroU64;
use std::time::Duration;

use super::inflate;

/// 64 MiB: what the OTLP specification recommends, and what the SDKs send at most by default.
pub const REQUEST_BYTES_MAX: usize = 64 << 20;
/// 256 MiB: four of the largest requests, or more than a thousand of the usual 230 KiB ones.
pub const IN_FLIGHT_BYTES_MAX: usize = 256 << 20;
/// 1 s: exporters give up after 5 to 10 s; the rest of that time belongs to the log and to the way back.
pub const ADMISSION_TIMEOUT: Duration = Duration::from_secs(1);
/// 1 s: a full log drains a batch in milliseconds, and exporters queue only some seconds' worth of spans.
pub const RETRY_DELAY: Duration = Duration::from_secs(1);
/// 10 s: the default timeout of the SDKs' exporters; a client that is silent for longer has given up.
pub const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// 60 s: 64 MiB at 9 Mbit/s; without it a client that sends a byte now and then would hold its permits for hours.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// 10 s: a client speaks first, at once; without it a silent connection would keep its place for ever.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// 120 s: twice the longest interval at which exporters usually send, so that it is they who close a connection.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// 128: far above what exporters open (1 to 10); the rest waits in the client.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 128;
/// 1,024: together with [`CONNECTION_WINDOW_BYTES`] the most that clients can make the transport hold unread (2 GiB, if all are
/// hostile at once), and well below the usual limit of open files.
pub const CONNECTIONS_MAX: usize = 1024;
/// 1 MiB: the usual export (230 KiB) fits in whole, so its client never waits for credit; a stream over 10 ms of network
/// still moves 100 MB/s.
pub const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// 2 MiB: two full streams. What is in the window was not admitted yet and is paid for by nobody, so it is kept small.
pub const CONNECTION_WINDOW_BYTES: u32 = 2 << 20;
/// 256 KiB: the usual export comes as one frame from clients that make use of it, and is then never copied.
pub const FRAME_BYTES_MAX: u32 = 256 << 10;
/// 30 s: below the 60 s and more after which load balancers and NAT drop silent connections.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// 20 s: the default of gRPC servers.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// 10 s: as long as a client waits for its answer.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Limits of the doors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Largest request in bytes, as sent and also after decompression.
    pub request_bytes_max: usize,
    /// Bytes that requests of all doors may hold together, from their first byte until they are answered.
    pub in_flight_bytes_max: usize,
    /// How long a request waits for its share of `in_flight_bytes_max`, in sum, before it is refused.
    pub admission_timeout: Duration,
    /// How long refused clients are asked to wait (±25 %).
    pub retry_delay: Duration,
    /// Bytes per second (as sent) that one tenant may send on average, with one second's worth of burst; `None`: no limit.
    pub tenant_bytes_per_second: Option<NonZeroU64>,
    /// Longest time in which a started body may bring no byte.
    pub read_timeout: Duration,
    /// Longest time a whole body may take.
    pub body_timeout: Duration,
    /// Longest time from a connection's start to its first bytes (the HTTP/2 preface, or so many of a head).
    pub handshake_timeout: Duration,
    /// Longest time that a connection of HTTP/1 may wait for a request, and the request's head may take.
    pub idle_timeout: Duration,
    /// Most concurrent calls on one connection.
    pub streams_per_connection_max: u32,
    /// Most open connections; more are closed at once.
    pub connections_max: usize,
    /// HTTP/2 flow-control window of a call, in bytes.
    pub stream_window_bytes: u32,
    /// HTTP/2 flow-control window of a connection, in bytes.
    pub connection_window_bytes: u32,
    /// Largest HTTP/2 frame that clients may send, in bytes (16,384 to 16,777,215).
    pub frame_bytes_max: u32,
    /// Time between HTTP/2 pings on a connection.
    pub keepalive_interval: Duration,
    /// How long a ping's answer may take before the connection is closed.
    pub keepalive_timeout: Duration,
    /// Age at which a connection is asked to end (what is in flight is still answered), so that clients spread anew;
    /// `None`: never.
    pub connection_age_max: Option<Duration>,
    /// How long requests in flight may take to finish once the door closes.
    pub drain_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            request_bytes_max: REQUEST_BYTES_MAX,
            in_flight_bytes_max: IN_FLIGHT_BYTES_MAX,
            admission_timeout: ADMISSION_TIMEOUT,
            retry_delay: RETRY_DELAY,
            tenant_bytes_per_second: None,
            read_timeout: READ_TIMEOUT,
            body_timeout: BODY_TIMEOUT,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            streams_per_connection_max: STREAMS_PER_CONNECTION_MAX,
            connections_max: CONNECTIONS_MAX,
            stream_window_bytes: STREAM_WINDOW_BYTES,
            connection_window_bytes: CONNECTION_WINDOW_BYTES,
            frame_bytes_max: FRAME_BYTES_MAX,
            keepalive_interval: KEEPALIVE_INTERVAL,
            keepalive_timeout: KEEPALIVE_TIMEOUT,
            connection_age_max: None,
            drain_timeout: DRAIN_TIMEOUT,
        }
    }
}

/// Settings that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// A request of the allowed size would never be admitted, and its client would resend it for ever.
    #[error(
        "`receiver.in_flight` must be at least \"{needed}\" so that one compressed request of `receiver.request` fits, \
         got \"{got}\" (raise it, or lower `receiver.request`)"
    )]
    InFlightTooSmall {
        /// Least bytes.
        needed: usize,
        /// As configured.
        got: usize,
    },
    /// A limit lies outside what its protocol allows.
    #[error("{key} must be between {least} and {most}, got \"{got}\"")]
    OutOfRange {
        /// Which setting.
        key: &'static str,
        /// Least allowed.
        least: u64,
        /// Most allowed.
        most: u64,
        /// As configured.
        got: u64,
    },
}

impl Settings {
    /// Checks the settings against each other and against HTTP/2.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), SettingsError> {
        // gRPC's length prefix has 32 bits, and so has a semaphore's request, in KiB; windows are limited by RFC 9113.
        let window_most = (1 << 31) - 1;
        for (key, least, most, got) in [
            ("request_bytes_max", 1, u64::from(u32::MAX), self.request_bytes_max as u64),
            ("in_flight_bytes_max", 1, 1 << 40, self.in_flight_bytes_max as u64),
            ("frame_bytes_max", 1 << 14, (1 << 24) - 1, u64::from(self.frame_bytes_max)),
            ("stream_window_bytes", 1, window_most, u64::from(self.stream_window_bytes)),
            ("connection_window_bytes", 1, window_most, u64::from(self.connection_window_bytes)),
            ("connections_max", 1, 1 << 20, self.connections_max as u64),
        ] {
            if !(least..=most).contains(&got) {
                return Err(SettingsError::OutOfRange { key, least, most, got });
            }
        }
        let needed = inflate::held_bytes_max(self.request_bytes_max);
        if self.in_flight_bytes_max < needed {
            return Err(SettingsError::InFlightTooSmall { needed, got: self.in_flight_bytes_max });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_fit_together() {
        assert_eq!(Settings::default().check(), Ok(()));
    }

    #[test]
    fn a_budget_that_one_request_can_exceed_is_refused() {
        let settings = Settings { in_flight_bytes_max: 100 << 20, ..Settings::default() };
        let error = settings.check().expect_err("100 MiB do not hold a compressed request of 64 MiB");
        assert!(matches!(error, SettingsError::InFlightTooSmall { got, .. } if got == 100 << 20), "{error}");
    }

    #[test]
    fn a_frame_size_that_http2_does_not_know_is_refused() {
        let settings = Settings { frame_bytes_max: 1 << 24, ..Settings::default() };
        assert_eq!(
            settings.check().expect_err("too large").to_string(),
            "frame_bytes_max must be between 16384 and 16777215, got \"16777216\""
        );
    }
}
