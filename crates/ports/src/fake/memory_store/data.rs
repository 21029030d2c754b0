//! What a change does to the data of a store, and what is read from it. Time and liveness come as arguments.

use std::collections::{BTreeMap, BTreeSet};

use windlass_core::audit;
use windlass_core::effect::WaitKind;
use windlass_core::escrow::{Draw, Drawn};
use windlass_core::ids::{Digest, EffectId, Name, RunId};
use windlass_core::run::{Start, Status};
use windlass_core::time::Timestamp;

use super::rates::Buckets;
use super::trail::Ledger;
use crate::store::escrow::Sheet;
use crate::store::{
    Commit, Committed, Created, Delivered, Head, InboxItem, JournalRow, Keep, Message, NewRun, Object, OpId,
    POOL_DEFAULT, Page, Priority, Put, Query, SWITCHES, Signal, Signalled, StoreError, Stored, WaitRow, WorkerId,
    switch_epoch, switch_key,
};

#[derive(Debug)]
pub(super) struct Record {
    pub(super) row: JournalRow,
    pub(super) op: OpId,
    pub(super) audit: Vec<audit::Row>,
    /// Place in the order of writing.
    pub(super) place: i64,
}

#[derive(Debug)]
pub(super) struct OpenWait {
    pub(super) row: WaitRow,
    /// A signal is on its way to it; it takes no other.
    pub(super) answered: bool,
}

/// A place in the queue: earlier ones are smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Behind the runs that were taken back from a worker.
    pub(super) is_back: bool,
    pub(super) number: u64,
    /// When it was taken.
    pub(super) since: Timestamp,
}

#[derive(Debug)]
pub(super) struct Row {
    /// Place in the order of creation.
    pub(super) place: u64,
    pub(super) start: Start,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
    /// The last decided word.
    pub(super) status: Status,
    pub(super) state: Option<Name>,
    pub(super) step: u64,
    pub(super) version: u64,
    pub(super) epoch: u64,
    pub(super) tokens: u64,
    pub(super) cost_micros: u64,
    pub(super) bundle: Digest,
    pub(super) owner: Option<WorkerId>,
    /// The worker that lost the run and whose calls no decision has dealt with yet.
    pub(super) lost: Option<WorkerId>,
    /// Place in the queue, when it is there.
    pub(super) ready: Option<Place>,
    pub(super) pool: Name,
    pub(super) priority: Priority,
    pub(super) tags: BTreeMap<Name, Name>,
    pub(super) strikes: u32,
    /// Why it is quarantined, when it is.
    pub(super) quarantine: Option<Name>,
    /// How often a person took it out of quarantine, or from its worker.
    pub(super) helped: u32,
    /// Earliest timer; only of a parked run.
    pub(super) wake_at: Option<Timestamp>,
    pub(super) records: Vec<Record>,
    pub(super) snapshot: Option<(u64, Vec<u8>)>,
    pub(super) waits: BTreeMap<EffectId, OpenWait>,
    pub(super) inbox: BTreeMap<u64, InboxItem>,
    /// Ids of everything ever put in the inbox.
    pub(super) seen: BTreeSet<Name>,
}

impl Row {
    pub(super) fn head(&self) -> Head {
        Head {
            id: self.start.id.clone(),
            status: self.shown_status(),
            machine: self.start.machine_name.clone(),
            state: self.state.clone(),
            step: self.step,
            version: self.version,
            epoch: self.epoch,
            owner: self.owner.clone(),
            parent: self.start.parent.as_ref().map(|parent| parent.run.clone()),
            root: self.start.root.clone(),
            depth: self.start.depth,
            tenant: self.start.scope.tenant.clone(),
            bundle: self.bundle,
            input: self.start.input.digest(),
            wake_at: self.wake_at,
            pool: self.pool.clone(),
            priority: self.priority,
            tags: self.tags.clone(),
            strikes: self.strikes,
            quarantine: self.quarantine.clone(),
            helped: self.helped,
            tokens: self.tokens,
            cost_micros: self.cost_micros,
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }

    pub(super) fn shown_status(&self) -> Status {
        match (&self.quarantine, self.ready) {
            (Some(_), _) => Status::Quarantined,
            (None, Some(_)) => Status::Queued,
            (None, None) if self.version == 0 && self.owner.is_none() => Status::Queued,
            (None, None) => self.status,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.status.is_final()
    }

    pub(super) fn has_tags(&self, wanted: &[(Name, Option<Name>)]) -> bool {
        let has = |key: &Name, value: &Option<Name>| {
            self.tags.get(key).is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
        };
        wanted.iter().all(|(key, value)| has(key, value))
    }
}

#[derive(Debug)]
pub(super) struct Blob {
    pub(super) bytes: Vec<u8>,
    pub(super) bundle: bool,
}

#[derive(Debug, Default)]
pub(super) struct Data {
    pub(super) runs: BTreeMap<RunId, Row>,
    pub(super) blobs: BTreeMap<Digest, Blob>,
    /// Signals that wait for a wait, oldest first.
    pub(super) buffered: Vec<Signal>,
    /// Every signal ever sent, with its time.
    pub(super) signals_seen: BTreeMap<Name, Timestamp>,
    /// By kind and key.
    pub(super) objects: BTreeMap<(Name, Name), Object>,
    /// The highest revision of an object that was removed.
    pub(super) floor: u64,
    pub(super) ledger: Ledger,
    pub(super) rates: Buckets,
    pub(super) commits: u64,
    pub(super) stale: u64,
    /// Of each class, the tenant that was served last.
    pub(super) turns: BTreeMap<Priority, Name>,
    /// The store's time at the present change.
    pub(super) now: Timestamp,
    /// Something came into the queue or an inbox since this was last cleared.
    pub(super) woke: bool,
    /// Source of every growing number.
    last: u64,
}

impl Data {
    pub(super) fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// The last place in the queue.
    pub(super) fn back(&mut self) -> Place {
        Place { is_back: true, number: self.next(), since: self.now }
    }

    pub(super) fn object(&self, kind: Name, key: Name) -> Option<Object> {
        self.objects.get(&(kind, key)).cloned()
    }

    pub(super) fn objects(&self, kind: &Name, after: Option<&Name>, limit: usize) -> Vec<Object> {
        let of_kind = self.objects.iter().filter(|((known, _), _)| known == kind).map(|(_, object)| object);
        of_kind.filter(|object| after.is_none_or(|after| object.key > *after)).take(limit).cloned().collect()
    }

    pub(super) fn put_object(&mut self, put: Put) -> bool {
        let place = (put.kind, put.key);
        let revision = self.objects.get(&place).map_or(0, |object| object.revision);
        if revision != put.expected {
            return false;
        }
        match put.bytes {
            Some(bytes) => {
                let last = if revision == 0 { self.floor } else { revision };
                let object = Object { key: place.1.clone(), revision: last + 1, bytes };
                self.objects.insert(place, object);
            }
            None => {
                self.floor = self.floor.max(revision);
                self.objects.remove(&place);
            }
        }
        true
    }

    pub(super) fn draw(&mut self, draw: &Draw) -> Result<Drawn, StoreError> {
        let mut sheet = Sheet::default();
        for (kind, key) in sheet.unread([draw]) {
            if let Some(object) = self.objects.get(&(kind.into(), key.clone())) {
                sheet.add(kind, key, &object.bytes)?;
            }
        }
        let answer = sheet.settle(draw);
        for write in sheet.writes()? {
            // Nobody changes these by their revision, so none has to be kept of what is removed.
            let place: (Name, Name) = (write.kind.into(), write.key.clone());
            match write.bytes {
                Some(bytes) => {
                    let revision = self.objects.get(&place).map_or(0, |object| object.revision) + 1;
                    self.objects.insert(place, Object { key: write.key, revision, bytes });
                }
                None => {
                    self.objects.remove(&place);
                }
            }
        }
        Ok(answer)
    }

    pub(super) fn put_bundle(&mut self, digest: Digest, bytes: Vec<u8>) -> Result<(), StoreError> {
        if Digest::of(&bytes) != digest {
            return Err(StoreError::Invalid(format!("the bundle is not `{}`", digest.short())));
        }
        self.blobs.entry(digest).or_insert(Blob { bytes, bundle: true }).bundle = true;
        Ok(())
    }

    pub(super) fn blob(&self, digest: Digest) -> Result<Option<Vec<u8>>, StoreError> {
        match self.blobs.get(&digest) {
            Some(blob) if Digest::of(&blob.bytes) != digest => {
                Err(StoreError::Corrupt(format!("blob `{}` has other bytes", digest.short())))
            }
            blob => Ok(blob.map(|blob| blob.bytes.clone())),
        }
    }

    /// A run can only be below runs that exist.
    fn check_place(&self, start: &Start) -> Result<(), StoreError> {
        let parent = start.parent.as_ref().map(|parent| &parent.run);
        let root = (start.root != start.id).then_some(&start.root);
        match parent.into_iter().chain(root).find(|above| !self.runs.contains_key(*above)) {
            Some(above) => {
                Err(StoreError::Invalid(format!("`{}` is to be below `{above}`, which does not exist", start.id)))
            }
            None => Ok(()),
        }
    }

    pub(super) fn create(&mut self, run: &NewRun) -> Result<Created, StoreError> {
        if let Some(row) = self.runs.get(&run.start.id) {
            return Ok(Created::Exists(Box::new(row.head())));
        }
        self.check_place(&run.start)?;
        let of_tenant = |row: &&Row| row.ready.is_some() && row.start.scope.tenant == run.start.scope.tenant;
        let queued = || self.runs.values().filter(of_tenant).count();
        if run.queueing.queued_max.is_some_and(|most| queued() >= most as usize) {
            return Ok(Created::Full);
        }
        self.insert(run);
        Ok(Created::New)
    }

    fn insert(&mut self, run: &NewRun) {
        let parent = run.start.parent.as_ref().and_then(|parent| self.runs.get(&parent.run));
        let pool = run.queueing.pool.clone().or_else(|| parent.map(|parent| parent.pool.clone()));
        let priority = run.queueing.priority.or_else(|| parent.map(|parent| parent.priority));
        let mut tags = parent.map(|parent| parent.tags.clone()).unwrap_or_default();
        tags.extend(run.queueing.tags.clone());
        let wake_at = run.queueing.not_before.filter(|then| *then > run.at);
        let row = Row {
            place: self.next(),
            start: run.start.clone(),
            created_at: run.at,
            updated_at: run.at,
            status: Status::Running,
            state: None,
            step: 0,
            version: 0,
            epoch: 0,
            tokens: 0,
            cost_micros: 0,
            bundle: run.start.bundle,
            owner: None,
            lost: None,
            ready: if wake_at.is_none() { Some(self.back()) } else { None },
            wake_at,
            pool: pool.unwrap_or_else(|| POOL_DEFAULT.into()),
            priority: priority.unwrap_or_default(),
            tags,
            strikes: 0,
            quarantine: None,
            helped: 0,
            records: Vec::new(),
            snapshot: None,
            waits: BTreeMap::new(),
            inbox: BTreeMap::new(),
            seen: BTreeSet::new(),
        };
        self.runs.insert(run.start.id.clone(), row);
        self.woke = true;
    }

    pub(super) fn load(&self, run: &RunId) -> Option<Stored> {
        let row = self.runs.get(run)?;
        let from = row.snapshot.as_ref().map_or(0, |(version, _)| *version);
        let records = row.records.iter().map(|record| record.row.clone()).filter(|row| row.version > from).collect();
        let snapshot = row.snapshot.as_ref().map(|(_, bytes)| bytes.clone());
        let inbox = !row.inbox.is_empty();
        Some(Stored { head: row.head(), start: row.start.clone(), snapshot, records, inbox })
    }

    pub(super) fn commit(&mut self, mut commit: Commit) -> Result<Committed, StoreError> {
        commit.check()?;
        let run = commit.lease.run.clone();
        let current = self.runs.get(&run).is_some_and(|row| {
            row.version == commit.expected
                && row.epoch == commit.lease.epoch
                && row.owner.as_ref() == Some(&commit.worker)
        });
        if !current {
            self.stale += 1;
            return Ok(Committed::Stale);
        }
        let stored =
            |digest: &Digest| self.blobs.contains_key(digest) || commit.blobs.iter().any(|(new, _)| new == digest);
        if let Some(missing) = commit.record.blobs.iter().find(|digest| !stored(digest)) {
            return Err(StoreError::Invalid(format!("blob `{}` of `{run}` is not stored", missing.short())));
        }
        for child in &commit.children {
            self.check_place(&child.start)?;
        }
        self.commits += 1;
        let switched = commit.begins.is_some_and(|known| known != self.switches_of(&run));
        for (digest, bytes) in std::mem::take(&mut commit.blobs) {
            self.blobs.entry(digest).or_insert(Blob { bytes, bundle: false });
        }
        for child in std::mem::take(&mut commit.children) {
            if !self.runs.contains_key(&child.start.id) {
                self.insert(&child);
            }
        }
        self.write_row(&run, &mut commit);
        for message in std::mem::take(&mut commit.messages) {
            self.deliver(message);
        }
        if commit.keep != Keep::End {
            self.open_waits(&run, &commit);
        }
        Ok(self.keep(&run, commit.keep, switched))
    }

    /// The epoch of the read-only switches of a run.
    fn switches_of(&self, run: &RunId) -> u64 {
        let revision = |tenant: Option<&str>| {
            self.objects.get(&(SWITCHES.into(), switch_key(tenant))).map_or(0, |object| object.revision)
        };
        let tenant = self.runs.get(run).map_or(0, |row| revision(Some(&row.start.scope.tenant)));
        switch_epoch(revision(None), tenant)
    }

    /// The part of a commit that concerns the run's own row and journal.
    fn write_row(&mut self, run: &RunId, commit: &mut Commit) {
        let Some(row) = self.runs.get_mut(run) else { return };
        let head = commit.head.clone();
        row.status = head.status;
        row.state = head.state;
        row.step = head.step;
        row.tokens = head.tokens;
        row.cost_micros = head.cost_micros;
        row.bundle = head.bundle;
        row.pool = head.pool.unwrap_or_else(|| row.pool.clone());
        row.strikes = head.strikes;
        row.version = commit.record.version;
        row.updated_at = commit.at;
        let audit = std::mem::take(&mut commit.audit);
        let place = self.ledger.place();
        row.records.push(Record { row: commit.record.clone(), op: commit.op, audit, place });
        if let Some(bytes) = commit.snapshot.take() {
            row.snapshot = Some((commit.record.version, bytes));
        }
        for number in &commit.taken {
            row.inbox.remove(number);
        }
        for closed in &commit.waits_closed {
            row.waits.remove(closed);
        }
    }

    fn open_waits(&mut self, run: &RunId, commit: &Commit) {
        for wait in commit.waits_opened.iter().filter(|wait| !commit.waits_closed.contains(&wait.effect)) {
            let signal = match wait.kind {
                WaitKind::Signal => [Some(run), None].into_iter().find_map(|only| {
                    let fits = |signal: &Signal| signal.channel == wait.channel && signal.run.as_ref() == only;
                    self.buffered.iter().position(fits)
                }),
                WaitKind::Outcome { .. }
                | WaitKind::ToolChanged { .. }
                | WaitKind::Approval { .. }
                | WaitKind::Budget { .. }
                | WaitKind::Ceiling { .. }
                | WaitKind::Transition { .. } => None,
            };
            let signal = signal.map(|place| self.buffered.remove(place));
            if let Some(row) = self.runs.get_mut(run) {
                row.waits.insert(wait.effect, OpenWait { row: wait.clone(), answered: signal.is_some() });
            }
            if let Some(signal) = signal {
                self.deliver(signal.message(run, wait.effect));
            }
        }
    }

    /// What becomes of the lease.
    fn keep(&mut self, run: &RunId, keep: Keep, switched: bool) -> Committed {
        let place = self.back();
        let Some(row) = self.runs.get_mut(run) else { return Committed::Stale };
        row.lost = None;
        let inbox = !row.inbox.is_empty();
        match keep {
            Keep::Hold => {}
            Keep::Park { .. } if inbox => {}
            Keep::Park { wake_at } => {
                row.owner = None;
                row.wake_at = wake_at;
            }
            Keep::HandBack => {
                row.owner = None;
                row.ready = Some(place);
                self.woke = true;
            }
            Keep::End => {
                row.owner = None;
                row.waits.clear();
                row.inbox.clear();
                self.buffered.retain(|signal| signal.run.as_ref() != Some(run));
            }
        }
        Committed::Applied { held: row.owner.is_some(), inbox: !row.inbox.is_empty(), switched }
    }

    pub(super) fn was_committed(&self, run: &RunId, op: OpId) -> bool {
        self.runs.get(run).is_some_and(|row| row.records.iter().any(|record| record.op == op))
    }

    pub(super) fn inbox(&self, run: &RunId) -> Vec<InboxItem> {
        self.runs.get(run).map(|row| row.inbox.values().cloned().collect()).unwrap_or_default()
    }

    pub(super) fn deliver(&mut self, message: Message) -> Delivered {
        let (number, place) = (self.next(), self.back());
        let Some(row) = self.runs.get_mut(&message.to) else { return Delivered::NotFound };
        if row.is_over() {
            return Delivered::Finished;
        }
        if !row.seen.insert(message.id.clone()) {
            return Delivered::Duplicate;
        }
        row.inbox.insert(number, InboxItem { number, id: message.id, input: message.input });
        if row.quarantine.is_some() {
            return Delivered::Accepted;
        }
        if row.owner.is_none() {
            row.wake_at = None;
            row.ready = row.ready.or(Some(place));
        }
        self.woke = true;
        Delivered::Accepted
    }

    pub(super) fn signal(&mut self, signal: Signal) -> Signalled {
        if self.signals_seen.contains_key(&signal.id) {
            return Signalled::Duplicate;
        }
        match signal.run.as_ref().map(|run| self.runs.get(run)) {
            Some(None) => return Signalled::NotFound,
            Some(Some(row)) if row.is_over() => return Signalled::Finished,
            Some(Some(_)) | None => {}
        }
        self.signals_seen.insert(signal.id.clone(), signal.at);
        let mut waiting = Vec::new();
        for (id, row) in self.runs.iter_mut().filter(|(id, _)| signal.run.as_ref().is_none_or(|only| only == *id)) {
            for (effect, wait) in &mut row.waits {
                if wait.row.channel == signal.channel && !wait.answered {
                    wait.answered = true;
                    waiting.push((id.clone(), *effect));
                }
            }
        }
        if waiting.is_empty() {
            self.buffered.push(signal);
            return Signalled::Buffered;
        }
        for (run, effect) in &waiting {
            self.deliver(signal.message(run, *effect));
        }
        let mut runs: Vec<_> = waiting.into_iter().map(|(run, _)| run).collect();
        runs.dedup();
        Signalled::Delivered(runs)
    }

    pub(super) fn next_due(&self, within: Option<&RunId>) -> Option<Timestamp> {
        let inside = |row: &&Row| within.is_none_or(|root| row.start.root == *root);
        self.runs.values().filter(inside).filter_map(|row| row.wake_at).min()
    }

    pub(super) fn journal(&self, run: &RunId, after: u64, limit: usize) -> Vec<JournalRow> {
        let rows = self.runs.get(run).map(|row| row.records.as_slice()).unwrap_or_default();
        rows.iter().map(|record| &record.row).filter(|row| row.version > after).take(limit).cloned().collect()
    }

    pub(super) fn audit(&self, run: &RunId) -> Vec<audit::Row> {
        let rows = self.runs.get(run).map(|row| row.records.as_slice()).unwrap_or_default();
        rows.iter().flat_map(|record| record.audit.iter().cloned()).collect()
    }

    /// Whether `run` is `top` or below it.
    fn is_below(&self, run: &RunId, top: &RunId) -> bool {
        let mut current = Some(run);
        while let Some(id) = current {
            if id == top {
                return true;
            }
            current = self.runs.get(id).and_then(|row| row.start.parent.as_ref()).map(|parent| &parent.run);
        }
        false
    }

    pub(super) fn waits(&self, run: &RunId, tree: bool) -> Vec<(RunId, WaitRow)> {
        let wanted = |id: &RunId| if tree { self.is_below(id, run) } else { id == run };
        let mut rows: Vec<_> = self.runs.iter().filter(|(id, _)| wanted(id)).map(|(_, row)| row).collect();
        rows.sort_by_key(|row| row.place);
        rows.into_iter()
            .flat_map(|row| row.waits.values().map(|wait| (row.start.id.clone(), wait.row.clone())))
            .collect()
    }

    pub(super) fn list(&self, query: &Query) -> Result<Page, StoreError> {
        let before = match &query.cursor {
            None => u64::MAX,
            Some(text) => {
                text.parse().map_err(|_| StoreError::Invalid(format!("`{text}` is not a cursor of this store")))?
            }
        };
        let parent = |row: &Row| row.start.parent.as_ref().map(|parent| parent.run.clone());
        let mut rows: Vec<&Row> = self
            .runs
            .values()
            .filter(|row| row.place < before)
            .filter(|row| query.statuses.is_empty() || query.statuses.contains(&row.shown_status()))
            .filter(|row| query.machine.as_ref().is_none_or(|machine| row.start.machine_name == *machine))
            .filter(|row| query.parent.is_none() || parent(row) == query.parent)
            .filter(|row| query.root.as_ref().is_none_or(|root| row.start.root == *root))
            .filter(|row| !query.roots_only || row.start.parent.is_none())
            .filter(|row| query.tenant.as_ref().is_none_or(|tenant| row.start.scope.tenant == *tenant))
            .filter(|row| query.pool.as_ref().is_none_or(|pool| row.pool == *pool))
            .filter(|row| row.has_tags(&query.tags))
            .filter(|row| query.created_from.is_none_or(|from| row.created_at >= from))
            .filter(|row| query.created_before.is_none_or(|before| row.created_at < before))
            .collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.place));
        let more = rows.len() > query.limit;
        rows.truncate(query.limit);
        let next = rows.last().filter(|_| more).map(|row| row.place.to_string());
        Ok(Page { heads: rows.into_iter().map(Row::head).collect(), next })
    }
}
