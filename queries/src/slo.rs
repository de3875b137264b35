//! Service level objectives: OpenSLO v1 documents, and what they count.
//!
//! ```text
//! files --yaml--> trees --shape--> documents --resolve--> definitions --compile--> SLOs in force --counter--> counts by minute
//! ```
//!
//! * [`fault`]: what is wrong with a file, with its place and key.
//! * [`definition`]: one SLO. [`resolve`]: from documents to SLOs.
//! * [`learned`]: SLOs for those who have written none.
//! * [`set`]: the files and folders, read again and again; of a broken file the last good version stays in force.
//! * [`explain`]: what its alerts need to fire. [`backtest`]: what they would have done.
//! * `rules`: the documents of rules, which stand beside them ([`crate::rules`]).
//! * [`counter`]: counts the events of all SLOs in batches of `calls`. [`sql`]: the statements that count the same. [`group`]: the groups of
//!   an SLO that is one for each tool, say.

mod annotations;
pub mod backtest;
pub mod counter;
pub mod definition;
pub mod explain;
pub mod fault;
pub mod group;
pub mod learned;
mod policies;
pub mod resolve;
mod rules;
pub mod set;
mod shape;
pub mod sql;
mod tiers;
mod yaml;
