//! Judges what was seen: the history of all processes, the log of the counting server and the store as it is in the end.

mod ledger;
mod person;
mod zombie;

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use windlass_core::ids::RunId;
use windlass_core::input::Ending;
use windlass_core::run::Status;
use windlass_sim::history::{self, History, Op, Record, Result as Ended, RunEnd, Violation};

use crate::effects::{Deed, Kind};
use crate::record;
use crate::report::{Calls, Recoveries, Report, Runs, Tally, Verdict};
use crate::run::{CALLER, Seen, Stage};
use crate::setup::ChaosError;

/// Judges a run of chaos.
pub(crate) async fn judge(stage: &Stage, seen: Seen) -> Result<Report, ChaosError> {
    let deeds = stage.fleet.effects().log();
    let mut runs = history::collect(&*stage.store).await?;
    runs.retain(|end| end.start.id.as_str().starts_with(&stage.prefix));
    let records = records(stage).await?;
    let effects = ledger::effects(&deeds, &stage.cast.bundle, seen.began_ms);
    let history = History { records, effects, runs };

    let mut violations = history::check(&history, Some(&stage.cast.program));
    ledger::keep_promised(&mut violations, &history);
    violations.extend(zombie::check(&history, &stage.fleet.sleeps()));
    violations.extend(outcomes(stage, &seen, &history, &deeds));
    for finding in stage.store.fsck().await? {
        violations.push(Violation {
            rule: format!("fsck.{}", finding.rule).into(),
            run: finding.run,
            message: finding.message,
        });
    }
    for death in stage.fleet.deaths() {
        let message = format!("worker {} {}: {}", death.worker, death.how, death.log.trim());
        violations.push(Violation { rule: "process".into(), run: None, message });
    }
    Ok(report(stage, seen, &history, &deeds, violations).await)
}

/// What all processes wrote down, in the order in which it ended.
async fn records(stage: &Stage) -> io::Result<Vec<Record>> {
    let mut records = Vec::new();
    let caller = stage.fleet.folder().join(format!("{CALLER}.jsonl"));
    let files = stage.fleet.histories().await.into_iter().map(|(_, path)| path);
    for path in files.chain([caller]) {
        match record::read(&path) {
            Ok(found) => records.extend(found),
            // A process that was killed before it did anything has no history.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    records.sort_by_key(|record| (record.end, record.start));
    Ok(records)
}

/// Every run that was submitted has ended, as an undisturbed one does, and did to the world what that does.
fn outcomes(stage: &Stage, seen: &Seen, history: &History, deeds: &[Deed]) -> Vec<Violation> {
    let ends: BTreeMap<&RunId, &RunEnd> = history.runs.iter().map(|end| (&end.start.id, end)).collect();
    let asking = person::asking(history);
    let done = ledger::by_root(deeds);
    let mut found = Vec::new();
    for (run, input) in &seen.submitted {
        // One that is not there is found as an acknowledgement that was not kept.
        let Some(end) = ends.get(run) else { continue };
        let calm = &seen.calm[*input];
        match end.status {
            Status::Quarantined => {
                found.push(Violation::of("quarantine", run, "it is quarantined, and nothing is wrong with it"))
            }
            status if !status.is_final() && asking.contains_key(run) => {
                if !stage.options.may_park {
                    let message = format!("it waits for a person, and none comes: {}", asking[run]);
                    found.push(Violation::of("person", run, message));
                }
            }
            status if !status.is_final() => {
                let why = match seen.drain_ms {
                    Some(_) => "and nothing is left to do",
                    None => "and faults have been over for long enough",
                };
                found.push(Violation::of("liveness", run, format!("it is `{}`, {why}", status.as_str())));
            }
            _ => {
                let ending = crate::run::ending(end);
                if calm.ending.is_some() && ending != calm.ending {
                    let message = format!("it ended with {}, undisturbed with {}", text(&ending), text(&calm.ending));
                    found.push(Violation::of("outcome", run, message));
                }
                let none = BTreeMap::new();
                let effects = done.get(run.as_str()).unwrap_or(&none);
                if let Some(usual) = calm.effects.as_ref().filter(|usual| *usual != effects) {
                    let message = format!("it had the effects {effects:?}, undisturbed {usual:?}");
                    found.push(Violation::of("outcome", run, message));
                }
            }
        }
    }
    found
}

fn text(ending: &Option<Ending>) -> String {
    serde_json::to_string(ending).unwrap_or_default()
}

async fn report(stage: &Stage, seen: Seen, history: &History, deeds: &[Deed], violations: Vec<Violation>) -> Report {
    let asking = person::asking(history);
    let runs = runs(&seen, history, &asking);
    let faults = faults(&seen);
    let verdict = verdict(stage, &violations, runs, &faults);
    let spent = seen.chaos_ms + seen.drain_ms.unwrap_or_default();
    Report {
        verdict,
        seed: stage.options.seed,
        workers: stage.options.workers,
        chaos_ms: seen.chaos_ms,
        drain_ms: seen.drain_ms,
        faults,
        runs,
        waits: person::reasons(&asking),
        calls: calls(deeds),
        recoveries: recoveries(history, deeds, stage.fleet.started().await),
        runs_per_second: (runs.completed + runs.failed) as f64 * 1000.0 / spent.max(1) as f64,
        violations,
        plan: seen.plan,
    }
}

fn runs(seen: &Seen, history: &History, asking: &BTreeMap<&RunId, String>) -> Runs {
    let submitted: BTreeSet<&RunId> = seen.submitted.iter().map(|(run, _)| run).collect();
    let mut runs = Runs { submitted: submitted.len() as u64, all: history.runs.len() as u64, ..Runs::default() };
    for end in history.runs.iter().filter(|end| submitted.contains(&end.start.id)) {
        match end.status {
            Status::Completed => runs.completed += 1,
            Status::Failed | Status::Cancelled => runs.failed += 1,
            Status::Quarantined => runs.unfinished += 1,
            _ if asking.contains_key(&end.start.id) => runs.attention += 1,
            _ => runs.unfinished += 1,
        }
    }
    runs
}

fn faults(seen: &Seen) -> BTreeMap<crate::plan::Kind, Tally> {
    let mut faults: BTreeMap<_, Tally> = BTreeMap::new();
    for planned in &seen.plan.faults {
        faults.entry(planned.fault.kind()).or_default().planned += 1;
    }
    for (kind, landed) in &seen.landed {
        faults.entry(*kind).or_default().landed = *landed;
    }
    faults
}

/// A run of chaos that did not hurt, or in which little worked, says nothing.
fn verdict(
    stage: &Stage,
    violations: &[Violation],
    runs: Runs,
    faults: &BTreeMap<crate::plan::Kind, Tally>,
) -> Verdict {
    if !violations.is_empty() {
        return Verdict::Broken;
    }
    let mut reasons = Vec::new();
    let (planned, landed) = faults.values().fold((0, 0), |sum, tally| (sum.0 + tally.planned, sum.1 + tally.landed));
    if planned == 0 || landed * 100 < planned * u64::from(stage.options.landed_min) {
        reasons.push(format!(
            "only {landed} of {planned} faults met work in flight, {} of 100 are wanted",
            stage.options.landed_min
        ));
    }
    for (kind, _) in faults.iter().filter(|(_, tally)| tally.planned > 0 && tally.landed == 0) {
        reasons.push(format!("no `{kind}` met work in flight"));
    }
    // What is meant to park has come as far as it can.
    let arrived = runs.completed + if stage.options.may_park { runs.attention } else { 0 };
    if runs.submitted == 0 || arrived * 100 < runs.submitted * u64::from(stage.options.completed_min) {
        reasons.push(format!(
            "only {} of {} runs completed, {} of 100 are wanted",
            runs.completed, runs.submitted, stage.options.completed_min
        ));
    }
    if reasons.is_empty() { Verdict::Good } else { Verdict::Inconclusive { reasons } }
}

fn calls(deeds: &[Deed]) -> BTreeMap<String, Calls> {
    let mut calls: BTreeMap<String, Calls> = BTreeMap::new();
    let mut keys: BTreeSet<(&str, &str)> = BTreeSet::new();
    for deed in deeds {
        let of = calls.entry(deed.what.clone()).or_default();
        of.requests += 1;
        of.happened += u64::from(deed.fate.happened());
        of.repeats += u64::from(deed.fate == crate::effects::Fate::Repeat);
        of.effects += u64::from(!deed.key.is_empty() && keys.insert((&deed.what, &deed.key)));
    }
    calls
}

fn recoveries(history: &History, deeds: &[Deed], processes: u32) -> Recoveries {
    let mut it = Recoveries { processes: processes.into(), ..Recoveries::default() };
    for record in &history.records {
        match (&record.op, record.result) {
            (Op::Claim { leases, .. }, _) => {
                it.taken_over += leases.iter().filter(|lease| lease.taken_from.is_some()).count() as u64;
            }
            (Op::Commit { .. }, Ended::Ok) => it.commits += 1,
            (Op::Commit { .. }, Ended::Fail) => it.fenced += 1,
            (Op::Commit { .. }, Ended::Info) => it.unanswered += 1,
            _ => {}
        }
    }
    it.verifications = deeds.iter().filter(|deed| deed.kind == Kind::Verify).count() as u64;
    it
}
