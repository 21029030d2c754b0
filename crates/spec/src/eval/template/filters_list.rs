//! Filters on lists and mappings. Each pays for what it looks at and for its result.

use std::cmp::Ordering;
use std::sync::Arc;

use windlass_core::value::{Map, Value};

use super::super::compare;
use super::arguments::Arguments;
use super::checks::Check;
use super::filters::{Filter, plus};
use super::meter::{Fault, Meter};
use super::number::Number;
use super::ops;
use super::val::Val;

type Out<T = Val> = Result<T, Fault>;

fn made(items: Vec<Value>) -> Val {
    Val::Data(Value::list(items))
}

/// The same, with its nesting bounded: for results one level deeper than what came in.
fn nested(items: Vec<Value>, meter: &mut Meter) -> Out {
    let value = Value::list(items);
    meter.measure(&value)?;
    Ok(Val::Data(value))
}

/// The value at a dotted path, as `attribute=` names it.
pub(super) fn field(item: &Val, path: &Val, meter: &mut Meter) -> Out {
    meter.spend(1)?;
    let name = match path.need()? {
        Value::Str(name) => name,
        _ => return Ok(ops::item(item, path, meter)?.unwrap_or(Val::Undefined(None))),
    };
    let mut current = item.clone();
    for part in name.split('.') {
        let key = part.parse().map_or_else(|_| Val::text(part), |i| Val::Data(Value::Int(i)));
        current = ops::item(&current, &key, meter)?.unwrap_or_else(|| Val::Undefined(Some(name.clone())));
    }
    Ok(current)
}

pub(super) fn length(meter: &mut Meter, val: Val, _: &mut Arguments) -> Out {
    Ok(Val::count(match &val {
        Val::Undefined(_) => 0,
        other => match other.need()? {
            Value::Str(text) => {
                meter.read(text.len())?;
                text.chars().count()
            }
            Value::List(items) => items.len(),
            Value::Map(map) => map.len(),
            other => return Err(Fault::kind(format!("a {} has no length", other.type_name()))),
        },
    }))
}

pub(super) fn first(meter: &mut Meter, val: Val, _: &mut Arguments) -> Out {
    if let Some(text) = val.data().and_then(Value::as_str) {
        return Ok(text.chars().next().map_or(Val::Undefined(None), |c| Val::text(c.to_string())));
    }
    Ok(val.items(meter)?.first().cloned().map_or(Val::Undefined(None), Val::Data))
}

pub(super) fn last(meter: &mut Meter, val: Val, _: &mut Arguments) -> Out {
    if let Some(text) = val.data().and_then(Value::as_str) {
        return Ok(text.chars().next_back().map_or(Val::Undefined(None), |c| Val::text(c.to_string())));
    }
    Ok(val.items(meter)?.last().cloned().map_or(Val::Undefined(None), Val::Data))
}

pub(super) fn reverse(meter: &mut Meter, val: Val, _: &mut Arguments) -> Out {
    if let Some(text) = val.data().and_then(Value::as_str) {
        meter.text(text.len())?;
        return Ok(Val::text(text.chars().rev().collect::<String>()));
    }
    let items = val.items(meter)?;
    meter.items(items.len())?;
    Ok(made(items.iter().rev().cloned().collect()))
}

pub(super) fn items(meter: &mut Meter, val: Val, _: &mut Arguments) -> Out {
    match &val {
        Val::Undefined(_) => Ok(made(Vec::new())),
        other => match other.need()? {
            Value::Map(map) => pairs(map, meter),
            other => Err(Fault::kind(format!("a mapping is needed, not {}", other.type_name()))),
        },
    }
}

/// The pairs of a mapping.
pub(super) fn pairs(map: &Map, meter: &mut Meter) -> Out {
    meter.items(map.len().saturating_mul(3))?;
    nested(map.iter().map(|(k, v)| Value::list(vec![Value::Str(k.clone()), v.clone()])).collect(), meter)
}

/// What to compare a value by: text without regard to case, unless asked.
fn sort_key(val: Val, case_sensitive: bool, meter: &mut Meter) -> Out {
    match &val {
        Val::Data(Value::Str(text)) if !case_sensitive => {
            meter.text(text.len().saturating_mul(3))?;
            Ok(Val::text(text.to_lowercase()))
        }
        _ => Ok(val),
    }
}

fn key_order(a: &Val, b: &Val, meter: &mut Meter) -> Out<Ordering> {
    compare::order(a.need()?, b.need()?, meter)
}

pub(super) fn sort(meter: &mut Meter, val: Val, args: &mut Arguments) -> Out {
    let reverse = args.bool_or(0, "reverse", false);
    let case_sensitive = args.bool_or(1, "case_sensitive", false);
    let attribute = args.take(2, "attribute");
    let items = val.items(meter)?;
    meter.items(items.len().saturating_mul(4))?;
    let mut keyed = Vec::with_capacity(items.len());
    for item in items.iter() {
        let mut keys = Vec::new();
        match &attribute {
            Some(Val::Data(Value::Str(paths))) => {
                for path in paths.split(',') {
                    meter.items(1)?;
                    let key = field(&Val::Data(item.clone()), &Val::text(path.trim()), meter)?;
                    keys.push(sort_key(key, case_sensitive, meter)?);
                }
            }
            Some(path) => keys.push(field(&Val::Data(item.clone()), path, meter)?),
            None => keys.push(sort_key(Val::Data(item.clone()), case_sensitive, meter)?),
        }
        keyed.push((keys, item.clone()));
    }
    let sorted = ops::sort(keyed, &mut |a, b| {
        for (x, y) in a.0.iter().zip(&b.0) {
            let order = key_order(x, y, meter)?;
            if order.is_ne() {
                return Ok(if reverse { order.reverse() } else { order });
            }
        }
        Ok(Ordering::Equal)
    })?;
    Ok(made(sorted.into_iter().map(|(_, item)| item).collect()))
}

pub(super) fn dictsort(meter: &mut Meter, val: Val, args: &mut Arguments) -> Out {
    let case_sensitive = args.bool_or(0, "case_sensitive", false);
    let by = args.text_or(1, "by", "key", meter)?;
    let reverse = args.bool_or(2, "reverse", false);
    let Value::Map(map) = val.need()? else {
        return Err(Fault::kind(format!("a mapping is needed, not {}", val.kind())));
    };
    let by_value = match &*by {
        "key" => false,
        "value" => true,
        other => return Err(Fault::kind(format!("`{other}` is neither `key` nor `value`"))),
    };
    meter.items(map.len().saturating_mul(4))?;
    let mut keyed = Vec::with_capacity(map.len());
    for (key, item) in map.iter() {
        let by = if by_value { Val::Data(item.clone()) } else { Val::text(key.clone()) };
        keyed.push((sort_key(by, case_sensitive, meter)?, key.clone(), item.clone()));
    }
    let sorted = ops::sort(keyed, &mut |a, b| {
        key_order(&a.0, &b.0, meter).map(|order| if reverse { order.reverse() } else { order })
    })?;
    nested(sorted.into_iter().map(|(_, k, v)| Value::list(vec![Value::Str(k), v])).collect(), meter)
}

pub(super) fn unique(meter: &mut Meter, val: Val, args: &mut Arguments) -> Out {
    let case_sensitive = args.bool_or(0, "case_sensitive", false);
    let attribute = args.take(1, "attribute");
    let mut seen: Vec<Val> = Vec::new();
    let mut out = Vec::new();
    for item in val.items(meter)?.iter() {
        let key = match &attribute {
            Some(path) => field(&Val::Data(item.clone()), path, meter)?,
            None => Val::Data(item.clone()),
        };
        let key = sort_key(key, case_sensitive, meter)?;
        let mut known = false;
        for other in &seen {
            if ops::equal(other, &key, meter)? {
                known = true;
                break;
            }
        }
        if !known {
            meter.items(2)?;
            seen.push(key);
            out.push(item.clone());
        }
    }
    Ok(made(out))
}

fn extreme(meter: &mut Meter, val: &Val, args: &mut Arguments, wanted: Ordering) -> Out {
    let case_sensitive = args.bool_or(0, "case_sensitive", false);
    let attribute = args.take(1, "attribute");
    let mut best: Option<(Val, Value)> = None;
    for item in val.items(meter)?.iter() {
        let key = match &attribute {
            Some(path) => field(&Val::Data(item.clone()), path, meter)?,
            None => Val::Data(item.clone()),
        };
        let key = sort_key(key, case_sensitive, meter)?;
        let better = match &best {
            Some((other, _)) => key_order(&key, other, meter)? == wanted,
            None => true,
        };
        if better {
            best = Some((key, item.clone()));
        }
    }
    Ok(best.map_or(Val::Undefined(None), |(_, item)| Val::Data(item)))
}

pub(super) fn max(meter: &mut Meter, val: Val, args: &mut Arguments) -> Out {
    extreme(meter, &val, args, Ordering::Greater)
}

pub(super) fn min(meter: &mut Meter, val: Val, args: &mut Arguments) -> Out {
    extreme(meter, &val, args, Ordering::Less)
}

pub(super) fn sum(meter: &mut Meter, val: Val, args: &mut Arguments) -> Out {
    let attribute = args.take(0, "attribute").filter(|path| !matches!(path, Val::Data(Value::Null)));
    let start = args.take(1, "start").unwrap_or(Val::Data(Value::Int(0)));
    let number = |val: &Val| {
        let value = val.need()?;
        Number::of(value).ok_or_else(|| Fault::kind(format!("numbers are needed, not {}", value.type_name())))
    };
    let mut total = number(&start)?;
    for item in val.items(meter)?.iter() {
        meter.spend(1)?;
        let item = Val::Data(item.clone());
        let item = match &attribute {
            Some(path) => field(&item, path, meter)?,
            None => item,
        };
        total = plus(total, number(&item)?)?;
    }
    Ok(Val::Data(total.value().unwrap_or_default()))
}

pub(super) fn batch(meter: &mut Meter, val: Val, args: &mut Arguments) -> Out {
    let size = args.count_or(0, "linecount", 0)?;
    let fill = args.take(1, "fill_with").map(Val::into_value).transpose()?.filter(|fill| !fill.is_null());
    if size == 0 {
        return Err(Fault::kind("`linecount` must be at least 1"));
    }
    let items = val.items(meter)?;
    meter.items(items.len().saturating_mul(2))?;
    let mut out = Vec::new();
    for chunk in items.chunks(size) {
        let mut row = chunk.to_vec();
        if let Some(fill) = &fill {
            meter.items(size - row.len())?;
            row.resize(size, fill.clone());
        }
        out.push(Value::list(row));
    }
    nested(out, meter)
}

pub(super) fn slice(meter: &mut Meter, val: Val, args: &mut Arguments) -> Out {
    let count = args.count_or(0, "slices", 0)?;
    let fill = args.take(1, "fill_with").map(Val::into_value).transpose()?.filter(|fill| !fill.is_null());
    if count == 0 {
        return Err(Fault::kind("`slices` must be at least 1"));
    }
    let items = val.items(meter)?;
    meter.items(items.len().saturating_add(count.saturating_mul(3)))?;
    let (each, extra) = (items.len() / count, items.len() % count);
    let mut out = Vec::with_capacity(count);
    let mut at = 0;
    for i in 0..count {
        let end = at + each + usize::from(i < extra);
        let mut row = items[at..end].to_vec();
        if let (Some(fill), true) = (&fill, i >= extra && extra > 0) {
            row.push(fill.clone());
        }
        out.push(Value::list(row));
        at = end;
    }
    nested(out, meter)
}

pub(super) fn groupby(meter: &mut Meter, val: Val, args: &mut Arguments) -> Out {
    let path = args.need(0, "attribute")?;
    let fallback = args.take(1, "default");
    let case_sensitive = args.bool_or(2, "case_sensitive", false);
    let items = val.items(meter)?;
    meter.items(items.len().saturating_mul(4))?;
    let mut keyed = Vec::with_capacity(items.len());
    for item in items.iter() {
        let found = field(&Val::Data(item.clone()), &path, meter)?;
        let shown = match (&fallback, found.is_undefined()) {
            (Some(fallback), true) => fallback.clone(),
            _ => found,
        };
        keyed.push((sort_key(shown.clone(), case_sensitive, meter)?, shown, item.clone()));
    }
    let sorted = ops::sort(keyed, &mut |a, b| key_order(&a.0, &b.0, meter))?;
    let mut groups: Vec<(Val, Val, Vec<Value>)> = Vec::new();
    for (key, shown, item) in sorted {
        match groups.last_mut() {
            Some((last, _, members)) if ops::equal(last, &key, meter)? => members.push(item),
            _ => groups.push((key, shown, vec![item])),
        }
    }
    let mut out = Vec::with_capacity(groups.len());
    for (_, shown, members) in groups {
        out.push(Value::list(vec![shown.into_value()?, Value::list(members)]));
    }
    nested(out, meter)
}

pub(super) fn map(meter: &mut Meter, val: Val, args: &mut Arguments) -> Out {
    let items = val.items(meter)?;
    let attribute = args.take(usize::MAX, "attribute");
    let fallback = args.take(usize::MAX, "default");
    let mut out = Vec::new();
    if let Some(path) = attribute {
        for item in items.iter() {
            meter.items(1)?;
            let found = field(&Val::Data(item.clone()), &path, meter)?;
            let found = match (&fallback, found.is_undefined()) {
                (Some(fallback), true) => fallback.clone(),
                _ => found,
            };
            out.push(found.into_value()?);
        }
        return nested(out, meter);
    }
    let name = args.text(0, "filter", meter)?;
    let filter = Filter::named(&name)?;
    let (rest, named) = (args.rest(1), args.take_named());
    for item in items.iter() {
        meter.items(1 + rest.len())?;
        let mut each = Arguments::default();
        each.extend(rest.iter().cloned());
        for (name, val) in &named {
            each.push_named(name.clone(), val.clone())?;
        }
        out.push(filter.apply(meter, Val::Data(item.clone()), each)?.into_value()?);
    }
    nested(out, meter)
}

/// Keeps the items whose test, on themselves or on a field of theirs, comes out as wanted.
fn filtered(meter: &mut Meter, val: &Val, args: &mut Arguments, by_field: bool, wanted: bool) -> Out {
    let items = val.items(meter)?;
    let path = if by_field { Some(args.need(0, "attribute")?) } else { None };
    let at = usize::from(by_field);
    let check = match args.take(at, "test") {
        None => None,
        Some(name) => Some(Check::named(&name.to_text(meter)?)?),
    };
    let rest = args.rest(at + 1);
    let mut out = Vec::new();
    for item in items.iter() {
        meter.spend(1 + rest.len())?;
        let subject = match &path {
            Some(path) => field(&Val::Data(item.clone()), path, meter)?,
            None => Val::Data(item.clone()),
        };
        let holds = match check {
            None => subject.is_truthy(),
            Some(check) => {
                let mut each = Arguments::default();
                each.extend(rest.iter().cloned());
                check.holds(meter, &subject, each)?
            }
        };
        if holds == wanted {
            meter.items(1)?;
            out.push(item.clone());
        }
    }
    Ok(Val::Data(Value::List(Arc::new(out))))
}

pub(super) fn select(meter: &mut Meter, val: Val, args: &mut Arguments) -> Out {
    filtered(meter, &val, args, false, true)
}

pub(super) fn reject(meter: &mut Meter, val: Val, args: &mut Arguments) -> Out {
    filtered(meter, &val, args, false, false)
}

pub(super) fn selectattr(meter: &mut Meter, val: Val, args: &mut Arguments) -> Out {
    filtered(meter, &val, args, true, true)
}

pub(super) fn rejectattr(meter: &mut Meter, val: Val, args: &mut Arguments) -> Out {
    filtered(meter, &val, args, true, false)
}
