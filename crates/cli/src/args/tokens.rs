//! `windlass tokens`: tokens for calls over HTTP. Parsing only.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::config::Span;

/// Make, look at and revoke tokens for calls over HTTP.
#[derive(Debug, Subcommand)]
pub(crate) enum Tokens {
    /// Make a short-lived token with the key of `[auth.signing]`
    Issue(TokensIssue),
    /// Tell what a token says, and whether it would be taken here
    Show(TokensShow),
    /// Refuse a token, a user or a key from here on
    Revoke(TokensRevoke),
    /// Take a revocation back
    Restore(TokensRestore),
    /// List what is revoked
    #[command(after_help = "Examples:
  windlass tokens revoked
  windlass tokens revoked --json | jq '.revoked[].name'")]
    Revoked,
}

/// Make a token.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass tokens issue --tenant acme --user ann --tool search --plain
  windlass tokens issue --tenant acme --user ann --tool 'crm__*' --lifetime 1m --json | jq -r .token

The token is a secret for as long as it lasts: it is printed once and kept nowhere. What was
made, and for whom, is in the audit trail.")]
pub(crate) struct TokensIssue {
    /// The tenant that it speaks for
    #[arg(long, value_name = "TENANT")]
    pub tenant: String,
    /// The user that it speaks for
    #[arg(long, value_name = "USER")]
    pub user: String,
    /// A tool that may be called; `BEGINNING*` for all whose names begin so, `*` for all; may be repeated
    #[arg(long, value_name = "NAME", required = true)]
    pub tool: Vec<String>,
    /// For how long it is of use
    #[arg(long, value_name = "TIME", default_value = "5m")]
    pub lifetime: Span,
}

/// Look at a token.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pbpaste | windlass tokens show
  windlass tokens show --file token.txt --json | jq -r .token_id

Exits with 5 when the token would not be taken. The token is never an argument: those are seen by
other processes.")]
pub(crate) struct TokensShow {
    /// Read the token from this file; without this from stdin
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// What can be revoked.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Revocable {
    /// A token, by its id (`jti`)
    Token,
    /// A user: all of its tokens
    User,
    /// A key, by its id (`kid`): all tokens that were signed with it
    Key,
}

impl Revocable {
    /// The word.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::User => "user",
            Self::Key => "key",
        }
    }
}

/// What is revoked or taken back, by whom and why.
#[derive(Debug, Args)]
pub(crate) struct Revocation {
    /// What it is
    #[arg(value_name = "WHAT")]
    pub what: Revocable,
    /// Its id or name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Your name, as it is remembered [default: the variable `WINDLASS_ACTOR`, else the user of the operating system]
    #[arg(long, value_name = "NAME", default_value_t = super::actor(), hide_default_value = true)]
    pub by: String,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}

/// Revoke something.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass tokens revoke token 5f0c2d6e --by ops --reason 'in a log'
  windlass tokens revoke user ann --by ops --reason 'left' --for 1h
  windlass tokens revoke key 2026-10 --by ops --reason 'stolen laptop'

Every process of the store refuses it from its next request on.")]
pub(crate) struct TokensRevoke {
    /// What it is, who does it and why
    #[command(flatten)]
    pub about: Revocation,
    /// For how long; without this for good, and a token for a day, after which none is of use
    #[arg(long = "for", value_name = "TIME")]
    pub span: Option<Span>,
}

/// Take a revocation back.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass tokens restore user ann --by ops --reason 'is back'")]
pub(crate) struct TokensRestore {
    /// What it is, who does it and why
    #[command(flatten)]
    pub about: Revocation,
}
