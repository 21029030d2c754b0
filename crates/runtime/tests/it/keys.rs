//! Run keys: at most one unfinished run, the last of many submissions, and races for both.

use std::sync::Arc;
use std::time::Duration;

use windlass_core::ids::RunId;
use windlass_core::run::Status;
use windlass_core::value::Value;
use windlass_ports::store::{Query, Store};
use windlass_runtime::keys::KeyMode;
use windlass_runtime::{Engine, KeyError, Keyed, Schedules, Scope, Stop, SubmitError};

use crate::interleaved::Interleaved;
use crate::kit::{Kit, done, report, tree};
use crate::signals::waiting;

const DEBOUNCE: KeyMode = KeyMode::Debounce { window_ms: 2_000, max_wait_ms: 5_000 };

fn kit() -> Kit {
    let mut kit = Kit::new();
    kit.machine("main", vec![waiting("w", "c", None, "done"), done()]);
    kit
}

async fn unfinished(kit: &Kit) -> Vec<RunId> {
    let heads = kit.store.list(Query { limit: 1_000, ..Query::default() }).await.expect("list").heads;
    heads.into_iter().filter(|head| !head.status.is_final()).map(|head| head.id).collect()
}

async fn submit(kit: &Kit, engine: &Engine, id: &str, input: i64, mode: KeyMode) -> Result<Keyed, KeyError> {
    engine.submit_keyed(kit.submission(id, Value::Int(input)), "order-1", mode).await
}

async fn end(kit: &Kit, engine: &Engine, run: &RunId) {
    kit.signal("c", Value::Null).await;
    tree(engine, run).await;
    assert_eq!(report(engine, run).await.head.status, Status::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_singleton_has_one_unfinished_run() {
    let kit = kit();
    let engine = kit.engine();
    let first = submit(&kit, &engine, "a", 1, KeyMode::Singleton).await.expect("submitted");
    assert!(matches!(first, Keyed::Submitted(submitted) if submitted.existing.is_none()));
    let second = submit(&kit, &kit.another(), "b", 2, KeyMode::Singleton).await.expect("asked");
    assert!(matches!(second, Keyed::Running(head) if head.id.as_str() == "a"));
    let again = submit(&kit, &engine, "a", 1, KeyMode::Singleton).await.expect("the same run");
    assert!(matches!(again, Keyed::Submitted(submitted) if submitted.existing.is_some()));
    tree(&engine, &RunId::stored("a")).await;
    end(&kit, &engine, &RunId::stored("a")).await;
    let third = submit(&kit, &engine, "c", 3, KeyMode::Singleton).await.expect("submitted");
    assert!(matches!(third, Keyed::Submitted(submitted) if submitted.run_id.as_str() == "c"));
    let other = engine.submit_keyed(kit.submission("d", Value::Null), "order-2", KeyMode::Singleton).await;
    assert!(matches!(other, Ok(Keyed::Submitted(_))), "another key");
    kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn a_race_for_a_singleton_has_one_winner() {
    for seed in 0..100 {
        let kit = kit();
        let engines: Vec<Engine> = (0..4)
            .map(|i| kit.engine_on(Arc::new(Interleaved::new(kit.store.another(), seed * 17 + i)) as Arc<dyn Store>))
            .collect();
        let race = engines.iter().enumerate().map(|(i, engine)| {
            let id = ["a", "b", "c", "d"][i];
            submit(&kit, engine, id, i as i64, KeyMode::Singleton)
        });
        let answers = futures::future::join_all(race).await;
        let open = unfinished(&kit).await;
        assert_eq!(open.len(), 1, "seed {seed}: {open:?}");
        let won = answers.iter().filter(|a| matches!(a, Ok(Keyed::Submitted(s)) if s.run_id == open[0])).count();
        let lost = answers.iter().filter(|a| matches!(a, Ok(Keyed::Running(head)) if head.id == open[0])).count();
        assert_eq!((won, lost), (1, 3), "seed {seed}: {answers:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_submission_that_dies_at_any_request_leaves_at_most_one_run() {
    for at in 0.. {
        let kit = kit();
        let store = Arc::new(Interleaved::hanging(kit.store.another(), at));
        let dies = kit.engine_on(Arc::clone(&store) as Arc<dyn Store>);
        let hung = tokio::time::timeout(Duration::from_secs(1), submit(&kit, &dies, "a", 1, KeyMode::Singleton)).await;
        assert_eq!(hung.is_err(), store.hung(), "point {at}");
        let next = submit(&kit, &kit.another(), "b", 2, KeyMode::Singleton).await.expect("asked");
        let open = unfinished(&kit).await;
        assert_eq!(open.len(), 1, "point {at}: {open:?}");
        match next {
            Keyed::Submitted(submitted) => assert_eq!(submitted.run_id, open[0], "point {at}"),
            Keyed::Running(head) => assert_eq!(head.id, open[0], "point {at}"),
            Keyed::Waiting { .. } => panic!("no debounce"),
        }
        if !store.hung() {
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_debounced_submissions_the_last_one_counts() {
    let kit = kit();
    let engine = kit.engine();
    let stop = Stop::new();
    let looping = Schedules::new(&engine);
    let testing = async {
        let first = submit(&kit, &engine, "a", 1, DEBOUNCE).await.expect("taken");
        let Keyed::Waiting { run, replaced: 0, .. } = first else { panic!("{first:?}") };
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let second = submit(&kit, &kit.another(), "b", 2, DEBOUNCE).await.expect("taken");
        assert!(matches!(&second, Keyed::Waiting { run: same, replaced: 1, .. } if *same == run), "{second:?}");
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert_eq!(unfinished(&kit).await, Vec::new(), "the start has moved");
        tokio::time::sleep(Duration::from_millis(1_600)).await;
        assert_eq!(unfinished(&kit).await.as_slice(), std::slice::from_ref(&run));
        let start = kit.store.load(run).await.expect("load").expect("stored").start;
        assert_eq!(start.input, Value::Int(2));
        let third = submit(&kit, &engine, "c", 3, DEBOUNCE).await.expect("taken");
        assert!(matches!(&third, Keyed::Waiting { run, replaced: 0, .. } if run.as_str() == "c"), "{third:?}");
        stop.graceful.cancel();
    };
    tokio::join!(looping.drive(stop.clone()), testing);
}

#[tokio::test(start_paused = true)]
async fn a_debounced_run_begins_after_the_longest_wait() {
    let kit = kit();
    let engine = kit.engine();
    let looping = Schedules::new(&engine);
    let stop = Stop::new();
    let testing = async {
        for i in 0..7 {
            submit(&kit, &engine, "a", i, DEBOUNCE).await.expect("taken");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        // Seven submissions a second apart: the first five seconds were one run.
        let first = kit.store.load(RunId::stored("a")).await.expect("load").expect("begun");
        assert!(matches!(first.start.input, Value::Int(4 | 5)), "{:?}", first.start.input);
        stop.graceful.cancel();
    };
    tokio::join!(looping.drive(stop.clone()), testing);
}

#[tokio::test(start_paused = true)]
async fn a_submission_either_replaces_what_waits_or_waits_itself() {
    for seed in 0..100 {
        let kit = kit();
        let engines: Vec<Engine> = (0..3)
            .map(|i| kit.engine_on(Arc::new(Interleaved::new(kit.store.another(), seed * 13 + i)) as Arc<dyn Store>))
            .collect();
        submit(&kit, &engines[0], "a", 1, DEBOUNCE).await.expect("taken");
        tokio::time::sleep(Duration::from_secs(2)).await;
        // Its time has come just when another one comes.
        let (begun, taken, also) = tokio::join!(
            engines[0].begin("default", "order-1"),
            submit(&kit, &engines[1], "b", 2, DEBOUNCE),
            engines[2].begin("default", "order-1")
        );
        begun.expect("begun");
        also.expect("begun");
        let Ok(Keyed::Waiting { run, .. }) = taken else { panic!("seed {seed}: {taken:?}") };
        let first = kit.store.load(RunId::stored("a")).await.expect("load");
        match first {
            // The first one had begun: the second waits for a run of its own.
            Some(stored) => assert_eq!((stored.start.input, run.as_str()), (Value::Int(1), "b"), "seed {seed}"),
            None => assert_eq!(run.as_str(), "a", "seed {seed}"),
        }
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(engines[0].begin("default", "order-1").await.expect("begun"), None);
        let last = kit.store.load(run).await.expect("load").expect("begun");
        assert_eq!(last.start.input, Value::Int(2), "seed {seed}: what was acknowledged runs");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_a_key_is_refused() {
    let kit = kit();
    let engine = kit.engine();
    let with = |key: &'static str, mode| engine.submit_keyed(kit.submission("r", Value::Null), key, mode);
    for key in ["", "a b", "a:b"] {
        assert!(matches!(with(key, KeyMode::Singleton).await, Err(KeyError::Key(_))), "{key}");
    }
    for (window_ms, max_wait_ms) in [(0, 0), (10, 9), (86_400_001, u64::MAX)] {
        let mode = KeyMode::Debounce { window_ms, max_wait_ms };
        assert!(matches!(with("k", mode).await, Err(KeyError::Window(_))), "{window_ms}");
    }
    let bad = engine.submit_keyed(kit.submission("a b", Value::Null), "k", KeyMode::Singleton).await;
    assert!(matches!(bad, Err(KeyError::Submit(SubmitError::Id { .. }))));
}

#[tokio::test(start_paused = true)]
async fn old_keys_are_given_up() {
    let kit = kit();
    let engine = kit.engine();
    for i in 0..3 {
        let key = ["x", "y", "z"][i];
        engine.submit_keyed(kit.submission(key, Value::Null), key, KeyMode::Singleton).await.expect("submitted");
    }
    engine.drive(Scope::Idle, Stop::new()).await.expect("driven");
    kit.deliver(&RunId::stored("x"), "1", windlass_core::input::Input::Cancel { reason: "enough".into() }).await;
    engine.drive(Scope::Idle, Stop::new()).await.expect("driven");
    let left = || async { kit.store.objects("run_key".into(), None, 10).await.expect("objects").len() };
    Schedules::new(&engine).settle().await;
    assert_eq!(left().await, 3);
    tokio::time::sleep(Duration::from_secs(3_700)).await;
    Schedules::new(&engine).settle().await;
    assert_eq!(left().await, 2, "the keys of unfinished runs stay");
}
