//! Which accounts of budgets somebody holds for long, as far as the draws of one handle have noticed.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use windlass_core::escrow::Draw;
use windlass_core::ids::Name;

/// Accounts that are remembered. What is not is noticed again with each draw.
const HELD_MAX: usize = 256;
/// How long an account is remembered which nobody waits for.
const HELD_FOR: Duration = Duration::from_secs(30);

/// Accounts that are held, and until when that is believed.
#[derive(Debug, Default)]
pub(super) struct Held(Mutex<BTreeMap<Name, Instant>>);

impl Held {
    /// Those that are believed.
    fn accounts(&self, now: Instant) -> MutexGuard<'_, BTreeMap<Name, Instant>> {
        let mut accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.retain(|_, until| *until > now);
        accounts
    }

    pub(super) fn any_of(&self, draw: &Draw, now: Instant) -> bool {
        let accounts = self.accounts(now);
        draw.lines.iter().any(|line| accounts.contains_key(&line.scope))
    }

    pub(super) fn all(&self, now: Instant) -> Vec<Name> {
        self.accounts(now).keys().cloned().collect()
    }

    pub(super) fn remember(&self, scope: Name, now: Instant) {
        let mut accounts = self.accounts(now);
        if accounts.len() < HELD_MAX || accounts.contains_key(&scope) {
            accounts.insert(scope, now + HELD_FOR);
        }
    }

    pub(super) fn forget(&self, scope: &Name, now: Instant) {
        self.accounts(now).remove(scope);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_accounts_are_remembered_and_not_for_ever() {
        let (held, began) = (Held::default(), Instant::now());
        for n in 0..HELD_MAX + 5 {
            held.remember(format!("tenant:{n}").as_str().into(), began);
        }
        assert_eq!(held.all(began).len(), HELD_MAX);
        let later = began + HELD_FOR / 2;
        held.remember("tenant:0".into(), later);
        held.forget(&"tenant:1".into(), later);
        assert_eq!(held.all(later).len(), HELD_MAX - 1);
        assert_eq!(held.all(began + HELD_FOR), ["tenant:0".into()] as [Name; 1]);
        assert_eq!(held.all(later + HELD_FOR), []);
    }
}
