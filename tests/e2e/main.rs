//! The whole system: real clients on real sockets, the program as a process, crashes and bad input.
//!
//! What needs no process of its own runs in this one, through `toolgauge::server::Server`.

#![expect(clippy::unwrap_used, reason = "tests")]

mod cli;
mod corpora;
mod doors;
mod full_disk;
mod kill;
mod load;
mod process;
mod python_sdk;
mod restart;
mod sandbox;
mod strace;
mod traffic;
