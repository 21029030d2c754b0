//! How values become text: Python's words for scalars, JSON for lists and mappings, always within a bound.

use windlass_core::value::Value;

use super::meter::{Fault, Meter};
use super::number::float_text;

/// How JSON text is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// Escape everything beyond ASCII.
    pub(super) ascii: bool,
    /// Escape `<`, `>`, `&` and `'` too.
    pub(super) html: bool,
    /// Keys sorted by code point.
    pub(super) sorted: bool,
    /// Blanks per level; on one line without.
    pub(super) indent: Option<usize>,
}

impl Style {
    /// What `{{ list }}` prints.
    pub(super) const TEXT: Self = Self { ascii: true, html: false, sorted: false, indent: None };
    /// The same for readers rather than parsers: characters stay as they are.
    pub(super) const PROMPT: Self = Self { ascii: false, html: false, sorted: false, indent: None };
    /// The `tojson` filter.
    pub(super) const FILTER: Self = Self { ascii: true, html: true, sorted: true, indent: None };
}

/// Appends the value as `{{ value }}` prints it.
pub(super) fn write(value: &Value, style: Style, out: &mut String, meter: &mut Meter) -> Result<(), Fault> {
    match value {
        Value::Null => put(out, "None", meter),
        Value::Bool(true) => put(out, "True", meter),
        Value::Bool(false) => put(out, "False", meter),
        Value::Int(i) => put(out, &i.to_string(), meter),
        Value::Float(f) => put(out, &float_text(*f), meter),
        Value::Str(text) => put(out, text, meter),
        Value::List(_) | Value::Map(_) => json(value, style, out, meter, 0),
    }
}

/// The value as `{{ value }}` prints it.
pub(super) fn text(value: &Value, meter: &mut Meter) -> Result<String, Fault> {
    let mut out = String::new();
    write(value, Style::TEXT, &mut out, meter)?;
    Ok(out)
}

/// Appends text after paying for it and checking the bound.
pub(super) fn put(out: &mut String, text: &str, meter: &mut Meter) -> Result<(), Fault> {
    meter.spend(text.len() / 16 + 1)?;
    if out.len() + text.len() > meter.output_bytes() {
        return Err(meter.too_long());
    }
    out.push_str(text);
    Ok(())
}

/// Appends the value as JSON.
pub(super) fn json(
    value: &Value,
    style: Style,
    out: &mut String,
    meter: &mut Meter,
    level: usize,
) -> Result<(), Fault> {
    meter.nested(level)?;
    match value {
        Value::Null => put(out, "null", meter),
        Value::Bool(b) => put(out, if *b { "true" } else { "false" }, meter),
        Value::Int(i) => put(out, &i.to_string(), meter),
        Value::Float(f) => put(out, &float_text(*f), meter),
        Value::Str(text) => json_text(text, style, out, meter),
        Value::List(items) => {
            put(out, "[", meter)?;
            for (i, item) in items.iter().enumerate() {
                separate(i, style, level, out, meter)?;
                json(item, style, out, meter, level + 1)?;
            }
            close("]", items.is_empty(), style, level, out, meter)
        }
        Value::Map(map) => {
            put(out, "{", meter)?;
            let mut pairs: Vec<_> = map.iter().collect();
            if style.sorted {
                meter.spend(pairs.len())?;
                pairs.sort_unstable_by(|a, b| a.0.cmp(b.0));
            }
            for (i, (key, item)) in pairs.into_iter().enumerate() {
                separate(i, style, level, out, meter)?;
                json_text(key, style, out, meter)?;
                put(out, ": ", meter)?;
                json(item, style, out, meter, level + 1)?;
            }
            close("}", map.is_empty(), style, level, out, meter)
        }
    }
}

fn separate(i: usize, style: Style, level: usize, out: &mut String, meter: &mut Meter) -> Result<(), Fault> {
    match style.indent {
        None if i > 0 => put(out, ", ", meter),
        None => Ok(()),
        Some(width) => {
            put(out, if i > 0 { ",\n" } else { "\n" }, meter)?;
            blanks(width.saturating_mul(level + 1), out, meter)
        }
    }
}

fn close(end: &str, empty: bool, style: Style, level: usize, out: &mut String, meter: &mut Meter) -> Result<(), Fault> {
    if let (Some(width), false) = (style.indent, empty) {
        put(out, "\n", meter)?;
        blanks(width.saturating_mul(level), out, meter)?;
    }
    put(out, end, meter)
}

fn blanks(count: usize, out: &mut String, meter: &mut Meter) -> Result<(), Fault> {
    meter.text(count)?;
    put(out, &" ".repeat(count), meter)
}

fn json_text(text: &str, style: Style, out: &mut String, meter: &mut Meter) -> Result<(), Fault> {
    // Six bytes per escape is the worst case; paid only where it happens.
    put(out, "\"", meter)?;
    let mut plain = 0;
    for (at, c) in text.char_indices() {
        let escape = match c {
            '"' => "\\\"".to_owned(),
            '\\' => "\\\\".to_owned(),
            '\n' => "\\n".to_owned(),
            '\r' => "\\r".to_owned(),
            '\t' => "\\t".to_owned(),
            '\u{8}' => "\\b".to_owned(),
            '\u{c}' => "\\f".to_owned(),
            '<' | '>' | '&' | '\'' if style.html => format!("\\u{:04x}", c as u32),
            c if (c as u32) < 0x20 || (style.ascii && !c.is_ascii()) || (style.ascii && c == '\u{7f}') => {
                let mut units = [0; 2];
                c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect()
            }
            _ => continue,
        };
        put(out, &text[plain..at], meter)?;
        put(out, &escape, meter)?;
        plain = at + c.len_utf8();
    }
    put(out, &text[plain..], meter)?;
    put(out, "\"", meter)
}
