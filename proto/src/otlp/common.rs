//! What traces and logs share: attributes and their values, resource and scope.
//!
//! A value is read when its key is. Lists are walked by their iterators; a list that is spread over several occurrences of
//! its field (protobuf then joins them; no known encoder writes that) keeps the message that holds the pieces, and its
//! iterator joins them on the way.

use super::wire::{Reader, Stretch, fixed64, len, usual_pair, usual_text, varint};

/// `AnyValue`: the value of an attribute, or the body of a log record.
#[derive(Clone, Copy, Debug)]
pub enum AnyValueView<'a> {
    /// No value.
    Empty,
    /// Text, as its bytes; may not be UTF-8.
    String(&'a [u8]),
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A floating point number.
    Double(f64),
    /// Bytes.
    Bytes(&'a [u8]),
    /// A list of values.
    Array(ArrayView<'a>),
    /// A list of attributes.
    KeyValueList(KeyValueListView<'a>),
}

const ARRAY: u32 = 5;
const KEY_VALUE_LIST: u32 = 6;
/// The numbers of `AnyValue`'s fields are 1 to this; all belong to one `oneof`.
const VALUE_LAST: u32 = 8;
/// The field of `ArrayValue` and `KeyValueList` that holds the elements.
const ELEMENTS: u32 = len(1);

impl<'a> AnyValueView<'a> {
    #[inline(always)]
    pub(super) fn read(message: &'a [u8]) -> Self {
        match usual_text(message) {
            Some(text) => Self::String(text),
            None => Self::read_any(message),
        }
    }

    fn read_any(message: &'a [u8]) -> Self {
        let mut reader = Reader::new(message);
        let mut value = Self::Empty;
        while !reader.is_empty() {
            match Self::field(&mut reader, value) {
                Some(Field::Value(next)) => value = next,
                Some(Field::Unknown) => {}
                Some(Field::Joins) => return Self::joined(List { bytes: message, spread: Spread::Value }),
                None => break,
            }
        }
        value
    }

    /// Reads one field; `before` is the value so far.
    #[inline(always)]
    fn field(reader: &mut Reader<'a>, before: Self) -> Option<Field<'a>> {
        const STRING: u32 = len(1);
        const BOOL: u32 = varint(2);
        const INT: u32 = varint(3);
        const DOUBLE: u32 = fixed64(4);
        const ARRAY_VALUE: u32 = len(ARRAY);
        const KEY_VALUE_LIST_VALUE: u32 = len(KEY_VALUE_LIST);
        const BYTES: u32 = len(7);
        const STRING_INDEX: u32 = varint(VALUE_LAST);
        let key = reader.key().ok()?;
        Some(Field::Value(match key {
            STRING => Self::String(reader.bytes().ok()?),
            BOOL => Self::Bool(reader.varint().ok()? != 0),
            INT => Self::Int(reader.varint().ok()?.cast_signed()),
            DOUBLE => Self::Double(f64::from_bits(reader.fixed64().ok()?)),
            ARRAY_VALUE => {
                let bytes = reader.bytes().ok()?;
                if matches!(before, Self::Array(_)) {
                    return Some(Field::Joins);
                }
                Self::Array(ArrayView(List { bytes, spread: Spread::Whole }))
            }
            KEY_VALUE_LIST_VALUE => {
                let bytes = reader.bytes().ok()?;
                if matches!(before, Self::KeyValueList(_)) {
                    return Some(Field::Joins);
                }
                Self::KeyValueList(KeyValueListView(List { bytes, spread: Spread::Whole }))
            }
            BYTES => Self::Bytes(reader.bytes().ok()?),
            STRING_INDEX => {
                reader.varint().ok()?;
                Self::Empty
            }
            _ => {
                reader.pass(key)?;
                return Some(Field::Unknown);
            }
        }))
    }

    /// The value in field `tag` of `message`, where it occurs several times.
    #[cold]
    pub(super) fn merged(message: &'a [u8], tag: u32) -> Self {
        Self::joined(List { bytes: message, spread: Spread::Field(tag) })
    }

    /// The value whose pieces lie in `source`.
    #[cold]
    fn joined(source: List<'a>) -> Self {
        let mut value = Self::Empty;
        let (mut outer, tag, mut inner) = source.readers();
        loop {
            while !inner.is_empty() {
                match Self::field(&mut inner, value) {
                    Some(Field::Value(next)) => value = next,
                    Some(Field::Unknown) => {}
                    Some(Field::Joins) => {
                        value = match value {
                            Self::Array(_) => Self::Array(ArrayView(source)),
                            _ => Self::KeyValueList(KeyValueListView(source)),
                        };
                    }
                    None => break,
                }
            }
            match outer.find(len(tag)) {
                Some(next) => inner = Reader::new(next),
                None => return value,
            }
        }
    }
}

/// What one field of an `AnyValue` says.
enum Field<'a> {
    Value(AnyValueView<'a>),
    /// One more piece of the list that is the value so far.
    Joins,
    Unknown,
}

/// Where the elements of a list are.
#[derive(Clone, Copy, Debug)]
struct List<'a> {
    bytes: &'a [u8],
    spread: Spread,
}

#[derive(Clone, Copy, Debug)]
enum Spread {
    /// The bytes are the one `ArrayValue` or `KeyValueList`.
    Whole,
    /// The bytes are an `AnyValue` that holds several pieces.
    Value,
    /// The bytes are a message that holds an `AnyValue` several times, in this field.
    Field(u32),
}

impl<'a> List<'a> {
    /// The message that holds the `AnyValue`s, in which field, and the first of them.
    fn readers(self) -> (Reader<'a>, u32, Reader<'a>) {
        match self.spread {
            Spread::Whole => (Reader::default(), 1, Reader::default()),
            Spread::Value => (Reader::default(), 1, Reader::new(self.bytes)),
            Spread::Field(tag) => (Reader::new(self.bytes), tag, Reader::default()),
        }
    }

    #[inline(always)]
    fn elements(self, list: u32) -> Elements<'a> {
        match self.spread {
            Spread::Whole => Elements { piece: Reader::new(self.bytes), pieces: None },
            _ => Elements { piece: Reader::default(), pieces: Some(Pieces::of(self, list)) },
        }
    }
}

/// The elements of a list, each as the bytes of its message.
#[derive(Clone, Debug)]
struct Elements<'a> {
    piece: Reader<'a>,
    pieces: Option<Pieces<'a>>,
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    #[inline(always)]
    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            if let Some(element) = self.piece.find(ELEMENTS) {
                return Some(element);
            }
            self.piece = Reader::new(self.pieces.as_mut()?.next()?);
        }
    }
}

/// The pieces that a list is joined from: the last run of its field, not broken by another kind of value.
#[derive(Clone, Debug)]
struct Pieces<'a> {
    outer: Reader<'a>,
    tag: u32,
    inner: Reader<'a>,
    /// Fields of `AnyValue`s that come before the run.
    before: usize,
}

impl<'a> Pieces<'a> {
    #[cold]
    fn of(source: List<'a>, list: u32) -> Self {
        let (outer, tag, inner) = source.readers();
        let whole = Self { outer, tag, inner, before: 0 };
        let mut scan = whole.clone();
        let mut count = 0;
        let mut before = 0;
        while let Some(key) = scan.value_key() {
            count += 1;
            if key != len(list) {
                before = count;
            }
            if scan.inner.pass(key).is_none() {
                break;
            }
        }
        Self { before, ..whole }
    }

    /// The key of the next field that sets a value.
    fn value_key(&mut self) -> Option<u32> {
        loop {
            while !self.inner.is_empty() {
                let key = self.inner.key().ok()?;
                if key >> 3 <= VALUE_LAST {
                    return Some(key);
                }
                self.inner.pass(key)?;
            }
            self.inner = Reader::new(self.outer.find(len(self.tag))?);
        }
    }

    #[cold]
    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let key = self.value_key()?;
            if self.before == 0 {
                return self.inner.bytes().ok();
            }
            self.before -= 1;
            self.inner.pass(key)?;
        }
    }
}

/// A list of values.
#[derive(Clone, Copy, Debug)]
pub struct ArrayView<'a>(List<'a>);

impl<'a> ArrayView<'a> {
    /// The values, in order.
    #[must_use]
    pub fn iter(&self) -> ArrayIter<'a> {
        ArrayIter(self.0.elements(ARRAY))
    }
}

impl<'a> IntoIterator for ArrayView<'a> {
    type Item = AnyValueView<'a>;
    type IntoIter = ArrayIter<'a>;

    fn into_iter(self) -> ArrayIter<'a> {
        self.iter()
    }
}

/// The values of an [`ArrayView`].
#[derive(Clone, Debug)]
pub struct ArrayIter<'a>(Elements<'a>);

impl<'a> Iterator for ArrayIter<'a> {
    type Item = AnyValueView<'a>;

    fn next(&mut self) -> Option<AnyValueView<'a>> {
        self.0.next().map(AnyValueView::read)
    }
}

/// A list of attributes as a value.
#[derive(Clone, Copy, Debug)]
pub struct KeyValueListView<'a>(List<'a>);

impl<'a> KeyValueListView<'a> {
    /// The attributes, in order; keys may repeat.
    #[must_use]
    pub fn iter(&self) -> KeyValueIter<'a> {
        KeyValueIter(self.0.elements(KEY_VALUE_LIST))
    }
}

impl<'a> IntoIterator for KeyValueListView<'a> {
    type Item = KeyValueView<'a>;
    type IntoIter = KeyValueIter<'a>;

    fn into_iter(self) -> KeyValueIter<'a> {
        self.iter()
    }
}

/// The attributes of a [`KeyValueListView`].
#[derive(Clone, Debug)]
pub struct KeyValueIter<'a>(Elements<'a>);

impl<'a> Iterator for KeyValueIter<'a> {
    type Item = KeyValueView<'a>;

    fn next(&mut self) -> Option<KeyValueView<'a>> {
        self.0.next().map(KeyValueView::read)
    }
}

/// One attribute.
#[derive(Clone, Copy, Debug)]
pub struct KeyValueView<'a> {
    /// The key's bytes; may not be UTF-8.
    pub key: &'a [u8],
    /// The value.
    pub value: AnyValueView<'a>,
}

impl<'a> KeyValueView<'a> {
    #[inline(always)]
    fn read(message: &'a [u8]) -> Self {
        match usual_pair(message) {
            Some((key, value)) => Self { key, value: AnyValueView::read(value) },
            None => Self::read_any(message),
        }
    }

    fn read_any(message: &'a [u8]) -> Self {
        const KEY: u32 = len(1);
        const VALUE: u32 = len(2);
        let mut reader = Reader::new(message);
        let mut name: &[u8] = &[];
        let mut value = OneValue::default();
        while let Ok(key) = reader.key() {
            match key {
                KEY => name = reader.bytes().unwrap_or_default(),
                VALUE => value.note(reader.bytes().unwrap_or_default()),
                _ if reader.pass(key).is_none() => break,
                _ => {}
            }
        }
        Self { key: name, value: value.read(message, 2) }
    }
}

/// The field of a message that holds an `AnyValue`, and nearly always once.
#[derive(Clone, Copy, Default)]
pub(super) struct OneValue<'a> {
    bytes: &'a [u8],
    seen: bool,
    again: bool,
}

impl<'a> OneValue<'a> {
    #[inline(always)]
    pub(super) fn note(&mut self, bytes: &'a [u8]) {
        self.again = self.seen;
        self.seen = true;
        self.bytes = bytes;
    }

    /// The value; `message` holds it in field `tag`.
    #[inline(always)]
    pub(super) fn read(self, message: &'a [u8], tag: u32) -> AnyValueView<'a> {
        if self.again { AnyValueView::merged(message, tag) } else { AnyValueView::read(self.bytes) }
    }
}

/// The attributes of a span, event, log record, resource or scope, in order; keys may repeat.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    inner: Reader<'a>,
    key: u32,
    /// What follows of a message that holds the owner of the attributes in several pieces.
    outer: Reader<'a>,
    outer_key: u32,
}

impl<'a> Attributes<'a> {
    /// The attributes in field `tag` of `message`.
    #[inline(always)]
    pub(super) fn of(message: &'a [u8], tag: u32) -> Self {
        Self { inner: Reader::new(message), key: len(tag), outer: Reader::default(), outer_key: 0 }
    }

    /// The attributes in field `tag` of every message in field `outer_tag` of `outer`.
    #[inline(always)]
    fn within(outer: &'a [u8], outer_tag: u32, tag: u32) -> Self {
        Self { inner: Reader::default(), key: len(tag), outer: Reader::new(outer), outer_key: len(outer_tag) }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = KeyValueView<'a>;

    #[inline]
    fn next(&mut self) -> Option<KeyValueView<'a>> {
        loop {
            if let Some(message) = self.inner.find(self.key) {
                return Some(KeyValueView::read(message));
            }
            self.inner = Reader::new(self.outer.find(self.outer_key)?);
        }
    }
}

/// `Resource`: who sent.
#[derive(Clone, Copy, Debug)]
pub struct ResourceView<'a> {
    /// The stretch of the enclosing message that holds the resource, in field 1.
    stretch: &'a [u8],
}

impl<'a> ResourceView<'a> {
    /// The resource's attributes.
    #[must_use]
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes::within(self.stretch, 1, 1)
    }

    /// The bytes that hold the resource; the same resource from the same encoder has the same bytes.
    #[must_use]
    pub const fn raw(&self) -> &'a [u8] {
        self.stretch
    }
}

/// `InstrumentationScope`: which library wrote.
#[derive(Clone, Copy, Debug)]
pub struct ScopeView<'a> {
    /// The stretch of the enclosing message that holds the scope, in field 1.
    stretch: &'a [u8],
    /// The scope's name, as bytes; may not be UTF-8.
    pub name: &'a [u8],
    /// The scope's version, as bytes; may not be UTF-8.
    pub version: &'a [u8],
}

impl<'a> ScopeView<'a> {
    #[inline]
    fn read(stretch: &'a [u8]) -> Self {
        const NAME: u32 = len(1);
        const VERSION: u32 = len(2);
        let mut scope = Self { stretch, name: &[], version: &[] };
        let mut pieces = Reader::new(stretch);
        while let Some(piece) = pieces.find(len(1)) {
            let mut reader = Reader::new(piece);
            while let Ok(key) = reader.key() {
                match key {
                    NAME => scope.name = reader.bytes().unwrap_or_default(),
                    VERSION => scope.version = reader.bytes().unwrap_or_default(),
                    _ if reader.pass(key).is_none() => break,
                    _ => {}
                }
            }
        }
        scope
    }

    /// The scope's attributes.
    #[must_use]
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes::within(self.stretch, 1, 3)
    }

    /// The bytes that hold the scope; the same scope from the same encoder has the same bytes.
    #[must_use]
    pub const fn raw(&self) -> &'a [u8] {
        self.stretch
    }
}

/// A message that holds a head in field 1 (the resource, the scope) and elements in field 2: found in one pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section<'a> {
    pub(super) raw: &'a [u8],
    head: &'a [u8],
    elements: &'a [u8],
    pub(super) count: usize,
}

impl<'a> Section<'a> {
    #[inline]
    pub(super) fn read(raw: &'a [u8]) -> Self {
        const HEAD: u32 = len(1);
        const ELEMENT: u32 = len(2);
        let mut reader = Reader::new(raw);
        let mut head = Stretch::default();
        let mut elements = Stretch::default();
        let mut count = 0;
        loop {
            let left_before = reader.left();
            let Ok(key) = reader.key() else { break };
            if reader.pass(key).is_none() {
                break;
            }
            match key {
                HEAD => head.note(left_before, reader.left()),
                ELEMENT => {
                    elements.note(left_before, reader.left());
                    count += 1;
                }
                _ => {}
            }
        }
        Self { raw, head: head.of(raw), elements: elements.of(raw), count }
    }

    pub(super) fn resource(&self) -> ResourceView<'a> {
        ResourceView { stretch: self.head }
    }

    pub(super) fn scope(&self) -> ScopeView<'a> {
        ScopeView::read(self.head)
    }

    #[inline]
    pub(super) fn elements(&self) -> Messages<'a> {
        Messages::of(self.elements, 2)
    }
}

/// The messages in one field of a message, each as its bytes.
#[derive(Clone, Debug)]
pub(super) struct Messages<'a> {
    reader: Reader<'a>,
    key: u32,
}

impl<'a> Messages<'a> {
    #[inline(always)]
    pub(super) fn of(message: &'a [u8], tag: u32) -> Self {
        Self { reader: Reader::new(message), key: len(tag) }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = &'a [u8];

    #[inline(always)]
    fn next(&mut self) -> Option<&'a [u8]> {
        self.reader.find(self.key)
    }
}
