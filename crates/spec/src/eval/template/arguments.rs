//! Arguments of filters, tests, methods and macros: taken by position or by name, and none may be left over.

use windlass_core::ids::Name;
use windlass_core::value::Value;

use super::meter::{Fault, Meter};
use super::val::Val;

/// Evaluated arguments. Taking one leaves a hole, so that what nobody takes can be refused.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    positional: Vec<Option<Val>>,
    named: Vec<(Name, Option<Val>)>,
}

impl Arguments {
    pub(super) fn push(&mut self, val: Val) {
        self.positional.push(Some(val));
    }

    pub(super) fn extend(&mut self, vals: impl Iterator<Item = Val>) {
        self.positional.extend(vals.map(Some));
    }

    pub(super) fn push_named(&mut self, name: Name, val: Val) -> Result<(), Fault> {
        if self.named.iter().any(|(n, _)| *n == name) {
            return Err(Fault::kind(format!("argument `{name}` is given twice")));
        }
        self.named.push((name, Some(val)));
        Ok(())
    }

    /// The argument at a position or of a name.
    pub(super) fn take(&mut self, at: usize, name: &str) -> Option<Val> {
        if let Some(val) = self.positional.get_mut(at).and_then(Option::take) {
            return Some(val);
        }
        self.named.iter_mut().find(|(n, _)| **n == *name).and_then(|(_, val)| val.take())
    }

    /// The same, required.
    pub(super) fn need(&mut self, at: usize, name: &str) -> Result<Val, Fault> {
        self.take(at, name).ok_or_else(|| Fault::kind(format!("argument `{name}` is missing")))
    }

    /// Every positional argument from a position on.
    pub(super) fn rest(&mut self, from: usize) -> Vec<Val> {
        self.positional.iter_mut().skip(from).filter_map(Option::take).collect()
    }

    /// Every named argument, in order.
    pub(super) fn take_named(&mut self) -> Vec<(Name, Val)> {
        self.named.iter_mut().filter_map(|(name, val)| Some((name.clone(), val.take()?))).collect()
    }

    pub(super) fn text(&mut self, at: usize, name: &str, meter: &mut Meter) -> Result<Name, Fault> {
        self.need(at, name)?.to_text(meter)
    }

    pub(super) fn text_or(&mut self, at: usize, name: &str, default: &str, meter: &mut Meter) -> Result<Name, Fault> {
        self.take(at, name).map_or_else(|| Ok(default.into()), |val| val.to_text(meter))
    }

    /// A text, or nothing for null.
    pub(super) fn text_option(&mut self, at: usize, name: &str) -> Result<Option<Name>, Fault> {
        match self.take(at, name) {
            None | Some(Val::Data(Value::Null)) => Ok(None),
            Some(Val::Data(Value::Str(text))) => Ok(Some(text)),
            Some(other) => Err(Fault::kind(format!("argument `{name}` must be text, not {}", other.kind()))),
        }
    }

    pub(super) fn bool_or(&mut self, at: usize, name: &str, default: bool) -> bool {
        self.take(at, name).map_or(default, |val| val.is_truthy())
    }

    pub(super) fn int_or(&mut self, at: usize, name: &str, default: i64) -> Result<i64, Fault> {
        self.int_option(at, name).map(|i| i.unwrap_or(default))
    }

    /// A whole number, or nothing for null.
    pub(super) fn int_option(&mut self, at: usize, name: &str) -> Result<Option<i64>, Fault> {
        match self.take(at, name) {
            None | Some(Val::Data(Value::Null)) => Ok(None),
            Some(Val::Data(Value::Int(i))) => Ok(Some(i)),
            Some(Val::Data(Value::Bool(b))) => Ok(Some(i64::from(b))),
            Some(other) => Err(Fault::kind(format!("argument `{name}` must be a whole number, not {}", other.kind()))),
        }
    }

    /// A count; negative numbers are 0.
    pub(super) fn count_or(&mut self, at: usize, name: &str, default: usize) -> Result<usize, Fault> {
        Ok(self.int_option(at, name)?.map_or(default, |i| usize::try_from(i).unwrap_or(0)))
    }

    /// Refuses what nobody took.
    pub(super) fn finish(self) -> Result<(), Fault> {
        if let Some((name, _)) = self.named.iter().find(|(_, val)| val.is_some()) {
            return Err(Fault::kind(format!("there is no argument `{name}`")));
        }
        if self.positional.iter().any(Option::is_some) {
            return Err(Fault::kind("too many arguments"));
        }
        Ok(())
    }
}
