//! JSON Schema: whether a value fits, with numeric text made numbers where the schema asks for numbers.
//!
//! Nothing is fetched. Schemas whose check could take time out of proportion to the value are refused: references
//! that never go deeper, and branching that multiplies at every level of a deep value.

use std::collections::BTreeMap;

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{JsonType, PatternOptions, Validator};
use serde_json::Value as Json;
use windlass_core::failure::{Code, Failure};
use windlass_core::json::is_exact;
use windlass_core::value::Value;

use super::number::Number;

/// Bytes of one schema, as JSON text.
const SCHEMA_BYTES_MAX: usize = 256 * 1024;
/// Subschemas that may apply to one place of a value.
const IN_PLACE_MAX: u64 = 10_000;
/// Applications of subschemas that one check may take.
const WORK_MAX: f64 = 2e7;
/// Sentences reported.
const ERRORS_MAX: usize = 20;
/// Rounds of coercion: each one can uncover places that were not looked at before.
const ROUNDS_MAX: usize = 8;
/// Bytes of a compiled `pattern`.
const PATTERN_BYTES_MAX: usize = 1024 * 1024;

/// A schema ready for checks.
#[derive(Debug)]
pub(super) struct Schema {
    validator: Validator,
    /// How many times a level of a value multiplies the work, and whether the levels end with the schema's.
    branching: u64,
    levels: Option<usize>,
}

/// Reads a schema.
pub(super) fn compile(schema: &Value) -> Result<Schema, Failure> {
    let invalid = |message: String| Failure::new(Code::SpecInvalid, message);
    if schema.size_bytes() > SCHEMA_BYTES_MAX {
        return Err(invalid(format!("the schema is larger than {SCHEMA_BYTES_MAX} bytes")));
    }
    let (branching, levels) = Shape::of(schema).map_err(invalid)?;
    let patterns = PatternOptions::regex().size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX);
    let validator =
        jsonschema::options().offline().with_pattern_options(patterns).build(&Json::from(schema)).map_err(|error| {
            invalid(format!("the schema is not valid{}: {error}", place(error.instance_path().as_str())))
        })?;
    Ok(Schema { validator, branching, levels })
}

/// Checks a value; the value that fits is returned.
pub(super) fn fit(schema: &Schema, value: &Value) -> Result<Value, Vec<String>> {
    let depth = schema.levels.map_or(value.depth(), |levels| value.depth().min(levels));
    let work = (schema.branching as f64).powi(i32::try_from(depth).unwrap_or(i32::MAX));
    if work > WORK_MAX {
        return Err(vec![format!(
            "the value is nested {depth} levels deep, too deep for a schema with this many branches"
        )]);
    }
    let mut json = Json::from(value);
    let mut changed = false;
    for _ in 0..ROUNDS_MAX {
        let errors: Vec<_> = schema.validator.iter_errors(&json).take(ERRORS_MAX * 5).collect();
        if errors.is_empty() {
            return Ok(if changed { Value::from(json) } else { value.clone() });
        }
        let coerced: Vec<(String, Json)> = errors
            .iter()
            .filter_map(|error| {
                let ValidationErrorKind::Type { kind } = error.kind() else { return None };
                Some((error.instance_path().as_str().to_owned(), coerce(error.instance(), kind)?))
            })
            .collect();
        if coerced.is_empty() {
            return Err(sentences(&errors));
        }
        for (path, number) in coerced {
            if let Some(slot) = json.pointer_mut(&path) {
                *slot = number;
                changed = true;
            }
        }
    }
    Err(sentences(&schema.validator.iter_errors(&json).take(ERRORS_MAX).collect::<Vec<_>>()))
}

fn sentences(errors: &[jsonschema::ValidationError<'_>]) -> Vec<String> {
    let mut out: Vec<String> = errors
        .iter()
        .take(ERRORS_MAX)
        // The value itself is left out: it may be long, and it may be secret.
        .map(|error| format!("{}{}", error.masked_with("the value"), place(error.instance_path().as_str())))
        .collect();
    if errors.len() > out.len() {
        out.push(format!("and {} more", errors.len() - out.len()));
    }
    out
}

fn place(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!(" at `{path}`") }
}

/// Text as the number, whole number or boolean that is asked for, if it spells one.
fn coerce(value: &Json, kind: &TypeKind) -> Option<Json> {
    let text = value.as_str()?;
    let wants = |wanted: JsonType| match kind {
        TypeKind::Single(single) => *single == wanted,
        TypeKind::Multiple(set) => set.contains(wanted),
    };
    if wants(JsonType::Boolean) {
        match text.trim() {
            "true" | "True" => return Some(Json::Bool(true)),
            "false" | "False" => return Some(Json::Bool(false)),
            _ => {}
        }
    }
    let number = Number::parse(text)?;
    match number {
        Number::Int(i) if wants(JsonType::Integer) || wants(JsonType::Number) => Some(Json::from(i)),
        Number::Float(f) if wants(JsonType::Integer) && f.fract() == 0.0 && f.abs() < 9e15 => {
            Some(Json::from(f as i64))
        }
        // A whole number that would lose digits stays the text it is.
        Number::Float(f) if wants(JsonType::Number) && is_exact(&Value::Float(f)) => Some(Json::from(f)),
        Number::Int(_) | Number::Float(_) => None,
    }
}

/// Keywords whose subschemas apply to the same place of the value.
const IN_PLACE: [&str; 9] =
    ["allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies"];
/// Keywords whose subschemas apply one level deeper.
const DEEPER: [&str; 11] = [
    "properties",
    "patternProperties",
    "additionalProperties",
    "propertyNames",
    "items",
    "prefixItems",
    "additionalItems",
    "contains",
    "unevaluatedItems",
    "unevaluatedProperties",
    "contentSchema",
];

/// Measures how a schema's work grows with the depth of a value.
struct Shape<'a> {
    root: &'a Value,
    /// Memory of the branches at each place of the schema, by address; `None` while it is being measured.
    branches: BTreeMap<usize, Option<u64>>,
}

impl<'a> Shape<'a> {
    /// The largest branching of any level, and the number of levels if the schema does not refer to itself.
    fn of(root: &'a Value) -> Result<(u64, Option<usize>), String> {
        let mut shape = Shape { root, branches: BTreeMap::new() };
        let mut largest = 1;
        let mut pending = vec![root];
        let mut seen = std::collections::BTreeSet::new();
        let mut recursive = false;
        while let Some(schema) = pending.pop() {
            if !seen.insert(address(schema)) {
                continue;
            }
            largest = largest.max(shape.branches(schema)?);
            let Some(map) = schema.as_map() else { continue };
            recursive |= map.contains_key("$ref");
            for value in map.values() {
                subschemas(value, &mut pending);
            }
        }
        Ok((largest, (!recursive).then(|| root.depth())))
    }

    /// How many subschemas with something to say one level deeper apply to one place.
    fn branches(&mut self, schema: &'a Value) -> Result<u64, String> {
        let Some(map) = schema.as_map() else { return Ok(0) };
        match self.branches.get(&address(schema)) {
            Some(Some(known)) => return Ok(*known),
            Some(None) => return Err("the schema refers to itself without going deeper".to_owned()),
            None => {}
        }
        self.branches.insert(address(schema), None);
        let mut total = u64::from(DEEPER.iter().any(|keyword| map.contains_key(*keyword)));
        for keyword in IN_PLACE {
            let mut inner = Vec::new();
            if let Some(value) = map.get(keyword) {
                subschemas(value, &mut inner);
                if matches!(value, Value::Map(_)) && !matches!(keyword, "dependentSchemas" | "dependencies") {
                    inner = vec![value];
                }
            }
            for schema in inner {
                total = total.saturating_add(self.branches(schema)?);
            }
        }
        for keyword in ["$dynamicRef", "$recursiveRef"] {
            if map.contains_key(keyword) {
                return Err(format!("`{keyword}` is not available"));
            }
        }
        if let Some(reference) = map.get("$ref").and_then(Value::as_str) {
            let target = self.target(reference)?;
            total = total.saturating_add(self.branches(target)?);
        }
        if total > IN_PLACE_MAX {
            return Err(format!("more than {IN_PLACE_MAX} subschemas apply to one place"));
        }
        self.branches.insert(address(schema), Some(total));
        Ok(total)
    }

    /// What a reference points at, by its path within the schema.
    fn target(&self, reference: &str) -> Result<&'a Value, String> {
        let Some(pointer) = reference.strip_prefix('#') else {
            return Err(format!("`{reference}` is outside the schema, and nothing is fetched"));
        };
        let mut current = self.root;
        for part in pointer.split('/').skip(1) {
            let key = part.replace("%25", "%").replace("~1", "/").replace("~0", "~");
            let next = match current {
                Value::Map(map) => map.get(key.as_str()),
                Value::List(items) => key.parse::<usize>().ok().and_then(|i| items.get(i)),
                _ => None,
            };
            current = next.ok_or_else(|| format!("`{reference}` points at nothing"))?;
        }
        if !pointer.is_empty() && !pointer.starts_with('/') {
            return Err(format!("`{reference}`: refer by path, such as `#/$defs/name`"));
        }
        Ok(current)
    }
}

/// Every mapping directly below, or one list or mapping down: schemas among them.
fn subschemas<'a>(value: &'a Value, out: &mut Vec<&'a Value>) {
    match value {
        Value::List(items) => out.extend(items.iter().filter(|item| matches!(item, Value::Map(_)))),
        Value::Map(map) => {
            out.push(value);
            out.extend(map.values().filter(|item| matches!(item, Value::Map(_))));
        }
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Str(_) => {}
    }
}

fn address(value: &Value) -> usize {
    std::ptr::from_ref(value) as usize
}
