//! The places of the fleet: who works in each, and the faults that are done to them. A place is never left empty for
//! longer than its fault lasts.

use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::sync::{Mutex, MutexGuard};

use crate::effects::Effects;
use crate::member::{Member, Place};
use crate::plan::Fault;
use crate::proxy::{Armed, Cut, Proxy};

/// How long a worker that was told to end may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Exit codes of a worker that was cut off at the end of its grace, and of one that finds no store.
const INTERRUPTED: i32 = 130;
const UNREACHABLE: i32 = 6;
/// What the transactions mention whose connections are cut: those that write decisions.
const DECISIONS: &str = "INTO journal";

/// Makes the command of a worker process.
#[derive(Clone)]
pub struct Spawn(Arc<dyn Fn(&Place) -> Command + Send + Sync>);

impl Spawn {
    /// Makes commands with a function.
    pub fn new(make: impl Fn(&Place) -> Command + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }
}

impl fmt::Debug for Spawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spawn")
    }
}

/// What is the same for every worker.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) spawn: Spawn,
    pub(crate) folder: PathBuf,
    pub(crate) effects: Effects,
    /// The configuration of a worker whose calls go to an address.
    pub(crate) configuration: Configuration,
}

/// Makes the text of a worker's configuration from the address that its calls go to.
pub(crate) struct Configuration(pub(crate) Box<dyn Fn(&str) -> String + Send + Sync>);

impl fmt::Debug for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Configuration")
    }
}

/// A process that ended by itself.
#[derive(Clone, Debug)]
pub(crate) struct Death {
    pub(crate) worker: String,
    pub(crate) how: String,
    pub(crate) log: String,
}

/// One place and who works in it.
#[derive(Debug)]
struct Slot {
    member: Option<Member>,
    /// Processes that worked here so far.
    started: u32,
}

/// When a worker was stopped and woken, on the clock of histories.
#[derive(Clone, Debug)]
pub(crate) struct Sleep {
    pub(crate) worker: String,
    pub(crate) woken_at: u64,
}

/// All places.
#[derive(Debug)]
pub(crate) struct Fleet {
    ground: Ground,
    slots: Vec<Mutex<Slot>>,
    urls: Vec<String>,
    pub(crate) proxies: Vec<Proxy>,
    deaths: std::sync::Mutex<Vec<Death>>,
    sleeps: std::sync::Mutex<Vec<Sleep>>,
}

fn locked<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Fleet {
    /// A fleet with one place for each address of the store.
    pub(crate) fn new(ground: Ground, urls: Vec<String>, proxies: Vec<Proxy>) -> Self {
        let slots = urls.iter().map(|_| Mutex::new(Slot { member: None, started: 0 })).collect();
        let (deaths, sleeps) = Default::default();
        Self { ground, slots, urls, proxies, deaths, sleeps }
    }

    /// The truth outside of the workers.
    pub(crate) fn effects(&self) -> &Effects {
        &self.ground.effects
    }

    /// Where configurations, histories and logs are.
    pub(crate) fn folder(&self) -> &std::path::Path {
        &self.ground.folder
    }

    /// Starts a worker in every place.
    pub(crate) async fn start(&self) -> io::Result<()> {
        for place in 0..self.slots.len() {
            let mut slot = self.slots[place].lock().await;
            self.fill(place, &mut slot)?;
        }
        Ok(())
    }

    fn fill(&self, place: usize, slot: &mut MutexGuard<'_, Slot>) -> io::Result<()> {
        let name = format!("{}.{}", place + 1, slot.started);
        slot.started += 1;
        let file = |kind: &str| self.ground.folder.join(format!("worker-{name}.{kind}"));
        let (config, history) = (file("toml"), file("jsonl"));
        std::fs::write(&config, (self.ground.configuration.0)(&self.ground.effects.base(&name)))?;
        let place = Place { name, config, store_url: self.urls[place].clone(), history };
        slot.member = Some(Member::start(&place, (self.ground.spawn.0)(&place))?);
        Ok(())
    }

    /// Does what a fault says. True when it met work: a request of the worker was in flight, or the cut waits for a
    /// commit and will say itself whether it landed. Returns when the fault has been done; what it does later, such as
    /// waking a stopped worker, is done by then too.
    pub(crate) async fn strike(&self, fault: Fault) -> io::Result<bool> {
        match fault {
            Fault::Kill { place } => self.kill(place).await,
            Fault::Stop { place, for_ms } => self.stop(place, Duration::from_millis(for_ms)).await,
            Fault::Restart { place } => self.restart(place).await,
            Fault::Cut { place, cut } => Ok(self.cut(place, cut)),
            Fault::Partition { place, for_ms } => match self.proxies.get(place) {
                Some(proxy) => Ok(proxy.partition(Duration::from_millis(for_ms)).await > 0),
                None => Ok(false),
            },
            Fault::Database => Ok(false),
        }
    }

    /// Whether a worker has requests that are not answered.
    fn is_busy(&self, slot: &Slot) -> bool {
        slot.member.as_ref().is_some_and(|member| self.ground.effects.in_flight(&member.name) > 0)
    }

    async fn kill(&self, place: usize) -> io::Result<bool> {
        let mut slot = self.slots[place].lock().await;
        let is_busy = self.is_busy(&slot);
        if let Some(member) = &mut slot.member {
            self.notice(member);
            member.kill().await?;
        }
        self.fill(place, &mut slot)?;
        Ok(is_busy)
    }

    async fn stop(&self, place: usize, time: Duration) -> io::Result<bool> {
        let (name, is_busy) = {
            let mut slot = self.slots[place].lock().await;
            let is_busy = self.is_busy(&slot);
            let Some(member) = &mut slot.member else { return Ok(false) };
            if member.is_stopped || !member.signal(Signal::SIGSTOP) {
                return Ok(false);
            }
            (member.name.clone(), is_busy)
        };
        tokio::time::sleep(time).await;
        let mut slot = self.slots[place].lock().await;
        // It may have been killed meanwhile.
        if let Some(member) = slot.member.as_mut().filter(|member| member.name == name && member.is_stopped) {
            self.wake(member);
        }
        Ok(is_busy)
    }

    fn wake(&self, member: &mut Member) {
        locked(&self.sleeps).push(Sleep { worker: member.name.clone(), woken_at: crate::record::now_ms() });
        member.signal(Signal::SIGCONT);
    }

    async fn restart(&self, place: usize) -> io::Result<bool> {
        let mut slot = self.slots[place].lock().await;
        let is_busy = self.is_busy(&slot);
        if let Some(member) = &mut slot.member {
            self.end(member).await;
        }
        self.fill(place, &mut slot)?;
        Ok(is_busy)
    }

    async fn end(&self, member: &mut Member) {
        self.notice(member);
        if member.is_stopped {
            self.wake(member);
        }
        let how = match member.end(PATIENCE).await {
            Some(status) if matches!(status.code(), Some(0 | INTERRUPTED | UNREACHABLE)) => return,
            // It was told before it listened.
            Some(status) if status.signal() == Some(Signal::SIGTERM as i32) => return,
            Some(status) => format!("ended with {status} when it was told to end"),
            None => "did not end when it was told to".to_owned(),
        };
        locked(&self.deaths).push(Death { worker: member.name.clone(), how, log: member.tail() });
    }

    fn cut(&self, place: usize, cut: Cut) -> bool {
        let Some(proxy) = self.proxies.get(place) else { return false };
        proxy.arm(Armed { cut, mentions: DECISIONS.to_owned() });
        true
    }

    /// Takes note of a process that has ended by itself. One that finds no store when it starts may.
    fn notice(&self, member: &mut Member) {
        if let Some(status) = member.ended().filter(|status| status.code() != Some(UNREACHABLE)) {
            let death = Death { worker: member.name.clone(), how: format!("ended with {status}"), log: member.tail() };
            locked(&self.deaths).push(death);
        }
    }

    /// Ends all faults: everybody is awake and every place has somebody.
    pub(crate) async fn heal(&self) -> io::Result<()> {
        for proxy in &self.proxies {
            proxy.heal();
        }
        for slot in &self.slots {
            if let Some(member) = slot.lock().await.member.as_mut().filter(|member| member.is_stopped) {
                self.wake(member);
            }
        }
        self.tend().await
    }

    /// Fills the places of workers that have ended by themselves.
    pub(crate) async fn tend(&self) -> io::Result<()> {
        for (place, slot) in self.slots.iter().enumerate() {
            // A place that is being seen to needs no look.
            let Ok(mut slot) = slot.try_lock() else { continue };
            if let Some(member) = slot.member.as_mut().filter(|member| !member.is_stopped)
                && member.ended().is_some()
            {
                self.notice(member);
                self.fill(place, &mut slot)?;
            }
        }
        Ok(())
    }

    /// Ends every worker.
    pub(crate) async fn finish(&self) {
        for slot in &self.slots {
            if let Some(mut member) = slot.lock().await.member.take() {
                self.end(&mut member).await;
            }
        }
    }

    /// Processes that ended by themselves, or did not end when told to.
    pub(crate) fn deaths(&self) -> Vec<Death> {
        locked(&self.deaths).clone()
    }

    /// When stopped workers were woken.
    pub(crate) fn sleeps(&self) -> Vec<Sleep> {
        locked(&self.sleeps).clone()
    }

    /// Processes started so far.
    pub(crate) async fn started(&self) -> u32 {
        let mut started = 0;
        for slot in &self.slots {
            started += slot.lock().await.started;
        }
        started
    }

    /// The files of histories of all processes, by worker.
    pub(crate) async fn histories(&self) -> Vec<(String, PathBuf)> {
        let mut files = Vec::new();
        for (place, slot) in self.slots.iter().enumerate() {
            for number in 0..slot.lock().await.started {
                let name = format!("{}.{number}", place + 1);
                let path = self.ground.folder.join(format!("worker-{name}.jsonl"));
                files.push((name, path));
            }
        }
        files
    }
}
