//! The one thread that writes: takes whatever requests wait, makes them one transaction, and answers when it is durable.
//!
//! A request that cannot be written is answered alone; those that came with it are written without it. After an error
//! of the device nothing is written any more: what it kept is known only after a restart.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, ErrorCode};
use tokio::sync::oneshot;
use windlass_core::ids::{Name, RunId};
use windlass_ports::store::{Reaped, StoreError, WorkerId};

use super::newborn;
use super::request::{Answer, Request};
use super::schema::{self, FileId};
use super::tx::{Trouble, Tx};
use super::workers::Workers;
use super::{Options, failed};
use crate::cipher::Cipher;

/// Requests in one transaction: enough to share a sync widely, few enough to answer soon.
const BATCH_MAX: usize = 512;
/// Pages of the log after which the checkpoint thread copies them back.
const COPY_PAGES: u64 = 1_000;
/// Pages of the log after which the writer itself waits until the log can start over: 64 MiB.
const RESTART_PAGES: u64 = 16_384;
/// Quiet time after which the log is emptied.
const QUIET: Duration = Duration::from_millis(200);

/// A request and where its answer goes.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) request: Request,
    pub(super) answer: oneshot::Sender<Result<Answer, StoreError>>,
}

/// What the writer did, for everyone to read.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) commits: AtomicU64,
    pub(super) statements: AtomicU64,
    pub(super) transactions: AtomicU64,
    pub(super) stale: AtomicU64,
    pub(super) claims: AtomicU64,
    pub(super) reaped: AtomicU64,
    /// What claims took back and nobody was told of.
    untold: Mutex<Reaped>,
}

impl Counters {
    pub(super) fn untold(&self) -> MutexGuard<'_, Reaped> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Names of pools and tenants that are remembered.
const NAMES_MAX: usize = 4_096;

/// Keys looked up before. Forgotten when a transaction fails, since it may have made them.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) runs: HashMap<RunId, i64>,
    pub(super) newborns: newborn::Queued,
    pub(super) workers: HashMap<WorkerId, i64>,
    pub(super) names: HashMap<Name, i64>,
    /// The last place that was given out in the queue. Never forgotten.
    pub(super) last_ready: i64,
    /// Of each class, the tenant that was served last. Never forgotten.
    pub(super) turns: [i64; 3],
}

impl Known {
    pub(super) fn remember_name(&mut self, name: &Name, key: i64) {
        if self.names.len() >= NAMES_MAX {
            self.names.clear();
        }
        self.names.insert(name.clone(), key);
    }

    fn forget(&mut self) {
        *self = Self { last_ready: self.last_ready, turns: self.turns, ..Self::default() };
    }
}

pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
    pub(super) file: FileId,
    pub(super) options: Options,
    pub(super) jobs: Receiver<Job>,
    pub(super) workers: Arc<Workers>,
    pub(super) counters: Arc<Counters>,
    cipher: Cipher,
    known: Known,
    /// Why nothing can be written any more.
    broken: Option<String>,
    /// Pages in the log, as the last commit left it.
    log_pages: Arc<AtomicU64>,
    copied_at: u64,
    restarted_at: u64,
    copier: Option<SyncSender<()>>,
}

enum Failure {
    /// The request at this place cannot be written; the others can.
    Request(StoreError),
    /// Nothing was written, and it may go better another time.
    Passing(StoreError),
    /// What was written is not known, and nothing may be written from now on.
    Device(String),
}

impl Writer {
    pub(super) fn new(
        mut connection: Connection,
        (path, file): (PathBuf, FileId),
        options: Options,
        jobs: Receiver<Job>,
        (workers, counters, cipher): (Arc<Workers>, Arc<Counters>, Cipher),
    ) -> Result<Self, StoreError> {
        let log_pages = Arc::new(AtomicU64::new(0));
        let pages = Arc::clone(&log_pages);
        let hook = move |_: &mut rusqlite::hooks::Wal, now: std::ffi::c_int| {
            pages.store(u64::try_from(now).unwrap_or_default(), Ordering::Relaxed);
            Ok(())
        };
        connection.wal_hook(Some(hook)).map_err(failed)?;
        let last = "SELECT max(ready) FROM runs WHERE ready IS NOT NULL";
        let last_ready: Option<i64> = connection.query_row(last, [], |row| row.get(0)).map_err(failed)?;
        let known = Known { last_ready: last_ready.unwrap_or_default(), ..Known::default() };
        let (broken, copier) = (None, None);
        Ok(Self {
            connection,
            path,
            file,
            options,
            jobs,
            workers,
            counters,
            cipher,
            known,
            broken,
            log_pages,
            copied_at: 0,
            restarted_at: 0,
            copier,
        })
    }

    /// Works until every handle is gone.
    pub(super) fn run(mut self) {
        while let Some(first) = self.wait() {
            let mut jobs = vec![first];
            while jobs.len() < BATCH_MAX
                && let Ok(job) = self.jobs.try_recv()
            {
                jobs.push(job);
            }
            self.work(jobs);
            self.tend_log();
        }
        let Self { connection, path, file, copier, .. } = self;
        drop(copier);
        schema::close(connection, &path, file);
    }

    /// The next job. Empties the log once when none comes for a while, and then sleeps until one does.
    fn wait(&mut self) -> Option<Job> {
        if self.log_pages.load(Ordering::Relaxed) > 0 {
            match self.jobs.recv_timeout(QUIET) {
                Ok(job) => return Some(job),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => self.checkpoint(CheckpointMode::TRUNCATE),
            }
        }
        self.jobs.recv().ok()
    }

    fn work(&mut self, jobs: Vec<Job>) {
        let (requests, answers): (Vec<_>, Vec<_>) = jobs.into_iter().map(|job| (job.request, job.answer)).unzip();
        let results = match self.transact(&requests) {
            Ok(results) => results.into_iter().map(Ok).collect(),
            Err(Failure::Request(error)) if requests.len() == 1 => vec![Err(error)],
            Err(Failure::Request(_)) => requests.iter().map(|request| self.alone(request)).collect(),
            Err(Failure::Passing(error)) => requests.iter().map(|_| Err(copy(&error))).collect::<Vec<_>>(),
            Err(Failure::Device(why)) => {
                self.fail(&why);
                requests.iter().map(|_| Err(StoreError::Unavailable(why.clone()))).collect()
            }
        };
        for (answer, result) in answers.into_iter().zip(results) {
            // Whoever asked may have gone; what was written stays written.
            let _gone = answer.send(result);
        }
    }

    fn alone(&mut self, request: &Request) -> Result<Answer, StoreError> {
        match self.transact(std::slice::from_ref(request)) {
            Ok(mut answers) => answers.pop().ok_or_else(|| StoreError::Corrupt("a request has no answer".into())),
            Err(Failure::Request(error) | Failure::Passing(error)) => Err(error),
            Err(Failure::Device(why)) => {
                self.fail(&why);
                Err(StoreError::Unavailable(why))
            }
        }
    }

    fn fail(&mut self, why: &str) {
        if self.broken.is_none() {
            tracing::error!(path = %self.path.display(), why, "the store stops");
            self.broken = Some(why.to_owned());
        }
    }

    /// Writes all of these or none of them.
    fn transact(&mut self, requests: &[Request]) -> Result<Vec<Answer>, Failure> {
        if let Some(why) = &self.broken {
            return Err(Failure::Passing(StoreError::Unavailable(format!("stopped after an earlier error: {why}"))));
        }
        run_cached(&self.connection, "BEGIN IMMEDIATE").map_err(|error| self.judge(error))?;
        let mut tx = Tx::new(&self.connection, &mut self.known, &self.workers, &self.cipher);
        let refreshed = super::encryption::refresh(&self.connection, &self.cipher).map_err(Trouble::Refused);
        let written =
            refreshed.and_then(|()| requests.iter().map(|request| tx.perform(request)).collect::<Result<Vec<_>, _>>());
        let written = written.and_then(|answers| tx.close_books().map(|()| answers));
        let (tally, told, reaped) = (tx.tally, tx.told, std::mem::take(&mut tx.untold));
        let committed = written.and_then(|answers| {
            run_cached(&self.connection, "COMMIT")?;
            Ok(answers)
        });
        let answers = match committed {
            Ok(answers) => answers,
            Err(trouble) => {
                self.known.forget();
                let failure = match trouble {
                    Trouble::Refused(error) => Failure::Request(error),
                    Trouble::Sql(error) => self.judge(error),
                };
                // Some errors have ended the transaction already.
                if !self.connection.is_autocommit()
                    && let Err(error) = self.connection.execute_batch("ROLLBACK")
                {
                    return Err(Failure::Device(format!("a transaction cannot be undone: {error}")));
                }
                return Err(failure);
            }
        };
        if FileId::of(&self.path) != Some(self.file) {
            let path = self.path.display();
            return Err(Failure::Device(format!("`{path}` was removed or replaced while it was in use")));
        }
        self.counters.commits.fetch_add(tally.commits, Ordering::Relaxed);
        self.counters.stale.fetch_add(tally.stale, Ordering::Relaxed);
        self.counters.statements.fetch_add(tally.statements, Ordering::Relaxed);
        self.counters.claims.fetch_add(tally.claims, Ordering::Relaxed);
        self.counters.reaped.fetch_add(tally.reaped, Ordering::Relaxed);
        if reaped != Reaped::default() {
            let mut untold = self.counters.untold();
            *untold = std::mem::take(&mut *untold).then(reaped);
        }
        self.counters.transactions.fetch_add(u64::from(tally.commits > 0), Ordering::Relaxed);
        if told.here {
            self.workers.tell(told.elsewhere);
        }
        Ok(answers)
    }

    fn judge(&self, error: rusqlite::Error) -> Failure {
        match error.sqlite_error_code() {
            Some(ErrorCode::SystemIoFailure) => Failure::Device(format!("the device failed: {error}")),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                let waited = self.options.busy_ms;
                Failure::Passing(StoreError::Unavailable(format!("another process has been writing for {waited} ms")))
            }
            Some(
                ErrorCode::DiskFull
                | ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied
                | ErrorCode::CannotOpen
                | ErrorCode::OutOfMemory
                | ErrorCode::SchemaChanged,
            ) => Failure::Passing(failed(error)),
            _ => Failure::Request(failed(error)),
        }
    }

    /// Keeps the log short: a second thread copies it back while the writer goes on, and when that is not enough the
    /// writer waits until the log can start over.
    fn tend_log(&mut self) {
        let pages = self.log_pages.load(Ordering::Relaxed);
        if pages < self.copied_at {
            (self.copied_at, self.restarted_at) = (0, 0);
        }
        if pages > self.restarted_at + RESTART_PAGES {
            self.restarted_at = pages;
            self.checkpoint(CheckpointMode::RESTART);
        } else if pages > self.copied_at + COPY_PAGES {
            self.copied_at = pages;
            self.copy();
        }
    }

    fn copy(&mut self) {
        let asked = self.copier.as_ref().map(|copier| copier.try_send(()));
        if matches!(asked, None | Some(Err(TrySendError::Disconnected(())))) {
            self.copier = self.start_copier();
        }
    }

    /// The thread that copies the log back; without one the writer does it when the log is long.
    fn start_copier(&self) -> Option<SyncSender<()>> {
        let (sender, asked) = sync_channel::<()>(1);
        let (path, file, options) = (self.path.clone(), self.file, self.options.clone());
        let work = move || {
            let Ok(connection) = schema::connect(&path, &options) else { return };
            while let Ok(()) = asked.recv() {
                // A copy that fails is tried again with more pages; the log keeps what was not copied.
                let _again = connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::PASSIVE);
            }
            schema::close(connection, &path, file);
        };
        std::thread::Builder::new().name("windlass-checkpoint".into()).spawn(work).ok()?;
        sender.try_send(()).ok()?;
        Some(sender)
    }

    fn checkpoint(&mut self, mode: CheckpointMode) {
        if self.broken.is_some() {
            return;
        }
        match self.connection.wal_checkpoint_v2(None::<&str>, mode) {
            // The next commit says how long the log is then.
            Ok(_) => self.log_pages.store(0, Ordering::Relaxed),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure) => {
                self.fail(&format!("the device failed: {error}"));
            }
            // A reader holds the log. It grows until the next time.
            Err(error) => {
                self.log_pages.store(0, Ordering::Relaxed);
                tracing::debug!(%error, "the log is kept");
            }
        }
    }
}

fn run_cached(connection: &Connection, sql: &str) -> Result<(), rusqlite::Error> {
    connection.prepare_cached(sql)?.execute([]).map(|_| ())
}

fn copy(error: &StoreError) -> StoreError {
    match error {
        StoreError::Unavailable(text) => StoreError::Unavailable(text.clone()),
        StoreError::Corrupt(text) => StoreError::Corrupt(text.clone()),
        StoreError::Invalid(text) => StoreError::Invalid(text.clone()),
        StoreError::Key(text) => StoreError::Key(text.clone()),
        StoreError::NewerSchema { found, known } => StoreError::NewerSchema { found: *found, known: *known },
    }
}
