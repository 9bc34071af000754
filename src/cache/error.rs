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
    #[error("REDIS_URL is not the URL of a Redis server (not shown, because it may contain a password)")]
    BadUrl,
    /// An empty prefix, or one with control characters.
    #[error("the prefix can't be empty")]
    BadPrefix,
    /// A CA file that cannot be read.
    #[error("can't read the CA certificates in {path}: {cause}")]
    CaFile { path: String, cause: std::io::Error },
    /// One node of many.
    #[error("{server} is a node of a Redis cluster and knows only its own keys")]
    Cluster { server: String },
    /// Perhaps one node of many.
    #[error("{server} does not say whether it is a node of a Redis cluster, which knows only its own keys")]
    Unknown { server: String },
    /// `db` in the URL is no number of a database.
    #[error("`db` in REDIS_URL isn't a database number")]
    BadDatabase,
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
        ErrorKind::AuthenticationFailed => "the server rejects the user or the password".into(),
        _ => e.to_string().chars().filter(|c| !c.is_control()).take(300).collect(),
    }
}

impl CacheError {
    /// Whether waiting may help.
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
                (Exit::Usage, "Set it: `REDIS_URL=rediss://user:password@host:6379/0 rekey cache purge`")
            }
            CacheError::BadPrefix => (
                Exit::Usage,
                "Pass the prefix from the application's settings, such as \
                `--prefix dashtam`",
            ),
            CacheError::CaFile { .. } => (Exit::Usage, "Correct ssl_ca_certs in REDIS_URL"),
            CacheError::Cluster { .. } => (
                Exit::Usage,
                "On each primary (`redis-cli -h HOST CLUSTER NODES` lists them), run `redis-cli -h HOST --scan --pattern \
                 'dashtam:provider:conn:*' | xargs -r -n 1 redis-cli -h HOST UNLINK`, and the same for 'provider:conn:*' and \
                 'secrets:*'; entries expire by themselves after 300 s",
            ),
            CacheError::Unknown { .. } => (
                Exit::Usage,
                "Let its user ask INFO: `ACL SETUSER NAME +info`; entries expire by themselves after 300 s",
            ),
            CacheError::BadDatabase => {
                (Exit::Usage, "REDIS_URL=redis://host:6379/0 or redis://host:6379?db=0")
            }
            CacheError::Silent { .. } => (Exit::Unavailable, RETRY),
            CacheError::Redis { .. } if transient => (Exit::Unavailable, RETRY),
            CacheError::Redis { source, .. } if is_certificate(source) => (
                Exit::Usage,
                "Name the CA that signed the server's certificate, in SSL_CERT_FILE or in ssl_ca_certs of \
                 REDIS_URL",
            ),
            CacheError::Redis { source, .. } => match source.kind() {
                ErrorKind::AuthenticationFailed => {
                    (Exit::Usage, "Add the password to REDIS_URL: redis://user:password@host:6379/0")
                }
                ErrorKind::Server(ServerErrorKind::ReadOnly) => {
                    (Exit::Usage, "Name the primary in REDIS_URL: this server is a replica")
                }
                _ => (Exit::Usage, "Check REDIS_URL, and that its user may run SCAN and UNLINK"),
            },
        };
        Error::new(exit, message).hint(hint)
    }
}

const RETRY: &str = "Check that Redis is up and reachable, then run the same command again, or wait 300 s \
    until the entries expire";
