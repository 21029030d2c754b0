//! The switch for incidents, as a person uses it.

use serde_json::json;

use super::kit::Place;

const MACHINE: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: payer
  states:
    pay: {type: initial, action: pay, transitions: [{to: done}]}
    done: {type: final, output: {paid: true}}
"#;

const CONFIG: &str = r#"[actions.pay]
type = "command"
command = ["python3", "pay.py"]
class = "write"
"#;

fn place() -> Place {
    let place = Place::new();
    place.write("payer.yml", MACHINE);
    place.write("windlass.toml", CONFIG);
    place.write("pay.py", "import sys\nsys.stdin.read()\nopen('paid', 'a').write('x')\nprint('{}')\n");
    place
}

fn paid(place: &Place) -> usize {
    std::fs::read_to_string(place.path("paid")).unwrap_or_default().len()
}

#[test]
fn a_run_waits_while_the_switch_is_on_and_goes_on_when_it_is_off() {
    let place = place();
    assert_eq!(place.windlass(&["readonly", "status"]).json(), json!({"read_only": false, "switches": []}));
    let on = place.windlass(&["readonly", "on", "--by", "ann", "--reason", "a leak"]);
    assert_eq!((on.code(), &on.json()["changed"]), (0, &json!(true)), "{}", on.shown());
    let again = place.windlass(&["readonly", "on", "--by", "bob"]);
    assert_eq!((again.code(), &again.json()["changed"]), (0, &json!(false)), "{}", again.shown());
    let status = place.windlass(&["readonly", "status"]);
    assert_eq!(status.code(), 3, "{}", status.shown());
    assert_eq!(status.json()["switches"][0]["changes"].as_array().map(Vec::len), Some(1), "{}", status.shown());
    assert_eq!(status.json()["switches"][0]["changes"][0]["by"], "ann");
    let parked = place.windlass(&["run", "payer.yml", "--run-id", "one", "--wait", "0"]);
    assert_eq!((parked.code(), paid(&place)), (7, 0), "{}", parked.shown());
    let stuck = place.windlass(&["runs", "stuck", "--older", "0s"]);
    assert!(stuck.stdout().contains("the environment is read-only, by `ann`: a leak"), "{}", stuck.shown());
    let shown = place.windlass(&["--plain", "runs", "show", "one"]);
    assert!(shown.stdout().contains("by `ann`: a leak"), "{}", shown.shown());
    let journal = place.windlass(&["runs", "journal", "one"]);
    assert!(journal.stdout().contains("read_only"), "{}", journal.shown());
    let resumed = place.windlass(&["resume", "one", "--wait", "0"]);
    assert_eq!((resumed.code(), paid(&place)), (7, 0), "it is held again: {}", resumed.shown());
    let unpaused = place.windlass(&["runs", "unpause", "one"]);
    assert_eq!(unpaused.code(), 0, "{}", unpaused.shown());
    let resumed = place.windlass(&["resume", "one", "--wait", "0"]);
    assert_eq!((resumed.code(), paid(&place)), (7, 0), "it is held again: {}", resumed.shown());
    assert_eq!(place.windlass(&["fsck"]).code(), 0);
    let off = place.windlass(&["readonly", "off", "--by", "ann"]);
    assert_eq!((off.code(), &off.json()["told"]), (0, &json!(1)), "{}", off.shown());
    let done = place.windlass(&["resume", "one"]);
    assert_eq!((done.code(), done.json(), paid(&place)), (0, json!({"paid": true}), 1), "{}", done.shown());
    assert_eq!(place.windlass(&["readonly", "status"]).code(), 0);
    assert_eq!(place.windlass(&["fsck"]).code(), 0);
}

#[test]
fn the_switch_of_a_tenant_holds_nobody_else() {
    let place = place();
    assert_eq!(place.windlass(&["readonly", "on", "--tenant", "acme", "--by", "ann"]).code(), 0);
    let theirs = place.windlass(&["run", "payer.yml", "--tenant", "acme", "--run-id", "a", "--wait", "0"]);
    assert_eq!((theirs.code(), paid(&place)), (7, 0), "{}", theirs.shown());
    let others = place.windlass(&["run", "payer.yml", "--tenant", "umbrella"]);
    assert_eq!((others.code(), paid(&place)), (0, 1), "{}", others.shown());
    let nobody = place.windlass(&["readonly", "off", "--tenant", "acme", "--by", " "]);
    assert_eq!(nobody.code(), 2, "{}", nobody.shown());
}

#[test]
fn a_second_reason_is_kept_beside_the_first() {
    let place = place();
    for (reason, changed) in [("a leak", true), ("a leak", false), ("and prices are wrong", true)] {
        let on = place.windlass(&["readonly", "on", "--by", "ann", "--reason", reason]);
        assert_eq!((on.code(), &on.json()["changed"]), (0, &json!(changed)), "{reason}: {}", on.shown());
    }
    let changes = place.windlass(&["readonly", "status"]).json()["switches"][0]["changes"].clone();
    let reasons: Vec<_> = changes.as_array().expect("changes").iter().map(|change| change["reason"].clone()).collect();
    assert_eq!(reasons, ["a leak", "and prices are wrong"]);
    let parked = place.windlass(&["run", "payer.yml", "--run-id", "one", "--wait", "0"]);
    assert_eq!((parked.code(), paid(&place)), (7, 0), "{}", parked.shown());
    let shown = place.windlass(&["--plain", "runs", "show", "one"]);
    assert!(shown.stdout().contains("and prices are wrong"), "{}", shown.shown());
    let off = place.windlass(&["readonly", "off", "--by", "ann"]);
    assert_eq!((off.code(), &off.json()["changed"]), (0, &json!(true)), "{}", off.shown());
}
