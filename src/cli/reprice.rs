//! `toolgauge reprice`.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use toolgauge_collector::fs::real::RealFs;
use toolgauge_collector::lake::Repriced;
use toolgauge_collector::pipeline;
use toolgauge_collector::prices::Prices;
use toolgauge_proto::time::{Clock as _, SystemClock};

use super::{Failure, list, runtime};
use crate::config::Config;
use crate::prices::{PriceFiles, read_at_start};
use crate::screen::grouped;

/// Progress is told in such steps, in percent.
const STEP_PERCENT: u64 = 10;

#[derive(Debug, Args)]
pub(super) struct Reprice {
    /// First date (UTC) whose calls are priced anew, like 2026-01-31
    #[arg(long, value_parser = date)]
    from: String,
    /// Last date, included
    #[arg(long, value_parser = date)]
    to: String,
    /// Price book (TOML) instead of those of the configuration; may be repeated
    #[arg(long, value_name = "FILE")]
    prices: Vec<String>,
    /// Data folder of a server that is stopped [default: toolgauge-data]
    #[arg(long)]
    data: Option<PathBuf>,
    /// Configuration file (TOML)
    #[arg(long, env = "TOOLGAUGE_CONFIG")]
    config: Option<PathBuf>,
}

/// A date as partitions write it.
fn date(text: &str) -> Result<String, String> {
    let wrong = || format!("\"{text}\" is no date (write like 2026-01-31)");
    let date: toml::value::Datetime = text.parse().map_err(|_| wrong())?;
    match (date.date, date.time) {
        (Some(date), None) => Ok(date.to_string()),
        _ => Err(wrong()),
    }
}

pub(super) fn run(reprice: &Reprice) -> Result<(), Failure> {
    super::log("warn");
    let flags =
        [("data", reprice.data.as_ref().map(|path| path.display().to_string())), ("prices", list(&reprice.prices))];
    let flags = flags.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let config = Config::load(reprice.config.as_deref(), std::env::vars(), flags)?;
    if reprice.from > reprice.to {
        return Err(Failure::Dates { from: reprice.from.clone(), to: reprice.to.clone() });
    }
    let set = read_at_start(&mut PriceFiles::new(&config)?)?;
    let mut out = std::io::stdout();
    for fault in &set.faults {
        writeln!(out, "{fault}")?;
    }
    // A slip of the pen must not make a data folder.
    if !config.data.join("lake/calls").is_dir() {
        return Err(Failure::NoData { path: config.data });
    }
    let mut settings = config.collector();
    settings.prices = Prices::new(set.book);
    let runtime = runtime()?;
    let interrupted = Arc::new(AtomicBool::new(false));
    let noted = Arc::clone(&interrupted);
    runtime.spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            noted.store(true, Ordering::Release);
        }
    });
    let mut told = 0;
    let mut progress = |done: &Repriced| {
        let percent = done.files * 100 / done.files_total.max(1) / STEP_PERCENT * STEP_PERCENT;
        if percent > told {
            told = percent;
            let (rows, changed) = (grouped(done.rows), grouped(done.changed));
            let _nobody_reads = writeln!(std::io::stdout(), "  {percent} %: {rows} rows, {changed} with another cost");
        }
        !interrupted.load(Ordering::Acquire)
    };
    let dates = reprice.from.clone()..=reprice.to.clone();
    let fs = Arc::new(RealFs::private());
    let done = pipeline::reprice(&settings, fs, SystemClock.now(), &dates, runtime.handle(), &mut progress)?;
    writeln!(
        out,
        "{} to {}: {} of {} rows have another cost; known costs were {} USD and are {} USD",
        reprice.from,
        reprice.to,
        grouped(done.changed),
        grouped(done.rows),
        dollars(done.before),
        dollars(done.after)
    )?;
    if done.changed > 0 {
        writeln!(out, "SLOs are counted anew at the next start.")?;
    }
    if done.files < done.files_total { Err(Failure::Interrupted) } else { Ok(()) }
}

/// An amount in units of 10^-9 dollars.
fn dollars(nanos: i128) -> String {
    let unit = 1_000_000_000;
    let sign = if nanos < 0 { "-" } else { "" };
    let (whole, rest) = (nanos.unsigned_abs() / unit, nanos.unsigned_abs() % unit);
    format!("{sign}{whole}.{rest:09}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_and_others_refused() {
        assert_eq!(date("2026-01-31").as_deref(), Ok("2026-01-31"));
        for wrong in ["2026-1-31", "2026-13-01", "yesterday", "2026-01-31T00:00:00Z", ""] {
            assert!(date(wrong).unwrap_err().ends_with("is no date (write like 2026-01-31)"), "{wrong}");
        }
    }

    #[test]
    fn amounts_keep_every_digit() {
        assert_eq!([0, 1, -1_500_000_000].map(dollars), ["0.000000000", "0.000000001", "-1.500000000"]);
    }
}
