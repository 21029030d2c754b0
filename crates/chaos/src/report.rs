//! What came of a run of chaos: numbers, and every promise that was broken.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use windlass_sim::history::Violation;

use crate::plan::{Kind, Plan};

/// What a run of chaos says about what it tested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing was broken, and it really hurt.
    Good,
    /// Promises were broken.
    Broken,
    /// Nothing was broken, which says nothing.
    Inconclusive {
        /// Why.
        reasons: Vec<String>,
    },
}

/// Faults of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// How often it was planned.
    pub planned: u64,
    /// How often it met work in flight.
    pub landed: u64,
}

/// Calls of one tool, action or hook, or of models.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Calls {
    /// Requests that arrived.
    pub requests: u64,
    /// Requests that changed the world, or would have if they were no reads.
    pub happened: u64,
    /// Effects, by idempotency key.
    pub effects: u64,
    /// Repeats that were recognised by their key.
    pub repeats: u64,
}

/// Runs that callers submitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Runs {
    /// Acknowledged.
    pub submitted: u64,
    /// Ended with an output.
    pub completed: u64,
    /// Ended otherwise.
    pub failed: u64,
    /// Wait for a person.
    pub attention: u64,
    /// Neither.
    pub unfinished: u64,
    /// All runs, those that they started included.
    pub all: u64,
}

/// What the fleet went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Recoveries {
    /// Worker processes started.
    pub processes: u64,
    /// Runs that were taken from a worker that was gone.
    pub taken_over: u64,
    /// Decisions that were committed.
    pub commits: u64,
    /// Decisions of workers whose lease was over: refused.
    pub fenced: u64,
    /// Decisions whose commit was not answered.
    pub unanswered: u64,
    /// Questions whether a call happened.
    pub verifications: u64,
}

/// The report of one run of chaos.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What it says.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// The seed of its plan.
    pub seed: u64,
    /// Workers at a time.
    pub workers: usize,
    /// How long faults were made, in milliseconds.
    pub chaos_ms: u64,
    /// How long everything took to end afterwards; null when it did not.
    pub drain_ms: Option<u64>,
    /// Faults by kind.
    pub faults: BTreeMap<Kind, Tally>,
    /// Runs.
    pub runs: Runs,
    /// What runs wait for a person for, and how many do.
    pub waits: BTreeMap<String, u64>,
    /// Calls by target.
    pub calls: BTreeMap<String, Calls>,
    /// Recoveries.
    pub recoveries: Recoveries,
    /// Callers' runs that ended, for each second from the first to the last.
    pub runs_per_second: f64,
    /// Broken promises.
    pub violations: Vec<Violation>,
    /// The plan.
    pub plan: Plan,
}

/// Violations that are shown one by one.
const SHOWN_MAX: usize = 20;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.verdict {
            Verdict::Good => writeln!(f, "good: no promise was broken")?,
            Verdict::Broken => writeln!(f, "broken: {} violations", self.violations.len())?,
            Verdict::Inconclusive { reasons } => writeln!(f, "inconclusive: {}", reasons.join("; "))?,
        }
        for violation in self.violations.iter().take(SHOWN_MAX) {
            writeln!(f, "  {violation}")?;
        }
        if let Some(more) = self.violations.len().checked_sub(SHOWN_MAX).filter(|more| *more > 0) {
            writeln!(f, "  and {more} more")?;
        }
        let drain = self.drain_ms.map_or("never".to_owned(), |ms| format!("{:.1} s", ms as f64 / 1000.0));
        writeln!(f, "\nseed        {}", self.seed)?;
        writeln!(
            f,
            "chaos       {:.1} s with {} workers, then {drain} until all had ended",
            self.chaos_ms as f64 / 1000.0,
            self.workers
        )?;
        let runs = &self.runs;
        writeln!(
            f,
            "runs        {} submitted: {} completed, {} failed, {} wait for a person, {} unfinished; {} with their children, {:.1} a second",
            runs.submitted,
            runs.completed,
            runs.failed,
            runs.attention,
            runs.unfinished,
            runs.all,
            self.runs_per_second
        )?;
        for (why, times) in &self.waits {
            writeln!(f, "waits       {times} for a person: {why}")?;
        }
        let faults: Vec<String> =
            self.faults.iter().map(|(kind, tally)| format!("{kind} {} of {}", tally.landed, tally.planned)).collect();
        writeln!(f, "faults      met work in flight: {}", faults.join(", "))?;
        let it = &self.recoveries;
        writeln!(
            f,
            "recoveries  {} processes, {} runs taken over, {} commits, {} refused as stale, {} unanswered, {} verifications",
            it.processes, it.taken_over, it.commits, it.fenced, it.unanswered, it.verifications
        )?;
        writeln!(
            f,
            "calls       {:<12} {:>9} {:>9} {:>9} {:>9}",
            "target", "effects", "requests", "happened", "repeats"
        )?;
        for (target, calls) in &self.calls {
            let Calls { requests, happened, effects, repeats } = calls;
            writeln!(f, "            {target:<12} {effects:>9} {requests:>9} {happened:>9} {repeats:>9}")?;
        }
        Ok(())
    }
}
