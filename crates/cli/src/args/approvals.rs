//! `windlass approvals`: what runs ask people, and the answers. Parsing only.

use clap::{Args, Subcommand};

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
    /// Your name, as it stands in the journal and in the audit rows
    #[arg(long, value_name = "NAME", env = "USER", hide_env_values = true)]
    pub by: String,
    /// Why; the model reads it when you reject
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
    /// The hash of what you were shown
    #[arg(long, value_name = "HASH")]
    pub shown: Option<String>,
}
