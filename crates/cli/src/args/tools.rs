//! `windlass tools`: what machines can call, and what of MCP servers is accepted. Parsing only.

use clap::{Args, Subcommand};

use crate::config::Span;

/// Look at tools, and accept those of MCP servers.
#[derive(Debug, Subcommand)]
pub(crate) enum Tools {
    /// List the configured tools and actions
    List(ToolsList),
    /// Show the contract of a tool or an action
    Show(ToolsShow),
    /// Compare what MCP servers show with what was accepted
    Diff(ToolsDiff),
    /// Accept what an MCP server shows
    Accept(ToolsAccept),
    /// Show which tools of MCP servers are blocked, and why
    Blocked(ToolsBlocked),
    /// Let a blocked tool run again, as it was accepted
    Release(ToolsRelease),
    /// Show what the ramps of tools have used of their budgets, and which have stopped
    Ramps(ToolsRamps),
    /// Let the calls of a tool be made again whose ramp has stopped
    Resume(ToolsResume),
}

/// List the configured tools and actions.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass tools list
  windlass tools list --json | jq '.tools[] | select(.class == \"danger\") | .name'

Connects to nothing: a tool of an MCP server is listed as it was accepted.")]
pub(crate) struct ToolsList {}

/// Show the contract of a tool or an action.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass tools show refund
  windlass tools show github__create_issue --json | jq .input_schema

Connects to nothing: a tool of an MCP server is shown as it was accepted.")]
pub(crate) struct ToolsShow {
    /// Its name, as machines use it
    #[arg(value_name = "TOOL")]
    pub tool: String,
}

/// Compare what MCP servers show with what was accepted.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass tools diff
  windlass tools diff github
  windlass tools diff --json | jq '.servers[].tools[] | select(.standing == \"changed\")'

Connects to the servers and calls no tool. Text of servers is shown with hidden characters
made visible. Exits with 3 when anything is not as it was accepted, or is blocked.")]
pub(crate) struct ToolsDiff {
    /// Only this server
    #[arg(value_name = "SERVER")]
    pub server: Option<String>,
    /// How long a server may take
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    pub timeout: Span,
}

/// Accept what an MCP server shows.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass tools accept github
  windlass tools accept github create_issue list_issues
  git diff windlass.pins.json

Writes the definitions into `windlass.pins.json` beside `windlass.toml`, whole, with their
hashes. Without names, new and changed tools are accepted and tools that are gone are
dropped, but for those that show signs of steering the model or of hiding text, and those
that are blocked as they are shown: they have to be named. Workers take up the file when
they start.")]
pub(crate) struct ToolsAccept {
    /// The server
    #[arg(value_name = "SERVER")]
    pub server: String,
    /// Only these tools, by their names on the server
    #[arg(value_name = "TOOL")]
    pub tools: Vec<String>,
    /// How long the server may take
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    pub timeout: Span,
}

/// Show which tools of MCP servers are blocked.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass tools blocked
  windlass tools blocked github
  windlass tools blocked --json | jq '.blocked[] | {server, tool, since}'

A tool is blocked in every process of the store as soon as one of them saw its server show
another definition than the accepted one, also when the server shows the accepted one again.
With SERVER the places that differed are shown. Connects to nothing. Exits with 3 when
anything is blocked.")]
pub(crate) struct ToolsBlocked {
    /// Only this server
    #[arg(value_name = "SERVER")]
    pub server: Option<String>,
    /// Only this tool, by its name on the server
    #[arg(value_name = "TOOL")]
    pub tool: Option<String>,
}

/// Let a blocked tool run again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass tools blocked github
  windlass tools release github create_issue --reason 'a release that was rolled back'

The tool runs as it was accepted, within a second in every process of the store. While its
server still shows another definition, the next call blocks it again: `windlass tools accept`
is for that.")]
pub(crate) struct ToolsRelease {
    /// The server
    #[arg(value_name = "SERVER")]
    pub server: String,
    /// The tool, by its name on the server
    #[arg(value_name = "TOOL")]
    pub tool: String,
    /// Your name, as it is remembered [default: the variable `WINDLASS_ACTOR`, else the user of the operating system]
    #[arg(long, value_name = "NAME", default_value_t = super::actor(), hide_default_value = true, value_parser = super::named)]
    pub by: String,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}

/// Show what ramps have used of their budgets.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass tools ramps
  windlass tools ramps --json | jq '.ramps[] | select(.stopped) | .tool'

A tool with `ramp_percent` and `ramp_budget` is listed, and every other one whose ramp has
stopped. Counts are of all processes of the store, since the ramp began or was resumed.
Connects to nothing. Exits with 3 when a ramp has stopped.")]
pub(crate) struct ToolsRamps {}

/// Let the calls of a tool be made again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass tools ramps
  windlass tools resume refund --reason 'their outage is over'

What was used of the budget begins at nothing again. Every process of the store follows
within a second: the runs that `ramp_percent` lets in make the calls.")]
pub(crate) struct ToolsResume {
    /// Its name, as machines use it
    #[arg(value_name = "TOOL")]
    pub tool: String,
    /// Your name, as it is remembered [default: the variable `WINDLASS_ACTOR`, else the user of the operating system]
    #[arg(long, value_name = "NAME", default_value_t = super::actor(), hide_default_value = true, value_parser = super::named)]
    pub by: String,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}
