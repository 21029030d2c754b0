//! A store in memory whose answers take their time: others come in between, and a caller can be made to hang at any
//! request, before or after it is done, as when its process dies.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use windlass_core::escrow::{Draw, Drawn};
use windlass_core::ids::{Digest, Name, RunId};
use windlass_ports::fake::MemoryStore;
use windlass_ports::store::{Answer, Created, Delivered, Layer, Message, NewRun, Object, Page, Put, Query, Store};

/// Wraps the store in memory.
#[derive(Debug)]
pub(crate) struct Interleaved {
    inner: MemoryStore,
    random: AtomicU64,
    asked: AtomicUsize,
    hangs_at: usize,
}

impl Interleaved {
    /// A store whose delays follow from a seed.
    pub(crate) fn new(inner: MemoryStore, seed: u64) -> Self {
        Self { inner, random: AtomicU64::new(seed), asked: AtomicUsize::new(0), hangs_at: usize::MAX }
    }

    /// A store that does not answer from a point on: two points for each request, before and after it is done.
    pub(crate) fn hanging(inner: MemoryStore, at: usize) -> Self {
        Self { hangs_at: at, ..Self::new(inner, 0) }
    }

    /// Whether the point at which it hangs was reached.
    pub(crate) fn hung(&self) -> bool {
        self.asked.load(Ordering::SeqCst) > self.hangs_at
    }

    async fn pass(&self) {
        if self.asked.fetch_add(1, Ordering::SeqCst) >= self.hangs_at {
            return std::future::pending().await;
        }
        let step = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst);
        let spread = (step ^ (step >> 31)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 61;
        for _ in 0..spread {
            tokio::task::yield_now().await;
        }
    }

    /// Performs a request between two points. The store in memory does it when it is asked, not when it is waited for.
    fn slowly<'a, T: Send + 'a>(
        &'a self,
        ask: impl FnOnce(&'a MemoryStore) -> Answer<'a, T> + Send + 'a,
    ) -> Answer<'a, T> {
        Box::pin(async move {
            self.pass().await;
            let answer = ask(&self.inner).await;
            self.pass().await;
            answer
        })
    }
}

impl Layer for Interleaved {
    fn below(&self) -> &dyn Store {
        &self.inner
    }

    fn object(&self, kind: Name, key: Name) -> Answer<'_, Option<Object>> {
        self.slowly(|inner| inner.object(kind, key))
    }

    fn objects(&self, kind: Name, after: Option<Name>, limit: usize) -> Answer<'_, Vec<Object>> {
        self.slowly(move |inner| inner.objects(kind, after, limit))
    }

    fn put_object(&self, put: Put) -> Answer<'_, bool> {
        self.slowly(|inner| inner.put_object(put))
    }

    fn draw(&self, draw: Draw) -> Answer<'_, Drawn> {
        self.slowly(|inner| inner.draw(draw))
    }

    fn put_bundle(&self, digest: Digest, bytes: Vec<u8>) -> Answer<'_, ()> {
        self.slowly(move |inner| inner.put_bundle(digest, bytes))
    }

    fn create(&self, run: NewRun) -> Answer<'_, Created> {
        self.slowly(|inner| inner.create(run))
    }

    fn deliver(&self, message: Message) -> Answer<'_, Delivered> {
        self.slowly(|inner| inner.deliver(message))
    }

    fn ids(&self, after: Option<RunId>, limit: usize) -> Answer<'_, Vec<RunId>> {
        self.slowly(move |inner| inner.ids(after, limit))
    }

    fn list(&self, query: Query) -> Answer<'_, Page> {
        self.slowly(|inner| inner.list(query))
    }
}
