//! Clients that break the protocol, stall, or send what is not what it says.

use super::*;

async fn code(served: &Served, encoding: Option<&str>, body: Bytes) -> Code {
    let answer = served.raw().await.call(TRACES, encoding, body).await;
    assert_eq!(retry_delay(&answer.status), None);
    answer.status.code()
}

#[tokio::test]
async fn wrongly_framed_and_corrupt_requests_are_internal_and_not_resent() {
    let served = serve(Settings::default()).await;
    let body = request(10).encode_to_vec();
    let whole = framed(0, &body);
    let mut twice = BytesMut::from(&whole[..]);
    twice.extend_from_slice(&whole);
    let zipped = gzip(&body);
    let zstd = zstd::encode_all(&body[..], 3).expect("compresses");
    let mut garbage_after = zipped.clone();
    garbage_after.extend_from_slice(b"garbage");
    let mut flipped = zipped.clone();
    let last = flipped.len() - 6;
    flipped[last] ^= 1;
    for (what, encoding, body) in [
        ("no message", None, Bytes::new()),
        ("half a prefix", None, whole.slice(..3)),
        ("half a body", None, whole.slice(..whole.len() - 1)),
        ("two messages", None, twice.freeze()),
        ("a flag of 2", None, framed(2, &body)),
        ("compressed without an encoding", None, framed(1, &zipped)),
        ("compressed with identity", Some("identity"), framed(1, &zipped)),
        ("not gzip", Some("gzip"), framed(1, &body)),
        ("half of gzip", Some("gzip"), framed(1, &zipped[..zipped.len() / 2])),
        ("gzip with a wrong checksum", Some("gzip"), framed(1, &flipped)),
        ("gzip with more behind it", Some("gzip"), framed(1, &garbage_after)),
        ("not zstd", Some("zstd"), framed(1, &body)),
        ("half of zstd", Some("zstd"), framed(1, &zstd[..zstd.len() - 3])),
    ] {
        assert_eq!(code(&served, encoding, body).await, Code::Internal, "{what}");
    }
    assert!(served.sink.taken().is_empty());
    assert_eq!(served.in_flight(), 0);
}

#[tokio::test]
async fn an_uncompressed_message_may_come_under_an_encoding_and_in_several_compressed_parts() {
    let served = serve(Settings::default()).await;
    let body = request(10).encode_to_vec();
    let (a, b) = body.split_at(body.len() / 2);
    let zstd = |data: &[u8]| zstd::encode_all(data, 3).expect("compresses");
    assert_eq!(code(&served, Some("gzip"), framed(0, &body)).await, Code::Ok);
    assert_eq!(code(&served, Some("gzip"), framed(1, &[gzip(a), gzip(b)].concat())).await, Code::Ok);
    assert_eq!(code(&served, Some("zstd"), framed(1, &[zstd(a), zstd(b)].concat())).await, Code::Ok);
    assert!(served.sink.taken().iter().all(|export| export.body == body));
}

/// Scenario: 1 GiB of zeros in about a MiB, and 128 MiB in a few bytes that announce nothing. Guarantees: refused at the
/// limit, by a code without RetryInfo; nothing stays reserved.
#[tokio::test]
async fn a_decompression_bomb_is_refused_at_the_limit() {
    let served = serve(Settings::default()).await;
    let zeros = vec![0; 8 << 20];
    let gzip = gzip(&zeros).repeat(128);
    let zstd = zstd::encode_all(&zeros[..], 1).expect("compresses").repeat(16);
    assert_eq!(code(&served, Some("gzip"), framed(1, &gzip)).await, Code::ResourceExhausted);
    assert_eq!(code(&served, Some("zstd"), framed(1, &zstd)).await, Code::ResourceExhausted);
    assert_eq!(served.counters.refused(FaultKind::TooLarge), 2);
    assert_eq!(served.in_flight(), 0);
}

#[tokio::test]
async fn a_zstd_window_beyond_the_recommended_limit_is_corrupt() {
    let served = serve(Settings::default()).await;
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("encoder");
    encoder.window_log(27).expect("window");
    encoder.write_all(&request(1).encode_to_vec()).expect("compresses");
    assert_eq!(code(&served, Some("zstd"), framed(1, &encoder.finish().expect("ends"))).await, Code::Internal);
}

#[tokio::test]
async fn a_body_that_stalls_is_deadline_exceeded_and_gives_back_its_bytes() {
    let served = serve(Settings { read_timeout: Duration::from_millis(50), ..Settings::default() }).await;
    let mut raw = served.raw().await;
    let (response, mut stream) = raw.begin(TRACES, None).await;
    stream.send_data(framed(0, &[0; 100_000]).slice(..1000), false).expect("send");
    assert_eq!(answer(response).await.status.code(), Code::DeadlineExceeded);
    eventually(|| served.in_flight() == 0, || format!("{:?}", served.counters)).await;
    assert_eq!(served.counters.refused(FaultKind::Stalled), 1);
}

#[tokio::test]
async fn a_declared_length_reserves_permits_before_the_body_comes() {
    let served = serve(Settings::default()).await;
    let mut raw = served.raw().await;
    let (response, mut stream) = raw.begin(TRACES, None).await;
    stream.send_data(Bytes::from_static(&[0, 0, 16, 0, 0]), false).expect("send");
    eventually(|| served.in_flight() == (1 << 20) + 8192, || format!("{:?}", served.counters)).await;
    stream.send_reset(h2::Reason::CANCEL);
    drop(response);
    eventually(|| served.in_flight() == 0, || format!("{:?}", served.counters)).await;
}

#[tokio::test]
async fn a_cancelled_client_gives_back_its_bytes_while_the_sink_still_waits() {
    let served = serve_holding(Settings::default()).await;
    let mut client = served.traces().await;
    let call = tokio::spawn(async move { client.export(large_request(100_000)).await });
    served.until_waiting(1).await;
    assert!(served.in_flight() > 100_000);
    call.abort();
    eventually(|| served.in_flight() == 0, || format!("{:?}", served.counters)).await;
    assert_eq!(served.counters.cancelled.load(Relaxed), 1);
}

#[tokio::test]
async fn other_methods_and_services_are_unimplemented() {
    let served = serve(Settings::default()).await;
    for path in [
        "/opentelemetry.proto.collector.trace.v1.TraceService/Other",
        "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export",
    ] {
        let answer = served.raw().await.call(path, None, framed(0, b"")).await;
        assert_eq!(answer.status.code(), Code::Unimplemented, "{path}");
    }
}

#[tokio::test]
async fn what_is_not_grpc_is_answered_in_http() {
    let served = serve(Settings::default()).await;
    for (method, kind, expect) in
        [("POST", "application/json", 415), ("POST", "application/grpcx", 415), ("GET", "application/grpc", 405)]
    {
        let request = Request::builder().method(method).uri(format!("http://localhost{TRACES}"));
        let request = request.header("content-type", kind).body(()).expect("request");
        let raw = served.raw().await;
        let mut sender = raw.sender.ready().await.expect("ready");
        let (response, _) = sender.send_request(request, true).expect("send");
        let response = timeout(LIMIT, response).await.expect("in time").expect("response");
        assert_eq!(response.status().as_u16(), expect);
        raw.task.abort();
    }
}

#[tokio::test]
async fn a_connection_that_never_speaks_is_closed() {
    use tokio::io::AsyncReadExt;
    let served = serve(Settings { handshake_timeout: Duration::from_millis(50), ..Settings::default() }).await;
    let mut silent = TcpStream::connect(served.address).await.expect("connect");
    let mut rest = Vec::new();
    // Ends with or without an error, but ends.
    drop(timeout(LIMIT, silent.read_to_end(&mut rest)).await.expect("closed in time"));
    eventually(|| served.counters.connections.load(Relaxed) == 0, || format!("{:?}", served.counters)).await;
    served.traces().await.export(request(1)).await.expect("others are served");
}

#[tokio::test]
async fn connections_over_the_limit_are_closed_and_their_places_given_back() {
    let served = serve(Settings { connections_max: 2, ..Settings::default() }).await;
    let (first, second) = (served.traces().await, served.traces().await);
    second.clone().export(request(1)).await.expect("taken");
    drop(TcpStream::connect(served.address).await.expect("connect"));
    eventually(|| served.counters.connections_refused.load(Relaxed) == 1, || format!("{:?}", served.counters)).await;
    drop(second);
    eventually(|| served.counters.connections.load(Relaxed) == 1, || format!("{:?}", served.counters)).await;
    served.traces().await.export(request(1)).await.expect("taken");
    first.clone().export(request(1)).await.expect("taken");
}
