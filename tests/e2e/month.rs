//! A generated month beside the books of who made it up.

use toolgauge_queries::tables::{self, Catalog};

use crate::month_of_a_fleet::{self as fleet, Month, Pace};

const DAYS: u64 = 30;
const CALLS: u64 = 1_000_000;
const SPANS: u64 = 512;
const HOUR_US: i64 = 3_600_000_000;

/// Scenario: a month of a fleet, a million calls: retries, three views of a call, reported costs and those of a book (in two currencies, by
/// the nanosecond, by the token), calls without any, teams, samples; committed over and over, and merged. Guarantees: in every
/// grouping, the sums, what follows from them, and what is said of samples are the generator's, to the last call and nano-dollar.
#[test]
fn a_month_of_a_million_calls_is_what_its_books_say() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut month = Month::new(folder.path(), runtime.handle()).unwrap();
    let mut history = fleet::history(5, DAYS, CALLS, SPANS);
    month.live_through(&mut history, DAYS, Pace { commit_us: 4 * HOUR_US, merge_us: 24 * HOUR_US }).unwrap();
    assert!(month.days.len() >= 30 && month.days.values().map(|day| day.commits).sum::<u32>() > 150);
    let view = month.view().unwrap();
    runtime.block_on(async {
        let engine = tables::engine(fleet::unlimited()).unwrap();
        let catalog = Catalog::new(&engine).await.unwrap();
        let (answers, _) = fleet::answers(&engine, &catalog, &view).await.unwrap();
        assert!(answers.costs.iter().all(|report| !report.truncated));
        let sampled = answers.tools.iter().flat_map(|report| &report.tools).filter(|tool| tool.sampled).count();
        let checked = history.check(answers).unwrap();
        assert!((950_000..1_050_000).contains(&checked.calls) && sampled == 36, "{checked:?}, {sampled} sampled");
        // A grouping by session is most of them.
        assert!(checked.figures > 40_000, "{checked:?}");
    });
}
