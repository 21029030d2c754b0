//! How findings look.

use windlass_spec::diagnostics::{Rule, Severity, render_all};

use crate::documents::{bare, findings, load_with, machine, options};

const BROKEN: &str = "\
spec: flatmachine
spec_version: \"4.2\"
data:
  name: broken
  agents:
    writer:
      spec: flatagent
      spec_version: \"4.2\"
      data:
        prompt: {user: \"Write about {{ input.topic\"}
        profile: main
  states:
    start:
      type: initial
      agent: writter
      transitions:
        - condition: context.ok ==
          to: finish
        - to: fnish
    finish:
      type: final
      ouput:
        text: context.text
";

#[test]
fn a_broken_document_reports_every_mistake_with_line_column_and_advice() {
    let found = findings(BROKEN, &[], &bare());
    let errors: Vec<_> = found.iter().filter(|d| d.severity == Severity::Error).collect();
    let places: Vec<(Rule, u32, u32)> = errors.iter().map(|d| (d.code, d.line, d.column)).collect();
    assert_eq!(
        places,
        [
            (Rule::BadTemplate, 10, 46),
            (Rule::UnknownAgent, 15, 14),
            (Rule::BadCondition, 17, 35),
            (Rule::UnknownState, 19, 15),
            (Rule::UnknownKey, 22, 7),
        ]
    );
    assert!(errors.iter().all(|d| !d.excerpt.is_empty()));
    let advised = errors.iter().filter(|d| d.advice.as_deref().is_some_and(|a| a.starts_with("did you mean")));
    assert_eq!(advised.count(), 3);
    insta::assert_snapshot!(render_all(&found));
}

#[test]
fn findings_have_a_json_form() {
    let text = machine("states:\n  a: {type: finl}");
    insta::assert_json_snapshot!(findings(&text, &[], &bare()));
}

#[test]
fn strict_makes_errors_of_warnings() {
    let text = machine("states:\n  a: {type: final, mode: any}");
    let loaded = load_with(&text, &[], &bare()).expect("loads");
    assert_eq!(loaded.diagnostics.len(), 1);
    let strict = windlass_spec::LoadOptions { strict: true, ..options() };
    load_with(&text, &[], &strict).expect_err("refused");
    let own = machine("settings: {strict: true}\nstates:\n  a: {type: final, mode: any}");
    load_with(&own, &[], &bare()).expect_err("refused");
}

#[test]
fn a_very_long_line_is_not_quoted() {
    let text = format!("{{\"spec\": \"flatmachine\", \"data\": {{\"states\": 5, \"x\": \"{}\"}}}}", "a".repeat(5_000));
    let found = findings(&text, &[], &bare());
    assert!(found.iter().all(|d| d.excerpt.is_empty() && d.render().len() < 500));
}

#[test]
fn thousands_of_mistakes_are_reported_in_part() {
    let states: String = (0..5_000).map(|i| format!("\n  s{i}: {{type: final, bad: 1}}")).collect();
    let found = findings(&machine(&format!("states:{states}")), &[], &bare());
    assert!((100..1_000).contains(&found.len()), "{}", found.len());
}

#[test]
fn every_rule_is_described() {
    for rule in Rule::ALL {
        assert!(rule.summary().ends_with('.'), "{rule}");
        assert!(rule.docs().starts_with("docs/"));
    }
}

#[test]
fn a_finding_in_another_document_names_it() {
    let text = machine("agents: {x: ./x.yml}\nstates:\n  a: {type: final, agent: x}");
    let agent = "spec: flatagent\nspec_version: \"4.2\"\ndata:\n  prompt: {user: hi, sistem: x}\n  profile: main\n";
    let found = findings(&text, &[("x.yml", agent)], &bare());
    assert_eq!((found[0].file.as_str(), found[0].line, found[0].column), ("x.yml", 4, 22));
}
