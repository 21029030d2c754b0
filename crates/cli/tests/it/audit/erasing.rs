//! Erasing: what is gone, and that the trail still verifies.

use serde_json::{Value as Json, json};

use super::Victim;

#[test]
fn what_is_erased_is_gone_and_the_trail_still_verifies() {
    for victim in Victim::both() {
        let run = |id: &str, user: &str| {
            let input = format!(r#"{{"topic":"canary-{id}"}}"#);
            victim.ok(&["run", "asks.yml", "--input", &input, "--run-id", id, "--tenant", "acme", "--user", user]);
        };
        run("a", "anna");
        run("b", "bob");
        victim.asked("other");
        let waiting = ["run", "waits.yml", "--input", r#"{"order":7}"#, "--run-id", "w", "--tenant", "acme"];
        assert_eq!(victim.windlass(&waiting).code(), 7);
        assert_eq!(victim.windlass(&["erase", "--tenant", "acme", "--yes"]).code(), 4, "one has not ended");
        victim.ok(&["export", "--tenant", "acme", "--user", "anna", "--out", "anna.jsonl"]);
        let exported = std::fs::read_to_string(victim.place.path("anna.jsonl")).expect("a file");
        assert!(exported.contains("canary-a") && !exported.contains("canary-b"), "{exported}");
        assert!(exported.contains("Tides turn twice a day.") && exported.contains(r#""type":"audit""#));
        let told = victim.ok(&["erase", "--tenant", "acme", "--user", "anna"]);
        assert_eq!((&told["runs"], &told["dry_run"]), (&json!(1), &json!(true)));
        victim.ok(&["runs", "show", "a"]);
        let done = victim.ok(&["erase", "--tenant", "acme", "--user", "anna", "--yes"]);
        assert_eq!((&done["runs"], &done["dry_run"]), (&json!(1), &json!(false)));
        assert_eq!(victim.windlass(&["runs", "show", "a"]).code(), 4);
        victim.ok(&["runs", "show", "b"]);
        assert_eq!(victim.rows("a").len(), 3, "the audit rows stay");
        assert_eq!(victim.ok(&["audit", "list", "--actor", "anna"])["rows"].as_array().expect("rows").len(), 3);
        victim.ok(&["runs", "cancel", "w"]);
        victim.ok(&["erase", "--tenant", "acme", "--yes"]);
        victim.ok(&["erase", "--run", "other", "--yes"]);
        assert_eq!(victim.findings(&[]), Vec::<Json>::new());
        let acts = victim.ok(&["audit", "acts", "--tenant", "acme"]);
        let shown = |act: &Json| format!("{} {} {}", act["action"], act["subject"], act["detail"]).replace('"', "");
        let shown: Vec<String> = acts["rows"].as_array().expect("rows").iter().map(shown).collect();
        assert_eq!(
            shown,
            [
                "user.export anna to anna.jsonl",
                "user.erase anna 1 runs",
                "run.cancel w cancelled by command",
                "tenant.erase acme 2 runs"
            ]
        );
        if victim.database.is_none() {
            assert!(!victim.holds("canary-"), "something is left in the file");
        }
        assert_eq!(victim.windlass(&["erase", "--tenant", "acme", "--user", "nobody", "--yes"]).code(), 0);
        for args in
            [&["erase", "--tenant", "acmee", "--yes"][..], &["export", "--tenant", "acmee", "--out", "none.jsonl"]]
        {
            let told = victim.windlass(args);
            assert_eq!(told.code(), 0, "{}", told.shown());
            assert!(told.stderr().contains("there is nothing of tenant `acmee`"), "{}", told.shown());
        }
        assert!(!victim.windlass(&["audit", "verify"]).shown().contains("acmee"), "a mistyped name has no trail");
        assert_eq!(victim.windlass(&["erase", "--tenant", "", "--yes"]).code(), 2);
    }
}

#[test]
fn what_waits_and_what_schedules_hold_is_erased_too() {
    for victim in Victim::both() {
        let theirs = ["--tenant", "acme", "--user", "anna"];
        let input = |name: &str| format!(r#"{{"topic":"canary-{name}"}}"#);
        let ok = |args: &[&str], more: &[&str]| victim.ok(&[args, more].concat());
        let run = ["run", "asks.yml", "--input"];
        ok(&run, &[&[&*input("key"), "--key", "canary-k"], &theirs[..]].concat());
        ok(&run, &[&[&*input("debounced"), "--key", "canary-d", "--debounce", "1h", "--detach"], &theirs[..]].concat());
        ok(&["schedules", "add", "nightly", "asks.yml", "--every", "1d", "--input", &input("plan")], &theirs);
        ok(&run, &[&input("bob"), "--key", "bobs", "--tenant", "acme", "--user", "bob"]);
        ok(&["export", "--out", "anna.jsonl"], &theirs);
        let exported = std::fs::read_to_string(victim.place.path("anna.jsonl")).expect("a file");
        for name in ["canary-key", "canary-debounced", "canary-plan"] {
            assert!(exported.contains(name), "{name}: {exported}");
        }
        assert!(!exported.contains("canary-bob"), "{exported}");
        let refused = victim.windlass(&[&["erase", "--yes"], &theirs[..]].concat());
        assert_eq!(refused.code(), 4, "{}", refused.shown());
        assert!(refused.shown().contains("nightly"), "a schedule of hers: {}", refused.shown());
        victim.ok(&["schedules", "remove", "nightly"]);
        let told = ok(&["erase"], &theirs);
        let counts = |told: &Json| {
            let of = |name: &str| told[name].as_u64().expect("a number");
            (of("runs"), of("submissions"), of("keys"), of("removed_schedules"))
        };
        assert_eq!(counts(&told), (1, 1, 1, 2), "{told}");
        assert_eq!(counts(&ok(&["erase", "--yes"], &theirs)), (1, 1, 1, 2));
        assert_eq!(counts(&ok(&["erase", "--yes"], &theirs)), (0, 0, 0, 0));
        let done = ok(&["erase", "--tenant", "acme", "--yes"], &[]);
        assert_eq!(counts(&done), (1, 0, 1, 0), "{done}");
        assert_eq!(done["left_in_log"], false);
        assert_eq!(done["documents_kept"], 1, "a submission may be about to use them");
        // Once they are older, the same command removes them.
        let older = "UPDATE blobs SET bundled_at = bundled_at - 7200 WHERE bundled_at IS NOT NULL";
        victim.execute(older, older);
        let again = ok(&["erase", "--tenant", "acme", "--yes"], &[]);
        assert_eq!((&again["blobs"], &again["documents_kept"]), (&json!(1), &json!(0)), "{again}");
        for kind in ["run_key", "debounce", "schedule", "schedule_work"] {
            assert!(!victim.has_object(kind), "{kind} is left");
        }
        assert_eq!(victim.findings(&[]), Vec::<Json>::new());
        if victim.database.is_none() {
            assert!(!victim.holds("canary-"), "something is left in the file");
        }
    }
}

const PUSH: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: push
  context: {pool_id: input.pool_id, job: input.job, worker_id: w}
  states:
    push: {type: initial, hooks: distributed-worker, action: push_job, output_to_context: {job_id: output.job_id}, transitions: [{condition: "input.job.claim", to: register}, {to: done}]}
    register: {hooks: distributed-worker, action: register_worker, transitions: [{to: claim}]}
    claim: {hooks: distributed-worker, action: claim_job, transitions: [{to: done}]}
    done: {type: final, output: {job_id: context.job_id}}
"#;

#[test]
fn jobs_of_work_pools_are_exported_and_erased_too() {
    for victim in Victim::both() {
        victim.place.write("push.yml", PUSH);
        let push = |run: &str, pool: &str, theirs: &[&str]| {
            let input = json!({"pool_id": pool, "job": {"text": format!("canary-{run}"), "claim": run == "claims"}});
            victim.ok(&[&["run", "push.yml", "--run-id", run, "--input", &input.to_string()], theirs].concat());
        };
        let anna = ["--tenant", "acme", "--user", "anna"];
        push("anna", "p", &anna);
        push("claims", "q", &anna);
        push("bob", "p", &["--tenant", "acme", "--user", "bob"]);
        push("other", "p", &["--tenant", "globex"]);
        let exported = |name: &str, theirs: &[&str]| {
            victim.ok(&[&["export", "--out", name], theirs].concat());
            let text = std::fs::read_to_string(victim.place.path(name)).expect("a file");
            let jobs = text.lines().filter(|line| line.contains(r#""type":"pool_job""#)).map(str::to_owned);
            jobs.collect::<Vec<String>>()
        };
        let jobs = exported("anna.jsonl", &anna);
        assert!(jobs.len() == 2 && jobs[0].contains("canary-anna") && jobs[1].contains("canary-claims"), "{jobs:?}");
        assert_eq!(exported("acme.jsonl", &["--tenant", "acme"]).len(), 3);
        assert_eq!(exported("run.jsonl", &["--run", "bob"]).len(), 1);
        let erased = |theirs: &[&str]| victim.ok(&[&["erase", "--yes"], theirs].concat())["jobs"].clone();
        assert_eq!(erased(&anna), json!(2));
        assert!(!victim.has_object("pool.jobs/acme/q") && victim.has_object("pool.jobs/acme/p"));
        assert!(!victim.has_object("pool.claims/acme/q") && !victim.has_object("pool.workers/acme/"), "what is hers");
        assert_eq!(erased(&["--tenant", "acme"]), json!(1));
        for list in ["jobs", "pushes", "claims"] {
            let kind = format!("pool.{list}/acme/p");
            assert!(!victim.has_object(&kind), "{kind} is left");
        }
        assert!(!victim.has_object("pool.names/acme") && victim.has_object("pool.jobs/globex/p"), "others keep theirs");
        assert_eq!(erased(&["--run", "other"]), json!(1));
        assert!(!victim.has_object("pool.jobs/globex/p"));
        assert_eq!(victim.findings(&[]), Vec::<Json>::new());
        let compacted = victim.windlass(&["store", "compact"]);
        if victim.database.is_some() {
            assert_eq!(compacted.code(), 2, "{}", compacted.shown());
            assert!(compacted.shown().contains("VACUUM"), "{}", compacted.shown());
            continue;
        }
        assert_eq!(compacted.code(), 0, "{}", compacted.shown());
        assert!(!victim.holds("canary-"), "something is left in the file");
    }
}
