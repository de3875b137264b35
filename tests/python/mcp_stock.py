"""An MCP server on stdin and stdout, with the OpenTelemetry of the MCP Python SDK: `mcp_stock.py ENDPOINT`."""

import os
import sys
import time

from mcp.server.mcpserver import MCPServer
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult


class Exporter(OTLPSpanExporter):
    """Has time on a busy machine, and does not go on without a span."""

    def export(self, spans):
        if super().export(spans) is not SpanExportResult.SUCCESS:
            os._exit(1)
        return SpanExportResult.SUCCESS


provider = TracerProvider(resource=Resource.create({"service.name": "stock-server"}))
provider.add_span_processor(SimpleSpanProcessor(Exporter(endpoint=sys.argv[1], insecure=True, timeout=50)))
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
