//! The store of a fleet: one PostgreSQL database that any number of processes on any hosts share.
//!
//! Owns the handle: what is written in lanes, what is asked of the pool, and what only this process knows. Decisions are
//! in `flight`, claims in `claim`, who lives in `workers`.

mod archive;
mod claim;
mod connect;
mod encryption;
mod escrow;
mod flight;
mod fsck;
mod held;
mod hints;
mod lanes;
mod list;
mod load;
mod local;
mod pool;
mod prune;
mod rates;
mod read;
mod rekey;
mod request;
mod schema;
mod statements;
mod text;
mod trail;
mod url;
mod workers;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use windlass_core::audit;
use windlass_core::escrow::{Draw, Drawn};
use windlass_core::ids::{Digest, EffectId, Name, RunId};
use windlass_core::input::Sent;
use windlass_core::run::Status;
use windlass_core::time::Timestamp;
use windlass_ports::BoxFuture;
use windlass_ports::store::rates::Rates;
use windlass_ports::store::{
    Beat, Claim, Commit, Committed, Created, Delivered, Finding, InboxItem, JournalRow, Keep, Lease, Load, Message,
    NewRun, Object, OpId, Page, Pruned, Put, Query, Reaped, Registration, Retention, Signal, Signalled, Stats, Store,
    StoreError, Stored, Trail, WaitRow, WorkerId, WorkerRow,
};

use crate::cipher::Place;
use crate::keys::Keyring;
use crate::restore::{Held, RestoreError, Restored};
use claim::{Pace, Turns};
use connect::{Connector, Purpose};
use escrow::Draws;
use hints::{Hints, Listening};
use lanes::{Counters, Lanes};
use load::Loads;
use local::Local;
use pool::Pool;
use request::{Answer, Creation, Delivery, Request, Sending, Step, int};
use url::Address;
use workers::Workers;

/// Starts kept for the first decision of a run that was just loaded.
const PRIMERS_MAX: usize = 4_096;
/// A bundle stored this recently need not be stored again.
const BUNDLE_FRESH_SECONDS: i64 = 1_200;

/// Connections for claims, for the runs that they bring, and for hints.
const CLAIMERS: usize = 2;

/// A handle on one database. Its workers are gone when it is dropped.
#[derive(Debug)]
pub struct PostgresStore {
    lanes: Lanes,
    pool: Arc<Pool>,
    /// Connections for claims, the runs that they bring, and hints.
    queue: Arc<Pool>,
    loads: Loads,
    pace: Pace,
    workers: Workers,
    hints: Arc<Hints>,
    _listening: Listening,
    counters: Arc<Counters>,
    /// What claims took back and nobody was told of.
    untold: Mutex<Reaped>,
    /// Starts of runs that were loaded before their first decision, which repeats them.
    primers: Mutex<HashMap<RunId, Arc<[u8]>>>,
    /// Of each class, the tenant that was served last by this process.
    turns: tokio::sync::Mutex<Turns>,
    draws: Draws,
    poll: Duration,
    schema: u32,
}

/// The schema of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaStatus {
    /// The version that is there; 0 of an empty database.
    pub found: u32,
    /// The newest version this build knows.
    pub known: u32,
}

/// A connection to a database that nothing else uses, and what its address says.
#[derive(Debug)]
pub(crate) struct Plain {
    /// As the driver makes it.
    pub(crate) client: tokio_postgres::Client,
    /// How long a worker is taken to live after its last sign of life.
    pub(crate) lease: Duration,
    /// Whether a pooler in transaction mode is in between.
    pub(crate) is_pooled: bool,
}

/// Connects to a database without making a store in it.
pub(crate) async fn connect_plain(url: &str) -> Result<Plain, StoreError> {
    let connector = Connector::new(Address::parse(url)?)?;
    let client = connector.link(Purpose::Any).await?.client;
    Ok(Plain { client, lease: connector.address.settings.lease, is_pooled: connector.is_pooled() })
}

impl PostgresStore {
    /// Opens the database of a URL, and brings its schema up to date. Parameters of the URL beside those of the driver:
    /// `sslmode` (`disable`, `prefer`, `require`, `verify-full`), `sslrootcert`, `lease_ms`, `poll_ms`, `readers`,
    /// `lanes`, `patience_ms`, `pgbouncer`, `marks`. Call within a tokio runtime.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a wrong URL or a server the store cannot rely on, [`StoreError::NewerSchema`],
    /// [`StoreError::Unavailable`] when it cannot be reached or takes no writes. No text has the password.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        Self::open_with(url, None).await
    }

    /// The same with the keys that its values are encrypted with.
    ///
    /// # Errors
    /// As [`PostgresStore::open`]; [`StoreError::Key`] when these are not the keys of the database. Nothing was changed then.
    pub async fn open_with(url: &str, keys: Option<Keyring>) -> Result<Self, StoreError> {
        let connector = Arc::new(Connector::new(Address::parse(url)?)?);
        let (id, schema, cipher) = schema::prepare(&connector, keys.as_ref()).await?;
        let settings = &connector.address.settings;
        let local = Local::open(settings.marks.as_deref(), &id)?;
        let counters = Arc::new(Counters::default());
        let pool = Arc::new(Pool::new(&connector, Purpose::Any, settings.readers, &cipher));
        let queue = Arc::new(Pool::new(&connector, Purpose::Queue, CLAIMERS, &cipher));
        let hints = Hints::new();
        Ok(Self {
            lanes: Lanes::start(&connector, &hints, &counters),
            workers: Workers::new(local, Arc::clone(&connector)),
            _listening: hints.start(&connector, &queue),
            pool,
            loads: Loads::new(Arc::clone(&queue)),
            pace: Pace::default(),
            queue,
            hints,
            counters,
            untold: Mutex::default(),
            primers: Mutex::default(),
            turns: tokio::sync::Mutex::default(),
            draws: Draws::new(settings.readers),
            poll: settings.poll,
            schema,
        })
    }

    /// Opens a database to read it: nothing is written, made or migrated, and it may be a standby or take no writes. None
    /// when there is no store in it.
    ///
    /// # Errors
    /// As [`PostgresStore::open`]; [`StoreError::Invalid`] for a schema that is older than this build's.
    pub async fn open_to_read(url: &str, keys: Option<Keyring>) -> Result<Option<Self>, StoreError> {
        let mut connector = Connector::to_read(Address::parse(url)?)?;
        let mut link = match connector.link(Purpose::Any).await {
            Err(StoreError::Unavailable(_)) if connector.address.wants_primary() => {
                // No server takes writes now; one that can be read is enough.
                connector = Connector::to_read(Address::parse(url)?.of_any_server())?;
                connector.link(Purpose::Any).await?
            }
            made => made?,
        };
        let connector = Arc::new(connector);
        let is_standby = schema::check_to_read(&mut link, &connector.address.place()).await?;
        let (found, known) = (schema::found(&mut link).await?, schema::known());
        match found {
            0 => return Ok(None),
            found if found < known => return Err(crate::migration_due(found, known)),
            _ => {}
        }
        let cipher = encryption::cipher_to_read(&mut link, keys.as_ref()).await?;
        drop(link);
        let settings = &connector.address.settings;
        let counters = Arc::new(Counters::default());
        let pool = Arc::new(Pool::new(&connector, Purpose::Any, settings.readers, &cipher));
        let queue = Arc::new(Pool::new(&connector, Purpose::Queue, CLAIMERS, &cipher));
        let hints = Hints::new();
        // A standby takes no listeners; who waits looks from time to time.
        let listening = if is_standby { Listening::none() } else { hints.start(&connector, &queue) };
        Ok(Some(Self {
            lanes: Lanes::start(&connector, &hints, &counters),
            workers: Workers::new(Local::absent(), Arc::clone(&connector)),
            _listening: listening,
            pool,
            loads: Loads::new(Arc::clone(&queue)),
            pace: Pace::default(),
            queue,
            hints,
            counters,
            untold: Mutex::default(),
            primers: Mutex::default(),
            turns: tokio::sync::Mutex::default(),
            draws: Draws::new(settings.readers),
            poll: settings.poll,
            schema: found,
        }))
    }

    /// The schema of a database, which is not changed.
    ///
    /// # Errors
    /// As [`PostgresStore::open`]; a newer schema is no error here.
    pub async fn schema_status(url: &str) -> Result<SchemaStatus, StoreError> {
        let connector = Connector::new(Address::parse(url)?)?;
        let mut link = connector.link(Purpose::Any).await?;
        let known = schema::known();
        match schema::found(&mut link).await {
            Ok(found) | Err(StoreError::NewerSchema { found, .. }) => Ok(SchemaStatus { found, known }),
            Err(error) => Err(error),
        }
    }

    /// Brings the schema of a database up to date, and gives back its version.
    ///
    /// # Errors
    /// As [`PostgresStore::open`].
    pub async fn migrate(url: &str) -> Result<u32, StoreError> {
        let connector = Connector::new(Address::parse(url)?)?;
        schema::prepare(&connector, None).await.map(|(_, version, _)| version)
    }

    /// Fills an empty database from a copy that [`Store::backup`] made, and holds every unfinished run back. `reason` is
    /// given the time of the last change in the copy.
    ///
    /// # Errors
    /// [`RestoreError::NotEmpty`] for a database that has a store. Otherwise as [`PostgresStore::open`];
    /// [`StoreError::Invalid`] for a file that is no copy, [`StoreError::Corrupt`] for a damaged one. Nothing was written
    /// then.
    pub async fn restore(
        url: &str,
        keys: Option<Keyring>,
        from: &Path,
        reason: impl FnOnce(Option<Timestamp>) -> String,
        held: Held<'_>,
    ) -> Result<Restored, RestoreError> {
        archive::restore(&Connector::new(Address::parse(url)?)?, keys.as_ref(), from, reason, held).await
    }

    fn primers(&self) -> MutexGuard<'_, HashMap<RunId, Arc<[u8]>>> {
        self.primers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn untold(&self) -> MutexGuard<'_, Reaped> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember_start(&self, run: &RunId, bytes: Vec<u8>) {
        let mut primers = self.primers();
        if primers.len() >= PRIMERS_MAX {
            primers.clear();
        }
        primers.insert(run.clone(), bytes.into());
    }

    async fn create_now(&self, run: NewRun) -> Result<Created, StoreError> {
        let (id, creation) = (run.start.id.clone(), Creation::prepare(run, &self.pool.cipher)?);
        let Answer::Created(made) = self.lanes.ask(Request::Create(Box::new(creation))).await? else {
            return Err(StoreError::Corrupt("the answer is not that of a creation".into()));
        };
        if made.made {
            return Ok(Created::New);
        }
        match (read::head(&self.pool, &id).await?, made.missing) {
            (Some(head), _) => Ok(Created::Exists(Box::new(head))),
            (None, Some(above)) => {
                Err(StoreError::Invalid(format!("`{id}` is to be below `{above}`, which does not exist")))
            }
            (None, None) if !made.room => Ok(Created::Full),
            (None, None) => Err(StoreError::Corrupt(format!("`{id}` can neither be made nor found"))),
        }
    }

    async fn claim_now(&self, claim: Claim) -> Result<Vec<Lease>, StoreError> {
        // Whoever drives one tree wants its runs at once.
        let is_paced = claim.within.is_none();
        if is_paced {
            self.pace.pause().await;
        }
        let begun = tokio::time::Instant::now();
        let kept = self.workers.upkeep(&self.queue, claim.within.as_ref(), Some(int(claim.now.0))).await?;
        let (woken, runs) = (kept.woken, kept.reaped.runs);
        self.took_back(&kept.reaped);
        {
            let mut untold = self.untold();
            *untold = std::mem::take(&mut *untold).then(kept.reaped);
        }
        let leases = {
            let mut turns = self.turns.lock().await;
            claim::claim(&self.queue, &claim, &mut turns).await?
        };
        self.counters.claims.fetch_add(leases.len() as u64, Ordering::Relaxed);
        if is_paced && leases.len() < claim.limit {
            self.pace.emptied(begun.elapsed());
        }
        // Whoever claims takes what it woke; what it leaves is for others.
        let woken = woken.saturating_add(usize::try_from(runs).unwrap_or(usize::MAX));
        self.hints.tell(woken > leases.len());
        Ok(leases)
    }

    fn took_back(&self, reaped: &Reaped) {
        let runs = reaped.runs + reaped.quarantined.len() as u64;
        self.counters.reaped.fetch_add(runs, Ordering::Relaxed);
    }

    async fn reap_now(&self) -> Result<Reaped, StoreError> {
        let reaped = self.workers.upkeep(&self.queue, None, None).await?.reaped;
        self.took_back(&reaped);
        self.hints.tell(reaped.runs > 0);
        Ok(std::mem::take(&mut *self.untold()).then(reaped))
    }

    async fn commit_now(&self, commit: Commit) -> Result<Committed, StoreError> {
        let primer = match commit.expected {
            0 => self.primers().remove(&commit.lease.run),
            _ => None,
        };
        let step = Step::prepare(commit, primer.as_deref().unwrap_or_default(), &self.pool.cipher)?;
        match self.lanes.ask(Request::Commit(Box::new(step))).await? {
            Answer::Committed(committed) => Ok(committed),
            other => Err(StoreError::Corrupt(format!("a decision was answered with {other:?}"))),
        }
    }

    async fn stats_now(&self) -> Result<Stats, StoreError> {
        let stats = list::stats(&self.pool).await?;
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Ok(Stats {
            schema: self.schema,
            commits: count(&self.counters.commits),
            statements: count(&self.counters.statements),
            transactions: count(&self.counters.transactions),
            stale: count(&self.counters.stale),
            workers: self.workers.alive(&self.pool).await?,
            claims: count(&self.counters.claims),
            reaped: count(&self.counters.reaped),
            ..stats
        })
    }
}

impl Store for PostgresStore {
    fn join(&self, registration: Registration) -> BoxFuture<'_, Result<WorkerId, StoreError>> {
        Box::pin(async move { self.workers.join(&self.pool.cipher.registered(registration)).await })
    }

    fn beat(&self, worker: WorkerId, load: Load) -> BoxFuture<'_, Result<Beat, StoreError>> {
        Box::pin(async move { self.workers.beat(&worker, load).await })
    }

    fn leases(&self, worker: WorkerId) -> BoxFuture<'_, Result<Vec<Lease>, StoreError>> {
        Box::pin(async move { self.workers.leases(&self.pool, &worker).await })
    }

    fn is_current(&self, worker: &WorkerId) -> bool {
        self.workers.is_current(worker)
    }

    fn leave(&self, worker: WorkerId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let woke = self.workers.leave(&self.pool, &worker).await?;
            self.hints.tell(woke);
            Ok(())
        })
    }

    fn reap(&self) -> BoxFuture<'_, Result<Reaped, StoreError>> {
        Box::pin(self.reap_now())
    }

    fn workers(&self) -> BoxFuture<'_, Result<Vec<WorkerRow>, StoreError>> {
        Box::pin(self.workers.rows(&self.pool))
    }

    fn put_bundle(&self, digest: Digest, bytes: Vec<u8>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            if Digest::of(&bytes) != digest {
                return Err(StoreError::Invalid(format!("the bundle is not `{}`", digest.short())));
            }
            match read::bundle_age(&self.pool, digest).await? {
                Some(age) if age < BUNDLE_FRESH_SECONDS => Ok(()),
                _ => {
                    let packed = self.pool.cipher.pack(Place::Blob(digest), &bytes)?;
                    read::put_bundle(&self.pool, digest, packed).await
                }
            }
        })
    }

    fn blob(&self, digest: Digest) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>> {
        Box::pin(read::blob(&self.pool, digest))
    }

    fn create(&self, run: NewRun) -> BoxFuture<'_, Result<Created, StoreError>> {
        Box::pin(self.create_now(run))
    }

    fn claim(&self, claim: Claim) -> BoxFuture<'_, Result<Vec<Lease>, StoreError>> {
        Box::pin(self.claim_now(claim))
    }

    fn take_over(
        &self,
        run: RunId,
        worker: WorkerId,
        expected: Option<Status>,
    ) -> BoxFuture<'_, Result<Option<Lease>, StoreError>> {
        Box::pin(async move { claim::take_over(&self.pool, &run, &worker, expected).await })
    }

    fn load(&self, run: RunId) -> BoxFuture<'_, Result<Option<Stored>, StoreError>> {
        Box::pin(async move {
            let Some((stored, primer)) = self.loads.load(run.clone()).await? else { return Ok(None) };
            if stored.head.version == 0 {
                self.remember_start(&run, primer);
            }
            Ok(Some(stored))
        })
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Committed, StoreError>> {
        Box::pin(self.commit_now(commit))
    }

    fn was_committed(&self, run: RunId, op: OpId) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move { read::was_committed(&self.pool, &run, op).await })
    }

    fn requeue(&self, run: RunId) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move {
            let woke = claim::requeue(&self.pool, &run).await?;
            self.hints.tell(woke);
            Ok(woke)
        })
    }

    fn fence(&self, reason: Name) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move { self.workers.fence(&self.pool, &reason).await })
    }

    fn release(&self, lease: Lease, worker: WorkerId, keep: Keep) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let woke = claim::release(&self.pool, &lease, &worker, keep).await?;
            self.hints.tell(woke);
            Ok(())
        })
    }

    fn inbox(&self, run: RunId) -> BoxFuture<'_, Result<Vec<InboxItem>, StoreError>> {
        Box::pin(async move { read::inbox(&self.pool, &run).await })
    }

    fn deliver(&self, message: Message) -> BoxFuture<'_, Result<Delivered, StoreError>> {
        Box::pin(async move {
            match self.lanes.ask(Request::Deliver(Delivery::prepare(message, &self.pool.cipher)?)).await? {
                Answer::Delivered(delivered) => Ok(delivered),
                other => Err(StoreError::Corrupt(format!("a delivery was answered with {other:?}"))),
            }
        })
    }

    fn signal(&self, signal: Signal) -> BoxFuture<'_, Result<Signalled, StoreError>> {
        Box::pin(async move {
            match self.lanes.ask(Request::Signal(Box::new(Sending::prepare(&signal, &self.pool.cipher)?))).await? {
                Answer::Signalled(signalled) => Ok(signalled),
                other => Err(StoreError::Corrupt(format!("a signal was answered with {other:?}"))),
            }
        })
    }

    fn next_due(&self, within: Option<RunId>) -> BoxFuture<'_, Result<Option<Timestamp>, StoreError>> {
        Box::pin(async move { read::next_due(&self.pool, within.as_ref()).await })
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.hints.changed(self.poll))
    }

    fn mark_sent(&self, run: &RunId, effect: EffectId, attempt: u32) -> Result<(), StoreError> {
        self.workers.local.mark_sent(run, effect, attempt)
    }

    fn clear_sent(&self, run: &RunId, effect: EffectId, attempt: u32) {
        self.workers.local.clear_sent(run, effect, attempt);
    }

    fn was_sent(&self, worker: &WorkerId, run: &RunId, effect: EffectId, attempt: u32) -> Sent {
        self.workers.local.was_sent(worker, run, effect, attempt)
    }

    fn object(&self, kind: Name, key: Name) -> BoxFuture<'_, Result<Option<Object>, StoreError>> {
        Box::pin(async move { read::object(&self.pool, &kind, &key).await })
    }

    fn objects(&self, kind: Name, after: Option<Name>, limit: usize) -> BoxFuture<'_, Result<Vec<Object>, StoreError>> {
        Box::pin(async move { read::objects(&self.pool, &kind, after.as_deref(), limit).await })
    }

    fn put_object(&self, put: Put) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move { read::put_object(&self.pool, &put).await })
    }

    fn draw(&self, draw: Draw) -> BoxFuture<'_, Result<Drawn, StoreError>> {
        Box::pin(self.draws.draw(&self.pool, draw))
    }

    fn journal(&self, run: RunId, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<JournalRow>, StoreError>> {
        Box::pin(async move { read::journal(&self.pool, &run, after, limit).await })
    }

    fn audit(&self, run: RunId) -> BoxFuture<'_, Result<Vec<audit::Row>, StoreError>> {
        Box::pin(async move { read::audit(&self.pool, &run).await })
    }

    fn rates(&self) -> &dyn Rates {
        self
    }

    fn trail(&self) -> &dyn Trail {
        self
    }

    fn waits(&self, run: RunId, tree: bool) -> BoxFuture<'_, Result<Vec<(RunId, WaitRow)>, StoreError>> {
        Box::pin(async move { read::waits(&self.pool, &run, tree).await })
    }

    fn ids(&self, after: Option<RunId>, limit: usize) -> BoxFuture<'_, Result<Vec<RunId>, StoreError>> {
        Box::pin(async move { list::ids(&self.pool, after.as_ref(), limit).await })
    }

    fn list(&self, query: Query) -> BoxFuture<'_, Result<Page, StoreError>> {
        Box::pin(async move { list::list(&self.pool, &query).await })
    }

    fn prune(&self, retention: Retention) -> BoxFuture<'_, Result<Pruned, StoreError>> {
        Box::pin(async move { prune::prune(&self.pool, &retention).await })
    }

    fn fsck(&self) -> BoxFuture<'_, Result<Vec<Finding>, StoreError>> {
        Box::pin(fsck::check(&self.pool))
    }

    fn stats(&self) -> BoxFuture<'_, Result<Stats, StoreError>> {
        Box::pin(self.stats_now())
    }

    fn backup(&self, to: &Path) -> BoxFuture<'_, Result<(), StoreError>> {
        let to = to.to_path_buf();
        Box::pin(async move { archive::backup(&self.pool, self.schema, &to).await })
    }
}
