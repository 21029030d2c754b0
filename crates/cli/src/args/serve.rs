//! `windlass serve`, `worker` and `workers`: a process of a fleet. Parsing only.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// The part that a process of a fleet has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// All of the following
    All,
    /// Serves HTTP, starts the runs of schedules and takes back what lost workers held; drives no run
    Server,
    /// Drives runs
    Worker,
    /// Takes back what lost workers held
    Reaper,
}

impl Role {
    /// Whether it drives runs.
    #[must_use]
    pub(crate) fn works(self) -> bool {
        matches!(self, Self::All | Self::Worker)
    }

    /// Whether it listens without being told an address.
    #[must_use]
    pub(crate) fn listens(self) -> bool {
        matches!(self, Self::All | Self::Server)
    }

    /// Whether it starts the runs of schedules.
    #[must_use]
    pub(crate) fn schedules(self) -> bool {
        matches!(self, Self::All | Self::Server)
    }

    /// The word.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Server => "server",
            Self::Worker => "worker",
            Self::Reaper => "reaper",
        }
    }
}

/// Serve.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass serve
  windlass serve --role server --listen 127.0.0.1:8377
  windlass serve --store sqlite:/var/lib/windlass/windlass.db --pool gpu

Drives every run of the store until it is told to stop. The first SIGTERM, SIGINT
or SIGHUP lets calls finish within `worker.grace`, gives the runs back and exits with 0; the
second exits at once.
`/healthz`, `/readyz` and `/metrics` answer on the address that is printed, and so do calls of
tools below `/v1` where `[auth.issuers]` says whose tokens are taken (docs/calls.md).")]
pub(crate) struct Serve {
    /// The part that this process has
    #[arg(long, value_name = "ROLE", default_value = "all")]
    pub role: Role,
    /// How it works.
    #[command(flatten)]
    pub place: Placed,
}

/// Where a process of a fleet listens and what it works for.
#[derive(Debug, Args)]
pub(crate) struct Placed {
    /// The address for health checks, metrics and calls; port 0 takes a free one [default: `serve.listen` of the configuration]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Only drive runs of this pool; may be repeated [default: `worker.pools` of the configuration, else every pool]
    #[arg(long, value_name = "NAME")]
    pub pool: Vec<String>,
    /// Append what this process asks of the store to FILE, one JSON object a line, for `windlass chaos`
    #[arg(long, value_name = "FILE", hide = true)]
    pub history: Option<PathBuf>,
    /// The name of this process in that file
    #[arg(long, value_name = "NAME", hide = true, requires = "history", default_value = "worker")]
    pub history_name: String,
}

/// Drive runs.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass worker
  windlass worker --pool gpu --pool default --listen 127.0.0.1:8378

The same as `windlass serve --role worker`, which listens only where it is told to. Start as many
as there is work for, on one store.")]
pub(crate) struct Worker {
    /// How it works.
    #[command(flatten)]
    pub place: Placed,
}

/// List workers.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass workers
  windlass workers --all
  windlass workers --json | jq '.workers | length'")]
pub(crate) struct Workers {
    /// Also those that are gone and hold nothing
    #[arg(long)]
    pub all: bool,
}
