//! What rows take from each other: whose call it is, and that a span and a log record without a trace are one call.

use std::sync::Arc;

use arrow::array::{Array as _, AsArray as _};
use prost::Message as _;
use toolgauge_proto::table::Table;

use super::arrangements::{Export, RECEIVED_S, decided};
use super::dialects::{counted, failed, log, logs, one, span, traces};
use super::*;
use crate::live::{FrameBody, LiveFrame, LiveRows, LiveSettings};

const WHOSE: [&str; 4] = ["tool_name", "session_id", "user_id", "agent_name"];
const TOOL: [&str; 2] = ["gen_ai.operation.name=execute_tool", "gen_ai.tool.name=f"];
const CALL: [&str; 2] = ["mcp.method.name=tools/call", "gen_ai.tool.name=f"];

fn agent(id: u8, parent: u8, list: &[&str]) -> opentelemetry_proto::tonic::trace::v1::Span {
    span(id, parent, "invoke_agent", &[&["gen_ai.operation.name=invoke_agent"], list].concat())
}

#[test]
fn a_tool_is_its_nearest_ancestors_who_says_whose_it_is() {
    let root = agent(1, 0, &["gen_ai.agent.name=outer", "gen_ai.conversation.id=s1", "user.id=u"]);
    let inner = agent(2, 1, &["gen_ai.agent.name=inner"]);
    let plain = span(3, 2, "http", &[]);
    let tool = span(4, 3, "execute_tool f", &TOOL);
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [3, 0, 2, 1]] {
        let spans = [&root, &inner, &plain, &tool];
        let sent: Vec<Export> = order.iter().map(|at: &usize| traces("app", vec![spans[*at].clone()])).collect();
        assert_eq!(one(&sent, "tool", &WHOSE), ["f", "s1", "u", "inner"], "{order:?}");
        let agents = counted(&sent, "agent");
        assert_eq!((&*agents[1]["session_id"], &*agents[1]["agent_name"]), ("s1", "inner"), "{order:?}");
    }
}

#[test]
fn without_an_ancestor_who_says_it_a_call_is_of_its_traces_only_session() {
    let chat = |id: u8, session: &str| {
        span(
            id,
            1,
            "chat m",
            &["gen_ai.operation.name=chat", &format!("gen_ai.conversation.id={session}"), "user.id=u"],
        )
    };
    let tool = span(4, 1, "execute_tool f", &TOOL);
    let sent = [traces("app", vec![chat(2, "s1"), chat(3, "s1"), tool.clone()])];
    assert_eq!(one(&sent, "tool", &WHOSE), ["f", "s1", "u", "-"]);
    // Of two nobody knows which.
    let sent = [traces("app", vec![chat(2, "s1"), chat(3, "s2"), tool])];
    assert_eq!(one(&sent, "tool", &WHOSE), ["f", "-", "u", "-"]);
}

#[test]
fn what_a_row_says_itself_stays_and_agents_are_no_other_agents() {
    let root = agent(1, 0, &["gen_ai.agent.name=outer", "gen_ai.conversation.id=s1"]);
    let nameless = agent(2, 1, &["gen_ai.conversation.id=s2"]);
    let tool =
        span(3, 2, "execute_tool f", &[&TOOL[..], &["gen_ai.conversation.id=s3", "gen_ai.agent.name=own"]].concat());
    let sent = [traces("app", vec![root, nameless, tool])];
    assert_eq!(one(&sent, "tool", &WHOSE), ["f", "s3", "-", "own"]);
    let agents = counted(&sent, "agent");
    assert_eq!(agents[1].get("agent_name"), None);
    assert_eq!(agents[1]["session_id"], "s2");
}

#[test]
fn the_session_of_a_transport_is_one_only_if_nothing_else_is_known() {
    let server = |parent| {
        let mut span = span(3, parent, "tools/call f", &[&CALL[..], &["mcp.session.id=transport"]].concat());
        span.kind = 2;
        span
    };
    // A server that reports alone.
    assert_eq!(one(&[traces("mcp", vec![server(0)])], "tool", &WHOSE[..2]), ["f", "transport"]);
    // Beneath a client that knows no session, and beneath an agent that does.
    let mut client = span(2, 1, "tools/call f", &CALL);
    client.kind = 3;
    assert_eq!(one(&[traces("mcp", vec![client.clone(), server(2)])], "tool", &WHOSE[..2]), ["f", "-"]);
    let run = agent(1, 0, &["gen_ai.conversation.id=s1"]);
    assert_eq!(one(&[traces("mcp", vec![run.clone(), client, server(2)])], "tool", &WHOSE[..2]), ["f", "s1"]);
    assert_eq!(one(&[traces("mcp", vec![run, server(1)])], "tool", &WHOSE[..2]), ["f", "s1"]);
}

#[test]
fn log_records_of_claude_code_without_a_trace_are_one_call_with_its_spans() {
    let session = "session.id=s1";
    let spans = vec![
        span(1, 0, "claude_code.interaction", &[session]),
        span(2, 1, "claude_code.tool", &[session, "tool_name=Read", "tool_use_id=toolu_1"]),
        failed(span(3, 2, "claude_code.tool.execution", &[session, "tool_use_id=toolu_1", "success=false"]), ""),
        span(4, 1, "claude_code.llm_request", &[session, "model=m", "request_id=r1", "input_tokens:i=7"]),
    ];
    let tool =
        ["event.name=tool_result", session, "tool_name=Read", "tool_use_id=toolu_1", "success=false", "duration_ms=5"];
    let request =
        ["event.name=api_request", session, "model=m", "request_id=r1", "input_tokens:i=7", "cost_usd:d=0.25"];
    let scope = "com.anthropic.claude_code.events";
    for in_span in [0, 1] {
        let records = vec![log(2, in_span, &tool), log(4, in_span, &request)];
        let exports = [traces("com.anthropic.claude_code.tracing", spans.clone()), logs(scope, records)];
        for sent in [exports.clone(), [exports[1].clone(), exports[0].clone()]] {
            let tool = one(&sent, "tool", &["tool_name", "signal", "outcome", "session_id"]);
            assert_eq!(tool, ["Read", "span", "error", "s1"], "in span {in_span}");
            let model = one(&sent, "model", &["model", "signal", "input_tokens", "cost_usd"]);
            assert_eq!(model, ["m", "span", "7", "0.250000000"], "in span {in_span}");
        }
    }
    // Of another session it is another call.
    let other = logs(scope, vec![log(2, 0, &[&["session.id=s2"], &tool[..1], &tool[2..]].concat())]);
    assert_eq!(counted(&[traces("com.anthropic.claude_code.tracing", spans), other], "tool").len(), 2);
}

/// Scenario: an agent's span settles and is committed before the tool's, that came later, settles. Another tool's comes
/// when nobody holds on to the agent's values any more. Guarantees: what was known while the row lived is committed with it.
#[test]
fn values_of_a_settled_row_are_kept_for_those_who_take_them() {
    let settings = RecogniseSettings { retention_us: i64::MAX / 1_000, ..RecogniseSettings::default() };
    let recogniser = Recogniser::new(Conventions::built_in().unwrap(), settings).unwrap();
    let mut live = LiveRows::new(LiveSettings::default(), Arc::new(recogniser));
    let mut position = 0;
    let mut committed = Vec::new();
    let root = agent(1, 0, &["gen_ai.agent.name=a", "gen_ai.conversation.id=s1"]);
    let tools = [span(2, 1, "execute_tool f", &TOOL), span(3, 1, "execute_tool f", &TOOL)];
    let mut spans =
        [Some(root), Some(tools[0].clone()), None, None, None, Some(tools[1].clone()), None, None, None].into_iter();
    // Frames come every half of the settle time.
    for (seconds, span) in (0..).step_by(30).zip(&mut spans) {
        position += 1;
        let received = UnixMicros((RECEIVED_S + seconds) * 1_000_000);
        let info = FrameInfo { position: WalPosition(position), received, tenant: "default" };
        let bytes = span.map(|span| match traces("app", vec![span]) {
            Export::Traces(request) => request.encode_to_vec(),
            Export::Logs(_) => unreachable!(),
        });
        let body = bytes.as_deref().map_or(FrameBody::Tick, FrameBody::Traces);
        live.apply(LiveFrame { info, body }).unwrap();
        let settled = live.settled().unwrap();
        for batch in &settled.calls {
            let sessions = batch.column(Table::Calls.index_of("session_id"));
            let sessions = arrow::compute::cast(sessions, &arrow::datatypes::DataType::Utf8).unwrap();
            let sessions = sessions.as_string::<i32>();
            committed.extend(
                (0..batch.num_rows()).map(|row| sessions.is_valid(row).then(|| sessions.value(row).to_owned())),
            );
        }
        live.committed_calls(settled.calls_seq_end);
    }
    assert_eq!(committed, [Some("s1".to_owned()), Some("s1".to_owned()), None]);
}

#[test]
fn rows_alone_in_their_trace_say_what_they_say() {
    let rows = decided(&[traces("app", vec![span(1, 0, "execute_tool f", &TOOL)])]);
    assert_eq!(rows[0].get("session_id"), None);
}
