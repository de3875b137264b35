//! Everything that reads the lake.
//!
//! * [`engine`]: DataFusion, set up to read only and within limits; it knows no words of ours.
//! * [`tables`]: the tables and views of one snapshot of the lake, for the engine.
//! * [`latency`]: the SQL functions of latencies and their histograms.
//! * [`hex`]: the SQL function `hex`, and the rule that lets `hex(id) = '...'` find rows by `id`.
//! * [`report`]: the reports of the API, each from one snapshot.
//! * [`slo`]: service level objectives: OpenSLO documents, and what they count.
//! * [`rules`]: alerts beside those of SLOs: thresholds, budgets of money, heartbeats.
//! * [`evaluate`]: counts and evaluates them as rows come. [`notify`]: delivers alerts to Alertmanagers.
//! * [`webhook`]: notifications of Alertmanagers, on their way into the table `alerts`.
//! * [`http`]: the HTTP API.
//!
//! The crate knows the lake only as [`toolgauge_proto::lake::Lake`]. Every statement is answered from one view, taken
//! when it begins and let go when it ends.

pub mod engine;
pub mod evaluate;
pub mod hex;
pub mod http;
pub mod json;
pub mod latency;
pub mod notify;
pub mod report;
pub mod rules;
pub mod slo;
pub mod tables;
pub mod webhook;
