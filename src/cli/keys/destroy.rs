//! `rekey keys destroy --fingerprint F`: the label that keeps a retired key comes off.

use clap::Args;

use super::super::confirm::{self, Answer};
use super::super::context::Context;
use super::super::last_lines::print_head;
use super::super::signals;
use super::subject::{Layout, subject};
use crate::crypto::{Fingerprint, ParseFingerprintError};
use crate::error::{Error, Exit, Result};
use crate::jobs::keys::destroy::destroy;
use crate::secrets::AppKey;

/// `keys destroy`
#[derive(Args)]
pub struct DestroyArgs {
    /// The retired key
    #[arg(long, env = "REKEY_FINGERPRINT", hide_env_values = true, value_name = "FINGERPRINT")]
    pub fingerprint: String,
    /// The secret that holds it [default: where the application's settings say]
    pub source: Option<String>,
    /// Don't ask. There is no environment variable for it: what cannot be undone is agreed to each time
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub layout: Layout,
}

/// Runs the command.
pub async fn run(args: DestroyArgs, context: &Context) -> Result<Exit> {
    let fingerprint: Fingerprint = args.fingerprint.parse().map_err(|e: ParseFingerprintError| {
        Error::new(Exit::Usage, e.to_string()).hint("rekey keys status lists the retired keys")
    })?;
    let place = subject(args.source.as_deref(), None, (AppKey::Encryption, &args.layout), context)?.source;
    let Some(secret) = place.aws() else {
        return Err(Error::new(Exit::Usage, format!("{place} keeps no retired keys"))
            .hint("name the secret: rekey keys destroy --fingerprint F aws:SECRET_ID"));
    };
    if confirm::is_needed(args.yes)? {
        let question = format!(
            "This destroys the retired key {fingerprint} in {place}.\n\
             Database backups from its time can never be read again without a backup of the key."
        );
        confirm::ask(&question, Answer::Word(&fingerprint.to_string()))?;
    }
    // What is begun is recorded; only a hang is cut short.
    signals::listen()?;
    let done = destroy(context, secret, fingerprint).await?;
    if context.json() {
        context.print_json(&done)?;
        return Ok(Exit::Ok);
    }
    println!("{} is off version {}", done.label, done.version);
    if done.still_at.is_empty() {
        println!("no label holds the version any more: AWS deletes it in its own time");
    } else {
        println!("still at {}: AWS deletes the version once that moves on", done.still_at.join(", "));
    }
    print_head(done.head.as_deref());
    Ok(Exit::Ok)
}
