//! Workers that the format's work pools start are bound by the contract under which their machine is named.

use windlass::{Outcome, Windlass};
use windlass_core::ids::RunId;
use windlass_core::value::Value;
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
        assert_eq!(start.terms.output_bytes, Some(4096), "the smaller one");
        let allowed = ["read_file", "docs.search", "send_mail"].map(|tool| start.terms.allow(tool));
        assert_eq!(allowed, [false, true, false], "only what every contract allows");
    }
}
