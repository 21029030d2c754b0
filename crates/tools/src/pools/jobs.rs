//! The jobs of a pool of one tenant: waiting or claimed in one list in the order they came, done and poisoned ones in
//! lists beside it. Two more lists say which job a call has pushed or claimed, so that its repeat does neither again.
//!
//! ```text
//! pending --claim--> claimed --complete--> done       (kept for a while)
//!    ^------fail-------'  '------fail-----> poisoned   (tried as often as allowed)
//! ```
//!
//! A job that is settled says so where it waits before it goes to another list, so that whoever finds it there can move it.

use serde::{Deserialize, Serialize};
use windlass_core::escrow::escaped;
use windlass_core::failure::Failure;
use windlass_core::hidden::Hidden;
use windlass_core::ids::{Digest, Name, RunId};
use windlass_core::label::Label;
use windlass_core::spawn::Spawn;
use windlass_core::time::Timestamp;
use windlass_core::value::{Map, Value};
use windlass_ports::store::Object;

use super::{Asked, PAGE, TRIES_MAX, decode, encode, output};

/// How often a job is tried when nobody says.
const RETRIES_DEFAULT: u64 = 3;
/// How long a job that is done is kept after it was pushed, and with it the note of the call that pushed it, in
/// milliseconds: 30 days. A push that is repeated later than that is a new one.
const KEPT_MS: u64 = 30 * 86_400_000;
/// Jobs that are done for long and are removed with one push: more than it adds.
const SWEPT_MAX: usize = 4;

/// Where a settled job belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Settled {
    Done,
    Poisoned,
}

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
    /// It is on its way to another list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    settled: Option<Settled>,
    /// The parts of its data that are secret, as keys from the data inwards. None where nobody kept labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<Vec<Vec<Name>>>,
    /// Values of its data that are not shown.
    #[serde(default, skip_serializing_if = "Hidden::is_empty")]
    hidden: Hidden,
    /// The run that pushed it: what is its, and its user's, is erased and exported with them.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    run: String,
    /// Whose that run is, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<Name>,
}

/// A job as its claimant gets it.
#[derive(Default)]
pub(super) struct Given {
    /// What the action gives.
    pub output: Map,
    /// Pointers to what of it is secret.
    pub secret: Vec<Value>,
    /// What of it is not shown.
    pub hidden: Hidden,
    /// The runs that it asks for.
    pub spawn: Option<Spawn>,
}

impl Job {
    /// The same job, claimed by nobody.
    fn free(self) -> Self {
        Self { claimed_by: None, claimed_at: None, claim_key: None, ..self }
    }
}

/// What a call is known by in lists.
fn mark(key: &str) -> String {
    Digest::of(key.as_bytes()).to_string()
}

impl Asked<'_> {
    fn waiting(&self) -> String {
        self.list("jobs", self.pool())
    }

    fn done(&self) -> String {
        self.list("done", self.pool())
    }

    fn poisoned(&self) -> String {
        self.list("poisoned", self.pool())
    }

    /// Which job a call has pushed: one that is done is not pushed again for [`KEPT_MS`].
    fn pushes(&self) -> String {
        self.list("pushes", self.pool())
    }

    /// Which job a call has claimed, until the job is settled.
    fn claims(&self) -> String {
        self.list("claims", self.pool())
    }

    /// How much waits and how many work.
    pub(super) async fn pool_state(&self) -> Result<Map, Failure> {
        let mut depth = 0;
        for object in self.objects(&self.waiting()).await? {
            depth += u64::from(decode::<Job>(&object)?.claimed_by.is_none());
        }
        let active = self.active().await?;
        Ok(output([("queue_depth", Value::count(depth)), ("active_workers", Value::count(active))]))
    }

    /// Adds `context.job` to the pool.
    pub(super) async fn push_job(&self) -> Result<Map, Failure> {
        let data = self.context("job").cloned().unwrap_or_default();
        let mark = mark(&self.event.idempotency_key);
        // Keys of jobs are in the order in which they come.
        let new = format!("{:014}-{}", self.now().0, &mark[..16]);
        if self.put(&self.pushes(), &mark, 0, Some(encode(&new))).await? {
            self.add(&new, data).await?;
            self.sweep().await?;
            return Ok(output([("job_id", Value::from(new))]));
        }
        // A repeat: the job may never have come into the pool, and may have left it since.
        let known = self.object(&self.pushes(), &mark).await?;
        let id: String = known.as_ref().map(decode).transpose()?.unwrap_or(new);
        for list in [self.waiting(), self.done(), self.poisoned()] {
            if self.object(&list, &id).await?.is_some() {
                return Ok(output([("job_id", Value::from(id))]));
            }
        }
        self.add(&id, data).await?;
        Ok(output([("job_id", Value::from(id))]))
    }

    /// Removes jobs that are done and were pushed long ago, the oldest first, and the notes of who pushed them.
    async fn sweep(&self) -> Result<(), Failure> {
        for object in self.few(&self.done(), None, SWEPT_MAX).await? {
            let parts = object.key.split_once('-').and_then(|(at, mark)| Some((at.parse().ok()?, mark)));
            let Some((at, mark)) = parts else { continue };
            if self.now().since_ms(Timestamp(at)) < KEPT_MS {
                break;
            }
            // The note goes first: the job is what leads to it.
            let notes = self.few(&self.pushes(), Some(mark.into()), 1).await?;
            let is_its = |note: &&Object| decode::<String>(note).is_ok_and(|id| *id == *object.key);
            if let Some(note) = notes.first().filter(is_its) {
                self.put(&self.pushes(), &note.key, note.revision, None).await?;
            }
            self.put(&self.done(), &object.key, object.revision, None).await?;
        }
        Ok(())
    }

    async fn add(&self, id: &str, data: Value) -> Result<(), Failure> {
        let secret = self.event.labels.as_ref().map(|labels| {
            let of_job = labels.below(&["job".into()]);
            of_job.iter().filter(|(_, label, _)| *label == Label::Secret).map(|(path, ..)| path.to_vec()).collect()
        });
        let pushed_by = self.behind.store.load(RunId::stored(self.run())).await.map_err(|error| self.fault(&error))?;
        // Before there is a job: whoever erases finds the pool by this.
        let names = format!("pool.names/{}", escaped(&self.event.tenant));
        if self.object(&names, self.pool()).await?.is_none() {
            self.put(&names, self.pool(), 0, Some(encode(&()))).await?;
        }
        let job = Job {
            run: self.run().to_owned(),
            user: pushed_by.and_then(|stored| stored.start.scope.user),
            hidden: self.event.hidden.within(&data),
            data,
            attempts: 0,
            max_retries: self.number("max_retries", RETRIES_DEFAULT).max(1),
            claimed_by: None,
            claimed_at: None,
            claim_key: None,
            fail_key: None,
            error: None,
            result: None,
            settled: None,
            secret,
        };
        self.put(&self.waiting(), id, 0, Some(encode(&job))).await?;
        Ok(())
    }

    /// Takes the oldest job that waits; nulls when there is none. With it, what of it is secret and what is not shown.
    pub(super) async fn claim_job(&self) -> Result<Given, Failure> {
        let worker = self.needed("worker_id", self.text("worker_id"))?;
        let (kind, mark) = (self.waiting(), mark(&self.event.idempotency_key));
        for _ in 0..TRIES_MAX {
            let note = self.object(&self.claims(), &mark).await?;
            if let Some(id) = note.as_ref().map(decode::<String>).transpose()?
                && let Some(object) = self.object(&kind, &id).await?
            {
                let job: Job = decode(&object)?;
                if job.claim_key.as_deref() == Some(&*self.event.idempotency_key) {
                    return Ok(self.claimed(&object, &job));
                }
            }
            let Some((object, job)) = self.first_free().await? else {
                if let Some(note) = note {
                    self.put(&self.claims(), &mark, note.revision, None).await?;
                }
                return Ok(Given {
                    output: output([("job", Value::Null), ("job_id", Value::Null)]),
                    ..Given::default()
                });
            };
            let revision = note.map_or(0, |note| note.revision);
            if !self.put(&self.claims(), &mark, revision, Some(encode(&&*object.key))).await? {
                continue;
            }
            let job = Job {
                attempts: job.attempts + 1,
                claimed_by: Some(worker.to_owned()),
                claimed_at: Some(self.now().0),
                claim_key: Some(self.event.idempotency_key.clone()),
                ..job
            };
            if self.put(&kind, &object.key, object.revision, Some(encode(&job))).await? {
                return Ok(self.claimed(&object, &job));
            }
        }
        Err(self.crowded())
    }

    /// The oldest job that nobody has claimed.
    async fn first_free(&self) -> Result<Option<(Object, Job)>, Failure> {
        let (kind, mut after) = (self.waiting(), None);
        loop {
            let page = self.page(&kind, after).await?;
            let is_last = page.len() < PAGE;
            after = page.last().map(|object| object.key.clone());
            for object in page {
                let job: Job = decode(&object)?;
                if job.settled.is_some() {
                    self.leave(&object, job).await?;
                } else if job.claimed_by.is_none() {
                    return Ok(Some((object, job)));
                }
            }
            if is_last {
                return Ok(None);
            }
        }
    }

    /// A job as its claimant gets it. Of a job whose labels nobody kept all is secret to a run that keeps them.
    fn claimed(&self, object: &Object, job: &Job) -> Given {
        let unknown = || if self.event.labels.is_some() { vec![Vec::new()] } else { Vec::new() };
        let secret = job.secret.clone().unwrap_or_else(unknown);
        let inside = |path: &Vec<Name>| {
            let keys = path.iter().map(|key| format!("/{}", key.replace('~', "~0").replace('/', "~1")));
            keys.collect::<String>()
        };
        let pointers = secret.iter().map(inside);
        let pointers = pointers.flat_map(|at| ["/output/job", "/context/job"].map(|job| format!("{job}{at}")));
        let output = output([("job", job.data.clone()), ("job_id", Value::from(&*object.key))]);
        Given { output, secret: pointers.map(Value::from).collect(), hidden: job.hidden.clone(), spawn: None }
    }

    /// Keeps the result of the job and takes it from the pool.
    pub(super) async fn complete_job(&self) -> Result<Map, Failure> {
        let id = self.needed("job_id", self.text("job_id"))?;
        let result = self.context("result").cloned().unwrap_or_default();
        let left = self.settle(id, |job| Job { result: Some(result.clone()), settled: Some(Settled::Done), ..job });
        let left = left.await?;
        match left {
            None => Ok(Map::new()),
            // Whoever has it now makes its result.
            Some(job) => {
                let now = job.claimed_by.map_or_else(|| "waits again".to_owned(), |who| format!("is done by `{who}`"));
                let message =
                    format!("the job `{id}` was taken from this worker, and {now}: its result does not count");
                Err(self.caller.failed(message).error_type("ValueError"))
            }
        }
    }

    /// Gives the job back to the pool, or puts it aside when it was tried as often as allowed. A job that this worker no
    /// longer has is left as it is.
    pub(super) async fn fail_job(&self) -> Result<Map, Failure> {
        let id = self.needed("job_id", self.text("job_id"))?;
        let error = self.context("error").or_else(|| self.context("last_error")).cloned();
        self.settle(id, |job| {
            let job = Job { error: error.clone(), fail_key: Some(self.event.idempotency_key.clone()), ..job };
            if job.attempts >= job.max_retries { Job { settled: Some(Settled::Poisoned), ..job } } else { job.free() }
        })
        .await?;
        Ok(Map::new())
    }

    /// Changes a job of this worker, and moves it to another list when it is settled. A job that is no longer in the pool was
    /// settled before. Gives back the job when it is not this worker's to settle.
    async fn settle(&self, id: &str, change: impl Fn(Job) -> Job) -> Result<Option<Job>, Failure> {
        let kind = self.waiting();
        for _ in 0..TRIES_MAX {
            let Some(object) = self.object(&kind, id).await? else { return Ok(None) };
            let job: Job = decode(&object)?;
            if job.settled.is_some() {
                self.leave(&object, job).await?;
                return Ok(None);
            }
            if job.claimed_by.is_none() || job.claimed_by.as_deref() != self.text("worker_id") {
                return Ok(Some(job));
            }
            let claim = job.claim_key.clone();
            let job = change(job);
            // Whose it is is looked at by the same write: nobody else settles it, or has it, from here on.
            if !self.put(&kind, id, object.revision, Some(encode(&job))).await? {
                continue;
            }
            match self.object(&kind, id).await? {
                Some(object) if job.settled.is_some() => self.leave(&object, job).await?,
                _ => self.forget(claim.as_deref()).await?,
            }
            return Ok(None);
        }
        Err(self.crowded())
    }

    /// Moves a settled job to where it belongs: there first, so that it is never nowhere. Whoever was faster did the same.
    async fn leave(&self, object: &Object, job: Job) -> Result<(), Failure> {
        let to = match job.settled {
            Some(Settled::Done) => self.done(),
            Some(Settled::Poisoned) => self.poisoned(),
            None => return Ok(()),
        };
        let job = Job { settled: None, ..job };
        self.put(&to, &object.key, 0, Some(encode(&job))).await?;
        self.forget(job.claim_key.as_deref()).await?;
        self.put(&self.waiting(), &object.key, object.revision, None).await?;
        Ok(())
    }

    /// Drops the note of a claim that is over.
    async fn forget(&self, claim: Option<&str>) -> Result<(), Failure> {
        let Some(mark) = claim.map(mark) else { return Ok(()) };
        if let Some(note) = self.object(&self.claims(), &mark).await? {
            self.put(&self.claims(), &mark, note.revision, None).await?;
        }
        Ok(())
    }

    /// Gives back what a worker has claimed. Tells how many.
    pub(super) async fn release(&self, worker: &str) -> Result<u64, Failure> {
        let kind = self.waiting();
        let mut released = 0;
        for object in self.objects(&kind).await? {
            let job: Job = decode(&object)?;
            if job.settled.is_some() {
                self.leave(&object, job).await?;
                continue;
            }
            if job.claimed_by.as_deref() != Some(worker) {
                continue;
            }
            let claim = job.claim_key.clone();
            if self.put(&kind, &object.key, object.revision, Some(encode(&job.free()))).await? {
                released += 1;
                self.forget(claim.as_deref()).await?;
            }
        }
        Ok(released)
    }
}
