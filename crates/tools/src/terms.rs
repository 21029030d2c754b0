//! What the tables of tools, of actions and of tools of MCP servers say alike: approvals, plans, shadows and errors.
//!
//! Owns their checks and what a contract gets of them. Which tables there are, and what they call, is read elsewhere.

use windlass_core::approval::{ESCALATIONS_MAX, EXPIRES_MS_DEFAULT, EXPIRES_MS_MAX, Escalation, Terms};
use windlass_core::contract::{
    Class, Idempotency, OF_CALLS_MAX, PLAN_ID, PLAN_MS_DEFAULT, PLAN_MS_MAX, PlanStep, Planning, RampBudget, Shadow,
};
use windlass_core::ids::Name;
use windlass_core::value::Value;

use crate::build::{Site, paths};
use crate::config::{ApprovalConfig, PlanConfig, RampBudgetConfig, ToolConfig};
use crate::mcp::ContractConfig;
use crate::role::Role;
use crate::touched;

/// Names of errors in a contract.
const ERRORS_MAX: usize = 64;
/// Bytes of such a name.
const ERROR_BYTES_MAX: usize = 128;
/// The latest calls of which a ramp lets some fail, where nobody says otherwise.
const OF_CALLS_DEFAULT: u32 = 100;

/// What a table says of the calls of its tool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said<'a> {
    role: Role,
    class: Option<Class>,
    idempotency: Option<Idempotency>,
    approval: Option<ApprovalConfig>,
    approval_expires_ms: Option<u64>,
    escalate_to: Option<&'a [String]>,
    escalate_after_ms: Option<u64>,
    plan: Option<&'a PlanConfig>,
    plan_expires_ms: Option<u64>,
    shadow: Option<bool>,
    shadow_answer: Option<&'a serde_json::Value>,
    ramp_percent: Option<u32>,
    ramp_budget: Option<&'a RampBudgetConfig>,
    errors: Option<&'a [String]>,
    resources: Option<&'a [String]>,
}

/// What a table says: those of tools and of servers' tools have the same keys for it, and are of different types.
macro_rules! said {
    ($table:expr, $role:expr) => {
        Self {
            role: $role,
            class: $table.class,
            idempotency: $table.idempotency,
            approval: $table.approval,
            approval_expires_ms: $table.approval_expires_ms,
            escalate_to: $table.approval_escalate_to.as_deref(),
            escalate_after_ms: $table.approval_escalate_after_ms,
            plan: $table.plan.as_ref(),
            plan_expires_ms: $table.plan_expires_ms,
            shadow: $table.shadow,
            shadow_answer: $table.shadow_answer.as_ref(),
            ramp_percent: $table.ramp_percent,
            ramp_budget: $table.ramp_budget.as_ref(),
            errors: $table.errors.as_deref(),
            resources: $table.resources.as_deref(),
        }
    };
}

impl<'a> Said<'a> {
    /// By the table of a tool or an action.
    pub(crate) fn by(table: &'a ToolConfig, role: Role) -> Self {
        said!(table, role)
    }

    /// By the table of a tool of a server.
    pub(crate) fn by_mcp(table: &'a ContractConfig) -> Self {
        said!(table, Role::Tool)
    }

    /// Says what of it cannot be used, wherever the table stands.
    pub(crate) fn check(&self, site: &mut Site<'_>) {
        if self.approval_expires_ms.is_some_and(|ms| ms == 0 || ms > EXPIRES_MS_MAX) {
            let message = format!("an approval is waited for from 1 to {EXPIRES_MS_MAX} milliseconds");
            site.wrong("approval_expires_ms", message, None);
        }
        self.check_escalation(site);
        self.check_plan(site);
        self.check_shadow(site);
        let bad = |name: &&String| name.trim().is_empty() || name.len() > ERROR_BYTES_MAX;
        if self.errors.is_some_and(|names| names.len() > ERRORS_MAX || names.iter().any(|name| bad(&name))) {
            let message = format!("names at most {ERRORS_MAX} errors of 1 to {ERROR_BYTES_MAX} bytes each");
            site.wrong("errors", message, None);
        }
    }

    /// Says what a configuration for production misses: a class, whether a repeat is harmless, what a tool does and takes.
    pub(crate) fn check_declared(&self, site: &mut Site<'_>, describes: bool, has_schema: bool) {
        for (key, is_given) in [("class", self.class.is_some()), ("idempotency", self.idempotency.is_some())] {
            if !is_given {
                let hint = "say what it does to the world and whether a repeat is harmless";
                site.wrong(key, "this configuration takes no tool without a contract", Some(hint));
            }
        }
        // What an action takes is the same for all of them, and no model chooses one.
        if self.role == Role::Tool && !describes {
            let hint = "say what it does, as a model and whoever approves its calls read it";
            site.wrong("description", "this configuration takes no tool without a description", Some(hint));
        }
        if self.role == Role::Tool && !has_schema {
            let hint = "give the JSON Schema of its arguments; `{ type = \"object\" }` takes any";
            site.wrong(
                "input_schema",
                "this configuration takes no tool without a schema of its arguments",
                Some(hint),
            );
        }
    }

    /// Says where nothing stands between a model and what cannot be undone.
    pub(crate) fn check_guarded(&self, site: &mut Site<'_>) {
        let is_guarded = self.plan.is_some() || self.approval == Some(ApprovalConfig::Always);
        if self.class != Some(Class::Danger) || is_guarded {
            return;
        }
        let (key, hint) = match self.role {
            Role::Tool => (
                "plan",
                "give it `plan = { argument = \"dry_run\" }` or `plan = { tool = \"TOOL\" }`, so that a call without a \
                 `plan_id` changes nothing, or `approval = \"always\"`",
            ),
            Role::Hook => ("approval", "give it `approval = \"always\"`; an action has no plan"),
        };
        let message = "this configuration takes no tool of class `danger` that does what cannot be undone at once";
        site.wrong(key, message, Some(hint));
    }

    /// An escalation names somebody, and comes before the question expires.
    fn check_escalation(&self, site: &mut Site<'_>) {
        let expires_ms = self.approval_expires_ms.unwrap_or(EXPIRES_MS_DEFAULT);
        match (self.escalate_to, self.escalate_after_ms) {
            (None, None) => {}
            (Some(to), Some(after_ms)) => {
                if to.is_empty() || to.len() > ESCALATIONS_MAX || to.iter().any(|one| one.trim().is_empty()) {
                    let message = format!("names 1 to {ESCALATIONS_MAX} groups or channels");
                    site.wrong("approval_escalate_to", message, None);
                }
                let names = (to.len() as u64).max(1);
                if after_ms == 0 || after_ms.saturating_mul(names) >= expires_ms {
                    let most = expires_ms.saturating_sub(1) / names;
                    let message =
                        format!("must be from 1 to {most}, so that the last is asked before the question expires");
                    site.wrong("approval_escalate_after_ms", message, None);
                }
            }
            (Some(_), None) => site.wrong("approval_escalate_to", "needs `approval_escalate_after_ms`", None),
            (None, Some(_)) => site.wrong("approval_escalate_after_ms", "needs `approval_escalate_to`", None),
        }
    }

    /// What goes by plans cannot be undone, and is called by a model, which reads the plan.
    fn check_plan(&self, site: &mut Site<'_>) {
        let Some(plan) = self.plan else {
            if self.plan_expires_ms.is_some() {
                site.wrong("plan_expires_ms", "needs `plan`", None);
            }
            return;
        };
        if self.role == Role::Hook {
            site.wrong(
                "plan",
                "an action has no plan: nobody reads it",
                Some("put a wait or an approval before the action"),
            );
        }
        if self.class != Some(Class::Danger) {
            site.wrong("plan", "only a tool of class `danger` goes by plans", None);
        }
        if self.plan_expires_ms.is_some_and(|ms| !(1..=PLAN_MS_MAX).contains(&ms)) {
            site.wrong("plan_expires_ms", format!("must be from 1 to {PLAN_MS_MAX}"), None);
        }
        if let PlanConfig::Argument(argument) = plan
            && (argument.is_empty() || argument == PLAN_ID)
        {
            site.wrong("plan", format!("`{argument}` cannot be the argument that asks for a plan"), None);
        }
    }

    /// A tool that goes by plans has the argument that names one.
    pub(crate) fn check_plan_argument(&self, site: &mut Site<'_>, key: &str, schema: Option<&serde_json::Value>) {
        let properties = schema.and_then(|schema| schema.get("properties"));
        if self.plan.is_some() && properties.and_then(|properties| properties.get(PLAN_ID)).is_some() {
            site.wrong(key, format!("the argument `{PLAN_ID}` is that of the plan"), Some("rename it"));
        }
    }

    /// What it touches is named by its arguments, as far as their schema is known.
    pub(crate) fn check_resources(&self, site: &mut Site<'_>, schema: Option<&serde_json::Value>) {
        touched::check(site, self.role, self.resources, schema);
    }

    /// The arguments that are ids, as a contract says it.
    pub(crate) fn resources(&self) -> Vec<Vec<Name>> {
        paths(self.resources)
    }

    fn check_shadow(&self, site: &mut Site<'_>) {
        let is_shadow = self.shadow == Some(true);
        if is_shadow && self.ramp_percent.is_some() {
            let hint = "`shadow` is `ramp_percent = 0`";
            site.wrong("ramp_percent", "`shadow` and `ramp_percent` exclude each other", Some(hint));
        }
        if self.ramp_percent.is_some_and(|percent| percent > 100) {
            site.wrong("ramp_percent", "must be from 0 to 100", None);
        }
        if self.shadow_answer.is_some() && !is_shadow && self.ramp_percent.is_none() {
            site.wrong("shadow_answer", "needs `shadow = true` or `ramp_percent`", None);
        }
        self.check_ramp_budget(site);
    }

    /// A budget bounds something, of calls that are made.
    fn check_ramp_budget(&self, site: &mut Site<'_>) {
        let Some(RampBudgetConfig { calls, failed_calls, of_calls }) = self.ramp_budget else { return };
        let mut wrong = |message: String| site.wrong("ramp_budget", message, None);
        if self.ramp_percent.is_none_or(|percent| percent == 0) {
            wrong("needs `ramp_percent` of at least 1".to_owned());
        }
        if calls.is_none() && failed_calls.is_none() {
            wrong("needs `calls`, `failed_calls` or both".to_owned());
        }
        if *calls == Some(0) {
            wrong("`calls` must be at least 1; `shadow = true` lets none be made".to_owned());
        }
        if of_calls.is_some_and(|of| failed_calls.is_none() || of == 0 || of > OF_CALLS_MAX) {
            wrong(format!("`of_calls` must be from 1 to {OF_CALLS_MAX}, beside `failed_calls`"));
        }
        let of_calls = of_calls.unwrap_or(OF_CALLS_DEFAULT);
        if failed_calls.is_some_and(|failed| failed >= of_calls) {
            wrong(format!("`failed_calls` must be less than `of_calls`, which is {of_calls}"));
        }
    }

    /// When a person has to agree, as a contract says it.
    pub(crate) fn approval(&self) -> Terms {
        Terms {
            always: self.approval == Some(ApprovalConfig::Always),
            expires_ms: self.approval_expires_ms.unwrap_or(EXPIRES_MS_DEFAULT),
            escalation: self
                .escalate_to
                .zip(self.escalate_after_ms)
                .map(|(to, after_ms)| Escalation { after_ms, to: to.iter().map(|one| one.as_str().into()).collect() }),
        }
    }

    /// How plans are made, as a contract says it.
    pub(crate) fn planning(&self) -> Option<Planning> {
        self.plan.map(|plan| Planning {
            step: match plan {
                PlanConfig::Tool(tool) => PlanStep::Tool(tool.as_str().into()),
                PlanConfig::Argument(argument) => PlanStep::Argument(argument.as_str().into()),
            },
            expires_ms: self.plan_expires_ms.unwrap_or(PLAN_MS_DEFAULT),
        })
    }

    /// Which runs make the calls, as a contract says it.
    pub(crate) fn shadow(&self) -> Option<Box<Shadow>> {
        let ramp_percent = if self.shadow == Some(true) { 0 } else { self.ramp_percent? };
        let stub = || Value::object([("shadow", Value::Bool(true))]);
        let answer = self.shadow_answer.map_or_else(stub, |answer| answer.clone().into());
        let budget = self.ramp_budget.map(|budget| RampBudget {
            calls: budget.calls,
            failed_calls: budget.failed_calls,
            of_calls: budget.of_calls.unwrap_or(OF_CALLS_DEFAULT),
        });
        Some(Box::new(Shadow { ramp_percent, answer, budget }))
    }

    /// The errors that it names.
    pub(crate) fn errors(&self) -> Vec<Name> {
        self.errors.unwrap_or_default().iter().map(|name| name.as_str().into()).collect()
    }
}
