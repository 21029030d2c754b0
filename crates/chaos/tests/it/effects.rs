//! The counting server tells the truth, also about what was sent by someone who is gone.

use std::time::Instant;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use windlass_chaos::effects::{Effects, Fate, Kind, Manners};

fn request(worker: &str, what: &str, key: &str, body: &Value) -> String {
    let body = body.to_string();
    format!(
        "POST /w/{worker}/tools/{what} HTTP/1.1\r\nidempotency-key: {key}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn address(effects: &Effects) -> String {
    let base = effects.base("x");
    base.trim_start_matches("http://").split('/').next().expect("an address").to_owned()
}

/// Sends a request and gives the body of the answer, null when there is none.
async fn ask(effects: &Effects, text: &str) -> Value {
    let mut stream = TcpStream::connect(address(effects)).await.expect("a connection");
    stream.write_all(text.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    let mut bytes = [0; 4096];
    loop {
        let size = stream.read(&mut bytes).await.unwrap_or(0);
        answer.extend_from_slice(&bytes[..size]);
        let text = String::from_utf8_lossy(&answer).into_owned();
        let Some((_, body)) = text.split_once("\r\n\r\n") else {
            if size == 0 {
                return Value::Null;
            }
            continue;
        };
        if let Ok(body) = serde_json::from_str(body) {
            return body;
        }
    }
}

#[tokio::test]
async fn everything_is_written_down_in_the_order_it_arrives() {
    let effects = Effects::start(Manners::default(), Instant::now()).expect("a server");
    for (worker, what) in [("1.0", "look"), ("2.0", "pay")] {
        let answer = ask(&effects, &request(worker, what, "r#1", &json!({"order": 7}))).await;
        assert_eq!(answer, json!({"done": what}));
    }
    let log = effects.log();
    let seen: Vec<_> = log.iter().map(|deed| (&*deed.worker, &*deed.what, &*deed.key, deed.fate)).collect();
    assert_eq!(seen, [("1.0", "look", "r#1", Fate::Done), ("2.0", "pay", "r#1", Fate::Done)]);
    assert_eq!(log[1].arguments, json!({"order": 7}));
    assert_eq!(effects.in_flight("1.0"), 0);
}

#[tokio::test]
async fn a_repeat_of_a_key_is_done_once_by_those_that_know_keys() {
    let manners = Manners { keyed: ["tag".to_owned()].into(), ..Manners::default() };
    let effects = Effects::start(manners, Instant::now()).expect("a server");
    for _ in 0..2 {
        for what in ["tag", "pay"] {
            let answer = ask(&effects, &request("1.0", what, &format!("r#{what}"), &Value::Null)).await;
            assert_eq!(answer, json!({"done": what}), "a repeat is answered like the first");
        }
    }
    let fates: Vec<_> = effects.log().into_iter().map(|deed| (deed.what, deed.fate)).collect();
    let expected = [("tag", Fate::Done), ("pay", Fate::Done), ("tag", Fate::Repeat), ("pay", Fate::Done)];
    assert_eq!(fates, expected.map(|(what, fate)| (what.to_owned(), fate)));
}

#[tokio::test]
async fn what_a_dead_worker_had_sent_counts_before_anyone_is_told_that_it_did_not_happen() {
    let manners = Manners { verifiers: ["happened".to_owned()].into(), ..Manners::default() };
    let effects = Effects::start(manners, Instant::now()).expect("a server");
    for round in 0..200 {
        let key = format!("r#{round}");
        // Sent with blocking calls, so that the server had no chance to look at it before the question comes.
        let mut worker = std::net::TcpStream::connect(address(&effects)).expect("a connection");
        std::io::Write::write_all(&mut worker, request("1.0", "pay", &key, &Value::Null).as_bytes()).expect("sent");
        drop(worker);
        let question = json!({"effect_id": key, "tool": "pay"});
        let answer = ask(&effects, &request("2.0", "happened", "r#v", &question)).await;
        assert_eq!(answer, json!({"happened": true, "result": {"done": "pay"}}), "round {round}");
    }
    let answer =
        ask(&effects, &request("2.0", "happened", "r#v", &json!({"effect_id": "r#none", "tool": "pay"}))).await;
    assert_eq!(answer["happened"], json!(false));
}

#[tokio::test]
async fn bad_manners_are_written_down_as_what_they_are() {
    let seen = |manners: Manners| async move {
        let effects = Effects::start(manners, Instant::now()).expect("a server");
        let answer = ask(&effects, &request("1.0", "pay", "r#1", &Value::Null)).await;
        let deed = effects.log().remove(0);
        (answer.is_null(), deed.fate, deed.fate.happened())
    };
    assert_eq!(seen(Manners { refused: 1000, ..Manners::default() }).await, (false, Fate::Refused, false));
    assert_eq!(seen(Manners { closed_before: 1000, ..Manners::default() }).await, (true, Fate::ClosedBefore, false));
    assert_eq!(seen(Manners { closed_after: 1000, ..Manners::default() }).await, (true, Fate::ClosedAfter, true));
}

#[tokio::test]
async fn a_model_asks_for_every_tool_once() {
    let manners = Manners { model_asks: vec!["look".into(), "pay".into()], ..Manners::default() };
    let effects = Effects::start(manners, Instant::now()).expect("a server");
    let turn = |messages: Value| {
        let body = json!({"model": "m", "tools": [{}], "messages": messages}).to_string();
        format!("POST /w/1.0/v1/chat/completions HTTP/1.1\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    let first = ask(&effects, &turn(json!([{"role": "user", "content": "7"}]))).await;
    let calls = first["choices"][0]["message"]["tool_calls"].as_array().expect("calls").len();
    assert_eq!((calls, &first["choices"][0]["finish_reason"]), (2, &json!("tool_calls")));
    let messages = json!([{"role": "user", "content": "7"}, {"role": "tool", "content": "x"}]);
    assert_eq!(ask(&effects, &turn(messages)).await["choices"][0]["finish_reason"], json!("stop"));
    assert_eq!(effects.log()[0].kind, Kind::Model);
}
