//! The whole system: real clients on real sockets, the program as a process, crashes and bad input.
//!
//! What needs no process of its own runs in this one, through `toolgauge::server::Server`.

#![expect(clippy::unwrap_used, reason = "tests")]

mod accounting;
mod alerts;
mod chains;
mod cli;
mod compaction;
mod corpora;
mod costs;
mod delivery;
mod demo;
mod doors;
mod full_disk;
mod http_door;
mod javascript_sdk;
mod kill;
mod live_agents;
mod load;
mod month;
#[path = "../month/mod.rs"]
mod month_of_a_fleet;
mod operation;
#[path = "../../collector/tests/otlp_json/mod.rs"]
mod otlp_json;
mod ownership;
mod process;
mod python_sdk;
mod recount;
mod restart;
mod sandbox;
mod secrets;
mod series;
mod slo;
mod slo_cli;
mod slo_delivery;
mod slo_groups;
mod slo_world;
mod strace;
mod traffic;
mod why;
