//! The lines of the OTLP/gRPC specification (1.11.0), one test each.

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics};
use tonic::codec::CompressionEncoding;

use super::*;

#[tokio::test]
async fn full_success_answers_with_partial_success_unset() {
    let served = serve(Settings::default()).await;
    let answer = served.traces().await.export(request(3)).await.expect("taken").into_inner();
    assert_eq!(answer.partial_success, None);
    let raw = served.raw().await.call(TRACES, None, framed(0, &request(3).encode_to_vec())).await;
    assert_eq!((raw.status.code(), raw.message), (Code::Ok, vec![0; 5]));
    assert_eq!(raw.headers["content-type"], "application/grpc");
    assert_eq!(raw.headers["grpc-accept-encoding"], "identity,gzip,zstd");
}

#[tokio::test]
async fn the_sink_gets_the_bytes_as_they_were_sent_with_signal_and_tenant() {
    let served = serve(Settings::default()).await;
    served.traces().await.export(request(3)).await.expect("taken");
    let record = LogRecord { event_name: "x".into(), ..LogRecord::default() };
    let logs = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            scope_logs: vec![ScopeLogs { log_records: vec![record], ..ScopeLogs::default() }],
            ..ResourceLogs::default()
        }],
    };
    let answer = LogsServiceClient::new(served.channel().await).export(logs.clone()).await.expect("taken");
    assert_eq!(answer.into_inner().partial_success, None);
    let taken = served.sink.taken();
    let [traces, records] = &taken[..] else { panic!("two exports, got {taken:?}") };
    assert_eq!((traces.signal, &*traces.tenant), (ExportSignal::Traces, DEFAULT_TENANT));
    assert_eq!(traces.body, request(3).encode_to_vec());
    assert_eq!((records.signal, &records.body[..]), (ExportSignal::Logs, &logs.encode_to_vec()[..]));
}

#[tokio::test]
async fn unknown_fields_are_ignored_and_kept() {
    let served = serve(Settings::default()).await;
    let mut body = request(1).encode_to_vec();
    body.extend([0xF8, 0x3F, 0x2A]); // field 1023, varint
    let raw = served.raw().await.call(TRACES, None, framed(0, &body)).await;
    assert_eq!(raw.status.code(), Code::Ok);
    assert_eq!(served.sink.taken()[0].body, body);
}

#[tokio::test]
async fn an_empty_request_is_answered_with_success() {
    let served = serve_holding(Settings::default()).await;
    let answer = served.traces().await.export(ExportTraceServiceRequest::default()).await.expect("success");
    assert_eq!(answer.into_inner().partial_success, None);
    let raw = served.raw().await.call(TRACES, Some("gzip"), framed(1, &gzip(b""))).await;
    assert_eq!(raw.status.code(), Code::Ok);
    assert_eq!(served.sink.waiting.load(Relaxed), 0, "the sink is not touched");
    assert_eq!(served.counters.empty.load(Relaxed), 2);
}

#[tokio::test]
async fn compression_none_gzip_and_zstd_are_supported_at_any_size() {
    let served = serve(Settings::default()).await;
    for bytes in [10, 3_000, 40_000, 3_000_000, 9_000_000] {
        let request = large_request(bytes);
        let client = served.traces().await;
        for mut client in [
            client.clone(),
            client.clone().send_compressed(CompressionEncoding::Gzip),
            client.clone().send_compressed(CompressionEncoding::Zstd),
        ] {
            client.export(request.clone()).await.expect("taken");
        }
        let expect = request.encode_to_vec();
        let taken = std::mem::take(&mut *served.sink.taken.lock().expect("not poisoned"));
        assert!(taken.len() == 3 && taken.iter().all(|export| export.body == expect), "{bytes}");
    }
    assert_eq!(served.in_flight(), 0);
}

#[tokio::test]
async fn an_unknown_compression_is_unimplemented_and_told_what_is_accepted() {
    let served = serve(Settings::default()).await;
    let raw = served.raw().await.call(TRACES, Some("snappy"), framed(1, b"x")).await;
    assert_eq!(raw.status.code(), Code::Unimplemented);
    assert_eq!(raw.headers["grpc-accept-encoding"], "identity,gzip,zstd");
}

fn assert_too_large(status: &Status) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert_eq!(retry_delay(status), None);
    assert!(status.details().is_empty());
}

#[tokio::test]
async fn the_size_limit_is_resource_exhausted_without_retry_info() {
    let settings = Settings { request_bytes_max: 10_000, ..Settings::default() };
    let served = serve(settings).await;
    let mut client = served.traces().await;
    let overhead = large_request(9_000).encode_to_vec().len() - 9_000;
    client.export(large_request(10_000 - overhead)).await.expect("exactly the limit is taken");
    assert_too_large(&client.export(large_request(10_001 - overhead)).await.expect_err("over the limit"));
    client.export(request(1)).await.expect("the connection goes on");
}

#[tokio::test]
async fn the_size_limit_holds_also_after_decompression() {
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        for limit in [10_000, 3_000_000] {
            let served = serve(Settings { request_bytes_max: limit, ..Settings::default() }).await;
            let mut client = served.traces().await.send_compressed(encoding);
            let overhead = large_request(limit - 100).encode_to_vec().len() - (limit - 100);
            client.export(large_request(limit - overhead)).await.expect("exactly the limit is taken");
            let status = client.export(large_request(limit + 1 - overhead)).await.expect_err("over the limit");
            assert_too_large(&status);
        }
    }
}

#[tokio::test]
async fn sixty_five_mebibytes_are_refused_and_sixty_three_taken_by_default() {
    let served = serve(Settings::default()).await;
    let mut client = served.traces().await;
    assert_too_large(&client.export(large_request(65 << 20)).await.expect_err("over the limit"));
    client.export(large_request(63 << 20)).await.expect("taken");
    let mut client = client.send_compressed(CompressionEncoding::Gzip);
    assert_too_large(&client.export(large_request(65 << 20)).await.expect_err("over the limit"));
}

#[tokio::test]
async fn malformed_protobuf_is_invalid_argument_without_retry_info() {
    let served = serve(Settings::default()).await;
    let raw = served.raw().await.call(TRACES, None, framed(0, &[0x0A, 0x7F, 1])).await;
    assert_eq!((raw.status.code(), retry_delay(&raw.status)), (Code::InvalidArgument, None));
    assert!(!raw.status.message().is_empty());
    assert_eq!(served.counters.refused(FaultKind::Malformed), 1);
    assert!(served.sink.taken().is_empty());
}

#[tokio::test]
async fn overload_is_unavailable_with_retry_info_and_passes() {
    let settings = Settings {
        request_bytes_max: 1 << 20,
        in_flight_bytes_max: 13 << 20,
        admission_timeout: Duration::from_millis(50),
        ..Settings::default()
    };
    let served = serve_holding(settings).await;
    let client = served.traces().await;
    let full = (13 << 20) / ((1 << 20) - 1000 + 8192);
    let mut held: Vec<_> = (0..full)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.export(large_request((1 << 20) - 1000)).await })
        })
        .collect();
    served.until_waiting(full as u64).await;
    let status = client.clone().export(large_request((1 << 20) - 1000)).await.expect_err("no room");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let delay = retry_delay(&status).expect("RetryInfo");
    assert!((750..=1250).contains(&delay.as_millis()), "{delay:?}");
    assert_eq!(served.counters.refused(FaultKind::Overloaded), 1);
    served.sink.leave.add_permits(full + 1);
    for call in held.drain(..) {
        call.await.expect("no panic").expect("taken");
    }
    client.clone().export(large_request((1 << 20) - 1000)).await.expect("there is room again");
    assert_eq!(served.in_flight(), 0);
}

#[tokio::test]
async fn concurrent_calls_are_answered_while_others_wait() {
    let served = serve_holding(Settings::default()).await;
    let client = served.traces().await;
    let calls: Vec<_> = (0..50)
        .map(|n| {
            let mut client = client.clone();
            tokio::spawn(async move { client.export(request(n + 1)).await })
        })
        .collect();
    served.until_waiting(50).await;
    client.clone().export(ExportTraceServiceRequest::default()).await.expect("answered on the same connection");
    served.sink.leave.add_permits(50);
    for call in calls {
        call.await.expect("no panic").expect("taken");
    }
    assert_eq!(served.sink.taken().len(), 50);
}

fn metrics(points: usize) -> ExportMetricsServiceRequest {
    let gauge = Gauge { data_points: vec![NumberDataPoint::default(); points] };
    let metric = Metric { data: Some(Data::Gauge(gauge)), ..Metric::default() };
    let scope_metrics = vec![ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() }];
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics { scope_metrics, ..ResourceMetrics::default() }],
    }
}

#[tokio::test]
async fn partial_success_tells_how_many_data_points_were_rejected_and_why() {
    let served = serve_holding(Settings::default()).await;
    let mut client = MetricsServiceClient::new(served.channel().await);
    let answer = client.export(metrics(7)).await.expect("answered").into_inner();
    let partial = answer.partial_success.expect("partial success");
    assert_eq!(partial.rejected_data_points, 7);
    assert_eq!(partial.error_message, "Toolgauge takes traces and logs; metric points are refused");
    let answer = client.export(metrics(0)).await.expect("answered").into_inner();
    assert_eq!(answer.partial_success, None);
    assert_eq!(served.counters.metric_points_refused.load(Relaxed), 7);
    assert_eq!(served.sink.waiting.load(Relaxed), 0, "the sink is not touched");
}

#[tokio::test]
async fn what_the_sink_refuses_is_unavailable_with_retry_info() {
    let served = serve(Settings::default()).await;
    let mut client = served.traces().await;
    for (refusal, message) in [
        (Refusal::Overloaded { reason: "disk is full".into() }, "overloaded: disk is full"),
        (Refusal::Closed { reason: "a sync failed".into() }, "closed: a sync failed"),
    ] {
        *served.sink.refusal.lock().expect("not poisoned") = Some(refusal);
        let status = client.export(request(1)).await.expect_err("refused");
        assert_eq!((status.code(), status.message()), (Code::Unavailable, message));
        assert!(retry_delay(&status).is_some());
    }
    assert_eq!(served.counters.refused(FaultKind::Closed), 1);
}

#[tokio::test]
async fn a_tenant_over_its_rate_is_resource_exhausted_with_retry_info() {
    let hook: TenantHook = Arc::new(|headers: &HeaderMap| match headers.get("x-tenant") {
        Some(name) => Ok(name.to_str().unwrap_or_default().into()),
        None => Err(Unauthenticated { detail: "x-tenant is missing".into() }),
    });
    let settings = Settings { tenant_bytes_per_second: std::num::NonZeroU64::new(1), ..Settings::default() };
    let served = serve_with(settings, Semaphore::MAX_PERMITS, Some(hook)).await;
    let mut client = served.traces().await;
    let status = client.export(request(1)).await.expect_err("no tenant");
    assert_eq!((status.code(), retry_delay(&status)), (Code::Unauthenticated, None));
    let from = |tenant: &'static str| {
        let mut request = tonic::Request::new(request(100));
        request.metadata_mut().insert("x-tenant", tenant.parse().expect("ascii"));
        request
    };
    client.export(from("a")).await.expect("the first fits");
    let status = client.export(from("a")).await.expect_err("in debt");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(retry_delay(&status).expect("RetryInfo") > Duration::from_secs(10));
    client.export(from("b")).await.expect("another tenant's rate is its own");
    assert_eq!(&*served.sink.taken()[1].tenant, "b");
}
