//! The address of a database: what the driver knows, and the settings of the store that stand beside it.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use windlass_ports::store::StoreError;

/// Shortest lease: below it, an ordinary pause of a process would cost its runs.
const LEASE_MS_MIN: u64 = 200;

/// How a connection is protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tls {
    /// As the driver's mode says; the server is not checked.
    Unchecked,
    /// The server must prove the name it is called by, with these roots; those of the system when no file is named.
    Checked(Option<PathBuf>),
}

/// How the store works. Each is a parameter of the URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// How long a worker is taken to live after its last sign of life.
    pub(super) lease: Duration,
    /// How soon a change that no hint told of is noticed.
    pub(super) poll: Duration,
    /// Connections for everything but commits and signs of life.
    pub(super) readers: usize,
    /// Connections that write.
    pub(super) lanes: usize,
    /// How long a caller waits for one of these.
    pub(super) patience: Duration,
    /// Whether a pooler in transaction mode is in between: no named statements, no settings, no hints.
    pub(super) pooled: Option<bool>,
    /// Where the marks of sent calls of this host are.
    pub(super) marks: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            poll: Duration::from_secs(1),
            readers: 4,
            lanes: 2,
            patience: Duration::from_secs(10),
            pooled: None,
            marks: None,
        }
    }
}

/// An address, read.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) config: Config,
    pub(super) tls: Tls,
    pub(super) settings: Settings,
}

fn invalid(text: impl Into<String>) -> StoreError {
    StoreError::Invalid(text.into())
}

fn number(key: &str, value: &str, least: u64) -> Result<u64, StoreError> {
    let number = value.parse::<u64>().ok().filter(|number| *number >= least && *number <= 86_400_000);
    number.ok_or_else(|| {
        invalid(format!("`{key}={value}` in the address of the database: a number from {least} is wanted"))
    })
}

fn truth(key: &str, value: &str) -> Result<bool, StoreError> {
    match value {
        "true" | "1" | "on" => Ok(true),
        "false" | "0" | "off" => Ok(false),
        _ => Err(invalid(format!("`{key}={value}` in the address of the database: `true` or `false` is wanted"))),
    }
}

impl Settings {
    /// Takes a parameter. False when it is none of the store's.
    fn take(&mut self, key: &str, value: &str) -> Result<bool, StoreError> {
        match key {
            "lease_ms" => self.lease = Duration::from_millis(number(key, value, LEASE_MS_MIN)?),
            "poll_ms" => self.poll = Duration::from_millis(number(key, value, 10)?),
            "patience_ms" => self.patience = Duration::from_millis(number(key, value, 1)?),
            "readers" => self.readers = number(key, value, 1)? as usize,
            "lanes" => self.lanes = number(key, value, 1)? as usize,
            "pgbouncer" => self.pooled = Some(truth(key, value)?),
            "marks" => self.marks = Some(value.into()),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl Address {
    /// Whether only a server that takes writes is wanted.
    pub(super) fn wants_primary(&self) -> bool {
        self.config.get_target_session_attrs() == TargetSessionAttrs::ReadWrite
    }

    /// The same, whatever server answers first.
    pub(super) fn of_any_server(mut self) -> Self {
        self.config.target_session_attrs(TargetSessionAttrs::Any);
        self
    }

    /// Reads `postgres://…` or `postgresql://…`.
    ///
    /// # Errors
    /// [`StoreError::Invalid`], in words that do not repeat the address: it may hold a password.
    pub(super) fn parse(url: &str) -> Result<Self, StoreError> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        // The driver ends the password at the first `@`: the rest of it would be a host, and shown.
        let is_cut = base.matches('@').count() > 1;
        let is_in_query = !base.contains('@') && query.contains('@') && base.matches(':').count() > 1;
        if is_cut || is_in_query {
            return Err(invalid(
                "the address of the database cannot be read: write `%40` for each `@` and `%3F` for each `?` in the \
                 password",
            ));
        }
        let mut settings = Settings::default();
        let (mut mode, mut roots, mut left) = (None, None, Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, raw) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode_str(raw).decode_utf8();
            let value = value.map_err(|_| invalid(format!("`{key}` in the address of the database is no UTF-8")))?;
            match key {
                "sslmode" => mode = Some(value.into_owned()),
                "sslrootcert" => roots = Some(PathBuf::from(value.into_owned())),
                _ if settings.take(key, &value)? => {}
                _ => left.push(pair),
            }
        }
        let rest = if left.is_empty() { base.to_owned() } else { format!("{base}?{}", left.join("&")) };
        let mut config = Config::from_str(&rest).map_err(|error| {
            let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            invalid(format!(
                "the address of the database cannot be read: {why}; write `postgres://USER:PASSWORD@HOST:PORT/DATABASE`"
            ))
        })?;
        if config.get_hosts().is_empty() {
            return Err(invalid(
                "the address of the database names no host; write `postgres://USER:PASSWORD@HOST:PORT/DATABASE`",
            ));
        }
        let tls = match (mode.as_deref(), roots) {
            (None, Some(_)) | (Some("disable" | "prefer" | "require"), Some(_)) => {
                return Err(invalid("`sslrootcert` is used with `sslmode=verify-full` only"));
            }
            (None | Some("prefer"), None) => (SslMode::Prefer, Tls::Unchecked),
            (Some("disable"), None) => (SslMode::Disable, Tls::Unchecked),
            (Some("require"), None) => (SslMode::Require, Tls::Unchecked),
            (Some("verify-full"), roots) => (SslMode::Require, Tls::Checked(roots)),
            (Some(other), _) => {
                return Err(invalid(format!(
                    "`sslmode={other}` is not known; use `disable`, `prefer`, `require` or `verify-full`"
                )));
            }
        };
        config.ssl_mode(tls.0);
        config.connect_timeout(Duration::from_secs(5)).tcp_user_timeout(Duration::from_secs(15));
        config
            .keepalives_idle(Duration::from_secs(10))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(2);
        // Of several hosts one is the primary, also after another one was promoted.
        if config.get_hosts().len() > 1 && config.get_target_session_attrs() == TargetSessionAttrs::Any {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        if config.get_application_name().is_none() {
            config.application_name("windlass");
        }
        Ok(Self { config, tls: tls.1, settings })
    }

    /// Host, port and database, for messages.
    pub(super) fn place(&self) -> String {
        let ports = self.config.get_ports();
        let port = |n: usize| ports.get(n).or(ports.first()).copied().unwrap_or(5_432);
        let hosts = self.config.get_hosts().iter().enumerate().map(|(n, host)| match host {
            Host::Tcp(name) => format!("{name}:{}", port(n)),
            Host::Unix(path) => format!("{}:{}", path.display(), port(n)),
        });
        format!("{}/{}", hosts.collect::<Vec<_>>().join(","), self.database())
    }

    /// The name of the database.
    pub(super) fn database(&self) -> &str {
        self.config.get_dbname().or_else(|| self.config.get_user()).unwrap_or_default()
    }

    /// The role.
    pub(super) fn user(&self) -> &str {
        self.config.get_user().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_stand_beside_those_of_the_driver() {
        let url = "postgresql://me:secret@db.example:6543/fleet?lease_ms=9000&poll_ms=250&readers=2&lanes=1\
                   &pgbouncer=true&marks=%2Fvar%2Flib%2Fw&application_name=x&sslmode=verify-full&sslrootcert=ca.pem";
        let address = Address::parse(url).unwrap();
        assert_eq!(address.place(), "db.example:6543/fleet");
        assert_eq!(address.tls, Tls::Checked(Some("ca.pem".into())));
        assert_eq!(address.config.get_application_name(), Some("x"));
        let settings = address.settings;
        assert_eq!((settings.lease, settings.poll), (Duration::from_secs(9), Duration::from_millis(250)));
        assert_eq!((settings.readers, settings.lanes, settings.pooled), (2, 1, Some(true)));
        assert_eq!(settings.marks, Some("/var/lib/w".into()));
    }

    #[test]
    fn of_several_hosts_the_one_that_takes_writes_is_used() {
        let several = Address::parse("postgres://me@a:6000,b:6001/fleet").unwrap();
        assert_eq!(several.place(), "a:6000,b:6001/fleet");
        assert_eq!(several.config.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
        let one = Address::parse("postgres://me@a:6000/fleet").unwrap();
        assert_eq!(one.config.get_target_session_attrs(), TargetSessionAttrs::Any);
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for (url, says) in [
            ("postgres://me:secret@h/d?sslmode=perhaps", "`sslmode=perhaps`"),
            ("postgres://me:secret@h/d?lease_ms=1", "`lease_ms=1`"),
            ("postgres://me:secret@h/d?readers=0", "`readers=0`"),
            ("postgres://me:secret@h/d?pgbouncer=maybe", "`pgbouncer=maybe`"),
            ("postgres://me:secret@h/d?sslrootcert=x", "`sslrootcert`"),
            ("postgres://me:secret@h/d?colour=red", "cannot be read"),
            ("postgres://me:secret@h:port/d", "cannot be read"),
            ("postgres:///d", "names no host"),
            ("postgres://me:se@secret@h/d", "`%40`"),
            ("postgres://me:1?secret=@h/d", "`%40`"),
        ] {
            match Address::parse(url) {
                Err(StoreError::Invalid(text)) => {
                    assert!(text.contains(says) && !text.contains("secret"), "{url}: {text}");
                }
                other => panic!("{url}: {other:?}"),
            }
        }
        let slash = Address::parse("postgres://me:sec/ret@h/d").unwrap();
        assert_eq!((slash.place().as_str(), slash.user()), ("h:5432/d", "me"));
        let address = Address::parse("postgres://me:secret@h/d").unwrap();
        assert!(!format!("{address:?}").contains("secret"));
    }
}
