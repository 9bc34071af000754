//! `rekey verify`: opens every row with the key it should be on in this state, and compares bytes.

use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;

use super::args::VerifyArgs;
use super::context::Context;
use crate::crypto::{Cipher, TagKey};
use crate::engine::{Stop, StopSource, VerifyKeys, VerifyReport, verify};
use crate::error::{Error, Exit, Result};
use crate::jobs::key_pair::{self, NamedKeys, Role};
use crate::jobs::{Session, access};
use crate::rotation::{Direction, State};
use crate::store::ledger::{Rotation, pass, rotation};
use crate::store::{Connector, Purpose, audit};
use crate::telemetry::progress::thousands;

#[derive(Serialize)]
struct Printed<'a> {
    rotation: &'a Rotation,
    key: &'static str,
    exit_code: u8,
    recorded: bool,
    #[serde(flatten)]
    report: &'a VerifyReport,
    event_head: Option<String>,
}

/// Runs the command.
pub async fn run(args: VerifyArgs, context: &Context) -> Result<Exit> {
    let connector = context.connector()?;
    // A signal drops all of this (`Command::may_be_given_up`).
    let (_never, stop) = StopSource::new();
    let mut conn = connector.connect(Purpose::Control).await?;
    let Some(rotation) = rotation::latest(&mut conn).await? else {
        return Err(Error::new(Exit::State, "there is no rotation to verify").hint("rekey run starts one"));
    };
    let connector = connector.to_the_same(&mut conn).await?;
    // What became of the rows since is nobody's trouble then.
    let over = matches!(rotation.state, State::Finalized | State::RolledBack);
    let how = How { workers: args.workers.into(), may_be_empty: over };
    let mut checked =
        check(context, &args.keys.named()?, &connector, &mut conn, &rotation, how, stop).await?;
    // The one from before has been idle for as long as the table took, which not every network lets live.
    let mut conn = connector.connect(Purpose::Control).await?;
    let now = rotation::latest(&mut conn).await?;
    if !now.is_some_and(|now| (now.id, now.direction()) == (rotation.id, rotation.direction())) {
        return Err(turned_meanwhile(&rotation));
    }
    let recorded = record(context, &connector, &mut conn, &rotation, "verify", &mut checked).await?;
    let report = checked.report;
    let exit = report.exit();
    let event_head = audit::head_line(&mut conn).await;
    let key = rotation.direction().target();
    let printed =
        Printed { rotation: &rotation, key, exit_code: exit.code(), recorded, report: &report, event_head };
    context.last_word.say(exit.meaning(), next(&rotation, exit));
    if context.json() {
        context.print_json(&printed)?;
    } else {
        text(&printed, exit);
    }
    Ok(exit)
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
    let first = pass::first_horizon(conn, rotation.id).await?;
    drop((wanted, other));
    let connector = Connector::like(connector).to_the_same(conn).await?;
    let report = verify(connector, keys, rotation.id, first, how.workers, how.may_be_empty, stop).await?;
    Ok(Checked { report, accessed })
}

/// Records the result where the server and our privileges allow it; on a standby it is only printed.
pub async fn record(
    context: &Context,
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
    match rotation::record_verify(conn, rotation, report.clean, result, &context.actor).await {
        Ok(false) => Err(turned_meanwhile(rotation)),
        Ok(true) => {
            let accessed = std::mem::take(&mut checked.accessed);
            access::record(context, conn, rotation.id, by, accessed).await.map(|()| true)
        }
        Err(e) if e.class() == crate::store::Class::Denied => {
            tracing::warn!(error = %e, "the result is printed, not recorded: this role may not write to schema rekey");
            Ok(false)
        }
        Err(e) => Err(e.into()),
    }
}

/// Rows were judged by the key they were on their way to, and sent another way meanwhile: that says nothing.
fn turned_meanwhile(rotation: &Rotation) -> Error {
    let message = format!(
        "rotation {} was turned round while its rows were verified, or another one began",
        rotation.id
    );
    Error::new(Exit::Busy, message).hint("rekey verify, once more")
}

fn text(p: &Printed<'_>, exit: Exit) {
    let r = p.report;
    match exit {
        Exit::Ok => println!("clean: every row is on the {} key", p.key),
        Exit::Quarantined => println!("not clean: rows that no key opens"),
        _ => println!("not clean: rows on the wrong key, or with other bytes"),
    }
    println!();
    let mut lines = vec![
        ("rows", r.rows),
        ("byte-identical", r.identical),
        ("changed since", r.changed_since),
        ("inserted since", r.inserted_since),
        ("deleted since", r.deleted_since),
        ("already on the key", r.already_on_key),
        ("without a credential", r.null),
        ("accepted", r.accepted),
    ];
    for trouble in [
        ("on the wrong key", r.wrong_key),
        ("no key opens", r.unreadable),
        ("other bytes", r.other_bytes),
        ("not seen", r.unseen),
    ] {
        if trouble.1 > 0 {
            lines.push(trouble);
        }
    }
    for (name, rows) in lines {
        println!("  {name:<22}{:>14}", thousands(rows));
    }
    println!("  {:<22}{:>14.1} s", "time", r.seconds);
    if !r.bytes_compared {
        println!("  bytes were not compared: that needs the new key");
    }
    for (kind, ids) in &r.examples {
        for id in ids {
            println!("  {kind}: {id}");
        }
    }
    println!();
    if let Some(next) = next(p.rotation, exit) {
        println!("next: {next}");
    }
    if !p.recorded {
        println!("printed only, not recorded");
    }
    if let Some(head) = &p.event_head {
        println!("audit chain head: {head}");
    }
}

/// The command to type after a verify with this result.
fn next(rotation: &Rotation, exit: Exit) -> Option<&'static str> {
    Some(match exit {
        Exit::Ok => match rotation.state {
            State::Migrating => "rekey run",
            State::Migrated | State::Promoting => "rekey promote",
            State::Promoted | State::Finalizing => "rekey finalize",
            State::RollingBack | State::Unpromoting => "rekey rollback --yes",
            State::Finalized | State::RolledBack => return None,
        },
        Exit::Quarantined => "rekey quarantine list",
        _ if rotation.direction() == Direction::Forward => "rekey run",
        _ => "rekey rollback --yes",
    })
}
