//! How the machine goes when nothing disturbs it: what its runs end with and what they do to the world.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use windlass_core::ids::RunId;
use windlass_core::input::Ending;
use windlass_core::journal::Entry;
use windlass_core::run::Status;
use windlass_sim::history::RunEnd;

use super::{ChaosError, Stage, load, spawned};
use crate::effects::{Deed, Kind};

/// Undisturbed runs of each input: what differs between them is no fault's doing.
const TIMES: usize = 2;
/// How long they may take together.
const PATIENCE: Duration = Duration::from_secs(60);

/// What an undisturbed run of one input does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Calm {
    /// What it ends with; none when that differs from run to run.
    pub(crate) ending: Option<Ending>,
    /// How many effects its tree has on each tool, action and hook; none when that differs from run to run.
    pub(crate) effects: Option<BTreeMap<String, usize>>,
}

/// What one undisturbed run ended with, and how many effects its tree had.
type Seen = (Option<Ending>, BTreeMap<String, usize>);

/// Runs every input undisturbed.
pub(super) async fn observe(stage: &Arc<Stage>) -> Result<Vec<Calm>, ChaosError> {
    let _care = spawned(load::care(Arc::clone(stage)));
    let mut runs = Vec::new();
    for input in 0..stage.cast.inputs.len() {
        for time in 0..TIMES {
            let id = format!("{}-calm-{input}-{time}", stage.prefix);
            runs.push((input, load::one(stage, &id, input).await?));
        }
    }
    for (_, run) in &runs {
        ended(stage, run).await?;
    }
    let mut seen: Vec<Vec<Seen>> = vec![Vec::new(); stage.cast.inputs.len()];
    let deeds = stage.fleet.effects().log();
    let ends = windlass_sim::history::collect(&*stage.store).await?;
    for (input, run) in &runs {
        let end = ends.iter().find(|end| end.start.id == *run);
        seen[*input].push((end.and_then(ending), effects(&deeds, run)));
    }
    Ok(seen.iter().map(|runs| calm(runs)).collect())
}

fn calm(runs: &[Seen]) -> Calm {
    let Some((ending, effects)) = runs.first() else { return Calm { ending: None, effects: None } };
    let is_same = |of: &dyn Fn(&Seen) -> bool| runs.iter().all(of);
    Calm {
        ending: ending.clone().filter(|_| is_same(&|run| run.0 == *ending)),
        effects: Some(effects.clone()).filter(|_| is_same(&|run| run.1 == *effects)),
    }
}

async fn ended(stage: &Stage, run: &RunId) -> Result<(), ChaosError> {
    let began = Instant::now();
    loop {
        let stored = stage.store.load(run.clone()).await?;
        let status = stored.map(|stored| stored.head.status);
        if status.is_some_and(Status::is_final) {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            let status = status.map_or("gone", Status::as_str).to_owned();
            return Err(ChaosError::Endless { run: run.to_string(), status, seconds: PATIENCE.as_secs() });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What a run ended with.
pub(crate) fn ending(end: &RunEnd) -> Option<Ending> {
    end.rows.iter().rev().flat_map(|row| row.record.entries.iter().rev()).find_map(|entry| match entry {
        Entry::EndingDecided { ending, .. } => Some(ending.clone()),
        _ => None,
    })
}

/// How many effects a tree of runs had on each tool, action and hook.
pub(crate) fn effects(deeds: &[Deed], root: &RunId) -> BTreeMap<String, usize> {
    let mut keys: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for deed in deeds.iter().filter(|deed| matches!(deed.kind, Kind::Tool | Kind::Hook) && deed.fate.happened()) {
        if root_of(&deed.key) == root.as_str() {
            keys.entry(deed.what.clone()).or_default().insert(&deed.key);
        }
    }
    keys.into_iter().map(|(what, keys)| (what, keys.len())).collect()
}

/// The caller's run of an idempotency key.
pub(crate) fn root_of(key: &str) -> &str {
    key.split(['~', '#']).next().unwrap_or_default()
}
