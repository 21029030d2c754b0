//! One database of a server.

use std::sync::Arc;

use crate::server::Address;
use crate::{Rows, SqlError, must, sql};

/// A database that is removed when the value is dropped.
#[derive(Debug)]
pub struct Database {
    address: Arc<Address>,
    name: String,
}

impl Database {
    pub(crate) fn create(address: Arc<Address>) -> Self {
        let name = format!("t_{}", crate::host::unique());
        must(sql::run(&address.url("postgres"), &format!("CREATE DATABASE {name}")), "cannot make a database");
        Self { address, name }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address, as the store takes it.
    #[must_use]
    pub fn url(&self) -> String {
        self.address.url(&self.name)
    }

    /// The port of its server.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port
    }

    /// The folder of its server's socket.
    #[must_use]
    pub fn socket(&self) -> &std::path::Path {
        &self.address.socket
    }

    /// Runs statements, separated by semicolons, as the owner of everything.
    ///
    /// # Errors
    /// What the server says.
    pub fn execute(&self, statements: &str) -> Result<Rows, SqlError> {
        sql::run(&self.url(), statements)
    }

    /// Runs statements as the owner of everything, in another database of the same server: for changes that this one
    /// refuses.
    ///
    /// # Errors
    /// What the server says.
    pub fn execute_outside(&self, statements: &str) -> Result<Rows, SqlError> {
        sql::run(&self.address.url("postgres"), statements)
    }

    /// The first column of the first row of what a statement gives; empty when there is none.
    ///
    /// # Panics
    /// The server refuses the statement.
    #[must_use]
    pub fn value(&self, statement: &str) -> String {
        let rows = must(self.execute(statement), statement);
        rows.into_iter().next().and_then(|row| row.into_iter().next().flatten()).unwrap_or_default()
    }

    /// Ends the connections of others to it. Gives back how many.
    #[must_use]
    pub fn disconnect_all(&self) -> usize {
        let all = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}' AND pid <> pg_backend_pid()",
            self.name
        );
        self.execute(&all).map_or(0, |rows| rows.len())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // A database that stays, because its server is stopped, goes with the server.
        let _later = sql::run(&self.address.url("postgres"), &format!("DROP DATABASE {} WITH (FORCE)", self.name));
    }
}
