//! Bodies written and answers read, without a network.

use super::*;
use crate::wire::{request_of, tool_turn};

fn json(text: &str) -> Value {
    Value::from_json(text).expect("JSON")
}

fn body(request: &ModelRequest) -> Value {
    let body = Responses.body(request, StructuredOutput::Schema).expect("sayable");
    Responses.prove(&body).expect("valid");
    body
}

#[test]
fn conversations_are_items_and_nothing_is_kept() {
    let reasoning = r#"[{"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":"e"}]"#;
    let attached = Value::object([("openai-responses", json(reasoning))]);
    let mut request = request_of("openai-responses", "gpt-5", tool_turn(attached.clone()));
    request.params = json(r#"{"reasoning_effort":"low","reasoning":{"summary":"auto"},"max_completion_tokens":900}"#);
    let want = r#"{"model":"gpt-5","input":[{"role":"system","content":"s"},{"role":"user","content":"u"},{"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":"e"},{"type":"function_call","call_id":"a_1","name":"x","arguments":"{}"},{"type":"function_call","call_id":"b","name":"y","arguments":"{}"},{"type":"function_call_output","call_id":"b","output":"r"},{"type":"function_call_output","call_id":"a_1","output":"r"}],"store":false,"include":["reasoning.encrypted_content"],"reasoning":{"summary":"auto","effort":"low"},"max_output_tokens":77}"#;
    assert_eq!(body(&request).to_json(), want);
    let other = request_of("someone-else", "gpt-4o", tool_turn(attached));
    assert!(!body(&other).to_json().contains("rs_1"), "what another provider attached stays away");
}

#[test]
fn schemas_are_a_format_of_the_text() {
    let mut request = request_of("openai-responses", "gpt-4o", vec![Message::User { content: "u".into() }]);
    request.output_schema = Some(json(r#"{"type":"object","properties":{}}"#));
    let want = r#"{"format":{"type":"json_schema","name":"output","strict":false,"schema":{"type":"object","properties":{}}}}"#;
    assert_eq!(body(&request).get("text").map(Value::to_json).as_deref(), Some(want));
}

#[test]
fn options_that_would_be_ignored_are_refused() {
    let mut request = request_of("openai-responses", "gpt-4o", vec![Message::User { content: "u".into() }]);
    request.params = json(r#"{"stop":["x"]}"#);
    assert!(matches!(Responses.body(&request, StructuredOutput::Off), Err(Fault::Unsayable(_))));
}

#[test]
fn an_answer_that_is_not_completed_is_none() {
    let status = |status: &str| Responses.answer(&json(&format!(r#"{{"status":"{status}","output":[]}}"#)));
    assert!(matches!(status("in_progress"), Err(Fault::Truncated(_))));
    assert!(matches!(status("cancelled"), Err(Fault::Truncated(_))));
    assert!(status("completed").is_ok());
}
