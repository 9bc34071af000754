//! What can go wrong with the cache, and the exit code of each. Messages name the server, never its password.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::error::{Error, Exit};

/// The cache cannot be purged.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Neither the flag nor REDIS_URL.
    #[error("REDIS_URL is not set")]
    NoUrl,
    /// Not a Redis URL. It is not kept: it may hold a password.
    #[error("this is no URL of a Redis server (it is not shown: it may hold a password)")]
    BadUrl,
    /// An empty prefix, or one with control characters.
    #[error("the prefix cannot be empty")]
    BadPrefix,
    /// A CA file that cannot be read.
    #[error("cannot read the CA certificates in {path}: {cause}")]
    CaFile { path: String, cause: std::io::Error },
    /// One node of many.
    #[error("{server} is a node of a Redis cluster, and knows only its own keys")]
    Cluster { server: String },
    /// No connection within the limit.
    #[error("{server}: no answer")]
    Silent { server: String },
    /// The server, or the way to it.
    #[error("{server}: {}", describe(.source))]
    Redis { server: String, source: RedisError },
}

/// The kind and the server's words: no arguments are in them.
fn describe(e: &RedisError) -> String {
    match e.kind() {
        ErrorKind::AuthenticationFailed => "the user or the password is not accepted".into(),
        _ => e.to_string().chars().filter(|c| !c.is_control()).take(300).collect(),
    }
}

impl CacheError {
    /// Whether waiting may mend it.
    pub fn is_transient(&self) -> bool {
        match self {
            CacheError::Silent { .. } => true,
            CacheError::Redis { source, .. } => match source.kind() {
                // A certificate that is not trusted is an I/O error, too.
                ErrorKind::Io => !is_certificate(source),
                ErrorKind::Server(kind) => {
                    matches!(
                        kind,
                        ServerErrorKind::BusyLoading
                            | ServerErrorKind::TryAgain
                            | ServerErrorKind::MasterDown
                    )
                }
                _ => false,
            },
            _ => false,
        }
    }
}

fn is_certificate(e: &RedisError) -> bool {
    let text = e.to_string();
    ["certificate", "CertificateRequired", "UnknownIssuer", "HandshakeFailure", "InvalidContentType"]
        .iter()
        .any(|t| text.contains(t))
}

impl From<CacheError> for Error {
    fn from(e: CacheError) -> Error {
        let message = e.to_string();
        let transient = e.is_transient();
        let (exit, hint) = match &e {
            CacheError::NoUrl | CacheError::BadUrl => {
                (Exit::Usage, "REDIS_URL=rediss://user:password@host:6379/0 rekey cache purge")
            }
            CacheError::BadPrefix => (Exit::Usage, "--prefix dashtam, as the application's settings say"),
            CacheError::CaFile { .. } => (Exit::Usage, "put ssl_ca_certs in REDIS_URL right"),
            CacheError::Cluster { .. } => (
                Exit::Usage,
                "delete on every primary: redis-cli --cluster call HOST:PORT --cluster-only-masters …; entries expire by themselves after 300 s",
            ),
            CacheError::Silent { .. } => (Exit::Unavailable, RETRY),
            CacheError::Redis { .. } if transient => (Exit::Unavailable, RETRY),
            CacheError::Redis { source, .. } if is_certificate(source) => (
                Exit::Usage,
                "let SSL_CERT_FILE, or ssl_ca_certs in REDIS_URL, name the CA that signed the server's certificate",
            ),
            CacheError::Redis { source, .. } => match source.kind() {
                ErrorKind::AuthenticationFailed => {
                    (Exit::Usage, "put the password into REDIS_URL: redis://user:password@host:6379/0")
                }
                ErrorKind::Server(ServerErrorKind::ReadOnly) => {
                    (Exit::Usage, "name the primary: this server is a replica")
                }
                _ => (Exit::Usage, "check REDIS_URL, and that its user may SCAN and UNLINK"),
            },
        };
        Error::new(exit, message).hint(hint)
    }
}

const RETRY: &str = "check that Redis is up and reachable, then run the same command again; entries expire by themselves after 300 s";
