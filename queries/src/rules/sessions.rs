//! Figures of sessions: a query for each rule, about once a minute, on a thread of its own.

use std::sync::Arc;
use std::time::Duration;

use toolgauge_analytics::budget::Ratio;
use toolgauge_analytics::window::Minute;
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::time::UnixMicros;

use super::definition::{Measure, SessionFigure, ThresholdRule};
use super::sql::{self, Sessions};
use super::stream::GroupKey;
use super::worker::Asking;

/// Time between two looks at the sessions.
pub(super) const INTERVAL: Duration = Duration::from_secs(60);
/// Figures that are older, in microseconds, say nothing any more.
const OLD_US: i64 = 3 * 60_000_000;

/// What the sessions of a rule came to.
#[derive(Debug, Clone)]
pub(super) struct SessionFigures {
    /// When.
    pub(super) time: UnixMicros,
    /// Group, sessions, quantile of their figures.
    pub(super) groups: Vec<(GroupKey, u64, Ratio)>,
}

impl SessionFigures {
    pub(super) fn is_old(&self, now: UnixMicros) -> bool {
        now.0.saturating_sub(self.time.0) > OLD_US
    }
}

/// What is to be asked.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) rules: Vec<Arc<ThresholdRule>>,
    pub(super) time: UnixMicros,
    pub(super) position: WalPosition,
}

/// The answers, by rule; one without an answer is left out.
pub(super) type Answers = Vec<(String, SessionFigures)>;

/// Asks for all rules on sessions.
pub(super) fn ask(asking: &Asking, request: &Request) -> Answers {
    let mut answers = Vec::new();
    for rule in &request.rules {
        let Measure::Sessions(figure, quantile) = rule.measure else { continue };
        let idle_us = asking.idle_us();
        let of = Sessions { selection: &rule.selection, figure, quantile, window: rule.window, idle_us };
        let Some(statement) = sql::sessions(&of, Minute::of(request.time), request.position, None) else { continue };
        match asking.rows(statement, None) {
            Ok(rows) => {
                let by = rule.selection.by.len();
                let groups = rows.iter().filter_map(|row| {
                    let key = row[..by].iter().map(|value| value.as_str().map(Arc::from)).collect();
                    Some((key, row.get(by)?.as_u64()?, value(figure, row.get(by + 1)?.as_str()?)?))
                });
                answers
                    .push((rule.header.name.clone(), SessionFigures { time: request.time, groups: groups.collect() }));
            }
            Err(error) => {
                tracing::warn!(rule = rule.header.name, error, "ask for the figures of sessions; it is tried again")
            }
        }
    }
    answers
}

/// A figure in the units of thresholds; a negative one, which only broken clocks give, is 0.
fn value(figure: SessionFigure, text: &str) -> Option<Ratio> {
    let ratio = if text.starts_with('-') { Ratio::new(0, 1)? } else { Ratio::from_decimal(text)? };
    match figure {
        SessionFigure::Iterations | SessionFigure::Cost => Some(ratio),
        SessionFigure::Duration => ratio.times(Ratio::new(1, 1_000_000)?),
    }
}
