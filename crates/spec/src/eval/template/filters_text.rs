//! Filters on text. Each pays for its result before it makes it.

use std::sync::Arc;

use windlass_core::ids::Name;
use windlass_core::value::Value;

use super::super::compare;
use super::arguments::Arguments;
use super::meter::{Fault, Meter};
use super::print;
use super::val::Val;

type Out<T = Val> = Result<T, Fault>;

/// Text of at most `times` the length of what came in.
fn mapped(meter: &mut Meter, val: &Val, times: usize, f: impl Fn(&str) -> String) -> Out {
    let text = val.to_text(meter)?;
    meter.text(text.len().saturating_mul(times))?;
    Ok(Val::text(f(&text)))
}

pub(super) fn upper(meter: &mut Meter, val: Val, _: &mut Arguments) -> Out {
    mapped(meter, &val, 3, str::to_uppercase)
}

pub(super) fn lower(meter: &mut Meter, val: Val, _: &mut Arguments) -> Out {
    mapped(meter, &val, 3, str::to_lowercase)
}

pub(super) fn capitalize(meter: &mut Meter, val: Val, _: &mut Arguments) -> Out {
    mapped(meter, &val, 3, capitalized)
}

pub(super) fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().collect::<String>() + &chars.as_str().to_lowercase())
}

pub(super) fn title(meter: &mut Meter, val: Val, _: &mut Arguments) -> Out {
    mapped(meter, &val, 3, titled)
}

pub(super) fn titled(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut start = true;
    for c in text.chars() {
        if start {
            out.extend(c.to_uppercase());
        } else {
            out.extend(c.to_lowercase());
        }
        start = c.is_whitespace() || matches!(c, '-' | '(' | '{' | '[' | '<');
    }
    out
}

pub(super) fn trim(meter: &mut Meter, val: Val, args: &mut Arguments) -> Out {
    let chars = args.text_option(0, "chars")?;
    let text = val.to_text(meter)?;
    meter.text(text.len())?;
    Ok(Val::text(match chars {
        None => text.trim(),
        Some(chars) => text.trim_matches(|c| chars.contains(c)),
    }))
}

pub(super) fn escape(meter: &mut Meter, val: Val, _: &mut Arguments) -> Out {
    mapped(meter, &val, 5, escaped)
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

pub(super) fn striptags(meter: &mut Meter, val: Val, _: &mut Arguments) -> Out {
    mapped(meter, &val, 1, |text| {
        let mut plain = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find('<') {
            plain.push_str(&rest[..start]);
            match rest[start..].find('>') {
                Some(end) => rest = &rest[start + end + 1..],
                None => {
                    plain.push_str(&rest[start..]);
                    rest = "";
                }
            }
        }
        plain.push_str(rest);
        let plain = plain.split_whitespace().collect::<Vec<_>>().join(" ");
        plain
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&#34;", "\"")
            .replace("&#39;", "'")
            .replace("&amp;", "&")
    })
}

pub(super) fn replace(meter: &mut Meter, val: Val, args: &mut Arguments) -> Out {
    let old = args.text(0, "old", meter)?;
    let new = args.text(1, "new", meter)?;
    let count = args.int_option(2, "count")?;
    let text = val.to_text(meter)?;
    replaced(&text, &old, &new, count, meter).map(Val::text)
}

/// Replacement with the result's length known before it is made.
pub(super) fn replaced(text: &str, old: &str, new: &str, count: Option<i64>, meter: &mut Meter) -> Out<String> {
    meter.read(text.len())?;
    let limit = count.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    let times = text.matches(old).take(limit).count();
    let length =
        text.len().saturating_sub(times.saturating_mul(old.len())).saturating_add(times.saturating_mul(new.len()));
    meter.text(length)?;
    Ok(text.replacen(old, new, limit))
}

pub(super) fn join(meter: &mut Meter, val: Val, args: &mut Arguments) -> Out {
    let separator = args.text_or(0, "d", "", meter)?;
    let attribute = args.take(1, "attribute");
    let items = val.items(meter)?;
    let picked = match attribute {
        None => items,
        Some(path) => {
            let mut picked = Vec::new();
            for item in items.iter() {
                meter.items(1)?;
                picked.push(super::filters_list::field(&Val::Data(item.clone()), &path, meter)?.into_value()?);
            }
            Arc::new(picked)
        }
    };
    joined(&separator, &picked, meter).map(Val::text)
}

/// Items as text with a separator between.
pub(super) fn joined(separator: &str, items: &[Value], meter: &mut Meter) -> Out<String> {
    let mut out = String::new();
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            print::put(&mut out, separator, meter)?;
        }
        print::write(item, print::Style::TEXT, &mut out, meter)?;
    }
    Ok(out)
}

pub(super) fn center(meter: &mut Meter, val: Val, args: &mut Arguments) -> Out {
    let width = args.count_or(0, "width", 80)?;
    let text = val.to_text(meter)?;
    padded(&text, width, ' ', '^', meter).map(Val::text)
}

/// Text filled up to a width: `<`, `>` or `^`.
pub(super) fn padded(text: &str, width: usize, fill: char, align: char, meter: &mut Meter) -> Out<String> {
    meter.read(text.len())?;
    let missing = width.saturating_sub(text.chars().count());
    meter.text(text.len().saturating_add(missing.saturating_mul(fill.len_utf8())))?;
    let filler = |n: usize| std::iter::repeat_n(fill, n).collect::<String>();
    Ok(match align {
        '<' => text.to_owned() + &filler(missing),
        '>' => filler(missing) + text,
        _ => {
            // Python puts the odd blank to the left when the width is odd too.
            let left = missing / 2 + (missing & width & 1);
            filler(left) + text + &filler(missing - left)
        }
    })
}

pub(super) fn indent(meter: &mut Meter, val: Val, args: &mut Arguments) -> Out {
    let with: Name = match args.take(0, "width") {
        None => "    ".into(),
        Some(Val::Data(Value::Str(text))) => text,
        Some(Val::Data(Value::Int(width))) => {
            let width = usize::try_from(width).unwrap_or(0);
            meter.text(width)?;
            " ".repeat(width).into()
        }
        Some(other) => return Err(Fault::kind(format!("`width` is a number or text, not {}", other.kind()))),
    };
    let first = args.bool_or(1, "first", false);
    let blank = args.bool_or(2, "blank", false);
    let text = val.to_text(meter)?;
    let mut out = String::new();
    for (i, line) in text.split('\n').enumerate() {
        if i > 0 {
            print::put(&mut out, "\n", meter)?;
        }
        if if i == 0 { first } else { blank || !line.trim_end_matches('\r').is_empty() } {
            print::put(&mut out, &with, meter)?;
        }
        print::put(&mut out, line, meter)?;
    }
    Ok(Val::text(out))
}

pub(super) fn truncate(meter: &mut Meter, val: Val, args: &mut Arguments) -> Out {
    let length = args.count_or(0, "length", 255)?;
    let within_words = args.bool_or(1, "killwords", false);
    let end = args.text_or(2, "end", "...", meter)?;
    let leeway = args.count_or(3, "leeway", 5)?;
    let text = val.to_text(meter)?;
    meter.text(text.len().saturating_add(end.len()))?;
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(Val::text(text));
    }
    let Some(kept) = length.checked_sub(end.chars().count()) else {
        return Err(Fault::kind(format!("a length of {length} leaves no room for `{end}`")));
    };
    let cut: String = text.chars().take(kept).collect();
    let cut = if within_words { cut.as_str() } else { cut.rsplit_once(' ').map_or(cut.as_str(), |(head, _)| head) };
    Ok(Val::text(format!("{cut}{end}")))
}

pub(super) fn wordcount(meter: &mut Meter, val: Val, _: &mut Arguments) -> Out {
    let text = val.to_text(meter)?;
    meter.read(text.len().saturating_mul(4))?;
    Ok(Val::count(text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).count()))
}

pub(super) fn wordwrap(meter: &mut Meter, val: Val, args: &mut Arguments) -> Out {
    let width = args.count_or(0, "width", 79)?.max(1);
    let break_long = args.bool_or(1, "break_long_words", true);
    let separator = args.text_or(2, "wrapstring", "\n", meter)?;
    let on_hyphens = args.bool_or(3, "break_on_hyphens", true);
    let text = val.to_text(meter)?;
    meter.read(text.len().saturating_mul(4))?;
    let mut out = String::new();
    for (i, line) in text.lines().enumerate() {
        if i > 0 {
            print::put(&mut out, "\n", meter)?;
        }
        let mut used = 0;
        for (mut chunk, spaced) in chunks(line, on_hyphens) {
            let mut length = chunk.chars().count();
            let gap = usize::from(spaced && used > 0);
            let fits = used + gap + length <= width;
            if used > 0 && (fits || (break_long && length > width && used + gap < width)) {
                print::put(&mut out, if spaced { " " } else { "" }, meter)?;
                used += gap;
            } else if used > 0 {
                print::put(&mut out, &separator, meter)?;
                used = 0;
            }
            // A part longer than a line fills what is left of this one first.
            while break_long && used + length > width {
                let room = width - used;
                let at = chunk.char_indices().nth(room).map_or(chunk.len(), |(at, _)| at);
                print::put(&mut out, &chunk[..at], meter)?;
                print::put(&mut out, &separator, meter)?;
                chunk = &chunk[at..];
                length -= room;
                used = 0;
            }
            print::put(&mut out, chunk, meter)?;
            used += length;
        }
    }
    Ok(Val::text(out))
}

/// What a line may be broken between, each with whether a blank stood before it.
fn chunks(line: &str, on_hyphens: bool) -> impl Iterator<Item = (&str, bool)> {
    line.split(' ').filter(|word| !word.is_empty()).flat_map(move |word| {
        let mut parts = Vec::new();
        let mut start = 0;
        for (at, _) in word.match_indices('-').filter(|_| on_hyphens) {
            let letter = |c: Option<char>| c.is_some_and(char::is_alphabetic);
            if letter(word[..at].chars().next_back()) && letter(word[at + 1..].chars().next()) {
                parts.push((&word[start..=at], start == 0));
                start = at + 1;
            }
        }
        parts.push((&word[start..], start == 0));
        parts
    })
}

pub(super) fn urlencode(meter: &mut Meter, val: Val, _: &mut Arguments) -> Out {
    let mut out = String::new();
    match val.need()? {
        Value::Map(map) => {
            for (key, item) in map.iter() {
                pair(key, item, &mut out, meter)?;
            }
        }
        Value::List(items) => {
            for item in items.iter() {
                let Some([key, item]) = item.as_list().and_then(|pair| pair.first_chunk()) else {
                    return Err(Fault::kind("a list of pairs is needed"));
                };
                let key = print::text(key, meter)?;
                pair(&key, item, &mut out, meter)?;
            }
        }
        other => {
            let text = print::text(other, meter)?;
            percent(&text, true, &mut out, meter)?;
        }
    }
    Ok(Val::text(out))
}

fn pair(key: &str, item: &Value, out: &mut String, meter: &mut Meter) -> Out<()> {
    if !out.is_empty() {
        print::put(out, "&", meter)?;
    }
    percent(key, false, out, meter)?;
    print::put(out, "=", meter)?;
    let text = print::text(item, meter)?;
    percent(&text, false, out, meter)
}

fn percent(text: &str, keep_slash: bool, out: &mut String, meter: &mut Meter) -> Out<()> {
    meter.text(text.len().saturating_mul(3))?;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => encoded.push(char::from(byte)),
            b'/' if keep_slash => encoded.push('/'),
            b' ' if !keep_slash => encoded.push('+'),
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    print::put(out, &encoded, meter)
}

pub(super) fn xmlattr(meter: &mut Meter, val: Val, args: &mut Arguments) -> Out {
    let space = args.bool_or(0, "autospace", true);
    let Value::Map(map) = val.need()? else {
        return Err(Fault::kind(format!("a mapping is needed, not {}", val.kind())));
    };
    let mut out = String::new();
    for (key, item) in map.iter().filter(|(_, item)| !item.is_null()) {
        if key.contains(|c: char| c.is_whitespace() || matches!(c, '/' | '>' | '=')) {
            return Err(Fault::kind(format!("`{key}` cannot be the name of an attribute")));
        }
        if space || !out.is_empty() {
            print::put(&mut out, " ", meter)?;
        }
        let text = print::text(item, meter)?;
        meter.text(text.len().saturating_add(key.len()).saturating_mul(5))?;
        let shown = format!("{}=\"{}\"", escaped(key), escaped(&text));
        print::put(&mut out, &shown, meter)?;
    }
    Ok(Val::text(out))
}

/// A text's parts as a list.
pub(super) fn parts<'t>(parts: impl Iterator<Item = &'t str>, meter: &mut Meter) -> Out {
    let mut out = Vec::new();
    for part in parts {
        meter.items(2)?;
        meter.text(part.len())?;
        out.push(Value::str(part));
    }
    Ok(ops_list(out))
}

fn ops_list(items: Vec<Value>) -> Val {
    Val::Data(Value::list(items))
}

/// Whether a text starts or ends with one of the given ones.
pub(super) fn any_of(val: &Val, name: &str, f: impl Fn(&str) -> bool) -> Out<bool> {
    match val.need()? {
        Value::Str(text) => Ok(f(text)),
        Value::List(items) => Ok(items.iter().filter_map(Value::as_str).any(f)),
        other => Err(Fault::kind(format!("`{name}` takes text, not {}", other.type_name()))),
    }
}

/// The position of a text in another, in characters.
pub(super) fn position(text: &str, at: Option<usize>) -> Value {
    at.map_or(Value::Int(-1), |at| Value::count(text[..at].chars().count() as u64))
}

/// Items that equal a value.
pub(super) fn occurrences(items: &[Value], wanted: &Value, meter: &mut Meter) -> Out<Value> {
    let mut count = 0;
    for item in items {
        count += u64::from(compare::same(item, wanted, meter)?);
    }
    Ok(Value::count(count))
}
