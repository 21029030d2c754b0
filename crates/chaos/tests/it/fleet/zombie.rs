//! A worker that sleeps through its lease with a decision in its hand, and wakes when another one has the run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use windlass_ports::store::{Answer, Beat, Commit, Committed, Keep, Layer, Load, Store, WorkerId};

/// Between looks whether someone else has the run.
const LOOK: Duration = Duration::from_millis(10);
/// How much longer it sleeps: what it sends then cannot have been under way before.
const LONGER: Duration = Duration::from_millis(1_500);

#[derive(Debug)]
pub(super) struct Zombie {
    inner: Arc<dyn Store>,
    /// Whether it has begun to sleep.
    has_slept: AtomicBool,
    /// Whether it sleeps: it gives no sign of life then.
    sleeps: watch::Sender<bool>,
}

impl Zombie {
    pub(super) fn over(inner: Arc<dyn Store>) -> Self {
        Self { inner, has_slept: AtomicBool::new(false), sleeps: watch::Sender::new(false) }
    }

    /// The first decision of a run that goes on, once nobody watches how undisturbed runs go.
    fn is_the_one(&self, commit: &Commit) -> bool {
        let is_calm = commit.lease.run.as_str().contains("-calm-");
        !is_calm && commit.expected > 0 && commit.keep == Keep::Hold && !self.has_slept.swap(true, Ordering::SeqCst)
    }

    async fn sleep(&self, commit: &Commit) {
        let _sleep = Sleep::begin(&self.sleeps);
        loop {
            let stored = self.inner.load(commit.lease.run.clone()).await;
            if stored.is_ok_and(|stored| stored.is_some_and(|stored| stored.head.epoch > commit.lease.epoch)) {
                break;
            }
            // Slow on purpose: a lease has to run out.
            tokio::time::sleep(LOOK).await;
        }
        // Slow on purpose: what is under way must have arrived.
        tokio::time::sleep(LONGER).await;
    }
}

/// Ends when it is dropped: a process that finds out by itself that it no longer counts drops what it does.
struct Sleep<'a>(&'a watch::Sender<bool>);

impl<'a> Sleep<'a> {
    fn begin(sleeps: &'a watch::Sender<bool>) -> Self {
        sleeps.send_replace(true);
        Self(sleeps)
    }
}

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

impl Layer for Zombie {
    fn below(&self) -> &dyn Store {
        &*self.inner
    }

    fn commit(&self, commit: Commit) -> Answer<'_, Committed> {
        Box::pin(async move {
            if self.is_the_one(&commit) {
                self.sleep(&commit).await;
            }
            self.inner.commit(commit).await
        })
    }

    fn beat(&self, worker: WorkerId, load: Load) -> Answer<'_, Beat> {
        Box::pin(async move {
            // The sender is a part of this.
            let _awake = self.sleeps.subscribe().wait_for(|sleeps| !*sleeps).await.is_ok();
            self.inner.beat(worker, load).await
        })
    }
}
