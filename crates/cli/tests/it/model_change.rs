//! Another model in the place of what a document names, for a run that goes on.

use serde_json::json;

use crate::kit::Place;

/// Asks, waits, and asks again: first itself, then a child.
const MACHINE: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: asker
  machines: {below: ./below.yml}
  agents:
    clerk:
      spec: flatagent
      spec_version: "4.2.1"
      data:
        name: clerk
        model: { provider: scripted, name: small, max_tokens: 100 }
        user: Go on.
  states:
    first: {type: initial, agent: clerk, output_to_context: {first: output.content}, transitions: [{to: wait}]}
    wait: {wait_for: go, transitions: [{to: second}]}
    second: {agent: clerk, output_to_context: {second: output.content}, transitions: [{to: third}]}
    third: {machine: below, output_to_context: {third: output.said}, transitions: [{to: done}]}
    done: {type: final, output: {all: "{{ context.first }} {{ context.second }} {{ context.third }}"}}
"#;

const BELOW: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: below
  agents:
    aide:
      spec: flatagent
      spec_version: "4.2.1"
      data: {name: aide, model: { provider: scripted, name: small, max_tokens: 100 }, user: Go on.}
  states:
    only: {type: initial, agent: aide, output_to_context: {said: output.content}, transitions: [{to: done}]}
    done: {type: final, output: {said: context.said}}
"#;

const SCRIPT: &str = "prices: {big: {input: 2000000, output: 4000000}}
rules:
  - {model: small, reply: {content: small}}
  - {model: big, reply: {content: big}}
";

const CATALOG: &str = "version: house-1
models:
- {name: strong, provider: scripted, model: big, tier: strong}
- {name: keyless, provider: openai, model: gpt-4o}
- {name: twice, provider: scripted, model: big}
chains:
- {name: answers, links: [{model: strong}]}
- {name: locked, links: [{model: keyless}]}
- {name: twice, links: [{model: strong}]}
";

const CONFIG: &str = "models = \"models.yml\"\n[providers.scripted]\nscript = \"script.yml\"\n";

fn place(config: &str) -> Place {
    let place = Place::new();
    place.write("asker.yml", MACHINE);
    place.write("below.yml", BELOW);
    place.write("script.yml", SCRIPT);
    place.write("models.yml", CATALOG);
    place.write("windlass.toml", &format!("{CONFIG}{config}"));
    place
}

/// Starts a run that waits after its first model call.
fn waiting(place: &Place, run: &str) {
    let parked = place.windlass(&["run", "asker.yml", "--run-id", run]);
    assert_eq!(parked.code(), 7, "{}", parked.shown());
}

fn changed(place: &Place, args: &[&str]) -> String {
    let changed = place.windlass(&[&["runs", "model"], args, &["--by", "ann", "--plain"]].concat());
    assert_eq!(changed.code(), 0, "{}", changed.shown());
    changed.stdout()
}

fn ended(place: &Place, run: &str) -> String {
    assert_eq!(place.windlass(&["signal", "go", "--run", run]).code(), 0);
    let ended = place.windlass(&["resume", run]);
    assert_eq!(ended.code(), 0, "{run}: {}", ended.shown());
    ended.json()["all"].as_str().expect("a text").to_owned()
}

#[test]
fn a_run_calls_another_model_from_then_on_and_says_who_wanted_it() {
    let place = place("");
    waiting(&place, "one");
    let says = changed(&place, &["one", "--to", "strong", "--reason", "it goes in circles"]);
    assert!(says.contains("one is"), "{says}");
    let shown = place.windlass(&["runs", "show", "one", "--plain"]).stdout();
    assert!(shown.contains("`catalog/strong` for every agent, by ann: it goes in circles"), "{shown}");
    assert!(changed(&place, &["one", "--to", "catalog/strong"]).contains("already"));
    assert_eq!(ended(&place, "one"), "small big small", "the run below keeps its own");

    let journal = place.windlass(&["runs", "journal", "one", "--json"]).stdout();
    assert_eq!(journal.matches("model_changed\":{").count(), 1, "{journal}");
    let call = journal.lines().find(|line| line.contains("\"by\":\"ann\"") && line.contains("call_intended"));
    let call = call.expect("a call by the new model");
    assert!(call.contains("\"chain\":\"strong\"") && call.contains("\"tier\":\"strong\""), "{call}");
    let run = place.windlass(&["runs", "show", "one"]).json();
    assert!(run["run"]["tiers"]["strong"]["cost_micros"].as_u64().expect("a cost") > 0, "at the price of the new one");
    for verb in ["verify", "replay"] {
        let again = place.windlass(&[verb, "one"]);
        assert_eq!(again.code(), 0, "{}", again.shown());
    }
    let acts = place.windlass(&["audit", "acts"]).stdout();
    assert!(acts.contains("run.model") && acts.contains("to strong it goes in circles"), "{acts}");
}

#[test]
fn it_can_be_taken_back_and_be_said_of_one_agent_and_of_everything_below() {
    let place = place("");
    for (run, steps, expected) in [
        ("back", &[&["--to", "answers"][..], &["--clear"]][..], "small small small"),
        ("own", &[&["--to", "chain/answers", "--agent", "clerk"]], "small big small"),
        ("below", &[&["--to", "strong", "--below"]], "small big big"),
        ("kept", &[&["--to", "strong", "--below"], &["--clear"]], "small small small"),
    ] {
        waiting(&place, run);
        for step in steps {
            changed(&place, &[&[run], *step].concat());
        }
        assert_eq!(ended(&place, run), expected, "{run}");
    }
    let child = place.windlass(&["runs", "list", "--below", "below", "--all"]).json();
    let heads = child["runs"].as_array().expect("runs");
    let child = heads.iter().find(|head| head["machine"] == "below").expect("a child");
    let shown = place.windlass(&["runs", "show", child["id"].as_str().expect("an id")]).json();
    assert_eq!(shown["run"]["overrides"]["all"]["by"], json!("ann"), "{shown}");
}

#[test]
fn what_could_not_be_called_is_refused_before_the_run_hears_of_it() {
    let place = place("[policy]\npath = \"policies\"\n");
    std::fs::create_dir_all(place.path("policies")).expect("a folder");
    let rules = "@id(\"all\") permit (principal, action, resource);\n\
        @id(\"no.big\") @reason(\"too dear\") forbid (principal, action == Action::\"CallModel\", resource == Model::\"twice\");\n";
    place.write("policies/rules.cedar", rules);
    waiting(&place, "one");
    let refused = |args: &[&str], code: i32, says: &str| {
        let refused = place.windlass(&[&["runs", "model"], args, &["--by", "ann"]].concat());
        assert_eq!(refused.code(), code, "{}", refused.shown());
        assert!(refused.stderr().contains(says), "{}", refused.shown());
    };
    refused(&["one"], 2, "--to");
    refused(&["one", "--to", "strong", "--clear"], 2, "--clear");
    refused(&["one", "--to", "nowhere"], 4, "the model catalog has no `nowhere`; it has `strong`");
    refused(&["one", "--to", "twice"], 4, "a model and a chain `twice`");
    refused(&["one", "--to", "keyless"], 4, "there is no key for the provider `openai`");
    refused(&["one", "--to", "locked"], 4, "agent `clerk` cannot call `chain/locked`");
    refused(&["one", "--to", "strong", "--agent", "aide"], 4, "has no agent `aide`; it has `clerk`");
    refused(&["one", "--to", "catalog/twice"], 4, "rule `no.big`: too dear");
    refused(&["two", "--to", "strong"], 4, "two");
    let run = place.windlass(&["runs", "show", "one"]).json();
    assert_eq!((&run["status"], &run["run"]["overrides"]), (&json!("waiting"), &json!(null)));
    assert_eq!(ended(&place, "one"), "small small small");
    refused(&["one", "--to", "strong"], 4, "has ended: it is completed");
}
