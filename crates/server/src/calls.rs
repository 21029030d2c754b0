//! Calls of tools from outside: who asks, whether that is allowed, and a durable run for each call.
//!
//! A call is the run of a machine that calls this tool and nothing else, so that its contract, schema, rules, budgets, rates,
//! approvals, switches, audit rows and journal are those of every run. Tenant and user come from the token alone.

mod answer;
mod body;
mod commits;
mod gate;
mod guard;
mod metadata;
mod problem;
mod record;
mod route;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use windlass_core::budget::Ceilings;
use windlass_core::contract::Contract;
use windlass_core::ids::{Digest, Name, RunId};
use windlass_core::label::{Label, LabelSet};
use windlass_core::machine::Program;
use windlass_core::policy::{Answer, Question, Verdict};
use windlass_core::run::TenantScope;
use windlass_core::value::Value;
use windlass_ports::compile::Bundle;
use windlass_ports::policy::Asker;
use windlass_runtime::{Engine, Stop};

use crate::auth::{Authority, Caller};
use crate::metrics::Metrics;
use gate::Gate;
use record::Records;

pub use body::BODY_BYTES_MAX;
pub use commits::Commits;
pub use gate::{CALLS_MAX, TENANT_CALLS_MAX};
pub(crate) use guard::guard;
pub use guard::{OPEN, hosts_of};
pub use metadata::METADATA;
pub(crate) use route::routes;
pub use route::{ROUTES, Route};

/// The tag of a run that is a call from outside: its tool.
pub const TAG_TOOL: &str = "windlass.call";
/// The tag that says for whom.
const TAG_USER: &str = "windlass.call.user";

/// A tool that can be called from outside.
#[derive(Clone, Debug)]
pub struct Callable {
    /// What it promises.
    pub contract: Contract,
    /// The machine that calls it.
    pub bundle: Bundle,
    /// The same compiled.
    pub program: Arc<Program>,
}

/// Who may call what.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    /// Whose tokens are taken.
    pub authority: Authority,
    /// Tools by name.
    pub tools: BTreeMap<Name, Callable>,
    /// Ceilings of each run.
    pub ceilings: Ceilings,
    /// Names of this server, as `Host` has them, without a port. Any when empty.
    pub hosts: Vec<String>,
    /// How callers reach it: scheme and host, without a slash at the end. By what a request says when none is given.
    pub url: Option<String>,
    /// What the engine is observed by.
    pub commits: Arc<Commits>,
}

/// The calls of a process: what is served, and what is remembered meanwhile.
#[derive(Debug)]
pub struct Api {
    engine: Engine,
    /// Whose tokens are taken. The keys of issuers change while the process runs.
    authority: ArcSwap<Authority>,
    tools: BTreeMap<Name, Callable>,
    ceilings: Ceilings,
    hosts: Vec<String>,
    url: Option<String>,
    commits: Arc<Commits>,
    metrics: Arc<Metrics>,
    stop: Stop,
    gate: Gate,
    records: Records,
}

impl Api {
    /// Serves these calls with this engine until it is told to stop.
    #[must_use]
    pub fn new(engine: Engine, metrics: Arc<Metrics>, calls: Calls, stop: Stop) -> Arc<Self> {
        let Calls { authority, tools, ceilings, hosts, url, commits } = calls;
        let authority = ArcSwap::from_pointee(authority);
        let (gate, records) = (Gate::default(), Records::default());
        Arc::new(Self { engine, authority, tools, ceilings, hosts, url, commits, metrics, stop, gate, records })
    }

    /// Takes the tokens of these issuers from the next request on, and no others.
    pub fn trust(&self, authority: Authority) {
        self.authority.store(Arc::new(authority));
    }

    /// What the rules say to a call of a tool for this caller, before there is a run of it. None where there are no rules.
    /// Whatever a caller sends is untrusted. By `run` it is decided whether a candidate of the rules is asked. Without
    /// `arguments` it is answered as to a call that has none.
    fn verdict(&self, caller: &Caller, tool: &Callable, run: &RunId, arguments: Option<&Value>) -> Option<Verdict> {
        let policy = &self.engine.parts().policy;
        let machine = tool.program.machines.get(&tool.program.entry)?;
        let labels = LabelSet::from_iter([Label::Untrusted]);
        let name = tool.contract.name.clone();
        let given = arguments.filter(|_| policy.reads_arguments()).map(|value| (value.digest(), value.clone()));
        let given: BTreeMap<Digest, Value> = given.into_iter().collect();
        let arguments = match given.keys().next() {
            Some(hash) => *hash,
            // Any that a caller may send: a hash that nobody knows the arguments of.
            None if policy.reads_arguments() => Digest::of(b"windlass.arguments.any"),
            None => Digest::ZERO,
        };
        let question = Question::CallTool { tool: name, arguments, agent: None, labels };
        let scope = scope(caller);
        let asker = Asker { root: run, scope: &scope, machine, kept: None, arguments: &given };
        let verdict = policy.answer(&asker, std::slice::from_ref(&question)).pop();
        match verdict {
            Some(verdict) => Some(verdict),
            None if policy.allow_unasked() => None,
            None => Some(Verdict {
                question,
                answer: Answer::Deny,
                rule: "none".into(),
                reason: "no rule was asked, so it is denied".into(),
                version: "".into(),
                origins: Vec::new(),
                asking: None,
                trust: None,
                choice: None,
                other: None,
            }),
        }
    }
}

/// Whose a run for this caller is.
fn scope(caller: &Caller) -> TenantScope {
    TenantScope { tenant: caller.tenant.clone(), user: Some(caller.user.clone()) }
}
