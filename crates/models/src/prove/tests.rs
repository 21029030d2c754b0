//! The proofs refuse what is not valid, and every renderer gives what they accept, whichever providers took part.

use proptest::prelude::*;
use windlass_core::transcript::{Message, ToolRequest};

use super::*;
use crate::wire::{self, Wire};

fn says(proof: fn(&Value) -> Result<(), Fault>, text: &str) -> bool {
    proof(&Value::from_json(text).expect("JSON")).is_ok()
}

#[test]
fn turns_alternate_and_answers_follow_their_calls() {
    let user = r#"{"role":"user","content":[{"type":"text","text":"u"}]}"#;
    let call = r#"{"role":"assistant","content":[{"type":"tool_use","id":"a","name":"t","input":{}}]}"#;
    let answer = r#"{"role":"user","content":[{"type":"tool_result","tool_use_id":"a","content":""},{"type":"text","text":"x"}]}"#;
    let body = |turns: &[&str]| format!(r#"{{"messages":[{}]}}"#, turns.join(","));
    assert!(says(anthropic, &body(&[user, call, answer])));
    assert!(!says(anthropic, &body(&[user, call])), "unanswered");
    assert!(!says(anthropic, &body(&[user, call, user])), "unanswered before the next turn");
    assert!(!says(anthropic, &body(&[call, answer])), "the user begins");
    assert!(!says(anthropic, &body(&[user, user])), "alternation");
    assert!(!says(anthropic, &body(&[user, answer])), "no call");
    assert!(!says(anthropic, &body(&[])), "empty");
    let blank = r#"{"role":"user","content":[{"type":"text","text":" "}]}"#;
    assert!(!says(anthropic, &body(&[blank])), "blank text");
}

#[test]
fn items_of_responses_stand_in_order() {
    let body = |items: &str| format!(r#"{{"input":[{{"role":"user","content":"u"}},{items}]}}"#);
    let call = r#"{"type":"function_call","call_id":"a","name":"t","arguments":"{}"}"#;
    let output = r#"{"type":"function_call_output","call_id":"a","output":""}"#;
    let reasoning = r#"{"type":"reasoning","id":"r","summary":[]}"#;
    assert!(says(responses, &body(&format!("{reasoning},{call},{output}"))));
    assert!(!says(responses, &body(call)));
    assert!(!says(responses, &body(output)));
    assert!(!says(responses, &body(reasoning)));
    assert!(!says(responses, &body(&format!("{reasoning},{}", r#"{"role":"user","content":"u"}"#))));
}

#[test]
fn answers_without_ids_stand_in_the_order_of_their_calls() {
    let call = |name: &str| format!(r#"{{"functionCall":{{"name":"{name}","args":{{}}}}}}"#);
    let answer = |name: &str| format!(r#"{{"functionResponse":{{"name":"{name}","response":{{}}}}}}"#);
    let body = |asked: &[&str], answered: &[&str]| {
        let parts = |names: &[&str], part: &dyn Fn(&str) -> String| {
            names.iter().map(|name| part(name)).collect::<Vec<_>>().join(",")
        };
        format!(
            r#"{{"contents":[{{"role":"user","parts":[{{"text":"u"}}]}},{{"role":"model","parts":[{}]}},{{"role":"user","parts":[{}]}}]}}"#,
            parts(asked, &call),
            parts(answered, &answer)
        )
    };
    assert!(says(gemini, &body(&["a", "b"], &["a", "b"])));
    assert!(!says(gemini, &body(&["a", "b"], &["b", "a"])));
    assert!(!says(gemini, &body(&["a", "b"], &["a"])));
    let chat = |tool: &str| {
        format!(
            r#"{{"messages":[{{"role":"user","content":"u"}},{{"role":"assistant","tool_calls":[{{"function":{{"name":"a"}}}}]}},{{"role":"tool","tool_name":"{tool}","content":""}}]}}"#
        )
    };
    assert!(says(ollama, &chat("a")) && !says(ollama, &chat("b")));
}

/// What one side of a random conversation does next.
#[derive(Clone, Debug)]
enum Part {
    /// The user speaks.
    User,
    /// A model of a provider answers: with text or not, with calls of some ids, answered in an order.
    Model { by: usize, says: bool, calls: Vec<(String, bool)>, turned: bool, failed: bool },
}

/// Every provider: its name, its wire format, and a model that attaches something.
const WIRES: [(&str, &dyn Wire, &str); 6] = [
    ("openai", &crate::openai::OpenAi, "gpt-4o"),
    ("anthropic", &crate::anthropic::Anthropic, "claude-sonnet-4-5"),
    ("openai-responses", &crate::responses::Responses, "gpt-5"),
    ("gemini", &crate::gemini::Gemini, "gemini-3-pro"),
    ("bedrock", &crate::bedrock::Bedrock, "anthropic.claude"),
    ("ollama", &crate::ollama::Ollama, "llama3.2"),
];

fn part() -> impl Strategy<Value = Part> {
    let id = prop_oneof!["[a-z]{1,3}", "call[:./ ][a-z]", "toolu_[a-z]{60,80}", "ä[a-c]"];
    let calls = prop::collection::vec((id, any::<bool>()), 0..4);
    prop_oneof![
        1 => Just(Part::User),
        3 => (0..WIRES.len(), any::<bool>(), calls, any::<bool>(), any::<bool>()).prop_map(
            |(by, says, calls, turned, failed)| Part::Model { by, says, calls, turned, failed }
        ),
    ]
}

fn mark(provider: &str) -> String {
    format!("mark<{provider}>")
}

/// What a provider attaches to an answer with so many calls.
fn attached(by: usize, says: bool, calls: usize) -> Value {
    let (provider, ..) = WIRES[by];
    let sign = Value::str(mark(provider));
    let text = match provider {
        "openai" => format!(r#"{{"reasoning_details":[{{"data":{}}}]}}"#, sign.to_json()),
        "anthropic" => format!(r#"[{{"type":"thinking","thinking":"t","signature":{}}}]"#, sign.to_json()),
        "openai-responses" => format!(r#"[{{"type":"reasoning","id":"r","encrypted_content":{}}}]"#, sign.to_json()),
        "gemini" if says => format!(r#"{{"text":{}}}"#, sign.to_json()),
        "gemini" => Value::object([("calls", Value::list(vec![sign; calls]))]).to_json(),
        "bedrock" => {
            format!(r#"[{{"reasoningContent":{{"reasoningText":{{"text":"t","signature":{}}}}}}}]"#, sign.to_json())
        }
        // It is sent back inside a tool loop only.
        _ if calls == 0 => return Value::Null,
        _ => format!(r#"{{"thinking":{}}}"#, sign.to_json()),
    };
    Value::object([(provider, Value::from_json(&text).expect("JSON"))])
}

/// The conversation, as the engine would have recorded it.
fn transcript(parts: &[Part]) -> Vec<Message> {
    let user = || Message::User { content: "u".into() };
    let mut messages = vec![Message::System { content: "s".into() }, user()];
    for part in parts {
        let Part::Model { by, says, calls, turned, failed } = part else {
            messages.push(user());
            continue;
        };
        let says = *says || calls.is_empty();
        let mut tool_calls: Vec<ToolRequest> = calls
            .iter()
            .map(|(id, mapped)| ToolRequest {
                id: id.as_str().into(),
                name: format!("t_{}", id.len()).into(),
                arguments: if *mapped { Value::object([("n", Value::Int(1))]) } else { Value::str("{oops") },
            })
            .collect();
        wire::distinct_ids(&mut tool_calls, &format!("call_{}", messages.len()));
        let mut answers: Vec<Message> = tool_calls
            .iter()
            .map(|call| Message::Tool { call_id: call.id.clone(), content: "r".into(), is_error: *failed })
            .collect();
        if *turned {
            answers.reverse();
        }
        let attachments = attached(*by, says, tool_calls.len());
        let content = if says { "a" } else { "" }.into();
        messages.push(Message::Assistant { content, tool_calls, attachments });
        messages.extend(answers);
    }
    messages.push(user());
    messages
}

proptest! {
    /// A conversation that went through any providers in any order is valid for each of them; what one attached comes
    /// back to it and goes to nobody else; and the same conversation is the same bytes.
    #[test]
    fn prop_conversations_move_between_providers(parts in prop::collection::vec(part(), 0..8)) {
        let messages = transcript(&parts);
        for (provider, wire, model) in WIRES {
            let request = wire::request_of(provider, model, messages.clone());
            let body = wire.body(&request, wire.structured_output()).expect("sayable");
            if let Err(fault) = wire.prove(&body) {
                return Err(TestCaseError::fail(format!("{provider}: {fault:?}: {}", body.to_json())));
            }
            let text = body.to_json();
            for (other, ..) in WIRES {
                let has = |m: &Message| matches!(m, Message::Assistant { attachments, .. } if attachments.get(other).is_some());
                let expected = other == provider && messages.iter().any(has);
                prop_assert_eq!(text.contains(&mark(other)), expected, "{} in {}: {}", other, provider, text);
            }
            prop_assert_eq!(wire.body(&request, wire.structured_output()).expect("sayable").to_json(), text);
        }
    }
}
