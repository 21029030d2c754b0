//! The operator's own secrets at the last hop: a value that is rotated is sent from the next call on, without a restart.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use windlass::secrets::SecretFile;
use windlass::wire::Wiring;
use windlass::{Invocation, RunId, Value};
use windlass_core::time::Timestamp;
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
