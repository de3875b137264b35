//! Ten thousand days of SLOs of few calls that meet their objective just so: how often somebody is called for nothing.

use crate::budget::{Severity, Target, default_tiers};
use crate::evidence::Evidence;
use crate::sli::Counts;
use crate::window::Window;

const DAYS: usize = 30;
const MINUTES: usize = DAYS * 1_440;
/// 334 months of 30 days are 10,020 days.
const MONTHS: usize = 334;

/// Splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// Pages in a month of so many calls an hour, at most one a minute: without the guard, and with it. A page begins at a failure: only there does
/// anything begin to burn. It has ended if none was in its short window before.
fn pages(calls_an_hour: u64, target: Target, random: &mut Random) -> [usize; 2] {
    let one = 10_u64.pow(12);
    // Of all before a minute: calls and failures.
    let (mut calls, mut failures) = (vec![0_u32; MINUTES + 1], vec![0_u32; MINUTES + 1]);
    let mut failed = Vec::new();
    for minute in 0..MINUTES {
        let call = random.below(60) < calls_an_hour;
        let failure = call && random.below(one) < one - target.units();
        calls[minute + 1] = calls[minute] + u32::from(call);
        failures[minute + 1] = failures[minute] + u32::from(failure);
        if failure {
            failed.push(minute);
        }
    }
    let over = |window: Window, minute: usize| {
        let first = minute.saturating_sub(window.minutes() as usize);
        let bad = u64::from(failures[minute + 1] - failures[first]);
        let total = u64::from(calls[minute + 1] - calls[first]);
        Counts { good: total - bad, bad, ..Counts::default() }
    };
    let mut pages = [0, 0];
    for tier in default_tiers(Window::D30, target).iter().filter(|tier| tier.severity == Severity::Page) {
        let mut firing_until = [0, 0];
        for minute in &failed {
            let (long, short) = (over(tier.long, *minute), over(tier.short, *minute));
            if !tier.burns(&long, &short, target) {
                continue;
            }
            let is_evident = Evidence::of(long.bad, long.total(), target).is_improbable();
            for (guard, begins) in [true, is_evident].into_iter().enumerate() {
                let is_firing = *minute <= firing_until[guard];
                if begins && !is_firing {
                    pages[guard] += 1;
                }
                if begins || is_firing {
                    firing_until[guard] = minute + tier.short.minutes() as usize;
                }
            }
        }
    }
    pages
}

#[test]
fn healthy_services_of_few_calls_page_less_than_once_in_five_months() {
    let mut random = Random(7);
    for (calls_an_hour, percent) in [(6, "99"), (10, "99.9"), (30, "99.5")] {
        let target = Target::from_percent(percent).unwrap();
        let (mut bare, mut guarded) = (0, 0);
        for _ in 0..MONTHS {
            let [without, with] = pages(calls_an_hour, target, &mut random);
            (bare, guarded) = (bare + without, guarded + with);
        }
        let a_month = |pages: usize| pages as f64 / MONTHS as f64;
        assert!(a_month(guarded) <= 0.2, "{calls_an_hour} calls an hour at {percent} %: {} a month", a_month(guarded));
        // It is the guard that does it.
        assert!(
            bare > 10 * guarded.max(10),
            "{calls_an_hour} calls an hour at {percent} %: {bare} without, {guarded} with"
        );
    }
}
