//! What the clients send, when, and when the collector commits: drawn from a seed.
//!
//! Traffic comes in bursts that are shorter than the log's horizon, and all spans of a trace lie in one burst: so what
//! a replay of the retained log can know of a row is what the first run knew.

use toolgauge_collector::export::Export;
use toolgauge_collector::fs::sim::SimRng;

use crate::spans::{CLIENT, SERVER, SpanOf, Told, exports, tool_result};

/// 2026-01-01T23:59:30Z: half a minute before midnight, some hours after the simulated disk's clock starts.
const BEGIN_US: i64 = 1_767_311_970_000_000;
const SECOND_US: i64 = 1_000_000;

/// One thing that happens.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Exports arrive together (by their numbers), or nothing but time passes.
    Send {
        at_us: i64,
        exports: Vec<usize>,
    },
    Commit,
    /// Files are merged, and old ones deleted.
    Compact,
}

/// Everything that happens.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) exports: Vec<Export>,
    pub(crate) steps: Vec<Step>,
}

/// How much happens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) bursts: usize,
    pub(crate) frames_of_burst: usize,
    /// One in so many frames is followed by a commit.
    pub(crate) commit_one_in: usize,
}

impl Size {
    pub(crate) const TINY: Self = Self { bursts: 1, frames_of_burst: 2, commit_one_in: 1 };
    pub(crate) const SMALL: Self = Self { bursts: 2, frames_of_burst: 4, commit_one_in: 3 };
    pub(crate) const USUAL: Self = Self { bursts: 3, frames_of_burst: 6, commit_one_in: 3 };
    /// More commits than lie between two checkpoints of a table.
    pub(crate) const LONG: Self = Self { bursts: 16, frames_of_burst: 6, commit_one_in: 1 };
}

const TOOLS: [&str; 3] = ["search", "weather", "book"];
const ERRORS: [&str; 4] = ["timeout", "rate_limited", "InvalidArgument", "503"];
pub(crate) const SERVICES: [&str; 3] = ["planner", "travel", "weather-mcp"];

pub(crate) fn pick<'a>(rng: &mut SimRng, words: &[&'a str]) -> &'a str {
    words[rng.below(words.len())]
}

fn micros(rng: &mut SimRng, below: i64) -> i64 {
    rng.below(usize::try_from(below).unwrap()) as i64
}

/// What is told of one agent run that ends about now, each with the service that sends it.
pub(crate) fn story(rng: &mut SimRng, trace: u64, now_us: i64) -> Vec<(usize, Told)> {
    let begin = now_us - 3 * SECOND_US;
    let session = format!("session-{}", trace % 3);
    let mut spans = Vec::new();
    let mut logs = Vec::new();
    let mut last = 1;
    let mut number = || {
        last += 1;
        trace * 1_000 + last
    };
    let root = number();
    let agent = SpanOf::new(trace, root, 0, "invoke_agent planner")
        .at(begin, now_us)
        .text("gen_ai.operation.name", "invoke_agent")
        .text("gen_ai.agent.name", "planner")
        .text("gen_ai.conversation.id", &session);
    spans.push((0, agent.0));
    for _ in 0..rng.below(3) {
        let start = begin + micros(rng, SECOND_US);
        let chat = SpanOf::new(trace, number(), root, "chat")
            .at(start, start + micros(rng, SECOND_US))
            .text("gen_ai.operation.name", "chat")
            .text("gen_ai.request.model", "gpt-x")
            .int("gen_ai.usage.input_tokens", micros(rng, 10_000))
            .int("gen_ai.usage.output_tokens", micros(rng, 900))
            .float("operation.cost", micros(rng, 1_000) as f64 / 1e5);
        spans.push((0, chat.0));
    }
    for call in 0..1 + rng.below(3) {
        let tool = pick(rng, &TOOLS);
        let call_id = format!("call-{trace}-{call}");
        let mut start = begin + micros(rng, SECOND_US / 2);
        for attempt in 1..=3 {
            let end = start + 1 + micros(rng, SECOND_US / 2);
            let error = (rng.below(5) < 2).then(|| pick(rng, &ERRORS));
            let outer = number();
            let mut span = SpanOf::tool(trace, outer, root, tool).at(start, end);
            match (trace + call as u64) % 3 {
                0 => span = span.text("gen_ai.tool.call.id", &call_id),
                1 => span = span.text("gen_ai.tool.call.arguments", &format!("{{\"call\":{call},\"trace\":{trace}}}")),
                _ => span = span.int("toolgauge.attempt", attempt),
            }
            if rng.below(3) == 0 {
                span = span.float("toolgauge.cost.usd", micros(rng, 500) as f64 / 1e4);
            }
            // The failure may be known only further in.
            let nested = rng.below(3) == 0;
            let outer_error = if nested && rng.below(2) == 0 { None } else { error };
            if rng.below(6) == 0 {
                span.0.trace_state = "ot=th:c".into();
            }
            let span = span.failed(outer_error).0;
            if rng.below(3) == 0 {
                // A record of the same call, written in the span or in the one around it; it may know more of the failure.
                let mut record = tool_result(&session, tool, end, error);
                record.trace_id.clone_from(&span.trace_id);
                record.span_id.clone_from(if rng.below(2) == 0 { &span.span_id } else { &span.parent_span_id });
                logs.push((rng.below(2), Told::Log(record)));
            }
            spans.push((0, span));
            if nested {
                let mut above = outer;
                if rng.below(2) == 0 {
                    above = number();
                    spans.push((0, SpanOf::new(trace, above, outer, "POST").at(start, end).0));
                }
                let client = number();
                let span = SpanOf::mcp(trace, client, above, tool, CLIENT).at(start, end).failed(error);
                spans.push((0, span.0));
                let inside = SpanOf::mcp(trace, number(), client, tool, SERVER).at(start, end);
                spans.push((2, inside.int("rpc.response.status_code", 0).failed(error).0));
            }
            if error.is_none() {
                break;
            }
            start = end + micros(rng, SECOND_US / 4);
        }
    }
    match rng.below(4) {
        0 => spans.push((1, SpanOf::tool(trace, number(), root, "book").at(now_us, now_us - 1).0)),
        1 => spans.push((1, SpanOf::new(trace, number(), root, "GET /").at(begin, now_us).0)),
        _ => {}
    }
    // Calls of which only log records tell, without a trace; one of them may be tried again.
    let alone = format!("alone-{trace}");
    let mut end = begin + micros(rng, SECOND_US);
    for _ in 0..rng.below(3) {
        let error = (rng.below(2) == 0).then(|| pick(rng, &ERRORS));
        logs.push((1, Told::Log(tool_result(&alone, "book", end, error))));
        end += 1_000 + micros(rng, SECOND_US / 2);
    }
    spans.into_iter().map(|(service, span)| (service, Told::Span(span))).chain(logs).collect()
}

pub(crate) fn shuffle<T>(rng: &mut SimRng, items: &mut [T]) {
    for i in (1..items.len()).rev() {
        items.swap(i, rng.below(i + 1));
    }
}

impl Plan {
    pub(crate) fn draw(seed: u64, size: Size) -> Self {
        let rng = &mut SimRng::new(seed ^ 0x70_6c_61_6e);
        let compacting = &mut SimRng::new(seed);
        let mut plan = Self { seed, exports: Vec::new(), steps: Vec::new() };
        let mut now_us = BEGIN_US + micros(rng, 10 * SECOND_US);
        let mut trace = seed * 1_000;
        for _ in 0..size.bursts {
            // By the frame they will come in.
            let mut waiting: Vec<Vec<(usize, Told)>> = vec![Vec::new(); size.frames_of_burst];
            let mut sent = Vec::new();
            for frame in 0..size.frames_of_burst {
                now_us += micros(rng, 5 * SECOND_US / 2);
                for _ in 0..rng.below(3) {
                    trace += 1;
                    for told in story(rng, trace, now_us) {
                        let late = if rng.below(3) == 0 { rng.below(4) } else { 0 };
                        waiting[(frame + late).min(size.frames_of_burst - 1)].push(told.clone());
                        // Once more, in another export.
                        if rng.below(12) == 0 {
                            waiting[(frame + rng.below(4)).min(size.frames_of_burst - 1)].push(told);
                        }
                    }
                }
                let mut here = std::mem::take(&mut waiting[frame]);
                shuffle(rng, &mut here);
                let mut numbers = Vec::new();
                for (number, service) in SERVICES.iter().enumerate() {
                    let told: Vec<Told> =
                        here.iter().filter(|(of, _)| *of == number).map(|(_, told)| told.clone()).collect();
                    if !told.is_empty() {
                        let parts = 1 + rng.below(2);
                        for export in told.chunks(told.len().div_ceil(parts)).flat_map(|part| exports(service, part)) {
                            numbers.push(plan.exports.len());
                            plan.exports.push(export);
                        }
                    }
                }
                if rng.below(4) == 0 && !sent.is_empty() {
                    numbers.push(sent[rng.below(sent.len())]);
                }
                sent.extend(numbers.iter().copied());
                plan.steps.push(Step::Send { at_us: now_us, exports: numbers });
                if rng.below(size.commit_one_in) == 0 {
                    plan.steps.push(Step::Commit);
                    if compacting.below(4) == 0 {
                        plan.steps.push(Step::Compact);
                    }
                }
            }
            now_us += 21 * SECOND_US + micros(rng, 60 * SECOND_US);
            plan.steps.push(Step::Send { at_us: now_us, exports: Vec::new() });
            if rng.below(2) == 0 {
                plan.steps.push(Step::Commit);
            }
        }
        // Everything settles, and the last minute is complete.
        for seconds in [3, 70] {
            now_us += seconds * SECOND_US;
            plan.steps.push(Step::Send { at_us: now_us, exports: Vec::new() });
            plan.steps.push(Step::Commit);
            plan.steps.push(Step::Compact);
        }
        plan
    }
}
