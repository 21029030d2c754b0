//! JSON given on the command line: as text, from a file, or from stdin, bounded before it is parsed.

use std::io::Read;
use std::path::Path;

use windlass_core::json::{self, Unread};
use windlass_core::limits::{VALUE_BYTES_MAX, VALUE_DEPTH_MAX};
use windlass_core::value::Value;

use crate::exit::Problem;

/// The value of a flag that takes `JSON`, `@FILE` or `-`. Null when it is not given.
///
/// # Errors
/// A file that cannot be read, text that is not one JSON document, or a value beyond the limits.
pub(crate) fn value(flag: &str, given: Option<&str>) -> Result<Value, Problem> {
    let Some(given) = given else { return Ok(Value::Null) };
    let (text, from) = match given.strip_prefix('@') {
        Some(path) => (read_file(flag, Path::new(path))?, format!("`{path}`")),
        None if given == "-" => (read_all(flag, std::io::stdin().lock(), "stdin")?, "stdin".to_owned()),
        None => (given.as_bytes().to_vec(), format!("`{flag}`")),
    };
    parse(&text, &from)
}

/// The value of a flag that takes a JSON object as `JSON`, `@FILE` or `-`.
///
/// # Errors
/// Those of [`value`], and a value that is no object.
pub(crate) fn mapping(flag: &str, given: &str) -> Result<Value, Problem> {
    let value = value(flag, Some(given))?;
    let found = match &value {
        Value::Map(_) => return Ok(value),
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Int(_) | Value::Float(_) => "a number",
        Value::Str(_) => "a text",
        Value::List(_) => "a list",
    };
    Err(Problem::invalid(format!("the input is a mapping, not {found}"))
        .hint(format!("name the value that the machine takes, for example `{flag} '{{\"topic\": \"tides\"}}'`")))
}

fn parse(text: &[u8], from: &str) -> Result<Value, Problem> {
    let text = std::str::from_utf8(text).map_err(|error| {
        Problem::invalid(format!("{from} is not UTF-8 text: byte {} is wrong", error.valid_up_to()))
            .hint("save the input as UTF-8")
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let value = json::read_unique(text).map_err(|error| match &error {
        Unread::Malformed(error) if error.is_data() => {
            Problem::invalid(format!("{from}: {error}")).hint("name each key once, and write numbers that are finite")
        }
        Unread::Malformed(error) => {
            let hint = match from.starts_with("`--") {
                true => "quote the JSON for your shell, or put it into a file and write `@FILE`",
                false => "it has to be one JSON document; `jq . FILE` shows where it is none",
            };
            Problem::invalid(format!("{from} is not valid JSON: {error}")).hint(hint)
        }
        Unread::Inexact { .. } => Problem::invalid(format!("{from}: {error}")).hint(error.hint().unwrap_or_default()),
    })?;
    let depth = value.depth();
    if depth > VALUE_DEPTH_MAX {
        return Err(Problem::invalid(format!("{from} is nested {depth} deep; the limit is {VALUE_DEPTH_MAX}")));
    }
    Ok(value)
}

fn read_file(flag: &str, path: &Path) -> Result<Vec<u8>, Problem> {
    let file = std::fs::File::open(path)
        .map_err(|error| Problem::invalid(format!("cannot read `{}` of `{flag}`: {error}", path.display())))?;
    read_all(flag, file, &path.display().to_string())
}

fn read_all(flag: &str, from: impl Read, name: &str) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    from.take(VALUE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Problem::invalid(format!("cannot read {name} of `{flag}`: {error}")))?;
    if bytes.len() > VALUE_BYTES_MAX {
        return Err(Problem::invalid(format!("{name} is larger than {} MiB", VALUE_BYTES_MAX >> 20))
            .hint("pass a reference to the data, such as a path or an address, instead of the data"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_may_be_given_as_text() {
        assert_eq!(value("--input", None).expect("null"), Value::Null);
        assert_eq!(value("--input", Some("{\"a\":1}")).expect("json").get("a"), Some(&Value::Int(1)));
    }

    #[test]
    fn an_input_is_a_mapping() {
        assert_eq!(mapping("--input", "{}").expect("a mapping"), Value::empty_map());
        for (given, found) in
            [("null", "null"), ("true", "a boolean"), ("1", "a number"), ("\"a\"", "a text"), ("[1]", "a list")]
        {
            let problem = mapping("--input", given).expect_err("no mapping");
            assert_eq!(problem.message, format!("the input is a mapping, not {found}"));
            assert_eq!(problem.exit, crate::exit::Exit::Invalid);
        }
    }

    #[test]
    fn what_is_no_json_is_refused_with_its_place() {
        let problem = value("--input", Some("{\"a\":")).expect_err("broken");
        assert!(problem.message.contains("line 1 column 5"), "{problem}");
        assert!(parse(b"\xff", "stdin").expect_err("bytes").message.contains("byte 0"));
        let twice = value("--input", Some("{\n\"a\": 1, \"a\": 2}")).expect_err("twice");
        assert_eq!(twice.message, "`--input`: the key `a` is given twice at line 2 column 11");
        let large = value("--data", Some("{\"id\": 12345678901234567890}")).expect_err("large");
        assert!(large.message.contains("12345678901234567890 at line 1 column 8"), "{large}");
        let deep = format!("{}{}", "[".repeat(110), "]".repeat(110));
        assert!(parse(deep.as_bytes(), "x").expect_err("deep").message.contains("110 deep"));
        let deeper = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(parse(deeper.as_bytes(), "x").is_err());
    }
}
