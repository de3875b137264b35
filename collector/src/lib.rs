//! Everything that takes data in and makes it durable.
//!
//! ```text
//! receiver -> wal (append, sync, acknowledge) -> pipeline: recognise -> dedup -> live rows -> lake
//! ```

pub mod backup;
mod dedup;
mod explain;
pub mod export;
pub mod fs;
pub mod lake;
pub mod live;
pub mod pipeline;
pub mod prices;
pub mod receiver;
pub mod recognise;
mod side_tables;
pub mod wal;
