//! Real SIGKILLs at random moments, until enough of them have landed while an effect was in flight.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::cuts::{Lost, answer_waits, compare, finish, in_flight};
use super::machine::TOOLS;
use super::place::Place;
use super::worker::{End, spawn, wait};
use super::world::World;

/// Kills that must land while an effect is in flight.
const LANDED_MIN: u64 = 100;
/// Kills at most in one run, so that every run also ends, and that no call is lost so often that it fails.
const KILLS_PER_RUN: u32 = windlass_core::limits::LOSSES_MAX - 1;
/// How long every answer of the world takes, in milliseconds.
const DELAY_MS: u64 = 25;
/// The longest that a worker lives before it is killed, in milliseconds: at first, and at most. It grows with every kill
/// that found nothing in flight, because a busy machine, or a store across a connection, takes longer to begin.
const LIFE_MS: (u64, u64) = (250, 3_000);
/// By how much it grows, and shrinks again.
const LIFE_STEP_MS: u64 = 50;
/// How long answers take of the kind that was hit least so far: kills are spread over all kinds whatever the machine
/// is busy with.
const LINGER_MS: u64 = 150;

/// A small generator whose seed is printed, so that a failure can be looked at again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "the count and the seed are part of the proof")]
fn kills_at_random_moments_change_nothing_that_was_promised() {
    let seed = std::env::var("WINDLASS_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0x5eed_1234_abcd_ef01);
    println!("seed {seed}");
    let mut random = Random(seed);
    let world = World::start();
    let calm = Place::new(&world);
    let expected = finish(calm.path(), &world);

    let mut landed: BTreeMap<String, u64> = BTreeMap::new();
    let (mut runs, mut life_ms) = (0, LIFE_MS.0);
    world.delay(DELAY_MS);
    let kinds = || TOOLS.into_iter().chain(["model"]);
    while landed.values().sum::<u64>() < LANDED_MIN || kinds().any(|kind| !landed.contains_key(kind)) {
        runs += 1;
        let least = kinds().min_by_key(|kind| landed.get(*kind).copied().unwrap_or(0)).expect("kinds");
        world.linger(least, LINGER_MS);
        assert!(runs < 200, "too few kills land: {landed:?}");
        let folder = Place::new(&world);
        let (lost, times) = kill_a_run(folder.path(), &world, &mut random, &mut life_ms);
        let trace = finish(folder.path(), &world);
        compare(&expected, &trace, &lost, &format!("run {runs}, seed {seed}, lost {lost:?}"));
        for (kind, times) in times {
            *landed.entry(kind).or_default() += times;
        }
    }
    println!("{runs} runs, kills that landed with an effect in flight: {landed:?}");
}

/// Kills workers of one run at random moments. Gives what was lost in all, and how many kills landed on what.
fn kill_a_run(folder: &Path, world: &World, random: &mut Random, life_ms: &mut u64) -> (Lost, BTreeMap<String, u64>) {
    let (mut lost, mut landed) = (Lost::default(), BTreeMap::new());
    for _ in 0..KILLS_PER_RUN {
        let mut child = spawn(folder, None);
        if !ends_within(&mut child, Duration::from_millis(30 + random.below(*life_ms))) {
            child.kill().expect("killed");
        }
        if matches!(wait(folder, child), End::Killed) {
            let now = in_flight(folder, world);
            let tool = now.tools.values().next().cloned();
            let word = tool.or_else(|| (!now.models.is_empty()).then(|| "model".to_owned()));
            *life_ms = match word {
                Some(_) => life_ms.saturating_sub(LIFE_STEP_MS).max(LIFE_MS.0),
                None => (*life_ms + LIFE_STEP_MS).min(LIFE_MS.1),
            };
            if let Some(word) = word {
                *landed.entry(word).or_default() += 1;
            }
            lost.models.extend(now.models);
            lost.tools.extend(now.tools);
        }
        if answer_waits(folder, world) {
            break;
        }
    }
    (lost, landed)
}

/// Whether the process ended by itself within the time.
fn ends_within(child: &mut std::process::Child, time: Duration) -> bool {
    let (send, receive) = std::sync::mpsc::channel::<()>();
    // Nothing is ever sent: the receiver's timeout is the clock.
    let _ = receive.recv_timeout(time);
    drop(send);
    child.try_wait().expect("a status").is_some()
}
