//! `toolgauge slo backtest`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;

use toolgauge_analytics::calendar::Span;
use toolgauge_analytics::sli::Counts;
use toolgauge_analytics::window::Minute;
use toolgauge_queries::slo::backtest::{Backtest, reach, replay};
use toolgauge_queries::slo::definition::window_of;
use toolgauge_queries::slo::group::OTHER;
use toolgauge_queries::slo::set::CompiledSlo;

use super::super::{Failure, Format, csv, percent, plain_table};
use super::asked::{Asked, Groups, Whom, last};
use super::{chosen, group};

pub(super) fn run(
    paths: Vec<PathBuf>,
    name: Option<&str>,
    time: &str,
    format: Format,
    whom: &Whom,
) -> Result<(), Failure> {
    let window = window_of(time).filter(|window| window.minutes() <= 400 * 1_440);
    let window = window.ok_or_else(|| {
        Failure::WrongUsage(format!("--last {time:?} is no length of time up to 400d (write like 30d or 6h)"))
    })?;
    let slos = chosen(paths, name)?;
    let Some(asked) = Asked::open(whom)? else {
        return Err(Failure::WrongUsage("a backtest needs calls (name `--server URL` or `--data DIR`)".to_owned()));
    };
    let span = last(window);
    let mut found = Vec::new();
    for slo in &slos {
        // Windows reach back to before the span.
        let reach = Span { start: Minute(span.start.0 - 2 * i64::from(reach(&slo.slo).minutes())), end: span.end };
        for (values, minutes) in bounded(slo, asked.minutes(slo, reach)?) {
            found.push(replay(&slo.slo, values, &minutes, span));
        }
    }
    asked.close()?;
    write(&found, format)
}

/// The groups that an SLO has, the rest together.
fn bounded(slo: &CompiledSlo, groups: Groups) -> Vec<(BTreeMap<String, String>, BTreeMap<Minute, Counts>)> {
    let Some(by) = &slo.slo.group_by else {
        let minutes = groups.into_values().next().unwrap_or_default();
        return vec![(BTreeMap::new(), minutes)];
    };
    let named = |values: &[String]| -> BTreeMap<String, String> {
        by.columns.iter().zip(values).map(|(column, value)| ((*column).to_owned(), value.clone())).collect()
    };
    // Those that came first have a group of their own.
    let mut all: Vec<(Vec<String>, BTreeMap<Minute, Counts>)> = groups.into_iter().collect();
    all.sort_by_key(|(_, minutes)| minutes.keys().next().copied());
    let rest = all.split_off(all.len().min(by.groups_max));
    let mut bounded: Vec<_> = all.into_iter().map(|(values, minutes)| (named(&values), minutes)).collect();
    if !rest.is_empty() {
        let mut sums: BTreeMap<Minute, Counts> = BTreeMap::new();
        for (minute, counts) in rest.iter().flat_map(|(_, minutes)| minutes) {
            *sums.entry(*minute).or_default() += counts;
        }
        bounded.push((named(&vec![OTHER.to_owned(); by.columns.len()]), sums));
    }
    bounded
}

fn write(found: &[Backtest], format: Format) -> Result<(), Failure> {
    const HEADER: [&str; 7] = ["tier", "severity", "from", "to", "minutes", "bad in long", "peak burn rate"];
    let mut out = std::io::stdout();
    if format == Format::Json {
        let text = serde_json::to_string_pretty(found).map_err(|error| Failure::Answer(error.into()))?;
        return Ok(writeln!(out, "{text}")?);
    }
    let rows = |test: &Backtest| -> Vec<[String; 7]> {
        let rows = test.episodes.iter().map(|episode| {
            [
                episode.burn_tier.clone(),
                episode.severity.clone(),
                episode.starts_at.clone(),
                episode.ends_at.clone().unwrap_or_else(|| "it fires on".to_owned()),
                episode.minutes.to_string(),
                format!("{} of {}", episode.bad, episode.total),
                format!("{:.2}", episode.peak_burn_rate),
            ]
        });
        rows.collect()
    };
    if format == Format::Csv {
        writeln!(out, "service,slo,group,{}", HEADER.join(","))?;
        for test in found {
            for row in rows(test) {
                let own = [csv(&test.service), csv(&test.slo), csv(&group(&test.group))];
                let fields: Vec<String> = own.into_iter().chain(row.iter().map(|field| csv(field))).collect();
                writeln!(out, "{}", fields.join(","))?;
            }
        }
        return Ok(());
    }
    for test in found {
        let group = match group(&test.group) {
            empty if empty.is_empty() => empty,
            values => format!(" ({values})"),
        };
        writeln!(
            out,
            "{}/{}{group}, {} to {}: good {}, bad {}, {} of the budget left, {} alerts",
            test.service,
            test.slo,
            test.from,
            test.to,
            test.good,
            test.bad,
            match percent(test.budget_remaining_ratio) {
                none if none.is_empty() => "all".to_owned(),
                left => left,
            },
            test.episodes.len()
        )?;
        if !test.episodes.is_empty() {
            let mut table = plain_table();
            table.set_header(HEADER);
            rows(test).iter().for_each(|row| {
                table.add_row(row);
            });
            writeln!(out, "{table}")?;
        }
        for (guard, minutes) in &test.held_back_minutes {
            writeln!(out, "  held back by {guard}: {minutes} minutes")?;
        }
    }
    Ok(())
}
