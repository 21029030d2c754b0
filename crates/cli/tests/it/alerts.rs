//! What the alert rules ask for is what `/metrics` of a serving process exports.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::kit::Place;

/// A process that serves, and its address.
struct Serving {
    child: Child,
    address: String,
}

impl Serving {
    fn start(place: &Place, args: &[&str]) -> Self {
        let mut command: Command = crate::kit::command(&place.path(""));
        command.args(["serve", "--listen", "127.0.0.1:0", "--store", "sqlite:w.db", "--json"]).args(args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("a line");
        let told: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let address = told["listen"].as_str().unwrap_or_else(|| panic!("no address in {line}")).to_owned();
        Self { child, address: address.trim_start_matches("http://").trim_end_matches('/').to_owned() }
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).expect("connects");
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address);
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        answer
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// Names of metrics in the rules: words that are ours.
fn asked() -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/alerts.yml");
    let text = std::fs::read_to_string(path).expect("the rules");
    let words = text
        .lines()
        .filter(|line| !line.trim_start().starts_with(['#', '-']) && !line.contains("summary:"))
        .flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    words
        .filter(|word| ["windlass_", "agent_", "tool_", "queue_"].iter().any(|ours| word.starts_with(ours)))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_metric_of_the_alert_rules_is_exported() {
    let place = Place::new();
    let objectives = "[objectives.each]\np95_cost_micros = 5\n[objectives.daily]\nday_cost_micros = 5\n";
    place.write("windlass.toml", objectives);
    let queued = ["run", "asks.yml", "--input", "{}", "--run-id", "q", "--pool", "gpu", "--detach", "--store"];
    let ran = place.windlass(&[&queued[..], &["sqlite:w.db"]].concat());
    assert_eq!(ran.code(), 0, "{}", ran.shown());
    let copied = place.windlass(&["store", "backup", "copy.db", "--store", "sqlite:w.db"]);
    assert_eq!(copied.code(), 0, "{}", copied.shown());
    let set = ["budgets", "set", "environment", "--tokens", "1000", "--store", "sqlite:w.db"];
    assert_eq!(place.windlass(&set).code(), 0);
    // No worker here takes runs of that pool, so it stays in the queue.
    let serving = Serving::start(&place, &["--pool", "default"]);
    let metrics = serving.get("/metrics");
    let asked = asked();
    assert!(asked.len() >= 8, "{asked:?}");
    let exported: BTreeSet<&str> =
        metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let missing: Vec<&String> = asked.iter().filter(|name| !exported.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?} are not among\n{metrics}");
    assert!(metrics.contains("agent_runs_total{status=\"completed\"} "), "{metrics}");
    assert!(metrics.contains("windlass_queue_oldest_seconds{pool=\"gpu\""), "{metrics}");
}
