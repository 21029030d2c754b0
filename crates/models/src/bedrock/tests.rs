//! Bodies written and answers read, without a network.

use super::*;
use crate::wire::{request_of, tool_turn};

fn json(text: &str) -> Value {
    Value::from_json(text).expect("JSON")
}

fn body(request: &ModelRequest, structured: StructuredOutput) -> Value {
    let body = Bedrock.body(request, structured).expect("sayable");
    Bedrock.prove(&body).expect("valid");
    body
}

#[test]
fn turns_alternate_and_tools_called_earlier_stay_declared() {
    let attached = json(r#"{"bedrock":[{"reasoningContent":{"reasoningText":{"text":"t","signature":"g"}}}]}"#);
    let mut request = request_of("bedrock", "m", tool_turn(attached));
    request.params = json(r#"{"temperature":0.5,"top_k":4,"stop":"END","region":"eu-west-1"}"#);
    let want = r#"{"system":[{"text":"s"}],"messages":[{"role":"user","content":[{"text":"u"}]},{"role":"assistant","content":[{"reasoningContent":{"reasoningText":{"text":"t","signature":"g"}}},{"toolUse":{"toolUseId":"a_1","name":"x","input":{}}},{"toolUse":{"toolUseId":"b","name":"y","input":{}}}]},{"role":"user","content":[{"toolResult":{"toolUseId":"b","content":[{"text":"r"}],"status":"error"}},{"toolResult":{"toolUseId":"a_1","content":[{"text":"r"}],"status":"success"}}]}],"toolConfig":{"tools":[{"toolSpec":{"name":"x","description":"Called earlier in this conversation; not available any more.","inputSchema":{"json":{"type":"object"}}}},{"toolSpec":{"name":"y","description":"Called earlier in this conversation; not available any more.","inputSchema":{"json":{"type":"object"}}}}]},"inferenceConfig":{"temperature":0.5,"stopSequences":["END"],"maxTokens":77},"additionalModelRequestFields":{"top_k":4}}"#;
    assert_eq!(body(&request, StructuredOutput::Off).to_json(), want);
}

#[test]
fn a_schema_is_sent_whole_or_refused() {
    let mut request = request_of("bedrock", "m", vec![Message::User { content: "u".into() }]);
    request.output_schema = Some(json(r#"{"type":"object"}"#));
    let format = body(&request, StructuredOutput::Schema).get("outputConfig").map(Value::to_json);
    let want = r#"{"textFormat":{"type":"json_schema","structure":{"jsonSchema":{"name":"output","schema":"{\"type\":\"object\"}"}}}}"#;
    assert_eq!(format.as_deref(), Some(want));
    assert_eq!(body(&request, StructuredOutput::Off).get("outputConfig"), None);
    assert!(matches!(Bedrock.body(&request, StructuredOutput::Object), Err(Fault::Unsayable(_))));
}

#[test]
fn errors_in_the_place_of_an_answer_are_errors() {
    let error = Bedrock.answer(&json(r#"{"__type":"com.amazon.coral#ValidationException","message":"no"}"#));
    assert!(matches!(error, Err(Fault::Refused(e)) if e.kind.as_deref() == Some("ValidationException")));
    assert!(matches!(Bedrock.answer(&json("{}")), Err(Fault::Malformed(_))));
}
