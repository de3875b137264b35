//! `toolgauge demo`: the main job seen working, on a fresh folder, with nothing set up before.
//!
//! It starts the server as `serve` does, sends the history of a small fleet through the front door, compares what the server says
//! with the ledger of what was sent, and goes on with live traffic, in which one tool breaks and heals. It asks the server
//! through its HTTP API only: what is shown is what everybody gets.

mod books;
mod check;
mod history;
mod live;
mod slo;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, MissedTickBehavior};
use toolgauge_proto::api::ToolReport;
use toolgauge_proto::time::SystemClock;

pub use books::{History, price_book};
pub use check::{Answers, CheckError, Checked};

use crate::client::{Api, ApiError};
use crate::config::Config;
use crate::loadgen::fleet::{FRAGILE, TOOLS};
use crate::loadgen::ledger::Ledger;
use crate::loadgen::send::{Compression, Protocol, Refused, Sender, WrongEndpoint};
use crate::loadgen::tariff;
use crate::loadgen::traffic::Manner;
use crate::loadgen::{dollars, now_ns};
use crate::screen::{self, Screen};
use crate::server::{Server, ServerError};
use history::Plan;
use live::Live;
use slo::Objective;

/// Live traffic that went well before a tool breaks.
const BREAKS_AFTER: Duration = Duration::from_secs(30);
/// How long the alert may take.
const FIRES_WITHIN: Duration = Duration::from_secs(90);
/// How long it stays broken after that.
const HEALS_AFTER: Duration = Duration::from_secs(20);
/// How long the alert may go on after that: its short window, and some slack.
const RESOLVES_WITHIN: Duration = Duration::from_secs(480);
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
    /// Stop when the alert of the tool that broke has resolved
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
    /// The alert did not fire in time.
    #[error("no alert fired within {FIRES_WITHIN:?} of the break")]
    Silent,
    /// It did not resolve in time.
    #[error("the alert did not resolve within {RESOLVES_WITHIN:?} of the end of the break")]
    Stuck,
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
    let began = Instant::now();
    let folder = Folder::new(data)?;
    config.data = folder.path();
    let objective = slo::write(&config.data).map_err(DemoError::Folder)?;
    config.slo.0.push(objective.display().to_string());
    config.prices.0.push(write_prices(&config.data).map_err(DemoError::Folder)?);
    let server = Server::start(&config).await?;
    let demo = Demo {
        options,
        api: Api::new(&format!("http://{}", server.http)),
        sender: Sender::new(&format!("http://{}", server.otlp_grpc), Protocol::Grpc, Compression::None, &[])?,
        screen: Screen::new(),
        clock: &SystemClock,
        began,
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

/// Writes the price book of the fleet into the demo's folder; its path.
fn write_prices(data: &Path) -> std::io::Result<String> {
    let path = data.join("prices.toml");
    std::fs::write(&path, tariff::BOOK)?;
    Ok(path.display().to_string())
}

struct Demo<'a> {
    options: &'a Options,
    api: Api,
    sender: Sender,
    screen: Screen,
    clock: &'static SystemClock,
    began: Instant,
}

impl Demo<'_> {
    async fn show(self, server: &Server, config: &Config) -> Result<(), DemoError> {
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
        // Some costs are left to the book; every trace is sent.
        let manner = Manner { by_book: true, sampled: false };
        let plan = Plan { seed, end_ns: now_ns(self.clock), days, calls, manner };
        let (traffic, ledger) = history::send(&plan, &self.sender, Arc::clone(&bar)).await?;
        bar.finish();
        self.api.until_visible().await?;
        let seconds = self.began.elapsed().as_secs_f64();
        let counted = screen::grouped(ledger.counted());
        self.screen.say(&format!("{counted} calls are durable and counted after {seconds:.1} s."))?;
        self.check(&ledger).await?;
        self.screen.say(&queries(&self.api.url))?;
        if self.options.no_live {
            let all = self.api.tools(&format!("-{}d", days + 1)).await?;
            self.screen.say(&screen::tools(&all))?;
            return self.first_screen();
        }
        let live = Live::new(traffic, ledger, self.sender.clone(), now_ns(self.clock));
        self.live(live).await
    }

    /// Says how long it took until there was something to see.
    fn first_screen(&self) -> Result<(), DemoError> {
        Ok(self.screen.say(&format!("First screen after {:.1} s.", self.began.elapsed().as_secs_f64()))?)
    }

    async fn check(&self, ledger: &Ledger) -> Result<(), DemoError> {
        let checked = check::ask(&self.api).await?.check(ledger)?;
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
        let mut act = Act::Calm { since: Instant::now() };
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut refreshed: Option<Instant> = None;
        let seconds = BREAKS_AFTER.as_secs();
        self.screen.say(&format!("Live traffic begins; {tool}, whose objective is 99.9 %, breaks in {seconds} s."))?;
        loop {
            ticks.tick().await;
            let now = now_ns(self.clock);
            live.go_on(now).await?;
            if let Act::Calm { since } = act
                && since.elapsed() >= BREAKS_AFTER
            {
                live.break_tool(now);
                act = Act::Broken { since: Instant::now() };
                self.screen.say(&format!("{tool} breaks: every call of it times out."))?;
            }
            if let Act::Fired { since } = act
                && since.elapsed() >= HEALS_AFTER
            {
                live.heal_tool(now);
                act = Act::Healed { since: Instant::now() };
                self.screen
                    .say(&format!("{tool} has healed; the alert goes on until its short window has forgotten."))?;
            }
            if refreshed.is_none_or(|at| at.elapsed() >= REFRESH) {
                let (tools, objective) = (self.api.tools(SHOWN).await?, Objective::ask(&self.api).await?);
                if let Some(objective) = &objective {
                    act = self.follow(act, objective)?;
                }
                let is_first = refreshed.is_none();
                refreshed = Some(Instant::now());
                self.draw(&tools, objective.as_ref(), act)?;
                if is_first {
                    self.first_screen()?;
                }
            }
            if self.options.exit && matches!(act, Act::Resolved) {
                break;
            }
        }
        self.screen.finish();
        live.finish().await?;
        self.api.until_visible().await?;
        self.check(live.ledger()).await
    }

    /// Looks whether the alert has changed.
    fn follow(&self, act: Act, objective: &Objective) -> Result<Act, DemoError> {
        let seconds = |since: Instant| since.elapsed().as_secs();
        match act {
            Act::Broken { since } if objective.firing() => {
                let (after, burning) = (seconds(since), objective.burning());
                self.screen.say(&format!("PAGE after {after} s: ErrorBudgetBurn is firing ({burning})."))?;
                Ok(Act::Fired { since: Instant::now() })
            }
            Act::Broken { since } if since.elapsed() >= FIRES_WITHIN && self.options.exit => Err(DemoError::Silent),
            Act::Healed { since } if !objective.firing() => {
                self.screen.say(&format!("The alert has resolved, {} s after the tool healed.", seconds(since)))?;
                Ok(Act::Resolved)
            }
            Act::Healed { since } if since.elapsed() >= RESOLVES_WITHIN && self.options.exit => Err(DemoError::Stuck),
            other => Ok(other),
        }
    }

    fn draw(&mut self, tools: &[ToolReport], objective: Option<&Objective>, act: Act) -> Result<(), DemoError> {
        let (mut figures, mut summary) = (screen::tools(tools), screen::summary(tools));
        if let Some(objective) = objective {
            figures.push_str(&objective.lines());
            summary = format!("{summary}; {}", objective.summary());
            if let (Act::Healed { since }, Some(most)) = (act, objective.drained_after()) {
                let left = most.saturating_sub(since.elapsed()).as_secs();
                let draining = format!("the short window drains: resolves within {}:{:02}", left / 60, left % 60);
                figures.push_str(&format!("\n{draining}"));
                summary = format!("{summary}; {draining}");
            }
        }
        Ok(self.screen.show(&figures, &summary)?)
    }
}

/// What happens to the fragile tool.
#[derive(Debug, Clone, Copy)]
enum Act {
    Calm {
        since: Instant,
    },
    Broken {
        since: Instant,
    },
    /// Its alert fires.
    Fired {
        since: Instant,
    },
    Healed {
        since: Instant,
    },
    Resolved,
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
