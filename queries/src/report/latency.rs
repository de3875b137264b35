//! The latency report: a histogram, and quantiles over time.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use toolgauge_analytics::hist::{Histogram, Recorder};
use toolgauge_proto::api::{LatencyInterval, LatencyReport, LatencyStep};
use toolgauge_proto::lake::View;
use toolgauge_proto::time::{HOUR_MICROS, MINUTE_MICROS, UnixMicros};

use super::{Range, Rows, Source, names, over_snapshot, over_sums, quantiles};
use crate::engine::{Engine, Error};
use crate::json::rfc3339;
use crate::tables::Catalog;

const LATENCY: &str = include_str!("../../sql/latency.sql");
/// Most steps of a series.
const STEPS_MAX: i64 = 120;
/// Steps that people like, in minutes.
const STEPS_MINUTES: [i64; 7] = [1, 5, 15, 60, 360, 1_440, 10_080];
/// Intervals of the histogram in each power of two, of which HDR's buckets are parts.
const INTERVALS: u64 = 4;

/// The latencies of the attempts of tool calls in the range.
///
/// # Errors
/// See [`Error`].
pub async fn latency(
    engine: &Engine,
    catalog: &Catalog,
    view: Arc<View>,
    now: UnixMicros,
    range: Range,
) -> Result<LatencyReport, Error> {
    over_snapshot(engine, catalog, &view, now, async move |session, snapshot| {
        let step_us = step_us(range.to.0.saturating_sub(range.from.0));
        let source = if step_us % HOUR_MICROS == 0 { Source::Hours } else { Source::Minutes };
        let (names, folded) = names(&session, &range).await?;
        let mut parameters = range.parameters_of_sums(names);
        parameters.push(("step_us", ScalarValue::Int64(Some(step_us))));
        let answer = session.query(&over_sums(source.sums(), LATENCY), parameters).await?;
        let rows = Rows::new(&answer)?;
        let (mut whole, mut series, mut sampled) = (Recorder::default(), Vec::with_capacity(rows.len()), false);
        for row in 0..rows.len() {
            let step = rows.histogram(2, row)?;
            whole.add(&step);
            let start = UnixMicros(rows.integer(0, row)?);
            sampled |= rows.weight(3, row)? != i128::from(rows.count(1, row)?) * 1_000_000;
            series.push(LatencyStep {
                start: rfc3339(start),
                attempts: rows.count(1, row)?,
                latency: quantiles(&step),
            });
        }
        let whole = whole.finish();
        Ok(LatencyReport {
            scope: snapshot.scope(&session, &range).await?,
            attempts: series.iter().map(|step| step.attempts).sum(),
            sampled,
            latency: (!whole.is_empty()).then(|| quantiles(&whole)),
            histogram: intervals(&whole),
            step_seconds: (step_us / 1_000_000).unsigned_abs(),
            series,
            folded,
            truncated: answer.truncated,
        })
    })
    .await
}

/// The shortest step with which a range has few enough of them.
fn step_us(range_us: i64) -> i64 {
    let least = range_us / STEPS_MAX;
    let longest = STEPS_MINUTES[STEPS_MINUTES.len() - 1] * MINUTE_MICROS;
    let liked = STEPS_MINUTES.iter().map(|minutes| minutes * MINUTE_MICROS).find(|step| *step >= least);
    liked.unwrap_or_else(|| least.div_euclid(longest).saturating_add(1).saturating_mul(longest))
}

/// The histogram in coarser intervals. Each of HDR's buckets lies in one of them.
fn intervals(histogram: &Histogram) -> Vec<LatencyInterval> {
    let mut intervals: Vec<(u64, u64, u64)> = Vec::new();
    for (first, _, attempts) in histogram.buckets() {
        // Values are whole: the interval from `start` on, `width` long, is above start - 1 and up to start + width - 1.
        let power = 1 << first.max(1).ilog2();
        let width = (power / INTERVALS).max(1);
        let start = power + (first - power) / width * width;
        match intervals.last_mut() {
            Some((above, _, sum)) if *above == start - 1 => *sum += attempts,
            _ => intervals.push((start - 1, start + width - 1, attempts)),
        }
    }
    let ms = |micros: u64| micros as f64 / 1e3;
    let interval = |(above, up_to, attempts)| LatencyInterval { above_ms: ms(above), up_to_ms: ms(up_to), attempts };
    intervals.into_iter().map(interval).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_the_shortest_of_which_there_are_few_enough() {
        let hours = |hours: i64| step_us(hours * 60 * MINUTE_MICROS) / MINUTE_MICROS;
        assert_eq!([1, 2, 3, 24, 30 * 24, 13 * 30 * 24].map(hours), [1, 1, 5, 15, 360, 10_080]);
        assert_eq!(hours(24 * 365 * 10), 5 * 10_080);
        assert!(step_us(i64::MAX) >= i64::MAX / STEPS_MAX);
    }

    #[test]
    fn intervals_hold_each_value_once() {
        let mut recorder = Recorder::default();
        let values: Vec<u64> = (0..3_000).map(|n| 1 + n * n % 5_000_000).collect();
        values.iter().for_each(|micros| recorder.record(*micros));
        let intervals = intervals(&recorder.finish());
        assert!(intervals.is_sorted_by(|a, b| a.up_to_ms <= b.above_ms));
        for interval in intervals {
            let within = |micros: &&u64| {
                let ms = **micros as f64 / 1e3;
                ms > interval.above_ms && ms <= interval.up_to_ms
            };
            assert_eq!(values.iter().filter(within).count() as u64, interval.attempts, "{interval:?}");
            // A quarter of a power of two.
            assert!(interval.up_to_ms - interval.above_ms <= (interval.above_ms + 0.001) / 4.0 + 0.001);
        }
    }
}
