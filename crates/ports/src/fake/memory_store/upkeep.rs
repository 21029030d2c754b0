//! Removing what is old, checking what is there, counting, and breaking things on purpose.

use std::collections::{BTreeMap, BTreeSet};

use windlass_core::ids::{Digest, Name, RunId};
use windlass_core::run::Status;
use windlass_core::time::Timestamp;

use super::data::{Data, Place, Row};
use crate::conformance::store::Damage;
use crate::store::escrow::{ALLOTMENT, RETURNED, forfeited};
use crate::store::{Depth, Finding, Priority, Pruned, Retention, Stats, StoreError};

/// The schema of a store without one.
const SCHEMA: u32 = 1;

impl Data {
    /// Roots of trees that may go.
    fn prunable(&self, retention: &Retention) -> BTreeSet<RunId> {
        let mut trees: BTreeMap<&RunId, Vec<&Row>> = BTreeMap::new();
        for row in self.runs.values() {
            trees.entry(&row.start.root).or_default().push(row);
        }
        let mut ended: Vec<(&Row, Timestamp)> = trees
            .iter()
            .filter(|(_, rows)| rows.iter().all(|row| row.is_over()))
            .filter_map(|(root, rows)| Some((self.runs.get(*root)?, rows.iter().map(|row| row.updated_at).max()?)))
            .collect();
        ended.sort_by_key(|(root, _)| std::cmp::Reverse(root.place));
        let mut kept: BTreeMap<&str, u64> = BTreeMap::new();
        let mut prunable = BTreeSet::new();
        for (root, at) in ended {
            let newer = kept.entry(&root.start.machine_name).or_default();
            *newer += 1;
            let surplus = retention.keep_per_machine.is_none_or(|keep| *newer > keep);
            let old = retention.ended_before.is_none_or(|before| at < before);
            let wanted = retention.machine.as_ref().is_none_or(|machine| root.start.machine_name == *machine);
            let named = retention.trees.as_ref().is_none_or(|trees| trees.contains(&root.start.id));
            if surplus && old && wanted && named && root.has_tags(&retention.tags) {
                prunable.insert(root.start.id.clone());
            }
        }
        prunable
    }

    /// Closes the books of a run that is removed: what it still holds counts as used, and a run that gets its name draws
    /// anew.
    fn forfeit(&mut self, run: &RunId) -> Result<(), StoreError> {
        let place = |kind: &str| (kind.into(), run.as_str().into());
        if let Some(object) = self.objects.get(&place(ALLOTMENT)) {
            let draw = forfeited(run, &object.bytes)?;
            self.draw(&draw)?;
        }
        self.objects.remove(&place(RETURNED));
        Ok(())
    }

    pub(super) fn prune(&mut self, retention: &Retention) -> Result<Pruned, StoreError> {
        let mut roots = self.prunable(retention);
        let mut pruned = Pruned::default();
        if !retention.dry_run {
            let of = self.runs.values().filter(|row| !self.ledger.has_sealed(row));
            let open: BTreeSet<&RunId> = of.map(|row| &row.start.root).collect();
            pruned.unsealed = roots.iter().filter(|root| open.contains(root)).count() as u64;
            roots.retain(|root| !open.contains(root));
        }
        let gone = |row: &Row| roots.contains(&row.start.root);
        let mut used: BTreeSet<Digest> = BTreeSet::new();
        for row in self.runs.values() {
            if gone(row) {
                pruned.runs += 1;
                pruned.records += row.records.len() as u64;
                pruned.bytes += row.records.iter().map(|record| record.row.bytes.len() as u64).sum::<u64>();
            } else {
                used.insert(row.bundle);
                used.insert(row.start.bundle);
                used.extend(row.records.iter().flat_map(|record| &record.row.blobs));
            }
        }
        for (digest, blob) in &self.blobs {
            if !blob.bundle && !used.contains(digest) {
                pruned.blobs += 1;
                pruned.bytes += blob.bytes.len() as u64;
            }
        }
        if !retention.dry_run {
            for row in self.runs.values().filter(|row| gone(row)) {
                self.ledger.keep(row);
            }
            let removed: Vec<RunId> =
                self.runs.values().filter(|row| gone(row)).map(|row| row.start.id.clone()).collect();
            for run in &removed {
                self.forfeit(run)?;
            }
            self.runs.retain(|_, row| !gone(row));
            self.blobs.retain(|digest, blob| blob.bundle || used.contains(digest));
            let waiting = |id: &Name| self.buffered.iter().any(|signal| signal.id == *id);
            let known =
                |id: &Name, at: Timestamp| waiting(id) || retention.ended_before.is_none_or(|before| at >= before);
            self.signals_seen.retain(|id, at| known(id, *at));
        }
        Ok(pruned)
    }

    pub(super) fn ids(&self, after: Option<&RunId>, limit: usize) -> Vec<RunId> {
        self.runs.keys().filter(|id| after.is_none_or(|after| *id > after)).take(limit).cloned().collect()
    }

    pub(super) fn fsck(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (id, row) in &self.runs {
            let mut find = |rule: &str, message: String| {
                findings.push(Finding { run: Some(id.clone()), rule: rule.into(), message });
            };
            self.check_liveness(id, row, &mut find);
            if row.owner.is_some() && row.ready.is_some() {
                find("lease_and_queue", "the run is held and in the queue".into());
            }
            let versions = row.records.iter().map(|record| record.row.version);
            if !versions.eq(1..=row.version) {
                find("journal_gap", format!("the journal does not have every version up to {}", row.version));
            }
            let parent = row.start.parent.as_ref().map(|parent| &parent.run);
            for above in parent.into_iter().chain([&row.start.root]).filter(|above| !self.runs.contains_key(*above)) {
                find("orphan", format!("the run is below `{above}`, which does not exist"));
            }
            let mut chain = windlass_core::audit::Chain::default();
            for audit in row.records.iter().flat_map(|record| &record.audit) {
                if audit.number != chain.rows + 1 || audit.previous != chain.head {
                    find("audit", format!("audit row {} does not follow row {}", audit.number, chain.rows));
                }
                chain.rows = audit.number;
                chain.head = audit.hash();
            }
            for digest in row.records.iter().flat_map(|record| &record.row.blobs).chain([&row.bundle]) {
                match self.blobs.get(digest) {
                    None => find("blob", format!("blob `{}` is missing", digest.short())),
                    Some(blob) if Digest::of(&blob.bytes) != *digest => {
                        find("blob", format!("blob `{}` has other bytes", digest.short()));
                    }
                    Some(_) => {}
                }
            }
        }
        findings
    }

    fn check_liveness(&self, id: &RunId, row: &Row, find: &mut impl FnMut(&str, String)) {
        let quarantined = row.quarantine.is_some();
        if quarantined && (row.is_over() || row.owner.is_some() || row.ready.is_some() || row.wake_at.is_some()) {
            find("liveness", "the run is quarantined and held, in the queue, due or over".into());
        }
        if row.is_over() || quarantined || row.owner.is_some() || row.ready.is_some() {
            return;
        }
        if !row.inbox.is_empty() {
            find("liveness", "the inbox has something and the run is not in the queue".into());
            return;
        }
        let held = matches!(row.status, Status::Paused | Status::Attention);
        let child = |other: &Row| !other.is_over() && other.start.parent.as_ref().is_some_and(|up| up.run == *id);
        if !held && row.waits.is_empty() && row.wake_at.is_none() && !self.runs.values().any(child) {
            find("liveness", "nothing will ever wake the run".into());
        }
    }

    pub(super) fn stats(&self) -> Stats {
        let mut runs: BTreeMap<&str, u64> = BTreeMap::new();
        for row in self.runs.values() {
            *runs.entry(row.shown_status().as_str()).or_default() += 1;
        }
        Stats {
            schema: SCHEMA,
            bytes: 0,
            runs: runs.into_iter().map(|(word, count)| (word.to_owned(), count)).collect(),
            commits: self.commits,
            statements: 0,
            transactions: self.commits,
            stale: self.stale,
            workers: 0,
            held_since: self.runs.values().filter(|row| row.owner.is_some()).map(|row| row.updated_at).min(),
            queue: self.depths(),
            claims: 0,
            reaped: 0,
        }
    }

    fn depths(&self) -> Vec<Depth> {
        let mut depths: BTreeMap<(&Name, Priority), Depth> = BTreeMap::new();
        for (row, place) in self.runs.values().filter_map(|row| Some((row, row.ready?))) {
            let empty = || Depth { pool: row.pool.clone(), priority: row.priority, runs: 0, oldest: place.since };
            let depth = depths.entry((&row.pool, row.priority)).or_insert_with(empty);
            depth.runs += 1;
            depth.oldest = depth.oldest.min(place.since);
        }
        depths.into_values().collect()
    }

    pub(super) fn damage(&mut self, damage: &Damage) {
        let run = match damage {
            Damage::Blob(digest) => {
                self.blobs.remove(digest);
                return;
            }
            Damage::Parent(run) => {
                let parent = self.runs.get(run).and_then(|row| row.start.parent.as_ref()).map(|up| up.run.clone());
                if let Some(parent) = parent {
                    self.runs.remove(&parent);
                }
                return;
            }
            Damage::Wake(run)
            | Damage::Queue(run)
            | Damage::Journal(run)
            | Damage::Audit(run)
            | Damage::Quarantine(run) => run,
        };
        let Some(row) = self.runs.get_mut(run) else { return };
        match damage {
            Damage::Wake(_) => {
                row.waits.clear();
                row.wake_at = None;
                row.ready = None;
            }
            Damage::Quarantine(_) => row.quarantine = Some("on purpose".into()),
            Damage::Queue(_) => row.ready = Some(Place { is_back: true, number: u64::MAX, since: Timestamp(0) }),
            Damage::Journal(_) => row.records.retain(|record| record.row.version != 1),
            Damage::Audit(_) => {
                for audit in row.records.iter_mut().flat_map(|record| &mut record.audit).take(1) {
                    audit.target = "someone else".into();
                }
            }
            Damage::Blob(_) | Damage::Parent(_) => {}
        }
    }
}
