//! Whose tokens a process takes that serves calls: the issuers as they are configured, and their keys, which are looked at
//! again and again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use windlass::wire::Wiring;
use windlass_server::auth::Authority;
use windlass_server::calls::Api;

use crate::commands::tokens;
use crate::config::Issuer;
use crate::exit::Problem;

/// How often keys are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The issuers, and the keys that they had when somebody looked last.
pub(super) struct Issuers {
    tables: BTreeMap<String, Issuer>,
    wiring: Wiring,
    seen: Option<BTreeMap<String, Option<SecretString>>>,
}

fn are_same(one: &BTreeMap<String, Option<SecretString>>, other: &BTreeMap<String, Option<SecretString>>) -> bool {
    let shown = |key: &Option<SecretString>| key.as_ref().map(|key| key.expose_secret().to_owned());
    one.values().map(shown).eq(other.values().map(shown))
}

impl Issuers {
    pub(super) fn new(tables: BTreeMap<String, Issuer>, wiring: Wiring) -> Self {
        Self { tables, wiring, seen: None }
    }

    /// Whose tokens are taken, with the keys of now; none when they are those of the last look.
    ///
    /// # Errors
    /// A key that is not there, or is none.
    pub(super) fn look(&mut self) -> Result<Option<Authority>, Problem> {
        let key = |issuer: &Issuer| (issuer.key.clone(), self.wiring.secret(&issuer.key));
        let keys: BTreeMap<_, _> = self.tables.values().map(key).collect();
        if self.seen.as_ref().is_some_and(|seen| are_same(seen, &keys)) {
            return Ok(None);
        }
        let authority = tokens::authority_of(&self.tables, &|reference| keys.get(reference).cloned().flatten());
        self.seen = Some(keys);
        authority.map(Some)
    }

    /// Looks for as long as it is let. Keys that cannot be used change nothing.
    pub(super) async fn follow(mut self, api: Arc<Api>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            // A key may be on a disk that is slow, or be told by a program.
            let looking = tokio::task::spawn_blocking(move || {
                let looked = self.look();
                (self, looked)
            });
            let Ok((issuers, looked)) = looking.await else { return };
            self = issuers;
            match looked {
                Ok(None) => {}
                Ok(Some(authority)) => {
                    api.trust(authority);
                    tracing::info!("keys of issuers have changed: the new ones are used");
                }
                Err(problem) => {
                    let error = problem.message;
                    tracing::error!(%error, "keys of issuers have changed, and cannot be used: those before stay in use");
                }
            }
        }
    }
}
