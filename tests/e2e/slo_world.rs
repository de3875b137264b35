//! A server in this process whose clock the test moves, traffic of one call a second, and Alertmanagers that do as they are told.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use toolgauge::config::{Config, Names, Time};
use toolgauge::server::Server;
use toolgauge_proto::api::slo::{AlertReport, AlertsReport, SloReport, SlosReport};
use toolgauge_proto::time::{Clock, UnixMicros};

use crate::sandbox::{Api, LIMIT, Raw, TRACES, until};
use crate::traffic::{failed, request, tool_span};

/// Calls of `search`, attempts, 99.9 % over 30 days.
pub(crate) const SLO: &str = "apiVersion: openslo/v1
kind: SLO
metadata:
  name: search-availability
  annotations: {toolgauge/mode: attempt}
spec:
  service: shop
  indicator:
    spec:
      ratioMetric:
        good:
          metricSource: {type: toolgauge, spec: {where: outcome = 'ok'}}
        total:
          metricSource: {type: toolgauge, spec: {where: kind = 'tool' AND tool_name = 'search'}}
  timeWindow: [{duration: 30d, isRolling: true}]
  budgetingMethod: Occurrences
  objectives: [{target: 0.999}]
";

/// A clock that stands until it is moved, and one beside it that nobody sets.
#[derive(Debug)]
pub(crate) struct TestClock {
    now_us: AtomicI64,
    elapsed_us: AtomicI64,
}

impl TestClock {
    fn at(now_us: i64) -> Self {
        Self { now_us: AtomicI64::new(now_us), elapsed_us: AtomicI64::new(0) }
    }
}

impl Clock for TestClock {
    fn now(&self) -> UnixMicros {
        UnixMicros(self.now_us.load(Ordering::SeqCst))
    }

    fn elapsed(&self) -> Duration {
        Duration::from_micros(self.elapsed_us.load(Ordering::SeqCst).unsigned_abs())
    }
}

pub(crate) const SECOND: i64 = 1_000_000;

/// How calls go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Calls {
    Good,
    Bad,
}

const OWNERS: &str = r#"
[[owner]]
tool = "search"
team = "discovery"
criticality = "critical"
runbook = "https://runbooks.example/search"
"#;

pub(crate) struct World {
    pub(crate) clock: Arc<TestClock>,
    pub(crate) folder: TempDir,
    pub(crate) config: Config,
    server: Option<Server>,
    pub(crate) api: Api,
    client: Raw,
    calls: u64,
}

impl World {
    /// A server at this time, with `slos` in its folder.
    pub(crate) async fn start(now: &str, slos: &str, alertmanagers: &[String]) -> Self {
        let now = chrono_micros(now);
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("slos")).unwrap();
        std::fs::write(folder.path().join("slos/shop.yaml"), slos).unwrap();
        let mut config = Config {
            data: folder.path().join("data"),
            otlp_grpc: SocketAddr::from(([127, 0, 0, 1], 0)),
            otlp_http: SocketAddr::from(([127, 0, 0, 1], 0)),
            http: SocketAddr::from(([127, 0, 0, 1], 0)),
            slo: Names(vec![folder.path().join("slos").display().to_string()]),
            alertmanager: Names(alertmanagers.to_vec()),
            ..Config::default()
        };
        let owners = folder.path().join("owners.toml");
        std::fs::write(&owners, OWNERS).unwrap();
        config.ownership = Some(owners);
        config.settle.after = Time(Duration::from_secs(20));
        config.lake.commit_interval = Time(Duration::from_millis(50));
        config.alerting.interval = Time(Duration::from_millis(20));
        config.alerting.flush_interval = Time(Duration::from_millis(100));
        config.alerting.timeout = Time(Duration::from_secs(1));
        let clock = Arc::new(TestClock::at(now));
        Self::serve(clock, folder, config, 0).await
    }

    async fn serve(clock: Arc<TestClock>, folder: TempDir, config: Config, calls: u64) -> Self {
        let server = Server::start_at(&config, Arc::<TestClock>::clone(&clock)).await.unwrap();
        let (api, client) = (Api::new(server.http), Raw::connect(server.otlp_grpc).await);
        Self { clock, folder, config, server: Some(server), api, client, calls }
    }

    /// Starts a server anew from what lies on the disk at this moment, as after SIGKILL: what a process has written is there, and
    /// nothing that it does at its end.
    pub(crate) async fn kill_and_restart(mut self) -> Self {
        let killed = self.folder.path().join(format!("killed-{}", self.calls));
        copy(&self.config.data, &killed);
        self.server.take().unwrap().stop().await.unwrap();
        self.config.data = killed;
        Self::serve(self.clock, self.folder, self.config, self.calls).await
    }

    /// Restarts with other settings.
    pub(crate) async fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        self.server.take().unwrap().stop().await.unwrap();
        change(&mut self.config);
        Self::serve(self.clock, self.folder, self.config, self.calls).await
    }

    /// Stops in order, lets `change` look at the data folder, and starts again.
    pub(crate) async fn restart(mut self, change: impl FnOnce(&Path)) -> Self {
        self.server.take().unwrap().stop().await.unwrap();
        change(&self.config.data);
        Self::serve(self.clock, self.folder, self.config, self.calls).await
    }

    pub(crate) async fn stop(mut self) {
        self.server.take().unwrap().stop().await.unwrap();
    }

    pub(crate) fn now(&self) -> UnixMicros {
        self.clock.now()
    }

    /// Time passes.
    pub(crate) fn advance(&self, seconds: i64) {
        self.clock.elapsed_us.fetch_add(seconds * SECOND, Ordering::SeqCst);
        self.set_clock(seconds);
    }

    /// Somebody sets the clock.
    pub(crate) fn set_clock(&self, seconds: i64) {
        self.clock.now_us.fetch_add(seconds * SECOND, Ordering::SeqCst);
    }

    /// Sends an export of spans.
    pub(crate) async fn export(&mut self, body: &[u8]) {
        self.client.export(TRACES, body).await;
    }

    /// One call for each of the last `seconds`, received now.
    pub(crate) async fn send(&mut self, seconds: i64, calls: Calls) {
        self.send_of("search", seconds, calls).await;
    }

    /// The same of another tool.
    pub(crate) async fn send_of(&mut self, tool: &str, seconds: i64, calls: Calls) {
        let now = self.now().0;
        let spans = (0..seconds).rev().map(|ago| {
            self.calls += 1;
            // They end within the second that has passed.
            let end_ns = u64::try_from((now - ago * SECOND - SECOND / 2) * 1_000).unwrap();
            let span = tool_span(tool, self.calls, 0, end_ns - 1_000_000, 1_000_000);
            if calls == Calls::Good { span } else { failed(span, "TimeoutError") }
        });
        let spans = spans.collect();
        self.export(&request("shop-agent", spans).encode_to_vec()).await;
    }

    /// An export of these spans, received now.
    pub(crate) async fn send_spans(&mut self, service: &str, spans: Vec<Span>) {
        self.client.export(TRACES, &request(service, spans).encode_to_vec()).await;
    }

    /// Time goes on, with a call each second, in steps; after each of them everything is evaluated.
    pub(crate) async fn run(&mut self, seconds: i64, step: i64, calls: Calls) {
        for _ in 0..seconds / step {
            self.advance(step);
            self.send(step, calls).await;
            self.evaluated().await;
        }
    }

    /// Waits until two rounds more have ended: one of them has begun since.
    pub(crate) async fn rounds(&self) {
        let done = self.metric("toolgauge_evaluations_total").await;
        until(LIMIT, "it is evaluated", async || {
            (self.metric("toolgauge_evaluations_total").await >= done + 2.0).then_some(())
        })
        .await;
    }

    /// Waits for an evaluation at this time over everything that is acknowledged.
    pub(crate) async fn evaluated(&self) -> SlosReport {
        let position = self.api.status().await.ingest.wal_synced;
        let now = self.now();
        until(LIMIT, "everything is evaluated", async || {
            let answer = self.api.get("/api/v1/slos").await;
            let report: SlosReport = serde_json::from_str(&answer.text).ok()?;
            let is_new = chrono_micros(&report.at.time) >= now.0 && report.at.position >= position;
            (is_new && report.slos.iter().all(|slo| slo.evaluation != "learning")).then_some(report)
        })
        .await
    }

    /// The only SLO.
    pub(crate) async fn slo(&self) -> SloReport {
        let mut report = self.evaluated().await;
        assert_eq!(report.slos.len(), 1);
        report.slos.remove(0)
    }

    pub(crate) async fn alerts(&self) -> AlertsReport {
        let answer = self.api.get("/api/v1/alerts").await;
        serde_json::from_str(&answer.text).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
    }

    /// The alert with this name, if it is not inactive.
    pub(crate) async fn alert(&self, name: &str) -> Option<AlertReport> {
        self.alerts().await.alerts.into_iter().find(|alert| alert.labels["alertname"] == name)
    }

    /// The state of the page for the fast tier.
    pub(crate) async fn page(&self) -> String {
        let alerts = self.alerts().await.alerts;
        let page = alerts.into_iter().find(|alert| alert.labels.get("burn_tier").is_some_and(|tier| tier == "fast"));
        page.map_or("inactive".to_owned(), |page| page.state)
    }

    /// The value of a metric with these labels.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = self.api.get("/metrics").await.text;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }
}

/// Microseconds of an RFC 3339 instant.
pub(crate) fn chrono_micros(text: &str) -> i64 {
    let (date, time) = text.trim_end_matches('Z').split_once('T').unwrap();
    let numbers = |text: &str, by: char| text.split(by).map(|part| part.parse::<f64>().unwrap()).collect::<Vec<_>>();
    let (date, time) = (numbers(date, '-'), numbers(time, ':'));
    // Days from civil, by Howard Hinnant.
    let (y, m, d) = (date[0] as i64 - i64::from(date[1] <= 2.0), date[1] as i64, date[2] as i64);
    let era = y.div_euclid(400);
    let day_of_year = (153 * (m + if m > 2 { -3 } else { 9 }) + 2) / 5 + d - 1;
    let year_of_era = y - era * 400;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    let seconds = days * 86_400 + time[0] as i64 * 3_600 + time[1] as i64 * 60;
    seconds * SECOND + (time[2] * 1e6).round() as i64
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target: PathBuf = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if let Err(error) = std::fs::copy(entry.path(), &target) {
            // Staged files come and go.
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{:?}", entry.path());
        }
    }
}

/// How a false Alertmanager answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answers {
    With(u16),
    Never,
}

/// A false Alertmanager.
#[derive(Clone)]
pub(crate) struct Manager {
    pub(crate) address: SocketAddr,
    posts: Arc<Mutex<Vec<Value>>>,
    answers: Arc<Mutex<Answers>>,
}

impl Manager {
    pub(crate) async fn start(answers: Answers) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), answers).await
    }

    pub(crate) async fn start_at(address: SocketAddr, answers: Answers) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let manager = Self {
            address: listener.local_addr().unwrap(),
            posts: Arc::default(),
            answers: Arc::new(Mutex::new(answers)),
        };
        let served = manager.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(served.clone().connection(stream));
            }
        });
        manager
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn answer(&self, answers: Answers) {
        *self.answers.lock().unwrap() = answers;
    }

    /// How many alerts each request had.
    pub(crate) fn batches(&self) -> Vec<usize> {
        self.posts.lock().unwrap().iter().map(|post| post.as_array().unwrap().len()).collect()
    }

    /// All alerts that were ever sent, as they were sent.
    pub(crate) fn alerts(&self) -> Vec<Value> {
        self.posts.lock().unwrap().iter().flat_map(|post| post.as_array().unwrap().clone()).collect()
    }

    /// Of these, those of this tier.
    pub(crate) fn tier(&self, tier: &str) -> Vec<Value> {
        self.alerts().into_iter().filter(|alert| alert["labels"]["burn_tier"] == tier).collect()
    }

    /// Of the alerts with this tier: start times.
    pub(crate) fn starts(&self, tier: &str) -> BTreeSet<String> {
        self.tier(tier).iter().map(|alert| alert["startsAt"].as_str().unwrap().to_owned()).collect()
    }

    async fn connection(self, mut stream: TcpStream) {
        let mut read = Vec::new();
        loop {
            let head = loop {
                if let Some(end) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                    break end + 4;
                }
                if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                    return;
                }
            };
            let text = String::from_utf8_lossy(&read[..head]).to_lowercase();
            assert!(
                text.starts_with("post /api/v2/alerts http/1.1\r\n") && text.contains("content-type: application/json"),
                "{text}"
            );
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            let length: usize = length.parse().unwrap();
            while read.len() < head + length {
                if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            let rest = read.split_off(head + length);
            let body = serde_json::from_slice(&read[head..]).unwrap();
            read = rest;
            let answers = *self.answers.lock().unwrap();
            self.posts.lock().unwrap().push(body);
            match answers {
                Answers::Never => std::future::pending::<()>().await,
                Answers::With(status) => {
                    let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\n{{}}");
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}
