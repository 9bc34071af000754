//! Jobs called in this process: what they return, and what they leave behind. What the commands print and ask of them
//! is the other binaries' business.

mod keys;

use std::time::Duration;

use rekey::engine::{Stop, StopSource};
use rekey::jobs::{Environment, Session};
use rekey::secrets::{AppSettings, Sources};
use rekey::store::audit::Actor;
use rekey::telemetry::metrics::Metrics;

/// A session without a database, in production.
fn session() -> Session {
    Session {
        database_url: None,
        actor: Actor::new("tester".to_owned(), None),
        sources: Sources::with_patience(Duration::from_secs(1)),
        environment: Environment::Production,
        metrics: Metrics::default(),
        retry_for: Duration::from_secs(1),
        lease_ttl: Duration::from_secs(30),
        application: AppSettings::default(),
        cache: None,
        process: "tester-1".to_owned(),
        show_progress: Box::new(|_| None),
    }
}

/// What a job is stopped by, if the first of the two is kept.
fn never() -> (StopSource, Stop) {
    StopSource::new()
}
