//! Read-only switches: what they hold back, on every worker, and how runs go on.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use windlass_core::contract::{Class, Idempotency};
use windlass_core::ids::{Name, RunId};
use windlass_core::input::Input;
use windlass_core::run::{Status, TenantScope};
use windlass_core::time::Timestamp;
use windlass_core::value::Value;
use windlass_ports::store::Store;
use windlass_runtime::switch::Change;
use windlass_runtime::{Driven, Engine, Scope, Stop, Submission, set_switch, switches, tell_held};

use crate::kit::{Kit, acting, answer, contract, done, report, tree};

type Arrivals = Arc<Mutex<Vec<(String, tokio::time::Instant)>>>;

/// A kit whose tools `pay` (write) and `look` (read) note who calls them when.
fn kit() -> (Kit, Arrivals) {
    let mut kit = Kit::new();
    let arrivals = Arrivals::default();
    for (name, class) in [("pay", Class::Write), ("look", Class::Read)] {
        let noted = Arc::clone(&arrivals);
        kit.tool(contract(name, class, Idempotency::Key), move |invocation| {
            noted
                .lock()
                .expect("lock")
                .push((format!("{name} {}", invocation.idempotency_key), tokio::time::Instant::now()));
            async {
                tokio::time::sleep(Duration::from_millis(7)).await;
                answer(1)
            }
        });
    }
    (kit, arrivals)
}

pub(crate) fn change(on: bool) -> Change {
    Change { on, by: "ann".into(), reason: "a leak".into(), at: Timestamp(1) }
}

pub(crate) fn serve(engine: &Engine) -> (Stop, tokio::task::JoinHandle<Driven>) {
    let (engine, stop) = (engine.clone(), Stop::new());
    let driving = tokio::spawn({
        let stop = stop.clone();
        async move { engine.drive(Scope::All, stop).await.expect("driven") }
    });
    (stop, driving)
}

pub(crate) async fn until(kit: &Kit, run: &RunId, status: Status) {
    for _ in 0..2_000 {
        if kit.store.load(run.clone()).await.expect("load").expect("exists").head.status == status {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let head = kit.store.load(run.clone()).await.expect("load").expect("exists").head;
    panic!("not `{status:?}`: {head:?}");
}

fn of(arrivals: &Arrivals, tool: &str) -> Vec<(String, tokio::time::Instant)> {
    arrivals.lock().expect("lock").iter().filter(|(key, _)| key.starts_with(tool)).cloned().collect()
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_run_that_a_switch_holds_waits_no_longer_than_was_said() {
    let (mut kit, arrivals) = kit();
    kit.machine("main", vec![acting("a", "pay", "done"), done()]);
    set_switch(&*kit.store, None, change(true)).await.expect("switched");
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    let patience = Duration::from_millis(2 * kit.settings.wait_ms);
    let driven = tokio::time::timeout(patience, tree(&engine, &run)).await.expect("it gives up");
    assert!(matches!(driven, Driven::Parked { .. }), "{driven:?}");
    assert_eq!((of(&arrivals, "pay").len(), report(&engine, &run).await.head.status), (0, Status::Paused));
}

#[tokio::test(start_paused = true)]
async fn no_call_leaves_that_was_decided_on_after_the_switch_although_no_worker_looked() {
    let (mut kit, arrivals) = kit();
    kit.settings.switches_ms = 0;
    let states = ["a", "b", "c", "d", "e", "f"];
    let mut machine: Vec<_> = states.windows(2).map(|pair| acting(pair[0], "pay", pair[1])).collect();
    machine.push(acting("f", "pay", "done"));
    machine.push(done());
    kit.machine("main", machine);
    let engines = [kit.engine(), kit.another(), kit.another()];
    for number in 0..60 {
        kit.submit(&engines[0], &format!("r{number}")).await;
    }
    let serving: Vec<_> = engines.iter().map(serve).collect();
    while of(&arrivals, "pay").len() < 40 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (_, changed) = set_switch(&*kit.store, None, change(true)).await.expect("switched");
    let on = tokio::time::Instant::now();
    assert!(changed);
    tokio::time::sleep(Duration::from_secs(20)).await;
    let late: Vec<_> = of(&arrivals, "pay").into_iter().filter(|(_, at)| *at > on + Duration::from_millis(1)).collect();
    assert!(late.is_empty(), "{} calls left after the switch: {:?}", late.len(), late.first());
    let statuses: Vec<Status> = {
        let mut statuses = Vec::new();
        for number in 0..60 {
            let head = kit.store.load(RunId::stored(&format!("r{number}"))).await.expect("load").expect("there").head;
            statuses.push(head.status);
        }
        statuses
    };
    let unfinished = statuses.iter().filter(|status| !status.is_final()).count();
    assert!(unfinished > 0, "the switch came too late to hold anything");
    assert!(statuses.iter().all(|status| status.is_final() || *status == Status::Paused), "{statuses:?}");
    let shown = report(&engines[0], &RunId::stored("r59")).await;
    assert_eq!(shown.head.status, Status::Paused);
    set_switch(&*kit.store, None, change(false)).await.expect("switched");
    assert_eq!(tell_held(&*kit.store, None).await.expect("told"), unfinished as u64);
    for number in 0..60 {
        until(&kit, &RunId::stored(&format!("r{number}")), Status::Completed).await;
    }
    assert_eq!(of(&arrivals, "pay").len(), 360, "every call was made, and none twice");
    for (stop, driving) in serving {
        stop.graceful.cancel();
        assert_eq!(driving.await.expect("a task"), Driven::Stopped);
    }
    kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_slot_is_held_back_within_a_second_and_reads_go_on() {
    let (mut kit, arrivals) = kit();
    kit.settings.call_slots = 1;
    kit.tool(contract("long", Class::Read, Idempotency::None), |_| async {
        tokio::time::sleep(Duration::from_secs(30)).await;
        answer(1)
    });
    kit.machine("main", vec![acting("a", "pay", "done"), done()]);
    kit.machine("child", vec![acting("a", "long", "b"), acting("b", "look", "done"), done()]);
    let engine = kit.engine();
    let reading = Submission {
        program: {
            let program = kit.program();
            Arc::new(windlass_core::machine::Program { entry: "child".into(), ..(*program).clone() })
        },
        ..kit.submission("reads", Value::Null)
    };
    let reads = engine.submit(reading).await.expect("submitted").run_id;
    let (stop, driving) = serve(&engine);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let writes = kit.submit(&engine, "writes").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    set_switch(&*kit.store, None, change(true)).await.expect("switched");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let head = kit.store.load(writes.clone()).await.expect("load").expect("there").head;
    assert_eq!((head.status, head.owner), (Status::Paused, None), "it parked within a second");
    until(&kit, &reads, Status::Completed).await;
    assert_eq!((of(&arrivals, "pay").len(), of(&arrivals, "look").len()), (0, 1));
    set_switch(&*kit.store, None, change(false)).await.expect("switched");
    // Nobody tells it: it looks by itself.
    tokio::time::sleep(Duration::from_secs(70)).await;
    assert_eq!(of(&arrivals, "pay").len(), 1);
    stop.graceful.cancel();
    driving.await.expect("a task");
    kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn a_tenants_switch_holds_its_runs_only_and_a_pause_outlasts_it() {
    let (mut kit, arrivals) = kit();
    kit.machine("main", vec![acting("a", "pay", "done"), done()]);
    let engine = kit.engine();
    let tenant: Name = "acme".into();
    set_switch(&*kit.store, Some(&tenant), change(true)).await.expect("switched");
    let scope = TenantScope { tenant: tenant.clone(), ..TenantScope::default() };
    let theirs = Submission { scope, ..kit.submission("theirs", Value::Null) };
    let theirs = engine.submit(theirs).await.expect("submitted").run_id;
    let others = kit.submit(&engine, "others").await;
    let (stop, driving) = serve(&engine);
    until(&kit, &others, Status::Completed).await;
    until(&kit, &theirs, Status::Paused).await;
    let on = switches(&*kit.store).await.expect("read");
    assert_eq!(on[&Some(tenant.clone())].on().map(|change| &*change.by), Some("ann"));
    kit.deliver(&theirs, "p", Input::Pause { reason: "mine".into() }).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    set_switch(&*kit.store, Some(&tenant), change(false)).await.expect("switched");
    tell_held(&*kit.store, Some(&tenant)).await.expect("told");
    tokio::time::sleep(Duration::from_secs(100)).await;
    until(&kit, &theirs, Status::Paused).await;
    assert_eq!(of(&arrivals, "pay").len(), 1);
    kit.deliver(&theirs, "u", Input::Unpause).await;
    until(&kit, &theirs, Status::Completed).await;
    stop.graceful.cancel();
    driving.await.expect("a task");
    kit.fsck().await;
}
