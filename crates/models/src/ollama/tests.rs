//! Bodies written and answers read, without a network.

use super::*;
use crate::wire::{request_of, tool_turn};

fn json(text: &str) -> Value {
    Value::from_json(text).expect("JSON")
}

fn body(request: &ModelRequest) -> Value {
    let body = Ollama.body(request, StructuredOutput::Schema).expect("sayable");
    Ollama.prove(&body).expect("valid");
    body
}

#[test]
fn answers_of_tools_follow_in_the_order_of_the_calls() {
    let mut request = request_of("ollama", "m", tool_turn(json(r#"{"ollama":{"thinking":"hm"}}"#)));
    request.params = json(r#"{"temperature":0.5,"num_ctx":4096,"keep_alive":"5m","stop":"END"}"#);
    let want = r#"{"model":"m","messages":[{"role":"system","content":"s"},{"role":"user","content":"u"},{"role":"assistant","content":"","thinking":"hm","tool_calls":[{"function":{"name":"x","arguments":{}}},{"function":{"name":"y","arguments":{}}}]},{"role":"tool","tool_name":"x","content":"r"},{"role":"tool","tool_name":"y","content":"r"}],"stream":false,"keep_alive":"5m","options":{"temperature":0.5,"num_ctx":4096,"stop":["END"],"num_predict":77}}"#;
    assert_eq!(body(&request).to_json(), want);
}

#[test]
fn a_schema_is_the_format() {
    let mut request = request_of("ollama", "m", vec![Message::User { content: "u".into() }]);
    request.output_schema = Some(json(r#"{"type":"object"}"#));
    assert_eq!(body(&request).get("format").map(Value::to_json).as_deref(), Some(r#"{"type":"object"}"#));
}

#[test]
fn an_answer_says_that_it_is_done() {
    let answer = |text: &str| Ollama.answer(&json(text));
    let said = r#"{"model":"m","message":{"role":"assistant","content":"hi"},"done":true,"done_reason":"stop","prompt_eval_count":3,"eval_count":2}"#;
    assert_eq!(answer(said).map(|a| (a.finish, a.usage.total())), Ok((Finish::Stop, Some(5))));
    assert!(matches!(answer(&said.replace("true", "false")), Err(Fault::Truncated(_))));
    assert!(matches!(answer(&said.replace("stop", "load")), Err(Fault::Malformed(_))));
}
