//! `rekey keys rotate-secret-key`: a new SECRET_KEY where the application reads it, the former kept for
//! `--rollback`. No row depends on it, but every token does: every user is signed out, either way.

use std::path::PathBuf;

use serde_json::json;
use zeroize::Zeroizing;

use super::super::confirm::confirm;
use super::super::context::Context;
use super::super::signals;
use super::args::RotateSecretKeyArgs;
use super::generate::generate;
use super::guard::Needed;
use super::subject::{Subject, kind_of, writable};
use super::trail::{Action, print_head};
use super::write::{self, Present, Write, Written};
use crate::error::{Error, Exit, Result};
use crate::jobs::exposure::warn_of_git;
use crate::jobs::interrupt::unless_stopped;
use crate::secrets::{AppKey, KeySource, SourceError, dotenv, rename_backup, set_aside};

/// The suffix of the file that keeps the former SECRET_KEY, and the label that keeps it in Secrets Manager.
const BACKUP: &str = "secret-key.bak";
/// The suffix it has until the new one is in place: found by the next try, it says that one was cut short.
const PENDING: &str = "secret-key.pending";
const LABEL: &str = "rekey-former-secret-key";
/// The label of what this command writes, until it is done: found on what is current, it says that a try was cut short.
const WRITTEN: &str = "rekey-set-secret-key";

/// Runs the command.
pub async fn run(args: RotateSecretKeyArgs, context: &Context) -> Result<Exit> {
    let subject = match (&args.source, &args.env_file) {
        (Some(text), _) => Subject::given(text, None)?,
        (None, Some(path)) => Subject::dotenv(path, AppKey::Secret),
        (None, None) => {
            Subject::application(AppKey::Secret, args.layout.secret_layout, &context.application)?
        }
    };
    let target = &subject.source;
    writable(target)?;
    if kind_of(target) == Some(AppKey::Encryption) {
        return Err(Error::new(Exit::Usage, format!("{target} is an encryption key: rows depend on it"))
            .hint("rekey run moves every row to a new one"));
    }
    let what = if args.rollback { "Bring the former SECRET_KEY back" } else { "Replace SECRET_KEY" };
    // Said first, whether or not anybody is asked.
    eprintln!("Every user will be signed out: tokens signed with the present SECRET_KEY stop working.");
    confirm(args.yes, &format!("{what} in {target}?"))?;

    let mut stop = signals::listen()?;
    let (mut trail, mut needed) = unless_stopped(&mut stop, super::open(context)).await?;
    let (done, action) = if args.rollback {
        (bring_back(target, context, &mut needed).await?, Action::ROLL_BACK_SECRET_KEY)
    } else {
        (replace(target, context, &mut needed).await?, Action::ROTATE_SECRET_KEY)
    };
    let detail = json!({
        "key": done, "old_version": done.former_version, "new_version": done.version, "reason": context.actor.reason,
    });
    let head = match done.changed {
        true => trail.record(action, detail).await,
        false => trail.head().await,
    };
    if context.json() {
        context.print_json(&json!({ "key": done, "event_head": head }))?;
        return Ok(Exit::Ok);
    }
    text(target, &done, args.rollback);
    print_head(head.as_ref());
    Ok(Exit::Ok)
}

async fn replace(target: &KeySource, context: &Context, needed: &mut Needed) -> Result<Written> {
    keep_former(target, context).await?;
    let value = generate(AppKey::Secret)?;
    // The former key of a try that was cut short is the one it kept; what it wrote is kept as any other key.
    let backup = if is_pending(target) { "bak" } else { PENDING };
    let write =
        Write { target, value: &value, present: Present::Replace, backup, made: None, label: WRITTEN };
    let mut done = write.apply(context, needed).await?;
    match settle(target) {
        Ok(kept) => done.backup = kept.or(done.backup),
        // The key is in place; the next try, or --rollback, settles it.
        Err(error) => tracing::warn!(%error, "the former key stays where {PENDING} says"),
    }
    Ok(done)
}

async fn bring_back(target: &KeySource, context: &Context, needed: &mut Needed) -> Result<Written> {
    settle(target)?;
    let former = former(target, context).await?;
    let write = Write {
        target,
        value: &former,
        present: Present::Replace,
        backup: "bak",
        made: None,
        label: write::LABEL,
    };
    write.apply(context, needed).await
}

fn text(target: &KeySource, done: &Written, rollback: bool) {
    if !done.changed {
        println!("the former SECRET_KEY is back in {target} already, fingerprint {}", done.fingerprint);
        return;
    }
    let what = if rollback { "the former one is back" } else { "replaced" };
    println!("SECRET_KEY in {target}: {what}, fingerprint {}", done.fingerprint);
    if let Some(former) = &done.former_fingerprint {
        println!("  before: fingerprint {former}");
    }
    if let (Some(version), Some(former)) = (&done.version, &done.former_version) {
        println!("  version {version}; before: {former}");
    }
    if let Some(backup) = &done.backup {
        println!("  the file as it was is {}: remove it when you will not go back", backup.display());
    }
    println!("next: rekey cache purge; restart the application");
    if !rollback {
        println!("back: rekey keys rotate-secret-key --rollback, with the same arguments");
    }
}

/// Secrets Manager: labels what is current before anything changes, so that no later version pushes it away.
async fn keep_former(target: &KeySource, context: &Context) -> Result<()> {
    let Some(aws) = target.aws() else {
        // There must be one to replace.
        context.sources.fetch(target).await?;
        return Ok(());
    };
    let current = context.sources.fetch(&aws.at_current().into()).await?;
    let version = current.version_id.unwrap_or_default();
    let client = context.sources.aws().await?;
    let info = client.describe(&aws.secret_id).await?;
    if info.holder(WRITTEN) == Some(version.as_str()) && info.holder(LABEL).is_some() {
        // What is current was written by a try that was cut short: the former key is the one it kept.
        return Ok(());
    }
    client.attach(&aws.secret_id, LABEL, &version).await?;
    Ok(())
}

fn is_pending(target: &KeySource) -> bool {
    target.file().is_some_and(|path| dotenv::backup_path(path, PENDING).exists())
}

/// Files: what is pending is the former key from now on. Returns where it is kept.
fn settle(target: &KeySource) -> Result<Option<PathBuf>> {
    let Some(path) = target.file().filter(|_| is_pending(target)) else { return Ok(None) };
    if let Some(aside) = set_aside(path, BACKUP)? {
        tracing::info!("the backup that was there is now {}", aside.display());
        warn_of_git(&aside);
    }
    let kept = rename_backup(path, PENDING, BACKUP)?;
    warn_of_git(&kept);
    Ok(Some(kept))
}

async fn former(target: &KeySource, context: &Context) -> Result<Zeroizing<Vec<u8>>> {
    let copy = || target.in_copy(&dotenv::backup_path(target.file()?, BACKUP));
    let place = target.aws().map(|aws| aws.at(LABEL).into()).or_else(copy);
    let place = place.ok_or_else(|| Error::new(Exit::Usage, format!("{target} keeps no former key")))?;
    match context.sources.fetch(&place).await {
        Ok(fetched) => Ok(fetched.value),
        Err(SourceError::Missing { .. }) => Err(Error::new(
            Exit::Key,
            format!("no former SECRET_KEY is kept in {place}"),
        )
        .hint(
            "only rekey keys rotate-secret-key keeps one; rekey keys restore brings one back from a backup",
        )),
        Err(e) => Err(e.into()),
    }
}
