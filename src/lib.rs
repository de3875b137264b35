//! The command line of Toolgauge: reads the configuration and wires the rooms together, nothing else.
//!
//! A library, so that tests start the whole system in their own process.

pub mod cli;
pub mod client;
pub mod config;
pub mod conventions;
pub mod demo;
pub mod loadgen;
pub mod metrics;
pub mod ownership;
pub mod prices;
mod screen;
pub mod server;
pub mod watch;
pub mod why;
