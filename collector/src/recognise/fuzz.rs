//! Bytes that nobody would send: no panic, no memory without bound, and what is taken can be counted.
//!
//! Seeded, so that a failure can be repeated. `TOOLGAUGE_TEST_FUZZ_ROUNDS` and `TOOLGAUGE_TEST_FUZZ_SEED` make it try more,
//! and other bytes.

use std::path::Path;
use std::sync::Arc;

use toolgauge_proto::otlp::{LogsView, TracesView};

use super::arrangements::{RECEIVED_S, Random, captures};
use super::*;
use crate::live::{FrameBody, LiveFrame, LiveRows, LiveSettings};

const ROUNDS: u64 = 6_000;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn bodies() -> Vec<Vec<u8>> {
    let files = captures().into_iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let mut paths: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let pb = |path: &&std::path::PathBuf| Path::new(path).extension().is_some_and(|extension| extension == "pb");
    paths.iter().filter(pb).map(|path| std::fs::read(path).unwrap()).collect()
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

#[test]
fn no_bytes_make_reading_recognising_or_explaining_fail() {
    let seed = setting("TOOLGAUGE_TEST_FUZZ_SEED", 1).max(1);
    let rounds = setting("TOOLGAUGE_TEST_FUZZ_ROUNDS", ROUNDS);
    let bodies = bodies();
    let settings = RecogniseSettings { retention_us: i64::MAX / 1_000, ..RecogniseSettings::default() };
    let recogniser = Arc::new(Recogniser::new(Conventions::built_in().unwrap(), settings).unwrap());
    let mut random = Random(seed);
    let mut taken = 0_u64;
    for round in 0..rounds {
        let body = mutate(&bodies, &mut random);
        let as_traces = TracesView::new(&body).is_ok();
        let as_logs = LogsView::new(&body).is_ok();
        assert_eq!(recogniser.explain_traces(&body).is_ok(), as_traces, "seed {seed}, round {round}");
        assert_eq!(recogniser.explain_logs(&body).is_ok(), as_logs, "seed {seed}, round {round}");
        let mut live = LiveRows::new(LiveSettings::default(), Arc::clone(&recogniser));
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
        assert_eq!(rows as u64, live.live_rows(), "seed {seed}, round {round}");
        taken += rows as u64;
    }
    assert!(rounds < ROUNDS || taken > rounds / 4, "too few of the bodies were taken to say anything: {taken}");
}

#[test]
fn members_of_json_are_those_that_a_parser_finds() {
    let texts = [
        r#"{"a":{"b":[1,2,{"c":"d"}],"e":null},"tags":["x","retry:attempt:2"],"f":-1.25e-3,"g":"q\"\\"}"#,
        r#"{"inputs": {"city": "Oslo", "n": [ ] }, "input_str": "{'city': 'Oslo'}", "metadata": {}}"#,
    ];
    let keys = ["a", "b", "e", "tags", "f", "g", "inputs", "input_str", "metadata", "city", "n"];
    let mut random = Random(setting("TOOLGAUGE_TEST_FUZZ_SEED", 1).max(1));
    let mut valid = 0;
    for _ in 0..setting("TOOLGAUGE_TEST_FUZZ_ROUNDS", ROUNDS) * 5 {
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
