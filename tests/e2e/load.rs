//! Clients that export all the time, each export unlike all others, and send again what was not acknowledged.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use crate::sandbox::LIMIT;
use crate::traffic::trace;

/// What the clients are told.
#[derive(Clone, Default)]
struct Orders {
    /// Where the server is, if it is.
    address: Option<SocketAddr>,
    /// No export is begun any more; the last one is still brought home.
    stop: bool,
}

/// Running clients.
pub(crate) struct Load {
    orders: watch::Sender<Orders>,
    clients: JoinSet<(u64, u64)>,
    begun: Arc<AtomicU64>,
    acknowledged: Arc<AtomicU64>,
}

impl Load {
    /// So many clients, whose spans begin at `base_ns`.
    pub(crate) fn start(clients: usize, base_ns: u64) -> Self {
        Self::start_each(&vec![u64::MAX; clients], base_ns)
    }

    /// One client for each number of exports, after which it is done.
    pub(crate) fn start_each(exports: &[u64], base_ns: u64) -> Self {
        let orders = watch::Sender::new(Orders::default());
        let (begun, acknowledged) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        for (client, most) in (0..).zip(exports) {
            let client = Client {
                client,
                base_ns,
                most: *most,
                orders: orders.subscribe(),
                begun: Arc::clone(&begun),
                acknowledged: Arc::clone(&acknowledged),
            };
            tasks.spawn(client.run());
        }
        Self { orders, clients: tasks, begun, acknowledged }
    }

    /// The server is here from now on.
    pub(crate) fn point_at(&self, address: SocketAddr) {
        self.orders.send_modify(|orders| orders.address = Some(address));
    }

    /// Exports that were begun, over all clients.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }

    /// Exports that were acknowledged, over all clients.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Lets every client bring its last export home; gives the number of acknowledged exports, of each client.
    pub(crate) async fn finish(self) -> Vec<u64> {
        self.orders.send_modify(|orders| orders.stop = true);
        self.until_done().await
    }

    /// Waits until every client is done; gives the number of acknowledged exports, of each client.
    pub(crate) async fn until_done(mut self) -> Vec<u64> {
        let mut exports = BTreeMap::new();
        let mut before = None;
        loop {
            match tokio::time::timeout(LIMIT, self.clients.join_next()).await {
                Ok(Some(done)) => exports.extend([done.unwrap()]),
                Ok(None) => break,
                // It may take long, but it must go on.
                Err(_) => assert_ne!(
                    before.replace(self.acknowledged()),
                    Some(self.acknowledged()),
                    "nothing is acknowledged"
                ),
            }
        }
        exports.into_values().collect()
    }
}

/// Whom a client talks to.
type Connection = Option<(SocketAddr, TraceServiceClient<Channel>)>;

struct Client {
    client: u64,
    base_ns: u64,
    most: u64,
    orders: watch::Receiver<Orders>,
    begun: Arc<AtomicU64>,
    acknowledged: Arc<AtomicU64>,
}

impl Client {
    async fn run(mut self) -> (u64, u64) {
        let mut number = 0;
        let mut connection = None;
        while number < self.most && !self.orders.borrow().stop {
            self.begun.fetch_add(1, Ordering::SeqCst);
            self.bring_home(number, &mut connection).await;
            self.acknowledged.fetch_add(1, Ordering::SeqCst);
            number += 1;
        }
        (self.client, number)
    }

    /// Sends one export until it is acknowledged.
    async fn bring_home(&mut self, number: u64, connection: &mut Connection) {
        let request = trace(self.client, number, self.base_ns);
        let began = Instant::now();
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        while !self.send(&request, connection).await {
            assert!(began.elapsed() < LIMIT, "not within {LIMIT:?}: an export is acknowledged");
            ticks.tick().await;
        }
    }

    /// Whether it was acknowledged.
    async fn send(&mut self, request: &ExportTraceServiceRequest, connection: &mut Connection) -> bool {
        let Some(address) = self.orders.borrow_and_update().address else { return false };
        if connection.as_ref().is_none_or(|(connected, _)| *connected != address) {
            let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
            let Ok(channel) = endpoint.connect().await else { return false };
            *connection = Some((address, TraceServiceClient::new(channel)));
        }
        let Some((_, client)) = connection.as_mut() else { return false };
        match client.export(request.clone()).await {
            Ok(answer) => {
                assert_eq!(answer.into_inner().partial_success, None);
                true
            }
            Err(status) => {
                // Whatever a dying server or a broken connection gives; never that the export is bad.
                assert_ne!(status.code(), tonic::Code::InvalidArgument, "{status:?}");
                *connection = None;
                false
            }
        }
    }
}
