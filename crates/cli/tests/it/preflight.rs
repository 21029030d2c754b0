//! What stands against a machine is told before it runs, and stops it where the configuration asks for that.

use serde_json::{Value as Json, json};

use crate::kit::{Place, Ran};

const MACHINE: &str = "spec: flatmachine
spec_version: '4.2.1'
metadata: {personal_data: true}
data:
  name: clerk
  agents:
    a:
      spec: flatagent
      spec_version: '4.2.1'
      data:
        model: {provider: catalog, name: fast, max_tokens: 100}
        system: S
        user: q
  states:
    ask:
      type: initial
      agent: a
      transitions: [{to: act}]
    act:
      action: pay
      transitions: [{to: done}]
    done: {type: final}
";

const ACTION: &str = "[actions.pay]
type = 'command'
command = ['/bin/true']
class = 'danger'
idempotency = 'none'
approval = 'always'
secret_env = { KEY = 'env:PAY_KEY' }
";

fn place(configuration: &str, entry: &str) -> Place {
    let place = Place::new();
    place.write("clerk.yml", MACHINE);
    place.write("models.yml", &format!("version: test-1\nmodels:\n- {{name: fast, provider: openai, {entry}}}\n"));
    place.write("windlass.toml", &format!("models = 'models.yml'\n{configuration}\n{ACTION}"));
    place
}

fn state(ran: &Ran, name: &str) -> Json {
    let checks = ran.json()["checks"].as_array().expect("checks").clone();
    let check = checks.into_iter().find(|check| check["name"] == name);
    check.unwrap_or_else(|| panic!("no check `{name}`: {}", ran.shown()))["state"].clone()
}

const CHECKS: [&str; 7] = ["secrets", "prices", "retirements", "tags", "personal_route", "scan", "approvals"];

#[test]
fn everything_that_is_missing_is_told_and_nothing_is_called() {
    let place = place(
        "[preflight]\ntags = ['eu']\npersonal_data_tags = ['private']",
        "model: made-up-model, retires: 2020-01-01, tags: [us]",
    );
    let ran = place.windlass(&["preflight", "clerk.yml"]);
    assert_eq!((ran.code(), &ran.json()["ready"]), (3, &json!(false)), "{}", ran.shown());
    for name in CHECKS {
        assert_eq!(state(&ran, name), "failed", "{name}: {}", ran.shown());
    }
    let text = place.windlass(&["preflight", "clerk.yml", "--plain"]).stdout();
    for part in ["PAY_KEY", "has no price", "retired on 2020-01-01", "the tag `eu`", "`email` is not looked for"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!place.path("windlass.db").exists() && !place.path(".windlass").exists(), "nothing is stored");
}

#[test]
fn a_machine_that_has_everything_is_ready() {
    let place = place(
        "[preflight]\ntags = ['eu']\npersonal_data_tags = ['private']\n[scan]\nemail = 'mask'\ncard_number = 'block'\n\
         [notify.desk]\ntype = 'webhook'\nurl = 'http://localhost:9/'\nsigning_key = 'env:PAY_KEY'\nkinds = ['approval']",
        "model: made-up-model, tags: [eu, private], rates: {input: 1, output: 1}",
    );
    let ran = place.with(&["preflight", "clerk.yml"], |command| {
        command.env("PAY_KEY", "a-key-of-some-length").env("OPENAI_API_KEY", "sk-test");
    });
    assert_eq!((ran.code(), &ran.json()["ready"]), (0, &json!(true)), "{}", ran.shown());
    for name in CHECKS {
        assert_eq!(state(&ran, name), "ok", "{name}: {}", ran.shown());
    }
    // A machine with nothing of it passes too.
    let plain = Place::new();
    let ran = plain.windlass(&["preflight", "asks.yml"]);
    assert_eq!(ran.code(), 0, "{}", ran.shown());
    for name in CHECKS.into_iter().skip(1) {
        assert_eq!(state(&ran, name), "not_applicable", "{name}: {}", ran.shown());
    }
}

#[test]
fn production_starts_nothing_that_is_not_ready() {
    let place =
        place("preset = 'prod-safe'\n[policy]\nrequired = false", "model: made-up-model, rates: {input: 1, output: 1}");
    let run = |place: &Place| {
        place.with(&["run", "clerk.yml", "--detach"], |command| {
            command.env("PAY_KEY", "a-key-of-some-length").env("OPENAI_API_KEY", "sk-test");
        })
    };
    let refused = run(&place);
    assert_eq!(refused.code(), 2, "{}", refused.shown());
    let checks = refused.json()["error"]["checks"].as_array().expect("checks").clone();
    let names: Vec<&Json> = checks.iter().map(|check| &check["name"]).collect();
    assert_eq!(names, ["scan", "approvals"], "{}", refused.shown());
    let text = std::fs::read_to_string(place.path("windlass.toml")).expect("a file");
    place.write("windlass.toml", &text.replace("[policy]", "[preflight]\nrequired = false\n[policy]"));
    let started = run(&place);
    assert_eq!(started.code(), 0, "{}", started.shown());
}
