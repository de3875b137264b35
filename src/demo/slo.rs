//! The demo's objective, and what is followed of it: the fastest tier that pages.

use std::path::{Path, PathBuf};
use std::time::Duration;

use toolgauge_proto::api::slo::{SloReport, SlosReport, TierReport};

use crate::client::{Api, ApiError};
use crate::loadgen::fleet::{FRAGILE, TOOLS};
use crate::screen::percent;

const NAME: &str = "search-availability";
const SERVICE: &str = "docs";
const PAGE: &str = "page";

/// An OpenSLO document, as anybody would write it: no windows or factors of its own.
fn document() -> String {
    let tool = TOOLS[FRAGILE].name;
    format!(
        "apiVersion: openslo/v1
kind: SLO
metadata:
  name: {NAME}
  displayName: Searching the docs works
spec:
  service: {SERVICE}
  indicator:
    metadata:
      name: {NAME}
    spec:
      ratioMetric:
        counter: true
        good:
          metricSource:
            type: toolgauge
            spec:
              where: outcome = 'ok'
        total:
          metricSource:
            type: toolgauge
            spec:
              where: kind = 'tool' AND tool_name = '{tool}'
  timeWindow:
    - duration: 30d
      isRolling: true
  budgetingMethod: Occurrences
  objectives:
    - target: 0.999
"
    )
}

/// Writes the document into the demo's folder; its path.
pub(super) fn write(data: &Path) -> std::io::Result<PathBuf> {
    let folder = data.join("slo");
    std::fs::create_dir_all(&folder)?;
    let path = folder.join(format!("{NAME}.yaml"));
    std::fs::write(&path, document())?;
    Ok(path)
}

/// The objective as it was evaluated last.
#[derive(Debug)]
pub(super) struct Objective(SloReport);

impl Objective {
    /// `None` until it is evaluated.
    pub(super) async fn ask(api: &Api) -> Result<Option<Self>, ApiError> {
        let report: SlosReport = match api.get("/api/v1/slos").await {
            // Its history is being counted.
            Err(ApiError::Refused { status: 503, .. }) => return Ok(None),
            answer => answer?,
        };
        Ok(report.slos.into_iter().find(|slo| slo.slo == NAME && slo.service == SERVICE).map(Self))
    }

    /// The tier that pages first.
    fn fastest(&self) -> Option<&TierReport> {
        self.0.tiers.iter().filter(|tier| tier.severity == PAGE).max_by(|a, b| a.threshold.total_cmp(&b.threshold))
    }

    pub(super) fn firing(&self) -> bool {
        self.fastest().is_some_and(|tier| tier.state == "firing")
    }

    fn rate(&self, window: &str) -> String {
        let found = self.0.burn_rates.iter().find(|rate| rate.window == window).and_then(|rate| rate.rate);
        found.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}x"))
    }

    /// The windows and burn rates of the fastest tier.
    pub(super) fn burning(&self) -> String {
        self.fastest().map_or_else(String::new, |tier| {
            format!(
                "burn rate {} over {}, {} over {}; threshold {:.1}x",
                self.rate(&tier.long_window),
                tier.long_window,
                self.rate(&tier.short_window),
                tier.short_window,
                tier.threshold
            )
        })
    }

    /// When its short window has forgotten what failed until now, at the latest.
    pub(super) fn drained_after(&self) -> Option<Duration> {
        let window = humantime::parse_duration(&self.fastest()?.short_window).ok()?;
        // A window has the minute that is under way besides its own.
        Some(window + Duration::from_secs(60))
    }

    /// A line for the objective, and one for each tier.
    pub(super) fn lines(&self) -> String {
        let Self(slo) = self;
        let mut text = format!(
            "\nSLO {}: {} of {} over {}, target {}; error budget left {}\n",
            slo.display_name.as_deref().unwrap_or(&slo.slo),
            percent(slo.sli),
            slo.total,
            slo.window,
            percent(Some(slo.target)),
            slo.budget.remaining_ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{:.1} %", ratio * 100.0)),
        );
        for tier in &slo.tiers {
            text.push_str(&format!(
                "  {:<9} {:<6} {:>4} {:>9}  {:>4} {:>9}  threshold {:>5.1}x  {}\n",
                tier.burn_tier,
                tier.severity,
                tier.long_window,
                self.rate(&tier.long_window),
                tier.short_window,
                self.rate(&tier.short_window),
                tier.threshold,
                tier.state
            ));
        }
        text
    }

    /// The same in a few words.
    pub(super) fn summary(&self) -> String {
        let Self(slo) = self;
        let left = slo.budget.remaining_ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{:.1} %", ratio * 100.0));
        format!("error budget left {left}; {}", self.burning())
    }
}
