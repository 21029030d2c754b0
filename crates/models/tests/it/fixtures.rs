//! Answers and errors in the full shape in which the providers document them, and what they become.

use std::path::{Path, PathBuf};

use windlass_core::failure::Retry;
use windlass_core::value::Value;
use windlass_models::Models;
use windlass_ports::model::Model;

use crate::formats::{Format, aws, lines};
use crate::http::request;
use crate::server::{Act, Server};

fn folder(format: Format) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(format.provider())
}

/// What a server sends that plays a file: `.json` as a whole answer, `.sse`, `.ndjson` and `.frames` as a stream.
fn act(file: &Path) -> Act {
    let bytes = std::fs::read(file).expect("a file");
    let text = String::from_utf8_lossy(&bytes);
    match &*file.extension().expect("a kind").to_string_lossy() {
        "sse" => Act::stream(&bytes),
        "ndjson" => lines(&text.lines().map(str::to_owned).collect::<Vec<_>>()),
        "frames" => {
            let frame = |line: &str| {
                let pair = Value::from_json(line).expect("JSON");
                let pair = pair.as_list().expect("a pair");
                (pair[0].as_str().expect("a name").to_owned(), pair[1].to_json())
            };
            let frames: Vec<(String, String)> = text.lines().map(frame).collect();
            aws(&frames.iter().map(|(name, data)| (name.as_str(), data.clone())).collect::<Vec<_>>())
        }
        _ => Act::json(200, &text),
    }
}

/// A stream of a format as its provider documents it: `text` or `tools`.
pub(crate) fn documented(format: Format, name: &str) -> Act {
    let kind = match format {
        Format::Bedrock => "frames",
        Format::Ollama => "ndjson",
        Format::OpenAi | Format::Anthropic | Format::Responses | Format::Gemini => "sse",
    };
    act(&folder(format).join(name).with_extension(kind))
}

/// Plays every file of a provider.
async fn play(format: Format) {
    let mut files: Vec<_> =
        std::fs::read_dir(folder(format)).expect("a folder").map(|e| e.expect("a file").path()).collect();
    files.retain(|file| !file.ends_with("errors.jsonl"));
    files.sort();
    assert!(files.len() >= 5, "the fixtures are there");
    for file in files {
        let kind = file.extension().expect("a kind").to_string_lossy().into_owned();
        let act = act(&file);
        let server = Server::always(act.header("x-request-id", "req_1"));
        let mut request = request(format.provider(), &format.base(&server));
        (request.model, request.stream) = (format.model().into(), kind != "json");
        let result = Models::builder().build().call(request).await;
        assert_eq!(server.seen()[0].path, format.path(kind != "json"));
        let reply = result.outcome.unwrap_or_else(|failure| panic!("{}: {failure}", file.display()));
        let name = file.file_name().expect("a name").to_string_lossy().replace('.', "_");
        insta::assert_json_snapshot!(format!("{}_{name}", format.provider()), (reply, result.spent));
    }
}

#[tokio::test]
async fn openai() {
    play(Format::OpenAi).await;
}

#[tokio::test]
async fn anthropic() {
    play(Format::Anthropic).await;
}

#[tokio::test]
async fn openai_responses() {
    play(Format::Responses).await;
}

#[tokio::test]
async fn gemini() {
    play(Format::Gemini).await;
}

#[tokio::test]
async fn bedrock() {
    play(Format::Bedrock).await;
}

#[tokio::test]
async fn ollama() {
    play(Format::Ollama).await;
}

/// Every class of error of every provider: status, headers and body as documented, and the failure that follows.
#[tokio::test]
async fn every_error_class_of_every_provider_has_its_failure() {
    for format in Format::ALL {
        let text = std::fs::read_to_string(folder(format).join("errors.jsonl")).expect("a file");
        let mut classes = std::collections::BTreeSet::new();
        for line in text.lines() {
            let case = Value::from_json(line).expect("JSON");
            let field = |key: &str| case.get(key).cloned().unwrap_or_default();
            let status = u16::try_from(field("status").as_int().expect("a status")).expect("a status");
            let mut act = Act::json(status, &field("body").to_json());
            for (name, value) in field("headers").as_map().into_iter().flatten() {
                let name: &'static str = name.to_string().leak();
                act = act.header(name, value.as_str().expect("a text"));
            }
            for streamed in [false, true] {
                let server = Server::always(act.clone());
                let mut request = request(format.provider(), &format.base(&server));
                request.stream = streamed;
                let failure = Models::builder().build().call(request).await.outcome.expect_err("a refusal");
                let retry = match failure.retry {
                    Retry::Never => Value::str("never"),
                    Retry::Backoff => Value::str("backoff"),
                    Retry::After(ms) => Value::object([("after", Value::count(ms))]),
                    Retry::Unknown => Value::str("unknown"),
                };
                let got = (Value::str(failure.code.as_str()), retry, failure.status);
                assert_eq!(got, (field("code"), field("retry"), Some(i64::from(status))), "{format:?} {line}");
                classes.insert(failure.code.as_str());
            }
        }
        assert!(classes.len() >= 5, "{format:?}: {classes:?}");
    }
}
