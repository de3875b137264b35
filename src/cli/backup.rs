//! `toolgauge backup`.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;
use toolgauge_collector::backup::{Backup, backup};
use toolgauge_collector::fs::real::RealFs;
use toolgauge_queries::json::rfc3339;

use super::Failure;
use crate::config::DEFAULT_DATA;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Data folder of a server, which may run
    #[arg(long, env = "TOOLGAUGE_DATA", default_value = DEFAULT_DATA)]
    data: PathBuf,
    /// Folder that the backup is to be; it must not be there
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// An earlier backup on the same file system: what has not changed since is shared with it
    #[arg(long, value_name = "DIR")]
    previous: Option<PathBuf>,
}

/// Copies a data folder.
pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let Options { data, to, previous } = options;
    let Backup { position, received, files, bytes, shared } =
        backup(&RealFs::private(), data, to, previous.as_deref())?;
    writeln!(
        std::io::stdout(),
        "{}: everything up to position {position}, received {}; {files} files, {shared} of them shared, {:.1} MB copied",
        to.display(),
        rfc3339(received),
        bytes as f64 / 1e6
    )?;
    Ok(())
}
