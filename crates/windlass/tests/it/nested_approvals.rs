//! Questions of many runs at once: nested deep, answered in any order with a restart between one answer and the next; and
//! answered by several people at the same moment. On the store that `WINDLASS_TEST_STORE` names.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use windlass::{Outcome, Windlass};
use windlass_core::approval::{self, Answer, Reply, Terms};
use windlass_core::budget::Amounts;
use windlass_core::contract::{Class, Contract, Idempotency};
use windlass_core::effect::WaitKind;
use windlass_core::ids::RunId;
use windlass_core::value::Value;
use windlass_ports::store::Delivered;
use windlass_runtime::Answered;
use windlass_spec::source::MemoryFiles;
use windlass_tools::FnTool;

/// Levels of children below the run, each of which starts as many.
const DEPTH: usize = 3;
const WIDTH: u64 = 3;

const LEAF: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: leaf
  settings: {tools: [pay]}
  agents:
    clerk: {spec: flatagent, spec_version: "4.2.1", data: {name: clerk, model: {provider: scripted, name: small}, user: Pay.}}
  states:
    pay:
      type: initial
      agent: clerk
      tool_loop: {max_turns: 3}
      output_to_context: {said: output.content}
      transitions: [{to: done}]
    done: {type: final, output: {said: context.said}}
"#;

const SCRIPT: &str = "rules:\n  \
    - {agent: clerk, turn: 1, reply: {tool_calls: [{name: pay, arguments: {cents: 5}}]}}\n  \
    - {agent: clerk, turn: 2, match: 'refused by', reply: {content: refused}}\n  \
    - {agent: clerk, turn: 2, reply: {content: paid}}\n";

fn documents() -> MemoryFiles {
    let mut files = MemoryFiles::new().with("level0.yml", LEAF);
    for level in 1..=DEPTH {
        let mut text = String::new();
        write!(
            text,
            "spec: flatmachine\nspec_version: \"4.2.1\"\ndata:\n  name: level{level}\n  context: {{items: [1, 2, 3]}}\n  \
             machines: {{below: ./level{}.yml}}\n  states:\n    all:\n      type: initial\n      foreach: context.items\n      as: n\n      machine: below\n      \
             output_to_context: {{all: output}}\n      transitions: [{{to: done}}]\n    \
             done: {{type: final, output: {{all: context.all}}}}\n",
            level - 1
        )
        .expect("text");
        files = files.with(&format!("level{level}.yml"), text);
    }
    files
}

/// A store of one test.
struct Home {
    _dir: tempfile::TempDir,
    _database: Option<windlass_testpg::Database>,
    url: String,
}

fn home() -> Home {
    let dir = tempfile::tempdir().expect("folder");
    let (url, database) = match std::env::var("WINDLASS_TEST_STORE").as_deref() {
        Err(_) | Ok("sqlite") => (format!("sqlite:{}", dir.path().join("windlass.db").display()), None),
        Ok("postgres") => {
            let database = windlass_testpg::database();
            (database.url().to_owned(), Some(database))
        }
        Ok(other) => panic!("WINDLASS_TEST_STORE is `{other}`; `sqlite` or `postgres` is wanted"),
    };
    Home { _dir: dir, _database: database, url }
}

/// A process of its own: another engine, another handle of the store.
async fn start(store: &Home, paid: &Arc<AtomicU64>) -> Windlass {
    let contract = Contract {
        class: Class::Write,
        idempotency: Idempotency::None,
        approval: Terms { always: true, ..Terms::default() },
        ..Contract::undeclared("pay")
    };
    let paid = Arc::clone(paid);
    let pay = FnTool::sync(contract, move |_| {
        paid.fetch_add(1, Ordering::SeqCst);
        Ok(Value::empty_map())
    });
    Windlass::builder().store(&store.url).script(SCRIPT).tool(pay).build().await.expect("built")
}

/// Every open question below a run.
async fn questions(windlass: &Windlass, run: &RunId) -> Vec<(RunId, Reply)> {
    let rows = windlass.engine().parts().store.waits(run.clone(), true).await.expect("read");
    let mut found = Vec::new();
    for (run, row) in rows {
        let WaitKind::Approval { shown, effect } = row.kind else { panic!("{row:?}") };
        let asked = windlass.engine().status(&run).await.expect("read").expect("it exists").run;
        assert_eq!(approval::shown(&run, row.effect, effect, &asked.calls[&effect]), shown);
        let (by, reason) = ("ann".into(), "".into());
        found.push((
            run,
            Reply {
                wait: row.effect,
                approve: true,
                by,
                reason,
                shown,
                arguments: None,
                raise: Amounts::ZERO,
                at: None,
            },
        ));
    }
    found
}

fn said(output: &Value, found: &mut Vec<String>) {
    match output {
        Value::Map(map) => match map.get("said") {
            Some(said) => found.push(said.as_str().expect("text").to_owned()),
            None => map.values().for_each(|value| said_in(value, found)),
        },
        other => said_in(other, found),
    }
}

fn said_in(output: &Value, found: &mut Vec<String>) {
    match output {
        Value::List(list) => list.iter().for_each(|value| said(value, found)),
        Value::Map(_) => said(output, found),
        _ => {}
    }
}

#[tokio::test]
async fn nested_questions_are_answered_in_any_order_with_restarts_between() {
    let store = home();
    let seed = fastrand::u64(..);
    let mut rng = fastrand::Rng::with_seed(seed);
    let paid = Arc::new(AtomicU64::new(0));
    let windlass = start(&store, &paid).await;
    let run =
        windlass.submit(&documents(), &format!("level{DEPTH}.yml"), Value::empty_map(), None).await.expect("valid");
    let parked = windlass.resume(&run).await.expect("driven");
    let Outcome::Parked { .. } = parked else { panic!("{parked:?}") };
    let mut open = questions(&windlass, &run).await;
    drop(windlass);
    let leaves = WIDTH.pow(DEPTH as u32);
    assert_eq!((open.len() as u64, paid.load(Ordering::SeqCst)), (leaves, 0), "all ask at once, and none has left");
    rng.shuffle(&mut open);
    let mut approved = 0;
    for (place, (asking, mut reply)) in open.into_iter().enumerate() {
        let windlass = start(&store, &paid).await;
        let (place, refused) = (place as u64, rng.u8(..4) == 0);
        assert_eq!(questions(&windlass, &run).await.len() as u64, leaves - place, "seed {seed}: the others still ask");
        reply.approve = !refused;
        approved += u64::from(!refused);
        let sent = windlass.engine().answer(&asking, reply.clone()).await.expect("answered");
        assert_eq!(sent, Delivered::Accepted, "seed {seed}");
        reply.approve = !reply.approve;
        windlass.engine().answer(&asking, reply).await.expect("the second answer changes nothing");
        let outcome = windlass.resume(&run).await.expect("driven");
        assert_eq!(paid.load(Ordering::SeqCst), approved, "seed {seed}: each approved call leaves once");
        assert_eq!(matches!(outcome, Outcome::Completed { .. }), place + 1 == leaves, "seed {seed}: {outcome:?}");
    }
    let windlass = start(&store, &paid).await;
    let output = windlass.resume(&run).await.expect("driven").output().expect("an output");
    let mut answers = Vec::new();
    said(&output, &mut answers);
    let count = |word: &str| answers.iter().filter(|said| *said == word).count() as u64;
    assert_eq!((count("paid"), count("refused")), (approved, leaves - approved), "seed {seed}");
}

/// Rounds of a race; each has a run of its own, asked about by one question.
const ROUNDS: u64 = 60;
/// Who answers in each, in turns for and against.
const PEOPLE: u64 = 6;

/// However many answer at one moment, one is told that the answer counts, and the run does what that one said.
#[tokio::test(flavor = "multi_thread")]
async fn of_answers_at_one_moment_one_counts_and_the_others_are_told() {
    let store = home();
    let paid = Arc::new(AtomicU64::new(0));
    let windlass = start(&store, &paid).await;
    let mut handles = Vec::new();
    for _ in 0..PEOPLE {
        handles.push(Arc::new(start(&store, &paid).await));
    }
    let seed = fastrand::u64(..);
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut approved = 0;
    for round in 0..ROUNDS {
        let run = windlass.submit(&documents(), "level0.yml", Value::empty_map(), None).await.expect("valid");
        windlass.resume(&run).await.expect("driven");
        let (asking, reply) = questions(&windlass, &run).await.pop().expect("a question");
        let since = windlass.engine().status(&run).await.expect("read").expect("it exists").run.version;
        let mut answers = Vec::new();
        for (person, handle) in handles.iter().enumerate() {
            let (handle, asking) = (Arc::clone(handle), asking.clone());
            let by = format!("person-{person}").into();
            let reply = Reply { approve: rng.bool(), by, ..reply.clone() };
            let given = if reply.approve { Answer::Approved } else { Answer::Rejected };
            let task =
                async move { windlass_runtime::answer(&*handle.engine().parts().store, &asking, reply, since).await };
            answers.push((person, given, tokio::spawn(task)));
        }
        // In every second round somebody drives the run while they answer.
        let driving = windlass.resume(&run);
        if round % 2 == 0 {
            driving.await.expect("driven");
        }
        let (mut counts, mut beaten) = (Vec::new(), Vec::new());
        for (person, given, task) in answers {
            match task.await.expect("no panic").expect("answered") {
                Answered::Counts => counts.push((format!("person-{person}"), given)),
                Answered::Beaten { answer, by } => beaten.push((by.to_string(), answer)),
                // The run was over by then, by the answer of another.
                Answered::Finished | Answered::Void => {}
                Answered::NotFound => panic!("seed {seed}, round {round}: the run is there"),
            }
        }
        let [winner] = &counts[..] else { panic!("seed {seed}, round {round}: {counts:?} are told that they count") };
        assert!(beaten.iter().all(|told| told == winner), "seed {seed}, round {round}: {winner:?} {beaten:?}");
        let outcome = windlass.resume(&run).await.expect("driven");
        approved += u64::from(winner.1 == Answer::Approved);
        assert!(matches!(outcome, Outcome::Completed { .. }), "seed {seed}, round {round}: {outcome:?}");
        assert_eq!(paid.load(Ordering::SeqCst), approved, "seed {seed}, round {round}: what the first said is done");
    }
}
