//! Calls that wait for their turn have not left: whoever takes their run over sends them, once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, Semaphore};
use windlass_core::contract::{Class, Contract, Idempotency};
use windlass_core::failure::Failure;
use windlass_core::run::Status;
use windlass_core::value::Value;
use windlass_ports::BoxFuture;
use windlass_ports::tool::{Invocation, Tool};

use crate::kit::{Kit, acting, answer, contract, done, report, tree};

/// A tool that makes calls wait.
#[derive(Debug)]
struct Queued {
    contract: Contract,
    waits: Notify,
    turns: Semaphore,
    inside: Notify,
    goes_on: Semaphore,
    calls: AtomicUsize,
}

impl Queued {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            contract: contract("pay", Class::Write, Idempotency::None),
            waits: Notify::new(),
            turns: Semaphore::new(0),
            inside: Notify::new(),
            goes_on: Semaphore::new(0),
            calls: AtomicUsize::new(0),
        })
    }
}

impl Tool for Queued {
    fn contract(&self) -> &Contract {
        &self.contract
    }

    fn call(&self, invocation: Invocation) -> BoxFuture<'_, Result<Value, Failure>> {
        Box::pin(async move {
            self.waits.notify_one();
            self.turns.acquire().await.expect("open").forget();
            invocation.permit.depart()?;
            self.calls.fetch_add(1, Ordering::SeqCst);
            self.inside.notify_one();
            self.goes_on.acquire().await.expect("open").forget();
            answer(1)
        })
    }

    fn attempt(&self, invocation: Invocation) -> BoxFuture<'_, Result<Value, Failure>> {
        self.call(invocation)
    }
}

/// Drives a run until `point`, ends its process there, and lets another one take it over.
async fn taken_over(tool: &Arc<Queued>, point: &Notify) -> (Status, usize) {
    let mut kit = Kit::new();
    kit.own_tool(Arc::clone(tool) as Arc<dyn Tool>);
    kit.machine("main", vec![acting("a", "pay", "done"), done()]);
    // The workers of a handle that is dropped are dead.
    let first = kit.another();
    let run = kit.submit(&first, "r").await;
    let driving = {
        let run = run.clone();
        tokio::spawn(async move { tree(&first, &run).await })
    };
    point.notified().await;
    driving.abort();
    assert!(driving.await.expect_err("ended").is_cancelled());
    tool.turns.add_permits(1);
    tool.goes_on.add_permits(1);
    let second = kit.another();
    tree(&second, &run).await;
    let status = report(&second, &run).await.head.status;
    kit.fsck().await;
    (status, tool.calls.load(Ordering::SeqCst))
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_process_ended_while_it_waited_is_sent_by_the_next() {
    let tool = Queued::new();
    assert_eq!(taken_over(&tool, &tool.waits).await, (Status::Completed, 1));
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_process_ended_after_its_turn_may_have_happened() {
    let tool = Queued::new();
    tool.turns.add_permits(1);
    assert_eq!(taken_over(&tool, &tool.inside).await, (Status::Attention, 1));
}
