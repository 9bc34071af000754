//! What every job starts from. `cli` fills it from arguments and the environment of the process; nothing is contacted
//! before a job asks for a connection or a key.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use zeroize::Zeroizing;

use super::Environment;
use crate::error::{Error, Exit, Result};
use crate::rotation::Progress;
use crate::secrets::{AppSettings, Sources};
use crate::store::audit::{self, Actor};
use crate::store::{Connector, Dsn, Login, Purpose};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::progress::Shown;

/// A refusal does not wait longer than this for the head of the audit chain.
const HEAD_LIMIT: Duration = Duration::from_secs(3);

/// Shows progress until the returned value is dropped; `None` if there is no display.
pub type ShowProgress = Box<dyn Fn(watch::Receiver<Progress>) -> Option<Shown> + Send + Sync>;

/// The database, the key sources, the operator, and how progress is shown.
pub struct Session {
    /// The database's URL, as DATABASE_URL has it; `None` where it is not set.
    pub database_url: Option<Zeroizing<String>>,
    /// How this process gets in, and whether it ever did.
    pub login: Arc<Login>,
    /// Who acts, and why.
    pub actor: Actor,
    /// Where keys are fetched from.
    pub sources: Sources,
    /// Where this runs.
    pub environment: Environment,
    /// Metrics of this process.
    pub metrics: Metrics,
    /// Maximum time to retry an unreachable database, Redis or Secrets Manager.
    pub retry_for: Duration,
    /// How long a silent worker keeps its rows.
    pub lease_ttl: Duration,
    /// Where the application's own settings say its keys are.
    pub application: AppSettings,
    /// The application's cache, where REDIS_URL names one.
    pub cache: Option<AppCache>,
    /// This process's name in the ledger, which no other process has.
    pub process: String,
    /// Shows progress to whoever started the job.
    pub show_progress: ShowProgress,
}

/// The application's cache in Redis.
pub struct AppCache {
    /// As REDIS_URL has it; it may hold a password.
    pub url: Zeroizing<String>,
    /// What the application's entries begin with.
    pub prefix: String,
}

impl Session {
    /// A connector to the database. Nothing is contacted yet.
    pub fn connector(&self) -> Result<Connector> {
        let missing = |what: &str| {
            Error::new(Exit::Usage, format!("DATABASE_URL is {what}"))
                .hint("Set it: `DATABASE_URL=postgresql://user:password@host:5432/dashtam rekey …`")
        };
        let url = self.database_url.as_ref().ok_or_else(|| missing("not set"))?;
        if url.trim().is_empty() {
            return Err(missing("empty"));
        }
        let dsn = Dsn::parse(url)?;
        Ok(Connector::new(&dsn, self.retry_for, self.lease_ttl).with_login(&self.login))
    }

    /// This process and its operator, for whoever waits for a lock that it holds.
    pub fn signed(&self) -> (&str, &str) {
        (&self.process, &self.actor.operator)
    }

    /// The head of the audit chain, where this session has appended to it; for a command that ends in an error.
    pub async fn head_if_appended(&self) -> Option<String> {
        if !self.actor.has_appended() {
            return None;
        }
        let look = async {
            let mut conn = self.connector().ok()?.try_connect(Purpose::Control).await.ok()?;
            audit::head_line(&mut conn).await
        };
        tokio::time::timeout(HEAD_LIMIT, look).await.ok().flatten()
    }

    /// Tells metrics and whoever watches what `progress` is fed with, until what is returned is dropped.
    pub fn follow(&self, progress: watch::Receiver<Progress>) -> Option<Shown> {
        self.metrics.follow(progress.clone());
        (self.show_progress)(progress)
    }
}
