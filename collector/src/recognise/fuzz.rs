//! Bytes that nobody would send: no panic, no memory without bound, and what is taken can be counted.
//!
//! Three targets, each a test, so that they run beside each other: reading (`view`), recognising and explaining, and
//! OTLP/JSON. They begin with real captures and change them. Seeded, so that a failure can be repeated:
//! `TOOLGAUGE_TEST_FUZZ_SEED` makes other bytes, `TOOLGAUGE_TEST_FUZZ_ROUNDS` more of them, and with
//! `TOOLGAUGE_TEST_FUZZ_SECONDS` each target goes on for at least so long.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use toolgauge_proto::otlp::{AnyValueView, KeyValueView, LogsView, TracesView};

use super::arrangements::{RECEIVED_S, Random, captures};
use super::*;
use crate::export::ExportSignal;
use crate::live::{FrameBody, LiveFrame, LiveRows, LiveSettings};
use crate::receiver::json_to_protobuf;

const ROUNDS: u64 = 3_000;
/// Bytes of memory that a row and the texts of its request may take: far more than either needs.
const ROW_BYTES_MAX: u64 = 16 * 1_024;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// How long a target goes on, and with which bytes.
struct Budget {
    began: Instant,
    rounds: u64,
    time: Duration,
    seed: u64,
    round: u64,
}

impl Budget {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            rounds: setting("TOOLGAUGE_TEST_FUZZ_ROUNDS").unwrap_or(ROUNDS),
            time: Duration::from_secs(setting("TOOLGAUGE_TEST_FUZZ_SECONDS").unwrap_or(0)),
            seed: setting("TOOLGAUGE_TEST_FUZZ_SEED").unwrap_or(1).max(1),
            round: 0,
        }
    }

    /// What to say if the round fails.
    fn at(&self) -> String {
        format!("seed {}, round {}", self.seed, self.round)
    }

    /// Whether there is another round.
    fn next(&mut self) -> bool {
        self.round += 1;
        self.round <= self.rounds || self.began.elapsed() < self.time
    }
}

/// The captures in this encoding.
fn bodies(extension: &str) -> Vec<Vec<u8>> {
    let files = captures().into_iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let mut paths: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let name = |path: &&std::path::PathBuf| {
        let path = Path::new(path);
        path.extension().is_some_and(|found| found == extension)
            && path.file_name().is_some_and(|name| name != "manifest.json")
    };
    paths.iter().filter(name).map(|path| std::fs::read(path).unwrap()).collect()
}

/// A part of a body with a few bytes flipped, left out, put in, or taken from another one.
fn mutate(bodies: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut body = bodies[random.below(bodies.len())].clone();
    if random.below(4) == 0 {
        body.truncate(random.below(body.len() + 1));
    }
    for _ in 0..1 + random.below(8) {
        if body.is_empty() {
            break;
        }
        let at = random.below(body.len());
        match random.below(5) {
            0 => body[at] ^= 1 << random.below(8),
            1 => body[at] = u8::try_from(random.below(256)).unwrap(),
            2 => drop(body.remove(at)),
            3 => body.insert(at, u8::try_from(random.below(256)).unwrap()),
            _ => {
                let other = &bodies[random.below(bodies.len())];
                let from = random.below(other.len());
                let part = &other[from..other.len().min(from + random.below(64))];
                body.splice(at..at, part.iter().copied());
            }
        }
    }
    body
}

/// Looks at every value, however deep; gives how many there are.
fn count_values(value: &AnyValueView<'_>) -> u64 {
    match value {
        AnyValueView::Array(values) => values.iter().map(|value| count_values(&value)).sum::<u64>() + 1,
        AnyValueView::KeyValueList(list) => list.iter().map(|pair| count_values(&pair.value)).sum::<u64>() + 1,
        _ => 1,
    }
}

fn count<'a>(attributes: impl Iterator<Item = KeyValueView<'a>>) -> u64 {
    attributes.map(|attribute| count_values(&attribute.value)).sum()
}

#[test]
fn no_bytes_make_reading_fail() {
    let (mut budget, bodies) = (Budget::new(), bodies("pb"));
    let mut random = Random(budget.seed);
    let mut taken = 0_u64;
    while budget.next() {
        let body = mutate(&bodies, &mut random);
        let mut values = 0;
        if let Ok(view) = TracesView::new(&body) {
            taken += 1;
            for resource in view.resource_spans() {
                values += count(resource.resource().attributes());
                for scope in resource.scope_spans() {
                    values += count(scope.scope().attributes());
                    for span in scope.spans() {
                        values += count(span.attributes());
                        values += span.events().map(|event| count(event.attributes())).sum::<u64>();
                    }
                }
            }
        }
        if let Ok(view) = LogsView::new(&body) {
            taken += 1;
            for resource in view.resource_logs() {
                values += count(resource.resource().attributes());
                for scope in resource.scope_logs() {
                    values += count(scope.scope().attributes());
                    values +=
                        scope.log_records().map(|log| count(log.attributes()) + count_values(&log.body)).sum::<u64>();
                }
            }
        }
        // A value takes a byte at least, and may be looked at as traces and as logs.
        assert!(values <= 2 * body.len() as u64, "{}: {values} values in {} bytes", budget.at(), body.len());
    }
    assert!(budget.round < ROUNDS || taken > budget.round / 40, "too few of the bodies were taken: {taken}");
}

#[test]
fn no_bytes_make_recognising_or_explaining_fail() {
    let (mut budget, bodies) = (Budget::new(), bodies("pb"));
    let settings = RecogniseSettings { retention_us: i64::MAX / 1_000, ..RecogniseSettings::default() };
    let recogniser = Arc::new(Recogniser::new(Conventions::built_in().unwrap(), settings).unwrap());
    let mut random = Random(budget.seed);
    let mut taken = 0_u64;
    while budget.next() {
        let body = mutate(&bodies, &mut random);
        let as_traces = TracesView::new(&body).is_ok();
        let as_logs = LogsView::new(&body).is_ok();
        assert_eq!(recogniser.explain_traces(&body).is_ok(), as_traces, "{}", budget.at());
        assert_eq!(recogniser.explain_logs(&body).is_ok(), as_logs, "{}", budget.at());
        let mut live = LiveRows::new(LiveSettings::default(), Arc::clone(&recogniser));
        let empty = live.live_bytes();
        let bodies = [as_traces.then_some(FrameBody::Traces(&body)), as_logs.then_some(FrameBody::Logs(&body))];
        for (body, position) in bodies.into_iter().flatten().zip(1..) {
            let info = FrameInfo {
                position: WalPosition(position),
                received: UnixMicros(RECEIVED_S * 1_000_000),
                tenant: "default",
            };
            live.apply(LiveFrame { info, body }).unwrap();
        }
        let view = live.view().unwrap();
        let rows: usize = view.calls.iter().map(arrow::record_batch::RecordBatch::num_rows).sum();
        assert_eq!(rows as u64, live.live_rows(), "{}", budget.at());
        let bytes = live.live_bytes().saturating_sub(empty);
        assert!(bytes <= ROW_BYTES_MAX * (rows as u64 + 64), "{}: {bytes} bytes for {rows} rows", budget.at());
        taken += rows as u64;
    }
    assert!(budget.round < ROUNDS || taken > budget.round / 4, "too few of the bodies were taken: {taken}");
}

#[test]
fn no_text_makes_reading_json_fail() {
    let (mut budget, bodies) = (Budget::new(), bodies("json"));
    let mut random = Random(budget.seed);
    let mut taken = 0_u64;
    while budget.next() {
        let mut text = mutate(&bodies, &mut random);
        // What changes a text but leaves it JSON: other digits, letters, signs.
        for _ in 0..random.below(6) {
            let at = random.below(text.len().max(1));
            if let Some(byte) = text.get_mut(at).filter(|byte| byte.is_ascii_alphanumeric()) {
                *byte = b"019ntfeE-azAZ"[random.below(13)];
            }
        }
        for signal in [ExportSignal::Traces, ExportSignal::Logs] {
            let Ok(body) = json_to_protobuf(&text, Some(signal)) else { continue };
            taken += 1;
            let read = match signal {
                ExportSignal::Traces => TracesView::new(&body).is_ok(),
                _ => LogsView::new(&body).is_ok(),
            };
            assert!(read, "{}: what became of the JSON cannot be read", budget.at());
            assert!(body.len() <= 8 * text.len() + 64, "{}: {} bytes of {}", budget.at(), body.len(), text.len());
        }
    }
    assert!(budget.round < ROUNDS || taken > budget.round / 50, "too few of the texts were taken: {taken}");
}

#[test]
fn members_of_json_are_those_that_a_parser_finds() {
    let texts = [
        r#"{"a":{"b":[1,2,{"c":"d"}],"e":null},"tags":["x","retry:attempt:2"],"f":-1.25e-3,"g":"q\"\\"}"#,
        r#"{"inputs": {"city": "Oslo", "n": [ ] }, "input_str": "{'city': 'Oslo'}", "metadata": {}}"#,
    ];
    let keys = ["a", "b", "e", "tags", "f", "g", "inputs", "input_str", "metadata", "city", "n"];
    let mut random = Random(setting("TOOLGAUGE_TEST_FUZZ_SEED").unwrap_or(1).max(1));
    let mut valid = 0;
    for _ in 0..setting("TOOLGAUGE_TEST_FUZZ_ROUNDS").unwrap_or(ROUNDS) * 10 {
        let mut text = texts[random.below(texts.len())].as_bytes().to_vec();
        for _ in 0..random.below(3) {
            let at = random.below(text.len());
            let other = text[random.below(text.len())];
            match random.below(3) {
                0 => text[at] = other,
                1 => text.insert(at, other),
                _ => drop(text.remove(at)),
            }
        }
        let path: Vec<Vec<u8>> =
            (0..1 + random.below(2)).map(|_| keys[random.below(keys.len())].as_bytes().to_vec()).collect();
        let found = json::member(&text, &path).map(<[u8]>::to_vec);
        let Ok(parsed) = serde_json::from_slice::<serde_json::Value>(&text) else { continue };
        valid += 1;
        let wanted = path.iter().try_fold(&parsed, |at, key| at.get(std::str::from_utf8(key).unwrap()));
        // A key that stands twice is read once by each, and an escaped key by the parser only.
        let text = String::from_utf8(text).unwrap();
        if path.iter().any(|key| text.matches(&format!("\"{}\"", String::from_utf8_lossy(key))).count() != 1) {
            continue;
        }
        let found = found.map(|found| String::from_utf8(found).unwrap());
        match wanted {
            None | Some(serde_json::Value::Null) => assert_eq!(found, None, "{text} {path:?}"),
            Some(serde_json::Value::String(wanted)) => {
                let quoted = format!("\"{}\"", found.unwrap());
                assert_eq!(serde_json::from_str::<String>(&quoted).unwrap(), *wanted, "{text} {path:?}");
            }
            Some(wanted) => {
                let found: serde_json::Value = serde_json::from_str(&found.unwrap()).unwrap();
                assert_eq!(found, *wanted, "{text} {path:?}");
            }
        }
    }
    assert!(valid > 0);
}
