//! `verify`: opens every row with the key it should be on in this state, and compares bytes. `promote` and `finalize`
//! verify through it too. The reading itself is [`crate::engine::verify`].

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sqlx::PgConnection;

use super::interrupt::{stopped, unless_stopped};
use super::key_pair::{self, NamedKeys, Role};
use super::preflight::unless_changed;
use super::{Session, access, standing};
use crate::crypto::{Cipher, TagKey};
use crate::engine::{self, Stop, StopSource, VerifyKeys, VerifyReport};
use crate::error::{Error, Exit, Result};
use crate::rotation::{Command, Desired, Direction, State, Step, next};
use crate::store::ledger::{Rotation, rotation};
use crate::store::{Connector, Purpose, audit, connect};

/// What is asked for.
pub struct VerifyRequest {
    /// Connections that read at a time.
    pub workers: usize,
    /// Where the keys are.
    pub keys: NamedKeys,
}

/// What a verify reports.
pub struct Verified {
    /// The rotation that was verified.
    pub rotation: Rotation,
    /// What was found.
    pub report: VerifyReport,
    /// Whether the result is in the ledger; on a standby it cannot be.
    pub recorded: bool,
    /// What to do next.
    pub next: Vec<Step>,
    /// The head of the audit chain.
    pub event_head: Option<String>,
}

/// Verifies the latest rotation. It may be given up anywhere: it only reads, and records in one transaction.
pub async fn verify(session: &Session, request: &VerifyRequest, mut stop: Stop) -> Result<Verified> {
    let connector = session.connector()?;
    let begun = async {
        let mut conn = connector.connect(Purpose::Control).await?;
        let rotation = standing::permitted(session, &mut conn, Command::Verify).await?;
        let connector = connector.to_the_same(&mut conn).await?;
        Ok((conn, rotation, connector))
    };
    let (mut conn, rotation, connector) = unless_stopped(&mut stop, begun).await?;
    // Later changes of the rows do not matter then.
    let over = matches!(rotation.state, State::Finalized | State::RolledBack);
    let how = How { workers: request.workers, may_be_empty: over };
    let checked = check(session, &request.keys, &connector, &mut conn, &rotation, how, stop.clone()).await?;
    unless_stopped(&mut stop, concluded(session, &connector, rotation, checked)).await
}

/// Records what was found, and says what it means.
async fn concluded(
    session: &Session,
    connector: &Connector,
    rotation: Rotation,
    mut checked: Checked,
) -> Result<Verified> {
    // The one from before has been idle for as long as the table took, which not every network lets live.
    let mut conn = connector.connect(Purpose::Control).await?;
    let now = rotation::latest(&mut conn).await?;
    if now.is_none_or(|now| !is_the_same(&now, &rotation)) {
        return Err(turned_meanwhile(&rotation));
    }
    let recorded = record(session, connector, &mut conn, &rotation, "verify", &mut checked).await?;
    let report = checked.report;
    let mut standing = standing::of(session, &mut conn, Some(&rotation)).await?;
    if let Some(at) = &mut standing.rotation {
        // Where it could not be recorded, it is true all the same.
        at.verify = standing::verdict(&report);
    }
    Ok(Verified {
        next: next(&standing),
        event_head: audit::head_line(&mut conn).await,
        rotation,
        report,
        recorded,
    })
}

/// How a verify is to be made.
pub struct How {
    /// Connections that read at a time.
    pub workers: usize,
    /// No row is left of those that were moved, and that is no error.
    pub may_be_empty: bool,
}

/// A verify that was made, and the keys that were read for it.
pub struct Checked {
    /// What it found.
    pub report: VerifyReport,
    /// For the audit trail.
    accessed: Vec<Value>,
}

/// Verifies the table for a rotation in its present state; the caller records and prints.
pub async fn check(
    session: &Session,
    keys: &NamedKeys,
    connector: &Connector,
    conn: &mut PgConnection,
    rotation: &Rotation,
    how: How,
    stop: Stop,
) -> Result<Checked> {
    let (expected, other) = match rotation.direction() {
        Direction::Forward => (Role::New, Role::Old),
        Direction::Backward => (Role::Old, Role::New),
    };
    let wanted = key_pair::one(session, keys, rotation, expected).await?;
    // The other key only tells what kind of trouble a row is in; verify works without it.
    let other_role = other;
    let other = key_pair::if_any(session, keys, rotation, other_role).await?;
    let mut accessed = vec![access::of(expected.as_str(), &wanted)];
    accessed.extend(other.as_ref().map(|held| access::of(other_role.as_str(), held)));
    let new = if expected == Role::New { Some(&wanted) } else { other.as_ref() };
    let keys = VerifyKeys {
        expected: Cipher::new(&wanted.key),
        other: other.as_ref().map(|held| Cipher::new(&held.key)),
        tags: new.map(|held| TagKey::derive(&held.key, rotation.id.as_bytes())),
    };
    drop((wanted, other));
    let keys = Arc::new(keys);
    loop {
        let reading = Connector::like(connector).to_the_same(conn).await?;
        let (give_up, given_up) = StopSource::new();
        let verifying =
            engine::verify(reading, keys.clone(), rotation.id, how.workers, how.may_be_empty, given_up);
        tokio::pin!(verifying);
        let mut signal = stop.clone();
        let order = tokio::select! {
            report = &mut verifying => {
                return Ok(Checked { report: unless_changed(connector, report).await?, accessed });
            }
            () = signal.wait() => None,
            order = ordered(connector, rotation) => Some(order),
        };
        // Whatever statement is under way is cancelled at the server, not left to run.
        give_up.stop();
        let done = verifying.await;
        match order {
            Some(Order::Turned) => return Err(turned_meanwhile(rotation)),
            Some(Order::Stop(why)) => {
                let message = format!("{why} before every row was verified");
                return Err(
                    Error::new(Exit::Stopped, message).hint("Run `rekey status` to see what is permitted")
                );
            }
            Some(Order::Pause) => {
                tracing::info!("Paused. Run `rekey resume` to verify the table again from the beginning");
                tokio::select! {
                    () = until_resumed(connector, rotation) => {}
                    () = signal.wait() => return Err(stopped()),
                }
            }
            None => return Ok(Checked { report: done?, accessed }),
        }
    }
}

/// How often the rotation is looked at while its rows are verified.
const EVERY: Duration = Duration::from_secs(2);

/// What is to be obeyed meanwhile.
enum Order {
    /// The rotation was rolled back, or another one began: no result would count.
    Turned,
    /// An abort, or the deadline.
    Stop(&'static str),
    Pause,
}

/// Returns once there is something to be obeyed that was not so when the verify began. A database that is away is waited
/// for by whoever reads rows.
async fn ordered(connector: &Connector, rotation: &Rotation) -> Order {
    watched(connector, |now| {
        let Some(now) = now.filter(|now| is_the_same(now, rotation)) else { return Some(Order::Turned) };
        match now.desired {
            _ if now.past_deadline && !rotation.past_deadline => Some(Order::Stop("the deadline passed")),
            Desired::Aborted if rotation.desired != Desired::Aborted => {
                Some(Order::Stop("the rotation was aborted"))
            }
            Desired::Paused if rotation.desired == Desired::Running => Some(Order::Pause),
            _ => None,
        }
    })
    .await
}

/// Returns once a pause is over, whatever ended it.
async fn until_resumed(connector: &Connector, rotation: &Rotation) {
    watched(connector, |now| {
        let paused = now.is_some_and(|now| {
            is_the_same(now, rotation)
                && now.desired == Desired::Paused
                && now.past_deadline == rotation.past_deadline
        });
        (!paused).then_some(())
    })
    .await;
}

/// Looks at the latest rotation until it tells something.
async fn watched<T>(connector: &Connector, tells: impl Fn(Option<&Rotation>) -> Option<T>) -> T {
    loop {
        if let Ok(mut conn) = connector.try_connect(Purpose::ReadOnly).await {
            while let Ok(now) = rotation::latest(&mut conn).await {
                if let Some(told) = tells(now.as_ref()) {
                    connect::close(conn).await;
                    return told;
                }
                tokio::time::sleep(EVERY).await;
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

fn is_the_same(now: &Rotation, before: &Rotation) -> bool {
    (now.id, now.direction()) == (before.id, before.direction())
}

/// Records the result where the server and our privileges allow it; on a standby it is only printed.
pub async fn record(
    session: &Session,
    connector: &Connector,
    conn: &mut PgConnection,
    rotation: &Rotation,
    by: &str,
    checked: &mut Checked,
) -> Result<bool> {
    if connector.server(conn).await?.in_recovery {
        return Ok(false);
    }
    let report = &checked.report;
    let result = serde_json::to_value(report).unwrap_or_default();
    match rotation::record_verify(conn, rotation, report.clean, result, &session.actor).await {
        Ok(false) => Err(turned_meanwhile(rotation)),
        Ok(true) => {
            let accessed = std::mem::take(&mut checked.accessed);
            access::record(session, conn, rotation.id, by, accessed).await.map(|()| true)
        }
        Err(e) if e.class() == crate::store::Class::Denied => {
            tracing::warn!(error = %e, "The result was printed but not recorded: this role can't write to \
                schema rekey");
            Ok(false)
        }
        Err(e) => Err(e.into()),
    }
}

/// Rows were judged by the key they were on their way to, and sent another way meanwhile: that says nothing.
fn turned_meanwhile(rotation: &Rotation) -> Error {
    let message =
        format!("during the verify, rotation {} was rolled back or another rotation began", rotation.id);
    Error::new(Exit::Busy, message).hint("Run `rekey verify` again")
}
