//! Follows `docs/fleet.md` as a reader would, on both stores.
//!
//! Slow on purpose: real processes are waited for.

use crate::kit::Place;
use crate::runbooks::book::{Book, Kind};

/// The page.
const PAGE: &str = include_str!("../../../../../docs/fleet.md");

fn follow(place: &Place, store: &str) {
    let more = [("WINDLASS_STORE", store), ("WINDLASS_SERVE__LISTEN", "127.0.0.1:0")];
    Book::of("fleet.md", PAGE, Kind::Postgres).play(place, &more, |_| {});
}

#[test]
fn the_page_holds_on_sqlite() {
    follow(&Place::new(), "sqlite:windlass.db");
}

#[test]
fn the_page_holds_on_postgresql() {
    let database = windlass_testpg::database();
    follow(&Place::new(), &database.url());
}
