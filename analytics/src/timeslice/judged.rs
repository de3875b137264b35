//! The verdicts of the slices that somebody looks at, kept from one look to the next.
//!
//! Whoever keeps the counts says of which slices they have changed; those are judged anew, and a verdict that is another one than before has
//! turned. A slice takes a byte: 43,200 for 30 days of minutes.

use std::collections::VecDeque;

use super::{SliceCounts, Slices, Verdict};
use crate::calendar::Span;
use crate::window::Minute;

/// A verdict that has become another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turned {
    /// Where the slice begins.
    pub start: Minute,
    /// Its verdict until now.
    pub before: Verdict,
    /// Its verdict from now on.
    pub now: Verdict,
}

/// The verdicts of all slices that begin in a span.
#[derive(Debug, Clone)]
pub struct Judged {
    slices: Slices,
    /// Where the first one begins.
    first: Minute,
    verdicts: VecDeque<Verdict>,
}

impl Judged {
    /// Of no slice.
    #[must_use]
    pub const fn new(slices: Slices) -> Self {
        Self { slices, first: Minute(0), verdicts: VecDeque::new() }
    }

    /// Forgets all verdicts.
    pub fn clear(&mut self) {
        self.verdicts.clear();
    }

    /// Goes on to the slices that begin in another span: forgets those that do not, and gives the minutes of those that have yet to be judged, by
    /// [`Judged::judge`]. Until then they are empty.
    pub fn go_to(&mut self, span: Span) -> Span {
        let length = i64::from(self.slices.minutes);
        let Span { start, end } = self.slices.minutes_of(span);
        if start < self.first || start >= self.end() {
            self.verdicts.clear();
            self.first = start;
        }
        while self.first < start {
            self.verdicts.pop_front();
            self.first.0 += length;
        }
        let known = self.end().min(end);
        let slices = |from: Minute, to: Minute| usize::try_from((to.0 - from.0) / length).unwrap_or(0);
        self.verdicts.resize(slices(start, end), Verdict::Empty);
        Span { start: known, end }
    }

    /// Where the slice after the last one begins.
    fn end(&self) -> Minute {
        Minute(self.first.0 + self.verdicts.len() as i64 * i64::from(self.slices.minutes))
    }

    fn index_of(&self, start: Minute) -> Option<usize> {
        let at = usize::try_from((start.0 - self.first.0).div_euclid(self.slices.minutes.into())).ok()?;
        (at < self.verdicts.len()).then_some(at)
    }

    /// Whether the slice that begins at a minute is one of them.
    #[must_use]
    pub fn has(&self, start: Minute) -> bool {
        self.index_of(start).is_some()
    }

    /// Notes the verdict of the slice that begins at a minute; says if it was another one. Nothing happens if it is not one of them.
    pub fn judge(&mut self, start: Minute, now: Verdict) -> Option<Turned> {
        let at = self.index_of(start)?;
        let before = std::mem::replace(self.verdicts.get_mut(at)?, now);
        (before != now).then_some(Turned { start, before, now })
    }

    /// Those that begin in a span, by verdict.
    #[must_use]
    pub fn tally(&self, span: Span) -> SliceCounts {
        let Span { start, end } = self.slices.minutes_of(span);
        let index = |minute: Minute| {
            let at = (minute.0 - self.first.0) / i64::from(self.slices.minutes);
            usize::try_from(at).unwrap_or(0).min(self.verdicts.len())
        };
        let (from, to) = (index(start), index(end));
        let mut counts = SliceCounts::default();
        for verdict in self.verdicts.range(from..to.max(from)) {
            match verdict {
                Verdict::Good => counts.good += 1,
                Verdict::Bad => counts.bad += 1,
                Verdict::Empty => counts.empty += 1,
            }
        }
        counts
    }
}
