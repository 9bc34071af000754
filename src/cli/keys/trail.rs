//! The audit trail of commands that need no database: written where there is one, its absence said where not.

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::super::context::Context;
use crate::crypto::Fingerprint;
use crate::store::audit::{self, Actor};
use crate::store::ledger::rotation;
use crate::store::{Purpose, schema};

/// What is done: our word, and the application's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action(pub &'static str, pub &'static str);

impl Action {
    /// Keys were made.
    pub const GENERATE: Action = Action("generate", "KEY_GENERATED");
    /// A key was read.
    pub const ACCESS: Action = Action("access", "KEY_ACCESSED");
    /// Keys were written to an encrypted file.
    pub const BACKUP: Action = Action("backup", "KEY_BACKED_UP");
    /// A key was put back.
    pub const RESTORE: Action = Action("restore", "KEY_RESTORED");
    /// SECRET_KEY was replaced; the guide's own name for it.
    pub const ROTATE_SECRET_KEY: Action = Action("rotate_secret_key", "SECRET_KEY_ROTATED");
    /// The former SECRET_KEY is back.
    pub const ROLL_BACK_SECRET_KEY: Action = Action("rollback_secret_key", "SECRET_KEY_ROLLED_BACK");
    /// A retired key was let go of.
    pub const DESTROY: Action = Action("destroy", "KEY_DESTROYED");
    /// Stale cache entries were deleted.
    pub const PURGE: Action = Action("purge", "CACHE_PURGED");
}

/// The database, if there is one to write to.
pub struct Trail {
    conn: Result<PgConnection, String>,
    has_database: bool,
    actor: Actor,
    environment: String,
}

impl Trail {
    /// Connects once, without waiting for a database that is away: these commands must work without it.
    pub async fn open(context: &Context) -> Trail {
        let environment = context.environment.as_str().to_owned();
        let has_database = context.database_url.is_some();
        Trail { conn: connect(context).await, has_database, actor: context.actor.clone(), environment }
    }

    /// The unfinished rotation and the fingerprints of its two keys, as far as the database can be asked.
    pub async fn unfinished(&mut self) -> Option<(Uuid, [Fingerprint; 2])> {
        let conn = match &mut self.conn {
            Ok(conn) => conn,
            Err(why) => {
                if self.has_database {
                    tracing::warn!("not known whether an unfinished rotation needs a key: {why}");
                }
                return None;
            }
        };
        match rotation::latest(conn).await {
            Ok(found) => {
                let r = found.filter(|r| r.state.is_active())?;
                Some((r.id, [r.old_fingerprint, r.new_fingerprint]))
            }
            Err(e) => {
                tracing::warn!("not known whether an unfinished rotation needs a key: {e}");
                self.conn = Err(e.to_string());
                None
            }
        }
    }

    /// The chain's head as it is, for commands that had nothing to append.
    pub async fn head(&mut self) -> Option<String> {
        match &mut self.conn {
            Ok(conn) => audit::head_line(conn).await,
            Err(_) => None,
        }
    }

    /// Rotations that are over, as far as the database can be asked: their pins protect nothing any more.
    pub async fn over(&mut self) -> Vec<Uuid> {
        match &mut self.conn {
            Ok(conn) => rotation::over(conn).await.unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }

    /// Appends that these sources were read. Those that yielded nothing do not belong here: what was typed for one may be a key.
    pub async fn accessed(&mut self, sources: Vec<String>, mut detail: Value) -> Option<String> {
        if sources.is_empty() {
            return self.head().await;
        }
        detail["sources"] = json!(sources);
        self.record(Action::ACCESS, detail).await
    }

    /// Appends an event, and the application's entry where it keeps a trail; returns the chain's head.
    pub async fn record(&mut self, action: Action, mut detail: Value) -> Option<String> {
        if let Some(detail) = detail.as_object_mut() {
            detail.insert("environment".into(), json!(self.environment));
        }
        let written = match &mut self.conn {
            Ok(conn) => append(conn, &self.actor, action, detail).await.map_err(|e| e.to_string()),
            Err(why) => Err(why.clone()),
        };
        written.map_err(|why| tracing::warn!("no audit entry was made: {why}")).ok()
    }
}

async fn connect(context: &Context) -> Result<PgConnection, String> {
    if context.database_url.is_none() {
        return Err("DATABASE_URL is not set".into());
    }
    let connector = context.connector().map_err(|e| e.message)?;
    let mut conn = connector.try_connect(Purpose::Control).await.map_err(|e| e.to_string())?;
    match schema::exists(&mut conn).await {
        Ok(true) => Ok(conn),
        Ok(false) => Err("the database has no schema rekey (rekey init creates it)".into()),
        Err(e) => Err(e.to_string()),
    }
}

async fn append(
    conn: &mut PgConnection,
    actor: &Actor,
    action: Action,
    detail: Value,
) -> crate::error::Result<String> {
    use crate::store::Statement;
    let mut tx = conn.begin().during("begin").await?;
    audit::append_to_application(&mut tx, crate::entropy::id(), None, action.1, actor, &detail).await?;
    audit::append(&mut tx, None, action.0, actor, detail).await?;
    let (seq, hash) = audit::head(&mut tx).await?;
    tx.commit().during("append to the audit trail").await?;
    Ok(format!("{seq}:{hash}"))
}

/// The last line of a command's text output.
pub fn print_head(head: Option<&String>) {
    if let Some(head) = head {
        println!("audit chain head: {head}");
    }
}
