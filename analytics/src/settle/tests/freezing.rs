//! Rows that settle at arbitrary moments, while their relatives are still arriving.
//!
//! What must hold, whatever arrives when:
//! F-1 a frozen decision never changes. F-2 a retry and what it retried name each other, numbers rise, and
//! one attempt has one retry. F-3 where a counted attempt ends, a counted attempt ends the logical call: none is lost.
//! F-4 a span has one log record. F-5 as long as the links are known, a call is counted exactly once, whichever of its
//! views come late; if all come before the first settles, by its outermost view.

use proptest::prelude::*;

use super::random::any_group;
use super::*;

/// Lets rows arrive one frame after the other, and each frame settle when `lag` more frames have come.
/// Gives what was decided in the end and, for each row, in which frame it came.
fn settle(facts: &[Facts], links: &[Link], frames: &[usize], lag: usize) -> Vec<(Facts, Decision)> {
    let last = frames.iter().copied().max().unwrap_or(0);
    let (mut rows, mut arrived) = (Vec::<Row>::new(), Vec::new());
    let (mut decider, mut out) = (Decider::default(), Vec::new());
    for frame in 0..=last + lag {
        for (facts, _) in facts.iter().zip(frames).filter(|(_, at)| **at == frame) {
            let seq = rows.len() as u64 + 1;
            rows.push(Row { facts: Facts { seq, ..*facts }, frozen: None });
            arrived.push(frame);
        }
        decider.decide(&rows, links, SETTLE_NS, &mut out);
        assert_eq!(out.len(), rows.len());
        for ((row, decision), arrived) in rows.iter_mut().zip(&out).zip(&arrived) {
            if let Some(frozen) = &row.frozen {
                assert_eq!(**frozen, *decision, "F-1");
            } else if arrived + lag <= frame {
                row.frozen = Some(Arc::new(decision.clone()));
            }
        }
        check(&rows, &out);
    }
    assert!(rows.iter().all(|row| row.frozen.is_some()));
    rows.into_iter().map(|row| row.facts).zip(out).collect()
}

/// F-2, F-3 and F-4, at any moment.
fn check(rows: &[Row], out: &[Decision]) {
    let of = |seq: u64| &out[usize::try_from(seq).expect("small") - 1];
    let mut pairs = Vec::new();
    for (row, decision) in rows.iter().zip(out) {
        let seq = row.facts.seq;
        assert_eq!(decision.is_final, decision.retried_by.is_none(), "F-2");
        if let Some(retry) = decision.retried_by {
            assert_eq!(of(retry).retry_of, Some(seq), "F-2");
            assert!(of(retry).attempt > decision.attempt, "F-2");
        }
        assert_eq!(decision.retry.is_some(), decision.retry_of.is_some(), "F-2");
        if let Some(retry) = &decision.retry {
            assert!(retry.delay_ns >= 0, "F-2");
        }
        if let Some(failure) = decision.retry_of {
            assert_eq!(of(failure).retried_by, Some(seq), "F-2");
        }
        if decision.counted {
            let mut last = decision;
            while let Some(retry) = last.retried_by {
                last = of(retry);
            }
            assert!(last.counted, "F-3");
        }
        if let Some(other) = decision.pair {
            // Who settled before the other came knows nothing of it.
            assert!(of(other).pair.is_none_or(|back| back == seq), "F-4");
            assert!(!(of(other).counted && decision.counted), "F-4");
            pairs.push((row.is_log(), other));
        }
    }
    let claims = pairs.len();
    pairs.sort_unstable();
    pairs.dedup();
    assert_eq!(pairs.len(), claims, "F-4");
}

/// Calls that are told apart by their tool, each seen by some layers, with spans between that are not calls, maybe
/// also by a log record; and the links of everything.
fn calls() -> impl Strategy<Value = (Vec<Facts>, Vec<Link>)> {
    let call = (1..4usize, any::<bool>(), prop::collection::vec(any::<bool>(), 4), any::<bool>());
    prop::collection::vec(call, 1..4).prop_map(|calls| {
        let (mut facts, mut links) = (Vec::new(), vec![link(1, 0)]);
        let mut next = 2;
        for ((views, with_log, between, same_layer), tool) in calls.into_iter().zip(1..) {
            let mut parent = 1;
            for (layer, between) in Layer::ALL.iter().copied().take(views).zip(between) {
                if between {
                    links.push(link(next, parent));
                    parent = next;
                    next += 1;
                }
                let call_id = if same_layer { 7 } else { 0 };
                let layer = if same_layer { Layer::Agent } else { layer };
                facts.push(Facts { parent_span_id: parent, tool, layer, call_id, ..span(next) });
                links.push(link(next, parent));
                parent = next;
                next += 1;
            }
            // Without a call id, a log record is known to tell of its own span's call only, not of one further out or in.
            if with_log && (same_layer || views == 1) {
                let call_id = if same_layer { 7 } else { 0 };
                facts.push(Facts { signal: Signal::Log, tool, call_id, span_id: parent, ..span(next) });
                next += 1;
            }
        }
        (facts, links)
    })
}

fn when(rows: usize) -> impl Strategy<Value = (Vec<usize>, usize)> {
    (prop::collection::vec(0..6usize, rows), 0..5usize)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_decided_stands_and_nothing_is_lost(
        ((facts, links), (frames, lag)) in any_group(1..12).prop_flat_map(|g| { let n = g.0.len(); (Just(g), when(n)) }),
    ) {
        settle(&facts, &links, &frames, lag);
    }

    #[test]
    fn a_call_is_counted_exactly_once_however_late_its_views(
        ((facts, links), (frames, lag)) in calls().prop_flat_map(|g| { let n = g.0.len(); (Just(g), when(n)) }),
    ) {
        let decided = settle(&facts, &links, &frames, lag);
        let tools: std::collections::BTreeSet<u64> = facts.iter().map(|facts| facts.tool).collect();
        for tool in tools {
            let of_call = || decided.iter().filter(|(facts, _)| facts.tool == tool);
            prop_assert_eq!(of_call().filter(|(_, d)| d.counted).count(), 1, "F-5");
            let came: Vec<usize> =
                facts.iter().zip(&frames).filter(|(facts, _)| facts.tool == tool).map(|(_, at)| *at).collect();
            let (first, last) = (came.iter().min().expect("one"), came.iter().max().expect("one"));
            if *last <= first + lag {
                let outermost = of_call().filter(|(f, _)| f.signal != Signal::Log).map(|(f, _)| f.span_id).min();
                let counted = of_call().find(|(_, d)| d.counted).map(|(facts, _)| facts.span_id);
                prop_assert_eq!(counted, outermost, "F-5");
            }
        }
    }

    #[test]
    fn within_the_settle_time_arrival_does_not_matter(
        ((facts, links), (frames, _)) in any_group(1..12).prop_flat_map(|g| { let n = g.0.len(); (Just(g), when(n)) }),
    ) {
        let (came, decided): (Vec<Facts>, Vec<Decision>) = settle(&facts, &links, &frames, 6).into_iter().unzip();
        prop_assert_eq!(named(&came, &decided), model::decide(&facts, &links));
    }
}

/// Decides `rows` and freezes those that `settled` names.
fn freeze(rows: &mut [Row], links: &[Link], settled: &[usize]) {
    let mut out = Vec::new();
    Decider::default().decide(rows, links, SETTLE_NS, &mut out);
    for i in settled {
        rows[*i].frozen = Some(Arc::new(out[*i].clone()));
    }
}

fn then(rows: &mut Vec<Row>, facts: Facts, links: &[Link]) -> Vec<Decision> {
    rows.push(Row { facts, frozen: None });
    let mut out = Vec::new();
    Decider::default().decide(rows, links, SETTLE_NS, &mut out);
    out
}

#[test]
fn a_late_outer_view_of_a_counted_call_is_not_counted() {
    let mut rows = live(&[Facts { layer: Layer::Server, parent_span_id: 1, ..span(2) }]);
    freeze(&mut rows, &[], &[0]);
    let out = then(&mut rows, span(1), &[]);
    assert_eq!([out[0].counted, out[1].counted], [true, false]);
}

#[test]
fn a_late_retry_of_a_settled_failure_is_a_new_logical_call_and_keeps_a_marked_number() {
    let failed = Facts { failed: true, call_id: 5, end_ns: 10, ..span(1) };
    let retry = Facts { call_id: 5, says_attempt: 2, start_ns: 20, end_ns: 30, ..span(2) };
    let mut rows = live(&[failed]);
    freeze(&mut rows, &[], &[0]);
    let out = then(&mut rows, retry, &[]);
    assert_eq!((out[0].is_final, out[1].attempt, out[1].retry_of, out[1].is_final), (true, 2, None, true));
}

#[test]
fn a_retry_of_a_settled_attempt_stays_even_if_an_earlier_one_turns_up() {
    let failed = Facts { failed: true, call_id: 5, end_ns: 10, ..span(1) };
    let retry = Facts { call_id: 5, start_ns: 40, end_ns: 50, ..span(2) };
    let mut rows = live(&[failed, retry]);
    freeze(&mut rows, &[], &[0]);
    let out = then(&mut rows, Facts { call_id: 5, start_ns: 20, end_ns: 30, ..span(3) }, &[]);
    assert_eq!([out[1].retry_of, out[2].retry_of], [Some(1), None]);
}

#[test]
fn a_late_outer_view_does_not_take_the_count_from_the_retry_of_a_settled_attempt() {
    // Two tries of the client within one call of the agent; the first has settled when the agent's span arrives.
    let client = Facts { layer: Layer::Client, call_id: 5, parent_span_id: 1, ..span(2) };
    let failed = Facts { failed: true, end_ns: 10, ..client };
    let retry = Facts { start_ns: 20, end_ns: 30, ..Facts { seq: 3, row_id: row_id(3), span_id: 3, ..client } };
    let mut rows = live(&[failed, retry]);
    freeze(&mut rows, &[], &[0]);
    let out = then(&mut rows, Facts { end_ns: 40, ..span(1) }, &[]);
    assert_eq!(out.iter().map(|d| d.counted).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(out.iter().filter(|d| d.counted && d.is_final).count(), 1);
}

#[test]
fn what_a_settled_view_was_taken_for_it_stays_when_an_agent_turns_up_between() {
    let inner = Facts { layer: Layer::Server, parent_span_id: 3, ..span(2) };
    let links = [link(3, 1)];
    let mut rows = live(&[span(1), inner]);
    freeze(&mut rows, &links, &[0]);
    let out = then(&mut rows, Facts { kind: Kind::Agent, tool: 0, parent_span_id: 1, ..span(3) }, &links);
    assert_eq!((out[1].counted, out[1].view_of), (false, Some(1)));
}

#[test]
fn a_model_within_a_settled_model_yields_but_a_sibling_of_a_settled_inner_one_counts() {
    let model = |n, parent_span_id| Facts { kind: Kind::Model, tool: 0, parent_span_id, ..span(n) };
    let mut rows = live(&[model(1, 0)]);
    freeze(&mut rows, &[], &[0]);
    assert!(!then(&mut rows, model(2, 1), &[])[1].counted);
    let mut rows = live(&[model(1, 0), model(2, 1)]);
    freeze(&mut rows, &[], &[0, 1]);
    let out = then(&mut rows, model(3, 1), &[]);
    assert_eq!(out.iter().map(|d| d.counted).collect::<Vec<_>>(), [false, true, true]);
}

#[test]
fn an_attempt_whose_retry_has_settled_takes_no_number_that_reaches_it() {
    let attempt = |n, start_ns, failed| Facts { call_id: 5, start_ns, end_ns: start_ns + 5, failed, ..span(n) };
    let mut rows = live(&[attempt(1, 20, true), attempt(2, 40, false)]);
    freeze(&mut rows, &[], &[1]);
    let out = then(&mut rows, attempt(3, 0, true), &[]);
    assert_eq!(out.iter().map(|d| (d.attempt, d.is_final)).collect::<Vec<_>>(), [(1, false), (2, true), (1, true)]);
}

#[test]
fn a_span_and_a_log_record_that_settled_apart_stay_apart() {
    let log = Facts { signal: Signal::Log, span_id: 9, ..span(2) };
    let mut rows: Vec<Row> = [Facts { parent_span_id: 9, ..span(1) }, log]
        .into_iter()
        .flat_map(|facts| {
            let mut alone = live(&[facts]);
            freeze(&mut alone, &[], &[0]);
            alone
        })
        .collect();
    let out = then(&mut rows, Facts { parent_span_id: 9, end_ns: 10, ..span(3) }, &[]);
    assert_eq!((out[2].pair, out[2].counted), (Some(2), false));
}

#[test]
fn a_log_record_that_settled_as_a_view_is_not_the_log_record_of_a_late_span() {
    let log = Facts { signal: Signal::Log, layer: Layer::Server, span_id: 9, ..span(2) };
    let links = [link(9, 1)];
    let mut rows = live(&[span(1), log]);
    freeze(&mut rows, &links, &[0, 1]);
    assert_eq!((rows[1].frozen.as_ref().and_then(|d| d.view_of)), Some(1));
    let out = then(&mut rows, Facts { layer: Layer::Client, parent_span_id: 1, ..span(9) }, &links);
    assert_eq!((out[2].pair, out[2].counted), (None, false));
}
