//! What contracts of child machines declassify: the schema of the child has to bound it.

use std::collections::BTreeMap;

use windlass_core::bounded;
use windlass_core::ids::Name;
use windlass_core::label::pointer;
use windlass_core::machine::Machine;
use windlass_core::value::Value;

use super::{Lowering, pairs, texts};
use crate::diagnostics::{Rule, Sink, Span};
use crate::yaml::Node;

/// A part that a machine declassifies of what a child gives.
pub(super) struct Declassified {
    parent: Name,
    child: Name,
    part: Name,
    span: Span,
}

/// A part that no schema bounds: why, and where that is said.
#[derive(Debug)]
pub(crate) struct Unbounded {
    message: String,
    span: Span,
}

impl Unbounded {
    /// Refuses it.
    pub(crate) fn report(self, sink: &mut Sink) {
        sink.error(Rule::WrongValue, self.span, self.message, bounded::ADVICE);
    }
}

impl Lowering<'_, '_> {
    /// Notes what a machine declassifies; the schemas of its children are not known yet.
    pub(super) fn note_declassified(&mut self, parent: &Name, data: &Node) {
        for entry in pairs(data, "machines") {
            let contract = entry.value.get("contract");
            for (part, span) in texts(contract.and_then(|contract| contract.get("declassified"))) {
                self.declassified.push(Declassified { parent: parent.clone(), child: entry.key.clone(), part, span });
            }
        }
    }
}

/// Gives contracts the schemas of their children, and says which parts those do not bound.
pub(super) fn settle(machines: &mut BTreeMap<Name, Machine>, noted: Vec<Declassified>) -> Vec<Unbounded> {
    let mut unbounded = Vec::new();
    for Declassified { parent, child, part, span } in noted {
        let key = machines.get(&parent).and_then(|machine| machine.machines.get(&child));
        let Some(known) = key.and_then(|key| machines.get(key)) else { continue };
        let (schema, name) = (known.output_schema.clone().unwrap_or(Value::Null), known.name.clone());
        if let Some(why) = pointer(&part).and_then(|path| bounded::check(&schema, &path).err()) {
            let message = format!("`{part}` cannot be declassified: {why} (`output_schema` of `{name}`)");
            unbounded.push(Unbounded { message, span });
        }
        let contracts = machines.get_mut(&parent).map(|machine| &mut machine.child_contracts);
        if let Some(contract) = contracts.and_then(|contracts| contracts.get_mut(&child)) {
            // What it does not bound keeps its labels.
            contract.declassified.retain(|path| bounded::check(&schema, path).is_ok());
            contract.output_schema = schema;
        }
    }
    unbounded
}
