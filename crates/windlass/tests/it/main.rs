//! Integration tests of the whole engine: real processes, real files, a world that counts what is done to it.

mod adversary;
mod blast;
mod labelled;
mod late;
mod chains;
mod crew;
mod files;
mod nested_approvals;
mod outward;
mod quota;
mod rates;
mod policy;
mod proof;
mod secrets;
mod workers;
