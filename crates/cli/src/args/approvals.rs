//! `windlass approvals`: what runs ask people, and the answers. Parsing only.

use clap::{Args, Subcommand};
use windlass_core::budget::{CALL_METERS, Meter};

/// List and answer what runs ask people.
#[derive(Debug, Subcommand)]
pub(crate) enum Approvals {
    /// List the questions that are open, oldest run first
    List(ApprovalsList),
    /// Show one question: the call, its arguments, who asks and why
    Show(ApprovalsShow),
    /// Let a call leave
    Approve(ApprovalsApprove),
    /// Do not let a call leave; the model reads why
    Reject(ApprovalsReject),
}

/// List questions.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass approvals list
  windlass approvals list --run order-4711
  windlass approvals list --json | jq -r '.approvals[].id'")]
pub(crate) struct ApprovalsList {
    /// Only those of this run and everything below it
    #[arg(long, value_name = "RUN")]
    pub run: Option<String>,
    /// Only those of this tenant
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Runs to look at per page
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
    /// Continue after a page: its `next`
    #[arg(long, value_name = "CURSOR")]
    pub cursor: Option<String>,
}

/// Show one question.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass approvals show 'order-4711#12'
  windlass approvals show 'order-4711#12' --json | jq .arguments")]
pub(crate) struct ApprovalsShow {
    /// The question: its `id` in the list
    #[arg(value_name = "ID")]
    pub id: String,
}

/// Let a call leave.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass approvals approve 'order-4711#12' --reason 'within the budget'
  windlass approvals approve 'order-4711#12' --shown 5f0c…
  windlass approvals approve 'order-4711#12' --arguments '{\"amount\": 40}'
  windlass approvals approve 'order-4711#12' --raise model_calls=20 --raise cost_micros=500000

An answer counts once, for exactly what is shown. With --shown it is refused unless that is
still what the run asks; without, what it asks now is what you agree to.")]
pub(crate) struct ApprovalsApprove {
    /// The question: its `id` in the list
    #[arg(value_name = "ID")]
    pub id: String,
    /// Who answers
    #[command(flatten)]
    pub who: Who,
    /// Other arguments for the tool: JSON, or @FILE, or - for standard input. They have to fit its schema and the policy
    #[arg(long, value_name = "JSON")]
    pub arguments: Option<String>,
    /// By how much a ceiling of the run rises, where that is the question: `model_calls`, `tool_calls`, `tokens` or
    /// `cost_micros`, and a number. Default: by what this one call lacks
    #[arg(long, value_name = "METER=N", value_parser = raise)]
    pub raise: Vec<(Meter, u64)>,
}

fn raise(text: &str) -> Result<(Meter, u64), String> {
    let (word, number) = text.split_once('=').ok_or("it looks like `model_calls=20`")?;
    let meter = CALL_METERS.into_iter().find(|meter| meter.as_str() == word);
    let meter = meter.ok_or("only `model_calls`, `tool_calls`, `tokens` and `cost_micros` can be raised")?;
    match number.parse() {
        Ok(number) if number > 0 => Ok((meter, number)),
        Ok(_) | Err(_) => Err(format!("`{number}` is no number from 1")),
    }
}

/// Do not let a call leave.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass approvals reject 'order-4711#12' --reason 'not without an invoice'")]
pub(crate) struct ApprovalsReject {
    /// The question: its `id` in the list
    #[arg(value_name = "ID")]
    pub id: String,
    /// Who answers
    #[command(flatten)]
    pub who: Who,
}

/// Who answers, why, and to what.
#[derive(Debug, Args)]
pub(crate) struct Who {
    /// Your name, as it stands in the journal and in the audit rows [default: the variable `WINDLASS_ACTOR`, else the user of the operating system]
    #[arg(long, value_name = "NAME", default_value_t = super::actor(), hide_default_value = true, value_parser = super::named)]
    pub by: String,
    /// Why; the model reads it when you reject
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
    /// The hash of what you were shown
    #[arg(long, value_name = "HASH")]
    pub shown: Option<String>,
}
