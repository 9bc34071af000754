//! `rekey status`: arguments, and what is printed, once or again and again.

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;

use super::context::Context;
use super::status_text;
use crate::error::{Exit, Result};
use crate::jobs::status::Watch;

#[derive(Args)]
pub struct StatusArgs {
    /// Print again every two seconds until the rotation rests
    #[arg(long, env = "REKEY_WATCH", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub watch: bool,
}

/// Runs the command.
pub async fn run(args: StatusArgs, context: &Context) -> Result<Exit> {
    let mut watch = Watch::open(context).await?;
    loop {
        let status = if args.watch { watch.look_patiently().await? } else { watch.look().await? };
        if context.json() {
            context.print_json(&status)?;
        } else {
            if args.watch && std::io::stdout().is_terminal() {
                // Home, and clear what is below: the same place is painted again.
                print!("\x1b[H\x1b[J");
            }
            status_text::print(&status);
        }
        if !args.watch || status.is_at_rest() {
            return Ok(Exit::Ok);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        println!();
    }
}
