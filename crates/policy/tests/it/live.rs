//! A rule set in use while its files change.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::executor::block_on;
use indexmap::IndexMap;
use windlass_core::contract::{Class, Contract};
use windlass_core::ids::{Digest, RunId};
use windlass_core::label::LabelSet;
use windlass_core::machine::{Engine, Machine, Placement};
use windlass_core::policy::{Answer, Question, Verdict};
use windlass_core::run::TenantScope;
use windlass_core::time::Timestamp;
use windlass_policy::LivePolicy;
use windlass_policy::trust::{self, Change, TrustBook};
use windlass_ports::fake::MemoryStore;
use windlass_ports::policy::{Asker, Policy};

use crate::rules::{folder, write};

pub(crate) fn machine() -> Machine {
    let look = Contract { class: Class::Read, ..Contract::undeclared("look") };
    Machine {
        key: "machine.yml".into(),
        name: "shop".into(),
        spec_version: "4.2.1".into(),
        bundle: Digest::ZERO,
        engine: Engine::Simple,
        context: Vec::new(),
        states: IndexMap::new(),
        initial: "start".into(),
        agents: BTreeMap::new(),
        machines: BTreeMap::new(),
        tools: BTreeMap::from([("look".into(), Arc::new(look))]),
        offered_tools: Vec::new(),
        searched_tools: Vec::new(),
        lifecycle: Vec::new(),
        ceilings: windlass_core::budget::Ceilings::default(),
        input_schema: None,
        output_schema: None,
        skills: windlass_core::skill::Skills::default(),
        tool_index: windlass_core::select::Indexed::default(),
        child_contracts: BTreeMap::new(),
        placement: Placement::default(),
        provenance: windlass_core::machine::Provenance::default(),
        conversation: windlass_core::near::Conversation::default(),
        near_percent: windlass_core::near::NEAR_PERCENT,
        tables: BTreeMap::new(),
    }
}

/// What a run that no candidate was chosen for before is answered.
pub(crate) fn ask(policy: &LivePolicy, run: &str, question: &Question) -> Verdict {
    let (machine, scope, root) = (machine(), TenantScope::default(), RunId::stored(run));
    let asker = Asker { root: &root, scope: &scope, machine: &machine, kept: None, arguments: &BTreeMap::new() };
    let mut verdicts = policy.answer(&asker, std::slice::from_ref(question));
    assert_eq!(verdicts.len(), 1);
    verdicts.remove(0)
}

fn answer(policy: &LivePolicy, tool: &str) -> (Answer, String) {
    let question =
        Question::CallTool { tool: tool.into(), arguments: Digest::ZERO, agent: None, labels: LabelSet::default() };
    let verdict = ask(policy, "run-1", &question);
    assert_eq!(verdict.question, question);
    assert_eq!(verdict.version, policy.version());
    (verdict.answer, verdict.rule.to_string())
}

#[test]
fn a_changed_set_is_taken_and_a_broken_one_is_not() {
    let folder = folder(&[("a.cedar", "@id(\"one\") permit (principal, action, resource);")]);
    let policy = LivePolicy::open(folder.path()).expect("opens");
    assert_eq!(answer(&policy, "look"), (Answer::Allow, "one".into()));
    assert_eq!(answer(&policy, "other"), (Answer::Deny, "windlass.unknown_tool".into()));
    assert_eq!(policy.refresh(), Ok(false));
    let first = policy.version();

    write(folder.path(), &[("a.cedar", "@id(\"two\") @reason(\"closed\") forbid (principal, action, resource);")]);
    assert_eq!(policy.refresh(), Ok(true));
    assert_eq!(answer(&policy, "look"), (Answer::Deny, "two".into()));
    let second = policy.version();
    assert_ne!(first, second);

    write(folder.path(), &[("b.cedar", "permit (principal, action, resource) when { nonsense };")]);
    let findings = policy.refresh().expect_err("broken");
    assert!(findings.to_string().contains("b.cedar:1:"), "{findings}");
    assert_eq!((answer(&policy, "look"), policy.version()), ((Answer::Deny, "two".into()), second.clone()));
    // It goes on saying so until it is mended.
    policy.refresh().expect_err("still broken");

    std::fs::remove_file(folder.path().join("b.cedar")).expect("removed");
    assert_eq!(policy.refresh(), Ok(false));
    assert_eq!(policy.version(), second);
}

#[test]
fn a_set_that_is_broken_from_the_start_is_refused() {
    let folder = folder(&[("a.cedar", "permit (principal, action, resource)")]);
    assert!(LivePolicy::open(folder.path()).is_err());
}

#[test]
fn a_score_that_is_set_counts_with_the_next_question_and_is_in_the_verdict() {
    let rules = r#"@id("free") permit (principal, action, resource);
@id("low") forbid (principal, action == Action::"CallTool", resource)
unless { context has agent && context.agent.trust >= 50 };"#;
    let folder = folder(&[("a.cedar", rules)]);
    let store = MemoryStore::default();
    let book = TrustBook::default();
    let policy = LivePolicy::open_with(folder.path(), book.clone(), None).expect("opens");
    let asked = || {
        let (tool, agent, labels) = ("look".into(), Some("clerk".into()), LabelSet::default());
        let question = Question::CallTool { tool, arguments: Digest::ZERO, agent, labels };
        let verdict = ask(&policy, "run-1", &question);
        (verdict.answer, verdict.trust)
    };
    assert_eq!(asked(), (Answer::Deny, None));
    // An agent that the machine does not have has no version.
    let change = |score| Change { score, by: "ada".into(), reason: "evals".into(), at: Timestamp(1), computed: false };
    block_on(trust::set(&store, "clerk@", change(80))).expect("set");
    assert_eq!(asked(), (Answer::Deny, None), "it has not been read yet");
    assert!(block_on(book.refresh(&store)).expect("read"));
    assert_eq!(asked(), (Answer::Allow, Some(80)));
    block_on(trust::set(&store, "clerk@", change(10))).expect("set");
    assert!(block_on(book.refresh(&store)).expect("read"));
    assert_eq!(asked(), (Answer::Deny, Some(10)));
    assert!(!block_on(book.refresh(&store)).expect("read"), "nothing has changed");
    let all = block_on(trust::all(&store)).expect("read");
    let changes: Vec<u32> = all["clerk@"].changes.iter().map(|change| change.score).collect();
    assert_eq!(changes, [80, 10]);
}
