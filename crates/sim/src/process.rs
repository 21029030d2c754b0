//! The life of a simulated worker: the real engine until it dies, and then the next one in its place.

use std::sync::Arc;

use windlass_models::Models;
use windlass_ports::clock::Clock;
use windlass_ports::policy::AllowAll;
use windlass_runtime::{Engine, Failpoint, Parts, Scope, Settings, Silent, Stop};

use crate::bug::Bug;
use crate::clock::ProcessClock;
use crate::faults::Fault;
use crate::outside::Way;
use crate::setup::Setup;
use crate::store::SimStore;
use crate::world::World;

/// What every process of a simulation is made of.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) world: Arc<World>,
    pub(crate) setup: Setup,
    pub(crate) models: Option<Arc<Models>>,
    pub(crate) bug: Option<Bug>,
    pub(crate) settings: Settings,
    /// The process that stands for each worker now.
    pub(crate) workers: std::sync::Mutex<Vec<usize>>,
}

impl Stage {
    pub(crate) fn store(&self, process: usize) -> SimStore {
        SimStore::new(&self.world, process, self.bug)
    }

    /// The engine of a process.
    pub(crate) fn engine(&self, process: usize) -> Engine {
        let way = Way { world: Arc::clone(&self.world), process };
        let clock = ProcessClock { world: Arc::clone(&self.world), process };
        let world = Arc::clone(&self.world);
        let failpoint = Failpoint::new(move |point| {
            if !world.is_doomed(process) && world.strikes(Fault::Crash) {
                world.note_fault(Some(process), &format!("crash at {point:?}"));
                world.doom(process);
            }
        });
        Engine::new(Parts {
            store: Arc::new(self.store(process)),
            compiler: self.setup.compiler(),
            model: Arc::new(self.setup.model(way.clone(), self.models.clone())),
            catalog: Arc::new(self.setup.catalog(&way)),
            policy: Arc::new(AllowAll),
            clock: Arc::new(clock) as Arc<dyn Clock>,
            observer: Arc::new(Silent),
            settings: Settings {
                failpoint: Some(failpoint),
                reap_ms: self.world.lease_ms / 5,
                ..self.settings.clone()
            },
        })
    }

    fn stand(&self, worker: usize, process: usize) {
        let mut workers = self.workers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        workers[worker] = process;
    }

    /// The process that stands for a worker now.
    pub(crate) fn standing(&self, worker: usize) -> usize {
        self.workers.lock().unwrap_or_else(std::sync::PoisonError::into_inner)[worker]
    }
}

/// One worker after another, for as long as the simulation lasts.
pub(crate) async fn live(stage: Arc<Stage>, worker: usize) {
    let world = Arc::clone(&stage.world);
    for life in 1_u64.. {
        let process = world.spawn(&format!("worker-{worker}.{life}"));
        stage.stand(worker, process);
        {
            let engine = stage.engine(process);
            let stop = Stop::new();
            tokio::select! {
                biased;
                () = world.doomed(process) => {}
                _ended = engine.drive(Scope::All, stop) => {}
            }
        }
        // Whatever of it is still on its way reaches nobody.
        world.doom(process);
        world.died(process);
        let pause = if world.is_healed() { 100 } else { world.draw(|rng| rng.u64(0..3_000)) };
        world.sleep(pause).await;
    }
}
