//! Buckets over time, as one process and several take from them.

use super::*;

/// Ten in a second, four at once.
const RATE: Rate = Rate { amount: 10, per_ms: 1_000, burst: 4 };

fn part(bucket: &str, rate: Rate, need: u64) -> Part {
    Part { bucket: bucket.into(), rate, need }
}

fn ask(class: Priority, more: u64, parts: Vec<Part>) -> Ask {
    Ask { class, parts, more }
}

fn take(by: &str, asks: Vec<Ask>, words: Vec<Word>) -> Take {
    Take { by: by.into(), asks, words, tidy: false }
}

/// Buckets that began full.
struct Books(BTreeMap<Name, Bucket>);

impl Books {
    fn settle(&mut self, now: u64, take: &Take) -> Vec<(u64, u64)> {
        for (name, rate) in take.buckets() {
            self.0.entry(name).or_insert_with(|| Bucket::empty_since(Timestamp(0), rate, Timestamp(now)));
        }
        let taken = settle(take, &mut self.0, Timestamp(now));
        taken.granted.iter().map(|granted| (granted.calls, granted.wait_ms)).collect()
    }

    fn one(&mut self, now: u64, by: &str, more: u64) -> (u64, u64) {
        let asks = vec![ask(Priority::Normal, more, vec![part("a", RATE, 1)])];
        self.settle(now, &take(by, asks, Vec::new()))[0]
    }
}

fn books() -> Books {
    Books(BTreeMap::new())
}

fn waiting(permits: [u64; 3]) -> Waiting {
    Waiting { permits, calls: permits.iter().sum(), ..Waiting::default() }
}

fn word(back: i64, waiting: Waiting) -> Word {
    Word { bucket: "a".into(), rate: RATE, back, waiting }
}

#[test]
fn a_bucket_gives_its_burst_and_then_its_rate() {
    let mut books = books();
    assert_eq!(books.one(100_000, "p", 9), (4, 100), "the burst, and when the next one comes");
    assert_eq!(books.one(100_050, "p", 0), (0, 50));
    assert_eq!(books.one(100_100, "p", 0), (1, 0));
    assert_eq!(books.one(100_199, "p", 0), (0, 1));
    assert_eq!(books.one(190_000, "p", 99), (4, 100), "no more than the burst is saved up");
}

#[test]
fn what_is_handed_out_stays_within_burst_and_rate_whoever_asks_and_however() {
    let mut state = 7_u64;
    let mut up_to = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let (mut books, mut now, mut out) = (books(), 100_000, 0_u64);
    for _ in 0..5_000 {
        now += up_to(60);
        let by = ["p", "q", "r"][up_to(3) as usize];
        let back = i64::from(up_to(10) == 0 && out > 0);
        let class = Priority::ALL[up_to(3) as usize];
        let words = vec![word(back, waiting([up_to(3), up_to(3), up_to(3)]))];
        let asks = vec![ask(class, up_to(5), vec![part("a", RATE, 1)])];
        out -= u64::try_from(back).unwrap_or(0);
        out += books.settle(now, &take(by, asks, words))[0].0;
        let bound = RATE.burst * 1_000 + RATE.amount * (now - 100_000);
        assert!(out * 1_000 <= bound, "{out} until {now}");
    }
    assert!(out > 1_000, "{out}");
}

#[test]
fn a_call_takes_of_all_its_buckets_or_of_none() {
    let mut books = books();
    let slow = Rate { amount: 1, per_ms: 60_000, burst: 1 };
    let both = || take("p", vec![ask(Priority::Normal, 0, vec![part("a", RATE, 1), part("b", slow, 1)])], Vec::new());
    assert_eq!(books.settle(100_000, &both())[0].0, 1);
    assert_eq!(books.settle(100_000, &both())[0], (0, 60_000));
    assert_eq!(books.one(100_000, "p", 9).0, 3, "the call that did not go took nothing");
}

#[test]
fn higher_classes_come_first_and_equals_share() {
    let mut books = books();
    books.settle(100_000, &take("q", Vec::new(), vec![word(0, waiting([3, 0, 0]))]));
    let calls = |books: &mut Books, now: u64| -> u64 {
        let asks = vec![ask(Priority::Normal, 0, vec![part("a", RATE, 1)]); 4];
        books.settle(now, &take("p", asks, Vec::new())).iter().map(|(calls, _)| calls).sum()
    };
    assert_eq!(calls(&mut books, 100_000), 1, "three are kept for another process");
    books.settle(100_000, &take("q", Vec::new(), vec![word(1, waiting([0, 9, 0]))]));
    assert_eq!(calls(&mut books, 100_000), 2, "half of four");
    books.settle(100_000, &take("q", Vec::new(), vec![word(2, waiting([0, 0, 9]))]));
    assert_eq!(calls(&mut books, 100_000), 4, "a lower class keeps nothing back");
    books.settle(100_000, &take("q", Vec::new(), vec![word(4, waiting([4, 0, 0]))]));
    assert_eq!(calls(&mut books, 100_000 + HEARD_MS), 4, "whoever says nothing more waits no more");
}

#[test]
fn nothing_is_taken_ahead_of_what_somebody_waits_for() {
    for (waits, got) in [([0, 0, 0], 4), ([0, 0, 1], 3), ([0, 0, 9], 1)] {
        let mut books = books();
        books.settle(100_000, &take("q", Vec::new(), vec![word(0, waiting(waits))]));
        assert_eq!(books.one(100_000, "p", 9).0, got, "the call itself, and what is left by {waits:?}");
    }
    // Nor by another call of the same process.
    let mut books = books();
    let of = |bucket: &str, more| ask(Priority::Normal, more, vec![part(bucket, RATE, 1), part("a", RATE, 1)]);
    let got = books.settle(100_000, &take("p", vec![of("x", 9), of("y", 0), of("z", 0)], Vec::new()));
    assert_eq!(got.iter().map(|(calls, _)| *calls).collect::<Vec<_>>(), [2, 1, 1]);
}

#[test]
fn a_low_call_of_one_process_gets_its_turn_while_another_one_never_ends_to_ask() {
    let mut books = books();
    let asked = |by: &str, since: u64, class: Priority| {
        let Take { asks, mut words, .. } = waits(by, "a", since, 1, class);
        words[0].rate = RATE;
        let asks = asks.into_iter().map(|one| ask(one.class, 0, vec![part("a", RATE, 1)])).collect();
        take(by, asks, words)
    };
    let (mut served, mut turns) = (0, Vec::new());
    for now in (100_000..160_000).step_by(50) {
        // Something of the higher class always waits, and asks first.
        served += books.settle(now, &asked("p", now, Priority::High))[0].0;
        for (by, class) in [("q", Priority::Low), ("r", Priority::Normal)] {
            if books.settle(now, &asked(by, 1 + turns.len() as u64, class))[0].0 > 0 {
                turns.push((served, class));
            }
        }
    }
    assert!(served > 500, "{served}");
    let lower = turns.len() as u64;
    assert!((served / LOWER_EVERY - 3..=served / LOWER_EVERY + 4).contains(&lower), "{lower} beside {served}");
}

/// Little comes, much may be there.
const LARGE: Rate = Rate { amount: 10, per_ms: 1_000, burst: 100 };

/// A process that waits with one call since then, and asks for it.
fn waits(by: &str, bucket: &str, since: u64, need: u64, class: Priority) -> Take {
    let mut waiting = Waiting { calls: 1, since: Timestamp(since), ..Waiting::default() };
    waiting.permits[place(class)] = need;
    waiting.heads[place(class)] = Some(Head { since: Timestamp(since), need });
    let word = Word { bucket: bucket.into(), rate: LARGE, back: 0, waiting };
    take(by, vec![ask(class, 0, vec![part(bucket, LARGE, need)])], vec![word])
}

#[test]
fn of_two_processes_with_large_calls_the_one_that_came_first_goes() {
    let mut books = books();
    let empty = ask(Priority::Normal, 0, vec![part("a", LARGE, 100)]);
    assert_eq!(books.settle(100_000, &take("z", vec![empty], Vec::new()))[0].0, 1);
    assert_eq!(books.settle(100_000, &waits("p", "a", 2, 60, Priority::Normal))[0], (0, 6_000));
    assert_eq!(books.settle(100_000, &waits("q", "a", 1, 70, Priority::Normal))[0], (0, 7_000));
    assert_eq!(books.settle(100_000, &waits("p", "a", 2, 60, Priority::Normal))[0], (0, 13_000), "behind the other");
    // Both say so often enough to be heard, and a third one that came later gets nothing in between.
    for now in [103_000, 106_900] {
        assert_eq!(books.settle(now, &waits("p", "a", 2, 60, Priority::Normal))[0].0, 0);
        assert_eq!(books.settle(now, &waits("q", "a", 1, 70, Priority::Normal))[0].0, 0);
        let late = ask(Priority::Normal, 0, vec![part("a", LARGE, 1)]);
        assert_eq!(books.settle(now, &take("r", vec![late], Vec::new()))[0].0, 0);
    }
    assert_eq!(books.settle(107_000, &waits("p", "a", 2, 60, Priority::Normal))[0], (0, 6_000));
    assert_eq!(books.settle(107_000, &waits("q", "a", 1, 70, Priority::Normal))[0].0, 1);
    assert_eq!(books.settle(113_000, &waits("p", "a", 2, 60, Priority::Normal))[0].0, 1);
}

#[test]
fn a_large_call_does_not_starve_behind_small_ones_of_its_process() {
    let mut books = books();
    let of = |need, class| ask(class, 0, vec![part("a", LARGE, need)]);
    let asks = |needs: &[(u64, Priority)]| {
        take("p", needs.iter().map(|(need, class)| of(*need, *class)).collect(), Vec::new())
    };
    let (normal, low, high) = (Priority::Normal, Priority::Low, Priority::High);
    let got = books.settle(100_000, &asks(&[(60, normal), (60, normal), (1, normal), (1, low), (1, high)]));
    let calls: Vec<u64> = got.iter().map(|(calls, _)| *calls).collect();
    assert_eq!(calls, [1, 0, 0, 0, 1], "what the second waits for is kept for it");
    assert!(got[2].1 >= got[1].1 && got[3].1 >= got[1].1, "and who is behind comes after it: {got:?}");
    // What is short holds up whoever takes of it, and nobody else.
    let both = ask(normal, 0, vec![part("a", LARGE, 60), part("b", LARGE, 60)]);
    let b = ask(normal, 0, vec![part("b", LARGE, 60)]);
    let got = books.settle(100_000, &take("p", vec![both, of(1, normal), b], Vec::new()));
    assert_eq!([got[0].0, got[1].0, got[2].0], [0, 0, 1]);
}

#[test]
fn whoever_waits_at_an_empty_bucket_keeps_nothing_back_of_a_full_one() {
    let mut books = books();
    let empty = ask(Priority::Normal, 0, vec![part("a", LARGE, 100)]);
    books.settle(100_000, &take("z", vec![empty], Vec::new()));
    let parts = vec![part("a", LARGE, 9), part("b", LARGE, 9)];
    let words = ["a", "b"].map(|bucket| waits("p", bucket, 1, 9, Priority::High).words.remove(0));
    let asked = take("p", vec![ask(Priority::High, 0, parts)], words.to_vec());
    for (name, rate) in asked.buckets() {
        books.0.entry(name).or_insert_with(|| Bucket::empty_since(Timestamp(0), rate, Timestamp(100_000)));
    }
    let taken = settle(&asked, &mut books.0, Timestamp(100_000));
    assert_eq!(taken.granted, [Granted { calls: 0, wait_ms: 900, short: vec!["a".into()] }]);
    let calls = |books: &mut Books, bucket| {
        let asks = vec![ask(Priority::Low, 99, vec![part(bucket, LARGE, 1)])];
        books.settle(100_500, &take("q", asks, Vec::new()))[0].0
    };
    assert_eq!((calls(&mut books, "a"), calls(&mut books, "b")), (0, 100));
}

#[test]
fn what_is_given_back_is_there_again_and_what_was_used_beyond_is_missing() {
    let mut books = books();
    assert_eq!(books.one(100_000, "p", 3).0, 4);
    books.settle(100_000, &take("p", Vec::new(), vec![word(2, Waiting::default())]));
    assert_eq!(books.one(100_000, "p", 9).0, 2);
    books.settle(100_000, &take("p", Vec::new(), vec![word(-20, Waiting::default())]));
    assert_eq!(books.one(100_000, "p", 0), (0, 2_100));
    assert_eq!(books.one(102_100, "p", 0), (1, 0));
}

#[test]
fn a_call_that_needs_more_than_the_burst_takes_a_full_bucket() {
    let mut books = books();
    let big = |more| take("p", vec![ask(Priority::Normal, more, vec![part("a", RATE, 99)])], Vec::new());
    assert_eq!(books.settle(100_000, &big(0))[0], (1, 0));
    assert_eq!(books.settle(100_000, &big(0))[0], (0, 400));
}

#[test]
fn a_rate_that_is_changed_keeps_what_is_left() {
    let mut books = books();
    assert_eq!(books.one(100_000, "p", 1).0, 2);
    let other = Rate { amount: 1, per_ms: 7_000, burst: 100 };
    let asked = take("p", vec![ask(Priority::Normal, 9, vec![part("a", other, 1)])], Vec::new());
    assert_eq!(books.settle(100_000, &asked)[0], (2, 7_000));
}

#[test]
fn a_bucket_of_which_nothing_is_known_was_empty_then() {
    let now = Timestamp(100_000);
    let of = |since: u64| Bucket::empty_since(Timestamp(since), RATE, now).row("a".into(), now).left;
    assert_eq!([of(0), of(99_800), of(100_000), of(200_000)], [4, 2, 0, 0]);
}

#[test]
fn a_clock_that_goes_back_gives_nothing_twice() {
    let mut books = books();
    assert_eq!(books.one(100_000, "p", 9).0, 4);
    assert_eq!(books.one(99_000, "p", 0).0, 0);
    assert_eq!(books.one(100_000, "p", 0).0, 0, "that second came twice");
    assert_eq!(books.one(50_000, "p", 0).0, 0);
    assert_eq!(books.one(50_100, "p", 0).0, 1, "one that was set back far goes on from there");
}

#[test]
fn a_bucket_is_idle_once_it_is_full_and_nobody_waits() {
    let mut books = books();
    books.one(100_000, "p", 9);
    assert_eq!(books.0["a"].idle_at(), Timestamp(100_400));
    books.settle(100_000, &take("p", Vec::new(), vec![word(0, waiting([0, 1, 0]))]));
    assert_eq!(books.0["a"].idle_at(), Timestamp(100_000 + HEARD_MS));
    let bytes = books.0["a"].bytes().expect("written");
    assert_eq!(Bucket::read("a", &bytes).expect("read"), books.0["a"]);
    assert!(Bucket::read("a", b"{}").is_err());
}

#[test]
fn rates_that_cannot_be_reckoned_with_are_refused() {
    assert!(RATE.check().is_ok());
    for (rate, part) in [
        (Rate { amount: 0, ..RATE }, "amount"),
        (Rate { per_ms: 0, ..RATE }, "per"),
        (Rate { per_ms: Rate::PER_MS_MAX + 1, ..RATE }, "per"),
        (Rate { burst: Rate::AMOUNT_MAX + 1, ..RATE }, "burst"),
    ] {
        assert_eq!(rate.check().expect_err("wrong").0, part);
    }
}
