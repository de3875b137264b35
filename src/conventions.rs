//! The user's conventions: every `*.toml` of one folder, in the order of their names.

use std::path::Path;

use toolgauge_collector::recognise::Conventions;

use crate::config::{Config, ConfigError};

/// Most files that are read.
const FILES_MAX: usize = 256;
/// Largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The conventions of the configuration and those that come with Toolgauge.
///
/// # Errors
/// As [`read`].
pub fn compile(config: &Config) -> Result<Conventions, ConfigError> {
    with(&read(config)?)
}

fn with(own: &[(String, String)]) -> Result<Conventions, ConfigError> {
    Conventions::with(own).map_err(|error| invalid(error.to_string()))
}

fn invalid(message: String) -> ConfigError {
    ConfigError::Invalid { place: "recognise.conventions".into(), message }
}

/// Reads the conventions that the configuration names, as (file, text), and checks that they can be used.
///
/// # Errors
/// If the folder or a file cannot be read, or a convention is faulty, with what to write instead.
pub fn read(config: &Config) -> Result<Vec<(String, String)>, ConfigError> {
    let Some(folder) = &config.recognise.conventions else { return Ok(Vec::new()) };
    let fault = |path: &Path, source| ConfigError::Read { path: path.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|source| fault(folder, source))? {
        let path = entry.map_err(|source| fault(folder, source))?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    if files.len() > FILES_MAX {
        return Err(invalid(format!("\"{}\" has more than {FILES_MAX} files", folder.display())));
    }
    let mut own = Vec::with_capacity(files.len());
    for path in files {
        let size = std::fs::metadata(&path).map_err(|source| fault(&path, source))?.len();
        if size > FILE_BYTES_MAX {
            return Err(invalid(format!("\"{}\" is larger than {FILE_BYTES_MAX} bytes", path.display())));
        }
        let text = std::fs::read_to_string(&path).map_err(|source| fault(&path, source))?;
        own.push((path.display().to_string(), text));
    }
    with(&own)?;
    Ok(own)
}
