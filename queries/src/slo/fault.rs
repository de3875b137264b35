//! What is wrong with a file: where, at which key, and what to write instead.

use std::fmt;

/// Most faults of one file that are told; further ones are only counted.
pub const FAULTS_MAX: usize = 100;

/// A place in a file, both numbers from 1; columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

impl Place {
    /// The beginning of a file.
    pub const START: Self = Self { line: 1, column: 1 };
}

/// How much a fault matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing of the file comes into force.
    Error,
    /// It is taken, but somebody should look at it.
    Warning,
}

/// Something wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// How much it matters.
    pub severity: Severity,
    /// The file, as it was named.
    pub file: String,
    /// Where in it.
    pub place: Place,
    /// The path of the key, such as `spec.objectives[0].target`; empty for the file as a whole.
    pub key: String,
    /// What is wrong, and what to write instead.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { severity, file, place, key, message } = self;
        let severity = match severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{file}:{}:{}: {severity}: ", place.line, place.column)?;
        if key.is_empty() { f.write_str(message) } else { write!(f, "`{key}`: {message}") }
    }
}

/// The faults of one file, as they are found.
#[derive(Debug)]
pub(super) struct Faults {
    file: String,
    found: Vec<Fault>,
    beyond: usize,
}

impl Faults {
    pub(super) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), found: Vec::new(), beyond: 0 }
    }

    pub(super) fn error(&mut self, place: Place, key: &str, message: impl Into<String>) {
        self.add(Severity::Error, place, key, message.into());
    }

    pub(super) fn warning(&mut self, place: Place, key: &str, message: impl Into<String>) {
        self.add(Severity::Warning, place, key, message.into());
    }

    fn add(&mut self, severity: Severity, place: Place, key: &str, message: String) {
        let fault = Fault { severity, file: self.file.clone(), place, key: key.to_owned(), message };
        // What several refer to is looked at several times.
        if self.found.contains(&fault) {
            return;
        }
        if self.found.len() < FAULTS_MAX {
            self.found.push(fault);
            return;
        }
        self.beyond += 1;
        // Whatever is cut, an error stays an error.
        if severity == Severity::Error && self.found.iter().all(|fault| fault.severity == Severity::Warning) {
            self.found.pop();
            self.found.push(fault);
        }
    }

    pub(super) fn has_errors(&self) -> bool {
        self.found.iter().any(|fault| fault.severity == Severity::Error)
    }

    /// All of them, in the order of the file.
    pub(super) fn finish(mut self) -> Vec<Fault> {
        self.found.sort_by_key(|fault| fault.place);
        if self.beyond > 0 {
            let message = format!("{} more faults are not shown", self.beyond);
            self.found.push(Fault {
                severity: Severity::Warning,
                file: self.file,
                place: Place::START,
                key: String::new(),
                message,
            });
        }
        self.found
    }
}
