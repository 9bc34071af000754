//! DATABASE_URL, in every form the application may have it: SQLAlchemy's, libpq's two, asyncpg's.
//!
//! Parsed here and not by sqlx, so that no error, log line or Debug output ever repeats a password, and so that
//! nothing the URL asks for is silently left undone. Makes no connections. Of libpq's environment only what is listed at
//! [`Dsn::parse`] is looked at.

mod conninfo;
mod error;
mod params;
mod service;
mod split;
mod stored;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use zeroize::Zeroizing;

use super::tls::Tls;

pub use error::DsnError;
use params::Params;
pub use params::TargetSession;
use split::Split;
pub(super) use stored::read_password_file;
pub use stored::{PasswordError, Stored};

const DEFAULT_PORT: u16 = 5432;

/// Prepared statements kept per connection: more than rekey has.
const STATEMENT_CACHE: usize = 64;

/// Where the database is and how to get in. Cannot be printed with its password.
pub struct Dsn {
    user: String,
    password: Option<Zeroizing<String>>,
    /// Where it is read each time, if it is not known.
    stored: Stored,
    /// A name, an address without brackets, or the absolute directory of a Unix-domain socket.
    host: String,
    port: u16,
    database: String,
    ssl_mode: PgSslMode,
    root_cert: Option<String>,
    client_cert: Option<String>,
    client_key: Option<String>,
    application_name: Option<String>,
    connect_timeout: Option<Duration>,
    target_session: TargetSession,
}

impl Dsn {
    /// Reads a database URL.
    ///
    /// What it leaves out is taken, as libpq does, from the service that it or PGSERVICE names (PGSERVICEFILE), from PGUSER
    /// (or the OS user), PGPASSWORD, the password file (PGPASSFILE), PGSSLMODE, PGSSLROOTCERT, PGSSLCERT and PGSSLKEY. Which database it is must be said by the URL itself: PGHOST,
    /// PGPORT and PGDATABASE are not looked at. PGOPTIONS is refused: it can change how every statement works.
    pub fn parse(text: &str) -> Result<Dsn, DsnError> {
        Dsn::parse_in(text, &|name| std::env::var(name).ok())
    }

    fn parse_in(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<Dsn, DsnError> {
        let environment = |name: &str| environment(name).filter(|value| !value.is_empty());
        let text = text.trim();
        let (url, mut params) = if text.contains('=') && !split::is_url(text) {
            (Split::empty(), Params::of(conninfo::pairs(text)?)?)
        } else {
            let url = Split::new(text)?;
            let params = Params::read(url.query)?;
            (url, params)
        };

        let service = params.take("service").or_else(|| environment("PGSERVICE"));
        let service = match (service, service::path(&environment)) {
            (None, _) => None,
            (Some(name), Some(path)) => Some((path, name)),
            (Some(_), None) => {
                return Err(DsnError::Service {
                    path: "(none)".to_owned(),
                    cause: "there is none".to_owned(),
                });
            }
        };
        let mut password = either("password", url.password()?, params.take("password"))?;
        let mut from_service = false;
        if let Some((path, name)) = &service {
            let said = [
                ("user", url.user()?.is_some()),
                ("host", url.host.is_some()),
                ("port", url.port.is_some()),
                ("dbname", url.database()?.is_some()),
            ];
            let mut pairs = service::read(path, name)?;
            pairs.retain(|(pair, _)| !said.iter().any(|(name, said)| pair == name && *said));
            from_service = password.is_none() && pairs.iter().any(|(name, _)| name == "password");
            pairs.retain(|(name, _)| name != "password");
            params.complete(pairs)?;
        }
        if !from_service {
            password = password.or_else(|| environment("PGPASSWORD"));
        }
        let home = || environment("HOME").map(|home| format!("{home}/.pgpass"));
        let passfile = params.take("passfile").or_else(|| environment("PGPASSFILE")).or_else(home);

        let user = either("user", url.user()?, params.take("user"))?.or_else(|| environment("PGUSER"));
        let (host, port) = place(&url, &mut params)?;
        let database = either("dbname", url.database()?, params.take("dbname"))?;

        let root_cert = params.take("sslrootcert").or_else(|| environment("PGSSLROOTCERT"));
        let client_cert = params.take("sslcert").or_else(|| environment("PGSSLCERT"));
        let client_key = params.take("sslkey").or_else(|| environment("PGSSLKEY"));
        if client_cert.is_some() != client_key.is_some() {
            return Err(DsnError::Value { name: "sslcert", expected: "given together with sslkey" });
        }
        let asked = params::ssl_mode(&mut params, environment("PGSSLMODE"))?;
        if environment("PGOPTIONS").is_some() {
            return Err(DsnError::PgOptions);
        }

        let user = user.unwrap_or_else(operating_system_user);
        let database = database.ok_or(DsnError::NoDatabase)?;
        // libpq knows a socket as localhost there.
        let named = if host.starts_with('/') { "localhost".to_owned() } else { host.clone() };
        let key = [named, port.to_string(), database.clone(), user.clone()];
        let stored = Stored { service, passfile: passfile.map(Into::into), key };
        Ok(Dsn {
            user,
            password: password.map(Zeroizing::new),
            stored,
            ssl_mode: effective_ssl_mode(asked, root_cert.as_deref(), &host)?,
            host,
            port,
            database,
            root_cert,
            client_cert,
            client_key,
            application_name: params.take("application_name"),
            connect_timeout: params::connect_timeout(&mut params)?,
            target_session: params::target_session(&mut params)?,
        })
    }

    /// `user@host:port/database`, for people.
    pub fn describe(&self) -> String {
        let Dsn { user, host, port, database, .. } = self;
        if host.contains(':') {
            format!("{user}@[{host}]:{port}/{database}")
        } else {
            format!("{user}@{host}:{port}/{database}")
        }
    }

    /// Where the password is to be read each time a connection is made, unless it is known.
    pub(super) fn stored(&self) -> Option<Stored> {
        self.password.is_none().then(|| self.stored.clone())
    }

    /// The time the URL allows for connecting, where it says so.
    pub fn connect_timeout(&self) -> Option<Duration> {
        self.connect_timeout
    }

    /// The kind of server that the URL asks for; sqlx does not check it, so ask once connected.
    pub fn target_session(&self) -> TargetSession {
        self.target_session
    }

    /// What it says of TLS, for messages.
    pub fn tls(&self) -> Tls {
        Tls {
            host: self.host.clone(),
            mode: self.ssl_mode,
            root_cert: self.root_cert.clone(),
            client_cert: self.client_cert.clone(),
            client_key: self.client_key.clone(),
        }
    }

    /// What sqlx needs to connect. Never print it: its Debug output contains the password.
    ///
    /// sqlx fills the defaults from the PG* environment variables. Every field is set here over them, except
    /// where [`Dsn::parse`] found the environment's value to be the one wanted.
    pub fn connect_options(&self) -> PgConnectOptions {
        let mut options = PgConnectOptions::new_without_pgpass()
            .host(&self.host)
            .port(self.port)
            .username(&self.user)
            .database(&self.database)
            .ssl_mode(self.ssl_mode)
            .application_name(self.application_name.as_deref().unwrap_or("rekey"))
            // PgBouncer refuses start-up parameters that it does not know; no supported server needs this one.
            .extra_float_digits(None)
            .statement_cache_capacity(STATEMENT_CACHE);
        if let Some(password) = &self.password {
            options = options.password(password);
        }
        options = match self.root_cert.as_deref() {
            // No certificates besides the built-in ones; also undoes what sqlx took from the environment.
            None | Some("system") => options.ssl_root_cert_from_pem(Vec::new()),
            Some(pem) if pem.starts_with("-----BEGIN") => options.ssl_root_cert_from_pem(pem.into()),
            Some(path) => options.ssl_root_cert(path),
        };
        if let Some(path) = &self.client_cert {
            options = options.ssl_client_cert(path);
        }
        if let Some(path) = &self.client_key {
            options = options.ssl_client_key(path);
        }
        // Statements carry ids and ciphertexts; what is worth logging, rekey logs itself.
        options.disable_statement_logging()
    }
}

impl fmt::Debug for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dsn({})", self.describe())
    }
}

/// Host and port from wherever they stand. SQLAlchemy also writes `?host=name:port`.
fn place(url: &Split<'_>, params: &mut Params) -> Result<(String, u16), DsnError> {
    let (query_host, query_host_port) = match params.take("host") {
        Some(host) => split::decoded_host_and_port(&host)?,
        None => (None, None),
    };
    let host = either("host", url.host.clone(), query_host)?.ok_or(DsnError::NoHost)?;
    let query_port = params.take("port").map(|port| split::port(&port)).transpose()?;
    let port = either("port", either("port", url.port, query_host_port)?, query_port)?;
    Ok((host, port.unwrap_or(DEFAULT_PORT)))
}

/// libpq's meaning of the modes, in sqlx's terms.
fn effective_ssl_mode(
    asked: Option<PgSslMode>,
    root_cert: Option<&str>,
    host: &str,
) -> Result<PgSslMode, DsnError> {
    if host.starts_with('/') {
        return Ok(PgSslMode::Disable);
    }
    Ok(match (asked, root_cert) {
        (None | Some(PgSslMode::VerifyFull), Some("system")) => PgSslMode::VerifyFull,
        (_, Some("system")) => {
            return Err(DsnError::Value {
                name: "sslmode",
                expected: "verify-full where sslrootcert=system",
            });
        }
        (Some(PgSslMode::Require), Some(_)) => PgSslMode::VerifyCa,
        // sqlx takes `allow` for `disable`.
        (None | Some(PgSslMode::Allow), _) => PgSslMode::Prefer,
        (Some(mode), _) => mode,
    })
}

/// One of two places may say it, or both the same.
fn either<T: PartialEq>(
    name: &'static str,
    address: Option<T>,
    query: Option<T>,
) -> Result<Option<T>, DsnError> {
    match (address, query) {
        (Some(a), Some(q)) if a != q => Err(DsnError::Conflict { name }),
        (a, q) => Ok(a.or(q)),
    }
}

fn operating_system_user() -> String {
    PgConnectOptions::new_without_pgpass().get_username().to_owned()
}
