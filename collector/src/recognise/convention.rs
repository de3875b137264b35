//! Conventions as data: what identifies a call, and where its fields stand.
//!
//! A convention is a TOML file ([`super::format`]; those that come with Toolgauge are in `conventions/`): rules that
//! are tried in order (the first whose conditions all hold recognises the span or record) and the sources of each field
//! in order of preference. [`Conventions::compile`] turns all of them into one matcher: every attribute key that any
//! rule mentions gets a slot, so that a span's attributes are looked up once, whatever the number of rules.
//!
//! `docs/conventions.md` is the reference for whoever writes one.

use hashbrown::HashTable;
use serde::Deserialize as _;
use toolgauge_proto::call::{ErrorClass, Kind, Layer};
use xxhash_rust::xxh3::xxh3_64;

pub(crate) use super::format::{ALL_FIELDS, FIELDS, Field};
use super::format::{RawClass, RawCondition, RawConvention, RawRule, RawSource, RawSourceTable};

macro_rules! built_in {
    ($($name:literal),+ $(,)?) => {
        /// The conventions that come with Toolgauge, by name. More specific ones stand first.
        const BUILT_IN: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../conventions/", $name, ".toml")))),+];
    };
}

built_in!(
    "claude_code",
    "codex_cli",
    "gemini_cli",
    "langsmith",
    "vercel_ai",
    "openinference",
    "openllmetry",
    "google_adk",
    "strands",
    "pydantic_ai",
    "mcp",
    "otel_genai",
);

/// Most attribute keys that all conventions together may mention.
pub(crate) const SLOTS_MAX: usize = 1024;
/// Most rules of all conventions together.
const RULES_MAX: usize = 1024;
/// Deepest nesting of `any` and `all`.
const ANY_DEPTH_MAX: usize = 4;
/// Deepest path into a JSON text.
const PATH_MAX: usize = 8;

/// Why conventions could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ConventionError {
    /// Not TOML, or not of the form of a convention.
    #[error("convention {place}: {message}")]
    Unreadable {
        /// The file.
        place: String,
        /// What the parser says, with line and column.
        message: String,
    },
    /// A rule that says something impossible.
    #[error("convention {place}, {at}: {message}")]
    Invalid {
        /// The file.
        place: String,
        /// Which rule and key.
        at: String,
        /// What is wrong, and what to write instead.
        message: String,
    },
    /// More attribute keys than slots.
    #[error("the conventions mention more than {SLOTS_MAX} attribute keys")]
    TooManyKeys,
    /// More rules than are worth trying.
    #[error("the conventions have more than {RULES_MAX} rules")]
    TooManyRules,
}

/// What a rule looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Looks {
    /// A span.
    Span,
    /// A log record.
    Log,
    /// An event of a span, which tells of a call as a log record would.
    SpanEvent,
}

const LOOKS: [(&str, Looks); 3] = [("span", Looks::Span), ("log", Looks::Log), ("span_event", Looks::SpanEvent)];

/// Where an attribute key's value is kept while a span is looked at.
pub(crate) type Slot = u16;

/// What a text has to be.
#[derive(Debug, Clone)]
pub(crate) enum Test {
    /// There, and not empty.
    Present,
    /// One of these, whatever the case of its letters.
    Is(Vec<Vec<u8>>),
    /// There, and none of these.
    IsNot(Vec<Vec<u8>>),
    /// Beginning with one of these, whatever the case of its letters.
    StartsWith(Vec<Vec<u8>>),
    /// A number, at least this one.
    AtLeast(f64),
}

/// One condition on a span or record.
#[derive(Debug, Clone)]
pub(crate) enum Condition {
    /// On an attribute, or on what stands at a path of the JSON in it.
    Attribute(Slot, Vec<Vec<u8>>, Test),
    /// The span's kind is one of these (OTLP numbers).
    SpanKind(Vec<i32>),
    /// On the span's name.
    SpanName(Test),
    /// The span's status is this one, of [`STATUSES`].
    Status(i32),
    /// The span has an event of such a name.
    SpanEvent(Test),
    /// On the name of the event: the attribute `event.name`, the record's own field, or its body.
    Event(Test),
    /// On the name of the instrumentation scope.
    Scope(Test),
    /// One of them holds.
    Any(Vec<Condition>),
    /// All of them hold.
    All(Vec<Condition>),
}

/// Where a field is read.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// An attribute of the span or record, else of its scope, else of its resource.
    Attribute(Slot),
    /// Something made of an attribute.
    Derived(Box<Derived>),
    /// The rest of the span's name after this text, up to the next; all of it after nothing.
    NameAfter(Vec<u8>, Vec<u8>),
    /// The same for every record.
    Value(Vec<u8>),
}

/// How a value is made of an attribute; the steps in their order.
#[derive(Debug, Clone)]
pub(crate) struct Derived {
    pub(crate) slot: Slot,
    /// What stands at this path of the JSON in it.
    pub(crate) path: Vec<Vec<u8>>,
    /// What follows this text, up to the next quote, comma, bracket or space.
    pub(crate) after: Vec<u8>,
    /// These say nothing.
    pub(crate) not: Vec<Vec<u8>>,
    /// Added to a number.
    pub(crate) add: i64,
    /// A number is multiplied by ten to this.
    pub(crate) exponent: i32,
}

/// One rule, ready to use.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) convention: String,
    /// Its name, or its number.
    pub(crate) name: String,
    /// `None`: what it recognises is no call.
    pub(crate) kind: Option<Kind>,
    pub(crate) looks: Looks,
    pub(crate) layer: Layer,
    pub(crate) all: Vec<Condition>,
    pub(crate) none: Vec<Condition>,
    pub(crate) failed: Vec<Condition>,
    pub(crate) classes: Vec<(Condition, ErrorClass)>,
    pub(crate) fields: [Vec<Source>; FIELDS],
    pub(crate) related_by_session: bool,
    pub(crate) asked: bool,
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
    /// Sources that are not attributes as they are: field, preference.
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
                    Source::Derived(_) | Source::NameAfter(..) | Source::Value(_) => read.others.push(entry),
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

    /// Fields with a source that is not an attribute as it is, with their preference for it.
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
    looks_at_span_events: bool,
    input_excludes_cache: Vec<String>,
}

/// Sets of rules, one bit a rule in their order: of a hundred rules only those are tried whose first attribute is there.
#[derive(Debug, Default)]
struct Candidates {
    /// Words of a set.
    words: usize,
    /// One set a slot: the rules whose first attribute condition is on it.
    by_slot: Vec<u64>,
    /// The rules without an attribute condition, by what they look at.
    always: [Vec<u64>; LOOKS.len()],
}

impl Candidates {
    fn new(rules: &[Rule], slots: usize) -> Self {
        let words = rules.len().div_ceil(64);
        let always = std::array::from_fn(|_| vec![0; words]);
        let mut candidates = Self { words, by_slot: vec![0; slots * words], always };
        for (number, rule) in rules.iter().enumerate() {
            let (word, bit) = (number / 64, 1 << (number % 64));
            match rule.all.iter().find_map(slots_of) {
                Some(slots) => {
                    for slot in slots {
                        candidates.by_slot[usize::from(slot) * words + word] |= bit;
                    }
                }
                None => candidates.always[rule.looks as usize][word] |= bit,
            }
        }
        candidates
    }
}

/// The slots of which one is filled if the condition holds; `None` if that cannot be said.
fn slots_of(condition: &Condition) -> Option<Vec<Slot>> {
    match condition {
        Condition::Attribute(slot, ..) => Some(vec![*slot]),
        Condition::Any(conditions) => {
            let slots: Option<Vec<Vec<Slot>>> = conditions.iter().map(slots_of).collect();
            slots.map(|slots| slots.concat())
        }
        Condition::All(conditions) => conditions.iter().find_map(slots_of),
        _ => None,
    }
}

impl Conventions {
    /// The rules whose first attribute condition is on one of these slots, and those without such a condition, in
    /// their order.
    #[inline]
    pub(crate) fn candidates(
        &self,
        looks: Looks,
        slots: impl Iterator<Item = Slot> + Clone,
    ) -> impl Iterator<Item = &Rule> {
        let Candidates { words, by_slot, always } = &self.candidates;
        let always = &always[looks as usize];
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
        Self::with(&[])
    }

    /// Conventions of the user, as (place, text), before those that come with Toolgauge. One that has the name of
    /// one of those takes its place.
    ///
    /// # Errors
    /// If one cannot be read, with what is wrong and what to write instead.
    pub fn with(own: &[(String, String)]) -> Result<Self, ConventionError> {
        let mut texts: Vec<(&str, &str)> = own.iter().map(|(place, text)| (&**place, &**text)).collect();
        let names: Vec<String> = own.iter().filter_map(|(place, text)| Some(read(place, text).ok()?.name)).collect();
        texts.extend(BUILT_IN.iter().filter(|(name, _)| !names.iter().any(|own| own == name)));
        Self::compile(&texts)
    }

    /// Compiles conventions, as (place, text); rules are tried in the order given.
    ///
    /// # Errors
    /// If one cannot be read, with what is wrong and what to write instead.
    pub fn compile(texts: &[(&str, &str)]) -> Result<Self, ConventionError> {
        let mut compiled = Self {
            rules: Vec::new(),
            keys: Vec::new(),
            index: HashTable::new(),
            candidates: Candidates::default(),
            looks_at_span_events: false,
            input_excludes_cache: Vec::new(),
        };
        let raws: Vec<RawConvention> = texts.iter().map(|(place, text)| read(place, text)).collect::<Result<_, _>>()?;
        for (raw, (place, _)) in raws.iter().zip(texts) {
            if raws.iter().filter(|other| other.name == raw.name).count() > 1 {
                return Err(invalid(
                    place,
                    "name",
                    format!("there are two conventions {:?} (give one another name)", raw.name),
                ));
            }
            let mut inherited = vec![raw];
            let mut from = &raw.fields_from;
            while let Some(name) = from {
                let base = raws.iter().find(|base| base.name == *name).filter(|_| inherited.len() <= raws.len());
                let Some(base) = base else {
                    let names: Vec<&str> = raws.iter().map(|raw| &*raw.name).collect();
                    let message = format!("{name:?} is no other convention (write one of {})", names.join(", "));
                    return Err(invalid(place, "fields_from", message));
                };
                inherited.push(base);
                from = &base.fields_from;
            }
            if inherited.iter().find_map(|raw| raw.input_excludes_cache) == Some(true) {
                compiled.input_excludes_cache.push(raw.name.clone());
            }
            for (number, rule) in raw.rule.iter().enumerate() {
                let name = rule.name.clone().unwrap_or_else(|| format!("rule {}", number + 1));
                let mut compiling = Compiling { place, at: name, conventions: &mut compiled };
                let rule = compiling.rule(raw, rule, &inherited)?;
                compiled.rules.push(rule);
                if compiled.rules.len() > RULES_MAX {
                    return Err(ConventionError::TooManyRules);
                }
            }
        }
        compiled.candidates = Candidates::new(&compiled.rules, compiled.keys.len());
        compiled.looks_at_span_events = compiled.rules.iter().any(|rule| rule.looks == Looks::SpanEvent);
        Ok(compiled)
    }

    /// Names of the conventions whose `input_tokens` are without those read from and written to a cache.
    #[must_use]
    pub fn input_excludes_cache(&self) -> &[String] {
        &self.input_excludes_cache
    }

    /// Whether any rule looks at the events of spans.
    pub(crate) fn looks_at_span_events(&self) -> bool {
        self.looks_at_span_events
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

    /// The key of a slot.
    pub(crate) fn key(&self, slot: Slot) -> String {
        self.keys.get(usize::from(slot)).map(|key| String::from_utf8_lossy(key).into_owned()).unwrap_or_default()
    }

    /// Number of slots.
    pub(crate) fn slots(&self) -> usize {
        self.keys.len()
    }
}

fn read(place: &str, text: &str) -> Result<RawConvention, ConventionError> {
    let unreadable = |error: toml::de::Error| ConventionError::Unreadable {
        place: format!("{place:?}"),
        message: error.to_string().trim_end().to_owned(),
    };
    RawConvention::deserialize(toml::Deserializer::parse(text).map_err(unreadable)?).map_err(unreadable)
}

fn invalid(place: &str, at: &str, message: String) -> ConventionError {
    ConventionError::Invalid { place: format!("{place:?}"), at: at.to_owned(), message }
}

/// What a rule is compiled with.
struct Compiling<'c> {
    place: &'c str,
    /// The rule's name.
    at: String,
    conventions: &'c mut Conventions,
}

impl Compiling<'_> {
    fn fault(&self, key: &str, message: String) -> ConventionError {
        invalid(self.place, &format!("{} ({key})", self.at), message)
    }

    fn unknown(&self, key: &str, word: &str, allowed: &[&str]) -> ConventionError {
        self.fault(key, format!("{key} cannot be {word:?} (write one of {})", allowed.join(", ")))
    }

    fn rule(
        &mut self,
        convention: &RawConvention,
        raw: &RawRule,
        inherited: &[&RawConvention],
    ) -> Result<Rule, ConventionError> {
        let kind = match &*raw.kind {
            "none" => None,
            word => Some(
                Kind::from_word(word).ok_or_else(|| self.unknown("kind", word, &[Kind::WORDS, &["none"]].concat()))?,
            ),
        };
        let looks = LOOKS.iter().find(|(word, _)| *word == raw.signal).map(|(_, looks)| *looks);
        let looks = looks.ok_or_else(|| self.unknown("signal", &raw.signal, &LOOKS.map(|(word, _)| word)))?;
        let layer = match &raw.layer {
            None if kind.is_none() => Layer::Agent,
            None => {
                return Err(self.fault("layer", format!("layer is missing (write one of {})", Layer::WORDS.join(", "))));
            }
            Some(word) => Layer::from_word(word).ok_or_else(|| self.unknown("layer", word, Layer::WORDS))?,
        };
        let related_by_session = match raw.related_by.as_deref() {
            None | Some("trace") => false,
            Some("session") => true,
            Some(word) => return Err(self.unknown("related_by", word, &["trace", "session"])),
        };
        if raw.all.is_empty() {
            return Err(
                self.fault("all", "a rule without conditions would recognise everything (write at least one)".into())
            );
        }
        if raw.asked && kind != Some(Kind::Tool) {
            return Err(self.fault("asked", "only a rule of kind \"tool\" can be asked".into()));
        }
        let all = self.conditions("all", &raw.all)?;
        let none = self.conditions("none", &raw.none)?;
        let failed = self.conditions("failed", raw.failed.as_ref().unwrap_or(&convention.failed))?;
        let own = raw.class.as_ref().unwrap_or(&convention.class);
        let classes = own.iter().chain(inherited.iter().skip(1).flat_map(|base| &base.class));
        let classes = self.classes(classes)?;
        let mut fields: [Vec<Source>; FIELDS] = std::array::from_fn(|_| Vec::new());
        for field in ALL_FIELDS {
            let sources = raw.fields.get(field).or_else(|| inherited.iter().find_map(|base| base.fields.get(field)));
            for source in sources.into_iter().flatten() {
                let source = self.source(field, source)?;
                fields[field as usize].push(source);
            }
        }
        Ok(Rule {
            convention: convention.name.clone(),
            name: self.at.clone(),
            kind,
            looks,
            layer,
            all,
            none,
            failed,
            classes,
            related_by_session,
            asked: raw.asked,
            read: ReadBySlot::new(&fields, self.conventions.slots()),
            fields,
        })
    }

    fn classes<'r>(
        &mut self,
        raw: impl Iterator<Item = &'r RawClass>,
    ) -> Result<Vec<(Condition, ErrorClass)>, ConventionError> {
        raw.map(|raw| {
            let class = ErrorClass::from_word(&raw.is).filter(|class| *class != ErrorClass::None);
            let class = class.ok_or_else(|| self.unknown("class", &raw.is, &ErrorClass::WORDS[1..]))?;
            Ok((self.condition("class", &raw.when, 0)?, class))
        })
        .collect()
    }

    fn conditions(&mut self, list: &str, raw: &[RawCondition]) -> Result<Vec<Condition>, ConventionError> {
        raw.iter().map(|raw| self.condition(list, raw, 0)).collect()
    }

    fn condition(&mut self, list: &str, raw: &RawCondition, depth: usize) -> Result<Condition, ConventionError> {
        let mut found = Vec::new();
        if let Some(key) = &raw.key {
            let test = match (&raw.is, &raw.is_not, &raw.starts_with, raw.at_least) {
                (None, None, None, None) => Test::Present,
                (Some(words), None, None, None) => Test::Is(bytes(words)),
                (None, Some(words), None, None) => Test::IsNot(bytes(words)),
                (None, None, Some(words), None) => Test::StartsWith(bytes(words)),
                (None, None, None, Some(number)) => Test::AtLeast(number),
                _ => {
                    let message = format!("{key:?} can have one of is, is_not, starts_with and at_least");
                    return Err(self.fault(list, message));
                }
            };
            let path = self.path(list, raw.json.as_deref())?;
            found.push(Condition::Attribute(self.conventions.slot_for(key)?, path, test));
        } else if raw.json.is_some()
            || raw.is.is_some()
            || raw.is_not.is_some()
            || raw.starts_with.is_some()
            || raw.at_least.is_some()
        {
            return Err(self.fault(list, "json, is, is_not, starts_with and at_least need a key".into()));
        }
        if let Some(kinds) = &raw.span_kind {
            let numbers = kinds.iter().map(|word| {
                let number = SPAN_KINDS.iter().position(|kind| kind == word);
                number
                    .and_then(|number| i32::try_from(number).ok())
                    .ok_or_else(|| self.unknown("span_kind", word, SPAN_KINDS))
            });
            found.push(Condition::SpanKind(numbers.collect::<Result<_, _>>()?));
        }
        if let Some(word) = &raw.status {
            let number = STATUSES.iter().position(|status| status == word);
            let number = number.and_then(|number| i32::try_from(number).ok());
            found.push(Condition::Status(number.ok_or_else(|| self.unknown("status", word, STATUSES))?));
        }
        let names = [
            (&raw.span_name, Condition::SpanName as fn(Test) -> Condition, Test::Is as fn(Vec<Vec<u8>>) -> Test),
            (&raw.span_name_starts_with, Condition::SpanName, Test::StartsWith),
            (&raw.event, Condition::Event, Test::Is),
            (&raw.event_starts_with, Condition::Event, Test::StartsWith),
            (&raw.span_event, Condition::SpanEvent, Test::Is),
            (&raw.scope, Condition::Scope, Test::Is),
            (&raw.scope_starts_with, Condition::Scope, Test::StartsWith),
        ];
        for (words, condition, test) in names {
            found.extend(words.as_ref().map(|words| condition(test(bytes(words)))));
        }
        for (conditions, condition) in
            [(&raw.any, Condition::Any as fn(Vec<Condition>) -> Condition), (&raw.all, Condition::All)]
        {
            let Some(conditions) = conditions else { continue };
            if depth == ANY_DEPTH_MAX {
                return Err(
                    self.fault(list, format!("any and all can stand in each other {ANY_DEPTH_MAX} times at most"))
                );
            }
            if conditions.is_empty() {
                return Err(self.fault(list, "any and all need conditions".into()));
            }
            let conditions = conditions.iter().map(|raw| self.condition(list, raw, depth + 1));
            found.push(condition(conditions.collect::<Result<_, _>>()?));
        }
        match (found.pop(), found.is_empty()) {
            (Some(condition), true) => Ok(condition),
            (None, _) => Err(self
                .fault(list, "a condition is empty (write for example { key = \"my.kind\", is = [\"tool\"] })".into())),
            (Some(_), false) => Err(self.fault(list, "a condition looks at one thing (write { ... }, { ... })".into())),
        }
    }

    fn path(&self, at: &str, path: Option<&str>) -> Result<Vec<Vec<u8>>, ConventionError> {
        let path: Vec<Vec<u8>> = path.map_or(Vec::new(), |path| path.split('.').map(Into::into).collect());
        if path.len() > PATH_MAX {
            return Err(self.fault(at, format!("a path into JSON has at most {PATH_MAX} keys")));
        }
        Ok(path)
    }

    fn source(&mut self, field: Field, raw: &RawSource) -> Result<Source, ConventionError> {
        let table = match raw {
            RawSource::Key(key) => return Ok(Source::Attribute(self.conventions.slot_for(key)?)),
            RawSource::Table(table) => table,
        };
        let RawSourceTable { key, json, after, not, add, exponent, span_name_after, until, value } = table;
        let derived = json.is_some() || after.is_some() || !not.is_empty() || add.is_some() || exponent.is_some();
        let at = field.name();
        match (key, span_name_after, value) {
            (Some(key), None, None) if until.is_none() => {
                if exponent.is_some_and(|exponent| !(-18..=18).contains(&exponent)) {
                    return Err(self.fault(at, "exponent is between -18 and 18".into()));
                }
                let slot = self.conventions.slot_for(key)?;
                Ok(Source::Derived(Box::new(Derived {
                    slot,
                    path: self.path(at, json.as_deref())?,
                    after: after.as_deref().unwrap_or_default().into(),
                    not: bytes(not),
                    add: add.unwrap_or(0),
                    exponent: exponent.unwrap_or(0),
                })))
            }
            (None, Some(prefix), None) if !derived => {
                let until = until.as_deref().unwrap_or_default();
                Ok(Source::NameAfter(prefix.clone().into_bytes(), until.into()))
            }
            (None, None, Some(value)) if !derived && until.is_none() => Ok(Source::Value(value.clone().into_bytes())),
            _ => Err(self.fault(
                at,
                "a source has one of key, span_name_after and value; json, after, not, add and exponent go with key, \
                 until with span_name_after"
                    .into(),
            )),
        }
    }
}

fn bytes(words: &[String]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.clone().into_bytes()).collect()
}

/// OTLP's `StatusCode`, by number.
pub(crate) const STATUSES: &[&str] = &["unset", "ok", "error"];
/// OTLP's `SpanKind`, by number.
pub(crate) const SPAN_KINDS: &[&str] = &["unspecified", "internal", "server", "client", "producer", "consumer"];

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(text: &str) -> Result<Conventions, String> {
        Conventions::compile(&[("my.toml", text)]).map_err(|error| error.to_string())
    }

    fn rule(rest: &str) -> String {
        format!("name = \"x\"\n[[rule]]\nname = \"r\"\nkind = \"tool\"\nsignal = \"span\"\nlayer = \"agent\"\n{rest}\n")
    }

    #[test]
    fn built_in_conventions_compile() {
        let conventions = Conventions::built_in().unwrap();
        assert!(conventions.rules.len() >= 5);
        assert!(conventions.slot(b"gen_ai.tool.name").is_some());
        assert!(conventions.slot(b"gen_ai.tool.nam").is_none());
        for (name, text) in BUILT_IN {
            assert_eq!(read(name, text).unwrap().name, *name, "a convention has the name of its file");
        }
        for rule in &conventions.rules {
            assert!(!rule.name.starts_with("rule "), "{} has a rule without a name", rule.convention);
        }
    }

    #[test]
    fn faults_are_named_with_their_place_and_remedy() {
        let cases = [
            (
                "name = \"x\"\n[[rule]]\nkind = \"tol\"\nsignal = \"span\"\nlayer = \"agent\"\nall = []\n".to_owned(),
                "convention \"my.toml\", rule 1 (kind): kind cannot be \"tol\" (write one of tool, model, agent, none)",
            ),
            (rule("all = []"), "r (all): a rule without conditions would recognise everything"),
            (rule("all = [{}]"), "r (all): a condition is empty"),
            (rule("all = [{ key = \"a\", is = [\"b\"], at_least = 1.0 }]"), "\"a\" can have one of"),
            (rule("all = [{ key = \"a\", span_kind = [\"client\"] }]"), "a condition looks at one thing"),
            (
                rule("all = [{ span_kind = [\"clint\"] }]"),
                "span_kind cannot be \"clint\" (write one of unspecified, internal",
            ),
            (rule("all = [{ key = \"a\", iss = [\"b\"] }]"), "unknown field `iss`"),
            (rule("all = [{ key = \"a\" }]\nfields = { tool_name = [{ jsn = \"x\" }] }"), "unknown field `jsn`"),
            (rule("all = [{ key = \"a\" }]\nfields = { tool_nam = [\"x\"] }"), "unknown field `tool_nam`"),
            (rule("all = [{ key = \"a\" }]\nfields = { tool_name = [{ json = \"x\" }] }"), "a source has one of key"),
            (
                rule("all = [{ key = \"a\" }]\nclass = [{ when = { key = \"b\" }, is = \"none\" }]"),
                "class cannot be \"none\"",
            ),
            (format!("fields_from = \"y\"\n{}", rule("all = [{ key = \"a\" }]")), "\"y\" is no other convention"),
            (format!("fields_from = \"x\"\n{}", rule("all = [{ key = \"a\" }]")), "\"x\" is no other convention"),
            ("name = \"x\"\nrules = []\n".to_owned(), "unknown field `rules`"),
        ];
        for (text, expect) in cases {
            let error = compile(&text).unwrap_err();
            assert!(error.contains(expect), "{text}\n{error}");
        }
        let twice = rule("all = [{ key = \"a\" }]");
        let error = Conventions::compile(&[("a", &twice), ("b", &twice)]).unwrap_err().to_string();
        assert!(error.contains("two conventions \"x\""), "{error}");
    }

    #[test]
    fn own_conventions_stand_first_and_take_the_place_of_one_of_the_same_name() {
        let own = rule("all = [{ key = \"a\" }]");
        let mcp = own.replace("\"x\"", "\"mcp\"");
        let built_in = Conventions::built_in().unwrap().rules.len();
        let with = Conventions::with(&[("a.toml".into(), own)]).unwrap();
        assert_eq!((with.rules[0].convention.as_str(), with.rules.len()), ("x", built_in + 1));
        let instead = Conventions::with(&[("a.toml".into(), mcp)]).unwrap();
        assert_eq!(instead.rules.iter().filter(|rule| rule.convention == "mcp").count(), 1);
    }
}
