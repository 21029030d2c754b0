//! Answers to what runs ask people. An answer goes into the run's inbox; whoever holds the run decides.

use windlass_core::approval::{Answer, Reply};
use windlass_core::ids::{Name, RunId};
use windlass_core::input::Input;
use windlass_core::journal::Entry;
use windlass_core::time::Timestamp;
use windlass_ports::store::{Delivered, Load, Message, Store, StoreError, WorkerId};

use super::blobs::blobs;
use super::engine::{Engine, EngineError};
use super::send::patiently;
use crate::fold;

/// Journal rows read at a time.
const PAGE: usize = 200;

/// The store's time, for answers that are delivered: whoever decides about them goes by that clock.
///
/// # Errors
/// A store that fails.
pub async fn store_time(store: &dyn Store) -> Result<Timestamp, StoreError> {
    // A worker that the store does not know is told the time and nothing else.
    Ok(store.beat(WorkerId("".into()), Load::default()).await?.now)
}

/// What came of an answer that was delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answered {
    /// It is the one that counts: the run has taken it up, or takes it up next.
    Counts,
    /// Another one came first. Should that be refused when it is taken up, this one is looked at.
    Beaten {
        /// How the first one was.
        answer: Answer,
        /// Who gave it; empty when nobody answered in time.
        by: Name,
    },
    /// The question is not open: it was closed without an answer, or the answer was refused when it was taken up.
    Void,
    /// No such run.
    NotFound,
    /// The run is over.
    Finished,
}

/// Delivers an answer to a question that was open at version `since` of the run, and says which answer counts. The same
/// answer may be given again.
///
/// # Errors
/// The store fails, or the run cannot be read.
pub async fn answer(store: &dyn Store, run: &RunId, reply: Reply, since: u64) -> Result<Answered, EngineError> {
    let id = reply.delivery_id();
    let message = Message { to: run.clone(), id: id.clone(), input: Input::Approved(Box::new(reply.clone())) };
    match store.deliver(message).await? {
        Delivered::Accepted | Delivered::Duplicate => {}
        Delivered::NotFound => return Ok(Answered::NotFound),
        Delivered::Finished => return Ok(Answered::Finished),
    }
    // Answers are taken up in the order of the inbox. The journal is read after it: where the question is open still, none
    // had been taken up that closed it.
    let inbox = store.inbox(run.clone()).await?;
    if let Some(answered) = taken_up(store, run, &reply, since).await? {
        return Ok(answered);
    }
    let first = inbox.into_iter().find_map(|item| match item.input {
        Input::Approved(first) if first.wait == reply.wait => Some((item.id, Some(first))),
        // There is more of the budget that was asked for, or nothing is asked any more.
        Input::Signalled { wait, .. } if wait == reply.wait => Some((item.id, None)),
        Input::Cancel { .. } => Some((item.id, None)),
        _ => None,
    });
    Ok(match first {
        Some((first, _)) if first == id => Answered::Counts,
        Some((_, Some(first))) => {
            let answer = if first.approve { Answer::Approved } else { Answer::Rejected };
            Answered::Beaten { answer, by: first.by.clone() }
        }
        Some((_, None)) | None => Answered::Void,
    })
}

/// What the journal says about an answer, where the question is closed.
async fn taken_up(store: &dyn Store, run: &RunId, reply: &Reply, since: u64) -> Result<Option<Answered>, EngineError> {
    let damaged = |source| EngineError::Fold { run: run.clone(), source };
    let mut after = since;
    loop {
        let rows = store.journal(run.clone(), after, PAGE).await?;
        let blobs = blobs(store, &rows).await?;
        for row in &rows {
            let record = fold::read(row, &blobs).map_err(damaged)?;
            let closes = |entry: &&Entry| matches!(entry, Entry::WaitClosed { effect, .. } if *effect == reply.wait);
            if record.entries.iter().any(|entry| closes(&entry)) {
                let answered = record.entries.iter().find_map(|entry| about(entry, reply));
                return Ok(Some(answered.unwrap_or(Answered::Void)));
            }
            after = row.version;
        }
        if rows.len() < PAGE {
            return Ok(None);
        }
    }
}

/// Whether an entry of the record that closed the question is this answer.
fn about(entry: &Entry, reply: &Reply) -> Option<Answered> {
    let (answer, by, reason, arguments) = match entry {
        Entry::ApprovalAnswered { answer, by, reason, arguments, .. } => (*answer, by, reason, arguments.as_ref()),
        Entry::TransitionAnswered { wait, answer, by, reason, .. } if *wait == reply.wait => {
            (*answer, by, reason, None)
        }
        _ => return None,
    };
    let given = if reply.approve { Answer::Approved } else { Answer::Rejected };
    let is_ours =
        answer == given && *by == reply.by && *reason == reply.reason && arguments == reply.arguments.as_ref();
    Some(if is_ours { Answered::Counts } else { Answered::Beaten { answer, by: by.clone() } })
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
