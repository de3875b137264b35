//! What an SLO's alerts need to fire, how soon they do, and how often they would without need: arithmetic for people, in doubles. Nothing here
//! decides.
//!
//! # The model
//! * Detection: traffic is steady, and from one moment on everything fails. The long window burns at factor f once f x (1 - target) of it has
//!   failed; the short one does so earlier. The alert ends when the short window no longer burns: after everything failed for at least its length,
//!   (1 - f x (1 - target)) of it.
//! * False alerts: events come at random with a steady rate, and fail independently of each other with probability 1 - target: the objective is just
//!   met. So the bad events of a window are Poisson. An alert begins with a bad event that brings both windows to their thresholds. With the bad
//!   events S of the short window and R of the rest of the long one, which are independent, and thresholds s and l, the expected number in a time
//!   with B bad events is B x [P(S = s - 1) P(R >= l - s) + sum over i >= s of P(S = i) P(R = l - 1 - i)].

//! * Flapping: at a constant rate of failures that burns just at the factor, an alert begins and ends by chance. How often, and how often with a
//!   keep-firing time, is counted in a simulation whose draws are always the same.

use std::collections::VecDeque;

use serde::Serialize;
use toolgauge_analytics::budget::{Measure, Ratio, Severity, Target};
use toolgauge_analytics::sli::Counts;

use super::definition::{Budgeting, BurnTier, Guards, Slo, TierSource};
use super::tiers::shown;

/// Events an hour for which false alerts are told, if the traffic is not known.
pub const TRAFFIC_EXAMPLES: [f64; 4] = [10.0, 100.0, 1_000.0, 10_000.0];
/// How improbable the failures of a page must be while the objective is met.
pub const EVIDENCE: f64 = 1e-4;
/// Events an hour above which the model is not asked.
const TRAFFIC_MAX: f64 = 1e7;

/// An SLO, explained.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explained {
    /// Its service.
    pub service: String,
    /// Its name.
    pub slo: String,
    /// The share of good events, or slices.
    pub target: String,
    /// Its period.
    pub period: String,
    /// What its budget is counted in.
    pub budgeting: String,
    /// The share that may be bad.
    pub allowed: String,
    /// Its tiers, fastest first.
    pub tiers: Vec<TierExplained>,
    /// What is left out, what is grouped, what does not count.
    pub notes: Vec<String>,
}

/// A tier, explained.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TierExplained {
    /// The label `burn_tier`.
    pub burn_tier: String,
    /// The label `severity`.
    pub severity: String,
    /// The long window.
    pub long_window: String,
    /// The short window.
    pub short_window: String,
    /// The least burn rate of both, or the part of the budget with a percent sign.
    pub factor: String,
    /// The share of bad events in both windows at which it fires.
    pub error_ratio: f64,
    /// Where it comes from.
    pub source: String,
    /// How and why it is not as its source has it.
    pub adapted: Option<String>,
    /// Seconds from the beginning of a total outage until it fires.
    pub detection_s: f64,
    /// Seconds from the end of a long total outage until it ends.
    pub reset_s: f64,
    /// Seconds that it has to burn before it fires.
    pub pending_s: i64,
    /// Seconds that it goes on firing after it burnt last.
    pub keep_firing_s: i64,
    /// What holds it back.
    pub guards: Vec<String>,
    /// At some rates of events, what it needs, and how often it fires without need.
    pub traffic: Vec<TrafficExplained>,
}

/// A tier at a rate of events.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrafficExplained {
    /// Events an hour.
    pub events_per_hour: f64,
    /// Bad events in the long window from which on it fires.
    pub bad_events: u64,
    /// Expected alerts in 30 days while the objective is just met; none where failures of slices are asked for.
    pub false_alerts_per_30_days: Option<f64>,
    /// The same without guards.
    pub without_guards: Option<f64>,
    /// Begins a day while failures have a constant rate that burns just at the factor; none where failures of slices are asked for.
    pub begins_per_day_at_factor: Option<f64>,
    /// The same with the keep-firing time, or with one of the short window's length if there is none.
    pub begins_per_day_kept: Option<f64>,
}

/// Explains an SLO, at its own rate of events if that is known.
#[must_use]
pub fn explain(slo: &Slo, events_per_hour: Option<f64>) -> Explained {
    let rates = events_per_hour.map_or(TRAFFIC_EXAMPLES.to_vec(), |rate| vec![rate]);
    let mut notes: Vec<String> = slo.left_out.iter().map(|text| format!("left out: {text}")).collect();
    if slo.tiers.is_empty() {
        notes.push("it has no burn-rate alerts".to_owned());
    }
    if let Some(groups) = &slo.group_by {
        let columns = groups.columns.join(", ");
        notes
            .push(format!("one SLO for each value of {columns}, at most {}; the rest is __other__", groups.groups_max));
    }
    if !slo.exclusions.is_empty() {
        let minutes: u64 = slo.exclusions.iter().map(toolgauge_analytics::calendar::Span::minutes).sum();
        notes.push(format!("{} intervals of together {minutes} minutes do not count", slo.exclusions.len()));
    }
    Explained {
        service: slo.service.clone(),
        slo: slo.name.clone(),
        target: slo.target.to_string(),
        period: slo.period.to_string(),
        budgeting: match slo.budgeting {
            Budgeting::Occurrences => "events".to_owned(),
            Budgeting::Timeslices(slices) => {
                format!("slices of {}, good from {} of their events on", slices.length(), shown(slices.target()))
            }
        },
        allowed: format!("{} %", shown(hundred(slo.target.budget()))),
        tiers: slo.tiers.iter().map(|tier| explain_tier(slo, tier, &rates)).collect(),
        notes,
    }
}

fn hundred(ratio: Ratio) -> Ratio {
    Ratio::percent(10_000).times(ratio).unwrap_or(ratio)
}

fn explain_tier(slo: &Slo, burn: &BurnTier, rates: &[f64]) -> TierExplained {
    let tier = &burn.tier;
    let allowed = slo.target.budget().to_f64();
    // A part of the budget of the period is a burn rate while traffic is steady.
    let burn_rate = match tier.measure {
        Measure::BurnRate => tier.factor.to_f64(),
        Measure::Consumption => tier.factor.to_f64() * f64::from(slo.window.minutes()) / f64::from(tier.long.minutes()),
    };
    let error_ratio = burn_rate * allowed;
    let (long_s, short_s) = (tier.long.seconds() as f64, tier.short.seconds() as f64);
    let (detection_s, reset_s) = match slo.budgeting {
        Budgeting::Occurrences => (error_ratio * long_s, (1.0 - error_ratio) * short_s),
        // So many slices have to end.
        Budgeting::Timeslices(slices) => {
            let slice_s = slices.length().seconds() as f64;
            let slices = |seconds: f64| (seconds / slice_s - 1e-9).ceil().max(1.0) * slice_s;
            (slices(error_ratio * long_s), slices((1.0 - error_ratio) * short_s))
        }
    };
    let pending_s = burn.patience.pending_us / 1_000_000;
    let keep_firing_s = burn.patience.keep_firing_us / 1_000_000;
    let mut guards = Vec::new();
    if slo.guards.min_events > 0 {
        guards.push(format!("at least {} events in {}", slo.guards.min_events, tier.long));
    }
    let has_evidence = slo.guards.evidence && tier.severity == Severity::Page;
    if has_evidence {
        guards.push(format!(
            "so many bad events in {} have a probability of at most {EVIDENCE} at the target",
            tier.long
        ));
    }
    TierExplained {
        burn_tier: tier.name.to_string(),
        severity: burn.severity.to_string(),
        long_window: tier.long.to_string(),
        short_window: tier.short.to_string(),
        factor: match tier.measure {
            Measure::BurnRate => shown(tier.factor),
            Measure::Consumption => format!("{} %", shown(hundred(tier.factor))),
        },
        error_ratio,
        source: match &burn.source {
            TierSource::Workbook(fraction) => {
                format!("SRE workbook: {} % of the budget in {}", shown(hundred(*fraction)), tier.long)
            }
            TierSource::Policy(name) => format!("alert policy {name}"),
            TierSource::Consumption => {
                format!("{} % of the budget of {} in {}", shown(hundred(tier.factor)), slo.period, tier.long)
            }
        },
        adapted: burn.adapted.clone(),
        detection_s: detection_s + pending_s as f64,
        reset_s: reset_s + keep_firing_s as f64,
        pending_s,
        keep_firing_s,
        guards,
        traffic: rates.iter().map(|rate| at_rate(slo, burn, error_ratio, *rate)).collect(),
    }
}

fn at_rate(slo: &Slo, burn: &BurnTier, error_ratio: f64, events_per_hour: f64) -> TrafficExplained {
    let tier = &burn.tier;
    let rate = events_per_hour.clamp(0.0, TRAFFIC_MAX);
    let events = |seconds: u64| rate * seconds as f64 / 3_600.0;
    let threshold = |events: f64| (error_ratio * events - 1e-9).ceil().max(1.0) as u64;
    let (long, short) = (events(tier.long.seconds()), events(tier.short.seconds()));
    let allowed = slo.target.budget().to_f64();
    let model = Model { bad_per_month: events(30 * 86_400) * allowed, short: short * allowed, long: long * allowed };
    let has_evidence = slo.guards.evidence && tier.severity == Severity::Page;
    let guarded = match (slo.guards, has_evidence) {
        (Guards { min_events, .. }, _) if long < min_events as f64 => None,
        (_, true) => Some(threshold(long).max(improbable_from(model.long))),
        (_, false) => Some(threshold(long)),
    };
    let is_events = slo.budgeting == Budgeting::Occurrences;
    let keep_s = match burn.patience.keep_firing_us {
        0 => tier.short.seconds() as f64,
        micros => micros as f64 / 1e6,
    };
    let at_factor = |keep_s: f64| {
        let flapping = Flapping {
            bad_per_hour: rate * error_ratio,
            windows: [tier.short, tier.long].map(|window| window.seconds() as f64 / 3_600.0),
            thresholds: [threshold(short), threshold(long)],
            keep: keep_s / 3_600.0,
        };
        is_events.then(|| flapping.begins_per_day())
    };
    let expected = |bad: u64| is_events.then(|| model.alerts(threshold(short), bad));
    TrafficExplained {
        events_per_hour,
        bad_events: guarded.unwrap_or_else(|| threshold(long)),
        false_alerts_per_30_days: guarded.map_or(is_events.then_some(0.0), expected),
        without_guards: expected(threshold(long)),
        begins_per_day_at_factor: at_factor(0.0),
        begins_per_day_kept: at_factor(keep_s),
    }
}

/// Begins a day of an alert while bad events come at a constant rate. Windows and times are in hours.
struct Flapping {
    bad_per_hour: f64,
    windows: [f64; 2],
    thresholds: [u64; 2],
    keep: f64,
}

impl Flapping {
    /// Most bad events that are simulated.
    const EVENTS: f64 = 20_000.0;

    fn begins_per_day(&self) -> f64 {
        if self.bad_per_hour <= 0.0 {
            return 0.0;
        }
        let hours = (Self::EVENTS / self.bad_per_hour).min(24.0 * 365.0);
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        let mut held: [VecDeque<f64>; 2] = Default::default();
        let reached = |held: &[VecDeque<f64>; 2]| {
            held.iter().zip(self.thresholds).all(|(held, threshold)| held.len() as u64 >= threshold)
        };
        let (mut now, mut begins, mut burns, mut clear_since) = (0.0, 0_u64, false, f64::NEG_INFINITY);
        loop {
            now -= (1.0 - random()).ln() / self.bad_per_hour;
            if now >= hours {
                return begins as f64 / hours * 24.0;
            }
            // What has left a window by now, in order.
            while let Some((left, window)) = (0..2)
                .filter_map(|window| Some((held[window].front()? + self.windows[window], window)))
                .min_by(|a, b| a.0.total_cmp(&b.0))
                .filter(|(left, _)| *left <= now)
            {
                held[window].pop_front();
                if burns && !reached(&held) {
                    (burns, clear_since) = (false, left);
                }
            }
            held.iter_mut().for_each(|held| held.push_back(now));
            if !burns && reached(&held) {
                burns = true;
                begins += u64::from(now - clear_since >= self.keep);
            }
        }
    }
}

/// Bad events while the objective is just met: means of the two windows, and of a month.
struct Model {
    bad_per_month: f64,
    short: f64,
    long: f64,
}

impl Model {
    /// The expected number of alerts in a month, from so many bad events in each window on.
    fn alerts(&self, short: u64, long: u64) -> f64 {
        let long = long.max(short);
        let rest = self.long - self.short;
        let mut crossings = poisson(self.short, short - 1) * at_least(rest, long - short);
        // Further out there is nothing that could be seen.
        let last = (self.short + 12.0 * self.short.sqrt() + 40.0).ceil() as u64;
        for bad in short..long.min(last) {
            crossings += poisson(self.short, bad) * poisson(rest, long - 1 - bad);
        }
        self.bad_per_month * crossings
    }
}

/// The least number that a Poisson variable of this mean reaches with a probability of at most [`EVIDENCE`].
fn improbable_from(mean: f64) -> u64 {
    let mut number = mean.floor().max(0.0) as u64;
    while at_least(mean, number) > EVIDENCE {
        number += 1;
    }
    number
}

/// The probability of as many bad events among these, or more, if each is bad with probability 1 - target.
#[must_use]
pub(super) fn improbability(counts: &Counts, target: Target) -> f64 {
    let (n, p) = (counts.total(), target.budget().to_f64());
    let odds = p / (1.0 - p);
    let pmf = |k: u64| {
        let choose = ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k);
        (choose + k as f64 * p.ln() + (n - k) as f64 * (-p).ln_1p()).exp()
    };
    if (counts.bad as f64) <= n as f64 * p {
        // At least about a half.
        return 1.0;
    }
    let (mut sum, mut term) = (0.0, pmf(counts.bad));
    for k in counts.bad..=n {
        sum += term;
        term *= (n - k) as f64 / (k + 1) as f64 * odds;
        if term < sum * 1e-16 {
            break;
        }
    }
    sum
}

/// P(X = k) of a Poisson variable.
fn poisson(mean: f64, k: u64) -> f64 {
    if mean <= 0.0 {
        return if k == 0 { 1.0 } else { 0.0 };
    }
    (k as f64 * mean.ln() - mean - ln_factorial(k)).exp()
}

/// P(X >= k).
fn at_least(mean: f64, k: u64) -> f64 {
    if (k as f64) <= mean {
        // The lower tail is the shorter one.
        let first = (mean - 12.0 * mean.sqrt() - 40.0).max(0.0) as u64;
        return (1.0 - (first..k).map(|k| poisson(mean, k)).sum::<f64>()).max(0.0);
    }
    let (mut sum, mut term, mut at) = (0.0, poisson(mean, k), k);
    while term > sum * 1e-16 && term > 0.0 {
        sum += term;
        at += 1;
        term *= mean / at as f64;
    }
    sum
}

/// ln(k!): the sum for small numbers, else Stirling's series, which is exact to 1e-12 from there on.
fn ln_factorial(k: u64) -> f64 {
    if k < 32 {
        return (2..=k).map(|i| (i as f64).ln()).sum();
    }
    let n = k as f64;
    n * n.ln() - n + 0.5 * (std::f64::consts::TAU * n).ln() + 1.0 / (12.0 * n) - 1.0 / (360.0 * n.powi(3))
        + 1.0 / (1_260.0 * n.powi(5))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_those_of_a_sum() {
        assert!((ln_factorial(20) - 2_432_902_008_176_640_000_f64.ln()).abs() < 1e-12);
        let direct: f64 = (2..=500_u64).map(|i| (i as f64).ln()).sum();
        assert!((ln_factorial(500) - direct).abs() < 1e-9);
        for mean in [0.01, 1.0, 30.0, 800.0] {
            let all: f64 = (0..3_000).map(|k| poisson(mean, k)).sum();
            assert!((all - 1.0).abs() < 1e-9, "{mean}: {all}");
            for k in [0, 1, 5, 29, 31, 780, 900] {
                let upper: f64 = (k..3_000).map(|k| poisson(mean, k)).sum();
                assert!((at_least(mean, k) - upper).abs() < 1e-9, "{mean} {k}");
            }
        }
        assert!((poisson(0.0, 0) - 1.0).abs() < f64::EPSILON && poisson(0.0, 1) == 0.0);
        // 1 - e^-0.01 = 0.00995, then 5.0e-5.
        assert_eq!(improbable_from(0.01), 2);
        assert_eq!(improbable_from(0.0), 1);
    }

    /// Two windows of which one holds the other back: the other's crossings are those of the model, and keeping can only save some.
    #[test]
    fn flapping_is_that_of_the_model_and_keeping_saves_some() {
        let flapping = |keep| Flapping { bad_per_hour: 2.4, windows: [1.0, 12.0], thresholds: [2, 29], keep };
        let model = Model { bad_per_month: 2.4 * 720.0, short: 2.4, long: 28.8 };
        let (found, expected) = (flapping(0.0).begins_per_day() * 30.0, model.alerts(2, 29));
        assert!((found - expected).abs() < expected * 0.1, "{found} of {expected}");
        let kept = flapping(1.0).begins_per_day() * 30.0;
        assert!(kept > 0.0 && kept < found * 0.7, "{kept} of {found}");
    }

    /// The low traffic of the workbook: one of ten at 99.9 % is no evidence, two are.
    #[test]
    fn evidence_is_a_binomial_tail() {
        let target = Target::from_ratio("0.999").unwrap();
        let of = |bad, total| improbability(&Counts { good: total - bad, bad, ..Counts::default() }, target);
        assert!((of(1, 10) - (1.0 - 0.999_f64.powi(10))).abs() < 1e-12);
        assert!((of(10, 10) - 1e-30).abs() < 1e-36);
        assert!(of(1, 10) > EVIDENCE && of(2, 10) < EVIDENCE);
        assert!(of(0, 10) >= 1.0 && of(1, 1_000_000) >= 1.0);
        let half = Target::from_ratio("0.5").unwrap();
        let tail = improbability(&Counts { good: 4, bad: 16, ..Counts::default() }, half);
        assert!((tail - 6_196.0 / 1_048_576.0).abs() < 1e-12);
    }

    /// A clock with steps of a hundredth of the short window, and draws that are reproducible.
    #[test]
    fn false_alerts_are_as_many_as_a_simulation_has() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        for (short_mean, long_mean, short, long) in [(0.3, 3.6, 2, 8), (0.05, 0.6, 1, 3), (2.0, 24.0, 5, 36)] {
            let months = 40.0;
            let model = Model { bad_per_month: 20_000.0, short: short_mean, long: long_mean };
            // Time in units of the short window; the long one is twelve of it.
            let end = model.bad_per_month * months / short_mean;
            let (mut now, mut alerts) = (0.0, 0_u64);
            let mut bad: std::collections::VecDeque<f64> = std::collections::VecDeque::new();
            let burns = |bad: &std::collections::VecDeque<f64>, now: f64| {
                let recent = bad.iter().rev().take_while(|at| now - **at < 1.0).count() as u64;
                recent >= short && bad.len() as u64 >= long
            };
            while now < end {
                now -= (1.0 - random()).ln() / short_mean;
                while bad.front().is_some_and(|at| now - at >= 12.0) {
                    bad.pop_front();
                }
                let before = burns(&bad, now);
                bad.push_back(now);
                alerts += u64::from(!before && burns(&bad, now));
            }
            let (found, expected) = (alerts as f64 / months, model.alerts(short, long));
            assert!((found - expected).abs() < expected * 0.1, "{short_mean}: {found} of {expected}");
        }
    }
}
