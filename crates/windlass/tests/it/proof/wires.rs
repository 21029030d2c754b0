//! What the counting server says in each format that providers speak, and how a folder is made to use it.

use std::path::Path;

use serde_json::{Value, json};

use super::world::World;

/// Formats of providers, as `kind` of the configuration names them, and the end of the address of a call.
pub(super) const KINDS: [(&str, &str); 6] = [
    ("openai", "/chat/completions"),
    ("openai_responses", "/responses"),
    ("anthropic", "/messages"),
    ("gemini", ":generateContent"),
    ("bedrock", "/converse"),
    ("ollama", "/api/chat"),
];

/// The model that never answers.
pub(super) const DOWN: &str = "down";

/// The format of a call, when that is one that [`super::world`] does not speak itself.
pub(super) fn format(path: &str) -> Option<&'static str> {
    KINDS.into_iter().skip(1).find(|(_, end)| path.ends_with(end)).map(|(kind, _)| kind)
}

/// An answer in a format, as short as the format allows.
pub(super) fn reply(kind: &str) -> Value {
    let text = "taken";
    match kind {
        "openai_responses" => json!({
            "id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": "small",
            "output": [{"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
                "content": [{"type": "output_text", "text": text, "annotations": []}]}],
            "usage": {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
        }),
        "anthropic" => json!({
            "id": "msg_1", "type": "message", "role": "assistant", "model": "small",
            "content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "stop_sequence": null,
            "usage": {"input_tokens": 10, "output_tokens": 5}
        }),
        "gemini" => json!({
            "candidates": [{"content": {"parts": [{"text": text}], "role": "model"}, "index": 0, "finishReason": "STOP"}],
            "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15}
        }),
        "bedrock" => json!({
            "output": {"message": {"role": "assistant", "content": [{"text": text}]}}, "stopReason": "end_turn",
            "usage": {"inputTokens": 10, "outputTokens": 5, "totalTokens": 15}, "metrics": {"latencyMs": 1}
        }),
        "ollama" => json!({
            "model": "small", "created_at": "2026-01-01T00:00:00Z", "message": {"role": "assistant", "content": text},
            "done": true, "done_reason": "stop", "prompt_eval_count": 10, "eval_count": 5
        }),
        other => panic!("no format `{other}`"),
    }
}

/// What a request of any format asks for: the text `take N` in it.
pub(super) fn asked(body: &Value) -> String {
    let text = body.to_string();
    let at = text.find("take ").unwrap_or_else(|| panic!("no question in {text}"));
    text[at..].chars().take_while(|c| c.is_alphanumeric() || *c == ' ').collect()
}

/// Makes the provider of a folder speak a format.
pub(super) fn speak(folder: &Path, world: &World, kind: &str) {
    let text = format!("[providers.fake]\nkind = \"{kind}\"\nbase_url = \"http://{}/x\"\n", world.address);
    std::fs::write(folder.join("windlass.toml"), text).expect("a writable folder");
}

/// Makes a folder ask for streams.
pub(super) fn stream(folder: &Path) {
    let profiles = "spec: flatprofile\nspec_version: 4.2.1\ndata:\n  default: main\n  model_profiles:\n    main: {name: small, provider: fake, max_tokens: 100, stream: true}\n";
    std::fs::write(folder.join("profiles.yml"), profiles).expect("a writable folder");
}

/// The stream of chat completions that says the same as a whole answer.
pub(super) fn streamed(reply: &Value) -> String {
    let chunk = |choices: Value, usage: Value| {
        let chunk = json!({"id": reply["id"], "object": "chat.completion.chunk", "created": 1, "model": reply["model"],
            "choices": choices, "usage": usage});
        format!("data: {chunk}\n\n")
    };
    let choice = &reply["choices"][0];
    let delta = json!([{"index": 0, "delta": choice["message"], "finish_reason": null}]);
    let end = json!([{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]);
    let parts = [chunk(delta, Value::Null), chunk(end, Value::Null), chunk(json!([]), reply["usage"].clone())];
    format!("{}data: [DONE]\n\n", parts.concat())
}

/// Makes a folder ask a chain whose first link is down.
pub(super) fn chain(folder: &Path, world: &World) {
    speak(folder, world, "openai");
    let models = "version: proof\nmodels:\n\
        - {name: first, provider: fake, model: down, tier: strong, context_tokens: 1000, output_tokens: 100}\n\
        - {name: second, provider: fake, model: small, tier: fast, context_tokens: 1000, output_tokens: 100}\n\
        chains:\n- {name: answers, links: [{model: first}, {model: second}]}\n";
    let profiles = "spec: flatprofile\nspec_version: 4.2.1\ndata:\n  default: main\n  model_profiles:\n    main: {name: answers, provider: chain, max_tokens: 100}\n";
    std::fs::write(folder.join("models.yml"), models).expect("a writable folder");
    std::fs::write(folder.join("profiles.yml"), profiles).expect("a writable folder");
}
