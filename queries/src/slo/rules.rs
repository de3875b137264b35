//! From documents of `toolgauge/v1` to rules.

use std::collections::HashMap;
use std::sync::Arc;

use toolgauge_analytics::alert::Patience;
use toolgauge_analytics::budget::{Ratio, Severity, TARGET_PLACES, Target};
use toolgauge_analytics::calendar::Calendar;
use toolgauge_analytics::threshold::{Figure, NANOS_PER_USD, Op, Quantile};
use toolgauge_analytics::window::Window;
use toolgauge_proto::table::Table;

use super::definition::{self, CostPeriod, Where, window_of};
use super::fault::{self, Fault, Faults, Place};
use super::resolve::{Object, WHERE_BYTES_MAX};
use super::set::CompiledSlo;
use super::yaml::Node;
use crate::engine::{Engine, Error};
use crate::rules::definition::{
    BY, BY_MAX, Calls, CostBudget, Filter, GROUPS_DEFAULT, GROUPS_MAX, Header, Heartbeat, Hit, MINUTES_MAX, Measure,
    RULES_MAX, RuleSet, Selection, SessionFigure, SilenceLimit, ThresholdRule, WINDOW_MAX,
};

/// The metrics of thresholds.
pub(super) const METRICS: [&str; 8] = [
    "error_rate",
    "retry_rate",
    "burn_rate",
    "latency",
    "cost",
    "session_iterations",
    "session_cost",
    "session_duration",
];
/// Longest time that an alert may have to wait, or is held.
const PATIENCE_MAX: Window = Window::from_minutes(7 * 1_440);

/// What documents of rules come to.
#[derive(Debug, Default)]
pub(super) struct Rules {
    pub(super) set: RuleSet,
    pub(super) faults: Vec<Fault>,
}

/// Reads all rules; names are unique already.
pub(super) fn resolve(objects: &[Object], engine: &Engine) -> Rules {
    let mut reader = Reader { engine, faults: HashMap::new(), order: Vec::new() };
    let mut set = RuleSet::default();
    for object in objects {
        let Some(spec) = object.node.get("spec") else { continue };
        match object.kind.as_str() {
            "CostBudget" | "Heartbeat" | "ThresholdRule" if set.len() >= RULES_MAX => {
                let message = format!("there are more than {RULES_MAX} rules (keep fewer)");
                reader.faults_of(object).error(object.node.place, "", message);
            }
            "ThresholdRule" => set.thresholds.extend(reader.threshold(object, spec).map(Arc::new)),
            "CostBudget" => set.budgets.extend(reader.budget(object, spec).map(Arc::new)),
            "Heartbeat" => set.heartbeats.extend(reader.heartbeat(object, spec).map(Arc::new)),
            _ => {}
        }
    }
    set.thresholds.sort_by(|a, b| a.header.name.cmp(&b.header.name));
    set.budgets.sort_by(|a, b| a.header.name.cmp(&b.header.name));
    set.heartbeats.sort_by(|a, b| b.exactness().cmp(&a.exactness()).then_with(|| a.header.name.cmp(&b.header.name)));
    let Reader { mut faults, order, .. } = reader;
    Rules { set, faults: order.iter().filter_map(|file| faults.remove(file)).flat_map(Faults::finish).collect() }
}

/// Adds the budgets of money that SLOs have beside their own: on the events of their total, all attempts of them.
pub(super) fn add_budgets(slos: &[CompiledSlo], engine: &Engine, rules: &mut Rules) {
    for slo in slos {
        let Some(budget) = &slo.slo.cost_budget else { continue };
        let service = Some(&slo.slo.service);
        let is_same =
            |known: &&Arc<CostBudget>| known.header.name == slo.slo.name && known.header.service.as_ref() == service;
        let message = match rules.set.budgets.iter().find(is_same) {
            Some(known) => format!(
                "the CostBudget \"{}\" of this service is already in {}:{} (give one of them another name)",
                slo.slo.name, known.header.file, known.header.place.line
            ),
            None if rules.set.len() >= RULES_MAX => format!("there are more than {RULES_MAX} rules (keep fewer)"),
            None => match budget_of(slo, budget, engine) {
                Ok(budget) => {
                    rules.set.budgets.push(Arc::new(budget));
                    continue;
                }
                Err(error) => format!("the condition of `total` cannot be used for a budget of money: {error}"),
            },
        };
        rules.faults.push(Fault {
            severity: fault::Severity::Error,
            file: slo.slo.file.to_string(),
            place: slo.slo.place,
            key: "metadata.annotations.toolgauge/cost-budget".to_owned(),
            message,
        });
    }
    rules.set.budgets.sort_by(|a, b| (&a.header.name, &a.header.service).cmp(&(&b.header.name, &b.header.service)));
}

fn budget_of(slo: &CompiledSlo, budget: &definition::CostBudget, engine: &Engine) -> Result<CostBudget, Error> {
    let CompiledSlo { slo, sli } = slo;
    let mut text = slo.sli.total.clone();
    let condition = match slo.sli.layer {
        None => sli.total().clone(),
        Some(layer) => {
            // It may end in a comment.
            text.text = format!("({}\n) AND layer = '{layer}'", text.text);
            engine.condition(&text.text, &Table::Calls.schema())?
        }
    };
    // What agents say of themselves does not add to the calls that they are made of.
    let calls = if sli.fixed_value("kind") == Some("agent") { Calls::Agent } else { Calls::All };
    Ok(CostBudget {
        header: Header {
            name: slo.name.clone(),
            description: slo.description.clone().or_else(|| slo.display_name.clone()),
            service: Some(slo.service.clone()),
            severity: budget.severity,
            patience: Patience::default(),
            file: Arc::clone(&slo.file),
            place: slo.place,
        },
        amount: budget.nano_usd.unsigned_abs(),
        calendar: budget.calendar,
        period: match budget.period {
            CostPeriod::Day => "day",
            CostPeriod::Month => "month",
        },
        selection: Selection {
            calls,
            final_only: false,
            filter: Some(Filter { text, condition }),
            by: Vec::new(),
            groups_max: 1,
            hit: Hit::Nothing,
        },
    })
}

struct Reader<'a> {
    engine: &'a Engine,
    faults: HashMap<Arc<str>, Faults>,
    order: Vec<Arc<str>>,
}

impl Reader<'_> {
    fn faults_of(&mut self, object: &Object) -> &mut Faults {
        if !self.faults.contains_key(&object.file) {
            self.order.push(Arc::clone(&object.file));
        }
        self.faults.entry(Arc::clone(&object.file)).or_insert_with(|| Faults::new(&object.file))
    }

    /// Notes an error; `None`, so that it can be returned.
    fn error<T>(&mut self, object: &Object, place: Place, key: &str, message: impl Into<String>) -> Option<T> {
        self.faults_of(object).error(place, key, message);
        None
    }

    /// The text of a key, and what it means; an error with `expected` if it means nothing. `Some(None)` if the key is not there.
    fn parsed<T>(
        &mut self,
        object: &Object,
        spec: &Node,
        key: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<Option<T>> {
        let Some(node) = spec.get(key) else { return Some(None) };
        let text = node.text().unwrap_or_default();
        match parse(text.trim()) {
            Some(value) => Some(Some(value)),
            None => self.error(object, node.place, &format!("spec.{key}"), format!("{text:?} is not {expected}")),
        }
    }

    fn required<T>(
        &mut self,
        object: &Object,
        spec: &Node,
        key: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        match self.parsed(object, spec, key, expected, parse)? {
            Some(value) => Some(value),
            None => self.error(object, spec.place, "spec", format!("the key \"{key}\" is missing (write {expected})")),
        }
    }

    /// Says that a key means nothing here.
    fn unused(&mut self, object: &Object, spec: &Node, keys: &[&str], reason: &str) -> Option<()> {
        let found: Vec<(&&str, &Node)> = keys.iter().filter_map(|key| Some((key, spec.get(key)?))).collect();
        for (key, node) in &found {
            self.faults_of(object).error(
                node.place,
                &format!("spec.{key}"),
                format!("it means nothing {reason} (leave it out)"),
            );
        }
        found.is_empty().then_some(())
    }

    pub(super) fn header(&mut self, object: &Object, spec: &Node, service: Option<&str>) -> Option<Header> {
        let patience = "a time up to 7 days, like 5m";
        let pending = self.parsed(object, spec, "for", patience, patience_us);
        let keep_firing = self.parsed(object, spec, "keepFiringFor", patience, patience_us);
        let text = |node: Option<&Node>, key| node.and_then(|node| node.text_of(key)).map(str::to_owned);
        let metadata = object.node.get("metadata");
        Some(Header {
            name: object.name.clone(),
            description: text(Some(spec), "description").or_else(|| text(metadata, "displayName")),
            service: service.map(str::to_owned),
            severity: if spec.text_of("severity") == Some("page") { Severity::Page } else { Severity::Ticket },
            patience: Patience { pending_us: pending?.unwrap_or(0), keep_firing_us: keep_firing?.unwrap_or(0) },
            file: Arc::clone(&object.file),
            place: object.node.place,
        })
    }

    /// Which rows; `keys` may stand in the document.
    fn selection(&mut self, object: &Object, spec: &Node, default: Calls, hit: Hit) -> Option<Selection> {
        let by = self.by(object, spec);
        let filter = self.filter(object, spec);
        let groups = self.parsed(object, spec, "groupsMax", "a whole number from 1 to 1000", |text| {
            text.parse().ok().filter(|groups| (1..=GROUPS_MAX).contains(groups))
        });
        let calls = spec.text_of("calls").and_then(Calls::from_word).unwrap_or(default);
        let final_only = match spec.text_of("mode") {
            Some(mode) => mode == "logical",
            // What a retry repaired is no failure; how long attempts take, and what they cost, is another matter.
            None => hit == Hit::Error,
        };
        let by = by?;
        let groups_max = if by.is_empty() { 1 } else { groups?.unwrap_or(GROUPS_DEFAULT) };
        Some(Selection { calls, final_only, filter: filter?, by, groups_max, hit })
    }

    fn by(&mut self, object: &Object, spec: &Node) -> Option<Vec<&'static str>> {
        let mut by: Vec<&'static str> = Vec::new();
        let Some(list) = spec.get("by") else { return Some(by) };
        for (index, item) in list.items().iter().enumerate() {
            let (key, text) = (format!("spec.by[{index}]"), item.text().unwrap_or_default());
            let names = BY.map(|(name, _)| name);
            let Some(name) = names.into_iter().find(|name| *name == text) else {
                return self.error(
                    object,
                    item.place,
                    &key,
                    format!("{text:?} is no column to group by (one of: {})", names.join(", ")),
                );
            };
            if by.contains(&name) {
                return self.error(object, item.place, &key, format!("{text:?} stands there twice"));
            }
            by.push(name);
        }
        if by.len() > BY_MAX {
            return self.error(
                object,
                list.place,
                "spec.by",
                format!("at most {BY_MAX} columns can be grouped by, got {}", by.len()),
            );
        }
        Some(by)
    }

    fn filter(&mut self, object: &Object, spec: &Node) -> Option<Option<Filter>> {
        let Some(node) = spec.get("where") else { return Some(None) };
        let text = node.text().unwrap_or_default();
        if text.len() > WHERE_BYTES_MAX {
            let message = format!("the condition has {} bytes, at most {WHERE_BYTES_MAX} are taken", text.len());
            return self.error(object, node.place, "spec.where", message);
        }
        match self.engine.condition(text, &Table::Calls.schema()) {
            Ok(condition) => {
                let (file, place, key) = (Arc::clone(&object.file), node.place, "spec.where".to_owned());
                Some(Some(Filter { text: Where { text: text.to_owned(), file, place, key }, condition }))
            }
            Err(error) => {
                let message = format!("the condition cannot be used: {}", error.to_string().replace('\n', " "));
                self.error(object, node.place, "spec.where", message)
            }
        }
    }

    fn threshold(&mut self, object: &Object, spec: &Node) -> Option<ThresholdRule> {
        let metric = spec.text_of("metric")?;
        let metric = METRICS.into_iter().find(|known| *known == metric)?;
        let header = self.header(object, spec, spec.text_of("service"));
        let is_session = metric.starts_with("session_");
        let has_quantile = is_session || metric == "latency";
        let in_rule = format!("with the metric {metric}");
        let mut fits = Some(());
        if !has_quantile {
            fits = fits.and(self.unused(object, spec, &["quantile"], &in_rule));
        }
        if metric != "burn_rate" {
            fits = fits.and(self.unused(object, spec, &["target"], &in_rule));
        }
        if metric != "cost" {
            fits = fits.and(self.unused(object, spec, &["per"], &in_rule));
        }
        if is_session {
            fits = fits.and(self.unused(object, spec, &["calls", "mode"], &in_rule));
        }
        let op = if spec.text_of("op") == Some("gt") { Op::Gt } else { Op::Gte };
        let window = self.required(object, spec, "window", "a window from 1m to 30d", |text| {
            window_of(text).filter(|window| *window <= WINDOW_MAX)
        });
        let quantile = self.parsed(
            object,
            spec,
            "quantile",
            "a decimal number above 0 and below 1, like 0.95",
            Quantile::from_decimal,
        );
        let target = self.parsed(object, spec, "target", "a decimal number from 0 to below 1, like 0.995", |text| {
            Target::from_ratio(text).ok()
        });
        let per = self.parsed(object, spec, "per", "a time up to 30d, like 1h or 1d", |text| {
            window_of(text).filter(|window| *window <= WINDOW_MAX)
        });
        let events_min = self.parsed(object, spec, "minEvents", "a whole number", |text| text.parse::<u64>().ok());
        let threshold = self.required(object, spec, "threshold", expected(metric), |text| amount(metric, text));
        let (quantile, target, per, threshold, window) = (quantile?, target?, per?, threshold?, window?);
        let (hit, figure) = match metric {
            "error_rate" => (Hit::Error, Figure::Share),
            "retry_rate" => (Hit::Retry, Figure::Share),
            "burn_rate" => {
                let Some(target) = target else {
                    return self.error(object, spec.place, "spec", "the key \"target\" is missing (write like 0.995)");
                };
                self.is_reachable(object, spec, target, threshold)?;
                (Hit::Error, Figure::BurnRate { target })
            }
            "latency" => {
                let nanos = threshold.times(Ratio::new(1_000_000_000, 1)?)?.rounded(0)?;
                let nanos = i64::try_from(nanos).ok()?;
                let hit = if op == Op::Gte { Hit::SlowGte(nanos) } else { Hit::SlowGt(nanos) };
                (hit, Figure::Quantile { quantile: quantile.or_else(|| Quantile::from_decimal("0.95"))? })
            }
            _ => (Hit::Nothing, Figure::Cost { per }),
        };
        let default = if metric == "cost" || is_session { Calls::All } else { Calls::Tool };
        let selection = self.selection(object, spec, default, hit)?;
        let kept = (selection.groups_max as u64).saturating_mul(u64::from(window.minutes()));
        if !is_session && kept > MINUTES_MAX {
            let message = format!(
                "{} groups with {} minutes each are {kept} sums to keep, at most {MINUTES_MAX} (write a lower `groupsMax` or a \
                 shorter `window`)",
                selection.groups_max,
                window.minutes()
            );
            return self.error(object, spec.place, "spec", message);
        }
        let sessions = match metric {
            "session_iterations" => Some(SessionFigure::Iterations),
            "session_cost" => Some(SessionFigure::Cost),
            "session_duration" => Some(SessionFigure::Duration),
            _ => None,
        };
        let measure = match sessions {
            Some(figure) => Measure::Sessions(figure, quantile.or_else(|| Quantile::from_decimal("0.95"))?),
            None => Measure::Calls(figure),
        };
        fits?;
        Some(ThresholdRule {
            header: header?,
            metric,
            measure,
            selection,
            op,
            threshold,
            threshold_text: spec.text_of("threshold").unwrap_or_default().trim().to_owned(),
            window,
            events_min: events_min?.unwrap_or(1),
        })
    }

    /// Whether a burn rate can be reached at a target at all; says so if it fires while the target is kept.
    fn is_reachable(&mut self, object: &Object, spec: &Node, target: Target, threshold: Ratio) -> Option<()> {
        let one = 10_u128.pow(TARGET_PLACES);
        let highest = Ratio::new(one, one - u128::from(target.units()))?;
        let place = spec.get("threshold").map_or(spec.place, |node| node.place);
        if threshold > highest {
            let message = format!(
                "it can never be reached: if every call fails, the burn rate is 1 / (1 - {target}) = {:.3} (write less)",
                highest.to_f64()
            );
            return self.error(object, place, "spec.threshold", message);
        }
        if threshold < Ratio::ONE {
            let message = "a burn rate below 1 keeps the target: it fires although nothing is wrong (write 1 or more)";
            return self.error(object, place, "spec.threshold", message);
        }
        Some(())
    }

    fn budget(&mut self, object: &Object, spec: &Node) -> Option<CostBudget> {
        let header = self.header(object, spec, spec.text_of("service"));
        let amount = self.required(object, spec, "amount", expected("cost"), |text| {
            let nanos = amount("cost", text)?.times(Ratio::new(NANOS_PER_USD, 1)?)?;
            let whole = u128::try_from(nanos.rounded(0)?).ok()?;
            (Ratio::new(whole, 1)? == nanos && whole < 10_u128.pow(27)).then_some(whole)
        });
        let (period, duration) = match spec.text_of("period") {
            Some("week") => ("week", "1w"),
            Some("month") => ("month", "1M"),
            _ => ("day", "1d"),
        };
        let zone = spec.text_of("zone").unwrap_or("UTC");
        // A Monday, on which a month begins.
        let calendar = match Calendar::parse(duration, "2024-01-01 00:00:00", zone) {
            Ok(calendar) => Some(calendar),
            Err(error) => {
                let place = spec.get("zone").map_or(spec.place, |node| node.place);
                self.error(object, place, "spec.zone", error.to_string())
            }
        };
        let selection = self.selection(object, spec, Calls::All, Hit::Nothing);
        let (calendar, selection) = (calendar?, selection?);
        let minutes = calendar.longest().minutes();
        let kept = (selection.groups_max as u64).saturating_mul(minutes.into());
        if kept > MINUTES_MAX {
            let message = format!(
                "{} groups with {minutes} minutes each are {kept} sums to keep, at most {MINUTES_MAX} (write `groupsMax: {}`)",
                selection.groups_max,
                MINUTES_MAX / u64::from(minutes)
            );
            return self.error(object, spec.place, "spec", message);
        }
        Some(CostBudget { header: header?, amount: amount?, calendar, period, selection })
    }

    fn heartbeat(&mut self, object: &Object, spec: &Node) -> Option<Heartbeat> {
        let pattern = |key: &str| spec.text_of(key).map(str::to_owned);
        let header = self.header(object, spec, None);
        let fits = if spec.get("tool").is_none() {
            self.unused(object, spec, &["server"], "without `tool`")
        } else {
            Some(())
        };
        let limit =
            self.parsed(
                object,
                spec,
                "limit",
                "a time up to 7 days such as 30m, or auto, or never",
                |text| match text {
                    "auto" => Some(SilenceLimit::Auto),
                    "never" => Some(SilenceLimit::Never),
                    _ => window_of(text)
                        .filter(|limit| *limit <= PATIENCE_MAX)
                        .map(|limit| SilenceLimit::Minutes(limit.minutes().into())),
                },
            );
        fits?;
        Some(Heartbeat {
            header: header?,
            service: pattern("service").unwrap_or_else(|| "*".to_owned()),
            tool: pattern("tool"),
            server: pattern("server"),
            tenant: pattern("tenant"),
            limit: limit?.unwrap_or(SilenceLimit::Auto),
        })
    }
}

fn patience_us(text: &str) -> Option<i64> {
    if matches!(text, "0" | "0m") {
        return Some(0);
    }
    let window = window_of(text).filter(|window| *window <= PATIENCE_MAX)?;
    i64::try_from(window.seconds() * 1_000_000).ok()
}

fn expected(metric: &str) -> &'static str {
    match metric {
        "error_rate" | "retry_rate" => "a share above 0 and up to 1, like 0.1 or \"10 %\"",
        "burn_rate" => "a decimal number like 14.4",
        "latency" | "session_duration" => "a time like 500ms or 5s",
        "cost" | "session_cost" => "an amount in dollars above 0, like 0.50",
        _ => "a decimal number above 0",
    }
}

/// A threshold; times are in seconds.
fn amount(metric: &str, text: &str) -> Option<Ratio> {
    let zero = Ratio::new(0, 1)?;
    let amount = match metric {
        "error_rate" | "retry_rate" => share(text)?,
        "latency" | "session_duration" => seconds(text)?,
        "cost" | "session_cost" => Ratio::from_decimal(text.strip_suffix("USD").map_or(text, str::trim_end))?,
        _ => Ratio::from_decimal(text)?,
    };
    (amount > zero).then_some(amount)
}

fn share(text: &str) -> Option<Ratio> {
    let share = match text.strip_suffix('%') {
        Some(percent) => Ratio::from_decimal(percent.trim_end())?.times(Ratio::percent(1))?,
        None => Ratio::from_decimal(text)?,
    };
    (share <= Ratio::ONE).then_some(share)
}

/// A time such as `1.5s`; to the nanosecond, up to 30 days.
fn seconds(text: &str) -> Option<Ratio> {
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
    let (number, unit) = text.split_at(end);
    let unit = match unit.trim_start() {
        "us" => Ratio::new(1, 1_000_000),
        "ms" => Ratio::new(1, 1_000),
        "s" => Ratio::new(1, 1),
        "m" => Ratio::new(60, 1),
        "h" => Ratio::new(3_600, 1),
        _ => None,
    }?;
    let time = Ratio::from_decimal(number)?.times(unit)?;
    let nanos = u128::try_from(time.rounded(9)?).ok()?;
    let is_exact = Ratio::new(nanos, 1_000_000_000)? == time;
    (is_exact && nanos <= 30 * 86_400 * 1_000_000_000).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact_and_have_the_units_that_people_write() {
        let of = |metric: &str, text: &str| amount(metric, text).map(Ratio::to_f64);
        assert_eq!(of("error_rate", "10 %"), Some(0.1));
        assert_eq!(of("error_rate", "0.25"), Some(0.25));
        assert_eq!([of("error_rate", "10"), of("error_rate", "0"), of("error_rate", "-1")], [None; 3]);
        assert_eq!(of("latency", "1.5s"), Some(1.5));
        assert_eq!(of("latency", "250ms"), Some(0.25));
        assert_eq!(of("session_duration", "2m"), Some(120.0));
        assert_eq!(
            [of("latency", "5"), of("latency", "0s"), of("latency", "1d"), of("latency", "s"), of("latency", "0.1ns")],
            [None; 5]
        );
        assert_eq!([of("cost", "500"), of("cost", "0.50 USD"), of("cost", "EUR 3")], [Some(500.0), Some(0.5), None]);
        assert_eq!(of("session_iterations", "7"), Some(7.0));
        assert_eq!(of("burn_rate", "99999999999999999999999999999999"), None);
    }
}
