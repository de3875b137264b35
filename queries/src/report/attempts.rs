//! What the tools report says of retries and of samples.
//!
//! * A logical call belongs to the time and the key of its last attempt. Its first attempt failed if its last one failed, or is not
//!   the first; it is recovered if the last one, not the first, succeeded.
//! * A retry counts as one whether the attempt that it retried is known or not (the producer said so); pauses and lost time
//!   are those of retries whose attempts are known.
//! * Recent is what of the range lies after the full hour that is one to two hours before its end; what is usual of retries are the seven
//!   days before that hour, whether the range has them or not. See [`toolgauge_analytics::retries`] for what a storm is.
//! * A tool is sampled if its weights do not add up to its attempts. Its counts stay those of the rows that are known; what
//!   they stand for is said beside them, see [`toolgauge_analytics::sampling`].

use std::collections::BTreeMap;

use toolgauge_analytics::retries::{Retried, STORM_HISTORY_MIN, is_storm};
use toolgauge_analytics::sampling::{Z_95, effective_size, effective_size_at_most, wilson};
use toolgauge_analytics::sli::Counts;
use toolgauge_proto::api::slo::SloWeighted;
use toolgauge_proto::api::{Retries, RetryDelay, RetryStorm, Weighted};
use toolgauge_proto::time::UnixMicros;

use super::{Range, Rows, ratio, timestamp};
use crate::engine::{Error, Session};
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
/// How long before the recent time of a range is usual.
const HISTORY_US: i64 = 7 * 24 * HOUR_US;
const USUAL_RETRIES: &str = include_str!("../../sql/usual_retries.sql");

/// What is usual, by tenant, server and tool.
pub(super) type Usual = BTreeMap<(Option<String>, Option<String>, Option<String>), Retried>;
/// A weight of 1, in millionths.
const ONE: f64 = 1e6;

/// Where the recent time of a range begins.
pub(super) fn recent(range: &Range) -> UnixMicros {
    UnixMicros(range.to.0.saturating_sub(HOUR_US).div_euclid(HOUR_US).saturating_mul(HOUR_US))
}

/// What is usual of the tools of a range.
pub(super) async fn usual(session: &Session, range: &Range) -> Result<Usual, Error> {
    let mut parameters = range.parameters();
    parameters.push(("history", timestamp(UnixMicros(recent(range).0.saturating_sub(HISTORY_US)))));
    let answer = session.query(USUAL_RETRIES, parameters).await?;
    let rows = Rows::new(&answer)?;
    let tool = |row: usize| -> Result<_, Error> {
        let name = (rows.text(0, row)?, rows.text(1, row)?, rows.text(2, row)?);
        Ok((name, Retried { attempts: rows.count(3, row)?, retries: rows.count(4, row)? }))
    };
    (0..rows.len()).map(tool).collect()
}

pub(super) fn retries(rows: &Rows, row: usize, range: &Range, usual: &Usual) -> Result<Retries, Error> {
    let count = |column| rows.count(column, row);
    let at = |column: usize| count(FIRST_COLUMN + column);
    let (calls, calls_ok, recovered) = (count(CALLS)?, count(CALLS_OK)?, at(0)?);
    let failed_first = calls - calls_ok + recovered;
    let delay = rows.histogram(FIRST_COLUMN + 3, row)?;
    let name = (rows.text(0, row)?, rows.text(1, row)?, rows.text(2, row)?);
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
            usual.get(&name).copied().unwrap_or_default(),
            range,
        ),
    })
}

fn storm(now: Retried, usual: Retried, range: &Range) -> Option<RetryStorm> {
    (usual.attempts >= STORM_HISTORY_MIN).then(|| RetryStorm {
        now: is_storm(now, usual),
        since: rfc3339(recent(range).max(range.from)),
        attempts: now.attempts,
        retries: now.retries,
        usual_ratio: usual.retries as f64 / usual.attempts as f64,
    })
}

/// The sums of weights; none if every weight is 1. Weights that are all 0 say nothing.
pub(super) fn weighted(rows: &Rows, row: usize) -> Result<Option<Weighted>, Error> {
    let weight = |column: usize| rows.weight(FIRST_COLUMN + column, row);
    let (attempts, ok, calls, calls_ok) = (weight(6)?, weight(7)?, weight(8)?, weight(9)?);
    let (retries, squares, squares_calls) = (weight(10)?, weight(11)?, weight(12)?);
    let known = rows.count(ATTEMPTS, row)?;
    if attempts == 0 || attempts == i128::from(known) * 1_000_000 {
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

/// What the events of an SLO stand for; none if each stands for itself. The squares of their weights are not kept.
pub(crate) fn weighted_events(counts: &Counts) -> Option<SloWeighted> {
    let millions = |weights: i128| weights as f64 / ONE;
    let parts = [(millions(counts.good_weighted), counts.good), (millions(counts.bad_weighted), counts.bad)];
    let effective_events = effective_size_at_most(&parts);
    counts.is_sampled().then(|| SloWeighted {
        good: weight_text(counts.good_weighted),
        bad: weight_text(counts.bad_weighted),
        sli_interval: counts.ratio().and_then(|sli| wilson(sli, effective_events, Z_95)).map(|(low, high)| [low, high]),
        effective_events,
    })
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
