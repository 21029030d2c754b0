//! Which filters exist. What they do to text is in [`super::filters_text`], to lists in [`super::filters_list`].

use windlass_core::json::{self, Unread};
use windlass_core::value::Value;

use super::arguments::Arguments;
use super::filters_list as list;
use super::filters_text as text;
use super::format;
use super::meter::{Fault, Meter};
use super::number::{self, Number, float_text};
use super::ops;
use super::print::{self, Style};
use super::val::Val;

type Out<T = Val> = Result<T, Fault>;
type Body = fn(&mut Meter, Val, &mut Arguments) -> Out;

/// A filter by name.
#[derive(Clone, Copy)]
pub(super) struct Filter {
    name: &'static str,
    body: Body,
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

const FILTERS: &[(&str, Body)] = &[
    ("abs", abs),
    ("attr", attr),
    ("batch", list::batch),
    ("bool", |_, val, _| Ok(Val::bool(val.is_truthy()))),
    ("capitalize", text::capitalize),
    ("center", text::center),
    ("count", list::length),
    ("d", default),
    ("default", default),
    ("dictsort", list::dictsort),
    ("e", text::escape),
    ("escape", text::escape),
    ("filesizeformat", filesizeformat),
    ("first", list::first),
    ("float", float),
    ("forceescape", text::escape),
    ("format", printf),
    ("fromjson", fromjson),
    ("groupby", list::groupby),
    ("indent", text::indent),
    ("int", int),
    ("items", list::items),
    ("join", text::join),
    ("last", list::last),
    ("length", list::length),
    ("list", |meter, val, _| val.items(meter).map(Value::List).map(Val::Data)),
    ("lower", text::lower),
    ("map", list::map),
    ("max", list::max),
    ("min", list::min),
    ("pprint", pprint),
    ("reject", list::reject),
    ("rejectattr", list::rejectattr),
    ("replace", text::replace),
    ("reverse", list::reverse),
    ("round", round),
    ("safe", |_, val, _| Ok(val)),
    ("select", list::select),
    ("selectattr", list::selectattr),
    ("slice", list::slice),
    ("sort", list::sort),
    ("string", |meter, val, _| val.to_text(meter).map(Val::text)),
    ("striptags", text::striptags),
    ("sum", list::sum),
    ("title", text::title),
    ("tojson", tojson),
    ("trim", text::trim),
    ("truncate", text::truncate),
    ("unique", list::unique),
    ("upper", text::upper),
    ("urlencode", text::urlencode),
    ("wordcount", text::wordcount),
    ("wordwrap", text::wordwrap),
    ("xmlattr", text::xmlattr),
];

impl Filter {
    pub(super) fn named(name: &str) -> Out<Self> {
        if let Ok(at) = FILTERS.binary_search_by(|(candidate, _)| (*candidate).cmp(name)) {
            let (name, body) = FILTERS[at];
            return Ok(Self { name, body });
        }
        let fault = Fault::syntax(format!("there is no filter `{name}`"));
        Err(match name {
            "random" => fault.hint("a template gives the same result whenever it is rendered; pick in an action"),
            "urlize" => fault.hint("build links in an action"),
            _ => fault.hint("the filters are Jinja's, and `fromjson`"),
        })
    }

    pub(super) fn name(self) -> &'static str {
        self.name
    }

    pub(super) fn apply(self, meter: &mut Meter, val: Val, mut args: Arguments) -> Out {
        meter.enter()?;
        let named = |fault: Fault| fault.within(self.name);
        let result = (self.body)(meter, val, &mut args).map_err(named)?;
        args.finish().map_err(named)?;
        meter.leave();
        Ok(result)
    }
}

fn default(_: &mut Meter, val: Val, args: &mut Arguments) -> Out {
    let fallback = args.take(0, "default_value").unwrap_or_else(|| Val::text(""));
    let falsy_too = args.bool_or(1, "boolean", false);
    Ok(if val.is_undefined() || (falsy_too && !val.is_truthy()) { fallback } else { val })
}

fn abs(_: &mut Meter, val: Val, _: &mut Arguments) -> Out {
    Ok(Val::Data(match val.need()? {
        Value::Int(i) => Value::Int(i.checked_abs().ok_or_else(|| too_large(&i.to_string()))?),
        Value::Float(f) => Value::Float(f.abs()),
        Value::Bool(b) => Value::Int(i64::from(*b)),
        other => return Err(Fault::kind(format!("a number is needed, not {}", other.type_name()))),
    }))
}

fn attr(meter: &mut Meter, val: Val, args: &mut Arguments) -> Out {
    let name = args.text(0, "name", meter)?;
    Ok(ops::attribute(&val, &name)?.unwrap_or(Val::Undefined(Some(name))))
}

fn int(meter: &mut Meter, val: Val, args: &mut Arguments) -> Out {
    let fallback = args.take(0, "default").unwrap_or(Val::Data(Value::Int(0)));
    let base = args.int_or(1, "base", 10)?;
    let whole = |f: f64| {
        if f.abs() < 9.2e18 { Ok(Value::Int(f as i64)) } else { Err(too_large(&float_text(f))) }
    };
    Ok(match val.need()? {
        Value::Int(i) => Val::Data(Value::Int(*i)),
        Value::Bool(b) => Val::Data(Value::Int(i64::from(*b))),
        Value::Float(f) => Val::Data(whole(*f)?),
        Value::Str(text) => {
            meter.read(text.len())?;
            match based(text, base) {
                Some(i) => Val::Data(Value::Int(i)),
                None => match Number::parse(text) {
                    Some(n) => Val::Data(whole(n.as_f64())?),
                    None => fallback,
                },
            }
        }
        Value::Null | Value::List(_) | Value::Map(_) => fallback,
    })
}

fn too_large(number: &str) -> Fault {
    Fault::kind(format!("{number} is beyond the whole numbers that are kept exactly, -2^63 to 2^63-1"))
        .hint("keep it as text, or use `| float` if it may be rounded")
}

fn based(text: &str, base: i64) -> Option<i64> {
    let base = u32::try_from(base).ok().filter(|b| (2..=36).contains(b))?;
    let text = text.trim();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let prefix = match base {
        2 => ["0b", "0B"],
        8 => ["0o", "0O"],
        16 => ["0x", "0X"],
        _ => ["", ""],
    };
    let digits = digits.strip_prefix(prefix[0]).or_else(|| digits.strip_prefix(prefix[1])).unwrap_or(digits);
    if digits.starts_with(['+', '-']) {
        return None;
    }
    i64::from_str_radix(&format!("{sign}{digits}"), base).ok()
}

fn float(meter: &mut Meter, val: Val, args: &mut Arguments) -> Out {
    let fallback = args.take(0, "default").unwrap_or(Val::Data(Value::Float(0.0)));
    let number = match val.need()? {
        Value::Str(text) => {
            meter.read(text.len())?;
            if text.trim().parse::<f64>().is_ok_and(|f| !f.is_finite()) {
                return Err(Fault::kind(format!("`{text}` is no finite number"))
                    .hint("test for it first, as in `{{ null if context.x == 'nan' else context.x | float }}`"));
            }
            Number::parse(text)
        }
        value => Number::of(value),
    };
    Ok(number.and_then(|n| Value::float(n.as_f64())).map_or(fallback, Val::Data))
}

fn round(meter: &mut Meter, val: Val, args: &mut Arguments) -> Out {
    let precision = args.int_or(0, "precision", 0)?.clamp(-400, 400) as i32;
    let method = args.text_or(1, "method", "common", meter)?;
    let value = val.need()?;
    let Some(number) = Number::of(value) else {
        return Err(Fault::kind(format!("a number is needed, not {}", value.type_name())));
    };
    if let (Number::Int(_), true, "common") = (number, precision >= 0, &*method) {
        return Ok(Val::Data(value.clone()));
    }
    let f = number.as_f64();
    // Beyond the range of a number every one of them is nearer to zero than to the next multiple.
    let scale = if precision < -308 { return Ok(Val::Data(Value::Int(0))) } else { 10_f64.powi(precision) };
    let rounded = match &*method {
        // The shortest way to Python's result, which rounds the decimal digits, half to even.
        "common" if precision >= 0 => format!("{f:.*}", precision as usize).parse().unwrap_or(f),
        "common" => (f * scale).round_ties_even() / scale,
        "floor" => (f * scale).floor() / scale,
        "ceil" => (f * scale).ceil() / scale,
        other => return Err(Fault::kind(format!("`{other}` is no method; use `common`, `ceil` or `floor`"))),
    };
    let whole = matches!(number, Number::Int(_)) && &*method == "common" && rounded.abs() < 9.2e18;
    let kept = if whole { Value::Int(rounded as i64) } else { Value::float(rounded).unwrap_or(Value::Float(f)) };
    Ok(Val::Data(kept))
}

fn filesizeformat(_: &mut Meter, val: Val, args: &mut Arguments) -> Out {
    let binary = args.bool_or(0, "binary", false);
    let value = val.need()?;
    let number = match value {
        Value::Str(text) => Number::parse(text),
        other => Number::of(other),
    };
    let number = number.ok_or_else(|| Fault::kind(format!("a number is needed, not {}", value.type_name())))?;
    Ok(Val::text(format::file_size(number.as_f64(), binary)))
}

fn printf(meter: &mut Meter, val: Val, args: &mut Arguments) -> Out {
    let text = val.to_text(meter)?;
    format::printf_filter(&text, std::mem::take(args), meter).map(Val::text)
}

fn fromjson(meter: &mut Meter, val: Val, _: &mut Arguments) -> Out {
    let value = val.need()?;
    let Value::Str(text) = value else {
        return Err(Fault::kind(format!("JSON text is needed, not {}", value.type_name()))
            .hint("a value that is no text needs no `fromjson`"));
    };
    // Each byte of text makes at most one element.
    meter.items(text.len() / 2)?;
    let parsed = json::read(text).map_err(|error| match error {
        Unread::Malformed(error) => Fault::kind(format!("not JSON: {error}")),
        Unread::Inexact { .. } => Fault::kind(error.to_string()).hint("make it text in the JSON"),
    })?;
    meter.measure(&parsed)?;
    Ok(Val::Data(parsed))
}

fn tojson(meter: &mut Meter, val: Val, args: &mut Arguments) -> Out {
    let indent = match args.take(0, "indent") {
        None | Some(Val::Data(Value::Null | Value::Bool(false))) => None,
        Some(Val::Data(Value::Bool(true))) => Some(1),
        Some(Val::Data(Value::Int(i))) => Some(usize::try_from(i).unwrap_or(0)),
        Some(other) => return Err(Fault::kind(format!("`indent` is a whole number, not {}", other.kind()))),
    };
    let mut out = String::new();
    print::json(val.need()?, Style { indent, ..Style::FILTER }, &mut out, meter, 0)?;
    Ok(Val::text(out))
}

fn pprint(meter: &mut Meter, val: Val, _: &mut Arguments) -> Out {
    let value = val.need()?;
    if let Value::Str(text) = value {
        meter.text(text.len().saturating_mul(2))?;
        return Ok(Val::text(format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n"))));
    }
    print::text(value, meter).map(Val::text)
}

/// The sum of two numbers, for filters that add up.
pub(super) fn plus(a: Number, b: Number) -> Out<Number> {
    number::add(a, b).map_err(|odd| Fault::kind(odd.message()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(FILTERS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for (name, _) in FILTERS {
            assert_eq!(Filter::named(name).expect("listed").name(), *name);
        }
    }
}
