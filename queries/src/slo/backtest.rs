//! What an SLO's alerts would have done: replays the state machine over counts by the minute.
//!
//! It evaluates once at the end of each minute, with all of the minute's events, however late they came, and takes telemetry as complete. So an alert
//! that was evaluated live is the same, but for seconds, unless data came late or was missing.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use toolgauge_analytics::alert::{Evaluation, Observation, State, step};
use toolgauge_analytics::budget::{Budget, Measure, Severity, burn_rate};
use toolgauge_analytics::calendar::Span;
use toolgauge_analytics::sli::Counts;
use toolgauge_analytics::timeslice::Judged;
use toolgauge_analytics::window::{Minute, MinuteRing, Window};
use toolgauge_proto::time::UnixMicros;

use super::definition::{Budgeting, Period, Slo};
use super::explain::{EVIDENCE, improbability};
use crate::json::rfc3339;

/// One time that an alert fired.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Episode {
    /// The label `burn_tier`.
    pub burn_tier: String,
    /// The label `severity`.
    pub severity: String,
    /// When it began.
    pub starts_at: String,
    /// When it ended; none if it fires at the end of the time.
    pub ends_at: Option<String>,
    /// How long it fired, in minutes.
    pub minutes: i64,
    /// Bad events, or slices, of the long window when it began.
    pub bad: u64,
    /// All of them.
    pub total: u64,
    /// The highest burn rate of the long window while it fired.
    pub peak_burn_rate: f64,
}

/// What came of a replay.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Backtest {
    /// The service.
    pub service: String,
    /// The SLO.
    pub slo: String,
    /// The values of its group.
    pub group: BTreeMap<String, String>,
    /// First instant.
    pub from: String,
    /// The instant after the last.
    pub to: String,
    /// Good events, or slices, of that time.
    pub good: u64,
    /// Bad ones.
    pub bad: u64,
    /// Remaining / allowed of a budget over that time.
    pub budget_remaining_ratio: Option<f64>,
    /// In order of their begin.
    pub episodes: Vec<Episode>,
    /// Minutes in which a tier burnt and a guard held it back, by guard.
    pub held_back_minutes: BTreeMap<&'static str, u64>,
}

/// How a tier stands.
struct Running {
    state: State,
    episode: Option<(Minute, Counts, f64)>,
}

/// How far back before a minute counts are looked at.
#[must_use]
pub fn reach(slo: &Slo) -> Window {
    let longest = slo.tiers.iter().map(|tier| tier.tier.long).max().unwrap_or(Window::M5);
    let consumes = slo.tiers.iter().any(|tier| tier.tier.measure == Measure::Consumption);
    let period = match slo.period {
        Period::Rolling(window) => window,
        Period::Calendar(calendar) => calendar.longest(),
    };
    if consumes { longest.max(period) } else { longest }
}

/// Replays the alerts of an SLO over `[span.start, span.end)`. Windows reach back to before the span, as far as `minutes` does.
#[must_use]
pub fn replay(slo: &Slo, group: BTreeMap<String, String>, minutes: &BTreeMap<Minute, Counts>, span: Span) -> Backtest {
    let windows: Vec<Window> = slo.tiers.iter().flat_map(|tier| [tier.tier.short, tier.tier.long]).collect();
    let longest = reach(slo);
    let slice = match slo.budgeting {
        Budgeting::Occurrences => None,
        Budgeting::Timeslices(slices) => Some(slices),
    };
    let held = slice.map_or(longest, |slices| Window::from_minutes(longest.minutes() + 2 * slices.length().minutes()));
    let windows: Arc<[Window]> = windows.into_iter().chain([held]).collect();
    let mut judged = slice.map(Judged::new);
    let first = Minute(span.start.0 - i64::from(held.minutes()));
    let mut ring = MinuteRing::new(Arc::clone(&windows), Minute(first.0 - 1));
    let mut running: Vec<Running> =
        slo.tiers.iter().map(|_| Running { state: State::Inactive, episode: None }).collect();
    let mut found = Vec::new();
    let mut held_back: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut events = minutes.range(first..span.end).filter(|(minute, _)| !slo.is_excluded(**minute)).peekable();
    for minute in (first.0..span.end.0).map(Minute) {
        ring.advance(minute);
        while let Some((at, counts)) = events.next_if(|(at, _)| **at <= minute) {
            ring.add(*at, counts);
        }
        if minute < span.start {
            continue;
        }
        // The end of the minute.
        let now = UnixMicros(Minute(minute.0 + 1).start().0);
        // Counts of a slice that has ended do not change any more.
        if let (Some(slices), Some(judged)) = (slice, &mut judged) {
            let new = judged.go_to(slices.window_at(longest, Minute(minute.0 + 1)));
            for (start, verdict) in slices.verdicts(ring.minutes(new.start..=Minute(new.end.0 - 1)), new) {
                judged.judge(start, verdict);
            }
        }
        let sliced = slice.zip(judged.as_ref());
        let over = |span: Span| match sliced {
            None => ring.sum_of(span.start..=Minute(span.end.0 - 1)),
            Some((_, judged)) => judged.tally(span).counts(),
        };
        let window = |window: Window| match sliced {
            None => Span { start: *window.at(minute).start(), end: Minute(minute.0 + 1) },
            Some((slices, _)) => slices.window_at(window, Minute(minute.0 + 1)),
        };
        let consumes = slo.tiers.iter().any(|tier| tier.tier.measure == Measure::Consumption);
        let period = consumes.then(|| match slo.period {
            Period::Rolling(period) => (window(period), None),
            Period::Calendar(calendar) => {
                let whole = calendar.period_at(minute);
                let so_far = Span { end: Minute(minute.0 + 1), ..whole };
                (sliced.map_or(so_far, |(slices, _)| slices.ended(so_far, Minute(minute.0 + 1))), Some(whole))
            }
        });
        let allowed = period.map(|(span, whole)| {
            let budget = Budget::of(&over(span), slo.target);
            let elapsed = minute.0.abs_diff(span.start.0) + 1;
            whole.map_or(budget.allowed, |whole| budget.allowed_in(elapsed, whole.minutes()))
        });
        for (place, (tier, running)) in slo.tiers.iter().zip(&mut running).enumerate() {
            let (short, long) = match (tier.tier.measure, period) {
                (Measure::Consumption, Some((span, Some(_)))) if window(tier.tier.long).start < span.start => {
                    (over(span), over(span))
                }
                _ if sliced.is_none() => (ring.sum(2 * place), ring.sum(2 * place + 1)),
                _ => (over(window(tier.tier.short)), over(window(tier.tier.long))),
            };
            let burns = tier.tier.is_reached(&long, &short, allowed.unwrap_or_default(), slo.target);
            // What fires goes on until it no longer burns.
            let is_firing = matches!(running.state, State::Firing { .. });
            let guard = if burns && !is_firing { guard(slo, tier.tier.severity, &long, minute) } else { None };
            if let Some(guard) = guard {
                *held_back.entry(guard).or_default() += 1;
            }
            let burns = burns && guard.is_none();
            let evaluation = if short.total() == 0 { Evaluation::Idle } else { Evaluation::Ok };
            let observation = Observation { evaluation, burns, long_total: long.total() };
            let (state, _) = step(running.state, &observation, tier.patience, now);
            running.state = state;
            let rate = burn_rate(&long, slo.target).map_or(0.0, |rate| rate.to_f64());
            match (state, &mut running.episode) {
                (State::Firing { .. }, Some((_, _, peak))) => *peak = peak.max(rate),
                (State::Firing { .. }, episode @ None) => *episode = Some((Minute(minute.0 + 1), long, rate)),
                (_, episode @ Some(_)) => {
                    found.extend(episode.take().map(|began| ended(tier, began, Some(Minute(minute.0 + 1)), span)));
                }
                (_, None) => {}
            }
        }
    }
    for (tier, running) in slo.tiers.iter().zip(&mut running) {
        found.extend(running.episode.take().map(|began| ended(tier, began, None, span)));
    }
    found.sort_by(|a, b| (&a.starts_at, &a.burn_tier).cmp(&(&b.starts_at, &b.burn_tier)));
    let counted = minutes.range(span.start..span.end).filter(|(minute, _)| !slo.is_excluded(**minute));
    let counts = match slice {
        None => counted.fold(Counts::default(), |mut sum, (_, counts)| {
            sum += counts;
            sum
        }),
        Some(slices) => slices.tally(counted.map(|(minute, counts)| (*minute, *counts)), span).counts(),
    };
    Backtest {
        service: slo.service.clone(),
        slo: slo.name.clone(),
        group,
        from: rfc3339(span.start.start()),
        to: rfc3339(span.end.start()),
        good: counts.good,
        bad: counts.bad,
        budget_remaining_ratio: Budget::of(&counts, slo.target).remaining_ratio(),
        episodes: found,
        held_back_minutes: held_back,
    }
}

/// What keeps a tier that burns from firing.
fn guard(slo: &Slo, severity: Severity, long: &Counts, minute: Minute) -> Option<&'static str> {
    if slo.is_excluded(minute) {
        Some("exclusion")
    } else if long.total() < slo.guards.min_events {
        Some("min-events")
    } else if slo.guards.evidence && severity == Severity::Page && improbability(long, slo.target) > EVIDENCE {
        Some("evidence")
    } else {
        None
    }
}

fn ended(
    tier: &super::definition::BurnTier,
    (began, long, peak): (Minute, Counts, f64),
    end: Option<Minute>,
    span: Span,
) -> Episode {
    Episode {
        burn_tier: tier.tier.name.to_string(),
        severity: tier.severity.to_string(),
        starts_at: rfc3339(began.start()),
        ends_at: end.map(|end| rfc3339(end.start())),
        minutes: end.unwrap_or(span.end).0 - began.0,
        bad: long.bad,
        total: long.total(),
        peak_burn_rate: peak,
    }
}

#[cfg(test)]
mod tests;
