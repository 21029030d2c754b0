//! Budgets of ramps as all processes of a store keep them: an object for each tool, which every attempt takes from before it
//! leaves.
//!
//! What is known here when a run is decided on says whether the run reads a stub. Whether a call leaves is decided by what
//! is stored.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use windlass_core::contract::RampBudget;
use windlass_core::failure::{Code, Failure};
use windlass_core::ids::Name;
use windlass_core::run::TenantScope;
use windlass_ports::store::{Deed, Store, StoreError};

use super::engine::Core;
use super::objects::{self, TRIES_MAX};
use super::observe::Tally;
use super::send::patiently;
use crate::lease::Backoff;
use crate::ramp::{Ramp, Resumed, Stopped};

/// The kind of the objects.
const RAMP: &str = "ramp";
/// How old what is known may be when a run is decided on.
const FRESH: Duration = Duration::from_secs(1);
/// How long the process that stopped a ramp has to write that down, before others do, in milliseconds.
const TELL_MS: u64 = 10_000;

/// Which ramps have stopped, as this process knows it. Held while it is read: the others wait for that.
#[derive(Debug, Default)]
pub(super) struct Ramps(Mutex<(Option<Instant>, Arc<BTreeSet<Name>>)>);

/// Every ramp with a budget of which a call was made, by tool.
///
/// # Errors
/// The store fails.
pub async fn ramps(store: &dyn Store) -> Result<BTreeMap<Name, Ramp>, StoreError> {
    let objects = objects::every(store, RAMP).await?;
    objects.into_iter().map(|object| Ok((object.key.clone(), decode(&object.key, &object.bytes)?))).collect()
}

/// Lets the calls of a tool be made again whose ramp has stopped. Gives back why it had; none when it has not.
///
/// # Errors
/// The store fails, or others change it all the time.
pub async fn resume_ramp(store: &dyn Store, tool: &Name, resumed: &Resumed) -> Result<Option<Stopped>, StoreError> {
    change(store, tool, |ramp| {
        let stopped = ramp.stopped.clone()?;
        ramp.resume(resumed.clone());
        Some(stopped)
    })
    .await
}

/// The tools whose ramp has stopped, as it was not long ago.
///
/// # Errors
/// The store fails.
pub(super) async fn stopped(core: &Core) -> Result<Arc<BTreeSet<Name>>, StoreError> {
    let mut known = core.ramps.0.lock().await;
    if known.0.is_some_and(|at| at.elapsed() < FRESH) {
        return Ok(Arc::clone(&known.1));
    }
    let objects = patiently(core, || objects::every(&*core.parts.store, RAMP)).await?;
    let (mut all, now) = (BTreeSet::new(), core.parts.clock.now());
    for object in objects {
        let tool = object.key;
        let stopped = match decode(&tool, &object.bytes) {
            Ok(ramp) => ramp.stopped,
            Err(error) => {
                tracing::error!(%tool, %error, "a ramp cannot be read: its tool is not called");
                all.insert(tool);
                continue;
            }
        };
        let Some(stopped) = stopped else { continue };
        if !stopped.told && now.since_ms(stopped.at) > TELL_MS {
            tell(core, &tool, &stopped).await;
        }
        all.insert(tool);
    }
    *known = (Some(Instant::now()), Arc::new(all));
    Ok(Arc::clone(&known.1))
}

/// Takes an attempt from the budget of its tool's ramp.
///
/// # Errors
/// The ramp has stopped or cannot be read: it must not leave.
pub(super) async fn enter(core: &Core, tool: &Name, budget: &RampBudget) -> Result<(), Failure> {
    let mut backoff = Backoff::default();
    loop {
        let now = core.parts.clock.now();
        match used(core, tool, |ramp| ramp.take(budget, now)).await {
            Ok((true, _)) => return Ok(()),
            Ok((false, stopped)) => {
                let why = stopped.map(|stopped| stopped.why).unwrap_or_default();
                let message = format!(
                    "the ramp of `{tool}` has stopped: {why}; `windlass tools resume {tool}` lets its calls be made again"
                );
                return Err(Failure::new(Code::BudgetExceeded, message));
            }
            Err(error) if !matches!(error, StoreError::Unavailable(_)) => {
                return Err(Failure::new(
                    Code::BudgetExceeded,
                    format!("the ramp of `{tool}` cannot be read: {error}"),
                ));
            }
            Err(error) => {
                tracing::warn!(%tool, %error, "a call waits, since the budget of its ramp cannot be looked at");
                tokio::time::sleep(Duration::from_millis(backoff.next_ms())).await;
            }
        }
    }
}

/// Notes how an attempt ended that had left. Its result does not wait for a store that fails.
pub(super) async fn ended(core: &Core, tool: &Name, budget: &RampBudget, failed: bool) {
    if budget.failed_calls.is_none() {
        return;
    }
    let now = core.parts.clock.now();
    if let Err(error) = used(core, tool, |ramp| ramp.end(budget, failed, now)).await {
        tracing::warn!(%tool, failed, %error, "how a call ended is not counted for the budget of its ramp");
    }
}

/// Gives an attempt back that did not leave.
pub(super) async fn left_out(core: &Core, tool: &Name) {
    if let Err(error) = used(core, tool, Ramp::give_back).await {
        tracing::warn!(%tool, %error, "a call that did not leave stays used up of the budget of its ramp");
    }
}

/// Changes what was used of a budget, and has told when that stopped the ramp. Also gives back why it has stopped.
async fn used<T>(core: &Core, tool: &Name, with: impl Fn(&mut Ramp) -> T) -> Result<(T, Option<Stopped>), StoreError> {
    let (given, before, after) = change(&*core.parts.store, tool, |ramp| {
        let before = ramp.stopped.is_some();
        (with(ramp), before, ramp.stopped.clone())
    })
    .await?;
    if let Some(stopped) = &after {
        // What was read before is out of date.
        core.ramps.0.lock().await.0 = None;
        if !before {
            tell(core, tool, stopped).await;
        }
    }
    Ok((given, after))
}

/// Writes down that a ramp has stopped.
async fn tell(core: &Core, tool: &Name, stopped: &Stopped) {
    core.count(Tally::RampStopped, 1);
    tracing::error!(%tool, why = %stopped.why, "a ramp has stopped: runs read stubs in place of its tool");
    let store = &*core.parts.store;
    let (actor, action) = ("windlass".into(), "tools.ramp_stop".into());
    let deed = Deed { at: stopped.at, actor, action, subject: tool.clone(), detail: Some(stopped.why.clone()) };
    let told = async {
        super::trail::note(store, &TenantScope::default().tenant, deed).await?;
        change(store, tool, |ramp| {
            // One that was resumed meanwhile has no more to tell.
            ramp.stopped.iter_mut().filter(|now| now.at == stopped.at).for_each(|now| now.told = true);
        })
        .await
    };
    if let Err(error) = told.await {
        tracing::error!(%tool, %error, "that a ramp has stopped could not be written down yet");
    }
}

/// Changes the ramp of a tool, by whoever read it last.
async fn change<T>(store: &dyn Store, tool: &Name, with: impl Fn(&mut Ramp) -> T) -> Result<T, StoreError> {
    for attempt in 0..TRIES_MAX {
        if attempt > 0 {
            // Who comes again later lets the others through first.
            tokio::time::sleep(Duration::from_millis(attempt as u64)).await;
        }
        let found = store.object(RAMP.into(), tool.clone()).await?;
        let (expected, before) = match &found {
            Some(object) => (object.revision, decode(tool, &object.bytes)?),
            None => (0, Ramp::default()),
        };
        let mut ramp = before.clone();
        let given = with(&mut ramp);
        if ramp == before {
            return Ok(given);
        }
        let bytes = serde_json::to_vec(&ramp).map_err(|error| StoreError::Invalid(error.to_string()))?;
        if objects::put(store, RAMP, tool, expected, Some(bytes)).await? {
            return Ok(given);
        }
    }
    Err(StoreError::Unavailable(format!("the ramp of `{tool}` is changed by others all the time")))
}

fn decode(tool: &str, bytes: &[u8]) -> Result<Ramp, StoreError> {
    objects::decode("ramp", tool, bytes)
}
