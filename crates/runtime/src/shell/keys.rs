//! Submissions with a run key: at most one unfinished run of a key, or the last of many that come one after another.
//!
//! Races are decided by changes of one record per key; what is decided is in [`crate::keys`].

use std::collections::BTreeMap;

use windlass_core::ids::{Digest, Name, RunId};
use windlass_core::time::Timestamp;
use windlass_ports::store::{Created, Head, NewRun, StoreError};

use super::engine::{Core, Engine};
use super::objects::{self, Record, TRIES_MAX};
use super::submit::{Prepared, Submission, SubmitError, Submitted};
use crate::keys::{Debounced, KeyMode, Single, WINDOW_MS_MAX, Wanted};

/// The kind of singleton keys among the objects of a store.
pub(super) const SINGLE: &str = "run_key";
/// The kind of debounced submissions.
pub(super) const DEBOUNCED: &str = "debounce";
/// Bytes of input and documents of a submission with a key.
const KEYED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Pause before a full queue is tried again, in milliseconds.
const FULL_MS: u64 = 1_000;
/// Keys that are read at a time.
const PAGE: usize = 200;

/// What became of a submission with a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Keyed {
    /// Its run is in the queue.
    Submitted(Submitted),
    /// Another run of the key is unfinished; nothing was submitted.
    Running(Box<Head>),
    /// It waits for the last word.
    Waiting {
        /// The run that it will be.
        run: RunId,
        /// When that begins if nothing else comes.
        due: Timestamp,
        /// Submissions that it replaced, those before them included.
        replaced: u64,
    },
}

/// Why a submission with a key was not taken.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It could not be submitted without a key either.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The key cannot be one.
    #[error("`{0}` cannot be a run key: up to 200 letters, digits, `.`, `_` and `-`")]
    Key(String),
    /// The window cannot be used.
    #[error(
        "a debounce of {0} ms cannot be used: it takes from 1 ms to {WINDOW_MS_MAX} ms, and a longest wait that is no shorter"
    )]
    Window(u64),
    /// Documents and input are too large.
    #[error("documents and input have {bytes} bytes, a submission with a key takes at most {KEYED_BYTES_MAX}")]
    TooLarge {
        /// Their bytes.
        bytes: usize,
    },
    /// Others used the key again and again.
    #[error("the key `{0}` is being used by others all the time")]
    Contended(String),
}

impl From<StoreError> for KeyError {
    fn from(error: StoreError) -> Self {
        Self::Submit(error.into())
    }
}

/// Where the sweep of old keys stands.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    after: Option<Name>,
}

/// How making a run ended.
enum Made {
    New,
    Exists(Box<Head>),
    Full,
}

impl Engine {
    /// Submits under a key. A debounced submission is begun by [`super::Schedules::drive`], here or elsewhere, or by
    /// [`Engine::begin`].
    ///
    /// # Errors
    /// A submission that would be refused without the key too, a key or window that cannot be used, a store that fails.
    pub async fn submit_keyed(&self, submission: Submission, key: &str, mode: KeyMode) -> Result<Keyed, KeyError> {
        if let Some(id) = &submission.run_id
            && let Err(source) = RunId::new(id.as_str())
        {
            return Err(SubmitError::Id { run_id: id.clone(), source }.into());
        }
        if RunId::new(key).is_err() {
            return Err(KeyError::Key(key.chars().take(220).collect()));
        }
        let bundle = submission.bundle.clone();
        let Prepared { digest, bytes, run } = self.prepare(submission)?;
        let documents: usize = bundle.files.iter().map(|(path, text)| path.len() + text.len()).sum();
        let size = documents + run.start.input.size_bytes();
        if size > KEYED_BYTES_MAX {
            return Err(KeyError::TooLarge { bytes: size });
        }
        self.stow(digest, bytes).await?;
        let name: Name = format!("{}:{key}", run.start.scope.tenant).as_str().into();
        let wanted = Wanted::new(run, bundle);
        match mode {
            KeyMode::Singleton => self.singleton(&name, wanted).await,
            KeyMode::Debounce { window_ms, max_wait_ms } => {
                if window_ms == 0 || window_ms > WINDOW_MS_MAX || max_wait_ms < window_ms {
                    return Err(KeyError::Window(window_ms));
                }
                self.debounce(&name, wanted, window_ms, max_wait_ms).await
            }
        }
    }

    async fn singleton(&self, name: &Name, wanted: Wanted) -> Result<Keyed, KeyError> {
        let core = &*self.core;
        for _ in 0..TRIES_MAX {
            let record: Record<Single> = objects::read(core, SINGLE, name).await?;
            if let Some(held) = record.value.clone() {
                if held.wanted.is_some() {
                    self.make_single(&record, held).await?;
                    continue;
                }
                if let Some(head) = core.head(&held.run).await?.filter(|head| !head.status.is_final()) {
                    return Ok(self.same_or_running(head, &wanted));
                }
            }
            let taken = Single::taken(wanted.clone(), core.parts.clock.now());
            if !record.put(core, &taken).await? {
                continue;
            }
            let record: Record<Single> = objects::read(core, SINGLE, name).await?;
            let made = match record.value.clone().filter(|held| held.run == taken.run && held.wanted.is_some()) {
                Some(held) => self.make_single(&record, held).await?,
                // Somebody else has made it already.
                None => core.head(&taken.run).await?.map(|head| Made::Exists(Box::new(head))),
            };
            return match made {
                Some(Made::New) | None => Ok(Keyed::Submitted(Submitted { run_id: taken.run, existing: None })),
                Some(Made::Full) => Err(full(&wanted).into()),
                Some(Made::Exists(head)) => Ok(Keyed::Submitted(existing(head, &wanted)?)),
            };
        }
        Err(KeyError::Contended(name.to_string()))
    }

    /// The run of a key is unfinished: it is the one that is wanted again, or another.
    fn same_or_running(&self, head: Head, wanted: &Wanted) -> Keyed {
        match existing(Box::new(head.clone()), wanted) {
            Ok(submitted) if head.id == *wanted.run() => Keyed::Submitted(submitted),
            _ => Keyed::Running(Box::new(head)),
        }
    }

    /// Makes the run that has the key. None when somebody else was faster.
    async fn make_single(&self, record: &Record<Single>, held: Single) -> Result<Option<Made>, StoreError> {
        let Some(wanted) = held.wanted.clone().filter(|_| record.is_fresh(&self.core)) else { return Ok(None) };
        let made = make(&self.core, &wanted).await?;
        // A run that the queue has no room for was refused: nobody may make it later.
        let settled = held.settled();
        record.put(&self.core, &settled).await?;
        Ok(Some(made))
    }

    async fn debounce(&self, name: &Name, wanted: Wanted, window_ms: u64, max_wait_ms: u64) -> Result<Keyed, KeyError> {
        let core = &*self.core;
        for _ in 0..TRIES_MAX {
            let record: Record<Debounced> = objects::read(core, DEBOUNCED, name).await?;
            let now = core.parts.clock.now();
            let next = match &record.value {
                Some(held) if held.wanted.is_some() && held.begun_at.is_none() => {
                    held.replaced_by(wanted.clone(), now, window_ms, max_wait_ms)
                }
                Some(held) if held.wanted.is_some() => {
                    self.make_debounced(&record, held.clone()).await?;
                    continue;
                }
                _ => Debounced::first(wanted.clone(), now, window_ms, max_wait_ms),
            };
            if record.put(core, &next).await? {
                return Ok(Keyed::Waiting { run: next.run, due: next.due, replaced: next.replaced });
            }
        }
        Err(KeyError::Contended(name.to_string()))
    }

    /// Begins the run of a debounced key when its time has come. Gives back when that will be; none when nothing waits.
    ///
    /// # Errors
    /// A store that fails, and a queue that is full.
    pub async fn begin(&self, tenant: &str, key: &str) -> Result<Option<Timestamp>, StoreError> {
        let name: Name = format!("{tenant}:{key}").as_str().into();
        let record: Record<Debounced> = objects::read(&self.core, DEBOUNCED, &name).await?;
        if record.value.is_none_or(|held| held.wanted.is_none()) {
            return Ok(None);
        }
        let then = self.begin_debounced(&name).await?;
        let record: Record<Debounced> = objects::read(&self.core, DEBOUNCED, &name).await?;
        Ok(then.filter(|_| record.value.is_some_and(|held| held.wanted.is_some())))
    }

    /// Does what is due for a debounced key. Gives back when to look again.
    pub(super) async fn begin_debounced(&self, name: &Name) -> Result<Option<Timestamp>, StoreError> {
        let core = &*self.core;
        for _ in 0..TRIES_MAX {
            let record: Record<Debounced> = objects::read(core, DEBOUNCED, name).await?;
            let Some(held) = record.value.clone() else { return Ok(None) };
            let now = core.parts.clock.now();
            if held.is_old(now) {
                record.remove(core).await?;
                return Ok(None);
            }
            match held.begun_at {
                None if held.due > now => return Ok(Some(held.due)),
                None => {
                    record.put(core, &held.begun(now)).await?;
                }
                Some(_) if held.wanted.is_some() => {
                    if !self.make_debounced(&record, held).await? {
                        return Ok(Some(now.plus_ms(FULL_MS)));
                    }
                }
                Some(_) => return Ok(held.wakes_at()),
            }
        }
        Ok(Some(core.parts.clock.now().plus_ms(FULL_MS)))
    }

    /// Makes the run whose last word is spoken. False when the queue has no room for it: it was acknowledged, so it is
    /// tried again.
    async fn make_debounced(&self, record: &Record<Debounced>, held: Debounced) -> Result<bool, StoreError> {
        let Some(wanted) = held.wanted.clone().filter(|_| record.is_fresh(&self.core)) else { return Ok(true) };
        match make(&self.core, &wanted).await? {
            Made::Full => return Ok(false),
            Made::New => {}
            Made::Exists(head) => {
                if existing(head, &wanted).is_err() {
                    tracing::warn!(run_id = %wanted.run(), "a debounced run was dropped: another run has its id");
                }
            }
        }
        record.put(&self.core, &held.settled()).await?;
        Ok(true)
    }

    /// Keys whose submission waits or whose place is to be given up, and when.
    pub(super) async fn debounced(&self) -> Result<BTreeMap<Name, Timestamp>, StoreError> {
        let mut found = BTreeMap::new();
        let mut after = None;
        loop {
            let objects = self.core.parts.store.objects(DEBOUNCED.into(), after.clone(), PAGE).await?;
            let is_last = objects.len() < PAGE;
            for object in objects {
                after = Some(object.key.clone());
                match objects::decode::<Debounced>(DEBOUNCED, &object.key, &object.bytes) {
                    Ok(held) => found.extend(held.wakes_at().map(|at| (object.key, at))),
                    Err(error) => tracing::error!(key = &*object.key, %error, "a debounced submission was left out"),
                }
            }
            if is_last {
                return Ok(found);
            }
        }
    }

    /// Gives up places of keys whose runs have ended long ago, a page at a time.
    pub(super) async fn sweep_keys(&self, sweep: &mut Sweep) -> Result<(), StoreError> {
        let core = &*self.core;
        let objects = core.parts.store.objects(SINGLE.into(), sweep.after.clone(), PAGE).await?;
        sweep.after = objects.last().filter(|_| objects.len() == PAGE).map(|object| object.key.clone());
        let now = core.parts.clock.now();
        for object in objects {
            let Ok(held) = objects::decode::<Single>(SINGLE, &object.key, &object.bytes) else { continue };
            if !held.is_old(now) || core.head(&held.run).await?.is_some_and(|head| !head.status.is_final()) {
                continue;
            }
            let record: Record<Single> = objects::read(core, SINGLE, &object.key).await?;
            if record.value.as_ref() == Some(&held) {
                record.remove(core).await?;
            }
        }
        Ok(())
    }
}

async fn make(core: &Core, wanted: &Wanted) -> Result<Made, StoreError> {
    let bytes = wanted.bundle().encode();
    core.parts.store.put_bundle(Digest::of(&bytes), bytes).await?;
    Ok(match core.parts.store.create(wanted.made(core.parts.clock.now())).await? {
        Created::New => Made::New,
        Created::Exists(head) => Made::Exists(head),
        Created::Full => Made::Full,
    })
}

fn full(wanted: &Wanted) -> SubmitError {
    let NewRun { start, queueing, .. } = wanted.made(Timestamp(0));
    SubmitError::Full { tenant: start.scope.tenant, queued_max: queueing.queued_max.unwrap_or_default() }
}

/// The run that is there is the one that is wanted, or another has its id.
fn existing(head: Box<Head>, wanted: &Wanted) -> Result<Submitted, SubmitError> {
    let start = wanted.made(Timestamp(0)).start;
    if head.id == start.id && head.input == start.input.digest() {
        return Ok(Submitted { run_id: start.id, existing: Some(head) });
    }
    Err(SubmitError::Conflict { run_id: start.id })
}
