//! A policy over whole runs: nothing that a run does goes around it.

mod tree;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tempfile::TempDir;
use windlass::{Builder, Class, Contract, Failure, FnTool, Idempotency, RunId, Value, Windlass};
use windlass_core::effect::Call;
use windlass_core::ids::Name;
use windlass_core::journal::{Entry, Record};
use windlass_core::policy::{Answer, Mode, Question, Verdict};
use windlass_core::route::Choice;
use windlass_policy::CandidateConfig;

/// A state that performs an action, then an agent with tools.
const MACHINE: &str = r#"
spec: flatmachine
spec_version: "4.2.1"
data:
  name: shop
  agents:
    clerk:
      spec: flatagent
      spec_version: "4.2.1"
      data:
        name: clerk
        model: { provider: scripted, name: small, max_tokens: 100 }
        system: You help.
        user: Go.
  states:
    open:
      type: initial
      action: greet
      transitions:
        - to: ask
    ask:
      agent: clerk
      tool_loop:
        max_turns: 4
      output_to_context:
        answer: output.content
      transitions:
        - to: done
    done:
      type: final
      output:
        answer: context.answer
  settings:
    tools: [a, b, c, d]
"#;

const TOOLS: [&str; 4] = ["a", "b", "c", "d"];

struct Outcome {
    /// Tools and actions that were performed.
    performed: Vec<String>,
    records: Vec<Record>,
    ended: windlass_runtime::Report,
}

/// Runs the machine with a model that asks for these tools in one turn.
async fn run(policy: &TempDir, calls: &[&str]) -> Outcome {
    run_with(Windlass::builder().policy(policy.path()), calls).await
}

async fn run_with(builder: Builder, calls: &[&str]) -> Outcome {
    run_machine(builder, calls, MACHINE, Value::empty_map()).await
}

async fn run_machine(builder: Builder, calls: &[&str], machine: &str, input: Value) -> Outcome {
    let performed: Arc<Mutex<Vec<String>>> = Arc::default();
    let mut builder = builder.script(script(calls));
    for name in TOOLS.into_iter().chain(["greet"]) {
        let (performed, own) = (Arc::clone(&performed), name.to_owned());
        let contract = Contract { class: Class::Read, idempotency: Idempotency::Natural, ..Contract::undeclared(name) };
        builder = builder.tool(FnTool::sync(contract, move |_| {
            performed.lock().expect("the log").push(own.clone());
            Ok::<_, Failure>(Value::object([("output", Value::from("done"))]))
        }));
    }
    let windlass = builder.build().await.expect("built");
    let outcome = windlass.run_text(machine, input).await.expect("runs");
    let id: RunId = outcome.run_id().clone();
    let parts = windlass.engine().parts();
    let rows = parts.store.journal(id.clone(), 0, 10_000).await.expect("a journal");
    let records = rows.iter().map(|row| Record::decode(&row.bytes).expect("a record")).collect();
    let ended = windlass.engine().status(&id).await.expect("a status").expect("the run");
    Outcome { performed: performed.lock().expect("the log").clone(), records, ended }
}

fn script(calls: &[&str]) -> String {
    let calls: Vec<String> =
        calls.iter().enumerate().map(|(n, name)| format!("{{name: {name}, arguments: {{n: {n}}}}}")).collect();
    format!(
        "rules:\n- turn: 1\n  reply: {{tool_calls: [{}]}}\n- turn: 2\n  reply: {{content: bye}}\n",
        calls.join(", ")
    )
}

/// Recognises a question.
type Fits = Box<dyn Fn(&Question) -> bool>;

/// What recognises the question that an entry needs an answer to, if it needs one. `agent` is whose calls of models are
/// made again.
fn needs(entry: &Entry, agent: &Name) -> Option<Fits> {
    let of_model = |agent: Name, route: Option<&Choice>| -> Fits {
        let model = route.map(|route| route.settings.model.clone());
        Box::new(move |question| {
            matches!(question, Question::CallModel { agent: asked, model: named }
                if *asked == agent && model.as_ref().is_none_or(|model| model == named))
        })
    };
    match entry {
        Entry::CallIntended { call, .. } => match call.call.clone() {
            Call::Tool { tool, arguments, .. } => Some(Box::new(move |question| {
                matches!(question, Question::CallTool { tool: asked, arguments: hash, .. }
                    if *asked == tool && *hash == arguments.digest())
            })),
            Call::Action { action } => {
                Some(Box::new(move |question| matches!(question, Question::CallTool { tool, .. } if *tool == action)))
            }
            Call::Model { agent, .. } => Some(of_model(agent, call.route.as_deref())),
            Call::Hook { .. } | Call::Verify { .. } => None,
        },
        // The next link of a chain is another model.
        Entry::AttemptStarted { route: Some(route), .. } => Some(of_model(agent.clone(), Some(route))),
        Entry::ChildStarted { child, .. } => {
            let wanted = Question::StartMachine { machine: child.machine.clone() };
            Some(Box::new(move |question| *question == wanted))
        }
        Entry::TransitionTaken { from, to, index: Some(_) } => {
            let wanted = Question::TakeTransition { from: from.clone(), to: to.clone() };
            Some(Box::new(move |question| *question == wanted))
        }
        Entry::FailureRouted { from, to, by } if &**by != "hook" => {
            let wanted = Question::TakeTransition { from: from.clone(), to: to.clone() };
            Some(Box::new(move |question| *question == wanted))
        }
        // A hook leads a run elsewhere only where the state had a way out that it may take.
        Entry::TransitionTaken { from, index: None, .. } => {
            let from = from.clone();
            Some(Box::new(
                move |question| matches!(question, Question::TakeTransition { from: asked, .. } if *asked == from),
            ))
        }
        _ => None,
    }
}

/// Every call, child and transition of a journal has a verdict that allowed it: beside it or, of a transition, where a hook
/// was told of it. Gives how often a hook led the run elsewhere.
fn nothing_goes_around(records: &[Record]) -> usize {
    let (mut ways_out, mut agent, mut redirected) = (Vec::new(), Name::from(""), 0);
    for record in records {
        let verdicts: &[Verdict] = match &record.entries[0] {
            Entry::Decided { verdicts, .. } => verdicts,
            other => panic!("{other:?}"),
        };
        let is_way_out = |verdict: &&Verdict| matches!(verdict.question, Question::TakeTransition { .. });
        ways_out.extend(verdicts.iter().filter(is_way_out).cloned());
        for entry in &record.entries {
            if let Entry::CallIntended { call, .. } = entry
                && let Call::Model { agent: asked, .. } = &call.call
            {
                agent = asked.clone();
            }
            let Some(fits) = needs(entry, &agent) else { continue };
            let taken = matches!(entry, Entry::TransitionTaken { .. });
            redirected += usize::from(matches!(entry, Entry::TransitionTaken { index: None, .. }));
            let answers = if taken { &ways_out[..] } else { verdicts };
            let verdict = answers.iter().rfind(|verdict| fits(&verdict.question));
            let verdict = verdict.unwrap_or_else(|| panic!("no verdict for {entry:?} among {answers:?}"));
            assert_eq!(verdict.answer, Answer::Allow, "{entry:?}");
            assert!(!verdict.rule.is_empty() && !verdict.version.is_empty());
        }
    }
    redirected
}

/// Rules that permit these tools, and everything that is no tool.
fn rules(permitted: &BTreeSet<&str>) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let mut text = String::from(
        "@id(\"flow\") permit (principal, action in [Action::\"CallModel\", Action::\"TakeTransition\"], resource);\n",
    );
    for tool in permitted {
        text.push_str(&format!(
            "@id(\"may.{tool}\") permit (principal, action == Action::\"CallTool\", resource == Tool::\"{tool}\");\n"
        ));
    }
    std::fs::write(folder.path().join("rules.cedar"), text).expect("written");
    folder
}

#[test]
fn prop_no_call_and_no_transition_goes_around_the_policy() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let subsets = proptest::sample::subsequence(TOOLS.to_vec(), 0..=TOOLS.len());
    let calls = proptest::collection::vec(proptest::sample::select(TOOLS.to_vec()), 1..6);
    let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
    runner
        .run(&(subsets, calls), |(permitted, calls)| {
            let mut permitted: BTreeSet<&str> = permitted.into_iter().collect();
            permitted.insert("greet");
            let folder = rules(&permitted);
            let outcome = runtime.block_on(run(&folder, &calls));
            prop_assert_eq!(nothing_goes_around(&outcome.records), 0);
            let wanted: Vec<&str> =
                std::iter::once("greet").chain(calls.iter().copied().filter(|call| permitted.contains(call))).collect();
            prop_assert_eq!(outcome.performed, wanted);
            prop_assert!(outcome.ended.head.status == windlass_core::run::Status::Completed);
            Ok(())
        })
        .expect("nothing goes around");
}

/// With a candidate beside the rules, in every state that one can be in: every call and transition was allowed by the set
/// that judges its run, and whatever cannot be loaded or was not chosen lets nothing through that the set in force does not.
#[test]
fn prop_no_call_goes_around_the_policy_while_a_candidate_is_tried() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let subsets = || proptest::sample::subsequence(TOOLS.to_vec(), 0..=TOOLS.len());
    let calls = proptest::collection::vec(proptest::sample::select(TOOLS.to_vec()), 1..6);
    let state = (proptest::sample::select(vec![0_u32, 50, 100]), any::<bool>(), 0_u32..4);
    let mut runner = TestRunner::new(Config { cases: 32, failure_persistence: None, ..Config::default() });
    runner
        .run(&(subsets(), subsets(), calls, state), |(in_force, candidate, calls, (percent, enforced, broken))| {
            let with_greet = |tools: Vec<&'static str>| tools.into_iter().chain(["greet"]).collect::<BTreeSet<_>>();
            let (in_force, candidate) = (with_greet(in_force), with_greet(candidate));
            let (one, two) = (rules(&in_force), rules(&candidate));
            // A comment makes it another set even where it permits the same.
            std::fs::write(two.path().join("more.cedar"), "// tried\n").expect("written");
            if broken == 0 {
                std::fs::write(two.path().join("broken.cedar"), "permit (principal").expect("written");
            }
            if broken == 1 {
                // It cannot be evaluated for any tool: whatever it would allow, it denies.
                let text = "@id(\"errs\") forbid (principal, action == Action::\"CallTool\", resource)\n\
                            when { 9223372036854775807 + (if resource.class == \"read\" then 1 else 1) < 0 };\n";
                std::fs::write(two.path().join("errs.cedar"), text).expect("written");
            }
            let mode = if enforced { Mode::Enforce } else { Mode::Shadow };
            let path = two.path().to_owned();
            let config = CandidateConfig { path, percent, mode, differ_max: 100, ..CandidateConfig::default() };
            let builder = Windlass::builder().policy(one.path()).candidate(config);
            let outcome = runtime.block_on(run_with(builder, &calls));
            nothing_goes_around(&outcome.records);
            let by_candidate = outcome.ended.run.choice.as_ref().is_some_and(|choice| choice.is_candidates());
            prop_assert!(!by_candidate || (enforced && broken != 0 && percent > 0));
            prop_assert!(by_candidate || !(enforced && broken != 0 && percent == 100));
            let judge = match (by_candidate, broken) {
                (false, _) => in_force,
                (true, 1) => BTreeSet::new(),
                (true, _) => candidate,
            };
            let all = std::iter::once("greet").chain(calls.iter().copied());
            let mut wanted: Vec<&str> = all.filter(|call| judge.contains(call)).collect();
            if !judge.contains("greet") {
                wanted.clear();
            }
            prop_assert_eq!(outcome.performed, wanted);
            Ok(())
        })
        .expect("nothing goes around");
}

#[tokio::test]
async fn an_action_that_no_rule_permits_fails_the_run_with_the_rule() {
    let folder = rules(&BTreeSet::from(["a"]));
    let outcome = run(&folder, &["a"]).await;
    assert_eq!(outcome.performed, Vec::<String>::new());
    let Some(windlass_core::input::Ending::Failed { failure, state }) = outcome.ended.run.ending else {
        panic!("should fail")
    };
    assert_eq!((failure.code, state.as_deref()), (windlass::Code::PolicyDenied, Some("open")));
    assert_eq!(failure.detail.get("rule"), Some(&Value::from("windlass.default_deny")), "{failure}");
    assert!(failure.detail.get("version").is_some());
}

/// Rules that permit everything, but no call with an `n` above 1.
fn small_ones() -> TempDir {
    let folder = rules(&BTreeSet::from(["greet", "a", "b", "c"]));
    let large = "@id(\"large\") @reason(\"too large\") forbid (principal, action == Action::\"CallTool\", resource)\n\
                 when { context.args has n && context.args.n > 1 };\n";
    std::fs::write(folder.path().join("large.cedar"), large).expect("written");
    std::fs::write(folder.path().join("arguments.cedarschema"), "type Arguments = { n?: Long };\n").expect("written");
    folder
}

/// The verdicts of a journal that a rule gave.
fn by_rule<'a>(records: &'a [Record], rule: &str) -> Vec<&'a Verdict> {
    let entries = records.iter().flat_map(|record| &record.entries);
    let verdicts = entries.flat_map(|entry| match entry {
        Entry::Decided { verdicts, .. } => verdicts.as_slice(),
        _ => &[],
    });
    verdicts.filter(|verdict| &*verdict.rule == rule).collect()
}

#[tokio::test]
async fn rules_decide_by_what_a_model_puts_into_a_call() {
    let folder = small_ones();
    // The model counts its calls: the third and the fourth have a 2 and a 3.
    let outcome = run(&folder, &["a", "b", "c", "a"]).await;
    assert_eq!(outcome.performed, ["greet", "a", "b"]);
    nothing_goes_around(&outcome.records);
    let asked: Vec<_> = by_rule(&outcome.records, "large").iter().map(|verdict| verdict.question.clone()).collect();
    let with = |n: i64| Value::object([("n", Value::Int(n))]).digest();
    for n in [2, 3] {
        let is_bound =
            |question: &Question| matches!(question, Question::CallTool { arguments, .. } if *arguments == with(n));
        assert!(asked.iter().any(is_bound), "{asked:?}");
    }
}

/// A state that calls a tool with what the run was given.
const CALLS: &str = r#"
spec: flatmachine
spec_version: "4.2.1"
data:
  name: calls
  states:
    call:
      type: initial
      action: a
      arguments: { n: "{{ input.n }}" }
      transitions:
        - to: done
    done: { type: final }
"#;

#[tokio::test]
async fn rules_decide_by_what_a_state_calls_a_tool_with() {
    for (n, performed) in [(1, vec!["a"]), (2, vec![])] {
        let folder = small_ones();
        let input = Value::object([("n", Value::Int(n))]);
        let outcome = run_machine(Windlass::builder().policy(folder.path()), &["a"], CALLS, input.clone()).await;
        assert_eq!(outcome.performed, performed);
        let rule = if n > 1 { "large" } else { "may.a" };
        let asked = by_rule(&outcome.records, rule);
        assert_eq!(asked.len(), 1, "{asked:?}");
        let hash = input.digest();
        assert!(matches!(asked[0].question, Question::CallTool { arguments, .. } if arguments == hash), "{asked:?}");
        if n == 1 {
            nothing_goes_around(&outcome.records);
        }
    }
}
