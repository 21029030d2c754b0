//! What people have to do with an engine: channels over which they are told, and how far they trust agents.

use std::sync::Arc;
use std::time::Duration;

use windlass_policy::TrustBook;
use windlass_ports::notify::Channel;
use windlass_ports::store::{Store, StoreError};
use windlass_tools::build_channels;

use super::{WireError, Wiring};

/// Pause between two looks at trust scores.
const TRUST_EVERY: Duration = Duration::from_secs(1);

impl Wiring {
    /// The configured channels for notices to people.
    ///
    /// # Errors
    /// Every mistake in their tables.
    pub fn channels(&self) -> Result<Vec<Arc<dyn Channel>>, WireError> {
        Ok(self.surrounded(|surroundings| build_channels(&self.notify, surroundings))?.0)
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
