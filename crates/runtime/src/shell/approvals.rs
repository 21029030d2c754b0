//! Answers to what runs ask people. An answer goes into the run's inbox; whoever holds the run decides.

use windlass_core::approval::Reply;
use windlass_core::ids::RunId;
use windlass_core::input::Input;
use windlass_core::time::Timestamp;
use windlass_ports::store::{Delivered, Load, Message, Store, StoreError, WorkerId};

use super::engine::{Engine, EngineError};
use super::send::patiently;

/// The store's time, for answers that are delivered: whoever decides about them goes by that clock.
///
/// # Errors
/// A store that fails.
pub async fn store_time(store: &dyn Store) -> Result<Timestamp, StoreError> {
    // A worker that the store does not know is told the time and nothing else.
    Ok(store.beat(WorkerId("".into()), Load::default()).await?.now)
}

impl Engine {
    /// Delivers an answer to a question of a run. One that does not fit the question changes nothing.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn answer(&self, run: &RunId, reply: Reply) -> Result<Delivered, EngineError> {
        let store = &self.core.parts.store;
        let at = patiently(&self.core, || store_time(&**store)).await?;
        let reply = Reply { at: Some(at), ..reply };
        let message = Message { to: run.clone(), id: reply.delivery_id(), input: Input::Approved(Box::new(reply)) };
        Ok(patiently(&self.core, || store.deliver(message.clone())).await?)
    }
}
