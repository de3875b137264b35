//! SLOs, burn rates and alerts: from the last evaluation.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use toolgauge_analytics::alert::State as AlertState;
use toolgauge_analytics::budget::{Budget, Events, Measure, burn_rate};
use toolgauge_analytics::sli::Counts;
use toolgauge_analytics::window::{Minute, Window};
use toolgauge_proto::api::slo::{
    AlertChange, AlertReport, AlertsReport, BackfillReport, BudgetReport, BurnRate, BurnRates, EvaluatedAt,
    SlicesReport, SloBurnRate, SloDay, SloDefinition, SloDetail, SloFault, SloNotEvaluated, SloOwner, SloPoint,
    SloReport, SloSeries, SlosReport, TierReport,
};
use toolgauge_proto::call::Layer;
use toolgauge_proto::time::{MINUTE_MICROS, UnixMicros};

use super::problem::Fault;
use super::{Api, json_response, parameters, range};
use crate::evaluate::{At, Day, Evaluated, Evaluator, Series, SloStatus, days, statement};
use crate::json::rfc3339;
use crate::report::{self, AlertFilter};
use crate::slo::definition::Judged;
use crate::slo::fault::Severity;
use crate::slo::group::{self, NAMED_MAX, NO_GROUP};

/// Most groups that an answer lists to whoever has named none.
const GROUPS_SHOWN: usize = 100;
/// Most points of a series.
const POINTS_MAX: i64 = 1_000;
/// Lengths of a series' steps, in minutes.
const STEPS: [i64; 8] = [1, 5, 15, 60, 360, 1_440, 7 * 1_440, 30 * 1_440];

/// The evaluator, or why there is none.
fn evaluator(api: &Api) -> Result<&Arc<Evaluator>, Fault> {
    api.evaluator.as_ref().ok_or_else(|| {
        Fault::new(StatusCode::NOT_FOUND, "no SLOs are configured; start the server with `--slo DIR_OR_FILE`")
    })
}

/// The last evaluation.
pub(super) fn evaluated(api: &Api) -> Result<(At, Arc<Evaluated>), Fault> {
    let evaluated = evaluator(api)?.evaluated();
    let waiting = || Fault::new(StatusCode::SERVICE_UNAVAILABLE, "nothing is evaluated yet; try again in a moment");
    Ok((evaluated.at.ok_or_else(waiting)?, evaluated))
}

fn unknown(service: &str, name: &str) -> Fault {
    let message = format!("there is no SLO {name:?} of service {service:?}; /api/v1/slos lists them");
    Fault::new(StatusCode::NOT_FOUND, message)
}

/// An SLO of an evaluation, or the group of it that is named.
pub(super) fn find<'a>(
    evaluated: &'a Evaluated,
    service: &str,
    name: &str,
    group: Option<&str>,
) -> Result<&'a SloStatus, Fault> {
    // By service and name, so that those of one SLO follow one another.
    let key = |status: &SloStatus| {
        (status.slo.slo.service.as_str().cmp(service)).then(status.slo.slo.name.as_str().cmp(name))
    };
    let first = evaluated.slos.partition_point(|status| key(status).is_lt());
    let all: Vec<&SloStatus> = evaluated.slos[first..].iter().take_while(|status| key(status).is_eq()).collect();
    let set = evaluated.set.slos.iter().find(|slo| slo.slo.service == service && slo.slo.name == name);
    let slo = all.first().map(|status| status.slo.as_ref()).or(set);
    let slo = &slo.ok_or_else(|| unknown(service, name))?.slo;
    let group = group.filter(|group| *group != NO_GROUP);
    let columns = slo.group_columns();
    let Some(text) = group else {
        if let (Some(status), true) =
            (all.first(), columns.is_empty() || all.iter().any(|status| status.group.is_none()))
        {
            return Ok(status);
        }
        let texts = all.iter().filter_map(|status| Some(status.group.as_ref()?.text().to_string()));
        let (known, more): (Vec<String>, usize) =
            (texts.take(GROUPS_SHOWN).collect(), all.len().saturating_sub(GROUPS_SHOWN));
        let more = if more > 0 { format!(", and {more} more, which /api/v1/slos lists") } else { String::new() };
        let message = format!("this SLO has groups; name one with \"group\": {}{more}", known.join(", "));
        return Err(Fault::bad_request(message));
    };
    if columns.is_empty() {
        return Err(Fault::bad_request(format!("this SLO has no groups, \"group\" can only be {{}}, got {text:?}")));
    }
    let wanted = group::parse(columns, text).map_err(|message| Fault::bad_request(format!("\"group\": {message}")))?;
    let found = all.into_iter().find(|status| status.group.as_ref().is_some_and(|group| *group.key() == wanted));
    found.ok_or_else(|| {
        let message = format!("the SLO {name:?} of service {service:?} has no group {text}; /api/v1/slos lists them");
        Fault::new(StatusCode::NOT_FOUND, message)
    })
}

/// The values of its group.
pub(super) fn group_of(status: &SloStatus) -> BTreeMap<String, String> {
    status.group.as_ref().map_or_else(BTreeMap::new, |group| group.values())
}

/// The conditions of its group.
pub(super) fn condition_of(status: &SloStatus) -> String {
    status.group.as_ref().map_or(String::new(), |group| group.condition(NAMED_MAX))
}

pub(super) fn at_of(at: &At) -> EvaluatedAt {
    EvaluatedAt { time: rfc3339(at.time), position: at.position.0, watermark: rfc3339(at.watermark) }
}

pub(super) async fn slos(State(api): State<Arc<Api>>) -> Result<Response, Fault> {
    if api.evaluator.is_none() {
        let (view, time) = (api.lake.view(), api.clock.now());
        let at = At { time, steady: time, position: view.position, watermark: view.watermark, clock_behind_us: 0 };
        return json_response(&SlosReport {
            at: at_of(&at),
            slos: Vec::new(),
            not_evaluated: Vec::new(),
            faults: Vec::new(),
        });
    }
    let (at, evaluated) = evaluated(&api)?;
    let not_evaluated = evaluated.set.not_evaluated.iter().map(|slo| SloNotEvaluated {
        service: slo.service.clone(),
        slo: slo.name.clone(),
        file: slo.file.to_string(),
        reason: slo.reason.clone(),
    });
    let faults = evaluated.set.faults.iter().map(|fault| SloFault {
        severity: match fault.severity {
            Severity::Error => "error".to_owned(),
            Severity::Warning => "warning".to_owned(),
        },
        file: fault.file.clone(),
        line: fault.place.line,
        column: fault.place.column,
        key: fault.key.clone(),
        message: fault.message.clone(),
    });
    json_response(&SlosReport {
        at: at_of(&at),
        slos: evaluated.slos.iter().map(|slo| owned_report(&api, slo)).collect(),
        not_evaluated: not_evaluated.collect(),
        faults: faults.collect(),
    })
}

fn burn(window: Window, counts: &Counts, status: &SloStatus) -> BurnRate {
    BurnRate {
        window: window.to_string(),
        good: counts.good,
        bad: counts.bad,
        total: counts.total(),
        rate: burn_rate(counts, status.slo.slo.target).map(|rate| rate.to_f64()),
        sampled: counts.is_sampled(),
    }
}

const fn measure(measure: Measure) -> &'static str {
    match measure {
        Measure::BurnRate => "burn_rate",
        Measure::Consumption => "consumption",
    }
}

fn state_of(status: &SloStatus) -> &'static str {
    let worst = status.tiers.iter().map(|tier| &tier.state).max_by_key(|state| match state {
        AlertState::Inactive => 0,
        AlertState::Resolved { .. } => 1,
        AlertState::Pending { .. } => 2,
        AlertState::Firing { .. } => 3,
    });
    worst.map_or("inactive", AlertState::as_str)
}

/// The report of an SLO, with the owner of what its condition fixes.
fn owned_report(api: &Api, status: &SloStatus) -> SloReport {
    let (slo, ownership) = (&status.slo.slo, api.ownership.load());
    let fixed = |column| status.slo.sli.fixed_value(column);
    let service = fixed("service_name").unwrap_or(&slo.service);
    let owner = ownership.owner(Some(service), fixed("tool_server"), fixed("tool_name")).map(|owner| SloOwner {
        team: owner.team.clone(),
        criticality: owner.criticality.map(|it| it.as_str().to_owned()),
        runbook: owner.runbook.clone(),
    });
    SloReport { owner, ..slo_report(status) }
}

pub(super) fn slo_report(status: &SloStatus) -> SloReport {
    let (slo, counts, events) = (&status.slo.slo, &status.counts, &status.events);
    let budget = Budget::of(counts, slo.target);
    SloReport {
        service: slo.service.clone(),
        slo: slo.name.clone(),
        group: group_of(status),
        owner: None,
        display_name: slo.display_name.clone(),
        description: slo.description.clone(),
        revision: status.revision.as_deref().map(str::to_owned),
        target: slo.target.to_f64(),
        window: slo.period.to_string(),
        from: rfc3339(status.period.start.start()),
        to: rfc3339(status.period.end.start()),
        period_ends: status.period_end.map(|end| rfc3339(end.start())),
        mode: slo.sli.mode.as_str().to_owned(),
        good: events.good,
        bad: events.bad,
        excluded: events.excluded,
        nulls: events.nulls,
        total: events.total(),
        slices: status.slices.map(|(_, slices)| SlicesReport {
            good: slices.good,
            bad: slices.bad,
            empty: slices.empty,
        }),
        sampled: events.is_sampled(),
        weighted: report::weighted_events(events),
        sli: counts.ratio(),
        provisional: status.provisional,
        budget: BudgetReport {
            allowed: budget.allowed.to_string(),
            spent: budget.spent.to_f64().round() as u64,
            remaining: budget.remaining.to_string(),
            remaining_ratio: budget.remaining_ratio(),
            allowed_in_period: status.allowed_in_period.map(Events::to_f64),
        },
        projected_exhaustion: status.projected_exhaustion.map(rfc3339),
        burn_rates: status.windows.iter().map(|(window, counts)| burn(*window, counts, status)).collect(),
        tiers: status
            .tiers
            .iter()
            .map(|tier| TierReport {
                burn_tier: tier.tier.name.to_string(),
                severity: tier.severity.to_string(),
                long_window: tier.tier.long.to_string(),
                short_window: tier.tier.short.to_string(),
                threshold: tier.tier.factor.to_f64(),
                measure: measure(tier.tier.measure).to_owned(),
                held_back: tier.held_back.map(|held_back| held_back.as_str().to_owned()),
                state: tier.state.as_str().to_owned(),
                evaluation: tier.evaluation.as_str().to_owned(),
            })
            .collect(),
        state: state_of(status).to_owned(),
        evaluation: status.evaluation.as_str().to_owned(),
        coverage: status.coverage,
        backfill: status
            .backfill
            .as_ref()
            .map(|backfill| BackfillReport { revision: backfill.revision.to_string(), progress: backfill.progress }),
    }
}

pub(super) async fn burn_rates(State(api): State<Arc<Api>>) -> Result<Response, Fault> {
    let (at, evaluated) = evaluated(&api)?;
    let all = evaluated.slos.iter().flat_map(|status| {
        status.windows.iter().map(|(window, counts)| SloBurnRate {
            service: status.slo.slo.service.clone(),
            slo: status.slo.slo.name.clone(),
            group: group_of(status),
            burn_rate: burn(*window, counts, status),
        })
    });
    json_response(&BurnRates { at: at_of(&at), burn_rates: all.collect() })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SloParameters {
    from: Option<String>,
    to: Option<String>,
    group: Option<String>,
}

pub(super) async fn slo(
    State(api): State<Arc<Api>>,
    path: Result<Path<(String, String)>, PathRejection>,
    query: Result<Query<SloParameters>, QueryRejection>,
) -> Result<Response, Fault> {
    let Path((service, name)) = path.map_err(|rejection| Fault::bad_request(rejection.body_text()))?;
    let SloParameters { from, to, group } = parameters(query)?;
    let (at, evaluated) = evaluated(&api)?;
    let status = find(&evaluated, &service, &name, group.as_deref())?;
    let (start, end) = (status.period.start.start(), status.period.end.start());
    let (from, to) = match (&from, &to) {
        (None, None) => (start, end),
        _ => range::range(from.as_deref(), to.as_deref(), api.clock.now()).map_err(Fault::bad_request)?,
    };
    let (first, last) = (Minute::of(from).max(Minute::of(start)), Minute(Minute::of(UnixMicros(to.0 - 1)).0));
    let group = status.group.as_ref().map(|group| Arc::clone(group.key()));
    let is_learning = status.slo.slo.group_by.is_some() && group.is_none();
    let span = status.slices.map_or(status.period, |(span, _)| span);
    // A slice that begins in the period may end after it, and one is of the rolling window that began before it.
    let (earliest, latest) = (status.period.start.min(span.start), status.period.end);
    let all = evaluator(&api)?.series(&service, &name, group, earliest, latest).await?;
    // Of groups that nobody knows yet there is none.
    let all = all.or(is_learning.then(Series::new)).ok_or_else(|| unknown(&service, &name))?;
    let series: Series = all.iter().filter(|(minute, _)| (first..=last).contains(minute)).copied().collect();
    let sli = &status.slo.slo.sli;
    let judge = |judged: Judged| (sli.judged == judged).then(|| sli.judge.text.clone());
    json_response(&SloDetail {
        at: at_of(&at),
        slo: owned_report(&api, status),
        definition: SloDefinition {
            total: sli.total.text.clone(),
            good: judge(Judged::Good),
            bad: judge(Judged::Bad),
            layer: sli.layer.map(Layer::as_str).map(str::to_owned),
            file: status.slo.slo.file.to_string(),
            sql: statement(&status.slo.slo, &condition_of(status), span, Some(at.position)),
        },
        days: days(status, &all).iter().map(|day| slo_day(status, day)).collect(),
        series: slo_series(&series, first, last),
    })
}

fn slo_day(status: &SloStatus, day: &Day) -> SloDay {
    let Day { span, counts } = day;
    let budget = Budget::of(counts, status.slo.slo.target);
    SloDay {
        from: rfc3339(span.start.start()),
        to: rfc3339(span.end.start()),
        good: counts.good,
        bad: counts.bad,
        excluded: counts.excluded,
        total: counts.total(),
        sli: counts.ratio(),
        allowed: budget.allowed.to_string(),
        spent: budget.spent.to_string(),
        remaining: budget.remaining.to_string(),
    }
}

fn slo_series(series: &Series, first: Minute, last: Minute) -> SloSeries {
    let minutes = last.0 - first.0 + 1;
    let step = STEPS.into_iter().find(|step| minutes / step < POINTS_MAX).unwrap_or(STEPS[STEPS.len() - 1]);
    let mut sum = Counts::default();
    let mut steps: BTreeMap<i64, Counts> = BTreeMap::new();
    for (minute, counts) in series {
        sum += counts;
        *steps.entry(minute.0.div_euclid(step) * step).or_default() += counts;
    }
    SloSeries {
        from: rfc3339(first.start()),
        to: rfc3339(Minute(last.0 + 1).start()),
        step_s: step.unsigned_abs() * MINUTE_MICROS.unsigned_abs() / 1_000_000,
        good: sum.good,
        bad: sum.bad,
        points: steps
            .into_iter()
            .map(|(minute, counts)| SloPoint {
                time: rfc3339(Minute(minute).start()),
                good: counts.good,
                bad: counts.bad,
                excluded: counts.excluded,
                sli: counts.ratio(),
            })
            .collect(),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AlertsParameters {
    state: Option<String>,
    severity: Option<String>,
    from: Option<String>,
    to: Option<String>,
}

pub(super) async fn alerts(
    State(api): State<Arc<Api>>,
    query: Result<Query<AlertsParameters>, QueryRejection>,
) -> Result<Response, Fault> {
    let AlertsParameters { state, severity, from, to } = parameters(query)?;
    const STATES: [&str; 4] = ["inactive", "pending", "firing", "resolved"];
    if let Some(wrong) = state.as_deref().filter(|state| !STATES.contains(state)) {
        return Err(Fault::bad_request(format!("\"state\" must be one of {}, got {wrong:?}", STATES.join(", "))));
    }
    let (at, evaluated) = evaluated(&api)?;
    let rules = api.rules.as_ref().map(|rules| rules.evaluated()).unwrap_or_default();
    let alerts = evaluated.alerts.iter().chain(&rules.alerts).filter(|alert| {
        state.as_deref().is_none_or(|state| alert.state.as_str() == state)
            && (severity.is_none() || severity.as_ref() == alert.labels.get("severity"))
    });
    let alerts = alerts.map(|alert| AlertReport {
        fingerprint: alert.fingerprint.to_string(),
        labels: (*alert.labels).clone(),
        annotations: alert.annotations.clone(),
        state: alert.state.as_str().to_owned(),
        starts_at: alert.state.starts_at().map(rfc3339),
        ends_at: alert.state.ends_at().map(rfc3339),
    });
    let alerts = alerts.collect();
    let mut answer = AlertsReport { at: at_of(&at), alerts, history: None, truncated: false };
    if from.is_some() || to.is_some() {
        let (from, to) = range::range(from.as_deref(), to.as_deref(), api.clock.now()).map_err(Fault::bad_request)?;
        let filter = AlertFilter { from, to, state, severity };
        let (history, truncated): (Vec<AlertChange>, bool) =
            report::alert_history(&api.engine, &api.catalog, api.lake.view(), api.clock.now(), filter).await?;
        (answer.history, answer.truncated) = (Some(history), truncated);
    }
    json_response(&answer)
}
