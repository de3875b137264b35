//! What documents come to, also in forms that the evaluation may not have yet.

use toolgauge_analytics::budget::{Measure, Severity as Calls};
use toolgauge_analytics::calendar::Span;
use toolgauge_analytics::window::Minute;

use super::*;
use crate::slo::definition::{BurnTier, Form, TierSource};
use crate::slo::fault::Severity;
use crate::slo::{shape, yaml};

const SLO: &str = "apiVersion: openslo/v1
kind: SLO
metadata:
  name: search
  annotations: {ANNOTATIONS}
spec:
  service: shop
  indicator:
    spec:
      ratioMetric:
        good: {metricSource: {type: toolgauge, spec: {where: outcome = 'ok'}}}
        total: {metricSource: {type: toolgauge, spec: {where: kind = 'tool'}}}
  timeWindow: [WINDOW]
  budgetingMethod: METHOD
  objectives: [OBJECTIVES]
POLICIES";

const ROLLING: &str = "{duration: 30d, isRolling: true}";
const MONTH: &str =
    "{duration: 1M, isRolling: false, calendar: {startTime: 2026-01-01 00:00:00, timeZone: Europe/Berlin}}";

/// A document with some of its parts exchanged.
fn document(parts: &[(&str, &str)]) -> String {
    let defaults = [
        ("ANNOTATIONS", ""),
        ("WINDOW", ROLLING),
        ("METHOD", "Occurrences"),
        ("OBJECTIVES", "{target: 0.999}"),
        ("POLICIES", ""),
    ];
    let mut text = SLO.to_owned();
    for (key, default) in defaults {
        let part = parts.iter().find(|(name, _)| *name == key).map_or(default, |(_, part)| part);
        text = text.replace(key, part);
    }
    text
}

pub(in crate::slo) fn resolved(text: &str) -> (Vec<Slo>, Vec<String>) {
    let file: Arc<str> = "a.yaml".into();
    let mut faults = Faults::new(&file);
    let nodes = yaml::documents(text).unwrap_or_else(|fault| panic!("{fault:?} in {text}"));
    let items = nodes.into_iter().flat_map(|node| match node.value {
        Value::List(items) => items,
        _ => vec![node],
    });
    let objects: Vec<Object> = items
        .map(|node| {
            shape::check(&node, &mut faults);
            let text = |path: &[&str]| node.at(path).and_then(Node::text).unwrap_or_default().to_owned();
            let (kind, name) = (text(&["kind"]), text(&["metadata", "name"]));
            Object { kind, name, file: Arc::clone(&file), node }
        })
        .collect();
    assert!(!faults.has_errors(), "{:?} in {text}", faults.finish());
    let resolved = resolve(&objects);
    (resolved.slos, resolved.faults.iter().map(ToString::to_string).collect())
}

#[track_caller]
pub(in crate::slo) fn slo(parts: &[(&str, &str)]) -> Slo {
    let (mut slos, faults) = resolved(&document(parts));
    assert_eq!((slos.len(), faults), (1, Vec::new()));
    slos.remove(0)
}

/// Its one error.
#[track_caller]
fn refused(parts: &[(&str, &str)]) -> String {
    let (slos, faults) = resolved(&document(parts));
    assert!(slos.is_empty(), "{parts:?}");
    let error = Severity::Error;
    let errors: Vec<&String> = faults.iter().filter(|fault| fault.contains(": error: ")).collect();
    assert_eq!(errors.len(), 1, "{error:?} {faults:?}");
    errors[0].clone()
}

fn shown(tiers: &[BurnTier]) -> Vec<String> {
    tiers
        .iter()
        .map(|BurnTier { tier, severity, patience, .. }| {
            let patience = match (patience.pending_us / 60_000_000, patience.keep_firing_us / 60_000_000) {
                (0, 0) => String::new(),
                (after, keep) => format!(" after {after} keep {keep}"),
            };
            format!("{} {severity} {}/{} {}{patience}", tier.name, tier.long, tier.short, tier.factor)
        })
        .collect()
}

#[test]
fn without_policies_there_are_the_tiers_of_the_workbook() {
    let tiers = slo(&[]).tiers;
    assert_eq!(
        shown(&tiers),
        ["fast page 1h/5m 14.4", "medium page 6h/30m 6", "slow ticket 1d/2h 3", "long-term ticket 3d/6h 1"]
    );
    assert!(tiers.iter().all(|tier| tier.adapted.is_none()));
    assert_eq!(tiers[0].source, TierSource::Workbook(Ratio::percent(2)));
}

/// The field's tables page on what cannot happen, and on what is allowed.
#[test]
fn tiers_that_do_not_fit_are_adapted_and_say_so() {
    let slo_of = |target: &str, days: &str| {
        slo(&[
            ("OBJECTIVES", &format!("{{target: {target}}}")),
            ("WINDOW", &format!("{{duration: {days}, isRolling: true}}")),
        ])
    };
    let low = slo_of("0.9", "30d");
    assert_eq!(shown(&low.tiers)[0], "fast page 1h/5m 8");
    assert_eq!(
        low.tiers[0].adapted.as_deref(),
        Some(
            "its factor is 8 instead of 2 % of the budget x 30d / 1h = 14.4: at the target 0.9 no burn rate is above 1 / (1 - target) = 10"
        )
    );
    let week = slo_of("0.999", "7d");
    assert_eq!(shown(&week.tiers)[2..], ["slow ticket 1d/2h 1", "long-term ticket 3d/6h 1"]);
    assert!(
        week.tiers[2]
            .adapted
            .as_deref()
            .unwrap()
            .contains("10 % of the budget x 7d / 1d = 0.7, which fires while the objective is met")
    );
    let day = slo_of("0.999", "1d");
    assert_eq!(day.tiers.len(), 3);
    assert_eq!(day.left_out, ["long-term: its long window of 3d is longer than the period of 1d"]);
}

const POLICY: &str = "  alertPolicies:
    - kind: AlertPolicy
      metadata: {name: NAME, annotations: {ANNOTATED}}
      spec:
        alertWhenBreaching: true
        conditions:
          - kind: AlertCondition
            metadata: {name: c}
            spec: {severity: SEVERITY, condition: {kind: burnrate, op: gte, threshold: THRESHOLD, lookbackWindow: LOOKBACK}}
        notificationTargets: [{kind: AlertNotificationTarget, metadata: {name: pager}, spec: {target: pagerduty}}]
";

fn policy(parts: &[(&str, &str)]) -> String {
    let defaults =
        [("NAME", "burns"), ("ANNOTATED", ""), ("SEVERITY", "page"), ("THRESHOLD", "14.4"), ("LOOKBACK", "1h")];
    defaults.iter().fold(POLICY.to_owned(), |text, (key, default)| {
        text.replace(key, parts.iter().find(|(name, _)| name == key).map_or(default, |(_, part)| part))
    })
}

#[test]
fn a_policy_is_a_tier_with_a_short_window_of_a_twelfth() {
    let of = |parts: &[(&str, &str)]| slo(&[("POLICIES", &policy(parts))]).tiers;
    let tiers = of(&[]);
    assert_eq!(shown(&tiers), ["burns page 1h/5m 14.4"]);
    assert_eq!(
        (&tiers[0].source, &tiers[0].targets[..]),
        (&TierSource::Policy("burns".to_owned()), &["pager".to_owned()][..])
    );
    assert_eq!(shown(&of(&[("LOOKBACK", "5m")])), ["burns page 5m/1m 14.4"]);
    assert_eq!(
        shown(&of(&[(
            "ANNOTATED",
            "toolgauge/short-window: 10m, toolgauge/keep-firing: 5m, toolgauge/burn-tier: quick"
        )])),
        ["quick page 1h/10m 14.4 after 0 keep 5"]
    );
    let after = policy(&[("LOOKBACK", "1h, alertAfter: 2m")]);
    assert_eq!(shown(&slo(&[("POLICIES", &after)]).tiers), ["burns page 1h/5m 14.4 after 2 keep 0"]);
    let two = policy(&[])
        + &policy(&[("NAME", "slow"), ("SEVERITY", "ticket"), ("LOOKBACK", "5m")]).replace("  alertPolicies:\n", "");
    assert_eq!(shown(&slo(&[("POLICIES", &two)]).tiers), ["slow ticket 5m/1m 14.4", "burns page 1h/5m 14.4"]);
    let twice = two.replace("NAME", "x").replace("name: slow", "name: burns");
    assert!(refused(&[("POLICIES", &twice)]).contains("the tier \"burns\" is already that of spec.alertPolicies[0]"));
}

#[test]
fn policies_and_conditions_are_found_by_name() {
    let text = document(&[("POLICIES", "  alertPolicies: [{alertPolicyRef: quick}]\n")])
        + "---
apiVersion: openslo/v1
kind: AlertPolicy
metadata: {name: quick, annotations: {toolgauge/keep-firing: 1h}}
spec:
  conditions: [{conditionRef: burn}]
  notificationTargets: [{targetRef: pager}]
---
apiVersion: openslo/v1
kind: AlertCondition
metadata: {name: burn, annotations: {toolgauge/short-window: 7m}}
spec: {severity: critical, condition: {kind: burnrate, threshold: 10, lookbackWindow: 2h, alertAfter: 0m}}
---
apiVersion: openslo/v1
kind: AlertNotificationTarget
metadata: {name: pager}
spec: {target: pagerduty}
";
    let (slos, faults) = resolved(&text);
    assert_eq!(faults, [""; 0]);
    assert_eq!(shown(&slos[0].tiers), ["quick critical 2h/7m 10 after 0 keep 60"]);
    assert_eq!(slos[0].tiers[0].tier.severity, Calls::Page);
    // What is wrong is told where it stands.
    let (_, faults) = resolved(&text.replace("threshold: 10", "threshold: 1001"));
    assert!(
        faults[0].contains("a.yaml:28:67: error: `spec.condition.threshold`: for the SLO \"search\": a burn rate of 1001 can never be reached"),
        "{faults:?}"
    );
}

#[test]
fn thresholds_that_can_never_fire_or_fire_on_the_healthy_are_refused_with_the_arithmetic() {
    let with = |target: &str, threshold: &str| {
        let objective = format!("{{target: {target}}}");
        document(&[("OBJECTIVES", &objective), ("POLICIES", &policy(&[("THRESHOLD", threshold)]))])
    };
    let said = |target: &str, threshold: &str| resolved(&with(target, threshold)).1.join("\n");
    let impossible = said("0.93", "14.4");
    assert!(
        impossible.contains("a burn rate of 14.4 can never be reached: if everything fails it is 1 / (1 - 0.93) = 14.286 (write less than that, such as 11.429)"),
        "{impossible}"
    );
    // 1 / (1 - 0.9306) = 14.409: the lowest target with four places at which 14.4 can fire.
    assert_eq!(said("0.9306", "14.4"), "");
    assert!(said("0.9305", "14.4").contains("can never be reached"));
    let healthy = said("0.999", "0.933");
    assert!(
        healthy.contains("a burn rate of 0.933 is reached while the objective is met: bad / total = 0.933 x (1 - 0.999) = 0.093 %, and 0.1 % may be bad (write at least 1)"),
        "{healthy}"
    );
    assert_eq!(said("0.999", "1"), "");
    assert!(said("0.999", "0").contains("write at least 1"));
    assert!(said("0.999", "-2").contains("is no burn rate"));
    let all = said("0.9", "10");
    assert!(all.contains("warning: ") && all.contains("only if everything fails in both windows"), "{all}");
}

#[test]
fn windows_of_policies_fit_the_period_and_each_other() {
    let with = |parts: &[(&str, &str)]| refused(&[("POLICIES", &policy(parts))]);
    assert!(
        with(&[("LOOKBACK", "31d"), ("THRESHOLD", "1")]).contains("the window of 31d is longer than the period of 30d")
    );
    assert!(
        with(&[("ANNOTATED", "toolgauge/short-window: 2h")])
            .contains("the short window of 2h is longer than the long one of 1h")
    );
    assert!(with(&[("ANNOTATED", "toolgauge/short-window: soon")]).contains("write a duration like 5m"));
    assert!(with(&[("ANNOTATED", "toolgauge/burn-tier: 'a b'")]).contains("letters, digits"));
    assert!(with(&[("ANNOTATED", "toolgauge/mode: attempt")]).contains("known annotations: toolgauge/burn-tier"));
    let slices =
        [("METHOD", "Timeslices"), ("OBJECTIVES", "{target: 0.99, timeSliceTarget: 0.95, timeSliceWindow: 5m}")];
    let sliced = |parts: &[(&str, &str)]| {
        let policies = policy(parts);
        document(&[slices[0], slices[1], ("POLICIES", &policies)])
    };
    let (slos, _) = resolved(&sliced(&[]));
    assert_eq!(shown(&slos[0].tiers), ["burns page 1h/10m 14.4"]);
    let (_, faults) = resolved(&sliced(&[("ANNOTATED", "toolgauge/short-window: 4m")]));
    assert!(faults[0].contains("the short window of 4m has no whole slice of 5m"), "{faults:?}");
}

#[test]
fn severities_are_words_of_ones_own() {
    let labels = |annotations: &str, severity: &str| {
        let (slos, faults) =
            resolved(&document(&[("ANNOTATIONS", annotations), ("POLICIES", &policy(&[("SEVERITY", severity)]))]));
        let tier = &slos[0].tiers[0];
        (tier.tier.severity, tier.severity.to_string(), faults.len())
    };
    let map = "toolgauge/severities: 'page=wake-up, ticket=later'";
    assert_eq!(labels("", "page"), (Calls::Page, "page".to_owned(), 0));
    assert_eq!(labels("", "Critical"), (Calls::Page, "Critical".to_owned(), 0));
    assert_eq!(labels("", "warning"), (Calls::Ticket, "warning".to_owned(), 0));
    assert_eq!(labels("", "purple"), (Calls::Ticket, "purple".to_owned(), 1));
    assert_eq!(labels(map, "page"), (Calls::Page, "wake-up".to_owned(), 0));
    assert_eq!(labels(map, "wake-up"), (Calls::Page, "wake-up".to_owned(), 0));
    assert_eq!(labels(map, "later"), (Calls::Ticket, "later".to_owned(), 0));
    let tiers = slo(&[("ANNOTATIONS", &format!("{map}, toolgauge/keep-firing: 3m, toolgauge/alert-after: 1m"))]);
    assert_eq!(shown(&tiers.tiers)[0], "fast wake-up 1h/5m 14.4 after 1 keep 3");
    assert_eq!(&*tiers.ticket_severity, "later");
    let tickets = slo(&[("ANNOTATIONS", "toolgauge/severity: ticket")]);
    assert!(tickets.tiers.iter().all(|tier| tier.tier.severity == Calls::Ticket && &*tier.severity == "ticket"));
    assert_eq!(tickets.forms(), []);
}

#[test]
fn a_policy_that_does_not_alert_on_breaches_is_left_out() {
    let text = policy(&[]).replace("alertWhenBreaching: true", "alertWhenBreaching: false");
    let (slos, faults) = resolved(&document(&[("POLICIES", &text)]));
    assert_eq!((slos[0].tiers.len(), faults.len()), (0, 1));
    assert!(faults[0].contains("warning: ") && faults[0].contains("TelemetryStale"), "{faults:?}");
    assert_eq!(slos[0].forms(), [super::super::definition::Form::Policies]);
}

#[test]
fn calendar_windows_have_a_start_and_a_zone() {
    let found = slo(&[("WINDOW", MONTH)]);
    assert_eq!(found.period.to_string(), "1M from 2026-01-01 00:00 Europe/Berlin");
    assert_eq!(found.window, Window::D30);
    let with = |from: &str, to: &str| refused(&[("WINDOW", &MONTH.replace(from, to))]);
    assert!(with("1M", "1m").contains("`spec.timeWindow[0].duration`: \"1m\" is no period of the calendar"));
    assert!(with("1M", "2Y").contains("write one from 1d to 1Y"));
    assert!(with("00:00:00", "00:00:30").contains("no whole minute"));
    assert!(
        with("2026-01-01 00:00:00", "soon")
            .contains("`spec.timeWindow[0].calendar.startTime`: \"soon\" is no local date")
    );
    assert!(with("Europe/Berlin", "Berlin").contains("no time zone of the IANA database"));
    assert!(with("isRolling: false", "isRolling: true").contains("a rolling window has no calendar"));
    assert!(refused(&[("WINDOW", "{duration: 1M, isRolling: false}")]).contains("needs `calendar`"));
    assert!(refused(&[("WINDOW", &format!("{ROLLING}, {ROLLING}"))]).contains("one window of an SLO, here are 2"));
}

#[test]
fn slices_have_a_length_and_a_target() {
    let of = |objective: &str| [("METHOD", "Timeslices"), ("OBJECTIVES", objective)].map(|(k, v)| (k, v.to_owned()));
    let with = |objective: &str| {
        let parts = of(objective);
        refused(&[(parts[0].0, &parts[0].1), (parts[1].0, &parts[1].1)])
    };
    let parts = of("{target: 0.99, timeSliceTarget: 0.95, timeSliceWindow: 5m}");
    let found = slo(&[(parts[0].0, &parts[0].1), (parts[1].0, &parts[1].1)]);
    assert_eq!(found.budgeting, Budgeting::Timeslices(Slices::new(5, Ratio::percent(95)).unwrap()));
    assert_eq!(shown(&found.tiers)[0], "fast page 1h/10m 14.4");
    assert!(
        found.tiers[0].adapted.as_deref().unwrap().contains("its short window is 10m instead of 5m, to have 2 slices")
    );
    let parts = of("{target: 0.99, timeSliceTarget: 1, timeSliceWindow: 2}");
    let found = slo(&[(parts[0].0, &parts[0].1), (parts[1].0, &parts[1].1)]);
    assert_eq!(found.budgeting, Budgeting::Timeslices(Slices::new(2, Ratio::ONE).unwrap()));
    assert!(
        with("{target: 0.99, timeSliceWindow: 5m}")
            .contains("the key \"timeSliceTarget\" is missing (Timeslices needs it)")
    );
    assert!(with("{target: 0.99, timeSliceTarget: 0.9}").contains("the key \"timeSliceWindow\" is missing"));
    assert!(
        with("{target: 0.99, timeSliceTarget: 95, timeSliceWindow: 5m}").contains("above 0 and at most 1, got \"95\"")
    );
    assert!(with("{target: 0.99, timeSliceTarget: 0, timeSliceWindow: 5m}").contains("above 0"));
    assert!(with("{target: 0.99, timeSliceTarget: 0.9, timeSliceWindow: 2d}").contains("write one from 1m to 1d"));
    assert!(with("{target: 0.99, timeSliceTarget: 0.9, timeSliceWindow: 0}").contains("no length of a slice"));
    let (slos, faults) =
        resolved(&document(&[("OBJECTIVES", "{target: 0.99, timeSliceTarget: 0.9, timeSliceWindow: 5m}")]));
    assert_eq!((slos.len(), faults.len()), (1, 2), "Occurrences has none of both: {faults:?}");
}

#[test]
fn what_is_not_evaluated_is_answered_with_the_rewrite() {
    let ratio = refused(&[("METHOD", "RatioTimeslices"), ("OBJECTIVES", "{target: 0.9, timeSliceWindow: 1m}")]);
    assert!(
        ratio.contains("an average of ratios weighs a slice of one event like one of a million (write Occurrences"),
        "{ratio}"
    );
    let raw = document(&[]).replace(
        "        good: {metricSource: {type: toolgauge, spec: {where: outcome = 'ok'}}}\n        total:",
        "        rawType: success\n        raw:",
    );
    let (_, faults) = resolved(&raw);
    assert!(faults[0].contains("write `good` and `total`, which count events"), "{faults:?}");
}

#[test]
fn each_of_several_objectives_is_an_slo() {
    let objectives = "{displayName: Good enough!, target: 0.99}, {displayName: SLA, targetPercent: 95}";
    let (slos, faults) = resolved(&document(&[("OBJECTIVES", objectives)]));
    assert_eq!(faults, [""; 0]);
    let found: Vec<(&str, String)> = slos.iter().map(|slo| (&*slo.name, slo.target.to_string())).collect();
    assert_eq!(found, [("search-good-enough", "0.99".to_owned()), ("search-sla", "0.95".to_owned())]);
    assert_eq!(slos[0].display_name.as_deref(), Some("Good enough!"));
    for nameless in
        ["{target: 0.9}, {displayName: b, target: 0.8}", "{displayName: b, target: 0.9}, {displayName: B, target: 0.8}"]
    {
        assert!(refused(&[("OBJECTIVES", nameless)]).contains("needs a name that no other has (write `displayName`)"));
    }
}

#[test]
fn objectives_with_indicators_are_slos_of_their_own() {
    let sli = "{spec: {ratioMetric: {bad: {metricSource: {type: toolgauge, spec: {where: outcome = 'error'}}}, total: {metricSource: {type: toolgauge, spec: {where: kind = 'model'}}}}}}";
    let whole = document(&[(
        "OBJECTIVES",
        &format!(
            "{{displayName: tools, target: 0.99, indicator: {sli}}}, {{displayName: models, target: 0.9, indicatorRef: m, compositeWeight: 2}}"
        ),
    )]);
    let (head, rest) = whole.split_once("  indicator:\n").unwrap();
    let (_, tail) = rest.split_once("  timeWindow").unwrap();
    let reference = format!(
        "---\napiVersion: openslo/v1\nkind: SLI\nmetadata: {{name: m, annotations: {{toolgauge/mode: attempt}}}}\nspec: {}",
        &sli["{spec: ".len()..sli.len() - 1]
    );
    let (slos, faults) = resolved(&format!("{head}  timeWindow{tail}{reference}"));
    assert_eq!(slos.iter().map(|slo| slo.name.as_str()).collect::<Vec<_>>(), ["search-tools", "search-models"]);
    assert_eq!((slos[0].sli.mode, slos[1].sli.mode, slos[0].sli.judged), (Mode::Logical, Mode::Attempt, Judged::Bad));
    assert!(faults.len() == 1 && faults[0].contains("there is no budget of all together"), "{faults:?}");
    let (_, faults) = resolved(&format!("{whole}{reference}"));
    assert!(faults.iter().any(|fault| fault.contains("an indicator of its own beside that of the SLO")), "{faults:?}");
}

#[test]
fn a_part_of_the_budget_in_a_time_is_a_tier_of_its_own() {
    let found = slo(&[("ANNOTATIONS", "toolgauge/consumption: '25 %/7d', toolgauge/severities: 'ticket=warning'")]);
    let tier = found.tiers.last().unwrap();
    assert_eq!(shown(&found.tiers)[4], "consumption warning 7d/7d 0.25");
    assert_eq!((tier.tier.measure, tier.tier.factor), (Measure::Consumption, Ratio::percent(25)));
    assert_eq!((tier.tier.severity, &tier.source), (Calls::Ticket, &TierSource::Consumption));
    assert!(found.forms().contains(&Form::Policies));
    // 7 / 30 of the budget are 23.333 %: a service that meets its objective spends that.
    let error = refused(&[("ANNOTATIONS", "toolgauge/consumption: '23.3 %/7d'")]);
    assert!(
        error.contains("23.3 % of the budget in 7d is reached while the objective is met: 7d / 30d = 23.333 %"),
        "{error}"
    );
    let error = refused(&[("ANNOTATIONS", "toolgauge/consumption: '100001 %/7d'")]);
    assert!(error.contains("if everything fails it is 1 / (1 - 0.999) = 100000 %"), "{error}");
    let error = refused(&[("ANNOTATIONS", "toolgauge/consumption: '110 %/31d'")]);
    assert!(error.contains("its window of 31d is longer than the period of 30d"), "{error}");
}

#[test]
fn annotations_say_what_openslo_cannot() {
    let found = slo(&[(
        "ANNOTATIONS",
        "toolgauge/group-by: 'tool, tenant', toolgauge/groups-max: 7, toolgauge/min-events: 20, toolgauge/evidence: false, \
         toolgauge/exclusions: '2026-05-01T22:00:00Z/1h', toolgauge/cost-budget: '500 USD/day'",
    )]);
    let groups = found.group_by.clone().unwrap();
    assert_eq!((groups.columns, groups.groups_max), (vec!["tool_name", "tenant"], 7));
    assert_eq!((found.guards.min_events, found.guards.evidence), (20, false));
    let start = Minute(29_627_880);
    assert_eq!(found.exclusions.as_ref(), [Span { start, end: Minute(start.0 + 60) }]);
    assert!(found.is_excluded(start) && found.is_excluded(Minute(start.0 + 59)));
    assert!(!found.is_excluded(Minute(start.0 - 1)) && !found.is_excluded(Minute(start.0 + 60)));
    assert_eq!(found.cost_budget.unwrap().nano_usd, 500_000_000_000);
    assert_eq!(found.forms().len(), 4);
    for (annotation, remedy) in [
        ("toolgauge/group-by: session", "write up to 4 of: tool, server, service"),
        ("toolgauge/groups-max: 0", "write a whole number from 1 to 10000"),
        ("toolgauge/min-events: some", "write a whole number from 0"),
        ("toolgauge/evidence: maybe", "write true or false"),
        ("toolgauge/exclusions: tonight", "write intervals such as"),
        ("toolgauge/cost-budget: 5", "write an amount"),
        ("toolgauge/keep-firing: 31d", "write a duration up to 30d"),
        ("toolgauge/consumption: 25/7d", "write a part of the budget and a time, like 25 %/7d"),
        ("toolgauge/consumption: '0 %/7d'", "write a part of the budget"),
        ("toolgauge/layer: inner", "write one of: agent, client, server"),
        (
            "toolgauge/groupBy: tool",
            "known annotations: toolgauge/alert-after, toolgauge/consumption, toolgauge/cost-budget",
        ),
    ] {
        let error = refused(&[("ANNOTATIONS", annotation)]);
        assert!(
            error.contains(remedy) && error.starts_with("a.yaml:5:17: error: `metadata.annotations.toolgauge/"),
            "{error}"
        );
    }
}
