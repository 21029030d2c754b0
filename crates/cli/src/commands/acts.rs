//! What a command does to runs, rules and the store, as the act that the audit trail has of it: written down before it is
//! done, whatever comes of it.

use windlass_core::escrow::is_scope;
use windlass_core::ids::{Name, RunId};
use windlass_core::run::TenantScope;
use windlass_ports::store::{Store, escrow};
use windlass_runtime::trail::{self, Deed};

use crate::app::App;
use crate::args::{self, Command, Many};
use crate::commands::versions;
use crate::exit::Problem;

/// Characters of a detail.
const DETAIL_MAX: usize = 300;
/// That a version was published, and that a name was moved.
const PUBLISH: &str = "version.publish";
const ROLLBACK: &str = "version.rollback";

/// What a command does.
#[derive(Clone, Debug)]
pub(super) struct Doing {
    action: &'static str,
    subject: Subject,
    detail: String,
    /// Who, when the command says so.
    actor: Option<String>,
    /// The budget whose caps of before belong to the detail.
    budget: Option<String>,
    /// The store is there, or can be written, only when it is done.
    pub(super) afterwards: bool,
}

/// To what.
#[derive(Clone, Debug)]
enum Subject {
    /// One run, whose tenant's trail it stands in.
    Run(String),
    /// Something of a tenant; of the standard one for what is of none.
    Named(Option<String>, String),
}

impl Doing {
    fn run(action: &'static str, run: &str, detail: &str) -> Option<Self> {
        // A question of a run is named after it.
        let run = run.split_once('#').map_or(run, |(run, _)| run);
        let subject = Subject::Run(run.to_owned());
        Some(Self { action, subject, detail: detail.to_owned(), actor: None, budget: None, afterwards: false })
    }

    fn named(action: &'static str, subject: &str, detail: &str) -> Option<Self> {
        let subject = Subject::Named(None, subject.to_owned());
        Some(Self { action, subject, detail: detail.to_owned(), actor: None, budget: None, afterwards: false })
    }

    /// The same as the first thing that is done to a store: there was nothing before.
    pub(super) fn first(self) -> Self {
        match self.budget {
            Some(_) => Self { detail: format!("{}; before: none", self.detail), budget: None, ..self },
            None => self,
        }
    }

    /// Whether it changes files that stand beside the store, so that it may be done before there is one.
    fn is_beside(&self) -> bool {
        self.action.starts_with("secret.") || self.action == "tools.accept"
    }

    /// That the same came to nothing, with the word for why.
    pub(super) fn refused(self, code: &str) -> Self {
        Self { detail: format!("came to nothing: {code}"), budget: None, ..self }
    }

    fn by(self, actor: &str) -> Self {
        Self { actor: Some(actor.to_owned()), ..self }
    }

    fn switch(action: &'static str, what: &args::Switched) -> Self {
        let subject = Subject::Named(what.tenant.clone(), what.tenant.clone().unwrap_or_else(|| "everything".into()));
        let (detail, actor) = (what.reason.clone(), Some(what.by.clone()));
        Self { action, subject, detail, actor, budget: None, afterwards: false }
    }

    /// One run, or the many that a filter finds; nothing when they are only counted.
    fn steering(action: &'static str, run: Option<&String>, many: &Many, detail: &str) -> Option<Self> {
        match run {
            Some(run) => Self::run(action, run, detail),
            None if many.yes => Self::named(action, &many.wanted.join(" "), detail),
            None => None,
        }
    }

    /// What a command does, when that is anything but looking, driving and starting runs: a run's own journal says who
    /// started it and for whom.
    pub(super) fn of(command: &Command) -> Option<Self> {
        match command {
            Command::Runs(runs) => Self::of_runs(runs),
            Command::Resume(args) if args.takeover => Self::run("run.take_over", &args.run, ""),
            Command::Signal(args) => match &args.run {
                Some(run) => Self::run("run.signal", run, &args.channel),
                None => Self::named("channel.signal", &args.channel, args.id.as_deref().unwrap_or_default()),
            },
            Command::Approvals(args::Approvals::Approve(args)) => {
                Self::run("approval.approve", &args.id, &args.id).map(|doing| doing.by(&args.who.by))
            }
            Command::Approvals(args::Approvals::Reject(args)) => {
                Self::run("approval.reject", &args.id, &args.id).map(|doing| doing.by(&args.who.by))
            }
            Command::Schedules(schedules) => Self::of_schedules(schedules),
            Command::Store(store) => Self::of_store(store),
            Command::Tools(tools) => Self::of_tools(tools),
            Command::Budgets(budgets) => Self::of_budgets(budgets),
            Command::Secrets(args::Secrets::Set(args)) => Self::named("secret.set", &args.name, ""),
            Command::Secrets(args::Secrets::Rotate(args)) => {
                Self::named("secret.rotate", &args.name, if args.back { "back to the value before" } else { "" })
            }
            Command::Secrets(args::Secrets::Remove(args)) => {
                Self::named("secret.remove", &args.name, if args.previous { "the value before" } else { "" })
            }
            Command::Tokens(tokens) => Self::of_tokens(tokens),
            Command::Skills(skills) => Self::of_skills(skills),
            Command::Versions(versions) => Self::of_versions(versions),
            Command::Trust(trust) => Self::of_trust(trust),
            Command::Policy(args::Policy::Candidate(candidate)) => Self::of_candidate(candidate),
            Command::Policy(_) => None,
            Command::Debug(debug) => Self::of_debug(debug),
            Command::Export(args) => Self::of_export(args),
            Command::Readonly(args::Readonly::On(args)) => Some(Self::switch("readonly.on", &args.what)),
            Command::Readonly(args::Readonly::Off(args)) => Some(Self::switch("readonly.off", &args.what)),
            Command::Approvals(args::Approvals::List(_) | args::Approvals::Show(_))
            | Command::Readonly(args::Readonly::Status(_))
            | Command::Secrets(args::Secrets::List(_))
            | Command::Notify(_)
            | Command::Audit(_)
            // Says itself how much it removes.
            | Command::Erase(_)
            | Command::Run(_)
            | Command::Resume(_)
            | Command::Serve(_)
            | Command::Worker(_)
            | Command::Workers(_)
            | Command::Limits(_)
            | Command::Replay(_)
            | Command::Verify(_)
            | Command::Test(_)
            | Command::Sim(_)
            | Command::Validate(_)
            | Command::Preview(_)
            | Command::Preflight(_)
            | Command::Drill(_)
            | Command::Graph(_)
            | Command::ExplainSchema(_)
            | Command::Fsck(_)
            | Command::Slo(_)
            | Command::Diagnostics(_)
            | Command::Bench(_)
            | Command::Chaos(_)
            | Command::Config(_)
            | Command::Completions(_)
            | Command::Docs(_) => None,
        }
    }

    fn of_trust(trust: &args::Trust) -> Option<Self> {
        use args::Trust;
        let (action, agent, detail, by) = match trust {
            Trust::Set(args) => ("trust.set", &args.agent, format!("{}: {}", args.score, args.reason), &args.by),
            Trust::Incident(args) => {
                let detail = format!("{}: {}", args.severity.as_str(), args.reason);
                ("trust.incident", &args.agent, detail, &args.by)
            }
            Trust::Auto(args) => ("trust.auto", &args.agent, args.reason.clone(), &args.by),
            // Computing writes down itself what it changes.
            Trust::List | Trust::Show(_) | Trust::Explain(_) | Trust::Compute => return None,
        };
        Self::named(action, agent, &detail).map(|doing| doing.by(by))
    }

    fn of_candidate(candidate: &args::PolicyCandidate) -> Option<Self> {
        use args::PolicyCandidate as Candidate;
        let (action, version, reason, by) = match candidate {
            Candidate::Withdraw(args) => ("policy.candidate_withdraw", &args.version, &args.reason, &args.by),
            Candidate::Resume(args) => ("policy.candidate_resume", &args.version, &args.reason, &args.by),
            Candidate::Status | Candidate::Differences(_) => return None,
        };
        Self::named(action, version.as_deref().unwrap_or("the configured one"), reason).map(|doing| doing.by(by))
    }

    fn of_skills(skills: &args::Skills) -> Option<Self> {
        use args::Skills;
        match skills {
            Skills::Add(args) => {
                Self::named("skill.add", &args.folder.display().to_string(), "").map(|doing| doing.by(&args.by))
            }
            Skills::Remove(args) => Self::named("skill.remove", &args.skill, "").map(|doing| doing.by(&args.by)),
            Skills::List(_) | Skills::Search(_) | Skills::Show(_) | Skills::Check(_) => None,
        }
    }

    fn of_versions(versions: &args::Versions) -> Option<Self> {
        use args::Versions;
        match versions {
            Versions::Publish(args) => {
                let note = if args.note.is_empty() { String::new() } else { format!(": {}", args.note) };
                let detail = format!("{}{note}", args.machine.display());
                Self::named(PUBLISH, &args.name, &detail).map(|doing| doing.by(&args.by))
            }
            Versions::Rollback(args) => {
                let to = args.to.map_or_else(|| "to the one before".to_owned(), |to| format!("to {to}"));
                Self::named(ROLLBACK, &args.name, &to).map(|doing| doing.by(&args.by))
            }
            Versions::List(_) | Versions::Show(_) | Versions::Diff(_) => None,
        }
    }

    fn of_tools(tools: &args::Tools) -> Option<Self> {
        use args::Tools;
        match tools {
            Tools::Accept(args) => Self::named("tools.accept", &args.server, &args.tools.join(" ")),
            Tools::Release(args) => {
                let subject = format!("{}/{}", args.server, args.tool);
                Self::named("tools.release", &subject, &args.reason).map(|doing| doing.by(&args.by))
            }
            Tools::Resume(args) => {
                Self::named("tools.resume", &args.tool, &args.reason).map(|doing| doing.by(&args.by))
            }
            Tools::List(_) | Tools::Show(_) | Tools::Diff(_) | Tools::Blocked(_) | Tools::Ramps(_) => None,
        }
    }

    fn of_tokens(tokens: &args::Tokens) -> Option<Self> {
        use args::Tokens;
        let (action, about) = match tokens {
            Tokens::Revoke(args) => ("token.revoke", &args.about),
            Tokens::Restore(args) => ("token.restore", &args.about),
            // Making one says itself for whom it is.
            Tokens::Issue(_) | Tokens::Show(_) | Tokens::Revoked => return None,
        };
        let detail = format!("{}: {}", about.what.as_str(), about.reason);
        Self::named(action, &about.name, &detail).map(|doing| doing.by(&about.by))
    }

    fn of_debug(debug: &args::Debug) -> Option<Self> {
        use args::Debug;
        match debug {
            Debug::Capture(args) => {
                let detail = format!("for {}, {} calls at most: {}", args.span, args.calls, args.reason);
                let subject = Subject::Named(args.tenant.clone(), super::debug::subject(args));
                let (action, actor) = ("debug.capture", Some(args.by.clone()));
                Some(Self { action, subject, detail, actor, budget: None, afterwards: false })
            }
            Debug::Show(args) => Self::named("debug.show", &args.capture, ""),
            Debug::Stop(args) => Self::named("debug.stop", &args.capture, ""),
            Debug::Remove(args) => Self::named("debug.remove", &args.capture, ""),
            Debug::List => None,
        }
    }

    fn of_runs(runs: &args::Runs) -> Option<Self> {
        use args::Runs;
        match runs {
            Runs::Cancel(args) => Self::steering("run.cancel", args.run.as_ref(), &args.many, &args.reason),
            Runs::Pause(args) => Self::steering("run.pause", args.run.as_ref(), &args.many, &args.reason),
            Runs::Unpause(args) => Self::steering("run.unpause", args.run.as_ref(), &args.many, ""),
            Runs::Raise(args) => {
                let to = args.to.iter().map(|(meter, bound)| format!("{}={bound}", meter.as_str()));
                let detail = [to.collect::<Vec<_>>().join(" "), args.reason.clone()].join(" ").trim_end().to_owned();
                let act = Self::run("run.raise", &args.run, &detail);
                act.map(|act| Self { actor: Some(args.by.clone()), ..act })
            }
            Runs::Model(args) => {
                let to = args.to.as_deref().map_or("as the documents say".to_owned(), |name| format!("to {name}"));
                let of = args.agent.as_ref().map(|agent| format!(" for {agent}")).unwrap_or_default();
                let below = if args.below { " and below" } else { "" };
                let detail = format!("{to}{of}{below} {}", args.reason);
                Self::run("run.model", &args.run, detail.trim_end()).map(|act| act.by(&args.by))
            }
            Runs::Skip(args) => {
                let act = Self::run("run.skip", &args.run, &args.reason);
                act.map(|act| Self { actor: Some(args.by.clone()), ..act })
            }
            Runs::Retry(args) => Self::steering("run.retry", args.run.as_ref(), &args.many, ""),
            Runs::Requeue(args) => match args.runs.as_slice() {
                [] => Self::steering("run.requeue", None, &args.many, ""),
                [run] => Self::run("run.requeue", run, ""),
                runs => Self::named("run.requeue", &runs.join(" "), ""),
            },
            Runs::Signal(args) => Self::steering("run.signal", None, &args.many, &args.channel),
            Runs::Fork(args) => {
                let raised = args.raise.iter().map(|(meter, bound)| format!(", {} raised to {bound}", meter.as_str()));
                Self::run("run.fork", &args.run, &format!("at step {}{}", args.at, raised.collect::<String>()))
            }
            Runs::Prune(args) if args.dry_run || (!args.wanted.is_empty() && !args.yes) => None,
            Runs::Prune(args) => {
                let older = args.older_than.as_ref().map(|span| format!("ended {} ms ago", span.0));
                let keep = args.keep.map(|keep| format!("beyond the newest {keep}"));
                let machine = args.machine.as_ref().map(|machine| format!("of {machine}"));
                let parts: Vec<String> =
                    [older, keep, machine].into_iter().flatten().chain(args.wanted.clone()).collect();
                Self::named("runs.prune", "finished runs", &parts.join(" "))
            }
            Runs::List(_)
            | Runs::Show(_)
            | Runs::Tree(_)
            | Runs::Choices(_)
            | Runs::Stuck(_)
            | Runs::Journal(_)
            | Runs::Watch(_) => None,
        }
    }

    fn of_schedules(schedules: &args::Schedules) -> Option<Self> {
        use args::Schedules;
        let every = |name: &Option<String>| name.clone().unwrap_or_else(|| "every schedule".to_owned());
        match schedules {
            Schedules::Add(args) => {
                let tenant = args.whose.tenant.clone();
                let detail = args.cron.clone().unwrap_or_default();
                let subject = Subject::Named(tenant, args.name.clone());
                Some(Self { action: "schedule.add", subject, detail, actor: None, budget: None, afterwards: false })
            }
            Schedules::Pause(args) => Self::named("schedule.pause", &every(&args.name), &args.reason),
            Schedules::Resume(args) => Self::named("schedule.resume", &every(&args.name), ""),
            Schedules::Remove(args) => Self::named("schedule.remove", &args.name, ""),
            Schedules::RunNow(args) => Self::named("schedule.run_now", &args.name, ""),
            Schedules::List(_) | Schedules::Show(_) | Schedules::Next(_) => None,
        }
    }

    fn of_budgets(budgets: &args::Budgets) -> Option<Self> {
        use args::Budgets;
        match budgets {
            Budgets::Set(args) => {
                let rest = format!("period {:?}, beyond {:?}, near {}", args.period, args.beyond, args.near);
                let detail = format!("{}; {}", caps("", args.caps), rest.to_lowercase());
                Some(Self::budget("budget.set", &args.scope, &detail, args.by.as_ref()))
            }
            Budgets::Raise(args) => {
                Some(Self::budget("budget.raise", &args.scope, &caps("+", args.more), args.by.as_ref()))
            }
            Budgets::Remove(args) => Some(Self::budget("budget.remove", &args.scope, "removed", args.by.as_ref())),
            Budgets::List | Budgets::Show(_) | Budgets::Objectives(_) => None,
        }
    }

    /// Something done to a budget, in the trail of the tenant that it binds.
    fn budget(action: &'static str, scope: &str, detail: &str, by: Option<&String>) -> Self {
        // What is no scope will be refused, and makes no trail of its own.
        let tenant = scope.split_once(':').filter(|_| is_scope(scope));
        let tenant = tenant.map(|(_, of)| of.split_once('/').map_or(of, |(tenant, _)| tenant));
        let subject = Subject::Named(tenant.map(str::to_owned), scope.to_owned());
        let (detail, budget) = (detail.to_owned(), Some(scope.to_owned()));
        Self { action, subject, detail, actor: by.cloned(), budget, afterwards: false }
    }

    fn of_export(args: &args::Export) -> Option<Self> {
        let file = args.out.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        match (&args.run, &args.tenant) {
            (Some(run), _) => Self::run("run.export", run, &format!("to {file}")),
            (None, Some(tenant)) => {
                let action = if args.user.is_some() { "user.export" } else { "tenant.export" };
                let subject = Subject::Named(Some(tenant.clone()), args.user.as_ref().unwrap_or(tenant).clone());
                let detail = format!("to {file}");
                Some(Self { action, subject, detail, actor: None, budget: None, afterwards: false })
            }
            (None, None) => None,
        }
    }

    fn of_store(store: &args::Store) -> Option<Self> {
        use args::Store;
        let file = |path: &std::path::Path| {
            path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
        };
        let after = |doing: Option<Self>| doing.map(|doing| Self { afterwards: true, ..doing });
        match store {
            Store::Migrate(_) => after(Self::named("store.migrate", "store", env!("CARGO_PKG_VERSION"))),
            Store::Restore(args) => after(Self::named("store.restore", "store", &file(&args.file))),
            // What is plain cannot be opened with keys before it.
            Store::Rekey(_) => after(Self::named("store.rekey", "store", "")),
            Store::Fence(args) => Self::named("store.fence", "store", &args.reason),
            Store::Backup(args) => Self::named("store.backup", "store", &file(&args.file)),
            Store::Compact(_) => Self::named("store.compact", "store", ""),
            Store::Status(_) => None,
        }
    }
}

/// Caps in words.
fn caps(sign: &str, caps: args::Caps) -> String {
    let all = [
        ("model_calls", caps.model_calls),
        ("tool_calls", caps.tool_calls),
        ("tokens", caps.tokens),
        ("cost_micros", caps.cost_micros),
    ];
    let said = all.into_iter().filter_map(|(meter, cap)| Some(format!("{meter} {sign}{}", cap?)));
    said.collect::<Vec<_>>().join(", ")
}

/// The caps that a budget has, in words.
async fn caps_now(app: &App, store: &dyn Store, scope: &str) -> Result<String, Problem> {
    let rows = escrow::budgets(store, app.now()).await?;
    let Some(row) = rows.into_iter().find(|row| *row.scope == *scope) else { return Ok("none".to_owned()) };
    let said = row.known.budget.caps.iter().map(|(meter, cap)| format!("{} {cap}", meter.as_str()));
    Ok(said.collect::<Vec<_>>().join(", "))
}

/// Writes down what is done, when there is a store and the run it is about. False when there is no store yet.
///
/// # Errors
/// The store cannot be written: then nothing is to be done either.
pub(super) async fn note(app: &App, doing: &Doing) -> Result<bool, Problem> {
    if app.store_url() == "memory:" {
        return Ok(true);
    }
    let store = match doing.action {
        "store.backup" => app.existing_store_with(app.keys_as_it_is().await?).await?,
        _ => app.existing_store().await?,
    };
    let Some(store) = store else { return Ok(false) };
    let mut doing = doing.clone();
    if let (PUBLISH | ROLLBACK, Subject::Named(_, name)) = (doing.action, &doing.subject)
        && let Some(current) = versions::current(&store, name).await?
    {
        doing.detail = format!("{}; before: {current}", doing.detail);
    }
    note_in(app, &*store, doing).await?;
    Ok(true)
}

/// Writes down what was done when there was no store yet: in the one that it made, or in a new one.
///
/// # Errors
/// The store cannot be made or written.
pub(super) async fn note_first(app: &App, doing: Doing) -> Result<(), Problem> {
    let store = match app.existing_store().await? {
        None if doing.is_beside() => app.store().await?,
        None => return Ok(()),
        Some(store) => store,
    };
    note_in(app, &*store, doing).await
}

async fn note_in(app: &App, store: &dyn Store, doing: Doing) -> Result<(), Problem> {
    let Doing { action, subject, mut detail, actor, budget, .. } = doing;
    if let Some(scope) = &budget {
        detail = format!("{detail}; before: {}", caps_now(app, store, scope).await?);
    }
    let standard = TenantScope::default().tenant;
    let (tenant, subject): (Name, String) = match subject {
        Subject::Named(Some(tenant), name) => {
            let tenant: Name = tenant.into();
            // Of a tenant that there is not, nothing is taken out or removed: it gets no trail by that.
            let begins = ![".export", ".remove"].iter().any(|end| action.ends_with(end));
            (if begins || trail::has_tenant(store, &tenant).await? { tenant } else { standard }, name)
        }
        Subject::Named(None, name) => (standard, name),
        Subject::Run(run) => match store.load(RunId::stored(&run)).await? {
            Some(stored) => (stored.head.tenant, run),
            // Whoever carries the command out says that there is none.
            None => return Ok(()),
        },
    };
    let cut = |text: String| -> Name { text.chars().take(DETAIL_MAX).collect::<String>().into() };
    let deed = Deed {
        at: app.now(),
        actor: actor.unwrap_or_else(crate::caller::actor).into(),
        action: action.into(),
        subject: cut(subject),
        detail: (!detail.is_empty()).then(|| cut(detail)),
    };
    trail::note(store, &tenant, deed).await?;
    // Where nothing works, nobody else would.
    trail::seal(store).await?;
    Ok(())
}

#[cfg(test)]
mod tests;
