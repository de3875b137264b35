//! Costs: what calls have cost, by tool, service, model, agent, team, session, user or day, and what the running day and month
//! will have cost.
//!
//! Groups by team, session and user come from `calls`; `calls_1m` does not have those columns. All others come from its sums over
//! ranges of at least [`SUMS_FROM_US`].
//!
//! # The forecast
//! Cost so far, and for the rest of the period the mean of the known cost of the last 24 hours (day) or 7 days (month); of the time
//! since the first call if there is less of it. Whole minutes; in integers, rounded half-even to 9 places.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use toolgauge_proto::api::costs::{CostGroup, Costs, CostsReport, Forecast, PeriodForecast, Unpriced, UnpricedReport};
use toolgauge_proto::lake::View;
use toolgauge_proto::time::{MINUTE_MICROS, UnixMicros};

use super::attempts::weight_text;
use super::{
    Names, PRICE_COVERAGE_MIN_PERCENT, Range, Rows, SUMS_FROM_US, money_text, names, over_snapshot, per, ratio,
    timestamp,
};
use crate::engine::{Engine, Error, Session};
use crate::json::rfc3339;
use crate::tables::Catalog;

const COST_SUMS: &str = include_str!("../../sql/cost_sums.sql");
const COST_SUMS_1M: &str = include_str!("../../sql/cost_sums_1m.sql");
const COSTS: &str = include_str!("../../sql/costs.sql");
const COST_TOTALS: &str = include_str!("../../sql/cost_totals.sql");
const COST_SO_FAR: &str = include_str!("../../sql/cost_so_far.sql");
/// What [`COST_SO_FAR`] reads of `calls_1m`, of the calls themselves.
const MINUTES_OF_CALLS: &str = "FROM (SELECT *, date_trunc('minute', end_time) AS minute FROM calls)";
const UNPRICED: &str = include_str!("../../sql/unpriced.sql");

const DAY_MICROS: i64 = 86_400_000_000;

/// What costs are grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CostsBy {
    /// Tool and its server; only calls of tools.
    Tool,
    /// Service.
    Service,
    /// Model; only calls of models.
    Model,
    /// Agent.
    Agent,
    /// Team.
    Team,
    /// Session.
    Session,
    /// User.
    User,
    /// UTC date.
    Day,
}

impl CostsBy {
    /// Every one.
    pub const ALL: [Self; 8] =
        [Self::Tool, Self::Service, Self::Model, Self::Agent, Self::Team, Self::Session, Self::User, Self::Day];

    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Service => "service",
            Self::Model => "model",
            Self::Agent => "agent",
            Self::Team => "team",
            Self::Session => "session",
            Self::User => "user",
            Self::Day => "day",
        }
    }

    /// The one of this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|by| by.as_str() == word)
    }

    const fn column(self) -> &'static str {
        match self {
            Self::Tool => "tool_name",
            Self::Service => "service_name",
            Self::Model => "model",
            Self::Agent => "agent_name",
            Self::Team => "team",
            Self::Session => "session_id",
            Self::User => "user_id",
            Self::Day => "CAST(date AS VARCHAR)",
        }
    }

    /// Whether the sums per minute are told apart by it.
    const fn is_in_sums(self) -> bool {
        !matches!(self, Self::Team | Self::Session | Self::User)
    }

    fn fill(self, statement: &str) -> String {
        let kinds = match self {
            Self::Tool => "'tool'",
            Self::Model => "'model'",
            _ => "'tool', 'model'",
        };
        let server = if self == Self::Tool { "tool_server" } else { "CAST(NULL AS VARCHAR)" };
        statement.replace("{name}", self.column()).replace("{server}", server).replace("{kinds}", kinds)
    }
}

/// What calls have cost.
///
/// # Errors
/// See [`Error`].
pub async fn costs(
    engine: &Engine,
    catalog: &Catalog,
    view: Arc<View>,
    now: UnixMicros,
    range: Range,
    by: CostsBy,
) -> Result<CostsReport, Error> {
    over_snapshot(engine, catalog, &view, now, async move |session, snapshot| {
        let is_long = range.to.0.saturating_sub(range.from.0) >= SUMS_FROM_US;
        let (sums, folded) = if is_long && by.is_in_sums() {
            let (names, folded) = names(&session, &range).await?;
            (if names == Names::OfSums { COST_SUMS_1M } else { COST_SUMS }, folded)
        } else {
            (COST_SUMS, false)
        };
        let sums = by.fill(sums);
        let over_sums = |statement: &str| format!("WITH cost_sums AS (\n{sums})\n{statement}");
        let parameters = || {
            let first = UnixMicros(range.from.0.saturating_add(MINUTE_MICROS - 1)).minute().min(range.to);
            let mut parameters = range.parameters();
            parameters.push(("first", timestamp(first)));
            parameters.push(("end", timestamp(range.to.minute().max(first))));
            parameters
        };
        let answer = session.query(&over_sums(COSTS), parameters()).await?;
        let rows = Rows::new(&answer)?;
        let sums: Vec<Sums> = (0..rows.len()).map(|row| Sums::of(&rows, row)).collect::<Result<_, _>>()?;
        let groups = sums.iter().enumerate().map(|(row, sums)| {
            Ok(CostGroup {
                tenant: rows.text(0, row)?.unwrap_or_default(),
                name: rows.text(1, row)?,
                tool_server: rows.text(2, row)?,
                costs: sums.costs(),
            })
        });
        let total = if answer.truncated {
            let answer = session.query(&over_sums(COST_TOTALS), parameters()).await?;
            Sums::of(&Rows::new(&answer)?, 0)?
        } else {
            sums.iter().copied().fold(Sums::default(), Sums::plus)
        };
        Ok(CostsReport {
            by: by.as_str().to_owned(),
            total: total.costs(),
            groups: groups.collect::<Result<_, Error>>()?,
            forecast: forecast(&session, &range, by, now).await?,
            folded,
            truncated: answer.truncated,
            scope: snapshot.scope(&session, &range).await?,
        })
    })
    .await
}

/// Sums of a group, money in units of 10^-9 dollars.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    attempts: u64,
    attempts_ok: u64,
    priced: u64,
    priced_ok: u64,
    cost: Option<i128>,
    wasted: Option<i128>,
    tools: Option<i128>,
    models: Option<i128>,
    input_tokens: u64,
    output_tokens: u64,
    /// In millionths.
    weight: i128,
}

impl Sums {
    fn of(rows: &Rows, row: usize) -> Result<Self, Error> {
        Ok(Self {
            attempts: rows.count(3, row)?,
            attempts_ok: rows.count(4, row)?,
            priced: rows.count(5, row)?,
            priced_ok: rows.count(6, row)?,
            cost: rows.money(7, row)?,
            wasted: rows.money(8, row)?,
            tools: rows.money(9, row)?,
            models: rows.money(10, row)?,
            input_tokens: rows.count(11, row)?,
            output_tokens: rows.count(12, row)?,
            weight: rows.weight(13, row)?,
        })
    }

    fn plus(self, other: Self) -> Self {
        let money = |a: Option<i128>, b: Option<i128>| match (a, b) {
            (Some(a), Some(b)) => Some(a + b),
            (known, None) | (None, known) => known,
        };
        Self {
            attempts: self.attempts + other.attempts,
            attempts_ok: self.attempts_ok + other.attempts_ok,
            priced: self.priced + other.priced,
            priced_ok: self.priced_ok + other.priced_ok,
            cost: money(self.cost, other.cost),
            wasted: money(self.wasted, other.wasted),
            tools: money(self.tools, other.tools),
            models: money(self.models, other.models),
            input_tokens: self.input_tokens.saturating_add(other.input_tokens),
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
            weight: self.weight + other.weight,
        }
    }

    fn costs(&self) -> Costs {
        let enough_priced =
            u128::from(self.priced) * 100 >= u128::from(PRICE_COVERAGE_MIN_PERCENT) * u128::from(self.attempts);
        let nothing_wasted = (self.attempts == self.attempts_ok && self.priced > 0).then_some(0);
        let sampled = self.weight != 0 && self.weight != i128::from(self.attempts) * 1_000_000;
        Costs {
            attempts: self.attempts,
            sampled,
            weighted_attempts: sampled.then(|| weight_text(self.weight)),
            priced: self.priced,
            unpriced: self.attempts.saturating_sub(self.priced),
            cost_coverage: ratio(self.priced, self.attempts),
            attempts_ok: self.attempts_ok,
            priced_ok: self.priced_ok,
            cost_usd: self.cost.map(money_text),
            cost_per_call_usd: self.cost.and_then(|cost| per(cost, self.priced)).map(money_text),
            cost_per_success_usd: self
                .cost
                .filter(|_| enough_priced)
                .and_then(|cost| per(cost, self.priced_ok))
                .map(money_text),
            wasted_cost_usd: self.wasted.or(nothing_wasted).map(money_text),
            tools_cost_usd: self.tools.map(money_text),
            models_cost_usd: self.models.map(money_text),
            input_tokens: self.input_tokens,
            output_tokens: self.output_tokens,
        }
    }
}

/// A period that is running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Period {
    from: i64,
    to: i64,
}

/// The UTC day and month that this is in.
fn running(now: UnixMicros) -> (Period, Period) {
    use chrono::{DateTime, Datelike as _, Days, Months, NaiveDate};
    let date = DateTime::from_timestamp_micros(now.0).unwrap_or_default().date_naive();
    let micros = |date: NaiveDate| date.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_micros();
    let month = date.with_day(1).unwrap_or(date);
    let after = |date: NaiveDate, next: Option<NaiveDate>| micros(next.unwrap_or(date));
    let day = Period { from: micros(date), to: after(date, date.checked_add_days(Days::new(1))) };
    (day, Period { from: micros(month), to: after(month, month.checked_add_months(Months::new(1))) })
}

async fn forecast(session: &Session, range: &Range, by: CostsBy, now: UnixMicros) -> Result<Forecast, Error> {
    let (day, month) = running(now);
    let now = now.minute();
    let [day_ago, week_ago] = [1, 7].map(|days| now.0 - days * DAY_MICROS);
    let begin = month.from.min(week_ago);
    let mut parameters = range.parameters();
    for (name, time) in [
        ("day", day.from),
        ("month", month.from),
        ("day_ago", day_ago),
        ("week_ago", week_ago),
        ("begin", begin),
        ("now", now.0),
    ] {
        parameters.push((name, timestamp(UnixMicros(time))));
    }
    let asked = Range { from: UnixMicros(begin), to: now, ..range.clone() };
    let statement = if range.is_filtered() && names(session, &asked).await?.0 == Names::OfCalls {
        COST_SO_FAR.replace("FROM calls_1m", MINUTES_OF_CALLS)
    } else {
        COST_SO_FAR.to_owned()
    };
    let rows = Rows::new(&session.query(&by.fill(&statement), parameters).await?)?;
    let first = rows.optional_timestamp(4, 0)?;
    let of = |period: Period, so_far: Option<i128>, last: Option<i128>, since: i64| PeriodForecast {
        from: rfc3339(UnixMicros(period.from)),
        to: rfc3339(UnixMicros(period.to)),
        cost_usd: so_far.map(money_text),
        forecast_usd: first
            .and_then(|first| project(so_far, last?, now.0 - since.max(first.0), period.to - now.0))
            .map(money_text),
    };
    Ok(Forecast {
        day: of(day, rows.money(0, 0)?, rows.money(2, 0)?, day_ago),
        month: of(month, rows.money(1, 0)?, rows.money(3, 0)?, week_ago),
    })
}

/// The cost so far, and `rest` at the mean of `last`, which took `window`.
fn project(so_far: Option<i128>, last: i128, window: i64, rest: i64) -> Option<i128> {
    let window = u64::try_from(window).ok().filter(|window| *window > 0)?;
    Some(so_far.unwrap_or(0) + per(last.checked_mul(i128::from(rest.max(0)))?, window)?)
}

/// Tools and models whose calls, from an instant on, have no known cost.
///
/// # Errors
/// See [`Error`].
pub async fn unpriced(
    engine: &Engine,
    catalog: &Catalog,
    view: Arc<View>,
    now: UnixMicros,
    from: UnixMicros,
) -> Result<UnpricedReport, Error> {
    over_snapshot(engine, catalog, &view, now, async move |session, _| {
        let parameters: Vec<(&str, ScalarValue)> = vec![("from", timestamp(from))];
        let answer = session.query(UNPRICED, parameters).await?;
        let rows = Rows::new(&answer)?;
        let group = |row: usize| -> Result<Unpriced, Error> {
            Ok(Unpriced {
                kind: rows.text(0, row)?.unwrap_or_default(),
                tenant: rows.text(1, row)?.unwrap_or_default(),
                name: rows.text(2, row)?,
                tool_server: rows.text(3, row)?,
                attempts: rows.count(4, row)?,
                unpriced: rows.count(5, row)?,
            })
        };
        let groups: Vec<Unpriced> = (0..rows.len()).map(group).collect::<Result<_, _>>()?;
        let of = |kind: &str| groups.iter().filter(|group| group.kind == kind).count() as u64;
        Ok(UnpricedReport {
            from: rfc3339(from),
            tools: of("tool"),
            models: of("model"),
            calls: groups.iter().map(|group| group.unpriced).sum(),
            groups,
            truncated: answer.truncated,
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_day_and_month_are_those_of_utc() {
        // 2026-02-28T23:59:59.999999Z
        let (day, month) = running(UnixMicros(1_772_323_199_999_999));
        assert_eq!((rfc3339(UnixMicros(day.from)), day.to - day.from), ("2026-02-28T00:00:00Z".into(), DAY_MICROS));
        assert_eq!((rfc3339(UnixMicros(month.from)), month.to), ("2026-02-01T00:00:00Z".into(), day.to));
        let (day, month) = running(UnixMicros(day.to));
        assert_eq!((day.from, rfc3339(UnixMicros(month.to))), (month.from, "2026-04-01T00:00:00Z".into()));
    }

    #[test]
    fn the_rest_of_a_period_costs_the_mean_of_the_window() {
        assert_eq!(project(Some(10), 30, 60, 40), Some(30));
        assert_eq!(project(None, 5, 2, 1), Some(2), "a half goes to the even neighbour");
        assert_eq!(project(Some(7), 0, 60, 40), Some(7));
        assert_eq!(project(Some(7), 30, 0, 40), None);
    }
}
