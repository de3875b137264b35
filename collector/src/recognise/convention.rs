//! Conventions as data: what identifies a call, and where its fields stand.
//!
//! A convention is a TOML file in `conventions/`: rules that are tried in order (the first whose conditions all hold
//! recognises the span or record) and the sources of each field in order of preference. [`Conventions::compile`] turns
//! all of them into one matcher: every attribute key that any rule mentions gets a slot, so that a span's attributes
//! are looked up once, whatever the number of rules.

use hashbrown::HashTable;
use serde::Deserialize;
use toolgauge_proto::call::{Kind, Layer, Signal};
use xxhash_rust::xxh3::xxh3_64;

/// The conventions that come with Toolgauge. More specific ones stand first.
const BUILT_IN: &[&str] =
    &[include_str!("../../conventions/mcp.toml"), include_str!("../../conventions/otel_genai.toml")];

/// Why conventions could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ConventionError {
    /// Not TOML, or not of the form of a convention.
    #[error("convention {number} is not readable (compare it with conventions/otel_genai.toml)")]
    Unreadable {
        /// Which one, from 1.
        number: usize,
        /// What the parser says, with line and column.
        #[source]
        source: toml::de::Error,
    },
    /// A word that is not one of the closed set.
    #[error("convention {convention:?}, rule {rule}: {what} cannot be {word:?} (write one of {allowed})")]
    UnknownWord {
        /// Its name.
        convention: String,
        /// Which rule, from 1.
        rule: usize,
        /// Which key.
        what: &'static str,
        /// What stands there.
        word: String,
        /// What may stand there.
        allowed: String,
    },
    /// More attribute keys than slots.
    #[error("the conventions mention more than {SLOTS_MAX} attribute keys")]
    TooManyKeys,
}

/// Most attribute keys that all conventions together may mention.
pub(crate) const SLOTS_MAX: usize = 1024;

macro_rules! fields {
    ($($(#[$doc:meta])* $field:ident => $name:ident),+ $(,)?) => {
        /// What a rule can say the place of.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(usize)]
        pub(crate) enum Field { $($(#[$doc])* $field),+ }

        /// Number of fields.
        pub(crate) const FIELDS: usize = [$(Field::$field),+].len();

        #[derive(Debug, Clone, Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct RawFields { $(#[serde(default)] $name: Option<Vec<RawSource>>),+ }

        impl RawFields {
            fn get(&self, field: Field) -> Option<&Vec<RawSource>> {
                match field { $(Field::$field => self.$name.as_ref()),+ }
            }
        }

        const ALL_FIELDS: [Field; FIELDS] = [$(Field::$field),+];
    };
}

fields!(
    ToolName => tool_name, ToolType => tool_type, ToolServer => tool_server, AgentName => agent_name,
    SessionId => session_id, UserId => user_id, Team => team, Model => model, CallId => call_id,
    Arguments => arguments, Result => result, ErrorType => error_type, ErrorMessage => error_message,
    StatusCode => status_code, ResendCount => resend_count, Attempt => attempt, AsksRetry => asks_retry,
    FallbackLevel => fallback_level, CircuitState => circuit_state, SideEffect => side_effect,
    InputTokens => input_tokens, OutputTokens => output_tokens, CachedInputTokens => cached_input_tokens,
    ReasoningTokens => reasoning_tokens, InputBytes => input_bytes, OutputBytes => output_bytes,
    CostUsd => cost_usd, DurationMs => duration_ms,
);

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum RawSource {
    Attribute(String),
    NameAfter { span_name_after: String },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConvention {
    name: String,
    #[serde(default)]
    fields: RawFields,
    rule: Vec<RawRule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    kind: String,
    signal: String,
    layer: String,
    all: Vec<RawCondition>,
    #[serde(default)]
    none: Vec<RawCondition>,
    #[serde(default)]
    failed: Vec<RawCondition>,
    #[serde(default)]
    fields: RawFields,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum RawCondition {
    Is(IsCondition),
    SpanKind(SpanKindCondition),
    Status(StatusCondition),
    Event(EventCondition),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct IsCondition {
    key: String,
    is: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SpanKindCondition {
    span_kind: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StatusCondition {
    status: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventCondition {
    event: Vec<String>,
}

/// Where an attribute key's value is kept while a span is looked at.
pub(crate) type Slot = u16;

/// One condition on a span or record.
#[derive(Debug, Clone)]
pub(crate) enum Condition {
    /// The attribute is there and not empty; if words are given, it is one of them.
    Attribute(Slot, Option<Vec<Vec<u8>>>),
    /// The span's kind is one of these (OTLP numbers).
    SpanKind(Vec<i32>),
    /// The span's status is ERROR.
    StatusError,
    /// The log record's event name is one of these.
    Event(Vec<Vec<u8>>),
}

/// Where a field is read.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// An attribute of the span or record, else of its scope, else of its resource.
    Attribute(Slot),
    /// The rest of the span's name after this text.
    NameAfter(Vec<u8>),
}

/// One rule, ready to use.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) convention: String,
    pub(crate) kind: Kind,
    pub(crate) signal: Signal,
    pub(crate) layer: Layer,
    pub(crate) all: Vec<Condition>,
    pub(crate) none: Vec<Condition>,
    pub(crate) failed: Vec<Condition>,
    pub(crate) fields: [Vec<Source>; FIELDS],
    read: ReadBySlot,
}

/// Which fields an attribute may give, so that a record costs as many looks as it has attributes, not as the rule has
/// sources.
#[derive(Debug, Clone, Default)]
struct ReadBySlot {
    /// By slot: which of the reads belong to it.
    ranges: Vec<(u16, u16)>,
    /// Field, and its preference for this source; 0 is the first.
    reads: Vec<(u8, u8)>,
    /// Sources that are not attributes: field, preference.
    others: Vec<(u8, u8)>,
}

impl ReadBySlot {
    fn new(fields: &[Vec<Source>; FIELDS], slots: usize) -> Self {
        let mut by_slot: Vec<Vec<(u8, u8)>> = vec![Vec::new(); slots];
        let mut read = Self::default();
        for (field, sources) in fields.iter().enumerate() {
            for (preference, source) in sources.iter().enumerate().take(usize::from(u8::MAX)) {
                let entry = (field as u8, preference as u8);
                match source {
                    Source::Attribute(slot) => by_slot[usize::from(*slot)].push(entry),
                    Source::NameAfter(_) => read.others.push(entry),
                }
            }
        }
        for reads in by_slot {
            let from = read.reads.len() as u16;
            read.reads.extend(reads);
            read.ranges.push((from, read.reads.len() as u16));
        }
        read
    }
}

impl Rule {
    /// Fields that the attribute of this slot may give, with their preference for it; 0 is the first.
    #[inline]
    pub(crate) fn reads(&self, slot: Slot) -> &[(u8, u8)] {
        let range = self.read.ranges.get(usize::from(slot)).copied().unwrap_or_default();
        &self.read.reads[usize::from(range.0)..usize::from(range.1)]
    }

    /// Fields with a source that is not an attribute, with their preference for it.
    #[inline]
    pub(crate) fn other_reads(&self) -> &[(u8, u8)] {
        &self.read.others
    }
}

/// All conventions, compiled.
#[derive(Debug)]
pub struct Conventions {
    pub(crate) rules: Vec<Rule>,
    keys: Vec<Vec<u8>>,
    index: HashTable<(u64, Slot)>,
    candidates: Candidates,
}

/// Sets of rules, one bit a rule in their order: of a hundred rules only those are tried whose first attribute is there.
#[derive(Debug, Default)]
struct Candidates {
    /// Words of a set.
    words: usize,
    /// One set a slot: the rules whose first attribute condition is on it.
    by_slot: Vec<u64>,
    /// The rules without an attribute condition.
    always: Vec<u64>,
}

impl Candidates {
    fn new(rules: &[Rule], slots: usize) -> Self {
        let words = rules.len().div_ceil(64);
        let mut candidates = Self { words, by_slot: vec![0; slots * words], always: vec![0; words] };
        for (number, rule) in rules.iter().enumerate() {
            let slot = rule.all.iter().find_map(|condition| match condition {
                Condition::Attribute(slot, _) => Some(usize::from(*slot)),
                _ => None,
            });
            let set = match slot {
                Some(slot) => &mut candidates.by_slot[slot * words..(slot + 1) * words],
                None => &mut candidates.always[..],
            };
            set[number / 64] |= 1 << (number % 64);
        }
        candidates
    }
}

impl Conventions {
    /// The rules whose first attribute condition is on one of these slots, and those without such a condition, in
    /// their order.
    #[inline]
    pub(crate) fn candidates(&self, slots: impl Iterator<Item = Slot> + Clone) -> impl Iterator<Item = &Rule> {
        let Candidates { words, by_slot, always } = &self.candidates;
        (0..*words).flat_map(move |word| {
            let sets = slots.clone().filter_map(move |slot| by_slot.get(usize::from(slot) * words + word));
            let mut left = sets.fold(always[word], |all, set| all | set);
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros() as usize)?;
                left &= left - 1;
                self.rules.get(word * 64 + bit)
            })
        })
    }

    /// The conventions that come with Toolgauge.
    ///
    /// # Errors
    /// If one of them is faulty; a test keeps that from happening.
    pub fn built_in() -> Result<Self, ConventionError> {
        Self::compile(BUILT_IN)
    }

    /// Compiles conventions; rules are tried in the order given.
    ///
    /// # Errors
    /// If one cannot be read, with what is wrong and what to write instead.
    pub fn compile(texts: &[&str]) -> Result<Self, ConventionError> {
        let mut compiled =
            Self { rules: Vec::new(), keys: Vec::new(), index: HashTable::new(), candidates: Candidates::default() };
        for (number, text) in texts.iter().enumerate() {
            let raw: RawConvention =
                toml::from_str(text).map_err(|source| ConventionError::Unreadable { number: number + 1, source })?;
            for (rule, raw_rule) in raw.rule.iter().enumerate() {
                compiled.add(&raw, rule + 1, raw_rule)?;
            }
        }
        compiled.candidates = Candidates::new(&compiled.rules, compiled.keys.len());
        Ok(compiled)
    }

    fn add(&mut self, convention: &RawConvention, number: usize, raw: &RawRule) -> Result<(), ConventionError> {
        let unknown = |what, word: &str, allowed: &[&str]| ConventionError::UnknownWord {
            convention: convention.name.clone(),
            rule: number,
            what,
            word: word.to_owned(),
            allowed: allowed.join(", "),
        };
        let mut conditions = |raw: &[RawCondition]| -> Result<Vec<Condition>, ConventionError> {
            raw.iter()
                .map(|condition| {
                    Ok(match condition {
                        RawCondition::Is(IsCondition { key, is }) => {
                            let words =
                                is.as_ref().map(|words| words.iter().map(|word| word.clone().into_bytes()).collect());
                            Condition::Attribute(self.slot_for(key)?, words)
                        }
                        RawCondition::SpanKind(SpanKindCondition { span_kind }) => {
                            let numbers = span_kind.iter().map(|word| {
                                let number = SPAN_KINDS.iter().position(|kind| kind == word);
                                number
                                    .and_then(|number| i32::try_from(number).ok())
                                    .ok_or_else(|| unknown("span_kind", word, SPAN_KINDS))
                            });
                            Condition::SpanKind(numbers.collect::<Result<_, _>>()?)
                        }
                        RawCondition::Status(StatusCondition { status }) if status == "error" => Condition::StatusError,
                        RawCondition::Status(StatusCondition { status }) => {
                            return Err(unknown("status", status, &["error"]));
                        }
                        RawCondition::Event(EventCondition { event }) => {
                            Condition::Event(event.iter().map(|word| word.clone().into_bytes()).collect())
                        }
                    })
                })
                .collect()
        };
        let (all, none, failed) = (conditions(&raw.all)?, conditions(&raw.none)?, conditions(&raw.failed)?);
        let mut fields: [Vec<Source>; FIELDS] = std::array::from_fn(|_| Vec::new());
        for field in ALL_FIELDS {
            let sources = raw.fields.get(field).or_else(|| convention.fields.get(field));
            for source in sources.into_iter().flatten() {
                fields[field as usize].push(match source {
                    RawSource::Attribute(key) => Source::Attribute(self.slot_for(key)?),
                    RawSource::NameAfter { span_name_after } => Source::NameAfter(span_name_after.clone().into_bytes()),
                });
            }
        }
        self.rules.push(Rule {
            convention: convention.name.clone(),
            kind: Kind::from_word(&raw.kind).ok_or_else(|| unknown("kind", &raw.kind, Kind::WORDS))?,
            signal: Signal::from_word(&raw.signal).ok_or_else(|| unknown("signal", &raw.signal, Signal::WORDS))?,
            layer: Layer::from_word(&raw.layer).ok_or_else(|| unknown("layer", &raw.layer, Layer::WORDS))?,
            all,
            none,
            failed,
            read: ReadBySlot::new(&fields, self.keys.len()),
            fields,
        });
        Ok(())
    }

    /// The slot of a key, a new one if need be.
    pub(crate) fn slot_for(&mut self, key: &str) -> Result<Slot, ConventionError> {
        if let Some(slot) = self.slot(key.as_bytes()) {
            return Ok(slot);
        }
        if self.keys.len() >= SLOTS_MAX {
            return Err(ConventionError::TooManyKeys);
        }
        let slot = Slot::try_from(self.keys.len()).map_err(|_| ConventionError::TooManyKeys)?;
        self.keys.push(key.as_bytes().to_vec());
        let hash = xxh3_64(key.as_bytes());
        self.index.insert_unique(hash, (hash, slot), |(hash, _)| *hash);
        Ok(slot)
    }

    /// The slot of a key that some rule mentions.
    #[inline]
    pub(crate) fn slot(&self, key: &[u8]) -> Option<Slot> {
        let hash = xxh3_64(key);
        let found = self.index.find(hash, |(other, slot)| *other == hash && self.keys[usize::from(*slot)] == key);
        found.map(|(_, slot)| *slot)
    }

    /// Number of slots.
    pub(crate) fn slots(&self) -> usize {
        self.keys.len()
    }
}

/// OTLP's `SpanKind`, by number.
const SPAN_KINDS: &[&str] = &["unspecified", "internal", "server", "client", "producer", "consumer"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_conventions_compile() {
        let conventions = Conventions::built_in().unwrap();
        assert!(conventions.rules.len() >= 5);
        assert!(conventions.slot(b"gen_ai.tool.name").is_some());
        assert!(conventions.slot(b"gen_ai.tool.nam").is_none());
    }

    #[test]
    fn faults_are_named_with_their_place_and_remedy() {
        let wrong_kind = "name = \"x\"\n[[rule]]\nkind = \"tol\"\nsignal = \"span\"\nlayer = \"agent\"\nall = []\n";
        let error = Conventions::compile(&[wrong_kind]).unwrap_err().to_string();
        assert_eq!(error, "convention \"x\", rule 1: kind cannot be \"tol\" (write one of tool, model, agent)");
        let wrong_key = "name = \"x\"\nrules = []\n";
        assert!(matches!(Conventions::compile(&[wrong_key]), Err(ConventionError::Unreadable { number: 1, .. })));
    }
}
