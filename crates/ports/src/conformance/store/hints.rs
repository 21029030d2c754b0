//! Cases: whoever waits for work is told of it.

use std::sync::Arc;

use futures::future::join;

use super::Harness;
use super::setup::{NOW, Process, message, park, run};

pub(super) async fn a_change_here_is_told(harness: Arc<dyn Harness>) {
    let one = Process::open(&harness).await;
    let waiting = one.store.changed();
    let (created, ()) = join(one.store.create(run("a")), waiting).await;
    created.expect("created");
    // A change that came while nobody waited is told to the next one who does.
    one.store.create(run("b")).await.expect("created");
    one.store.changed().await;
}

pub(super) async fn a_change_elsewhere_is_told(harness: Arc<dyn Harness>) {
    let (one, two) = (Process::open(&harness).await, Process::open(&harness).await);
    let lease = one.begin("a").await;
    one.apply(park(&lease, &one.worker, 0, Some(u64::MAX >> 2))).await;
    let told = async {
        // A hint may come for nothing, so ask until the work is there.
        loop {
            one.store.changed().await;
            if !one.claim_all(NOW.0).await.is_empty() {
                break;
            }
        }
    };
    let (delivered, ()) = join(two.store.deliver(message("a", "m")), told).await;
    delivered.expect("delivered");
}
