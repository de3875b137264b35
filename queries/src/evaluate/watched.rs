//! One SLO, or one of its groups, as it is watched: its counts by the minute, its tiers, and what has not been written down yet.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use toolgauge_analytics::budget::Severity;
use toolgauge_analytics::calendar::Span;
use toolgauge_analytics::forecast::{Pace, Rolling};
use toolgauge_analytics::sli::Counts;
use toolgauge_analytics::timeslice::{Judged, SliceCounts, Slices};
use toolgauge_analytics::window::{Minute, MinuteRing, Window};

use super::alerts::AlertId;
use super::definition::{Loose, Past};
use super::round::{PROJECTION, UNTIERED};
use crate::slo::definition::{Budgeting, Mode, Period, Slo};
use crate::slo::group::Group;
use crate::slo::set::CompiledSlo;

/// Most services that are remembered of an SLO.
const SERVICES_MAX: usize = 1_000;

/// One SLO, or one of its groups.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) slo: Arc<CompiledSlo>,
    pub(super) group: Option<Arc<Group>>,
    /// The windows of the tiers, and the SLO's own if it rolls, shortest first.
    pub(super) windows: Arc<[Window]>,
    /// It has sums over these windows and some more.
    pub(super) ring: MinuteRing,
    /// The verdicts of its slices, if the budget is counted in those.
    verdicts: Option<Verdicts>,
    /// When its budget will be used up, as of a minute.
    forecast: Option<(Minute, Option<u32>)>,
    /// Its events as logical calls, if it counts attempts and pages need evidence: over the long windows of its pages.
    logical: Option<MinuteRing>,
    /// The same of the live rows of this evaluation.
    pub(super) live_logical: Live,
    /// Of the live rows, as of the last evaluation.
    pub(super) live: Live,
    /// What has not been written to `slo_1m` yet.
    pub(super) pending: HashMap<Minute, Counts>,
    /// The services of its events, with the last minute of each.
    pub(super) fed_by: HashMap<String, Minute>,
    /// Of each tier.
    pub(super) alert_ids: Vec<AlertId>,
}

/// The slices of an SLO.
#[derive(Debug)]
struct Verdicts {
    slices: Slices,
    judged: Judged,
    /// Those of which counts have changed since they were judged, or which have live rows.
    open: BTreeSet<Minute>,
    /// Whether the history was counted when they were judged.
    past: Past,
}

impl Verdicts {
    fn of(slo: &Slo) -> Option<Self> {
        match slo.budgeting {
            Budgeting::Occurrences => None,
            Budgeting::Timeslices(slices) => {
                Some(Self { slices, judged: Judged::new(slices), open: BTreeSet::new(), past: Past::Waiting })
            }
        }
    }

    /// Notes that the counts of a minute have changed.
    fn open(&mut self, minute: Minute) {
        let start = self.slices.start_of(minute);
        if self.judged.has(start) {
            self.open.insert(start);
        }
    }
}

/// What an SLO's budget is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct PeriodCounts {
    /// From its start to the running minute.
    pub(super) span: Span,
    /// Events.
    pub(super) events: Counts,
    /// The slices that have ended, and where they begin, if the budget is counted in those.
    pub(super) slices: Option<(Span, SliceCounts)>,
}

impl PeriodCounts {
    /// In what the budget is counted in.
    pub(super) fn counts(&self) -> Counts {
        self.slices.map_or(self.events, |(_, slices)| slices.counts())
    }
}

impl Watched {
    pub(super) fn new(slo: &Arc<CompiledSlo>, group: Option<Arc<Group>>, now: Minute) -> Self {
        let windows = windows_of(&slo.slo);
        Self {
            alert_ids: alert_ids(slo, group.as_deref()),
            ring: MinuteRing::new(held(&slo.slo, &windows), now),
            windows,
            verdicts: Verdicts::of(&slo.slo),
            forecast: None,
            logical: logical_of(&slo.slo, now),
            live_logical: Live::new(),
            live: Live::new(),
            pending: HashMap::new(),
            fed_by: HashMap::new(),
            slo: Arc::clone(slo),
            group,
        }
    }

    /// Takes another target, description, file or tiers.
    pub(super) fn redefine(&mut self, slo: &Arc<CompiledSlo>) {
        self.alert_ids = alert_ids(slo, self.group.as_deref());
        self.windows = windows_of(&slo.slo);
        let windows = held(&slo.slo, &self.windows);
        if *windows != *self.ring.windows() {
            let mut ring = MinuteRing::new(windows, self.ring.now());
            for (minute, counts) in self.ring.minutes(Minute(i64::MIN)..=Minute(i64::MAX)) {
                ring.add(minute, &counts);
            }
            self.ring = ring;
        }
        (self.verdicts, self.forecast) = (Verdicts::of(&slo.slo), None);
        let logical = logical_of(&slo.slo, self.ring.now());
        let before = std::mem::replace(&mut self.logical, logical);
        if let (Some(ring), Some(before)) = (&mut self.logical, before) {
            before.minutes(Minute(i64::MIN)..=Minute(i64::MAX)).for_each(|(minute, counts)| {
                ring.add(minute, &counts);
            });
        }
        self.slo = Arc::clone(slo);
    }

    /// The longest of its long windows.
    pub(super) fn longest(&self) -> Window {
        longest_of(&self.slo.slo)
    }

    /// Adds to a minute what is not written down yet.
    pub(super) fn add(&mut self, minute: Minute, counts: &Counts) {
        self.ring.add(minute, counts);
        if let Some(verdicts) = &mut self.verdicts {
            verdicts.open(minute);
        }
        *self.pending.entry(minute).or_default() += counts;
    }

    /// Adds logical calls to a minute.
    pub(super) fn add_logical(&mut self, minute: Minute, counts: &Counts) {
        if let Some(ring) = &mut self.logical {
            ring.add(minute, counts);
        }
    }

    /// Forgets its logical calls.
    pub(super) fn forget_logical(&mut self) {
        self.logical = logical_of(&self.slo.slo, self.ring.now());
    }

    /// Since when its logical calls have to be known, if they have to.
    pub(super) fn logical_since(&self) -> Option<Minute> {
        let longest = self.logical.as_ref()?.windows().last()?;
        Some(*longest.at(self.ring.now()).start())
    }

    /// What of a window is evidence: logical calls, or slices judged by them. Retries of one call are not independent of each other. `counts` are those
    /// over the window in what the budget is counted in.
    pub(super) fn evidence(&self, window: Window, counts: &Counts) -> Counts {
        let Some(ring) = &self.logical else { return *counts };
        let slo = &self.slo.slo;
        let minutes = match slo.budgeting {
            Budgeting::Occurrences => Span { start: *window.at(ring.now()).start(), end: Minute(ring.now().0 + 1) },
            Budgeting::Timeslices(slices) => slices.window_at(window, ring.now()),
        };
        let settled = ring.minutes(minutes.start..=Minute(minutes.end.0 - 1));
        let live = self.live_logical.iter().map(|(minute, counts)| (*minute, *counts));
        let all = settled.chain(live.filter(|(minute, _)| minutes.contains(*minute)));
        let all = all.filter(|(minute, _)| !slo.is_excluded(*minute));
        match slo.budgeting {
            Budgeting::Timeslices(slices) => slices.tally(all, minutes).counts(),
            Budgeting::Occurrences => all.fold(Counts::default(), |mut sum, (_, counts)| {
                sum += &counts;
                sum
            }),
        }
    }

    pub(super) fn fed(&mut self, service: &str, minute: Minute) {
        if let Some(last) = self.fed_by.get_mut(service) {
            *last = minute.max(*last);
            return;
        }
        if self.fed_by.len() >= SERVICES_MAX {
            let oldest = self.fed_by.iter().min_by_key(|(_, last)| **last).map(|(service, _)| service.clone());
            self.fed_by.remove(&oldest.unwrap_or_default());
        }
        self.fed_by.insert(service.to_owned(), minute);
    }

    /// Takes its live rows.
    pub(super) fn take_live(&mut self, live: Loose) {
        live.fed_by.iter().for_each(|(service, minute)| self.fed(service, *minute));
        self.live = live.counts;
        self.live_logical = live.logical;
    }

    /// Goes to another minute.
    pub(super) fn advance(&mut self, now: Minute) {
        self.ring.advance(now);
        if let Some(ring) = &mut self.logical {
            ring.advance(now);
        }
        if let Period::Calendar(calendar) = self.slo.slo.period {
            self.ring.anchor(calendar.period_at(now).start);
        }
    }

    /// Over a window, in what the budget is counted in: the settled rows and the live ones.
    pub(super) fn over(&self, window: Window, live: &Live) -> Counts {
        match &self.verdicts {
            None => self.events(window, live),
            Some(verdicts) => verdicts.judged.tally(verdicts.slices.window_at(window, self.ring.now())).counts(),
        }
    }

    /// Events over one of the windows that it has sums of.
    fn events(&self, window: Window, live: &Live) -> Counts {
        let now = self.ring.now();
        let span = Span { start: *window.at(now).start(), end: Minute(now.0 + 1) };
        let index = self.ring.windows().iter().position(|known| *known == window);
        self.with_live(index.map_or_else(Counts::default, |index| self.ring.sum(index)), span, live)
    }

    /// Adds the live rows of a span to its settled ones, and takes what does not count out of both.
    fn with_live(&self, settled: Counts, span: Span, live: &Live) -> Counts {
        let mut sum = settled;
        live.iter().filter(|(minute, _)| span.contains(**minute)).for_each(|(_, counts)| sum += counts);
        for excluded in self.slo.slo.excluded_of(span) {
            let mut out = self.sum_of(excluded);
            let live = live.iter().filter(|(minute, _)| excluded.contains(**minute));
            live.for_each(|(_, counts)| out += counts);
            sum -= &out;
            sum += &excluded_of(&out);
        }
        sum
    }

    /// Settled rows of a span.
    fn sum_of(&self, span: Span) -> Counts {
        self.ring.sum_of(span.start..=Minute(span.end.0 - 1))
    }

    /// The period so far.
    pub(super) fn period(&self, live: &Live) -> PeriodCounts {
        let now = self.ring.now();
        let span = Span { end: Minute(now.0 + 1), ..self.slo.slo.period.at(now) };
        let events = match self.slo.slo.period {
            Period::Rolling(window) => self.events(window, live),
            Period::Calendar(_) => self.with_live(self.ring.anchored(), span, live),
        };
        let slices = self.verdicts.as_ref().map(|verdicts| {
            let ended = self.slices_of_period(&verdicts.slices);
            (ended, verdicts.judged.tally(ended))
        });
        PeriodCounts { span, events, slices }
    }

    /// Where the slices of the period begin that have ended.
    fn slices_of_period(&self, slices: &Slices) -> Span {
        let now = self.ring.now();
        match self.slo.slo.period {
            Period::Rolling(window) => slices.window_at(window, now),
            Period::Calendar(calendar) => slices.ended(calendar.period_at(now), now),
        }
    }

    /// Gives their verdicts to the slices that have ended since the last time, and to those of which counts have changed or live rows are known. How
    /// many have another one than before.
    pub(super) fn judge(&mut self, live: &Live, past: Past) -> u64 {
        let Some(mut verdicts) = self.verdicts.take() else { return 0 };
        // What was judged before the history was known was not.
        if verdicts.past != past {
            verdicts.judged.clear();
            verdicts.past = past;
        }
        let (slices, now) = (verdicts.slices, self.ring.now());
        let period = self.slices_of_period(&slices);
        let longest = self.windows.iter().copied().chain([PROJECTION, UNTIERED]).max().unwrap_or(PROJECTION);
        let shown = slices.window_at(longest, now);
        let new = verdicts.judged.go_to(Span { start: period.start.min(shown.start), end: shown.end });
        let settled = self.ring.minutes(new.start..=Minute(new.end.0 - 1));
        let settled = settled.filter(|(minute, _)| !self.slo.slo.is_excluded(*minute));
        for (start, verdict) in slices.verdicts(settled, new) {
            verdicts.judged.judge(start, verdict);
        }
        let with_rows: BTreeSet<Minute> = live
            .keys()
            .filter(|minute| !self.slo.slo.is_excluded(**minute))
            .map(|minute| slices.start_of(*minute))
            .collect();
        let open = std::mem::take(&mut verdicts.open);
        let mut turned = Vec::new();
        for start in open.union(&with_rows) {
            if !verdicts.judged.has(*start) {
                continue;
            }
            let span = Span { start: *start, end: Minute(start.0 + i64::from(slices.length().minutes())) };
            let found = verdicts.judged.judge(*start, slices.verdict(&self.with_live(self.sum_of(span), span, live)));
            // A slice that has just ended had no verdict before.
            turned.extend(found.filter(|turned| !new.contains(turned.start)));
        }
        verdicts.open = with_rows;
        self.verdicts = Some(verdicts);
        if let (Some(first), true) = (turned.first(), past == Past::Known) {
            tracing::info!(
                service = self.slo.slo.service,
                slo = self.slo.slo.name,
                slices = turned.len(),
                first = crate::json::rfc3339(first.start.start()),
                before = ?first.before,
                now = ?first.now,
                "rows that came late have turned verdicts of slices"
            );
            return turned.len() as u64;
        }
        0
    }

    /// In how many minutes a rolling budget is used up if the pace of `recent` goes on ([`Rolling::exhausted_after`]); worked out once a minute, as it
    /// looks at every hour of the period.
    pub(super) fn exhausted_after(&mut self, period: &PeriodCounts, recent: &Counts, live: &Live) -> Option<u32> {
        let now = self.ring.now();
        if let Some((_, known)) = self.forecast.filter(|(at, _)| *at == now) {
            return known;
        }
        let found = self.look_ahead(period, recent, live);
        self.forecast = Some((now, found));
        found
    }

    fn look_ahead(&self, period: &PeriodCounts, recent: &Counts, live: &Live) -> Option<u32> {
        let counts = period.counts();
        // So it is with most SLOs, most of the time.
        if counts.bad == 0 && recent.bad == 0 {
            return None;
        }
        let first = period.slices.map_or(period.span, |(slices, _)| slices).start;
        let grain = self.verdicts.as_ref().map_or(Window::from_minutes(1), |verdicts| verdicts.slices.length());
        let slo = &self.slo.slo;
        let pace = Pace::of(recent, PROJECTION);
        let lead = match self.verdicts {
            None => Window::from_minutes(60 - first.0.rem_euclid(60) as u32),
            Some(_) => Window::from_minutes(grain.minutes() * 60_u32.div_ceil(grain.minutes())),
        };
        let rolling = Rolling { counts: &counts, pace, target: slo.target, period: slo.window, grain, lead };
        let mut waiting: Vec<(Minute, Counts)> = live.iter().map(|(minute, counts)| (*minute, *counts)).collect();
        waiting.sort_unstable_by_key(|(minute, _)| *minute);
        rolling.exhausted_after(|part| {
            let minute = |at: u32| Minute(first.0 + i64::from(at));
            let span = Span { start: minute(part.start), end: minute(part.end) };
            if let Some(verdicts) = &self.verdicts {
                return verdicts.judged.tally(span).counts();
            }
            let from = waiting.partition_point(|(minute, _)| *minute < span.start);
            let to = waiting.partition_point(|(minute, _)| *minute < span.end);
            let live: Live = waiting[from..to].iter().copied().collect();
            self.with_live(self.sum_of(span), span, &live)
        })
    }

    /// A minute as it counts.
    pub(super) fn shown(&self, minute: Minute, counts: Counts) -> Counts {
        if self.slo.slo.is_excluded(minute) { excluded_of(&counts) } else { counts }
    }
}

/// Live counts by the minute.
pub(super) type Live = HashMap<Minute, Counts>;

/// Events of a minute that does not count.
fn excluded_of(counts: &Counts) -> Counts {
    Counts { excluded: counts.excluded.wrapping_add(counts.total()), nulls: counts.nulls, ..Counts::default() }
}

/// A ring for the logical calls of an SLO of which pages need evidence of them.
fn logical_of(slo: &Slo, now: Minute) -> Option<MinuteRing> {
    let pages = slo.tiers.iter().filter(|tier| tier.tier.severity == Severity::Page).map(|tier| tier.tier.long).max();
    let is_needed = slo.sli.mode == Mode::Attempt && slo.guards.evidence && slo.group_by.is_none();
    let slice = match slo.budgeting {
        Budgeting::Occurrences => 0,
        Budgeting::Timeslices(slices) => slices.length().minutes(),
    };
    let longest = pages.filter(|_| is_needed)?;
    Some(MinuteRing::new([Window::from_minutes(longest.minutes() + slice)].into(), now))
}

/// The longest of the long windows of an SLO.
pub(super) fn longest_of(slo: &Slo) -> Window {
    slo.tiers.iter().map(|tier| tier.tier.long).max().unwrap_or(slo.window)
}

/// The windows that are shown.
pub(super) fn windows_of(slo: &Slo) -> Arc<[Window]> {
    let mut windows: Vec<Window> = slo.tiers.iter().flat_map(|tier| [tier.tier.short, tier.tier.long]).collect();
    if let Period::Rolling(window) = slo.period {
        windows.push(window);
    }
    windows.sort_unstable();
    windows.dedup();
    windows.into()
}

/// The windows whose sums are held: those that are shown, those that are needed besides, and one that is as long as what has to be remembered.
pub(super) fn held(slo: &Slo, shown: &[Window]) -> Arc<[Window]> {
    let mut windows: Vec<Window> = shown.iter().copied().chain([UNTIERED, PROJECTION]).collect();
    if let Period::Calendar(calendar) = slo.period {
        windows.push(calendar.longest());
    }
    if let (Budgeting::Timeslices(slices), Some(longest)) = (slo.budgeting, windows.iter().max()) {
        windows.push(Window::from_minutes(longest.minutes() + slices.length().minutes()));
    }
    windows.sort_unstable();
    windows.dedup();
    windows.into()
}

fn alert_ids(slo: &CompiledSlo, group: Option<&Group>) -> Vec<AlertId> {
    let id = |labels| match group {
        Some(group) => AlertId::of_group(labels, Arc::clone(group.text())),
        None => AlertId::new(labels),
    };
    let tiers = slo.slo.tiers.iter();
    tiers.map(|tier| id(labels(slo, group, "ErrorBudgetBurn", &tier.severity, Some(&tier.tier.name)))).collect()
}

/// The labels of an alert of an SLO, or of one of its groups.
pub(super) fn labels(
    slo: &CompiledSlo,
    group: Option<&Group>,
    alertname: &str,
    severity: &str,
    burn_tier: Option<&str>,
) -> BTreeMap<String, String> {
    let tool = slo.sli.fixed_value("tool_name").map(|tool| ("tool", tool));
    let tenant = slo.sli.fixed_value("tenant").map(|tenant| ("tenant", tenant));
    let own = [
        ("alertname", alertname),
        ("service", slo.slo.service.as_str()),
        ("slo", slo.slo.name.as_str()),
        ("severity", severity),
    ];
    let labels = own.into_iter().chain(tool).chain(tenant).chain(burn_tier.map(|tier| ("burn_tier", tier)));
    let mut labels: BTreeMap<String, String> =
        labels.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    // To an Alertmanager an empty label is none.
    for (name, value) in group.iter().flat_map(|group| group.labels()).filter(|(_, value)| !value.is_empty()) {
        labels.insert(name.to_owned(), value.to_owned());
    }
    labels
}
