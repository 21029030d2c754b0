//! Starts the machines that a hook asks for. They are launched: what bounds and stops those of a `launch` does so with them.

use super::Turn;
use super::join::Wanted;
use crate::budget::Ceilings;
use crate::effect::{Call, Outcome};
use crate::failure::{Code, Failure};
use crate::ids::Name;
use crate::label::{Marks, of_arguments, path};
use crate::limits;
use crate::machine::{ChildContract, HookKind, Template};
use crate::run::Terms;
use crate::spawn::{SAID, Spawn};
use crate::value::{Map, Value};

impl Turn<'_> {
    /// The answer of an action, with the ids of the runs that it asked for and that are started now. Only a hook is taken at
    /// its word: for an action the key is one like others.
    pub(super) fn spawned(&mut self, by: Option<&Call>, outcome: Outcome) -> Result<Outcome, Failure> {
        let (Some(Call::Hook { event: HookKind::Action, .. }), Outcome::Returned(answer)) = (by, &outcome) else {
            return Ok(outcome);
        };
        let Some(spawn) = Spawn::said_by(answer) else { return Ok(outcome) };
        let ids = self.spawn(&spawn)?;
        let mut answer = answer.as_map().cloned().unwrap_or_default();
        answer.shift_remove(SAID);
        let count = Value::count(ids.len() as u64);
        for part in ["output", "context"] {
            let mut map = answer.get(part).and_then(Value::as_map).cloned().unwrap_or_default();
            map.insert("spawned_ids".into(), Value::list(ids.clone()));
            map.insert("spawned_count".into(), count.clone());
            answer.insert(part.into(), Value::map(map));
        }
        Ok(Outcome::Returned(Value::map(answer)))
    }

    fn spawn(&mut self, spawn: &Spawn) -> Result<Vec<Value>, Failure> {
        let Spawn { machine, count, input } = spawn;
        let named = self.machine.machines.iter().filter(|(_, key)| *key == machine);
        let names: Vec<Name> = named.map(|(name, _)| name.clone()).collect();
        if names.is_empty() {
            let message = format!(
                "`{machine}` is no machine that this one names; list it in its `machines`, or name another one as `context.worker_config_path`"
            );
            return Err(Failure::new(Code::HookFailed, message).error_type("ValueError"));
        }
        if *count > limits::FAN_OUT_MAX as u64 {
            let message = format!("a state starts at most {} children", limits::FAN_OUT_MAX);
            return Err(Failure::new(Code::RunTooLarge, message));
        }
        // It is not said by which name it was meant, so that all of their contracts hold.
        let contracts: Vec<_> = names.iter().filter_map(|name| self.machine.child_contracts.get(name)).collect();
        if contracts.iter().any(|contract| contract.handoff.is_some()) {
            let message =
                format!("the contract of `{machine}` has an envelope, and a worker takes its jobs from the pool");
            return Err(Failure::new(Code::HookFailed, message));
        }
        let bounds = contracts.iter().fold(Ceilings::default(), |all, contract| all.tighter(&contract.ceilings));
        let terms = narrowed(&self.run.start.terms, &contracts);
        let marks = self.marks_of(input);
        let (step, first) = (self.run.step, self.run.ordinal);
        let ids: Vec<_> = (0..*count as u32).map(|ordinal| self.run.id().child(step, first + ordinal)).collect();
        let wanted = ids.iter().map(|id| {
            let mut input = input.as_map().cloned().unwrap_or_default();
            input.insert("worker_id".into(), Value::from(id.as_str()));
            let (machine, terms, marks) = (machine.clone(), terms.clone(), marks.clone());
            Wanted { name: None, machine, bounds, terms, input: Value::map(input), marks }
        });
        self.start_children(wanted.collect(), false)?;
        Ok(ids.iter().map(|id| Value::from(id.as_str())).collect())
    }

    /// The labels of an input: those of the context where the same value stands there under the same key, else of all that
    /// the hook was told.
    fn marks_of(&self, input: &Value) -> Marks {
        let view = self.view();
        let mut marks = Marks::default();
        for (key, value) in input.as_map().into_iter().flat_map(Map::iter) {
            let of_value = match self.run.context.get(key) {
                Some(known) if known == value => self.labels_of(&Template::Path(path(["context", &**key])), &view),
                Some(_) | None => Marks::whole(of_arguments(self.run, false)),
            };
            for (inside, label, source) in of_value.iter() {
                let at = std::iter::once(key.clone()).chain(inside.iter().cloned()).collect();
                marks.add(at, label, source.clone());
            }
        }
        marks
    }
}

/// What a child may do that is bound by every one of these contracts.
fn narrowed(terms: &Terms, contracts: &[&ChildContract]) -> Terms {
    let tools = contracts.iter().filter_map(|contract| contract.tools.clone());
    Terms {
        tools: terms.tools.iter().cloned().chain(tools).collect(),
        output_bytes: contracts.iter().filter_map(|contract| contract.output_bytes).min(),
        cut_output: !contracts.is_empty() && contracts.iter().all(|contract| contract.cut_output),
    }
}
