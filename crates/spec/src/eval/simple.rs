//! Simple conditions: the format's own small language, a subset of Python's expressions.
//!
//! Total and bounded. A missing key is null, a missing index is a failure. A number, boolean or null and a text that
//! spells it compare by value, because published documents compare rendered values both ways.

mod parse;

use std::cmp::Ordering;

use windlass_core::eval::Scope;
use windlass_core::ids::Name;
use windlass_core::value::Value;

use super::compare;
use super::meter::{Fault, Limits, Meter};
use super::number::{self, Number};

type Out<T = Value> = Result<T, Fault>;

/// A condition that parsed.
#[derive(Debug)]
pub(super) struct Condition(Expr);

#[derive(Debug, PartialEq)]
enum Expr {
    Literal(Value),
    /// A name in scope.
    Name(Name),
    /// A base with `.x` and `[x]`, from left to right.
    Path(Box<Expr>, Vec<(Part, u32)>),
    Not(Box<Expr>),
    Neg(Box<Expr>, u32),
    /// Left-associative arithmetic.
    Math(Box<Expr>, Vec<(Math, Expr, u32)>),
    Compare(Box<Expr>, Vec<(Relation, Expr, u32)>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
}

#[derive(Debug, PartialEq)]
enum Part {
    Attr(Name),
    Item(Expr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Math {
    Add,
    Sub,
    Mul,
    Div,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

/// Reads a condition.
pub(super) fn compile(source: &str) -> Result<Condition, Fault> {
    parse::parse(source).map(Condition)
}

/// Answers a condition.
pub(super) fn holds(condition: &Condition, scope: &Scope, limits: Limits) -> Result<bool, Fault> {
    let mut run = Run { scope, meter: Meter::new(limits) };
    run.value(&condition.0).map(|value| value.is_truthy())
}

struct Run<'a> {
    scope: &'a Scope,
    meter: Meter,
}

impl Run<'_> {
    fn value(&mut self, expr: &Expr) -> Out {
        match expr {
            Expr::Literal(value) => Ok(value.clone()),
            Expr::Name(name) => Ok(self.scope.get(name).cloned().unwrap_or_default()),
            other => {
                self.meter.enter()?;
                let value = self.compound(other)?;
                self.meter.leave();
                Ok(value)
            }
        }
    }

    fn compound(&mut self, expr: &Expr) -> Out {
        match expr {
            Expr::Literal(_) | Expr::Name(_) => self.value(expr),
            Expr::Path(base, parts) => self.path(base, parts),
            Expr::Not(inner) => Ok(Value::Bool(!self.value(inner)?.is_truthy())),
            Expr::Neg(inner, at) => {
                let value = self.value(inner)?;
                let number = Number::of(&value)
                    .ok_or_else(|| Fault::kind(format!("`-` does not work on {}", value.type_name())).at(*at))?;
                Ok(number::neg(number).value().unwrap_or_default())
            }
            Expr::Math(first, rest) => {
                let mut left = self.value(first)?;
                for (op, right, at) in rest {
                    let right = self.value(right)?;
                    left = self.math(*op, &left, &right).map_err(|e| e.at(*at))?;
                }
                Ok(left)
            }
            Expr::Compare(first, rest) => {
                let mut left = self.value(first)?;
                for (relation, right, at) in rest {
                    let right = self.value(right)?;
                    if !self.related(*relation, &left, &right).map_err(|e| e.at(*at))? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Ok(Value::Bool(true))
            }
            Expr::And(all) => self.any(all, false).map(|found| Value::Bool(!found)),
            Expr::Or(any) => self.any(any, true).map(Value::Bool),
        }
    }

    /// Whether an operand's truth is as wanted, looked for from left to right.
    fn any(&mut self, operands: &[Expr], wanted: bool) -> Out<bool> {
        for operand in operands {
            if self.value(operand)?.is_truthy() == wanted {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn path(&mut self, base: &Expr, parts: &[(Part, u32)]) -> Out {
        let mut value = self.value(base)?;
        for (part, at) in parts {
            self.meter.spend(1)?;
            value = match part {
                Part::Attr(name) => value.get(name).cloned().unwrap_or_default(),
                Part::Item(key) => {
                    let key = self.value(key)?;
                    self.item(&value, &key).map_err(|e| e.at(*at))?
                }
            };
        }
        Ok(value)
    }

    fn item(&mut self, value: &Value, key: &Value) -> Out {
        let hint = "test that it is there first, or use `.name`, which gives null for what is missing";
        match (value, key) {
            (Value::Map(map), Value::Str(name)) => {
                map.get(name).cloned().ok_or_else(|| Fault::kind(format!("there is no key `{name}`")).hint(hint))
            }
            (Value::List(items), Value::Int(i)) => position(*i, items.len())
                .and_then(|at| items.get(at).cloned())
                .ok_or_else(|| Fault::kind(format!("index {i} is outside a list of {}", items.len())).hint(hint)),
            (Value::Str(text), Value::Int(i)) => {
                self.meter.read(text.len())?;
                position(*i, text.chars().count())
                    .and_then(|at| text.chars().nth(at))
                    .map(|c| Value::from(c.to_string()))
                    .ok_or_else(|| Fault::kind(format!("index {i} is outside the text")).hint(hint))
            }
            _ => {
                Err(Fault::kind(format!("a {} has no item for a {} key", value.type_name(), key.type_name()))
                    .hint(hint))
            }
        }
    }

    fn math(&mut self, op: Math, left: &Value, right: &Value) -> Out {
        self.meter.spend(1)?;
        match (op, left, right) {
            (Math::Add, Value::Str(a), Value::Str(b)) => {
                self.meter.text(a.len().saturating_add(b.len()))?;
                return Ok(Value::from([&**a, &**b].concat()));
            }
            (Math::Add, Value::List(a), Value::List(b)) => {
                self.meter.items(a.len().saturating_add(b.len()))?;
                return Ok(Value::list(a.iter().chain(b.iter()).cloned().collect()));
            }
            (Math::Mul, Value::Str(text), Value::Int(i)) | (Math::Mul, Value::Int(i), Value::Str(text)) => {
                let times = usize::try_from(*i).unwrap_or(0);
                self.meter.text(text.len().saturating_mul(times))?;
                return Ok(Value::from(text.repeat(times)));
            }
            _ => {}
        }
        let (Some(a), Some(b)) = (Number::of(left), Number::of(right)) else {
            let (a, b) = (left.type_name(), right.type_name());
            return Err(Fault::kind(format!("arithmetic does not work on {a} and {b}")));
        };
        let result = match op {
            Math::Add => number::add(a, b),
            Math::Sub => number::sub(a, b),
            Math::Mul => number::mul(a, b),
            Math::Div => number::div(a, b),
        };
        let number = result.map_err(|odd| Fault::kind(odd.message()))?;
        Ok(number.value().unwrap_or_default())
    }

    fn related(&mut self, relation: Relation, left: &Value, right: &Value) -> Out<bool> {
        self.meter.spend(1)?;
        match relation {
            Relation::Eq => self.equal(left, right),
            Relation::Ne => self.equal(left, right).map(|equal| !equal),
            Relation::Lt => self.order(left, right).map(Ordering::is_lt),
            Relation::Le => self.order(left, right).map(Ordering::is_le),
            Relation::Gt => self.order(left, right).map(Ordering::is_gt),
            Relation::Ge => self.order(left, right).map(Ordering::is_ge),
        }
    }

    fn equal(&mut self, left: &Value, right: &Value) -> Out<bool> {
        match (left, right) {
            (Value::Str(text), other) | (other, Value::Str(text)) if !matches!(other, Value::Str(_)) => {
                self.meter.read(text.len())?;
                Ok(spells(text, other))
            }
            _ => compare::same(left, right, &mut self.meter),
        }
    }

    fn order(&mut self, left: &Value, right: &Value) -> Out<Ordering> {
        let number = |value: &Value| match value {
            Value::Str(text) => Number::parse(text),
            other => Number::of(other),
        };
        let mixed = matches!(left, Value::Str(_)) != matches!(right, Value::Str(_));
        if let (true, Some(a), Some(b)) = (mixed, number(left), number(right)) {
            return Ok(a.compare(b));
        }
        compare::order(left, right, &mut self.meter)
            .map_err(|fault| fault.hint("test first, as in `context.x != null and context.x > 1`"))
    }
}

/// Whether a text is how a scalar is written, in Python or in JSON.
fn spells(text: &str, value: &Value) -> bool {
    match value {
        Value::Null => matches!(text, "None" | "null"),
        Value::Bool(true) => matches!(text, "True" | "true"),
        Value::Bool(false) => matches!(text, "False" | "false"),
        Value::Int(_) | Value::Float(_) => match (Number::parse(text), Number::of(value)) {
            (Some(a), Some(b)) => a.compare(b).is_eq(),
            _ => false,
        },
        Value::Str(_) | Value::List(_) | Value::Map(_) => false,
    }
}

/// A Python index as a position.
fn position(i: i64, len: usize) -> Option<usize> {
    let at = if i < 0 { i.checked_add(i64::try_from(len).ok()?)? } else { i };
    usize::try_from(at).ok().filter(|at| *at < len)
}
