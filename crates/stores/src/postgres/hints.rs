//! Hints that there is something to do: told within this process, and between processes by NOTIFY, outside of every
//! transaction. They may be lost; who waits looks again from time to time.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_postgres::AsyncMessage;
use tokio_postgres::types::Type;

use super::connect::{Connector, Purpose, Sql};
use super::pool::Pool;

/// Several changes within this time are one hint to other processes.
const COALESCE: Duration = Duration::from_millis(5);
/// How long after a failure the listener tries again, at most.
const RETRY_MAX: Duration = Duration::from_secs(5);

static NOTIFY: Sql = Sql { text: "SELECT pg_notify('windlass', $1)", types: &[Type::TEXT] };

/// The hints of one handle.
#[derive(Debug)]
pub(super) struct Hints {
    here: Notify,
    /// Somebody elsewhere has to be told.
    outgoing: Notify,
    /// Names this handle, which need not be told what it told.
    name: String,
    /// Whether others can be told.
    listens: AtomicBool,
}

/// The tasks that tell and listen. They end when it is dropped.
#[derive(Debug)]
pub(super) struct Listening(Vec<JoinHandle<()>>);

impl Listening {
    /// Of a handle that nobody tells anything.
    pub(super) fn none() -> Self {
        Self(Vec::new())
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

impl Hints {
    pub(super) fn new() -> Arc<Self> {
        let name = uuid::Uuid::now_v7().simple().to_string();
        let (here, outgoing, listens) = (Notify::new(), Notify::new(), AtomicBool::new(false));
        Arc::new(Self { here, outgoing, name, listens })
    }

    /// Tells this process when `woke`, and the others soon.
    pub(super) fn tell(&self, woke: bool) {
        if woke {
            self.tell_here();
            if self.listens.load(Ordering::Relaxed) {
                self.outgoing.notify_one();
            }
        }
    }

    fn tell_here(&self) {
        self.here.notify_waiters();
        self.here.notify_one();
    }

    /// Resolves with the next hint, or after the time between two looks.
    pub(super) async fn changed(&self, poll: Duration) {
        // A hint that does not come is no failure.
        let _hint = tokio::time::timeout(poll, self.here.notified()).await;
    }

    /// Starts telling and listening.
    pub(super) fn start(self: &Arc<Self>, connector: &Arc<Connector>, pool: &Arc<Pool>) -> Listening {
        if connector.is_pooled() {
            return Listening::none();
        }
        self.listens.store(true, Ordering::Relaxed);
        let teller = tokio::spawn(Arc::clone(self).tell_others(Arc::clone(pool)));
        let listener = tokio::spawn(Arc::clone(self).listen(Arc::clone(connector)));
        Listening(vec![teller, listener])
    }

    async fn tell_others(self: Arc<Self>, pool: Arc<Pool>) {
        loop {
            self.outgoing.notified().await;
            if let Err(error) = pool.rows(&NOTIFY, || vec![Box::new(self.name.clone())]).await {
                tracing::debug!(%error, "others are not told; they look from time to time");
            }
            tokio::time::sleep(COALESCE).await;
        }
    }

    async fn listen(self: Arc<Self>, connector: Arc<Connector>) {
        let mut retry = Duration::from_millis(50);
        loop {
            match self.listen_once(&connector).await {
                true => retry = Duration::from_millis(50),
                false => retry = (retry * 2).min(RETRY_MAX),
            }
            tokio::time::sleep(retry).await;
        }
    }

    /// Listens until the connection ends. Tells whether there was one.
    async fn listen_once(&self, connector: &Connector) -> bool {
        let Ok((client, mut connection)) = connector.open(Purpose::Any).await else { return false };
        let messages = async {
            loop {
                match poll_fn(|cx| connection.poll_message(cx)).await {
                    Some(Ok(AsyncMessage::Notification(note))) if note.payload() != self.name => self.tell_here(),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return,
                }
            }
        };
        let mut messages = std::pin::pin!(messages.fuse());
        let asked = tokio::select! {
            () = &mut messages => return true,
            asked = client.batch_execute("LISTEN windlass") => asked,
        };
        if asked.is_ok() {
            // What came while nobody listened.
            self.tell_here();
            messages.await;
        }
        true
    }
}
