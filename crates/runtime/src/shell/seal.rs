//! Seals audit rows: beside the work, some time after they were committed.
//!
//! Any number of processes do this for one store: a seal counts only when nobody made another one in between, and a
//! process that sees that one was made lately leaves what there is to the next.

use std::sync::atomic::Ordering;
use std::time::Duration;

use windlass_core::run::TenantScope;
use windlass_ports::store::{Store, StoreError, Unread, Unsealed};

use super::engine::Core;
use super::shutdown::Stop;
use super::trail::Deed;
use crate::lease::Backoff;
use crate::seal::sealing;

/// Pause between two seals, in milliseconds: what was committed is sealed within a second.
const PACE_MS: u64 = 700;
/// Audit rows of decisions that are looked at for one seal.
const ROWS_MAX: usize = 20_000;
/// Parts after which others have a turn.
const PARTS_MAX: usize = 1_000;

/// Seals everything that there is.
pub(super) async fn everything(store: &dyn Store) -> Result<(), StoreError> {
    for _ in 0..PARTS_MAX {
        let unsealed = store.trail().unsealed(ROWS_MAX).await?;
        if is_nothing(&unsealed) {
            return Ok(());
        }
        let more = unsealed.more;
        if seal(store, unsealed).await? && !more {
            return Ok(());
        }
    }
    Ok(())
}

fn is_nothing(unsealed: &Unsealed) -> bool {
    unsealed.chains.is_empty() && unsealed.unread.is_empty() && !unsealed.more
}

/// Seals this. False when another sealer was faster.
async fn seal(store: &dyn Store, unsealed: Unsealed) -> Result<bool, StoreError> {
    let (lost, at) = (unsealed.lost.clone(), unsealed.now);
    for chain in &unsealed.unread {
        let Unread { tenant, run, message } = chain;
        tracing::error!(%tenant, run_id = %run, error = %message, "audit rows cannot be read, and are not sealed");
    }
    let sealed = store.trail().seal(sealing(unsealed)).await?;
    if let (true, Some(lost)) = (sealed, lost) {
        tracing::warn!(reason = %lost, "what was sealed is not known: all audit rows are sealed once more");
        let (actor, action, subject) = ("windlass".into(), "audit.reseal".into(), "store".into());
        let deed = Deed { at, actor, action, subject, detail: Some(lost.into()) };
        super::trail::note(store, &TenantScope::default().tenant, deed).await?;
    }
    Ok(sealed)
}

/// Seals what there is unless someone did lately; the rest of the pause in milliseconds when someone did.
async fn unless_sealed_lately(store: &dyn Store) -> Result<Option<u64>, StoreError> {
    let unsealed = store.trail().unsealed(ROWS_MAX).await?;
    let since = unsealed.now.since_ms(unsealed.sealed_at);
    if is_nothing(&unsealed) {
        return Ok(None);
    }
    // A time to come is none of a seal that was made: it holds up nobody.
    if since < PACE_MS / 2 && unsealed.sealed_at <= unsealed.now.plus_ms(PACE_MS) {
        return Ok(Some(PACE_MS / 2 - since));
    }
    let more = unsealed.more;
    if !seal(store, unsealed).await? {
        return Ok(Some(PACE_MS / 2));
    }
    if more {
        everything(store).await?;
    }
    Ok(None)
}

/// Seals until stopped. Nothing happens while nothing is committed here, unless it is done for all.
pub(super) async fn until(core: &Core, for_all: bool, stop: &Stop) {
    let store = &*core.parts.store;
    let mut backoff = Backoff::default();
    let idle = for_all.then_some(PACE_MS);
    let mut again = idle;
    loop {
        let wait = async {
            match again {
                Some(pause) => tokio::time::sleep(Duration::from_millis(pause)).await,
                None => {
                    core.audited.notified().await;
                    tokio::time::sleep(Duration::from_millis(PACE_MS)).await;
                }
            }
        };
        tokio::select! {
            biased;
            () = stop.immediate.cancelled() => return,
            () = stop.graceful.cancelled() => return,
            () = wait => {}
        }
        core.unsealed.store(false, Ordering::Release);
        again = match unless_sealed_lately(store).await {
            Ok(again) => {
                backoff = Backoff::default();
                again.or(idle)
            }
            Err(error) => {
                core.unsealed.store(true, Ordering::Release);
                tracing::warn!(%error, "audit rows could not be sealed");
                Some(backoff.next_ms())
            }
        };
        if again.is_some() {
            core.unsealed.store(true, Ordering::Release);
        }
    }
}

/// Seals what this process committed, if anything.
pub(super) async fn now(core: &Core) {
    if !core.unsealed.swap(false, Ordering::AcqRel) {
        return;
    }
    if let Err(error) = everything(&*core.parts.store).await {
        core.unsealed.store(true, Ordering::Release);
        tracing::warn!(%error, "audit rows could not be sealed; the next process that works seals them");
    }
}
