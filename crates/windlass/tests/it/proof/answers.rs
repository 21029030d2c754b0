//! Answers cut at every point: a run that asks before a call, answers that are forged, altered, replayed, late, of the run's
//! own user, or race, and a worker that aborts at each point in turn. What leaves and who is told to have agreed is what the
//! table of `docs/approvals.md` says, wherever the cut was.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use windlass_core::approval::{Answer, Reply};
use windlass_core::budget::Amounts;
use windlass_core::effect::{Outcome, WaitKind};
use windlass_core::failure::Code;
use windlass_core::ids::{Digest, RunId};
use windlass_core::input::Input;
use windlass_core::journal::{Entry, Record};
use windlass_core::time::Timestamp;
use windlass_core::value::Value;
use windlass_ports::store::{Message, Store};
use windlass_runtime::{Scope, Stop};

use super::course::Course;
use super::cuts::block_on;
use super::machine::{configuration, turn};
use super::place::Place;
use super::unknown::outcomes;
use super::worker::{CUT, FOLDER, POLICY, RUN, cutter, engine, store};
use super::world::World;

/// For whom the run works.
const OWNER: &str = "owen";
/// The tool that is asked about: one that must never be done twice.
pub(super) const TOOL: &str = "erase";

/// Answers to one question, and what they come to.
pub(super) struct Scene {
    /// How long the question is open, in milliseconds; nothing is asked without it.
    pub(super) expires_ms: Option<u64>,
    /// The answers, made from the right one, in the order in which they are delivered.
    pub(super) answers: fn(&Reply) -> Vec<Reply>,
    /// Whether the call leaves.
    pub(super) leaves: bool,
    /// How the question ends, and by whom.
    pub(super) ends: (Answer, &'static str),
    /// The order that the call leaves with.
    pub(super) order: i64,
    /// More of the tool's table.
    pub(super) table: &'static str,
    /// Done before answers are delivered.
    pub(super) before: fn(&Path),
}

/// Rules that allow everything.
const ALLOW: &str = "@id(\"all\") permit (principal, action, resource);\n";

/// A day.
const LONG_MS: u64 = 86_400_000;

impl Scene {
    /// One in which somebody agrees to the call in time.
    pub(super) fn asked() -> Self {
        Self { expires_ms: Some(LONG_MS), answers: |reply| vec![right(reply)], ..Self::unasked() }
    }

    /// One in which nothing is asked.
    pub(super) fn unasked() -> Self {
        Self {
            expires_ms: None,
            answers: |_| Vec::new(),
            leaves: true,
            ends: (Answer::Approved, ""),
            order: 7,
            table: "",
            before: |_| (),
        }
    }
}

pub(super) fn right(reply: &Reply) -> Reply {
    reply.clone()
}

/// Not a test by itself: does nothing unless [`spawn`] started it.
#[test]
fn a_worker_that_asks() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let cut = std::env::var(CUT).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("tokio");
    let count = Arc::new(AtomicU64::new(0));
    let points = Arc::clone(&count);
    runtime.block_on(async {
        let (engine, mut submission) = engine(folder, Some(cutter(folder, cut, points))).await;
        submission.scope.user = Some(OWNER.into());
        let run = engine.submit(submission).await.expect("submitted").run_id;
        engine.drive(Scope::Tree(run), Stop::new()).await.expect("driven");
    });
    std::fs::write(folder.join("points"), count.load(Ordering::SeqCst).to_string()).expect("a count");
}

pub(super) fn spawn(folder: &Path, cut: Option<u64>) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", "proof::answers::a_worker_that_asks", "--nocapture"]).env(FOLDER, folder);
    command.env(CUT, cut.unwrap_or(0).to_string()).env_remove("RUST_BACKTRACE");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("a worker starts")
}

/// Delivers the answers of a scene to the open question, if there is one.
pub(super) fn deliver(folder: &Path, scene: &Scene) {
    block_on(async {
        let (engine, _) = engine(folder, None).await;
        let run = RunId::stored(RUN);
        let Some(report) = engine.status(&run).await.expect("a status") else { return };
        let asked = report.run.waits.iter().find_map(|(wait, open)| match open.kind {
            WaitKind::Approval { shown, .. } => Some((*wait, shown, open.due)),
            _ => None,
        });
        let Some((wait, shown, due)) = asked else { return };
        if scene.expires_ms.is_some_and(|ms| ms < LONG_MS) {
            expired(due).await;
        }
        (scene.before)(folder);
        let (by, raise) = ("ann".into(), Amounts::ZERO);
        let reply = Reply { wait, approve: true, by, reason: "".into(), shown, arguments: None, raise, at: None };
        for (number, answer) in (scene.answers)(&reply).into_iter().enumerate() {
            let id = format!("{number}/{}", answer.delivery_id()).into();
            let message = Message { to: run.clone(), id, input: Input::Approved(Box::new(answer)) };
            engine.parts().store.deliver(message).await.expect("delivered");
        }
    });
}

/// Waits until the time of a question is over.
async fn expired(due: Option<Timestamp>) {
    let due = due.expect("a question expires");
    while windlass::wire::now() <= due {
        // Slow on purpose: an answer is late only by the clock of the workers.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How the question ended, by the journal: each answer that a decision took.
async fn answered(store: &dyn Store) -> Vec<(Answer, String)> {
    let rows = store.journal(RunId::stored(RUN), 0, usize::MAX).await.expect("a journal");
    let entries = rows.iter().flat_map(|row| Record::decode(&row.bytes).expect("a record").entries);
    let answers = entries.filter_map(|entry| match entry {
        Entry::ApprovalAnswered { answer, by, .. } => Some((answer, by.to_string())),
        _ => None,
    });
    answers.collect()
}

/// Drives a run with its answers until its `cut`-th point, and then, untouched, to the end. The point, if it came so far.
pub(super) fn drive(folder: &Path, world: &World, scene: &Scene, cut: u64) -> Option<String> {
    let answer = |folder: &Path| deliver(folder, scene);
    let course = Course { folder, world, spawn, answer: &answer };
    let point = course.cut(cut);
    world.settle();
    course.finish();
    point
}

/// Writes the machine and the configuration of a scene into a folder.
pub(super) fn write(folder: &Path, world: &World, scene: &Scene) {
    let mut text = configuration(&world.address);
    if let Some(ms) = scene.expires_ms {
        let more = scene.table;
        let asks = format!("[tools.{TOOL}]\napproval = \"always\"\napproval_expires_ms = {ms}\n{more}");
        text = text.replace(&format!("[tools.{TOOL}]\n"), &asks);
    }
    std::fs::write(folder.join("windlass.toml"), text).expect("a writable folder");
    std::fs::write(folder.join("machine.yml"), turn(&[TOOL])).expect("a writable folder");
    rule(folder, ALLOW);
}

/// Puts rules into force, from the next worker on.
pub(super) fn rule(folder: &Path, rules: &str) {
    let folder = folder.join(POLICY);
    std::fs::create_dir_all(&folder).expect("a writable folder");
    std::fs::write(folder.join("rules.cedar"), rules).expect("a writable folder");
}

/// The code of the failure that an outcome is, if it is one.
pub(super) fn failed(outcome: &Outcome) -> Option<Code> {
    match outcome {
        Outcome::Failed(failure) => Some(failure.code),
        Outcome::Returned(_) | Outcome::Replied(_) => None,
    }
}

/// Plays a scene with a cut at every point.
pub(super) fn prove(scene: &Scene) {
    let world = World::start();
    let mut points: BTreeMap<String, u64> = BTreeMap::new();
    for cut in 1.. {
        let place = Place::new(&world);
        write(place.path(), &world, scene);
        let point = drive(place.path(), &world, scene, cut);
        // Answers that come when all is over change nothing.
        deliver(place.path(), scene);
        let what = format!("cut {cut} at {point:?}");
        let times = world.take().iter().filter(|deed| deed.what == TOOL).count();
        assert_eq!(times, usize::from(scene.leaves), "the call, {what}");
        if scene.leaves {
            assert_eq!(world.brought(TOOL)["order"], scene.order, "what it left with, {what}");
        }
        block_on(async {
            let store = store(place.path()).await;
            assert_eq!(answered(&*store).await, [(scene.ends.0, scene.ends.1.to_owned())], "the answer, {what}");
            let code = match scene.ends.0 {
                Answer::Approved if scene.leaves => None,
                Answer::Approved => Some(Code::PolicyDenied),
                Answer::Rejected | Answer::Expired => Some(Code::ApprovalRejected),
            };
            let outcomes = outcomes(&*store).await;
            assert_eq!(outcomes.iter().map(failed).collect::<Vec<_>>(), [code], "{outcomes:?}, {what}");
            assert_eq!(store.fsck().await.expect("fsck"), Vec::new(), "{what}");
        });
        match point {
            Some(point) => *points.entry(point).or_default() += 1,
            None => break,
        }
    }
    assert!(points.values().sum::<u64>() >= 10, "too few points: {points:?}");
}

#[test]
fn a_forged_answer_counts_nowhere() {
    prove(&Scene {
        answers: |reply| {
            let forged = |shown| Reply { shown, by: "mallory".into(), ..reply.clone() };
            vec![forged(Digest::ZERO), forged(Digest::of(b"another call")), right(reply)]
        },
        leaves: true,
        ends: (Answer::Approved, "ann"),
        ..Scene::asked()
    });
}

#[test]
fn an_answer_with_arguments_that_do_not_fit_counts_nowhere() {
    prove(&Scene {
        answers: |reply| {
            let altered = Reply { arguments: Some(Value::Int(7)), by: "mallory".into(), ..reply.clone() };
            vec![altered, right(reply)]
        },
        leaves: true,
        ends: (Answer::Approved, "ann"),
        ..Scene::asked()
    });
}

#[test]
fn an_answer_that_is_replayed_counts_once() {
    prove(&Scene {
        answers: |reply| vec![right(reply), right(reply), right(reply)],
        leaves: true,
        ends: (Answer::Approved, "ann"),
        ..Scene::asked()
    });
}

#[test]
fn an_answer_that_comes_late_counts_nowhere() {
    prove(&Scene {
        expires_ms: Some(1),
        answers: |reply| vec![right(reply)],
        leaves: false,
        ends: (Answer::Expired, ""),
        ..Scene::asked()
    });
}

#[test]
fn nobody_approves_their_own_call() {
    prove(&Scene {
        answers: |reply| vec![Reply { by: OWNER.into(), ..reply.clone() }, Reply { approve: false, ..reply.clone() }],
        leaves: false,
        ends: (Answer::Rejected, "ann"),
        ..Scene::asked()
    });
}

#[test]
fn of_answers_that_race_the_first_counts() {
    prove(&Scene {
        answers: |reply| vec![right(reply), Reply { approve: false, by: "bob".into(), ..reply.clone() }],
        leaves: true,
        ends: (Answer::Approved, "ann"),
        ..Scene::asked()
    });
    prove(&Scene {
        answers: |reply| vec![Reply { approve: false, by: "bob".into(), ..reply.clone() }, right(reply)],
        leaves: false,
        ends: (Answer::Rejected, "bob"),
        ..Scene::asked()
    });
}
