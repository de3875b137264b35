//! One SLO as it is watched: its counts by the minute, its tiers, and what has not been written down yet.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use toolgauge_analytics::calendar::Span;
use toolgauge_analytics::sli::Counts;
use toolgauge_analytics::timeslice::{SliceCounts, Slices, Verdict};
use toolgauge_analytics::window::{Minute, MinuteRing, Window};
use toolgauge_proto::id::WalPosition;

use super::alerts::AlertId;
use super::round::{PROJECTION, UNTIERED};
use crate::slo::counter::Tally;
use crate::slo::definition::{Budgeting, Period, Slo};
use crate::slo::set::CompiledSlo;

/// Most services that are remembered of an SLO.
const SERVICES_MAX: usize = 1_000;

/// Whether the history of an SLO is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Past {
    /// Nobody has begun to.
    Waiting,
    /// It is being read.
    Reading,
    /// It is.
    Known,
}

/// One SLO.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) slo: Arc<CompiledSlo>,
    /// The windows of the tiers, and the SLO's own if it rolls, shortest first.
    pub(super) windows: Arc<[Window]>,
    /// It has sums over these windows and some more.
    pub(super) ring: MinuteRing,
    /// Of spans of slices, by what the ring had then.
    verdicts: HashMap<Span, (u64, SliceCounts)>,
    /// The slices of the period in the last evaluation.
    judged: Option<(Span, SliceCounts)>,
    pub(super) past: Past,
    /// What its rows in `slo_1m` are called: [`Watched::name_rows`].
    pub(super) revision: Option<String>,
    /// What has not been written to `slo_1m` yet.
    pub(super) pending: HashMap<Minute, Counts>,
    /// The services of its events, with the last minute of each.
    pub(super) fed_by: HashMap<String, Minute>,
    /// Of each tier, then of its telemetry.
    pub(super) alert_ids: Vec<AlertId>,
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
    pub(super) fn new(slo: CompiledSlo, now: Minute) -> Self {
        let windows = windows_of(&slo.slo);
        let alert_ids = alert_ids(&slo);
        Self {
            ring: MinuteRing::new(held(&slo.slo, &windows), now),
            windows,
            verdicts: HashMap::new(),
            judged: None,
            past: Past::Waiting,
            revision: None,
            pending: HashMap::new(),
            fed_by: HashMap::new(),
            alert_ids,
            slo: Arc::new(slo),
        }
    }

    /// What its rows are called if it counts them as they come from this position on. A definition that comes back after it was
    /// gone has missed rows: then its old ones must not be taken for all.
    pub(super) fn name_rows(&self, from: WalPosition) -> String {
        format!("{}-{from}", self.slo.sli.revision)
    }

    /// Whether it counts what another definition counts, as far back.
    pub(super) fn counts_as(&self, slo: &CompiledSlo) -> bool {
        let longest = |windows: &[Window]| windows.iter().max().copied();
        let windows = held(&slo.slo, &windows_of(&slo.slo));
        self.slo.sli.sli.revision() == slo.sli.sli.revision() && longest(&windows) == longest(self.ring.windows())
    }

    /// Takes another target, description, file or tiers.
    pub(super) fn redefine(&mut self, slo: CompiledSlo) {
        self.alert_ids = alert_ids(&slo);
        self.windows = windows_of(&slo.slo);
        let windows = held(&slo.slo, &self.windows);
        if *windows != *self.ring.windows() {
            let mut ring = MinuteRing::new(windows, self.ring.now());
            for (minute, counts) in self.ring.minutes(Minute(i64::MIN)..=Minute(i64::MAX)) {
                ring.add(minute, &counts);
            }
            self.ring = ring;
        }
        (self.verdicts, self.judged) = (HashMap::new(), None);
        self.slo = Arc::new(slo);
    }

    /// Forgets all counts.
    pub(super) fn clear(&mut self) {
        self.ring = MinuteRing::new(self.ring.windows().into(), self.ring.now());
        self.verdicts.clear();
        self.pending.clear();
    }

    /// The longest of its long windows.
    pub(super) fn longest(&self) -> Window {
        self.slo.slo.tiers.iter().map(|tier| tier.tier.long).max().unwrap_or(self.slo.slo.window)
    }

    /// Adds to a minute what is not written down yet.
    pub(super) fn add(&mut self, minute: Minute, counts: &Counts) {
        self.ring.add(minute, counts);
        *self.pending.entry(minute).or_default() += counts;
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

    /// Goes to another minute.
    pub(super) fn advance(&mut self, now: Minute) {
        self.ring.advance(now);
        if let Period::Calendar(calendar) = self.slo.slo.period {
            self.ring.anchor(calendar.period_at(now).start);
        }
    }

    /// Over a window, in what the budget is counted in: the settled rows and the live ones.
    pub(super) fn over(&mut self, window: Window, live: &Live) -> Counts {
        match self.slo.slo.budgeting {
            Budgeting::Occurrences => self.events(window, live),
            Budgeting::Timeslices(slices) => {
                let span = slices.window_at(window, self.ring.now());
                self.slices(&slices, span, live).counts()
            }
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
        for excluded in self.slo.slo.exclusions.iter() {
            let (start, end) = (excluded.start.max(span.start), excluded.end.min(span.end));
            if start < end {
                let mut out = self.ring.sum_of(start..=Minute(end.0 - 1));
                let live = live.iter().filter(|(minute, _)| (start..end).contains(*minute));
                live.for_each(|(_, counts)| out += counts);
                sum -= &out;
                sum += &excluded_of(&out);
            }
        }
        sum
    }

    /// The period so far.
    pub(super) fn period(&mut self, live: &Live) -> PeriodCounts {
        let now = self.ring.now();
        let span = Span { end: Minute(now.0 + 1), ..self.slo.slo.period.at(now) };
        let events = match self.slo.slo.period {
            Period::Rolling(window) => self.events(window, live),
            Period::Calendar(_) => self.with_live(self.ring.anchored(), span, live),
        };
        let slices = match self.slo.slo.budgeting {
            Budgeting::Occurrences => None,
            Budgeting::Timeslices(slices) => {
                let ended = match self.slo.slo.period {
                    Period::Rolling(window) => slices.window_at(window, now),
                    Period::Calendar(_) => slices.ended(span, now),
                };
                Some((ended, self.slices(&slices, ended, live)))
            }
        };
        if let Some((span, counts)) = slices {
            let before = self.judged.replace((span, counts));
            if let Some((_, before)) = before.filter(|(known, before)| *known == span && *before != counts) {
                tracing::info!(
                    service = self.slo.slo.service,
                    slo = self.slo.slo.name,
                    ?before,
                    now = ?counts,
                    "rows that came late have turned verdicts of slices"
                );
            }
        }
        PeriodCounts { span, events, slices }
    }

    /// The verdicts of the slices that begin in a span: those of the settled rows, which are kept for as long as nothing is added, and of slices
    /// with live rows anew.
    fn slices(&mut self, slices: &Slices, span: Span, live: &Live) -> SliceCounts {
        let (changes, slo) = (self.ring.changes(), &self.slo.slo);
        let of_settled = match self.verdicts.get(&span) {
            Some((known, counts)) if *known == changes => *counts,
            _ => {
                let minutes = slices.minutes_of(span);
                let minutes = self.ring.minutes(minutes.start..=Minute(minutes.end.0 - 1));
                let counts = slices.tally(minutes.filter(|(minute, _)| !slo.is_excluded(*minute)), span);
                if self.verdicts.len() >= VERDICTS_MAX {
                    self.verdicts.clear();
                }
                self.verdicts.insert(span, (changes, counts));
                counts
            }
        };
        let mut touched: BTreeMap<Minute, Counts> = BTreeMap::new();
        for (minute, counts) in live {
            let start = slices.start_of(*minute);
            if span.contains(start) && !slo.is_excluded(*minute) {
                *touched.entry(start).or_default() += counts;
            }
        }
        let mut counts = of_settled;
        for (start, live) in touched {
            let end = Minute(start.0 + i64::from(slices.length().minutes()) - 1);
            let minutes = self.ring.minutes(start..=end).filter(|(minute, _)| !slo.is_excluded(*minute));
            let settled = minutes.fold(Counts::default(), |mut sum, (_, counts)| {
                sum += &counts;
                sum
            });
            let mut both = settled;
            both += &live;
            *count_of(&mut counts, slices.verdict(&settled)) -= 1;
            *count_of(&mut counts, slices.verdict(&both)) += 1;
        }
        counts
    }

    /// A minute as it counts.
    pub(super) fn shown(&self, minute: Minute, counts: Counts) -> Counts {
        if self.slo.slo.is_excluded(minute) { excluded_of(&counts) } else { counts }
    }
}

/// Spans of slices whose verdicts are kept.
const VERDICTS_MAX: usize = 64;
/// Live counts by the minute.
pub(super) type Live = HashMap<Minute, Counts>;

/// Events of a minute that does not count.
fn excluded_of(counts: &Counts) -> Counts {
    Counts { excluded: counts.excluded + counts.total(), nulls: counts.nulls, ..Counts::default() }
}

fn count_of(counts: &mut SliceCounts, verdict: Verdict) -> &mut u64 {
    match verdict {
        Verdict::Good => &mut counts.good,
        Verdict::Bad => &mut counts.bad,
        Verdict::Empty => &mut counts.empty,
    }
}

/// The windows that are shown.
fn windows_of(slo: &Slo) -> Arc<[Window]> {
    let mut windows: Vec<Window> = slo.tiers.iter().flat_map(|tier| [tier.tier.short, tier.tier.long]).collect();
    if let Period::Rolling(window) = slo.period {
        windows.push(window);
    }
    windows.sort_unstable();
    windows.dedup();
    windows.into()
}

/// The windows whose sums are held: those that are shown, those that are needed besides, and one that is as long as what has to be remembered.
fn held(slo: &Slo, shown: &[Window]) -> Arc<[Window]> {
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

fn alert_ids(slo: &CompiledSlo) -> Vec<AlertId> {
    let labels = |alertname: &str, severity: &str, burn_tier: Option<&str>| {
        let tool = slo.sli.fixed_value("tool_name").map(|tool| ("tool", tool));
        let tenant = slo.sli.fixed_value("tenant").map(|tenant| ("tenant", tenant));
        let own = [
            ("alertname", alertname),
            ("service", slo.slo.service.as_str()),
            ("slo", slo.slo.name.as_str()),
            ("severity", severity),
        ];
        let labels = own.into_iter().chain(tool).chain(tenant).chain(burn_tier.map(|tier| ("burn_tier", tier)));
        labels.map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<BTreeMap<String, String>>()
    };
    let burns = slo.slo.tiers.iter().map(|tier| labels("ErrorBudgetBurn", &tier.severity, Some(&tier.tier.name)));
    burns.chain([labels("TelemetryStale", &slo.slo.ticket_severity, None)]).map(AlertId::new).collect()
}

/// Settled rows go to the SLOs that are watched.
#[derive(Debug)]
pub(super) struct SettledTally<'a>(pub(super) &'a mut [Watched]);

impl Tally for SettledTally<'_> {
    fn add(&mut self, slo: usize, minute: Minute, counts: &Counts) {
        self.0[slo].add(minute, counts);
    }

    fn fed_by(&mut self, slo: usize, service: &str, minute: Minute) {
        self.0[slo].fed(service, minute);
    }
}

/// Rows that stay outside of the SLOs: live ones, of one evaluation, and those of a history that is being read.
#[derive(Debug, Default)]
pub(super) struct LooseTally {
    pub(super) counts: Vec<Live>,
    pub(super) fed_by: Vec<HashMap<String, Minute>>,
}

impl LooseTally {
    pub(super) fn new(slos: usize) -> Self {
        Self { counts: vec![HashMap::new(); slos], fed_by: vec![HashMap::new(); slos] }
    }
}

impl Tally for LooseTally {
    fn add(&mut self, slo: usize, minute: Minute, counts: &Counts) {
        *self.counts[slo].entry(minute).or_default() += counts;
    }

    fn fed_by(&mut self, slo: usize, service: &str, minute: Minute) {
        match self.fed_by[slo].get_mut(service) {
            Some(last) => *last = minute.max(*last),
            None => {
                self.fed_by[slo].insert(service.to_owned(), minute);
            }
        }
    }
}
