//! Cases: inputs for a run from those who do not hold it.

use std::sync::Arc;

use futures::future::join_all;
use windlass_core::run::Status;

use super::Harness;
use super::setup::{NOW, Process, child, commit, end, id, message, park, run};
use crate::store::{Committed, Delivered, Keep};

pub(super) async fn deliveries_keep_their_order_and_are_deduplicated(harness: Arc<dyn Harness>) {
    let (one, two) = (Process::open(&harness).await, Process::open(&harness).await);
    one.begin("a").await;
    for name in ["m3", "m1", "m2"] {
        assert_eq!(two.store.deliver(message("a", name)).await.expect("answered"), Delivered::Accepted);
        assert_eq!(one.store.deliver(message("a", name)).await.expect("answered"), Delivered::Duplicate);
    }
    let items = one.store.inbox(id("a")).await.expect("read");
    assert_eq!(items.iter().map(|item| &*item.id).collect::<Vec<_>>(), ["m3", "m1", "m2"]);
    assert!(items.windows(2).all(|pair| pair[0].number < pair[1].number), "places grow");
    assert_eq!(items[0].input, message("a", "m3").input);
    one.begin("b").await;
    assert_eq!(one.store.deliver(message("b", "m1")).await.expect("answered"), Delivered::Accepted, "ids are per run");
}

pub(super) async fn a_taken_input_stays_known(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let lease = one.begin("a").await;
    one.store.deliver(message("a", "m1")).await.expect("delivered");
    one.store.deliver(message("a", "m2")).await.expect("delivered");
    let items = one.store.inbox(id("a")).await.expect("read");
    let mut step = commit(&lease, &one.worker, 0);
    step.taken = vec![items[0].number];
    assert_eq!(one.apply(step).await, Committed::Applied { held: true, inbox: true, switched: false });
    assert_eq!(one.inbox_ids("a").await, ["m2".into()]);
    let mut step = commit(&lease, &one.worker, 1);
    step.taken = vec![items[1].number, items[0].number, 1 << 40];
    assert_eq!(
        one.apply(step).await,
        Committed::Applied { held: true, inbox: false, switched: false },
        "numbers not there are ignored"
    );
    assert!(one.inbox_ids("a").await.is_empty());
    for name in ["m1", "m2"] {
        assert_eq!(one.store.deliver(message("a", name)).await.expect("answered"), Delivered::Duplicate);
    }
    assert_eq!(one.store.deliver(message("a", "m3")).await.expect("answered"), Delivered::Accepted);
    let number = one.store.inbox(id("a")).await.expect("read")[0].number;
    assert!(number > items[1].number, "places grow");
}

pub(super) async fn a_loaded_run_says_whether_something_lies_in_its_inbox(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let lease = one.begin("a").await;
    let load = async || one.store.load(id("a")).await.expect("read").expect("it is there").inbox;
    assert!(!load().await, "nothing yet");
    one.store.deliver(message("a", "m1")).await.expect("delivered");
    one.store.deliver(message("a", "m2")).await.expect("delivered");
    assert!(load().await, "two");
    for (expected, left) in [(0, true), (1, false)] {
        let mut step = commit(&lease, &one.worker, expected);
        step.taken = vec![one.store.inbox(id("a")).await.expect("read")[0].number];
        one.apply(step).await;
        assert_eq!(load().await, left, "after {} of two were taken", expected + 1);
    }
}

pub(super) async fn deliveries_to_unknown_and_finished_runs_are_refused(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    assert_eq!(one.store.deliver(message("a", "m")).await.expect("answered"), Delivered::NotFound);
    let lease = one.begin("a").await;
    one.store.deliver(message("a", "m")).await.expect("delivered");
    assert_eq!(
        one.apply(end(&lease, &one.worker, 0)).await,
        Committed::Applied { held: false, inbox: false, switched: false }
    );
    for name in ["m", "n"] {
        assert_eq!(one.store.deliver(message("a", name)).await.expect("answered"), Delivered::Finished);
    }
    assert!(one.inbox_ids("a").await.is_empty(), "what a finished run did not take is gone");
    assert!(one.claim_all(NOW.0).await.is_empty());
}

pub(super) async fn the_inbox_is_checked_when_parking(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let lease = one.begin("a").await;
    one.store.deliver(message("a", "m")).await.expect("delivered");
    assert_eq!(
        one.apply(park(&lease, &one.worker, 0, Some(1))).await,
        Committed::Applied { held: true, inbox: true, switched: false },
        "the decision counts and the lease is kept"
    );
    assert!(one.claim_all(NOW.0).await.is_empty());
    assert_eq!(one.store.next_due(None).await.expect("read"), None);
    let mut step = park(&lease, &one.worker, 1, None);
    step.taken = vec![one.store.inbox(id("a")).await.expect("read")[0].number];
    assert_eq!(
        one.apply(step).await,
        Committed::Applied { held: false, inbox: false, switched: false },
        "what is taken is no reason"
    );
    let head = one.store.load(id("a")).await.expect("read").expect("it exists").head;
    assert_eq!((head.status, head.version), (Status::Waiting, 2));
}

pub(super) async fn a_delivery_wakes_a_parked_run(harness: Arc<dyn Harness>) {
    let (one, two) = (Process::open(&harness).await, Process::open(&harness).await);
    let lease = one.begin("a").await;
    one.apply(park(&lease, &one.worker, 0, None)).await;
    two.store.deliver(message("a", "m")).await.expect("delivered");
    two.store.deliver(message("a", "n")).await.expect("delivered");
    let head = one.store.load(id("a")).await.expect("read").expect("it exists").head;
    assert_eq!(head.status, Status::Queued, "a run in the queue reads so");
    let lease = one.claim_one(NOW.0).await;
    assert_eq!((lease.epoch, lease.taken_from.as_ref()), (2, None));
    assert_eq!(one.inbox_ids("a").await.len(), 2);
    let head = one.store.load(id("a")).await.expect("read").expect("it exists").head;
    assert_eq!(head.status, Status::Waiting, "the last decided word, once held");
}

pub(super) async fn a_delivery_to_a_held_run_waits_for_its_holder(harness: Arc<dyn Harness>) {
    let (one, two) = (Process::open(&harness).await, Process::open(&harness).await);
    let lease = one.begin("a").await;
    two.store.deliver(message("a", "m")).await.expect("delivered");
    assert!(two.claim_all(NOW.0).await.is_empty(), "a held run is not put in the queue");
    let told = one.apply(commit(&lease, &one.worker, 0)).await;
    assert_eq!(told, Committed::Applied { held: true, inbox: true, switched: false }, "its holder is told");
    let mut back = commit(&lease, &one.worker, 1);
    back.keep = Keep::HandBack;
    assert_eq!(one.apply(back).await, Committed::Applied { held: false, inbox: true, switched: false });
    assert_eq!(two.claim_names(NOW.0).await, ["a"]);
}

pub(super) async fn messages_travel_with_the_commit(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let (a, b, c) = (one.begin("a").await, one.begin("b").await, one.begin("c").await);
    one.apply(park(&b, &one.worker, 0, Some(9_000))).await;
    let mut step = commit(&a, &one.worker, 0);
    step.messages = vec![message("b", "m1"), message("c", "m1"), message("b", "m2"), message("b", "m1")];
    one.apply(step).await;
    assert_eq!(one.inbox_ids("b").await, ["m1".into(), "m2".into()], "in order, and once");
    assert_eq!(one.claim_names(NOW.0).await, ["b"], "a parked run wakes");
    assert_eq!(
        one.apply(park(&c, &one.worker, 0, None)).await,
        Committed::Applied { held: true, inbox: true, switched: false }
    );
}

pub(super) async fn messages_to_finished_and_unknown_runs_are_dropped(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let (a, b) = (one.begin("a").await, one.begin("b").await);
    one.apply(end(&b, &one.worker, 0)).await;
    let mut step = commit(&a, &one.worker, 0);
    step.messages = vec![message("b", "m"), message("nobody", "m")];
    assert_eq!(one.apply(step).await, Committed::Applied { held: true, inbox: false, switched: false });
    assert!(one.inbox_ids("b").await.is_empty());
    assert!(one.claim_all(NOW.0).await.is_empty());
    assert!(one.store.fsck().await.expect("checked").is_empty());
}

pub(super) async fn messages_to_itself_and_to_new_children_arrive(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let lease = one.begin("a").await;
    let mut step = park(&lease, &one.worker, 0, None);
    step.children = vec![child("a~1.0", "a", "a")];
    step.messages = vec![message("a~1.0", "m"), message("a", "m")];
    assert_eq!(one.apply(step).await, Committed::Applied { held: true, inbox: true, switched: false });
    assert_eq!(one.inbox_ids("a").await.len(), 1);
    assert_eq!(one.inbox_ids("a~1.0").await.len(), 1);
    let mut last = end(&lease, &one.worker, 1);
    last.messages = vec![message("a", "late")];
    assert_eq!(one.apply(last).await, Committed::Applied { held: false, inbox: false, switched: false });
    assert_eq!(one.claim_names(NOW.0).await, ["a~1.0"]);
}

pub(super) async fn a_thousand_endings_join(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let lease = one.begin("a").await;
    let mut step = park(&lease, &one.worker, 0, None);
    step.children = (0..1_000).map(|n| child(&format!("a~1.{n:03}"), "a", "a")).collect();
    one.apply(step).await;
    one.store.create(run("z")).await.expect("created");
    let leases = one.claim_all(NOW.0).await;
    assert_eq!(leases.len(), 1_001);
    let endings = leases.iter().take(1_000).map(|lease| {
        let mut last = end(lease, &one.worker, 0);
        last.messages = vec![message("a", lease.run.as_str())];
        one.store.commit(last)
    });
    for answer in join_all(endings).await {
        assert_eq!(answer.expect("answered"), Committed::Applied { held: false, inbox: false, switched: false });
    }
    let lease = one.claim_one(NOW.0).await;
    let items = one.store.inbox(id("a")).await.expect("read");
    assert_eq!(items.len(), 1_000, "every ending arrived");
    let mut step = end(&lease, &one.worker, 1);
    step.taken = items.iter().map(|item| item.number).collect();
    assert_eq!(one.apply(step).await, Committed::Applied { held: false, inbox: false, switched: false });
    assert!(one.store.fsck().await.expect("checked").is_empty());
}
