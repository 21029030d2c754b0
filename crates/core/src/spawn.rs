//! Machines that a built-in hook asks the engine to start, as part of its answer.
//!
//! The hook does not start them: the engine does, with the commit that takes the answer, as it starts those of `launch`.

use crate::ids::Name;
use crate::value::Value;

/// The key of an answer under which it is asked. Hooks from outside must not use it.
pub const SAID: &str = "windlass.spawn";

/// Runs of one machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Spawn {
    /// Key of the machine in the program. The machine of the run must name it.
    pub machine: Name,
    /// How many.
    pub count: u64,
    /// The input of each, a mapping. Beside it each is given `worker_id`, which is its own id.
    pub input: Value,
}

impl Spawn {
    /// As an answer says it.
    #[must_use]
    pub fn said(&self) -> Value {
        Value::object([
            ("machine", Value::Str(self.machine.clone())),
            ("count", Value::count(self.count)),
            ("input", self.input.clone()),
        ])
    }

    /// What an answer asks for. None where it asks for nothing.
    #[must_use]
    pub fn said_by(answer: &Value) -> Option<Self> {
        let said = answer.get(SAID)?;
        let count = said.get("count").and_then(Value::as_int).and_then(|count| u64::try_from(count).ok());
        Some(Self {
            machine: said.get("machine").and_then(Value::as_str).unwrap_or_default().into(),
            count: count.unwrap_or_default(),
            input: said.get("input").cloned().unwrap_or_default(),
        })
    }
}
