//! `rekey keys`: the life of both keys outside a rotation. One file per subcommand.
//!
//! None needs a database. Where one is named and has schema `rekey`, an unfinished rotation's keys are protected
//! and an audit entry is made; where not, that is said.
//!
//! A signal gives up what waits for a network: each step is atomic, or found again by the same command. It is listened
//! for once nobody is asked any more, so that it ends a question at once.

mod args;
mod backup;
mod destroy;
mod fingerprint;
mod generate;
mod guard;
mod passphrase;
mod restore;
mod rotate_secret_key;
mod rules;
mod status;
mod subject;
mod trail;
mod validate;
mod write;

pub use args::KeysCommand;
pub(super) use trail::Trail;
/// The event of `cache purge`.
pub(super) const PURGE: trail::Action = trail::Action::PURGE;

use guard::Needed;

use super::context::Context;
use crate::error::{Exit, Result};

/// Runs the command.
pub async fn run(command: KeysCommand, context: &Context) -> Result<Exit> {
    match command {
        KeysCommand::Generate(args) => generate::run(args, context).await,
        KeysCommand::Validate(args) => validate::run(args, context).await,
        KeysCommand::Status(args) => status::run(args, context).await,
        KeysCommand::Fingerprint(args) => fingerprint::run(args, context).await,
        KeysCommand::RotateSecretKey(args) => rotate_secret_key::run(args, context).await,
        KeysCommand::Backup(args) => backup::run(args, context).await,
        KeysCommand::Restore(args) => restore::run(args, context).await,
        KeysCommand::Destroy(args) => destroy::run(args, context).await,
    }
}

/// The audit trail, and what an unfinished rotation needs: what every command that changes keys begins with.
async fn open(context: &Context) -> Result<(Trail, Needed)> {
    let mut trail = Trail::open(context).await;
    let needed = Needed::by_database(&mut trail).await;
    Ok((trail, needed))
}
