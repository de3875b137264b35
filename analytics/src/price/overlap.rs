//! What is wrong with entries together.

use super::entry::Entry;
use super::file::{Fault, Severity};
use super::glob::Glob;

/// Most entries that are compared, each with each.
const COMPARED_MAX: usize = 2_000;
/// Most overlaps that are told.
const TOLD_MAX: usize = 100;

/// Of each entry the first one before it that takes calls from it, unless it is the more specific one.
pub(super) fn overlaps(entries: &[Entry]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (at, entry) in entries.iter().enumerate().take(COMPARED_MAX) {
        let Some(fault) = entries[..at].iter().find_map(|before| overlap(before, entry)) else { continue };
        faults.push(fault);
        if faults.len() == TOLD_MAX {
            break;
        }
    }
    faults
}

fn overlap(before: &Entry, entry: &Entry) -> Option<Fault> {
    let meet = before.kind == entry.kind && before.from < entry.until && entry.from < before.until;
    let pairs = [
        (&before.tools, &entry.tools),
        (&before.servers, &entry.servers),
        (&before.models, &entry.models),
        (&before.providers, &entry.providers),
    ];
    if !meet || !pairs.iter().all(|(a, b)| globs_meet(a, b)) {
        return None;
    }
    let first = place(before);
    let names_covered = pairs.iter().all(|(a, b)| globs_cover(a, b));
    let dates_covered = before.from <= entry.from && entry.until <= before.until;
    let message = match (names_covered, dates_covered) {
        (true, true) => {
            format!(
                "never applies: {first} comes first and takes all of its calls (move it before that one, or remove it)"
            )
        }
        (true, false) => {
            let (from, until) = (before.from.max(entry.from), before.until.min(entry.until));
            format!(
                "{first} has a price for the same calls{}; that one applies (let one end where the other begins)",
                dates(from, until)
            )
        }
        // The more specific one comes first, as it should.
        (false, _) if pairs.iter().all(|(a, b)| globs_cover(b, a)) => return None,
        (false, _) => {
            format!("some calls fit {first} as well; that one comes first and applies (say which one is meant)")
        }
    };
    Some(Fault {
        severity: Severity::Warning,
        file: entry.file.to_string(),
        line: entry.line,
        column: 1,
        key: "price".to_owned(),
        message,
    })
}

fn place(entry: &Entry) -> String {
    let (file, line) = entry.place();
    format!("the price at {file}:{line}")
}

fn dates(from: i32, until: i32) -> String {
    let from = if from == i32::MIN { String::new() } else { format!(" from {}", super::file::date_text(from)) };
    let until = if until == i32::MAX { String::new() } else { format!(" until {}", super::file::date_text(until)) };
    format!("{from}{until}")
}

/// None of them match everything.
fn globs_meet(a: &[Glob], b: &[Glob]) -> bool {
    a.is_empty() || b.is_empty() || a.iter().any(|a| b.iter().any(|b| a.meets(b)))
}

/// Whether whatever one of `b` matches, one of `a` matches.
fn globs_cover(a: &[Glob], b: &[Glob]) -> bool {
    a.is_empty() || (!b.is_empty() && b.iter().all(|b| a.iter().any(|a| a.covers(b))))
}
