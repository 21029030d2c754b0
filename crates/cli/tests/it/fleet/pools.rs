//! Who drives what: pools, what a worker lacks, how many may wait, and the format's work pools.
//!
//! Slow on purpose: real processes are waited for.

use serde_json::json;

use super::{ACTS, Fleet, action};
use crate::kit::ASKS;

#[test]
fn a_run_moves_to_the_workers_of_the_pool_that_its_state_asks_for() {
    let fleet = Fleet::new();
    fleet.write(
        "acts.yml",
        &ACTS.replace("name: acts\n", "name: acts\n  settings: {pool: cpu, pools: {act: gpu}, priority: low}\n"),
    );
    fleet.write("windlass.toml", &action("echo 7"));
    let _cpu = fleet.start(&["worker", "--pool", "cpu"]);
    fleet.submit("acts.yml", "moves", &[]);
    fleet.submit("acts.yml", "refused-pool", &["--priority", "high", "--tag", "team=night"]);
    let refused = fleet.run(&["run", "acts.yml", "--pool", "tpu", "--detach"]);
    assert_eq!(refused.code(), 2, "{}", refused.shown());
    let shown = fleet.show("moves");
    assert_eq!(shown["status"], "queued", "{shown}");
    let _gpu = fleet.start(&["worker", "--pool", "gpu"]);
    assert_eq!(fleet.output("moves"), json!({ "answer": 7 }));
    fleet.until("refused-pool", "completed");
    let listed = fleet.run(&["runs", "list", "--tag", "team=night", "--json"]).json();
    assert_eq!(listed["runs"].as_array().map(Vec::len), Some(1), "{listed}");
}

#[test]
fn a_worker_that_lacks_an_action_leaves_the_run_for_one_that_has_it() {
    let fleet = Fleet::new();
    fleet.write("acts.yml", ACTS);
    fleet.write("windlass.toml", &action("echo 7"));
    fleet.write("poor.toml", "[worker]\nthreads = 1\n");
    fleet.submit("acts.yml", "needs", &[]);
    let poor = fleet.start(&["worker", "--config", "poor.toml", "--listen", "127.0.0.1:0"]);
    fleet.until_all("the poor one looked at it", || (poor.number("windlass_runs_unfit_total") > 0.0).then_some(()));
    let shown = fleet.show("needs");
    assert_eq!(shown["status"], "queued", "it has not failed: {shown}");
    let _rich = fleet.start(&["worker"]);
    assert_eq!(fleet.output("needs"), json!({ "answer": 7 }));
}

#[test]
fn a_worker_without_the_script_or_key_of_a_model_leaves_the_run_for_one_that_has_it() {
    let fleet = Fleet::new();
    fleet.write("poor.toml", "[worker]\nthreads = 1\n");
    fleet.write("keyed.yml", &ASKS.replace("provider: scripted, name: small", "provider: openai, name: gpt-4o-mini"));
    fleet.submit("asks.yml", "script", &["--input", r#"{"topic": "tides"}"#]);
    fleet.submit("keyed.yml", "key", &["--input", r#"{"topic": "tides"}"#]);
    let poor = fleet.start(&["worker", "--config", "poor.toml", "--listen", "127.0.0.1:0"]);
    fleet.until_all("the poor one looked at both", || (poor.number("windlass_runs_unfit_total") > 1.0).then_some(()));
    for run in ["script", "key"] {
        let shown = fleet.show(run);
        assert_eq!(shown["status"], "queued", "it has not failed: {shown}");
    }
    fleet.write("rich.toml", "[providers.\"*\"]\nkind = \"scripted\"\nscript = \"script.yml\"\n");
    let _rich = fleet.start(&["worker", "--config", "rich.toml"]);
    for run in ["script", "key"] {
        assert_eq!(fleet.output(run), json!({ "text": "Tides turn twice a day." }));
    }
}

#[test]
fn a_full_queue_refuses_new_runs_and_takes_them_again_when_there_is_room() {
    let fleet = Fleet::new();
    fleet.write("acts.yml", ACTS);
    fleet.write("windlass.toml", &format!("{}[queue]\nmax = 4\n", action("echo 7")));
    for n in 0..3 {
        fleet.submit("acts.yml", &format!("n{n}"), &[]);
    }
    let refused = fleet.run(&["run", "acts.yml", "--run-id", "late", "--detach"]);
    assert_eq!((refused.code(), &refused.json()["error"]["code"]), (5, &json!("queue.full")), "{}", refused.shown());
    fleet.submit("acts.yml", "urgent", &["--priority", "high"]);
    let _worker = fleet.start(&["worker"]);
    fleet.until("urgent", "completed");
    fleet.until("n2", "completed");
    fleet.submit("acts.yml", "late", &[]);
    fleet.until("late", "completed");
}

const CHECKER: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: checker
  context: {pool_id: input.pool_id, max_workers: input.max_workers}
  machines: {job_worker: ./job_worker.yml}
  states:
    check:
      type: initial
      hooks: distributed-worker
      action: get_pool_state
      output_to_context: {queue_depth: output.queue_depth, active_workers: output.active_workers}
      transitions: [{to: calculate}]
    calculate:
      hooks: distributed-worker
      action: calculate_spawn
      output_to_context: {workers_to_spawn: output.workers_to_spawn}
      transitions: [{condition: "context.workers_to_spawn > 0", to: spawn}, {to: done}]
    spawn:
      hooks: distributed-worker
      action: spawn_workers
      output_to_context: {spawned_ids: output.spawned_ids}
      transitions: [{to: done}]
    done:
      type: final
      output: {spawned: context.workers_to_spawn, ids: context.spawned_ids, depth: context.queue_depth}
"#;

const WORKER: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: job_worker
  context: {pool_id: input.pool_id, worker_id: input.worker_id}
  states:
    register: {type: initial, hooks: distributed-worker, action: register_worker, transitions: [{to: claim}]}
    claim:
      hooks: distributed-worker
      action: claim_job
      output_to_context: {job: output.job, job_id: output.job_id}
      transitions: [{condition: "context.job == None", to: leave}, {to: work}]
    work:
      action: act
      output_to_context: {result: output}
      on_error: failed
      transitions: [{to: complete}]
    complete: {hooks: distributed-worker, action: complete_job, transitions: [{to: leave}]}
    failed: {hooks: distributed-worker, action: fail_job, transitions: [{to: leave}]}
    leave: {hooks: distributed-worker, action: deregister_worker, transitions: [{to: done}]}
    done: {type: final, output: {job_id: context.job_id, result: context.result}}
"#;

const PUSH: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: push
  context: {pool_id: input.pool_id, job: input.job}
  states:
    push:
      type: initial
      hooks: distributed-worker
      action: push_job
      output_to_context: {job_id: output.job_id}
      transitions: [{to: done}]
    done: {type: final, output: {job_id: context.job_id}}
"#;

const REAPER: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: reaper
  context: {pool_id: input.pool_id, stale_threshold_seconds: 0}
  states:
    find:
      type: initial
      hooks: distributed-worker
      action: list_stale_workers
      output_to_context: {stale_workers: output.workers, stale_count: output.stale_count}
      transitions: [{condition: "context.stale_count == 0", to: done}, {to: reap}]
    reap:
      hooks: distributed-worker
      action: reap_stale_workers
      output_to_context: {reaped: output.reaped_count, released: output.total_jobs_released}
      transitions: [{to: done}]
    done: {type: final, output: {stale: context.stale_count, reaped: context.reaped, released: context.released}}
"#;

#[test]
fn checker_workers_and_reaper_share_a_work_pool() {
    let fleet = Fleet::new();
    for (name, text) in
        [("checker.yml", CHECKER), ("job_worker.yml", WORKER), ("push.yml", PUSH), ("reaper.yml", REAPER)]
    {
        fleet.write(name, text);
    }
    fleet.write("windlass.toml", &action("[ ! -e hold ] || { touch held; exec sleep 600; }; echo 7"));
    let run = |machine: &str, input: serde_json::Value| {
        let ran = fleet.run(&["run", machine, "--input", &input.to_string()]);
        assert_eq!(ran.code(), 0, "{}", ran.shown());
        ran.json()
    };
    for n in 0..3 {
        assert!(run("push.yml", json!({"pool_id": "p", "job": {"n": n}}))["job_id"].is_string());
    }
    // Workers are part of the run that starts them, so that a command would wait for them.
    let check = |id: &str| {
        fleet.submit("checker.yml", id, &["--input", r#"{"pool_id": "p", "max_workers": 2}"#]);
        fleet.until(id, "completed")["run"]["ending"]["completed"]["output"].clone()
    };
    let worker = fleet.start(&["worker"]);
    let checked = check("c1");
    assert_eq!((&checked["spawned"], &checked["depth"]), (&json!(2), &json!(3)), "{checked}");
    for id in checked["ids"].as_array().expect("ids") {
        let shown = fleet.until(id.as_str().expect("an id"), "completed");
        assert_eq!(shown["run"]["ending"]["completed"]["output"]["result"], 7, "{shown}");
    }
    // One job is left; the machine that claims it is cancelled in the middle, and the reaper gives the job back.
    fleet.write("hold", "");
    let checked = check("c2");
    assert_eq!((&checked["spawned"], &checked["depth"]), (&json!(1), &json!(1)), "{checked}");
    fleet.until_all("the job is being done", || fleet.place.path("held").exists().then_some(()));
    assert_eq!(run("reaper.yml", json!({"pool_id": "p"}))["stale"], 0, "its run goes on");
    let lost = checked["ids"][0].as_str().expect("an id");
    let cancelled = fleet.run(&["runs", "cancel", lost]);
    assert_eq!(cancelled.code(), 0, "{}", cancelled.shown());
    fleet.until(lost, "cancelled");
    let reaped = run("reaper.yml", json!({"pool_id": "p"}));
    assert_eq!(reaped, json!({"stale": 1, "reaped": 1, "released": 1}));
    std::fs::remove_file(fleet.place.path("hold")).expect("removed");
    let checked = check("c3");
    assert_eq!((&checked["spawned"], &checked["depth"]), (&json!(1), &json!(1)), "{checked}");
    fleet.until(checked["ids"][0].as_str().expect("an id"), "completed");
    assert_eq!(check("c4")["depth"], 0);
    assert_eq!(worker.stop().code(), Some(0));
}
