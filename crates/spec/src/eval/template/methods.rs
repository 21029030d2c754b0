//! Python's methods on texts, mappings and lists, as documents written for the format call them.

use std::sync::Arc;

use windlass_core::value::{Map, Value};

use super::super::compare;
use super::arguments::Arguments;
use super::filters_list;
use super::filters_text as text;
use super::format;
use super::meter::{Fault, Meter};
use super::ops;
use super::val::Val;

type Out<T = Val> = Result<T, Fault>;

/// Calls a method of a value.
pub(super) fn call(value: &Value, name: &str, mut args: Arguments, meter: &mut Meter) -> Out {
    meter.enter()?;
    let result = match value {
        Value::Str(text) => on_text(text, name, &mut args, meter),
        Value::Map(map) => on_map(map, name, &mut args, meter),
        Value::List(items) => on_list(items, name, &mut args, meter),
        Value::Float(f) if name == "is_integer" => Ok(Some(Value::Bool(f.fract() == 0.0))),
        Value::Int(_) | Value::Bool(_) if name == "is_integer" => Ok(Some(Value::Bool(true))),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => Ok(None),
    };
    let method = |fault: Fault| fault.within(name);
    let Some(result) = result.map_err(method)? else {
        return Err(unknown(value, name));
    };
    args.finish().map_err(method)?;
    meter.leave();
    Ok(Val::Data(result))
}

fn unknown(value: &Value, name: &str) -> Fault {
    let fault = Fault::kind(format!("a {} has no method `{name}`", value.type_name()));
    let changes = matches!(
        name,
        "append" | "extend" | "insert" | "remove" | "pop" | "clear" | "update" | "setdefault" | "popitem"
    );
    if changes {
        return fault.hint("values do not change in a template; collect with `ns.list = ns.list + [item]`");
    }
    fault
}

fn done(value: impl Into<Value>) -> Out<Option<Value>> {
    Ok(Some(value.into()))
}

fn on_map(map: &Map, name: &str, args: &mut Arguments, meter: &mut Meter) -> Out<Option<Value>> {
    match name {
        "get" => {
            let key = args.need(0, "key")?;
            let fallback = args.take(1, "default").unwrap_or(Val::NULL);
            let found = key.data().and_then(ops::key_text).and_then(|key| map.get(&*key).cloned());
            done(match found {
                Some(value) => value,
                None => fallback.into_value()?,
            })
        }
        "items" => Ok(Some(filters_list::pairs(map, meter)?.into_value()?)),
        "keys" => {
            meter.items(map.len())?;
            done(map.keys().cloned().map(Value::Str).collect::<Vec<_>>())
        }
        "values" => {
            meter.items(map.len())?;
            let values = Value::list(map.values().cloned().collect());
            meter.measure(&values)?;
            done(values)
        }
        "copy" => done(Value::map(map.clone())),
        _ => Ok(None),
    }
}

fn on_list(items: &Arc<Vec<Value>>, name: &str, args: &mut Arguments, meter: &mut Meter) -> Out<Option<Value>> {
    match name {
        "count" => {
            let wanted = args.need(0, "value")?.into_value()?;
            text::occurrences(items, &wanted, meter).map(Some)
        }
        "index" => {
            let wanted = args.need(0, "value")?.into_value()?;
            for (i, item) in items.iter().enumerate() {
                if compare::same(item, &wanted, meter)? {
                    return done(Value::count(i as u64));
                }
            }
            Err(Fault::kind("the value is not in the list"))
        }
        "copy" => done(Value::List(items.clone())),
        _ => Ok(None),
    }
}

fn on_text(s: &str, name: &str, args: &mut Arguments, meter: &mut Meter) -> Out<Option<Value>> {
    if let Some(answer) = question(s, name, meter)? {
        return done(answer);
    }
    if let Some(answer) = search(s, name, args, meter)? {
        return Ok(Some(answer));
    }
    if let Some(parts) = divided(s, name, args, meter)? {
        return Ok(Some(parts));
    }
    let longer = |meter: &mut Meter| meter.text(s.len().saturating_mul(3));
    let made = match name {
        "upper" => {
            longer(meter)?;
            s.to_uppercase()
        }
        "lower" | "casefold" => {
            longer(meter)?;
            s.to_lowercase()
        }
        "capitalize" => {
            longer(meter)?;
            text::capitalized(s)
        }
        "title" => {
            longer(meter)?;
            python_title(s)
        }
        "swapcase" => {
            longer(meter)?;
            s.chars().flat_map(swapped).collect()
        }
        "strip" | "lstrip" | "rstrip" => stripped(s, name, args, meter)?,
        "removeprefix" | "removesuffix" => {
            let part = args.text(0, "prefix", meter)?;
            meter.text(s.len())?;
            let cut = if name == "removeprefix" { s.strip_prefix(&*part) } else { s.strip_suffix(&*part) };
            cut.unwrap_or(s).to_owned()
        }
        "replace" => {
            let (old, new) = (args.text(0, "old", meter)?, args.text(1, "new", meter)?);
            let count = args.int_option(2, "count")?;
            text::replaced(s, &old, &new, count, meter)?
        }
        "join" => {
            let items = args.need(0, "iterable")?.items(meter)?;
            if let Some(other) = items.iter().find(|item| !matches!(item, Value::Str(_))) {
                return Err(Fault::kind(format!("texts are needed, not {}", other.type_name()))
                    .hint("the filter `join` takes any value"));
            }
            text::joined(s, &items, meter)?
        }
        "center" | "ljust" | "rjust" | "zfill" => return padded(s, name, args, meter).map(Some),
        "format" => format::str_format(s, std::mem::take(args), meter)?,
        "expandtabs" => {
            let width = args.count_or(0, "tabsize", 8)?;
            expanded(s, width, meter)?
        }
        _ => return Ok(None),
    };
    done(made)
}

fn stripped(s: &str, name: &str, args: &mut Arguments, meter: &mut Meter) -> Out<String> {
    let chars = args.text_option(0, "chars")?;
    meter.text(s.len())?;
    let cut = |c: char| chars.as_ref().map_or_else(|| c.is_whitespace(), |chars| chars.contains(c));
    let kept = match name {
        "strip" => s.trim_matches(cut),
        "lstrip" => s.trim_start_matches(cut),
        _ => s.trim_end_matches(cut),
    };
    Ok(kept.to_owned())
}

fn padded(s: &str, name: &str, args: &mut Arguments, meter: &mut Meter) -> Out<Value> {
    let width = args.count_or(0, "width", 0)?;
    if name == "zfill" {
        let (sign, digits) = s.split_at(usize::from(s.starts_with(['+', '-'])));
        let digits = text::padded(digits, width.saturating_sub(sign.len()), '0', '>', meter)?;
        return Ok(Value::from(format!("{sign}{digits}")));
    }
    let fill = args.text_or(1, "fillchar", " ", meter)?;
    let mut fill_chars = fill.chars();
    let (Some(fill), None) = (fill_chars.next(), fill_chars.next()) else {
        return Err(Fault::kind("the filler is exactly one character"));
    };
    let align = match name {
        "ljust" => '<',
        "rjust" => '>',
        _ => '^',
    };
    text::padded(s, width, fill, align, meter).map(Value::from)
}

fn expanded(s: &str, width: usize, meter: &mut Meter) -> Out<String> {
    let tabs = s.matches('\t').count();
    meter.text(s.len().saturating_add(tabs.saturating_mul(width)))?;
    let mut out = String::new();
    let mut column = 0;
    for c in s.chars() {
        match c {
            '\t' => {
                let blanks = if width == 0 { 0 } else { width - column % width };
                out.extend(std::iter::repeat_n(' ', blanks));
                column += blanks;
            }
            '\n' | '\r' => {
                out.push(c);
                column = 0;
            }
            c => {
                out.push(c);
                column += 1;
            }
        }
    }
    Ok(out)
}

fn swapped(c: char) -> impl Iterator<Item = char> {
    let text: String = if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() };
    text.chars().collect::<Vec<_>>().into_iter()
}

/// Python's `title`: a letter after anything but a letter is a capital.
fn python_title(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    let mut inside = false;
    for c in s.chars() {
        if inside {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        inside = c.is_alphabetic();
    }
    out
}

/// Methods that ask what a text is made of.
fn question(s: &str, name: &str, meter: &mut Meter) -> Out<Option<bool>> {
    let all: fn(char) -> bool = match name {
        "isalnum" => char::is_alphanumeric,
        "isalpha" => char::is_alphabetic,
        "isdigit" | "isdecimal" | "isnumeric" => char::is_numeric,
        "isspace" => char::is_whitespace,
        "isascii" => return Ok(Some(s.is_ascii())),
        "islower" | "isupper" | "istitle" => |_| false,
        _ => return Ok(None),
    };
    meter.read(s.len())?;
    Ok(Some(match name {
        "islower" => s.chars().any(char::is_lowercase) && !s.chars().any(char::is_uppercase),
        "isupper" => s.chars().any(char::is_uppercase) && !s.chars().any(char::is_lowercase),
        "istitle" => {
            meter.text(s.len().saturating_mul(3))?;
            s.chars().any(char::is_alphabetic) && python_title(s) == s
        }
        _ => !s.is_empty() && s.chars().all(all),
    }))
}

/// Methods that look for a text.
fn search(s: &str, name: &str, args: &mut Arguments, meter: &mut Meter) -> Out<Option<Value>> {
    if !matches!(name, "startswith" | "endswith" | "count" | "find" | "rfind" | "index" | "rindex") {
        return Ok(None);
    }
    meter.read(s.len())?;
    let part = args.need(0, "sub")?;
    if name == "startswith" {
        return text::any_of(&part, name, |p| s.starts_with(p)).map(|b| Some(Value::Bool(b)));
    }
    if name == "endswith" {
        return text::any_of(&part, name, |p| s.ends_with(p)).map(|b| Some(Value::Bool(b)));
    }
    let Value::Str(part) = part.need()? else {
        return Err(Fault::kind(format!("text is needed, not {}", part.kind())));
    };
    let found = match name {
        "count" => return Ok(Some(Value::count(s.matches(&**part).count() as u64))),
        "find" | "index" => s.find(&**part),
        _ => s.rfind(&**part),
    };
    if found.is_none() && name.ends_with("index") {
        return Err(Fault::kind("the text is not found"));
    }
    Ok(Some(text::position(s, found)))
}

/// Methods that cut a text into parts.
fn divided(s: &str, name: &str, args: &mut Arguments, meter: &mut Meter) -> Out<Option<Value>> {
    let parts = match name {
        "split" | "rsplit" => {
            let separator = args.text_option(0, "sep")?;
            let most = args.int_or(1, "maxsplit", -1)?;
            split(s, separator.as_deref(), most, name == "rsplit", meter)?
        }
        "splitlines" => {
            let keep = args.bool_or(0, "keepends", false);
            let lines = s.split_inclusive('\n');
            text::parts(lines.map(|line| if keep { line } else { line.trim_end_matches(['\n', '\r']) }), meter)?
        }
        "partition" | "rpartition" => {
            let separator = args.text(0, "sep", meter)?;
            let found = if name == "partition" { s.split_once(&*separator) } else { s.rsplit_once(&*separator) };
            let parts = match (found, name) {
                (Some((head, tail)), _) => [head, &*separator, tail],
                (None, "partition") => [s, "", ""],
                (None, _) => ["", "", s],
            };
            text::parts(parts.into_iter(), meter)?
        }
        _ => return Ok(None),
    };
    parts.into_value().map(Some)
}

fn split(s: &str, separator: Option<&str>, most: i64, from_end: bool, meter: &mut Meter) -> Out {
    let pieces = usize::try_from(most).map_or(usize::MAX, |n| n.saturating_add(1));
    if let Some(separator) = separator {
        if separator.is_empty() {
            return Err(Fault::kind("an empty separator"));
        }
        if from_end {
            // Only as many as asked for are cut, so the count bounds the vector; the text bounds the count.
            meter.items(s.len().min(pieces))?;
            let mut all: Vec<&str> = s.rsplitn(pieces, separator).collect();
            all.reverse();
            return text::parts(all.into_iter(), meter);
        }
        return text::parts(s.splitn(pieces, separator), meter);
    }
    // Without a separator Python cuts at runs of blanks and drops empty parts.
    let mut out: Vec<&str> = Vec::new();
    let mut rest = if from_end { s.trim_end() } else { s.trim_start() };
    while !rest.is_empty() {
        meter.items(1)?;
        if out.len() + 1 >= pieces {
            out.push(if from_end { rest.trim_start() } else { rest.trim_end() });
            break;
        }
        let at = if from_end { rest.rfind(char::is_whitespace) } else { rest.find(char::is_whitespace) };
        let Some(at) = at else {
            out.push(rest);
            break;
        };
        if from_end {
            let after = at + rest[at..].chars().next().map_or(1, char::len_utf8);
            out.push(&rest[after..]);
            rest = rest[..at].trim_end();
        } else {
            out.push(&rest[..at]);
            rest = rest[at..].trim_start();
        }
    }
    if from_end {
        out.reverse();
    }
    text::parts(out.into_iter().filter(|part| !part.is_empty()), meter)
}
