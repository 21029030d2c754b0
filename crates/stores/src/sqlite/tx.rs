//! One open transaction: the keys looked up in it, the statements counted, and who has to be told of it.

use std::ops::ControlFlow;
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, Params, Row};
use windlass_core::ids::{Name, RunId};
use windlass_core::run::Status;
use windlass_ports::store::escrow::Sheet;
use windlass_ports::store::{Priority, Reaped, StoreError, WorkerId};

use super::request::{Answer, Request};
use super::workers::Workers;
use super::writer::Known;
use crate::cipher::Cipher;

/// Why a request cannot be written.
#[derive(Debug)]
pub(super) enum Trouble {
    Sql(rusqlite::Error),
    Refused(StoreError),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}

/// What happened in a transaction, to be counted when it is durable.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) commits: u64,
    pub(super) stale: u64,
    pub(super) statements: u64,
    pub(super) claims: u64,
    pub(super) reaped: u64,
}

/// Who has to be told when it is durable.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    pub(super) here: bool,
    pub(super) elsewhere: bool,
}

pub(super) struct Tx<'a> {
    pub(super) connection: &'a Connection,
    pub(super) known: &'a mut Known,
    pub(super) workers: &'a Workers,
    pub(super) cipher: &'a Cipher,
    pub(super) tally: Tally,
    pub(super) told: Told,
    /// What claims took back.
    pub(super) untold: Reaped,
    /// Workers found alive in this transaction.
    pub(super) alive: Vec<i64>,
    /// The parent that the children before had.
    pub(super) parent: Option<(RunId, Parent)>,
    /// What draws read and changed so far.
    pub(super) sheet: Sheet,
    ran: u64,
}

/// What a child has from its parent.
#[derive(Clone)]
pub(super) struct Parent {
    pub(super) key: i64,
    pub(super) pool: i64,
    pub(super) priority: i64,
    pub(super) tags: Option<Vec<u8>>,
}

/// Places of runs that were taken back from a worker are this much smaller, so that they come before all others.
pub(super) const FRONT: i64 = 1 << 62;

/// A class as stored, the one claimed first being 0.
pub(super) fn class_code(priority: Priority) -> i64 {
    Priority::ALL.iter().position(|known| *known == priority).map_or(-1, |place| place as i64)
}

/// Microseconds since the Unix epoch.
fn micros_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.ok().and_then(|since| i64::try_from(since.as_micros()).ok()).unwrap_or_default()
}

/// A number as stored. What is beyond 2^63-1 stands for the end of time or of counting, and stays there.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number as read.
pub(super) fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// A status as stored.
pub(super) fn status_code(status: Status) -> i64 {
    Status::ALL.iter().position(|known| *known == status).map_or(-1, |place| place as i64)
}

/// The first of the final ones, which are last.
pub(super) const FINAL: i64 = 6;

impl<'a> Tx<'a> {
    pub(super) fn new(
        connection: &'a Connection,
        known: &'a mut Known,
        workers: &'a Workers,
        cipher: &'a Cipher,
    ) -> Self {
        let (tally, told) = (Tally::default(), Told::default());
        let untold = Reaped::default();
        let sheet = Sheet::default();
        Self { connection, known, workers, cipher, tally, told, untold, alive: Vec::new(), parent: None, sheet, ran: 0 }
    }

    pub(super) fn perform(&mut self, request: &Request) -> Result<Answer, Trouble> {
        self.parent = None;
        match request {
            Request::PutBundle(digest, packed) => self.put_bundle(*digest, packed).map(|()| Answer::Done),
            Request::Create(creation) => self.create(creation).map(Answer::Created),
            Request::Claim(claim) => self.claim(claim).map(Answer::Leases),
            Request::TakeOver(run, worker, expected) => {
                Ok(Answer::Leases(self.take_over(run, worker, *expected)?.into_iter().collect()))
            }
            Request::Commit(step) => {
                self.ran = 0;
                let committed = self.commit(step)?;
                self.tally.statements += self.ran;
                Ok(Answer::Committed(committed))
            }
            Request::WasCommitted(run, op) => self.was_committed(run, *op).map(Answer::Is),
            Request::Release(lease, worker, keep) => self.release(lease, worker, *keep).map(|()| Answer::Done),
            Request::Leave(worker) => self.leave(worker).map(|()| Answer::Done),
            Request::Reap => self.reap(None).map(Answer::Reaped),
            Request::Requeue(run) => self.requeue(run).map(Answer::Is),
            Request::Fence(reason) => self.fence(reason).map(Answer::Fenced),
            Request::PutObject(put) => {
                self.close_books()?;
                self.put_object(put).map(Answer::Is)
            }
            Request::Draw(draw) => self.draw(draw).map(Answer::Drawn),
            Request::Take(take) => self.take_permits(take).map(Answer::Taken),
            Request::Deliver(delivery) => self.deliver(delivery).map(Answer::Delivered),
            Request::Signal(signal) => self.signal(signal).map(Answer::Signalled),
            Request::Prune(roots, mode) => {
                self.close_books()?;
                self.prune(roots, *mode).map(Answer::Pruned)
            }
            Request::ForgetSignals(before) => self.forget_signals(*before).map(|()| Answer::Done),
            Request::ForgetWorkers(workers) => self.forget_workers(workers).map(Answer::Forgotten),
            Request::Seal(sealing) => self.seal(sealing).map(Answer::Is),
            Request::Act(tenant, act) => self.act(tenant, act).map(Answer::Is),
            Request::PruneTrail(pruning) => self.prune_trail(pruning).map(|()| Answer::Is(true)),
        }
    }

    /// Runs a statement; tells how many rows it changed.
    pub(super) fn run(&mut self, sql: &str, params: impl Params) -> Result<usize, Trouble> {
        self.ran += 1;
        Ok(self.connection.prepare_cached(sql)?.execute(params)?)
    }

    /// The one row of a query, when there is one.
    pub(super) fn row<T>(
        &mut self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, Trouble> {
        self.ran += 1;
        Ok(self.connection.prepare_cached(sql)?.query_row(params, read).optional()?)
    }

    /// Every row of a query.
    pub(super) fn rows<T>(
        &mut self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, Trouble> {
        self.ran += 1;
        Ok(self.connection.prepare_cached(sql)?.query_map(params, read)?.collect::<Result<_, _>>()?)
    }

    /// The key of a run.
    pub(super) fn run_key(&mut self, run: &RunId) -> Result<Option<i64>, Trouble> {
        self.row("SELECT key FROM runs WHERE id = ?1", [run.as_str()], |row| row.get(0))
    }

    pub(super) fn worker_key(&mut self, worker: &WorkerId) -> Result<Option<i64>, Trouble> {
        if let Some(key) = self.known.workers.get(worker) {
            return Ok(Some(*key));
        }
        let found = self.row("SELECT key FROM workers WHERE id = ?1", [&*worker.0], |row| row.get(0))?;
        if let Some(key) = found {
            self.known.workers.insert(worker.clone(), key);
        }
        Ok(found)
    }

    /// The name of a worker; one that was forgotten has none, and is dead.
    pub(super) fn worker_name(&mut self, key: i64) -> Result<WorkerId, Trouble> {
        let name = self.row("SELECT id FROM workers WHERE key = ?1", [key], |row| row.get::<_, String>(0))?;
        Ok(WorkerId(name.unwrap_or_default().into()))
    }

    pub(super) fn worker_key_or_new(&mut self, worker: &WorkerId) -> Result<i64, Trouble> {
        if let Some(key) = self.worker_key(worker)? {
            return Ok(key);
        }
        self.run("INSERT INTO workers (id) VALUES (?1)", [&*worker.0])?;
        let key = self.connection.last_insert_rowid();
        self.known.workers.insert(worker.clone(), key);
        Ok(key)
    }

    /// The next place in the queue: the time, and later than all before it. Others are told.
    pub(super) fn next_ready(&mut self) -> i64 {
        self.told = Told { here: true, elsewhere: true };
        self.place()
    }

    /// The next place in the queue, of which nobody needs to be told.
    pub(super) fn place(&mut self) -> i64 {
        self.known.last_ready = micros_now().max(self.known.last_ready + 1);
        self.known.last_ready
    }

    /// The key of a name.
    pub(super) fn name_key(&mut self, name: &Name) -> Result<Option<i64>, Trouble> {
        if let Some(key) = self.known.names.get(name) {
            return Ok(Some(*key));
        }
        let found = self.row("SELECT key FROM names WHERE name = ?1", [&**name], |row| row.get(0))?;
        if let Some(key) = found {
            self.known.remember_name(name, key);
        }
        Ok(found)
    }

    pub(super) fn name_key_or_new(&mut self, name: &Name) -> Result<i64, Trouble> {
        if let Some(key) = self.name_key(name)? {
            return Ok(key);
        }
        self.run("INSERT INTO names (name) VALUES (?1)", [&**name])?;
        let key = self.connection.last_insert_rowid();
        self.known.remember_name(name, key);
        Ok(key)
    }

    /// Whether the worker of this key belongs to this process.
    pub(super) fn is_own(&self, key: i64) -> bool {
        let found = self.known.workers.iter().try_for_each(|(id, known)| match *known == key {
            true => ControlFlow::Break(id),
            false => ControlFlow::Continue(()),
        });
        matches!(found, ControlFlow::Break(id) if self.workers.is_mine(id))
    }

    fn forget_workers(&mut self, workers: &[WorkerId]) -> Result<Vec<WorkerId>, Trouble> {
        let mut forgotten = Vec::new();
        for worker in workers {
            let Some(key) = self.worker_key(worker)? else {
                forgotten.push(worker.clone());
                continue;
            };
            let used = self.row("SELECT 1 FROM runs WHERE owner = ?1 OR lost = ?1 LIMIT 1", [key], |_| Ok(()))?;
            if used.is_none() {
                self.run("DELETE FROM workers WHERE key = ?1", [key])?;
                self.known.workers.remove(worker);
                forgotten.push(worker.clone());
            }
        }
        Ok(forgotten)
    }
}
