//! Buckets of rates, in memory.

use std::collections::BTreeMap;

use windlass_core::ids::Name;
use windlass_core::time::Timestamp;

use super::data::Data;
use super::{MemoryStore, ready};
use crate::BoxFuture;
use crate::store::StoreError;
use crate::store::rates::{Bucket, BucketRow, Rates, Take, Taken, settle};

/// Every bucket, and since when nothing is missing.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    since: Timestamp,
    known: BTreeMap<Name, Bucket>,
}

impl Data {
    fn take_permits(&mut self, take: &Take) -> Taken {
        let (now, since) = (self.now, self.rates.since);
        let known = &mut self.rates.known;
        for (name, rate) in take.buckets() {
            known.entry(name).or_insert_with(|| Bucket::empty_since(since, rate, now));
        }
        let taken = settle(take, known, now);
        if take.tidy {
            known.retain(|_, bucket| bucket.idle_at() >= now);
        }
        taken
    }

    /// Forgets every bucket: what is there may be older than what was handed out.
    pub(super) fn forget_rates(&mut self) {
        self.rates = Buckets { since: self.now, ..Buckets::default() };
    }
}

impl Rates for MemoryStore {
    fn take(&self, take: Take) -> BoxFuture<'_, Result<Taken, StoreError>> {
        ready(Ok(self.write(|data| data.take_permits(&take))))
    }

    fn buckets(&self, after: Option<Name>, limit: usize) -> BoxFuture<'_, Result<Vec<BucketRow>, StoreError>> {
        let now = self.shared.now();
        ready(Ok(self.read(|data| {
            let after = |name: &Name| after.as_ref().is_none_or(|after| name > after);
            let known = data.rates.known.iter().filter(|(name, _)| after(name)).take(limit);
            known.map(|(name, bucket)| bucket.clone().row(name.clone(), now)).collect()
        })))
    }
}
