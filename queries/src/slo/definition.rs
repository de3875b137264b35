//! One SLO as its document defines it: what it counts, how much of it must be good, over which window.

use std::sync::Arc;

use toolgauge_analytics::budget::Target;
use toolgauge_analytics::window::Window;
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
    /// Hash of everything that the counts depend on: rows of `slo_1m` of one revision may be added up.
    #[must_use]
    pub fn revision(&self) -> String {
        let layer = self.layer.map_or("counted", Layer::as_str);
        let judged = match self.judged {
            Judged::Good => "good",
            Judged::Bad => "bad",
        };
        let parts = [self.mode.as_str(), layer, judged, self.total.text.trim(), self.judge.text.trim()];
        format!("{:016x}", xxh3_64(parts.join("\0").as_bytes()))
    }
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
    /// The rolling window.
    pub window: Window,
    /// The file it comes from.
    pub file: Arc<str>,
    /// Where in it.
    pub place: Place,
}

/// Minutes of a rolling window, such as `30d`; months count 30 days, quarters 90, years 365.
pub(super) fn window_of(text: &str) -> Option<Window> {
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
