//! The data of a run: JSON with finite numbers, shared on clone, bounded, with one canonical form for hashing.
//!
//! Clones are reference counts. A change to a shared part copies that part only.

use std::fmt;
use std::io::Write;
use std::sync::Arc;

use indexmap::IndexMap;
use serde::de::DeserializeSeed;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::{Digest, Name};
use crate::json::Reader;

/// A mapping that keeps the order in which keys were first set. Equality ignores the order.
pub type Map = IndexMap<Name, Value>;

/// One value. Integers are kept exactly from -2^63 to 2^63-1; [`crate::json`] refuses larger ones.
#[derive(Clone, Default, PartialEq)]
pub enum Value {
    /// Nothing.
    #[default]
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A finite number. Build with [`Value::float`].
    Float(f64),
    /// Text.
    Str(Name),
    /// An ordered list.
    List(Arc<Vec<Value>>),
    /// A mapping.
    Map(Arc<Map>),
}

impl Value {
    /// Text.
    #[must_use]
    pub fn str(text: impl Into<Name>) -> Self {
        Self::Str(text.into())
    }

    /// A list.
    #[must_use]
    pub fn list(items: Vec<Self>) -> Self {
        Self::List(Arc::new(items))
    }

    /// A mapping.
    #[must_use]
    pub fn map(entries: Map) -> Self {
        Self::Map(Arc::new(entries))
    }

    /// An empty mapping.
    #[must_use]
    pub fn empty_map() -> Self {
        Self::map(Map::new())
    }

    /// A mapping of the given pairs, in that order.
    #[must_use]
    pub fn object<K: Into<Name>, const N: usize>(pairs: [(K, Self); N]) -> Self {
        Self::map(pairs.into_iter().map(|(k, v)| (k.into(), v)).collect())
    }

    /// A number; `None` for NaN and the infinities, which no run may hold.
    #[must_use]
    pub fn float(number: f64) -> Option<Self> {
        number.is_finite().then_some(Self::Float(number))
    }

    /// A count; values above 2^63-1 saturate.
    #[must_use]
    pub fn count(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }

    /// Whether this is null.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The text, if this is text.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Self::Str(text) = self { Some(text) } else { None }
    }

    /// The list, if this is a list.
    #[must_use]
    pub fn as_list(&self) -> Option<&[Self]> {
        if let Self::List(items) = self { Some(items) } else { None }
    }

    /// The mapping, if this is a mapping.
    #[must_use]
    pub fn as_map(&self) -> Option<&Map> {
        if let Self::Map(map) = self { Some(map) } else { None }
    }

    /// The whole number, if this is one; a float without a fraction counts.
    #[must_use]
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(i) => Some(*i),
            Self::Float(f) if f.fract() == 0.0 && f.abs() < 9.0e15 => Some(*f as i64),
            Self::Null | Self::Bool(_) | Self::Float(_) | Self::Str(_) | Self::List(_) | Self::Map(_) => None,
        }
    }

    /// The number as a float, if this is a number.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Int(i) => Some(*i as f64),
            Self::Float(f) => Some(*f),
            Self::Null | Self::Bool(_) | Self::Str(_) | Self::List(_) | Self::Map(_) => None,
        }
    }

    /// The value under `key` of a mapping; `None` when absent or when this is no mapping.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.as_map().and_then(|map| map.get(key))
    }

    /// The value at a path of mapping keys; null when any part is missing.
    #[must_use]
    pub fn at_path<S: AsRef<str>>(&self, path: &[S]) -> Self {
        let mut current = self;
        for part in path {
            match current.get(part.as_ref()) {
                Some(next) => current = next,
                None => return Self::Null,
            }
        }
        current.clone()
    }

    /// Python's idea of truth, as the document format uses it: null, false, zero and empty are false.
    #[must_use]
    pub fn is_truthy(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Bool(b) => *b,
            Self::Int(i) => *i != 0,
            Self::Float(f) => *f != 0.0,
            Self::Str(s) => !s.is_empty(),
            Self::List(l) => !l.is_empty(),
            Self::Map(m) => !m.is_empty(),
        }
    }

    /// The word for this value's type in messages.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Int(_) | Self::Float(_) => "number",
            Self::Str(_) => "text",
            Self::List(_) => "list",
            Self::Map(_) => "mapping",
        }
    }

    /// Bytes of this value as JSON text, to within the escapes of its strings. Saturates.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) => 5,
            Self::Int(_) | Self::Float(_) => 12,
            Self::Str(s) => s.len() + 2,
            Self::List(l) => l.iter().fold(2, |n, v| v.size_bytes().saturating_add(n + 1)),
            Self::Map(m) => m.iter().fold(2, |n, (k, v)| v.size_bytes().saturating_add(n + k.len() + 4)),
        }
    }

    /// The deepest nesting: 0 for a scalar, 1 for a list of scalars.
    #[must_use]
    pub fn depth(&self) -> usize {
        match self {
            Self::List(l) => 1 + l.iter().map(Self::depth).max().unwrap_or(0),
            Self::Map(m) => 1 + m.values().map(Self::depth).max().unwrap_or(0),
            Self::Null | Self::Bool(_) | Self::Int(_) | Self::Float(_) | Self::Str(_) => 0,
        }
    }

    /// The one text of this value for hashing: keys sorted by bytes, no blanks, integers in full, floats in the
    /// shortest form that reads back. Unlike RFC 8785 it keeps integers above 2^53 apart.
    #[must_use]
    pub fn canonical(&self) -> String {
        String::from_utf8(self.canonical_bytes()).unwrap_or_default()
    }

    /// The hash of the canonical form.
    #[must_use]
    pub fn digest(&self) -> Digest {
        // A large value is not spelled out a second time in memory.
        if self.size_bytes() > DIGEST_WHOLE_BYTES {
            return Digest::of_written(|mut out| write_canonical(self, &mut out));
        }
        Digest::of(&self.canonical_bytes())
    }

    fn canonical_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.size_bytes() + 64);
        write_canonical(self, &mut out);
        out
    }

    /// JSON text in key order of the value.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads JSON text. Nesting is bounded by the parser; a whole number beyond 64 bits becomes a float. Text from outside
    /// is read by [`crate::json`].
    ///
    /// # Errors
    /// Text that is not one JSON document, with line and column.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}

/// Values up to this size are hashed at once.
const DIGEST_WHOLE_BYTES: usize = 64 * 1024;

fn write_canonical<W: Write>(value: &Value, out: &mut W) {
    match value {
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Str(_) => write_scalar(value, out),
        Value::List(items) => {
            put(out, b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    put(out, b',');
                }
                write_canonical(item, out);
            }
            put(out, b']');
        }
        Value::Map(map) => {
            let mut keys: Vec<_> = map.iter().collect();
            keys.sort_unstable_by(|a, b| a.0.cmp(b.0));
            put(out, b'{');
            for (i, (key, item)) in keys.into_iter().enumerate() {
                if i > 0 {
                    put(out, b',');
                }
                write_scalar(&**key, out);
                put(out, b':');
                write_canonical(item, out);
            }
            put(out, b'}');
        }
    }
}

// Neither plain data nor what is written to, memory that grows or a hash, can fail here.
fn write_scalar<T: Serialize + ?Sized, W: Write>(value: &T, out: &mut W) {
    let _written = serde_json::to_writer(out, value);
}

fn put<W: Write>(out: &mut W, byte: u8) {
    let _written = out.write_all(&[byte]);
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_json())
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_json())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::str(text)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::str(text)
    }
}

impl From<Name> for Value {
    fn from(text: Name) -> Self {
        Self::Str(text)
    }
}

impl From<bool> for Value {
    fn from(b: bool) -> Self {
        Self::Bool(b)
    }
}

impl From<i64> for Value {
    fn from(i: i64) -> Self {
        Self::Int(i)
    }
}

impl From<Vec<Value>> for Value {
    fn from(items: Vec<Value>) -> Self {
        Self::list(items)
    }
}

impl From<Map> for Value {
    fn from(map: Map) -> Self {
        Self::map(map)
    }
}

impl From<serde_json::Value> for Value {
    fn from(json: serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(b) => Self::Bool(b),
            serde_json::Value::Number(n) => match (n.as_i64(), n.as_f64()) {
                (Some(i), _) => Self::Int(i),
                (None, Some(f)) => Self::float(f).unwrap_or_default(),
                (None, None) => Self::Null,
            },
            serde_json::Value::String(s) => Self::str(s),
            serde_json::Value::Array(items) => Self::list(items.into_iter().map(Self::from).collect()),
            serde_json::Value::Object(map) => Self::map(map.into_iter().map(|(k, v)| (k.into(), v.into())).collect()),
        }
    }
}

impl From<&Value> for serde_json::Value {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(b) => Self::Bool(*b),
            Value::Int(i) => Self::from(*i),
            Value::Float(f) => Self::from(*f),
            Value::Str(s) => Self::from(&**s),
            Value::List(items) => Self::Array(items.iter().map(Self::from).collect()),
            Value::Map(map) => Self::Object(map.iter().map(|(k, v)| (k.to_string(), v.into())).collect()),
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(b) => serializer.serialize_bool(*b),
            Self::Int(i) => serializer.serialize_i64(*i),
            Self::Float(f) => serializer.serialize_f64(*f),
            Self::Str(s) => serializer.serialize_str(s),
            Self::List(l) => serializer.collect_seq(l.iter()),
            Self::Map(m) => serializer.collect_map(m.iter()),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Reader::default().deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Value {
        Value::from_json(text).expect("valid JSON")
    }

    #[test]
    fn order_is_kept_and_ignored_by_equality_and_hash() {
        let (a, b) = (parse(r#"{"b":1,"a":[true,null]}"#), parse(r#"{"a":[true,null],"b":1}"#));
        assert_eq!(a.to_json(), r#"{"b":1,"a":[true,null]}"#);
        assert_eq!(a, b);
        assert_eq!(a.digest(), b.digest());
        assert_eq!(a.canonical(), r#"{"a":[true,null],"b":1}"#);
    }

    #[test]
    fn a_large_value_has_the_hash_of_its_canonical_text() {
        let large = Value::list(vec![parse(r#"{"b":[1.5,"x"],"a":null}"#); 10_000]);
        assert!(large.size_bytes() > DIGEST_WHOLE_BYTES);
        assert_eq!(large.digest(), Digest::of(large.canonical().as_bytes()));
    }

    #[test]
    fn large_integers_stay_apart() {
        assert_ne!(parse("9007199254740993").digest(), parse("9007199254740992").digest());
        assert_eq!(parse("18446744073709551615"), Value::Float(1.8446744073709552e19));
    }

    #[test]
    fn zero_characters_survive() {
        assert_eq!(parse(r#""a\u0000b""#).as_str(), Some("a\0b"));
        assert_eq!(parse(r#""a\u0000b""#).to_json(), r#""a\u0000b""#);
    }

    #[test]
    fn clones_share_and_changes_copy() {
        let original = parse(r#"{"a":1}"#);
        let mut copy = original.clone();
        if let Value::Map(map) = &mut copy {
            Arc::make_mut(map).insert("a".into(), Value::Int(2));
        }
        assert_eq!(original, parse(r#"{"a":1}"#));
        assert_eq!(copy, parse(r#"{"a":2}"#));
    }

    #[test]
    fn non_finite_numbers_cannot_be_built() {
        assert_eq!(Value::float(f64::NAN), None);
        assert_eq!(Value::float(f64::INFINITY), None);
        assert!(Value::from_json("1e999").is_err());
    }
}
