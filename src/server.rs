//! The whole system in one process: the collector, its doors, and the queries over it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use toolgauge_analytics::ownership::Ownership;
use toolgauge_collector::fs::real::RealFs;
use toolgauge_collector::pipeline::{Collector, CollectorError};
use toolgauge_collector::prices::Prices;
use toolgauge_collector::receiver::{Checks, Health, Receiver, ServeError, SettingsError};
use toolgauge_collector::wal::WalHandle;
use toolgauge_proto::otlp::{LogsView, TracesView, metric_points};
use toolgauge_proto::time::{Clock, SystemClock};
use toolgauge_queries::engine::Error as QueryError;
use toolgauge_queries::evaluate::{EvaluateSettings, Evaluator};
use toolgauge_queries::http::{Api, Door, Origins, WrongOrigin, serve};
use toolgauge_queries::notify::{Notifier, NotifyError, Targets};
use toolgauge_queries::rules::Rules;

use crate::config::Config;
use crate::metrics;
use crate::ownership::{self, OwnershipFile};
use crate::prices::{PriceFaults, PriceFiles};

/// Why the server could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The data folder cannot be made or used.
    #[error("use the data folder \"{}\"", path.display())]
    Data {
        /// Which folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An address cannot be listened on.
    #[error("listen on {address} for {door} (is another process there? `{flag}` chooses another address)")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// For what.
        door: &'static str,
        /// The flag that sets it.
        flag: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The conventions of the user.
    #[error(transparent)]
    Conventions(#[from] crate::config::ConfigError),
    /// The collector.
    #[error("start the collector")]
    Collector(#[from] CollectorError),
    /// The receiver's settings.
    #[error("set up the OTLP doors")]
    Settings(#[from] SettingsError),
    /// The query engine.
    #[error("set up the queries")]
    Queries(#[from] QueryError),
    /// Who may read the API.
    #[error("setting queries.cors_origins")]
    Origin(#[from] WrongOrigin),
    /// The delivery of alerts.
    #[error("set up the delivery of alerts")]
    Notify(#[from] NotifyError),
    /// A door failed as a whole.
    #[error("serve")]
    Door(#[from] ServeError),
    /// A task panicked.
    #[error("a task ended by a fault of the program")]
    Task(#[from] tokio::task::JoinError),
    /// The collector stopped by itself.
    #[error("the collector stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// Where OTLP/gRPC listens.
    pub otlp_grpc: SocketAddr,
    /// Where OTLP/HTTP listens.
    pub otlp_http: SocketAddr,
    /// Where the HTTP API listens.
    pub http: SocketAddr,
    collector: Option<Collector>,
    evaluator: Option<Arc<Evaluator>>,
    rules: Option<Arc<Rules>>,
    stop_receiver: watch::Sender<bool>,
    receiver: Option<JoinHandle<Result<(), ServeError>>>,
    stop_http: watch::Sender<bool>,
    http_task: Option<JoinHandle<std::io::Result<()>>>,
    prices_task: Option<JoinHandle<()>>,
    ownership_task: Option<JoinHandle<()>>,
}

/// How often it is looked whether the collector still runs.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);

/// How messages are checked at the doors.
const CHECKS: Checks = Checks {
    traces: |body| TracesView::new(body).map(drop).map_err(|malformed| malformed.to_string()),
    logs: |body| LogsView::new(body).map(drop).map_err(|malformed| malformed.to_string()),
    metrics: |body| metric_points(body).map_err(|malformed| malformed.to_string()),
};

async fn listen(address: SocketAddr, door: &'static str, flag: &'static str) -> Result<TcpListener, ServerError> {
    TcpListener::bind(address).await.map_err(|source| ServerError::Listen { address, door, flag, source })
}

fn bound(listener: &TcpListener, configured: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(configured)
}

/// Until it is told to stop; a dropped sender stops as well.
async fn stopped(mut stop: watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

/// Puts changed price books in force, until it is aborted.
async fn watch_prices(mut files: PriceFiles, interval: Duration, prices: Prices, faults: PriceFaults) {
    loop {
        tokio::time::sleep(interval.max(Duration::from_millis(10))).await;
        let reading = move || {
            let set = files.read();
            (files, set)
        };
        let Ok((again, set)) = tokio::task::spawn_blocking(reading).await else { return };
        files = again;
        if let Some(set) = set {
            faults.set(&set.faults);
            tracing::info!(prices = set.book.entries().len(), "took changed price books");
            prices.replace(set.book);
        }
    }
}

impl Server {
    /// Starts everything. The doors for exports answer when the log is replayed; until then their connections wait, and the HTTP API says what
    /// for.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub async fn start(config: &Config) -> Result<Self, ServerError> {
        Self::start_at(config, Arc::new(SystemClock)).await
    }

    /// As [`Server::start`], by another clock than the machine's.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub async fn start_at(config: &Config, clock: Arc<dyn Clock>) -> Result<Self, ServerError> {
        let origins = Origins::parse(&config.queries.cors_origins.0)?;
        let alertmanagers = Targets::parse(&config.alertmanager.0)?;
        let mut price_files = PriceFiles::new(config)?;
        let set = crate::prices::read_at_start(&mut price_files)?;
        let price_faults = PriceFaults::default();
        price_faults.set(&set.faults);
        let ownership_file = OwnershipFile::open(config)?.map(|(file, ownership)| (file, Arc::new(ownership)));
        let grpc_listener = listen(config.otlp_grpc, "OTLP/gRPC", "--otlp-grpc").await?;
        let otlp_http_listener = listen(config.otlp_http, "OTLP/HTTP", "--otlp-http").await?;
        let http_listener = listen(config.http, "the HTTP API", "--http").await?;
        let otlp_grpc = bound(&grpc_listener, config.otlp_grpc);
        let otlp_http = bound(&otlp_http_listener, config.otlp_http);
        let http = bound(&http_listener, config.http);
        std::fs::create_dir_all(&config.data)
            .map_err(|source| ServerError::Data { path: config.data.clone(), source })?;

        let mut settings = config.collector();
        settings.recognise.conventions = crate::conventions::read(config)?;
        settings.prices = Prices::new(set.book);
        let prices = settings.prices.clone();
        let team_of = Arc::clone(&settings.recognise.ownership);
        if let Some((_, ownership)) = &ownership_file {
            team_of.store(Arc::clone(ownership));
        }
        let progress = settings.progress.clone();
        let door = Door::starting(move || progress.to_string());
        // If the start fails, its end tells the door to close.
        let (stop_http, http_stopped) = watch::channel(false);
        let http_task = tokio::spawn(serve(http_listener, door.clone(), origins, stopped(http_stopped)));
        let runtime = tokio::runtime::Handle::current();
        let collector_clock = Arc::clone(&clock);
        let start = move || Collector::start(settings, Arc::new(RealFs::private()), collector_clock, &runtime);
        let collector = tokio::task::spawn_blocking(start).await??;

        let receiver: Arc<Receiver<WalHandle>> =
            Arc::new(Receiver::new(config.receiver(), CHECKS, Arc::new(collector.sink()), Arc::clone(&clock))?);
        let engine = Arc::new(toolgauge_queries::tables::engine(config.engine())?);
        let lake = collector.lake();
        let (metrics_lake, counters) = (Arc::clone(&lake), receiver.counters());
        let text = Box::new(move || metrics::text(&metrics_lake, &counters));
        let (evaluator, rules) = if config.slo.0.is_empty() && !config.alerting.learn_slos.0 {
            (None, None)
        } else {
            let notifier =
                Notifier::start(alertmanagers, config.alerting.timeout.0, &tokio::runtime::Handle::current())?;
            let settings = EvaluateSettings { ownership: Arc::clone(&team_of), ..config.evaluate(http) };
            let parts = || (Arc::clone(&lake), Arc::clone(&engine), Arc::clone(&clock));
            let ((lake, engine, clock), of_rules) = (parts(), parts());
            let evaluator = Evaluator::start(settings.clone(), lake, engine, clock, notifier).await?;
            let (lake, engine, clock) = of_rules;
            let rules = Rules::start(settings, lake, engine, clock, Arc::clone(&evaluator)).await?;
            (Some(evaluator), Some(rules))
        };
        let api = Api::with_slos(lake, engine, clock, text, evaluator.clone(), rules.clone()).await?;
        api.set_explain(collector.explain());
        let ownership_task = ownership_file.map(|(file, ownership)| {
            let api = Arc::clone(&api);
            let put_in_force = move |ownership: Arc<Ownership>| {
                team_of.store(Arc::clone(&ownership));
                api.set_ownership(ownership);
            };
            put_in_force(ownership);
            tokio::spawn(ownership::watch(file, config.alerting.interval.0, put_in_force))
        });

        let (stop_receiver, receiver_stopped) = watch::channel(false);
        let receiver_task = tokio::spawn({
            let receiver = Arc::clone(&receiver);
            async move {
                let (grpc_stopped, http_stopped) = (stopped(receiver_stopped.clone()), stopped(receiver_stopped));
                let grpc = receiver.serve_grpc(grpc_listener, grpc_stopped);
                let (served, ()) = tokio::join!(grpc, receiver.serve_http(otlp_http_listener, http_stopped));
                served
            }
        });
        receiver.set_health(Health::Serving).await;
        // Without files, nothing can change.
        let prices_task = (!config.prices.0.is_empty())
            .then(|| tokio::spawn(watch_prices(price_files, config.pricing.interval.0, prices, price_faults)));
        door.open(api);
        Ok(Self {
            otlp_grpc,
            otlp_http,
            http,
            collector: Some(collector),
            evaluator,
            rules,
            stop_receiver,
            receiver: Some(receiver_task),
            stop_http,
            http_task: Some(http_task),
            prices_task,
            ownership_task,
        })
    }

    /// Waits until the collector has stopped by itself, which it does only on a failure; gives the reason.
    pub async fn failed(&self) -> String {
        loop {
            match &self.collector {
                Some(collector) if !collector.is_stopped() => tokio::time::sleep(WATCH_INTERVAL).await,
                Some(collector) => {
                    return collector.lake().status().not_ready_reason.unwrap_or_else(|| "unknown".into());
                }
                None => return "closed".into(),
            }
        }
    }

    /// Stops in order: takes nothing more, answers what is in flight, syncs the log, ends the threads, and stops
    /// answering questions last.
    ///
    /// # Errors
    /// If a door had failed, or a task had panicked.
    pub async fn stop(mut self) -> Result<(), ServerError> {
        tracing::info!("stopping: answering the requests in flight");
        self.stop_receiver.send_replace(true);
        let receiver = match self.receiver.take() {
            Some(task) => task.await?,
            None => Ok(()),
        };
        if let Some(rules) = self.rules.take() {
            tokio::task::spawn_blocking(move || rules.stop()).await?;
        }
        if let Some(evaluator) = self.evaluator.take() {
            tracing::info!("stopping: writing down what was evaluated");
            let stopping = Arc::clone(&evaluator);
            tokio::task::spawn_blocking(move || stopping.stop()).await?;
            evaluator.notifier().stop().await;
        }
        if let Some(task) = self.prices_task.take() {
            task.abort();
        }
        if let Some(task) = self.ownership_task.take() {
            task.abort();
        }
        tracing::info!("stopping: syncing the log");
        if let Some(collector) = self.collector.take() {
            tokio::task::spawn_blocking(move || collector.close()).await?;
        }
        self.stop_http.send_replace(true);
        if let Some(task) = self.http_task.take() {
            drop(task.await?);
        }
        tracing::info!("stopped");
        receiver.map_err(ServerError::from)
    }
}
