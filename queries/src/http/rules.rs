//! Rules: from the last evaluation.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use toolgauge_analytics::cost_budget::dollars;
use toolgauge_proto::api::rule::{
    CostBudgetGroup, CostBudgetReport, CostTierReport, HeartbeatReport, RulesReport, ThresholdGroup, ThresholdReport,
};

use super::problem::Fault;
use super::slos::at_of;
use super::{Api, json_response};
use crate::json::rfc3339;
use crate::rules::definition::{Hit, Measure};
use crate::rules::{BudgetStatus, HeartStatus, SpendingStatus, ThresholdStatus, shown};

/// Most heartbeats of an answer.
const HEARTBEATS_MAX: usize = 1_000;

pub(super) async fn rules(State(api): State<Arc<Api>>) -> Result<Response, Fault> {
    let Some(rules) = &api.rules else {
        let reason = "no rules are configured; start the server with `--slo DIR_OR_FILE`";
        return Err(Fault::new(StatusCode::NOT_FOUND, reason));
    };
    let evaluated = rules.evaluated();
    let waiting = || Fault::new(StatusCode::SERVICE_UNAVAILABLE, "nothing is evaluated yet; try again in a moment");
    let at = evaluated.at.ok_or_else(waiting)?;
    let figures = &evaluated.figures;
    let mut heartbeats: Vec<&HeartStatus> = figures.heartbeats.iter().collect();
    heartbeats.sort_by(|a, b| b.pulse.silence.cmp(&a.pulse.silence).then_with(|| a.key.cmp(&b.key)));
    json_response(&RulesReport {
        at: at_of(&at),
        thresholds: figures.thresholds.iter().map(threshold).collect(),
        cost_budgets: figures.budgets.iter().map(budget).collect(),
        truncated: heartbeats.len() > HEARTBEATS_MAX,
        heartbeats: heartbeats.into_iter().take(HEARTBEATS_MAX).map(heartbeat).collect(),
    })
}

fn group(by: &[&'static str], key: &[Option<Arc<str>>]) -> BTreeMap<String, Option<String>> {
    let value = |value: &Option<Arc<str>>| value.as_deref().map(str::to_owned);
    by.iter().zip(key).map(|(column, text)| ((*column).to_owned(), value(text))).collect()
}

fn threshold(status: &ThresholdStatus) -> ThresholdReport {
    let rule = &status.rule;
    let is_session = matches!(rule.measure, Measure::Sessions(..));
    let sums_cost = rule.selection.hit == Hit::Nothing && !is_session;
    let groups = status.groups.iter().map(|found| ThresholdGroup {
        group: group(&rule.selection.by, &found.key),
        events: found.events,
        hits: (rule.selection.hit != Hit::Nothing).then_some(found.sums.hits),
        cost_usd: sums_cost.then(|| dollars(found.sums.cost)),
        value: found.value.map(|value| value.to_f64()),
        reached: found.reached,
        evaluation: found.evaluation.as_str().to_owned(),
        state: found.state.as_str().to_owned(),
    });
    ThresholdReport {
        name: rule.header.name.clone(),
        description: rule.header.description.clone(),
        metric: rule.metric.to_owned(),
        quantile: rule.quantile().map(|quantile| quantile.to_string()),
        threshold: shown(rule, rule.threshold),
        window: rule.window.to_string(),
        severity: rule.header.severity.as_str().to_owned(),
        file: rule.header.file.to_string(),
        groups: groups.collect(),
    }
}

fn budget(status: &BudgetStatus) -> CostBudgetReport {
    let budget = &status.budget;
    let groups = status.groups.iter().map(|found: &SpendingStatus| {
        let spending = &found.spending;
        let tiers = found.tiers.iter().map(|(tier, burning, evaluation, state)| CostTierReport {
            burn_tier: tier.as_str().to_owned(),
            burning: *burning,
            evaluation: evaluation.as_str().to_owned(),
            state: state.as_str().to_owned(),
        });
        CostBudgetGroup {
            group: group(&budget.selection.by, &found.key),
            from: rfc3339(spending.start.start()),
            to: rfc3339(spending.end.start()),
            calls: found.sums.calls,
            priced_calls: found.sums.priced,
            spent_usd: dollars(spending.spent),
            remaining_usd: dollars(spending.remaining()),
            forecast_usd: dollars(spending.forecast()),
            overrun_usd: dollars(spending.overrun()),
            forecast_window: spending.window.to_string(),
            burn_rate: spending.burn_rate(spending.recent, spending.window).map(|rate| rate.to_f64()),
            used_up_at: spending.used_up_in().map(|minute| rfc3339(minute.start())),
            tiers: tiers.collect(),
        }
    });
    CostBudgetReport {
        name: budget.header.name.clone(),
        description: budget.header.description.clone(),
        amount_usd: dollars(i128::try_from(budget.amount).unwrap_or(i128::MAX)),
        period: budget.period.to_owned(),
        zone: budget.calendar.zone().to_string(),
        file: budget.header.file.to_string(),
        groups: groups.collect(),
    }
}

fn heartbeat(status: &HeartStatus) -> HeartbeatReport {
    let HeartStatus { key, pulse, rule } = status;
    let (server, tool) = key.tool.as_ref().map_or((None, None), |(server, tool)| (server.as_deref(), Some(&**tool)));
    HeartbeatReport {
        tenant: key.tenant.to_string(),
        service: key.service.to_string(),
        server: server.map(str::to_owned),
        tool: tool.map(str::to_owned),
        rule: rule.clone(),
        last_seen: rfc3339(pulse.last.start()),
        silence_minutes: pulse.silence,
        limit_minutes: pulse.limit,
        silent: pulse.is_silent(),
    }
}
