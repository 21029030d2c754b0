//! The functions of CEL: the standard library without bytes and unsigned numbers.

use windlass_core::failure::Code;
use windlass_core::value::Value;

use super::parse::NO_CLOCK;
use super::{Cel, overload, time};
use crate::eval::meter::{Fault, Meter};
use crate::eval::number::{Number, float_text};
use crate::eval::pattern;

/// A function by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Size,
    Contains,
    StartsWith,
    EndsWith,
    Matches,
    Int,
    Double,
    String,
    Bool,
    Dyn,
    Type,
    Timestamp,
    Duration,
    Part(time::Part),
}

impl Function {
    /// `name(args)`.
    pub(super) fn global(name: &str, args: usize) -> Result<Self, Fault> {
        let function = match name {
            "size" => Self::Size,
            "matches" => Self::Matches,
            "int" => Self::Int,
            "double" => Self::Double,
            "string" => Self::String,
            "bool" => Self::Bool,
            "dyn" => Self::Dyn,
            "type" => Self::Type,
            "timestamp" => Self::Timestamp,
            "duration" => Self::Duration,
            "now" => {
                return Err(Fault::new(Code::ConditionSyntax, "there is no function `now`").hint(NO_CLOCK));
            }
            other => return Err(unknown(other)),
        };
        function.with(name, args, if function == Self::Matches { 2 } else { 1 })
    }

    /// `target.name(args)`, the target counted.
    pub(super) fn member(name: &str, args: usize) -> Result<Self, Fault> {
        let (function, wanted) = match name {
            "size" => (Self::Size, 1),
            "contains" => (Self::Contains, 2),
            "startsWith" => (Self::StartsWith, 2),
            "endsWith" => (Self::EndsWith, 2),
            "matches" => (Self::Matches, 2),
            other => match time::Part::named(other) {
                Some(part) => (Self::Part(part), 1),
                None => return Err(unknown(other)),
            },
        };
        function.with(name, args, wanted)
    }

    fn with(self, name: &str, args: usize, wanted: usize) -> Result<Self, Fault> {
        if args == wanted {
            return Ok(self);
        }
        let fault = Fault::new(Code::ConditionSyntax, format!("`{name}` takes {wanted} values, not {args}"));
        Err(if matches!(self, Self::Part(_)) {
            fault.hint("parts of a time are in UTC; shift it first: `(t + duration('1h')).getHours()`")
        } else {
            fault
        })
    }
}

fn unknown(name: &str) -> Fault {
    Fault::new(Code::ConditionSyntax, format!("there is no function `{name}`")).hint(
        "there are size, contains, startsWith, endsWith, matches, int, double, string, bool, type, timestamp, \
         duration, has, all, exists, exists_one, map and filter",
    )
}

/// Calls a function.
pub(super) fn call(function: Function, args: &[Cel], meter: &mut Meter) -> Result<Cel, Fault> {
    meter.spend(1)?;
    let Some(first) = args.first() else {
        return Err(Fault::kind("a value is missing"));
    };
    let value = match function {
        Function::Size => return size(first, meter),
        Function::Contains | Function::StartsWith | Function::EndsWith | Function::Matches => {
            return about_text(function, args, meter);
        }
        Function::Dyn => return Ok(first.clone()),
        Function::Type => return Ok(Cel::Type(first.type_name())),
        Function::Timestamp => return time::timestamp(first),
        Function::Duration => return time::duration(first),
        Function::Part(part) => time::part(part, first)?,
        Function::Int => int(first)?,
        Function::Double => double(first)?,
        Function::String => string(first)?,
        Function::Bool => boolean(first)?,
    };
    Ok(Cel::Data(value))
}

fn size(value: &Cel, meter: &mut Meter) -> Result<Cel, Fault> {
    let size = match value {
        Cel::Data(Value::Str(text)) => {
            meter.read(text.len())?;
            text.chars().count()
        }
        Cel::Data(Value::List(items)) => items.len(),
        Cel::Data(Value::Map(map)) => map.len(),
        other => return Err(overload("size", &[other])),
    };
    Ok(Cel::Data(Value::count(size as u64)))
}

fn about_text(function: Function, args: &[Cel], meter: &mut Meter) -> Result<Cel, Fault> {
    let [Cel::Data(Value::Str(text)), Cel::Data(Value::Str(part))] = args else {
        let name = match function {
            Function::Contains => "contains",
            Function::StartsWith => "startsWith",
            Function::EndsWith => "endsWith",
            _ => "matches",
        };
        return Err(overload(name, &args.iter().collect::<Vec<_>>()));
    };
    meter.read(text.len())?;
    Ok(Cel::bool(match function {
        Function::Contains => text.contains(&**part),
        Function::StartsWith => text.starts_with(&**part),
        Function::EndsWith => text.ends_with(&**part),
        _ => {
            // Compiling costs far more than a step, and grows with the pattern's counts rather than its length.
            meter.spend(10_000)?;
            meter.read(text.len().saturating_mul(4))?;
            let regex = pattern::compile(part, false).map_err(|failure| Fault::kind(failure.message.to_string()))?;
            regex.is_match(text)
        }
    }))
}

fn int(value: &Cel) -> Result<Value, Fault> {
    match value {
        Cel::Data(Value::Int(i)) => Ok(Value::Int(*i)),
        Cel::Data(Value::Float(f)) if f.abs() < 9.2e18 => Ok(Value::Int(*f as i64)),
        Cel::Data(Value::Float(_)) => Err(Fault::kind("the number is beyond 64 bits")),
        Cel::Data(Value::Str(text)) => {
            text.parse().map(Value::Int).map_err(|_| Fault::kind(format!("`{text}` is no whole number")))
        }
        Cel::Timestamp(t) => Ok(Value::Int(t.as_second())),
        other => Err(overload("int", &[other])),
    }
}

fn double(value: &Cel) -> Result<Value, Fault> {
    match value {
        Cel::Data(number @ (Value::Int(_) | Value::Float(_))) => {
            Ok(Value::float(number.as_f64().unwrap_or_default()).unwrap_or_default())
        }
        Cel::Data(Value::Str(text)) => Number::parse(text)
            .and_then(|number| Value::float(number.as_f64()))
            .ok_or_else(|| Fault::kind(format!("`{text}` is no finite number"))),
        other => Err(overload("double", &[other])),
    }
}

fn string(value: &Cel) -> Result<Value, Fault> {
    Ok(Value::from(match value {
        Cel::Data(Value::Str(text)) => return Ok(Value::Str(text.clone())),
        Cel::Data(Value::Bool(b)) => b.to_string(),
        Cel::Data(Value::Int(i)) => i.to_string(),
        Cel::Data(Value::Float(f)) => float_text(*f).trim_end_matches(".0").to_owned(),
        Cel::Duration(d) => time::duration_text(*d),
        Cel::Timestamp(t) => t.to_string(),
        other => return Err(overload("string", &[other])),
    }))
}

fn boolean(value: &Cel) -> Result<Value, Fault> {
    match value {
        Cel::Data(Value::Bool(b)) => Ok(Value::Bool(*b)),
        Cel::Data(Value::Str(text)) => match &**text {
            "true" | "True" | "TRUE" | "t" | "1" => Ok(Value::Bool(true)),
            "false" | "False" | "FALSE" | "f" | "0" => Ok(Value::Bool(false)),
            other => Err(Fault::kind(format!("`{other}` is no boolean"))),
        },
        other => Err(overload("bool", &[other])),
    }
}
