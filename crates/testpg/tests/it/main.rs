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

#[test]
fn a_standby_follows_and_is_promoted() {
    let settings = [("wal_level", "replica"), ("max_wal_senders", "4")];
    let settings: Vec<(String, String)> = settings.map(|(name, value)| (name.into(), value.into())).into();
    let primary = Server::start(Options { settings: settings.clone(), ..Options::default() });
    primary.execute("CREATE TABLE t (n int)").expect("run");
    let standby = Server::start(Options { settings, standby_of: Some(primary.port()), ..Options::default() });
    primary.execute("INSERT INTO t VALUES (7)").expect("run");
    let count = || standby.execute("SELECT count(*) FROM t").expect("read")[0][0].clone();
    while count().as_deref() != Some("1") {
        std::thread::yield_now();
    }
    assert_eq!(standby.execute("INSERT INTO t VALUES (8)").expect_err("a standby").code(), Some("25006"));
    primary.stop(Stop::Kill);
    standby.execute("SELECT pg_promote()").expect("promoted");
    standby.execute("INSERT INTO t VALUES (8)").expect("it takes writes");
    assert_eq!(count().as_deref(), Some("2"));
}

#[test]
fn a_disk_is_filled_and_has_room_again() {
    let server = Server::start(Options { fillable: true, ..Options::default() });
    server.execute("CREATE TABLE t (text text); ALTER TABLE t ALTER text SET STORAGE EXTERNAL").expect("run");
    let insert = "INSERT INTO t SELECT repeat('x', 100000) FROM generate_series(1, 20)";
    server.execute(insert).expect("there is room");
    server.fill_disk(true);
    assert_eq!(server.execute(insert).expect_err("no room").code(), Some("53100"));
    assert_eq!(server.execute("SELECT count(*) FROM t").expect("read")[0][0].as_deref(), Some("20"));
    server.fill_disk(false);
    server.execute(insert).expect("there is room again");
}

#[test]
fn a_clock_is_set_while_the_server_runs() {
    let server = Server::start(Options { faketime: Some("+0".into()), ..Options::default() });
    let now = || -> i64 {
        let rows = server.execute("SELECT extract(epoch FROM clock_timestamp())::bigint").expect("told");
        rows[0][0].as_deref().and_then(|text| text.parse().ok()).expect("a number")
    };
    let before = now();
    server.set_clock("-10m");
    assert!((540..660).contains(&(before - now())), "it is ten minutes back");
    server.set_clock("+0");
    assert!(now() >= before);
}
