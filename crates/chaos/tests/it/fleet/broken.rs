//! Stores that break a promise on purpose.

use std::sync::Arc;

use windlass_core::ids::{EffectId, RunId};
use windlass_core::input::Sent;
use windlass_core::journal::Record;
use windlass_ports::store::{Answer, Commit, Committed, Layer, OpId, Registration, Store, StoreError, WorkerId};

/// The promise that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breach {
    /// Decisions count whatever lease they are made under, and every worker believes in its leases.
    NoFence,
    /// No call counts as sent.
    ForgetsSent,
}

impl Breach {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::NoFence => "no-fence",
            Self::ForgetsSent => "forgets-sent",
        }
    }

    pub(super) fn of(word: &str) -> Option<Self> {
        [Self::NoFence, Self::ForgetsSent].into_iter().find(|breach| breach.as_str() == word)
    }
}

#[derive(Debug)]
pub(super) struct Broken {
    inner: Arc<dyn Store>,
    breach: Breach,
}

impl Broken {
    pub(super) fn over(inner: Arc<dyn Store>, breach: Breach) -> Self {
        Self { inner, breach }
    }

    /// Writes a decision whoever holds the run, after whatever was written last.
    async fn unfenced(&self, mut commit: Commit) -> Result<Committed, StoreError> {
        let answer = self.inner.commit(commit.clone()).await?;
        if answer != Committed::Stale {
            return Ok(answer);
        }
        let thief = self.inner.join(Registration::default()).await?;
        let Some(lease) = self.inner.take_over(commit.lease.run.clone(), thief.clone(), None).await? else {
            return Ok(answer);
        };
        let stored = self.inner.load(commit.lease.run.clone()).await?;
        let (Some(stored), Ok(mut record)) = (stored, Record::decode(&commit.record.bytes)) else { return Ok(answer) };
        (commit.lease, commit.worker) = (lease, thief);
        commit.expected = stored.head.version;
        record.version = stored.head.version + 1;
        commit.record.version = record.version;
        commit.record.bytes = record.encode();
        commit.op = OpId(commit.op.0 ^ 1);
        self.inner.commit(commit).await
    }
}

impl Layer for Broken {
    fn below(&self) -> &dyn Store {
        &*self.inner
    }

    fn commit(&self, commit: Commit) -> Answer<'_, Committed> {
        match self.breach {
            Breach::NoFence => Box::pin(self.unfenced(commit)),
            Breach::ForgetsSent => self.inner.commit(commit),
        }
    }

    fn is_current(&self, worker: &WorkerId) -> bool {
        self.breach == Breach::NoFence || self.inner.is_current(worker)
    }

    fn mark_sent(&self, run: &RunId, effect: EffectId, attempt: u32) -> Result<(), StoreError> {
        match self.breach {
            Breach::NoFence => self.inner.mark_sent(run, effect, attempt),
            Breach::ForgetsSent => Ok(()),
        }
    }

    fn was_sent(&self, worker: &WorkerId, run: &RunId, effect: EffectId, attempt: u32) -> Sent {
        match self.breach {
            Breach::NoFence => self.inner.was_sent(worker, run, effect, attempt),
            Breach::ForgetsSent => Sent::No,
        }
    }
}
