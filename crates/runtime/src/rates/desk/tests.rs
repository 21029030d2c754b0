//! A desk before a store in memory.

use windlass_ports::store::rates::{Bucket, Granted, settle};

use super::*;

const RATE: Rate = Rate { amount: 10, per_ms: 1_000, burst: 4 };

fn wanted(bucket: &str, rate: Rate, need: u64, is_tokens: bool) -> Wanted {
    Wanted { parts: vec![Part { bucket: bucket.into(), rate, need }], tokens: vec![is_tokens], wait_ms: None }
}

fn call(bucket: &str, tenant: &str, class: Priority) -> Call {
    let wanted = wanted(bucket, RATE, 1, false);
    let (tenant, run, since) = (tenant.into(), RunId::stored(tenant), Timestamp(1));
    Call { wanted, class, tenant, run, since, patience_ms: 60_000 }
}

/// A desk before a store, which counts how often it is asked.
#[derive(Default)]
struct Hall {
    desk: Desk,
    buckets: BTreeMap<Name, Bucket>,
    trips: u64,
}

impl Hall {
    /// One trip; the numbers of those that may go.
    fn trip(&mut self, now: u64) -> Vec<(u64, Verdict)> {
        let trip = self.desk.begin(now, "p".into());
        let at = Timestamp(1_000_000_000_000 + now);
        for (name, rate) in trip.take.buckets() {
            self.buckets.entry(name).or_insert_with(|| Bucket::empty_since(Timestamp(0), rate, at));
        }
        self.trips += 1;
        let taken = settle(&trip.take, &mut self.buckets, at);
        self.desk.answered(now, &trip, &taken)
    }

    fn enter(&mut self, now: u64, call: Call) -> u64 {
        match self.desk.enter(now, call) {
            Entered::Waits(number) => number,
            Entered::Now(verdict) => panic!("it does not wait: {verdict:?}"),
        }
    }

    fn left(&self, bucket: &str) -> i64 {
        self.buckets[bucket].clone().row(bucket.into(), Timestamp(1_000_000_000_000)).left
    }
}

fn going(verdicts: &[(u64, Verdict)]) -> Vec<u64> {
    verdicts.iter().filter(|(_, verdict)| *verdict == Verdict::Go).map(|(number, _)| *number).collect()
}

#[test]
fn calls_wait_for_permits_and_go_as_they_come() {
    let mut hall = Hall::default();
    let numbers: Vec<u64> = (0..6).map(|_| hall.enter(0, call("a", "t", Priority::Normal))).collect();
    assert_eq!(hall.desk.due(0), Some(0));
    assert_eq!(going(&hall.trip(0)), numbers[..4]);
    assert_eq!((hall.desk.waiting(), hall.desk.due(0)), (2, Some(100)), "nobody asks before one can be there");
    assert_eq!(going(&hall.trip(100)), [numbers[4]]);
    assert_eq!(going(&hall.trip(hall.desk.due(100).expect("due"))), [numbers[5]]);
    assert_eq!(hall.desk.due(999), None);
}

#[test]
fn a_busy_lane_takes_ahead_and_asks_seldom() {
    let fast = Rate { amount: 1_000, per_ms: 1_000, burst: 1_000 };
    let mut hall = Hall::default();
    for now in 0..5_000 {
        let call = Call { wanted: wanted("a", fast, 1, false), ..call("a", "t", Priority::Normal) };
        if let Entered::Waits(number) = hall.desk.enter(now, call) {
            assert_eq!(going(&hall.trip(now)), [number]);
        }
    }
    assert!(hall.trips < 60, "{} trips for 5000 calls", hall.trips);
}

#[test]
fn a_slow_rate_takes_nothing_ahead() {
    let slow = Rate { amount: 10, per_ms: 60_000, burst: 10 };
    let mut hall = Hall::default();
    for now in 0..3 {
        let call = Call { wanted: wanted("a", slow, 1, false), ..call("a", "t", Priority::Normal) };
        hall.enter(now, call);
        assert_eq!(hall.trip(now).len(), 1);
    }
    assert_eq!(hall.left("a"), 7, "three were used and three were taken");
}

#[test]
fn higher_classes_go_first_and_tenants_take_turns() {
    let mut hall = Hall::default();
    let many: Vec<u64> = (0..4).map(|_| hall.enter(0, call("a", "many", Priority::Normal))).collect();
    let low = hall.enter(0, call("a", "quiet", Priority::Low));
    let few = hall.enter(0, call("a", "few", Priority::Normal));
    let high = hall.enter(0, call("a", "many", Priority::High));
    assert_eq!(going(&hall.trip(0)), [high, many[0], few, many[1]]);
    let next = hall.enter(1, call("a", "few", Priority::Normal));
    assert_eq!(going(&hall.trip(100)), [next], "whoever was served last waits for the others");
    hall.trip(200);
    hall.trip(300);
    assert_eq!(going(&hall.trip(400)), [low]);
}

#[test]
fn a_call_that_would_wait_too_long_is_turned_away_at_once() {
    let mut hall = Hall::default();
    for _ in 0..4 {
        hall.enter(0, call("a", "t", Priority::Normal));
    }
    let patient = hall.enter(0, call("a", "t", Priority::Normal));
    let hasty = hall.enter(0, Call { patience_ms: 150, ..call("a", "t", Priority::Normal) });
    let verdicts = hall.trip(0);
    let shed = Shed { buckets: vec!["a".into()], after_ms: 200 };
    assert_eq!(verdicts.last(), Some(&(hasty, Verdict::Shed(shed))), "its turn comes after 200 ms");
    let now = Call { patience_ms: 0, ..call("a", "t", Priority::Normal) };
    assert!(matches!(hall.desk.enter(10, now), Entered::Now(Verdict::Shed(shed)) if shed.after_ms == 90));
    assert_eq!(hall.desk.give_up(20, patient).map(|shed| shed.after_ms), Some(80));
    assert_eq!((hall.desk.waiting(), hall.desk.has_news()), (0, true), "the store is told that nobody waits");
    hall.trip(30);
    assert!(!hall.desk.has_news());
}

#[test]
fn what_was_not_used_goes_back_once() {
    let mut hall = Hall::default();
    let tokens = wanted("a", Rate { amount: 1, per_ms: 86_400_000, burst: 1_000 }, 300, true);
    hall.enter(0, Call { wanted: tokens.clone(), ..call("a", "t", Priority::Normal) });
    hall.trip(0);
    hall.desk.ended(&tokens, true, Some(Said::Exactly(100)));
    hall.trip(1);
    assert_eq!((hall.left("a"), hall.desk.has_news()), (900, false));
    hall.desk.ended(&tokens, true, Some(Said::Exactly(450)));
    let trip = hall.desk.begin(2, "p".into());
    hall.desk.failed(2, &trip);
    hall.trip(3);
    assert_eq!(hall.left("a"), 750, "what was used beyond is said until it is heard");
    hall.desk.ended(&tokens, false, None);
    let trip = hall.desk.begin(4, "p".into());
    hall.desk.failed(4, &trip);
    assert!(!hall.desk.has_news(), "what was given back may have been heard");
}

#[test]
fn tokens_are_settled_by_what_is_known_of_them() {
    let tokens = wanted("a", Rate { amount: 1, per_ms: 86_400_000, burst: 1_000 }, 300, true);
    for (left, used, back) in [
        (true, None, None),
        (true, Some(Said::Exactly(0)), Some(300)),
        (true, Some(Said::Exactly(700)), Some(-400)),
        (true, Some(Said::AtLeast(200)), None),
        (true, Some(Said::AtLeast(700)), Some(-400)),
        (false, None, Some(300)),
    ] {
        let mut desk = Desk::default();
        desk.ended(&tokens, left, used);
        assert_eq!(desk.back.get("a").map(|(_, back)| *back), back, "{used:?}");
    }
}

#[test]
fn a_trip_that_fails_is_made_again_after_a_pause() {
    let mut hall = Hall::default();
    let number = hall.enter(0, call("a", "t", Priority::Normal));
    let trip = hall.desk.begin(0, "p".into());
    hall.desk.failed(0, &trip);
    assert_eq!(hall.desk.due(1), Some(FAILED_MS));
    assert_eq!(going(&hall.trip(FAILED_MS)), [number]);
}

#[test]
fn permits_of_a_call_that_waits_no_longer_serve_another() {
    let mut hall = Hall::default();
    let number = hall.enter(0, call("a", "t", Priority::Normal));
    let trip = hall.desk.begin(0, "p".into());
    hall.desk.leave(number);
    let taken = Taken { granted: vec![Granted { calls: 1, ..Granted::default() }] };
    assert!(hall.desk.answered(0, &trip, &taken).is_empty());
    assert_eq!(hall.desk.enter(1, call("a", "t", Priority::Normal)), Entered::Now(Verdict::Go));
    let late = call("a", "t", Priority::Normal);
    assert!(matches!(hall.desk.enter(BLOCK_MS + 1, late), Entered::Waits(_)));
}

/// A call that takes so many tokens of a rate that gives a hundred in a second, and a hundred at once.
fn large(need: u64, patience_ms: u64) -> Call {
    let rate = Rate { amount: 100, per_ms: 1_000, burst: 100 };
    Call { wanted: wanted("a", rate, need, true), patience_ms, ..call("a", "t", Priority::Normal) }
}

#[test]
fn a_call_is_turned_away_for_what_is_known_of_calls_like_it_alone() {
    let mut hall = Hall::default();
    let (first, second) = (hall.enter(0, large(80, 60_000)), hall.enter(0, large(90, 60_000)));
    assert_eq!(going(&hall.trip(0)), [first]);
    let shed = |entered: &Entered| matches!(entered, Entered::Now(Verdict::Shed(_)));
    assert!(shed(&hall.desk.enter(1, large(90, 100))), "it takes as much");
    assert!(!shed(&hall.desk.enter(1, large(5, 100))), "it takes less");
    assert!(!shed(&hall.desk.enter(1, Call { class: Priority::High, ..large(90, 100) })), "it goes before");
    assert!(shed(&hall.desk.enter(1, Call { class: Priority::Low, ..large(90, 100) })));
    assert_eq!(hall.desk.give_up(2, second).map(|shed| shed.after_ms), Some(698));
}

#[test]
fn small_calls_take_nothing_from_a_large_one_that_is_not_asked_for() {
    let mut hall = Hall::default();
    let rate = Rate { amount: 100, per_ms: 1_000, burst: 100 };
    let (first, second) = (hall.enter(0, large(80, 60_000)), hall.enter(0, large(90, 60_000)));
    assert_eq!(going(&hall.trip(0)), [first]);
    // Of a lane of their own.
    let small = |hall: &mut Hall, now| {
        let mut wanted = wanted("a", rate, 5, true);
        wanted.parts.push(Part { bucket: "b".into(), rate: RATE, need: 1 });
        wanted.tokens.push(false);
        hall.enter(now, Call { wanted, ..call("a", "t", Priority::Normal) })
    };
    let mut small_ones = Vec::new();
    for now in [100, 300, 500, 690] {
        small_ones.push(small(&mut hall, now));
        assert!(going(&hall.trip(now)).is_empty(), "at {now}");
    }
    assert_eq!(going(&hall.trip(700)), [second]);
    assert_eq!(going(&hall.trip(900)), small_ones);
}

#[test]
fn a_process_says_that_it_waits_for_what_was_short() {
    let mut hall = Hall::default();
    let full = Rate { amount: 1, per_ms: 1_000, burst: 9 };
    let both = || {
        let mut both = call("a", "t", Priority::Normal);
        both.wanted.parts.push(Part { bucket: "b".into(), rate: full, need: 1 });
        both.wanted.tokens.push(false);
        both
    };
    let numbers: Vec<u64> = (0..6).map(|_| hall.enter(0, both())).collect();
    assert_eq!(going(&hall.trip(0)), numbers[..4]);
    assert_eq!(hall.buckets["b"].clone().row("b".into(), Timestamp(1_000_000_000_000)).waiting, BTreeMap::new());
    let said = |take: &Take, bucket: &str| {
        take.words.iter().find(|word| &*word.bucket == bucket).map(|word| word.waiting.permits)
    };
    let take = hall.desk.begin(1, "p".into()).take;
    assert_eq!((said(&take, "a"), said(&take, "b")), (Some([0, 2, 0]), Some([0, 0, 0])));
}

#[test]
fn lanes_that_wait_for_different_buckets_share_their_trips() {
    let mut hall = Hall::default();
    let slow = |per_ms| Rate { amount: 1, per_ms, burst: 1 };
    for n in 0..10_u64 {
        let (bucket, rate) = (format!("b{n}"), slow(1_000 + n));
        for _ in 0..2 {
            hall.enter(0, Call { wanted: wanted(&bucket, rate, 1, false), ..call("a", "t", Priority::Normal) });
        }
    }
    assert_eq!(going(&hall.trip(0)).len(), 10);
    let (mut now, trips) = (0, hall.trips);
    while let Some(due) = hall.desk.due(now) {
        now = due;
        hall.trip(now);
    }
    assert!(hall.trips - trips <= 2, "{} trips for ten lanes", hall.trips - trips);
}

#[test]
fn what_was_taken_ahead_goes_back_at_the_end() {
    let fast = Rate { amount: 1_000, per_ms: 1_000, burst: 1_000 };
    let mut hall = Hall::default();
    for _ in 0..40 {
        let call = Call { wanted: wanted("a", fast, 1, false), ..call("a", "t", Priority::Normal) };
        if let Entered::Waits(number) = hall.desk.enter(0, call) {
            assert_eq!(going(&hall.trip(0)), [number]);
        }
    }
    assert!(hall.left("a") < 1_000 - 40, "some were taken ahead");
    hall.desk.close(0);
    assert!(hall.desk.has_news());
    hall.trip(0);
    assert_eq!(hall.left("a"), 1_000 - 40);
    hall.desk.close(0);
    assert!(!hall.desk.has_news(), "once");
}
