//! What the generator did, written down as it makes it up, and never read back from what it sent.

use std::collections::BTreeMap;

use super::fleet::{AGENTS, FAILURES, MODELS, SERVERS, TOOLS};
use super::tariff::Cost;

const DAY_NS: u64 = 86_400_000_000_000;

/// Unless all of them are asked for, one in so many sessions has its costs written down: those whose number is a multiple.
pub(crate) const SESSIONS_KEPT: u64 = 64;

/// For whom a call was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Who {
    /// Place in [`AGENTS`].
    pub(crate) agent: usize,
    /// Number of the session, as its id writes it.
    pub(crate) session: u64,
    /// Number of the user; a call that does not say it belongs to that of the run around it.
    pub(crate) user: u64,
    /// For how many calls it stands, in millionths.
    pub(crate) weight: u64,
}

/// One thing that the generator did.
#[derive(Debug, Clone)]
pub(crate) enum Fact {
    /// An attempt of a tool.
    Tool {
        who: Who,
        tool: usize,
        end_ns: u64,
        duration_ns: u64,
        /// Place in [`FAILURES`].
        failure: Option<usize>,
        /// From 1.
        attempt: u32,
        is_final: bool,
        cost: Option<Cost>,
    },
    /// A call of a model.
    Model { who: Who, model: usize, end_ns: u64, failed: bool, input: u64, cached: u64, output: u64, cost: Cost },
    /// The run of an agent.
    Agent { agent: usize, end_ns: u64, failed: bool },
    /// One more view of a tool's call, which does not count.
    View,
    /// The first run of a session.
    Session,
}

/// Sums over tool calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ToolSums {
    pub(crate) attempts: u64,
    pub(crate) attempts_ok: u64,
    pub(crate) calls: u64,
    pub(crate) calls_ok: u64,
    pub(crate) retries: u64,
    pub(crate) priced: u64,
    pub(crate) cost_nano_usd: u64,
    pub(crate) duration_ns: u64,
}

/// What calls of tools and models have in common. An attempt is a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CostSums {
    pub(crate) attempts: u64,
    pub(crate) attempts_ok: u64,
    /// Attempts that no retry followed: logical calls.
    pub(crate) calls: u64,
    pub(crate) calls_ok: u64,
    pub(crate) retries: u64,
    pub(crate) priced: u64,
    pub(crate) priced_ok: u64,
    /// Those that a price book priced.
    pub(crate) by_book: u64,
    pub(crate) cost_nano_usd: u64,
    pub(crate) wasted_nano_usd: u64,
    /// For how many attempts, and so on, these stand, in millionths.
    pub(crate) weight: u64,
    pub(crate) weight_ok: u64,
    pub(crate) weight_calls: u64,
    pub(crate) weight_calls_ok: u64,
    pub(crate) weight_retries: u64,
}

impl CostSums {
    /// Those of one attempt.
    fn of(who: Who, failed: bool, (attempt, is_final): (u32, bool), cost: Option<Cost>) -> Self {
        let ok = u64::from(!failed);
        let (calls, retries, priced) = (u64::from(is_final), u64::from(attempt > 1), u64::from(cost.is_some()));
        let cost_nano_usd = cost.map_or(0, |cost| cost.nano_usd);
        Self {
            attempts: 1,
            attempts_ok: ok,
            calls,
            calls_ok: calls * ok,
            retries,
            priced,
            priced_ok: priced * ok,
            by_book: u64::from(cost.is_some_and(|cost| cost.by_book)),
            cost_nano_usd,
            wasted_nano_usd: if failed { cost_nano_usd } else { 0 },
            weight: who.weight,
            weight_ok: who.weight * ok,
            weight_calls: who.weight * calls,
            weight_calls_ok: who.weight * calls * ok,
            weight_retries: who.weight * retries,
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (mine, more) in [
            (&mut self.attempts, other.attempts),
            (&mut self.attempts_ok, other.attempts_ok),
            (&mut self.calls, other.calls),
            (&mut self.calls_ok, other.calls_ok),
            (&mut self.retries, other.retries),
            (&mut self.priced, other.priced),
            (&mut self.priced_ok, other.priced_ok),
            (&mut self.by_book, other.by_book),
            (&mut self.cost_nano_usd, other.cost_nano_usd),
            (&mut self.wasted_nano_usd, other.wasted_nano_usd),
            (&mut self.weight, other.weight),
            (&mut self.weight_ok, other.weight_ok),
            (&mut self.weight_calls, other.weight_calls),
            (&mut self.weight_calls_ok, other.weight_calls_ok),
            (&mut self.weight_retries, other.weight_retries),
        ] {
            *mine += more;
        }
    }
}

/// Sums over model calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ModelSums {
    pub(crate) calls: u64,
    pub(crate) calls_ok: u64,
    pub(crate) input_tokens: u64,
    pub(crate) cached_input_tokens: u64,
    pub(crate) output_tokens: u64,
    pub(crate) cost_nano_usd: u64,
}

/// Sums of facts. Days are counted from 1970-01-01 (UTC).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// By day and tool.
    pub(crate) tools: BTreeMap<(u64, &'static str), ToolSums>,
    /// By tool and class.
    pub(crate) errors: BTreeMap<(&'static str, &'static str), u64>,
    /// By day and model.
    pub(crate) models: BTreeMap<(u64, &'static str), ModelSums>,
    /// Runs, and those that went well, by day and agent.
    pub(crate) agents: BTreeMap<(u64, &'static str), (u64, u64)>,
    /// By server and tool.
    pub(crate) tool_costs: BTreeMap<(&'static str, &'static str), CostSums>,
    /// By model.
    pub(crate) model_costs: BTreeMap<&'static str, CostSums>,
    /// Tools and models by agent.
    pub(crate) agent_costs: BTreeMap<&'static str, CostSums>,
    /// Tools and models by team.
    pub(crate) team_costs: BTreeMap<Option<&'static str>, CostSums>,
    /// Tools and models by day.
    pub(crate) day_costs: BTreeMap<u64, CostSums>,
    /// Tools and models by user.
    pub(crate) user_costs: BTreeMap<u64, CostSums>,
    /// Tools and models of some sessions, or of all.
    pub(crate) session_costs: BTreeMap<u64, CostSums>,
    /// Whether that is all of them.
    pub(crate) every_session: bool,
    /// Views that do not count.
    pub(crate) views: u64,
    pub(crate) sessions: u64,
}

impl Ledger {
    /// One with the costs of every session.
    pub(crate) fn of_every_session() -> Self {
        Self { every_session: true, ..Self::default() }
    }

    /// Whether the costs of this session are written down.
    pub(crate) fn keeps(&self, session: u64) -> bool {
        self.every_session || session.is_multiple_of(SESSIONS_KEPT)
    }

    pub(crate) fn add(&mut self, fact: &Fact) {
        match *fact {
            Fact::Tool { who, tool, end_ns, duration_ns, failure, attempt, is_final, cost } => {
                let name = TOOLS[tool].name;
                let costs = CostSums::of(who, failure.is_some(), (attempt, is_final), cost);
                self.spent(who, end_ns, &costs);
                self.tool_costs.entry((SERVERS[TOOLS[tool].server].name, name)).or_default().add(&costs);
                let sums = self.tools.entry((end_ns / DAY_NS, name)).or_default();
                let ok = u64::from(failure.is_none());
                sums.attempts += 1;
                sums.attempts_ok += ok;
                sums.calls += u64::from(is_final);
                sums.calls_ok += if is_final { ok } else { 0 };
                sums.retries += u64::from(attempt > 1);
                sums.priced += costs.priced;
                sums.cost_nano_usd += costs.cost_nano_usd;
                sums.duration_ns += duration_ns;
                if let Some(failure) = failure {
                    *self.errors.entry((name, FAILURES[failure].class)).or_default() += 1;
                }
            }
            Fact::Model { who, model, end_ns, failed, input, cached, output, cost } => {
                // Nobody tries a model again.
                let costs = CostSums::of(who, failed, (1, true), Some(cost));
                self.spent(who, end_ns, &costs);
                self.model_costs.entry(MODELS[model].name).or_default().add(&costs);
                let sums = self.models.entry((end_ns / DAY_NS, MODELS[model].name)).or_default();
                sums.calls += 1;
                sums.calls_ok += u64::from(!failed);
                sums.input_tokens += input;
                sums.cached_input_tokens += cached;
                sums.output_tokens += output;
                sums.cost_nano_usd += costs.cost_nano_usd;
            }
            Fact::Agent { agent, end_ns, failed } => {
                let (runs, ok) = self.agents.entry((end_ns / DAY_NS, AGENTS[agent].name)).or_default();
                *runs += 1;
                *ok += u64::from(!failed);
            }
            Fact::View => self.views += 1,
            Fact::Session => self.sessions += 1,
        }
    }

    /// Writes down a call of a tool or a model for all that they have in common.
    fn spent(&mut self, who: Who, end_ns: u64, sums: &CostSums) {
        let agent = &AGENTS[who.agent];
        self.agent_costs.entry(agent.name).or_default().add(sums);
        self.team_costs.entry(agent.team).or_default().add(sums);
        self.day_costs.entry(end_ns / DAY_NS).or_default().add(sums);
        self.user_costs.entry(who.user).or_default().add(sums);
        if self.keeps(who.session) {
            self.session_costs.entry(who.session).or_default().add(sums);
        }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        for (key, sums) in other.tools {
            let all = self.tools.entry(key).or_default();
            all.attempts += sums.attempts;
            all.attempts_ok += sums.attempts_ok;
            all.calls += sums.calls;
            all.calls_ok += sums.calls_ok;
            all.retries += sums.retries;
            all.priced += sums.priced;
            all.cost_nano_usd += sums.cost_nano_usd;
            all.duration_ns += sums.duration_ns;
        }
        for (key, count) in other.errors {
            *self.errors.entry(key).or_default() += count;
        }
        for (key, sums) in other.models {
            let all = self.models.entry(key).or_default();
            all.calls += sums.calls;
            all.calls_ok += sums.calls_ok;
            all.input_tokens += sums.input_tokens;
            all.cached_input_tokens += sums.cached_input_tokens;
            all.output_tokens += sums.output_tokens;
            all.cost_nano_usd += sums.cost_nano_usd;
        }
        for (key, (runs, ok)) in other.agents {
            let all = self.agents.entry(key).or_default();
            *all = (all.0 + runs, all.1 + ok);
        }
        fn merge<K: Ord>(all: &mut BTreeMap<K, CostSums>, other: BTreeMap<K, CostSums>) {
            for (key, sums) in other {
                all.entry(key).or_default().add(&sums);
            }
        }
        merge(&mut self.tool_costs, other.tool_costs);
        merge(&mut self.model_costs, other.model_costs);
        merge(&mut self.agent_costs, other.agent_costs);
        merge(&mut self.team_costs, other.team_costs);
        merge(&mut self.day_costs, other.day_costs);
        merge(&mut self.user_costs, other.user_costs);
        merge(&mut self.session_costs, other.session_costs);
        self.views += other.views;
        self.sessions += other.sessions;
    }

    pub(crate) fn add_all(&mut self, facts: &[Fact]) {
        for fact in facts {
            self.add(fact);
        }
    }

    /// Calls that count, of tools, models and agents: attempts, not logical calls.
    pub(crate) fn counted(&self) -> u64 {
        let tools: u64 = self.tools.values().map(|sums| sums.attempts).sum();
        let models: u64 = self.models.values().map(|sums| sums.calls).sum();
        let agents: u64 = self.agents.values().map(|(runs, _)| runs).sum();
        tools + models + agents
    }

    /// Rows of `calls`.
    pub(crate) fn rows(&self) -> u64 {
        self.counted() + self.views
    }

    /// All known cost, in billionths of a dollar.
    pub(crate) fn cost_nano_usd(&self) -> u64 {
        let tools: u64 = self.tools.values().map(|sums| sums.cost_nano_usd).sum();
        tools + self.models.values().map(|sums| sums.cost_nano_usd).sum::<u64>()
    }
}

/// How many of these facts are calls that count.
pub(crate) fn counted(facts: &[Fact]) -> u64 {
    facts.iter().filter(|fact| !matches!(fact, Fact::View | Fact::Session)).count() as u64
}
