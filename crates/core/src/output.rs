//! Structured output: finding the JSON in what a model wrote.

use crate::json::{self, Unread};
use crate::value::Value;

/// The JSON value in a text: inside the first code fence, else the first `{` to the last `}` or `[` to `]`, whichever
/// opens first, else the whole text.
///
/// # Errors
/// A sentence that says why there is none.
pub(crate) fn extract_json(text: &str) -> Result<Value, String> {
    let candidate = fenced(text).or_else(|| span(text)).unwrap_or(text).trim();
    if candidate.is_empty() {
        return Err("the answer is empty".to_owned());
    }
    json::read(candidate).map_err(|error| match error {
        Unread::Malformed(error) => format!("the answer is not JSON: {error}"),
        Unread::Inexact { .. } => format!("{error}; write it as text"),
    })
}

fn fenced(text: &str) -> Option<&str> {
    let after = text.get(text.find("```")? + 3..)?;
    let body = after.strip_prefix("json").unwrap_or(after);
    let end = body.find("```")?;
    body.get(..end).map(str::trim)
}

fn span(text: &str) -> Option<&str> {
    let start = text.find(['{', '['])?;
    let close = if text[start..].starts_with('{') { '}' } else { ']' };
    let end = text.rfind(close)?;
    text.get(start..=end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_found_where_models_put_it() {
        for (text, want) in [
            (r#"{"a":1}"#, r#"{"a":1}"#),
            ("Sure!\n```json\n{\"a\": 1}\n```\nDone.", r#"{"a":1}"#),
            ("```\n[1, 2]\n```", "[1,2]"),
            (r#"The answer is {"a": {"b": 2}} I think"#, r#"{"a":{"b":2}}"#),
            ("list: [1,2] ok", "[1,2]"),
            ("42", "42"),
        ] {
            assert_eq!(extract_json(text).expect(text).to_json(), want);
        }
    }

    #[test]
    fn text_without_json_says_why() {
        assert!(extract_json("I cannot do that.").is_err());
        assert!(extract_json("").is_err());
        assert!(extract_json("{broken").is_err());
        let large = extract_json(r#"{"id": 12345678901234567890}"#).expect_err("digits would be lost");
        assert!(large.contains("12345678901234567890 at line 1 column 8"), "{large}");
    }
}
