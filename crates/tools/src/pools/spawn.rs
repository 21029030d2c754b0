//! How many worker machines are wanted, and asking the engine for them.

use windlass_core::spawn::Spawn;
use windlass_core::value::{Map, Value};

use super::jobs::Given;
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

    /// Asks for `context.workers_to_spawn` runs of the machine of `context.worker_config_path`. The engine starts them
    /// with the commit that takes this answer, and adds their ids to it: nothing has happened before, so that a repeat of
    /// the call starts nothing twice.
    pub(super) fn spawn(&self) -> Given {
        let count = self.number("workers_to_spawn", 0).min(SPAWN_MAX);
        if count == 0 {
            let output = output([("spawned_ids", Value::list(Vec::new())), ("spawned_count", Value::count(0))]);
            return Given { output, ..Given::default() };
        }
        let path = self.text("worker_config_path").unwrap_or(WORKER_DOCUMENT);
        let machine = path.strip_prefix("./").unwrap_or(path).into();
        let input = Value::object([("pool_id", Value::from(self.pool()))]);
        Given { spawn: Some(Spawn { machine, count, input }), ..Given::default() }
    }
}
