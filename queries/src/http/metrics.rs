//! Counters of the statements and reports that the HTTP API runs, in Prometheus' text format.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::engine::Error;

const RESULTS: usize = Error::KINDS.len() + 1;

/// What was asked and how it ended.
#[derive(Debug, Default)]
pub(super) struct QueryMetrics {
    /// `ok`, then [`Error::KINDS`].
    results: [AtomicU64; RESULTS],
    micros: AtomicU64,
    rows: AtomicU64,
}

impl QueryMetrics {
    /// Counts one that has ended.
    pub(super) fn count<T>(&self, result: &Result<T, Error>, elapsed: Duration, rows: impl FnOnce(&T) -> usize) {
        let index = match result {
            Ok(answer) => {
                self.rows.fetch_add(rows(answer) as u64, Ordering::Relaxed);
                0
            }
            Err(error) => Error::KINDS.iter().position(|kind| *kind == error.kind()).map_or(0, |index| index + 1),
        };
        self.results[index].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// The counters as text.
    pub(super) fn text(&self, running: usize) -> String {
        let mut text = String::from(
            "# HELP toolgauge_queries_total Statements and reports by how they ended.\n\
             # TYPE toolgauge_queries_total counter\n",
        );
        let mut line = |arguments: std::fmt::Arguments<'_>| {
            // Writing to memory does not fail.
            text.write_fmt(arguments).unwrap_or_default();
        };
        for (result, count) in ["ok"].iter().chain(&Error::KINDS).zip(&self.results) {
            line(format_args!("toolgauge_queries_total{{result=\"{result}\"}} {}\n", count.load(Ordering::Relaxed)));
        }
        line(format_args!(
            "# HELP toolgauge_query_seconds_total Time from the request to the answer, waiting included.\n\
             # TYPE toolgauge_query_seconds_total counter\n\
             toolgauge_query_seconds_total {}\n",
            self.micros.load(Ordering::Relaxed) as f64 / 1e6
        ));
        line(format_args!(
            "# HELP toolgauge_query_rows_total Rows of answers.\n\
             # TYPE toolgauge_query_rows_total counter\n\
             toolgauge_query_rows_total {}\n",
            self.rows.load(Ordering::Relaxed)
        ));
        line(format_args!(
            "# HELP toolgauge_queries_running Statements that run now.\n\
             # TYPE toolgauge_queries_running gauge\n\
             toolgauge_queries_running {running}\n"
        ));
        text
    }
}
