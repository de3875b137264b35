//! The load that benchmarks send: exports of 512 tool-call spans of about 450 bytes with 10 attributes, five to a trace,
//! every id unique; and the processes they send it to.

pub(crate) mod client;
pub(crate) mod null;
pub(crate) mod slos;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, client::Grpc};
use toolgauge_proto::time::{Clock as _, SystemClock};

pub(crate) const SPANS: usize = 512;
const TRACE_SPANS: usize = 5;
pub(crate) const EXPORT_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(Value::StringValue(value.into())) }),
        ..Default::default()
    }
}

fn now_ns() -> u64 {
    SystemClock.now().0.unsigned_abs() * 1_000
}

/// An export whose ids are patched in place before each send.
pub(crate) struct Template {
    bytes: Vec<u8>,
    /// Where trace ids stand, with the trace's number.
    traces: Vec<(usize, u64)>,
    /// Where span ids stand.
    spans: Vec<usize>,
    /// Where the 16 hex digits of call ids stand.
    calls: Vec<usize>,
    /// Where end times stand, and the start times before them.
    times: Vec<usize>,
}

pub(crate) const TOOLS: [&str; 12] = [
    "read_file",
    "write_file",
    "bash",
    "web_search",
    "grep",
    "sql_query",
    "send_email",
    "create_ticket",
    "fetch_url",
    "list_dir",
    "get_weather",
    "vector_search",
];

impl Template {
    pub(crate) fn new() -> Self {
        let mut spans = Vec::new();
        for i in 0..SPANS {
            let tool = TOOLS[i * 7 % TOOLS.len()];
            let mut trace_id = [0xA5; 16];
            trace_id[..8].copy_from_slice(&((i / TRACE_SPANS) as u64).to_be_bytes());
            // No number can make the mark appear twice.
            let mut span_id = [0x5A, 0x5A, 0x5A, 0x5B, 0, 0, 0, 0];
            span_id[4..].copy_from_slice(&(i as u32 + 1).to_be_bytes());
            let failed = i % 33 == 0;
            let mut attributes = vec![
                text("gen_ai.operation.name", "execute_tool"),
                text("gen_ai.tool.name", tool),
                text("gen_ai.tool.type", "function"),
                text("gen_ai.tool.call.id", format!("call_CALLID{i:010}")),
                text("gen_ai.agent.name", "support-agent"),
                text("gen_ai.conversation.id", format!("conversation-{:06}", i / TRACE_SPANS)),
                text("gen_ai.tool.call.arguments", format!("{{\"query\":\"order {i:05} of customer\",\"limit\":10}}")),
                text("gen_ai.tool.call.result", "{\"rows\":[1,2,3],\"next\":null}"),
                text("server.address", "tools.internal"),
            ];
            attributes.push(if failed { text("error.type", "TimeoutError") } else { text("user.id", "user-0042") });
            spans.push(Span {
                trace_id: trace_id.to_vec(),
                span_id: span_id.to_vec(),
                name: format!("execute_tool {tool}"),
                kind: 1,
                start_time_unix_nano: 0x1111_1111_1111_1111,
                end_time_unix_nano: 0x2222_2222_2222_2222,
                attributes,
                ..Default::default()
            });
        }
        let resource = Resource {
            attributes: vec![text("service.name", "support-agent"), text("service.version", "1.4.2")],
            ..Default::default()
        };
        let scope = InstrumentationScope { name: "load".into(), ..Default::default() };
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(resource),
                scope_spans: vec![ScopeSpans { scope: Some(scope), spans, ..Default::default() }],
                ..Default::default()
            }],
        };
        let bytes = request.encode_to_vec();
        let find = |needle: &[u8]| -> Vec<usize> {
            (0..bytes.len() - needle.len()).filter(|at| &bytes[*at..*at + needle.len()] == needle).collect()
        };
        let traces = find(&[0xA5; 8])
            .into_iter()
            .map(|at| (at - 8, u64::from_be_bytes(bytes[at - 8..at].try_into().unwrap_or_default())))
            .collect();
        let spans = find(&[0x5A, 0x5A, 0x5A, 0x5B]);
        let calls = find(b"CALLID").into_iter().collect();
        let times = find(&0x1111_1111_1111_1111u64.to_le_bytes()).into_iter().collect();
        Self { bytes, traces, spans, calls, times }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The export with this number; no two have an id in common.
    pub(crate) fn export(&self, number: u64) -> Bytes {
        let mut bytes = self.bytes.clone();
        let mix = |n: u64| {
            let z = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            (z ^ (z >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9)
        };
        let now = now_ns();
        for (at, trace) in &self.traces {
            bytes[*at..*at + 8].copy_from_slice(&mix(number << 16 | trace).to_le_bytes());
            bytes[*at + 8..*at + 16].copy_from_slice(&number.to_be_bytes());
        }
        for (i, at) in self.spans.iter().enumerate() {
            bytes[*at..*at + 8].copy_from_slice(&mix(number << 20 | i as u64 | 1 << 60).to_le_bytes());
        }
        for at in &self.calls {
            let digits = format!("{:06x}", number & 0xff_ffff);
            bytes[*at..*at + 6].copy_from_slice(digits.as_bytes());
        }
        for (i, at) in self.times.iter().enumerate() {
            let duration = 1_000_000 + mix(number << 10 | i as u64) % 200_000_000;
            bytes[*at..*at + 8].copy_from_slice(&(now - duration).to_le_bytes());
            bytes[*at + 9..*at + 17].copy_from_slice(&now.to_le_bytes());
        }
        Bytes::from(bytes)
    }
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// What a run of load gave.
pub(crate) struct Sent {
    pub(crate) exports: u64,
    pub(crate) refused: u64,
    pub(crate) seconds: f64,
    /// Times to acknowledgement, sorted.
    pub(crate) latencies: Vec<Duration>,
}

impl Sent {
    pub(crate) fn spans(&self) -> f64 {
        (self.exports * SPANS as u64) as f64
    }

    pub(crate) fn quantile(&self, q: f64) -> Duration {
        let rank = ((self.latencies.len() as f64 * q).ceil() as usize).clamp(1, self.latencies.len().max(1));
        self.latencies.get(rank - 1).copied().unwrap_or_default()
    }
}

/// Sends exports for so long: flat out over so many calls at a time, or at a rate of exports per second.
pub(crate) async fn send(
    address: SocketAddr,
    template: &Arc<Template>,
    numbers: &Arc<AtomicU64>,
    time: Duration,
    parallel: usize,
    rate: Option<f64>,
) -> Result<Sent, Box<dyn std::error::Error>> {
    let latencies = Arc::new(Mutex::new(Vec::new()));
    let refused = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let due = Arc::new(AtomicU64::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..parallel {
        // Two calls share a connection.
        static CHANNELS: Mutex<Vec<(SocketAddr, usize, Channel)>> = Mutex::new(Vec::new());
        let slot = worker / 2;
        let known = CHANNELS
            .lock()
            .map_err(|_| "poisoned")?
            .iter()
            .find(|(a, s, _)| *a == address && *s == slot)
            .map(|(_, _, c)| c.clone());
        let channel = match known {
            Some(channel) => channel,
            None => {
                let channel = Endpoint::new(format!("http://{address}"))?
                    .initial_stream_window_size(4 << 20)
                    .initial_connection_window_size(8 << 20)
                    .connect()
                    .await?;
                CHANNELS.lock().map_err(|_| "poisoned")?.push((address, slot, channel.clone()));
                channel
            }
        };
        let (template, numbers) = (Arc::clone(template), Arc::clone(numbers));
        let (latencies, refused, due) = (Arc::clone(&latencies), Arc::clone(&refused), Arc::clone(&due));
        tasks.spawn(async move {
            let mut grpc = Grpc::new(channel);
            let mut own = Vec::new();
            while began.elapsed() < time {
                let mut sent_at = Instant::now();
                if let Some(rate) = rate {
                    // Open loop: the latency counts from when the export was due, not from when a slow server let it go.
                    let at = began + Duration::from_secs_f64(due.fetch_add(1, Ordering::Relaxed) as f64 / rate);
                    tokio::time::sleep_until(at.into()).await;
                    sent_at = at;
                }
                let export = template.export(numbers.fetch_add(1, Ordering::Relaxed));
                if grpc.ready().await.is_err() {
                    break;
                }
                let path = http::uri::PathAndQuery::from_static(EXPORT_PATH);
                match grpc.unary::<Bytes, Bytes, _>(tonic::Request::new(export), path, RawCodec).await {
                    Ok(_) => own.push(sent_at.elapsed()),
                    Err(_) => {
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            if let Ok(mut all) = latencies.lock() {
                all.extend(own);
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    let seconds = began.elapsed().as_secs_f64();
    let mut latencies = std::mem::take(&mut *latencies.lock().map_err(|_| "poisoned")?);
    latencies.sort_unstable();
    Ok(Sent { exports: latencies.len() as u64, refused: refused.load(Ordering::Relaxed), seconds, latencies })
}

/// A server process; killed when dropped.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Process {
    /// CPU time of the process so far, in seconds.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap_or_default();
        let after = stat.rsplit(')').next().unwrap_or_default();
        let fields: Vec<&str> = after.split_whitespace().collect();
        let ticks: f64 = [11, 12].iter().filter_map(|i| fields.get(*i)?.parse::<f64>().ok()).sum();
        ticks / 100.0
    }

    /// Most memory the process ever had, in MiB.
    pub(crate) fn peak_mib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or_default() / 1024.0
    }
}

/// Starts `toolgauge serve` on a folder; gives the process and its two addresses.
pub(crate) fn serve(
    data: &Path,
    environment: &[(&str, &str)],
) -> Result<(Process, SocketAddr, SocketAddr), Box<dyn std::error::Error>> {
    use std::io::{BufRead as _, BufReader};
    let mut child = Command::new(env!("CARGO_BIN_EXE_toolgauge"))
        .args(["serve", "--otlp-grpc", "127.0.0.1:0", "--otlp-http", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data"])
        .arg(data)
        .envs(environment.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()?;
    let out = child.stdout.take().ok_or("no output")?;
    let process = Process(child);
    let mut lines = BufReader::new(out).lines();
    let grpc = lines.next().ok_or("no address")??.split_whitespace().last().ok_or("no address")?.parse()?;
    lines.next().ok_or("no address of OTLP/HTTP")??;
    let http = lines.next().ok_or("no address")??.rsplit('/').next().ok_or("no address")?.parse()?;
    // The last line; a closed pipe would end the server.
    lines.next().ok_or("no data folder")??;
    Ok((process, grpc, http))
}

/// Waits for something to hold.
pub(crate) async fn until(
    patience: Duration,
    what: &str,
    mut holds: impl FnMut() -> Result<bool, Box<dyn std::error::Error>>,
) -> Result<(), Box<dyn std::error::Error>> {
    let began = Instant::now();
    while !holds()? {
        if began.elapsed() > patience {
            return Err(format!("{what}: not within {patience:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}
