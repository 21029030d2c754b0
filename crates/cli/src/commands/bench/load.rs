//! What the measurements share: tiny machines, and an engine with the one call that they make.

use std::sync::Arc;
use std::time::Duration;

use windlass::wire;
use windlass_core::budget::Ceilings;
use windlass_core::contract::{Class, Contract, Idempotency};
use windlass_core::ids::RunId;
use windlass_core::value::Value;
use windlass_ports::model::Model;
use windlass_ports::policy::{AllowAll, Policy};
use windlass_ports::store::Store;
use windlass_ports::tool::Catalog;
use windlass_runtime::{Engine, Observer, Parts, Settings, Submission, SystemClock};
use windlass_spec::source::MemoryFiles;
use windlass_spec::{LoadOptions, Loaded, load};
use windlass_tools::FnTool;

use crate::exit::Problem;

/// The name of the action that all machines call.
pub(crate) const ACTION: &str = "noop";

/// What an engine of a measurement is like.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shape {
    /// Runs that it works on at the same time, at least.
    pub concurrency: usize,
    /// Calls that it has out at the same time, when that is bounded.
    pub call_slots: Option<usize>,
    /// How long a call takes.
    pub step_time: Duration,
    /// Runs that may wait in the queue.
    pub queued_max: Option<u32>,
    /// Is told how long things take.
    pub meter: Option<Arc<dyn windlass_runtime::Meter>>,
    /// What is asked before calls; everything is allowed when there is none.
    pub policy: Option<Arc<dyn Policy>>,
    /// The model of machines that have one.
    pub model: Option<Arc<dyn Model>>,
}

/// A machine of so many steps, each with one call.
///
/// # Errors
/// The machine is not valid, which is a fault of this build.
pub(crate) fn stepper(steps: u32) -> Result<Loaded, Problem> {
    machine(&[("machine.yml", &steps_text(steps))], vec![noop()])
}

/// The same for actions of a configuration.
///
/// # Errors
/// As of [`stepper`].
pub(crate) fn stepper_with(steps: u32, contracts: Vec<Contract>) -> Result<Loaded, Problem> {
    machine(&[("machine.yml", &steps_text(steps))], contracts)
}

/// A machine that waits for a signal.
///
/// # Errors
/// As of [`stepper`].
pub(crate) fn waiter() -> Result<Loaded, Problem> {
    let text = "spec: flatmachine\nspec_version: \"4.2.1\"\ndata:\n  name: bench-park\n  context:\n    data: input.data\n  states:\n    wait:\n      type: initial\n      wait_for: bench/go\n      transitions:\n        - to: done\n    done:\n      type: final\n      output:\n        ok: true\n";
    machine(&[("machine.yml", text)], Vec::new())
}

/// A machine whose model asks for so many tool calls, one after another.
///
/// # Errors
/// As of [`stepper`].
pub(crate) fn asking(calls: u32) -> Result<Loaded, Problem> {
    let text = format!(
        "spec: flatmachine\nspec_version: \"4.2.1\"\ndata:\n  name: bench-asking\n  settings:\n    tools: [{ACTION}]\n  agents:\n    asker:\n      spec: flatagent\n      spec_version: \"4.2.1\"\n      data:\n        model: {{name: asker, provider: bench, max_tokens: 100}}\n        system: Ask.\n        user: Go on.\n  states:\n    work:\n      type: initial\n      agent: asker\n      tool_loop:\n        max_turns: {turns}\n        max_tool_calls: {calls}\n      transitions:\n        - to: done\n    done:\n      type: final\n      output:\n        ok: true\n",
        turns = calls.saturating_add(1)
    );
    machine(&[("machine.yml", &text)], vec![noop()])
}

/// A machine that starts so many children of one step each, and waits for all.
///
/// # Errors
/// As of [`stepper`].
pub(crate) fn parent(children: u32) -> Result<Loaded, Problem> {
    let items: Vec<String> = (0..children).map(|item| item.to_string()).collect();
    let text = format!(
        "spec: flatmachine\nspec_version: \"4.2.1\"\ndata:\n  name: bench-fan-out\n  settings:\n    max_launches: {children}\n  machines:\n    leaf: ./leaf.yml\n  states:\n    all:\n      type: initial\n      foreach: \"{{{{ [{}] }}}}\"\n      machine: leaf\n      output_to_context:\n        results: output\n      transitions:\n        - to: done\n    done:\n      type: final\n      output:\n        count: \"{{{{ context.results | length }}}}\"\n",
        items.join(", ")
    );
    machine(&[("machine.yml", &text), ("leaf.yml", &steps_text(1))], vec![noop()])
}

fn steps_text(steps: u32) -> String {
    let mut text = String::from(
        "spec: flatmachine\nspec_version: \"4.2.1\"\ndata:\n  name: bench-steps\n  context:\n    data: input.data\n  states:\n",
    );
    for step in 0..steps {
        let next = if step + 1 == steps { "done".to_owned() } else { format!("s{}", step + 1) };
        let initial = if step == 0 { "      type: initial\n" } else { "" };
        text.push_str(&format!(
            "    s{step}:\n{initial}      action: {ACTION}\n      transitions:\n        - to: {next}\n"
        ));
    }
    text.push_str("    done:\n      type: final\n      output:\n        ok: true\n");
    text
}

fn machine(documents: &[(&str, &str)], tools: Vec<Contract>) -> Result<Loaded, Problem> {
    let files = documents.iter().fold(MemoryFiles::new(), |files, (path, text)| files.with(path, *text));
    let options = LoadOptions { tools, ..LoadOptions::default() };
    load(&files, "machine.yml", &options).map_err(|found| {
        let text: Vec<String> = found.iter().map(ToString::to_string).collect();
        Problem::bug(format!("the machine of the measurement is not valid: {}", text.join("; ")))
    })
}

fn noop() -> Contract {
    Contract { class: Class::Read, idempotency: Idempotency::Natural, ..Contract::undeclared(ACTION) }
}

/// An engine on a store, with the call of the machines here.
pub(crate) fn engine(store: Arc<dyn Store>, observer: Arc<dyn Observer>, shape: &Shape) -> Engine {
    let call = match shape.step_time {
        Duration::ZERO => FnTool::sync(noop(), |_| Ok(Value::Null)),
        time => FnTool::new(noop(), move |_| async move {
            tokio::time::sleep(time).await;
            Ok(Value::Null)
        }),
    };
    let mut catalog = Catalog::default();
    catalog.tools.insert(ACTION.into(), Arc::new(call));
    let defaults = Settings::default();
    Engine::new(Parts {
        store,
        compiler: wire::compiler(),
        model: shape.model.clone().unwrap_or_else(|| Arc::new(windlass_models::Models::builder().build())),
        catalog: Arc::new(catalog),
        policy: shape.policy.clone().unwrap_or_else(|| Arc::new(AllowAll)),
        clock: Arc::new(SystemClock::new()),
        observer,
        settings: Settings {
            claim_slots: shape.concurrency.max(defaults.claim_slots),
            call_slots: shape.call_slots.unwrap_or_else(|| shape.concurrency.max(defaults.call_slots)),
            held_max: shape.concurrency.max(defaults.held_max),
            queued_max: shape.queued_max,
            meter: shape.meter.clone(),
            grace_ms: 1_000,
            ..defaults
        },
    })
}

/// One run of a machine, with ceilings on so that the ledger works as in earnest.
#[must_use]
pub(crate) fn submission(loaded: &Loaded, data: &Value, run_id: Option<RunId>) -> Submission {
    Submission {
        run_id,
        ceilings: Ceilings {
            steps: Some(1_000),
            launches: Some(10_000),
            model_calls: Some(1_000),
            tool_calls: Some(10_000),
            tokens: Some(1_000_000),
            cost_micros: Some(1_000_000),
            ..Ceilings::default()
        },
        ..Submission::new(loaded.bundle.clone(), Arc::clone(&loaded.program), Value::object([("data", data.clone())]))
    }
}

/// So many bytes of text that does not compress well, as text of models and people does not.
#[must_use]
pub(crate) fn data(bytes: u64) -> Value {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .";
    let length = usize::try_from(bytes).unwrap_or(usize::MAX).min(windlass_core::limits::VALUE_BYTES_MAX / 2);
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let text: String = (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            char::from(LETTERS[usize::from((state >> 32) as u8) % LETTERS.len()])
        })
        .collect();
    Value::str(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_machine_is_valid() {
        assert!(stepper(3).is_ok() && waiter().is_ok() && parent(7).is_ok() && asking(9).is_ok());
    }

    #[test]
    fn data_has_the_bytes_that_were_asked_for() {
        assert!(matches!(data(1_000), Value::Str(text) if text.len() == 1_000));
    }
}
