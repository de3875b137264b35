use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use toolgauge_proto::time::DAY_MICROS;

use super::*;

fn good(good: u64) -> Counts {
    Counts { good, good_weighted: i128::from(good) * WEIGHT_ONE, ..Counts::default() }
}

fn counts() -> impl Strategy<Value = Counts> {
    let number = || prop_oneof![3 => 0..4_u64, 1 => 0..1_000_000_u64, 1 => Just(1 << 50)];
    let weights = prop_oneof![3 => Just(None), 1 => (0..1_i128 << 80, 0..1_i128 << 80).prop_map(Some)];
    (number(), number(), number(), number(), weights).prop_map(|(good, bad, excluded, nulls, weights)| {
        let (good_weighted, bad_weighted) =
            weights.unwrap_or((i128::from(good) * WEIGHT_ONE, i128::from(bad) * WEIGHT_ONE));
        Counts { good, bad, excluded: excluded % 3, nulls: nulls % 2, good_weighted, bad_weighted }
    })
}

/// What happens to a ring: rows of a minute that is so many before now, or time goes on or back.
#[derive(Debug, Clone)]
enum Event {
    Rows { ago: i64, counts: Counts },
    Time { minutes: i64 },
}

fn event() -> impl Strategy<Value = Event> {
    let ago = prop_oneof![4 => 0..3_i64, 2 => -3..200_i64, 1 => Just(150), 1 => Just(151)];
    let minutes = prop_oneof![6 => Just(1_i64), 2 => 0..20_i64, 1 => -5..0_i64, 1 => 100..400_i64];
    prop_oneof![
        3 => (ago, counts()).prop_map(|(ago, counts)| Event::Rows { ago, counts }),
        1 => minutes.prop_map(|minutes| Event::Time { minutes }),
    ]
}

proptest! {
    /// Late rows, rows of the future, gaps and clocks that go back, across midnight and 1970: as long as the ring says that it is
    /// complete, each window's sum is that of all that was ever added to its minutes.
    #[test]
    fn sums_are_those_of_a_recount(events in vec(event(), 0..200), start in prop_oneof![Just(0_i64), Just(28_487_520)]) {
        let windows = [1, 5, 60, 150].map(Window::from_minutes);
        let mut ring = MinuteRing::new(Arc::from(windows), Minute(start));
        let mut all: BTreeMap<Minute, Counts> = BTreeMap::new();
        let (mut complete, mut anchor) = (0, Minute(start - 100));
        ring.anchor(anchor);
        for event in events {
            match event {
                Event::Time { minutes } => ring.advance(Minute(ring.now().0 + minutes)),
                Event::Rows { ago, counts } => {
                    let minute = Minute(ring.now().0 - ago);
                    *all.entry(minute).or_default() += &counts;
                    prop_assert_eq!(ring.add(minute, &counts), ago <= 150);
                }
            }
            let recount = |minutes: RangeInclusive<Minute>| {
                let mut sum = Counts::default();
                all.range(minutes).for_each(|(_, counts)| sum += counts);
                sum
            };
            if ring.is_complete() {
                complete += 1;
                for (index, window) in windows.into_iter().enumerate() {
                    prop_assert_eq!(ring.sum(index), recount(window.at(ring.now())));
                }
                // As of a period that ends now and then: it is begun anew where everything is held.
                let is_held = ring.now().0 - anchor.0 <= 150;
                if is_held {
                    prop_assert_eq!(ring.anchored(), if ring.now() < anchor { Counts::default() } else { recount(anchor..=ring.now()) });
                } else {
                    anchor = Minute(ring.now().0 - 20);
                    ring.anchor(anchor);
                }
                let part = Minute(ring.now().0 - 77)..=Minute(ring.now().0 - 3);
                let mut expected: Vec<_> = all.range(part.clone()).map(|(minute, counts)| (*minute, *counts)).collect();
                expected.retain(|(_, counts)| !counts.is_zero());
                prop_assert_eq!(ring.minutes(part).collect::<Vec<_>>(), expected);
            }
        }
        prop_assert!(complete > 0 || all.is_empty() || !ring.is_complete());
    }
}

#[test]
fn a_window_is_its_whole_minutes_and_the_running_one() {
    let noon = Minute(720);
    assert_eq!(Window::M5.at(noon), Minute(715)..=Minute(720));
    let mut ring = MinuteRing::new(Arc::from([Window::M5]), noon);
    for minute in 700..=730 {
        ring.add(Minute(minute), &good(1));
    }
    assert_eq!(ring.sum(0), good(6));
    ring.advance(Minute(721));
    assert_eq!(ring.sum(0), good(6));
    ring.advance(Minute(731));
    assert_eq!(ring.sum(0), good(5));
}

#[test]
fn what_no_window_covers_is_forgotten_and_said() {
    let mut ring = MinuteRing::new(Arc::from([Window::M5, Window::H1]), Minute(0));
    ring.add(Minute(0), &good(1));
    ring.advance(Minute(60));
    assert_eq!(ring.sum(1), good(1));
    assert!(!ring.add(Minute(-1), &good(1)));
    assert!(ring.is_complete());
    // The hour of minute 0 goes once no minute of it is covered.
    ring.advance(Minute(120));
    assert_eq!(ring.sum(1), Counts::default());
    assert!(ring.is_complete());
    ring.advance(Minute(119));
    assert!(!ring.is_complete());
}

#[test]
fn memory_is_bounded_by_the_longest_window() {
    let mut ring = MinuteRing::new(Arc::from([Window::H1, Window::D30]), Minute(0));
    let mut largest = 0;
    let days = 31;
    for minute in 0..days * 24 * 60 {
        ring.advance(Minute(minute));
        ring.add(Minute(minute), &Counts { bad: 3, bad_weighted: 3 * WEIGHT_ONE, ..good(1_000) });
        if minute % 360 == 0 {
            largest = largest.max(ring.heap_bytes());
        }
    }
    assert_eq!(ring.sum(1).good, 1_000 * (30 * 24 * 60 + 1));
    assert!(largest < 400 * 1_024, "{largest} bytes");
}

/// Ten thousand SLOs of a call an hour take less than 400 MiB.
#[test]
fn what_is_seldom_called_takes_little() {
    let mut ring = MinuteRing::new(Arc::from([Window::H1, Window::D30]), Minute(0));
    for hour in 0..31 * 24 {
        ring.advance(Minute(hour * 60 + 7));
        ring.add(Minute(hour * 60 + 7), &good(1));
    }
    assert_eq!(ring.sum(1).good, 30 * 24 + 1);
    assert!(ring.heap_bytes() < 40 * 1_024, "{} bytes", ring.heap_bytes());
}

#[test]
fn starts_of_windows_round_down_also_before_1970() {
    assert_eq!(start_of(UnixMicros(-1), DAY_MICROS), UnixMicros(-DAY_MICROS));
    assert_eq!(start_of(UnixMicros(DAY_MICROS), DAY_MICROS), UnixMicros(DAY_MICROS));
    assert_eq!(start_of(UnixMicros(61_000_000), MINUTE_MICROS), Minute(1).start());
    assert_eq!(Minute::of(UnixMicros(-1)), Minute(-1));
}

#[test]
fn windows_are_written_in_their_largest_unit() {
    let written = [Window::M5, Window::H1, Window::from_minutes(90), Window::D1, Window::D30].map(|w| w.to_string());
    assert_eq!(written, ["5m", "1h", "90m", "1d", "30d"]);
    assert_eq!(Window::from_minutes(0), Window::from_minutes(1));
    assert_eq!(Window::M5.seconds(), 300);
}
