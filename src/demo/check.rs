//! Compares what a server says with the ledger of what was sent: to the last call and the last billionth of a dollar.
//!
//! What is asked is SQL, the costs report in every grouping and the tools report; of whom is another matter: the demo asks its server
//! through the HTTP API. Derived figures (per call, per success, coverage) are made here of the ledger once more.

use std::collections::BTreeMap;
use std::fmt::Debug;

use serde_json::Value;

use toolgauge_analytics::price::date_text;
use toolgauge_proto::api::costs::{Costs, CostsReport};
use toolgauge_proto::api::{ToolReport, ToolsReport};

use crate::client::{Api, ApiError};
use crate::loadgen::fleet;
use crate::loadgen::ledger::{CostSums, Ledger, ModelSums, SESSIONS_KEPT, ToolSums};

const TOOLS: &str = "SELECT CAST(date AS INT), tool_name, count(*), count(*) FILTER (WHERE outcome = 'ok'), \
    count(*) FILTER (WHERE final), count(*) FILTER (WHERE final AND outcome = 'ok'), \
    count(*) FILTER (WHERE attempt > 1), count(cost_usd), sum(cost_usd), sum(duration_ns) FROM tool_calls GROUP BY 1, 2";
const ERRORS: &str = "SELECT tool_name, error_class, count(*) FROM tool_calls WHERE outcome = 'error' GROUP BY 1, 2";
const MODELS: &str = "SELECT CAST(date AS INT), model, count(*), count(*) FILTER (WHERE outcome = 'ok'), \
    sum(input_tokens), sum(cached_input_tokens), sum(output_tokens), sum(cost_usd) FROM model_calls GROUP BY 1, 2";
const AGENTS: &str = "SELECT CAST(date AS INT), agent_name, count(*), count(*) FILTER (WHERE outcome = 'ok') \
    FROM agent_runs GROUP BY 1, 2";
const ROWS: &str = "SELECT count(*), count(DISTINCT session_id), sum(cost_usd) FROM calls";
/// What the groups of costs have in common, of tools and models.
const GROUPS: &str = "SELECT {name}, count(*), count(*) FILTER (WHERE outcome = 'ok'), \
    count(*) FILTER (WHERE final), count(*) FILTER (WHERE final AND outcome = 'ok'), \
    count(*) FILTER (WHERE attempt > 1), count(cost_usd), count(cost_usd) FILTER (WHERE outcome = 'ok'), \
    count(*) FILTER (WHERE cost_source = 'price_book'), sum(cost_usd), sum(cost_usd) FILTER (WHERE outcome = 'error'), \
    sum(weight), sum(weight) FILTER (WHERE outcome = 'ok'), sum(weight) FILTER (WHERE final), \
    sum(weight) FILTER (WHERE final AND outcome = 'ok'), sum(weight) FILTER (WHERE attempt > 1) \
    FROM calls WHERE counted AND {which} GROUP BY 1";
const TOOLS_AND_MODELS: &str = "kind IN ('tool', 'model')";
/// Words of the costs report.
const BY: [&str; 8] = ["tool", "service", "model", "agent", "team", "session", "user", "day"];
/// All of time.
const ALWAYS: &str = "from=1970-01-01T00:00:00Z&to=2200-01-01T00:00:00Z";
/// A cost per success is told from this coverage on, in percent.
const COVERAGE_MIN: u64 = 80;

/// Differences that are told one by one.
const TOLD_MAX: usize = 5;

/// Where the server and the ledger disagree.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// They disagree.
    #[error("the server and the generator's ledger disagree in {count} figures: {}", .differences.join("; "))]
    Differs {
        /// In how many.
        count: usize,
        /// The first of them.
        differences: Vec<String>,
    },
    /// Not all that is compared was answered.
    #[error("the server answered {found} questions of {asked}")]
    Missing {
        /// How many were answered.
        found: usize,
        /// How many were asked.
        asked: usize,
    },
}

/// What was compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Rows of `calls`.
    pub rows: u64,
    /// Calls that count.
    pub calls: u64,
    /// Figures that were compared.
    pub figures: usize,
    /// What all of them cost, in billionths of a dollar.
    pub cost_nano_usd: u64,
}

/// What a server says.
#[derive(Debug)]
pub struct Answers {
    /// The rows that answer each of [`Answers::statements`].
    pub rows: Vec<Vec<Vec<Value>>>,
    /// The costs report over all of time, in every grouping.
    pub costs: Vec<CostsReport>,
    /// The tools report over all of time; each has to say the same.
    pub tools: Vec<ToolsReport>,
}

fn groups(name: &str, which: &str) -> String {
    GROUPS.replace("{name}", name).replace("{which}", which)
}

/// Calls of the sessions that every ledger has written down: those whose ids end in one of these.
fn kept_sessions() -> String {
    let endings: Vec<String> =
        (0..256).step_by(SESSIONS_KEPT as usize).map(|ending| format!("'{ending:02x}'")).collect();
    format!("{TOOLS_AND_MODELS} AND right(session_id, 2) IN ({})", endings.join(", "))
}

impl Answers {
    /// What is asked in SQL.
    #[must_use]
    pub fn statements() -> Vec<String> {
        let mut statements: Vec<String> = [TOOLS, ERRORS, MODELS, AGENTS, ROWS].map(str::to_owned).into();
        statements.extend([
            groups("tool_name", "kind = 'tool'"),
            groups("tool_server", "kind = 'tool'"),
            groups("model", "kind = 'model'"),
            groups("service_name", TOOLS_AND_MODELS),
            groups("agent_name", TOOLS_AND_MODELS),
            groups("team", TOOLS_AND_MODELS),
            groups("session_id", &kept_sessions()),
            groups("user_id", TOOLS_AND_MODELS),
            groups("CAST(date AS VARCHAR)", TOOLS_AND_MODELS),
        ]);
        statements
    }

    /// Compares every figure.
    pub(crate) fn check(self, ledger: &Ledger) -> Result<Checked, CheckError> {
        let asked = Self::statements().len();
        let found = self.rows.len();
        let missing = CheckError::Missing { found, asked };
        let Ok([tools, errors, models, agents, rows, groups @ ..]) = <[_; 14]>::try_from(self.rows) else {
            return Err(missing);
        };
        let mut comparison = Comparison::default();
        comparison.tools(tools, errors, ledger);
        comparison.models_and_agents(models, agents, ledger);
        for row in rows {
            comparison.one("rows", &count(&row[0]), &ledger.rows());
            comparison.one("sessions", &count(&row[1]), &ledger.sessions);
            comparison.one("cost in 10^-9 USD", &money(&row[2]), &ledger.cost_nano_usd());
        }
        comparison.groups(groups, ledger);
        let words: Vec<&str> = self.costs.iter().map(|report| report.by.as_str()).collect();
        comparison.one("groupings", &words, &BY.to_vec());
        self.costs.iter().for_each(|report| comparison.costs(report, ledger));
        comparison.one("a tools report", &self.tools.is_empty(), &false);
        self.tools.iter().for_each(|report| comparison.tools_report(&report.tools, ledger));
        let Comparison { figures, mut differences } = comparison;
        if differences.is_empty() {
            let (rows, calls) = (ledger.rows(), ledger.counted());
            return Ok(Checked { rows, calls, figures, cost_nano_usd: ledger.cost_nano_usd() });
        }
        let count = differences.len();
        differences.truncate(TOLD_MAX);
        Err(CheckError::Differs { count, differences })
    }
}

/// Asks a server.
pub(super) async fn ask(api: &Api) -> Result<Answers, ApiError> {
    let mut answers = Answers { rows: Vec::new(), costs: Vec::new(), tools: Vec::new() };
    for statement in Answers::statements() {
        answers.rows.push(api.sql(&statement).await?);
    }
    for by in BY {
        answers.costs.push(api.get(&format!("/api/v1/costs?by={by}&{ALWAYS}")).await?);
    }
    answers.tools.push(api.get(&format!("/api/v1/tools?{ALWAYS}")).await?);
    Ok(answers)
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A decimal in units of so many places; null is none.
fn decimal(value: &Value, places: usize) -> u64 {
    let text = value.as_str().unwrap_or("0");
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    format!("{whole}{rest:0<places$}").parse().unwrap_or(u64::MAX)
}

/// Billionths of a dollar.
fn money(value: &Value) -> u64 {
    decimal(value, 9)
}

/// Millionths.
fn weight(text: &str) -> u64 {
    decimal(&Value::from(text), 6)
}

/// An amount as reports write it: without trailing zeros.
fn amount(nano_usd: u64) -> String {
    let text = format!("{}.{:09}", nano_usd / 1_000_000_000, nano_usd % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// An amount for each of so many, half to even.
fn each(nano_usd: u64, of: u64) -> Option<String> {
    let (whole, rest) = (nano_usd.checked_div(of)?, nano_usd.checked_rem(of)?);
    let up = u128::from(rest) * 2 > of.into() || (u128::from(rest) * 2 == of.into() && whole % 2 == 1);
    Some(amount(whole + u64::from(up)))
}

/// What a report says of a group, exact figures as they are.
#[derive(Debug, Clone, Default, PartialEq)]
struct Figures {
    attempts: u64,
    attempts_ok: u64,
    priced: u64,
    unpriced: u64,
    priced_ok: u64,
    cost: Option<String>,
    per_call: Option<String>,
    per_success: Option<String>,
    wasted: Option<String>,
    /// In millionths.
    coverage: Option<u64>,
}

fn millionths(ratio: Option<f64>) -> Option<u64> {
    ratio.map(|ratio| (ratio * 1e6).round() as u64)
}

fn share(part: u64, of: u64) -> Option<u64> {
    millionths((of > 0).then(|| part as f64 / of as f64))
}

impl Figures {
    fn told(costs: &Costs) -> Self {
        Self {
            attempts: costs.attempts,
            attempts_ok: costs.attempts_ok,
            priced: costs.priced,
            unpriced: costs.unpriced,
            priced_ok: costs.priced_ok,
            cost: costs.cost_usd.clone(),
            per_call: costs.cost_per_call_usd.clone(),
            per_success: costs.cost_per_success_usd.clone(),
            wasted: costs.wasted_cost_usd.clone(),
            coverage: millionths(costs.cost_coverage),
        }
    }

    fn expected(sums: &CostSums) -> Self {
        let known = sums.priced > 0;
        // Of failures that all have no price nobody knows what they wasted; without failures it is nothing.
        let wasted = sums.priced > sums.priced_ok || (known && sums.attempts == sums.attempts_ok);
        let enough = sums.priced * 100 >= COVERAGE_MIN * sums.attempts;
        Self {
            attempts: sums.attempts,
            attempts_ok: sums.attempts_ok,
            priced: sums.priced,
            unpriced: sums.attempts - sums.priced,
            priced_ok: sums.priced_ok,
            cost: known.then(|| amount(sums.cost_nano_usd)),
            per_call: each(sums.cost_nano_usd, sums.priced),
            per_success: each(sums.cost_nano_usd, sums.priced_ok).filter(|_| enough),
            wasted: wasted.then(|| amount(sums.wasted_nano_usd)),
            coverage: share(sums.priced, sums.attempts),
        }
    }
}

type Grouped = BTreeMap<Option<String>, CostSums>;

/// The ledger by one of the words of the costs report; sessions are those that it has written down.
fn by(word: &str, ledger: &Ledger) -> Grouped {
    fn named<K: ToString>(of: &BTreeMap<K, CostSums>) -> Grouped {
        of.iter().map(|(name, sums)| (Some(name.to_string()), *sums)).collect()
    }
    match word {
        "tool" => {
            let mut tools = Grouped::new();
            for ((_, tool), sums) in &ledger.tool_costs {
                tools.entry(Some((*tool).to_owned())).or_default().add(sums);
            }
            tools
        }
        "server" => {
            let mut servers = Grouped::new();
            for ((server, _), sums) in &ledger.tool_costs {
                servers.entry(Some((*server).to_owned())).or_default().add(sums);
            }
            servers
        }
        "model" => named(&ledger.model_costs),
        "agent" => named(&ledger.agent_costs),
        "service" => fleet::AGENTS
            .iter()
            .filter_map(|agent| Some((Some(format!("{}-agent", agent.name)), *ledger.agent_costs.get(agent.name)?)))
            .collect(),
        "team" => ledger.team_costs.iter().map(|(team, sums)| (team.map(str::to_owned), *sums)).collect(),
        "session" => {
            let sums = ledger.session_costs.iter();
            sums.map(|(session, sums)| (Some(format!("conv-{session:016x}")), *sums)).collect()
        }
        "user" => {
            let sums = ledger.user_costs.iter();
            sums.map(|(user, sums)| (Some(format!("user-{user:03}")), *sums)).collect()
        }
        "day" => ledger.day_costs.iter().map(|(day, sums)| (Some(date_text(*day as i32)), *sums)).collect(),
        _ => Grouped::new(),
    }
}

/// The number of a session, of its id.
fn session_number(name: Option<&String>) -> Option<u64> {
    u64::from_str_radix(name?.strip_prefix("conv-")?, 16).ok()
}

#[derive(Default)]
struct Comparison {
    figures: usize,
    differences: Vec<String>,
}

impl Comparison {
    fn one<T: PartialEq + Debug>(&mut self, what: &str, found: &T, expected: &T) {
        self.figures += 1;
        if found != expected {
            self.differences.push(format!("{what} is {found:?}, the ledger has {expected:?}"));
        }
    }

    /// Compares by key; what only one side has differs from nothing.
    fn all<K: Ord + Debug, V: PartialEq + Debug + Default>(
        &mut self,
        what: &str,
        found: BTreeMap<K, V>,
        expected: BTreeMap<K, V>,
    ) {
        let none = V::default();
        for (key, value) in &expected {
            self.one(&format!("{what} {key:?}"), found.get(key).unwrap_or(&none), value);
        }
        for (key, value) in found.iter().filter(|(key, _)| !expected.contains_key(key)) {
            self.one(&format!("{what} {key:?}"), value, &none);
        }
    }

    fn tools(&mut self, tools: Vec<Vec<Value>>, errors: Vec<Vec<Value>>, ledger: &Ledger) {
        let tools = tools.into_iter().map(|row| {
            let sums = ToolSums {
                attempts: count(&row[2]),
                attempts_ok: count(&row[3]),
                calls: count(&row[4]),
                calls_ok: count(&row[5]),
                retries: count(&row[6]),
                priced: count(&row[7]),
                cost_nano_usd: money(&row[8]),
                duration_ns: count(&row[9]),
            };
            (keyed(&row), sums)
        });
        self.all("tool", tools.collect(), named(&ledger.tools));
        let errors = errors.into_iter().map(|row| ((text(&row[0]), text(&row[1])), count(&row[2])));
        let expected = ledger.errors.iter().map(|((tool, class), n)| (((*tool).to_owned(), (*class).to_owned()), *n));
        self.all("errors", errors.collect(), expected.collect());
    }

    fn models_and_agents(&mut self, models: Vec<Vec<Value>>, agents: Vec<Vec<Value>>, ledger: &Ledger) {
        let models = models.into_iter().map(|row| {
            let sums = ModelSums {
                calls: count(&row[2]),
                calls_ok: count(&row[3]),
                input_tokens: count(&row[4]),
                cached_input_tokens: count(&row[5]),
                output_tokens: count(&row[6]),
                cost_nano_usd: money(&row[7]),
            };
            (keyed(&row), sums)
        });
        self.all("model", models.collect(), named(&ledger.models));
        let agents = agents.into_iter().map(|row| (keyed(&row), (count(&row[2]), count(&row[3]))));
        self.all("agent", agents.collect(), named(&ledger.agents));
    }

    /// The sums of every grouping, by SQL.
    fn groups(&mut self, groups: [Vec<Vec<Value>>; 9], ledger: &Ledger) {
        let words = ["tool", "server", "model", "service", "agent", "team", "session", "user", "day"];
        for (word, rows) in words.into_iter().zip(groups) {
            let found = rows.into_iter().map(|row| {
                let micro = |at: usize| decimal(&row[at], 6);
                let sums = CostSums {
                    attempts: count(&row[1]),
                    attempts_ok: count(&row[2]),
                    calls: count(&row[3]),
                    calls_ok: count(&row[4]),
                    retries: count(&row[5]),
                    priced: count(&row[6]),
                    priced_ok: count(&row[7]),
                    by_book: count(&row[8]),
                    cost_nano_usd: money(&row[9]),
                    wasted_nano_usd: money(&row[10]),
                    weight: micro(11),
                    weight_ok: micro(12),
                    weight_calls: micro(13),
                    weight_calls_ok: micro(14),
                    weight_retries: micro(15),
                };
                (row[0].as_str().map(str::to_owned), sums)
            });
            let mut expected = by(word, ledger);
            if word == "session" {
                // What is asked by SQL is no more than every ledger has.
                expected.retain(|name, _| {
                    session_number(name.as_ref()).is_some_and(|number| number.is_multiple_of(SESSIONS_KEPT))
                });
            }
            self.all(&format!("SQL by {word}"), found.collect(), expected);
        }
    }

    /// A costs report.
    fn costs(&mut self, report: &CostsReport, ledger: &Ledger) {
        let word = report.by.as_str();
        let mut all = CostSums::default();
        match word {
            "tool" => ledger.tool_costs.values().for_each(|sums| all.add(sums)),
            "model" => ledger.model_costs.values().for_each(|sums| all.add(sums)),
            _ => ledger.day_costs.values().for_each(|sums| all.add(sums)),
        }
        self.one(&format!("cost of all by {word}"), &Figures::told(&report.total), &Figures::expected(&all));
        let is_kept =
            |name: Option<&String>| word != "session" || session_number(name).is_none_or(|number| ledger.keeps(number));
        let mut found = BTreeMap::new();
        for group in report.groups.iter().filter(|group| is_kept(group.name.as_ref())) {
            if word == "tool" {
                let key = |tool: &&fleet::Tool| Some(tool.name) == group.name.as_deref();
                let server = fleet::TOOLS.iter().find(key).map(|tool| fleet::SERVERS[tool.server].name);
                self.one(&format!("server of {:?}", group.name), &group.tool_server.as_deref(), &server);
            }
            found.insert(group.name.clone(), Figures::told(&group.costs));
        }
        let mut expected = by(word, ledger);
        if report.truncated {
            // A limit cut the list; what is in it is whole.
            expected.retain(|name, _| found.contains_key(name));
            self.one(&format!("any cost by {word}"), &expected.is_empty(), &false);
        }
        let expected = expected.into_iter().map(|(name, sums)| (name, Figures::expected(&sums)));
        self.all(&format!("cost by {word}"), found, expected.collect());
    }

    /// A tools report.
    fn tools_report(&mut self, tools: &[ToolReport], ledger: &Ledger) {
        let name = |tool: &ToolReport| {
            (tool.tool_server.clone().unwrap_or_default(), tool.tool_name.clone().unwrap_or_default())
        };
        let mut found: BTreeMap<_, _> = tools.iter().map(|tool| (name(tool), tool)).collect();
        for ((server, tool), sums) in &ledger.tool_costs {
            let Some(told) = found.remove(&((*server).to_owned(), (*tool).to_owned())) else {
                self.one(&format!("{tool} in the tools report"), &None, &Some(sums));
                continue;
            };
            self.tool_report(told, tool, sums);
            let expected = ledger.errors.iter().filter(|((of, _), _)| of == tool);
            let expected = expected.map(|((_, class), failed)| ((*class).to_owned(), *failed)).collect();
            self.one(&format!("errors of {tool}"), &told.errors, &expected);
        }
        self.one("further tools", &found.keys().collect::<Vec<_>>(), &Vec::new());
    }

    fn tool_report(&mut self, told: &ToolReport, tool: &str, sums: &CostSums) {
        let found = Figures {
            attempts: told.attempts,
            attempts_ok: told.attempts_ok,
            priced: sums.priced,
            unpriced: sums.attempts - sums.priced,
            priced_ok: sums.priced_ok,
            cost: told.cost_usd.clone(),
            per_call: told.cost_per_call_usd.clone(),
            per_success: told.cost_per_success_usd.clone(),
            wasted: told.wasted_cost_usd.clone(),
            coverage: millionths(told.cost_coverage),
        };
        self.one(&format!("report of {tool}"), &found, &Figures::expected(sums));
        let found = (
            [told.calls, told.calls_ok, told.retries.attempts],
            [told.success_ratio_attempt, told.success_ratio_logical, told.retry_ratio].map(millionths),
        );
        let expected = (
            [sums.calls, sums.calls_ok, sums.retries],
            [
                share(sums.attempts_ok, sums.attempts),
                share(sums.calls_ok, sums.calls),
                share(sums.retries, sums.attempts),
            ],
        );
        self.one(&format!("calls of {tool}"), &found, &expected);
        let found = told.weighted.as_ref().map(|told| {
            let sums = [&told.attempts, &told.attempts_ok, &told.calls, &told.calls_ok, &told.retries];
            let ratios = [told.success_ratio_attempt, told.success_ratio_logical, told.retry_ratio];
            (sums.map(|sum| weight(sum)), ratios.map(millionths))
        });
        let weights = [sums.weight, sums.weight_ok, sums.weight_calls, sums.weight_calls_ok, sums.weight_retries];
        let sampled = sums.weight != sums.attempts * 1_000_000;
        let expected = sampled.then(|| {
            let ratios = [
                share(sums.weight_ok, sums.weight),
                share(sums.weight_calls_ok, sums.weight_calls),
                share(sums.weight_retries, sums.weight),
            ];
            (weights, ratios)
        });
        self.one(&format!("weights of {tool}"), &found, &expected);
        self.one(&format!("{tool} is sampled"), &told.sampled, &sampled);
    }
}

fn keyed(row: &[Value]) -> (u64, String) {
    (count(&row[0]), text(&row[1]))
}

fn named<K: Ord + Clone, V: Clone>(of: &BTreeMap<(K, &'static str), V>) -> BTreeMap<(K, String), V> {
    of.iter().map(|((first, name), value)| ((first.clone(), (*name).to_owned()), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_or_is_on_one_side_only_is_told() {
        let mut comparison = Comparison::default();
        let of = |pairs: &[(u64, u64)]| pairs.iter().copied().collect::<BTreeMap<_, _>>();
        comparison.all("same", of(&[(1, 5), (2, 6)]), of(&[(1, 5), (2, 6)]));
        assert!(comparison.differences.is_empty());
        comparison.all("tool", of(&[(1, 5), (3, 7)]), of(&[(1, 4), (2, 6)]));
        assert_eq!((comparison.figures, comparison.differences.len()), (5, 3));
        assert_eq!(comparison.differences[0], "tool 1 is 5, the ledger has 4");
    }

    #[test]
    fn money_is_read_and_written_to_the_last_digit() {
        let texts = ["0.000000001", "12.5", "7", "1234.567890123"];
        let amounts = [1, 12_500_000_000, 7_000_000_000, 1_234_567_890_123];
        assert_eq!(texts.map(|text| money(&Value::from(text))), amounts);
        assert_eq!(amounts.map(amount), texts);
        assert_eq!(money(&Value::Null), 0);
        assert_eq!((weight("1.5"), weight("3")), (1_500_000, 3_000_000));
        assert_eq!(
            [(5, 2), (7, 2), (8, 3), (7, 3)].map(|(nano, of)| each(nano, of).unwrap()),
            ["0.000000002", "0.000000004", "0.000000003", "0.000000002"]
        );
        assert_eq!(each(5, 0), None);
    }

    #[test]
    fn derived_figures_are_those_of_the_definition() {
        let sums = CostSums {
            attempts: 100,
            attempts_ok: 98,
            priced: 100,
            priced_ok: 98,
            cost_nano_usd: 300_000_000,
            wasted_nano_usd: 6_000_000,
            ..CostSums::default()
        };
        let figures = Figures::expected(&sums);
        // As in docs/accounting.md.
        let told = [figures.cost, figures.per_call, figures.per_success, figures.wasted].map(Option::unwrap);
        assert_eq!(told, ["0.3", "0.003", "0.003061224", "0.006"]);
        let half = Figures::expected(&CostSums { priced: 79, priced_ok: 78, ..sums });
        assert_eq!((half.per_success, half.coverage), (None, Some(790_000)));
        let none = Figures::expected(&CostSums { priced: 0, priced_ok: 0, ..sums });
        assert_eq!((none.cost, none.per_call, none.wasted, none.coverage), (None, None, None, Some(0)));
    }
}
