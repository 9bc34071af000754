//! `rekey status`: arguments, and what is printed, once or again and again.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;

use super::context::Context;
use super::envelope::Document;
use super::last_lines::witness;
use super::{serve, signals, status_text};
use crate::error::{Exit, Result};
use crate::jobs::status::{Status, Watch};
use crate::telemetry::console::Page;
use crate::text::printable::printable;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(2);

#[derive(Args)]
pub struct StatusArgs {
    /// With `--watch`: address to serve a page on until stopped, such as 127.0.0.1:9090
    #[arg(long, env = "REKEY_LISTEN", hide_env_values = true, requires = "watch", value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Refresh every two seconds until no process is working; wait for a rotation to begin
    #[arg(long, env = "REKEY_WATCH", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub watch: bool,
}

/// Runs the command.
pub async fn run(args: StatusArgs, context: &Context) -> Result<Exit> {
    if let Some(address) = args.listen {
        signals::unless_interrupted(serve::forever(address, context)).await?;
        return Ok(Exit::Ok);
    }
    if args.watch {
        // Ctrl-C is how watching ends.
        signals::unless_interrupted(watch(context)).await?;
        return Ok(Exit::Ok);
    }
    let status = Watch::open(context).await?.look().await?;
    if context.json() {
        context.print_json(&Document::new(Exit::Ok, &status)?.next(&status.next))?;
    } else {
        println!("{}", status_text::text(&status).trim_end());
        status.event_head.as_deref().map(witness);
    }
    Ok(Exit::Ok)
}

async fn watch(context: &Context) -> Result<()> {
    let mut watch = Watch::open(context).await?;
    let mut page = std::io::stdout().is_terminal().then(Page::default);
    let mut begun = false;
    loop {
        let mut status = watch.look_patiently().await?;
        begun |= status.has_begun();
        if begun && status.is_at_rest() {
            // Two statements make one look, and a process may end between them: the last page shows one moment.
            status = watch.look_patiently().await?;
        }
        let over = begun && status.is_at_rest();
        show(context, &status, page.as_mut(), begun)?;
        if over {
            return Ok(());
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// One JSON document a line; the same place painted again on a terminal; otherwise one text after the other.
fn show(context: &Context, status: &Status, page: Option<&mut Page>, begun: bool) -> Result<()> {
    if context.json() {
        return context.print_json_line(&Document::new(Exit::Ok, status)?.next(&status.next));
    }
    let mut text = status_text::text(status);
    if !begun {
        text.push_str("waiting for a rotation to begin; Ctrl-C ends this\n");
    }
    match page {
        Some(page) => page.paint(&printable(&text)),
        None => println!("{text}"),
    }
    Ok(())
}
