//! Addresses of models that documents name, through the configured models: what may not be reached is not connected to, and
//! nobody's key goes along.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use windlass::Code;
use windlass::wire::Wiring;
use windlass_core::effect::Spent;
use windlass_ports::conformance::model::question;
use windlass_ports::model::{Model, ModelResult};
use windlass_tools::CatalogConfig;
use windlass_tools::config::OutboundConfig;

#[path = "../../../tools/tests/it/corpus.rs"]
mod corpus;

use corpus::CORPUS;

const CANARY: &str = "sk-canary-of-the-operator";
/// One provider for each format that requests are written in.
const PROVIDERS: [&str; 6] = ["openai", "openai-responses", "anthropic", "gemini", "bedrock", "ollama"];

/// Answers everybody with nothing, and keeps what they sent.
fn listening() -> (u16, Arc<Mutex<Vec<String>>>) {
    let four = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = four.local_addr().expect("an address").port();
    // The same port over IPv6, where this host has that and the port is free.
    let six = TcpListener::bind(("::1", port)).ok();
    let heard = Arc::new(Mutex::new(Vec::new()));
    for listener in [Some(four), six].into_iter().flatten() {
        let kept = Arc::clone(&heard);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut bytes = [0; 4_096];
                let read = stream.read(&mut bytes).unwrap_or(0);
                kept.lock().expect("kept").push(String::from_utf8_lossy(&bytes[..read]).into_owned());
                let _gone = stream.write_all(b"HTTP/1.1 400 no\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}");
            }
        });
    }
    (port, heard)
}

fn wiring(outbound: OutboundConfig) -> Wiring {
    Wiring {
        environment: Arc::new(|name: &str| name.ends_with("_API_KEY").then(|| CANARY.into())),
        catalog: CatalogConfig { outbound, ..CatalogConfig::default() },
        ..Wiring::default()
    }
}

async fn asked(models: &impl Model, provider: &str, address: &str) -> ModelResult {
    models.call(question(provider, address)).await
}

#[tokio::test]
async fn nothing_of_the_corpus_is_connected_to() {
    let (port, heard) = listening();
    let outbound = OutboundConfig { local_models: false, ..OutboundConfig::default() };
    let models = wiring(outbound).models(&BTreeMap::new(), None).expect("models");
    for provider in PROVIDERS {
        for address in CORPUS {
            let address = address.replace("{port}", &port.to_string());
            let result = asked(&models, provider, &address).await;
            let failure = result.outcome.expect_err(&address);
            let refused = matches!(failure.code, Code::PolicyDenied | Code::ProviderInvalidRequest);
            assert!(refused, "{provider} {address:?}: {failure}");
            assert_eq!(result.spent, Spent::Unsent, "{provider} {address:?}");
        }
    }
    assert_eq!(*heard.lock().expect("heard"), Vec::<String>::new());
}

#[tokio::test]
async fn models_on_this_host_are_called_where_that_is_allowed_and_without_a_key() {
    let (port, heard) = listening();
    let local = wiring(OutboundConfig::default()).models(&BTreeMap::new(), None).expect("models");
    let allow = vec![format!("127.0.0.1:{port}")];
    let written = wiring(OutboundConfig { allow, local_models: false, ..OutboundConfig::default() })
        .models(&BTreeMap::new(), None)
        .expect("models");
    for provider in PROVIDERS {
        let before = heard.lock().expect("heard").len();
        for models in [&local, &written] {
            asked(models, provider, &format!("http://127.0.0.1:{port}/v1"))
                .await
                .outcome
                .expect_err("nothing is answered");
        }
        assert_eq!(heard.lock().expect("heard").len(), before + 2, "{provider}");
        for address in ["http://169.254.169.254/v1", "http://10.0.0.1/v1", "http://[fd00:ec2::254]/v1"] {
            let failure = asked(&local, provider, address).await.outcome.expect_err("refused");
            assert_eq!(failure.code, Code::PolicyDenied, "{provider} {address}: {failure}");
        }
    }
    let heard = heard.lock().expect("heard").join("\n");
    assert!(!heard.contains(CANARY), "{heard}");
}

#[tokio::test]
async fn models_of_documents_are_called_at_the_hosts_of_the_tenant_alone() {
    let (port, heard) = listening();
    let of = |tenant: &str, hosts: Vec<String>| {
        let tenants = [(tenant.to_owned(), hosts)].into();
        let allow = vec![format!("127.0.0.1:{port}")];
        let outbound = OutboundConfig { allow, tenants, ..OutboundConfig::default() };
        wiring(outbound).models(&BTreeMap::new(), None).expect("models")
    };
    // Questions are of the tenant `default`.
    let (named, others) = (of("default", vec![format!("127.0.0.1:{port}")]), of("other", Vec::new()));
    let unnamed = of("default", vec!["api.acme.com".to_owned()]);
    for provider in PROVIDERS {
        let address = format!("http://127.0.0.1:{port}/v1");
        let before = heard.lock().expect("heard").len();
        let refused = asked(&unnamed, provider, &address).await;
        let failure = refused.outcome.expect_err("refused");
        assert_eq!((failure.code, refused.spent), (Code::PolicyDenied, Spent::Unsent), "{provider}: {failure}");
        assert!(failure.message.contains("none of the hosts that documents of tenant `default` may name"), "{failure}");
        assert_eq!(heard.lock().expect("heard").len(), before, "{provider}");
        for models in [&named, &others] {
            asked(models, provider, &address).await.outcome.expect_err("nothing is answered");
        }
        assert_eq!(heard.lock().expect("heard").len(), before + 2, "{provider}");
    }
}
