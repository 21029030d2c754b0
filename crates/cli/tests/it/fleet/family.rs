//! A worker that dies with a child machine in its hands while the parent waits: another worker goes on, nothing that was settled is
//! done again, and what the child cost is added to the parent once.
//!
//! Slow on purpose: real processes are started, killed and waited for.

use nix::sys::signal::Signal;
use serde_json::{Value as Json, json};

use super::{Fleet, Place, action};

const AGENT: &str = r#"  agents:
    writer:
      spec: flatagent
      spec_version: "4.2.1"
      data:
        name: writer
        model: { provider: scripted, name: small, max_tokens: 100 }
        system: You write one line.
        user: "Write about tides."
"#;

/// Asks the model once, and then leaves the rest to a child.
const PARENT: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: parent
AGENTS  machines: {child: ./child.yml}
  states:
    write: {type: initial, agent: writer, transitions: [{to: leave}]}
    leave: {machine: child, output_to_context: {answer: output.answer}, transitions: [{to: done}]}
    done: {type: final, output: {answer: context.answer}}
"#;

/// Asks the model before and after an action.
const CHILD: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: child
AGENTS  states:
    write: {type: initial, agent: writer, transitions: [{to: act}]}
    act: {action: act, output_to_context: {answer: output}, transitions: [{to: again}]}
    again: {agent: writer, transitions: [{to: done}]}
    done: {type: final, output: {answer: context.answer}}
"#;

/// The first of these lasts until its worker is dead.
const SCRIPT: &str = "echo x >> begun; [ $(wc -l < begun) -gt 1 ] || exec sleep 600; echo 7";
/// What one answer of the model uses, in tokens and in millionths of a dollar.
const TOKENS: u64 = 20 + 8;
const COST: u64 = 20 * 3 + 8 * 15;

fn goes_on(postgres: bool) {
    let fleet = Fleet::on(Place::new(), postgres);
    fleet.write("parent.yml", &PARENT.replace("AGENTS", AGENT));
    fleet.write("child.yml", &CHILD.replace("AGENTS", AGENT));
    fleet.write(
        "prices.yml",
        "version: own\nmodels:\n- {provider: scripted, model: small, rates: {input: 3000000, output: 15000000}}\n",
    );
    let config = "prices = \"prices.yml\"\n[providers.scripted]\nscript = \"script.yml\"\n";
    fleet.write("windlass.toml", &format!("{config}{}", action(SCRIPT)));
    let first = fleet.start(&["worker"]);
    fleet.submit("parent.yml", "parent", &[]);
    fleet.until_all("the call of the child is out", || fleet.place.path("begun").exists().then_some(()));
    fleet.until("parent", "waiting");
    first.signal(Signal::SIGKILL);
    let second = fleet.start(&["worker"]);
    assert_eq!(fleet.output("parent"), json!({ "answer": 7 }));

    let begun = std::fs::read_to_string(fleet.place.path("begun")).expect("read").lines().count();
    assert_eq!(begun, 2, "once by each worker");
    let runs = fleet.run(&["runs", "list", "--below", "parent", "--all", "--json"]).json();
    let runs = runs["runs"].as_array().unwrap_or_else(|| panic!("{runs}")).clone();
    assert_eq!(runs.len(), 2, "one child: {runs:?}");
    for run in &runs {
        // The parent has its own answer and the two of its child, each once.
        let answers = if run["id"] == "parent" { 3 } else { 2 };
        let used = (run["tokens"].as_u64(), run["cost_micros"].as_u64());
        assert_eq!(used, (Some(answers * TOKENS), Some(answers * COST)), "{run}");
        let journal = fleet.run(&["runs", "journal", run["id"].as_str().expect("an id"), "--json"]);
        let (shown, word) = (journal.stdout(), "child_settled");
        let lines = shown.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok());
        let ends = lines.filter(|line| line.to_string().contains(word)).count();
        assert_eq!(ends, usize::from(run["id"] == "parent"), "{shown}");
        assert_eq!(run["status"], "completed", "{run}");
    }
    assert_eq!(second.stop().code(), Some(0));
    fleet.is_sound();
}

#[test]
fn a_child_goes_on_with_another_worker_and_costs_once_on_sqlite() {
    goes_on(false);
}

#[test]
fn a_child_goes_on_with_another_worker_and_costs_once_on_postgresql() {
    goes_on(true);
}
