//! What speaks for and against a version of an agent, and the score that follows from it.
//!
//! Evidence is counted by day and version: results of tests, what runs did, and incidents that people reported. The score is
//! a function of the evidence, the weights and the day, in whole numbers, so that everybody comes to the same.

mod kept;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windlass_core::effect::{Call, Doubt};
use windlass_core::failure::Code;
use windlass_core::ids::Name;
use windlass_core::journal::Entry;
use windlass_core::policy::{Answer, Question};
use windlass_core::run::Run;
use windlass_core::time::Timestamp;

use crate::trust::SCORE_MAX;

pub use kept::{COMPUTED_BY, Computed, EVIDENCE, add, all, compute, read, report};

/// A day, in milliseconds.
const DAY_MS: u64 = 86_400_000;
/// What decayed counts are multiplied by.
const UNIT: u64 = 1_024;

/// How scores are computed. Points are of a score of 100.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrustConfig {
    /// Whether processes count evidence and compute scores from it. Default: `false`: a score is what a person set.
    pub computed: bool,
    /// How many days evidence counts, 1 to 365. Default: `30`.
    pub window_days: u64,
    /// After how many days evidence counts half, 1 to 365. Default: `14`.
    pub half_life_days: u64,
    /// How many test cases and model calls together make a score; with fewer there is none. Default: `20`.
    pub evidence_min: u64,
    /// The points of a version that was not tested. Default: `50`.
    pub untested: u64,
    /// Points that it costs when one of a hundred model calls leads to a denial. Default: `5`.
    pub denied: u64,
    /// The same for a breaker that trips. Default: `10`.
    pub breaker: u64,
    /// The same for a call of which nobody knows whether it happened. Default: `10`.
    pub unknown: u64,
    /// The same for an answer that does not fit its schema. Default: `2`.
    pub bad_output: u64,
    /// Points that a minor incident costs. Default: `5`.
    pub minor: u64,
    /// Points that a major incident costs. Default: `25`.
    pub major: u64,
    /// Points that a critical incident costs. Default: `100`.
    pub critical: u64,
}

impl Default for TrustConfig {
    fn default() -> Self {
        Self {
            computed: false,
            window_days: 30,
            half_life_days: 14,
            evidence_min: 20,
            untested: 50,
            denied: 5,
            breaker: 10,
            unknown: 10,
            bad_output: 2,
            minor: 5,
            major: 25,
            critical: 100,
        }
    }
}

impl TrustConfig {
    /// What cannot be meant, as the key and what is wrong with it.
    ///
    /// # Errors
    /// The first such key.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        for (key, days) in [("window_days", self.window_days), ("half_life_days", self.half_life_days)] {
            if !(1..=DAYS_MAX).contains(&days) {
                return Err((key, "is a number of days from 1 to 365"));
            }
        }
        if self.evidence_min == 0 {
            return Err(("evidence_min", "is a number of test cases and calls, at least 1"));
        }
        let most = u64::from(SCORE_MAX);
        for (key, points) in [
            ("untested", self.untested),
            ("denied", self.denied),
            ("breaker", self.breaker),
            ("unknown", self.unknown),
            ("bad_output", self.bad_output),
            ("minor", self.minor),
            ("major", self.major),
            ("critical", self.critical),
        ] {
            if points > most {
                return Err((key, "is a number of points from 0 to 100"));
            }
        }
        Ok(())
    }

    fn points(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Denied => self.denied,
            Kind::Breaker => self.breaker,
            Kind::Unknown => self.unknown,
            Kind::BadOutput => self.bad_output,
            Kind::Calls | Kind::Passed | Kind::Failed => 0,
        }
    }

    fn severity(&self, severity: Severity) -> u64 {
        match severity {
            Severity::Minor => self.minor,
            Severity::Major => self.major,
            Severity::Critical => self.critical,
        }
    }
}

/// Days that evidence is kept.
pub const DAYS_MAX: u64 = 365;
/// Incidents that are kept of one version.
const INCIDENTS_MAX: usize = 200;

/// Something that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A model call of the agent was decided on.
    Calls,
    /// A test case of a machine with the agent passed.
    Passed,
    /// One failed.
    Failed,
    /// Rules denied what the agent wanted.
    Denied,
    /// A breaker tripped over the agent, or over a tool that it called.
    Breaker,
    /// Nobody knows whether a call that the agent wanted happened.
    Unknown,
    /// What the agent answered does not fit its schema.
    BadOutput,
}

impl Kind {
    /// What runs did that speaks against an agent.
    const AGAINST: [Self; 4] = [Self::Denied, Self::Breaker, Self::Unknown, Self::BadOutput];
}

/// How bad an incident is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Minor.
    Minor,
    /// Major.
    Major,
    /// Critical.
    Critical,
}

/// What a person reported about a version of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// When it was reported.
    pub at: Timestamp,
    /// How bad it is.
    pub severity: Severity,
    /// What happened.
    pub reason: Name,
    /// Who reported it.
    pub by: Name,
}

/// Counts of one day.
pub type Counts = BTreeMap<Kind, u64>;

/// What speaks for and against one version of an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Counts by day since 1970, in UTC.
    #[serde(default)]
    pub days: BTreeMap<u64, Counts>,
    /// Incidents, oldest first.
    #[serde(default)]
    pub incidents: Vec<Incident>,
}

impl Evidence {
    /// Adds counts of now, and forgets what is too old.
    pub fn count(&mut self, counts: &Counts, now: Timestamp) {
        let today = day(now);
        let kept = self.days.entry(today).or_default();
        for (kind, n) in counts {
            let count = kept.entry(*kind).or_default();
            *count = count.saturating_add(*n);
        }
        self.days.retain(|day, counts| day.saturating_add(DAYS_MAX) > today && !counts.is_empty());
    }

    /// Adds an incident; of many the oldest is forgotten.
    pub fn report(&mut self, incident: Incident) {
        self.incidents.push(incident);
        let surplus = self.incidents.len().saturating_sub(INCIDENTS_MAX);
        self.incidents.drain(..surplus);
    }
}

fn day(at: Timestamp) -> u64 {
    at.0 / DAY_MS
}

/// What something of this age counts, of [`UNIT`]: half of it after each half-life, and evenly less in between.
fn weight(age_days: u64, config: &TrustConfig) -> u64 {
    if age_days >= config.window_days {
        return 0;
    }
    let half = config.half_life_days.max(1);
    let at = UNIT.checked_shr(u32::try_from(age_days / half).unwrap_or(u32::MAX)).unwrap_or_default();
    at - at * (age_days % half) / (2 * half)
}

/// One kind of evidence and what it did to a score.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Term {
    /// What was counted: a [`Kind`], or `incident` with its severity.
    pub what: Name,
    /// How often within the window.
    pub count: u64,
    /// The same with the old counting less, in hundredths.
    pub decayed_hundredths: u64,
    /// Points that it gave, or cost.
    pub points: u64,
}

/// How a score came about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reckoning {
    /// The score; none while there is too little evidence.
    pub score: Option<u32>,
    /// Test cases and model calls within the window.
    pub evidence: u64,
    /// Points of the tests, or of a version that was not tested.
    pub base: u64,
    /// What gave the base.
    pub tests: Vec<Term>,
    /// What runs did, and what it cost.
    pub runs: Vec<Term>,
    /// What it cost together, 100 at most.
    pub runs_cost: u64,
    /// Incidents, and what they cost.
    pub incidents: Vec<Term>,
    /// What they cost together.
    pub incidents_cost: u64,
}

impl Reckoning {
    /// One sentence about what gave the score.
    #[must_use]
    pub fn cause(&self) -> String {
        let cases = self.tests.iter().filter(|term| &*term.what != word(Kind::Calls));
        let tests: u64 = cases.map(|term| term.count).sum();
        format!(
            "{} points by {tests} test cases, -{} by what runs did, -{} by incidents; evidence {}",
            self.base, self.runs_cost, self.incidents_cost, self.evidence
        )
    }
}

/// The score that evidence gives on a day. Whole numbers only:
///
/// - every count is weighted by its age;
/// - base = 100 · passed / (passed + failed), or the points of a version that was not tested;
/// - runs = the sum of points · count · 100 / calls, at most 100;
/// - incidents = the sum of the points of each;
/// - score = base - runs - incidents, at least 0.
#[must_use]
pub fn reckon(evidence: &Evidence, config: &TrustConfig, now: Timestamp) -> Reckoning {
    let today = day(now);
    let sums = |kind: Kind| {
        let mut sums = (0_u64, 0_u64);
        for (day, counts) in &evidence.days {
            let weight = weight(today.saturating_sub(*day), config);
            let count = counts.get(&kind).copied().unwrap_or_default();
            if weight > 0 {
                sums = (sums.0.saturating_add(count), sums.1.saturating_add(count.saturating_mul(weight)));
            }
        }
        sums
    };
    let term = |what: &str, (count, decayed): (u64, u64), points: u64| Term {
        what: what.into(),
        count,
        decayed_hundredths: share(decayed, 100, UNIT),
        points,
    };
    let (passed, failed, calls) = (sums(Kind::Passed), sums(Kind::Failed), sums(Kind::Calls));
    let tested = passed.1.saturating_add(failed.1);
    let most = u64::from(SCORE_MAX);
    let base = if tested == 0 { config.untested } else { share(passed.1, most, tested) };
    let runs = Kind::AGAINST.map(|kind| {
        let sums = sums(kind);
        let cost = share(sums.1.saturating_mul(config.points(kind)), 100, calls.1.max(UNIT));
        term(word(kind), sums, cost.min(most))
    });
    let runs_cost = runs.iter().map(|term| term.points).sum::<u64>().min(most);
    let incidents: Vec<Term> = [Severity::Minor, Severity::Major, Severity::Critical]
        .into_iter()
        .filter_map(|severity| {
            let of_it = evidence.incidents.iter().filter(|incident| incident.severity == severity);
            let weights = of_it.map(|incident| weight(today.saturating_sub(day(incident.at)), config));
            let (count, sum) = weights.filter(|weight| *weight > 0).fold((0, 0), |(n, sum), w| (n + 1, sum + w));
            (count > 0)
                .then(|| term(severity_word(severity), (count, sum), share(sum, config.severity(severity), UNIT)))
        })
        .collect();
    let incidents_cost: u64 = incidents.iter().map(|term| term.points).sum();
    let found = passed.0.saturating_add(failed.0).saturating_add(calls.0);
    let whole = base.saturating_sub(runs_cost).saturating_sub(incidents_cost);
    let score = match (found >= config.evidence_min.max(1), incidents.is_empty()) {
        (true, _) => u32::try_from(whole).ok(),
        // Too little is known of it to say how bad that was.
        (false, false) => Some(0),
        (false, true) => None,
    };
    let tests = vec![term("passed", passed, base), term("failed", failed, 0), term("calls", calls, 0)];
    Reckoning { score, evidence: found, base, tests, runs: runs.to_vec(), runs_cost, incidents, incidents_cost }
}

/// `of * by / in_all`, without an overflow.
fn share(of: u64, by: u64, in_all: u64) -> u64 {
    let whole = u128::from(of) * u128::from(by) / u128::from(in_all.max(1));
    u64::try_from(whole).unwrap_or(u64::MAX)
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Calls => "calls",
        Kind::Passed => "passed",
        Kind::Failed => "failed",
        Kind::Denied => "denied",
        Kind::Breaker => "breaker",
        Kind::Unknown => "unknown",
        Kind::BadOutput => "bad_output",
    }
}

fn severity_word(severity: Severity) -> &'static str {
    match severity {
        Severity::Minor => "incident minor",
        Severity::Major => "incident major",
        Severity::Critical => "incident critical",
    }
}

/// The agents of a machine, each as `AGENT@VERSION`.
pub(crate) type Versions = BTreeMap<Name, Name>;

/// What a decision says about agents, by `AGENT@VERSION`. The run is as it is after it.
pub(crate) fn observed(run: &Run, versions: &Versions, entries: &[Entry]) -> BTreeMap<Name, Counts> {
    let mut found: BTreeMap<Name, Counts> = BTreeMap::new();
    let mut note = |agent: Option<&Name>, kind: Kind| {
        let Some(version) = agent.and_then(|agent| versions.get(agent)) else { return };
        *found.entry(version.clone()).or_default().entry(kind).or_default() += 1;
    };
    let asking = run.exec.as_ref().map(|exec| &exec.agent);
    for entry in entries {
        match entry {
            Entry::Decided { verdicts, .. } => {
                for verdict in verdicts.iter().filter(|verdict| verdict.answer == Answer::Deny) {
                    match &verdict.question {
                        Question::CallModel { agent, .. } => note(Some(agent), Kind::Denied),
                        Question::CallTool { agent, .. } => note(agent.as_ref(), Kind::Denied),
                        Question::StartMachine { .. } | Question::TakeTransition { .. } => {}
                    }
                }
            }
            Entry::CallIntended { call, .. } => {
                if let Call::Model { agent, .. } = &call.call {
                    note(Some(agent), Kind::Calls);
                }
            }
            Entry::BreakerTripped { target, is_agent, .. } => {
                note(if *is_agent { Some(target) } else { asking }, Kind::Breaker);
            }
            // What nobody is asked about is counted as the failure that it is.
            Entry::DoubtRaised { effect, doubt } if *doubt != Doubt::Failing => {
                let is_tool = run.calls.get(effect).is_some_and(|open| matches!(open.call, Call::Tool { .. }));
                note(asking.filter(|_| is_tool), Kind::Unknown);
            }
            Entry::MessagesAdded { repair: true, .. } => note(asking, Kind::BadOutput),
            Entry::SampleFailed { failure, .. } if failure.code == Code::ProviderBadOutput => {
                note(asking, Kind::BadOutput);
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp(20_000 * DAY_MS + 5);

    fn evidence(counts: &[(Kind, u64)], age_days: u64) -> Evidence {
        let mut evidence = Evidence::default();
        evidence.count(&counts.iter().copied().collect(), Timestamp(NOW.0 - age_days * DAY_MS));
        evidence
    }

    fn incident(severity: Severity, age_days: u64) -> Incident {
        let (reason, by) = ("it paid twice".into(), "ada".into());
        Incident { at: Timestamp(NOW.0 - age_days * DAY_MS), severity, reason, by }
    }

    #[test]
    fn a_score_is_the_tests_less_what_runs_did_and_incidents() {
        let config = TrustConfig::default();
        let score = |evidence: &Evidence| reckon(evidence, &config, NOW).score;
        assert_eq!(score(&evidence(&[(Kind::Passed, 19)], 0)), None, "too little");
        assert_eq!(score(&evidence(&[(Kind::Passed, 19), (Kind::Failed, 1)], 0)), Some(95));
        assert_eq!(score(&evidence(&[(Kind::Calls, 20)], 0)), Some(50), "it was not tested");
        // One of a hundred calls was denied: 5 points. Two of a hundred tripped a breaker: 20.
        let ran = [(Kind::Passed, 20), (Kind::Calls, 1_000), (Kind::Denied, 10), (Kind::Breaker, 20)];
        assert_eq!(score(&evidence(&ran, 0)), Some(75));
        let mut ran = evidence(&ran, 0);
        ran.report(incident(Severity::Minor, 0));
        ran.report(incident(Severity::Major, 14));
        assert_eq!(score(&ran), Some(75 - 5 - 12), "the major one counts half by now");
        ran.report(incident(Severity::Critical, 0));
        assert_eq!(score(&ran), Some(0));
        let told = reckon(&ran, &config, NOW);
        assert_eq!((told.base, told.runs_cost, told.incidents_cost), (100, 25, 117));
        assert!(told.cause().contains("100 points by 20 test cases"), "{}", told.cause());
    }

    #[test]
    fn an_incident_counts_where_little_else_is_known() {
        let mut little = Evidence::default();
        little.report(incident(Severity::Minor, 0));
        assert_eq!(reckon(&little, &TrustConfig::default(), NOW).score, Some(0));
        let mut old = Evidence::default();
        old.report(incident(Severity::Minor, 30));
        assert_eq!(reckon(&old, &TrustConfig::default(), NOW).score, None);
    }

    #[test]
    fn evidence_counts_less_with_its_age_and_not_at_all_beyond_the_window() {
        let config = TrustConfig { window_days: 30, half_life_days: 10, ..TrustConfig::default() };
        let at = |age| weight(age, &config);
        assert_eq!([at(0), at(5), at(10), at(15), at(20), at(29), at(30)], [1024, 768, 512, 384, 256, 141, 0]);
        let mut mixed = evidence(&[(Kind::Passed, 100)], 10);
        mixed.count(&BTreeMap::from([(Kind::Failed, 50)]), NOW);
        assert_eq!(reckon(&mixed, &config, NOW).score, Some(50), "what is older counts half");
        assert_eq!(reckon(&evidence(&[(Kind::Passed, 100)], 30), &config, NOW).score, None);
        let mut kept = evidence(&[(Kind::Passed, 1)], 400);
        kept.count(&BTreeMap::from([(Kind::Passed, 1)]), NOW);
        assert_eq!(kept.days.len(), 1, "what is a year old is forgotten");
    }

    #[test]
    fn what_cannot_be_meant_is_named() {
        let good = TrustConfig::default();
        assert_eq!(good.check(), Ok(()));
        for (key, wrong) in [
            ("window_days", TrustConfig { window_days: 0, ..good.clone() }),
            ("half_life_days", TrustConfig { half_life_days: 366, ..good.clone() }),
            ("evidence_min", TrustConfig { evidence_min: 0, ..good.clone() }),
            ("critical", TrustConfig { critical: 101, ..good.clone() }),
        ] {
            assert_eq!(wrong.check().expect_err("refused").0, key);
        }
    }

    proptest! {
        /// Any counts give a score of 0 to 100; more that speaks against never gives more, and neither does a failed test.
        #[test]
        fn prop_a_score_never_grows_by_what_speaks_against(
            counts in proptest::collection::vec((0_u64..40, any::<u64>(), 0_usize..7), 0..20),
            more in 1_u64..1_000,
            which in 0_usize..4,
        ) {
            let kinds = [Kind::Calls, Kind::Passed, Kind::Failed, Kind::Denied, Kind::Breaker, Kind::Unknown, Kind::BadOutput];
            let mut evidence = Evidence::default();
            for (age, count, kind) in counts {
                evidence.count(&BTreeMap::from([(kinds[kind], count)]), Timestamp(NOW.0 - age * DAY_MS));
            }
            let config = TrustConfig { evidence_min: 1, ..TrustConfig::default() };
            let before = reckon(&evidence, &config, NOW);
            prop_assert!(before.score.is_none_or(|score| score <= 100));
            let against = Kind::AGAINST[which];
            evidence.count(&BTreeMap::from([(against, more)]), NOW);
            let after = reckon(&evidence, &config, NOW);
            prop_assert!(after.score <= before.score);
            evidence.report(incident(Severity::Minor, 0));
            let reported = reckon(&evidence, &config, NOW);
            prop_assert!(reported.score.unwrap_or_default() <= after.score.unwrap_or_default());
        }
    }
}
