use proptest::prelude::*;

use super::*;
use crate::budget::{Budget, Target, burn_rate};

fn counts(good: u64, bad: u64) -> Counts {
    Counts { good, bad, ..Counts::default() }
}

fn slices(minutes: u32, target: &str) -> Slices {
    Slices::new(minutes, Ratio::from_decimal(target).unwrap()).unwrap()
}

#[test]
fn a_verdict_is_exact_at_its_target() {
    let slices = slices(5, "0.95");
    assert_eq!(slices.verdict(&counts(95, 5)), Verdict::Good);
    assert_eq!(slices.verdict(&counts(94, 5)), Verdict::Bad);
    assert_eq!(slices.verdict(&counts(9_500_000_000_000_000_000, 500_000_000_000_000_001)), Verdict::Bad);
    assert_eq!(slices.verdict(&counts(0, 0)), Verdict::Empty);
    let all = Slices::new(1, Ratio::ONE).unwrap();
    assert_eq!((all.verdict(&counts(7, 0)), all.verdict(&counts(7, 1))), (Verdict::Good, Verdict::Bad));
}

#[test]
fn slices_have_a_length_and_a_target_above_zero() {
    assert!(Slices::new(0, Ratio::ONE).is_none());
    assert!(Slices::new(SLICE_MINUTES_MAX + 1, Ratio::ONE).is_none());
    assert!(Slices::new(5, Ratio::percent(0)).is_none());
    assert!(Slices::new(5, Ratio::percent(101)).is_none());
}

/// 30 days of 5 minutes at 99 % may have 86.4 bad slices; one bad hour burns it 14 times too fast.
#[test]
fn budgets_are_in_slices() {
    let target = Target::from_ratio("0.99").unwrap();
    let month = SliceCounts { good: 8_628, bad: 12, empty: 0 };
    let budget = Budget::of(&month.counts(), target);
    assert_eq!((budget.allowed.to_string(), budget.remaining.to_string()), ("86.4".to_owned(), "74.4".to_owned()));
    let hour = SliceCounts { good: 10, bad: 2, empty: 0 };
    assert_eq!(burn_rate(&hour.counts(), target), Ratio::new(50, 3));
    let night = SliceCounts { good: 0, bad: 0, empty: 12 };
    assert_eq!(burn_rate(&night.counts(), target), None);
    assert_eq!(night.counts().excluded, 12);
}

#[test]
fn the_running_slice_has_no_verdict_yet() {
    let slices = slices(5, "0.9");
    let window = slices.window_at(Window::H1, Minute(123));
    assert_eq!(window, Span { start: Minute(60), end: Minute(120) });
    assert_eq!(slices.tally([(Minute(119), counts(0, 1)), (Minute(120), counts(0, 9))], window).bad, 1);
    assert_eq!(slices.tally([(Minute(-1), counts(0, 1))], Span { start: Minute(-5), end: Minute(0) }).bad, 1);
    let period = Span { start: Minute(7), end: Minute(1_000) };
    assert_eq!(slices.ended(period, Minute(123)), Span { start: Minute(7), end: Minute(120) });
    assert_eq!(slices.ended(period, Minute(3)).minutes(), 0);
}

proptest! {
    /// Periods that follow one another share out the slices, each once, whatever their ends.
    #[test]
    fn counts_are_those_of_a_recount(
        minutes in 1..90_u32, target in 1..=100_u32,
        rows in proptest::collection::vec((-500..500_i64, 0..4_u64, 0..4_u64), 0..60),
        cut in (-600..600_i64, 0..600_i64, 0..600_i64),
    ) {
        let slices = Slices::new(minutes, Ratio::percent(target)).unwrap();
        let rows: Vec<(Minute, Counts)> = rows.iter().map(|(at, good, bad)| (Minute(*at), counts(*good, *bad))).collect();
        let ends = [cut.0, cut.0 + cut.1, cut.0 + cut.1 + cut.2].map(Minute);
        let recount = |span: Span| {
            let mut found = SliceCounts::default();
            for start in (span.start.0..span.end.0).filter(|start| start.rem_euclid(i64::from(minutes)) == 0) {
                let end = start + i64::from(minutes);
                let of = |what: fn(&Counts) -> u64| -> u64 {
                    rows.iter().filter(|(at, _)| (start..end).contains(&at.0)).map(|(_, counts)| what(counts)).sum()
                };
                let (good, bad) = (of(|counts| counts.good), of(|counts| counts.bad));
                match good + bad {
                    0 => found.empty += 1,
                    total if good * 100 >= u64::from(target) * total => found.good += 1,
                    _ => found.bad += 1,
                }
            }
            found
        };
        let spans = [(0, 1), (1, 2), (0, 2)].map(|(from, to)| Span { start: ends[from], end: ends[to] });
        let tallies = spans.map(|span| slices.tally(rows.iter().copied(), span));
        for (span, tally) in spans.iter().zip(&tallies) {
            prop_assert_eq!(*tally, recount(*span));
            let needed = slices.minutes_of(*span);
            let inner = rows.iter().copied().filter(|(at, _)| needed.contains(*at));
            prop_assert_eq!(slices.tally(inner, *span), *tally);
        }
        prop_assert_eq!(tallies[0].good + tallies[1].good, tallies[2].good);
        prop_assert_eq!(tallies[0].bad + tallies[1].bad, tallies[2].bad);
        prop_assert_eq!(tallies[0].empty + tallies[1].empty, tallies[2].empty);
    }
}

proptest! {
    /// Looks at windows that move on (seldom: back), while counts change before and after a slice has ended: verdicts and sums are always those of a
    /// recount, and what has turned is what is different from the last look, of the slices that were there then.
    #[test]
    fn kept_verdicts_are_those_of_a_recount(
        length in prop_oneof![Just(1_u32), Just(5), Just(60)],
        steps in proptest::collection::vec((0..200_i64, 0..600_i64, 0..4_u64, 0..3_u64), 1..60),
    ) {
        let slices = slices(length, "0.6");
        let mut judged = Judged::new(slices);
        let mut minutes: BTreeMap<Minute, Counts> = BTreeMap::new();
        let (mut now, mut before) = (0_i64, BTreeMap::new());
        for (forward, ago, good, bad) in steps {
            now += if forward > 190 { -400 } else { forward / 4 };
            let at = Minute(now - ago);
            *minutes.entry(at).or_default() += &counts(good, bad);
            let span = slices.window_at(Window::from_minutes(600), Minute(now));
            let new = judged.go_to(span);
            let all = slices.verdicts(minutes.iter().map(|(minute, counts)| (*minute, *counts)), span);
            let verdict = |start: Minute| all.get(&start).copied().unwrap_or_default();
            for (start, verdict) in all.iter().filter(|(start, _)| new.contains(**start)) {
                judged.judge(*start, *verdict);
            }
            let start = slices.start_of(at);
            let turned = if new.contains(start) { None } else { judged.judge(start, verdict(start)) };
            let starts = || (span.start.0.div_euclid(length.into()) - 1..=span.end.0.div_euclid(length.into())).map(|n| Minute(n * i64::from(length)));
            let now_are: BTreeMap<Minute, Verdict> = starts().filter(|s| span.contains(*s)).map(|s| (s, verdict(s))).collect();
            let differ: Vec<_> = now_are.iter().filter(|(s, now)| !new.contains(**s) && before.get(*s).is_some_and(|b| b != *now)).collect();
            prop_assert_eq!(turned.is_some(), differ.len() == 1, "{:?}", differ);
            for part in [span, slices.window_at(Window::from_minutes(123), Minute(now))] {
                prop_assert_eq!(judged.tally(part), slices.tally(minutes.iter().map(|(m, c)| (*m, *c)), part));
            }
            before = now_are;
        }
    }
}
