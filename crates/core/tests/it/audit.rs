//! Audit rows of runs: by which worker, rule and plan, what was decided about calls, and what they touch.

use std::collections::BTreeMap;

use windlass_core::apply;
use windlass_core::audit::{Chain, Row, VERSION};
use windlass_core::ids::Digest;
use windlass_core::journal::{Entry, Record};
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
    bench_with(MACHINE, DROP)
}

fn bench_with(machine: &str, tools: &str) -> Bench {
    let files = [("machine.yml", machine), ("profiles.yml", PROFILES), ("tools.json", tools)];
    Bench::new(files.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect::<BTreeMap<_, _>>())
}

/// The rows that folding the journal gives.
fn rows(bench: &Bench) -> Vec<Row> {
    rows_of_version(bench, VERSION)
}

/// The same of a run that began when this was the newest version.
fn rows_of_version(bench: &Bench, version: u32) -> Vec<Row> {
    let mut run = Run::blank(bench.run.start.clone());
    let records = bench.records.iter().map(|bytes| Record::decode(bytes).expect("a record"));
    let mut apply = |mut entry: Entry| {
        if let Entry::RunStarted(start) = &mut entry {
            start.audit = version;
        }
        apply(&mut run, &entry)
    };
    records.flat_map(|record| record.entries).filter_map(&mut apply).collect()
}

/// Calls of a model, of which one tool is `pay` and the other `look`; both can be in doubt.
const PAYS: &str = r#"
spec: flatmachine
spec_version: 4.2.1
data:
  name: m
  settings: {tools: [pay, look, wipe]}
  agents:
    a: {spec: flatagent, spec_version: 4.2.1, data: {prompt: {system: S, user: q}, profile: main}}
  states:
    start: {type: initial, agent: a, tool_loop: {max_turns: 9}, transitions: [{to: end}]}
    end: {type: final}
"#;

const TOOLS: &str = r#"[{"name":"pay","description":"pays","resources":[["customer_id"],["iban"]],"redact":{"arguments":[["iban"]]},
"approval":{"escalation":{"after_ms":1000,"to":["leads"]}},
"input_schema":null,"output_schema":null,"class":"danger","idempotency":"none","on_unknown":"ask","timeout_ms":1000,"output_bytes_max":1000},
{"name":"look","description":"looks","flow":{"secret":[["token"]]},
"input_schema":null,"output_schema":null,"class":"read","idempotency":"natural","on_unknown":"fail","timeout_ms":1000,"output_bytes_max":1000},
{"name":"wipe","description":"wipes",
"input_schema":null,"output_schema":null,"class":"danger","idempotency":"none","on_unknown":"fail","timeout_ms":1000,"output_bytes_max":1000}]"#;

const PAY: &str = r#"[{"id":"c1","name":"pay","arguments":{"customer_id":"cus-7","iban":"DE02120300000000202051"}}]"#;

/// What a row says of a decision: `EFFECT.ATTEMPT STAGE TARGET` and, where there is one, its result, `rule`, `by`, why, and
/// what is touched. A result that is a hash is left out.
fn told(row: &Row) -> String {
    let mut text = format!("{}.{} {} {}", row.effect.0, row.attempt, row.stage, row.target);
    if let Some(result) = row.result.as_deref().filter(|result| Digest::parse(result).is_none()) {
        text.push_str(&format!(" {result}"));
    }
    if let Some(ruled) = &row.ruled {
        text.push_str(&format!(" rule {}/{}", ruled.rule, ruled.version));
    }
    if let Some(by) = &row.by {
        text.push_str(&format!(" by {by}"));
    }
    if let Some(reason) = &row.reason {
        text.push_str(&format!(" ({reason})"));
    }
    for one in &row.resources {
        text.push_str(&format!(" {}={}", one.name, one.id));
    }
    text
}

/// What rows that are of no model and not the first say.
fn told_of_tools(rows: &[Row]) -> Vec<String> {
    let mut chain = Chain::default();
    for row in rows {
        chain = chain.then(row.number, row.previous, row.hash()).expect("a chain");
        assert!(!row.is_ambiguous(), "{row:?}");
    }
    rows.iter().filter(|row| !matches!(&*row.kind, "model" | "run") || &*row.stage == "overridden").map(told).collect()
}

fn played(lines: &[&str]) -> Bench {
    let mut bench = bench_with(PAYS, TOOLS);
    lines.iter().for_each(|line| drop(bench.line(line)));
    bench
}

#[test]
fn what_the_rules_allow_and_deny_names_the_rule_and_what_would_be_touched() {
    let bench = played(&[
        r#"policy {"pay":"deny"}"#,
        "start {}",
        &format!("reply #1 tools {PAY}"),
        r#"reply #2 tools [{"id":"c2","name":"look","arguments":{}}]"#,
        "return #3 {}",
        r#"policy {"model small":"deny"}"#,
        "reply #4 done",
    ]);
    let rows = rows(&bench);
    assert_eq!(
        told_of_tools(&rows),
        [
            "0.0 denied pay policy.denied rule r1/1 customer_id=cus-7 iban=[redacted]",
            "3.1 intended look rule r1/1",
            "3.1 settled look",
        ]
    );
    let denied = rows.iter().find(|row| &*row.stage == "denied").expect("a row");
    assert_eq!((&*denied.kind, &*denied.class, denied.agent.as_deref()), ("tool", "danger", Some("a")));
    assert_ne!(denied.arguments, Digest::ZERO);
    let model = rows.iter().find(|row| &*row.kind == "model").expect("a row");
    assert_eq!(told(model), "1.1 intended a rule r1/1");
    let before = denied.number;
    assert!(rows.iter().any(|row| row.number > before), "the run goes on after it");
}

#[test]
fn where_no_rules_are_no_row_names_one() {
    let bench = played(&["start {}", &format!("reply #1 tools {PAY}"), "return #2 {}"]);
    assert_eq!(
        told_of_tools(&rows(&bench)),
        ["2.1 intended pay customer_id=[redacted] iban=[redacted]", "2.1 settled pay"]
    );
}

#[test]
fn ids_of_a_conversation_with_something_secret_in_it_are_not_there_in_clear() {
    let bench = played(&[
        r#"policy {"nothing":"deny"}"#,
        "start {}",
        r#"reply #1 tools [{"id":"c0","name":"look","arguments":{}}]"#,
        r#"return #2 {"token":"t-1"}"#,
        &format!("reply #3 tools {PAY}"),
    ]);
    assert_eq!(
        told_of_tools(&rows(&bench))[2..],
        ["4.1 intended pay rule r1/1 customer_id=[redacted] iban=[redacted]"]
    );
}

#[test]
fn a_call_that_failed_for_good_is_told_from_an_attempt_that_another_one_follows() {
    let bench = played(&[
        "start {}",
        r#"reply #1 tools [{"id":"c1","name":"look","arguments":{}}]"#,
        "lost #2 maybe",
        "fail #2 tool.failed no",
    ]);
    assert_eq!(
        told_of_tools(&rows(&bench)),
        ["2.1 intended look", "2.1 failed look run.attempt_lost", "2.2 intended look", "2.2 settled look tool.failed"]
    );
    let before = rows_of_version(&bench, 3);
    assert_eq!(
        told_of_tools(&before),
        ["2.1 intended look", "2.1 failed look run.attempt_lost", "2.2 intended look", "2.2 failed look tool.failed"],
        "a run of before goes on as it began"
    );
}

#[test]
fn a_doubt_and_who_resolved_it_have_rows() {
    let ask = format!("reply #1 tools {PAY}");
    let bench = played(&[
        "start {}",
        &ask,
        "lost #2 maybe",
        r#"signal #3 {"happened":false,"by":"ann"}"#,
        "lost #2 maybe",
        r#"signal #4 {"happened":true,"result":1}"#,
    ]);
    let all = rows(&bench);
    assert_eq!(
        told_of_tools(&all),
        [
            "2.1 intended pay customer_id=[redacted] iban=[redacted]",
            "2.1 doubted pay ask",
            "2.1 resolved pay not_happened by ann",
            "2.1 failed pay tool.outcome_unknown",
            "2.2 intended pay customer_id=[redacted] iban=[redacted]",
            "2.2 doubted pay ask",
            "2.2 resolved pay happened",
            "2.2 settled pay",
        ]
    );
    assert_eq!(
        told_of_tools(&rows_of_version(&bench, 3)),
        ["2.1 intended pay", "2.1 failed pay tool.outcome_unknown", "2.2 intended pay", "2.2 settled pay",],
        "a run of before has no such rows"
    );
    let bench = played(&["start {}", r#"reply #1 tools [{"id":"c1","name":"wipe","arguments":{}}]"#, "lost #2 maybe"]);
    assert_eq!(
        told_of_tools(&rows(&bench)),
        [
            "2.1 intended wipe",
            "2.1 doubted wipe fail",
            "2.1 resolved wipe unknown by contract",
            "2.1 settled wipe tool.outcome_unknown",
        ]
    );
}

#[test]
fn questions_and_answers_about_calls_say_by_which_rule_who_and_why() {
    let bench = played(&[
        r#"policy {"pay":"ask"}"#,
        "start {}",
        &format!("reply #1 tools {PAY}"),
        "fire #5",
        r#"approve #3 ann {"customer_id":"cus-8","iban":"DE02"}"#,
        "return #2 {}",
    ]);
    assert_eq!(
        told_of_tools(&rows(&bench)),
        [
            "2.1 intended pay rule r1/1 customer_id=cus-7 iban=[redacted]",
            "2.1 asked pay rule r1/1",
            "2.1 escalated pay leads",
            "2.1 approved pay rule r1/1 by ann (because) customer_id=cus-8 iban=[redacted]",
            "2.1 settled pay",
        ]
    );
    let rejected = played(&[r#"policy {"pay":"ask"}"#, "start {}", &format!("reply #1 tools {PAY}"), "reject #3 bob"]);
    let told = told_of_tools(&rows(&rejected));
    assert_eq!(told[2..], ["2.1 rejected pay rule r1/1 by bob (because)", "2.1 settled pay approval.rejected"]);
    let before = rows_of_version(&rejected, 3);
    assert_eq!(
        told_of_tools(&before)[1..],
        ["2.1 asked pay r1", "2.1 rejected pay bob", "2.1 failed pay approval.rejected"],
        "a run of before says it as it began"
    );
}

#[test]
fn what_rules_deny_by_the_time_a_call_is_approved_is_a_row_of_that_call() {
    let bench = played(&[
        r#"policy {"pay":"ask"}"#,
        "start {}",
        &format!("reply #1 tools {PAY}"),
        r#"policy {"pay":"deny"}"#,
        "approve #3 ann",
    ]);
    assert_eq!(
        told_of_tools(&rows(&bench))[2..],
        [
            "2.1 approved pay rule r1/1 by ann (because)",
            "2.1 denied pay policy.denied rule r1/1 customer_id=cus-7 iban=[redacted]",
            "2.1 settled pay policy.denied",
        ]
    );
}

/// A run whose rule set becomes another one before the last line, which lets a call go that waited.
fn renewed(lines: &[&str]) -> Bench {
    let (last, before) = lines.split_last().expect("a line");
    let mut bench = played(before);
    bench.rules = "2";
    bench.line(last);
    bench
}

/// The kinds of all entries.
fn kinds(bench: &Bench) -> Vec<&'static str> {
    let records = bench.records.iter().map(|bytes| Record::decode(bytes).expect("a record"));
    records.flat_map(|record| record.entries).map(|entry| entry.kind()).collect()
}

#[test]
fn a_call_that_waited_and_goes_by_a_newer_rule_set_has_a_row_that_says_so() {
    let ask = format!("reply #1 tools {PAY}");
    let approved = renewed(&[r#"policy {"pay":"ask"}"#, "start {}", &ask, "approve #3 ann"]);
    assert_eq!(
        told_of_tools(&rows(&approved))[2..],
        ["2.1 approved pay rule r1/1 by ann (because)", "2.1 allowed pay rule r1/2"]
    );
    let paused = ["policy {\"pay\":\"ask\"}", "start {}", &ask, "pause lunch", "approve #3 ann", "unpause"];
    assert_eq!(
        told_of_tools(&rows(&renewed(&paused)))[2..],
        ["2.1 approved pay rule r1/1 by ann (because)", "2.1 allowed pay rule r1/2"],
        "what was agreed to goes when the hold is lifted"
    );
    let lost = renewed(&[r#"policy {"nothing":"deny"}"#, "start {}", &ask, "lost #2 no"]);
    assert_eq!(told_of_tools(&rows(&lost))[1..], ["2.1 allowed pay rule r1/2"], "it had not left");
    let budget = r#"budgets {"tool:default/pay":{"caps":{"tool_calls":9},"near_percent":80}}"#;
    let drawn = renewed(&[r#"policy {"nothing":"deny"}"#, budget, "start {}", &ask, "drawn"]);
    assert_eq!(told_of_tools(&rows(&drawn))[1..], ["2.1 allowed pay rule r1/2"], "it waited for a share");
    let model = r#"budgets {"tenant:default":{"caps":{"model_calls":9},"near_percent":80}}"#;
    let model = renewed(&[r#"policy {"nothing":"deny"}"#, model, "start {}", "drawn"]);
    let rows = rows(&model);
    assert_eq!(rows[1..].iter().map(told).collect::<Vec<_>>(), ["1.1 intended a rule r1/1", "1.1 allowed a rule r1/2"]);
}

#[test]
fn runs_of_older_builds_get_no_entries_that_those_do_not_know() {
    let ask = format!("reply #1 tools {PAY}");
    let mut bench = played(&[r#"policy {"pay":"ask"}"#, "start {}", &ask]);
    bench.began_with(4);
    bench.rules = "2";
    bench.line("approve #3 ann");
    assert!(!kinds(&bench).contains(&"call_allowed"), "{:?}", kinds(&bench));
    let wipe = r#"reply #1 tools [{"id":"c1","name":"wipe","arguments":{}}]"#;
    for (ask, more) in [(&*ask, vec!["lost #2 maybe", r#"signal #3 {"happened":true}"#]), (wipe, vec!["lost #2 maybe"])]
    {
        let mut bench = played(&["start {}", ask]);
        bench.began_with(3);
        more.iter().for_each(|line| drop(bench.line(line)));
        let (kinds, text) = (kinds(&bench), bench.records.concat());
        assert!(kinds.contains(&"call_settled") && !kinds.contains(&"doubt_resolved"), "{kinds:?}");
        assert!(!String::from_utf8_lossy(&text).contains("failing"), "nor a doubt that nobody resolves");
    }
}

/// Starts two children, and launches one.
const STARTS: &str = r#"
spec: flatmachine
spec_version: 4.2.1
data:
  name: m
  machines:
    c: {spec: flatmachine, spec_version: 4.2.1, data: {name: c, states: {s: {type: final}}}}
    d: {spec: flatmachine, spec_version: 4.2.1, data: {name: d, states: {s: {type: final}}}}
  states:
    start: {type: initial, machine: [c, d], launch: c, transitions: [{to: end}]}
    end: {type: final}
"#;

#[test]
fn a_child_that_rules_let_start_has_a_row_with_its_id_and_the_rule() {
    let starts = |lines: &[&str]| {
        let mut bench = bench_with(STARTS, "[]");
        lines.iter().for_each(|line| drop(bench.line(line)));
        bench
    };
    let bench = starts(&[r#"policy {"nothing":"deny"}"#, "start {}"]);
    let rows = rows(&bench);
    let children: Vec<_> = bench.run.children.keys().map(|child| child.as_str().to_owned()).collect();
    let allowed: Vec<_> = rows.iter().filter(|row| &*row.stage == "allowed").collect();
    assert_eq!(allowed.len(), 3, "{rows:?}");
    for row in allowed {
        let ruled = row.ruled.as_ref().expect("a rule");
        assert_eq!((row.effect.0, &*row.kind, &*ruled.rule, &*ruled.version), (0, "machine", "r1", "1"));
        assert!(children.iter().any(|child| Some(child.as_str()) == row.result.as_deref()), "{row:?} {children:?}");
        assert_ne!(row.arguments, Digest::ZERO);
    }
    let unasked = starts(&["start {}"]);
    assert!(self::rows(&unasked).iter().all(|row| &*row.stage == "started"), "no rule was asked");
}

#[test]
fn what_people_put_in_the_place_of_what_was_written_has_rows() {
    let bench = played(&[
        r#"start {} {"model_calls":5}"#,
        r#"raise {"model_calls":9}"#,
        r#"model {"to":{"provider":"catalog","model":"big"},"by":"ann","reason":"cheaper"}"#,
        "fail #1 provider.auth no",
        r#"skip {"x":1}"#,
    ]);
    assert_eq!(
        told_of_tools(&rows(&bench)),
        [
            "0.0 overridden run model_calls 9 by finance",
            "0.0 overridden * catalog/big by ann (cheaper)",
            "0.0 overridden start by ann (known)",
        ]
    );
    assert_eq!(told_of_tools(&rows_of_version(&bench, 3)), Vec::<String>::new());
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
    assert!(rows.iter().all(|row| row.v == VERSION), "{rows:?}");
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
