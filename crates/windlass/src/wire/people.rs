//! What people have to do with an engine: channels over which they are told, and how far they trust agents.

use std::sync::Arc;
use std::time::Duration;

use windlass_policy::TrustBook;
use windlass_ports::notify::Channel;
use windlass_ports::store::{Store, StoreError};
use windlass_tools::build_channels;

use super::{WireError, Wiring};
use crate::renewed::renewed_channels;

/// Pause between two looks at trust scores.
const TRUST_EVERY: Duration = Duration::from_secs(1);

impl Wiring {
    /// The configured channels for notices to people. Those whose secrets are the operator's own follow every change of
    /// these.
    ///
    /// # Errors
    /// Every mistake in their tables, and a file of secrets that cannot be used.
    pub fn channels(&self) -> Result<Vec<Arc<dyn Channel>>, WireError> {
        let generation = self.checked_secrets()?;
        let build = |wiring: &Self| wiring.surrounded(|surroundings| build_channels(&wiring.notify, surroundings));
        let (channels, _, follows) = build(self)?;
        match &self.secrets {
            Some(file) if follows => {
                let wiring = self.clone();
                let build = move || build(&wiring).map(|(channels, ..)| channels);
                Ok(renewed_channels(channels, Arc::clone(file), generation, build))
            }
            Some(_) | None => Ok(channels),
        }
    }
}

/// Reads the trust scores of a store before anything is decided by them, and again each second for as long as somebody
/// else holds the store.
///
/// # Errors
/// The store cannot be read.
pub async fn follow_trust(
    trust: &TrustBook,
    store: &Arc<dyn Store>,
) -> Result<impl Future<Output = ()> + Send + 'static, StoreError> {
    trust.refresh(&**store).await?;
    let (trust, store) = (trust.clone(), Arc::downgrade(store));
    Ok(async move {
        loop {
            tokio::time::sleep(TRUST_EVERY).await;
            let Some(store) = store.upgrade() else { return };
            match trust.refresh(&*store).await {
                Ok(true) => tracing::info!("trust scores of agents have changed"),
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "trust scores cannot be read; those read last stay in force"),
            }
        }
    })
}
