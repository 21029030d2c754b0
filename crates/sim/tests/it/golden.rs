//! The machines of the golden path under every fault: 200 seeds, spread over them.

use windlass_sim::Options;

use crate::kit::{GOLDEN, account, simulation, tell};

/// Seeds in all, unless `WINDLASS_SIM_SEEDS` says otherwise.
const SEEDS: u64 = 200;

fn seeds() -> u64 {
    let wanted = std::env::var("WINDLASS_SIM_SEEDS").ok().and_then(|text| text.parse().ok());
    wanted.unwrap_or(SEEDS).div_ceil(GOLDEN.len() as u64)
}

fn clean(name: &str) {
    let begun = std::time::Instant::now();
    let simulation = simulation(name, Options::default());
    let from = std::env::var("WINDLASS_SIM_FROM").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let (mut faults, mut effects, mut virtual_ms) = (0, 0, 0);
    for seed in from..from + seeds() {
        let outcome = simulation.play(seed).unwrap_or_else(|error| panic!("`{name}` seed {seed}: {error}"));
        assert!(outcome.violations.is_empty(), "{}", account(name, &outcome));
        faults += outcome.faults.values().sum::<u64>();
        effects += outcome.effects;
        virtual_ms += outcome.virtual_ms;
    }
    let (seeds, hours) = (seeds(), virtual_ms / 3_600_000);
    assert!(faults > seeds, "hardly any fault struck: {faults}");
    tell(&format!(
        "`{name}`: {seeds} seeds clean in {:?}: {faults} faults, {effects} calls, {hours} h",
        begun.elapsed()
    ));
}

#[test]
fn a_tool_loop_is_sound() {
    clean("loop");
}

#[test]
fn children_and_launches_are_sound() {
    clean("family");
}

#[test]
fn waits_for_signals_are_sound() {
    clean("gates");
}

#[test]
fn timers_are_sound() {
    clean("timers");
}

#[test]
fn samples_and_actions_are_sound() {
    clean("samples");
}

#[test]
fn a_month_passes() {
    let faults = "crash,duplicate,reorder,delay".parse().expect("known");
    let begun = std::time::Instant::now();
    let simulation = simulation("month", Options { faults, meddles: false, ..Options::default() });
    assert!(simulation.usual_ms() >= 30 * 86_400_000);
    tell(&format!("`month`: undisturbed in {:?}", begun.elapsed()));
    let begun = std::time::Instant::now();
    let outcome = simulation.play(1).expect("played");
    assert!(outcome.violations.is_empty(), "{}", account("month", &outcome));
    let days = outcome.virtual_ms / 86_400_000;
    assert!(days >= 30, "{days}");
    tell(&format!("`month`: {days} days in {:?}", begun.elapsed()));
}
