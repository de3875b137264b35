//! The lines of the OTLP/HTTP specification (1.11.0), one test each, over plain sockets.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use opentelemetry_proto::tonic::metrics::v1::{Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic_types::pb;

use super::*;

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";
const EMPTY: &[u8] = b"";

/// One HTTP/1.1 connection.
struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("ascii"))
    }

    fn fault(&self) -> pb::Status {
        assert_eq!(self.header("content-type"), Some(PROTOBUF));
        pb::Status::decode(&self.body[..]).expect("a google.rpc.Status")
    }

    fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some(JSON));
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

impl Client {
    async fn connect(served: &Served) -> Self {
        Self { stream: TcpStream::connect(served.http).await.expect("connect"), read: Vec::new() }
    }

    async fn head(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        self.stream.write_all(head.as_bytes()).await.expect("send");
    }

    async fn send(&mut self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let length = body.len().to_string();
        let headers = [headers, &[("content-length", &length)]].concat();
        self.head("POST", path, &headers).await;
        self.stream.write_all(body).await.expect("send");
        self.answer().await
    }

    /// Reads one answer; panics if the connection ends before it.
    async fn answer(&mut self) -> Answer {
        timeout(LIMIT, self.try_answer()).await.expect("answered in time").expect("an answer")
    }

    async fn more(&mut self) -> Option<()> {
        let mut buffer = [0; 4096];
        let bytes = self.stream.read(&mut buffer).await.ok().filter(|bytes| *bytes > 0)?;
        self.read.extend_from_slice(&buffer[..bytes]);
        Some(())
    }

    async fn try_answer(&mut self) -> Option<Answer> {
        loop {
            let end = loop {
                if let Some(at) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                    break at + 4;
                }
                self.more().await?;
            };
            let head: Vec<u8> = self.read.drain(..end).collect();
            let head = String::from_utf8(head).expect("ascii");
            let mut lines = head.trim_end().split("\r\n");
            let status = lines.next()?.split(' ').nth(1)?.parse().expect("a code");
            let mut headers = HeaderMap::new();
            for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
                let name: ::http::HeaderName = name.parse().expect("a name");
                headers.append(name, value.parse().expect("a value"));
            }
            if status == 100 {
                continue;
            }
            let length = headers.get("content-length").map_or("0", |value| value.to_str().expect("ascii"));
            let length: usize = length.parse().expect("a number");
            while self.read.len() < length {
                self.more().await?;
            }
            return Some(Answer { status, headers, body: self.read.drain(..length).collect() });
        }
    }
}

async fn post(served: &Served, path: &str, kind: &str, body: &[u8]) -> Answer {
    Client::connect(served).await.send(path, &[("content-type", kind)], body).await
}

fn traces_json(name: &str) -> Vec<u8> {
    let span = json!({ "name": name, "spanId": "0101010101010101" });
    json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": [span] }] }] }).to_string().into_bytes()
}

fn zstd(data: &[u8]) -> Vec<u8> {
    zstd::encode_all(data, 3).expect("compresses")
}

#[tokio::test]
async fn full_success_is_200_with_partial_success_unset_in_the_type_of_the_request() {
    let served = serve(Settings::default()).await;
    let answer = post(&served, "/v1/traces", PROTOBUF, &request(3).encode_to_vec()).await;
    assert_eq!((answer.status, answer.header("content-type"), &answer.body[..]), (200, Some(PROTOBUF), EMPTY));
    let answer = post(&served, "/v1/traces", JSON, &traces_json("a")).await;
    assert_eq!((answer.status, answer.json()), (200, json!({})));
    for kind in ["application/json; charset=utf-8", "application/json;charset=UTF-8", "Application/JSON"] {
        assert_eq!(post(&served, "/v1/traces", kind, &traces_json("a")).await.json(), json!({}), "{kind}");
    }
}

#[tokio::test]
async fn the_sink_gets_protobuf_of_the_signal_of_the_path_whatever_was_sent() {
    let served = serve(Settings::default()).await;
    post(&served, "/v1/traces", PROTOBUF, &request(3).encode_to_vec()).await;
    post(&served, "/v1/traces", JSON, &traces_json("execute_tool 0")).await;
    let logs = br#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"eventName":"x"}]}]}]}"#;
    post(&served, "/v1/logs", JSON, logs).await;
    let taken = served.sink.taken();
    let [first, second, third] = &taken[..] else { panic!("three exports, got {taken:?}") };
    assert_eq!((first.signal, &first.body[..]), (ExportSignal::Traces, &request(3).encode_to_vec()[..]));
    assert_eq!((second.signal, &second.body[..]), (ExportSignal::Traces, &request(1).encode_to_vec()[..]));
    let logs = ExportLogsServiceRequest::decode(&third.body[..]).expect("decodes");
    assert_eq!(logs.resource_logs[0].scope_logs[0].log_records[0].event_name, "x");
    assert_eq!((third.signal, &*third.tenant), (ExportSignal::Logs, DEFAULT_TENANT));
}

#[tokio::test]
async fn the_same_json_gives_the_same_bytes() {
    let served = serve(Settings::default()).await;
    for _ in 0..2 {
        post(&served, "/v1/traces", JSON, &traces_json("again")).await;
    }
    let taken = served.sink.taken();
    assert_eq!(taken[0].body, taken[1].body);
}

#[tokio::test]
async fn compression_none_gzip_and_zstd_are_supported_at_any_size() {
    let served = serve(Settings::default()).await;
    for bytes in [10, 3_000, 40_000, 3_000_000, 9_000_000] {
        let expect = large_request(bytes).encode_to_vec();
        let mut client = Client::connect(&served).await;
        for (encoding, body) in [
            (None, expect.clone()),
            (Some("identity"), expect.clone()),
            (Some("gzip"), gzip(&expect)),
            (Some("GZip"), gzip(&expect)),
            (Some("zstd"), zstd(&expect)),
        ] {
            let mut headers = vec![("content-type", PROTOBUF)];
            headers.extend(encoding.map(|encoding| ("content-encoding", encoding)));
            assert_eq!(client.send("/v1/traces", &headers, &body).await.status, 200, "{encoding:?} {bytes}");
        }
        let json = serde_json::to_vec(&json!({ "resourceSpans": [{ "schemaUrl": "x".repeat(bytes) }] })).expect("JSON");
        let headers = [("content-type", JSON), ("content-encoding", "gzip")];
        assert_eq!(client.send("/v1/traces", &headers, &gzip(&json)).await.status, 200, "JSON {bytes}");
        let taken = std::mem::take(&mut *served.sink.taken.lock().expect("not poisoned"));
        assert!(taken.len() == 6 && taken[..5].iter().all(|export| export.body == expect), "{bytes}");
        assert_eq!(
            decode::<ExportTraceServiceRequest>(&taken[5].body).expect("decodes").resource_spans[0].schema_url.len(),
            bytes
        );
    }
    eventually(|| served.in_flight() == 0, || format!("{:?}", served.counters)).await;
}

#[tokio::test]
async fn an_unknown_compression_is_415_and_told_what_is_accepted() {
    let served = serve(Settings::default()).await;
    for encoding in ["snappy", "gzip, zstd"] {
        let headers = [("content-type", PROTOBUF), ("content-encoding", encoding)];
        let answer = Client::connect(&served).await.send("/v1/traces", &headers, b"x").await;
        assert_eq!((answer.status, answer.header("accept-encoding")), (415, Some("gzip, zstd, identity")));
        assert!(answer.fault().message.contains(encoding));
    }
}

#[tokio::test]
async fn an_empty_request_is_answered_with_success() {
    let served = serve_holding(Settings::default()).await;
    for (kind, body) in [(PROTOBUF, EMPTY), (JSON, b"{}"), (JSON, br#"{"resourceSpans":[]}"#)] {
        assert_eq!(post(&served, "/v1/traces", kind, body).await.status, 200);
    }
    assert_eq!(served.counters.empty.load(Relaxed), 3);
    assert_eq!(served.sink.waiting.load(Relaxed), 0, "the sink is not touched");
}

#[tokio::test]
async fn unknown_fields_are_ignored() {
    let served = serve(Settings::default()).await;
    let mut body = request(1).encode_to_vec();
    body.extend([0xF8, 0x3F, 0x2A]); // field 1023, varint
    assert_eq!(post(&served, "/v1/traces", PROTOBUF, &body).await.status, 200);
    assert_eq!(served.sink.taken()[0].body, body);
    let json = br#"{"resourceSpans":[{"newField":[{"a":1}],"scopeSpans":[]}],"other":null}"#;
    assert_eq!(post(&served, "/v1/traces", JSON, json).await.status, 200);
}

#[tokio::test]
async fn what_cannot_be_decoded_is_400_with_a_bad_request_detail_in_the_type_of_the_request() {
    let served = serve(Settings::default()).await;
    let answer = post(&served, "/v1/traces", PROTOBUF, &[0x0A, 0x7F, 1]).await;
    assert_eq!(answer.status, 400);
    let fault = answer.fault();
    assert_eq!((fault.code, fault.details.len()), (Code::InvalidArgument as i32, 1));
    assert_eq!(fault.details[0].type_url, "type.googleapis.com/google.rpc.BadRequest");
    assert!(!fault.message.is_empty());

    let answer = post(&served, "/v1/logs", JSON, b"{\"resourceLogs\":7}").await;
    assert_eq!((answer.status, answer.header("retry-after")), (400, None));
    let fault = answer.json();
    assert_eq!(fault["code"], Code::InvalidArgument as i32);
    assert!(fault["message"].as_str().expect("text").contains("resourceLogs"), "{fault}");
    assert_eq!(fault["details"][0]["@type"], "type.googleapis.com/google.rpc.BadRequest");

    for (encoding, body) in [("gzip", &b"not gzip"[..]), ("zstd", b"not zstd")] {
        let headers = [("content-type", PROTOBUF), ("content-encoding", encoding)];
        let answer = Client::connect(&served).await.send("/v1/traces", &headers, body).await;
        assert_eq!((answer.status, answer.fault().code), (400, Code::Internal as i32), "{encoding}");
    }
    assert!(served.sink.taken().is_empty());
}

#[tokio::test]
async fn the_size_limit_is_413_and_the_connection_goes_on() {
    let served = serve(Settings { request_bytes_max: 100_000, ..Settings::default() }).await;
    let mut client = Client::connect(&served).await;
    let overhead = large_request(90_000).encode_to_vec().len() - 90_000;
    let just = large_request(100_000 - overhead).encode_to_vec();
    let over = large_request(100_001 - overhead).encode_to_vec();
    let send = async |client: &mut Client, encoding, body: &[u8]| {
        client.send("/v1/traces", &[("content-type", PROTOBUF), ("content-encoding", encoding)], body).await
    };
    assert_eq!(send(&mut client, "identity", &just).await.status, 200);
    let answer = send(&mut client, "identity", &over).await;
    assert_eq!((answer.status, answer.header("retry-after")), (413, None));
    assert_eq!((answer.fault().code, answer.fault().details.len()), (Code::ResourceExhausted as i32, 0));
    for (encoding, just, over) in [("gzip", gzip(&just), gzip(&over)), ("zstd", zstd(&just), zstd(&over))] {
        assert_eq!(send(&mut client, encoding, &just).await.status, 200, "{encoding}");
        assert_eq!(send(&mut client, encoding, &over).await.status, 413, "{encoding}");
    }
    assert_eq!(served.counters.refused(FaultKind::TooLarge), 3);
}

/// Scenario: a client that sends 65 MiB without asking reads no answer before it has sent all. Guarantees: it gets 413, not a
/// broken connection, which it would take for a reason to send again.
#[tokio::test]
async fn sixty_five_mebibytes_are_refused_and_sixty_three_taken_by_default() {
    let served = serve(Settings::default()).await;
    let mut client = Client::connect(&served).await;
    let headers = [("content-type", PROTOBUF)];
    assert_eq!(client.send("/v1/traces", &headers, &large_request(65 << 20).encode_to_vec()).await.status, 413);
    assert_eq!(client.send("/v1/traces", &headers, &large_request(63 << 20).encode_to_vec()).await.status, 200);
}

#[tokio::test]
async fn a_body_in_chunks_is_taken_and_limited() {
    let served = serve(Settings { request_bytes_max: 1 << 20, ..Settings::default() }).await;
    let mut client = Client::connect(&served).await;
    for (bytes, expect) in [(0, 200), (900_000, 200), (1_200_000, 413), (10, 200)] {
        client.head("POST", "/v1/traces", &[("content-type", PROTOBUF), ("transfer-encoding", "chunked")]).await;
        let body = if bytes == 0 { Vec::new() } else { large_request(bytes).encode_to_vec() };
        for chunk in body.chunks(50_000) {
            client.stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).await.expect("send");
            client.stream.write_all(chunk).await.expect("send");
            client.stream.write_all(b"\r\n").await.expect("send");
        }
        client.stream.write_all(b"0\r\n\r\n").await.expect("send");
        assert_eq!(client.answer().await.status, expect, "{bytes}");
    }
    assert_eq!(served.sink.taken()[0].body, large_request(900_000).encode_to_vec());
    eventually(|| served.in_flight() == 0, || format!("{:?}", served.counters)).await;
}

#[tokio::test]
async fn a_client_that_asks_first_is_refused_before_it_sends() {
    let served = serve(Settings { request_bytes_max: 1000, ..Settings::default() }).await;
    let mut client = Client::connect(&served).await;
    let headers = [("content-type", PROTOBUF), ("content-length", "5000"), ("expect", "100-continue")];
    client.head("POST", "/v1/traces", &headers).await;
    assert_eq!(client.answer().await.status, 413);
}

#[tokio::test]
async fn overload_is_503_with_retry_after_and_passes() {
    let settings = Settings {
        request_bytes_max: 1 << 20,
        in_flight_bytes_max: 13 << 20,
        admission_timeout: Duration::from_millis(50),
        ..Settings::default()
    };
    let served = serve_holding(settings).await;
    let body = large_request((1 << 20) - 1000).encode_to_vec();
    let full = (13 << 20) / ((1 << 20) - 1000 + 8192);
    let mut held = Vec::new();
    for _ in 0..full {
        let (mut client, body) = (Client::connect(&served).await, body.clone());
        let send = async move { client.send("/v1/traces", &[("content-type", PROTOBUF)], &body).await.status };
        held.push(tokio::spawn(send));
    }
    served.until_waiting(full as u64).await;
    for kind in [PROTOBUF, JSON] {
        let answer = post(&served, "/v1/traces", kind, &body).await;
        assert_eq!(answer.status, 503);
        let seconds: u64 = answer.header("retry-after").expect("Retry-After").parse().expect("seconds");
        assert!((1..=2).contains(&seconds), "{seconds}");
        if kind == PROTOBUF {
            assert_eq!(answer.fault().code, Code::Unavailable as i32);
            assert_eq!(answer.fault().details[0].type_url, "type.googleapis.com/google.rpc.RetryInfo");
        } else {
            assert_eq!(answer.json()["details"][0]["@type"], "type.googleapis.com/google.rpc.RetryInfo");
        }
    }
    // One budget for all doors.
    let status = served.traces().await.export(large_request((1 << 20) - 1000)).await.expect_err("no room");
    assert_eq!(status.code(), Code::Unavailable);
    served.sink.leave.add_permits(full + 1);
    for call in held.drain(..) {
        assert_eq!(call.await.expect("no panic"), 200);
    }
    assert_eq!(post(&served, "/v1/traces", PROTOBUF, &body).await.status, 200);
}

#[tokio::test]
async fn what_the_sink_refuses_is_503_with_retry_after() {
    let served = serve(Settings::default()).await;
    for (refusal, message) in [
        (Refusal::Overloaded { reason: "disk is full".into() }, "overloaded: disk is full"),
        (Refusal::Closed { reason: "a sync failed".into() }, "closed: a sync failed"),
    ] {
        *served.sink.refusal.lock().expect("not poisoned") = Some(refusal);
        let answer = post(&served, "/v1/traces", PROTOBUF, &request(1).encode_to_vec()).await;
        assert_eq!((answer.status, &*answer.fault().message), (503, message));
        assert!(answer.header("retry-after").is_some());
    }
}

#[tokio::test]
async fn a_tenant_over_its_rate_is_429_with_retry_after() {
    let hook: TenantHook = Arc::new(|headers: &HeaderMap| match headers.get("x-tenant") {
        Some(name) => Ok(name.to_str().unwrap_or_default().into()),
        None => Err(Unauthenticated { detail: "x-tenant is missing".into() }),
    });
    let settings = Settings { tenant_bytes_per_second: std::num::NonZeroU64::new(1), ..Settings::default() };
    let served = serve_with(settings, Semaphore::MAX_PERMITS, Some(hook)).await;
    let body = request(100).encode_to_vec();
    let mut client = Client::connect(&served).await;
    let answer = client.send("/v1/traces", &[("content-type", PROTOBUF)], &body).await;
    assert_eq!((answer.status, answer.header("retry-after")), (401, None));
    let mut send =
        async |tenant| client.send("/v1/traces", &[("content-type", PROTOBUF), ("x-tenant", tenant)], &body).await;
    assert_eq!(send("a").await.status, 200);
    let answer = send("a").await;
    assert_eq!((answer.status, answer.fault().code), (429, Code::ResourceExhausted as i32));
    assert!(answer.header("retry-after").expect("Retry-After").parse::<u64>().expect("seconds") > 10);
    assert_eq!(send("b").await.status, 200);
}

fn metrics(points: usize) -> Vec<u8> {
    let gauge = Gauge { data_points: vec![NumberDataPoint::default(); points] };
    let metric = Metric { data: Some(Data::Gauge(gauge)), ..Metric::default() };
    let scope_metrics = vec![ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() }];
    let resource_metrics = vec![ResourceMetrics { scope_metrics, ..ResourceMetrics::default() }];
    ExportMetricsServiceRequest { resource_metrics }.encode_to_vec()
}

#[tokio::test]
async fn partial_success_is_200_and_tells_how_many_data_points_were_rejected_and_why() {
    const WHY: &str = "Toolgauge takes traces and logs; metric points are refused";
    let served = serve_holding(Settings::default()).await;
    let answer = post(&served, "/v1/metrics", PROTOBUF, &metrics(7)).await;
    assert_eq!(answer.status, 200);
    let partial = ExportMetricsServiceResponse::decode(&answer.body[..]).expect("decodes").partial_success;
    let partial = partial.expect("partial success");
    assert_eq!((partial.rejected_data_points, &*partial.error_message), (7, WHY));
    let json = br#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"gauge":{"dataPoints":[{},{}]}}]}]}]}"#;
    let answer = post(&served, "/v1/metrics", JSON, json).await;
    let expect = json!({ "partialSuccess": { "rejectedDataPoints": "2", "errorMessage": WHY } });
    assert_eq!((answer.status, answer.json()), (200, expect));
    assert_eq!(post(&served, "/v1/metrics", PROTOBUF, &metrics(0)).await.body, EMPTY);
    assert_eq!(served.counters.metric_points_refused.load(Relaxed), 9);
    assert_eq!(served.sink.waiting.load(Relaxed), 0, "the sink is not touched");
}

#[tokio::test]
async fn other_paths_methods_and_types_are_404_405_and_415() {
    let served = serve(Settings::default()).await;
    for path in ["/", "/v1/traces/", "/v1development/profiles", "/v1/trace"] {
        let answer = post(&served, path, PROTOBUF, b"x").await;
        assert_eq!((answer.status, answer.fault().code), (404, Code::Unimplemented as i32), "{path}");
    }
    let mut client = Client::connect(&served).await;
    client.head("GET", "/v1/traces", &[]).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    for kind in ["text/plain", "application/x-protobufs", "application/grpc"] {
        let answer = post(&served, "/v1/traces", kind, b"x").await;
        assert_eq!(answer.status, 415, "{kind}");
        assert!(answer.json()["message"].as_str().expect("text").contains(kind));
    }
    assert_eq!(Client::connect(&served).await.send("/v1/traces", &[], b"x").await.status, 415);
    assert_eq!(served.counters.refused(FaultKind::UnknownContentType), 4);
}

#[tokio::test]
async fn connections_are_kept_alive_and_served_side_by_side() {
    let served = serve_holding(Settings::default()).await;
    let calls: Vec<_> = (0..20)
        .map(|n| {
            let address = served.http;
            tokio::spawn(async move {
                let mut client =
                    Client { stream: TcpStream::connect(address).await.expect("connect"), read: Vec::new() };
                for _ in 0..3 {
                    let body = request(n + 1).encode_to_vec();
                    assert_eq!(client.send("/v1/traces", &[("content-type", PROTOBUF)], &body).await.status, 200);
                }
            })
        })
        .collect();
    served.until_waiting(20).await;
    assert_eq!(post(&served, "/v1/traces", JSON, b"{}").await.status, 200, "answered while others wait");
    served.sink.leave.add_permits(60);
    for call in calls {
        call.await.expect("no panic");
    }
    assert_eq!(served.sink.taken().len(), 60);
    eventually(|| served.counters.connections.load(Relaxed) == 0, || format!("{:?}", served.counters)).await;
}

#[tokio::test]
async fn http_2_is_spoken_on_the_same_port() {
    let served = serve(Settings::default()).await;
    let stream = TcpStream::connect(served.http).await.expect("connect");
    let (sender, connection) = h2::client::handshake(stream).await.expect("handshake");
    let task = tokio::spawn(connection);
    for n in 1..=3 {
        let mut sender = sender.clone().ready().await.expect("ready");
        let request_head = Request::post("http://localhost/v1/traces").header("content-type", PROTOBUF);
        let request_head = request_head.body(()).expect("request");
        let (response, mut stream) = sender.send_request(request_head, false).expect("send");
        stream.send_data(request(n).encode_to_vec().into(), true).expect("send");
        let response = timeout(LIMIT, response).await.expect("in time").expect("response");
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(served.sink.taken()[n - 1].body, request(n).encode_to_vec());
    }
    task.abort();
}

#[tokio::test]
async fn a_body_that_stalls_is_503_and_gives_back_its_bytes() {
    let served = serve(Settings { read_timeout: Duration::from_millis(50), ..Settings::default() }).await;
    let mut client = Client::connect(&served).await;
    client.head("POST", "/v1/traces", &[("content-type", PROTOBUF), ("content-length", "100000")]).await;
    client.stream.write_all(&[0; 1000]).await.expect("send");
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.fault().code), (503, Code::DeadlineExceeded as i32));
    eventually(|| served.in_flight() == 0, || format!("{:?}", served.counters)).await;
    assert_eq!(served.counters.refused(FaultKind::Stalled), 1);
}

#[tokio::test]
async fn a_client_that_goes_away_gives_back_its_bytes() {
    let served = serve_holding(Settings::default()).await;
    let mut client = Client::connect(&served).await;
    client.head("POST", "/v1/traces", &[("content-type", PROTOBUF), ("content-length", "1048576")]).await;
    eventually(|| served.in_flight() == (1 << 20) + 8192, || format!("{:?}", served.counters)).await;
    drop(client);
    eventually(|| served.in_flight() == 0, || format!("{:?}", served.counters)).await;
    let mut client = Client::connect(&served).await;
    let body = request(1).encode_to_vec();
    let length = body.len().to_string();
    client.head("POST", "/v1/traces", &[("content-type", PROTOBUF), ("content-length", &length)]).await;
    client.stream.write_all(&body).await.expect("send");
    served.until_waiting(1).await;
    drop(client);
    eventually(|| served.in_flight() == 0, || format!("{:?}", served.counters)).await;
    assert!(served.sink.taken().is_empty());
}

#[tokio::test]
async fn silent_and_idle_connections_are_closed_and_count_among_the_allowed_ones() {
    let settings = Settings {
        handshake_timeout: Duration::from_millis(50),
        idle_timeout: Duration::from_millis(50),
        connections_max: 2,
        ..Settings::default()
    };
    let served = serve(settings).await;
    let mut silent = Client::connect(&served).await;
    let mut slow = Client::connect(&served).await;
    slow.stream.write_all(b"POST /v1/traces HTTP/1.1\r\nhost: a\r\n").await.expect("send");
    for client in [&mut silent, &mut slow] {
        timeout(LIMIT, client.try_answer()).await.expect("closed in time");
    }
    eventually(|| served.counters.connections.load(Relaxed) == 0, || format!("{:?}", served.counters)).await;
    // One limit for all doors.
    let (first, second) = (served.traces().await, served.traces().await);
    for mut client in [first.clone(), second.clone()] {
        client.export(request(1)).await.expect("taken");
    }
    drop(TcpStream::connect(served.http).await.expect("connect"));
    eventually(|| served.counters.connections_refused.load(Relaxed) == 1, || format!("{:?}", served.counters)).await;
    drop((first, second));
}

/// Scenario: shutdown while calls wait for the sink. Guarantees: they are answered, idle connections and the listener are
/// closed at once, and serving ends by itself.
#[tokio::test]
async fn graceful_shutdown_answers_what_is_in_flight() {
    let mut served = serve_holding(Settings::default()).await;
    let mut idle = Client::connect(&served).await;
    assert_eq!(idle.send("/v1/traces", &[("content-type", PROTOBUF)], b"").await.status, 200);
    let mut waiting = Vec::new();
    for _ in 0..5 {
        let mut client = Client::connect(&served).await;
        let body = request(1).encode_to_vec();
        let call = async move { client.send("/v1/traces", &[("content-type", PROTOBUF)], &body).await.status };
        waiting.push(tokio::spawn(call));
    }
    served.until_waiting(5).await;
    drop(served.stop_http.take());
    assert!(timeout(LIMIT, idle.try_answer()).await.expect("closed in time").is_none());
    let began = Instant::now();
    while TcpStream::connect(served.http).await.is_ok() {
        assert!(began.elapsed() < LIMIT, "still accepts");
    }
    assert!(!served.http_task.is_finished());
    served.sink.leave.add_permits(5);
    for call in waiting {
        assert_eq!(call.await.expect("no panic"), 200);
    }
    timeout(LIMIT, served.http_task).await.expect("ends in time").expect("no panic");
}

/// Scenario: the sink never answers. Guarantees: after the drain timeout connections are cut and serving ends.
#[tokio::test]
async fn shutdown_cuts_what_does_not_finish_in_time() {
    let mut served = serve_holding(Settings { drain_timeout: Duration::from_millis(50), ..Settings::default() }).await;
    let mut client = Client::connect(&served).await;
    let body = request(1).encode_to_vec();
    let call = tokio::spawn(async move {
        let length = body.len().to_string();
        client.head("POST", "/v1/traces", &[("content-type", PROTOBUF), ("content-length", &length)]).await;
        client.stream.write_all(&body).await.expect("send");
        client.try_answer().await.is_none()
    });
    served.until_waiting(1).await;
    drop(served.stop_http.take());
    timeout(LIMIT, served.http_task).await.expect("ends in time").expect("no panic");
    assert!(call.await.expect("no panic"), "cut");
    assert_eq!(served.counters.connections.load(Relaxed), 0);
    eventually(|| served.counters.in_flight_bytes.load(Relaxed) == 0, || format!("{:?}", served.counters)).await;
}
