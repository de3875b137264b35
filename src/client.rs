//! A client of the server's HTTP API, for what asks again and again.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use toolgauge_proto::api::{Problem, SqlRequest, SqlResponse, Status, ToolReport, ToolsReport};

/// As long as the server's own limit on queries.
const TIMEOUT: Duration = Duration::from_secs(30);
const ANSWER_BYTES_MAX: u64 = 64 << 20;
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// How long what was acknowledged may take to be visible.
const VISIBLE_TIMEOUT: Duration = Duration::from_secs(60);

/// A question that was not answered.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The server cannot be reached.
    #[error("ask {url} (is a server running there?)")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// Why.
        #[source]
        source: Box<ureq::Error>,
    },
    /// It was refused.
    #[error("{url} was answered: {title}: {detail}")]
    Refused {
        /// What was asked for.
        url: String,
        /// The status.
        status: u16,
        /// The status in words.
        title: String,
        /// Why.
        detail: String,
    },
    /// It was answered with something else.
    #[error("read the answer of {url}")]
    Answer {
        /// What was asked for.
        url: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// What was acknowledged is not visible in time.
    #[error("what was acknowledged is not visible after {VISIBLE_TIMEOUT:?}")]
    Late,
    /// The task that asked ended by a fault of the program.
    #[error("a question ended by a fault of the program")]
    Task(#[from] tokio::task::JoinError),
}

/// The HTTP API of a server.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    agent: ureq::Agent,
    pub(crate) url: String,
}

impl Api {
    /// The API at an address like `http://127.0.0.1:4400`.
    pub(crate) fn new(url: &str) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(TIMEOUT));
        Self { agent: config.build().into(), url: url.trim_end_matches('/').to_owned() }
    }

    async fn ask<T: DeserializeOwned + Send + 'static>(
        &self,
        path: &str,
        body: Option<SqlRequest>,
    ) -> Result<T, ApiError> {
        let (agent, url) = (self.agent.clone(), format!("{}{path}", self.url));
        let ask = move || {
            let unreachable = |source| ApiError::Unreachable { url: url.clone(), source: Box::new(source) };
            let sent = match &body {
                Some(body) => agent.post(&url).send_json(body),
                None => agent.get(&url).call(),
            };
            let mut response = sent.map_err(unreachable)?;
            let text =
                response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string().map_err(unreachable)?;
            if response.status().is_success() {
                return serde_json::from_str(&text).map_err(|source| ApiError::Answer { url, source });
            }
            let (title, detail) = match serde_json::from_str::<Problem>(&text) {
                Ok(problem) => (problem.title, problem.detail),
                Err(_) => (response.status().to_string(), text),
            };
            Err(ApiError::Refused { url, status: response.status().as_u16(), title, detail })
        };
        tokio::task::spawn_blocking(ask).await?
    }

    pub(crate) async fn get<T: DeserializeOwned + Send + 'static>(&self, path: &str) -> Result<T, ApiError> {
        self.ask(path, None).await
    }

    pub(crate) async fn sql(&self, query: &str) -> Result<Vec<Vec<Value>>, ApiError> {
        let answer: SqlResponse = self.ask("/api/v1/sql", Some(SqlRequest { query: query.to_owned() })).await?;
        Ok(answer.rows)
    }

    /// The tools report since this time ago, like `-15m`.
    pub(crate) async fn tools(&self, from: &str) -> Result<Vec<ToolReport>, ApiError> {
        let report: ToolsReport = self.ask(&format!("/api/v1/tools?from={from}"), None).await?;
        Ok(report.tools)
    }

    /// Waits until everything that was acknowledged is in answers.
    pub(crate) async fn until_visible(&self) -> Result<(), ApiError> {
        let acknowledged = self.ask::<Status>("/api/v1/status", None).await?.ingest.wal_synced;
        let look = async {
            while self.ask::<Status>("/api/v1/status", None).await?.ingest.wal_visible < acknowledged {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
            Ok(())
        };
        tokio::time::timeout(VISIBLE_TIMEOUT, look).await.map_err(|_| ApiError::Late)?
    }
}
