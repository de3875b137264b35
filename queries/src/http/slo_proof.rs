//! The proof of an SLO: every number of its last evaluation, with the SQL that recounts it and what that gives now.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use serde::Deserialize;
use toolgauge_analytics::budget::{Budget, burn_rate};
use toolgauge_analytics::calendar::Span;
use toolgauge_analytics::sli::Counts;
use toolgauge_analytics::window::Minute;
use toolgauge_proto::api::slo::{ProofFigure, SloProof};

use super::problem::Fault;
use super::slos::{at_of, condition_of, evaluated, find, group_of};
use super::{Api, json_response, parameters};
use crate::engine::Error;
use crate::evaluate::{SloStatus, statement};
use crate::json::rfc3339;
use crate::slo::definition::Budgeting;

/// A figure whose recount is to come.
struct Open {
    name: String,
    minutes: Span,
    counts: Counts,
    sql: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProofParameters {
    group: Option<String>,
}

pub(super) async fn proof(
    State(api): State<Arc<Api>>,
    path: Result<Path<(String, String)>, PathRejection>,
    query: Result<Query<ProofParameters>, QueryRejection>,
) -> Result<Response, Fault> {
    let Path((service, name)) = path.map_err(|rejection| Fault::bad_request(rejection.body_text()))?;
    let ProofParameters { group } = parameters(query)?;
    let (at, evaluated) = evaluated(&api)?;
    let status = find(&evaluated, &service, &name, group.as_deref())?;
    let condition = condition_of(status);
    let slo = &status.slo.slo;
    let now = Minute::of(at.time);
    let open = |name: String, minutes: Span, counts: Counts| Open {
        sql: statement(slo, &condition, minutes, Some(at.position)),
        name,
        minutes,
        counts,
    };
    let windows = status.windows.iter().map(|(window, counts)| {
        let minutes = match slo.budgeting {
            Budgeting::Occurrences => Span { start: *window.at(now).start(), end: Minute(now.0 + 1) },
            Budgeting::Timeslices(slices) => slices.window_at(*window, now),
        };
        open(window.to_string(), minutes, *counts)
    });
    let period = status.slices.map_or(status.period, |(minutes, _)| minutes);
    let figures: Vec<Open> = windows.chain([open("period".to_owned(), period, status.counts)]).collect();
    let statements: Vec<String> = figures.iter().map(|figure| figure.sql.clone()).collect();
    let schema = api.catalog.schema(api.lake.view());
    let clock = chrono::DateTime::from_timestamp_micros(api.clock.now().0).unwrap_or_default();
    let recounted = api
        .engine
        .run(schema, clock, async move |session| {
            let mut recounted = Vec::with_capacity(statements.len());
            for sql in &statements {
                let answer = session.query(sql, Vec::new()).await?;
                let batch = answer.batches.iter().find(|batch| batch.num_rows() > 0);
                let int = |column: usize| {
                    let column = batch?.column(column).as_primitive_opt::<Int64Type>()?;
                    u64::try_from(column.value(0)).ok()
                };
                let counts = int(0).zip(int(1));
                recounted.push(counts.ok_or_else(|| Error::Internal("a recount gave no numbers".to_owned()))?);
            }
            Ok(recounted)
        })
        .await?;
    let figures: Vec<ProofFigure> =
        figures.into_iter().zip(recounted).map(|(figure, found)| figure_of(status, figure, found)).collect();
    let budget = Budget::of(&status.counts, slo.target);
    let allowed = format!(
        "(1 - {}) x {} = {}; {} - {} = {} are left",
        slo.target,
        status.counts.total(),
        budget.allowed,
        budget.allowed,
        budget.spent,
        budget.remaining
    );
    json_response(&SloProof {
        at: at_of(&at),
        service,
        slo: name,
        group: group_of(status),
        target: slo.target.to_string(),
        counted_in: match slo.budgeting {
            Budgeting::Occurrences => "events".to_owned(),
            Budgeting::Timeslices(_) => "slices".to_owned(),
        },
        provisional: status.provisional,
        matches: figures.iter().all(|figure| figure.matches),
        budget: allowed,
        figures,
    })
}

fn figure_of(status: &SloStatus, figure: Open, (good, bad): (u64, u64)) -> ProofFigure {
    let target = status.slo.slo.target;
    let Open { name, minutes, counts, sql } = figure;
    let formula = burn_rate(&counts, target)
        .map(|rate| format!("({} / {}) / (1 - {target}) = {:.6}", counts.bad, counts.total(), rate.to_f64()));
    ProofFigure {
        window: name,
        from: rfc3339(minutes.start.start()),
        to: rfc3339(minutes.end.start()),
        good: counts.good,
        bad: counts.bad,
        burn_rate: formula,
        sql,
        recounted_good: good,
        recounted_bad: bad,
        matches: (counts.good, counts.bad) == (good, bad),
    }
}
