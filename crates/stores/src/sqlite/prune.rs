//! Removing finished trees, and blobs that nothing refers to any more.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, params};
use windlass_core::time::Timestamp;
use windlass_ports::store::{Pruned, Retention, StoreError};

use super::failed;
use super::read::{self, seconds_now};
use super::tx::{FINAL, Trouble, Tx, count};

/// A bundle stored this recently may be about to get its first run.
const BUNDLE_KEPT_SECONDS: i64 = 3_600;

/// Keys of the roots of trees that may go, oldest first.
pub(super) fn candidates(connection: &Connection, retention: &Retention) -> Result<Vec<i64>, StoreError> {
    let sql = "SELECT trees.key, trees.ended_at, starts.machine, starts.tags, \
         (SELECT id FROM runs WHERE key = trees.key) FROM \
         (SELECT coalesce(root, key) AS key, max(updated_at) AS ended_at, min(status) AS least FROM runs GROUP BY 1) \
         AS trees JOIN starts ON starts.run = trees.key WHERE trees.least >= ?1 ORDER BY trees.key DESC";
    let mut statement = connection.prepare(sql).map_err(failed)?;
    let mut found = statement.query([FINAL]).map_err(failed)?;
    let mut newer: BTreeMap<String, u64> = BTreeMap::new();
    let mut keys = Vec::new();
    while let Some(row) = found.next().map_err(failed)? {
        let machine: String = row.get(2).map_err(failed)?;
        let ended_at = Timestamp(row.get(1).map(count).map_err(failed)?);
        let wanted = retention.machine.as_ref().is_none_or(|wanted| **wanted == *machine);
        let place = newer.entry(machine).or_default();
        *place += 1;
        let surplus = retention.keep_per_machine.is_none_or(|keep| *place > keep);
        let old = retention.ended_before.is_none_or(|before| ended_at < before);
        let tags: Option<Vec<u8>> = row.get(3).map_err(failed)?;
        let id: String = row.get(4).map_err(failed)?;
        let named = retention.trees.as_ref().is_none_or(|trees| trees.iter().any(|tree| tree.as_str() == id));
        if wanted && surplus && old && named && read::has_tags(tags.as_deref(), &retention.tags)? {
            keys.push(row.get(0).map_err(failed)?);
        }
    }
    keys.reverse();
    Ok(keys)
}

/// What is done to trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Report,
    Remove,
    /// Removed, and what held it in the file is overwritten.
    Overwrite,
}

impl Tx<'_> {
    pub(super) fn prune(&mut self, roots: &[i64], mode: Mode) -> Result<Pruned, Trouble> {
        if mode == Mode::Overwrite {
            // Of the connection, and harmless for what else is in this transaction.
            self.connection.execute_batch("PRAGMA secure_delete = ON")?;
            let removed = self.remove(roots, mode);
            self.connection.execute_batch("PRAGMA secure_delete = OFF")?;
            return removed;
        }
        if mode == Mode::Remove {
            return self.remove(roots, mode);
        }
        self.connection.execute_batch("SAVEPOINT prune")?;
        let pruned = self.remove(roots, mode);
        self.connection.execute_batch("ROLLBACK TO prune; RELEASE prune")?;
        pruned
    }

    fn remove(&mut self, roots: &[i64], mode: Mode) -> Result<Pruned, Trouble> {
        let mut pruned = Pruned::default();
        let (mut blobs, mut bundles) = (BTreeSet::new(), BTreeSet::new());
        for root in roots {
            // Looked at again: a failed run may have been tried again since it was found.
            let open = "SELECT 1 FROM runs WHERE (key = ?1 OR root = ?1) AND status < ?2 LIMIT 1";
            if self.row(open, [*root, FINAL], |_| Ok(()))?.is_some() {
                continue;
            }
            // Rows that are kept are looked at by no sealer.
            if mode != Mode::Report && !self.has_sealed(*root)? {
                pruned.unsealed += 1;
                continue;
            }
            let tree = "SELECT key, bundle FROM runs WHERE key = ?1 OR root = ?1";
            let runs = self.rows(tree, [root], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, [u8; 32]>(1)?)))?;
            for (run, bundle) in runs {
                bundles.insert(bundle);
                blobs
                    .extend(self.rows("SELECT blob FROM blob_uses WHERE run = ?1", [run], |row| row.get::<_, i64>(0))?);
                self.remove_run(run, &mut pruned)?;
            }
        }
        for blob in blobs {
            let size = "SELECT length(bytes) FROM blobs WHERE key = ?1 AND bundled_at IS NULL \
                 AND NOT EXISTS (SELECT 1 FROM blob_uses WHERE blob = ?1)";
            if let Some(bytes) = self.row(size, [blob], |row| row.get::<_, i64>(0))? {
                self.run("DELETE FROM blobs WHERE key = ?1", [blob])?;
                pruned.blobs += 1;
                pruned.bytes += count(bytes);
            }
        }
        if mode == Mode::Overwrite {
            let sql = "SELECT digest FROM blobs WHERE bundled_at IS NOT NULL";
            bundles.extend(self.rows(sql, [], |row| row.get::<_, [u8; 32]>(0))?);
        }
        for bundle in bundles {
            let unused = "SELECT key, length(bytes), bundled_at < ?2 FROM blobs WHERE digest = ?1 \
                 AND bundled_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM blob_uses WHERE blob = blobs.key) \
                 AND NOT EXISTS (SELECT 1 FROM runs WHERE bundle = ?1)";
            let before = seconds_now() - BUNDLE_KEPT_SECONDS;
            let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
            match self.row::<(i64, i64, bool)>(unused, params![bundle, before], read)? {
                Some((key, bytes, true)) => {
                    self.run("DELETE FROM blobs WHERE key = ?1", [key])?;
                    pruned.blobs += 1;
                    pruned.bytes += count(bytes);
                }
                Some(_) if mode == Mode::Overwrite => pruned.recent += 1,
                _ => {}
            }
        }
        self.lower_mark()?;
        Ok(pruned)
    }

    fn remove_run(&mut self, run: i64, pruned: &mut Pruned) -> Result<(), Trouble> {
        self.keep_audit(run)?;
        self.forfeit(run)?;
        let sql = "SELECT count(*), coalesce(sum(length(record)), 0) FROM journal WHERE run = ?1";
        if let Some((records, bytes)) =
            self.row(sql, [run], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?
        {
            pruned.records += count(records);
            pruned.bytes += count(bytes);
        }
        for sql in [
            "DELETE FROM journal WHERE run = ?1",
            "DELETE FROM snapshots WHERE run = ?1",
            "DELETE FROM waits WHERE run = ?1",
            "DELETE FROM inbox WHERE run = ?1",
            "DELETE FROM blob_uses WHERE run = ?1",
            "DELETE FROM tags WHERE run = ?1",
            "DELETE FROM starts WHERE run = ?1",
            "DELETE FROM runs WHERE key = ?1",
        ] {
            self.run(sql, [run])?;
        }
        pruned.runs += 1;
        Ok(())
    }
}
