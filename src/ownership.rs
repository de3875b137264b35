//! The ownership file: read at the start, and again when it has changed.
//!
//! # Guarantees
//! * A file with an error changes nothing: its last good version stays in force, and the log says what is wrong, once. A server
//!   does not start with a file that was never good.
//! * A file that is just being written is left alone: a change is taken when it was seen twice.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use toolgauge_analytics::ownership::Ownership;

use crate::config::{Config, ConfigError};

/// Largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// See the module.
#[derive(Debug)]
pub struct OwnershipFile {
    path: PathBuf,
    /// The text that was seen last, or why there is none.
    seen: Result<String, String>,
    /// The text that was taken last, good or not.
    taken: Result<String, String>,
}

impl OwnershipFile {
    /// The file that the configuration names, if it names one, and what it says.
    ///
    /// # Errors
    /// If the file cannot be read, or is faulty.
    pub fn open(config: &Config) -> Result<Option<(Self, Ownership)>, ConfigError> {
        let Some(path) = &config.ownership else { return Ok(None) };
        let text = read(path);
        match parse(path, &text) {
            Ok(ownership) => Ok(Some((Self { path: path.clone(), seen: text.clone(), taken: text }, ownership))),
            Err(message) => Err(ConfigError::Invalid { place: "ownership".into(), message }),
        }
    }

    /// Looks at the file again: what is to be in force from now on, if that is something else than before.
    pub fn look(&mut self) -> Option<Ownership> {
        let text = read(&self.path);
        let is_settled = self.seen == text;
        self.seen.clone_from(&text);
        if !is_settled || self.taken == text {
            return None;
        }
        let parsed = parse(&self.path, &text);
        self.taken = text;
        match parsed {
            Ok(ownership) => Some(ownership),
            Err(fault) => {
                tracing::error!(fault, "the ownership file is broken; its last good version stays in force");
                None
            }
        }
    }
}

fn read(path: &Path) -> Result<String, String> {
    let unreadable = |error: std::io::Error| format!("the file cannot be read: {error}");
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("the file is larger than {FILE_BYTES_MAX} bytes (write patterns for several tools)"));
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

fn parse(path: &Path, text: &Result<String, String>) -> Result<Ownership, String> {
    let parsed = match text {
        Ok(text) => Ownership::parse(text).map_err(|fault| fault.to_string()),
        Err(message) => Err(message.clone()),
    };
    parsed.map_err(|message| format!("\"{}\", {message}", path.display()))
}

/// Hands over each changed version, until it is aborted.
pub(crate) async fn watch(mut file: OwnershipFile, interval: Duration, put_in_force: impl Fn(Arc<Ownership>) + Send) {
    loop {
        tokio::time::sleep(interval.max(Duration::from_millis(10))).await;
        let looking = move || {
            let found = file.look();
            (file, found)
        };
        let Ok((again, found)) = tokio::task::spawn_blocking(looking).await else { return };
        file = again;
        if let Some(ownership) = found {
            tracing::info!("took the changed ownership file");
            put_in_force(Arc::new(ownership));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_taken_when_it_was_seen_twice_and_a_broken_one_never() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("owners.toml");
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        let team = |ownership: &Ownership| ownership.owner(None, None, None).map(|owner| owner.team.clone());
        let config = Config { ownership: Some(path.clone()), ..Config::default() };
        let error = OwnershipFile::open(&config).unwrap_err().to_string();
        assert!(
            error.starts_with("ownership: \"") && error.contains("owners.toml\", the file cannot be read"),
            "{error}"
        );
        write("[[owner]]\nteam = 7");
        let error = OwnershipFile::open(&config).unwrap_err().to_string();
        assert!(error.ends_with("owners.toml\", line 2: invalid type: integer `7`, expected a string"), "{error}");
        write("[[owner]]\nteam = \"a\"");
        let (mut file, ownership) = OwnershipFile::open(&config).unwrap().unwrap();
        assert_eq!(team(&ownership).as_deref(), Some("a"));
        assert!(file.look().is_none() && file.look().is_none());
        write("[[owner]]\nteam = \"b\"");
        assert!(file.look().is_none(), "it may still be written");
        assert_eq!(team(&file.look().unwrap()).as_deref(), Some("b"));
        write("[[owner]]");
        assert!(file.look().is_none() && file.look().is_none());
        std::fs::remove_file(&path).unwrap();
        assert!(file.look().is_none() && file.look().is_none());
        write("[[owner]]\nteam = \"b\"");
        assert!(file.look().is_none());
        assert_eq!(team(&file.look().unwrap()).as_deref(), Some("b"));
        assert!(OwnershipFile::open(&Config::default()).unwrap().is_none());
    }
}
