//! Every bug that was put in is found within a thousand seeds.

use windlass_sim::{Bug, Options};

use crate::kit::{first_violation, simulation, tell};

/// Looks for a bug with the machines in turn, and says which seed found it. The rules are those that may find it.
fn is_found(bug: Bug, machine: &str, rules: &[&str]) {
    let options = Options { bug: Some(bug), meddles: false, ..Options::default() };
    let simulation = simulation(machine, options);
    let (seed, outcome) =
        first_violation(machine, &simulation, 1_000).unwrap_or_else(|| panic!("{bug} was not found with `{machine}`"));
    let first = &outcome.violations[0];
    assert!(outcome.violations.iter().any(|found| rules.contains(&&*found.rule)), "{bug}: {first}");
    tell(&format!("{bug}: found with `{machine}` by seed {seed}: {first}"));
}

#[test]
fn a_missing_fence_is_found() {
    is_found(Bug::NoFence, "loop", &["fence", "effect", "legal_path", "acknowledged"]);
}

#[test]
fn a_decision_that_is_written_twice_is_found() {
    is_found(Bug::DoubleSettle, "loop", &["legal_path"]);
}

#[test]
fn an_acknowledgement_of_nothing_is_found() {
    is_found(Bug::DroppedAcknowledgement, "loop", &["acknowledged", "liveness"]);
}

#[test]
fn a_lost_inbox_row_is_found() {
    is_found(Bug::LostInboxRow, "gates", &["liveness"]);
}

#[test]
fn a_wakeup_lost_at_parking_is_found() {
    is_found(Bug::LostWakeup, "gates", &["liveness"]);
}

#[test]
fn a_take_over_of_a_living_worker_is_found() {
    is_found(Bug::EarlyTakeOver, "loop", &["lease", "effect"]);
}

#[test]
fn a_claim_that_nobody_is_told_of_again_is_found() {
    is_found(Bug::ForgottenClaim, "loop", &["liveness", "attention"]);
}
