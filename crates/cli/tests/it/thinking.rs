//! What models thought is in nothing that commands show or write, but its size and hash; with the setting it is. Providers
//! get it back as it was.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::kit::Place;

/// What nothing else has.
const CANARY: &str = "canary8c2f-thought";

const MACHINE: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: thinks
  settings: {tools: [pay, look]}
  agents:
    one:
      spec: flatagent
      spec_version: "4.2.1"
      data:
        name: one
        model: { provider: chat, name: small, max_tokens: 100 }
        user: Pay.
    other:
      spec: flatagent
      spec_version: "4.2.1"
      data:
        name: other
        model: { provider: blocks, name: small, max_tokens: 100 }
        user: Pay.
  states:
    first:
      type: initial
      agent: one
      output_to_context: {said: output.content}
      transitions: [{to: second}]
    second:
      agent: other
      tool_loop: {max_turns: 4}
      transitions: [{to: done}]
    done: {type: final, output: {said: context.said}}
"#;

fn config(address: &str) -> String {
    format!(
        r#"[providers.chat]
kind = "openai"
base_url = "http://{address}/v1"
[providers.blocks]
kind = "anthropic"
base_url = "http://{address}"
[tools.look]
type = "command"
command = ["sh", "-c", "echo '{{\"found\": 1}}'"]
class = "read"
idempotency = "natural"
[tools.pay]
type = "command"
command = ["sh", "-c", "echo '{{\"paid\": true}}'"]
class = "write"
approval = "always"
"#
    )
}

/// A server that thinks, as two providers do. Keeps what it was sent.
fn thinker() -> (String, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let sent = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&sent);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            answer(stream, &kept);
        }
    });
    (address, sent)
}

fn answer(stream: TcpStream, kept: &Mutex<String>) {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        if line == "\r\n" {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    let asked = String::from_utf8(body).expect("text");
    let body = if head.starts_with("POST /v1/chat") {
        format!(
            r#"{{"choices":[{{"index":0,"finish_reason":"stop","message":{{"role":"assistant","content":"four",
            "reasoning_content":"{CANARY}"}}}}],"usage":{{"prompt_tokens":3,"completion_tokens":2}}}}"#
        )
    } else {
        let tool = if asked.contains("tool_result") { "pay" } else { "look" };
        format!(
            r#"{{"type":"message","role":"assistant","stop_reason":"tool_use","content":[
            {{"type":"thinking","thinking":"{CANARY}","signature":"{CANARY}-signed"}},
            {{"type":"tool_use","id":"{tool}-1","name":"{tool}","input":{{}}}}],
            "usage":{{"input_tokens":3,"output_tokens":2}}}}"#
        )
    };
    kept.lock().expect("kept").push_str(&asked);
    let text = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    reader.get_mut().write_all(text.as_bytes()).expect("answered");
}

/// Everything that is shown and written of one run, by the command.
fn looks(place: &Place, capture: &str, part: &str) -> Vec<(String, String)> {
    let (data, whole) = (format!("{part}-run.jsonl"), format!("{part}-tenant.jsonl"));
    let mut seen = Vec::new();
    for args in [
        &["runs", "show", "r"][..],
        &["runs", "journal", "r"],
        &["runs", "watch", "r", "--once"],
        &["replay", "r"],
        &["replay", "r", "--to", "4"],
        &["debug", "show", capture],
        &["approvals", "list"],
        &["policy", "why", "r"],
        &["export", "--run", "r", "--out", &data],
        &["export", "--tenant", "acme", "--out", &whole],
    ] {
        let forms: &[&str] = if args[0] == "export" { &["--json"] } else { &["--json", "--plain"] };
        for form in forms {
            let args: Vec<&str> = args.iter().copied().chain([*form]).collect();
            let ran = place.windlass(&args);
            assert_eq!(ran.code(), 0, "{args:?}: {}", ran.shown());
            seen.push((args.join(" "), ran.shown()));
        }
    }
    for file in [data, whole] {
        seen.push((file.clone(), std::fs::read_to_string(place.path(&file)).expect("a file")));
    }
    seen
}

#[test]
fn what_models_thought_is_shown_only_with_the_setting() {
    let (address, sent) = thinker();
    let place = Place::new();
    place.write("thinks.yml", MACHINE);
    place.write("windlass.toml", &config(&address));
    let asks = ["debug", "capture", "--tenant", "acme", "--for", "15m", "--reason", "a test", "--json"];
    let capture = place.with(&asks, |command| {
        command.env("USER", "olga");
    });
    assert_eq!(capture.code(), 0, "{}", capture.shown());
    let capture = capture.json()["capture"].as_str().expect("a name").to_owned();
    let ran =
        place.windlass(&["run", "thinks.yml", "--run-id", "r", "--tenant", "acme", "--events", "e.jsonl", "--json"]);
    assert_eq!(ran.code(), 7, "{}", ran.shown());
    assert!(sent.lock().expect("kept").contains(CANARY), "what was thought goes back to its provider");
    let mut seen = looks(&place, &capture, "hidden");
    seen.push(("run".into(), ran.shown()));
    seen.push(("e.jsonl".into(), std::fs::read_to_string(place.path("e.jsonl")).expect("events")));
    for (by, text) in &seen {
        assert!(!text.contains(CANARY), "`{by}` shows it: {text}");
    }
    let with = |wanted: &[&str], mark: &str, seen: &[(String, String)]| {
        for by in wanted {
            let found = seen.iter().any(|(args, text)| args.starts_with(by) && text.contains(mark));
            assert!(found, "`{by}` has no {mark}");
        }
    };
    let all = ["runs show r --json", "runs journal r --json", "runs journal r --plain", "replay r --json"];
    let files = ["debug show", "hidden-run.jsonl", "hidden-tenant.jsonl"];
    with(&[&all[..], &files].concat(), r#""hidden":"thinking""#, &compact(seen));

    place.write("windlass.toml", &format!("{}[policy]\nshow_thinking = true\n", config(&address)));
    let seen = looks(&place, &capture, "shown");
    with(&[&all[..], &["debug show", "shown-run.jsonl", "shown-tenant.jsonl"]].concat(), CANARY, &seen);
}

/// The same without the spaces of JSON that is laid out.
fn compact(seen: Vec<(String, String)>) -> Vec<(String, String)> {
    seen.into_iter().map(|(by, text)| (by, text.replace("\": \"", "\":\""))).collect()
}
