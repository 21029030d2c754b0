//! How many requests are dealt with at once, of all and of one tenant.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::StatusCode;
use windlass_core::ids::Name;

use super::problem::Problem;

/// Requests with a token at once.
pub const CALLS_MAX: usize = 128;
/// The same of one tenant: others have room beside it.
pub const TENANT_CALLS_MAX: usize = 32;

/// The requests that are being dealt with, by tenant.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate(Arc<Mutex<HashMap<Name, usize>>>);

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    gate: Gate,
    tenant: Name,
}

impl Gate {
    pub(super) fn enter(&self, tenant: &Name) -> Result<Place, Problem> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.get(tenant).is_some_and(|held| *held >= TENANT_CALLS_MAX) {
            let detail = "too many requests of this tenant are being dealt with";
            return Err(Problem::busy(StatusCode::TOO_MANY_REQUESTS, detail));
        }
        if held.values().sum::<usize>() >= CALLS_MAX {
            return Err(Problem::busy(StatusCode::SERVICE_UNAVAILABLE, "too many requests are being dealt with"));
        }
        *held.entry(tenant.clone()).or_default() += 1;
        Ok(Place { gate: self.clone(), tenant: tenant.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.gate.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.tenant) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_so_many_places_and_others_have_theirs() {
        let gate = Gate::default();
        let (one, other) = (Name::from("a"), Name::from("b"));
        let mut held: Vec<Place> = (0..TENANT_CALLS_MAX).map(|_| gate.enter(&one).expect("a place")).collect();
        assert!(gate.enter(&one).is_err());
        drop(gate.enter(&other).expect("of another tenant"));
        held.pop();
        held.push(gate.enter(&one).expect("a place that became free"));
        for tenant in 0..(CALLS_MAX / TENANT_CALLS_MAX) - 1 {
            let tenant = Name::from(format!("t{tenant}"));
            held.extend((0..TENANT_CALLS_MAX).map(|_| gate.enter(&tenant).expect("a place")));
        }
        assert!(gate.enter(&other).is_err(), "all places are taken");
        held.clear();
        assert!(gate.0.lock().expect("held").is_empty(), "nothing is remembered of who is gone");
    }
}
