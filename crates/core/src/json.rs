//! JSON that comes from outside a run: whole numbers that a [`Value`] cannot keep are refused with their place, and so
//! are repeated keys where a person wrote the text. What a store or a provider's envelope holds is read by
//! [`Value::from_json`].

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use crate::ids::Name;
use crate::value::{Map, Value};

/// Whole numbers of fewer digits always fit.
const DIGITS_SAFE: usize = 18;
/// Characters of a number that an error quotes.
const QUOTED_MAX: usize = 40;

/// Why a text is not taken as a value.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// It is not JSON, or a key of it is repeated; with line and column.
    #[error("{0}")]
    Malformed(serde_json::Error),
    /// A whole number is too large to be kept exactly.
    #[error(
        "the number {number} at line {line} column {column} cannot be kept exactly: whole numbers go from -2^63 to 2^63-1"
    )]
    Inexact {
        /// The number, or how it begins.
        number: String,
        /// Line, from 1.
        line: usize,
        /// Column in bytes, from 1.
        column: usize,
    },
}

impl Unread {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Malformed(_) => None,
            Self::Inexact { .. } => Some("write it as text, or with a decimal point or exponent if it may be rounded"),
        }
    }
}

/// Reads what a model, a tool or a hook wrote. Of a repeated key the last value counts.
///
/// # Errors
/// Text that is not one JSON document, or that holds a whole number that cannot be kept.
pub fn read(text: &str) -> Result<Value, Unread> {
    exact(text, Value::from_json(text).map_err(Unread::Malformed)?)
}

/// Reads what a person wrote. A key may be given once only.
///
/// # Errors
/// As [`read`], and for a repeated key.
pub fn read_unique(text: &str) -> Result<Value, Unread> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let value =
        Reader { is_unique: true, like: None }.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    exact(text, value.map_err(Unread::Malformed)?)
}

/// Whether a value that was read by others may hold a whole number that lost digits.
#[must_use]
pub fn is_exact(value: &Value) -> bool {
    match value {
        // 2^63, from where on a whole number is no longer an integer of a value.
        Value::Float(f) => f.abs() < 9_223_372_036_854_775_808.0 || f.fract() != 0.0,
        Value::List(items) => items.iter().all(is_exact),
        Value::Map(map) => map.values().all(is_exact),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Str(_) => true,
    }
}

fn exact(text: &str, value: Value) -> Result<Value, Unread> {
    let Some((at, number)) = inexact(text) else { return Ok(value) };
    let before = &text.as_bytes()[..at];
    let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
    let column = 1 + before.iter().rev().take_while(|byte| **byte != b'\n').count();
    let quoted = if number.len() > QUOTED_MAX { format!("{}…", &number[..QUOTED_MAX]) } else { number.to_owned() };
    Err(Unread::Inexact { number: quoted, line, column })
}

/// The first whole number of a JSON text that is beyond 64 bits, with its offset.
fn inexact(text: &str) -> Option<(usize, &str)> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = after_text(bytes, at + 1),
            b'-' | b'0'..=b'9' => {
                let part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
                let len = bytes[at..].iter().take_while(|byte| part(byte)).count();
                let number = &text[at..at + len];
                let is_whole = len > DIGITS_SAFE && !number.contains(['.', 'e', 'E']);
                if is_whole && number.parse::<i64>().is_err() {
                    return Some((at, number));
                }
                at += len;
            }
            _ => at += 1,
        }
    }
    None
}

/// Where a text ends that begins at `at`, its quotation mark included.
fn after_text(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}

/// Reads one value. Mappings that follow each other in a list mostly have the same keys: those are shared, so a table of
/// rows takes the room of its values.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reader<'a> {
    /// Whether a key may be given once only.
    is_unique: bool,
    /// The mapping that stands at the same place of the row before.
    like: Option<&'a Map>,
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, b: bool) -> Result<Value, E> {
        Ok(Value::Bool(b))
    }

    fn visit_i64<E>(self, i: i64) -> Result<Value, E> {
        Ok(Value::Int(i))
    }

    fn visit_u64<E>(self, u: u64) -> Result<Value, E> {
        Ok(i64::try_from(u).map_or(Value::Float(u as f64), Value::Int))
    }

    fn visit_f64<E: serde::de::Error>(self, f: f64) -> Result<Value, E> {
        Value::float(f).ok_or_else(|| E::custom("a number must be finite"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::str(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items: Vec<Value> = Vec::with_capacity(access.size_hint().unwrap_or(0).min(1024));
        loop {
            let like = items.last().and_then(Value::as_map);
            match access.next_element_seed(Reader { like, ..self })? {
                Some(item) => items.push(item),
                None => break,
            }
        }
        items.shrink_to_fit();
        Ok(Value::list(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::with_capacity(self.like.map_or(0, Map::len));
        loop {
            let like = self.like.and_then(|like| like.get_index(map.len()));
            let Some(key) = access.next_key_seed(Key(like.map(|(key, _)| key)))? else { break };
            if self.is_unique && map.contains_key(&key) {
                return Err(A::Error::custom(format_args!("the key `{key}` is given twice")));
            }
            let like = like.and_then(|(_, value)| value.as_map());
            map.insert(key, access.next_value_seed(Reader { like, ..self })?);
        }
        map.shrink_to_fit();
        Ok(Value::map(map))
    }
}

/// Reads a key, which is that of the row before when it is the same.
struct Key<'a>(Option<&'a Name>);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Name;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Name, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Name;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, text: &str) -> Result<Name, E> {
        Ok(self.0.filter(|known| ***known == *text).map_or_else(|| text.into(), Name::clone))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_kept_exactly_or_refused_with_their_place() {
        for text in [
            "9223372036854775807",
            "-9223372036854775808",
            "1e30",
            "[10000000000000000000.0]",
            "\"99999999999999999999\"",
        ] {
            assert_eq!(read(text).expect(text), Value::from_json(text).expect(text));
            assert_eq!(read_unique(text).expect(text), Value::from_json(text).expect(text));
        }
        for (text, number, line, column) in [
            ("9223372036854775808", "9223372036854775808", 1, 1),
            ("-9223372036854775809", "-9223372036854775809", 1, 1),
            ("{\"a\\\"1\": 1,\n  \"b\": [18446744073709551616]}", "18446744073709551616", 2, 9),
        ] {
            for found in [read(text), read_unique(text)] {
                let Err(Unread::Inexact { number: n, line: l, column: c }) = found else { panic!("{text}: {found:?}") };
                assert_eq!((&*n, l, c), (number, line, column), "{text}");
            }
        }
        let long = read(&"9".repeat(300)).expect_err("long").to_string();
        assert!(long.contains("9…") && long.len() < 200, "{long}");
    }

    #[test]
    fn a_key_is_given_once_by_a_person_and_the_last_one_counts_by_others() {
        let twice = "{\n \"a\": {\"b\": 1, \"b\": 2}}";
        let refused = read_unique(twice).expect_err("twice").to_string();
        assert_eq!(refused, "the key `b` is given twice at line 2 column 18");
        assert_eq!(read(twice).expect("the last").to_json(), r#"{"a":{"b":2}}"#);
        assert_eq!(read_unique(r#"[{"a":1},{"a":2}]"#).expect("apart").to_json(), r#"[{"a":1},{"a":2}]"#);
        assert!(read_unique("{} {}").is_err() && read_unique("1e999").is_err());
    }

    #[test]
    fn rows_share_their_keys() {
        let text = r#"[{"id":1,"of":{"n":1}},{"id":2,"of":{"n":2}},{"of":3,"id":4},{"x":5}]"#;
        let value = Value::from_json(text).expect("json");
        assert_eq!(value.to_json(), text);
        let rows = value.as_list().expect("a list");
        let key = |row: &Value, at: usize| row.as_map().and_then(|map| map.get_index(at)).expect("a key").0.clone();
        assert!(Name::ptr_eq(&key(&rows[0], 0), &key(&rows[1], 0)));
        let inner = |row: &Value| row.get("of").cloned().expect("a mapping");
        assert!(Name::ptr_eq(&key(&inner(&rows[0]), 0), &key(&inner(&rows[1]), 0)));
    }

    #[test]
    fn a_number_that_may_have_lost_digits_is_seen() {
        assert!(is_exact(&Value::from_json(r#"{"a":[1.5,1e18,-9223372036854775808]}"#).expect("json")));
        assert!(!is_exact(&Value::from_json(r#"{"a":[18446744073709551615]}"#).expect("json")));
    }
}
