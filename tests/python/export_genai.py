"""Sends GenAI spans of known outcome with the OpenTelemetry SDK, and prints what truly happened.

    export_genai.py ENDPOINT SEED [RUNS]

ENDPOINT is an OTLP/gRPC address like http://127.0.0.1:4317, or one of OTLP/HTTP if OTEL_EXPORTER_OTLP_PROTOCOL is
http/protobuf. The same SEED and RUNS (default 20) give the same calls, outcomes, durations, tokens and costs; trace and span
ids are random, and times are near now. OTEL_EXPORTER_OTLP_COMPRESSION is honoured.

One JSON object goes to stdout, the ledger. It is written while the calls are made up and never read back from spans:

    spans       spans sent, of all kinds
    rows        rows of `calls` that these make, the views that do not count included
    tools       by tool name: tool_server, attempts, attempts_ok, calls (logical), calls_ok, retries, durations_ns
                (of attempts, sorted), errors (by type, of attempts), error_classes, cost_usd (decimal, or null if
                nothing is priced), wasted_usd, priced, call_ids
    models      attempts, attempts_ok, calls, calls_ok, input_tokens, output_tokens, cached_input_tokens, cost_usd
    agents      runs, by agent name, and all runs in "total"
    attempts    every counted attempt of a tool: tool, trace_id, span_id (hex), call_id, attempt, final, ok, duration_ns

Exit code 1, with a message, if not every span was accepted.
"""

import json
import os
import random
import sys
import time
from collections import Counter
from contextlib import contextmanager
from decimal import ROUND_HALF_EVEN, Decimal

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    set_span_in_context,
)

MS = 1_000_000
NINE_PLACES = Decimal("1e-9")
FLUSH_TIMEOUT_MS = 60_000

# Failures that tools have: exception type, the class it stands for, message.
FAILURES = [
    (TimeoutError, "timeout", "no answer within 400 ms"),
    (ConnectionError, "transient", "upstream closed the connection"),
    (PermissionError, "unauthorized", "key may not read this order"),
    (ValueError, "invalid_input", "order number must have 8 digits"),
]
# Tools that agents run themselves, and those behind the MCP server.
PLAIN_TOOLS = ["get_weather", "lookup_order", "charge_card", "send_email"]
PRICED_TOOLS = {"charge_card", "get_weather"}
MCP_TOOLS = ["search_docs", "read_page"]
MCP_SERVER = "docs.internal"
AGENTS = ["support", "billing", "planner"]


def nine_places(dollars: float) -> Decimal:
    """A double as money: by its shortest text, half-even."""
    return Decimal(repr(dollars)).quantize(NINE_PLACES, ROUND_HALF_EVEN)


def text_of(amount: Decimal) -> str:
    return format(amount, "f")


class CountingExporter(SpanExporter):
    """The real exporter; counts what was accepted, because `force_flush` does not tell."""

    def __init__(self, endpoint: str):
        if os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") == "http/protobuf":
            self.inner = HttpSpanExporter(endpoint=f"{endpoint}/v1/traces")
        else:
            self.inner = GrpcSpanExporter(endpoint=endpoint, insecure=True)
        self.accepted = 0

    def export(self, spans):
        result = self.inner.export(spans)
        if result is SpanExportResult.SUCCESS:
            self.accepted += len(spans)
        return result

    def shutdown(self):
        self.inner.shutdown()

    def force_flush(self, timeout_millis: int = FLUSH_TIMEOUT_MS) -> bool:
        return self.inner.force_flush(timeout_millis)


class Service:
    """One process that exports: its provider, its exporter."""

    def __init__(self, name: str, endpoint: str):
        resource = Resource.create(
            {"service.name": name, "service.version": "1.4.2", "deployment.environment.name": "test"}
        )
        self.name = name
        self.ended = 0
        self.exporter = CountingExporter(endpoint)
        # The queue holds everything: a span that the SDK drops would be missing for no fault of the receiver.
        processor = BatchSpanProcessor(self.exporter, max_queue_size=1 << 20, max_export_batch_size=256)
        self.provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self.provider.add_span_processor(processor)
        self.tracer = self.provider.get_tracer("toolgauge.tests.export_genai", "1")

    def flush(self) -> str | None:
        """What went wrong, if anything."""
        flushed = self.provider.force_flush(FLUSH_TIMEOUT_MS)
        self.provider.shutdown()
        if not flushed:
            return f"{self.name}: force_flush did not end within {FLUSH_TIMEOUT_MS} ms"
        if self.exporter.accepted != self.ended:
            return f"{self.name}: {self.exporter.accepted} of {self.ended} spans were accepted"
        return None


class ToolLedger:
    def __init__(self, server: str | None):
        self.server = server
        self.attempts = []
        self.errors = Counter()
        self.error_classes = Counter()
        self.costs = []
        self.call_ids = set()

    def as_json(self) -> dict:
        of = lambda **wanted: sum(all(a[k] == v for k, v in wanted.items()) for a in self.attempts)  # noqa: E731
        wasted = [cost for cost, ok in self.costs if not ok]
        return {
            "tool_server": self.server,
            "attempts": len(self.attempts),
            "attempts_ok": of(ok=True),
            "calls": of(final=True),
            "calls_ok": of(final=True, ok=True),
            "retries": sum(a["attempt"] > 1 for a in self.attempts),
            "durations_ns": sorted(a["duration_ns"] for a in self.attempts),
            "errors": dict(sorted(self.errors.items())),
            "error_classes": dict(sorted(self.error_classes.items())),
            "cost_usd": text_of(sum(cost for cost, _ in self.costs)) if self.costs else None,
            "wasted_usd": text_of(sum(wasted)) if wasted else None,
            "priced": len(self.costs),
            "call_ids": sorted(self.call_ids),
        }


class World:
    """Makes calls up, sends their spans, keeps the ledger. Time is its own: `now_ns` moves as calls take time."""

    def __init__(self, endpoint: str, seed: int, start_ns: int):
        self.random = random.Random(seed)
        self.agents_service = Service("assistant", endpoint)
        self.docs_service = Service("docs-server", endpoint)
        self.now_ns = start_ns
        self.tools = {}
        self.models = Counter()
        self.model_cost = Decimal(0)
        self.agent_runs = Counter()
        self.views = 0
        self.call_ids = 0
        self.session = ""

    # Time and chance

    def wait(self, least_ms: int, most_ms: int):
        self.now_ns += self.random.randint(least_ms * MS, most_ms * MS)

    def call_id(self) -> str:
        self.call_ids += 1
        return f"call_{self.call_ids:05}"

    def arguments(self) -> str:
        """Unlike all others."""
        self.call_ids += 1
        return json.dumps({"order": 10_000_000 + self.call_ids, "count": self.random.randint(1, 9)})

    def dollars(self) -> float:
        # Up to 11 places, so that some have to be rounded.
        places = self.random.choice([4, 6, 9, 11])
        return float(Decimal(self.random.randint(1, 99_999)).scaleb(-places))

    # Spans

    @contextmanager
    def span(self, name: str, attributes: dict, kind=SpanKind.INTERNAL, parent=None, service=None):
        """A span from now to whatever time it is then."""
        service = service or self.agents_service
        context = None if parent is None else set_span_in_context(parent)
        span = service.tracer.start_span(name, context, kind, attributes, start_time=self.now_ns)
        span.began_ns = self.now_ns
        yield span
        span.end(end_time=self.now_ns)
        service.ended += 1

    def noise(self, parent, kind=SpanKind.CLIENT):
        attributes = {
            "http.request.method": "POST",
            "http.response.status_code": self.random.choice([200, 200, 503]),
            "server.address": "api.example.com",
            "url.full": "https://api.example.com/v1",
        }
        with self.span("POST", attributes, kind, parent):
            self.wait(1, 20)

    def fail(self, span, failure, told_by: str):
        """Marks a span as failed. `told_by`: the attribute `error.type`, or only the recorded exception."""
        error, _, message = failure
        span.record_exception(error(message), timestamp=self.now_ns)
        span.set_status(Status(StatusCode.ERROR, message))
        if told_by == "attribute":
            span.set_attribute("error.type", error.__name__)

    # Tools

    def ledger(self, tool: str) -> ToolLedger:
        server = MCP_SERVER if tool in MCP_TOOLS else None
        return self.tools.setdefault(tool, ToolLedger(server))

    def write_down(self, tool, span, number, final, call_id=None, error_type=None, error_class=None, cost=None):
        context = span.get_span_context()
        ledger = self.ledger(tool)
        ledger.attempts.append(
            {
                "tool": tool,
                "trace_id": format(context.trace_id, "032x"),
                "span_id": format(context.span_id, "016x"),
                "call_id": call_id,
                "attempt": number,
                "final": final,
                "ok": error_type is None,
                "duration_ns": self.now_ns - span.began_ns,
            }
        )
        if call_id is not None:
            ledger.call_ids.add(call_id)
        if error_type is not None:
            ledger.errors[error_type] += 1
            ledger.error_classes[error_class] += 1
        if cost is not None:
            ledger.costs.append((nine_places(cost), error_type is None))

    def tool_attributes(self, tool: str, call_id: str | None, arguments: str | None) -> dict:
        attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": tool,
            "gen_ai.tool.type": "function",
            "gen_ai.conversation.id": self.session,
            "gen_ai.tool.call.id": call_id,
            "gen_ai.tool.call.arguments": arguments,
        }
        return {key: value for key, value in attributes.items() if value is not None}

    def attempt(self, tool, parent, number, final, failure, call_id=None, arguments=None, marks=None):
        """One attempt of a tool that the agent runs itself."""
        attributes = self.tool_attributes(tool, call_id, arguments) | (marks or {})
        cost = self.dollars() if tool in PRICED_TOOLS and self.random.random() < 0.9 else None
        with self.span(f"execute_tool {tool}", attributes, parent=parent) as span:
            self.wait(1, 200)
            if self.random.random() < 0.5:
                self.noise(span)
            if cost is not None:
                span.set_attribute("toolgauge.cost.usd", cost)
            error_type = error_class = None
            if failure is not None:
                self.fail(span, failure, self.random.choice(["attribute", "exception"]))
                error_type, error_class = failure[0].__name__, failure[1]
            elif self.random.random() < 0.5:
                span.set_attribute("gen_ai.tool.call.result", '{"answer": "yes"}')
                span.set_status(Status(StatusCode.OK))
            self.write_down(tool, span, number, final, call_id, error_type, error_class, cost)
        self.wait(0, 30)

    def failure(self):
        return self.random.choice(FAILURES)

    def plain_call(self, tool: str, parent, way: str):
        """One logical call, by the way in which its retries (if any) are told; `another_id` makes two."""
        call_id, arguments = self.call_id(), self.arguments()
        if way == "ok":
            self.attempt(tool, parent, 1, True, None, call_id, arguments)
        elif way == "fails":
            self.attempt(tool, parent, 1, True, self.failure(), call_id, arguments)
        elif way == "same_id":
            ends_ok = self.random.random() < 0.7
            self.attempt(tool, parent, 1, False, self.failure(), call_id, arguments)
            self.attempt(tool, parent, 2, False, self.failure(), call_id, arguments)
            self.attempt(tool, parent, 3, True, None if ends_ok else self.failure(), call_id, arguments)
        elif way == "resend_count":
            # The producer marks the second and later ones; no id says that they belong together.
            last = self.random.choice([2, 3])
            for number in range(1, last + 1):
                marks = {"http.request.resend_count": number - 1} if number > 1 else None
                failure = self.failure() if number < last else None
                self.attempt(tool, parent, number, number == last, failure, marks=marks)
        elif way == "asks_retry":
            # As Pydantic AI does it: the failed one asks, the next has another id and other arguments.
            marks = {"pydantic_ai.tool.retry.cause": "model_retry", "pydantic_ai.tool.retry.attempt": 1}
            ends_ok = self.random.random() < 0.7
            self.attempt(tool, parent, 1, False, self.failure(), call_id, arguments, marks)
            failure = None if ends_ok else self.failure()
            self.attempt(tool, parent, 2, True, failure, self.call_id(), self.arguments())
        elif way == "same_arguments":
            self.attempt(tool, parent, 1, False, self.failure(), arguments=arguments)
            self.attempt(tool, parent, 2, True, None, arguments=arguments)
        elif way == "another_id":
            # Nothing says that the second is a retry, so it is a call of its own.
            self.attempt(tool, parent, 1, True, self.failure(), call_id, arguments)
            self.attempt(tool, parent, 1, True, None, self.call_id(), self.arguments())
        else:
            raise ValueError(way)

    def mcp_call(self, tool: str, parent, way: str):
        """One call through an MCP client and server: up to three spans tell of it, and it counts once."""
        call_id = self.call_id()
        cost = self.dollars() if way == "ok" else None
        with self.span(f"execute_tool {tool}", self.tool_attributes(tool, call_id, self.arguments()), parent=parent) as outer:
            self.wait(1, 5)
            error_type = error_class = None
            if way == "ok":
                self.mcp_request(tool, outer, 1, None, cost)
            elif way == "server_fails":
                # The agent's own span looks fine; only the server knows.
                self.mcp_request(tool, outer, 1, "server", None)
                error_type, error_class = "tool_error", "semantic"
            elif way == "client_repairs":
                # The client's first request is lost and it sends another: the agent's call went well at its first attempt.
                self.mcp_request(tool, outer, 1, "client", None)
                self.wait(1, 10)
                self.mcp_request(tool, outer, 2, None, None)
            else:
                raise ValueError(way)
            self.wait(1, 5)
            self.write_down(tool, outer, 1, True, call_id, error_type, error_class, cost)
        self.wait(0, 30)

    def mcp_request(self, tool: str, outer, number: int, fails: str | None, cost: float | None):
        attributes = {
            "mcp.method.name": "tools/call",
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": tool,
            "jsonrpc.request.id": str(self.random.randint(1, 99)),
            "network.transport": "tcp",
        }
        client_attributes = attributes | {"server.address": MCP_SERVER, "server.port": 8443}
        if number > 1:
            client_attributes["http.request.resend_count"] = number - 1
        with self.span(f"tools/call {tool}", client_attributes, SpanKind.CLIENT, outer) as client:
            self.views += 1
            self.wait(1, 10)
            if fails == "client":
                self.fail(client, FAILURES[1], "attribute")
                return
            here = client.get_span_context()
            remote = NonRecordingSpan(SpanContext(here.trace_id, here.span_id, True, here.trace_flags))
            with self.span(f"tools/call {tool}", attributes, SpanKind.SERVER, remote, self.docs_service) as server:
                self.views += 1
                self.wait(5, 100)
                if cost is not None:
                    server.set_attribute("toolgauge.cost.usd", cost)
                if fails == "server":
                    server.set_attribute("error.type", "tool_error")
                    server.set_status(Status(StatusCode.ERROR, "the index is being rebuilt"))
            self.wait(1, 10)

    # Models and agents

    def chat(self, parent, fails_first: bool):
        """One inference; gives its tokens."""
        attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "example",
            "gen_ai.request.model": "large-1",
            "gen_ai.conversation.id": self.session,
            "server.address": "models.example.com",
        }
        marks = {}
        if fails_first:
            with self.span("chat large-1", attributes | {"error.type": "429"}, SpanKind.CLIENT, parent) as span:
                self.wait(5, 50)
                span.set_status(Status(StatusCode.ERROR, "slow down"))
            self.models["attempts"] += 1
            self.wait(10, 100)
            marks = {"http.request.resend_count": 1}
        tokens = {
            "input_tokens": self.random.randint(100, 4_000),
            "output_tokens": self.random.randint(1, 500),
            "cached_input_tokens": self.random.choice([0, 64, 96]),
        }
        cost = self.dollars()
        usage = {
            "gen_ai.response.model": "large-1-2026",
            "gen_ai.usage.input_tokens": tokens["input_tokens"],
            "gen_ai.usage.output_tokens": tokens["output_tokens"],
            "gen_ai.usage.cache_read.input_tokens": tokens["cached_input_tokens"],
            "operation.cost": cost,
        }
        with self.span("chat large-1", attributes | usage | marks, SpanKind.CLIENT, parent):
            self.wait(20, 400)
        self.models.update(tokens)
        self.models.update(["attempts", "attempts_ok", "calls", "calls_ok"])
        self.model_cost += nine_places(cost)
        self.wait(0, 5)
        return Counter({key: tokens[key] for key in ("input_tokens", "output_tokens")})

    def agent(self, name: str, parent, depth: int):
        """One run of an agent. Its span repeats the sums of its parts, which must not be added to them."""
        attributes = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": name,
            "gen_ai.conversation.id": self.session,
        }
        with self.span(f"invoke_agent {name}", attributes, parent=parent) as run:
            self.agent_runs[name] += 1
            self.wait(1, 5)
            used = self.chat(run, self.random.random() < 0.2)
            plain = ["ok", "ok", "fails", "same_id", "resend_count", "asks_retry", "same_arguments", "another_id"]
            mcp = ["ok", "ok", "server_fails", "client_repairs"]
            for _ in range(self.random.randint(2, 4)):
                self.plain_call(self.random.choice(PLAIN_TOOLS), run, self.random.choice(plain))
            self.mcp_call(self.random.choice(MCP_TOOLS), run, self.random.choice(mcp))
            if depth == 0 and self.random.random() < 0.4:
                self.ask_researcher(run)
            used += self.chat(run, False)
            run.set_attribute("gen_ai.usage.input_tokens", used["input_tokens"])
            run.set_attribute("gen_ai.usage.output_tokens", used["output_tokens"])

    def ask_researcher(self, parent):
        """An agent as a tool: the call counts, and so does everything that the inner agent does."""
        call_id = self.call_id()
        attributes = self.tool_attributes("ask_researcher", call_id, self.arguments())
        with self.span("execute_tool ask_researcher", attributes, parent=parent) as span:
            self.agent("researcher", span, 1)
            self.wait(1, 5)
            self.write_down("ask_researcher", span, 1, True, call_id)

    def run(self, number: int):
        self.session = f"session-{number // 2}"
        with self.span("POST /chat", {"http.request.method": "POST", "http.route": "/chat"}, SpanKind.SERVER) as request:
            self.wait(1, 3)
            self.agent(self.random.choice(AGENTS), request, 0)
            self.noise(request)
        self.noise(None)

    def as_json(self) -> dict:
        attempts = [attempt for ledger in self.tools.values() for attempt in ledger.attempts]
        agents = dict(sorted(self.agent_runs.items())) | {"total": self.agent_runs.total()}
        return {
            "spans": self.agents_service.ended + self.docs_service.ended,
            "rows": len(attempts) + self.views + self.models["attempts"] + agents["total"],
            "tools": {name: ledger.as_json() for name, ledger in sorted(self.tools.items())},
            "models": dict(sorted(self.models.items())) | {"cost_usd": text_of(self.model_cost)},
            "agents": agents,
            "attempts": attempts,
        }


def main() -> int:
    if len(sys.argv) not in (3, 4):
        print("usage: export_genai.py ENDPOINT SEED [RUNS]", file=sys.stderr)
        return 2
    endpoint, seed, runs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) == 4 else 20
    world = World(endpoint, seed, time.time_ns())
    # Runs overlap in time as those of a server do, and all ended a moment ago.
    started_ns = world.now_ns - 90_000 * MS
    for number in range(runs):
        world.now_ns = started_ns + world.random.randint(0, 30_000 * MS)
        world.run(number)
    faults = [fault for fault in (world.agents_service.flush(), world.docs_service.flush()) if fault]
    if faults:
        print("export_genai: " + "; ".join(faults), file=sys.stderr)
        return 1
    json.dump(world.as_json(), sys.stdout)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
