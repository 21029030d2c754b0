//! The embedded store: one SQLite file that any number of processes share.
//!
//! Owns the handle: who asks the writer and who asks a reader. Writing is in `writer` and what it calls, reading in
//! `read`, who lives in `workers`.

mod claim;
mod commit;
pub(crate) mod compact;
pub(crate) mod encryption;
mod escrow;
mod fsck;
mod inbox;
pub(crate) mod marks;
mod newborn;
mod prune;
mod rates;
mod read;
mod readers;
mod reap;
mod request;
mod restore;
mod schema;
mod trail;
mod tx;
mod workers;
mod writer;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::ErrorCode;
use rusqlite::wal::CheckpointMode;
use tokio::sync::{Notify, oneshot};
use windlass_core::audit;
use windlass_core::escrow::{Draw, Drawn};
use windlass_core::ids::{Digest, EffectId, Name, RunId};
use windlass_core::input::Sent;
use windlass_core::run::{Start, Status};
use windlass_core::time::Timestamp;
use windlass_ports::BoxFuture;
use windlass_ports::store::rates::Rates;
use windlass_ports::store::{
    Beat, Claim, Commit, Committed, Created, Delivered, Finding, InboxItem, JournalRow, Keep, Lease, Load, Message,
    NewRun, Object, OpId, Page, Pruned, Put, Query, Reaped, Registration, Retention, Signal, Signalled, Stats, Store,
    StoreError, Stored, THE_STORE, Trail, WaitRow, WorkerId, WorkerRow,
};

use crate::cipher::Place;
use crate::keys::Keyring;
pub(crate) use readers::workers_of;
use readers::{Readers, View};
use request::{Answer, Creation, Delivery, Replacement, Request, Step};
use restore::copy;
pub(crate) use restore::{restore, schema};
pub(crate) use schema::connect_plain;
use schema::{Access, FileId};
use workers::Workers;
use writer::{Counters, Job, Writer};

/// Connections for reading: enough that a slow read delays no other, few enough to stay small.
const READERS_MAX: usize = 4;
/// Starts kept for the first decision of a run that was just loaded.
const PRIMERS_MAX: usize = 1_024;
/// Trees removed in one transaction.
const PRUNE_TREES: usize = 64;
/// A bundle stored this recently need not be stored again.
const BUNDLE_FRESH_SECONDS: i64 = 1_200;
/// How soon the next heartbeat is wanted. It only brings a worker's card up to date: a lease is a lock.
const BEAT_MS: u64 = 10_000;

/// When what was written is on the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sync {
    /// Before it is acknowledged.
    #[default]
    Full,
    /// Some time after: a loss of power loses acknowledged decisions. For showing that this is noticed.
    Off,
}

/// How to open a store.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long to wait while another process writes, in milliseconds.
    pub busy_ms: u64,
    /// When what was written is on the device.
    pub sync: Sync,
    /// Keys by which values are encrypted; none for a store that is not.
    pub keys: Option<Keyring>,
}

impl Default for Options {
    fn default() -> Self {
        Self { busy_ms: 10_000, sync: Sync::Full, keys: None }
    }
}

/// What went wrong in SQLite, in the words of the port.
fn failed(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        // What the triggers of an encrypted store say.
        _ if error.sqlite_extended_error_code() == Some(rusqlite::ffi::SQLITE_CONSTRAINT_TRIGGER) => {
            StoreError::Key(error.to_string())
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::ConstraintViolation) => {
            StoreError::Corrupt(error.to_string())
        }
        Some(ErrorCode::DiskFull) => StoreError::disk_full(THE_STORE, error),
        Some(ErrorCode::TooBig) => StoreError::Invalid(format!("a value is too large to be stored: {error}")),
        Some(_) => StoreError::Unavailable(error.to_string()),
        None => StoreError::Corrupt(error.to_string()),
    }
}

fn gone() -> StoreError {
    StoreError::Unavailable("the writer of the store has stopped".into())
}

/// A handle on one file. Dropping it waits for what was asked of it, and lets go of its workers.
#[derive(Debug)]
pub struct SqliteStore {
    readers: Arc<Readers>,
    workers: Arc<Workers>,
    counters: Arc<Counters>,
    hint: Arc<Notify>,
    /// Starts of runs that were loaded before their first decision, which repeats them.
    primers: Mutex<HashMap<RunId, Arc<[u8]>>>,
    newborns: Mutex<newborn::Claimed>,
    schema: u32,
    jobs: Option<Sender<Job>>,
    writer: Option<JoinHandle<()>>,
}

impl SqliteStore {
    /// Opens a file, made when it is not there.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it cannot be read or written, [`StoreError::Corrupt`] when it is no store,
    /// [`StoreError::NewerSchema`] when a newer build wrote it, [`StoreError::Key`] when its keys are not those of `options`.
    pub async fn open(path: &Path, options: Options) -> Result<Self, StoreError> {
        let path = path.to_path_buf();
        let opened = tokio::task::spawn_blocking(move || Self::open_now(&path, options)).await;
        opened.unwrap_or_else(|error| Err(StoreError::Unavailable(format!("opening was given up: {error}"))))
    }

    fn open_now(path: &Path, options: Options) -> Result<Self, StoreError> {
        let file = schema::make_file(path)?;
        // A later change of the working directory must not lead to another file.
        let path = path
            .canonicalize()
            .map_err(|error| StoreError::Unavailable(format!("cannot find `{}`: {error}", path.display())))?;
        let hint = Arc::new(Notify::new());
        let workers = Arc::new(Workers::beside(&path, Arc::clone(&hint)));
        // One process at a time looks at the schema: SQLite lets nobody else look while the kind of log changes.
        let opening = workers.opening_lock()?;
        let mut connection = schema::connect(&path, &options)?;
        encryption::check(&connection, options.keys.as_ref())?;
        let schema = schema::migrate(&mut connection)?;
        let cipher = encryption::cipher_to_write(&connection, options.keys.as_ref())?;
        drop(opening);
        // What an earlier failure left in memory only is written again, before anything relies on it. When another
        // process copies the log at this moment it is that one's to do, and this way of copying never waits.
        match connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::PASSIVE) {
            Err(error) if error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy) => return Err(failed(error)),
            _ => {}
        }
        let (counters, at) = (Arc::new(Counters::default()), (path.clone(), file));
        let (jobs, asked) = channel();
        let shared = (Arc::clone(&workers), Arc::clone(&counters), cipher.clone());
        let writer = Writer::new(connection, at, options.clone(), asked, shared)?;
        let thread = std::thread::Builder::new().name("windlass-store".into()).spawn(move || writer.run());
        let writer = thread.map_err(|error| StoreError::Unavailable(format!("cannot start a thread: {error}")))?;
        Ok(Self {
            readers: Arc::new(Readers::new(path, file, Access::Write, options, cipher)),
            workers,
            counters,
            hint,
            primers: Mutex::default(),
            newborns: Mutex::default(),
            schema,
            jobs: Some(jobs),
            writer: Some(writer),
        })
    }

    async fn ask(&self, request: Request) -> Result<Answer, StoreError> {
        let (answer, answered) = oneshot::channel();
        let read_only = || StoreError::Unavailable("the store was opened to read it, and takes no writes".into());
        let jobs = self.jobs.as_ref().ok_or_else(read_only)?;
        jobs.send(Job { request, answer }).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&View<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let _room = self.readers.room.acquire().await.map_err(|_| gone())?;
        let readers = Arc::clone(&self.readers);
        let done = tokio::task::spawn_blocking(move || readers.read(read)).await;
        done.unwrap_or_else(|error| Err(StoreError::Unavailable(format!("reading was given up: {error}"))))
    }

    fn primers(&self) -> std::sync::MutexGuard<'_, HashMap<RunId, Arc<[u8]>>> {
        self.primers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember_start(&self, run: &RunId, bytes: Arc<[u8]>) {
        let mut primers = self.primers();
        if primers.len() >= PRIMERS_MAX {
            primers.clear();
        }
        primers.insert(run.clone(), bytes);
    }

    fn newborns(&self) -> std::sync::MutexGuard<'_, newborn::Claimed> {
        self.newborns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what came with the leases until it is asked for.
    fn received(&self, taken: Vec<claim::Taken>) -> Vec<Lease> {
        let mut newborns = self.newborns();
        let keep = |(lease, newborn): claim::Taken| {
            if let Some(newborn) = newborn {
                newborns.keep(lease.run.clone(), lease.epoch, newborn);
            }
            lease
        };
        taken.into_iter().map(keep).collect()
    }

    async fn prune_now(&self, retention: Retention) -> Result<Pruned, StoreError> {
        let wanted = retention.clone();
        let roots = self.read(move |connection| prune::candidates(connection, &wanted)).await?;
        // A report is one look at everything; a removal lets others write between its parts.
        let part = if retention.dry_run { roots.len().max(1) } else { PRUNE_TREES };
        let erases = !retention.dry_run && retention.trees.is_some();
        let none = if erases && roots.is_empty() { vec![&roots[..]] } else { Vec::new() };
        let mode = match (retention.dry_run, &retention.trees) {
            (true, _) => prune::Mode::Report,
            (false, Some(_)) => prune::Mode::Overwrite,
            (false, None) => prune::Mode::Remove,
        };
        let mut pruned = Pruned::default();
        for roots in roots.chunks(part).chain(none) {
            if let Answer::Pruned(more) = self.ask(Request::Prune(roots.to_vec(), mode)).await? {
                pruned.runs += more.runs;
                pruned.records += more.records;
                pruned.blobs += more.blobs;
                pruned.bytes += more.bytes;
                pruned.unsealed += more.unsealed;
                pruned.recent = more.recent;
            }
        }
        if erases {
            let readers = Arc::clone(&self.readers);
            let emptied = tokio::task::spawn_blocking(move || readers.empty_log()).await;
            pruned.left_in_log = !emptied.unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))?;
        }
        if let (false, Some(before)) = (retention.dry_run, retention.ended_before) {
            self.ask(Request::ForgetSignals(before)).await?;
        }
        Ok(pruned)
    }

    async fn beat_now(&self, worker: WorkerId, load: Load) -> Result<Beat, StoreError> {
        let mut is_alive = self.workers.beat(&worker, load);
        if is_alive {
            let asked = worker.clone();
            let look = move |connection: &View<'_>| {
                Ok((read::is_fenced(connection, &asked)?, schema::found(connection)?, schema::known()))
            };
            let (is_fenced, found, known) = self.read(look).await?;
            if is_fenced {
                is_alive = false;
                self.workers.leave(&worker);
            } else if found > known {
                return Err(StoreError::NewerSchema { found, known });
            }
        }
        // What the writer answers cannot be lost: it is of this process.
        Ok(Beat { now: read::now(), is_alive, again_ms: BEAT_MS, held: None })
    }

    /// Workers that have a file, and those that hold runs without one.
    async fn rows_of_workers(&self) -> Result<Vec<WorkerRow>, StoreError> {
        let mut held = self.read(|view| read::held(view)).await?;
        for worker in self.workers.all() {
            held.entry(worker).or_default();
        }
        let mut rows: Vec<_> = held.into_iter().map(|(id, runs)| self.workers.row(id, runs)).collect();
        rows.sort_by_key(|row| !row.is_alive);
        Ok(rows)
    }

    /// Removes what is left of workers that died long ago.
    async fn tidy(&self) -> Result<(), StoreError> {
        let workers = self.workers.long_dead();
        if workers.is_empty() {
            return Ok(());
        }
        if let Answer::Forgotten(forgotten) = self.ask(Request::ForgetWorkers(workers)).await? {
            for worker in forgotten {
                self.workers.forget(&worker);
            }
        }
        Ok(())
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.jobs = None;
        // Nobody puts another file in place between the look at it and the end of the last connection.
        let _closing = self.workers.closing_lock();
        // The last connection to close empties the log, so readers go first.
        for reader in self.readers.idle().drain(..) {
            schema::close(reader, &self.readers.path, self.readers.file);
        }
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has nothing left to do.
            let _done = writer.join();
        }
    }
}

macro_rules! answer {
    ($asked:expr, $variant:ident) => {
        match $asked? {
            Answer::$variant(answer) => Ok(answer),
            other => Err(StoreError::Corrupt(format!("the writer answered {other:?}"))),
        }
    };
}

impl Store for SqliteStore {
    fn join(&self, registration: Registration) -> BoxFuture<'_, Result<WorkerId, StoreError>> {
        Box::pin(async move {
            let worker = self.workers.join(&self.readers.cipher.registered(registration))?;
            self.tidy().await?;
            Ok(worker)
        })
    }

    fn beat(&self, worker: WorkerId, load: Load) -> BoxFuture<'_, Result<Beat, StoreError>> {
        Box::pin(self.beat_now(worker, load))
    }

    fn leases(&self, worker: WorkerId) -> BoxFuture<'_, Result<Vec<Lease>, StoreError>> {
        Box::pin(self.read(move |connection| read::leases(connection, &worker)))
    }

    fn is_current(&self, worker: &WorkerId) -> bool {
        // A process whose file was replaced learns of it here, before it sends anything.
        self.workers.is_mine(worker) && FileId::of(&self.readers.path) == Some(self.readers.file)
    }

    fn leave(&self, worker: WorkerId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            if !self.workers.is_mine(&worker) {
                return Err(StoreError::Invalid(format!("`{worker}` is no worker of this process")));
            }
            self.ask(Request::Leave(worker.clone())).await?;
            self.workers.leave(&worker);
            Ok(())
        })
    }

    fn reap(&self) -> BoxFuture<'_, Result<Reaped, StoreError>> {
        Box::pin(async move {
            let held = self.read(|view| read::held(view)).await?;
            let reaped = if held.keys().any(|worker| self.workers.is_dead(worker)) {
                let reaped: Result<_, StoreError> = answer!(self.ask(Request::Reap).await, Reaped);
                reaped?
            } else {
                let alone = held.keys().all(|worker| self.workers.is_mine(worker)) && self.workers.are_alone();
                Reaped { alone, ..Reaped::default() }
            };
            Ok(std::mem::take(&mut *self.counters.untold()).then(reaped))
        })
    }

    fn workers(&self) -> BoxFuture<'_, Result<Vec<WorkerRow>, StoreError>> {
        Box::pin(self.rows_of_workers())
    }

    fn put_bundle(&self, digest: Digest, bytes: Vec<u8>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            if Digest::of(&bytes) != digest {
                return Err(StoreError::Invalid(format!("the bundle is not `{}`", digest.short())));
            }
            let at = self.read(move |connection| read::bundled_at(connection, digest)).await?;
            if at.is_some_and(|at| read::seconds_now() - at < BUNDLE_FRESH_SECONDS) {
                return Ok(());
            }
            let packed = self.readers.cipher.pack(Place::Blob(digest), &bytes)?;
            self.ask(Request::PutBundle(digest, packed)).await.map(|_| ())
        })
    }

    fn blob(&self, digest: Digest) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>> {
        Box::pin(self.read(move |connection| read::blob(connection, digest)))
    }

    fn create(&self, run: NewRun) -> BoxFuture<'_, Result<Created, StoreError>> {
        Box::pin(async move {
            let creation = Creation::prepare(run, &self.readers.cipher)?;
            answer!(self.ask(Request::Create(Box::new(creation))).await, Created)
        })
    }

    fn claim(&self, claim: Claim) -> BoxFuture<'_, Result<Vec<Lease>, StoreError>> {
        Box::pin(async move {
            let taken: Result<_, StoreError> = answer!(self.ask(Request::Claim(claim)).await, Leases);
            Ok(self.received(taken?))
        })
    }

    fn take_over(
        &self,
        run: RunId,
        worker: WorkerId,
        expected: Option<Status>,
    ) -> BoxFuture<'_, Result<Option<Lease>, StoreError>> {
        Box::pin(async move {
            let taken = self.ask(Request::TakeOver(run, worker, expected)).await;
            let taken: Result<_, StoreError> = answer!(taken, Leases);
            Ok(self.received(taken?).pop())
        })
    }

    fn load(&self, run: RunId) -> BoxFuture<'_, Result<Option<Stored>, StoreError>> {
        Box::pin(async move {
            let wanted = run.clone();
            let loaded = self.read(move |connection| read::load(connection, &wanted)).await?;
            Ok(loaded.map(|(stored, start)| {
                if stored.head.version == 0 {
                    self.remember_start(&run, start.into());
                }
                stored
            }))
        })
    }

    fn newborn(&self, lease: &Lease) -> Option<Start> {
        let newborn = self.newborns().take(&lease.run, lease.epoch)?;
        self.remember_start(&lease.run, newborn.text);
        Some(Start::clone(&newborn.start))
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Committed, StoreError>> {
        Box::pin(async move {
            let primer = if commit.expected == 0 { self.primers().remove(&commit.lease.run) } else { None };
            let step = Step::prepare(commit, primer.as_deref().unwrap_or_default(), &self.readers.cipher)?;
            answer!(self.ask(Request::Commit(Box::new(step))).await, Committed)
        })
    }

    fn was_committed(&self, run: RunId, op: OpId) -> BoxFuture<'_, Result<bool, StoreError>> {
        // Asked of the writer, so that everything asked before has been written or refused.
        Box::pin(async move { answer!(self.ask(Request::WasCommitted(run, op)).await, Is) })
    }

    fn requeue(&self, run: RunId) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move { answer!(self.ask(Request::Requeue(run)).await, Is) })
    }

    fn fence(&self, reason: Name) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            let fenced = answer!(self.ask(Request::Fence(reason)).await, Fenced);
            self.workers.leave_all();
            fenced
        })
    }

    fn release(&self, lease: Lease, worker: WorkerId, keep: Keep) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.ask(Request::Release(lease, worker, keep)).await.map(|_| ()) })
    }

    fn inbox(&self, run: RunId) -> BoxFuture<'_, Result<Vec<InboxItem>, StoreError>> {
        Box::pin(self.read(move |connection| read::inbox(connection, &run)))
    }

    fn deliver(&self, message: Message) -> BoxFuture<'_, Result<Delivered, StoreError>> {
        Box::pin(async move {
            let delivery = Delivery::prepare(message, &self.readers.cipher)?;
            answer!(self.ask(Request::Deliver(delivery)).await, Delivered)
        })
    }

    fn signal(&self, signal: Signal) -> BoxFuture<'_, Result<Signalled, StoreError>> {
        Box::pin(async move { answer!(self.ask(Request::Signal(signal)).await, Signalled) })
    }

    fn next_due(&self, within: Option<RunId>) -> BoxFuture<'_, Result<Option<Timestamp>, StoreError>> {
        Box::pin(self.read(move |connection| read::next_due(connection, within.as_ref())))
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.hint.notified())
    }

    fn mark_sent(&self, run: &RunId, effect: EffectId, attempt: u32) -> Result<(), StoreError> {
        self.workers.mark_sent(run, effect, attempt)
    }

    fn clear_sent(&self, run: &RunId, effect: EffectId, attempt: u32) {
        self.workers.clear_sent(run, effect, attempt);
    }

    fn was_sent(&self, worker: &WorkerId, run: &RunId, effect: EffectId, attempt: u32) -> Sent {
        self.workers.was_sent(worker, run, effect, attempt)
    }

    fn object(&self, kind: Name, key: Name) -> BoxFuture<'_, Result<Option<Object>, StoreError>> {
        Box::pin(self.read(move |connection| read::object(connection, &kind, &key)))
    }

    fn objects(&self, kind: Name, after: Option<Name>, limit: usize) -> BoxFuture<'_, Result<Vec<Object>, StoreError>> {
        Box::pin(self.read(move |connection| read::objects(connection, &kind, after.as_deref(), limit)))
    }

    fn put_object(&self, put: Put) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move {
            let Put { kind, key, expected, bytes } = put;
            let place = Place::Object { kind: &kind, key: &key };
            let packed = bytes.map(|bytes| self.readers.cipher.pack(place, &bytes)).transpose()?;
            answer!(self.ask(Request::PutObject(Replacement { kind, key, expected, packed })).await, Is)
        })
    }

    fn draw(&self, draw: Draw) -> BoxFuture<'_, Result<Drawn, StoreError>> {
        Box::pin(async move { answer!(self.ask(Request::Draw(Box::new(draw))).await, Drawn) })
    }

    fn journal(&self, run: RunId, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<JournalRow>, StoreError>> {
        Box::pin(self.read(move |connection| read::journal(connection, &run, after, limit)))
    }

    fn audit(&self, run: RunId) -> BoxFuture<'_, Result<Vec<audit::Row>, StoreError>> {
        Box::pin(self.read(move |connection| read::audit(connection, &run)))
    }

    fn rates(&self) -> &dyn Rates {
        self
    }

    fn trail(&self) -> &dyn Trail {
        self
    }

    fn waits(&self, run: RunId, tree: bool) -> BoxFuture<'_, Result<Vec<(RunId, WaitRow)>, StoreError>> {
        Box::pin(self.read(move |connection| read::waits(connection, &run, tree)))
    }

    fn ids(&self, after: Option<RunId>, limit: usize) -> BoxFuture<'_, Result<Vec<RunId>, StoreError>> {
        Box::pin(self.read(move |connection| read::ids(connection, after.as_ref(), limit)))
    }

    fn list(&self, query: Query) -> BoxFuture<'_, Result<Page, StoreError>> {
        Box::pin(self.read(move |connection| read::list(connection, &query)))
    }

    fn prune(&self, retention: Retention) -> BoxFuture<'_, Result<Pruned, StoreError>> {
        Box::pin(self.prune_now(retention))
    }

    fn fsck(&self) -> BoxFuture<'_, Result<Vec<Finding>, StoreError>> {
        Box::pin(self.read(fsck::check))
    }

    fn stats(&self) -> BoxFuture<'_, Result<Stats, StoreError>> {
        Box::pin(async move {
            let stats = self.read(|view| read::stats(view)).await?;
            let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
            Ok(Stats {
                schema: self.schema,
                commits: count(&self.counters.commits),
                statements: count(&self.counters.statements),
                transactions: count(&self.counters.transactions),
                stale: count(&self.counters.stale),
                workers: self.workers.alive(),
                claims: count(&self.counters.claims),
                reaped: count(&self.counters.reaped),
                ..stats
            })
        })
    }

    fn backup(&self, to: &Path) -> BoxFuture<'_, Result<(), StoreError>> {
        let to = to.to_path_buf();
        Box::pin(self.read(move |connection| copy(connection, &to)))
    }
}
