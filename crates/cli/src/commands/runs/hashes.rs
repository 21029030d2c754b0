//! What a run is made of, as hashes: its documents, agents and skills, and what its decisions were taken under.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use windlass_core::basis::Basis;
use windlass_core::ids::{Digest, Name};
use windlass_core::journal::Entry;
use windlass_core::run::Run;
use windlass_ports::compile::Bundle;
use windlass_ports::store::Store;

use crate::commands::versions::{agents, packs};
use crate::exit::Problem;
use crate::journal::Reader;

/// The hashes of a run.
#[derive(Debug, Serialize)]
pub(super) struct Hashes {
    /// The published version that it was started as.
    published: Option<Name>,
    /// Of its bundle, which stands for all of the following four.
    bundle: Digest,
    /// Path of the machine document. None, as are the others, where the bundle is gone or damaged.
    machine: Option<String>,
    /// Of its documents, by path.
    files: Option<BTreeMap<String, Digest>>,
    /// Of its agents, by machine and name. None where this build cannot compile the bundle.
    agents: Option<BTreeMap<Name, BTreeMap<Name, Digest>>>,
    /// Of the skills in its bundle, by `NAME@VERSION`.
    skills: Option<BTreeMap<String, Digest>>,
    /// What its first decision was taken under; none where no build recorded it.
    began_under: Option<Basis>,
    /// The same of its last decision.
    under: Option<Basis>,
}

impl Hashes {
    /// Those of a run.
    ///
    /// # Errors
    /// The store fails.
    pub(super) async fn of(store: &Arc<dyn Store>, run: &Run) -> Result<Self, Problem> {
        let digest = run.start.bundle;
        let bytes = store.blob(digest).await?.filter(|bytes| Digest::of(bytes) == digest);
        let bundle = bytes.and_then(|bytes| Bundle::decode(&bytes).ok());
        let program = bundle.as_ref().and_then(|bundle| windlass::wire::compiler().compile(bundle).ok());
        let skills = bundle.as_ref().and_then(|bundle| packs(&bundle.skills).ok());
        let hash = |(path, text): (&String, &String)| (path.clone(), Digest::of(text.as_bytes()));
        // What is damaged is what `fsck` tells.
        let first = Reader::new(Arc::clone(store), run.id().clone(), 0).next(1).await.unwrap_or_default();
        let began_under = first.first().and_then(|record| match record.entries.first() {
            Some(Entry::Decided { basis, .. }) => basis.as_deref().cloned(),
            _ => None,
        });
        Ok(Self {
            published: run.start.caller.version.clone(),
            bundle: digest,
            machine: bundle.as_ref().map(|bundle| bundle.entry.clone()),
            files: bundle.as_ref().map(|bundle| bundle.files.iter().map(hash).collect()),
            agents: program.map(|program| agents(&program)),
            skills: skills.map(|packs| packs.iter().map(|pack| (pack.id(), pack.digest)).collect()),
            began_under,
            under: run.basis.as_deref().cloned(),
        })
    }

    /// The same as rows of a name and a value each.
    pub(super) fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows: Vec<(&'static str, String)> = Vec::new();
        rows.extend(self.published.iter().map(|version| ("version", version.to_string())));
        rows.push(("bundle", self.bundle.short()));
        rows.extend(self.files.iter().flatten().map(|(path, hash)| ("document", format!("{path} {}", hash.short()))));
        for (machine, agents) in self.agents.iter().flatten() {
            rows.extend(agents.iter().map(|(name, hash)| ("agent", format!("{name}@{} of {machine}", hash.short()))));
        }
        rows.extend(self.skills.iter().flatten().map(|(id, hash)| ("pack", format!("{id} {}", hash.short()))));
        match (&self.began_under, &self.under) {
            (Some(first), Some(last)) if first != last => {
                rows.push(("began under", told(first)));
                rows.push(("goes on under", told(last)));
            }
            (_, Some(last)) => rows.push(("under", told(last))),
            (_, None) => {}
        }
        rows
    }
}

/// A basis in one line.
fn told(basis: &Basis) -> String {
    let Basis { policy, models, prices, config } = basis;
    let policy = policy.as_deref().map(|version| format!("rules {version}"));
    let hash = |what: &str, hash: &Option<Digest>| hash.map(|hash| format!("{what} {}", hash.short()));
    let parts = [policy, hash("models", models), hash("prices", prices), hash("configuration", config)];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
