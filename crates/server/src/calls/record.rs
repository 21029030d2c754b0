//! Decisions about requests, written down: each about a caller that is known as an act of its tenant, the others counted and
//! told together, so that nobody without a token fills the store.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use windlass_core::ids::Name;
use windlass_core::run::TenantScope;
use windlass_ports::store::StoreError;
use windlass_runtime::trail::{self, Deed};

use super::Api;
use super::problem::Problem;
use crate::auth::Caller;

/// How often what was refused is written down, when anything was.
const TOLD_EVERY: Duration = Duration::from_secs(60);
/// How long the store may take for an act.
pub(super) const STORE_PATIENCE: Duration = Duration::from_secs(5);
/// Characters of a name that an act quotes.
const QUOTED_MAX: usize = 300;

/// What was decided and is to be written down.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// Requests that were refused before anybody was known, by why, since that was last written down.
    refused: Mutex<BTreeMap<&'static str, u64>>,
    /// Acts of one tenant follow each other: those of one process do so without getting in each other's way.
    one_by_one: tokio::sync::Mutex<()>,
}

impl Records {
    pub(super) fn refused(&self, why: &'static str) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner).entry(why).or_default() += 1;
    }

    fn take(&self) -> BTreeMap<&'static str, u64> {
        std::mem::take(&mut *self.refused.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What could not be written down is told the next time.
    fn give_back(&self, counts: BTreeMap<&'static str, u64>) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        for (why, count) in counts {
            *refused.entry(why).or_default() += count;
        }
    }
}

fn quoted(text: &str) -> Name {
    text.chars().filter(|c| !c.is_control()).take(QUOTED_MAX).collect::<String>().into()
}

impl Api {
    /// Writes down what was decided about a call. Only when that is durable anything is done.
    pub(super) async fn decided(&self, caller: &Caller, allowed: bool, tool: &str, why: &str) -> Result<(), Problem> {
        let action = if allowed { "call.allow" } else { "call.deny" };
        // Whoever speaks for a tenant without a right to does not write into what is kept of it.
        let tenant = if caller.may_speak { caller.tenant.clone() } else { TenantScope::default().tenant };
        let deed = Deed {
            at: self.engine.parts().clock.now(),
            actor: quoted(&format!("{} ({})", caller.user, caller.issuer)),
            action: action.into(),
            subject: quoted(tool),
            detail: Some(quoted(why)),
        };
        let noted = async {
            let _turn = self.records.one_by_one.lock().await;
            trail::note(&*self.engine.parts().store, &tenant, deed).await
        };
        match tokio::time::timeout(STORE_PATIENCE, noted).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Problem::store(&error)),
            Err(_) => Err(Problem::away()),
        }
    }

    /// Writes down what was refused, now and then, and a last time when the process is to stop.
    pub async fn keep_records(&self) {
        loop {
            let ends = tokio::select! {
                () = self.stop.graceful.cancelled() => true,
                () = self.stop.immediate.cancelled() => return,
                () = tokio::time::sleep(TOLD_EVERY) => false,
            };
            match tokio::time::timeout(STORE_PATIENCE, self.tell_refused()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "refused requests could not be written down"),
                Err(_) => tracing::warn!("refused requests could not be written down: the store says nothing"),
            }
            if ends {
                return;
            }
        }
    }

    async fn tell_refused(&self) -> Result<(), StoreError> {
        let counts = self.records.take();
        if counts.is_empty() {
            return Ok(());
        }
        let said: Vec<String> = counts.iter().map(|(why, count)| format!("{why} {count}")).collect();
        let deed = Deed {
            at: self.engine.parts().clock.now(),
            actor: "nobody".into(),
            action: "request.refuse".into(),
            subject: "requests".into(),
            detail: Some(quoted(&said.join(", "))),
        };
        let noted = trail::note(&*self.engine.parts().store, &TenantScope::default().tenant, deed).await;
        if noted.is_err() {
            self.records.give_back(counts);
        }
        noted.map(|_| ())
    }
}
