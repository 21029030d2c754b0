//! Schedules over the store in memory: races of two schedulers, deaths at every request, clocks that jump.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use windlass_core::budget::Ceilings;
use windlass_core::ids::RunId;
use windlass_core::input::Input;
use windlass_core::run::Status;
use windlass_core::time::Timestamp;
use windlass_core::value::Value;
use windlass_ports::clock::Clock;
use windlass_ports::fake::ManualClock;
use windlass_ports::store::{Head, Query, Queueing, Retention, Store};
use windlass_runtime::schedule::{CatchUp, Overlap, Timing};
use windlass_runtime::versions::Sources;
use windlass_runtime::{Engine, Parts, Plan, Publication, ScheduleError, Schedules, Scope, Stop, Submission, Versions};

use crate::interleaved::Interleaved;
use crate::kit::{Kit, done, tree};
use crate::signals::waiting;

const MINUTE: u64 = 60_000;
/// 2026-11-21T08:00:00Z.
const START: u64 = 1_795_248_000_000;

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(Timestamp(START), 7))
}

/// An engine as a process of its own would have it, whose time is set by the test.
fn engine(kit: &Kit, store: Arc<dyn Store>, clock: &Arc<ManualClock>) -> Engine {
    let parts = kit.engine_on(store).parts().clone();
    Engine::new(Parts { clock: Arc::clone(clock) as Arc<dyn Clock>, ..parts })
}

fn plan(kit: &Kit, name: &str) -> Plan {
    let tags = BTreeMap::from([("team".into(), "night".into())]);
    Plan {
        name: name.into(),
        work: Submission {
            queueing: Queueing { tags, ..Queueing::default() },
            ..kit.submission("unused", Value::object([("a", Value::Int(1))]))
        },
        timing: Timing::Cron("* * * * *".into()),
        zone: "Europe/Berlin".into(),
        overlap: Overlap::Allow,
        catch_up: CatchUp::Last,
        window_ms: 3_600_000,
        jitter_ms: 0,
        start: None,
        end: None,
        version: None,
    }
}

/// A kit whose runs end at once.
fn quick() -> Kit {
    let mut kit = Kit::new();
    kit.machine("main", vec![done()]);
    kit
}

/// A kit whose runs wait for a signal.
fn waits() -> Kit {
    let mut kit = Kit::new();
    kit.machine("main", vec![waiting("w", "c", None, "done"), done()]);
    kit
}

/// Drives what is in the queue, with a worker that has the time of the store.
async fn work(kit: &Kit) {
    kit.engine().drive(Scope::Idle, Stop::new()).await.expect("driven");
}

async fn runs(kit: &Kit) -> Vec<Head> {
    let query = Query { limit: 10_000, ..Query::default() };
    let mut heads = kit.store.list(query).await.expect("list").heads;
    heads.sort_by(|a, b| a.id.cmp(&b.id));
    heads
}

async fn ids(kit: &Kit) -> Vec<String> {
    runs(kit).await.iter().map(|head| head.id.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_tick_starts_a_run_that_knows_what_it_is_for() {
    let (kit, clock) = (quick(), clock());
    let engine = engine(&kit, Arc::new(kit.store.another()), &clock);
    let schedules = Schedules::new(&engine);
    schedules.add(plan(&kit, "nightly"), false).await.expect("added");
    schedules.settle().await;
    assert_eq!(ids(&kit).await, Vec::<String>::new());
    clock.advance(MINUTE + 40);
    schedules.settle().await;
    let heads = runs(&kit).await;
    assert_eq!(heads.len(), 1);
    assert_eq!(heads[0].id.as_str(), "nightly-20261121T080100Z");
    assert_eq!(heads[0].tags.get("schedule").map(|tag| &**tag), Some("nightly"));
    assert_eq!(heads[0].tags.get("team").map(|tag| &**tag), Some("night"));
    let start = kit.store.load(heads[0].id.clone()).await.expect("load").expect("stored").start;
    let of = start.input.get("schedule").cloned().expect("what it is for");
    assert_eq!(of.get("tick"), Some(&Value::str("2026-11-21T09:01:00+01:00")));
    assert_eq!(start.input.get("a"), Some(&Value::Int(1)));
    let shown = schedules.find("nightly").await.expect("found");
    assert_eq!(shown.last.map(|last| last.late_ms), Some(40));
    let (sum, classes) = schedules.numbers().lateness();
    assert_eq!((schedules.numbers().starts(), sum, classes[1]), (1, 40, 1));
    work(&kit).await;
    assert_eq!(runs(&kit).await[0].status, Status::Completed);
    kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn two_schedulers_at_one_tick_make_one_run() {
    for seed in 0..60 {
        let (kit, clock) = (quick(), clock());
        let both: Vec<Schedules> = (0..3)
            .map(|i| {
                let store = Interleaved::new(kit.store.another(), seed * 31 + i);
                Schedules::new(&engine(&kit, Arc::new(store), &clock))
            })
            .collect();
        both[0].add(plan(&kit, "s"), false).await.expect("added");
        for _ in 0..5 {
            clock.advance(MINUTE);
            tokio::join!(both[0].settle(), both[1].settle(), both[2].settle());
        }
        let expected: Vec<String> = (1..=5).map(|i| format!("s-20261121T080{i}00Z")).collect();
        assert_eq!(ids(&kit).await, expected, "seed {seed}");
        let schedule = both[0].find("s").await.expect("found");
        assert_eq!((schedule.counts.started, schedule.counts.missed), (5, 0), "seed {seed}");
        let made: u64 = both.iter().map(|one| one.numbers().starts()).sum();
        assert_eq!(made, 5, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_scheduler_that_dies_at_any_request_leaves_one_run_for_a_tick() {
    for overlap in [Overlap::Allow, Overlap::Skip] {
        for at in 0.. {
            let (kit, clock) = (waits(), clock());
            let other = Schedules::new(&engine(&kit, Arc::new(kit.store.another()), &clock));
            other.add(Plan { overlap, ..plan(&kit, "s") }, false).await.expect("added");
            clock.advance(MINUTE);
            let store = Arc::new(Interleaved::hanging(kit.store.another(), at));
            let dies = Schedules::new(&engine(&kit, Arc::clone(&store) as Arc<dyn Store>, &clock));
            let ended = tokio::time::timeout(Duration::from_secs(1), dies.settle()).await;
            assert_eq!(ended.is_err(), store.hung(), "point {at}");
            // The next tick comes before anyone goes on with the first one.
            clock.advance(MINUTE);
            other.settle().await;
            clock.advance(1);
            other.settle().await;
            let schedule = other.find("s").await.expect("found");
            let all = ids(&kit).await;
            match overlap {
                Overlap::Skip => assert_eq!(all.len(), 1, "point {at}: {all:?}"),
                _ => assert_eq!(all.last().map(String::as_str), Some("s-20261121T080200Z"), "point {at}"),
            }
            assert_eq!(schedule.counts.started, all.len() as u64, "point {at}: {all:?}");
            let counts = schedule.counts;
            assert_eq!(counts.started + counts.skipped + counts.missed, 2, "point {at}: {counts:?}");
            assert_eq!((schedule.starting.len(), schedule.problem), (0, None), "point {at}");
            if !store.hung() {
                assert!(at > 10, "{at}");
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_over_a_schedule_follows_the_catch_up_policy() {
    for (catch_up, window_ms, expected) in [
        (CatchUp::None, u64::MAX, 1),
        (CatchUp::Last, u64::MAX, 1),
        (CatchUp::All, u64::MAX, 120),
        (CatchUp::All, 30 * MINUTE, 31),
    ] {
        let (kit, clock) = (quick(), clock());
        let schedules = Schedules::new(&engine(&kit, Arc::new(kit.store.another()), &clock));
        schedules.add(Plan { catch_up, window_ms, ..plan(&kit, "s") }, false).await.expect("added");
        clock.advance(120 * MINUTE);
        schedules.settle().await;
        assert_eq!(ids(&kit).await.len(), expected, "{catch_up:?}");
        let counts = schedules.find("s").await.expect("found").counts;
        assert_eq!(counts.started + counts.missed, 120, "{catch_up:?}");
        // The process that comes next has a clock that is two hours behind.
        let behind = Arc::new(ManualClock::new(Timestamp(START), 9));
        let late = Schedules::new(&engine(&kit, Arc::new(kit.store.another()), &behind));
        for _ in 0..120 {
            behind.advance(MINUTE);
            late.settle().await;
        }
        assert_eq!(ids(&kit).await.len(), expected, "{catch_up:?}: nothing starts twice");
        behind.advance(MINUTE);
        late.settle().await;
        assert_eq!(ids(&kit).await.len(), expected + 1, "{catch_up:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pruned_run_does_not_make_its_tick_start_again() {
    let (kit, clock) = (quick(), clock());
    let engine = engine(&kit, Arc::new(kit.store.another()), &clock);
    let schedules = Schedules::new(&engine);
    schedules.add(Plan { overlap: Overlap::Skip, ..plan(&kit, "s") }, false).await.expect("added");
    clock.advance(MINUTE);
    schedules.settle().await;
    work(&kit).await;
    windlass_runtime::trail::seal(&*kit.store).await.expect("sealed");
    let pruned =
        kit.store.prune(Retention { keep_per_machine: Some(0), ..Retention::default() }).await.expect("pruned");
    assert_eq!(pruned.runs, 1);
    schedules.settle().await;
    assert_eq!(ids(&kit).await, Vec::<String>::new());
    clock.advance(MINUTE);
    schedules.settle().await;
    assert_eq!(ids(&kit).await, ["s-20261121T080200Z"], "what was pruned is not unfinished");
}

#[tokio::test(start_paused = true)]
async fn each_overlap_policy_does_what_it_says() {
    for overlap in Overlap::ALL {
        let (kit, clock) = (waits(), clock());
        let engine = engine(&kit, Arc::new(kit.store.another()), &clock);
        let schedules = Schedules::new(&engine);
        schedules.add(Plan { overlap, ..plan(&kit, "s") }, false).await.expect("added");
        for _ in 0..3 {
            clock.advance(MINUTE);
            schedules.settle().await;
            work(&kit).await;
        }
        // A second later, what waits for an end that has come is started.
        clock.advance(1_000);
        schedules.settle().await;
        let statuses: Vec<Status> = runs(&kit).await.iter().map(|head| head.status).collect();
        let schedule = schedules.find("s").await.expect("found");
        match overlap {
            Overlap::Skip => {
                assert_eq!((statuses, schedule.counts.skipped), (vec![Status::Waiting], 2));
            }
            Overlap::Queue => {
                assert_eq!((statuses, schedule.waiting.len()), (vec![Status::Waiting], 2));
                let first = RunId::stored("s-20261121T080100Z");
                kit.signal("c", Value::Null).await;
                tree(&kit.engine(), &first).await;
                clock.advance(1_000);
                schedules.settle().await;
                assert_eq!(ids(&kit).await, ["s-20261121T080100Z", "s-20261121T080200Z"]);
            }
            Overlap::Cancel => {
                assert_eq!(statuses.last(), Some(&Status::Waiting), "{statuses:?}");
                assert!(statuses[..statuses.len() - 1].iter().all(|s| *s == Status::Cancelled), "{statuses:?}");
            }
            Overlap::Allow => assert_eq!(statuses, [Status::Waiting; 3]),
        }
        kit.fsck().await;
    }
}

#[tokio::test(start_paused = true)]
async fn schedules_are_listed_paused_resumed_and_removed() {
    let (kit, clock) = (quick(), clock());
    let schedules = Schedules::new(&engine(&kit, Arc::new(kit.store.another()), &clock));
    for name in ["a", "b", "c"] {
        schedules.add(plan(&kit, name), false).await.expect("added");
    }
    assert!(matches!(schedules.add(plan(&kit, "a"), false).await, Err(ScheduleError::Exists(_))));
    let page = schedules.list(None, 2).await.expect("page");
    let names: Vec<&str> = page.schedules.iter().map(|schedule| &*schedule.spec.name).collect();
    assert_eq!(names, ["a", "b"]);
    let rest = schedules.list(page.next, 2).await.expect("page");
    assert_eq!((rest.schedules.len(), rest.next), (1, None));
    schedules.pause("a", "audit").await.expect("paused");
    schedules.remove("b").await.expect("removed");
    assert!(matches!(schedules.find("b").await, Err(ScheduleError::NotFound(_))));
    clock.advance(MINUTE);
    schedules.settle().await;
    assert_eq!(ids(&kit).await, ["c-20261121T080100Z"]);
    schedules.resume("a").await.expect("resumed");
    schedules.add(plan(&kit, "b"), false).await.expect("the name is free again");
    clock.advance(MINUTE);
    schedules.settle().await;
    assert_eq!(ids(&kit).await.len(), 4);
    let hourly = Plan { timing: Timing::Cron("@hourly".into()), ..plan(&kit, "c") };
    let replaced = schedules.add(hourly, true).await.expect("replaced");
    assert_eq!(replaced.counts.started, 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_a_removed_schedule_is_given_up_after_a_while() {
    let (kit, clock) = (quick(), clock());
    let schedules = Schedules::new(&engine(&kit, Arc::new(kit.store.another()), &clock));
    schedules.add(plan(&kit, "s"), false).await.expect("added");
    schedules.remove("s").await.expect("removed");
    for kind in ["schedule", "schedule_work"] {
        assert_eq!(kit.store.objects(kind.into(), None, 10).await.expect("objects").len(), 1, "{kind}");
    }
    clock.advance(60 * MINUTE);
    schedules.settle().await;
    for kind in ["schedule", "schedule_work"] {
        assert_eq!(kit.store.objects(kind.into(), None, 10).await.expect("objects"), Vec::new(), "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_can_be_had_at_once() {
    let (kit, clock) = (waits(), clock());
    let engine = engine(&kit, Arc::new(kit.store.another()), &clock);
    let schedules = Schedules::new(&engine);
    schedules.add(Plan { overlap: Overlap::Skip, ..plan(&kit, "s") }, false).await.expect("added");
    schedules.pause("s", "by hand only").await.expect("paused");
    clock.advance(1_234);
    let run = schedules.run_now("s").await.expect("run");
    assert_eq!(run.as_str(), "s-20261121T080001.234Z");
    assert!(matches!(schedules.run_now("s").await, Err(ScheduleError::Busy { .. })));
    kit.deliver(&run, "stop", Input::Cancel { reason: "enough".into() }).await;
    work(&kit).await;
    clock.advance(1);
    schedules.run_now("s").await.expect("the last one has ended");
    assert!(matches!(schedules.run_now("x").await, Err(ScheduleError::NotFound(_))));
}

#[tokio::test(start_paused = true)]
async fn a_stranger_with_the_id_of_a_tick_is_left_alone() {
    let (kit, clock) = (quick(), clock());
    let engine = engine(&kit, Arc::new(kit.store.another()), &clock);
    let schedules = Schedules::new(&engine);
    schedules.add(plan(&kit, "s"), false).await.expect("added");
    kit.submit(&engine, "s-20261121T080100Z").await;
    clock.advance(MINUTE);
    schedules.settle().await;
    let schedule = schedules.find("s").await.expect("found");
    assert_eq!((schedule.counts.refused, schedule.counts.started), (1, 0));
    assert_eq!(schedule.problem.as_deref(), Some("another run has the id `s-20261121T080100Z`"));
    clock.advance(MINUTE);
    schedules.settle().await;
    assert_eq!(schedules.find("s").await.expect("found").problem, None);
}

#[tokio::test(start_paused = true)]
async fn the_loop_starts_runs_in_time_and_stops_when_told() {
    let kit = quick();
    let engine = kit.engine();
    let schedules = Schedules::new(&engine);
    let every = Plan { timing: Timing::EveryMs(10_000), ..plan(&kit, "s") };
    schedules.add(every, false).await.expect("added");
    let stop = Stop::new();
    let other = Schedules::new(&kit.another());
    let watching = async {
        tokio::time::sleep(Duration::from_millis(60_500)).await;
        stop.graceful.cancel();
    };
    tokio::join!(schedules.drive(stop.clone()), other.drive(stop.clone()), watching);
    assert_eq!(runs(&kit).await.len(), 6);
    let (late, _) = schedules.numbers().lateness();
    let (others, _) = other.numbers().lateness();
    assert!(late + others < 100, "{late} and {others}");
}

#[tokio::test(start_paused = true)]
async fn each_tick_of_a_schedule_is_of_the_version_that_its_name_points_at_then() {
    let (kit, clock) = (waits(), clock());
    let engine = engine(&kit, Arc::new(kit.store.another()), &clock);
    let (schedules, versions) = (Schedules::new(&engine), Versions::new(Arc::new(kit.store.another())));
    let publish = async |text: &str| {
        let files = BTreeMap::from([("m.yml".to_owned(), text.to_owned())]);
        let sources = Sources { entry: "m.yml".into(), files, skills: BTreeMap::new() };
        let (name, machine, by) = ("night".into(), "main".into(), "ann".into());
        let at = Timestamp(1);
        let new = Publication { name, sources, machine, agents: BTreeMap::new(), note: "".into(), by, at };
        versions.publish(new).await.expect("published");
    };
    let ceilings = Ceilings { steps: Some(7), ..Ceilings::default() };
    let follows = plan(&kit, "s");
    let work = Submission { ceilings, ..follows.work.clone() };
    let follows = Plan { version: Some("night@".into()), work, ..follows };
    let tick = async || {
        clock.advance(MINUTE);
        schedules.settle().await;
    };
    schedules.add(follows, false).await.expect("added");
    tick().await;
    let problem = schedules.find("s").await.expect("found").problem.expect("nothing is published");
    assert_eq!(&*problem, "nothing is published as `night`");
    publish("one").await;
    tick().await;
    publish("two").await;
    tick().await;
    versions.rollback("night", None, "ann", Timestamp(2)).await.expect("moved");
    tick().await;
    let heads = runs(&kit).await;
    let mut starts = Vec::new();
    for head in &heads {
        assert_eq!(head.tags.get("team").map(|tag| &**tag), Some("night"));
        let start = kit.store.load(head.id.clone()).await.expect("load").expect("stored").start;
        assert_eq!((start.ceilings.steps, start.input.get("a")), (Some(7), Some(&Value::Int(1))));
        assert_eq!(start.caller.by.as_deref(), Some("schedule s"));
        assert_eq!(head.tags.get("version"), start.caller.version.as_ref());
        starts.push((start.caller.version.expect("a version"), start.bundle));
    }
    let of: Vec<&str> = starts.iter().map(|(version, _)| &**version).collect();
    assert_eq!(of, ["night@1", "night@2", "night@1"]);
    assert!(starts[0].1 == starts[2].1 && starts[0].1 != starts[1].1, "{starts:?}");
    let counts = schedules.find("s").await.expect("found").counts;
    assert_eq!((counts.started, counts.refused), (3, 1));
    kit.fsck().await;
}
