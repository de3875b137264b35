//! All that is known for the evaluation of rules, and one evaluation of it. No threads, no queries: rows go in, states come out.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use toolgauge_analytics::alert::{Evaluation, History, Observation, Patience, Sources, State as AlertState, Telemetry};
use toolgauge_analytics::budget::{Ratio, Severity};
use toolgauge_analytics::cost_budget::{CostTier, FAST_WINDOWS, Spending, fast_share, forecast_window};
use toolgauge_analytics::heartbeat::REMEMBERED as HEARTBEATS_REMEMBERED;
use toolgauge_analytics::threshold::{Figure, Sums};
use toolgauge_analytics::window::{Minute, Window};
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::time::UnixMicros;

use super::book::{Book, Said, Texts, When};
use super::definition::{BY, CostBudget, Header, Measure, RuleSet, Selection, ThresholdRule};
use super::heartbeats::{self, HeartStatus, Heartbeats};
use super::said;
use super::sessions::SessionFigures;
use super::stream::{Group, GroupKey, Page, PageColumns, Rows, Stream, StreamKey};
use crate::evaluate::alerts::AlertId;
use crate::evaluate::telemetry::Arrivals;
use crate::evaluate::{At, HEARTBEAT_US};

/// Whether the history of a stream is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Past {
    /// Nobody has begun to.
    Waiting,
    /// It is being read.
    Reading,
    /// It is.
    Known,
}

/// How a rule stands with one of its groups.
#[derive(Debug, Clone)]
pub struct GroupStatus {
    /// Its values, in the order of the columns that the rule is grouped by.
    pub key: Vec<Option<Arc<str>>>,
    /// Calls, or sessions.
    pub events: u64,
    /// What was summed; of sessions, nothing.
    pub sums: Sums,
    /// The figure, where it is known.
    pub value: Option<Ratio>,
    /// Whether it reaches the threshold.
    pub reached: bool,
    /// What the evaluation could tell.
    pub evaluation: Evaluation,
    /// The state of its alert.
    pub state: AlertState,
}

/// How a rule stands.
#[derive(Debug, Clone)]
pub struct ThresholdStatus {
    /// The rule.
    pub rule: Arc<ThresholdRule>,
    /// Its groups.
    pub groups: Vec<GroupStatus>,
}

/// How a budget of money stands with one of its groups.
#[derive(Debug, Clone)]
pub struct SpendingStatus {
    /// Its values, in the order of the columns that the budget is grouped by.
    pub key: Vec<Option<Arc<str>>>,
    /// The figures.
    pub spending: Spending,
    /// Since the start of the period.
    pub sums: Sums,
    /// Spent within the windows of the tier `fast`: long, short.
    pub fast: (i128, i128),
    /// The tiers: whether each burns, what its evaluation could tell, the state of its alert.
    pub tiers: [(CostTier, bool, Evaluation, AlertState); 3],
}

/// How a budget of money stands.
#[derive(Debug, Clone)]
pub struct BudgetStatus {
    /// The budget.
    pub budget: Arc<CostBudget>,
    /// Its groups.
    pub groups: Vec<SpendingStatus>,
}

/// What one evaluation came to.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// The rules, by name.
    pub thresholds: Vec<ThresholdStatus>,
    /// The budgets of money, by name.
    pub budgets: Vec<BudgetStatus>,
    /// Services and tools that are listened to.
    pub heartbeats: Vec<HeartStatus>,
    /// How many there are, and how many found no place.
    pub heard: (usize, usize),
}

/// The state.
#[derive(Debug)]
pub(super) struct State {
    set: Arc<RuleSet>,
    streams: Vec<(Stream, Past)>,
    /// Of each threshold, the place of its stream; sessions have none.
    places: Vec<Option<usize>>,
    /// Of each budget.
    budget_places: Vec<usize>,
    columns: PageColumns,
    pub(super) heartbeats: Heartbeats,
    heartbeats_past: Past,
    pub(super) arrivals: Arrivals,
    pub(super) book: Book,
    /// By the name of the rule.
    pub(super) sessions: HashMap<String, SessionFigures>,
    /// A session is over when nothing of it has happened for so long.
    idle_us: i64,
}

/// A stream that some rule needs.
struct Wanted<'a> {
    selection: &'a Selection,
    windows: Vec<Window>,
    held: Option<Window>,
}

/// What is to be read of the past, and what was found.
#[derive(Debug)]
pub(super) struct Reading {
    streams: Vec<Stream>,
    columns: PageColumns,
    /// Whether the heartbeats are wanted.
    pub(super) heartbeats: Option<Heartbeats>,
    /// Rows of `calls` since this minute are needed.
    pub(super) since: Minute,
    /// Minutes of the heartbeats since this one.
    pub(super) heard_since: Minute,
}

impl Reading {
    /// The columns of `calls` that it needs.
    pub(super) fn columns(&self) -> Vec<&'static str> {
        self.columns.names()
    }

    /// Takes rows of `calls`.
    pub(super) fn count(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        let page = Page::new(batch, &self.columns, None)?;
        self.streams.iter_mut().for_each(|stream| stream.count(&page, Rows::Settled));
        if let Some(heartbeats) = &mut self.heartbeats {
            heartbeats.count(&page, Rows::Settled);
        }
        Ok(())
    }
}

impl State {
    pub(super) fn new(idle_us: i64) -> Self {
        Self {
            set: Arc::default(),
            streams: Vec::new(),
            places: Vec::new(),
            budget_places: Vec::new(),
            columns: PageColumns::of(std::iter::empty(), &heartbeats::WORDS),
            heartbeats: Heartbeats::default(),
            heartbeats_past: Past::Waiting,
            arrivals: Arrivals::default(),
            book: Book::default(),
            sessions: HashMap::new(),
            idle_us,
        }
    }

    pub(super) fn set(&self) -> &Arc<RuleSet> {
        &self.set
    }

    /// Takes rules; what others had counted that is the same is kept.
    pub(super) fn take_set(&mut self, set: Arc<RuleSet>, now: Minute) {
        let mut wanted: Vec<Wanted<'_>> = Vec::new();
        let mut known: HashMap<StreamKey, usize> = HashMap::new();
        let mut place_of = |selection, windows: &[Window], held: Option<Window>| {
            let place = *known.entry(StreamKey::of(selection)).or_insert(wanted.len());
            if place == wanted.len() {
                wanted.push(Wanted { selection, windows: Vec::new(), held: None });
            }
            wanted[place].windows.extend(windows);
            wanted[place].held = wanted[place].held.max(held);
            place
        };
        let places: Vec<Option<usize>> = set
            .thresholds
            .iter()
            .map(|rule| match rule.measure {
                Measure::Calls(_) => Some(place_of(&rule.selection, &[rule.window], None)),
                Measure::Sessions(..) => None,
            })
            .collect();
        let budget_places: Vec<usize> = set
            .budgets
            .iter()
            .map(|budget| {
                let windows = [FAST_WINDOWS.0, FAST_WINDOWS.1, forecast_window(budget.days())];
                place_of(&budget.selection, &windows, Some(budget.calendar.longest()))
            })
            .collect();
        let mut before = std::mem::take(&mut self.streams);
        for Wanted { selection, mut windows, held } in wanted {
            windows.sort_unstable();
            windows.dedup();
            let key = StreamKey::of(selection);
            let same = |stream: &Stream| stream.key == key && *stream.windows == *windows && stream.held == held;
            let same = before.iter().position(|(stream, _)| same(stream));
            self.streams.push(match same {
                Some(place) => before.swap_remove(place),
                None => (Stream::new(selection, windows.into(), held, now), Past::Waiting),
            });
        }
        (self.places, self.budget_places) = (places, budget_places);
        self.columns = PageColumns::of(self.streams.iter().map(|(stream, _)| stream), &heartbeats::WORDS);
        self.heartbeats.take_rules(&set.heartbeats);
        self.sessions.retain(|name, _| set.thresholds.iter().any(|rule| rule.header.name == *name));
        self.set = set;
    }

    /// Takes settled rows, each once.
    pub(super) fn fold(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        let page = Page::new(batch, &self.columns, None)?;
        self.streams.iter_mut().for_each(|(stream, _)| stream.count(&page, Rows::Settled));
        self.heartbeats.count(&page, Rows::Settled);
        Ok(())
    }

    /// Begins to read the past of what has none; the rows that come from now on are counted as they come.
    pub(super) fn begin_past(&mut self, now: Minute) -> Option<Reading> {
        let heartbeats = (self.heartbeats_past == Past::Waiting).then(Heartbeats::default);
        let mut streams = Vec::new();
        let mut since = Minute(now.0 - 60);
        for (stream, past) in self.streams.iter_mut().filter(|(_, past)| *past == Past::Waiting) {
            stream.clear();
            *past = Past::Reading;
            since = since.min(*stream.longest().at(now).start());
            streams.push(stream.empty());
        }
        if heartbeats.is_none() && streams.is_empty() {
            return None;
        }
        self.heartbeats_past = if heartbeats.is_some() { Past::Reading } else { self.heartbeats_past };
        let columns = PageColumns::of(streams.iter(), &heartbeats::WORDS);
        Some(Reading { streams, columns, heartbeats, since, heard_since: Minute(now.0 - HEARTBEATS_REMEMBERED) })
    }

    /// The past was read.
    pub(super) fn take_past(&mut self, past: Reading) {
        for history in &past.streams {
            let same = |stream: &Stream| {
                stream.key == history.key && stream.windows == history.windows && stream.held == history.held
            };
            for (stream, past) in
                self.streams.iter_mut().filter(|(stream, past)| same(stream) && *past == Past::Reading)
            {
                stream.take(history);
                *past = Past::Known;
            }
        }
        if let Some(heartbeats) = &past.heartbeats {
            self.heartbeats.take(heartbeats);
            self.heartbeats_past = Past::Known;
        }
    }

    /// The past could not be read.
    pub(super) fn lose_past(&mut self) {
        for (_, past) in self.streams.iter_mut().filter(|(_, past)| *past == Past::Reading) {
            *past = Past::Waiting;
        }
        if self.heartbeats_past == Past::Reading {
            self.heartbeats_past = Past::Waiting;
        }
    }

    /// Evaluates everything at an instant: `live` are the rows after `folded` that are not settled, `arrivals` what came in lately.
    pub(super) fn evaluate<'a>(
        &mut self,
        at: &At,
        folded: WalPosition,
        live: impl IntoIterator<Item = &'a RecordBatch>,
        arrivals: impl IntoIterator<Item = &'a RecordBatch>,
    ) -> Result<Figures, ArrowError> {
        let now = Minute::of(at.time);
        for batch in arrivals {
            self.arrivals.add(batch)?;
            self.heartbeats.listen(batch);
        }
        self.arrivals.forget(now);
        self.streams.iter_mut().for_each(|(stream, _)| stream.advance(now));
        self.heartbeats.advance(now);
        let asks = self.heartbeats.asks_for_live(now);
        let is_read = asks || !self.streams.is_empty();
        for batch in live.into_iter().filter(|_| is_read) {
            let page = Page::new(batch, &self.columns, Some(folded))?;
            self.streams.iter_mut().for_each(|(stream, _)| stream.count(&page, Rows::Live));
            if asks {
                self.heartbeats.count(&page, Rows::Live);
            }
        }
        let set = Arc::clone(&self.set);
        let mut figures = Figures { heard: self.heartbeats.len(), ..Figures::default() };
        for (rule, place) in set.thresholds.iter().zip(self.places.clone()) {
            let groups = match (&rule.measure, place) {
                (Measure::Calls(figure), Some(place)) => self.calls(at, rule, *figure, place),
                _ => self.session_groups(at, rule),
            };
            figures.thresholds.push(ThresholdStatus { rule: Arc::clone(rule), groups });
        }
        for (budget, place) in set.budgets.iter().zip(self.budget_places.clone()) {
            let groups = self.spending(at, budget, place);
            figures.budgets.push(BudgetStatus { budget: Arc::clone(budget), groups });
        }
        figures.heartbeats = self.beats(at);
        self.settle_unseen(at, &set);
        Ok(figures)
    }

    fn calls(&mut self, at: &At, rule: &ThresholdRule, figure: Figure, place: usize) -> Vec<GroupStatus> {
        let (stream, past) = &self.streams[place];
        let history = if *past == Past::Known { History::Counted } else { History::Counting };
        let seen = |group: &Group| {
            let sources = self.sources(at, rule.window, group);
            (group.key.clone(), group.sum(rule.window), sources)
        };
        let mut groups: Vec<(GroupKey, Sums, Sources)> = stream.groups().iter().map(seen).collect();
        if groups.is_empty() && rule.selection.by.is_empty() {
            groups.push((Vec::new(), Sums::default(), Sources::Alive));
        }
        let mut found = Vec::with_capacity(groups.len());
        for (key, sums, sources) in groups {
            let evaluation = self.evaluation(at, rule.window, history, sources, sums.calls);
            let status = GroupStatus {
                events: sums.calls,
                value: figure.value(&sums, rule.window),
                reached: sums.calls >= rule.events_min && figure.reaches(&sums, rule.window, rule.op, rule.threshold),
                key,
                sums,
                evaluation,
                state: AlertState::Inactive,
            };
            found.push(self.observe(at, rule, status));
        }
        found
    }

    fn spending(&mut self, at: &At, budget: &CostBudget, place: usize) -> Vec<SpendingStatus> {
        let now = Minute::of(at.time);
        let period = budget.calendar.period_at(now);
        let window = forecast_window(budget.days());
        let (stream, past) = &mut self.streams[place];
        let history = if *past == Past::Known { History::Counted } else { History::Counting };
        let mut groups: Vec<(GroupKey, Sums, [i128; 3])> = Vec::new();
        for group in stream.groups_mut() {
            let over = |window: Window| group.sum(window).cost;
            let recent = [over(FAST_WINDOWS.0), over(FAST_WINDOWS.1), over(window)];
            groups.push((group.key.clone(), group.sum_since(period.start), recent));
        }
        if groups.is_empty() && budget.selection.by.is_empty() {
            groups.push((Vec::new(), Sums::default(), [0; 3]));
        }
        let mut found = Vec::with_capacity(groups.len());
        for (key, sums, [long, short, recent]) in groups {
            let (start, end) = (period.start, period.end);
            let spending = Spending { amount: budget.amount, start, end, now, spent: sums.cost, recent, window };
            let share = fast_share(budget.days());
            let mut status = SpendingStatus {
                key,
                spending,
                sums,
                fast: (long, short),
                tiers: CostTier::ALL.map(|tier| {
                    let burns = match tier {
                        CostTier::Fast => spending.is_fast(long, short, share),
                        tier => spending.reaches(tier),
                    };
                    let of = if tier == CostTier::Fast { FAST_WINDOWS.0 } else { window };
                    // What was spent stays spent, whether there are calls or not.
                    (tier, burns, self.evaluation(at, of, history, Sources::Alive, 1), AlertState::Inactive)
                }),
            };
            for index in 0..status.tiers.len() {
                let (tier, burns, evaluation, _) = status.tiers[index];
                let observation = Observation { evaluation, burns, long_total: 1 };
                let id = budget_id(budget, tier, &status.key);
                let when = When { time: at.time, position: at.position };
                let said = || said::of_budget(at, budget, &status, tier);
                status.tiers[index].3 = self.book.observe(when, &id, &observation, budget.header.patience, said);
            }
            found.push(status);
        }
        found
    }

    fn session_groups(&mut self, at: &At, rule: &ThresholdRule) -> Vec<GroupStatus> {
        let figures = self.sessions.get(&rule.header.name).cloned();
        let history = if figures.is_some() { History::Counted } else { History::Counting };
        let is_old = figures.as_ref().is_some_and(|figures| figures.is_old(at.time));
        let mut groups = figures.map_or_else(Vec::new, |figures| figures.groups);
        if groups.is_empty() && rule.selection.by.is_empty() {
            groups.push((Vec::new(), 0, Ratio::percent(0)));
        }
        let mut found = Vec::with_capacity(groups.len());
        for (key, events, value) in groups {
            let mut evaluation = self.evaluation(at, rule.window, history, Sources::Alive, events);
            if is_old && evaluation != Evaluation::Learning {
                evaluation = Evaluation::Stale;
            }
            let status = GroupStatus {
                key,
                events,
                sums: Sums::default(),
                value: (events > 0).then_some(value),
                reached: events > 0 && events >= rule.events_min && rule.op.holds(value, rule.threshold),
                evaluation,
                state: AlertState::Inactive,
            };
            found.push(self.observe(at, rule, status));
        }
        found
    }

    fn observe(&mut self, at: &At, rule: &ThresholdRule, mut status: GroupStatus) -> GroupStatus {
        let observation =
            Observation { evaluation: status.evaluation, burns: status.reached, long_total: status.events };
        let id = threshold_id(rule, &status.key);
        let when = When { time: at.time, position: at.position };
        let idle_us = self.idle_us;
        let said = || said::of_threshold(at, rule, &status, idle_us);
        status.state = self.book.observe(when, &id, &observation, rule.header.patience, said);
        status
    }

    fn beats(&mut self, at: &At) -> Vec<HeartStatus> {
        let history = if self.heartbeats_past == Past::Known { History::Counted } else { History::Counting };
        let evaluation = self.evaluation(at, Window::M5, history, Sources::Alive, 1);
        let when = When { time: at.time, position: at.position };
        let set = Arc::clone(&self.set);
        let beats = self.heartbeats.beats(Minute::of(at.time));
        let mut found = Vec::with_capacity(beats.len());
        for beat in beats {
            let observation = Observation { evaluation, burns: beat.status.pulse.is_silent(), long_total: 1 };
            let said = || heartbeats::said(&beat.status, &set.heartbeats);
            self.book.observe(when, &beat.id, &observation, beat.patience, said);
            found.push(beat.status);
        }
        found
    }

    /// What becomes of alerts that nothing was said of: of groups without calls, and of rules that are gone.
    fn settle_unseen(&mut self, at: &At, set: &RuleSet) {
        let when = When { time: at.time, position: at.position };
        for id in self.book.unseen() {
            let rule = set.thresholds.iter().find(|rule| belongs(&id, rule));
            match rule {
                Some(rule) => {
                    let place = set.thresholds.iter().position(|known| Arc::ptr_eq(known, rule));
                    let past = match place.and_then(|place| self.places.get(place).copied().flatten()) {
                        Some(stream) => self.streams[stream].1 == Past::Known,
                        None => self.sessions.get(&rule.header.name).is_some_and(|figures| !figures.is_old(at.time)),
                    };
                    let history = if past { History::Counted } else { History::Counting };
                    let evaluation = self.evaluation(at, rule.window, history, Sources::Alive, 0);
                    let nothing = Observation { evaluation, burns: false, long_total: 0 };
                    self.book.observe(when, &id, &nothing, rule.header.patience, Said::default);
                }
                None if set.budgets.iter().any(|budget| belongs_to_budget(&id, budget)) => {
                    // Nothing is left of what the group spent: it is a new period.
                    let evaluation = self.evaluation(at, Window::H1, History::Counted, Sources::Alive, 1);
                    let nothing = Observation { evaluation, burns: false, long_total: 0 };
                    self.book.observe(when, &id, &nothing, Patience::default(), Said::default);
                }
                None if id.label("alertname") == Some("ToolSilent") => {
                    // Before the past is known, nobody has been heard.
                    if self.heartbeats_past == Past::Known {
                        self.book.end(when, &id, "retired");
                    }
                }
                // Its rule may stand in a file that cannot be read for now.
                None if set.is_partial && !matches!(self.book.state(&id), AlertState::Resolved { .. }) => {}
                None => self.book.end(when, &id, "removed"),
            }
        }
        // Those that were looked at here are not unseen the next time.
        self.book.unseen();
    }

    /// Whether all services that a group had calls of within the window have fallen silent.
    fn sources(&self, at: &At, window: Window, group: &Group) -> Sources {
        let minutes = window.at(Minute::of(at.time));
        let silent = |service: &str| {
            self.arrivals
                .last_seen(service)
                .is_none_or(|last| at.time.0.saturating_sub(Minute(last.0 + 1).start().0) > HEARTBEAT_US)
        };
        let mut services = group
            .fed_by
            .iter()
            .filter(|(_, last)| minutes.contains(last))
            .map(|(service, _)| silent(service))
            .peekable();
        if services.peek().is_some() && services.all(|silent| silent) { Sources::Silent } else { Sources::Alive }
    }

    fn evaluation(&self, at: &At, window: Window, history: History, sources: Sources, events: u64) -> Evaluation {
        let coverage = self.arrivals.coverage(recent(window), Minute::of(at.time), at.watermark);
        let telemetry = Telemetry {
            history,
            watermark_age_us: at.time.0.saturating_sub(at.watermark.0).max(at.clock_behind_us),
            covered_minutes: coverage.covered,
            short_minutes: coverage.ended,
            sources,
        };
        telemetry.evaluation(events)
    }
}

/// The part of a window that has to be covered by telemetry: a twelfth, as with burn rates, and at least five minutes.
pub(super) fn recent(window: Window) -> Window {
    Window::from_minutes(window.minutes() / 12).max(Window::M5.min(window))
}

/// What the label of a column is called.
fn label_of(column: &str) -> &'static str {
    BY.iter().find(|(name, _)| *name == column).map_or("group", |(_, label)| label)
}

/// The labels that all alerts of a rule have.
fn base_labels(alertname: &str, header: &Header, severity: Severity, selection: &Selection) -> Texts {
    let mut labels = Texts::from([
        ("alertname".to_owned(), alertname.to_owned()),
        ("severity".to_owned(), severity.as_str().to_owned()),
        ("slo".to_owned(), header.name.clone()),
    ]);
    let fixed = selection.filter.as_ref().map_or(&[][..], |filter| filter.condition.fixed());
    for (column, label) in [("service_name", "service"), ("tool_name", "tool"), ("tenant", "tenant")] {
        let value = fixed.iter().find(|(name, _)| name == column).map(|(_, value)| value.clone());
        labels.extend(value.map(|value| (label.to_owned(), value)));
    }
    labels.extend(header.service.iter().map(|service| ("service".to_owned(), service.clone())));
    labels
}

/// The labels of a group: those that all have, and those of its values.
fn group_id(mut labels: Texts, by: &[&'static str], key: &GroupKey) -> AlertId {
    for (column, value) in by.iter().zip(key) {
        let label = label_of(column);
        match value {
            Some(value) => labels.insert(label.to_owned(), value.to_string()),
            None => labels.remove(label),
        };
    }
    AlertId::new(labels)
}

fn threshold_labels(rule: &ThresholdRule) -> Texts {
    base_labels("ThresholdExceeded", &rule.header, rule.header.severity, &rule.selection)
}

fn threshold_id(rule: &ThresholdRule, key: &GroupKey) -> AlertId {
    group_id(threshold_labels(rule), &rule.selection.by, key)
}

fn budget_labels(budget: &CostBudget, tier: CostTier) -> Texts {
    // That an amount will not last is told before it is urgent.
    let severity = if tier == CostTier::Forecast { Severity::Ticket } else { budget.header.severity };
    let mut labels = base_labels("CostBudgetBurn", &budget.header, severity, &budget.selection);
    labels.insert("burn_tier".to_owned(), tier.as_str().to_owned());
    labels
}

fn budget_id(budget: &CostBudget, tier: CostTier, key: &GroupKey) -> AlertId {
    group_id(budget_labels(budget, tier), &budget.selection.by, key)
}

fn belongs_to_budget(id: &AlertId, budget: &CostBudget) -> bool {
    CostTier::ALL.into_iter().any(|tier| has_labels(id, &budget_labels(budget, tier), &budget.selection.by))
}

/// Whether an alert can be one of a rule.
fn belongs(id: &AlertId, rule: &ThresholdRule) -> bool {
    has_labels(id, &threshold_labels(rule), &rule.selection.by)
}

/// Whether an alert has the labels that all of a rule have, and besides only those of its groups.
fn has_labels(id: &AlertId, base: &Texts, by: &[&'static str]) -> bool {
    let grouped: Vec<&str> = by.iter().map(|column| label_of(column)).collect();
    let is_grouped = |name: &str| grouped.contains(&name);
    id.labels.keys().all(|name| base.contains_key(name) || is_grouped(name))
        && base.iter().filter(|(name, _)| !is_grouped(name)).all(|(name, value)| id.label(name) == Some(value))
}

/// The minutes that a window covers at an evaluation: the first, and the first after it.
pub(super) fn minutes_of(window: Window, time: UnixMicros) -> (Minute, Minute) {
    let minutes = window.at(Minute::of(time));
    (*minutes.start(), Minute(minutes.end().0 + 1))
}
