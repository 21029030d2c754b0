//! Takes back what workers held that are gone.

use std::sync::Arc;
use std::time::Duration;

use windlass_ports::store::{Reaped, StoreError};

use super::engine::Core;
use super::observe::Tally;
use super::shutdown::Stop;
use crate::lease::Backoff;

/// Pause between two rounds where settings say no other, in milliseconds: rare enough to cost nothing, often enough that
/// what a dead process held goes on at once where a store knows at once.
pub(super) const PACE_MS: u64 = 1_000;

/// Pause while no other worker lives, in milliseconds: a process that has only parked runs sleeps.
const ALONE_MS: u64 = 30_000;

/// The pause of a worker that is alone.
pub(super) fn alone_ms(core: &Core) -> u64 {
    ALONE_MS.max(pause_ms(core))
}

/// The pause before the next round, up to half of it longer, so that the rounds of a fleet that was started at once do
/// not fall together.
pub(super) fn pause_ms(core: &Core) -> u64 {
    let pace = core.parts.settings.reap_ms;
    pace + core.parts.clock.seed() % (pace / 2).max(1)
}

/// What one round found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    /// Runs that are in the queue again.
    pub(super) runs: u64,
    /// No other worker lives; one that joins is heard of.
    pub(super) alone: bool,
}

/// One round.
pub(super) async fn round(core: &Arc<Core>) -> Result<Round, StoreError> {
    let Reaped { workers, runs, quarantined, alone } = core.parts.store.reap().await?;
    for worker in &workers {
        tracing::warn!(%worker, "a worker is gone; what it held is taken back");
    }
    for run in &quarantined {
        tracing::error!(run_id = %run, "a run is quarantined: its worker was lost again and again while it held it");
    }
    if let Err(error) = super::budgets::returns(core).await {
        tracing::warn!(%error, "what runs hold of budgets could not be looked through");
    }
    core.count(Tally::Reaped, runs);
    core.count(Tally::Quarantined, quarantined.len() as u64);
    Ok(Round { runs, alone })
}

/// Rounds until stopped. A store that does not answer is asked again.
pub(super) async fn until(core: &Arc<Core>, stop: &Stop) {
    let mut backoff = Backoff::default();
    loop {
        let pause = match round(core).await {
            Ok(found) => {
                backoff = Backoff::default();
                if found.runs > 0 {
                    core.wake(true);
                }
                pause_ms(core)
            }
            Err(error) => {
                tracing::warn!(%error, "runs of lost workers could not be looked for");
                backoff.next_ms()
            }
        };
        tokio::select! {
            biased;
            () = tokio::time::sleep(Duration::from_millis(pause)) => {}
            () = stop.graceful.cancelled() => return,
            () = stop.immediate.cancelled() => return,
        }
    }
}
