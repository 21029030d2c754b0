//! What each route answers, and to whom.

use windlass_runtime::{Driven, Scope};

use crate::kit::process;

#[tokio::test]
async fn a_process_that_is_up_says_so() {
    let process = process(true).await;
    let health = process.get("/healthz").await;
    assert_eq!((health.status, &*health.body), (200, "ok\n"));
    for (request, status) in [
        ("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", 404),
        ("GET /healthz/ HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", 404),
        ("GET /healthz/../metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", 404),
        ("POST /healthz HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\nconnection: close\r\n\r\nx", 405),
        ("GET /healthz HTTP/1.0\r\n\r\n", 200),
        ("nonsense\r\n\r\n", 400),
    ] {
        assert_eq!(process.send(request).await.status, status, "{request}");
    }
}

#[tokio::test]
async fn a_worker_is_ready_while_it_counts_and_is_not_told_to_stop() {
    let process = process(true).await;
    let early = process.get("/readyz").await;
    assert_eq!(early.status, 503, "{}", early.body);
    assert!(early.head.contains("retry-after: 1") && early.body.contains("not_joined"), "{}", early.body);
    let driving = tokio::spawn({
        let (engine, stop) = (process.engine.clone(), process.stop.clone());
        async move { engine.drive(Scope::All, stop).await }
    });
    while process.get("/readyz").await.status != 200 {
        tokio::task::yield_now().await;
    }
    process.stop.graceful.cancel();
    let draining = process.get("/readyz").await;
    assert_eq!(draining.status, 503);
    assert!(draining.body.contains("\"draining\":true"), "{}", draining.body);
    assert_eq!(driving.await.expect("a task").expect("driven"), Driven::Stopped);
    process.engine.leave().await;
    assert_eq!(process.engine.vitals().worker, None);
}

#[tokio::test]
async fn a_process_that_drives_nothing_needs_the_store_only() {
    let process = process(false).await;
    assert_eq!(process.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn a_process_whose_store_takes_no_writes_is_not_ready() {
    let process = process(false).await;
    process.store.refuse_objects(true);
    let ready = process.get("/readyz").await;
    assert!(ready.status == 503 && ready.body.contains("\"store\":\"no_writes\""), "{}", ready.body);
    let metrics = process.get("/metrics").await;
    for line in ["windlass_store_up 0", "windlass_workers 0"] {
        assert!(metrics.body.lines().any(|found| found == line), "{line} in\n{}", metrics.body);
    }
    process.store.refuse_objects(false);
    assert_eq!(process.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn the_numbers_are_text_for_prometheus() {
    let process = process(true).await;
    let metrics = process.get("/metrics").await;
    assert_eq!(metrics.status, 200);
    assert!(metrics.head.contains("content-type: text/plain; version=0.0.4"), "{}", metrics.head);
    for name in ["windlass_steps_total 0", "windlass_workers 0", "windlass_fenced_total 0", "windlass_store_up 1"] {
        assert!(metrics.body.lines().any(|line| line == name), "{name} in\n{}", metrics.body);
    }
}

#[tokio::test]
async fn the_listener_ends_when_it_is_told() {
    let process = process(true).await;
    process.ended.cancel();
    process.listening.await.expect("it ends");
    assert!(tokio::net::TcpStream::connect(process.address).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_does_not_come_is_not_waited_for() {
    let process = process(true).await;
    let answer = process.send("GET /healthz HTTP/1.1\r\nhost: a").await;
    assert!(matches!(answer.status, 0 | 408), "{}", answer.head);
}
