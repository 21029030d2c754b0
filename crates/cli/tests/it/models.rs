//! What is known of models beside their answers: the day they retire, their price, how long a conversation they take.

use serde_json::{Value as Json, json};

use crate::kit::Place;

/// A machine whose agent asks a model of the catalog, with further settings.
fn machine(provider: &str, name: &str, settings: &str) -> String {
    format!(
        r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: asks
  settings: {settings}
  agents:
    writer:
      spec: flatagent
      spec_version: "4.2.1"
      data:
        name: writer
        model: {{ provider: {provider}, name: {name}, max_tokens: 100 }}
        system: You write one line.
        user: Write about the tides, as somebody who has seen them.
  states:
    write: {{type: initial, agent: writer, output_to_context: {{text: output.content}}, transitions: [{{to: done}}]}}
    done: {{type: final, output: {{text: "{{{{ context.text | default('nothing') }}}}", said: context.last_conversation}}}}
"#
    )
}

const CATALOG: &str = r"version: house-1
models:
- {name: main, provider: scripted, model: small, retires: 2025-01-01, replacement: newer}
- {name: newer, provider: scripted, model: small, context_tokens: 1000}
- {name: short, provider: scripted, model: short, context_tokens: 1}
- {name: gone, provider: scripted, model: other, retires: 2025-01-01}
- {name: dear, provider: chat, model: big, context_tokens: 1000, rates: {input: 2000000, output: 4000000}}
- {name: cheap, provider: chat, model: tiny, context_tokens: 1000, rates: {input: 1000000, output: 1000000}}
- {name: unpriced, provider: chat, model: free-of-price}
chains:
- {name: answers, links: [{model: dear}, {model: cheap}]}
- {name: half, links: [{model: cheap}, {model: unpriced}]}
";

/// Nothing listens there.
const CONFIG: &str = r#"models = "models.yml"
[providers.scripted]
script = "script.yml"
[providers.chat]
kind = "openai"
base_url = "http://127.0.0.1:1/v1"
"#;

fn place(provider: &str, name: &str, settings: &str, more: &str) -> Place {
    let place = Place::new();
    place.write("asks.yml", &machine(provider, name, settings));
    place.write("models.yml", CATALOG);
    place.write("windlass.toml", &format!("{CONFIG}{more}"));
    place
}

fn codes(place: &Place, strict: bool) -> (i32, Vec<Json>) {
    let args: &[&str] = &["validate", "asks.yml", "--json", "--strict"];
    let ran = place.windlass(if strict { args } else { &args[..3] });
    let told = ran.json();
    let found = told["diagnostics"].as_array().expect("findings").clone();
    assert_eq!(told["errors"].as_u64().zip(told["warnings"].as_u64()).map(|(a, b)| a + b), Some(found.len() as u64));
    (ran.code(), found)
}

#[test]
fn a_retired_model_is_a_finding_of_the_documents_that_use_it() {
    let place = place("catalog", "main", "{}", "");
    let (code, found) = codes(&place, false);
    assert_eq!((code, &found[0]["code"], found.len()), (0, &json!("retired_model"), 1), "{found:?}");
    let message = found[0]["message"].as_str().expect("a message");
    assert!(message.contains("retired on 2025-01-01; `newer` takes its place"), "{message}");
    assert_eq!(found[0]["line"], json!(12));
    assert_eq!(codes(&place, true).0, 2, "strict");
    assert_eq!(
        codes(&self::place("catalog", "newer", "{}", ""), true),
        (0, vec![]),
        "others retire, this one does not"
    );

    let ran = place.windlass(&["run", "asks.yml", "--run-id", "r"]);
    assert_eq!(ran.code(), 0, "{}", ran.shown());
    let journal = place.windlass(&["runs", "journal", "r", "--json"]).stdout();
    assert!(journal.contains("first; `main` retired on 2025-01-01"), "{journal}");
}

#[test]
fn a_model_of_unknown_length_is_told_of_where_conversations_are_kept_short() {
    let found = |settings: &str| codes(&place("catalog", "unpriced", settings, ""), false).1;
    let told = found("{conversation: {near_percent: 50}}");
    assert_eq!(told[0]["code"], "unmeasured_model", "{told:?}");
    assert_eq!(found("{conversation: {near_percent: 50, max_tokens: 1000}}"), Vec::<Json>::new());
    assert_eq!(found("{}"), Vec::<Json>::new());
}

#[test]
fn a_model_without_a_price_is_told_of_and_refused_where_money_has_a_ceiling() {
    let ceiling = "{max_cost: 1}";
    let allowed = place("catalog", "unpriced", ceiling, "");
    let (code, found) = codes(&allowed, false);
    assert_eq!((code, &found[0]["code"]), (0, &json!("unpriced_model")), "{found:?}");
    let message = found[0]["message"].as_str().expect("a message");
    assert_eq!(
        message,
        "the model `free-of-price` of `chat` has no price, so `max_cost` of the machine does not count it"
    );
    assert_eq!(codes(&place("catalog", "cheap", ceiling, ""), true), (0, vec![]), "it has a price");
    assert_eq!(codes(&place("catalog", "unpriced", "{}", ""), true), (0, vec![]), "money has no ceiling");
    assert_eq!(codes(&place("catalog", "newer", ceiling, ""), true), (0, vec![]), "scripts cost nothing");
    let failed = |place: &Place| {
        let ran = place.windlass(&["run", "asks.yml", "--json"]);
        ran.json()["error"]["code"].as_str().map(str::to_owned)
    };
    assert_eq!(failed(&allowed).as_deref(), Some("provider.unreachable"), "it was sent");
    let refuse = "[limits]\nunpriced = \"refuse\"\n";
    assert_eq!(failed(&place("catalog", "unpriced", ceiling, refuse)).as_deref(), Some("budget.exceeded"));
    assert_eq!(failed(&place("catalog", "unpriced", "{}", refuse)).as_deref(), Some("provider.unreachable"));
    let of_all = "[limits]\ncost_micros = 1000000\nunpriced = \"refuse\"\n";
    assert_eq!(failed(&place("catalog", "unpriced", "{}", of_all)).as_deref(), Some("budget.exceeded"));
}

#[test]
fn a_conversation_that_a_model_does_not_take_is_not_sent() {
    let short = place("catalog", "short", "{}", "");
    let ran = short.windlass(&["run", "asks.yml", "--run-id", "r", "--events", "e.jsonl", "--json"]);
    assert_eq!(ran.json()["error"]["code"], json!("provider.context_length"), "{}", ran.shown());
    let journal = short.windlass(&["runs", "journal", "r", "--json"]).stdout();
    assert!(journal.contains("conversation_near") && !journal.contains("call_intended"), "{journal}");
    let events = std::fs::read_to_string(short.path("e.jsonl")).expect("events");
    assert!(events.contains("conversation_near"), "{events}");
    let shortened = place("catalog", "short", "{conversation: {on_near: done}}", "");
    let ran = shortened.windlass(&["run", "asks.yml", "--json"]);
    assert_eq!(ran.code(), 0, "{}", ran.shown());
    assert_eq!(ran.json()["said"][0], json!({ "role": "system", "content": "You write one line." }));
}

#[test]
fn a_preview_bounds_the_cost_of_a_chain_by_its_dearest_link() {
    let told = |place: &Place| {
        let ran = place.windlass(&["preview", "asks.yml", "--json"]);
        assert_eq!(ran.code(), 0, "{}", ran.shown());
        ran.json()["bounds"].clone()
    };
    let one = told(&place("catalog", "cheap", "{}", ""));
    // 1,000 tokens of input and 100 of output at a dollar a million; the prompt is 19 and 53 bytes.
    assert_eq!(one["cost_micros"], json!({ "min": 18, "max": 1_100 }), "{one}");
    assert_eq!(one["tokens"], json!({ "min": 18, "max": 1_100 }));
    let chain = told(&place("chain", "answers", "{}", ""));
    assert_eq!(chain["model_calls"], json!({ "min": 1, "max": 2 }), "each link once");
    assert_eq!(chain["cost_micros"], json!({ "min": 18, "max": 2 * 2_400 }));
    assert_eq!(told(&place("chain", "half", "{}", ""))["cost_micros"], json!({ "min": 0, "max": null }), "no price");
    assert_eq!(told(&place("chain", "half", "{max_cost: 1}", ""))["cost_micros"]["max"], json!(1_000_000));
}

#[test]
fn a_preview_says_that_a_model_has_no_price_and_no_cost_of_nothing() {
    let told = |place: &Place| place.windlass(&["preview", "asks.yml", "--json"]).json();
    assert_eq!(told(&place("chain", "answers", "{}", ""))["unpriced"], json!([]));
    let half = place("chain", "half", "{}", "");
    assert_eq!(told(&half)["unpriced"], json!(["free-of-price"]));
    let plain = half.windlass(&["preview", "asks.yml", "--plain"]);
    assert!(plain.stdout().contains("cost_micros  no price of free-of-price"), "{}", plain.shown());
    // Runs that ended have cost nothing that anybody knows of.
    let unpriced = place("catalog", "unpriced", "{}", "");
    for number in 0..5 {
        unpriced.windlass(&["run", "asks.yml", "--run-id", &format!("r{number}")]);
    }
    let document = told(&unpriced);
    assert_eq!((&document["runs"], &document["expected"]["cost_micros"]), (&json!(5), &Json::Null), "{document}");
    assert!(document["expected"]["steps"].is_object(), "{document}");
}
