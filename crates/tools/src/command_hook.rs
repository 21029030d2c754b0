//! A command as a hook: a process for each event. It reads the event as one line of JSON and answers with one JSON
//! document, or with nothing, which changes nothing. A process that lives for one event has no state to lose in a crash.

use std::sync::Arc;

use futures::FutureExt;
use windlass_core::failure::{Code, Failure};
use windlass_core::machine::HookKind;
use windlass_core::trace::carried_in_environment;
use windlass_core::value::Value;
use windlass_ports::BoxFuture;
use windlass_ports::tool::{Hook, HookEvent};

use crate::answer;
use crate::build::{Site, hook_bounds, hook_events};
use crate::command::{self, Table};
use crate::config::HookConfig;
use crate::kind::{Kind, Make};
use crate::process::Program;
use crate::role::Caller;

/// `command` for hooks.
pub(crate) const KIND: Kind = Kind {
    name: "command",
    summary: "A process for each event: the event as a line of JSON on standard input, the answer on standard output.",
    keys: &[
        "events",
        "include_machine",
        "timeout_ms",
        "output_bytes_max",
        "command",
        "dir",
        "pass_env",
        "env",
        "secret_env",
    ],
    make: Make::Hook(make),
};

fn make(site: &mut Site<'_>, table: &HookConfig) -> Option<Arc<dyn Hook>> {
    let program = command::program(site, &Table::from(table), None, false)?;
    let (timeout_ms, bytes_max) = hook_bounds(table);
    let include_machine = table.include_machine.unwrap_or(false);
    Some(Arc::new(CommandHook { program, events: hook_events(table), include_machine, timeout_ms, bytes_max }))
}

#[derive(Debug)]
struct CommandHook {
    program: Program,
    events: Vec<HookKind>,
    include_machine: bool,
    timeout_ms: u64,
    bytes_max: u64,
}

impl Hook for CommandHook {
    fn events(&self) -> &[HookKind] {
        &self.events
    }

    fn include_machine(&self) -> bool {
        self.include_machine
    }

    fn call(&self, event: HookEvent) -> BoxFuture<'_, Result<Value, Failure>> {
        async move {
            let caller = Caller::hook(&event.hook, event.kind);
            let timeout_ms = event.timeout_ms.min(self.timeout_ms);
            let bytes_max = event.output_bytes_max.min(self.bytes_max);
            let run = event.body.get("run_id").and_then(Value::as_str).unwrap_or_default();
            let trace = carried_in_environment(&event.idempotency_key, event.trace.as_ref());
            let mut env = vec![
                ("WINDLASS_IDEMPOTENCY_KEY", event.idempotency_key.as_str()),
                ("WINDLASS_RUN_ID", run),
                ("WINDLASS_EVENT", event.kind.as_str()),
            ];
            env.extend(trace.iter().map(|(name, value)| (*name, value.as_str())));
            let ended = self.program.run(&env, command::line(&event.body), timeout_ms, bytes_max).await;
            let ended = ended.map_err(|trouble| command::failure(&caller, trouble, timeout_ms, bytes_max))?;
            if !ended.status.success() {
                return Err(command::exit_failure(&caller, &ended));
            }
            let body = answer::json_of(&ended.stdout).map_err(|why| {
                let message = format!("the answer of `{}` cannot be read: {why}", event.hook);
                Failure::new(Code::HookBadAnswer, message)
            })?;
            answer::hook_answer(&caller, event.kind, body)
        }
        .boxed()
    }
}
