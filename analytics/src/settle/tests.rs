//! What is tested: worked examples by name, agreement with a naive model, and what holds whatever arrives when.

mod examples;
mod freezing;
mod model;
mod random;

use std::collections::BTreeMap;

use toolgauge_proto::call::{Kind, Layer, Signal};
use toolgauge_proto::id::RowId;

use super::*;

pub(super) const SETTLE_NS: i64 = 60;

/// A row id that depends on `n` alone and is in no order.
pub(super) fn row_id(n: u64) -> RowId {
    let high = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&high.to_be_bytes());
    bytes[8..].copy_from_slice(&n.to_be_bytes());
    RowId::from_bytes(bytes)
}

/// A tool span that went well and has no relatives.
pub(super) fn span(n: u64) -> Facts {
    Facts {
        seq: n,
        row_id: row_id(n),
        span_id: n,
        parent_span_id: 0,
        kind: Kind::Tool,
        layer: Layer::Agent,
        signal: Signal::Span,
        tool: 1,
        server: 0,
        source: 1,
        call_id: 0,
        arguments: 0,
        session: 0,
        user: 0,
        agent: 0,
        start_ns: 0,
        end_ns: 0,
        failed: false,
        asked: false,
        asks_retry: false,
        says_attempt: 0,
        threshold: NO_THRESHOLD,
    }
}

pub(super) fn link(span_id: u64, parent_span_id: u64) -> Link {
    Link { span_id, parent_span_id, remote_parent: false, threshold: NO_THRESHOLD }
}

pub(super) fn live(facts: &[Facts]) -> Vec<Row> {
    facts.iter().map(|facts| Row { facts: *facts, frozen: None }).collect()
}

pub(super) fn decide(facts: &[Facts], links: &[Link]) -> Vec<Decision> {
    let mut out = Vec::new();
    Decider::default().decide(&live(facts), links, SETTLE_NS, &mut out);
    out
}

/// A decision that names rows by their ids, so that it can be compared between orders of arrival.
#[derive(Debug, PartialEq, Eq, Clone)]
pub(super) struct Named {
    pub(super) counted: bool,
    pub(super) attempt: u32,
    pub(super) is_final: bool,
    pub(super) retry_of: Option<RowId>,
    pub(super) retry: Option<Retry>,
    pub(super) retried_by: Option<RowId>,
    pub(super) view_of: Option<RowId>,
    pub(super) pair: Option<RowId>,
    pub(super) error_from: Option<RowId>,
    pub(super) nulls_from: Vec<RowId>,
    /// Session, user and agent that it takes; 0 for none.
    pub(super) context: [u64; 3],
    pub(super) failed: bool,
    pub(super) threshold: u64,
}

pub(super) fn named(facts: &[Facts], out: &[Decision]) -> BTreeMap<RowId, Named> {
    let row = |seq: u64| facts.iter().find(|facts| facts.seq == seq).expect("a row of the group");
    let name = |seq: u64| row(seq).row_id;
    let value = |seq: Option<u64>, of: fn(&Facts) -> u64| seq.map_or(0, |seq| of(row(seq)));
    let context = |context: &Context| {
        [
            value(context.session_from, |facts| facts.session),
            value(context.user_from, |facts| facts.user),
            value(context.agent_from, |facts| facts.agent),
        ]
    };
    let one = |d: &Decision| Named {
        counted: d.counted,
        attempt: d.attempt,
        is_final: d.is_final,
        retry_of: d.retry_of.map(name),
        retry: d.retry.as_deref().copied(),
        retried_by: d.retried_by.map(name),
        view_of: d.view_of.map(name),
        pair: d.pair.map(name),
        error_from: d.error_from.map(name),
        nulls_from: d.nulls_from.iter().map(|seq| name(*seq)).collect(),
        context: d.context.as_deref().map_or([0; 3], context),
        failed: d.failed,
        threshold: d.threshold,
    };
    facts.iter().zip(out).map(|(facts, d)| (facts.row_id, one(d))).collect()
}
