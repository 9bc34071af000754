//! The query of a database URL: which parameters mean something here, which mean nothing, which are refused.
//!
//! Names are libpq's (PostgreSQL manual, 34.1.2), asyncpg's and SQLAlchemy's.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::postgres::PgSslMode;
use zeroize::Zeroizing;

use super::error::DsnError;
use super::split::decode;

/// Parameters that are used, and the name each is known by here.
const USED: &[(&str, &str)] = &[
    ("application_name", "application_name"),
    ("connect_timeout", "connect_timeout"),
    ("dbname", "dbname"),
    ("host", "host"),
    ("passfile", "passfile"),
    ("password", "password"),
    ("port", "port"),
    ("service", "service"),
    ("ssl", "sslmode"),
    ("sslcert", "sslcert"),
    ("sslkey", "sslkey"),
    ("sslmode", "sslmode"),
    ("sslrootcert", "sslrootcert"),
    ("target_session_attrs", "target_session_attrs"),
    ("timeout", "connect_timeout"),
    ("user", "user"),
];

/// Parameters that steer the application's own driver, or things that rekey settles for itself.
const IGNORED: &[&str] = &[
    "async_fallback",
    "client_encoding",
    "command_timeout",
    "fallback_application_name",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "load_balance_hosts",
    "max_cacheable_statement_size",
    "max_cached_statement_lifetime",
    "prepare_threshold",
    "prepared_statement_cache_size",
    "prepared_statement_name_func",
    "sslcompression",
    "sslsni",
    "statement_cache_size",
    "tcp_user_timeout",
];

/// Parameters that are harmless except with the value named: a protection that would silently be missing.
const UNLESS: &[(&str, &str)] = &[
    ("channel_binding", "require"),
    ("gssencmode", "require"),
    ("ssl_min_protocol_version", "TLSv1.3"),
    ("sslnegotiation", "direct"),
];

/// Parameters that libpq and the drivers know and rekey does not take: those whose names are no part of a password.
const REFUSED: &[&str] = &[
    "connection_timeout",
    "direct_tls",
    "gsslib",
    "hostaddr",
    "krbsrvname",
    "options",
    "replication",
    "require_auth",
    "server_settings",
    "sslcrl",
    "sslcrldir",
    "sslpassword",
];

/// The parameters given, decoded; each at most once.
#[derive(Default)]
pub(super) struct Params(BTreeMap<&'static str, String>);

impl Params {
    /// Of a URL's query.
    pub(super) fn read(query: &str) -> Result<Self, DsnError> {
        let mut params = Params::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            // Without a `=` it may be the rest of a password that had a raw `&` in it.
            let (name, value) = pair.split_once('=').ok_or(DsnError::Unknown { name: None })?;
            params.add(name, |name| decode(name, value))?;
        }
        Ok(params)
    }

    /// Of `key=value` pairs.
    pub(super) fn of(pairs: Vec<(&str, String)>) -> Result<Self, DsnError> {
        let mut params = Params::default();
        for (name, value) in pairs {
            params.add(name, |_| Ok(value))?;
        }
        Ok(params)
    }

    /// What a service file says, where nothing was said before. Its names are nobody's password.
    pub(super) fn complete(&mut self, pairs: Vec<(String, Zeroizing<String>)>) -> Result<(), DsnError> {
        let mut more = Params::default();
        for (name, value) in pairs {
            more.add(&name, |_| Ok(value.to_string()))?;
        }
        for (name, value) in more.0 {
            self.0.entry(name).or_insert(value);
        }
        Ok(())
    }

    fn add(
        &mut self,
        name: &str,
        value: impl FnOnce(&'static str) -> Result<String, DsnError>,
    ) -> Result<(), DsnError> {
        if let Some(&(_, name)) = USED.iter().find(|(spelt, _)| *spelt == name) {
            let value = value(name)?;
            if !value.is_empty() && self.0.insert(name, value).is_some() {
                return Err(DsnError::Repeated { name });
            }
        } else if let Some(&(name, refused)) = UNLESS.iter().find(|(spelt, _)| *spelt == name) {
            if value(name)?.eq_ignore_ascii_case(refused) {
                return Err(DsnError::Unsupported { name });
            }
        } else if !IGNORED.contains(&name) {
            return Err(DsnError::Unknown { name: shown(name) });
        }
        Ok(())
    }

    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }
}

/// An unknown name is shown only if it is, or is nearly, a parameter's: after an unescaped `?`, `&` or blank in a password
/// the rest of it looks like a name.
fn shown(name: &str) -> Option<String> {
    let known = USED.iter().chain(UNLESS).map(|(known, _)| known).chain(IGNORED).chain(REFUSED);
    let nearly = |known: &&&str| name == **known || known.len() >= 6 && distance(name, known) <= 2;
    known.into_iter().find(|known| nearly(known)).map(|_| name.to_owned())
}

/// Letters to insert, to delete or to replace.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let change = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

/// `true` and `false` are JDBC's; libpq reads `ssl=true` as `sslmode=require` too.
pub(super) fn ssl_mode(
    params: &mut Params,
    environment: Option<String>,
) -> Result<Option<PgSslMode>, DsnError> {
    const EXPECTED: &str = "disable, allow, prefer, require, verify-ca or verify-full";
    let (name, word) = match (params.take("sslmode"), environment) {
        (Some(word), _) => ("sslmode", word),
        (None, Some(word)) => ("sslmode (from PGSSLMODE)", word),
        (None, None) => return Ok(None),
    };
    Ok(Some(match word.to_ascii_lowercase().replace('_', "-").as_str() {
        "disable" | "false" => PgSslMode::Disable,
        "allow" => PgSslMode::Allow,
        "prefer" => PgSslMode::Prefer,
        "require" | "true" => PgSslMode::Require,
        "verify-ca" => PgSslMode::VerifyCa,
        "verify-full" => PgSslMode::VerifyFull,
        _ => return Err(DsnError::Value { name, expected: EXPECTED }),
    }))
}

/// Seconds; zero or less is libpq's "wait for ever", which here means: our own default.
pub(super) fn connect_timeout(params: &mut Params) -> Result<Option<Duration>, DsnError> {
    const REFUSED: DsnError = DsnError::Value { name: "connect_timeout", expected: "a number of seconds" };
    let Some(text) = params.take("connect_timeout") else { return Ok(None) };
    let seconds: f64 = text.parse().map_err(|_| REFUSED)?;
    if !seconds.is_finite() || seconds > 86_400.0 {
        return Err(REFUSED);
    }
    Ok((seconds > 0.0).then(|| Duration::from_secs_f64(seconds)))
}

/// The kind of server a URL asks for; libpq's `target_session_attrs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetSession {
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
}

impl TargetSession {
    /// Whether a server may be used, by its `pg_is_in_recovery()` and `default_transaction_read_only`.
    pub const fn admits(self, in_recovery: bool, read_only: bool) -> bool {
        match self {
            TargetSession::Any => true,
            TargetSession::ReadWrite => !in_recovery && !read_only,
            TargetSession::ReadOnly => in_recovery || read_only,
            TargetSession::Primary => !in_recovery,
            TargetSession::Standby => in_recovery,
        }
    }
}

pub(super) fn target_session(params: &mut Params) -> Result<TargetSession, DsnError> {
    Ok(match params.take("target_session_attrs").as_deref() {
        // With one host there is nothing to prefer.
        None | Some("any" | "prefer-standby") => TargetSession::Any,
        Some("read-write") => TargetSession::ReadWrite,
        Some("read-only") => TargetSession::ReadOnly,
        Some("primary") => TargetSession::Primary,
        Some("standby") => TargetSession::Standby,
        Some(_) => {
            return Err(DsnError::Value {
                name: "target_session_attrs",
                expected: "any, read-write, read-only, primary, standby or prefer-standby",
            });
        }
    })
}
