//! Bodies written and answers read, without a network.

use windlass_core::machine::ToolDefinition;

use super::*;

fn request(messages: Vec<Message>) -> ModelRequest {
    wire::request_of("openai", "fake-model", messages)
}

fn json(text: &str) -> Value {
    Value::from_json(text).expect("JSON")
}

fn user(text: &str) -> Message {
    Message::User { content: text.into() }
}

fn body(request: &ModelRequest) -> Value {
    OpenAi.body(request, StructuredOutput::Object).expect("sayable")
}

fn answer(text: &str) -> Answer {
    OpenAi.answer(&json(text)).expect("an answer")
}

#[test]
fn every_parameter_reaches_the_wire() {
    let mut request = request(vec![Message::System { content: "s".into() }, user("u")]);
    request.params = json(
        r#"{"temperature":0.25,"top_p":0.9,"frequency_penalty":0.1,"presence_penalty":0.2,"seed":5,"stop":["END"],"reasoning":{"effort":"low"},"max_retries":0}"#,
    );
    let want = r#"{"model":"fake-model","messages":[{"role":"system","content":"s"},{"role":"user","content":"u"}],"temperature":0.25,"top_p":0.9,"frequency_penalty":0.1,"presence_penalty":0.2,"seed":5,"stop":["END"],"reasoning":{"effort":"low"},"max_tokens":77}"#;
    assert_eq!(body(&request).to_json(), want);
}

#[test]
fn the_same_request_has_the_same_bytes() {
    let request = request(vec![user("u")]);
    assert_eq!(body(&request).to_json(), body(&request.clone()).to_json());
}

#[test]
fn the_maximum_of_tokens_is_always_sent_and_never_raised() {
    let mut request = request(vec![user("u")]);
    request.params = json(r#"{"max_completion_tokens":1000}"#);
    assert_eq!(body(&request).get("max_completion_tokens"), Some(&Value::Int(77)));
    request.params = json(r#"{"max_completion_tokens":5}"#);
    assert_eq!(body(&request).get("max_completion_tokens"), Some(&Value::Int(5)));
    assert_eq!(body(&request).get("max_tokens"), None);
    request.params = Value::Null;
    request.model = "o3-mini".into();
    assert_eq!(body(&request).get("max_completion_tokens"), Some(&Value::Int(77)));
    request.params = json(r#"{"max_tokens":1000}"#);
    assert!(OpenAi.body(&request, StructuredOutput::Off).is_err());
}

#[test]
fn tool_calls_go_back_as_they_came() {
    let calls = vec![
        ToolRequest { id: "c1".into(), name: "t".into(), arguments: json(r#"{"b":1,"a":[true]}"#) },
        ToolRequest { id: "c2".into(), name: "t".into(), arguments: Value::str("{\"n\": 1,") },
    ];
    let attachments = json(r#"{"openai":{"reasoning_content":"hm"},"other":{"x":1}}"#);
    let mut request = request(vec![
        user("u"),
        Message::Assistant { content: "".into(), tool_calls: calls, attachments: attachments.clone() },
        Message::Tool { call_id: "c1".into(), content: "1".into(), is_error: false },
        Message::Tool { call_id: "c2".into(), content: "no".into(), is_error: true },
        Message::Assistant { content: "done".into(), tool_calls: vec![], attachments },
    ]);
    request.tools = vec![ToolDefinition { name: "t".into(), description: "".into(), parameters: Value::Null }];
    let body = body(&request);
    let want = r#"[{"role":"user","content":"u"},{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"t","arguments":"{\"b\":1,\"a\":[true]}"}},{"id":"c2","type":"function","function":{"name":"t","arguments":"{\"n\": 1,"}}],"reasoning_content":"hm"},{"role":"tool","tool_call_id":"c1","content":"1"},{"role":"tool","tool_call_id":"c2","content":"no"},{"role":"assistant","content":"done"}]"#;
    assert_eq!(body.get("messages").map(Value::to_json).as_deref(), Some(want));
    assert_eq!(
        body.get("tools").map(Value::to_json).as_deref(),
        Some(r#"[{"type":"function","function":{"name":"t"}}]"#)
    );
}

#[test]
fn output_schemas_are_sent_as_the_server_takes_them() {
    let mut request = request(vec![user("u")]);
    let open = json(r#"{"type":"object","properties":{"a":{"type":"integer"}}}"#);
    let closed = json(r#"{"type":"object","properties":{},"additionalProperties":false}"#);
    let format = |request: &ModelRequest, how| {
        OpenAi.body(request, how).expect("sayable").get("response_format").map(Value::to_json)
    };
    request.output_schema = Some(open);
    assert_eq!(format(&request, StructuredOutput::Object).as_deref(), Some(r#"{"type":"json_object"}"#));
    assert_eq!(
        format(&request, StructuredOutput::Schema).as_deref(),
        Some(
            r#"{"type":"json_schema","json_schema":{"name":"output","strict":false,"schema":{"type":"object","properties":{"a":{"type":"integer"}}}}}"#
        )
    );
    assert_eq!(format(&request, StructuredOutput::Off), None);
    request.params = json(r#"{"response_format":{"type":"text"}}"#);
    assert_eq!(format(&request, StructuredOutput::Schema).as_deref(), Some(r#"{"type":"text"}"#));
    request.params = Value::Null;
    request.output_schema = Some(closed);
    assert!(format(&request, StructuredOutput::Schema).is_some_and(|f| f.contains(r#""strict":true"#)));
    request.tools = vec![ToolDefinition { name: "t".into(), description: "d".into(), parameters: Value::Null }];
    assert_eq!(format(&request, StructuredOutput::Object), None);
    request.output_schema = Some(json(r#"{"type":"array"}"#));
    assert_eq!(format(&request, StructuredOutput::Schema), None);
}

#[test]
fn answers_of_several_servers_are_read() {
    let text = answer(
        r#"{"id":"x","model":"m-1","choices":[{"message":{"role":"assistant","content":" hi \n"},"finish_reason":"stop"}],"usage":{"prompt_tokens":200,"completion_tokens":30,"prompt_tokens_details":{"cached_tokens":80},"completion_tokens_details":{"reasoning_tokens":12}}}"#,
    );
    assert_eq!((text.content.as_str(), text.has_content, text.finish), (" hi \n", true, Finish::Stop));
    let want =
        Usage { input: Some(120), cache_read: Some(80), cache_write: None, output: Some(30), reasoning: Some(12) };
    assert_eq!(text.usage, want);
    assert_eq!((text.id.as_deref(), text.model.as_deref()), (Some("x"), Some("m-1")));

    let null = answer(r#"{"choices":[{"message":{"content":null},"finish_reason":"stop"}]}"#);
    assert_eq!((null.content.as_str(), null.has_content, null.usage), ("", false, Usage::default()));
    let parts =
        answer(r#"{"choices":[{"message":{"content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}}]}"#);
    assert_eq!((parts.content.as_str(), parts.finish), ("ab", Finish::Stop));
    let refusal = answer(r#"{"choices":[{"message":{"content":null,"refusal":"no"},"finish_reason":"stop"}]}"#);
    assert_eq!((refusal.content.as_str(), refusal.finish), ("no", Finish::ContentFilter));
    let reasoned =
        answer(r#"{"choices":[{"message":{"content":"a","reasoning_content":"b","reasoning_details":[]}}]}"#);
    assert_eq!(reasoned.attachments.to_json(), r#"{"reasoning_content":"b"}"#);
}

#[test]
fn tool_calls_of_several_servers_are_read() {
    let calls = answer(
        r#"{"choices":[{"finish_reason":"stop","message":{"content":null,"tool_calls":[
          {"id":"c1","type":"function","function":{"name":"a","arguments":"{\"x\":1}"}},
          {"id":"c2","function":{"name":"b","arguments":{"y":2}}},
          {"function":{"name":"c","arguments":""}},
          {"id":"c4","function":{"name":"d","arguments":"[1]"}},
          {"id":"c5","function":{"name":"e"}}]}}]}"#,
    );
    let got: Vec<String> = calls.tool_calls.iter().map(|c| format!("{} {} {:?}", c.id, c.name, c.arguments)).collect();
    assert_eq!(got, [r#"c1 a {"x":1}"#, r#"c2 b {"y":2}"#, " c {}", r#"c4 d "[1]""#, "c5 e {}"]);
    assert_eq!(calls.finish, Finish::ToolUse);
}

#[test]
fn usage_that_makes_no_sense_is_unknown() {
    let usage = |text: &str| usage(Some(&json(text)));
    assert_eq!(usage(r#"{"prompt_tokens":-1,"completion_tokens":"x"}"#), Usage::default());
    assert_eq!(usage("null"), Usage::default());
    assert_eq!(usage(r#"{"prompt_tokens":5,"prompt_tokens_details":{"cached_tokens":9}}"#).input, Some(0));
    assert_eq!(usage(r#"{"completion_tokens":7}"#).output, Some(7));
}

#[test]
fn what_is_no_answer_is_malformed_and_errors_in_a_200_are_errors() {
    for bad in ["{}", "[]", "3", r#"{"choices":[]}"#, r#"{"choices":[{"message":null}]}"#] {
        assert!(matches!(OpenAi.answer(&json(bad)), Err(Fault::Malformed(_))), "{bad}");
    }
    let bad_call = r#"{"choices":[{"message":{"tool_calls":[{"id":"x"}]}}]}"#;
    assert!(matches!(OpenAi.answer(&json(bad_call)), Err(Fault::Malformed(_))));
    let error = OpenAi.answer(&json(r#"{"error":{"message":"overloaded","type":"server_error"}}"#));
    assert!(matches!(error, Err(Fault::Refused(_))));
}

#[test]
fn streams_of_several_servers_are_read() {
    let read = |chunks: &[&str]| {
        let mut assembler = OpenAi.stream();
        for chunk in chunks {
            let event = crate::frames::Event { name: "message".into(), data: (*chunk).into() };
            if assembler.event(&event).expect("a chunk") {
                return assembler.finish().expect("an answer");
            }
        }
        panic!("the stream has no end");
    };
    let end = [r#"{"choices":[{"delta":{},"finish_reason":"tool_calls"}]}"#, "[DONE]"];
    let by_index = [
        r#"{"choices":[{"delta":{"tool_calls":[{"index":1,"id":"b","function":{"name":"t","arguments":"{\"n\""}}]}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"t","arguments":"{}"}},{"index":1,"function":{"arguments":":2}"}}]}}]}"#,
    ];
    let answer = read(&[&by_index[..], &end[..]].concat());
    let ids: Vec<&str> = answer.tool_calls.iter().map(|c| &*c.id).collect();
    assert_eq!(ids, ["b", "a"]);
    assert_eq!(answer.tool_calls[0].arguments.to_json(), r#"{"n":2}"#);
    let without_index = [
        r#"{"choices":[{"delta":{"tool_calls":[{"id":"a","function":{"name":"t","arguments":"{\"n\""}}]}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":":1}"}}]}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"id":"b","function":{"name":"t","arguments":"{}"}}]}}]}"#,
    ];
    let answer = read(&[&without_index[..], &end[..]].concat());
    let got: Vec<String> = answer.tool_calls.iter().map(|c| format!("{}{:?}", c.id, c.arguments)).collect();
    assert_eq!(got, [r#"a{"n":1}"#, "b{}"]);
    let reasoning = [
        r#"{"choices":[{"delta":{"role":"assistant","content":"","reasoning_content":"he"}}]}"#,
        r#"{"choices":[{"delta":{"reasoning_content":"ll"}}]}"#,
        r#"{"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#,
        r#"{"choices":[],"usage":null}"#,
        "[DONE]",
    ];
    let answer = read(&reasoning);
    assert_eq!(
        (answer.content.as_str(), answer.attachments.to_json().as_str()),
        ("x", r#"{"reasoning_content":"hell"}"#)
    );
    assert_eq!((answer.usage.input, answer.usage.output), (Some(1), Some(2)));
}
