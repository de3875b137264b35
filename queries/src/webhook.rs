//! Notifications from Alertmanagers: what people were told, kept in the table `alerts` with `source = 'alertmanager'`.
//!
//! # Limits and guarantees
//! * [`Webhook::take`] answers when the rows are durable. An Alertmanager tries again what is answered 5xx, and never what is answered 4xx; so
//!   overload is 503, and only what can never be taken is 4xx.
//! * The same notification of the same alert is kept once, if it comes again within [`REMEMBERED_FOR`]: Alertmanagers of a cluster may notify twice, and an
//!   answer may be lost. After a restart, or more than [`REMEMBERED_MAX`] others, it is kept again. Repeats after hours are notifications of their own.
//! * At most [`ALERTS_MAX`] alerts in a notification and [`WAITING_MAX`] notifications that wait. Keys that are not known are left alone. What of a
//!   notification cannot be read is refused on its own, and the rest kept.
//!
//! # How it works
//! Requests are read where they come in. One thread takes all that wait, appends their rows at once, and answers them.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::time::Duration;

use arrow::array::{
    ArrayRef, Date32Array, Decimal128Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::error::ArrowError;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use toolgauge_proto::lake::{AppendError, Lake, Txn};
use toolgauge_proto::table::Table;
use toolgauge_proto::time::{Clock, UnixMicros};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// Most alerts of one notification.
pub const ALERTS_MAX: usize = 10_000;
/// Most notifications that wait for the disk.
pub const WAITING_MAX: usize = 64;
/// How long the same notification is not kept twice.
pub const REMEMBERED_FOR: Duration = Duration::from_secs(300);
/// How many alerts of notifications are remembered for that.
pub const REMEMBERED_MAX: usize = 100_000;
/// The version of the payload that is read.
pub const VERSION: &str = "4";

/// What an Alertmanager sends; keys that are not named here are left alone.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    version: String,
    #[serde(default)]
    group_key: String,
    #[serde(default)]
    truncated_alerts: u64,
    #[serde(default)]
    receiver: String,
    #[serde(default)]
    group_labels: BTreeMap<String, String>,
    #[serde(default, rename = "externalURL")]
    external_url: String,
    #[serde(default, rename = "notification_reason")]
    notification_reason: Option<String>,
    alerts: Vec<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PayloadAlert {
    status: String,
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    starts_at: Option<String>,
    #[serde(default)]
    ends_at: Option<String>,
    #[serde(default, rename = "generatorURL")]
    generator_url: String,
    #[serde(default)]
    fingerprint: String,
}

/// An alert of a notification, as it is kept.
#[derive(Debug, Clone)]
struct Notified {
    time: UnixMicros,
    position: i64,
    is_firing: bool,
    starts_at: Option<UnixMicros>,
    ends_at: Option<UnixMicros>,
    fingerprint: String,
    group: String,
    reason: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    /// What makes it the same as another one.
    digest: u128,
}

/// What became of a notification.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Taken {
    /// Alerts in it.
    pub received: u64,
    /// Alerts that are kept.
    pub kept: u64,
    /// Alerts that were there already.
    pub duplicates: u64,
    /// Alerts that cannot be read, each with the reason; at most ten are told.
    pub refused: Vec<String>,
}

/// Why a notification was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// It can never be taken.
    #[error("{0}")]
    Invalid(String),
    /// It has too many alerts.
    #[error("the notification has {0} alerts, at most {ALERTS_MAX} are taken (set `max_alerts` in the receiver)")]
    TooMany(usize),
    /// It may be sent again.
    #[error("{0}; send it again")]
    Unavailable(&'static str),
}

/// What is counted of notifications.
#[derive(Debug, Default)]
pub struct WebhookCounters {
    /// Notifications.
    pub notifications: AtomicU64,
    /// Alerts that were kept.
    pub kept: AtomicU64,
    /// Alerts that were there already.
    pub duplicates: AtomicU64,
    /// Alerts that cannot be read, and notifications as a whole that cannot.
    pub refused: AtomicU64,
    /// Notifications that were to be sent again.
    pub unavailable: AtomicU64,
}

struct Job {
    alerts: Vec<Notified>,
    answer: oneshot::Sender<Result<(u64, u64), WebhookError>>,
}

/// Takes notifications.
#[derive(Debug)]
pub struct Webhook {
    jobs: SyncSender<Job>,
    lake: Arc<dyn Lake>,
    clock: Arc<dyn Clock>,
    counters: WebhookCounters,
}

impl Webhook {
    /// Starts its thread, which ends when this is dropped.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(lake: Arc<dyn Lake>, clock: Arc<dyn Clock>) -> std::io::Result<Self> {
        let (jobs, to_do) = mpsc::sync_channel(WAITING_MAX);
        let work = Arc::clone(&lake);
        std::thread::Builder::new().name("webhook".into()).spawn(move || run(&*work, &to_do))?;
        Ok(Self { jobs, lake, clock, counters: WebhookCounters::default() })
    }

    /// The counters.
    #[must_use]
    pub fn counters(&self) -> &WebhookCounters {
        &self.counters
    }

    /// Takes the body of a notification; answers when it is durable.
    ///
    /// # Errors
    /// See [`WebhookError`].
    pub async fn take(&self, body: &[u8]) -> Result<Taken, WebhookError> {
        let result = self.try_take(body).await;
        let counters = &self.counters;
        counters.notifications.fetch_add(1, Relaxed);
        match &result {
            Ok(taken) => {
                counters.kept.fetch_add(taken.kept, Relaxed);
                counters.duplicates.fetch_add(taken.duplicates, Relaxed);
                counters.refused.fetch_add(taken.received - taken.kept - taken.duplicates, Relaxed);
            }
            Err(WebhookError::Unavailable(_)) => {
                counters.unavailable.fetch_add(1, Relaxed);
            }
            Err(_) => {
                counters.refused.fetch_add(1, Relaxed);
            }
        }
        result
    }

    async fn try_take(&self, body: &[u8]) -> Result<Taken, WebhookError> {
        let (alerts, refused) = read(body, self.clock.now(), self.lake.view().position.as_i64())?;
        let mut taken = Taken { received: (alerts.len() + refused.len()) as u64, ..Taken::default() };
        if alerts.is_empty() && !refused.is_empty() {
            return Err(WebhookError::Invalid(format!("none of its alerts can be read: {}", refused[0])));
        }
        if !alerts.is_empty() {
            let (answer, answered) = oneshot::channel();
            self.jobs.try_send(Job { alerts, answer }).map_err(|error| match error {
                TrySendError::Full(_) => WebhookError::Unavailable("too many notifications wait for the disk"),
                TrySendError::Disconnected(_) => WebhookError::Unavailable("the server is stopping"),
            })?;
            let stopping = |_| WebhookError::Unavailable("the server is stopping");
            (taken.kept, taken.duplicates) = answered.await.map_err(stopping)??;
        }
        taken.refused = refused.into_iter().take(10).collect();
        Ok(taken)
    }
}

/// The alerts of a notification, and why some of them cannot be read.
fn read(body: &[u8], time: UnixMicros, position: i64) -> Result<(Vec<Notified>, Vec<String>), WebhookError> {
    let payload: Payload = serde_json::from_slice(body).map_err(|error| {
        let reason =
            format!("this is no notification of an Alertmanager (leave `payload` out of the receiver): {error}");
        WebhookError::Invalid(reason)
    })?;
    if payload.version != VERSION {
        let reason = format!("\"version\" is {:?}, only \"{VERSION}\" is known", payload.version);
        return Err(WebhookError::Invalid(reason));
    }
    if payload.alerts.len() > ALERTS_MAX {
        return Err(WebhookError::TooMany(payload.alerts.len()));
    }
    let group = serde_json::to_string(&payload.group_labels).unwrap_or_else(|_| "{}".to_owned());
    let (mut alerts, mut refused) = (Vec::with_capacity(payload.alerts.len()), Vec::new());
    for (index, alert) in payload.alerts.iter().enumerate() {
        match notified(&payload, alert, &group, time, position) {
            Ok(alert) => alerts.push(alert),
            Err(reason) => refused.push(format!("alerts[{index}]: {reason}")),
        }
    }
    Ok((alerts, refused))
}

fn notified(
    payload: &Payload,
    alert: &serde_json::Value,
    group: &str,
    time: UnixMicros,
    position: i64,
) -> Result<Notified, String> {
    let alert = PayloadAlert::deserialize(alert).map_err(|error| error.to_string())?;
    let is_firing = match alert.status.as_str() {
        "firing" => true,
        "resolved" => false,
        other => return Err(format!("\"status\" must be firing or resolved, got {other:?}")),
    };
    let starts_at = instant("startsAt", alert.starts_at.as_deref())?;
    // Of one that fires, it says at most when the sender will be taken for dead.
    let ends_at = instant("endsAt", alert.ends_at.as_deref())?.filter(|_| !is_firing);
    let own: String = alert.labels.iter().flat_map(|(name, value)| [name, "\0", value, "\0"]).collect();
    let fingerprint = match alert.fingerprint.as_str() {
        "" => format!("{:016x}", xxh3_64(own.as_bytes())),
        given => given.chars().take(64).collect(),
    };
    let about = [
        payload.receiver.as_str(),
        &payload.group_key,
        payload.notification_reason.as_deref().unwrap_or_default(),
        &alert.status,
        alert.starts_at.as_deref().unwrap_or_default(),
        alert.ends_at.as_deref().unwrap_or_default(),
        &own,
        &serde_json::to_string(&alert.annotations).unwrap_or_default(),
    ];
    let digest = xxh3_128(about.join("\u{1}").as_bytes());
    let mut annotations = alert.annotations;
    let truncated = if payload.truncated_alerts > 0 { payload.truncated_alerts.to_string() } else { String::new() };
    for (name, value) in [
        ("alertmanager_external_url", &payload.external_url),
        ("alertmanager_generator_url", &alert.generator_url),
        ("alertmanager_group_key", &payload.group_key),
        ("alertmanager_receiver", &payload.receiver),
        ("alertmanager_truncated_alerts", &truncated),
    ] {
        if !value.is_empty() {
            annotations.insert(name.to_owned(), value.clone());
        }
    }
    Ok(Notified {
        time,
        position,
        is_firing,
        starts_at,
        ends_at,
        fingerprint,
        group: group.to_owned(),
        reason: payload.notification_reason.clone(),
        labels: alert.labels,
        annotations,
        digest,
    })
}

/// An instant, RFC 3339; the year 1 is how Go writes none.
fn instant(name: &str, text: Option<&str>) -> Result<Option<UnixMicros>, String> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let time = chrono::DateTime::parse_from_rfc3339(text).map_err(|error| {
        format!("\"{name}\" must be an instant such as 2026-01-01T00:00:00Z, got {text:?}: {error}")
    })?;
    let micros = time.timestamp_micros();
    Ok((micros > 0).then_some(UnixMicros(micros)))
}

/// Digests of what was kept lately, oldest first.
#[derive(Debug, Default)]
struct Remembered {
    order: VecDeque<(UnixMicros, u128)>,
    digests: HashSet<u128>,
}

impl Remembered {
    fn forget(&mut self, now: UnixMicros) {
        let limit = REMEMBERED_FOR.as_micros() as i64;
        while let Some((time, digest)) = self.order.front().copied() {
            if now.0.saturating_sub(time.0) < limit && self.order.len() <= REMEMBERED_MAX {
                return;
            }
            self.order.pop_front();
            self.digests.remove(&digest);
        }
    }

    fn keep(&mut self, time: UnixMicros, digest: u128) {
        if self.digests.insert(digest) {
            self.order.push_back((time, digest));
        }
    }
}

fn run(lake: &dyn Lake, jobs: &Receiver<Job>) {
    let app_id = format!("{}/alerts-webhook", lake.writer());
    let mut version = None;
    let mut remembered = Remembered::default();
    while let Ok(first) = jobs.recv() {
        let batch: Vec<Job> = std::iter::once(first).chain(jobs.try_iter().take(WAITING_MAX)).collect();
        let mut rows: Vec<Notified> = Vec::new();
        let mut new: HashSet<u128> = HashSet::new();
        let mut answers = Vec::with_capacity(batch.len());
        for job in batch {
            let before = rows.len();
            let received = job.alerts.len();
            for alert in job.alerts {
                remembered.forget(alert.time);
                if !remembered.digests.contains(&alert.digest) && new.insert(alert.digest) {
                    rows.push(alert);
                }
            }
            let kept = rows.len() - before;
            answers.push((job.answer, (kept as u64, (received - kept) as u64)));
        }
        let appended = append(lake, &app_id, &mut version, &rows);
        if appended.is_ok() {
            rows.iter().for_each(|alert| remembered.keep(alert.time, alert.digest));
        }
        for (answer, counts) in answers {
            // Whoever asked may be gone.
            drop(answer.send(appended.clone().map(|()| counts)));
        }
    }
}

fn append(lake: &dyn Lake, app_id: &str, version: &mut Option<i64>, rows: &[Notified]) -> Result<(), WebhookError> {
    if rows.is_empty() {
        return Ok(());
    }
    let failed = |error: AppendError| {
        tracing::warn!(%error, "keep a notification of an Alertmanager");
        WebhookError::Unavailable(match error {
            AppendError::NoRoom { .. } => "the disk has no room",
            AppendError::Stopped { .. } => "the server is stopping",
            AppendError::Invalid { .. } => "it cannot be kept for now",
        })
    };
    let last = match *version {
        Some(version) => version,
        None => lake.committed_version(Table::Alerts, app_id).map_err(failed)?.unwrap_or(-1),
    };
    let batch = batch(rows).map_err(|error| {
        tracing::error!(%error, "build rows of alerts");
        WebhookError::Unavailable("it cannot be kept for now")
    })?;
    let txn = Txn { app_id: app_id.to_owned(), version: last + 1 };
    // Whether it was written is open when the answer is an error; then the version is asked for again.
    *version = None;
    lake.append(Table::Alerts, vec![batch], txn).map_err(failed)?;
    *version = Some(last + 1);
    Ok(())
}

fn batch(rows: &[Notified]) -> Result<RecordBatch, ArrowError> {
    let columns = Table::Alerts.columns().iter().map(|column| {
        let text = |value: &dyn Fn(&Notified) -> Option<String>| -> ArrayRef {
            Arc::new(rows.iter().map(value).collect::<StringArray>())
        };
        let label = |name: &'static str| text(&|row| row.labels.get(name).cloned());
        let time = |value: &dyn Fn(&Notified) -> Option<UnixMicros>| -> ArrayRef {
            let times = rows.iter().map(|row| value(row).map(|time| time.0));
            Arc::new(times.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
        };
        let json = |map: &BTreeMap<String, String>| serde_json::to_string(map).ok();
        Ok(match column.name {
            "date" => Arc::new(rows.iter().map(|row| Some(row.time.date32())).collect::<Date32Array>()),
            "time" => time(&|row| Some(row.time)),
            "source" => text(&|_| Some("alertmanager".to_owned())),
            "alertname" => text(&|row| Some(row.labels.get("alertname").cloned().unwrap_or_default())),
            "group" => text(&|row| Some(row.group.clone())),
            "state" => text(&|row| Some(if row.is_firing { "firing" } else { "resolved" }.to_owned())),
            "starts_at" => time(&|row| row.starts_at),
            "ends_at" => time(&|row| row.ends_at),
            "position" => Arc::new(rows.iter().map(|row| Some(row.position)).collect::<Int64Array>()),
            "reason" => text(&|row| row.reason.clone()),
            "fingerprint" => text(&|row| Some(row.fingerprint.clone())),
            "labels" => text(&|row| json(&row.labels)),
            "annotations" => text(&|row| json(&row.annotations)),
            "service" => label("service"),
            "slo" => label("slo"),
            "tool" => label("tool"),
            "severity" => label("severity"),
            "burn_tier" => label("burn_tier"),
            "tenant" => label("tenant"),
            "previous_state" | "evaluation" => text(&|_| None),
            "long_burn_rate" | "short_burn_rate" | "threshold" => {
                let values = Decimal128Array::from(vec![None::<i128>; rows.len()]);
                Arc::new(values.with_precision_and_scale(18, 9)?)
            }
            "long_window_s" | "short_window_s" | "long_good" | "long_bad" | "short_good" | "short_bad" => {
                Arc::new(Int64Array::from(vec![None::<i64>; rows.len()]))
            }
            other => return Err(ArrowError::SchemaError(format!("alerts has a column {other} that nobody fills"))),
        })
    });
    RecordBatch::try_new(Table::Alerts.schema(), columns.collect::<Result<_, ArrowError>>()?)
}
