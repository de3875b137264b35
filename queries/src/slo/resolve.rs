//! From documents to SLOs: follows references and says of each SLO whether it can be evaluated.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use toolgauge_analytics::budget::{Ratio, Target};
use toolgauge_analytics::calendar::{Calendar, CalendarError, parse_start, parse_zone};
use toolgauge_analytics::timeslice::{SLICE_MINUTES_MAX, Slices};
use toolgauge_analytics::window::Window;
use toolgauge_proto::call::Layer;

use super::annotations::{of_alert, of_others, of_sli, of_slo};
use super::definition::{Budgeting, Judged, Mode, Period, Sli, Slo, Where, window_of};
use super::fault::{Fault, Faults, Place};
use super::policies::{Part, Terms};
use super::shape::{NAME_CHARS_MAX, join};
use super::tiers::{CONSUMPTION, SLICES_MIN, default_tiers};
use super::yaml::{Node, Value};

/// The type of a metric source that is a condition on `calls`.
pub const SOURCE_TYPE: &str = "toolgauge";
/// Longest rolling window: rows are kept for 396 days.
pub const WINDOW_MAX: Window = Window::from_minutes(366 * 1_440);
/// Longest expression, in bytes.
pub const WHERE_BYTES_MAX: usize = 16 << 10;
/// Most objectives of an SLO.
const OBJECTIVES_MAX: usize = 100;

/// A document that has the shape of its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) file: Arc<str>,
    pub(super) node: Node,
}

/// An SLO that is understood but not evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotEvaluated {
    /// Its service.
    pub service: String,
    /// Its name.
    pub name: String,
    /// Its file.
    pub file: Arc<str>,
    /// Where in it.
    pub place: Place,
    /// Why, and what to write instead.
    pub reason: String,
}

/// What a set of objects comes to.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    pub(super) slos: Vec<Slo>,
    pub(super) not_evaluated: Vec<NotEvaluated>,
    pub(super) faults: Vec<Fault>,
}

/// Resolves all objects together.
pub(super) fn resolve(objects: &[Object]) -> Resolved {
    let mut resolver = Resolver { known: HashMap::new(), faults: BTreeMap::new() };
    let mut resolved = Resolved::default();
    let mut slos: HashMap<(&str, &str), &Object> = HashMap::new();
    for object in objects {
        let twice = if object.kind == "SLO" {
            let service = object.node.at(&["spec", "service"]).and_then(Node::text).unwrap_or_default();
            slos.insert((service, &object.name), object)
        } else {
            resolver.known.insert((&object.kind, &object.name), object)
        };
        if let Some(first) = twice {
            let message = format!(
                "{} \"{}\" is already in {}:{} (give one of them another name)",
                object.kind, object.name, first.file, first.node.place.line
            );
            let faults = resolver.faults_of(object);
            // Nothing depends on a service's document.
            if object.kind == "Service" {
                faults.warning(object.node.place, "metadata.name", message);
            } else {
                faults.error(object.node.place, "metadata.name", message);
            }
        }
    }
    for object in objects {
        let metadata = object.node.get("metadata");
        match object.kind.as_str() {
            "SLO" => resolver.slo(object, &mut resolved),
            "SLI" => {
                of_sli(metadata, "metadata", resolver.faults_of(object));
                if let Some(spec) = object.node.get("spec") {
                    resolver.sli_is_whole(object, spec, "spec");
                }
            }
            "AlertPolicy" => {
                of_alert(metadata, "metadata", resolver.faults_of(object));
                if let Some(spec) = object.node.get("spec") {
                    resolver.policy(object, spec, "spec");
                }
            }
            "AlertCondition" => {
                of_alert(metadata, "metadata", resolver.faults_of(object));
                resolver.condition(object, object.node.get("spec"), "spec");
            }
            _ => of_others(metadata, "metadata", resolver.faults_of(object)),
        }
    }
    resolved.faults = resolver.faults.into_values().flat_map(Faults::finish).collect();
    resolved
}

pub(super) struct Resolver<'a> {
    known: HashMap<(&'a str, &'a str), &'a Object>,
    faults: BTreeMap<Arc<str>, Faults>,
}

/// The spec of an SLI.
type SliSpec<'a> = Part<'a>;

/// Why an SLO gives none that can be evaluated: an error was noted, or it is another system's.
pub(super) enum Unfit {
    Faulty,
    Foreign(String),
}

impl<'a> Resolver<'a> {
    pub(super) fn faults_of(&mut self, object: &Object) -> &mut Faults {
        self.faults.entry(Arc::clone(&object.file)).or_insert_with(|| Faults::new(&object.file))
    }

    pub(super) fn error(&mut self, object: &Object, place: Place, key: &str, message: impl Into<String>) -> Unfit {
        self.faults_of(object).error(place, key, message);
        Unfit::Faulty
    }

    /// The object that a reference names; an error if there is none.
    pub(super) fn follow(
        &mut self,
        object: &Object,
        holder: &Node,
        path: &str,
        key: &str,
        kind: &'a str,
    ) -> Option<&'a Object> {
        let reference = holder.get(key)?;
        let name = reference.text()?;
        let found = self.known.get(&(kind, name)).copied();
        if found.is_none() {
            let message = format!("there is no {kind} \"{name}\" in the files given (add it, or correct the name)");
            self.error(object, reference.place, &join(path, key), message);
        }
        found
    }

    fn condition(&mut self, object: &Object, spec: Option<&Node>, path: &str) {
        let Some(condition) = spec.and_then(|spec| spec.get("condition")) else { return };
        if let Some(op) = condition.get("op").filter(|op| matches!(op.text(), Some("lte" | "lt"))) {
            let message = "a burn rate alerts when it is too high; this is read as `gte`";
            self.faults_of(object).warning(op.place, &join(path, "condition.op"), message);
        }
    }

    /// An item that is an object or a reference to one.
    fn is_one_of(&mut self, object: &Object, item: &Node, path: &str, reference: &str) {
        let message = match (item.get(reference), item.get("spec")) {
            (Some(_), Some(_)) => format!("`{reference}` and `spec` stand beside each other (keep one)"),
            (None, None) => format!("there is neither `{reference}` nor `spec` (write one)"),
            _ => return,
        };
        self.error(object, item.place, path, message);
    }

    fn policy(&mut self, object: &'a Object, spec: &'a Node, path: &str) {
        let conditions = spec.get("conditions").map_or(&[][..], Node::items);
        if conditions.len() != 1 {
            let message = format!("OpenSLO allows exactly one condition in a policy, here are {}", conditions.len());
            self.error(object, spec.place, &join(path, "conditions"), message);
        }
        for (index, item) in conditions.iter().enumerate() {
            let path = format!("{path}.conditions[{index}]");
            self.is_one_of(object, item, &path, "conditionRef");
            self.follow(object, item, &path, "conditionRef", "AlertCondition");
            self.condition(object, item.get("spec"), &join(&path, "spec"));
        }
        let targets = spec.get("notificationTargets").map_or(&[][..], Node::items);
        if targets.is_empty() {
            self.error(object, spec.place, &join(path, "notificationTargets"), "a policy needs at least one target");
        }
        for (index, item) in targets.iter().enumerate() {
            let path = format!("{path}.notificationTargets[{index}]");
            self.is_one_of(object, item, &path, "targetRef");
            self.follow(object, item, &path, "targetRef", "AlertNotificationTarget");
        }
    }

    /// Whether an SLI has one metric with the parts it needs.
    fn sli_is_whole(&mut self, object: &Object, spec: &Node, path: &str) -> bool {
        let mut is_whole = true;
        let metrics = [&["thresholdMetric"][..], &["ratioMetric", "good"], &["ratioMetric", "bad"]];
        for keys in metrics.into_iter().chain([&["ratioMetric", "total"][..], &["ratioMetric", "raw"]]) {
            let Some(source) = spec.at(keys).and_then(|metric| metric.get("metricSource")) else { continue };
            if source.get("spec").is_some_and(|spec| spec.entries().is_empty()) {
                let key = format!("{}.metricSource.spec", join(path, &keys.join(".")));
                self.error(object, source.place, &key, "it says nothing (write what is measured, like `where: ...`)");
                is_whole = false;
            }
        }
        self.sli_has_a_metric(object, spec, path) && is_whole
    }

    fn sli_has_a_metric(&mut self, object: &Object, spec: &Node, path: &str) -> bool {
        let message = match (spec.get("thresholdMetric"), spec.get("ratioMetric")) {
            (Some(_), None) => return true,
            (None, Some(ratio)) => {
                let has = |key| usize::from(ratio.get(key).is_some());
                let counts = has("good") + has("bad") == 1 && has("total") == 1 && has("raw") + has("rawType") == 0;
                let is_raw = has("raw") == 1 && has("rawType") == 1 && has("good") + has("bad") + has("total") == 0;
                if counts || is_raw {
                    return true;
                }
                self.error(
                    object,
                    ratio.place,
                    &join(path, "ratioMetric"),
                    "a ratio needs `total` and one of `good` and `bad` (or `raw` and `rawType`)",
                );
                return false;
            }
            (Some(_), Some(_)) => "`thresholdMetric` and `ratioMetric` stand beside each other (keep one)",
            (None, None) => "there is neither `ratioMetric` nor `thresholdMetric` (write one)",
        };
        self.error(object, spec.place, path, message);
        false
    }

    fn slo(&mut self, object: &'a Object, resolved: &mut Resolved) {
        let Some(spec) = object.node.get("spec") else { return };
        for (index, item) in spec.get("alertPolicies").map_or(&[][..], Node::items).iter().enumerate() {
            let path = format!("spec.alertPolicies[{index}]");
            self.is_one_of(object, item, &path, "alertPolicyRef");
            self.follow(object, item, &path, "alertPolicyRef", "AlertPolicy");
            if let Some(policy) = item.get("spec") {
                self.policy(object, policy, &join(&path, "spec"));
            }
        }
        let window_is_whole = self.window_is_whole(object, spec);
        let service = spec.text_of("service").unwrap_or_default().to_owned();
        match self.objectives(object, spec) {
            Ok(slos) if window_is_whole => resolved.slos.extend(slos),
            Ok(_) | Err(Unfit::Faulty) => {}
            Err(Unfit::Foreign(reason)) => {
                self.faults_of(object).warning(object.node.place, "", format!("not evaluated: {reason}"));
                let (name, file) = (object.name.clone(), Arc::clone(&object.file));
                resolved.not_evaluated.push(NotEvaluated { service, name, file, place: object.node.place, reason });
            }
        }
    }

    /// One SLO for each objective.
    fn objectives(&mut self, object: &'a Object, spec: &'a Node) -> Result<Vec<Slo>, Unfit> {
        const PATH: &str = "spec.objectives";
        let objectives = spec.get("objectives").ok_or(Unfit::Faulty)?;
        let items = objectives.items();
        if !(1..=OBJECTIVES_MAX).contains(&items.len()) {
            let message = format!("an SLO has 1 to {OBJECTIVES_MAX} objectives, here are {}", items.len());
            return Err(self.error(object, objectives.place, PATH, message));
        }
        let has_own = |item: &Node| item.get("indicator").is_some() || item.get("indicatorRef").is_some();
        let shared =
            if items.iter().any(has_own) && spec.get("indicator").is_none() && spec.get("indicatorRef").is_none() {
                None
            } else {
                Some(self.indicator(object, spec, "spec")?)
            };
        let mut names: Vec<String> = Vec::new();
        let mut found: Result<Vec<Slo>, Unfit> = Ok(Vec::new());
        for (index, item) in items.iter().enumerate() {
            let path = format!("{PATH}[{index}]");
            let slo = match &shared {
                Some(_) if has_own(item) => {
                    let message = "the objective has an indicator of its own beside that of the SLO (keep one)";
                    Err(self.error(object, item.place, &path, message))
                }
                Some(sli) => self.evaluated(object, spec, item, &path, sli),
                None => {
                    self.indicator(object, item, &path).and_then(|sli| self.evaluated(object, spec, item, &path, &sli))
                }
            };
            let slo = slo.and_then(|slo| self.named(object, item, &path, slo, items.len() > 1, &mut names));
            found = match (found, slo) {
                (Ok(mut slos), Ok(slo)) => {
                    slos.push(slo);
                    Ok(slos)
                }
                // What is wrong comes before what is another system's.
                (_, Err(Unfit::Faulty)) | (Err(Unfit::Faulty), _) => Err(Unfit::Faulty),
                (Ok(_), Err(foreign)) | (Err(foreign), _) => Err(foreign),
            };
        }
        if found.is_ok() && shared.is_none() && items.len() > 1 {
            let message = "the objectives have indicators of their own: each is evaluated as an SLO of its own, there is no \
                           budget of all together, and `compositeWeight` is not looked at";
            self.faults_of(object).warning(objectives.place, PATH, message);
        }
        found
    }

    /// One of several objectives is an SLO that has the objective's name, too.
    fn named(
        &mut self,
        object: &Object,
        objective: &Node,
        path: &str,
        mut slo: Slo,
        is_one_of_several: bool,
        names: &mut Vec<String>,
    ) -> Result<Slo, Unfit> {
        let display_name = objective.text_of("displayName");
        if !is_one_of_several {
            return Ok(slo);
        }
        let name = display_name.map(slug).unwrap_or_default();
        if name.is_empty() || names.contains(&name) {
            let message = "each of several objectives is an SLO of its own, and needs a name that no other has (write \
                           `displayName`)";
            return Err(self.error(object, objective.place, path, message));
        }
        slo.name = format!("{}-{name}", slo.name);
        if slo.name.len() > NAME_CHARS_MAX {
            let message =
                format!("the SLO's and the objective's names are together longer than {NAME_CHARS_MAX} characters");
            return Err(self.error(object, objective.place, path, message));
        }
        names.push(name);
        let whole = slo.display_name.take().map_or(String::new(), |whole| format!("{whole}: "));
        slo.display_name = Some(format!("{whole}{}", display_name.unwrap_or_default()));
        Ok(slo)
    }

    fn indicator(&mut self, object: &'a Object, holder: &'a Node, path: &str) -> Result<SliSpec<'a>, Unfit> {
        match (holder.get("indicator"), holder.get("indicatorRef")) {
            (Some(inline), None) => Part::inline(object, inline, &join(path, "indicator")).ok_or(Unfit::Faulty),
            (None, Some(_)) => {
                let found = self.follow(object, holder, path, "indicatorRef", "SLI").ok_or(Unfit::Faulty)?;
                Part::of_object(found).ok_or(Unfit::Faulty)
            }
            (Some(_), Some(_)) => {
                let message = "`indicator` and `indicatorRef` stand beside each other (keep one)";
                Err(self.error(object, holder.place, path, message))
            }
            (None, None) => Err(self.error(
                object,
                holder.place,
                path,
                "there is neither `indicator` nor `indicatorRef` (write one)",
            )),
        }
    }

    /// The type of a metric source, its own or that of the data source it names.
    fn source_type(&self, source: &Node) -> Option<String> {
        if let Some(own) = source.text_of("type") {
            return Some(own.to_owned());
        }
        let reference = source.text_of("metricSourceRef")?;
        let data_source = self.known.get(&("DataSource", reference))?;
        data_source.node.at(&["spec", "type"]).and_then(Node::text).map(str::to_owned)
    }

    fn evaluated(
        &mut self,
        object: &'a Object,
        spec: &'a Node,
        objective: &'a Node,
        path: &str,
        sli: &SliSpec<'a>,
    ) -> Result<Slo, Unfit> {
        if !self.sli_is_whole(sli.owner, sli.node, &sli.path) {
            return Err(Unfit::Faulty);
        }
        let is_ratio = sli.node.get("ratioMetric").is_some();
        let method = spec.get("budgetingMethod").ok_or(Unfit::Faulty)?;
        let metadata = object.node.get("metadata");
        let annotations = of_slo(metadata, "metadata", self.faults_of(object));
        let sli_annotations = of_sli(sli.metadata, &sli.metadata_path, self.faults_of(sli.owner));
        let is_whole = self.objective(object, objective, path, is_ratio, method.text().unwrap_or_default());
        let (Some(annotations), Some(sli_annotations), true) = (annotations, sli_annotations, is_whole) else {
            return Err(Unfit::Faulty);
        };
        self.is_ours(sli)?;
        if !is_ratio {
            let message = "thresholds of a metric are not evaluated; count the events that keep it instead: write \
                           `ratioMetric`, with the threshold in the `where` of `good`, such as `duration_ns <= 500000000`";
            return Err(self.error(sli.owner, sli.node.place, &join(&sli.path, "thresholdMetric"), message));
        }
        let mode = annotations.mode.or(sli_annotations.0).unwrap_or(Mode::Logical);
        let counted = self.sli(sli, mode, annotations.layer.or(sli_annotations.1))?;
        let period = self.period(object, spec)?;
        let window = period.nominal();
        let budgeting = self.budgeting(object, method, objective, path, window)?;
        let target = self.target(object, objective, path)?;
        let policies = spec.get("alertPolicies").filter(|policies| !policies.items().is_empty());
        let (mut tiers, left_out) = match policies {
            Some(policies) => {
                let terms = Terms { name: &object.name, period: window, budgeting, target, annotations: &annotations };
                (self.tiers(object, policies, &terms)?, Vec::new())
            }
            None => default_tiers(window, budgeting, target, &annotations),
        };
        if let Some(consumption) = &annotations.consumption {
            let is_taken = tiers.iter().any(|tier| *tier.tier.name == *CONSUMPTION);
            let tier = consumption.tier(window, target, &annotations).and_then(|tier| {
                let message = "a policy's tier has the name \"consumption\" already (give the policy another one)";
                if is_taken { Err(message.to_owned()) } else { Ok(tier) }
            });
            match tier {
                Ok(tier) => tiers.push(tier),
                Err(message) => {
                    const KEY: &str = "metadata.annotations.toolgauge/consumption";
                    let place = metadata.and_then(|metadata| metadata.get("annotations"));
                    let place = place.and_then(|all| all.get("toolgauge/consumption")).unwrap_or(&object.node).place;
                    return Err(self.error(object, place, KEY, message));
                }
            }
        }
        let text = |node: Option<&Node>, key| node.and_then(|node| node.text_of(key)).map(str::to_owned);
        Ok(Slo {
            service: text(Some(spec), "service").ok_or(Unfit::Faulty)?,
            name: object.name.clone(),
            display_name: text(metadata, "displayName"),
            description: text(Some(spec), "description"),
            sli: counted,
            target,
            window,
            period,
            budgeting,
            tiers,
            left_out,
            guards: annotations.guards,
            exclusions: annotations.exclusions,
            group_by: annotations.group_by,
            cost_budget: annotations.cost_budget,
            ticket_severity: annotations.severities.ticket,
            file: Arc::clone(&object.file),
            place: object.node.place,
        })
    }

    /// Whether all metric sources are conditions on `calls`.
    fn is_ours(&mut self, sli: &SliSpec<'a>) -> Result<(), Unfit> {
        let sources = ["thresholdMetric", "ratioMetric"].into_iter().filter_map(|key| sli.node.get(key));
        let metrics = sources.flat_map(|metric| {
            let parts =
                ["good", "bad", "total", "raw"].into_iter().filter_map(|part| metric.at(&[part, "metricSource"]));
            parts.chain(metric.get("metricSource"))
        });
        for source in metrics {
            let found = self.source_type(source);
            if found.as_deref() != Some(SOURCE_TYPE) {
                let found = found.map_or("of no known type".to_owned(), |found| format!("of type \"{found}\""));
                return Err(Unfit::Foreign(format!(
                    "its metric source is {found} (write `type: {SOURCE_TYPE}` and, in `spec`, `where: ...` with a SQL \
                     condition on the table `calls`)"
                )));
            }
        }
        Ok(())
    }

    /// What is wrong or odd about an objective, whoever evaluates it; false if it is wrong.
    fn objective(&mut self, object: &Object, objective: &Node, path: &str, is_ratio: bool, method: &str) -> bool {
        let has = |key| objective.get(key).is_some();
        let mut errors: Vec<(&str, String)> = Vec::new();
        if is_ratio {
            for key in ["op", "value"].into_iter().filter(|key| has(key)) {
                let message = match key {
                    "op" => "a ratio is always compared with its target by `gte`; this is not looked at",
                    _ => "a ratio has no value of its own besides its target; this is not looked at",
                };
                let place = objective.get(key).map_or(objective.place, |node| node.place);
                self.faults_of(object).warning(place, &join(path, key), message);
            }
        } else {
            for key in ["op", "value"].into_iter().filter(|key| !has(key)) {
                errors.push((key, format!("the key {key:?} is missing (a threshold needs it)")));
            }
        }
        match (has("target"), has("targetPercent")) {
            (true, true) => {
                errors.push(("", "`target` and `targetPercent` stand beside each other (keep one)".to_owned()));
            }
            (false, false) => errors.push(("", "the key \"target\" is missing (write like 0.999)".to_owned())),
            (has_target, _) => {
                let key = if has_target { "target" } else { "targetPercent" };
                let text = objective.text_of(key).unwrap_or_default();
                if let Some(message) = wrong_target(text, key) {
                    errors.push((key, message));
                }
            }
        }
        let (slices, ratios) = (method == "Timeslices", method == "RatioTimeslices");
        let needed = [("timeSliceTarget", slices), ("timeSliceWindow", slices || ratios)];
        for (key, needed) in needed {
            match (objective.get(key), needed) {
                (None, true) => errors.push(("", format!("the key {key:?} is missing ({method} needs it)"))),
                (Some(node), false) => {
                    let message = format!("{method} has none; this is not looked at");
                    self.faults_of(object).warning(node.place, &join(path, key), message);
                }
                _ => {}
            }
        }
        if let Some(text) = objective.text_of("timeSliceTarget") {
            let is_share =
                Ratio::from_decimal(text).is_some_and(|share| share <= Ratio::ONE && share > Ratio::percent(0));
            if !is_share {
                errors.push((
                    "timeSliceTarget",
                    format!("must be a decimal number above 0 and at most 1, got {text:?} (write like 0.95)"),
                ));
            }
        }
        if let Some(text) = objective.text_of("compositeWeight")
            && Ratio::from_decimal(text).is_none_or(|weight| weight == Ratio::percent(0))
        {
            errors.push(("compositeWeight", format!("must be a decimal number above 0, got {text:?} (write like 1)")));
        }
        let is_whole = errors.is_empty();
        for (key, message) in errors {
            let place = objective.get(key).map_or(objective.place, |node| node.place);
            let key = if key.is_empty() { path.to_owned() } else { join(path, key) };
            self.error(object, place, &key, message);
        }
        is_whole
    }

    fn budgeting(
        &mut self,
        object: &Object,
        method: &Node,
        objective: &Node,
        path: &str,
        period: Window,
    ) -> Result<Budgeting, Unfit> {
        match method.text() {
            Some("Occurrences") => Ok(Budgeting::Occurrences),
            Some("Timeslices") => {
                let node = objective.get("timeSliceWindow").ok_or(Unfit::Faulty)?;
                let text = node.text().unwrap_or_default();
                let minutes = text.parse().ok().filter(|minutes| *minutes > 0);
                let length = minutes.map(Window::from_minutes).or_else(|| window_of(text));
                let length = length.filter(|length| length.minutes() * SLICES_MIN <= period.minutes());
                let target = objective.text_of("timeSliceTarget").and_then(Ratio::from_decimal).ok_or(Unfit::Faulty)?;
                length.and_then(|length| Slices::new(length.minutes(), target)).map(Budgeting::Timeslices).ok_or_else(|| {
                    let message = format!(
                        "{text:?} is no length of a slice (write one from 1m to {}, of which the period of {period} has \
                         at least {SLICES_MIN})",
                        Window::from_minutes(SLICE_MINUTES_MAX)
                    );
                    self.error(object, node.place, &join(path, "timeSliceWindow"), message)
                })
            }
            method_text => {
                let message = format!(
                    "{:?} is not evaluated: an average of ratios weighs a slice of one event like one of a million (write \
                     Occurrences, which counts the events themselves, or Timeslices, with `timeSliceTarget`)",
                    method_text.unwrap_or_default()
                );
                Err(self.error(object, method.place, "spec.budgetingMethod", message))
            }
        }
    }

    fn target(&mut self, object: &Object, objective: &Node, path: &str) -> Result<Target, Unfit> {
        let key = if objective.get("target").is_some() { "target" } else { "targetPercent" };
        let node = objective.get(key).ok_or(Unfit::Faulty)?;
        let text = node.text().unwrap_or_default();
        let target = if key == "target" { Target::from_ratio(text) } else { Target::from_percent(text) };
        let message = match target {
            Ok(target) if target.units() > 0 => return Ok(target),
            Ok(_) => "a target of 0 is met by anything (write one above 0, like 0.999)".to_owned(),
            Err(error) => format!("a target {error}"),
        };
        Err(self.error(object, node.place, &join(path, key), message))
    }

    /// What is wrong about a time window, whoever evaluates it; false if anything is.
    fn window_is_whole(&mut self, object: &Object, spec: &Node) -> bool {
        const KEY: &str = "spec.timeWindow";
        let windows = spec.get("timeWindow").map_or(&[][..], Node::items);
        let Some(window) = windows.first() else { return true };
        let path = format!("{KEY}[0]");
        let mut wrong: Vec<(Place, String, String)> = Vec::new();
        if windows.len() > 1 {
            let message = format!("OpenSLO allows one window of an SLO, here are {}", windows.len());
            wrong.push((windows[1].place, format!("{KEY}[1]"), message));
        }
        match (window.text_of("isRolling"), window.get("calendar")) {
            (Some("true"), Some(calendar)) => {
                let message = "a rolling window has no calendar (leave it out, or write `isRolling: false`)";
                wrong.push((calendar.place, join(&path, "calendar"), message.to_owned()));
            }
            (Some("false"), None) => {
                let message = "a window that is not rolling needs `calendar` (write `startTime: 2026-01-01 00:00:00` and \
                               `timeZone: Europe/Berlin` in it, or `isRolling: true`)";
                wrong.push((window.place, path, message.to_owned()));
            }
            (Some("false"), Some(calendar)) => {
                let faults = [
                    ("startTime", calendar.text_of("startTime").and_then(|text| parse_start(text).err())),
                    ("timeZone", calendar.text_of("timeZone").and_then(|text| parse_zone(text).err())),
                ];
                for (key, error) in faults.into_iter().filter_map(|(key, fault)| Some((key, fault?))) {
                    let place = calendar.get(key).map_or(calendar.place, |node| node.place);
                    wrong.push((place, format!("{path}.calendar.{key}"), error.to_string()));
                }
            }
            _ => {}
        }
        let is_whole = wrong.is_empty();
        for (place, key, message) in wrong {
            self.error(object, place, &key, message);
        }
        is_whole
    }

    fn period(&mut self, object: &Object, spec: &Node) -> Result<Period, Unfit> {
        const KEY: &str = "spec.timeWindow";
        let windows = spec.get("timeWindow").map_or(&[][..], Node::items);
        let [window] = windows else {
            if windows.len() > 1 {
                return Err(Unfit::Faulty);
            }
            let message = "an SLO needs a window (write `- duration: 30d` with `isRolling: true`)";
            return Err(self.error(object, spec.get("timeWindow").unwrap_or(spec).place, KEY, message));
        };
        let duration = window.get("duration").ok_or(Unfit::Faulty)?;
        let text = duration.text().unwrap_or_default();
        let key = format!("{KEY}[0].duration");
        if window.text_of("isRolling") == Some("true") {
            let found = window_of(text).filter(|window| (Window::H1..=WINDOW_MAX).contains(window));
            return found.map(Period::Rolling).ok_or_else(|| {
                let message = format!(
                    "{text:?} is no window that can be kept (write one from {} to {WINDOW_MAX}, like 30d)",
                    Window::H1
                );
                self.error(object, duration.place, &key, message)
            });
        }
        let calendar = window.get("calendar").ok_or(Unfit::Faulty)?;
        let (Some(start), Some(zone)) = (calendar.get("startTime"), calendar.get("timeZone")) else {
            return Err(Unfit::Faulty);
        };
        match Calendar::parse(text, start.text().unwrap_or_default(), zone.text().unwrap_or_default()) {
            Ok(calendar) => Ok(Period::Calendar(calendar)),
            Err(error @ (CalendarError::Duration(_) | CalendarError::Length(_))) => {
                Err(self.error(object, duration.place, &key, error.to_string()))
            }
            Err(CalendarError::Start(_)) if parse_start(start.text().unwrap_or_default()).is_ok() => {
                let message = format!(
                    "{:?} is no whole minute from 1970 on; counts are kept by the minute (write like \"2026-01-01 00:00:00\")",
                    start.text().unwrap_or_default()
                );
                Err(self.error(object, start.place, &format!("{KEY}[0].calendar.startTime"), message))
            }
            // It was told with the window as a whole.
            Err(CalendarError::Start(_) | CalendarError::Zone(_)) => Err(Unfit::Faulty),
        }
    }

    fn sli(&mut self, sli: &SliSpec<'a>, mode: Mode, layer: Option<Layer>) -> Result<Sli, Unfit> {
        let ratio = sli.node.get("ratioMetric").ok_or(Unfit::Faulty)?;
        if let Some(raw) = ratio.get("raw") {
            let message =
                "a ratio that is already computed is not evaluated (write `good` and `total`, which count events)";
            return Err(self.error(sli.owner, raw.place, &join(&sli.path, "ratioMetric.raw"), message));
        }
        let (judged, part) = if ratio.get("good").is_some() { (Judged::Good, "good") } else { (Judged::Bad, "bad") };
        let total = self.condition_of(sli, ratio, "total");
        let judge = self.condition_of(sli, ratio, part);
        Ok(Sli { mode, layer, total: total?, judged, judge: judge? })
    }

    fn condition_of(&mut self, sli: &SliSpec<'a>, ratio: &Node, part: &str) -> Result<Where, Unfit> {
        let spec = ratio.at(&[part, "metricSource", "spec"]).ok_or(Unfit::Faulty)?;
        let path = format!("{}.ratioMetric.{part}.metricSource.spec", sli.path);
        let Value::Map(entries) = &spec.value else {
            return Err(self.error(sli.owner, spec.place, &path, "here is no map (write `where: ...`)"));
        };
        let mut fault = None;
        for entry in entries.iter().filter(|entry| entry.key != "where") {
            let message = "the key is not known (the only one is `where`)";
            fault = Some(self.error(sli.owner, entry.place, &join(&path, &entry.key), message));
        }
        let key = join(&path, "where");
        let Some((text, node)) = spec.get("where").and_then(|node| Some((node.text()?, node))) else {
            let message = "the key \"where\" is missing (write a SQL condition such as \"outcome = 'ok'\")";
            return Err(self.error(sli.owner, spec.place, &path, message));
        };
        if text.len() > WHERE_BYTES_MAX {
            let message = format!("the condition has {} bytes, at most {WHERE_BYTES_MAX} are taken", text.len());
            return Err(self.error(sli.owner, node.place, &key, message));
        }
        match fault {
            Some(fault) => Err(fault),
            None => Ok(Where { text: text.to_owned(), file: Arc::clone(&sli.owner.file), place: node.place, key }),
        }
    }
}

/// Why a target is none, if it is none.
fn wrong_target(text: &str, key: &str) -> Option<String> {
    let (below, whole) = if key == "target" { (1, Ratio::ONE) } else { (100, Ratio::percent(10_000)) };
    let Some(ratio) = Ratio::from_decimal(text) else {
        return Some(format!("a target must be a decimal number from 0 to below {below}, got {text:?}"));
    };
    if ratio < whole {
        return None;
    }
    let example = if below == 1 { "0.999" } else { "99.9" };
    let reason = if ratio == whole {
        "; a target of 100 % leaves no budget, one bad event would burn it infinitely fast"
    } else {
        ""
    };
    Some(format!(
        "a target must be a decimal number from 0 to below {below}, got {text:?} (write something like {example}){reason}"
    ))
}

/// A name of lower-case letters, digits and dashes for what people have named.
fn slug(text: &str) -> String {
    let mut slug = String::new();
    for c in text.chars().flat_map(char::to_lowercase) {
        match c {
            'a'..='z' | '0'..='9' => slug.push(c),
            _ if slug.ends_with('-') || slug.is_empty() => {}
            _ => slug.push('-'),
        }
    }
    slug.trim_end_matches('-').to_owned()
}

#[cfg(test)]
pub(super) mod tests;
