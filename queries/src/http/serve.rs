//! Connections: a bound on how many, limits on how long, and an orderly end.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// Most connections at a time; further ones wait in the system's queue.
pub const CONNECTIONS_MAX: usize = 256;
/// Longest time for the head of a request, in all.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time that requests in flight get at the end.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(35);
/// Pause after a failed `accept`, when file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Most bytes of a request's head.
const HEAD_BYTES_MAX: usize = 32 << 10;

/// Serves until `shutdown` is done, then lets requests in flight end. Each connection is answered by a router of its own.
pub(super) async fn serve(
    listener: TcpListener,
    router: impl Fn() -> Router,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (stop, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        // Both arms can be dropped at any time: a connection is only taken when its arm is chosen, and a place taken
        // for one that did not come is given back.
        let (stream, place) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = accept(&listener, &places) => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        while connections.try_join_next().is_some() {}
        let (router, stopped) = (router(), stopped.clone());
        connections.spawn(async move {
            let _place = place;
            connection(stream, router, stopped).await;
        });
    }
    drop(listener);
    drop(stop);
    let drained = tokio::time::timeout(DRAIN_TIMEOUT, async { while connections.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!(connections = connections.len(), "requests were cut off at the end");
    }
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

async fn connection(stream: TcpStream, router: Router, mut stopped: watch::Receiver<()>) {
    // Answers are small and whole: do not wait for more to send.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    // The connection is polled on after either arm; dropping a poll of it loses nothing.
    let ended: Result<(), hyper::Error> = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}
