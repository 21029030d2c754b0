//! `windlass audit`: who did what with which effect. Parsing only.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::config::Span;

/// List, check and export the audit trail.
#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// List audit rows of runs: whose they are, and two for each call, before and after
    List(AuditList),
    /// List what people did to runs, rules and the store
    Acts(AuditActs),
    /// Check that rows and seals are those that were written
    Verify(AuditVerify),
    /// Seal what is not sealed yet, where nothing runs that does
    Seal(AuditSeal),
    /// Remove the oldest part of the trail, so that the rest still verifies
    Prune(AuditPrune),
    /// Write rows, seals and proofs to a file that can be checked anywhere
    Export(AuditExport),
}

/// What rows of runs and calls are about.
const STAGES: [&str; 16] = [
    "started",
    "denied",
    "allowed",
    "intended",
    "shadowed",
    "asked",
    "escalated",
    "approved",
    "rejected",
    "expired",
    "doubted",
    "resolved",
    "failed",
    "settled",
    "abandoned",
    "overridden",
];

/// List audit rows of calls.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass audit list
  windlass audit list --run order-4711
  windlass audit list --tool refund --class danger --since 24h
  windlass audit list --stage denied --since 7d
  windlass audit list --resource customer_id=cus-4711
  windlass audit list --actor anna --json | jq -r '.rows[].run'

Newest runs first, the rows of a run in order. Arguments and results are hashes. The rows of
runs that were removed stay, and come last.")]
pub(crate) struct AuditList {
    /// Only rows of this run
    #[arg(long, value_name = "RUN")]
    pub run: Option<String>,
    /// Only rows of this tenant
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Only calls of this tool, action, hook or agent
    #[arg(long, value_name = "NAME")]
    pub tool: Option<String>,
    /// Only calls of this class: `read`, `write` or `danger`
    #[arg(long, value_name = "CLASS", value_parser = ["read", "write", "danger"])]
    pub class: Option<String>,
    /// Only rows of this stage: `denied`, `intended`, `settled`, `approved`, ...
    #[arg(long, value_name = "STAGE", value_parser = STAGES)]
    pub stage: Option<String>,
    /// Only what this rule allowed, asked about or denied
    #[arg(long, value_name = "RULE")]
    pub rule: Option<String>,
    /// Only what touches this, as a contract's `resources` name it: an id, or ARGUMENT=ID
    #[arg(long, value_name = "ID|ARGUMENT=ID")]
    pub resource: Option<String>,
    /// Only rows of runs for this user, and answers of this person
    #[arg(long, value_name = "NAME")]
    pub actor: Option<String>,
    /// Only rows written at or after this time, or since this long ago
    #[arg(long, value_name = "TIME|DURATION")]
    pub since: Option<String>,
    /// Rows per page
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
    /// Continue after a page: its `next`
    #[arg(long, value_name = "CURSOR")]
    pub cursor: Option<String>,
}

/// List what people did.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass audit acts
  windlass audit acts --actor anna --since 7d
  windlass audit acts --tenant acme --action tenant.erase --json")]
pub(crate) struct AuditActs {
    /// Of this tenant
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub tenant: String,
    /// Only what this person did
    #[arg(long, value_name = "NAME")]
    pub actor: Option<String>,
    /// Only this action
    #[arg(long, value_name = "NAME")]
    pub action: Option<String>,
    /// Only what was done at or after this time, or since this long ago
    #[arg(long, value_name = "TIME|DURATION")]
    pub since: Option<String>,
    /// Acts per page
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
    /// Continue after a page: its `next`
    #[arg(long, value_name = "N")]
    pub cursor: Option<u64>,
}

/// Check the audit trail.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass audit verify
  windlass audit verify --run order-4711
  windlass audit verify --tenant acme --anchor 'acme:812:5f0c…'
  windlass audit verify trail.jsonl --public-key auditor.pem

Checks that the rows of each run are a chain, that the ends of chains are what was sealed, and
that segments follow one another; says what is sealed and what is the tail that no seal covers
yet. Finds an edit, a delete, a reorder and a cut, and a tail that is older than a minute: what
runs seal within a second, and what a killed process left is sealed by the next one or by
`windlass audit seal`. That whole segments were cut off the end shows
only against one that was noted elsewhere: `--anchor` takes what an earlier check printed.
Exits with 3 when something is wrong.")]
pub(crate) struct AuditVerify {
    /// An export to check instead of the store
    #[arg(value_name = "FILE", conflicts_with_all = ["run", "tenant"])]
    pub file: Option<PathBuf>,
    /// Only this run
    #[arg(long, value_name = "RUN")]
    pub run: Option<String>,
    /// Only this tenant
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// A segment that was noted earlier; may be repeated
    #[arg(long, value_name = "TENANT:NUMBER:HASH")]
    pub anchor: Vec<String>,
    /// The export has to be signed with this ed25519 key (PEM)
    #[arg(long, value_name = "FILE", requires = "file")]
    pub public_key: Option<PathBuf>,
}

/// Seal what is not sealed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass audit seal

Whoever works on runs seals what was written within a second. This is for a store on which nothing
works any more, after a process was killed.")]
pub(crate) struct AuditSeal {}

/// Remove the oldest part of the audit trail.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass audit prune --older 400d --dry-run
  windlass audit prune --older 400d
  windlass audit prune --older 400d --tenant acme

Removes what was written longer ago than this: rows of runs that were removed, acts, and seals. Rows of
runs that are there stay with them: `windlass runs prune` comes first. What stays is sealed once more
where only a removed seal covered it, and the act `audit.prune` says how far was removed, which
`windlass audit verify` tells. Nothing younger than `[audit] keep` is removed, and nothing that is not
sealed. Export what is to be kept elsewhere before.")]
pub(crate) struct AuditPrune {
    /// Written longer ago than this
    #[arg(long, value_name = "DURATION")]
    pub older: Span,
    /// Only of this tenant
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Say what would be removed and remove nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Export the audit trail.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass audit export --tenant acme --out trail.jsonl --sign auditor-key.pem
  windlass audit export --run order-4711 --out order-4711.jsonl
  openssl genpkey -algorithm ed25519 -out auditor-key.pem
  openssl pkey -in auditor-key.pem -pubout -out auditor.pem

One JSON document per line: seals, proofs, rows, and at the end a hash over all of it, with a
signature when a key is given. `windlass audit verify FILE` checks it without the store.")]
pub(crate) struct AuditExport {
    /// Everything of this tenant
    #[arg(long, value_name = "NAME", default_value = "default", conflicts_with = "run")]
    pub tenant: String,
    /// Only this run, with the proofs that it was sealed
    #[arg(long, value_name = "RUN")]
    pub run: Option<String>,
    /// The file to write; it must not be there
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Sign with this ed25519 key (PKCS#8, PEM)
    #[arg(long, value_name = "FILE")]
    pub sign: Option<PathBuf>,
}
