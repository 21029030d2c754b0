//! Whose tokens a process takes that serves calls: the issuers as they are configured, and their keys, which are looked at
//! again and again.

use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use windlass::wire::Wiring;
use windlass_server::auth::Authority;

use crate::commands::tokens;
use crate::config::Issuer;
use crate::exit::Problem;

/// How often keys are looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The issuers, and the keys that they had when somebody looked last.
#[derive(Clone)]
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

    /// Looks for as long as it is let, and tells of an authority that is new. Keys that cannot be used change nothing, and
    /// neither does a look that panics.
    pub(super) async fn follow(mut self, every: Duration, trust: impl Fn(Authority)) {
        loop {
            tokio::time::sleep(every).await;
            // A key may be on a disk that is slow, or be told by a program.
            let mut next = self.clone();
            let looking = tokio::task::spawn_blocking(move || {
                let looked = next.look();
                (next, looked)
            });
            let looked = match looking.await {
                Ok((next, looked)) => {
                    self = next;
                    looked
                }
                Err(error) if error.is_panic() => {
                    tracing::error!(%error, "a look at the keys of issuers panicked: those before stay in use");
                    continue;
                }
                // The process ends.
                Err(_) => return,
            };
            match looked {
                Ok(None) => {}
                Ok(Some(authority)) => {
                    trust(authority);
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const TABLES: &str = r#"
        [acme]
        issuer = "https://acme.test"
        audience = "tools"
        algorithm = "HS256"
        key = "env:KEY"
    "#;

    #[tokio::test]
    async fn a_look_that_panics_is_followed_by_others() {
        let looks = Arc::new(AtomicUsize::new(0));
        let environment = {
            let looks = Arc::clone(&looks);
            move |_: &str| match looks.fetch_add(1, Ordering::SeqCst) {
                0 => Some("a".repeat(32).into()),
                1 => panic!("on purpose"),
                _ => Some("b".repeat(32).into()),
            }
        };
        let wiring = Wiring { environment: Arc::new(environment), ..Wiring::default() };
        let mut issuers = Issuers::new(toml::from_str(TABLES).expect("tables"), wiring);
        assert!(matches!(issuers.look(), Ok(Some(_))), "the first key is used");
        let (trusted, mut hears) = tokio::sync::mpsc::unbounded_channel();
        let following = tokio::spawn(issuers.follow(Duration::from_millis(1), move |_| {
            let _gone = trusted.send(());
        }));
        assert_eq!(hears.recv().await, Some(()), "the second key is used");
        assert!(looks.load(Ordering::SeqCst) > 2, "after a look that panicked");
        following.abort();
    }
}
