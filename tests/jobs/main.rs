//! Jobs called in this process: what they return, and what they leave behind, in seconds. What the commands print and ask
//! of them is the other binaries' business, and so is what the engine does under signals, crashes and other processes.

#[path = "../support/mod.rs"]
mod support;

mod scene; // a database, a session on it, and requests with small steps

mod dry_run; // every row tried, nothing written
mod ending; // promote, finalize, rows accepted on the way
mod envelope; // what every command prints as JSON, by its schema
mod fencing; // a lease that was taken over
mod keys; // the keys' life outside a rotation
mod moving; // run and rollback: to the end, resumed, refused
mod next_steps; // where everything stands, and that what comes next is permitted
mod steering; // init, plan, status, and a run told to pause, go on and end
mod verifying; // clean, and not

use std::time::Duration;

use rekey::engine::{Stop, StopSource};
use rekey::jobs::{Environment, Session};
use rekey::secrets::{AppSettings, Sources};
use rekey::store::audit::Actor;
use rekey::telemetry::metrics::Metrics;
use uuid::Uuid;

/// A session without a database, in production.
fn session() -> Session {
    Session {
        database_url: None,
        login: Default::default(),
        actor: Actor::new("tester".to_owned(), None),
        sources: Sources::with_patience(Duration::from_secs(1)),
        environment: Environment::Production,
        metrics: Metrics::default(),
        retry_for: Duration::from_secs(1),
        lease_ttl: Duration::from_secs(30),
        application: AppSettings::default(),
        cache: None,
        process: format!("tester-{}", Uuid::new_v4()),
        show_progress: Box::new(|_| None),
    }
}

/// What a job is stopped by, if the first of the two is kept.
fn never() -> (StopSource, Stop) {
    StopSource::new()
}
