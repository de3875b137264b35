use toolgauge_analytics::budget::Ratio;
use toolgauge_analytics::timeslice::Slices;

use super::*;
use crate::slo::resolve::tests::slo;

fn counts(good: u64, bad: u64) -> Counts {
    Counts { good, bad, ..Counts::default() }
}

const DAY: i64 = 1_440;

/// Ten calls a minute for some days, of which all fail from one minute to another.
fn outage(days: i64, failing: std::ops::Range<i64>) -> BTreeMap<Minute, Counts> {
    (0..days * DAY)
        .map(|minute| (Minute(minute), if failing.contains(&minute) { counts(0, 10) } else { counts(10, 0) }))
        .collect()
}

fn shown(test: &Backtest) -> Vec<String> {
    let minute =
        |text: &str| chrono::DateTime::parse_from_rfc3339(text).map(|time| time.timestamp() / 60).unwrap_or_default();
    let episodes = test.episodes.iter().map(|episode| {
        let end = episode.ends_at.as_deref().map_or("on".to_owned(), |end| minute(end).to_string());
        format!("{} {} {end} {}/{}", episode.burn_tier, minute(&episode.starts_at), episode.bad, episode.total)
    });
    episodes.collect()
}

#[test]
fn an_outage_fires_the_tiers_that_it_burns() {
    let slo = slo(&[]);
    let span = Span { start: Minute(3 * DAY), end: Minute(5 * DAY) };
    let began = 4 * DAY;
    let test = replay(&slo, BTreeMap::new(), &outage(5, began..began + 10), span);
    // 14.4 x 0.001 of 61 minutes of ten calls are 8.784 calls: the first minute. 6 of 361 are 21.66, 3 of 1,441 are 43.23, 1 of 4,321 are 43.21.
    // The fast tier ends when the 6 minutes of its short window are clean, the medium one after 31; the others go on.
    assert_eq!(
        shown(&test),
        [
            "fast 5761 5776 10/610",
            "medium 5763 5801 30/3610",
            "long-term 5765 6131 50/43210",
            "slow 5765 5891 50/14410",
        ]
    );
    assert_eq!((test.good, test.bad), (28_700, 100));
    assert!((test.budget_remaining_ratio.unwrap() + (100.0 - 28.8) / 28.8).abs() < 1e-9);
    assert!((test.episodes[0].peak_burn_rate - 100.0 / 0.61).abs() < 1e-6);
}

/// A call every minute at 99 %: of 30 days 432 may fail, a quarter are 108. A day of 5 % failures spends 72, another 36 until noon; it ends when so
/// many have left the week that fewer than 108 are in it.
#[test]
fn a_quarter_of_the_budget_in_a_week_is_told_when_it_is_spent() {
    let consumption = ("ANNOTATIONS", "toolgauge/consumption: '25 %/7d'");
    let target = ("OBJECTIVES", "{target: 0.99}");
    let minutes: BTreeMap<Minute, Counts> = (0..60 * DAY)
        .map(|minute| {
            (
                Minute(minute),
                if (40 * DAY..42 * DAY).contains(&minute) && minute % 20 == 0 { counts(0, 1) } else { counts(1, 0) },
            )
        })
        .collect();
    let slo = slo(&[consumption, target]);
    let span = Span { start: Minute(39 * DAY), end: Minute(60 * DAY) };
    let of_it =
        |test: &Backtest| shown(test).into_iter().filter(|text| text.starts_with("consumption")).collect::<Vec<_>>();
    let found = of_it(&replay(&slo, BTreeMap::new(), &minutes, span));
    // By hand: the windows are of 30 days and of a week, each with the running minute.
    let bad =
        |from: i64, to: i64| (from..=to).filter(|m| (40 * DAY..42 * DAY).contains(m) && m % 20 == 0).count() as i64;
    let holds = |m: &i64| bad(m - 7 * DAY, *m) * 100 * 4 > 30 * DAY;
    let begin = (39 * DAY..60 * DAY).find(holds).unwrap();
    let end = (begin..60 * DAY).find(|m| !holds(m)).unwrap();
    let in_window = bad(begin - 7 * DAY, begin);
    assert_eq!(found, [format!("consumption {} {} {in_window}/{}", begin + 1, end + 1, 7 * DAY + 1)]);
    assert!(begin > 41 * DAY && end > 47 * DAY, "{found:?}");
}

#[test]
fn guards_and_exclusions_hold_alerts_back_and_are_counted() {
    // A call every six minutes at 99.9 %: one failure burns 100 times too fast.
    let minutes: BTreeMap<Minute, Counts> =
        (0..DAY / 6).map(|n| (Minute(n * 6), if n == 200 { counts(0, 1) } else { counts(1, 0) })).collect();
    let span = Span { start: Minute(0), end: Minute(DAY) };
    let pages = |test: &Backtest| test.episodes.iter().filter(|episode| episode.severity == "page").count();
    let bare = replay(&slo(&[("ANNOTATIONS", "toolgauge/evidence: false")]), BTreeMap::new(), &minutes, span);
    assert_eq!(pages(&bare), 2);
    let guarded = replay(&slo(&[]), BTreeMap::new(), &minutes, span);
    assert_eq!(pages(&guarded), 0);
    assert!(guarded.held_back_minutes["evidence"] > 0);
    let few = replay(
        &slo(&[("ANNOTATIONS", "toolgauge/min-events: 1000, toolgauge/evidence: false")]),
        BTreeMap::new(),
        &minutes,
        span,
    );
    assert!(few.episodes.is_empty() && few.held_back_minutes["min-events"] > 0);
    let excluded = "toolgauge/evidence: false, toolgauge/exclusions: '1970-01-01T20:00:00Z/1h'";
    let excluded = replay(&slo(&[("ANNOTATIONS", excluded)]), BTreeMap::new(), &minutes, span);
    assert_eq!((excluded.episodes.len(), excluded.bad, excluded.good), (0, 0, 230));
}

/// Every minute anew, by adding up.
#[test]
fn alerts_are_those_of_a_recount() {
    let mut state = 1_u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for sliced in [false, true] {
        let policies = "  alertPolicies:
    - kind: AlertPolicy
      metadata: {name: p, annotations: {toolgauge/short-window: 10m}}
      spec:
        conditions: [{kind: AlertCondition, metadata: {name: c}, spec: {severity: ticket, condition: {kind: burnrate, threshold: 3, lookbackWindow: 40m}}}]
        notificationTargets: [{kind: AlertNotificationTarget, metadata: {name: n}, spec: {target: t}}]
";
        let mut slo = slo(&[("OBJECTIVES", "{target: 0.9}"), ("POLICIES", policies)]);
        let slices = Slices::new(5, Ratio::percent(80)).unwrap();
        if sliced {
            slo.budgeting = Budgeting::Timeslices(slices);
        }
        let mut minutes = BTreeMap::new();
        let mut bad_from = 10;
        for minute in 0..3_000 {
            if random(40) == 0 {
                bad_from = random(12);
            }
            if random(3) > 0 {
                let bad = (0..5).filter(|_| random(10) >= bad_from).count() as u64;
                minutes.insert(Minute(minute), counts(5 - bad, bad));
            }
        }
        let span = Span { start: Minute(100), end: Minute(3_000) };
        let sum = |range: std::ops::Range<i64>| {
            let rows = range.filter_map(|minute| minutes.get(&Minute(minute)));
            rows.fold((0, 0), |(good, bad), counts| (good + counts.good, bad + counts.bad))
        };
        let over = |window: i64, minute: i64| {
            if !sliced {
                return sum(minute - window..minute + 1);
            }
            let end = (minute + 1) / 5 * 5;
            let verdicts = (end - window..end).step_by(5).map(|start| sum(start..start + 5));
            let verdicts = verdicts.filter(|(good, bad)| good + bad > 0);
            verdicts.fold((0, 0), |(good, bad), slice| {
                if slice.0 * 10 >= 8 * (slice.0 + slice.1) { (good + 1, bad) } else { (good, bad + 1) }
            })
        };
        let (mut firing, mut expected) = (None, Vec::new());
        for minute in 100..3_000 {
            let ((long_good, long_bad), (short_good, short_bad)) = (over(40, minute), over(10, minute));
            let burns = |good: u64, bad: u64| bad * 10 >= 3 * (good + bad) && good + bad > 0;
            match (firing, burns(long_good, long_bad) && burns(short_good, short_bad)) {
                (None, true) => firing = Some((minute + 1, long_bad, long_good + long_bad)),
                (Some((at, bad, total)), false) if short_good + short_bad > 0 || long_good + long_bad == 0 => {
                    expected.push(format!("p {at} {} {bad}/{total}", minute + 1));
                    firing = None;
                }
                _ => {}
            }
        }
        expected.extend(firing.map(|(at, bad, total)| format!("p {at} on {bad}/{total}")));
        assert!(expected.len() > 5, "{expected:?}");
        assert_eq!(shown(&replay(&slo, BTreeMap::new(), &minutes, span)), expected, "sliced: {sliced}");
    }
}
