//! Operators of templates on values: arithmetic, comparison, membership, attributes, subscripts, slices.

use std::cmp::Ordering;
use std::sync::Arc;

use windlass_core::value::{Map, Value};

use super::format;
use super::ir::{BinOp, CompareOp};
use super::meter::{Fault, Meter};
use super::number::{self, Number};
use super::print;
use super::val::{Loop, Val, undefined};
use crate::eval::compare::{order, same};

type Out<T = Val> = Result<T, Fault>;

/// Applies an arithmetic operator, `~` included.
pub(super) fn binary(op: BinOp, left: &Val, right: &Val, meter: &mut Meter) -> Out {
    if op == BinOp::Concat {
        return concat(&left.to_text(meter)?, &right.to_text(meter)?, meter);
    }
    let (a, b) = (left.need()?, right.need()?);
    match (op, a, b) {
        (BinOp::Add, Value::Str(a), Value::Str(b)) => return concat(a, b, meter),
        (BinOp::Add, Value::List(a), Value::List(b)) => {
            meter.items(a.len().saturating_add(b.len()))?;
            return Ok(Val::Data(Value::list(a.iter().chain(b.iter()).cloned().collect())));
        }
        (BinOp::Mul, Value::Str(text), count) | (BinOp::Mul, count, Value::Str(text)) => {
            return repeat_text(text, count, meter);
        }
        (BinOp::Mul, Value::List(items), count) | (BinOp::Mul, count, Value::List(items)) => {
            // Nothing costs nothing, but repeating it would still take a turn for each time.
            let count = if items.is_empty() { 0 } else { repetitions(count)? };
            meter.items(items.len().saturating_mul(count))?;
            let all = std::iter::repeat_n(items.as_slice(), count).flatten().cloned().collect();
            return Ok(Val::Data(Value::list(all)));
        }
        (BinOp::Rem, Value::Str(text), args) => return format::printf_operator(text, args, meter).map(Val::text),
        _ => {}
    }
    let (Some(x), Some(y)) = (Number::of(a), Number::of(b)) else {
        return Err(Fault::kind(format!("`{}` does not work on {} and {}", sign(op), a.type_name(), b.type_name()))
            .hint("convert first: `| int`, `| float` or `| string`"));
    };
    arithmetic(op, x, y)
}

fn arithmetic(op: BinOp, x: Number, y: Number) -> Out {
    let result = match op {
        BinOp::Add => number::add(x, y),
        BinOp::Sub => number::sub(x, y),
        BinOp::Mul => number::mul(x, y),
        BinOp::Div => number::div(x, y),
        BinOp::FloorDiv => number::floor_div(x, y),
        BinOp::Rem => number::rem(x, y),
        BinOp::Pow | BinOp::Concat => number::pow(x, y),
    };
    let result = result.map_err(|odd| Fault::kind(odd.message()))?;
    Ok(Val::Data(result.value().unwrap_or_default()))
}

fn sign(op: BinOp) -> &'static str {
    match op {
        BinOp::Add => "+",
        BinOp::Sub => "-",
        BinOp::Mul => "*",
        BinOp::Div => "/",
        BinOp::FloorDiv => "//",
        BinOp::Rem => "%",
        BinOp::Pow => "**",
        BinOp::Concat => "~",
    }
}

fn concat(a: &str, b: &str, meter: &mut Meter) -> Out {
    meter.text(a.len().saturating_add(b.len()))?;
    Ok(Val::text([a, b].concat()))
}

fn repetitions(count: &Value) -> Out<usize> {
    match count {
        Value::Bool(b) => Ok(usize::from(*b)),
        Value::Int(i) => Ok(usize::try_from(*i).unwrap_or(0)),
        other => Err(Fault::kind(format!("cannot repeat {} times", other.type_name()))),
    }
}

fn repeat_text(text: &str, count: &Value, meter: &mut Meter) -> Out {
    let count = repetitions(count)?;
    meter.text(text.len().saturating_mul(count))?;
    Ok(Val::text(text.repeat(count)))
}

/// The negative of a number.
pub(super) fn negate(val: &Val) -> Out {
    let value = val.need()?;
    let Some(n) = Number::of(value) else {
        return Err(Fault::kind(format!("`-` does not work on {}", value.type_name())));
    };
    Ok(Val::Data(number::neg(n).value().unwrap_or_default()))
}

/// Applies a comparison.
pub(super) fn compare(op: CompareOp, left: &Val, right: &Val, meter: &mut Meter) -> Out<bool> {
    meter.spend(1)?;
    match op {
        CompareOp::Eq => equal(left, right, meter),
        CompareOp::Ne => equal(left, right, meter).map(|e| !e),
        CompareOp::In => contains(right, left, meter),
        CompareOp::NotIn => contains(right, left, meter).map(|c| !c),
        CompareOp::Lt => ordered(left, right, meter).map(Ordering::is_lt),
        CompareOp::Le => ordered(left, right, meter).map(Ordering::is_le),
        CompareOp::Gt => ordered(left, right, meter).map(Ordering::is_gt),
        CompareOp::Ge => ordered(left, right, meter).map(Ordering::is_ge),
    }
}

fn ordered(left: &Val, right: &Val, meter: &mut Meter) -> Out<Ordering> {
    order(left.need()?, right.need()?, meter)
        .map_err(|fault| fault.hint("convert first: `| int`, `| float` or `| string`"))
}

/// Python's equality.
pub(super) fn equal(left: &Val, right: &Val, meter: &mut Meter) -> Out<bool> {
    match (left, right) {
        (Val::Data(a), Val::Data(b)) => same(a, b, meter),
        (Val::Undefined(_), Val::Undefined(_)) => Ok(true),
        _ => Ok(false),
    }
}

/// Whether `container` holds `item`.
pub(super) fn contains(container: &Val, item: &Val, meter: &mut Meter) -> Out<bool> {
    if container.is_undefined() {
        return Ok(false);
    }
    match container.need()? {
        Value::Str(text) => {
            let Value::Str(part) = item.need()? else {
                return Err(Fault::kind(format!("`in` a text needs a text, not {}", item.kind())));
            };
            meter.read(text.len())?;
            Ok(text.contains(&**part))
        }
        Value::List(items) => {
            let Val::Data(item) = item else { return Ok(false) };
            for candidate in items.iter() {
                if same(candidate, item, meter)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Value::Map(map) => Ok(item.data().and_then(key_text).is_some_and(|key| map.contains_key(&*key))),
        other => Err(Fault::kind(format!("`in` does not work on {}", other.type_name()))),
    }
}

/// The key a value stands for: keys of mappings are texts, so numbers and words are spelled out.
pub(super) fn key_text(value: &Value) -> Option<Arc<str>> {
    match value {
        Value::Str(text) => Some(text.clone()),
        Value::Int(i) => Some(i.to_string().into()),
        Value::Float(f) => Some(number::float_text(*f).into()),
        Value::Bool(b) => Some(if *b { "true" } else { "false" }.into()),
        Value::Null => Some("null".into()),
        Value::List(_) | Value::Map(_) => None,
    }
}

/// `val.name`. What does not exist is `None`; a failure for going below what does not exist.
pub(super) fn attribute(val: &Val, name: &str) -> Out<Option<Val>> {
    Ok(match val {
        Val::Data(Value::Map(map)) => map.get(name).cloned().map(Val::Data),
        Val::Undefined(path) => return Err(undefined(path.as_deref())),
        Val::Namespace(fields) => fields.borrow().get(name).cloned().map(Val::Data),
        Val::Loop(state) => loop_field(state, name),
        Val::Macro(decl, ..) => match name {
            "name" => Some(Val::text(decl.name.clone())),
            "arguments" => Some(Val::Data(Value::list(decl.params.iter().map(|p| Value::Str(p.0.clone())).collect()))),
            _ => None,
        },
        Val::Cycler(state) => (name == "current").then(|| cycled(state)),
        // The pairs of `groupby` have names, too.
        Val::Data(Value::List(pair)) => match (pair.as_slice(), name) {
            ([grouper, _], "grouper") => Some(Val::Data(grouper.clone())),
            ([_, list], "list") => Some(Val::Data(list.clone())),
            _ => None,
        },
        Val::Data(_) | Val::Global(_) | Val::Joiner(_) => None,
    })
}

/// The value a cycler is at.
pub(super) fn cycled(state: &(Vec<Value>, std::cell::Cell<usize>)) -> Val {
    state.0.get(state.1.get() % state.0.len().max(1)).cloned().map_or(Val::NULL, Val::Data)
}

fn loop_field(state: &Loop, name: &str) -> Option<Val> {
    let (i, len) = (state.index.get(), state.items.len());
    let neighbour =
        |at: Option<usize>| at.and_then(|at| state.items.get(at)).cloned().map_or(Val::Undefined(None), Val::Data);
    Some(match name {
        "index" => Val::count(i + 1),
        "index0" => Val::count(i),
        "revindex" => Val::count(len - i),
        "revindex0" => Val::count(len - i - 1),
        "first" => Val::bool(i == 0),
        "last" => Val::bool(i + 1 == len),
        "length" => Val::count(len),
        "depth" => Val::count(state.depth + 1),
        "depth0" => Val::count(state.depth),
        "previtem" => neighbour(i.checked_sub(1)),
        "nextitem" => neighbour(i.checked_add(1)),
        _ => return None,
    })
}

/// `val[key]`. What does not exist is `None`; a failure for going below what does not exist.
pub(super) fn item(val: &Val, key: &Val, meter: &mut Meter) -> Out<Option<Val>> {
    let key = match key {
        Val::Data(key) => key,
        Val::Undefined(path) if val.is_undefined() => return Err(undefined(path.as_deref())),
        _ => return Ok(None),
    };
    Ok(match (val, key) {
        (Val::Data(Value::List(items)), Value::Int(i)) => index(*i, items.len()).map(|i| Val::Data(items[i].clone())),
        (Val::Data(Value::List(items)), Value::Bool(b)) => items.get(usize::from(*b)).cloned().map(Val::Data),
        (Val::Data(Value::Str(text)), Value::Int(i)) => {
            meter.read(text.len())?;
            index(*i, text.chars().count()).and_then(|i| text.chars().nth(i)).map(|c| Val::text(c.to_string()))
        }
        (Val::Data(Value::Map(map)), key) => key_text(key).and_then(|key| map.get(&*key).cloned()).map(Val::Data),
        (_, Value::Str(name)) => attribute(val, name)?,
        (Val::Undefined(path), _) => return Err(undefined(path.as_deref())),
        _ => None,
    })
}

/// A Python index as a position.
pub(super) fn index(i: i64, len: usize) -> Option<usize> {
    let at = if i < 0 { i.checked_add(i64::try_from(len).ok()?)? } else { i };
    usize::try_from(at).ok().filter(|at| *at < len)
}

/// `val[start:stop:step]`.
pub(super) fn slice(val: &Val, parts: [Option<Val>; 3], meter: &mut Meter) -> Out {
    let bound = |part: &Option<Val>| match part {
        None | Some(Val::Data(Value::Null)) => Ok(None),
        Some(Val::Data(Value::Int(i))) => Ok(Some(*i)),
        Some(other) => Err(Fault::kind(format!("a slice takes whole numbers, not {}", other.kind()))),
    };
    let [start, stop, step] = [bound(&parts[0])?, bound(&parts[1])?, bound(&parts[2])?];
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(Fault::kind("a slice's step cannot be zero"));
    }
    match val {
        Val::Data(Value::List(items)) => {
            let picked = positions(items.len(), start, stop, step);
            meter.items(picked.len())?;
            Ok(Val::Data(Value::list(picked.into_iter().map(|i| items[i].clone()).collect())))
        }
        Val::Data(Value::Str(text)) => {
            meter.text(text.len().saturating_mul(4))?;
            let chars: Vec<char> = text.chars().collect();
            Ok(Val::text(positions(chars.len(), start, stop, step).into_iter().map(|i| chars[i]).collect::<String>()))
        }
        Val::Undefined(path) => Err(undefined(path.as_deref())),
        other => Err(Fault::kind(format!("a {} cannot be sliced", other.kind()))),
    }
}

/// The positions a Python slice picks, in order.
fn positions(len: usize, start: Option<i64>, stop: Option<i64>, step: i64) -> Vec<usize> {
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    let clamp = |i: i64, low: i64, high: i64| (if i < 0 { i.saturating_add(len) } else { i }).clamp(low, high);
    let mut out = Vec::new();
    if step > 0 {
        let mut at = start.map_or(0, |i| clamp(i, 0, len));
        let end = stop.map_or(len, |i| clamp(i, 0, len));
        while at < end {
            out.push(at as usize);
            at = at.saturating_add(step);
        }
    } else {
        let mut at = start.map_or(len - 1, |i| clamp(i, -1, len - 1));
        let end = stop.map_or(-1, |i| clamp(i, -1, len - 1));
        while at > end {
            out.push(at as usize);
            at = at.saturating_add(step);
        }
    }
    out
}

/// Adds a pair to a mapping under construction.
pub(super) fn insert(map: &mut Map, key: &Val, value: Val, meter: &mut Meter) -> Out<()> {
    let Some(key) = key_text(key.need()?) else {
        return Err(Fault::kind(format!("a {} cannot be a key", key.kind())));
    };
    let value = value.into_value()?;
    meter.items(2)?;
    meter.measure(&value)?;
    map.insert(key, value);
    Ok(())
}

/// Sorts stably; the order may fail, as values of different kinds have none.
pub(super) fn sort<T>(items: Vec<T>, compare: &mut impl FnMut(&T, &T) -> Out<Ordering>) -> Out<Vec<T>> {
    if items.len() < 2 {
        return Ok(items);
    }
    let mut left = items;
    let right = left.split_off(left.len() / 2);
    let (left, right) = (sort(left, compare)?, sort(right, compare)?);
    let mut out = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        let next = if compare(b, a)?.is_lt() { right.next() } else { left.next() };
        out.extend(next);
    }
    out.extend(left);
    out.extend(right);
    Ok(out)
}

/// The text of a value for messages and paths, short.
pub(super) fn brief(val: &Val) -> String {
    match val {
        Val::Data(Value::Str(text)) => format!("'{}'", text.chars().take(40).collect::<String>()),
        Val::Data(Value::List(_) | Value::Map(_)) => "…".to_owned(),
        Val::Data(value) => {
            let mut meter = Meter::new(super::meter::Limits::default());
            print::text(value, &mut meter).unwrap_or_default()
        }
        other => other.kind().to_owned(),
    }
}
