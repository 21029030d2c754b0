//! One trace of a run that fans out: over two workers, the rules, hooks, tool loops, and servers of tools over both
//! transports.
//!
//! Slow on purpose: real processes are waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Value as Json, json};

use super::Fleet;
use crate::collector::{Collector, Manner};
use crate::http::listen;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Starts six children, three of each pool.
const PARENT: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: parent
  settings: {pool: one}
  machines: {a1: ./one.yml, a2: ./one.yml, a3: ./one.yml, b1: ./two.yml, b2: ./two.yml, b3: ./two.yml}
  states:
    fan: {type: initial, machine: [a1, a2, a3, b1, b2, b3], output_to_context: {all: output}, transitions: [{to: done}]}
    done: {type: final, output: {all: context.all}}
"#;

/// Asks both servers, and enters its states with a hook.
const CHILD: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: child-POOL
  settings: {pool: POOL, tools: [pipe__ask, web__ask]}
  agents:
    clerk:
      spec: flatagent
      spec_version: "4.2.1"
      data: {name: clerk, model: {provider: scripted, name: small, max_tokens: 100}, user: Ask both.}
  states:
    ask: {type: initial, hooks: mark, agent: clerk, tool_loop: {max_turns: 3}, output_to_context: {said: output.content}, transitions: [{to: done}]}
    done: {type: final, hooks: mark, output: {said: context.said}}
"#;

const SCRIPT: &str = "rules:\n  \
    - {agent: clerk, turn: 1, reply: {tool_calls: [{name: pipe__ask, arguments: {}}, {name: web__ask, arguments: {}}]}}\n  \
    - {agent: clerk, turn: 2, reply: {content: both}}\n";

const RULES: &str = r#"@id("flow") permit (principal, action, resource);"#;

/// A server over stdio that keeps what it is sent.
const PIPE: &str = r#"
import json, sys
for text in sys.stdin:
    request = json.loads(text)
    with open("pipe.jsonl", "a") as log:
        log.write(text)
    method = request.get("method")
    if method == "server/discover":
        result = {"supportedVersions": ["2026-07-28"], "capabilities": {}}
    elif method == "tools/list":
        result = {"tools": [{"name": "ask", "description": "Asks.", "inputSchema": {"type": "object"}}]}
    elif method == "tools/call":
        result = {"content": [{"type": "text", "text": "told"}]}
    else:
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}), flush=True)
"#;

/// Calls that arrived over HTTP: the header, and what the message says.
type Arrived = Arc<Mutex<Vec<(String, Json)>>>;

/// A server over HTTP that keeps the calls of its tool.
fn web() -> (String, Arrived) {
    let arrived = Arrived::default();
    let kept = Arc::clone(&arrived);
    let address = listen(move |request| {
        let message: Json = serde_json::from_slice(&request.body).unwrap_or_default();
        let result = match message["method"].as_str() {
            Some("server/discover") => json!({ "supportedVersions": ["2026-07-28"], "capabilities": {} }),
            Some("tools/list") => {
                json!({ "tools": [{ "name": "ask", "description": "Asks.", "inputSchema": { "type": "object" } }] })
            }
            _ => {
                let header = request.head.lines().find_map(|line| line.strip_prefix("traceparent: "));
                let header = header.unwrap_or_default().trim().to_owned();
                kept.lock().expect("kept").push((header, message["params"]["_meta"]["traceparent"].clone()));
                json!({ "content": [{ "type": "text", "text": "told" }] })
            }
        };
        let answer = json!({ "jsonrpc": "2.0", "id": message["id"], "result": result });
        request.answer("200 OK", &answer.to_string());
    });
    (address, arrived)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    match attributes.iter().find(|one| one.key == key).and_then(|one| one.value.clone()?.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        _ => String::new(),
    }
}

/// Every span, with the process that sent it.
fn spans(collector: &Collector) -> Vec<(String, Span)> {
    let requests = collector.requests.lock().expect("kept");
    let resources = requests.iter().flat_map(|(_, request)| &request.resource_spans);
    let sent = resources.flat_map(|sent| {
        let attributes = sent.resource.as_ref().map_or(&[][..], |resource| &resource.attributes[..]);
        let process = text(attributes, "service.instance.id");
        sent.scope_spans.iter().flat_map(|scope| &scope.spans).map(move |span| (process.clone(), span.clone()))
    });
    sent.collect()
}

/// Runs the machine with a worker for each pool, until both have said all that they have to.
fn fan_out(collector: &Collector, address: &str) -> Fleet {
    let fleet = Fleet::new();
    fleet.write("parent.yml", PARENT);
    for pool in ["one", "two"] {
        fleet.write(&format!("{pool}.yml"), &CHILD.replace("POOL", pool));
    }
    fleet.write("script.yml", SCRIPT);
    fleet.write("pipe.py", PIPE);
    std::fs::create_dir(fleet.place.path("policies")).expect("a folder");
    fleet.write("policies/rules.cedar", RULES);
    let config = format!(
        "[providers.scripted]\nscript = \"script.yml\"\n[policy]\npath = \"policies\"\n[hooks.mark]\ntype = \"command\"\n\
         command = [\"sh\", \"-c\", \"cat > /dev/null\"]\nevents = [\"state_enter\"]\n[mcp.pipe]\n\
         command = [\"python3\", \"pipe.py\"]\nprotocol = \"2026-07-28\"\n[mcp.pipe.tools.ask]\nclass = \"read\"\n[mcp.web]\n\
         url = \"http://{address}/mcp\"\n[mcp.web.tools.ask]\nclass = \"read\"\n"
    );
    fleet.write("windlass.toml", &config);
    for server in ["pipe", "web"] {
        let accepted = fleet.run(&["tools", "accept", server]);
        assert_eq!(accepted.code(), 0, "{}", accepted.shown());
    }
    let workers = ["one", "two"].map(|pool| {
        let name = format!("service.instance.id={pool}");
        let said = [
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", collector.endpoint.as_str()),
            ("OTEL_RESOURCE_ATTRIBUTES", name.as_str()),
        ];
        fleet.start_with(&["worker", "--pool", pool], |command| {
            command.envs(said);
        })
    });
    fleet.submit("parent.yml", "r", &["--traceparent", CALLER]);
    let output = fleet.output("r");
    assert_eq!(output["all"]["b3"], json!({ "said": "both" }), "{output}");
    for worker in workers {
        assert!(worker.stop().success());
    }
    fleet
}

#[test]
fn six_children_on_two_workers_with_rules_and_servers_of_tools_are_one_trace() {
    let collector = Collector::start(Manner::Takes);
    let (address, arrived) = web();
    let fleet = fan_out(&collector, &address);
    let spans = spans(&collector);
    let strangers: Vec<_> = spans.iter().filter(|(_, span)| hex(&span.trace_id) != TRACE).collect();
    assert!(!spans.is_empty() && strangers.is_empty(), "another trace: {strangers:?}");
    let ids: BTreeSet<_> = spans.iter().map(|(_, span)| &span.span_id).collect();
    assert_eq!(ids.len(), spans.len(), "no id is of two spans");

    // The runs: one above, six below it, half of them by the other process.
    let of_run = |span: &Span| text(&span.attributes, "gen_ai.conversation.id");
    let runs: Vec<&(String, Span)> = spans.iter().filter(|(_, span)| span.name == "agent.run").collect();
    let (root, children): (Vec<_>, Vec<_>) = runs.into_iter().partition(|(_, span)| of_run(span) == "r");
    let [(process, root)] = &root[..] else { panic!("{root:?}") };
    assert_eq!((&**process, hex(&root.parent_span_id)), ("one", "b7ad6b7169203331".to_owned()));
    assert!(children.iter().all(|(_, child)| child.parent_span_id == root.span_id), "{children:?}");
    let mut seen: Vec<String> = children.iter().map(|(process, span)| format!("{} {process}", of_run(span))).collect();
    seen.sort();
    assert_eq!(seen, ["r~1.0 one", "r~1.1 one", "r~1.2 one", "r~1.3 two", "r~1.4 two", "r~1.5 two"]);

    // Everything else is below the run that it belongs to.
    let below: BTreeMap<&[u8], &Span> = children.iter().map(|(_, span)| (&*span.span_id, span)).collect();
    let count =
        |name: &str| spans.iter().filter(|(_, s)| s.name == name && below.contains_key(&*s.parent_span_id)).count();
    let counts = ["llm.call", "tool.call", "hook.call", "agent.plan", "agent.tool_select"].map(count);
    assert_eq!(counts, [12, 12, 12, 12, 6], "of each child: two, two, two, two and one");

    let is_failed = |span: &&Span| !text(&span.attributes, "error.type").is_empty();
    let failed: Vec<&Span> = spans.iter().map(|(_, span)| span).filter(is_failed).collect();
    assert!(failed.is_empty(), "{failed:?}");

    // What left for the servers is where the answers are looked for.
    let calls = |tool: &str| -> BTreeSet<String> {
        let is_one = |span: &Span| span.name == "tool.call" && text(&span.attributes, "gen_ai.tool.name") == tool;
        let called = spans.iter().filter(|(_, span)| is_one(span));
        called.map(|(_, span)| format!("00-{TRACE}-{}-01", hex(&span.span_id))).collect()
    };
    let log = std::fs::read_to_string(fleet.place.path("pipe.jsonl")).expect("the server's log");
    let messages = log.lines().map(|line| serde_json::from_str::<Json>(line).expect("a message"));
    let told = messages.filter(|message| message["method"] == "tools/call");
    let told: Vec<String> =
        told.map(|call| call["params"]["_meta"]["traceparent"].as_str().unwrap_or_default().to_owned()).collect();
    assert_eq!((told.len(), told.into_iter().collect::<BTreeSet<_>>()), (6, calls("pipe__ask")), "over stdio: `_meta`");
    let arrived = arrived.lock().expect("kept").clone();
    assert!(arrived.iter().all(|(header, meta)| meta == header), "both say the same: {arrived:?}");
    let headers: BTreeSet<String> = arrived.iter().map(|(header, _)| header.clone()).collect();
    assert_eq!((arrived.len(), headers), (6, calls("web__ask")), "over HTTP: the header");
    say_what_they_are_about(&spans);
    fleet.is_sound();
}

/// The attributes of spans that no call of a model or tool has.
#[track_caller]
fn say_what_they_are_about(spans: &[(String, Span)]) {
    let of = |name: &str| -> Vec<&Span> { spans.iter().map(|(_, s)| s).filter(|span| span.name == name).collect() };
    let said = |span: &Span, key: &str| text(&span.attributes, key);
    let mut about: BTreeMap<(String, String), usize> = BTreeMap::new();
    for check in of("policy.check") {
        let [answer, rule, version] =
            ["answer", "rule", "version"].map(|key| said(check, &format!("windlass.policy.{key}")));
        assert_eq!((&*answer, &*rule), ("allow", "flow"), "{check:?}");
        assert!(!version.is_empty(), "{check:?}");
        let action = said(check, "windlass.policy.action");
        let key = match &*action {
            "call_model" => "gen_ai.request.model",
            "call_tool" => "gen_ai.tool.name",
            "start_machine" => "gen_ai.workflow.name",
            "take_transition" => "windlass.state",
            other => panic!("{other}: {check:?}"),
        };
        *about.entry((action, said(check, key))).or_default() += 1;
    }
    let asked: Vec<(&str, &str)> = about.keys().map(|(action, what)| (&**action, &**what)).collect();
    let expected = [
        ("call_model", "small"),
        ("call_tool", "pipe__ask"),
        ("call_tool", "web__ask"),
        ("start_machine", "one.yml"),
        ("start_machine", "two.yml"),
        ("take_transition", "done"),
    ];
    assert_eq!(asked, expected, "{about:?}");
    let mut plans: Vec<String> = of("agent.plan").iter().map(|plan| said(plan, "windlass.tools.count")).collect();
    plans.sort();
    assert_eq!(plans, [["0"; 6], ["2"; 6]].concat(), "two tools in the first turn, none in the second");
    assert!(of("agent.plan").iter().all(|plan| !said(plan, "windlass.cost_micros").is_empty()));
    assert!(of("agent.tool_select").iter().all(|select| said(select, "windlass.tools.count") == "2"));
    for hook in of("hook.call") {
        let fields = ["gen_ai.operation.name", "gen_ai.tool.name", "windlass.attempt"].map(|key| said(hook, key));
        assert_eq!(fields, ["hook", "mark", "1"], "{hook:?}");
        assert!(
            !said(hook, "windlass.arguments.hash").is_empty() && !said(hook, "windlass.idempotency_key").is_empty()
        );
    }
}
