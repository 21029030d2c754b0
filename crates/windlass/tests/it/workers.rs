//! Workers that the format's work pools start are launched by the engine: bound, asked about, counted and stopped with the
//! run that asked for them.

use tempfile::TempDir;
use windlass::{Outcome, Windlass};
use windlass_core::failure::{Code, Failure};
use windlass_core::ids::RunId;
use windlass_core::input::Input;
use windlass_core::run::{Parent, Run, Status};
use windlass_core::value::Value;
use windlass_ports::store::Message;
use windlass_spec::source::MemoryFiles;

const CHECKER: &str = r#"
spec: flatmachine
spec_version: 4.2.1
data:
  name: checker
  context: {workers_to_spawn: 2, pool_id: p, worker_config_path: ./job_worker.yml}
  machines:
    job_worker: {path: ./job_worker.yml, contract: {max_tokens: 500, tools: [read_file, "docs.*"], max_output_bytes: 4096}}
    other: {path: ./job_worker.yml, contract: {max_tool_calls: 3, tools: ["docs.*"], max_output_bytes: 9999}}
  states:
    spawn:
      type: initial
      hooks: distributed-worker
      action: spawn_workers
      output_to_context: {spawned_ids: output.spawned_ids}
      transitions: [{to: done}]
    done: {type: final, output: {ids: context.spawned_ids}}
"#;

const WORKER: &str = r#"
spec: flatmachine
spec_version: 4.2.1
data:
  name: job_worker
  states:
    work: {type: initial, transitions: [{to: end}]}
    end: {type: final, output: {done: true}}
"#;

#[tokio::test]
async fn workers_of_a_pool_stay_within_every_contract_of_their_machine() {
    let windlass = Windlass::builder().build().await.expect("built");
    let files = MemoryFiles::new().with("machine.yml", CHECKER).with("job_worker.yml", WORKER);
    let run = windlass.submit(&files, "machine.yml", Value::empty_map(), None).await.expect("valid");
    let ended = windlass.resume(&run).await.expect("driven");
    assert!(matches!(ended, Outcome::Completed { .. }), "{ended:?}");
    let ids = ended.output().expect("an output").get("ids").and_then(Value::as_list).expect("ids").to_vec();
    assert_eq!(ids.len(), 2);
    for id in ids {
        let id = RunId::stored(id.as_str().expect("an id"));
        let start = windlass.engine().parts().store.load(id).await.expect("read").expect("there").start;
        assert_eq!((start.ceilings.tokens, start.ceilings.tool_calls), (Some(500), Some(3)));
        assert_eq!(start.parent, Some(Parent { run: run.clone(), awaited: false }), "it is part of the tree");
        assert_eq!((start.root, start.depth, start.ceilings.depth), (run.clone(), 1, Some(15)));
        assert_eq!(start.terms.output_bytes, Some(4096), "the smaller one");
        let allowed = ["read_file", "docs.search", "send_mail"].map(|tool| start.terms.allow(tool));
        assert_eq!(allowed, [false, true, false], "only what every contract allows");
    }
}

/// Starts itself twice, again and again.
const SELF: &str = r#"
spec: flatmachine
spec_version: 4.2.1
data:
  name: again
  context: {workers_to_spawn: 2, worker_config_path: ./machine.yml}
  machines: {again: ./machine.yml}
  settings: {SETTINGS}
  states:
    spawn: {type: initial, hooks: distributed-worker, action: spawn_workers, transitions: [{to: done}]}
    done: {type: final, output: {ids: context.spawned_ids}}
"#;

/// Drives a machine that starts itself. Gives back how it ended and every run that there is then.
async fn again(windlass: &Windlass, settings: &str) -> (Outcome, Vec<RunId>) {
    let files = MemoryFiles::new().with("machine.yml", SELF.replace("SETTINGS", settings));
    let run = windlass.submit(&files, "machine.yml", Value::empty_map(), None).await.expect("valid");
    let ended = windlass.resume(&run).await.expect("driven");
    let runs = windlass.engine().parts().store.ids(None, 1_000).await.expect("read");
    (ended, runs)
}

fn failure(ended: &Outcome) -> &Failure {
    match ended {
        Outcome::Failed { failure, .. } => failure,
        other => panic!("it did not fail: {other:?}"),
    }
}

async fn state(windlass: &Windlass, run: &RunId) -> Run {
    windlass.engine().status(run).await.expect("read").expect("there").run
}

#[tokio::test]
async fn a_machine_that_starts_itself_stays_within_its_bounds() {
    for settings in
        ["max_launches: 0", "max_depth: 0", "max_launches: 1", "max_launches: 0, max_depth: 0, max_steps: 3"]
    {
        let windlass = Windlass::builder().build().await.expect("built");
        let (ended, runs) = again(&windlass, settings).await;
        assert_eq!(failure(&ended).code, Code::BudgetExceeded, "{settings}: {ended:?}");
        assert_eq!(runs.len(), 1, "{settings}");
    }
    let windlass = Windlass::builder().build().await.expect("built");
    let (ended, runs) = again(&windlass, "max_launches: 20, max_depth: 2").await;
    assert!(matches!(ended, Outcome::Completed { .. }), "{ended:?}");
    assert_eq!(runs.len(), 7, "three levels of two each");
    let deepest = runs.iter().max_by_key(|run| run.as_str().len()).expect("runs");
    assert_eq!(state(&windlass, deepest).await.start.depth, 2);
    assert_eq!(state(&windlass, ended.run_id()).await.used().launches, 2, "those that it started itself");
}

#[tokio::test]
async fn a_rule_that_forbids_a_machine_forbids_its_workers() {
    let folder = TempDir::new().expect("a folder");
    let rules = r#"
@id("rest")
permit (principal, action, resource);
@id("no-workers")
forbid (principal, action == Action::"StartMachine", resource);
"#;
    let entities = r#"[{"uid": {"type": "Tool", "id": "spawn_workers"}, "attrs": {"class": "read"}}]"#;
    for (name, text) in [("rules.cedar", rules), ("entities.json", entities)] {
        std::fs::write(folder.path().join(name), text).expect("written");
    }
    let windlass = Windlass::builder().policy(folder.path()).build().await.expect("built");
    let (ended, runs) = again(&windlass, "max_depth: 2").await;
    let failure = failure(&ended);
    assert_eq!(failure.code, Code::PolicyDenied, "{failure:?}");
    assert!(failure.message.contains("no-workers"), "{failure:?}");
    assert_eq!(runs.len(), 1);
}

#[tokio::test]
async fn a_machine_that_nobody_named_is_not_started() {
    let windlass = Windlass::builder().build().await.expect("built");
    let other = CHECKER.replace("worker_config_path: ./job_worker.yml", "worker_config_path: ./other.yml");
    let files = MemoryFiles::new().with("machine.yml", other).with("job_worker.yml", WORKER);
    let run = windlass.submit(&files, "machine.yml", Value::empty_map(), None).await.expect("valid");
    let ended = windlass.resume(&run).await.expect("driven");
    assert_eq!(failure(&ended).error_type.as_deref(), Some("ValueError"), "{ended:?}");
}

#[tokio::test]
async fn who_is_cancelled_takes_its_workers_along() {
    let windlass = Windlass::builder().build().await.expect("built");
    let checker = CHECKER
        .replace("transitions: [{to: done}]", "transitions: [{to: stay}]")
        .replace("    done: {", "    stay: {wait_for: more, transitions: [{to: done}]}\n    done: {");
    let worker = WORKER.replace("work: {type: initial,", "work: {type: initial, wait_for: work,");
    let files = MemoryFiles::new().with("machine.yml", checker).with("job_worker.yml", worker);
    let run = windlass.submit(&files, "machine.yml", Value::empty_map(), None).await.expect("valid");
    assert!(matches!(windlass.resume(&run).await.expect("driven"), Outcome::Parked { .. }));
    let workers: Vec<RunId> = state(&windlass, &run).await.children.keys().cloned().collect();
    assert_eq!(workers.len(), 2);
    let cancel = Input::Cancel { reason: "enough".into() };
    let message = Message { to: run.clone(), id: "cancel".into(), input: cancel };
    windlass.engine().parts().store.deliver(message).await.expect("delivered");
    assert!(matches!(windlass.resume(&run).await.expect("driven"), Outcome::Cancelled { .. }));
    for worker in workers {
        assert_eq!(state(&windlass, &worker).await.status(), Status::Cancelled, "{worker}");
    }
}
