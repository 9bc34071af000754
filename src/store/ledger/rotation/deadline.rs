//! When the window of a rotation ends. Every change is an event with its author, so that each process can name them.

use std::time::Duration;

use serde_json::json;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::rotation::{Deadline, DeadlineAt};
use crate::store::audit::{self, Actor};
use crate::store::error::{Statement, StoreError};
use crate::store::statement::{row, statements};

const OP: &str = "store the deadline";

/// A deadline that was moved. Times are RFC 3339.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The one before it, where there was one.
    pub was: Option<String>,
    /// The one that holds now.
    pub now: String,
    /// It is earlier than the one before.
    pub earlier: bool,
}

row!(Moved { was, now, earlier });

macro_rules! moved_to {
    ($deadline:literal, $kept:literal) => {
        concat!(
            "WITH was AS (SELECT id, deadline FROM rekey.rotations WHERE id = $1 FOR NO KEY UPDATE), \
             now AS (UPDATE rekey.rotations r SET deadline = ",
            $deadline,
            " FROM was WHERE r.id = was.id AND NOT ($3 AND coalesce(was.deadline > ",
            $kept,
            ", false)) RETURNING r.deadline) \
             SELECT to_char(was.deadline AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS was, \
             to_char(now.deadline AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS now, \
             coalesce(now.deadline < was.deadline, false) AS earlier FROM was, now \
             WHERE now.deadline IS DISTINCT FROM was.deadline"
        )
    };
}

statements! {
    fn move_by(id: Uuid, seconds: f64, standing: bool) -> Optional<Moved> during OP:
        moved_to!("clock_timestamp() + make_interval(secs => $2)", "clock_timestamp() - make_interval(secs => $2)");

    fn move_to(id: Uuid, time: &str, standing: bool) -> Optional<Moved> during OP:
        moved_to!("$2::text::timestamptz", "clock_timestamp()");

    fn seconds_until(time: &str) -> One<f64> during "look how long it is until the deadline":
        "SELECT greatest(0, extract(epoch FROM $1::text::timestamptz - clock_timestamp()))::float8";

    /// The database's clock, in seconds since 1970.
    pub fn clock() -> One<f64> during "read the clock": "SELECT extract(epoch FROM clock_timestamp())::float8";

    /// The operator who last moved or lifted a rotation's deadline.
    pub fn deadline_by(rotation: Uuid) -> Optional<String> during "read who changed the deadline":
        "SELECT operator FROM rekey.events WHERE rotation = $1 AND action IN ('deadline', 'resume', 'rolling_back') \
         ORDER BY seq DESC LIMIT 1";
}

/// Stores when the window ends, with its event; what a standing one may not do is in [`Deadline::standing`]. `None` where
/// the one that holds stays as it is.
pub async fn set_deadline(
    conn: &mut PgConnection,
    id: Uuid,
    deadline: Deadline,
    actor: &Actor,
) -> Result<Option<Moved>, StoreError> {
    let mut tx = conn.begin().during(OP).await?;
    let moved = match deadline.at {
        DeadlineAt::In(duration) => move_by(&mut tx, id, duration.as_secs_f64(), deadline.standing).await?,
        DeadlineAt::At(time) => move_to(&mut tx, id, &time.to_string(), deadline.standing).await?,
    };
    if let Some(moved) = &moved {
        let detail = json!({ "was": moved.was, "now": moved.now });
        audit::append(&mut tx, Some(id), "deadline", actor, detail).await?;
    }
    tx.commit().during(OP).await?;
    Ok(moved)
}

/// How long it is until then, by the database's clock.
pub async fn left_until(conn: &mut PgConnection, deadline: DeadlineAt) -> Result<Duration, StoreError> {
    match deadline {
        DeadlineAt::In(duration) => Ok(duration),
        DeadlineAt::At(time) => seconds_until(conn, &time.to_string()).await.map(Duration::from_secs_f64),
    }
}
