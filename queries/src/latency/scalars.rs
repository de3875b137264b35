//! What is asked of one histogram: `hdr_quantile` and `hdr_fraction_below`.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::common::{exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use toolgauge_analytics::hist::micros_of;

use super::{histograms, quantile_ns};

/// The SQL function `hdr_quantile(latency, q) -> bigint`.
#[must_use]
pub fn hdr_quantile() -> ScalarUDF {
    ScalarUDF::new_from_impl(Function {
        asks: Asks::Quantile,
        signature: Signature::user_defined(Volatility::Immutable),
    })
}

/// The SQL function `hdr_fraction_below(latency, limit_ns) -> double`.
#[must_use]
pub fn hdr_fraction_below() -> ScalarUDF {
    ScalarUDF::new_from_impl(Function { asks: Asks::Share, signature: Signature::user_defined(Volatility::Immutable) })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Asks {
    Quantile,
    Share,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Function {
    asks: Asks,
    signature: Signature,
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        match self.asks {
            Asks::Quantile => "hdr_quantile",
            Asks::Share => "hdr_fraction_below",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        use DataType::{Binary, BinaryView, Float64, Int64, LargeBinary, Null};
        match arg_types {
            [Binary | LargeBinary | BinaryView | Null, number] if number.is_numeric() || number.is_null() => {
                let number = if self.asks == Asks::Quantile { Float64 } else { Int64 };
                Ok(vec![Binary, number])
            }
            _ if self.asks == Asks::Quantile => {
                plan_err!(
                    "hdr_quantile takes a histogram and a quantile from 0 to 1, such as hdr_quantile(latency, 0.99)"
                )
            }
            _ => plan_err!(
                "hdr_fraction_below takes a histogram and a limit in nanoseconds, such as hdr_fraction_below(latency, \
                 500000000)"
            ),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(if self.asks == Asks::Quantile { DataType::Int64 } else { DataType::Float64 })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let [column, numbers] = columns.as_slice() else {
            return exec_err!("{} takes two arguments, got {}", self.name(), columns.len());
        };
        let rows = histograms(column.as_binary::<i32>());
        let answer: ArrayRef = match self.asks {
            Asks::Quantile => {
                let quantiles = rows.zip(numbers.as_primitive::<Float64Type>()).map(|(histogram, q)| match q {
                    Some(q) if !(0.0..=1.0).contains(&q) => {
                        exec_err!("a quantile of hdr_quantile must be a number from 0 to 1, got {q}")
                    }
                    q => Ok(histogram?.zip(q).and_then(|(histogram, q)| quantile_ns(&histogram, q))),
                });
                Arc::new(quantiles.collect::<Result<Int64Array>>()?)
            }
            Asks::Share => {
                let shares = rows.zip(numbers.as_primitive::<Int64Type>()).map(|(histogram, limit_ns)| {
                    let asked = histogram?.zip(limit_ns);
                    Ok(asked.and_then(|(histogram, limit_ns)| {
                        // No duration is counted below a microsecond: below that the limit has no bucket.
                        let micros = if limit_ns < 0 { 0 } else { micros_of(limit_ns) };
                        histogram.fraction_below(micros)
                    }))
                });
                Arc::new(shares.collect::<Result<Float64Array>>()?)
            }
        };
        Ok(ColumnarValue::Array(answer))
    }
}
