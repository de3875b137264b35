//! Latency in SQL, in nanoseconds:
//!
//! | function | is |
//! |---|---|
//! | `latency_quantile(duration_ns, q)` | aggregate: one quantile |
//! | `latency_quantiles(duration_ns, q1, q2, ...)` | aggregate: a list, counted once for all of them |
//! | `hdr_histogram(duration_ns)` | aggregate: a histogram, as the column `latency` of `calls_1m` has it |
//! | `hdr_merge(latency)` | aggregate: the histogram of all that the given ones counted |
//! | `hdr_quantile(latency, q)` | a quantile of a histogram |
//! | `hdr_fraction_below(latency, limit_ns)` | the share of durations that are at most the limit, or share its bucket |
//!
//! # Guarantees
//! Quantiles, buckets and limits are those of [`toolgauge_analytics::hist`]: the nearest rank, never below the true one
//! (up to 30 days), and above it by at most one part in a thousand, or by less than two microseconds. Nulls are left out;
//! without durations the answer is null. The order of the rows and how they are split does not matter, so
//! `hdr_quantile(hdr_merge(latency), q)` is what `latency_quantile(duration_ns, q)` of the same calls is.
//!
//! # How it works
//! A group has a recorder; between stages it travels as the payload of its histogram.

mod scalars;

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, BooleanArray, Int64Array, Int64Builder, ListBuilder,
};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::{DataFusionError, ScalarValue, exec_datafusion_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, EmitTo, GroupsAccumulator, Signature, Volatility,
};
use toolgauge_analytics::hist::{Histogram, PayloadError, Recorder, micros_of};

pub use scalars::{hdr_fraction_below, hdr_quantile};

/// Most quantiles in one call.
const QUANTILES_MAX: usize = 32;

/// The aggregates of this module.
#[must_use]
pub fn aggregates() -> Vec<Arc<AggregateUDF>> {
    use Input::{Durations, Payloads};
    use Output::{Payload, Quantile, Quantiles};

    let functions = [
        ("latency_quantile", Durations, Quantile),
        ("latency_quantiles", Durations, Quantiles),
        ("hdr_histogram", Durations, Payload),
        ("hdr_merge", Payloads, Payload),
    ];
    let signature = || Signature::user_defined(Volatility::Immutable);
    let functions = functions.map(|(name, input, output)| Function { name, input, output, signature: signature() });
    functions.into_iter().map(|function| Arc::new(AggregateUDF::new_from_impl(function))).collect()
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Input {
    Durations,
    Payloads,
}

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Output {
    Payload,
    Quantile,
    Quantiles,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Function {
    name: &'static str,
    input: Input,
    output: Output,
    signature: Signature,
}

impl Function {
    fn groups(&self, args: &AccumulatorArgs) -> Result<Groups> {
        if args.is_distinct {
            return plan_err!("{} counts every duration; leave DISTINCT out", self.name);
        }
        let empty = arrow::array::RecordBatch::new_empty(Arc::new(arrow::datatypes::Schema::empty()));
        let mut quantiles = Vec::with_capacity(args.exprs.len());
        for expr in args.exprs.iter().skip(1) {
            match expr.evaluate(&empty) {
                Ok(ColumnarValue::Scalar(ScalarValue::Float64(Some(q)))) if (0.0..=1.0).contains(&q) => {
                    quantiles.push(q);
                }
                _ => return plan_err!("a quantile of {} must be a number from 0 to 1, got {expr}", self.name),
            }
        }
        Ok(Groups { input: self.input, output: self.output, quantiles, recorders: Vec::new() })
    }
}

impl AggregateUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let name = self.name;
        let (first, rest) = match arg_types.split_first() {
            Some((first, rest)) => (first, rest.len()),
            None => (&DataType::Null, 0),
        };
        if self.input == Input::Payloads {
            let fits =
                matches!(first, DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::Null);
            if !fits || arg_types.len() != 1 {
                return plan_err!("{name} takes one histogram, such as {name}(latency)");
            }
            return Ok(vec![DataType::Binary]);
        }
        let numeric = arg_types.iter().all(|data_type| data_type.is_numeric() || data_type.is_null());
        let (fits, wanted, example) = match self.output {
            Output::Payload => (rest == 0, "", ""),
            Output::Quantile => (rest == 1, " and one quantile from 0 to 1", ", 0.99"),
            Output::Quantiles => ((1..=QUANTILES_MAX).contains(&rest), " and 1 to 32 quantiles from 0 to 1", ", 0.99"),
        };
        if !fits || !numeric || arg_types.is_empty() {
            return plan_err!("{name} takes a duration in nanoseconds{wanted}, such as {name}(duration_ns{example})");
        }
        let mut types = vec![DataType::Float64; arg_types.len()];
        types[0] = DataType::Int64;
        Ok(types)
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.output {
            Output::Payload => DataType::Binary,
            Output::Quantile => DataType::Int64,
            Output::Quantiles => DataType::new_list(DataType::Int64, true),
        })
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format_state_name(args.name, "latency"), DataType::Binary, true))])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let mut groups = self.groups(&args)?;
        groups.recorders.push(Recorder::default());
        Ok(Box::new(One(groups)))
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(self.groups(&args)?))
    }
}

/// A value that is not what `calls_1m` holds.
fn broken(error: &PayloadError) -> DataFusionError {
    exec_datafusion_err!("{error}")
}

/// A quantile in nanoseconds.
fn quantile_ns(histogram: &Histogram, q: f64) -> Option<i64> {
    histogram.quantile(q).map(|micros| (micros * 1_000).cast_signed())
}

/// The payload of a histogram; null if it counted nothing.
fn append_payload(histogram: &Histogram, scratch: &mut Vec<u8>, column: &mut BinaryBuilder) {
    if histogram.is_empty() {
        return column.append_null();
    }
    scratch.clear();
    histogram.payload(scratch);
    column.append_value(scratch);
}

fn payloads(histograms: impl Iterator<Item = Histogram>) -> ArrayRef {
    let (mut column, mut scratch) = (BinaryBuilder::new(), Vec::new());
    histograms.for_each(|histogram| append_payload(&histogram, &mut scratch, &mut column));
    Arc::new(column.finish())
}

/// What each group has counted.
#[derive(Debug)]
struct Groups {
    input: Input,
    output: Output,
    quantiles: Vec<f64>,
    recorders: Vec<Recorder>,
}

impl Groups {
    fn count(&mut self, values: &ArrayRef, group_of: impl Fn(usize) -> Option<usize>) -> Result<()> {
        match self.input {
            Input::Durations => {
                let durations = values.as_primitive::<Int64Type>();
                for (row, duration_ns) in durations.iter().enumerate() {
                    if let (Some(group), Some(duration_ns)) = (group_of(row), duration_ns) {
                        self.recorders[group].record(micros_of(duration_ns));
                    }
                }
                Ok(())
            }
            Input::Payloads => self.merge(values, group_of),
        }
    }

    fn merge(&mut self, values: &ArrayRef, group_of: impl Fn(usize) -> Option<usize>) -> Result<()> {
        for (row, payload) in values.as_binary::<i32>().iter().enumerate() {
            if let (Some(group), Some(payload)) = (group_of(row), payload) {
                self.recorders[group].add_payload(payload).map_err(|error| broken(&error))?;
            }
        }
        Ok(())
    }

    fn answer(&self, recorders: Vec<Recorder>) -> ArrayRef {
        let histograms = recorders.into_iter().map(Recorder::finish);
        match self.output {
            Output::Payload => payloads(histograms),
            Output::Quantile => {
                let quantile = |histogram| quantile_ns(&histogram, self.quantiles.first().copied().unwrap_or(0.5));
                Arc::new(histograms.map(quantile).collect::<Int64Array>())
            }
            Output::Quantiles => {
                let mut lists = ListBuilder::new(Int64Builder::new());
                for histogram in histograms {
                    if histogram.is_empty() {
                        lists.append_null();
                    } else {
                        lists.append_value(self.quantiles.iter().map(|q| quantile_ns(&histogram, *q)));
                    }
                }
                Arc::new(lists.finish())
            }
        }
    }

    fn bytes(&self) -> usize {
        let held: usize = self.recorders.iter().map(Recorder::heap_bytes).sum();
        size_of_val(self) + held + self.recorders.capacity() * size_of::<Recorder>()
    }
}

impl GroupsAccumulator for Groups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.recorders.resize_with(total_num_groups, Recorder::default);
        let passes = |row| opt_filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
        self.count(&values[0], |row| passes(row).then(|| group_indices[row]))
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let recorders = emit_to.take_needed(&mut self.recorders);
        Ok(self.answer(recorders))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let recorders = emit_to.take_needed(&mut self.recorders);
        Ok(vec![payloads(recorders.into_iter().map(Recorder::finish))])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.recorders.resize_with(total_num_groups, Recorder::default);
        self.merge(&values[0], |row| Some(group_indices[row]))
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = values[0].len();
        let mut each = Self { recorders: vec![Recorder::default(); rows], quantiles: Vec::new(), ..*self };
        let passes = |row| opt_filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
        each.count(&values[0], |row| passes(row).then_some(row))?;
        each.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        self.bytes()
    }
}

/// All rows are one group.
#[derive(Debug)]
struct One(Groups);

impl Accumulator for One {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.count(&values[0], |_| Some(0))
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        ScalarValue::try_from_array(&self.0.answer(self.0.recorders.clone()), 0)
    }

    fn size(&self) -> usize {
        self.0.bytes()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let state = payloads(self.0.recorders.iter().map(Recorder::histogram));
        Ok(vec![ScalarValue::try_from_array(&state, 0)?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.0.merge(&states[0], |_| Some(0))
    }
}

/// The rows of a column of histograms, null where it is.
fn histograms(column: &BinaryArray) -> impl Iterator<Item = Result<Option<Histogram>>> {
    column.iter().map(|payload| payload.map(Histogram::from_payload).transpose().map_err(|error| broken(&error)))
}

#[cfg(test)]
mod tests;
