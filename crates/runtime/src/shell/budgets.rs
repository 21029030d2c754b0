//! Budgets as this process knows them: read now and then, drawn on for its runs, and what was drawn by runs that rest or
//! have ended returned.
//!
//! What is known here decides when a run draws. Whether it gets anything is decided by what is stored.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use windlass_core::escrow::books::Allotted;
use windlass_core::escrow::{Budgets, Draw, Drawn, Line, Refusal, channel, rests};
use windlass_core::ids::{EffectId, RunId};
use windlass_core::run::Status;
use windlass_core::value::Value;
use windlass_ports::store::escrow;
use windlass_ports::store::{Signal, Store, StoreError, Stored};

use super::drive;
use super::engine::{Core, EngineError};
use super::send::patiently;
use crate::lease::Backoff;

/// How old what is known may be when a run is decided on.
const FRESH: Duration = Duration::from_secs(2);
/// Pause between two looks for what nobody returned.
const RETURNS: Duration = Duration::from_secs(30);

/// What is known.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    known: Mutex<(Option<Instant>, Arc<Budgets>)>,
    /// Whoever reads; the others wait for it.
    reading: tokio::sync::Mutex<()>,
    /// Numbers that allotments had at the last look.
    seen: Mutex<(Option<Instant>, BTreeMap<RunId, u64>)>,
}

impl Shelf {
    fn known(&self) -> (Option<Instant>, Arc<Budgets>) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn fresh(&self) -> Option<Arc<Budgets>> {
        let (read_at, budgets) = self.known();
        read_at.is_some_and(|at| at.elapsed() < FRESH).then_some(budgets)
    }
}

/// The budgets there are, as they were not long ago.
///
/// # Errors
/// They have never been read, and the store does not tell.
pub(super) async fn known(core: &Core) -> Result<Arc<Budgets>, StoreError> {
    if let Some(budgets) = core.shelf.fresh() {
        return Ok(budgets);
    }
    let _reading = core.shelf.reading.lock().await;
    if let Some(budgets) = core.shelf.fresh() {
        return Ok(budgets);
    }
    let rows = patiently(core, || escrow::budgets(&*core.parts.store, core.parts.clock.now())).await?;
    let budgets: Budgets = rows.into_iter().map(|row| (row.scope, row.known)).collect();
    let budgets = Arc::new(budgets);
    *core.shelf.known.lock().unwrap_or_else(PoisonError::into_inner) = (Some(Instant::now()), Arc::clone(&budgets));
    Ok(budgets)
}

/// Draws until there is an answer: the same name gets the same one.
pub(super) async fn draw(core: Arc<Core>, draw: Draw) -> Drawn {
    let mut backoff = Backoff::default();
    loop {
        match core.parts.store.draw(draw.clone()).await {
            Ok(answer) => return answer,
            Err(error) => {
                tracing::warn!(run_id = %draw.run, number = draw.number, %error, "a draw on budgets was not answered");
                tokio::time::sleep(Duration::from_millis(backoff.next_ms())).await;
            }
        }
    }
}

/// Returns what a run holds for nothing. When that fails, the next round that looks for such does it.
pub(super) async fn give_back(store: &dyn Store, draw: Draw) {
    let (run, number) = (draw.run.clone(), draw.number);
    if let Err(error) = store.draw(draw).await {
        tracing::warn!(run_id = %run, number, %error, "what a run drew from budgets could not be returned yet");
    }
}

/// Tells a run that has just begun to wait for a budget when that has enough by now.
pub(super) async fn look_again(core: &Core, run: &RunId, wait: EffectId, refusal: &Refusal) {
    let (store, now) = (&*core.parts.store, core.parts.clock.now());
    let told = async {
        let row = escrow::budget(store, &refusal.scope, now).await?;
        let has_enough = row.is_none_or(|row| {
            let cap = row.known.budget.caps.get(&refusal.meter);
            cap.is_none_or(|cap| row.account.left(refusal.meter, *cap) >= refusal.wanted)
        });
        if has_enough {
            let id = format!("budget:again:{}", wait.key(run)).into();
            let (channel, data) = (channel(&refusal.scope), Value::Null);
            store.signal(Signal { id, channel, run: Some(run.clone()), data, at: now }).await?;
        }
        Ok::<(), StoreError>(())
    };
    if let Err(error) = told.await {
        tracing::warn!(run_id = %run, %error, "whether a budget has enough by now could not be looked up");
    }
}

/// Returns what runs hold that have ended, or rest, and whose process died before it did so. Looks now and then, and only
/// at what has not moved since the last look.
pub(super) async fn returns(core: &Core) -> Result<(), EngineError> {
    let before = {
        let mut seen = core.shelf.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.0.is_some_and(|at| at.elapsed() < RETURNS) {
            return Ok(());
        }
        seen.0 = Some(Instant::now());
        std::mem::take(&mut seen.1)
    };
    let held = escrow::allotments(&*core.parts.store).await?;
    for (run, allotted) in held.iter().filter(|(run, allotted)| before.get(run) == Some(&allotted.number)) {
        if let Some(draw) = unreturned(core, run, allotted).await? {
            tracing::info!(run_id = %run, number = draw.number, "what a run drew from budgets is returned for it");
            give_back(&*core.parts.store, draw).await;
        }
    }
    let numbers = held.into_iter().map(|(run, allotted)| (run, allotted.number)).collect();
    core.shelf.seen.lock().unwrap_or_else(PoisonError::into_inner).1 = numbers;
    Ok(())
}

/// The return that a run owes.
async fn unreturned(core: &Core, run: &RunId, allotted: &Allotted) -> Result<Option<Draw>, EngineError> {
    let now = core.parts.clock.now();
    let Some(stored) = core.parts.store.load(run.clone()).await? else {
        // It was pruned, and nobody can say what it used.
        return Ok(Some(allotted.forfeit(run, now)));
    };
    let Stored { head, .. } = &stored;
    let is_over = head.status.is_final();
    let is_parked = matches!(head.status, Status::Waiting | Status::Paused | Status::Attention | Status::Quarantined);
    if head.owner.is_some() || !(is_over || is_parked) {
        return Ok(None);
    }
    let folded = drive::look(core, stored).await?;
    let mut draw = folded.escrow.draw(run, now);
    if is_over && draw.number <= allotted.number {
        draw.number = allotted.number + 1;
    }
    // What was granted to a draw that the run never heard of.
    let is_named = |line: &Line| draw.lines.iter().any(|known| known.scope == line.scope);
    let unheard: Vec<Line> = allotted.unspent().into_iter().filter(|line| !is_named(line)).collect();
    draw.lines.extend(unheard);
    draw.lines.sort_by(|a, b| a.scope.cmp(&b.scope));
    let owes = draw.number > allotted.number && !draw.wants() && (is_over || rests(&folded));
    Ok(owes.then_some(draw))
}
