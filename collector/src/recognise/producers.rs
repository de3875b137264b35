//! Every producer and its ways of telling: a failure, usage, who asked, another try, and what is no call at all. Written by
//! hand from the conventions and the sources of the producers.

use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{Span, Status, span::Event};

use super::arrangements::{Export, decided};
use super::dialects::{attributes, counted, failed, log, logs, one, span, traces};

const EXECUTE: &str = "gen_ai.operation.name=execute_tool";

fn with_exception(mut span: Span, kind: &str, message: &str) -> Span {
    let list = [format!("exception.type={kind}"), format!("exception.message={message}")];
    let attributes = attributes(&list.each_ref().map(String::as_str));
    span.events.push(Event { name: "exception".into(), attributes, ..Event::default() });
    span
}

/// A span of a tool `f`, alone in its trace.
fn tool(name: &str, list: &[&str]) -> Span {
    span(1, 0, name, list)
}

#[test]
fn every_way_to_tell_of_a_failure_is_understood() {
    let genai = |list: &[&str]| tool("execute_tool f", &[&[EXECUTE, "gen_ai.tool.name=f"], list].concat());
    let mcp = |kind, list: &[&str]| {
        let mut span = tool("tools/call f", &[&["mcp.method.name=tools/call", "gen_ai.tool.name=f"], list].concat());
        span.kind = kind;
        span
    };
    let inference = |list: &[&str]| tool("f", &[&["openinference.span.kind=TOOL", "tool.name=f"], list].concat());
    let traceloop =
        |list: &[&str]| tool("f.tool", &[&["traceloop.span.kind=tool", "traceloop.entity.name=f"], list].concat());
    let vercel =
        |list: &[&str]| tool("ai.toolCall", &[&["ai.operationId=ai.toolCall", "ai.toolCall.name=f"], list].concat());
    let langsmith = tool("f", &["langsmith.span.kind=tool", "gen_ai.tool.name=f"]);
    let repr = "ConnectionError('the host is down')Traceback (most recent call last):\n  File \"timeout.py\", line 3";
    let strands = tool("Tool: f", &["gen_ai.system=strands-agents", "tool.name=f", "tool.status=error"]);
    let cases: Vec<(&str, Span, &str, &str)> = vec![
        ("app", genai(&["error.type=TimeoutError"]), "timeout", "TimeoutError"),
        ("app", failed(genai(&[]), "RateLimitError: slow down"), "rate_limited", "RateLimitError"),
        ("app", failed(genai(&["http.response.status_code:i=403"]), ""), "unauthorized", "-"),
        ("app", failed(genai(&["http.status_code=429"]), ""), "rate_limited", "-"),
        ("app", failed(genai(&["rpc.grpc.status_code:i=14"]), ""), "transient", "-"),
        ("app", failed(genai(&["rpc.response.status_code=DEADLINE_EXCEEDED"]), ""), "timeout", "-"),
        // Nobody called the span a failure, nor a success.
        ("app", genai(&["http.response.status_code:i=503"]), "transient", "-"),
        ("app", genai(&["http.status_code=404"]), "not_found", "-"),
        ("app", genai(&["rpc.grpc.status_code:i=4"]), "timeout", "-"),
        ("app", genai(&["rpc.response.status_code=UNAVAILABLE"]), "transient", "-"),
        ("app", genai(&["rpc.status_code=permission_denied"]), "unauthorized", "-"),
        ("app", with_exception(genai(&[]), "ValueError", "no such city"), "invalid_input", "ValueError"),
        ("mcp", mcp(3, &["rpc.response.status_code=1001"]), "unknown", "-"),
        ("mcp", mcp(3, &["rpc.status_code:i=-32000"]), "server", "-"),
        ("mcp", mcp(3, &["http.response.status_code:i=401"]), "unauthorized", "-"),
        ("mcp", with_exception(mcp(3, &[]), "McpError", "Connection closed"), "transient", "McpError"),
        ("app", genai(&["error.type=401"]), "unauthorized", "401"),
        ("app", genai(&["error.type=_OTHER", "error.message=the circuit breaker is open"]), "circuit_open", "_OTHER"),
        (
            "app",
            with_exception(failed(genai(&[]), ""), "app.QuotaExceeded", "no more"),
            "quota_exceeded",
            "app.QuotaExceeded",
        ),
        (
            "app",
            genai(&["gen_ai.tool.call.result={\"content\":[{\"text\":\"no\"}],\"isError\": true}"]),
            "unknown",
            "-",
        ),
        ("strands.telemetry.tracer", genai(&["gen_ai.tool.status=error"]), "unknown", "-"),
        ("strands-agents", strands, "unknown", "-"),
        ("pydantic-ai", failed(genai(&["pydantic_ai.tool.retry.cause=model_retry"]), ""), "semantic", "-"),
        ("pydantic-ai", failed(genai(&["pydantic_ai.tool.failure_stage=validation"]), ""), "invalid_input", "-"),
        ("mcp", failed(mcp(2, &["error.type=tool_error"]), ""), "semantic", "tool_error"),
        ("mcp", mcp(2, &["rpc.response.status_code=-32602"]), "invalid_input", "-"),
        ("mcp", mcp(3, &["rpc.response.status_code:i=-32601"]), "not_found", "-"),
        ("mcp", mcp(3, &["rpc.jsonrpc.error_code:i=-32603"]), "server", "-"),
        ("mcp", mcp(2, &["mcp.tool.result.is_error:b=true"]), "unknown", "-"),
        ("oi", with_exception(failed(inference(&[]), "x"), "ValueError", "bad"), "invalid_input", "ValueError"),
        ("oi", inference(&["output.value={\"isError\": true, \"content\": []}"]), "unknown", "-"),
        ("opentelemetry.instrumentation.langchain", traceloop(&["gen_ai.task.status=failure"]), "unknown", "-"),
        ("opentelemetry.instrumentation.mcp", traceloop(&["error.type=tool_error"]), "semantic", "tool_error"),
        ("traceloop", traceloop(&["traceloop.entity.output={\"is_error\": true}"]), "unknown", "-"),
        ("ai", with_exception(failed(vercel(&[]), "boom"), "Error", "fetch failed: 503"), "unknown", "Error"),
        ("ai", vercel(&["ai.toolCall.result={\"content\":[],\"isError\":true}"]), "unknown", "-"),
        ("langsmith", with_exception(failed(langsmith, ""), "Exception", repr), "transient", "ConnectionError"),
        ("gcp.vertex.agent", failed(tool("execute_tool f", &[]), "KeyError: 'x'"), "invalid_input", "KeyError"),
    ];
    for (scope, span, class, error_type) in cases {
        let shown = format!("{scope}: {span:?}");
        let row = one(&[traces(scope, vec![span])], "tool", &["tool_name", "outcome", "error_class", "error_type"]);
        assert_eq!(row, ["f", "error", class, error_type], "{shown}");
    }
}

#[test]
fn codes_and_exceptions_are_no_failure_where_they_say_that_all_went_well() {
    let ok = |mut span: Span| {
        span.status = Some(Status { code: 1, message: String::new() });
        span
    };
    let genai = |list: &[&str]| tool("execute_tool f", &[&[EXECUTE, "gen_ai.tool.name=f"], list].concat());
    let mcp =
        |list: &[&str]| tool("tools/call f", &[&["mcp.method.name=tools/call", "gen_ai.tool.name=f"], list].concat());
    for span in [
        genai(&["http.response.status_code:i=200"]),
        genai(&["http.status_code=302"]),
        genai(&["rpc.grpc.status_code:i=0"]),
        genai(&["rpc.grpc.status_code:d=0"]),
        genai(&["rpc.response.status_code=OK"]),
        genai(&["rpc.response.status_code:-="]),
        // What its application calls a success is one, whatever it went through.
        ok(genai(&["http.response.status_code:i=503"])),
        ok(with_exception(genai(&[]), "ValueError", "tried again")),
        mcp(&["rpc.response.status_code:i=0"]),
        mcp(&["rpc.response.status_code=ok"]),
        ok(with_exception(mcp(&[]), "ValueError", "tried again")),
    ] {
        let shown = format!("{span:?}");
        assert_eq!(one(&[traces("app", vec![span])], "tool", &["outcome"]), ["ok"], "{shown}");
    }
    // Of an agent's run an exception says only that something within failed.
    let run = with_exception(tool("invoke_agent a", &["gen_ai.operation.name=invoke_agent"]), "ValueError", "handled");
    assert_eq!(one(&[traces("app", vec![run])], "agent", &["outcome"]), ["ok"]);
}

#[test]
fn log_events_tell_of_failures_with_whatever_type_they_have() {
    let claude = ["event.name=tool_result", "tool_name=f", "duration_ms=12.5"];
    let codex = ["event.name=codex.tool_result", "tool_name=f", "duration_ms:d=12.5"];
    let gemini = ["event.name=gemini_cli.tool_call", "function_name=f", "duration_ms:i=12"];
    for (scope, base) in
        [("com.anthropic.claude_code.events", claude), ("codex_otel.log_only", codex), ("gemini-cli", gemini)]
    {
        for (success, outcome) in [
            ("success=true", "ok"),
            ("success=True", "ok"),
            ("success:b=true", "ok"),
            ("success:i=1", "ok"),
            ("success=false", "error"),
            ("success=False", "error"),
            ("success:b=false", "error"),
            ("success:i=0", "error"),
            ("success=0", "error"),
        ] {
            let sent = [logs(scope, vec![log(1, 0, &[&base[..], &[success]].concat())])];
            assert_eq!(one(&sent, "tool", &["tool_name", "outcome"]), ["f", outcome], "{scope} {success}");
            assert!(one(&sent, "tool", &["duration_ns"])[0].starts_with("12"), "{scope}");
        }
    }
    // The standard names alone are nobody's; with the service's name they are Claude Code's.
    let mut named = logs("", vec![log(1, 0, &claude)]);
    assert_eq!(decided(std::slice::from_ref(&named)).len(), 0);
    if let Export::Logs(request) = &mut named {
        let attributes = attributes(&["service.name=claude-code"]);
        request.resource_logs[0].resource = Some(Resource { attributes, ..Resource::default() });
    }
    assert_eq!(one(&[named], "tool", &["tool_name"]), ["f"]);
}

#[test]
fn what_is_no_call_is_not_counted() {
    let spans: &[(&str, &str, &[&str])] = &[
        (
            "http",
            "POST /tools/call",
            &["http.request.method=POST", "url.path=/tools/call", "http.response.status_code:i=500"],
        ),
        (
            "grpc",
            "demo.Tools/Call",
            &["rpc.system=grpc", "rpc.service=demo.Tools", "rpc.method=tools/call", "rpc.grpc.status_code:i=14"],
        ),
        ("db", "SELECT tools", &["db.system.name=postgresql", "db.operation.name=execute_tool", "tool.name=f"]),
        ("app", "execute_tool f", &["name=execute_tool", "tool_name=f"]),
        ("app", "execute tooling report", &["operation=execute_tool"]),
        ("mcp", "initialize", &["mcp.method.name=initialize", EXECUTE, "gen_ai.tool.name=f"]),
        ("mcp", "tools/list", &["mcp.method.name=tools/list"]),
        ("mcp", "resources/read", &["mcp.method.name=resources/read", "mcp.resource.uri=tools/call"]),
        ("mcp", "prompts/get f", &["mcp.method.name=prompts/get", "gen_ai.prompt.name=f"]),
        ("mcp", "ping", &["mcp.method.name=ping"]),
        ("mcp", "notifications/progress", &["mcp.method.name=notifications/progress"]),
        ("opentelemetry.instrumentation.mcp", "tools/list.mcp", &["mcp.request.id=4"]),
        ("opentelemetry.instrumentation.mcp", "ResponseStreamWriter", &["mcp.response.value={\"isError\":true}"]),
        ("gcp.vertex.agent", "execute_tool (merged)", &[EXECUTE, "gen_ai.tool.name=(merged tools)"]),
        ("gcp.vertex.agent", "invocation", &[]),
        (
            "traceloop.tracer",
            "f.workflow",
            &["traceloop.span.kind=workflow", "traceloop.entity.name=f", "gen_ai.operation.name=invoke_agent"],
        ),
        ("traceloop.tracer", "f.task", &["traceloop.span.kind=task", "traceloop.entity.name=f", "gen_ai.tool.name=f"]),
        ("pydantic-ai", "running tools", &["tools=[\"f\"]", "gen_ai.tool.name=f"]),
        ("pydantic-ai", "running tool", &[EXECUTE, "gen_ai.tool.name=f", "logfire.span_type=pending_span"]),
        ("ai", "ai.embed", &["ai.operationId=ai.embed", "ai.usage.tokens:i=4"]),
        ("com.anthropic.claude_code.tracing", "claude_code.tool.blocked_on_user", &["tool_name=f", "decision=accept"]),
        ("codex_exec", "exec_command", &["tool_name=exec_command", "call_id=c", "codex.tool.phase=dispatch"]),
    ];
    let mut sent: Vec<Export> = spans.iter().map(|(scope, name, list)| traces(scope, vec![tool(name, list)])).collect();
    for operation in [
        "retrieval",
        "create_agent",
        "plan",
        "invoke_workflow",
        "search_memory",
        "create_memory",
        "execute_task",
        "chain",
        "agent_step",
        "execute_event_loop_cycle",
        "schedule_tool_calls",
        "agent_call",
        "llm_call",
        "",
    ] {
        let operation = format!("gen_ai.operation.name={operation}");
        sent.push(traces("app", vec![tool("x", &[&operation, "gen_ai.tool.name=f", "gen_ai.request.model=m"])]));
    }
    for kind in ["CHAIN", "RETRIEVER", "RERANKER", "GUARDRAIL", "EVALUATOR", "PROMPT", "UNKNOWN"] {
        let kind = format!("openinference.span.kind={kind}");
        sent.push(traces("openinference.instrumentation.langchain", vec![tool("f", &[&kind, "tool.name=f", EXECUTE])]));
    }
    for kind in ["chain", "retriever", "prompt", "parser"] {
        let kind = format!("langsmith.span.kind={kind}");
        sent.push(traces(
            "langsmith",
            vec![tool("f", &[&kind, "gen_ai.operation.name=embeddings", "gen_ai.tool.name=f"])],
        ));
    }
    for (scope, event) in [
        ("com.anthropic.claude_code.events", "tool_decision"),
        ("com.anthropic.claude_code.events", "user_prompt"),
        ("com.anthropic.claude_code.events", "api_retries_exhausted"),
        ("codex_otel.log_only", "codex.tool_decision"),
        ("codex_otel.log_only", "codex.sandbox_outcome"),
        ("codex_otel.log_only", "codex.user_prompt"),
        ("gemini-cli", "gemini_cli.api_request"),
        ("gemini-cli", "gemini_cli.file_operation"),
        ("gemini-cli", "gen_ai.client.inference.operation.details"),
        ("app", "gen_ai.client.operation.exception"),
        ("app", "gen_ai.evaluation.result"),
        ("app", "tool_result"),
    ] {
        let event = format!("event.name={event}");
        let list = [&*event, "tool_name=f", "function_name=f", "success=true", "gen_ai.response.id=r"];
        sent.push(logs(scope, vec![log(1, 0, &list)]));
    }
    for export in sent {
        let rows = decided(std::slice::from_ref(&export));
        assert!(rows.iter().all(|row| row["counted"] == "false"), "{export:?} gave {rows:?}");
    }
}

#[test]
fn usage_and_cost_are_read_in_every_spelling() {
    let columns = ["model", "input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens", "cost_usd"];
    let chat = "gen_ai.operation.name=chat";
    let cases: &[(&str, &str, &[&str])] = &[
        (
            "app",
            "chat m",
            &[
                chat,
                "gen_ai.response.model=m",
                "gen_ai.usage.input_tokens:i=9",
                "gen_ai.usage.output_tokens:i=5",
                "gen_ai.usage.cache_read.input_tokens:i=4",
                "gen_ai.usage.reasoning.output_tokens:i=2",
                "gen_ai.usage.cost:d=0.5",
            ],
        ),
        (
            "app",
            "chat m",
            &[
                chat,
                "gen_ai.request.model=m",
                "gen_ai.usage.prompt_tokens=9",
                "gen_ai.usage.completion_tokens:d=5.0",
                "gen_ai.usage.cache_read_input_tokens:i=4",
                "gen_ai.usage.reasoning_tokens=2",
                "gen_ai.usage.total_cost=0.5",
            ],
        ),
        (
            "pydantic-ai",
            "chat m",
            &[
                chat,
                "gen_ai.request.model=m",
                "gen_ai.usage.input_tokens:i=9",
                "gen_ai.usage.output_tokens:i=5",
                "gen_ai.usage.details.cache_read_tokens:i=4",
                "gen_ai.usage.details.reasoning_tokens:i=2",
                "operation.cost:d=0.5",
            ],
        ),
        (
            "sentry",
            "chat m",
            &[
                chat,
                "gen_ai.request.model=m",
                "gen_ai.usage.input_tokens:i=9",
                "gen_ai.usage.output_tokens:i=5",
                "gen_ai.usage.input_tokens.cached:i=4",
                "gen_ai.usage.output_tokens.reasoning:i=2",
                "gen_ai.usage.cost=0.5",
            ],
        ),
        (
            "oi",
            "ChatX",
            &[
                "openinference.span.kind=llm",
                "llm.model_name=m",
                "llm.token_count.prompt:i=9",
                "llm.token_count.completion:i=5",
                "llm.token_count.prompt_details.cache_read:i=4",
                "llm.token_count.completion_details.reasoning:i=2",
                "llm.cost.total:d=0.5",
            ],
        ),
        // Costs of the two halves, without their sum.
        (
            "oi",
            "ChatX",
            &[
                "openinference.span.kind=LLM",
                "llm.model_name=m",
                "llm.token_count.prompt:i=9",
                "llm.token_count.completion:i=5",
                "llm.token_count.prompt_details.cache_read:i=4",
                "llm.token_count.completion_details.reasoning:i=2",
                "llm.cost.prompt:d=0.4",
                "llm.cost.completion=0.1",
            ],
        ),
        (
            "pydantic-ai",
            "chat m",
            &[
                chat,
                "openinference.span.kind=LLM",
                "gen_ai.response.model=m",
                "gen_ai.usage.input_tokens:i=9",
                "gen_ai.usage.output_tokens:i=5",
                "gen_ai.usage.cache_read.input_tokens:i=4",
                "gen_ai.usage.details.reasoning_tokens:i=2",
                "operation.cost:d=0.5",
            ],
        ),
        (
            "langsmith",
            "ChatX",
            &[
                "langsmith.span.kind=llm",
                chat,
                "langsmith.metadata.ls_model_name=m",
                "gen_ai.usage.input_tokens:i=9",
                "gen_ai.usage.output_tokens:i=5",
                "toolgauge.cost.usd=0.5",
                "langsmith.metadata.usage_metadata={\"input_token_details\":{\"cache_read\":4},\"output_token_details\":{\"reasoning\":2}}",
            ],
        ),
        (
            "ai",
            "ai.generateText.doGenerate",
            &[
                "ai.operationId=ai.generateText.doGenerate",
                "ai.model.id=m",
                "ai.usage.promptTokens:i=9",
                "ai.usage.completionTokens:i=5",
                "ai.usage.cachedInputTokens:i=4",
                "ai.usage.reasoningTokens:i=2",
                "toolgauge.cost.usd=0.5",
            ],
        ),
        (
            "ai",
            "ai.streamText.doStream",
            &[
                "ai.operationId=ai.streamText.doStream",
                "ai.response.model=m",
                "ai.usage.inputTokens:i=9",
                "ai.usage.outputTokens:i=5",
                "ai.usage.inputTokenDetails.cacheReadTokens:i=4",
                "ai.usage.outputTokenDetails.reasoningTokens:i=2",
                "operation.cost:d=0.5",
            ],
        ),
        (
            "opentelemetry.instrumentation.openai",
            "openai.chat",
            &[
                "llm.request.type=chat",
                "gen_ai.response.model=m",
                "gen_ai.usage.prompt_tokens:i=9",
                "gen_ai.usage.completion_tokens:i=5",
                "gen_ai.usage.cache_read_input_tokens:i=4",
                "gen_ai.usage.reasoning_tokens:i=2",
                "gen_ai.usage.cost:d=5e-1",
            ],
        ),
    ];
    for (scope, name, list) in cases {
        let sent = [traces(scope, vec![tool(name, list)])];
        assert_eq!(one(&sent, "model", &columns), ["m", "9", "5", "4", "2", "0.500000000"], "{scope} {list:?}");
    }
}

#[test]
fn sessions_and_users_are_read_in_every_spelling() {
    let genai: [&str; 2] = [EXECUTE, "gen_ai.tool.name=f"];
    let inference: [&str; 2] = ["openinference.span.kind=TOOL", "tool.name=f"];
    let traceloop: [&str; 2] = ["traceloop.span.kind=tool", "traceloop.entity.name=f"];
    let vercel: [&str; 2] = ["ai.operationId=ai.toolCall", "ai.toolCall.name=f"];
    let langsmith: [&str; 2] = ["langsmith.span.kind=tool", "gen_ai.tool.name=f"];
    let cases = [
        (genai, "gen_ai.conversation.id=s", "user.id=u"),
        (genai, "session.id=s", "enduser.id=u"),
        (genai, "langfuse.session.id=s", "langfuse.user.id=u"),
        (inference, "session.id=s", "user.id=u"),
        (inference, "metadata={\"session_id\": \"s\", \"user_id\": \"u\"}", "x=y"),
        (inference, "metadata={\"thread_id\": \"s\", \"user_id\": \"u\"}", "x=y"),
        (traceloop, "traceloop.association.properties.session_id=s", "traceloop.association.properties.user_id=u"),
        (traceloop, "traceloop.association.properties.thread_id=s", "traceloop.association.properties.user_id=u"),
        (vercel, "ai.telemetry.metadata.sessionId=s", "ai.telemetry.metadata.userId=u"),
        (vercel, "ai.telemetry.metadata.threadId=s", "ai.telemetry.metadata.user_id=u"),
        (langsmith, "langsmith.metadata.thread_id=s", "langsmith.metadata.user_id=u"),
    ];
    for (base, session, user) in cases {
        let sent = [traces("app", vec![tool("f", &[&base[..], &[session, user]].concat())])];
        assert_eq!(one(&sent, "tool", &["tool_name", "session_id", "user_id"]), ["f", "s", "u"], "{session} {user}");
    }
}

/// Attempt and finality of the counted tool rows, in order of time.
fn attempts(sent: &[Export]) -> Vec<(String, String)> {
    counted(sent, "tool").into_iter().map(|row| (row["attempt"].clone(), row["final"].clone())).collect()
}

fn numbers(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(attempt, last)| ((*attempt).to_owned(), (*last).to_owned())).collect()
}

#[test]
fn every_mark_of_another_try_is_read() {
    let retried = numbers(&[("1", "false"), ("2", "true")]);
    let genai = |id, list: &[&str]| span(id, 0, "execute_tool f", &[&[EXECUTE, "gen_ai.tool.name=f"], list].concat());
    let id = |n| ["gen_ai.tool.call.id=a", "gen_ai.tool.call.id=b"][n];
    let arguments = |n| ["gen_ai.tool.call.arguments={\"x\":1}", "gen_ai.tool.call.arguments={\"x\":2}"][n];
    let pairs: Vec<(&str, &str, Span, Span)> = vec![
        (
            "the next says so",
            "app",
            failed(genai(1, &[id(0)]), ""),
            genai(2, &[id(1), "http.request.resend_count:i=1"]),
        ),
        ("its number", "app", failed(genai(1, &[id(0)]), ""), genai(2, &[id(1), "toolgauge.attempt=2"])),
        (
            "the failed one asks",
            "pydantic-ai",
            failed(genai(1, &[id(0), "pydantic_ai.tool.retry.cause=model_retry"]), ""),
            genai(2, &[id(1)]),
        ),
        (
            "its error asks",
            "pydantic-ai",
            with_exception(failed(genai(1, &[id(0)]), ""), "pydantic_ai.exceptions.ModelRetry", "again"),
            genai(2, &[id(1)]),
        ),
        (
            "its error asks",
            "pydantic-ai",
            with_exception(failed(genai(1, &[id(0)]), ""), "pydantic_ai.exceptions.ToolRetryError", "again"),
            genai(2, &[id(1)]),
        ),
        ("the same call id", "app", failed(genai(1, &[id(0), arguments(0)]), ""), genai(2, &[id(0), arguments(1)])),
        ("the same arguments", "app", failed(genai(1, &[arguments(0)]), ""), genai(2, &[arguments(0)])),
        (
            "a tag of LangChain by OpenLLMetry",
            "opentelemetry.instrumentation.langchain",
            failed(
                genai(
                    1,
                    &["traceloop.span.kind=tool", "gen_ai.tool.call.arguments={\"input_str\": \"a\", \"tags\": []}"],
                ),
                "",
            ),
            genai(
                2,
                &[
                    "traceloop.span.kind=tool",
                    "gen_ai.tool.call.arguments={\"input_str\": \"b\", \"tags\": [\"retry:attempt:2\"]}",
                ],
            ),
        ),
        (
            "a tag of LangChain by LangSmith",
            "langsmith",
            failed(genai(1, &["langsmith.span.kind=tool", "gen_ai.prompt={\"x\":1}"]), ""),
            genai(
                2,
                &[
                    "langsmith.span.kind=tool",
                    "gen_ai.prompt={\"x\":2}",
                    "langsmith.span.tags=seq:step:1, retry:attempt:2",
                ],
            ),
        ),
    ];
    for (why, scope, first, second) in pairs {
        let both = [traces(scope, vec![second.clone(), first.clone()])];
        assert_eq!(attempts(&both), retried, "{why}");
        // Beside each other they cannot be attempts of one call.
        let mut beside = second;
        beside.start_time_unix_nano = first.start_time_unix_nano + 1;
        let beside = [traces(scope, vec![first, beside])];
        assert!(attempts(&beside).iter().all(|(_, last)| last == "true"), "{why}");
    }
    let unmarked = vec![failed(genai(1, &[id(0), arguments(0)]), ""), genai(2, &[id(1), arguments(0)])];
    assert_eq!(
        attempts(&[traces("app", unmarked)]),
        numbers(&[("1", "true"), ("1", "true")]),
        "another id, and no mark"
    );

    let request = |seconds, number: &str| {
        let attempt = format!("attempt:i={number}");
        let list = ["event.name=api_error", "model=m", "status_code:i=529", "error=overloaded", &attempt];
        log(seconds, 0, &list)
    };
    let sent = [logs("com.anthropic.claude_code.events", vec![request(1, "3")])];
    assert_eq!(one(&sent, "model", &["attempt", "error_class"]), ["3", "transient"]);
}

/// Scenario: an agent's tool by OpenLLMetry, over HTTP to an MCP server, with client, server and the server's function each
/// instrumented by a library of its own, HTTP spans between. Guarantees: one call, whoever failed last says why, in every
/// order of arrival; the server alone is one call as well.
#[test]
fn one_call_through_five_libraries_counts_once() {
    let server_side = || {
        let mut http = span(5, 4, "POST /mcp", &["http.request.method=POST", "http.response.status_code:i=200"]);
        http.kind = 2;
        let mut server =
            span(6, 5, "tools/call f", &["mcp.method.name=tools/call", "gen_ai.tool.name=f", "error.type=tool_error"]);
        server.kind = 2;
        let function = with_exception(
            failed(span(7, 6, "f.tool", &["traceloop.span.kind=tool", "traceloop.entity.name=f"]), "out of stock"),
            "StockError",
            "out of stock",
        );
        vec![
            traces("opentelemetry.instrumentation.starlette", vec![http]),
            traces("fastmcp", vec![server]),
            traces("traceloop.tracer", vec![function]),
        ]
    };
    let mut outer_client = span(2, 1, "tools/call f", &["mcp.method.name=tools/call", "gen_ai.tool.name=f"]);
    outer_client.kind = 3;
    let mut inner_client = span(3, 2, "MCP send tools/call f", &["mcp.method.name=tools/call", "jsonrpc.request.id=3"]);
    inner_client.kind = 3;
    let mut http = span(4, 3, "POST", &["http.request.method=POST"]);
    http.kind = 3;
    let mut sent = vec![
        traces(
            "opentelemetry.instrumentation.langchain",
            vec![span(
                1,
                0,
                "execute_tool f",
                &[
                    "traceloop.span.kind=tool",
                    EXECUTE,
                    "gen_ai.tool.name=f",
                    "gen_ai.tool.call.arguments={\"inputs\": {\"x\": 1}}",
                ],
            )],
        ),
        traces("fastmcp", vec![outer_client]),
        traces("mcp-python-sdk", vec![inner_client]),
        traces("opentelemetry.instrumentation.httpx", vec![http]),
    ];
    sent.extend(server_side());
    let columns = ["layer", "outcome", "error_type", "error_message", "argument_keys"];
    let expect = ["agent", "error", "StockError", "out of stock", "x"];
    assert_eq!(one(&sent, "tool", &columns), expect);
    sent.reverse();
    assert_eq!(one(&sent, "tool", &columns), expect);
    assert_eq!(decided(&sent).len(), 5);
    assert_eq!(one(&server_side(), "tool", &["layer", "error_type"]), ["server", "StockError"]);
}

/// Every column of every row is searched for what must not be in it.
#[test]
fn secrets_are_in_no_column_wherever_they_came_in() {
    let secrets = [
        "sk-proj-abcdef1234567890",
        "ghp_abcdefghijklmnopqrstuvwxyz012345",
        "jo.doe@example.com",
        "4111111111111111",
        "4111 1111 1111 1111",
        "hunter2",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        "dXNlcjpwYXNzd29yZA",
        "abcdef0123456789abcdef0123456789",
    ];
    let carriers = [
        "{}",
        "call of {}",
        "Authorization: Bearer {}, and more",
        "{\"password\": \"{}\"}",
        "https://me:{}@git.example/x?api_key={}",
        "x-api-key={} token={}",
        "Cookie: a=1; session={}",
    ];
    let keys = [
        "gen_ai.tool.name",
        "gen_ai.tool.type",
        "server.address",
        "gen_ai.agent.name",
        "gen_ai.conversation.id",
        "user.id",
        "toolgauge.team",
        "gen_ai.response.model",
        "gen_ai.tool.call.id",
        "error.type",
        "error.message",
        "toolgauge.circuit.state",
        "toolgauge.side_effect.outcome",
        "gen_ai.provider.name",
        "service.name",
        "service.version",
        "deployment.environment.name",
    ];
    for secret in secrets {
        // What nothing tells apart from a word is known by what stands before it only.
        let bare = !matches!(secret, "hunter2" | "dXNlcjpwYXNzd29yZA");
        for carrier in carriers.iter().skip(if bare { 0 } else { 2 }) {
            // An id that is nothing but hex is an id.
            if secret.starts_with("abcdef") && !carrier.contains(':') && !carrier.contains('=') {
                continue;
            }
            let text = carrier.replace("{}", secret);
            let list: Vec<String> = keys.iter().map(|key| format!("{key}={text}")).collect();
            let mut list: Vec<&str> = list.iter().map(String::as_str).collect();
            let arguments = serde_json::json!({ text.as_str(): text, "x": text }).to_string();
            let arguments = format!("gen_ai.tool.call.arguments={arguments}");
            let result = format!("gen_ai.tool.call.result={text}");
            list.extend([EXECUTE, &*arguments, &*result]);
            let span = with_exception(failed(tool("execute_tool f", &list), &text), &text, &text);
            let rows = decided(&[traces("app", vec![span])]);
            assert_eq!(rows.len(), 1);
            for (column, value) in &rows[0] {
                assert!(!value.contains(secret), "{secret:?} in {text:?} is kept in {column}: {value:?}");
            }
        }
    }
}
