//! `"%s" % x`, `"…" | format(x)` and `"{}".format(x)`, with bounded widths.

use std::fmt::Write;

use windlass_core::failure::Code;
use windlass_core::value::Value;

use super::arguments::Arguments;
use super::meter::{Fault, Meter};
use super::number::Number;
use super::ops;
use super::print;
use super::val::Val;

type Out<T = String> = Result<T, Fault>;

/// Digits after the point at most: more than any float has.
const PRECISION_MAX: usize = 1_100;

/// One field: how a value is laid out.
#[derive(Clone, Debug, Default)]
struct Spec {
    fill: Option<char>,
    align: Option<char>,
    sign: Option<char>,
    alternate: bool,
    zero: bool,
    width: usize,
    comma: bool,
    precision: Option<usize>,
    kind: char,
}

/// `text % args`: a list gives the values in order, a mapping by name, anything else is one value.
pub(super) fn printf_operator(text: &str, args: &Value, meter: &mut Meter) -> Out {
    let single = std::slice::from_ref(args);
    match args {
        Value::List(items) if places(text) != 1 || items.len() == 1 => printf(text, items, None, meter),
        _ => printf(text, single, Some(args), meter),
    }
}

/// Values that a format takes.
fn places(text: &str) -> usize {
    text.replace("%%", "").matches(['%', '*']).count()
}

/// `text | format(…)`.
pub(super) fn printf_filter(text: &str, mut args: Arguments, meter: &mut Meter) -> Out {
    let named = args.take_named();
    let values = args.rest(0).into_iter().map(Val::into_value).collect::<Out<Vec<_>>>()?;
    if named.is_empty() {
        return printf(text, &values, None, meter);
    }
    let map = named.into_iter().map(|(name, val)| Ok((name, val.into_value()?))).collect::<Out<_>>()?;
    printf(text, &[], Some(&Value::map(map)), meter)
}

fn printf(text: &str, args: &[Value], by_name: Option<&Value>, meter: &mut Meter) -> Out {
    let mut out = String::new();
    let mut rest = text;
    let mut next = args.iter();
    let mut named = false;
    while let Some(at) = rest.find('%') {
        print::put(&mut out, &rest[..at], meter)?;
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            print::put(&mut out, "%", meter)?;
            rest = after;
            continue;
        }
        let mut value = None;
        if let Some(after) = rest.strip_prefix('(') {
            let (name, after) = after.split_once(')').ok_or_else(|| Fault::kind("a format's name lacks its `)`"))?;
            let found = by_name.and_then(|map| map.get(name));
            value = Some(found.ok_or_else(|| Fault::kind(format!("the format's value `{name}` is missing")))?);
            named = true;
            rest = after;
        }
        let (spec, after) = printf_spec(rest, &mut next)?;
        rest = after;
        let value = match value.or_else(|| next.next()) {
            Some(value) => value,
            None => return Err(Fault::kind("not enough values for the format")),
        };
        let shown = printf_value(value, &spec, meter)?;
        print::put(&mut out, &pad(shown, &spec, '>', meter)?, meter)?;
    }
    if !named && next.next().is_some() {
        return Err(Fault::kind("not all values were used by the format"));
    }
    print::put(&mut out, rest, meter)?;
    Ok(out)
}

fn printf_spec<'t, 'v>(text: &'t str, next: &mut impl Iterator<Item = &'v Value>) -> Out<(Spec, &'t str)> {
    let mut spec = Spec::default();
    let mut rest = text;
    while let Some(c) = rest.chars().next().filter(|c| "-+ #0".contains(*c)) {
        match c {
            '-' => spec.align = Some('<'),
            '+' => spec.sign = Some('+'),
            ' ' => spec.sign = spec.sign.or(Some(' ')),
            '#' => spec.alternate = true,
            _ => spec.zero = true,
        }
        rest = &rest[1..];
    }
    if let Some(after) = rest.strip_prefix('*') {
        spec.width = star(next)?;
        rest = after;
    } else {
        (spec.width, rest) = digits(rest);
    }
    if let Some(after) = rest.strip_prefix('.') {
        let (precision, after) = match after.strip_prefix('*') {
            Some(after) => (star(next)?, after),
            None => digits(after),
        };
        spec.precision = Some(precision);
        rest = after;
    }
    rest = rest.trim_start_matches(['h', 'l', 'L']);
    let kind = rest.chars().next().ok_or_else(|| Fault::kind("a format ends after `%`"))?;
    spec.kind = kind;
    Ok((spec, &rest[kind.len_utf8()..]))
}

fn star<'v>(next: &mut impl Iterator<Item = &'v Value>) -> Out<usize> {
    match next.next() {
        Some(Value::Int(i)) => Ok(usize::try_from(*i).unwrap_or(0)),
        _ => Err(Fault::kind("`*` in a format takes a whole number")),
    }
}

/// Leading digits as a number; too many of them are the largest number.
fn digits(text: &str) -> (usize, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number = if end == 0 { 0 } else { text[..end].parse().unwrap_or(usize::MAX) };
    (number, &text[end..])
}

fn printf_value(value: &Value, spec: &Spec, meter: &mut Meter) -> Out {
    match spec.kind {
        's' | 'r' | 'a' => {
            let mut text = print::text(value, meter)?;
            if spec.kind != 's' && matches!(value, Value::Str(_)) {
                text = format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
            }
            Ok(cut(text, spec.precision))
        }
        'c' => match value {
            Value::Str(text) if text.chars().count() == 1 => Ok(text.to_string()),
            Value::Int(i) => u32::try_from(*i)
                .ok()
                .and_then(char::from_u32)
                .map(String::from)
                .ok_or_else(|| Fault::kind("`%c` takes a character")),
            _ => Err(Fault::kind("`%c` takes a character")),
        },
        'd' | 'i' | 'u' | 'o' | 'x' | 'X' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            let number = Number::of(value)
                .ok_or_else(|| Fault::kind(format!("`%{}` takes a number, not {}", spec.kind, value.type_name())))?;
            let kind = if matches!(spec.kind, 'i' | 'u') { 'd' } else { spec.kind };
            numeric(number, &Spec { kind, ..spec.clone() }, meter)
        }
        other => Err(Fault::kind(format!("unknown format `%{other}`"))),
    }
}

fn cut(text: String, precision: Option<usize>) -> String {
    match precision {
        Some(n) if n < text.chars().count() => text.chars().take(n).collect(),
        _ => text,
    }
}

/// A number with sign, in the base or notation asked for, without padding.
fn numeric(number: Number, spec: &Spec, meter: &mut Meter) -> Out {
    let precision = spec.precision.unwrap_or(6);
    meter.text(precision)?;
    if precision > PRECISION_MAX {
        return Err(Fault::new(Code::TemplateLimit, format!("more than {PRECISION_MAX} digits after the point")));
    }
    let whole = match number {
        Number::Int(i) => i128::from(i),
        Number::Float(f) => f.trunc() as i128,
    };
    let negative = match number {
        Number::Int(i) => i < 0,
        Number::Float(f) => f.is_sign_negative(),
    };
    let float = number.as_f64().abs();
    let size = whole.unsigned_abs();
    let body = match spec.kind {
        'd' => group(size.to_string(), spec.comma),
        'b' => format!("{}{size:b}", if spec.alternate { "0b" } else { "" }),
        'o' => format!("{}{size:o}", if spec.alternate { "0o" } else { "" }),
        'x' => format!("{}{size:x}", if spec.alternate { "0x" } else { "" }),
        'X' => format!("{}{size:X}", if spec.alternate { "0X" } else { "" }),
        'e' | 'E' => exponent(float, precision, spec.kind),
        'f' | 'F' => group(format!("{float:.precision$}"), spec.comma),
        '%' => format!("{:.precision$}%", float * 100.0),
        _ => general(float, precision, spec),
    };
    let sign = match (negative, spec.sign) {
        (true, _) => "-",
        (false, Some('+')) => "+",
        (false, Some(' ')) => " ",
        _ => "",
    };
    Ok(format!("{sign}{body}"))
}

fn group(text: String, comma: bool) -> String {
    if !comma {
        return text;
    }
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut out = String::with_capacity(text.len() * 2);
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out + rest
}

fn exponent(float: f64, precision: usize, kind: char) -> String {
    let text = format!("{float:.precision$e}");
    let (mantissa, power) = text.split_once('e').unwrap_or((&text, "0"));
    let power: i32 = power.parse().unwrap_or(0);
    let sign = if power < 0 { '-' } else { '+' };
    format!("{mantissa}{kind}{sign}{:02}", power.abs())
}

/// C's `%g`: the shorter of the two notations, without trailing zeros.
fn general(float: f64, precision: usize, spec: &Spec) -> String {
    let digits = precision.max(1);
    let scientific = format!("{:.*e}", digits - 1, float);
    let power: i32 = scientific.split_once('e').and_then(|(_, p)| p.parse().ok()).unwrap_or(0);
    let trim = |text: String| {
        if spec.alternate || !text.contains('.') {
            return text;
        }
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    if power < -4 || power >= digits as i32 {
        let e = if spec.kind == 'G' { 'E' } else { 'e' };
        let text = exponent(float, digits - 1, e);
        let (mantissa, rest) = text.split_at(text.find(e).unwrap_or(text.len()));
        return trim(mantissa.to_owned()) + rest;
    }
    let places = usize::try_from(digits as i32 - 1 - power).unwrap_or(0);
    trim(format!("{float:.places$}"))
}

/// Fills a field up to its width.
fn pad(text: String, spec: &Spec, default: char, meter: &mut Meter) -> Out {
    let length = text.chars().count();
    let Some(missing) = spec.width.checked_sub(length).filter(|n| *n > 0) else {
        return Ok(text);
    };
    meter.text(missing.saturating_mul(spec.fill.map_or(1, char::len_utf8)))?;
    let zero = spec.zero && spec.align.is_none() && !matches!(spec.kind, 's' | 'r' | 'a' | 'c');
    let fill = spec.fill.unwrap_or(if zero { '0' } else { ' ' });
    let filler = |n: usize| std::iter::repeat_n(fill, n).collect::<String>();
    Ok(match spec.align.unwrap_or(if zero { '=' } else { default }) {
        '<' => text + &filler(missing),
        '^' => filler(missing / 2) + &text + &filler(missing - missing / 2),
        '=' => {
            let sign = usize::from(text.starts_with(['+', '-', ' ']));
            format!("{}{}{}", &text[..sign], filler(missing), &text[sign..])
        }
        _ => filler(missing) + &text,
    })
}

/// `text.format(…)`.
pub(super) fn str_format(text: &str, mut args: Arguments, meter: &mut Meter) -> Out {
    let named = args.take_named();
    let values = args.rest(0);
    let mut out = String::new();
    let mut auto = 0;
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        print::put(&mut out, &rest[..at], meter)?;
        let doubled = rest[at + 1..].starts_with(&rest[at..=at]);
        if doubled {
            print::put(&mut out, &rest[at..=at], meter)?;
            rest = &rest[at + 2..];
            continue;
        }
        if rest.as_bytes()[at] == b'}' {
            return Err(Fault::kind("single `}` in a format"));
        }
        let (field, after) =
            rest[at + 1..].split_once('}').ok_or_else(|| Fault::kind("a `{` in a format lacks its `}`"))?;
        rest = after;
        let (path, spec) = field.split_once(':').unwrap_or((field, ""));
        if spec.contains('{') {
            return Err(Fault::kind("nested fields in a format are not available"));
        }
        let (path, conversion) = path.split_once('!').unwrap_or((path, ""));
        let val = field_value(path, &values, &named, &mut auto, meter)?;
        let shown = str_value(&val, spec, conversion, meter)?;
        print::put(&mut out, &shown, meter)?;
    }
    print::put(&mut out, rest, meter)?;
    Ok(out)
}

/// The value a replacement field names: `0`, `name`, nothing, each followed by `.x` and `[x]`.
fn field_value(
    path: &str,
    values: &[Val],
    named: &[(windlass_core::ids::Name, Val)],
    auto: &mut usize,
    meter: &mut Meter,
) -> Out<Val> {
    let end = path.find(['.', '[']).unwrap_or(path.len());
    let (head, mut rest) = path.split_at(end);
    let found = if head.is_empty() {
        *auto += 1;
        values.get(*auto - 1)
    } else if let Ok(index) = head.parse::<usize>() {
        values.get(index)
    } else {
        named.iter().find(|(name, _)| **name == *head).map(|(_, val)| val)
    };
    let mut val = found.cloned().ok_or_else(|| Fault::kind(format!("the format's value `{head}` is missing")))?;
    while !rest.is_empty() {
        let (key, after, bracket) = if let Some(inner) = rest.strip_prefix('[') {
            let (key, after) = inner.split_once(']').ok_or_else(|| Fault::kind("a format's `[` lacks its `]`"))?;
            (key, after, true)
        } else {
            let inner = rest.strip_prefix('.').ok_or_else(|| Fault::kind("a format's field is malformed"))?;
            let end = inner.find(['.', '[']).unwrap_or(inner.len());
            (&inner[..end], &inner[end..], false)
        };
        let key_val = match key.parse::<i64>() {
            Ok(i) if bracket => Val::Data(Value::Int(i)),
            _ => Val::text(key),
        };
        val = ops::item(&val, &key_val, meter)?
            .ok_or_else(|| Fault::kind(format!("the format's value `{key}` is missing")))?;
        rest = after;
    }
    Ok(val)
}

fn str_value(val: &Val, spec: &str, conversion: &str, meter: &mut Meter) -> Out {
    let spec = str_spec(spec)?;
    let value = val.need()?;
    if let (Some(number), true) = (Number::of(value), conversion.is_empty()) {
        if spec.kind == '\0' && spec.precision.is_none() && !spec.comma {
            // A bare number prints as itself, with a sign where one is asked for.
            let mut text = print::text(value, meter)?;
            if let (Some(sign), false) = (spec.sign.filter(|s| *s != '-'), text.starts_with('-')) {
                text.insert(0, sign);
            }
            return pad(text, &spec, '>', meter);
        }
        let kind = match (spec.kind, number) {
            ('\0', Number::Int(_)) => 'd',
            ('\0', Number::Float(_)) if spec.precision.is_none() => 'f',
            ('\0' | 'n', _) => 'g',
            ('d' | 'b' | 'o' | 'x' | 'X', Number::Float(_)) => {
                return Err(Fault::kind(format!("`:{}` takes a whole number", spec.kind)));
            }
            (kind, _) if "dboxXeEfFgG%".contains(kind) => kind,
            (kind, _) => return Err(Fault::kind(format!("unknown format `:{kind}` for a number"))),
        };
        let spec = Spec { kind, ..spec };
        return pad(numeric(number, &spec, meter)?, &spec, '>', meter);
    }
    if !matches!(spec.kind, '\0' | 's') {
        return Err(Fault::kind(format!("`:{}` takes a number, not {}", spec.kind, value.type_name())));
    }
    let mut text = print::text(value, meter)?;
    if matches!(conversion, "r" | "a") && matches!(value, Value::Str(_)) {
        text = format!("'{text}'");
    }
    let spec = Spec { kind: 's', ..spec };
    pad(cut(text, spec.precision), &spec, '<', meter)
}

fn str_spec(text: &str) -> Out<Spec> {
    let mut spec = Spec::default();
    let mut chars: Vec<char> = text.chars().collect();
    if chars.len() >= 2 && "<>^=".contains(chars[1]) {
        spec.fill = Some(chars[0]);
        spec.align = Some(chars[1]);
        chars.drain(..2);
    } else if chars.first().is_some_and(|c| "<>^=".contains(*c)) {
        spec.align = chars.first().copied();
        chars.remove(0);
    }
    let rest: String = chars.into_iter().collect();
    let mut rest = rest.as_str();
    if let Some(sign) = rest.chars().next().filter(|c| "+- ".contains(*c)) {
        spec.sign = Some(sign);
        rest = &rest[1..];
    }
    if let Some(after) = rest.strip_prefix('#') {
        spec.alternate = true;
        rest = after;
    }
    if let Some(after) = rest.strip_prefix('0') {
        spec.zero = true;
        rest = after;
    }
    (spec.width, rest) = digits(rest);
    if let Some(after) = rest.strip_prefix([',', '_']) {
        spec.comma = true;
        rest = after;
    }
    if let Some(after) = rest.strip_prefix('.') {
        let (precision, after) = digits(after);
        spec.precision = Some(precision);
        rest = after;
    }
    let mut kinds = rest.chars();
    spec.kind = kinds.next().unwrap_or('\0');
    if kinds.next().is_some() {
        return Err(Fault::kind(format!("malformed format `:{text}`")));
    }
    Ok(spec)
}

/// A number of bytes for people: `1.3 MB`.
pub(super) fn file_size(bytes: f64, binary: bool) -> String {
    let base: f64 = if binary { 1024.0 } else { 1000.0 };
    let units: [&str; 8] = if binary {
        ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"]
    } else {
        ["kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"]
    };
    if bytes == 1.0 {
        return "1 Byte".to_owned();
    }
    let mut out = String::new();
    if bytes < base {
        let _ = write!(out, "{} Bytes", bytes.trunc());
        return out;
    }
    for (i, unit) in units.iter().enumerate() {
        let next = base.powi(i as i32 + 2);
        if bytes < next || i + 1 == units.len() {
            let _ = write!(out, "{:.1} {unit}", base * bytes / next);
            break;
        }
    }
    out
}
