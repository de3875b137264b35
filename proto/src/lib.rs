//! The contracts at Toolgauge's borders.
//!
//! * [`otlp`]: OTLP export requests, read in place from the bytes that arrived.
//! * [`call`] and [`table`]: the words and the schemas of the tables at the waist.
//! * [`lake`]: how readers get one consistent snapshot of every table.
//! * [`explain`]: how they learn what became of the records of a trace.
//! * [`api`]: the JSON that the HTTP API answers with.
//! * [`id`] and [`time`]: identities and instants that cannot be mixed up.
//!
//! The crate depends on nothing else of Toolgauge. It is not a place for helpers.

pub mod api;
pub mod call;
pub mod explain;
pub mod id;
pub mod lake;
pub mod otlp;
pub mod table;
pub mod time;
