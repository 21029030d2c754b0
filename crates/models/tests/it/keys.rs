//! Keys reach the provider they are for, and nobody else.

use windlass_core::failure::Code;
use windlass_core::value::Value;
use windlass_models::keys::Keys;
use windlass_models::{Models, ProviderSettings, key_variables};
use windlass_ports::model::Model;

use crate::http::request;
use crate::server::{Act, Server};
use crate::streams::{anthropic_text, openai_text};

const CANARY: &str = "sk-canary-0123456789";

#[tokio::test]
async fn the_key_is_sent_in_the_header_of_the_format() {
    for (provider, header, want, answer) in [
        ("openai", "authorization", format!("Bearer {CANARY}"), openai_text("x", "stop", true, false)),
        ("anthropic", "x-api-key", CANARY.to_owned(), anthropic_text("x", "end_turn", true, false)),
    ] {
        let server = Server::always(answer);
        let models = Models::builder().keys(Keys::default().secret("doc", format!("{CANARY}\n"))).build();
        let mut call = request(provider, &server.url);
        call.key = Some("doc".into());
        assert!(models.call(call).await.outcome.is_ok());
        assert_eq!(server.seen()[0].headers.get(header), Some(&want));
    }
}

#[tokio::test]
async fn a_reference_goes_before_configuration_and_configuration_before_the_environment() {
    let server = Server::always(openai_text("x", "stop", true, false));
    let keys = Keys::default().secret("doc", "sk-document").environment("OPENAI_API_KEY", "sk-environment");
    let here = ProviderSettings { base_url: Some(server.url.clone()), ..ProviderSettings::default() };
    let settings = ProviderSettings { api_key: Some("sk-configured".into()), ..here.clone() };
    let both = Models::builder().keys(keys.clone()).provider("openai", settings).build();
    let environment = Models::builder().keys(keys).provider("openai", here).build();
    let plain = request("openai", &server.url);
    let mut referring = plain.clone();
    referring.key = Some("doc".into());
    for (models, call) in [(&both, referring), (&both, plain.clone()), (&environment, plain)] {
        assert!(models.call(call).await.outcome.is_ok());
    }
    let sent: Vec<String> = server.seen().iter().map(|s| s.headers["authorization"].clone()).collect();
    assert_eq!(sent, ["Bearer sk-document", "Bearer sk-configured", "Bearer sk-environment"]);
}

#[tokio::test]
async fn what_is_for_a_provider_goes_to_no_address_of_a_document() {
    let server = Server::always(openai_text("x", "stop", true, false));
    let keys = Keys::default().environment("OPENAI_API_KEY", CANARY);
    let elsewhere = ProviderSettings {
        base_url: Some("https://models.example/v1".into()),
        api_key: Some(CANARY.into()),
        headers: [("x-gateway".to_owned(), CANARY.to_owned())].into(),
        ..ProviderSettings::default()
    };
    let gateway = Models::builder().keys(keys.clone()).provider("openai", elsewhere).build();
    for models in [&gateway, &Models::builder().keys(keys.clone()).build()] {
        assert!(models.call(request("openai", &server.url)).await.outcome.is_ok());
    }
    for seen in server.seen() {
        assert!(!format!("{:?}", seen.headers).contains(CANARY), "{:?}", seen.headers);
    }
    let catalog = format!("models: [{{name: ours, provider: openai, model: m, base_url: '{}/'}}]", server.url);
    let catalog = windlass_models::catalog::Catalog::parse(&catalog).expect("a catalog");
    let listed = Models::builder().keys(keys).catalog(catalog).build();
    assert!(listed.call(request("openai", &server.url)).await.outcome.is_ok());
    let last = server.seen().pop().expect("a request");
    assert_eq!(last.headers["authorization"], format!("Bearer {CANARY}"), "the operator named this address");
}

#[tokio::test]
async fn the_key_of_a_provider_does_not_stand_in_for_a_missing_one_elsewhere() {
    let server = Server::always(openai_text("x", "stop", true, false));
    let keys = Keys::default().environment("OPENAI_API_KEY", CANARY);
    let mut call = request("openai", &server.url);
    call.key = Some("gone".into());
    assert!(Models::builder().keys(keys.clone()).build().call(call.clone()).await.outcome.is_ok());
    let settings = ProviderSettings { base_url: Some(server.url.clone()), ..ProviderSettings::default() };
    assert!(Models::builder().keys(keys).provider("openai", settings).build().call(call).await.outcome.is_ok());
    let sent: Vec<Option<String>> = server.seen().iter().map(|s| s.headers.get("authorization").cloned()).collect();
    assert_eq!(sent, [None, Some(format!("Bearer {CANARY}"))]);
}

#[tokio::test]
async fn keys_are_cut_from_what_providers_say() {
    let body =
        format!(r#"{{"error":{{"message":"Incorrect API key: {CANARY}","type":"{CANARY}","code":"{CANARY}"}}}}"#);
    let server = Server::always(Act::json(401, &body).header("x-request-id", CANARY));
    let models = Models::builder().keys(Keys::default().environment("OPENAI_API_KEY", CANARY)).build();
    let result = models.call(request("openai", &server.url)).await;
    let shown = format!("{result:?} {models:?}");
    assert!(!shown.contains(CANARY), "{shown}");
    assert!(shown.contains("[redacted]"));
    assert_eq!(result.outcome.expect_err("refused").code, Code::ProviderAuth);
}

#[tokio::test]
async fn a_public_provider_without_a_key_is_not_called() {
    for provider in ["openai", "anthropic", "groq"] {
        let mut call = request(provider, "");
        call.base_url = None;
        let failure = Models::builder().build().call(call).await.outcome.expect_err("no key");
        assert_eq!(failure.code, Code::ProviderAuth);
        let variable = format!("{}_API_KEY", provider.to_uppercase());
        assert!(failure.message.contains(&variable), "{failure}");
        assert!(key_variables().any(|name| name == variable));
    }
}

#[tokio::test]
async fn a_key_that_is_missing_is_told_with_who_wants_it_and_how_it_is_set() {
    let said = async |keys: Keys, named: Option<&str>| {
        let mut call = request("openai", "");
        (call.base_url, call.key) = (None, named.map(Into::into));
        Models::builder().keys(keys).build().call(call).await.outcome.expect_err("no key").message
    };
    let kept = || Keys::default().provider_reference("openai", "secret:model-key");
    let told = said(kept(), None).await;
    assert!(told.contains("no key for `openai`, which serves the model `"), "{told}");
    assert!(told.contains("the secret `model-key` is not there: `windlass secrets set model-key` sets it"), "{told}");
    let told = said(kept(), Some("env:OTHER")).await;
    assert!(told.contains("the document names `env:OTHER`, which is not set"), "{told}");
}

#[tokio::test]
async fn a_key_that_no_header_takes_is_refused_without_being_shown() {
    let server = Server::always(openai_text("x", "stop", true, false));
    let here = ProviderSettings { base_url: Some(server.url.clone()), ..ProviderSettings::default() };
    let keys = Keys::default().provider("openai", "sk-canary\u{0}bad-key");
    let models = Models::builder().keys(keys).provider("openai", here).build();
    let failure = models.call(request("openai", &server.url)).await.outcome.expect_err("no header");
    assert_eq!(failure.code, Code::ProviderAuth);
    assert!(!failure.message.contains("canary"), "{failure}");
    assert_eq!(server.seen().len(), 0);
}

/// Without an API key requests to Bedrock are signed with access keys, in builds that sign.
#[tokio::test]
async fn bedrock_is_asked_with_access_keys_in_builds_that_sign() {
    let server = Server::always(Act::json(400, "{}"));
    let settings = ProviderSettings { base_url: Some(server.url.clone()), ..ProviderSettings::default() };
    let keys = windlass_models::AwsKeys {
        access_key_id: "AKID".into(),
        secret_access_key: "a-secret-of-aws".into(),
        session_token: Some("token".into()),
    };
    let models = Models::builder().provider("bedrock", settings).aws(keys).build();
    let mut asked = request("bedrock", "");
    asked.base_url = None;
    asked.params = Value::object([("region", Value::str("eu-west-1"))]);
    let failure = models.call(asked.clone()).await.outcome.expect_err("no answer");
    if cfg!(not(feature = "sigv4")) {
        assert_eq!(server.seen().len(), 0, "nothing was sent");
        assert!(failure.message.contains("`sigv4`"), "{failure}");
        return;
    }
    let headers = server.seen()[0].headers.clone();
    let signature = headers.get("authorization").expect("a signature");
    assert!(signature.starts_with("AWS4-HMAC-SHA256 Credential=AKID/"), "{signature}");
    assert!(signature.contains("/eu-west-1/bedrock/aws4_request"), "{signature}");
    assert_eq!(headers.get("x-amz-security-token").map(String::as_str), Some("token"));
    assert!(!headers.values().any(|value| value.contains("a-secret-of-aws")));
    // An address that a document gives gets no signature.
    let elsewhere = Server::always(Act::json(400, "{}"));
    asked.base_url = Some(elsewhere.url.as_str().into());
    models.call(asked).await.outcome.expect_err("no answer");
    assert!(elsewhere.seen().iter().all(|seen| !seen.headers.contains_key("authorization")));
}
