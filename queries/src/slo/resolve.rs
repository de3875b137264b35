//! From documents to SLOs: follows references and says of each SLO whether it can be evaluated.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use toolgauge_analytics::budget::{Ratio, Target};
use toolgauge_analytics::window::Window;
use toolgauge_proto::call::Layer;

use super::definition::{Budgeting, Guards, Judged, Mode, Period, Sli, Slo, Where, window_of};
use super::fault::{Fault, Faults, Place};
use super::shape::join;
use super::tiers::{Severities, default_tiers};
use super::yaml::{Node, Value};

/// The type of a metric source that is a condition on `calls`.
pub const SOURCE_TYPE: &str = "toolgauge";
/// Longest rolling window: rows are kept for 396 days.
pub const WINDOW_MAX: Window = Window::from_minutes(366 * 1_440);
/// Longest expression, in bytes.
pub const WHERE_BYTES_MAX: usize = 16 << 10;
/// Prefix of annotations that are ours.
const ANNOTATION_PREFIX: &str = "toolgauge/";
const ANNOTATIONS: &[&str] = &["toolgauge/layer", "toolgauge/mode"];

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
        match object.kind.as_str() {
            "SLO" => resolver.slo(object, &mut resolved),
            "SLI" => {
                if let Some(spec) = object.node.get("spec") {
                    resolver.sli_is_whole(object, spec, "spec");
                }
            }
            "AlertPolicy" => {
                if let Some(spec) = object.node.get("spec") {
                    resolver.policy(object, spec, "spec");
                }
            }
            "AlertCondition" => resolver.condition(object, object.node.get("spec"), "spec"),
            _ => {}
        }
    }
    resolved.faults = resolver.faults.into_values().flat_map(Faults::finish).collect();
    resolved
}

struct Resolver<'a> {
    known: HashMap<(&'a str, &'a str), &'a Object>,
    faults: BTreeMap<Arc<str>, Faults>,
}

/// The spec of an SLI, with the object and path where it stands.
struct SliSpec<'a> {
    owner: &'a Object,
    path: String,
    node: &'a Node,
}

/// Why an SLO gives none that can be evaluated: an error was noted, or it is another system's.
enum Unfit {
    Faulty,
    Foreign(String),
}

impl<'a> Resolver<'a> {
    fn faults_of(&mut self, object: &Object) -> &mut Faults {
        self.faults.entry(Arc::clone(&object.file)).or_insert_with(|| Faults::new(&object.file))
    }

    fn error(&mut self, object: &Object, place: Place, key: &str, message: impl Into<String>) -> Unfit {
        self.faults_of(object).error(place, key, message);
        Unfit::Faulty
    }

    /// The object that a reference names; an error if there is none.
    fn follow(&mut self, object: &Object, holder: &Node, path: &str, key: &str, kind: &'a str) -> Option<&'a Object> {
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
        let service = spec.text_of("service").unwrap_or_default().to_owned();
        match self.evaluated(object, spec) {
            Ok(slo) => resolved.slos.push(slo),
            Err(Unfit::Faulty) => {}
            Err(Unfit::Foreign(reason)) => {
                self.faults_of(object).warning(object.node.place, "", format!("not evaluated: {reason}"));
                let (name, file) = (object.name.clone(), Arc::clone(&object.file));
                resolved.not_evaluated.push(NotEvaluated { service, name, file, place: object.node.place, reason });
            }
        }
    }

    fn indicator(&mut self, object: &'a Object, spec: &'a Node) -> Result<SliSpec<'a>, Unfit> {
        match (spec.get("indicator"), spec.get("indicatorRef")) {
            (Some(inline), None) => {
                let node = inline.get("spec").ok_or(Unfit::Faulty)?;
                Ok(SliSpec { owner: object, path: "spec.indicator.spec".to_owned(), node })
            }
            (None, Some(_)) => {
                let found = self.follow(object, spec, "spec", "indicatorRef", "SLI").ok_or(Unfit::Faulty)?;
                let node = found.node.get("spec").ok_or(Unfit::Faulty)?;
                Ok(SliSpec { owner: found, path: "spec".to_owned(), node })
            }
            (Some(_), Some(_)) => {
                let message = "`indicator` and `indicatorRef` stand beside each other (keep one)";
                Err(self.error(object, spec.place, "spec", message))
            }
            (None, None) => {
                let objectives = spec.get("objectives").map_or(&[][..], Node::items);
                if objectives
                    .iter()
                    .any(|objective| objective.get("indicator").is_some() || objective.get("indicatorRef").is_some())
                {
                    let message = "objectives with indicators of their own (composite SLOs) are not supported yet \
                                   (write one SLO for each)";
                    return Err(self.error(object, spec.place, "spec.objectives", message));
                }
                Err(self.error(
                    object,
                    spec.place,
                    "spec",
                    "there is neither `indicator` nor `indicatorRef` (write one)",
                ))
            }
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

    fn evaluated(&mut self, object: &'a Object, spec: &'a Node) -> Result<Slo, Unfit> {
        let sli = self.indicator(object, spec)?;
        if !self.sli_is_whole(sli.owner, sli.node, &sli.path) {
            return Err(Unfit::Faulty);
        }
        let objectives = spec.get("objectives").ok_or(Unfit::Faulty)?;
        let is_ratio = sli.node.get("ratioMetric").is_some();
        for (index, objective) in objectives.items().iter().enumerate() {
            self.objective(object, objective, &format!("spec.objectives[{index}]"), is_ratio);
        }
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
        if !is_ratio {
            let message = "thresholds of a metric are not evaluated; count the events that keep it instead: write \
                           `ratioMetric`, with the threshold in the `where` of `good`, such as `duration_ns <= 500000000`";
            return Err(self.error(sli.owner, sli.node.place, &join(&sli.path, "thresholdMetric"), message));
        }
        let counted = self.sli(object, &sli)?;
        let window = self.window(object, spec)?;
        let method = spec.get("budgetingMethod").ok_or(Unfit::Faulty)?;
        if method.text() != Some("Occurrences") {
            let message = format!("{:?} is not supported yet (write Occurrences)", method.text().unwrap_or_default());
            return Err(self.error(object, method.place, "spec.budgetingMethod", message));
        }
        if let Some(policies) = spec.get("alertPolicies").filter(|policies| !policies.items().is_empty()) {
            let message = "policies of one's own are not supported yet (leave `alertPolicies` out: every SLO alerts on \
                           the burn rates of the SRE workbook)";
            return Err(self.error(object, policies.place, "spec.alertPolicies", message));
        }
        let [objective] = objectives.items() else {
            let message =
                format!("an SLO has exactly one objective here, got {} (write one SLO each)", objectives.items().len());
            return Err(self.error(object, objectives.place, "spec.objectives", message));
        };
        let target = self.target(object, objective)?;
        let metadata = object.node.get("metadata");
        let text = |node: Option<&Node>, key| node.and_then(|node| node.text_of(key)).map(str::to_owned);
        let budgeting = Budgeting::Occurrences;
        let severities = Severities::default();
        let (tiers, left_out) = default_tiers(window, budgeting, target, &severities);
        Ok(Slo {
            service: text(Some(spec), "service").ok_or(Unfit::Faulty)?,
            name: object.name.clone(),
            display_name: text(metadata, "displayName"),
            description: text(Some(spec), "description"),
            sli: counted,
            target,
            window,
            period: Period::Rolling(window),
            budgeting,
            tiers,
            left_out,
            guards: Guards::default(),
            exclusions: Arc::default(),
            group_by: None,
            cost_budget: None,
            ticket_severity: severities.ticket,
            file: Arc::clone(&object.file),
            place: object.node.place,
        })
    }

    /// What is odd about an objective, whoever evaluates it.
    fn objective(&mut self, object: &Object, objective: &Node, path: &str, is_ratio: bool) {
        if let Some(op) = objective.get("op").filter(|_| is_ratio) {
            let message = "a ratio is always compared with its target by `gte`; this is not looked at";
            self.faults_of(object).warning(op.place, &join(path, "op"), message);
        }
        match (objective.get("target"), objective.get("targetPercent")) {
            (Some(_), Some(_)) => {
                let message = "`target` and `targetPercent` stand beside each other (keep one)";
                self.error(object, objective.place, path, message);
            }
            (None, None) => {
                self.error(object, objective.place, path, "the key \"target\" is missing (write like 0.999)");
            }
            _ => {}
        }
    }

    fn target(&mut self, object: &Object, objective: &Node) -> Result<Target, Unfit> {
        let key = if objective.get("target").is_some() { "target" } else { "targetPercent" };
        let node = objective.get(key).ok_or(Unfit::Faulty)?;
        let text = node.text().unwrap_or_default();
        let target = if key == "target" { Target::from_ratio(text) } else { Target::from_percent(text) };
        let message = match target {
            Ok(target) if target.units() > 0 => return Ok(target),
            Ok(_) => "a target of 0 is met by anything (write one above 0, like 0.999)".to_owned(),
            Err(error) => {
                let all = Ratio::from_decimal(text)
                    .is_some_and(|ratio| ratio == if key == "target" { Ratio::ONE } else { Ratio::percent(10_000) });
                let reason = if all {
                    "; a target of 100 % leaves no budget, one bad event would burn it infinitely fast"
                } else {
                    ""
                };
                format!("a target {error}{reason}")
            }
        };
        Err(self.error(object, node.place, &format!("spec.objectives[0].{key}"), message))
    }

    fn window(&mut self, object: &Object, spec: &Node) -> Result<Window, Unfit> {
        const KEY: &str = "spec.timeWindow";
        let windows = spec.get("timeWindow").map_or(&[][..], Node::items);
        let [window] = windows else {
            let message = format!(
                "an SLO needs exactly one window, got {} (write `- duration: 30d` with `isRolling: true`)",
                windows.len()
            );
            return Err(self.error(object, spec.get("timeWindow").unwrap_or(spec).place, KEY, message));
        };
        if window.text_of("isRolling") != Some("true") || window.get("calendar").is_some() {
            let message = "calendar windows are not supported yet (write `isRolling: true`, and no `calendar`)";
            return Err(self.error(object, window.place, &format!("{KEY}[0]"), message));
        }
        let duration = window.get("duration").ok_or(Unfit::Faulty)?;
        let text = duration.text().unwrap_or_default();
        window_of(text).filter(|window| (Window::H1..=WINDOW_MAX).contains(window)).ok_or_else(|| {
            let message = format!(
                "{text:?} is no window that can be kept (write one from {} to {WINDOW_MAX}, like 30d)",
                Window::H1
            );
            self.error(object, duration.place, &format!("{KEY}[0].duration"), message)
        })
    }

    fn sli(&mut self, object: &'a Object, sli: &SliSpec<'a>) -> Result<Sli, Unfit> {
        let (mode, layer) = self.annotations(object)?;
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

    fn annotations(&mut self, object: &Object) -> Result<(Mode, Option<Layer>), Unfit> {
        let (mut mode, mut layer, mut fault) = (Mode::Logical, None, None);
        let annotations = object.node.at(&["metadata", "annotations"]).map_or(&[][..], Node::entries);
        for entry in annotations.iter().filter(|entry| entry.key.starts_with(ANNOTATION_PREFIX)) {
            let value = entry.node.text().unwrap_or_default();
            let expected = match entry.key.as_str() {
                "toolgauge/mode" => match value {
                    "logical" => continue,
                    "attempt" => {
                        mode = Mode::Attempt;
                        continue;
                    }
                    _ => "write logical or attempt".to_owned(),
                },
                "toolgauge/layer" => match Layer::from_word(value) {
                    Some(found) => {
                        layer = Some(found);
                        continue;
                    }
                    None => format!("write one of: {}", Layer::WORDS.join(", ")),
                },
                _ => format!("known annotations: {}", ANNOTATIONS.join(", ")),
            };
            let message = format!("{value:?} is not known here ({expected})");
            fault = Some(self.error(object, entry.place, &format!("metadata.annotations.{}", entry.key), message));
        }
        fault.map_or(Ok((mode, layer)), Err)
    }
}
