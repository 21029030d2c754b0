//! What many runs may use together: set, drawn on, waited for, raised.

use serde_json::{Value, json};

use super::kit::{PAYS, Place};

const SCRIPT: &str = r"rules:
  - {agent: clerk, turn: 1, reply: {tool_calls: [{name: pay, arguments: {cents: 500}}]}}
  - {agent: clerk, turn: 2, reply: {content: Paid.}}
";

const CONFIG: &str = r#"[providers.scripted]
script = "script.yml"
[tools.pay]
type = "command"
command = ["python3", "-c", "print('{}')"]
class = "write"
"#;

fn place() -> Place {
    Place::paying(SCRIPT, CONFIG)
}

fn budget(place: &Place) -> Value {
    place.windlass(&["budgets", "show", "tenant:default"]).json()
}

/// What people read of a question says for what it asks, and nothing of arguments that there are none of.
fn assert_asks(place: &Place, id: &str, asked: &str) {
    for args in [&["approvals", "list", "--plain"][..], &["approvals", "show", id, "--plain"]] {
        let read = place.windlass(args).stdout();
        assert!(read.contains(asked) && !read.contains("null") && !read.contains("arguments"), "{read}");
    }
}

/// Starts a run with a budget for one model call, which waits for more at the second one.
fn waiting(place: &Place, run: &str) -> Value {
    let set = ["budgets", "set", "tenant:default", "--model-calls", "1", "--beyond", "ask"];
    assert_eq!(place.windlass(&set).code(), 0);
    let parked = place.windlass(&["run", "payer.yml", "--run-id", run]);
    assert_eq!(parked.code(), 7, "{}", parked.shown());
    let wait = parked.json()["waits"][0].clone();
    assert_eq!(wait["kind"], "budget", "{}", parked.shown());
    let shown = place.windlass(&["approvals", "show", wait["approval"].as_str().expect("an id")]).json();
    assert_eq!(shown["budget"]["scope"], "tenant:default");
    assert_eq!((&shown["budget"]["left"], &shown["budget"]["wanted"]), (&json!(0), &json!(1)));
    assert_eq!(shown["drivers"], json!([{"name": "clerk", "used": 1}]), "what used most so far");
    assert_eq!(place.windlass(&["approvals", "list"]).json()["approvals"], json!([shown]));
    assert_eq!(shown["asks"], "budget");
    let asked = "budget tenant:default: 1 model_calls wanted, 0 of 1 left";
    assert_asks(place, shown["id"].as_str().expect("an id"), asked);
    let stuck = place.windlass(&["runs", "stuck", "--older", "0s"]).json();
    assert_eq!(stuck["runs"][0]["cause"], "budget", "{stuck}");
    assert_eq!(
        (&budget(place)["used"], &budget(place)["held"]),
        (&json!({"model_calls": 1}), &json!({"model_calls": 0}))
    );
    shown
}

#[test]
fn budgets_are_set_shown_raised_and_removed() {
    let place = place();
    assert_eq!(place.windlass(&["budgets", "list"]).json()["budgets"], json!([]));
    let set = place.windlass(&[
        "budgets",
        "set",
        "tenant:acme",
        "--tokens",
        "1000",
        "--cost-micros",
        "50",
        "--period",
        "day",
        "--near",
        "90",
    ]);
    assert_eq!(set.code(), 0, "{}", set.shown());
    let shown = place.windlass(&["budgets", "show", "tenant:acme"]).json();
    assert_eq!(set.json(), shown);
    assert_eq!(shown["caps"], json!({"tokens": 1000, "cost_micros": 50}));
    assert_eq!(
        (&shown["left"]["tokens"], &shown["period"], &shown["beyond"]),
        (&json!(1000), &json!("day"), &json!("fail"))
    );
    let raised = place.windlass(&["budgets", "raise", "tenant:acme", "--tokens", "500"]).json();
    assert_eq!(raised["caps"], json!({"tokens": 1500, "cost_micros": 50}));
    let uncapped = place.windlass(&["budgets", "raise", "tenant:acme", "--tool-calls", "5"]);
    assert_eq!(uncapped.code(), 4, "{}", uncapped.shown());
    for wrong in [&["budgets", "set", "tenant:acme"][..], &["budgets", "set", "acme", "--tokens", "1"]] {
        let refused = place.windlass(wrong);
        assert_eq!(refused.code(), 2, "{}", refused.shown());
    }
    assert_eq!(place.windlass(&["budgets", "remove", "tenant:acme"]).code(), 0);
    assert_eq!(place.windlass(&["budgets", "show", "tenant:acme"]).code(), 4);
    assert_eq!(place.windlass(&["budgets", "raise", "tenant:acme", "--tokens", "5"]).code(), 4);
}

#[test]
fn a_call_beyond_a_budget_fails_the_run() {
    let place = place();
    assert_eq!(place.windlass(&["budgets", "set", "environment", "--model-calls", "1"]).code(), 0);
    let failed = place.windlass(&["run", "payer.yml", "--run-id", "one"]);
    assert_eq!(failed.code(), 3, "{}", failed.shown());
    assert!(failed.stderr().contains("the budget of `environment` has 0 of 1 model_calls left"), "{}", failed.shown());
    let second = place.windlass(&["run", "payer.yml", "--run-id", "two"]);
    assert_eq!(second.code(), 3, "{}", second.shown());
    let shown = place.windlass(&["budgets", "show", "environment"]).json();
    assert_eq!((&shown["used"], &shown["held"]), (&json!({"model_calls": 1}), &json!({"model_calls": 0})));
    assert_eq!(place.windlass(&["fsck"]).code(), 0);
}

#[test]
fn a_run_that_waits_for_a_budget_goes_on_when_it_is_raised() {
    let place = place();
    waiting(&place, "one");
    let raised = place.windlass(&["budgets", "raise", "tenant:default", "--model-calls", "4"]);
    assert_eq!(raised.json()["left"], json!({"model_calls": 4}), "{}", raised.shown());
    let done = place.windlass(&["resume", "one"]);
    assert_eq!((done.code(), done.json()), (0, json!({"said": "Paid."})), "{}", done.shown());
    assert_eq!(
        (&budget(&place)["used"], &budget(&place)["held"]),
        (&json!({"model_calls": 2}), &json!({"model_calls": 0}))
    );
}

#[test]
fn a_person_agrees_to_what_one_call_lacks_or_does_not() {
    let place = place();
    let shown = waiting(&place, "one");
    let id = shown["id"].as_str().expect("an id");
    let approve = place.windlass(&["approvals", "approve", id, "--by", "ann", "--reason", "month end"]);
    assert_eq!(approve.json()["answer"], "approved", "{}", approve.shown());
    assert_eq!(budget(&place)["caps"], json!({"model_calls": 2}));
    let done = place.windlass(&["resume", "one"]);
    assert_eq!((done.code(), done.json()), (0, json!({"said": "Paid."})), "{}", done.shown());
    assert!(place.windlass(&["runs", "journal", "one"]).stdout().contains(r#""by":"ann","reason":"month end""#));
    let next = place.windlass(&["run", "payer.yml", "--run-id", "two"]).json();
    let id = next["waits"][0]["approval"].as_str().expect("an id");
    assert_eq!(place.windlass(&["approvals", "reject", id, "--by", "ann", "--reason", "no"]).code(), 0);
    let failed = place.windlass(&["resume", "two"]);
    assert_eq!(failed.code(), 3, "{}", failed.shown());
    assert!(failed.stderr().contains("ann refused more: no"), "{}", failed.shown());
    assert_eq!(budget(&place)["caps"], json!({"model_calls": 2}));
}

#[test]
fn a_question_whose_budget_was_raised_takes_no_answer() {
    let place = place();
    let question = waiting(&place, "one");
    let id = question["id"].as_str().expect("an id");
    assert_eq!(place.windlass(&["budgets", "raise", "tenant:default", "--model-calls", "4"]).code(), 0);
    for args in [&["approvals", "show", id][..], &["approvals", "reject", id, "--by", "ann", "--reason", "no"]] {
        let refused = place.windlass(args);
        assert_eq!(refused.code(), 4, "{}", refused.shown());
        assert!(refused.stderr().contains("its budget was raised"), "{}", refused.shown());
    }
    assert_eq!(place.windlass(&["resume", "one"]).json(), json!({"said": "Paid."}));
}

#[test]
fn what_is_agreed_to_for_one_run_wakes_no_other() {
    let place = place();
    let question = waiting(&place, "one");
    assert_eq!(place.windlass(&["run", "payer.yml", "--run-id", "two"]).code(), 7);
    let approve = ["approvals", "approve", question["id"].as_str().expect("an id"), "--by", "ann", "--reason", "ok"];
    assert_eq!(place.windlass(&approve).code(), 0);
    let other = place.windlass(&["resume", "two"]);
    assert_eq!(other.code(), 7, "nobody agreed to its call: {}", other.shown());
    assert_eq!(place.windlass(&["resume", "one"]).json(), json!({"said": "Paid."}));
    assert_eq!(budget(&place)["used"], json!({"model_calls": 2}));
}

#[test]
fn the_first_answer_counts_and_raises_once() {
    let place = place();
    let question = waiting(&place, "one");
    let id = question["id"].as_str().expect("an id").to_owned();
    let cap = || budget(&place)["caps"]["model_calls"].clone();
    let before = cap();
    let answer = |verb: &str, by: &str| place.windlass(&["approvals", verb, &id, "--by", by, "--reason", "month end"]);
    assert_eq!(answer("reject", "ann").code(), 0);
    let second = answer("approve", "bob");
    assert_eq!((second.code(), cap()), (4, before), "{}", second.shown());
    assert!(second.stderr().contains("was rejected by `ann` already"), "{}", second.shown());
    let other = place.windlass(&["run", "payer.yml", "--run-id", "two"]).json();
    let id = other["waits"][0]["approval"].as_str().expect("an id").to_owned();
    let lacking = cap().as_u64().expect("a cap") + 1;
    std::thread::scope(|scope| {
        for by in ["ann", "bob", "cid"] {
            let (place, id) = (&place, &id);
            scope.spawn(move || place.windlass(&["approvals", "approve", id, "--by", by, "--reason", "month end"]));
        }
    });
    assert_eq!(cap(), json!(lacking), "raised once, by what the call lacks");
}

/// A run whose own ceiling asks, parked at its second model call, with the question.
fn parked_at_its_ceiling(place: &Place, run: &str) -> Value {
    place.write("payer.yml", &PAYS.replace("{tools: [pay]}", "{tools: [pay], max_model_calls: 1, beyond: ask}"));
    let parked = place.windlass(&["run", "payer.yml", "--run-id", run]);
    assert_eq!(parked.code(), 7, "{}", parked.shown());
    let wait = parked.json()["waits"][0].clone();
    assert_eq!(wait["kind"], "ceiling", "{}", parked.shown());
    place.windlass(&["approvals", "show", wait["approval"].as_str().expect("an id")]).json()
}

#[test]
fn a_run_at_its_own_ceiling_shows_what_it_has_and_goes_on_when_a_person_raises_it() {
    let place = place();
    let shown = parked_at_its_ceiling(&place, "one");
    let ceiling = json!({"meter": "model_calls", "ceiling": 1, "left": 0, "wanted": 1});
    assert_eq!((&shown["ceiling"], &shown["rule"]), (&ceiling, &json!("ceiling")), "{shown}");
    assert_eq!(shown["drivers"], json!([{"name": "clerk", "used": 1}]));
    assert_eq!(shown["asks"], "ceiling");
    assert_asks(&place, shown["id"].as_str().expect("an id"), "ceiling: 1 model_calls wanted, 0 of 1 left");
    assert!(shown["context"].is_object(), "what it has so far: {shown}");
    let why = shown["reason"].as_str().expect("a text");
    assert!(why.contains("the ceiling of 1 model_calls is reached") && why.contains("`clerk` 1"), "{why}");
    assert_eq!(place.windlass(&["approvals", "list"]).json()["approvals"], json!([shown]));
    let stuck = place.windlass(&["runs", "stuck", "--older", "0s"]).json();
    assert_eq!(stuck["runs"][0]["cause"], "budget", "{stuck}");
    let id = shown["id"].as_str().expect("an id");
    let wrong = place.windlass(&["approvals", "approve", id, "--by", "ann", "--raise", "tokens=5"]);
    assert_eq!(wrong.code(), 4, "{}", wrong.shown());
    let approve = place.windlass(&["approvals", "approve", id, "--by", "ann", "--raise", "model_calls=3"]);
    assert_eq!(approve.json()["answer"], "approved", "{}", approve.shown());
    let done = place.windlass(&["resume", "one"]);
    assert_eq!((done.code(), done.json()), (0, json!({"said": "Paid."})), "{}", done.shown());
    let journal = place.windlass(&["runs", "journal", "one"]).stdout();
    assert!(journal.contains(r#""ceilings_changed":{"ceilings":{"model_calls":4},"by":"ann"}"#), "{journal}");
    assert_eq!(journal.matches(r#""agent":"clerk","sample":0"#).count(), 2, "the first call was not made again");
    assert_eq!(place.windlass(&["fsck"]).code(), 0);
}

#[test]
fn a_person_who_refuses_more_fails_the_run() {
    let place = place();
    let shown = parked_at_its_ceiling(&place, "one");
    let id = shown["id"].as_str().expect("an id");
    assert_eq!(place.windlass(&["approvals", "reject", id, "--by", "ann", "--reason", "no"]).code(), 0);
    let failed = place.windlass(&["resume", "one"]);
    assert_eq!(failed.code(), 3, "{}", failed.shown());
    assert!(failed.stderr().contains("most was used by `clerk` 1; ann refused more: no"), "{}", failed.shown());
}

#[test]
fn a_document_does_not_soften_the_ceilings_of_the_operator() {
    let place = place();
    place.write("windlass.toml", &format!("{CONFIG}[limits]\nmodel_calls = 1\n"));
    place.write("payer.yml", &PAYS.replace("{tools: [pay]}", "{tools: [pay], max_model_calls: 5, beyond: ask}"));
    let failed = place.windlass(&["run", "payer.yml", "--run-id", "one"]);
    assert_eq!(failed.code(), 3, "{}", failed.shown());
    assert!(failed.stderr().contains("most was used by `clerk` 1"), "{}", failed.shown());
    place.write("windlass.toml", &format!("{CONFIG}[limits]\nmodel_calls = 1\nbeyond = \"ask\"\n"));
    let parked = place.windlass(&["run", "payer.yml", "--run-id", "two"]);
    assert_eq!(parked.code(), 7, "{}", parked.shown());
}

/// Changes an object of the store as nothing but a fault would.
fn damage(place: &Place, kind: &str, key: &str, from: &str, to: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio");
    runtime.block_on(async {
        let url = format!("sqlite:{}", place.path(".windlass/windlass.db").display());
        let store = windlass::wire::open_store(&url).await.expect("opens");
        let object = store.object(kind.into(), key.into()).await.expect("read").expect("there");
        let text = String::from_utf8(object.bytes).expect("text");
        assert!(text.contains(from), "{text}");
        let bytes = Some(text.replacen(from, to, 1).into_bytes());
        let put = windlass_ports::store::Put { kind: kind.into(), key: key.into(), expected: object.revision, bytes };
        assert!(store.put_object(put).await.expect("written"));
    });
}

#[test]
fn a_damaged_account_is_found() {
    let place = place();
    assert_eq!(place.windlass(&["budgets", "set", "tenant:default", "--model-calls", "10"]).code(), 0);
    assert_eq!(place.windlass(&["run", "payer.yml", "--run-id", "one"]).code(), 0);
    let findings = || {
        let ran = place.windlass(&["fsck"]);
        (ran.code(), ran.json()["findings"].clone())
    };
    assert_eq!(findings(), (0, json!([])));
    let (sound, broken) = ("\"spent\":{", "\"drawn\":{\"model_calls\":3},\"spent\":{");
    damage(&place, "account", "tenant:default", sound, broken);
    let why = "the account of `tenant:default` says that 3 model_calls are drawn, and runs hold 0";
    assert_eq!(findings(), (3, json!([{"run": null, "rule": "budget", "message": why}])));
    damage(&place, "account", "tenant:default", broken, sound);
    damage(&place, "allotment_returned", "one", "\"spent\":{\"model_calls\":2", "\"spent\":{\"model_calls\":7");
    let why = "the books have 7 model_calls of `tenant:default` used by it, and the journal says 2";
    assert_eq!(findings(), (3, json!([{"run": "one", "rule": "budget", "message": why}])));
}

#[test]
fn objectives_are_compared_with_what_runs_cost() {
    let place = place();
    let objectives =
        "[objectives.day]\nmachine = \"payer\"\nday_cost_micros = 1000000\n[objectives.most]\np95_cost_micros = 5\n";
    place.write("windlass.toml", &format!("{CONFIG}{objectives}"));
    assert_eq!(place.windlass(&["run", "payer.yml", "--run-id", "one"]).code(), 0);
    let told = place.windlass(&["budgets", "objectives"]);
    assert_eq!(told.code(), 0, "{}", told.shown());
    let states: Vec<Value> =
        told.json()["objectives"].as_array().expect("a list").iter().map(|o| o["state"].clone()).collect();
    assert_eq!(states, [json!("met"), json!("too_few")], "{}", told.shown());
    place.write("windlass.toml", &format!("{CONFIG}[objectives.neither]\nmachine = \"payer\"\n"));
    assert_eq!(place.windlass(&["budgets", "objectives"]).code(), 2);
}
