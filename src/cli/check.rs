//! `toolgauge config check`.

use std::io::Write as _;
use std::sync::Arc;

use clap::Args;
use toolgauge_analytics::price::PriceBook;
use toolgauge_collector::fs::real::RealFs;
use toolgauge_collector::pipeline::Collector;
use toolgauge_collector::prices::Prices;
use toolgauge_proto::api::costs::UnpricedReport;
use toolgauge_proto::time::{Clock as _, SystemClock, UnixMicros};
use toolgauge_queries::engine::Error as QueryError;
use toolgauge_queries::http::Api;
use toolgauge_queries::notify::Targets;

use super::{Failure, Settings, fetch, load, runtime};
use crate::config::{Config, ConfigError};
use crate::ownership::OwnershipFile;
use crate::prices::{PriceFiles, read_at_start};
use crate::server::ServerError;

/// How far back it is looked for calls without a cost, in days.
const LOOK_BACK_DAYS: i64 = 7;

#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    settings: Settings,
    /// Address of a running server: also lists its tools and models whose calls have no price. With --data, those of the
    /// data folder of a stopped one are listed
    #[arg(long)]
    url: Option<String>,
}

pub(super) fn run(check: &Check) -> Result<(), Failure> {
    let config = load(&check.settings)?;
    crate::conventions::read(&config)?;
    OwnershipFile::open(&config)?;
    config.receiver().check().map_err(|error| {
        Failure::Config(ConfigError::Invalid { place: "receiver".into(), message: error.to_string() })
    })?;
    Targets::parse(&config.alertmanager.0).map_err(|error| {
        Failure::Config(ConfigError::Invalid { place: "alertmanager".into(), message: error.to_string() })
    })?;
    let set = read_at_start(&mut PriceFiles::new(&config)?)?;
    let mut out = std::io::stdout();
    for fault in &set.faults {
        writeln!(out, "{fault}")?;
    }
    writeln!(out, "the configuration is fine")?;
    let unpriced = match &check.url {
        Some(url) => {
            let text =
                fetch(&format!("{}/api/v1/costs/unpriced?from=-{LOOK_BACK_DAYS}d", url.trim_end_matches('/')), None)?;
            serde_json::from_str(&text).map_err(|error| Failure::Answer(error.into()))?
        }
        None if check.settings.data.is_some() => of_folder(&config, set.book)?,
        None => return Ok(()),
    };
    Ok(list(&mut out, &unpriced)?)
}

/// What a data folder has that nobody else has open.
fn of_folder(config: &Config, book: PriceBook) -> Result<UnpricedReport, Failure> {
    // A slip of the pen must not make a data folder.
    if !config.data.join("lake/calls").is_dir() {
        return Err(Failure::NoData { path: config.data.clone() });
    }
    super::log("warn");
    let runtime = runtime()?;
    let (mut settings, clock) = (config.collector(), Arc::new(SystemClock));
    // It commits like any other: by the same rules and prices.
    settings.recognise.conventions = crate::conventions::read(config)?;
    settings.prices = Prices::new(book);
    if let Some((_, ownership)) = OwnershipFile::open(config)? {
        settings.recognise.ownership.store(Arc::new(ownership));
    }
    let start = Collector::start(settings, Arc::new(RealFs::private()), clock, runtime.handle());
    let collector = start.map_err(ServerError::from)?;
    let asked = runtime.block_on(async {
        let engine = Arc::new(toolgauge_queries::tables::engine(config.engine())?);
        let api = Api::new(collector.lake(), engine, Arc::new(SystemClock), Box::new(String::new)).await?;
        let from = UnixMicros(SystemClock.now().0 - LOOK_BACK_DAYS * 86_400_000_000);
        api.unpriced(from).await
    });
    collector.close();
    asked.map_err(|error: QueryError| ServerError::from(error).into())
}

fn list(out: &mut impl std::io::Write, unpriced: &UnpricedReport) -> std::io::Result<()> {
    let UnpricedReport { from, tools, models, groups, .. } = unpriced;
    if groups.is_empty() {
        return writeln!(out, "every call since {from} has a price");
    }
    for group in groups {
        let name = group.name.as_deref().unwrap_or("(without a name)");
        let server = group.tool_server.as_ref().map_or_else(String::new, |server| format!(" of server {server}"));
        writeln!(out, "no price: {} {name}{server}, {} of {} calls", group.kind, group.unpriced, group.attempts)?;
    }
    writeln!(out, "{tools} tools and {models} models since {from}; name them in a price book (`--prices FILE`)")
}
