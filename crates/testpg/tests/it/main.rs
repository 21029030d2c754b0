//! Tests of the server for tests.

use windlass_testpg::{Options, Server, Stop};

#[test]
fn databases_of_the_shared_server_are_apart() {
    let (a, b) = (windlass_testpg::database(), windlass_testpg::database());
    a.execute("CREATE TABLE t (n int); INSERT INTO t VALUES (7)").expect("run");
    assert_eq!(a.value("SELECT n FROM t"), "7");
    assert_eq!(b.execute("SELECT n FROM t").expect_err("another database").code(), Some("42P01"));
    let name = a.name().to_owned();
    drop(a);
    assert_eq!(b.value(&format!("SELECT count(*) FROM pg_database WHERE datname = '{name}'")), "0");
}

#[test]
fn a_server_comes_back_with_what_it_had() {
    let server = Server::start(Options::default());
    let database = server.database();
    database.execute("CREATE TABLE t (n int)").expect("run");
    for (number, how) in [Stop::Fast, Stop::Immediate, Stop::Kill].into_iter().enumerate() {
        database.execute(&format!("INSERT INTO t VALUES ({number})")).expect("run");
        server.stop(how);
        assert!(database.execute("SELECT 1").is_err(), "it is stopped");
        server.start_again();
        assert_eq!(database.value("SELECT count(*) FROM t"), (number + 1).to_string(), "{how:?}");
    }
}

#[test]
fn settings_and_rules_of_access_are_taken() {
    let server = Server::start(Options {
        settings: vec![("max_connections".into(), "17".into())],
        hba: vec!["host all windlass 127.0.0.1/32 trust".into(), "host all all 127.0.0.1/32 scram-sha-256".into()],
        ..Options::default()
    });
    assert_eq!(server.database().value("SHOW max_connections"), "17");
    assert!(!server.log().contains("FATAL"), "{}", server.log());
}
