//! The list of hidden values: each once, shared on clone, with what searches for them. That is made when something is first
//! shown or goes to another run, and kept.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize, Serializer};

use super::Leaf;
use super::finder::{self, Finder};
use crate::ids::Name;
use crate::limits;
use crate::value::Value;

/// Hidden values in the order in which they came. Stored as a list.
#[derive(Clone, Default, Deserialize)]
#[serde(from = "Vec<Leaf>")]
pub(super) struct Leaves(Option<Arc<Shared>>);

#[derive(Clone, Default)]
struct Shared {
    list: Vec<Leaf>,
    /// The same by key and text, and whether the value is text.
    known: BTreeSet<(Name, Name, bool)>,
    /// Bytes of all of them.
    bytes: usize,
    /// What finds the first ones of the list: the rest came after it was made.
    earlier: Vec<Arc<Finder>>,
    finders: OnceLock<Vec<Arc<Finder>>>,
}

impl PartialEq for Leaves {
    fn eq(&self, other: &Self) -> bool {
        self.list() == other.list()
    }
}

impl Serialize for Leaves {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.list().serialize(serializer)
    }
}

impl From<Vec<Leaf>> for Leaves {
    fn from(list: Vec<Leaf>) -> Self {
        let mut leaves = Self::default();
        list.into_iter().for_each(|leaf| leaves.push(leaf));
        leaves
    }
}

/// What makes one leaf another one.
fn identity(leaf: &Leaf) -> (Name, Name, bool) {
    match &leaf.value {
        Value::Str(text) => (leaf.key.clone(), text.clone(), true),
        other => (leaf.key.clone(), other.to_json().into(), false),
    }
}

impl Leaves {
    pub(super) fn list(&self) -> &[Leaf] {
        self.0.as_ref().map_or(&[], |shared| &shared.list)
    }

    pub(super) fn len(&self) -> usize {
        self.list().len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn contains(&self, leaf: &Leaf) -> bool {
        self.0.as_ref().is_some_and(|shared| shared.known.contains(&identity(leaf)))
    }

    /// Whether there is room for some that it does not have.
    pub(super) fn fits(&self, count: usize, bytes: usize) -> bool {
        let held = self.0.as_ref().map_or(0, |shared| shared.bytes);
        self.len() + count <= limits::HIDDEN_MAX && held.saturating_add(bytes) <= limits::HIDDEN_BYTES_MAX
    }

    /// Bytes of all of them.
    pub(super) fn size_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |shared| shared.bytes)
    }

    /// Adds one, if it is not there.
    pub(super) fn push(&mut self, leaf: Leaf) {
        let shared = Arc::make_mut(self.0.get_or_insert_default());
        if shared.known.insert(identity(&leaf)) {
            shared.bytes = shared.bytes.saturating_add(leaf.value.size_bytes());
            shared.list.push(leaf);
            shared.earlier = shared.finders.take().unwrap_or_else(|| std::mem::take(&mut shared.earlier));
        }
    }

    /// Those that are meant.
    pub(super) fn only(&self, is_meant: impl Fn(&Leaf) -> bool) -> Self {
        let meant: Vec<Leaf> = self.list().iter().filter(|leaf| is_meant(leaf)).cloned().collect();
        if meant.len() == self.len() { self.clone() } else { meant.into() }
    }

    /// Those that may stand in the text of JSON.
    pub(super) fn within(&self, json: &str) -> Self {
        let mut held = Vec::new();
        self.finders().iter().for_each(|finder| finder.held(json, &mut held));
        let list = self.list();
        if held.len() == list.len() {
            return self.clone();
        }
        held.into_iter().map(|at| list[at].clone()).collect::<Vec<_>>().into()
    }

    /// What finds them, largest first.
    pub(super) fn finders(&self) -> &[Arc<Finder>] {
        let Some(shared) = &self.0 else { return &[] };
        shared.finders.get_or_init(|| finder::extended(&shared.earlier, &shared.list))
    }
}
