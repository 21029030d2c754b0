//! A bounded cache of things compiled from text: two generations, the older one dropped when the younger is full.
//!
//! What is in it never changes a result, only how fast it comes.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use windlass_core::ids::Name;

/// Entries of one generation at most.
const ENTRIES_MAX: usize = 4_096;
/// Bytes of source of one generation at most.
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// The cache. A failure to compile is not kept.
#[derive(Debug)]
pub(super) struct Cache<T> {
    generations: RwLock<Generations<T>>,
}

#[derive(Debug)]
struct Generations<T> {
    young: HashMap<Name, Arc<T>>,
    old: HashMap<Name, Arc<T>>,
    bytes: usize,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self { generations: RwLock::new(Generations { young: HashMap::new(), old: HashMap::new(), bytes: 0 }) }
    }
}

impl<T> Cache<T> {
    /// What was made from `source`, made now if need be.
    pub(super) fn get_or_make<E>(&self, source: &str, make: impl FnOnce() -> Result<T, E>) -> Result<Arc<T>, E> {
        {
            let generations = self.generations.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(found) = generations.young.get(source) {
                return Ok(found.clone());
            }
        }
        let older = {
            let generations = self.generations.read().unwrap_or_else(PoisonError::into_inner);
            generations.old.get(source).cloned()
        };
        let made = match older {
            Some(found) => found,
            None => Arc::new(make()?),
        };
        let mut generations = self.generations.write().unwrap_or_else(PoisonError::into_inner);
        if generations.young.len() >= ENTRIES_MAX || generations.bytes.saturating_add(source.len()) > BYTES_MAX {
            generations.old = std::mem::take(&mut generations.young);
            generations.bytes = 0;
        }
        generations.bytes += source.len();
        generations.young.insert(source.into(), made.clone());
        Ok(made)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let generations = self.generations.read().unwrap_or_else(PoisonError::into_inner);
        generations.young.len() + generations.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_made_once_while_they_are_used() {
        let cache = Cache::<usize>::default();
        for round in 0..3 {
            let value = cache.get_or_make::<()>("a", || Ok(round)).expect("made");
            assert_eq!(*value, 0);
        }
    }

    #[test]
    fn the_size_is_bounded() {
        let cache = Cache::<usize>::default();
        for i in 0..3 * ENTRIES_MAX {
            cache.get_or_make::<()>(&i.to_string(), || Ok(i)).expect("made");
            assert!(cache.len() <= 2 * ENTRIES_MAX);
        }
        let large = "x".repeat(BYTES_MAX / 2);
        for i in 0..8 {
            cache.get_or_make::<()>(&format!("{large}{i}"), || Ok(i)).expect("made");
        }
        assert!(cache.len() <= 4);
    }

    #[test]
    fn failures_are_not_kept() {
        let cache = Cache::<usize>::default();
        assert_eq!(cache.get_or_make("a", || Err("no")).expect_err("fails"), "no");
        assert_eq!(*cache.get_or_make::<()>("a", || Ok(1)).expect("made"), 1);
    }
}
