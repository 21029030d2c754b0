//! What ticks lead to under each policy, and what clocks that jump do.

use super::*;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

fn spec(overlap: Overlap, catch_up: CatchUp) -> Spec {
    Spec {
        name: "s".into(),
        bundle: Digest::ZERO,
        work: Digest::ZERO,
        machine: "m".into(),
        tenant: "default".into(),
        timing: Timing::EveryMs(MINUTE),
        zone: "UTC".into(),
        overlap,
        catch_up,
        window_ms: HOUR,
        jitter_ms: 0,
        start: Timestamp(0),
        end: None,
        tags: BTreeMap::new(),
        priority: None,
        pool: None,
        version: None,
    }
}

fn schedule(overlap: Overlap, catch_up: CatchUp) -> Schedule {
    Schedule::new(spec(overlap, catch_up), Timestamp(0)).expect("schedule")
}

/// Advances until nothing is wanted, starting everything that is to be started. Gives back the minutes of the ticks.
fn settle(schedule: &mut Schedule, now: u64, is_busy: bool) -> Vec<u64> {
    let mut started = Vec::new();
    loop {
        // What was started in this round keeps the schedule busy.
        let is_busy = is_busy || (!started.is_empty() && schedule.spec.overlap != Overlap::Allow);
        match schedule.advance(Timestamp(now), is_busy).expect("timing") {
            Wants::Nothing(_) | Wants::Cancelled(..) => return started,
            Wants::Stored => *schedule = Schedule::decode(&schedule.encode()).expect("reads back"),
            Wants::Runs => {
                started.push(schedule.starting[0].tick.0 / MINUTE);
                schedule.started(Timestamp(now));
            }
        }
    }
}

#[test]
fn a_tick_starts_its_run_at_or_after_its_time() {
    let mut s = schedule(Overlap::Skip, CatchUp::Last);
    assert_eq!(s.advance(Timestamp(MINUTE - 1), false), Ok(Wants::Nothing(Some(Timestamp(MINUTE)))));
    assert_eq!(settle(&mut s, MINUTE + 7, false), [1]);
    let last = s.last.clone().expect("a run");
    assert_eq!((last.run.as_str(), last.late_ms), ("s-19700101T000100Z", 7));
    assert_eq!(settle(&mut s, MINUTE + 8, false), Vec::<u64>::new());
}

#[test]
fn each_catch_up_policy_does_what_it_says_after_a_gap() {
    let now = 3 * HOUR + 59_000;
    for (policy, expected) in
        [(CatchUp::None, vec![180]), (CatchUp::Last, vec![180]), (CatchUp::All, (121..=180).collect())]
    {
        let mut s = schedule(Overlap::Allow, policy);
        assert_eq!(settle(&mut s, now, false), expected, "{policy:?}");
        assert_eq!(s.counts.started + s.counts.missed, 180, "{policy:?}");
        assert_eq!(s.dealt_with, Timestamp(3 * HOUR), "{policy:?}");
    }
}

#[test]
fn without_catching_up_a_tick_counts_only_within_the_grace() {
    let hourly = Spec { timing: Timing::EveryMs(HOUR), ..spec(Overlap::Skip, CatchUp::None) };
    let mut s = Schedule::new(hourly.clone(), Timestamp(0)).expect("schedule");
    assert_eq!(settle(&mut s, HOUR + GRACE_MS, false), [60]);
    let mut s = Schedule::new(hourly, Timestamp(0)).expect("schedule");
    assert_eq!(settle(&mut s, HOUR + GRACE_MS + 1, false), Vec::<u64>::new());
    assert_eq!(s.counts.missed, 1);
    assert_eq!(s.next.map(|next| next.tick), Some(Timestamp(2 * HOUR)));
}

#[test]
fn a_window_bounds_what_is_caught_up() {
    let hourly = Spec { timing: Timing::EveryMs(2 * HOUR), ..spec(Overlap::Allow, CatchUp::Last) };
    let mut s = Schedule::new(hourly.clone(), Timestamp(0)).expect("schedule");
    assert_eq!(settle(&mut s, 3 * HOUR + 1, false), Vec::<u64>::new(), "an hour and a bit is beyond the window");
    let mut s = Schedule::new(hourly, Timestamp(0)).expect("schedule");
    assert_eq!(settle(&mut s, 3 * HOUR, false), [120]);
    let mut many = schedule(Overlap::Allow, CatchUp::All);
    many.spec.window_ms = u64::MAX;
    let started = settle(&mut many, 5_000 * MINUTE, false);
    assert_eq!(started.len(), CATCH_UP_MAX + 1);
    assert_eq!((started.first(), started.last()), (Some(&1), Some(&5_000)));
}

#[test]
fn a_clock_that_goes_back_starts_nothing_twice() {
    let mut s = schedule(Overlap::Allow, CatchUp::All);
    assert_eq!(settle(&mut s, 3 * MINUTE, false), [1, 2, 3]);
    for now in [2 * MINUTE, MINUTE, 0, 3 * MINUTE] {
        assert_eq!(settle(&mut s, now, false), Vec::<u64>::new());
    }
    assert_eq!(settle(&mut s, 4 * MINUTE, false), [4]);
}

#[test]
fn skip_leaves_out_what_overlaps() {
    let mut s = schedule(Overlap::Skip, CatchUp::All);
    assert_eq!(settle(&mut s, MINUTE, false), [1]);
    assert_eq!(settle(&mut s, 3 * MINUTE, true), Vec::<u64>::new());
    assert_eq!(s.counts.skipped, 2);
    assert_eq!(settle(&mut s, 4 * MINUTE, false), [4]);
}

#[test]
fn queue_keeps_the_order_and_starts_one_at_a_time() {
    let mut s = schedule(Overlap::Queue, CatchUp::All);
    assert_eq!(settle(&mut s, 3 * MINUTE, false), [1]);
    assert_eq!(s.waiting.len(), 2);
    assert_eq!(s.advance(Timestamp(3 * MINUTE), true), Ok(Wants::Nothing(Some(Timestamp(3 * MINUTE + 1_000)))));
    assert_eq!(settle(&mut s, 3 * MINUTE + 5, false), [2]);
    assert_eq!(settle(&mut s, 3 * MINUTE + 9, false), [3]);
    assert!(s.waiting.is_empty());
}

#[test]
fn a_queue_is_bounded() {
    let mut s = schedule(Overlap::Queue, CatchUp::All);
    s.spec.window_ms = u64::MAX;
    assert_eq!(settle(&mut s, 800 * MINUTE, true), Vec::<u64>::new());
    assert_eq!(settle(&mut s, 1_500 * MINUTE, true), Vec::<u64>::new());
    assert_eq!((s.waiting.len(), s.counts.skipped), (WAITING_MAX, 500));
}

#[test]
fn cancel_waits_until_the_run_has_ended_and_takes_the_last_tick() {
    let mut s = schedule(Overlap::Cancel, CatchUp::All);
    assert_eq!(settle(&mut s, MINUTE, false), [1]);
    let run = s.last.clone().expect("a run").run;
    assert_eq!(settle(&mut s, 2 * MINUTE, true), Vec::<u64>::new());
    let now = 2 * MINUTE + 5;
    assert_eq!(s.advance(Timestamp(now), true), Ok(Wants::Cancelled(run, Timestamp(now + 1_000))));
    assert_eq!(settle(&mut s, 3 * MINUTE, true), Vec::<u64>::new());
    assert_eq!(s.counts.skipped, 1);
    assert_eq!(settle(&mut s, 3 * MINUTE + 1, false), [3]);
}

#[test]
fn a_pause_starts_nothing_and_is_not_caught_up() {
    let mut s = schedule(Overlap::Queue, CatchUp::All);
    assert_eq!(settle(&mut s, 2 * MINUTE, false), [1]);
    s.pause(Timestamp(2 * MINUTE), "audit");
    s.pause(Timestamp(3 * MINUTE), "again");
    assert_eq!(s.paused.as_ref().map(|paused| &*paused.reason), Some("audit"));
    assert_eq!(settle(&mut s, 10 * MINUTE, false), Vec::<u64>::new());
    assert_eq!(s.wakes_at(), None);
    s.resume(Timestamp(10 * MINUTE)).expect("timing");
    assert_eq!(settle(&mut s, 10 * MINUTE, false), Vec::<u64>::new());
    assert_eq!(settle(&mut s, 11 * MINUTE, false), [11]);
}

#[test]
fn a_tick_being_started_is_finished_whatever_came_in_between() {
    let mut s = schedule(Overlap::Skip, CatchUp::Last);
    assert_eq!(s.advance(Timestamp(MINUTE), false), Ok(Wants::Stored));
    s.pause(Timestamp(MINUTE), "audit");
    s.remove(Timestamp(MINUTE));
    assert_eq!(s.advance(Timestamp(9 * MINUTE), true), Ok(Wants::Runs));
    s.started(Timestamp(9 * MINUTE));
    assert_eq!(s.last.as_ref().map(|last| last.late_ms), Some(8 * MINUTE));
    assert_eq!(s.advance(Timestamp(9 * MINUTE), false), Ok(Wants::Nothing(None)));
    let gone = s.wakes_at().expect("its place is given up");
    assert!(s.is_gone(gone) && !s.is_gone(Timestamp(gone.0 - 1)));
}

#[test]
fn jitter_is_the_same_for_a_tick_and_within_its_bound() {
    let spec = Spec { jitter_ms: 30_000, ..spec(Overlap::Allow, CatchUp::All) };
    let mut s = Schedule::new(spec.clone(), Timestamp(0)).expect("schedule");
    let offsets: Vec<u64> = (1..200).map(|i| spec.jitter(Timestamp(i * MINUTE))).collect();
    assert!(offsets.iter().all(|offset| *offset <= 30_000));
    assert!(offsets.iter().any(|offset| *offset > 15_000) && offsets.iter().any(|offset| *offset < 15_000));
    let due = MINUTE + spec.jitter(Timestamp(MINUTE));
    assert_eq!(settle(&mut s, due - 1, false), Vec::<u64>::new());
    assert_eq!(settle(&mut s, due, false), [1]);
    assert_eq!(s.last.map(|last| last.late_ms), Some(0));
}

#[test]
fn a_schedule_that_cannot_work_is_refused() {
    let good = spec(Overlap::Skip, CatchUp::Last);
    for name in ["", "a b", "a~1", "a/b", &"x".repeat(101)] {
        let spec = Spec { name: name.into(), ..good.clone() };
        assert!(matches!(Schedule::new(spec, Timestamp(0)), Err(SpecError::Name(_))), "{name}");
    }
    let ends = Spec { start: Timestamp(9), end: Some(Timestamp(9)), ..good.clone() };
    assert_eq!(Schedule::new(ends, Timestamp(0)), Err(SpecError::Ends));
    let over = Spec { end: Some(Timestamp(5)), ..good.clone() };
    assert_eq!(Schedule::new(over, Timestamp(9)), Err(SpecError::Timing(TimingError::Never)));
    let never = Spec { timing: Timing::Cron("0 0 30 2 *".into()), ..good };
    assert_eq!(Schedule::new(never, Timestamp(0)), Err(SpecError::Timing(TimingError::Never)));
}

#[test]
fn a_schedule_of_a_newer_build_is_not_read() {
    let s = schedule(Overlap::Skip, CatchUp::Last);
    let newer = String::from_utf8(s.encode()).expect("text").replacen("\"v\":1", "\"v\":3,\"zz\":{}", 1);
    assert!(matches!(Schedule::decode(newer.as_bytes()), Err(ReadError::Newer { found: 3 })));
    assert!(matches!(Schedule::decode(b"{}"), Err(ReadError::Broken(_))));
}

#[test]
fn only_a_schedule_that_follows_a_name_is_kept_from_builds_that_know_none() {
    let mut schedule = schedule(Overlap::Skip, CatchUp::Last);
    let form = |schedule: &Schedule| {
        serde_json::from_slice::<serde_json::Value>(&schedule.encode()).expect("json")["v"].clone()
    };
    assert_eq!(form(&schedule), 1);
    for (version, v) in [(Some("n@"), 2), (Some("n@3"), 1), (None, 1)] {
        let spec = Spec { version: version.map(Into::into), ..schedule.spec.clone() };
        schedule.replace(spec, Timestamp(1)).expect("replaced");
        assert_eq!((form(&schedule), schedule.spec.follows()), (v.into(), version.and_then(|it| it.strip_suffix('@'))));
        assert_eq!(Schedule::decode(&schedule.encode()).expect("reads back"), schedule);
    }
}

#[test]
fn another_spec_keeps_what_happened() {
    let mut s = schedule(Overlap::Skip, CatchUp::Last);
    assert_eq!(settle(&mut s, 2 * MINUTE, false), [2]);
    let hourly = Spec { timing: Timing::Cron("@hourly".into()), ..s.spec.clone() };
    s.replace(hourly, Timestamp(3 * MINUTE)).expect("replaced");
    assert_eq!((s.counts.started, s.next.map(|next| next.tick)), (1, Some(Timestamp(HOUR))));
}

#[test]
fn a_schedule_of_a_restored_store_starts_nothing_until_it_is_resumed() {
    let mut s = schedule(Overlap::Allow, CatchUp::All);
    assert_eq!(s.advance(Timestamp(3 * MINUTE), false), Ok(Wants::Stored), "three ticks are about to be started");
    let held = held_back(&s.encode(), Timestamp(9 * MINUTE), "restored").expect("it is held back");
    let mut held = Schedule::decode(&held).expect("reads back");
    assert_eq!(settle(&mut held, 60 * MINUTE, false), Vec::<u64>::new());
    assert_eq!((held.counts.missed, held.wakes_at()), (3, None));
    assert_eq!(held.paused.as_ref().map(|paused| &*paused.reason), Some("restored"));
    held.resume(Timestamp(60 * MINUTE)).expect("resumed");
    assert_eq!(settle(&mut held, 61 * MINUTE, false), [61], "what was missed is not caught up");
    let mut paused = schedule(Overlap::Skip, CatchUp::Last);
    paused.pause(Timestamp(1), "audit");
    assert_eq!(held_back(&paused.encode(), Timestamp(2), "restored"), None, "it keeps its reason");
    assert_eq!(held_back(b"no schedule", Timestamp(2), "restored"), None);
}
