//! Statements that are run and waited for, with or without a runtime around.

use tokio_postgres::{NoTls, SimpleQueryMessage};

/// Rows of text, in the order the server gives them.
pub type Rows = Vec<Vec<Option<String>>>;

/// What the server, or the way to it, says.
#[derive(Debug)]
pub struct SqlError(tokio_postgres::Error);

impl SqlError {
    /// The code of the server's message, such as `42501`.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.0.code().map(tokio_postgres::error::SqlState::code)
    }
}

impl std::fmt::Display for SqlError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.as_db_error() {
            Some(error) => write!(f, "{} ({})", error.message(), error.code().code()),
            None => match std::error::Error::source(&self.0) {
                Some(source) => write!(f, "{}: {source}", self.0),
                None => write!(f, "{}", self.0),
            },
        }
    }
}

impl std::error::Error for SqlError {}

/// Runs statements on a connection of their own, on a thread of its own: a caller may be inside a runtime.
pub(crate) fn run(url: &str, statements: &str) -> Result<Rows, SqlError> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let runtime = crate::must(
                tokio::runtime::Builder::new_current_thread().enable_all().build(),
                "cannot make a runtime",
            );
            runtime.block_on(ask(url, statements))
        });
        match thread.join() {
            Ok(rows) => rows,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

async fn ask(url: &str, statements: &str) -> Result<Rows, SqlError> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.map_err(SqlError)?;
    let work = tokio::spawn(connection);
    let messages = client.simple_query(statements).await.map_err(SqlError)?;
    drop(client);
    // The connection has said goodbye; whatever it says after the last answer changes nothing.
    let _over = work.await;
    let rows = messages.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect()),
        _ => None,
    });
    Ok(rows.collect())
}
