//! Heartbeats: whether something that was heard of regularly has fallen silent.
//!
//! # Definitions
//! Only minutes in which somebody listened count: when the collector was away, nobody was silent. Of something:
//! * a gap is a run of listened-to minutes between two in which it was heard, without those two;
//! * its silence is the number of listened-to minutes after the last one in which it was heard, the running one not included;
//! * its limit is the larger of [`LIMIT_MIN`] minutes and twice its longest gap within the last [`REMEMBERED`] minutes (14 days);
//! * it is learning until it is known for [`LEARNING`] minutes (a day): then its night has been seen;
//! * it is retired when it was not heard for all that is remembered.
//!
//! # Guarantees
//! * The order in which minutes are told does not matter, nor how often one is; what comes late closes its gap.
//! * 2.5 KiB for each thing, whatever happens. A longest gap is only looked for when something is silent for [`LIMIT_MIN`].

use crate::window::Minute;

/// How far back minutes are remembered: 14 days.
pub const REMEMBERED: i64 = 14 * 1_440;
/// The shortest limit, in minutes.
pub const LIMIT_MIN: u64 = 15;
/// How long something has to be known before its own gaps set its limit, in minutes.
pub const LEARNING: i64 = 1_440;

const WORDS: usize = (REMEMBERED as usize).div_ceil(64) + 1;

/// A set of minutes of the last 14 days.
#[derive(Debug, Clone)]
pub struct Minutes {
    /// A ring: the bit of a minute is its number modulo the ring's size.
    bits: Box<[u64; WORDS]>,
    /// The first and the last one that was added, of those that are remembered.
    ends: Option<(Minute, Minute)>,
    /// Minutes after this one have no bits in the ring.
    head: Minute,
}

/// A set without minutes, of the time before 1970.
impl Default for Minutes {
    fn default() -> Self {
        Self { bits: Box::new([0; WORDS]), ends: None, head: Minute(0) }
    }
}

const fn place(minute: i64) -> (usize, u64) {
    let at = minute.rem_euclid(WORDS as i64 * 64) as usize;
    (at / 64, 1 << (at % 64))
}

impl Minutes {
    /// Adds a minute; false if it is too old by the newest one.
    pub fn insert(&mut self, minute: Minute) -> bool {
        if self.ends.is_none() {
            self.bits.fill(0);
            self.head = minute;
        }
        if minute > self.head {
            self.go_to(minute);
        } else if self.head.0 - minute.0 >= REMEMBERED {
            return false;
        }
        let (word, bit) = place(minute.0);
        self.bits[word] |= bit;
        let (first, last) = self.ends.unwrap_or((minute, minute));
        self.ends = Some((first.min(minute), last.max(minute)));
        true
    }

    /// Forgets what is too old at `now`.
    pub fn forget(&mut self, now: Minute) {
        if now > self.head && self.ends.is_some() {
            self.go_to(now);
        }
    }

    fn go_to(&mut self, head: Minute) {
        if head.0.saturating_sub(self.head.0) >= WORDS as i64 * 64 {
            self.bits.fill(0);
        } else {
            for minute in self.head.0 + 1..=head.0 {
                let (word, bit) = place(minute);
                self.bits[word] &= !bit;
            }
        }
        self.head = head;
        let first_held = head.0 - REMEMBERED + 1;
        self.ends = self.ends.filter(|(_, last)| last.0 >= first_held).map(|(first, last)| {
            let first = if first.0 >= first_held { first } else { self.next(Minute(first_held), last).unwrap_or(last) };
            (first, last)
        });
    }

    /// The first one of the set from `from` to `to`.
    fn next(&self, from: Minute, to: Minute) -> Option<Minute> {
        let mut at = from.0;
        while at <= to.0 {
            let (word, bit) = place(at);
            let rest = self.bits[word] & !(bit - 1);
            if rest != 0 {
                let found = at + i64::from(rest.trailing_zeros()) - i64::from(bit.trailing_zeros());
                return (found <= to.0).then_some(Minute(found));
            }
            at += 64 - i64::from(bit.trailing_zeros());
        }
        None
    }

    /// Whether a minute is in it.
    #[must_use]
    pub fn contains(&self, minute: Minute) -> bool {
        let (word, bit) = place(minute.0);
        self.ends.is_some_and(|(first, last)| first <= minute && minute <= last) && self.bits[word] & bit != 0
    }

    /// The first one.
    #[must_use]
    pub fn first(&self) -> Option<Minute> {
        self.ends.map(|(first, _)| first)
    }

    /// The last one.
    #[must_use]
    pub fn last(&self) -> Option<Minute> {
        self.ends.map(|(_, last)| last)
    }

    /// How many of the minutes from `from` to `to`, both included, are in it.
    #[must_use]
    pub fn count(&self, from: Minute, to: Minute) -> u64 {
        let Some((first, last)) = self.ends else { return 0 };
        let (mut at, to) = (from.max(first).0, to.min(last).0);
        let mut count = 0;
        while at <= to {
            let (word, bit) = place(at);
            let in_word = 64 - i64::from(bit.trailing_zeros());
            let mut bits = self.bits[word] >> bit.trailing_zeros();
            if to - at + 1 < in_word {
                bits &= (1 << (to - at + 1)) - 1;
            }
            count += u64::from(bits.count_ones());
            at += in_word;
        }
        count
    }

    /// The minutes, in order.
    pub fn iter(&self) -> impl Iterator<Item = Minute> {
        let mut at = self.first();
        std::iter::from_fn(move || {
            let found = at?;
            at = self.ends.and_then(|(_, last)| self.next(Minute(found.0 + 1), last));
            Some(found)
        })
    }
}

/// The longest gap of something that was heard in `heard`, in minutes of `listened`.
#[must_use]
pub fn longest_gap(heard: &Minutes, listened: &Minutes) -> u64 {
    let mut before: Option<Minute> = None;
    let mut longest = 0;
    for minute in heard.iter() {
        if let Some(before) = before {
            // Most gaps are shorter than the longest so far, whoever listened.
            let apart = minute.0.abs_diff(before.0) - 1;
            if apart > longest {
                longest = longest.max(listened.count(Minute(before.0 + 1), Minute(minute.0 - 1)));
            }
        }
        before = Some(minute);
    }
    longest
}

/// What is said of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pulse {
    /// Minutes of silence.
    pub silence: u64,
    /// Minutes of silence from which on it is silent; `None` while it is learning.
    pub limit: Option<u64>,
    /// Its longest gap, if it was looked for.
    pub longest_gap: Option<u64>,
    /// When it was last heard.
    pub last: Minute,
}

impl Pulse {
    /// Whether it is silent for longer than its limit.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.limit.is_some_and(|limit| self.silence > limit)
    }
}

/// How it stands with something within the minute `now`; `by_hand` is a limit in minutes that somebody set. `None` if it is retired. `live` is the
/// last minute in which it was heard according to what is not in `heard` yet. `longest` is asked for [`longest_gap`] where that matters.
#[must_use]
pub fn pulse(
    heard: &Minutes,
    live: Option<Minute>,
    listened: &Minutes,
    by_hand: Option<u64>,
    now: Minute,
    longest: impl FnOnce() -> u64,
) -> Option<Pulse> {
    let last = heard.last().max(live)?;
    if now.0.saturating_sub(last.0) >= REMEMBERED {
        return None;
    }
    let silence = listened.count(Minute(last.0 + 1), Minute(now.0 - 1));
    if by_hand.is_some() {
        return Some(Pulse { silence, limit: by_hand, longest_gap: None, last });
    }
    let is_learning = heard.first().is_none_or(|first| now.0.saturating_sub(first.0) < LEARNING);
    if is_learning || silence <= LIMIT_MIN {
        return Some(Pulse { silence, limit: (!is_learning).then_some(LIMIT_MIN), longest_gap: None, last });
    }
    let longest = longest();
    Some(Pulse { silence, limit: Some(LIMIT_MIN.max(2 * longest)), longest_gap: Some(longest), last })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn minutes(of: impl IntoIterator<Item = i64>) -> Minutes {
        let mut minutes = Minutes::default();
        of.into_iter().for_each(|minute| {
            minutes.insert(Minute(minute));
        });
        minutes
    }

    fn pulse_of(
        heard: &Minutes,
        live: Option<Minute>,
        listened: &Minutes,
        by_hand: Option<u64>,
        now: Minute,
    ) -> Option<Pulse> {
        pulse(heard, live, listened, by_hand, now, || longest_gap(heard, listened))
    }

    /// Deterministic random numbers.
    fn random(seed: &mut u64, n: i64) -> i64 {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        ((*seed >> 11) % n as u64) as i64
    }

    /// The same in sets and loops.
    fn model(
        heard: &BTreeSet<i64>,
        listened: &BTreeSet<i64>,
        by_hand: Option<u64>,
        now: i64,
    ) -> Option<(u64, Option<u64>)> {
        let last = *heard.last()?;
        if now - last >= REMEMBERED {
            return None;
        }
        let heard: Vec<i64> = heard.iter().copied().filter(|minute| now - minute < REMEMBERED).collect();
        let between = |from: i64, to: i64| listened.range(from + 1..to.max(from + 1)).count() as u64;
        let silence = between(last, now);
        let longest = heard.windows(2).map(|pair| between(pair[0], pair[1])).max().unwrap_or(0);
        let learning = now - heard[0] < LEARNING;
        let limit = by_hand.or((!learning).then_some(LIMIT_MIN.max(2 * longest)));
        Some((silence, limit))
    }

    #[test]
    fn pulses_are_those_of_sets_and_loops() {
        for seed in 1..16_u64 {
            let mut rng = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let (mut heard, mut listened) = (Minutes::default(), Minutes::default());
            let (mut all_heard, mut all_listened) = (BTreeSet::new(), BTreeSet::new());
            let mut now = 29_000_000 + random(&mut rng, 1_000);
            let usual = 1 + random(&mut rng, 200);
            for _ in 0..400 {
                let step = if random(&mut rng, 40) == 0 { random(&mut rng, 9_000) } else { random(&mut rng, usual) };
                let up = random(&mut rng, 20) > 0;
                for minute in now..now + step {
                    if up && random(&mut rng, 30) > 0 {
                        all_listened.insert(minute);
                        listened.insert(Minute(minute));
                    }
                }
                now += step;
                heard.forget(Minute(now));
                listened.forget(Minute(now));
                // Late ones, too.
                let minute = now - if random(&mut rng, 5) == 0 { random(&mut rng, 500) } else { 0 };
                if random(&mut rng, 3) > 0 && heard.insert(Minute(minute)) {
                    all_heard.insert(minute);
                }
                let by_hand = (random(&mut rng, 4) == 0).then_some(30);
                let found = pulse_of(&heard, None, &listened, by_hand, Minute(now));
                let expected = model(&all_heard, &all_listened, by_hand, now);
                // A longest gap is only looked for where it can matter.
                let (found_ends, expected_ends) =
                    (found.map(|pulse| pulse.silence), expected.map(|(silence, _)| silence));
                assert_eq!(found_ends, expected_ends, "seed {seed} at {now}");
                let silent = expected.is_some_and(|(silence, limit)| limit.is_some_and(|limit| silence > limit));
                assert_eq!(
                    found.is_some_and(|pulse| pulse.is_silent()),
                    silent,
                    "seed {seed} at {now}: {found:?} {expected:?}"
                );
                if let Some(Pulse { longest_gap: Some(_), limit, .. }) = found {
                    assert_eq!(limit, expected.unwrap().1);
                }
            }
        }
    }

    #[test]
    fn idle_nights_are_no_silence_and_a_day_off_is() {
        // Calls from 8:00 to 20:00 on eight days.
        let days = (0..8).flat_map(|day| (480..1_200).map(move |minute| day * 1_440 + minute));
        let heard = minutes(days.clone());
        let listened = minutes(0..12 * 1_440);
        for now in 7 * 1_440 + 1_200..8 * 1_440 + 480 {
            assert!(!pulse_of(&heard, None, &listened, None, Minute(now)).unwrap().is_silent(), "{now}");
        }
        // The night has 720 minutes between the last of a day and the first of the next.
        let last = 7 * 1_440 + 1_199;
        let at = |silence: i64| pulse_of(&heard, None, &listened, None, Minute(last + silence + 1)).unwrap();
        assert_eq!(at(1_440).limit, Some(2 * 720));
        assert!(!at(1_440).is_silent() && at(1_441).is_silent());
        // The first night is seen before anything is said.
        let first_day = minutes(480..1_200);
        assert_eq!(pulse_of(&first_day, None, &listened, None, Minute(1_440 + 470)).unwrap().limit, None);
    }

    #[test]
    fn nobody_is_silent_while_nobody_listens() {
        let heard = minutes(0..2_000);
        let mut listened = minutes(0..2_000);
        assert_eq!(pulse_of(&heard, None, &listened, None, Minute(9_000)).unwrap().silence, 0);
        (9_000..9_016).for_each(|minute| {
            listened.insert(Minute(minute));
        });
        assert!(pulse_of(&heard, None, &listened, None, Minute(9_016)).unwrap().is_silent());
        assert!(!pulse_of(&heard, Some(Minute(9_001)), &listened, None, Minute(9_016)).unwrap().is_silent());
    }

    #[test]
    fn what_is_not_heard_for_14_days_is_retired() {
        let heard = minutes(0..2_000);
        let listened = minutes(0..REMEMBERED);
        assert!(pulse_of(&heard, None, &listened, None, Minute(1_999 + REMEMBERED - 1)).is_some());
        assert_eq!(pulse_of(&heard, None, &listened, None, Minute(1_999 + REMEMBERED)), None);
        let mut heard = heard;
        heard.forget(Minute(1_999 + REMEMBERED));
        assert_eq!((heard.first(), heard.last()), (None, None));
    }
}
