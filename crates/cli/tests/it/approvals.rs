//! Calls that wait for a person: what is shown, what counts as an answer, and what leaves in the end.

use serde_json::{Value, json};

use super::kit::Place;

const SCRIPT: &str = r"rules:
  - {agent: clerk, turn: 1, reply: {tool_calls: [{name: pay, arguments: {cents: 500}}]}}
  - {agent: clerk, turn: 2, match: 'refused by', reply: {content: I was refused.}}
  - {agent: clerk, turn: 2, match: 'that ann changed', reply: {content: Paid less.}}
  - {agent: clerk, turn: 2, reply: {content: Paid.}}
";

const CONFIG: &str = r#"[providers.scripted]
script = "script.yml"
[tools.pay]
type = "command"
command = ["python3", "pay.py"]
class = "write"
approval = "always"
input_schema = { type = "object", properties = { cents = { type = "integer", maximum = 1000 } }, required = ["cents"] }
"#;

const PAY: &str =
    "import json, sys\ncall = json.load(sys.stdin)\nopen('paid', 'a').write(str(call['cents']) + '\\n')\nprint('{}')\n";

fn place() -> Place {
    let place = Place::paying(SCRIPT, CONFIG);
    place.write("pay.py", PAY);
    place
}

fn paid(place: &Place) -> String {
    std::fs::read_to_string(place.path("paid")).unwrap_or_default()
}

/// Starts a run, which asks, and gives back what `show` says.
fn asked(place: &Place, run: &str) -> Value {
    let parked = place.windlass(&["run", "payer.yml", "--run-id", run]);
    assert_eq!(parked.code(), 7, "{}", parked.shown());
    let wait = parked.json()["waits"][0].clone();
    assert_eq!(wait["kind"], "approval", "{}", parked.shown());
    let id = wait["approval"].as_str().expect("an id").to_owned();
    let advice = format!("windlass approvals approve '{id}'");
    assert!(parked.stderr().contains(&advice), "{}", parked.shown());
    assert_eq!(paid(place), "", "nothing left before anybody agreed");
    let shown = place.windlass(&["approvals", "show", &id]).json();
    assert_eq!((&shown["call"], &shown["arguments"]), (&json!("pay"), &json!({"cents": 500})));
    let listed = place.windlass(&["approvals", "list"]).json();
    assert_eq!(listed["approvals"], json!([shown]));
    shown
}

fn id(shown: &Value) -> &str {
    shown["id"].as_str().expect("an id")
}

#[test]
fn an_approved_call_is_made_once() {
    let place = place();
    let shown = asked(&place, "one");
    let hash = shown["shown"].as_str().expect("a hash");
    let approve = ["approvals", "approve", id(&shown), "--by", "ann", "--reason", "invoice 7", "--shown", hash];
    assert_eq!(place.windlass(&approve).json()["answer"], "approved");
    assert_eq!(place.windlass(&approve).code(), 0, "the same answer once more is the same answer");
    let done = place.windlass(&["resume", "one"]);
    assert_eq!((done.code(), done.json()), (0, json!({"said": "Paid."})), "{}", done.shown());
    assert_eq!(paid(&place), "500\n");
    let again = place.windlass(&approve);
    assert_eq!(again.code(), 4, "{}", again.shown());
    assert_eq!(place.windlass(&["approvals", "list"]).json()["approvals"], json!([]));
    assert!(place.windlass(&["runs", "journal", "one"]).stdout().contains(r#""by":"ann","reason":"invoice 7""#));
    assert_eq!(place.windlass(&["fsck"]).code(), 0);
}

#[test]
fn a_refusal_is_read_by_the_model() {
    let place = place();
    let shown = asked(&place, "two");
    let reject = ["approvals", "reject", id(&shown), "--by", "ann", "--reason", "no invoice"];
    assert_eq!(place.windlass(&reject).json()["answer"], "rejected");
    assert_eq!(place.windlass(&["resume", "two"]).json(), json!({"said": "I was refused."}));
    assert_eq!(paid(&place), "");
}

#[test]
fn changed_arguments_are_checked_and_sent() {
    let place = place();
    let shown = asked(&place, "three");
    let with = |arguments: &str| {
        place.windlass(&["approvals", "approve", id(&shown), "--by", "ann", "--arguments", arguments])
    };
    for wrong in [r#"{"cents":5000}"#, r#"{"cents":"five"}"#, "7"] {
        let refused = with(wrong);
        assert_eq!(refused.code(), 4, "{wrong}: {}", refused.shown());
    }
    assert_eq!(with(r#"{"cents":100}"#).code(), 0);
    assert_eq!(place.windlass(&["resume", "three"]).json(), json!({"said": "Paid less."}));
    assert_eq!(paid(&place), "100\n");
}

#[test]
fn answers_that_do_not_fit_are_refused_and_the_question_stays() {
    let place = place();
    let shown = asked(&place, "four");
    let forged = "0".repeat(64);
    let answers: [&[&str]; 5] = [
        &["approve", id(&shown), "--by", "ann", "--shown", &forged],
        &["approve", id(&shown), "--by", "ann", "--shown", "no hash"],
        &["approve", id(&shown), "--by", ""],
        &["approve", "four#1", "--by", "ann"],
        &["approve", "nobody#1", "--by", "ann"],
    ];
    for answer in answers {
        let args: Vec<&str> = ["approvals"].iter().chain(answer).copied().collect();
        let refused = place.windlass(&args);
        assert!([2, 4].contains(&refused.code()), "{answer:?}: {}", refused.shown());
    }
    for channel in ["", "approval", id(&shown)] {
        place.windlass(&["signal", channel, "--data", r#"{"approve":true}"#, "--run", "four"]);
    }
    assert_eq!(place.windlass(&["resume", "four"]).code(), 7, "it still asks");
    assert_eq!(paid(&place), "");
    assert_eq!(place.windlass(&["approvals", "show", id(&shown)]).json(), shown);
}

#[test]
fn a_test_beside_the_machine_says_who_answers() {
    let place = place();
    place.write(
        "payer.test.yml",
        "script: script.yml
answers: {pay: {returns: {}}}
cases:
  - name: approved
    approvals: [{call: pay, approve: true}]
    expect: {output: {said: Paid.}, effects: {tool.pay: 1}}
  - name: changed
    approvals: [{approve: true, by: ann, arguments: {cents: 1}}]
    expect: {output: {said: Paid less.}}
  - name: refused
    approvals: [{call: pay, approve: false, reason: no}]
    expect: {output: {said: I was refused.}, effects: {tool.pay: 0}}
  - name: nobody answers
    expect: {output: {said: Paid.}}
  - name: still open
    approvals: [{call: other, approve: true}]
    expect: {status: waiting, waits: [approval]}
",
    );
    let ran = place.windlass(&["test", "payer.test.yml"]);
    assert_eq!(ran.code(), 0, "{}", ran.shown());
}

/// A rule set under which a transition is asked about, and whose questions are escalated.
const TRANSITION_RULES: &str = r#"
permit (principal, action, resource);
@id("to.paid") @answer("ask") @reason("a person looks before the last step") @expires("2h")
@escalate_after("1s") @escalate_to("leads, oncall")
forbid (principal, action == Action::"TakeTransition", resource) when { resource.to == "paid" };
"#;

const TWO_STEPS: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: steps
  states:
    check: {type: initial, transitions: [{to: paid}], on_error: {policy.denied: held}}
    paid: {type: final, output: {end: paid}}
    held: {type: final, output: {end: held, why: context.last_error}}
"#;

fn steps() -> Place {
    let place = Place::new();
    place.write("steps.yml", TWO_STEPS);
    std::fs::create_dir(place.path("policies")).expect("a folder");
    place.write("policies/rules.cedar", TRANSITION_RULES);
    place.write("windlass.toml", "[policy]\npath = \"policies\"\n");
    place
}

#[test]
fn a_transition_waits_for_a_person_and_its_rule_is_told() {
    let place = steps();
    for (run, answer, end) in [("go", "approve", "paid"), ("stop", "reject", "held")] {
        let parked = place.windlass(&["run", "steps.yml", "--run-id", run, "--wait", "0s"]);
        assert_eq!(parked.code(), 7, "{}", parked.shown());
        let listed = place.windlass(&["approvals", "list", "--run", run]).json();
        let question = &listed["approvals"][0];
        assert_eq!((&question["kind"], &question["call"]), (&json!("transition"), &json!("check->paid")), "{listed}");
        assert_eq!(question["rule"], "to.paid");
        let forged = place.windlass(&["approvals", answer, id(question), "--by", "ann", "--shown", &"0".repeat(64)]);
        assert_eq!(forged.code(), 4, "{}", forged.shown());
        assert_eq!(place.windlass(&["approvals", answer, id(question), "--by", "ann"]).code(), 0);
        let done = place.windlass(&["resume", run]);
        assert_eq!(done.json()["end"], end, "{}", done.shown());
        let why = place.windlass(&["policy", "why", run]).json();
        let asked = why["decisions"].as_array().expect("decisions").iter().filter(|one| one["answer"] == "ask");
        assert!(asked.clone().count() > 0 && asked.clone().all(|one| one["rule"] == "to.paid"), "{why}");
        assert_eq!(place.windlass(&["audit", "verify"]).code(), 0);
    }
    let said = place.windlass(&["policy", "why", "--transition", "check:paid", "--machine", "steps"]);
    assert!(said.stdout().contains("to.paid"), "{}", said.shown());
}

// Slow on purpose: a question is escalated by the clock alone.
#[test]
fn a_question_that_nobody_answers_is_escalated_by_whoever_drives() {
    let place = steps();
    let parked = place.windlass(&["run", "steps.yml", "--run-id", "late", "--wait", "0s"]);
    assert_eq!(parked.code(), 7, "{}", parked.shown());
    // Another process takes the timers up.
    let parked = place.windlass(&["resume", "late", "--wait", "5s"]);
    assert_eq!(parked.code(), 7, "{}", parked.shown());
    let listed = place.windlass(&["approvals", "list"]).json();
    assert_eq!(listed["approvals"][0]["escalated"], json!({"to": "oncall", "level": 2}), "{listed}");
    let journal = place.windlass(&["runs", "journal", "late"]).stdout();
    assert_eq!(journal.matches("approval_escalated").count(), 2, "{journal}");
}

// Slow on purpose: the time of a question runs out by the clock alone.
#[test]
fn an_answer_in_time_counts_although_nobody_takes_it_up_in_time() {
    let place = place();
    place.write("windlass.toml", &CONFIG.replace("approval =", "approval_expires_ms = 8000\napproval ="));
    let parked = place.windlass(&["run", "payer.yml", "--run-id", "slow", "--wait", "0s"]);
    assert_eq!(parked.code(), 7, "{}", parked.shown());
    let shown = place.windlass(&["approvals", "list"]).json()["approvals"][0].clone();
    let approved = place.windlass(&["approvals", "approve", id(&shown), "--by", "ann"]);
    assert_eq!(approved.code(), 0, "{}", approved.shown());
    let due: jiff::Timestamp = shown["expires_at"].as_str().expect("a time").parse().expect("a time");
    while jiff::Timestamp::now() <= due {
        // Slow on purpose: the time of a question runs out by the clock alone.
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let done = place.windlass(&["resume", "slow"]);
    assert_eq!((done.code(), done.json()), (0, json!({"said": "Paid."})), "{}", done.shown());
    assert_eq!(paid(&place), "500\n");
}

#[test]
fn the_time_in_which_a_run_was_held_is_added_wherever_the_end_of_a_question_is_shown() {
    let place = place();
    assert_eq!(place.windlass(&["run", "payer.yml", "--run-id", "held", "--wait", "0s"]).code(), 7);
    let expires = || place.windlass(&["approvals", "list"]).json()["approvals"][0]["expires_at"].clone();
    let before = expires();
    let ended = |ran: crate::kit::Ran| ran.json()["waits"][0]["at"].clone();
    assert_eq!(ended(place.windlass(&["runs", "show", "held"])), before);
    for _ in 0..2 {
        assert_eq!(place.windlass(&["runs", "pause", "held"]).code(), 0);
        let unpaused = place.windlass(&["runs", "unpause", "held"]);
        assert!([0, 7].contains(&unpaused.code()), "{}", unpaused.shown());
        let parked = place.windlass(&["resume", "held", "--wait", "0s"]);
        assert_eq!(parked.code(), 7, "{}", parked.shown());
        let moved = expires();
        assert!(moved.as_str() > before.as_str(), "{moved} is not after {before}");
        assert_eq!(ended(parked), moved);
        assert_eq!(ended(place.windlass(&["runs", "show", "held"])), moved);
        let stuck = place.windlass(&["runs", "stuck", "--older", "0s"]).stdout();
        assert!(stuck.contains(moved.as_str().expect("a time")), "{stuck}");
    }
}

#[test]
fn what_a_model_writes_is_shown_as_what_it_is() {
    let place = place();
    let hidden = "\u{202e}5\u{200b}";
    place.write("script.yml", &SCRIPT.replace("{cents: 500}", &format!("{{cents: 500, to: \"{hidden}\"}}")));
    let parked = place.windlass(&["run", "payer.yml", "--run-id", "bidi"]);
    assert_eq!(parked.code(), 7, "{}", parked.shown());
    let id = parked.json()["waits"][0]["approval"].as_str().expect("an id").to_owned();
    for args in [
        &["approvals", "show", &id][..],
        &["approvals", "show", &id, "--plain"],
        &["approvals", "list"],
        &["approvals", "list", "--plain"],
        &["runs", "journal", "bidi"],
    ] {
        let shown = place.windlass(args).stdout().to_owned();
        assert!(shown.contains(r"\u202e5\u200b"), "{args:?}: {shown}");
        assert!(!shown.contains(hidden), "{args:?}: {shown}");
    }
}

/// What a tool that goes by plans does: it shows, or pays.
const PLANNED_PAY: &str = "import json, sys\ncall = json.load(sys.stdin)\nif call.get('dry_run'):\n    print('{\"content\": \"would pay\", \"to\": \"eve\"}')\nelse:\n    open('paid', 'a').write(str(call['cents']) + '\\n')\n    print('{}')\n";

#[test]
fn whoever_approves_a_plan_sees_it() {
    let place = place();
    let config = CONFIG.replace(r#"class = "write""#, "class = \"danger\"\nplan = { argument = \"dry_run\" }");
    place.write("windlass.toml", &config);
    place.write("pay.py", PLANNED_PAY);
    let script = |arguments: &str, then: &str| {
        let first =
            format!("{{agent: clerk, turn: 1, reply: {{tool_calls: [{{name: pay, arguments: {arguments}}}]}}}}");
        place.write("script.yml", &format!("rules:\n  - {first}\n  - {{agent: clerk, turn: 2, {then}}}\n"));
    };
    // The model is lost once the plan is made, so that the next one can be told which plan that is.
    script("{cents: 500}", "reply: {status: 400}");
    let failed = place.windlass(&["run", "payer.yml", "--run-id", "planned"]);
    assert_eq!(failed.code(), 3, "{}", failed.shown());
    let journal = place.windlass(&["runs", "journal", "planned"]).stdout().to_owned();
    let at = journal.find("plan-").expect("a plan");
    let plan = &journal[at..at + 29];
    script(&format!("{{cents: 500, plan_id: {plan}}}"), "reply: {content: Paid.}");
    let parked = place.windlass(&["runs", "retry", "planned"]);
    assert_eq!(parked.code(), 7, "{}", parked.shown());
    let id = parked.json()["waits"][0]["approval"].as_str().expect("an id").to_owned();
    let shown = place.windlass(&["approvals", "show", &id]).json();
    assert_eq!(shown["plan"]["id"], plan, "{shown}");
    assert_eq!(shown["plan"]["preview"], json!({"content": "would pay", "to": "eve"}), "{shown}");
    assert!(shown["plan"]["expires_at"].is_string(), "{shown}");
    assert_eq!(place.windlass(&["approvals", "list"]).json()["approvals"], json!([shown]));
    let plain = place.windlass(&["approvals", "show", &id, "--plain"]).stdout().to_owned();
    for part in [plan, r#"{"content":"would pay","to":"eve"}"#, "plan expires"] {
        assert!(plain.contains(part), "{part}: {plain}");
    }
    assert_eq!(place.windlass(&["approvals", "approve", &id, "--by", "ann"]).code(), 0);
    assert_eq!(place.windlass(&["resume", "planned"]).json(), json!({"said": "Paid."}));
    assert_eq!(paid(&place), "500\n");
}
