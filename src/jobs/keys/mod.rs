//! The life of both keys outside a rotation. One file per job of `rekey keys`, and what they share.
//!
//! None needs a database. Where one is named and has schema `rekey`, an unfinished rotation's keys are protected and an
//! audit entry is made; where not, that is said.
//!
//! A signal gives up what waits for a network: each step is atomic, or found again by the same command.

pub mod backup;
pub mod destroy;
pub mod fingerprint;
pub mod generate;
mod guard;
pub mod restore;
pub mod rotate_secret_key;
pub mod rules;
pub mod status;
pub mod subject;
pub mod validate;
pub mod write;

use guard::Needed;

use super::Session;
use super::audit_trail::AuditTrail;

/// The audit trail, and what an unfinished rotation needs: what every job that changes keys begins with.
async fn open(session: &Session) -> (AuditTrail, Needed) {
    let mut trail = AuditTrail::open(session).await;
    let needed = Needed::by_database(&mut trail).await;
    (trail, needed)
}
