//! Answers in the full shape in which the providers document them, and the replies they become.

use std::path::Path;

use windlass_models::Models;
use windlass_ports::model::Model;

use crate::http::request;
use crate::server::{Act, Server};

/// Plays every file of a provider: `.json` as a whole answer, `.sse` as a stream.
async fn play(provider: &str, model: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cassettes").join(provider);
    let mut files: Vec<_> = std::fs::read_dir(&folder).expect("a folder").map(|e| e.expect("a file").path()).collect();
    files.sort();
    assert!(files.len() >= 5, "the cassettes are there");
    for file in files {
        let bytes = std::fs::read(&file).expect("a file");
        let streamed = file.extension().is_some_and(|e| e == "sse");
        let act = if streamed { Act::stream(&bytes) } else { Act::json(200, &String::from_utf8_lossy(&bytes)) };
        let server = Server::always(act.header("x-request-id", "req_1"));
        let mut request = request(provider, &server.url);
        (request.model, request.stream) = (model.into(), streamed);
        let result = Models::builder().build().call(request).await;
        let reply = result.outcome.unwrap_or_else(|failure| panic!("{}: {failure}", file.display()));
        let name = file.file_name().expect("a name").to_string_lossy().replace('.', "_");
        insta::assert_json_snapshot!(format!("{provider}_{name}"), (reply, result.spent));
    }
}

#[tokio::test]
async fn openai() {
    play("openai", "gpt-4o").await;
}

#[tokio::test]
async fn anthropic() {
    play("anthropic", "claude-sonnet-4-5").await;
}
