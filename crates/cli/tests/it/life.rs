//! The life of a run as a person sees it: run, park, signal, resume, again, cancel, fork.

use serde_json::json;

use crate::kit::{Place, assert_shown};

#[test]
fn a_run_prints_its_output_and_tells_its_story() {
    let ran = Place::new().windlass(&["run", "asks.yml", "--input", r#"{"topic":"tides"}"#, "--run-id", "one"]);
    assert_shown!(ran);
}

#[test]
fn the_first_command_of_the_readme_tells_its_story() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let place = Place::new();
    let store = format!("sqlite:{}", place.path("windlass.db").display());
    let example = "examples/writer-critic";
    let (machine, input) = (format!("{example}/machine.yml"), format!("@{example}/input.json"));
    let args = ["run", &machine, "--input", &input, "--store", &store, "--run-id", "first"];
    assert_shown!(place.with(&args, |command| {
        command.current_dir(root);
    }));
}

#[test]
fn a_parked_run_says_what_it_waits_for_and_goes_on_after_the_signal() {
    let place = Place::new();
    let parked = place.windlass(&["run", "waits.yml", "--input", r#"{"order":7}"#, "--run-id", "two"]);
    assert_eq!(parked.code(), 7, "{}", parked.shown());
    assert_eq!(
        parked.json(),
        json!({"run_id": "two", "status": "waiting",
               "waits": [{"kind": "signal", "run_id": "two", "channel": "approvals/7"}]})
    );
    let advice = "go on with: windlass signal approvals/7 --data JSON && windlass resume two\n";
    assert!(parked.stderr().contains(advice), "{}", parked.shown());
    let sent = place.windlass(&["signal", "approvals/7", "--data", r#"{"approved":true}"#]);
    assert_eq!(sent.json()["runs"], json!(["two"]));
    let done = place.windlass(&["resume", "two"]);
    assert_eq!((done.code(), done.json()), (0, json!({"approved": true})));
    assert_eq!(place.windlass(&["resume", "two"]).json(), json!({"approved": true}), "a finished run says so again");
}

#[test]
fn a_signal_that_comes_first_is_kept() {
    let place = Place::new();
    let sent = place.windlass(&["signal", "approvals/8", "--data", r#"{"approved":false}"#, "--id", "s1"]);
    assert_eq!(sent.json()["signal"], "buffered");
    assert_eq!(place.windlass(&["signal", "approvals/8", "--id", "s1"]).json()["signal"], "duplicate");
    let ran = place.windlass(&["run", "waits.yml", "--input", r#"{"order":8}"#]);
    assert_eq!((ran.code(), ran.json()), (0, json!({"approved": false})));
}

#[test]
fn a_run_id_used_again_returns_that_run_or_is_refused() {
    let place = Place::new();
    let run = |input: &str| place.windlass(&["run", "asks.yml", "--input", input, "--run-id", "same"]);
    let first = run(r#"{"topic":"tides"}"#);
    let again = run(r#"{"topic":"tides"}"#);
    assert_eq!((again.code(), again.json()), (0, first.json()));
    let other = run(r#"{"topic":"moons"}"#);
    assert_eq!(other.code(), 4);
    assert_shown!(other);
    let stranger = place.windlass(&["run", "waits.yml", "--input", r#"{"topic":"tides"}"#, "--run-id", "same"]);
    assert_eq!((stranger.code(), &stranger.json()["error"]["code"]), (4, &json!("store.conflict")));
    assert!(stranger.stderr().contains("is a run of `asks`, not of `waits`"), "{}", stranger.shown());
    assert!(!again.stderr().contains("note:"), "{}", again.shown());
    place.write("asks.yml", &crate::kit::ASKS.replace("one line", "two lines"));
    let edited = run(r#"{"topic":"tides"}"#);
    assert_eq!((edited.code(), edited.json()), (0, first.json()));
    assert!(edited.stderr().contains("note: run `same` exists already"), "{}", edited.shown());
}

#[test]
fn a_detached_run_waits_for_a_resume() {
    let place = Place::new();
    let args = ["run", "asks.yml", "--input", r#"{"topic":"tides"}"#, "--run-id", "later", "--detach"];
    assert_eq!(place.windlass(&args).json(), json!({"run_id": "later", "status": "queued"}));
    let done = place.windlass(&["resume", "later"]);
    assert_eq!((done.code(), done.json()), (0, json!({"text": "Tides turn twice a day."})));
}

#[test]
fn a_failed_run_prints_its_failure() {
    let place = Place::new();
    place.write("script.yml", "rules: []\ndefault: {status: 401, error: {message: no such key}}\n");
    let ran = place.windlass(&["run", "asks.yml", "--input", r#"{"topic":"tides"}"#, "--run-id", "bad"]);
    assert_eq!(ran.code(), 3);
    let error = &ran.json()["error"];
    assert_eq!((&error["code"], &error["state"]), (&json!("provider.auth"), &json!("write")));
    assert_eq!(ran.json()["run_id"], "bad");
    place.write("script.yml", "rules: []\ndefault: {content: better}\n");
    let retried = place.windlass(&["runs", "retry", "bad"]);
    assert_eq!((retried.code(), retried.json()), (0, json!({"text": "better"})), "{}", retried.shown());
}

#[test]
fn max_steps_is_a_failure_with_its_own_code() {
    let place = Place::new();
    let ran = place.windlass(&["run", "asks.yml", "--input", "{}", "--max-steps", "1"]);
    assert_eq!((ran.code(), &ran.json()["error"]["code"]), (3, &json!("budget.exceeded")), "{}", ran.shown());
}

#[test]
fn events_are_one_object_per_line() {
    let place = Place::new();
    place.windlass(&["run", "asks.yml", "--input", "{}", "--run-id", "e", "--events", "e.jsonl"]);
    let text = std::fs::read_to_string(place.path("e.jsonl")).expect("events");
    let events: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).expect("json")).collect();
    let entered: Vec<&str> =
        events.iter().filter(|e| e["event"] == "state_entered").map(|e| e["state"].as_str().expect("state")).collect();
    assert_eq!(entered, ["write", "done"]);
    assert!(events.iter().all(|e| e["run_id"] == "e" && e["parent_run_id"].is_null() && e["machine"] == "asks"));
    let watched = place.windlass(&["runs", "watch", "e", "--json"]);
    let seen: Vec<serde_json::Value> =
        watched.stdout().lines().map(|l| serde_json::from_str(l).expect("json")).collect();
    assert_eq!(seen, events, "what is watched afterwards is what was written");
}

#[test]
fn runs_are_listed_shown_paused_cancelled_and_pruned() {
    let place = Place::new();
    for id in ["a", "b", "c"] {
        place.windlass(&["run", "waits.yml", "--input", r#"{"order":1}"#, "--run-id", id]);
    }
    let page = place.windlass(&["runs", "list", "--limit", "2"]).json();
    assert_eq!(page["runs"].as_array().map(Vec::len), Some(2));
    let next = page["next"].as_str().expect("a cursor").to_owned();
    let rest = place.windlass(&["runs", "list", "--limit", "2", "--cursor", &next]).json();
    assert_eq!(rest["runs"].as_array().map(Vec::len), Some(1));
    assert!(rest["next"].is_null());
    assert_eq!(place.windlass(&["runs", "pause", "a"]).json(), json!({"run_id": "a", "status": "paused"}));
    let shown = place.windlass(&["runs", "show", "a"]).json();
    assert_eq!((&shown["status"], &shown["waits"][0]["kind"]), (&json!("paused"), &json!("signal")));
    assert_eq!(shown["run"]["context"], json!({"order": 1}), "where the help of `runs show` says it is");
    let held = place.windlass(&["resume", "a"]);
    assert_eq!((held.code(), &held.json()["status"]), (7, &json!("paused")), "{}", held.shown());
    assert!(held.stderr().contains("windlass runs unpause a && windlass resume a\n"), "{}", held.shown());
    assert_eq!(place.windlass(&["runs", "unpause", "a"]).code(), 0);
    let cancelled = place.windlass(&["runs", "cancel", "b", "--reason", "no longer wanted"]);
    assert_eq!(cancelled.json(), json!({"run_id": "b", "status": "cancelled"}), "{}", cancelled.shown());
    let resumed = place.windlass(&["resume", "b"]);
    assert_eq!((resumed.code(), &resumed.json()["error"]["code"]), (3, &json!("run.cancelled")));
    let again = place.windlass(&["runs", "cancel", "b"]);
    assert_eq!((again.code(), again.json()["status"].clone()), (0, json!("cancelled")), "{}", again.shown());
    let pruned = place.windlass(&["runs", "prune", "--older-than", "0"]).json();
    assert_eq!(pruned["runs"], 1);
    assert_eq!(place.windlass(&["runs", "show", "b"]).code(), 4);
    assert_eq!(place.windlass(&["fsck"]).json(), json!({"ok": true, "findings": []}));
}

#[test]
fn a_fork_starts_at_a_step_with_another_context() {
    let place = Place::new();
    place.windlass(&["run", "waits.yml", "--input", r#"{"order":1}"#, "--run-id", "old"]);
    let forked = place.windlass(&["runs", "fork", "old", "--at", "1", "--set", "order=2", "--run-id", "new"]);
    assert_eq!(forked.code(), 7, "{}", forked.shown());
    assert_eq!(forked.json()["waits"][0]["channel"], "approvals/2");
    assert_eq!(place.windlass(&["runs", "fork", "old", "--at", "9"]).code(), 4);
    for more in [&["--run-id", "new"][..], &["--run-id", "old"], &["--run-id", "new", "--detach"]] {
        let again = place.windlass(&[&["runs", "fork", "old", "--at", "1", "--set", "order=3"], more].concat());
        assert_eq!((again.code(), &again.json()["error"]["code"]), (4, &json!("store.conflict")), "{}", again.shown());
    }
}

#[test]
fn replay_and_verify_agree_with_what_was_done() {
    let place = Place::new();
    place.windlass(&["run", "asks.yml", "--input", r#"{"topic":"tides"}"#, "--run-id", "v"]);
    let replayed = place.windlass(&["replay", "v"]).json();
    assert_eq!((&replayed["status"], &replayed["context"]["topic"]), (&json!("completed"), &json!("tides")));
    assert_eq!(place.windlass(&["replay", "v", "--to", "1"]).json()["version"], 1);
    assert_eq!(place.windlass(&["replay", "v", "--to", "99"]).code(), 4);
    let verified = place.windlass(&["verify", "v"]);
    assert_eq!((verified.code(), &verified.json()["ok"], &verified.json()["calls"]), (0, &json!(true), &json!(1)));
    let tree = place.windlass(&["verify", "v", "--tree"]);
    assert_eq!((tree.code(), &tree.json()["ok"]), (0, &json!(true)));
}

#[test]
fn an_interrupted_run_can_be_resumed() {
    let place = Place::new();
    place.write("script.yml", "rules: []\ndefault: {content: late, delay_ms: 20000}\n");
    let mut command = crate::kit::command(&place.path(""));
    command.args(["run", "asks.yml", "--input", "{}", "--run-id", "i", "--events", "i.jsonl"]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().expect("starts");
    while !std::fs::read_to_string(place.path("i.jsonl")).is_ok_and(|text| text.contains("call_intended")) {
        std::thread::yield_now();
    }
    child.kill().expect("killed");
    child.wait().expect("ended");
    place.write("script.yml", "rules: []\ndefault: {content: soon}\n");
    let resumed = place.windlass(&["resume", "i"]);
    assert_eq!((resumed.code(), resumed.json()), (0, json!({"text": "soon"})), "{}", resumed.shown());
}

#[test]
fn resume_finds_the_configuration_that_the_run_was_started_with() {
    let place = Place::new();
    let elsewhere = tempfile::tempdir().expect("folder");
    let store = format!("sqlite:{}", place.path("w.db").display());
    let machine = place.path("asks.yml");
    let args =
        ["run", machine.to_str().expect("path"), "--input", "{}", "--run-id", "r", "--store", &store, "--detach"];
    let run = crate::kit::command(elsewhere.path()).args(args).output().expect("runs");
    assert!(run.status.success());
    let resumed =
        crate::kit::command(elsewhere.path()).args(["resume", "r", "--store", &store]).output().expect("runs");
    assert_eq!(String::from_utf8_lossy(&resumed.stdout), "{\"text\":\"Tides turn twice a day.\"}\n");
}

#[test]
fn the_second_signal_stops_at_once() {
    let place = Place::new();
    place.write("script.yml", "rules: []\ndefault: {content: late, delay_ms: 60000}\n");
    let mut command = crate::kit::command(&place.path(""));
    command.args(["run", "asks.yml", "--input", "{}", "--run-id", "i", "--events", "i.jsonl", "--quiet"]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().expect("starts");
    while !std::fs::read_to_string(place.path("i.jsonl")).is_ok_and(|text| text.contains("call_intended")) {
        std::thread::yield_now();
    }
    let id = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
    while child.try_wait().expect("state").is_none() {
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGINT).expect("sent");
        std::thread::yield_now();
    }
    let ended = child.wait_with_output().expect("ended");
    assert_eq!(ended.status.code(), Some(130));
    assert_eq!(String::from_utf8_lossy(&ended.stdout), "{\"run_id\":\"i\",\"status\":\"interrupted\"}\n");
    place.write("script.yml", "rules: []\ndefault: {content: soon}\n");
    assert_eq!(place.windlass(&["resume", "i"]).json(), json!({"text": "soon"}));
}

#[test]
fn commands_are_found_from_the_folder_of_the_configuration() {
    let place = Place::new();
    place.write(
        "windlass.toml",
        "[actions.note]\ntype = \"command\"\ncommand = [\"/bin/sh\", \"note.sh\"]\nclass = \"read\"\nidempotency = \"natural\"\n",
    );
    place.write("note.sh", "echo '{\"output\": {\"by\": \"sh\"}}'\n");
    place.write(
        "acts.yml",
        r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: acts
  states:
    act:
      type: initial
      action: note
      output_to_context:
        by: output.by
      transitions:
        - to: done
    done:
      type: final
      output:
        by: context.by
"#,
    );
    let here = place.windlass(&["run", "acts.yml"]);
    assert_eq!((here.code(), here.json()), (0, json!({"by": "sh"})), "{}", here.shown());
    let elsewhere = tempfile::tempdir().expect("folder");
    let machine = place.path("acts.yml");
    let args = ["run", machine.to_str().expect("path"), "--quiet"];
    let ran = crate::kit::command(elsewhere.path()).args(args).output().expect("runs");
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "{\"by\":\"sh\"}\n");
}

#[test]
fn a_queued_run_that_is_cancelled_or_paused_does_nothing_first() {
    let place = Place::new();
    place.write(
        "windlass.toml",
        "[actions.note]\ntype = \"command\"\ncommand = [\"/bin/sh\", \"-c\", \"echo x >> done; echo '{}'\"]\nclass = \"danger\"\nidempotency = \"none\"\n",
    );
    place.write(
        "acts.yml",
        r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: acts
  states:
    act:
      type: initial
      action: note
      transitions:
        - to: end
    end:
      type: final
"#,
    );
    for (command, word) in [("cancel", "cancelled"), ("pause", "paused")] {
        place.windlass(&["run", "acts.yml", "--run-id", command, "--detach"]);
        let ran = place.windlass(&["runs", command, command]);
        assert_eq!((ran.code(), ran.json()), (0, json!({"run_id": command, "status": word})), "{}", ran.shown());
        assert!(!place.path("done").exists(), "{}", ran.shown());
        if command == "cancel" {
            assert!(ran.stderr().contains("in 0.000 s"), "a run that never started took no time: {}", ran.shown());
        }
    }
    place.windlass(&["runs", "unpause", "pause"]);
    let resumed = place.windlass(&["resume", "pause"]);
    assert_eq!(resumed.code(), 0, "{}", resumed.shown());
    assert!(place.path("done").exists(), "{}", resumed.shown());
}

#[test]
fn a_tree_that_is_cancelled_or_paused_makes_no_more_calls() {
    let place = Place::new();
    place.write(
        "windlass.toml",
        "[actions.note]\ntype = \"command\"\ncommand = [\"/bin/sh\", \"-c\", \"echo x >> done; echo '{}'\"]\nclass = \"danger\"\nidempotency = \"none\"\n",
    );
    place.write(
        "parent.yml",
        r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: parent
  context: {items: [1, 2, 3]}
  machines:
    child:
      spec: flatmachine
      spec_version: "4.2.1"
      data:
        name: child
        states:
          rest: {type: initial, wait_for: go, transitions: [{to: act}]}
          act: {action: note, transitions: [{to: end}]}
          end: {type: final}
  states:
    all: {type: initial, foreach: context.items, as: n, machine: child, transitions: [{to: end}]}
    end: {type: final}
"#,
    );
    for (command, word) in [("cancel", "cancelled"), ("pause", "paused")] {
        let parked = place.windlass(&["run", "parent.yml", "--run-id", command, "--wait", "0s"]);
        assert_eq!(parked.code(), 7, "{}", parked.shown());
        // The children are in the queue when the order comes, with what they waited for.
        let sent = place.windlass(&["signal", "go"]);
        assert_eq!(sent.json()["runs"].as_array().map(Vec::len), Some(3), "{}", sent.shown());
        let ran = place.windlass(&["runs", command, command]);
        assert_eq!((ran.code(), &ran.json()["status"]), (0, &json!(word)), "{}", ran.shown());
        assert!(!place.path("done").exists(), "{command}: {}", ran.shown());
    }
    let statuses = |run: &str| -> Vec<_> {
        let below = place.windlass(&["runs", "list", "--below", run, "--all", "--json"]).json();
        below["runs"].as_array().expect("runs").iter().map(|run| run["status"].clone()).collect()
    };
    assert_eq!(statuses("cancel"), vec![json!("cancelled"); 4]);
    assert_eq!(statuses("pause"), vec![json!("paused"); 4]);
    let tree = |args: &[&str]| place.windlass(&[&["runs", "tree", "cancel"], args].concat());
    let all = tree(&[]).json();
    let of =
        |key: &str| -> Vec<_> { all["runs"].as_array().expect("runs").iter().map(|run| run[key].clone()).collect() };
    assert_eq!(of("id"), ["cancel", "cancel~1.0", "cancel~1.1", "cancel~1.2"].map(|id| json!(id)), "{all}");
    assert_eq!((of("below"), &all["more"]), ([0, 1, 1, 1].map(|below| json!(below)).to_vec(), &json!(false)));
    let some = tree(&["--limit", "2"]).json();
    assert_eq!((some["runs"].as_array().map(Vec::len), &some["more"]), (Some(3), &json!(true)), "{some}");
    assert!(tree(&["--plain"]).stdout().contains("\n  cancel~1.1 "), "{}", tree(&["--plain"]).shown());
    assert_eq!(place.windlass(&["runs", "tree", "nobody"]).code(), 4);
    let resumed = place.windlass(&["resume", "pause"]);
    assert_eq!((resumed.code(), place.path("done").exists()), (7, false), "{}", resumed.shown());
    let child = place.windlass(&["runs", "unpause", "pause~1.0"]);
    assert_eq!(child.json(), json!({"run_id": "pause~1.0", "status": "queued"}), "one below it goes on by itself");
    place.windlass(&["resume", "pause"]);
    assert_eq!(std::fs::read_to_string(place.path("done")).expect("one call"), "x\n");
    let unpaused = place.windlass(&["runs", "unpause", "pause"]);
    assert_eq!(unpaused.json(), json!({"run_id": "pause", "status": "queued"}), "{}", unpaused.shown());
    let resumed = place.windlass(&["resume", "pause"]);
    assert_eq!(resumed.code(), 0, "{}", resumed.shown());
    assert_eq!(std::fs::read_to_string(place.path("done")).expect("three calls"), "x\nx\nx\n");
    assert_eq!(place.windlass(&["fsck"]).code(), 0);
}

#[test]
fn what_was_launched_by_a_child_that_has_ended_is_held_with_its_tree() {
    let place = Place::new();
    place.write(
        "tree.yml",
        r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: tree
  machines:
    child:
      spec: flatmachine
      spec_version: "4.2.1"
      data:
        name: child
        machines:
          far:
            spec: flatmachine
            spec_version: "4.2.1"
            data:
              name: far
              states:
                rest: {type: initial, wait_for: far, transitions: [{to: end}]}
                end: {type: final}
        states:
          go: {type: initial, launch: far, transitions: [{to: end}]}
          end: {type: final}
  states:
    all: {type: initial, machine: child, transitions: [{to: rest}]}
    rest: {wait_for: near, transitions: [{to: end}]}
    end: {type: final}
"#,
    );
    for many in [false, true] {
        let id = if many { "many" } else { "one" };
        let parked = place.windlass(&["run", "tree.yml", "--run-id", id, "--wait", "0s"]);
        assert_eq!(parked.code(), 7, "{}", parked.shown());
        let open = || {
            let below = place.windlass(&["runs", "list", "--below", id, "--all", "--json"]).json();
            let runs = below["runs"].as_array().expect("runs").clone();
            runs.iter().map(|run| run["status"].as_str().expect("status").to_owned()).collect::<Vec<_>>()
        };
        let wanted = format!("below={id}");
        let order = |verb: &str| {
            let args = if many { vec!["runs", verb, "--where", &wanted, "--yes"] } else { vec!["runs", verb, id] };
            let ran = place.windlass(&args);
            assert_eq!(ran.code(), 0, "{}", ran.shown());
        };
        let settled = |word: &str| {
            let mut statuses = open();
            statuses.sort();
            let mut expected = ["completed", word, word];
            expected.sort_unstable();
            assert_eq!(statuses, expected, "{id}");
        };
        order("pause");
        settled("paused");
        order("unpause");
        place.windlass(&["resume", id, "--wait", "0s"]);
        settled("waiting");
        order("cancel");
        settled("cancelled");
    }
}
