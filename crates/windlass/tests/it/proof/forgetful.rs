//! An engine without effect records: what a decision intends is written only together with the next decision, so a
//! call leaves before there is a record of it. The proof must notice. Or a store that grants every draw on a budget,
//! which the bank test must notice, or one without read-only switches, which the race for them must notice.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use windlass_core::escrow::{Draw, Drawn};
use windlass_core::ids::{Name, RunId};
use windlass_ports::store::{Answer, Commit, Committed, Keep, Layer, Object, SWITCHES, Store};

use super::cuts::{compare, finish};
use super::lost::{Known, in_flight};
use super::place::Place;
use super::worker::{End, spawn_broken, wait};
use super::world::World;

/// Cuts at most before the proof must have noticed.
const CUTS_MAX: u64 = 40;

/// Acknowledges a commit that intends a call without writing it, and writes it before the next one of its run.
#[derive(Debug)]
pub(super) struct Forgetful {
    inner: Arc<dyn Store>,
    kept: Mutex<BTreeMap<RunId, Commit>>,
    breach: Breach,
}

/// What it does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breach {
    /// It forgets what was intended.
    Forgets,
    /// It grants every draw.
    Grants,
    /// It knows no read-only switch.
    Blind,
}

impl Forgetful {
    pub(super) fn new(inner: Arc<dyn Store>, breach: Breach) -> Self {
        Self { inner, kept: Mutex::default(), breach }
    }
}

impl Layer for Forgetful {
    fn below(&self) -> &dyn Store {
        &*self.inner
    }

    fn commit(&self, mut commit: Commit) -> Answer<'_, Committed> {
        if self.breach == Breach::Blind {
            commit.begins = None;
        }
        if self.breach != Breach::Forgets {
            return self.inner.commit(commit);
        }
        Box::pin(async move {
            let run = commit.lease.run.clone();
            let kept = self.kept.lock().expect("kept").remove(&run);
            if let Some(earlier) = kept {
                self.inner.commit(earlier).await?;
            }
            let intends = String::from_utf8_lossy(&commit.record.bytes).contains("\"call_intended\"");
            if intends && commit.keep == Keep::Hold && commit.taken.is_empty() {
                self.kept.lock().expect("kept").insert(run, commit);
                return Ok(Committed::Applied { held: true, inbox: false, switched: false });
            }
            self.inner.commit(commit).await
        })
    }

    fn objects(&self, kind: Name, after: Option<Name>, limit: usize) -> Answer<'_, Vec<Object>> {
        if self.breach == Breach::Blind && &*kind == SWITCHES {
            return Box::pin(async { Ok(Vec::new()) });
        }
        self.inner.objects(kind, after, limit)
    }

    fn draw(&self, draw: Draw) -> Answer<'_, Drawn> {
        let needs = draw.lines.iter().map(|line| (line.scope.clone(), line.need)).collect();
        Box::pin(async move {
            Ok(match self.inner.draw(draw).await? {
                Drawn::Refused(_) if self.breach == Breach::Grants => Drawn::Granted(needs),
                answer => answer,
            })
        })
    }
}

#[test]
fn the_proof_notices_an_engine_without_effect_records() {
    let world = World::start();
    let calm = Place::new(&world);
    let expected = finish(calm.path(), &world);
    let noticed = (1..=CUTS_MAX).any(|cut| {
        let folder = Place::new(&world);
        let End::Cut(point) = wait(folder.path(), spawn_broken(folder.path(), cut)) else { return false };
        let lost = in_flight(folder.path(), &world, &mut Known::default());
        let trace = finish(folder.path(), &world);
        let what = format!("cut {cut} at {point}");
        catch_unwind(AssertUnwindSafe(|| compare(&expected, &trace, &lost, &what))).is_err()
    });
    assert!(noticed, "no cut of the first {CUTS_MAX} is told from one with effect records");
}
