//! One SLO as its document defines it: what it counts, how much of it must be good, over which window.

use std::fmt;
use std::sync::Arc;

use toolgauge_analytics::alert::Patience;
use toolgauge_analytics::budget::{Ratio, Severity, Target, Tier};
use toolgauge_analytics::calendar::{Calendar, Span};
use toolgauge_analytics::timeslice::Slices;
use toolgauge_analytics::window::{Minute, Window};
use toolgauge_proto::call::Layer;
use xxhash_rust::xxh3::xxh3_64;

use super::fault::Place;

/// Which rows are events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// A call with all its retries is one event: rows with `final`.
    Logical,
    /// Each attempt is one.
    Attempt,
}

impl Mode {
    /// The spelling in documents and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Logical => "logical",
            Self::Attempt => "attempt",
        }
    }
}

/// Which of the two the second expression of an SLI describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Judged {
    /// The good events.
    Good,
    /// The bad ones.
    Bad,
}

/// A SQL boolean expression over `calls`, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Where {
    /// The expression.
    pub text: String,
    /// Its file.
    pub file: Arc<str>,
    /// Where in it.
    pub place: Place,
    /// The path of its key.
    pub key: String,
}

/// Which rows an SLI counts, and how it judges them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sli {
    /// Attempts or logical calls.
    pub mode: Mode,
    /// Rows of this layer, whether another one counts the same call or not; `None` for the counted rows.
    pub layer: Option<Layer>,
    /// What the events are.
    pub total: Where,
    /// What `judge` describes.
    pub judged: Judged,
    /// Which of them are good, or bad.
    pub judge: Where,
}

impl Sli {
    /// Hash of everything that the counts depend on.
    #[must_use]
    pub fn revision(&self) -> String {
        format!("{:016x}", xxh3_64(self.parts().join("\0").as_bytes()))
    }

    fn parts(&self) -> [&str; 5] {
        let layer = self.layer.map_or("counted", Layer::as_str);
        let judged = match self.judged {
            Judged::Good => "good",
            Judged::Bad => "bad",
        };
        [self.mode.as_str(), layer, judged, self.total.text.trim(), self.judge.text.trim()]
    }
}

/// Over which time an SLO's budget is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    /// The last so many minutes.
    Rolling(Window),
    /// A period of the calendar, and the next one anew.
    Calendar(Calendar),
}

impl Period {
    /// Its length, with months of 30 days and so on: what burn rates are scaled by.
    #[must_use]
    pub const fn nominal(&self) -> Window {
        match self {
            Self::Rolling(window) => *window,
            Self::Calendar(calendar) => calendar.nominal(),
        }
    }

    /// Its minutes if it is looked at within the minute `now`. Those of a calendar period go on to its end, in the future.
    #[must_use]
    pub fn at(&self, now: Minute) -> Span {
        match self {
            Self::Rolling(window) => Span { start: *window.at(now).start(), end: Minute(now.0 + 1) },
            Self::Calendar(calendar) => calendar.period_at(now),
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rolling(window) => window.fmt(f),
            Self::Calendar(calendar) => calendar.fmt(f),
        }
    }
}

/// What the budget is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budgeting {
    /// Events.
    Occurrences,
    /// Slices of time, each good or bad.
    Timeslices(Slices),
}

/// Where a tier comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TierSource {
    /// The SRE workbook: this share of the budget in its long window.
    Workbook(Ratio),
    /// An alert policy, by its name.
    Policy(String),
    /// The annotation `toolgauge/consumption`.
    Consumption,
}

/// A burn-rate alert of an SLO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BurnTier {
    /// Name (the label `burn_tier`), windows and factor.
    pub tier: Tier,
    /// The word of the label `severity`.
    pub severity: Arc<str>,
    /// For how long it has to burn, and for how long it goes on firing.
    pub patience: Patience,
    /// Who asked for it.
    pub source: TierSource,
    /// How and why it is not as its source has it, with the arithmetic.
    pub adapted: Option<String>,
    /// Targets of notifications that the policy names; they stand in the annotation `notification_targets`.
    pub targets: Vec<String>,
}

/// What holds back alerts of few events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guards {
    /// No tier fires with fewer events in its long window.
    pub min_events: u64,
    /// Whether pages need evidence: so many bad events among those of the long window must be improbable while the objective is met.
    pub evidence: bool,
}

impl Default for Guards {
    fn default() -> Self {
        Self { min_events: 0, evidence: true }
    }
}

/// One SLO for each combination of values of some columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupBy {
    /// Columns of text of `calls`, in the order of the document.
    pub columns: Vec<&'static str>,
    /// Most groups; what comes after belongs to the group `__other__`.
    pub groups_max: usize,
}

/// Of which time a [`CostBudget`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CostPeriod {
    /// Each day.
    Day,
    /// Each month of the calendar.
    Month,
}

/// What the calls of an SLO's total may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CostBudget {
    /// In billionths of a US dollar, above 0.
    pub nano_usd: i128,
    /// For each day or month.
    pub period: CostPeriod,
    /// Its periods.
    pub calendar: Calendar,
    /// Whom its alerts call.
    pub severity: Severity,
}

/// One SLO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slo {
    /// Its service, as the document says; not a condition on rows.
    pub service: String,
    /// Its name, unique in the service.
    pub name: String,
    /// For people.
    pub display_name: Option<String>,
    /// For people.
    pub description: Option<String>,
    /// What is counted.
    pub sli: Sli,
    /// How much of it must be good.
    pub target: Target,
    /// The length of `period`: [`Period::nominal`].
    pub window: Window,
    /// The time of the budget.
    pub period: Period,
    /// What the budget is counted in.
    pub budgeting: Budgeting,
    /// Its burn-rate alerts, fastest first.
    pub tiers: Vec<BurnTier>,
    /// Tiers of the workbook that it does not have, and why.
    pub left_out: Vec<String>,
    /// What holds back alerts of few events.
    pub guards: Guards,
    /// Minutes that do not count, and in which no alert begins: in order, and apart from each other.
    pub exclusions: Arc<[Span]>,
    /// Whether it is one SLO for each value of some columns.
    pub group_by: Option<GroupBy>,
    /// What its calls may cost, all attempts of them: a rule beside it.
    pub cost_budget: Option<CostBudget>,
    /// The word of the label `severity` of its other alerts (`TelemetryStale`): that for tickets.
    pub ticket_severity: Arc<str>,
    /// The file it comes from.
    pub file: Arc<str>,
    /// Where in it.
    pub place: Place,
}

impl Slo {
    /// Hash of everything that the counts, and the groups that they are of, depend on: rows of `slo_1m` of one revision may be added up.
    #[must_use]
    pub fn revision(&self) -> String {
        let Some(by) = &self.group_by else { return self.sli.revision() };
        let max = by.groups_max.to_string();
        let parts: Vec<&str> = self.sli.parts().into_iter().chain(by.columns.iter().copied()).chain([&*max]).collect();
        format!("{:016x}", xxh3_64(parts.join("\0").as_bytes()))
    }

    /// How many groups there can be, with that of all others; 1 without groups.
    #[must_use]
    pub fn groups_max(&self) -> usize {
        self.group_by.as_ref().map_or(1, |by| by.groups_max.saturating_add(1))
    }

    /// The columns that it is grouped by; none if it is not.
    #[must_use]
    pub fn group_columns(&self) -> &[&'static str] {
        self.group_by.as_ref().map_or(&[], |by| &by.columns)
    }

    /// What it asks for.
    #[must_use]
    pub fn forms(&self) -> Vec<Form> {
        let own_tiers = self.tiers.is_empty()
            || self.tiers.iter().any(|tier| {
                !matches!(tier.source, TierSource::Workbook(_))
                    || tier.patience != Patience::default()
                    || *tier.severity != *tier.tier.severity.as_str()
            });
        let asked = [
            (Form::Calendar, matches!(self.period, Period::Calendar(_))),
            (Form::Timeslices, matches!(self.budgeting, Budgeting::Timeslices(_))),
            (Form::Policies, own_tiers),
            (Form::Guards, self.guards != Guards::default()),
            (Form::Exclusions, !self.exclusions.is_empty()),
            (Form::Groups, self.group_by.is_some()),
            (Form::CostBudget, self.cost_budget.is_some()),
        ];
        asked.into_iter().filter(|(_, is_asked)| *is_asked).map(|(form, _)| form).collect()
    }

    /// Whether a minute counts.
    #[must_use]
    pub fn is_excluded(&self, minute: Minute) -> bool {
        let next = self.exclusions.partition_point(|span| span.end <= minute);
        self.exclusions.get(next).is_some_and(|span| span.contains(minute))
    }

    /// The parts of a span that do not count.
    pub fn excluded_of(&self, span: Span) -> impl Iterator<Item = Span> {
        let first = self.exclusions.partition_point(|excluded| excluded.end <= span.start);
        let after = self.exclusions[first..].iter().take_while(move |excluded| excluded.start < span.end);
        after.map(move |excluded| Span { start: excluded.start.max(span.start), end: excluded.end.min(span.end) })
    }
}

/// What an SLO can ask for beyond a rolling window, events, and the tiers of the workbook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// [`Period::Calendar`].
    Calendar,
    /// [`Budgeting::Timeslices`].
    Timeslices,
    /// [`BurnTier`]s of alert policies, with words for severities and patience.
    Policies,
    /// [`Guards`] other than the default.
    Guards,
    /// [`Slo::exclusions`].
    Exclusions,
    /// [`Slo::group_by`].
    Groups,
    /// [`Slo::cost_budget`].
    CostBudget,
}

impl Form {
    /// What it is called in messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Calendar => "a calendar window",
            Self::Timeslices => "the budgeting method Timeslices",
            Self::Policies => "an alert policy, severity or patience of one's own",
            Self::Guards => "`toolgauge/min-events` or `toolgauge/evidence`",
            Self::Exclusions => "`toolgauge/exclusions`",
            Self::Groups => "`toolgauge/group-by`",
            Self::CostBudget => "`toolgauge/cost-budget`",
        }
    }

    /// Whether the evaluation has it: documents that ask for another form are refused.
    #[must_use]
    pub const fn is_evaluated(self) -> bool {
        match self {
            Self::Calendar
            | Self::Timeslices
            | Self::Policies
            | Self::Guards
            | Self::Exclusions
            | Self::CostBudget
            | Self::Groups => true,
        }
    }
}

/// Minutes of a rolling window, such as `30d`; months count 30 days, quarters 90, years 365.
#[must_use]
pub fn window_of(text: &str) -> Option<Window> {
    let (end, unit) = text.char_indices().next_back()?;
    let minutes = match unit {
        'm' => 1,
        'h' => 60,
        'd' => 1_440,
        'w' => 7 * 1_440,
        'M' => 30 * 1_440,
        'Q' => 90 * 1_440,
        'Y' => 365 * 1_440,
        _ => return None,
    };
    text.get(..end)?.parse::<u32>().ok()?.checked_mul(minutes).filter(|minutes| *minutes > 0).map(Window::from_minutes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_minutes() {
        assert_eq!(window_of("30d"), Some(Window::D30));
        assert_eq!(window_of("1Q"), Some(Window::from_minutes(129_600)));
        assert_eq!(window_of("999999Y"), None);
        assert_eq!(window_of("0m"), None);
        assert_eq!(window_of("30"), None);
    }
}
