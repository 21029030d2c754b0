//! Creating runs, and writing decisions.
//!
//! An ordinary step is two statements: the guarded change of the hot row, and one journal row that has its audit rows
//! with it. The guard comes first; what fails it writes nothing.

use rusqlite::params;
use windlass_core::ids::{Digest, RunId};
use windlass_core::run::{Start, Status};
use windlass_ports::store::{Committed, Created, Keep, OpId, StoreError};

use super::read;
use super::request::{Creation, Step};
use super::tx::{Trouble, Tx, count, int, status_code};

/// The step of a run that its worker goes on with, when its inbox is empty: no index changes.
const HOLD: &str = "UPDATE runs SET status = ?1, state = ?2, step = ?3, version = ?4, tokens = ?5, cost_micros = ?6, \
     bundle = ?7, updated_at = ?8, lost = NULL WHERE key = ?9 AND version = ?10 AND epoch = ?11 AND owner = ?12 AND pending = 0";
/// The same, when its worker lets it go.
const LET_GO: &str = "UPDATE runs SET status = ?1, state = ?2, step = ?3, version = ?4, tokens = ?5, cost_micros = ?6, \
     bundle = ?7, updated_at = ?8, lost = NULL, owner = NULL, ready = ?13, wake_at = ?14 \
     WHERE key = ?9 AND version = ?10 AND epoch = ?11 AND owner = ?12 AND pending = 0";
/// The same, whatever the inbox has.
const ANY: &str = "UPDATE runs SET status = ?1, state = ?2, step = ?3, version = ?4, tokens = ?5, cost_micros = ?6, \
     bundle = ?7, updated_at = ?8, lost = NULL, owner = ?13, ready = ?14, wake_at = ?15, pending = ?16 \
     WHERE key = ?9 AND version = ?10 AND epoch = ?11 AND owner = ?12";
const JOURNAL: &str = "INSERT INTO journal (run, version, op, record, blobs, audit) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

/// What becomes of the lease.
struct Fate {
    held: bool,
    ready: Option<i64>,
    wake_at: Option<i64>,
}

impl Tx<'_> {
    pub(super) fn put_bundle(&mut self, digest: Digest, packed: &[u8]) -> Result<(), Trouble> {
        let now = read::seconds_now();
        let sql = "INSERT INTO blobs (digest, bundled_at, bytes) VALUES (?1, ?2, ?3) \
             ON CONFLICT (digest) DO UPDATE SET bundled_at = excluded.bundled_at";
        self.run(sql, params![digest.0, now, packed])?;
        Ok(())
    }

    pub(super) fn create(&mut self, creation: &Creation) -> Result<Created, Trouble> {
        if self.insert(creation)? {
            return Ok(Created::New);
        }
        match read::head(self.connection, &creation.start.id)? {
            Some(head) => Ok(Created::Exists(Box::new(head))),
            None => Err(StoreError::Corrupt(format!("`{}` can neither be made nor found", creation.start.id)).into()),
        }
    }

    fn above(&mut self, start: &Start, run: &RunId) -> Result<i64, Trouble> {
        let text = || format!("`{}` is to be below `{run}`, which does not exist", start.id);
        self.run_key(run)?.ok_or_else(|| Trouble::Refused(StoreError::Invalid(text())))
    }

    /// Writes a run into the queue, unless there is one of its name. Tells whether it did.
    fn insert(&mut self, creation: &Creation) -> Result<bool, Trouble> {
        let start = &creation.start;
        let parent = start.parent.as_ref().map(|parent| self.above(start, &parent.run)).transpose()?;
        let root = if start.root == start.id { None } else { Some(self.above(start, &start.root)?) };
        let ready = self.next_ready()?;
        let at = int(creation.at.0);
        let sql = "INSERT INTO runs (id, parent, root, status, step, version, epoch, ready, pending, tokens, \
             cost_micros, bundle, updated_at) VALUES (?1, ?2, ?3, ?4, 0, 0, 0, ?5, 0, 0, 0, ?6, ?7) \
             ON CONFLICT (id) DO NOTHING";
        let running = status_code(Status::Running);
        if self.run(sql, params![start.id.as_str(), parent, root, running, ready, start.bundle.0, at])? == 0 {
            return Ok(false);
        }
        let key = self.connection.last_insert_rowid();
        let sql = "INSERT INTO starts (run, machine, tenant, depth, input, created_at, start) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let (machine, tenant) = (&*start.machine_name, &*start.scope.tenant);
        self.run(sql, params![key, machine, tenant, start.depth, start.input.digest().0, at, creation.packed])?;
        Ok(true)
    }

    pub(super) fn commit(&mut self, step: &Step) -> Result<Committed, Trouble> {
        // The key of a run taken here is remembered. What is remembered may be of a run removed and made again since,
        // which then looks stale, so a stale answer is looked up.
        let remembered = self.known.runs.get(&step.lease.run).copied();
        let mut committed = Committed::Stale;
        if let (Some(run), Some(worker)) = (remembered, self.worker_key(&step.worker)?) {
            committed = self.step(step, run, worker)?;
        }
        if committed == Committed::Stale
            && let Some(run) = self.run_key(&step.lease.run)?
            && let Some(worker) = self.worker_key(&step.worker)?
            && remembered != Some(run)
        {
            committed = self.step(step, run, worker)?;
        }
        match committed {
            Committed::Stale => self.tally.stale += 1,
            Committed::Applied { held, .. } => {
                self.tally.commits += 1;
                if !held {
                    self.known.runs.remove(&step.lease.run);
                }
            }
        }
        Ok(committed)
    }

    fn step(&mut self, step: &Step, run: i64, worker: i64) -> Result<Committed, Trouble> {
        match self.plain_step(step, run, worker)? {
            Some(committed) => Ok(committed),
            None => self.any_step(step, run, worker),
        }
    }

    /// A decision that neither takes from an inbox nor adds to one, of a run whose inbox is empty. None when it is
    /// not that simple, or stale; then nothing is written.
    fn plain_step(&mut self, step: &Step, run: i64, worker: i64) -> Result<Option<Committed>, Trouble> {
        if !(step.taken.is_empty() && step.opened.is_empty() && step.messages.is_empty()) {
            return Ok(None);
        }
        let head = &step.head;
        let (status, state, version) = (status_code(head.status), head.state.as_deref(), int(step.expected));
        let (done, tokens, cost) = (int(head.step), int(head.tokens), int(head.cost_micros));
        let (epoch, at, bundle) = (int(step.lease.epoch), int(step.at.0), &head.bundle.0);
        let fate = match step.keep {
            Keep::Hold => None,
            keep => Some(self.fate(keep, false)?),
        };
        let changed = match &fate {
            None => self.run(
                HOLD,
                params![status, state, done, version + 1, tokens, cost, bundle, at, run, version, epoch, worker],
            )?,
            Some(Fate { ready, wake_at, .. }) => self.run(
                LET_GO,
                params![
                    status,
                    state,
                    done,
                    version + 1,
                    tokens,
                    cost,
                    bundle,
                    at,
                    run,
                    version,
                    epoch,
                    worker,
                    ready,
                    wake_at
                ],
            )?,
        };
        if changed == 0 {
            return Ok(None);
        }
        self.append(step, run)?;
        for child in &step.children {
            self.insert(child)?;
        }
        self.close_waits(step, run)?;
        Ok(Some(Committed::Applied { held: fate.is_none(), inbox: false }))
    }

    fn any_step(&mut self, step: &Step, run: i64, worker: i64) -> Result<Committed, Trouble> {
        let (version, epoch) = (int(step.expected), int(step.lease.epoch));
        let guard = "SELECT pending FROM runs WHERE key = ?1 AND version = ?2 AND epoch = ?3 AND owner = ?4";
        let pending = self.row(guard, params![run, version, epoch, worker], |row| row.get::<_, i64>(0))?;
        let Some(mut pending) = pending else { return Ok(Committed::Stale) };
        self.append(step, run)?;
        for number in &step.taken {
            let sql = "UPDATE inbox SET input = NULL WHERE number = ?1 AND run = ?2 AND input IS NOT NULL";
            pending -= self.run(sql, params![int(*number), run])? as i64;
        }
        for child in &step.children {
            self.insert(child)?;
        }
        self.close_waits(step, run)?;
        let ends = step.keep == Keep::End;
        for message in &step.messages {
            match message.to == step.lease.run {
                true if ends => {}
                true => pending += i64::from(self.add_to_inbox(run, &message.id, &message.packed)?),
                false => {
                    // One that does not arrive is dropped: its run is over or does not exist.
                    let _dropped = self.deliver(message)?;
                }
            }
        }
        for wait in &step.opened {
            if !ends {
                pending += i64::from(self.open_wait(wait, run, &step.lease.run)?);
            }
        }
        if ends && pending > 0 {
            self.run("UPDATE inbox SET input = NULL WHERE run = ?1 AND input IS NOT NULL", [run])?;
            pending = 0;
        }
        let fate = self.fate(step.keep, pending > 0)?;
        let head = &step.head;
        let changed = self.run(
            ANY,
            params![
                status_code(head.status),
                head.state.as_deref(),
                int(head.step),
                version + 1,
                int(head.tokens),
                int(head.cost_micros),
                head.bundle.0,
                int(step.at.0),
                run,
                version,
                epoch,
                worker,
                fate.held.then_some(worker),
                fate.ready,
                fate.wake_at,
                pending
            ],
        )?;
        if changed != 1 {
            return Err(StoreError::Corrupt(format!("the row of `{}` changed under its guard", step.lease.run)).into());
        }
        Ok(Committed::Applied { held: fate.held, inbox: pending > 0 })
    }

    fn fate(&mut self, keep: Keep, has_inbox: bool) -> Result<Fate, Trouble> {
        let gone = Fate { held: false, ready: None, wake_at: None };
        Ok(match keep {
            Keep::Hold => Fate { held: true, ..gone },
            Keep::Park { .. } if has_inbox => Fate { held: true, ..gone },
            Keep::Park { wake_at } => Fate { wake_at: wake_at.map(|at| int(at.0)), ..gone },
            Keep::HandBack => Fate { ready: Some(self.next_ready()?), ..gone },
            Keep::End => gone,
        })
    }

    /// Everything of a decision that is only ever added: journal, audit rows, snapshot, blobs.
    fn append(&mut self, step: &Step, run: i64) -> Result<(), Trouble> {
        let version = int(step.expected.saturating_add(1));
        let op = step.op.0.to_be_bytes();
        self.run(JOURNAL, params![run, version, op, step.record, step.uses_packed, step.audit])?;
        if let Some(snapshot) = &step.snapshot {
            let sql = "INSERT INTO snapshots (run, version, bytes) VALUES (?1, ?2, ?3) \
                 ON CONFLICT (run) DO UPDATE SET version = excluded.version, bytes = excluded.bytes";
            self.run(sql, params![run, version, snapshot])?;
        }
        for (digest, packed) in &step.blobs {
            let sql = "INSERT INTO blobs (digest, bytes) VALUES (?1, ?2) ON CONFLICT (digest) DO NOTHING";
            self.run(sql, params![digest.0, packed])?;
        }
        let new = step.blobs.iter().map(|(digest, _)| digest).filter(|digest| !step.uses.contains(digest));
        for digest in step.uses.iter().chain(new) {
            let found = self.row("SELECT key FROM blobs WHERE digest = ?1", [digest.0], |row| row.get::<_, i64>(0))?;
            let Some(blob) = found else {
                let text = format!("blob `{}` of `{}` is not stored", digest.short(), step.lease.run);
                return Err(StoreError::Invalid(text).into());
            };
            self.run("INSERT OR IGNORE INTO blob_uses (run, blob) VALUES (?1, ?2)", [run, blob])?;
        }
        Ok(())
    }

    fn close_waits(&mut self, step: &Step, run: i64) -> Result<(), Trouble> {
        if step.keep == Keep::End {
            self.run("DELETE FROM waits WHERE run = ?1", [run])?;
            self.run("UPDATE signals SET data = NULL WHERE run = ?1 AND data IS NOT NULL", [run])?;
            return Ok(());
        }
        for effect in &step.closed {
            self.run("DELETE FROM waits WHERE run = ?1 AND effect = ?2", [run, int(effect.0)])?;
        }
        Ok(())
    }

    pub(super) fn was_committed(&mut self, run: &RunId, op: OpId) -> Result<bool, Trouble> {
        let Some(key) = self.run_key(run)? else { return Ok(false) };
        let sql = "SELECT count(*) FROM journal WHERE run = ?1 AND op = ?2";
        let found = self.row(sql, params![key, op.0.to_be_bytes()], |row| row.get(0))?;
        Ok(found.is_some_and(|found| count(found) > 0))
    }
}
