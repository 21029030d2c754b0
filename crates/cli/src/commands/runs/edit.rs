//! `--set PATH=VALUE` of `windlass runs fork`: a context with some of its values replaced.
//!
//! A path names keys with dots between, and elements of lists as `[0]` or `.0`: `items[0].name`, `items.0.name`.

use windlass_core::json::{self, Unread};
use windlass_core::label::{Label, Marks, Source, SourceKind};
use windlass_core::limits;
use windlass_core::value::{Map, Value};

use crate::exit::Problem;

/// The context with the values of `--set PATH=VALUE`.
///
/// # Errors
/// A text without `=`, a path that cannot be read or that leads through a scalar or past the end of a list, and a value
/// that is nested too deeply or cannot be kept exactly.
pub(super) fn changed(mut context: Value, sets: &[String]) -> Result<Value, Problem> {
    for set in sets {
        let (path, value) = set.split_once('=').filter(|(path, _)| !path.is_empty()).ok_or_else(|| {
            Problem::invalid(format!("`--set {set}`: write `PATH=VALUE`")).hint("for example `--set draft.tone=formal`")
        })?;
        let wrong = |why: String| Problem::invalid(format!("`--set {path}`: {why}"));
        let value = match json::read_unique(value) {
            Ok(value) => value,
            Err(Unread::Malformed(error)) if !error.is_data() => Value::str(value),
            Err(error) => return Err(wrong(error.to_string()).hint(error.hint().unwrap_or("name each key once"))),
        };
        if value.depth() > limits::VALUE_DEPTH_MAX {
            return Err(wrong("the value is nested too deeply".to_owned()));
        }
        let parts = parts(path).ok_or_else(|| {
            wrong("it is no path".to_owned())
                .hint("name keys with dots between, and elements of lists as `items[0].name` or `items.0.name`")
        })?;
        context = placed(&context, &parts, value)
            .map_err(|why| wrong(why).hint("`windlass runs show RUN --json` prints the context"))?;
    }
    Ok(context)
}

/// The labels of the context after the changes: what a person sets is from outside too.
pub(super) fn labelled(mut labels: Marks, sets: &[String]) -> Marks {
    let from = Source { kind: SourceKind::Person, name: "--set".into(), step: 0 };
    for (path, _) in sets.iter().filter_map(|set| set.split_once('=')) {
        let key = path.split(['.', '[']).next().unwrap_or_default();
        labels.add(vec![key.into()], Label::Untrusted, from.clone());
    }
    labels
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part<'a> {
    /// A key; of a list, the number of an element.
    Key(&'a str),
    /// An element of a list, in brackets.
    Index(usize),
}

/// The steps of a path. None for one with an empty step, or brackets that hold no number or are not closed.
fn parts(path: &str) -> Option<Vec<Part<'_>>> {
    let mut found = Vec::new();
    for step in path.split('.') {
        let (key, brackets) = step.split_once('[').map_or((step, None), |(key, rest)| (key, Some(rest)));
        if key.is_empty() {
            return None;
        }
        found.push(Part::Key(key));
        if let Some(brackets) = brackets {
            for index in brackets.strip_suffix(']')?.split("][") {
                found.push(Part::Index(number(index)?));
            }
        }
    }
    Some(found)
}

fn number(text: &str) -> Option<usize> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn placed(target: &Value, path: &[Part<'_>], value: Value) -> Result<Value, String> {
    let Some((first, rest)) = path.split_first() else { return Ok(value) };
    match (target, first) {
        (Value::List(items), part) => {
            let (index, shown) = match part {
                Part::Index(index) => (Some(*index), index.to_string()),
                Part::Key(key) => (number(key), (*key).to_owned()),
            };
            let index = index.ok_or_else(|| format!("`{shown}` is no number, and what is there is a list"))?;
            let old =
                items.get(index).ok_or_else(|| format!("there is no element {index}: the list has {}", items.len()))?;
            let new = placed(old, rest, value)?;
            let mut items = (**items).clone();
            items[index] = new;
            Ok(Value::list(items))
        }
        (Value::Map(_) | Value::Null, Part::Key(key)) => {
            let mut map = target.as_map().cloned().unwrap_or_else(Map::new);
            let inner = map.get(*key).cloned().unwrap_or_default();
            map.insert((*key).into(), placed(&inner, rest, value)?);
            Ok(Value::map(map))
        }
        (other, Part::Index(index)) => {
            Err(format!("`[{index}]` needs a list, and what is there is {}", other.type_name()))
        }
        (other, Part::Key(key)) => Err(format!("`{key}` needs a mapping, and what is there is {}", other.type_name())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(context: &str, sets: &[&str]) -> Result<serde_json::Value, String> {
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        let context = Value::from_json(context).expect("json");
        changed(context, &sets).map(|value| (&value).into()).map_err(|problem| problem.message)
    }

    #[test]
    fn set_changes_and_adds_values_at_any_depth() {
        let sets = ["draft.tone=formal", "n=2", "new.deep.list=[1,2]", "flag=true"];
        assert_eq!(
            set(r#"{"draft":{"tone":"warm"},"n":1}"#, &sets).expect("set"),
            json!({"draft": {"tone": "formal"}, "n": 2, "new": {"deep": {"list": [1, 2]}}, "flag": true})
        );
    }

    #[test]
    fn elements_of_lists_are_named_by_number() {
        let context = r#"{"items":[{"name":"a"},{"name":"b"}],"grid":[[1,2],[3]],"0":"key"}"#;
        let sets = ["items[0].name=x", "items.1.name=y", "grid[0][1]=9", "0=z"];
        assert_eq!(
            set(context, &sets).expect("set"),
            json!({"items": [{"name": "x"}, {"name": "y"}], "grid": [[1, 9], [3]], "0": "z"})
        );
    }

    #[test]
    fn what_is_not_there_or_not_written_rightly_is_refused() {
        let context = r#"{"n":1,"items":[1]}"#;
        for (wrong, why) in [
            ("n.inner=1", "`inner` needs a mapping, and what is there is number"),
            ("n[0]=1", "`[0]` needs a list"),
            ("items[1]=1", "there is no element 1: the list has 1"),
            ("items.x=1", "`x` is no number"),
            ("items[-1]=1", "it is no path"),
            ("items[0=1", "it is no path"),
            ("a..b=1", "it is no path"),
            ("nothing", "write `PATH=VALUE`"),
            ("n=99999999999999999999", "cannot be kept exactly"),
            (r#"n={"a":1,"a":2}"#, "given twice"),
        ] {
            let refused = set(context, &[wrong]).expect_err(wrong);
            assert!(refused.contains(why), "{wrong}: {refused}");
        }
    }
}
