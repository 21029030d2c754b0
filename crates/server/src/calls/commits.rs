//! Tells whoever waits for a run that this process has committed something of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use windlass_core::ids::RunId;
use windlass_core::journal::Entry;
use windlass_core::run::Run;
use windlass_runtime::Observer;

/// The runs that somebody waits for. Observes the engine of the process.
#[derive(Debug, Default)]
pub struct Commits(Mutex<HashMap<RunId, Waited>>);

#[derive(Debug, Default)]
struct Waited {
    told: Arc<Notify>,
    /// How many wait.
    count: usize,
}

/// One who waits, until it is dropped.
#[derive(Debug)]
pub(super) struct Watched<'c> {
    commits: &'c Commits,
    run: RunId,
    told: Arc<Notify>,
}

impl Commits {
    fn waited(&self) -> MutexGuard<'_, HashMap<RunId, Waited>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, run: &RunId) {
        if let Some(waited) = self.waited().get(run) {
            waited.told.notify_waiters();
        }
    }

    pub(super) fn watch(&self, run: &RunId) -> Watched<'_> {
        let mut all = self.waited();
        let waited = all.entry(run.clone()).or_default();
        waited.count += 1;
        Watched { commits: self, run: run.clone(), told: Arc::clone(&waited.told) }
    }
}

impl Watched<'_> {
    /// Resolves with the next commit after it was enabled.
    pub(super) fn committed(&self) -> Notified<'_> {
        self.told.notified()
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        let mut all = self.commits.waited();
        if let Some(waited) = all.get_mut(&self.run) {
            waited.count -= 1;
            if waited.count == 0 {
                all.remove(&self.run);
            }
        }
    }
}

impl Observer for Commits {
    fn committed(&self, run: &Run, _: &[Entry]) {
        self.tell(run.id());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn those_who_wait_for_a_run_are_told_and_nobody_is_remembered_afterwards() {
        let commits = Commits::default();
        let (a, b) = (RunId::stored("a"), RunId::stored("b"));
        let (one, same, other) = (commits.watch(&a), commits.watch(&a), commits.watch(&b));
        let mut all = [Box::pin(one.committed()), Box::pin(same.committed()), Box::pin(other.committed())];
        for waiting in &mut all {
            waiting.as_mut().enable();
        }
        commits.tell(&a);
        let [first, second, third] = &mut all;
        first.await;
        second.await;
        assert!(!third.as_mut().enable(), "nothing was committed of the other one");
        drop(all);
        drop((one, same, other));
        assert!(commits.waited().is_empty());
    }
}
