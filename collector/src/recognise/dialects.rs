//! Producers without a capture in `tests/corpora`, and what real ones vary: written by hand from their documentation and
//! sources.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::Event};

use super::arrangements::{Export, RECEIVED_S, decided};

const AT_NS: u64 = (RECEIVED_S as u64 - 100) * 1_000_000_000;
const TRACE: u8 = 7;

/// Attributes as text: `key=value`, with `key:i=`, `key:d=`, `key:b=` for numbers and booleans and `key:-=` for a value
/// that says nothing.
pub(super) fn attributes(list: &[&str]) -> Vec<KeyValue> {
    list.iter()
        .map(|text| {
            let (key, value) = text.split_once('=').unwrap();
            let (key, value) = match key.rsplit_once(':') {
                Some((key, "i")) => (key, Some(Value::IntValue(value.parse().unwrap()))),
                Some((key, "d")) => (key, Some(Value::DoubleValue(value.parse().unwrap()))),
                Some((key, "b")) => (key, Some(Value::BoolValue(value.parse().unwrap()))),
                Some((key, "-")) => (key, None),
                _ => (key, Some(Value::StringValue(value.to_owned()))),
            };
            KeyValue { key: key.to_owned(), value: Some(AnyValue { value }), ..Default::default() }
        })
        .collect()
}

/// A span of 5 ms, `id` seconds into the trace.
pub(super) fn span(id: u8, parent: u8, name: &str, list: &[&str]) -> Span {
    let start = AT_NS + u64::from(id) * 1_000_000_000;
    Span {
        trace_id: vec![TRACE; 16],
        span_id: vec![id; 8],
        parent_span_id: if parent == 0 { Vec::new() } else { vec![parent; 8] },
        name: name.to_owned(),
        kind: 1,
        start_time_unix_nano: start,
        end_time_unix_nano: start + 5_000_000,
        attributes: attributes(list),
        ..Span::default()
    }
}

pub(super) fn failed(mut span: Span, message: &str) -> Span {
    span.status = Some(Status { code: 2, message: message.to_owned() });
    span
}

fn scope(name: &str) -> Option<InstrumentationScope> {
    Some(InstrumentationScope { name: name.to_owned(), ..Default::default() })
}

pub(super) fn traces(scope_name: &str, spans: Vec<Span>) -> Export {
    let scope_spans = vec![ScopeSpans { scope: scope(scope_name), spans, ..Default::default() }];
    Export::Traces(ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { scope_spans, ..Default::default() }],
    })
}

pub(super) fn log(seconds: u64, span: u8, list: &[&str]) -> LogRecord {
    LogRecord {
        time_unix_nano: AT_NS + seconds * 1_000_000_000,
        trace_id: if span == 0 { Vec::new() } else { vec![TRACE; 16] },
        span_id: if span == 0 { Vec::new() } else { vec![span; 8] },
        attributes: attributes(list),
        ..LogRecord::default()
    }
}

pub(super) fn logs(scope_name: &str, log_records: Vec<LogRecord>) -> Export {
    let scope_logs = vec![ScopeLogs { scope: scope(scope_name), log_records, ..Default::default() }];
    Export::Logs(ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs, ..Default::default() }] })
}

pub(super) type Row = BTreeMap<String, String>;

/// The counted rows of a kind, in order of time.
pub(super) fn counted(exports: &[Export], kind: &str) -> Vec<Row> {
    let mut rows: Vec<Row> =
        decided(exports).into_iter().filter(|row| row["kind"] == kind && row["counted"] == "true").collect();
    rows.sort_by_key(|row| (row["start_time"].clone(), row["end_time"].clone()));
    rows
}

/// The columns of the one counted row of a kind, `-` for null.
pub(super) fn one(exports: &[Export], kind: &str, columns: &[&str]) -> Vec<String> {
    let rows = counted(exports, kind);
    assert_eq!(rows.len(), 1, "{rows:#?}");
    columns.iter().map(|column| rows[0].get(*column).cloned().unwrap_or_else(|| "-".to_owned())).collect()
}

#[test]
fn langsmith_runs_of_tools_and_models_are_calls_and_chains_and_retrievers_are_not() {
    let tool = span(
        2,
        1,
        "lookup",
        &[
            "langsmith.span.kind=tool",
            "gen_ai.operation.name=execute_tool",
            "gen_ai.tool.name=lookup",
            "langsmith.metadata.thread_id=t-1",
            "gen_ai.prompt={\"id\": 3}",
        ],
    );
    let retriever = span(3, 1, "docs", &["langsmith.span.kind=retriever", "gen_ai.operation.name=embeddings"]);
    let model = span(
        4,
        1,
        "ChatOpenAI",
        &["langsmith.span.kind=llm", "gen_ai.operation.name=chat", "gen_ai.usage.input_tokens:i=12"],
    );
    let chain = span(1, 0, "agent", &["langsmith.span.kind=chain", "gen_ai.operation.name=chain"]);
    let sent = [traces("langsmith", vec![tool, retriever, model, chain])];
    assert_eq!(
        one(&sent, "tool", &["tool_name", "session_id", "argument_keys", "convention"]),
        ["lookup", "t-1", "id", "langsmith"]
    );
    assert_eq!(one(&sent, "model", &["input_tokens"]), ["12"]);
}

#[test]
fn google_adk_has_no_call_id_for_a_failure_and_sums_parallel_calls_up_in_no_call() {
    let tool = span(
        2,
        1,
        "execute_tool roll",
        &[
            "gen_ai.operation.name=execute_tool",
            "gen_ai.tool.name=roll",
            "gen_ai.tool.call.id=<not specified>",
            "error.type=ValueError",
        ],
    );
    let merged =
        span(3, 1, "execute_tool (merged)", &["gen_ai.operation.name=execute_tool", "gen_ai.tool.name=(merged tools)"]);
    let outer = span(1, 0, "call_llm", &["gen_ai.request.model=gemini-2.5", "gen_ai.usage.input_tokens:i=9"]);
    let inner = span(
        4,
        1,
        "generate_content gemini-2.5",
        &["gen_ai.operation.name=generate_content", "gen_ai.usage.input_tokens:i=9"],
    );
    let sent = [traces("gcp.vertex.agent", vec![failed(tool, ""), merged, outer.clone(), inner])];
    assert_eq!(
        one(&sent, "tool", &["tool_name", "call_id", "outcome", "error_class"]),
        ["roll", "-", "error", "invalid_input"]
    );
    assert_eq!(one(&sent, "model", &["input_tokens", "convention"]), ["9", "otel_genai"]);
    assert_eq!(one(&[traces("gcp.vertex.agent", vec![outer])], "model", &["convention"]), ["google_adk"]);
}

#[test]
fn autogen_llama_index_and_openai_agents_are_recognised() {
    let mut autogen = span(
        1,
        0,
        "execute_tool search",
        &[
            "gen_ai.operation.name=execute_tool",
            "gen_ai.system=autogen",
            "gen_ai.tool.name=search",
            "error.type=KeyError",
        ],
    );
    let exception = Event {
        name: "exception".into(),
        attributes: attributes(&["exception.type=KeyError", "exception.message='q'"]),
        ..Event::default()
    };
    autogen.events = vec![exception.clone(), exception];
    let sent = [traces("autogen-core", vec![failed(autogen, "'q'")])];
    assert_eq!(one(&sent, "tool", &["tool_name", "error_type", "error_message"]), ["search", "KeyError", "'q'"]);

    let llama = span(
        1,
        0,
        "FunctionTool.acall",
        &["openinference.span.kind=TOOL", "tool.name=add", "input.value={\"a\": 1}", "session.id=s"],
    );
    let sent = [traces("openinference.instrumentation.llama_index", vec![llama])];
    assert_eq!(one(&sent, "tool", &["tool_name", "argument_keys", "session_id"]), ["add", "a", "s"]);

    let message = "Error running tool (non-fatal): {'tool_name': 'pay', 'error': 'Request timed out'}";
    let agents = failed(span(1, 0, "pay", &["openinference.span.kind=TOOL", "llm.system=openai"]), message);
    let sent = [traces("openinference.instrumentation.openai_agents", vec![agents])];
    assert_eq!(one(&sent, "tool", &["tool_name", "error_class"]), ["pay", "timeout"]);
}

#[test]
fn old_spellings_of_pydantic_ai_strands_and_openllmetry_are_recognised() {
    let attributes = [
        "gen_ai.operation.name=execute_tool",
        "gen_ai.tool.name=f",
        "gen_ai.tool.call.id=c",
        "tool_arguments={\"x\":1}",
    ];
    let version_2 = [traces("pydantic-ai", vec![span(1, 0, "running tool", &attributes)])];
    assert_eq!(one(&version_2, "tool", &["tool_name", "call_id", "argument_keys"]), ["f", "c", "x"]);
    let oldest = [traces("pydantic-ai", vec![span(1, 0, "running tool", &attributes[1..])])];
    assert_eq!(one(&oldest, "tool", &["tool_name", "call_id", "argument_keys"]), ["f", "c", "x"]);
    let pending = span(2, 0, "running tool", &[&attributes[..], &["logfire.span_type=pending_span"]].concat());
    assert_eq!(counted(&[traces("pydantic-ai", vec![pending])], "tool").len(), 0);

    let strands = span(
        1,
        0,
        "Tool: restart",
        &["gen_ai.system=strands-agents", "tool.name=restart", "tool.id=t", "tool.status=error"],
    );
    let sent = [traces("strands-agents", vec![strands])];
    assert_eq!(one(&sent, "tool", &["tool_name", "call_id", "outcome"]), ["restart", "t", "error"]);

    let tool = span(
        2,
        1,
        "get_joke.tool",
        &[
            "traceloop.span.kind=tool",
            "traceloop.entity.name=get_joke",
            "traceloop.association.properties.session_id=s",
        ],
    );
    let model = span(
        3,
        1,
        "openai.chat",
        &["llm.request.type=chat", "gen_ai.usage.prompt_tokens=5", "gen_ai.usage.completion_tokens:d=2.0"],
    );
    let workflow = span(1, 0, "jokes.workflow", &["traceloop.span.kind=workflow", "traceloop.entity.name=jokes"]);
    let sent = [traces("traceloop.tracer", vec![tool, model, workflow])];
    assert_eq!(one(&sent, "tool", &["tool_name", "session_id"]), ["get_joke", "s"]);
    assert_eq!(one(&sent, "model", &["input_tokens", "output_tokens"]), ["5", "2"]);
}

#[test]
fn mcp_by_several_layers_is_one_call_and_other_methods_are_none() {
    let outer = span(1, 0, "execute_tool f", &["traceloop.span.kind=tool", "gen_ai.tool.name=f"]);
    let mut client = span(2, 1, "tools/call f", &["mcp.method.name=tools/call", "gen_ai.tool.name=f"]);
    client.kind = 3;
    let mut server = span(
        3,
        2,
        "tools/call f",
        &[
            "mcp.method.name=tools/call",
            "gen_ai.tool.name=f",
            "gen_ai.operation.name=execute_tool",
            "gen_ai.tool.call.result={\"content\":[],\"isError\":true}",
        ],
    );
    server.kind = 2;
    let list = span(4, 1, "tools/list", &["mcp.method.name=tools/list", "gen_ai.tool.name=f"]);
    let sent = [traces("any", vec![outer, client, server, list])];
    assert_eq!(one(&sent, "tool", &["layer", "outcome"]), ["agent", "error"]);
    assert_eq!(decided(&sent).len(), 3);
}

#[test]
fn vercel_ai_counts_tools_and_inner_calls_of_models() {
    let tool = span(
        3,
        1,
        "ai.toolCall",
        &[
            "ai.operationId=ai.toolCall",
            "ai.toolCall.name=price",
            "ai.toolCall.id=c",
            "ai.toolCall.args={\"sku\":1}",
            "ai.telemetry.metadata.sessionId=s",
        ],
    );
    let outer = span(
        1,
        0,
        "ai.streamText",
        &["ai.operationId=ai.streamText", "ai.telemetry.functionId=shop", "ai.usage.inputTokens:i=9"],
    );
    let inner = span(
        2,
        1,
        "ai.streamText.doStream",
        &[
            "ai.operationId=ai.streamText.doStream",
            "ai.usage.inputTokens:i=9",
            "ai.usage.outputTokens:i=3",
            "ai.usage.cachedInputTokens:i=4",
            "ai.usage.reasoningTokens:i=1",
            "ai.response.model=m",
        ],
    );
    let embed = span(4, 0, "ai.embed", &["ai.operationId=ai.embed", "ai.usage.tokens:i=9"]);
    let sent = [traces("ai", vec![tool, outer, inner, embed])];
    assert_eq!(
        one(&sent, "tool", &["tool_name", "call_id", "session_id", "argument_keys"]),
        ["price", "c", "s", "sku"]
    );
    let usage = ["model", "input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens"];
    assert_eq!(one(&sent, "model", &usage), ["m", "9", "3", "4", "1"]);
    assert_eq!(one(&sent, "agent", &["agent_name"]), ["shop"]);
}

/// A run with one call that went well, one that failed and one that a person refused.
fn claude_spans() -> Vec<Span> {
    let tool = |id, name: &str, call: &str| {
        let attributes = [format!("tool_name={name}"), format!("tool_use_id={call}"), "session.id=s".to_owned()];
        span(id, 1, "claude_code.tool", &attributes.each_ref().map(String::as_str))
    };
    let execution = |id, parent, success: &str| {
        span(
            id,
            parent,
            "claude_code.tool.execution",
            &["session.id=s", &format!("success:b={success}"), "error=no such file"],
        )
    };
    let request = span(
        8,
        1,
        "claude_code.llm_request",
        &["session.id=s", "model=claude-x", "input_tokens:i=5", "output_tokens=7", "attempt:i=1", "request_id=r"],
    );
    vec![
        span(1, 0, "claude_code.interaction", &["session.id=s"]),
        tool(2, "Read", "a"),
        execution(3, 2, "true"),
        tool(4, "Edit", "b"),
        failed(execution(5, 4, "false"), ""),
        tool(6, "Bash", "c"),
        span(7, 6, "claude_code.tool.blocked_on_user", &["session.id=s", "decision=reject"]),
        request,
    ]
}

#[test]
fn claude_code_by_spans_counts_what_was_carried_out() {
    let sent = [traces("com.anthropic.claude_code.tracing", claude_spans())];
    let tools = counted(&sent, "tool");
    let told: Vec<_> = tools.iter().map(|row| (&*row["tool_name"], &*row["call_id"], &*row["outcome"])).collect();
    assert_eq!(told, [("Read", "a", "ok"), ("Edit", "b", "error")]);
    assert_eq!(tools[1]["error_class"], "not_found");
    assert_eq!(one(&sent, "model", &["model", "input_tokens", "output_tokens"]), ["claude-x", "5", "7"]);
    assert_eq!(counted(&sent, "agent").len(), 1);
}

#[test]
fn claude_code_by_spans_and_logs_is_counted_once_and_priced() {
    let result = |seconds, call: &str, success: &str| {
        let attributes = [
            "event.name=tool_result".to_owned(),
            "session.id=s".to_owned(),
            format!("tool_name={}", if call == "a" { "Read" } else { "Edit" }),
            format!("tool_use_id={call}"),
            format!("success={success}"),
            "duration_ms=5".to_owned(),
            "error_type=Error:ENOENT".to_owned(),
            "tool_input_size_bytes=12".to_owned(),
        ];
        log(seconds, 1, &attributes.each_ref().map(String::as_str))
    };
    let request = log(
        8,
        1,
        &[
            "event.name=api_request",
            "session.id=s",
            "model=claude-x",
            "cost_usd:-=",
            "cost_usd_micros:i=4669",
            "request_id=r",
        ],
    );
    let records = vec![result(3, "a", "true"), result(5, "b", "false"), request];
    let sent = [
        logs("com.anthropic.claude_code.events", records),
        traces("com.anthropic.claude_code.tracing", claude_spans()),
    ];
    let tools = counted(&sent, "tool");
    let told: Vec<_> = tools.iter().map(|row| (&*row["tool_name"], &*row["signal"], &*row["input_bytes"])).collect();
    assert_eq!(told, [("Read", "span", "12"), ("Edit", "span", "12")]);
    assert_eq!(tools[1]["outcome"], "error");
    assert_eq!(one(&sent, "model", &["signal", "input_tokens", "cost_usd"]), ["span", "5", "0.004669000"]);
    // Somebody else's event of the same name is none of Claude Code's.
    assert_eq!(decided(&[logs("my.app", vec![result(3, "a", "true")])]).len(), 0);
}

#[test]
fn codex_cli_by_spans_and_logs_is_counted_once() {
    let attributes = [
        "event.name=codex.tool_result",
        "tool_name=exec_command",
        "call_id=call_1",
        "duration_ms=150",
        "success=false",
        "conversation.id=c-1",
        "user.email=jo@example.com",
    ];
    let mut around = span(1, 0, "run_turn", &["tool_name=exec_command"]);
    around.events = vec![Event {
        time_unix_nano: AT_NS + 2_000_000_000,
        name: "event otel/src/tool_result.rs:54".into(),
        attributes: self::attributes(&attributes),
        ..Event::default()
    }];
    let by_span = traces("codex_exec", vec![around]);
    let by_log = logs("codex_otel.log_only", vec![log(2, 0, &attributes)]);
    for sent in [vec![by_span.clone()], vec![by_log.clone()], vec![by_log, by_span]] {
        let columns = ["tool_name", "call_id", "duration_ns", "outcome", "session_id"];
        assert_eq!(one(&sent, "tool", &columns), ["exec_command", "call_1", "150000000", "error", "c-1"]);
    }
}

#[test]
fn codex_and_gemini_tell_of_models_that_failed() {
    let records = vec![
        log(
            1,
            0,
            &["event.name=codex.api_request", "http.response.status_code:i=200", "attempt:i=0", "conversation.id=c"],
        ),
        log(
            2,
            0,
            &["event.name=codex.api_request", "http.response.status_code:i=429", "attempt:i=1", "conversation.id=c"],
        ),
        log(3, 0, &["event.name=codex.sse_event", "event.kind=response.failed", "error.message=overloaded"]),
        log(4, 0, &["event.name=codex.sse_event", "event.kind=response.output_item.done", "error.message=odd item"]),
        log(5, 0, &["event.name=codex.sse_event", "event.kind=response.completed", "input_token_count=3"]),
    ];
    let models = counted(&[logs("codex_otel.log_only", records)], "model");
    let told: Vec<_> = models.iter().map(|row| (&*row["outcome"], &*row["error_class"], &*row["attempt"])).collect();
    assert_eq!(told, [("error", "rate_limited", "2"), ("error", "transient", "1"), ("ok", "none", "1")]);

    let refused = ["event.name=gemini_cli.tool_call", "function_name=rm", "success:b=false", "decision=reject"];
    let failed = ["event.name=gemini_cli.api_error", "model=g", "status_code=503", "error=down"];
    let sent = [logs("gemini-cli", vec![log(1, 0, &refused), log(2, 0, &failed)])];
    assert_eq!(one(&sent, "tool", &["tool_name", "error_class"]), ["rm", "policy_denied"]);
    assert_eq!(one(&sent, "model", &["error_class", "status_code"]), ["transient", "503"]);
}

#[test]
fn an_inference_that_is_told_by_a_span_and_an_event_is_one() {
    let chat = span(1, 0, "chat m", &["gen_ai.operation.name=chat", "gen_ai.usage.input_tokens:i=4"]);
    let event = log(
        1,
        1,
        &[
            "event.name=gen_ai.client.inference.operation.details",
            "gen_ai.response.id=r",
            "gen_ai.usage.input_tokens:i=4",
        ],
    );
    let sent = [logs("app", vec![event]), traces("app", vec![chat])];
    assert_eq!(one(&sent, "model", &["signal", "input_tokens"]), ["span", "4"]);
    assert_eq!(decided(&sent).len(), 2);
}

/// Scenario: log records and events of spans that tell of calls, in traces that are sampled. Guarantees: an event stands for as many
/// calls as its span does and a record for one, unless they say otherwise.
#[test]
fn samplers_mark_log_records_and_events_of_spans_too() {
    let told = ["event.name=codex.tool_result", "tool_name=shell", "call_id=c-1", "success=true", "duration_ms=4"];
    for (own, of_event, of_record) in [
        (&[][..], "4.000000", "1.000000"),
        (&["SampleRate:i=10"], "10.000000", "10.000000"),
        (&["sampling.probability=0.5"], "2.000000", "2.000000"),
    ] {
        let told = [&told[..], own].concat();
        let mut turn = span(1, 0, "handle_responses", &[]);
        turn.trace_state = "ot=th:c".to_owned();
        turn.events =
            vec![Event { time_unix_nano: turn.end_time_unix_nano, attributes: attributes(&told), ..Event::default() }];
        let by_span = [traces("codex_otel", vec![turn])];
        assert_eq!(one(&by_span, "tool", &["tool_name", "weight"]), ["shell", of_event], "{own:?}");
        let by_log = [logs("codex_otel", vec![log(1, 0, &told)])];
        assert_eq!(one(&by_log, "tool", &["tool_name", "weight"]), ["shell", of_record], "{own:?}");
    }
}

#[test]
fn types_drift_and_every_one_is_read() {
    let base = ["gen_ai.operation.name=execute_tool", "gen_ai.tool.name=f"];
    for (odd, column, expect) in [
        ("gen_ai.tool.call.id:i=17", "call_id", "17"),
        ("session.id:d=4.5", "session_id", "4.5"),
        ("rpc.response.status_code=UNAVAILABLE", "status_code", "14"),
        ("http.status_code:d=404.0", "status_code", "404"),
        ("operation.cost=0.25", "cost_usd", "0.250000000"),
        ("operation.cost:i=2", "cost_usd", "2.000000000"),
        ("gen_ai.agent.name:b=true", "agent_name", "true"),
        ("gen_ai.agent.name=", "agent_name", "-"),
        ("gen_ai.usage.input_tokens:-=", "input_tokens", "-"),
        ("gen_ai.usage.input_tokens=lots", "input_tokens", "-"),
        ("user.id=jo@example.com", "user_id", "[redacted]"),
    ] {
        let sent = [traces("app", vec![span(1, 0, "execute_tool f", &[&base[..], &[odd]].concat())])];
        assert_eq!(one(&sent, "tool", &["tool_name", column]), ["f", expect], "{odd}");
    }
}
