//! `windlass tokens`: makes, shows and revokes tokens for calls over HTTP. Prints no key.

use std::collections::BTreeMap;
use std::io::Read;

use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use windlass_core::time::Timestamp;
use windlass_ports::clock::Clock;
use windlass_runtime::SystemClock;
use windlass_runtime::trail::{self, Deed};
use windlass_server::auth::{
    self, Authority, Revocation, Revoked, RevokedWhat, Signer, TOKEN_BYTES_MAX, Wanted, revocations,
};

use crate::app::App;
use crate::args::{Revocable, Tokens, TokensIssue, TokensRestore, TokensRevoke, TokensShow};
use crate::caller::actor;
use crate::config::Issuer;
use crate::exit::{Exit, Problem};
use crate::output::{printable, time};
use crate::session;

/// For how long the id of a token is refused: as long as any may be of use, with the clocks of both sides apart.
const TOKEN_MS_MAX: u64 = 24 * 3_600_000 + 2 * 5 * 60_000;
/// Bytes of a name that can be revoked.
const NAME_BYTES_MAX: usize = 128;

/// Carries a command about tokens out.
pub(crate) async fn perform(app: &App, command: Tokens) -> Result<Exit, Problem> {
    match command {
        Tokens::Issue(args) => issue(app, args).await,
        Tokens::Show(args) => show(app, args).await,
        Tokens::Revoke(args) => revoke(app, args).await,
        Tokens::Restore(args) => restore(app, args).await,
        Tokens::Revoked => revoked(app).await,
    }
}

/// Whose tokens are taken, as configured.
///
/// # Errors
/// An issuer that cannot be used.
fn authority(app: &App) -> Result<Authority, Problem> {
    let wiring = session::wiring(app, &app.loaded.folder);
    authority_of(&app.loaded.config.auth.issuers, &|reference| wiring.secret(reference))
}

/// The same with these secrets.
///
/// # Errors
/// As [`authority`].
pub(super) fn authority_of(
    tables: &BTreeMap<String, Issuer>,
    secret: &dyn Fn(&str) -> Option<SecretString>,
) -> Result<Authority, Problem> {
    let mut issuers = Vec::new();
    for (name, issuer) in tables {
        let lowered = issuer.lowered(secret);
        issuers.push(lowered.map_err(|(key, why)| wrong(&format!("auth.issuers.{name}.{key}"), &why))?);
    }
    let count = issuers.len();
    let distinct: std::collections::BTreeSet<&str> = issuers.iter().map(|issuer| issuer.issuer.as_str()).collect();
    if distinct.len() < count {
        return Err(wrong("auth.issuers", "has two issuers with one `issuer`"));
    }
    Ok(Authority::new(issuers))
}

fn wrong(key: &str, why: &str) -> Problem {
    Problem::new(Exit::Invalid, "cli.config", format!("`{key}`: {why}"))
        .detail("key", key)
        .hint("docs/calls.md has examples of `[auth.issuers]`")
}

async fn issue(app: &App, args: TokensIssue) -> Result<Exit, Problem> {
    let auth = &app.loaded.config.auth;
    let signing =
        auth.signing.as_ref().ok_or_else(|| wrong("auth.signing", "there is none, and tokens come from elsewhere"))?;
    let issuer = auth.issuers.get(&signing.issuer);
    let issuer = issuer.ok_or_else(|| wrong("auth.signing.issuer", "names none of `[auth.issuers]`"))?;
    let tenant = super::run::owner("--tenant", &args.tenant)?;
    let user = super::run::owner("--user", &args.user)?;
    if !issuer.tenants.is_empty() && !issuer.tenants.iter().any(|named| **named == *tenant) {
        return Err(Problem::rejected(format!("the issuer may not speak for the tenant `{tenant}`"))
            .hint("`tenants` of its table has those that it may speak for"));
    }
    if args.lifetime.0 > issuer.lifetime_max.0 || args.lifetime.0 < 1_000 {
        let most = issuer.lifetime_max;
        return Err(Problem::invalid(format!("`--lifetime` is from a second to {most}, as `lifetime_max` says")));
    }
    let names_one = |tool: &str| {
        !tool.is_empty() && !tool.contains(char::is_whitespace) && !tool.strip_suffix('*').unwrap_or(tool).contains('*')
    };
    if let Some(tool) = args.tool.iter().find(|tool| !names_one(tool)) {
        return Err(Problem::invalid(format!("`--tool`: {tool:?} cannot name a tool"))
            .hint("a name, the beginning of names and `*`, or `*` for all"));
    }
    let wiring = session::wiring(app, &app.loaded.folder);
    let key = wiring.secret(&signing.key).ok_or_else(|| wrong("auth.signing.key", crate::config::MISSING))?;
    let claims = issuer.claims();
    let whose = (issuer.issuer.as_str(), issuer.audience.as_str(), &claims);
    let unusable = |error: auth::BadKey| wrong("auth.signing.key", &error.to_string());
    let signer = Signer::new(issuer.algorithm.lowered(), &key, issuer.key_id.as_deref(), whose).map_err(unusable)?;
    let now = app.now();
    let clock = SystemClock::new();
    let wanted = Wanted {
        tenant: tenant.to_string(),
        user: user.to_string(),
        scopes: args.tool.iter().map(|tool| format!("tools:{tool}")).collect(),
        id: format!("{:016x}{:016x}", clock.seed(), clock.seed()),
        made_s: now.0 / 1_000,
        lifetime_s: args.lifetime.0 / 1_000,
    };
    let minted = signer.mint(&wanted).map_err(unusable)?;
    if let Err(refusal) = authority(app)?.authenticate(minted.token.expose_secret(), wanted.made_s) {
        let why = format!("a token that is signed with it is not taken here ({})", refusal.as_str());
        return Err(wrong("auth.signing.key", &why));
    }
    note_issued(app, &wanted).await?;
    let expires = time(Timestamp((wanted.made_s + wanted.lifetime_s) * 1_000));
    let document = json!({
        "token": minted.token.expose_secret(),
        "token_id": wanted.id,
        "expires_at": expires,
        "claims": minted.claims,
    });
    app.output.sentence(&document, minted.token.expose_secret());
    Ok(Exit::Ok)
}

/// Writes down for whom a token was made, before anybody has it.
async fn note_issued(app: &App, wanted: &Wanted) -> Result<(), Problem> {
    if app.store_url() == "memory:" {
        return Ok(());
    }
    let Some(store) = app.existing_store().await? else { return Ok(()) };
    let deed = Deed {
        at: app.now(),
        actor: actor().into(),
        action: "token.issue".into(),
        subject: wanted.user.as_str().into(),
        detail: Some(format!("{} for {} s: {}", wanted.id, wanted.lifetime_s, wanted.scopes.join(" ")).into()),
    };
    trail::note(&*store, &wanted.tenant.as_str().into(), deed).await?;
    trail::seal(&*store).await?;
    Ok(())
}

async fn show(app: &App, args: TokensShow) -> Result<Exit, Problem> {
    let token = read(&args)?;
    let authority = authority(app)?;
    if authority.is_empty() {
        return Err(wrong("auth.issuers", "there is none, and no token would be taken"));
    }
    let denied = |word: &str, said: &str| {
        Problem::new(Exit::Denied, "auth.unauthenticated", said.to_owned()).detail("reason", word)
    };
    let caller = authority
        .authenticate(token.expose_secret().trim(), app.now().0 / 1_000)
        .map_err(|refusal| denied(refusal.as_str(), refusal.said()))?;
    let revoked = match app.store_to_read().await? {
        Some(store) => revocations(&*store).await?,
        None => Revoked::default(),
    };
    if revoked.holds(&caller, app.now()) {
        return Err(denied(auth::Refusal::Revoked.as_str(), auth::Refusal::Revoked.said()));
    }
    if !caller.may_speak {
        return Err(denied("tenant", "the issuer of the token may not speak for its tenant"));
    }
    let tools = caller.scopes.tools();
    let expires = time(Timestamp(caller.expires.saturating_mul(1_000)));
    let document = json!({
        "issuer": &*caller.issuer,
        "tenant": &*caller.tenant,
        "user": &*caller.user,
        "tools": tools,
        "token_id": caller.id.as_deref(),
        "key_id": caller.key.as_deref(),
        "expires_at": expires,
    });
    let text = format!("{} of {} may call {} until {expires}", caller.user, caller.tenant, tools.join(", "));
    app.output.sentence(&document, &printable(&text));
    Ok(Exit::Ok)
}

fn read(args: &TokensShow) -> Result<SecretString, Problem> {
    let most = TOKEN_BYTES_MAX as u64 + 2;
    let mut text = String::new();
    let io =
        |error: std::io::Error| Problem::new(Exit::Unreachable, "cli.io", format!("cannot read the token: {error}"));
    let read = match &args.file {
        Some(path) => std::fs::File::open(path).and_then(|file| file.take(most).read_to_string(&mut text)),
        None => std::io::stdin().lock().take(most).read_to_string(&mut text),
    };
    read.map_err(io)?;
    Ok(text.into())
}

fn what(what: Revocable) -> RevokedWhat {
    match what {
        Revocable::Token => RevokedWhat::Token,
        Revocable::User => RevokedWhat::User,
        Revocable::Key => RevokedWhat::Key,
    }
}

fn said(by: &str, reason: &str) -> Result<(), Problem> {
    for (flag, text) in [("--by NAME", by), ("--reason TEXT", reason)] {
        if text.trim().is_empty() {
            return Err(Problem::invalid(format!("somebody does this, and for a reason: `{flag}`")));
        }
    }
    Ok(())
}

async fn revoke(app: &App, TokensRevoke { about, span }: TokensRevoke) -> Result<Exit, Problem> {
    said(&about.by, &about.reason)?;
    if about.name.is_empty() || about.name.len() > NAME_BYTES_MAX {
        return Err(Problem::invalid(format!("a name has 1 to {NAME_BYTES_MAX} bytes")));
    }
    let (what, now) = (what(about.what), app.now());
    let span = span.map(|span| span.0).or_else(|| (what == RevokedWhat::Token).then_some(TOKEN_MS_MAX));
    let revocation = Revocation {
        what,
        name: about.name.clone(),
        at: now,
        until: span.map(|span| now.plus_ms(span)),
        by: about.by,
        reason: about.reason,
    };
    let document = described(&revocation);
    if !auth::revoke(&*app.store().await?, revocation).await? {
        return Err(Problem::rejected("no more can be revoked: restore what is not needed, or replace the key")
            .hint("`windlass tokens revoked` lists what is revoked"));
    }
    app.output.sentence(&document, &printable(&format!("the {} `{}` is revoked", what.as_str(), about.name)));
    Ok(Exit::Ok)
}

async fn restore(app: &App, TokensRestore { about }: TokensRestore) -> Result<Exit, Problem> {
    said(&about.by, &about.reason)?;
    let what = what(about.what);
    let missing = || Problem::rejected(format!("the {} `{}` is not revoked", what.as_str(), about.name));
    let store = app.store_to_change().await?.ok_or_else(missing)?;
    if !auth::unrevoke(&*store, what, &about.name).await? {
        return Err(missing());
    }
    let document = json!({ "what": what.as_str(), "name": about.name, "revoked": false });
    app.output.sentence(&document, &printable(&format!("the {} `{}` is no longer revoked", what.as_str(), about.name)));
    Ok(Exit::Ok)
}

async fn revoked(app: &App) -> Result<Exit, Problem> {
    let mut all = match app.store_to_list().await? {
        Some(store) => revocations(&*store).await?.0,
        None => Vec::new(),
    };
    all.retain(|one| one.until.is_none_or(|until| until > app.now()));
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|one| {
            let until = one.until.map_or_else(|| "for good".to_owned(), time);
            let (name, by, reason) = (printable(&one.name), printable(&one.by), printable(&one.reason));
            vec![one.what.as_str().to_owned(), name, time(one.at), until, by, reason]
        })
        .collect();
    let document = json!({ "revoked": all.iter().map(described).collect::<Vec<_>>() });
    app.output.table(&document, &["what", "name", "since", "until", "by", "reason"], &rows);
    Ok(Exit::Ok)
}

fn described(one: &Revocation) -> serde_json::Value {
    json!({
        "what": one.what.as_str(),
        "name": one.name,
        "since": time(one.at),
        "until": one.until.map(time),
        "by": one.by,
        "reason": one.reason,
    })
}
