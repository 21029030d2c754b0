//! Tools of MCP servers that are left out, as acts of the audit trail and one object of the store for each server.
//!
//! Both are bounded whatever a server shows: it may invent names, and other reasons, with every list. What is known of it are
//! the newest tools and how many there were; an act tells of those that no act told of, once in a while.

use serde::{Deserialize, Serialize};
use windlass_core::ids::Name;
use windlass_core::time::Timestamp;
use windlass_ports::store::StoreError;

use crate::mcp::quarantine::{Quarantine, TRIES_MAX, crowded, decode, encode, put};

/// The kind of the objects.
const EXCLUDED: &str = "mcp_excluded";
/// Tools of a server that are remembered: the newest ones.
const TOOLS_MAX: usize = 50;
/// Tools that one act names.
const NAMED_MAX: usize = 10;
/// Characters of a tool's name and of why it is left out that are recorded.
const NAME_CHARS_MAX: usize = 100;
const WHY_CHARS_MAX: usize = 300;
/// How often at most an act tells of tools of one server, in milliseconds.
const WINDOW_MS: u64 = 3_600_000;

/// A tool that is left out, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Left {
    tool: String,
    why: String,
}

impl Left {
    pub(crate) fn new(tool: &str, why: &str) -> Self {
        let cut = |text: &str, max| text.chars().take(max).collect();
        Self { tool: cut(tool, NAME_CHARS_MAX), why: cut(why, WHY_CHARS_MAX) }
    }
}

/// What is known of one server.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Excluded {
    /// The newest ones, oldest first.
    tools: Vec<Left>,
    /// How often one came that was not among them.
    count: u64,
    /// How many of these acts told of.
    told: u64,
    /// When the last act was made.
    told_at: Option<Timestamp>,
}

impl Excluded {
    /// Remembers those that are not known. Whether there were any.
    fn add(&mut self, left: &[Left]) -> bool {
        let before = self.count;
        for one in left {
            if !self.tools.contains(one) {
                self.tools.push(one.clone());
                self.count = self.count.saturating_add(1);
            }
        }
        self.tools.drain(..self.tools.len().saturating_sub(TOOLS_MAX));
        self.count > before
    }

    fn owes(&self) -> bool {
        self.count > self.told
    }

    /// What an act is to say of those that none told of, when it is time for one.
    fn due(&mut self, now: Timestamp) -> Option<String> {
        let is_early = self.told_at.is_some_and(|at| now.since_ms(at) < WINDOW_MS);
        if is_early || !self.owes() {
            return None;
        }
        let untold = usize::try_from(self.count - self.told).unwrap_or(usize::MAX);
        let newest = self.tools.iter().rev().take(untold.min(NAMED_MAX));
        let mut said: Vec<String> = newest.map(|one| format!("`{}`: {}", one.tool, one.why)).collect();
        said.reverse();
        if untold > said.len() {
            said.push(format!("and {} more", untold - said.len()));
        }
        (self.told, self.told_at) = (self.count, Some(now));
        Some(said.join("; "))
    }
}

impl Quarantine {
    /// Remembers tools of a server that are left out, and tells of them when it is time for that. Whether there are some that
    /// are to be told of later.
    ///
    /// # Errors
    /// The store fails, or others change the same all the time.
    pub(crate) async fn exclude(&self, server: &Name, left: &[Left]) -> Result<bool, StoreError> {
        let Some((store, clock)) = self.behind() else { return Ok(false) };
        let mut noted = false;
        for _ in 0..TRIES_MAX {
            let found = store.object(EXCLUDED.into(), server.clone()).await?;
            let mut known = found.as_ref().map_or_else(|| Ok(Excluded::default()), decode::<Excluded>)?;
            let added = known.add(left);
            let due = known.due(clock.now());
            if !added && due.is_none() {
                return Ok(known.owes());
            }
            if let Some(detail) = due.filter(|_| !noted) {
                self.note(&"default".into(), "mcp.exclude", server.clone(), detail).await?;
                noted = true;
            }
            let expected = found.map_or(0, |object| object.revision);
            if put(store, EXCLUDED, server, expected, Some(encode(&known)?)).await? {
                return Ok(known.owes());
            }
        }
        Err(crowded(server))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use windlass_ports::fake::{ManualClock, MemoryStore};
    use windlass_ports::store::Store;

    use super::*;

    fn left(tools: impl IntoIterator<Item = String>, why: &str) -> Vec<Left> {
        tools.into_iter().map(|tool| Left::new(&tool, why)).collect()
    }

    struct World {
        store: Arc<MemoryStore>,
        clock: Arc<ManualClock>,
        quarantine: Quarantine,
    }

    impl World {
        fn new() -> Self {
            let (store, clock) = (Arc::new(MemoryStore::new()), Arc::new(ManualClock::new(Timestamp(7), 0)));
            let quarantine = Quarantine::default();
            quarantine.bind(Arc::clone(&store) as _, Arc::clone(&clock) as _);
            Self { store, clock, quarantine }
        }

        async fn exclude(&self, left: &[Left]) -> bool {
            self.quarantine.exclude(&"s".into(), left).await.unwrap()
        }

        async fn acts(&self) -> Vec<String> {
            let acts = self.store.trail().acts("default".into(), 0, 1_000).await.unwrap();
            acts.iter().map(|act| format!("{} {}", act.subject, act.detail.as_deref().unwrap_or_default())).collect()
        }

        /// How many objects there are, and how many bytes they have.
        async fn size(&self) -> (usize, usize) {
            let all = self.store.objects(EXCLUDED.into(), None, 1_000).await.unwrap();
            (all.len(), all.iter().map(|object| object.bytes.len()).sum())
        }
    }

    #[tokio::test]
    async fn names_that_a_server_invents_grow_nothing() {
        let world = World::new();
        for list in 0..20 {
            let names = (0..20).map(|tool| format!("{list}-{tool}-{}", "x".repeat(5_000)));
            world.exclude(&left(names, &"y".repeat(5_000))).await;
        }
        let (objects, bytes) = world.size().await;
        assert!(objects == 1 && bytes < 2 * TOOLS_MAX * (NAME_CHARS_MAX + WHY_CHARS_MAX), "{objects} {bytes}");
        let acts = world.acts().await;
        assert_eq!(acts.len(), 1, "the others are told of later");
        assert!(acts[0].len() < 2 * NAMED_MAX * (NAME_CHARS_MAX + WHY_CHARS_MAX), "{}", acts[0].len());
        assert!(acts[0].starts_with("s `0-10-xxx") && acts[0].ends_with("; and 10 more"), "{acts:?}");
        world.clock.advance(WINDOW_MS);
        assert!(!world.exclude(&[]).await, "all were told of");
        let acts = world.acts().await;
        assert!(acts.len() == 2 && acts[1].ends_with("; and 370 more"), "{acts:?}");
    }

    #[tokio::test]
    async fn a_reason_that_comes_back_is_known() {
        let world = World::new();
        for round in 0..9 {
            let owes = world.exclude(&left(["t".into()], if round % 2 == 0 { "one" } else { "other" })).await;
            assert_eq!(owes, (1..4).contains(&round), "round {round}");
            if round == 3 {
                world.clock.advance(WINDOW_MS);
            }
        }
        assert_eq!(world.acts().await, ["s `t`: one", "s `t`: other"]);
    }
}
