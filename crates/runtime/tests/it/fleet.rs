//! Several workers on one store: who drives what, who no longer counts, and what is driven alone.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use windlass_core::contract::{Class, Idempotency};
use windlass_core::failure::{Code, Failure, Retry};
use windlass_core::ids::{Name, RunId};
use windlass_core::input::Quote;
use windlass_core::machine::{ModelSettings, Placement, Priority};
use windlass_core::request::ModelRequest;
use windlass_core::run::{Status, TenantScope};
use windlass_core::value::Value;
use windlass_ports::BoxFuture;
use windlass_ports::compile::Bundle;
use windlass_ports::model::{Model, ModelResult};
use windlass_ports::store::{Queueing, Store, StoreError};
use windlass_runtime::{Driven, Engine, EngineError, Scope, Stop, Submission, SubmitError};

use crate::kit::{Kit, acting, answer, contract, done, output, report};
use crate::unreliable::{Lose, Unreliable};

/// Drives everything until stopped.
fn serve(engine: &Engine) -> (Stop, tokio::task::JoinHandle<Driven>) {
    let (engine, stop) = (engine.clone(), Stop::new());
    let driving = tokio::spawn({
        let stop = stop.clone();
        async move { engine.drive(Scope::All, stop).await.expect("driven") }
    });
    (stop, driving)
}

async fn until(kit: &Kit, run: &RunId, status: Status) {
    for _ in 0..10_000 {
        let stored = kit.store.load(run.clone()).await.expect("load").expect("exists");
        if stored.head.status == status {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let head = kit.store.load(run.clone()).await.expect("load").expect("exists").head;
    panic!("not `{status:?}`: {head:?}");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_no_longer_counts_drops_what_it_holds_and_goes_on_under_another_name() {
    let mut kit = Kit::new();
    let (called, ended) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (calling, ending) = (Arc::clone(&called), Arc::clone(&ended));
    kit.tool(contract("slow", Class::Read, Idempotency::None), move |_| {
        calling.notify_one();
        let ending = Arc::clone(&ending);
        async move {
            tokio::time::sleep(Duration::from_secs(20)).await;
            ending.fetch_add(1, Ordering::SeqCst);
            answer(1)
        }
    });
    kit.machine("main", vec![acting("a", "slow", "done"), done()]);
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    let (stop, driving) = serve(&engine);
    called.notified().await;
    let before = engine.vitals().worker.expect("a worker");
    assert_eq!(kit.store.fence("a restore".into()).await.expect("fenced"), 1);
    tokio::time::sleep(Duration::from_secs(40)).await;
    let after = engine.vitals().worker.expect("it joined again");
    assert_ne!(before, after);
    assert_eq!(ended.load(Ordering::SeqCst), 0, "the call that was out was dropped with the lease");
    assert_eq!(report(&engine, &run).await.head.status, Status::Quarantined);
    assert!(kit.store.requeue(run.clone()).await.expect("requeued"));
    until(&kit, &run, Status::Completed).await;
    stop.graceful.cancel();
    assert_eq!(driving.await.expect("a task"), Driven::Stopped);
    kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_does_not_leave_while_the_lease_may_have_run_out() {
    let mut kit = Kit::new();
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    kit.tool(contract("send", Class::Write, Idempotency::None), move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { answer(1) }
    });
    kit.machine("main", vec![acting("a", "send", "done"), done()]);
    let store = Arc::new(Unreliable::new(kit.store.another()));
    let engine = kit.engine_on(Arc::clone(&store) as Arc<dyn Store>);
    let (stop, driving) = serve(&engine);
    while engine.vitals().worker.is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let before = engine.vitals().worker;
    store.lapse(true);
    let run = kit.submit(&engine, "r").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(sent.load(Ordering::SeqCst), 0, "nothing leaves");
    // The next heartbeat does not arrive either: the worker counts itself out, and what it held is another's to send.
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(sent.load(Ordering::SeqCst), 0);
    assert_ne!(engine.vitals().worker, before);
    store.lapse(false);
    until(&kit, &run, Status::Completed).await;
    assert_eq!(sent.load(Ordering::SeqCst), 1);
    stop.graceful.cancel();
    driving.await.expect("a task");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_held_back_at_the_last_moment_leaves_once_the_worker_is_heard_again() {
    let mut kit = Kit::new();
    let store = Arc::new(Unreliable::new(kit.store.another()));
    let (tried, sent) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (lapsing, counted, reached) = (Arc::clone(&store), Arc::clone(&tried), Arc::clone(&sent));
    kit.tool(contract("look", Class::Read, Idempotency::None), move |invocation| {
        // While its connection is made, the lease may have run out.
        lapsing.lapse(counted.fetch_add(1, Ordering::SeqCst) == 0);
        let (lapsing, reached) = (Arc::clone(&lapsing), Arc::clone(&reached));
        async move {
            if !invocation.permit.holds() {
                lapsing.lapse(false);
                return Err(Failure::new(Code::ToolFailed, "this worker may no longer send it").retry(Retry::Backoff));
            }
            reached.fetch_add(1, Ordering::SeqCst);
            answer(1)
        }
    });
    kit.machine("main", vec![acting("a", "look", "done"), done()]);
    let engine = kit.engine_on(Arc::clone(&store) as Arc<dyn Store>);
    let (stop, driving) = serve(&engine);
    let run = kit.submit(&engine, "r").await;
    until(&kit, &run, Status::Completed).await;
    assert_eq!((tried.load(Ordering::SeqCst), sent.load(Ordering::SeqCst)), (2, 1));
    assert_eq!(output(&engine, &run).await.get("a"), Some(&Value::Int(1)), "what the tool said");
    stop.graceful.cancel();
    driving.await.expect("a task");
    kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn a_state_of_another_pool_is_left_to_the_workers_of_that_pool() {
    let mut kit = Kit::new();
    kit.read("look");
    kit.machine("main", vec![acting("a", "look", "b"), acting("b", "look", "c"), acting("c", "look", "done"), done()]);
    let pools = [("b".into(), "gpu".into())].into_iter().collect();
    kit.place("main", Placement { pool: Some("cpu".into()), pools, priority: None });
    kit.settings.pools = vec!["cpu".into()];
    let (cpu, (stop_cpu, driving_cpu)) = {
        let engine = kit.engine();
        let served = serve(&engine);
        (engine, served)
    };
    let run = kit.submit(&cpu, "r").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let waiting = report(&cpu, &run).await;
    assert_eq!((waiting.head.status, &*waiting.head.pool), (Status::Queued, "gpu"));
    assert_eq!(waiting.run.state.as_deref(), Some("b"));
    kit.settings.pools = vec!["gpu".into()];
    let gpu = kit.another();
    let (stop_gpu, driving_gpu) = serve(&gpu);
    until(&kit, &run, Status::Completed).await;
    for stop in [stop_cpu, stop_gpu] {
        stop.graceful.cancel();
    }
    driving_cpu.await.expect("a task");
    driving_gpu.await.expect("a task");
    kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_the_caller_names_is_for_machines_that_name_none() {
    let mut kit = Kit::new();
    kit.read("look");
    kit.machine("main", vec![acting("a", "look", "done"), done()]);
    let engine = kit.engine();
    let given =
        |pool: &str| Queueing { pool: Some(pool.into()), priority: Some(Priority::High), ..Queueing::default() };
    let run = engine.submit(submission(&kit, "free", given("gpu"))).await.expect("submitted").run_id;
    let head = report(&engine, &run).await.head;
    assert_eq!((&*head.pool, head.priority), ("gpu", Priority::High));
    kit.place("main", Placement { pool: Some("cpu".into()), ..Placement::default() });
    assert!(matches!(engine.submit(submission(&kit, "x", given("gpu"))).await, Err(SubmitError::Pool { .. })));
    engine.submit(submission(&kit, "y", given("cpu"))).await.expect("the same pool");
}

fn submission(kit: &Kit, id: &str, queueing: Queueing) -> Submission {
    Submission {
        run_id: Some(RunId::stored(id)),
        queueing,
        ..Submission::new(Bundle::default(), kit.program(), Value::Null)
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_what_can_wait_first() {
    let mut kit = Kit::new();
    kit.read("look");
    kit.machine("main", vec![acting("a", "look", "done"), done()]);
    kit.settings.queued_max = Some(10);
    let engine = kit.engine();
    let mut taken = Vec::new();
    for class in [Priority::Low, Priority::Normal, Priority::High] {
        loop {
            let queueing = Queueing { priority: Some(class), ..Queueing::default() };
            match engine.submit(submission(&kit, &format!("r{}", taken.len()), queueing)).await {
                Ok(submitted) => taken.push(submitted.run_id),
                Err(SubmitError::Full { queued_max, .. }) => {
                    assert_eq!(taken.len(), queued_max as usize);
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    assert_eq!(taken.len(), 10);
    assert_eq!(engine.drive(Scope::Idle, Stop::new()).await.expect("driven"), Driven::Idle);
    for run in &taken {
        output(&engine, run).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_tenant_with_many_runs_does_not_hold_up_one_with_few() {
    let mut kit = Kit::new();
    let order = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&order);
    kit.tool(contract("look", Class::Read, Idempotency::None), move |invocation| {
        noted.lock().expect("lock").push(invocation.run.as_str().to_owned());
        async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            answer(1)
        }
    });
    kit.machine("main", vec![acting("a", "look", "done"), done()]);
    kit.settings.claim_slots = 8;
    kit.settings.held_max = 8;
    let engine = kit.engine();
    for (tenant, runs) in [("big", 1_000), ("small", 10)] {
        for n in 0..runs {
            let scope = TenantScope { tenant: tenant.into(), user: None };
            let submission = submission(&kit, &format!("{tenant}{n}"), Queueing::default());
            engine.submit(Submission { scope, ..submission }).await.expect("submitted");
        }
    }
    assert_eq!(engine.drive(Scope::Idle, Stop::new()).await.expect("driven"), Driven::Idle);
    let order = order.lock().expect("lock");
    let last = order.iter().rposition(|run| run.starts_with("small")).expect("they ran");
    assert!(last < 60, "the last of ten came {last}th of 1,010");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_needs_what_a_worker_lacks_is_left_for_another() {
    let mut kit = Kit::new();
    kit.read("look");
    kit.machine("main", vec![acting("a", "look", "done"), done()]);
    let poor = kit.without("look");
    let run = kit.submit(&poor, "r").await;
    let (stop, driving) = serve(&poor);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let left = report(&poor, &run).await.head;
    assert_eq!((left.status, left.owner, left.version), (Status::Queued, None, 0), "nothing was decided");
    let rich = kit.another();
    let (stop_rich, driving_rich) = serve(&rich);
    until(&kit, &run, Status::Completed).await;
    for stop in [stop, stop_rich] {
        stop.graceful.cancel();
    }
    driving.await.expect("a task");
    driving_rich.await.expect("a task");
    kit.fsck().await;
}

/// A model that this process cannot call.
#[derive(Debug)]
struct Keyless;

impl Model for Keyless {
    fn call(&self, _: ModelRequest) -> BoxFuture<'_, ModelResult> {
        panic!("nobody may ask a model that this process lacks")
    }

    fn quote(&self, _: &ModelSettings) -> Option<Quote> {
        None
    }

    fn lacks(&self, settings: &ModelSettings) -> Option<Name> {
        Some(format!("key for `{}`", settings.provider).into())
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_model_a_worker_cannot_call_is_left_for_another() {
    let mut kit = Kit::new();
    kit.read("look");
    kit.machine("main", vec![acting("a", "look", "done"), done()]);
    kit.agent("main");
    let able = kit.another();
    kit.model = Arc::new(Keyless);
    let poor = kit.another();
    let run = kit.submit(&poor, "r").await;
    let (stop, driving) = serve(&poor);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let left = report(&poor, &run).await.head;
    assert_eq!((left.status, left.owner, left.version), (Status::Queued, None, 0), "nothing was decided");
    let (stop_able, driving_able) = serve(&able);
    until(&kit, &run, Status::Completed).await;
    for stop in [stop, stop_able] {
        stop.graceful.cancel();
    }
    driving.await.expect("a task");
    driving_able.await.expect("a task");
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_claim_was_answered_and_not_heard_is_driven_all_the_same() {
    let mut kit = Kit::new();
    let called = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&called);
    kit.tool(contract("send", Class::Write, Idempotency::None), move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { answer(1) }
    });
    kit.machine("main", vec![acting("a", "send", "done"), done()]);
    let store = Arc::new(Unreliable::new(kit.store.another()));
    store.lose_claims(1);
    let engine = kit.engine_on(Arc::clone(&store) as Arc<dyn Store>);
    let (stop, driving) = serve(&engine);
    let runs = [kit.submit(&kit.another(), "a").await, kit.submit(&kit.another(), "b").await];
    for run in &runs {
        until(&kit, run, Status::Completed).await;
    }
    assert_eq!(called.load(Ordering::SeqCst), 2, "each was done once");
    let head = report(&engine, &runs[0]).await.head;
    assert_eq!((head.epoch, head.strikes), (1, 0), "under the lease that was not heard of, and nobody was lost");
    stop.graceful.cancel();
    driving.await.expect("a task");
    kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_of_a_store_that_became_newer_ends_what_it_holds_and_says_why() {
    let mut kit = Kit::new();
    let called = Arc::new(Notify::new());
    let calling = Arc::clone(&called);
    kit.tool(contract("slow", Class::Read, Idempotency::None), move |_| {
        calling.notify_one();
        async {
            tokio::time::sleep(Duration::from_secs(15)).await;
            answer(1)
        }
    });
    kit.machine("main", vec![acting("a", "slow", "b"), acting("b", "slow", "done"), done()]);
    let store = Arc::new(Unreliable::new(kit.store.another()));
    let engine = kit.engine_on(Arc::clone(&store) as Arc<dyn Store>);
    let run = kit.submit(&engine, "r").await;
    let driving = tokio::spawn(async move { engine.drive(Scope::All, Stop::new()).await });
    called.notified().await;
    store.outdate();
    match driving.await.expect("a task") {
        Err(EngineError::Store(StoreError::NewerSchema { found: 3, known: 2 })) => {}
        other => panic!("{other:?}"),
    }
    let another = kit.another();
    let late = kit.submit(&another, "late").await;
    let left = report(&another, &run).await;
    assert_eq!((left.head.status, left.run.state.as_deref()), (Status::Queued, Some("b")), "its call was let end");
    assert_eq!(report(&another, &late).await.head.version, 0, "it claims no more");
    kit.fsck().await;
}

/// A process whose store takes what is planned of its commits and then no word any more.
struct Doomed {
    store: Arc<Unreliable>,
    driving: tokio::task::JoinHandle<Driven>,
    _stop: Stop,
}

impl Doomed {
    fn start(kit: &Kit, plan: &[Lose]) -> Self {
        let store = Arc::new(Unreliable::new(kit.store.another()));
        store.plan(plan);
        let (stop, driving) = serve(&kit.engine_on(Arc::clone(&store) as Arc<dyn Store>));
        Self { store, driving, _stop: stop }
    }

    async fn is_at_its_end(&self) {
        while !self.store.is_done() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn die(self) {
        self.driving.abort();
        let _cancelled = self.driving.await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_takes_workers_down_is_driven_alone_and_then_quarantined() {
    let mut kit = Kit::new();
    let busy = Arc::new(AtomicUsize::new(0));
    let working = Arc::clone(&busy);
    kit.tool(contract("work", Class::Read, Idempotency::None), move |_| {
        let working = Arc::clone(&working);
        async move {
            working.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(5)).await;
            working.fetch_sub(1, Ordering::SeqCst);
            answer(1)
        }
    });
    kit.machine("main", vec![acting("a", "work", "done"), done()]);
    let run = kit.submit(&kit.engine(), "deadly").await;
    let first = Doomed::start(&kit, &[Lose::Word]);
    first.is_at_its_end().await;
    first.die().await;
    // It has room for nothing else.
    kit.settings.held_max = 1;
    let second = Doomed::start(&kit, &[Lose::Word]);
    second.is_at_its_end().await;
    kit.settings.held_max = 4;
    // The third is at work on another run when it gets the suspect: it ends that first.
    let third = Doomed::start(&kit, &[]);
    let long = kit.submit(&kit.another(), "long").await;
    while busy.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    third.store.plan(&[Lose::Nothing, Lose::Word]);
    second.die().await;
    third.is_at_its_end().await;
    assert_eq!(busy.load(Ordering::SeqCst), 0);
    assert_eq!(report(&kit.another(), &long).await.head.status, Status::Completed);
    third.die().await;
    let engine = kit.another();
    let (stop, driving) = serve(&engine);
    until(&kit, &run, Status::Quarantined).await;
    let head = report(&engine, &run).await.head;
    assert!(head.quarantine.is_some_and(|why| why.contains("lost")));
    assert!(kit.store.requeue(run.clone()).await.expect("requeued"));
    until(&kit, &run, Status::Completed).await;
    stop.graceful.cancel();
    driving.await.expect("a task");
    kit.fsck().await;
}

/// Counts for as long as it lives.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_takes_workers_down_takes_its_neighbours_along_twice_at_most() {
    let mut kit = Kit::new();
    let (deadly, company) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (kills, working) = (Arc::clone(&deadly), Arc::clone(&company));
    kit.tool(contract("work", Class::Read, Idempotency::None), move |call| {
        let (kills, working) = (Arc::clone(&kills), Arc::clone(&working));
        async move {
            if call.run.as_str() == "poison" {
                tokio::time::sleep(Duration::from_millis(200)).await;
                kills.notify_one();
                return std::future::pending().await;
            }
            let _at_work = Counted::new(&working);
            tokio::time::sleep(Duration::from_secs(1)).await;
            answer(1)
        }
    });
    kit.machine("main", vec![acting("a", "work", "done"), done()]);
    let poison = kit.submit(&kit.engine(), "poison").await;
    let mut neighbours = Vec::new();
    for n in 0..4 {
        neighbours.push(kit.submit(&kit.engine(), &format!("healthy-{n}")).await);
    }
    let mut deaths = Vec::new();
    loop {
        let engine = kit.another();
        let (_stop, driving) = serve(&engine);
        let is_deadly = tokio::select! {
            () = deadly.notified() => true,
            () = until(&kit, &poison, Status::Quarantined) => false,
        };
        let neighbours = company.load(Ordering::SeqCst);
        driving.abort();
        assert!(driving.await.is_err());
        if !is_deadly {
            break;
        }
        deaths.push(neighbours);
        assert!(deaths.len() < 10, "it is quarantined in the end: {deaths:?}");
    }
    assert_eq!(deaths, [4, 4, 0, 0, 0], "neighbours at each death");
    let engine = kit.another();
    let (stop, driving) = serve(&engine);
    for neighbour in &neighbours {
        until(&kit, neighbour, Status::Completed).await;
    }
    stop.graceful.cancel();
    driving.await.expect("a task");
    kit.fsck().await;
}
