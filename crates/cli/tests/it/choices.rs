//! Which models were called, why and what came of it; and what becomes of machines when one of them retires.

use serde_json::{Value as Json, json};

use crate::kit::Place;

/// An agent of a chain with a cheap tier and a better one, and one whose document names its model itself.
const MACHINE: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: grader
  agents:
    grader:
      spec: flatagent
      spec_version: "4.2.1"
      data:
        name: grader
        model: { provider: chain, name: answers, max_tokens: 100 }
        user: "Grade: {{ input.text }}"
        output: { grade: { type: int, description: A grade. } }
    clerk:
      spec: flatagent
      spec_version: "4.2.1"
      data: { name: clerk, model: { provider: scripted, name: plain, max_tokens: 100 }, user: Say it. }
  states:
    grade: {type: initial, agent: grader, input: {text: input.text}, output_to_context: {grade: output.grade}, transitions: [{to: say}]}
    say: {agent: clerk, output_to_context: {said: output.content}, transitions: [{to: done}]}
    done: {type: final, output: {grade: context.grade, said: context.said}}
"#;

const CATALOG: &str = "version: house-1
models:
- {name: cheap, provider: scripted, model: tiny, tier: fast}
- {name: dear, provider: scripted, model: big, tier: strong, replacement: newer}
- {name: newer, provider: scripted, model: bigger, tier: strong}
chains:
- name: answers
  links: [{model: cheap}, {model: dear}]
  escalate: {on: [provider.bad_output], to: strong, at_most: 1}
";

const SCRIPT: &str = "prices: {tiny: {input: 1000000, output: 1000000}, big: {input: 9000000, output: 9000000}}
rules:
  - {model: tiny, match: hard, reply: {content: I do not know}}
  - {model: tiny, reply: {json: {grade: 1}}}
  - {model: big, reply: {json: {grade: 2}}}
  - {model: bigger, match: odd, reply: {content: No grade}}
  - {model: bigger, reply: {json: {grade: 2}}}
  - {model: plain, reply: {content: Said.}}
";

fn place() -> Place {
    let place = Place::new();
    place.write("grader.yml", MACHINE);
    place.write("models.yml", CATALOG);
    place.write("script.yml", SCRIPT);
    place.write("windlass.toml", "models = \"models.yml\"\n[providers.scripted]\nscript = \"script.yml\"\n");
    place
}

fn graded() -> Place {
    let place = place();
    for (run, text, grade) in [("easy", "easy", 1), ("hard", "hard", 2)] {
        let input = json!({ "text": text }).to_string();
        let ran = place.windlass(&["run", "grader.yml", "--run-id", run, "--input", &input]);
        assert_eq!((ran.code(), &ran.json()["grade"]), (0, &json!(grade)), "{}", ran.shown());
    }
    place
}

fn told(place: &Place, args: &[&str]) -> Json {
    let ran = place.windlass(&[&["runs", "choices"], args].concat());
    assert_eq!(ran.code(), 0, "{}", ran.shown());
    ran.json()
}

fn outcomes(told: &Json) -> Vec<(String, String)> {
    let of = |choice: &Json, key: &str| choice[key].as_str().unwrap_or_default().to_owned();
    let choices = told["choices"].as_array().expect("choices");
    choices.iter().map(|choice| (of(choice, "model"), of(choice, "outcome"))).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(model, outcome)| ((*model).to_owned(), (*outcome).to_owned())).collect()
}

#[test]
fn a_run_says_which_model_was_called_for_each_state_why_and_what_came_of_it() {
    let place = graded();
    let hard = told(&place, &["hard"]);
    let expected = [("tiny", "sent_back"), ("tiny", "not_good_enough"), ("big", "answered"), ("plain", "answered")];
    assert_eq!(outcomes(&hard), pairs(&expected));
    let choices = hard["choices"].as_array().expect("choices");
    assert_eq!(
        (&choices[1]["escalated"], &choices[1]["tier"], &choices[1]["state"]),
        (&json!(true), &json!("fast"), &json!("grade"))
    );
    assert_eq!(choices[2]["reason"], json!("`cheap` failed with provider.bad_output"));
    assert_eq!(choices[2]["candidates"][0], json!({ "name": "cheap", "passed": "tried before" }));
    assert_eq!((&choices[3]["reason"], &choices[3]["chain"]), (&json!("the document names it"), &Json::Null));
    assert_eq!(outcomes(&told(&place, &["easy"])), pairs(&[("tiny", "answered"), ("plain", "answered")]));
    let plain = place.windlass(&["runs", "choices", "hard", "--plain"]).stdout();
    assert!(plain.contains("not_good_enough") && plain.contains("ESCALATED"), "{plain}");
    assert_eq!(place.windlass(&["runs", "choices", "nobody"]).code(), 4);
}

#[test]
fn many_runs_add_up_by_tier_and_outcome_and_filters_find_some_of_them() {
    let place = graded();
    let all = told(&place, &["--machine", "grader", "--totals"]);
    assert!(all.get("choices").is_none() && all["next"].is_null(), "{all}");
    let tier = |name: &str| {
        let totals = all["totals"].as_array().expect("totals");
        totals.iter().find(|total| total["tier"] == name && total["agent"] == "grader").cloned().expect(name)
    };
    let (fast, strong) = (tier("fast"), tier("strong"));
    assert_eq!((&fast["choices"], &fast["escalated"], &fast["percent_lost"]), (&json!(3), &json!(1), &json!(33)));
    assert_eq!((&strong["choices"], &strong["lost_micros"]), (&json!(1), &json!(0)));
    let cost = |sum: &Json| sum["cost_micros"].as_u64().expect("a cost");
    let lost = cost(&fast["outcomes"]["sent_back"]) + cost(&fast["outcomes"]["not_good_enough"]);
    assert_eq!(fast["lost_micros"], json!(lost));
    assert_eq!(cost(&fast), lost + cost(&fast["outcomes"]["answered"]));
    let used = |run: &str| cost(&place.windlass(&["runs", "show", run]).json());
    assert_eq!(cost(&fast) + cost(&strong), used("easy") + used("hard"), "what the runs cost");

    let found = |args: &[&str]| outcomes(&told(&place, args)).len();
    assert_eq!([found(&["--tier", "strong"]), found(&["--model", "dear"]), found(&["--agent", "clerk"])], [1, 1, 2]);
    assert_eq!(
        [found(&["--outcome", "sent_back", "--outcome", "answered"]), found(&["--reason", "bad_output"])],
        [5, 1]
    );
    assert_eq!([found(&["--machine", "other"]), found(&["--until", "1h"]), found(&["--state", "say"])], [0, 0, 2]);
    let page = told(&place, &["--limit", "1"]);
    let next = page["next"].as_str().expect("another page");
    let rest = told(&place, &["--limit", "1", "--cursor", next]);
    assert_eq!(outcomes(&page).len() + outcomes(&rest).len(), 6);
    assert_eq!(outcomes(&told(&place, &["--all", "--limit", "1"])).len(), 6);
    assert_eq!(place.windlass(&["runs", "choices", "--outcome", "good"]).code(), 2);
}

const CASES: &str = "machine: grader.yml
script: script.yml
cases:
  - {name: easy, input: {text: easy}, expect: {output: {grade: 1, said: Said.}}}
  - {name: hard, input: {text: hard}, expect: {output: {grade: 2, said: Said.}}}
";

fn drilled(place: &Place, args: &[&str]) -> (i32, Json) {
    let ran = place.windlass(&[&["drill", "model-retired", "grader.yml", "--json"], args].concat());
    (ran.code(), if ran.stdout().is_empty() { Json::Null } else { ran.json() })
}

fn fate(told: &Json, agent: &str) -> String {
    let agents = told["agents"].as_array().expect("agents");
    let found = agents.iter().find(|told| told["agent"] == agent).expect("an agent");
    found["fate"].as_str().expect("a word").to_owned()
}

#[test]
fn a_drill_says_what_takes_the_place_of_a_retired_model_and_whether_the_cases_still_pass() {
    let place = place();
    let (code, none) = drilled(&place, &["--model", "dear"]);
    assert_eq!((code, &none["holds"], &none["passed"]), (3, &json!(false), &json!(0)), "nothing is proved: {none}");
    place.write("grader.test.yml", CASES);
    let (code, told) = drilled(&place, &["--model", "dear"]);
    assert_eq!(
        (code, &told["holds"], &told["passed"], fate(&told, "grader")),
        (0, &json!(true), &json!(2), "remapped".into()),
        "{told}"
    );
    assert_eq!(told["agents"][1]["after"], json!(["tiny", "bigger"]));
    assert_eq!((fate(&told, "clerk").as_str(), drilled(&place, &["--model", "big"]).0), ("untouched", 0));

    // The model that takes its place does not do as well.
    place.write(
        "grader.test.yml",
        &format!(
            "{CASES}  - {{name: odd, input: {{text: hard and odd}}, expect: {{output: {{grade: 2, said: Said.}}}}}}\n"
        ),
    );
    let (code, told) = drilled(&place, &["--model", "dear"]);
    assert_eq!(
        (code, &told["passed"], &told["failed"], &told["passed_before"]),
        (3, &json!(2), &json!(1), &json!(3)),
        "{told}"
    );
    assert_eq!(drilled(&place, &["--model", "dear", "--min-pass", "66"]).0, 0);
    let plain = place.windlass(&["drill", "model-retired", "grader.yml", "--model", "dear", "--plain"]);
    assert!(
        plain.stdout().contains("`bigger` answers for `dear`") && plain.stdout().contains("the gate does not hold"),
        "{}",
        plain.shown()
    );
    assert!(plain.stderr().contains("odd: fails without the model"), "{}", plain.shown());
}

#[test]
fn a_model_without_another_in_its_place_is_lost() {
    let place = place();
    place.write("grader.test.yml", CASES);
    let (code, told) = drilled(&place, &["--model", "plain", "--min-pass", "0"]);
    assert_eq!((code, fate(&told, "clerk"), &told["passed"]), (3, "lost".into(), &json!(0)), "{told}");
    // The chain begins with it, and nothing stands in its place.
    let (code, told) = drilled(&place, &["--model", "cheap", "--min-pass", "0"]);
    assert_eq!((code, fate(&told, "grader")), (3, "lost".into()), "{told}");
    let (code, told) = drilled(&place, &["--model", "cheap", "--to", "newer", "--min-pass", "50"]);
    assert_eq!((code, fate(&told, "grader"), &told["passed"]), (0, "remapped".into(), &json!(1)), "{told}");
    for (args, says) in [
        (&["--model", "nobody"][..], "no agent of `grader.yml` calls the model `nobody`"),
        (&["--model", "dear", "--to", "nobody"], "the model catalog has no model `nobody`"),
        (&["--model", "dear", "--to", "dear"], "circle"),
    ] {
        let ran = place.windlass(&[&["drill", "model-retired", "grader.yml"], args].concat());
        assert_eq!(ran.code(), 4, "{}", ran.shown());
        assert!(ran.stderr().contains(says), "{}", ran.shown());
    }
}
