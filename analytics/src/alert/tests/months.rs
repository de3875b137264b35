//! Virtual months of a service, evaluated every minute, against an oracle.
//!
//! What is tested is the whole chain: ring, tiers, evaluations, states. The oracle has prefix sums of what has arrived,
//! integer inequalities worked out by hand for 99 %, and finds the episodes of an alert in the list of all evaluations.

use std::sync::Arc;

use crate::alert::*;
use crate::budget::{Target, Tier, default_tiers};
use crate::sli::Counts;
use crate::window::{Minute, MinuteRing, Window};

const MINUTE: i64 = 60_000_000;
const DAY: i64 = 1_440;
/// Days from 1970-01-01.
const LEAP_FEBRUARY_2024: i64 = 19_754;
const CHRISTMAS_2025: i64 = 20_446;

/// Splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A service: how many calls it gets, and what befalls it.
#[derive(Clone, Copy)]
struct Service {
    calls_a_minute: u64,
    /// Nobody calls from midnight to six.
    nights: Nights,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Nights {
    Busy,
    Idle,
}

/// What happens in one minute.
#[derive(Clone, Copy, Default)]
struct Happens {
    good: u64,
    bad: u64,
    /// No telemetry gets through; what is sent meanwhile arrives when it does again.
    gap: bool,
    /// So many minutes late is part of it.
    late: i64,
    /// So far does the clock jump before the evaluation: back or forth and back again.
    jump: i64,
}

fn life(service: Service, start: i64, days: i64, random: &mut Random) -> Vec<Happens> {
    let (mut failing, mut per_10_000, mut gap, mut jump_back) = (0_i64, 0, 0_i64, (0_i64, 0));
    let minutes = start * DAY..(start + days) * DAY;
    minutes
        .map(|minute| {
            let night = service.nights == Nights::Idle && minute.rem_euclid(DAY) < 360;
            if failing == 0 && random.one_in(2 * 1_440) {
                // An outage, a bad release, or a slow burn.
                (failing, per_10_000) = match random.below(4) {
                    0 => (1 + random.below(20) as i64, 10_000),
                    1 => (30 + random.below(200) as i64, 3_000),
                    2 => (600 + random.below(2_000) as i64, 400),
                    _ => (DAY + random.below(5_000) as i64, 120),
                };
            }
            if gap == 0 && random.one_in(3 * 1_440) {
                gap = 1 + random.below(90) as i64;
            }
            let jump = if jump_back.0 == 1 {
                -jump_back.1
            } else if jump_back.0 == 0 && random.one_in(5 * 1_440) {
                let far = [5, 70, -5, -70, 400][random.below(5) as usize];
                jump_back = (2 + random.below(30) as i64, far);
                far
            } else {
                0
            };
            let calls = if night { 0 } else { random.below(2 * service.calls_a_minute + 1) };
            let rate = if failing > 0 { per_10_000 } else { 3 };
            let bad = (0..calls).filter(|_| random.below(10_000) < rate).count() as u64;
            let late = if random.one_in(20) { 1 + random.below(200) as i64 } else { 0 };
            let happens = Happens { good: calls - bad, bad, gap: gap > 0, late, jump };
            (failing, gap, jump_back.0) = ((failing - 1).max(0), (gap - 1).max(0), (jump_back.0 - 1).max(0));
            happens
        })
        .collect()
}

/// Sums of what has arrived by the minute.
struct Arrived {
    start: i64,
    minutes: Vec<(u64, u64)>,
    /// Of all minutes before one; right below `right`.
    prefix: Vec<(u64, u64)>,
    right: usize,
}

impl Arrived {
    fn new(start: i64, minutes: usize) -> Self {
        Self { start, minutes: vec![(0, 0); minutes], prefix: vec![(0, 0); minutes + 1], right: 1 }
    }

    fn add(&mut self, minute: i64, good: u64, bad: u64) {
        let at = (minute - self.start) as usize;
        self.minutes[at].0 += good;
        self.minutes[at].1 += bad;
        self.right = self.right.min(at + 1);
    }

    /// Good and bad from `first` to `last`, both included.
    fn sum(&mut self, first: i64, last: i64) -> (u64, u64) {
        let index = |minute: i64| (minute - self.start).clamp(0, self.minutes.len() as i64) as usize;
        let (first, end) = (index(first), index(last + 1));
        while self.right <= end {
            let (before, minute) = (self.prefix[self.right - 1], self.minutes[self.right - 1]);
            self.prefix[self.right] = (before.0 + minute.0, before.1 + minute.1);
            self.right += 1;
        }
        let (low, high) = (self.prefix[first], self.prefix[end]);
        (high.0 - low.0, high.1 - low.1)
    }
}

/// The tiers at 99 % over 30 days: minutes of the long and the short window, and the least share of bad calls, in
/// thousandths: 14.4, 6, 3 and 1 times 1 %.
const TIERS: [(i64, i64, u64); 4] = [(60, 5, 144), (360, 30, 60), (1_440, 120, 30), (4_320, 360, 10)];

/// What the oracle says of one evaluation of one tier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Says {
    Frozen,
    Burns,
    Clear,
    Idle,
    Gone,
}

/// When an alert began and ended, and why; and how it stands at the end.
type Episodes = Vec<(UnixMicros, Option<(UnixMicros, Reason)>)>;

/// The episodes in a list of evaluations, found by looking for their ends.
fn episodes(evaluations: &[(UnixMicros, Says)], patience: Patience) -> Episodes {
    let seen: Vec<_> = evaluations.iter().copied().filter(|(_, says)| *says != Says::Frozen).collect();
    let mut episodes = Vec::new();
    let mut at = 0;
    while at < seen.len() {
        // The evaluation at which it has burnt for long enough without a break.
        let mut run: Option<UnixMicros> = None;
        let fires = (at..seen.len()).find(|&index| {
            let (time, says) = seen[index];
            run = (says == Says::Burns).then(|| run.unwrap_or(time).min(time));
            run.is_some_and(|since| time.0 - since.0 >= patience.pending_us)
        });
        let Some(fires) = fires else { break };
        let mut clear: Option<UnixMicros> = None;
        let ends = (fires + 1..seen.len()).find_map(|index| {
            let (time, says) = seen[index];
            match says {
                Says::Burns => clear = None,
                Says::Clear => {
                    let since = clear.unwrap_or(time).min(time);
                    clear = Some(since);
                    if time.0 - since.0 >= patience.keep_firing_us {
                        return Some((index, Reason::Recovered));
                    }
                }
                Says::Gone => return Some((index, Reason::NoTraffic)),
                Says::Idle | Says::Frozen => {}
            }
            None
        });
        let starts_at = seen[fires].0;
        episodes.push((starts_at, ends.map(|(index, reason)| (seen[index].0.max(starts_at), reason))));
        let Some((end, _)) = ends else { break };
        at = end + 1;
    }
    episodes
}

/// The episodes that the states went through.
#[derive(Default)]
struct Went {
    state: State,
    episodes: Episodes,
}

impl Went {
    fn step(&mut self, observation: &Observation, patience: Patience, now: UnixMicros) {
        let (next, transition) = step(self.state, observation, patience, now);
        self.state = next;
        let transition = transition.filter(|transition| !transition.keeps_firing());
        let Some(Transition { to, reason, .. }) = transition else { return };
        match to {
            State::Firing { starts_at, .. } => self.episodes.push((starts_at, None)),
            State::Resolved { starts_at, ends_at } => {
                let last = self.episodes.last_mut().expect("it fired before");
                assert_eq!(last.0, starts_at, "the start does not move");
                last.1 = Some((ends_at, reason));
            }
            State::Inactive | State::Pending { .. } => {}
        }
    }
}

/// Lives through it all; returns how many episodes each tier had.
fn live(service: Service, start: i64, days: i64, seed: u64, patience: Patience) -> [usize; 4] {
    let mut random = Random(seed);
    let life = life(service, start, days, &mut random);
    let first = start * DAY;
    let target = Target::from_percent("99").unwrap();
    let tiers = default_tiers(Window::D30, target);
    let windows: Arc<[Window]> = tiers.iter().flat_map(|tier: &Tier| [tier.long, tier.short]).collect();
    let mut ring = MinuteRing::new(Arc::clone(&windows), Minute(first));
    let mut arrived = Arrived::new(first, life.len());
    let mut went: [Went; 4] = Default::default();
    let mut said: [Vec<(UnixMicros, Says)>; 4] = Default::default();
    // What is on its way: when it arrives, what minute it is of, good and bad.
    let mut on_its_way: Vec<(i64, i64, u64, u64)> = Vec::new();
    let (mut gap_since, mut offset) = (None, 0);

    for (index, happens) in life.iter().enumerate() {
        let minute = first + index as i64;
        // Half of a late minute's good calls come late; all of a gap comes after it.
        let late = if happens.late > 0 { happens.good / 2 } else { 0 };
        on_its_way.push((minute, minute, happens.good - late, happens.bad));
        on_its_way.push((minute + happens.late, minute, late, 0));
        gap_since = if happens.gap { gap_since.or(Some(minute)) } else { None };
        if !happens.gap {
            on_its_way.retain(|(when, of, good, bad)| {
                if *when > minute {
                    return true;
                }
                arrived.add(*of, *good, *bad);
                ring.add(Minute(*of), &Counts { good: *good, bad: *bad, ..Counts::default() });
                false
            });
        }
        offset += happens.jump;
        let now = UnixMicros((minute + offset) * MINUTE + random.below(MINUTE as u64) as i64);
        let now_minute = minute + offset;
        ring.advance(Minute(now_minute));
        // A restart, or a clock that went back too far: the ring is loaded anew.
        if random.one_in(2_000) || !ring.is_complete() {
            ring = MinuteRing::new(Arc::clone(&windows), Minute(now_minute));
            for (at, (good, bad)) in arrived.minutes.iter().enumerate() {
                ring.add(Minute(first + at as i64), &Counts { good: *good, bad: *bad, ..Counts::default() });
            }
        }
        // One in so many rounds is missed.
        if random.one_in(15) {
            continue;
        }
        let since_gap = gap_since.map_or(0, |since| minute - since + 1);
        for (tier, (long, short, thousandths)) in TIERS.into_iter().enumerate() {
            let covered = (0..short)
                .filter(|ago| usize::try_from(index as i64 - ago).is_ok_and(|at| !life[at].gap))
                .count() as u64;
            let known = (index as i64 + 1).min(short) as u64;
            let (long_sum, short_sum) = (ring.sum(2 * tier), ring.sum(2 * tier + 1));
            let telemetry = Telemetry {
                history: if index < 100 { History::Counting } else { History::Counted },
                watermark_age_us: since_gap * MINUTE,
                covered_minutes: covered,
                short_minutes: known,
                sources: if since_gap > 15 { Sources::Silent } else { Sources::Alive },
            };
            let observation = Observation {
                evaluation: telemetry.evaluation(short_sum.total()),
                burns: tiers[tier].burns(&long_sum, &short_sum, target),
                long_total: long_sum.total(),
            };
            went[tier].step(&observation, patience, now);

            let (long_good, long_bad) = arrived.sum(now_minute - long, now_minute);
            let (short_good, short_bad) = arrived.sum(now_minute - short, now_minute);
            assert_eq!((long_sum.good, long_sum.bad), (long_good, long_bad), "minute {index}");
            assert_eq!((short_sum.good, short_sum.bad), (short_good, short_bad), "minute {index}");
            let (long_total, short_total) = (long_good + long_bad, short_good + short_bad);
            let says = if index < 100 || since_gap > 1 || covered * 10 < known * 9 {
                Says::Frozen
            } else if short_total == 0 {
                if long_total == 0 { Says::Gone } else { Says::Idle }
            } else if long_bad * 1_000 >= thousandths * long_total && short_bad * 1_000 >= thousandths * short_total {
                Says::Burns
            } else {
                Says::Clear
            };
            said[tier].push((now, says));
        }
    }
    let mut counts = [0; 4];
    for (tier, (went, said)) in went.iter().zip(&said).enumerate() {
        assert_eq!(went.episodes, episodes(said, patience), "tier {tier}, seed {seed}");
        counts[tier] = went.episodes.len();
    }
    counts
}

const AT_ONCE: Patience = Patience { pending_us: 0, keep_firing_us: 0 };

#[test]
fn a_busy_service_through_a_leap_february() {
    let service = Service { calls_a_minute: 40, nights: Nights::Busy };
    let fired = live(service, LEAP_FEBRUARY_2024, 40, 1, AT_ONCE);
    assert!(fired.iter().all(|episodes| *episodes > 0), "{fired:?}");
}

#[test]
fn a_service_with_idle_nights_through_new_year() {
    let service = Service { calls_a_minute: 10, nights: Nights::Idle };
    let fired = live(service, CHRISTMAS_2025, 40, 2, AT_ONCE);
    assert!(fired.iter().all(|episodes| *episodes > 0), "{fired:?}");
}

#[test]
fn a_service_with_a_call_now_and_then() {
    let service = Service { calls_a_minute: 1, nights: Nights::Idle };
    let fired = live(service, LEAP_FEBRUARY_2024, 40, 3, AT_ONCE);
    assert!(fired.iter().any(|episodes| *episodes > 0), "{fired:?}");
}

#[test]
fn a_patient_alert_through_a_month() {
    let patience = Patience { pending_us: 5 * MINUTE, keep_firing_us: 0 };
    let service = Service { calls_a_minute: 20, nights: Nights::Idle };
    let fired = live(service, CHRISTMAS_2025, 40, 4, patience);
    assert!(fired.iter().all(|episodes| *episodes > 0), "{fired:?}");
    let kept = Patience { pending_us: 3 * MINUTE, keep_firing_us: 10 * MINUTE };
    assert!(live(service, LEAP_FEBRUARY_2024, 20, 5, kept).iter().any(|episodes| *episodes > 0));
}
