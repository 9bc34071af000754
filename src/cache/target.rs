//! Which server, and which keys on it.

use std::fmt;

use redis::{Client, IntoConnectionInfo, TlsCertificates};
use url::Url;
use zeroize::Zeroizing;

use super::CacheError;

/// A Redis server and the application's prefix. The URL with its password is wiped when dropped.
pub struct Target {
    url: Zeroizing<String>,
    ca_file: Option<String>,
    server: String,
    scopes: [Scope; 3],
}

/// Keys that begin in one way.
pub struct Scope {
    /// What the keys begin with.
    pub prefix: String,
    /// The same as a pattern: what patterns treat specially is escaped.
    pub pattern: String,
}

impl Scope {
    fn new(prefix: String) -> Scope {
        let mut pattern = String::new();
        for c in prefix.chars() {
            if matches!(c, '*' | '?' | '[' | ']' | '^' | '\\') {
                pattern.push('\\');
            }
            pattern.push(c);
        }
        pattern.push('*');
        Scope { prefix, pattern }
    }
}

impl Target {
    /// Parses `redis://`, `rediss://` (TLS), `unix://`, with the application's own `ssl_ca_certs=PATH`.
    pub fn parse(text: &str, prefix: &str) -> Result<Target, CacheError> {
        if prefix.is_empty() || prefix.chars().any(char::is_control) {
            return Err(CacheError::BadPrefix);
        }
        let mut url = Url::parse(text.trim()).map_err(|_| CacheError::BadUrl)?;
        let is_socket = matches!(url.scheme(), "unix" | "redis+unix");
        let (mut ca_file, mut kept, mut db) = (None, Vec::new(), None);
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        for (name, value) in pairs {
            match name.as_str() {
                "ssl_ca_certs" => ca_file = Some(value),
                // The first one counts, and goes before the path, as for the application's client.
                "db" if db.is_some() => {}
                "db" => db = Some(value.trim().parse::<u32>().map_err(|_| CacheError::BadDatabase)?),
                "username" if is_socket => kept.push(("user".to_owned(), value)),
                "password" if is_socket => kept.push(("pass".to_owned(), value)),
                "username" if url.username().is_empty() => {
                    url.set_username(&value).map_err(|()| CacheError::BadUrl)?
                }
                "password" if url.password().is_none() => {
                    url.set_password(Some(&value)).map_err(|()| CacheError::BadUrl)?;
                }
                // The application's client understands many more, about pools and time-outs of its own.
                "protocol" | "user" | "pass" => kept.push((name, value)),
                _ => {}
            }
        }
        if !is_socket {
            // A path that is no number is none to the application's client.
            let path = url.path().replace('/', "").parse::<u32>().ok();
            let place = db.or(path).map_or_else(String::new, |db| format!("/{db}"));
            url.set_path(&place);
        } else if let Some(db) = db {
            kept.push(("db".to_owned(), db.to_string()));
        }
        // `#insecure` would turn the check of certificates off.
        url.set_fragment(None);
        url.set_query(None);
        if !kept.is_empty() {
            url.query_pairs_mut().extend_pairs(kept);
        }
        let server = match url.scheme() {
            "redis" | "rediss" => {
                let host = url.host_str().filter(|h| !h.is_empty()).ok_or(CacheError::BadUrl)?;
                format!("{}://{host}:{}{}", url.scheme(), url.port().unwrap_or(6379), url.path())
            }
            "unix" | "redis+unix" => format!("unix://{}", url.path()),
            _ => return Err(CacheError::BadUrl),
        };
        let target = Target {
            url: Zeroizing::new(url.to_string()),
            ca_file,
            server,
            scopes: [format!("{prefix}:provider:conn:"), "provider:conn:".to_owned(), "secrets:".to_owned()]
                .map(Scope::new),
        };
        target.url.as_str().into_connection_info().map_err(|_| CacheError::BadUrl)?;
        Ok(target)
    }

    /// The patterns, as people write them.
    pub fn patterns(&self) -> [String; 3] {
        [0, 1, 2].map(|i| format!("{}*", self.scopes[i].prefix))
    }

    pub(super) fn scopes(&self) -> &[Scope; 3] {
        &self.scopes
    }

    pub(super) fn client(&self) -> Result<Client, CacheError> {
        let failed = |source| CacheError::Redis { server: self.server.clone(), source };
        match &self.ca_file {
            None => Client::open(self.url.as_str()).map_err(failed),
            Some(path) => {
                let root_cert =
                    std::fs::read(path).map_err(|cause| CacheError::CaFile { path: path.clone(), cause })?;
                let certificates = TlsCertificates { client_tls: None, root_cert: Some(root_cert) };
                Client::build_with_tls(self.url.as_str(), certificates).map_err(failed)
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_without_its_password() {
        for (text, server) in [
            ("redis://:canary@cache:6380/2", "redis://cache:6380/2"),
            ("rediss://app:can%40ary@cache?ssl_cert_reqs=required", "rediss://cache:6379"),
            ("unix:///run/redis.sock", "unix:///run/redis.sock"),
            ("unix:///run/redis.sock?db=3", "unix:///run/redis.sock"),
            ("redis://cache?db=3", "redis://cache:6379/3"),
            ("redis://cache:6380/2?db=3&db=4", "redis://cache:6380/3"),
            ("redis://cache/1/", "redis://cache:6379/1"),
            ("redis://cache/name", "redis://cache:6379"),
            ("redis://cache?password=canary", "redis://cache:6379"),
        ] {
            let target = Target::parse(text, "dashtam").unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(target.to_string(), server);
        }
        for text in ["redis://cache?db=x", "redis://cache?db=-1"] {
            assert!(matches!(Target::parse(text, "dashtam"), Err(CacheError::BadDatabase)), "{text}");
        }
        for text in ["", "canary", "http://canary@host", "redis://", "redis://:canary@:x"] {
            let error = Target::parse(text, "dashtam").err().unwrap_or_else(|| panic!("{text}"));
            assert!(!format!("{error:?}").contains("canary"), "{text}");
        }
    }

    #[test]
    fn three_prefixes_and_no_pattern_of_anybodys() {
        let target = Target::parse("redis://cache", "a*[b]?").unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(target.patterns(), ["a*[b]?:provider:conn:*", "provider:conn:*", "secrets:*"]);
        assert_eq!(target.scopes()[0].pattern, r"a\*\[b\]\?:provider:conn:*");
        assert!(Target::parse("redis://cache", "").is_err());
    }
}
