//! What may follow `is`: Jinja's tests.

use windlass_core::value::Value;

use super::arguments::Arguments;
use super::filters::Filter;
use super::ir::CompareOp;
use super::meter::{Fault, Meter};
use super::number::{self, Number};
use super::ops;
use super::val::Val;

/// A test by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Check(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Boolean,
    Callable,
    Defined,
    DivisibleBy,
    Escaped,
    Even,
    False,
    FilterName,
    Float,
    Integer,
    Iterable,
    Lower,
    Mapping,
    None,
    Number,
    Odd,
    Compare(CompareOp),
    SameAs,
    Sequence,
    String,
    TestName,
    True,
    Undefined,
    Upper,
}

impl Check {
    pub(super) fn named(name: &str) -> Result<Self, Fault> {
        use Kind as K;
        Ok(Self(match name {
            "boolean" => K::Boolean,
            "callable" => K::Callable,
            "defined" => K::Defined,
            "divisibleby" => K::DivisibleBy,
            "escaped" => K::Escaped,
            "even" => K::Even,
            "false" | "False" => K::False,
            "filter" => K::FilterName,
            "float" => K::Float,
            "integer" => K::Integer,
            "iterable" => K::Iterable,
            "lower" => K::Lower,
            "mapping" => K::Mapping,
            "none" | "None" => K::None,
            "number" => K::Number,
            "odd" => K::Odd,
            "sameas" => K::SameAs,
            "sequence" => K::Sequence,
            "string" => K::String,
            "test" => K::TestName,
            "true" | "True" => K::True,
            "undefined" => K::Undefined,
            "upper" => K::Upper,
            "eq" | "equalto" | "==" => K::Compare(CompareOp::Eq),
            "ne" | "!=" => K::Compare(CompareOp::Ne),
            "lt" | "lessthan" | "<" => K::Compare(CompareOp::Lt),
            "le" | "<=" => K::Compare(CompareOp::Le),
            "gt" | "greaterthan" | ">" => K::Compare(CompareOp::Gt),
            "ge" | ">=" => K::Compare(CompareOp::Ge),
            "in" => K::Compare(CompareOp::In),
            other => return Err(Fault::syntax(format!("there is no test `{other}`"))),
        }))
    }

    pub(super) fn holds(self, meter: &mut Meter, val: &Val, mut args: Arguments) -> Result<bool, Fault> {
        meter.spend(1)?;
        let data = val.data();
        let result = match self.0 {
            Kind::Boolean => matches!(data, Some(Value::Bool(_))),
            Kind::Callable => matches!(val, Val::Macro(..) | Val::Global(_) | Val::Joiner(_)),
            Kind::Defined => !val.is_undefined(),
            Kind::Undefined => val.is_undefined(),
            Kind::Escaped => false,
            Kind::True => matches!(data, Some(Value::Bool(true))),
            Kind::False => matches!(data, Some(Value::Bool(false))),
            Kind::None => matches!(data, Some(Value::Null)),
            Kind::Float => matches!(data, Some(Value::Float(_))),
            Kind::Integer => matches!(data, Some(Value::Int(_))),
            Kind::Number => matches!(data, Some(Value::Int(_) | Value::Float(_) | Value::Bool(_))),
            Kind::String => matches!(data, Some(Value::Str(_))),
            Kind::Mapping => matches!(data, Some(Value::Map(_))),
            Kind::Sequence | Kind::Iterable => {
                val.is_undefined() || matches!(data, Some(Value::Str(_) | Value::List(_) | Value::Map(_)))
            }
            Kind::Odd => remainder(val, 2)? != Number::Int(0),
            Kind::Even => remainder(val, 2)? == Number::Int(0),
            Kind::DivisibleBy => {
                let by = args.int_or(0, "num", 0)?;
                matches!(remainder(val, by)?, Number::Int(0))
            }
            Kind::Lower | Kind::Upper => {
                let text = val.to_text(meter)?;
                meter.read(text.len())?;
                let (lower, upper) = (text.chars().any(char::is_lowercase), text.chars().any(char::is_uppercase));
                if self.0 == Kind::Lower { lower && !upper } else { upper && !lower }
            }
            Kind::Compare(op) => {
                let other = args.need(0, "other")?;
                ops::compare(op, val, &other, meter)?
            }
            Kind::SameAs => {
                let other = args.need(0, "other")?;
                let same_kind = match (val, &other) {
                    (Val::Data(a), Val::Data(b)) => std::mem::discriminant(a) == std::mem::discriminant(b),
                    (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
                };
                same_kind && ops::equal(val, &other, meter)?
            }
            Kind::FilterName => data.and_then(Value::as_str).is_some_and(|name| Filter::named(name).is_ok()),
            Kind::TestName => data.and_then(Value::as_str).is_some_and(|name| Self::named(name).is_ok()),
        };
        args.finish()?;
        Ok(result)
    }
}

fn remainder(val: &Val, by: i64) -> Result<Number, Fault> {
    let value = val.need()?;
    let number = Number::of(value)
        .ok_or_else(|| Fault::kind(format!("this test works on numbers, not {}", value.type_name())))?;
    match number::rem(number, Number::Int(by)).map_err(|odd| Fault::kind(odd.message()))? {
        Number::Float(0.0) => Ok(Number::Int(0)),
        other => Ok(other),
    }
}
