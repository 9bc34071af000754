//! What every command starts from: the database, the key sources, who acts, and how results are printed.

use serde::Serialize;

use super::args::{Environment, Global, Output};
use crate::error::{Error, Exit, Result};
use crate::secrets::Sources;
use crate::store::audit::Actor;
use crate::store::{Connector, Dsn};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::termination::LastWord;

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
        let operator = global.operator.clone().unwrap_or_else(operator);
        Context {
            actor: Actor { operator, reason: global.reason.clone() },
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

/// The OS user, or pod and service account.
fn operator() -> String {
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        let pod = std::env::var("HOSTNAME").unwrap_or_else(|_| "pod".into());
        return match std::env::var("SERVICE_ACCOUNT") {
            Ok(account) => format!("{pod} ({account})"),
            Err(_) => pod,
        };
    }
    std::env::var("USER")
        .or_else(|_| std::env::var("LOGNAME"))
        .unwrap_or_else(|_| format!("uid {}", rustix::process::getuid().as_raw()))
}

/// This process's name in the ledger: host, pid, and something no other process has.
pub fn process_name() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    // The end of it: the beginning is the time, which processes may share.
    let unique = crate::entropy::id().simple().to_string();
    format!("{host}-{}-{}", std::process::id(), &unique[24..])
}
