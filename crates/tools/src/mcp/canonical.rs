//! The one text of a JSON document as it came over the wire, for hashing: keys sorted by bytes, no blanks, text
//! unescaped the same way, numbers exactly as they were written. Nothing that a server can say is lost in it.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Nesting of a definition.
pub(crate) const DEPTH_MAX: usize = 64;

/// The canonical text of a document.
///
/// # Errors
/// A key that comes twice in a mapping, and nesting beyond [`DEPTH_MAX`].
pub(crate) fn canonical(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    write(text.trim(), 0, &mut out)?;
    Ok(out)
}

fn write(text: &str, depth: usize, out: &mut String) -> Result<(), String> {
    if depth > DEPTH_MAX {
        return Err(format!("it is nested more than {DEPTH_MAX} levels deep"));
    }
    let wrong = |error: serde_json::Error| error.to_string();
    match text.as_bytes().first() {
        Some(b'{') => {
            let members: Members<'_> = serde_json::from_str(text).map_err(wrong)?;
            out.push('{');
            for (index, (key, value)) in members.0.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_text(&key, out);
                out.push(':');
                write(value.get().trim(), depth + 1, out)?;
            }
            out.push('}');
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text).map_err(wrong)?;
            out.push('[');
            for (index, item) in items.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(item.get().trim(), depth + 1, out)?;
            }
            out.push(']');
        }
        Some(b'"') => write_text(&serde_json::from_str::<String>(text).map_err(wrong)?, out),
        // A number or a word: what it is was checked when the message was read.
        _ => out.push_str(text),
    }
    Ok(())
}

fn write_text(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

/// A canonical text on several lines, token by token as it is.
pub(crate) fn indented(canonical: &str) -> String {
    let mut out = String::with_capacity(2 * canonical.len());
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    let mut chars = canonical.chars().peekable();
    while let Some(c) = chars.next() {
        if quoted {
            out.push(c);
            quoted = escaped || c != '"';
            escaped = c == '\\' && !escaped;
            continue;
        }
        let line = |out: &mut String, depth: usize| {
            out.push('\n');
            out.extend(std::iter::repeat_n("  ", depth));
        };
        match c {
            '{' | '[' => {
                out.push(c);
                if let Some(end) = chars.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ => {
                out.push(c);
                quoted = c == '"';
            }
        }
    }
    out
}

/// The members of a mapping by name, each name once.
struct Members<'a>(BTreeMap<String, &'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = BTreeMap<String, &'de RawValue>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, &'de RawValue>()? {
                    if members.contains_key(&key) {
                        return Err(A::Error::custom(format!("the key `{key}` comes twice")));
                    }
                    members.insert(key, value);
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Read).map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_blanks_and_escapes_do_not_count() {
        let one = canonical("{ \"b\" : [1, 2.0 ,true], \"a\": \"\\u00fc\\/\" }").unwrap();
        assert_eq!(one, r#"{"a":"ü/","b":[1,2.0,true]}"#);
        assert_eq!(canonical(&one).unwrap(), one);
    }

    #[test]
    fn indented_text_is_the_same_document() {
        let text = r#"{"a":["x\\\",{:",{}],"b":[],"c":{"d":1e3}}"#;
        let shown = indented(text);
        assert_eq!(canonical(&shown).unwrap(), text);
        assert!(shown.starts_with("{\n  \"a\": [\n    \"x"), "{shown}");
    }

    #[test]
    fn numbers_are_kept_as_written() {
        assert_ne!(canonical("1").unwrap(), canonical("1.0").unwrap());
        assert_ne!(canonical("18446744073709551616").unwrap(), canonical("18446744073709551617").unwrap());
    }

    #[test]
    fn what_has_two_meanings_is_refused() {
        assert!(canonical(r#"{"a":1,"a":2}"#).unwrap_err().contains("twice"));
        assert!(canonical(r#"{"a":{"\u0062":1,"b":2}}"#).unwrap_err().contains("twice"));
        assert!(canonical(&format!("{}{}", "[".repeat(80), "]".repeat(80))).unwrap_err().contains("levels"));
    }
}
