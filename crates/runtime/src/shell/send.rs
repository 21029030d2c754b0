//! Sends one commit, and finds out what became of it when no answer came.

use std::future::Future;
use std::sync::atomic::Ordering;
use std::time::Duration;

use windlass_ports::store::{Commit, Committed, StoreError};

use super::engine::Core;
use crate::lease::{Backoff, Next, Settling, Standing};

/// Sends a commit until it is known whether it is durable.
///
/// # Errors
/// What the store says other than that it is unavailable. Nothing was written then.
pub(super) async fn send(core: &Core, commit: &Commit) -> Result<Standing, StoreError> {
    let store = &core.parts.store;
    let mut settling = Settling::new(commit.keep);
    let mut stale = false;
    let mut next = Next::Send;
    loop {
        next = match next {
            Next::Done(standing) => return Ok(standing),
            Next::Send => match store.commit(commit.clone()).await {
                Ok(answer) => {
                    core.unanswered.store(0, Ordering::Relaxed);
                    stale = answer == Committed::Stale;
                    settling.answered(answer)
                }
                Err(StoreError::Unavailable(why)) => {
                    tracing::warn!(run_id = %commit.lease.run, why, "a commit was not answered");
                    core.unanswered.store(core.parts.clock.now().0, Ordering::Relaxed);
                    stale = false;
                    settling.unanswered()
                }
                Err(error) => return Err(error),
            },
            Next::Ask { after_ms } => {
                tokio::time::sleep(Duration::from_millis(after_ms)).await;
                match store.was_committed(commit.lease.run.clone(), commit.op).await {
                    Ok(durable) => {
                        if durable {
                            core.unanswered.store(0, Ordering::Relaxed);
                        }
                        settling.told(durable, stale)
                    }
                    Err(StoreError::Unavailable(_)) => settling.unanswered(),
                    Err(error) => return Err(error),
                }
            }
        };
    }
}

/// Asks the store, again and again while it is unavailable, for as long as the settings say.
///
/// # Errors
/// What the store says last.
pub(super) async fn patiently<T, F>(core: &Core, mut ask: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut backoff = Backoff::default();
    let mut waited_ms = 0;
    loop {
        match ask().await {
            Err(StoreError::Unavailable(_)) if waited_ms < core.parts.settings.store_patience_ms => {
                let pause = backoff.next_ms();
                waited_ms += pause;
                // Processes that lost the same store at the same moment do not come back to it together.
                let earlier = core.parts.clock.seed() % (pause / 4).max(1);
                tokio::time::sleep(Duration::from_millis(pause - earlier)).await;
            }
            answer => return answer,
        }
    }
}
