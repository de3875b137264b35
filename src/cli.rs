//! The commands. Exit codes: 0 fine, 1 failed, 2 wrong usage or configuration.

mod backup;
mod check;
mod costs;
mod reprice;
mod rules;
mod slo;

use std::io::{IsTerminal as _, Write as _};
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;
use toolgauge_collector::pipeline::{CollectorError, chain};
use toolgauge_proto::api::why::WhyReport;
use toolgauge_proto::api::{Problem, SqlRequest, SqlResponse, ToolOwner, ToolReport, ToolsReport, Weighted};
use toolgauge_proto::explain::Missed;
use toolgauge_proto::time::SystemClock;
use toolgauge_queries::notify::NotifyError;
use toolgauge_queries::slo::learned::UNKNOWN_TOOLS;

use crate::config::{Config, ConfigError};
use crate::demo::{self, DemoError};
use crate::loadgen::{self, WrongEndpoint};
use crate::screen::percent;
use crate::server::{Server, ServerError};
use crate::watch::{self, WatchError};
use crate::why::{self, Holds, WhyError};

const FAILED: u8 = 1;
const WRONG_USAGE: u8 = 2;

#[derive(Debug, Parser)]
#[command(name = "toolgauge", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take OTLP, keep every tool call, answer questions
    Serve(Serve),
    /// See it working: a server on a fresh folder with 30 days of history and live traffic, in which a tool breaks
    Demo(Demo),
    /// Send the demo's traffic to any OTLP endpoint, as fast as it goes or at a rate
    Loadgen(loadgen::Options),
    /// The tools of a running server, refreshed every second
    Top(watch::Top),
    /// The calls of a running server, as they arrive
    Tail(watch::Tail),
    /// The calls of one trace
    Trace(watch::Trace),
    /// Ask a running server a question in SQL (read-only)
    Sql(Sql),
    /// Reports of a running server
    Report {
        #[command(subcommand)]
        report: Report,
    },
    /// Which rule recognises each span or record of an OTLP export, or why none does
    Why(Why),
    /// Price the calls of past dates anew, by a corrected price book; the server must be stopped
    Reprice(reprice::Reprice),
    /// Service level objectives
    Slo {
        #[command(subcommand)]
        action: slo::Action,
    },
    /// Copy the data folder of a server while it runs; the copy is a data folder that a server can start on
    Backup(backup::Options),
    /// Alerts beside those of service level objectives
    Rules {
        #[command(subcommand)]
        action: RulesAction,
    },
    /// Look at the configuration
    Config {
        #[command(subcommand)]
        action: ConfigAction,
    },
}

#[derive(Debug, Args)]
struct Settings {
    /// Data folder [default: toolgauge-data]
    #[arg(long)]
    data: Option<PathBuf>,
    /// Configuration file (TOML); every setting can also stand in the environment as `TOOLGAUGE_...`
    #[arg(long, env = "TOOLGAUGE_CONFIG")]
    config: Option<PathBuf>,
    /// Address for OTLP/gRPC [default: 127.0.0.1:4317]
    #[arg(long)]
    otlp_grpc: Option<String>,
    /// Address for OTLP/HTTP [default: 127.0.0.1:4318]
    #[arg(long)]
    otlp_http: Option<String>,
    /// Address for the HTTP API [default: 127.0.0.1:4400]
    #[arg(long)]
    http: Option<String>,
    /// File or folder of OpenSLO documents; may be repeated
    #[arg(long, value_name = "DIR_OR_FILE")]
    slo: Vec<String>,
    /// Address of an Alertmanager that alerts are sent to, like http://127.0.0.1:9093; may be repeated
    #[arg(long, value_name = "URL")]
    alertmanager: Vec<String>,
    /// Price book (TOML) for calls whose producers do not report a cost; may be repeated, the first that has a price decides
    #[arg(long, value_name = "FILE")]
    prices: Vec<String>,
    /// Ownership file (TOML): which team owns which services and tools
    #[arg(long, value_name = "FILE")]
    ownership: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Serve {
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Args)]
struct Demo {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    options: demo::Options,
}

#[derive(Debug, Clone, Args)]
struct Connection {
    /// Address of the server's HTTP API
    #[arg(long, env = "TOOLGAUGE_URL", default_value = "http://127.0.0.1:4400")]
    url: String,
    /// How to write the answer
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Args)]
struct Sql {
    /// The statement, for example "select tool_name, count(*) from tool_calls group by 1"
    query: String,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Subcommand)]
enum Report {
    /// Success, latency, retries and cost of every tool
    Tools {
        /// Start: RFC 3339, or relative like -1h
        #[arg(long, allow_hyphen_values = true)]
        from: Option<String>,
        /// End: RFC 3339, or relative, or now
        #[arg(long, allow_hyphen_values = true)]
        to: Option<String>,
        /// Only this service
        #[arg(long)]
        service: Option<String>,
        /// Only this environment
        #[arg(long)]
        environment: Option<String>,
        #[command(flatten)]
        connection: Connection,
    },
    /// Names of tools that have never succeeded
    UnknownTools {
        #[command(flatten)]
        connection: Connection,
    },
    /// What calls have cost, and what the running day and month will have cost
    Costs(costs::Costs),
    /// Error budget, burn rate and alert state of every SLO; of one, what each day of its period took of the budget
    Slo {
        /// Only this one by the day, like shop/search-availability
        #[arg(long, value_name = "SERVICE/NAME")]
        slo: Option<String>,
        /// Of this group of it, as JSON like {"tool_name": "search"}
        #[arg(long, requires = "slo")]
        group: Option<String>,
        #[command(flatten)]
        connection: Connection,
    },
}

#[derive(Debug, Subcommand)]
enum RulesAction {
    /// Print the rules that most teams begin with, to put them into the folder of `--slo`
    Preset,
    /// The rules of a running server, with their figures
    List {
        #[command(flatten)]
        connection: Connection,
    },
}

#[derive(Debug, Args)]
struct Why {
    /// A file with an export (protobuf or JSON), or the id of a trace that a running server has
    export: String,
    /// What the file holds, if it cannot be told
    #[arg(long, value_enum)]
    holds: Option<Holds>,
    /// Name every rule that did not recognise a record, not only the one that came nearest
    #[arg(long)]
    all: bool,
    /// Configuration file (TOML), for the conventions that it names
    #[arg(long, env = "TOOLGAUGE_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Subcommand)]
enum ConfigAction {
    /// Print the configuration in force, as TOML
    Show(Settings),
    /// Say whether the configuration can be used, and which tools and models have no price
    Check(check::Check),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
    Csv,
}

/// What went wrong, by the exit code it gives.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Demo(#[from] DemoError),
    #[error(transparent)]
    Watch(#[from] WatchError),
    #[error(transparent)]
    Endpoint(#[from] WrongEndpoint),
    #[error("nothing was acknowledged")]
    NothingAcknowledged,
    #[error(transparent)]
    Why(#[from] WhyError),
    #[error(transparent)]
    Backup(#[from] toolgauge_collector::backup::BackupError),
    #[error("start the runtime")]
    Runtime(#[source] std::io::Error),
    #[error("reach the server at {url} (is `toolgauge serve` running there? `--url` names another address)")]
    Unreachable {
        url: String,
        #[source]
        source: Box<ureq::Error>,
    },
    #[error("{title}: {detail}")]
    Refused { title: String, detail: String },
    #[error("read the server's answer")]
    Answer(#[source] Box<dyn std::error::Error>),
    #[error("{errors} errors in {files} files or folders of SLOs")]
    BrokenSlos { errors: usize, files: usize },
    #[error("{0}")]
    WrongUsage(String),
    #[error("{0}")]
    Unfinished(String),
    #[error("--from {from} is after --to {to}")]
    Dates { from: String, to: String },
    #[error("there are no tables in the data folder \"{}\" (name another one with `--data`)", path.display())]
    NoData { path: PathBuf },
    #[error("price the calls anew")]
    Reprice(#[from] CollectorError),
    #[error("interrupted; what was priced anew stays, and the same command goes on from there")]
    Interrupted,
    #[error("write the answer")]
    Output(#[from] std::io::Error),
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_)
            | Self::BrokenSlos { .. }
            | Self::WrongUsage(_)
            | Self::Endpoint(_)
            | Self::Dates { .. }
            | Self::Server(
                ServerError::Conventions(_)
                | ServerError::Origin(_)
                | ServerError::Notify(NotifyError::Address { .. } | NotifyError::Repeated { .. }),
            ) => WRONG_USAGE,
            _ => FAILED,
        }
    }
}

/// Runs the command line of this process.
#[must_use]
pub fn run() -> ExitCode {
    match execute(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads our output has had enough of it.
        Err(Failure::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            let _unwritable = writeln!(std::io::stderr(), "toolgauge: {}", chain(&failure));
            ExitCode::from(failure.exit_code())
        }
    }
}

fn execute(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Serve(serve) => run_server(&load(&serve.settings)?),
        Command::Demo(demo) => run_demo(demo),
        Command::Loadgen(options) => run_load(&options),
        Command::Top(top) => watch_until_ctrl_c(watch::top(&top)),
        Command::Tail(tail) => watch_until_ctrl_c(watch::tail(&tail)),
        Command::Trace(trace) => watch_until_ctrl_c(watch::trace(&trace)),
        Command::Sql(sql) => ask_sql(&sql),
        Command::Report { report: Report::Tools { from, to, service, environment, connection } } => {
            let query = [("from", from), ("to", to), ("service", service), ("environment", environment)];
            report_tools(&connection, query)
        }
        Command::Report { report: Report::Costs(costs) } => costs::report(&costs),
        Command::Reprice(reprice) => reprice::run(&reprice),
        Command::Why(why) => explain(&why),
        Command::Report { report: Report::UnknownTools { connection } } => {
            ask_sql(&Sql { query: UNKNOWN_TOOLS.to_owned(), connection })
        }
        Command::Report { report: Report::Slo { slo: None, connection, .. } } => slo::report(&connection),
        Command::Report { report: Report::Slo { slo: Some(slo), group, connection } } => {
            slo::report_days(&connection, &slo, group.as_deref())
        }
        Command::Backup(options) => backup::run(&options),
        Command::Slo { action } => slo::run(action),
        Command::Rules { action: RulesAction::Preset } => {
            Ok(std::io::stdout().write_all(toolgauge_queries::rules::PRESET.as_bytes())?)
        }
        Command::Rules { action: RulesAction::List { connection } } => rules::list(&connection),
        Command::Config { action: ConfigAction::Show(settings) } => {
            let config = load(&settings)?;
            let text = toml::to_string(&config).map_err(|error| Failure::Answer(error.into()))?;
            Ok(std::io::stdout().write_all(text.as_bytes())?)
        }
        Command::Config { action: ConfigAction::Check(check) } => check::run(&check),
    }
}

fn load(settings: &Settings) -> Result<Config, Failure> {
    let flags = [
        ("data", settings.data.as_ref().map(|path| path.display().to_string())),
        ("otlp_grpc", settings.otlp_grpc.clone()),
        ("otlp_http", settings.otlp_http.clone()),
        ("http", settings.http.clone()),
        ("slo", list(&settings.slo)),
        ("alertmanager", list(&settings.alertmanager)),
        ("prices", list(&settings.prices)),
        ("ownership", settings.ownership.as_ref().map(|path| path.display().to_string())),
    ];
    let flags = flags.into_iter().filter_map(|(name, value)| Some((name, value?)));
    Ok(Config::load(settings.config.as_deref(), std::env::vars(), flags)?)
}

/// A flag that may be repeated, as the setting of that name writes it.
fn list(values: &[String]) -> Option<String> {
    (!values.is_empty()).then(|| values.join(","))
}

/// Logs to stderr, unless the environment says otherwise with this filter.
fn log(filter: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("TOOLGAUGE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(filter));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        // The kernel of the tables waits for its own tasks, so it must never have the only thread.
        .worker_threads(std::thread::available_parallelism().map_or(2, |n| n.get().max(2)))
        .build()
        .map_err(Failure::Runtime)
}

fn run_demo(demo: Demo) -> Result<(), Failure> {
    log("warn");
    let config = load(&demo.settings)?;
    runtime()?.block_on(async {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let stop = async {
            tokio::select! {
                // Cancel-safe: a signal that comes later ends the process, which is wanted.
                _ = tokio::signal::ctrl_c() => {}
                // Cancel-safe: as above.
                _ = terminate.recv() => {}
            }
        };
        match demo::run(&demo.options, config, demo.settings.data, stop).await {
            Err(DemoError::Output(error)) => Err(error.into()),
            other => Ok(other?),
        }
    })
}

fn watch_until_ctrl_c(watching: impl Future<Output = Result<(), WatchError>>) -> Result<(), Failure> {
    runtime()?.block_on(async {
        let watched = tokio::select! {
            // Dropped where it stands: it only looks.
            watched = watching => watched,
            // Cancel-safe: a signal that comes later ends the process, which is wanted.
            _ = tokio::signal::ctrl_c() => Ok(()),
        };
        match watched {
            Err(WatchError::Output(error)) => Err(error.into()),
            other => Ok(other?),
        }
    })
}

fn run_load(options: &loadgen::Options) -> Result<(), Failure> {
    log("warn");
    let report = runtime()?.block_on(loadgen::run(options, &SystemClock))?;
    let mut out = std::io::stdout();
    if options.json {
        let text = serde_json::to_string(&report).map_err(|error| Failure::Answer(error.into()))?;
        writeln!(out, "{text}")?;
    } else {
        report.write(&mut out)?;
    }
    if report.exports == 0 { Err(Failure::NothingAcknowledged) } else { Ok(()) }
}

fn run_server(config: &Config) -> Result<(), Failure> {
    log("warn,toolgauge=info,toolgauge_collector=info,toolgauge_queries=info");
    runtime()?.block_on(async {
        // Before it says that it serves: from then on, a signal must find somebody who stops in order.
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let server = Server::start(config).await?;
        // Nobody need read it: a server whose output is closed serves on.
        let _unread = announce(&server, config);
        let failed = tokio::select! {
            // Cancel-safe: a signal that comes later ends the process, which is wanted.
            _ = tokio::signal::ctrl_c() => None,
            // Cancel-safe: as above.
            _ = terminate.recv() => None,
            // Cancel-safe: it only looks.
            reason = server.failed() => Some(reason),
        };
        server.stop().await?;
        match failed {
            Some(reason) => Err(ServerError::Stopped { reason }.into()),
            None => Ok(()),
        }
    })
}

/// Says where the doors are.
fn announce(server: &Server, config: &Config) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "OTLP/gRPC  {}", server.otlp_grpc)?;
    writeln!(out, "OTLP/HTTP  http://{}", server.otlp_http)?;
    writeln!(out, "HTTP API   http://{}", server.http)?;
    writeln!(out, "data       {}", config.data.display())?;
    out.flush()
}

/// Sends a request and reads the answer, or the problem document.
fn fetch(url: &str, body: Option<&SqlRequest>) -> Result<String, Failure> {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let sent = match body {
        Some(body) => agent.post(url).send_json(body),
        None => agent.get(url).call(),
    };
    let mut response = sent.map_err(|source| Failure::Unreachable { url: url.to_owned(), source: Box::new(source) })?;
    let text = response
        .body_mut()
        .with_config()
        .limit(1 << 30)
        .read_to_string()
        .map_err(|error| Failure::Answer(error.into()))?;
    if response.status().is_success() {
        return Ok(text);
    }
    Err(match serde_json::from_str::<Problem>(&text) {
        Ok(problem) => Failure::Refused { title: problem.title, detail: problem.detail },
        Err(_) => Failure::Refused { title: response.status().to_string(), detail: text },
    })
}

fn ask_sql(sql: &Sql) -> Result<(), Failure> {
    let format = if sql.connection.format == Format::Csv { "?format=csv" } else { "" };
    let url = format!("{}/api/v1/sql{format}", sql.connection.url.trim_end_matches('/'));
    let text = fetch(&url, Some(&SqlRequest { query: sql.query.clone() }))?;
    let mut out = std::io::stdout();
    if sql.connection.format != Format::Table {
        return Ok(writeln!(out, "{}", text.trim_end())?);
    }
    let answer: SqlResponse = serde_json::from_str(&text).map_err(|error| Failure::Answer(error.into()))?;
    let mut table = plain_table();
    table.set_header(answer.columns.iter().map(|column| column.name.as_str()));
    for row in &answer.rows {
        table.add_row(row.iter().map(cell));
    }
    for (i, column) in answer.columns.iter().enumerate() {
        let number = ["Int", "UInt", "Float", "Decimal"].iter().any(|kind| column.data_type.starts_with(kind));
        if let (true, Some(column)) = (number, table.column_mut(i)) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    writeln!(out, "{table}")?;
    if answer.truncated {
        writeln!(std::io::stderr(), "cut after {} rows (add a `limit`, or raise `queries.rows`)", answer.rows.len())?;
    }
    Ok(())
}

/// What became of the records of a file, or of a trace.
fn explain(why: &Why) -> Result<(), Failure> {
    let is_trace = why.export.len() == 32 && why.export.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_trace && !std::path::Path::new(&why.export).exists() {
        return explain_trace(why);
    }
    let missed = if why.all { Missed::All } else { Missed::Nearest };
    let config = Config::load(why.config.as_deref(), std::env::vars(), [])?;
    let own = crate::conventions::read(&config)?;
    let records = why::explain(std::path::Path::new(&why.export), why.holds, own, missed)?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    match why.connection.format {
        Format::Json => {
            let text = serde_json::to_string(&records).map_err(|error| Failure::Answer(error.into()))?;
            writeln!(out, "{text}")?;
        }
        Format::Table | Format::Csv => why::write_text(&mut out, &records)?,
    }
    Ok(out.flush()?)
}

/// What a server says of a trace, by its own conventions.
fn explain_trace(why: &Why) -> Result<(), Failure> {
    let missed = if why.all { "all" } else { "nearest" };
    let url = why.connection.url.trim_end_matches('/');
    let text = fetch(&format!("{url}/api/v1/why/{}?missed={missed}", why.export.to_lowercase()), None)?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    match why.connection.format {
        Format::Json => writeln!(out, "{}", text.trim_end())?,
        Format::Table | Format::Csv => {
            let report: WhyReport = serde_json::from_str(&text).map_err(|error| Failure::Answer(error.into()))?;
            why::write_trace(&mut out, &report)?;
        }
    }
    Ok(out.flush()?)
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table
}

/// A column's heading, and its value for what a row is of.
type Column<T> = (&'static str, fn(&T) -> String);

/// Writes rows as CSV.
fn write_csv<T>(out: &mut impl std::io::Write, columns: &[Column<T>], rows: &[T]) -> std::io::Result<()> {
    writeln!(out, "{}", columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(","))?;
    for row in rows {
        let fields: Vec<String> = columns.iter().map(|(_, value)| csv(&value(row))).collect();
        writeln!(out, "{}", fields.join(","))?;
    }
    Ok(())
}

/// Writes rows as a table, of which these columns are numbers.
fn write_table<T>(
    out: &mut impl std::io::Write,
    columns: &[Column<T>],
    numbers: Range<usize>,
    rows: &[T],
) -> std::io::Result<()> {
    let mut table = plain_table();
    table.set_header(columns.iter().map(|(name, _)| *name));
    for row in rows {
        table.add_row(columns.iter().map(|(_, value)| value(row)));
    }
    for column in numbers {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    writeln!(out, "{table}")
}

/// Columns of the tools report; one list for the table and for CSV.
const TOOL_COLUMNS: &[Column<ToolReport>] = &[
    ("server", |tool| tool.tool_server.clone().unwrap_or_default()),
    ("tool", |tool| tool.tool_name.clone().unwrap_or_default()),
    ("attempts", |tool| tool.attempts.to_string()),
    ("calls", |tool| tool.calls.to_string()),
    ("success/attempt", |tool| percent(tool.success_ratio_attempt)),
    ("success/call", |tool| percent(tool.success_ratio_logical)),
    ("retries", |tool| {
        let storm = tool.retries.storm.as_ref().is_some_and(|storm| storm.now);
        format!("{}{}", percent(tool.retry_ratio), if storm { " storm" } else { "" })
    }),
    ("recovered", |tool| percent(tool.retries.recovery_ratio)),
    ("lost s", |tool| format!("{:.1}", tool.retries.lost_ms / 1e3)),
    ("stand for", |tool| tool.weighted.as_ref().map(|weighted| weighted.calls.clone()).unwrap_or_default()),
    ("of which ok", |tool| tool.weighted.as_ref().map(weighted_success).unwrap_or_default()),
    ("sample", |tool| match (tool.sampled, &tool.suspected_tail_sampling) {
        (_, Some(_)) => "tail?".to_owned(),
        (true, None) => "sampled".to_owned(),
        (false, None) => String::new(),
    }),
    ("p50 ms", |tool| format!("{:.1}", tool.latency.p50_ms)),
    ("p95 ms", |tool| format!("{:.1}", tool.latency.p95_ms)),
    ("p99 ms", |tool| format!("{:.1}{}", tool.latency.p99_ms, if tool.latency.p99_low_evidence { "?" } else { "" })),
    ("cost USD", |tool| tool.cost_usd.clone().unwrap_or_default()),
    ("cost/call", |tool| tool.cost_per_call_usd.clone().unwrap_or_default()),
    ("cost/success", |tool| tool.cost_per_success_usd.clone().unwrap_or_default()),
    ("owner", |tool| {
        let owner = |owner: &ToolOwner| match &owner.criticality {
            Some(criticality) => format!("{} ({criticality})", owner.team),
            None => owner.team.clone(),
        };
        let mut owners: Vec<String> = tool.owners.iter().map(owner).collect();
        owners.dedup();
        owners.join(", ")
    }),
    ("errors", |tool| {
        tool.errors.iter().map(|(class, count)| format!("{class} {count}")).collect::<Vec<_>>().join(", ")
    }),
];

/// The share of logical calls that succeeded, by weights, and between what it lies.
fn weighted_success(weighted: &Weighted) -> String {
    match weighted.success_interval_logical {
        Some([low, high]) => {
            format!("{} ({} to {})", percent(weighted.success_ratio_logical), percent(Some(low)), percent(Some(high)))
        }
        None => percent(weighted.success_ratio_logical),
    }
}

/// What a reader should know of tools that are marked; nothing if none is.
fn sample_notes(tools: &[ToolReport]) -> String {
    let mut notes = String::new();
    if tools.iter().any(|tool| tool.sampled) {
        notes.push_str("sampled: some calls stand for several; all counts but \"stand for\" and \"of which ok\" (95 %) are of calls that are known\n");
    }
    if let Some(tail) = tools.iter().find_map(|tool| tool.suspected_tail_sampling.as_ref()) {
        notes.push_str(&format!(
            "tail?: telemetry of {} seems to come from a sampler that keeps errors, without weights: the server of {} tells of {} failed \
             calls, of which callers tell of {}, and of {} others, of which they tell of {}. Success is better than it looks.\n",
            tail.services.join(", "),
            tail.shown_by.as_deref().unwrap_or("a tool"),
            tail.failed,
            tail.failed_with_caller,
            tail.succeeded,
            tail.succeeded_with_caller
        ));
    }
    notes
}

fn report_tools(connection: &Connection, query: [(&str, Option<String>); 4]) -> Result<(), Failure> {
    let mut url = format!("{}/api/v1/tools", connection.url.trim_end_matches('/'));
    let mut separator = '?';
    for (name, value) in query {
        if let Some(value) = value {
            url.push(separator);
            url.push_str(name);
            url.push('=');
            url.push_str(&encode(&value));
            separator = '&';
        }
    }
    let text = fetch(&url, None)?;
    let mut out = std::io::stdout();
    if connection.format == Format::Json {
        return Ok(writeln!(out, "{}", text.trim_end())?);
    }
    let report: ToolsReport = serde_json::from_str(&text).map_err(|error| Failure::Answer(error.into()))?;
    if connection.format == Format::Csv {
        return Ok(write_csv(&mut out, TOOL_COLUMNS, &report.tools)?);
    }
    write_table(&mut out, TOOL_COLUMNS, 2..TOOL_COLUMNS.len() - 1, &report.tools)?;
    write!(out, "{}", sample_notes(&report.tools))?;
    let scope = &report.scope;
    writeln!(
        out,
        "\n{} to {}, coverage {}, {} rows provisional, watermark {}",
        scope.from,
        scope.to,
        percent(Some(scope.coverage)),
        scope.provisional,
        scope.watermark
    )?;
    Ok(())
}

/// A CSV field (RFC 4180).
fn csv(value: &str) -> String {
    if value.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", value.replace('"', "\"\""))
    } else {
        value.to_owned()
    }
}

/// Percent-encodes a query value (RFC 3986, unreserved characters stay).
fn encode(value: &str) -> String {
    let mut out = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn csv_fields_and_query_values_are_quoted_where_needed() {
        assert_eq!(csv("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(csv("plain"), "plain");
        assert_eq!(encode("2026-01-01T00:00:00+01:00"), "2026-01-01T00%3A00%3A00%2B01%3A00");
    }
}
