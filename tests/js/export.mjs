// Sends tool-call spans and log records with the OpenTelemetry SDK for JavaScript, which writes OTLP/JSON, and prints what truly
// happened.
//
//     node export.mjs ENDPOINT SEED [none|gzip]
//
// ENDPOINT is an OTLP/HTTP address like http://127.0.0.1:4318. The same SEED gives the same calls; ids are random, times near now.
//
// One JSON object goes to stdout, the ledger: `spans`, `log_records` sent, and of tools `attempts`, by tool name and sorted by
// their durations: duration_ns, ok, error_type, call_id, cost (in billionths of a dollar).

import { SpanKind, SpanStatusCode, context, trace } from "@opentelemetry/api";
import { OTLPLogExporter } from "@opentelemetry/exporter-logs-otlp-http";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { BatchLogRecordProcessor, LoggerProvider } from "@opentelemetry/sdk-logs";
import { BatchSpanProcessor, TracerProvider } from "@opentelemetry/sdk-trace";

const RUNS = 60;
const TOOLS = ["search_docs", "read_page", "charge_card"];
const ERRORS = ["TimeoutError", "PermissionError"];
const BATCH = { maxQueueSize: 1 << 20, maxExportBatchSize: 100 };

const [endpoint, seed, compression = "none"] = process.argv.slice(2);
if (!endpoint || !seed) {
  console.error("usage: export.mjs ENDPOINT SEED [none|gzip]");
  process.exit(2);
}

// Mulberry32.
let state = Number(seed) >>> 0;
function random(below) {
  state = (state + 0x6d2b79f5) >>> 0;
  let mixed = Math.imul(state ^ (state >>> 15), state | 1);
  mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
  return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
}

// The exporters tell their caller, and nobody else, when an export was refused.
let refused = 0;
function counting(exporter) {
  const send = exporter.export.bind(exporter);
  exporter.export = (items, done) =>
    send(items, (result) => {
      if (result.code !== 0) {
        console.error(result.error);
        refused += items.length;
      }
      done(result);
    });
  return exporter;
}

const resource = resourceFromAttributes({ "service.name": "shop-ui", "service.version": "2.0.1" });
const spanExporter = counting(new OTLPTraceExporter({ url: `${endpoint}/v1/traces`, compression }));
const logExporter = counting(new OTLPLogExporter({ url: `${endpoint}/v1/logs`, compression }));
const tracers = new TracerProvider({ resource, spanProcessors: [new BatchSpanProcessor({ exporter: spanExporter, ...BATCH })] });
const loggers = new LoggerProvider({
  resource,
  processors: [new BatchLogRecordProcessor({ exporter: logExporter, ...BATCH })],
});
const tracer = tracers.getTracer("toolgauge.tests", "1");
const logger = loggers.getLogger("toolgauge.tests", "1");

const ledger = { spans: 0, log_records: 0, attempts: {} };
// A time is [seconds, nanoseconds]: a number could not hold it exactly.
const time = (second, ns) => [second + Math.floor(ns / 1e9), ns % 1e9];
const start = Math.floor(Date.now() / 1000) - 60;

for (let run = 0; run < RUNS; run++) {
  const request = tracer.startSpan("POST /chat", { kind: SpanKind.SERVER, startTime: time(start, run * 1000) });
  const inside = trace.setSpan(context.active(), request);
  ledger.spans += 1;
  for (let call = 0; call < 1 + random(4); call++) {
    const tool = TOOLS[random(TOOLS.length)];
    const at = random(900_000_000);
    const duration_ns = 1_000_000 + random(400_000_000);
    const ok = random(5) > 0;
    // Small enough to be a double without error in its ninth place.
    const cost = random(3) === 0 ? null : random(5_000_000);
    const call_id = `call_${run}_${call}_\u{1F527}`;
    const attributes = {
      "gen_ai.operation.name": "execute_tool",
      "gen_ai.tool.name": tool,
      "gen_ai.tool.call.id": call_id,
      // An array, an integer beyond 32 bits, and half an emoji: what a cut string may end in.
      "app.tags": ["a", "b"],
      "app.big": 2 ** 40,
      "app.cut": "\u{1F527}".slice(0, 1),
    };
    if (cost !== null) attributes["toolgauge.cost.usd"] = cost / 1e9;
    const error_type = ok ? null : ERRORS[random(ERRORS.length)];
    if (!ok) attributes["error.type"] = error_type;
    const span = tracer.startSpan(`execute_tool ${tool}`, { attributes, startTime: time(start + 1, at) }, inside);
    if (!ok) span.setStatus({ code: SpanStatusCode.ERROR, message: "no" });
    span.end(time(start + 1, at + duration_ns));
    ledger.spans += 1;
    (ledger.attempts[tool] ??= []).push({ duration_ns, ok, error_type, call_id, cost });
    logger.emit({ eventName: "tool.done", body: { tool, ok }, attributes: { n: call }, context: inside });
    ledger.log_records += 1;
  }
  request.end(time(start + 3, 0));
}
await tracers.forceFlush();
await loggers.forceFlush();
await tracers.shutdown();
await loggers.shutdown();
if (refused > 0) {
  console.error(`export.mjs: ${refused} spans and log records were refused`);
  process.exit(1);
}
for (const attempts of Object.values(ledger.attempts)) attempts.sort((a, b) => a.duration_ns - b.duration_ns);
console.log(JSON.stringify(ledger));
