//! One evaluation: from counts to burn rates, states, and what has to be said.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use toolgauge_analytics::alert::{Evaluation, History, Observation, Patience, Reason, Sources, State, Telemetry, step};
use toolgauge_analytics::budget::{Budget, Events, Measure, Ratio, Severity, Tier, burn_rate, consumption};
use toolgauge_analytics::calendar::Span;
use toolgauge_analytics::evidence::Evidence;
use toolgauge_analytics::forecast::{Pace, spent_after};
use toolgauge_analytics::ownership::Ownership;
use toolgauge_analytics::sli::Counts;
use toolgauge_analytics::timeslice::SliceCounts;
use toolgauge_analytics::window::{Minute, Window};
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::time::{MINUTE_MICROS, UnixMicros};

use super::alerts::{Alert, AlertId, Change, Decisive};
use super::definition::{Definition, Past};
use super::statement::statement;
use super::telemetry::{Arrivals, Coverage};
use super::watched::{Live, PeriodCounts, Watched};
use crate::json::rfc3339;
use crate::slo::definition::{Budgeting, BurnTier, Period, Slo};
use crate::slo::group::Group;
use crate::slo::set::CompiledSlo;

/// A service that sent nothing at all for so long has fallen silent, in microseconds.
pub const HEARTBEAT_US: i64 = 15 * MINUTE_MICROS;
/// `TelemetryStale` fires when the fastest tier of an SLO was stale for so long, in microseconds.
pub const STALE_FOR_US: i64 = 5 * MINUTE_MICROS;
/// Most groups that the statement of an alert names.
const NAMED_MAX: usize = 100;
/// The window whose burn rate is taken to go on, for the projected exhaustion.
pub(super) const PROJECTION: Window = Window::H6;
/// The window that says what the telemetry of an SLO without tiers is like.
pub(super) const UNTIERED: Window = Window::M5;

/// When an evaluation is, and over which rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// Its time: windows end in its minute. It stands while the clock is behind it.
    pub time: UnixMicros,
    /// The same, but it goes on while the clock is behind.
    pub steady: UnixMicros,
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

/// What holds back an alert that would begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldBack {
    /// The running minute does not count.
    Exclusion,
    /// The long window has too few events.
    MinEvents,
    /// So many failures may well be chance.
    Evidence,
}

impl HeldBack {
    /// Its word in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exclusion => "exclusion",
            Self::MinEvents => "min_events",
            Self::Evidence => "evidence",
        }
    }
}

/// How a tier stands.
#[derive(Debug, Clone)]
pub struct TierStatus {
    /// The tier.
    pub tier: Tier,
    /// The word of its label `severity`.
    pub severity: Arc<str>,
    /// What holds it back although both windows burn.
    pub held_back: Option<HeldBack>,
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
    /// Its windows, shortest first, each with its counts, in what the budget is counted in.
    pub windows: Vec<(Window, Counts)>,
    /// Its period so far: from its start to the end of the running minute.
    pub period: Span,
    /// When a period of the calendar ends.
    pub period_end: Option<Minute>,
    /// Over its period, in what the budget is counted in.
    pub counts: Counts,
    /// Events over its period.
    pub events: Counts,
    /// Slices of its period, and where they begin, if the budget is counted in those.
    pub slices: Option<(Span, SliceCounts)>,
    /// What the whole period of the calendar will allow, if it goes on as it was.
    pub allowed_in_period: Option<Events>,
    /// Of the events, those of rows that are not committed.
    pub provisional: u64,
    /// Its tiers, fastest first.
    pub tiers: Vec<TierStatus>,
    /// What the fastest tier could tell.
    pub evaluation: Evaluation,
    /// Of the short window of the fastest tier.
    pub coverage: f64,
    /// When the budget is used up at the present rate.
    pub projected_exhaustion: Option<UnixMicros>,
    /// Its group, if it has groups and their history is counted.
    pub group: Option<Arc<Group>>,
    /// What will answer once its history is counted.
    pub backfill: Option<Backfill>,
}

/// A history that is being counted.
#[derive(Debug, Clone, PartialEq)]
pub struct Backfill {
    /// Hash of what it counts.
    pub revision: Arc<str>,
    /// The share of the rows that are read, from 0 to 1.
    pub progress: f64,
}

impl SloStatus {
    /// What the whole period allows: of one of the calendar an estimate.
    fn allowed(&self) -> Events {
        self.allowed_in_period.unwrap_or_else(|| Budget::of(&self.counts, self.slo.slo.target).allowed)
    }

    /// Whether a window does not reach back to before the period of a calendar.
    fn is_within_period(&self, window: Window, now: Minute) -> bool {
        self.period_end.is_none() || *window.at(now).start() >= self.period.start
    }
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
    pub(super) ownership: &'a Ownership,
}

impl Round<'_> {
    /// Evaluates an SLO, or its groups, whose rings stand at the minute of the evaluation.
    pub(super) fn definition(
        &mut self,
        definition: &mut Definition,
        backfill: Option<Backfill>,
        slos: &mut Vec<SloStatus>,
    ) {
        let is_known = definition.past == Past::Known;
        let backfill = if is_known { backfill } else { Some(definition.backfill()) };
        let revision: Option<Arc<str>> = definition.revision.as_deref().map(Arc::from);
        let first = slos.len();
        let slo = Arc::clone(&definition.slo);
        let mut whole = None;
        if definition.is_grouped() && (!is_known || definition.evaluated().next().is_none()) {
            // There are none yet, or nobody knows them.
            let mut watched = Watched::new(&slo, None, Minute::of(self.at.time));
            watched.advance(Minute::of(self.at.time));
            whole = Some(watched);
        }
        let (mut heard, mut is_stale) = (Counts::default(), true);
        let all: Vec<&mut Watched> = match &mut whole {
            Some(whole) => vec![whole],
            None => definition.evaluated().collect(),
        };
        for watched in all {
            let live = std::mem::take(&mut watched.live);
            let mut status = self.evaluate(watched, &live, is_known);
            watched.live = live;
            let longest = watched.longest();
            if let Some((_, counts)) = status.windows.iter().find(|(window, _)| *window == longest)
                && counts.total() > 0
            {
                is_stale &= status.evaluation == Evaluation::Stale;
                heard += counts;
            }
            (status.revision, status.backfill) = (revision.clone(), backfill.clone());
            slos.push(status);
        }
        slos[first..].sort_by(|a, b| {
            let key = |status: &SloStatus| status.group.as_ref().map(|group| Arc::clone(group.key()));
            key(a).cmp(&key(b))
        });
        let coverage = slos.get(first).map_or(0.0, |status| status.coverage);
        self.telemetry(definition, is_known, is_stale, &heard, coverage);
    }

    /// Evaluates one SLO, or one of its groups.
    fn evaluate(&mut self, watched: &mut Watched, live: &Live, is_known: bool) -> SloStatus {
        let (slo, now) = (Arc::clone(&watched.slo), watched.ring.now());
        let windows: Vec<(Window, Counts)> =
            Arc::clone(&watched.windows).iter().map(|window| (*window, watched.over(*window, live))).collect();
        let (period, recent, untiered) =
            (watched.period(live), watched.over(PROJECTION, live), watched.over(UNTIERED, live));
        let over = |window: Window| {
            windows.iter().find(|(known, _)| *known == window).map_or_else(Counts::default, |(_, sum)| *sum)
        };
        let counts = period.counts();
        let (whole, allowed_in_period) = match slo.slo.period {
            Period::Rolling(_) => (None, None),
            Period::Calendar(calendar) => {
                let whole = calendar.period_at(now);
                let budget = Budget::of(&counts, slo.slo.target);
                (Some(whole), Some(budget.allowed_in(period.span.minutes(), whole.minutes())))
            }
        };
        let mut status = SloStatus {
            revision: None,
            group: watched.group.clone(),
            backfill: None,
            windows: Vec::new(),
            period: period.span,
            period_end: whole.map(|whole| whole.end),
            counts,
            events: period.events,
            slices: period.slices,
            allowed_in_period,
            provisional: provisional(live, period.span),
            tiers: Vec::with_capacity(slo.slo.tiers.len()),
            evaluation: Evaluation::Learning,
            coverage: 0.0,
            projected_exhaustion: None,
            slo: Arc::clone(&slo),
        };
        status.projected_exhaustion = self.exhaustion(watched, &period, &status, &recent, live);
        if slo.slo.tiers.is_empty() {
            let coverage = self.coverage(UNTIERED, now);
            status.evaluation = self.evaluation(watched, is_known, slo.slo.window, coverage, &untiered);
            status.coverage = coverage.ratio();
        }
        let is_excluded = slo.slo.is_excluded(now);
        for (index, burn_tier) in slo.slo.tiers.iter().enumerate() {
            let tier = &burn_tier.tier;
            let (long, short) = match tier.measure {
                // What was spent of the budget of the period before is another budget.
                Measure::Consumption if !status.is_within_period(tier.long, now) => (counts, counts),
                _ => (over(tier.long), over(tier.short)),
            };
            let coverage = self.coverage(tier.heard(), now);
            let evaluation = self.evaluation(watched, is_known, tier.long, coverage, &short);
            if index == 0 {
                (status.evaluation, status.coverage) = (evaluation, coverage.ratio());
            }
            let id = &watched.alert_ids[index];
            // Only what is to be said needs its text.
            let is_firing =
                self.alerts.get(&id.fingerprint).is_some_and(|alert| matches!(alert.state, State::Firing { .. }));
            let burns = tier.is_reached(&long, &short, status.allowed(), slo.slo.target);
            // What fires goes on until it no longer burns.
            let evidence = if burns { watched.evidence(tier.long, &long) } else { long };
            let held_back = if burns && !is_firing { held_back(&slo.slo, tier, &long, &evidence, now) } else { None };
            let burns = burns && held_back.is_none();
            // In minutes that do not count nothing begins and nothing ends.
            let trusted = if is_excluded { Evaluation::Stale } else { evaluation };
            let observation = Observation { evaluation: trusted, burns, long_total: long.total() };
            let group = watched.group.clone();
            let decisive = Decisive { tier: tier.clone(), long, short, slo: Arc::clone(&slo), group };
            let texts = if is_firing || burns {
                self.annotations(burn_tier, &decisive, &evidence, &status, now)
            } else {
                BTreeMap::new()
            };
            let time = self.at.time;
            let state = self.step(id, &observation, burn_tier.patience, time, Some(decisive), texts);
            let severity = Arc::clone(&burn_tier.severity);
            status.tiers.push(TierStatus { tier: tier.clone(), severity, held_back, state, evaluation });
        }
        self.mute(&watched.alert_ids, is_excluded);
        status.windows = windows;
        status
    }

    /// Alerts that fire while minutes do not count are not sent, and are sent again after them.
    fn mute(&mut self, ids: &[AlertId], muted: bool) {
        for id in ids {
            if let Some(alert) = self.alerts.get_mut(&id.fingerprint) {
                alert.muted = muted;
            }
        }
    }

    fn coverage(&mut self, window: Window, now: Minute) -> Coverage {
        let (arrivals, watermark) = (self.arrivals, self.at.watermark);
        *self.coverages.entry(window).or_insert_with(|| arrivals.coverage(window, now, watermark))
    }

    /// When the budget is used up if it burns on as in [`PROJECTION`]: that of a rolling window as what was spent rolls off, that of a calendar's
    /// period if that is before its end.
    fn exhaustion(
        &self,
        watched: &mut Watched,
        period: &PeriodCounts,
        status: &SloStatus,
        recent: &Counts,
        live: &Live,
    ) -> Option<UnixMicros> {
        let minutes = match (status.period_end, status.allowed_in_period) {
            (Some(end), Some(allowed)) => {
                let spent = Budget::of(&status.counts, status.slo.slo.target).spent;
                let minutes = i64::try_from(spent_after(spent, allowed, Pace::of(recent, PROJECTION))?).ok()?;
                (minutes < end.0 - Minute::of(self.at.time).0).then_some(minutes)?
            }
            _ => watched.exhausted_after(period, recent, live)?.into(),
        };
        Some(UnixMicros(self.at.time.0 + minutes * MINUTE_MICROS))
    }

    fn evaluation(
        &self,
        watched: &Watched,
        is_known: bool,
        long: Window,
        coverage: Coverage,
        short: &Counts,
    ) -> Evaluation {
        let heard = |last: Minute| self.at.time.0.saturating_sub(Minute(last.0 + 1).start().0) <= HEARTBEAT_US;
        let minutes = long.at(watched.ring.now());
        let mut sources = watched.fed_by.iter().filter(|(_, last)| minutes.contains(last)).peekable();
        // At full load arrivals can be committed between two evaluations, which look at live ones; the feed misses no call.
        let silent =
            |(service, last): (&String, &Minute)| !heard(*last) && !self.arrivals.last_seen(service).is_some_and(heard);
        let all_silent = sources.peek().is_some() && sources.all(silent);
        let telemetry = Telemetry {
            history: if is_known { History::Counted } else { History::Counting },
            watermark_age_us: self.at.watermark_age_us(),
            covered_minutes: coverage.covered,
            short_minutes: coverage.ended,
            sources: if all_silent { Sources::Silent } else { Sources::Alive },
        };
        telemetry.evaluation(short.total())
    }

    /// `TelemetryStale`: what was heard of within the longest tier is not heard of any more, in no group.
    fn telemetry(&mut self, definition: &Definition, is_known: bool, is_stale: bool, heard: &Counts, coverage: f64) {
        let slo = &definition.slo.slo;
        let observation = Observation {
            evaluation: match is_known {
                false => Evaluation::Learning,
                true if slo.is_excluded(Minute::of(self.at.time)) => Evaluation::Stale,
                true => Evaluation::Ok,
            },
            burns: is_stale && heard.total() > 0,
            long_total: heard.total(),
        };
        let mut texts = BTreeMap::new();
        if observation.burns {
            let summary = format!(
                "{}/{} cannot be evaluated: telemetry is missing, its alerts are frozen",
                slo.service, slo.name
            );
            texts.insert("summary".to_owned(), summary);
            texts.insert("coverage".to_owned(), format!("{coverage:.3}"));
            texts.insert("watermark".to_owned(), rfc3339(self.at.watermark));
        }
        let patience = Patience { pending_us: STALE_FOR_US, keep_firing_us: 0 };
        self.mute(std::slice::from_ref(&definition.telemetry), slo.is_excluded(Minute::of(self.at.time)));
        // A clock that was set back is a reason to tell it, and must not hold it up.
        self.step(&definition.telemetry, &observation, patience, self.at.steady, None, texts);
    }

    /// Takes an alert to its next state and notes the change.
    fn step(
        &mut self,
        id: &AlertId,
        observation: &Observation,
        patience: Patience,
        time: UnixMicros,
        decisive: Option<Decisive>,
        annotations: BTreeMap<String, String>,
    ) -> State {
        let before = self.alerts.get(&id.fingerprint).map_or(State::Inactive, |alert| alert.state);
        let (state, transition) = step(before, observation, patience, time);
        if let Some(transition) = transition {
            let reason = transition.reason.as_str();
            self.change(
                id,
                time,
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
        time: UnixMicros,
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
            muted: false,
            last_sent: None,
        });
        let keeps_firing = from.is_firing() && to.is_firing();
        if to.is_firing() && !keeps_firing {
            alert.findings.clear();
        }
        if !annotations.is_empty() {
            alert.annotations = annotations;
        }
        (alert.state, alert.change) = (to, number);
        // What has changed is sent as soon as it is committed.
        if !keeps_firing {
            alert.last_sent = None;
        }
        let annotations =
            alert.annotations.iter().chain(&alert.findings).map(|(name, text)| (name.clone(), text.clone()));
        let annotations = annotations.collect();
        if to == State::Inactive {
            self.alerts.remove(&id.fingerprint);
        }
        self.changes.push(Change {
            number,
            id: id.clone(),
            time,
            position: self.at.position,
            from,
            to,
            reason,
            evaluation,
            decisive,
            annotations,
        });
    }

    /// Ends alerts whose SLO is gone. If files are broken of which nothing is in force, it may be theirs: then those that fire go on as they are.
    pub(super) fn end_orphans(&mut self, is_partial: bool, is_known: impl Fn(&AlertId) -> bool) {
        let orphans: Vec<(AlertId, State)> = self
            .alerts
            .values()
            .filter(|alert| !is_known(&alert.id))
            .map(|alert| (alert.id.clone(), alert.state))
            .collect();
        for (id, state) in orphans {
            let time = self.at.time;
            match state {
                State::Firing { .. } | State::Pending { .. } if is_partial => {}
                State::Firing { starts_at, .. } => {
                    let to = State::Resolved { starts_at, ends_at: time.max(starts_at) };
                    self.change(&id, time, state, to, "removed", None, None, BTreeMap::new());
                }
                State::Pending { .. } => {
                    self.change(&id, time, state, State::Inactive, "removed", None, None, BTreeMap::new())
                }
                State::Resolved { .. } | State::Inactive => {
                    let nothing = Observation { evaluation: Evaluation::Ok, burns: false, long_total: 0 };
                    self.step(&id, &nothing, Patience::default(), time, None, BTreeMap::new());
                }
            }
        }
    }

    fn annotations(
        &self,
        burn_tier: &BurnTier,
        decisive: &Decisive,
        evidence: &Counts,
        status: &SloStatus,
        now: Minute,
    ) -> BTreeMap<String, String> {
        let (slo, counts) = (&decisive.slo.slo, &status.counts);
        let Decisive { tier, long, short, group, .. } = decisive;
        let rate = |counts: &Counts| {
            burn_rate(counts, slo.target).map_or("none".to_owned(), |rate| format!("{:.2}", rate.to_f64()))
        };
        let budget = Budget::of(counts, slo.target);
        let left = budget.remaining_ratio().map_or("unknown".to_owned(), |ratio| format!("{:.1} %", ratio * 100.0));
        let what = match slo.budgeting {
            Budgeting::Occurrences => "",
            Budgeting::Timeslices(_) => " slices",
        };
        let of_budget = status.slices.map_or(status.period, |(slices, _)| slices);
        let minutes = |window: Window| match slo.budgeting {
            _ if tier.measure == Measure::Consumption && !status.is_within_period(window, now) => of_budget,
            Budgeting::Occurrences => Span { start: *window.at(now).start(), end: Minute(now.0 + 1) },
            Budgeting::Timeslices(slices) => slices.window_at(window, now),
        };
        let of_group = group.as_ref().map_or(String::new(), |group| {
            let values = group.values().into_iter().map(|(column, value)| format!("{column} {value:?}"));
            format!(" ({})", values.collect::<Vec<_>>().join(", "))
        });
        let condition = group.as_ref().map_or(String::new(), |group| group.condition(NAMED_MAX));
        let sql = |minutes: Span| statement(slo, &condition, minutes, Some(self.at.position));
        let percent = |ratio: Ratio| format!("{:.1} %", ratio.to_f64() * 100.0);
        let consumed = consumption(long, status.allowed(), slo.target).filter(|_| tier.measure == Measure::Consumption);
        let summary = match consumed {
            Some(part) => format!(
                "{}/{}{of_group} has spent {} of its error budget of {} in {}: {}{what} failed; {left} is left",
                slo.service,
                slo.name,
                percent(part),
                slo.period,
                tier.long,
                failed(long),
            ),
            None => format!(
                "{}/{}{of_group} burns its error budget {} times as fast as allowed over {}: {}{what} failed; {} of the budget of {} is left",
                slo.service,
                slo.name,
                rate(long),
                tier.long,
                failed(long),
                left,
                slo.period
            ),
        };
        let texts = [
            ("budget_allowed", budget.allowed.to_string()),
            ("budget_remaining", budget.remaining.to_string()),
            ("budget_remaining_ratio", left),
            ("budget_spent", budget.spent.to_string()),
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
            ("sql", sql(minutes(tier.long))),
            ("sql_budget", sql(of_budget)),
            ("sql_short", sql(minutes(tier.short))),
            ("summary", summary),
            ("target", slo.target.to_string()),
            (
                "threshold",
                match tier.measure {
                    Measure::BurnRate => format!("{:.2}", tier.factor.to_f64()),
                    Measure::Consumption => percent(tier.factor),
                },
            ),
        ];
        let mut texts: BTreeMap<String, String> =
            texts.into_iter().map(|(name, text)| (name.to_owned(), text)).collect();
        texts.extend(consumed.map(|part| ("consumed".to_owned(), percent(part))));
        for (name, counts) in [("long", long), ("short", short)].into_iter().filter(|(_, counts)| counts.is_sampled()) {
            let (bad, total) = weights(counts);
            texts.insert(format!("{name}_bad_weighted"), bad);
            texts.insert(format!("{name}_total_weighted"), total);
        }
        let fixed = |column| {
            let value = group.as_ref().and_then(|group| group.value(column));
            value.or_else(|| decisive.slo.sli.fixed_value(column))
        };
        let service = fixed("service_name").unwrap_or(&slo.service);
        if let Some(owner) = self.ownership.owner(Some(service), fixed("tool_server"), fixed("tool_name")) {
            texts.insert("team".to_owned(), owner.team.clone());
            let more = [
                ("criticality", owner.criticality.map(|it| it.as_str().to_owned())),
                ("runbook_url", owner.runbook.clone()),
            ];
            texts.extend(more.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?))));
        }
        if let Some(description) = &slo.description {
            texts.insert("description".to_owned(), description.clone());
        }
        if let Some(time) = status.projected_exhaustion {
            texts.insert("projected_exhaustion".to_owned(), rfc3339(time));
        }
        if !burn_tier.targets.is_empty() {
            texts.insert("notification_targets".to_owned(), burn_tier.targets.join(", "));
        }
        if let (true, Evidence::Improbable(bound)) =
            (slo.guards.evidence, Evidence::of(evidence.bad, evidence.total(), slo.target))
        {
            let text = format!(
                "so many failures ({} of {}) have a probability of at most {bound:.0e} in a window of a service that meets its objective just so",
                evidence.bad,
                evidence.total()
            );
            texts.insert("evidence".to_owned(), text);
        }
        texts
    }
}

/// How many of how many; if they are a sample, also how many they stand for, which is what burns the budget.
fn failed(counts: &Counts) -> String {
    let known = format!("{} of {}", counts.bad, counts.total());
    if !counts.is_sampled() {
        return known;
    }
    let (bad, total) = weights(counts);
    format!("{bad} of {total}, by the weights of a sample ({known}),")
}

/// What the bad and all events of a sample stand for.
fn weights(counts: &Counts) -> (String, String) {
    let (bad, total) = counts.spending();
    let text = |millionths: u128| {
        let text = format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    (text(bad), text(total))
}

/// What keeps a tier that burns from firing.
fn held_back(slo: &Slo, tier: &Tier, long: &Counts, evidence: &Counts, now: Minute) -> Option<HeldBack> {
    let needs_evidence = slo.guards.evidence && tier.severity == Severity::Page;
    if slo.is_excluded(now) {
        Some(HeldBack::Exclusion)
    } else if long.total() < slo.guards.min_events {
        Some(HeldBack::MinEvents)
    } else if needs_evidence && !Evidence::of(evidence.bad, evidence.total(), slo.target).is_improbable() {
        Some(HeldBack::Evidence)
    } else {
        None
    }
}

fn provisional(live: &Live, span: Span) -> u64 {
    live.iter().filter(|(minute, _)| span.contains(**minute)).map(|(_, counts)| counts.total()).sum()
}
