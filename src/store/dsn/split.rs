//! Where the parts of a database URL begin and end. Decodes them; gives them no meaning.
//!
//! Not a general URL parser: SQLAlchemy, whose URLs these mostly are, allows `/`, `?` and `#` unescaped in a
//! password, and `user:password@/db?host=…`, which is no URL by the WHATWG's rules.

use percent_encoding::percent_decode_str;

use super::error::DsnError;

/// libpq's two, and SQLAlchemy's for each of its drivers.
const SCHEMES: &[&str] = &[
    "postgresql",
    "postgres",
    "postgresql+asyncpg",
    "postgresql+pg8000",
    "postgresql+psycopg",
    "postgresql+psycopg2",
    "postgresql+psycopg2cffi",
    "postgresql+psycopg_async",
];

/// A database URL in its parts; user, password, database and query still encoded.
pub(super) struct Split<'a> {
    user: Option<&'a str>,
    password: Option<&'a str>,
    pub(super) host: Option<String>,
    pub(super) port: Option<u16>,
    database: Option<&'a str>,
    pub(super) query: &'a str,
}

impl<'a> Split<'a> {
    pub(super) fn new(text: &'a str) -> Result<Self, DsnError> {
        let (scheme, rest) = text.split_once("://").ok_or(DsnError::NoScheme)?;
        let scheme = scheme.to_ascii_lowercase();
        if !SCHEMES.contains(&scheme.as_str()) {
            return Err(DsnError::Scheme { scheme: known_scheme(&scheme) });
        }
        let (userinfo, rest) = split_userinfo(rest);
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (place, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = host_and_port(place)?;
        // What stands before it may be the end of a password that has an `@` in it.
        if database.contains('@') {
            return Err(DsnError::Host);
        }
        let (user, password) = match userinfo.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (userinfo, None),
        };
        Ok(Split { user: filled(user), password, host, port, database: filled(database), query })
    }

    /// Nothing: all of it stands in parameters.
    pub(super) fn empty() -> Self {
        Split { user: None, password: None, host: None, port: None, database: None, query: "" }
    }

    pub(super) fn user(&self) -> Result<Option<String>, DsnError> {
        self.user.map(|text| decode("user", text)).transpose()
    }

    pub(super) fn password(&self) -> Result<Option<String>, DsnError> {
        self.password.and_then(filled).map(|text| decode("password", text)).transpose()
    }

    pub(super) fn database(&self) -> Result<Option<String>, DsnError> {
        self.database.map(|text| decode("database", text)).transpose()
    }
}

/// Whether text is a URL and no `key=value` string, whose values may well have `://` in them.
pub(super) fn is_url(text: &str) -> bool {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-._".contains(&b)))
}

/// A scheme that is shown: it names a database, and is no part of a password.
fn known_scheme(scheme: &str) -> Option<String> {
    const NAMED: &[&str] = &[
        "mysql",
        "mariadb",
        "sqlite",
        "oracle",
        "mssql",
        "cockroachdb",
        "postgresql",
        "postgres",
        "http",
        "https",
        "jdbc",
        "redis",
    ];
    let base = scheme.split_once('+').map_or(scheme, |(base, _)| base);
    NAMED.contains(&base).then(|| base.to_owned())
}

/// Splits off `user:password@`. libpq ends a password at the first `/`, SQLAlchemy only at the first `@`; where
/// they differ, libpq is followed if what it takes for the host may be one.
fn split_userinfo(rest: &str) -> (&str, &str) {
    let Some(at) = rest.find('@') else { return ("", rest) };
    let (userinfo, after) = (&rest[..at], &rest[at + 1..]);
    let head = rest.find(['/', '?', '#']).map_or(rest, |end| &rest[..end]);
    let in_head = at < head.len();
    let in_path = !userinfo.contains('?');
    let user_is_plain = userinfo.split_once(':').is_some_and(|(user, _)| !user.contains(['/', '?', '#']));
    if in_head || user_is_plain && (in_path || host_and_port(head).is_err()) {
        (userinfo, after)
    } else {
        ("", rest)
    }
}

type Place = (Option<String>, Option<u16>);

/// `name`, `name:port`, `[v6]:port`, `/socket/directory`, percent-encoded or not, or nothing.
fn host_and_port(text: &str) -> Result<Place, DsnError> {
    place(text, |host| decode("host", host))
}

/// The same from the query, whose values are decoded already.
pub(super) fn decoded_host_and_port(text: &str) -> Result<Place, DsnError> {
    place(text, |host| Ok(host.to_owned()))
}

/// `/path/.s.PGSQL.6543`, the socket itself, which asyncpg takes for its folder and port.
fn socket(host: &str) -> Option<(&str, u16)> {
    let (folder, port) = host.rsplit_once("/.s.PGSQL.")?;
    Some((if folder.is_empty() { "/" } else { folder }, self::port(port).ok()?))
}

fn place(text: &str, decoded: impl Fn(&str) -> Result<String, DsnError>) -> Result<Place, DsnError> {
    let (host, after) = if let Some(rest) = text.strip_prefix('[') {
        let (address, after) = rest.split_once(']').ok_or(DsnError::Host)?;
        if !is_ipv6(address) {
            return Err(DsnError::Host);
        }
        (address, after)
    } else if text.starts_with('/') || is_ipv6(text) {
        (text, "")
    } else {
        text.split_at(text.find(':').unwrap_or(text.len()))
    };
    let port = match after.strip_prefix(':') {
        Some(digits) => filled(digits).map(port).transpose()?,
        None if after.is_empty() => None,
        None => return Err(DsnError::Host),
    };
    let host = decoded(host)?;
    if host.contains(',') || after.contains(',') {
        return Err(DsnError::SeveralHosts);
    }
    let is_address = is_ipv6(&host);
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c) || is_address && ":%".contains(c);
    if !host.starts_with('/') && !host.chars().all(fits) {
        return Err(DsnError::Host);
    }
    if let Some((folder, port)) = socket(&host) {
        return Ok((Some(folder.to_owned()), Some(port)));
    }
    Ok((filled(&host).map(str::to_owned), port))
}

/// With or without a zone: `fe80::1%eth0`.
fn is_ipv6(text: &str) -> bool {
    let plain = text.split_once('%').map_or(text, |(plain, _zone)| plain);
    plain.parse::<std::net::Ipv6Addr>().is_ok()
}

pub(super) fn port(digits: &str) -> Result<u16, DsnError> {
    if digits.contains(',') {
        return Err(DsnError::SeveralHosts);
    }
    let digits_only = digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|&port| port != 0 && digits_only).ok_or(DsnError::Port)
}

/// Percent-decodes. A `+` stays one. NUL would end the string on its way to the server.
pub(super) fn decode(part: &'static str, text: &str) -> Result<String, DsnError> {
    let text = percent_decode_str(text).decode_utf8().map_err(|_| DsnError::Encoding { part })?;
    if text.contains('\0') {
        return Err(DsnError::Encoding { part });
    }
    Ok(text.into_owned())
}

fn filled(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}
