//! What is decided by what events stand for, and what by how many there are.

use std::sync::Arc;

use toolgauge_analytics::alert::State;
use toolgauge_analytics::budget::burn_rate;
use toolgauge_proto::time::UnixMicros;
use toolgauge_queries::evaluate::{Evaluated, SloStatus};

use crate::slo_world::{Call, MINUTE, Running, SECOND, World};

/// The same twice, but for the least number of events.
const SLOS: &str = "
apiVersion: openslo/v1
kind: SLO
metadata: {name: any, annotations: {toolgauge/mode: attempt}}
spec:
  service: shop
  indicator: {spec: {ratioMetric: {
    good: {metricSource: {type: toolgauge, spec: {where: outcome = 'ok'}}},
    total: {metricSource: {type: toolgauge, spec: {where: tool_name = 'search'}}}}}}
  timeWindow: [{duration: 30d, isRolling: true}]
  budgetingMethod: Occurrences
  objectives: [{target: 0.99}]
---
apiVersion: openslo/v1
kind: SLO
metadata: {name: many, annotations: {toolgauge/mode: attempt, toolgauge/min-events: '200'}}
spec:
  service: shop
  indicator: {spec: {ratioMetric: {
    good: {metricSource: {type: toolgauge, spec: {where: outcome = 'ok'}}},
    total: {metricSource: {type: toolgauge, spec: {where: tool_name = 'search'}}}}}}
  timeWindow: [{duration: 30d, isRolling: true}]
  budgetingMethod: Occurrences
  objectives: [{target: 0.99}]
";

const BEGIN: UnixMicros = UnixMicros(1_772_366_400_000_000);

fn held_back(status: &SloStatus) -> Vec<Option<&'static str>> {
    status.tiers.iter().map(|tier| tier.held_back.map(|held_back| held_back.as_str())).collect()
}

fn firing(evaluated: &Evaluated) -> Vec<(String, String)> {
    let alerts = evaluated.alerts.iter().filter(|alert| matches!(alert.state, State::Firing { .. }));
    let mut firing: Vec<_> =
        alerts.map(|alert| (alert.labels["slo"].clone(), alert.labels["burn_tier"].clone())).collect();
    firing.sort();
    firing
}

/// Scenario: 150 calls, the last of which fails and stands for a hundred. Guarantees: by rows nothing burns, by weights everything does, and
/// weights are what budget and burn rates spend; but there is one failure only, which may be chance (pages are held back by evidence), and
/// 150 events are fewer than 200, whatever they stand for.
#[tokio::test(flavor = "multi_thread")]
async fn guards_count_events_and_burn_rates_spend_weights() {
    let world = World::new(BEGIN);
    let running = Running::start(Arc::clone(&world), SLOS).await;
    for minute in 1..=15 {
        let time = UnixMicros(BEGIN.0 + minute * MINUTE);
        let mut moment = world.moment();
        moment.at(time);
        moment.arrive(time, &["shop-agent"]);
        for nth in 0..10 {
            let is_last = (minute, nth) == (15, 9);
            moment.call(Call {
                end: UnixMicros(time.0 - SECOND),
                service: "shop-agent",
                tool: "search",
                failed: is_last,
                is_final: true,
                duration_ms: 20,
                weight: if is_last { 100_000_000 } else { 1_000_000 },
                position: 0,
            });
        }
        drop(moment);
        let evaluated = running.evaluated().await;
        assert!(minute == 15 || firing(&evaluated).is_empty(), "{evaluated:?}");
    }
    let evaluated = running.evaluated().await;
    for status in &evaluated.slos {
        for (window, counts) in status.windows.iter().filter(|(window, _)| window.minutes() >= 30) {
            assert_eq!((counts.good, counts.bad), (149, 1), "{window}");
            let rate = burn_rate(counts, status.slo.slo.target).unwrap().to_f64();
            // 100 of 249, where 1 % is allowed; of rows it would be two thirds of what is allowed.
            assert!((rate - 100.0 / 249.0 / 0.01).abs() < 1e-9, "{window}: {rate}");
        }
        let budget = toolgauge_analytics::budget::Budget::of(&status.counts, status.slo.slo.target);
        assert_eq!((budget.allowed.to_string().as_str(), budget.spent.to_f64()), ("2.49", 100.0));
    }
    let [any, many] = &evaluated.slos[..] else { panic!("two SLOs") };
    assert_eq!(held_back(any), [Some("evidence"), Some("evidence"), None, None]);
    assert_eq!(held_back(many), [Some("min_events"); 4]);
    let tier = |slo: &str, tier: &str| (slo.to_owned(), tier.to_owned());
    assert_eq!(firing(&evaluated), [tier("any", "long-term"), tier("any", "slow")]);
    running.end().await;
}
