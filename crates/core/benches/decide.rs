//! What one step costs without I/O: settle an action, take a transition, enter the next state, intend its action.

use std::collections::BTreeMap;
use std::sync::Arc;

use divan::{Bencher, black_box};
use windlass_core::budget::Ceilings;
use windlass_core::contract::{Class, Contract, Idempotency};
use windlass_core::effect::{Outcome, Spent};
use windlass_core::input::{Facts, Input};
use windlass_core::journal::{FORMAT, Record};
use windlass_core::machine::Program;
use windlass_core::run::{Run, Start};
use windlass_core::time::Timestamp;
use windlass_core::value::Value;
use windlass_core::{decide, snapshot};
use windlass_ports::compile::Bundle;
use windlass_spec::compile::compile;
use windlass_spec::eval::Engine;

fn main() {
    divan::main();
}

const MACHINE: &str = "
spec: flatmachine
spec_version: 4.2.1
data:
  name: steps
  context: {text: \"{{ input.text }}\"}
  settings: {max_steps: 100000000}
  states:
    a: {type: initial, action: noop, transitions: [{condition: \"context.stop\", to: end}, {to: a}]}
    end: {type: final}
";

fn program() -> Arc<Program> {
    let noop = Contract { class: Class::Read, idempotency: Idempotency::Natural, ..Contract::undeclared("noop") };
    let files = [("machine.yml".to_owned(), MACHINE.to_owned())].into_iter().collect();
    let bundle = Bundle { entry: "machine.yml".into(), files, tools: vec![noop], ..Bundle::default() };
    compile(&bundle).expect("a valid machine")
}

fn facts() -> Facts {
    Facts {
        now: Timestamp(1),
        seed: 1,
        worker: None,
        basis: None,
        quotes: Arc::new(BTreeMap::new()),
        traits: Arc::new(BTreeMap::new()),
        routes: Arc::new(BTreeMap::new()),
        standing: Arc::default(),
        verdicts: Vec::new(),
        allow_unasked: true,
        reads_arguments: false,
        budgets: Arc::default(),
        stopped_ramps: Arc::default(),
    }
}

/// A run with a 1 KB context whose first action is out.
fn started(program: &Program, engine: &Engine) -> Run {
    let machine = &program.machines[&program.entry];
    let id = windlass_core::ids::RunId::stored("bench");
    let start = Start {
        ceilings: Ceilings { model_calls: Some(1_000), ..Ceilings::default() },
        ..Start::new(
            id,
            program.bundle,
            program.entry.clone(),
            machine.name.clone(),
            Value::object([("text", Value::str("x".repeat(1_000)))]),
        )
    };
    let mut run = Run::blank(start.clone());
    decide(machine, engine, &mut run, Input::Started(Box::new(start)), &facts()).expect("started");
    run
}

fn settle(run: &Run) -> Input {
    let (effect, call) = run.calls.first_key_value().expect("an open call");
    let outcome = Outcome::Returned(Value::Null);
    Input::Settled { effect: *effect, attempt: call.attempt, outcome, spent: Spent::Nothing }
}

#[divan::bench]
fn step(bencher: Bencher) {
    let (program, engine, facts) = (program(), Engine::default(), facts());
    let machine = &program.machines[&program.entry];
    let mut run = started(&program, &engine);
    bencher.bench_local(|| {
        let input = settle(&run);
        black_box(decide(machine, &engine, &mut run, input, &facts).expect("decided"))
    });
}

#[divan::bench]
fn step_and_encode(bencher: Bencher) {
    let (program, engine, facts) = (program(), Engine::default(), facts());
    let machine = &program.machines[&program.entry];
    let mut run = started(&program, &engine);
    bencher.bench_local(|| {
        let input = settle(&run);
        let decision = decide(machine, &engine, &mut run, input, &facts).expect("decided");
        black_box(Record { format: FORMAT, version: run.version, entries: decision.entries }.encode())
    });
}

#[divan::bench]
fn snapshot_of_a_small_run(bencher: Bencher) {
    let (program, engine) = (program(), Engine::default());
    let run = started(&program, &engine);
    bencher.bench_local(|| black_box(snapshot::encode(&run)));
}
