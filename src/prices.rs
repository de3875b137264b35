//! Price books as files: read at the start, and again when they have changed.
//!
//! # Guarantees
//! * A file with an error changes nothing: its last good version stays in force, beside the new versions of the others. A server
//!   does not start with a file that was never good: what would be committed without its prices stays without them.
//! * A file that is just being written is left alone: after the first time, a change is taken when it was seen twice.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use toolgauge_analytics::price::{self, Entry, Fault, PriceBook, Severity};

use crate::config::{Config, ConfigError};

/// Largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 8 << 20;

#[derive(Debug, Default)]
struct File {
    /// The text that was seen last, or why there is none.
    seen: Option<Result<String, String>>,
    /// The text that was taken last.
    taken: Option<Result<String, String>>,
    entries: Vec<Entry>,
    faults: Vec<Fault>,
}

/// The files, in their order.
#[derive(Debug)]
pub struct PriceFiles {
    files: Vec<(PathBuf, File)>,
    with_models: bool,
    /// Conventions whose input tokens are without those of caches.
    input_excludes_cache: Vec<String>,
    never_read: bool,
}

/// What the files say.
#[derive(Debug, Clone, Default)]
pub struct PriceSet {
    /// What is in force.
    pub book: PriceBook,
    /// What is wrong with the files.
    pub faults: Vec<Fault>,
}

impl PriceSet {
    /// Files of which not the newest version is in force.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.faults.iter().filter(|fault| fault.severity == Severity::Error).count()
    }
}

impl PriceFiles {
    /// Those that the configuration names, for what its conventions recognise; nothing of them is read yet.
    ///
    /// # Errors
    /// If the conventions cannot be read.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let files = Self::of(config.prices.0.iter().map(PathBuf::from).collect(), config.pricing.models.0);
        let input_excludes_cache = crate::conventions::compile(config)?.input_excludes_cache().to_vec();
        Ok(Self { input_excludes_cache, ..files })
    }

    /// These files, with the table of models after them if that is wanted.
    #[must_use]
    pub fn of(paths: Vec<PathBuf>, with_models: bool) -> Self {
        let files = paths.into_iter().map(|path| (path, File::default())).collect();
        Self { files, with_models, input_excludes_cache: Vec::new(), never_read: true }
    }

    /// Reads them; `None` if nothing has changed since the last time.
    pub fn read(&mut self) -> Option<PriceSet> {
        let is_first = std::mem::take(&mut self.never_read);
        let mut changed = is_first;
        for (path, file) in &mut self.files {
            changed |= file.update(path, is_first);
        }
        changed.then(|| self.set())
    }

    fn set(&self) -> PriceSet {
        let own = PriceBook::new(self.files.iter().map(|(_, file)| file.entries.clone()), false);
        let mut faults: Vec<Fault> = self.files.iter().flat_map(|(_, file)| file.faults.iter().cloned()).collect();
        faults.extend(price::overlaps(own.entries()));
        let book = PriceBook::new([own.entries().to_vec()], self.with_models);
        PriceSet { book: book.input_excludes_cache(&self.input_excludes_cache), faults }
    }
}

impl File {
    /// Whether something else is taken than before.
    fn update(&mut self, path: &Path, is_first: bool) -> bool {
        let text = read_text(path);
        let is_settled = is_first || self.seen.as_ref() == Some(&text);
        self.seen = Some(text.clone());
        if !is_settled || self.taken.as_ref() == Some(&text) {
            return false;
        }
        let name: Arc<str> = Arc::from(path.display().to_string());
        match &text {
            Ok(text) => {
                let parsed = price::parse(&name, text);
                if !parsed.is_broken() {
                    self.entries = parsed.entries;
                }
                self.faults = parsed.faults;
            }
            Err(message) => {
                let (file, message) = (name.to_string(), message.clone());
                let fault = Fault { severity: Severity::Error, file, line: 1, column: 1, key: String::new(), message };
                self.faults = vec![fault];
            }
        }
        self.taken = Some(text);
        true
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|error| format!("the file cannot be read: {error}"))?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("the file is larger than {FILE_BYTES_MAX} bytes (use patterns, or several files)"));
    }
    std::fs::read_to_string(path).map_err(|error| format!("the file cannot be read: {error}"))
}

/// The books as a server starts with them.
///
/// # Errors
/// If any file is broken, with all that is wrong.
pub fn read_at_start(files: &mut PriceFiles) -> Result<PriceSet, ConfigError> {
    // The first time, something has always changed.
    let set = files.read().unwrap_or_default();
    if set.errors() == 0 {
        return Ok(set);
    }
    let errors = set.faults.iter().filter(|fault| fault.severity == Severity::Error);
    let message = errors.map(ToString::to_string).collect::<Vec<_>>().join("\n");
    Err(ConfigError::Invalid { place: "prices".into(), message })
}

/// What is wrong with the price books now; clones share it.
#[derive(Debug, Clone, Default)]
pub struct PriceFaults(Arc<Mutex<Vec<Fault>>>);

impl PriceFaults {
    /// All of it, in the order of the files.
    #[must_use]
    pub fn get(&self) -> Vec<Fault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes it, and logs it.
    pub fn set(&self, faults: &[Fault]) {
        for fault in faults {
            let what = fault.to_string();
            match fault.severity {
                Severity::Error => {
                    tracing::warn!(what, "a price book has an error; its last good version stays in force");
                }
                Severity::Warning => tracing::warn!(what, "look at a price book"),
            }
        }
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = faults.to_vec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, tool: &str) {
        std::fs::write(path, format!("[[price]]\ntool = \"{tool}\"\nper_call = 1\n")).unwrap();
    }

    fn lines(set: &PriceSet) -> Vec<String> {
        set.book.entries().iter().map(|entry| entry.place().0.rsplit('/').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn the_last_good_version_of_a_broken_file_stays_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = ["a.toml", "b.toml"].map(|name| folder.path().join(name));
        write(&a, "x");
        write(&b, "y");
        let mut files = PriceFiles::of(vec![b.clone(), a.clone()], false);
        let set = files.read().unwrap();
        assert_eq!((lines(&set), set.errors()), (vec!["b.toml".to_owned(), "a.toml".to_owned()], 0));
        assert!(files.read().is_none());

        std::fs::write(&a, "[[price]]\ntool = \"x\"\nper_cal = 1\n").unwrap();
        assert!(files.read().is_none(), "it may still be written");
        let set = files.read().unwrap();
        assert_eq!((lines(&set).len(), set.errors()), (2, 1));
        assert!(set.faults[0].to_string().contains("a.toml:3:1: error: `per_cal`: is unknown"), "{}", set.faults[0]);

        std::fs::remove_file(&b).unwrap();
        assert!(files.read().is_none());
        assert_eq!(files.read().map(|set| (lines(&set).len(), set.errors())), Some((2, 2)));
        write(&a, "z");
        write(&b, "*");
        assert!(files.read().is_none());
        let set = files.read().unwrap();
        assert_eq!((set.errors(), set.faults.len()), (0, 1), "one takes the calls of the other: {:?}", set.faults);
    }

    #[test]
    fn a_server_does_not_start_with_a_broken_book() {
        let mut files = PriceFiles::of(vec!["/nowhere/prices.toml".into()], true);
        let error = read_at_start(&mut files).unwrap_err().to_string();
        assert!(error.starts_with("prices: /nowhere/prices.toml:1:1: error: the file cannot be read: "), "{error}");
        let set = read_at_start(&mut PriceFiles::of(Vec::new(), true)).unwrap();
        assert!(set.book.entries().len() > 500);
    }
}
