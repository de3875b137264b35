//! Whom commands ask for calls: a running server, or a data folder of which no server is running.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde_json::Value;
use tokio::runtime::Runtime;
use toolgauge_analytics::calendar::Span;
use toolgauge_analytics::sli::Counts;
use toolgauge_analytics::window::{Minute, Window};
use toolgauge_proto::api::{SqlRequest, SqlResponse};
use toolgauge_proto::time::{Clock as _, SystemClock};
use toolgauge_queries::slo::set::CompiledSlo;
use toolgauge_queries::slo::sql::{self, By};

use super::super::{Failure, fetch};
use crate::config::Config;
use crate::server::Server;

/// Minutes of a statement at first; fewer if its rows are too many.
const CHUNK_MINUTES: i64 = 6 * 1_440;

#[derive(Debug, Args)]
pub(in crate::cli) struct Whom {
    /// Address of the HTTP API of a running server that has the calls
    #[arg(long, alias = "url", env = "TOOLGAUGE_URL", value_name = "URL")]
    server: Option<String>,
    /// Data folder that has the calls; no server may be running on it
    #[arg(long, value_name = "DIR", conflicts_with = "server")]
    data: Option<PathBuf>,
}

/// Counts by the minute, of each group by its values.
pub(super) type Groups = BTreeMap<Vec<String>, BTreeMap<Minute, Counts>>;

/// Somebody who has calls.
pub(super) struct Asked {
    url: String,
    own: Option<(Runtime, Server)>,
}

/// The last so many minutes, up to the running one.
pub(super) fn last(window: Window) -> Span {
    let now = Minute::of(SystemClock.now());
    Span { start: Minute(now.0 + 1 - i64::from(window.minutes())), end: Minute(now.0 + 1) }
}

impl Asked {
    /// Nobody, if nobody is named. A data folder is served for as long as this takes, on ports of its own.
    pub(super) fn open(whom: &Whom) -> Result<Option<Self>, Failure> {
        if let Some(url) = &whom.server {
            return Ok(Some(Self { url: url.trim_end_matches('/').to_owned(), own: None }));
        }
        let Some(data) = &whom.data else { return Ok(None) };
        if !data.join("lake").is_dir() {
            let message =
                format!("\"{}\" is no data folder of a server (name the folder of its `--data`)", data.display());
            return Err(Failure::WrongUsage(message));
        }
        let address = || "127.0.0.1:0".to_owned();
        let flags = [
            ("data", data.display().to_string()),
            ("otlp_grpc", address()),
            ("otlp_http", address()),
            ("http", address()),
        ];
        let mut config = Config::load(None, std::iter::empty(), flags)?;
        config.alerting.learn_slos.0 = false;
        let runtime = super::super::runtime()?;
        let server = runtime.block_on(Server::start(&config))?;
        Ok(Some(Self { url: format!("http://{}", server.http), own: Some((runtime, server)) }))
    }

    /// Ends what was begun for it.
    pub(super) fn close(self) -> Result<(), Failure> {
        if let Some((runtime, server)) = self.own {
            runtime.block_on(server.stop())?;
        }
        Ok(())
    }

    fn ask(&self, query: String) -> Result<SqlResponse, Failure> {
        let text = fetch(&format!("{}/api/v1/sql", self.url), Some(&SqlRequest { query }))?;
        serde_json::from_str(&text).map_err(|error| Failure::Answer(error.into()))
    }

    /// What an SLO counts of some minutes.
    pub(super) fn counts(&self, slo: &CompiledSlo, span: Span) -> Result<Counts, Failure> {
        let query = sql::counts(&slo.sli.sli, slo.sli.scope(), By::Nothing, &instants(span));
        let answer = self.ask(query)?;
        Ok(answer.rows.first().map_or_else(Counts::default, |row| counts_of(row)))
    }

    /// What it counts of each minute and group.
    pub(super) fn minutes(&self, slo: &CompiledSlo, span: Span) -> Result<Groups, Failure> {
        let columns = slo.slo.group_by.as_ref().map_or(&[][..], |by| by.columns.as_slice());
        let mut groups = Groups::new();
        let (mut from, mut length) = (span.start.0, CHUNK_MINUTES);
        while from < span.end.0 {
            let part = Span { start: Minute(from), end: Minute((from + length).min(span.end.0)) };
            let query = sql::counts(&slo.sli.sli, slo.sli.scope(), By::MinuteAnd(columns), &instants(part));
            let answer = self.ask(query)?;
            if answer.truncated {
                if length == 1 {
                    let message = format!("a minute of {} has more groups than the server answers", slo.slo.name);
                    return Err(Failure::Unfinished(message));
                }
                length = (length / 4).max(1);
                continue;
            }
            for row in &answer.rows {
                let minute = Minute(row.first().map_or(0, number).cast_signed());
                let values = row.iter().skip(1).take(columns.len());
                let key = values.map(|value| value.as_str().unwrap_or_default().to_owned()).collect();
                groups.entry(key).or_default().insert(minute, counts_of(&row[(columns.len() + 1).min(row.len())..]));
            }
            from = part.end.0;
        }
        Ok(groups)
    }
}

fn instants(span: Span) -> sql::Span {
    sql::Span { from: span.start.start(), to: span.end.start(), position: None }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

/// Good, bad, excluded, nulls.
fn counts_of(row: &[Value]) -> Counts {
    let at = |place: usize| row.get(place).map_or(0, number);
    Counts { good: at(0), bad: at(1), excluded: at(2), nulls: at(3), ..Counts::default() }
}
