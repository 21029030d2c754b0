//! Creating runs, and writing decisions.
//!
//! An ordinary step is two statements: the guarded change of the hot row, and one journal row that has its audit rows
//! with it. The guard comes first; what fails it writes nothing.

use std::collections::BTreeMap;

use rusqlite::params;
use windlass_core::ids::{Digest, Name, RunId};
use windlass_core::run::{Start, Status};
use windlass_ports::store::{Committed, Created, Keep, OpId, POOL_DEFAULT, Priority, StoreError};

use super::read;
use super::request::{Creation, Step, encode};
use super::tx::{Parent, Told, Trouble, Tx, class_code, count, int, status_code};

/// The step of a run that its worker goes on with, when its inbox is empty: no index changes.
macro_rules! hold {
    () => {
        "UPDATE runs SET status = ?1, state = ?2, step = ?3, version = ?4, tokens = ?5, cost_micros = ?6, \
         bundle = ?7, updated_at = ?8, lost = NULL, strikes = ?13 WHERE key = ?9 AND version = ?10 AND epoch = ?11 AND owner = ?12 AND pending = 0"
    };
}
const HOLD: &str = hold!();
/// The epoch of the read-only switches of a row of `runs`.
macro_rules! switches {
    () => {
        "(SELECT coalesce(sum(o.revision), 0) FROM objects o WHERE o.kind = 'read_only' AND o.key IN \
         ('environment', 'tenant:' || (SELECT n.name FROM names n WHERE n.key = runs.tenant)))"
    };
}
/// The step of a run that its worker goes on with, and that begins a call which changes something.
const BEGIN: &str = concat!(hold!(), " RETURNING ", switches!());
/// What a step finds that is not that simple.
const GUARD: &str = concat!(
    "SELECT pending, ",
    switches!(),
    " FROM runs WHERE key = ?1 AND version = ?2 AND epoch = ?3 AND owner = ?4"
);
/// The same, when its worker lets it go.
const LET_GO: &str = "UPDATE runs SET status = ?1, state = ?2, step = ?3, version = ?4, tokens = ?5, cost_micros = ?6, \
     bundle = ?7, updated_at = ?8, lost = NULL, strikes = ?13, owner = NULL, ready = ?14, wake_at = ?15 \
     WHERE key = ?9 AND version = ?10 AND epoch = ?11 AND owner = ?12 AND pending = 0";
/// The same, whatever the inbox has.
const ANY: &str = "UPDATE runs SET status = ?1, state = ?2, step = ?3, version = ?4, tokens = ?5, cost_micros = ?6, \
     bundle = ?7, updated_at = ?8, lost = NULL, strikes = ?13, owner = ?14, ready = ?15, wake_at = ?16, pending = ?17 \
     WHERE key = ?9 AND version = ?10 AND epoch = ?11 AND owner = ?12";
const JOURNAL: &str = "INSERT INTO journal (run, version, op, record, blobs, audit) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

/// How many runs of a pool, class and tenant wait, counted up to a bound.
pub(super) const WAITING_OF_TENANT: &str = "SELECT count(*) FROM (SELECT 1 FROM runs \
     WHERE pool = ?1 AND priority = ?2 AND tenant = ?3 AND ready IS NOT NULL LIMIT ?4)";

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
        let full = match creation.queueing.queued_max {
            Some(most) => self.is_full(&creation.start.scope.tenant, most)?,
            None => false,
        };
        if !full && self.insert(creation)? {
            return Ok(Created::New);
        }
        match read::head(self.connection, &creation.start.id)? {
            Some(head) => Ok(Created::Exists(Box::new(head))),
            None if full => {
                self.parent_of(&creation.start)?;
                self.root_of(&creation.start)?;
                Ok(Created::Full)
            }
            None => Err(StoreError::Corrupt(format!("`{}` can neither be made nor found", creation.start.id)).into()),
        }
    }

    fn above(&mut self, start: &Start, run: &RunId) -> Result<i64, Trouble> {
        let text = || format!("`{}` is to be below `{run}`, which does not exist", start.id);
        self.run_key(run)?.ok_or_else(|| Trouble::Refused(StoreError::Invalid(text())))
    }

    fn root_of(&mut self, start: &Start) -> Result<Option<i64>, Trouble> {
        if start.root == start.id { Ok(None) } else { self.above(start, &start.root).map(Some) }
    }

    /// The parent of a run to be created; children of one commit share it.
    fn parent_of(&mut self, start: &Start) -> Result<Option<Parent>, Trouble> {
        let Some(parent) = &start.parent else { return Ok(None) };
        if let Some((_, known)) = self.parent.as_ref().filter(|(id, _)| *id == parent.run) {
            return Ok(Some(known.clone()));
        }
        let sql = "SELECT key, pool, priority, tags FROM runs JOIN starts ON starts.run = runs.key WHERE id = ?1";
        let found = self.row(sql, [parent.run.as_str()], |row| {
            Ok(Parent { key: row.get(0)?, pool: row.get(1)?, priority: row.get(2)?, tags: row.get(3)? })
        })?;
        match found {
            Some(found) => {
                self.parent = Some((parent.run.clone(), found.clone()));
                Ok(Some(found))
            }
            None => self.above(start, &parent.run).map(|_| None),
        }
    }

    /// Writes a run into the queue, unless there is one of its name. Tells whether it did.
    fn insert(&mut self, creation: &Creation) -> Result<bool, Trouble> {
        let (start, queueing) = (&*creation.start, &creation.queueing);
        let parent = self.parent_of(start)?;
        let root = self.root_of(start)?;
        let pool = match (&queueing.pool, &parent) {
            (Some(pool), _) => self.name_key_or_new(pool)?,
            (None, Some(parent)) => parent.pool,
            (None, None) => self.name_key_or_new(&POOL_DEFAULT.into())?,
        };
        let priority = match (queueing.priority, &parent) {
            (None, Some(parent)) => parent.priority,
            (own, _) => class_code(own.unwrap_or(Priority::Normal)),
        };
        let tenant = self.name_key_or_new(&start.scope.tenant)?;
        let wake_at = queueing.not_before.filter(|then| *then > creation.at).map(|then| int(then.0));
        let ready = if wake_at.is_none() { Some(self.next_ready()) } else { None };
        let at = int(creation.at.0);
        let sql = "INSERT INTO runs (id, pool, priority, tenant, parent, root, status, step, version, epoch, ready, \
             wake_at, pending, tokens, cost_micros, bundle, updated_at, strikes) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, 0, 0, ?8, ?9, 0, 0, 0, ?10, ?11, 0) ON CONFLICT (id) DO NOTHING";
        let running = status_code(Status::Running);
        let above = parent.as_ref().map(|parent| parent.key);
        let (id, bundle) = (start.id.as_str(), start.bundle.0);
        let row = params![id, pool, priority, tenant, above, root, running, ready, wake_at, bundle, at];
        if self.run(sql, row)? == 0 {
            return Ok(false);
        }
        // A worker that sleeps until the next timer has to look again.
        self.told = Told { here: true, elsewhere: true };
        let key = self.connection.last_insert_rowid();
        let tags = self.tag(key, creation, parent.and_then(|parent| parent.tags))?;
        let sql = "INSERT INTO starts (run, machine, depth, input, created_at, tags, start) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let (machine, input) = (&*start.machine_name, creation.input.0);
        self.run(sql, params![key, machine, start.depth, input, at, tags, creation.packed])?;
        self.known.newborns.made(key, creation.newborn());
        Ok(true)
    }

    /// Writes the tags of a run, and gives them back as they are stored with its start.
    fn tag(&mut self, run: i64, creation: &Creation, above: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, Trouble> {
        let own = &creation.queueing.tags;
        let mut tags: BTreeMap<Name, Name> = above.as_deref().map(read::tags).transpose()?.unwrap_or_default();
        tags.extend(own.iter().map(|(key, value)| (key.clone(), value.clone())));
        for (key, value) in &tags {
            self.run("INSERT INTO tags (key, value, run) VALUES (?1, ?2, ?3)", params![&**key, &**value, run])?;
        }
        Ok(match (tags.is_empty(), own.is_empty()) {
            (true, _) => None,
            (false, true) => above,
            (false, false) => Some(encode(&tags)?),
        })
    }

    /// Whether a tenant has this many runs in the queue.
    fn is_full(&mut self, tenant: &Name, most: u32) -> Result<bool, Trouble> {
        let Some(tenant) = self.name_key(tenant)? else { return Ok(most == 0) };
        let mut room = i64::from(most);
        for (pool, class) in self.waiting()? {
            let found = self.row(WAITING_OF_TENANT, [pool, class, tenant, room], |row| row.get::<_, i64>(0))?;
            room -= found.unwrap_or_default();
        }
        Ok(room <= 0)
    }

    /// The pool of a run whose next step asks for another one.
    fn move_run(&mut self, step: &Step, run: i64) -> Result<(), Trouble> {
        if let Some(pool) = &step.head.pool {
            let pool = self.name_key_or_new(pool)?;
            self.run("UPDATE runs SET pool = ?1 WHERE key = ?2", [pool, run])?;
        }
        Ok(())
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
        let (epoch, at, bundle, strikes) = (int(step.lease.epoch), int(step.at.0), &head.bundle.0, head.strikes);
        let fate = match step.keep {
            Keep::Hold => None,
            keep => Some(self.fate(keep, false)),
        };
        let hot =
            params![status, state, done, version + 1, tokens, cost, bundle, at, run, version, epoch, worker, strikes];
        let mut switched = false;
        let changed = match &fate {
            None => match step.begins {
                None => self.run(HOLD, hot)?,
                Some(known) => {
                    let found = self.row(BEGIN, hot, |row| row.get::<_, i64>(0))?;
                    switched = found.is_some_and(|found| found != int(known));
                    usize::from(found.is_some())
                }
            },
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
                    strikes,
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
        self.move_run(step, run)?;
        self.close_waits(step, run)?;
        Ok(Some(Committed::Applied { held: fate.is_none(), inbox: false, switched }))
    }

    fn any_step(&mut self, step: &Step, run: i64, worker: i64) -> Result<Committed, Trouble> {
        let (version, epoch) = (int(step.expected), int(step.lease.epoch));
        let found = self.row(GUARD, params![run, version, epoch, worker], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let Some((mut pending, switches)): Option<(i64, i64)> = found else { return Ok(Committed::Stale) };
        let switched = step.begins.is_some_and(|known| switches != int(known));
        self.append(step, run)?;
        for number in &step.taken {
            let sql = "UPDATE inbox SET input = NULL WHERE number = ?1 AND run = ?2 AND input IS NOT NULL";
            pending -= self.run(sql, params![int(*number), run])? as i64;
        }
        for child in &step.children {
            self.insert(child)?;
        }
        self.move_run(step, run)?;
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
        let fate = self.fate(step.keep, pending > 0);
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
                head.strikes,
                fate.held.then_some(worker),
                fate.ready,
                fate.wake_at,
                pending
            ],
        )?;
        if changed != 1 {
            return Err(StoreError::Corrupt(format!("the row of `{}` changed under its guard", step.lease.run)).into());
        }
        Ok(Committed::Applied { held: fate.held, inbox: pending > 0, switched })
    }

    fn fate(&mut self, keep: Keep, has_inbox: bool) -> Fate {
        let gone = Fate { held: false, ready: None, wake_at: None };
        match keep {
            Keep::Hold => Fate { held: true, ..gone },
            Keep::Park { .. } if has_inbox => Fate { held: true, ..gone },
            Keep::Park { wake_at } => Fate { wake_at: wake_at.map(|at| int(at.0)), ..gone },
            Keep::HandBack => Fate { ready: Some(self.next_ready()), ..gone },
            Keep::End => gone,
        }
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
