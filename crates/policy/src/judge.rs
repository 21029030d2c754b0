//! A rule set with the answers that it gave.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use windlass_core::ids::Name;

use crate::question::{Asked, Subject};
use crate::set::{RuleSet, Ruling};
use crate::trust::Scores;

/// Answers kept in memory; the oldest are not known, so all are dropped when there are more.
const REMEMBERED_MAX: usize = 20_000;

/// A rule set with the answers it gave under the same scores: neither changes, so the same question has the same answer.
#[derive(Debug)]
pub(crate) struct Judge {
    set: Arc<RuleSet>,
    given: Mutex<HashMap<(Subject, Asked), Ruling>>,
}

impl Judge {
    pub(crate) fn new(set: Arc<RuleSet>) -> Self {
        Self { set, given: Mutex::default() }
    }

    pub(crate) fn set(&self) -> Arc<RuleSet> {
        Arc::clone(&self.set)
    }

    pub(crate) fn version(&self) -> Name {
        self.set.version()
    }

    /// Its answer, by the scores that it is asked under each time.
    pub(crate) fn ruling(&self, subject: &Subject, asked: Asked, scores: &Scores) -> Ruling {
        // Where no rule looks at labels, one answer serves all of them.
        let asked = if self.set.reads_labels() { asked } else { asked.without_labels() };
        // Of arguments that no rule looks at, any have the same answer.
        let asked = if self.set.reads_arguments() { asked } else { asked.without_arguments() };
        let key = (subject.clone(), asked);
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(ruling) = given {
            return ruling;
        }
        let ruling = self.set.rule_on(&key.0, &key.1, scores);
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if given.len() >= REMEMBERED_MAX {
            given.clear();
        }
        given.insert((key.0, key.1.without_values()), ruling.clone());
        ruling
    }
}
