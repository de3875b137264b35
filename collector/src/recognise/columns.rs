//! The columns of `calls` as they grow, row by row, into a block.
//!
//! A column that no row of a block fills costs nothing per row: optional columns are padded when they are next
//! written, or at the end. Words are interned per block; a caller that writes the same word for many rows keeps its
//! key.

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBufferBuilder, Date32Array, Decimal128Array, DictionaryArray, GenericByteBuilder, Int32Array,
    Int64Array, NullBufferBuilder, PrimitiveArray, RecordBatch, StringArray, StringBuilder, TimestampMicrosecondArray,
    new_null_array,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    ArrowNativeType, ArrowPrimitiveType, ByteArrayType, DataType, GenericBinaryType, GenericStringType, UInt16Type,
};
use arrow::error::ArrowError;
use hashbrown::HashTable;
use toolgauge_proto::call::{CostSource, ErrorClass, Kind, Layer, Outcome, Signal};
use toolgauge_proto::table::Table;
use toolgauge_proto::time::UnixMicros;
use xxhash_rust::xxh3::xxh3_64;

/// Key of a word that is null. A block has fewer rows than this, so no real key reaches it.
pub(crate) const NULL_WORD: u16 = u16::MAX;

/// Most rows of a block; dictionary keys are 16 bits wide.
pub(crate) const BLOCK_ROWS_MAX: usize = 8_192;

/// A word of a block: its key, and the hash of its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) key: u16,
    pub(crate) hash: u64,
}

/// A dictionary column.
#[derive(Debug, Default)]
pub(crate) struct WordColumn {
    keys: Vec<u16>,
    words: StringBuilder,
    index: HashTable<Word>,
    last: Option<(Vec<u8>, Word)>,
}

impl WordColumn {
    /// The word, if these bytes are one of this block: it was read and checked when it came first.
    #[inline]
    pub(crate) fn known(&mut self, word: &[u8]) -> Option<Word> {
        if let Some((last, known)) = &self.last
            && last == word
        {
            return Some(*known);
        }
        let known = self.find(xxh3_64(word), word)?;
        self.remember(word, known);
        Some(known)
    }

    /// The word in this block, a new one if need be.
    pub(crate) fn word(&mut self, text: &str) -> Word {
        if let Some(known) = self.known(text.as_bytes()) {
            return known;
        }
        let key = u16::try_from(self.index.len()).unwrap_or(NULL_WORD);
        let word = Word { key, hash: xxh3_64(text.as_bytes()) };
        self.words.append_value(text);
        self.index.insert_unique(word.hash, word, |word| word.hash);
        self.remember(text.as_bytes(), word);
        word
    }

    /// The key of a word in this block.
    pub(crate) fn key(&mut self, word: &str) -> u16 {
        self.word(word).key
    }

    #[inline]
    fn find(&self, hash: u64, word: &[u8]) -> Option<Word> {
        let spelled = |key: u16| {
            let offsets = self.words.offsets_slice();
            let (from, to) = (offsets[usize::from(key)] as usize, offsets[usize::from(key) + 1] as usize);
            &self.words.values_slice()[from..to]
        };
        self.index.find(hash, |other| other.hash == hash && spelled(other.key) == word).copied()
    }

    #[inline]
    fn remember(&mut self, word: &[u8], known: Word) {
        let last = self.last.get_or_insert_with(|| (Vec::new(), known));
        last.0.clear();
        last.0.extend_from_slice(word);
        last.1 = known;
    }

    /// Writes the row's word, given its key.
    pub(crate) fn set_key(&mut self, row: usize, key: u16) {
        self.keys.resize(row, NULL_WORD);
        self.keys.push(key);
    }

    /// Writes the row's word.
    pub(crate) fn set(&mut self, row: usize, word: &str) {
        let key = self.key(word);
        self.set_key(row, key);
    }

    fn finish(&mut self, rows: usize) -> ArrayRef {
        self.keys.resize(rows, NULL_WORD);
        let keys = take(&mut self.keys);
        let words: StringArray = self.words.finish();
        self.index.clear();
        self.last = None;
        words_array(keys, Arc::new(words))
    }
}

/// Takes what is there. The next block will have about as much.
fn take<T>(values: &mut Vec<T>) -> Vec<T> {
    let next = Vec::with_capacity(values.len());
    std::mem::replace(values, next)
}

fn words_array(keys: Vec<u16>, words: ArrayRef) -> ArrayRef {
    let nulls = keys.contains(&NULL_WORD).then(|| NullBuffer::from_iter(keys.iter().map(|key| *key != NULL_WORD)));
    Arc::new(DictionaryArray::<UInt16Type>::new(PrimitiveArray::new(keys.into(), nulls), words))
}

/// A dictionary column over one of the closed sets of `proto::call`: the key is the discriminant.
#[derive(Debug)]
pub(crate) struct ClosedColumn {
    keys: Vec<u16>,
    words: ArrayRef,
}

impl ClosedColumn {
    fn new(words: &[&'static str]) -> Self {
        Self { keys: Vec::new(), words: Arc::new(StringArray::from(words.to_vec())) }
    }

    /// Writes the row's word, given its discriminant.
    pub(crate) fn set(&mut self, row: usize, discriminant: u8) {
        self.keys.resize(row, NULL_WORD);
        self.keys.push(u16::from(discriminant));
    }

    fn finish(&mut self, rows: usize) -> ArrayRef {
        self.keys.resize(rows, NULL_WORD);
        words_array(take(&mut self.keys), Arc::clone(&self.words))
    }
}

/// A column of numbers, null where nothing was written.
#[derive(Debug)]
pub(crate) struct NumberColumn<T> {
    values: Vec<T>,
    nulls: NullBufferBuilder,
}

impl<T: Copy + Default> NumberColumn<T> {
    fn new() -> Self {
        Self { values: Vec::new(), nulls: NullBufferBuilder::new(0) }
    }

    fn pad(&mut self, row: usize) {
        let missing = row - self.values.len();
        if missing > 0 {
            self.values.resize(row, T::default());
            self.nulls.append_n_nulls(missing);
        }
    }

    /// Writes the row's number.
    pub(crate) fn set(&mut self, row: usize, value: T) {
        self.pad(row);
        self.values.push(value);
        self.nulls.append_non_null();
    }

    fn finish<P: ArrowPrimitiveType<Native = T>>(&mut self, rows: usize) -> PrimitiveArray<P>
    where
        T: ArrowNativeType,
    {
        if self.values.is_empty() {
            return PrimitiveArray::new_null(rows);
        }
        self.pad(rows);
        PrimitiveArray::new(take(&mut self.values).into(), self.nulls.finish())
    }
}

/// A column of bytes or of texts, null where nothing was written.
pub(crate) struct BytesColumn<T: ByteArrayType = GenericBinaryType<i32>> {
    builder: GenericByteBuilder<T>,
    len: usize,
}

/// What is derived would ask the types of Arrow for it.
impl<T: ByteArrayType> fmt::Debug for BytesColumn<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BytesColumn").field("builder", &self.builder).field("len", &self.len).finish()
    }
}

/// A column of texts.
pub(crate) type TextColumn = BytesColumn<GenericStringType<i32>>;

impl<T: ByteArrayType> BytesColumn<T>
where
    T::Native: AsRef<T::Native>,
{
    fn new() -> Self {
        Self { builder: GenericByteBuilder::with_capacity(0, 0), len: 0 }
    }

    fn pad(&mut self, row: usize) {
        if row > self.len {
            self.builder.append_nulls(row - self.len);
            self.len = row;
        }
    }

    /// Writes the row's value.
    pub(crate) fn set(&mut self, row: usize, value: &T::Native) {
        self.pad(row);
        self.builder.append_value(value);
        self.len += 1;
    }

    fn finish(&mut self, rows: usize) -> ArrayRef {
        self.pad(rows);
        self.len = 0;
        let finished = self.builder.finish();
        self.builder = GenericByteBuilder::with_capacity(rows, finished.value_data().len());
        Arc::new(finished)
    }
}

/// One block of `calls` while it is being written. Columns that are decided when a row settles (`counted`, `attempt`,
/// `final`, `weight`, `logical_call_id`, `retry_delay_ns`, `retry_lost_ns`) are added by `live`.
#[derive(Debug)]
pub(crate) struct CallColumns {
    rows: usize,
    bytes: usize,
    pub(crate) row_id: BytesColumn,
    pub(crate) start_time: Vec<i64>,
    pub(crate) end_time: Vec<i64>,
    pub(crate) duration_ns: Vec<i64>,
    pub(crate) kind: ClosedColumn,
    pub(crate) tenant: WordColumn,
    pub(crate) service_name: WordColumn,
    pub(crate) service_version: WordColumn,
    pub(crate) environment: WordColumn,
    pub(crate) tool_name: WordColumn,
    pub(crate) tool_type: WordColumn,
    pub(crate) tool_server: WordColumn,
    pub(crate) agent_name: WordColumn,
    pub(crate) session_id: TextColumn,
    pub(crate) user_id: TextColumn,
    pub(crate) team: WordColumn,
    pub(crate) model: WordColumn,
    pub(crate) layer: ClosedColumn,
    pub(crate) trace_id: BytesColumn,
    pub(crate) span_id: BytesColumn,
    pub(crate) parent_span_id: BytesColumn,
    pub(crate) call_id: TextColumn,
    pub(crate) arguments_fingerprint: NumberColumn<i64>,
    pub(crate) wal_position: Vec<i64>,
    pub(crate) signal: ClosedColumn,
    pub(crate) convention: WordColumn,
    pub(crate) outcome: ClosedColumn,
    pub(crate) error_class: ClosedColumn,
    pub(crate) error_type: WordColumn,
    pub(crate) status_code: NumberColumn<i32>,
    pub(crate) error_message: TextColumn,
    pub(crate) error_fingerprint: NumberColumn<i64>,
    pub(crate) fallback_level: NumberColumn<i32>,
    pub(crate) circuit_state: WordColumn,
    pub(crate) side_effect: WordColumn,
    pub(crate) input_tokens: NumberColumn<i64>,
    pub(crate) output_tokens: NumberColumn<i64>,
    pub(crate) cached_input_tokens: NumberColumn<i64>,
    pub(crate) reasoning_tokens: NumberColumn<i64>,
    pub(crate) input_bytes: NumberColumn<i64>,
    pub(crate) output_bytes: NumberColumn<i64>,
    pub(crate) argument_keys: WordColumn,
    pub(crate) cost_usd: NumberColumn<i128>,
    pub(crate) cost_source: ClosedColumn,
    pub(crate) attributes: TextColumn,
    pub(crate) provider: WordColumn,
    pub(crate) cache_write_input_tokens: NumberColumn<i64>,
}

impl Default for CallColumns {
    fn default() -> Self {
        Self {
            rows: 0,
            bytes: 0,
            row_id: BytesColumn::new(),
            start_time: Vec::new(),
            end_time: Vec::new(),
            duration_ns: Vec::new(),
            kind: ClosedColumn::new(Kind::WORDS),
            tenant: WordColumn::default(),
            service_name: WordColumn::default(),
            service_version: WordColumn::default(),
            environment: WordColumn::default(),
            tool_name: WordColumn::default(),
            tool_type: WordColumn::default(),
            tool_server: WordColumn::default(),
            agent_name: WordColumn::default(),
            session_id: TextColumn::new(),
            user_id: TextColumn::new(),
            team: WordColumn::default(),
            model: WordColumn::default(),
            layer: ClosedColumn::new(Layer::WORDS),
            trace_id: BytesColumn::new(),
            span_id: BytesColumn::new(),
            parent_span_id: BytesColumn::new(),
            call_id: TextColumn::new(),
            arguments_fingerprint: NumberColumn::new(),
            wal_position: Vec::new(),
            signal: ClosedColumn::new(Signal::WORDS),
            convention: WordColumn::default(),
            outcome: ClosedColumn::new(Outcome::WORDS),
            error_class: ClosedColumn::new(ErrorClass::WORDS),
            error_type: WordColumn::default(),
            status_code: NumberColumn::new(),
            error_message: TextColumn::new(),
            error_fingerprint: NumberColumn::new(),
            fallback_level: NumberColumn::new(),
            circuit_state: WordColumn::default(),
            side_effect: WordColumn::default(),
            input_tokens: NumberColumn::new(),
            output_tokens: NumberColumn::new(),
            cached_input_tokens: NumberColumn::new(),
            reasoning_tokens: NumberColumn::new(),
            input_bytes: NumberColumn::new(),
            output_bytes: NumberColumn::new(),
            argument_keys: WordColumn::default(),
            cost_usd: NumberColumn::new(),
            cost_source: ClosedColumn::new(CostSource::WORDS),
            attributes: TextColumn::new(),
            provider: WordColumn::default(),
            cache_write_input_tokens: NumberColumn::new(),
        }
    }
}

impl CallColumns {
    /// Rows so far.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Whether the block takes no more rows.
    pub(crate) fn is_full(&self) -> bool {
        self.rows >= BLOCK_ROWS_MAX
    }

    /// Bytes of text that rows hold beyond their fixed width, since this was last asked.
    pub(crate) fn take_text_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.bytes) as u64
    }

    /// Counts text that a row holds beyond its fixed width.
    pub(crate) fn add_text_bytes(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// Ends the row: every column is at it or behind it.
    pub(crate) fn end_row(&mut self) {
        self.rows += 1;
    }

    /// The block, with the decided columns at their defaults (counted, first attempt, final, weight 1); empties the
    /// builder.
    ///
    /// # Errors
    /// If the columns do not fit the schema, which is a fault of this module.
    pub(crate) fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        let n = std::mem::take(&mut self.rows);
        self.bytes = 0;
        let micros = |values: &mut Vec<i64>| -> ArrayRef {
            Arc::new(TimestampMicrosecondArray::from(take(values)).with_timezone("UTC"))
        };
        let longs = |values: &mut Vec<i64>| -> ArrayRef { Arc::new(Int64Array::from(take(values))) };
        let date: ArrayRef =
            Arc::new(Date32Array::from_iter_values(self.end_time.iter().map(|end| UnixMicros(*end).date32())));
        let int64 =
            |column: &mut NumberColumn<i64>| -> ArrayRef { Arc::new(column.finish::<arrow::datatypes::Int64Type>(n)) };
        let int32 =
            |column: &mut NumberColumn<i32>| -> ArrayRef { Arc::new(column.finish::<arrow::datatypes::Int32Type>(n)) };
        let cost: ArrayRef = if self.cost_usd.values.is_empty() {
            new_null_array(&DataType::Decimal128(18, 9), n)
        } else {
            let cost: Decimal128Array = self.cost_usd.finish(n);
            Arc::new(cost.with_precision_and_scale(18, 9)?)
        };
        let columns: Vec<ArrayRef> = vec![
            date,
            self.row_id.finish(n),
            micros(&mut self.start_time),
            micros(&mut self.end_time),
            longs(&mut self.duration_ns),
            self.kind.finish(n),
            self.tenant.finish(n),
            self.service_name.finish(n),
            self.service_version.finish(n),
            self.environment.finish(n),
            self.tool_name.finish(n),
            self.tool_type.finish(n),
            self.tool_server.finish(n),
            self.agent_name.finish(n),
            self.session_id.finish(n),
            self.user_id.finish(n),
            self.team.finish(n),
            self.model.finish(n),
            self.layer.finish(n),
            all_true(n),
            self.trace_id.finish(n),
            self.span_id.finish(n),
            self.parent_span_id.finish(n),
            self.call_id.finish(n),
            int64(&mut self.arguments_fingerprint),
            longs(&mut self.wal_position),
            self.signal.finish(n),
            self.convention.finish(n),
            self.outcome.finish(n),
            self.error_class.finish(n),
            self.error_type.finish(n),
            int32(&mut self.status_code),
            self.error_message.finish(n),
            int64(&mut self.error_fingerprint),
            Arc::new(Int32Array::from(vec![1; n])),
            all_true(n),
            int32(&mut self.fallback_level),
            self.circuit_state.finish(n),
            self.side_effect.finish(n),
            int64(&mut self.input_tokens),
            int64(&mut self.output_tokens),
            int64(&mut self.cached_input_tokens),
            int64(&mut self.reasoning_tokens),
            int64(&mut self.input_bytes),
            int64(&mut self.output_bytes),
            self.argument_keys.finish(n),
            cost,
            self.cost_source.finish(n),
            Arc::new(Decimal128Array::from(vec![1_000_000; n]).with_precision_and_scale(18, 6)?),
            self.attributes.finish(n),
            self.provider.finish(n),
            int64(&mut self.cache_write_input_tokens),
            new_null_array(&DataType::Binary, n),
            new_null_array(&DataType::Int64, n),
            new_null_array(&DataType::Int64, n),
        ];
        RecordBatch::try_new(Table::Calls.live_schema(), columns)
    }
}

fn all_true(n: usize) -> ArrayRef {
    let mut bits = BooleanBufferBuilder::new(n);
    bits.append_n(n, true);
    Arc::new(arrow::array::BooleanArray::new(bits.finish(), None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_that_were_skipped_are_null_and_words_are_interned() {
        let mut column = WordColumn::default();
        column.set(1, "search");
        column.set(2, "fetch");
        column.set(4, "search");
        let array = column.finish(6);
        let text = arrow::compute::cast(&array, &arrow::datatypes::DataType::Utf8).unwrap();
        let text: Vec<_> = text.as_any().downcast_ref::<StringArray>().unwrap().iter().collect();
        assert_eq!(text, [None, Some("search"), Some("fetch"), None, Some("search"), None]);
        column.set(0, "fetch");
        assert_eq!(column.finish(1).len(), 1);
    }
}
