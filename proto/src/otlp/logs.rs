//! `ExportLogsServiceRequest`.

use super::check;
use super::common::{AnyValueView, Attributes, Messages, OneValue, ResourceView, ScopeView, Section};
use super::wire::{Malformed, Reader, Stretch, fixed32, fixed64, len, varint};

/// `ExportLogsServiceRequest` (and `LogsData`, which is the same on the wire).
#[derive(Clone, Copy, Debug)]
pub struct LogsView<'a> {
    raw: &'a [u8],
}

impl<'a> LogsView<'a> {
    /// Checks the wire framing of the whole request.
    ///
    /// # Errors
    ///
    /// [`Malformed`] says where the bytes are no request.
    pub fn new(request: &'a [u8]) -> Result<Self, Malformed> {
        check::request(request, check::logs)?;
        Ok(Self { raw: request })
    }

    /// A view of bytes that passed [`Self::new`] before.
    #[must_use]
    pub const fn trusted(request: &'a [u8]) -> Self {
        Self { raw: request }
    }

    /// The request's parts, one for each resource.
    #[must_use]
    pub fn resource_logs(&self) -> ResourceLogs<'a> {
        ResourceLogs(Messages::of(self.raw, 1))
    }

    /// How many log records the request holds; costs a walk over the records' headers.
    #[must_use]
    pub fn log_record_count(&self) -> usize {
        self.resource_logs().flat_map(|resource| resource.scope_logs()).map(|scope| scope.log_record_count()).sum()
    }
}

/// `ResourceLogs`: the log records of one resource.
#[derive(Clone, Copy, Debug)]
pub struct ResourceLogsView<'a>(Section<'a>);

impl<'a> ResourceLogsView<'a> {
    /// Who sent the log records.
    #[must_use]
    pub fn resource(&self) -> ResourceView<'a> {
        self.0.resource()
    }

    /// The log records, one part for each scope.
    #[must_use]
    pub fn scope_logs(&self) -> ScopeLogs<'a> {
        ScopeLogs(self.0.elements())
    }

    /// The message's bytes.
    #[must_use]
    pub const fn raw(&self) -> &'a [u8] {
        self.0.raw
    }
}

/// `ScopeLogs`: the log records of one instrumentation scope.
#[derive(Clone, Copy, Debug)]
pub struct ScopeLogsView<'a>(Section<'a>);

impl<'a> ScopeLogsView<'a> {
    /// Which library wrote the log records.
    #[must_use]
    pub fn scope(&self) -> ScopeView<'a> {
        self.0.scope()
    }

    /// The log records.
    #[must_use]
    pub fn log_records(&self) -> LogRecords<'a> {
        LogRecords(self.0.elements())
    }

    /// How many log records there are.
    #[must_use]
    pub const fn log_record_count(&self) -> usize {
        self.0.count
    }

    /// The message's bytes.
    #[must_use]
    pub const fn raw(&self) -> &'a [u8] {
        self.0.raw
    }
}

/// `LogRecord`. Ids and texts are the bytes that were sent: ids may have any length, texts may not be UTF-8.
#[derive(Clone, Copy, Debug)]
pub struct LogRecordView<'a> {
    raw: &'a [u8],
    attributes: Stretch,
    /// When it happened, in nanoseconds since 1970; 0 if unknown.
    pub time_unix_nano: u64,
    /// When it was seen, in nanoseconds since 1970; 0 if unknown.
    pub observed_time_unix_nano: u64,
    /// `SeverityNumber`; any number may come.
    pub severity_number: i32,
    /// The severity as the source calls it.
    pub severity_text: &'a [u8],
    /// The body.
    pub body: AnyValueView<'a>,
    /// W3C trace flags in bits 0 to 7.
    pub flags: u32,
    /// 16 bytes by the specification, or empty.
    pub trace_id: &'a [u8],
    /// 8 bytes by the specification, or empty.
    pub span_id: &'a [u8],
    /// The event's name, for a record that is an event.
    pub event_name: &'a [u8],
}

impl<'a> LogRecordView<'a> {
    #[inline]
    fn read(raw: &'a [u8]) -> Self {
        const TIME: u32 = fixed64(1);
        const SEVERITY_NUMBER: u32 = varint(2);
        const SEVERITY_TEXT: u32 = len(3);
        const BODY: u32 = len(5);
        const ATTRIBUTE: u32 = len(6);
        const FLAGS: u32 = fixed32(8);
        const TRACE_ID: u32 = len(9);
        const SPAN_ID: u32 = len(10);
        const OBSERVED_TIME: u32 = fixed64(11);
        const EVENT_NAME: u32 = len(12);
        let mut record = Self {
            raw,
            attributes: Stretch::default(),
            time_unix_nano: 0,
            observed_time_unix_nano: 0,
            severity_number: 0,
            severity_text: &[],
            body: AnyValueView::Empty,
            flags: 0,
            trace_id: &[],
            span_id: &[],
            event_name: &[],
        };
        let mut body = OneValue::default();
        let mut reader = Reader::new(raw);
        loop {
            let left_before = reader.left();
            let Ok(key) = reader.key() else { break };
            match key {
                TIME => record.time_unix_nano = reader.fixed64().unwrap_or_default(),
                // Enumerations are 32 bits wide; `prost` drops the rest as well.
                SEVERITY_NUMBER => record.severity_number = reader.varint().unwrap_or_default() as i32,
                SEVERITY_TEXT => record.severity_text = reader.bytes().unwrap_or_default(),
                BODY => body.note(reader.bytes().unwrap_or_default()),
                ATTRIBUTE => {
                    if reader.bytes().is_err() {
                        break;
                    }
                    record.attributes.note(left_before, reader.left());
                }
                FLAGS => record.flags = reader.fixed32().unwrap_or_default(),
                TRACE_ID => record.trace_id = reader.bytes().unwrap_or_default(),
                SPAN_ID => record.span_id = reader.bytes().unwrap_or_default(),
                OBSERVED_TIME => record.observed_time_unix_nano = reader.fixed64().unwrap_or_default(),
                EVENT_NAME => record.event_name = reader.bytes().unwrap_or_default(),
                _ if reader.pass(key).is_none() => break,
                _ => {}
            }
        }
        record.body = body.read(raw, 5);
        record
    }

    /// The record's attributes.
    #[inline]
    #[must_use]
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes::of(self.attributes.of(self.raw), 6)
    }

    /// The message's bytes.
    #[must_use]
    pub const fn raw(&self) -> &'a [u8] {
        self.raw
    }
}

/// The [`ResourceLogsView`]s of a request.
#[derive(Clone, Debug)]
pub struct ResourceLogs<'a>(Messages<'a>);

impl<'a> Iterator for ResourceLogs<'a> {
    type Item = ResourceLogsView<'a>;

    fn next(&mut self) -> Option<ResourceLogsView<'a>> {
        self.0.next().map(|raw| ResourceLogsView(Section::read(raw)))
    }
}

/// The [`ScopeLogsView`]s of a resource.
#[derive(Clone, Debug)]
pub struct ScopeLogs<'a>(Messages<'a>);

impl<'a> Iterator for ScopeLogs<'a> {
    type Item = ScopeLogsView<'a>;

    fn next(&mut self) -> Option<ScopeLogsView<'a>> {
        self.0.next().map(|raw| ScopeLogsView(Section::read(raw)))
    }
}

/// The [`LogRecordView`]s of a scope.
#[derive(Clone, Debug)]
pub struct LogRecords<'a>(Messages<'a>);

impl<'a> Iterator for LogRecords<'a> {
    type Item = LogRecordView<'a>;

    #[inline]
    fn next(&mut self) -> Option<LogRecordView<'a>> {
        self.0.next().map(LogRecordView::read)
    }
}
