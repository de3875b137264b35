"""An MCP server on stdin and stdout, with the OpenTelemetry of the MCP Python SDK: `mcp_stock.py ENDPOINT`."""

import sys
import time

from mcp.server.mcpserver import MCPServer
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

provider = TracerProvider(resource=Resource.create({"service.name": "stock-server"}))
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=sys.argv[1], insecure=True)))
trace.set_tracer_provider(provider)

server = MCPServer("stock")


@server.tool()
def stock_level(item: str) -> int:
    """How many there are."""
    time.sleep(0.01)
    if item == "unknown":
        raise ValueError("no such item")
    return len(item)


@server.resource("stock://items")
def items() -> str:
    """All of them."""
    return "bolt, nut"


server.run()
