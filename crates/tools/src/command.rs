//! A command as a tool or an action: arguments as JSON on standard input, the result on standard output.
//!
//! The argument array is fixed by configuration: what a model says reaches the program as data only.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::FutureExt;
use windlass_core::contract::Contract;
use windlass_core::failure::{Failure, Retry};
use windlass_core::trace::carried_in_environment;
use windlass_core::value::Value;
use windlass_ports::BoxFuture;
use windlass_ports::tool::{Invocation, Tool};

use crate::answer;
use crate::build::Site;
use crate::config::{HookConfig, SecretRef, ToolConfig};
use crate::kind::{Kind, Make};
use crate::mcp::McpConfig;
use crate::process::{Ended, EnvValue, Program, Trouble};
use crate::role::{Caller, Role};
use crate::sandbox::{self, SandboxConfig};

/// Environment variables passed on when the table names none.
pub const PASS_ENV_DEFAULT: &[&str] = &["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR"];
/// The exit code by which a command asks to be tried again (`EX_TEMPFAIL` of `sysexits.h`).
pub const EXIT_TRY_AGAIN: i64 = 75;

/// `command` for tools and actions.
pub(crate) const KIND: Kind = Kind {
    name: "command",
    summary: "A process for each call: arguments as JSON on standard input, the result on standard output.",
    keys: &["command", "dir", "pass_env", "env", "secret_env", "sandbox"],
    make: Make::Tool(make),
};

fn make(site: &mut Site<'_>, table: &ToolConfig, contract: Contract, role: Role) -> Option<Arc<dyn Tool>> {
    let program = program(site, &Table::from(table), table.sandbox.as_ref(), true)?;
    Some(Arc::new(CommandTool { caller: Caller::of(&contract, role), contract, program }))
}

#[derive(Debug)]
struct CommandTool {
    contract: Contract,
    caller: Caller,
    program: Program,
}

impl Tool for CommandTool {
    fn contract(&self) -> &Contract {
        &self.contract
    }

    fn call(&self, invocation: Invocation) -> BoxFuture<'_, Result<Value, Failure>> {
        async move {
            let timeout_ms = invocation.timeout_ms.min(self.contract.timeout_ms);
            let bytes_max = invocation.output_bytes_max.min(self.contract.output_bytes_max);
            let attempt = invocation.attempt.to_string();
            let trace = carried_in_environment(&invocation.idempotency_key, invocation.trace.as_ref());
            let mut env = vec![
                ("WINDLASS_IDEMPOTENCY_KEY", invocation.idempotency_key.as_str()),
                ("WINDLASS_RUN_ID", invocation.run.as_str()),
                ("WINDLASS_ATTEMPT", attempt.as_str()),
                ("WINDLASS_TOOL", &*invocation.name),
            ];
            env.extend(trace.iter().map(|(name, value)| (*name, value.as_str())));
            let input = line(&invocation.arguments);
            let ended = self.program.run(&env, input, timeout_ms, bytes_max).await;
            let ended = ended.map_err(|trouble| failure(&self.caller, trouble, timeout_ms, bytes_max))?;
            if !ended.status.success() {
                return Err(exit_failure(&self.caller, &ended));
            }
            answer::value_of(&ended.stdout).map_err(|why| {
                self.caller.failed(format!("the answer of `{}` cannot be read: {why}", self.caller.name))
            })
        }
        .boxed()
    }
}

/// A value as one line of JSON.
pub(crate) fn line(value: &Value) -> Vec<u8> {
    let mut bytes = value.to_json().into_bytes();
    bytes.push(b'\n');
    bytes
}

/// The failure of a process without a result.
pub(crate) fn failure(caller: &Caller, trouble: Trouble, timeout_ms: u64, bytes_max: u64) -> Failure {
    match trouble {
        Trouble::NotStarted(error) => {
            let lasting = matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::InvalidInput
            );
            let failure = caller.unreachable(format!("its program or its working directory cannot be used: {error}"));
            if lasting { failure.retry(Retry::Never) } else { failure }
        }
        Trouble::TimedOut => caller.timed_out(timeout_ms),
        Trouble::TooLarge => caller.too_large(bytes_max),
        Trouble::Broken(error) => {
            caller.failed(format!("the pipes of `{}` broke: {error}", caller.name)).retry(caller.in_doubt())
        }
    }
}

/// The failure of a process that ended badly: by a code of its own, which is an answer, or by a signal, which leaves open
/// how far it came.
pub(crate) fn exit_failure(caller: &Caller, ended: &Ended) -> Failure {
    let code = ended.code();
    let how = if code < 0 { format!("was ended by signal {}", -code) } else { format!("ended with exit code {code}") };
    let named = answer::json_of(&ended.stdout).ok().as_ref().and_then(answer::named_error);
    let failure = match named {
        Some(named) => answer::failure_of(caller, named),
        None if ended.stderr.is_empty() => caller.failed(format!("`{}` {how}", caller.name)),
        None => caller.failed(format!("`{}` {how}: {}", caller.name, ended.stderr)),
    };
    let retry = match code {
        EXIT_TRY_AGAIN => Retry::Backoff,
        i64::MIN..=-1 => caller.in_doubt(),
        _ => Retry::Never,
    };
    failure.status(code).retry(retry)
}

/// The keys of a command, from either kind of table.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    pub(crate) command: Option<&'a [String]>,
    pub(crate) dir: Option<&'a str>,
    pub(crate) pass_env: Option<&'a [String]>,
    pub(crate) env: Vec<(&'a str, &'a str)>,
    pub(crate) secret_env: Vec<(&'a str, &'a SecretRef)>,
}

impl<'a> From<&'a ToolConfig> for Table<'a> {
    fn from(table: &'a ToolConfig) -> Self {
        Self {
            command: table.command.as_deref(),
            dir: table.dir.as_deref(),
            pass_env: table.pass_env.as_deref(),
            env: table.env.iter().flatten().map(|(k, v)| (k.as_str(), v.as_str())).collect(),
            secret_env: table.secret_env.iter().flatten().map(|(k, v)| (k.as_str(), v)).collect(),
        }
    }
}

impl<'a> From<&'a HookConfig> for Table<'a> {
    fn from(table: &'a HookConfig) -> Self {
        Self {
            command: table.command.as_deref(),
            dir: table.dir.as_deref(),
            pass_env: table.pass_env.as_deref(),
            env: table.env.iter().flatten().map(|(k, v)| (k.as_str(), v.as_str())).collect(),
            secret_env: table.secret_env.iter().flatten().map(|(k, v)| (k.as_str(), v)).collect(),
        }
    }
}

impl<'a> From<&'a McpConfig> for Table<'a> {
    fn from(table: &'a McpConfig) -> Self {
        Self {
            command: table.command.as_deref(),
            dir: table.dir.as_deref(),
            pass_env: table.pass_env.as_deref(),
            env: table.env.iter().flatten().map(|(k, v)| (k.as_str(), v.as_str())).collect(),
            secret_env: table.secret_env.iter().flatten().map(|(k, v)| (k.as_str(), v)).collect(),
        }
    }
}

/// The program of a table, within the bounds of a sandbox; `written` tells bounds that someone wrote from defaults.
pub(crate) fn program(
    site: &mut Site<'_>,
    table: &Table<'_>,
    sandbox: Option<&SandboxConfig>,
    written: bool,
) -> Option<Program> {
    let folder = absolute(site.folder());
    let dir = folder.join(table.dir.unwrap_or_default());
    let env = environment(site, table);
    let mut argv = site.need("command", table.command)?.to_vec();
    if argv.iter().any(|part| part.contains('\0')) {
        site.wrong("command", "an argument cannot hold U+0000", None);
    }
    let Some(first) = argv.first_mut().filter(|first| !first.is_empty()) else {
        site.wrong("command", "names no program", None);
        return None;
    };
    if first.contains('/') && Path::new(first).is_relative() {
        *first = folder.join(&*first).to_string_lossy().into_owned();
    }
    let prefix = sandbox.map(|sandbox| sandbox::prefix(site, sandbox, &dir, written)).unwrap_or_default();
    Some(Program { argv, prefix, dir, env })
}

/// A folder in the form in which a process can be started in it: the empty path, which means the working directory,
/// cannot be entered, and a relative program would be looked for from there.
fn absolute(folder: &Path) -> PathBuf {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned())
}

fn environment(site: &mut Site<'_>, table: &Table<'_>) -> Vec<(String, EnvValue)> {
    let mut env = Vec::new();
    let defaults = || PASS_ENV_DEFAULT.iter().map(|name| (*name).to_owned()).collect();
    for name in table.pass_env.map_or_else(defaults, <[String]>::to_vec) {
        env_name(site, "pass_env", &name);
        if let Some(value) = site.environment(&name) {
            env.push((name, EnvValue::Plain(value)));
        }
    }
    for (name, value) in &table.env {
        env_name(site, "env", name);
        if value.contains('\0') {
            site.wrong("env", format!("the value of `{name}` cannot hold U+0000"), None);
        }
        env.push(((*name).to_owned(), EnvValue::Plain(value.into())));
    }
    for (name, reference) in &table.secret_env {
        env_name(site, "secret_env", name);
        if let Some(secret) = site.secret(&format!("secret_env.{name}"), reference) {
            env.push(((*name).to_owned(), EnvValue::Secret(secret)));
        }
    }
    env
}

fn env_name(site: &mut Site<'_>, key: &str, name: &str) {
    if name.is_empty() || name.contains(['=', '\0']) {
        site.wrong(key, format!("`{}` is no name of an environment variable", answer::printable(name)), None);
    }
    if name.starts_with("WINDLASS_") {
        site.wrong(key, format!("`{name}` is set by the engine"), None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_started_in_an_absolute_folder() {
        let here = std::env::current_dir().expect("a working directory");
        assert_eq!(absolute(Path::new("")), here);
        assert_eq!(absolute(Path::new("tools")), here.join("tools"));
        assert_eq!(absolute(Path::new("/srv")), Path::new("/srv"));
    }
}
