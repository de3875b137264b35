//! Accepts connections, not more than allowed, and closes those that do not speak in time or outlive the door.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use super::counters::{OncePerMinute, ReceiverCounters};
use toolgauge_proto::time::Clock;

/// The client's first bytes in HTTP/2, `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`; no head of a request in HTTP/1.1 is shorter.
const PREFACE_BYTES: usize = 24;
/// Pause after an accept that failed: want of file descriptors does not pass within a spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const REFUSED: usize = 0;
const FAILED: usize = 1;

/// What all connections of the doors share.
#[derive(Debug)]
pub(super) struct Gate {
    slots: Arc<Semaphore>,
    counters: Arc<ReceiverCounters>,
    clock: Arc<dyn Clock>,
    log: OncePerMinute<2>,
    handshake_timeout: Duration,
}

impl Gate {
    pub(super) fn new(
        connections_max: usize,
        handshake_timeout: Duration,
        counters: Arc<ReceiverCounters>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(connections_max)),
            counters,
            clock,
            log: OncePerMinute::new(),
            handshake_timeout,
        }
    }

    /// The connections that come in. All of them end when `cut` is cancelled.
    pub(super) fn connections(
        self: Arc<Self>,
        listener: TcpListener,
        cut: CancellationToken,
    ) -> impl Stream<Item = io::Result<Connection>> {
        futures::stream::unfold((self, listener, cut), |(gate, listener, cut)| async move {
            let connection = gate.next(&listener, &cut).await;
            Some((Ok(connection), (gate, listener, cut)))
        })
    }

    /// The next connection. Cancel-safe: one that was accepted is given.
    pub(super) async fn next(&self, listener: &TcpListener, cut: &CancellationToken) -> Connection {
        let (stream, slot) = self.accept(listener).await;
        Connection::new(stream, slot, self, cut)
    }

    async fn accept(&self, listener: &TcpListener) -> (TcpStream, OwnedSemaphorePermit) {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
                        // Answers are small and must not wait for more to send.
                        if let Err(error) = stream.set_nodelay(true) {
                            tracing::debug!(%peer, %error, "set TCP_NODELAY");
                        }
                        return (stream, slot);
                    }
                    self.counters.connections_refused.fetch_add(1, Relaxed);
                    if let Some(others) = self.log.due(REFUSED, self.clock.now()) {
                        tracing::warn!(%peer, others, "connection closed, connections_max are open; others were before");
                    }
                }
                Err(error) => {
                    self.counters.connections_failed.fetch_add(1, Relaxed);
                    if let Some(others) = self.log.due(FAILED, self.clock.now()) {
                        tracing::warn!(%error, others, "connection could not be accepted; others could not before");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// A connection that keeps its place among the allowed ones.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    counters: Arc<ReceiverCounters>,
    /// Until the preface has come: how many bytes of it are missing, and when it is too late.
    opening: Option<(usize, Pin<Box<Sleep>>)>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    _slot: OwnedSemaphorePermit,
}

impl Connection {
    fn new(stream: TcpStream, slot: OwnedSemaphorePermit, gate: &Gate, cut: &CancellationToken) -> Self {
        gate.counters.connections.fetch_add(1, Relaxed);
        Self {
            stream,
            counters: Arc::clone(&gate.counters),
            opening: Some((PREFACE_BYTES, Box::pin(sleep(gate.handshake_timeout)))),
            cut: Box::pin(cut.clone().cancelled_owned()),
            _slot: slot,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.counters.connections.fetch_sub(1, Relaxed);
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.cut.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buf);
        if let Some((missing, alarm)) = &mut self.opening {
            *missing = missing.saturating_sub(buf.filled().len() - before);
            if *missing == 0 {
                self.opening = None;
            } else if read.is_pending() && alarm.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
