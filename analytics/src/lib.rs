//! Toolgauge's arithmetic: what the rows of `calls` mean, and what is counted from them.
//!
//! * [`settle`]: which rows are one call, which attempts are one logical call, which row counts.
//!
//! The crate is pure. No clock, no input or output, no threads: time is an argument, and the same arguments give the
//! same answer. It knows the words of `toolgauge-proto` and nothing else of Toolgauge.

pub mod settle;
