//! Machines for the simulator, and seeds for a machine.

use std::path::Path;

use windlass_core::approval::Terms;
use windlass_core::contract::{Class, Contract, Idempotency, OnUnknown};
use windlass_core::value::Value;
use windlass_sim::{Options, Outcome, Setup, Simulation};
use windlass_spec::source::DirFiles;
use windlass_spec::{LoadOptions, load};

/// The machines of the golden path, and what each is about.
pub(crate) const GOLDEN: [&str; 5] = ["loop", "family", "gates", "timers", "samples"];

fn contracts() -> Vec<Contract> {
    let verify = OnUnknown::Verify { tool: "happened".into() };
    let tool = |name: &str, class, idempotency, on_unknown: &OnUnknown| Contract {
        class,
        idempotency,
        on_unknown: on_unknown.clone(),
        timeout_ms: 10_000,
        ..Contract::undeclared(name)
    };
    vec![
        tool("look", Class::Read, Idempotency::None, &OnUnknown::Fail),
        tool("tag", Class::Write, Idempotency::Key, &OnUnknown::Fail),
        tool("set", Class::Write, Idempotency::Natural, &OnUnknown::Fail),
        tool("pay", Class::Write, Idempotency::None, &verify),
        Contract {
            approval: Terms { always: true, ..Terms::default() },
            ..tool("erase", Class::Danger, Idempotency::None, &OnUnknown::Ask)
        },
        tool("charge", Class::Write, Idempotency::None, &OnUnknown::Fail),
        tool("note", Class::Write, Idempotency::Key, &OnUnknown::Fail),
        tool("happened", Class::Read, Idempotency::None, &OnUnknown::Fail),
    ]
}

/// One of the machines beside this file.
pub(crate) fn setup(name: &str) -> Setup {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/machines");
    let options = LoadOptions { tools: contracts(), ..LoadOptions::default() };
    let loaded = load(&DirFiles::new(&folder), &format!("{name}.yml"), &options).unwrap_or_else(|d| panic!("{d:#?}"));
    let script = std::fs::read_to_string(folder.join("script.yml")).expect("the script");
    Setup::new(&loaded, Value::object([("order", Value::Int(7))]))
        .script(&script)
        .expect("a script")
        .signal("go/7", Value::object([("go", Value::Bool(true))]))
        .signal("inner/a", Value::str("for a"))
}

pub(crate) fn simulation(name: &str, options: Options) -> Simulation {
    Simulation::new(setup(name), options).unwrap_or_else(|error| panic!("`{name}`: {error}"))
}

/// What a seed has to say for itself when something is wrong with it.
pub(crate) fn account(name: &str, outcome: &Outcome) -> String {
    let lines = |list: Vec<String>| list.join("\n  ");
    let violations = outcome.violations.iter().map(ToString::to_string).collect();
    format!(
        "`{name}` seed {} ({:?}):\n  {}\nlast:\n  {}",
        outcome.seed,
        outcome.faults,
        lines(violations),
        lines(outcome.tail.clone())
    )
}

/// Tells whoever runs the tests by hand how many seeds there were and how long they took.
#[expect(clippy::print_stderr, reason = "counts and times are for people; the test runner shows them on demand")]
pub(crate) fn tell(text: &str) {
    eprintln!("{text}");
}

/// The first seed with a violation.
pub(crate) fn first_violation(name: &str, simulation: &Simulation, seeds: u64) -> Option<(u64, Outcome)> {
    (0..seeds).find_map(|seed| {
        let outcome = simulation.play(seed).unwrap_or_else(|error| panic!("`{name}` seed {seed}: {error}"));
        (!outcome.violations.is_empty()).then_some((seed, outcome))
    })
}
