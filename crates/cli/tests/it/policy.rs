//! Rules from files: checked, asked, explained and tried on what was recorded.

use serde_json::json;

use crate::kit::{Place, Ran, assert_shown};

const RULES: &str = r#"@id("flow")
permit (principal, action in [Action::"CallModel", Action::"TakeTransition"], resource);

@id("tools.read") @reason("reading is free")
permit (principal, action == Action::"CallTool", resource) when { resource.class == "read" };

@id("danger.ask") @answer("ask") @reason("a person looks at it")
forbid (principal, action == Action::"CallTool", resource) when { resource.tags.contains("careful") };
"#;

const STRICT: &str = r#"@id("flow")
permit (principal, action in [Action::"CallModel", Action::"TakeTransition"], resource);

@id("no.model") @reason("not this one")
forbid (principal, action == Action::"CallModel", resource == Model::"small");
"#;

const ENTITIES: &str = r#"[
  {"uid": {"type": "Tenant", "id": "acme"}, "attrs": {"tier": "pro"}},
  {"uid": {"type": "Tool", "id": "wipe"}, "attrs": {"class": "read", "tags": ["careful"]}}
]"#;

fn rules(place: &Place, folder: &str, text: &str) {
    std::fs::create_dir_all(place.path(folder)).expect("a folder");
    place.write(&format!("{folder}/rules.cedar"), text);
}

fn governed() -> Place {
    let place = Place::new();
    rules(&place, "policies", RULES);
    place.write("policies/people.json", ENTITIES);
    let config = "[providers.scripted]\nscript = \"script.yml\"\n[policy]\npath = \"policies\"\n";
    place.write("windlass.toml", config);
    place
}

pub(crate) fn asks(place: &Place, run: &str) -> Ran {
    place.windlass(&["run", "asks.yml", "--input", "{\"topic\":\"tides\"}", "--run-id", run])
}

#[test]
fn a_good_set_is_summed_up_and_a_broken_one_is_shown_with_its_places() {
    let place = governed();
    assert_shown!(place.windlass(&["policy", "check", "--plain"]));
    let checked = place.windlass(&["policy", "check", "policies"]).json();
    assert_eq!((&checked["ok"], &checked["rules"], &checked["entities"]), (&json!(true), &json!(3), &json!(2)));
    place.write("policies/more.cedar", "permit (principal, action, resource)\nwhen { resource.clas == \"read\" };\n");
    let broken = place.windlass(&["policy", "check"]);
    assert_eq!(broken.code(), 2, "{}", broken.shown());
    let finding = &broken.json()["findings"][0];
    assert_eq!((&finding["severity"], &finding["line"]), (&json!("error"), &json!(2)), "{finding}");
    // Nothing starts with it.
    assert_eq!(asks(&place, "one").code(), 2);
    let none = Place::new().windlass(&["policy", "check"]);
    assert_eq!(none.code(), 2, "{}", none.shown());
}

#[test]
fn a_question_is_explained_with_rule_and_attributes() {
    let place = governed();
    let why = |args: &[&str]| {
        let mut all = vec!["policy", "why"];
        all.extend(args);
        place.windlass(&all).json()
    };
    let wipe = why(&["--tool", "wipe", "--tenant", "acme", "--user", "ada"]);
    assert_eq!((&wipe["answer"], &wipe["rule"]), (&json!("ask"), &json!("danger.ask")), "{wipe}");
    assert_eq!(wipe["attributes"]["principal"]["attrs"]["tier"], "pro");
    assert_eq!(wipe["applied"][0]["line"], 7);
    assert_eq!(why(&["--tool", "rumour"])["rule"], "windlass.unknown_tool");
    assert_eq!(why(&["--tool", "look", "--class", "read"])["rule"], "tools.read");
    assert_eq!(why(&["--tool", "drop", "--class", "danger"])["rule"], "windlass.default_deny");
    assert_eq!(why(&["--transition", "write:done", "--machine", "asks"])["rule"], "flow");
    assert_eq!(why(&["--start", "child.yml"])["answer"], "deny");
    assert_eq!(why(&["--model", "small", "--agent", "writer"])["answer"], "allow");
    assert_eq!(place.windlass(&["policy", "why"]).code(), 2);
    assert_eq!(place.windlass(&["policy", "why", "--transition", "nowhere"]).code(), 2);
}

#[test]
fn a_run_tells_which_rules_decided() {
    let place = governed();
    let ran = asks(&place, "one");
    assert_eq!(ran.code(), 0, "{}", ran.shown());
    let why = place.windlass(&["policy", "why", "one"]).json();
    let decisions = why["decisions"].as_array().expect("decisions");
    let said: Vec<_> = decisions.iter().map(|d| (d["question"]["action"].clone(), d["rule"].clone())).collect();
    assert_eq!(said, [(json!("call_model"), json!("flow")), (json!("take_transition"), json!("flow"))]);
    assert_eq!(decisions[0]["explanation"]["attributes"]["agent"]["name"], "writer");
    assert_eq!(place.windlass(&["policy", "why", "one", "--step", "2"]).json()["decisions"], json!([]));
    let plain = place.windlass(&["policy", "why", "one", "--plain"]);
    assert!(plain.stdout().contains("step 1 · CallModel small: allowed by `flow`"), "{}", plain.shown());
    // When the rules have changed since, what is recorded is still told.
    rules(&place, "policies", STRICT);
    let later = place.windlass(&["policy", "why", "one"]).json();
    assert_eq!(later["decisions"][0]["rule"], "flow");
    assert!(later["decisions"][0].get("explanation").is_none());
}

#[test]
fn a_denied_run_names_the_rule() {
    let place = governed();
    rules(&place, "policies", STRICT);
    let ran = asks(&place, "one");
    assert_eq!(ran.code(), 3, "{}", ran.shown());
    let error = &ran.json()["error"];
    assert_eq!(error["code"], "policy.denied");
    assert!(error["message"].as_str().expect("a message").contains("rule `no.model`: not this one"), "{error}");
}

#[test]
fn a_candidate_is_tried_on_what_was_recorded() {
    let place = governed();
    assert_eq!(asks(&place, "one").code(), 0);
    rules(&place, "same", RULES);
    rules(&place, "next", STRICT);
    let same = place.windlass(&["policy", "test", "--candidate", "same"]);
    assert_eq!(same.code(), 0, "{}", same.shown());
    assert_eq!((&same.json()["runs"], &same.json()["decisions"]), (&json!(1), &json!(2)));
    let next = place.windlass(&["policy", "test", "--candidate", "next", "--last", "10"]);
    assert_eq!(next.code(), 3, "{}", next.shown());
    let change = &next.json()["changes"][0];
    assert_eq!(
        (&change["run_id"], &change["was"], &change["would_be"]),
        (&json!("one"), &json!("allow"), &json!("deny"))
    );
    assert_eq!((&change["would_be_by"], &change["on"]), (&json!("no.model"), &json!("small")));
}

#[test]
fn what_was_done_without_rules_counts_as_allowed() {
    let place = Place::new();
    assert_eq!(asks(&place, "one").code(), 0);
    rules(&place, "next", STRICT);
    let next = place.windlass(&["policy", "test", "--candidate", "next"]);
    assert_eq!((next.code(), &next.json()["decisions"]), (3, &json!(2)), "{}", next.shown());
    assert_eq!(next.json()["changes"][0]["was_by"], "no rules");
    let why = place.windlass(&["policy", "why", "one", "--plain"]);
    assert!(why.stdout().contains("nothing was asked"), "{}", why.shown());
}

#[test]
fn prod_safe_wants_rules_for_tools() {
    let place = Place::new();
    let tool = "[tools.look]\ntype = \"command\"\ncommand = [\"true\"]\nclass = \"read\"\nidempotency = \"natural\"\n\
                description = \"Looks.\"\ninput_schema = { type = \"object\" }\n";
    place.write("windlass.toml", &format!("[providers.scripted]\nscript = \"script.yml\"\n{tool}"));
    let run = |more: &[&str]| {
        let mut args = vec!["run", "asks.yml", "--input", "{\"topic\":\"tides\"}", "--preset", "prod-safe"];
        args.extend(more);
        place.windlass(&args)
    };
    let refused = run(&[]);
    assert_eq!(refused.code(), 2, "{}", refused.shown());
    assert!(refused.stderr().contains("policy.path"), "{}", refused.shown());
    place.write(
        "windlass.toml",
        &format!("[providers.scripted]\nscript = \"script.yml\"\n[policy]\nrequired = false\n{tool}"),
    );
    assert_eq!(run(&[]).code(), 0);
}

#[test]
fn what_is_blocked_fails_the_call_and_what_is_masked_does_not_arrive() {
    let place = Place::new();
    let script = "rules:\n- agent: writer\n  reply: {echo: true}\n";
    place.write("script.yml", script);
    let scan = |modes: &str| {
        place.write("windlass.toml", &format!("[providers.scripted]\nscript = \"script.yml\"\n[scan]\n{modes}\n"))
    };
    let ask = |run: &str| {
        let input = "{\"topic\":\"ada@acme.io and AKIAQ3EGRZ7LM2XTPV5K\"}";
        place.windlass(&["run", "asks.yml", "--input", input, "--run-id", run])
    };
    scan("email = \"mask\"\naws_key = \"mask\"");
    let masked = ask("masked");
    assert_eq!(masked.json()["text"], "Write about [masked-email] and [masked-aws_key].", "{}", masked.shown());
    scan("aws_key = \"block\"");
    let blocked = ask("blocked");
    assert_eq!((blocked.code(), &blocked.json()["error"]["code"]), (3, &json!("policy.denied")), "{}", blocked.shown());
    assert!(blocked.stdout().contains("scan.aws_key"), "{}", blocked.shown());
    scan("emial = \"mask\"");
    assert_eq!(ask("misspelt").code(), 2);
}

#[test]
fn the_rules_to_begin_with_ask_about_what_outsiders_wrote_and_what_cannot_be_undone() {
    let place = Place::new();
    let starter = place.windlass(&["policy", "starter"]);
    assert_eq!(starter.code(), 0, "{}", starter.shown());
    rules(&place, "policies", &starter.stdout());
    place.write("policies/windlass.cedarschema", &place.windlass(&["policy", "schema"]).stdout());
    let document = place.windlass(&["policy", "starter", "--json"]).json();
    assert_eq!(document["rules"].as_str().map(str::trim_end), Some(starter.stdout().trim_end()));
    place.write("windlass.toml", "[policy]\npath = 'policies'\n");
    let check = place.windlass(&["policy", "check"]);
    assert_eq!((check.code(), check.json()["findings"].clone()), (0, serde_json::json!([])), "{}", check.shown());
    let answer = |class: &str, labels: &[&str]| {
        let mut args = vec!["policy", "why", "--tool", "t", "--class", class];
        args.extend(labels.iter().flat_map(|label| ["--label", *label]));
        let why = place.windlass(&args);
        why.json()["answer"].as_str().unwrap_or_else(|| panic!("{}", why.shown())).to_owned()
    };
    assert_eq!(answer("read", &["untrusted", "secret"]), "allow");
    assert_eq!(answer("write", &[]), "allow");
    assert_eq!(answer("write", &["untrusted"]), "ask");
    assert_eq!(answer("danger", &[]), "ask");
    assert_eq!(answer("write", &["secret"]), "deny");
}

/// A place whose candidate is `STRICT`, with these lines in its table.
pub(crate) fn trying(lines: &str) -> Place {
    let place = governed();
    rules(&place, "next", STRICT);
    let config = "[providers.scripted]\nscript = \"script.yml\"\n[policy]\npath = \"policies\"\n";
    place.write("windlass.toml", &format!("{config}[policy.candidate]\npath = \"next\"\n{lines}"));
    place
}

#[test]
fn a_candidate_in_shadow_changes_nothing_and_its_differences_are_listed() {
    let place = trying("mode = \"shadow\"\n");
    let ran = asks(&place, "one");
    assert_eq!(ran.code(), 0, "{}", ran.shown());
    let status = place.windlass(&["policy", "candidate", "status"]).json();
    let counts = json!({"decisions": 2, "differ": 1, "denied": 1, "denied_in_force": 0});
    assert_eq!((&status["counts"], &status["withdrawn"]), (&counts, &json!(null)), "{status}");
    let listed = place.windlass(&["policy", "candidate", "differences"]).json();
    let found = &listed["differences"][0];
    assert_eq!((&found["run_id"], &found["step"], &found["action"]), (&json!("one"), &json!(1), &json!("CallModel")));
    assert_eq!((&found["in_force"]["rule"], &found["in_force"]["answer"]), (&json!("flow"), &json!("allow")));
    assert_eq!((&found["candidate"]["rule"], &found["candidate"]["answer"]), (&json!("no.model"), &json!("deny")));
    assert_eq!((&found["judge"], &found["candidate"]["version"]), (&json!("in_force"), &status["candidate"]));
    assert_eq!(listed["differences"].as_array().map(Vec::len), Some(1));
    let none = place.windlass(&["policy", "candidate", "differences", "--candidate", "0123456789ab"]).json();
    assert_eq!(none["differences"], json!([]));
    let why = place.windlass(&["policy", "why", "one", "--plain"]);
    assert!(
        why.stdout().contains("judged by the set in force: the run `one` is in the share of 100 %"),
        "{}",
        why.shown()
    );
    assert!(why.stdout().contains("the candidate says denied by `no.model`"), "{}", why.shown());
    let asked = place.windlass(&["policy", "why", "--model", "small", "--agent", "writer"]).json();
    assert_eq!((&asked["answer"], &asked["candidate"]["explanation"]["rule"]), (&json!("allow"), &json!("no.model")));
    let checked = place.windlass(&["policy", "check"]).json();
    assert_eq!((&checked["ok"], &checked["candidate"]["ok"]), (&json!(true), &json!(true)), "{checked}");
}

#[test]
fn an_enforced_candidate_judges_until_it_is_withdrawn() {
    let place = trying("mode = \"enforce\"\n");
    let denied = asks(&place, "one");
    assert_eq!(denied.code(), 3, "{}", denied.shown());
    assert!(denied.json()["error"]["message"].as_str().expect("a message").contains("no.model"), "{}", denied.shown());
    let why = place.windlass(&["policy", "why", "one"]).json();
    let status = place.windlass(&["policy", "candidate", "status"]).json();
    let first = &why["decisions"][0];
    assert_eq!(
        (&first["candidate"]["judge"], &first["rule_set"]),
        (&json!("candidate"), &status["candidate"]),
        "{first}"
    );
    assert_eq!(first["candidate"]["other"]["rule"], "flow");
    assert_eq!(first["explanation"]["rule"], "no.model", "explained by the set that judged");
    let withdrawn = place.windlass(&["policy", "candidate", "withdraw", "--by", "ada", "--reason", "too strict"]);
    assert_eq!(withdrawn.code(), 0, "{}", withdrawn.shown());
    assert_eq!(asks(&place, "two").code(), 0);
    assert_eq!(place.windlass(&["policy", "candidate", "status"]).json()["withdrawn"]["reason"], "too strict");
    let version = status["candidate"].as_str().expect("a version");
    let resumed = place.windlass(&["policy", "candidate", "resume", version, "--by", "ada", "--reason", "fine"]);
    assert_eq!(resumed.code(), 0, "{}", resumed.shown());
    assert_eq!(asks(&place, "three").code(), 3);
    let acts = place.windlass(&["audit", "acts"]).json();
    let acts: Vec<_> = acts["rows"].as_array().expect("acts").iter().map(|act| act["action"].clone()).collect();
    for action in ["policy.candidate_load", "policy.candidate_withdraw", "policy.candidate_resume"] {
        assert_eq!(acts.iter().filter(|act| *act == action).count(), 1, "{action}: {acts:?}");
    }
}

#[test]
fn a_candidate_that_differs_too_much_falls_back_by_itself() {
    let place = trying("mode = \"enforce\"\ndecisions_min = 3\ndiffer_max = 10\n");
    for (run, code) in [("one", 3), ("two", 3), ("three", 3), ("four", 0)] {
        let ran = asks(&place, run);
        assert_eq!(ran.code(), code, "{run}: {}", ran.shown());
    }
    let status = place.windlass(&["policy", "candidate", "status"]).json();
    let withdrawn = &status["withdrawn"];
    assert_eq!(withdrawn["by_itself"], json!(true), "{status}");
    assert!(withdrawn["reason"].as_str().expect("a reason").contains("denied 3 of 3 questions"), "{status}");
    let acts = place.windlass(&["audit", "acts"]).json();
    let of_it = |act: &&serde_json::Value| act["action"] == "policy.candidate_withdraw";
    let acts: Vec<_> = acts["rows"].as_array().expect("acts").iter().filter(of_it).collect();
    assert_eq!((acts.len(), &acts[0]["subject"]), (1, &status["candidate"]), "written down once");
}

#[test]
fn a_candidate_that_cannot_be_meant_is_refused() {
    for (lines, key) in [
        ("percent = 101\n", "policy.candidate.percent"),
        ("decisions_min = 0\n", "policy.candidate.decisions_min"),
        ("mode = \"sometimes\"\n", "unknown variant `sometimes`, expected `shadow` or `enforce`"),
    ] {
        let refused = asks(&trying(lines), "one");
        assert_eq!(refused.code(), 2, "{}", refused.shown());
        assert!(refused.stderr().contains(key), "{}", refused.shown());
    }
    let place = trying("");
    place.write("windlass.toml", "[policy.candidate]\npath = \"next\"\n");
    assert!(asks(&place, "one").stderr().contains("policy.path"));
    let governed = governed();
    assert_eq!(governed.windlass(&["policy", "candidate", "status"]).code(), 2);
    assert_eq!(
        trying("").windlass(&["policy", "candidate", "withdraw", "abc", "--by", "a", "--reason", "b"]).code(),
        2
    );
}

const PAYS: &str = "spec: flatmachine
spec_version: \"4.2.1\"
data:
  name: pays
  states:
    start:
      type: initial
      action: pay
      arguments: {amount: \"{{ input.amount }}\", to: canary-9b1}
      transitions: [{to: done}]
    done: {type: final}
";

/// Rules that permit everything but calls above a bound.
fn bounded(place: &Place, folder: &str, bound: u64) {
    let text = format!(
        "@id(\"open\") permit (principal, action, resource);\n@id(\"large\") @reason(\"too much\")\n\
         forbid (principal, action == Action::\"CallTool\", resource == Tool::\"pay\")\n\
         when {{ context.args has amount && context.args.amount > {bound} }};\n"
    );
    rules(place, folder, &text);
    place.write(&format!("{folder}/arguments.cedarschema"), "type Arguments = { amount?: Long, to?: String };\n");
}

fn pays(policy: &str) -> Place {
    let place = Place::new();
    place.write("pays.yml", PAYS);
    let tool = "[tools.pay]\ntype = \"command\"\ncommand = [\"true\"]\nclass = \"write\"\nidempotency = \"natural\"\n\
                description = \"Pays.\"\ninput_schema = { type = \"object\" }\n";
    place.write("windlass.toml", &format!("{policy}{tool}"));
    place
}

#[test]
fn a_question_about_arguments_is_explained_without_what_they_say() {
    let place = pays("[policy]\npath = \"policies\"\n");
    bounded(&place, "policies", 100);
    assert_eq!(place.windlass(&["policy", "check"]).code(), 0);
    let why = |arguments: &str, more: &[&str]| {
        let mut all = vec!["policy", "why", "--tool", "pay", "--arguments", arguments];
        all.extend(more);
        place.windlass(&all)
    };
    let denied = why("{\"amount\": 120, \"to\": \"canary-9b1\"}", &[]);
    let args = json!({"amount": 120, "to": "[text of 10 bytes]"});
    assert_eq!((&denied.json()["rule"], &denied.json()["attributes"]["context"]["args"]), (&json!("large"), &args));
    assert!(!denied.shown().contains("canary"), "{}", denied.shown());
    assert_eq!(why("{\"amount\": 100}", &[]).json()["rule"], "open");
    assert_eq!(why("{\"amount\": \"canary-9b1\"}", &[]).json()["rule"], "windlass.argument_unfit");
    assert!(!why("{\"amount\": \"canary-9b1\"}", &["--plain"]).shown().contains("canary"));
    assert_eq!(why("{amount", &[]).code(), 2);
    assert_eq!(place.windlass(&["policy", "why", "--start", "a", "--arguments", "{}"]).code(), 2);
    // A misspelt name is an error: the rule would never hold.
    place.write("policies/arguments.cedarschema", "type Arguments = { amuont?: Long };\n");
    let broken = place.windlass(&["policy", "check"]);
    assert_eq!(broken.code(), 2, "{}", broken.shown());
    assert!(broken.shown().contains("`amount`, which is not declared"), "{}", broken.shown());
}

#[test]
fn a_run_tells_which_arguments_rules_decided_by() {
    let place = pays("[policy]\npath = \"policies\"\n");
    bounded(&place, "policies", 100);
    let ran = place.windlass(&["run", "pays.yml", "--input", "{\"amount\": 50}", "--run-id", "one"]);
    assert_eq!(ran.code(), 0, "{}", ran.shown());
    let why = place.windlass(&["policy", "why", "one"]);
    let decision = &why.json()["decisions"][0];
    assert_eq!(
        (&decision["rule"], &decision["question"]["action"]),
        (&json!("open"), &json!("call_tool")),
        "{decision}"
    );
    let args = &decision["explanation"]["attributes"]["context"]["args"];
    assert_eq!(*args, json!({"amount": 50, "to": "[text of 10 bytes]"}), "{decision}");
    let plain = place.windlass(&["policy", "why", "one", "--plain"]);
    assert!(plain.stdout().contains("\"amount\":50"), "{}", plain.shown());
    assert!(!plain.shown().contains("canary"), "{}", plain.shown());
    let ran = place.windlass(&["run", "pays.yml", "--input", "{\"amount\": 150}", "--run-id", "two"]);
    assert_eq!((ran.code(), &ran.json()["error"]["code"]), (3, &json!("policy.denied")), "{}", ran.shown());
    assert!(ran.shown().contains("rule `large`: too much"), "{}", ran.shown());
}

#[test]
fn rules_about_arguments_are_tried_on_what_was_recorded() {
    let place = pays("");
    let ran = place.windlass(&["run", "pays.yml", "--input", "{\"amount\": 150}", "--run-id", "one"]);
    assert_eq!(ran.code(), 0, "{}", ran.shown());
    bounded(&place, "low", 100);
    bounded(&place, "high", 200);
    let test = |folder: &str| place.windlass(&["policy", "test", "--candidate", folder]);
    assert_eq!(test("high").code(), 0, "{}", test("high").shown());
    let low = test("low");
    assert_eq!((low.code(), &low.json()["changes"][0]["would_be_by"]), (3, &json!("large")), "{}", low.shown());
    assert_eq!(low.json()["unknown"], 0);
    // What was denied before a call was made of it has left no arguments behind.
    rules(&place, "policies", STRICT);
    let policy = "[policy]\npath = \"policies\"\n";
    let config = std::fs::read_to_string(place.path("windlass.toml")).expect("the configuration");
    place.write("windlass.toml", &format!("{policy}{config}"));
    let ran = place.windlass(&["run", "pays.yml", "--input", "{\"amount\": 150}", "--run-id", "two"]);
    assert_eq!(ran.code(), 3, "{}", ran.shown());
    let low = place.windlass(&["policy", "test", "--candidate", "low", "--last", "1"]);
    assert_eq!((low.code(), &low.json()["unknown"]), (0, &json!(1)), "{}", low.shown());
    let plain = place.windlass(&["policy", "test", "--candidate", "low", "--last", "1", "--plain"]);
    assert!(plain.stdout().contains("1 decision could not be compared"), "{}", plain.shown());
}

#[test]
fn declared_arguments_that_a_tool_never_takes_so_are_warned_of() {
    let place = Place::new();
    std::fs::create_dir(place.path("policies")).expect("a folder");
    let rules = "permit (principal, action, resource);\n\
                 @id(\"large\") forbid (principal, action == Action::\"CallTool\", resource == Tool::\"refund\")\n\
                 when { context.args has amount && context.args.amount > 1000 };\n";
    place.write("policies/rules.cedar", rules);
    place.write("policies/arguments.cedarschema", "type Arguments = { amount?: Long };\n");
    let tools = |kind: &str| {
        let tool = |name: &str, kind: &str| {
            format!(
                "[tools.{name}]\ntype = 'command'\ncommand = ['/bin/true']\n\
                 input_schema = {{ type = 'object', properties = {{ amount = {{ type = '{kind}' }} }} }}\n"
            )
        };
        // No rule is about `measure`, so it may take what it likes.
        let text = format!("[policy]\npath = 'policies'\n{}{}", tool("refund", kind), tool("measure", "string"));
        place.write("windlass.toml", &text);
        let checked = place.windlass(&["policy", "check"]);
        assert_eq!(checked.code(), 0, "{}", checked.shown());
        checked.json()["findings"].clone()
    };
    assert_eq!(tools("integer"), json!([]));
    let found = tools("string");
    assert_eq!(found.as_array().map(Vec::len), Some(1), "{found}");
    assert_eq!((&found[0]["severity"], &found[0]["line"]), (&json!("warning"), &json!(2)), "{found}");
    let message = found[0]["message"].as_str().expect("a message");
    assert!(
        message.contains("`amount` is declared as `Long`, and the tool `refund` takes string: rule `large`"),
        "{message}"
    );
    place.write("policies/rules.cedar", &rules.replace("resource == Tool::\"refund\"", "resource"));
    assert_eq!(tools("integer").as_array().map(Vec::len), Some(1), "a rule without a tool in its head is about all");
}
