//! Buckets of rates: what all processes together are handed out has a bound.

use std::sync::Arc;

use windlass_core::ids::{Name, RunId};
use windlass_core::time::Timestamp;

use super::Harness;
use super::setup::Process;
use crate::store::rates::{Ask, BucketRow, Head, Part, Rate, Take, Taken, Waiting, Word};
use crate::store::{Priority, Store};

/// So little in a day that nothing comes back while a case runs.
const SLOW: Rate = Rate { amount: 1, per_ms: Rate::PER_MS_MAX, burst: 20 };

fn ask(bucket: &str, need: u64, more: u64) -> Ask {
    let parts = vec![Part { bucket: bucket.into(), rate: SLOW, need }];
    Ask { class: Priority::Normal, parts, more }
}

fn word(bucket: &str, back: i64, calls: u64) -> Word {
    let waiting = Waiting { permits: [0, calls, 0], calls, runs: vec![RunId::stored("r")], ..Waiting::default() };
    Word { bucket: bucket.into(), rate: SLOW, back, waiting }
}

/// Makes a trip, and gives back how many calls each ask got.
async fn take(store: &dyn Store, asks: Vec<Ask>, words: Vec<Word>) -> Vec<u64> {
    let take = Take { by: "p".into(), asks, words, tidy: false };
    let taken = store.rates().take(take).await.expect("answered");
    taken.granted.iter().map(|granted| granted.calls).collect()
}

async fn rows(store: &dyn Store) -> Vec<BucketRow> {
    store.rates().buckets(None, 99).await.expect("read")
}

pub(super) async fn permits_are_handed_out_once(harness: Arc<dyn Harness>) {
    let (one, two) = (Process::open(&harness).await, Process::open(&harness).await);
    assert_eq!(take(&*one.store, vec![ask("a", 3, 0), ask("a", 1, 4)], Vec::new()).await, [1, 5]);
    assert_eq!(take(&*two.store, vec![ask("a", 1, 99)], Vec::new()).await, [12], "what the other left");
    assert_eq!(take(&*one.store, vec![ask("a", 1, 0), ask("b", 1, 0)], Vec::new()).await, [0, 1]);
    assert_eq!(take(&*two.store, vec![ask("a", 1, 0)], vec![word("a", 2, 0)]).await, [1], "one gave two back");
    let left: Vec<(Name, i64)> = rows(&*one.store).await.into_iter().map(|row| (row.bucket, row.left)).collect();
    assert_eq!(left, [("a".into(), 1), ("b".into(), 19)]);
    let after = two.store.rates().buckets(Some("a".into()), 1).await.expect("read");
    assert_eq!(after.len(), 1, "pages go on after a name");
    assert_eq!(&*after[0].bucket, "b");
}

pub(super) async fn permits_at_once_never_exceed_a_burst(harness: Arc<dyn Harness>) {
    let mut processes = Vec::new();
    for _ in 0..4 {
        processes.push(Process::open(&harness).await);
    }
    let trips = (0..40).map(|number| {
        let store = Arc::clone(&processes[number % 4].store);
        // In two orders, so that whoever locks them in the order of asking is found out.
        let names = if number % 2 == 0 { ["a", "b"] } else { ["b", "a"] };
        async move { take(&*store, names.map(|name| ask(name, 1, 0)).to_vec(), Vec::new()).await.iter().sum::<u64>() }
    });
    let got: u64 = futures::future::join_all(trips).await.into_iter().sum();
    assert_eq!(got, 40, "of each bucket what it had");
}

pub(super) async fn who_waits_is_told(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    take(&*one.store, Vec::new(), vec![word("a", 0, 3)]).await;
    let row = rows(&*one.store).await.remove(0);
    let waiting = &row.waiting["p"];
    assert_eq!((waiting.calls, waiting.permits, waiting.runs.len()), (3, [0, 3, 0], 1));
    assert!(waiting.heard.0 > 0, "by the store's time");
    take(&*one.store, vec![ask("a", 1, 0)], vec![word("a", 0, 1)]).await;
    assert!(!rows(&*one.store).await[0].waiting.values().any(|waiting| waiting.calls > 0), "it was served");
}

/// A process that waits with a call of so many tokens asks for them.
async fn wait_for(process: &Process, by: &str, since: u64, need: u64, back: i64) -> Taken {
    let head = Some(Head { since: Timestamp(since), need });
    let waiting = Waiting { permits: [0, need, 0], calls: 1, heads: [None, head, None], ..Waiting::default() };
    let words = vec![Word { waiting, ..word("tokens", back, 0) }];
    let take = Take { by: by.into(), asks: vec![ask("tokens", need, 0)], words, tidy: false };
    process.store.rates().take(take).await.expect("answered")
}

pub(super) async fn of_large_calls_the_one_that_came_first_goes(harness: Arc<dyn Harness>) {
    let (one, two) = (Process::open(&harness).await, Process::open(&harness).await);
    assert_eq!(take(&*one.store, vec![ask("tokens", 15, 0)], Vec::new()).await, [1]);
    // Each needs more than half of what a full bucket has.
    let (first, second) = (wait_for(&one, "one", 1, 12, 0).await, wait_for(&two, "two", 2, 11, 0).await);
    for taken in [&first, &second] {
        assert_eq!(taken.granted[0].calls, 0);
        assert_eq!(taken.granted[0].short, ["tokens".into()], "which one had too little is told");
    }
    assert_eq!(wait_for(&two, "two", 2, 11, 15).await.granted[0].calls, 0, "what is there is kept for the other one");
    assert_eq!(wait_for(&one, "one", 1, 12, 0).await.granted[0].calls, 1);
    assert_eq!(wait_for(&two, "two", 2, 11, 12).await.granted[0].calls, 1, "its turn comes");
    assert_eq!(rows(&*one.store).await[0].left, 9);
    // What was used beyond what was taken is taken afterwards.
    take(&*two.store, Vec::new(), vec![word("tokens", -10, 0)]).await;
    assert_eq!(rows(&*one.store).await[0].left, -1);
}

pub(super) async fn after_a_fence_buckets_are_empty(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    assert_eq!(take(&*one.store, vec![ask("a", 1, 4)], Vec::new()).await, [5]);
    one.store.fence("restored".into()).await.expect("fenced");
    assert_eq!(take(&*one.store, vec![ask("a", 1, 0), ask("b", 1, 0)], Vec::new()).await, [0, 0]);
}

pub(super) async fn buckets_that_are_full_and_unused_are_forgotten(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    take(&*one.store, vec![ask("used", 1, 0)], Vec::new()).await;
    take(&*one.store, vec![ask("full", 20, 0)], vec![word("full", 0, 0)]).await;
    take(&*one.store, Vec::new(), vec![word("full", 20, 0)]).await;
    // It is idle from the next millisecond on.
    while rows(&*one.store).await.len() > 1 {
        let tidy = Take { by: "p".into(), asks: Vec::new(), words: Vec::new(), tidy: true };
        one.store.rates().take(tidy).await.expect("answered");
    }
    assert_eq!(&*rows(&*one.store).await[0].bucket, "used");
}
