//! Delivery to Alertmanagers: false ones that misbehave, and Debian's real one.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use toolgauge_proto::time::{Clock as _, SystemClock};

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

const PROGRAM: &str = "prometheus-alertmanager";

/// Debian's Alertmanager; killed when dropped.
pub(crate) struct Real {
    child: Child,
    pub(crate) api: Api,
}

impl Real {
    /// `None` if it is not installed here.
    pub(crate) async fn start(folder: &std::path::Path) -> Option<Self> {
        Self::start_with(folder, "route: {receiver: none}\nreceivers: [{name: none}]\n").await
    }

    /// The same with a configuration.
    pub(crate) async fn start_with(folder: &std::path::Path, text: &str) -> Option<Self> {
        let configuration = folder.join("alertmanager.yml");
        std::fs::write(&configuration, text).unwrap();
        let address = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let child = Command::new(PROGRAM)
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!("--storage.path={}", folder.join("alertmanager").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--cluster.listen-address=")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = match child {
            Ok(child) => child,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                assert!(std::env::var_os("CI").is_none(), "{PROGRAM} is missing: `./dev test` installs it");
                return None;
            }
            Err(error) => panic!("start {PROGRAM}: {error}"),
        };
        let real = Self { child, api: Api::new(address) };
        until(LIMIT, "the Alertmanager is ready", async || {
            let answer = real.api.try_send("/-/ready", None).await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
        Some(real)
    }

    pub(crate) async fn alerts(&self) -> Vec<Value> {
        let answer = self.api.get("/api/v2/alerts").await;
        serde_json::from_str::<Vec<Value>>(&answer.text).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
    }

    /// The pages of the fast tier that are active.
    async fn pages(&self) -> Vec<Value> {
        self.alerts().await.into_iter().filter(|alert| alert["labels"]["burn_tier"] == "fast").collect()
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Scenario: an outage half an hour ago, as Debian's Alertmanager sees it; the server is killed in between. Guarantees: the page is active there,
/// once, with one start time over the restart, and is gone when it has ended.
#[tokio::test(flavor = "multi_thread")]
async fn debians_alertmanager_gets_one_page_and_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let Some(real) = Real::start(folder.path()).await else { return };
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

    let mut minutes = 0;
    while world.page().await == "firing" {
        minutes += 1;
        assert!(minutes <= 6, "it does not end: {:?}", world.slo().await);
        world.run(60, 60, Calls::Good).await;
    }
    until(LIMIT, "the page is gone", async || real.pages().await.is_empty().then_some(())).await;
    world.stop().await;
}
