//! Whether telemetry seems to come from samplers that keep errors and do not say so; what that is, is in
//! [`toolgauge_analytics::sampling`].
//!
//! It shows at tools whose servers tell of all calls. What it concerns are the services that call them: everything that those tell of
//! comes from the traces that were kept. So all tools that they call are marked, with the figures by which it shows. Looked at is at most
//! the last hour of the range, so that it costs the same whatever the range.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::common::ScalarValue;
use toolgauge_analytics::sampling::{Told, keeps_errors};
use toolgauge_proto::api::{TailSampling, ToolReport};
use toolgauge_proto::time::{HOUR_MICROS, UnixMicros};

use super::{Range, Rows, timestamp};
use crate::engine::{Error, Session};

const TOLD_BY_SERVERS: &str = include_str!("../../sql/told_by_servers.sql");
const TOLD_BY_CALLERS: &str = include_str!("../../sql/told_by_callers.sql");

/// Tenant and service, or tenant and tool.
type Of = (String, Option<String>);
/// The tools at which it shows, with the figures.
pub(super) type Suspected = BTreeMap<Of, TailSampling>;

/// What is looked at: at most the last hour of a range. What is received is known up to the watermark.
fn parameters(range: &Range, watermark: UnixMicros) -> Vec<(&'static str, ScalarValue)> {
    let end = range.to.min(watermark);
    let since = UnixMicros(range.from.0.max(end.0.saturating_sub(HOUR_MICROS)));
    vec![("since", timestamp(since)), ("to", timestamp(range.to))]
}

/// The tools at which it shows.
pub(super) async fn suspected(session: &Session, range: &Range, watermark: UnixMicros) -> Result<Suspected, Error> {
    suspected_of(&Rows::new(&session.query(TOLD_BY_SERVERS, parameters(range, watermark)).await?)?)
}

/// Marks the tools of a report that are concerned.
pub(super) async fn mark(
    session: &Session,
    range: &Range,
    watermark: UnixMicros,
    suspected: &Suspected,
    tools: &mut [ToolReport],
) -> Result<(), Error> {
    if suspected.is_empty() {
        return Ok(());
    }
    let rows = Rows::new(&session.query(TOLD_BY_CALLERS, parameters(range, watermark)).await?)?;
    let mut called: Vec<(Of, [Option<String>; 2])> = Vec::with_capacity(rows.len());
    for row in 0..rows.len() {
        let service = (rows.text(0, row)?.unwrap_or_default(), rows.text(1, row)?);
        called.push((service, [rows.text(2, row)?, rows.text(3, row)?]));
    }
    // Callers and servers may call the server differently, but not the tool.
    let mut services: BTreeMap<&Of, &TailSampling> = BTreeMap::new();
    for (service, [_, tool]) in &called {
        if let Some(found) = suspected.get(&(service.0.clone(), tool.clone())) {
            services.entry(service).or_insert(found);
        }
    }
    for tool in tools {
        let names = [tool.tool_server.clone(), tool.tool_name.clone()];
        let callers: BTreeSet<&Of> =
            called.iter().filter(|(of, called)| of.0 == tool.tenant && *called == names).map(|(of, _)| of).collect();
        let found = callers.iter().find_map(|service| services.get(*service));
        tool.suspected_tail_sampling = found.map(|found| TailSampling {
            services: callers
                .iter()
                .filter(|service| services.contains_key(*service))
                .filter_map(|service| service.1.clone())
                .collect(),
            ..TailSampling::clone(found)
        });
    }
    Ok(())
}

fn suspected_of(rows: &Rows) -> Result<Suspected, Error> {
    let mut found = BTreeMap::new();
    for row in 0..rows.len() {
        let told = |column: usize| -> Result<Told, Error> {
            Ok(Told { calls: rows.count(column, row)?, with_caller: rows.count(column + 1, row)? })
        };
        let (failed, succeeded) = (told(3)?, told(5)?);
        if keeps_errors(failed, succeeded) {
            let tool_name = rows.text(2, row)?;
            found.insert(
                (rows.text(0, row)?.unwrap_or_default(), tool_name.clone()),
                TailSampling {
                    services: Vec::new(),
                    shown_by: tool_name,
                    failed: failed.calls,
                    failed_with_caller: failed.with_caller,
                    succeeded: succeeded.calls,
                    succeeded_with_caller: succeeded.with_caller,
                },
            );
        }
    }
    Ok(found)
}
