//! What is known of the telemetry itself: which minutes are covered, and which services still send.

use std::collections::{BTreeSet, HashMap};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use arrow::error::ArrowError;
use toolgauge_analytics::window::{Minute, Window};
use toolgauge_proto::time::UnixMicros;

/// Most services that are remembered; of more, those that were silent for longest are forgotten first.
const SERVICES_MAX: usize = 100_000;
/// How far back minutes are remembered: more than the longest short window.
pub(crate) const REMEMBERED: Window = Window::D1;

/// What came in when; a fold of `arrivals` in which a row may come more than once.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    /// The first minute that is known; nothing could be received before.
    first: Option<Minute>,
    covered: BTreeSet<Minute>,
    last_seen: HashMap<String, Minute>,
}

/// How much of a window is covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Coverage {
    /// Minutes in which exports were accepted.
    pub(crate) covered: u64,
    /// Minutes that had ended at the watermark.
    pub(crate) ended: u64,
}

impl Coverage {
    /// covered / ended, 1 if nothing has ended.
    pub(crate) fn ratio(self) -> f64 {
        if self.ended == 0 { 1.0 } else { self.covered as f64 / self.ended as f64 }
    }
}

impl Arrivals {
    /// Takes rows of `arrivals`, live or settled.
    pub(crate) fn add(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        let column = |name: &str| {
            batch.column_by_name(name).ok_or_else(|| ArrowError::SchemaError(format!("arrivals has no column {name}")))
        };
        let minutes = column("minute")?.as_primitive_opt::<TimestampMicrosecondType>();
        let minutes = minutes.ok_or_else(|| ArrowError::SchemaError("minute is no timestamp".to_owned()))?;
        let services = cast(column("service_name")?, &DataType::Utf8)?;
        let services = services.as_string::<i32>();
        for row in 0..batch.num_rows() {
            let minute = Minute::of(UnixMicros(minutes.value(row)));
            self.first = Some(self.first.map_or(minute, |first| first.min(minute)));
            self.covered.insert(minute);
            if services.is_valid(row) {
                let service = services.value(row);
                match self.last_seen.get_mut(service) {
                    Some(last) => *last = minute.max(*last),
                    None => {
                        self.last_seen.insert(service.to_owned(), minute);
                    }
                }
            }
        }
        Ok(())
    }

    /// Forgets what no evaluation asks for any more.
    pub(crate) fn forget(&mut self, now: Minute) {
        let first = *REMEMBERED.at(now).start();
        self.covered = self.covered.split_off(&first);
        if self.last_seen.len() > SERVICES_MAX {
            self.last_seen.retain(|_, last| *last >= first);
        }
        if self.last_seen.len() > SERVICES_MAX {
            let mut lasts: Vec<Minute> = self.last_seen.values().copied().collect();
            lasts.sort_unstable();
            let oldest = lasts[lasts.len() - SERVICES_MAX];
            self.last_seen.retain(|_, last| *last > oldest);
        }
    }

    /// The coverage of a window at `now`. Minutes that have not ended at the watermark do not count either way, nor do those before
    /// the first one that is known: a new collector is no gap.
    pub(crate) fn coverage(&self, window: Window, now: Minute, watermark: UnixMicros) -> Coverage {
        let minutes = window.at(now);
        let start = self.first.map_or(*minutes.start(), |first| first.max(*minutes.start()));
        let last = (*minutes.end()).min(Minute(Minute::of(watermark).0 - 1));
        if last < start {
            return Coverage { covered: 0, ended: 0 };
        }
        let ended = (last.0 - start.0 + 1).unsigned_abs();
        Coverage { covered: self.covered.range(start..=last).count() as u64, ended }
    }

    /// The minute in which a service last sent anything.
    pub(crate) fn last_seen(&self, service: &str) -> Option<Minute> {
        self.last_seen.get(service).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_minutes_that_have_ended_count() {
        let covered = [94, 96, 97, 99, 100].map(Minute).into();
        let arrivals = Arrivals { first: Some(Minute(94)), covered, last_seen: HashMap::new() };
        let at = |watermark_s: i64| arrivals.coverage(Window::M5, Minute(100), UnixMicros(watermark_s * 1_000_000));
        // 95 to 99 have ended; 95 and 98 are missing.
        assert_eq!(at(100 * 60 + 30), Coverage { covered: 3, ended: 5 });
        // The watermark stands in 98, so that 95 to 97 have.
        assert_eq!(at(98 * 60 + 59), Coverage { covered: 2, ended: 3 });
        assert_eq!(at(90 * 60), Coverage { covered: 0, ended: 0 });
    }

    #[test]
    fn minutes_before_the_first_one_do_not_count() {
        let arrivals =
            Arrivals { first: Some(Minute(97)), covered: [97, 99].map(Minute).into(), last_seen: HashMap::new() };
        let at = |now| arrivals.coverage(Window::M5, Minute(now), Minute(now).start());
        assert_eq!(at(97), Coverage { covered: 0, ended: 0 });
        assert_eq!(at(98), Coverage { covered: 1, ended: 1 });
        assert_eq!(at(100), Coverage { covered: 2, ended: 3 });
    }

    #[test]
    fn old_minutes_are_forgotten() {
        let mut arrivals = Arrivals::default();
        arrivals.covered.extend((0..5_000).map(Minute));
        arrivals.forget(Minute(5_000));
        assert_eq!(arrivals.covered.first(), Some(&Minute(5_000 - 24 * 60)));
    }
}
