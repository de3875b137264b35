//! Latency in SQL: `latency_quantile(duration_ns, q)` and `latency_quantiles(duration_ns, q1, q2, ...)`, which counts
//! once for all of them and gives a list.
//!
//! # Guarantees
//! The quantile is the nearest rank: of `n` durations in order, the one with number ceil(q x n), at least the first.
//! Durations are taken in microseconds, rounded up, at least 1 and at most [`MICROS_MAX`]; the answer, in nanoseconds
//! again, is the upper end of the HDR histogram bucket that holds it: never below the true one (up to the maximum),
//! and above it by at most one part in a thousand, or by less than two microseconds. Nulls are left out; without
//! durations the answer is null. The order of the rows and how they are split does not matter.
//!
//! # How it works
//! A group keeps its durations as they are until there are `SAMPLES_MAX` of them, then an HDR histogram, which is
//! larger but grows no more. Between stages they travel as two lists: values and how often each.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, ListArray};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, UInt64Type};
use datafusion::common::{ScalarValue, exec_datafusion_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, Signature, Volatility};
use hdrhistogram::Histogram;

/// Significant decimal digits of the histogram.
pub const DIGITS: u8 = 3;
/// Largest duration that is told from others, in microseconds: 30 days.
pub const MICROS_MAX: u64 = 30 * 86_400_000_000;
/// Durations of a group that are kept one by one.
const SAMPLES_MAX: usize = 4_096;
/// Most quantiles in one call.
const QUANTILES_MAX: usize = 32;

/// The SQL function `latency_quantile(duration_ns, q) -> bigint`.
#[must_use]
pub fn latency_quantile() -> AggregateUDF {
    AggregateUDF::new_from_impl(Quantiles { many: false, signature: Signature::user_defined(Volatility::Immutable) })
}

/// The SQL function `latency_quantiles(duration_ns, q, ...) -> bigint[]`.
#[must_use]
pub fn latency_quantiles() -> AggregateUDF {
    AggregateUDF::new_from_impl(Quantiles { many: true, signature: Signature::user_defined(Volatility::Immutable) })
}

/// Number of the `q` quantile among `n` values in order, from 1. A product such as 0.07 x 100 = 7.000000000000001 is
/// meant to be 7.
#[must_use]
pub fn nearest_rank(q: f64, n: u64) -> u64 {
    let rank = q * n as f64;
    ((rank - rank * 1e-12).ceil() as u64).clamp(1, n.max(1))
}

/// A duration in whole microseconds, as it is counted.
#[must_use]
pub fn micros_of(duration_ns: i64) -> u64 {
    u64::try_from(duration_ns).unwrap_or(0).div_ceil(1_000).clamp(1, MICROS_MAX)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Quantiles {
    many: bool,
    signature: Signature,
}

fn list_field(name: &str, part: &str) -> FieldRef {
    Arc::new(Field::new_list(format_state_name(name, part), Field::new_list_field(DataType::UInt64, true), true))
}

impl AggregateUDFImpl for Quantiles {
    fn name(&self) -> &str {
        if self.many { "latency_quantiles" } else { "latency_quantile" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let quantiles = arg_types.len().saturating_sub(1);
        let fits = if self.many { (1..=QUANTILES_MAX).contains(&quantiles) } else { quantiles == 1 };
        if !fits || !arg_types.iter().all(|data_type| data_type.is_numeric() || data_type.is_null()) {
            return plan_err!(
                "{} takes a duration in nanoseconds and {}, such as {}(duration_ns, 0.99)",
                self.name(),
                if self.many { "1 to 32 quantiles from 0 to 1" } else { "one quantile from 0 to 1" },
                self.name()
            );
        }
        let mut types = vec![DataType::Float64; arg_types.len()];
        types[0] = DataType::Int64;
        Ok(types)
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(if self.many { DataType::new_list(DataType::Int64, true) } else { DataType::Int64 })
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![list_field(args.name, "values"), list_field(args.name, "counts")])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return plan_err!("{} counts every duration; leave DISTINCT out", self.name());
        }
        let empty = arrow::array::RecordBatch::new_empty(Arc::new(arrow::datatypes::Schema::empty()));
        let mut quantiles = Vec::with_capacity(args.exprs.len());
        for expr in args.exprs.iter().skip(1) {
            match expr.evaluate(&empty) {
                Ok(ColumnarValue::Scalar(ScalarValue::Float64(Some(q)))) if (0.0..=1.0).contains(&q) => {
                    quantiles.push(q);
                }
                _ => return plan_err!("a quantile of {} must be a number from 0 to 1, got {expr}", self.name()),
            }
        }
        Ok(Box::new(Latencies { quantiles, many: self.many, counts: Counts::Samples(Vec::new()) }))
    }
}

#[derive(Debug)]
enum Counts {
    Samples(Vec<u64>),
    Histogram(Box<Histogram<u64>>),
}

/// A histogram that only says which values share a bucket.
static BUCKETS: LazyLock<Option<Histogram<u8>>> = LazyLock::new(|| Histogram::new(DIGITS).ok());

fn bucket_end(micros: u64) -> u64 {
    BUCKETS.as_ref().map_or(micros, |buckets| buckets.highest_equivalent(micros))
}

impl Counts {
    fn add(&mut self, micros: u64, count: u64) -> Result<()> {
        if let Self::Samples(samples) = self {
            if samples.len() as u64 + count <= SAMPLES_MAX as u64 {
                samples.extend((0..count).map(|_| micros));
                return Ok(());
            }
            let mut histogram = Histogram::new(DIGITS).map_err(|e| exec_datafusion_err!("make a histogram: {e}"))?;
            histogram.auto(true);
            for micros in samples {
                histogram.record(*micros).map_err(|e| exec_datafusion_err!("count a duration: {e}"))?;
            }
            *self = Self::Histogram(Box::new(histogram));
        }
        if let Self::Histogram(histogram) = self {
            histogram.record_n(micros, count).map_err(|e| exec_datafusion_err!("count a duration: {e}"))?;
        }
        Ok(())
    }

    /// The values of these quantiles, in nanoseconds; none if nothing was counted.
    fn quantiles(&mut self, quantiles: &[f64]) -> Option<Vec<i64>> {
        let at_rank: Box<dyn Fn(u64) -> u64>;
        let n;
        match self {
            Self::Samples(samples) => {
                samples.sort_unstable();
                n = samples.len() as u64;
                at_rank = Box::new(|rank| samples.get(rank as usize - 1).copied().unwrap_or(MICROS_MAX));
            }
            Self::Histogram(histogram) => {
                n = histogram.len();
                at_rank = Box::new(|rank| {
                    let mut seen = 0;
                    let found = histogram.iter_recorded().find(|step| {
                        seen += step.count_since_last_iteration();
                        seen >= rank
                    });
                    found.map_or(MICROS_MAX, |step| step.value_iterated_to())
                });
            }
        }
        let nanos = |q: &f64| (bucket_end(at_rank(nearest_rank(*q, n))) * 1_000).cast_signed();
        (n > 0).then(|| quantiles.iter().map(nanos).collect())
    }
}

#[derive(Debug)]
struct Latencies {
    quantiles: Vec<f64>,
    many: bool,
    counts: Counts,
}

impl Accumulator for Latencies {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for duration_ns in values[0].as_primitive::<Int64Type>().iter().flatten() {
            self.counts.add(micros_of(duration_ns), 1)?;
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let values = self.counts.quantiles(&self.quantiles);
        if !self.many {
            return Ok(ScalarValue::Int64(values.and_then(|values| values.first().copied())));
        }
        let list = ListArray::from_iter_primitive::<Int64Type, _, _>([values.map(|v| v.into_iter().map(Some))]);
        Ok(ScalarValue::List(Arc::new(list)))
    }

    fn size(&self) -> usize {
        let counts = match &self.counts {
            Counts::Samples(samples) => samples.capacity(),
            Counts::Histogram(histogram) => histogram.distinct_values(),
        };
        size_of_val(self) + (counts + self.quantiles.capacity()) * size_of::<u64>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let (values, counts): (Vec<u64>, Vec<u64>) = match &self.counts {
            Counts::Samples(samples) => samples.iter().map(|micros| (*micros, 1)).unzip(),
            Counts::Histogram(histogram) => {
                histogram.iter_recorded().map(|s| (s.value_iterated_to(), s.count_since_last_iteration())).unzip()
            }
        };
        Ok([values, counts]
            .map(|list| {
                let list = ListArray::from_iter_primitive::<UInt64Type, _, _>([Some(list.into_iter().map(Some))]);
                ScalarValue::List(Arc::new(list))
            })
            .to_vec())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let (values, counts) = (states[0].as_list::<i32>(), states[1].as_list::<i32>());
        for group in 0..values.len() {
            if values.is_null(group) || counts.is_null(group) {
                continue;
            }
            let (values, counts) = (values.value(group), counts.value(group));
            let (values, counts) = (values.as_primitive::<UInt64Type>(), counts.as_primitive::<UInt64Type>());
            for (micros, count) in values.iter().flatten().zip(counts.iter().flatten()) {
                self.counts.add(micros, count)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Deterministic durations from a microsecond to minutes.
    fn durations(n: usize, seed: u64) -> Vec<i64> {
        let mut state = seed;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 20
        };
        (0..n).map(|_| (next() % (1 << (10 + next() % 28))).cast_signed()).collect()
    }

    fn counted(durations: &[i64]) -> Counts {
        let mut counts = Counts::Samples(Vec::new());
        durations.iter().for_each(|d| counts.add(micros_of(*d), 1).unwrap());
        counts
    }

    #[test]
    fn quantiles_are_within_a_thousandth_above_the_sorted_list() {
        for n in [1, 2, 3, 10, 99, 100, 101, 1_000, SAMPLES_MAX, SAMPLES_MAX + 1, 50_000] {
            let mut list = durations(n, n as u64);
            let mut counts = counted(&list);
            list.sort_unstable();
            let qs = [0.0, 0.001, 0.07, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0];
            let got = counts.quantiles(&qs).unwrap();
            for (q, got) in qs.into_iter().zip(got) {
                let rank = nearest_rank(q, n as u64) as usize;
                let exact = list[rank - 1];
                assert!(got >= exact, "n {n} q {q}: {got} < {exact}");
                let most = exact as f64 * 1.001 + 2_000.0;
                assert!(got as f64 <= most, "n {n} q {q}: {got} > {most}");
            }
        }
    }

    #[test]
    fn samples_and_histogram_give_the_same_answer() {
        let list = durations(SAMPLES_MAX, 7);
        let mut samples = counted(&list);
        let mut histogram = Histogram::new(DIGITS).unwrap();
        histogram.auto(true);
        list.iter().for_each(|d| histogram.record(micros_of(*d)).unwrap());
        let qs: Vec<f64> = (0..=1_000).map(|i| f64::from(i) / 1_000.0).collect();
        let mut histogram = Counts::Histogram(Box::new(histogram));
        assert_eq!(samples.quantiles(&qs), histogram.quantiles(&qs));
    }

    #[test]
    fn state_merged_in_parts_gives_the_same_answer() {
        let list = durations(20_000, 3);
        let fresh = || Latencies { quantiles: vec![0.5, 0.99], many: true, counts: Counts::Samples(Vec::new()) };
        let mut merged = fresh();
        for part in list.chunks(3_001) {
            let mut half = Latencies { counts: counted(part), ..fresh() };
            let state: Vec<ArrayRef> = half.state().unwrap().iter().map(|s| s.to_array().unwrap()).collect();
            merged.merge_batch(&state).unwrap();
        }
        let mut whole = Latencies { counts: counted(&list), ..fresh() };
        assert_eq!(merged.evaluate().unwrap(), whole.evaluate().unwrap());
    }

    #[test]
    fn ranks_do_not_step_over_a_rounding_error() {
        assert_eq!(nearest_rank(0.07, 100), 7);
        assert_eq!(nearest_rank(0.99, 100), 99);
        assert_eq!(nearest_rank(0.5, 3), 2);
        assert_eq!(nearest_rank(0.0, 3), 1);
        assert_eq!(nearest_rank(1.0, 3), 3);
    }

    #[test]
    fn durations_beyond_the_range_are_counted_at_its_ends() {
        assert_eq!(micros_of(-5), 1);
        assert_eq!(micros_of(0), 1);
        assert_eq!(micros_of(1_001), 2);
        assert_eq!(micros_of(i64::MAX), MICROS_MAX);
    }
}
