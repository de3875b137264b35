//! Virtual months of every kind of SLO, evaluated without threads, against an oracle: budgets by prefix sums and the calendar of `chrono`, states by
//! the rules of the documentation, by hand.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray, TimestampMicrosecondArray};
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, TimeZone};
use toolgauge_analytics::alert::{RESOLVED_FOR_US, State};
use toolgauge_analytics::budget::{Budget, Target};
use toolgauge_analytics::calendar::{Zone, parse_zone};
use toolgauge_analytics::evidence::Evidence;
use toolgauge_analytics::ownership::Ownership;
use toolgauge_analytics::sli::{Counts, WEIGHT_ONE};
use toolgauge_analytics::window::Minute;
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::time::{MINUTE_MICROS, UnixMicros};

use super::alerts::{Change, Restored, rows};
use super::definition::{Definition, Past};
use super::round::{Alerts, At, Round, SloStatus};
use super::telemetry::Arrivals;
use super::watched::Live;
use crate::engine::Settings;
use crate::slo::set::{CompiledSlo, Sources};

const DAY: i64 = 1_440;
/// Minutes that do not count, for one of them: over a change of the clock, the end of a quarter, and some nights.
const EXCLUSIONS: [(&str, i64); 4] = [
    ("2024-02-28T22:30:00Z", 120),
    ("2024-03-31T00:30:00Z", 60),
    ("2024-03-31T21:00:00Z", 95),
    ("2024-10-27T00:10:00Z", 90),
];

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

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

fn minute(text: &str) -> i64 {
    DateTime::parse_from_rfc3339(text).unwrap().timestamp().div_euclid(60)
}

/// Which minutes a budget is of, as `chrono` has it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Over {
    Days30,
    /// Months of Berlin, so many at a time, from January on.
    Berlin(u32),
    /// Years of New York, from the 15th of March at six.
    NewYork,
}

impl Over {
    /// The first minute of the period of a minute, and the one after its last; of a rolling one none.
    fn period(self, now: i64) -> (i64, Option<i64>) {
        let instant =
            |zone: Zone, local: NaiveDateTime| zone.from_local_datetime(&local).earliest().unwrap().timestamp() / 60;
        let local = |zone: Zone| DateTime::from_timestamp(now * 60, 0).unwrap().with_timezone(&zone).naive_local();
        match self {
            Self::Days30 => (now - 30 * DAY, None),
            Self::Berlin(months) => {
                let zone = parse_zone("Europe/Berlin").unwrap();
                let date = local(zone).date();
                let first = |months_since_0: i32| {
                    let date = NaiveDate::from_ymd_opt(months_since_0 / 12, months_since_0.unsigned_abs() % 12 + 1, 1)
                        .unwrap();
                    instant(zone, date.and_hms_opt(0, 0, 0).unwrap())
                };
                let month = date.year() * 12 + date.month0().cast_signed();
                let begin = month - month % months.cast_signed();
                (first(begin), Some(first(begin + months.cast_signed())))
            }
            Self::NewYork => {
                let zone = parse_zone("America/New_York").unwrap();
                let of_year = |year: i32| NaiveDate::from_ymd_opt(year, 3, 15).unwrap().and_hms_opt(6, 0, 0).unwrap();
                let local = local(zone);
                let year = if local < of_year(local.year()) { local.year() - 1 } else { local.year() };
                (instant(zone, of_year(year)), Some(instant(zone, of_year(year + 1))))
            }
        }
    }
}

/// An SLO: its document's parts, and what the oracle knows of it by hand.
struct Kind {
    name: &'static str,
    annotations: &'static str,
    over: Over,
    /// Minutes of a slice, each of which is good from 80 % on.
    slice: Option<i64>,
    excludes: bool,
    /// Minutes that it has to burn, and is kept.
    patience: (i64, i64),
    /// Least share of bad events of each tier of the workbook, as a fraction; the target is 99 %.
    shares: [(u64, u64); 4],
}

/// 14.4, 6, 3 and 1 times 1 %.
const MONTHLY: [(u64, u64); 4] = [(144, 1_000), (60, 1_000), (30, 1_000), (10, 1_000)];

const KINDS: [Kind; 7] = [
    Kind { name: "a-rolling", annotations: "toolgauge/consumption: '25 %/7d'", ..PLAIN },
    Kind {
        name: "b-patient",
        annotations: "toolgauge/alert-after: 6m, toolgauge/keep-firing: 20m",
        patience: (6, 20),
        ..PLAIN
    },
    Kind { name: "c-month", over: Over::Berlin(1), ..PLAIN },
    // 2 % x 90 d / 1 h and so on.
    Kind {
        name: "d-quarter",
        annotations: "EXCLUSIONS",
        over: Over::Berlin(3),
        excludes: true,
        shares: [(432, 1_000), (180, 1_000), (90, 1_000), (30, 1_000)],
        ..PLAIN
    },
    // 2 % x 365 d / 1 h is out of reach: four fifths; 5 % x 365 d / 6 h is 73, 10 % x 365 d / 3 d is 73/6.
    Kind { name: "e-year", over: Over::NewYork, shares: [(8, 10), (73, 100), (365, 1_000), (73, 600)], ..PLAIN },
    Kind { name: "f-slices", slice: Some(5), ..PLAIN },
    Kind { name: "g-month-slices", over: Over::Berlin(1), slice: Some(7), ..PLAIN },
];

const PLAIN: Kind = Kind {
    name: "",
    annotations: "",
    over: Over::Days30,
    slice: None,
    excludes: false,
    patience: (0, 0),
    shares: MONTHLY,
};

/// Long and short windows of the workbook, and whether they page. Of slices of 7 minutes the shortest has two of them.
fn windows(kind: &Kind, tier: usize) -> (i64, i64, bool) {
    let (long, short, pages) = [(60, 5, true), (360, 30, true), (DAY, 120, false), (3 * DAY, 360, false)][tier];
    (long, kind.slice.map_or(short, |slice| short.max(2 * slice)), pages)
}

fn documents() -> Vec<CompiledSlo> {
    let exclusions: Vec<String> = EXCLUSIONS.iter().map(|(start, minutes)| format!("{start}/{minutes}m")).collect();
    let exclusions = format!("toolgauge/exclusions: '{}'", exclusions.join(", "));
    let texts = KINDS.iter().map(|kind| {
        let calendar = |duration: &str, start: &str, zone: &str| {
            format!("duration: {duration}, isRolling: false, calendar: {{startTime: {start}, timeZone: {zone}}}")
        };
        let window = match kind.over {
            Over::Days30 => "duration: 30d, isRolling: true".to_owned(),
            Over::Berlin(1) => calendar("1M", "2024-01-01 00:00:00", "Europe/Berlin"),
            Over::Berlin(_) => calendar("1Q", "2024-01-01 00:00:00", "Europe/Berlin"),
            Over::NewYork => calendar("1Y", "2023-03-15 06:00:00", "America/New_York"),
        };
        let (method, more) = match kind.slice {
            None => ("Occurrences", String::new()),
            Some(slice) => ("Timeslices", format!(", timeSliceTarget: 0.8, timeSliceWindow: {slice}m")),
        };
        format!(
            "
apiVersion: openslo/v1
kind: SLO
metadata: {{name: {}, annotations: {{{}}}}}
spec:
  service: shop
  indicator: {{spec: {{ratioMetric: {{
    good: {{metricSource: {{type: toolgauge, spec: {{where: outcome = 'ok'}}}}}},
    total: {{metricSource: {{type: toolgauge, spec: {{where: kind = 'tool'}}}}}}}}}}}}
  timeWindow: [{{{window}}}]
  budgetingMethod: {method}
  objectives: [{{target: 0.99{more}}}]
---",
            kind.name,
            kind.annotations.replace("EXCLUSIONS", &exclusions),
        )
    });
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.yaml"), texts.collect::<String>()).unwrap();
    let engine = crate::tables::engine(Settings::default()).unwrap();
    let set = Sources::new(vec![folder.path().to_owned()]).read(&engine).unwrap();
    assert!(set.faults.is_empty(), "{:?}", set.faults);
    set.slos
}

/// Good and bad by the minute, or by the slice, of what has arrived; sums by prefixes, which are right below `right`.
struct Sums {
    start: i64,
    step: i64,
    each: Vec<(u64, u64)>,
    prefix: Vec<(u64, u64)>,
    right: usize,
}

impl Sums {
    fn new(start: i64, minutes: i64, step: i64) -> Self {
        let start = start.div_euclid(step) * step;
        let steps = (minutes / step + 2) as usize;
        Self { start, step, each: vec![(0, 0); steps], prefix: vec![(0, 0); steps + 1], right: 0 }
    }

    fn set(&mut self, minute: i64, counts: (u64, u64)) {
        let at = ((minute - self.start) / self.step) as usize;
        self.each[at] = counts;
        self.right = self.right.min(at);
    }

    /// Of those that begin from a minute to before another.
    fn sum(&mut self, from: i64, to: i64) -> (u64, u64) {
        let index = |minute: i64| {
            let at = (minute - self.start + self.step - 1).div_euclid(self.step);
            at.clamp(0, self.each.len() as i64) as usize
        };
        let (from, to) = (index(from), index(to));
        while self.right < to {
            let (before, each) = (self.prefix[self.right], self.each[self.right]);
            self.prefix[self.right + 1] = (before.0 + each.0, before.1 + each.1);
            self.right += 1;
        }
        let (low, high) = (self.prefix[from.min(to)], self.prefix[to]);
        (high.0 - low.0, high.1 - low.1)
    }
}

/// What has arrived, in all that budgets are counted in.
struct Arrived {
    minutes: Sums,
    counting: Sums,
    slices: HashMap<i64, Sums>,
}

impl Arrived {
    fn new(start: i64, minutes: i64) -> Self {
        let sums = |step| Sums::new(start, minutes, step);
        Self {
            minutes: sums(1),
            counting: sums(1),
            slices: [5, 7].into_iter().map(|step| (step, sums(step))).collect(),
        }
    }

    fn add(&mut self, at: i64, (good, bad): (u64, u64)) {
        let (old_good, old_bad) = self.minutes.each[(at - self.minutes.start) as usize];
        let counts = (old_good + good, old_bad + bad);
        self.minutes.set(at, counts);
        if !is_excluded(at) {
            self.counting.set(at, counts);
        }
        for (step, sums) in &mut self.slices {
            let start = at.div_euclid(*step) * step;
            let minutes = (start..start + step)
                .filter_map(|m| self.minutes.each.get(usize::try_from(m - self.minutes.start).ok()?));
            let (good, bad) = minutes.fold((0, 0), |sum, each| (sum.0 + each.0, sum.1 + each.1));
            sums.set(
                start,
                if good + bad == 0 {
                    (0, 0)
                } else if good * 10 >= (good + bad) * 8 {
                    (1, 0)
                } else {
                    (0, 1)
                },
            );
        }
    }

    /// Of a window, or of what is to be summed from a minute on, at a minute, in what the budget of an SLO is counted in.
    fn since(&mut self, kind: &Kind, from: i64, now: i64) -> (u64, u64) {
        match kind.slice.and_then(|slice| self.slices.get_mut(&slice)) {
            // Slices that have ended.
            Some(slices) => slices.sum(from, now.div_euclid(slices.step) * slices.step),
            None if kind.excludes => self.counting.sum(from, now + 1),
            None => self.minutes.sum(from, now + 1),
        }
    }

    fn window(&mut self, kind: &Kind, window: i64, now: i64) -> (u64, u64) {
        let now_or_slice = kind.slice.map_or(now, |slice| now.div_euclid(slice) * slice);
        self.since(kind, now_or_slice - window, now)
    }
}

fn is_excluded(at: i64) -> bool {
    EXCLUSIONS.iter().any(|(start, minutes)| (minute(start)..minute(start) + minutes).contains(&at))
}

/// An SLO's alert, as the rules of `docs/slo.md` have it.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Stands {
    pending: Option<i64>,
    firing: Option<(i64, Option<i64>)>,
    resolved: Option<(i64, i64)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Says {
    Stale,
    Idle,
    Gone,
    Burns,
    Clear,
}

impl Stands {
    fn step(&mut self, says: Says, is_held_back: bool, (pending, keep): (i64, i64), now: i64) {
        let before = *self;
        let micros = |minutes: i64| minutes * MINUTE_MICROS;
        match (says, self.firing) {
            (Says::Stale, _) | (Says::Idle, Some(_)) => {}
            (Says::Burns, Some((start, _))) => self.firing = Some((start, None)),
            (Says::Gone, Some((start, _))) => *self = Self { resolved: Some((start, now)), ..Self::default() },
            (Says::Clear, Some((start, clear))) => {
                let clear = clear.unwrap_or(now);
                self.firing = Some((start, Some(clear)));
                if now - clear >= micros(keep) {
                    *self = Self { resolved: Some((start, now)), ..Self::default() };
                }
            }
            (Says::Burns, None) if !is_held_back => {
                let since = self.pending.unwrap_or(now);
                *self = if now - since >= micros(pending) {
                    Self { firing: Some((now, None)), ..Self::default() }
                } else {
                    Self { pending: Some(since), ..Self::default() }
                };
            }
            (_, None) => self.pending = None,
        }
        if let Some((_, end)) = self.resolved.filter(|_| *self == before)
            && now - end >= RESOLVED_FOR_US
        {
            *self = Self::default();
        }
    }

    fn of(state: State) -> Self {
        match state {
            State::Inactive => Self::default(),
            State::Pending { since } => Self { pending: Some(since.0), ..Self::default() },
            State::Firing { starts_at, clear_since } => {
                Self { firing: Some((starts_at.0, clear_since.map(|time| time.0))), ..Self::default() }
            }
            State::Resolved { starts_at, ends_at } => {
                Self { resolved: Some((starts_at.0, ends_at.0)), ..Self::default() }
            }
        }
    }
}

/// The evaluation, as the thread does it, without the thread.
struct Run {
    slos: Vec<CompiledSlo>,
    definitions: Vec<Definition>,
    /// All settled minutes, to start anew from.
    settled: BTreeMap<i64, Counts>,
    live: Live,
    alerts: Alerts,
    changes: Vec<Change>,
    arrivals: Arrivals,
    last_event: Option<i64>,
    turned: u64,
}

fn counts((good, bad): (u64, u64)) -> Counts {
    let weighted = |events: u64| i128::from(events) * WEIGHT_ONE;
    Counts { good, bad, good_weighted: weighted(good), bad_weighted: weighted(bad), ..Counts::default() }
}

impl Run {
    fn new(slos: Vec<CompiledSlo>, now: i64) -> Self {
        let mut run = Self {
            slos,
            definitions: Vec::new(),
            settled: BTreeMap::new(),
            live: Live::new(),
            alerts: Alerts::new(),
            changes: Vec::new(),
            arrivals: Arrivals::default(),
            last_event: None,
            turned: 0,
        };
        run.start(now);
        run
    }

    /// What a start reads: counts that are settled, and alerts from their table.
    fn start(&mut self, now: i64) {
        self.definitions = self.slos.iter().map(|slo| Definition::new(slo.clone(), Minute(now))).collect();
        for definition in &mut self.definitions {
            let watched = &mut definition.watched[0];
            for (at, counts) in &self.settled {
                watched.ring.add(Minute(*at), counts);
            }
            if let Some(last) = self.last_event {
                watched.fed("shop", Minute(last));
            }
            definition.past = Past::Known;
        }
        let mut restored = Restored::default();
        restored.add(&rows(&self.changes).unwrap()).unwrap();
        self.alerts = restored.finish();
    }

    /// A minute's events become known: live at first.
    fn arrive(&mut self, at: i64, found: (u64, u64)) {
        if found != (0, 0) {
            *self.live.entry(Minute(at)).or_default() += &counts(found);
            self.last_event = self.last_event.max(Some(at));
            self.definitions.iter_mut().for_each(|definition| definition.watched[0].fed("shop", Minute(at)));
        }
    }

    fn settle(&mut self) {
        for (at, counts) in self.live.drain() {
            *self.settled.entry(at.0).or_default() += &counts;
            self.definitions.iter_mut().for_each(|definition| definition.watched[0].add(at, &counts));
        }
    }

    fn hear(&mut self, minutes: &[i64]) {
        let times = minutes.iter().map(|at| at * MINUTE_MICROS).collect::<Vec<i64>>();
        let services = vec!["shop"; minutes.len()];
        let batch = RecordBatch::try_from_iter([
            ("minute", Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")) as arrow::array::ArrayRef),
            ("service_name", Arc::new(StringArray::from(services)) as arrow::array::ArrayRef),
        ]);
        self.arrivals.add(&batch.unwrap()).unwrap();
    }

    fn evaluate(&mut self, time: UnixMicros, watermark: UnixMicros) -> Vec<SloStatus> {
        let now = Minute::of(time);
        self.arrivals.forget(now);
        let ownership = Ownership::default();
        let mut next_change = self.changes.len() as u64 + 1;
        let mut round = Round {
            at: At { time, steady: time, position: WalPosition(time.0.unsigned_abs()), watermark, clock_behind_us: 0 },
            arrivals: &self.arrivals,
            coverages: HashMap::new(),
            alerts: &mut self.alerts,
            changes: &mut self.changes,
            next_change: &mut next_change,
            ownership: &ownership,
        };
        let mut found = Vec::with_capacity(self.definitions.len());
        for definition in &mut self.definitions {
            definition.watched[0].live.clone_from(&self.live);
            definition.advance(now);
            self.turned += definition.judge();
            round.definition(definition, None, &mut found);
        }
        found
    }
}

/// What befalls the service in a minute: good and bad events; none while telemetry is gone.
fn life(start: i64, minutes: i64, random: &mut Random) -> Vec<((u64, u64), bool)> {
    let (mut failing, mut per_10_000, mut gap) = (0_i64, 0, 0_i64);
    let each = (start..start + minutes).map(|at| {
        if failing == 0 && random.one_in(2 * 1_440) {
            (failing, per_10_000) = match random.below(5) {
                0 => (1 + random.below(20) as i64, 10_000),
                1 => (30 + random.below(200) as i64, 3_000),
                2 => (300 + random.below(600) as i64, 8_500),
                3 => (600 + random.below(2_000) as i64, 400),
                _ => (DAY + random.below(5_000) as i64, 120),
            };
        }
        if gap == 0 && random.one_in(4 * 1_440) {
            gap = 1 + random.below(90) as i64;
        }
        let night = at.rem_euclid(DAY) < 200;
        let calls = if night || gap > 0 { 0 } else { random.below(24) };
        let rate = if failing > 0 { per_10_000 } else { 20 };
        let bad = (0..calls).filter(|_| random.below(10_000) < rate).count() as u64;
        let found = ((calls - bad, bad), gap > 0);
        (failing, gap) = ((failing - 1).max(0), (gap - 1).max(0));
        found
    });
    each.collect()
}

/// One in so many minutes is the first of some whose successes come late; 0 for none.
struct Lateness(u64);

struct Outcome {
    fired: BTreeMap<(&'static str, usize), usize>,
    restarts: usize,
    evaluations: usize,
    turned: u64,
    /// Evaluations of a tier in another state than if all data had come in order.
    differing: usize,
}

fn live(start: &str, days: i64, seed: u64, lateness: &Lateness) -> Outcome {
    let (mut random, start, minutes) = (Random(seed), minute(start), days * DAY);
    let slos = documents();
    assert!(slos.iter().map(|slo| slo.slo.name.as_str()).eq(KINDS.iter().map(|kind| kind.name)));
    let life = life(start, minutes, &mut random);
    let mut run = Run::new(slos, start);
    let (mut arrived, mut in_order) = (Arrived::new(start, minutes), Arrived::new(start, minutes));
    let mut stands: BTreeMap<(&'static str, usize), Stands> = BTreeMap::new();
    let mut ideal = stands.clone();
    // Whether it can be told why a state is not the one of data in order: sums have differed since they were last the same.
    let mut explained: BTreeMap<(&'static str, usize), bool> = BTreeMap::new();
    let mut outcome = Outcome { fired: BTreeMap::new(), restarts: 0, evaluations: 0, turned: 0, differing: 0 };
    let mut heard: std::collections::BTreeSet<i64> = std::collections::BTreeSet::new();
    let mut on_its_way: Vec<(i64, i64, (u64, u64))> = Vec::new();
    let (mut watermark, mut last_event) = (UnixMicros(start * MINUTE_MICROS), None::<i64>);
    let (mut at, mut late_left, target) = (start, 0_u64, Target::from_ratio("0.99").unwrap());
    while at < start + minutes - 60 {
        // The next evaluation, and what happens until then.
        let most = if random.one_in(4) { 2 } else { 50 };
        let next = at + 1 + random.below(most) as i64;
        let mut covered = Vec::new();
        for now in at..next {
            let ((good, bad), gap) = life[(now - start) as usize];
            if lateness.0 > 0 && late_left == 0 && random.one_in(lateness.0) {
                late_left = 1 + random.below(10);
            }
            // What succeeds is late, so that slices are empty or bad at first.
            let late = if late_left > 0 { good } else { 0 };
            late_left = late_left.saturating_sub(1);
            on_its_way.push((now, now, (good - late, bad)));
            on_its_way.push((now + 1 + random.below(300) as i64, now, (late, 0)));
            in_order.add(now, (good, bad));
            if !gap {
                covered.push(now);
            }
        }
        at = next;
        let now = at - 1;
        run.hear(&covered);
        heard.extend(&covered);
        on_its_way.retain(|(when, of, found)| {
            if *when > now {
                return true;
            }
            run.arrive(*of, *found);
            arrived.add(*of, *found);
            if *found != (0, 0) {
                last_event = last_event.max(Some(*of));
            }
            false
        });
        let time = UnixMicros(now * MINUTE_MICROS + random.below(MINUTE_MICROS.unsigned_abs()) as i64);
        if !life[(now - start) as usize].1 {
            watermark = time;
        }
        if random.one_in(3) {
            run.settle();
        }
        if random.one_in(500) {
            run.start(now);
            outcome.restarts += 1;
        }
        let found = run.evaluate(time, watermark);
        outcome.evaluations += 1;

        for (kind, status) in KINDS.iter().zip(&found) {
            let (from, whole) = kind.over.period(now);
            let from_or_slice = match (kind.slice, whole) {
                (Some(slice), None) => now.div_euclid(slice) * slice - 30 * DAY,
                _ => from,
            };
            let expected = arrived.since(kind, from_or_slice, now);
            assert_eq!((status.counts.good, status.counts.bad), expected, "{} at minute {now}, seed {seed}", kind.name);
            assert_eq!((status.period.start.0, status.period_end.map(|end| end.0)), (from, whole), "{}", kind.name);
            // In units of 10^-12: a hundredth of the events.
            let hundredth = i128::from(expected.0 + expected.1) * 10_i128.pow(10);
            assert_eq!(Budget::of(&status.counts, target).allowed.units(), hundredth);
            let estimate = whole.map(|end| hundredth * i128::from(end - from) / i128::from(now + 1 - from));
            assert_eq!(status.allowed_in_period.map(|events| events.units()), estimate, "{}", kind.name);
            for (window, counts) in &status.windows {
                let expected = arrived.window(kind, window.minutes().into(), now);
                assert_eq!((counts.good, counts.bad), expected, "{} over {window} at minute {now}", kind.name);
            }
            let allowed = |arrived: &mut Arrived| {
                let (good, bad) = arrived.since(kind, from_or_slice, now);
                good + bad
            };
            for (place, tier) in status.tiers.iter().enumerate() {
                let key = (kind.name, place);
                let (long, short, pages) = if place < 4 { windows(kind, place) } else { (7 * DAY, 60, false) };
                let first = *heard.first().unwrap_or(&i64::MAX);
                let known = (now - short).max(first)..=now.min(Minute::of(watermark).0 - 1);
                let covered = if known.is_empty() { 0 } else { heard.range(known.clone()).count() };
                let is_covered = covered * 10 >= known.count() * 9;
                let is_old = |minute: i64| time.0 - (minute + 1) * MINUTE_MICROS > 15 * MINUTE_MICROS;
                let feeds = last_event.filter(|last| (now - long..=now).contains(last));
                let silent = feeds.is_some_and(|last| is_old(last) && heard.last().is_none_or(|heard| is_old(*heard)));
                let is_muted = kind.excludes && is_excluded(now);
                let is_stale = time.0 - watermark.0 > 60_000_000 || !is_covered || silent || is_muted;
                let says = |arrived: &mut Arrived| {
                    let of_long = arrived.window(kind, long, now);
                    let of_short = if place < 4 { arrived.window(kind, short, now) } else { of_long };
                    let total = |(good, bad): (u64, u64)| good + bad;
                    let burns = match kind.shares.get(place) {
                        Some((num, den)) => {
                            [of_long, of_short].iter().all(|sum| total(*sum) > 0 && sum.1 * den >= num * total(*sum))
                        }
                        // A quarter of a hundredth of all events of the period.
                        None => of_long.1 > 0 && of_long.1 * 400 >= allowed(arrived),
                    };
                    let says = match () {
                        () if is_stale => Says::Stale,
                        () if total(of_short) == 0 && total(of_long) == 0 => Says::Gone,
                        () if total(of_short) == 0 => Says::Idle,
                        () if burns => Says::Burns,
                        () => Says::Clear,
                    };
                    let chance = pages && !Evidence::of(of_long.1, total(of_long), target).is_improbable();
                    (says, chance, of_long, of_short)
                };
                let (arrived_says, in_order_says) = (says(&mut arrived), says(&mut in_order));
                let state = stands.entry(key).or_default();
                let was_firing = state.firing.is_some();
                state.step(arrived_says.0, arrived_says.1, kind.patience, time.0);
                *outcome.fired.entry(key).or_default() += usize::from(state.firing.is_some() && !was_firing);
                assert_eq!(
                    Stands::of(tier.state),
                    *state,
                    "{} {} at minute {now}, seed {seed}",
                    kind.name,
                    tier.tier.name
                );
                let ideal = ideal.entry(key).or_default();
                ideal.step(in_order_says.0, in_order_says.1, kind.patience, time.0);
                let is_explained = explained.entry(key).or_default();
                let same_sums = (arrived_says.2, arrived_says.3) == (in_order_says.2, in_order_says.3);
                *is_explained = !same_sums || (*is_explained && *ideal != *state);
                assert!(
                    *ideal == *state || *is_explained,
                    "{key:?} at minute {now}: nothing explains {state:?}, not {ideal:?}"
                );
                outcome.differing += usize::from(ideal.firing.is_some() != state.firing.is_some());
            }
        }
    }
    outcome.turned = run.turned;
    assert!(outcome.restarts >= 3, "seed {seed}: {} restarts", outcome.restarts);
    outcome
}

/// February with its 29th, the change of Berlin's and New York's clocks, ends of months, of a quarter and of a year, maintenance over some of them, idle
/// nights, gaps in the telemetry; data in order. Every budget and sum, of every evaluation, is that of the oracle; so is every state, over restarts.
#[test]
fn a_hundred_days_through_leap_day_spring_and_the_end_of_a_quarter() {
    let outcome = live("2024-02-01T00:00:00Z", 100, 1, &Lateness(0));
    assert!(outcome.evaluations > 6_000 && outcome.differing == 0 && outcome.turned == 0);
    for kind in &KINDS {
        let fired: Vec<usize> = (0..4).map(|tier| outcome.fired[&(kind.name, tier)]).collect();
        assert!(fired.iter().sum::<usize>() > 3, "{}: {fired:?}", kind.name);
    }
    assert!(outcome.fired[&("a-rolling", 4)] > 0, "{:?}", outcome.fired);
}

/// October, when an hour comes twice in Berlin, with data that comes up to five hours late. Budgets and states are those of what has arrived, at every
/// evaluation; where a state is another one than that of data in order, sums of its windows were.
#[test]
fn an_october_with_data_that_comes_late() {
    let outcome = live("2024-10-05T00:00:00Z", 40, 2, &Lateness(120));
    assert!(outcome.turned > 10, "late rows have turned {} verdicts", outcome.turned);
    assert!(outcome.differing > 0, "it has made a difference");
    assert!(outcome.differing * 50 < outcome.evaluations * 29, "{} of {}", outcome.differing, outcome.evaluations);
}
