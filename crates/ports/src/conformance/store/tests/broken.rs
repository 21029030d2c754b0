//! A store with one fault, around a right one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use windlass_core::escrow::{Draw, Drawn};
use windlass_core::ids::RunId;

use crate::store::{
    Answer, Claim, Commit, Committed, Delivered, Keep, Layer, Lease, Message, Put, Store, StoreError, Stored,
};

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing.
    None,
    /// Decisions count whatever lease they are made under.
    NoFence,
    /// Decisions count whatever version they are made on.
    LostUpdate,
    /// One decision in five is acknowledged and not written.
    DroppedAcknowledgement,
    /// One delivery in five is acknowledged and not written.
    LostInboxRow,
    /// A run is parked whatever its inbox has.
    BlindPark,
    /// Losses of a worker are counted for the whole life of a run.
    StrikesKept,
    /// Runs are claimed by name, whose ever they are.
    Starvation,
    /// Objects change whatever revision they have.
    BlindPut,
    /// A loaded run has an empty inbox, whatever lies in it.
    BlindLoad,
    /// A draw is granted whatever is left.
    BlindDraw,
    /// Decisions begin calls whatever the read-only switches say.
    BlindSwitch,
}

#[derive(Debug)]
pub(super) struct Broken {
    inner: Arc<dyn Store>,
    fault: Fault,
    calls: AtomicU64,
    strikes: Mutex<BTreeMap<RunId, u32>>,
}

impl Broken {
    pub(super) fn new(inner: Arc<dyn Store>, fault: Fault) -> Self {
        Self { inner, fault, calls: AtomicU64::new(0), strikes: Mutex::default() }
    }

    fn every_fifth(&self) -> bool {
        self.calls.fetch_add(1, Ordering::SeqCst) % 5 == 1
    }

    /// Leases with every loss that there ever was.
    fn with_all_strikes(&self, mut leases: Vec<Lease>) -> Vec<Lease> {
        let mut strikes = self.strikes.lock().expect("lock");
        for lease in leases.iter_mut().filter(|lease| lease.strikes > 0) {
            let all = strikes.entry(lease.run.clone()).or_default();
            *all += 1;
            lease.strikes = *all;
        }
        leases
    }

    /// The runs that come first by their names; the others are put back.
    async fn first_by_name(&self, claim: Claim) -> Result<Vec<Lease>, StoreError> {
        let (limit, worker) = (claim.limit, claim.worker.clone());
        let mut leases = self.inner.claim(Claim { limit: usize::MAX, ..claim }).await?;
        leases.sort_by(|a, b| b.run.cmp(&a.run));
        for lease in leases.split_off(limit.min(leases.len())) {
            self.inner.release(lease, worker.clone(), Keep::HandBack).await?;
        }
        Ok(leases)
    }

    /// The commit as it would have to be to count.
    async fn made_current(&self, mut commit: Commit) -> Result<Commit, StoreError> {
        let Some(stored) = self.inner.load(commit.lease.run.clone()).await? else { return Ok(commit) };
        let head = stored.head;
        if self.fault == Fault::NoFence {
            commit.lease.epoch = head.epoch;
            commit.worker = head.owner.unwrap_or(commit.worker);
        }
        if self.fault == Fault::LostUpdate {
            commit.expected = head.version;
            commit.record.version = head.version + 1;
        }
        Ok(commit)
    }
}

impl Layer for Broken {
    fn below(&self) -> &dyn Store {
        &*self.inner
    }

    fn put_object(&self, put: Put) -> Answer<'_, bool> {
        if self.fault != Fault::BlindPut {
            return self.inner.put_object(put);
        }
        Box::pin(async move {
            let there = self.inner.object(put.kind.clone(), put.key.clone()).await?;
            self.inner.put_object(Put { expected: there.map_or(0, |object| object.revision), ..put }).await
        })
    }

    fn draw(&self, draw: Draw) -> Answer<'_, Drawn> {
        let needs = draw.lines.iter().map(|line| (line.scope.clone(), line.need)).collect();
        Box::pin(async move {
            Ok(match self.inner.draw(draw).await? {
                Drawn::Refused(_) if self.fault == Fault::BlindDraw => Drawn::Granted(needs),
                answer => answer,
            })
        })
    }

    fn claim(&self, claim: Claim) -> Answer<'_, Vec<Lease>> {
        match self.fault {
            Fault::StrikesKept => Box::pin(async { Ok(self.with_all_strikes(self.inner.claim(claim).await?)) }),
            Fault::Starvation if claim.within.is_none() => Box::pin(self.first_by_name(claim)),
            _ => self.inner.claim(claim),
        }
    }

    fn load(&self, run: RunId) -> Answer<'_, Option<Stored>> {
        Box::pin(async move {
            let stored = self.inner.load(run).await?;
            let forgets = self.fault == Fault::BlindLoad;
            Ok(stored.map(|stored| Stored { inbox: stored.inbox && !forgets, ..stored }))
        })
    }

    fn commit(&self, commit: Commit) -> Answer<'_, Committed> {
        Box::pin(async move {
            match self.fault {
                Fault::DroppedAcknowledgement if self.every_fifth() => {
                    Ok(Committed::Applied { held: commit.keep == Keep::Hold, inbox: false, switched: false })
                }
                Fault::NoFence | Fault::LostUpdate => {
                    let current = self.made_current(commit).await?;
                    self.inner.commit(current).await
                }
                Fault::BlindSwitch => self.inner.commit(Commit { begins: None, ..commit }).await,
                Fault::BlindPark if matches!(commit.keep, Keep::Park { .. }) => {
                    let (lease, worker) = (commit.lease.clone(), commit.worker.clone());
                    let answer = self.inner.commit(commit).await?;
                    if answer == (Committed::Applied { held: true, inbox: true, switched: false }) {
                        self.inner.release(lease, worker, Keep::HandBack).await?;
                        return Ok(Committed::Applied { held: false, inbox: false, switched: false });
                    }
                    Ok(answer)
                }
                _ => self.inner.commit(commit).await,
            }
        })
    }

    fn deliver(&self, message: Message) -> Answer<'_, Delivered> {
        if self.fault == Fault::LostInboxRow && self.every_fifth() {
            return Box::pin(std::future::ready(Ok(Delivered::Accepted)));
        }
        self.inner.deliver(message)
    }
}
