//! What a machine hands to a child whose contract has an envelope: a goal, facts and references that the contract names, and
//! the limits that the child was given. Nothing else crosses. What comes back is bounded too: a larger output is cut, and
//! says so.

use crate::budget::{Ceilings, Meter};
use crate::file;
use crate::ids::{Name, RunId};
use crate::limits::REFERENCE_BYTES_MAX;
use crate::run::Terms;
use crate::value::{Map, Value};

/// What the child is to do.
pub const GOAL: &str = "goal";
/// What it is told.
pub const FACTS: &str = "facts";
/// What it may look at: files, and names of what is kept elsewhere.
pub const REFS: &str = "refs";
/// What it may use: said by the engine.
pub const LIMITS: &str = "limits";

/// The envelope of a contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handoff {
    /// The facts that may cross, by name.
    pub facts: Vec<Name>,
    /// The references that may cross, by name.
    pub refs: Vec<Name>,
    /// Bytes of all of it at most, as JSON without the contents of files.
    pub bytes: u64,
}

impl Handoff {
    /// Whether an input is such an envelope, and no more.
    ///
    /// # Errors
    /// What of it may not cross, in words.
    pub fn check(&self, input: &Value) -> Result<(), String> {
        let Some(map) = input.as_map() else { return Err(format!("it is {}, not a mapping", input.type_name())) };
        if let Some(other) = map.keys().find(|key| ![GOAL, FACTS, REFS].contains(&&***key)) {
            return Err(format!("`{other}` is no part of it: only `goal`, `facts` and `refs` cross"));
        }
        if map.get(GOAL).and_then(Value::as_str).is_none_or(|goal| goal.trim().is_empty()) {
            return Err("its `goal` is no text that says something".to_owned());
        }
        for (part, names) in [(FACTS, &self.facts), (REFS, &self.refs)] {
            let entries = match map.get(part) {
                None | Some(Value::Null) => continue,
                Some(Value::Map(entries)) => entries,
                Some(other) => return Err(format!("its `{part}` are {}, not a mapping", other.type_name())),
            };
            if let Some(other) = entries.keys().find(|key| !names.contains(key)) {
                return Err(format!("`{other}` is not among the `{part}` that the contract names"));
            }
            for (name, value) in entries.iter() {
                match part {
                    FACTS if file::is_in(value) => {
                        return Err(format!("the fact `{name}` holds a file: name it in `refs`"));
                    }
                    REFS if !is_reference(value) => {
                        return Err(format!(
                            "the reference `{name}` is no file and no text of up to {REFERENCE_BYTES_MAX} bytes"
                        ));
                    }
                    _ => {}
                }
            }
        }
        let bytes = file::without_contents(input).to_json().len() as u64;
        if bytes > self.bytes {
            return Err(format!("it has {bytes} bytes, and the contract allows {}", self.bytes));
        }
        Ok(())
    }
}

/// Whether a value stands for something that is kept elsewhere: a file, a name, or some of them.
fn is_reference(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Str(text) => text.len() <= REFERENCE_BYTES_MAX,
        Value::List(list) => list.iter().all(is_reference),
        Value::Map(_) => file::is_file(value),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) => false,
    }
}

/// An envelope with what the child may use, by the names that contracts have for it.
#[must_use]
pub fn with_limits(input: &Value, bounds: &Ceilings, terms: &Terms) -> Value {
    let mut limits = Map::new();
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            limits.insert(key.into(), value);
        }
    };
    for (key, meter) in [
        ("max_steps", Meter::Steps),
        ("max_model_calls", Meter::ModelCalls),
        ("max_tool_calls", Meter::ToolCalls),
        ("max_tokens", Meter::Tokens),
        ("max_launches", Meter::Launches),
    ] {
        put(key, bounds.get(meter).map(Value::count));
    }
    put("max_cost", bounds.cost_micros.and_then(|micros| Value::float(micros as f64 / 1_000_000.0)));
    put("timeout", bounds.wall_ms.and_then(|ms| Value::float(ms as f64 / 1_000.0)));
    put("max_depth", bounds.depth.map(|depth| Value::count(u64::from(depth))));
    put("max_output_bytes", terms.output_bytes.map(Value::count));
    let mut map = input.as_map().cloned().unwrap_or_default();
    map.insert(LIMITS.into(), Value::map(limits));
    Value::map(map)
}

/// What a run gives whose output is larger than its contract allows: that it is cut, how large it is, its hash, the run
/// that has the whole, and the beginning of it as text.
#[must_use]
pub fn cut_output(output: &Value, bytes_max: u64, run: &RunId) -> Value {
    let text = output.to_json();
    let (bytes, digest) = (Value::count(text.len() as u64), Value::str(output.digest().to_string()));
    let most = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    let make = |start: &str| {
        Value::object([
            ("truncated", Value::Bool(true)),
            ("bytes", bytes.clone()),
            ("bytes_max", Value::count(bytes_max)),
            ("digest", digest.clone()),
            ("run", Value::str(run.as_str())),
            // The mark by which a hidden value is known that is cut in the middle.
            ("text", Value::str(format!("{start}…"))),
        ])
    };
    beginning(&text, most, make, |value| value.to_json().len() <= most)
}

/// A value made of as much of the beginning of a text as fits.
#[must_use]
pub fn beginning(text: &str, bytes_max: usize, make: impl Fn(&str) -> Value, fits: impl Fn(&Value) -> bool) -> Value {
    let mut most = bytes_max.min(text.len());
    loop {
        let value = make(&text[..text.floor_char_boundary(most)]);
        if fits(&value) || most == 0 {
            return value;
        }
        // What has to be escaped takes more room than it has bytes.
        most = most * 7 / 8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handoff() -> Handoff {
        Handoff { facts: vec!["region".into()], refs: vec!["report".into()], bytes: 200 }
    }

    fn refused(json: &str) -> String {
        handoff().check(&Value::from_json(json).expect("JSON")).expect_err("refused")
    }

    #[test]
    fn only_what_the_contract_names_crosses() {
        let fits = |json: &str| handoff().check(&Value::from_json(json).expect("JSON"));
        assert_eq!(fits(r#"{"goal":"look","facts":{"region":{"a":[1]}},"refs":{"report":["r-1","s3://x"]}}"#), Ok(()));
        assert_eq!(fits(r#"{"goal":"look","facts":null}"#), Ok(()));
        assert!(refused(r#"{"goal":"look","secret":1}"#).contains("`secret`"));
        assert!(refused(r#"{"goal":"look","limits":{}}"#).contains("`limits`"));
        assert!(refused(r#"{"goal":" "}"#).contains("goal"));
        assert!(refused(r#"{"facts":{}}"#).contains("goal"));
        assert!(refused(r#""look""#).contains("text"));
        assert!(refused(r#"{"goal":"look","facts":["region"]}"#).contains("`facts`"));
        assert!(refused(r#"{"goal":"look","facts":{"password":"x"}}"#).contains("`password`"));
        assert!(refused(r#"{"goal":"look","refs":{"region":"x"}}"#).contains("`region`"));
        assert!(refused(r#"{"goal":"look","refs":{"report":{"whole":"text"}}}"#).contains("`report`"));
        assert!(refused(r#"{"goal":"look","refs":{"report":7}}"#).contains("`report`"));
        assert!(refused(&format!(r#"{{"goal":"{}"}}"#, "x".repeat(300))).contains("allows 200"));
    }

    #[test]
    fn files_cross_by_reference_and_their_contents_do_not_count() {
        let report = file::File::new("report.csv", &[b'a'; 10_000]).to_value();
        let input = |part: &str, name: &str| {
            Value::object([(GOAL, Value::str("look")), (part, Value::object([(name, report.clone())]))])
        };
        let wide = Handoff { bytes: 500, ..handoff() };
        assert_eq!(wide.check(&input(REFS, "report")), Ok(()));
        assert!(wide.check(&input(FACTS, "region")).expect_err("a file").contains("refs"));
    }

    #[test]
    fn what_is_cut_says_so_and_fits() {
        let run = RunId::stored("r~1.0");
        let output = Value::object([("text", Value::str("ü\"\n".repeat(2_000)))]);
        for most in [1_024_u64, 2_000, 5_001] {
            let cut = cut_output(&output, most, &run);
            assert!(cut.to_json().len() as u64 <= most, "{most}");
            assert!(crate::label::is_cut(&cut));
            assert_eq!(cut.get("bytes"), Some(&Value::count(output.to_json().len() as u64)));
            assert_eq!(cut.get("digest"), Some(&Value::str(output.digest().to_string())));
            assert_eq!(cut.get("run"), Some(&Value::str("r~1.0")));
            let start = cut.get("text").and_then(Value::as_str).expect("text");
            let start = start.strip_suffix('…').expect("it says that it is cut");
            assert!(start.len() > 200 && output.to_json().starts_with(start));
        }
    }
}
