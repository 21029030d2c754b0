//! CEL conditions: the Common Expression Language over `context`, `input` and `output`.
//!
//! The grammar is the `cel` crate's. Evaluation is ours: it must be bounded at every macro and operator, and maps
//! must keep their order, so that every host gives the same answer. Types are strict, as in CEL: no conversions
//! happen by themselves. A run's data has no unsigned numbers and no bytes, so neither has this language.

mod call;
mod parse;
mod time;

use std::cmp::Ordering;

use windlass_core::eval::Scope;
use windlass_core::failure::Code;
use windlass_core::ids::Name;
use windlass_core::value::{Map, Value};

use super::compare;
use super::meter::{Fault, Limits, Meter};
use super::number::Number;

type Out<T = Cel> = Result<T, Fault>;

/// A condition that parsed.
#[derive(Debug)]
pub(super) struct Condition(Node);

/// A value of the language.
#[derive(Clone, Debug)]
enum Cel {
    Data(Value),
    /// Nanoseconds.
    Duration(i128),
    Timestamp(jiff::Timestamp),
    Type(&'static str),
}

impl Cel {
    const fn bool(b: bool) -> Self {
        Self::Data(Value::Bool(b))
    }

    fn type_name(&self) -> &'static str {
        match self {
            Self::Data(Value::Null) => "null_type",
            Self::Data(Value::Bool(_)) => "bool",
            Self::Data(Value::Int(_)) => "int",
            Self::Data(Value::Float(_)) => "double",
            Self::Data(Value::Str(_)) => "string",
            Self::Data(Value::List(_)) => "list",
            Self::Data(Value::Map(_)) => "map",
            Self::Duration(_) => "duration",
            Self::Timestamp(_) => "timestamp",
            Self::Type(_) => "type",
        }
    }

    fn into_data(self) -> Out<Value> {
        match self {
            Self::Data(value) => Ok(value),
            other => Err(Fault::kind(format!("a {} cannot be part of a list or map", other.type_name()))),
        }
    }
}

/// A part of an expression, with its place.
#[derive(Debug)]
struct Node {
    at: u32,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Literal(Cel),
    Name(Name),
    /// A base with `.x` and `[x]`, from left to right.
    Path(Box<Node>, Vec<(Part, u32)>),
    Has(Box<Node>, Name),
    Not(Box<Node>),
    Neg(Box<Node>),
    /// `&&` with `false`, `||` with `true`: the value that decides.
    Logic(bool, Vec<Node>),
    If(Box<[Node; 3]>),
    /// Left-associative arithmetic.
    Math(Box<Node>, Vec<(Math, Node)>),
    Compare(Relation, Box<[Node; 2]>),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    Call(call::Function, Vec<Node>),
    Each(Box<Each>),
}

#[derive(Debug)]
enum Part {
    Field(Name),
    Item(Node),
}

/// A macro over a list, or over the keys of a map.
#[derive(Debug)]
struct Each {
    what: Macro,
    range: Node,
    var: Name,
    /// The condition of a `map` with three arguments.
    guard: Option<Node>,
    body: Node,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Macro {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Math {
    Add,
    Sub,
    Mul,
    Div,
    Rem,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
}

/// Reads a condition.
pub(super) fn compile(source: &str) -> Result<Condition, Fault> {
    parse::parse(source).map(Condition)
}

/// Answers a condition. A result that is no boolean counts by Python's idea of truth, as the format says.
pub(super) fn holds(condition: &Condition, scope: &Scope, limits: Limits) -> Result<bool, Fault> {
    let mut run = Run { scope, vars: Vec::new(), meter: Meter::new(limits) };
    Ok(match run.value(&condition.0)? {
        Cel::Data(value) => value.is_truthy(),
        Cel::Duration(_) | Cel::Timestamp(_) | Cel::Type(_) => true,
    })
}

struct Run<'a> {
    scope: &'a Scope,
    /// Variables of the macros around, innermost last.
    vars: Vec<(&'a Name, Value)>,
    meter: Meter,
}

impl<'a> Run<'a> {
    fn value(&mut self, node: &'a Node) -> Out {
        self.meter.enter()?;
        let value = self.kind(node).map_err(|fault| fault.at(node.at))?;
        self.meter.leave();
        Ok(value)
    }

    fn kind(&mut self, node: &'a Node) -> Out {
        match &node.kind {
            Kind::Literal(value) => Ok(value.clone()),
            Kind::Name(name) => Ok(Cel::Data(self.name(name))),
            Kind::Path(base, parts) => self.path(base, parts),
            Kind::Has(inner, field) => match self.value(inner)? {
                Cel::Data(Value::Map(map)) => Ok(Cel::bool(map.contains_key(field))),
                other => Err(overload("has", &[&other])),
            },
            Kind::Not(inner) => self.truth(inner).map(|b| Cel::bool(!b)),
            Kind::Neg(inner) => match self.value(inner)? {
                Cel::Data(Value::Int(i)) => i.checked_neg().map(Value::Int).map(Cel::Data).ok_or_else(overflow),
                Cel::Data(Value::Float(f)) => Ok(Cel::Data(Value::Float(-f))),
                Cel::Duration(d) => Ok(Cel::Duration(-d)),
                other => Err(overload("-", &[&other])),
            },
            Kind::Logic(decisive, operands) => self.logic(*decisive, operands).map(Cel::bool),
            Kind::If(parts) => {
                let [test, yes, no] = parts.as_ref();
                if self.truth(test)? { self.value(yes) } else { self.value(no) }
            }
            Kind::Math(first, rest) => {
                let mut left = self.value(first)?;
                for (op, right) in rest {
                    let right = self.value(right)?;
                    left = self.math(*op, &left, &right)?;
                }
                Ok(left)
            }
            Kind::Compare(relation, pair) => {
                let [left, right] = pair.as_ref();
                let (left, right) = (self.value(left)?, self.value(right)?);
                self.related(*relation, &left, &right).map(Cel::bool)
            }
            Kind::List(items) => self.list(items),
            Kind::Map(pairs) => self.map(pairs),
            Kind::Call(function, args) => {
                let mut values = Vec::with_capacity(args.len());
                for arg in args {
                    values.push(self.value(arg)?);
                }
                call::call(*function, &values, &mut self.meter)
            }
            Kind::Each(each) => self.each(each),
        }
    }

    fn name(&self, name: &Name) -> Value {
        let var = self.vars.iter().rev().find(|(var, _)| *var == name).map(|(_, value)| value);
        var.or_else(|| self.scope.get(name)).cloned().unwrap_or_else(Value::empty_map)
    }

    fn path(&mut self, base: &'a Node, parts: &'a [(Part, u32)]) -> Out {
        let mut value = self.value(base)?;
        for (part, at) in parts {
            self.meter.spend(1)?;
            value = match part {
                Part::Field(name) => field(&value, name),
                Part::Item(key) => {
                    let key = self.value(key)?;
                    index(&value, &key)
                }
            }
            .map_err(|fault| fault.at(*at))?;
        }
        Ok(value)
    }

    fn truth(&mut self, node: &'a Node) -> Out<bool> {
        match self.value(node)? {
            Cel::Data(Value::Bool(b)) => Ok(b),
            other => Err(Fault::kind(format!("a bool is needed, not {}", other.type_name())).at(node.at)),
        }
    }

    /// `&&` and `||`: an operand that decides wins over a failure beside it, whichever comes first.
    fn logic(&mut self, decisive: bool, operands: &'a [Node]) -> Out<bool> {
        let mut failed = None;
        let (depth, vars) = (self.meter.depth(), self.vars.len());
        for operand in operands {
            match self.truth(operand) {
                Ok(b) if b == decisive => return Ok(decisive),
                Ok(_) => {}
                Err(fault) => {
                    self.vars.truncate(vars);
                    self.absorb(fault, depth, &mut failed)?;
                }
            }
        }
        failed.map_or(Ok(!decisive), Err)
    }

    /// Keeps a failure that a later operand may overrule. A bound that was reached cannot be overruled.
    fn absorb(&mut self, fault: Fault, depth: u32, failed: &mut Option<Fault>) -> Out<()> {
        if fault.code() == Code::TemplateLimit {
            return Err(fault);
        }
        self.meter.back_to(depth);
        failed.get_or_insert(fault);
        Ok(())
    }

    fn list(&mut self, items: &'a [Node]) -> Out {
        self.meter.items(items.len())?;
        let mut out = Vec::with_capacity(items.len());
        for item in items {
            let value = self.value(item)?.into_data()?;
            self.meter.measure(&value)?;
            out.push(value);
        }
        Ok(Cel::Data(Value::list(out)))
    }

    fn map(&mut self, pairs: &'a [(Node, Node)]) -> Out {
        self.meter.items(pairs.len().saturating_mul(2))?;
        let mut out = Map::new();
        for (key, item) in pairs {
            let (key, item) = (self.value(key)?, self.value(item)?.into_data()?);
            let Cel::Data(Value::Str(key)) = key else {
                return Err(Fault::kind(format!("a key is a string here, not {}", key.type_name())));
            };
            self.meter.measure(&item)?;
            if out.insert(key.clone(), item).is_some() {
                return Err(Fault::kind(format!("the key `{key}` occurs twice")));
            }
        }
        Ok(Cel::Data(Value::map(out)))
    }

    fn math(&mut self, op: Math, left: &Cel, right: &Cel) -> Out {
        self.meter.spend(1)?;
        let (a, b) = match (left, right) {
            (Cel::Data(a), Cel::Data(b)) => (a, b),
            _ => return time::math(op, left, right),
        };
        let value = match (op, a, b) {
            (_, Value::Int(a), Value::Int(b)) => Value::Int(whole(op, *a, *b)?),
            (Math::Rem, Value::Float(_), Value::Float(_)) => return Err(overload("%", &[left, right])),
            (_, Value::Float(a), Value::Float(b)) => {
                let result = match op {
                    Math::Add => a + b,
                    Math::Sub => a - b,
                    Math::Mul => a * b,
                    Math::Div | Math::Rem => a / b,
                };
                Value::float(result).ok_or_else(|| Fault::kind("the result is not a finite number"))?
            }
            (Math::Add, Value::Str(a), Value::Str(b)) => {
                self.meter.text(a.len().saturating_add(b.len()))?;
                Value::from([&**a, &**b].concat())
            }
            (Math::Add, Value::List(a), Value::List(b)) => {
                self.meter.items(a.len().saturating_add(b.len()))?;
                Value::list(a.iter().chain(b.iter()).cloned().collect())
            }
            _ => return Err(overload(sign(op), &[left, right])),
        };
        Ok(Cel::Data(value))
    }

    fn related(&mut self, relation: Relation, left: &Cel, right: &Cel) -> Out<bool> {
        self.meter.spend(1)?;
        match relation {
            Relation::Eq => self.equal(left, right),
            Relation::Ne => self.equal(left, right).map(|equal| !equal),
            Relation::In => self.contains(right, left),
            Relation::Lt => self.order(left, right, "<").map(Ordering::is_lt),
            Relation::Le => self.order(left, right, "<=").map(Ordering::is_le),
            Relation::Gt => self.order(left, right, ">").map(Ordering::is_gt),
            Relation::Ge => self.order(left, right, ">=").map(Ordering::is_ge),
        }
    }

    fn equal(&mut self, left: &Cel, right: &Cel) -> Out<bool> {
        match (left, right) {
            (Cel::Data(a), Cel::Data(b)) => strictly_equal(a, b, &mut self.meter),
            (Cel::Duration(a), Cel::Duration(b)) => Ok(a == b),
            (Cel::Timestamp(a), Cel::Timestamp(b)) => Ok(a == b),
            (Cel::Type(a), Cel::Type(b)) => Ok(a == b),
            _ => Ok(false),
        }
    }

    fn order(&mut self, left: &Cel, right: &Cel, sign: &str) -> Out<Ordering> {
        match (left, right) {
            (Cel::Duration(a), Cel::Duration(b)) => return Ok(a.cmp(b)),
            (Cel::Timestamp(a), Cel::Timestamp(b)) => return Ok(a.cmp(b)),
            (Cel::Data(a), Cel::Data(b)) => {
                let number = |v: &Value| matches!(v, Value::Int(_) | Value::Float(_));
                let comparable = match (a, b) {
                    (Value::Str(_), Value::Str(_)) | (Value::Bool(_), Value::Bool(_)) => true,
                    (a, b) => number(a) && number(b),
                };
                if comparable {
                    return compare::order(a, b, &mut self.meter);
                }
            }
            _ => {}
        }
        Err(overload(sign, &[left, right]).hint("convert first: `int(…)`, `double(…)` or `string(…)`"))
    }

    fn contains(&mut self, container: &Cel, item: &Cel) -> Out<bool> {
        match (container, item) {
            (Cel::Data(Value::List(items)), Cel::Data(item)) => {
                for candidate in items.iter() {
                    if strictly_equal(candidate, item, &mut self.meter)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            (Cel::Data(Value::List(_)), _) => Ok(false),
            (Cel::Data(Value::Map(map)), Cel::Data(Value::Str(key))) => Ok(map.contains_key(key)),
            (Cel::Data(Value::Map(_)), Cel::Data(_)) => Ok(false),
            _ => Err(overload("in", &[item, container])),
        }
    }

    fn each(&mut self, each: &'a Each) -> Out {
        let range = match self.value(&each.range)? {
            Cel::Data(Value::List(items)) => items,
            Cel::Data(Value::Map(map)) => {
                self.meter.items(map.len())?;
                map.keys().cloned().map(Value::Str).collect::<Vec<_>>().into()
            }
            other => return Err(Fault::kind(format!("a list or map is needed, not {}", other.type_name()))),
        };
        match each.what {
            Macro::All => self.fold(each, &range, false).map(Cel::bool),
            Macro::Exists => self.fold(each, &range, true).map(Cel::bool),
            Macro::ExistsOne | Macro::Filter => {
                let mut kept = Vec::new();
                for item in range.iter() {
                    if self.with(each, item, |run| run.truth(&each.body))? {
                        self.meter.items(1)?;
                        kept.push(item.clone());
                    }
                }
                let one = Cel::bool(kept.len() == 1);
                Ok(if each.what == Macro::ExistsOne { one } else { Cel::Data(Value::list(kept)) })
            }
            Macro::Map => {
                let mut out = Vec::new();
                for item in range.iter() {
                    let mapped = self.with(each, item, |run| match &each.guard {
                        Some(guard) if !run.truth(guard)? => Ok(None),
                        _ => run.value(&each.body).map(Some),
                    })?;
                    if let Some(mapped) = mapped {
                        let value = mapped.into_data()?;
                        self.meter.items(1)?;
                        self.meter.measure(&value)?;
                        out.push(value);
                    }
                }
                Ok(Cel::Data(Value::list(out)))
            }
        }
    }

    /// `all` and `exists`: an element that decides wins over a failure beside it.
    fn fold(&mut self, each: &'a Each, range: &[Value], decisive: bool) -> Out<bool> {
        let mut failed = None;
        let (depth, vars) = (self.meter.depth(), self.vars.len());
        for item in range {
            match self.with(each, item, |run| run.truth(&each.body)) {
                Ok(b) if b == decisive => return Ok(decisive),
                Ok(_) => {}
                Err(fault) => {
                    self.vars.truncate(vars);
                    self.absorb(fault, depth, &mut failed)?;
                }
            }
        }
        failed.map_or(Ok(!decisive), Err)
    }

    fn with<T>(&mut self, each: &'a Each, item: &Value, f: impl FnOnce(&mut Self) -> Out<T>) -> Out<T> {
        self.meter.spend(1)?;
        self.vars.push((&each.var, item.clone()));
        let result = f(self)?;
        self.vars.pop();
        Ok(result)
    }
}

fn whole(op: Math, a: i64, b: i64) -> Out<i64> {
    if b == 0 && matches!(op, Math::Div | Math::Rem) {
        return Err(Fault::kind("division by zero"));
    }
    let result = match op {
        Math::Add => a.checked_add(b),
        Math::Sub => a.checked_sub(b),
        Math::Mul => a.checked_mul(b),
        Math::Div => a.checked_div(b),
        Math::Rem => a.checked_rem(b),
    };
    result.ok_or_else(overflow)
}

fn overflow() -> Fault {
    Fault::kind("the result is beyond 64 bits")
}

/// Equality by type: numbers by value, all else only with its own kind, at any depth.
fn strictly_equal(a: &Value, b: &Value, meter: &mut Meter) -> Out<bool> {
    meter.spend(1)?;
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Ok(a == b),
        (Value::Bool(_), _) | (_, Value::Bool(_)) => Ok(false),
        (Value::List(a), Value::List(b)) => {
            if a.len() != b.len() {
                return Ok(false);
            }
            for (x, y) in a.iter().zip(b.iter()) {
                if !strictly_equal(x, y, meter)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (Value::Map(a), Value::Map(b)) => {
            if a.len() != b.len() {
                return Ok(false);
            }
            for (key, x) in a.iter() {
                match b.get(key) {
                    Some(y) if strictly_equal(x, y, meter)? => {}
                    _ => return Ok(false),
                }
            }
            Ok(true)
        }
        _ => compare::same(a, b, meter),
    }
}

fn field(value: &Cel, name: &Name) -> Out {
    match value {
        Cel::Data(Value::Map(map)) => map.get(name).cloned().map(Cel::Data).ok_or_else(|| missing(name)),
        other => {
            Err(Fault::kind(format!("a {} has no field `{name}`", other.type_name())).hint("test with `has(…)` first"))
        }
    }
}

fn index(container: &Cel, key: &Cel) -> Out {
    match (container, key) {
        (Cel::Data(Value::Map(map)), Cel::Data(Value::Str(key))) => {
            map.get(key).cloned().map(Cel::Data).ok_or_else(|| missing(key))
        }
        (Cel::Data(Value::List(items)), Cel::Data(key @ (Value::Int(_) | Value::Float(_)))) => {
            let at = key.as_int().and_then(|i| usize::try_from(i).ok());
            at.and_then(|at| items.get(at)).cloned().map(Cel::Data).ok_or_else(|| {
                let shown = Number::of(key).map_or(0.0, Number::as_f64);
                Fault::kind(format!("index {shown} is outside a list of {}", items.len()))
                    .hint("test with `size(…)` first")
            })
        }
        _ => Err(overload("[…]", &[container, key])),
    }
}

fn missing(key: &str) -> Fault {
    Fault::kind(format!("there is no key `{key}`")).hint("test with `has(…)` first")
}

fn overload(what: &str, types: &[&Cel]) -> Fault {
    let types: Vec<_> = types.iter().map(|value| value.type_name()).collect();
    Fault::kind(format!("`{what}` does not work on {}", types.join(" and ")))
}

fn sign(op: Math) -> &'static str {
    match op {
        Math::Add => "+",
        Math::Sub => "-",
        Math::Mul => "*",
        Math::Div => "/",
        Math::Rem => "%",
    }
}
