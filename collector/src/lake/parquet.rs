//! Batches of rows into the bytes of one Parquet file.
//!
//! Rows stay in the order of arrival: sorting costs more than it saves (ids and sessions of a trace are torn apart).
//! Small files are LZ4, whose contexts cost little; larger ones zstd(1), merged ones but those of the smallest tables zstd(3). Columns whose values are nearly all distinct
//! have no dictionary; in merged files the ids among them are written without their lengths between them, and numbers as differences.
//! Measured in `docs/decisions/0003-lake.md`.

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;
use toolgauge_proto::table::Table;

use super::statistics::statistics_columns;

/// Files with fewer rows are LZ4: a zstd context for each column would cost more than the rows.
const ZSTD_ROWS_MIN: usize = 32_768;
/// Rows of a row group.
pub(super) const ROW_GROUP_ROWS: usize = 128 * 1_024;
/// Columns whose values are nearly all distinct.
const NO_DICTIONARY: &[&str] = &[
    "row_id",
    "trace_id",
    "span_id",
    "parent_span_id",
    "call_id",
    "error_message",
    "attributes",
    "duration_ns",
    "start_time",
    "end_time",
    "cost_usd",
    "detail",
    "latency",
    "retry_delay",
    "duration_ns_sum",
    "logical_call_id",
    "retry_delay_ns",
    "retry_lost_ns",
];

/// How columns without a dictionary are written in files that stay, if not plain. All are encodings of Parquet 2.0, which other
/// readers know.
const ENCODINGS: &[(&str, Encoding)] = &[
    ("row_id", Encoding::DELTA_LENGTH_BYTE_ARRAY),
    ("trace_id", Encoding::DELTA_LENGTH_BYTE_ARRAY),
    ("span_id", Encoding::DELTA_LENGTH_BYTE_ARRAY),
    ("parent_span_id", Encoding::DELTA_LENGTH_BYTE_ARRAY),
    ("call_id", Encoding::DELTA_BYTE_ARRAY),
    ("duration_ns", Encoding::DELTA_BINARY_PACKED),
    ("start_time", Encoding::DELTA_BINARY_PACKED),
    ("cost_usd", Encoding::DELTA_BINARY_PACKED),
];

/// Distinct traces of a row group, at most about.
const BLOOM_VALUES: u64 = 32 * 1_024;
/// One in so many lookups of an absent trace reads a row group for nothing.
const BLOOM_FALSE_POSITIVES: f64 = 0.01;

/// Properties of every file. Readers get the bounds of each page of some columns, to skip pages by.
fn properties(compression: Compression, table: Table) -> WriterPropertiesBuilder {
    let mut properties = WriterProperties::builder()
        .set_compression(compression)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_statistics_enabled(EnabledStatistics::None);
    for column in statistics_columns(table) {
        properties = properties.set_column_statistics_enabled(ColumnPath::from(*column), EnabledStatistics::Page);
    }
    for column in NO_DICTIONARY {
        properties = properties.set_column_dictionary_enabled(ColumnPath::from(*column), false);
    }
    properties
}

fn writer<W: Write + Send>(
    out: W,
    schema: &SchemaRef,
    properties: WriterProperties,
) -> Result<ArrowWriter<W>, ParquetError> {
    // The Arrow schema in the file would tell readers of dictionaries that are ours alone.
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    ArrowWriter::try_new_with_options(out, SchemaRef::clone(schema), options)
}

/// The bytes of one file of a commit.
///
/// # Errors
/// If the encoder fails, which good batches of one schema never make it.
pub(crate) fn encode(schema: &SchemaRef, batches: &[RecordBatch], table: Table) -> Result<Vec<u8>, ParquetError> {
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let compression =
        if rows < ZSTD_ROWS_MIN { Compression::LZ4_RAW } else { Compression::ZSTD(ZstdLevel::try_new(1)?) };
    let mut writer = writer(Vec::new(), schema, properties(compression, table).build())?;
    for batch in batches {
        writer.write(batch)?;
    }
    writer.into_inner()
}

/// Writes a file that stays: smaller, and with a bloom filter where traces are looked for.
///
/// # Errors
/// If the encoder fails.
pub(super) fn merging_writer<W: Write + Send>(
    out: W,
    schema: &SchemaRef,
    table: Table,
) -> Result<ArrowWriter<W>, ParquetError> {
    let compression = match table {
        // Reports over months read all of these, and they are the smallest by far: there zstd would cost a quarter of the time.
        Table::Calls1h | Table::Arrivals => Compression::LZ4_RAW,
        _ => Compression::ZSTD(ZstdLevel::try_new(3)?),
    };
    let mut properties = properties(compression, table);
    for (column, encoding) in ENCODINGS {
        properties = properties.set_column_encoding(ColumnPath::from(*column), *encoding);
    }
    if table == Table::Calls {
        let column = ColumnPath::from("trace_id");
        properties = properties
            .set_column_bloom_filter_max_ndv(column.clone(), BLOOM_VALUES)
            .set_column_bloom_filter_fpp(column, BLOOM_FALSE_POSITIVES);
    }
    writer(out, schema, properties.build())
}
