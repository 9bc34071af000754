//! What every command starts from: the database, the key sources, who acts, and how results are printed.

use std::time::Duration;

use serde::Serialize;

use super::args::{Environment, Global, Output};
use crate::error::{Error, Exit, Result};
use crate::secrets::Sources;
use crate::store::audit::{self, Actor};
use crate::store::{Connector, Dsn, Purpose};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::termination::LastWord;

/// A refusal does not wait longer than this for the head of the audit chain.
const HEAD_LIMIT: Duration = Duration::from_secs(3);

/// Global flags, made usable.
pub struct Context {
    /// As parsed.
    pub global: Global,
    /// Who acts, and why.
    pub actor: Actor,
    /// Where keys are fetched from.
    pub sources: Sources,
    /// What Prometheus is told.
    pub metrics: Metrics,
    /// What Kubernetes is told at the end.
    pub last_word: LastWord,
}

impl Context {
    /// Nothing is contacted yet.
    pub fn new(global: Global) -> Context {
        let operator = filled(global.operator.clone()).unwrap_or_else(operator);
        Context {
            actor: Actor::new(operator, global.reason.clone()),
            sources: Sources::with_patience(global.retry_for),
            global,
            metrics: Metrics::default(),
            last_word: LastWord::default(),
        }
    }

    /// A connector for DATABASE_URL.
    pub fn connector(&self) -> Result<Connector> {
        let url = std::env::var("DATABASE_URL").map_err(|_| {
            Error::new(Exit::Usage, "DATABASE_URL is not set")
                .hint("DATABASE_URL=postgresql://user:password@host:5432/dashtam rekey …")
        })?;
        let dsn = Dsn::parse(&url)?;
        Ok(Connector::new(&dsn, self.global.retry_for, self.global.lease_ttl))
    }

    /// The head of the audit chain, where this command has appended to it; for one that ends in an error.
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

    /// True for `--output json`.
    pub fn json(&self) -> bool {
        self.global.output == Output::Json
    }

    /// Where this runs.
    pub fn environment(&self) -> Environment {
        self.global.environment
    }

    /// Prints a result as JSON.
    pub fn print_json(&self, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|e| Error::new(Exit::Internal, format!("cannot print the result: {e}")))?;
        println!("{text}");
        Ok(())
    }
}

/// Blanks name nobody.
fn filled(name: Option<String>) -> Option<String> {
    name.filter(|name| !name.trim().is_empty())
}

/// The OS user, or pod and service account.
fn operator() -> String {
    let named = |variable| filled(std::env::var(variable).ok());
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        let pod = named("HOSTNAME").unwrap_or_else(|| "pod".into());
        return match named("SERVICE_ACCOUNT") {
            Some(account) => format!("{pod} ({account})"),
            None => pod,
        };
    }
    named("USER")
        .or_else(|| named("LOGNAME"))
        .unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()))
}

/// This process's name in the ledger: host, pid, and something no other process has.
pub fn process_name() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    // The end of it: the beginning is the time, which processes may share.
    let unique = crate::entropy::id().simple().to_string();
    format!("{host}-{}-{}", std::process::id(), &unique[24..])
}
