//! Read-only switches: changing them, telling the runs they held, and what this process knows of them.
//!
//! The store compares their epoch in the transaction of every decision that begins a call which changes something; what is
//! kept here is for calls that were decided on before.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use windlass_core::contract::Class;
use windlass_core::ids::Name;
use windlass_core::input::Input;
use windlass_core::run::Status;
use windlass_ports::store::{Message, Put, Query, SWITCHES, Store, StoreError, switch_epoch, switch_key};

use super::engine::Core;
use super::member::Member;
use super::objects::{self, TRIES_MAX};
use crate::switch::{Change, Switch};

/// Runs that are read at a time.
const PAGE: usize = 500;
/// What the keys of tenants begin with.
const OF_TENANT: &str = "tenant:";

/// Changes the switch of a tenant, or of the environment. A decision that is durable after this returned and begins a call
/// which changes something has seen it. Gives back the switch, and whether it was changed: turning it on again for another
/// reason while it is on writes that down, without one it changes nothing.
///
/// # Errors
/// The store fails, or others change it all the time.
pub async fn switch(store: &dyn Store, tenant: Option<&Name>, change: Change) -> Result<(Switch, bool), StoreError> {
    let (kind, key): (Name, Name) = (SWITCHES.into(), switch_key(tenant.map(|tenant| &**tenant)));
    for _ in 0..TRIES_MAX {
        let found = store.object(kind.clone(), key.clone()).await?;
        let (expected, mut switch) = match &found {
            Some(object) => (object.revision, objects::decode::<Switch>("read-only switch", &key, &object.bytes)?),
            None => (0, Switch::default()),
        };
        let is_news = |on: &Change| !change.reason.is_empty() && on.reason != change.reason;
        if switch.on().is_some() == change.on && !(change.on && switch.on().is_some_and(is_news)) {
            return Ok((switch, false));
        }
        switch.change(change.clone());
        let bytes = serde_json::to_vec(&switch).map_err(|error| StoreError::Invalid(error.to_string()))?;
        let put = Put { kind: kind.clone(), key: key.clone(), expected, bytes: Some(bytes) };
        if store.put_object(put).await? {
            return Ok((switch, true));
        }
    }
    Err(StoreError::Unavailable(format!("the read-only switch `{key}` is changed by others all the time")))
}

/// Every switch that was ever used: that of the environment without a name, those of tenants by theirs.
///
/// # Errors
/// The store fails.
pub async fn switches(store: &dyn Store) -> Result<BTreeMap<Option<Name>, Switch>, StoreError> {
    let all = known(store).await?;
    Ok(all.0.into_iter().map(|(tenant, (_, switch))| (tenant, switch)).collect())
}

/// Lets runs that a switch held look at it again: those of a tenant, or all. Gives back how many were told. One that is not
/// told looks by itself, within a minute.
///
/// # Errors
/// The store fails.
pub async fn tell_held(store: &dyn Store, tenant: Option<&Name>) -> Result<u64, StoreError> {
    let mut query = Query { statuses: vec![Status::Paused], tenant: tenant.cloned(), limit: PAGE, ..Query::default() };
    let mut told = 0;
    loop {
        let page = store.list(query.clone()).await?;
        // Only a run that a switch holds is looked at again by itself.
        for head in page.heads.into_iter().filter(|head| head.wake_at.is_some()) {
            let id = format!("free_writes:{}", head.version).into();
            store.deliver(Message { to: head.id, id, input: Input::FreeWrites }).await?;
            told += 1;
        }
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => return Ok(told),
        }
    }
}

/// What is known of the switches, with their revisions.
#[derive(Clone, Debug, Default)]
pub(super) struct Known(BTreeMap<Option<Name>, (u64, Switch)>);

async fn known(store: &dyn Store) -> Result<Known, StoreError> {
    let mut all = Known::default();
    for object in objects::every(store, SWITCHES).await? {
        let switch = objects::decode("read-only switch", &object.key, &object.bytes)?;
        all.0.insert(object.key.strip_prefix(OF_TENANT).map(Into::into), (object.revision, switch));
    }
    Ok(all)
}

/// What this process knows of the switches.
#[derive(Debug)]
pub(super) struct Switches {
    known: watch::Sender<Arc<Known>>,
}

impl Default for Switches {
    fn default() -> Self {
        Self { known: watch::Sender::new(Arc::default()) }
    }
}

impl Switches {
    /// The epoch of the switches of a tenant's runs.
    pub(super) fn epoch(&self, tenant: &Name) -> u64 {
        let known = self.known.borrow();
        let revision = |key: Option<Name>| known.0.get(&key).map_or(0, |(revision, _)| *revision);
        switch_epoch(revision(None), revision(Some(tenant.clone())))
    }

    /// Why nothing of this class leaves for a tenant; none when it may.
    pub(super) fn held(&self, tenant: &Name, class: Class) -> Option<Name> {
        if class == Class::Read {
            return None;
        }
        held(&self.known.borrow(), tenant)
    }

    /// Waits until something of this class may leave.
    pub(super) async fn pass(&self, tenant: &Name, class: Class) {
        if class != Class::Read {
            let mut known = self.known.subscribe();
            // The sender lives as long as this.
            let _passed = known.wait_for(|known| held(known, tenant).is_none()).await;
        }
    }

    /// Resolves when they have changed.
    pub(super) fn changes(&self) -> watch::Receiver<Arc<Known>> {
        self.known.subscribe()
    }

    fn learn(&self, known: Known) {
        let revisions = |known: &Known| known.0.iter().map(|(key, (at, _))| (key.clone(), *at)).collect::<Vec<_>>();
        self.known.send_if_modified(|before| {
            // Answers may overtake each other; revisions only grow.
            let older = known.0.iter().any(|(key, (at, _))| before.0.get(key).is_some_and(|(newer, _)| newer > at));
            let changed = !older && revisions(before) != revisions(&known);
            if changed {
                *before = Arc::new(known);
            }
            changed
        });
    }
}

fn held(known: &Known, tenant: &Name) -> Option<Name> {
    let on = |key: Option<&Name>| known.0.get(&key.cloned()).and_then(|(_, switch)| Some(switch.on()?.words(key)));
    on(None).or_else(|| on(Some(tenant)))
}

impl Core {
    /// Looks at the switches.
    pub(super) async fn look_at_switches(&self) -> Result<(), StoreError> {
        let known = known(&*self.parts.store).await?;
        self.switches.learn(known);
        Ok(())
    }
}

/// Looks at the switches for as long as this life as a worker lasts, while it holds runs.
pub(super) async fn follow(core: Weak<Core>, member: Arc<Member>) {
    loop {
        let Some(pace) = core.upgrade().map(|core| core.parts.settings.switches_ms).filter(|pace| *pace > 0) else {
            return;
        };
        tokio::select! {
            biased;
            () = member.lost.cancelled() => return,
            () = tokio::time::sleep(Duration::from_millis(pace)) => {}
        }
        let Some(core) = core.upgrade() else { return };
        if core.held() > 0
            && let Err(error) = core.look_at_switches().await
        {
            tracing::debug!(%error, "the read-only switches could not be looked at");
        }
    }
}
