//! Delivery of alerts to Alertmanagers, over their API v2.
//!
//! # Guarantees
//! * Every alert goes to every Alertmanager that is configured: they agree among themselves on who notifies.
//! * [`Notifier::send`] never waits. Each Alertmanager has an outbox of its own, so that one that is down or slow delays no
//!   other.
//! * An outbox holds the newest version of each alert, at most [`OUTBOX_MAX`] of them, oldest first. What could not be delivered is
//!   tried again, with pauses that double up to [`PAUSE_MAX`], unless a newer version has come meanwhile. What an
//!   Alertmanager refuses (4xx) is not sent again: it has taken the valid ones of the batch, and would refuse the others
//!   again. Both are counted.
//!
//! # Why alerts are sent again and again
//! An Alertmanager forgets an alert at its `endsAt`. So firing alerts are sent anew, with a later end, for as long as they
//! fire, and resolved ones for a while; that is decided in `evaluate`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::{Client, StatusCode, Url, redirect};
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// Most alerts in a request.
pub const BATCH_MAX: usize = 256;
/// Most alerts that wait for one Alertmanager.
pub const OUTBOX_MAX: usize = 10_000;
/// Longest pause between two tries.
pub const PAUSE_MAX: Duration = Duration::from_secs(30);
const PAUSE_MIN: Duration = Duration::from_millis(500);
const ALERTS_PATH: &str = "/api/v2/alerts";
/// How much of an answer is looked at.
const ANSWER_BYTES_MAX: usize = 4 << 10;

/// An alert as Alertmanager's API v2 takes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PostableAlert {
    /// What it is known by.
    pub labels: Arc<BTreeMap<String, String>>,
    /// What it says.
    pub annotations: BTreeMap<String, String>,
    /// RFC 3339.
    pub starts_at: String,
    /// RFC 3339: when it ended, or when to take it for ended if nothing more is heard.
    pub ends_at: String,
    /// Where it can be looked at.
    #[serde(rename = "generatorURL", skip_serializing_if = "Option::is_none")]
    pub generator_url: Option<String>,
    /// Hash of the labels; not sent.
    #[serde(skip)]
    pub fingerprint: Arc<str>,
}

/// Why an address of an Alertmanager cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// It is no address.
    #[error("\"{url}\" is no address of an Alertmanager: {reason} (write like http://127.0.0.1:9093)")]
    Address {
        /// What was given.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// It is there already.
    #[error("the Alertmanager {url} is given twice (remove one: each gets every alert)")]
    Repeated {
        /// The address without credentials.
        url: String,
    },
    /// The client cannot be made.
    #[error("set up the client for Alertmanagers")]
    Client(#[source] reqwest::Error),
}

/// What is counted of one Alertmanager.
#[derive(Debug, Default)]
pub struct NotifyCounters {
    /// Alerts that it has taken.
    pub sent: AtomicU64,
    /// Requests that it answered otherwise than with 2xx, or not at all.
    pub failed_requests: AtomicU64,
    /// Alerts of batches that it refused for good.
    pub refused: AtomicU64,
    /// Alerts that fell out of a full outbox.
    pub dropped: AtomicU64,
}

/// Alerts that wait, by fingerprint, each with its place in the order in which they came.
#[derive(Debug, Default)]
struct Waiting {
    alerts: BTreeMap<Arc<str>, (u64, PostableAlert)>,
    last_place: u64,
}

#[derive(Debug, Default)]
struct Outbox {
    waiting: Mutex<Waiting>,
    filled: Notify,
    counters: NotifyCounters,
}

impl Outbox {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, alerts: &[PostableAlert]) {
        let mut waiting = self.waiting();
        for alert in alerts {
            waiting.last_place += 1;
            // A newer version keeps the place of the older one.
            let place = waiting.alerts.get(&alert.fingerprint).map_or(waiting.last_place, |(place, _)| *place);
            waiting.alerts.insert(Arc::clone(&alert.fingerprint), (place, alert.clone()));
        }
        self.shrink(&mut waiting);
        drop(waiting);
        self.filled.notify_one();
    }

    /// Gives back what could not be delivered, as far as nothing newer has come.
    fn put_back(&self, alerts: Vec<(u64, PostableAlert)>) {
        let mut waiting = self.waiting();
        for (place, alert) in alerts {
            waiting.alerts.entry(Arc::clone(&alert.fingerprint)).or_insert((place, alert));
        }
        self.shrink(&mut waiting);
    }

    fn shrink(&self, waiting: &mut Waiting) {
        let surplus = waiting.alerts.len().saturating_sub(OUTBOX_MAX);
        for fingerprint in oldest(waiting, surplus) {
            waiting.alerts.remove(&fingerprint);
        }
        self.counters.dropped.fetch_add(surplus as u64, Relaxed);
    }

    /// The oldest ones.
    fn take(&self) -> Vec<(u64, PostableAlert)> {
        let mut waiting = self.waiting();
        let oldest = oldest(&waiting, BATCH_MAX);
        oldest.iter().filter_map(|fingerprint| waiting.alerts.remove(fingerprint)).collect()
    }
}

/// The fingerprints of the alerts that wait for longest, at most so many.
fn oldest(waiting: &Waiting, count: usize) -> Vec<Arc<str>> {
    if count == 0 {
        return Vec::new();
    }
    let places = waiting.alerts.iter().map(|(fingerprint, (place, _))| (*place, Arc::clone(fingerprint)));
    let mut places: Vec<(u64, Arc<str>)> = places.collect();
    places.sort_unstable();
    places.into_iter().take(count).map(|(_, fingerprint)| fingerprint).collect()
}

/// The Alertmanagers that alerts go to: their names, which are their addresses without credentials, and their endpoints.
#[derive(Debug, Clone)]
pub struct Targets(Vec<(String, Url)>);

impl Targets {
    /// Those at these addresses.
    ///
    /// # Errors
    /// If an address cannot be used, or is given twice.
    pub fn parse(addresses: &[String]) -> Result<Self, NotifyError> {
        let mut targets: Vec<(String, Url)> = Vec::with_capacity(addresses.len());
        for address in addresses {
            let url = endpoint(address)?;
            let name = named(&url);
            if targets.iter().any(|(known, _)| *known == name) {
                return Err(NotifyError::Repeated { url: name });
            }
            targets.push((name, url));
        }
        Ok(Self(targets))
    }
}

/// Delivers alerts.
#[derive(Debug)]
pub struct Notifier {
    outboxes: Vec<(String, Arc<Outbox>)>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    stop: watch::Sender<bool>,
}

impl Notifier {
    /// One that sends to these Alertmanagers, each request with this limit of time.
    ///
    /// # Errors
    /// If the client cannot be made.
    pub fn start(targets: Targets, timeout: Duration, runtime: &Handle) -> Result<Self, NotifyError> {
        let (stop, stopped) = watch::channel(false);
        let (mut outboxes, mut tasks): (Vec<(String, Arc<Outbox>)>, _) = (Vec::new(), Vec::new());
        let client = Client::builder()
            .timeout(timeout)
            .connect_timeout(timeout)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .user_agent(concat!("toolgauge/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(NotifyError::Client)?;
        for (name, url) in targets.0 {
            let outbox = Arc::new(Outbox::default());
            let delivery = Delivery {
                client: client.clone(),
                url,
                name: name.clone(),
                outbox: Arc::clone(&outbox),
                stopped: stopped.clone(),
            };
            outboxes.push((name, outbox));
            tasks.push(runtime.spawn(delivery.run()));
        }
        Ok(Self { outboxes, tasks: Mutex::new(tasks), stop })
    }

    /// Puts alerts into all outboxes.
    pub fn send(&self, alerts: &[PostableAlert]) {
        if !alerts.is_empty() {
            self.outboxes.iter().for_each(|(_, outbox)| outbox.put(alerts));
        }
    }

    /// The counters of each Alertmanager, and how many alerts wait for it, by its address without credentials.
    pub fn counters(&self) -> impl Iterator<Item = (&str, &NotifyCounters, usize)> {
        self.outboxes.iter().map(|(name, outbox)| (name.as_str(), &outbox.counters, outbox.waiting().alerts.len()))
    }

    /// Tries once more to deliver what waits, and ends.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "delivery of alerts ended by a fault of the program");
            }
        }
    }
}

fn endpoint(address: &str) -> Result<Url, NotifyError> {
    let wrong = |reason: String| NotifyError::Address { url: address.to_owned(), reason };
    let mut url = Url::parse(address).map_err(|error| wrong(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(wrong("it does not begin with http:// or https:// and a host".to_owned()));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("it has a query or a fragment".to_owned()));
    }
    let path = format!("{}{ALERTS_PATH}", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

/// The address of an endpoint as it was given, without credentials.
fn named(url: &Url) -> String {
    let port = url.port().map_or(String::new(), |port| format!(":{port}"));
    let path = url.path().strip_suffix(ALERTS_PATH).unwrap_or_default();
    format!("{}://{}{port}{path}", url.scheme(), url.host_str().unwrap_or_default())
}

/// The way to one Alertmanager.
struct Delivery {
    client: Client,
    url: Url,
    name: String,
    outbox: Arc<Outbox>,
    stopped: watch::Receiver<bool>,
}

/// What became of a request.
enum Outcome {
    Taken,
    Refused(String),
    Failed(String),
}

impl Delivery {
    async fn run(mut self) {
        let mut pause = Duration::ZERO;
        let mut is_failing = false;
        loop {
            let stopping = *self.stopped.borrow();
            let batch = self.outbox.take();
            if batch.is_empty() {
                if stopping {
                    return;
                }
                // Both arms can be dropped: a notice that came is kept until it is taken, and the other only looks.
                tokio::select! {
                    () = self.outbox.filled.notified() => {}
                    _ = self.stopped.changed() => {}
                }
                continue;
            }
            let alerts: Vec<&PostableAlert> = batch.iter().map(|(_, alert)| alert).collect();
            let counters = &self.outbox.counters;
            match self.post(&alerts).await {
                Outcome::Taken => {
                    counters.sent.fetch_add(batch.len() as u64, Relaxed);
                    if std::mem::take(&mut is_failing) {
                        tracing::info!(alertmanager = self.name, "takes alerts again");
                    }
                    pause = Duration::ZERO;
                }
                Outcome::Refused(reason) => {
                    counters.failed_requests.fetch_add(1, Relaxed);
                    counters.refused.fetch_add(batch.len() as u64, Relaxed);
                    tracing::error!(alertmanager = self.name, alerts = batch.len(), reason, "refused alerts");
                }
                Outcome::Failed(reason) => {
                    counters.failed_requests.fetch_add(1, Relaxed);
                    // Once for each time that it goes away.
                    if !std::mem::replace(&mut is_failing, true) {
                        tracing::error!(
                            alertmanager = self.name,
                            reason,
                            "alerts cannot be delivered; it is tried again"
                        );
                    }
                    self.outbox.put_back(batch);
                    if stopping {
                        return;
                    }
                    pause = (pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
                    // Both arms can be dropped: a sleep has no effect, and the other only looks.
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        _ = self.stopped.changed() => {}
                    }
                }
            }
        }
    }

    async fn post(&self, alerts: &[&PostableAlert]) -> Outcome {
        let body = match serde_json::to_vec(alerts) {
            Ok(body) => body,
            Err(error) => return Outcome::Refused(format!("write JSON: {error}")),
        };
        let request = self.client.post(self.url.clone()).header("content-type", "application/json").body(body);
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Outcome::Failed(with_causes(&error.without_url())),
        };
        let status = response.status();
        if status.is_success() {
            return Outcome::Taken;
        }
        let reason = format!("{status}: {}", text_of(response).await);
        // Too many requests and a timeout say nothing about the alerts.
        let later = status.is_server_error()
            || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
            || status.is_redirection();
        if later { Outcome::Failed(reason) } else { Outcome::Refused(reason) }
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The beginning of an answer.
async fn text_of(mut response: reqwest::Response) -> String {
    let mut text = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        text.extend_from_slice(&chunk);
        if text.len() >= ANSWER_BYTES_MAX {
            text.truncate(ANSWER_BYTES_MAX);
            break;
        }
    }
    String::from_utf8_lossy(&text).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(name: usize, ends_at: &str) -> PostableAlert {
        PostableAlert {
            labels: Arc::default(),
            annotations: BTreeMap::new(),
            starts_at: String::new(),
            ends_at: ends_at.to_owned(),
            generator_url: None,
            fingerprint: format!("{name:05}").into(),
        }
    }

    #[test]
    fn an_outbox_holds_the_newest_of_each_alert_and_no_more_than_its_limit() {
        let outbox = Outbox::default();
        outbox.put(&[alert(2, "old"), alert(1, "old")]);
        let taken = outbox.take();
        outbox.put(&[alert(2, "new")]);
        outbox.put_back(taken);
        let names = |outbox: &Outbox| -> Vec<String> {
            outbox.take().into_iter().map(|(_, alert)| format!("{} {}", alert.fingerprint, alert.ends_at)).collect()
        };
        assert_eq!(names(&outbox), ["00001 old", "00002 new"]);

        let many: Vec<PostableAlert> = (0..OUTBOX_MAX + 5).map(|name| alert(name, "")).collect();
        outbox.put(&many);
        assert_eq!(outbox.counters.dropped.load(Relaxed), 5);
        assert_eq!(names(&outbox).len(), BATCH_MAX);
        assert_eq!(outbox.waiting().alerts.len(), OUTBOX_MAX - BATCH_MAX);
    }

    #[test]
    fn addresses_are_checked_and_shown_without_credentials() {
        let url = endpoint("https://user:secret@alerts.example:9443/prefix/").unwrap();
        assert_eq!(url.path(), "/prefix/api/v2/alerts");
        assert_eq!(named(&url), "https://alerts.example:9443/prefix");
        assert_eq!(named(&endpoint("http://alerts.example/").unwrap()), "http://alerts.example");
        for wrong in ["alerts:9093", "localhost", "ftp://x", "http://", "http://x/?a=b"] {
            assert!(endpoint(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_is_given_once() {
        let names = |addresses: &[&str]| {
            let addresses: Vec<String> = addresses.iter().map(|address| (*address).to_owned()).collect();
            Targets::parse(&addresses).map(|targets| targets.0.into_iter().map(|(name, _)| name).collect::<Vec<_>>())
        };
        let behind_one_host = ["http://proxy/one/", "http://proxy/two", "http://proxy"];
        assert_eq!(names(&behind_one_host).unwrap(), ["http://proxy/one", "http://proxy/two", "http://proxy"]);
        for again in ["http://proxy/one", "http://other:secret@proxy:80/one/"] {
            let error = names(&["http://proxy/one/", again]).unwrap_err().to_string();
            assert!(error.starts_with("the Alertmanager http://proxy/one is given twice"), "{error}");
        }
    }
}
