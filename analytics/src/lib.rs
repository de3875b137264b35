//! Toolgauge's arithmetic: what the rows of `calls` mean, and what is counted from them.
//!
//! * [`settle`]: which rows are one call, which attempts are one logical call, which row counts.
//! * [`series`]: which of them have names of their own in `calls_1m`.
//! * [`hist`], [`rollup`], [`additive`]: latency histograms, the sums per minute of `calls_1m`, and sums of sums.
//! * [`ownership`]: whose tools they are.
//! * [`retries`], [`sampling`]: whether retries are a storm, and what a sample tells of the whole.
//! * [`sli`], [`window`], [`budget`]: what is counted of an SLO, over which minutes, and what it means for the budget.
//! * [`forecast`]: when the budget will be used up.
//! * [`calendar`], [`timeslice`]: periods of a calendar, and slices of time as events.
//! * [`alert`]: when an alert fires and when it ends. [`evidence`]: whether failures are more than chance.
//! * [`threshold`], [`cost_budget`], [`heartbeat`]: what other alerts than those of SLOs are decided by.
//! * [`price`]: what a call costs whose producer does not say.
//!
//! The crate is pure. No clock, no input or output, no threads: time is an argument, and the same arguments give the
//! same answer. It knows the words of `toolgauge-proto` and nothing else of Toolgauge.

pub mod additive;
pub mod alert;
pub mod budget;
pub mod calendar;
pub mod cost_budget;
pub mod evidence;
pub mod forecast;
pub mod heartbeat;
pub mod hist;
pub mod ownership;
pub mod price;
pub mod retries;
pub mod rollup;
pub mod sampling;
pub mod series;
pub mod settle;
pub mod sli;
pub mod threshold;
pub mod timeslice;
pub mod window;
