//! Calls that fail when nobody knows whether they happened: cut at every point, such a call leaves at most once, and what
//! the run says of it is what the world saw, or that it is not known.

use windlass_core::contract::Class;
use windlass_core::effect::Outcome;
use windlass_core::failure::Code;
use windlass_core::ids::RunId;
use windlass_core::journal::{Entry, Record};
use windlass_ports::store::Store;

use super::answers::{Scene, TOOL, drive, write};
use super::cuts::block_on;
use super::place::Place;
use super::worker::{RUN, store};
use super::world::World;

/// How the call ended, by the journal: its outcomes, as they were settled.
pub(super) async fn outcomes(store: &dyn Store) -> Vec<Outcome> {
    let rows = store.journal(RunId::stored(RUN), 0, usize::MAX).await.expect("a journal");
    let mut calls = Vec::new();
    let mut found = Vec::new();
    for entry in rows.iter().flat_map(|row| Record::decode(&row.bytes).expect("a record").entries) {
        match entry {
            Entry::CallIntended { effect, call } if &**call.call.target() == TOOL => calls.push(effect),
            Entry::CallSettled { effect, outcome, .. } if calls.contains(&effect) => found.push(outcome),
            _ => {}
        }
    }
    found
}

fn prove(class: Class) {
    let world = World::start();
    let scene = Scene::unasked();
    let (mut unknown, mut cuts) = (0, 0);
    for cut in 1.. {
        let place = Place::new(&world);
        write(place.path(), &world, &scene);
        let text = std::fs::read_to_string(place.path().join("windlass.toml")).expect("the configuration");
        let (before, after) = text.split_once(&format!("[tools.{TOOL}]")).expect("the tool");
        let after = after.replacen("class = \"danger\"", &format!("class = \"{}\"", class.as_str()), 1);
        let after = after.replacen("on_unknown = \"ask\"", "on_unknown = \"fail\"", 1);
        std::fs::write(place.path().join("windlass.toml"), format!("{before}[tools.{TOOL}]{after}")).expect("written");
        let point = drive(place.path(), &world, &scene, cut);
        let what = format!("cut {cut} at {point:?}");
        let times = world.take().iter().filter(|deed| deed.what == TOOL).count();
        block_on(async {
            let store = store(place.path()).await;
            match outcomes(&*store).await.as_slice() {
                [Outcome::Returned(_)] => assert_eq!(times, 1, "{what}"),
                [Outcome::Failed(failure)] => {
                    assert_eq!(failure.code, Code::ToolOutcomeUnknown, "{what}");
                    assert!(times <= 1, "called {times} times, {what}");
                    unknown += 1;
                }
                other => panic!("{other:?}, {what}"),
            }
            assert_eq!(store.fsck().await.expect("fsck"), Vec::new(), "{what}");
        });
        cuts = cut;
        if point.is_none() {
            break;
        }
    }
    assert!(cuts >= 10, "only {cuts} cuts");
    assert!(unknown > 0, "no cut left the outcome unknown");
}

#[test]
fn a_write_whose_outcome_is_unknown_fails_and_is_not_repeated() {
    prove(Class::Write);
}

#[test]
fn a_danger_whose_outcome_is_unknown_fails_and_is_not_repeated() {
    prove(Class::Danger);
}
