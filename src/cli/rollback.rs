//! `rekey rollback`: arguments and the question. Its end is printed by [`summary`].

use clap::Args;
use clap::builder::BoolishValueParser;

use super::confirm::{self, Answer};
use super::context::Context;
use super::options::{KeyArgs, WorkArgs, given, program};
use super::{signals, summary};
use crate::error::{Exit, Result};
use crate::jobs::key_pair::NamedKeys;
use crate::jobs::rollback::{self, RollbackRequest};
use crate::jobs::stakes;

#[derive(Args)]
pub struct RollbackArgs {
    /// Don't ask for confirmation
    #[arg(long, env = "REKEY_YES", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub yes: bool,
    /// Re-encrypt rows under the old key although it is marked compromised
    #[arg(long, env = "REKEY_I_KNOW_THE_OLD_KEY_IS_COMPROMISED", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub i_know_the_old_key_is_compromised: bool,
    /// Where the application reads its key, for a `command:` source, which rekey runs only where you name it
    #[arg(long, env = "REKEY_TARGET", hide_env_values = true, hide_short_help = true, value_name = "SOURCE")]
    pub target: Option<String>,
    /// Give the old key on stdin to this program, where one gave the new key to the application
    #[arg(
        long,
        env = "REKEY_PROMOTE_COMMAND",
        hide_env_values = true,
        hide_short_help = true,
        value_name = "CMD"
    )]
    pub promote_command: Option<String>,
    #[command(flatten)]
    pub keys: KeyArgs,
    #[command(flatten)]
    pub work: WorkArgs,
}

/// Runs the command.
pub async fn run(args: RollbackArgs, context: &Context) -> Result<Exit> {
    let request = RollbackRequest {
        despite_compromise: args.i_know_the_old_key_is_compromised,
        program: program(&args.promote_command)?,
        keys: NamedKeys { target: given("--target", &args.target)?, ..args.keys.named()? },
        work: args.work.request()?,
    };
    // A missing DATABASE_URL is reported before the question.
    context.connector()?;
    if confirm::is_needed(args.yes)? {
        confirm::show(&stakes::of(context, request.command()).await?);
        confirm::ask("This re-encrypts every row under the old key. Continue?", Answer::Yes)?;
    }
    let stop = signals::listen()?;
    summary::print(context, &rollback::rollback(context, &request, stop).await?)
}
