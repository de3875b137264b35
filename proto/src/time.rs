//! Instants, and where they come from.

use std::fmt::Debug;

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
    /// The time now.
    fn now(&self) -> UnixMicros;
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
