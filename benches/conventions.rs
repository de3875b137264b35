//! What recognising costs by the conventions in force: `./dev bench conventions [ROUNDS]`.
//!
//! Prints spans per CPU-second of the stage that recognises and files (one thread, in memory), with the rules of OpenTelemetry
//! GenAI alone, with all conventions, and with 50 rules of the user besides; for spans that are all tool calls, and for
//! spans that are none. Beside them, in the same run, what just walking the same bytes allows, and what a server does that
//! reads requests over gRPC and throws them away. The variants take turns, so that others at work on the machine
//! disturb all of them alike.

#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use load::{SPANS, Template, null, send};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use prost::Message as _;
use toolgauge_collector::live::{FrameBody, LiveFrame, LiveRows, LiveSettings};
use toolgauge_collector::recognise::{Conventions, FrameInfo, RecogniseSettings, Recogniser};
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::otlp::TracesView;
use toolgauge_proto::time::{Clock as _, SystemClock};

#[expect(dead_code, reason = "shared with the other benchmarks")]
mod load;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exports of one turn of a variant.
const EXPORTS: u64 = 64;
const ROUNDS: u64 = 40;
const GENAI: &str = include_str!("../collector/conventions/otel_genai.toml");

/// What this thread has spent on a processor (proc(5), schedstat).
fn on_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or_default())
}

/// 50 rules, half of them by an attribute, half by the name of span or scope.
fn own_rules() -> String {
    let mut text = String::from("name = \"own\"\nfields_from = \"otel_genai\"\n");
    for i in 0..50 {
        let all = match i % 4 {
            0 | 1 => format!("{{ key = \"own.kind.{i}\", is = [\"tool\"] }}"),
            2 => format!("{{ span_name_starts_with = [\"job {i} \"] }}"),
            _ => format!("{{ scope = [\"own.library.{i}\"] }}, {{ span_kind = [\"internal\"] }}"),
        };
        text.push_str(&format!(
            "[[rule]]\nname = \"rule of mine {i}\"\nkind = \"tool\"\nsignal = \"span\"\nlayer = \"agent\"\nall = [{all}]\n"
        ));
    }
    text
}

/// The same spans as those of a web server: as many attributes, as long, and no call.
fn without_calls(export: &[u8]) -> Fallible<Bytes> {
    let mut request = ExportTraceServiceRequest::decode(export)?;
    let keys = [
        "http.request.method",
        "url.path",
        "http.route",
        "http.response.status_code",
        "user_agent.original",
        "client.address",
        "network.protocol.version",
        "server.address",
        "url.scheme",
        "url.query",
        "net.peer.port",
    ];
    for span in
        request.resource_spans.iter_mut().flat_map(|resource| &mut resource.scope_spans).flat_map(|s| &mut s.spans)
    {
        span.name = "GET /orders/{id}".into();
        for (attribute, key) in span.attributes.iter_mut().zip(keys) {
            let value = attribute.value.take();
            *attribute = KeyValue { key: key.into(), value, ..Default::default() };
        }
        assert!(
            span.attributes.iter().all(|a| matches!(a.value, Some(AnyValue { value: Some(Value::StringValue(_)) })))
        );
    }
    Ok(request.encode_to_vec().into())
}

/// CPU time of taking in some exports.
fn recognise(recogniser: &Arc<Recogniser>, exports: &[Bytes]) -> Fallible<(Duration, u64)> {
    let mut live = LiveRows::new(LiveSettings::default(), Arc::clone(recogniser));
    let received = SystemClock.now();
    let began = on_cpu();
    for (body, position) in exports.iter().zip(1..) {
        let info = FrameInfo { position: WalPosition(position), received, tenant: "default" };
        live.apply(LiveFrame { info, body: FrameBody::Traces(body) })?;
    }
    Ok((on_cpu().saturating_sub(began), live.live_rows()))
}

fn walk(exports: &[Bytes]) -> Fallible<Duration> {
    let began = on_cpu();
    for body in exports {
        let mut spans = 0;
        for resource in TracesView::new(body)?.resource_spans() {
            spans += resource.scope_spans().map(|scope| scope.spans().count()).sum::<usize>();
        }
        assert_eq!(black_box(spans), SPANS);
    }
    Ok(on_cpu().saturating_sub(began))
}

fn main() -> Fallible<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.iter().any(|argument| argument == null::ARGUMENT) {
        return runtime.block_on(null::serve());
    }
    let rounds = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(ROUNDS);
    let template = Arc::new(Template::new());

    let with = |conventions| Recogniser::new(conventions, RecogniseSettings::default()).map(Arc::new);
    let variants = [
        ("GenAI rules alone", with(Conventions::compile(&[("otel_genai", GENAI)])?)?),
        ("all conventions", with(Conventions::built_in()?)?),
        ("all, and 50 of the user", with(Conventions::with(&[("own.toml".into(), own_rules())])?)?),
    ];
    let numbers = Arc::new(AtomicU64::new(1));
    let (server, address) = null::start()?;
    runtime.block_on(send(address, &template, &numbers, Duration::from_secs(1), 8, None))?;
    let before = server.cpu_seconds();
    let sent = runtime.block_on(send(address, &template, &numbers, Duration::from_secs(4), 8, None))?;
    let null_rate = sent.spans() / (server.cpu_seconds() - before);
    drop(server);

    // By input: walking, then the variants. The first round grows buffers.
    let mut took = [[Duration::ZERO; 4]; 2];
    for round in 0..=rounds {
        let calls: Vec<Bytes> = (0..EXPORTS).map(|i| template.export(1_000_000 + round * EXPORTS + i)).collect();
        let others: Vec<Bytes> = calls.iter().map(|export| without_calls(export)).collect::<Result<_, _>>()?;
        for (input, exports) in [calls, others].iter().enumerate() {
            let mut now = [walk(exports)?; 4];
            for turn in 0..variants.len() {
                // Whoever comes first finds the bytes in no cache; all do in turn.
                let variant = (turn + usize::try_from(round)?) % variants.len();
                let (time, rows) = recognise(&variants[variant].1, exports)?;
                assert_eq!(rows, if input == 0 { EXPORTS * SPANS as u64 } else { 0 });
                now[variant + 1] = time;
            }
            if round > 0 {
                took[input].iter_mut().zip(now).for_each(|(sum, now)| *sum += now);
            }
        }
    }

    let spans = (rounds * EXPORTS * SPANS as u64) as f64;
    println!("{SPANS} spans an export, {} bytes a span; spans per CPU-second", template.bytes() / SPANS);
    println!("  a server over gRPC that throws them away  {null_rate:>12.0}");
    for (input, took) in ["spans that are all tool calls", "spans of which none is a call"].iter().zip(took) {
        println!("{input}");
        let names = ["walking the bytes"].into_iter().chain(variants.iter().map(|(name, _)| *name));
        for (name, time) in names.zip(took) {
            println!(
                "  {name:40} {:>12.0}  {:6.0} ns a span, {:.3} of GenAI alone",
                spans / time.as_secs_f64(),
                time.as_nanos() as f64 / spans,
                took[1].as_secs_f64() / time.as_secs_f64()
            );
        }
    }
    Ok(())
}
