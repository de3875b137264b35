//! The door for notifications of Alertmanagers.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::problem::Fault;
use super::{Api, BODY_TIMEOUT, body_up_to, json_response};
use crate::webhook::WebhookError;

/// Largest notification, in bytes.
const BYTES_MAX: usize = 8 << 20;
/// Most notifications that are read at a time.
pub(super) const READING_MAX: usize = 8;

pub(super) async fn take(State(api): State<Arc<Api>>, body: Body) -> Result<Response, Fault> {
    // An Alertmanager never sends again what is answered 4xx, 429 included.
    let later = |reason: String| Fault::new(StatusCode::SERVICE_UNAVAILABLE, reason);
    let Ok(_place) = api.webhook_places.try_acquire() else {
        return Err(later(format!("{READING_MAX} notifications are being read; send it again")));
    };
    let body = body_up_to(body, BYTES_MAX, "set `max_alerts` in the receiver").await.map_err(|fault| {
        let is_slow = fault.status() == StatusCode::REQUEST_TIMEOUT;
        if is_slow { later(format!("the body did not arrive within {BODY_TIMEOUT:?}; send it again")) } else { fault }
    })?;
    match api.webhook.take(&body).await {
        Ok(taken) => json_response(&taken),
        Err(error @ WebhookError::Invalid(_)) => Err(Fault::bad_request(error.to_string())),
        Err(error @ WebhookError::TooMany(_)) => Err(Fault::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string())),
        Err(error @ WebhookError::Unavailable(_)) => Err(later(error.to_string())),
    }
}
