//! Asks a server over HTTP.

use std::net::SocketAddr;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// More than the 10 MB that are read by default: the report of 10,000 SLOs.
const BYTES_MAX: u64 = 256 << 20;

/// What it answers.
pub(crate) fn text(http: SocketAddr, path: &str) -> Fallible<String> {
    let mut answer = ureq::get(format!("http://{http}{path}")).call()?;
    Ok(answer.body_mut().with_config().limit(BYTES_MAX).read_to_string()?)
}

/// The same, as JSON.
pub(crate) fn json(http: SocketAddr, path: &str) -> Fallible<serde_json::Value> {
    Ok(serde_json::from_str(&text(http, path)?)?)
}
