//! Shapes that producers really send, by name.

use super::*;

const AGENT: u64 = 100;

fn agent() -> Facts {
    Facts { kind: Kind::Agent, tool: 0, end_ns: 1_000, ..span(AGENT) }
}

/// Attempts of one tool beneath one agent run, one after the other, 10 ns each.
fn attempts(each: impl IntoIterator<Item = Facts>) -> Vec<Facts> {
    let mut facts: Vec<Facts> = (each.into_iter().zip(1..))
        .map(|(facts, n): (Facts, u64)| {
            let start_ns = i64::try_from(n).expect("small") * 20;
            let place = Facts { start_ns, end_ns: start_ns + 10, parent_span_id: AGENT, ..facts };
            Facts { seq: n, row_id: row_id(n), span_id: n, ..place }
        })
        .collect();
    facts.push(agent());
    facts
}

fn numbers(facts: &[Facts], links: &[Link]) -> Vec<(u32, bool)> {
    let tools = facts.iter().filter(|facts| facts.kind == Kind::Tool).count();
    decide(facts, links).iter().take(tools).map(|d| (d.attempt, d.is_final)).collect()
}

#[test]
fn plain_spec_resend_counts_with_one_call_id_are_one_logical_call() {
    let charge = |failed, says_attempt| Facts { failed, says_attempt, call_id: 2, ..span(0) };
    let facts = attempts([charge(true, 0), charge(true, 2), charge(false, 3)]);
    assert_eq!(numbers(&facts, &[]), [(1, false), (2, false), (3, true)]);
}

#[test]
fn plain_spec_a_repeated_call_id_without_a_mark_is_a_retry() {
    let facts = attempts([Facts { failed: true, call_id: 21, ..span(0) }, Facts { call_id: 21, ..span(0) }]);
    assert_eq!(numbers(&facts, &[]), [(1, false), (2, true)]);
}

#[test]
fn pydantic_ai_asks_for_a_retry_that_comes_with_a_new_call_id() {
    let failed = Facts { failed: true, asks_retry: true, call_id: 8, arguments: 1, ..span(0) };
    let facts = attempts([failed, Facts { call_id: 9, arguments: 2, ..span(0) }]);
    assert_eq!(numbers(&facts, &[]), [(1, false), (2, true)]);
}

#[test]
fn a_new_call_id_that_nothing_marks_is_a_new_logical_call_even_with_equal_arguments() {
    let failed = Facts { failed: true, call_id: 8, arguments: 1, ..span(0) };
    assert_eq!(
        numbers(&attempts([failed, Facts { call_id: 9, failed: false, ..failed }]), &[]),
        [(1, true), (1, true)]
    );
}

#[test]
fn openinference_without_call_ids_is_joined_by_equal_arguments_only() {
    let failed = Facts { failed: true, arguments: 4, ..span(0) };
    let retry = Facts { arguments: 4, ..span(0) };
    assert_eq!(numbers(&attempts([failed, retry]), &[]), [(1, false), (2, true)]);
    assert_eq!(numbers(&attempts([failed, Facts { arguments: 5, ..retry }]), &[]), [(1, true), (1, true)]);
    let not_exported = |facts: Facts| Facts { arguments: 0, ..facts };
    assert_eq!(numbers(&attempts([failed, retry].map(not_exported)), &[]), [(1, true), (1, true)]);
}

#[test]
fn a_repeat_after_success_and_an_overlapping_hedge_are_new_logical_calls() {
    let call = Facts { call_id: 3, ..span(0) };
    assert_eq!(numbers(&attempts([call, call]), &[]), [(1, true), (1, true)]);
    let mut hedge = attempts([Facts { failed: true, ..call }, call]);
    hedge[1].start_ns = hedge[0].start_ns + 5;
    assert_eq!(numbers(&hedge, &[]), [(1, true), (1, true)]);
}

#[test]
fn a_retry_later_than_the_settle_time_or_in_another_agent_run_is_a_new_logical_call() {
    let call = Facts { call_id: 3, ..span(0) };
    let mut late = attempts([Facts { failed: true, ..call }, call]);
    late[1].start_ns = late[0].end_ns + SETTLE_NS;
    assert_eq!(numbers(&late, &[]), [(1, false), (2, true)]);
    late[1].start_ns += 1;
    assert_eq!(numbers(&late, &[]), [(1, true), (1, true)]);
    let mut apart = attempts([Facts { failed: true, ..call }, call]);
    apart[1].parent_span_id = AGENT + 1;
    apart.push(Facts { span_id: AGENT + 1, seq: AGENT + 1, row_id: row_id(AGENT + 1), ..agent() });
    assert_eq!(numbers(&apart, &[]), [(1, true), (1, true)]);
}

#[test]
fn parallel_calls_that_fail_are_each_retried_by_their_own() {
    let at = |n, call_id, failed, start_ns| Facts { call_id, failed, start_ns, end_ns: start_ns + 10, ..span(n) };
    let facts = [at(1, 11, true, 0), at(2, 12, true, 0), at(3, 12, false, 20), at(4, 11, false, 20)];
    let out = decide(&facts, &[]);
    assert_eq!(out.iter().map(|d| d.retry_of).collect::<Vec<_>>(), [None, None, Some(2), Some(1)]);
}

/// `execute_tool` > a span that is not a call > the MCP client > a transport span > the MCP server.
fn mcp() -> (Vec<Facts>, Vec<Link>) {
    let outer = Facts { call_id: 6, end_ns: 90, parent_span_id: AGENT, ..span(1) };
    let client = Facts { layer: Layer::Client, server: 3, end_ns: 80, parent_span_id: 2, ..span(3) };
    let server = Facts { layer: Layer::Server, server: 4, end_ns: 70, parent_span_id: 4, ..span(5) };
    (vec![outer, client, server, agent()], vec![link(2, 1), link(4, 3)])
}

#[test]
fn mcp_client_and_server_inside_execute_tool_are_one_call() {
    let (facts, links) = mcp();
    let out = decide(&facts, &links);
    assert_eq!(out.iter().map(|d| d.counted).collect::<Vec<_>>(), [true, false, false, true]);
    assert_eq!((&out[0].nulls_from, &out[1].nulls_from), (&vec![3, 5], &vec![5]));
    assert_eq!((out[1].view_of, out[2].view_of), (Some(1), Some(3)));
}

#[test]
fn an_mcp_error_that_only_the_server_reports_reaches_the_outermost_view() {
    let (mut facts, links) = mcp();
    facts[2].failed = true;
    let out = decide(&facts, &links);
    assert_eq!(
        out.iter().map(|d| (d.failed, d.error_from)).collect::<Vec<_>>(),
        [(true, Some(5)), (true, Some(5)), (true, None), (false, None)]
    );
}

#[test]
fn a_failure_that_a_later_inner_attempt_repaired_is_not_taken() {
    let (mut facts, links) = mcp();
    facts[1].failed = true;
    facts.push(Facts {
        start_ns: 81,
        end_ns: 85,
        failed: false,
        ..Facts { seq: 6, row_id: row_id(6), span_id: 6, ..facts[1] }
    });
    let out = decide(&facts, &links);
    assert_eq!((out[0].failed, &out[0].nulls_from), (false, &vec![6, 3, 5]));
}

#[test]
fn an_mcp_server_that_reports_alone_counts() {
    let (facts, links) = mcp();
    assert!(decide(&facts[2..3], &links)[0].counted);
}

#[test]
fn an_agent_used_as_a_tool_and_the_tools_it_calls_all_count() {
    let tool = Facts { call_id: 1, ..span(1) };
    let run = Facts { kind: Kind::Agent, tool: 0, parent_span_id: 1, ..span(2) };
    let same_name = Facts { layer: Layer::Client, parent_span_id: 2, ..span(3) };
    let other = Facts { tool: 9, call_id: 1, parent_span_id: 1, ..span(4) };
    assert!(decide(&[tool, run, same_name, other], &[]).iter().all(|d| d.counted));
}

#[test]
fn two_libraries_or_equal_arguments_make_views_of_one_layer_one_call() {
    let outer = Facts { arguments: 5, failed: true, ..span(1) };
    let inner = Facts { arguments: 5, parent_span_id: 9, ..span(2) };
    let counted = |inner: Facts| decide(&[outer, inner], &[link(9, 1)]).iter().filter(|d| d.counted).count();
    assert_eq!(counted(inner), 1, "a wrapper and what it wraps");
    assert_eq!(counted(Facts { source: 2, arguments: 0, ..inner }), 1, "two libraries");
    assert_eq!(counted(Facts { source: 2, layer: Layer::Agent, ..inner }), 1, "two libraries, the same arguments");
    assert_eq!(counted(Facts { arguments: 6, ..inner }), 2, "a tool that calls itself");
    assert_eq!(counted(Facts { source: 2, tool: 9, ..inner }), 2, "another tool");
    assert_eq!(counted(Facts { source: 0, arguments: 0, ..inner }), 2, "nobody knows which library");
    let ids = |inner| decide(&[Facts { call_id: 7, ..outer }, inner], &[link(9, 1)]);
    let other_id = ids(Facts { source: 2, call_id: 8, ..inner });
    assert!(other_id.iter().all(|d| d.counted), "call ids say that there are two");
    assert_eq!(ids(Facts { call_id: 7, arguments: 6, ..inner })[1].view_of, Some(1), "call ids say that there is one");
}

#[test]
fn of_nested_models_the_innermost_counts() {
    let model = |n, parent_span_id| Facts { kind: Kind::Model, tool: 0, parent_span_id, ..span(n) };
    let out = decide(&[model(1, AGENT), model(2, 9), model(3, 1), agent()], &[link(9, 1)]);
    assert_eq!(out.iter().map(|d| d.counted).collect::<Vec<_>>(), [false, true, true, true]);
}

#[test]
fn a_log_record_in_the_span_of_its_call_fills_it_and_reports_its_failure() {
    let log = Facts { signal: Signal::Log, span_id: 1, failed: true, ..span(2) };
    let out = decide(&[span(1), log], &[]);
    assert_eq!([out[0].counted, out[1].counted], [true, false]);
    assert_eq!((out[0].failed, out[0].error_from, &out[0].nulls_from), (true, Some(2), &vec![2]));
}

#[test]
fn log_records_in_the_parent_are_matched_one_to_one_by_the_nearest_end() {
    let at = |n, end_ns| Facts { end_ns, parent_span_id: AGENT, ..span(n) };
    let log = |n, end_ns| Facts { end_ns, signal: Signal::Log, span_id: AGENT, ..span(n) };
    let out = decide(&[at(1, 10), at(2, 20), log(3, 12), log(4, 21), log(5, 500)], &[]);
    assert_eq!(out.iter().map(|d| d.pair).collect::<Vec<_>>(), [Some(3), Some(4), Some(1), Some(2), None]);
    assert!(out[4].counted);
}

#[test]
fn a_log_record_with_the_call_id_is_preferred_and_one_with_another_call_id_is_another_call() {
    let call = Facts { call_id: 7, end_ns: 10, ..span(1) };
    let log = |n, call_id, end_ns| Facts { call_id, end_ns, signal: Signal::Log, span_id: 1, ..span(n) };
    let out = decide(&[call, log(2, 0, 10), log(3, 7, 50)], &[]);
    assert_eq!((out[0].pair, out[1].counted), (Some(3), true));
    assert!(decide(&[call, log(2, 8, 10)], &[])[1].counted);
}

#[test]
fn marks_of_models_are_believed_and_nothing_else_is() {
    let model = |n, failed, says_attempt, start_ns| {
        let times = Facts { start_ns, end_ns: start_ns + 5, call_id: 1, ..span(n) };
        Facts { kind: Kind::Model, tool: 0, failed, says_attempt, ..times }
    };
    let unmarked = decide(&[model(1, true, 0, 0), model(2, false, 0, 10)], &[]);
    assert!(unmarked.iter().all(|d| d.is_final));
    let marked = decide(&[model(1, true, 0, 0), model(2, false, 2, 10)], &[]);
    assert_eq!((marked[0].is_final, marked[1].retry_of), (false, Some(1)));
}

#[test]
fn a_span_without_a_threshold_has_that_of_its_local_root_and_a_log_record_has_none() {
    let root = Link { threshold: 12, remote_parent: true, ..link(9, 77) };
    let log = Facts { signal: Signal::Log, tool: 5, span_id: 1, ..span(2) };
    let own = Facts { threshold: 3, parent_span_id: 9, ..span(3) };
    let out = decide(&[Facts { parent_span_id: 9, ..span(1) }, log, own], &[root]);
    assert_eq!(out.iter().map(|d| d.threshold).collect::<Vec<_>>(), [12, NO_THRESHOLD, 3]);
}

#[test]
fn spans_in_a_cycle_are_decided_and_one_of_them_counts() {
    let a = Facts { call_id: 1, parent_span_id: 2, ..span(1) };
    let b = Facts { call_id: 1, parent_span_id: 1, ..span(2) };
    assert_eq!(decide(&[a, b], &[]).iter().filter(|d| d.counted).count(), 1);
    assert!(decide(&[Facts { parent_span_id: 1, ..a }], &[])[0].counted);
}

#[test]
fn times_and_numbers_at_their_limits_do_not_overflow() {
    let low =
        Facts { failed: true, call_id: 1, start_ns: i64::MIN, end_ns: i64::MIN, says_attempt: u32::MAX, ..span(1) };
    let high = Facts { failed: true, call_id: 1, start_ns: i64::MAX, end_ns: i64::MAX, ..span(2) };
    let log = Facts { signal: Signal::Log, span_id: 2, end_ns: i64::MIN, call_id: 0, ..span(3) };
    for settle_ns in [i64::MIN, 0, i64::MAX] {
        let mut out = Vec::new();
        Decider::default().decide(&live(&[low, high, log]), &[], settle_ns, &mut out);
        assert!(out.iter().all(|d| d.attempt >= 1));
    }
}

#[test]
fn a_flat_group_touches_no_scratch_space() {
    let mut facts = attempts((1..8).map(|call_id| Facts { call_id, ..span(0) }));
    facts.push(Facts { kind: Kind::Model, tool: 0, parent_span_id: AGENT, ..span(50) });
    facts.push(Facts { kind: Kind::Model, tool: 0, parent_span_id: 70, ..span(51) });
    let mut decider = Decider::default();
    let mut out = Vec::with_capacity(facts.len());
    decider.decide(&live(&facts), &[link(70, AGENT)], SETTLE_NS, &mut out);
    let Scratch { ancestor, pair, outer, fixed, seen, by_seq, .. } = &decider.scratch;
    let capacities = [ancestor.capacity(), pair.capacity(), outer.capacity(), seen.capacity(), by_seq.capacity()];
    assert_eq!((capacities, fixed.capacity(), decider.index.capacity()), ([0; 5], 0, 0));
    assert!(out.iter().all(|d| d.counted && d.nulls_from.capacity() == 0));
}

#[test]
fn scratch_space_of_one_group_does_not_leak_into_the_next() {
    let (facts, links) = mcp();
    let mut decider = Decider::default();
    let (mut first, mut again) = (Vec::new(), Vec::new());
    decider.decide(&live(&facts), &links, SETTLE_NS, &mut first);
    let retried = attempts((0..90).map(|n| Facts { failed: n % 3 == 0, call_id: 5, ..span(0) }));
    decider.decide(&live(&retried), &[], SETTLE_NS, &mut again);
    decider.decide(&live(&facts), &links, SETTLE_NS, &mut again);
    assert_eq!(first, again);
}

#[test]
fn a_call_that_was_asked_for_counts_once_it_was_carried_out() {
    let asked = Facts { asked: true, call_id: 5, ..span(1) };
    let execution = Facts { tool: 0, layer: Layer::Client, parent_span_id: 1, end_ns: 5, failed: true, ..span(2) };
    let log = Facts { signal: Signal::Log, call_id: 5, span_id: 0, ..span(3) };
    let counted = |facts: &[Facts]| decide(facts, &[]).iter().map(|d| d.counted).collect::<Vec<_>>();
    assert_eq!(counted(&[asked]), [false], "a person said no");
    assert_eq!(counted(&[asked, execution]), [true, false]);
    assert_eq!(counted(&[asked, log]), [true, false]);
    assert_eq!(counted(&[asked, execution, log]), [true, false, false]);
    assert!(decide(&[asked, execution], &[])[0].failed, "how it ended is told by what carried it out");
    let of_subagent = Facts { tool: 2, parent_span_id: 2, ..span(4) };
    assert_eq!(counted(&[asked, execution, of_subagent]), [true, false, true]);
}
