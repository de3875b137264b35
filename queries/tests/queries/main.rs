//! The crate from outside: SQL and reports over lakes in memory, hostile statements, HTTP over a real socket.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod costs;
mod hostile;
mod http;
mod latency;
mod report;
mod rule_files;
mod slo_counts;
mod slo_figures;
mod slo_files;
mod slo_groups;
mod slo_restarts;
mod slo_weights;
mod slo_world;
mod support;
mod tables;
mod webhook;
