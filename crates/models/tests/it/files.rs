//! Files in the form of every provider, and refused where one does not take them.

use windlass_core::effect::Spent;
use windlass_core::failure::Code;
use windlass_core::file::{File, Medium};
use windlass_core::transcript::{Message, ToolRequest};
use windlass_core::value::Value;
use windlass_models::{Kind, Models, ProviderSettings};
use windlass_ports::model::{Model, ModelResult};

use crate::http::request;
use crate::server::{Act, Server};

fn image() -> File {
    File { mime: "image/png".into(), ..File::new("cat.png", b"abc") }
}

fn pdf() -> File {
    File { mime: "application/pdf".into(), ..File::new("the report.v1.pdf", b"abcd") }
}

/// What a provider of this kind is sent; the server answers with an error, which does not matter here.
async fn sent(kind: Kind, files: Vec<File>, takes: Option<Vec<Medium>>) -> (ModelResult, Option<Value>) {
    let server = Server::always(Act::json(400, "{}"));
    let settings = ProviderSettings { kind: Some(kind), takes, ..ProviderSettings::default() };
    let models = Models::builder().provider("p", settings).build();
    let mut request = request("p", &server.url);
    let call = ToolRequest { id: "c1".into(), name: "t".into(), arguments: Value::empty_map() };
    request.messages = vec![
        Message::System { content: "s".into() },
        Message::User { content: "What is it?".into() },
        Message::Assistant { content: "".into(), tool_calls: vec![call], attachments: Value::Null },
        Message::Tool { call_id: "c1".into(), content: "r".into(), is_error: false },
    ];
    request.files = files;
    let result = models.call(request).await;
    (result, server.seen().first().map(|seen| seen.body.clone()))
}

async fn turn(kind: Kind, turns: &str, place: usize, parts: &str) -> String {
    let takes = if kind == Kind::Ollama { None } else { Some(vec![Medium::Image, Medium::Pdf]) };
    let files = if kind == Kind::Ollama { vec![image()] } else { vec![image(), pdf()] };
    let (_, body) = sent(kind, files, takes).await;
    let body = body.expect("it was sent");
    let turn = &body.get(turns).and_then(Value::as_list).expect("turns")[place];
    turn.get(parts).expect("parts").to_json()
}

#[tokio::test]
async fn every_format_has_its_parts_for_files() {
    assert_eq!(
        turn(Kind::OpenAi, "messages", 1, "content").await,
        r#"[{"type":"image_url","image_url":{"url":"data:image/png;base64,YWJj"}},{"type":"file","file":{"filename":"the report.v1.pdf","file_data":"data:application/pdf;base64,YWJjZA=="}},{"type":"text","text":"What is it?"}]"#
    );
    assert_eq!(
        turn(Kind::OpenAiResponses, "input", 1, "content").await,
        r#"[{"type":"input_image","image_url":"data:image/png;base64,YWJj"},{"type":"input_file","filename":"the report.v1.pdf","file_data":"data:application/pdf;base64,YWJjZA=="},{"type":"input_text","text":"What is it?"}]"#
    );
    assert_eq!(
        turn(Kind::Anthropic, "messages", 0, "content").await,
        r#"[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"YWJj"}},{"type":"document","source":{"type":"base64","media_type":"application/pdf","data":"YWJjZA=="}},{"type":"text","text":"What is it?"}]"#
    );
    assert_eq!(
        turn(Kind::Gemini, "contents", 0, "parts").await,
        r#"[{"inlineData":{"mimeType":"image/png","data":"YWJj"}},{"inlineData":{"mimeType":"application/pdf","data":"YWJjZA=="}},{"text":"What is it?"}]"#
    );
    assert_eq!(
        turn(Kind::Bedrock, "messages", 0, "content").await,
        r#"[{"image":{"format":"png","source":{"bytes":"YWJj"}}},{"document":{"format":"pdf","name":"the-report-v1-pdf","source":{"bytes":"YWJjZA=="}}},{"text":"What is it?"}]"#
    );
    assert_eq!(turn(Kind::Ollama, "messages", 1, "images").await, r#"["YWJj"]"#);
    assert_eq!(turn(Kind::Ollama, "messages", 1, "content").await, r#""What is it?""#);
}

#[tokio::test]
async fn what_a_provider_is_not_known_to_take_is_not_sent() {
    let text = File::new("a.csv", b"abc");
    let cases = [
        (Kind::OpenAi, pdf(), None),
        (Kind::OpenAi, image(), Some(vec![])),
        (Kind::Ollama, pdf(), Some(vec![Medium::Pdf])),
        (Kind::Anthropic, text.clone(), None),
        (Kind::Gemini, image(), Some(vec![Medium::Pdf])),
        (Kind::Bedrock, text, Some(vec![Medium::Image, Medium::Pdf])),
    ];
    for (kind, file, takes) in cases {
        let name = file.name.clone();
        let (result, body) = sent(kind, vec![file], takes).await;
        let failure = result.outcome.expect_err("refused");
        assert_eq!((failure.code, result.spent), (Code::ProviderInvalidRequest, Spent::Unsent), "{kind:?}");
        assert!(failure.message.contains(&*name), "{failure}");
        assert_eq!(body, None, "{kind:?}");
    }
}

#[tokio::test]
async fn the_catalog_says_what_a_model_takes() {
    let server = Server::always(Act::json(400, "{}"));
    let catalog = "models: [{name: blind, provider: p, model: m, takes: []}, {name: reader, provider: p, model: n, takes: [pdf]}]";
    let catalog = windlass_models::catalog::Catalog::parse(catalog).expect("a catalog");
    let models = Models::builder().catalog(catalog).build();
    for (model, file, is_sent) in [("m", image(), false), ("n", pdf(), true), ("n", image(), false)] {
        let mut request = request("p", &server.url);
        (request.model, request.files) = (model.into(), vec![file]);
        let before = server.seen().len();
        models.call(request).await.outcome.expect_err("refused or an error");
        assert_eq!(server.seen().len() > before, is_sent, "{model}");
    }
}
