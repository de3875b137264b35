//! The burn-rate alerts of an SLO: those of the SRE workbook, fitted to its period, budgeting and target.

use std::sync::Arc;

use toolgauge_analytics::alert::Patience;
use toolgauge_analytics::budget::{Measure, Ratio, Severity, Target, Tier, WORKBOOK, factor};
use toolgauge_analytics::window::Window;
use toolgauge_proto::time::MINUTE_MICROS;

use super::annotations::SloAnnotations;
use super::definition::{Budgeting, BurnTier, TierSource};

/// Fewest slices of a short window.
pub(super) const SLICES_MIN: u32 = 2;

/// The words of the label `severity`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Severities {
    pub(super) page: Arc<str>,
    pub(super) ticket: Arc<str>,
}

impl Default for Severities {
    fn default() -> Self {
        Self { page: Severity::Page.as_str().into(), ticket: Severity::Ticket.as_str().into() }
    }
}

impl Severities {
    pub(super) fn word(&self, severity: Severity) -> Arc<str> {
        match severity {
            Severity::Page => Arc::clone(&self.page),
            Severity::Ticket => Arc::clone(&self.ticket),
        }
    }
}

/// The tiers of an SLO that names none, and why some of the workbook's are not among them.
pub(super) fn default_tiers(
    period: Window,
    budgeting: Budgeting,
    target: Target,
    annotations: &SloAnnotations,
) -> (Vec<BurnTier>, Vec<String>) {
    let (mut tiers, mut left_out) = (Vec::new(), Vec::new());
    for (name, severity, percent, long, short) in WORKBOOK {
        let severity = annotations.severity.unwrap_or(severity);
        if long > period {
            left_out.push(format!("{name}: its long window of {long} is longer than the period of {period}"));
            continue;
        }
        let fraction = Ratio::percent(percent);
        let mut adapted = Vec::new();
        let short = match budgeting {
            Budgeting::Timeslices(slices) if slices.length().minutes() * SLICES_MIN > short.minutes() => {
                let longer = Window::from_minutes(slices.length().minutes() * SLICES_MIN);
                adapted.push(format!("its short window is {longer} instead of {short}, to have {SLICES_MIN} slices"));
                longer
            }
            _ => short,
        };
        if short >= long {
            left_out.push(format!("{name}: its long window of {long} has too few slices"));
            continue;
        }
        let factor = factor(fraction, period, long, target);
        let periods = Ratio::new(period.minutes().into(), long.minutes().into());
        if let Some(plain) = periods.and_then(|periods| fraction.times(periods)).filter(|plain| *plain != factor) {
            adapted.push(explain_factor(plain, factor, percent, period, long, target));
        }
        tiers.push(BurnTier {
            severity: annotations.severities.word(severity),
            tier: Tier { name: name.into(), severity, long, short, factor, measure: Measure::BurnRate },
            patience: Patience {
                pending_us: micros(annotations.alert_after),
                keep_firing_us: micros(annotations.keep_firing),
            },
            source: TierSource::Workbook(fraction),
            adapted: (!adapted.is_empty()).then(|| adapted.join("; ")),
            targets: Vec::new(),
        });
    }
    (tiers, left_out)
}

/// The name of the tier of a [`Consumption`].
pub(super) const CONSUMPTION: &str = "consumption";

/// A part of the budget, and the time in which it may not be spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Consumption {
    pub(super) part: Ratio,
    pub(super) window: Window,
}

impl Consumption {
    /// Its tier, or why it makes no sense for this period and target.
    pub(super) fn tier(
        &self,
        period: Window,
        target: Target,
        annotations: &SloAnnotations,
    ) -> Result<BurnTier, String> {
        let Self { part, window } = *self;
        let percent = |ratio: Ratio| format!("{} %", shown(Ratio::percent(10_000).times(ratio).unwrap_or(ratio)));
        if window > period {
            return Err(format!("its window of {window} is longer than the period of {period} (write at most that)"));
        }
        let even = Ratio::new(window.minutes().into(), period.minutes().into()).unwrap_or(Ratio::ONE);
        if part < even {
            return Err(format!(
                "{} of the budget in {window} is reached while the objective is met: {window} / {period} = {} is what it takes \
                 then (write at least that)",
                percent(part),
                percent(even)
            ));
        }
        let most = Ratio::ONE.over(target.budget()).unwrap_or(Ratio::ONE);
        if part > most {
            return Err(format!(
                "{} of the budget can never be spent: if everything fails it is 1 / (1 - {target}) = {} (write less than that)",
                percent(part),
                percent(most)
            ));
        }
        let severity = Severity::Ticket;
        Ok(BurnTier {
            severity: annotations.severities.word(severity),
            tier: Tier {
                name: CONSUMPTION.into(),
                severity,
                long: window,
                short: window,
                factor: part,
                measure: Measure::Consumption,
            },
            patience: Patience {
                pending_us: micros(annotations.alert_after),
                keep_firing_us: micros(annotations.keep_firing),
            },
            source: TierSource::Consumption,
            adapted: None,
            targets: Vec::new(),
        })
    }
}

/// A length of time in microseconds.
pub(super) fn micros(window: Option<Window>) -> i64 {
    window.map_or(0, |window| i64::from(window.minutes()) * MINUTE_MICROS)
}

/// Why a factor is not the share of the budget x period / long window.
fn explain_factor(plain: Ratio, factor: Ratio, percent: u32, period: Window, long: Window, target: Target) -> String {
    let arithmetic = format!("{percent} % of the budget x {period} / {long} = {}", shown(plain));
    if factor > plain {
        format!("its factor is {} instead of {arithmetic}, which fires while the objective is met", shown(factor))
    } else {
        let most = Ratio::ONE.over(target.budget()).map_or_else(String::new, shown);
        format!(
            "its factor is {} instead of {arithmetic}: at the target {target} no burn rate is above 1 / (1 - target) = \
             {most}",
            shown(factor)
        )
    }
}

/// A ratio for people, to three places.
pub(super) fn shown(ratio: Ratio) -> String {
    let text = format!("{:.3}", ratio.to_f64());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
