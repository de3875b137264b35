"""Agents of pydantic-ai whose model is a script, with tools of their own and of an MCP server in another process:
`live_agent.py ENDPOINT SEED [RUNS]`. Every library tells of its calls in its own way; what the tools and the model did is
written down while they do it, and printed as JSON."""

import asyncio
import collections
import json
import random
import sys
import time
from decimal import Decimal
from pathlib import Path

from mcp import StdioServerParameters
from mcp.client.client import Client
from mcp.client.stdio import stdio_client
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from pydantic_ai import Agent, ModelRetry
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.models.instrumented import InstrumentationSettings
from pydantic_ai.usage import RequestUsage

ENDPOINT, SEED, RUNS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 6
MODEL = "gpt-4o-mini"
# Its list price in dollars per million tokens: read, read from the cache, written.
PRICE = (Decimal("0.15"), Decimal("0.075"), Decimal("0.60"))

randoms = random.Random(SEED)
exports = collections.Counter()


class Exporter(OTLPSpanExporter):
    """Has time on a busy machine, and remembers how exports ended."""

    def export(self, spans):
        result = super().export(spans)
        exports[result] += 1
        return result


provider = TracerProvider(resource=Resource.create({"service.name": "assistant"}))
provider.add_span_processor(BatchSpanProcessor(Exporter(endpoint=ENDPOINT, insecure=True, timeout=50)))
trace.set_tracer_provider(provider)

tools = collections.defaultdict(lambda: {"calls": 0, "errors": 0, "retries": 0, "final": 0, "min_ns": 0, "call_ids": []})
models = {"calls": 0, "input_tokens": 0, "output_tokens": 0, "cached_input_tokens": 0, "cost": Decimal(0)}
agents = collections.Counter()


class Run:
    """What the model asks for, step by step; each step is a list of calls that run at the same time."""

    def __init__(self, number, steps):
        self.steps = iter(steps)
        self.number = number
        self.ids = 0

    def answer(self, _messages, _info):
        cached = randoms.randrange(0, 50)
        usage = RequestUsage(
            input_tokens=cached + randoms.randrange(1, 500), output_tokens=randoms.randrange(1, 90), cache_read_tokens=cached
        )
        models["calls"] += 1
        models["input_tokens"] += usage.input_tokens
        models["output_tokens"] += usage.output_tokens
        models["cached_input_tokens"] += cached
        parts = (usage.input_tokens - cached, cached, usage.output_tokens)
        models["cost"] += sum((count * price for count, price in zip(parts, PRICE)), Decimal(0)) / 1_000_000
        asked = next(self.steps, None)
        if asked is None:
            return ModelResponse(parts=[TextPart("done")], usage=usage, model_name=MODEL)
        parts = []
        for tool, arguments in asked:
            self.ids += 1
            parts.append(ToolCallPart(tool, arguments, tool_call_id=f"run{self.number}-{self.ids}"))
        return ModelResponse(parts=parts, usage=usage, model_name=MODEL)


def note(tool, call_id, ok, retry=False, retried=False, min_ns=0):
    entry = tools[tool]
    entry["calls"] += 1
    entry["errors"] += not ok
    entry["retries"] += retry
    entry["final"] += not retried
    entry["min_ns"] = min_ns
    if call_id:
        entry["call_ids"].append(call_id)


def agent_of(run, client):
    agent = Agent(FunctionModel(run.answer, model_name=MODEL), name="buyer", retries=3)

    @agent.tool
    def add(ctx, a: int, b: int) -> int:
        time.sleep(0.002)
        note("add", ctx.tool_call_id, True, min_ns=2_000_000)
        return a + b

    @agent.tool
    def guess(ctx, number: int) -> str:
        # The model is asked to try again until it has guessed, and does.
        note("guess", ctx.tool_call_id, number == 3, retry=number > 1, retried=number != 3)
        if number != 3:
            raise ModelRetry("try the next number")
        return "yes"

    @agent.tool
    async def stock_level(ctx, item: str) -> str:
        result = await client.call_tool("stock_level", {"item": item})
        # The server's span says that it failed, and it is the server that knows: this tool just passes on what it said.
        note("stock_level", ctx.tool_call_id, not result.is_error, min_ns=10_000_000)
        return result.content[0].text

    @agent.tool
    def charge(ctx, cents: int) -> str:
        note("charge", ctx.tool_call_id, False)
        raise TimeoutError("the bank does not answer")

    return agent


async def main():
    Agent.instrument_all(InstrumentationSettings(tracer_provider=provider))
    script = str(Path(__file__).with_name("mcp_stock.py"))
    server = StdioServerParameters(command=sys.executable, args=[script, ENDPOINT])
    async with Client(stdio_client(server)) as client:
        for number in range(RUNS):
            steps = []
            for _ in range(randoms.randrange(1, 4)):
                steps.append([("add", {"a": 1, "b": 2})] * randoms.randrange(1, 4))
                steps.append([("stock_level", {"item": randoms.choice(["bolt", "nut", "unknown"])})])
            first = randoms.randrange(1, 4)
            steps.extend([("guess", {"number": guess})] for guess in range(first, 4))
            # A first guess of 2 or 3 is no retry.
            tools["guess"]["retries"] -= first > 1
            broken = number % 3 == 2
            if broken:
                steps.append([("charge", {"cents": 5})])
            agents["buyer"] += 1
            run = Run(number, steps)
            try:
                await agent_of(run, client).run("buy")
                assert not broken
            except TimeoutError:
                assert broken
        # Nobody's agent: the client and the server alone tell of these; what else a client may ask for is no call.
        await client.list_tools()
        await client.read_resource("stock://items")
        for item in ["screw", "unknown"]:
            result = await client.call_tool("stock_level", {"item": item})
            note("stock_level", None, not result.is_error, min_ns=10_000_000)
    provider.shutdown()
    assert set(exports) == {SpanExportResult.SUCCESS}, exports
    models["cost"] = f"{models['cost']:.9f}"
    print(json.dumps({"tools": tools, "models": models, "agents": agents}))


asyncio.run(main())
