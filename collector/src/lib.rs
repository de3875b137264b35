//! Everything that takes data in and makes it durable.
//!
//! ```text
//! receiver -> wal (append, sync, acknowledge) -> pipeline: recognise -> dedup -> live rows -> lake
//! ```

pub mod export;
pub mod fs;
pub mod receiver;
pub mod wal;
