//! Prometheus, with the rules and without, over the same samples.

use std::fs::File;
use std::io::{BufWriter, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::load::client::{json, text};
use super::load::{Process, until};
use super::traffic::{self, STEPS, Traffic, now_s};
use super::{Fallible, PATIENCE, Side, metric, rules};

/// Between two samples of the target.
const SCRAPE_S: u64 = 15;
/// Between two rounds of the rules.
const INTERVAL_S: u64 = 15;
/// Samples of a rate before those of the history fill its window are left out.
const RATE_STEPS: u64 = 2;

/// `None` if it is not installed.
pub(crate) fn version() -> Option<String> {
    Command::new("promtool").arg("--version").output().ok()?;
    let output = Command::new("prometheus").arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let version = text.split("version ").nth(1)?.split([' ', ',']).next()?;
    Some(format!("Prometheus {version}"))
}

/// Answers every request with the counters, until the process ends.
fn target(traffic: &Arc<Traffic>) -> Fallible<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (address, traffic) = (listener.local_addr()?, Arc::clone(traffic));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut request = [0; 8192];
            let Ok(1..) = stream.read(&mut request) else { continue };
            let at_s = now_s();
            let mut body = Vec::new();
            for (name, of_failures) in [("tool_calls_total", false), ("tool_failures_total", true)] {
                let _infallible = writeln!(body, "# TYPE {name} counter");
                for tool in 0..traffic.tools() {
                    let (calls, failures) = traffic.counted(tool, at_s);
                    let value = if of_failures { failures } else { calls };
                    let _infallible = writeln!(body, "{name}{{tool=\"{}\"}} {value}", traffic::tool(tool));
                }
            }
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            let _scrape_fails = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    });
    Ok(address)
}

/// The history, as OpenMetrics.
fn write_history(path: &Path, traffic: &Traffic) -> Fallible<()> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    // The format takes no space between labels.
    let scraped = "instance=\"target\",job=\"tools\"";
    for (name, of_failures) in [("tool_calls", false), ("tool_failures", true)] {
        writeln!(out, "# TYPE {name} counter")?;
        for tool in 0..traffic.tools() {
            let mut failures = 0;
            for step in 0..STEPS {
                failures += u64::from(Traffic::fails(tool, step));
                let value = if of_failures { failures } else { step + 1 };
                writeln!(
                    out,
                    "{name}_total{{{scraped},tool=\"{}\"}} {value} {}",
                    traffic::tool(tool),
                    traffic.sampled_s(step)
                )?;
            }
        }
    }
    writeln!(out, "# TYPE slo:sli_error:ratio_rate5m gauge")?;
    for tool in 0..traffic.tools() {
        let labels = rules::labels(tool).replace(", ", ",");
        for step in RATE_STEPS..STEPS {
            let failures = (step - RATE_STEPS..step).filter(|step| Traffic::fails(tool, *step)).count();
            let ratio = failures as f64 / RATE_STEPS as f64;
            writeln!(
                out,
                "slo:sli_error:ratio_rate5m{{{labels},sloth_window=\"5m\"}} {ratio} {}",
                traffic.sampled_s(step)
            )?;
        }
    }
    writeln!(out, "# EOF")?;
    Ok(out.flush()?)
}

/// Starts one on these blocks; with rules, if there are some.
fn start(
    folder: &Path,
    name: &str,
    blocks: &Path,
    target: SocketAddr,
    rules: Option<&Path>,
) -> Fallible<(Process, SocketAddr)> {
    let data = folder.join(name);
    for block in std::fs::read_dir(blocks)? {
        copy(&block?.path(), &data)?;
    }
    let rule_files = rules.map_or_else(String::new, |path| format!("rule_files: [\"{}\"]\n", path.display()));
    let config = folder.join(format!("{name}.yml"));
    // The target's own labels are those of the history.
    std::fs::write(
        &config,
        format!(
            "global: {{scrape_interval: {SCRAPE_S}s, evaluation_interval: {INTERVAL_S}s}}\n{rule_files}scrape_configs:\n- job_name: tools\n  \
             static_configs: [{{targets: [\"{target}\"], labels: {{instance: target}}}}]\n"
        ),
    )?;
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let child = Command::new("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", data.display()))
        .arg(format!("--web.listen-address={address}"))
        .arg("--log.level=error")
        .stdout(Stdio::null())
        .spawn()?;
    Ok((Process(child), address))
}

/// Copies a folder into another one.
fn copy(from: &Path, into: &Path) -> Fallible<()> {
    let to = into.join(from.file_name().unwrap_or_default());
    if !from.is_dir() {
        std::fs::copy(from, to)?;
        return Ok(());
    }
    std::fs::create_dir_all(&to)?;
    for entry in std::fs::read_dir(from)? {
        copy(&entry?.path(), &to)?;
    }
    Ok(())
}

fn cpu_and_iterations(address: SocketAddr) -> Fallible<(f64, f64)> {
    let text = text(address, "/metrics")?;
    Ok((metric(&text, "process_cpu_seconds_total"), metric(&text, "prometheus_rule_group_iterations_total")))
}

/// Both, side by side.
pub(crate) async fn measure(folder: &Path, traffic: &Arc<Traffic>, time: Duration) -> Fallible<Side> {
    let (history, blocks) = (folder.join("history.om"), folder.join("blocks"));
    write_history(&history, traffic)?;
    // One block is larger than those that it would write by itself, and as those that it would have compacted them to.
    let made = Command::new("promtool")
        .args(["tsdb", "create-blocks-from", "--max-block-duration=72h", "openmetrics"])
        .args([&history, &blocks])
        .stdout(Stdio::null())
        .status()?;
    if !made.success() {
        return Err("promtool makes no blocks of the history".into());
    }
    std::fs::remove_file(&history)?;
    let (rule_file, target): (PathBuf, _) = (folder.join("rules.yml"), target(traffic)?);
    std::fs::write(&rule_file, rules::file(traffic.tools(), INTERVAL_S)?)?;
    let (without, without_address) = start(folder, "prometheus-without", &blocks, target, None)?;
    let (with, with_address) = start(folder, "prometheus-with", &blocks, target, Some(&rule_file))?;
    let groups = (rules::GROUPS * traffic.tools()) as f64;
    for (address, wanted) in [(without_address, 0.0), (with_address, 2.0 * groups)] {
        // The first round of each group finds nothing of the others.
        until(PATIENCE, "Prometheus evaluates", || {
            Ok(cpu_and_iterations(address).is_ok_and(|(_, done)| done >= wanted))
        })
        .await?;
    }
    let first = [cpu_and_iterations(with_address)?, cpu_and_iterations(without_address)?];
    tokio::time::sleep(time).await;
    let last = [cpu_and_iterations(with_address)?, cpu_and_iterations(without_address)?];
    let cpu = [0, 1].map(|at: usize| last[at].0 - first[at].0);
    let rounds = (last[0].1 - first[0].1) / groups;
    let query = "/api/v1/query?query=avg(slo:sli_error:ratio_rate3d)";
    let answer = json(with_address, query)?;
    let failures =
        answer["data"]["result"][0]["value"][1].as_str().and_then(|value| value.parse().ok()).unwrap_or(f64::NAN);
    let missed = metric(&text(with_address, "/metrics")?, "prometheus_rule_group_iterations_missed_total");
    println!(
        "Prometheus: {:.2} s of CPU with rules, {:.2} s without, {rounds:.1} rounds, {missed} evaluations of groups missed",
        cpu[0], cpu[1]
    );
    drop((with, without));
    Ok(Side { cpu_ms: (cpu[0] - cpu[1]) * 1e3 / rounds, rounds, failures })
}
