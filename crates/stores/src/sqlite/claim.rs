//! Who holds a run: claiming, taking over, letting go.

use rusqlite::{Row, params};
use windlass_core::ids::RunId;
use windlass_ports::store::{Claim, Keep, Lease, StoreError, WorkerId};

use super::tx::{FAILED, FINAL, Trouble, Tx, count, int};

/// A run that can be taken.
struct Free {
    key: i64,
    id: RunId,
    epoch: i64,
    /// The worker whose calls no decision has dealt with yet.
    lost: Option<i64>,
}

impl Free {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let id = RunId::stored(row.get_ref(1)?.as_str()?);
        Ok(Self { key: row.get(0)?, id, epoch: row.get(2)?, lost: row.get(3)? })
    }
}

impl Tx<'_> {
    pub(super) fn claim(&mut self, claim: &Claim, own: &[WorkerId]) -> Result<Vec<Lease>, Trouble> {
        let within = match &claim.within {
            None => None,
            Some(root) => {
                let sql = "SELECT key FROM runs WHERE id = ?1 AND root IS NULL";
                match self.row(sql, [root.as_str()], |row| row.get::<_, i64>(0))? {
                    Some(key) => Some(key),
                    None => return Ok(Vec::new()),
                }
            }
        };
        let mut leases = self.orphans(claim, within, own)?;
        let room = claim.limit.saturating_sub(leases.len());
        let mut free = self.queued(within, room)?;
        if free.len() < room {
            free.extend(self.due(within, int(claim.now.0), room - free.len())?);
        }
        if !free.is_empty() {
            let worker = self.worker_key_or_new(&claim.worker)?;
            for run in free {
                leases.push(self.take(run, worker)?);
            }
        }
        Ok(leases)
    }

    /// Gives a run to a worker. The one it was lost by stays known until a decision has dealt with its calls: whoever
    /// took the run from it and died, or let go, before a decision has not.
    fn take(&mut self, run: Free, worker: i64) -> Result<Lease, Trouble> {
        let sql = "UPDATE runs SET lost = ?1, owner = ?2, epoch = ?3, ready = NULL, wake_at = NULL WHERE key = ?4";
        let epoch = run.epoch + 1;
        self.run(sql, params![run.lost, worker, epoch, run.key])?;
        let taken_from = run.lost.map(|lost| self.worker_name(lost)).transpose()?;
        self.known.runs.insert(run.id.clone(), run.key);
        Ok(Lease { run: run.id, epoch: count(epoch), taken_from })
    }

    /// Runs whose owner is dead. Looks at each other owner once, however many runs it holds.
    fn orphans(&mut self, claim: &Claim, within: Option<i64>, own: &[WorkerId]) -> Result<Vec<Lease>, Trouble> {
        let mut leases = Vec::new();
        let mut after = 0;
        while leases.len() < claim.limit {
            let next = "SELECT owner FROM runs WHERE owner > ?1 ORDER BY owner LIMIT 1";
            let Some(owner) = self.row(next, [after], |row| row.get::<_, i64>(0))? else { break };
            after = owner;
            if self.alive.contains(&owner) {
                continue;
            }
            let name = self.worker_name(owner)?;
            if own.contains(&name) || !self.workers.is_dead(&name) {
                self.alive.push(owner);
                continue;
            }
            // A run that was taken after its end, to be tried again, is over as before.
            self.run("UPDATE runs SET owner = NULL WHERE owner = ?1 AND status >= ?2", [owner, FINAL])?;
            let sql = "SELECT key, id, epoch, coalesce(lost, owner) FROM runs WHERE owner = ?1 AND (?2 IS NULL OR key = ?2 OR root = ?2) \
                 ORDER BY key LIMIT ?3";
            let room = int((claim.limit - leases.len()) as u64);
            let free = self.rows(sql, params![owner, within, room], Free::read)?;
            if !free.is_empty() {
                let worker = self.worker_key_or_new(&claim.worker)?;
                for run in free {
                    leases.push(self.take(run, worker)?);
                }
            }
        }
        Ok(leases)
    }

    fn queued(&mut self, within: Option<i64>, limit: usize) -> Result<Vec<Free>, Trouble> {
        let limit = int(limit as u64);
        match within {
            None => {
                let sql = "SELECT key, id, epoch, coalesce(lost, owner) FROM runs WHERE ready IS NOT NULL ORDER BY ready LIMIT ?1";
                self.rows(sql, [limit], Free::read)
            }
            Some(root) => {
                let sql = "SELECT key, id, epoch, lost FROM runs WHERE key = ?1 AND ready IS NOT NULL LIMIT ?2";
                let mut free = self.rows(sql, [root, limit], Free::read)?;
                let sql = "SELECT key, id, epoch, lost FROM runs WHERE root = ?1 AND ready IS NOT NULL \
                     ORDER BY ready LIMIT ?2";
                let room = limit - int(free.len() as u64);
                if room > 0 {
                    free.extend(self.rows(sql, [root, room], Free::read)?);
                }
                Ok(free)
            }
        }
    }

    fn due(&mut self, within: Option<i64>, now: i64, limit: usize) -> Result<Vec<Free>, Trouble> {
        let limit = int(limit as u64);
        match within {
            None => {
                let sql = "SELECT key, id, epoch, coalesce(lost, owner) FROM runs WHERE wake_at <= ?1 ORDER BY wake_at, key LIMIT ?2";
                self.rows(sql, [now, limit], Free::read)
            }
            Some(root) => {
                let sql = "SELECT key, id, epoch, lost, wake_at FROM runs WHERE key = ?1 AND wake_at <= ?2 \
                     UNION ALL SELECT key, id, epoch, lost, wake_at FROM runs WHERE root = ?1 AND wake_at <= ?2 \
                     ORDER BY wake_at LIMIT ?3";
                self.rows(sql, [root, now, limit], Free::read)
            }
        }
    }

    pub(super) fn take_over(&mut self, run: &RunId, worker: &WorkerId) -> Result<Option<Lease>, Trouble> {
        let sql = "SELECT key, id, epoch, coalesce(lost, owner), status FROM runs WHERE id = ?1";
        let found = self.row(sql, [run.as_str()], |row| Ok((Free::read(row)?, row.get::<_, i64>(4)?)))?;
        match found {
            Some((free, status)) if status < FINAL || status == FAILED => {
                let worker = self.worker_key_or_new(worker)?;
                Ok(Some(self.take(free, worker)?))
            }
            Some(_) | None => Ok(None),
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
            Keep::Park { .. } | Keep::HandBack | Keep::Hold | Keep::End => (Some(self.next_ready()?), None),
        };
        self.run(
            "UPDATE runs SET owner = NULL, ready = ?1, wake_at = ?2 WHERE key = ?3",
            params![ready, wake_at, run],
        )?;
        self.known.runs.remove(&lease.run);
        Ok(())
    }
}
