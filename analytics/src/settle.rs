//! Deciding a group of rows: which are views of one call, which are attempts of one logical call, which one counts.
//!
//! A *group* is all that is known of one trace, or of one session for rows that have no trace. [`Decider::decide`] is a
//! function from a group to one [`Decision`] per row. The collector asks again whenever a group grows, and keeps (freezes)
//! the decisions of the rows that settle.
//!
//! # Guarantees
//!
//! * **Order does not matter.** With nothing frozen, the decisions depend on the set of rows and links only: not on
//!   their order in the slice and not on [`Facts::seq`] (of a [`Context`], the values do). Row ids are unique (the collector has dropped duplicates).
//! * **Never negative.** A row is one attempt; a failed attempt has at most one retry, which starts no earlier than the
//!   attempt ends, and whose number is higher. Chains of attempts are paths. So `count(is_final)` is the number of logical
//!   calls, `count(is_final and failed)` that of failed ones, and the second never exceeds the first, over any subset of rows.
//! * **Frozen is final.** A frozen decision comes back unchanged. What it says of others binds them: its retry, the
//!   attempt it retried, its log or span and its views stay so, and a call that a frozen row counts is not counted again.
//! * **Cost.** Linear, except for sorting. A group in which nothing failed, is marked, logged, nested or frozen, and in which no row
//!   lacks what others say of session, user and agent, needs no scratch space. Chains of spans that are not calls are followed for at most [`ANCESTORS_MAX`] spans, and a
//!   row is filled from at most [`FILLERS_MAX`] others.
//!
//! # How it works
//!
//! | step | module | finds |
//! |---|---|---|
//! | 1 | `spans` | the nearest recognised ancestor of every row, through spans that are not calls |
//! | 2 | `logs` | the log record that tells of the same call as a span |
//! | 3 | `views` | tool rows that are views of one call (a *cluster*), what the outer take from the inner, who counts |
//! | 4 | `attempts` | which attempt retried which |
//! | 5 | `context` | session, user and agent of rows that do not say them |
//!
//! # What late rows do
//!
//! A row is late if a relative of it is already frozen. A late view joins the cluster of its call and is not counted if any row
//! there is counted for good. That is a row that is frozen as counted, or the decided retry of one: had a late
//! outer view taken the count away from the retry, the logical call would be counted zero times. A late retry of a
//! frozen failure is a new logical call, because that failure was decided to be the last attempt of its own.

mod attempts;
mod context;
mod logs;
mod spans;
mod views;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use toolgauge_proto::call::{Kind, Layer, Signal};
use toolgauge_proto::id::RowId;

use spans::{Index, Spans};

/// How many spans are followed from a row to its nearest recognised ancestor, or to its local root.
pub const ANCESTORS_MAX: usize = 256;

/// How many rows, the nearest, fill the null columns of another one.
pub const FILLERS_MAX: usize = 32;

/// No sampling threshold was reported.
pub const NO_THRESHOLD: u64 = u64::MAX;

/// Groups of at most this many rows and links are searched, larger ones are indexed: comparing a few words in a row is
/// cheaper than building a map.
const SEARCH_MAX: usize = 64;

/// Groups of at most this many rows are looked at pair by pair to see that nothing is nested.
const PAIRS_MAX: usize = 16;

/// No row, in the `u32` numbers of rows that the steps work with.
const NONE: u32 = u32::MAX;

/// What deciding needs to know of one row. Names are 64-bit hashes made by the caller, 0 stands for absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Running number of the row in the log. Decisions name rows by it and are never based on it.
    pub seq: u64,
    /// Identity of the row: what decides when nothing else does.
    pub row_id: RowId,
    /// The span; of a log record the span that it was written in. 0 for none.
    pub span_id: u64,
    /// The span's parent, 0 for none; not used of log records.
    pub parent_span_id: u64,
    /// What it is an attempt of.
    pub kind: Kind,
    /// Who saw it.
    pub layer: Layer,
    /// What brought it.
    pub signal: Signal,
    /// Name of the tool; 0 if the row does not say it, because the row around it does.
    pub tool: u64,
    /// Name of the tool's server.
    pub server: u64,
    /// The library that says so.
    pub source: u64,
    /// The producer's id of the call.
    pub call_id: u64,
    /// Fingerprint of the arguments.
    pub arguments: u64,
    /// The session, as far as the row says it itself.
    pub session: u64,
    /// The user.
    pub user: u64,
    /// The agent that made the call, or that ran.
    pub agent: u64,
    /// Start, unix nanoseconds.
    pub start_ns: i64,
    /// End, unix nanoseconds.
    pub end_ns: i64,
    /// Whether it reports a failure.
    pub failed: bool,
    /// It only tells that a call was asked for (a person may have said no): it counts if a view or a log record tells
    /// that the call was carried out. Tools only.
    pub asked: bool,
    /// The producer says that this failed attempt should be tried again.
    pub asks_retry: bool,
    /// The producer says that it is attempt number n; 0 if it says nothing, and 2 or more marks a retry.
    pub says_attempt: u32,
    /// Rejection threshold of the span's `ot=th:`, 56 bits, or [`NO_THRESHOLD`].
    pub threshold: u64,
}

/// How a span hangs in its trace: one that is not a call, or any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    /// The span.
    pub span_id: u64,
    /// Its parent, 0 for none.
    pub parent_span_id: u64,
    /// Whether the parent ran in another process, so that the span is a local root.
    pub remote_parent: bool,
    /// As [`Facts::threshold`].
    pub threshold: u64,
}

/// What is decided of a row. Other rows are named by their [`Facts::seq`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the row counts; another one counts the same call if not.
    pub counted: bool,
    /// Number of the attempt within its logical call, from 1.
    pub attempt: u32,
    /// Whether it is the last attempt of its logical call.
    pub is_final: bool,
    /// The failed attempt that this one retried.
    pub retry_of: Option<u64>,
    /// How it stands to the attempts before it; some exactly if `retry_of` is.
    pub retry: Option<Box<Retry>>,
    /// The attempt that retried this one; some exactly if `is_final` is false.
    pub retried_by: Option<u64>,
    /// The outer row that this one is another view of.
    pub view_of: Option<u64>,
    /// Of a span the log record, of a log record the span, that tells of the same call.
    pub pair: Option<u64>,
    /// The row whose outcome and error columns replace its own.
    pub error_from: Option<u64>,
    /// Rows that fill the columns that are null, nearest first: its log record, its direct views from the one that ended
    /// last, then theirs. At most [`FILLERS_MAX`].
    pub nulls_from: Vec<u64>,
    /// Rows that say whose call it is; none if it says so itself, or if it is not known.
    pub context: Option<Box<Context>>,
    /// Whether it failed, after `error_from`.
    pub failed: bool,
    /// Its own threshold, else that of its local root, else [`NO_THRESHOLD`]. Log records are not sampled with their
    /// trace, so they have their own or none.
    pub threshold: u64,
}

/// Rows, by their [`Facts::seq`], whose session, user and agent are those of another one. Of the rows that have the same, any may
/// be named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// Has its session.
    pub session_from: Option<u64>,
    /// Has its user.
    pub user_from: Option<u64>,
    /// Has the name of its agent.
    pub agent_from: Option<u64>,
}

/// How a retry stands to the attempts of its logical call before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The first attempt of the logical call, as far as it was known.
    pub first: RowId,
    /// From the end of the attempt that it retried to its own start, nanoseconds; never negative.
    pub delay_ns: i64,
    /// From the start of the first attempt to its own start, nanoseconds: what the attempts before it and the pauses between
    /// them cost in time.
    pub lost_ns: i64,
}

impl Retry {
    /// Of an attempt that starts at `start_ns`, after a failed one of which this was decided.
    fn after(failure: &Facts, decision: &Decision, start_ns: i64) -> Self {
        let before = decision.retry.as_ref();
        Self {
            first: before.map_or(failure.row_id, |retry| retry.first),
            delay_ns: start_ns.saturating_sub(failure.end_ns),
            lost_ns: start_ns.saturating_sub(failure.start_ns).saturating_add(before.map_or(0, |retry| retry.lost_ns)),
        }
    }
}

impl Decision {
    /// What a row is that has no relatives.
    fn alone(facts: &Facts) -> Self {
        Self {
            counted: !facts.asked,
            attempt: facts.says_attempt.max(1),
            is_final: true,
            retry_of: None,
            retry: None,
            retried_by: None,
            view_of: None,
            pair: None,
            error_from: None,
            nulls_from: Vec::new(),
            context: None,
            failed: facts.failed,
            threshold: facts.threshold,
        }
    }
}

/// A row of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What is known of it.
    pub facts: Facts,
    /// What was decided of it when it settled. Shared, since nearly all rows are decided alike.
    pub frozen: Option<Arc<Decision>>,
}

impl Row {
    fn is_log(&self) -> bool {
        self.facts.signal == Signal::Log
    }
}

/// Decides groups, one after the other, and keeps its scratch space between them.
#[derive(Debug, Default)]
pub struct Decider {
    index: Index,
    scratch: Scratch,
}

/// What the steps hand to each other; every list has one place per row.
#[derive(Debug, Default)]
struct Scratch {
    /// Nearest recognised ancestor.
    ancestor: Vec<u32>,
    /// The other half of a span with its log.
    pair: Vec<u32>,
    /// The row that this one is a view of.
    outer: Vec<u32>,
    /// Bound to count: frozen so, or the decided retry of a row that is.
    fixed: Vec<bool>,
    /// Which walk has passed a row.
    seen: Vec<u32>,
    /// (seq, row) in order, to find the rows that decisions name.
    by_seq: Vec<(u64, u32)>,
    logs: logs::Scratch,
    views: views::Scratch,
    attempts: attempts::Scratch,
    context: context::Scratch,
}

impl Scratch {
    fn row_of(&self, seq: u64) -> Option<usize> {
        let at = self.by_seq.binary_search_by_key(&seq, |(seq, _)| *seq).ok()?;
        self.by_seq.get(at).map(|(_, row)| *row as usize)
    }
}

impl Decider {
    /// Decides every row of a group; `out[i]` belongs to `rows[i]`. A retry starts at most `settle_ns` nanoseconds after
    /// the attempt that it retries has ended.
    ///
    /// The cost is that of the whole group: ask once per batch of new rows, not once per row.
    pub fn decide(&mut self, rows: &[Row], links: &[Link], settle_ns: i64, out: &mut Vec<Decision>) {
        out.clear();
        out.extend(rows.iter().map(|row| match &row.frozen {
            Some(frozen) => Decision::clone(frozen),
            None => Decision::alone(&row.facts),
        }));
        // The usual group ends here, before any scratch space is touched.
        let plain = rows.iter().all(|row| row.frozen.is_none() && !row.is_log() && !row.facts.failed);
        let thresholds = spans::thresholds_differ(rows, links);
        let lacks = context::is_lacked(rows);
        if plain && !thresholds && !lacks && rows.len() <= PAIRS_MAX && !any_two_could_nest(rows) {
            return;
        }
        let spans = Spans::new(rows, links, &mut self.index);
        if thresholds {
            spans.thresholds(out);
        }
        let apart = plain && !spans.any_nests();
        if apart && !lacks {
            return;
        }
        let scratch = &mut self.scratch;
        scratch.by_seq.clear();
        scratch.by_seq.extend(rows.iter().zip(0..).map(|(row, i)| (row.facts.seq, i)));
        scratch.by_seq.sort_unstable();
        spans.ancestors(&mut scratch.ancestor, &mut scratch.seen);
        if !apart {
            logs::pair(rows, scratch);
            views::resolve(rows, scratch, out);
            attempts::number(rows, scratch, settle_ns, out);
        }
        if lacks {
            context::find(rows, scratch, out);
        }
    }
}

/// Whether one of two rows would be a view of the other, or be repeated by it, if it hung beneath it.
fn any_two_could_nest(rows: &[Row]) -> bool {
    let related = |a: &Facts, b: &Facts| views::nests(a, b) || views::nests(b, a);
    rows.iter().enumerate().any(|(i, row)| rows[..i].iter().any(|other| related(&other.facts, &row.facts)))
}
