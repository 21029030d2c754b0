//! The callers of a run of chaos: they submit runs, answer what runs wait for, and ask until they are answered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use windlass_core::effect::WaitKind;
use windlass_core::ids::{EffectId, RunId};
use windlass_core::run::Status;
use windlass_core::time::Timestamp;
use windlass_ports::store::{Head, Query, Signal, StoreError};
use windlass_runtime::{Submission, SubmitError};
use windlass_sim::history::{Op, Result as Ended};

use super::{ChaosError, Stage, Submitted};
use crate::record::now_ms;

/// Runs looked at at a time.
const PAGE: usize = 1_000;
/// Between looks at what waits.
const CARE: Duration = Duration::from_millis(200);
/// Before a store that cannot be reached is asked again.
const AGAIN: Duration = Duration::from_millis(200);
/// Of the time in which faults are made, the part in which runs are submitted.
const SHARE: f64 = 0.9;

/// Submits the runs of chaos, evenly over its time.
pub(super) async fn submit(stage: Arc<Stage>) -> Result<Submitted, ChaosError> {
    let mut submitted = Submitted::new();
    let began = Instant::now();
    let share = stage.options.duration.mul_f64(SHARE);
    for n in 0..stage.options.runs {
        let due = share.mul_f64(n as f64 / stage.options.runs as f64);
        tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
        let input = n % stage.cast.inputs.len();
        submitted.push((one(&stage, &format!("{}-{n}", stage.prefix), input).await?, input));
    }
    Ok(submitted)
}

/// Submits one run and asks until it is acknowledged.
pub(super) async fn one(stage: &Stage, id: &str, input: usize) -> Result<RunId, ChaosError> {
    loop {
        let submission = Submission {
            run_id: Some(RunId::stored(id)),
            ..Submission::new(
                stage.cast.bundle.clone(),
                Arc::clone(&stage.cast.program),
                stage.cast.inputs[input].clone(),
            )
        };
        match stage.engine.submit(submission).await {
            Ok(submitted) => return Ok(submitted.run_id),
            Err(SubmitError::Store(StoreError::Unavailable(_)) | SubmitError::Full { .. }) => {
                tokio::time::sleep(AGAIN).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The runs of chaos with one of these statuses.
async fn heads(stage: &Stage, statuses: &[Status]) -> Result<Vec<Head>, StoreError> {
    let mut query = Query { statuses: statuses.to_vec(), limit: PAGE, ..Query::default() };
    let mut found = Vec::new();
    loop {
        let page = stage.store.list(query.clone()).await?;
        found.extend(page.heads.into_iter().filter(|head| head.root.as_str().starts_with(&stage.prefix)));
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => return Ok(found),
        }
    }
}

/// How many runs have neither ended nor wait for a person; none when the store does not say.
pub(super) async fn unfinished(stage: &Stage) -> Option<usize> {
    let statuses = [Status::Queued, Status::Running, Status::Waiting, Status::Attention];
    heads(stage, &statuses).await.ok().map(|heads| moving(&heads))
}

/// Runs that neither wait for a person nor for a run that does.
fn moving(heads: &[Head]) -> usize {
    let parents: BTreeMap<&RunId, &RunId> =
        heads.iter().filter_map(|head| Some((&head.id, head.parent.as_ref()?))).collect();
    let mut resting = BTreeSet::new();
    for head in heads.iter().filter(|head| head.status == Status::Attention) {
        let mut next = Some(&head.id);
        while let Some(run) = next.filter(|run| resting.insert(*run)) {
            next = parents.get(run).copied();
        }
    }
    let moves = |head: &&Head| match head.status {
        Status::Attention => false,
        Status::Waiting => !resting.contains(&head.id),
        _ => true,
    };
    heads.iter().filter(moves).count()
}

/// Answers every signal that is waited for, for as long as it is not dropped. What it sees on the way goes into the
/// history.
pub(super) async fn care(stage: Arc<Stage>) {
    let mut answered: BTreeSet<(RunId, EffectId)> = BTreeSet::new();
    let mut seen: BTreeMap<RunId, u64> = BTreeMap::new();
    loop {
        tokio::time::sleep(CARE).await;
        let start = now_ms();
        // A store that is away is asked again in the next round.
        let Ok(waiting) = heads(&stage, &[Status::Waiting]).await else { continue };
        for head in waiting {
            let known = seen.insert(head.id.clone(), head.version);
            if known == Some(head.version) {
                continue;
            }
            let op = Op::Read { run: head.id.clone(), version: head.version };
            stage.to.note(op, None, start, Ended::Ok);
            if answer(&stage, &head.id, &mut answered).await.is_err() {
                seen.remove(&head.id);
            }
        }
    }
}

async fn answer(stage: &Stage, run: &RunId, answered: &mut BTreeSet<(RunId, EffectId)>) -> Result<(), StoreError> {
    for (run, wait) in stage.store.waits(run.clone(), false).await? {
        let data = stage.cast.signals.get(&*wait.channel);
        let is_left = wait.kind != WaitKind::Signal || (wait.due.is_some() && data.is_none());
        if is_left || answered.contains(&(run.clone(), wait.effect)) {
            continue;
        }
        let data = data.cloned().unwrap_or_default();
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let signal = Signal {
            id: format!("answer/{}", wait.effect.key(&run)).into(),
            channel: wait.channel,
            run: Some(run.clone()),
            data,
            at: Timestamp(super::millis(since)),
        };
        stage.store.signal(signal).await?;
        answered.insert((run, wait.effect));
    }
    Ok(())
}
