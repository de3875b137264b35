//! How soon a total outage of a 99.9 % SLO pages, and how soon it ends: with ring, tiers and alert together, by the
//! second.

use std::sync::Arc;

use crate::alert::*;
use crate::budget::{Target, default_tiers};
use crate::sli::Counts;
use crate::window::{Minute, MinuteRing, Window};

const SECOND: i64 = 1_000_000;
/// An evaluation every 10 s.
const INTERVAL_S: i64 = 10;

/// When the fast tier fires and ends after an outage from `from_s` to `until_s`, with so many calls a second.
fn fast_tier(calls_a_second: u64, from_s: i64, until_s: i64) -> (i64, i64) {
    let target = Target::from_ratio("0.999").unwrap();
    let tiers = default_tiers(Window::D30, target);
    let tier = &tiers[0];
    let mut ring = MinuteRing::new(Arc::from([tier.long, tier.short]), Minute(0));
    let mut state = State::Inactive;
    for second in 0..until_s + 600 {
        let now = UnixMicros(second * SECOND);
        ring.advance(Minute::of(now));
        if second % INTERVAL_S == 0 {
            let (long, short) = (ring.sum(0), ring.sum(1));
            let burns = tier.burns(&long, &short, target);
            let evaluation = if short.total() == 0 { Evaluation::Idle } else { Evaluation::Ok };
            let observation = Observation { evaluation, burns, long_total: long.total() };
            state = step(state, &observation, Patience::default(), now).0;
        }
        let failing = (from_s..until_s).contains(&second);
        let counts = if failing {
            Counts { bad: calls_a_second, ..Counts::default() }
        } else {
            Counts { good: calls_a_second, ..Counts::default() }
        };
        ring.add(Minute::of(now), &counts);
    }
    let State::Resolved { starts_at, ends_at } = state else { panic!("it is {}", state.as_str()) };
    (starts_at.0 / SECOND - from_s, ends_at.0 / SECOND - until_s)
}

#[test]
fn a_total_outage_pages_within_53_s_and_an_interval_and_ends_with_the_short_window() {
    for calls_a_second in [1, 100] {
        for offset in (0..60).step_by(7) {
            let from = 2 * 3_600 + offset;
            let (fires, ends) = fast_tier(calls_a_second, from, from + 600);
            assert!((51..=53 + INTERVAL_S).contains(&fires), "offset {offset}: after {fires} s");
            assert!((240..=300 + 60 + INTERVAL_S).contains(&ends), "offset {offset}: {ends} s after the fix");
        }
    }
}
