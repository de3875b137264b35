//! Delivery to Alertmanagers: false ones that misbehave, and Debian's real one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use serde_json::Value;
use toolgauge_proto::time::{Clock as _, SystemClock};
use toolgauge_queries::notify::{Notifier, PostableAlert, Targets};

use crate::sandbox::{Api, LIMIT, until};
use crate::slo_world::{Answers, Calls, Manager, SECOND, SLO, World, chrono_micros};

/// Scenario: of five Alertmanagers one works, one is down, one never answers, one answers 400, one 500 and later 200. Guarantees: the
/// one that works gets everything at once; nothing waits for the others; what is down is tried again, what is refused is not.
#[tokio::test(flavor = "multi_thread")]
async fn an_alertmanager_that_misbehaves_delays_nobody() {
    let good = Manager::start(Answers::With(200)).await;
    let slow = Manager::start(Answers::Never).await;
    let refusing = Manager::start(Answers::With(400)).await;
    let failing = Manager::start(Answers::With(500)).await;
    // An address at which nobody listens any more.
    let down = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let urls = [slow.url(), refusing.url(), failing.url(), format!("http://{down}"), good.url()];
    let mut world = World::start("2026-03-01T12:00:00Z", SLO, &urls).await;
    world.run(6 * 60, 60, Calls::Bad).await;
    assert_eq!(world.page().await, "firing");
    until(LIMIT, "the good one has the page", async || good.starts("fast").first().cloned()).await;
    let name = |counter: &str, url: &str| format!("toolgauge_alertmanager_{counter}{{alertmanager=\"{url}\"}}");
    for manager in [&slow, &failing] {
        until(LIMIT, "it is tried again", async || (manager.tier("fast").len() > 1).then_some(())).await;
        // The newest version of each alert, of which an SLO has four.
        assert!(world.metric(&name("waiting", &manager.url())).await <= 4.0);
    }
    until(LIMIT, "it is counted", async || {
        (world.metric(&name("refused_total", &refusing.url())).await > 0.0).then_some(())
    })
    .await;
    until(LIMIT, "it is counted", async || {
        (world.metric(&name("failed_requests_total", &format!("http://{down}"))).await > 1.0).then_some(())
    })
    .await;
    // The clock stands, so that nothing is due again: what was refused is not sent again.
    assert_eq!(refusing.alerts().len(), good.alerts().len());

    failing.answer(Answers::With(200));
    until(LIMIT, "it gets the page when it is back", async || {
        (world.metric(&name("sent_total", &failing.url())).await > 0.0).then_some(())
    })
    .await;
    assert_eq!(failing.starts("fast"), good.starts("fast"));
    // Evaluation goes on meanwhile.
    world.run(60, 60, Calls::Bad).await;
    until(LIMIT, "it is sent again after a minute", async || {
        let ends: BTreeSet<String> = good.alerts().iter().map(|alert| alert["endsAt"].to_string()).collect();
        (ends.len() > 1).then_some(())
    })
    .await;
    world.stop().await;
}

/// Scenario: a page fires for three minutes, then ends; time goes on second by second around each minute. Guarantees: it is sent when it changes and then
/// exactly each minute, firing ones with an end four minutes later, resolved ones with the end they had, for a quarter of an hour and no longer.
#[tokio::test(flavor = "multi_thread")]
async fn pages_are_sent_again_each_minute_and_ended_ones_for_a_quarter_of_an_hour() {
    let manager = Manager::start(Answers::With(200)).await;
    let mut world = World::start("2026-03-01T12:00:00Z", SLO, &[manager.url()]).await;
    world.run(60, 60, Calls::Bad).await;
    assert_eq!(world.page().await, "firing");
    let began = world.now().0;
    // Ends of the page as they were sent, in seconds since it began.
    let ends = || {
        let ends = manager.tier("fast").into_iter().map(|page| chrono_micros(page["endsAt"].as_str().unwrap()));
        ends.map(|end| (end - began) / SECOND).collect::<Vec<i64>>()
    };
    let sent = async |expected: &[i64]| {
        until(LIMIT, &format!("exactly {expected:?} are sent"), async || (ends() == expected).then_some(())).await;
    };
    let mut expected = vec![240];
    sent(&expected).await;
    for minute in 1..=3 {
        world.run(59, 59, Calls::Bad).await;
        world.rounds().await;
        sent(&expected).await;
        world.run(1, 1, Calls::Bad).await;
        expected.push(minute * 60 + 240);
        sent(&expected).await;
    }
    while world.page().await == "firing" {
        world.run(60, 60, Calls::Good).await;
        let now = (world.now().0 - began) / SECOND;
        let firing = world.page().await == "firing";
        expected.push(if firing { now + 240 } else { now });
        sent(&expected).await;
    }
    let end = *expected.last().unwrap();
    for _ in 1..15 {
        world.advance(59);
        world.rounds().await;
        sent(&expected).await;
        world.advance(1);
        expected.push(end);
        sent(&expected).await;
    }
    for _ in 0..3 {
        world.advance(60);
        world.rounds().await;
    }
    sent(&expected).await;
    assert_eq!(manager.starts("fast").len(), 1);
    world.stop().await;
}

/// Scenario: an Alertmanager is away when a page begins, and is there later. Guarantees: it gets the page then, once, with its start, before it would be due again.
#[tokio::test(flavor = "multi_thread")]
async fn an_alertmanager_that_comes_back_gets_what_fires() {
    let address = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut world = World::start("2026-03-01T12:00:00Z", SLO, &[format!("http://{address}")]).await;
    world.run(60, 60, Calls::Bad).await;
    assert_eq!(world.page().await, "firing");
    let began = world.now().0;
    let failed = format!("toolgauge_alertmanager_failed_requests_total{{alertmanager=\"http://{address}\"}}");
    until(LIMIT, "it is tried", async || (world.metric(&failed).await > 1.0).then_some(())).await;
    // The clock stands: only what waits can be sent.
    let manager = Manager::start_at(address, Answers::With(200)).await;
    let page = until(LIMIT, "it gets the page", async || manager.tier("fast").pop()).await;
    assert_eq!(chrono_micros(page["startsAt"].as_str().unwrap()), began);
    assert_eq!(manager.tier("fast").len(), 1, "what was tried again and again comes once");
    let waiting = format!("toolgauge_alertmanager_waiting{{alertmanager=\"http://{address}\"}}");
    until(LIMIT, "nothing waits", async || (world.metric(&waiting).await == 0.0).then_some(())).await;
    world.stop().await;
}

/// Scenario: 600 alerts at once. Guarantees: they go in requests of at most 256, oldest first, also when the server ends at once.
#[tokio::test(flavor = "multi_thread")]
async fn many_alerts_go_in_batches() {
    let manager = Manager::start(Answers::With(200)).await;
    let targets = Targets::parse(&[manager.url()]).unwrap();
    let notifier = Notifier::start(targets, LIMIT, &tokio::runtime::Handle::current()).unwrap();
    let alerts: Vec<PostableAlert> = (0..600)
        .map(|number: u32| PostableAlert {
            labels: Arc::new(BTreeMap::from([("number".to_owned(), number.to_string())])),
            annotations: BTreeMap::new(),
            starts_at: "2026-03-01T12:00:00Z".to_owned(),
            ends_at: "2026-03-01T12:04:00Z".to_owned(),
            generator_url: None,
            fingerprint: format!("{number:016x}").into(),
        })
        .collect();
    notifier.send(&alerts);
    notifier.stop().await;
    assert_eq!(manager.batches(), [256, 256, 88]);
    let sent: Vec<String> =
        manager.alerts().iter().map(|alert| alert["labels"]["number"].as_str().unwrap().to_owned()).collect();
    assert_eq!(sent, (0..600).map(|number| number.to_string()).collect::<Vec<_>>(), "oldest first");
    let counted: Vec<_> = notifier
        .counters()
        .map(|(name, counters, waiting)| (name.to_owned(), counters.sent.load(Relaxed), waiting))
        .collect();
    assert_eq!(counted, [(manager.url(), 600, 0)]);
}

const PROGRAM: &str = "prometheus-alertmanager";

/// Debian's Alertmanager; killed when dropped.
pub(crate) struct Real {
    child: Child,
    address: SocketAddr,
    folder: PathBuf,
    pub(crate) api: Api,
}

impl Real {
    /// `None` if it is not installed here.
    pub(crate) async fn start(folder: &Path) -> Option<Self> {
        Self::start_with(folder, "route: {receiver: none}\nreceivers: [{name: none}]\n").await
    }

    /// The same with a configuration.
    pub(crate) async fn start_with(folder: &Path, text: &str) -> Option<Self> {
        std::fs::write(folder.join("alertmanager.yml"), text).unwrap();
        let address = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let child = Self::spawn(folder, address)?;
        let real = Self { child, address, folder: folder.to_owned(), api: Api::new(address) };
        real.until_ready().await;
        Some(real)
    }

    /// Kills it and starts it again; it knows no alerts then.
    async fn restart(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        self.child = Self::spawn(&self.folder, self.address).unwrap();
        self.until_ready().await;
    }

    fn spawn(folder: &Path, address: SocketAddr) -> Option<Child> {
        let child = Command::new(PROGRAM)
            .arg(format!("--config.file={}", folder.join("alertmanager.yml").display()))
            .arg(format!("--storage.path={}", folder.join("alertmanager").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--cluster.listen-address=")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match child {
            Ok(child) => Some(child),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                assert!(std::env::var_os("CI").is_none(), "{PROGRAM} is missing: `./dev test` installs it");
                None
            }
            Err(error) => panic!("start {PROGRAM}: {error}"),
        }
    }

    async fn until_ready(&self) {
        until(LIMIT, "the Alertmanager is ready", async || {
            let answer = self.api.try_send("/-/ready", None).await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
    }

    pub(crate) async fn alerts(&self) -> Vec<Value> {
        let answer = self.api.get("/api/v2/alerts").await;
        serde_json::from_str::<Vec<Value>>(&answer.text).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
    }

    /// The pages of the fast tier that are active.
    pub(crate) async fn pages(&self) -> Vec<Value> {
        self.alerts().await.into_iter().filter(|alert| alert["labels"]["burn_tier"] == "fast").collect()
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Scenario: an outage half an hour ago, as Debian's Alertmanager sees it; the server is killed in between, then the Alertmanager. Guarantees: the page is active
/// there, once, with one start time over both restarts, and is gone when it has ended.
#[tokio::test(flavor = "multi_thread")]
async fn debians_alertmanager_gets_one_page_and_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut real) = Real::start(folder.path()).await else { return };
    // The Alertmanager has the machine's clock: what has ended, ended in its past, and what fires lives for 40 minutes.
    let begin = toolgauge_queries::json::rfc3339(toolgauge_proto::time::UnixMicros(
        SystemClock.now().minute().0 - 30 * 60 * SECOND,
    ));
    let mut world = World::start(&begin, SLO, &[format!("{}/", real.api.url)]).await;
    world = world.with(|config| config.alerting.resend_delay.0 = std::time::Duration::from_secs(600)).await;
    world.run(6 * 60, 60, Calls::Bad).await;
    assert_eq!(world.page().await, "firing");
    let page = until(LIMIT, "the page is active", async || real.pages().await.pop()).await;
    assert_eq!(page["status"]["state"], "active");
    let starts_at = chrono_micros(page["startsAt"].as_str().unwrap());
    assert!(page["generatorURL"].as_str().unwrap().ends_with("/api/v1/slos/shop/search-availability"));

    world = world.kill_and_restart().await;
    world.run(60, 60, Calls::Bad).await;
    assert_eq!(world.page().await, "firing");
    let pages = real.pages().await;
    assert_eq!(pages.len(), 1, "{pages:?}");
    assert_eq!(chrono_micros(pages[0]["startsAt"].as_str().unwrap()), starts_at);

    real.restart().await;
    assert!(real.pages().await.is_empty(), "it remembers alerts over a restart");
    // The delay until it is sent again.
    world.advance(600);
    let pages =
        until(LIMIT, "the page is sent again", async || Some(real.pages().await).filter(|pages| !pages.is_empty()))
            .await;
    assert_eq!(pages.len(), 1, "{pages:?}");
    assert_eq!(chrono_micros(pages[0]["startsAt"].as_str().unwrap()), starts_at);

    let mut minutes = 0;
    while world.page().await == "firing" {
        minutes += 1;
        assert!(minutes <= 6, "it does not end: {:?}", world.slo().await);
        world.run(60, 60, Calls::Good).await;
    }
    until(LIMIT, "the page is gone", async || real.pages().await.is_empty().then_some(())).await;
    world.stop().await;
}
