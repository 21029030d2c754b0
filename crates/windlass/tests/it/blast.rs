//! A tree of three levels whose root is cancelled while calls of its grandchildren are out: all of it stops, nothing is left
//! out, and what it cost is what the root says that it cost.

use std::sync::Arc;

use tokio::sync::Semaphore;
use windlass::Windlass;
use windlass_core::budget::Amounts;
use windlass_core::contract::{Class, Contract, Idempotency};
use windlass_core::ids::RunId;
use windlass_core::input::Input;
use windlass_core::journal::{Entry, Record};
use windlass_core::run::{Run, Status};
use windlass_core::value::Value;
use windlass_ports::store::{Message, Query, Store};
use windlass_spec::source::MemoryFiles;
use windlass_tools::FnTool;

/// Children of each run above the lowest level.
const WIDTH: usize = 3;
/// What one call of the model costs: 20 tokens in at $3.00, 8 out at $15.00 per million.
const CALL: Amounts = Amounts { model_calls: 1, tokens: 28, cost_micros: 180, ..Amounts::ZERO };

const SCRIPT: &str = "prices: {small: {input: 3000000, output: 15000000}}\nrules:\n  \
    - {agent: clerk, reply: {content: Done., usage: {input: 20, output: 8}}}\n";

/// Asks the model, and then `next`.
fn machine(name: &str, below: &str, next: &str) -> String {
    format!(
        "spec: flatmachine\nspec_version: \"4.2.1\"\ndata:\n  name: {name}\n  context: {{items: [1, 2, 3]}}\n  \
         machines: {{{below}}}\n  agents:\n    clerk: {{spec: flatagent, spec_version: \"4.2.1\", \
         data: {{name: clerk, model: {{provider: scripted, name: small, max_tokens: 100}}, user: Go.}}}}\n  states:\n    \
         think: {{type: initial, agent: clerk, transitions: [{{to: below}}]}}\n    \
         below: {{{next}, transitions: [{{to: done}}]}}\n    done: {{type: final}}\n"
    )
}

fn documents() -> MemoryFiles {
    let each = "foreach: context.items, as: n, machine: below";
    MemoryFiles::new()
        .with("root.yml", machine("root", "below: ./middle.yml", each))
        .with("middle.yml", machine("middle", "below: ./leaf.yml", each))
        .with("leaf.yml", machine("leaf", "", "action: hold"))
}

/// Says that a call came to its end, whichever that is.
struct Ends(Arc<Semaphore>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

/// An engine whose action never answers: a permit for each call of it that began, and for each that was dropped.
async fn engine(store: &str) -> (Windlass, Arc<Semaphore>, Arc<Semaphore>) {
    let (begun, ended) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (told, ends) = (Arc::clone(&begun), Arc::clone(&ended));
    let contract = Contract { class: Class::Write, idempotency: Idempotency::Key, ..Contract::undeclared("hold") };
    let hold = FnTool::new(contract, move |_| {
        let ends = Ends(Arc::clone(&ends));
        told.add_permits(1);
        async move {
            let _ends = ends;
            std::future::pending().await
        }
    });
    (Windlass::builder().store(store).script(SCRIPT).tool(hold).build().await.expect("built"), begun, ended)
}

async fn tree(windlass: &Windlass, root: &RunId) -> Vec<Run> {
    let query = Query { root: Some(root.clone()), limit: 100, ..Query::default() };
    let mut runs = Vec::new();
    for head in windlass.engine().parts().store.list(query).await.expect("a list").heads {
        runs.push(windlass.engine().status(&head.id).await.expect("read").expect("there").run);
    }
    runs
}

/// Every call that a journal began it ended, and the audit has both.
async fn no_call_is_orphaned(store: &dyn Store, run: &RunId) {
    let mut open = std::collections::BTreeSet::new();
    for row in store.journal(run.clone(), 0, 1_000).await.expect("a journal") {
        for entry in Record::decode(&row.bytes).expect("a record").entries {
            match entry {
                Entry::CallIntended { effect, .. } => assert!(open.insert(effect), "{run}: {effect:?} twice"),
                Entry::CallSettled { effect, .. } | Entry::CallAbandoned { effect, .. } => {
                    assert!(open.remove(&effect), "{run}: {effect:?} was not open");
                }
                _ => {}
            }
        }
    }
    assert!(open.is_empty(), "{run}: {open:?} are open for ever");
    let rows = store.audit(run.clone()).await.expect("rows");
    let calls = rows.iter().filter(|row| &*row.kind != "run");
    let (before, after): (Vec<_>, Vec<_>) = calls.partition(|row| &*row.stage == "intended");
    assert!(!before.is_empty() && before.len() == after.len(), "{run}: {before:?} {after:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelling_stops_grandchildren_in_the_middle_of_their_calls_and_every_cost_is_counted_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let (windlass, begun, ended) = engine(&format!("sqlite:{}", folder.path().join("w.db").display())).await;
    let root = windlass.submit(&documents(), "root.yml", Value::empty_map(), None).await.expect("valid");
    let windlass = Arc::new(windlass);
    let driving = tokio::spawn({
        let (windlass, root) = (Arc::clone(&windlass), root.clone());
        async move { windlass.resume(&root).await.expect("driven") }
    });
    let leaves = WIDTH * WIDTH;
    begun.acquire_many(leaves as u32).await.expect("calls of all grandchildren").forget();
    assert_eq!(ended.available_permits(), 0, "all of them are out");
    let store = &windlass.engine().parts().store;
    let cancel = Message { to: root.clone(), id: "stop".into(), input: Input::Cancel { reason: "enough".into() } };
    store.deliver(cancel).await.expect("delivered");
    driving.await.expect("it ends");
    ended.acquire_many(leaves as u32).await.expect("all of them are dropped").forget();
    assert_eq!((begun.available_permits(), ended.available_permits()), (0, 0), "and none was made again");

    let runs = tree(&windlass, &root).await;
    assert_eq!(runs.len(), 1 + WIDTH + leaves);
    for run in &runs {
        assert_eq!(run.status(), Status::Cancelled, "{}: {:?}", run.id(), run.ending);
        assert!(run.calls.is_empty() && run.waits.is_empty() && run.timers.is_empty() && run.children.is_empty());
        assert!(
            run.ledger.reserved.is_zero() && run.ledger.estimated.cost_micros == 0,
            "{}: {:?}",
            run.id(),
            run.ledger
        );
        no_call_is_orphaned(&**store, run.id()).await;
    }
    for run in &runs {
        // Its own call, and what those below it said that they used.
        let mut sum = CALL;
        let below = runs.iter().filter(|one| one.start.parent.as_ref().is_some_and(|parent| parent.run == *run.id()));
        below.for_each(|one| sum.add(&one.ledger.settled));
        let used = run.ledger.settled;
        let of = |all: &Amounts| (all.model_calls, all.tokens, all.cost_micros);
        assert_eq!(of(&used), of(&sum), "{}", run.id());
    }
    let root = runs.iter().find(|run| *run.id() == root).expect("the root").ledger.settled;
    let count = runs.len() as u64;
    assert_eq!((root.model_calls, root.tokens, root.cost_micros), (count, count * 28, count * 180));
    assert_eq!(store.fsck().await.expect("fsck"), Vec::new());
}
