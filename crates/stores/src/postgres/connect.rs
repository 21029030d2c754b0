//! Connections: how they are made, how statements are run on them, and what their errors mean.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Connection, Row, Socket, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;
use windlass_ports::store::StoreError;

use crate::encryption::{KEY_REFUSED, PLAIN_REFUSED};

use super::url::{Address, Tls};

/// Longer than any statement of the store takes: after it a connection counts as lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Sent when a connection is made, where no pooler is in between.
const SESSION: &str = "-c lock_timeout=10s -c idle_in_transaction_session_timeout=60s -c jit=off";
/// Of a handle that only reads: a mistake of ours cannot write either.
const SESSION_TO_READ: &str = "-c default_transaction_read_only=on";
/// Of a connection with few statements, run again and again: plans that visit rows in the order they were sent in, and
/// are made once.
const SESSION_PLANNED: &str = "-c plan_cache_mode=force_generic_plan -c enable_hashjoin=off -c enable_mergejoin=off \
     -c enable_seqscan=off -c enable_bitmapscan=off";
/// Of a connection that claims and tells others. What it writes may be lost with the server: a run whose claim is lost is
/// in the queue again; whoever believes to hold it is refused by the name of the owner, which no other worker has, or has
/// claimed it once more itself. By a claim alone nothing leaves but calls that only read and cost nothing: everything else
/// waits for a decision, which is durable with all that was written before.
const SESSION_UNSYNCED: &str = "-c synchronous_commit=off";

/// What a connection runs over.
pub(super) type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// One statement of the store, and the types of its parameters.
#[derive(Debug)]
pub(super) struct Sql {
    pub(super) text: &'static str,
    pub(super) types: &'static [Type],
}

/// A value for a statement.
pub(super) type Value = Box<dyn ToSql + Sync + Send>;
/// A statement with its values.
pub(super) type Part = (&'static Sql, Vec<Value>);

/// What went wrong on a connection.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Nothing was written, and trying again may go better at once.
    Again(StoreError),
    /// What was asked for cannot be written; something else can.
    Refused(StoreError),
    /// Nothing more can be done now. Whether something was written is not known when the connection was lost.
    Passing(StoreError),
}

impl Trouble {
    pub(super) fn error(self) -> StoreError {
        match self {
            Self::Again(error) | Self::Refused(error) | Self::Passing(error) => error,
        }
    }
}

/// The words of an error, without what a server adds for its own log.
pub(super) fn words(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(error);
            while let Some(inner) = source {
                text = format!("{text}: {inner}");
                source = inner.source();
            }
            text
        }
    }
}

/// What an error of a statement means.
pub(super) fn trouble(error: &tokio_postgres::Error) -> Trouble {
    let Some(db) = error.as_db_error() else {
        return Trouble::Passing(StoreError::Unavailable(format!(
            "the connection to the database failed: {}",
            words(error)
        )));
    };
    let code = db.code();
    let unavailable = || StoreError::Unavailable(format!("the database refused: {}", words(error)));
    if [SqlState::T_R_DEADLOCK_DETECTED, SqlState::T_R_SERIALIZATION_FAILURE, SqlState::LOCK_NOT_AVAILABLE]
        .contains(code)
    {
        return Trouble::Again(unavailable());
    }
    // What the triggers of an encrypted store say.
    if matches!(db.message(), PLAIN_REFUSED | KEY_REFUSED) {
        return Trouble::Refused(StoreError::Key(db.message().into()));
    }
    if let Some(text) = refusal(db) {
        return Trouble::Refused(StoreError::Invalid(text));
    }
    match code.code().get(..2) {
        Some("22" | "54") => {
            Trouble::Refused(StoreError::Invalid(format!("a value cannot be stored: {}", words(error))))
        }
        Some("23") => Trouble::Refused(StoreError::Corrupt(format!("the database refused a row: {}", words(error)))),
        Some("XX") => Trouble::Refused(StoreError::Corrupt(format!("the database is damaged: {}", words(error)))),
        _ if *code == SqlState::DISK_FULL => {
            Trouble::Passing(StoreError::disk_full("the database server", words(error)))
        }
        _ if *code == SqlState::READ_ONLY_SQL_TRANSACTION => Trouble::Passing(StoreError::Unavailable(
            "the database takes no writes: it is a standby, or set to read only".into(),
        )),
        _ if *code == SqlState::INVALID_SQL_STATEMENT_NAME || *code == SqlState::DUPLICATE_PSTATEMENT => {
            Trouble::Passing(StoreError::Unavailable(
                "a connection pooler in transaction mode is before the database; add `pgbouncer=true` to its address"
                    .into(),
            ))
        }
        _ => Trouble::Passing(unavailable()),
    }
}

/// Statements refuse a request by reading a text that starts so as a number: the server repeats the text.
pub(super) const REFUSAL: &str = "windlass refuses: ";

fn refusal(db: &DbError) -> Option<String> {
    let (_, text) = db.message().split_once(REFUSAL)?;
    Some(text.trim_end_matches('"').to_owned())
}

/// What an error of a connection that cannot be made means.
fn refused(address: &Address, error: &tokio_postgres::Error) -> StoreError {
    let place = address.place();
    let text = match error.code() {
        Some(code) if *code == SqlState::INVALID_PASSWORD => {
            format!("the database `{place}` does not accept the password of `{}`", address.user())
        }
        Some(code) if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            format!("the database `{place}` does not let `{}` in: {}", address.user(), words(error))
        }
        Some(code) if *code == SqlState::INVALID_CATALOG_NAME => {
            let name = address.database();
            format!("the database `{place}` does not exist; make it with `createdb {name}`")
        }
        Some(code) if *code == SqlState::TOO_MANY_CONNECTIONS => {
            format!("the database `{place}` has no connection left; raise its `max_connections`, or use a pooler")
        }
        _ => format!("the database `{place}` cannot be reached: {}", words(error)),
    };
    StoreError::Unavailable(text)
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Any,
    /// Decisions, new runs, messages: acknowledged when they are durable.
    Lane,
    /// Claims, the runs that they bring, and hints.
    Queue,
}

/// Makes connections.
pub(super) struct Connector {
    pub(super) address: Address,
    tls: MakeRustlsConnect,
    pooled: AtomicBool,
    only_reads: bool,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("place", &self.address.place()).finish_non_exhaustive()
    }
}

impl Connector {
    /// # Errors
    /// [`StoreError::Invalid`] for root certificates that cannot be read.
    pub(super) fn new(address: Address) -> Result<Self, StoreError> {
        let tls = MakeRustlsConnect::new(tls(&address.tls)?);
        let pooled = AtomicBool::new(address.settings.pooled == Some(true));
        Ok(Self { address, tls, pooled, only_reads: false })
    }

    /// Makes connections that only read, to a server that may take no writes.
    ///
    /// # Errors
    /// As [`Connector::new`].
    pub(super) fn to_read(address: Address) -> Result<Self, StoreError> {
        // Of several servers the one that takes writes is asked for first, and its sessions must not say otherwise.
        let only_reads = !address.wants_primary();
        Ok(Self { only_reads, ..Self::new(address)? })
    }

    /// Whether a pooler in transaction mode is in between.
    pub(super) fn is_pooled(&self) -> bool {
        self.pooled.load(Ordering::Relaxed)
    }

    /// A connection, and what has to be driven for it to work.
    pub(super) async fn open(&self, purpose: Purpose) -> Result<(Client, Connection<Socket, Stream>), StoreError> {
        loop {
            let mut config = self.address.config.clone();
            let pooled = self.is_pooled();
            if !pooled {
                let own = config.get_options().unwrap_or_default().to_owned();
                let planned = if purpose == Purpose::Any { "" } else { SESSION_PLANNED };
                let unsynced = if purpose == Purpose::Queue { SESSION_UNSYNCED } else { "" };
                let reads = if self.only_reads { SESSION_TO_READ } else { "" };
                config.options(format!("{SESSION} {planned} {unsynced} {reads} {own}"));
            }
            match config.connect(self.tls.clone()).await {
                Ok(made) => return Ok(made),
                Err(error) if !pooled && self.address.settings.pooled.is_none() && is_pooler(&error) => {
                    tracing::info!(
                        "a connection pooler is before the database: statements are not named, hints are off"
                    );
                    self.pooled.store(true, Ordering::Relaxed);
                }
                Err(error) => return Err(refused(&self.address, &error)),
            }
        }
    }

    /// A connection to run statements on.
    pub(super) async fn link(&self, purpose: Purpose) -> Result<Link, StoreError> {
        let (client, connection) = self.open(purpose).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %words(&error), "a connection to the database ended");
            }
        });
        let mut link = Link { client, prepared: HashMap::new(), named: !self.is_pooled(), backend: None };
        if link.named {
            let rows = link.query(&BACKEND, Vec::new()).await.map_err(Trouble::error)?;
            link.backend = rows.first().and_then(|row| row.try_get(0).ok());
        }
        Ok(link)
    }
}

static BACKEND: Sql = Sql { text: "SELECT pg_backend_pid()", types: &[] };

/// A pooler refuses settings at the start of a connection.
fn is_pooler(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|db| db.message().contains("unsupported startup parameter"))
}

/// A connection, and the statements it knows by name.
pub(super) struct Link {
    pub(super) client: Client,
    prepared: HashMap<&'static str, Statement>,
    named: bool,
    /// The server's process, when this connection has one for itself.
    pub(super) backend: Option<i32>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("backend", &self.backend).finish_non_exhaustive()
    }
}

type Answer<'a> = Pin<Box<dyn Future<Output = Result<Vec<Row>, tokio_postgres::Error>> + Send + 'a>>;

fn params(values: &[Value]) -> Vec<&(dyn ToSql + Sync)> {
    values.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect()
}

impl Link {
    pub(super) fn is_lost(&self) -> bool {
        self.client.is_closed()
    }

    async fn prepare(&mut self, sql: &'static Sql) -> Result<(), tokio_postgres::Error> {
        if self.named && !self.prepared.contains_key(sql.text) {
            let statement = self.client.prepare_typed(sql.text, sql.types).await?;
            self.prepared.insert(sql.text, statement);
        }
        Ok(())
    }

    fn ask<'a>(&'a self, sql: &'static Sql, values: &'a [Value]) -> Answer<'a> {
        Box::pin(async move {
            match self.prepared.get(sql.text) {
                Some(statement) => self.client.query(statement, &params(values)).await,
                None => {
                    let typed: Vec<_> = params(values).into_iter().zip(sql.types.iter().cloned()).collect();
                    self.client.query_typed(sql.text, &typed).await
                }
            }
        })
    }

    /// One statement, which is a transaction of its own.
    pub(super) async fn query(&mut self, sql: &'static Sql, values: Vec<Value>) -> Result<Vec<Row>, Trouble> {
        let mut answers = self.fly(vec![(sql, values)]).await?;
        Ok(answers.pop().unwrap_or_default())
    }

    /// Statements in one go. More than one are one transaction: all are sent before the first is answered.
    pub(super) async fn fly(&mut self, parts: Vec<Part>) -> Result<Vec<Vec<Row>>, Trouble> {
        let flown = tokio::time::timeout(ANSWER_TIMEOUT, self.fly_now(&parts)).await;
        flown.unwrap_or_else(|_| {
            let seconds = ANSWER_TIMEOUT.as_secs();
            Err(Trouble::Passing(StoreError::Unavailable(format!("the database did not answer for {seconds} s"))))
        })
    }

    async fn fly_now(&mut self, parts: &[Part]) -> Result<Vec<Vec<Row>>, Trouble> {
        for (sql, _) in parts {
            self.prepare(sql).await.map_err(|error| trouble(&error))?;
        }
        let link: &Self = self;
        let simple = |text: &'static str| -> Answer<'_> {
            Box::pin(async move { link.client.batch_execute(text).await.map(|()| Vec::new()) })
        };
        let mut answers: Vec<Answer<'_>> = Vec::with_capacity(parts.len() + 2);
        if parts.len() > 1 {
            answers.push(simple("BEGIN"));
        }
        answers.extend(parts.iter().map(|(sql, values)| link.ask(sql, values)));
        if parts.len() > 1 {
            answers.push(simple("COMMIT"));
        }
        // The first error is the reason of all that follow.
        let answers: Result<Vec<_>, _> = join_all(answers).await.into_iter().collect();
        let mut answers = answers.map_err(|error| trouble(&error))?;
        if parts.len() > 1 {
            answers.pop();
            answers.remove(0);
        }
        Ok(answers)
    }
}

fn tls(tls: &Tls) -> Result<ClientConfig, StoreError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| StoreError::Invalid(format!("no version of TLS can be used: {error}")))?;
    Ok(match tls {
        Tls::Unchecked => {
            let verifier = Arc::new(Unchecked(provider));
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        }
        Tls::Checked(file) => builder.with_root_certificates(roots(file.as_deref())?).with_no_client_auth(),
    })
}

fn roots(file: Option<&Path>) -> Result<RootCertStore, StoreError> {
    let mut roots = RootCertStore::empty();
    match file {
        Some(path) => {
            let failed = |error: &dyn fmt::Display| {
                StoreError::Invalid(format!("the root certificates in `{}` cannot be read: {error}", path.display()))
            };
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| failed(&error))? {
                let certificate = certificate.map_err(|error| failed(&error))?;
                roots.add(certificate).map_err(|error| failed(&error))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(StoreError::Invalid(
            "there are no root certificates to check the database with; name a file with `sslrootcert`".into(),
        ));
    }
    Ok(roots)
}

/// Encrypts, and believes whatever the server says it is: what `prefer` and `require` mean.
#[derive(Debug)]
struct Unchecked(Arc<CryptoProvider>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
