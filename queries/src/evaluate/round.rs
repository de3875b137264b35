//! One evaluation: from counts to burn rates, states, and what has to be said.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use toolgauge_analytics::alert::{Evaluation, History, Observation, Patience, Reason, Sources, State, Telemetry, step};
use toolgauge_analytics::budget::{Budget, Tier, burn_rate};
use toolgauge_analytics::sli::Counts;
use toolgauge_analytics::window::{Minute, Window};
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::time::{MINUTE_MICROS, UnixMicros};

use super::alerts::{Alert, AlertId, Change, Decisive};
use super::telemetry::{Arrivals, Coverage};
use super::watched::{Past, Watched};
use crate::json::rfc3339;
use crate::slo::set::CompiledSlo;
use crate::slo::sql::{Span, recount};

/// A service that sent nothing at all for so long has fallen silent, in microseconds.
pub const HEARTBEAT_US: i64 = 15 * MINUTE_MICROS;
/// `TelemetryStale` fires when the fastest tier of an SLO was stale for so long, in microseconds.
pub const STALE_FOR_US: i64 = 5 * MINUTE_MICROS;
/// The window whose burn rate is taken to go on, for the projected exhaustion.
const PROJECTION: Window = Window::H6;

/// When an evaluation is, and over which rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// Its time: windows end in its minute.
    pub time: UnixMicros,
    /// Rows up to here are counted.
    pub position: WalPosition,
    /// Receive time up to which every acknowledged row is counted.
    pub watermark: UnixMicros,
    /// How far the clock is behind the time of the evaluation or the watermark, in microseconds; it is when it was set back.
    pub clock_behind_us: i64,
}

impl At {
    /// The age of the newest of what is known; a clock that was set back makes it as old as it is wrong.
    fn watermark_age_us(&self) -> i64 {
        self.time.0.saturating_sub(self.watermark.0).max(self.clock_behind_us)
    }
}

/// How a tier stands.
#[derive(Debug, Clone)]
pub struct TierStatus {
    /// The tier.
    pub tier: Tier,
    /// Its state.
    pub state: State,
    /// What it could tell.
    pub evaluation: Evaluation,
}

/// How an SLO stands.
#[derive(Debug, Clone)]
pub struct SloStatus {
    /// The definition.
    pub slo: Arc<CompiledSlo>,
    /// See `slo_revision` in the table `slo_1m`.
    pub revision: Option<Arc<str>>,
    /// Its windows, shortest first, each with its counts.
    pub windows: Vec<(Window, Counts)>,
    /// Over its own window.
    pub counts: Counts,
    /// Of these, events of rows that are not committed.
    pub provisional: u64,
    /// Its tiers, fastest first.
    pub tiers: Vec<TierStatus>,
    /// What the fastest tier could tell.
    pub evaluation: Evaluation,
    /// Of the short window of the fastest tier.
    pub coverage: f64,
    /// When the budget is used up at the present rate.
    pub projected_exhaustion: Option<UnixMicros>,
}

/// Alerts that are not inactive, by fingerprint.
pub(super) type Alerts = BTreeMap<Arc<str>, Alert>;

/// What an evaluation needs besides the SLO.
pub(super) struct Round<'a> {
    pub(super) at: At,
    pub(super) arrivals: &'a Arrivals,
    /// Of the windows that were asked for in this round.
    pub(super) coverages: HashMap<Window, Coverage>,
    pub(super) alerts: &'a mut Alerts,
    pub(super) changes: &'a mut Vec<Change>,
    /// The number of the next change.
    pub(super) next_change: &'a mut u64,
}

impl Round<'_> {
    /// Evaluates one SLO, whose ring stands at the minute of the evaluation.
    pub(super) fn evaluate(&mut self, watched: &Watched, live: &HashMap<Minute, Counts>) -> SloStatus {
        let windows: Vec<(Window, Counts)> =
            watched.windows.iter().map(|window| (*window, watched.sum(*window, live))).collect();
        let over = |window: Window| {
            windows.iter().find(|(known, _)| *known == window).map_or_else(Counts::default, |(_, sum)| *sum)
        };
        let counts = over(watched.slo.slo.window);
        let now = watched.ring.now();
        let mut status = SloStatus {
            slo: Arc::clone(&watched.slo),
            revision: watched.revision.as_deref().map(Arc::from),
            counts,
            provisional: provisional(live, watched.slo.slo.window, now),
            tiers: Vec::with_capacity(watched.tiers.len()),
            evaluation: Evaluation::Learning,
            coverage: 0.0,
            projected_exhaustion: self.exhaustion(watched, &counts, &over(PROJECTION)),
            windows: Vec::new(),
        };
        for (index, tier) in watched.tiers.iter().enumerate() {
            let (long, short) = (over(tier.long), over(tier.short));
            let (arrivals, watermark) = (self.arrivals, self.at.watermark);
            let coverage =
                *self.coverages.entry(tier.short).or_insert_with(|| arrivals.coverage(tier.short, now, watermark));
            let evaluation = self.evaluation(watched, tier, coverage, &short);
            if index == 0 {
                (status.evaluation, status.coverage) = (evaluation, coverage.ratio());
            }
            let burns = tier.burns(&long, &short, watched.slo.slo.target);
            let observation = Observation { evaluation, burns, long_total: long.total() };
            let decisive = Decisive { tier: tier.clone(), long, short, slo: Arc::clone(&watched.slo) };
            let annotations = || self.annotations(watched, &decisive, &counts, status.projected_exhaustion);
            let id = &watched.alert_ids[index];
            // Only what is to be said needs its text.
            let known =
                self.alerts.get(&id.fingerprint).is_some_and(|alert| matches!(alert.state, State::Firing { .. }));
            let texts = if known || burns { annotations() } else { BTreeMap::new() };
            let state = self.step(id, &observation, Patience::default(), Some(decisive.clone()), texts);
            status.tiers.push(TierStatus { tier: tier.clone(), state, evaluation });
        }
        self.telemetry(watched, &status, &over(watched.tiers.last().map_or(watched.slo.slo.window, |tier| tier.long)));
        status.windows = windows;
        status
    }

    fn exhaustion(&self, watched: &Watched, counts: &Counts, recent: &Counts) -> Option<UnixMicros> {
        let (slo, target) = (&watched.slo.slo, watched.slo.slo.target);
        let minutes = Budget::of(counts, target).exhausted_in_minutes(slo.window, burn_rate(recent, target)?)?;
        // As a double it is no more exact than to the minute; a thousand years are never.
        (minutes < 525_600_000.0).then(|| UnixMicros(self.at.time.0 + minutes as i64 * MINUTE_MICROS))
    }

    fn evaluation(&self, watched: &Watched, tier: &Tier, coverage: Coverage, short: &Counts) -> Evaluation {
        let silent = |service: &String| {
            self.arrivals
                .last_seen(service)
                .is_none_or(|last| self.at.time.0.saturating_sub(Minute(last.0 + 1).start().0) > HEARTBEAT_US)
        };
        let minutes = tier.long.at(watched.ring.now());
        let mut sources =
            watched.fed_by.iter().filter(|(_, last)| minutes.contains(last)).map(|(service, _)| service).peekable();
        let all_silent = sources.peek().is_some() && sources.all(silent);
        let telemetry = Telemetry {
            history: if watched.past == Past::Known { History::Counted } else { History::Counting },
            watermark_age_us: self.at.watermark_age_us(),
            covered_minutes: coverage.covered,
            short_minutes: coverage.ended,
            sources: if all_silent { Sources::Silent } else { Sources::Alive },
        };
        telemetry.evaluation(short.total())
    }

    /// `TelemetryStale`: what was heard of within the longest tier is not heard of any more.
    fn telemetry(&mut self, watched: &Watched, status: &SloStatus, longest: &Counts) {
        let Some(id) = watched.alert_ids.last() else { return };
        let observation = Observation {
            evaluation: if status.evaluation == Evaluation::Learning { Evaluation::Learning } else { Evaluation::Ok },
            burns: status.evaluation == Evaluation::Stale && longest.total() > 0,
            long_total: longest.total(),
        };
        let mut texts = BTreeMap::new();
        if observation.burns {
            let summary = format!(
                "{}/{} cannot be evaluated: telemetry is missing, its alerts are frozen",
                watched.slo.slo.service, watched.slo.slo.name
            );
            texts.insert("summary".to_owned(), summary);
            texts.insert("coverage".to_owned(), format!("{:.3}", status.coverage));
            texts.insert("watermark".to_owned(), rfc3339(self.at.watermark));
        }
        let patience = Patience { pending_us: STALE_FOR_US, keep_firing_us: 0 };
        self.step(id, &observation, patience, None, texts);
    }

    /// Takes an alert to its next state and notes the change.
    fn step(
        &mut self,
        id: &AlertId,
        observation: &Observation,
        patience: Patience,
        decisive: Option<Decisive>,
        annotations: BTreeMap<String, String>,
    ) -> State {
        let before = self.alerts.get(&id.fingerprint).map_or(State::Inactive, |alert| alert.state);
        let (state, transition) = step(before, observation, patience, self.at.time);
        if let Some(transition) = transition {
            let reason = transition.reason.as_str();
            self.change(
                id,
                transition.from,
                transition.to,
                reason,
                Some(observation.evaluation),
                decisive,
                annotations,
            );
            if transition.reason == Reason::Expired {
                self.alerts.remove(&id.fingerprint);
            }
        } else if let Some(alert) = self.alerts.get_mut(&id.fingerprint) {
            alert.state = state;
            if !annotations.is_empty() {
                alert.annotations = annotations;
            }
        }
        state
    }

    #[expect(clippy::too_many_arguments, reason = "all of them stand in the row")]
    fn change(
        &mut self,
        id: &AlertId,
        from: State,
        to: State,
        reason: &'static str,
        evaluation: Option<Evaluation>,
        decisive: Option<Decisive>,
        annotations: BTreeMap<String, String>,
    ) {
        let number = *self.next_change;
        *self.next_change += 1;
        let alert = self.alerts.entry(Arc::clone(&id.fingerprint)).or_insert_with(|| Alert {
            id: id.clone(),
            state: from,
            annotations: BTreeMap::new(),
            findings: BTreeMap::new(),
            change: number,
            last_sent: None,
        });
        if matches!(to, State::Firing { .. }) {
            alert.findings.clear();
        }
        if !annotations.is_empty() {
            alert.annotations = annotations;
        }
        // What has changed is sent as soon as it is committed.
        (alert.state, alert.change, alert.last_sent) = (to, number, None);
        let annotations =
            alert.annotations.iter().chain(&alert.findings).map(|(name, text)| (name.clone(), text.clone()));
        let annotations = annotations.collect();
        if to == State::Inactive {
            self.alerts.remove(&id.fingerprint);
        }
        self.changes.push(Change {
            number,
            id: id.clone(),
            time: self.at.time,
            position: self.at.position,
            from,
            to,
            reason,
            evaluation,
            decisive,
            annotations,
        });
    }

    /// Ends alerts whose SLO is gone.
    pub(super) fn end_orphans(&mut self, is_known: impl Fn(&str) -> bool) {
        let orphans: Vec<(AlertId, State)> = self
            .alerts
            .values()
            .filter(|alert| !is_known(&alert.id.fingerprint))
            .map(|alert| (alert.id.clone(), alert.state))
            .collect();
        for (id, state) in orphans {
            let time = self.at.time;
            match state {
                State::Firing { starts_at, .. } => {
                    let to = State::Resolved { starts_at, ends_at: time.max(starts_at) };
                    self.change(&id, state, to, "removed", None, None, BTreeMap::new());
                }
                State::Pending { .. } => {
                    self.change(&id, state, State::Inactive, "removed", None, None, BTreeMap::new())
                }
                State::Resolved { .. } | State::Inactive => {
                    let nothing = Observation { evaluation: Evaluation::Ok, burns: false, long_total: 0 };
                    self.step(&id, &nothing, Patience::default(), None, BTreeMap::new());
                }
            }
        }
    }

    fn annotations(
        &self,
        watched: &Watched,
        decisive: &Decisive,
        counts: &Counts,
        exhaustion: Option<UnixMicros>,
    ) -> BTreeMap<String, String> {
        let slo = &watched.slo.slo;
        let Decisive { tier, long, short, .. } = decisive;
        let rate = |counts: &Counts| {
            burn_rate(counts, slo.target).map_or("none".to_owned(), |rate| format!("{:.2}", rate.to_f64()))
        };
        let budget = Budget::of(counts, slo.target);
        let left = budget.remaining_ratio().map_or("unknown".to_owned(), |ratio| format!("{:.1} %", ratio * 100.0));
        let minutes = tier.long.at(watched.ring.now());
        let span = Span {
            from: minutes.start().start(),
            to: Minute(minutes.end().0 + 1).start(),
            position: Some(self.at.position),
        };
        let summary = format!(
            "{}/{} burns its error budget {} times as fast as allowed over {}: {} of {} failed; {} of the budget of {} is left",
            slo.service,
            slo.name,
            rate(long),
            tier.long,
            long.bad,
            long.total(),
            left,
            slo.window
        );
        let texts = [
            ("budget_allowed", budget.allowed.to_string()),
            ("budget_remaining", budget.remaining.to_string()),
            ("budget_remaining_ratio", left),
            ("budget_spent", counts.bad.to_string()),
            ("evaluated_at", rfc3339(self.at.time)),
            ("log_position", self.at.position.to_string()),
            ("long_bad", long.bad.to_string()),
            ("long_burn_rate", rate(long)),
            ("long_total", long.total().to_string()),
            ("long_window", tier.long.to_string()),
            ("short_bad", short.bad.to_string()),
            ("short_burn_rate", rate(short)),
            ("short_total", short.total().to_string()),
            ("short_window", tier.short.to_string()),
            ("sql", recount(&slo.sli, &span)),
            ("summary", summary),
            ("target", slo.target.to_string()),
            ("threshold", format!("{:.2}", tier.factor.to_f64())),
        ];
        let mut texts: BTreeMap<String, String> =
            texts.into_iter().map(|(name, text)| (name.to_owned(), text)).collect();
        if let Some(description) = &slo.description {
            texts.insert("description".to_owned(), description.clone());
        }
        if let Some(time) = exhaustion {
            texts.insert("projected_exhaustion".to_owned(), rfc3339(time));
        }
        texts
    }
}

fn provisional(live: &HashMap<Minute, Counts>, window: Window, now: Minute) -> u64 {
    let minutes = window.at(now);
    live.iter().filter(|(minute, _)| minutes.contains(minute)).map(|(_, counts)| counts.total()).sum()
}
