//! The operator's own secrets at the last hop: a value that is rotated is sent from the next call on, without a restart.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use windlass::secrets::{Commands, SecretFile};
use windlass::wire::{ProviderConfig, Wiring};
use windlass::{Code, Failure, Invocation, RunId, Value};
use windlass_core::effect::Spent;
use windlass_core::input::Quote;
use windlass_core::machine::ModelSettings;
use windlass_core::request::ModelRequest;
use windlass_core::time::Timestamp;
use windlass_core::transcript::{Finish, Message, Reply, ToolRequest, Usage};
use windlass_ports::BoxFuture;
use windlass_ports::model::{Model, ModelResult};
use windlass_ports::tool::{Catalog, Permit};
use windlass_tools::CatalogConfig;

/// A server that keeps the `x-key` of each request and says it back.
fn server() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let keys = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&keys);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            answer(stream, &kept);
        }
    });
    (address, keys)
}

fn answer(stream: TcpStream, kept: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream);
    let mut key = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
            break;
        }
        if let Some(value) = line.strip_prefix("x-key: ") {
            key = value.trim().to_owned();
        }
    }
    let body = format!("{{\"said\": \"you sent {key}\"}}");
    kept.lock().expect("kept").push(key);
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n", body.len());
    let _gone = reader.get_mut().write_all(format!("{head}connection: close\r\n\r\n{body}").as_bytes());
}

async fn call(catalog: &Catalog) -> String {
    let invocation = Invocation {
        name: "look".into(),
        arguments: Value::empty_map(),
        idempotency_key: "k".into(),
        trace: None,
        run: RunId::new("r").expect("an id"),
        tenant: "default".into(),
        attempt: 1,
        timeout_ms: 5_000,
        output_bytes_max: 10_000,
        permit: Permit::default(),
    };
    catalog.tools["look"].call(invocation).await.expect("answered").to_json()
}

#[tokio::test]
async fn a_rotated_secret_is_sent_from_the_next_call_on_and_neither_value_comes_back() {
    let (address, keys) = server();
    let folder = tempfile::tempdir().expect("a folder");
    let file = Arc::new(SecretFile::new(folder.path().join("secrets.json")));
    file.set("crm", &"first-value-of-it".into(), Timestamp(1), 0).expect("set");
    let table = format!(
        "type = 'http'\nurl = 'http://{address}/'\nclass = 'read'\nsecret_headers = {{ x-key = 'secret:crm' }}\n"
    );
    let tools = BTreeMap::from([("look".to_owned(), toml::from_str(&table).expect("a table"))]);
    let catalog = CatalogConfig { tools, ..CatalogConfig::default() };
    let wiring = Wiring { catalog, secrets: Some(Arc::clone(&file)), ..Wiring::default() };
    let catalog = wiring.catalog().expect("a catalog");
    assert!(!call(&catalog).await.contains("first-value"));
    // Another process rotates it.
    let other = SecretFile::new(file.path());
    other.set("crm", &"second-value-of-it".into(), Timestamp(2), 1_000).expect("rotated");
    assert!(!call(&catalog).await.contains("second-value"));
    other.restore("crm", Timestamp(3), 1_000).expect("back");
    call(&catalog).await;
    let sent = keys.lock().expect("kept").clone();
    assert_eq!(sent, ["first-value-of-it", "second-value-of-it", "first-value-of-it"]);
}

#[tokio::test]
async fn a_secret_that_a_command_tells_is_sent_and_followed_and_no_value_of_it_comes_back() {
    let (address, keys) = server();
    let folder = tempfile::tempdir().expect("a folder");
    let keep = |text: &str| {
        std::fs::write(folder.path().join("next"), text).expect("written");
        std::fs::rename(folder.path().join("next"), folder.path().join("kept")).expect("in place");
    };
    keep("first-value-of-it\n");
    let commands = Commands {
        programs: BTreeMap::from([("crm".to_owned(), vec!["cat".to_owned(), "kept".to_owned()])]),
        folder: folder.path().to_owned(),
        timeout: Duration::from_secs(60),
        fresh: Duration::ZERO,
    };
    let file = Arc::new(SecretFile::new(folder.path().join("secrets.json")).asking(commands));
    let refused = file.set("crm", &"another-value".into(), Timestamp(1), 0).expect_err("refused");
    assert!(refused.to_string().contains("told by a command"), "{refused}");
    let table = format!(
        "type = 'http'\nurl = 'http://{address}/'\nclass = 'read'\nsecret_headers = {{ x-key = 'secret:crm' }}\n"
    );
    let tools = BTreeMap::from([("look".to_owned(), toml::from_str(&table).expect("a table"))]);
    let catalog = CatalogConfig { tools, ..CatalogConfig::default() };
    let wiring = Wiring { catalog, secrets: Some(Arc::clone(&file)), ..Wiring::default() };
    let checks = Wiring { needs_secrets: false, ..wiring.clone() };
    checks.catalog().expect("a catalog");
    assert!(file.values().is_empty(), "what calls nothing asks for nothing");
    let catalog = wiring.catalog().expect("a catalog");
    assert!(!call(&catalog).await.contains("first-value"));
    keep("second-value-of-it\n");
    // It is asked for in the background: sooner or later the other value is sent.
    loop {
        assert!(!call(&catalog).await.contains("value-of-it"), "neither comes back");
        if keys.lock().expect("kept").last().is_some_and(|sent| sent == "second-value-of-it") {
            break;
        }
    }
    std::fs::remove_file(folder.path().join("kept")).expect("removed");
    file.ask("crm").expect_err("it is gone");
    call(&catalog).await;
    assert_eq!(keys.lock().expect("kept").last().map(String::as_str), Some("second-value-of-it"), "the last one stays");
}

/// A model that says what it was asked, and fails with it.
#[derive(Debug)]
struct Echo {
    fails: bool,
}

impl Model for Echo {
    fn call(&self, request: ModelRequest) -> BoxFuture<'_, ModelResult> {
        let Some(Message::User { content }) = request.messages.first() else { panic!("a question") };
        let asks = Value::object([("key", Value::Str(content.clone()))]);
        let reply = Reply {
            content: content.clone(),
            has_content: true,
            tool_calls: vec![ToolRequest { id: "c".into(), name: "t".into(), arguments: asks.clone() }],
            finish: Finish::Stop,
            usage: Usage::default(),
            cost_micros: None,
            prices: None,
            attachments: Value::Null,
            provider_data: asks.clone(),
        };
        let failure = Failure::new(Code::ProviderRefused, format!("no: {content}")).detail(asks);
        let outcome = if self.fails { Err(failure) } else { Ok(reply) };
        async move { ModelResult { outcome, spent: Spent::Unknown } }.boxed()
    }

    fn quote(&self, _: &ModelSettings) -> Option<Quote> {
        None
    }
}

async fn said(model: &Arc<dyn Model>, said: &str) -> String {
    let text = r#"{"agent":"a","provider":"x","model":"m","base_url":null,"key":null,"messages":[],"tools":[],
        "output_schema":null,"max_tokens":1,"params":null,"stream":false,"timeout_ms":1000,"idempotency_key":"k"}"#;
    let mut request: ModelRequest = serde_json::from_str(text).expect("a request");
    request.messages = vec![Message::User { content: said.into() }];
    format!("{:?}", model.call(request).await.outcome)
}

#[tokio::test]
async fn what_models_send_back_has_no_secret_of_anybody() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = Arc::new(SecretFile::new(folder.path().join("secrets.json")));
    file.set("other", &"operators-own-value".into(), Timestamp(1), 0).expect("set");
    let table = "type = 'http'\nurl = 'http://127.0.0.1:1/'\nclass = 'read'\napi_key = 'env:TOOL_KEY'\n";
    let tools = BTreeMap::from([("look".to_owned(), toml::from_str(table).expect("a table"))]);
    let wiring = Wiring {
        catalog: CatalogConfig { tools, ..CatalogConfig::default() },
        providers: BTreeMap::from([("acme".to_owned(), ProviderConfig::default())]),
        secrets: Some(Arc::clone(&file)),
        environment: Arc::new(|name| match name {
            "TOOL_KEY" => Some("key-of-a-tool".into()),
            "ACME_API_KEY" => Some("key-of-a-provider".into()),
            _ => None,
        }),
        ..Wiring::default()
    };
    for fails in [false, true] {
        let model = wiring.scanned(Arc::new(Echo { fails }));
        for secret in ["key-of-a-tool", "key-of-a-provider", "operators-own-value"] {
            let said = said(&model, &format!("you sent Bearer {secret}")).await;
            assert!(said.contains("[redacted]") && !said.contains(secret), "{said}");
        }
    }
    let model = wiring.scanned(Arc::new(Echo { fails: false }));
    file.set("other", &"operators-new-value".into(), Timestamp(2), 0).expect("rotated");
    assert!(!said(&model, "operators-new-value").await.contains("operators-new-value"));
}

#[test]
fn what_is_not_kept_or_may_be_read_by_others_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let file = Arc::new(SecretFile::new(folder.path().join("secrets.json")));
    let table = "type = 'http'\nurl = 'http://127.0.0.1:1/'\nclass = 'read'\napi_key = 'secret:crm'\n";
    let tools = BTreeMap::from([("look".to_owned(), toml::from_str(table).expect("a table"))]);
    let catalog = CatalogConfig { tools, ..CatalogConfig::default() };
    let wiring = Wiring { catalog, secrets: Some(Arc::clone(&file)), ..Wiring::default() };
    let error = wiring.catalog().expect_err("nothing is kept");
    assert!(error.message.contains("secret:crm"), "{error}");
    file.set("crm", &"value".into(), Timestamp(1), 0).expect("set");
    assert!(wiring.catalog().is_ok());
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).expect("changed");
    assert_eq!(wiring.catalog().expect_err("others may read it").key.as_deref(), Some("secrets.file"));
}
