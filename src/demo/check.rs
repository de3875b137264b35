//! Compares what the server says, in SQL, with the ledger of what was sent: to the last call and the last billionth of a dollar.

use std::collections::BTreeMap;
use std::fmt::Debug;

use serde_json::Value;

use toolgauge_analytics::price::date_text;
use toolgauge_proto::api::costs::CostsReport;

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

/// Differences that are told one by one.
const TOLD_MAX: usize = 5;

/// Where the server and the ledger disagree.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// A question was not answered.
    #[error("compare with the ledger")]
    Api(#[from] ApiError),
    /// They disagree.
    #[error("the server and the generator's ledger disagree in {count} figures: {}", .differences.join("; "))]
    Differs {
        /// In how many.
        count: usize,
        /// The first of them.
        differences: Vec<String>,
    },
}

/// What was compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checked {
    pub(crate) rows: u64,
    pub(crate) calls: u64,
    pub(crate) figures: usize,
    pub(crate) cost_nano_usd: u64,
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

/// Billionths of a dollar; null is none.
fn money(value: &Value) -> u64 {
    let text = value.as_str().unwrap_or("0");
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    format!("{whole}{rest:0<9}").parse().unwrap_or(u64::MAX)
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
}

fn keyed(row: &[Value]) -> (u64, String) {
    (count(&row[0]), row[1].as_str().unwrap_or_default().to_owned())
}

fn named<K: Ord + Clone, V: Clone>(of: &BTreeMap<(K, &'static str), V>) -> BTreeMap<(K, String), V> {
    of.iter().map(|((first, name), value)| ((first.clone(), (*name).to_owned()), value.clone())).collect()
}

/// Costs of the sessions that the ledger has written down: those whose ids end in one of these.
fn kept_sessions() -> String {
    let endings: Vec<String> =
        (0..256).step_by(SESSIONS_KEPT as usize).map(|ending| format!("'{ending:02x}'")).collect();
    format!(
        "SELECT session_id, count(*), count(*) FILTER (WHERE outcome = 'ok'), count(cost_usd), sum(cost_usd), \
         sum(cost_usd) FILTER (WHERE outcome = 'error') FROM calls WHERE counted AND kind <> 'agent' \
         AND right(session_id, 2) IN ({}) GROUP BY 1",
        endings.join(", ")
    )
}

fn amount(text: Option<&String>) -> u64 {
    text.map_or(0, |text| money(&Value::from(text.as_str())))
}

/// Compares the costs report in every grouping.
async fn costs(api: &Api, ledger: &Ledger, comparison: &mut Comparison) -> Result<(), CheckError> {
    fn named<K: ToString>(of: &BTreeMap<K, CostSums>) -> BTreeMap<Option<String>, CostSums> {
        of.iter().map(|(name, sums)| (Some(name.to_string()), *sums)).collect()
    }
    let days = ledger.day_costs.iter().map(|(day, sums)| (Some(date_text(*day as i32)), *sums));
    let users = ledger.user_costs.iter().map(|(user, sums)| (user.map(|user| format!("user-{user:03}")), *sums));
    let services = fleet::AGENTS
        .iter()
        .filter_map(|agent| Some((Some(format!("{}-agent", agent.name)), *ledger.agent_costs.get(agent.name)?)));
    let mut all = CostSums::default();
    ledger.agent_costs.values().for_each(|sums| all.add(sums));
    for (by, expected) in [
        ("tool", named(&ledger.tool_costs)),
        ("model", named(&ledger.model_costs)),
        ("agent", named(&ledger.agent_costs)),
        ("service", services.collect()),
        ("day", days.collect()),
        ("user", users.collect()),
        // The fleet has no teams.
        ("team", BTreeMap::from([(None, all)])),
    ] {
        let path = format!("/api/v1/costs?by={by}&from=1970-01-01T00:00:00Z&to=2200-01-01T00:00:00Z");
        let report: CostsReport = api.get(&path).await?;
        let found = report.groups.into_iter().map(|group| {
            let costs = group.costs;
            let sums = CostSums {
                attempts: costs.attempts,
                attempts_ok: costs.attempts_ok,
                priced: costs.priced,
                cost_nano_usd: amount(costs.cost_usd.as_ref()),
                wasted_nano_usd: amount(costs.wasted_cost_usd.as_ref()),
            };
            (group.name, sums)
        });
        comparison.all(&format!("cost by {by}"), found.collect(), expected);
    }
    let sessions = api.sql(&kept_sessions()).await?.into_iter().map(|row| {
        let sums = CostSums {
            attempts: count(&row[1]),
            attempts_ok: count(&row[2]),
            priced: count(&row[3]),
            cost_nano_usd: money(&row[4]),
            wasted_nano_usd: money(&row[5]),
        };
        (row[0].as_str().unwrap_or_default().to_owned(), sums)
    });
    let expected = ledger.session_costs.iter().map(|(session, sums)| (format!("conv-{session:016x}"), *sums));
    comparison.all("cost of session", sessions.collect(), expected.collect());
    Ok(())
}

/// Asks for every figure of the ledger, and compares.
pub(crate) async fn check(api: &Api, ledger: &Ledger) -> Result<Checked, CheckError> {
    let mut comparison = Comparison::default();
    let tools = api.sql(TOOLS).await?.into_iter().map(|row| {
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
    comparison.all("tool", tools.collect(), named(&ledger.tools));
    let errors = api.sql(ERRORS).await?.into_iter().map(|row| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        ((text(&row[0]), text(&row[1])), count(&row[2]))
    });
    let expected = ledger.errors.iter().map(|((tool, class), n)| (((*tool).to_owned(), (*class).to_owned()), *n));
    comparison.all("errors", errors.collect(), expected.collect());
    let models = api.sql(MODELS).await?.into_iter().map(|row| {
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
    comparison.all("model", models.collect(), named(&ledger.models));
    let agents = api.sql(AGENTS).await?.into_iter().map(|row| (keyed(&row), (count(&row[2]), count(&row[3]))));
    comparison.all("agent", agents.collect(), named(&ledger.agents));
    costs(api, ledger, &mut comparison).await?;
    for row in api.sql(ROWS).await? {
        comparison.one("rows", &count(&row[0]), &ledger.rows());
        comparison.one("sessions", &count(&row[1]), &ledger.sessions);
        comparison.one("cost in 10^-9 USD", &money(&row[2]), &ledger.cost_nano_usd());
    }
    let Comparison { figures, mut differences } = comparison;
    if differences.is_empty() {
        let (rows, calls) = (ledger.rows(), ledger.counted());
        return Ok(Checked { rows, calls, figures, cost_nano_usd: ledger.cost_nano_usd() });
    }
    let count = differences.len();
    differences.truncate(TOLD_MAX);
    Err(CheckError::Differs { count, differences })
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
    fn money_is_read_to_the_last_digit() {
        let values = ["0.000000001", "12.5", "7", "1234.567890123"].map(|text| money(&Value::from(text)));
        assert_eq!(values, [1, 12_500_000_000, 7_000_000_000, 1_234_567_890_123]);
        assert_eq!(money(&Value::Null), 0);
    }
}
