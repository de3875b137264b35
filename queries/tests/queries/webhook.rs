//! Notifications of Alertmanagers, over a lake that keeps what is appended, and that can be slow or full.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use serde_json::{Value, json};
use toolgauge_proto::api::IngestStatus;
use toolgauge_proto::lake::{AppendError, Feed, Lake, Txn, View};
use toolgauge_proto::table::Table;
use toolgauge_queries::webhook::{ALERTS_MAX, Taken, WAITING_MAX, Webhook, WebhookError};

use crate::support::{MemoryLake, NOW, Still, until};

/// What is appended stays.
#[derive(Debug)]
struct Keeping {
    inner: Arc<MemoryLake>,
    rows: Mutex<Vec<RecordBatch>>,
    version: Mutex<Option<i64>>,
    full: AtomicBool,
    /// While it is true, appends wait.
    held: Mutex<bool>,
    released: Condvar,
}

impl Keeping {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryLake::of_calls(&[], &[]),
            rows: Mutex::default(),
            version: Mutex::default(),
            full: AtomicBool::new(false),
            held: Mutex::new(false),
            released: Condvar::new(),
        })
    }

    fn hold(&self, held: bool) {
        *self.held.lock().unwrap() = held;
        self.released.notify_all();
    }

    /// A column of text of all rows.
    fn texts(&self, column: &str) -> Vec<Option<String>> {
        let rows = self.rows.lock().unwrap();
        let texts = rows.iter().flat_map(|batch| {
            let column = batch.column_by_name(column).unwrap().as_string::<i32>().clone();
            column.iter().map(|text| text.map(str::to_owned)).collect::<Vec<_>>()
        });
        texts.collect()
    }

    fn times(&self, column: &str) -> Vec<Option<i64>> {
        let rows = self.rows.lock().unwrap();
        let times = rows.iter().flat_map(|batch| {
            let column = batch.column_by_name(column).unwrap().as_primitive::<TimestampMicrosecondType>().clone();
            (0..column.len()).map(|row| column.is_valid(row).then(|| column.value(row))).collect::<Vec<_>>()
        });
        times.collect()
    }
}

impl Lake for Keeping {
    fn view(&self) -> Arc<View> {
        self.inner.view()
    }

    fn status(&self) -> IngestStatus {
        self.inner.status()
    }

    fn writer(&self) -> String {
        self.inner.writer()
    }

    fn append(&self, table: Table, rows: Vec<RecordBatch>, txn: Txn) -> Result<bool, AppendError> {
        let mut held = self.held.lock().unwrap();
        while *held {
            held = self.released.wait(held).unwrap();
        }
        if self.full.load(Ordering::SeqCst) {
            return Err(AppendError::NoRoom { table });
        }
        assert_eq!((table, txn.app_id.as_str()), (Table::Alerts, "writer/alerts-webhook"));
        let mut version = self.version.lock().unwrap();
        assert!(version.is_none_or(|version| txn.version > version), "{version:?} {txn:?}");
        *version = Some(txn.version);
        self.rows.lock().unwrap().extend(rows);
        Ok(true)
    }

    fn committed_version(&self, _: Table, _: &str) -> Result<Option<i64>, AppendError> {
        Ok(*self.version.lock().unwrap())
    }

    fn feed(&self) -> Box<dyn Feed> {
        self.inner.feed()
    }
}

fn alert(name: &str, status: &str) -> Value {
    let ends_at = if status == "firing" { "0001-01-01T00:00:00Z" } else { "2026-01-01T00:05:00.5+01:00" };
    json!({
        "status": status,
        "labels": {"alertname": name, "service": "shop", "severity": "page", "instance": "x"},
        "annotations": {"summary": "it is down"},
        "startsAt": "2026-01-01T00:00:00Z",
        "endsAt": ends_at,
        "generatorURL": "http://prometheus/graph",
        "fingerprint": "00c0ffee00c0ffee",
        "a_new_field": {"of": ["alerts"]},
    })
}

/// A notification as Alertmanager 0.34 writes it.
fn notification(alerts: &[Value]) -> Value {
    json!({
        "version": "4",
        "groupKey": "{}:{alertname=\"Down\"}",
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "toolgauge",
        "groupLabels": {"alertname": "Down"},
        "commonLabels": {"alertname": "Down"},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager:9093",
        "notification_reason": "first notification",
        "routeLabels": {"team": "a"},
        "alerts": alerts,
    })
}

fn taken(received: u64, kept: u64, duplicates: u64) -> Taken {
    Taken { received, kept, duplicates, refused: Vec::new() }
}

async fn post(webhook: &Webhook, body: &Value) -> Result<Taken, WebhookError> {
    webhook.take(body.to_string().as_bytes()).await
}

#[tokio::test]
async fn a_notification_is_kept_with_all_that_it_says() {
    let lake = Keeping::new();
    let webhook = Webhook::start(Arc::clone(&lake) as Arc<dyn Lake>, Arc::new(Still)).unwrap();
    let mut body = notification(&[alert("Down", "firing"), alert("Gone", "resolved")]);
    body["truncatedAlerts"] = json!(7);
    assert_eq!(post(&webhook, &body).await, Ok(taken(2, 2, 0)));
    let some = |texts: &[&str]| texts.iter().map(|text| Some((*text).to_owned())).collect::<Vec<_>>();
    assert_eq!(lake.texts("source"), some(&["alertmanager", "alertmanager"]));
    assert_eq!(lake.texts("alertname"), some(&["Down", "Gone"]));
    assert_eq!(lake.texts("state"), some(&["firing", "resolved"]));
    assert_eq!(lake.texts("service"), some(&["shop", "shop"]));
    assert_eq!(lake.texts("slo"), [None, None]);
    assert_eq!(lake.texts("previous_state"), [None, None]);
    assert_eq!(lake.texts("reason"), some(&["first notification", "first notification"]));
    assert_eq!(lake.texts("fingerprint"), some(&["00c0ffee00c0ffee", "00c0ffee00c0ffee"]));
    assert_eq!(lake.texts("group"), some(&[r#"{"alertname":"Down"}"#, r#"{"alertname":"Down"}"#]));
    assert_eq!(lake.times("time"), [Some(NOW.0), Some(NOW.0)]);
    let start = 1_767_225_600_000_000;
    assert_eq!(lake.times("starts_at"), [Some(start), Some(start)]);
    // An hour east of Greenwich; what fires has no end.
    assert_eq!(lake.times("ends_at"), [None, Some(start + 300_500_000 - 3_600_000_000)]);
    let annotations: Value = serde_json::from_str(lake.texts("annotations")[0].as_deref().unwrap()).unwrap();
    assert_eq!(
        annotations,
        json!({
            "alertmanager_external_url": "http://alertmanager:9093",
            "alertmanager_generator_url": "http://prometheus/graph",
            "alertmanager_group_key": "{}:{alertname=\"Down\"}",
            "alertmanager_receiver": "toolgauge",
            "alertmanager_truncated_alerts": "7",
            "summary": "it is down",
        })
    );
}

#[tokio::test]
async fn the_same_is_kept_once_and_what_is_new_is_kept() {
    let lake = Keeping::new();
    let webhook = Webhook::start(Arc::clone(&lake) as Arc<dyn Lake>, Arc::new(Still)).unwrap();
    let first = notification(&[alert("Down", "firing")]);
    assert_eq!(post(&webhook, &first).await, Ok(taken(1, 1, 0)));
    assert_eq!(post(&webhook, &first).await, Ok(taken(1, 0, 1)), "another one of the cluster, or its answer was lost");
    assert_eq!(
        post(&webhook, &notification(&[alert("Up", "firing"), alert("Up", "firing")])).await,
        Ok(taken(2, 1, 1))
    );
    let mut repeat = first.clone();
    repeat["notification_reason"] = json!("repeat interval elapsed");
    assert_eq!(post(&webhook, &repeat).await, Ok(taken(1, 1, 0)));
    let mut elsewhere = first.clone();
    elsewhere["groupKey"] = json!("{}/{team=\"b\"}:{}");
    assert_eq!(post(&webhook, &elsewhere).await, Ok(taken(1, 1, 0)), "the same alert in another group");
    // Resolved without having fired.
    assert_eq!(post(&webhook, &notification(&[alert("Never", "resolved")])).await, Ok(taken(1, 1, 0)));
    assert_eq!(post(&webhook, &notification(&[])).await, Ok(taken(0, 0, 0)));
    // Older Alertmanagers say less.
    let old = json!({"version": "4", "alerts": [{"status": "firing", "labels": {"severity": "page"}}]});
    assert_eq!(post(&webhook, &old).await, Ok(taken(1, 1, 0)));
    assert_eq!(lake.texts("alertname").last().unwrap().as_deref(), Some(""));
    assert_eq!(lake.texts("fingerprint").last().unwrap().as_ref().unwrap().len(), 16);
    assert_eq!((webhook.counters().kept.load(Ordering::Relaxed), lake.texts("state").len()), (6, 6));
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_with_the_reason_and_the_rest_kept() {
    let lake = Keeping::new();
    let webhook = Webhook::start(Arc::clone(&lake) as Arc<dyn Lake>, Arc::new(Still)).unwrap();
    let refused = async |body: &str| match webhook.take(body.as_bytes()).await {
        Err(WebhookError::Invalid(reason)) => reason,
        other => panic!("{body}: {other:?}"),
    };
    assert!(
        refused("{")
            .await
            .starts_with("this is no notification of an Alertmanager (leave `payload` out of the receiver)")
    );
    assert!(refused(r#"{"text": "a custom payload"}"#).await.contains("missing field `version`"));
    assert_eq!(refused(r#"{"version": "3", "alerts": []}"#).await, r#""version" is "3", only "4" is known"#);
    let mut wrong = alert("Down", "firing");
    wrong["status"] = json!("suppressed");
    let only_wrong = notification(&[wrong.clone()]).to_string();
    assert_eq!(
        refused(&only_wrong).await,
        r#"none of its alerts can be read: alerts[0]: "status" must be firing or resolved, got "suppressed""#
    );
    let mut when = alert("Down", "firing");
    when["startsAt"] = json!("yesterday");
    let body = notification(&[wrong, alert("Up", "firing"), when, json!(5)]);
    let taken = post(&webhook, &body).await.unwrap();
    assert_eq!((taken.received, taken.kept, taken.refused.len()), (4, 1, 3));
    assert!(taken.refused[1].starts_with(r#"alerts[2]: "startsAt" must be an instant such as"#), "{taken:?}");
    let many: Vec<Value> = (0..=ALERTS_MAX).map(|_| json!({})).collect();
    assert_eq!(post(&webhook, &notification(&many)).await, Err(WebhookError::TooMany(ALERTS_MAX + 1)));
    assert_eq!(lake.texts("alertname").len(), 1);
}

/// Scenario: the disk is full, then slow while more notifications come than may wait. Guarantees: what is not durable is not answered with success, and
/// is taken when it comes again; what finds no place is told so at once.
#[tokio::test(flavor = "multi_thread")]
async fn overload_is_told_and_nothing_is_lost_that_was_taken() {
    let lake = Keeping::new();
    let webhook = Arc::new(Webhook::start(Arc::clone(&lake) as Arc<dyn Lake>, Arc::new(Still)).unwrap());
    lake.full.store(true, Ordering::SeqCst);
    let body = notification(&[alert("Down", "firing")]);
    assert_eq!(post(&webhook, &body).await, Err(WebhookError::Unavailable("the disk has no room")));
    lake.full.store(false, Ordering::SeqCst);
    assert_eq!(post(&webhook, &body).await, Ok(taken(1, 1, 0)));

    lake.hold(true);
    let mut tasks = Vec::new();
    for n in 0..3 * WAITING_MAX {
        let (webhook, body) = (Arc::clone(&webhook), notification(&[alert(&format!("n{n}"), "firing")]));
        tasks.push(tokio::spawn(async move { post(&webhook, &body).await }));
    }
    let counted = || webhook.counters().unavailable.load(Ordering::Relaxed) as usize;
    // One batch is under way, of at most what may wait and one, and as many wait.
    until("those without a place have their answer", || counted() > 3 * WAITING_MAX - 2 * WAITING_MAX - 2).await;
    lake.hold(false);
    let (mut kept, mut sent_away) = (0, 0);
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => kept += 1,
            Err(WebhookError::Unavailable("too many notifications wait for the disk")) => sent_away += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((kept + sent_away, lake.texts("state").len()), (3 * WAITING_MAX, kept + 1));
}
