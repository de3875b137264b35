//! What the tools report says of retries and of samples.
//!
//! * A logical call belongs to the time and the key of its last attempt. Its first attempt failed if its last one failed, or is not
//!   the first; it is recovered if the last one, not the first, succeeded.
//! * A retry counts as one whether the attempt that it retried is known or not (the producer said so); pauses and lost time
//!   are those of retries whose attempts are known.
//! * What is usual of retries is the range up to the full hour that lies one to two hours before its end; see
//!   [`toolgauge_analytics::retries`] for what a storm is.
//! * A tool is sampled if its weights do not add up to its attempts. Its counts stay those of the rows that are known; what
//!   they stand for is said beside them, see [`toolgauge_analytics::sampling`].

use toolgauge_analytics::retries::{Retried, STORM_HISTORY_MIN, is_storm};
use toolgauge_analytics::sampling::{Z_95, effective_size, wilson};
use toolgauge_proto::api::{Retries, RetryDelay, RetryStorm, Weighted};
use toolgauge_proto::time::UnixMicros;

use super::{Range, Rows, ratio};
use crate::engine::Error;
use crate::json::rfc3339;

/// Where the columns of `tools.sql` begin that this reads.
pub(super) const FIRST_COLUMN: usize = 14;
/// How many there are.
pub(super) const COLUMNS: usize = 13;
/// Attempts, and those that are final or succeeded or both, in `tools.sql`.
const ATTEMPTS: usize = 3;
const CALLS: usize = 5;
const CALLS_OK: usize = 6;
const RETRIES: usize = 7;
const HOUR_US: i64 = 3_600_000_000;
/// A weight of 1, in millionths.
const ONE: f64 = 1e6;

/// Where the recent time of a range begins.
pub(super) fn recent(range: &Range) -> UnixMicros {
    UnixMicros(range.to.0.saturating_sub(HOUR_US).div_euclid(HOUR_US).saturating_mul(HOUR_US))
}

pub(super) fn retries(rows: &Rows, row: usize, range: &Range) -> Result<Retries, Error> {
    let count = |column| rows.count(column, row);
    let at = |column: usize| count(FIRST_COLUMN + column);
    let (calls, calls_ok, recovered) = (count(CALLS)?, count(CALLS_OK)?, at(0)?);
    let failed_first = calls - calls_ok + recovered;
    let delay = rows.histogram(FIRST_COLUMN + 3, row)?;
    let quantile = |q| delay.quantile(q).map(|micros| micros as f64 / 1e3);
    Ok(Retries {
        attempts: count(RETRIES)?,
        failed_first,
        recovered,
        recovery_ratio: ratio(recovered, failed_first),
        attempts_per_success: ratio(at(1)?, calls_ok),
        lost_ms: at(2)? as f64 / 1e6,
        delay: quantile(0.5).zip(quantile(0.95)).map(|(p50_ms, p95_ms)| RetryDelay { p50_ms, p95_ms }),
        storm: storm(
            Retried { retries: at(5)?, attempts: at(4)? },
            Retried { retries: count(RETRIES)?, attempts: count(ATTEMPTS)? },
            range,
        ),
    })
}

fn storm(now: Retried, all: Retried, range: &Range) -> Option<RetryStorm> {
    let usual = Retried {
        retries: all.retries.saturating_sub(now.retries),
        attempts: all.attempts.saturating_sub(now.attempts),
    };
    (usual.attempts >= STORM_HISTORY_MIN).then(|| RetryStorm {
        now: is_storm(now, usual),
        since: rfc3339(recent(range)),
        attempts: now.attempts,
        retries: now.retries,
        usual_ratio: usual.retries as f64 / usual.attempts as f64,
    })
}

/// The sums of weights; none if every weight is 1.
pub(super) fn weighted(rows: &Rows, row: usize) -> Result<Option<Weighted>, Error> {
    let weight = |column: usize| rows.weight(FIRST_COLUMN + column, row);
    let (attempts, ok, calls, calls_ok) = (weight(6)?, weight(7)?, weight(8)?, weight(9)?);
    let (retries, squares, squares_calls) = (weight(10)?, weight(11)?, weight(12)?);
    let known = rows.count(ATTEMPTS, row)?;
    if attempts == i128::from(known) * 1_000_000 {
        return Ok(None);
    }
    let share = |part: i128, whole: i128| (whole > 0).then(|| part as f64 / whole as f64);
    let size = |weights: i128, squares: i128| effective_size(weights as f64 / ONE, squares as f64 / ONE);
    let interval = |part, whole, squares| {
        let (low, high) = wilson(share(part, whole)?, size(whole, squares), Z_95)?;
        Some([low, high])
    };
    Ok(Some(Weighted {
        share: known as f64 * ONE / attempts as f64,
        attempts: weight_text(attempts),
        attempts_ok: weight_text(ok),
        calls: weight_text(calls),
        calls_ok: weight_text(calls_ok),
        retries: weight_text(retries),
        success_ratio_attempt: share(ok, attempts),
        success_interval_attempt: interval(ok, attempts, squares),
        success_ratio_logical: share(calls_ok, calls),
        success_interval_logical: interval(calls_ok, calls, squares_calls),
        retry_ratio: share(retries, attempts),
        effective_attempts: size(attempts, squares),
    }))
}

/// Millionths as a decimal, without trailing zeros.
pub(crate) fn weight_text(weight: i128) -> String {
    let (whole, rest) = (weight.unsigned_abs() / 1_000_000, weight.unsigned_abs() % 1_000_000);
    let sign = if weight < 0 { "-" } else { "" };
    if rest == 0 {
        return format!("{sign}{whole}");
    }
    format!("{sign}{whole}.{}", format!("{rest:06}").trim_end_matches('0'))
}
