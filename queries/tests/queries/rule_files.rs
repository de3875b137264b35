//! Files of rules: what is taken, what is refused and how it is said.

use toolgauge_queries::engine::Settings;
use toolgauge_queries::rules::PRESET;
use toolgauge_queries::rules::definition::SilenceLimit;
use toolgauge_queries::slo::fault::Severity;
use toolgauge_queries::slo::set::{SloSet, Sources};
use toolgauge_queries::tables;

const RULE: &str = "apiVersion: toolgauge/v1
kind: ThresholdRule
metadata:
  name: errors
spec:
  metric: error_rate
  threshold: 0.1
  window: 5m
";

const BUDGET: &str = "apiVersion: toolgauge/v1
kind: CostBudget
metadata:
  name: daily
spec:
  amount: 500
  period: day
";

fn read(text: &str) -> (SloSet, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.yaml"), text).unwrap();
    let engine = tables::engine(Settings::default()).unwrap();
    let set = Sources::new(vec![folder.path().to_owned()]).read(&engine).unwrap();
    let prefix = format!("{}/", folder.path().display());
    let faults = set.faults.iter().map(|fault| fault.to_string().replace(&prefix, "")).collect();
    (set, faults)
}

#[test]
fn the_preset_is_taken_as_it_is() {
    let (set, faults) = read(PRESET);
    assert_eq!(faults, [""; 0]);
    let thresholds: Vec<String> = set
        .rules
        .thresholds
        .iter()
        .map(|rule| {
            let severity = rule.header.severity.as_str();
            let quantile = rule.quantile().map_or(String::new(), |quantile| format!("{quantile} "));
            format!(
                "{}: {quantile}{} >= {} over {}, {severity}",
                rule.header.name, rule.metric, rule.threshold, rule.window
            )
        })
        .collect();
    assert_eq!(
        thresholds,
        [
            "model-error-rate: error_rate >= 0.05 over 5m, ticket",
            "session-cost: p95 session_cost >= 0.5 over 1h, ticket",
            "session-cost-target: p95 session_cost >= 0.1 over 1d, ticket",
            "session-duration: p95 session_duration >= 15 over 1h, ticket",
            "session-iterations: p95 session_iterations >= 7 over 1h, ticket",
            "tool-burn-fast: burn_rate >= 4 over 30m, page",
            "tool-burn-slow: burn_rate >= 1.5 over 1d, ticket",
            "tool-error-rate-critical: error_rate >= 0.25 over 5m, page",
            "tool-error-rate-warning: error_rate >= 0.1 over 5m, ticket",
            "tool-latency: p95 latency >= 5 over 5m, ticket",
        ]
    );
    let [budget] = &set.rules.budgets[..] else { panic!("{:?}", set.rules.budgets) };
    assert_eq!((budget.amount, budget.period), (500_000_000_000, "day"));
    let slos: Vec<String> = set.slos.iter().map(|slo| format!("{} {}", slo.slo.name, slo.slo.target)).collect();
    assert_eq!(slos, ["tool-availability 0.995"]);
}

#[test]
fn faults_of_rules_say_line_key_and_what_to_write() {
    for (base, from, to, expected) in [
        (
            RULE,
            "0.1",
            "10",
            "a.yaml:7:14: error: `spec.threshold`: \"10\" is not a share above 0 and up to 1, like 0.1 or \"10 %\"",
        ),
        (RULE, "0.1", "0", "is not a share above 0"),
        (RULE, "0.1", "-0.1", "is not a share above 0"),
        (RULE, "  threshold: 0.1\n", "", "a.yaml:6:3: error: `spec`: the key \"threshold\" is missing"),
        (
            RULE,
            "error_rate",
            "error_ratio",
            "a.yaml:6:11: error: `spec.metric`: \"error_ratio\" is not known (write \"error_rate\")",
        ),
        (RULE, "5m", "5s", "\"5s\" is no duration"),
        (RULE, "5m", "31d", "`spec.window`: \"31d\" is not a window from 1m to 30d"),
        (
            RULE,
            "5m",
            "5m\n  quantile: 0.5",
            "`spec.quantile`: it means nothing with the metric error_rate (leave it out)",
        ),
        (RULE, "error_rate", "latency", "\"0.1\" is not a time like 500ms or 5s"),
        (RULE, "error_rate", "burn_rate", "the key \"target\" is missing"),
        (RULE, "5m", "5m\n  severity: critical", "`spec.severity`: \"critical\" is not known (one of: page, ticket)"),
        (RULE, "5m", "5m\n  by: [tool]", "`spec.by[0]`: \"tool\" is no column to group by (one of: service_name, "),
        (RULE, "5m", "5m\n  by: [model, model]", "stands there twice"),
        (RULE, "5m", "5m\n  by: [model, team, tenant, environment]", "at most 3 columns"),
        (
            RULE,
            "5m",
            "5m\n  by: [tool_name]\n  groupsMax: 0",
            "`spec.groupsMax`: \"0\" is not a whole number from 1 to 1000",
        ),
        (RULE, "5m", "30d\n  by: [tool_name]", "are 4320000 sums to keep, at most 1000000"),
        (RULE, "5m", "5m\n  for: soon", "`spec.for`: \"soon\" is not a time up to 7 days, like 5m"),
        (RULE, "5m", "5m\n  minEvents: few", "`spec.minEvents`: \"few\" is not a whole number"),
        (RULE, "5m", "5m\n  where: tool = 'x'", "a.yaml:9:10: error: `spec.where`: the condition cannot be used: "),
        (RULE, "5m", "5m\n  where: cost_usd > (SELECT max(cost_usd) FROM calls)", "a subquery"),
        (RULE, "5m", "5m\n  where: count(*) > 1", "an aggregate"),
        (RULE, "5m", "5m\n  where: end_time > now()", "does not depend on the row alone"),
        (RULE, "5m", "5m\n  where: cost_usd", "not true or false"),
        (RULE, "5m", "5m\n  where: 1 = 1; DROP TABLE calls", "the condition cannot be used"),
        (RULE, "toolgauge/v1", "toolgauge/v2", "\"toolgauge/v2\" is not known (write \"toolgauge/v1\")"),
        (
            RULE,
            "ThresholdRule",
            "Threshold",
            "`kind`: \"Threshold\" is not known (one of: CostBudget, Heartbeat, ThresholdRule)",
        ),
        (BUDGET, "500", "-1", "`spec.amount`: \"-1\" is not an amount in dollars above 0"),
        (BUDGET, "500", "0.0000000001", "is not an amount"),
        (BUDGET, "day", "year", "`spec.period`: \"year\" is not known (one of: day, week, month)"),
        (BUDGET, "day", "day\n  zone: Berlin", "`spec.zone`: "),
        (BUDGET, "day", "month\n  by: [tool_name]", "(write `groupsMax: 2"),
    ] {
        assert!(base.contains(from), "{from}");
        let (set, faults) = read(&base.replacen(from, to, 1));
        assert!(faults.iter().any(|fault| fault.contains(expected)), "{to:?}: {faults:?}");
        assert!(set.faults.iter().any(|fault| fault.severity == Severity::Error) && set.rules.is_empty(), "{to:?}");
    }
    // Two of one name, and a fault that takes the whole file with it.
    let (set, faults) = read(&format!("{RULE}---\n{RULE}"));
    assert!(faults[0].contains("ThresholdRule \"errors\" is already in") && set.rules.is_empty(), "{faults:?}");
    let (set, _) = read(&format!("{RULE}---\n{}", BUDGET.replace("day", "decade")));
    assert!(set.rules.is_empty());
}

#[test]
fn burn_rates_that_cannot_be_reached_or_that_keep_the_target_are_refused_with_the_arithmetic() {
    let burn = |target: &str, threshold: &str| {
        let rule = RULE.replace("error_rate", "burn_rate").replace("0.1", threshold);
        read(&format!("{rule}  target: {target}\n"))
    };
    let (_, faults) = burn("0.9", "14.4");
    assert!(faults[0].contains("the burn rate is 1 / (1 - 0.9) = 10.000 (write less)"), "{faults:?}");
    let (_, faults) = burn("0.9", "0.99");
    assert!(faults[0].contains("a burn rate below 1 keeps the target"), "{faults:?}");
    let (set, faults) = burn("0.9", "10");
    assert!(faults.is_empty() && set.rules.thresholds.len() == 1, "{faults:?}");
    assert!(burn("1", "10").1[0].contains("\"1\" is not a decimal number from 0 to below 1"));
}

#[test]
fn hostile_files_of_rules_are_refused_at_once() {
    let began = std::time::Instant::now();
    let many: String =
        (0..1_100).map(|n| format!("{}---\n", RULE.replace("name: errors", &format!("name: r{n}")))).collect();
    let (set, faults) = read(&many);
    assert!(set.rules.is_empty() && faults[0].contains("more than 1000 rules"), "{:?}", faults.first());
    for (text, expected) in [
        (format!("{RULE}  description: {}\n", "x".repeat(5 << 20)), "at most 4194304 are read"),
        ("a: &a [x]\nb: *a\n".to_owned(), "aliases"),
        (format!("{RULE}  where: \"{}\"\n", "x".repeat(20_000)), "at most 16384 are taken"),
        (format!("{RULE}  where: {}TRUE\n", "NOT ".repeat(3_000)), "the condition cannot be used"),
        (format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)), "recursion limit"),
        (RULE.replace("errors", "../../etc/passwd"), "is no name"),
    ] {
        let (set, faults) = read(&text);
        assert!(set.rules.is_empty() && faults.iter().any(|fault| fault.contains(expected)), "{expected}: {faults:?}");
    }
    assert!(began.elapsed() < std::time::Duration::from_secs(60));
}

#[test]
fn heartbeats_that_say_more_come_first() {
    let of = |name: &str, spec: &str| {
        format!("apiVersion: toolgauge/v1\nkind: Heartbeat\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n---\n")
    };
    let text = [
        of("all", "tool: '*', limit: never"),
        of("shop", "service: shop, tool: '*'"),
        of("search", "service: shop, tool: search, limit: 30m, severity: page"),
        of("shops", "service: 'shop-*', tool: '*', limit: 1h"),
    ];
    let (set, faults) = read(&text.concat());
    assert!(faults.is_empty(), "{faults:?}");
    let found: Vec<(&str, SilenceLimit)> =
        set.rules.heartbeats.iter().map(|beat| (beat.header.name.as_str(), beat.limit)).collect();
    let expected = [
        ("search", SilenceLimit::Minutes(30)),
        ("shop", SilenceLimit::Auto),
        ("shops", SilenceLimit::Minutes(60)),
        ("all", SilenceLimit::Never),
    ];
    assert_eq!(found, expected);
    let (_, faults) = read(&of("x", "server: y"));
    assert!(faults[0].contains("it means nothing without `tool`"), "{faults:?}");
    let (_, faults) = read(&of("x", "limit: 8d"));
    assert!(faults[0].contains("is not a time up to 7 days such as 30m, or auto, or never"), "{faults:?}");
}

#[test]
fn the_examples_of_the_documentation_are_taken() {
    let text = include_str!("../../../docs/alerts.md");
    let examples = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let examples: Vec<&str> = examples.filter(|example| example.starts_with("apiVersion")).collect();
    let (set, faults) = read(&examples.join("---\n"));
    assert_eq!(faults, [""; 0]);
    assert_eq!((examples.len(), set.rules.len()), (3, 3));
}

/// An SLO whose calls may cost 25 USD a day in Berlin.
const SLO_WITH_BUDGET: &str = "apiVersion: openslo/v1
kind: SLO
metadata:
  name: daily
  annotations: {toolgauge/cost-budget: '25.5 USD/day Europe/Berlin', toolgauge/severity: page}
spec:
  service: shop
  description: What the shop's agents may cost.
  indicator:
    spec:
      ratioMetric:
        good: {metricSource: {type: toolgauge, spec: {where: outcome = 'ok'}}}
        total: {metricSource: {type: toolgauge, spec: {where: team = 'shop' -- ours}}}
  timeWindow: [{duration: 30d, isRolling: true}]
  budgetingMethod: Occurrences
  objectives: [{target: 0.99}]
";

#[test]
fn an_slo_can_have_a_budget_of_money_beside_its_own() {
    let (set, faults) = read(&format!("{SLO_WITH_BUDGET}---\n{BUDGET}"));
    assert_eq!(faults, [""; 0]);
    assert_eq!(set.slos.len(), 1);
    // One of the same name that belongs to no service is another one.
    let [own, of_slo] = &set.rules.budgets[..] else { panic!("{:?}", set.rules.budgets) };
    assert_eq!((own.header.service.as_deref(), own.amount), (None, 500_000_000_000));
    let header = &of_slo.header;
    assert_eq!(
        (header.name.as_str(), header.service.as_deref(), header.severity.as_str()),
        ("daily", Some("shop"), "page")
    );
    assert_eq!(header.description.as_deref(), Some("What the shop's agents may cost."));
    assert_eq!((of_slo.amount, of_slo.period), (25_500_000_000, "day"));
    assert_eq!(of_slo.calendar.zone().name(), "Europe/Berlin");
    let selection = &of_slo.selection;
    assert_eq!((selection.calls.as_str(), selection.final_only, selection.by.len()), ("all", false, 0));
    let filter = selection.filter.as_ref().unwrap();
    assert_eq!(filter.condition.fixed(), [("team".to_owned(), "shop".to_owned())]);

    // Of a layer only that layer's, of agents their own.
    let layer = SLO_WITH_BUDGET.replace("toolgauge/severity: page", "toolgauge/layer: server, toolgauge/mode: attempt");
    let (set, faults) = read(&layer.replace("team = 'shop'", "kind = 'agent'"));
    assert_eq!(faults, [""; 0]);
    let budget = &set.rules.budgets[0];
    assert_eq!((budget.header.severity.as_str(), budget.selection.calls.as_str()), ("ticket", "agent"));
    let fixed = budget.selection.filter.as_ref().unwrap().condition.fixed();
    assert!(fixed.contains(&("layer".to_owned(), "server".to_owned())) && fixed.len() == 2, "{fixed:?}");

    let same = BUDGET.replace("  amount", "  service: shop\n  amount");
    let (set, faults) = read(&format!("{SLO_WITH_BUDGET}---\n{same}"));
    assert_eq!((set.slos.len(), set.rules.len()), (0, 0));
    let expected = "a.yaml:1:1: error: `metadata.annotations.toolgauge/cost-budget`: the CostBudget \"daily\" of this service is \
                    already in a.yaml:18 (give one of them another name)";
    assert_eq!(faults, [expected]);
}
