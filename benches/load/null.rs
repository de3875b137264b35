//! A server that reads every export over gRPC and throws it away, in a process of its own.

use std::net::SocketAddr;

use bytes::Bytes;
use tonic::body::Body;
use tonic::codegen::Service;

use super::{Process, RawCodec};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// With this argument, a benchmark is to call [`serve`].
pub(crate) const ARGUMENT: &str = "--null-server";

/// Answers every export without looking at it.
#[derive(Clone)]
struct Null;

impl tonic::server::NamedService for Null {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

impl tonic::server::UnaryService<Bytes> for Null {
    type Response = Bytes;
    type Future = std::future::Ready<Result<tonic::Response<Bytes>, tonic::Status>>;

    fn call(&mut self, _: tonic::Request<Bytes>) -> Self::Future {
        std::future::ready(Ok(tonic::Response::new(Bytes::new())))
    }
}

impl Service<http::Request<Body>> for Null {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(RawCodec).max_decoding_message_size(64 << 20);
            Ok(grpc.unary(Self, request).await)
        })
    }
}

/// Is the server.
pub(crate) async fn serve() -> Fallible<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("null {}", listener.local_addr()?);
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tonic::transport::Server::builder()
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(2 << 20)
        .max_frame_size(256 << 10)
        .add_service(Null)
        .serve_with_incoming(incoming)
        .await?;
    Ok(())
}

/// Starts the server; gives the process and its address.
pub(crate) fn start() -> Fallible<(Process, SocketAddr)> {
    use std::io::{BufRead as _, BufReader};
    let mut child = std::process::Command::new(std::env::current_exe()?)
        .arg(ARGUMENT)
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    let out = child.stdout.take().ok_or("no output")?;
    let process = Process(child);
    let line = BufReader::new(out).lines().next().ok_or("no address")??;
    Ok((process, line.split_whitespace().last().ok_or("no address")?.parse()?))
}
