//! Cases: signals find who waits for them, and wait for who does not yet.

use std::sync::Arc;

use futures::future::join;
use windlass_core::effect::WaitKind;
use windlass_core::ids::EffectId;
use windlass_core::input::Input;
use windlass_core::time::Timestamp;
use windlass_core::value::Value;

use super::Harness;
use super::setup::{NOW, Process, child, commit, end, id, park, run, signal, wait};
use crate::store::{Committed, Signal, Signalled, WaitRow};

/// What the signals in a run's inbox say: wait and signal, in order.
async fn signalled(one: &Process, name: &str) -> Vec<(u64, String)> {
    let items = one.store.inbox(id(name)).await.expect("read");
    items
        .into_iter()
        .map(|item| match item.input {
            Input::Signalled { wait, signal, data } => {
                assert_eq!(data, Value::str(signal.clone()), "the data is that of the signal");
                (wait.0, signal.to_string())
            }
            other => panic!("not a signal: {other:?}"),
        })
        .collect()
}

/// Creates a run and parks it with these waits.
async fn parked(one: &Process, name: &str, waits: Vec<WaitRow>) {
    let lease = one.begin(name).await;
    let mut step = park(&lease, &one.worker, 0, None);
    step.waits_opened = waits;
    assert_eq!(one.apply(step).await, Committed::Applied { held: false, inbox: false, switched: false });
}

pub(super) async fn a_signal_reaches_every_open_wait(harness: Arc<dyn Harness>) {
    let (one, two) = (Process::open(&harness).await, Process::open(&harness).await);
    parked(&one, "a", vec![wait(1, "go"), wait(2, "stay"), wait(3, "go")]).await;
    parked(&one, "b", vec![wait(1, "go")]).await;
    parked(&one, "c", vec![wait(1, "stay")]).await;
    match two.store.signal(signal("s", "go")).await.expect("answered") {
        Signalled::Delivered(mut runs) => {
            runs.sort();
            assert_eq!(runs, [id("a"), id("b")]);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(signalled(&one, "a").await, [(1, "s".to_owned()), (3, "s".to_owned())]);
    assert_eq!(signalled(&one, "b").await, [(1, "s".to_owned())]);
    assert!(signalled(&one, "c").await.is_empty());
    assert_eq!(one.claim_names(NOW.0).await, ["a", "b"], "they wake");
}

pub(super) async fn a_signal_is_buffered_until_awaited_in_order(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    for name in ["s3", "s1", "s2"] {
        assert_eq!(one.store.signal(signal(name, "go")).await.expect("answered"), Signalled::Buffered);
    }
    let lease = one.begin("a").await;
    let mut step = park(&lease, &one.worker, 0, Some(9_000));
    step.waits_opened = vec![wait(1, "go"), wait(2, "other")];
    assert_eq!(
        one.apply(step).await,
        Committed::Applied { held: true, inbox: true, switched: false },
        "it does not even park"
    );
    assert_eq!(signalled(&one, "a").await, [(1, "s3".to_owned())], "one wait takes one signal, the oldest");
    let other = one.begin("b").await;
    let mut step = commit(&other, &one.worker, 0);
    step.waits_opened = vec![wait(7, "go"), wait(8, "go"), wait(9, "go")];
    assert_eq!(one.apply(step).await, Committed::Applied { held: true, inbox: true, switched: false });
    assert_eq!(signalled(&one, "b").await, [(7, "s1".to_owned()), (8, "s2".to_owned())]);
    let told = one.store.signal(signal("s4", "go")).await.expect("answered");
    assert_eq!(told, Signalled::Delivered(vec![id("b")]), "the wait that got none is still open");
    assert_eq!(signalled(&one, "b").await.last(), Some(&(9, "s4".to_owned())));
}

pub(super) async fn an_answered_wait_takes_no_second_signal(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    parked(&one, "a", vec![wait(1, "go")]).await;
    assert_eq!(one.store.signal(signal("s1", "go")).await.expect("answered"), Signalled::Delivered(vec![id("a")]));
    assert_eq!(one.store.signal(signal("s2", "go")).await.expect("answered"), Signalled::Buffered);
    assert_eq!(signalled(&one, "a").await, [(1, "s1".to_owned())]);
    let lease = one.claim_one(NOW.0).await;
    let mut step = commit(&lease, &one.worker, 1);
    step.taken = vec![one.store.inbox(id("a")).await.expect("read")[0].number];
    step.waits_closed = vec![EffectId(1)];
    step.waits_opened = vec![wait(2, "go")];
    one.apply(step).await;
    assert_eq!(signalled(&one, "a").await, [(2, "s2".to_owned())], "the next wait takes it");
}

pub(super) async fn a_signal_is_sent_once(harness: Arc<dyn Harness>) {
    let (one, two) = (Process::open(&harness).await, Process::open(&harness).await);
    parked(&one, "a", vec![wait(1, "go")]).await;
    one.store.signal(signal("s", "go")).await.expect("sent");
    assert_eq!(two.store.signal(signal("s", "go")).await.expect("answered"), Signalled::Duplicate);
    assert_eq!(two.store.signal(signal("s", "other")).await.expect("answered"), Signalled::Duplicate);
    assert_eq!(signalled(&one, "a").await.len(), 1);
    one.store.signal(signal("t", "later")).await.expect("sent");
    assert_eq!(two.store.signal(signal("t", "later")).await.expect("answered"), Signalled::Duplicate);
    let lease = one.claim_one(NOW.0).await;
    let mut step = commit(&lease, &one.worker, 1);
    step.taken = one.store.inbox(id("a")).await.expect("read").iter().map(|item| item.number).collect();
    step.waits_closed = vec![EffectId(1)];
    step.waits_opened = vec![wait(2, "later")];
    one.apply(step).await;
    one.apply(end(&lease, &one.worker, 2)).await;
    for (name, channel) in [("s", "go"), ("t", "later")] {
        let again = two.store.signal(signal(name, channel)).await.expect("answered");
        assert_eq!(again, Signalled::Duplicate, "also after it was used");
    }
}

pub(super) async fn a_signal_for_one_run_reaches_only_that(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    parked(&one, "a", vec![wait(1, "go")]).await;
    parked(&one, "b", vec![wait(1, "go")]).await;
    let to = |name: &str, text: &str| Signal { run: Some(id(name)), ..signal(text, "go") };
    assert_eq!(one.store.signal(to("b", "s1")).await.expect("answered"), Signalled::Delivered(vec![id("b")]));
    assert!(signalled(&one, "a").await.is_empty());
    one.store.create(run("c")).await.expect("created");
    assert_eq!(one.store.signal(to("c", "s2")).await.expect("answered"), Signalled::Buffered);
    one.store.signal(signal("s3", "go")).await.expect("sent");
    assert_eq!(signalled(&one, "a").await, [(1, "s3".to_owned())]);
    assert_eq!(one.store.signal(signal("s4", "go")).await.expect("answered"), Signalled::Buffered);
    let leases = one.claim_all(NOW.0).await;
    assert_eq!(leases.len(), 3);
    let mut step = commit(&leases[0], &one.worker, 1);
    step.waits_opened = vec![wait(2, "go"), wait(3, "go")];
    one.apply(step).await;
    let got = signalled(&one, "a").await;
    assert_eq!(got[1..], [(2, "s4".to_owned())], "not the one for another run");
    let mut step = commit(&leases[2], &one.worker, 0);
    step.waits_opened = vec![wait(1, "go")];
    one.apply(step).await;
    assert_eq!(signalled(&one, "c").await, [(1, "s2".to_owned())]);
}

pub(super) async fn a_wait_takes_what_names_its_run_first(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    one.store.create(run("a")).await.expect("created");
    one.store.create(run("b")).await.expect("created");
    let to = |name: &str, text: &str| Signal { run: Some(id(name)), ..signal(text, "go") };
    for sent in [signal("s1", "go"), signal("s2", "go"), to("a", "s3"), to("b", "s4"), to("a", "s5")] {
        assert_eq!(one.store.signal(sent).await.expect("answered"), Signalled::Buffered);
    }
    let leases = one.claim_all(NOW.0).await;
    // At once, as runs that come to the same state do: no two of them may take the same signal.
    let (mut first, mut second) = (commit(&leases[0], &one.worker, 0), commit(&leases[1], &one.worker, 0));
    first.waits_opened = vec![wait(1, "go"), wait(2, "go")];
    second.waits_opened = vec![wait(1, "go"), wait(2, "go"), wait(3, "go"), wait(4, "go")];
    join(one.apply(first), one.apply(second)).await;
    assert_eq!(signalled(&one, "a").await, [(1, "s3".to_owned()), (2, "s5".to_owned())]);
    let got = signalled(&one, "b").await;
    assert_eq!(got, [(1, "s4".to_owned()), (2, "s1".to_owned()), (3, "s2".to_owned())]);
}

pub(super) async fn signals_to_unknown_and_finished_runs_are_refused(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let to_a = Signal { run: Some(id("a")), ..signal("s", "go") };
    assert_eq!(one.store.signal(to_a.clone()).await.expect("answered"), Signalled::NotFound);
    let lease = one.begin("a").await;
    let mut step = commit(&lease, &one.worker, 0);
    step.waits_opened = vec![wait(1, "go")];
    one.apply(step).await;
    one.apply(end(&lease, &one.worker, 1)).await;
    assert_eq!(one.store.signal(to_a).await.expect("answered"), Signalled::Finished);
    assert!(one.store.waits(id("a"), false).await.expect("read").is_empty(), "a finished run waits for nothing");
    assert_eq!(one.store.signal(signal("s", "go")).await.expect("answered"), Signalled::Buffered);
}

pub(super) async fn a_buffered_signal_answers_no_question(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    one.store.signal(signal("early", "ask")).await.expect("sent");
    let question = WaitRow { kind: WaitKind::Outcome { effect: EffectId(4) }, ..wait(5, "ask") };
    parked(&one, "a", vec![question.clone()]).await;
    assert!(signalled(&one, "a").await.is_empty(), "what was said before the question is no answer to it");
    assert_eq!(one.store.waits(id("a"), false).await.expect("read"), [(id("a"), question)]);
    assert_eq!(one.store.signal(signal("answer", "ask")).await.expect("answered"), Signalled::Delivered(vec![id("a")]));
    assert_eq!(signalled(&one, "a").await, [(5, "answer".to_owned())]);
}

pub(super) async fn a_closed_wait_gets_nothing(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let lease = one.begin("a").await;
    let mut step = commit(&lease, &one.worker, 0);
    step.waits_opened = vec![wait(1, "go"), wait(2, "go")];
    one.apply(step).await;
    let mut step = commit(&lease, &one.worker, 1);
    step.waits_closed = vec![EffectId(1), EffectId(2), EffectId(99)];
    one.apply(step).await;
    assert_eq!(one.store.signal(signal("s", "go")).await.expect("answered"), Signalled::Buffered);
    let mut step = commit(&lease, &one.worker, 2);
    step.waits_opened = vec![wait(3, "go")];
    step.waits_closed = vec![EffectId(3)];
    assert_eq!(
        one.apply(step).await,
        Committed::Applied { held: true, inbox: false, switched: false },
        "a wait opened and closed at once takes no signal"
    );
    assert!(one.store.waits(id("a"), false).await.expect("read").is_empty());
    let mut step = park(&lease, &one.worker, 3, None);
    step.waits_opened = vec![wait(4, "go")];
    one.apply(step).await;
    assert_eq!(signalled(&one, "a").await, [(4, "s".to_owned())]);
}

pub(super) async fn waits_are_listed_for_a_run_and_its_tree(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    for new in
        [run("a"), child("a~1.0", "a", "a"), child("a~1.0~1.0", "a~1.0", "a"), child("a~1.1", "a", "a"), run("b")]
    {
        one.store.create(new).await.expect("created");
    }
    for lease in one.claim_all(NOW.0).await {
        let mut step = park(&lease, &one.worker, 0, None);
        step.waits_opened = vec![WaitRow { due: Some(Timestamp(77)), ..wait(2, "x") }, wait(1, "y")];
        one.apply(step).await;
    }
    let of = |name: &str, tree: bool| {
        let waits = one.store.waits(id(name), tree);
        async move {
            waits.await.expect("read").into_iter().map(|(run, row)| (run.to_string(), row.effect.0)).collect::<Vec<_>>()
        }
    };
    assert_eq!(of("a", false).await, [("a".to_owned(), 1), ("a".to_owned(), 2)]);
    assert_eq!(of("a", true).await.len(), 8);
    assert_eq!(of("a~1.0", true).await.len(), 4, "itself and everything below");
    assert_eq!(of("b", true).await.len(), 2);
    let rows = one.store.waits(id("b"), false).await.expect("read");
    assert_eq!(rows[1].1, WaitRow { due: Some(Timestamp(77)), ..wait(2, "x") });
    assert!(one.store.fsck().await.expect("checked").is_empty());
}
