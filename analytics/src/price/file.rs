//! Price books as files: TOML.
//!
//! ```toml
//! [currency]
//! EUR = { usd = 1.0842, on = 2026-11-20 }
//!
//! [[price]]
//! tool = "charge_*"
//! server = "payments"
//! per_call = 0.002
//! currency = "EUR"
//! from = 2026-01-01
//! until = 2027-01-01
//! ```
//!
//! Keys that are not known are faults, so that a slip of the pen is not a price that never applies. Numbers are read from their
//! text, never as floats.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use toolgauge_proto::call::Kind;

use super::amount::{PRICE_PLACES, decimal, half_even};
use super::entry::{Entry, Per, Rates};
use super::glob::Glob;

/// Most entries of a file.
const ENTRIES_MAX: usize = 20_000;
/// Most faults of a file that are told.
const FAULTS_MAX: usize = 100;
/// Digits after the point of a rate of exchange.
const RATE_PLACES: u32 = 12;
/// The currency of everything.
const DOLLAR: &str = "USD";

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
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The key; empty for the file as a whole.
    pub key: String,
    /// What is wrong, and what to write instead.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { severity, file, line, column, key, message } = self;
        let severity = match severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{file}:{line}:{column}: {severity}: ")?;
        if key.is_empty() { f.write_str(message) } else { write!(f, "`{key}`: {message}") }
    }
}

/// What a file says.
#[derive(Debug, Clone, Default)]
pub struct ParsedFile {
    /// Its entries; those with a fault are not among them.
    pub entries: Vec<Entry>,
    /// What is wrong with it on its own.
    pub faults: Vec<Fault>,
}

impl ParsedFile {
    /// Whether anything is an error, so that nothing of it may come into force.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.faults.iter().any(|fault| fault.severity == Severity::Error)
    }
}

/// The keys that are prices, with what they are paid for and how many of it they are for, as a power of ten.
const PRICES: [(&str, Per, u32); Per::COUNT] = [
    ("per_call", Per::Call, 0),
    ("per_second", Per::Second, 0),
    ("per_input_byte", Per::InputByte, 0),
    ("per_output_byte", Per::OutputByte, 0),
    ("per_million_input_tokens", Per::InputToken, 6),
    ("per_million_output_tokens", Per::OutputToken, 6),
    ("per_million_cached_input_tokens", Per::CachedInputToken, 6),
    ("per_million_cache_write_input_tokens", Per::CacheWriteInputToken, 6),
    ("per_million_reasoning_tokens", Per::ReasoningToken, 6),
];
/// Longest text of a price: what is not a number of that many digits is no price.
const NO_PRICE: &str = "must be a decimal of 0 or more with at most";

/// Reads a file; `name` is what faults call it.
#[must_use]
pub fn parse(name: &Arc<str>, text: &str) -> ParsedFile {
    let mut reader =
        Reader { name, text, lines: line_starts(text), rates: BTreeMap::new(), parsed: ParsedFile::default() };
    match DeTable::parse(text) {
        Ok(table) => reader.document(table.get_ref()),
        Err(error) => {
            let at = error.span().unwrap_or(0..0);
            reader.error(&at, "", format!("this is not TOML: {}", error.message()));
        }
    }
    let mut parsed = reader.parsed;
    parsed.faults.sort_by_key(|fault| (fault.line, fault.column));
    parsed
}

/// A date like `2026-01-31`, from the days since 1970-01-01.
#[must_use]
pub fn date_text(days: i32) -> String {
    // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
    let shifted = i64::from(days) + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Days since 1970-01-01 of a date; the inverse of [`date_text`], from the same source.
pub(super) fn days_of(year: u16, month: u8, day: u8) -> i32 {
    let (year, month, day) = (i32::from(year) - i32::from(month <= 2), i32::from(month), i32::from(day));
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect()
}

struct Reader<'t> {
    name: &'t Arc<str>,
    text: &'t str,
    lines: Vec<usize>,
    /// Dollars for one of it, in units of 10^-12.
    rates: BTreeMap<String, i128>,
    parsed: ParsedFile,
}

type Value<'i> = Spanned<DeValue<'i>>;

impl Reader<'_> {
    fn error(&mut self, at: &Range<usize>, key: &str, message: impl Into<String>) {
        if self.parsed.faults.len() >= FAULTS_MAX {
            return;
        }
        let (line, column) = self.place(at);
        let (file, key, message) = (self.name.to_string(), key.to_owned(), message.into());
        self.parsed.faults.push(Fault { severity: Severity::Error, file, line, column, key, message });
    }

    fn place(&self, at: &Range<usize>) -> (usize, usize) {
        let line = self.lines.partition_point(|start| *start <= at.start);
        let start = self.lines[line.saturating_sub(1)];
        let column = self.text.get(start..at.start).map_or(0, |before| before.chars().count());
        (line.max(1), column + 1)
    }

    fn document(&mut self, table: &DeTable<'_>) {
        // Rates first: entries use them, wherever they stand.
        if let Some((_, currencies)) = table.iter().find(|(key, _)| key.get_ref() == "currency") {
            self.currencies(currencies);
        }
        for (key, value) in table.iter() {
            match &**key.get_ref() {
                "currency" => {}
                // What the file is, for those who read it.
                "about" | "source" | "version" | "date" | "licence" | "license" => {}
                "price" => self.prices(value),
                other => self.error(&key.span(), other, "is unknown here (there are `price` and `currency`)"),
            }
        }
    }

    fn currencies(&mut self, value: &Value<'_>) {
        let Some(table) = value.get_ref().as_table() else {
            return self.error(
                &value.span(),
                "currency",
                "must be a table (write like [currency] EUR = { usd = 1.08 })",
            );
        };
        for (name, rate) in table.iter() {
            let currency = name.get_ref().to_string();
            let key = format!("currency.{currency}");
            let Some(fields) = rate.get_ref().as_table() else {
                self.error(&rate.span(), &key, "must be a table (write like { usd = 1.08, on = 2026-11-20 })");
                continue;
            };
            let mut dollars = None;
            for (field, value) in fields.iter() {
                match &**field.get_ref() {
                    "usd" => match number(value).and_then(|text| decimal(text, RATE_PLACES)).filter(|rate| *rate > 0) {
                        Some(rate) => dollars = Some(rate),
                        None => self.error(
                            &value.span(),
                            &key,
                            format!("`usd` must be how many dollars one {currency} is, above 0 and with at most {RATE_PLACES} digits after the point, got {}", shown(value)),
                        ),
                    },
                    // The day of the rate, for those who read it.
                    "on" => drop(self.date(&format!("{key}.on"), value)),
                    other => self.error(&field.span(), &key, format!("`{other}` is unknown (there are `usd` and `on`)")),
                }
            }
            match dollars {
                Some(_) if currency == DOLLAR => {
                    self.error(&name.span(), &key, "is what all is converted to, and has no rate")
                }
                Some(dollars) => {
                    if !fields.iter().any(|(field, _)| field.get_ref() == "on") {
                        self.error(
                            &rate.span(),
                            &key,
                            "does not say of which day (write like { usd = 1.08, on = 2026-11-20 })",
                        );
                    }
                    self.rates.insert(currency, dollars);
                }
                None if fields.iter().any(|(field, _)| field.get_ref() == "usd") => {}
                None => self.error(&rate.span(), &key, "has no rate (write like { usd = 1.08, on = 2026-11-20 })"),
            }
        }
    }

    fn prices(&mut self, value: &Value<'_>) {
        let Some(entries) = value.get_ref().as_array() else {
            return self.error(&value.span(), "price", "must be a list (begin each price with [[price]])");
        };
        for (at, entry) in entries.iter().enumerate() {
            if at == ENTRIES_MAX {
                return self.error(&entry.span(), "price", format!("there are more than {ENTRIES_MAX} (use patterns)"));
            }
            let Some(table) = entry.get_ref().as_table() else {
                self.error(&entry.span(), "price", "must be a table (begin each price with [[price]])");
                continue;
            };
            let before = self.parsed.faults.len();
            let entry = self.entry(&entry.span(), table);
            if self.parsed.faults.len() == before && before < FAULTS_MAX {
                self.parsed.entries.push(entry);
            }
        }
    }

    fn entry(&mut self, at: &Range<usize>, table: &DeTable<'_>) -> Entry {
        let (line, _) = self.place(at);
        let faults_before = self.parsed.faults.len();
        let mut entry = Entry {
            file: Arc::clone(self.name),
            line,
            kind: Kind::Tool,
            tools: Vec::new(),
            servers: Vec::new(),
            models: Vec::new(),
            providers: Vec::new(),
            from: i32::MIN,
            until: i32::MAX,
            rates: None,
            tiers: Vec::new(),
        };
        let rate = self.rate(table);
        let (mut unpriced, mut tiers) = (false, None);
        let mut rates = Rates::default();
        for (key, value) in table.iter() {
            let name = &**key.get_ref();
            match name {
                "tool" => entry.tools = self.globs(name, value, false),
                "server" => entry.servers = self.globs(name, value, false),
                "model" => entry.models = self.globs(name, value, true),
                "provider" => entry.providers = self.globs(name, value, true),
                "from" => entry.from = self.date(name, value).unwrap_or(entry.from),
                "until" => entry.until = self.date(name, value).unwrap_or(entry.until),
                "currency" | "note" => {}
                "unpriced" => match value.get_ref().as_bool() {
                    Some(is) => unpriced = is,
                    None => self.error(&value.span(), name, format!("must be true or false, got {}", shown(value))),
                },
                "tiers" => tiers = Some(value),
                _ => {
                    if self.rate_of(name, value, rate, &mut rates).is_none() {
                        let prices = PRICES.map(|(name, ..)| format!("`{name}`")).join(", ");
                        self.error(
                            &key.span(),
                            name,
                            format!(
                                "is unknown (there are `tool`, `server`, `model`, `provider`, `from`, `until`, `currency`, \
                                 `tiers`, `unpriced`, `note`, {prices})"
                            ),
                        );
                    }
                }
            }
        }
        let names_tools = !entry.tools.is_empty() || !entry.servers.is_empty();
        let names_models = !entry.models.is_empty() || !entry.providers.is_empty();
        if !names_tools && !names_models && self.parsed.faults.len() == faults_before {
            self.error(at, "price", "does not say of what (add `tool`, `server` or `model`; \"*\" is all of them)");
        }
        // A tool's row may name the model that asked for it.
        entry.kind = if names_tools { Kind::Tool } else { Kind::Model };
        if entry.from >= entry.until {
            self.error(
                at,
                "until",
                "must be later than `from`; it is the first day on which the price is no longer in force",
            );
        }
        let has_prices = rates != Rates::default();
        match (unpriced, has_prices) {
            (true, true) => self.error(at, "unpriced", "stands beside a price (remove one of them)"),
            // One that cannot be read is told of already.
            (false, false) if self.parsed.faults.len() > faults_before => {}
            (false, false) => {
                self.error(at, "price", "has no price (add one such as `per_call`, or `unpriced = true`)")
            }
            (true, false) => {}
            (false, true) => entry.rates = Some(rates.clone()),
        }
        if let Some(tiers) = tiers {
            self.tiers(tiers, rate, &rates, &mut entry);
        }
        entry
    }

    /// What an amount of this entry is multiplied by, in units of 10^-12.
    fn rate(&mut self, table: &DeTable<'_>) -> i128 {
        let one = 10_i128.pow(RATE_PLACES);
        let Some((_, value)) = table.iter().find(|(key, _)| key.get_ref() == "currency") else { return one };
        let found = match value.get_ref().as_str() {
            Some(DOLLAR) => return one,
            Some(currency) => self.rates.get(currency).copied(),
            None => None,
        };
        found.unwrap_or_else(|| {
            let known: Vec<&str> = [DOLLAR].into_iter().chain(self.rates.keys().map(String::as_str)).collect();
            let message = format!(
                "there is no rate for {} (there are {}; add one like [currency] EUR = {{ usd = 1.08, on = 2026-11-20 }})",
                shown(value),
                known.join(", ")
            );
            self.error(&value.span(), "currency", message);
            one
        })
    }

    /// Reads a price; `None` if the key is none of a price.
    fn rate_of(&mut self, name: &str, value: &Value<'_>, rate: i128, rates: &mut Rates) -> Option<()> {
        let (_, per, of) = PRICES.iter().find(|(key, ..)| *key == name)?;
        let places = PRICE_PLACES - of;
        match number(value).and_then(|text| decimal(text, places)) {
            // A converted price is rounded half to even to 10^-18 dollars for one.
            Some(price) if rate == 10_i128.pow(RATE_PLACES) => rates.0[*per as usize] = Some(price),
            Some(price) => match price.checked_mul(rate) {
                Some(price) => rates.0[*per as usize] = Some(half_even(price, 10_i128.pow(RATE_PLACES))),
                None => self.error(&value.span(), name, "is too much"),
            },
            None => self.error(
                &value.span(),
                name,
                format!("{NO_PRICE} {places} digits after the point, got {}", shown(value)),
            ),
        }
        Some(())
    }

    fn tiers(&mut self, value: &Value<'_>, rate: i128, base: &Rates, entry: &mut Entry) {
        let Some(tiers) = value.get_ref().as_array() else {
            return self.error(
                &value.span(),
                "tiers",
                "must be a list of tables (write like [{ above_input_tokens = 200000, ... }])",
            );
        };
        for tier in tiers.iter() {
            let Some(table) = tier.get_ref().as_table() else {
                self.error(&tier.span(), "tiers", "must hold tables (write like { above_input_tokens = 200000, ... })");
                continue;
            };
            // What a tier does not say stays as it is below it.
            let (mut above, mut rates) = (None, base.clone());
            for (key, value) in table.iter() {
                let name = &**key.get_ref();
                if name == "above_input_tokens" {
                    above = value.get_ref().as_integer().and_then(|number| number.as_str().parse::<i64>().ok());
                    if above.is_none_or(|above| above < 0) {
                        self.error(&value.span(), name, format!("must be a whole number, got {}", shown(value)));
                    }
                } else if self.rate_of(name, value, rate, &mut rates).is_none() {
                    self.error(
                        &key.span(),
                        name,
                        "is unknown in a tier (there are `above_input_tokens` and the prices)",
                    );
                }
            }
            match above {
                Some(above) if entry.tiers.last().is_none_or(|(last, _)| *last < above) => {
                    entry.tiers.push((above, rates))
                }
                Some(_) => self.error(
                    &tier.span(),
                    "tiers",
                    "must be in the order of `above_input_tokens`, each above the one before",
                ),
                None => self.error(&tier.span(), "tiers", "does not say from where (add `above_input_tokens`)"),
            }
        }
        if entry.rates.is_none() {
            self.error(&value.span(), "tiers", "needs prices for the calls below it");
        }
    }

    fn globs(&mut self, name: &str, value: &Value<'_>, lower: bool) -> Vec<Glob> {
        let mut texts: Vec<(&str, Range<usize>)> = Vec::new();
        match value.get_ref() {
            DeValue::String(text) => texts.push((text, value.span())),
            DeValue::Array(items) if items.iter().all(|item| item.get_ref().is_str()) && !items.is_empty() => {
                texts.extend(items.iter().filter_map(|item| Some((item.get_ref().as_str()?, item.span()))));
            }
            _ => {
                let message = format!("must be a name or a pattern, or a list of them, got {}", shown(value));
                self.error(&value.span(), name, message);
            }
        }
        let mut globs = Vec::with_capacity(texts.len());
        for (text, span) in texts {
            let text = if lower { text.to_lowercase() } else { text.to_owned() };
            match Glob::new(&text) {
                Ok(glob) => globs.push(glob),
                Err(message) => self.error(&span, name, message),
            }
        }
        globs
    }

    fn date(&mut self, name: &str, value: &Value<'_>) -> Option<i32> {
        let text = value.get_ref().as_str().map(str::parse::<toml::value::Datetime>).and_then(Result::ok);
        let found = value.get_ref().as_datetime().copied().or(text);
        match found {
            Some(toml::value::Datetime { date: Some(date), time: None, offset: None }) => {
                Some(days_of(date.year, date.month, date.day))
            }
            _ => {
                self.error(
                    &value.span(),
                    name,
                    format!("must be a date such as 2026-01-31 (UTC), got {}", shown(value)),
                );
                None
            }
        }
    }
}

/// The text of a number, or of a number in quotes.
fn number<'v>(value: &'v Value<'_>) -> Option<&'v str> {
    match value.get_ref() {
        DeValue::String(text) => Some(text),
        DeValue::Float(float) => Some(float.as_str()),
        DeValue::Integer(integer) if integer.radix() == 10 => Some(integer.as_str()),
        _ => None,
    }
}

/// A value as faults quote it.
fn shown(value: &Value<'_>) -> String {
    match value.get_ref() {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(integer) => integer.to_string(),
        DeValue::Float(float) => float.to_string(),
        DeValue::Boolean(is) => is.to_string(),
        DeValue::Datetime(datetime) => datetime.to_string(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
