//! Fetching the two keys: by name for a new rotation, by fingerprint for one that exists. Roles never swap.

use super::{Environment, Session};
use crate::crypto::{EncryptionKey, Fingerprint, KeyError, Weakness, weakness};
use crate::error::{Error, Exit, Result};
use crate::secrets::{Fetched, KeySource, Promoted, Search, SecretLayout, Trail, aws, defaults};
use crate::store::ledger::Rotation;
use crate::store::ledger::rotation::KeyRecord;

/// Where the operator says the keys are.
#[derive(Clone, Default)]
pub struct NamedKeys {
    /// The key rows are on.
    pub old: Option<KeySource>,
    /// The key rows go to.
    pub new: Option<KeySource>,
    /// Where the application reads its key, where that was said.
    pub target: Option<KeySource>,
    /// How the application's secrets are laid out: decides what is meant where no source is named.
    pub layout: Option<SecretLayout>,
}

impl NamedKeys {
    /// A source out of the ledger: a command only if this invocation names the same one, and may thus be run.
    pub fn recall(&self, recorded: &RecordedSource) -> Result<KeySource> {
        Ok(KeySource::of(recorded)?.given_again([&self.old, &self.new, &self.target].into_iter().flatten()))
    }

    /// Where the application reads its key: as named, as promote recorded it, or else where the old key was read. Once
    /// `promoting` was written, the place is the one to look at, and the one that rollback changes back.
    pub fn target_of(&self, r: &Rotation) -> Result<KeySource> {
        withhold(r);
        match (&self.target, &r.target_source) {
            (Some(named), Some(recorded))
                if r.promoting_at.is_some() && named.to_string() != recorded.as_str() =>
            {
                Err(Error::new(
                    Exit::State,
                    format!("rotation {} is promoted at {recorded}, not at {named}", r.id),
                )
                .hint(
                    "Leave `--target` out. To write the key to another place too, use `rekey keys restore`",
                ))
            }
            (Some(named), _) => Ok(named.clone()),
            (None, recorded) => self.recall(recorded.as_ref().unwrap_or(&r.old_source)),
        }
    }
}

/// Keeps the variables in which a rotation recorded its keys from whatever program is started next.
fn withhold(r: &Rotation) {
    for recorded in [&r.old_source, &r.new_source].into_iter().chain(&r.target_source) {
        // What is no source is said where it is asked for.
        let _ = KeySource::of(recorded);
    }
}

/// A key in hand, and how it is recorded.
pub struct Held {
    /// The key.
    pub key: EncryptionKey,
    /// Where it was read.
    pub source: KeySource,
    /// Fingerprint, source, version.
    pub record: KeyRecord,
}

use crate::rotation::RecordedSource;

pub use crate::rotation::KeyRole as Role;

/// Both keys of a rotation.
pub struct KeyPair {
    /// Rows come from it.
    pub old: Held,
    /// Rows go to it.
    pub new: Held,
}

/// Keys for a rotation that begins now: as named, or where the application's settings say.
pub async fn for_new(session: &Session, named: &NamedKeys) -> Result<KeyPair> {
    let (old, new) = both_names(session, named)?;
    let old = hold(session, Role::Old, &old).await?;
    let new = hold(session, Role::New, &new).await?;
    if old.key.same_as(&new.key) {
        return Err(KeyError::Equal.into());
    }
    judge_new(session.environment, &new)?;
    Ok(KeyPair { old, new })
}

fn both_names(session: &Session, named: &NamedKeys) -> Result<(KeySource, KeySource)> {
    match (named.old.clone(), named.new.clone()) {
        // The application's settings are not looked at then.
        (Some(old), Some(new)) => Ok((old, new)),
        (old, new) => {
            let (default_old, default_new) = defaults(named.layout, &session.application)?;
            Ok((old.unwrap_or(default_old), new.unwrap_or(default_new)))
        }
    }
}

/// The key in a source, whichever it is.
pub async fn fetch(session: &Session, source: &KeySource) -> Result<EncryptionKey> {
    let fetched = session.sources.fetch(source).await?;
    Ok(EncryptionKey::from_bytes(&fetched.value)?)
}

async fn hold(session: &Session, role: Role, source: &KeySource) -> Result<Held> {
    let fetched = session.sources.fetch(source).await?;
    held(role, source, fetched)
}

fn held(role: Role, source: &KeySource, fetched: Fetched) -> Result<Held> {
    let key = EncryptionKey::from_bytes(&fetched.value).map_err(|e| {
        let e = Error::from(e);
        Error { message: format!("the {} key, {source}: {}", role.as_str(), e.message), ..e }
    })?;
    if role == Role::Old && weakness(&fetched.value).is_some() {
        tracing::warn!(%source, "The old key is a published, placeholder or weak key");
    }
    let record = KeyRecord {
        fingerprint: key.fingerprint(),
        source: source.to_recorded(),
        arn: fetched.arn,
        version: fetched.version_id,
    };
    Ok(Held { key, source: source.clone(), record })
}

fn judge_new(environment: Environment, new: &Held) -> Result<()> {
    let Err(error) = new.key.require_strong() else { return Ok(()) };
    let tolerated = match error {
        KeyError::WeakKey(Weakness::LowEntropy) => environment != Environment::Production,
        _ => environment == Environment::Testing,
    };
    if tolerated {
        tracing::warn!(source = %new.source, %error, "The new key is weak, which this environment allows");
        return Ok(());
    }
    let e = Error::from(error);
    Err(Error { message: format!("the new key, {}: {}", new.source, e.message), ..e })
}

/// Both keys of a rotation that exists.
pub async fn for_rotation(session: &Session, named: &NamedKeys, rotation: &Rotation) -> Result<KeyPair> {
    Ok(KeyPair {
        old: one(session, named, rotation, Role::Old).await?,
        new: one(session, named, rotation, Role::New).await?,
    })
}

/// One key of an existing rotation, if available: it improves a report that is possible without it.
/// A key that is named and wrong is an error anyway.
pub async fn if_any(
    session: &Session,
    named: &NamedKeys,
    rotation: &Rotation,
    role: Role,
) -> Result<Option<Held>> {
    match as_named(session, named, rotation, role).await? {
        Named::Yes(held) => return Ok(Some(held)),
        Named::Absent(_) => return Ok(None),
        Named::No => {}
    }
    match wherever_it_is(session, named, rotation, role).await {
        Ok(held) => Ok(Some(held)),
        Err(error) => {
            tracing::debug!(key = role.as_str(), %error, "going on without this key");
            Ok(None)
        }
    }
}

/// One key of a rotation that exists, recognised by its fingerprint wherever it is now.
pub async fn one(session: &Session, named: &NamedKeys, rotation: &Rotation, role: Role) -> Result<Held> {
    match as_named(session, named, rotation, role).await? {
        Named::Yes(held) => Ok(held),
        Named::Absent(error) => Err(error),
        Named::No => wherever_it_is(session, named, rotation, role).await,
    }
}

/// What a source that was named yields.
enum Named {
    /// The key.
    Yes(Held),
    /// No key at all.
    Absent(Error),
    /// None was named, or promotion has put the new key there since.
    No,
}

/// A source named on this command line speaks for itself: another key there is a mistake, unless a promotion has since
/// made both names yield the new key.
async fn as_named(session: &Session, named: &NamedKeys, rotation: &Rotation, role: Role) -> Result<Named> {
    withhold(rotation);
    let (wanted, other, recorded, given) = match role {
        Role::Old => {
            (rotation.old_fingerprint, rotation.new_fingerprint, &rotation.old_source, named.old.clone())
        }
        Role::New => {
            (rotation.new_fingerprint, rotation.old_fingerprint, &rotation.new_source, named.new.clone())
        }
    };
    let recorded = named.recall(recorded)?;
    let Some(given) = given.filter(|given| *given != recorded) else { return Ok(Named::No) };
    let held = match hold(session, role, &given).await {
        Ok(held) => held,
        Err(error) => return Ok(Named::Absent(error)),
    };
    let found = held.record.fingerprint;
    if found == wanted {
        return Ok(Named::Yes(held));
    }
    if rotation.promoting_at.is_some() && found == other {
        return Ok(Named::No);
    }
    Err(not_this_rotations(role, wanted, &[format!("{given} (fingerprint {found})")]))
}

async fn wherever_it_is(
    session: &Session,
    named: &NamedKeys,
    rotation: &Rotation,
    role: Role,
) -> Result<Held> {
    let wanted = match role {
        Role::Old => rotation.old_fingerprint,
        Role::New => rotation.new_fingerprint,
    };
    let is_it = |value: &[u8]| EncryptionKey::from_bytes(value).is_ok_and(|k| k.fingerprint() == wanted);
    let places = places(session, named, rotation, role)?;
    match session.sources.find(&places, is_it).await? {
        Search::Found { source, fetched } => held(role, &source, fetched),
        Search::Nowhere { looked } => Err(not_this_rotations(role, wanted, &looked)),
    }
}

/// Every place where a key of a rotation may be by now, the most certain first.
pub fn places(
    session: &Session,
    named: &NamedKeys,
    rotation: &Rotation,
    role: Role,
) -> Result<Vec<KeySource>> {
    let (recorded, version, pin, named_here) = match role {
        Role::Old => (
            &rotation.old_source,
            (&rotation.old_arn, &rotation.old_version),
            aws::old_pin(rotation.id),
            named.old.clone(),
        ),
        Role::New => (
            &rotation.new_source,
            (&rotation.new_arn, &rotation.new_version),
            aws::new_pin(rotation.id),
            named.new.clone(),
        ),
    };
    let recorded = named.recall(recorded)?;
    let default = both_names(session, named).ok().map(|(old, new)| if role == Role::Old { old } else { new });

    let target = match (role, &rotation.target_source) {
        (Role::New, Some(target)) if rotation.promoting_at.is_some() => Some(target),
        (Role::Old, Some(target)) => Some(target),
        (Role::New, None) if rotation.promoting_at.is_some() => Some(&rotation.old_source),
        _ => None,
    };
    let target = target.map(|target| named.recall(target)).transpose()?;
    let trail = Trail {
        rotation: rotation.id,
        recorded: &recorded,
        version: version.1.as_deref().map(|v| (version.0.as_deref().unwrap_or_default(), v)),
        pin: &pin,
        given: named_here.as_ref().or(default.as_ref()),
        target: target.as_ref(),
        promoted: (role == Role::New && rotation.promoting_at.is_some())
            .then_some(Promoted { version: rotation.promoted_version.as_deref() }),
    };
    Ok(trail.candidates())
}

fn not_this_rotations(role: Role, wanted: Fingerprint, looked: &[String]) -> Error {
    let role = role.as_str();
    Error::new(
        Exit::Key,
        format!(
            "Can't find this rotation's {role} key (fingerprint {wanted}). Checked: {}",
            looked.join(", ")
        ),
    )
    .hint(format!(
        "Name the {role} key that this rotation began with: `--{role}-key SOURCE`. Run `rekey keys \
        fingerprint SOURCE` to see which key a source holds"
    ))
}
