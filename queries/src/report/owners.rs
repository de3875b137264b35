//! Who owns the tools of a report.

use std::collections::BTreeMap;
use std::sync::Arc;

use toolgauge_analytics::ownership::{Criticality, Owner, Ownership};
use toolgauge_analytics::series::OTHER;
use toolgauge_proto::api::{ToolOwner, ToolReport};
use toolgauge_proto::lake::View;
use toolgauge_proto::time::UnixMicros;

use super::{Range, Rows, Source, names_of, over_snapshot, over_sums};
use crate::engine::{Engine, Error};
use crate::tables::Catalog;

const TOOL_SERVICES: &str = include_str!("../../sql/tool_services.sql");

/// Tenant, server and name of a tool.
type Tool = (String, Option<String>, Option<String>);

/// Names the owners of the tools of a report that was made of this view, range and source.
///
/// # Errors
/// See [`Error`].
#[expect(clippy::too_many_arguments, reason = "those of a report, with the report")]
pub async fn owners(
    engine: &Engine,
    catalog: &Catalog,
    view: Arc<View>,
    now: UnixMicros,
    range: Range,
    source: Source,
    ownership: &Ownership,
    tools: &mut [ToolReport],
) -> Result<(), Error> {
    let found = over_snapshot(engine, catalog, &view, now, async move |session, _| {
        let (names, _) = names_of(&session, &range, source).await?;
        let answer = session.query(&over_sums(source.sums(), TOOL_SERVICES), range.parameters_of_sums(names)).await?;
        let rows = Rows::new(&answer)?;
        let mut services: BTreeMap<Tool, Vec<Option<String>>> = BTreeMap::new();
        for row in 0..rows.len() {
            let tool = (rows.text(0, row)?.unwrap_or_default(), rows.text(1, row)?, rows.text(2, row)?);
            services.entry(tool).or_default().push(rows.text(3, row)?);
        }
        Ok(services)
    })
    .await?;
    for tool in tools {
        let key = (tool.tenant.clone(), tool.tool_server.clone(), tool.tool_name.clone());
        let is_other = |name: Option<&str>| name == Some(OTHER);
        // Nobody owns what has no name.
        if is_other(tool.tool_name.as_deref()) || is_other(tool.tool_server.as_deref()) {
            continue;
        }
        for service in found.get(&key).into_iter().flatten().filter(|service| !is_other(service.as_deref())) {
            let owner = ownership.owner(service.as_deref(), tool.tool_server.as_deref(), tool.tool_name.as_deref());
            if let Some(owner) = owner {
                add(&mut tool.owners, owner, service.as_deref());
            }
        }
    }
    Ok(())
}

fn add(owners: &mut Vec<ToolOwner>, owner: &Owner, service: Option<&str>) {
    let criticality = owner.criticality.map(Criticality::as_str);
    let same = |known: &&mut ToolOwner| {
        known.team == owner.team && known.criticality.as_deref() == criticality && known.runbook == owner.runbook
    };
    let services = match owners.iter_mut().find(same) {
        Some(known) => &mut known.services,
        None => {
            owners.push(ToolOwner {
                team: owner.team.clone(),
                criticality: criticality.map(str::to_owned),
                runbook: owner.runbook.clone(),
                services: Vec::new(),
            });
            let last = owners.len() - 1;
            &mut owners[last].services
        }
    };
    services.extend(service.map(str::to_owned));
}
