//! The worker machines that registered, and those of them that are lost.
//!
//! A worker machine is a run. One that is stored and has not ended is not lost, however long its heartbeat is ago: it
//! goes on when a process takes it up. One that has ended without a word is.

use serde::{Deserialize, Serialize};
use windlass_core::failure::Failure;
use windlass_core::ids::RunId;
use windlass_core::time::Timestamp;
use windlass_core::value::{Map, Value};

use super::{Asked, TRIES_MAX, decode, encode, output, time};

/// After how many seconds without a heartbeat a worker is looked at, when nobody says.
const STALE_SECONDS: u64 = 60;

/// What a worker machine is up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Active,
    Terminated,
    Lost,
}

/// A worker machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Worker {
    status: Status,
    run: String,
    pool: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    capabilities: Option<Value>,
    started_at: u64,
    last_heartbeat: u64,
}

impl Asked<'_> {
    /// The worker machines of the tenant, of every pool.
    fn roster(&self) -> String {
        self.list("workers", "")
    }

    /// How many worker machines are active.
    pub(super) async fn active(&self) -> Result<u64, Failure> {
        let mut active = 0;
        for object in self.objects(&self.roster()).await? {
            let worker: Worker = decode(&object)?;
            active += u64::from(worker.status == Status::Active && worker.pool == self.pool());
        }
        Ok(active)
    }

    /// Registers `context.worker_id`.
    pub(super) async fn register(&self) -> Result<Map, Failure> {
        let id = self.needed("worker_id", self.text("worker_id"))?;
        let now = self.now().0;
        let worker = Worker {
            status: Status::Active,
            run: self.run().to_owned(),
            pool: self.pool().to_owned(),
            capabilities: self.context("capabilities").cloned(),
            started_at: now,
            last_heartbeat: now,
        };
        let worker = self.change(id, |known| match known {
            // A repeat of the call, or a word from the same run.
            Some(known) if known.run == worker.run && known.status == Status::Active => known,
            _ => worker.clone(),
        });
        let worker = worker.await?;
        Ok(output([
            ("worker_id", Value::from(id)),
            ("status", Value::from("active")),
            ("registered_at", time(Timestamp(worker.started_at))),
        ]))
    }

    /// The worker ends as it should.
    pub(super) async fn deregister(&self) -> Result<Map, Failure> {
        let id = self.needed("worker_id", self.text("worker_id"))?;
        self.mark(id, Status::Terminated).await?;
        Ok(Map::new())
    }

    /// A sign of life of the worker.
    pub(super) async fn heartbeat(&self) -> Result<Map, Failure> {
        let id = self.needed("worker_id", self.text("worker_id"))?;
        let now = self.now().0;
        if self.object(&self.roster(), id).await?.is_none() {
            let message = format!("the worker `{id}` is not registered");
            return Err(self.caller.failed(message).error_type("KeyError"));
        }
        self.change(id, |known| match known {
            Some(known) => Worker { last_heartbeat: now, ..known },
            None => self.unknown(Status::Active),
        })
        .await?;
        Ok(Map::new())
    }

    /// Workers that were not heard of for `context.stale_threshold_seconds` and whose run is over.
    pub(super) async fn stale(&self) -> Result<Map, Failure> {
        let threshold_ms = self.number("stale_threshold_seconds", STALE_SECONDS).saturating_mul(1_000);
        let now = self.now();
        let mut stale = Vec::new();
        for object in self.objects(&self.roster()).await? {
            let worker: Worker = decode(&object)?;
            let silent = now.since_ms(Timestamp(worker.last_heartbeat)) >= threshold_ms;
            if worker.status != Status::Active || worker.pool != self.pool() || !silent || self.goes_on(&worker).await?
            {
                continue;
            }
            stale.push(Value::object([
                ("worker_id", Value::from(&*object.key)),
                ("last_heartbeat", time(Timestamp(worker.last_heartbeat))),
                ("run_id", Value::from(worker.run.as_str())),
            ]));
        }
        let count = Value::count(stale.len() as u64);
        Ok(output([("workers", Value::list(stale)), ("stale_count", count)]))
    }

    /// Whether the run of a worker machine is stored and has not ended.
    async fn goes_on(&self, worker: &Worker) -> Result<bool, Failure> {
        let stored = self.behind.store.load(RunId::stored(&worker.run)).await.map_err(|error| self.fault(&error))?;
        Ok(stored.is_some_and(|stored| !stored.head.status.is_final()))
    }

    /// Takes back what `context.worker` has claimed.
    pub(super) async fn reap_one(&self) -> Result<Map, Failure> {
        let named = self.context("worker").and_then(|worker| worker.get("worker_id")).and_then(Value::as_str);
        let id = self.needed("worker", named)?;
        let released = self.reap(id).await?;
        Ok(output([("reaped_worker_id", Value::from(id)), ("jobs_released", Value::count(released))]))
    }

    /// Takes back what all of `context.stale_workers` have claimed.
    pub(super) async fn reap_all(&self) -> Result<Map, Failure> {
        let stale = self.context("stale_workers").and_then(Value::as_list).unwrap_or_default();
        let (mut reaped, mut released) = (Vec::new(), 0);
        for id in stale.iter().filter_map(|worker| worker.get("worker_id").and_then(Value::as_str)) {
            released += self.reap(id).await?;
            reaped.push(Value::from(id));
        }
        let count = Value::count(reaped.len() as u64);
        Ok(output([
            ("reaped_workers", Value::list(reaped)),
            ("reaped_count", count),
            ("total_jobs_released", Value::count(released)),
        ]))
    }

    async fn reap(&self, id: &str) -> Result<u64, Failure> {
        self.mark(id, Status::Lost).await?;
        self.release(id).await
    }

    async fn mark(&self, id: &str, status: Status) -> Result<(), Failure> {
        self.change(id, |known| known.map_or_else(|| self.unknown(status), |known| Worker { status, ..known })).await?;
        Ok(())
    }

    fn unknown(&self, status: Status) -> Worker {
        let now = self.now().0;
        Worker {
            status,
            run: self.run().to_owned(),
            pool: self.pool().to_owned(),
            capabilities: None,
            started_at: now,
            last_heartbeat: now,
        }
    }

    /// Changes a worker, as often as others get ahead.
    async fn change(&self, id: &str, change: impl Fn(Option<Worker>) -> Worker) -> Result<Worker, Failure> {
        for _ in 0..TRIES_MAX {
            let object = self.object(&self.roster(), id).await?;
            let known = object.as_ref().map(decode).transpose()?;
            let worker = change(known);
            let revision = object.map_or(0, |object| object.revision);
            if self.put(&self.roster(), id, revision, Some(encode(&worker))).await? {
                return Ok(worker);
            }
        }
        Err(self.crowded())
    }
}
