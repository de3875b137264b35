//! What deciding a row costs, in nanoseconds, for the usual groups and the unusual ones.
//!
//! `cargo bench --bench settle`

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use toolgauge_analytics::settle::{Decider, Facts, Link, NO_THRESHOLD, Row};
use toolgauge_proto::call::{Kind, Layer, Signal};
use toolgauge_proto::id::RowId;

const SETTLE_NS: i64 = 60_000_000_000;
const MILLISECOND: i64 = 1_000_000;
const MEASURED_FOR: Duration = Duration::from_millis(500);

/// A number without order.
fn mix(n: u64) -> u64 {
    (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// A tool span that went well.
fn span(n: u64) -> Facts {
    let mut row_id = [0; 16];
    row_id[..8].copy_from_slice(&mix(n).to_be_bytes());
    let start_ns = i64::try_from(n).unwrap_or(0) * 10 * MILLISECOND;
    Facts {
        seq: n,
        row_id: RowId::from_bytes(row_id),
        span_id: mix(n),
        parent_span_id: mix(u64::MAX - 1),
        kind: Kind::Tool,
        layer: Layer::Agent,
        signal: Signal::Span,
        tool: n % 3 + 1,
        server: 1,
        source: 1,
        call_id: mix(n),
        arguments: mix(n),
        session: 1,
        user: 0,
        agent: 1,
        start_ns,
        end_ns: start_ns + 5 * MILLISECOND,
        failed: false,
        asked: false,
        asks_retry: false,
        says_attempt: 0,
        threshold: NO_THRESHOLD,
    }
}

fn agent() -> Facts {
    Facts { kind: Kind::Agent, tool: 0, call_id: 0, span_id: mix(u64::MAX - 1), parent_span_id: 0, ..span(1 << 40) }
}

fn flat(rows: u64) -> Vec<Facts> {
    (0..rows).map(span).collect()
}

/// An agent run and calls of one tool, of which the first fails and is retried, the retry seen also by client and server.
fn nested() -> Vec<Facts> {
    let failed = Facts { failed: true, tool: 1, call_id: 7, ..span(0) };
    let retry = Facts { tool: 1, call_id: 7, ..span(1) };
    let client = Facts { layer: Layer::Client, tool: 1, call_id: 0, parent_span_id: retry.span_id, ..span(2) };
    let server = Facts { layer: Layer::Server, tool: 1, call_id: 0, parent_span_id: client.span_id, ..span(3) };
    vec![agent(), failed, retry, client, server]
}

/// Nothing but failures of one tool, none of which is a retry: every slot stays open.
fn outage(rows: u64) -> Vec<Facts> {
    (0..rows).map(|n| Facts { failed: true, tool: 1, end_ns: span(n).start_ns + 1, ..span(n) }).collect()
}

/// Spans and log records of one tool in one place, without call ids.
fn logged(rows: u64) -> Vec<Facts> {
    let place = mix(u64::MAX - 1);
    let log = |n, facts| if n % 2 == 0 { facts } else { Facts { signal: Signal::Log, span_id: place, ..facts } };
    (0..rows).map(|n| log(n, Facts { tool: 1, call_id: 0, end_ns: 0, ..span(n) })).collect()
}

fn measure(name: &str, facts: &[Facts], links: &[Link]) {
    let rows: Vec<Row> = facts.iter().map(|facts| Row { facts: *facts, frozen: None }).collect();
    let (mut decider, mut out) = (Decider::default(), Vec::new());
    let mut best = Duration::MAX;
    let begun = Instant::now();
    while begun.elapsed() < MEASURED_FOR {
        let rounds = (20_000 / rows.len()).max(1);
        let start = Instant::now();
        for _ in 0..rounds {
            decider.decide(black_box(&rows), black_box(links), SETTLE_NS, &mut out);
            black_box(&out);
        }
        best = best.min(start.elapsed() / u32::try_from(rounds).unwrap_or(u32::MAX));
    }
    let per_row = best.as_nanos() as f64 / rows.len() as f64;
    println!("{name:<44} {:>6} rows {per_row:>8.1} ns a row", rows.len());
}

fn main() {
    let root = Link { span_id: mix(1 << 50), parent_span_id: 0, remote_parent: false, threshold: NO_THRESHOLD };
    let links = [root];
    measure("flat", &flat(1), &links);
    measure("flat", &flat(5), &links);
    let with_agent: Vec<Facts> = flat(4).into_iter().chain([agent()]).collect();
    measure("flat, in an agent run", &with_agent, &links);
    measure("nested, with a retry", &nested(), &links);
    measure("flat", &flat(10_000), &links);
    measure("failures, none retried", &outage(10_000), &links);
    measure("spans and log records that end at once", &logged(10_000), &links);
}
