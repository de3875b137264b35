//! Step 1: how rows hang together, through spans that are not calls.

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::views::nests;
use super::{ANCESTORS_MAX, Decision, Facts, Link, NO_THRESHOLD, NONE, Row, SEARCH_MAX};

/// Which row and which link a span id belongs to.
pub(super) type Index = HashMap<u64, (u32, u32), RandomState>;

/// The spans of a group by their ids.
pub(super) struct Spans<'a> {
    rows: &'a [Row],
    links: &'a [Link],
    index: Option<&'a Index>,
}

impl<'a> Spans<'a> {
    pub(super) fn new(rows: &'a [Row], links: &'a [Link], index: &'a mut Index) -> Self {
        if rows.len() + links.len() <= SEARCH_MAX {
            return Self { rows, links, index: None };
        }
        index.clear();
        index.reserve(rows.len() + links.len());
        for (row, i) in rows.iter().zip(0u32..).filter(|(row, _)| !row.is_log()) {
            let place = index.entry(row.facts.span_id).or_insert((NONE, NONE));
            if place.0 == NONE || rows[place.0 as usize].facts.row_id > row.facts.row_id {
                place.0 = i;
            }
        }
        for (link, i) in links.iter().zip(0u32..) {
            let place = index.entry(link.span_id).or_insert((NONE, NONE));
            if place.1 == NONE || links[place.1 as usize] > *link {
                place.1 = i;
            }
        }
        Self { rows, links, index: Some(index) }
    }

    /// The row of a span. Should two claim the id, the smaller row id has it, whatever came first.
    fn row(&self, span_id: u64) -> Option<u32> {
        match self.index {
            Some(index) => index.get(&span_id).map(|place| place.0).filter(|row| *row != NONE),
            None => (self.rows.iter().zip(0..))
                .filter(|(row, _)| row.facts.span_id == span_id && !row.is_log())
                .min_by_key(|(row, _)| row.facts.row_id)
                .map(|(_, i)| i),
        }
    }

    fn link(&self, span_id: u64) -> Option<&'a Link> {
        match self.index {
            Some(index) => index.get(&span_id).and_then(|place| self.links.get(place.1 as usize)),
            None => self.links.iter().filter(|link| link.span_id == span_id).min(),
        }
    }

    /// The nearest recognised ancestor of row number `i`, or [`NONE`].
    pub(super) fn ancestor(&self, row: &Row, i: u32) -> u32 {
        let mut span_id = if row.is_log() { row.facts.span_id } else { row.facts.parent_span_id };
        for _ in 0..ANCESTORS_MAX {
            if span_id == 0 {
                break;
            }
            if let Some(row) = self.row(span_id) {
                return if row == i { NONE } else { row };
            }
            let Some(link) = self.link(span_id) else { break };
            span_id = link.parent_span_id;
        }
        NONE
    }

    /// The nearest recognised ancestors of all rows: a forest, also where the spans are not.
    pub(super) fn ancestors(&self, ancestor: &mut Vec<u32>, seen: &mut Vec<u32>) {
        ancestor.clear();
        ancestor.extend(self.rows.iter().zip(0..).map(|(row, i)| self.ancestor(row, i)));
        break_cycles(self.rows, ancestor, seen);
    }

    /// Whether any row is a view of its nearest recognised ancestor, or repeats it.
    pub(super) fn any_nests(&self) -> bool {
        self.rows.iter().zip(0..).any(|(row, i)| match self.ancestor(row, i) {
            NONE => false,
            outer => nests(&self.rows[outer as usize].facts, &row.facts),
        })
    }

    /// Gives every live span that reports no threshold that of its local root.
    pub(super) fn thresholds(&self, out: &mut [Decision]) {
        for (row, decision) in self.rows.iter().zip(out) {
            if row.frozen.is_none() && row.facts.threshold == NO_THRESHOLD && !row.is_log() {
                decision.threshold = self.root_threshold(&row.facts);
            }
        }
    }

    fn root_threshold(&self, facts: &Facts) -> u64 {
        // An event of a span has no id of its own.
        let mut span_id = if facts.span_id == 0 { facts.parent_span_id } else { facts.span_id };
        for _ in 0..ANCESTORS_MAX {
            let row = self.row(span_id).map(|row| &self.rows[row as usize].facts);
            let link = self.link(span_id);
            let Some(parent) = row.map(|row| row.parent_span_id).or(link.map(|link| link.parent_span_id)) else {
                break;
            };
            if parent == 0 || link.is_some_and(|link| link.remote_parent) {
                let own = row.map_or(NO_THRESHOLD, |row| row.threshold);
                return if own == NO_THRESHOLD { link.map_or(own, |link| link.threshold) } else { own };
            }
            span_id = parent;
        }
        NO_THRESHOLD
    }
}

/// The nearest recognised ancestor that is wanted, of every row.
pub(super) fn nearest(rows: &[Row], ancestor: &[u32], wanted: impl Fn(&Facts) -> bool, found: &mut Vec<u32>) {
    // `UNKNOWN` is no row's number: a group of as many rows would not fit into memory.
    const UNKNOWN: u32 = NONE - 1;
    found.clear();
    found.resize(rows.len(), UNKNOWN);
    let is_wanted = |row: u32| wanted(&rows[row as usize].facts);
    for start in 0..rows.len() {
        let mut at = start;
        let nearest = loop {
            match (found[at], ancestor[at]) {
                (UNKNOWN, NONE) => break NONE,
                (UNKNOWN, above) if is_wanted(above) => break above,
                (UNKNOWN, above) => at = above as usize,
                (known, _) => break known,
            }
        };
        let mut at = start;
        while found[at] == UNKNOWN {
            found[at] = nearest;
            match ancestor[at] {
                NONE => break,
                above if is_wanted(above) => break,
                above => at = above as usize,
            }
        }
    }
}

/// Whether some rows report no threshold while other rows or links report one.
pub(super) fn thresholds_differ(rows: &[Row], links: &[Link]) -> bool {
    let lacking = rows.iter().filter(|row| row.facts.threshold == NO_THRESHOLD).count();
    lacking > 0 && (lacking < rows.len() || links.iter().any(|link| link.threshold != NO_THRESHOLD))
}

/// Makes a forest of what every row points to: in each cycle, the row with the smallest id lets go.
pub(super) fn break_cycles(rows: &[Row], to: &mut [u32], seen: &mut Vec<u32>) {
    // A walk from every row leaves its number on the rows that it passes: coming upon its own number is a cycle.
    seen.clear();
    seen.resize(to.len(), NONE);
    for (start, walk) in (0..to.len()).zip(0u32..) {
        let mut at = start;
        while seen[at] == NONE && to[at] != NONE {
            seen[at] = walk;
            at = to[at] as usize;
        }
        if to[at] == NONE || seen[at] != walk {
            continue;
        }
        let (mut least, mut next) = (at, to[at] as usize);
        while next != at {
            if rows[next].facts.row_id < rows[least].facts.row_id {
                least = next;
            }
            next = to[next] as usize;
        }
        to[least] = NONE;
    }
}
