//! Real SIGKILLs at random moments, until enough of them have landed while an effect was in flight.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use windlass_core::ids::RunId;

use super::cuts::{answer_waits, block_on, compare, finish};
use super::lost::{Known, Lost, in_flight};
use super::machine::TOOLS;
use super::place::Place;
use super::worker::{End, RUN, spawn, store, wait};
use super::world::World;

/// Kills that must land while an effect is in flight.
const LANDED_MIN: u64 = 100;
/// Of those, kills that must land while an effect of each kind is.
const LANDED_MIN_OF_KIND: u64 = 5;
/// Kinds of effects beside the tools.
const KINDS: [&str; 5] = ["model", "child", "launch", "signal", "timer"];
/// Runs after which there is something wrong with the test.
const RUNS_MAX: u64 = 400;
/// Within how long of the beginning of an effect that is aimed at the worker is killed, in milliseconds.
const MOMENT_MS: u64 = 100;
/// How long an effect that is aimed at is waited for.
const AIM_MAX: Duration = Duration::from_secs(10);
/// Runs between two lines about how far it is.
const PROGRESS_EVERY: u64 = 10;
/// How long the machine's timer runs, in milliseconds.
const PAUSE_MS: u64 = 150;
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
    let calm = Place::with_pause(&world, PAUSE_MS);
    let expected = finish(calm.path(), &world);

    let mut landed: BTreeMap<&str, u64> = TOOLS.into_iter().chain(KINDS).map(|kind| (kind, 0)).collect();
    let (mut runs, mut kills, mut life_ms) = (0, 0, LIFE_MS.0);
    world.delay(DELAY_MS);
    while kills < LANDED_MIN || landed.values().any(|times| *times < LANDED_MIN_OF_KIND) {
        runs += 1;
        let aim = rarest(&landed);
        // What waits for a signal is only seen while the launched run keeps the worker busy.
        world.linger(if aim == "signal" { "launch" } else { aim }, LINGER_MS);
        assert!(runs < RUNS_MAX, "too few kills land: {landed:?}");
        let folder = Place::with_pause(&world, PAUSE_MS);
        let (lost, met) = kill_a_run(folder.path(), &world, aim, &mut random, &mut life_ms);
        let trace = finish(folder.path(), &world);
        compare(&expected, &trace, &lost, &format!("run {runs}, seed {seed}, lost {lost:?}"));
        kills += met.len() as u64;
        for kind in met.iter().flatten() {
            *landed.entry(kind).or_default() += 1;
        }
        if runs % PROGRESS_EVERY == 0 {
            println!("{runs} runs, {kills} kills: {landed:?}");
        }
    }
    println!("{runs} runs, {kills} kills that landed with an effect in flight, by its kind: {landed:?}");
}

/// The kind that was hit least so far.
fn rarest<'a>(landed: &BTreeMap<&'a str, u64>) -> &'a str {
    landed.iter().min_by_key(|(_, times)| **times).map_or("", |(kind, _)| kind)
}

/// Waits until an effect of a kind is in flight, the worker has ended, or time is over.
fn await_kind(folder: &Path, world: &World, aim: &str, before: u64, child: &mut std::process::Child) {
    let state = match aim {
        "signal" => Some("gate"),
        "timer" => Some("pause"),
        _ => None,
    };
    block_on(async {
        let store = store(folder).await;
        let began = std::time::Instant::now();
        while began.elapsed() < AIM_MAX && child.try_wait().expect("a status").is_none() {
            let is_there = match state {
                Some(state) => {
                    let stored = store.load(RunId::stored(RUN)).await.expect("read");
                    stored.is_some_and(|stored| stored.head.state.as_deref() == Some(state))
                }
                None => world.arrivals(aim) > before,
            };
            if is_there {
                return;
            }
            // Slow on purpose: another process has to get there.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
}

/// Kills workers of one run at random moments: one of them while an effect of the kind that is aimed at is in flight, the
/// others whenever. Gives what was lost in all, and for each kill that met something in flight
/// what that was.
fn kill_a_run(
    folder: &Path,
    world: &World,
    aim: &str,
    random: &mut Random,
    life_ms: &mut u64,
) -> (Lost, Vec<BTreeSet<&'static str>>) {
    let (mut lost, mut met) = (Lost::default(), Vec::<BTreeSet<&'static str>>::new());
    let mut known = Known::default();
    for _ in 0..KILLS_PER_RUN {
        let before = world.arrivals(aim);
        let mut child = spawn(folder, None);
        let moment = if met.iter().any(|kinds| kinds.contains(aim)) {
            30 + random.below(*life_ms)
        } else {
            await_kind(folder, world, aim, before, &mut child);
            random.below(MOMENT_MS)
        };
        if !ends_within(&mut child, Duration::from_millis(moment)) {
            child.kill().expect("killed");
        }
        if matches!(wait(folder, child), End::Killed) {
            let now = in_flight(folder, world, &mut known);
            *life_ms = if now.kinds.is_empty() {
                (*life_ms + LIFE_STEP_MS).min(LIFE_MS.1)
            } else {
                life_ms.saturating_sub(LIFE_STEP_MS).max(LIFE_MS.0)
            };
            met.extend((!now.kinds.is_empty()).then(|| now.kinds.clone()));
            lost.extend(now);
        }
        if answer_waits(folder, world) {
            break;
        }
    }
    (lost, met)
}

/// Whether the process ended by itself within the time.
fn ends_within(child: &mut std::process::Child, time: Duration) -> bool {
    let (send, receive) = std::sync::mpsc::channel::<()>();
    // Nothing is ever sent: the receiver's timeout is the clock.
    let _ = receive.recv_timeout(time);
    drop(send);
    child.try_wait().expect("a status").is_some()
}
