//! What alerts of thresholds say.

use toolgauge_analytics::budget::Ratio;
use toolgauge_analytics::cost_budget::{CostTier, FAST_WINDOWS, dollars, fast_share};
use toolgauge_analytics::threshold::Figure;
use toolgauge_analytics::window::Minute;

use super::book::{MEASURED, Numbers, Questions, Said, Texts};
use super::definition::{CostBudget, Hit, Measure, SessionFigure, ThresholdRule};
use super::sql::{self, Sessions};
use super::state::{GroupStatus, SpendingStatus, minutes_of};
use crate::evaluate::At;
use crate::json::rfc3339;

/// A figure as people read it.
pub(crate) fn shown(rule: &ThresholdRule, value: Ratio) -> String {
    let number = value.to_f64();
    match rule.measure {
        Measure::Calls(Figure::Share) => format!("{:.2} %", number * 100.0),
        Measure::Calls(Figure::BurnRate { .. }) => format!("{number:.2}"),
        Measure::Calls(Figure::Quantile { .. }) | Measure::Sessions(SessionFigure::Duration, _) => seconds(number),
        Measure::Calls(Figure::Cost { .. }) | Measure::Sessions(SessionFigure::Cost, _) => {
            format!("{} USD", value.rounded(9).map_or_else(|| number.to_string(), dollars))
        }
        Measure::Sessions(SessionFigure::Iterations, _) => format!("{number}"),
    }
}

/// A time as people read it.
pub(super) fn seconds(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.1} ms", seconds * 1e3) } else { format!("{seconds:.3} s") }
}

fn metric(rule: &ThresholdRule) -> String {
    match rule.quantile() {
        Some(quantile) => format!("{quantile} of {}", rule.metric.replace('_', " ")),
        None => rule.metric.replace('_', " "),
    }
}

pub(super) fn of_threshold(at: &At, rule: &ThresholdRule, status: &GroupStatus, idle_us: i64) -> Said {
    let header = &rule.header;
    let group = sql::group_json(&rule.selection.by, &status.key);
    let named: Vec<String> = rule
        .selection
        .by
        .iter()
        .zip(&status.key)
        .map(|(column, value)| format!("{column} = {}", value.as_deref().unwrap_or("null")))
        .collect();
    let of_group = if named.is_empty() { String::new() } else { format!(" ({})", named.join(", ")) };
    let hit = rule.selection.hit;
    let is_session = matches!(rule.measure, Measure::Sessions(..));
    let events = if is_session { "sessions" } else { "calls" };
    let hits = match hit {
        Hit::Nothing => String::new(),
        hit => format!(", {} {}", status.sums.hits, hit.noun().replace('_', " ")),
    };
    let value = status.value.map(|value| shown(rule, value));
    let compared = match &value {
        Some(value) => format!("is {value}, the threshold {}", shown(rule, rule.threshold)),
        None => format!("has reached its threshold of {}", shown(rule, rule.threshold)),
    };
    let summary = format!(
        "{}{of_group}: {} {compared} over {}; {} {events}{hits}",
        header.name,
        metric(rule),
        rule.window,
        status.events
    );
    let mut annotations = Texts::from([
        (events.to_owned(), status.events.to_string()),
        ("evaluated_at".to_owned(), rfc3339(at.time)),
        ("log_position".to_owned(), at.position.to_string()),
        ("metric".to_owned(), metric(rule)),
        ("summary".to_owned(), summary),
        ("threshold".to_owned(), shown(rule, rule.threshold)),
        ("window".to_owned(), rule.window.to_string()),
    ]);
    let mut add = |name: &str, text: Option<String>| annotations.extend(text.map(|text| (name.to_owned(), text)));
    add("description", header.description.clone());
    add("value", value);
    if hit != Hit::Nothing {
        add(hit.noun(), Some(status.sums.hits.to_string()));
    } else if !is_session {
        add("priced_calls", Some(status.sums.priced.to_string()));
        add("cost_usd", Some(dollars(status.sums.cost)));
    }
    let mut questions = Questions::new();
    match rule.measure {
        Measure::Calls(figure) => {
            let (from, to) = minutes_of(rule.window, at.time);
            if let Some(scope) = sql::scope(&rule.selection, &status.key, &sql::span(from, to, Some(at.position))) {
                add("sql", Some(sql::recount(&rule.selection, &scope)));
                if let Figure::Quantile { quantile } = figure {
                    questions.push((MEASURED, sql::quantile(quantile, &scope)));
                }
                questions.extend(sql::causes(&rule.selection, &scope));
            }
        }
        Measure::Sessions(figure, quantile) => {
            let of = Sessions { selection: &rule.selection, figure, quantile, window: rule.window, idle_us };
            add("sql", sql::sessions(&of, Minute::of(at.time), at.position, Some(&status.key)));
        }
    }
    let numbers = Numbers {
        window_s: Some(rule.window.seconds()),
        good: (hit != Hit::Nothing).then(|| status.sums.calls - status.sums.hits),
        bad: (hit != Hit::Nothing).then_some(status.sums.hits),
        threshold: rule.threshold.rounded(9),
    };
    Said { annotations, group, numbers, questions }
}

/// What an alert of a budget of money says.
pub(super) fn of_budget(at: &At, budget: &CostBudget, status: &SpendingStatus, tier: CostTier) -> Said {
    let (header, spending) = (&budget.header, &status.spending);
    let amount = i128::try_from(spending.amount).unwrap_or(i128::MAX);
    let rate = |cost: i128, window| {
        spending.burn_rate(cost, window).map_or_else(|| "none".to_owned(), |rate| format!("{:.2}", rate.to_f64()))
    };
    let (burnt, window) = match tier {
        CostTier::Fast => (status.fast.0, FAST_WINDOWS.0),
        _ => (spending.recent, spending.window),
    };
    let (spent, limit) = (dollars(spending.spent), dollars(amount));
    let summary = match tier {
        CostTier::Exceeded => {
            format!("{}: {spent} USD are spent of {limit} USD for this {}", header.name, budget.period)
        }
        CostTier::Forecast => format!(
            "{}: {spent} of {limit} USD for this {} are spent; if the last {window} go on, it will be {} USD at its end, {} too much",
            header.name,
            budget.period,
            dollars(spending.forecast()),
            dollars(spending.overrun())
        ),
        CostTier::Fast => format!(
            "{}: {} USD were spent within {window}, {} times as fast as {limit} USD for a {} allow; {spent} USD are spent of it",
            header.name,
            dollars(burnt),
            rate(burnt, window),
            budget.period
        ),
    };
    let mut annotations: Texts = [
        ("amount_usd", limit),
        ("burn_rate", rate(burnt, window)),
        ("calls", status.sums.calls.to_string()),
        ("evaluated_at", rfc3339(at.time)),
        ("forecast_usd", dollars(spending.forecast())),
        ("log_position", at.position.to_string()),
        ("overrun_usd", dollars(spending.overrun())),
        ("period_end", rfc3339(spending.end.start())),
        ("period_start", rfc3339(spending.start.start())),
        ("priced_calls", status.sums.priced.to_string()),
        ("remaining_usd", dollars(spending.remaining())),
        ("spent_usd", spent),
        ("summary", summary),
        ("window", window.to_string()),
    ]
    .into_iter()
    .map(|(name, text)| (name.to_owned(), text))
    .collect();
    if let Some(description) = &header.description {
        annotations.insert("description".to_owned(), description.clone());
    }
    if let Some(minute) = spending.used_up_in() {
        annotations.insert("used_up_at".to_owned(), rfc3339(minute.start()));
    }
    let from = if tier == CostTier::Exceeded { spending.start } else { *window.at(spending.now).start() };
    let to = Minute(spending.now.0 + 1);
    let mut questions = Questions::new();
    let scope = |from| sql::scope(&budget.selection, &status.key, &sql::span(from, to, Some(at.position)));
    if let (Some(period), Some(recent)) = (scope(spending.start), scope(from)) {
        annotations.insert("sql".to_owned(), sql::recount(&budget.selection, &period));
        annotations.insert("sql_window".to_owned(), sql::recount(&budget.selection, &recent));
        questions.extend(sql::causes(&budget.selection, &recent));
    }
    let threshold = match tier {
        CostTier::Exceeded | CostTier::Forecast => Some(amount),
        CostTier::Fast => fast_share(budget.days())
            .times(Ratio::new(spending.amount, 1).unwrap_or(Ratio::ONE))
            .and_then(|share| share.rounded(0)),
    };
    let group = sql::group_json(&budget.selection.by, &status.key);
    let numbers = Numbers { window_s: Some(window.seconds()), threshold, ..Numbers::default() };
    Said { annotations, group, numbers, questions }
}
