//! A trace from the first command to the last: one id through a pause, another process, a child and a tool.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;

use crate::collector::{Collector, Manner};
use crate::kit::{Place, Ran};

/// Asks another machine, waits for a word, and pays with a command.
const PARENT: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: parent
  machines:
    child: ./asks.yml
  states:
    call:
      type: initial
      machine: child
      input: {topic: canary-topic}
      output_to_context: {text: output.text}
      transitions: [{to: wait}]
    wait:
      wait_for: go
      transitions: [{to: pay}]
    pay:
      action: pay
      transitions: [{to: done}]
    done: {type: final, output: {text: context.text}}
"#;

const CONFIG: &str = r#"[providers.scripted]
script = "script.yml"
[actions.pay]
type = "command"
command = ["sh", "-c", "cat > /dev/null; printf %s \"$TRACEPARENT\" > parent.txt; echo '{}'"]
class = "write"
idempotency = "key"
"#;

fn traced(place: &Place, endpoint: &str, args: &[&str]) -> Ran {
    within(place, endpoint, &[], args)
}

/// The same with more variables.
fn within(place: &Place, endpoint: &str, variables: &[(&str, &str)], args: &[&str]) -> Ran {
    place.with(args, |command| {
        command
            .envs(variables.iter().copied())
            .env("WINDLASS_STORE", place.store())
            .env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint)
            .env("OTEL_EXPORTER_OTLP_HEADERS", "api-key=canary-header");
    })
}

fn spans(collector: &Collector) -> Vec<Span> {
    let requests = collector.requests.lock().expect("kept");
    let all = requests.iter().flat_map(|(_, request)| &request.resource_spans);
    all.flat_map(|resource| &resource.scope_spans).flat_map(|scope| scope.spans.clone()).collect()
}

fn text(span: &Span, key: &str) -> String {
    let value = span.attributes.iter().find(|one| one.key == key).and_then(|one| one.value.clone()?.value);
    match value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        _ => String::new(),
    }
}

#[test]
fn one_trace_goes_through_pause_resume_child_and_tool() {
    let collector = Collector::start(Manner::Takes);
    let place = Place::new();
    place.write("parent.yml", PARENT);
    place.write("windlass.toml", CONFIG);
    let ran = traced(&place, &collector.endpoint, &["run", "parent.yml", "--run-id", "r"]);
    assert_eq!(ran.code(), 7, "{}", ran.shown());
    assert_eq!(traced(&place, &collector.endpoint, &["signal", "go"]).code(), 0);
    let ran = traced(&place, &collector.endpoint, &["resume", "r"]);
    assert_eq!(ran.code(), 0, "{}", ran.shown());

    let spans = spans(&collector);
    let names: BTreeMap<&[u8], String> = spans
        .iter()
        .map(|span| (&*span.span_id, format!("{} {}", span.name, text(span, "gen_ai.conversation.id"))))
        .collect();
    let mut tree: Vec<String> = spans
        .iter()
        .map(|span| {
            let above = names.get(&*span.parent_span_id).map_or("-", String::as_str);
            format!("{} below {above}", names[&*span.span_id])
        })
        .collect();
    tree.sort();
    assert_eq!(
        tree,
        [
            "agent.run r below -",
            "agent.run r~1.0 below agent.run r",
            "llm.call r~1.0 below agent.run r~1.0",
            "tool.call r below agent.run r",
        ]
    );
    let trace = &spans[0].trace_id;
    assert!(spans.iter().all(|span| span.trace_id == *trace), "one trace");
    let call = spans.iter().find(|span| span.name == "llm.call").expect("a call of the model");
    let fields: Vec<String> =
        call.attributes.iter().map(|one| format!("{}={}", one.key, text(call, &one.key))).collect();
    let golden = [
        "gen_ai.operation.name=chat",
        "gen_ai.conversation.id=r~1.0",
        "gen_ai.workflow.name=asks",
        "windlass.tenant=default",
        "windlass.idempotency_key=r~1.0#1",
        "windlass.attempt=1",
        "windlass.class=read",
        "gen_ai.agent.name=writer",
        "gen_ai.provider.name=scripted",
        "gen_ai.request.model=small",
        "gen_ai.usage.input_tokens=20",
        "gen_ai.usage.output_tokens=8",
        "gen_ai.response.finish_reasons=stop",
        "windlass.answer.bytes=23",
    ];
    for field in golden {
        assert!(fields.iter().any(|found| found == field), "{field} in {fields:#?}");
    }
    let tool = spans.iter().find(|span| span.name == "tool.call").expect("a call of the tool");
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let parent = std::fs::read_to_string(place.path("parent.txt")).expect("the tool was told");
    assert_eq!(parent, format!("00-{}-{}-01", hex(trace), hex(&tool.span_id)));
    let run = spans.iter().find(|span| span.name == "agent.run" && span.parent_span_id.is_empty()).expect("the run");
    assert!(run.start_time_unix_nano < call.start_time_unix_nano && run.end_time_unix_nano > tool.start_time_unix_nano);
    assert_eq!(
        (text(run, "windlass.run.status"), text(run, "gen_ai.workflow.name")),
        ("completed".into(), "parent".into())
    );
    let requests = collector.requests.lock().expect("kept");
    let all = format!("{:?}", requests.iter().map(|(_, request)| request).collect::<Vec<_>>());
    for secret in ["canary", "Tides turn", "Write about", "You write"] {
        assert!(!all.contains(secret), "`{secret}` is in a span");
    }
}

#[test]
fn a_collector_that_is_away_changes_nothing_for_a_run() {
    for manner in [Some(Manner::Refuses), Some(Manner::Hangs), None] {
        let collector = manner.map(Collector::start);
        let endpoint = collector.as_ref().map_or("http://127.0.0.1:9/v1/traces", |one| &one.endpoint);
        let place = Place::new();
        let ran = traced(&place, endpoint, &["run", "asks.yml", "--input", r#"{"topic":"tides"}"#]);
        assert_eq!((ran.code(), ran.stdout().trim()), (0, r#"{"text":"Tides turn twice a day."}"#), "{}", ran.shown());
    }
    let place = Place::new();
    let ran = traced(&place, "nowhere", &["run", "asks.yml", "--input", r#"{"topic":"tides"}"#]);
    assert_eq!(ran.code(), 2, "an address that cannot be used is refused: {}", ran.shown());
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[test]
fn a_run_hangs_under_the_trace_of_whoever_starts_it() {
    let collector = Collector::start(Manner::Takes);
    let place = Place::new();
    place.write("parent.yml", PARENT);
    place.write("windlass.toml", &CONFIG.replace("$TRACEPARENT", "$TRACEPARENT $TRACESTATE"));
    let caller = [("TRACEPARENT", CALLER), ("TRACESTATE", "vendor=1")];
    let ran = within(&place, &collector.endpoint, &caller, &["run", "parent.yml", "--run-id", "r"]);
    assert_eq!(ran.code(), 7, "{}", ran.shown());
    // Whoever goes on with it has a trace of its own, which the run is not in.
    let other = [("TRACEPARENT", "00-11111111111111111111111111111111-2222222222222222-01")];
    assert_eq!(within(&place, &collector.endpoint, &other, &["signal", "go"]).code(), 0);
    let ran = within(&place, &collector.endpoint, &other, &["resume", "r"]);
    assert_eq!(ran.code(), 0, "{}", ran.shown());
    let spans = spans(&collector);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(spans.len(), 4);
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE), "its child and its calls are in it too");
    let run = |id: &str| {
        let is_it = |span: &&Span| span.name == "agent.run" && text(span, "gen_ai.conversation.id") == id;
        spans.iter().find(is_it).expect("a run")
    };
    assert_eq!(hex(&run("r").parent_span_id), "b7ad6b7169203331");
    assert_eq!(run("r~1.0").parent_span_id, run("r").span_id);
    let tool = spans.iter().find(|span| span.name == "tool.call").expect("a call");
    let told = std::fs::read_to_string(place.path("parent.txt")).expect("the tool was told");
    assert_eq!(told, format!("00-{TRACE}-{}-01 vendor=1", hex(&tool.span_id)));
}

#[test]
fn a_trace_that_is_none_is_told_and_left_and_one_without_records_gets_none() {
    let collector = Collector::start(Manner::Takes);
    let place = Place::new();
    let run = |id: &str, variables: &[(&str, &str)], more: &[&str]| {
        let args = ["run", "asks.yml", "--input", r#"{"topic":"tides"}"#, "--run-id", id];
        within(&place, &collector.endpoint, variables, &[&args[..], more].concat())
    };
    let wrong = run("wrong", &[("TRACEPARENT", "00-canary-trace"), ("TRACESTATE", "vendor=1")], &[]);
    assert_eq!(wrong.code(), 0, "{}", wrong.shown());
    assert!(wrong.stderr().contains("`TRACEPARENT` is not followed"), "{}", wrong.shown());
    assert!(!wrong.stderr().contains("canary"), "{}", wrong.shown());
    let unsampled = CALLER.replace("-01", "-00");
    assert_eq!(run("quiet", &[("TRACEPARENT", &*unsampled)], &[]).code(), 0);
    let all = [("TRACEPARENT", &*unsampled), ("OTEL_TRACES_SAMPLER", "always_on")];
    assert_eq!(run("all", &all, &[]).code(), 0);
    assert_eq!(run("flag", &[("TRACEPARENT", "x")], &["--traceparent", CALLER]).code(), 0);
    let refused = run("refused", &[], &["--traceparent", "x"]);
    assert_eq!(refused.code(), 2, "{}", refused.shown());
    let spans = spans(&collector);
    let of = |id: &str| -> Vec<String> {
        let runs = spans.iter().filter(|span| text(span, "gen_ai.conversation.id") == id);
        runs.map(|span| span.trace_id.iter().map(|byte| format!("{byte:02x}")).collect()).collect()
    };
    assert!(of("wrong").len() == 2 && of("wrong").iter().all(|trace| trace != TRACE));
    assert_eq!(of("quiet"), [""; 0]);
    assert_eq!(of("all"), [TRACE; 2]);
    assert_eq!(of("flag"), [TRACE; 2]);
}
