//! What stands in a cell: of an input, which values fit it; of an output, what it says.

use std::collections::BTreeSet;
use std::ops::Bound;

use indexmap::IndexSet;
use windlass_core::ids::Name;
use windlass_core::limits::TABLE_TEXT_BYTES_MAX;
use windlass_core::table::{Cell, Kind, Range};
use windlass_core::value::Value;

use crate::diagnostics::suggest;

/// What is wrong with a cell, and what to write.
pub(super) type Problem = (String, String);

/// Whole numbers up to here are compared exactly.
const EXACT: f64 = 9_007_199_254_740_992.0;
/// The comparisons, the longer ones before those that they begin with.
const COMPARISONS: [&str; 6] = ["<=", ">=", "!=", "<", ">", "="];

/// What an output says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    Value(Kind),
    /// The state that the run goes to.
    State,
}

impl Says {
    pub(super) fn parse(word: &str) -> Option<Self> {
        if word == "state" { Some(Self::State) } else { Kind::parse(word).map(Self::Value) }
    }
}

/// What fits a cell of an input.
pub(super) fn test(text: &str, kind: Kind) -> Result<Cell, Problem> {
    if matches!(text, "" | "-") {
        return Ok(Cell::any(kind));
    }
    let mut cell = Cell::none(kind);
    for part in parts(text) {
        let part = part.trim();
        let one = match part {
            "" | "-" => return wrong(format!("`{text}` has an empty part"), "write `a | b`, or `-` for anything"),
            "null" => Cell::null(kind),
            part => match kind {
                Kind::Number => numbers(part)?,
                Kind::Text => texts(part)?,
                Kind::Boolean => booleans(part)?,
            },
        };
        cell = cell.or(&one);
    }
    Ok(cell)
}

fn wrong<T>(message: String, advice: &str) -> Result<T, Problem> {
    Err((message, advice.to_owned()))
}

/// The parts of a cell between `|`, where that is not within quotes.
fn parts(text: &str) -> Vec<&str> {
    let (mut parts, mut start) = (Vec::new(), 0);
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            '|' if !is_quoted => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// The comparison that a part begins with, and the rest.
fn compared(part: &str) -> (&'static str, &str) {
    let found = COMPARISONS.iter().find_map(|sign| Some((*sign, part.strip_prefix(sign)?.trim())));
    found.unwrap_or(("=", part))
}

fn number(text: &str) -> Result<f64, Problem> {
    let advice =
        "write `3`, `= 3`, `!= 3`, `< 3`, `<= 3`, `> 3`, `>= 3`, `3..5`, `[3..5)`, several as `1 | 3..5`, or `-`";
    match text.trim().parse::<f64>() {
        Ok(number) if number.is_finite() && number.abs() <= EXACT => Ok(number),
        Ok(number) if number.is_finite() => {
            wrong(format!("`{text}` is too large to be compared exactly"), "write it as text")
        }
        Ok(_) | Err(_) => wrong(format!("`{text}` is no number"), advice),
    }
}

fn numbers(part: &str) -> Result<Cell, Problem> {
    if let Some((low, high)) = part.split_once("..") {
        let low = match (low.strip_prefix('['), low.strip_prefix('(')) {
            (_, Some(low)) => Bound::Excluded(number(low)?),
            (inner, None) => Bound::Included(number(inner.unwrap_or(low))?),
        };
        let high = match (high.strip_suffix(']'), high.strip_suffix(')')) {
            (_, Some(high)) => Bound::Excluded(number(high)?),
            (inner, None) => Bound::Included(number(inner.unwrap_or(high))?),
        };
        let range = Range { low, high };
        if range.is_empty() {
            return wrong(format!("no number is in `{part}`"), "write the smaller number first");
        }
        return Ok(Cell::numbers(vec![range]));
    }
    let (sign, rest) = compared(part);
    let number = number(rest)?;
    Ok(Cell::numbers(match sign {
        "<" => vec![Range::below(number, false)],
        "<=" => vec![Range::below(number, true)],
        ">" => vec![Range::above(number, false)],
        ">=" => vec![Range::above(number, true)],
        "!=" => vec![Range::below(number, false), Range::above(number, false)],
        _ => vec![Range::only(number)],
    }))
}

fn texts(part: &str) -> Result<Cell, Problem> {
    let (sign, rest) = compared(part);
    if matches!(sign, "<" | "<=" | ">" | ">=") {
        return wrong(
            format!("`{part}` compares text, which has no order"),
            "write the text in quotes if it begins so",
        );
    }
    Ok(Cell::texts(BTreeSet::from([text(rest)?]), sign == "!="))
}

/// A text as it stands, or in quotes as JSON has it.
fn text(part: &str) -> Result<Name, Problem> {
    let text: Name = if part.starts_with('"') {
        match serde_json::from_str::<String>(part) {
            Ok(text) => text.into(),
            Err(_) => return wrong(format!("`{part}` is no text in quotes"), "write it as in JSON"),
        }
    } else if part.is_empty() {
        return wrong("there is no text after the comparison".to_owned(), "write `\"\"` for a text of no characters");
    } else {
        part.into()
    };
    if text.len() > TABLE_TEXT_BYTES_MAX {
        return wrong(format!("the text has more than {TABLE_TEXT_BYTES_MAX} bytes"), "tables compare short texts");
    }
    Ok(text)
}

fn booleans(part: &str) -> Result<Cell, Problem> {
    let (sign, rest) = compared(part);
    let is_true = match (sign, rest) {
        ("=", "true") | ("!=", "false") => true,
        ("=", "false") | ("!=", "true") => false,
        _ => return wrong(format!("`{part}` is neither true nor false"), "write `true`, `false` or `-`"),
    };
    Ok(Cell::booleans(is_true, !is_true))
}

/// What a cell of an output says.
pub(super) fn said(cell: &str, says: Says, states: &IndexSet<Name>) -> Result<Value, Problem> {
    if matches!(cell, "" | "-") {
        return Ok(Value::Null);
    }
    match says {
        Says::State if states.contains(cell) => Ok(Value::str(cell)),
        Says::State => {
            let advice = suggest(cell, states.iter().map(|state| &**state)).unwrap_or_default();
            Err((format!("the state `{cell}` does not exist"), advice))
        }
        Says::Value(Kind::Text) => text(cell).map(Value::Str),
        Says::Value(Kind::Boolean) => match cell {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => wrong(format!("`{cell}` is neither true nor false"), "write `true`, `false` or nothing"),
        },
        Says::Value(Kind::Number) => match (cell.parse::<i64>(), cell.parse::<f64>().ok().and_then(Value::float)) {
            (Ok(whole), _) => Ok(Value::Int(whole)),
            (Err(_), Some(number)) => Ok(number),
            (Err(_), None) => wrong(format!("`{cell}` is no number"), "an output is one value, such as `3`"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(text: &str, kind: Kind, values: &[&str]) -> Vec<bool> {
        let cell = test(text, kind).unwrap_or_else(|problem| panic!("{text}: {problem:?}"));
        values.iter().map(|value| cell.holds(&Value::from_json(value).expect("JSON"))).collect()
    }

    #[test]
    fn numbers_are_compared_at_their_edges() {
        let at = |text: &str| {
            fits(text, Kind::Number, &["2", "3", "4.5", "5", "null"]).iter().map(|b| u8::from(*b)).collect::<Vec<_>>()
        };
        for (text, expected) in [
            ("3", [0, 1, 0, 0, 0]),
            ("= 3.0", [0, 1, 0, 0, 0]),
            ("!= 3", [1, 0, 1, 1, 0]),
            ("<3", [1, 0, 0, 0, 0]),
            ("<= 3", [1, 1, 0, 0, 0]),
            ("> 3", [0, 0, 1, 1, 0]),
            (">=3", [0, 1, 1, 1, 0]),
            ("3..5", [0, 1, 1, 1, 0]),
            ("[3..5)", [0, 1, 1, 0, 0]),
            ("(3..5]", [0, 0, 1, 1, 0]),
            ("-1..2 | > 4.5", [1, 0, 0, 1, 0]),
            ("null | 5", [0, 0, 0, 1, 1]),
            ("-", [1, 1, 1, 1, 1]),
            ("", [1, 1, 1, 1, 1]),
        ] {
            assert_eq!(at(text), expected, "{text}");
        }
    }

    #[test]
    fn texts_and_truth_values_are_compared() {
        let values = [r#""low""#, r#""a | b""#, r#""<3""#, r#""""#, "null"];
        assert_eq!(fits("low", Kind::Text, &values), [true, false, false, false, false]);
        assert_eq!(fits("!= low", Kind::Text, &values), [false, true, true, true, false]);
        assert_eq!(fits(r#"low | "a | b" | "<3""#, Kind::Text, &values), [true, true, true, false, false]);
        assert_eq!(fits(r#""" | null"#, Kind::Text, &values), [false, false, false, true, true]);
        assert_eq!(fits("!= true", Kind::Boolean, &["true", "false", "null"]), [false, true, false]);
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_advice() {
        for (text, kind) in [
            ("high", Kind::Number),
            ("< ", Kind::Number),
            ("5..3", Kind::Number),
            ("(3..3)", Kind::Number),
            ("1e400", Kind::Number),
            ("9007199254740993000", Kind::Number),
            ("1 | | 2", Kind::Number),
            ("< low", Kind::Text),
            ("\"low", Kind::Text),
            ("!=", Kind::Text),
            ("yes", Kind::Boolean),
            ("> true", Kind::Boolean),
        ] {
            let (message, advice) = test(text, kind).expect_err(text);
            assert!(!message.is_empty() && !advice.is_empty(), "{text}");
        }
    }

    #[test]
    fn an_output_is_one_value() {
        let states: IndexSet<Name> = ["panel".into()].into_iter().collect();
        let says = |text: &str, says| said(text, says, &states);
        assert_eq!(says("3", Says::Value(Kind::Number)), Ok(Value::Int(3)));
        assert_eq!(says("0.5", Says::Value(Kind::Number)), Ok(Value::Float(0.5)));
        assert_eq!(says("-", Says::Value(Kind::Number)), Ok(Value::Null));
        assert_eq!(says(r#""-""#, Says::Value(Kind::Text)), Ok("-".into()));
        assert_eq!(says("panel", Says::State), Ok("panel".into()));
        assert!(says("pannel", Says::State).expect_err("no state").1.contains("panel"));
        assert!(says("1..2", Says::Value(Kind::Number)).is_err());
        assert!(says("yes", Says::Value(Kind::Boolean)).is_err());
    }
}
