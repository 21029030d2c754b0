//! The trial of a candidate rule set in a process: what was counted is stored, and that it was withdrawn by itself is written
//! down and told.

use std::sync::Arc;
use std::time::Duration;

use windlass_core::ids::{Digest, Name};
use windlass_core::run::TenantScope;
use windlass_core::time::Timestamp;
use windlass_policy::LivePolicy;
use windlass_policy::trial::{self, LastRun, Withdrawn};
use windlass_ports::notify::{Notice, NoticeKind};
use windlass_ports::store::{Store, StoreError};
use windlass_runtime::trail::{self, Deed};

use super::now;

/// Pause between two looks at a trial.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the process that withdrew a candidate has to tell so, before others do, in milliseconds.
const TELL_MS: u64 = 10_000;

/// Reads how the candidate does before anything is decided by it, and exchanges what was counted with the store each second
/// for as long as somebody else holds it.
///
/// # Errors
/// The store fails.
pub async fn follow_trial(
    rules: &Arc<LivePolicy>,
    store: &Arc<dyn Store>,
    actor: Name,
) -> Result<impl Future<Output = ()> + Send + 'static, StoreError> {
    settle_trial(rules, &**store, &actor).await?;
    let (rules, store) = (Arc::downgrade(rules), Arc::downgrade(store));
    Ok(async move {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let (Some(rules), Some(store)) = (rules.upgrade(), store.upgrade()) else { return };
            if !rules.is_trying() {
                return;
            }
            if let Err(error) = settle_trial(&rules, &*store, &actor).await {
                tracing::warn!(%error, "the trial of a candidate rule set cannot be exchanged with the store");
            }
        }
    })
}

/// Exchanges what was counted of the trial of the candidate with the store, once.
///
/// # Errors
/// The store fails.
pub async fn settle_trial(rules: &LivePolicy, store: &dyn Store, actor: &Name) -> Result<(), StoreError> {
    let at = now();
    let Some((candidate, trial)) = rules.sync_trial(store, actor, at).await? else { return Ok(()) };
    let Some(withdrawn) = trial.withdrawn.filter(|withdrawn| !withdrawn.told) else { return Ok(()) };
    let is_own = withdrawn.at == at && withdrawn.by == *actor;
    if is_own || at.since_ms(withdrawn.at) > TELL_MS {
        tell(store, &candidate, &withdrawn).await?;
    }
    Ok(())
}

/// Writes down that a candidate was withdrawn, and has people told.
async fn tell(store: &dyn Store, candidate: &Name, withdrawn: &Withdrawn) -> Result<(), StoreError> {
    let deed = Deed {
        at: withdrawn.at,
        actor: withdrawn.by.clone(),
        action: "policy.candidate_withdraw".into(),
        subject: candidate.clone(),
        detail: Some(format!("by itself: {}", withdrawn.reason).into()),
    };
    trail::note(store, &TenantScope::default().tenant, deed).await?;
    if let Some(run) = &withdrawn.run {
        windlass_runtime::alarm(store, &notice(candidate, withdrawn, run)).await?;
    }
    trial::told(store, candidate).await?;
    Ok(())
}

fn notice(candidate: &Name, withdrawn: &Withdrawn, run: &LastRun) -> Notice {
    let Timestamp(at_ms) = withdrawn.at;
    let cause = format!("windlass.notice.v2\npolicy\n{candidate}\n{at_ms}");
    Notice {
        id: Digest::of(cause.as_bytes()).to_string()[..32].into(),
        kind: NoticeKind::Policy,
        at_ms,
        tenant: run.tenant.clone(),
        machine: run.machine.clone(),
        run_id: run.id.clone(),
        root_run_id: run.root.clone(),
        state: run.state.clone(),
        text: format!("the candidate rule set {candidate} was withdrawn: {}", withdrawn.reason),
        question: None,
        code: None,
    }
}
