//! How many worker machines are wanted, and starting them: each is a run of its own in the queue.

use std::sync::Arc;

use windlass_core::failure::{Code, Failure};
use windlass_core::ids::{Digest, Name, RunId};
use windlass_core::machine::{ChildContract, Machine};
use windlass_core::run::{Start, Terms};
use windlass_core::value::{Map, Value};
use windlass_ports::compile::Bundle;
use windlass_ports::store::{NewRun, Queueing};

use super::{Asked, output};

/// Worker machines at most when nobody says.
const WORKERS_MAX: u64 = 3;
/// Worker machines that are started at a time.
const SPAWN_MAX: u64 = 1_000;
/// The document of worker machines when nobody says.
const WORKER_DOCUMENT: &str = "job_worker.yml";

/// What workers are started as.
struct Worker {
    key: Name,
    machine: Arc<Machine>,
    contracts: Vec<ChildContract>,
}

/// The contracts under which a machine names another one. A worker is bound by all of them: it is not said by which name
/// it was meant.
fn contracts(above: &Machine, key: &Name) -> Vec<ChildContract> {
    let names = above.machines.iter().filter(|(_, named)| *named == key).map(|(name, _)| name);
    names.filter_map(|name| above.child_contracts.get(name).cloned()).collect()
}

/// What a worker may do: never more than whoever asks for it, and than any of its contracts says.
fn terms(caller: &Start, contracts: &[ChildContract]) -> Terms {
    let mut terms = caller.terms.clone();
    for contract in contracts {
        let least = terms.output_bytes.into_iter().chain(contract.output_bytes).min();
        terms = Terms { output_bytes: least, ..terms.narrowed(Some(contract)) };
    }
    terms
}

impl Asked<'_> {
    /// As many workers as there are jobs, up to `context.max_workers`, less those that work already.
    pub(super) fn calculate_spawn(&self) -> Map {
        let needed = self.number("queue_depth", 0).min(self.number("max_workers", WORKERS_MAX));
        let missing = needed.saturating_sub(self.number("active_workers", 0)).min(SPAWN_MAX);
        output([
            ("workers_needed", Value::count(needed)),
            ("workers_to_spawn", Value::count(missing)),
            ("spawn_list", Value::list((0..missing).map(Value::count).collect())),
        ])
    }

    /// Starts `context.workers_to_spawn` runs of the machine of `context.worker_config_path`, with the documents that
    /// the calling run is pinned to.
    pub(super) async fn spawn(&self) -> Result<Map, Failure> {
        let wanted = self.number("workers_to_spawn", 0).min(SPAWN_MAX);
        let mut ids = Vec::new();
        if wanted > 0 {
            let store = &self.behind.store;
            let stored = store.load(RunId::stored(self.run())).await.map_err(|error| self.fault(&error))?;
            let caller = stored.ok_or_else(|| self.refused("the run that asks is not in the store".into()))?.start;
            let worker = self.worker_machine(&caller).await?;
            let machine = &worker.machine;
            for ordinal in 0..wanted {
                let start = self.start(&caller, &worker, ordinal);
                ids.push(Value::from(start.id.as_str()));
                let queueing = Queueing {
                    pool: machine.pool_of(Some(&machine.initial)).cloned(),
                    priority: machine.placement.priority,
                    ..Queueing::default()
                };
                // One of the same id was started by an earlier attempt at this call.
                store.create(NewRun { start, at: self.now(), queueing }).await.map_err(|error| self.fault(&error))?;
            }
        }
        let count = Value::count(ids.len() as u64);
        Ok(output([("spawned_ids", Value::list(ids)), ("spawned_count", count)]))
    }

    fn start(&self, caller: &Start, worker: &Worker, ordinal: u64) -> Start {
        let Worker { key, machine, contracts } = worker;
        let mark = Digest::of(format!("{}/{ordinal}", self.event.idempotency_key).as_bytes()).short().to_string();
        let id = RunId::stored(&format!("worker-{mark}"));
        Start {
            id: id.clone(),
            bundle: caller.bundle,
            machine: key.clone(),
            machine_name: machine.name.clone(),
            input: Value::object([("pool_id", Value::from(self.pool())), ("worker_id", Value::from(id.as_str()))]),
            parent: None,
            root: id,
            depth: 0,
            scope: caller.scope.clone(),
            ceilings: contracts
                .iter()
                .fold(machine.ceilings.tighter(&caller.ceilings), |all, contract| all.tighter(&contract.ceilings)),
            deadline: None,
            origin: None,
            watched: false,
            labels: None,
            hidden: windlass_core::hidden::Hidden::default(),
            terms: terms(caller, contracts),
            audit: 0,
            caller: caller.caller.clone(),
            model: None,
        }
    }

    /// The machine that workers run, with every contract under which the caller's machine names it.
    async fn worker_machine(&self, caller: &Start) -> Result<Worker, Failure> {
        let path = self.text("worker_config_path").unwrap_or(WORKER_DOCUMENT);
        let key: Name = path.strip_prefix("./").unwrap_or(path).into();
        let bytes = self.behind.store.blob(caller.bundle).await.map_err(|error| self.fault(&error))?;
        let bundle = bytes.and_then(|bytes| Bundle::decode(&bytes).ok());
        let bundle = bundle.ok_or_else(|| self.refused("the documents of the run cannot be read".into()))?;
        let program = self.behind.compiler.compile(&bundle).map_err(|error| self.refused(error.to_string()))?;
        match program.machines.get(&key) {
            Some(machine) => {
                let contracts = program.machines.get(&caller.machine).map(|above| contracts(above, &key));
                Ok(Worker { machine: Arc::clone(machine), contracts: contracts.unwrap_or_default(), key })
            }
            None => {
                let message = format!(
                    "`{key}` is no machine of this run's documents; list it in `machines`, or name another one as `context.worker_config_path`"
                );
                Err(self.refused(message).error_type("ValueError"))
            }
        }
    }

    fn refused(&self, message: String) -> Failure {
        Failure::new(Code::HookFailed, message)
    }
}
