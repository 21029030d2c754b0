//! Keeps a fault of one run from reaching others: catches panics, and puts the run on hold until a person decides.

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;

use futures::future::FutureExt;
use tokio::sync::OwnedSemaphorePermit;
use windlass_core::Rejected;
use windlass_core::failure::Code;
use windlass_core::ids::{Digest, EffectId};
use windlass_core::input::{Input, Sent};
use windlass_ports::store::{Keep, StoreError};

use super::{Claimed, Fault, Parting, Ready, Work, release};
use crate::recover;
use crate::shell::engine::EngineError;
use crate::shell::execute::panic_text;
use crate::shell::observe::Tally;
use crate::shell::send::patiently;

/// Drives a claimed run. Whatever goes wrong stays with it.
pub(super) async fn guarded(
    claimed: &Claimed,
    permit: Option<OwnedSemaphorePermit>,
    ready: &mut VecDeque<Ready>,
    rejected: &mut Option<Rejected>,
) -> Parting {
    let mut work: Option<Work<'_>> = None;
    let driving = async {
        let work = work.insert(Work::load(claimed, permit, ready).await?);
        work.open().await?;
        work.go().await
    };
    let fault = match AssertUnwindSafe(driving).catch_unwind().await {
        Ok(Ok(parting)) => {
            if let Some(mut work) = work {
                *rejected = work.rejected.take();
                if let Some(warm) = work.into_warm() {
                    claimed.core.keep_warm(warm);
                }
            }
            return parting;
        }
        Ok(Err(fault)) => fault,
        Err(panic) => Fault::Invariant(panic_text(&*panic)),
    };
    let run = &claimed.lease.run;
    if !(claimed.serving && matches!(fault, Fault::Program(_) | Fault::Unfit(_))) {
        tracing::error!(run_id = %run, %fault, "a run cannot be driven on");
    }
    // An inbox row that cannot be decided on must not come again.
    let poison = work.as_ref().and_then(|work| work.deciding);
    let cut = work.map(|mut work| work.calls.cut()).unwrap_or_default();
    let message = match fault {
        Fault::Store(StoreError::Invalid(message)) | Fault::Invariant(message) => message,
        Fault::Store(error) => return Parting::Stranded(EngineError::Store(error)),
        Fault::Fold(source) => return Parting::Stranded(EngineError::Fold { run: run.clone(), source }),
        Fault::Unfit(lacks) => return leave(claimed, &format!("this process has no {lacks}")).await,
        Fault::Program(message) if claimed.serving => return leave(claimed, &message).await,
        // Without its program nothing can be decided for the run. Another build can take it over.
        Fault::Program(message) => {
            return Parting::Stranded(EngineError::Stranded { run: run.clone(), message });
        }
    };
    let holding = hold(claimed, cut.into_iter().collect(), poison, &message);
    match AssertUnwindSafe(holding).catch_unwind().await {
        Ok(Ok(parting)) => parting,
        Ok(Err(_)) | Err(_) => {
            tracing::error!(run_id = %run, "the run could not be put on hold and keeps its lease");
            Parting::Stranded(EngineError::Stranded { run: run.clone(), message })
        }
    }
}

/// Leaves a run for a worker that can drive it.
async fn leave(claimed: &Claimed, why: &str) -> Parting {
    let Claimed { core, lease, .. } = claimed;
    let bundle = match patiently(core, || core.parts.store.load(lease.run.clone())).await {
        Ok(stored) => stored.map_or(Digest::ZERO, |stored| stored.head.bundle),
        Err(error) => return Parting::Stranded(EngineError::Store(error)),
    };
    let clock = &core.parts.clock;
    let (wake_at, first) = core.unfit.leave(&lease.run, bundle, clock.now(), clock.seed());
    if first {
        tracing::warn!(run_id = %lease.run, bundle = %bundle.short(), why, "runs of this bundle are left for other workers");
    } else {
        tracing::debug!(run_id = %lease.run, why, "a run is left for other workers");
    }
    core.count(Tally::Unfit, 1);
    let wake_at = Some(wake_at);
    match release(claimed, Keep::Park { wake_at }).await {
        Ok(()) => Parting::Unfit(wake_at),
        Err(Fault::Store(error)) => Parting::Stranded(EngineError::Store(error)),
        Err(fault) => Parting::Stranded(EngineError::Stranded { run: lease.run.clone(), message: fault.to_string() }),
    }
}

/// Starts again from what is stored, accounts for the calls that were out, and puts the run on hold.
async fn hold(
    claimed: &Claimed,
    cut: BTreeMap<EffectId, Sent>,
    poison: Option<u64>,
    message: &str,
) -> Result<Parting, Fault> {
    let mut ready = VecDeque::new();
    let mut work = Work::load(claimed, None, &mut ready).await?;
    work.leaving = true;
    work.rescuing = true;
    let lost: Vec<Input> = recover::unsent(&work.run)
        .map(|effect| Input::Lost { effect, sent: cut.get(&effect).copied().unwrap_or(Sent::Maybe) })
        .collect();
    work.recovering.extend(lost);
    while let Some(ready) = work.next() {
        if let Some(parting) = work.step(ready).await? {
            return Ok(parting);
        }
    }
    // A person looks at it before anyone drives it again.
    work.strikes = 0;
    let reason = format!("{}: {message}", Code::InternalInvariant).into();
    let decision = recover::hold(&mut work.run, claimed.core.parts.clock.now(), reason);
    let keep = Keep::Park { wake_at: None };
    let parted = work.commit_as(decision, poison.into_iter().collect(), keep, true, None).await?;
    match parted {
        Some(parting) => Ok(parting),
        // The inbox has something: the run is on hold, and whoever claims it next hears it.
        None => {
            release(claimed, Keep::HandBack).await?;
            Ok(Parting::HandedBack)
        }
    }
}
