//! Wakes whoever waits for a change, without an async runtime. A change that nobody waited for wakes the next one.

use std::future::poll_fn;
use std::sync::{Mutex, PoisonError};
use std::task::{Poll, Waker};

#[derive(Debug, Default)]
struct State {
    changes: u64,
    unseen: bool,
    wakers: Vec<Waker>,
}

/// A change that can be waited for.
#[derive(Debug, Default)]
pub(crate) struct Hint(Mutex<State>);

impl Hint {
    /// Something changed.
    pub(crate) fn tell(&self) {
        let wakers = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.changes += 1;
            state.unseen = true;
            std::mem::take(&mut state.wakers)
        };
        for waker in wakers {
            waker.wake();
        }
    }

    /// Resolves at the next change, or at once when one came while nobody waited.
    pub(crate) async fn changed(&self) {
        let mut since = None;
        poll_fn(|cx| {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let since = *since.get_or_insert(state.changes);
            if state.unseen || state.changes != since {
                state.unseen = false;
                return Poll::Ready(());
            }
            if !state.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                state.wakers.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}
