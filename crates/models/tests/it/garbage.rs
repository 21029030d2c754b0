//! Whatever a provider sends: a reply or a failure, never a panic.

use proptest::prelude::*;
use windlass_core::value::Value;
use windlass_models::errors::ProviderError;

use crate::formats::{Format, aws, lines as ndjson};
use crate::http::ask;
use crate::server::Act;

/// Answers with the right keys and anything under them.
fn shapes() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        ".{0,6}".prop_map(Value::str),
        prop::sample::select(vec!["text", "tool_use", "stop", "message_stop", "message_delta", "{\"a\":1}"])
            .prop_map(Value::str),
    ];
    let keys = [
        "choices",
        "message",
        "delta",
        "content",
        "tool_calls",
        "function",
        "arguments",
        "name",
        "id",
        "index",
        "finish_reason",
        "usage",
        "prompt_tokens",
        "completion_tokens",
        "type",
        "content_block",
        "input",
        "stop_reason",
        "error",
        "text",
        "output_tokens",
        "input_tokens",
        "output",
        "response",
        "status",
        "item",
        "candidates",
        "parts",
        "functionCall",
        "args",
        "finishReason",
        "usageMetadata",
        "toolUse",
        "stopReason",
        "done",
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        let pairs = prop::collection::vec((prop::sample::select(keys.to_vec()), inner.clone()), 0..6);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::list),
            pairs.prop_map(|p| Value::map(p.into_iter().map(|(k, v)| (k.into(), v)).collect())),
        ]
    })
}

/// Asks a format, whole and streamed in each framing, for the same bytes.
fn survives(format: Format, whole: &str, stream: &[u8]) {
    let text = String::from_utf8_lossy(stream);
    let lines: Vec<String> = text.lines().map(|line| line.trim_start_matches("data: ").to_owned()).collect();
    let streamed = match format {
        Format::Bedrock => aws(&lines.iter().map(|line| ("contentBlockDelta", line.clone())).collect::<Vec<_>>()),
        Format::Ollama => ndjson(&lines),
        Format::OpenAi | Format::Anthropic | Format::Responses | Format::Gemini => Act::stream(stream),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        // An answer of any kind is fine; what counts is that there is one.
        let _whole = ask(format.provider(), Act::json(200, whole), false).await;
        let _streamed = ask(format.provider(), streamed, true).await;
    });
}

fn formats() -> impl Strategy<Value = Format> {
    prop::sample::select(Format::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn prop_answers_of_any_shape_are_survived(format in formats(), values in prop::collection::vec(shapes(), 1..5)) {
        let events: String = values.iter().map(|v| format!("data: {}\n\n", v.to_json())).collect();
        survives(format, &values[0].to_json(), events.as_bytes());
    }

    #[test]
    fn prop_any_bytes_are_survived(format in formats(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        survives(format, &String::from_utf8_lossy(&bytes), &bytes);
    }

    #[test]
    fn prop_error_bodies_of_any_shape_are_classified(status in 300_u16..600, value in shapes()) {
        let (failure, _) = ProviderError::from_body(Some(status), &value.to_json()).classify();
        prop_assert!(failure.message.len() < 2_000);
        prop_assert!(failure.status.is_some());
    }
}
