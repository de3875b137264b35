//! Instants, and where they come from.

use std::fmt::Debug;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct UnixMicros(pub i64);

/// Microseconds in a minute.
pub const MINUTE_MICROS: i64 = 60_000_000;
/// Microseconds in an hour.
pub const HOUR_MICROS: i64 = 60 * MINUTE_MICROS;
/// Microseconds in a day.
pub const DAY_MICROS: i64 = 24 * HOUR_MICROS;

impl UnixMicros {
    /// The start of the UTC minute that holds this instant.
    #[must_use]
    pub const fn minute(self) -> Self {
        Self(self.0 - self.0.rem_euclid(MINUTE_MICROS))
    }

    /// The start of the UTC hour that holds this instant.
    #[must_use]
    pub const fn hour(self) -> Self {
        Self(self.0 - self.0.rem_euclid(HOUR_MICROS))
    }

    /// Days since 1970-01-01 of the UTC date that holds this instant (Arrow's `Date32`).
    #[must_use]
    pub const fn date32(self) -> i32 {
        self.0.div_euclid(DAY_MICROS) as i32
    }
}

/// Where time comes from. Only the edges read it; everything behind the log takes its time from the log.
pub trait Clock: Send + Sync + Debug {
    /// The time now. It goes back when somebody sets the clock back.
    fn now(&self) -> UnixMicros;

    /// Time since some moment, by a clock that nobody can set. A clock whose time never goes back needs no other.
    fn elapsed(&self) -> Duration {
        Duration::from_micros(u64::try_from(self.now().0).unwrap_or(0))
    }
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    fn now(&self) -> UnixMicros {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        UnixMicros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    fn elapsed(&self) -> Duration {
        static BEGAN: OnceLock<Instant> = OnceLock::new();
        BEGAN.get_or_init(Instant::now).elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_hours_and_dates_before_1970_round_down() {
        assert_eq!(UnixMicros(-1).minute(), UnixMicros(-MINUTE_MICROS));
        assert_eq!(UnixMicros(-1).hour(), UnixMicros(-HOUR_MICROS));
        assert_eq!(UnixMicros(-1).date32(), -1);
        assert_eq!(UnixMicros(61_000_000).minute(), UnixMicros(MINUTE_MICROS));
    }
}
