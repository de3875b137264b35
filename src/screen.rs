//! What is shown while it changes: a bar and a table that are refreshed in place on a terminal, plain lines elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use comfy_table::{CellAlignment, Table, presets};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use toolgauge_proto::api::ToolReport;

/// Where nothing can be refreshed in place, what changes is told this often.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// Steps of the progress that are told there, in percent.
const STEP_PERCENT: u64 = 10;

/// See the module.
pub(crate) struct Screen {
    bars: Option<MultiProgress>,
    lines: Vec<ProgressBar>,
    told: Option<Instant>,
}

impl Screen {
    pub(crate) fn new() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let bars = terminal.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stdout()));
        Self { bars, lines: Vec::new(), told: None }
    }

    /// Says something that stays.
    pub(crate) fn say(&self, text: &str) -> std::io::Result<()> {
        match &self.bars {
            Some(bars) => text.split('\n').try_for_each(|line| bars.println(line)),
            None => {
                let mut out = std::io::stdout();
                writeln!(out, "{text}")?;
                out.flush()
            }
        }
    }

    /// A bar that goes on to `total` calls.
    pub(crate) fn bar(&self, total: u64) -> Bar {
        let Some(bars) = &self.bars else { return Bar::Lines(Mutex::new(Steps { total, done: 0, told: 0 })) };
        let bar = bars.add(ProgressBar::new(total));
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {percent}% {human_pos} calls, {eta} left") {
            bar.set_style(style);
        }
        Bar::Drawn(bar)
    }

    /// Shows the figures in place of those shown before; `summary` says the most important where that cannot be.
    pub(crate) fn show(&mut self, figures: &str, summary: &str) -> std::io::Result<()> {
        let Some(bars) = &self.bars else {
            if self.told.is_some_and(|told| told.elapsed() < LINE_INTERVAL) {
                return Ok(());
            }
            self.told = Some(Instant::now());
            return self.say(summary);
        };
        let figures: Vec<&str> = figures.lines().collect();
        while self.lines.len() < figures.len() {
            let line = bars.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("{msg}") {
                line.set_style(style);
            }
            self.lines.push(line);
        }
        for (at, line) in self.lines.iter().enumerate() {
            line.set_message(figures.get(at).copied().unwrap_or_default().to_owned());
        }
        Ok(())
    }

    /// Leaves the last figures standing.
    pub(crate) fn finish(&mut self) {
        for line in self.lines.drain(..) {
            line.abandon();
        }
    }
}

/// How far something is that takes a while.
pub(crate) enum Bar {
    Drawn(ProgressBar),
    Lines(Mutex<Steps>),
}

pub(crate) struct Steps {
    total: u64,
    done: u64,
    told: u64,
}

impl Bar {
    pub(crate) fn finish(&self) {
        if let Self::Drawn(bar) = self {
            bar.finish_and_clear();
        }
    }

    /// So many calls more.
    pub(crate) fn advance(&self, calls: u64) {
        match self {
            Self::Drawn(bar) => bar.inc(calls),
            Self::Lines(steps) => {
                let mut steps = steps.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                steps.done += calls;
                let percent = steps.done * 100 / steps.total.max(1) / STEP_PERCENT * STEP_PERCENT;
                if percent > steps.told && percent <= 100 {
                    steps.told = percent;
                    let _nobody_reads = writeln!(std::io::stdout(), "  {percent} %: {} calls", steps.done);
                }
            }
        }
    }
}

pub(crate) fn percent(ratio: Option<f64>) -> String {
    // A ratio just below one must not be shown as 100 %.
    ratio.map_or(String::new(), |ratio| format!("{:.2} %", (ratio * 10_000.0).floor() / 100.0))
}

/// The table of tools.
pub(crate) fn tools(tools: &[ToolReport]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["server", "tool", "calls", "success", "p95 ms", "cost USD", "errors"]);
    for tool in tools {
        let errors: Vec<String> = tool.errors.iter().map(|(class, count)| format!("{class} {count}")).collect();
        table.add_row([
            tool.tool_server.clone().unwrap_or_default(),
            tool.tool_name.clone().unwrap_or_default(),
            tool.calls.to_string(),
            percent(tool.success_ratio_logical),
            format!("{:.0}", tool.latency.p95_ms),
            tool.cost_usd.clone().unwrap_or_default(),
            errors.join(", "),
        ]);
    }
    for column in 2..=5 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

/// A number with its digits in groups of three.
pub(crate) fn grouped(number: u64) -> String {
    indicatif::HumanCount(number).to_string()
}

/// Calls, and the tool that does worst.
pub(crate) fn summary(tools: &[ToolReport]) -> String {
    let calls: u64 = tools.iter().map(|tool| tool.calls).sum();
    let ratio = |tool: &&ToolReport| tool.success_ratio_logical.unwrap_or(1.0);
    match tools.iter().min_by(|a, b| ratio(a).total_cmp(&ratio(b))) {
        Some(worst) => {
            let name = worst.tool_name.as_deref().unwrap_or_default();
            format!("{calls} calls; worst: {name}, {}", percent(worst.success_ratio_logical))
        }
        None => "no calls yet".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_below_one_are_never_shown_as_a_hundred_percent() {
        assert_eq!(percent(Some(0.999_99)), "99.99 %");
        assert_eq!(percent(Some(1.0)), "100.00 %");
        assert_eq!(percent(None), "");
    }
}
