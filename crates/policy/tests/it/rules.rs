//! Rule sets: what they answer, and what is wrong with broken ones.

use std::path::Path;

use tempfile::TempDir;
use windlass_core::contract::{Class, Idempotency};
use windlass_core::label::LabelSet;
use windlass_core::policy::Answer;
use windlass_policy::{Arguments, Asked, Explanation, RuleSet, Scores, Severity, Subject};

/// Rules of the examples in the documentation.
const RULES: &str = r#"
@id("flow") permit (principal, action in [Action::"CallModel", Action::"StartMachine", Action::"TakeTransition"], resource);

@id("tools.read") @reason("reading is free")
permit (principal, action == Action::"CallTool", resource) when { resource.class == "read" };

@id("tools.paying")
permit (principal, action == Action::"CallTool", resource) when { principal.tier == "pro" };

@id("danger.ask") @answer("ask") @reason("a person looks at what cannot be undone")
forbid (principal, action == Action::"CallTool", resource) when { resource.class == "danger" };

@id("beta") @reason("only in the experiment")
forbid (principal, action == Action::"CallTool", resource)
when { resource in Group::"beta" } unless { principal.experiments.contains("new-tools") };

@id("trust") @reason("the agent is not trusted with this")
forbid (principal, action == Action::"CallTool", resource)
when { resource.tags.contains("money") } unless { context has agent && context.agent.trust >= 50 };
"#;

const ENTITIES: &str = r#"[
  {"uid": {"type": "Tenant", "id": "acme"}, "attrs": {"tier": "pro", "locale": "de"}},
  {"uid": {"type": "User", "id": "acme/ada"}, "attrs": {"experiments": ["new-tools"]}, "parents": [{"type": "Group", "id": "staff"}]},
  {"uid": {"type": "User", "id": "acme/bob"}, "attrs": {"tier": "free"}},
  {"uid": {"type": "Tool", "id": "forecast"}, "parents": [{"type": "Group", "id": "beta"}]},
  {"uid": {"type": "Tool", "id": "refund"}, "attrs": {"tags": ["money"]}},
  {"uid": {"type": "Tool", "id": "from_hook"}, "attrs": {"class": "read"}},
  {"uid": {"type": "Agent", "id": "clerk"}, "attrs": {"trust": 80}},
  {"uid": {"type": "Agent", "id": "clerk@0123456789ab"}, "attrs": {"trust": 10}}
]"#;

pub(crate) fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), files);
    folder
}

pub(crate) fn write(folder: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        std::fs::write(folder.join(name), text).expect("written");
    }
}

fn set() -> RuleSet {
    let folder = folder(&[("rules.cedar", RULES), ("people.json", ENTITIES)]);
    RuleSet::load(folder.path()).expect("a good set")
}

fn who(user: &str) -> Subject {
    Subject { tenant: "acme".into(), user: user.into(), machine: "shop".into(), bundle: "0".into() }
}

fn tool(name: &str, class: Option<Class>, agent: Option<(&str, &str)>) -> Asked {
    Asked::CallTool {
        tool: name.into(),
        contract: class.map(|class| (class, Idempotency::None)),
        agent: agent.map(|(name, version)| (name.into(), version.into())),
        labels: LabelSet::default(),
        arguments: Arguments::default(),
    }
}

fn said(explanation: &Explanation) -> (Answer, &str) {
    (explanation.answer, &*explanation.rule)
}

#[test]
fn forbid_denies_ask_asks_permit_allows_and_nothing_denies() {
    let set = set();
    let clerk = Some(("clerk", "ffffffffffff"));
    let asked = |user: &str, asked: Asked| set.explain(&who(user), &asked, &Scores::default());
    let allow = |rule| (Answer::Allow, rule);
    assert_eq!(said(&asked("bob", tool("look", Some(Class::Read), clerk))), allow("tools.read"));
    assert_eq!(said(&asked("eve", tool("send", Some(Class::Write), clerk))), allow("tools.paying"));
    let denied = asked("bob", tool("send", Some(Class::Write), clerk));
    assert_eq!(said(&denied), (Answer::Deny, "windlass.default_deny"));
    let asks = asked("ada", tool("drop", Some(Class::Danger), clerk));
    assert_eq!(said(&asks), (Answer::Ask, "danger.ask"));
    assert_eq!(&*asks.reason, "a person looks at what cannot be undone");
    assert_eq!(asks.applied.iter().map(|rule| &*rule.rule).collect::<Vec<_>>(), ["danger.ask", "tools.paying"]);
    // What is not permitted in the first place is not asked about.
    assert_eq!(said(&asked("bob", tool("drop", Some(Class::Danger), clerk))), (Answer::Deny, "windlass.default_deny"));
}

#[test]
fn flags_are_by_tier_experiment_and_trust() {
    let set = set();
    let beta = tool("forecast", Some(Class::Read), None);
    assert_eq!(said(&set.explain(&who("ada"), &beta, &Scores::default())), (Answer::Allow, "tools.read"));
    assert_eq!(said(&set.explain(&who("bob"), &beta, &Scores::default())), (Answer::Deny, "beta"));
    let refund = |version: &str| tool("refund", Some(Class::Write), Some(("clerk", version)));
    assert_eq!(
        said(&set.explain(&who("ada"), &refund("ffffffffffff"), &Scores::default())),
        (Answer::Allow, "tools.paying")
    );
    assert_eq!(said(&set.explain(&who("ada"), &refund("0123456789ab"), &Scores::default())), (Answer::Deny, "trust"));
    let nobody = tool("refund", Some(Class::Write), Some(("stranger", "1")));
    assert_eq!(said(&set.explain(&who("ada"), &nobody, &Scores::default())), (Answer::Deny, "trust"));
    // Another tenant has none of it.
    let other = Subject { tenant: "umbrella".into(), ..who("ada") };
    assert_eq!(said(&set.explain(&other, &beta, &Scores::default())), (Answer::Deny, "beta"));
}

#[test]
fn flags_are_by_locale_of_the_tenant_or_of_the_user() {
    let rules = r#"permit (principal, action, resource);
@id("abroad") @reason("sold in German alone")
forbid (principal, action == Action::"CallTool", resource == Tool::"refund") unless { principal.locale == "de" };
@id("variant") @reason("the other half has the other model")
forbid (principal, action == Action::"CallModel", resource == Model::"large")
unless { principal.experiments.contains("large-model") };
@id("trial") @reason("a machine on trial")
forbid (principal, action == Action::"StartMachine", resource == Machine::"trial.yml")
unless { principal.experiments.contains("new-tools") };"#;
    let entities = r#"[
      {"uid": {"type": "Tenant", "id": "acme"}, "attrs": {"locale": "de", "experiments": ["large-model"]}},
      {"uid": {"type": "User", "id": "acme/ada"}, "attrs": {"experiments": ["new-tools"]}},
      {"uid": {"type": "User", "id": "acme/eve"}, "attrs": {"locale": "fr"}},
      {"uid": {"type": "User", "id": "umbrella/ida"}, "attrs": {"locale": "de"}}
    ]"#;
    let folder = folder(&[("rules.cedar", rules), ("people.json", entities)]);
    let set = RuleSet::load(folder.path()).expect("a good set");
    let answer = |tenant: &str, user: &str, asked: &Asked| {
        let subject = Subject { tenant: tenant.into(), ..who(user) };
        let explanation = set.explain(&subject, asked, &Scores::default());
        (explanation.answer, explanation.rule.to_string())
    };
    let denied = |rule: &str| (Answer::Deny, rule.to_owned());
    let refund = tool("refund", Some(Class::Write), None);
    assert_eq!(answer("acme", "ada", &refund).0, Answer::Allow, "the locale of the tenant");
    assert_eq!(answer("acme", "eve", &refund), denied("abroad"), "her own goes before it");
    assert_eq!(answer("umbrella", "ida", &refund).0, Answer::Allow, "hers, in a tenant without one");
    assert_eq!(answer("umbrella", "bob", &refund), denied("abroad"), "nobody said which");
    let model = Asked::CallModel {
        model: "large".into(),
        provider: "scripted".into(),
        agent: ("clerk".into(), "ffffffffffff".into()),
    };
    assert_eq!(answer("acme", "eve", &model).0, Answer::Allow, "the experiment of the tenant");
    assert_eq!(answer("acme", "ada", &model), denied("variant"), "she has one of her own");
    assert_eq!(answer("umbrella", "ida", &model), denied("variant"));
    let trial = Asked::StartMachine { machine: "trial.yml".into() };
    assert_eq!(answer("acme", "ada", &trial).0, Answer::Allow);
    assert_eq!(answer("acme", "eve", &trial), denied("trial"));
    assert_eq!(answer("acme", "eve", &Asked::StartMachine { machine: "tried.yml".into() }).0, Answer::Allow);
}

#[test]
fn a_tool_that_nothing_describes_is_denied() {
    let folder = folder(&[("all.cedar", "permit (principal, action, resource);"), ("e.json", ENTITIES)]);
    let set = RuleSet::load(folder.path()).expect("a good set");
    let answer = |asked: Asked| set.explain(&who("ada"), &asked, &Scores::default());
    assert_eq!(said(&answer(tool("rumour", None, None))), (Answer::Deny, "windlass.unknown_tool"));
    assert_eq!(answer(tool("from_hook", None, None)).answer, Answer::Allow);
    assert_eq!(answer(tool("rumour", Some(Class::Danger), None)).answer, Answer::Allow);
}

#[test]
fn a_file_cannot_make_a_tool_look_harmless() {
    let entities = r#"[{"uid": {"type": "Tool", "id": "drop"}, "attrs": {"class": "read"}}]"#;
    let folder = folder(&[("rules.cedar", RULES), ("e.json", entities)]);
    let set = RuleSet::load(folder.path()).expect("a good set");
    let explanation = set.explain(&who("ada"), &tool("drop", Some(Class::Danger), None), &Scores::default());
    assert_eq!(explanation.attributes.resource["attrs"]["class"], "danger");
    assert_eq!(explanation.answer, Answer::Deny);
}

#[test]
fn a_user_of_a_tenant_with_a_slash_is_no_user_of_another() {
    let entities = r#"[{"uid": {"type": "User", "id": "a/b/c"}, "attrs": {"tier": "pro"}}]"#;
    let folder = folder(&[("rules.cedar", RULES), ("e.json", entities)]);
    let set = RuleSet::load(folder.path()).expect("a good set");
    let subject = |tenant: &str, user: &str| Subject { tenant: tenant.into(), user: user.into(), ..who("") };
    let send = tool("send", Some(Class::Write), None);
    assert_eq!(set.explain(&subject("a", "b/c"), &send, &Scores::default()).answer, Answer::Allow);
    assert_eq!(set.explain(&subject("a/b", "c"), &send, &Scores::default()).answer, Answer::Deny);
}

/// Findings of a broken set as `file:line: message`.
fn findings(files: &[(&str, &str)]) -> Vec<String> {
    let folder = folder(files);
    let findings = match RuleSet::load(folder.path()) {
        Ok(set) => set.warnings().to_vec(),
        Err(findings) => findings.0,
    };
    let name = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let line = |f: &windlass_policy::Finding| {
        let file = if f.file == folder.path() { ".".to_owned() } else { name(&f.file) };
        let word = if f.severity == Severity::Error { "error" } else { "warning" };
        let line = f.line.map(|line| format!(":{line}")).unwrap_or_default();
        let hint = f.hint.as_deref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        format!("{file}{line}: {word}: {}{hint}", f.message)
    };
    findings.iter().map(line).collect()
}

#[track_caller]
fn finds(files: &[(&str, &str)], expected: &[&str]) {
    let found = findings(files);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(expected.split(" .. ").all(|part| found.contains(part)), "{found:?} should have {expected:?}");
    }
}

#[test]
fn findings_name_the_place_and_the_way_out() {
    finds(
        &[("a.cedar", "permit (principal, action, resource)\nwhen { principal.tier = 1 };")],
        &["a.cedar:2: error: "],
    );
    let unknown = "permit (principal, action, resource);\n\nforbid (principal, action == Action::\"CallTool\", resource)\n  when { resource.clas == \"read\" };";
    finds(&[("a.cedar", unknown)], &["a.cedar:4: error: .. clas .. class"]);
    finds(
        &[(
            "a.cedar",
            "@id(\"x\") permit (principal, action, resource);\n@id(\"x\") permit (principal, action, resource);",
        )],
        &["a.cedar:2: error: the rule `x` is there already"],
    );
    finds(
        &[("a.cedar", "@answer(\"ask\")\npermit (principal, action, resource);")],
        &["a.cedar:1: error: a `permit` has no `@answer` .. forbid"],
    );
    finds(
        &[("a.cedar", "@answer(\"perhaps\")\nforbid (principal, action, resource);")],
        &["a.cedar:1: error: `perhaps` is no answer"],
    );
    finds(
        &[("a.cedar", "@severity(\"high\")\npermit (principal, action, resource);")],
        &["a.cedar:1: error: no rule has the annotation `@severity`"],
    );
    finds(&[("a.cedar", "permit (principal == ?principal, action, resource);")], &["a.cedar .. error: .. template"]);
    finds(
        &[("a.cedar", "@id(\"windlass.x\")\npermit (principal, action, resource);")],
        &["a.cedar:1: error: `windlass.x` cannot name a rule"],
    );
    finds(&[("readme.md", "nothing")], &[".: error: has no `.cedar` file"]);
}

#[test]
fn findings_about_entities_name_the_place() {
    let rules = ("a.cedar", "permit (principal, action, resource);");
    finds(&[rules, ("e.json", "[\n  {\"uid\": }\n]")], &["e.json:2: error: "]);
    finds(&[rules, ("e.json", "{}")], &["e.json:1: error: entities are a JSON array"]);
    let misspelt = "[\n  {\"uid\": {\"type\": \"Tool\", \"id\": \"a\"}},\n  {\"uid\": {\"type\": \"Tool\", \"id\": \"b\"}, \"attrs\": {\"clas\": \"read\"}}\n]";
    finds(&[rules, ("e.json", misspelt)], &["e.json:3: error: `Tool::\"b\"` .. clas .. policy schema"]);
    let tenantless = "[{\"uid\": {\"type\": \"User\", \"id\": \"ada\"}}]";
    finds(&[rules, ("e.json", tenantless)], &["e.json:1: error: the user `ada` belongs to no tenant .. TENANT/NAME"]);
    let twice = "[{\"uid\": {\"type\": \"Tool\", \"id\": \"a\"}},\n{\"uid\": {\"type\": \"Tool\", \"id\": \"a\"}}]";
    finds(&[rules, ("e.json", twice)], &["e.json:2: error: `Tool::\"a\"` is given twice"]);
    let shouting = "[{\"uid\": {\"type\": \"Robot\", \"id\": \"a\"}}]";
    finds(&[rules, ("e.json", shouting)], &["e.json:1: error: .. Robot"]);
}

#[test]
fn an_action_that_nothing_permits_is_pointed_out() {
    finds(
        &[("a.cedar", "permit (principal, action == Action::\"CallTool\", resource);")],
        &["no rule permits `CallModel`", "no rule permits `StartMachine`", "no rule permits `TakeTransition`"],
    );
}

#[test]
fn what_cannot_be_evaluated_is_denied() {
    // Adding to the largest number fails when it is evaluated; the `forbid` around it must not simply be left out.
    let rules = "permit (principal, action, resource);\n\
                 forbid (principal, action == Action::\"CallTool\", resource)\n\
                 when { context has agent && context.agent.trust + 9223372036854775807 < 0 };";
    let entities = r#"[{"uid": {"type": "Agent", "id": "clerk"}, "attrs": {"trust": 1}}]"#;
    let folder = folder(&[("a.cedar", rules), ("e.json", entities)]);
    let set = RuleSet::load(folder.path()).expect("a good set");
    let explanation =
        set.explain(&who("ada"), &tool("look", Some(Class::Read), Some(("clerk", "1"))), &Scores::default());
    assert_eq!(said(&explanation), (Answer::Deny, "windlass.cannot_evaluate"));
}

#[test]
fn a_rule_that_asks_says_how_long_and_who_else() {
    let ask = r#"@id("move") @answer("ask") @expires("2h") @escalate_after("15m") @escalate_to("leads, oncall")
forbid (principal, action == Action::"TakeTransition", resource) when { resource.to == "pay" };
permit (principal, action, resource);"#;
    let folder = folder(&[("a.cedar", ask)]);
    let set = RuleSet::load(folder.path()).expect("a good set");
    let to = |to: &str| Asked::TakeTransition { from: "check".into(), to: to.into() };
    let asked = set.explain(&who("ada"), &to("pay"), &Scores::default());
    assert_eq!(said(&asked), (Answer::Ask, "move"));
    let asking = asked.asking.expect("terms");
    let escalation = asking.escalation.expect("an escalation");
    assert_eq!((asking.expires_ms, escalation.after_ms), (Some(7_200_000), 900_000));
    assert_eq!(escalation.to, ["leads".into(), "oncall".into()]);
    assert_eq!(set.explain(&who("ada"), &to("done"), &Scores::default()).asking, None);
}

#[test]
fn terms_of_a_question_are_checked() {
    let rest = "forbid (principal, action, resource); permit (principal, action, resource);";
    for wrong in [
        r#"@answer("ask") @expires("soon")"#,
        r#"@answer("ask") @expires("0s")"#,
        r#"@answer("ask") @expires("400d")"#,
        r#"@answer("ask") @escalate_after("1h")"#,
        r#"@answer("ask") @escalate_to("leads")"#,
        r#"@answer("ask") @escalate_after("1h") @escalate_to("leads,,b")"#,
        r#"@answer("ask") @escalate_after("1h") @escalate_to("a,b,c,d,e,f,g,h,i,j,k")"#,
        r#"@expires("1h")"#,
        r#"@answer("ask") @expires("10m") @escalate_after("15m") @escalate_to("leads")"#,
        r#"@answer("ask") @expires("30m") @escalate_after("10m") @escalate_to("a,b,c")"#,
    ] {
        let folder = folder(&[("a.cedar", &format!("{wrong} {rest}"))]);
        assert!(RuleSet::load(folder.path()).is_err(), "{wrong}");
    }
}

#[test]
fn labels_that_nothing_has_are_warned_of() {
    let rules = |condition: &str| {
        let deny = format!("forbid (principal, action == Action::\"CallTool\", resource) when {{ {condition} }};");
        let folder = folder(&[("a.cedar", &format!("permit (principal, action, resource);\n{deny}"))]);
        let set = RuleSet::load(folder.path()).expect("a good set");
        set.warnings().iter().map(|warning| (warning.line, warning.message.clone())).collect::<Vec<_>>()
    };
    for (condition, word) in [
        (r#"context.labels.contains("secrets")"#, "secrets"),
        (r#"context["labels"].containsAny(["secret", "Untrusted"])"#, "Untrusted"),
        (r#"context.labels.containsAll(["pii"])"#, "pii"),
    ] {
        let said = format!("nothing has the label `{word}`: this never holds");
        assert_eq!(rules(condition), [(Some(2), said)], "{condition}");
    }
    assert_eq!(rules(r#"context.labels.contains("secret") || context.labels.containsAny(["untrusted"])"#), []);
}

#[test]
fn a_score_goes_before_the_files_for_its_version_alone() {
    let set = set();
    let refund = |version: &str| tool("refund", Some(Class::Write), Some(("clerk", version)));
    let scores: Scores = [("clerk@0123456789ab".into(), 90), ("clerk@ffffffffffff".into(), 5)].into_iter().collect();
    assert_eq!(said(&set.explain(&who("ada"), &refund("0123456789ab"), &scores)), (Answer::Allow, "tools.paying"));
    assert_eq!(said(&set.explain(&who("ada"), &refund("ffffffffffff"), &scores)), (Answer::Deny, "trust"));
    assert_eq!(said(&set.explain(&who("ada"), &refund("aaaaaaaaaaaa"), &scores)), (Answer::Allow, "tools.paying"));
}
