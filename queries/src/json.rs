//! Arrow values as JSON and CSV.
//!
//! Integers are JSON numbers, also beyond 2^53, where a reader that takes numbers for doubles loses digits (cast such
//! columns to text). Decimals are strings, bytes lower-case hex, timestamps RFC 3339 in UTC, dates `YYYY-MM-DD`,
//! floats that JSON cannot say (NaN, infinities) null; lists are arrays, structs objects; other types are text as Arrow
//! shows it.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value};
use toolgauge_proto::api::{SqlColumn, SqlResponse};
use toolgauge_proto::time::UnixMicros;

use crate::engine::Answer;
use crate::hex;

/// The instant in RFC 3339, UTC, with as many digits as it needs; one that has no such form as microseconds.
#[must_use]
pub fn rfc3339(time: UnixMicros) -> String {
    DateTime::<Utc>::from_timestamp_micros(time.0).map_or_else(|| time.0.to_string(), text_of)
}

fn text_of(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// The answer of `POST /api/v1/sql`.
///
/// # Errors
/// If a value cannot be shown.
pub fn response(answer: &Answer) -> Result<SqlResponse, ArrowError> {
    let columns = answer.schema.fields().iter();
    Ok(SqlResponse {
        columns: columns.map(|f| SqlColumn { name: f.name().clone(), data_type: f.data_type().to_string() }).collect(),
        rows: rows(&answer.batches)?,
        truncated: answer.truncated,
    })
}

/// The answer as CSV (RFC 4180): a line of names, then the rows; null is empty, an empty text is `""`.
///
/// # Errors
/// If a value cannot be shown.
pub fn csv(answer: &Answer) -> Result<String, ArrowError> {
    let mut text = String::new();
    let names = answer.schema.fields().iter().map(|field| Value::String(field.name().clone()));
    csv_line(&mut text, names);
    for row in rows(&answer.batches)? {
        csv_line(&mut text, row.into_iter());
    }
    Ok(text)
}

fn csv_line(text: &mut String, values: impl Iterator<Item = Value>) {
    for (index, value) in values.enumerate() {
        if index > 0 {
            text.push(',');
        }
        match value {
            Value::Null => {}
            Value::String(value) if value.is_empty() || value.contains([',', '"', '\n', '\r']) => {
                text.push('"');
                text.push_str(&value.replace('"', "\"\""));
                text.push('"');
            }
            Value::String(value) => text.push_str(&value),
            Value::Array(_) | Value::Object(_) => {
                text.push('"');
                text.push_str(&value.to_string().replace('"', "\"\""));
                text.push('"');
            }
            value => text.push_str(&value.to_string()),
        }
    }
    text.push_str("\r\n");
}

fn rows(batches: &[RecordBatch]) -> Result<Vec<Vec<Value>>, ArrowError> {
    let mut rows = Vec::with_capacity(batches.iter().map(RecordBatch::num_rows).sum());
    for batch in batches {
        for row in 0..batch.num_rows() {
            rows.push(batch.columns().iter().map(|column| value(column, row)).collect::<Result<_, _>>()?);
        }
    }
    Ok(rows)
}

/// One value of a column.
///
/// # Errors
/// If it cannot be shown.
pub fn value(array: &dyn Array, row: usize) -> Result<Value, ArrowError> {
    macro_rules! number {
        ($type:ty) => {
            Value::from(array.as_primitive::<$type>().value(row))
        };
    }
    if array.is_null(row) {
        return Ok(Value::Null);
    }
    Ok(match array.data_type() {
        DataType::Null => Value::Null,
        DataType::Boolean => Value::Bool(array.as_boolean().value(row)),
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        DataType::Float16 => Value::from(array.as_primitive::<Float16Type>().value(row).to_f32()),
        DataType::Float32 => number!(Float32Type),
        DataType::Float64 => number!(Float64Type),
        DataType::Utf8 => array.as_string::<i32>().value(row).into(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row).into(),
        DataType::Utf8View => array.as_string_view().value(row).into(),
        DataType::Binary => hex::encode(array.as_binary::<i32>().value(row)).into(),
        DataType::LargeBinary => hex::encode(array.as_binary::<i64>().value(row)).into(),
        DataType::BinaryView => hex::encode(array.as_binary_view().value(row)).into(),
        DataType::FixedSizeBinary(_) => hex::encode(array.as_fixed_size_binary().value(row)).into(),
        DataType::Timestamp(unit, _) => timestamp(array, *unit, row),
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let key = dictionary.normalized_keys().get(row).copied().unwrap_or_default();
            value(dictionary.values(), key)?
        }
        DataType::List(_) => list(&array.as_list::<i32>().value(row))?,
        DataType::LargeList(_) => list(&array.as_list::<i64>().value(row))?,
        DataType::FixedSizeList(..) => list(&array.as_fixed_size_list().value(row))?,
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            let members = fields.iter().zip(columns).map(|(f, column)| Ok((f.name().clone(), value(column, row)?)));
            Value::Object(members.collect::<Result<Map<_, _>, ArrowError>>()?)
        }
        _ => ArrayFormatter::try_new(array, &FormatOptions::new())?.value(row).try_to_string()?.into(),
    })
}

fn list(array: &dyn Array) -> Result<Value, ArrowError> {
    (0..array.len()).map(|row| value(array, row)).collect::<Result<Vec<_>, _>>().map(Value::Array)
}

fn timestamp(array: &dyn Array, unit: TimeUnit, row: usize) -> Value {
    use arrow::datatypes::{
        TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
    };
    let (number, time) = match unit {
        TimeUnit::Second => {
            let number = array.as_primitive::<TimestampSecondType>().value(row);
            (number, DateTime::from_timestamp(number, 0))
        }
        TimeUnit::Millisecond => {
            let number = array.as_primitive::<TimestampMillisecondType>().value(row);
            (number, DateTime::from_timestamp_millis(number))
        }
        TimeUnit::Microsecond => {
            let number = array.as_primitive::<TimestampMicrosecondType>().value(row);
            (number, DateTime::from_timestamp_micros(number))
        }
        TimeUnit::Nanosecond => {
            let number = array.as_primitive::<TimestampNanosecondType>().value(row);
            (number, Some(DateTime::from_timestamp_nanos(number)))
        }
    };
    time.map_or_else(|| Value::from(number), |time| text_of(time).into())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, BinaryArray, Date32Array, Decimal128Array, DictionaryArray, Float64Array, Int64Array, StringArray,
        TimestampMicrosecondArray,
    };
    use serde_json::json;

    use super::*;

    fn answer(columns: Vec<(&str, ArrayRef)>) -> Answer {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        Answer { schema: batch.schema(), batches: vec![batch], truncated: false }
    }

    #[test]
    fn values_keep_every_digit_and_floats_json_cannot_say_are_null() {
        let answer = answer(vec![
            ("i", Arc::new(Int64Array::from(vec![i64::MAX, i64::MIN]))),
            ("f", Arc::new(Float64Array::from(vec![f64::NAN, f64::INFINITY]))),
            (
                "d",
                Arc::new(Decimal128Array::from(vec![1_i128, -1_500_000_000]).with_precision_and_scale(18, 9).unwrap()),
            ),
            ("b", Arc::new(BinaryArray::from(vec![Some(&[0xAB_u8, 0x01][..]), None]))),
            ("t", Arc::new(TimestampMicrosecondArray::from(vec![0, -1]).with_timezone("UTC"))),
            ("day", Arc::new(Date32Array::from(vec![0, -1]))),
            ("w", Arc::new(vec!["x", ""].into_iter().collect::<DictionaryArray<arrow::datatypes::UInt16Type>>())),
        ]);
        assert_eq!(
            response(&answer).unwrap().rows,
            [
                vec![
                    json!(i64::MAX),
                    json!(null),
                    json!("0.000000001"),
                    json!("ab01"),
                    json!("1970-01-01T00:00:00Z"),
                    json!("1970-01-01"),
                    json!("x")
                ],
                vec![
                    json!(i64::MIN),
                    json!(null),
                    json!("-1.500000000"),
                    json!(null),
                    json!("1969-12-31T23:59:59.999999Z"),
                    json!("1969-12-31"),
                    json!("")
                ],
            ]
        );
    }

    #[test]
    fn csv_quotes_what_would_break_a_line_and_tells_null_from_empty() {
        let answer = answer(vec![
            ("a,b", Arc::new(StringArray::from(vec![Some("say \"hi\"\nthere"), None, Some(""), Some("plain")]))),
            ("n", Arc::new(Int64Array::from(vec![Some(1), None, Some(3), Some(4)]))),
        ]);
        assert_eq!(csv(&answer).unwrap(), "\"a,b\",n\r\n\"say \"\"hi\"\"\nthere\",1\r\n,\r\n\"\",3\r\nplain,4\r\n");
    }
}
