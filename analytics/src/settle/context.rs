//! Step 5: whose call it is, where a row does not say so itself: its session, its user, the agent that made it.
//!
//! Conventions put these on some spans of a trace only (OpenTelemetry's: on runs of agents and inferences, not on tools). A row
//! takes each that it lacks from the first that has it of: its log record and its views, nearest first; its nearest
//! recognised ancestor that has it; and, of session and user, its whole group, if that knows one only. An agent's name comes
//! from runs of agents alone, and goes to tools and models alone.
//!
//! What a row takes is a value; the row that it is taken from is any that has it, one that has not settled before
//! others, because the values of settled rows may be gone. A frozen row keeps what it took, and gives what it said itself.

use toolgauge_proto::call::Kind;

use super::{Context, Decision, Facts, NONE, Row, spans};

/// How many things there are to take.
const THINGS: usize = 3;

#[derive(Debug, Default)]
pub(super) struct Scratch {
    nearest: Vec<u32>,
    /// (value, whether it is live, seq, row), in order.
    known: Vec<(u64, bool, u64, u32)>,
}

/// One thing that a row may lack.
#[derive(Clone, Copy)]
struct Thing {
    /// What a row says of it, 0 for nothing.
    of: fn(&Facts) -> u64,
    /// What it gives to others.
    gives: fn(&Facts) -> u64,
    /// Whether the row may take it.
    lacks: fn(&Facts) -> bool,
    /// Whether rows that are no relatives tell it, if they all agree.
    of_group: bool,
    place: fn(&mut Context) -> &mut Option<u64>,
}

fn agent_given(facts: &Facts) -> u64 {
    if facts.kind == Kind::Agent { facts.agent } else { 0 }
}

const ALL: [Thing; THINGS] = [
    Thing {
        of: |facts| facts.session,
        gives: |facts| facts.session,
        lacks: |facts| facts.session == 0,
        of_group: true,
        place: |context| &mut context.session_from,
    },
    Thing {
        of: |facts| facts.user,
        gives: |facts| facts.user,
        lacks: |facts| facts.user == 0,
        of_group: true,
        place: |context| &mut context.user_from,
    },
    Thing {
        of: |facts| facts.agent,
        gives: agent_given,
        lacks: |facts| facts.agent == 0 && facts.kind != Kind::Agent,
        of_group: false,
        place: |context| &mut context.agent_from,
    },
];

impl Thing {
    fn is_lacked(&self, rows: &[Row]) -> bool {
        rows.iter().any(|row| row.frozen.is_none() && (self.lacks)(&row.facts))
            && rows.iter().any(|row| (self.of)(&row.facts) != 0)
    }
}

/// Whether some row lacks what another one of the group says.
pub(super) fn is_lacked(rows: &[Row]) -> bool {
    rows.len() > 1 && ALL.iter().any(|thing| thing.is_lacked(rows))
}

/// Decides `context`, after the ancestors and `nulls_from`.
pub(super) fn find(rows: &[Row], scratch: &mut super::Scratch, out: &mut [Decision]) {
    let mut work = std::mem::take(&mut scratch.context);
    for thing in ALL.iter().filter(|thing| thing.is_lacked(rows)) {
        spans::nearest(rows, &scratch.ancestor, |facts| (thing.gives)(facts) != 0, &mut work.nearest);
        work.known.clear();
        work.known.extend(
            (rows.iter().zip(0u32..))
                .map(|(row, i)| ((thing.of)(&row.facts), row.frozen.is_none(), row.facts.seq, i))
                .filter(|known| known.0 != 0),
        );
        work.known.sort_unstable();
        let only = match (work.known.first(), work.known.last()) {
            (Some(first), Some(last)) if thing.of_group && first.0 == last.0 => first.0,
            _ => 0,
        };
        for i in (0..rows.len()).filter(|i| rows[*i].frozen.is_none() && (thing.lacks)(&rows[*i].facts)) {
            let says = |row: usize| Some((thing.of)(&rows[row].facts)).filter(|value| *value != 0);
            let of_views = || out[i].nulls_from.iter().filter_map(|seq| scratch.row_of(*seq)).find_map(says);
            let of_ancestor =
                || (work.nearest[i] != NONE).then(|| (thing.gives)(&rows[work.nearest[i] as usize].facts));
            let value = of_views().or_else(of_ancestor).unwrap_or(only);
            if value == 0 {
                continue;
            }
            // The last of those that say so: the youngest live one, if there is one.
            let end = work.known.partition_point(|known| known.0 <= value);
            let source = end.checked_sub(1).map(|at| work.known[at].2);
            *(thing.place)(out[i].context.get_or_insert_default()) = source;
        }
    }
    scratch.context = work;
}
