//! `toolgauge demo`: the main job seen working, on a fresh folder, with nothing set up before.
//!
//! It starts the server as `serve` does, sends the history of a small fleet through the front door, compares what the server says
//! with the ledger of what was sent, and goes on with live traffic, in which one tool breaks and heals. It asks the server
//! through its HTTP API only: what is shown is what everybody gets.

mod check;
mod history;
mod live;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, MissedTickBehavior};
use toolgauge_proto::time::SystemClock;

pub use check::CheckError;

use crate::client::{Api, ApiError};
use crate::config::Config;
use crate::loadgen::fleet::{FRAGILE, TOOLS};
use crate::loadgen::ledger::Ledger;
use crate::loadgen::send::{Compression, Protocol, Refused, Sender, WrongEndpoint};
use crate::loadgen::{dollars, now_ns};
use crate::screen::{self, Screen};
use crate::server::{Server, ServerError};
use history::Plan;
use live::Live;

/// Live traffic that went well before a tool breaks.
const BREAKS_AFTER: Duration = Duration::from_secs(30);
/// How long it stays broken.
const BROKEN_FOR: Duration = Duration::from_secs(60);
/// How long the demo goes on after it healed, with `--exit`.
const EXITS_AFTER: Duration = Duration::from_secs(30);
/// How often live traffic goes on.
const TICK: Duration = Duration::from_millis(200);
/// How often the figures are asked for anew.
const REFRESH: Duration = Duration::from_secs(1);
/// The time that the table of live figures covers.
const SHOWN: &str = "-15m";

/// What to show.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// What is made up follows from it
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Days of history
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=365))]
    pub days: u64,
    /// Calls of tools, models and agents in the history, about
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub calls: u64,
    /// Stop after the history
    #[arg(long)]
    pub no_live: bool,
    /// Stop when the tool that broke has healed
    #[arg(long, conflicts_with = "no_live")]
    pub exit: bool,
}

/// Why the demo ended.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The folder is used already.
    #[error("\"{}\" is not empty: the demo needs a fresh folder (remove it, or name another with `--data`)", path.display())]
    Used {
        /// Which folder.
        path: PathBuf,
    },
    /// No folder can be made.
    #[error("make a folder for the demo")]
    Folder(#[source] std::io::Error),
    /// The server.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The server's own address.
    #[error(transparent)]
    Endpoint(#[from] WrongEndpoint),
    /// An export was refused for good.
    #[error("an export was refused with {code}: {message}")]
    Refused {
        /// The code of gRPC.
        code: String,
        /// What the server said.
        message: String,
    },
    /// A question was not answered.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// What the server says is not what was sent.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// A task panicked.
    #[error("a task ended by a fault of the program")]
    Task(#[from] tokio::task::JoinError),
    /// The terminal.
    #[error("write to the terminal")]
    Output(#[from] std::io::Error),
}

impl From<Refused> for DemoError {
    fn from(refused: Refused) -> Self {
        Self::Refused { code: refused.code, message: refused.message }
    }
}

/// The folder of the demo.
enum Folder {
    /// Goes when the demo ends.
    Temporary(TempDir),
    Named(PathBuf),
}

impl Folder {
    fn new(named: Option<PathBuf>) -> Result<Self, DemoError> {
        let Some(path) = named else {
            return tempfile::Builder::new()
                .prefix("toolgauge-demo-")
                .tempdir()
                .map(Self::Temporary)
                .map_err(DemoError::Folder);
        };
        let used = std::fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_some());
        if used { Err(DemoError::Used { path }) } else { Ok(Self::Named(path)) }
    }

    fn path(&self) -> PathBuf {
        match self {
            Self::Temporary(folder) => folder.path().to_owned(),
            Self::Named(path) => path.clone(),
        }
    }
}

/// Runs the demo on this folder, or on one of its own, until it is over or `stop` resolves.
///
/// # Errors
/// See [`DemoError`].
pub async fn run(
    options: &Options,
    mut config: Config,
    data: Option<PathBuf>,
    stop: impl Future<Output = ()>,
) -> Result<(), DemoError> {
    let folder = Folder::new(data)?;
    config.data = folder.path();
    let server = Server::start(&config).await?;
    let demo = Demo {
        options,
        api: Api::new(&format!("http://{}", server.http)),
        sender: Sender::new(&format!("http://{}", server.otlp_grpc), Protocol::Grpc, Compression::None)?,
        screen: Screen::new(),
        clock: &SystemClock,
    };
    let shown = tokio::select! {
        // Dropped where it stands: what it sent is answered or not, as with any client that ends.
        shown = demo.show(&server, &config) => shown,
        // Cancel-safe: it is the caller's, and not polled again.
        () = stop => Ok(()),
    };
    server.stop().await?;
    shown
}

struct Demo<'a> {
    options: &'a Options,
    api: Api,
    sender: Sender,
    screen: Screen,
    clock: &'static SystemClock,
}

impl Demo<'_> {
    async fn show(self, server: &Server, config: &Config) -> Result<(), DemoError> {
        let began = Instant::now();
        let Options { seed, days, calls, .. } = *self.options;
        self.screen.say(&format!(
            "OTLP/gRPC  {}\nOTLP/HTTP  http://{}\nHTTP API   http://{}\ndata       {}\n",
            server.otlp_grpc,
            server.otlp_http,
            server.http,
            config.data.display()
        ))?;
        let about = screen::grouped(calls);
        self.screen
            .say(&format!("Sending {days} days of history, about {about} calls, over OTLP/gRPC (seed {seed})."))?;
        let bar = Arc::new(self.screen.bar(calls));
        let plan = Plan { seed, end_ns: now_ns(self.clock), days, calls };
        let (traffic, ledger) = history::send(&plan, &self.sender, Arc::clone(&bar)).await?;
        bar.finish();
        self.api.until_visible().await?;
        let seconds = began.elapsed().as_secs_f64();
        let counted = screen::grouped(ledger.counted());
        self.screen.say(&format!("{counted} calls are durable and counted after {seconds:.1} s."))?;
        self.check(&ledger).await?;
        self.screen.say(&queries(&self.api.url))?;
        if self.options.no_live {
            let all = self.api.tools(&format!("-{}d", days + 1)).await?;
            return Ok(self.screen.say(&screen::tools(&all))?);
        }
        let live = Live::new(traffic, ledger, self.sender.clone(), now_ns(self.clock));
        self.live(live).await
    }

    async fn check(&self, ledger: &Ledger) -> Result<(), DemoError> {
        let checked = check::check(&self.api, ledger).await?;
        self.screen.say(&format!(
            "Checked by SQL: {} calls and {} rows, {} USD; all {} figures are those of the generator's ledger.",
            screen::grouped(checked.calls),
            screen::grouped(checked.rows),
            dollars(checked.cost_nano_usd),
            checked.figures
        ))?;
        Ok(())
    }

    async fn live(mut self, mut live: Live) -> Result<(), DemoError> {
        let tool = TOOLS[FRAGILE].name;
        let (began, mut breaks_at, mut heals_at) = (Instant::now(), None, None);
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut refreshed: Option<Instant> = None;
        self.screen.say(&format!("Live traffic begins; {tool} breaks in {} s.", BREAKS_AFTER.as_secs()))?;
        loop {
            ticks.tick().await;
            let now = now_ns(self.clock);
            live.go_on(now).await?;
            if breaks_at.is_none() && began.elapsed() >= BREAKS_AFTER {
                breaks_at = Some(Instant::now());
                live.break_tool(now);
                self.screen.say(&format!("{tool} breaks: every call of it times out."))?;
            }
            if heals_at.is_none() && breaks_at.is_some_and(|at| at.elapsed() >= BROKEN_FOR) {
                heals_at = Some(Instant::now());
                live.heal_tool(now);
                self.screen.say(&format!("{tool} has healed."))?;
            }
            if refreshed.is_none_or(|at| at.elapsed() >= REFRESH) {
                refreshed = Some(Instant::now());
                let tools = self.api.tools(SHOWN).await?;
                self.screen.show(&screen::tools(&tools), &screen::summary(&tools))?;
            }
            if self.options.exit && heals_at.is_some_and(|at| at.elapsed() >= EXITS_AFTER) {
                break;
            }
        }
        self.screen.finish();
        self.api.until_visible().await?;
        self.check(live.ledger()).await
    }
}

/// Three questions to paste.
fn queries(url: &str) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "toolgauge".to_owned());
    let tool = TOOLS[FRAGILE].name;
    let ask = |query: &str| format!("  {program} sql --url {url} \"{query}\"\n");
    [
        "\nAsk it from another terminal:\n\n".to_owned(),
        format!("  {program} report tools --url {url} --from -7d\n"),
        // The worst hours of the tool that broke.
        ask(&format!(
            "SELECT date_trunc('hour', end_time) AS hour, count(*) AS attempts, \
             count(*) FILTER (WHERE outcome = 'error') AS failed FROM tool_calls WHERE tool_name = '{tool}' \
             GROUP BY 1 ORDER BY failed DESC LIMIT 5"
        )),
        // What retries cost.
        ask(
            "SELECT tool_name, count(*) FILTER (WHERE attempt > 1) AS retries, \
             sum(cost_usd) FILTER (WHERE outcome = 'error') AS wasted_usd FROM tool_calls GROUP BY 1 ORDER BY 3 DESC NULLS LAST",
        ),
    ]
    .concat()
}
