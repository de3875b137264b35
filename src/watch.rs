//! `toolgauge top`, `tail` and `trace`: a running server, looked at from a terminal.

use std::io::Write as _;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;
use tokio::time::MissedTickBehavior;

use crate::client::{Api, ApiError};
use crate::screen::{self, Screen};

const REFRESH: Duration = Duration::from_secs(1);
/// Calls that `tail` shows of one look; what it leaves out is told.
const LOOK_ROWS: usize = 1000;
/// Calls of a trace that are shown.
const TRACE_ROWS: usize = 1000;
/// Width of the bars of a trace.
const BAR: u64 = 40;

/// Why it ended.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// A question was not answered.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// What is asked for cannot be.
    #[error("{0}")]
    Wrong(String),
    /// The terminal.
    #[error("write to the terminal")]
    Output(#[from] std::io::Error),
}

/// Which server.
#[derive(Debug, Clone, clap::Args)]
struct Where {
    /// Address of the server's HTTP API
    #[arg(long, env = "TOOLGAUGE_URL", default_value = "http://127.0.0.1:4400")]
    url: String,
}

/// `toolgauge top`.
#[derive(Debug, Clone, clap::Args)]
pub struct Top {
    #[command(flatten)]
    server: Where,
    /// The time that the figures cover, up to now
    #[arg(long, default_value = "15m", value_parser = humantime::parse_duration)]
    last: Duration,
    /// Show the figures once
    #[arg(long)]
    once: bool,
}

/// `toolgauge tail`.
#[derive(Debug, Clone, clap::Args)]
pub struct Tail {
    #[command(flatten)]
    server: Where,
    /// Only calls of this tool
    #[arg(long)]
    tool: Option<String>,
    /// Only failures
    #[arg(long)]
    failed: bool,
    /// The last calls that are shown at first
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(0..=1000))]
    lines: u16,
    /// Do not wait for more
    #[arg(long)]
    once: bool,
}

/// `toolgauge trace`.
#[derive(Debug, Clone, clap::Args)]
pub struct Trace {
    /// The trace's id: 32 hex digits
    id: String,
    #[command(flatten)]
    server: Where,
}

/// Shows the tools, refreshed in place, until it is dropped.
///
/// # Errors
/// See [`WatchError`].
pub async fn top(options: &Top) -> Result<(), WatchError> {
    let api = Api::new(&options.server.url);
    let mut screen = Screen::new();
    let from = format!("-{}s", options.last.as_secs().max(1));
    let mut ticks = tokio::time::interval(REFRESH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let tools = api.tools(&from).await?;
        if options.once {
            return Ok(writeln!(std::io::stdout(), "{}", screen::tools(&tools))?);
        }
        screen.show(&screen::tools(&tools), &screen::summary(&tools))?;
    }
}

/// A text as SQL has it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn ms(value: &Value) -> String {
    value.as_u64().map_or(String::new(), |ns| format!("{:.1} ms", ns as f64 / 1e6))
}

/// Shows calls as they arrive, until it is dropped.
///
/// # Errors
/// See [`WatchError`].
pub async fn tail(options: &Tail) -> Result<(), WatchError> {
    let api = Api::new(&options.server.url);
    let mut conditions = String::new();
    if let Some(tool) = &options.tool {
        conditions.push_str(&format!(" AND tool_name = {}", quoted(tool)));
    }
    if options.failed {
        conditions.push_str(" AND outcome = 'error'");
    }
    let mut ticks = tokio::time::interval(REFRESH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Positions in the log grow in the order of arrival, whatever the times of calls are.
    let mut seen: Option<u64> = None;
    loop {
        ticks.tick().await;
        let after = seen.map_or(String::new(), |seen| format!(" AND wal_position > {seen}"));
        let newest = format!("SELECT max(wal_position) FROM tool_calls WHERE true{after}");
        let Some(newest) = api.sql(&newest).await?.first().and_then(|row| row[0].as_u64()) else {
            seen = seen.or(Some(0));
            if options.once {
                return Ok(());
            }
            continue;
        };
        let most = if seen.is_none() { usize::from(options.lines) } else { LOOK_ROWS };
        let query = format!(
            "SELECT end_time, service_name, tool_server, tool_name, outcome, error_class, duration_ns, attempt, trace_id \
             FROM tool_calls WHERE wal_position <= {newest}{after}{conditions} \
             ORDER BY wal_position DESC, end_time DESC LIMIT {}",
            most + 1
        );
        let mut rows = api.sql(&query).await?;
        let cut = rows.len() > most;
        rows.truncate(most);
        let mut out = std::io::stdout();
        if cut && seen.is_some() {
            writeln!(out, "... more than {most} calls in a second; only the last are shown")?;
        }
        for row in rows.iter().rev() {
            let outcome = if row[4] == "ok" { "ok" } else { text(&row[5]) };
            let attempt = row[7].as_u64().filter(|attempt| *attempt > 1);
            writeln!(
                out,
                "{}  {:<16} {:<18} {:<18} {:<14} {:>10}{}  {}",
                text(&row[0]),
                text(&row[1]),
                text(&row[2]),
                text(&row[3]),
                outcome,
                ms(&row[6]),
                attempt.map_or(String::new(), |attempt| format!(" (attempt {attempt})")),
                text(&row[8])
            )?;
        }
        out.flush()?;
        if options.once {
            return Ok(());
        }
        seen = Some(newest);
    }
}

/// Shows all rows of one trace, as they lie in time.
///
/// # Errors
/// See [`WatchError`].
pub async fn trace(options: &Trace) -> Result<(), WatchError> {
    let id = options.id.to_lowercase();
    if id.len() != 32 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(WatchError::Wrong(format!("a trace id has 32 hex digits, got \"{}\"", options.id)));
    }
    let query = format!(
        "SELECT kind, coalesce(tool_name, model, agent_name), service_name, outcome, error_class, attempt, final, counted, \
         duration_ns, cost_usd, CAST(start_time AS BIGINT) AS start_us FROM calls WHERE trace_id = X'{id}' \
         ORDER BY start_time, duration_ns DESC LIMIT {}",
        TRACE_ROWS + 1
    );
    let rows = Api::new(&options.server.url).sql(&query).await?;
    let mut out = std::io::stdout();
    if rows.is_empty() {
        return Err(WatchError::Wrong(format!("no call of trace \"{id}\" is known")));
    }
    let start = |row: &[Value]| row[10].as_u64().unwrap_or_default();
    let end = |row: &[Value]| start(row) + row[8].as_u64().unwrap_or_default() / 1000;
    let first = rows.iter().map(|row| start(row)).min().unwrap_or_default();
    let length = rows.iter().map(|row| end(row)).max().unwrap_or_default().saturating_sub(first).max(1);
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["kind", "name", "service", "outcome", "attempt", "ms", "cost USD", ""]);
    for row in rows.iter().take(TRACE_ROWS) {
        let mut outcome = if row[3] == "ok" { "ok".to_owned() } else { text(&row[4]).to_owned() };
        if row[6] == false {
            outcome.push_str(", tried again");
        }
        if row[7] == false {
            outcome.push_str(" (another view)");
        }
        let left = (start(row) - first) * BAR / length;
        let width = ((end(row) - start(row)) * BAR / length).max(1);
        let bar = format!("{}{}", " ".repeat(left as usize), "█".repeat(width as usize));
        table.add_row([
            text(&row[0]).to_owned(),
            text(&row[1]).to_owned(),
            text(&row[2]).to_owned(),
            outcome,
            row[5].to_string(),
            format!("{:.1}", row[8].as_u64().unwrap_or_default() as f64 / 1e6),
            row[9].as_str().unwrap_or_default().to_owned(),
            bar,
        ]);
    }
    for column in [4, 5, 6] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    writeln!(out, "{table}")?;
    if rows.len() > TRACE_ROWS {
        writeln!(out, "only the first {TRACE_ROWS} rows are shown")?;
    }
    Ok(())
}
