//! Bodies written and answers read, without a network.

use super::*;
use crate::wire::{request_of, tool_turn};

fn json(text: &str) -> Value {
    Value::from_json(text).expect("JSON")
}

fn body(request: &ModelRequest) -> Value {
    let body = Gemini.body(request, StructuredOutput::Schema).expect("sayable");
    Gemini.prove(&body).expect("valid");
    body
}

#[test]
fn answers_of_tools_are_one_turn_in_the_order_of_the_calls() {
    let attached = json(r#"{"gemini":{"calls":["sig1",null],"ids":true}}"#);
    let mut request = request_of("gemini", "gemini-3-pro", tool_turn(attached));
    request.params = json(r#"{"temperature":0.5,"top_p":0.9,"stop":"END","safetySettings":[]}"#);
    let want = r#"{"systemInstruction":{"parts":[{"text":"s"}]},"contents":[{"role":"user","parts":[{"text":"u"}]},{"role":"model","parts":[{"functionCall":{"id":"a.1","name":"x","args":{}},"thoughtSignature":"sig1"},{"functionCall":{"id":"b","name":"y","args":{}}}]},{"role":"user","parts":[{"functionResponse":{"id":"a.1","name":"x","response":{"result":"r"}}},{"functionResponse":{"id":"b","name":"y","response":{"error":"r"}}}]}],"safetySettings":[],"generationConfig":{"temperature":0.5,"topP":0.9,"stopSequences":["END"],"maxOutputTokens":77}}"#;
    assert_eq!(body(&request).to_json(), want);
}

#[test]
fn calls_of_other_models_are_marked_where_a_signature_is_wanted() {
    let text = |model: &str| body(&request_of("gemini", model, tool_turn(Value::Null))).to_json();
    assert_eq!(text("gemini-3-flash").matches(UNSIGNED).count(), 1);
    assert_eq!(text("gemini-2.5-flash").matches(UNSIGNED).count(), 0);
}

#[test]
fn models_and_streams_are_part_of_the_address() {
    let mut request = request_of("gemini", "gemini-2.5-flash", vec![]);
    assert_eq!(Gemini.place(&request), Place::at("models/gemini-2.5-flash:generateContent"));
    (request.stream, request.model) = (true, "tunedModels/mine".into());
    let place = Gemini.place(&request);
    assert_eq!(place.segments, ["tunedModels", "mine:streamGenerateContent"]);
    assert_eq!(place.query, Some(("alt", "sse")));
}

#[test]
fn schemas_are_sent_where_no_tools_are() {
    let mut request = request_of("gemini", "gemini-2.5-flash", vec![Message::User { content: "u".into() }]);
    request.output_schema = Some(json(r#"{"type":"object"}"#));
    let config = body(&request).get("generationConfig").map(Value::to_json);
    let want = r#"{"maxOutputTokens":77,"responseMimeType":"application/json","responseJsonSchema":{"type":"object"}}"#;
    assert_eq!(config.as_deref(), Some(want));
}

#[test]
fn stops_for_odd_reasons_are_no_answers() {
    let stopped = |reason: &str| {
        Gemini.answer(&json(&format!(r#"{{"candidates":[{{"content":{{"parts":[]}},"finishReason":"{reason}"}}]}}"#)))
    };
    assert!(matches!(stopped("MALFORMED_FUNCTION_CALL"), Err(Fault::Malformed(_))));
    assert_eq!(stopped("RECITATION").map(|a| a.finish), Ok(Finish::ContentFilter));
    let blocked =
        Gemini.answer(&json(r#"{"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"promptTokenCount":3}}"#));
    assert_eq!(blocked.map(|a| (a.finish, a.usage.input)), Ok((Finish::ContentFilter, Some(3))));
    assert!(matches!(Gemini.answer(&json(r#"{"candidates":[]}"#)), Err(Fault::Truncated(_))));
}
