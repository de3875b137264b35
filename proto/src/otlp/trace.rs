//! `ExportTraceServiceRequest`.

use super::check;
use super::common::{Attributes, Messages, ResourceView, ScopeView, Section};
use super::wire::{Malformed, Reader, Stretch, fixed32, fixed64, len, varint};

/// `ExportTraceServiceRequest` (and `TracesData`, which is the same on the wire).
#[derive(Clone, Copy, Debug)]
pub struct TracesView<'a> {
    raw: &'a [u8],
}

impl<'a> TracesView<'a> {
    /// Checks the wire framing of the whole request.
    ///
    /// # Errors
    ///
    /// [`Malformed`] says where the bytes are no request.
    pub fn new(request: &'a [u8]) -> Result<Self, Malformed> {
        check::request(request, check::traces)?;
        Ok(Self { raw: request })
    }

    /// A view of bytes that passed [`Self::new`] before.
    #[must_use]
    pub const fn trusted(request: &'a [u8]) -> Self {
        Self { raw: request }
    }

    /// The request's parts, one for each resource.
    #[must_use]
    pub fn resource_spans(&self) -> ResourceSpans<'a> {
        ResourceSpans(Messages::of(self.raw, 1))
    }

    /// How many spans the request holds; costs a walk over the spans' headers.
    #[must_use]
    pub fn span_count(&self) -> usize {
        self.resource_spans().flat_map(|resource| resource.scope_spans()).map(|scope| scope.span_count()).sum()
    }
}

/// `ResourceSpans`: the spans of one resource.
#[derive(Clone, Copy, Debug)]
pub struct ResourceSpansView<'a>(Section<'a>);

impl<'a> ResourceSpansView<'a> {
    /// Who sent the spans.
    #[must_use]
    pub fn resource(&self) -> ResourceView<'a> {
        self.0.resource()
    }

    /// The spans, one part for each scope.
    #[must_use]
    pub fn scope_spans(&self) -> ScopeSpans<'a> {
        ScopeSpans(self.0.elements())
    }

    /// The message's bytes.
    #[must_use]
    pub const fn raw(&self) -> &'a [u8] {
        self.0.raw
    }
}

/// `ScopeSpans`: the spans of one instrumentation scope.
#[derive(Clone, Copy, Debug)]
pub struct ScopeSpansView<'a>(Section<'a>);

impl<'a> ScopeSpansView<'a> {
    /// Which library wrote the spans.
    #[must_use]
    pub fn scope(&self) -> ScopeView<'a> {
        self.0.scope()
    }

    /// The spans.
    #[must_use]
    pub fn spans(&self) -> Spans<'a> {
        Spans(self.0.elements())
    }

    /// How many spans there are.
    #[must_use]
    pub const fn span_count(&self) -> usize {
        self.0.count
    }

    /// The message's bytes.
    #[must_use]
    pub const fn raw(&self) -> &'a [u8] {
        self.0.raw
    }
}

/// `Span`. Ids and texts are the bytes that were sent: ids may have any length, texts may not be UTF-8.
#[derive(Clone, Copy, Debug)]
pub struct SpanView<'a> {
    raw: &'a [u8],
    attributes: Stretch,
    events: Stretch,
    /// 16 bytes by the specification.
    pub trace_id: &'a [u8],
    /// 8 bytes by the specification.
    pub span_id: &'a [u8],
    /// 8 bytes by the specification; empty for a root.
    pub parent_span_id: &'a [u8],
    /// W3C `tracestate`.
    pub trace_state: &'a [u8],
    /// W3C trace flags in bits 0 to 7; bits 8 and 9 say whether the parent is remote.
    pub flags: u32,
    /// The span's name.
    pub name: &'a [u8],
    /// `SpanKind`; any number may come.
    pub kind: i32,
    /// Start, in nanoseconds since 1970.
    pub start_time_unix_nano: u64,
    /// End, in nanoseconds since 1970.
    pub end_time_unix_nano: u64,
    /// How it ended.
    pub status: StatusView<'a>,
}

impl<'a> SpanView<'a> {
    #[inline]
    fn read(raw: &'a [u8]) -> Self {
        const TRACE_ID: u32 = len(1);
        const SPAN_ID: u32 = len(2);
        const TRACE_STATE: u32 = len(3);
        const PARENT_SPAN_ID: u32 = len(4);
        const NAME: u32 = len(5);
        const KIND: u32 = varint(6);
        const START: u32 = fixed64(7);
        const END: u32 = fixed64(8);
        const ATTRIBUTE: u32 = len(9);
        const EVENT: u32 = len(11);
        const STATUS: u32 = len(15);
        const FLAGS: u32 = fixed32(16);
        let mut span = Self {
            raw,
            attributes: Stretch::default(),
            events: Stretch::default(),
            trace_id: &[],
            span_id: &[],
            parent_span_id: &[],
            trace_state: &[],
            flags: 0,
            name: &[],
            kind: 0,
            start_time_unix_nano: 0,
            end_time_unix_nano: 0,
            status: StatusView::default(),
        };
        let mut reader = Reader::new(raw);
        loop {
            let left_before = reader.left();
            let Ok(key) = reader.key() else { break };
            match key {
                TRACE_ID => span.trace_id = reader.bytes().unwrap_or_default(),
                SPAN_ID => span.span_id = reader.bytes().unwrap_or_default(),
                TRACE_STATE => span.trace_state = reader.bytes().unwrap_or_default(),
                PARENT_SPAN_ID => span.parent_span_id = reader.bytes().unwrap_or_default(),
                NAME => span.name = reader.bytes().unwrap_or_default(),
                // Enumerations are 32 bits wide; `prost` drops the rest as well.
                KIND => span.kind = reader.varint().unwrap_or_default() as i32,
                START => span.start_time_unix_nano = reader.fixed64().unwrap_or_default(),
                END => span.end_time_unix_nano = reader.fixed64().unwrap_or_default(),
                ATTRIBUTE => {
                    if reader.bytes().is_err() {
                        break;
                    }
                    span.attributes.note(left_before, reader.left());
                }
                EVENT => {
                    if reader.bytes().is_err() {
                        break;
                    }
                    span.events.note(left_before, reader.left());
                }
                STATUS => span.status.merge(reader.bytes().unwrap_or_default()),
                FLAGS => span.flags = reader.fixed32().unwrap_or_default(),
                _ if reader.pass(key).is_none() => break,
                _ => {}
            }
        }
        span
    }

    /// The span's attributes.
    #[inline]
    #[must_use]
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes::of(self.attributes.of(self.raw), 9)
    }

    /// The span's events.
    #[inline]
    #[must_use]
    pub fn events(&self) -> Events<'a> {
        Events(Messages::of(self.events.of(self.raw), 11))
    }

    /// The message's bytes.
    #[must_use]
    pub const fn raw(&self) -> &'a [u8] {
        self.raw
    }
}

/// `Status`: how a span ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct StatusView<'a> {
    /// `StatusCode`: 0 unset, 1 ok, 2 error; any number may come.
    pub code: i32,
    /// Text for people; may not be UTF-8.
    pub message: &'a [u8],
}

impl<'a> StatusView<'a> {
    #[inline]
    fn merge(&mut self, piece: &'a [u8]) {
        const MESSAGE: u32 = len(2);
        const CODE: u32 = varint(3);
        let mut reader = Reader::new(piece);
        while let Ok(key) = reader.key() {
            match key {
                MESSAGE => self.message = reader.bytes().unwrap_or_default(),
                CODE => self.code = reader.varint().unwrap_or_default() as i32,
                _ if reader.pass(key).is_none() => break,
                _ => {}
            }
        }
    }
}

/// `Span.Event`.
#[derive(Clone, Copy, Debug)]
pub struct EventView<'a> {
    raw: &'a [u8],
    /// When, in nanoseconds since 1970.
    pub time_unix_nano: u64,
    /// The event's name; may not be UTF-8.
    pub name: &'a [u8],
}

impl<'a> EventView<'a> {
    #[inline]
    fn read(raw: &'a [u8]) -> Self {
        const TIME: u32 = fixed64(1);
        const NAME: u32 = len(2);
        let mut event = Self { raw, time_unix_nano: 0, name: &[] };
        let mut reader = Reader::new(raw);
        while let Ok(key) = reader.key() {
            match key {
                TIME => event.time_unix_nano = reader.fixed64().unwrap_or_default(),
                NAME => event.name = reader.bytes().unwrap_or_default(),
                _ if reader.pass(key).is_none() => break,
                _ => {}
            }
        }
        event
    }

    /// The event's attributes.
    #[must_use]
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes::of(self.raw, 3)
    }

    /// The event's bytes.
    #[must_use]
    pub const fn raw(&self) -> &'a [u8] {
        self.raw
    }
}

/// The [`ResourceSpansView`]s of a request.
#[derive(Clone, Debug)]
pub struct ResourceSpans<'a>(Messages<'a>);

impl<'a> Iterator for ResourceSpans<'a> {
    type Item = ResourceSpansView<'a>;

    fn next(&mut self) -> Option<ResourceSpansView<'a>> {
        self.0.next().map(|raw| ResourceSpansView(Section::read(raw)))
    }
}

/// The [`ScopeSpansView`]s of a resource.
#[derive(Clone, Debug)]
pub struct ScopeSpans<'a>(Messages<'a>);

impl<'a> Iterator for ScopeSpans<'a> {
    type Item = ScopeSpansView<'a>;

    fn next(&mut self) -> Option<ScopeSpansView<'a>> {
        self.0.next().map(|raw| ScopeSpansView(Section::read(raw)))
    }
}

/// The [`SpanView`]s of a scope.
#[derive(Clone, Debug)]
pub struct Spans<'a>(Messages<'a>);

impl<'a> Iterator for Spans<'a> {
    type Item = SpanView<'a>;

    #[inline]
    fn next(&mut self) -> Option<SpanView<'a>> {
        self.0.next().map(SpanView::read)
    }
}

/// The [`EventView`]s of a span.
#[derive(Clone, Debug)]
pub struct Events<'a>(Messages<'a>);

impl<'a> Iterator for Events<'a> {
    type Item = EventView<'a>;

    #[inline]
    fn next(&mut self) -> Option<EventView<'a>> {
        self.0.next().map(EventView::read)
    }
}
