//! Compares what came out of a case with what its author expects. Pure.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::case::Expect;

/// What came out of a case.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    /// The run's status word.
    pub status: String,
    /// Its output, when it completed.
    pub output: Json,
    /// The failure's code and message.
    pub error: Option<(String, String)>,
    /// States entered by the caller's run.
    pub states: Vec<String>,
    /// Calls by `kind.name`.
    pub effects: BTreeMap<String, u64>,
    /// Channels waited on.
    pub waits: Vec<String>,
    /// Cost.
    pub cost_micros: u64,
    /// Tokens.
    pub tokens: u64,
    /// Steps.
    pub steps: u64,
}

/// Every difference, as a sentence.
#[must_use]
pub(crate) fn differences(expect: &Expect, seen: &Seen) -> Vec<String> {
    let mut found = Vec::new();
    if expect.status() != seen.status {
        let why = seen.error.as_ref().map(|(code, message)| format!(" ({code}: {message})")).unwrap_or_default();
        found.push(format!("status: expected `{}`, got `{}`{why}", expect.status(), seen.status));
    }
    if let Some(pattern) = &expect.error {
        match &seen.error {
            None => found.push(format!("error: expected `{pattern}`, got none")),
            Some((code, _)) if code_fits(pattern, code) => {}
            Some((code, message)) => found.push(format!("error: expected `{pattern}`, got `{code}`: {message}")),
        }
    }
    if let Some(expected) = &expect.output {
        at_least("output", expected, &seen.output, &mut found);
    }
    if let Some(expected) = &expect.output_exactly
        && !equal(expected, &seen.output)
    {
        found.push(format!("output: expected exactly {expected}, got {}", seen.output));
    }
    if let Some(expected) = &expect.states
        && *expected != seen.states
    {
        found.push(format!("states: expected {}, got {}", expected.join(" → "), seen.states.join(" → ")));
    }
    for (name, expected) in expect.effects.iter().flatten() {
        let got = count(&seen.effects, name);
        if got != *expected {
            found.push(format!("effects: expected {expected} of `{name}`, got {got}"));
        }
    }
    for channel in expect.waits.iter().flatten() {
        if !seen.waits.contains(channel) {
            found.push(format!("waits: nothing waits on `{channel}`; open are {:?}", seen.waits));
        }
    }
    let bounds = [
        ("cost_micros", expect.cost_micros_max, seen.cost_micros),
        ("tokens", expect.tokens_max, seen.tokens),
        ("steps", expect.steps_max, seen.steps),
    ];
    for (name, bound, got) in bounds {
        if let Some(bound) = bound
            && got > bound
        {
            found.push(format!("{name}: expected at most {bound}, got {got}"));
        }
    }
    found
}

/// How often something was called: a kind and a name, or a kind alone.
fn count(effects: &BTreeMap<String, u64>, name: &str) -> u64 {
    if name.contains('.') {
        return effects.get(name).copied().unwrap_or_default();
    }
    effects.iter().filter(|(key, _)| key.split('.').next() == Some(name)).map(|(_, n)| n).sum()
}

fn code_fits(pattern: &str, code: &str) -> bool {
    match pattern.strip_suffix(".*") {
        Some(family) => code.split('.').next() == Some(family),
        None => pattern == code,
    }
}

fn at_least(path: &str, expected: &Json, got: &Json, found: &mut Vec<String>) {
    match (expected, got) {
        (Json::Object(expected), Json::Object(got)) => {
            for (key, inner) in expected {
                match got.get(key) {
                    Some(value) => at_least(&format!("{path}.{key}"), inner, value, found),
                    None => found.push(format!("{path}.{key}: expected {inner}, got nothing")),
                }
            }
        }
        (Json::Array(expected), Json::Array(got)) if expected.len() == got.len() => {
            for (index, (inner, value)) in expected.iter().zip(got).enumerate() {
                at_least(&format!("{path}[{index}]"), inner, value, found);
            }
        }
        _ if equal(expected, got) => {}
        _ => found.push(format!("{path}: expected {expected}, got {got}")),
    }
}

/// Equal by value: `1` and `1.0` are one number, the order of keys does not matter.
fn equal(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Json::Array(a), Json::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Json::Object(a), Json::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| equal(value, other)))
        }
        _ => a == b,
    }
}

/// What `--update` writes: what came out, for every key that the author gave.
#[must_use]
pub(crate) fn updated(expect: &Expect, seen: &Seen) -> Expect {
    let failed = seen.error.is_some();
    let raised = |bound: Option<u64>, got: u64| bound.map(|bound| bound.max(got));
    Expect {
        status: (seen.status != "completed" && !failed || seen.status == "cancelled").then(|| seen.status.clone()),
        output: (!failed && expect.output_exactly.is_none() && seen.status == "completed").then(|| seen.output.clone()),
        output_exactly: expect.output_exactly.as_ref().filter(|_| !failed).map(|_| seen.output.clone()),
        states: expect.states.as_ref().map(|_| seen.states.clone()),
        effects: expect
            .effects
            .as_ref()
            .map(|effects| effects.keys().map(|name| (name.clone(), count(&seen.effects, name))).collect()),
        error: seen.error.as_ref().map(|(code, _)| code.clone()),
        waits: expect.waits.as_ref().map(|_| seen.waits.clone()),
        cost_micros_max: raised(expect.cost_micros_max, seen.cost_micros),
        tokens_max: raised(expect.tokens_max, seen.tokens),
        steps_max: raised(expect.steps_max, seen.steps),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn seen() -> Seen {
        Seen {
            status: "completed".into(),
            output: json!({ "score": 9, "draft": { "text": "x", "words": 3 }, "tags": ["a", "b"] }),
            states: vec!["write".into(), "done".into()],
            effects: BTreeMap::from([("model.writer".into(), 2), ("model.critic".into(), 1), ("tool.send".into(), 1)]),
            cost_micros: 120,
            tokens: 50,
            steps: 2,
            ..Seen::default()
        }
    }

    fn expect(json: Json) -> Expect {
        serde_json::from_value(json).expect("valid")
    }

    #[test]
    fn an_output_may_hold_more_than_expected() {
        let good = expect(json!({ "output": { "score": 9.0, "draft": { "words": 3 }, "tags": ["a", "b"] } }));
        assert_eq!(differences(&good, &seen()), Vec::<String>::new());
        let bad = expect(json!({ "output": { "score": 8, "tags": ["a"], "no": 1 }, "output_exactly": {} }));
        assert_eq!(differences(&bad, &seen()).len(), 4);
    }

    #[test]
    fn calls_are_counted_by_name_and_by_kind() {
        let good = expect(json!({ "effects": { "model": 3, "model.writer": 2, "tool.other": 0 } }));
        assert_eq!(differences(&good, &seen()), Vec::<String>::new());
        let bad = expect(json!({ "effects": { "model.writer": 1 } }));
        assert_eq!(differences(&bad, &seen()), ["effects: expected 1 of `model.writer`, got 2"]);
    }

    #[test]
    fn failures_are_expected_by_code_or_family() {
        let mut failed = seen();
        failed.status = "failed".into();
        failed.error = Some(("provider.timeout".into(), "too slow".into()));
        assert_eq!(differences(&expect(json!({ "error": "provider.*" })), &failed), Vec::<String>::new());
        assert_eq!(differences(&expect(json!({ "error": "tool.*" })), &failed).len(), 1);
        assert_eq!(differences(&expect(json!({})), &failed).len(), 1);
    }

    #[test]
    fn what_was_updated_fits() {
        let before =
            expect(json!({ "output": { "score": 1 }, "states": [], "effects": { "tool": 9 }, "tokens_max": 1 }));
        let after = updated(&before, &seen());
        assert_eq!(differences(&after, &seen()), Vec::<String>::new());
        assert_eq!(after.effects, Some(BTreeMap::from([("tool".into(), 1)])));
    }
}
