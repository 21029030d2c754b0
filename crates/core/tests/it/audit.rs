//! Audit rows of runs: by which worker they were written, and by which plan a call is made.

use std::collections::BTreeMap;

use windlass_core::apply;
use windlass_core::audit::Row;
use windlass_core::journal::Record;
use windlass_core::run::Run;

use crate::scenario::Bench;

const MACHINE: &str = r#"
spec: flatmachine
spec_version: 4.2.1
data:
  name: m
  settings: {tools: [drop]}
  agents:
    a: {spec: flatagent, spec_version: 4.2.1, data: {prompt: {system: S, user: q}, profile: main}}
  states:
    start: {type: initial, agent: a, tool_loop: {max_turns: 4}, transitions: [{to: end}]}
    end: {type: final}
"#;

const PROFILES: &str = "spec: flatprofile\nspec_version: 4.2.1\ndata:\n  default: main\n  model_profiles:\n    main: {name: small, provider: scripted, max_tokens: 100}\n";

const DROP: &str = r#"[{"name":"drop","description":"drops","plan":{"step":{"argument":"dry_run"},"expires_ms":10000},
"input_schema":null,"output_schema":null,"class":"danger","idempotency":"none","on_unknown":"fail","timeout_ms":1000,
"output_bytes_max":1000}]"#;

fn bench() -> Bench {
    let files = [("machine.yml", MACHINE), ("profiles.yml", PROFILES), ("tools.json", DROP)];
    Bench::new(files.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect::<BTreeMap<_, _>>())
}

/// The rows that folding the journal gives.
fn rows(bench: &Bench) -> Vec<Row> {
    let mut run = Run::blank(bench.run.start.clone());
    let records = bench.records.iter().map(|bytes| Record::decode(bytes).expect("a record"));
    records.flat_map(|record| record.entries).filter_map(|entry| apply(&mut run, &entry)).collect()
}

#[test]
fn a_call_that_applies_a_plan_names_it_in_both_of_its_rows() {
    let mut bench = bench();
    bench.worker = Some("w-1".into());
    bench.line("start {}");
    bench.line(r#"reply #1 tools [{"id":"c1","name":"drop","arguments":{"table":"t"}}]"#);
    bench.line(r#"return #2 {"rows":7}"#);
    let plan = bench.run.plans.keys().next().expect("a plan").clone();
    bench.worker = Some("w-2".into());
    let call = format!(r#"[{{"id":"c2","name":"drop","arguments":{{"table":"t","plan_id":"{plan}"}}}}]"#);
    bench.line(&format!("reply #3 tools {call}"));
    bench.line(r#"return #4 "dropped""#);
    let rows = rows(&bench);
    assert!(rows.iter().all(|row| row.v == 3), "{rows:?}");
    let said = |row: &Row| {
        format!(
            "{} {} {} {}",
            row.effect.0,
            row.stage,
            row.plan.as_deref().unwrap_or("-"),
            row.worker.as_deref().unwrap_or("-")
        )
    };
    let of_tool: Vec<String> = rows.iter().filter(|row| &*row.kind == "tool").map(said).collect();
    assert_eq!(
        of_tool,
        [
            "2 intended - w-1".to_owned(),
            "2 settled - w-1".to_owned(),
            format!("4 intended {plan} w-2"),
            format!("4 settled {plan} w-2"),
        ]
    );
    assert_eq!(rows[0].worker.as_deref(), Some("w-1"), "the first row has it too");
}

#[test]
fn a_worker_is_recorded_when_it_is_another_one() {
    let mut bench = bench();
    bench.worker = Some("w-1".into());
    bench.line("start {}");
    bench.line("reply #1 done");
    let text: Vec<String> = bench.records.iter().map(|bytes| String::from_utf8(bytes.clone()).expect("text")).collect();
    assert_eq!(text.iter().filter(|record| record.contains(r#""by":"w-1""#)).count(), 1, "{text:?}");
    assert!(text[0].contains(r#""by":"w-1""#));
}
