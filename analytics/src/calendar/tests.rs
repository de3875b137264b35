use proptest::prelude::*;

use super::*;

fn minute(text: &str) -> Minute {
    Minute(DateTime::parse_from_rfc3339(text).unwrap().timestamp() / 60)
}

#[track_caller]
fn check(duration: &str, start: &str, zone: &str, at: &str, expected: [&str; 2]) {
    let calendar = Calendar::parse(duration, start, zone).unwrap();
    let period = calendar.period_at(minute(at));
    let shown = |minute: Minute| {
        DateTime::from_timestamp(minute.0 * 60, 0).unwrap().to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
    };
    assert_eq!([shown(period.start), shown(period.end)], expected, "{calendar} at {at}");
}

#[test]
fn months_keep_their_day_where_there_is_one() {
    let start = "2026-01-31 00:00:00";
    check("1M", start, "UTC", "2026-02-10T00:00:00Z", ["2026-01-31T00:00:00Z", "2026-02-28T00:00:00Z"]);
    check("1M", start, "UTC", "2026-02-28T00:00:00Z", ["2026-02-28T00:00:00Z", "2026-03-31T00:00:00Z"]);
    check("1M", start, "UTC", "2028-02-15T00:00:00Z", ["2028-01-31T00:00:00Z", "2028-02-29T00:00:00Z"]);
    check("1M", start, "UTC", "2025-12-30T23:59:00Z", ["2025-11-30T00:00:00Z", "2025-12-31T00:00:00Z"]);
    check("1Y", "2024-02-29 00:00:00", "UTC", "2025-06-01T00:00:00Z", ["2025-02-28T00:00:00Z", "2026-02-28T00:00:00Z"]);
    check("1Y", "2024-02-29 00:00:00", "UTC", "2028-03-01T00:00:00Z", ["2028-02-29T00:00:00Z", "2029-02-28T00:00:00Z"]);
}

#[test]
fn quarters_begin_where_the_company_says() {
    let zone = "Europe/Berlin";
    check("1Q", "2026-01-01 00:00", zone, "2026-05-05T00:00:00Z", ["2026-03-31T22:00:00Z", "2026-06-30T22:00:00Z"]);
    check("1Q", "2026-02-01 00:00", zone, "2026-01-15T00:00:00Z", ["2025-10-31T23:00:00Z", "2026-01-31T23:00:00Z"]);
}

#[test]
fn days_are_as_long_as_clocks_make_them() {
    let (start, zone) = ("2026-01-01 00:00:00", "America/New_York");
    // On 8 March 2026 the clock goes from 02:00 to 03:00, on 1 November back.
    check("1d", start, zone, "2026-03-08T12:00:00Z", ["2026-03-08T05:00:00Z", "2026-03-09T04:00:00Z"]);
    check("1d", start, zone, "2026-11-01T12:00:00Z", ["2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z"]);
    check("1w", "2022-01-01 12:00:00", zone, "2026-03-08T12:00:00Z", ["2026-03-07T17:00:00Z", "2026-03-14T16:00:00Z"]);
    // 02:30 is left out on the 8th: the period begins when clocks say 03:00.
    check("1d", "2026-01-01 02:30:00", zone, "2026-03-08T12:00:00Z", ["2026-03-08T07:00:00Z", "2026-03-09T06:30:00Z"]);
    // 01:30 comes twice on 1 November: the earlier.
    check("1d", "2026-01-01 01:30:00", zone, "2026-11-01T06:00:00Z", ["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"]);
    // Clocks of Lord Howe change by half an hour, those of Sao Paulo did at midnight.
    check(
        "1d",
        "2026-01-01 00:00",
        "Australia/Lord_Howe",
        "2026-04-05T00:00:00Z",
        ["2026-04-04T13:00:00Z", "2026-04-05T13:30:00Z"],
    );
    check(
        "1d",
        "2018-01-01 00:00",
        "America/Sao_Paulo",
        "2018-11-04T12:00:00Z",
        ["2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"],
    );
    // Samoa went from 29 to 31 December 2011.
    check(
        "1d",
        "2011-01-01 00:00",
        "Pacific/Apia",
        "2011-12-30T10:00:00Z",
        ["2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z"],
    );
}

#[test]
fn what_is_no_calendar_is_refused_with_what_to_write() {
    let refused = |duration, start, zone| Calendar::parse(duration, start, zone).unwrap_err().to_string();
    let (start, zone) = ("2026-01-01 00:00:00", "UTC");
    assert!(refused("1m", start, zone).contains("write whole d, w, M, Q or Y, like 1M; m are minutes"));
    for duration in ["", "M", "1.5M", "-1M", "1é", "99999999999M"] {
        assert!(refused(duration, start, zone).contains("is no period of the calendar"), "{duration}");
    }
    for duration in ["0M", "2Y", "13M", "367d"] {
        assert!(refused(duration, start, zone).contains("write one from 1d to 1Y"), "{duration}");
    }
    for start in
        ["", "2026-02-30 00:00:00", "2026-01-01 00:00:30", "2026-01-01T00:00:00Z", "tomorrow", "1066-01-01 00:00"]
    {
        assert!(refused("1M", start, zone).contains("is no local date and time of a whole minute"), "{start}");
    }
    for zone in ["", "Mars/Olympus", "CET+1", "europe"] {
        assert!(refused("1M", start, zone).contains("is no time zone of the IANA database"), "{zone}");
    }
}

#[test]
fn the_ends_of_time_have_a_period() {
    for at in [i64::MIN, -1, 0, i64::MAX] {
        for duration in ["1d", "1w", "1M", "1Q", "1Y"] {
            let calendar = Calendar::parse(duration, "2026-01-01 00:00:00", "Europe/Berlin").unwrap();
            assert!(calendar.period_at(Minute(at)).minutes() > 0, "{duration} {at}");
        }
    }
}

/// Zones with changes by an hour in both halves of the year, by half an hour, at midnight, never, and odd offsets.
const ZONES: [&str; 8] = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
    "Asia/Kathmandu",
    "Pacific/Apia",
    "Africa/Casablanca",
    "UTC",
];

/// The periods by walking: the local date and time of every minute says whether a period has begun, which is when it first is at
/// or after the local start.
fn model(calendar: &Calendar, at: Minute) -> Minute {
    let local = |minute: Minute| {
        DateTime::from_timestamp(minute.0 * 60, 0).unwrap().with_timezone(&calendar.zone).naive_local()
    };
    // The local starts around, by a walk over dates that knows months only by their days.
    let day = |local: NaiveDateTime| local.date().num_days_from_ce();
    let anchor = calendar.start;
    let is_start = |date: chrono::NaiveDate| {
        let days = i64::from(date.num_days_from_ce() - day(anchor));
        let months = i64::from(date.year() - anchor.date().year()) * 12 + i64::from(date.month0())
            - i64::from(anchor.date().month0());
        let last = (date + Days::new(1)).month() != date.month();
        let is_day = date.day() == anchor.day() || (last && anchor.day() > date.day());
        let count = i64::from(calendar.count);
        match calendar.unit {
            Unit::Day => days.rem_euclid(count) == 0,
            Unit::Week => days.rem_euclid(7 * count) == 0,
            Unit::Month => is_day && months.rem_euclid(count) == 0,
            Unit::Quarter => is_day && months.rem_euclid(3 * count) == 0,
            Unit::Year => is_day && months.rem_euclid(12 * count) == 0,
        }
    };
    let mut date = local(at).date() + Days::new(2);
    loop {
        if is_start(date) {
            let start = date.and_time(anchor.time());
            // The first minute, from a day and a half before, whose local time is not before the start.
            let noon = Minute(start.and_utc().timestamp() / 60);
            let first =
                (noon.0 - 36 * 60..noon.0 + 36 * 60).map(Minute).find(|minute| local(*minute) >= start).unwrap();
            if first <= at {
                return first;
            }
        }
        date = date - Days::new(1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Every minute is in one period, which begins where the model says and ends where the next begins.
    #[test]
    fn periods_are_those_of_a_walk_over_minutes(
        zone in 0..ZONES.len(), unit in 0..5_usize, count in 1..4_u32,
        // From 2009 to 2029.
        start in 20_512_800..31_032_000_i64, away in -5_000_000..5_000_000_i64,
    ) {
        let unit = [Unit::Day, Unit::Week, Unit::Month, Unit::Quarter, Unit::Year][unit];
        let count = if unit == Unit::Year { 1 } else { count };
        let local = DateTime::from_timestamp(start * 60, 0).unwrap().naive_utc();
        let calendar = Calendar::new(count, unit, local, ZONES[zone].parse().unwrap()).unwrap();
        let at = Minute(start + away);
        let period = calendar.period_at(at);
        prop_assert!(period.contains(at));
        prop_assert_eq!(period.start, model(&calendar, at));
        prop_assert!(period.minutes() <= u64::from(calendar.longest().minutes()));
        prop_assert_eq!(calendar.period_at(period.end).start, period.end);
        prop_assert_eq!(calendar.period_at(Minute(period.start.0 - 1)).end, period.start);
    }
}
