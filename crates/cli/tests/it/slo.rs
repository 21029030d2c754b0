//! What the report about the service level counts, on runs that each got another kind of help.

use serde_json::json;

use crate::kit::{Place, Ran};

fn asks(place: &Place, run: &str) -> Ran {
    place.windlass(&["run", "asks.yml", "--input", "{}", "--run-id", run])
}

fn waits(place: &Place, run: &str, order: u32) {
    let input = format!("{{\"order\":{order}}}");
    let ran = place.windlass(&["run", "waits.yml", "--input", &input, "--run-id", run]);
    assert_eq!(ran.code(), 7, "{}", ran.shown());
}

fn answer(place: &Place, run: &str, order: u32) {
    let channel = format!("approvals/{order}");
    assert_eq!(place.windlass(&["signal", &channel, "--data", r#"{"approved":true}"#]).code(), 0);
    let ran = place.windlass(&["resume", run]);
    assert_eq!(ran.code(), 0, "{}", ran.shown());
}

#[test]
fn help_of_every_kind_is_seen_and_a_signal_that_a_machine_waits_for_is_none() {
    let place = Place::new();
    for run in ["one", "two", "three"] {
        assert_eq!(asks(&place, run).code(), 0);
    }
    waits(&place, "signalled", 1);
    answer(&place, "signalled", 1);
    waits(&place, "paused", 2);
    assert_eq!(place.windlass(&["runs", "pause", "paused"]).code(), 0);
    assert_eq!(place.windlass(&["runs", "unpause", "paused"]).code(), 0);
    answer(&place, "paused", 2);
    waits(&place, "cancelled", 3);
    assert_eq!(place.windlass(&["runs", "cancel", "cancelled"]).code(), 0);
    let script = std::fs::read_to_string(place.path("script.yml")).expect("script");
    place.write("script.yml", "rules: []\ndefault: {status: 401, error: {message: no such key}}\n");
    assert_eq!((asks(&place, "failed").code(), asks(&place, "retried").code()), (3, 3));
    place.write("script.yml", &script);
    assert_eq!(place.windlass(&["runs", "retry", "retried"]).code(), 0);
    waits(&place, "requeued", 4);
    waits(&place, "quarantined", 5);
    assert_eq!(place.windlass(&["store", "fence", "--reason", "a drill"]).code(), 0);
    assert_eq!(place.windlass(&["runs", "requeue", "requeued"]).code(), 0);
    answer(&place, "requeued", 4);
    waits(&place, "going-on", 6);

    let report = place.windlass(&["slo", "report", "--min-runs", "10", "--target", "40%"]);
    assert_eq!(report.code(), 0, "{}", report.shown());
    let all = report.json();
    assert_eq!((&all["runs"], &all["unaided"], &all["unfinished"]), (&json!(10), &json!(4), &json!(1)), "{all}");
    assert_eq!((&all["rate"], &all["target"], &all["met"]), (&json!(40.0), &json!(40.0), &json!(true)));
    assert_eq!(
        all["not_unaided"],
        json!({"failed": 1, "cancelled": 1, "quarantined": 1, "requeued": 1, "held": 1, "retried": 1})
    );
    let machines = all["machines"].as_array().expect("machines");
    let of = |name: &str| machines.iter().find(|machine| machine["machine"] == name).expect("the machine");
    assert_eq!((&of("asks")["runs"], &of("asks")["unaided"]), (&json!(5), &json!(3)));
    assert_eq!((&of("waits")["runs"], &of("waits")["unaided"]), (&json!(5), &json!(1)));
    assert_eq!(of("asks")["rate"], json!(null), "five are too few for a rate");

    let missed = place.windlass(&["slo", "report", "--min-runs", "10", "--target", "40.01%"]);
    assert_eq!((missed.code(), &missed.json()["met"]), (3, &json!(false)), "{}", missed.shown());
    let few = place.windlass(&["slo", "report"]);
    assert_eq!((few.code(), &few.json()["rate"]), (4, &json!(null)), "one document: {}", few.shown());
    let few = place.windlass(&["slo", "report", "--plain"]);
    assert_eq!(few.code(), 4, "{}", few.shown());
    assert!(few.stderr().contains("10 runs are too few for a rate; at least 20"), "{}", few.shown());
    let none = place.windlass(&["slo", "report", "--since", "0", "--min-runs", "1"]);
    assert_eq!(none.code(), 4, "{}", none.shown());
}
