//! A rule set that is tried beside the one in force.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use futures::StreamExt;
use futures::executor::block_on;
use proptest::prelude::*;
use tempfile::TempDir;
use windlass_core::ids::{Digest, RunId};
use windlass_core::label::LabelSet;
use windlass_core::policy::{Answer, Choice, Mode, Question, Sticky, Verdict};
use windlass_core::run::{Run, TenantScope};
use windlass_core::time::Timestamp;
use windlass_policy::{CandidateConfig, LivePolicy, Load, TrustBook, trial};
use windlass_ports::fake::MemoryStore;
use windlass_ports::policy::{Asker, Policy};

use crate::live::{ask, machine};
use crate::rules::{folder, write};

const OPEN: &str = "@id(\"open\") permit (principal, action, resource);";
const SHUT: &str = "@id(\"shut\") forbid (principal, action, resource);";

fn look() -> Question {
    Question::CallTool { tool: "look".into(), arguments: Digest::ZERO, agent: None, labels: LabelSet::default() }
}

fn trying(in_force: &TempDir, candidate: &Path, config: CandidateConfig) -> Arc<LivePolicy> {
    let config = CandidateConfig { path: candidate.to_owned(), ..config };
    LivePolicy::open_with(in_force.path(), TrustBook::default(), Some(config)).expect("opens")
}

fn enforced() -> CandidateConfig {
    CandidateConfig { mode: Mode::Enforce, ..CandidateConfig::default() }
}

fn run(id: &str) -> Run {
    Run::blank(windlass_core::run::Start::new(
        RunId::stored(id),
        Digest::ZERO,
        "machine.yml".into(),
        "shop".into(),
        windlass_core::value::Value::Null,
    ))
}

/// Who judged, what it said, and what the other says.
fn told(verdict: &Verdict) -> (Answer, &str, Option<(Answer, &str)>) {
    (verdict.answer, &verdict.rule, verdict.other.as_ref().map(|other| (other.answer, &*other.rule)))
}

#[test]
fn in_shadow_the_set_in_force_judges_and_when_enforced_the_candidate_does() {
    let (open, shut) = (folder(&[("a.cedar", OPEN)]), folder(&[("a.cedar", SHUT)]));
    let shadow = trying(&open, shut.path(), CandidateConfig::default());
    let verdict = ask(&shadow, "r", &look());
    assert_eq!(told(&verdict), (Answer::Allow, "open", Some((Answer::Deny, "shut"))));
    assert_eq!(verdict.version, shadow.version());
    let enforced = trying(&open, shut.path(), enforced());
    let verdict = ask(&enforced, "r", &look());
    assert_eq!(told(&verdict), (Answer::Deny, "shut", Some((Answer::Allow, "open"))));
    assert_eq!(Some(&verdict.version), enforced.candidate().as_ref(), "the verdict has the version of who judged");
    let (in_force, candidate) = verdict.sides().expect("both");
    assert_eq!((&**in_force.rule, &**candidate.rule), ("open", "shut"));
    // Of no share, nothing is asked of the candidate; the run is on that side all the same.
    let none = trying(&open, shut.path(), CandidateConfig { percent: 0, ..self::enforced() });
    let verdict = ask(&none, "r", &look());
    assert_eq!(told(&verdict), (Answer::Allow, "open", None));
    assert!(!verdict.choice.expect("a side").chosen);
}

#[test]
fn a_candidate_that_is_the_set_in_force_is_none() {
    let (one, two) = (folder(&[("a.cedar", OPEN)]), folder(&[("a.cedar", OPEN)]));
    let policy = trying(&one, two.path(), enforced());
    assert_eq!((policy.candidate(), policy.offered()), (None, None));
    assert_eq!(ask(&policy, "r", &look()).choice, None);
}

#[test]
fn a_candidate_that_is_broken_or_missing_is_not_asked_and_one_that_breaks_stays_as_it_was() {
    let (shut, next) = (folder(&[("a.cedar", SHUT)]), folder(&[("a.cedar", "permit (principal")]));
    let policy = trying(&shut, next.path(), enforced());
    let mut loads = policy.loads();
    assert_eq!(told(&ask(&policy, "r", &look())), (Answer::Deny, "shut", None));
    assert_eq!(block_on(loads.next()), Some(Load::InForce(policy.version())));
    assert!(matches!(block_on(loads.next()), Some(Load::CandidateRefused(_))));
    let missing = trying(&shut, &next.path().join("nowhere"), enforced());
    assert_eq!(told(&ask(&missing, "r", &look())), (Answer::Deny, "shut", None));
    write(next.path(), &[("a.cedar", OPEN)]);
    policy.refresh().expect("the set in force is good");
    let candidate = policy.candidate().expect("a candidate");
    assert_eq!(block_on(loads.next()), Some(Load::Candidate(Some(candidate))));
    assert_eq!(ask(&policy, "r", &look()).answer, Answer::Allow);
    write(next.path(), &[("b.cedar", "permit (principal")]);
    policy.refresh().expect("the set in force is good");
    assert!(matches!(block_on(loads.next()), Some(Load::CandidateRefused(_))));
    assert_eq!(ask(&policy, "r", &look()).answer, Answer::Allow, "the last good one");
    // It becomes the set in force: nothing is tried any more.
    std::fs::remove_file(next.path().join("b.cedar")).expect("removed");
    write(shut.path(), &[("a.cedar", OPEN)]);
    assert_eq!(policy.refresh(), Ok(true));
    assert_eq!(policy.candidate(), None);
    assert_eq!(ask(&policy, "r", &look()).choice, None);
}

#[test]
fn a_run_keeps_its_side_until_the_candidate_is_another_one() {
    let (open, shut) = (folder(&[("a.cedar", OPEN)]), folder(&[("a.cedar", SHUT)]));
    let policy = trying(&open, shut.path(), CandidateConfig { percent: 0, ..enforced() });
    let (machine, scope, root) = (machine(), TenantScope::default(), RunId::stored("r"));
    let of = |candidate: &str| Choice {
        candidate: candidate.into(),
        mode: Mode::Enforce,
        sticky: Sticky::Run,
        percent: 100,
        chosen: true,
    };
    let asked = |kept: &Choice| {
        let asker =
            Asker { root: &root, scope: &scope, machine: &machine, kept: Some(kept), arguments: &BTreeMap::new() };
        assert_eq!(policy.choice(&asker), policy.answer(&asker, &[look()])[0].choice.as_deref().cloned());
        policy.answer(&asker, &[look()])[0].answer
    };
    assert_eq!(asked(&of(&policy.candidate().expect("a candidate"))), Answer::Deny);
    assert_eq!(asked(&of("0123456789ab")), Answer::Allow);
}

#[test]
fn a_candidate_that_differs_too_much_is_withdrawn_in_every_process_and_stays_so() {
    let (open, shut) = (folder(&[("a.cedar", OPEN)]), folder(&[("a.cedar", SHUT)]));
    let store = MemoryStore::default();
    let config = CandidateConfig { decisions_min: 10, differ_max: 20, ..enforced() };
    let policy = trying(&open, shut.path(), config.clone());
    let other = trying(&open, shut.path(), config.clone());
    let sync = |policy: &LivePolicy, at| {
        block_on(policy.sync_trial(&store, &"w1".into(), Timestamp(at))).expect("synced").expect("a trial")
    };
    let epoch = policy.epoch();
    let verdict = ask(&policy, "r", &look());
    // Nine here and nine there: neither sees ten before they exchange what they counted.
    for policy in [&policy, &other] {
        (0..9).for_each(|_| policy.judged(&run("r"), std::slice::from_ref(&verdict)));
        assert_eq!(ask(policy, "r", &look()).answer, Answer::Deny);
    }
    assert_eq!(sync(&policy, 1).1.counts.decisions, 9);
    let (candidate, trial) = sync(&other, 2);
    let withdrawn = trial.withdrawn.expect("withdrawn");
    assert!(withdrawn.by_itself && !withdrawn.told && withdrawn.run.is_some(), "{withdrawn:?}");
    assert!(withdrawn.reason.contains("denied 18 of 18"), "{}", withdrawn.reason);
    assert_eq!(ask(&other, "r", &look()).answer, Answer::Allow);
    sync(&policy, 3);
    assert_eq!(told(&ask(&policy, "r", &look())), (Answer::Allow, "open", None));
    assert_ne!(policy.epoch(), epoch, "answers that were kept are no answers any more");
    // A process that begins later reads that before it decides.
    let third = trying(&open, shut.path(), config);
    sync(&third, 4);
    assert_eq!((third.candidate(), third.offered().as_ref()), (None, Some(&candidate)));
    // Tried again, it counts anew; withdrawn by a person, it is at once.
    block_on(trial::resume(&store, &candidate)).expect("resumed");
    assert_eq!(sync(&third, 5).1.counts.decisions, 0);
    assert_eq!(ask(&third, "r", &look()).answer, Answer::Deny);
    block_on(trial::withdraw(&store, &candidate, "ada".into(), "no".into(), Timestamp(6))).expect("withdrawn");
    sync(&third, 7);
    assert_eq!(ask(&third, "r", &look()).answer, Answer::Allow);
    // Another version of its files is another candidate.
    write(shut.path(), &[("a.cedar", "@id(\"other\") forbid (principal, action, resource);")]);
    third.refresh().expect("the set in force is good");
    assert_eq!(ask(&third, "r", &look()).answer, Answer::Deny);
}

#[test]
fn one_process_withdraws_at_once_by_what_it_counted_itself() {
    let (open, shut) = (folder(&[("a.cedar", OPEN)]), folder(&[("a.cedar", SHUT)]));
    let policy = trying(&open, shut.path(), CandidateConfig { decisions_min: 3, ..enforced() });
    let verdict = ask(&policy, "r", &look());
    policy.judged(&run("r"), &[verdict.clone(), verdict.clone()]);
    assert_eq!(ask(&policy, "r", &look()).answer, Answer::Deny);
    policy.judged(&run("r"), &[verdict]);
    assert_eq!(ask(&policy, "r", &look()).answer, Answer::Allow, "without a store");
    let store = MemoryStore::default();
    let synced = block_on(policy.sync_trial(&store, &"w1".into(), Timestamp(9))).expect("synced").expect("a trial");
    assert_eq!((synced.1.counts.decisions, synced.1.withdrawn.map(|one| one.at)), (3, Some(Timestamp(9))));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// What judges is one of the two sets and what it says is what it says alone, whatever was asked before: answers of one
    /// are never given for the other. Without an enforced candidate that can be used, nothing is allowed that is not in force.
    #[test]
    fn prop_no_answer_of_one_set_stands_for_the_other(
        in_force in proptest::sample::subsequence(vec!["look", "pay", "send"], 0..=3),
        candidate in proptest::sample::subsequence(vec!["look", "pay", "send"], 0..=3),
        percent in 0_u32..=100,
        is_enforced in any::<bool>(),
        is_broken in any::<bool>(),
        asked in proptest::collection::vec((0_u32..12, proptest::sample::select(vec!["look", "pay", "send"])), 1..40),
    ) {
        let text = |tools: &[&str]| {
            let rule = |tool: &&str| format!(
                "@id(\"{tool}\") permit (principal, action == Action::\"CallTool\", resource == Tool::\"{tool}\");\n"
            );
            tools.iter().map(rule).collect::<String>() + "permit (principal, action == Action::\"CallModel\", resource);"
        };
        let entities = r#"[{"uid": {"type": "Tool", "id": "pay"}}, {"uid": {"type": "Tool", "id": "send"}}]"#;
        let one = folder(&[("a.cedar", &text(&in_force)), ("e.json", entities)]);
        let two = folder(&[("a.cedar", &text(&candidate)), ("e.json", entities), ("z.md", "beside")]);
        if is_broken {
            write(two.path(), &[("broken.cedar", "permit (principal")]);
        }
        let mode = if is_enforced { Mode::Enforce } else { Mode::Shadow };
        let policy = trying(&one, two.path(), CandidateConfig { percent, mode, ..CandidateConfig::default() });
        let (in_force, candidate): (BTreeSet<&str>, BTreeSet<&str>) =
            (in_force.into_iter().collect(), candidate.into_iter().collect());
        for (number, tool) in asked {
            let question = Question::CallTool {
                tool: tool.into(), arguments: Digest::ZERO, agent: None, labels: LabelSet::default(),
            };
            let verdict = ask(&policy, &format!("run-{number}"), &question);
            let by_candidate = verdict.choice.as_ref().is_some_and(|choice| choice.is_candidates());
            prop_assert!(!by_candidate || (is_enforced && !is_broken));
            let judge = if by_candidate { &candidate } else { &in_force };
            prop_assert_eq!(verdict.answer == Answer::Allow, judge.contains(tool), "{:?}", verdict);
            let version = if by_candidate { policy.candidate() } else { Some(policy.version()) };
            prop_assert_eq!(Some(&verdict.version), version.as_ref());
            if let Some(other) = &verdict.other {
                let judge = if by_candidate { &in_force } else { &candidate };
                prop_assert_eq!(other.answer == Answer::Allow, judge.contains(tool), "{:?}", verdict);
            }
        }
    }
}
