//! Limits of rates over several workers of one database: what a counting server sees stays within the burst and the rate
//! of all of them together, whoever makes the calls.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures::future::join_all;
use windlass::Windlass;
use windlass::wire::{ProviderConfig, Wiring};
use windlass_core::ids::RunId;
use windlass_core::run::Status;
use windlass_core::value::Value;
use windlass_ports::store::rates::Rate;
use windlass_ports::store::{Query, Store};
use windlass_runtime::rates::{Limit, Limits, Pick, Picks, Unit};
use windlass_runtime::{Scope, Settings, Stop};
use windlass_spec::source::MemoryFiles;

use crate::chains::desk::{Server, openai};
use crate::crew::{Orders, Worker};

const MACHINE: &str = r#"
spec: flatmachine
spec_version: 4.2.1
data:
  name: asks
  context: {n: "{{ input.n }}"}
  agents:
    asker: {spec: flatagent, spec_version: 4.2.1, data: {model: {provider: one, name: m, timeout: 120, max_tokens: 10}, system: S, user: "ask {{ input.n }}"}}
  states:
    ask: {type: initial, agent: asker, input: {n: context.n}, output_to_context: {r: output.content}, transitions: [{to: end}]}
    end: {type: final, output: {r: context.r}}
"#;

/// Workers of one store.
pub(crate) struct Fleet {
    pub(crate) workers: Vec<Windlass>,
}

impl Fleet {
    /// So many workers, each as a process of its own would be.
    async fn new(url: &str, server: &str, count: usize, limits: &Limits) -> Self {
        Self::with_slots(url, server, count, limits, Settings::default().call_slots).await
    }

    /// The same, each with so many calls out at the same time.
    pub(crate) async fn with_slots(url: &str, server: &str, count: usize, limits: &Limits, slots: usize) -> Self {
        let provider = ProviderConfig { base_url: Some(server.to_owned()), ..ProviderConfig::default() };
        let mut workers = Vec::new();
        for _ in 0..count {
            let wiring =
                Wiring { providers: BTreeMap::from([("one".to_owned(), provider.clone())]), ..Wiring::default() };
            let rates = Arc::new(limits.clone());
            let settings = Settings { rates, call_slots: slots, ..Settings::default() };
            let built = Windlass::builder().store(url).wiring(wiring).settings(settings).build().await;
            workers.push(built.expect("built"));
        }
        Self { workers }
    }

    /// Puts runs of a machine into the queue.
    pub(crate) async fn submit(&self, machine: &str, name: &str, count: usize) {
        let files = MemoryFiles::new().with("machine.yml", machine);
        for n in 0..count {
            let id = RunId::new(&format!("{name}{n}")).expect("an id");
            let input = Value::object([("n", Value::Int(n as i64))]);
            self.workers[0].submit(&files, "machine.yml", input, Some(id)).await.expect("valid");
        }
    }

    /// Drives everything to its end, on all workers.
    pub(crate) async fn drive(&self) {
        let stop = Stop::new();
        let driving = join_all(self.workers.iter().map(|worker| worker.engine().drive(Scope::All, stop.clone())));
        let ended = async {
            let statuses: Vec<Status> = Status::ALL.into_iter().filter(|status| !status.is_final()).collect();
            let store = &self.workers[0].engine().parts().store;
            loop {
                let query = Query { statuses: statuses.clone(), limit: 1, ..Query::default() };
                if store.list(query).await.expect("listed").heads.is_empty() {
                    break;
                }
                // Slow on purpose: the workers do the work.
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            stop.graceful.cancel();
        };
        let (driven, ()) = futures::future::join(driving, ended).await;
        driven.into_iter().for_each(|driven| drop(driven.expect("driven")));
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.workers[0].engine().parts().store
    }

    /// Runs of a status.
    pub(crate) async fn count(&self, status: Status) -> usize {
        let query = Query { statuses: vec![status], limit: 1_000, ..Query::default() };
        self.store().list(query).await.expect("listed").heads.len()
    }
}

fn limit(picks: Picks, unit: Unit, rate: Rate) -> Limit {
    Limit { picks, unit, rate, wait_ms: None }
}

/// Whether what came stays within burst and rate from a time before anything was asked for. However late something
/// comes, it was let go before.
fn within(rate: Rate, began: Instant, came: &[(Instant, u64)]) -> Result<(), String> {
    let mut sum = 0;
    for (at, much) in came {
        sum += much;
        let ms = u64::try_from(at.duration_since(began).as_millis()).unwrap_or(u64::MAX) + 1;
        let bound = rate.burst + rate.amount * ms / rate.per_ms + 1;
        if sum > bound {
            return Err(format!("{sum} came within {ms} ms, where {bound} may"));
        }
    }
    Ok(())
}

type Arrivals = Arc<Mutex<Vec<(Instant, u64)>>>;

/// So many tokens each answer says.
const TOKENS: u64 = 25;

/// Runs through worker processes, each with one of these stores, and what the server saw of tokens.
async fn crew(stores: &[String], workers: usize, runs: usize, rate: Rate) -> Result<(), String> {
    let (server, came) = counting(TOKENS);
    let orders = |n: usize| Orders {
        store: stores[n % stores.len()].clone(),
        server: server.url.clone(),
        slots: Settings::default().call_slots,
        tokens: Some(rate),
    };
    for n in 0..stores.len() {
        orders(n).office().await.submit(MACHINE, "r", runs / stores.len()).await;
    }
    let mut crew: Vec<Worker> = (0..workers).map(|n| Worker::hire(&orders(n))).collect();
    let began = Instant::now();
    crew.iter_mut().for_each(Worker::begin);
    tokio::task::block_in_place(|| crew.into_iter().for_each(Worker::end));
    for n in 0..stores.len() {
        assert_eq!(orders(n).office().await.count(Status::Completed).await, runs / stores.len(), "all runs end");
    }
    let came = came.lock().expect("the log").clone();
    assert_eq!(came.len(), runs, "each makes its one call");
    within(rate, began, &came)
}

/// What a call says that it may use is less than the burst, so that several are out at the same time.
const TOKEN_RATE: Rate = Rate { amount: 100, per_ms: 1_000, burst: 200 };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_three_processes_on_a_database_stay_within_one_rate() {
    let database = windlass_testpg::database();
    crew(&[database.url()], 3, 24, TOKEN_RATE).await.unwrap_or_else(|why| panic!("{why}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_three_processes_on_a_file_stay_within_one_rate() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = format!("sqlite:{}", folder.path().join("windlass.db").display());
    crew(&[store], 3, 24, TOKEN_RATE).await.unwrap_or_else(|why| panic!("{why}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_share_no_store_are_seen_to_exceed_the_rate() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = |n: usize| format!("sqlite:{}", folder.path().join(format!("{n}.db")).display());
    let stores: Vec<String> = (0..3).map(store).collect();
    let why = crew(&stores, 3, 24, TOKEN_RATE).await.expect_err("three bursts are more than one");
    assert!(why.contains("came within"), "{why}");
}

fn counting(much: u64) -> (Server, Arrivals) {
    let came: Arrivals = Arc::default();
    let log = Arc::clone(&came);
    let server = Server::start(move |_, _| {
        log.lock().expect("the log").push((Instant::now(), much));
        openai("answer")
    });
    (server, came)
}

async fn bounded(rate: Rate, unit: Unit, workers: usize, runs: usize) -> Result<(), String> {
    let database = windlass_testpg::database();
    let (server, came) = counting(if unit == Unit::Tokens { TOKENS } else { 1 });
    let picks = Picks { model: Some(Pick::Each), ..Picks::default() };
    let limits = Limits::new(vec![limit(picks, unit, rate)]).expect("limits");
    let fleet = Fleet::new(&database.url(), &server.url, workers, &limits).await;
    fleet.submit(MACHINE, "r", runs).await;
    // From here: what is earlier would widen the bound.
    let began = Instant::now();
    fleet.drive().await;
    assert_eq!(fleet.count(Status::Completed).await, runs, "all runs end");
    let came = came.lock().expect("the log").clone();
    assert_eq!(came.len(), runs, "each makes its one call");
    within(rate, began, &came)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_three_workers_stay_within_one_rate() {
    let rate = Rate { amount: 20, per_ms: 1_000, burst: 5 };
    bounded(rate, Unit::Calls, 3, 60).await.unwrap_or_else(|why| panic!("{why}"));
}

#[test]
fn more_than_the_rate_is_noticed() {
    let began = Instant::now();
    let rate = Rate { amount: 1, per_ms: 60_000, burst: 5 };
    let came = |count: usize| vec![(began, 1); count];
    assert_eq!(within(rate, began, &came(6)), Ok(()));
    assert!(within(rate, began, &came(7)).is_err());
}
