//! Bodies written and answers read, without a network.

use super::*;

fn request(messages: Vec<Message>) -> ModelRequest {
    wire::request_of("anthropic", "claude-sonnet-4-5", messages)
}

fn json(text: &str) -> Value {
    Value::from_json(text).expect("JSON")
}

fn user(text: &str) -> Message {
    Message::User { content: text.into() }
}

fn body(request: &ModelRequest) -> Value {
    Anthropic.body(request, StructuredOutput::Schema).expect("sayable")
}

#[test]
fn turns_alternate_and_instructions_stand_apart() {
    let calls = vec![
        ToolRequest { id: "c1".into(), name: "t".into(), arguments: json(r#"{"n":1}"#) },
        ToolRequest { id: "c2".into(), name: "t".into(), arguments: Value::str("{oops") },
    ];
    let thinking = json(r#"{"anthropic":[{"type":"thinking","thinking":"hm","signature":"sig"}],"openai":{"x":1}}"#);
    let mut request = request(vec![
        Message::System { content: "one".into() },
        Message::System { content: "two".into() },
        user("u"),
        Message::Assistant { content: "".into(), tool_calls: calls, attachments: thinking },
        Message::Tool { call_id: "c1".into(), content: "1".into(), is_error: false },
        Message::Tool { call_id: "c2".into(), content: "no".into(), is_error: true },
        user("go on"),
    ]);
    request.tools = vec![ToolDefinition { name: "t".into(), description: "d".into(), parameters: Value::Null }];
    request.params = json(r#"{"temperature":0.5,"stop":"END","seed":3}"#);
    let want = r#"{"model":"claude-sonnet-4-5","max_tokens":77,"system":"one\n\ntwo","messages":[{"role":"user","content":[{"type":"text","text":"u"}]},{"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"sig"},{"type":"tool_use","id":"c1","name":"t","input":{"n":1}},{"type":"tool_use","id":"c2","name":"t","input":{"invalid_arguments":"{oops"}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"c1","content":"1"},{"type":"tool_result","tool_use_id":"c2","content":"no","is_error":true},{"type":"text","text":"go on"}]}],"tools":[{"name":"t","description":"d","input_schema":{"type":"object"}}],"temperature":0.5,"seed":3,"stop_sequences":["END"]}"#;
    assert_eq!(body(&request).to_json(), want);
}

#[test]
fn schemas_go_to_models_that_take_them() {
    let mut request = request(vec![user("u")]);
    request.output_schema = Some(json(r#"{"type":"object","properties":{"a":{"type":"integer","minimum":1}}}"#));
    request.params = json(r#"{"output_config":{"effort":"low"}}"#);
    let want = r#"{"effort":"low","format":{"type":"json_schema","schema":{"type":"object","properties":{"a":{"type":"integer"}},"additionalProperties":false}}}"#;
    assert_eq!(body(&request).get("output_config").map(Value::to_json).as_deref(), Some(want));
    request.params = Value::Null;
    request.model = "claude-3-5-haiku-20241022".into();
    assert_eq!(body(&request).get("output_config"), None);
}

#[test]
fn answers_are_read() {
    let answer = Anthropic
        .answer(&json(
            r#"{"id":"msg_1","model":"m","stop_reason":"tool_use","content":[
              {"type":"thinking","thinking":"hm","signature":"s"},{"type":"text","text":" a"},
              {"type":"tool_use","id":"t1","name":"x","input":{"n":1}}],
              "usage":{"input_tokens":2,"cache_creation_input_tokens":3,"cache_read_input_tokens":4,"output_tokens":5}}"#,
        ))
        .expect("an answer");
    assert_eq!((answer.content.as_str(), answer.has_content, answer.finish), (" a", true, Finish::ToolUse));
    assert_eq!(answer.tool_calls[0].arguments.to_json(), r#"{"n":1}"#);
    assert_eq!(answer.attachments.to_json(), r#"[{"type":"thinking","thinking":"hm","signature":"s"}]"#);
    let want = Usage { input: Some(2), cache_read: Some(4), cache_write: Some(3), output: Some(5), reasoning: None };
    assert_eq!(answer.usage, want);
}

#[test]
fn stop_reasons_are_told_apart() {
    let finish = |reason: &str| {
        let text = format!(r#"{{"stop_reason":"{reason}","content":[{{"type":"text","text":"x"}}]}}"#);
        Anthropic.answer(&json(&text)).expect("an answer").finish
    };
    assert_eq!(finish("end_turn"), Finish::Stop);
    assert_eq!(finish("stop_sequence"), Finish::Stop);
    assert_eq!(finish("max_tokens"), Finish::Length);
    assert_eq!(finish("refusal"), Finish::ContentFilter);
    let none = Anthropic.answer(&json(r#"{"content":[],"stop_reason":null}"#));
    assert!(matches!(none, Err(Fault::Truncated(_))));
    assert!(matches!(Anthropic.answer(&json("{}")), Err(Fault::Malformed(_))));
    let error = Anthropic.answer(&json(r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#));
    assert!(matches!(error, Err(Fault::Refused(_))));
}

#[test]
fn thinking_survives_a_stream_for_the_next_request() {
    let mut assembler = Anthropic.stream();
    let mut over = false;
    for data in [
        r#"{"type":"message_start","message":{"id":"m1","model":"m","usage":{"input_tokens":7,"output_tokens":1}}}"#,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"he"}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"m"}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"sig"}}"#,
        r#"{"type":"content_block_stop","index":0}"#,
        r#"{"type":"ping"}"#,
        r#"{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"t","name":"n","input":{}}}"#,
        r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":""}}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"output_tokens":9}}"#,
        r#"{"type":"message_stop"}"#,
    ] {
        over = assembler.event(&crate::frames::Event { name: String::new(), data: data.into() }).expect("an event");
    }
    assert!(over);
    let answer = assembler.finish().expect("an answer");
    assert_eq!(answer.attachments.to_json(), r#"[{"type":"thinking","thinking":"hem","signature":"sig"}]"#);
    assert_eq!(answer.tool_calls[0].arguments, Value::empty_map());
    assert_eq!((answer.usage.input, answer.usage.output), (Some(7), Some(9)));
    assert_eq!((answer.has_content, answer.finish), (false, Finish::ToolUse));
}

#[test]
fn ids_of_other_providers_are_taken() {
    let call = ToolRequest { id: "functions.t:0".into(), name: "t".into(), arguments: Value::empty_map() };
    let request = request(vec![
        user("u"),
        Message::Assistant { content: "x".into(), tool_calls: vec![call], attachments: Value::Null },
        Message::Tool { call_id: "functions.t:0".into(), content: "1".into(), is_error: false },
    ]);
    let body = body(&request).to_json();
    assert!(body.contains(r#""id":"functions_t_0""#) && body.contains(r#""tool_use_id":"functions_t_0""#), "{body}");
}
