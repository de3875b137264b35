//! Step 3: tool rows that are views of one call, what the outer take from the inner, and which row counts.

use std::cmp::Reverse;

use toolgauge_proto::call::{Kind, Signal};
use toolgauge_proto::id::RowId;

use super::{ANCESTORS_MAX, Decision, FILLERS_MAX, Facts, NONE, Row, spans};

#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Views by their outer row, last-ended first.
    inner: Vec<(u32, Reverse<i64>, Reverse<RowId>, u32)>,
    /// How many views of a row are still to be resolved.
    pending: Vec<u32>,
    /// Every row after all its views.
    order: Vec<u32>,
    /// The outermost row of the cluster.
    top: Vec<u32>,
    /// Of outermost rows: whether a row of the cluster is bound to count. Of models: whether a model hangs beneath.
    marked: Vec<bool>,
    /// (row, length of the list, row id of the lister, lister): rows that a frozen row took as its views.
    held: Vec<(u32, usize, RowId, u32)>,
}

/// Whether `inner`, if `outer` is its nearest recognised ancestor, is another view of it (tools) or repeated by it (models).
pub(super) fn nests(outer: &Facts, inner: &Facts) -> bool {
    match (outer.kind, inner.kind) {
        (Kind::Tool, Kind::Tool) => {
            let further_in = inner.layer > outer.layer;
            outer.tool == inner.tool && (further_in || same_call(outer, inner)) || inner.tool == 0 && further_in
        }
        (Kind::Model, Kind::Model) => true,
        _ => false,
    }
}

/// Whether two rows of one tool, of which the one hangs beneath the other, are one call whatever their layers are: their call
/// ids are equal; or nothing speaks against it, and either their arguments are equal (a wrapper and what it wraps:
/// nothing calls itself with what it was called with), or two libraries instrument the same call.
fn same_call(outer: &Facts, inner: &Facts) -> bool {
    if outer.call_id != 0 && inner.call_id != 0 {
        return outer.call_id == inner.call_id;
    }
    let spans = outer.signal == Signal::Span && inner.signal == Signal::Span;
    let two_libraries = spans && outer.source != 0 && inner.source != 0 && outer.source != inner.source;
    two_libraries || outer.arguments != 0 && outer.arguments == inner.arguments
}

/// Decides `view_of`, `pair`, `nulls_from`, `error_from`, `failed` and `counted`.
pub(super) fn resolve(rows: &[Row], scratch: &mut super::Scratch, out: &mut [Decision]) {
    let any_frozen = rows.iter().any(|row| row.frozen.is_some());
    let mut work = std::mem::take(&mut scratch.views);
    find_outer(rows, scratch, &mut work, any_frozen);
    sort_inside_out(rows, &scratch.outer, &mut work);
    for &i in &work.order {
        if rows[i as usize].frozen.is_none() {
            fill(rows, i, scratch, &work, out);
        }
    }
    find_fixed(rows, scratch);
    count(rows, scratch, &mut work, any_frozen, out);
    scratch.views = work;
}

/// Whether the row is a log record that tells of the call of a span.
fn beside_span(rows: &[Row], pair: &[u32], i: usize) -> bool {
    pair[i] != NONE && rows[i].is_log()
}

fn find_outer(rows: &[Row], scratch: &mut super::Scratch, work: &mut Scratch, any_frozen: bool) {
    let mut outer = std::mem::take(&mut scratch.outer);
    outer.clear();
    outer.extend(rows.iter().enumerate().map(|(i, row)| {
        if beside_span(rows, &scratch.pair, i) || row.facts.kind != Kind::Tool {
            return NONE;
        }
        if let Some(decided) = row.frozen.as_ref().and_then(|frozen| frozen.view_of) {
            return scratch.row_of(decided).and_then(|row| u32::try_from(row).ok()).unwrap_or(NONE);
        }
        match scratch.ancestor[i] {
            NONE => NONE,
            above if nests(&rows[above as usize].facts, &row.facts) => above,
            _ => NONE,
        }
    }));
    if any_frozen {
        hold_views(rows, scratch, work, &mut outer);
        spans::break_cycles(rows, &mut outer, &mut scratch.seen);
    }
    scratch.outer = outer;
}

/// Keeps in its cluster whatever a frozen row took as a view, even if what came later parts them.
fn hold_views(rows: &[Row], scratch: &super::Scratch, work: &mut Scratch, outer: &mut [u32]) {
    work.held.clear();
    for (row, i) in rows.iter().zip(0u32..) {
        let Some(frozen) = &row.frozen else { continue };
        for view in frozen.nulls_from.iter().filter_map(|seq| scratch.row_of(*seq)) {
            let decided = rows[view].frozen.as_ref().is_some_and(|view| view.view_of.is_some());
            if !decided && !beside_span(rows, &scratch.pair, view) && rows[view].facts.kind == Kind::Tool {
                let view = u32::try_from(view).unwrap_or(NONE);
                work.held.push((view, frozen.nulls_from.len(), row.facts.row_id, i));
            }
        }
    }
    work.held.sort_unstable();
    work.held.dedup_by_key(|held| held.0);
    for &(view, _, _, holder) in &work.held {
        let known = |at: u32| {
            let list = rows[holder as usize].frozen.as_ref().map_or(&[][..], |frozen| &frozen.nulls_from);
            at == holder || rows.get(at as usize).is_some_and(|row| list.contains(&row.facts.seq))
        };
        if view != holder && !known(outer[view as usize]) {
            outer[view as usize] = holder;
        }
    }
}

fn sort_inside_out(rows: &[Row], outer: &[u32], work: &mut Scratch) {
    work.inner.clear();
    work.pending.clear();
    work.pending.resize(rows.len(), 0);
    for ((row, i), &above) in rows.iter().zip(0u32..).zip(outer) {
        if above != NONE {
            work.inner.push((above, Reverse(row.facts.end_ns), Reverse(row.facts.row_id), i));
            work.pending[above as usize] += 1;
        }
    }
    work.inner.sort_unstable();
    work.order.clear();
    work.order.extend((0u32..).take(rows.len()).filter(|i| work.pending[*i as usize] == 0));
    let mut at = 0;
    while let Some(&i) = work.order.get(at) {
        at += 1;
        let above = outer[i as usize];
        if above != NONE {
            work.pending[above as usize] -= 1;
            if work.pending[above as usize] == 0 {
                work.order.push(above);
            }
        }
    }
}

/// What a row takes from its log record and from its views, which are resolved.
fn fill(rows: &[Row], i: u32, scratch: &super::Scratch, work: &Scratch, out: &mut [Decision]) {
    let row = i as usize;
    let seq_of = |i: u32| rows.get(i as usize).map(|row| row.facts.seq);
    out[row].view_of = seq_of(scratch.outer[row]);
    let pair = scratch.pair[row];
    out[row].pair = seq_of(pair);
    let log = if rows[row].is_log() { None } else { rows.get(pair as usize) };
    let from = work.inner.partition_point(|view| view.0 < i);
    let views = || work.inner[from..].iter().take_while(|view| view.0 == i).map(|view| view.3 as usize);
    if log.is_none() && views().next().is_none() {
        return;
    }
    let last = views().next().filter(|view| out[*view].failed);
    let error_from = match (last, log) {
        (Some(view), _) => Some(out[view].error_from.unwrap_or(rows[view].facts.seq)),
        (None, Some(log)) if log.facts.failed && !rows[row].facts.failed => Some(log.facts.seq),
        _ => None,
    };
    let mut list = std::mem::take(&mut out[row].nulls_from);
    let own = log.map(|log| log.facts.seq);
    let direct = views().map(|view| rows[view].facts.seq);
    let further = views().flat_map(|view| out[view].nulls_from.iter().copied());
    for seq in own.into_iter().chain(direct).chain(further) {
        if list.len() == FILLERS_MAX {
            break;
        }
        // What a frozen view lists may have become a view of its own.
        if !list.contains(&seq) {
            list.push(seq);
        }
    }
    out[row].nulls_from = list;
    out[row].failed |= error_from.is_some();
    out[row].error_from = error_from;
}

fn find_fixed(rows: &[Row], scratch: &mut super::Scratch) {
    let mut fixed = std::mem::take(&mut scratch.fixed);
    fixed.clear();
    fixed.resize(rows.len(), false);
    for (i, row) in rows.iter().enumerate() {
        let Some(frozen) = row.frozen.as_ref().filter(|frozen| frozen.counted) else { continue };
        fixed[i] = true;
        let retry = frozen.retried_by.and_then(|seq| scratch.row_of(seq));
        if let Some(retry) = retry.filter(|retry| rows[*retry].frozen.is_none()) {
            fixed[retry] = true;
        }
    }
    scratch.fixed = fixed;
}

fn count(rows: &[Row], scratch: &super::Scratch, work: &mut Scratch, any_frozen: bool, out: &mut [Decision]) {
    let (pair, fixed, outer) = (&scratch.pair, &scratch.fixed, &scratch.outer);
    work.top.clear();
    work.top.resize(rows.len(), NONE);
    for &i in work.order.iter().rev() {
        let above = outer[i as usize];
        work.top[i as usize] = if above == NONE { i } else { work.top[above as usize] };
    }
    work.marked.clear();
    work.marked.resize(rows.len(), false);
    for (i, row) in rows.iter().enumerate() {
        let beside = beside_span(rows, pair, i);
        if beside {
            work.top[i] = work.top[pair[i] as usize];
        }
        match row.facts.kind {
            Kind::Tool => work.marked[work.top[i] as usize] |= fixed[i],
            Kind::Model if !beside => {
                let above = scratch.ancestor[i] as usize;
                if rows.get(above).is_some_and(|above| above.facts.kind == Kind::Model) {
                    work.marked[above] = true;
                }
            }
            Kind::Model | Kind::Agent => {}
        }
    }
    let bound = |i: usize| fixed[i] || fixed.get(pair[i] as usize).is_some_and(|fixed| *fixed);
    let beneath_bound = |i: usize| {
        std::iter::successors(rows.get(scratch.ancestor[i] as usize).map(|_| scratch.ancestor[i] as usize), |at| {
            let above = scratch.ancestor[*at] as usize;
            rows.get(above).map(|_| above)
        })
        .take(ANCESTORS_MAX)
        .take_while(|above| rows[*above].facts.kind == Kind::Model)
        .any(bound)
    };
    let inner = &work.inner;
    let carried_out = |i: usize| {
        let from = inner.partition_point(|view| (view.0 as usize) < i);
        pair[i] != NONE || inner.get(from).is_some_and(|view| view.0 as usize == i)
    };
    for (i, row) in rows.iter().enumerate().filter(|(_, row)| row.frozen.is_none()) {
        let free = match row.facts.kind {
            _ if beside_span(rows, pair, i) => false,
            Kind::Tool => work.top[i] as usize == i && !work.marked[i] && (!row.facts.asked || carried_out(i)),
            Kind::Model => !(work.marked[i] || bound(i) || any_frozen && beneath_bound(i)),
            Kind::Agent => !bound(i),
        };
        out[i].counted = fixed[i] || free;
    }
}
