//! Every error of the HTTP API is an RFC 9457 problem document.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use toolgauge_proto::api::Problem;

use crate::engine::Error;

/// Seconds after which a client that met an overload may try again.
const RETRY_AFTER_SECONDS: &str = "1";

/// An error on its way out.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    status: StatusCode,
    kind: &'static str,
    detail: String,
}

impl Fault {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, kind: "about:blank", detail: detail.into() }
    }

    pub(super) const fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let status = match error {
            Error::Invalid(_) | Error::NotReadOnly(_) | Error::TooComplex { .. } => StatusCode::BAD_REQUEST,
            Error::Failed(_) | Error::OutOfMemory(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Error::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
            Error::Overloaded(_) => StatusCode::SERVICE_UNAVAILABLE,
            Error::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(%error, "a statement failed inside the server");
        }
        Self { status, kind: error.kind(), detail: error.to_string() }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let problem = Problem {
            problem_type: self.kind.to_owned(),
            title: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.status.as_u16(),
            detail: self.detail,
        };
        let body = serde_json::to_string(&problem).unwrap_or_default();
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
        }
        response
    }
}
