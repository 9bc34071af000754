//! What can be wrong with a database URL. No variant holds anything that may have been part of a password.

use crate::error::{Error, Exit};

/// Why a database URL is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DsnError {
    #[error("the database URL has no scheme")]
    NoScheme,
    #[error("the database URL has an unknown scheme{}", named(.scheme.as_deref()))]
    Scheme { scheme: Option<String> },
    #[error("DATABASE_URL is neither a URL nor a string of key=value pairs")]
    KeyValue,
    #[error("the database URL names no host")]
    NoHost,
    #[error("the database URL names no database")]
    NoDatabase,
    #[error("the database URL's host is not a host name")]
    Host,
    #[error("the database URL names several hosts")]
    SeveralHosts,
    #[error("the database URL's port is not a number from 1 to 65535")]
    Port,
    #[error("the database URL's {part} contains bytes that are not text")]
    Encoding { part: &'static str },
    #[error("the database URL has an unknown parameter{}", named(.name.as_deref()))]
    Unknown { name: Option<String> },
    #[error("the database URL gives {name} more than once")]
    Repeated { name: &'static str },
    #[error("the database URL gives {name} two different values")]
    Conflict { name: &'static str },
    #[error("the database URL's {name} must be {expected}")]
    Value { name: &'static str, expected: &'static str },
    #[error("the database URL sets {name} in a way that rekey doesn't support")]
    Unsupported { name: &'static str },
    #[error("the connection service file {path}: {cause}")]
    Service { path: String, cause: String },
    #[error("the environment variable PGOPTIONS is set")]
    PgOptions,
}

fn named(name: Option<&str>) -> String {
    name.map(|name| format!(": {name}")).unwrap_or_default()
}

impl From<DsnError> for Error {
    fn from(error: DsnError) -> Self {
        const FORM: &str = "Write postgresql://USER:PASSWORD@HOST:PORT/DATABASE. In the password, write @ as \
            %40, : as %3A, / as %2F, ? as %3F, # as %23 and % as %25";
        let hint = match error {
            DsnError::NoScheme | DsnError::Host | DsnError::Port | DsnError::Encoding { .. } => FORM,
            DsnError::Scheme { .. } => {
                "Use postgresql, postgres, or postgresql+ with asyncpg, pg8000, psycopg, psycopg_async, \
                 psycopg2 or psycopg2cffi"
            }
            DsnError::KeyValue => {
                "Write host=HOST user=USER password='PASSWORD' dbname=DATABASE. In the password, write ' as \
                 \\' and \\ as \\\\"
            }
            DsnError::NoHost => {
                "Name it: postgresql://USER@HOST/DATABASE, or ?host=/run/postgresql for a socket"
            }
            DsnError::NoDatabase => "Name it: postgresql://USER@HOST/DATABASE",
            DsnError::SeveralHosts => "Name only the primary: a rotation belongs to one server",
            DsnError::Unknown { .. } => {
                "Remove it: rekey refuses unknown parameters and settings such as options=-c…. If it is part \
                 of the password, write ? as %3F and & as %26"
            }
            DsnError::Repeated { .. } | DsnError::Conflict { .. } => "Give it once",
            DsnError::Value { .. } => "Correct it, or remove it to use the default",
            DsnError::Unsupported { .. } => {
                "Remove it. sslmode=verify-full with sslrootcert protects the connection"
            }
            DsnError::Service { .. } => {
                "Name the file in PGSERVICEFILE, and one of its services in DATABASE_URL (service=NAME) or PGSERVICE"
            }
            DsnError::PgOptions => "Unset it: it would change settings that rekey relies on",
        };
        Error::new(Exit::Usage, error.to_string()).hint(hint)
    }
}
