//! The rules one by one.

use crate::alert::*;

const MINUTE: i64 = 60_000_000;
const NO_PATIENCE: Patience = Patience { pending_us: 0, keep_firing_us: 0 };

fn at(minute: i64) -> UnixMicros {
    UnixMicros(minute * MINUTE)
}

const BURNS: Observation = Observation { evaluation: Evaluation::Ok, burns: true, long_total: 10 };
const CLEAR: Observation = Observation { evaluation: Evaluation::Ok, burns: false, long_total: 10 };
const IDLE: Observation = Observation { evaluation: Evaluation::Idle, burns: false, long_total: 1 };
const GONE: Observation = Observation { evaluation: Evaluation::Idle, burns: false, long_total: 0 };
const STALE: Observation = Observation { evaluation: Evaluation::Stale, burns: false, long_total: 0 };
const STALE_BURNS: Observation = Observation { evaluation: Evaluation::Stale, burns: true, long_total: 10 };
const LEARNING: Observation = Observation { evaluation: Evaluation::Learning, burns: true, long_total: 10 };

/// One word and one reason for each change of a run of observations, one a minute from minute 0.
fn timeline(patience: Patience, observations: &[Observation]) -> Vec<(i64, &'static str, &'static str)> {
    let (mut state, mut changes) = (State::Inactive, Vec::new());
    for (minute, observation) in observations.iter().enumerate() {
        let minute = minute as i64;
        let (next, transition) = step(state, observation, patience, at(minute));
        match transition {
            Some(change) => {
                assert_eq!((change.from, change.to), (state, next));
                assert_eq!(change.from.as_str() == change.to.as_str(), change.keeps_firing());
                changes.push((minute, next.as_str(), change.reason.as_str()));
            }
            None => assert_eq!(next.as_str(), state.as_str()),
        }
        state = next;
    }
    changes
}

#[test]
fn it_fires_at_once_and_ends_at_once() {
    let changes = timeline(NO_PATIENCE, &[CLEAR, BURNS, BURNS, CLEAR, CLEAR, BURNS, CLEAR]);
    let expected = [
        (1, "firing", "burning"),
        (3, "resolved", "recovered"),
        (5, "firing", "burning"),
        (6, "resolved", "recovered"),
    ];
    assert_eq!(changes, expected);
}

#[test]
fn a_resolved_alert_is_inactive_after_a_quarter_of_an_hour() {
    let mut observations = vec![BURNS, CLEAR];
    observations.extend([CLEAR; 20]);
    let changes = timeline(NO_PATIENCE, &observations);
    assert_eq!(changes[2..], [(16, "inactive", "expired")]);
    // Also while nothing is known: it is only a matter of time.
    observations[2..].fill(STALE);
    assert_eq!(timeline(NO_PATIENCE, &observations)[2..], [(16, "inactive", "expired")]);
}

#[test]
fn missing_telemetry_freezes() {
    assert_eq!(timeline(NO_PATIENCE, &[CLEAR, STALE_BURNS, LEARNING, STALE, CLEAR]), []);
    let changes = timeline(NO_PATIENCE, &[BURNS, STALE, STALE, LEARNING, BURNS, CLEAR]);
    assert_eq!(changes, [(0, "firing", "burning"), (5, "resolved", "recovered")]);
}

#[test]
fn an_idle_alert_holds_until_its_long_window_is_empty() {
    let changes = timeline(NO_PATIENCE, &[BURNS, IDLE, IDLE, IDLE, GONE, GONE]);
    assert_eq!(changes, [(0, "firing", "burning"), (4, "resolved", "no_traffic")]);
    assert_eq!(timeline(NO_PATIENCE, &[IDLE, GONE, IDLE]), []);
    // Calls that come back decide.
    let changes = timeline(NO_PATIENCE, &[BURNS, IDLE, CLEAR]);
    assert_eq!(changes[1..], [(2, "resolved", "recovered")]);
}

#[test]
fn a_patient_alert_burns_for_the_time_asked_without_a_break() {
    let patience = Patience { pending_us: 2 * MINUTE, ..NO_PATIENCE };
    let changes = timeline(patience, &[BURNS, BURNS, CLEAR, BURNS, STALE, BURNS, CLEAR]);
    let expected = [
        (0, "pending", "burning"),
        (2, "inactive", "recovered"),
        (3, "pending", "burning"),
        (5, "firing", "burning"),
        (6, "resolved", "recovered"),
    ];
    assert_eq!(changes, expected);
    assert_eq!(timeline(patience, &[BURNS, IDLE])[1..], [(1, "inactive", "no_traffic")]);
}

#[test]
fn a_kept_alert_ends_after_it_was_clear_for_the_time_asked() {
    let patience = Patience { keep_firing_us: 2 * MINUTE, ..NO_PATIENCE };
    let changes = timeline(patience, &[BURNS, CLEAR, CLEAR, BURNS, CLEAR, CLEAR, CLEAR]);
    let expected = [
        (0, "firing", "burning"),
        (1, "firing", "clear"),
        (3, "firing", "burning"),
        (4, "firing", "clear"),
        (6, "resolved", "recovered"),
    ];
    assert_eq!(changes, expected);
    // What is not known is no recovery, and no break of one.
    let changes = timeline(patience, &[BURNS, CLEAR, STALE, CLEAR]);
    assert_eq!(changes[1..], [(1, "firing", "clear"), (3, "resolved", "recovered")]);
}

#[test]
fn a_clock_that_goes_back_neither_moves_the_start_nor_ends_before_it() {
    let (firing, _) = step(State::Inactive, &BURNS, NO_PATIENCE, at(100));
    let (still, change) = step(firing, &BURNS, NO_PATIENCE, at(40));
    assert_eq!((still.starts_at(), change), (Some(at(100)), None));
    let (resolved, _) = step(still, &CLEAR, NO_PATIENCE, at(41));
    assert_eq!((resolved.starts_at(), resolved.ends_at()), (Some(at(100)), Some(at(100))));
    // Pending counts anew from where the clock went to.
    let patience = Patience { pending_us: 5 * MINUTE, ..NO_PATIENCE };
    let (pending, _) = step(State::Inactive, &BURNS, patience, at(100));
    let (pending, _) = step(pending, &BURNS, patience, at(40));
    let (firing, change) = step(pending, &BURNS, patience, at(45));
    assert_eq!(firing.starts_at(), Some(at(45)));
    assert_eq!(change.map(|change| change.reason), Some(Reason::Burning));
}

#[test]
fn the_first_rule_that_matches_decides_what_an_evaluation_can_tell() {
    let good = Telemetry {
        history: History::Counted,
        watermark_age_us: STALE_AFTER_US,
        covered_minutes: 9,
        short_minutes: 10,
        sources: Sources::Alive,
    };
    assert_eq!(good.evaluation(1), Evaluation::Ok);
    assert_eq!(good.evaluation(0), Evaluation::Idle);
    let old = Telemetry { watermark_age_us: STALE_AFTER_US + 1, ..good };
    let uncovered = Telemetry { covered_minutes: 8, ..good };
    let silent = Telemetry { sources: Sources::Silent, ..good };
    for stale in [old, uncovered, silent] {
        assert_eq!((stale.evaluation(0), stale.evaluation(9)), (Evaluation::Stale, Evaluation::Stale));
        assert_eq!(Telemetry { history: History::Counting, ..stale }.evaluation(9), Evaluation::Learning);
    }
    // A short window of which no minute has ended yet is not uncovered.
    assert_eq!(Telemetry { covered_minutes: 0, short_minutes: 0, ..good }.evaluation(1), Evaluation::Ok);
}
