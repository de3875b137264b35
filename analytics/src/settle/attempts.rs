//! Step 4: which attempt retried which.
//!
//! A chain is worked off in order of start. A failed attempt opens a slot, and an attempt consumes the best open slot, if any: slots
//! stand in one ordered set under everything by which they may be asked for, so the latest that ended in time is one
//! look away, however many are open.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use toolgauge_proto::call::{Kind, Layer, Signal};
use toolgauge_proto::id::RowId;

use super::{Decision, Facts, NONE, Retry, Row, spans};

#[derive(Debug, Default)]
pub(super) struct Scratch {
    chains: Vec<Attempt>,
    agent: Vec<u32>,
    slots: BTreeSet<Slot>,
}

/// Attempts with the same key may retry each other.
type Key = (Kind, u32, u64, u64, Layer, bool, Signal);

/// A live row, in the order in which attempts are taken.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Attempt {
    key: Key,
    start_ns: i64,
    end_ns: i64,
    row_id: RowId,
    row: u32,
}

/// By what an open slot may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum By {
    /// Its call id.
    CallId(u64),
    /// Its arguments, by an attempt that is marked.
    Arguments(u64),
    /// Its arguments, by any attempt: it asks for a retry.
    ArgumentsAsking(u64),
    /// Its arguments, by an attempt without a call id: it has none either.
    ArgumentsNoId(u64),
    /// Anything, by an attempt that is marked.
    Any,
    /// Anything, by any attempt: it asks for a retry.
    Asking,
}

/// The greatest of one `By` is the one that ended last, of these the one with the smallest row id.
type Slot = (By, i64, Reverse<RowId>, u32);

/// Call id and fingerprint as far as they tell of retries: of models and agents only marks do.
fn hints(facts: &Facts) -> (u64, u64) {
    match facts.kind {
        Kind::Tool => (facts.call_id, facts.arguments),
        Kind::Model | Kind::Agent => (0, 0),
    }
}

/// Everything by which the slot of a failed attempt may be asked for.
fn entries(facts: &Facts) -> impl Iterator<Item = By> {
    let (call_id, arguments) = hints(facts);
    let asks = facts.asks_retry;
    [
        (call_id != 0).then_some(By::CallId(call_id)),
        (arguments != 0).then_some(By::Arguments(arguments)),
        (arguments != 0 && asks).then_some(By::ArgumentsAsking(arguments)),
        (arguments != 0 && call_id == 0).then_some(By::ArgumentsNoId(arguments)),
        Some(By::Any),
        asks.then_some(By::Asking),
    ]
    .into_iter()
    .flatten()
}

fn slot(by: By, rows: &[Row], row: u32) -> Slot {
    let facts = &rows[row as usize].facts;
    (by, facts.end_ns, Reverse(facts.row_id), row)
}

/// The open slot that an attempt consumes.
fn best(slots: &BTreeSet<Slot>, facts: &Facts, settle_ns: i64, allowed: impl Fn(u32) -> bool) -> Option<u32> {
    let earliest = facts.start_ns.saturating_sub(settle_ns.max(0));
    let latest = |by: By| {
        let from = (by, earliest, Reverse(RowId::from_bytes([u8::MAX; 16])), 0);
        let upto = (by, facts.start_ns, Reverse(RowId::from_bytes([0; 16])), NONE);
        slots.range(from..=upto).rev().find(|slot| allowed(slot.3))
    };
    let marked = facts.says_attempt >= 2;
    let (call_id, arguments) = hints(facts);
    let by_arguments = || {
        if marked {
            return latest(By::Arguments(arguments));
        }
        let asking = latest(By::ArgumentsAsking(arguments));
        let no_id = if call_id == 0 { latest(By::ArgumentsNoId(arguments)) } else { None };
        asking.into_iter().chain(no_id).max_by_key(|slot| (slot.1, slot.2))
    };
    // Nothing stands under 0: it is not a call id and not a fingerprint.
    latest(By::CallId(call_id))
        .or_else(by_arguments)
        .or_else(|| latest(if marked { By::Any } else { By::Asking }))
        .map(|slot| slot.3)
}

/// Decides `attempt`, `is_final`, `retry_of`, `retry` and `retried_by`.
pub(super) fn number(rows: &[Row], scratch: &mut super::Scratch, settle_ns: i64, out: &mut [Decision]) {
    bind(rows, scratch, out);
    if !rows.iter().zip(&*out).any(|(row, decision)| row.frozen.is_none() && decision.failed) {
        return;
    }
    let mut work = std::mem::take(&mut scratch.attempts);
    spans::nearest(rows, &scratch.ancestor, |facts| facts.kind == Kind::Agent, &mut work.agent);
    work.chains.clear();
    work.chains.extend(rows.iter().zip(0u32..).filter(|(row, _)| row.frozen.is_none()).map(|(row, i)| {
        let Facts { kind, tool, layer, signal, start_ns, end_ns, row_id, .. } = row.facts;
        let decision = &out[i as usize];
        let server = server(rows, scratch, &row.facts, decision);
        let key = (kind, work.agent[i as usize], server, tool, layer, decision.counted, signal);
        Attempt { key, start_ns, end_ns, row_id, row: i }
    }));
    work.chains.sort_unstable();
    for chain in work.chains.chunk_by(|a, b| a.key == b.key) {
        // Nothing to consume: most chains of most groups.
        if chain.iter().any(|attempt| out[attempt.row as usize].failed) {
            follow(rows, scratch, chain, settle_ns, &mut work.slots, out);
        }
    }
    scratch.attempts = work;
}

/// Writes down on live rows what frozen ones say of them.
fn bind(rows: &[Row], scratch: &super::Scratch, out: &mut [Decision]) {
    for row in rows {
        let Some(frozen) = &row.frozen else { continue };
        let live = |seq: Option<u64>| seq.and_then(|seq| scratch.row_of(seq)).filter(|row| rows[*row].frozen.is_none());
        if let Some(retry) = live(frozen.retried_by) {
            out[retry].retry_of = Some(row.facts.seq);
            out[retry].retry = Some(Box::new(Retry::after(&row.facts, frozen, rows[retry].facts.start_ns)));
            out[retry].attempt = out[retry].attempt.max(frozen.attempt.saturating_add(1));
        }
        if let Some(failure) = live(frozen.retry_of) {
            out[failure].is_final = false;
            out[failure].retried_by = Some(row.facts.seq);
        }
    }
}

/// The row's server, or the one that its views fill in.
fn server(rows: &[Row], scratch: &super::Scratch, facts: &Facts, decision: &Decision) -> u64 {
    if facts.server != 0 {
        return facts.server;
    }
    let filled = decision.nulls_from.iter().filter_map(|seq| scratch.row_of(*seq));
    filled.map(|row| rows[row].facts.server).find(|server| *server != 0).unwrap_or(0)
}

/// Works off one chain.
fn follow(
    rows: &[Row],
    scratch: &super::Scratch,
    chain: &[Attempt],
    settle_ns: i64,
    slots: &mut BTreeSet<Slot>,
    out: &mut [Decision],
) {
    slots.clear();
    for attempt in chain {
        let (row, i) = (attempt.row, attempt.row as usize);
        let facts = &rows[i].facts;
        // A retry that is settled already keeps its number, so this one must stay below it.
        let settled = out[i].retried_by.and_then(|seq| scratch.row_of(seq));
        let limit = settled.map_or(u32::MAX, |retry| out[retry].attempt);
        let allowed = |slot: u32| out[slot as usize].attempt.saturating_add(1) < limit || settled.is_none();
        if out[i].retry_of.is_none()
            && let Some(found) = best(slots, facts, settle_ns, allowed)
        {
            let (failed, failure) = (found as usize, &rows[found as usize].facts);
            out[failed].is_final = false;
            out[failed].retried_by = Some(facts.seq);
            out[i].retry_of = Some(failure.seq);
            // Whatever the failure itself retried began before it, and stands before it in the chain.
            out[i].retry = Some(Box::new(Retry::after(failure, &out[failed], facts.start_ns)));
            out[i].attempt = out[i].attempt.max(out[failed].attempt + 1);
            for by in entries(failure) {
                slots.remove(&slot(by, rows, found));
            }
        }
        // Past the last number there is no next one.
        if out[i].failed && out[i].is_final && out[i].attempt < u32::MAX {
            slots.extend(entries(facts).map(|by| slot(by, rows, row)));
        }
    }
}
