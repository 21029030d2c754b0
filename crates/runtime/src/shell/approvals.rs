//! Answers to what runs ask people. An answer goes into the run's inbox; whoever holds the run decides.

use windlass_core::approval::Reply;
use windlass_core::ids::RunId;
use windlass_core::input::Input;
use windlass_ports::store::{Delivered, Message};

use super::engine::{Engine, EngineError};
use super::send::patiently;

impl Engine {
    /// Delivers an answer to a question of a run. One that does not fit the question changes nothing.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn answer(&self, run: &RunId, reply: Reply) -> Result<Delivered, EngineError> {
        let message = Message { to: run.clone(), id: reply.delivery_id(), input: Input::Approved(Box::new(reply)) };
        let store = &self.core.parts.store;
        Ok(patiently(&self.core, || store.deliver(message.clone())).await?)
    }
}
