//! Our annotations: what OpenSLO cannot say. Their reference is `docs/slo.md`.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use toolgauge_analytics::budget::{Ratio, Severity};
use toolgauge_analytics::calendar::{Calendar, Span, Unit, parse_zone};
use toolgauge_analytics::window::{Minute, Window};
use toolgauge_proto::call::Layer;
use toolgauge_proto::time::MINUTE_MICROS;

use super::definition::{CostBudget, CostPeriod, GroupBy, Guards, Mode, window_of};
use super::fault::Faults;
use super::group::GROUPS;
use super::tiers::{Consumption, Severities};
use super::yaml::{Entry, Node};

/// Prefix of annotations that are ours.
const PREFIX: &str = "toolgauge/";
/// Groups of an SLO unless it says otherwise.
pub(super) const GROUPS_DEFAULT: usize = 100;
/// Most groups that an SLO can ask for.
pub(super) const GROUPS_MAX: usize = 10_000;
/// Most columns of a group.
pub(super) const GROUP_COLUMNS_MAX: usize = 4;
/// Most intervals that do not count.
const EXCLUSIONS_MAX: usize = 1_000;
/// Longest patience of an alert.
const PATIENCE_MAX: Window = Window::D30;

/// The annotations that an SLI may have.
const OF_SLI: &[&str] = &["layer", "mode"];
/// The annotations that an SLO may have.
const OF_SLO: &[&str] = &[
    "alert-after",
    "consumption",
    "cost-budget",
    "evidence",
    "exclusions",
    "group-by",
    "groups-max",
    "keep-firing",
    "layer",
    "min-events",
    "mode",
    "severities",
    "severity",
];
/// The annotations that a policy or a condition may have.
const OF_ALERT: &[&str] = &["burn-tier", "keep-firing", "short-window"];

/// What an SLO's annotations say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct SloAnnotations {
    pub(super) mode: Option<Mode>,
    pub(super) layer: Option<Layer>,
    pub(super) group_by: Option<GroupBy>,
    pub(super) guards: Guards,
    pub(super) exclusions: Arc<[Span]>,
    pub(super) severities: Severities,
    /// Whom all tiers of the workbook call.
    pub(super) severity: Option<Severity>,
    pub(super) alert_after: Option<Window>,
    pub(super) keep_firing: Option<Window>,
    pub(super) cost_budget: Option<CostBudget>,
    pub(super) consumption: Option<Consumption>,
}

/// What the annotations of an alert policy or condition say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct AlertAnnotations {
    pub(super) burn_tier: Option<String>,
    pub(super) short_window: Option<Window>,
    pub(super) keep_firing: Option<Window>,
}

/// The annotations of an object's metadata; `None` if one of ours is wrong, which is noted.
pub(super) fn of_slo(metadata: Option<&Node>, path: &str, faults: &mut Faults) -> Option<SloAnnotations> {
    let mut found = SloAnnotations::default();
    let (mut columns, mut groups_max) = (None, None);
    let good = each(metadata, path, OF_SLO, faults, |key, value| {
        match key {
            "mode" => found.mode = Some(mode(value)?),
            "layer" => found.layer = Some(layer(value)?),
            "group-by" => columns = Some(group_columns(value)?),
            "groups-max" => groups_max = Some(number(value, 1, GROUPS_MAX as u64)? as usize),
            "min-events" => found.guards.min_events = number(value, 0, u64::from(u32::MAX))?,
            "evidence" => {
                found.guards.evidence = match value {
                    "true" => true,
                    "false" => false,
                    _ => return Err("write true or false".to_owned()),
                };
            }
            "exclusions" => found.exclusions = exclusions(value)?,
            "severity" => {
                found.severity = Some(match value {
                    "page" => Severity::Page,
                    "ticket" => Severity::Ticket,
                    _ => return Err("write page or ticket".to_owned()),
                });
            }
            "severities" => found.severities = severities(value)?,
            "consumption" => found.consumption = Some(consumption(value)?),
            "alert-after" => found.alert_after = Some(patience(value)?),
            "keep-firing" => found.keep_firing = Some(patience(value)?),
            _ => found.cost_budget = Some(cost_budget(value)?),
        }
        Ok(())
    });
    if let (Some(budget), Some(severity)) = (&mut found.cost_budget, found.severity) {
        budget.severity = severity;
    }
    found.group_by = columns.map(|columns| GroupBy { columns, groups_max: groups_max.unwrap_or(GROUPS_DEFAULT) });
    good.then_some(found)
}

/// Attempts or logical calls, and the layer.
pub(super) fn of_sli(
    metadata: Option<&Node>,
    path: &str,
    faults: &mut Faults,
) -> Option<(Option<Mode>, Option<Layer>)> {
    let mut found = (None, None);
    let good = each(metadata, path, OF_SLI, faults, |key, value| {
        match key {
            "mode" => found.0 = Some(mode(value)?),
            _ => found.1 = Some(layer(value)?),
        }
        Ok(())
    });
    good.then_some(found)
}

/// Those of a policy or condition.
pub(super) fn of_alert(metadata: Option<&Node>, path: &str, faults: &mut Faults) -> Option<AlertAnnotations> {
    let mut found = AlertAnnotations::default();
    let good = each(metadata, path, OF_ALERT, faults, |key, value| {
        match key {
            "burn-tier" => found.burn_tier = Some(tier_name(value)?),
            "short-window" => {
                found.short_window = Some(window_of(value).ok_or("write a duration like 5m".to_owned())?);
            }
            _ => found.keep_firing = Some(patience(value)?),
        }
        Ok(())
    });
    good.then_some(found)
}

/// For kinds that have none.
pub(super) fn of_others(metadata: Option<&Node>, path: &str, faults: &mut Faults) {
    each(metadata, path, &[], faults, |_, _| Ok(()));
}

/// Hands each of our annotations to `take`, which says what to write instead if the value is wrong. Whether all are right.
fn each(
    metadata: Option<&Node>,
    path: &str,
    known: &[&str],
    faults: &mut Faults,
    mut take: impl FnMut(&str, &str) -> Result<(), String>,
) -> bool {
    let entries = metadata.and_then(|metadata| metadata.get("annotations")).map_or(&[][..], Node::entries);
    let mut good = true;
    for Entry { key, place, node } in entries {
        let Some(name) = key.strip_prefix(PREFIX) else { continue };
        let value = node.text().unwrap_or_default();
        let at = format!("{path}.annotations.{key}");
        let said = if known.contains(&name) {
            take(name, value.trim()).map_err(|remedy| format!("{value:?} is not known here ({remedy})"))
        } else if known.is_empty() {
            Err("no annotation of ours belongs to this kind (leave it out)".to_owned())
        } else {
            let known: Vec<String> = known.iter().map(|name| format!("{PREFIX}{name}")).collect();
            Err(format!("this annotation is not known here (known annotations: {})", known.join(", ")))
        };
        if let Err(message) = said {
            faults.error(*place, &at, message);
            good = false;
        }
    }
    good
}

fn mode(value: &str) -> Result<Mode, String> {
    match value {
        "logical" => Ok(Mode::Logical),
        "attempt" => Ok(Mode::Attempt),
        _ => Err("write logical or attempt".to_owned()),
    }
}

fn layer(value: &str) -> Result<Layer, String> {
    Layer::from_word(value).ok_or_else(|| format!("write one of: {}", Layer::WORDS.join(", ")))
}

fn number(value: &str, least: u64, most: u64) -> Result<u64, String> {
    let number = value.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("write a whole number from {least} to {most}"))
}

fn patience(value: &str) -> Result<Window, String> {
    let found = window_of(value).filter(|window| *window <= PATIENCE_MAX);
    found.ok_or_else(|| format!("write a duration up to {PATIENCE_MAX}, like 5m"))
}

fn tier_name(value: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=63).contains(&value.len()) && value.bytes().all(plain) {
        Ok(value.to_owned())
    } else {
        Err("write up to 63 letters, digits, \"-\"".to_owned())
    }
}

fn group_columns(value: &str) -> Result<Vec<&'static str>, String> {
    let mut columns = Vec::new();
    for word in list(value) {
        let Some((_, column, _)) = GROUPS.iter().find(|(name, column, _)| *name == word || *column == word) else {
            let names: Vec<&str> = GROUPS.iter().map(|(name, ..)| *name).collect();
            return Err(format!("write up to {GROUP_COLUMNS_MAX} of: {}", names.join(", ")));
        };
        if columns.contains(column) {
            return Err(format!("write {word:?} once"));
        }
        columns.push(column);
    }
    if (1..=GROUP_COLUMNS_MAX).contains(&columns.len()) {
        Ok(columns)
    } else {
        Err(format!("write one to {GROUP_COLUMNS_MAX} names, such as tool"))
    }
}

fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty())
}

/// Intervals by their start and end, or start and length, in whole minutes; in order, and apart from each other.
fn exclusions(value: &str) -> Result<Arc<[Span]>, String> {
    const REMEDY: &str =
        "write intervals such as 2026-05-01T22:00:00Z/2026-05-02T01:00:00Z or 2026-05-01T22:00:00+02:00/3h";
    let mut spans = Vec::new();
    for text in list(value) {
        let (start, end) = text.split_once('/').ok_or(REMEDY)?;
        let instant = |text: &str| DateTime::parse_from_rfc3339(text).map(|time| time.with_timezone(&Utc)).ok();
        let start = instant(start).ok_or(REMEDY)?.timestamp_micros();
        let end = match window_of(end) {
            Some(length) => start + i64::from(length.minutes()) * MINUTE_MICROS,
            None => instant(end).ok_or(REMEDY)?.timestamp_micros(),
        };
        if end <= start {
            return Err(format!("{text} ends before it begins; {REMEDY}"));
        }
        // A minute of which a part does not count does not count.
        let end = Minute(end.div_euclid(MINUTE_MICROS) + i64::from(end.rem_euclid(MINUTE_MICROS) > 0));
        spans.push(Span { start: Minute(start.div_euclid(MINUTE_MICROS)), end });
    }
    if !(1..=EXCLUSIONS_MAX).contains(&spans.len()) {
        return Err(format!("{} intervals stand here, from 1 to {EXCLUSIONS_MAX} are taken; {REMEDY}", spans.len()));
    }
    spans.sort_unstable();
    let mut apart: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match apart.last_mut().filter(|last| span.start <= last.end) {
            Some(last) => last.end = last.end.max(span.end),
            None => apart.push(span),
        }
    }
    Ok(apart.into())
}

fn severities(value: &str) -> Result<Severities, String> {
    const REMEDY: &str = "write like page=critical, ticket=warning";
    let mut found = Severities::default();
    for pair in list(value) {
        let (severity, word) = pair.split_once('=').ok_or(REMEDY)?;
        let word = tier_name(word).map_err(|_| REMEDY)?;
        match severity {
            "page" => found.page = word.into(),
            "ticket" => found.ticket = word.into(),
            _ => return Err(REMEDY.to_owned()),
        }
    }
    if found.page == found.ticket { Err("write two different words".to_owned()) } else { Ok(found) }
}

/// `25 %/7d`.
fn consumption(value: &str) -> Result<Consumption, String> {
    const REMEDY: &str = "write a part of the budget and a time, like 25 %/7d";
    let (part, window) = value.split_once('/').ok_or(REMEDY)?;
    let percent = part.trim_end().strip_suffix('%').and_then(|percent| Ratio::from_decimal(percent.trim()));
    let part = percent.and_then(|percent| percent.times(Ratio::percent(1))).filter(|part| *part > Ratio::percent(0));
    Ok(Consumption { part: part.ok_or(REMEDY)?, window: window_of(window.trim()).ok_or(REMEDY)? })
}

/// `500 USD/day`, `10000 USD/month Europe/Berlin`.
fn cost_budget(value: &str) -> Result<CostBudget, String> {
    const REMEDY: &str = "write an amount with up to 9 decimal places for each day or month, and a time zone if it is not \
                          UTC, like 500 USD/day or 10000 USD/month Europe/Berlin";
    let words: Vec<&str> = value.split_whitespace().collect();
    let (amount, unit, zone) = match words.as_slice() {
        [amount, unit] => (*amount, *unit, "UTC"),
        [amount, unit, zone] => (*amount, *unit, *zone),
        _ => return Err(REMEDY.to_owned()),
    };
    let (period, unit) = match unit {
        "USD/day" => (CostPeriod::Day, Unit::Day),
        "USD/month" => (CostPeriod::Month, Unit::Month),
        _ => return Err(REMEDY.to_owned()),
    };
    let (whole, rest) = amount.split_once('.').unwrap_or((amount, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(rest) || whole.is_empty() || whole.len() > 15 || rest.len() > 9 {
        return Err(REMEDY.to_owned());
    }
    let nano_usd: i128 = format!("{whole}{rest:0<9}").parse().map_err(|_| REMEDY)?;
    if nano_usd == 0 {
        return Err(REMEDY.to_owned());
    }
    let zone = parse_zone(zone).map_err(|error| error.to_string())?;
    let start = DateTime::UNIX_EPOCH.naive_utc();
    let calendar = Calendar::new(1, unit, start, zone).ok_or(REMEDY)?;
    Ok(CostBudget { nano_usd, period, calendar, severity: Severity::Ticket })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_whole_minutes_in_order_and_apart() {
        let spans = exclusions(
            "2026-05-02T00:00:00Z/30m, 2026-05-01T22:00:30+02:00/2026-05-01T21:00:01Z\n 2026-05-02T00:10:00Z/2026-05-02T01:00:00Z",
        );
        let minute = |text: &str| Minute(DateTime::parse_from_rfc3339(text).unwrap().timestamp() / 60);
        let span = |start, end| Span { start: minute(start), end: minute(end) };
        assert_eq!(
            spans.unwrap().as_ref(),
            [
                span("2026-05-01T20:00:00Z", "2026-05-01T21:01:00Z"),
                span("2026-05-02T00:00:00Z", "2026-05-02T01:00:00Z")
            ]
        );
        for wrong in
            ["", "2026-05-01/2026-05-02", "2026-05-02T00:00:00Z/2026-05-01T00:00:00Z", "now/1h", "2026-05-02T00:00:00Z"]
        {
            assert!(exclusions(wrong).is_err(), "{wrong}");
        }
        assert!(
            exclusions(&"2026-05-02T00:00:00Z/1h ".repeat(EXCLUSIONS_MAX + 1)).unwrap_err().contains("1001 intervals")
        );
    }

    #[test]
    fn amounts_are_billionths_of_a_dollar() {
        let budget = cost_budget("0.5 USD/day").unwrap();
        assert_eq!(
            (budget.nano_usd, budget.period, budget.calendar.zone()),
            (500_000_000, CostPeriod::Day, chrono_tz_utc())
        );
        let budget = cost_budget("10000.000000001 USD/month Europe/Berlin").unwrap();
        assert_eq!((budget.nano_usd, budget.period), (10_000_000_000_001, CostPeriod::Month));
        // Months are those of the zone's calendar: the first of May in Berlin.
        let may = budget.calendar.period_at(Minute(29_634_000));
        assert_eq!((may.start.0 * 60) % 86_400, 22 * 3_600);
        for wrong in [
            "500",
            "500 EUR/day",
            "-1 USD/day",
            "0 USD/day",
            "1e9 USD/day",
            "1 USD/week",
            "1.0000000001 USD/day",
            ". USD/day",
        ] {
            assert!(cost_budget(wrong).is_err(), "{wrong}");
        }
        assert!(cost_budget("1 USD/day Berlin").unwrap_err().contains("no time zone"));
    }

    fn chrono_tz_utc() -> toolgauge_analytics::calendar::Zone {
        parse_zone("UTC").unwrap()
    }

    #[test]
    fn groups_are_columns_that_can_be_bounded() {
        assert_eq!(group_columns("tool, tenant"), Ok(vec!["tool_name", "tenant"]));
        assert_eq!(group_columns("agent_name"), Ok(vec!["agent_name"]));
        assert!(group_columns("session").unwrap_err().contains("tool, server, service"));
        assert!(group_columns("tool tool_name").unwrap_err().contains("once"));
        assert!(group_columns("").is_err());
        assert!(group_columns("tool server service team tenant").is_err());
    }

    #[test]
    fn severities_have_two_words() {
        let found = severities("page=critical ticket=warning").unwrap();
        assert_eq!((&*found.page, &*found.ticket), ("critical", "warning"));
        assert_eq!(&*severities("page=p1").unwrap().ticket, "ticket");
        for wrong in ["page", "call=me", "page=a b=c", "page=", "page=x,ticket=x"] {
            assert!(severities(wrong).is_err(), "{wrong}");
        }
    }
}
