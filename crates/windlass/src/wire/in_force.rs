//! Rules of a process: opened, and written down in the audit trail with when which set came into force.

use std::sync::Arc;

use futures::StreamExt;
use serde::{Deserialize, Serialize};
use windlass_core::ids::Name;
use windlass_core::run::TenantScope;
use windlass_policy::{CandidateConfig, LivePolicy, Load};
use windlass_ports::policy::{AllowAll, Policy};
use windlass_ports::store::{Put, Store, StoreError};
use windlass_runtime::trail::{self, Deed};

use super::{WireError, Wiring, now};

/// The kind of the object that says what of rules was written down last, and its key.
const IN_FORCE: (&str, &str) = ("policy_in_force", "last");
/// Characters of a reason.
const REASON_MAX: usize = 240;

/// What was written down last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Last {
    /// The version in force.
    #[serde(default)]
    version: Option<Name>,
    /// Why what was read since is not.
    #[serde(default)]
    refused: Option<Name>,
    /// The version of the candidate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    candidate: Option<Name>,
    /// Why what was read of the candidate since is not tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    candidate_refused: Option<Name>,
}

impl Wiring {
    /// The configured rule set, which follows its files from here on; none when none is configured.
    ///
    /// # Errors
    /// A rule set that is not good, or none where tools need one.
    pub fn rules(&self) -> Result<Option<Arc<LivePolicy>>, WireError> {
        let candidate = self.tried()?;
        let Some(folder) = &self.policy else {
            let tools = self.catalog.tools.len() + self.catalog.actions.len() + self.catalog.mcp.len();
            if self.require_policy && tools > 0 {
                let message = "tools, actions and MCP servers need a policy here, and there is none";
                return Err(WireError::new("policy.path", message)
                    .hint("name a folder with rules, or write `required = false` under `[policy]`"));
            }
            return Ok(None);
        };
        let folder = self.folder.join(folder);
        let policy = LivePolicy::open_with(&folder, self.trust.clone(), candidate).map_err(|findings| {
            WireError::new("policy.path", findings).hint("`windlass policy check` shows everything that is wrong")
        })?;
        policy.follow().map_err(|error| WireError::new("policy.path", error))?;
        Ok(Some(policy))
    }

    /// The candidate with its folder as it is found from here.
    fn tried(&self) -> Result<Option<CandidateConfig>, WireError> {
        let Some(candidate) = &self.candidate else { return Ok(None) };
        candidate.check().map_err(|(key, why)| WireError::new(format!("policy.candidate.{key}"), why))?;
        if self.policy.is_none() {
            let message = "a candidate is tried beside a rule set in force, and there is none";
            return Err(
                WireError::new("policy.candidate", message).hint("name the rule set in force as `[policy] path`")
            );
        }
        Ok(Some(CandidateConfig { path: self.folder.join(&candidate.path), ..candidate.clone() }))
    }
}

/// What answers by these rules; what allows everything without any.
#[must_use]
pub fn answering(rules: Option<&Arc<LivePolicy>>) -> Arc<dyn Policy> {
    rules.map_or_else(|| Arc::new(AllowAll) as Arc<dyn Policy>, |rules| Arc::clone(rules) as Arc<dyn Policy>)
}

/// Writes down which rules are in force before anything is decided by them, and every change for as long as somebody else
/// holds the store. What was written down last is not repeated, whoever loads it.
///
/// # Errors
/// The store fails.
pub async fn record_loads(
    rules: &LivePolicy,
    store: &Arc<dyn Store>,
    actor: Name,
) -> Result<impl Future<Output = ()> + Send + 'static, StoreError> {
    let mut loads = rules.loads();
    let folder: Name = rules.folder().file_name().unwrap_or_default().to_string_lossy().into();
    // What the set in force is, and what the candidate.
    for _ in 0..2 {
        if let Some(load) = loads.next().await {
            note_load(&**store, &actor, &folder, &load).await?;
        }
    }
    let store = Arc::downgrade(store);
    Ok(async move {
        while let Some(load) = loads.next().await {
            let Some(store) = store.upgrade() else { return };
            if let Err(error) = note_load(&*store, &actor, &folder, &load).await {
                tracing::error!(%error, ?load, "that rules were loaded could not be written down");
            }
        }
    })
}

/// Writes down what became of the files of a rule set, unless that was the last thing that was.
///
/// # Errors
/// The store fails.
pub async fn note_load(store: &dyn Store, actor: &Name, folder: &Name, load: &Load) -> Result<(), StoreError> {
    let (kind, key): (Name, Name) = (IN_FORCE.0.into(), IN_FORCE.1.into());
    let object = store.object(kind.clone(), key.clone()).await?;
    let revision = object.as_ref().map_or(0, |object| object.revision);
    // What cannot be read is as good as none: it is written anew.
    let last: Last = object.and_then(|object| serde_json::from_slice(&object.bytes).ok()).unwrap_or_default();
    let short = |why: &str| why.chars().filter(|c| !c.is_control()).take(REASON_MAX).collect::<String>();
    let word = |version: &Option<Name>| version.as_deref().unwrap_or("none").to_owned();
    let (next, action, detail) = match load {
        Load::InForce(version) => {
            let detail = format!("version {version}; before: {}", word(&last.version));
            (Last { version: Some(version.clone()), refused: None, ..last.clone() }, "policy.load", detail)
        }
        Load::Refused(why) => {
            let why = short(why);
            let detail = format!("in force stays {}: {why}", word(&last.version));
            (Last { refused: Some(why.into()), ..last.clone() }, "policy.refuse", detail)
        }
        Load::Candidate(version) => {
            let detail = format!("version {}; before: {}", word(version), word(&last.candidate));
            let next = Last { candidate: version.clone(), candidate_refused: None, ..last.clone() };
            (next, "policy.candidate_load", detail)
        }
        Load::CandidateRefused(why) => {
            let why = short(why);
            let detail = format!("what is tried stays as it was: {why}");
            (Last { candidate_refused: Some(why.into()), ..last.clone() }, "policy.candidate_refuse", detail)
        }
    };
    if next == last {
        return Ok(());
    }
    let (actor, subject) = (actor.clone(), folder.clone());
    let deed = Deed { at: now(), actor, action: action.into(), subject, detail: Some(detail.into()) };
    trail::note(store, &TenantScope::default().tenant, deed).await?;
    let bytes = serde_json::to_vec(&next).map_err(|error| StoreError::Invalid(error.to_string()))?;
    // Whoever was faster has written down the same, or what came after it.
    store.put_object(Put { kind, key, expected: revision, bytes: Some(bytes) }).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use windlass_ports::fake::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn what_becomes_of_the_files_is_written_down_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |text: &str| std::fs::write(folder.path().join("a.cedar"), text).expect("written");
        write("@id(\"one\") permit (principal, action, resource);");
        let rules = LivePolicy::open(folder.path()).expect("rules");
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let recording = record_loads(&rules, &store, "olga".into()).await.expect("recorded");
        let first = rules.version();
        write("permit (principal");
        rules.refresh().expect_err("broken");
        rules.refresh().expect_err("still broken");
        write("@id(\"two\") permit (principal, action, resource);");
        rules.refresh().expect("read");
        let second = rules.version();
        drop(rules);
        // No more comes.
        recording.await;
        let acts = store.trail().acts(TenantScope::default().tenant, 0, 10).await.expect("read");
        let shown: Vec<_> = acts.iter().map(|act| (&*act.action, act.detail.clone().unwrap_or_default())).collect();
        assert_eq!(shown.len(), 3, "{shown:?}");
        assert_eq!(shown[0], ("policy.load", format!("version {first}; before: none").into()));
        assert!(
            shown[1].0 == "policy.refuse" && shown[1].1.starts_with(&format!("in force stays {first}: ")),
            "{shown:?}"
        );
        assert_eq!(shown[2], ("policy.load", format!("version {second}; before: {first}").into()));
        note_load(&*store, &"bob".into(), &"x".into(), &Load::InForce(second)).await.expect("noted");
        assert_eq!(store.trail().acts(TenantScope::default().tenant, 0, 10).await.expect("read").len(), 3);
    }
}
