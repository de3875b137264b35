use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::budget::Budget;
use crate::sli::WEIGHT_ONE;
use crate::timeslice::{Slices, Verdict};
use crate::window::{Minute, MinuteRing};

fn target(text: &str) -> Target {
    Target::from_ratio(text).unwrap()
}

fn counts(good: u64, bad: u64) -> Counts {
    weighted(good, bad, 1)
}

fn weighted(good: u64, bad: u64, weight: i128) -> Counts {
    let of = |events: u64| i128::from(events) * weight * WEIGHT_ONE;
    Counts { good, bad, good_weighted: of(good), bad_weighted: of(bad), ..Counts::default() }
}

/// The answer for a service with these minutes, the last of which is the running one, in a ring.
fn forecast(minutes: &[Counts], period: u32, recent: u32, lead: u32, target: Target) -> Option<u32> {
    let now = Minute(minutes.len() as i64 - 1);
    let (period, recent) = (Window::from_minutes(period), Window::from_minutes(recent));
    let mut ring = MinuteRing::new([period, recent].into(), now);
    for (minute, counts) in minutes.iter().enumerate() {
        ring.add(Minute(minute as i64), counts);
    }
    let first = period.at(now).start().0;
    let pace = Pace::of(&ring.sum(1), recent);
    let (grain, lead) = (Window::from_minutes(1), Window::from_minutes(lead));
    let rolling = Rolling { counts: &ring.sum(0), pace, target, period, grain, lead };
    rolling.exhausted_after(|part| {
        ring.sum_of(Minute(first + i64::from(part.start))..=Minute(first + i64::from(part.end) - 1))
    })
}

/// The same by playing it through: minutes are taken off the front and put to the back, one by one.
fn played(minutes: &[Counts], period: usize, recent: usize, lead: usize, target: Target) -> Option<u32> {
    let sum = |minutes: &[Counts]| {
        let of = |weighted: fn(&Counts) -> i128| minutes.iter().map(weighted).sum::<i128>();
        (of(|m| m.bad_weighted), of(Counts::weighted_total))
    };
    let last = |n: usize| &minutes[minutes.len().saturating_sub(n + 1)..];
    let (new_bad, new_total) = sum(last(recent));
    let mut window: std::collections::VecDeque<Counts> = last(period).iter().copied().collect();
    let (mut bad, mut total) = sum(last(period));
    // Where the window reaches back before the first minute there is nothing.
    while window.len() < period + 1 {
        window.push_front(Counts::default());
    }
    let one = 10_i128.pow(12);
    let used_up = |bad: i128, total: i128, new: i128| {
        let (bad, total) = (bad * recent as i128 + new_bad * new, total * recent as i128 + new_total * new);
        total > 0 && bad * one > (one - i128::from(target.units())) * total
    };
    let mut by_minute = vec![used_up(bad, total, 0)];
    for new in 1..=period {
        let gone = window.pop_front().unwrap();
        (bad, total) = (bad - gone.bad_weighted, total - gone.weighted_total());
        by_minute.push(used_up(bad, total, new as i128));
    }
    if by_minute[0] {
        return Some(0);
    }
    let looks = |at: usize| at == period || (at >= lead && (at - lead).is_multiple_of(60));
    let end = (1..=period).find(|at| looks(*at) && by_minute[*at])?;
    let start = (0..end).rev().find(|at| *at == 0 || looks(*at)).unwrap();
    (start + 1..=end).find(|at| by_minute[*at]).map(|at| at as u32)
}

/// 300 bad of a million burn 0.3 times as fast as 99.9 % allow: for as long as it goes on, the budget lasts.
#[test]
fn a_burn_rate_below_one_never_exhausts_a_budget() {
    let steady = vec![counts(99_970, 30); 10 * 1_440 + 1];
    assert_eq!(forecast(&steady, 10 * 1_440, 360, 60, target("0.999")), None);
    // What was before does not matter, if it was better.
    let mut rising = vec![counts(100_000, 0); 5 * 1_440];
    rising.extend_from_slice(&steady);
    assert_eq!(forecast(&rising, 10 * 1_440, 360, 7, target("0.999")), None);
    let exactly = vec![counts(99_900, 100); 1_441];
    assert_eq!(forecast(&exactly, 1_440, 360, 60, target("0.999")), None);
}

/// Ten times as fast, after nine days and 18 hours without failures: 6 h have spent a quarter of ten days' budget, the other three last 18 h.
#[test]
fn a_budget_lasts_for_what_is_left_at_the_pace_of_six_hours() {
    let mut life = vec![counts(1_000, 0); 10 * 1_440 - 360];
    life.extend(vec![counts(990, 10); 361]);
    let found = forecast(&life, 10 * 1_440, 360, 60, target("0.999")).unwrap();
    // The running minute is the 361st of the six hours.
    assert!((18 * 60 - 4..=18 * 60).contains(&found), "{found}");
    assert_eq!(Some(found), played(&life, 10 * 1_440, 360, 60, target("0.999")));
    assert_eq!(forecast(&vec![counts(90, 10); 1_441], 1_440, 360, 60, target("0.95")), Some(0), "it is used up");
}

/// Two bad days are made up for by eight good ones, until the first of those roll off: with nothing that fails now.
#[test]
fn a_budget_may_run_out_as_good_days_roll_off() {
    let mut life = vec![counts(2_000, 0); 4 * 1_440];
    life.extend(vec![counts(997, 3); 2 * 1_440]);
    life.extend(vec![counts(1, 0); 4 * 1_440 + 1]);
    let found = forecast(&life, 10 * 1_440, 360, 60, target("0.999"));
    assert_eq!(found, played(&life, 10 * 1_440, 360, 60, target("0.999")));
    assert!(found.is_some_and(|minutes| (1_440..4 * 1_440).contains(&minutes)), "{found:?}");
}

#[test]
fn what_a_month_allows_is_spent_at_the_pace_of_its_bad_events() {
    let pace = |bad| Pace::of(&counts(1_000, bad), Window::H6);
    let allowed = Budget::of(&counts(20_000, 0), target("0.99")).allowed;
    let spent = |bad| Budget::of(&counts(0, bad), target("0.99")).spent;
    // 200 allowed, 80 spent, 60 each six hours: twelve hours to the last of them, and a minute to the one too many.
    assert_eq!(spent_after(spent(80), allowed, pace(60)), Some(721));
    assert_eq!(spent_after(spent(80), allowed, pace(0)), None);
    assert_eq!(spent_after(spent(201), allowed, pace(60)), Some(0));
    assert_eq!(spent_after(spent(200), allowed, pace(60)), Some(1));
    // A sample of one in ten spends ten times as much.
    assert_eq!(spent_after(spent(80), allowed, Pace::of(&weighted(1_000, 6, 10), Window::H6)), Some(721));
}

proptest! {
    /// Lives of hours that are each of one kind: any target, sampled or not, periods that are no whole hours, windows that reach back before the
    /// first minute.
    #[test]
    fn forecasts_are_what_comes_to_pass(
        hours in vec((0..400_u64, 0..30_u64, prop_oneof![4 => Just(1_i128), 1 => Just(7)], 1..90_usize), 1..40),
        period in 70..2_000_u32,
        recent in prop_oneof![Just(360_u32), 5..60_u32],
        units in 500..999_u32,
        lead in 1..=60_u32,
    ) {
        let minutes: Vec<Counts> =
            hours.iter().flat_map(|(good, bad, weight, long)| vec![weighted(*good, *bad, *weight); *long]).collect();
        let target = target(&format!("0.{units}"));
        prop_assert_eq!(
            forecast(&minutes, period, recent, lead, target),
            played(&minutes, period as usize, recent as usize, lead as usize, target)
        );
    }

    /// Slices are walked as they are, with their verdicts as events; the oracle looks at each moment at which one rolls off.
    #[test]
    fn slices_roll_off_as_wholes(
        verdicts in vec(prop_oneof![6 => Just(Verdict::Good), 1 => Just(Verdict::Bad), 1 => Just(Verdict::Empty)], 40..300),
        length in prop_oneof![Just(5_u32), Just(7), Just(60), Just(90)],
        percent in 50..99_u32,
    ) {
        let slices = Slices::new(length, Ratio::percent(50)).unwrap();
        let (good, bad) = (counts(3, 0), counts(1, 2));
        let minutes = verdicts.iter().enumerate().map(|(index, verdict)| {
            let counts = match verdict { Verdict::Good => good, Verdict::Bad => bad, Verdict::Empty => Counts::default() };
            (Minute(index as i64 * i64::from(length) + 2), counts)
        });
        let minutes: Vec<(Minute, Counts)> = minutes.filter(|(_, counts)| !counts.is_zero()).collect();
        let period = Window::from_minutes(length * verdicts.len() as u32);
        let now = Minute(period.minutes().into());
        let recent = slices.window_at(Window::H6, now);
        let tally = |span| slices.tally(minutes.iter().copied(), span).counts();
        let all = tally(slices.window_at(period, now));
        let target = target(&format!("0.{percent:02}"));
        let pace = Pace::of(&tally(recent), Window::H6);
        let lead = Window::from_minutes(length * 60_u32.div_ceil(length));
        let rolling = Rolling { counts: &all, pace, target, period, grain: slices.length(), lead };
        let found = rolling.exhausted_after(|part| {
            tally(crate::calendar::Span { start: Minute(part.start.into()), end: Minute(part.end.into()) })
        });

        let (of_six_hours, of_all) = (tally(recent), |from: usize| {
            let of = |wanted| verdicts[from..].iter().filter(|verdict| **verdict == wanted).count() as u128;
            (of(Verdict::Bad), of(Verdict::Bad) + of(Verdict::Good))
        });
        let used_up = |from: usize| {
            let (old_bad, old_total) = of_all(from);
            let new = from as u128 * u128::from(length);
            let bad = old_bad * 360 + u128::from(of_six_hours.bad) * new;
            let total = old_total * 360 + u128::from(of_six_hours.total()) * new;
            total > 0 && bad * 100 > u128::from(100 - percent) * total
        };
        let each = 60_usize.div_ceil(length as usize);
        let expected = if used_up(0) { Some(0) } else {
            (1..=verdicts.len()).filter(|at| at % each == 0 || *at == verdicts.len()).find(|at| used_up(*at)).and_then(|end| {
                let start = (end - 1) / each * each;
                (start + 1..=end).find(|at| used_up(*at)).map(|at| at as u32 * length)
            })
        };
        prop_assert_eq!(found, expected);
    }
}
