//! One SLO as it is watched: its counts by the minute, its tiers, and what has not been written down yet.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use toolgauge_analytics::budget::{Severity, Tier};
use toolgauge_analytics::sli::Counts;
use toolgauge_analytics::window::{Minute, MinuteRing, Window};
use toolgauge_proto::id::WalPosition;

use super::alerts::AlertId;
use crate::slo::counter::Tally;
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
    pub(super) tiers: Vec<Tier>,
    /// The windows of the tiers and the SLO's own, shortest first.
    pub(super) windows: Arc<[Window]>,
    pub(super) ring: MinuteRing,
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

impl Watched {
    pub(super) fn new(slo: CompiledSlo, now: Minute) -> Self {
        let tiers = tiers_of(&slo);
        let mut windows: Vec<Window> = tiers.iter().flat_map(|tier| [tier.short, tier.long]).collect();
        windows.push(slo.slo.window);
        windows.sort_unstable();
        windows.dedup();
        let windows: Arc<[Window]> = windows.into();
        let alert_ids = alert_ids(&slo, &tiers);
        Self {
            tiers,
            ring: MinuteRing::new(Arc::clone(&windows), now),
            windows,
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

    /// Whether it counts what another definition counts, over the same windows.
    pub(super) fn counts_as(&self, slo: &CompiledSlo) -> bool {
        self.slo.sli.sli.revision() == slo.sli.sli.revision() && self.slo.slo.window == slo.slo.window
    }

    /// Takes another target, description or file.
    pub(super) fn redefine(&mut self, slo: CompiledSlo) {
        self.tiers = tiers_of(&slo);
        self.alert_ids = alert_ids(&slo, &self.tiers);
        self.slo = Arc::new(slo);
    }

    /// Forgets all counts.
    pub(super) fn clear(&mut self) {
        self.ring = MinuteRing::new(Arc::clone(&self.windows), self.ring.now());
        self.pending.clear();
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

    /// The sum over one of its windows: the settled rows and the live ones.
    pub(super) fn sum(&self, window: Window, live: &HashMap<Minute, Counts>) -> Counts {
        let index = self.windows.iter().position(|known| *known == window);
        let mut sum = index.map_or_else(Counts::default, |index| self.ring.sum(index));
        let minutes = window.at(self.ring.now());
        live.iter().filter(|(minute, _)| minutes.contains(minute)).for_each(|(_, counts)| sum += counts);
        sum
    }
}

fn tiers_of(slo: &CompiledSlo) -> Vec<Tier> {
    slo.slo.tiers.iter().map(|tier| tier.tier.clone()).collect()
}

fn alert_ids(slo: &CompiledSlo, tiers: &[Tier]) -> Vec<AlertId> {
    let labels = |alertname: &str, severity: Severity, burn_tier: Option<&str>| {
        let tool = slo.sli.fixed_value("tool_name").map(|tool| ("tool", tool));
        let tenant = slo.sli.fixed_value("tenant").map(|tenant| ("tenant", tenant));
        let own = [
            ("alertname", alertname),
            ("service", slo.slo.service.as_str()),
            ("slo", slo.slo.name.as_str()),
            ("severity", severity.as_str()),
        ];
        let labels = own.into_iter().chain(tool).chain(tenant).chain(burn_tier.map(|tier| ("burn_tier", tier)));
        labels.map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<BTreeMap<String, String>>()
    };
    let burns = tiers.iter().map(|tier| labels("ErrorBudgetBurn", tier.severity, Some(&tier.name)));
    burns.chain([labels("TelemetryStale", Severity::Ticket, None)]).map(AlertId::new).collect()
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
    pub(super) counts: Vec<HashMap<Minute, Counts>>,
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
