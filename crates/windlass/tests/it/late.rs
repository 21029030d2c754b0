//! A run that is cancelled while a call of a tool is out, and the answer that comes after that.

use std::path::Path;
use std::time::Duration;

use windlass::wire::Wiring;
use windlass::{Outcome, Value, Windlass};
use windlass_core::audit::Act;
use windlass_core::budget::Meter;
use windlass_core::input::Input;
use windlass_ports::store::Message;
use windlass_spec::source::MemoryFiles;
use windlass_tools::mcp::{Pins, Standing};

const MACHINE: &str = r#"
spec: flatmachine
spec_version: "4.2.1"
data:
  name: pays
  states:
    pay: {type: initial, action: stub__pay, transitions: [{to: done}]}
    done: {type: final, output: {paid: true}}
"#;

/// A server whose tool answers once it is told that nobody waits any more.
const SERVER: &str = r#"
import json, sys
waiting = None
for text in sys.stdin:
    request = json.loads(text)
    method, result = request.get("method"), None
    if method == "server/discover":
        result = {"supportedVersions": ["2026-07-28"], "capabilities": {}}
    elif method == "tools/list":
        result = {"tools": [{"name": "pay", "description": "Pays.", "inputSchema": {"type": "object"}}]}
    elif method == "tools/call":
        waiting = request
        open("called", "w").close()
    elif method == "notifications/cancelled":
        request, result = waiting, {"content": [], "structuredContent": {"context": {"paid": 1}}, "resultType": "complete"}
    if result is not None:
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}), flush=True)
"#;

async fn process(folder: &Path) -> Windlass {
    std::fs::write(folder.join("server.py"), SERVER).expect("written");
    let table = "[mcp.stub]\ncommand = ['python3', 'server.py']\n[mcp.stub.tools.pay]\nclass = 'write'\n";
    let wiring =
        Wiring { folder: folder.to_owned(), catalog: toml::from_str(table).expect("a table"), ..Wiring::default() };
    let mut pins = Pins::load(folder).expect("pins");
    for (name, stub) in wiring.servers().expect("servers") {
        for (tool, standing) in stub.standings(&pins, 20_000).await.expect("a list") {
            let Standing::New(definition) = standing else { panic!("{standing:?}") };
            pins.servers.entry(name.clone()).or_default().insert(tool, definition);
        }
    }
    pins.save(folder).expect("saved");
    Windlass::builder().wiring(wiring).build().await.expect("built")
}

/// Waits for what another process does.
async fn once(mut happened: impl AsyncFnMut() -> bool) {
    while !happened().await {
        // Slow on purpose: another process has to act.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_answer_after_a_cancel_is_recorded_and_the_call_stays_settled() {
    let folder = tempfile::tempdir().expect("a folder");
    let windlass = process(folder.path()).await;
    let files = MemoryFiles::new().with("machine.yml", MACHINE);
    let run = windlass.submit(&files, "machine.yml", Value::empty_map(), None).await.expect("valid");
    let store = &windlass.engine().parts().store;
    let cancelling = async {
        once(async || folder.path().join("called").exists()).await;
        let input = Input::Cancel { reason: "enough".into() };
        store.deliver(Message { to: run.clone(), id: "cancel".into(), input }).await.expect("delivered");
    };
    let (outcome, ()) = tokio::join!(windlass.resume(&run), cancelling);
    assert!(matches!(outcome, Ok(Outcome::Cancelled { .. })), "{outcome:?}");
    let acts = async || store.trail().acts("default".into(), 0, 10).await.expect("acts");
    once(async || !acts().await.is_empty()).await;
    let said = |act: &Act| {
        format!("{} {} {} {}", act.actor, act.action, act.subject, act.detail.as_deref().unwrap_or_default())
    };
    let all: Vec<String> = acts().await.iter().map(said).collect();
    let begin = format!("windlass call.late {0} {0}#1 attempt 1, tool stub__pay of stub: result ", run.as_str());
    assert!(all.len() == 1 && all[0].starts_with(&begin), "{all:?}");
    assert!(all[0].contains(" bytes, ") && !all[0].contains("paid"), "no content of it: {all:?}");
    let rows = store.audit(run.clone()).await.expect("rows");
    let stages: Vec<&str> = rows.iter().map(|row| &*row.stage).collect();
    assert_eq!(stages, ["started", "intended", "abandoned"]);
    let report = windlass.engine().status(&run).await.expect("read").expect("a run");
    assert_eq!((report.run.state.as_deref(), report.run.calls.len()), (Some("pay"), 0), "no transition");
    let ledger = &report.run.ledger;
    assert_eq!((ledger.settled.get(Meter::ToolCalls), ledger.reserved.get(Meter::ToolCalls)), (1, 0));
    assert_eq!(store.fsck().await.expect("checked"), Vec::new());
}
