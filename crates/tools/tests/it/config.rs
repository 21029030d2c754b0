//! The configuration: what is built from it, and what is refused, all at once.

use std::path::Path;

use windlass_core::approval::Terms;
use windlass_core::contract::{Class, Contract, Flow, Idempotency, OnUnknown, RampBudget, Shadow};
use windlass_core::value::Value;
use windlass_tools::{ALL, CatalogConfig};

use crate::{build, build_guarded, catalog, catalog_in, json, tool};

fn problems(toml: &str, require_contracts: bool) -> Vec<String> {
    let error = build(Path::new("/"), toml, require_contracts).expect_err("a refusal");
    error.problems.into_iter().map(|p| format!("{}: {}", p.key, p.message)).collect()
}

#[test]
fn a_contract_is_read_from_the_table() {
    let catalog = catalog(
        r"
[tools.refund]
type = 'command'
command = ['/bin/true']
description = 'Refunds a payment.'
class = 'danger'
idempotency = 'key'
on_unknown = { verify = 'find_refund' }
timeout_ms = 5000
output_bytes_max = 4096
approval = 'always'
approval_expires_ms = 60000
errors = ['card_declined']
secret = ['/card/number']
resources = ['/customer/id']
input_schema = { type = 'object', required = ['amount'] }

[tools.find_refund]
type = 'http'
class = 'read'
url = 'http://h/refunds'

[tools.bare]
type = 'command'
command = ['/bin/true']
",
    );
    assert_eq!(
        *tool(&catalog, "refund").contract(),
        Contract {
            name: "refund".into(),
            description: "Refunds a payment.".into(),
            input_schema: json(r#"{"type":"object","required":["amount"]}"#),
            output_schema: Value::Null,
            class: Class::Danger,
            idempotency: Idempotency::Key,
            on_unknown: OnUnknown::Verify { tool: "find_refund".into() },
            timeout_ms: 5_000,
            output_bytes_max: 4_096,
            cost_weight: 1,
            latency_ms: None,
            flow: Flow { secret: vec![vec!["card".into(), "number".into()]], ..Flow::default() },
            approval: Terms { always: true, expires_ms: 60_000, escalation: None },
            plan: None,
            redact: windlass_core::contract::Redact::default(),
            resources: vec![vec!["customer".into(), "id".into()]],
            errors: vec!["card_declined".into()],
            shadow: None,
        }
    );
    assert_eq!(*tool(&catalog, "bare").contract(), Contract::undeclared("bare"));
}

#[test]
fn every_mistake_is_reported_at_once() {
    let toml = r"
[hooks.a]
type = 'webhok'
[hooks.b]
type = 'webhook'
command = ['x']
[hooks.c]
type = 'webhook'
url = 'ftp://h/'
[hooks.d]
type = 'webhook'
url = 'http://user:pw@h/'
headers = { 'Idempotency-Key' = 'x' }
[hooks.e]
type = 'logging'
url = 'http://h/'
[hooks.f]
type = 'metrics'
timeout_ms = 30001
[tools.f]
type = 'http'
url = 'http://h/{x'
method = 'get'
[tools.g]
type = 'command'
command = []
[tools.h]
type = 'command'
command = ['x']
secret_env = { K = 'env:ABSENT', 'A=B' = 'env:KEY' }
env = { WINDLASS_RUN_ID = 'x' }
[tools.'i j']
type = 'command'
command = ['x']
timeout_ms = 0
[tools.k]
type = 'command'
command = ['x']
on_unknown = { verify = 'h' }
input_schema = 'x'
[actions.h]
type = 'webhook'
";
    assert_eq!(
        problems(toml, false),
        [
            "hooks.a.type: the type `webhok` is not known here",
            "hooks.b.command: the type `webhook` has no key `command`",
            "hooks.b.url: `url` is missing",
            "hooks.c.url: the scheme is `ftp`, not `http` or `https`",
            "hooks.d.headers.Idempotency-Key: the header `idempotency-key` is set by the engine",
            "hooks.d.url: an address must not hold credentials",
            "hooks.e.url: the type `logging` has no key `url`",
            "hooks.f.timeout_ms: must be from 1 to 30000",
            "hooks.f.timeout_ms: the type `metrics` has no key `timeout_ms`",
            "tools.f.method: `get` is no method",
            "tools.f.url: the address is no template: a brace has no partner",
            "tools.g.command: names no program",
            "tools.h.env: `WINDLASS_RUN_ID` is set by the engine",
            "tools.h.secret_env: `A=B` is no name of an environment variable",
            "tools.h.secret_env.K: the secret `env:ABSENT` is not there",
            "tools.i j: a tool's name has 1 to 64 letters, digits, `_` and `-`, as providers ask",
            "tools.i j.timeout_ms: must be from 1 to 86400000",
            "tools.k.input_schema: a JSON Schema is a table",
            "actions.h: `h` is the name of a tool too",
            "actions.h.type: the type `webhook` is not known here",
            "tools.k.on_unknown: the tool `h` is not of class `read`, so it cannot say whether a call happened",
        ]
    );
}

#[test]
fn a_secret_that_is_missing_is_told_with_how_it_is_set() {
    let hint = |reference: &str| {
        let toml = format!("[tools.t]\ntype = 'command'\ncommand = ['x']\nsecret_env = {{ K = '{reference}' }}");
        let problem = build(Path::new("/"), &toml, false).expect_err("no secret").problems.remove(0);
        assert_eq!(
            (&*problem.key, problem.message),
            ("tools.t.secret_env.K", format!("the secret `{reference}` is not there"))
        );
        problem.hint.expect("a hint")
    };
    assert_eq!(hint("secret:crm"), "`windlass secrets set crm` sets it");
    assert_eq!(hint("env:ABSENT"), "set the environment variable `ABSENT` of this process");
    assert_eq!(hint("file:/no/where"), "write it to the file `/no/where`, which this process has to be able to read");
}

#[test]
fn a_strict_configuration_takes_no_tool_without_a_contract() {
    let toml = "[tools.t]\ntype = 'command'\ncommand = ['x']\nclass = 'write'";
    assert!(catalog_in(Path::new("/"), toml).is_ok());
    assert_eq!(
        problems(toml, true),
        [
            "tools.t.idempotency: this configuration takes no tool without a contract",
            "tools.t.description: this configuration takes no tool without a description",
            "tools.t.input_schema: this configuration takes no tool without a schema of its arguments",
        ]
    );
    // What an action takes is the same for all of them.
    let action = "[actions.t]\ntype = 'command'\ncommand = ['x']\nclass = 'write'\nidempotency = 'key'";
    assert!(build(Path::new("/"), action, true).is_ok());
}

#[test]
fn a_strict_configuration_takes_no_danger_without_a_plan_or_a_person() {
    let table = |group: &str, more: &str| {
        format!(
            "[{group}.t]\ntype = 'command'\ncommand = ['x']\nclass = 'danger'\nidempotency = 'none'\n\
             description = 'Drops it.'\ninput_schema = {{ type = 'object' }}\n{more}"
        )
    };
    let refused = |toml: &str| {
        let error = build_guarded(Path::new("/"), toml).expect_err("a refusal");
        error.problems.into_iter().map(|p| format!("{}: {}", p.key, p.message)).collect::<Vec<_>>()
    };
    let message = "this configuration takes no tool of class `danger` that does what cannot be undone at once";
    assert_eq!(refused(&table("tools", "")), [format!("tools.t.plan: {message}")]);
    assert_eq!(refused(&table("tools", "approval = 'policy'")), [format!("tools.t.plan: {message}")]);
    assert_eq!(refused(&table("actions", "")), [format!("actions.t.approval: {message}")]);
    for (group, more) in [
        ("tools", "plan = { argument = 'dry_run' }"),
        ("tools", "approval = 'always'"),
        ("actions", "approval = 'always'"),
    ] {
        build_guarded(Path::new("/"), &table(group, more)).expect("accepted");
    }
    build(Path::new("/"), &table("tools", ""), true).expect("accepted where only contracts are asked for");
    let hint = build_guarded(Path::new("/"), &table("tools", "")).expect_err("refused").problems[0].hint.clone();
    assert!(hint.expect("a hint").contains("plan = { argument = \"dry_run\" }"));
}

#[test]
fn shadows_and_ramps_are_read_and_checked() {
    let table = |more: &str| format!("[tools.t]\ntype = 'command'\ncommand = ['x']\n{more}");
    let shadow = |more: &str| tool(&catalog(&table(more)), "t").contract().shadow.clone();
    assert_eq!(shadow(""), None);
    assert_eq!(shadow("shadow = false"), None);
    let stub = json(r#"{"shadow":true}"#);
    assert_eq!(shadow("shadow = true"), Some(Box::new(Shadow { ramp_percent: 0, answer: stub.clone(), budget: None })));
    assert_eq!(shadow("ramp_percent = 25"), Some(Box::new(Shadow { ramp_percent: 25, answer: stub, budget: None })));
    let answer = json(r#"{"id":7}"#);
    let given = "ramp_percent = 5\nshadow_answer = { id = 7 }";
    assert_eq!(shadow(given), Some(Box::new(Shadow { ramp_percent: 5, answer, budget: None })));
    assert_eq!(
        problems(&table("shadow = true\nramp_percent = 101\nerrors = ['']"), false),
        [
            "tools.t.ramp_percent: `shadow` and `ramp_percent` exclude each other",
            "tools.t.ramp_percent: must be from 0 to 100",
            "tools.t.errors: names at most 64 errors of 1 to 128 bytes each",
        ]
    );
    assert_eq!(
        problems(&table("shadow_answer = 1"), false),
        ["tools.t.shadow_answer: needs `shadow = true` or `ramp_percent`"]
    );
}

#[test]
fn the_budget_of_a_ramp_is_read_and_bounds_something() {
    let table = |more: &str| format!("[tools.t]\ntype = 'command'\ncommand = ['x']\n{more}");
    let budget = |more: &str| {
        let given = table(&format!("ramp_percent = 5\nramp_budget = {{ {more} }}"));
        tool(&catalog(&given), "t").contract().shadow.as_ref().expect("a ramp").budget.clone()
    };
    let some = |calls, failed_calls, of_calls| Some(RampBudget { calls, failed_calls, of_calls });
    assert_eq!(budget("calls = 7"), some(Some(7), None, 100));
    assert_eq!(budget("failed_calls = 0, of_calls = 1"), some(None, Some(0), 1));
    for (given, wrong) in [
        ("ramp_budget = { calls = 1 }", "needs `ramp_percent` of at least 1"),
        ("ramp_percent = 0\nramp_budget = { calls = 1 }", "needs `ramp_percent` of at least 1"),
        ("ramp_percent = 5\nramp_budget = {}", "needs `calls`, `failed_calls` or both"),
        (
            "ramp_percent = 5\nramp_budget = { calls = 0 }",
            "`calls` must be at least 1; `shadow = true` lets none be made",
        ),
        (
            "ramp_percent = 5\nramp_budget = { calls = 1, of_calls = 5 }",
            "`of_calls` must be from 1 to 1000, beside `failed_calls`",
        ),
        (
            "ramp_percent = 5\nramp_budget = { failed_calls = 1, of_calls = 1001 }",
            "`of_calls` must be from 1 to 1000, beside `failed_calls`",
        ),
        (
            "ramp_percent = 5\nramp_budget = { failed_calls = 100 }",
            "`failed_calls` must be less than `of_calls`, which is 100",
        ),
    ] {
        assert_eq!(problems(&table(given), false), [format!("tools.t.ramp_budget: {wrong}")], "{given}");
    }
}

#[test]
fn what_a_call_touches_is_named_by_arguments_that_the_schema_has() {
    let table = |resources: &str| {
        format!(
            "[tools.t]\ntype = 'command'\ncommand = ['/bin/true']\nresources = {resources}\n\
             input_schema = {{ type = 'object', properties = {{ id = {{ type = 'string' }} }} }}\n"
        )
    };
    let named = tool(&catalog(&table("['/id']")), "t").contract().resources.clone();
    assert_eq!(named, [vec![windlass_core::ids::Name::from("id")]]);
    assert_eq!(
        problems(&table("['/ids', '', 'id']"), false),
        [
            "tools.t.resources: `id` is no JSON Pointer",
            "tools.t.resources: `/ids` names no id: there is no argument `ids` (`input_schema`)",
            "tools.t.resources: `` names no id: it is all of the arguments, and no id",
        ]
    );
    assert_eq!(problems(&table("[]"), false), ["tools.t.resources: names 1 to 16 arguments"]);
    let action = "[actions.t]\ntype = 'command'\ncommand = ['/bin/true']\nresources = ['/context/id', '/id']\n";
    assert_eq!(
        problems(action, false),
        [
            "actions.t.resources: `/id` names no id: the arguments of an action are action, state, machine, run_id, context"
        ]
    );
}

#[test]
fn what_a_table_of_a_server_says_is_checked_before_anything_is_accepted() {
    let toml = r"
[mcp.s]
command = ['x']
[mcp.s.tools.t]
class = 'write'
plan = { tool = 'gone' }
approval_escalate_to = ['leads']
shadow_answer = 1
limits = { concurrent = 0, overload = 'degrade', degraded = 1 }
";
    assert_eq!(
        problems(toml, false),
        [
            "mcp.s.tools.t.approval_escalate_to: needs `approval_escalate_after_ms`",
            "mcp.s.tools.t.plan: only a tool of class `danger` goes by plans",
            "mcp.s.tools.t.shadow_answer: needs `shadow = true` or `ramp_percent`",
            "mcp.s.tools.t.limits.concurrent: must be at least 1",
            "mcp.s.tools.t.limits.overload: a call that changes something cannot be answered without it",
            "mcp.s.tools.t.plan: there is no tool `gone`",
        ]
    );
}

#[test]
fn what_is_not_shown_is_named_by_pointers() {
    let toml = r"
[tools.t]
type = 'command'
command = ['x']
redact = { arguments = ['/card/number', 'card'], result = ['/items/*/iban', '/a~2'] }
[actions.a]
type = 'http'
url = 'http://h/'
redact = {}
[mcp.s]
command = ['x']
[mcp.s.tools.t]
redact = { result = ['token'] }
";
    assert_eq!(
        problems(toml, false),
        [
            "tools.t.redact.arguments: `card` is no JSON Pointer",
            "tools.t.redact.result: `/a~2` is no JSON Pointer",
            "actions.a.redact: it names nothing",
            "mcp.s.tools.t.redact.result: `token` is no JSON Pointer",
        ]
    );
    let text = toml::from_str::<CatalogConfig>("[tools.t]\ntype = 'command'\nredact = { results = [] }");
    assert!(text.expect_err("a refusal").to_string().contains("unknown field `results`"));
    let fine = "[tools.t]\ntype = 'command'\ncommand = ['x']\nredact = { arguments = ['/a/b'], result = [''] }";
    let catalog = catalog_in(Path::new("/"), fine).expect("a catalog");
    let redact = &catalog.tools["t"].contract().redact;
    assert_eq!((redact.arguments.len(), redact.arguments[0].len(), redact.result[0].len()), (1, 2, 0));
}

#[test]
fn unknown_keys_and_written_secrets_are_refused_when_read() {
    let error = |toml: &str| toml::from_str::<CatalogConfig>(toml).expect_err("a refusal").to_string();
    assert!(error("[tools.t]\ntype = 'command'\ncomand = ['x']").contains("unknown field `comand`"));
    assert!(error("[tools.t]\ntype = 'command'\nclass = 'reed'").contains("unknown variant `reed`"));
    let text = error("[hooks.h]\ntype = 'webhook'\nurl = 'http://h/'\napi_key = 'plain-text'");
    assert!(text.contains("never written here"), "{text}");
}

#[test]
fn the_list_of_kinds_is_complete_and_documented() {
    let names: Vec<_> = ALL.iter().map(|kind| (kind.name, kind.is_hook())).collect();
    let expected = [
        ("http", false),
        ("command", false),
        ("webhook", true),
        ("command", true),
        ("logging", true),
        ("metrics", true),
        ("distributed-worker", true),
    ];
    assert_eq!(names, expected);
    let schema = serde_json::to_string(&schemars::schema_for!(CatalogConfig)).expect("a schema");
    for key in ALL.iter().flat_map(|kind| kind.keys) {
        assert!(schema.contains(&format!("\"{key}\"")), "`{key}` is no key of a table");
    }
}

#[test]
fn what_is_declassified_is_bounded_by_its_schema() {
    let toml = r"
[tools.t]
type = 'command'
command = ['x']
declassified = ['/kind', '/text', '/other', 'kind']
output_schema = { properties = { kind = { enum = ['refund', 'complaint'] }, text = { type = 'string' } } }
[actions.a]
type = 'command'
command = ['x']
declassified = ['']
";
    assert_eq!(
        problems(toml, false),
        [
            "tools.t.declassified: `kind` is no JSON Pointer",
            "tools.t.declassified: `/text` cannot be declassified: its schema allows free text (`output_schema`)",
            "tools.t.declassified: `/other` cannot be declassified: no schema says what it is (`output_schema`)",
            "actions.a.declassified: `` cannot be declassified: no schema says what it is (`output_schema`)",
        ]
    );
    let fine = "[tools.t]\ntype = 'command'\ncommand = ['x']\ndeclassified = ['/kind']\n\
                output_schema = { properties = { kind = { enum = ['refund'] } } }";
    let catalog = catalog_in(Path::new("/"), fine).expect("a catalog");
    assert_eq!(catalog.tools["t"].contract().flow.declassified, [["kind".into()]]);
}
