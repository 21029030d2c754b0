//! Who gets which run: the queue, its classes and turns, runs taken back, quarantine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use windlass_core::ids::{Name, RunId};
use windlass_core::run::Status;

use super::data::{Data, Place, Row};
use crate::store::{Claim, FENCED, Keep, Lease, Priority, Reaped, STRIKES_MAX, STRIKES_SUSPECT, StoreError, WorkerId};

impl Row {
    fn is_within(&self, tree: Option<&RunId>) -> bool {
        tree.is_none_or(|root| self.start.root == *root)
    }

    /// Takes the run from its worker and puts it into the queue.
    fn take_back(&mut self, place: Place) {
        let owner = self.owner.take();
        if !self.is_over() {
            self.lost = self.lost.take().or(owner);
            self.ready = Some(place);
        }
    }

    fn quarantine(&mut self, reason: Name) {
        (self.ready, self.wake_at, self.quarantine) = (None, None, Some(reason));
    }
}

impl Data {
    /// Gives out runs, after those of dead workers and those that are due were put into the queue.
    pub(super) fn claim(&mut self, claim: &Claim, dead: &BTreeSet<WorkerId>) -> (Vec<Lease>, Reaped) {
        let tree = claim.within.as_ref();
        let reaped = self.reap(dead, tree);
        let waked = reaped.runs as usize + self.wake(claim);
        let found = match tree {
            Some(_) => self.first(claim),
            None => self.deal(claim),
        };
        let leases: Vec<_> = self.apart(found).into_iter().filter_map(|id| self.take(&id, &claim.worker)).collect();
        // Whoever claims takes what it woke; what it leaves is for others.
        self.woke |= waked > leases.len();
        (leases, reaped)
    }

    /// The first that is suspect and nothing else, or all when none is.
    fn apart(&self, found: Vec<RunId>) -> Vec<RunId> {
        let suspect = |id: &&RunId| self.runs.get(*id).is_some_and(|row| row.strikes >= STRIKES_SUSPECT);
        match found.iter().find(suspect) {
            Some(id) => vec![id.clone()],
            None => found,
        }
    }

    /// How many unfinished runs each worker holds.
    fn held(&self) -> BTreeMap<WorkerId, usize> {
        let mut held = BTreeMap::new();
        for row in self.runs.values().filter(|row| !row.is_over()) {
            if let Some(owner) = &row.owner {
                *held.entry(owner.clone()).or_default() += 1;
            }
        }
        held
    }

    /// Puts runs of dead workers into the queue.
    pub(super) fn reap(&mut self, dead: &BTreeSet<WorkerId>, tree: Option<&RunId>) -> Reaped {
        let mut reaped = Reaped::default();
        let mut workers = BTreeSet::new();
        let held = self.held();
        let ids: Vec<RunId> = self.runs.keys().cloned().collect();
        for id in ids {
            let place = Place { is_back: false, ..self.back() };
            let lost = |row: &&mut Row| row.is_within(tree) && row.owner.as_ref().is_some_and(|id| dead.contains(id));
            let Some(row) = self.runs.get_mut(&id).filter(lost) else { continue };
            let worker = row.owner.clone();
            row.take_back(place);
            if !row.is_over() {
                let alone = worker.as_ref().and_then(|worker| held.get(worker)) == Some(&1);
                row.strikes = crate::store::strikes_after(row.strikes, alone);
                if row.strikes < STRIKES_MAX {
                    reaped.runs += 1;
                } else {
                    let last = worker.as_ref().map(ToString::to_string).unwrap_or_default();
                    row.quarantine(crate::store::lost_too_often(&last));
                    reaped.quarantined.push(id);
                }
            }
            workers.extend(worker);
        }
        reaped.workers = workers.into_iter().collect();
        reaped
    }

    /// Puts runs whose time has come into the queue, and tells how many.
    fn wake(&mut self, claim: &Claim) -> usize {
        let due = |row: &&Row| row.is_within(claim.within.as_ref()) && row.wake_at.is_some_and(|at| at <= claim.now);
        let mut due: Vec<_> =
            self.runs.values().filter(due).map(|row| (row.wake_at, row.place, row.start.id.clone())).collect();
        due.sort();
        for (_, _, id) in &due {
            let place = self.back();
            if let Some(row) = self.runs.get_mut(id) {
                (row.wake_at, row.ready) = (None, Some(place));
            }
        }
        due.len()
    }

    /// The first of a tree.
    fn first(&self, claim: &Claim) -> Vec<RunId> {
        let rows = self.runs.values().filter(|row| row.is_within(claim.within.as_ref()));
        let mut ready: Vec<_> = rows.filter_map(|row| Some((row.ready?, row.start.id.clone()))).collect();
        ready.sort();
        ready.into_iter().take(claim.limit).map(|(_, id)| id).collect()
    }

    /// One of each tenant in turn, class after class.
    fn deal(&mut self, claim: &Claim) -> Vec<RunId> {
        let mut classes = Priority::ALL;
        if claim.lowest_first {
            classes.reverse();
        }
        let mut room: BTreeMap<Name, usize> = BTreeMap::new();
        if let Some(most) = claim.tenant_held_max {
            for row in self.runs.values() {
                let left = room.entry(row.start.scope.tenant.clone()).or_insert(most as usize);
                *left = left.saturating_sub(usize::from(row.owner.is_some()));
            }
        }
        let mut dealt = Vec::new();
        for class in classes {
            let wanted =
                |row: &&Row| row.priority == class && (claim.pools.is_empty() || claim.pools.contains(&row.pool));
            let mut waiting: BTreeMap<Name, Vec<(Place, RunId)>> = BTreeMap::new();
            for row in self.runs.values().filter(wanted) {
                let id = row.start.id.clone();
                let tenant = row.start.scope.tenant.clone();
                waiting.entry(tenant).or_default().extend(row.ready.map(|place| (place, id)));
            }
            let mut turns: VecDeque<_> = waiting.into_iter().filter(|(_, runs)| !runs.is_empty()).collect();
            let last = self.turns.get(&class);
            let next = turns.iter().position(|(tenant, _)| last.is_none_or(|last| tenant > last)).unwrap_or_default();
            turns.rotate_left(next);
            for (_, runs) in &mut turns {
                runs.sort();
                runs.reverse();
            }
            while dealt.len() < claim.limit
                && let Some((tenant, mut runs)) = turns.pop_front()
            {
                if let Some(left) = room.get_mut(&tenant) {
                    let Some(fewer) = left.checked_sub(1) else { continue };
                    *left = fewer;
                }
                dealt.extend(runs.pop().map(|(_, id)| id));
                self.turns.insert(class, tenant.clone());
                if !runs.is_empty() {
                    turns.push_back((tenant, runs));
                }
            }
        }
        dealt
    }

    /// What a worker holds.
    pub(super) fn leases(&self, worker: &WorkerId) -> Vec<Lease> {
        let held = self.runs.iter().filter(|(_, row)| row.owner.as_ref() == Some(worker));
        held.map(|(id, row)| Lease {
            run: id.clone(),
            epoch: row.epoch,
            taken_from: row.lost.clone(),
            strikes: row.strikes,
            priority: row.priority,
        })
        .collect()
    }

    fn take(&mut self, run: &RunId, worker: &WorkerId) -> Option<Lease> {
        let row = self.runs.get_mut(run)?;
        row.epoch += 1;
        row.ready = None;
        row.wake_at = None;
        let owner = row.owner.replace(worker.clone());
        row.lost = row.lost.take().or(owner);
        let (taken_from, strikes, priority) = (row.lost.clone(), row.strikes, row.priority);
        Some(Lease { run: run.clone(), epoch: row.epoch, taken_from, strikes, priority })
    }

    pub(super) fn take_over(&mut self, run: &RunId, worker: &WorkerId, expected: Option<Status>) -> Option<Lease> {
        let row = self.runs.get_mut(run).filter(|row| !row.is_over() || row.status == Status::Failed)?;
        if expected.is_some_and(|expected| row.shown_status() != expected) {
            return None;
        }
        if !row.is_over() && (row.owner.is_some() || row.quarantine.is_some()) {
            row.helped += 1;
        }
        if row.quarantine.take().is_some() {
            row.strikes = 0;
        }
        self.take(run, worker)
    }

    pub(super) fn release(&mut self, lease: &Lease, worker: &WorkerId, keep: Keep) -> Result<(), StoreError> {
        if !matches!(keep, Keep::Park { .. } | Keep::HandBack) {
            return Err(StoreError::Invalid(format!("a run cannot be released with {keep:?}")));
        }
        let held = |row: &&mut Row| row.epoch == lease.epoch && row.owner.as_ref() == Some(worker);
        let place = self.back();
        let Some(row) = self.runs.get_mut(&lease.run).filter(held) else { return Ok(()) };
        row.owner = None;
        match keep {
            _ if row.is_over() => {}
            Keep::Park { wake_at } if row.inbox.is_empty() => row.wake_at = wake_at,
            Keep::Park { .. } | Keep::HandBack | Keep::Hold | Keep::End => {
                row.ready = Some(place);
                self.woke = true;
            }
        }
        Ok(())
    }

    /// Puts what a worker holds into the queue, with no loss counted.
    pub(super) fn leave(&mut self, worker: &WorkerId) {
        let ids: Vec<RunId> = self.runs.keys().cloned().collect();
        for id in ids {
            let place = Place { is_back: false, ..self.back() };
            if let Some(row) = self.runs.get_mut(&id).filter(|row| row.owner.as_ref() == Some(worker)) {
                row.take_back(place);
                self.woke = true;
            }
        }
    }

    pub(super) fn requeue(&mut self, run: &RunId) -> bool {
        let place = self.back();
        let Some(row) = self.runs.get_mut(run).filter(|row| row.quarantine.is_some()) else { return false };
        (row.quarantine, row.strikes, row.ready) = (None, 0, Some(place));
        row.helped += 1;
        self.woke = true;
        true
    }

    pub(super) fn fence(&mut self, reason: &Name) -> u64 {
        self.forget_rates();
        let place = self.back();
        let mut quarantined = 0;
        for row in self.runs.values_mut() {
            row.epoch += 1;
            row.take_back(place);
            if !row.is_over() {
                quarantined += u64::from(row.quarantine.is_none());
                row.lost = Some(WorkerId(FENCED.into()));
                row.quarantine(reason.clone());
            }
        }
        quarantined
    }
}
