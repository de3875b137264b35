//! Makes what cannot be computed null, in the text of a condition.
//!
//! A row with a divisor of 0, or a text that is no number, must not make a whole statement fail: whoever wrote the condition asks of each row
//! whether it holds. Of such a row it is null, as in three-valued logic, wherever the condition is evaluated: compiled, or as SQL in a proof, an
//! alert or a report. So the text is rewritten once, before either: divisors that are no numbers become `nullif(divisor, 0)`, casts `TRY_CAST`.

use std::borrow::Cow;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{BinaryOperator, CastKind, Expr, Value, visit_expressions_mut};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;

/// The condition with the same value wherever it has one, and null where computing it would fail. One that cannot be parsed stays as it is: it is
/// refused with its own words.
pub fn null_safe(sql: &str) -> Cow<'_, str> {
    let has_word =
        |word: &str| sql.as_bytes().windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()));
    // Most have nothing that can fail.
    if !["/", "%", "::", "cast"].into_iter().any(has_word) {
        return Cow::Borrowed(sql);
    }
    let Some(mut expr) = parsed(sql) else { return Cow::Borrowed(sql) };
    let mut changed = false;
    let _whole = visit_expressions_mut(&mut expr, |expr| {
        match expr {
            Expr::BinaryOp { op: BinaryOperator::Divide | BinaryOperator::Modulo, right, .. } if !is_number(right) => {
                if let Some(safe) = parsed(&format!("nullif({right}, 0)")) {
                    **right = safe;
                    changed = true;
                }
            }
            Expr::Cast { kind: kind @ (CastKind::Cast | CastKind::DoubleColon), .. } => {
                *kind = CastKind::TryCast;
                changed = true;
            }
            _ => {}
        }
        ControlFlow::<()>::Continue(())
    });
    if changed { Cow::Owned(expr.to_string()) } else { Cow::Borrowed(sql) }
}

fn parsed(sql: &str) -> Option<Expr> {
    let mut parser = Parser::new(&GenericDialect {}).try_with_sql(sql).ok()?;
    let expr = parser.parse_expr().ok()?;
    (parser.peek_token().token == Token::EOF).then_some(expr)
}

/// Whether it is a number other than 0.
fn is_number(expr: &Expr) -> bool {
    let Expr::Value(value) = expr else { return false };
    matches!(&value.value, Value::Number(text, _) if text.bytes().any(|byte| (b'1'..=b'9').contains(&byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divisors_and_casts_that_may_fail_are_null_instead() {
        for (text, safe) in [
            ("output_tokens / input_tokens > 2", "output_tokens / nullif(input_tokens, 0) > 2"),
            ("a % (b - 1) = 0 AND c / 1000 > 1", "a % nullif((b - 1), 0) = 0 AND c / 1000 > 1"),
            ("a / (b / c) > 1", "a / nullif((b / nullif(c, 0)), 0) > 1"),
            ("a / 0 > 1", "a / nullif(0, 0) > 1"),
            ("status_code::text LIKE '5%' -- servers", "TRY_CAST(status_code AS TEXT) LIKE '5%'"),
            ("CAST(tool_name AS INT) > 1", "TRY_CAST(tool_name AS INT) > 1"),
            ("CASE WHEN a > 0 THEN b / a > 1 END", "CASE WHEN a > 0 THEN b / nullif(a, 0) > 1 END"),
        ] {
            assert_eq!(null_safe(text), safe, "{text}");
        }
        for same in ["tool_name = 'a/b' -- 10 %", "duration_ns / 1e6 < 10", "outcome = 'ok'", "a / ", "SELECT 1 / a"] {
            assert_eq!(null_safe(same), same);
        }
    }
}
