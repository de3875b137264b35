//! Which statements are taken at all, decided on the text and the syntax tree before anything is planned.

use datafusion::execution::context::SQLOptions;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{Query, SetExpr, Statement as Ast};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use super::Error;

/// Longest statement, in bytes: more than any tool writes, and parsed in milliseconds.
pub const BYTES_MAX: usize = 1 << 20;

/// Most words and signs (all tokens but literals, commas, dots and spaces) in a statement.
pub const WORDS_MAX: usize = 2_000;

/// Most operators in a statement. A chain such as `1 + 1 + 1 ...` becomes a tree as deep as it is long; planning takes
/// time by the square of its depth, cannot be stopped, and walks it with stack frames for every level.
pub const OPERATORS_MAX: usize = 500;

/// Most numbers and texts in a statement: planning a list of them cannot be stopped.
pub const LITERALS_MAX: usize = 10_000;

/// Deepest nesting of parentheses and queries.
pub const NESTING_MAX: usize = 50;

/// How much of a refused statement an error repeats, in characters.
const SHOWN_MAX: usize = 60;

/// Refuses a text that is too long, or has too many words, literals or operators.
pub(super) fn check_size(sql: &str, operators_max: usize) -> Result<(), Error> {
    if sql.len() > BYTES_MAX {
        return Err(Error::TooComplex { what: "bytes", found: sql.len(), max: BYTES_MAX });
    }
    let dialect = GenericDialect {};
    let tokens = Tokenizer::new(&dialect, sql).tokenize().map_err(|error| Error::Invalid(error.to_string()))?;
    let counted = |counts: fn(&Token) -> bool| tokens.iter().filter(|token| counts(token)).count();
    for (what, found, max) in [
        ("words and signs", counted(is_word), WORDS_MAX),
        ("operators", counted(is_operator), operators_max),
        ("literals", counted(is_literal), LITERALS_MAX),
    ] {
        if found > max {
            return Err(Error::TooComplex { what, found, max });
        }
    }
    Ok(())
}

/// Whether a text that can be split into words has a statement in it.
pub(super) fn selects_anything(sql: &str) -> bool {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize().unwrap_or_default();
    tokens.iter().any(|token| matches!(token, Token::Word(word) if word.keyword == Keyword::SELECT))
}

/// The one statement in `sql`, if it only reads.
pub(super) fn parse(sql: &str) -> Result<Statement, Error> {
    check_size(sql, OPERATORS_MAX)?;
    let mut statements = DFParserBuilder::new(sql)
        .with_dialect(&GenericDialect {})
        .with_recursion_limit(NESTING_MAX)
        .build()
        .and_then(|mut parser| parser.parse_statements())?;
    let Some(statement) = statements.pop_front() else {
        return Err(Error::Invalid("there is no statement in the query; write one, such as \"SELECT 1\"".to_owned()));
    };
    if !statements.is_empty() || !reads(&statement) {
        return Err(Error::NotReadOnly(shown(sql)));
    }
    Ok(statement)
}

/// The second lock: whatever the syntax tree looked like, a plan that writes, defines or sets is not run.
pub(super) fn check_plan(plan: &LogicalPlan, sql: &str) -> Result<(), Error> {
    SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
        .verify_plan(plan)
        .map_err(|_| Error::NotReadOnly(shown(sql)))
}

fn is_word(token: &Token) -> bool {
    !is_literal(token) && !matches!(token, Token::Whitespace(_) | Token::Comma | Token::Period | Token::EOF)
}

fn is_literal(token: &Token) -> bool {
    matches!(token, Token::Number(..) | Token::SingleQuotedString(_) | Token::HexStringLiteral(_))
}

fn is_operator(token: &Token) -> bool {
    match token {
        Token::Word(word) => matches!(word.keyword, Keyword::AND | Keyword::OR | Keyword::IS | Keyword::UNION),
        Token::LParen | Token::RParen | Token::SemiColon | Token::Placeholder(_) => false,
        token => is_word(token),
    }
}

fn reads(statement: &Statement) -> bool {
    match statement {
        Statement::Statement(statement) => match statement.as_ref() {
            Ast::Query(query) => selects(query),
            Ast::ShowTables { .. }
            | Ast::ShowColumns { .. }
            | Ast::ShowVariable { .. }
            | Ast::ShowFunctions { .. }
            | Ast::ShowCreate { .. }
            | Ast::ExplainTable { .. } => true,
            Ast::Explain { statement, .. } => matches!(statement.as_ref(), Ast::Query(query) if selects(query)),
            _ => false,
        },
        Statement::Explain(explain) => reads(&explain.statement),
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => false,
    }
}

/// `WITH ... INSERT` is a query to the parser.
fn selects(query: &Query) -> bool {
    !matches!(query.body.as_ref(), SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_))
}

fn shown(sql: &str) -> String {
    let sql = sql.trim();
    match sql.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}...", &sql[..end]),
        None => sql.to_owned(),
    }
}
