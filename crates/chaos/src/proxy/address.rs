//! The part of a store's address that a proxy has to know: where the server is, and what the address reads when the
//! proxy stands in its place.

use std::net::SocketAddr;

use windlass_core::redact;

/// Why a proxy cannot stand before an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is of another form.
    #[error("`{0}` is no address of a PostgreSQL server: `postgres://USER@HOST:PORT/DATABASE` is one")]
    Form(String),
    /// It names several servers, or a socket in a folder.
    #[error("a fault proxy stands before one server that is reached over TCP: {0}")]
    Place(String),
    /// It demands encryption, which a proxy cannot look into.
    #[error("`sslmode={0}` hides what is committed from the fault proxy")]
    Encrypted(String),
}

/// The address of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Up to the host: scheme, user and password.
    before: String,
    host: String,
    port: u16,
    /// From the database on.
    after: String,
}

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// One of another form, or one that no proxy can stand before.
    pub fn parse(url: &str) -> Result<Self, AddressError> {
        let form = || AddressError::Form(redact::address(url));
        let (scheme, rest) = url.split_once("://").ok_or_else(form)?;
        if !matches!(scheme, "postgres" | "postgresql") {
            return Err(form());
        }
        let (authority, after) = rest.find(['/', '?']).map_or((rest, ""), |at| rest.split_at(at));
        let (user, place) = authority.rsplit_once('@').map_or((None, authority), |(user, place)| (Some(user), place));
        if place.contains(',') {
            return Err(AddressError::Place(format!("`{}` names several", redact::address(url))));
        }
        let (host, port) = split_port(place).ok_or_else(form)?;
        if host.is_empty() || host.contains('%') || host.starts_with('/') {
            return Err(AddressError::Place("the address names a socket in a folder, or no host".into()));
        }
        for (name, value) in parameters(after) {
            match (name, value) {
                ("host" | "hostaddr" | "port", _) => {
                    return Err(AddressError::Place(format!("write `{name}` before the database, not as a parameter")));
                }
                ("sslmode", "require" | "verify-ca" | "verify-full") => {
                    return Err(AddressError::Encrypted(value.to_owned()));
                }
                _ => {}
            }
        }
        let before = format!("{scheme}://{}", user.map(|user| format!("{user}@")).unwrap_or_default());
        Ok(Self { before, host: host.to_owned(), port, after: after.to_owned() })
    }

    /// `HOST:PORT` of the server.
    #[must_use]
    pub fn upstream(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The same with a parameter, unless it has that already.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        if parameters(&self.after).all(|(given, _)| given != name) {
            let joint = if self.after.contains('?') { '&' } else { '?' };
            self.after.push_str(&format!("{joint}{name}={value}"));
        }
        self
    }

    /// The same database through a proxy.
    #[must_use]
    pub fn through(&self, proxy: SocketAddr) -> String {
        format!("{}{proxy}{}", self.before, self.after)
    }
}

fn split_port(place: &str) -> Option<(&str, u16)> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            (host, rest.strip_prefix(':').unwrap_or("5432"))
        }
        None => place.split_once(':').unwrap_or((place, "5432")),
    };
    Some((host, port.parse().ok()?))
}

fn parameters(after: &str) -> impl Iterator<Item = (&str, &str)> {
    let query = after.split_once('?').map_or("", |(_, query)| query);
    query.split('&').filter_map(|pair| pair.split_once('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_takes_the_place_of_the_server_and_nothing_else_changes() {
        let proxy = "127.0.0.1:4000".parse().expect("an address");
        for (url, upstream, through) in [
            (
                "postgres://a:b%40@db.example:6000/w?sslmode=prefer",
                "db.example:6000",
                "postgres://a:b%40@127.0.0.1:4000/w?sslmode=prefer",
            ),
            ("postgresql://db", "db:5432", "postgresql://127.0.0.1:4000"),
            ("postgres://u@[::1]:99/w", "[::1]:99", "postgres://u@127.0.0.1:4000/w"),
        ] {
            let address = Address::parse(url).expect(url);
            assert_eq!((address.upstream().as_str(), address.through(proxy).as_str()), (upstream, through), "{url}");
        }
    }

    #[test]
    fn what_no_proxy_can_stand_before_is_refused() {
        for url in [
            "sqlite:w.db",
            "postgres://u:secret@a,b/w",
            "postgres://%2Frun%2Fpg/w",
            "postgres:///w?host=/run",
            "postgres://u:secret@h:x/w",
            "postgres://h/w?sslmode=verify-full",
        ] {
            let error = Address::parse(url).expect_err(url).to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
