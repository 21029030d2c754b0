//! A database that goes away: a process that is told to stop then ends within its grace, as one that has nothing left
//! to do.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use windlass_testpg::{Options, Server, Stop};

use super::{ACTS, Fleet, Served, action};
use crate::kit::{Place, TestStore};

/// Processes that serve a database, which is away from then on. `held` is whether the worker has a call out.
fn away(role: &[&str], held: bool) -> (Server, Fleet, Served) {
    let server = Server::start(Options::default());
    let database = server.database();
    let place = Place::new();
    let store = TestStore::of(format!("{}?lease_ms=60000", database.url()), database);
    let fleet = Fleet { place, store };
    fleet.write("acts.yml", ACTS);
    fleet.write("windlass.toml", &action("touch began; sleep 60").replace("20s", "3s"));
    let served = fleet.start(role);
    if held {
        fleet.submit("acts.yml", "held", &[]);
        let began = fleet.place.path("began");
        fleet.until_all("its call is out", || began.exists().then_some(()));
    }
    server.stop(Stop::Immediate);
    (server, fleet, served)
}

#[test]
fn who_holds_nothing_ends_at_once_although_the_database_is_away() {
    for role in
        [&["worker"][..], &["serve", "--role", "server", "--listen", "127.0.0.1:0"], &["serve", "--role", "reaper"]]
    {
        let (_server, _fleet, served) = away(role, false);
        let told = Instant::now();
        let ended = served.stop();
        assert_eq!(ended.code(), Some(0), "{role:?}");
        assert!(told.elapsed() < Duration::from_secs(8), "{role:?} took {:?}", told.elapsed());
    }
}

#[test]
fn who_has_a_call_out_ends_within_its_grace_although_the_database_is_away() {
    let (_server, _fleet, served) = away(&["worker"], true);
    let told = Instant::now();
    let ended = served.stop();
    assert_eq!(ended.code(), Some(0));
    assert!(told.elapsed() < Duration::from_secs(8), "it took {:?}", told.elapsed());
}

#[test]
fn a_second_word_ends_it_at_once_although_the_database_is_away() {
    let (_server, _fleet, served) = away(&["worker"], true);
    let told = Instant::now();
    served.signal(Signal::SIGTERM);
    // Two words that come together are one: the second is repeated until it is heard.
    let mut served = served;
    let ended = loop {
        if let Some(ended) = served.child.try_wait().expect("state") {
            break ended;
        }
        served.signal(Signal::SIGTERM);
        std::thread::yield_now();
    };
    assert_eq!(ended.code(), Some(130));
    assert!(told.elapsed() < Duration::from_secs(3), "it took {:?}", told.elapsed());
}
