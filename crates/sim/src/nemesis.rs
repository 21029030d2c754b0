//! Whoever makes things go wrong from outside: kills workers, stops them for longer than their lease, turns clocks.

use std::sync::Arc;

use crate::faults::Fault;
use crate::process::Stage;

/// Strikes of one seed at most.
const STRIKES_MAX: u32 = 40;

/// Strikes now and then until the world is healed.
pub(crate) async fn strike(stage: Arc<Stage>, usual_ms: u64) {
    let world = &stage.world;
    let kinds: Vec<Fault> =
        [Fault::Crash, Fault::Zombie, Fault::ClockJump].into_iter().filter(|fault| world.may(*fault)).collect();
    if kinds.is_empty() {
        return;
    }
    for _ in 0..STRIKES_MAX {
        let most = (usual_ms / 2).max(4_000) as f64;
        // Short pauses are as likely as long ones.
        let pause = world.draw(|rng| most.powf(rng.f64()));
        world.sleep(pause as u64).await;
        if world.is_healed() {
            return;
        }
        let (kind, worker) = world.draw(|rng| (kinds[rng.usize(..kinds.len())], rng.usize(..)));
        let workers = stage.workers.lock().unwrap_or_else(std::sync::PoisonError::into_inner).len();
        let process = stage.standing(worker % workers);
        if world.is_doomed(process) {
            continue;
        }
        world.landed(kind);
        match kind {
            Fault::Crash => {
                world.note_fault(Some(process), "crash");
                world.doom(process);
            }
            Fault::Zombie => {
                let ms = world.draw(|rng| rng.u64(world.lease_ms / 2..world.lease_ms * 3));
                world.note_fault(Some(process), &format!("stands still for {ms} ms"));
                world.pause(process, ms);
            }
            _ => jump(&stage, process),
        }
    }
}

/// A clock that never goes back within one process: so only the store's does.
fn jump(stage: &Stage, process: usize) {
    let world = &stage.world;
    let (of_store, ms) = world.draw(|rng| (rng.bool(), rng.i64(-3_600_000..=3_600_000)));
    if of_store {
        world.note_fault(None, &format!("the store's clock is {ms} ms ahead"));
        world.jump_store(ms);
    } else {
        let ms = ms.abs();
        world.note_fault(Some(process), &format!("its clock jumps by {ms} ms"));
        world.jump(process, ms);
    }
}
