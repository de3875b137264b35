//! Chains of attempts, cut by window, filter, server and midnight: whatever is asked for, the reports count what the definition says.

use std::collections::BTreeMap;
use std::sync::Arc;

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use toolgauge_proto::time::UnixMicros;
use toolgauge_queries::engine::Settings;
use toolgauge_queries::report::{self, Range, Source};
use toolgauge_queries::tables::{self, Catalog};

use crate::month_of_a_fleet::{END, Month};
use crate::traffic::{failed, request, text, tool_span};

const SECOND_US: i64 = 1_000_000;
const SERVICES: [&str; 2] = ["planner", "travel"];
const SERVERS: [&str; 2] = ["a.example", "b.example"];
const TOOLS: [&str; 2] = ["book", "find"];
/// How long after a failure an attempt may still be its retry.
const SETTLE_US: i64 = 60 * SECOND_US;

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// An attempt as its client knows it.
#[derive(Debug, Clone)]
struct Attempt {
    trace: u64,
    service: usize,
    server: usize,
    tool: usize,
    start_us: i64,
    end_us: i64,
    failed: bool,
    /// The producer's id of the call.
    id: Option<u64>,
    arguments: Option<u64>,
    /// It says that it is a retry.
    marked: bool,
    /// It failed with an exception by which the model is asked to try again.
    asks: bool,
    number: u64,
}

impl Attempt {
    fn span(&self) -> Span {
        let ns = |us: i64| us.unsigned_abs() * 1_000;
        let (start, end) = (ns(self.start_us), ns(self.end_us));
        let mut span = tool_span(TOOLS[self.tool], self.trace, self.number, start, end - start);
        span.attributes.push(text("server.address", SERVERS[self.server]));
        span.attributes.extend(self.id.map(|id| text("gen_ai.tool.call.id", &format!("call-{id}"))));
        let arguments = self.arguments.map(|n| text("gen_ai.tool.call.arguments", &format!("{{\"n\":{n}}}")));
        span.attributes.extend(arguments);
        if self.marked {
            let value = Some(AnyValue { value: Some(Value::IntValue(2)) });
            span.attributes.push(KeyValue { key: "toolgauge.attempt".to_owned(), value, ..KeyValue::default() });
        }
        match (self.failed, self.asks) {
            (true, true) => failed(span, "ModelRetry"),
            (true, false) => failed(span, "TimeoutError"),
            _ => span,
        }
    }

    /// How well it fits an open slot; none if it does not retry that one.
    fn rank(&self, slot: &Self) -> Option<u8> {
        let same = |of: fn(&Self) -> Option<u64>| of(self).is_some() && of(self) == of(slot);
        let is_marked = self.marked || slot.asks;
        let no_ids = self.id.is_none() && slot.id.is_none();
        if same(|attempt| attempt.id) {
            Some(2)
        } else if same(|attempt| attempt.arguments) && (is_marked || no_ids) {
            Some(1)
        } else {
            is_marked.then_some(0)
        }
    }
}

/// What an attempt is within its logical call.
#[derive(Debug, Clone, Copy)]
struct Place {
    is_final: bool,
    is_retry: bool,
}

/// The definition, word for word.
fn places(attempts: &[Attempt]) -> Vec<Place> {
    let mut order: Vec<usize> = (0..attempts.len()).collect();
    order.sort_by_key(|at| (attempts[*at].start_us, attempts[*at].end_us));
    let mut found = vec![Place { is_final: true, is_retry: false }; attempts.len()];
    for (nth, at) in order.iter().enumerate() {
        let next = &attempts[*at];
        let open = order[..nth].iter().filter(|before| {
            let slot = &attempts[**before];
            let same_tool = (slot.trace, slot.server, slot.tool) == (next.trace, next.server, next.tool);
            let in_time = slot.end_us <= next.start_us && next.start_us - slot.end_us <= SETTLE_US;
            slot.failed && found[**before].is_final && same_tool && in_time
        });
        let best = open.filter_map(|slot| Some((next.rank(&attempts[*slot])?, attempts[*slot].end_us, *slot))).max();
        if let Some((_, _, slot)) = best {
            found[slot].is_final = false;
        }
        found[*at].is_retry = best.is_some() || next.marked;
    }
    found
}

/// Attempts of some calls around an instant: retries, repeats after success, overlapping hedges, and pauses that are too long.
fn chains(rng: &mut Rng, trace: u64, around_us: i64, into: &mut Vec<Attempt>) {
    let begin = around_us - 30 * SECOND_US;
    for call in 0..1 + rng.below(4) {
        let (server, tool) = (rng.below(2) as usize, rng.below(2) as usize);
        let (has_id, has_arguments) = (rng.one_in(2), rng.one_in(2));
        let mut from_us = begin;
        for nth in 0..1 + rng.below(6) {
            let number = into.len() as u64 + 1;
            // No two begin or end together: which is later is a plain question.
            let start_us = from_us + rng.below(3_000_000) as i64 / 2_000 * 2_000 + 2 * number as i64;
            let end_us = start_us + rng.below(4_000_000) as i64 / 2_000 * 2_000 + 2 * number as i64 + 1;
            let is_failed = !rng.one_in(3);
            into.push(Attempt {
                trace,
                service: rng.below(2) as usize,
                server,
                tool,
                start_us,
                end_us,
                failed: is_failed,
                id: has_id.then_some(call),
                // Now and then other ones.
                arguments: has_arguments.then(|| call + if rng.one_in(5) { 10 } else { 0 }),
                marked: nth > 0 && rng.one_in(4),
                asks: is_failed && rng.one_in(6),
                number,
            });
            from_us = match rng.below(12) {
                0..4 => start_us,
                4 => end_us + SETTLE_US + SECOND_US,
                _ => end_us,
            };
        }
    }
}

/// Attempts, calls, calls that went well and retries, by server and tool.
type Counts = BTreeMap<(String, String), [u64; 4]>;

fn brute_force(attempts: &[Attempt], places: &[Place], range: &Range) -> Counts {
    let mut counts = Counts::new();
    for (attempt, place) in attempts.iter().zip(places) {
        let is = |asked: &Option<String>, name: &str| asked.as_ref().is_none_or(|asked| asked == name);
        let (server, tool) = (SERVERS[attempt.server], TOOLS[attempt.tool]);
        let is_asked_for = (range.from.0..range.to.0).contains(&attempt.end_us)
            && is(&range.service, SERVICES[attempt.service])
            && is(&range.server, server)
            && is(&range.tool, tool);
        if is_asked_for {
            let [all, calls, ok, retries] = counts.entry((server.to_owned(), tool.to_owned())).or_default();
            *all += 1;
            *calls += u64::from(place.is_final);
            *ok += u64::from(place.is_final && !attempt.failed);
            *retries += u64::from(place.is_retry);
        }
    }
    counts
}

/// Scenario: random chains of two tools on two servers, told by two services: with call ids, arguments, marks of either side; hedges, repeats after
/// success, pauses; around midnights and full hours; in any order of arrival, some twice. Guarantees: under random filters and windows, the
/// report has the attempts, logical calls, failures and retries of a count by hand, from calls, minutes and hours of committed rows; never more
/// failures than calls.
#[test]
fn chains_that_are_cut_count_as_the_definition_says() {
    for seed in 1..=4 {
        let mut rng = Rng(seed);
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut month = Month::new(folder.path(), runtime.handle()).unwrap();
        let mut attempts: Vec<Attempt> = Vec::new();
        let day_us = 24 * 3_600 * SECOND_US;
        for (part, around_us) in [END.0 - day_us, END.0 - 3_600 * SECOND_US, END.0].into_iter().enumerate() {
            let first = attempts.len();
            for trace in 1..=12 {
                // Of some traces an earlier part has rows that have settled; those are others.
                chains(&mut rng, part as u64 * 100 + trace, around_us, &mut attempts);
            }
            let mut spans: Vec<(usize, Span)> =
                attempts[first..].iter().map(|attempt| (attempt.service, attempt.span())).collect();
            for _ in 0..spans.len() / 8 {
                let again = spans[rng.below(spans.len() as u64) as usize].clone();
                spans.push(again);
            }
            for at in (1..spans.len()).rev() {
                spans.swap(at, rng.below(at as u64 + 1) as usize);
            }
            // All of it arrives after the last of it has ended, and within the settle time.
            let last_us = attempts[first..].iter().map(|attempt| attempt.end_us).max().unwrap();
            let mut at = UnixMicros(last_us + SECOND_US);
            for (service, span) in spans {
                month.take(at, request(SERVICES[service], vec![span]).encode_to_vec().into()).unwrap();
                at.0 += rng.below(20_000) as i64;
            }
            month.settle(UnixMicros(at.0 + 2 * SETTLE_US)).unwrap();
        }
        let places = places(&attempts);
        assert!(places.iter().filter(|place| !place.is_final).count() > attempts.len() / 8);
        let view = month.view().unwrap();
        runtime.block_on(async {
            let engine = tables::engine(Settings::default()).unwrap();
            let catalog = Catalog::new(&engine).await.unwrap();
            for nth in 0..14 {
                let mut word = |words: [&str; 2]| rng.one_in(3).then(|| words[rng.below(2) as usize].to_owned());
                let (service, tool, server) = (word(SERVICES), word(TOOLS), word(SERVERS));
                let midnight = [END.0, END.0 - day_us, END.0 - 3_600 * SECOND_US][rng.below(3) as usize];
                let near = midnight + rng.below(60_000_000) as i64 - 30_000_000;
                let (from, to) = match nth % 4 {
                    0 => (midnight, midnight + day_us),
                    1 => (midnight - day_us, midnight),
                    2 => (near, near + rng.below(20_000_000) as i64),
                    _ => (near - day_us, near),
                };
                let range = Range { service, tool, server, ..Range::new(UnixMicros(from), UnixMicros(to)) };
                let expected = brute_force(&attempts, &places, &range);
                for source in [Source::Calls, Source::Minutes, Source::Hours] {
                    let now = UnixMicros(END.0 + day_us);
                    let asked = (Arc::clone(&view), range.clone());
                    let report = report::tools(&engine, &catalog, asked.0, now, asked.1, source).await.unwrap();
                    let found = report.tools.into_iter().map(|tool| {
                        assert!(tool.calls_ok <= tool.calls && tool.calls <= tool.attempts);
                        let counts = [tool.attempts, tool.calls, tool.calls_ok, tool.retries.attempts];
                        ((tool.tool_server.unwrap(), tool.tool_name.unwrap()), counts)
                    });
                    assert_eq!(found.collect::<Counts>(), expected, "seed {seed}, {source:?}, {range:?}");
                }
            }
        });
    }
}
