//! What paths lead to, what is found again, and what goes to other runs.

use serde_json::json;

use super::*;
use crate::failure::Failure;
use crate::label::pointer;
use crate::redact::REDACTED;

fn paths(pointers: &[&str]) -> Vec<Vec<Name>> {
    pointers.iter().map(|text| pointer(text).expect("a pointer")).collect()
}

fn hidden(json: serde_json::Value, pointers: &[&str]) -> Hidden {
    Hidden::of(&json.into(), &paths(pointers))
}

#[test]
fn paths_lead_to_every_value_that_they_may_mean() {
    let value = json!({
        "card": {"number": "4111111111111111", "cvv": 123, "ok": true, "none": null, "empty": ""},
        "items": [{"iban": "DE02120300000000202051"}, {"iban": "DE02500105170137075030"}],
        "by_name": {"a": {"pin": "1111"}, "b": {"pin": "2222"}},
        "text": "{\"token\": \"t-0123456789\"}",
        "plain": "no JSON at all",
    });
    let count = |pointer: &str| hidden(value.clone(), &[pointer]).leaves.len();
    assert_eq!(count("/card/number"), 1);
    assert_eq!(count("/card"), 3, "everything below, but for what says nothing");
    assert_eq!(count("/items/*/iban"), 2);
    assert_eq!(count("/items/iban"), 2, "a key beside a list counts for each item");
    assert_eq!(count("/items/1/iban"), 1);
    assert_eq!(count("/by_name/*/pin"), 2);
    assert_eq!(count("/text/token"), 1);
    assert_eq!(hidden(value.clone(), &["/text/token"]).veil().shown("is t-0123456789"), format!("is {REDACTED}"));
    assert_eq!(hidden(value.clone(), &["/plain/token"]).veil().shown("no JSON at all!"), format!("{REDACTED}!"));
    assert_eq!(count("/absent/token"), 0);
    assert_eq!(hidden(json!("just a text"), &[""]).leaves.len(), 1);
    let cut = json!({"truncated": true, "bytes": 99, "text": "{\"token\": \"half of a tok"});
    assert_eq!(hidden(cut, &["/token"]).leaves.len(), 1);
}

#[test]
fn a_long_value_is_found_wherever_it_went() {
    let veil = hidden(json!({"token": "tok/en+value\"1"}), &["/token"]).veil();
    for text in [
        "say tok/en+value\"1 again",
        "{\"a\":\"tok/en+value\\\"1\"}",
        "?t=tok%2Fen%2Bvalue%221",
        "746f6b2f656e2b76616c75652231",
        "dG9rL2VuK3ZhbHVlIjE=",
    ] {
        let shown = veil.text(text).expect(text);
        assert!(shown.contains(REDACTED) && !shown.contains("value"), "{shown}");
    }
    assert_eq!(veil.text("nothing"), None);
    let mut json =
        json!({"other": ["x", "tok/en+value\"1"], "tok/en+value\"1": 1, "said": "{\"t\":\"tok/en+value\\\"1\"}"});
    veil.json(&mut json);
    assert_eq!(json["other"], json!(["x", REDACTED]));
    assert_eq!(json[REDACTED], json!(1));
    assert!(!json.to_string().contains("value"), "{json}");
    let lines = hidden(json!({"key": "-----BEGIN KEY-----\nabcdefghijkl\n-----END KEY-----"}), &["/key"]).veil();
    assert_eq!(lines.shown("failed: -----BEGIN KEY-----"), format!("failed: {REDACTED}"));
}

#[test]
fn a_short_value_is_found_where_it_can_be_told_from_others() {
    let veil = hidden(json!({"pin": "4711", "cvv": 123, "vip": true, "id": 900_001, "a": "b"}), &[""]).veil();
    assert_eq!(veil.shown("pin 4711, order-47110"), format!("pin {REDACTED}, order-47110"));
    let mut json = json!({
        "cvv": 123, "steps": 123, "vip": true, "done": true, "number": 900_001, "a": "b", "c": "b",
        "asked": "{\"cvv\":123,\"n\":123}",
    });
    veil.json(&mut json);
    assert_eq!(
        json,
        json!({
            "cvv": REDACTED, "steps": 123, "vip": REDACTED, "done": true, "number": REDACTED, "a": REDACTED, "c": "b",
            "asked": format!("{{\"cvv\":\"{REDACTED}\",\"n\":123}}"),
        })
    );
}

#[test]
fn what_is_stored_reads_back_and_is_itself_hidden() {
    let found = hidden(json!({"cvv": 123, "list": ["x1", 2.5]}), &["/cvv", "/list"]);
    let text = serde_json::to_string(&found).expect("stored");
    assert_eq!(serde_json::from_str::<Hidden>(&text).expect("read"), found, "{text}");
    let shown = found.veil().document(&json!({ "hidden": found }));
    assert_eq!(shown["hidden"]["leaves"], json!([{"cvv": REDACTED}, {"list": REDACTED}, {"list": REDACTED}]));
    assert!(!format!("{found:?} {:?}", found.veil()).contains("123"));
}

#[test]
fn only_what_another_run_may_hold_goes_there() {
    let found = hidden(json!({"token": "tok-123456", "cvv": 123, "pin": "9876"}), &[""]);
    let into = |json: serde_json::Value| found.within(&json.into()).leaves.len();
    assert_eq!(into(json!({"a": 1})), 0);
    assert_eq!(into(json!({"a": "Bearer tok-123456"})), 1);
    assert_eq!(into(json!({"cvv": 123})), 1);
    assert_eq!(into(json!({"n": 123})), 0);
    let failed = Ending::Failed { failure: Failure::new(Code::ToolFailed, "no: tok-123456, 9876"), state: None };
    assert_eq!(found.within_ending(&failed).leaves.len(), 2);
    assert!(found.clone().beyond(&found).is_empty());
}

#[test]
fn beyond_the_bound_nothing_is_shown() {
    let many: Vec<Value> = (0..=limits::HIDDEN_MAX).map(|n| Value::str(format!("value-{n}"))).collect();
    let mut found = Hidden::default();
    found.join(Hidden::of(&Value::list(many), &paths(&[""])));
    assert_eq!(format!("{found:?}"), "Hidden(0, all)");
    let shown = found.veil().document(&json!({"a": "b", "n": 1, "ok": true}));
    assert_eq!(shown, json!({"a": REDACTED, "n": REDACTED, "ok": true}));
    assert_eq!(found.veil().shown("x"), REDACTED);
    assert!(hidden(json!(["x", "y"]), &[""]).beyond(&found).is_empty());
}

#[test]
fn why_a_tool_failed_is_hidden_where_its_answers_are() {
    let failed = |code: Code| Outcome::Failed(Failure::new(code, "the tool said: tok-123456"));
    let count = |outcome: &Outcome, pointers: &[&str]| Hidden::of_outcome(outcome, &paths(pointers)).leaves.len();
    assert_eq!(count(&failed(Code::ToolFailed), &["/token"]), 1);
    assert_eq!(count(&failed(Code::ToolFailed), &[]), 0);
    assert_eq!(count(&failed(Code::ToolTimeout), &["/token"]), 0);
}

#[test]
fn a_model_does_not_choose_what_a_person_is_not_shown() {
    let paths = paths(&["/card"]);
    let asked: Value =
        json!({"card": {"number": "MALLORY-ACCOUNT-1", "n": 9_999_999}, "to": "MALLORY-ACCOUNT-1", "cents": 9_999_999})
            .into();
    let mut run = Hidden::of_chosen(&asked, &paths);
    run.join(hidden(json!({"pin": "12345678"}), &["/pin"]));
    let question = run.veil_of_questions();
    let shown = question.document(&masked(&asked, &paths));
    assert_eq!(shown, json!({"card": REDACTED, "to": "MALLORY-ACCOUNT-1", "cents": 9_999_999}));
    assert_eq!(question.shown("pin 12345678"), format!("pin {REDACTED}"), "what a tool had answered stays hidden");
    assert_eq!(run.veil().shown("to MALLORY-ACCOUNT-1"), format!("to {REDACTED}"), "everybody else sees none of it");
    let all = Hidden::of_chosen(&Value::list((0..=limits::HIDDEN_MAX as i64).map(Value::Int).collect()), &[vec![]]);
    assert_eq!((all.veil().shown("x"), all.veil_of_questions().shown("x")), (REDACTED.to_owned(), "x".to_owned()));
    let stored = serde_json::to_string(&run).expect("JSON");
    assert_eq!(serde_json::from_str::<Hidden>(&stored).expect("read"), run);
    assert!(run.clone().beyond(&run).is_empty());
    assert!(!run.within(&json!({"x": "MALLORY-ACCOUNT-1"}).into()).is_empty());
    assert!(run.within(&json!({"x": "nothing"}).into()).is_empty());
}

#[test]
fn parts_are_masked_by_their_paths() {
    let value: Value =
        json!({"a": [{"b": 1, "c": 2}, {"b": 3}], "t": "{\"x\": 1}", "n": null, "k": {"p": 1, "q": 2}}).into();
    let shown = |pointers: &[&str]| serde_json::Value::from(&masked(&value, &paths(pointers)));
    let rest = json!({"t": "{\"x\": 1}", "n": null, "k": {"p": 1, "q": 2}});
    let with = |mut changed: serde_json::Value| {
        for (key, inner) in rest.as_object().expect("a mapping") {
            changed.as_object_mut().expect("a mapping").entry(key.clone()).or_insert(inner.clone());
        }
        changed
    };
    let each = with(json!({"a": [{"b": REDACTED, "c": 2}, {"b": REDACTED}]}));
    assert_eq!((shown(&["/a/*/b"]), shown(&["/a/b"])), (each.clone(), each));
    assert_eq!(shown(&["/a/1"]), with(json!({"a": [{"b": 1, "c": 2}, REDACTED]})));
    assert_eq!(shown(&["/t/x", "/n"])["t"], REDACTED);
    assert_eq!(shown(&["/n"])["n"], json!(null));
    assert_eq!(shown(&["/k/*"])["k"], json!({"p": REDACTED, "q": REDACTED}));
    assert_eq!(shown(&[""]), json!(REDACTED));
}

#[test]
fn a_text_is_found_without_the_blanks_around_it() {
    let veil = hidden(json!({"code": "482913\n", "word": " hunter2\n"}), &["/code", "/word"]).veil();
    assert_eq!(veil.shown("use 482913 and hunter2."), format!("use {REDACTED} and {REDACTED}."));
    assert_eq!(veil.document(&json!({"word": " hunter2\n"})), json!({"word": REDACTED}));
}
