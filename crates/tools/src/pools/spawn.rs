//! How many worker machines are wanted, and starting them: each is a run of its own in the queue.

use windlass_core::failure::{Code, Failure};
use windlass_core::ids::{Digest, Name, RunId};
use windlass_core::machine::Machine;
use windlass_core::run::Start;
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
            let (key, machine) = self.worker_machine(caller.bundle).await?;
            for ordinal in 0..wanted {
                let start = self.start(&caller, &key, &machine, ordinal);
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

    fn start(&self, caller: &Start, key: &Name, machine: &Machine, ordinal: u64) -> Start {
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
            ceilings: machine.ceilings.tighter(&caller.ceilings),
            deadline: None,
            origin: None,
            terms: windlass_core::run::Terms::default(),
            watched: false,
            labels: None,
        }
    }

    /// The machine that workers run, and its key.
    async fn worker_machine(&self, bundle: Digest) -> Result<(Name, std::sync::Arc<Machine>), Failure> {
        let path = self.text("worker_config_path").unwrap_or(WORKER_DOCUMENT);
        let key: Name = path.strip_prefix("./").unwrap_or(path).into();
        let bytes = self.behind.store.blob(bundle).await.map_err(|error| self.fault(&error))?;
        let bundle = bytes.and_then(|bytes| Bundle::decode(&bytes).ok());
        let bundle = bundle.ok_or_else(|| self.refused("the documents of the run cannot be read".into()))?;
        let program = self.behind.compiler.compile(&bundle).map_err(|error| self.refused(error.to_string()))?;
        match program.machines.get(&key) {
            Some(machine) => Ok((key, std::sync::Arc::clone(machine))),
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
