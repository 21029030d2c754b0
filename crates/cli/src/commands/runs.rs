//! `windlass runs`: lists runs, shows one, and steers them. One file for each group of subcommands.

mod choices;
mod edit;
mod fork;
mod hashes;
mod list;
mod model;
mod steer;
mod show;
mod stuck;
mod tree;
mod watch;

pub(crate) use choices::choices;
pub(crate) use fork::fork;
pub(crate) use list::{head, list, prune};
pub(crate) use model::model;
pub(crate) use show::{journal, replayed, show};
pub(super) use steer::pass_on;
pub(crate) use steer::{cancel, pause, raise, requeue, retry, signal, skip, unpause};
pub(crate) use stuck::stuck;
pub(crate) use tree::tree;
pub(crate) use watch::watch;
