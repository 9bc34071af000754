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
    #[error("the database URL's host cannot be one")]
    Host,
    #[error("the database URL names several hosts")]
    SeveralHosts,
    #[error("the database URL's port is not a number from 1 to 65535")]
    Port,
    #[error("the database URL's {part} contains bytes that are no text")]
    Encoding { part: &'static str },
    #[error("the database URL has an unknown parameter{}", named(.name.as_deref()))]
    Unknown { name: Option<String> },
    #[error("the database URL gives {name} more than once")]
    Repeated { name: &'static str },
    #[error("the database URL gives {name} in two places, differently")]
    Conflict { name: &'static str },
    #[error("the database URL's {name} must be {expected}")]
    Value { name: &'static str, expected: &'static str },
    #[error("the database URL asks for {name} in a way that this client cannot keep")]
    Unsupported { name: &'static str },
    #[error("the environment variable PGOPTIONS is set")]
    PgOptions,
}

fn named(name: Option<&str>) -> String {
    name.map(|name| format!(": {name}")).unwrap_or_default()
}

impl From<DsnError> for Error {
    fn from(error: DsnError) -> Self {
        const FORM: &str = "Write postgresql://USER:PASSWORD@HOST:PORT/DATABASE; in the password, write \
                            @ as %40, : as %3A, / as %2F, ? as %3F, # as %23 and % as %25.";
        let hint = match error {
            DsnError::NoScheme | DsnError::Host | DsnError::Port | DsnError::Encoding { .. } => FORM,
            DsnError::Scheme { .. } => {
                "Known are postgresql, postgres, and postgresql+ with asyncpg, pg8000, psycopg, psycopg_async, psycopg2 or psycopg2cffi."
            }
            DsnError::KeyValue => {
                "Write host=HOST user=USER password='PASSWORD' dbname=DATABASE; in the password, write ' as \\' and \\ as \\\\."
            }
            DsnError::NoHost => {
                "Name it: postgresql://USER@HOST/DATABASE, or ?host=/run/postgresql for a socket."
            }
            DsnError::NoDatabase => "Name it: postgresql://USER@HOST/DATABASE.",
            DsnError::SeveralHosts => "Name the primary only: a rotation belongs to one server.",
            DsnError::Unknown { .. } => {
                "Take it out; rekey ignores no parameter it does not know. Settings such as options=-c… cannot \
                 be passed. If this was part of the password: write ? as %3F and & as %26 in it."
            }
            DsnError::Repeated { .. } | DsnError::Conflict { .. } => "Say it once.",
            DsnError::Value { .. } => "Correct it, or take it out for the default.",
            DsnError::Unsupported { .. } => {
                "Take it out; sslmode=verify-full with sslrootcert protects the connection."
            }
            DsnError::PgOptions => "Unset it: it would change settings that the migration relies on.",
        };
        Error::new(Exit::Usage, error.to_string()).hint(hint)
    }
}
