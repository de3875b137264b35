//! The program is killed at random moments under load, again and again.

use std::io::Write as _;
use std::time::Duration;

use serde_json::Value;

use crate::load::Load;
use crate::process::Process;
use crate::sandbox::{Api, LIMIT, Sandbox, now_ns, until};
use crate::traffic::{DECISIONS, ROWS_PER_TRACE};

/// Rounds, unless `TOOLGAUGE_TEST_KILL_ROUNDS` says otherwise.
const ROUNDS: u64 = 20;
const CLIENTS: usize = 4;
/// Longest life of a process that is killed by the clock, and not after a number of acknowledgements.
const SHORT_LIFE: Duration = Duration::from_millis(1_500);
/// Most acknowledgements of a round.
const ACKNOWLEDGEMENTS_MAX: u64 = 400;
/// Commits must happen within the rounds, and files of the log must end.
const SETTINGS: [(&str, &str); 3] = [
    ("TOOLGAUGE_SETTLE_AFTER", "500ms"),
    ("TOOLGAUGE_LAKE_COMMIT_INTERVAL", "50ms"),
    ("TOOLGAUGE_WAL_SEGMENT", "512KiB"),
];

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// SplitMix64.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn one_of<'a, T>(&mut self, some: &'a [T]) -> &'a T {
        &some[self.below(some.len() as u64) as usize]
    }

    pub(crate) fn shuffle<T>(&mut self, some: &mut [T]) {
        (1..some.len()).rev().for_each(|last| some.swap(last, self.below(last as u64 + 1) as usize));
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % end
    }
}

/// Scenario: four clients export without pause; the process is killed at random moments (while it serves, starts or
/// replays) and started again on the same folder; what was not acknowledged is sent again. Guarantees: in the end every
/// acknowledged span is found exactly once, decided as in a run that nobody killed.
#[tokio::test(flavor = "multi_thread")]
async fn kills_at_random_moments_lose_nothing_double_nothing_and_change_no_decision() {
    let (rounds, seed) = (setting("TOOLGAUGE_TEST_KILL_ROUNDS", ROUNDS), setting("TOOLGAUGE_TEST_KILL_SEED", 1));
    writeln!(std::io::stderr(), "TOOLGAUGE_TEST_KILL_SEED={seed} TOOLGAUGE_TEST_KILL_ROUNDS={rounds}").unwrap();
    let mut rng = Rng(seed);
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let base_ns = now_ns();
    let load = Load::start(CLIENTS, base_ns);
    let mut committed = 0;
    for round in 0..rounds {
        let command = Process::command(&data, &SETTINGS);
        if rng.below(4) == 0 {
            let life = Duration::from_millis(rng.below(SHORT_LIFE.as_millis() as u64));
            let (mut process, doors) = Process::spawn(command);
            // The clients get the address if it comes to that; nothing else ends this process before its time.
            let served = async {
                if let Ok(doors) = doors.await {
                    load.point_at(doors.otlp);
                }
                std::future::pending::<()>().await;
            };
            drop(tokio::time::timeout(life, served).await);
            if process.ended().is_some() {
                panic!("round {round}: it ended by itself: {}", process.stderr());
            }
            process.kill();
            continue;
        }
        let (mut process, doors) = Process::start(command).await;
        load.point_at(doors.otlp);
        let enough = load.acknowledged() + 1 + rng.below(ACKNOWLEDGEMENTS_MAX);
        until(LIMIT, "so many exports are acknowledged", async || {
            if process.ended().is_some() {
                panic!("round {round}: it ended by itself: {}", process.stderr());
            }
            (load.acknowledged() >= enough).then_some(())
        })
        .await;
        if round % 4 == 3 {
            committed = doors.api.status().await.ingest.wal_committed;
        }
        process.kill();
    }
    assert!(committed > 0, "some commits lie between the kills");
    let (mut process, doors) = Process::start(Process::command(&data, &SETTINGS)).await;
    load.point_at(doors.otlp);
    let exports = load.finish().await;
    let found = decisions(&doors.api, &exports).await;
    process.terminate();
    assert_eq!(process.until_ended().await.code(), Some(0), "{}", process.stderr());

    let sandbox = Sandbox::start().await;
    let unkilled = Load::start_each(&exports, base_ns);
    unkilled.point_at(sandbox.otlp);
    assert_eq!(unkilled.until_done().await, exports);
    assert_eq!(found, decisions(&sandbox.api, &exports).await);
    sandbox.stop().await;
}

/// Checks that every row of these exports is there once, and gives what was decided of them.
async fn decisions(api: &Api, exports: &[u64]) -> Vec<Vec<Value>> {
    api.until_visible().await;
    let rows = exports.iter().sum::<u64>() * ROWS_PER_TRACE;
    let counted = api.row("SELECT count(*), count(DISTINCT row_id), count(DISTINCT trace_id) FROM calls").await;
    assert_eq!(counted, [rows.into(), rows.into(), Value::from(exports.iter().sum::<u64>())]);
    let decisions = api.sql(DECISIONS).await;
    let tools: Vec<String> =
        decisions.iter().map(|row| format!("{} {}", row[0].as_str().unwrap(), row[1].as_str().unwrap())).collect();
    assert_eq!(tools, ["charge agent", "even agent", "odd agent", "search agent", "search client", "search server"]);
    let traces = exports.iter().sum::<u64>();
    // attempts, distinct, sum of attempt numbers, final, counted
    let figures = |row: &[Value]| row[2..7].iter().map(|value| value.as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(figures(&decisions[0]), [3 * traces, 3 * traces, 6 * traces, traces, 3 * traces]);
    assert_eq!(figures(&decisions[3]), [traces, traces, traces, traces, traces]);
    assert_eq!(figures(&decisions[4])[4], 0);
    assert_eq!(figures(&decisions[5])[4], 0);
    let failed: u64 = exports.iter().map(|exports| exports.div_ceil(3)).sum();
    assert_eq!(decisions[0][8], failed, "final failures");
    decisions
}
