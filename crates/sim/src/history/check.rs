//! The checks: every promise that a history can break, by its rule.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use windlass_core::contract::{Class, may_repeat};
use windlass_core::effect::Outcome;
use windlass_core::ids::{EffectId, Name, RunId};
use windlass_core::journal::Entry;
use windlass_core::machine::Program;

use super::{DATABASE_RESTARTED, Effect, Granted, History, Op, Record, Result, RunEnd, linear, path};

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// The rule: `acknowledged`, `legal_path`, `fence`, `lease`, `effect`, `definite`, `budget`, `single_winner`,
    /// `reads`, `audit`, `register`, and those of whoever adds more.
    pub rule: Name,
    /// The run concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// What is wrong.
    pub message: String,
}

impl Violation {
    /// A violation that concerns a run.
    #[must_use]
    pub fn of(rule: &str, run: &RunId, message: impl Into<String>) -> Self {
        Self { rule: rule.into(), run: Some(run.clone()), message: message.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.run {
            Some(run) => write!(f, "{}: run `{run}`: {}", self.rule, self.message),
            None => write!(f, "{}: {}", self.rule, self.message),
        }
    }
}

/// Everything that is wrong with a history. With the program of its runs, their ways are held against its machines.
#[must_use]
pub fn check(history: &History, program: Option<&Program>) -> Vec<Violation> {
    let mut found = Vec::new();
    for end in &history.runs {
        follow(end, program, &mut found);
    }
    acknowledged(history, &mut found);
    definite(history, &mut found);
    fenced(history, &mut found);
    leases(history, &mut found);
    effects(history, &mut found);
    audited(history, &mut found);
    reads(history, &mut found);
    winners(history, &mut found);
    for (object, message) in linear::check(&history.records) {
        found.push(Violation { rule: "register".into(), run: None, message: format!("`{object}`: {message}") });
    }
    found
}

/// Each run's entries are a way that its machine allows, and within its budget at every one.
fn follow(end: &RunEnd, program: Option<&Program>, found: &mut Vec<Violation>) {
    match path::follow(end, program) {
        Err(wrong) => {
            found.push(Violation::of(wrong.rule, &end.start.id, format!("version {}: {}", wrong.version, wrong.why)));
        }
        Ok(run) if run.status() != end.status && end.status.is_final() => {
            let (row, fold) = (end.status.as_str(), run.status().as_str());
            found.push(Violation::of(
                "legal_path",
                &end.start.id,
                format!("its row says `{row}`, its journal `{fold}`"),
            ));
        }
        Ok(_) => {}
    }
}

struct Written<'a> {
    record: &'a Record,
    run: &'a RunId,
    epoch: u64,
    version: u64,
    row: windlass_core::ids::Digest,
}

fn commits(history: &History) -> impl Iterator<Item = Written<'_>> {
    history.records.iter().filter_map(|record| match &record.op {
        Op::Commit { run, epoch, version, row } => {
            Some(Written { record, run, epoch: *epoch, version: *version, row: *row })
        }
        _ => None,
    })
}

fn ends(history: &History) -> BTreeMap<&RunId, &RunEnd> {
    history.runs.iter().map(|end| (&end.start.id, end)).collect()
}

/// Every transition that was acknowledged is in the final history, once.
fn acknowledged(history: &History, found: &mut Vec<Violation>) {
    let ends = ends(history);
    let mut places: BTreeMap<(&RunId, u64), windlass_core::ids::Digest> = BTreeMap::new();
    for commit in commits(history).filter(|commit| commit.record.result == Result::Ok) {
        if !is_in_journal(&ends, &commit) {
            let message = format!("version {} was acknowledged and is not in its journal", commit.version);
            found.push(Violation::of("acknowledged", commit.run, message));
        }
        let other = places.insert((commit.run, commit.version), commit.row);
        if other.is_some_and(|other| other != commit.row) {
            let message = format!("version {} was acknowledged twice, with different content", commit.version);
            found.push(Violation::of("acknowledged", commit.run, message));
        }
    }
    for record in history.records.iter().filter(|record| record.result == Result::Ok) {
        if let Op::Create { run } = &record.op
            && !ends.contains_key(run)
        {
            found.push(Violation::of("acknowledged", run, "it was created and does not exist"));
        }
    }
}

/// What was refused for good left nothing behind.
fn definite(history: &History, found: &mut Vec<Violation>) {
    let ends = ends(history);
    let landed: BTreeSet<&Option<Name>> =
        commits(history).filter(|commit| commit.record.result != Result::Fail).map(|c| &c.record.op_id).collect();
    for commit in commits(history).filter(|commit| commit.record.result == Result::Fail) {
        // A repeat of a commit that is durable is refused; the commit stays.
        if commit.record.op_id.is_some() && landed.contains(&commit.record.op_id) {
            continue;
        }
        let in_journal = ends.get(commit.run).is_some_and(|end| end.rows.iter().any(|row| row.digest == commit.row));
        if in_journal {
            let message = format!("version {} was refused and is in its journal", commit.version);
            found.push(Violation::of("definite", commit.run, message));
        }
    }
    for effect in history.effects.iter().filter(|effect| effect.happened && effect.result == Result::Fail) {
        found.push(Violation::of("definite", &effect.run, format!("{effect} failed for good and happened")));
    }
}

/// No write of an older lease after a newer one was given.
fn fenced(history: &History, found: &mut Vec<Violation>) {
    let mut given: BTreeMap<&RunId, Vec<(u64, u64)>> = BTreeMap::new();
    for (record, lease) in grants(history) {
        given.entry(&lease.run).or_default().push((record.end, lease.epoch));
    }
    let mut before: BTreeMap<&RunId, u64> = BTreeMap::new();
    for ((run, version), writers) in writers(history) {
        let mut late = writers.iter().map(|commit| overtaken(history, &given, commit));
        if let Some(message) = late.next().flatten().filter(|_| late.all(|other| other.is_some())) {
            found.push(Violation::of("fence", run, format!("version {version} was written with {message}")));
        }
        // Where two may have written it, neither says anything about the order.
        let epoch = writers[0].epoch;
        if writers.iter().all(|commit| commit.epoch == epoch) {
            let before = before.entry(run).or_default();
            if epoch < *before {
                let message = format!("version {version} has epoch {epoch} after one with epoch {before}");
                found.push(Violation::of("fence", run, message));
            }
            *before = epoch.max(*before);
        }
    }
}

/// Who may have written each row of the journals: whoever was told so, else everyone who tried and was not refused. Two
/// workers may have come to the same row.
fn writers(history: &History) -> BTreeMap<(&RunId, u64), Vec<Written<'_>>> {
    let ends = ends(history);
    let mut writers: BTreeMap<(&RunId, u64), Vec<Written<'_>>> = BTreeMap::new();
    for commit in commits(history).filter(|commit| commit.record.result != Result::Fail) {
        if is_in_journal(&ends, &commit) {
            writers.entry((commit.run, commit.version)).or_default().push(commit);
        }
    }
    for writers in writers.values_mut() {
        if writers.iter().any(|commit| commit.record.result == Result::Ok) {
            writers.retain(|commit| commit.record.result == Result::Ok);
        }
    }
    writers
}

/// What shows that a newer lease had been given when a commit was written.
fn overtaken(history: &History, given: &BTreeMap<&RunId, Vec<(u64, u64)>>, commit: &Written<'_>) -> Option<String> {
    // It was not there when someone read an earlier version.
    let after = reads_of(history, commit.run)
        .filter(|(_, version)| *version < commit.version)
        .map(|(at, _)| at)
        .fold(commit.record.start, u64::max);
    let newer = given.get(commit.run).into_iter().flatten();
    let (at, epoch) = newer.filter(|(at, epoch)| *at < after && *epoch > commit.epoch).max()?;
    Some(format!("epoch {} after {after} ms, and epoch {epoch} was given at {at} ms", commit.epoch))
}

/// When a run was looked at, and the version that was seen.
fn reads_of<'a>(history: &'a History, run: &'a RunId) -> impl Iterator<Item = (u64, u64)> + 'a {
    history.records.iter().filter(|record| record.result == Result::Ok).filter_map(move |record| match &record.op {
        Op::Read { run: seen, version } if seen == run => Some((record.start, *version)),
        _ => None,
    })
}

/// Whether the row of a commit is where the commit put it.
fn is_in_journal(ends: &BTreeMap<&RunId, &RunEnd>, commit: &Written<'_>) -> bool {
    let place = usize::try_from(commit.version).ok().and_then(|version| version.checked_sub(1));
    let row = ends.get(commit.run).zip(place).and_then(|(end, place)| end.rows.get(place));
    row.is_some_and(|row| row.digest == commit.row)
}

fn grants(history: &History) -> impl Iterator<Item = (&Record, &Granted)> {
    history.records.iter().filter(|record| record.result == Result::Ok).flat_map(|record| {
        let leases = match &record.op {
            Op::Claim { leases, .. } => leases.as_slice(),
            Op::TakeOver { lease } => std::slice::from_ref(lease),
            _ => &[],
        };
        leases.iter().map(move |lease| (record, lease))
    })
}

/// An epoch is given once, and nothing is taken from a worker that is alive.
fn leases(history: &History, found: &mut Vec<Violation>) {
    let mut epochs: BTreeMap<_, &Record> = BTreeMap::new();
    for (record, lease) in grants(history) {
        if let Some(first) = epochs.insert((&lease.run, lease.epoch), record)
            && !was_taken_back(history, first, record, lease)
        {
            found.push(Violation::of("lease", &lease.run, format!("epoch {} was given twice", lease.epoch)));
        }
    }
    for record in history.records.iter().filter(|record| record.result == Result::Ok) {
        let Op::Claim { leases, .. } = &record.op else { continue };
        for lease in leases {
            let Some(from) = &lease.taken_from else { continue };
            if let Some(until) = alive_until(history, from, record) {
                let message = format!(
                    "it was taken at {} ms from `{from}`, which is alive until {until} ms at least",
                    record.end
                );
                found.push(Violation::of("lease", &lease.run, message));
            }
        }
    }
}

/// Whether a crash of the database took a claim back before it was given again: nothing durable had followed it.
fn was_taken_back(history: &History, first: &Record, again: &Record, lease: &Granted) -> bool {
    let between = |record: &&Record| record.end >= first.start && record.start <= again.end;
    let crashed = |record: &Record| matches!(&record.op, Op::Fault { what } if &**what == DATABASE_RESTARTED);
    let durable = |record: &Record| {
        let of = matches!(&record.op, Op::Commit { run, epoch, .. } if *run == lease.run && *epoch == lease.epoch);
        of && record.process == first.process && record.result == Result::Ok && record.end < again.start
    };
    let mut records = history.records.iter().filter(between);
    records.clone().any(crashed) && !records.any(durable)
}

/// Until when a worker was surely alive, when that is later than the end of a claim.
fn alive_until(history: &History, worker: &Name, claim: &Record) -> Option<u64> {
    let before = |record: &&Record| record.end <= claim.end;
    let mut until = None;
    for record in history.records.iter().filter(before) {
        match &record.op {
            Op::Alive { worker: who, until: then } if who == worker && record.result == Result::Ok => {
                until = until.max(Some(*then));
            }
            Op::Down { worker: who } if who == worker => return None,
            _ => {}
        }
    }
    until.filter(|until| *until > claim.end)
}

/// Per idempotency key at most one effect where a repeat is not harmless, exactly one where the journal says it is done,
/// and never other arguments under the same key.
fn effects(history: &History, found: &mut Vec<Violation>) {
    let mut by_key: BTreeMap<&Name, Vec<&Effect>> = BTreeMap::new();
    for effect in &history.effects {
        by_key.entry(&effect.key).or_default().push(effect);
    }
    for calls in by_key.values() {
        let first = calls[0];
        let happened = calls.iter().filter(|effect| effect.happened).count();
        let repeatable = first.class == Class::Read || may_repeat(first.class, first.idempotency);
        if happened > 1 && !repeatable {
            let times: Vec<String> = calls.iter().filter(|effect| effect.happened).map(|e| e.at.to_string()).collect();
            let message = format!("{first} happened {happened} times, at {} ms", times.join(", "));
            found.push(Violation::of("effect", &first.run, message));
        }
        if let Some(other) = calls.iter().find(|effect| effect.arguments != first.arguments) {
            found.push(Violation::of(
                "effect",
                &first.run,
                format!("{other} has other arguments than at {} ms", first.at),
            ));
        }
    }
    for end in &history.runs {
        for effect in done(end) {
            let key = effect.key(&end.start.id);
            let happened = by_key
                .get(&Name::from(key.as_str()))
                .is_some_and(|calls| calls.iter().any(|e| e.result != Result::Fail));
            // A history that was kept without a ledger says nothing about effects.
            if !history.effects.is_empty() && !happened {
                found.push(Violation::of(
                    "effect",
                    &end.start.id,
                    format!("`{key}` is done and never reached the world"),
                ));
            }
        }
    }
}

/// Calls that the journal says are done.
fn done(end: &RunEnd) -> impl Iterator<Item = EffectId> + '_ {
    end.rows.iter().flat_map(|row| &row.record.entries).filter_map(|entry| match entry {
        Entry::CallSettled { effect, outcome: Outcome::Replied(_) | Outcome::Returned(_), .. } => Some(*effect),
        _ => None,
    })
}

/// Every call that reached the world has an audit row that was written before it.
fn audited(history: &History, found: &mut Vec<Violation>) {
    let ends = ends(history);
    let mut begun: BTreeMap<(&RunId, u64), u64> = BTreeMap::new();
    for commit in commits(history).filter(|commit| commit.record.result != Result::Fail) {
        let earliest = begun.entry((commit.run, commit.version)).or_insert(commit.record.start);
        *earliest = (*earliest).min(commit.record.start);
    }
    for effect in &history.effects {
        let Some(end) = ends.get(&effect.run) else {
            found.push(Violation::of("audit", &effect.run, format!("{effect} is of a run that does not exist")));
            continue;
        };
        let attempt = |row: &&windlass_core::audit::Row| effect.attempt == 0 || row.attempt == effect.attempt;
        let mut rows = end.audit.iter().filter(|row| row.effect == effect.effect).filter(attempt);
        if !rows.any(|row| &*row.stage == "intended") {
            found.push(Violation::of("audit", &effect.run, format!("{effect} has no audit row")));
            continue;
        }
        let version = intended_in(end, effect);
        let late = version.and_then(|version| begun.get(&(&effect.run, version))).filter(|begun| **begun > effect.at);
        if let Some(late) = late {
            let message = format!("{effect} left before its intention was written, at {late} ms");
            found.push(Violation::of("audit", &effect.run, message));
        }
    }
    for end in history.runs.iter().filter(|end| end.status.is_final()) {
        for effect in done(end) {
            let settled = |row: &windlass_core::audit::Row| row.effect == effect && &*row.stage == "settled";
            if !end.audit.iter().any(settled) {
                found.push(Violation::of("audit", &end.start.id, format!("call {effect} is done and not audited")));
            }
        }
        paired(end, found);
    }
}

/// Every attempt at a call that changes something has one row that begins it and one that ends it, each with the worker
/// that wrote it, and every such call one row that ends it for good.
fn paired(end: &RunEnd, found: &mut Vec<Violation>) {
    let changes = |row: &&windlass_core::audit::Row| {
        row.effect != EffectId(0) && &*row.class != "read" && matches!(&*row.kind, "tool" | "action")
    };
    let mut attempts: BTreeMap<(EffectId, u32), (u32, u32)> = BTreeMap::new();
    let mut over: BTreeMap<EffectId, u32> = BTreeMap::new();
    for row in end.audit.iter().filter(changes) {
        let (begun, ended) = attempts.entry((row.effect, row.attempt)).or_default();
        *over.entry(row.effect).or_default() += u32::from(matches!(&*row.stage, "settled" | "abandoned"));
        match &*row.stage {
            "intended" | "shadowed" => *begun += 1,
            "settled" | "failed" | "abandoned" => *ended += 1,
            _ => {}
        }
        if row.worker.is_none() {
            let message = format!("row {} of call {} names no worker", row.number, row.effect);
            found.push(Violation::of("audit", &end.start.id, message));
        }
    }
    for ((effect, attempt), (begun, ended)) in attempts.into_iter().filter(|(_, rows)| *rows != (1, 1)) {
        let message =
            format!("attempt {attempt} at call {effect} has {begun} rows that begin it and {ended} that end it");
        found.push(Violation::of("audit", &end.start.id, message));
    }
    for (effect, rows) in over.into_iter().filter(|(_, rows)| *rows != 1) {
        let message = format!("call {effect} has {rows} rows that end it for good");
        found.push(Violation::of("audit", &end.start.id, message));
    }
}

/// The version whose record intends an attempt.
fn intended_in(end: &RunEnd, effect: &Effect) -> Option<u64> {
    let intends = |entry: &Entry| match entry {
        Entry::CallIntended { effect: id, call } => *id == effect.effect && call.attempt == effect.attempt,
        Entry::AttemptStarted { effect: id, attempt, .. } => *id == effect.effect && *attempt == effect.attempt,
        _ => false,
    };
    end.rows.iter().find(|row| row.record.entries.iter().any(intends)).map(|row| row.record.version)
}

/// What was seen of a run is never older than what was seen, or acknowledged, before.
fn reads(history: &History, found: &mut Vec<Violation>) {
    let mut seen: BTreeMap<&RunId, Vec<(u64, u64, u64, bool)>> = BTreeMap::new();
    for record in history.records.iter().filter(|record| record.result == Result::Ok) {
        let (run, version, is_read) = match &record.op {
            Op::Read { run, version } => (run, *version, true),
            Op::Commit { run, version, .. } => (run, *version, false),
            _ => continue,
        };
        seen.entry(run).or_default().push((record.end, record.start, version, is_read));
    }
    for (run, mut looks) in seen {
        looks.sort_unstable();
        // The newest version that was known by each moment.
        let mut newest: Vec<(u64, u64)> = Vec::new();
        for (end, start, version, is_read) in looks {
            let place = newest.partition_point(|(at, _)| *at < start);
            let known = place.checked_sub(1).map_or(0, |place| newest[place].1);
            if is_read && version < known {
                let message = format!("version {version} was seen at {end} ms, after version {known} was known");
                found.push(Violation::of("reads", run, message));
            }
            let top = newest.last().map_or(0, |(_, version)| *version).max(version);
            newest.push((end, top));
        }
    }
}

/// Of things that exclude each other one wins: a run ends once, a wait is answered once.
fn winners(history: &History, found: &mut Vec<Violation>) {
    for end in &history.runs {
        let (mut endings, mut answered) = (0, BTreeSet::new());
        for entry in end.rows.iter().flat_map(|row| &row.record.entries) {
            match entry {
                Entry::RunEnded => endings += 1,
                Entry::RunReopened => endings = 0,
                Entry::WaitClosed { effect, .. } if !answered.insert(*effect) => {
                    found.push(Violation::of(
                        "single_winner",
                        &end.start.id,
                        format!("wait {effect} was answered twice"),
                    ));
                }
                _ => {}
            }
        }
        if endings > 1 {
            found.push(Violation::of("single_winner", &end.start.id, format!("it ended {endings} times")));
        }
    }
}

#[cfg(test)]
mod tests {
    use windlass_core::ids::Digest;

    use super::*;

    fn record(process: &str, op: Op, at: u64) -> Record {
        Record { process: process.into(), op, op_id: None, start: at, end: at, result: Result::Ok }
    }

    fn claim(process: &str, at: u64) -> Record {
        let lease = Granted { run: RunId::stored("r"), epoch: 4, taken_from: None };
        record(process, Op::Claim { worker: process.into(), leases: vec![lease] }, at)
    }

    fn broken(records: Vec<Record>) -> usize {
        let mut found = Vec::new();
        leases(&History { records, ..History::default() }, &mut found);
        found.len()
    }

    #[test]
    fn an_epoch_is_given_again_only_when_a_crash_took_it_back_and_nothing_was_written_under_it() {
        let crash = || record("caller", Op::Fault { what: DATABASE_RESTARTED.into() }, 5);
        let stop = || record("caller", Op::Fault { what: "stop worker 1 for 9 ms".into() }, 5);
        let row = Digest::of(b"row");
        let write = |at| record("one", Op::Commit { run: RunId::stored("r"), epoch: 4, version: 1, row }, at);
        assert_eq!(broken(vec![claim("one", 1), claim("two", 9)]), 1);
        assert_eq!(broken(vec![claim("one", 1), stop(), claim("two", 9)]), 1);
        assert_eq!(broken(vec![claim("one", 1), crash(), claim("two", 9)]), 0);
        assert_eq!(broken(vec![claim("one", 1), write(3), crash(), claim("two", 9)]), 1, "it was durable");
        assert_eq!(broken(vec![crash(), claim("one", 6), claim("two", 9)]), 1, "the crash was before");
    }
}
