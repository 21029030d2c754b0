//! The points at which a process may be made to die, in the order in which a run passes them.

use std::sync::{Arc, Mutex};

use windlass_core::contract::{Class, Idempotency};
use windlass_runtime::{Driven, Failpoint, Point};

use crate::kit::{Kit, acting, answer, contract, done, tree};

#[tokio::test(start_paused = true)]
async fn points_are_passed_in_order() {
    let passed: Arc<Mutex<Vec<Point>>> = Arc::default();
    let mut kit = Kit::new();
    let inside = Arc::clone(&passed);
    kit.tool(contract("pay", Class::Write, Idempotency::None), move |_| {
        assert_eq!(inside.lock().expect("lock").last(), Some(&Point::Departing("action")));
        async { answer(1) }
    });
    kit.machine("main", vec![acting("a", "pay", "done"), done()]);
    let points = Arc::clone(&passed);
    kit.settings.failpoint = Some(Failpoint::new(move |point| points.lock().expect("lock").push(point)));
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    assert_eq!(tree(&engine, &run).await, Driven::Ended);
    assert_eq!(
        *passed.lock().expect("lock"),
        [
            Point::BeforeCommit,
            Point::AfterCommit,
            Point::BeforeSend("action"),
            Point::Departing("action"),
            Point::AfterSend("action"),
            Point::BeforeSettle("action"),
            Point::BeforeCommit,
            Point::AfterCommit,
        ]
    );
}
