//! How long a page takes from the first failed call to Debian's Alertmanager, and its end, by the machine's clock.
//!
//! It takes seven minutes, nearly all of them waiting. Its name lets it begin beside the demonstration, which takes as long.

use std::io::Write as _;
use std::time::{Duration, Instant};

use prost::Message as _;
use serde_json::Value;
use toolgauge_proto::api::slo::{SloReport, SlosReport};

use crate::process::{Doors, Process};
use crate::sandbox::{LIMIT, Raw, TRACES, now_ns, until};
use crate::slo_delivery::Real;
use crate::slo_world::{Calls, SLO, chrono_micros};
use crate::traffic::{failed, request, tool_span};

const SECOND_NS: u64 = 1_000_000_000;
/// Time between two evaluations: the default.
const INTERVAL: Duration = Duration::from_secs(10);
/// What publishing, committing, posting and looking may take on a loaded machine.
const SLACK: Duration = Duration::from_secs(4);
/// How often the Alertmanager is asked.
const LOOK: Duration = Duration::from_millis(200);

/// A call a second, whatever becomes of the server.
struct Traffic {
    client: Raw,
    calls: u64,
    /// When the next call ends.
    next_ns: u64,
}

impl Traffic {
    /// Sends the calls that have ended by now.
    async fn go_on(&mut self, calls: Calls) {
        let now = now_ns();
        let mut spans = Vec::new();
        while self.next_ns <= now {
            self.calls += 1;
            let span = tool_span("search", self.calls, 0, self.next_ns - 1_000_000, 1_000_000);
            spans.push(if calls == Calls::Good { span } else { failed(span, "TimeoutError") });
            self.next_ns += SECOND_NS;
        }
        if !spans.is_empty() {
            self.client.export(TRACES, &request("shop-agent", spans).encode_to_vec()).await;
        }
    }

    /// Goes on until `condition` gives something; fails with `what` after `limit`.
    async fn until<T>(
        &mut self,
        calls: Calls,
        limit: Duration,
        what: &str,
        mut condition: impl AsyncFnMut() -> Option<T>,
    ) -> T {
        let began = Instant::now();
        let mut looks = tokio::time::interval(LOOK);
        loop {
            looks.tick().await;
            self.go_on(calls).await;
            if let Some(found) = condition().await {
                return found;
            }
            assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        }
    }
}

/// The SLO, evaluated over everything that is acknowledged.
async fn evaluated(doors: &Doors) -> SloReport {
    let position = doors.api.status().await.ingest.wal_synced;
    until(LIMIT, "it is evaluated", async || {
        let answer = doors.api.get("/api/v1/slos").await;
        let mut report: SlosReport = serde_json::from_str(&answer.text).ok()?;
        let is_known = report.at.position >= position && report.slos[0].evaluation != "learning";
        is_known.then(|| report.slos.remove(0))
    })
    .await
}

fn micros(alert: &Value, what: &str) -> i64 {
    chrono_micros(alert[what].as_str().unwrap_or_else(|| panic!("no {what}: {alert}")))
}

/// Scenario: an hour of one good call a second, then every call fails; when the page is there, the process gets SIGKILL and is started again, and the
/// calls that it has missed are sent late; then all calls are good. All settings are the defaults, the clock is the machine's.
/// Guarantees: Debian's Alertmanager has the page within 53 seconds of the first failed call and one evaluation; over the kill it keeps one
/// start time, and the server its counts; the page is gone within the short window, a minute and one evaluation of the first good call.
#[tokio::test(flavor = "multi_thread")]
async fn a_total_outage_pages_and_ends_in_time_by_the_machines_clock_over_a_sigkill() {
    let folder = tempfile::tempdir().unwrap();
    let Some(real) = Real::start(folder.path()).await else { return };
    let (data, slo) = (folder.path().join("data"), folder.path().join("slo.yaml"));
    std::fs::write(&slo, SLO).unwrap();
    let serve = || {
        let mut command = Process::command(&data, &[]);
        command.arg("--slo").arg(&slo).args(["--alertmanager", &real.api.url]);
        command
    };
    let (mut process, mut doors) = Process::start(serve()).await;
    let mut traffic =
        Traffic { client: Raw::connect(doors.otlp).await, calls: 0, next_ns: now_ns() - 3_600 * SECOND_NS };
    traffic.go_on(Calls::Good).await;
    let before = traffic
        .until(Calls::Good, LIMIT, "the hour is evaluated", async || {
            Some(evaluated(&doors).await).filter(|slo| slo.good >= 3_600)
        })
        .await;
    assert_eq!((before.bad, before.state.as_str(), before.evaluation.as_str()), (0, "inactive", "ok"));

    let outage = i64::try_from(traffic.next_ns / 1_000).unwrap();
    let page_within = Duration::from_secs(53) + INTERVAL + SLACK;
    let pages = async || Some(real.pages().await).filter(|pages| !pages.is_empty());
    let mut page = traffic.until(Calls::Bad, page_within, "a page", &pages).await;
    let paged = Duration::from_nanos(now_ns() - outage.unsigned_abs() * 1_000);
    assert!(paged <= page_within, "a page after {paged:?}");
    let page = page.remove(0);
    let starts_at = micros(&page, "startsAt");
    let began = Duration::from_micros((starts_at - outage).unsigned_abs());
    assert!(starts_at > outage && began <= Duration::from_secs(53) + INTERVAL, "it says that it began after {began:?}");

    let before = evaluated(&doors).await;
    assert_eq!(before.good + before.bad, traffic.calls, "each call once");
    process.kill();
    drop(process);
    (process, doors) = Process::start(serve()).await;
    let after = evaluated(&doors).await;
    assert_eq!((after.good, after.bad, after.state.as_str()), (before.good, before.bad, "firing"));
    traffic.client = Raw::connect(doors.otlp).await;
    let updated = micros(&page, "updatedAt");
    traffic
        .until(Calls::Bad, LIMIT, "it is sent again after the restart", async || {
            let again = real.pages().await;
            assert_eq!(again.len(), 1, "{again:?}");
            assert_eq!(micros(&again[0], "startsAt"), starts_at);
            (micros(&again[0], "updatedAt") > updated).then_some(())
        })
        .await;

    let fixed = traffic.next_ns;
    let ends_within = Duration::from_secs(5 * 60 + 60) + INTERVAL + SLACK;
    traffic
        .until(Calls::Good, ends_within, "the end of the page", async || {
            let left = real.pages().await;
            assert!(left.iter().all(|page| micros(page, "startsAt") == starts_at) && left.len() <= 1, "{left:?}");
            left.is_empty().then_some(())
        })
        .await;
    let ended = Duration::from_nanos(now_ns() - fixed);
    assert!(ended <= ends_within, "it ended after {ended:?}");
    let slo = evaluated(&doors).await;
    assert_eq!(slo.good + slo.bad, traffic.calls, "each call once");
    let changes = "SELECT previous_state, state FROM alerts WHERE burn_tier = 'fast' ORDER BY time";
    assert_eq!(doors.api.sql(changes).await, [["inactive", "firing"], ["firing", "resolved"]]);
    let figures = format!("{} of {} calls failed", slo.bad, traffic.calls);
    drop(writeln!(std::io::stderr(), "paged after {paged:.1?}, ended {ended:.1?} after the fix; {figures}"));

    process.terminate();
    assert_eq!(process.until_ended().await.code(), Some(0));
    let stderr = process.stderr();
    assert!(!stderr.contains("ERROR"), "{stderr}");
}
