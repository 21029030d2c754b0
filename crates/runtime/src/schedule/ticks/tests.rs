//! Ticks around everything that makes a calendar hard.

use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    let time: jiff::Timestamp = text.parse().expect(text);
    Timestamp(u64::try_from(time.as_millisecond()).expect("after 1970"))
}

fn cron(expression: &str, zone: &str) -> Ticks {
    Ticks::new(&Timing::Cron(expression.into()), zone, Timestamp(0), None).expect(expression)
}

fn every(ms: u64, start: u64) -> Ticks {
    Ticks::new(&Timing::EveryMs(ms), "UTC", Timestamp(start), None).expect("interval")
}

/// The ticks of an expression from one moment up to another, as text in its zone.
fn ticks(expression: &str, zone: &str, from: &str, to: &str) -> Vec<String> {
    let (from, to) = (at(from), at(to));
    let text = |tick: &Timestamp| in_zone(*tick, zone);
    cron(expression, zone).passed(Timestamp(from.0 - 1), to, 10_000).newest.iter().map(text).collect()
}

#[test]
fn a_fixed_time_in_a_gap_ticks_once_after_it() {
    // Clocks of Berlin go from 02:00 to 03:00 on this day.
    let day = ("2026-03-28T23:00:00Z", "2026-03-29T21:59:59Z");
    assert_eq!(ticks("30 2 * * *", "Europe/Berlin", day.0, day.1), ["2026-03-29T03:00:00+02:00"]);
    assert_eq!(ticks("0 2 * * *", "Europe/Berlin", day.0, day.1), ["2026-03-29T03:00:00+02:00"]);
    assert_eq!(ticks("0 3 * * *", "Europe/Berlin", day.0, day.1), ["2026-03-29T03:00:00+02:00"]);
    assert_eq!(ticks("59 1 * * *", "Europe/Berlin", day.0, day.1), ["2026-03-29T01:59:00+01:00"]);
}

#[test]
fn a_pattern_in_a_gap_is_left_out() {
    let some = ("2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z");
    assert_eq!(
        ticks("*/15 * * * *", "Europe/Berlin", some.0, some.1),
        [
            "2026-03-29T01:30:00+01:00",
            "2026-03-29T01:45:00+01:00",
            "2026-03-29T03:00:00+02:00",
            "2026-03-29T03:15:00+02:00",
            "2026-03-29T03:30:00+02:00"
        ]
    );
}

#[test]
fn a_fixed_time_that_is_repeated_ticks_in_the_first_hour_only() {
    // Clocks of Berlin go from 03:00 back to 02:00 on this day.
    let day = ("2026-10-24T22:00:00Z", "2026-10-25T22:59:59Z");
    assert_eq!(ticks("30 2 * * *", "Europe/Berlin", day.0, day.1), ["2026-10-25T02:30:00+02:00"]);
    assert_eq!(ticks("0 3 * * *", "Europe/Berlin", day.0, day.1), ["2026-10-25T03:00:00+01:00"]);
}

#[test]
fn a_pattern_that_is_repeated_ticks_in_both_hours() {
    assert_eq!(
        ticks("*/30 2 * * *", "Europe/Berlin", "2026-10-25T00:00:00Z", "2026-10-25T02:00:00Z"),
        [
            "2026-10-25T02:00:00+02:00",
            "2026-10-25T02:30:00+02:00",
            "2026-10-25T02:00:00+01:00",
            "2026-10-25T02:30:00+01:00"
        ]
    );
}

#[test]
fn lists_and_ranges_of_numbers_tick_once_for_each_time_of_day() {
    let berlin = |expression, from, to| ticks(expression, "Europe/Berlin", from, to);
    let spring = ("2027-03-27T23:00:00Z", "2027-03-28T02:00:00Z");
    assert_eq!(berlin("15,45 2 * * *", spring.0, spring.1), ["2027-03-28T03:00:00+02:00"]);
    let both = ["2027-03-28T03:00:00+02:00", "2027-03-28T03:30:00+02:00"];
    assert_eq!(berlin("30 2,3 * * *", spring.0, spring.1), both);
    assert_eq!(berlin("30 2-3 * * *", spring.0, spring.1), both);
    assert_eq!(berlin("0 2,3 * * *", spring.0, spring.1), ["2027-03-28T03:00:00+02:00"]);
    let autumn = ("2027-10-30T12:00:00Z", "2027-10-31T12:00:00Z");
    let once = ["2027-10-31T01:30:00+02:00", "2027-10-31T02:30:00+02:00"];
    assert_eq!(berlin("30 1,2 * * *", autumn.0, autumn.1), once);
    let once = ["2027-10-31T02:15:00+02:00", "2027-10-31T02:45:00+02:00"];
    assert_eq!(berlin("15,45 2 * * *", autumn.0, autumn.1), once);
    assert_eq!(
        ticks("0,30 2 * * *", "America/New_York", "2027-03-13T12:00:00Z", "2027-03-14T12:00:00Z"),
        ["2027-03-14T03:00:00-04:00"]
    );
}

#[test]
fn a_day_that_a_zone_skips_does_not_end_a_schedule() {
    // Samoa had no 30 December 2011.
    let apia = |expression| ticks(expression, "Pacific/Apia", "2011-12-28T12:00:00Z", "2012-01-01T00:00:00Z");
    let midnights = ["2011-12-29T00:00:00-10:00", "2011-12-31T00:00:00+14:00", "2012-01-01T00:00:00+14:00"];
    assert_eq!(apia("0 0 * * *"), midnights);
    assert_eq!(apia("*/60 0 * * *"), midnights);
    assert_eq!(apia("0 0 30 * *"), ["2011-12-31T00:00:00+14:00"]);
    assert_eq!(apia("*/30 12 30 * *"), Vec::<String>::new());
}

#[test]
fn half_hours_midnights_and_the_other_hemisphere_follow_the_same_rules() {
    // Lord Howe moves by half an hour; Beirut moved at midnight; Santiago has its summer in January.
    assert_eq!(
        ticks("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00Z", "2026-10-04T12:00:00Z"),
        ["2026-10-04T02:30:00+11:00"]
    );
    assert_eq!(
        ticks("0 0 * * *", "Asia/Beirut", "2022-03-26T20:00:00Z", "2022-03-27T20:00:00Z"),
        ["2022-03-27T01:00:00+03:00"]
    );
    assert_eq!(
        ticks("30 23 * * *", "America/Santiago", "2026-04-05T01:00:00Z", "2026-04-05T04:00:00Z"),
        ["2026-04-04T23:30:00-03:00"]
    );
}

#[test]
fn leap_days_and_far_years_are_found() {
    assert_eq!(
        ticks("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", "2033-01-01T00:00:00Z"),
        ["2028-02-29T00:00:00+00:00", "2032-02-29T00:00:00+00:00"]
    );
    // 2100 is no leap year.
    assert_eq!(
        ticks("0 0 29 2 *", "UTC", "2096-01-01T00:00:00Z", "2104-12-31T00:00:00Z"),
        ["2096-02-29T00:00:00+00:00", "2104-02-29T00:00:00+00:00"]
    );
    assert_eq!(
        ticks("14 3 * * *", "UTC", "2038-01-19T00:00:00Z", "2038-01-20T04:00:00Z"),
        ["2038-01-19T03:14:00+00:00", "2038-01-20T03:14:00+00:00"]
    );
    assert_eq!(
        ticks("8 14 3 19 1 *", "UTC", "2038-01-01T00:00:00Z", "2038-12-31T00:00:00Z"),
        ["2038-01-19T03:14:08+00:00"]
    );
}

#[test]
fn last_days_and_weekdays_are_understood() {
    assert_eq!(
        ticks("0 9 L * *", "UTC", "2028-02-01T00:00:00Z", "2028-03-31T23:00:00Z"),
        ["2028-02-29T09:00:00+00:00", "2028-03-31T09:00:00+00:00"]
    );
    assert_eq!(
        ticks("0 9 * * MON#1", "UTC", "2026-11-01T00:00:00Z", "2026-12-31T00:00:00Z"),
        ["2026-11-02T09:00:00+00:00", "2026-12-07T09:00:00+00:00"]
    );
}

#[test]
fn what_cannot_be_used_is_refused() {
    let refused = |expression: &str| {
        Ticks::new(&Timing::Cron(expression.into()), "UTC", Timestamp(0), None).expect_err(expression).to_string()
    };
    for expression in ["", "* * *", "60 * * * *", "* * * * * * *", "@reboot", "a b c d e", "*/0 * * * *"] {
        assert!(refused(expression).contains("is no cron expression"), "{expression}");
    }
    assert!(refused(&"1,".repeat(200)).contains("more than 256 bytes"));
    let zone = Ticks::new(&Timing::Cron("@daily".into()), "Mars/Olympus", Timestamp(0), None);
    assert_eq!(zone.expect_err("no zone"), TimingError::Zone("Mars/Olympus".into()));
    let short = Ticks::new(&Timing::EveryMs(999), "UTC", Timestamp(0), None);
    assert_eq!(short.expect_err("short"), TimingError::TooShort(999));
    assert_eq!(cron("0 0 30 2 *", "UTC").after(Timestamp(0)), None, "there is no such day");
}

#[test]
fn intervals_count_from_the_start_and_end_before_the_end() {
    let ticks = Ticks::new(&Timing::EveryMs(1_000), "UTC", Timestamp(5_500), Some(Timestamp(7_500))).expect("ticks");
    assert_eq!(ticks.after(Timestamp(0)), Some(Timestamp(5_500)));
    assert_eq!(ticks.after(Timestamp(5_500)), Some(Timestamp(6_500)));
    assert_eq!(ticks.after(Timestamp(6_500)), None);
    assert_eq!(every(1_000, 0).after(Timestamp(u64::MAX)), None);
}

#[test]
fn a_second_of_a_year_ago_is_caught_up_in_a_moment() {
    let year = 365 * 86_400_000;
    let passed = cron("* * * * * *", "Europe/Berlin").passed(at("2026-01-01T00:00:00Z"), at("2027-01-01T00:00:00Z"), 3);
    assert_eq!(passed.newest.back(), Some(&at("2027-01-01T00:00:00Z")));
    assert_eq!(passed.newest.len(), 3);
    assert!(passed.before >= 20_000, "{}", passed.before);
    let sparse = cron("* * * * 1 *", "UTC").passed(Timestamp(0), Timestamp(year), 2);
    assert_eq!(sparse.newest, [at("1970-01-31T23:59:59Z"), at("1971-01-01T00:00:00Z")]);
}

const EXPRESSIONS: &[&str] = &[
    "* * * * *",
    "*/7 * * * *",
    "30 2 * * *",
    "0 3 * * *",
    "0 */2 * * *",
    "15,45 1-3 * * *",
    "0 0 * * *",
    "0 12 29 2 *",
    "0 0 L * *",
    "*/20 * * * * *",
    "0 9 * * 1-5",
];
const ZONES: &[&str] = &[
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Santiago",
    "Asia/Kathmandu",
    "Pacific/Apia",
    "Africa/Casablanca",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever the zone does: ticks grow strictly, a tick is a tick from wherever it is looked for, and no two ticks of
    /// a fixed time lie closer than 22 hours.
    #[test]
    fn prop_ticks_grow_and_do_not_depend_on_where_they_are_looked_for(
        expression in proptest::sample::select(EXPRESSIONS),
        zone in proptest::sample::select(ZONES),
        from in 0_u64..4_133_980_800_000,
        part in 1_u64..1_000,
    ) {
        let ticks = cron(expression, zone);
        let mut before = Timestamp(from);
        for _ in 0..20 {
            let Some(tick) = ticks.after(before) else { break };
            prop_assert!(tick > before);
            let between = Timestamp(before.0 + tick.since_ms(before) * part / 1_000).min(Timestamp(tick.0 - 1));
            prop_assert_eq!(ticks.after(between), Some(tick), "from {}", between.0);
            if matches!(expression, "30 2 * * *" | "0 3 * * *" | "0 0 * * *") && before.0 != from {
                prop_assert!(tick.since_ms(before) >= 22 * 3_600_000, "{} and {}", before.0, tick.0);
            }
            before = tick;
        }
    }

    /// The newest ticks are the same however many there are before them.
    #[test]
    fn prop_the_newest_ticks_are_found_from_afar(
        minutes in 1_u64..60,
        days in 0_u64..400,
        keep in 1_usize..50,
        start in 0_u64..100_000,
    ) {
        let ticks = every(minutes * 60_000, start);
        let until = Timestamp(start + days * 86_400_000 + 1);
        let far = ticks.passed(Timestamp(start), until, keep);
        let all = (until.0 - start) / (minutes * 60_000);
        prop_assert_eq!(far.newest.len() as u64, all.min(keep as u64));
        prop_assert!(far.before <= all - far.newest.len() as u64);
        for (i, tick) in far.newest.iter().rev().enumerate() {
            prop_assert_eq!(tick.0, start + (all - i as u64) * minutes * 60_000);
        }
    }
}
