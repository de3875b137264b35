//! A condition on the rows of one table, outside of any statement.
//!
//! What cannot be computed, as in a division by zero, is null ([`super::null_safe`]).
//!
//! It is a SQL boolean expression over the columns of a schema, with the meaning that it has in a statement. It is refused if its
//! value could depend on anything but the row: no subqueries, aggregates, windows or parameters, no functions such as `now()`.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, BooleanArray, BooleanBuilder, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator, Volatility};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::utils::reassign_expr_columns;

use super::{Error, null_safe, statement};

/// Most operators of a condition.
pub const CONDITION_OPERATORS_MAX: usize = 200;

/// A condition that was checked and compiled.
#[derive(Debug, Clone)]
pub struct Condition {
    whole: Conjunct,
    conjuncts: Vec<Conjunct>,
    fixed: Vec<(String, String)>,
}

/// One of the conditions that a condition joins by `AND`; those are equal that are written alike.
#[derive(Debug, Clone)]
pub struct Conjunct {
    expr: Arc<dyn PhysicalExpr>,
    columns: Vec<String>,
    fixed: Option<(String, String)>,
}

impl PartialEq for Conjunct {
    fn eq(&self, other: &Self) -> bool {
        *self.expr == *other.expr
    }
}

impl Eq for Conjunct {}

impl Hash for Conjunct {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.expr.hash(state);
    }
}

impl Condition {
    /// Compiles `sql` for the columns of `schema`.
    pub(super) fn new(state: &SessionState, sql: &str, schema: &SchemaRef) -> Result<Self, Error> {
        statement::check_size(sql, CONDITION_OPERATORS_MAX)?;
        if statement::selects_anything(sql) {
            return Err(refusal("a subquery").into());
        }
        let schema = DFSchema::try_from(Arc::clone(schema))?;
        let expr = state.create_logical_expr(&null_safe(sql), &schema)?;
        check(&expr)?;
        let data_type = expr.get_type(&schema)?;
        if data_type != DataType::Boolean {
            return Err(Error::Invalid(format!("it gives {data_type}, not true or false")));
        }
        let compiled = |expr: &Expr| {
            let mut columns: Vec<String> = expr.column_refs().into_iter().map(|column| column.name.clone()).collect();
            columns.sort_unstable();
            let fixed = fixed(expr);
            Ok::<_, Error>(Conjunct { expr: state.create_physical_expr(expr.clone(), &schema)?, columns, fixed })
        };
        let conjuncts: Vec<Conjunct> = split_conjunction(&expr).into_iter().map(compiled).collect::<Result<_, _>>()?;
        let fixed = conjuncts.iter().filter_map(|conjunct| conjunct.fixed.clone()).collect();
        Ok(Self { whole: compiled(&expr)?, conjuncts, fixed })
    }

    /// The columns that it reads, in order of their names.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.whole.columns
    }

    /// The columns of text that have one value, and which, in every row for which the condition is true.
    #[must_use]
    pub fn fixed(&self) -> &[(String, String)] {
        &self.fixed
    }

    /// The conditions that it joins by `AND`: it is true where all of them are, false where one is, else null.
    #[must_use]
    pub fn conjuncts(&self) -> &[Conjunct] {
        &self.conjuncts
    }

    /// The same condition as one, for rows of another schema, in which its columns have the same types but other places.
    ///
    /// # Errors
    /// If a column is missing.
    pub fn for_schema(&self, schema: &SchemaRef) -> Result<Conjunct, Error> {
        self.whole.for_schema(schema)
    }
}

impl Conjunct {
    /// The columns that it reads, in order of their names.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The column of text that has one value, and which, in every row for which it is true.
    #[must_use]
    pub fn fixed(&self) -> Option<(&str, &str)> {
        self.fixed.as_ref().map(|(column, text)| (column.as_str(), text.as_str()))
    }

    /// See [`Condition::for_schema`].
    ///
    /// # Errors
    /// If a column is missing.
    pub fn for_schema(&self, schema: &SchemaRef) -> Result<Self, Error> {
        let expr = reassign_expr_columns(Arc::clone(&self.expr), schema)?;
        Ok(Self { expr, ..self.clone() })
    }

    /// Its value for each row. Of a row for which it cannot be computed, as in a division by zero, it is null.
    #[must_use]
    pub fn evaluate(&self, batch: &RecordBatch) -> BooleanArray {
        if let Some(values) = self.try_evaluate(batch) {
            return values;
        }
        let rows = batch.num_rows();
        let mut values = BooleanBuilder::with_capacity(rows);
        self.evaluate_parts(batch, &mut values);
        values.finish()
    }

    fn try_evaluate(&self, batch: &RecordBatch) -> Option<BooleanArray> {
        let values = self.expr.evaluate(batch).and_then(|values| values.into_array(batch.num_rows())).ok()?;
        values.as_any().downcast_ref::<BooleanArray>().cloned()
    }

    /// Halves what fails until only the rows that fail are left.
    fn evaluate_parts(&self, batch: &RecordBatch, values: &mut BooleanBuilder) {
        let rows = batch.num_rows();
        match self.try_evaluate(batch) {
            Some(found) => values.append_array(&found),
            None if rows <= 1 => values.append_nulls(rows),
            None => {
                self.evaluate_parts(&batch.slice(0, rows / 2), values);
                self.evaluate_parts(&batch.slice(rows / 2, rows - rows / 2), values);
            }
        }
    }
}

fn check(expr: &Expr) -> Result<(), Error> {
    expr.apply(|node| {
        let refused = match node {
            Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_) => "a subquery",
            Expr::AggregateFunction(_) | Expr::GroupingSet(_) => "an aggregate",
            Expr::WindowFunction(_) => "a window function",
            Expr::Placeholder(_) | Expr::ScalarVariable(..) => "a parameter",
            Expr::ScalarFunction(function) if function.func.signature().volatility != Volatility::Immutable => {
                return Err(refusal(&format!(
                    "the function \"{}\", which does not depend on the row alone",
                    function.name()
                )));
            }
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        Err(refusal(refused))
    })?;
    Ok(())
}

fn refusal(what: &str) -> datafusion::error::DataFusionError {
    datafusion::error::DataFusionError::Plan(format!("it holds {what}; a condition is on the columns of one row"))
}

/// `column = 'text'`, either way round.
fn fixed(expr: &Expr) -> Option<(String, String)> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = expr else { return None };
    match (left.as_ref(), right.as_ref()) {
        (Expr::Column(column), Expr::Literal(ScalarValue::Utf8(Some(text)), _))
        | (Expr::Literal(ScalarValue::Utf8(Some(text)), _), Expr::Column(column)) => {
            Some((column.name.clone(), text.clone()))
        }
        _ => None,
    }
}
