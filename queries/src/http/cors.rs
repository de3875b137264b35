//! Which web pages of other addresses may read the API: the rules of the Fetch standard (CORS), as far as the API needs them.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// How long a browser may remember what it is allowed, in seconds.
const REMEMBER: HeaderValue = HeaderValue::from_static("600");

/// The addresses that web pages may come from; none by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins(Arc<[HeaderValue]>);

/// What is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no origin of web pages (write like \"https://grafana.example.com\", without a path, or \"*\" for any)"
)]
pub struct WrongOrigin(String);

impl Origins {
    /// Of a list; `*` is any.
    ///
    /// # Errors
    /// If one is no origin.
    pub fn parse(origins: &[String]) -> Result<Self, WrongOrigin> {
        let origin = |text: &String| {
            let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
            let fits = text == "*" || host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '?', '#', ' ']));
            let value = HeaderValue::try_from(text.as_str()).ok().filter(|_| fits);
            value.ok_or_else(|| WrongOrigin(text.clone()))
        };
        Ok(Self(origins.iter().map(origin).collect::<Result<_, _>>()?))
    }

    /// What a page from there is told, if it may read.
    fn allow(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        self.0.iter().find(|allowed| *allowed == origin || *allowed == "*").cloned()
    }
}

/// Answers what browsers ask beforehand, and says on every answer who may read it.
pub(super) async fn answer(State(origins): State<Origins>, request: Request, next: Next) -> Response {
    let allowed = request.headers().get(header::ORIGIN).and_then(|origin| origins.allow(origin));
    let Some(allowed) = allowed else { return next.run(request).await };
    let asks =
        request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if asks { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    if asks {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("authorization, content-type"));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, REMEMBER);
    } else {
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("toolgauge-truncated"));
    }
    response
}
