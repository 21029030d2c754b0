//! The jobs of a pool: waiting or claimed in one list in the order they came, done and poisoned ones in lists beside it.
//!
//! ```text
//! pending --claim--> claimed --complete--> done
//!    ^------fail-------'  '------fail-----> poisoned   (tried as often as allowed)
//! ```

use serde::{Deserialize, Serialize};
use windlass_core::failure::Failure;
use windlass_core::ids::Digest;
use windlass_core::value::{Map, Value};
use windlass_ports::store::Object;

use super::{Asked, TRIES_MAX, decode, encode, output};

/// How often a job is tried when nobody says.
const RETRIES_DEFAULT: u64 = 3;

/// A job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Job {
    data: Value,
    attempts: u64,
    max_retries: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) claimed_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    claimed_at: Option<u64>,
    /// The call that claimed it: its repeat gets the same job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    claim_key: Option<String>,
    /// The call that failed it last: its repeat counts nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fail_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
}

pub(super) fn waiting(pool: &str) -> String {
    format!("pool.jobs/{pool}")
}

fn done(pool: &str) -> String {
    format!("pool.done/{pool}")
}

fn poisoned(pool: &str) -> String {
    format!("pool.poisoned/{pool}")
}

impl Asked<'_> {
    /// How much waits and how many work.
    pub(super) async fn pool_state(&self) -> Result<Map, Failure> {
        let mut depth = 0;
        for object in self.objects(&waiting(self.pool())).await? {
            depth += u64::from(decode::<Job>(&object)?.claimed_by.is_none());
        }
        let active = self.active().await?;
        Ok(output([("queue_depth", Value::count(depth)), ("active_workers", Value::count(active))]))
    }

    /// Adds `context.job` to the pool.
    pub(super) async fn push_job(&self) -> Result<Map, Failure> {
        let data = self.context("job").cloned().unwrap_or_default();
        let mark = Digest::of(self.event.idempotency_key.as_bytes()).to_string();
        // Keys are in the order in which jobs come; a repeat of the call finds the job that is there.
        if let Some(known) =
            self.objects(&waiting(self.pool())).await?.iter().find(|job| job.key.ends_with(&mark[..16]))
        {
            return Ok(output([("job_id", Value::from(&*known.key))]));
        }
        let id = format!("{:014}-{}", self.now().0, &mark[..16]);
        let job = Job {
            data,
            attempts: 0,
            max_retries: self.number("max_retries", RETRIES_DEFAULT).max(1),
            claimed_by: None,
            claimed_at: None,
            claim_key: None,
            fail_key: None,
            error: None,
            result: None,
        };
        self.put(&waiting(self.pool()), &id, 0, Some(encode(&job))).await?;
        Ok(output([("job_id", Value::from(id))]))
    }

    /// Takes the oldest job that waits; nulls when there is none.
    pub(super) async fn claim_job(&self) -> Result<Map, Failure> {
        let worker = self.needed("worker_id", self.text("worker_id"))?;
        let kind = waiting(self.pool());
        for _ in 0..TRIES_MAX {
            let jobs = self.objects(&kind).await?;
            let jobs = jobs.iter().map(|object| Ok((object, decode::<Job>(object)?))).collect::<Result<Vec<_>, _>>()?;
            let again = |(_, job): &&(&Object, Job)| job.claim_key.as_deref() == Some(&*self.event.idempotency_key);
            if let Some((object, job)) = jobs.iter().find(again) {
                return Ok(claimed(object, job));
            }
            let Some((object, job)) = jobs.into_iter().find(|(_, job)| job.claimed_by.is_none()) else {
                return Ok(output([("job", Value::Null), ("job_id", Value::Null)]));
            };
            let job = Job {
                attempts: job.attempts + 1,
                claimed_by: Some(worker.to_owned()),
                claimed_at: Some(self.now().0),
                claim_key: Some(self.event.idempotency_key.clone()),
                ..job
            };
            if self.put(&kind, &object.key, object.revision, Some(encode(&job))).await? {
                return Ok(claimed(object, &job));
            }
        }
        Err(self.crowded())
    }

    /// Keeps the result of the job and takes it from the pool.
    pub(super) async fn complete_job(&self) -> Result<Map, Failure> {
        let id = self.needed("job_id", self.text("job_id"))?;
        let result = self.context("result").cloned().unwrap_or_default();
        self.settle(id, |job| {
            let kind = done(self.pool());
            Some((kind, Job { result: Some(result.clone()), ..job }))
        })
        .await?;
        Ok(Map::new())
    }

    /// Gives the job back to the pool, or puts it aside when it was tried as often as allowed.
    pub(super) async fn fail_job(&self) -> Result<Map, Failure> {
        let id = self.needed("job_id", self.text("job_id"))?;
        let error = self.context("error").or_else(|| self.context("last_error")).cloned();
        self.settle(id, |job| {
            if job.fail_key.as_deref() == Some(&*self.event.idempotency_key) {
                return None;
            }
            let job = Job { error: error.clone(), fail_key: Some(self.event.idempotency_key.clone()), ..job };
            if job.attempts >= job.max_retries {
                return Some((poisoned(self.pool()), job));
            }
            Some((waiting(self.pool()), Job { claimed_by: None, claimed_at: None, claim_key: None, ..job }))
        })
        .await?;
        Ok(Map::new())
    }

    /// Changes a job, or moves it to another list: there first, so that it is never nowhere. A job that is no longer in
    /// the pool was settled before.
    async fn settle(&self, id: &str, change: impl Fn(Job) -> Option<(String, Job)>) -> Result<(), Failure> {
        let kind = waiting(self.pool());
        for _ in 0..TRIES_MAX {
            let Some(object) = self.object(&kind, id).await? else { return Ok(()) };
            let Some((to, job)) = change(decode(&object)?) else { return Ok(()) };
            let bytes = Some(encode(&job));
            let settled = if to == kind {
                self.put(&kind, id, object.revision, bytes).await?
            } else {
                self.put(&to, id, 0, bytes).await?;
                self.put(&kind, id, object.revision, None).await?
            };
            if settled {
                return Ok(());
            }
        }
        Err(self.crowded())
    }

    /// Gives back what a worker has claimed. Tells how many.
    pub(super) async fn release(&self, worker: &str) -> Result<u64, Failure> {
        let kind = waiting(self.pool());
        let mut released = 0;
        for object in self.objects(&kind).await? {
            let job: Job = decode(&object)?;
            if job.claimed_by.as_deref() != Some(worker) {
                continue;
            }
            let job = Job { claimed_by: None, claimed_at: None, claim_key: None, ..job };
            released += u64::from(self.put(&kind, &object.key, object.revision, Some(encode(&job))).await?);
        }
        Ok(released)
    }
}

fn claimed(object: &Object, job: &Job) -> Map {
    output([("job", job.data.clone()), ("job_id", Value::from(&*object.key))])
}
