//! `windlass skills`: registered, found, used, kept by runs that began with them, and refused when they were changed.

use serde_json::{Value, json};

use super::kit::Place;

const MACHINE: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: desk
  agents:
    clerk:
      spec: flatagent
      spec_version: "4.2.1"
      data: {name: clerk, model: {provider: scripted, name: small, max_tokens: 100}, user: Do it.}
  settings:
    skills: {agents: {clerk: ["tone@^1"]}, machines: {sum: "adder@^1"}}
  states:
    ask: {type: initial, agent: clerk, output_to_context: {said: output.content}, transitions: [{to: wait}]}
    wait: {wait_for: go, transitions: [{to: add}]}
    add: {machine: sum, input: {a: 1}, output_to_context: {sum: output.sum}, transitions: [{to: done}]}
    done: {type: final, output: {said: context.said, sum: context.sum}}
"#;

const ADDER: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: adder
  states:
    start: {type: initial, transitions: [{to: done}]}
    done: {type: final, output: {sum: "{{ input.a + OTHER }}"}}
"#;

const SCRIPT: &str = r"rules:
  - {agent: clerk, match: Be kind, reply: {content: kind}}
  - {agent: clerk, match: Be short, reply: {content: short}}
";

/// A folder with a machine that uses the skills `tone` and `adder`, of `tone` in version 1.0.0.
fn place() -> Place {
    let place = Place::new();
    place.write("desk.yml", MACHINE);
    place.write("script.yml", SCRIPT);
    place.write("windlass.toml", "[providers.scripted]\nscript = \"script.yml\"\n");
    for folder in ["packs", "packs/tone", "packs/adder"] {
        std::fs::create_dir(place.path(folder)).expect("a folder");
    }
    tone(&place, "1.0.0", "Be kind.");
    adder(&place, "1.0.0", 1);
    place
}

fn tone(place: &Place, version: &str, prompt: &str) {
    let manifest = format!("name: tone\nversion: {version}\ndescription: How letters are written.\nprompt: p.md\n");
    place.write("packs/tone/skill.yml", &manifest);
    place.write("packs/tone/p.md", prompt);
}

fn adder(place: &Place, version: &str, other: u32) {
    let manifest =
        "description: Adds numbers up.\nkeywords: [sum]\nmachine: m.yml\ninput_schema: {type: object, required: [a]}\n";
    place.write("packs/adder/skill.yml", &format!("name: adder\nversion: {version}\n{manifest}"));
    place.write("packs/adder/m.yml", &ADDER.replace("OTHER", &other.to_string()));
}

fn ok(place: &Place, args: &[&str]) -> Value {
    let ran = place.windlass(args);
    assert_eq!(ran.code(), 0, "{args:?}\n{}", ran.shown());
    ran.json()
}

/// The code and the message of a refused command.
fn refused(place: &Place, args: &[&str], exit: i32) -> (String, String) {
    let ran = place.windlass(args);
    assert_eq!(ran.code(), exit, "{args:?}\n{}", ran.shown());
    let error = ran.json()["error"].clone();
    (error["code"].as_str().expect("a code").to_owned(), error["message"].as_str().expect("text").to_owned())
}

fn add_all(place: &Place) {
    ok(place, &["skills", "add", "packs/tone", "--by", "ann"]);
    ok(place, &["skills", "add", "packs/adder", "--by", "ann"]);
}

#[test]
fn a_skill_is_registered_once_found_shown_and_removed() {
    let place = place();
    assert_eq!(ok(&place, &["skills", "list"])["skills"], json!([]), "nothing is made by looking");
    let added = ok(&place, &["skills", "add", "packs/tone", "--by", "ann"]);
    assert_eq!((&added["version"], &added["added"]), (&json!("1.0.0"), &json!(true)));
    assert_eq!(ok(&place, &["skills", "add", "packs/tone", "--by", "ann"])["added"], json!(false));
    ok(&place, &["skills", "add", "packs/adder", "--by", "ann"]);

    tone(&place, "1.0.0", "Be rude.");
    let (_, why) = refused(&place, &["skills", "add", "packs/tone", "--by", "bob"], 4);
    assert!(why.contains("registered with another content"), "{why}");
    tone(&place, "1.1.0", "Be short.");
    ok(&place, &["skills", "add", "packs/tone", "--by", "bob"]);

    let first = ok(&place, &["skills", "list", "--limit", "2"]);
    let named = |value: &Value| -> Vec<String> {
        let all = value["skills"].as_array().expect("a list").iter();
        all.map(|one| format!("{}@{}", one["name"].as_str().expect("name"), one["version"].as_str().expect("one")))
            .collect()
    };
    assert_eq!(
        (named(&first), &first["next"]),
        (vec!["adder@1.0.0".into(), "tone@1.0.0".into()], &json!("tone@1.0.0"))
    );
    let rest = ok(&place, &["skills", "list", "--after", "tone@1.0.0"]);
    assert_eq!((named(&rest), &rest["next"]), (vec!["tone@1.1.0".to_owned()], &Value::Null));
    assert_eq!(named(&ok(&place, &["skills", "search", "the", "sum", "of", "two"])), ["adder@1.0.0"]);
    assert_eq!(named(&ok(&place, &["skills", "search", "write", "letters"])), ["tone@1.1.0"], "the highest version");
    assert_eq!(ok(&place, &["skills", "show", "tone"])["prompt"], json!("Be short."));
    let shown = ok(&place, &["skills", "show", "tone@=1.0.0"]);
    assert_eq!((&shown["digest"], &shown["files"]["p.md"]), (&added["digest"], &json!("Be kind.")));

    ok(&place, &["skills", "remove", "tone@1.0.0", "--by", "ann"]);
    refused(&place, &["skills", "show", "tone@=1.0.0"], 4);
    refused(&place, &["skills", "remove", "tone@1.0.0", "--by", "ann"], 4);
    tone(&place, "1.0.0", "Be rude.");
    refused(&place, &["skills", "add", "packs/tone", "--by", "ann"], 4);
    tone(&place, "1.0.0", "Be kind.");
    assert_eq!(
        ok(&place, &["skills", "add", "packs/tone", "--by", "ann"])["added"],
        json!(true),
        "with the same content"
    );
    let acts = ok(&place, &["audit", "acts"]).to_string();
    assert!(acts.contains("skill.add") && acts.contains("skill.remove"), "{acts}");
}

#[test]
fn pages_leave_out_no_skill_that_is_in_a_folder_and_registered() {
    let place = place();
    place.write("windlass.toml", "[skills]\npaths = [\"packs\"]\n[providers.scripted]\nscript = \"script.yml\"\n");
    add_all(&place);
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let mut args = vec!["skills", "list", "--limit", "1"];
        args.extend(after.as_deref().into_iter().flat_map(|after| ["--after", after]));
        let page = ok(&place, &args);
        let rows = page["skills"].as_array().expect("a list").iter();
        seen.extend(rows.map(|row| (row["name"].to_string(), row["place"].to_string())));
        let Some(next) = page["next"].as_str() else { break };
        after = Some(next.to_owned());
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
}

#[test]
fn a_run_stays_with_the_skills_that_it_began_with_and_says_which() {
    let place = place();
    add_all(&place);
    let parked = place.windlass(&["run", "desk.yml", "--run-id", "old", "--wait", "0s"]);
    assert_eq!(parked.code(), 7, "{}", parked.shown());
    tone(&place, "1.1.0", "Be short.");
    adder(&place, "1.1.0", 100);
    add_all(&place);
    for version in ["tone@1.0.0", "adder@1.0.0"] {
        ok(&place, &["skills", "remove", version, "--by", "ann"]);
    }
    ok(&place, &["signal", "go"]);
    assert_eq!(ok(&place, &["resume", "old"]), json!({"said": "kind", "sum": 2}));
    let of = |run: &str| -> Vec<(String, String)> {
        let shown = ok(&place, &["runs", "show", run]);
        let skills = shown["run"]["skills"].as_array().expect("skills").clone();
        let text = |one: &Value, key: &str| one[key].as_str().expect("text").to_owned();
        skills.iter().map(|one| (text(one, "name"), text(one, "version"))).collect()
    };
    let pair = |name: &str, version: &str| (name.to_owned(), version.to_owned());
    assert_eq!(of("old"), [pair("tone", "1.0.0"), pair("adder", "1.0.0")]);
    assert_eq!(of("old~3.0"), [pair("adder", "1.0.0")], "the run of its machine says it too");

    let parked = place.windlass(&["run", "desk.yml", "--run-id", "new", "--wait", "0s"]);
    assert_eq!(parked.code(), 7, "{}", parked.shown());
    ok(&place, &["signal", "go"]);
    assert_eq!(ok(&place, &["resume", "new"]), json!({"said": "short", "sum": 101}));
    assert_eq!(of("new"), [pair("tone", "1.1.0"), pair("adder", "1.1.0")]);
    let text = place.windlass(&["runs", "show", "new", "--plain"]).stdout();
    assert!(text.contains("tone@1.1.0 ("), "{text}");
    assert_eq!(place.windlass(&["verify", "new"]).code(), 0, "what was rendered is rendered again");
}

#[test]
fn a_skill_that_is_missing_unfit_or_changed_is_refused_before_anything_runs() {
    let place = place();
    let codes = |place: &Place| -> Vec<String> {
        let ran = place.windlass(&["validate", "desk.yml"]);
        assert_eq!(ran.code(), 2, "{}", ran.shown());
        let found = ran.json()["diagnostics"].as_array().expect("findings").clone();
        found.iter().map(|one| one["code"].as_str().expect("a rule").to_owned()).collect()
    };
    assert_eq!(codes(&place), ["unknown_skill", "unknown_skill"]);
    tone(&place, "2.0.0", "Be kind.");
    add_all(&place);
    assert_eq!(codes(&place), ["unknown_skill"], "no version that fits");
    tone(&place, "1.0.0", "Be kind.");
    ok(&place, &["skills", "add", "packs/tone", "--by", "ann"]);
    ok(&place, &["validate", "desk.yml"]);

    // The same version in a folder, with another content.
    place.write("windlass.toml", "[providers.scripted]\nscript = \"script.yml\"\n[skills]\npaths = [\"packs\"]\n");
    ok(&place, &["validate", "desk.yml"]);
    tone(&place, "1.0.0", "Be rude.");
    assert_eq!(codes(&place), ["changed_skill"]);
    let (code, _) = refused(&place, &["run", "desk.yml"], 2);
    assert_eq!(code, "spec.invalid");
    refused(&place, &["skills", "show", "tone@1"], 4);
    tone(&place, "1.0.1", "Be short.");
    ok(&place, &["validate", "desk.yml"]);
    place.write("packs/tone/skill.yml", "name: tone\nversion: one\n");
    let (code, why) = refused(&place, &["run", "desk.yml"], 2);
    assert!(code == "spec.invalid" && why.contains("packs/tone"), "{why}");
    place.write("windlass.toml", "[skills]\npaths = [\"nowhere\"]\n");
    assert_eq!(refused(&place, &["skills", "list"], 2).0, "cli.config");
}

#[test]
fn packs_are_checked_before_they_are_used() {
    let place = place();
    place.write("windlass.toml", "[skills]\npaths = [\"packs\"]\n");
    let checked = ok(&place, &["skills", "check"]);
    assert_eq!((&checked["valid"], checked["skills"].as_array().map(Vec::len)), (&json!(true), Some(2)));
    place.write("packs/adder/m.yml", "spec: flatmachine\nspec_version: \"4.2.1\"\ndata: {states: {}}\n");
    let ran = place.windlass(&["skills", "check", "packs/adder", "--plain"]);
    assert_eq!(ran.code(), 2, "{}", ran.shown());
    assert!(ran.stderr().contains("the machine has no states"), "{}", ran.shown());
    // What stands in a pack is no machine of the folder.
    let valid = place.windlass(&["validate", "packs"]);
    assert!(!valid.stdout().contains("m.yml"), "{}", valid.shown());
}
