//! Limits of rates: written down, met, waited for, and looked at.

use std::process::{Child, Stdio};

use serde_json::{Value, json};

use super::kit::{Place, command};

const SCRIPT: &str = r"rules:
  - {agent: clerk, turn: 1, reply: {tool_calls: [{name: pay, arguments: {cents: 500}}]}}
  - {agent: clerk, turn: 2, reply: {content: Done.}}
";

fn config(wait: &str) -> String {
    format!(
        r#"[providers.scripted]
script = "script.yml"
[tools.pay]
type = "command"
command = ["python3", "-c", "print('{{}}')"]
class = "write"
[[limits.rates]]
tenant = "*"
calls = 1000
per = "1m"
[[limits.rates]]
tool = "pay"
calls = 1
per = "24h"
wait = "{wait}"
"#
    )
}

fn bucket(place: &Place, args: &[&str]) -> Value {
    let shown = place.windlass(&[&["limits"], args].concat()).json();
    let found = shown["buckets"].as_array().expect("a list").iter().find(|row| row["burst"] == 1);
    found.cloned().unwrap_or_default()
}

#[test]
fn a_call_beyond_a_rate_is_turned_away_and_the_bucket_is_shown() {
    let place = Place::paying(SCRIPT, &config("1ms"));
    let shown = place.windlass(&["limits"]).json();
    assert_eq!((&shown["limits"][1]["tool"], &shown["limits"][1]["amount"]), (&json!("pay"), &json!(1)));
    assert_eq!((&shown["limits"][0]["tenant"], &shown["buckets"]), (&json!("*"), &json!([])));
    assert_eq!(place.windlass(&["run", "payer.yml", "--run-id", "one"]).code(), 0);
    assert_eq!(bucket(&place, &[])["left"], 0);
    assert_eq!(bucket(&place, &[])["bucket"], "calls/86400000ms tool:pay");
    assert_eq!(place.windlass(&["run", "payer.yml", "--run-id", "two"]).code(), 0, "the model hears of it");
    let journal = place.windlass(&["runs", "journal", "two"]).stdout();
    assert!(journal.contains("tool.overloaded") && journal.contains("calls/86400000ms tool:pay"), "{journal}");
    let page = place.windlass(&["limits", "--limit", "1"]).json();
    assert_eq!(page["buckets"].as_array().map(Vec::len), Some(1));
    let rest = place.windlass(&["limits", "--cursor", page["next"].as_str().expect("more")]).json();
    assert_eq!((rest["buckets"].as_array().map(Vec::len), &rest["next"]), (Some(1), &Value::Null));
}

/// A process of its own that is killed with the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().expect("it ran");
        self.0.wait().expect("gone");
    }
}

#[test]
fn a_run_that_waits_for_permits_is_found_and_nothing_is_charged_for_it() {
    // More than the day after which there is a permit again.
    let place = Place::paying(SCRIPT, &config("48h"));
    assert_eq!(place.windlass(&["run", "payer.yml", "--run-id", "one"]).code(), 0);
    let mut waiting = command(&place.path(""));
    waiting.args(["run", "payer.yml", "--run-id", "two"]).stdout(Stdio::null()).stderr(Stdio::null());
    let waiting = Killed(waiting.spawn().expect("it starts"));
    let stuck = || {
        let found = place.windlass(&["runs", "stuck", "--older", "0s"]).json();
        let runs = found["runs"].as_array().cloned().unwrap_or_default();
        runs.into_iter().find(|run| run["run_id"] == "two" && run["detail"].to_string().contains("tool:pay"))
    };
    let found = loop {
        if let Some(found) = stuck() {
            break found;
        }
    };
    assert_eq!(found["cause"], "rate_limited", "{found}");
    let row = bucket(&place, &["--waiting"]);
    assert_eq!((&row["waiting"][0]["calls"], &row["waiting"][0]["runs"]), (&json!(1), &json!(["two"])));
    drop(waiting);
    let shown = place.windlass(&["runs", "show", "two"]).json();
    assert_eq!(shown["usage"]["tool_calls"].as_u64().unwrap_or(0), 0, "{shown}");
}

#[test]
fn limits_that_cannot_be_are_refused_with_their_place() {
    for (wrong, what) in [
        ("calls = 1\nper = \"2d\"", "`limits.rates[2]` `per` is `1ms` to `24h`"),
        ("per = \"1m\"", "`limits.rates[2]` needs `calls` or `tokens`"),
        ("calls = 1\nper = \"1m\"\nmodel = \"gpt\"", "`limits.rates[2]` `gpt` is no model; write `PROVIDER/MODEL`"),
        ("calls = 1\nper = \"1m\"\nspeed = 3", "unknown field `speed`"),
    ] {
        let place = Place::new();
        place
            .write("windlass.toml", &format!("[[limits.rates]]\ncalls = 1\nper = \"1s\"\n[[limits.rates]]\n{wrong}\n"));
        let refused = place.windlass(&["limits"]);
        assert_eq!(refused.code(), 2, "{}", refused.shown());
        assert!(refused.stderr().contains(what), "{}", refused.shown());
    }
}
