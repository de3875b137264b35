//! Ids as text: the SQL function `hex(bytes)`, lower case, and the rule that turns `hex(id) = 'ab12...'` into
//! `id = X'AB12...'`.
//!
//! The views show ids as hex. Without the rule every search for a trace would write out the ids of all rows; with it
//! the comparison reaches the Parquet files, their statistics and bloom filters. A text that is not lower-case hex
//! equals no id, and is left to the function.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{InList, ScalarFunction};
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

const NAME: &str = "hex";

/// The SQL function `hex(binary) -> text`.
#[must_use]
pub fn hex() -> ScalarUDF {
    ScalarUDF::new_from_impl(Hex { signature: Signature::exact(vec![DataType::Binary], Volatility::Immutable) })
}

/// `bytes` as lower-case hex.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    push(&mut text, bytes);
    text
}

fn push(text: &mut impl Write, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            // Writing to memory does not fail.
            text.write_char(char::from(DIGITS[usize::from(digit)])).unwrap_or_default();
        }
    }
}

/// The bytes that `text` is the hex of; `None` if there are none.
fn decode(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Hex {
    signature: Signature,
}

impl ScalarUDFImpl for Hex {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.as_slice() {
            [ColumnarValue::Scalar(ScalarValue::Binary(bytes))] => {
                Ok(ColumnarValue::Scalar(ScalarValue::Utf8(bytes.as_deref().map(encode))))
            }
            [ColumnarValue::Array(array)] if array.data_type() == &DataType::Binary => {
                let bytes = array.as_binary::<i32>();
                let mut text = StringBuilder::with_capacity(bytes.len(), bytes.value_data().len() * 2);
                for value in bytes {
                    match value {
                        Some(value) => {
                            push(&mut text, value);
                            text.append_value("");
                        }
                        None => text.append_null(),
                    }
                }
                Ok(ColumnarValue::Array(Arc::new(text.finish()) as ArrayRef))
            }
            _ => exec_err!("hex takes one binary value"),
        }
    }
}

/// Compares bytes where a filter compares their hex with texts.
#[derive(Debug)]
pub struct CompareBytes;

impl OptimizerRule for CompareBytes {
    fn name(&self) -> &str {
        "compare_bytes"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        match plan {
            // Only where expressions have no names that the plan's schema would lose.
            LogicalPlan::Filter(_) | LogicalPlan::TableScan(_) => {
                plan.map_expressions(|expr| expr.transform_up(|expr| Ok(compare_bytes(expr))))
            }
            plan => Ok(Transformed::no(plan)),
        }
    }
}

fn compare_bytes(expr: Expr) -> Transformed<Expr> {
    let rewritten = match &expr {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Eq | Operator::NotEq), right }) => {
            let sides = argument(left).zip(literal(right)).or_else(|| argument(right).zip(literal(left)));
            sides.map(|(bytes, value)| Expr::BinaryExpr(BinaryExpr::new(Box::new(bytes.clone()), *op, Box::new(value))))
        }
        Expr::InList(InList { expr, list, negated }) => {
            let list: Option<Vec<_>> = list.iter().map(literal).collect();
            argument(expr).zip(list).map(|(bytes, list)| bytes.clone().in_list(list, *negated))
        }
        _ => None,
    };
    rewritten.map_or_else(|| Transformed::no(expr), Transformed::yes)
}

/// The bytes whose hex the expression is.
fn argument(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::ScalarFunction(ScalarFunction { func, args }) if func.name() == NAME => args.first(),
        _ => None,
    }
}

/// The bytes whose hex the literal is.
fn literal(expr: &Expr) -> Option<Expr> {
    match expr {
        Expr::Literal(ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)), None) => {
            Some(Expr::Literal(ScalarValue::Binary(Some(decode(text)?)), None))
        }
        _ => None,
    }
}
