//! The oldest part of an audit trail is removed, and what stays is as whole as before, wherever that is stopped.

use std::time::Duration;

use windlass_core::ids::{Name, RunId};
use windlass_core::time::Timestamp;
use windlass_ports::store::{Removed, Retention, Store};
use windlass_runtime::audit::Verdict;
use windlass_runtime::trail::{self, Asked, Deed};

use crate::kit::{Kit, acting, done, tree};
use crate::unreliable::Unreliable;

const GAP: Duration = Duration::from_secs(10);

/// A trail: a run that was removed, one that is there, an act; after `gap` the same again, the run of the same id.
async fn lived(gap: Duration) -> (Kit, Timestamp) {
    let mut kit = Kit::new();
    kit.read("look");
    kit.machine("main", vec![acting("a", "look", "done"), done()]);
    let engine = kit.engine();
    let mut between = Timestamp(0);
    for round in 0..2 {
        let stays = kit.submit(&engine, &format!("stays-{round}")).await;
        tree(&engine, &stays).await;
        let goes = kit.submit(&engine, "goes").await;
        tree(&engine, &goes).await;
        trail::seal(&*kit.store).await.expect("sealed");
        let trees = Some(vec![RunId::stored("goes")]);
        kit.store.prune(Retention { trees, ..Retention::default() }).await.expect("removed");
        note(&kit, "run.cancel").await;
        trail::seal(&*kit.store).await.expect("sealed");
        if round == 0 {
            tokio::time::sleep(gap / 2).await;
            between = now(&kit).await;
            tokio::time::sleep(gap / 2).await;
        }
    }
    (kit, between)
}

async fn now(kit: &Kit) -> Timestamp {
    kit.store.trail().unsealed(1).await.expect("read").now
}

fn tenant() -> Name {
    "default".into()
}

async fn note(kit: &Kit, action: &str) {
    let (actor, action, subject) = ("anna".into(), action.into(), "stays".into());
    let deed = Deed { at: now(kit).await, actor, action, subject, detail: None };
    trail::note(&*kit.store, &tenant(), deed).await.expect("noted");
}

async fn verdict(kit: &Kit) -> Verdict {
    let mut verdicts = trail::verify(&*kit.store, &Asked::default()).await.expect("checked");
    assert_eq!(verdicts.len(), 1);
    verdicts.pop().expect("one")
}

async fn left(kit: &Kit) -> (usize, usize) {
    let kept = kit.store.trail().kept(Removed::Tenant(tenant()), 0, 99).await.expect("read").len();
    let acts = kit.store.trail().acts(tenant(), 0, 99).await.expect("read");
    (kept, acts.iter().filter(|act| *act.action == *"run.cancel").count())
}

#[tokio::test(start_paused = true)]
async fn a_trail_is_whole_wherever_pruning_is_stopped() {
    let mut stops = 0;
    loop {
        let (kit, between) = lived(GAP).await;
        let before = verdict(&kit).await;
        assert_eq!((before.runs, before.findings.len(), left(&kit).await), (4, 0, (2, 2)));
        let dying = Unreliable::new(kit.store.another());
        dying.stop_trail_after(stops);
        let at = now(&kit).await;
        let by = || (at, Name::from("olga"));
        let ended = trail::prune(&dying, &tenant(), between, by()).await;
        let found = verdict(&kit).await;
        assert_eq!(found.findings, [], "stopped after {stops} writes");
        assert!(found.sealed == found.rows || ended.is_err(), "{found:?}");
        if ended.is_err() {
            // Whoever comes next finishes it.
            trail::prune(&*kit.store, &tenant(), between, by()).await.expect("pruned");
        }
        let found = verdict(&kit).await;
        assert_eq!((found.findings.len(), found.runs, left(&kit).await), (0, 3, (1, 1)), "after {stops}: {found:?}");
        let cut = found.cut.expect("it is told");
        assert!(cut.segments.number > 0 && cut.acts.rows == 1, "{cut:?}");
        let again = trail::prunable(&*kit.store, &tenant(), between).await.expect("read");
        assert!(again.is_nothing(), "{again:?}");
        // Later everything of then goes, but for the runs that are there.
        tokio::time::sleep(GAP).await;
        trail::prune(&*kit.store, &tenant(), now(&kit).await, by()).await.expect("pruned");
        let found = verdict(&kit).await;
        assert_eq!((found.findings.len(), found.runs, left(&kit).await), (0, 2, (0, 0)), "{found:?}");
        if ended.is_ok() {
            break;
        }
        stops += 1;
    }
    assert!(stops > 2, "it was stopped {stops} times");
}

#[tokio::test(start_paused = true)]
async fn what_is_gone_without_an_act_is_found() {
    let (kit, between) = lived(GAP).await;
    let found = trail::prunable(&*kit.store, &tenant(), between).await.expect("read");
    assert_eq!((found.runs.len(), found.acts, found.unsealed), (1, 1, 0));
    let pruning = windlass_ports::store::Pruning {
        tenant: tenant(),
        segments: found.cut.segments.number,
        acts: found.cut.acts.rows,
        kept: found.runs.clone(),
    };
    kit.store.trail().cut(pruning).await.expect("removed");
    assert!(!verdict(&kit).await.findings.is_empty());
}
