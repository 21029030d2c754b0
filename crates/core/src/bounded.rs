//! Whether a JSON Schema bounds what a part of a value can say, so that nobody can write a text of their own into it.
//!
//! Owns the rule. That a value fits its schema is checked by whoever uses the part.

use std::cell::Cell;

use serde_json::Value as Json;

use crate::ids::Name;
use crate::value::Value;

/// Characters that a bounded text has at most, and items of a bounded list.
const LENGTH_MAX: u64 = 64;
/// Letters beyond `a` to `f` of a whole part that are not fixed: enough for codes, too few for a sentence.
const LETTERS_MAX: u64 = 8;
/// Subschemas that are looked through on the way to one place.
const DEPTH_MAX: usize = 32;
/// Subschemas that are looked at in all: references may lead to one again and again.
const LOOKS_MAX: usize = 10_000;
/// Drafts in which the keywords mean what is read from them here.
const DRAFTS: [&str; 4] = ["draft-06", "draft-07", "2019-09", "2020-12"];
/// What to do about a part that is not bounded.
pub const ADVICE: &str = "give the part `enum`, `const`, a number, a boolean, or text with a `pattern` from `^` to `$` that has \
    at most 64 characters, of which 8 may be any letter; close mappings with `additionalProperties: false`, and lists with \
    `maxItems`";

/// Why a schema does not bound a part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unbounded {
    /// There is no schema, or it does not say what the part is.
    #[error("no schema says what it is")]
    Unsaid,
    /// A text without a pattern that leaves no room.
    #[error("its schema allows free text")]
    Text,
    /// A mapping that may have more keys.
    #[error("its schema allows keys that it does not name")]
    Open,
    /// A list of any length or of anything.
    #[error("its schema allows a list of any length")]
    List,
    /// All texts of the part together leave room for a sentence.
    #[error("its schema leaves {0} letters open, and {LETTERS_MAX} are the most")]
    Letters(u64),
    /// Keywords whose meaning is not looked into.
    #[error(
        "its schema is not followed here: it has another draft, its own `$id`, or references that leave it or go too deep"
    )]
    Unread,
}

/// Whether a schema bounds what stands at a path of a value that fits it: by fixed values, numbers, booleans, and texts in
/// which almost no letter is free.
///
/// # Errors
/// Why it does not.
pub fn check(schema: &Value, path: &[Name]) -> Result<(), Unbounded> {
    let root = Json::from(schema);
    let draft = root.get("$schema").and_then(Json::as_str);
    if root.get("$schema").is_some() && !draft.is_some_and(|draft| DRAFTS.iter().any(|known| draft.contains(known))) {
        return Err(Unbounded::Unread);
    }
    let reader = Reader { root: &root, looks: Cell::new(LOOKS_MAX) };
    let letters = reader.letters(&root, path, DEPTH_MAX);
    if reader.looks.get() == 0 {
        return Err(Unbounded::Unread);
    }
    let letters = letters?;
    if letters > LETTERS_MAX { Err(Unbounded::Letters(letters)) } else { Ok(()) }
}

struct Reader<'s> {
    root: &'s Json,
    /// How many may still be looked at.
    looks: Cell<usize>,
}

impl Reader<'_> {
    /// How many letters are free at a path.
    fn letters(&self, schema: &Json, path: &[Name], depth: usize) -> Result<u64, Unbounded> {
        let (Some(depth), Some(looks)) = (depth.checked_sub(1), self.looks.get().checked_sub(1)) else {
            return Err(Unbounded::Unread);
        };
        self.looks.set(looks);
        match schema {
            Json::Bool(false) => return Ok(0),
            Json::Object(_) => {}
            Json::Null | Json::Bool(true) | Json::Number(_) | Json::String(_) | Json::Array(_) => {
                return Err(Unbounded::Unsaid);
            }
        }
        if schema.get("$id").is_some() && !std::ptr::eq(schema, self.root) {
            return Err(Unbounded::Unread);
        }
        // Some drafts ignore whatever stands beside a reference.
        if let Some(reference) = schema.get("$ref") {
            let target = reference.as_str().and_then(|text| self.root.pointer(text.strip_prefix('#')?));
            return self.letters(target.ok_or(Unbounded::Unread)?, path, depth);
        }
        if schema.get("const").is_some() || schema.get("enum").is_some() {
            return Ok(0);
        }
        let mut found = self.own(schema, path, depth);
        // What fits all of these fits the narrowest one.
        for part in schema.get("allOf").and_then(Json::as_array).into_iter().flatten() {
            found = narrower(found, self.letters(part, path, depth));
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(parts) = schema.get(key).and_then(Json::as_array).filter(|parts| !parts.is_empty()) {
                let widest = parts.iter().try_fold(0, |most, part| Ok(self.letters(part, path, depth)?.max(most)));
                found = narrower(found, widest);
            }
        }
        found
    }

    /// The same by what a schema says itself.
    fn own(&self, schema: &Json, path: &[Name], depth: usize) -> Result<u64, Unbounded> {
        let properties = schema.get("properties").and_then(Json::as_object);
        if let Some((name, rest)) = path.split_first() {
            let part = properties.and_then(|all| all.get(&**name));
            return self.letters(part.or_else(|| others(schema)).ok_or(Unbounded::Unsaid)?, rest, depth);
        }
        let kinds = match schema.get("type") {
            Some(Json::String(kind)) => vec![kind.as_str()],
            Some(Json::Array(kinds)) => kinds.iter().filter_map(Json::as_str).collect(),
            _ => return Err(Unbounded::Unsaid),
        };
        let mut most = 0;
        for kind in kinds {
            let letters = match kind {
                "null" | "boolean" | "integer" | "number" => 0,
                "string" => text(schema)?,
                "object" if others(schema) == Some(&Json::Bool(false)) => {
                    let parts = properties.into_iter().flat_map(|all| all.values());
                    parts.map(|part| self.letters(part, &[], depth)).sum::<Result<u64, _>>()?
                }
                "object" => return Err(Unbounded::Open),
                "array" => self.list(schema, depth)?,
                _ => return Err(Unbounded::Unsaid),
            };
            most = most.max(letters);
        }
        Ok(most)
    }

    fn list(&self, schema: &Json, depth: usize) -> Result<u64, Unbounded> {
        let most = schema.get("maxItems").and_then(Json::as_u64).filter(|most| *most <= LENGTH_MAX);
        let (Some(most), Some(items)) = (most, schema.get("items")) else { return Err(Unbounded::List) };
        let mut letters = self.letters(items, &[], depth)?.saturating_mul(most);
        for item in schema.get("prefixItems").and_then(Json::as_array).into_iter().flatten() {
            letters = letters.saturating_add(self.letters(item, &[], depth)?);
        }
        Ok(letters)
    }
}

/// What a schema says of the keys that it does not name.
fn others(schema: &Json) -> Option<&Json> {
    let has_patterns =
        schema.get("patternProperties").is_some_and(|all| all.as_object().is_none_or(|all| !all.is_empty()));
    schema.get("additionalProperties").filter(|_| !has_patterns)
}

fn narrower(one: Result<u64, Unbounded>, other: Result<u64, Unbounded>) -> Result<u64, Unbounded> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok(one.min(other)),
        (Ok(found), Err(_)) | (Err(_), Ok(found)) => Ok(found),
        // The innermost says most: what stands around it says nothing of its own.
        (Err(Unbounded::Unsaid), Err(why)) | (Err(why), Err(_)) => Err(why),
    }
}

/// How many letters a text may choose.
fn text(schema: &Json) -> Result<u64, Unbounded> {
    let longest = schema.get("maxLength").and_then(Json::as_u64).filter(|most| *most <= LENGTH_MAX);
    if longest == Some(0) {
        return Ok(0);
    }
    let pattern = schema.get("pattern").and_then(Json::as_str);
    let inner = pattern.and_then(|pattern| pattern.strip_prefix('^')?.strip_suffix('$')).ok_or(Unbounded::Text)?;
    let mut rest = inner;
    let (mut length, mut letters) = (Some(0_u64), 0_u64);
    while !rest.is_empty() {
        let (is_letter, after) = atom(rest).ok_or(Unbounded::Text)?;
        let (most, after) = times(after).ok_or(Unbounded::Text)?;
        length = length.zip(most).map(|(length, most)| length.saturating_add(most));
        if is_letter {
            letters = letters.saturating_add(most.or(longest).ok_or(Unbounded::Text)?);
        }
        rest = after;
    }
    let length = length.into_iter().chain(longest).min().filter(|length| *length <= LENGTH_MAX);
    Ok(letters.min(length.ok_or(Unbounded::Text)?))
}

/// One place of a pattern, whether it may be a letter beyond `a` to `f`, and what comes after it. None for what may be
/// anything, for a blank, and for what is more than one place.
fn atom(pattern: &str) -> Option<(bool, &str)> {
    let first = pattern.chars().next().filter(char::is_ascii_graphic)?;
    let rest = &pattern[1..];
    match first {
        '[' => class(rest),
        '\\' => escape(rest).map(|(_, rest)| (false, rest)),
        '.' | '|' | '(' | ')' | '{' | '}' | '*' | '+' | '?' | '^' | '$' | ']' => None,
        _ => Some((false, rest)),
    }
}

/// What comes after a backslash: a digit, or a sign that stands for itself.
fn escape(rest: &str) -> Option<(char, &str)> {
    let escaped = rest.chars().next().filter(|c| *c == 'd' || c.is_ascii_punctuation())?;
    Some((if escaped == 'd' { '0' } else { escaped }, &rest[1..]))
}

/// The characters of a class up to its end, of which each is a digit, a sign, a letter, or a range of those.
fn class(pattern: &str) -> Option<(bool, &str)> {
    let mut rest = pattern;
    let mut is_letter = false;
    loop {
        let (from, after) = member(rest)?;
        rest = after;
        let to = match rest.strip_prefix('-').filter(|after| !after.starts_with(']')) {
            Some(after) => {
                let (to, after) = member(after)?;
                rest = after;
                to
            }
            None => from,
        };
        if from > to {
            return None;
        }
        // A range from a sign to another one may have letters between them.
        is_letter |= (from..=to).any(|c| c.is_ascii_alphabetic() && !c.is_ascii_hexdigit());
        if let Some(after) = rest.strip_prefix(']') {
            return Some((is_letter, after));
        }
    }
}

fn member(rest: &str) -> Option<(char, &str)> {
    let first = rest.chars().next().filter(char::is_ascii_graphic)?;
    match first {
        '\\' => escape(&rest[1..]),
        '[' | ']' | '^' | '&' | '~' => None,
        _ => Some((first, &rest[1..])),
    }
}

/// How often a place may stand there at most, none for any number; and what comes after that.
fn times(pattern: &str) -> Option<(Option<u64>, &str)> {
    let (most, rest) = match pattern.chars().next() {
        Some('*' | '+') => (None, &pattern[1..]),
        Some('?') => (Some(1), &pattern[1..]),
        Some('{') => {
            let (inner, rest) = pattern[1..].split_once('}')?;
            let (least, most) = inner.split_once(',').unwrap_or((inner, inner));
            least.parse::<u64>().ok()?;
            (if most.is_empty() { None } else { Some(most.parse().ok()?) }, rest)
        }
        _ => return Some((Some(1), pattern)),
    };
    if rest.starts_with(['*', '+', '?', '{']) { None } else { Some((most, rest)) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(schema: &Json, path: &[&str]) -> Result<(), Unbounded> {
        let path: Vec<Name> = path.iter().map(|part| Name::from(*part)).collect();
        check(&Value::from(schema.clone()), &path)
    }

    #[test]
    fn references_that_lead_to_themselves_end() {
        let again: Vec<Json> = (0..10).map(|_| json!({"$ref": "#/$defs/a"})).collect();
        for word in ["allOf", "anyOf", "oneOf"] {
            let schema = json!({"$defs": {"a": {word: again}}, "$ref": "#/$defs/a"});
            assert_eq!(at(&schema, &[]), Err(Unbounded::Unread), "{word}");
        }
    }

    #[test]
    fn what_says_little_is_bounded() {
        for schema in [
            json!({"enum": ["refund", "complaint"]}),
            json!({"const": "a text of any length is fixed"}),
            json!({"type": ["integer", "null"]}),
            json!({"type": "boolean"}),
            json!({"type": "string", "pattern": "^ORD-[0-9]{4,12}$"}),
            json!({"type": "string", "pattern": "^[A-Z]{3}$"}),
            json!({"type": "string", "pattern": "^\\d{4}-\\d{2}-\\d{2}$"}),
            json!({"type": "string", "pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}$"}),
            json!({"type": "string", "pattern": "^[0-9.+-]+$", "maxLength": 20}),
            json!({"type": "string", "maxLength": 0}),
            json!({"type": "object", "properties": {"a": {"enum": [1]}}, "additionalProperties": false}),
            json!({"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 64}),
            json!({"anyOf": [{"type": "null"}, {"enum": ["x"]}]}),
            json!({"type": "string", "allOf": [{"enum": ["x"]}]}),
            json!({"$ref": "#/$defs/kind", "$defs": {"kind": {"enum": ["x"]}}}),
        ] {
            assert_eq!(at(&schema, &[]), Ok(()), "{schema}");
            let around = json!({"properties": {"kind": schema.clone()}, "$defs": schema.get("$defs")});
            assert_eq!(at(&around, &["kind"]), Ok(()), "{around}");
        }
    }

    #[test]
    fn what_a_text_fits_into_is_not() {
        use Unbounded::{Letters, List, Open, Text, Unread, Unsaid};
        for (schema, why) in [
            (json!(null), Unsaid),
            (json!(true), Unsaid),
            (json!({}), Unsaid),
            (json!({"pattern": "^[0-9]{3}$"}), Unsaid),
            (json!({"type": "string"}), Text),
            (json!({"type": ["string", "null"], "maxLength": 20}), Text),
            (json!({"type": "string", "format": "uuid"}), Text),
            (json!({"type": "string", "pattern": "[0-9]{3}"}), Text),
            (json!({"type": "string", "pattern": "^.{3}$"}), Text),
            (json!({"type": "string", "pattern": "^[0-9]{3}$|^x$"}), Text),
            (json!({"type": "string", "pattern": "^(a|b)$"}), Text),
            (json!({"type": "string", "pattern": "^[^a]{3}$"}), Text),
            (json!({"type": "string", "pattern": "^[a b]{3}$"}), Text),
            (json!({"type": "string", "pattern": "^\\w{3}$"}), Text),
            (json!({"type": "string", "pattern": "^[0-9]+$"}), Text),
            (json!({"type": "string", "pattern": "^[0-9]{65}$"}), Text),
            (json!({"type": "string", "pattern": "^[0-9]{2}{40}$"}), Text),
            (json!({"type": "string", "pattern": "^[a-z]{9}$"}), Letters(9)),
            (json!({"type": "string", "pattern": "^[!-z]{20}$"}), Letters(20)),
            (json!({"type": "string", "pattern": "^[a-z_]+$", "maxLength": 40}), Letters(40)),
            (json!({"type": "object", "properties": {"a": {"enum": [1]}}}), Open),
            (json!({"type": "object", "additionalProperties": false, "patternProperties": {"x": {}}}), Open),
            (json!({"type": "array", "items": {"enum": ["a"]}}), List),
            (json!({"type": "array", "maxItems": 3}), List),
            (json!({"type": "array", "maxItems": 9, "items": {"type": "string", "pattern": "^[A-Z]$"}}), Letters(9)),
            (json!({"anyOf": [{"enum": ["x"]}, {"type": "string"}]}), Text),
            (json!({"$ref": "#/$defs/gone"}), Unread),
            (json!({"$ref": "https://example.com/kind", "enum": ["x"]}), Unread),
            (json!({"$ref": "#"}), Unread),
            (json!({"$schema": "http://json-schema.org/draft-04/schema#", "const": "x"}), Unread),
        ] {
            assert_eq!(at(&schema, &[]), Err(why), "{schema}");
        }
        let machine = json!({"properties": {"kind": {"enum": ["x"]}, "text": {"type": "string"}}});
        assert_eq!((at(&machine, &["kind"]), at(&machine, &["text"])), (Ok(()), Err(Text)));
        assert_eq!((at(&machine, &["other"]), at(&machine, &[])), (Err(Unsaid), Err(Unsaid)));
    }
}
