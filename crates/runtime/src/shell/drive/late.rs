//! Results that came and that no run waits for, as acts of the audit trail: none of them changes a run.
//!
//! What is given up is dropped, so that a result is late here only where it came while the decision that gave its call up was
//! made durable, or the run is another worker's by now. What comes of a call later than that, who made it hears, or nobody.

use std::collections::VecDeque;
use std::time::Duration;

use windlass_core::effect::{Outcome, Spent};
use windlass_core::ids::{EffectId, Name, RunId};
use windlass_core::input::Input;
use windlass_core::journal::Entry;
use windlass_core::run::Run;
use windlass_ports::store::Deed;

use super::Ready;
use crate::shell::engine::Core;
use crate::shell::send::patiently;

/// How long acts about late results may take together: the end of a run's task waits for them.
const PATIENCE: Duration = Duration::from_secs(10);

/// What an act says of a result: the call, and what it gave by its hash.
fn detail(run: &RunId, effect: EffectId, attempt: u32, outcome: &Outcome) -> Name {
    let what = match (outcome, outcome.answer()) {
        (Outcome::Failed(failure), _) => format!("error {}", failure.code),
        (_, answer) => {
            let answer = answer.unwrap_or_default();
            format!("result {}, {} bytes", answer.digest(), answer.size_bytes())
        }
    };
    format!("{} attempt {attempt}: {what}, after it was given up", effect.key(run)).into()
}

/// What acts say of the results among what came and was not decided on.
pub(super) fn left(run: &RunId, ready: &VecDeque<Ready>) -> Vec<Name> {
    ready.iter().filter_map(|ready| told(run, &ready.input)).collect()
}

/// What an act says of an input that is a result. None of what did not leave.
fn told(run: &RunId, input: &Input) -> Option<Name> {
    match input {
        Input::Settled { spent: Spent::Unsent, .. } => None,
        Input::Settled { effect, attempt, outcome, .. } => Some(detail(run, *effect, *attempt, outcome)),
        _ => None,
    }
}

/// The same where the run does not wait for it.
pub(super) fn unawaited(run: &Run, input: &Input) -> Option<Name> {
    let Input::Settled { effect, attempt, .. } = input else { return None };
    let is_awaited = run.calls.get(effect).is_some_and(|open| open.attempt == *attempt && open.is_out());
    if is_awaited { None } else { told(run.id(), input) }
}

/// What an act says of the result of a call that entries record which are not durable.
pub(super) fn undone(run: &RunId, call: EffectId, entries: &[Entry]) -> Option<Name> {
    entries.iter().find_map(|entry| match entry {
        Entry::CallSettled { effect, attempt, outcome, .. } if *effect == call => {
            Some(detail(run, call, *attempt, outcome))
        }
        Entry::AttemptFailed { effect, attempt, failure, .. } if *effect == call => {
            Some(detail(run, call, *attempt, &Outcome::Failed(failure.clone())))
        }
        _ => None,
    })
}

/// Adds late results of a run to the trail of its tenant. A store that stays away keeps nobody waiting for it.
pub(super) async fn record(core: &Core, run: &RunId, late: impl IntoIterator<Item = Name>) {
    if tokio::time::timeout(PATIENCE, note_all(core, run, late)).await.is_err() {
        tracing::error!(run_id = %run, "results that came late could not be written to the audit trail: the store is away");
    }
}

async fn note_all(core: &Core, run: &RunId, late: impl IntoIterator<Item = Name>) {
    let store = &core.parts.store;
    for detail in late {
        tracing::warn!(run_id = %run, detail = &*detail, "a result came that nobody waits for; it changes nothing");
        let noted = patiently(core, || async {
            let head = store.load(run.clone()).await?.map(|stored| stored.head);
            let tenant = head.map_or_else(|| "default".into(), |head| head.tenant);
            let (actor, action, subject) = ("windlass".into(), "call.late".into(), run.as_str().into());
            let deed = Deed { at: core.parts.clock.now(), actor, action, subject, detail: Some(detail.clone()) };
            store.trail().note(&tenant, deed).await
        });
        if let Err(error) = noted.await {
            tracing::error!(run_id = %run, %error, "that a result came late could not be written to the audit trail");
            return;
        }
    }
}
