//! Health, and the end of a door.

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::*;

async fn health(served: &Served, service: &str) -> Result<ServingStatus, Status> {
    let request = HealthCheckRequest { service: service.to_owned() };
    let answer = HealthClient::new(served.channel().await).check(request).await?;
    Ok(answer.into_inner().status())
}

#[tokio::test]
async fn health_is_as_the_owner_says() {
    let served = serve(Settings::default()).await;
    let services = [
        "",
        "opentelemetry.proto.collector.trace.v1.TraceService",
        "opentelemetry.proto.collector.logs.v1.LogsService",
    ];
    for (set, expect) in [
        (None, ServingStatus::NotServing),
        (Some(Health::Serving), ServingStatus::Serving),
        (Some(Health::NotServing), ServingStatus::NotServing),
    ] {
        if let Some(set) = set {
            served.receiver.set_health(set).await;
        }
        for service in services {
            assert_eq!(health(&served, service).await.expect("answered"), expect, "{service}");
        }
    }
    assert_eq!(health(&served, "other").await.expect_err("unknown").code(), Code::NotFound);
}

/// Scenario: shutdown while calls wait for the sink and a client watches health. Guarantees: the calls are answered, the
/// listener is closed at once, and serving ends by itself.
#[tokio::test]
async fn graceful_shutdown_answers_what_is_in_flight() {
    let mut served = serve_holding(Settings::default()).await;
    let client = served.traces().await;
    let mut watcher = HealthClient::new(served.channel().await);
    let mut watch = watcher.watch(HealthCheckRequest::default()).await.expect("watches").into_inner();
    let calls: Vec<_> = (0..5)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.export(request(1)).await })
        })
        .collect();
    served.until_waiting(5).await;
    drop(served.shutdown.take());
    let began = Instant::now();
    while TcpStream::connect(served.address).await.is_ok() {
        assert!(began.elapsed() < LIMIT, "still accepts");
    }
    while let Ok(Some(_)) = timeout(LIMIT, watch.message()).await.expect("the watch ends") {}
    assert!(!served.task.is_finished());
    served.sink.leave.add_permits(5);
    for call in calls {
        call.await.expect("no panic").expect("taken");
    }
    drop((client, watcher));
    timeout(LIMIT, served.task).await.expect("ends in time").expect("no panic").expect("served");
}

/// Scenario: the sink never answers. Guarantees: after the drain timeout connections are cut and serving ends.
#[tokio::test]
async fn shutdown_cuts_what_does_not_finish_in_time() {
    let mut served = serve_holding(Settings { drain_timeout: Duration::from_millis(50), ..Settings::default() }).await;
    let mut client = served.traces().await;
    let call = tokio::spawn(async move { client.export(request(1)).await });
    served.until_waiting(1).await;
    drop(served.shutdown.take());
    timeout(LIMIT, served.task).await.expect("ends in time").expect("no panic").expect("served");
    call.await.expect("no panic").expect_err("cut");
    assert_eq!(served.counters.connections.load(Relaxed), 0);
    eventually(|| served.counters.in_flight_bytes.load(Relaxed) == 0, || format!("{:?}", served.counters)).await;
}
