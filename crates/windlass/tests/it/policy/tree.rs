//! The same of a run with children, a launch, a chain of models, a tool of a server, and a hook that leads it elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use proptest::test_runner::{Config, TestRunner};
use tempfile::TempDir;
use windlass::wire::{ProviderConfig, Wiring};
use windlass::{Value, Windlass};
use windlass_core::journal::Record;
use windlass_core::machine::HookKind;
use windlass_core::run::Status;
use windlass_ports::store::Query;
use windlass_spec::source::MemoryFiles;
use windlass_tools::FnHook;
use windlass_tools::mcp::{Pins, Standing};

use super::nothing_goes_around;
use crate::chains::desk::{Act, Server, openai};

const MACHINE: &str = r#"
spec: flatmachine
spec_version: "4.2.1"
data:
  name: tree
  machines: {below: ./child.yml, aside: ./side.yml}
  agents:
    clerk: {spec: flatagent, spec_version: "4.2.1", data: {model: {provider: chain, name: answers, stream: false}, system: S, user: Go.}}
  settings: {tools: [stub__ask]}
  states:
    each: {type: initial, foreach: "{{ [1, 2] }}", as: n, machine: below, on_error: spread, transitions: [{to: spread}]}
    spread: {launch: aside, on_error: ask, transitions: [{to: ask}]}
    ask: {agent: clerk, hooks: mover, tool_loop: {max_turns: 3}, on_error: done, transitions: [{to: done}]}
    elsewhere: {transitions: [{to: done}]}
    done: {type: final, output: {why: context.last_error}}
"#;

const LEAF: &str = r#"
spec: flatmachine
spec_version: "4.2.1"
data:
  name: NAME
  states:
    one: {type: initial, transitions: [{to: end}]}
    end: {type: final, output: {}}
"#;

const CATALOG: &str = "
version: house-1
models:
- {name: large, provider: one, model: large-1, base_url: 'URL', tier: strong, output_tokens: 50}
- {name: small, provider: one, model: small-1, base_url: 'URL', tier: fast, output_tokens: 50}
chains: [{name: answers, links: [{model: large}, {model: small}]}]
";

/// What the rules may permit or not: the Cedar action and resource.
const ASKED: [(&str, &str); 5] = [
    ("StartMachine", r#"Machine::"child.yml""#),
    ("StartMachine", r#"Machine::"side.yml""#),
    ("CallModel", r#"Model::"large-1""#),
    ("CallModel", r#"Model::"small-1""#),
    ("CallTool", r#"Tool::"stub__ask""#),
];

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A provider of models that asks for the tool once, and the server of that tool.
fn world() -> Server {
    Server::start(|path, body| {
        if path.ends_with("mcp") {
            let result = match text(body, "method") {
                "server/discover" => r#"{"supportedVersions":["2026-07-28"],"capabilities":{}}"#,
                "tools/list" => r#"{"tools":[{"name":"ask","description":"Asks.","inputSchema":{"type":"object"}}]}"#,
                _ => r#"{"content":[{"type":"text","text":"told"}]}"#,
            };
            let id = body.get("id").cloned().unwrap_or_default().to_json();
            return Act::json(200, &format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#));
        }
        let messages = body.get("messages").and_then(Value::as_list).unwrap_or_default();
        if messages.iter().any(|message| text(message, "role") == "tool") {
            return openai("done");
        }
        Act::json(
            200,
            r#"{"id":"c","model":"m","choices":[{"message":{"role":"assistant","content":null,"tool_calls":[{"id":"t1","type":"function","function":{"name":"stub__ask","arguments":"{}"}}]},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":20,"completion_tokens":5}}"#,
        )
    })
}

/// A folder with the catalog, these rules, and the tool of the server accepted.
async fn place(server: &Server, permitted: &BTreeSet<usize>) -> (TempDir, Wiring) {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("models.yml"), CATALOG.replace("URL", &server.url)).expect("written");
    std::fs::create_dir(folder.path().join("policy")).expect("a folder");
    // A chain is asked about by its own name, and by each link.
    let mut rules = "@id(\"flow\") permit (principal, action == Action::\"TakeTransition\", resource);\n\
                     permit (principal, action == Action::\"CallModel\", resource == Model::\"answers\");\n"
        .to_owned();
    for index in permitted {
        let (action, resource) = ASKED[*index];
        rules.push_str(&format!("permit (principal, action == Action::\"{action}\", resource == {resource});\n"));
    }
    std::fs::write(folder.path().join("policy/rules.cedar"), rules).expect("written");
    let wiring = Wiring {
        folder: folder.path().to_owned(),
        models: Some("models.yml".into()),
        providers: BTreeMap::from([("one".to_owned(), ProviderConfig::default())]),
        catalog: toml::from_str(&format!("[mcp.stub]\nurl = '{}/mcp'\n", server.url)).expect("a table"),
        policy: Some(folder.path().join("policy")),
        environment: std::sync::Arc::new(|name| name.ends_with("_API_KEY").then(|| "key".into())),
        ..Wiring::default()
    };
    let mut pins = Pins::load(folder.path()).expect("pins");
    for (name, stub) in wiring.servers().expect("servers") {
        for (tool, standing) in stub.standings(&pins, 20_000).await.expect("a list") {
            let Standing::New(definition) = standing else { panic!("{standing:?}") };
            pins.servers.entry(name.clone()).or_default().insert(tool, definition);
        }
    }
    pins.save(folder.path()).expect("saved");
    (folder, wiring)
}

/// Runs the tree under rules that permit these, and compares what was done with what may be.
async fn check(permitted: BTreeSet<usize>) {
    let server = world();
    let (_folder, wiring) = place(&server, &permitted).await;
    let moves = |_| Ok(Value::object([("to_state", Value::str("elsewhere"))]));
    let hook = FnHook::sync(&[HookKind::Transition], moves);
    let windlass = Windlass::builder().wiring(wiring).hook("mover", hook).build().await.expect("built");
    let leaf = |name: &str| LEAF.replace("NAME", name);
    let files =
        MemoryFiles::new().with("machine.yml", MACHINE).with("child.yml", leaf("child")).with("side.yml", leaf("side"));
    let run = windlass.submit(&files, "machine.yml", Value::empty_map(), None).await.expect("valid");
    windlass.resume(&run).await.expect("driven");
    let store = &windlass.engine().parts().store;
    let query = Query { root: Some(run.clone()), limit: 100, ..Query::default() };
    let mut machines: BTreeMap<String, usize> = BTreeMap::new();
    let (mut redirected, mut why) = (0, String::new());
    for head in store.list(query).await.expect("a list").heads {
        let stored = windlass.engine().status(&head.id).await.expect("read").expect("there");
        assert_eq!(stored.head.status, Status::Completed, "{permitted:?}: {:?}", stored.run.ending);
        if head.id == run {
            why = format!("{permitted:?}: {:?}", stored.run.ending);
        }
        *machines.entry(stored.run.start.machine_name.to_string()).or_default() += 1;
        let rows = store.journal(head.id, 0, 10_000).await.expect("a journal");
        let records: Vec<Record> = rows.iter().map(|row| Record::decode(&row.bytes).expect("a record")).collect();
        redirected += nothing_goes_around(&records);
    }
    let may = |index: usize| permitted.contains(&index);
    let started = |name: &str| machines.get(name).copied().unwrap_or(0);
    assert_eq!((started("child"), started("side")), (if may(0) { 2 } else { 0 }, usize::from(may(1))), "{why}");
    let asked = |model: &str| server.seen().iter().filter(|(_, body)| text(body, "model") == model).count();
    // The first link that may be asked, and no other one: a turn that asks for the tool, and one that is told.
    assert_eq!(asked("large-1"), if may(2) { 2 } else { 0 }, "{why}");
    assert_eq!(asked("small-1"), if may(3) && !may(2) { 2 } else { 0 }, "{why}");
    let calls = server.seen().iter().filter(|(_, body)| text(body, "method") == "tools/call").count();
    assert_eq!(calls, usize::from(may(4) && (may(2) || may(3))), "{why}");
    assert_eq!(redirected, usize::from(may(2) || may(3)), "{why}: where the hook led it");
}

#[test]
fn prop_no_child_launch_link_or_tool_of_a_server_goes_around_the_policy() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let indices: Vec<usize> = (0..ASKED.len()).collect();
    let subsets = proptest::sample::subsequence(indices, 0..=ASKED.len());
    // Nothing, everything, and what is between them.
    runtime.block_on(check(BTreeSet::new()));
    runtime.block_on(check((0..ASKED.len()).collect()));
    let mut runner = TestRunner::new(Config { cases: 16, failure_persistence: None, ..Config::default() });
    runner
        .run(&subsets, |permitted| {
            runtime.block_on(check(permitted.into_iter().collect()));
            Ok(())
        })
        .expect("nothing goes around");
}
