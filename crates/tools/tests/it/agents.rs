//! Agents that are programs: scripts that write what Claude Code and Codex write, supervised as commands are.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use windlass_core::effect::{Said, Spent};
use windlass_core::failure::{Code, Retry};
use windlass_core::machine::{ModelSettings, Priority, ToolDefinition};
use windlass_core::request::ModelRequest;
use windlass_core::transcript::Message;
use windlass_core::value::Value;
use windlass_ports::model::{Model, ModelResult};
use windlass_tools::agents::{AgentFormat, CliAgentConfig};
use windlass_tools::{CatalogConfig, Surroundings, WorkPools, build_agents};

fn agent(folder: &Path, config: CliAgentConfig) -> Result<Arc<dyn Model>, String> {
    let pools = WorkPools::default();
    let surroundings = Surroundings {
        quarantine: &windlass_tools::mcp::Quarantine::default(),
        folder,
        environment: &|name| std::env::var_os(name),
        secret: &|reference| (reference == "env:AGENT_KEY").then(|| "sk-agent-secret".into()),
        require_contracts: true,
        require_guards: false,
        pools: &pools,
    };
    let agents_cli = BTreeMap::from([("coder".to_owned(), config)]);
    let made = build_agents(&CatalogConfig { agents_cli, ..CatalogConfig::default() }, &surroundings);
    made.map(|mut agents| agents.remove("coder").expect("built")).map_err(|error| error.to_string())
}

/// An agent whose program is this text, read by a shell.
fn scripted(folder: &Path, format: AgentFormat, script: &str) -> CliAgentConfig {
    let path = folder.join("agent.sh");
    std::fs::write(&path, script).expect("written");
    let words = ["sh", &path.to_string_lossy(), "{model}"].map(str::to_owned);
    CliAgentConfig { format, command: Some(words.into()), ..CliAgentConfig::default() }
}

fn request(timeout_ms: u64) -> ModelRequest {
    ModelRequest {
        agent: "a".into(),
        provider: "coder".into(),
        model: "opus".into(),
        base_url: None,
        key: None,
        messages: vec![
            Message::System { content: "Be brief.".into() },
            Message::User { content: "Fix the build.".into() },
        ],
        files: vec![],
        tools: vec![],
        output_schema: None,
        max_tokens: Some(100),
        params: Value::Null,
        stream: false,
        timeout_ms,
        idempotency_key: "run/1".into(),
        tenant: "default".into(),
        priority: Priority::Normal,
        trace: None,
        repeat: false,
        denied: Vec::new(),
        link: None,
    }
}

async fn ask(format: AgentFormat, script: &str) -> ModelResult {
    let folder = tempfile::tempdir().expect("a folder");
    let agent = agent(folder.path(), scripted(folder.path(), format, script)).expect("an agent");
    agent.call(request(20_000)).await
}

fn failed(result: &ModelResult) -> (Code, Retry, Spent) {
    let failure = result.outcome.as_ref().expect_err("a failure");
    (failure.code, failure.retry, result.spent)
}

const CLAUDE: &str = r#"
prompt=$(cat)
[ "$prompt" = "Be brief.

Fix the build." ] || exit 9
[ "$1" = opus ] || exit 8
[ -n "$WINDLASS_IDEMPOTENCY_KEY" ] || exit 7
[ -z "$CARGO" ] || exit 6
echo '{"type":"system","subtype":"init","session_id":"s-1"}'
echo '{"type":"assistant","message":{"content":[{"type":"text","text":"working"}]}}'
echo '{"type":"result","subtype":"success","is_error":false,"result":"Fixed.","session_id":"s-1","total_cost_usd":0.01234,"usage":{"input_tokens":10,"cache_creation_input_tokens":20,"cache_read_input_tokens":30,"output_tokens":40}}'
"#;

#[tokio::test]
async fn claude_code_answers_with_what_it_used_and_cost() {
    let result = ask(AgentFormat::ClaudeCode, CLAUDE).await;
    let reply = result.outcome.expect("an answer");
    assert_eq!((&*reply.content, reply.cost_micros), ("Fixed.", Some(12_340)));
    let usage = reply.usage;
    assert_eq!(
        (usage.input, usage.cache_read, usage.cache_write, usage.output),
        (Some(10), Some(30), Some(20), Some(40))
    );
    assert_eq!(result.spent, Spent::Known { tokens: 100, cost_micros: 12_340 });
    assert_eq!(reply.provider_data.get("response_id"), Some(&Value::str("s-1")));
}

#[tokio::test]
async fn an_agent_that_gives_up_is_charged_at_what_it_says() {
    let script = r#"
cat > /dev/null
echo '{"type":"result","subtype":"error_max_turns","is_error":true,"total_cost_usd":0.5,"usage":{"input_tokens":1,"output_tokens":2}}'
exit 1
"#;
    let known = Spent::Known { tokens: 3, cost_micros: 500_000 };
    assert_eq!(failed(&ask(AgentFormat::ClaudeCode, script).await), (Code::ProviderLength, Retry::Never, known));
    let broken = "cat > /dev/null; echo 'no credit' >&2; exit 1";
    let result = ask(AgentFormat::ClaudeCode, broken).await;
    assert_eq!(failed(&result), (Code::ProviderUnavailable, Retry::Never, Spent::Unknown));
    assert!(result.outcome.expect_err("a failure").message.contains("no credit"));
}

#[tokio::test]
async fn each_meter_is_known_as_far_as_the_agent_says_it() {
    let of = async |answer: &str| ask(AgentFormat::Json, &format!("cat > /dev/null; echo '{answer}'")).await.spent;
    let (unsaid, whole) = (Said::AtLeast(0), Said::Exactly(12));
    for (answer, tokens, cost_micros) in [
        (r#"{"content":"x","usage":{"input":5,"output":7}}"#, whole, unsaid),
        (r#"{"content":"x","cost_micros":9}"#, unsaid, Said::Exactly(9)),
        (r#"{"content":"x","usage":{"input":900},"cost_micros":9}"#, Said::AtLeast(900), Said::Exactly(9)),
        (
            r#"{"content":"x","usage":{"input":5,"output":9223372036854775807},"cost_micros":9}"#,
            unsaid,
            Said::Exactly(9),
        ),
        (r#"{"content":"x","usage":{"input":5,"output":1e30},"cost_micros":9}"#, unsaid, Said::Exactly(9)),
    ] {
        assert_eq!(of(answer).await, Spent::Metered { tokens, cost_micros }, "{answer}");
    }
    assert_eq!(of(r#"{"content":"x"}"#).await, Spent::Unknown);
}

/// PRM-9: what a program was given as a secret does not come back in what it writes.
#[tokio::test]
async fn the_secrets_of_a_program_are_in_nothing_that_is_read_of_its_output() {
    let folder = tempfile::tempdir().expect("a folder");
    for (format, script) in [
        (AgentFormat::Json, r#"printf '{"error":{"message":"invalid key %s"}}' "$KEY""#),
        (AgentFormat::Json, r#"printf '{"error":["invalid key %s"]}' "$KEY""#),
        (AgentFormat::Json, r#"printf '{"content":"the key is \u0073k-agent-secret, %s"}' "$KEY""#),
        (AgentFormat::Codex, r#"printf '{"type":"turn.failed","error":{"message":"bad %s"}}' "$KEY""#),
        (
            AgentFormat::ClaudeCode,
            r#"printf '{"type":"result","subtype":"success","result":"%s","session_id":"%s"}' "$KEY" "$KEY""#,
        ),
        (AgentFormat::ClaudeCode, r#"printf '{"type":"result","subtype":"%s"}' "$KEY""#),
    ] {
        let mut config = scripted(folder.path(), format, &format!("cat > /dev/null; {script}"));
        let secret = serde_json::from_value(serde_json::json!("env:AGENT_KEY")).expect("a reference");
        config.secret_env = Some(BTreeMap::from([("KEY".to_owned(), secret)]));
        let result = agent_of(folder.path(), config).call(request(20_000)).await;
        let said = format!("{:?}", result.outcome);
        assert!(said.contains("***") && !said.contains("sk-agent-secret"), "{said}");
    }
}

const CODEX: &str = r#"
cat > /dev/null
echo '{"type":"thread.started","thread_id":"t-1"}'
echo '{"type":"turn.started"}'
echo '{"type":"item.completed","item":{"id":"1","type":"reasoning","text":"hm"}}'
echo '{"type":"item.completed","item":{"id":"2","type":"agent_message","text":"Done."}}'
echo '{"type":"turn.completed","usage":{"input_tokens":100,"cached_input_tokens":60,"output_tokens":7}}'
"#;

#[tokio::test]
async fn codex_answers_and_does_not_say_what_it_cost() {
    let result = ask(AgentFormat::Codex, CODEX).await;
    let reply = result.outcome.expect("an answer");
    assert_eq!((&*reply.content, reply.cost_micros), ("Done.", None));
    assert_eq!((reply.usage.input, reply.usage.cache_read, reply.usage.output), (Some(40), Some(60), Some(7)));
    let metered = Spent::Metered { tokens: Said::Exactly(107), cost_micros: Said::AtLeast(0) };
    assert_eq!(result.spent, metered, "the tokens are known, the cost is charged at its reservation");
    let failing = r#"echo '{"type":"turn.failed","error":{"message":"usage limit"}}'"#;
    let result = ask(AgentFormat::Codex, failing).await;
    assert!(result.outcome.expect_err("a failure").message.contains("usage limit"));
}

#[tokio::test]
async fn an_output_that_is_cut_is_never_an_answer() {
    for (format, script) in [(AgentFormat::ClaudeCode, CLAUDE), (AgentFormat::Codex, CODEX)] {
        let lines: Vec<&str> = script.lines().collect();
        let cut = lines[..lines.len() - 1].join("\n");
        let (code, _, spent) = failed(&ask(format, &cut).await);
        assert_eq!((code, spent), (Code::ProviderTruncated, Spent::Unknown), "{format:?}");
    }
    let half = "cat > /dev/null; printf '{\"content\":\"ha'";
    assert_eq!(failed(&ask(AgentFormat::Json, half).await).0, Code::ProviderTruncated);
}

#[tokio::test]
async fn a_program_of_ones_own_reads_and_writes_json() {
    let script = r#"
read -r body
case "$body" in *'"role":"user"'*) ;; *) exit 9 ;; esac
echo '{"content":"Yes.","usage":{"input":5,"output":6},"cost_micros":7}'
"#;
    let result = ask(AgentFormat::Json, script).await;
    assert_eq!(result.spent, Spent::Known { tokens: 11, cost_micros: 7 });
    assert_eq!(&*result.outcome.expect("an answer").content, "Yes.");
}

#[tokio::test]
async fn an_agent_that_takes_too_long_is_killed_with_all_that_it_started() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = "cat > /dev/null\necho $$ > pids\n(sleep 600 & echo $! >> pids; wait) &\nwait\n";
    let agent = agent(folder.path(), scripted(folder.path(), AgentFormat::Codex, script)).expect("an agent");
    // Slow on purpose: a process is killed by the clock.
    let result = agent.call(request(1_500)).await;
    assert_eq!(failed(&result), (Code::ProviderTimeout, Retry::Backoff, Spent::Unknown));
    gone(folder.path()).await;
}

#[tokio::test]
async fn an_answer_counts_although_something_that_left_the_group_holds_its_pipes() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = r#"
exec 3<"$0"
setsid sh -c 'echo $$ > "'"${0%/*}"'/left"; exec sleep 60' &
while [ ! -s "${0%/*}/left" ]; do sleep 0.01; done
printf '{"content":"all of it","usage":{"input":3,"output":2}}'
"#;
    let agent = agent(folder.path(), scripted(folder.path(), AgentFormat::Json, script)).expect("an agent");
    let result = agent.call(request(20_000)).await;
    let left = std::fs::read_to_string(folder.path().join("left")).expect("started");
    let pid = nix::unistd::Pid::from_raw(left.trim().parse().expect("a number"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("beyond the reach of the call");
    assert_eq!(&*result.outcome.expect("an answer").content, "all of it");
}

#[tokio::test]
async fn a_call_that_is_given_up_ends_its_program() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = "cat > /dev/null\necho $$ > pids\n(sleep 600 & echo $! >> pids; wait) &\nwait\n";
    let agent = agent(folder.path(), scripted(folder.path(), AgentFormat::Codex, script)).expect("an agent");
    let call = tokio::spawn(async move { agent.call(request(600_000)).await });
    while !std::fs::read_to_string(folder.path().join("pids")).is_ok_and(|text| text.lines().count() == 2) {
        tokio::task::yield_now().await;
    }
    call.abort();
    gone(folder.path()).await;
}

/// Ends when no process of the list is alive.
async fn gone(folder: &Path) {
    let pids = std::fs::read_to_string(folder.join("pids")).expect("pids");
    let alive = |pid: &str| {
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z'))
    };
    let wait = async {
        while pids.lines().any(alive) {
            tokio::task::yield_now().await;
        }
    };
    // Slow on purpose: the system ends processes in its own time.
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("every process has ended");
}

#[tokio::test]
async fn what_a_program_cannot_be_told_is_refused_before_it_starts() {
    let folder = tempfile::tempdir().expect("a folder");
    let agent = agent(folder.path(), scripted(folder.path(), AgentFormat::Codex, "touch started")).expect("an agent");
    let mut tools = request(1_000);
    tools.tools = vec![ToolDefinition { name: "t".into(), description: "".into(), parameters: Value::Null }];
    let mut params = request(1_000);
    params.params = Value::object([("temperature", Value::Int(1))]);
    let mut option = request(1_000);
    option.model = "--dangerously-skip-permissions".into();
    let mut files = request(1_000);
    files.files = vec![windlass_core::file::File::new("x.png", b"abc")];
    for refused in [tools, params, option, files] {
        let result = agent.call(refused).await;
        assert_eq!(failed(&result), (Code::ProviderInvalidRequest, Retry::Never, Spent::Unsent));
    }
    assert!(!folder.path().join("started").exists());
    let mut gone = scripted(folder.path(), AgentFormat::Codex, "");
    gone.command = Some(vec!["/no/such/agent".to_owned()]);
    let result = agent_of(folder.path(), gone).call(request(1_000)).await;
    assert_eq!(failed(&result), (Code::ProviderUnreachable, Retry::Never, Spent::Unsent));
}

fn agent_of(folder: &Path, config: CliAgentConfig) -> Arc<dyn Model> {
    agent(folder, config).expect("an agent")
}

#[tokio::test]
async fn a_budget_is_told_reserved_and_bounds_the_environment() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = r#"
cat > /dev/null
[ "$2" = 1.250000 ] || exit 9
echo "{\"content\":\"a key of ${#AGENT_KEY} bytes\",\"usage\":{}}"
echo "$AGENT_KEY" >&2
"#;
    let mut config = scripted(folder.path(), AgentFormat::Json, script);
    config.command.as_mut().expect("a command").push("{budget_usd}".to_owned());
    let refused = agent(folder.path(), config.clone()).map(|_| ()).expect_err("no budget");
    assert!(refused.contains("budget_micros"), "{refused}");
    (config.budget_micros, config.tokens_max) = (Some(1_250_000), Some(9_000));
    config.secret_env = Some(BTreeMap::from([(
        "AGENT_KEY".to_owned(),
        serde_json::from_value(serde_json::json!("env:AGENT_KEY")).expect("a reference"),
    )]));
    let agent = agent_of(folder.path(), config);
    let settings: ModelSettings =
        serde_json::from_value(serde_json::json!({ "provider": "coder", "model": "m", "timeout_ms": 1 }))
            .expect("settings");
    let beyond = agent.quote(&settings).expect("a quote").beyond;
    assert_eq!((beyond.cost_micros, beyond.tokens), (1_250_000, 9_000));
    let reply = agent.call(request(20_000)).await.outcome.expect("an answer");
    assert_eq!(&*reply.content, "a key of 15 bytes");
    let none = CliAgentConfig { format: AgentFormat::Json, ..CliAgentConfig::default() };
    let refused = agent_result(folder.path(), none);
    assert!(refused.contains("`command` is missing"), "{refused}");
}

fn agent_result(folder: &Path, config: CliAgentConfig) -> String {
    agent(folder, config).map(|_| ()).expect_err("refused")
}
