//! What the jobs ask of preflight: the database's findings, with those about the keys' sources added.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::key_pair::{Held, KeyPair};
use super::{Environment, Session};
use crate::engine::lifecycle::Target;
use crate::error::{Error, Exit, Result};
use crate::rotation::Direction;
use crate::rotation::throttle::Limits;
use crate::secrets::SourceError;
use crate::store::preflight::{
    Allowed, Asked, Finding, For, KeyProbe, Kind, Report, changed_table, examine, examine_schema,
    other_database, refuse,
};
use crate::store::{Connector, audit, schema};

/// Refuses a hot standby for commands that write.
pub async fn primary_only(connector: &Connector, conn: &mut PgConnection, command: &str) -> Result<()> {
    if connector.server(conn).await?.in_recovery {
        return Err(Error::new(
            Exit::Preflight,
            format!("{command} requires the primary; this server is a hot standby"),
        )
        .hint(
            "Name the primary in DATABASE_URL. On a standby, only plan, status, verify and `run --dry-run` \
            work",
        ));
    }
    Ok(())
}

/// Says why this role cannot read rekey's own rows, before a statement fails for it.
pub async fn usable_ledger(conn: &mut PgConnection, allowed: &Allowed) -> Result<()> {
    if schema::exists(conn).await? && !schema::is_readable(conn).await? {
        refuse(&examine_schema(conn, allowed).await?)?;
    }
    Ok(())
}

/// A statement that failed for no other reason may have met a table that was changed meanwhile: that is a refusal, no bug.
pub async fn unless_changed<T>(connector: &Connector, work: Result<T>) -> Result<T> {
    match work {
        Err(bug) if bug.exit == Exit::Internal => Err(changed_table(connector).await.unwrap_or(bug)),
        work => work,
    }
}

/// What a preflight is for.
pub struct PreflightRequest<'a> {
    /// The command.
    pub purpose: For,
    /// What the operator lets pass.
    pub allowed: &'a Allowed,
    /// What the throttle will watch.
    pub limits: &'a Limits,
    /// Which way rows are to move.
    pub direction: Direction,
    /// No rotation is under way.
    pub fresh: bool,
}

/// Examines database and key sources together.
pub async fn preflight(
    session: &Session,
    connector: &Connector,
    conn: &mut PgConnection,
    keys: &KeyPair,
    asked: PreflightRequest<'_>,
) -> Result<Report> {
    let mut also = Vec::new();
    if asked.direction == Direction::Forward
        && let (Some(aws), Some(arn)) = (keys.old.source.aws(), &keys.old.record.arn)
    {
        also.extend(automatic_rotation(session, &aws.secret_id, arn).await?);
    }
    if asked.direction == Direction::Forward {
        for held in [&keys.old, &keys.new] {
            if let (Some(aws), Some(arn)) = (held.source.aws(), &held.record.arn) {
                also.extend(replica(session, &aws.secret_id, arn).await?);
            }
            also.extend(open_file(session, held));
        }
    }
    if asked.fresh {
        durability(session, &keys.new, &mut also).await?;
    }
    let (source, target) = match asked.direction {
        Direction::Forward => (&keys.old.key, &keys.new.key),
        Direction::Backward => (&keys.new.key, &keys.old.key),
    };
    let probe = KeyProbe { source, target, also: None, fresh: asked.fresh };
    let PreflightRequest { purpose, allowed, limits, .. } = asked;
    let asked = Asked { purpose, allowed, limits, keys: Some(probe), also };
    Ok(examine(conn, connector, asked).await?)
}

/// A replica's labels and values are its primary's: what was pinned and promoted there could not be.
async fn replica(session: &Session, name: &str, secret: &str) -> Result<Option<Finding>> {
    match session.sources.aws().await?.describe(secret).await {
        Ok(info) => Ok(info.replicated_from().map(|primary| {
            Finding::refuse(
                Kind::ReplicaSecret,
                format!(
                    "secret {name} is a replica of the one in {primary}: it takes no value and no label here"
                ),
                format!("Set AWS_REGION={primary}, or name the secret by its ARN there"),
            )
        })),
        // Whether it may be seen is said elsewhere.
        Err(SourceError::Denied { .. }) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Refuses to change a key where the secret is a replica, before anything is recorded: it could not be changed there.
pub async fn no_replica(session: &Session, target: &Target<'_>) -> Result<()> {
    let Some(aws) = target.source.aws() else { return Ok(()) };
    match replica(session, &aws.secret_id, &aws.secret_id).await? {
        Some(f) => Err(Error::new(Exit::Preflight, format!("{}: {}", f.name, f.message)).hint(f.remedy)),
        None => Ok(()),
    }
}

/// Whoever may write the file decides which key the application uses.
fn open_file(session: &Session, held: &Held) -> Option<Finding> {
    let file = held.source.file()?;
    let mode = std::fs::metadata(file).ok()?.permissions().mode();
    let message = format!("every user of this machine may write {}", file.display());
    let remedy = format!("chmod o-w {}", file.display());
    (mode & 0o002 != 0).then(|| match session.environment {
        Environment::Production => Finding::refuse(Kind::OpenFile, message, remedy),
        _ => Finding::warn(Kind::OpenFile, message, remedy),
    })
}

/// Automatic rotation would swap the key without re-encrypting anything (the guide's 2.4).
async fn automatic_rotation(session: &Session, name: &str, arn: &str) -> Result<Option<Finding>> {
    match session.sources.aws().await?.describe(arn).await {
        Ok(info) if info.rotation_enabled => Ok(Some(Finding::refuse(
            Kind::AutomaticRotation,
            format!(
                "AWS automatic rotation is enabled on secret {name}. It would replace the key without \
                 re-encrypting any row"
            ),
            format!("Run `aws secretsmanager cancel-rotate-secret --secret-id {name}`"),
        ))),
        Ok(_) => Ok(None),
        Err(e @ SourceError::Denied { .. }) => Ok(Some(Finding::warn(
            Kind::AutomaticRotation,
            format!("Can't check whether AWS automatic rotation is enabled: {e}"),
            "Allow secretsmanager:DescribeSecret in the IAM policy of this role",
        ))),
        Err(e) => Err(e.into()),
    }
}

/// The same of the secret that a promotion is about to write, which another one may be than `run` looked at; and it
/// may have been switched on since.
pub async fn no_automatic_rotation(
    session: &Session,
    conn: &mut PgConnection,
    target: &Target<'_>,
    allowed: &Allowed,
) -> Result<()> {
    let Some(aws) = target.source.aws() else { return Ok(()) };
    let found = automatic_rotation(session, &aws.secret_id, &aws.secret_id).await?;
    refuse_unless_allowed(session, conn, target.rotation.id, "promote", found, allowed).await
}

/// Refuses where the rotation was begun in another database, of which this one is a copy.
pub async fn same_database(
    session: &Session,
    conn: &mut PgConnection,
    rotation: Uuid,
    command: &str,
    allowed: &Allowed,
) -> Result<()> {
    let found = other_database(conn, rotation).await?;
    refuse_unless_allowed(session, conn, rotation, command, found, allowed).await
}

/// What is let pass is recorded.
async fn refuse_unless_allowed(
    session: &Session,
    conn: &mut PgConnection,
    rotation: Uuid,
    command: &str,
    found: Option<Finding>,
    allowed: &Allowed,
) -> Result<()> {
    let Some(finding) = found.filter(Finding::refuses) else { return Ok(()) };
    if allowed.includes(finding.kind()) {
        let detail = json!({ "by": command, "finding": finding.name, "message": finding.message });
        audit::append(conn, Some(rotation), "allow", &session.actor, detail).await?;
        return Ok(());
    }
    let hint = format!("{}. Or allow it with `--allow {}`", finding.remedy, finding.name);
    Err(Error::new(Exit::Preflight, format!("{}: {}", finding.name, finding.message)).hint(hint))
}

/// The new key must outlive this process: re-fetched by its version id it must be the same; other sources warn.
async fn durability(session: &Session, new: &Held, findings: &mut Vec<Finding>) -> Result<()> {
    let source = &new.source;
    let (Some(aws), Some(version)) = (source.aws(), &new.record.version) else {
        if !source.is_durable() {
            findings.push(Finding::warn(
                Kind::NotDurable,
                format!("The new key is stored in {source}. Losing it loses the credentials"),
                "Store it in Secrets Manager, or make an encrypted copy: `rekey keys backup SOURCE --out FILE`",
            ));
        }
        return Ok(());
    };
    let again = session.sources.fetch(&aws.at(version).into()).await?;
    let same = crate::crypto::EncryptionKey::from_bytes(&again.value).is_ok_and(|k| k.same_as(&new.key));
    if !same {
        findings.push(Finding::refuse(
            Kind::NotDurable,
            format!("Version {version} of {source} returned a different key when fetched again"),
            "Find out what changes this secret",
        ));
    }
    Ok(())
}
