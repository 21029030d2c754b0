//! Every command of the binary is in one table, as one that acts or as one that only looks, and is what it says there.

use clap::{CommandFactory, Parser};

use super::Doing;
use crate::args::Cli;

/// What becomes of a command in the audit of commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// It changes something, and stands in the trail of acts under this name.
    Acts(&'static str),
    /// It writes its act down itself, because only it knows how much it did.
    Itself,
    /// It starts runs or drives them: their own journals and audit rows say who and what.
    Drives,
    /// It changes nothing of a store that is anybody's: it looks, or works on a store of its own.
    Looks,
}
use Class::{Acts, Drives, Itself, Looks};

/// Every command, as somebody types it who means it.
const COMMANDS: &[(&str, Class)] = &[
    ("run m.yml", Drives),
    ("resume r", Drives),
    ("resume r --takeover", Acts("run.take_over")),
    ("serve", Drives),
    ("worker", Drives),
    ("signal go", Acts("channel.signal")),
    ("signal go --run r", Acts("run.signal")),
    ("runs list", Looks),
    ("runs show r", Looks),
    ("runs tree r", Looks),
    ("runs stuck", Looks),
    ("runs journal r", Looks),
    ("runs watch r", Looks),
    ("runs choices", Looks),
    ("runs cancel r", Acts("run.cancel")),
    ("runs cancel --where status=failed --yes", Acts("run.cancel")),
    ("runs cancel --where status=failed", Looks),
    ("runs pause r", Acts("run.pause")),
    ("runs unpause r", Acts("run.unpause")),
    ("runs model r --to small --by ann", Acts("run.model")),
    ("runs raise r tokens=5 --by ann", Acts("run.raise")),
    ("runs retry r", Acts("run.retry")),
    ("runs skip r --output {} --by ann --reason known", Acts("run.skip")),
    ("runs requeue r", Acts("run.requeue")),
    ("runs requeue r s", Acts("run.requeue")),
    ("runs signal go --where machine=m --yes", Acts("run.signal")),
    ("runs fork r --at 3", Acts("run.fork")),
    ("runs prune --older-than 30d", Acts("runs.prune")),
    ("runs prune --older-than 30d --dry-run", Looks),
    ("approvals list", Looks),
    ("approvals show r#3", Looks),
    ("approvals approve r#3 --by ann", Acts("approval.approve")),
    ("approvals reject r#3 --by ann", Acts("approval.reject")),
    ("budgets list", Looks),
    ("budgets show environment", Looks),
    ("budgets set environment --tokens 5", Acts("budget.set")),
    ("budgets raise environment --tokens 5", Acts("budget.raise")),
    ("budgets remove environment", Acts("budget.remove")),
    ("budgets objectives", Looks),
    ("limits", Looks),
    ("readonly on --by ann --reason war", Acts("readonly.on")),
    ("readonly off --by ann --reason peace", Acts("readonly.off")),
    ("readonly status", Looks),
    ("secrets list", Looks),
    ("secrets set s --from-env S", Acts("secret.set")),
    ("secrets rotate s --from-env S", Acts("secret.rotate")),
    ("secrets remove s", Acts("secret.remove")),
    ("skills add f --by ann", Acts("skill.add")),
    ("skills list", Looks),
    ("skills search refund", Looks),
    ("skills show s", Looks),
    ("skills remove s@1.0.0 --by ann", Acts("skill.remove")),
    ("skills check f", Looks),
    ("versions publish n m.yml --by ann", Acts("version.publish")),
    ("versions list", Looks),
    ("versions show n", Looks),
    ("versions diff n 1 2", Looks),
    ("versions rollback n --by ann", Acts("version.rollback")),
    // Made of the tenant's trail, where it says for whom.
    ("tokens issue --tenant t --user u --tool search", Itself),
    ("tokens show", Looks),
    ("tokens revoke token t --by ann --reason lost", Acts("token.revoke")),
    ("tokens restore token t --by ann --reason found", Acts("token.restore")),
    ("tokens revoked", Looks),
    ("notify list", Looks),
    ("notify test ops", Looks),
    ("trust set clerk@0123456789ab 50 --by ann --reason good", Acts("trust.set")),
    ("trust incident clerk@0123456789ab --severity minor --by ann --reason late", Acts("trust.incident")),
    ("trust auto clerk@0123456789ab --by ann --reason over", Acts("trust.auto")),
    ("trust compute", Itself),
    ("trust explain clerk@0123456789ab", Looks),
    ("trust list", Looks),
    ("trust show clerk@0123456789ab", Looks),
    ("audit list", Looks),
    ("audit acts", Looks),
    ("audit verify", Looks),
    // Seals are made all the time, by whoever works on the store.
    ("audit seal", Looks),
    ("audit prune --older 400d", Itself),
    ("audit export --out f", Looks),
    ("debug capture --machine m --by ann --reason slow", Acts("debug.capture")),
    ("debug list", Looks),
    ("debug show c", Acts("debug.show")),
    ("debug stop c", Acts("debug.stop")),
    ("debug remove c", Acts("debug.remove")),
    ("erase --tenant t --yes", Itself),
    ("export --tenant t --out f", Acts("tenant.export")),
    ("export --tenant t --user u --out f", Acts("user.export")),
    ("export --run r --out f", Acts("run.export")),
    ("schedules add s m.yml --every 1h", Acts("schedule.add")),
    ("schedules list", Looks),
    ("schedules show s", Looks),
    ("schedules pause s", Acts("schedule.pause")),
    ("schedules resume s", Acts("schedule.resume")),
    ("schedules remove s", Acts("schedule.remove")),
    ("schedules run-now s", Acts("schedule.run_now")),
    ("schedules next s", Looks),
    ("workers", Looks),
    ("replay r", Looks),
    ("verify r", Looks),
    ("test", Looks),
    ("test --record", Itself),
    ("drill model-retired m.yml --model small", Looks),
    ("sim m.yml", Looks),
    ("tools list", Looks),
    ("tools show t", Looks),
    ("tools diff", Looks),
    ("tools accept s", Acts("tools.accept")),
    ("tools blocked", Looks),
    ("tools ramps", Looks),
    ("tools resume t --by ann --reason mended", Acts("tools.resume")),
    ("tools release s t --by ann --reason rolled-back", Acts("tools.release")),
    ("validate m.yml", Looks),
    ("preview m.yml", Looks),
    ("preflight m.yml", Looks),
    ("graph m.yml", Looks),
    ("explain-schema", Looks),
    ("fsck", Looks),
    ("store status", Looks),
    ("store migrate", Acts("store.migrate")),
    ("store backup f", Acts("store.backup")),
    ("store restore f", Acts("store.restore")),
    ("store rekey", Acts("store.rekey")),
    ("store compact", Acts("store.compact")),
    ("store fence --reason restored", Acts("store.fence")),
    ("policy check", Looks),
    ("policy why r", Looks),
    ("policy test --candidate d", Looks),
    ("policy candidate status", Looks),
    ("policy candidate differences", Looks),
    ("policy candidate withdraw --by ann --reason odd", Acts("policy.candidate_withdraw")),
    ("policy candidate resume --by ann --reason mended", Acts("policy.candidate_resume")),
    ("policy schema", Looks),
    ("policy starter", Looks),
    ("slo report", Looks),
    ("diagnostics", Looks),
    ("bench floor", Looks),
    ("bench steps", Looks),
    ("bench latency", Looks),
    ("bench fan-out", Looks),
    ("bench recovery", Looks),
    ("bench park", Looks),
    ("bench idle", Looks),
    ("bench surge", Looks),
    ("bench fairness", Looks),
    ("bench governed", Looks),
    ("bench start", Looks),
    ("bench select", Looks),
    ("chaos run", Looks),
    ("config", Looks),
    ("completions bash", Looks),
    ("docs d", Looks),
];

/// The words of every command that has none below it.
fn leaves(command: &clap::Command, above: &[String], found: &mut Vec<String>) {
    let mut below = command.get_subcommands().peekable();
    if below.peek().is_none() {
        found.push(above.join(" "));
    }
    for sub in below {
        leaves(sub, &[above, &[sub.get_name().to_owned()]].concat(), found);
    }
}

#[test]
fn every_command_is_known_as_one_that_acts_or_as_one_that_looks() {
    let mut commands = Vec::new();
    leaves(&Cli::command(), &[], &mut commands);
    assert!(commands.len() > 100, "the commands are found: {commands:?}");
    let is_of = |line: &str, command: &str| line == command || line.starts_with(&format!("{command} "));
    let unknown: Vec<&String> =
        commands.iter().filter(|command| !COMMANDS.iter().any(|(line, _)| is_of(line, command))).collect();
    assert!(unknown.is_empty(), "say in this table, and in `Doing::of`, whether these change anything: {unknown:?}");
    let gone = COMMANDS.iter().filter(|(line, _)| !commands.iter().any(|command| is_of(line, command)));
    assert_eq!(gone.count(), 0, "rows of commands that there are");
}

#[test]
fn every_command_leaves_the_act_that_the_table_says() {
    for (line, class) in COMMANDS {
        let parsed = Cli::try_parse_from(std::iter::once("windlass").chain(line.split(' ')));
        let parsed = parsed.unwrap_or_else(|error| panic!("`{line}`: {error}"));
        let doing = Doing::of(&parsed.command);
        let action = doing.as_ref().map(|doing| doing.action);
        let expected = match class {
            Acts(name) => Some(*name),
            Itself | Drives | Looks => None,
        };
        assert_eq!(action, expected, "`windlass {line}`");
    }
}
