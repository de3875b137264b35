//! Who owns which tools: a file that maps services and tools to a team, how critical they are, and a runbook.
//!
//! ```toml
//! [[owner]]
//! service = "checkout-*"
//! tool = "charge_*"
//! team = "payments"
//! criticality = "critical"
//! runbook = "https://runbooks.example/payments"
//! ```
//!
//! `service`, `tool` and `server` are patterns of whole names: `*` is any text, `?` any one character, everything else is itself; case
//! counts. A key that is missing, and `*`, fit also what is not said; any other pattern fits only what is. **The first entry that fits
//! decides.** `team` is required, `criticality` is `critical` or `optional`.

use std::fmt::{self, Write as _};

use regex::Regex;
use serde::Deserialize;

/// Most entries of a file.
pub const OWNERS_MAX: usize = 10_000;
/// Longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 256;

/// How bad it is if a tool fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Criticality {
    /// Users notice.
    Critical,
    /// There is another way.
    Optional,
}

impl Criticality {
    /// Its word in files and in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Optional => "optional",
        }
    }
}

/// Who owns something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The team.
    pub team: String,
    /// How bad it is if it fails, if the file says so.
    pub criticality: Option<Criticality>,
    /// Where it is written what to do then.
    pub runbook: Option<String>,
}

/// The owners of all tools. The default knows none.
#[derive(Debug, Default)]
pub struct Ownership {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    service: Pattern,
    tool: Pattern,
    server: Pattern,
    owner: Owner,
}

/// What a name has to be.
#[derive(Debug)]
enum Pattern {
    /// Anything, also nothing.
    Any,
    Is(String),
    Like(Regex),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    owner: Vec<toml::Spanned<RawOwner>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOwner {
    service: Option<String>,
    tool: Option<String>,
    server: Option<String>,
    team: String,
    criticality: Option<Criticality>,
    runbook: Option<String>,
}

/// What is wrong with a file: line, from 1, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnershipError {
    /// The line.
    pub line: usize,
    message: String,
}

impl fmt::Display for OwnershipError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for OwnershipError {}

impl Ownership {
    /// Reads a file.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, OwnershipError> {
        let line_at = |offset: usize| 1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
        let raw: Raw = toml::from_str(text).map_err(|error| OwnershipError {
            line: line_at(error.span().map_or(0, |span| span.start)),
            message: error.message().replace('\n', " "),
        })?;
        if raw.owner.len() > OWNERS_MAX {
            let message = format!("there are more than {OWNERS_MAX} entries (write patterns for several tools)");
            return Err(OwnershipError { line: line_at(raw.owner[OWNERS_MAX].span().start), message });
        }
        let mut entries = Vec::with_capacity(raw.owner.len());
        for owner in raw.owner {
            let line = line_at(owner.span().start);
            entries.push(Entry::new(owner.into_inner()).map_err(|message| OwnershipError { line, message })?);
        }
        Ok(Self { entries })
    }

    /// Whether nothing is owned.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Who owns a tool of a server as this service calls it; without a tool, the service itself. The first entry that fits.
    #[must_use]
    pub fn owner(&self, service: Option<&str>, server: Option<&str>, tool: Option<&str>) -> Option<&Owner> {
        let fits = |entry: &&Entry| entry.service.fits(service) && entry.server.fits(server) && entry.tool.fits(tool);
        self.entries.iter().find(fits).map(|entry| &entry.owner)
    }
}

impl Entry {
    fn new(raw: RawOwner) -> Result<Self, String> {
        let RawOwner { service, tool, server, team, criticality, runbook } = raw;
        if team.trim().is_empty() || team.len() > PATTERN_BYTES_MAX {
            return Err(format!("team must be a name of at most {PATTERN_BYTES_MAX} bytes, got {team:?}"));
        }
        if let Some(runbook) = &runbook
            && !["https://", "http://"].iter().any(|scheme| runbook.starts_with(scheme))
        {
            return Err(format!(
                "runbook must be an address, got {runbook:?} (write like \"https://runbooks.example/payments\")"
            ));
        }
        let [service, tool, server] = [("service", service), ("tool", tool), ("server", server)]
            .map(|(key, pattern)| Pattern::new(pattern.as_deref()).map_err(|fault| format!("{key} {fault}")));
        let owner = Owner { team, criticality, runbook };
        Ok(Self { service: service?, tool: tool?, server: server?, owner })
    }
}

impl Pattern {
    fn new(text: Option<&str>) -> Result<Self, String> {
        let Some(text) = text.filter(|text| *text != "*") else { return Ok(Self::Any) };
        if text.is_empty() || text.len() > PATTERN_BYTES_MAX {
            return Err(format!(
                "must be a pattern of 1 to {PATTERN_BYTES_MAX} bytes, got {text:?} (leave it out to fit all)"
            ));
        }
        if !text.contains(['*', '?']) {
            return Ok(Self::Is(text.to_owned()));
        }
        let mut expression = String::from("(?s)^");
        for char in text.chars() {
            match char {
                '*' => expression.push_str(".*"),
                '?' => expression.push('.'),
                char => {
                    // Writing to memory does not fail.
                    expression.write_str(&regex::escape(char.encode_utf8(&mut [0; 4]))).unwrap_or_default();
                }
            }
        }
        expression.push('$');
        Regex::new(&expression).map(Self::Like).map_err(|error| format!("{text:?} cannot be used: {error}"))
    }

    fn fits(&self, name: Option<&str>) -> bool {
        match (self, name) {
            (Self::Any, _) => true,
            (Self::Is(text), Some(name)) => text == name,
            (Self::Like(pattern), Some(name)) => pattern.is_match(name),
            (Self::Is(_) | Self::Like(_), None) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
[[owner]]
service = "checkout-*"
tool = "charge_?ard"
team = "payments"
criticality = "critical"
runbook = "https://runbooks.example/payments"

[[owner]]
server = "docs.example:8443"
team = "docs"
criticality = "optional"

[[owner]]
service = "*"
tool = "*"
team = "platform"
"#;

    #[test]
    fn the_first_entry_that_fits_decides() {
        let ownership = Ownership::parse(FILE).unwrap();
        let team = |service, server, tool| ownership.owner(service, server, tool).map(|owner| owner.team.as_str());
        assert_eq!(team(Some("checkout-eu"), None, Some("charge_card")), Some("payments"));
        assert_eq!(team(Some("checkout-"), Some("docs.example:8443"), Some("charge_card")), Some("payments"));
        // Patterns are of whole names, and a dot is a dot.
        assert_eq!(team(Some("my-checkout-eu"), None, Some("charge_card")), Some("platform"));
        assert_eq!(team(Some("checkout-eu"), None, Some("charge_cards")), Some("platform"));
        assert_eq!(team(None, Some("docs.example:8443"), Some("search")), Some("docs"));
        assert_eq!(team(None, Some("docsxexample:8443"), Some("search")), Some("platform"));
        // What is not said fits only what asks for nothing.
        assert_eq!(team(Some("checkout-eu"), None, None), Some("platform"));
        assert_eq!(team(None, None, None), Some("platform"));
        assert!(Ownership::default().owner(Some("a"), None, None).is_none() && Ownership::default().is_empty());
        let payments = ownership.owner(Some("checkout-eu"), None, Some("charge_card")).unwrap();
        assert_eq!(payments.criticality.map(Criticality::as_str), Some("critical"));
        assert_eq!(payments.runbook.as_deref(), Some("https://runbooks.example/payments"));
    }

    #[test]
    fn faults_name_their_line_and_what_to_write() {
        for (text, expected) in [
            ("[[owner]]\nteam = \"\"", "line 1: team must be a name of at most 256 bytes, got \"\""),
            (
                "\n[[owner]]\nteam = \"a\"\nrunbook = \"wiki\"",
                "line 2: runbook must be an address, got \"wiki\" (write like \"https://runbooks.example/payments\")",
            ),
            (
                "[[owner]]\nteam = \"a\"\ntool = \"\"",
                "line 1: tool must be a pattern of 1 to 256 bytes, got \"\" (leave it out to fit all)",
            ),
            ("[[owner]]\nteam = \"a\"\n\n[[owner]]\ntool = \"b\"", "line 4: missing field `team`"),
            (
                "[[owner]]\nteam = \"a\"\ncriticality = \"high\"",
                "line 3: unknown variant `high`, expected `critical` or `optional`",
            ),
            ("[[owners]]\nteam = \"a\"", "line 1: unknown field `owners`, expected `owner`"),
        ] {
            assert_eq!(Ownership::parse(text).unwrap_err().to_string(), expected, "{text}");
        }
        assert!(Ownership::parse("").unwrap().is_empty());
    }
}
