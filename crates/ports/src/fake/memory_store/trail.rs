//! Seals, acts, and rows of removed runs, in memory.

use std::collections::BTreeMap;

use windlass_core::audit::{Act, Chain};
use windlass_core::ids::{Name, RunId};
use windlass_core::seal::{ACTS, Last, Segment};
use windlass_core::time::Timestamp;

use super::MemoryStore;
use super::data::{Data, Row};
use crate::BoxFuture;
use crate::store::{Grown, Kept, Mark, Pruning, Removed, Sealing, StoreError, Trail, Unsealed};

/// What is sealed, what people did, and what is left of removed runs.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    epoch: u64,
    sealed_at: Timestamp,
    mark: Mark,
    segments: BTreeMap<Name, Vec<Segment>>,
    /// With their places in the order of writing.
    acts: BTreeMap<Name, Vec<(i64, Act)>>,
    kept: Vec<Kept>,
    /// Runs that were removed.
    removed: u64,
    written: i64,
}

impl Ledger {
    /// The next place in the order of writing.
    pub(super) fn place(&mut self) -> i64 {
        self.written += 1;
        self.written
    }

    /// Keeps what audit rows a removed run has.
    pub(super) fn keep(&mut self, row: &Row) {
        let rows: Vec<_> = row.records.iter().flat_map(|record| record.audit.iter().cloned()).collect();
        if !rows.is_empty() {
            let (run, tenant) = (row.start.id.clone(), row.start.scope.tenant.clone());
            self.removed += 1;
            self.kept.push(Kept { number: self.removed, run, tenant, rows: Ok(rows) });
        }
    }

    /// Whether all audit rows of a run are sealed.
    pub(super) fn has_sealed(&self, row: &Row) -> bool {
        row.records.iter().all(|record| record.audit.is_empty() || record.place <= self.mark.rows)
    }
}

impl Data {
    fn unsealed(&self, limit: usize, now: Timestamp) -> Unsealed {
        let Ledger { epoch, sealed_at, mark, acts, segments, .. } = &self.ledger;
        let mut rows: Vec<(i64, Grown)> = Vec::new();
        for row in self.runs.values() {
            for record in row.records.iter().filter(|record| record.place > mark.rows) {
                if let Some(last) = record.audit.last() {
                    let (run, tenant) = (row.start.id.clone(), row.start.scope.tenant.clone());
                    let chain = Chain { rows: last.number, head: last.hash() };
                    rows.push((record.place, Grown { tenant, run, chain }));
                }
            }
        }
        rows.sort_by_key(|(place, _)| *place);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let written = self.ledger.written;
        let mut next = Mark { rows: written, acts: written, ..Mark::default() };
        if let (true, Some((place, _))) = (more, rows.last()) {
            next.rows = *place;
        }
        let mut grown: BTreeMap<(Name, RunId), Grown> = BTreeMap::new();
        for (_, one) in rows {
            grown.insert((one.tenant.clone(), one.run.clone()), one);
        }
        for (tenant, acts) in acts {
            if let Some((_, act)) = acts.last().filter(|(place, _)| *place > mark.acts) {
                let (run, chain) = (RunId::stored(ACTS), Chain { rows: act.number, head: act.hash() });
                grown.insert((tenant.clone(), run.clone()), Grown { tenant: tenant.clone(), run, chain });
            }
        }
        let chains: Vec<Grown> = grown.into_values().collect();
        let mut tenants: Vec<Name> = chains.iter().map(|one| one.tenant.clone()).collect();
        tenants.dedup();
        let last = |tenant: Name| {
            let last = segments.get(&tenant).and_then(|segments| segments.last());
            let last = last.map(|segment| Last { number: segment.seal.number, hash: segment.seal.hash() });
            (tenant, last.unwrap_or_default())
        };
        let last = tenants.into_iter().map(last).collect();
        Unsealed { epoch: *epoch, sealed_at: *sealed_at, now, chains, last, mark: next, more, ..Unsealed::default() }
    }

    fn seal(&mut self, sealing: Sealing) -> bool {
        if sealing.epoch != self.ledger.epoch {
            return false;
        }
        self.ledger.epoch += 1;
        self.ledger.sealed_at = sealing.at;
        self.ledger.mark = sealing.mark;
        for segment in sealing.segments {
            self.ledger.segments.entry(segment.seal.tenant.clone()).or_default().push(segment);
        }
        true
    }

    fn act(&mut self, tenant: Name, act: Act) -> bool {
        let place = self.ledger.place();
        let acts = self.ledger.acts.entry(tenant).or_default();
        let chain = acts.last().map_or_else(Chain::default, |(_, last)| Chain { rows: last.number, head: last.hash() });
        if chain.then(act.number, act.previous, act.hash()).is_err() {
            return false;
        }
        acts.push((place, act));
        true
    }
}

fn ready<'a, T: Send + 'a>(value: T) -> BoxFuture<'a, Result<T, StoreError>> {
    Box::pin(std::future::ready(Ok(value)))
}

impl Trail for MemoryStore {
    fn unsealed(&self, limit: usize) -> BoxFuture<'_, Result<Unsealed, StoreError>> {
        let now = self.shared.now();
        ready(self.read(|data| data.unsealed(limit, now)))
    }

    fn seal(&self, sealing: Sealing) -> BoxFuture<'_, Result<bool, StoreError>> {
        ready(self.write(|data| data.seal(sealing)))
    }

    fn segments(&self, tenant: Name, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Segment>, StoreError>> {
        ready(self.read(|data| {
            let segments = data.ledger.segments.get(&tenant).into_iter().flatten();
            segments.filter(|segment| segment.seal.number > after).take(limit).cloned().collect()
        }))
    }

    fn tenants(&self) -> BoxFuture<'_, Result<Vec<Name>, StoreError>> {
        ready(self.read(|data| {
            let Ledger { segments, acts, kept, .. } = &data.ledger;
            let all = segments.keys().chain(acts.keys()).chain(kept.iter().map(|kept| &kept.tenant));
            let all: std::collections::BTreeSet<Name> = all.cloned().collect();
            all.into_iter().collect()
        }))
    }

    fn kept(&self, of: Removed, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Kept>, StoreError>> {
        ready(self.read(|data| {
            let wanted = data.ledger.kept.iter().filter(|kept| kept.number > after);
            let is_of = |kept: &&Kept| match &of {
                Removed::Run(run) => kept.run == *run,
                Removed::Tenant(tenant) => kept.tenant == *tenant,
            };
            wanted.filter(is_of).take(limit).cloned().collect()
        }))
    }

    fn act(&self, tenant: Name, act: Act) -> BoxFuture<'_, Result<bool, StoreError>> {
        ready(self.write(|data| data.act(tenant, act)))
    }

    fn acts(&self, tenant: Name, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Act>, StoreError>> {
        ready(self.read(|data| {
            let acts = data.ledger.acts.get(&tenant).into_iter().flatten().map(|(_, act)| act);
            acts.filter(|act| act.number > after).take(limit).cloned().collect()
        }))
    }

    fn cut(&self, pruning: Pruning) -> BoxFuture<'_, Result<(), StoreError>> {
        let Pruning { tenant, segments, acts, kept } = pruning;
        self.write(|data| {
            if let Some(all) = data.ledger.segments.get_mut(&tenant) {
                all.retain(|segment| segment.seal.number > segments);
            }
            if let Some(all) = data.ledger.acts.get_mut(&tenant) {
                all.retain(|(_, act)| act.number > acts);
            }
            data.ledger.kept.retain(|one| one.tenant != tenant || !kept.contains(&one.number));
        });
        ready(())
    }

    fn last_act(&self, tenant: Name) -> BoxFuture<'_, Result<Option<Act>, StoreError>> {
        ready(self.read(|data| data.ledger.acts.get(&tenant).and_then(|acts| acts.last()).map(|(_, act)| act.clone())))
    }
}
