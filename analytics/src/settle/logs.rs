//! Step 2: a span and a log record that tell of one call.
//!
//! They are matched one to one: pairs with equal call ids first, then those that stand at the same place in the trace; within
//! each, the pair whose ends are nearest first. A row stands on a line at (end, row id), so that its nearest
//! free partner is always the next one to the left or to the right. A chain that goes from a row to its nearest, and
//! on to the nearest of that, gets shorter with every step and ends with two that are nearest to each other: exactly
//! a pair that taking the shortest of all pairs, again and again, would take. So the work stays linear (with
//! logarithms) where listing all pairs would be quadratic.

use toolgauge_proto::call::{Kind, Signal};

use super::{Facts, NONE, Row};

/// How many free rows that contradict each other (two servers, two call ids) a search passes before it gives up.
const CONTRADICTIONS_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Scratch {
    spans: Line,
    logs: Line,
    taken: Vec<bool>,
    chain: Vec<u32>,
}

/// Where rows are searched: the same kind and tool, and the same call id or place.
type Bucket = (Kind, u64, u64);

/// Rows of one signal in order, and per place where the search goes on if it is taken.
#[derive(Debug, Default)]
struct Line {
    points: Vec<(Bucket, i64, u64, u32)>,
    right: Vec<u32>,
    left: Vec<u32>,
}

/// How far a span and a log record are apart. Equal distances are told apart by the row ids.
type Distance = (u64, i128, [u8; 16], [u8; 16]);

/// Where a row stands among rows that ended in the same nanosecond. The spans of a trace share the other half of their ids.
fn tie(facts: &Facts) -> u64 {
    let [.., a, b, c, d, e, f, g, h] = *facts.row_id.as_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

pub(super) fn distance(span: &Facts, log: &Facts) -> Distance {
    let (s, l) = ((span.end_ns, tie(span)), (log.end_ns, tie(log)));
    let (low, high) = if s <= l { (s, l) } else { (l, s) };
    let ties = i128::from(high.1) - i128::from(low.1);
    (high.0.abs_diff(low.0), ties, *span.row_id.as_bytes(), *log.row_id.as_bytes())
}

/// Whether two rows may be one call as far as servers and call ids go: they are equal, or one of them is not known.
pub(super) fn agree(a: &Facts, b: &Facts) -> bool {
    let same = |a: u64, b: u64| a == b || a == 0 || b == 0;
    same(a.server, b.server) && same(a.call_id, b.call_id)
}

/// Finds the pairs. What a frozen row says of its partner stands.
pub(super) fn pair(rows: &[Row], scratch: &mut super::Scratch) {
    let mut pair = std::mem::take(&mut scratch.pair);
    pair.clear();
    pair.resize(rows.len(), NONE);
    let logs = rows.iter().filter(|row| row.is_log()).count();
    if logs > 0 && logs < rows.len() {
        let work = &mut scratch.logs;
        work.taken.clear();
        // A log record that settled as a view of some row is spoken for.
        let spoken_for = |row: &Row| row.frozen.as_ref().is_some_and(|f| f.pair.is_some() || f.view_of.is_some());
        work.taken.extend(rows.iter().map(|row| row.is_log() && spoken_for(row)));
        for (row, i) in rows.iter().zip(0u32..) {
            let Some(seq) = row.frozen.as_ref().and_then(|frozen| frozen.pair) else { continue };
            scratch.logs.taken[i as usize] = true;
            if let Some(other) = scratch.row_of(seq) {
                scratch.logs.taken[other] = true;
                pair[i as usize] = u32::try_from(other).unwrap_or(NONE);
                pair[other] = i;
            }
        }
        let work = &mut scratch.logs;
        work.match_all(rows, &mut pair, |facts, places| {
            places.extend((facts.call_id != 0).then_some(facts.call_id));
        });
        work.match_all(rows, &mut pair, |facts, places| {
            places.extend((facts.span_id != 0).then_some(facts.span_id));
            let parent = facts.parent_span_id;
            let apart = facts.signal == Signal::Span && parent != 0 && parent != facts.span_id;
            places.extend(apart.then_some(parent));
        });
    }
    scratch.pair = pair;
}

/// The at most two places of a row.
#[derive(Default)]
struct Places([u64; 2], usize);

impl Extend<u64> for Places {
    fn extend<I: IntoIterator<Item = u64>>(&mut self, places: I) {
        for place in places {
            self.0[self.1] = place;
            self.1 += 1;
        }
    }
}

impl Scratch {
    /// Matches the free rows that share a place.
    fn match_all(&mut self, rows: &[Row], pair: &mut [u32], places: impl Fn(&Facts, &mut Places)) {
        let places = |facts: &Facts| {
            let mut found = Places::default();
            places(facts, &mut found);
            found.0.into_iter().take(found.1)
        };
        self.spans.clear();
        self.logs.clear();
        for (row, i) in rows.iter().zip(0..) {
            if self.taken[i as usize] {
                continue;
            }
            let line = if row.is_log() { &mut self.logs } else { &mut self.spans };
            let facts = &row.facts;
            line.points
                .extend(places(facts).map(|place| ((facts.kind, facts.tool, place), facts.end_ns, tie(facts), i)));
        }
        if self.spans.points.is_empty() || self.logs.points.is_empty() {
            return;
        }
        self.spans.sort();
        self.logs.sort();
        let apart = |a: u32, b: u32| {
            let (a, b) = (&rows[a as usize], &rows[b as usize]);
            if a.is_log() { distance(&b.facts, &a.facts) } else { distance(&a.facts, &b.facts) }
        };
        for at in 0..self.logs.points.len() {
            self.chain.push(self.logs.points[at].3);
            while let Some(&last) = self.chain.last() {
                if self.taken[last as usize] {
                    self.chain.pop();
                    continue;
                }
                let row = &rows[last as usize];
                let line = if row.is_log() { &mut self.spans } else { &mut self.logs };
                let next = places(&row.facts)
                    .filter_map(|place| line.nearest(rows, &self.taken, row, place))
                    .min_by_key(|next| apart(last, *next));
                let before = self.chain.len().checked_sub(2).map(|at| self.chain[at]);
                match (before, next) {
                    (None, None) => {
                        self.chain.pop();
                    }
                    (Some(before), next) if next.is_none_or(|next| apart(last, next) >= apart(last, before)) => {
                        pair[last as usize] = before;
                        pair[before as usize] = last;
                        self.taken[last as usize] = true;
                        self.taken[before as usize] = true;
                        self.chain.truncate(self.chain.len() - 2);
                    }
                    (_, next) => self.chain.extend(next),
                }
            }
        }
    }
}

impl Line {
    fn clear(&mut self) {
        self.points.clear();
        self.right.clear();
        self.left.clear();
    }

    fn sort(&mut self) {
        self.points.sort_unstable();
        self.right.extend((1u32..).take(self.points.len()));
        self.left.extend((0u32..).take(self.points.len()));
    }

    /// The free row nearest to `facts` at a place that agrees with it.
    fn nearest(&mut self, rows: &[Row], taken: &[bool], row: &Row, place: u64) -> Option<u32> {
        let facts = &row.facts;
        let bucket = (facts.kind, facts.tool, place);
        let from =
            self.points.partition_point(|point| (point.0, point.1, point.2) < (bucket, facts.end_ns, tie(facts)));
        let fits = |point: &(Bucket, i64, u64, u32)| {
            let other = &rows[point.3 as usize];
            // Two that are frozen without each other stay so.
            agree(facts, &other.facts) && (row.frozen.is_none() || other.frozen.is_none())
        };
        let here = |point: &&(Bucket, i64, u64, u32)| point.0 == bucket;
        let mut right = None;
        let mut at = from;
        for _ in 0..CONTRADICTIONS_MAX {
            at = self.free_right(taken, at);
            let Some(point) = self.points.get(at).filter(here) else { break };
            if fits(point) {
                right = Some(point.3);
                break;
            }
            at += 1;
        }
        let mut left = None;
        let mut end = from;
        for _ in 0..CONTRADICTIONS_MAX {
            end = self.free_left(taken, end);
            let Some(point) = end.checked_sub(1).and_then(|at| self.points.get(at)).filter(here) else { break };
            if fits(point) {
                left = Some(point.3);
                break;
            }
            end -= 1;
        }
        let apart = |other: &u32| {
            let other = &rows[*other as usize].facts;
            if row.is_log() { distance(other, facts) } else { distance(facts, other) }
        };
        right.into_iter().chain(left).min_by_key(apart)
    }

    /// The first free place at or after `at`; the way there is shortened for the next search.
    fn free_right(&mut self, taken: &[bool], at: usize) -> usize {
        let mut found = at;
        while self.points.get(found).is_some_and(|point| taken[point.3 as usize]) {
            found = self.right[found] as usize;
        }
        let mut way = at;
        while way < found {
            way = std::mem::replace(&mut self.right[way], u32::try_from(found).unwrap_or(NONE)) as usize;
        }
        found
    }

    /// The end of the places before `end` of which the last is free (0 if none is).
    fn free_left(&mut self, taken: &[bool], end: usize) -> usize {
        let mut found = end;
        while found > 0 && taken[self.points[found - 1].3 as usize] {
            found = self.left[found - 1] as usize;
        }
        let mut way = end;
        while way > found {
            way = std::mem::replace(&mut self.left[way - 1], u32::try_from(found).unwrap_or(NONE)) as usize;
        }
        found
    }
}
