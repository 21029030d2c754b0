//! This process as a worker of the store: joins, gives signs of life apart from all work, notices when it no longer
//! counts, and joins again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use windlass_ports::store::{Load, StoreError, WorkerId};

use super::engine::Core;
use super::observe::Tally;
use super::switches;
use crate::lease::Backoff;

/// How often an engine that waits for an answer to its heartbeat looks whether it still counts, in milliseconds: at least,
/// and as a share of the pace of heartbeats, so that one with long leases looks as many times, not as often.
const LOOK_MS: u64 = 250;
const LOOK_SHARE: u64 = 32;
/// Shortest pause between two heartbeats, whatever the store asks for, in milliseconds.
const PACE_MS_MIN: u64 = 20;
/// By which share of itself a pause between heartbeats varies, so that a fleet that was started at once spreads out.
const PACE_JITTER: u64 = 8;
/// How long the store is waited for when this process leaves it.
const LEAVE_PATIENCE: Duration = Duration::from_secs(2);

/// One life as a worker.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: WorkerId,
    /// Cancelled when the store no longer counts this worker: what is held under it is void.
    pub(super) lost: CancellationToken,
    /// The worker leaves by itself.
    left: CancellationToken,
    /// A heartbeat was answered.
    heard: Notify,
    /// How soon the store wants the next heartbeat, in milliseconds.
    pace_ms: AtomicU64,
}

impl Member {
    fn new(id: WorkerId, pace_ms: u64) -> Self {
        Self {
            id,
            lost: CancellationToken::new(),
            left: CancellationToken::new(),
            heard: Notify::new(),
            pace_ms: AtomicU64::new(pace_ms.max(PACE_MS_MIN)),
        }
    }

    /// How soon the store wants to hear from this worker again, in milliseconds.
    fn pace_ms(&self) -> u64 {
        self.pace_ms.load(Ordering::Relaxed)
    }
}

/// Who this process is to the store.
#[derive(Debug, Default)]
pub(super) struct Membership {
    current: Mutex<Option<Arc<Member>>>,
    /// Held while joining.
    joining: tokio::sync::Mutex<()>,
    /// The worker claims no more.
    pub(super) draining: AtomicBool,
    /// The schema that was found, and the newest this build knows, once the store has become newer.
    outdated: OnceLock<(u32, u32)>,
}

impl Membership {
    fn current(&self) -> Option<Arc<Member>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone().filter(|member| !member.lost.is_cancelled())
    }

    fn set(&self, member: Option<Arc<Member>>) -> Option<Arc<Member>> {
        std::mem::replace(&mut *self.current.lock().unwrap_or_else(PoisonError::into_inner), member)
    }
}

impl Core {
    /// This process as a worker; joins when it is none, or no longer counts.
    pub(super) async fn member(self: &Arc<Self>) -> Result<Arc<Member>, StoreError> {
        if let Some(member) = self.membership.current() {
            return Ok(member);
        }
        let _joining = self.membership.joining.lock().await;
        if let Some(member) = self.membership.current() {
            return Ok(member);
        }
        let store = &self.parts.store;
        let id = store.join(self.parts.settings.registration()).await?;
        let beat = match store.beat(id.clone(), self.load()).await {
            Ok(beat) => beat,
            Err(error) => {
                // Nothing is held under it; one that cannot be told ends by itself.
                let _gone = store.leave(id).await;
                return Err(error);
            }
        };
        self.clock.seen(beat.now);
        let member = Arc::new(Member::new(id, beat.again_ms));
        tracing::info!(worker = %member.id, "joined the store");
        if let Some(before) = self.membership.set(Some(Arc::clone(&member))) {
            // Nothing is held under it any more. Where the store has not noticed yet, others need not wait until it does.
            let _noticed = store.leave(before.id.clone()).await;
        }
        tokio::spawn(keep(Arc::downgrade(self), Arc::clone(&member)));
        tokio::spawn(switches::follow(Arc::downgrade(self), Arc::clone(&member)));
        Ok(member)
    }

    /// The id of this process as a worker.
    pub(super) async fn worker(self: &Arc<Self>) -> Result<WorkerId, StoreError> {
        Ok(self.member().await?.id.clone())
    }

    /// The life that belongs to an id; one that is over when this process goes by another id.
    pub(super) fn member_of(&self, worker: &WorkerId) -> Arc<Member> {
        self.membership.current().filter(|member| member.id == *worker).unwrap_or_else(|| {
            let gone = Member::new(worker.clone(), PACE_MS_MIN);
            gone.lost.cancel();
            Arc::new(gone)
        })
    }

    /// The current life, if any.
    pub(super) fn present(&self) -> Option<Arc<Member>> {
        self.membership.current()
    }

    /// What this process does at the moment.
    pub(super) fn load(&self) -> Load {
        let out = self.parts.settings.call_slots.max(1).saturating_sub(self.call_slots.available_permits());
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Load { held: small(self.held()), calls: small(out), draining: self.membership.draining.load(Ordering::Relaxed) }
    }

    /// Waits until the leases of a worker are surely its own. Pending for ever when they are not again: whoever waits is
    /// dropped with them.
    pub(super) async fn entitled(&self, member: &Member) {
        loop {
            let heard = member.heard.notified();
            if !member.lost.is_cancelled() && self.parts.store.is_current(&member.id) {
                return;
            }
            tracing::debug!(worker = %member.id, "a call waits: the leases of this worker may have run out");
            heard.await;
        }
    }

    /// Why nothing more may be claimed, when the store has become newer than this build.
    pub(super) fn outdated(&self) -> Option<StoreError> {
        self.membership.outdated.get().map(|(found, known)| StoreError::NewerSchema { found: *found, known: *known })
    }

    fn outdate(&self, found: u32, known: u32) {
        if self.membership.outdated.set((found, known)).is_ok() {
            tracing::error!(found, known, "the schema of the store became newer than this build: it claims no more");
            self.wake(false);
        }
    }

    /// The worker ends: the store puts what it holds into the queue.
    pub(super) async fn leave(&self) {
        let Some(member) = self.membership.set(None) else { return };
        member.left.cancel();
        member.lost.cancel();
        self.forget_held();
        match tokio::time::timeout(LEAVE_PATIENCE, self.parts.store.leave(member.id.clone())).await {
            Ok(Ok(())) => tracing::info!(worker = %member.id, "left the store"),
            Ok(Err(error)) => tracing::warn!(worker = %member.id, %error, "the store could not be told of the end"),
            Err(_) => tracing::warn!(worker = %member.id, "the store did not answer to the end"),
        }
    }

    fn lose(&self, member: &Member, why: &str) {
        tracing::warn!(worker = %member.id, held = self.held(), why, "this worker no longer counts; what it held is dropped");
        self.count(Tally::WorkerLost, 1);
        member.lost.cancel();
        self.forget_held();
        self.wake(true);
    }

    /// One sign of life, sent until it is answered. False when this life is over.
    async fn beat(&self, member: &Member) -> bool {
        let store = &self.parts.store;
        let mut backoff = Backoff::default();
        loop {
            let mut asking = store.beat(member.id.clone(), self.load());
            let answer = loop {
                tokio::select! {
                    biased;
                    answer = &mut asking => break Some(answer),
                    () = member.left.cancelled() => return false,
                    () = sleep(Duration::from_millis(LOOK_MS.max(member.pace_ms() / LOOK_SHARE))) => {
                        if !store.is_current(&member.id) {
                            break None;
                        }
                    }
                }
            };
            match answer {
                Some(Ok(beat)) => {
                    self.clock.seen(beat.now);
                    if !beat.is_alive {
                        self.lose(member, "the store no longer counts it");
                        return false;
                    }
                    member.pace_ms.store(beat.again_ms.max(PACE_MS_MIN), Ordering::Relaxed);
                    member.heard.notify_waiters();
                    if beat.held.is_some_and(|held| self.missed.told(held, self.known())) {
                        self.wake(false);
                    }
                    return true;
                }
                Some(Err(StoreError::NewerSchema { found, known })) => {
                    self.outdate(found, known);
                    member.heard.notify_waiters();
                    return true;
                }
                Some(Err(_)) | None if !store.is_current(&member.id) => {
                    self.lose(member, "no sign of life was taken in time");
                    return false;
                }
                Some(Err(error)) => {
                    tracing::warn!(worker = %member.id, %error, "a heartbeat was not taken");
                    sleep(Duration::from_millis(backoff.next_ms().min(member.pace_ms()))).await;
                }
                None => {}
            }
        }
    }
}

/// Gives signs of life for as long as the engine exists.
async fn keep(core: Weak<Core>, member: Arc<Member>) {
    loop {
        let pace = member.pace_ms();
        let Some(seed) = core.upgrade().map(|core| core.parts.clock.seed()) else { return };
        let pause = Duration::from_millis(pace - seed % (pace / PACE_JITTER).max(1));
        tokio::select! {
            biased;
            () = sleep(pause) => {}
            () = member.left.cancelled() => return,
        }
        let Some(core) = core.upgrade() else { return };
        if !core.beat(&member).await {
            return;
        }
    }
}
