//! Makes up what the fleet does: runs of agents with calls of models and tools, as exports, with the facts behind them.
//!
//! What happens follows from the seed, ids from seed and origin: two loads of one seed do the same, but have no id in common. The
//! same seed, origin and times give the same runs, byte for byte. All spans of a run are in one export, so what belongs together is
//! decided the same whenever it is received.

use std::fmt::Write as _;

use bytes::Bytes;

use super::dice::Dice;
use super::fleet::{AGENTS, Break, FAILURES, MODELS, SERVERS, SERVICES, TOOLS};
use super::ledger::{Fact, Who};
use super::tariff::{self, Cost};
use super::wire::{self, Message, Span, SpanKind, Value};

const MS_NS: u64 = 1_000_000;
/// Sessions that are going on at the same time.
const SESSIONS: usize = 24;
/// Most attempts of one tool call.
const ATTEMPTS_MAX: u32 = 3;
/// Of failures that may pass, so many of a million are tried again.
const TRIED_AGAIN_PPM: u32 = 900_000;
/// While a tool is broken, so many of a million retries of a failed call fail as well.
const FAILS_AGAIN_PPM: u32 = 950_000;

/// What kind of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// Agents with models and tools, retries, MCP servers and sessions
    Fleet,
    /// One successful tool call after the other
    Plain,
    /// As the fleet, but every tool fails half of the time
    Flaky,
}

/// What a fleet leaves to others.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Manner {
    /// What some calls cost, to [`tariff::BOOK`].
    pub(crate) by_book: bool,
    /// For how many its traces stand, to their tracestate: some agents are sampled.
    pub(crate) sampled: bool,
}

/// One run of an agent.
#[derive(Debug)]
pub(crate) struct Run {
    /// Spans by service, in the order of [`SERVICES`].
    spans: [Message; SERVICES.len()],
    pub(crate) span_count: u64,
    pub(crate) end_ns: u64,
    pub(crate) facts: Vec<Fact>,
}

/// Runs that are sent together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    spans: [Message; SERVICES.len()],
    pub(crate) span_count: u64,
    pub(crate) facts: Vec<Fact>,
}

/// One export, and what it says.
#[derive(Debug)]
pub(crate) struct Export {
    pub(crate) body: Bytes,
    pub(crate) span_count: u64,
    pub(crate) facts: Vec<Fact>,
}

impl Batch {
    pub(crate) fn push(&mut self, run: Run) {
        for (all, more) in self.spans.iter_mut().zip(&run.spans) {
            all.append(more);
        }
        self.span_count += run.span_count;
        self.facts.extend(run.facts);
    }

    /// What was pushed since the last time.
    pub(crate) fn take(&mut self) -> Option<Export> {
        let Self { spans, span_count, facts } = std::mem::take(self);
        let body = wire::request(SERVICES.into_iter().zip(&spans));
        (span_count > 0).then_some(Export { body, span_count, facts })
    }
}

#[derive(Debug, Clone)]
struct Session {
    number: u64,
    id: String,
    user_number: u64,
    user: String,
    new: bool,
}

/// Makes runs.
#[derive(Debug)]
pub(crate) struct Traffic {
    dice: Dice,
    ids: Dice,
    scenario: Scenario,
    manner: Manner,
    breaks: Vec<Break>,
    sessions: Vec<Session>,
}

/// What all spans of a run have in common.
struct Scene {
    trace_id: [u8; 16],
    agent: usize,
    session: Session,
    trace_state: &'static str,
    weight: u64,
}

impl Scene {
    fn who(&self) -> Who {
        let Session { number: session, user_number: user, .. } = self.session;
        Who { agent: self.agent, session, user, weight: self.weight }
    }

    /// What all its spans say of whose they are.
    fn team(&self, attributes: &mut Vec<(&str, Value<'_>)>) {
        attributes.extend(AGENTS[self.agent].team.map(|team| ("toolgauge.team", Value::Text(team))));
    }
}

impl Traffic {
    /// `origin`: when the load begins, or anything else that no other load has.
    pub(crate) fn new(seed: u64, origin: u64, scenario: Scenario, breaks: Vec<Break>) -> Self {
        let ids = Dice::new(Dice::new(seed).next() ^ origin);
        let (manner, sessions) = (Manner::default(), Vec::new());
        let mut traffic = Self { dice: Dice::new(seed), ids, scenario, manner, breaks, sessions };
        traffic.sessions = (0..SESSIONS).map(|_| traffic.session()).collect();
        traffic
    }

    /// From now on, it leaves this to others.
    pub(crate) fn in_manner(self, manner: Manner) -> Self {
        Self { manner, ..self }
    }

    pub(crate) fn dice(&mut self) -> &mut Dice {
        &mut self.dice
    }

    /// From now on, this tool is broken as well.
    pub(crate) fn breaks(&mut self) -> &mut Vec<Break> {
        &mut self.breaks
    }

    fn session(&mut self) -> Session {
        // Its id begins with a letter: one of digits alone may look like the number of a card, and be masked.
        let (number, user_number) = (self.ids.next() | 0xC << 60, self.dice.below(200));
        let (id, user) = (format!("conv-{number:016x}"), format!("user-{user_number:03}"));
        Session { number, id, user_number, user, new: true }
    }

    fn weighted(&mut self, weights: impl Iterator<Item = u64> + Clone) -> usize {
        let mut at = self.dice.below(weights.clone().sum());
        for (place, weight) in weights.enumerate() {
            match at.checked_sub(weight) {
                Some(rest) => at = rest,
                None => return place,
            }
        }
        0
    }

    /// A run that begins at this time.
    pub(crate) fn run(&mut self, start_ns: u64) -> Run {
        let agent = self.weighted(AGENTS.iter().map(|agent| agent.weight));
        let place = self.dice.below(SESSIONS as u64) as usize;
        let session = self.sessions[place].clone();
        // A session has three runs on average.
        self.sessions[place] =
            if self.dice.below(3) == 0 { self.session() } else { Session { new: false, ..session.clone() } };
        let mut run = Run { spans: Default::default(), span_count: 0, end_ns: start_ns, facts: Vec::new() };
        if session.new {
            run.facts.push(Fact::Session);
        }
        let mut trace_id = [0; 16];
        trace_id[..8].copy_from_slice(&self.ids.next().to_be_bytes());
        trace_id[8..].copy_from_slice(&(self.ids.next() | 1).to_be_bytes());
        let sampled = AGENTS[agent].sampled.filter(|_| self.manner.sampled);
        let (trace_state, weight) = sampled.unwrap_or(("", 1_000_000));
        let scene = Scene { trace_id, agent, session, trace_state, weight };
        if self.scenario == Scenario::Plain {
            run.end_ns = self.tool(&mut run, &scene, None, start_ns);
            return run;
        }
        let root = self.span_id();
        let mut failed = false;
        let mut now = start_ns + self.dice.between(MS_NS, 8 * MS_NS);
        for round in 0..=self.dice.between(1, 3) {
            (now, failed) = self.model(&mut run, &scene, root, now, round);
            // The last answer of a model calls no tool.
            if failed {
                break;
            }
            now += self.dice.between(MS_NS, 5 * MS_NS);
            if round < 3 {
                for _ in 0..self.dice.below(3) {
                    now = self.tool(&mut run, &scene, Some(root), now) + self.dice.between(MS_NS, 9 * MS_NS);
                }
            }
        }
        run.end_ns = now + self.dice.between(MS_NS, 3 * MS_NS);
        self.agent(&mut run, &scene, root, start_ns, failed);
        run
    }

    fn span_id(&mut self) -> u64 {
        self.ids.next() | 1
    }

    fn agent(&mut self, run: &mut Run, scene: &Scene, root: u64, start_ns: u64, failed: bool) {
        let agent = &AGENTS[scene.agent];
        let span = Span {
            trace_id: scene.trace_id,
            span_id: root,
            trace_state: scene.trace_state,
            parent: None,
            name: &format!("invoke_agent {}", agent.name),
            kind: SpanKind::Internal,
            start_ns,
            end_ns: run.end_ns,
            failed: failed.then_some("the model did not answer"),
        };
        let mut attributes = vec![
            ("gen_ai.operation.name", Value::Text("invoke_agent")),
            ("gen_ai.agent.name", Value::Text(agent.name)),
            ("gen_ai.conversation.id", Value::Text(&scene.session.id)),
            ("user.id", Value::Text(&scene.session.user)),
        ];
        scene.team(&mut attributes);
        if failed {
            attributes.push(("error.type", Value::Text("InternalServerError")));
        }
        run.span(scene.agent, &span, &attributes);
        run.facts.push(Fact::Agent { agent: scene.agent, end_ns: run.end_ns, failed });
    }

    /// A call of the agent's model; when it ended, and whether it failed.
    fn model(&mut self, run: &mut Run, scene: &Scene, root: u64, start_ns: u64, round: u64) -> (u64, bool) {
        let agent = &AGENTS[scene.agent];
        let model = &MODELS[agent.model];
        let failed = self.dice.chance(model.failures_ppm);
        let end_ns = start_ns + self.dice.spread(model.median_us) * 1000;
        let input = self.dice.spread(900) + 400 * round;
        let cached = if round > 0 { input / 2 } else { 0 };
        let output = if failed { 0 } else { self.dice.spread(160) };
        let cost = tariff::model(model, input, cached, output)
            .filter(|_| self.manner.by_book)
            .unwrap_or(Cost::reported(input * model.input_nano_usd + output * model.output_nano_usd));
        let span = Span {
            trace_id: scene.trace_id,
            span_id: self.span_id(),
            trace_state: scene.trace_state,
            parent: Some(root),
            name: &format!("chat {}", model.name),
            kind: SpanKind::Client,
            start_ns,
            end_ns,
            failed: failed.then_some("unexpected state"),
        };
        let mut attributes = vec![
            ("gen_ai.operation.name", Value::Text("chat")),
            ("gen_ai.provider.name", Value::Text(model.provider)),
            ("gen_ai.request.model", Value::Text(model.name)),
            ("gen_ai.agent.name", Value::Text(agent.name)),
            ("gen_ai.conversation.id", Value::Text(&scene.session.id)),
            ("gen_ai.usage.input_tokens", Value::Int(input)),
            ("gen_ai.usage.cache_read.input_tokens", Value::Int(cached)),
            ("gen_ai.usage.output_tokens", Value::Int(output)),
        ];
        attributes.extend(said(Some(cost)));
        scene.team(&mut attributes);
        if failed {
            attributes.push(("error.type", Value::Text("InternalServerError")));
        }
        run.span(scene.agent, &span, &attributes);
        let model = agent.model;
        let who = scene.who();
        run.facts.push(Fact::Model { who, model, end_ns, failed, input, cached, output, cost });
        (end_ns, failed)
    }

    /// A call of some tool, with its retries; when the last one ended.
    fn tool(&mut self, run: &mut Run, scene: &Scene, root: Option<u64>, start_ns: u64) -> u64 {
        let tool = self.weighted(TOOLS.iter().map(|tool| tool.weight));
        let call_id = format!("call_{:012x}", self.ids.next() >> 16);
        let query = self.dice.below(10_000);
        let mut now = start_ns;
        let mut failed_before = false;
        for attempt in 1.. {
            let failure = self.failure(tool, now, failed_before);
            let again = failure.is_some_and(|failure| FAILURES[failure].retried)
                && attempt < ATTEMPTS_MAX
                && self.dice.chance(TRIED_AGAIN_PPM);
            let end_ns = now + self.attempt(run, scene, root, (tool, &call_id, query), now, failure, (attempt, !again));
            if !again {
                return end_ns;
            }
            failed_before = true;
            now = end_ns + self.dice.between(100, 200) * MS_NS * u64::from(attempt);
        }
        now
    }

    /// Whether an attempt that begins now fails, and how.
    fn failure(&mut self, tool: usize, now: u64, failed_before: bool) -> Option<usize> {
        let broken =
            self.breaks.iter().find(|broken| broken.tool == tool && (broken.from_ns..broken.to_ns).contains(&now));
        if let Some(Break { failure, share_ppm, .. }) = broken {
            let (failure, ppm) = (*failure, if failed_before { FAILS_AGAIN_PPM.max(*share_ppm) } else { *share_ppm });
            return self.dice.chance(ppm).then_some(failure);
        }
        let ppm = match self.scenario {
            Scenario::Fleet => TOOLS[tool].failures_ppm,
            Scenario::Plain => 0,
            Scenario::Flaky => 500_000,
        };
        self.dice.chance(ppm).then(|| self.dice.below(FAILURES.len() as u64) as usize)
    }

    /// One attempt; its duration.
    #[expect(clippy::too_many_arguments, reason = "each is another part of the same attempt")]
    fn attempt(
        &mut self,
        run: &mut Run,
        scene: &Scene,
        root: Option<u64>,
        (tool, call_id, query): (usize, &str, u64),
        start_ns: u64,
        failure: Option<usize>,
        (attempt, is_final): (u32, bool),
    ) -> u64 {
        let (agent, how) = (&AGENTS[scene.agent], &TOOLS[tool]);
        let server = &SERVERS[how.server];
        let timeout = failure.is_some_and(|failure| FAILURES[failure].class == "timeout");
        let micros = if timeout { 2_000_000 + self.dice.below(5_000) } else { self.dice.spread(how.median_us) };
        let duration_ns = micros * 1000 + self.dice.below(1000);
        let end_ns = start_ns + duration_ns;
        let reported = how.cost_nano_usd.map(|cost| Cost::reported(self.dice.between(cost / 2, cost + cost / 2)));
        let by_book = || tariff::tool(how, duration_ns).filter(|_| self.manner.by_book);
        let cost = reported.or_else(by_book);
        let error = failure.map(|failure| &FAILURES[failure]);

        let outer = self.span_id();
        let span = |span_id, parent, name, kind, inset_ns| Span {
            trace_id: scene.trace_id,
            span_id,
            trace_state: scene.trace_state,
            parent,
            name,
            kind,
            start_ns: start_ns + inset_ns,
            end_ns: end_ns - inset_ns,
            failed: error.map(|error| error.message),
        };
        let arguments = format!("{{\"query\":\"order {query:04}\"}}");
        let mut attributes = vec![
            ("gen_ai.operation.name", Value::Text("execute_tool")),
            ("gen_ai.tool.name", Value::Text(how.name)),
            ("gen_ai.tool.type", Value::Text("function")),
            ("gen_ai.tool.call.id", Value::Text(call_id)),
            ("gen_ai.tool.call.arguments", Value::Text(&arguments)),
            ("gen_ai.agent.name", Value::Text(agent.name)),
            ("gen_ai.conversation.id", Value::Text(&scene.session.id)),
            ("user.id", Value::Text(&scene.session.user)),
            ("server.address", Value::Text(server.name)),
        ];
        attributes.extend(said(cost));
        scene.team(&mut attributes);
        if let Some(error) = error {
            attributes.push(("error.type", Value::Text(error.error_type)));
        }
        let name = format!("execute_tool {}", how.name);
        run.span(scene.agent, &span(outer, root, &name, SpanKind::Internal, 0), &attributes);
        let who = scene.who();
        run.facts.push(Fact::Tool { who, tool, end_ns, duration_ns, failure, attempt, is_final, cost });

        let reporting = server.service.and_then(|service| SERVICES.iter().position(|name| *name == service));
        if let (Some(reporting), Scenario::Fleet | Scenario::Flaky) = (reporting, self.scenario) {
            let mut name = String::with_capacity(32);
            let _infallible = write!(name, "tools/call {}", how.name);
            let mut attributes = vec![
                ("mcp.method.name", Value::Text("tools/call")),
                ("gen_ai.tool.name", Value::Text(how.name)),
                ("mcp.server.name", Value::Text(server.name)),
            ];
            if let Some(error) = error {
                attributes.push(("error.type", Value::Text(error.error_type)));
            }
            let (client, inner) = (self.span_id(), self.span_id());
            // Both lie within the attempt, the shortest of which lasts 30 ms.
            let view = span(client, Some(outer), &name, SpanKind::Client, MS_NS);
            run.span(scene.agent, &view, &attributes);
            run.span(reporting, &span(inner, Some(client), &name, SpanKind::Server, 2 * MS_NS), &attributes);
            run.facts.extend([Fact::View, Fact::View]);
        }
        duration_ns
    }
}

impl Run {
    /// Agents have their services' places.
    fn span(&mut self, service: usize, span: &Span<'_>, attributes: &[(&str, Value<'_>)]) {
        wire::span(&mut self.spans[service], span, attributes);
        self.span_count += 1;
    }
}

/// What a call says of its cost, unless it leaves that to the book.
fn said(cost: Option<Cost>) -> Option<(&'static str, Value<'static>)> {
    let cost = cost.filter(|cost| !cost.by_book)?;
    Some(("toolgauge.cost.usd", dollars(cost.nano_usd)))
}

/// The double nearest to this amount; its shortest text is the amount again, since it has at most 15 digits.
fn dollars(nano_usd: u64) -> Value<'static> {
    Value::Double(nano_usd as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::common::v1::any_value::Value as Kind;
    use prost::Message as _;

    use super::super::ledger::Ledger;
    use super::*;

    const START: u64 = 1_790_000_000_000_000_000;

    fn traffic(scenario: Scenario) -> Traffic {
        let broken = Break { tool: 0, from_ns: START, to_ns: START + 60_000 * MS_NS, failure: 0, share_ppm: 500_000 };
        Traffic::new(11, 5, scenario, vec![broken])
    }

    fn export(traffic: &mut Traffic, runs: u64) -> (Export, Ledger) {
        let (mut batch, mut ledger) = (Batch::default(), Ledger::default());
        for n in 0..runs {
            let run = traffic.run(START + n * 1_000 * MS_NS);
            assert!(run.end_ns > START + n * 1_000 * MS_NS);
            batch.push(run);
        }
        let export = batch.take().expect("runs have spans");
        ledger.add_all(&export.facts);
        assert!(batch.take().is_none());
        (export, ledger)
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        for scenario in [Scenario::Fleet, Scenario::Plain, Scenario::Flaky] {
            let (first, second) = (export(&mut traffic(scenario), 50).0, export(&mut traffic(scenario), 50).0);
            assert_eq!(first.body, second.body);
        }
    }

    /// What is sent, read by `prost`, is what the ledger says.
    #[test]
    fn exports_say_what_the_ledger_says() {
        for scenario in [Scenario::Fleet, Scenario::Plain, Scenario::Flaky] {
            let (export, ledger) = export(&mut traffic(scenario), 300);
            let request = ExportTraceServiceRequest::decode(&export.body[..]).expect("decodes");
            let (mut spans, mut by_operation, mut cost) = (0, BTreeMap::<String, u64>::new(), 0);
            let mut ids = std::collections::HashSet::new();
            for span in request.resource_spans.iter().flat_map(|resource| &resource.scope_spans[0].spans) {
                spans += 1;
                assert!(ids.insert(span.span_id.clone()) && span.trace_id.len() == 16);
                assert!(span.start_time_unix_nano < span.end_time_unix_nano);
                let value = |key: &str| {
                    let pair = span.attributes.iter().find(|pair| pair.key == key)?;
                    pair.value.as_ref()?.value.clone()
                };
                let operation = match value("gen_ai.operation.name") {
                    Some(Kind::StringValue(name)) => name,
                    _ => "view".to_owned(),
                };
                if operation == "execute_tool" && span.status.is_none() {
                    *by_operation.entry("ok".to_owned()).or_default() += 1;
                }
                *by_operation.entry(operation).or_default() += 1;
                if let Some(Kind::DoubleValue(dollars)) = value("toolgauge.cost.usd") {
                    cost += (dollars * 1e9).round() as u64;
                }
            }
            assert_eq!(spans, export.span_count);
            let tools = |sum: fn(&super::super::ledger::ToolSums) -> u64| ledger.tools.values().map(sum).sum::<u64>();
            let count = |name: &str| by_operation.get(name).copied().unwrap_or_default();
            assert_eq!(count("execute_tool"), tools(|sums| sums.attempts));
            assert_eq!(count("ok"), tools(|sums| sums.attempts_ok));
            assert_eq!(count("chat"), ledger.models.values().map(|sums| sums.calls).sum::<u64>());
            assert_eq!(count("invoke_agent"), ledger.agents.values().map(|(runs, _)| runs).sum::<u64>());
            assert_eq!((count("view"), cost), (ledger.views, ledger.cost_nano_usd()));
            assert_eq!(ledger.rows(), export.span_count);
            assert!(scenario != Scenario::Flaky || tools(|sums| sums.retries) > 100);
        }
    }

    #[test]
    fn a_broken_tool_fails_while_it_is_broken() {
        let mut traffic = Traffic::new(3, 5, Scenario::Plain, vec![]);
        let broken = Break { tool: 0, from_ns: START, to_ns: START + 1, failure: 2, share_ppm: 1_000_000 };
        traffic.breaks().push(broken);
        let mut failed = BTreeMap::new();
        for n in 0..400 {
            for fact in traffic.run(START + n / 200).facts {
                if let Fact::Tool { tool: 0, failure, attempt: 1, .. } = fact {
                    *failed.entry((n / 200, failure)).or_insert(0) += 1;
                }
            }
        }
        assert!(failed.keys().all(|key| *key == (0, Some(2)) || *key == (1, None)), "{failed:?}");
        assert_eq!(failed.len(), 2);
    }
}
