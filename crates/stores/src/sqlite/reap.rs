//! Runs whose worker is gone, and runs that nobody may have: taking back, quarantine, the fence after a restore.

use rusqlite::params;
use windlass_core::ids::{Name, RunId};
use windlass_ports::store::{FENCED, Reaped, STRIKES_MAX, STRIKES_SUSPECT, WorkerId, lost_too_often};

use super::request::Replacement;
use super::tx::{FINAL, FRONT, Told, Trouble, Tx, int};

/// The next worker that holds runs.
pub(super) const NEXT_OWNER: &str = "SELECT min(owner) FROM runs WHERE owner > ?1";

impl Tx<'_> {
    /// Puts runs of dead workers to the front of the queue. Looks at each owner once, however many runs it holds.
    pub(super) fn reap(&mut self, tree: Option<i64>) -> Result<Reaped, Trouble> {
        let mut reaped = Reaped::default();
        let mut after = 0;
        loop {
            let Some(owner) = self.row(NEXT_OWNER, [after], |row| row.get::<_, Option<i64>>(0))?.flatten() else {
                break;
            };
            after = owner;
            if self.alive.contains(&owner) {
                continue;
            }
            let name = self.worker_name(owner)?;
            if self.workers.is_dead(&name) {
                self.take_back(owner, &name, tree, &mut reaped)?;
            } else {
                self.alive.push(owner);
            }
        }
        self.tally.reaped += reaped.runs + reaped.quarantined.len() as u64;
        if reaped.runs > 0 {
            self.told = Told { here: true, elsewhere: true };
        }
        Ok(reaped)
    }

    fn take_back(
        &mut self,
        owner: i64,
        name: &WorkerId,
        tree: Option<i64>,
        reaped: &mut Reaped,
    ) -> Result<(), Trouble> {
        let within = "owner = ?1 AND (?2 IS NULL OR key = ?2 OR root = ?2)";
        // A run that was taken after its end, to be tried again, is over as before.
        let sql = format!("UPDATE runs SET owner = NULL WHERE {within} AND status >= ?3");
        let over = self.run(&sql, params![owner, tree, FINAL])?;
        let held = "SELECT count(*) FROM (SELECT 1 FROM runs WHERE owner = ?1 LIMIT 2)";
        let alone = self.row(held, [owner], |row| row.get::<_, i64>(0))? == Some(1);
        let sql = format!(
            "UPDATE runs SET owner = NULL, lost = coalesce(lost, ?1), strikes = ?4, quarantine = ?3 \
             WHERE {within} AND ?5 AND strikes + 1 >= ?4 RETURNING id"
        );
        let reason = lost_too_often(&name.0);
        let lost = self.rows(&sql, params![owner, tree, &*reason, STRIKES_MAX, alone], |row| {
            row.get_ref(0)?.as_str().map(RunId::stored).map_err(Into::into)
        })?;
        let place = self.place() - FRONT;
        let sql = format!(
            "UPDATE runs SET owner = NULL, lost = coalesce(lost, ?1), ready = ?3, strikes = CASE \
             WHEN strikes = 0 THEN 1 WHEN ?5 AND strikes = 1 THEN ?6 WHEN ?5 THEN strikes + 1 \
             ELSE max(strikes, ?4) END WHERE {within}"
        );
        let runs = self.run(&sql, params![owner, tree, place, STRIKES_SUSPECT, alone, STRIKES_MAX - 1])?;
        if over + lost.len() + runs > 0 {
            reaped.workers.push(name.clone());
            reaped.runs += runs as u64;
            reaped.quarantined.extend(lost);
            reaped.quarantined.sort();
        }
        Ok(())
    }

    /// Puts what a worker holds to the front of the queue, with no loss counted.
    pub(super) fn leave(&mut self, worker: &WorkerId) -> Result<(), Trouble> {
        let Some(owner) = self.worker_key(worker)? else { return Ok(()) };
        self.run("UPDATE runs SET owner = NULL WHERE owner = ?1 AND status >= ?2", [owner, FINAL])?;
        let place = self.place() - FRONT;
        let sql = "UPDATE runs SET owner = NULL, lost = coalesce(lost, ?1), ready = ?2 WHERE owner = ?1";
        if self.run(sql, [owner, place])? > 0 {
            self.told = Told { here: true, elsewhere: true };
            self.known.runs.clear();
        }
        Ok(())
    }

    pub(super) fn requeue(&mut self, run: &RunId) -> Result<bool, Trouble> {
        let place = self.place();
        let sql = "UPDATE runs SET quarantine = NULL, strikes = 0, helped = helped + 1, ready = ?1 \
             WHERE id = ?2 AND quarantine IS NOT NULL";
        let ended = self.run(sql, params![place, run.as_str()])? > 0;
        if ended {
            self.told = Told { here: true, elsewhere: true };
        }
        Ok(ended)
    }

    /// Voids every lease and every worker, and quarantines every unfinished run.
    pub(super) fn fence(&mut self, reason: &Name) -> Result<u64, Trouble> {
        self.known.runs.clear();
        self.forget_rates()?;
        self.run("UPDATE workers SET fenced = 1", [])?;
        let sql = "SELECT count(*) FROM runs WHERE status < ?1 AND quarantine IS NULL";
        let quarantined = self.row(sql, [FINAL], |row| row.get::<_, i64>(0))?.unwrap_or_default();
        self.run("UPDATE runs SET epoch = epoch + 1, owner = NULL WHERE status >= ?1", [FINAL])?;
        let nobody = self.worker_key_or_new(&WorkerId(FENCED.into()))?;
        let sql = "UPDATE runs SET epoch = epoch + 1, lost = ?3, owner = NULL, ready = NULL, wake_at = NULL, \
             quarantine = ?2 WHERE status < ?1";
        self.run(sql, params![FINAL, &**reason, nobody])?;
        Ok(super::tx::count(quarantined))
    }

    /// Makes a change after which nothing is left in the file of what was there before: objects may hold what somebody said.
    fn overwritten<T>(&mut self, change: impl FnOnce(&mut Self) -> Result<T, Trouble>) -> Result<T, Trouble> {
        let before: i64 = self.connection.query_row("PRAGMA secure_delete", [], |row| row.get(0))?;
        self.connection.execute_batch("PRAGMA secure_delete = ON")?;
        let changed = change(self);
        self.connection.execute_batch(&format!("PRAGMA secure_delete = {before}"))?;
        changed
    }

    /// Changes an object when it is still as expected.
    pub(super) fn put_object(&mut self, put: &Replacement) -> Result<bool, Trouble> {
        let (kind, key, expected) = (&*put.kind, &*put.key, int(put.expected));
        let slot = crate::floors::slot(kind, key);
        let changed = match (&put.packed, put.expected) {
            (Some(packed), 0) => {
                let sql = "INSERT INTO objects (kind, key, revision, bytes) VALUES (?1, ?2, \
                     1 + coalesce((SELECT revision FROM object_floors WHERE slot = ?4), 0), ?3) \
                     ON CONFLICT (kind, key) DO NOTHING";
                self.run(sql, params![kind, key, packed, slot])?
            }
            (Some(packed), _) => {
                let sql = "UPDATE objects SET revision = revision + 1, bytes = ?4 \
                     WHERE kind = ?1 AND key = ?2 AND revision = ?3";
                self.overwritten(|tx| tx.run(sql, params![kind, key, expected, packed]))?
            }
            (None, 0) => {
                let there = "SELECT 1 FROM objects WHERE kind = ?1 AND key = ?2";
                return Ok(self.row(there, [kind, key], |_| Ok(()))?.is_none());
            }
            (None, _) => {
                let sql = "DELETE FROM objects WHERE kind = ?1 AND key = ?2 AND revision = ?3";
                let removed = self.overwritten(|tx| tx.run(sql, params![kind, key, expected]))?;
                if removed > 0 {
                    let sql = "INSERT INTO object_floors (slot, revision) VALUES (?1, ?2) \
                         ON CONFLICT (slot) DO UPDATE SET revision = max(revision, excluded.revision)";
                    self.run(sql, params![slot, expected])?;
                }
                removed
            }
        };
        Ok(changed > 0)
    }
}
