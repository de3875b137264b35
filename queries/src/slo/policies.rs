//! From alert policies to the tiers of an SLO.
//!
//! OpenSLO's policy has one condition with one window. It becomes the long window of a tier; the short window is a twelfth of it, as in the
//! SRE workbook, or what the annotation `toolgauge/short-window` says. Policies of one SLO stand beside each other: each fires on its own.

use std::collections::HashMap;
use std::sync::Arc;

use toolgauge_analytics::alert::Patience;
use toolgauge_analytics::budget::{Measure, Ratio, Severity, Target, Tier};
use toolgauge_analytics::window::Window;

use super::annotations::{SloAnnotations, of_alert};
use super::definition::{Budgeting, BurnTier, TierSource, window_of};
use super::resolve::{Object, Resolver, Unfit};
use super::shape::join;
use super::tiers::{SLICES_MIN, Severities, micros, shown};
use super::yaml::Node;

/// Words for an alert that calls a person at once.
const PAGES: &[&str] =
    &["page", "critical", "crit", "emergency", "fatal", "urgent", "high", "p0", "p1", "sev0", "sev1"];
/// Words for one that can wait.
const TICKETS: &[&str] = &[
    "ticket", "warning", "warn", "error", "medium", "low", "info", "notice", "minor", "p2", "p3", "p4", "sev2", "sev3",
    "sev4",
];
/// Short window = long window / this.
const SHORT_PART: u32 = 12;
/// Most policies of an SLO.
const POLICIES_MAX: usize = 16;

/// An object's parts, wherever they stand: in a document of its own, or inside another.
#[derive(Debug, Clone)]
pub(super) struct Part<'a> {
    pub(super) owner: &'a Object,
    pub(super) path: String,
    pub(super) node: &'a Node,
    pub(super) metadata: Option<&'a Node>,
    /// Where its metadata are.
    pub(super) metadata_path: String,
}

impl<'a> Part<'a> {
    pub(super) fn of_object(owner: &'a Object) -> Option<Self> {
        Some(Self {
            owner,
            path: "spec".to_owned(),
            node: owner.node.get("spec")?,
            metadata: owner.node.get("metadata"),
            metadata_path: "metadata".to_owned(),
        })
    }

    pub(super) fn inline(owner: &'a Object, item: &'a Node, path: &str) -> Option<Self> {
        Some(Self {
            owner,
            path: join(path, "spec"),
            node: item.get("spec")?,
            metadata: item.get("metadata"),
            metadata_path: join(path, "metadata"),
        })
    }

    pub(super) fn name(&self) -> Option<&'a str> {
        self.metadata?.text_of("name")
    }
}

/// What the tiers of an SLO depend on.
pub(super) struct Terms<'a> {
    pub(super) name: &'a str,
    pub(super) period: Window,
    pub(super) budgeting: Budgeting,
    pub(super) target: Target,
    pub(super) annotations: &'a SloAnnotations,
}

impl<'a> Resolver<'a> {
    /// The part that an item is or names.
    fn part(
        &mut self,
        owner: &'a Object,
        item: &'a Node,
        path: &str,
        reference: &str,
        kind: &'a str,
    ) -> Option<Part<'a>> {
        if item.get(reference).is_some() {
            return Part::of_object(self.follow(owner, item, path, reference, kind)?);
        }
        Part::inline(owner, item, path)
    }

    /// The tiers that an SLO's policies ask for.
    pub(super) fn tiers(
        &mut self,
        object: &'a Object,
        policies: &'a Node,
        terms: &Terms<'_>,
    ) -> Result<Vec<BurnTier>, Unfit> {
        const PATH: &str = "spec.alertPolicies";
        if policies.items().len() > POLICIES_MAX {
            let message = format!("an SLO has at most {POLICIES_MAX} policies, here are {}", policies.items().len());
            return Err(self.error(object, policies.place, PATH, message));
        }
        let (mut tiers, mut fault) = (Vec::new(), None);
        let mut names: HashMap<Arc<str>, String> = HashMap::new();
        for (index, item) in policies.items().iter().enumerate() {
            let path = format!("{PATH}[{index}]");
            match self.tier(object, item, &path, terms) {
                Err(unfit) => fault = Some(unfit),
                Ok(None) => {}
                Ok(Some(tier)) => {
                    if let Some(first) = names.insert(Arc::clone(&tier.tier.name), path.clone()) {
                        let message = format!(
                            "the tier \"{}\" is already that of {first} (give the policies different names, or the \
                             annotation `toolgauge/burn-tier`)",
                            tier.tier.name
                        );
                        fault = Some(self.error(object, item.place, &path, message));
                    }
                    tiers.push(tier);
                }
            }
        }
        tiers.sort_by_key(|tier| (tier.tier.long, tier.tier.short));
        fault.map_or(Ok(tiers), Err)
    }

    /// The tier of one policy; none if it does not alert on a breach.
    fn tier(
        &mut self,
        object: &'a Object,
        item: &'a Node,
        path: &str,
        terms: &Terms<'_>,
    ) -> Result<Option<BurnTier>, Unfit> {
        let policy = self.part(object, item, path, "alertPolicyRef", "AlertPolicy").ok_or(Unfit::Faulty)?;
        let conditions = policy.node.get("conditions").map_or(&[][..], Node::items);
        let [condition_item] = conditions else { return Err(Unfit::Faulty) };
        let condition_path = join(&policy.path, "conditions[0]");
        let condition = self
            .part(policy.owner, condition_item, &condition_path, "conditionRef", "AlertCondition")
            .ok_or(Unfit::Faulty)?;
        let own =
            of_alert(policy.metadata, &policy.metadata_path, self.faults_of(policy.owner)).ok_or(Unfit::Faulty)?;
        let inner = of_alert(condition.metadata, &condition.metadata_path, self.faults_of(condition.owner));
        let inner = inner.ok_or(Unfit::Faulty)?;
        if policy.node.text_of("alertWhenBreaching") == Some("false") {
            let message = "the policy does not alert when the objective is breached, and burn rates are all it could \
                           alert on: it is left out (silence is told by the alert TelemetryStale)";
            self.faults_of(policy.owner).warning(policy.node.place, &join(&policy.path, "alertWhenBreaching"), message);
            return Ok(None);
        }
        let word = condition.node.text_of("severity").unwrap_or_default();
        let (severity, word) = self.severity(&condition, word, &terms.annotations.severities);
        let (long, short) = self.windows(&condition, inner.short_window.or(own.short_window), terms)?;
        let factor = self.threshold(&condition, terms)?;
        let after = condition.node.at(&["condition", "alertAfter"]).and_then(Node::text).and_then(window_of);
        let patience = Patience {
            pending_us: micros(after.or(terms.annotations.alert_after)),
            keep_firing_us: micros(inner.keep_firing.or(own.keep_firing).or(terms.annotations.keep_firing)),
        };
        let named = policy
            .name()
            .map(str::to_owned)
            .unwrap_or_else(|| format!("{severity}-{long}", severity = severity.as_str()));
        let name = inner.burn_tier.or(own.burn_tier).unwrap_or_else(|| named.clone());
        Ok(Some(BurnTier {
            tier: Tier { name: name.into(), severity, long, short, factor, measure: Measure::BurnRate },
            severity: word,
            patience,
            source: TierSource::Policy(named),
            adapted: None,
            targets: targets(policy.node),
        }))
    }

    /// Whom a word calls, and the word of the label.
    fn severity(&mut self, condition: &Part<'a>, word: &str, severities: &Severities) -> (Severity, Arc<str>) {
        let lower = word.to_lowercase();
        let is_in = |words: &[&str]| words.contains(&lower.as_str());
        if word == &*severities.page || word == &*severities.ticket {
            let severity = if word == &*severities.page { Severity::Page } else { Severity::Ticket };
            return (severity, word.into());
        }
        match Some(&*lower) {
            Some("page") => (Severity::Page, Arc::clone(&severities.page)),
            Some("ticket") => (Severity::Ticket, Arc::clone(&severities.ticket)),
            _ if is_in(PAGES) => (Severity::Page, word.into()),
            _ if is_in(TICKETS) => (Severity::Ticket, word.into()),
            _ => {
                let message = format!(
                    "{word:?} says neither that it calls somebody at once nor that it can wait; it is taken as a ticket \
                     (write page or ticket, or name your words in the annotation `toolgauge/severities`)"
                );
                let place = condition.node.get("severity").unwrap_or(condition.node).place;
                self.faults_of(condition.owner).warning(place, &join(&condition.path, "severity"), message);
                (Severity::Ticket, word.into())
            }
        }
    }

    fn windows(
        &mut self,
        condition: &Part<'a>,
        short: Option<Window>,
        terms: &Terms<'_>,
    ) -> Result<(Window, Window), Unfit> {
        let node = condition.node.at(&["condition", "lookbackWindow"]).ok_or(Unfit::Faulty)?;
        let key = join(&condition.path, "condition.lookbackWindow");
        let long = node.text().and_then(window_of).ok_or_else(|| {
            self.error(condition.owner, node.place, &key, format!("{:?} is no window", node.text().unwrap_or_default()))
        })?;
        if long > terms.period {
            let message = format!(
                "for the SLO \"{}\": the window of {long} is longer than the period of {} (write at most that)",
                terms.name, terms.period
            );
            return Err(self.error(condition.owner, node.place, &key, message));
        }
        let slice = match terms.budgeting {
            Budgeting::Occurrences => Window::from_minutes(1),
            Budgeting::Timeslices(slices) => slices.length(),
        };
        let least = match terms.budgeting {
            Budgeting::Occurrences => 1,
            Budgeting::Timeslices(_) => slice.minutes() * SLICES_MIN,
        };
        let short_window = short.unwrap_or_else(|| {
            let part = long.minutes().div_ceil(SHORT_PART);
            // Whole slices.
            let part = part.div_ceil(slice.minutes()) * slice.minutes();
            Window::from_minutes(part.max(least).min(long.minutes()))
        });
        let what = if short_window > long {
            format!("the short window of {short_window} is longer than the long one of {long} (write at most that)")
        } else if short_window < slice {
            format!("the short window of {short_window} has no whole slice of {slice} (write at least that)")
        } else {
            return Ok((long, short_window));
        };
        Err(self.error(condition.owner, node.place, &key, format!("for the SLO \"{}\": {what}", terms.name)))
    }

    /// The least burn rate at which it fires: one that can be reached, and is not while the objective is met.
    fn threshold(&mut self, condition: &Part<'a>, terms: &Terms<'_>) -> Result<Ratio, Unfit> {
        let target = terms.target;
        let node = condition.node.at(&["condition", "threshold"]).ok_or(Unfit::Faulty)?;
        let key = join(&condition.path, "condition.threshold");
        let text = node.text().unwrap_or_default();
        let place = node.place;
        let most = Ratio::ONE.over(target.budget()).unwrap_or(Ratio::ONE);
        let message = match Ratio::from_decimal(text.trim_start_matches('+')) {
            None => format!("{text:?} is no burn rate (write a decimal number from 1, like 14.4)"),
            Some(factor) if factor < Ratio::ONE => format!(
                "a burn rate of {text} is reached while the objective is met: bad / total = {text} x (1 - {target}) = {}, \
                 and {} may be bad (write at least 1)",
                share(factor.times(target.budget())),
                share(Some(target.budget()))
            ),
            Some(factor) if factor > most => format!(
                "a burn rate of {text} can never be reached: if everything fails it is 1 / (1 - {target}) = {} (write less \
                 than that, such as {})",
                shown(most),
                shown(Ratio::percent(80).times(most).map_or(Ratio::ONE, |rate| rate.max(Ratio::ONE)))
            ),
            Some(factor) => {
                if factor == most {
                    let message = format!(
                        "it fires only if everything fails in both windows: 1 / (1 - {target}) = {} is the highest burn rate",
                        shown(most)
                    );
                    self.faults_of(condition.owner).warning(place, &key, message);
                }
                return Ok(factor);
            }
        };
        Err(self.error(condition.owner, place, &key, format!("for the SLO \"{}\": {message}", terms.name)))
    }
}

fn share(ratio: Option<Ratio>) -> String {
    ratio.map_or_else(String::new, |ratio| format!("{} %", shown(Ratio::percent(10_000).times(ratio).unwrap_or(ratio))))
}

/// The names of a policy's notification targets.
fn targets(policy: &Node) -> Vec<String> {
    let items = policy.get("notificationTargets").map_or(&[][..], Node::items).iter();
    items
        .filter_map(|item| {
            let inline =
                || item.at(&["metadata", "name"]).or_else(|| item.at(&["spec", "target"])).and_then(Node::text);
            item.text_of("targetRef").or_else(inline).map(str::to_owned)
        })
        .collect()
}
