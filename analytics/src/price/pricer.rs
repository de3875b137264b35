//! A book applied to rows of `calls`.

use std::hash::BuildHasher;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, DictionaryArray, Int64Array, RecordBatch, StringArray,
    UInt16Array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Decimal128Type, Int64Type, UInt16Type};
use arrow::error::ArrowError;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use toolgauge_proto::call::{CostSource, Kind};

use super::PriceBook;
use super::entry::Usage;

/// Calls whose entry is kept in memory; beyond that all are looked up anew.
const KNOWN_MAX: usize = 20_000;
/// The code of no word.
const NULL: u16 = u16::MAX;
/// The words that an entry is chosen by, the kind aside.
const WORDS: [&str; 4] = ["tool_name", "tool_server", "model", "provider"];

/// What an entry is chosen by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call<'a> {
    /// Of what.
    pub kind: Kind,
    /// The tool, if it has a name.
    pub tool: Option<&'a str>,
    /// Its server.
    pub server: Option<&'a str>,
    /// The model.
    pub model: Option<&'a str>,
    /// Who serves the model, as reported.
    pub provider: Option<&'a str>,
    /// UTC date of its end, in days since 1970-01-01.
    pub date: i32,
}

/// A [`Call`] of its own, and the entry that was found for it.
#[derive(Debug)]
struct Known {
    kind: Kind,
    words: [Option<Box<str>>; WORDS.len()],
    date: i32,
    entry: Option<u32>,
}

/// See the module. It remembers what it has looked up.
#[derive(Debug)]
pub struct Pricer {
    book: Arc<PriceBook>,
    known: HashTable<Known>,
}

impl Pricer {
    /// Prices by this book.
    #[must_use]
    pub fn new(book: Arc<PriceBook>) -> Self {
        Self { book, known: HashTable::new() }
    }

    /// The book.
    #[must_use]
    pub fn book(&self) -> &Arc<PriceBook> {
        &self.book
    }

    /// The rows of `calls` with the costs that the book gives them: in counted rows of tools and models whose cost was not
    /// reported, `cost_usd` and `cost_source` are what the book says, null included. The same rows if that changes nothing.
    ///
    /// Words may be text or dictionaries. The columns that a book reads and that the batch does not have are taken as null.
    ///
    /// # Errors
    /// If a column that every row has is missing or of another type.
    pub fn price(&mut self, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let sources = words(rows, "cost_source")?;
        let costs =
            required(rows, "cost_usd")?.as_primitive_opt::<Decimal128Type>().ok_or_else(|| wrong("cost_usd"))?;
        let is_from_book = positions(&sources, CostSource::PriceBook.as_str());
        if (costs.null_count() == 0 && !is_from_book.contains(&true))
            || (self.book.entries.is_empty() && !is_from_book.contains(&true))
        {
            return Ok(rows.clone());
        }
        let columns = Columns::of(rows, &self.book.input_excludes_cache)?;
        let mut memo = Memo::default();
        let mut changed = Vec::new();
        for row in 0..rows.num_rows() {
            let source = code(&sources, row);
            let own = source != NULL && is_from_book[usize::from(source)];
            if (costs.is_valid(row) && !own) || !columns.counted.value(row) {
                continue;
            }
            let Some(kind) = columns.kind(row) else { continue };
            let key = Key { kind, words: columns.codes(row), date: columns.date(row) };
            let entry = memo.get(key, || self.find(&columns, kind, row));
            let cost = entry.and_then(|at| self.book.entries[at as usize].cost(&columns.usage(row)));
            if cost != costs.is_valid(row).then(|| costs.value(row)) {
                changed.push((row, cost));
            }
        }
        if changed.is_empty() {
            return Ok(rows.clone());
        }
        with_costs(rows, costs, &sources, &changed)
    }

    fn find(&mut self, columns: &Columns<'_>, kind: Kind, row: usize) -> Option<u32> {
        let texts = columns.texts(row);
        let date = columns.date(row);
        let hasher = FixedState::default();
        let hash = hasher.hash_one((kind as u8, texts, date));
        let is_same = |known: &Known| {
            known.kind == kind
                && known.date == date
                && known.words.iter().zip(texts).all(|(word, text)| word.as_deref() == text)
        };
        if let Some(known) = self.known.find(hash, is_same) {
            return known.entry;
        }
        let [tool, server, model, provider] = texts;
        let call = Call { kind, tool, server, model, provider, date };
        let entry = self.book.position(&call).map(|at| at as u32);
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        let known = Known { kind, words: texts.map(|text| text.map(Into::into)), date, entry };
        self.known.insert_unique(hash, known, |known| {
            hasher.hash_one((known.kind as u8, known.words.each_ref().map(Option::as_deref), known.date))
        });
        entry
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    kind: Kind,
    words: [u16; WORDS.len()],
    date: i32,
}

/// The entries of one batch, by the codes of its dictionaries.
#[derive(Default)]
struct Memo {
    last: Option<(Key, Option<u32>)>,
    all: HashTable<(Key, Option<u32>)>,
}

impl Memo {
    fn get(&mut self, key: Key, find: impl FnOnce() -> Option<u32>) -> Option<u32> {
        if let Some((last, entry)) = self.last
            && last == key
        {
            return entry;
        }
        let hasher = FixedState::default();
        let hash = hasher.hash_one((key.kind as u8, key.words, key.date));
        let known = self.all.find(hash, |(other, _)| *other == key).copied();
        let found = known.unwrap_or_else(|| {
            let found = (key, find());
            self.all.insert_unique(hash, found, |(key, _)| hasher.hash_one((key.kind as u8, key.words, key.date)));
            found
        });
        self.last = Some(found);
        found.1
    }
}

/// The columns that are read.
struct Columns<'a> {
    kinds: DictionaryArray<UInt16Type>,
    /// Of each word of the column `kind`.
    kind_words: Vec<Option<Kind>>,
    words: [DictionaryArray<UInt16Type>; WORDS.len()],
    counted: &'a BooleanArray,
    dates: ArrayRef,
    duration_ns: &'a Int64Array,
    conventions: DictionaryArray<UInt16Type>,
    /// Of each word of that whether its input tokens are without those of caches.
    excludes_cache: Vec<bool>,
    amounts: [Option<&'a Int64Array>; 7],
}

impl<'a> Columns<'a> {
    fn of(rows: &'a RecordBatch, excludes_cache: &[String]) -> Result<Self, ArrowError> {
        let integers = |name: &str| -> Result<Option<&'a Int64Array>, ArrowError> {
            let Some(column) = rows.column_by_name(name) else { return Ok(None) };
            column.as_primitive_opt::<Int64Type>().map(Some).ok_or_else(|| wrong(name))
        };
        let kinds = words(rows, "kind")?;
        let texts = kinds.values().as_string::<i32>();
        // Agents repeat what their parts cost.
        let kind_words = texts.iter().map(|word| Kind::from_word(word?).filter(|kind| *kind != Kind::Agent)).collect();
        let dates = match rows.column_by_name("date") {
            Some(dates) => Arc::clone(dates),
            None => cast(required(rows, "end_time")?, &DataType::Date32)?,
        };
        dates.as_primitive_opt::<Date32Type>().ok_or_else(|| wrong("date"))?;
        let conventions = words(rows, "convention")?;
        let texts = conventions.values().as_string::<i32>();
        let excludes = |text: Option<&str>| excludes_cache.iter().any(|name| Some(&**name) == text);
        let excludes_cache = texts.iter().map(excludes).collect();
        let [tools, servers, models, providers] = WORDS.map(|name| words(rows, name));
        Ok(Self {
            kind_words,
            words: [tools?, servers?, models?, providers?],
            counted: required(rows, "counted")?.as_boolean_opt().ok_or_else(|| wrong("counted"))?,
            dates,
            duration_ns: integers("duration_ns")?.ok_or_else(|| missing("duration_ns"))?,
            conventions,
            excludes_cache,
            amounts: [
                integers("input_bytes")?,
                integers("output_bytes")?,
                integers("input_tokens")?,
                integers("output_tokens")?,
                integers("cached_input_tokens")?,
                integers("cache_write_input_tokens")?,
                integers("reasoning_tokens")?,
            ],
            kinds,
        })
    }

    fn kind(&self, row: usize) -> Option<Kind> {
        *self.kind_words.get(usize::from(code(&self.kinds, row)))?
    }

    fn date(&self, row: usize) -> i32 {
        self.dates.as_primitive::<Date32Type>().value(row)
    }

    fn codes(&self, row: usize) -> [u16; WORDS.len()] {
        self.words.each_ref().map(|words| code(words, row))
    }

    fn texts(&self, row: usize) -> [Option<&str>; WORDS.len()] {
        self.words.each_ref().map(|words| {
            let code = code(words, row);
            (code != NULL).then(|| words.values().as_string::<i32>().value(usize::from(code)))
        })
    }

    fn usage(&self, row: usize) -> Usage {
        let amount = |at: usize| self.amounts[at].filter(|column| column.is_valid(row)).map(|column| column.value(row));
        let caches_apart = self.excludes_cache.get(usize::from(code(&self.conventions, row))) == Some(&true);
        let of_caches = |at: usize| if caches_apart { amount(at).unwrap_or(0) } else { 0 };
        let whole = |input: i64| input.saturating_add(of_caches(4)).saturating_add(of_caches(5));
        Usage {
            duration_ns: self.duration_ns.value(row),
            input_bytes: amount(0),
            output_bytes: amount(1),
            input_tokens: amount(2).map(whole),
            output_tokens: amount(3),
            cached_input_tokens: amount(4),
            cache_write_input_tokens: amount(5),
            reasoning_tokens: amount(6),
        }
    }
}

fn missing(name: &str) -> ArrowError {
    ArrowError::SchemaError(format!("rows to be priced have no column {name:?}"))
}

fn wrong(name: &str) -> ArrowError {
    ArrowError::SchemaError(format!("column {name:?} of rows to be priced has another type"))
}

fn required<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, ArrowError> {
    rows.column_by_name(name).ok_or_else(|| missing(name))
}

fn dictionary_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::UInt16), Box::new(DataType::Utf8))
}

/// A column of words as a dictionary; all null if there is none.
fn words(rows: &RecordBatch, name: &str) -> Result<DictionaryArray<UInt16Type>, ArrowError> {
    let Some(column) = rows.column_by_name(name) else {
        let nobody = UInt16Array::new_null(rows.num_rows());
        return DictionaryArray::try_new(nobody, Arc::new(StringArray::new_null(0)));
    };
    let column =
        if column.data_type() == &dictionary_type() { Arc::clone(column) } else { cast(column, &dictionary_type())? };
    Ok(column.as_dictionary::<UInt16Type>().clone())
}

fn code(words: &DictionaryArray<UInt16Type>, row: usize) -> u16 {
    let keys = words.keys();
    if keys.is_valid(row) { keys.value(row) } else { NULL }
}

/// Of each word of a dictionary whether it is this one.
fn positions(words: &DictionaryArray<UInt16Type>, word: &str) -> Vec<bool> {
    words.values().as_string::<i32>().iter().map(|text| text == Some(word)).collect()
}

fn with_costs(
    rows: &RecordBatch,
    costs: &Decimal128Array,
    sources: &DictionaryArray<UInt16Type>,
    changed: &[(usize, Option<i128>)],
) -> Result<RecordBatch, ArrowError> {
    let mut new_costs: Vec<Option<i128>> = costs.iter().collect();
    // The words that are there may be others than ours, or none; ours come after them.
    let texts = sources.values().as_string::<i32>();
    let ours = (0..texts.len())
        .find(|at| texts.is_valid(*at) && texts.value(*at) == CostSource::PriceBook.as_str())
        .unwrap_or(texts.len());
    let values: ArrayRef = if ours == texts.len() {
        Arc::new(texts.iter().chain([Some(CostSource::PriceBook.as_str())]).collect::<StringArray>())
    } else {
        Arc::clone(sources.values())
    };
    let mut keys: Vec<Option<u16>> = sources.keys().iter().collect();
    for (row, cost) in changed {
        new_costs[*row] = *cost;
        keys[*row] = cost.map(|_| ours as u16);
    }
    let new_costs = new_costs
        .into_iter()
        .collect::<Decimal128Array>()
        .with_precision_and_scale(costs.precision(), costs.scale())?;
    let new_sources: ArrayRef = Arc::new(DictionaryArray::<UInt16Type>::try_new(keys.into_iter().collect(), values)?);
    let schema = rows.schema();
    let mut columns = rows.columns().to_vec();
    columns[schema.index_of("cost_usd")?] = Arc::new(new_costs);
    let at = schema.index_of("cost_source")?;
    columns[at] = if columns[at].data_type() == new_sources.data_type() {
        new_sources
    } else {
        cast(&new_sources, columns[at].data_type())?
    };
    RecordBatch::try_new(schema, columns)
}
