//! Names of data files: `<writer>-<first>-<last>.parquet` for rows of the log, `<writer>.<fold>-<first>-<last>.parquet`
//! for what a fold of it has appended; `<last>.<token>` instead of `<last>` if the rows of several such files were merged.
//!
//! `writer` is the identity of the log, 32 hex digits. `first` and `last` are the versions of the transaction, 20 digits:
//! every row of the file is of a later position than the commit before, `first - 1`, and of `last` at most. Positions go on
//! over all logs of one data folder, so names of different writers can be compared. The token, random hex digits, keeps the
//! name from being given twice.

use std::io;
use std::path::Path as FsPath;
use std::sync::Arc;

use object_store::path::Path;
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::table::Table;

use super::store::FsStore;
use crate::fs::Fs;

/// Hex digits of a writer.
const WRITER_LEN: usize = 32;
/// Longest `app_id`, in bytes.
const APP_ID_MAX: usize = 128;

/// What a file's name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileName<'a> {
    pub(super) writer: &'a str,
    /// Empty for rows of the log.
    pub(super) fold: &'a str,
    pub(super) first: i64,
    pub(super) last: i64,
}

/// Whether it can name a transaction: `<writer>` or `<writer>/<fold>`.
pub(super) fn is_app_id(app_id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'/');
    let writer = app_id.split('/').next().unwrap_or_default();
    app_id.len() <= APP_ID_MAX && app_id.bytes().all(plain) && is_writer(writer) && !app_id.ends_with('/')
}

fn is_writer(text: &str) -> bool {
    text.len() == WRITER_LEN && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The writer of an `app_id`, and its fold.
pub(super) fn parts(app_id: &str) -> (&str, String) {
    let (writer, fold) = app_id.split_once('/').unwrap_or((app_id, ""));
    (writer, fold.replace('/', "."))
}

/// The name of a file of this transaction.
pub(super) fn file_name(app_id: &str, first: i64, last: i64) -> String {
    let (writer, fold) = parts(app_id);
    let dot = if fold.is_empty() { "" } else { "." };
    format!("{writer}{dot}{fold}-{first:020}-{last:020}.parquet")
}

/// The name of a file that holds the rows of all files of these versions.
pub(super) fn merged_name(of: FileName<'_>, token: &str) -> String {
    let FileName { writer, fold, first, last } = of;
    let dot = if fold.is_empty() { "" } else { "." };
    format!("{writer}{dot}{fold}-{first:020}-{last:020}.{token}.parquet")
}

/// A date as partitions write it, like `2026-01-31`, from the days since 1970.
pub(super) fn date_text(date32: i32) -> String {
    let date = chrono::DateTime::UNIX_EPOCH.date_naive() + chrono::Duration::days(i64::from(date32));
    date.format("%Y-%m-%d").to_string()
}

/// What [`date_text`] has written.
pub(super) fn date32(text: &str) -> Option<i32> {
    let date = chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    i32::try_from((date - chrono::DateTime::UNIX_EPOCH.date_naive()).num_days()).ok()
}

/// Where within its table a file of a date is.
pub(super) fn dated(date32: i32, name: &str) -> String {
    format!("date={}/{name}", date_text(date32))
}

/// Where in the lake's folder something within a table is.
pub(super) fn in_table(table: Table, path: &str) -> Path {
    Path::from(format!("{}/{path}", table.name()))
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn position(text: &str) -> Option<i64> {
    text.parse().ok().filter(|position| *position >= 0)
}

impl<'a> FileName<'a> {
    /// Reads the last component of a path; `None` if it is not the name of a data file of ours.
    pub(super) fn parse(path: &'a str) -> Option<Self> {
        let name = path.rsplit('/').next()?.strip_suffix(".parquet")?;
        let (name, last) = name.rsplit_once('-')?;
        let last = match last.split_once('.') {
            Some((last, token)) if is_token(token) => last,
            Some(_) => return None,
            None => last,
        };
        let (owner, first) = name.rsplit_once('-')?;
        let (writer, rest) = owner.split_at_checked(WRITER_LEN)?;
        let fold = if rest.is_empty() { rest } else { rest.strip_prefix('.')? };
        is_writer(writer).then_some(())?;
        Some(Self { writer, fold, first: position(first)?, last: position(last)? })
    }
}

/// Tables whose files are named by log positions.
const BY_POSITION: [Table; 5] = [Table::Calls, Table::Arrivals, Table::Quarantine, Table::Calls1m, Table::Calls1h];

/// The greatest log position in the names of the data files below the lake's folder, committed or not; 0 if there is none.
/// A new log begins after it.
///
/// # Errors
/// Those of the file system.
pub fn last_position(fs: Arc<dyn Fs>, folder: &FsPath) -> io::Result<WalPosition> {
    last_position_of(&FsStore::new(fs, folder.to_owned()), |_| true)
}

/// As [`last_position`], of all writers but this one: where its log began.
pub(super) fn last_position_of_others(store: &FsStore, writer: &str) -> io::Result<WalPosition> {
    last_position_of(store, |other| other != writer)
}

fn last_position_of(store: &FsStore, of: impl Fn(&str) -> bool) -> io::Result<WalPosition> {
    let mut last = 0;
    for table in BY_POSITION {
        for path in store.walk(&Path::from(table.name()))? {
            if let Some(name) = FileName::parse(path.as_ref()).filter(|name| of(name.writer)) {
                last = last.max(name.last);
            }
        }
    }
    Ok(WalPosition(last.cast_unsigned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITER: &str = "00112233445566778899aabbccddeeff";

    #[test]
    fn names_are_read_as_they_were_written() {
        for (app_id, fold) in
            [(WRITER.to_owned(), ""), (format!("{WRITER}/slo_1m"), "slo_1m"), (format!("{WRITER}/a-b/c"), "a-b.c")]
        {
            assert!(is_app_id(&app_id), "{app_id}");
            let path = format!("date=2026-01-01/{}", file_name(&app_id, 5, 17));
            let expected = FileName { writer: WRITER, fold, first: 5, last: 17 };
            assert_eq!(FileName::parse(&path), Some(expected));
            let path = format!("date=2026-01-01/{}", merged_name(expected, "0123456789abcdef"));
            assert_eq!(FileName::parse(&path), Some(expected));
        }
    }

    #[test]
    fn other_names_are_not_ours() {
        let digits = format!("{:020}-{:020}", 1, 2);
        for name in [
            format!("part-{digits}.parquet"),
            format!("{WRITER}-{digits}.json"),
            format!("{WRITER}x-{digits}.parquet"),
            format!("{WRITER}-1.parquet"),
            format!("{WRITER}-{digits}..parquet"),
            format!("{WRITER}-{digits}.xyz.parquet"),
            "_delta_log/00000000000000000000.json".to_owned(),
        ] {
            assert_eq!(FileName::parse(&name), None, "{name}");
        }
        for app_id in ["", "writer/slo_1m", &format!("{WRITER}/a.b"), &format!("{WRITER}/"), &"a".repeat(200)] {
            assert!(!is_app_id(app_id), "{app_id}");
        }
    }
}
