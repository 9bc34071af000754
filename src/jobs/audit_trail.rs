//! The audit trail of jobs that need no database: written where there is one, its absence logged where not.

use std::fmt;

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::Session;
use crate::crypto::Fingerprint;
use crate::error::{Error, Result};
use crate::secrets::KeySource;
use crate::store::audit::{self, Actor};
use crate::store::ledger::rotation;
use crate::store::{Purpose, Statement, StoreError, report, schema};

/// What a job outside any rotation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyEvent {
    /// Keys were made.
    Generate,
    /// A key was read.
    Access,
    /// Keys were written to an encrypted file.
    Backup,
    /// A key was put back.
    Restore,
    /// SECRET_KEY was replaced.
    RotateSecretKey,
    /// The former SECRET_KEY is back.
    RollBackSecretKey,
    /// A retired key was let go of.
    Destroy,
    /// Stale cache entries were deleted.
    PurgeCache,
}

impl KeyEvent {
    /// Its word in rekey's own trail, and in the application's.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            KeyEvent::Generate => ("generate", "KEY_GENERATED"),
            KeyEvent::Access => ("access", "KEY_ACCESSED"),
            KeyEvent::Backup => ("backup", "KEY_BACKED_UP"),
            KeyEvent::Restore => ("restore", "KEY_RESTORED"),
            // The guide's own name for it.
            KeyEvent::RotateSecretKey => ("rotate_secret_key", "SECRET_KEY_ROTATED"),
            KeyEvent::RollBackSecretKey => ("rollback_secret_key", "SECRET_KEY_ROLLED_BACK"),
            KeyEvent::Destroy => ("destroy", "KEY_DESTROYED"),
            KeyEvent::PurgeCache => ("purge", "CACHE_PURGED"),
        }
    }
}

/// Why there is nothing to write to, or to ask.
enum NoTrail {
    /// DATABASE_URL is not set.
    NotNamed,
    /// rekey never ran there.
    NoSchema,
    /// It does not answer, or does not let this role in.
    Silent(Error),
}

impl fmt::Display for NoTrail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoTrail::NotNamed => f.write_str("DATABASE_URL is not set"),
            NoTrail::NoSchema => f.write_str("the database has no schema rekey (`rekey init` creates it)"),
            NoTrail::Silent(error) => error.fmt(f),
        }
    }
}

/// The database, if there is one to write to.
pub struct AuditTrail {
    conn: Result<PgConnection, NoTrail>,
    actor: Actor,
    environment: &'static str,
}

impl AuditTrail {
    /// Connects once, without waiting for a database that is away: these jobs must work without it.
    pub async fn open(session: &Session) -> AuditTrail {
        AuditTrail {
            conn: connect(session).await,
            actor: session.actor.clone(),
            environment: session.environment.as_str(),
        }
    }

    /// The unfinished rotation and the fingerprints of its two keys. An error where a database is named and cannot be
    /// asked: whoever overwrites a key must not take that for a no.
    pub async fn unfinished(&mut self) -> Result<Option<(Uuid, [Fingerprint; 2])>> {
        let conn = match &mut self.conn {
            Ok(conn) => conn,
            Err(NoTrail::Silent(error)) => return Err(error.clone()),
            Err(NoTrail::NotNamed) => return Ok(None),
            Err(why @ NoTrail::NoSchema) => {
                tracing::warn!("Couldn't check whether an unfinished rotation needs this key: {why}");
                return Ok(None);
            }
        };
        match rotation::latest(conn).await {
            Ok(found) => {
                let active = found.filter(|r| r.state.is_active());
                Ok(active.map(|r| (r.id, [r.old_fingerprint, r.new_fingerprint])))
            }
            Err(e) => {
                let error = Error::from(e);
                self.conn = Err(NoTrail::Silent(error.clone()));
                Err(error)
            }
        }
    }

    /// When the database first heard of a key, in seconds since 1970, as far as it can be asked.
    pub async fn first_seen(&mut self, key: Fingerprint) -> Option<f64> {
        match &mut self.conn {
            Ok(conn) => report::first_seen(conn, key).await.ok().flatten(),
            Err(_) => None,
        }
    }

    /// The chain's head as it is, for jobs that had nothing to append.
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

    /// Appends that these sources were read. Those that yielded nothing do not belong here: what was typed for one may
    /// be a key.
    pub async fn accessed(&mut self, sources: Vec<&KeySource>, mut detail: Value) -> Option<String> {
        if sources.is_empty() {
            return self.head().await;
        }
        detail["sources"] = json!(sources);
        self.record(KeyEvent::Access, detail).await
    }

    /// Appends an event, and the application's entry where it keeps a trail; returns the chain's head.
    pub async fn record(&mut self, event: KeyEvent, mut detail: Value) -> Option<String> {
        if let Some(detail) = detail.as_object_mut() {
            detail.insert("environment".into(), json!(self.environment));
        }
        let written = match &mut self.conn {
            Ok(conn) => append(conn, &self.actor, event, detail).await.map_err(|e| e.to_string()),
            Err(why) => Err(why.to_string()),
        };
        written.map_err(|why| tracing::warn!("The audit trail got no entry: {why}")).ok()
    }
}

async fn connect(session: &Session) -> Result<PgConnection, NoTrail> {
    if session.database_url.is_none() {
        return Err(NoTrail::NotNamed);
    }
    let connector = session.connector().map_err(NoTrail::Silent)?;
    let silent = |e: StoreError| NoTrail::Silent(e.into());
    let mut conn = connector.try_connect(Purpose::Control).await.map_err(silent)?;
    match schema::exists(&mut conn).await.map_err(silent)? {
        true => Ok(conn),
        false => Err(NoTrail::NoSchema),
    }
}

async fn append(conn: &mut PgConnection, actor: &Actor, event: KeyEvent, detail: Value) -> Result<String> {
    let (own, of_the_application) = event.words();
    let mut tx = conn.begin().during("begin").await?;
    audit::append_to_application(&mut tx, crate::entropy::id(), None, of_the_application, actor, &detail)
        .await?;
    audit::append(&mut tx, None, own, actor, detail).await?;
    let (seq, hash) = audit::head(&mut tx).await?;
    tx.commit().during("append to the audit trail").await?;
    Ok(format!("{seq}:{hash}"))
}
