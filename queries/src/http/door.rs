//! What answers at the HTTP door: the API, and before there is one, what the start waits for.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::problem::Fault;
use super::{Api, HEALTHY, METRICS_TYPE, router, typed};

/// Says what a start waits for.
type Reason = Arc<dyn Fn() -> String + Send + Sync>;

/// The HTTP door. Until an API is behind it, `/healthz` says that the process lives, `/readyz` what it waits for, and everything else that
/// it has to be asked later. Clones are the same door.
#[derive(Clone)]
pub struct Door {
    starting: Router,
    api: Arc<OnceLock<Router>>,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").field("is_open", &self.api.get().is_some()).finish_non_exhaustive()
    }
}

impl Door {
    /// One without an API; `reason` says what it waits for.
    pub fn starting(reason: impl Fn() -> String + Send + Sync + 'static) -> Self {
        let reason: Reason = Arc::new(reason);
        Self { starting: Router::new().fallback(wait).with_state(reason), api: Arc::default() }
    }

    /// From now on, new connections get to the API. Has no effect a second time.
    pub fn open(&self, api: Arc<Api>) {
        self.api.get_or_init(|| router(api));
    }

    /// What answers the requests of a connection that begins now.
    pub(super) fn router(&self) -> Router {
        self.api.get().unwrap_or(&self.starting).clone()
    }
}

impl From<Arc<Api>> for Door {
    fn from(api: Arc<Api>) -> Self {
        let door = Self::starting(String::new);
        door.open(api);
        door
    }
}

async fn wait(State(reason): State<Reason>, request: Request) -> Response {
    let mut response = match request.uri().path() {
        "/healthz" => typed("text/plain; charset=utf-8", HEALTHY.to_owned()),
        "/metrics" => typed(METRICS_TYPE, "# TYPE toolgauge_ready gauge\ntoolgauge_ready 0\n".to_owned()),
        _ => Fault::new(StatusCode::SERVICE_UNAVAILABLE, reason()).into_response(),
    };
    // The next request may find the API.
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
