//! What rules are: thresholds, budgets of money and heartbeats, as their documents define them.

use std::sync::Arc;

use toolgauge_analytics::alert::Patience;
use toolgauge_analytics::budget::{Ratio, Severity};
use toolgauge_analytics::calendar::Calendar;
use toolgauge_analytics::threshold::{Figure, Op, Quantile};
use toolgauge_analytics::window::Window;

use crate::engine::Condition;
use crate::slo::definition::Where;
use crate::slo::fault::Place;

/// The `apiVersion` of documents of rules.
pub const VERSION: &str = "toolgauge/v1";
/// Most rules of all kinds together.
pub const RULES_MAX: usize = 1_000;
/// Most columns that a rule is grouped by.
pub const BY_MAX: usize = 3;
/// Groups of a rule that does not say how many, and most that it can ask for.
pub const GROUPS_DEFAULT: usize = 100;
/// See [`GROUPS_DEFAULT`].
pub const GROUPS_MAX: usize = 1_000;
/// Longest window.
pub const WINDOW_MAX: Window = Window::D30;
/// Most minutes, over all groups, that a rule may have to keep: some 100 bytes each.
pub const MINUTES_MAX: u64 = 1_000_000;
/// The group of everything that found no place among the groups of a rule.
pub const OTHER: &str = "__other__";

/// The columns that rules can be grouped by, with the label of each.
pub const BY: [(&str, &str); 8] = [
    ("service_name", "service"),
    ("tool_name", "tool"),
    ("tool_server", "server"),
    ("agent_name", "agent"),
    ("model", "model"),
    ("team", "team"),
    ("environment", "environment"),
    ("tenant", "tenant"),
];

/// Which kinds of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Calls {
    /// Tool calls.
    Tool,
    /// Calls of models.
    Model,
    /// Runs of agents.
    Agent,
    /// Tool calls and calls of models: what costs.
    All,
}

impl Calls {
    /// The spellings in documents.
    pub const WORDS: [&'static str; 4] = ["tool", "model", "agent", "all"];

    /// The spelling in documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Model => "model",
            Self::Agent => "agent",
            Self::All => "all",
        }
    }

    /// From its spelling.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Tool, Self::Model, Self::Agent, Self::All].into_iter().find(|calls| calls.as_str() == word)
    }

    /// Whether a kind is one of them.
    #[must_use]
    pub fn has(self, kind: &str) -> bool {
        if self == Self::All { kind != "agent" } else { kind == self.as_str() }
    }

    /// The condition in SQL.
    #[must_use]
    pub fn sql(self) -> String {
        if self == Self::All { "kind <> 'agent'".to_owned() } else { format!("kind = '{}'", self.as_str()) }
    }
}

/// Which of the calls are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hit {
    /// None: only costs are summed.
    Nothing,
    /// Those that failed.
    Error,
    /// Those whose attempt is above 1.
    Retry,
    /// Those that took so many nanoseconds or longer.
    SlowGte(i64),
    /// Those that took longer.
    SlowGt(i64),
}

impl Hit {
    /// The condition in SQL.
    #[must_use]
    pub fn sql(self) -> String {
        match self {
            Self::Nothing => "FALSE".to_owned(),
            Self::Error => "outcome = 'error'".to_owned(),
            Self::Retry => "attempt > 1".to_owned(),
            Self::SlowGte(ns) => format!("duration_ns >= {ns}"),
            Self::SlowGt(ns) => format!("duration_ns > {ns}"),
        }
    }

    /// What annotations call them.
    #[must_use]
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Nothing => "calls",
            Self::Error => "errors",
            Self::Retry => "retries",
            Self::SlowGte(_) | Self::SlowGt(_) => "slow_calls",
        }
    }
}

/// Which rows are summed, and by what.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Kinds.
    pub calls: Calls,
    /// Only final attempts: a call with its retries is one.
    pub final_only: bool,
    /// A condition of the user.
    pub filter: Option<Filter>,
    /// Columns that it is grouped by, of [`BY`].
    pub by: Vec<&'static str>,
    /// Most groups.
    pub groups_max: usize,
    /// What is looked for.
    pub hit: Hit,
}

/// A condition and its compiled form.
#[derive(Debug, Clone)]
pub struct Filter {
    /// As it was written.
    pub text: Where,
    /// Compiled for the columns of `calls`.
    pub condition: Condition,
}

/// What a figure of a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionFigure {
    /// Calls of models in it.
    Iterations,
    /// Its known cost, in dollars.
    Cost,
    /// From the start of its first call to the end of its last one, in seconds.
    Duration,
}

/// What a threshold is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Calls: evaluated from memory.
    Calls(Figure),
    /// A quantile over sessions: evaluated by a query, less often.
    Sessions(SessionFigure, Quantile),
}

/// What all kinds of rules have.
#[derive(Debug, Clone)]
pub struct Header {
    /// Its name, unique among the rules of its kind; the label `slo`.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// The label `service`, if it has one.
    pub service: Option<String>,
    /// Whom it calls.
    pub severity: Severity,
    /// How patient it is.
    pub patience: Patience,
    /// Its file.
    pub file: Arc<str>,
    /// Where in it.
    pub place: Place,
}

/// A threshold on a figure over a window.
#[derive(Debug, Clone)]
pub struct ThresholdRule {
    /// What all rules have.
    pub header: Header,
    /// The metric, as the document calls it.
    pub metric: &'static str,
    /// What it is made of.
    pub measure: Measure,
    /// Which rows.
    pub selection: Selection,
    /// How it is compared.
    pub op: Op,
    /// With what; durations are in seconds, money in dollars.
    pub threshold: Ratio,
    /// The same as it was written.
    pub threshold_text: String,
    /// Over which window.
    pub window: Window,
    /// It is not reached by fewer calls, or sessions.
    pub events_min: u64,
}

impl ThresholdRule {
    /// The quantile, if it is one.
    #[must_use]
    pub const fn quantile(&self) -> Option<Quantile> {
        match self.measure {
            Measure::Calls(Figure::Quantile { quantile }) | Measure::Sessions(_, quantile) => Some(quantile),
            Measure::Calls(_) => None,
        }
    }
}

/// Money that may be spent in each period of a calendar.
#[derive(Debug, Clone)]
pub struct CostBudget {
    /// What all rules have.
    pub header: Header,
    /// How much, in units of 10^-9 dollars.
    pub amount: u128,
    /// The periods.
    pub calendar: Calendar,
    /// What the document calls them.
    pub period: &'static str,
    /// Which calls.
    pub selection: Selection,
}

impl CostBudget {
    /// Days of a period, months with 30.
    #[must_use]
    pub const fn days(&self) -> u32 {
        self.calendar.nominal().minutes() / 1_440
    }
}

/// How long something may be silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SilenceLimit {
    /// As its own gaps say.
    Auto,
    /// So many minutes.
    Minutes(u64),
    /// For ever.
    Never,
}

/// Who must be heard of.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    /// What all rules have; its service is a pattern.
    pub header: Header,
    /// Pattern of services; `*` stands for any text.
    pub service: String,
    /// Pattern of tools; `None` for the service as a whole.
    pub tool: Option<String>,
    /// Pattern of the tools' servers; `None` for any, or none.
    pub server: Option<String>,
    /// Pattern of tenants; `None` for any.
    pub tenant: Option<String>,
    /// How long it may be silent.
    pub limit: SilenceLimit,
}

impl Heartbeat {
    /// How many of its patterns leave nothing open: the rule that says most wins.
    #[must_use]
    pub fn exactness(&self) -> usize {
        let patterns = [Some(&self.service), self.tool.as_ref(), self.server.as_ref(), self.tenant.as_ref()];
        patterns
            .into_iter()
            .flatten()
            .map(|pattern| if pattern.contains('*') { usize::from(pattern != "*") } else { 2 })
            .sum()
    }
}

/// Whether a text fits a pattern, in which `*` stands for any text.
#[must_use]
pub fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

/// All rules in force.
#[derive(Debug, Clone, Default)]
pub struct RuleSet {
    /// By name.
    pub thresholds: Vec<Arc<ThresholdRule>>,
    /// By name.
    pub budgets: Vec<Arc<CostBudget>>,
    /// Those that say most first, then by name.
    pub heartbeats: Vec<Arc<Heartbeat>>,
    /// See [`crate::slo::set::SloSet::is_partial`].
    pub is_partial: bool,
}

impl RuleSet {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.thresholds.len() + self.budgets.len() + self.heartbeats.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_people_expect() {
        for (pattern, text) in [
            ("*", ""),
            ("*", "any"),
            ("shop", "shop"),
            ("shop-*", "shop-"),
            ("*-agent", "a-agent"),
            ("a*b*c", "a--b-bc"),
            ("a**", "ab"),
        ] {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in
            [("", "x"), ("shop", "shops"), ("shop-*", "shop"), ("*-agent", "agent"), ("a*b*c", "acb"), ("ab*ba", "aba")]
        {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
    }
}
