//! Files of an input through the whole engine: stored apart from the journal, sent as the provider wants them, and the
//! same bytes again after the process that began is gone.

use std::collections::BTreeMap;
use std::path::Path;

use windlass::wire::{ProviderConfig, Wiring};
use windlass::{Outcome, Windlass};
use windlass_core::budget::Ceilings;
use windlass_core::failure::Code;
use windlass_core::file::File;
use windlass_core::ids::RunId;
use windlass_core::value::Value;
use windlass_spec::source::MemoryFiles;

use crate::chains::desk::{Server, openai};

/// Asks about a photo twice, with a wait in between.
const MACHINE: &str = r#"
spec: flatmachine
spec_version: 4.2.1
data:
  name: looks
  context: {photo: "{{ input.photo }}"}
  agents:
    eye:
      spec: flatagent
      spec_version: 4.2.1
      data: {model: {provider: PROVIDER, name: m, base_url: "URL"}, system: S, user: "What is on {{ input.photo['$file'].name }}?"}
  states:
    first: {type: initial, agent: eye, input: {photo: context.photo}, output_to_context: {a: output.content}, transitions: [{to: rest}]}
    rest: {wait_for: go, transitions: [{to: second}]}
    second: {agent: eye, input: {photo: context.photo}, output_to_context: {b: output.content}, transitions: [{to: end}]}
    end: {type: final, output: {a: context.a, b: context.b}}
"#;

fn photo() -> File {
    // Longer than what is kept inside of a journal row.
    File::new("cat.png", &[b"\x89PNG\r\n\x1a\n", [0; 30_000].as_slice()].concat())
}

async fn process(folder: &Path, ceilings: Ceilings) -> Windlass {
    let wiring =
        Wiring { providers: BTreeMap::from([("one".to_owned(), ProviderConfig::default())]), ..Wiring::default() };
    let url = format!("sqlite:{}", folder.join("windlass.db").display());
    Windlass::builder().store(url).wiring(wiring).ceilings(ceilings).build().await.expect("built")
}

async fn submit(windlass: &Windlass, provider: &str, server: &Server) -> RunId {
    let machine = MACHINE.replace("PROVIDER", provider).replace("URL", &server.url);
    let files = MemoryFiles::new().with("machine.yml", machine);
    let input = Value::object([("photo", photo().to_value())]);
    windlass.submit(&files, "machine.yml", input, None).await.expect("valid")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_stored_once_and_sent_as_the_same_bytes_after_a_restart() {
    let server = Server::start(|_, _| openai("a cat"));
    let folder = tempfile::tempdir().expect("a folder");
    let windlass = process(folder.path(), Ceilings::default()).await;
    let run = submit(&windlass, "one", &server).await;
    let parked = windlass.resume(&run).await.expect("driven");
    assert!(matches!(parked, Outcome::Parked { .. }), "{parked:?}");
    drop(windlass);
    let windlass = process(folder.path(), Ceilings::default()).await;
    windlass.signal("go", Value::Null).await.expect("sent");
    let ended = windlass.resume(&run).await.expect("driven");
    assert_eq!(ended.output().expect("an output").get("b"), Some(&Value::str("a cat")));
    let bodies: Vec<String> = server.seen().iter().map(|(_, body)| body.to_json()).collect();
    assert_eq!(bodies.len(), 2);
    assert_eq!(bodies[0], bodies[1], "what is sent again is what was sent");
    let photo = photo();
    assert!(bodies[0].contains(&format!("data:image/png;base64,{}", photo.data)));
    assert!(bodies[0].contains("What is on cat.png?"));
    // The journal refers to the content and does not hold it; it is stored once for all entries that need it.
    let store = &windlass.engine().parts().store;
    let rows = store.journal(run, 0, 1_000).await.expect("read");
    assert!(rows.iter().all(|row| !String::from_utf8_lossy(&row.bytes).contains(&*photo.data)));
    let mut blobs = std::collections::BTreeSet::new();
    for digest in rows.iter().flat_map(|row| row.blobs.iter()) {
        let bytes = store.blob(*digest).await.expect("read").expect("there");
        if String::from_utf8_lossy(&bytes).contains(&*photo.data) {
            blobs.insert(digest.to_string());
        }
    }
    assert_eq!(blobs.len(), 1, "{blobs:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_takes_no_images_is_not_asked() {
    let server = Server::start(|_, _| openai("a cat"));
    let folder = tempfile::tempdir().expect("a folder");
    let windlass = process(folder.path(), Ceilings::default()).await;
    let run = submit(&windlass, "deepseek", &server).await;
    let ended = windlass.resume(&run).await.expect("driven");
    let Outcome::Failed { failure, .. } = ended else { panic!("{ended:?}") };
    assert_eq!(failure.code, Code::ProviderInvalidRequest);
    assert!(failure.message.contains("`cat.png` of type `image/png`"), "{failure}");
    assert_eq!(server.count(""), 0, "nothing was sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_file_may_cost_is_reserved_before_it_is_sent() {
    let server = Server::start(|_, _| openai("a cat"));
    let folder = tempfile::tempdir().expect("a folder");
    let ceilings = Ceilings { tokens: Some(20_000), ..Ceilings::default() };
    let windlass = process(folder.path(), ceilings).await;
    let run = submit(&windlass, "one", &server).await;
    let ended = windlass.resume(&run).await.expect("driven");
    assert!(matches!(&ended, Outcome::Failed { failure, .. } if failure.code == Code::BudgetExceeded), "{ended:?}");
    assert_eq!(server.count(""), 0);
}

#[tokio::test]
async fn what_says_it_is_a_file_and_is_none_is_refused_or_fails_its_state() {
    let server = Server::start(|_, _| openai("a cat"));
    let folder = tempfile::tempdir().expect("a folder");
    let windlass = process(folder.path(), Ceilings::default()).await;
    let machine = MACHINE.replace("PROVIDER", "one").replace("URL", &server.url).replace("['$file'].name", "");
    let files = MemoryFiles::new().with("machine.yml", machine.as_str());
    let input = Value::object([("photo", Value::object([("$file", Value::str("./x.png"))]))]);
    let refused = windlass.submit(&files, "machine.yml", input, None).await.expect_err("no file");
    assert!(refused.to_string().contains("a file without `name`"), "{refused}");
    // Templates and actions can make one inside of a run.
    let machine = machine.replace("input: {photo: context.photo}", "input: {photo: {'$file': \"./x.png\"}}");
    let files = MemoryFiles::new().with("machine.yml", machine);
    let run = windlass.submit(&files, "machine.yml", Value::empty_map(), None).await.expect("valid");
    let ended = windlass.resume(&run).await.expect("driven");
    assert!(matches!(&ended, Outcome::Failed { failure, .. } if failure.code == Code::RunBadInput), "{ended:?}");
    assert_eq!(server.count(""), 0);
}
