//! OTLP export requests, read in place from the bytes that arrived.
//!
//! [`TracesView`], [`LogsView`] and [`metric_points`] check the wire framing of a whole request once; what follows borrows
//! from the request's bytes, copies nothing, allocates nothing and cannot fail.
//!
//! # Limits and guarantees
//!
//! * A request is accepted exactly when `prost` with the messages of `opentelemetry-proto` accepts it, with one exception:
//!   strings are handed out as bytes, and bytes that are not UTF-8 are no error here. Whoever reads the string decides.
//! * Fields have the values `prost` gives them. The last of several scalars wins; several occurrences of a singular message
//!   (`status`, `resource`, `scope`, `value`, `body`) are merged. Two differences in what is told: a message that is absent reads
//!   like one that is empty, and `string_value_strindex`, an index into a dictionary that only profiles have, reads as
//!   [`AnyValueView::Empty`].
//! * Unknown fields and groups are skipped at every level. Messages and groups may nest 100 deep, as in `prost`.
//! * Nothing here panics, whatever the bytes.
//!
//! # How it works
//!
//! | module   | does |
//! |----------|------|
//! | `wire`   | keys, varints, lengths: the cursor over one message's bytes |
//! | `check`  | the schema as tables, one function per message; the only place that knows every field |
//! | `common` | attributes and values, resource and scope |
//! | `trace`, `logs` | the views: each reads its message's fields in one pass |
//! | `metrics` | counts data points |
//!
//! A list of messages is not collected: the pass over a message notes the stretch from the first to the last element, and
//! the iterator walks that stretch.
//!
//! # Failure
//!
//! [`Malformed`] says what is wrong and at which byte. `trusted` constructors skip the check for bytes that passed it before;
//! should such bytes be broken after all, iteration ends early.

mod check;
mod common;
mod logs;
mod metrics;
mod trace;
mod wire;

#[cfg(test)]
mod tests;

pub use common::{
    AnyValueView, ArrayIter, ArrayView, Attributes, KeyValueIter, KeyValueListView, KeyValueView, ResourceView,
    ScopeView,
};
pub use logs::{LogRecordView, LogRecords, LogsView, ResourceLogs, ResourceLogsView, ScopeLogs, ScopeLogsView};
pub use metrics::metric_points;
pub use trace::{
    EventView, Events, ResourceSpans, ResourceSpansView, ScopeSpans, ScopeSpansView, SpanView, Spans, StatusView,
    TracesView,
};
pub use wire::{Fault, Malformed};
