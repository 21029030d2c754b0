//! What people have to do with an engine: channels over which they are told, and how far they trust agents.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use windlass_core::journal::Entry;
use windlass_core::run::{Run, TenantScope};
use windlass_core::time::Timestamp;
use windlass_policy::evidence::{self, COMPUTED_BY, Computed};
use windlass_policy::{TrustBook, TrustConfig};
use windlass_ports::notify::Channel;
use windlass_ports::store::{Store, StoreError};
use windlass_runtime::trail::{self, Deed};
use windlass_runtime::{Meter, Span, Tally};
use windlass_tools::build_channels;

use super::{WireError, Wiring, now};
use crate::renewed::renewed_channels;

/// Pause between two looks at trust scores.
const TRUST_EVERY: Duration = Duration::from_secs(1);
/// After how many such looks all scores are computed anew.
const ALL_EVERY: u64 = 60;

impl Wiring {
    /// The configured channels for notices to people. Those whose secrets are the operator's own follow every change of
    /// these.
    ///
    /// # Errors
    /// Every mistake in their tables, and a file of secrets that cannot be used.
    pub fn channels(&self) -> Result<Vec<Arc<dyn Channel>>, WireError> {
        self.checked_secrets()?;
        let build = |wiring: &Self| wiring.surrounded(|surroundings| build_channels(&wiring.notify, surroundings));
        let (channels, _, follows) = build(self)?;
        match (&self.secrets, follows) {
            (Some(file), Some(generation)) => {
                let wiring = self.clone();
                let build = move || build(&wiring).map(|(channels, ..)| channels);
                Ok(renewed_channels(channels, Arc::clone(file), generation, build))
            }
            (Some(_), None) | (None, _) => Ok(channels),
        }
    }
}

/// Reads the trust scores of a store before anything is decided by them, and again each second for as long as somebody
/// else holds the store. Where evidence is counted it is stored at that pace, and scores follow it.
///
/// # Errors
/// The store cannot be read.
pub async fn follow_trust(
    trust: &TrustBook,
    store: &Arc<dyn Store>,
    config: TrustConfig,
) -> Result<impl Future<Output = ()> + Send + 'static, StoreError> {
    trust.refresh(&**store).await?;
    let (trust, store) = (trust.clone(), Arc::downgrade(store));
    Ok(async move {
        let mut turn = 0_u64;
        loop {
            tokio::time::sleep(TRUST_EVERY).await;
            let Some(store) = store.upgrade() else { return };
            if config.computed
                && let Err(error) = settle_trust(&trust, &*store, &config, turn.is_multiple_of(ALL_EVERY)).await
            {
                tracing::warn!(%error, "evidence about agents cannot be stored; scores stay as they are");
            }
            turn += 1;
            match trust.refresh(&*store).await {
                Ok(true) => tracing::info!("trust scores of agents have changed"),
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "trust scores cannot be read; those read last stay in force"),
            }
        }
    })
}

/// Counts evidence about versions of agents, as the meter of an engine whose rules ask about them.
#[derive(Clone, Debug)]
pub struct Counting(pub TrustBook);

impl Meter for Counting {
    fn count(&self, _: Tally, _: u64) {}

    fn took(&self, _: Span, _: Duration) {}

    fn decided(&self, run: &Run, entries: &[Entry]) {
        self.0.count(run, entries);
    }
}

/// Stores the evidence that was counted, and sets the scores that follow from it: of the agents that it is about, or of all
/// that anything is known of, since evidence counts less with its age. Each change is written down.
///
/// # Errors
/// The store fails.
pub async fn settle_trust(
    trust: &TrustBook,
    store: &dyn Store,
    config: &TrustConfig,
    all: bool,
) -> Result<Vec<Computed>, StoreError> {
    let at = now();
    let touched = trust.flush(store, at).await?;
    let agents = match all {
        true => evidence::all(store).await?,
        false => {
            let mut agents = BTreeMap::new();
            for agent in touched {
                let known = evidence::read(store, &agent).await?;
                agents.insert(agent, known);
            }
            agents
        }
    };
    let mut changed = Vec::new();
    // One after another, so that no more than one change can be without its act, whatever ends this.
    for (agent, known) in agents {
        for computed in evidence::compute(store, &[(agent, known)].into(), config, at).await? {
            trail::note(store, &TenantScope::default().tenant, computed_deed(&computed, at)).await?;
            changed.push(computed);
        }
    }
    Ok(changed)
}

/// The act of a score that was computed.
fn computed_deed(Computed { agent, before, after, cause }: &Computed, at: Timestamp) -> Deed {
    let before = before.map_or_else(|| "none".to_owned(), |before| before.to_string());
    Deed {
        at,
        actor: COMPUTED_BY.into(),
        action: "trust.compute".into(),
        subject: agent.clone(),
        detail: Some(format!("{after}; before: {before}; {cause}").into()),
    }
}
