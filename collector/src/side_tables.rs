//! Batches of `arrivals` and `quarantine`: few rows, built whole.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Date32Array, Int64Array, RecordBatch, StringArray, StringDictionaryBuilder,
    TimestampMicrosecondArray,
};
use arrow::datatypes::UInt16Type;
use arrow::error::ArrowError;
use toolgauge_proto::table::Table;
use toolgauge_proto::time::UnixMicros;

use crate::recognise::{ArrivalSums, Quarantined};

fn words<'a>(values: impl Iterator<Item = Option<&'a str>>) -> Result<ArrayRef, ArrowError> {
    let mut builder = StringDictionaryBuilder::<UInt16Type>::new();
    for value in values {
        match value {
            Some(word) => {
                builder.append(word)?;
            }
            None => builder.append_null(),
        }
    }
    Ok(Arc::new(builder.finish()))
}

fn micros(values: impl Iterator<Item = Option<UnixMicros>>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter(values.map(|value| value.map(|at| at.0))).with_timezone("UTC"))
}

/// Key of a sum in `arrivals`: minute, and tenant and service unless it is the heartbeat.
pub(crate) type ArrivalKey = (UnixMicros, Option<(String, Option<String>)>);

/// Rows of `arrivals`; `None` if there is none.
pub(crate) fn arrivals<'a>(
    sums: impl Iterator<Item = (&'a ArrivalKey, &'a ArrivalSums)>,
) -> Result<Option<RecordBatch>, ArrowError> {
    let sums: Vec<_> = sums.collect();
    if sums.is_empty() {
        return Ok(None);
    }
    let long = |value: fn(&ArrivalSums) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(sums.iter().map(|(_, sums)| value(sums))))
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Date32Array::from_iter_values(sums.iter().map(|((minute, _), _)| minute.date32()))),
        micros(sums.iter().map(|((minute, _), _)| Some(*minute))),
        words(sums.iter().map(|((_, key), _)| key.as_ref().map(|(tenant, _)| tenant.as_str())))?,
        words(sums.iter().map(|((_, key), _)| key.as_ref().and_then(|(_, service)| service.as_deref())))?,
        long(|sums| sums.requests),
        long(|sums| sums.spans),
        long(|sums| sums.log_records),
        long(|sums| sums.calls),
        long(|sums| sums.unreadable),
        long(|sums| sums.duplicates),
        long(|sums| sums.quarantined),
        long(|sums| sums.max_lag_ms),
    ];
    RecordBatch::try_new(Table::Arrivals.live_schema(), columns).map(Some)
}

/// Rows of `quarantine`; `None` if there is none.
pub(crate) fn quarantine(records: &[Quarantined]) -> Result<Option<RecordBatch>, ArrowError> {
    if records.is_empty() {
        return Ok(None);
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Date32Array::from_iter_values(records.iter().map(|record| record.received.date32()))),
        micros(records.iter().map(|record| Some(record.received))),
        words(records.iter().map(|record| Some(record.tenant.as_str())))?,
        words(records.iter().map(|record| record.service_name.as_deref()))?,
        words(records.iter().map(|record| Some(record.signal.as_str())))?,
        words(records.iter().map(|record| Some(record.reason)))?,
        Arc::new(StringArray::from_iter_values(records.iter().map(|record| record.detail.as_str()))),
        words(records.iter().map(|record| record.tool_name.as_deref()))?,
        Arc::new(BinaryArray::from_iter_values(records.iter().map(|record| &record.trace_id))),
        Arc::new(BinaryArray::from_iter_values(records.iter().map(|record| &record.span_id))),
        micros(records.iter().map(|record| record.start_time)),
        micros(records.iter().map(|record| record.end_time)),
        Arc::new(Int64Array::from_iter_values(records.iter().map(|record| record.position.as_i64()))),
    ];
    RecordBatch::try_new(Table::Quarantine.live_schema(), columns).map(Some)
}
