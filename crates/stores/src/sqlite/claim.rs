//! Who holds a run: claiming, taking over, letting go.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Row, params};
use windlass_core::ids::RunId;
use windlass_core::run::Status;
use windlass_ports::store::{Claim, Keep, Lease, STRIKES_SUSPECT, StoreError, WorkerId};

use super::newborn::Newborn;
use super::tx::{FINAL, Told, Trouble, Tx, count, int};

/// Runs whose time has come that one claim puts into the queue, at least: so many workers claim so little at a time
/// that they would not keep up.
const WAKE_MIN: usize = 64;

/// A run that was taken, and its start when nothing else is to be read of it.
pub(super) type Taken = (Lease, Option<Newborn>);

/// A run that can be taken.
struct Free {
    key: i64,
    id: RunId,
    epoch: i64,
    /// The worker whose calls no decision has dealt with yet.
    lost: Option<i64>,
    strikes: u32,
    ready: Option<i64>,
    priority: windlass_core::machine::Priority,
}

/// Columns of [`Free::read`].
const FREE: &str = "SELECT key, id, epoch, coalesce(lost, owner), strikes, ready, priority";

/// Runs that are due.
const DUE: &str = "SELECT key FROM runs WHERE wake_at <= ?1 ORDER BY wake_at, key LIMIT ?2";
/// Pools and classes in which runs wait, found by leaps.
const WAITING: &str = "WITH RECURSIVE found (pool) AS ( \
     SELECT (SELECT min(pool) FROM runs WHERE ready IS NOT NULL) UNION ALL \
     SELECT (SELECT min(pool) FROM runs WHERE pool > found.pool AND ready IS NOT NULL) FROM found \
     WHERE found.pool IS NOT NULL) \
     SELECT pool, class.column1 FROM found JOIN (VALUES (0), (1), (2)) AS class \
     WHERE EXISTS (SELECT 1 FROM runs WHERE pool = found.pool AND priority = class.column1 AND ready IS NOT NULL)";
/// Tenants that wait in a pool and class, found by leaps, from the one after the given one and then from the first.
const TENANTS: &str = "WITH RECURSIVE after (tenant) AS ( \
     SELECT (SELECT min(tenant) FROM runs WHERE pool = ?1 AND priority = ?2 AND tenant > ?3 AND ready IS NOT NULL) \
     UNION ALL SELECT (SELECT min(tenant) FROM runs WHERE pool = ?1 AND priority = ?2 AND tenant > after.tenant \
     AND ready IS NOT NULL) FROM after WHERE after.tenant IS NOT NULL), \
     before (tenant) AS ( \
     SELECT (SELECT min(tenant) FROM runs WHERE pool = ?1 AND priority = ?2 AND tenant <= ?3 AND ready IS NOT NULL) \
     UNION ALL SELECT (SELECT min(tenant) FROM runs WHERE pool = ?1 AND priority = ?2 AND tenant > before.tenant \
     AND tenant <= ?3 AND ready IS NOT NULL) FROM before WHERE before.tenant IS NOT NULL) \
     SELECT * FROM (SELECT tenant FROM after WHERE tenant IS NOT NULL UNION ALL \
     SELECT tenant FROM before WHERE tenant IS NOT NULL) LIMIT ?4";
/// Runs that wait of a pool, class and tenant, behind a place.
const OF_TENANT: &str = "SELECT key, id, epoch, coalesce(lost, owner), strikes, ready, priority FROM runs \
     WHERE pool = ?1 AND priority = ?2 AND tenant = ?3 AND ready >= ?4 AND (ready > ?4 OR key > ?5) \
     ORDER BY ready, key LIMIT ?6";
/// Held runs by tenant.
const HELD: &str = "SELECT tenant, count(*) FROM runs WHERE owner IS NOT NULL GROUP BY tenant";

/// The first that is suspect and nothing else, or all when none is.
fn apart(mut free: Vec<Free>) -> Vec<Free> {
    match free.iter().position(|run| run.strikes >= STRIKES_SUSPECT) {
        Some(at) => vec![free.swap_remove(at)],
        None => free,
    }
}

impl Free {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let id = RunId::stored(row.get_ref(1)?.as_str()?);
        let (lost, strikes, ready) = (row.get(3)?, row.get(4)?, row.get(5)?);
        let priority = crate::priority_of(row.get(6)?);
        Ok(Self { key: row.get(0)?, id, epoch: row.get(2)?, lost, strikes, ready, priority })
    }
}

/// What a claim may take of one class.
struct Class<'a> {
    priority: i64,
    pools: &'a [i64],
    /// Tenants that may have no more, or only so many.
    bounds: &'a BTreeMap<i64, usize>,
}

impl Tx<'_> {
    pub(super) fn claim(&mut self, claim: &Claim) -> Result<Vec<Taken>, Trouble> {
        let worker = match self.claimant(&claim.worker)? {
            Some(worker) => worker,
            None => return Ok(Vec::new()),
        };
        let tree = match &claim.within {
            None => None,
            Some(root) => {
                let sql = "SELECT key FROM runs WHERE id = ?1 AND root IS NULL";
                match self.row(sql, [root.as_str()], |row| row.get::<_, i64>(0))? {
                    Some(key) => Some(key),
                    None => return Ok(Vec::new()),
                }
            }
        };
        let told = self.told;
        let reaped = self.reap(tree)?;
        let mut waked = count_of(reaped.runs);
        self.untold = std::mem::take(&mut self.untold).then(reaped);
        waked += self.wake(tree, int(claim.now.0), claim.limit.max(WAKE_MIN))?;
        let free = match tree {
            Some(root) => self.first(root, claim.limit)?,
            None => self.deal(claim)?,
        };
        let free = apart(free);
        // Whoever claims takes what it woke; what it leaves is for others.
        self.told = if waked > free.len() { Told { here: true, elsewhere: true } } else { told };
        self.tally.claims += free.len() as u64;
        free.into_iter().map(|run| self.take(run, worker)).collect()
    }

    /// The key of a worker that claims; none when it was voided.
    fn claimant(&mut self, worker: &WorkerId) -> Result<Option<i64>, Trouble> {
        let sql = "SELECT key, fenced FROM workers WHERE id = ?1";
        match self.row(sql, [&*worker.0], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?)))? {
            Some((_, true)) => Ok(None),
            Some((key, false)) => Ok(Some(key)),
            None => self.worker_key_or_new(worker).map(Some),
        }
    }

    /// Gives a run to a worker. The one it was lost by stays known until a decision has dealt with its calls: whoever
    /// took the run from it and died, or let go, before a decision has not.
    fn take(&mut self, run: Free, worker: i64) -> Result<Taken, Trouble> {
        let sql = "UPDATE runs SET lost = ?1, owner = ?2, epoch = ?3, ready = NULL, wake_at = NULL WHERE key = ?4";
        let epoch = run.epoch + 1;
        self.run(sql, params![run.lost, worker, epoch, run.key])?;
        let taken_from = run.lost.map(|lost| self.worker_name(lost)).transpose()?;
        self.known.runs.insert(run.id.clone(), run.key);
        let newborn = match self.known.newborns.claimed(run.key, epoch) {
            Some(newborn) if taken_from.is_none() => self.unheard(run.key, newborn)?,
            _ => None,
        };
        let (strikes, priority) = (run.strikes, run.priority);
        Ok((Lease { run: run.id, epoch: count(epoch), taken_from, strikes, priority }, newborn))
    }

    /// A run that was made here, unless its inbox has something.
    fn unheard(&mut self, run: i64, newborn: Newborn) -> Result<Option<Newborn>, Trouble> {
        let pending = self.row("SELECT pending FROM runs WHERE key = ?1", [run], |row| row.get::<_, i64>(0))?;
        Ok((pending == Some(0)).then_some(newborn))
    }

    /// Puts runs whose time has come into the queue, and tells how many.
    fn wake(&mut self, tree: Option<i64>, now: i64, most: usize) -> Result<usize, Trouble> {
        let most = int(most as u64);
        let due = match tree {
            None => self.rows(DUE, [now, most], |row| row.get::<_, i64>(0))?,
            Some(root) => {
                let sql = "SELECT key, wake_at FROM runs WHERE key = ?1 AND wake_at <= ?2 UNION ALL \
                     SELECT key, wake_at FROM runs WHERE root = ?1 AND wake_at <= ?2 ORDER BY wake_at, key LIMIT ?3";
                self.rows(sql, [root, now, most], |row| row.get::<_, i64>(0))?
            }
        };
        for run in &due {
            let place = self.place();
            self.run("UPDATE runs SET ready = ?1, wake_at = NULL WHERE key = ?2", [place, *run])?;
        }
        Ok(due.len())
    }

    /// The first of a tree.
    fn first(&mut self, root: i64, limit: usize) -> Result<Vec<Free>, Trouble> {
        let limit = int(limit as u64);
        let sql = format!("{FREE} FROM runs WHERE key = ?1 AND ready IS NOT NULL LIMIT ?2");
        let top = self.rows(&sql, [root, limit], Free::read)?;
        let sql = format!("{FREE} FROM runs WHERE root = ?1 AND ready IS NOT NULL ORDER BY ready, key LIMIT ?2");
        let room = limit - int(top.len() as u64);
        let mut free = top;
        if room > 0 {
            free.extend(self.rows(&sql, [root, room], Free::read)?);
        }
        Ok(free)
    }

    /// Pools and classes in which runs wait.
    pub(super) fn waiting(&mut self) -> Result<Vec<(i64, i64)>, Trouble> {
        self.rows(WAITING, [], |row| Ok((row.get(0)?, row.get(1)?)))
    }

    /// Some of each tenant in turn, class after class.
    fn deal(&mut self, claim: &Claim) -> Result<Vec<Free>, Trouble> {
        let mut waiting = self.waiting()?;
        if !claim.pools.is_empty() && !waiting.is_empty() {
            let wanted = claim.pools.iter().map(|pool| self.name_key(pool)).collect::<Result<Vec<_>, _>>()?;
            waiting.retain(|(pool, _)| wanted.contains(&Some(*pool)));
        }
        let mut dealt = Vec::new();
        if waiting.is_empty() || claim.limit == 0 {
            return Ok(dealt);
        }
        let mut bounds = match claim.tenant_held_max {
            Some(most) => self.bounds(most)?,
            None => BTreeMap::new(),
        };
        let most = claim.tenant_held_max.map_or(usize::MAX, |most| most as usize);
        for place in 0..3 {
            let priority = if claim.lowest_first { 2 - place } else { place };
            let pools: Vec<i64> = waiting.iter().filter(|(_, of)| *of == priority).map(|(pool, _)| *pool).collect();
            let room = claim.limit - dealt.len();
            if room == 0 || pools.is_empty() {
                continue;
            }
            let class = Class { priority, pools: &pools, bounds: &bounds };
            for (tenant, run) in self.deal_class(&class, most, room)? {
                let left = bounds.entry(tenant).or_insert(most);
                *left = left.saturating_sub(1);
                dealt.push(run);
            }
        }
        Ok(dealt)
    }

    /// How many more each tenant that holds something may hold.
    fn bounds(&mut self, most: u32) -> Result<BTreeMap<i64, usize>, Trouble> {
        let held = self.rows(HELD, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
        Ok(held
            .into_iter()
            .map(|(tenant, held)| (tenant, (most as usize).saturating_sub(count_of(count(held)))))
            .collect())
    }

    /// Some of each tenant of one class: as many of each as there is room for, then one of each until it is full.
    fn deal_class(&mut self, class: &Class<'_>, most: usize, mut room: usize) -> Result<Vec<(i64, Free)>, Trouble> {
        let mut turns: Vec<Turn> = Vec::new();
        for tenant in self.tenants(class, room)? {
            let left = class.bounds.get(&tenant).copied().unwrap_or(most);
            if left > 0 {
                turns.push(Turn { tenant, left, after: (i64::MIN, 0) });
            }
        }
        let mut dealt = Vec::new();
        let Ok(place) = usize::try_from(class.priority) else { return Ok(dealt) };
        while room > 0 && !turns.is_empty() {
            let share = (room / turns.len()).max(1);
            let mut next = Vec::new();
            for mut turn in turns {
                let wanted = share.min(turn.left).min(room);
                if wanted == 0 {
                    continue;
                }
                let runs = self.of_tenant(class, &turn, wanted)?;
                self.known.turns[place] = turn.tenant;
                room -= runs.len();
                turn.left -= runs.len();
                turn.after = runs.last().map_or((i64::MAX, i64::MAX), |run| (run.ready.unwrap_or_default(), run.key));
                let is_empty = runs.len() < wanted;
                dealt.extend(runs.into_iter().map(|run| (turn.tenant, run)));
                if !is_empty && turn.left > 0 {
                    next.push(turn);
                }
            }
            turns = next;
        }
        Ok(dealt)
    }

    /// Tenants that wait in a class, from the one after the last that was served. Of those that may have more, as many
    /// as there is room for.
    fn tenants(&mut self, class: &Class<'_>, room: usize) -> Result<Vec<i64>, Trouble> {
        let place = usize::try_from(class.priority).unwrap_or_default();
        let last = self.known.turns.get(place).copied().unwrap_or_default();
        let full = class.bounds.values().filter(|left| **left == 0).count();
        let most = room.saturating_add(full);
        let limit = int(most as u64);
        if let [pool] = class.pools {
            return self.rows(TENANTS, [*pool, class.priority, last, limit], |row| row.get(0));
        }
        let mut found = BTreeSet::new();
        for pool in class.pools {
            found.extend(self.rows(TENANTS, [*pool, class.priority, last, limit], |row| row.get::<_, i64>(0))?);
        }
        let (before, after): (Vec<_>, Vec<_>) = found.into_iter().partition(|tenant| *tenant <= last);
        Ok(after.into_iter().chain(before).take(most).collect())
    }

    /// The next runs of a tenant, of all pools.
    fn of_tenant(&mut self, class: &Class<'_>, turn: &Turn, limit: usize) -> Result<Vec<Free>, Trouble> {
        let mut free = Vec::new();
        for pool in class.pools {
            let wanted = params![pool, class.priority, turn.tenant, turn.after.0, turn.after.1, int(limit as u64)];
            free.extend(self.rows(OF_TENANT, wanted, Free::read)?);
        }
        if class.pools.len() > 1 {
            free.sort_by_key(|run| (run.ready, run.key));
            free.truncate(limit);
        }
        Ok(free)
    }

    pub(super) fn take_over(
        &mut self,
        run: &RunId,
        worker: &WorkerId,
        expected: Option<Status>,
    ) -> Result<Option<Taken>, Trouble> {
        let Some(head) = super::read::head(self.connection, run)? else { return Ok(None) };
        let takable = !head.status.is_final() || head.status == Status::Failed;
        if !takable || expected.is_some_and(|expected| expected != head.status) {
            return Ok(None);
        }
        if !head.status.is_final() && (head.owner.is_some() || head.quarantine.is_some()) {
            self.run("UPDATE runs SET helped = helped + 1 WHERE id = ?1", [run.as_str()])?;
        }
        if head.quarantine.is_some() {
            self.run("UPDATE runs SET quarantine = NULL, strikes = 0 WHERE id = ?1", [run.as_str()])?;
        }
        let worker = self.worker_key_or_new(worker)?;
        let sql = format!("{FREE} FROM runs WHERE id = ?1");
        match self.row(&sql, [run.as_str()], Free::read)? {
            Some(free) => self.take(free, worker).map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn release(&mut self, lease: &Lease, worker: &WorkerId, keep: Keep) -> Result<(), Trouble> {
        let wake_at = match keep {
            Keep::Park { wake_at } => wake_at.map(|at| int(at.0)),
            Keep::HandBack => None,
            Keep::Hold | Keep::End => {
                return Err(StoreError::Invalid(format!("a run cannot be released with {keep:?}")).into());
            }
        };
        let (Some(run), Some(worker)) = (self.run_key(&lease.run)?, self.worker_key(worker)?) else { return Ok(()) };
        let sql = "SELECT status, pending FROM runs WHERE key = ?1 AND epoch = ?2 AND owner = ?3";
        let held = self.row(sql, params![run, int(lease.epoch), worker], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        })?;
        let Some((status, pending)) = held else { return Ok(()) };
        let (ready, wake_at) = match keep {
            _ if status >= FINAL => (None, None),
            Keep::Park { .. } if pending == 0 => (None, wake_at),
            Keep::Park { .. } | Keep::HandBack | Keep::Hold | Keep::End => (Some(self.next_ready()), None),
        };
        self.run(
            "UPDATE runs SET owner = NULL, ready = ?1, wake_at = ?2 WHERE key = ?3",
            params![ready, wake_at, run],
        )?;
        self.known.runs.remove(&lease.run);
        Ok(())
    }
}

/// A tenant whose turn comes.
struct Turn {
    tenant: i64,
    /// How many more it may have.
    left: usize,
    /// Place and key of the last run it got.
    after: (i64, i64),
}

fn count_of(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::commit::WAITING_OF_TENANT;
    use super::super::reap::NEXT_OWNER;
    use super::super::{Options, schema};
    use super::*;

    /// Claiming costs what it takes, however much waits: every question is answered by one range of an index.
    #[test]
    fn nothing_is_scanned_or_sorted_to_claim() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("windlass.db");
        schema::make_file(&path).unwrap();
        let mut connection = schema::connect(&path, &Options::default()).unwrap();
        schema::migrate(&mut connection).unwrap();
        for sql in [DUE, WAITING, TENANTS, OF_TENANT, HELD, NEXT_OWNER, WAITING_OF_TENANT] {
            let mut explained = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let any = rusqlite::params_from_iter(vec![1; explained.parameter_count()]);
            let steps = explained.query_map(any, |row| row.get::<_, String>(3)).unwrap();
            for step in steps.map(Result::unwrap) {
                let is_range = !step.contains("runs") || step.starts_with("SEARCH runs ");
                assert!(is_range && !step.contains("ORDER BY"), "{sql}: {step}");
            }
        }
    }
}
