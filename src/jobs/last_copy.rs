//! What stays of the key that a program, or whoever owns the place, is about to overwrite where the application reads it.

use super::Session;
use super::key_pair::{self, NamedKeys, Role};
use crate::engine::lifecycle::{Kept, Target};
use crate::error::Result;

/// Whose hand overwrites it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A program that rekey runs.
    Program,
    /// Someone whom rekey tells what to change.
    Owner,
}

/// Finds the copy that stays. A program that would overwrite the last one is refused (7); an owner is warned.
pub async fn look(
    session: &Session,
    named: &NamedKeys,
    target: &Target<'_>,
    leaving: Role,
    by: By,
) -> Result<Option<Kept>> {
    let places = key_pair::places(session, named, target.rotation, leaving)?;
    let kept = match (target.keep(&places, leaving).await, by) {
        // Nothing is run for it, and the place it names may be out of reach from here.
        (Err(error), By::Owner) => {
            tracing::debug!(%error, "going on without a look for copies");
            return Ok(None);
        }
        (kept, _) => kept?,
    };
    if kept.is_some() {
        return Ok(kept);
    }
    match by {
        By::Program => Err(target.last_copy(leaving)),
        By::Owner => {
            tracing::warn!(
                "rekey finds the {} key in {} only. Copy it to a place that stays before you change it there",
                leaving.as_str(),
                target.source
            );
            Ok(None)
        }
    }
}
