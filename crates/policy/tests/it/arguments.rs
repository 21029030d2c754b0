//! Rules that look at arguments of calls.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;
use tempfile::TempDir;
use windlass_core::contract::{Class, Contract, Redact};
use windlass_core::ids::{Digest, RunId};
use windlass_core::label::LabelSet;
use windlass_core::machine::Machine;
use windlass_core::policy::{Answer, Question, Verdict};
use windlass_core::run::TenantScope;
use windlass_core::value::Value;
use windlass_policy::{Arguments, Asked, LivePolicy, RuleSet, Scores, Subject};
use windlass_ports::policy::{Asker, Policy};

use crate::live::machine;
use crate::rules::{folder, write};

const DECLARED: &str = "type Arguments = {
  amount?: Long, rate?: decimal, currency?: String, to?: Set<String>, customer?: { country?: String }, token?: String,
};\n";
const RULES: &str = r#"
@id("open") permit (principal, action, resource);
@id("large") @reason("too much") forbid (principal, action == Action::"CallTool", resource == Tool::"pay")
when { context.args has amount && context.args.amount > 100 };
@id("foreign") @answer("ask") forbid (principal, action == Action::"CallTool", resource == Tool::"pay")
when { context.args has currency && context.args.currency != "EUR" };
@id("steep") forbid (principal, action == Action::"CallTool", resource == Tool::"pay")
when { context.args has rate && context.args.rate.greaterThan(decimal("0.25")) };
@id("abroad") forbid (principal, action == Action::"CallTool", resource == Tool::"pay")
when { context.args has customer.country && context.args.customer.country != "DE" };
@id("strangers") forbid (principal, action == Action::"CallTool", resource == Tool::"mail")
unless { context.args has to && ["ann", "bob"].containsAll(context.args.to) };
@id("guessed") forbid (principal, action == Action::"CallTool", resource == Tool::"pay")
when { context.args has token && context.args.token == "guessed" };
"#;

fn value(json: serde_json::Value) -> Value {
    serde_json::from_value(json).expect("a value")
}

/// A machine with tools that pay, mail and measure.
fn paying() -> Machine {
    let redact = Redact { arguments: vec![vec!["token".into()]], ..Redact::default() };
    let tool = |name: &str| {
        let contract = Contract { class: Class::Write, redact: redact.clone(), ..Contract::undeclared(name) };
        (name.into(), Arc::new(contract))
    };
    Machine { tools: BTreeMap::from([tool("pay"), tool("mail"), tool("measure")]), ..machine() }
}

/// The verdict on a call; `is_known` says whether its arguments are given with the question.
fn verdict(policy: &LivePolicy, tool: &str, arguments: serde_json::Value, is_known: bool) -> Verdict {
    let (machine, scope, root) = (paying(), TenantScope::default(), RunId::stored("r"));
    let arguments = value(arguments);
    let hash = arguments.digest();
    let known = if is_known { BTreeMap::from([(hash, arguments)]) } else { BTreeMap::new() };
    let asker = Asker { root: &root, scope: &scope, machine: &machine, kept: None, arguments: &known };
    let question = Question::CallTool { tool: tool.into(), arguments: hash, agent: None, labels: LabelSet::default() };
    policy.answer(&asker, std::slice::from_ref(&question)).remove(0)
}

fn asked(policy: &LivePolicy, tool: &str, arguments: serde_json::Value) -> (Answer, String) {
    let verdict = verdict(policy, tool, arguments, true);
    (verdict.answer, verdict.rule.to_string())
}

fn governed() -> (TempDir, Arc<LivePolicy>) {
    let folder = folder(&[("a.cedar", RULES), ("arguments.cedarschema", DECLARED)]);
    let policy = LivePolicy::open(folder.path()).expect("a good set");
    (folder, policy)
}

#[test]
fn rules_decide_by_the_values_of_arguments() {
    let (_folder, policy) = governed();
    assert!(policy.reads_arguments());
    let (open, deny) = ((Answer::Allow, "open".to_owned()), |rule: &str| (Answer::Deny, rule.to_owned()));
    let pay = |arguments| asked(&policy, "pay", arguments);
    // One answer is not kept for other values.
    for _ in 0..2 {
        assert_eq!(pay(json!({"amount": 100})), open);
        assert_eq!(pay(json!({"amount": 101})), deny("large"));
        assert_eq!(pay(json!({"amount": 5, "currency": "EUR"})), open);
        assert_eq!(pay(json!({"amount": 5, "currency": "USD"})), (Answer::Ask, "foreign".into()));
    }
    assert_eq!(pay(json!({"rate": 0.25})), open);
    assert_eq!(pay(json!({"rate": 0.26})), deny("steep"));
    assert_eq!(pay(json!({"rate": "0.26"})), deny("steep"));
    assert_eq!(pay(json!({"rate": null})), open, "it is left out");
    assert_eq!(pay(json!({"customer": {"country": "DE", "name": "x"}})), open);
    assert_eq!(pay(json!({"customer": {"country": "FR"}})), deny("abroad"));
    assert_eq!(pay(json!({})), open);
    assert_eq!(pay(json!({"amount": 7.0})), open);
    assert_eq!(pay(json!({"token": "guessed"})), deny("guessed"), "what people are not shown, rules see");
    let mail = |arguments| asked(&policy, "mail", arguments);
    assert_eq!(mail(json!({"to": ["ann"]})), open);
    assert_eq!(mail(json!({"to": ["ann", "eve"]})), deny("strangers"));
    assert_eq!(mail(json!({})), deny("strangers"));
}

#[test]
fn what_cannot_be_shown_to_a_rule_is_no_way_around_it() {
    let (_folder, policy) = governed();
    for (evasion, name) in [
        (json!({"amount": 100.5}), "amount"),
        (json!({"amount": "1000"}), "amount"),
        (json!({"amount": [1000]}), "amount"),
        (json!({"amount": 1e300}), "amount"),
        (json!({"amount": {"__extn": {"fn": "decimal", "arg": "1.0"}}}), "amount"),
        (json!({"rate": 0.250_001}), "rate"),
        (json!({"rate": 9_223_372_036_854_775_807_i64}), "rate"),
        (json!({"currency": ["EUR"]}), "currency"),
        (json!({"customer": {"country": 49}}), "customer"),
        (json!({"customer": "canary-9b1"}), "customer"),
    ] {
        let denied = verdict(&policy, "pay", evasion.clone(), true);
        assert_eq!((denied.answer, &*denied.rule), (Answer::Deny, "windlass.argument_unfit"), "{evasion}");
        assert!(denied.reason.contains(&format!("argument `{name}`")), "{}", denied.reason);
        assert!(!denied.reason.contains("canary"), "{}", denied.reason);
        // A tool that no rule looks at like that is none of it.
        assert_eq!(asked(&policy, "measure", evasion), (Answer::Allow, "open".into()));
    }
    assert_eq!(asked(&policy, "mail", json!({"to": "eve"})), (Answer::Deny, "windlass.argument_unfit".into()));
    // The rule about mail looks at `to` alone.
    assert_eq!(asked(&policy, "mail", json!({"to": ["ann"], "amount": "?"})), (Answer::Allow, "open".into()));
    let unknown = verdict(&policy, "pay", json!({"amount": 1}), false);
    assert_eq!((unknown.answer, &*unknown.rule), (Answer::Deny, "windlass.arguments_unknown"));
    let unlooked = verdict(&policy, "measure", json!({"amount": 1}), false);
    assert_eq!(unlooked.answer, Answer::Allow);
}

#[test]
fn a_rule_that_errs_denies_and_repeats_no_value() {
    let errs = r#"@id("open") permit (principal, action, resource);
@id("sum") forbid (principal, action == Action::"CallTool", resource)
when { context.args has amount && context.args.amount + 1 > 100 };
@id("parsed") forbid (principal, action == Action::"CallTool", resource)
when { context.args has currency && decimal(context.args.currency).greaterThan(decimal("1.0")) };"#;
    let folder = folder(&[("a.cedar", errs), ("arguments.cedarschema", DECLARED)]);
    // Cedar does not take what is not written out for a decimal.
    RuleSet::load(folder.path()).expect_err("a decimal of a value");
    write(folder.path(), &[("a.cedar", errs.split("@id(\"parsed\")").next().expect("the first rules"))]);
    let policy = LivePolicy::open(folder.path()).expect("a good set");
    let denied = verdict(&policy, "pay", json!({"amount": i64::MAX}), true);
    assert_eq!((denied.answer, &*denied.rule), (Answer::Deny, "windlass.cannot_evaluate"));
    assert!(denied.reason.contains("rule `sum`"), "{}", denied.reason);
    assert!(!denied.reason.contains("9223372036854775807"), "{}", denied.reason);
}

#[test]
fn what_the_contract_hides_is_in_no_explanation() {
    let (folder, _policy) = governed();
    let set = RuleSet::load(folder.path()).expect("a good set");
    let arguments = value(json!({"amount": 5, "token": "canary-9b1", "currency": "canary-7c2", "to": ["canary-5d3"]}));
    let labels = LabelSet::default();
    let question = Question::CallTool { tool: "pay".into(), arguments: arguments.digest(), agent: None, labels };
    let asked = Asked::of(&question, &paying(), Some(&arguments));
    let explanation = set.explain(&Subject::default(), &asked, &Scores::default());
    let shown = serde_json::to_string(&explanation).expect("JSON");
    assert!(!shown.contains("canary") && !format!("{explanation:?} {asked:?}").contains("canary"), "{shown}");
    let args = &explanation.attributes.context["args"];
    assert_eq!((&args["amount"], &args["currency"]), (&json!(5), &json!("[text of 10 bytes]")), "{args}");
    assert_ne!(args["token"], json!("canary-9b1"));
}

#[test]
fn a_set_that_declares_nothing_sees_nothing_and_may_not_ask_for_it() {
    let plain = folder(&[("a.cedar", "@id(\"open\") permit (principal, action, resource);")]);
    let policy = LivePolicy::open(plain.path()).expect("a good set");
    assert!(!policy.reads_arguments());
    assert_eq!(verdict(&policy, "pay", json!({"amount": "?"}), false).answer, Answer::Allow);
    let first = policy.version();
    write(plain.path(), &[("arguments.cedarschema", DECLARED)]);
    assert_eq!(policy.refresh(), Ok(true), "it is a part of the set");
    assert_ne!(policy.version(), first);
    assert!(!policy.reads_arguments(), "no rule looks at what is declared");
    let undeclared = folder(&[("a.cedar", RULES)]);
    let findings = RuleSet::load(undeclared.path()).expect_err("nothing is declared");
    assert!(findings.to_string().contains("arguments.cedarschema"), "{findings}");
    let unsafe_access =
        "permit (principal, action == Action::\"CallTool\", resource)\nwhen { context.args.amount > 1 };";
    let wrong = folder(&[("a.cedar", unsafe_access), ("arguments.cedarschema", DECLARED)]);
    RuleSet::load(wrong.path()).expect_err("a call may leave it out, so rules look with `has` first");
    let broken = folder(&[("a.cedar", RULES), ("arguments.cedarschema", "type Arguments = { amount: Long };")]);
    let findings = RuleSet::load(broken.path()).expect_err("not optional");
    assert!(findings.to_string().contains("not optional"), "{findings}");
}

#[test]
fn a_call_without_arguments_of_its_own_has_none_and_they_are_known() {
    let (folder, _policy) = governed();
    let set = RuleSet::load(folder.path()).expect("a good set");
    let labels = LabelSet::default();
    let question = Question::CallTool { tool: "pay".into(), arguments: Digest::ZERO, agent: None, labels };
    let asked = Asked::of(&question, &paying(), None);
    assert_eq!(set.explain(&Subject::default(), &asked, &Scores::default()).answer, Answer::Allow);
    let unknown = set.explain(&Subject::default(), &asked.with_unknown_arguments(), &Scores::default());
    assert_eq!(&*unknown.rule, "windlass.arguments_unknown");
    let contract = Some((Class::Write, windlass_core::contract::Idempotency::None));
    let arguments = Arguments::given(&value(json!({"amount": 101})));
    let given = Asked::CallTool { tool: "pay".into(), contract, agent: None, labels, arguments };
    assert_eq!(&*set.explain(&Subject::default(), &given, &Scores::default()).rule, "large");
}

#[test]
fn what_is_denied_whatever_the_arguments_are_is_denied_by_that_rule_where_they_are_not_known() {
    let unknown = |rules: &str| {
        let folder = folder(&[("rules.cedar", rules), ("arguments.cedarschema", DECLARED)]);
        let policy = LivePolicy::open(folder.path()).expect("rules");
        let found = verdict(&policy, "pay", json!({"amount": 1}), false);
        (found.answer, found.rule.to_string())
    };
    let deny = |rule: &str| (Answer::Deny, rule.to_owned());
    let reads = "@id(\"large\") forbid (principal, action, resource == Tool::\"pay\")\n\
                 when { context has args && context.args has amount && context.args.amount > 100 };\n";
    let open = "@id(\"open\") permit (principal, action, resource);\n";
    assert_eq!(unknown(&format!("{open}{reads}")), deny("windlass.arguments_unknown"));
    let never = "@id(\"never\") forbid (principal, action == Action::\"CallTool\", resource == Tool::\"pay\");\n";
    assert_eq!(unknown(&format!("{open}{reads}{never}")), deny("never"));
    let flow = "permit (principal, action == Action::\"CallModel\", resource);\n";
    assert_eq!(unknown(&format!("{flow}{reads}")), deny("windlass.default_deny"));
    let some = "@id(\"some\") permit (principal, action == Action::\"CallTool\", resource)\n\
                when { context.args has amount && context.args.amount < 5 };\n";
    assert_eq!(unknown(&format!("{flow}{some}")), deny("windlass.arguments_unknown"), "some may be permitted");
}
