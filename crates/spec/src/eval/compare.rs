//! Python's equality and order on values. Shared by templates and simple conditions.

use std::cmp::Ordering;

use windlass_core::value::Value;

use super::meter::{Fault, Meter};
use super::number::Number;

type Out<T> = Result<T, Fault>;

/// Python's equality on data: `1 == 1.0 == True`, lists and mappings by content.
pub(super) fn same(a: &Value, b: &Value, meter: &mut Meter) -> Out<bool> {
    meter.spend(1)?;
    match (a, b) {
        (Value::Str(a), Value::Str(b)) => {
            if a.len() != b.len() {
                return Ok(false);
            }
            meter.read(a.len())?;
            Ok(a == b)
        }
        (Value::List(a), Value::List(b)) => {
            if a.len() != b.len() {
                return Ok(false);
            }
            for (x, y) in a.iter().zip(b.iter()) {
                if !same(x, y, meter)? {
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
                    Some(y) if same(x, y, meter)? => {}
                    _ => return Ok(false),
                }
            }
            Ok(true)
        }
        (Value::Null, Value::Null) => Ok(true),
        _ => match (Number::of(a), Number::of(b)) {
            (Some(x), Some(y)) => Ok(x.compare(y).is_eq()),
            _ => Ok(false),
        },
    }
}

/// Python's order: numbers by value, texts by code point, lists item by item.
pub(super) fn order(a: &Value, b: &Value, meter: &mut Meter) -> Out<Ordering> {
    meter.spend(1)?;
    match (a, b) {
        (Value::Str(a), Value::Str(b)) => {
            meter.read(a.len().min(b.len()))?;
            Ok(a.cmp(b))
        }
        (Value::List(a), Value::List(b)) => {
            for (x, y) in a.iter().zip(b.iter()) {
                if !same(x, y, meter)? {
                    return order(x, y, meter);
                }
            }
            Ok(a.len().cmp(&b.len()))
        }
        _ => match (Number::of(a), Number::of(b)) {
            (Some(x), Some(y)) => Ok(x.compare(y)),
            _ => Err(Fault::kind(format!("{} and {} have no order", a.type_name(), b.type_name()))),
        },
    }
}
