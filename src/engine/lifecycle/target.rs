//! The place the application reads its key from: a Secrets Manager secret, a dotenv file, or something only its
//! owner can change.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Exclusive;
use super::last_copy::Kept;
use crate::crypto::{EncryptionKey, Fingerprint};
use crate::error::{Error, Exit, Result};
use crate::program::Program;
use crate::rotation::{Command, State, Step};
use crate::secrets::aws::{Action, Replacement, Seen, promote_label, rollback_label};
use crate::secrets::{DotenvVariable, KeySource, SourceError, Sources, dotenv, rename_backup, set_aside};
use crate::store::ledger::{Rotation, rotation};

/// How long a place may take to yield what a program has put there: stores answer from copies of themselves.
const SETTLES: Duration = Duration::from_secs(30);

/// Who makes a key current.
#[derive(Clone, Copy)]
pub enum Hand<'a> {
    /// rekey itself.
    Rekey,
    /// Whoever owns the place; rekey looks, for so long.
    Owner(Duration),
    /// A program that this invocation names, which gets the key on its stdin, and the copy of the key that it replaces:
    /// `None` where that was replaced before.
    Program(&'a Program, Option<&'a Kept>),
}

/// Where the application reads its encryption key, for one rotation.
pub struct Target<'a> {
    /// Fetches and writes.
    pub sources: &'a Sources,
    /// The rotation.
    pub rotation: &'a Rotation,
    /// The place.
    pub source: KeySource,
}

/// Which key the application would read now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Yields {
    /// The rotation's old key.
    Old,
    /// The rotation's new key.
    New,
    /// Neither.
    Neither,
}

impl<'a> Target<'a> {
    /// Whether rekey can write there.
    pub fn is_writable(&self) -> bool {
        self.source.is_promotable()
    }

    /// Whether what it yields is what the application reads, and can be changed: not a former version of a secret.
    pub fn is_live(&self) -> bool {
        self.source.is_live()
    }

    /// Which key these bytes are.
    pub fn judge(&self, value: &[u8]) -> Yields {
        match EncryptionKey::from_bytes(value).map(|k| k.fingerprint()) {
            Ok(f) if f == self.rotation.old_fingerprint => Yields::Old,
            Ok(f) if f == self.rotation.new_fingerprint => Yields::New,
            _ => Yields::Neither,
        }
    }

    /// What it yields now: what AWSCURRENT holds, for a secret.
    pub async fn look(&self) -> Result<Yields> {
        Ok(self.judge(&self.sources.fetch(&self.source.at_current()).await?.value))
    }

    /// As [`Target::look`]; a place that yields neither key is not ours to overwrite (3).
    pub async fn look_for_either(&self) -> Result<Yields> {
        let found = self.look().await?;
        if found != Yields::Neither {
            return Ok(found);
        }
        let (source, r) = (&self.source, self.rotation);
        Err(Error::new(
            Exit::Key,
            format!(
                "{source} holds neither this rotation's old key ({}) nor its new key ({})",
                r.old_fingerprint, r.new_fingerprint
            ),
        )
        .hint("Find out what changed it and restore the right key, or name another place with `--target`"))
    }

    /// Makes a key current there, while the rotation is in one of these states; who lost the lock (its session was
    /// ended, say) stops. Returns the version id that holds the key, where there are versions.
    pub async fn make_current(
        &self,
        alone: &mut Exclusive<'_>,
        while_in: &[State],
        wanted: Yields,
        key: &EncryptionKey,
    ) -> Result<Option<String>> {
        let (id, conn) = (self.rotation.id, alone.conn());
        let mut guard = async || match rotation::by_id(conn, id).await?.state {
            state if while_in.contains(&state) => Ok(()),
            state => Err(Error::new(
                Exit::State,
                format!("rotation {id} has become {state}; the application's key was not changed"),
            )
            .hint("Run `rekey status`")),
        };
        let judge = |value: &[u8]| match self.judge(value) {
            Yields::Neither => Seen::Foreign,
            found if found == wanted => Seen::Wanted,
            _ => Seen::Replaceable,
        };
        if let Some(aws) = self.source.aws() {
            let (action, label) = match wanted {
                Yields::Old => (Action::Rollback, rollback_label(id)),
                _ => (Action::Promote, promote_label(id)),
            };
            let replacement = Replacement { target: aws, value: key.expose(), id, action, label: &label };
            let current = self.sources.aws().await?.replace(&replacement, judge, &mut guard).await?;
            return Ok(Some(current.version_id));
        }
        if let Some(DotenvVariable { path, var }) = self.source.dotenv() {
            let suffix = match wanted {
                Yields::New => self.backup_suffix(),
                // The file may be the only place that still has the new key.
                _ => dotenv::new_key_suffix(id),
            };
            let backup = Some(suffix.as_str());
            let change = dotenv::Change { path, var, value: key.expose(), backup, create: false };
            change.apply_guarded(judge, &mut guard).await?;
        }
        Ok(None)
    }

    /// Gives a key to the program that puts it there, and looks until it is there. May be repeated. If the `kept` copy of
    /// the other key went along with the change, the program puts that key back.
    pub async fn hand_over(
        &self,
        program: &Program,
        key: &EncryptionKey,
        kept: Option<&Kept>,
        wanted: Yields,
        then: Command,
    ) -> Result<()> {
        self.put(program, key, wanted, then).await?;
        let Some(kept) = kept else { return Ok(()) };
        if self.still_keeps(kept).await {
            return Ok(());
        }
        let other = if wanted == Yields::New { Yields::Old } else { Yields::New };
        self.put(program, &kept.key, other, then).await.map_err(|e| {
            let message = format!(
                "--promote-command replaced the key in {}, too, and the key {} could not be put back: {}",
                kept.place,
                kept.key.fingerprint(),
                e.message
            );
            Error { message, ..e }
        })?;
        Err(Error::new(
            Exit::State,
            format!(
                "--promote-command replaced the key in {}, too, so rekey had it put the key {} back in {}",
                kept.place, kept.key.fingerprint(), self.source
            ),
        )
        .hint(format!(
            "Name a copy of that key that the command leaves alone (`--old-key` or `--new-key`), then run `{}`",
            Step::Finish(then)
        )))
    }

    async fn put(&self, program: &Program, key: &EncryptionKey, wanted: Yields, then: Command) -> Result<()> {
        if let Err(failure) = program.run(Some(key.expose())).await {
            let exit = match failure.exit() {
                Exit::Key => Exit::State,
                exit => exit,
            };
            return Err(Error::new(exit, format!("--promote-command: {failure}")).hint(failure.hint()));
        }
        let started = Instant::now();
        while self.look().await? != wanted {
            if started.elapsed() > SETTLES {
                let message = format!(
                    "--promote-command ended with exit 0, but {} does not yield the key with fingerprint {}",
                    self.source,
                    key.fingerprint()
                );
                return Err(Error::new(Exit::State, message).hint(format!(
                    "Check where the command puts the key, then run `{}` again",
                    Step::Finish(then)
                )));
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Ok(())
    }

    /// Suffix of the backup that a promotion keeps beside a dotenv file.
    pub(super) fn backup_suffix(&self) -> String {
        dotenv::old_key_suffix(self.rotation.id)
    }

    /// Where a rollback keeps a dotenv file as it was, with the new key in it.
    fn new_key_copy(&self) -> Option<PathBuf> {
        let DotenvVariable { path, .. } = self.source.dotenv()?;
        Some(dotenv::backup_path(path, &dotenv::new_key_suffix(self.rotation.id)))
    }

    /// Removes that copy at the end of a rollback, unless it is where the new key was `found`, or the file itself was:
    /// rows saved before the application is restarted open with that key alone.
    pub fn drop_new_key_copy(&self, found: &KeySource) {
        let Some(copy) = self.new_key_copy().filter(|copy| copy.exists()) else { return };
        let Some(DotenvVariable { path, var }) = self.source.dotenv() else { return };
        // The same file by another name is the same file; what cannot be told is kept.
        let real = |path: &Path| path.canonicalize().ok();
        let is_elsewhere = match found.dotenv() {
            Some(found) if found.var == *var => {
                let there = real(&found.path);
                there.is_some() && there != real(path) && there != real(&copy)
            }
            _ => true,
        };
        if !is_elsewhere {
            tracing::warn!(
                "{} is the only known copy of the new key. Delete it after an application restart and clean \
                 `rekey verify`",
                copy.display()
            );
        } else if let Err(error) = dotenv::remove_backup(path, &dotenv::new_key_suffix(self.rotation.id)) {
            tracing::warn!(%error, "Couldn't remove {}. Remove it by hand", copy.display());
        }
    }

    /// The files that hold keys there: a dotenv file, and what promote and rollback keep beside it, where there is any.
    pub fn files(&self) -> Vec<PathBuf> {
        let Some(DotenvVariable { path, .. }) = self.source.dotenv() else { return Vec::new() };
        let backup = dotenv::backup_path(path, &self.backup_suffix());
        let beside = [Some(backup), self.new_key_copy()].into_iter().flatten().filter(|file| file.exists());
        std::iter::once(path.clone()).chain(beside).collect()
    }

    /// Keeps that backup for good, under the name of the old key: database backups from before the rotation need it. `None`
    /// where there is none that holds it. May be repeated.
    pub async fn retire_backup(&self) -> Result<Option<PathBuf>> {
        let Some(DotenvVariable { path, .. }) = self.source.dotenv() else { return Ok(None) };
        let (from, to) = (self.backup_suffix(), dotenv::retired_suffix(self.rotation.old_fingerprint));
        let retired = dotenv::backup_path(path, &to);
        if self.holds_old(&retired).await? {
            return Ok(Some(retired));
        }
        if !self.holds_old(&dotenv::backup_path(path, &from)).await? {
            return Ok(None);
        }
        // One of that name holds something else, which stays, too.
        set_aside(path, &to)?;
        Ok(Some(rename_backup(path, &from, &to)?))
    }

    async fn holds_old(&self, copy: &Path) -> Result<bool> {
        let Some(place) = self.source.in_copy(copy) else { return Ok(false) };
        match self.sources.fetch(&place).await {
            Ok(there) => Ok(self.judge(&there.value) == Yields::Old),
            Err(SourceError::Missing { .. } | SourceError::Malformed { .. }) => Ok(false),
            // One that cannot be read now may hold it.
            Err(e) => Err(e.into()),
        }
    }

    /// Removes that backup, once it is no longer needed.
    pub fn drop_backup(&self) {
        if let Some(DotenvVariable { path, .. }) = self.source.dotenv()
            && let Err(error) = dotenv::remove_backup(path, &self.backup_suffix())
        {
            tracing::warn!(%error, "Couldn't remove the backup of the dotenv file. Remove it by hand");
        }
    }

    /// Looks until a place that its owner changes yields this key; `false` where it does not within that time.
    pub async fn awaits(&self, wanted: Yields, fingerprint: Fingerprint, patience: Duration) -> Result<bool> {
        let started = Instant::now();
        if patience > Duration::ZERO {
            tracing::info!("waiting up to {patience:?}: {}", self.source.instruction(fingerprint));
        }
        while started.elapsed() < patience {
            match self.look().await {
                Ok(found) if found == wanted => return Ok(true),
                // A place that is being changed may yield nothing for a moment.
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "looking again"),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Ok(false)
    }

    /// What has to be changed by hand, and the command to finish with then (7).
    pub fn by_hand(&self, fingerprint: Fingerprint, then: Command) -> Error {
        let what = self.source.instruction(fingerprint);
        Error::new(Exit::State, format!("{} does not hold that key yet: {what}", self.source)).hint(format!(
            "Change it there. Then, in an environment where that source holds the key, run `{}`",
            Step::Finish(then)
        ))
    }
}
