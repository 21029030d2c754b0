//! Commands as tools, actions and hooks.

use std::path::Path;

use windlass_core::failure::{Code, Failure, Retry};
use windlass_core::machine::HookKind;
use windlass_core::value::Value;
use windlass_ports::tool::HookEvent;

use crate::{call, catalog_in, json, tool};

/// Runs a shell script, given as one argument of an argument array, as the tool or action `t`.
async fn run_as(group: &str, script: &str, more: &str) -> Result<Value, Failure> {
    let folder = tempfile::tempdir().expect("a folder");
    let argv = serde_json::to_string(&["/bin/sh", "-c", script]).expect("JSON");
    let toml = format!("[{group}.t]\ntype = 'command'\ncommand = {argv}\n{more}");
    tool(&catalog_in(folder.path(), &toml).expect("a catalog"), "t").call(call(r#"{"a":[1,"x y"]}"#)).await
}

async fn run(script: &str, more: &str) -> Result<Value, Failure> {
    run_as("tools", script, more).await
}

#[tokio::test]
async fn arguments_come_in_as_json_and_the_result_goes_out_as_json_or_text() {
    assert_eq!(run("cat", "").await, Ok(json(r#"{"a":[1,"x y"]}"#)));
    assert_eq!(run("echo two words", "").await, Ok(Value::str("two words")));
    assert_eq!(run("true", "").await, Ok(Value::Null));
    // A program need not read its input.
    assert_eq!(run("exec <&-; echo 7", "").await, Ok(Value::Int(7)));
}

#[tokio::test]
async fn the_environment_holds_what_is_listed_and_the_call() {
    let more = "pass_env = ['PATH', 'ABSENT']\nenv = { REGION = 'eu' }\nsecret_env = { TOKEN = 'env:KEY' }";
    let names = r#"env | sed 's/=.*//' | grep -v -e '^PWD$' -e '^SHLVL$' -e '^_$' -e '^OLDPWD$' | sort | tr '\n' ' '"#;
    let seen = run(names, more).await.unwrap();
    assert_eq!(
        seen.as_str().unwrap().trim(),
        "PATH REGION TOKEN TRACEPARENT WINDLASS_ATTEMPT WINDLASS_IDEMPOTENCY_KEY WINDLASS_RUN_ID WINDLASS_TOOL"
    );
    let values = "echo $REGION $TOKEN $WINDLASS_IDEMPOTENCY_KEY $WINDLASS_RUN_ID $WINDLASS_ATTEMPT";
    assert_eq!(run(values, more).await, Ok(Value::str("eu s3cret-key run-1#7 run-1 1")));
    // The default list has no variable that changes how programs are loaded.
    assert_eq!(run("echo [$LD_PRELOAD]", "").await, Ok(json("[]")));
}

#[tokio::test]
async fn a_bad_exit_is_an_answer() {
    let failure = run("echo broken pipe fitting >&2; exit 4", "").await.unwrap_err();
    assert_eq!((failure.code, failure.retry, failure.status), (Code::ToolFailed, Retry::Never, Some(4)));
    assert_eq!(&*failure.message, "`t` ended with exit code 4: broken pipe fitting");
    let failure = run(r#"echo '{"error":{"type":"NoStock","message":"none left"}}'; exit 1"#, "").await.unwrap_err();
    assert_eq!((failure.error_type.as_deref(), &*failure.message), (Some("NoStock"), "none left"));
    assert_eq!(run("exit 75", "").await.unwrap_err().retry, Retry::Backoff);
    let failure = run_as("actions", "exit 1", "").await.unwrap_err();
    assert_eq!(failure.code, Code::HookFailed, "an action's failures are those of hooks");
}

#[tokio::test]
async fn death_by_a_signal_leaves_the_outcome_open() {
    let failure = run("kill -9 $$", "").await.unwrap_err();
    assert_eq!((failure.retry, failure.status), (Retry::Unknown, Some(-9)));
    let failure = run("kill -9 $$", "class = 'read'").await.unwrap_err();
    assert_eq!(failure.retry, Retry::Backoff);
}

#[tokio::test]
async fn messages_are_cut_and_show_no_secret() {
    let script = r#"i=0; while [ $i -lt 2000 ]; do echo "line $i" >&2; i=$((i+1)); done; printf "key $TOKEN \033[2J" >&2; exit 1"#;
    let failure = run(script, "secret_env = { TOKEN = 'env:KEY' }").await.unwrap_err();
    assert!(failure.message.ends_with("line 1999\nkey *** \u{fffd}[2J"), "{}", failure.message);
    assert!(failure.message.len() < 2_200);
}

#[tokio::test]
async fn answers_that_are_no_text_are_refused() {
    let failure = run(r"printf '\377\376'", "").await.unwrap_err();
    assert!(failure.message.contains("UTF-8"), "{}", failure.message);
}

#[tokio::test]
async fn what_a_command_leaves_behind_is_killed() {
    // The child left behind keeps standard output open: without the kill, the call would last as long as it does.
    assert_eq!(run("sleep 600 & echo done", "").await, Ok(Value::str("done")));
}

#[tokio::test]
async fn a_command_may_end_on_its_own_terms_when_time_is_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = "trap 'echo cleaned > mark; exit 0' TERM; while :; do sleep 0.01; done";
    let argv = serde_json::to_string(&["/bin/sh", "-c", script]).expect("JSON");
    let toml = format!("[tools.t]\ntype = 'command'\ntimeout_ms = 2000\ncommand = {argv}");
    let failure = tool(&catalog_in(folder.path(), &toml).unwrap(), "t").call(call("{}")).await.unwrap_err();
    assert_eq!((failure.code, failure.retry), (Code::ToolTimeout, Retry::Unknown));
    assert_eq!(std::fs::read_to_string(folder.path().join("mark")).unwrap(), "cleaned\n");
}

#[tokio::test]
async fn programs_and_folders_are_found_from_the_configuration() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("bin")).unwrap();
    let path = folder.path().join("bin/where.sh");
    std::fs::write(&path, "#!/bin/sh\nbasename \"$PWD\"\n").unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let toml = "[tools.t]\ntype = 'command'\ncommand = ['bin/where.sh']\ndir = 'bin'";
    let tool = tool(&catalog_in(folder.path(), toml).unwrap(), "t");
    assert_eq!(tool.call(call("{}")).await, Ok(Value::str("bin")));
}

#[tokio::test]
async fn a_python_script_is_a_tool() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = "import json, sys\nargs = json.load(sys.stdin)\njson.dump({'sum': sum(args['a'])}, sys.stdout)\n";
    std::fs::write(folder.path().join("add.py"), script).unwrap();
    let toml = "[tools.t]\ntype = 'command'\ncommand = ['python3', 'add.py']\nclass = 'read'";
    let tool = tool(&catalog_in(folder.path(), toml).unwrap(), "t");
    assert_eq!(tool.call(call(r#"{"a":[1,2,39]}"#)).await, Ok(json(r#"{"sum":42}"#)));
}

async fn hook(script: &str, kind: HookKind) -> Result<Value, Failure> {
    let argv = serde_json::to_string(&["/bin/sh", "-c", script]).expect("JSON");
    let toml =
        format!("[hooks.h]\ntype = 'command'\ncommand = {argv}\nevents = ['action', 'state_enter', 'tool_call']");
    let catalog = catalog_in(Path::new("/"), &toml).expect("a catalog");
    let hook = catalog.hook("h").expect("the hook");
    assert_eq!(hook.events(), [HookKind::StateEnter, HookKind::Action, HookKind::ToolCall]);
    hook.call(HookEvent {
        hook: "h".into(),
        kind,
        body: json(r#"{"event":"action","run_id":"run-1","action":"book","context":{"n":1}}"#),
        idempotency_key: "run-1#7".into(),
        trace: None,
        tenant: "t".into(),
        labels: None,
        hidden: Default::default(),
        timeout_ms: 20_000,
        output_bytes_max: 10_000,
        permit: Default::default(),
    })
    .await
}

#[tokio::test]
async fn a_hook_reads_a_line_and_answers_with_a_document() {
    let answer = r#"read -r line; printf '{"output":%s,"context":{"key":"%s %s %s"}}' "$line" "$WINDLASS_IDEMPOTENCY_KEY" "$WINDLASS_RUN_ID" "$WINDLASS_EVENT""#;
    let answer = hook(answer, HookKind::Action).await.unwrap();
    assert_eq!(answer.at_path(&["output", "action"]), Value::str("book"));
    assert_eq!(answer.at_path(&["context", "key"]), Value::str("run-1#7 run-1 action"));
    assert_eq!(hook("true", HookKind::StateEnter).await, Ok(Value::Null));
}

#[tokio::test]
async fn a_hook_that_fails_or_talks_nonsense_fails_the_state() {
    let failure = hook("echo nonsense", HookKind::Action).await.unwrap_err();
    assert_eq!(failure.code, Code::HookBadAnswer);
    let failure = hook(r#"echo '{"error":{"type":"ValueError","message":"no seat"}}'"#, HookKind::Action).await;
    let failure = failure.unwrap_err();
    assert_eq!((failure.code, failure.error_type.as_deref()), (Code::HookFailed, Some("ValueError")));
    let failure = hook("exit 3", HookKind::ToolCall).await.unwrap_err();
    assert_eq!((failure.code, failure.status), (Code::ToolFailed, Some(3)));
}
