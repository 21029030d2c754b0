//! A conversation that goes from one model to another and back: each is sent a transcript that it takes, the first one with
//! what it signed itself, the other one with nothing that only the first could read.

use std::collections::BTreeMap;

use windlass::wire::{ProviderConfig, ProviderKind, Wiring};
use windlass::{Outcome, Windlass};
use windlass_core::contract::{Class, Contract, Idempotency};
use windlass_core::failure::Code;
use windlass_core::journal::{Entry, Record};
use windlass_core::value::Value;
use windlass_tools::FnTool;

use super::desk::{Act, Server, openai};
use super::{answered, failed, links};

const CATALOG: &str = "
version: house-1
models:
- {name: first, provider: two, model: claude-haiku-4-5, base_url: 'URL', tier: strong, output_tokens: 2000, params: {thinking: {type: enabled, budget_tokens: 1024}}}
- {name: second, provider: one, model: gpt-4o, base_url: 'URL', tier: fast, output_tokens: 50}
chains:
- name: answers
  links: [{model: first, breaker: {calls_min: 1000, window: 1000}}, {model: second}]
";

const MACHINE: &str = r#"
spec: flatmachine
spec_version: "4.2.1"
data:
  name: swaps
  settings: {tools: [look]}
  agents:
    asker: {spec: flatagent, spec_version: "4.2.1", data: {model: {provider: chain, name: answers, stream: false}, system: S, user: ask}}
  states:
    ask: {type: initial, agent: asker, tool_loop: {max_turns: 6}, output_to_context: {r: output.content}, transitions: [{to: end}]}
    end: {type: final, output: {r: context.r}}
"#;

fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value.get(key).and_then(Value::as_list).unwrap_or_default()
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn turns(body: &Value) -> usize {
    list(body, "messages").iter().filter(|message| text(message, "role") == "assistant").count()
}

/// The first model: thinks, signs it, and asks for a tool; is down in every second turn.
fn first(body: &Value) -> Act {
    let turn = turns(body);
    if turn % 2 == 1 {
        return Act::json(529, r#"{"type":"error","error":{"type":"overloaded_error","message":"busy"}}"#);
    }
    let last = format!(r#"{{"type":"text","text":"done after {turn}"}}"#);
    let call = format!(r#"{{"type":"tool_use","id":"tu_{turn}","name":"look","input":{{"n":{turn}}}}}"#);
    let (then, why) = if turn == 4 { (last, "end_turn") } else { (call, "tool_use") };
    Act::json(
        200,
        &format!(
            r#"{{"id":"m","content":[{{"type":"thinking","thinking":"thought {turn}","signature":"signed-{turn}"}},{then}],"stop_reason":"{why}","usage":{{"input_tokens":20,"output_tokens":5}}}}"#
        ),
    )
}

/// The second model: asks for the tool.
fn second(body: &Value) -> Act {
    let turn = turns(body);
    if turn > 3 {
        return openai("not asked");
    }
    Act::json(
        200,
        &format!(
            r#"{{"id":"c","model":"m","choices":[{{"message":{{"role":"assistant","content":null,"tool_calls":[{{"id":"call_{turn}","type":"function","function":{{"name":"look","arguments":"{{\"n\":{turn}}}"}}}}]}},"finish_reason":"tool_calls"}}],"usage":{{"prompt_tokens":20,"completion_tokens":5}}}}"#
        ),
    )
}

/// What the first model would refuse: turns that do not alternate, a call without its result right after it, a thought that
/// it did not sign, or one of its own that is gone while its call is still there.
fn first_takes(body: &Value) {
    let messages = list(body, "messages");
    for (place, message) in messages.iter().enumerate() {
        assert_eq!(text(message, "role"), if place % 2 == 0 { "user" } else { "assistant" }, "{body:?}");
        let blocks = list(message, "content");
        let of = |kind: &str| -> Vec<&Value> { blocks.iter().filter(|block| text(block, "type") == kind).collect() };
        let calls: Vec<&str> = of("tool_use").iter().map(|call| text(call, "id")).collect();
        if !calls.is_empty() {
            let results = list(&messages[place + 1], "content");
            let results: Vec<&str> = results.iter().map(|result| text(result, "tool_use_id")).collect();
            assert_eq!(results, calls, "{body:?}");
        }
        let thoughts: Vec<(&str, &str)> =
            of("thinking").iter().map(|thought| (text(thought, "thinking"), text(thought, "signature"))).collect();
        match calls.first().and_then(|id| id.strip_prefix("tu_")) {
            Some(turn) => {
                assert_eq!(thoughts, [(&*format!("thought {turn}"), &*format!("signed-{turn}"))], "{body:?}");
                assert_eq!(text(&blocks[0], "type"), "thinking", "before everything else");
            }
            None => assert!(thoughts.is_empty(), "{body:?}"),
        }
    }
}

/// What the second model would refuse: a call without its result, a result without its call. And what it is not to see.
fn second_takes(body: &Value) {
    let mut open: Vec<&str> = Vec::new();
    for message in list(body, "messages") {
        if text(message, "role") == "tool" {
            let at = open.iter().position(|id| *id == text(message, "tool_call_id")).expect("a result of a call");
            open.remove(at);
        } else {
            assert_eq!(open, [""; 0], "results come first: {body:?}");
        }
        open.extend(list(message, "tool_calls").iter().map(|call| text(call, "id")));
    }
    assert_eq!(open, [""; 0], "{body:?}");
    let all = body.to_json();
    assert!(!all.contains("signed-") && !all.contains("thought "), "{all}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_goes_to_another_model_and_back_twice() {
    let server = Server::start(|path, body| if path.ends_with("messages") { first(body) } else { second(body) });
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("models.yml"), CATALOG.replace("URL", &server.url)).expect("written");
    let two = ProviderConfig { kind: Some(ProviderKind::Anthropic), ..ProviderConfig::default() };
    let wiring = Wiring {
        folder: folder.path().to_owned(),
        models: Some("models.yml".into()),
        providers: BTreeMap::from([("one".to_owned(), ProviderConfig::default()), ("two".to_owned(), two)]),
        environment: std::sync::Arc::new(|name| name.ends_with("_API_KEY").then(|| "key".into())),
        ..Wiring::default()
    };
    let contract = Contract { class: Class::Read, idempotency: Idempotency::Natural, ..Contract::undeclared("look") };
    let look = FnTool::sync(contract, |call| Ok(call.arguments.get("n").cloned().unwrap_or_default()));
    let windlass = Windlass::builder().wiring(wiring).tool(look).build().await.expect("built");
    let outcome = windlass.run_text(MACHINE, Value::empty_map()).await.expect("runs");
    let Outcome::Completed { output, run_id, .. } = &outcome else { panic!("{outcome:?}") };
    assert_eq!(text(output, "r"), "done after 4");
    let rows = windlass.engine().parts().store.journal(run_id.clone(), 0, 1_000).await.expect("a journal");
    let entries: Vec<Entry> =
        rows.iter().flat_map(|row| Record::decode(&row.bytes).expect("a record").entries).collect();
    let tools = |entry: &&Entry| matches!(entry, Entry::CallIntended { call, .. } if call.route.is_none());
    assert_eq!(entries.iter().filter(tools).count(), 4, "a call of the tool after each turn but the last");
    let models: Vec<Entry> = entries.into_iter().filter(|entry| !is_of_tool(entry)).collect();
    let away = failed("first", Code::ProviderUnavailable);
    let there = answered("first");
    let other = answered("second");
    assert_eq!(links(&models), [there.clone(), away.clone(), other.clone(), there.clone(), away, other, there]);

    let seen = server.seen();
    let (of_first, of_second): (Vec<_>, Vec<_>) = seen.iter().partition(|(path, _)| path.ends_with("messages"));
    assert_eq!((of_first.len(), of_second.len()), (5, 2));
    of_first.iter().for_each(|(_, body)| first_takes(body));
    of_second.iter().for_each(|(_, body)| second_takes(body));
    let last = of_first.last().expect("a request").1.to_json();
    assert!(last.contains("signed-0") && last.contains("signed-2"), "both of its own turns, as it signed them: {last}");
}

/// Whether an entry belongs to a call of the tool.
fn is_of_tool(entry: &Entry) -> bool {
    match entry {
        Entry::CallIntended { call, .. } => call.route.is_none(),
        Entry::CallSettled { outcome, .. } => matches!(outcome, windlass_core::effect::Outcome::Returned(_)),
        _ => false,
    }
}
