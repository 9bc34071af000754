//! `rekey keys destroy --fingerprint F`: the label that keeps a retired key comes off.

use clap::Args;

use super::super::confirm::{self, Answer};
use super::super::context::Context;
use super::super::envelope::Document;
use super::super::last_lines::print_head;
use super::super::signals;
use super::subject::{Layout, subject};
use crate::crypto::{Fingerprint, ParseFingerprintError};
use crate::error::{Error, Exit, Result};
use crate::jobs::keys::destroy::{destroy, destroy_copy};
use crate::secrets::AppKey;

/// `keys destroy`
#[derive(Args)]
pub struct DestroyArgs {
    /// Fingerprint of the retired key
    #[arg(long, env = "REKEY_FINGERPRINT", hide_env_values = true, value_name = "FINGERPRINT")]
    pub fingerprint: String,
    /// Secret that holds the key [default: from the application's settings]
    pub source: Option<String>,
    /// Don't ask for confirmation. Has no environment variable, because this can't be undone
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub layout: Layout,
}

/// Runs the command.
pub async fn run(args: DestroyArgs, context: &Context) -> Result<Exit> {
    let fingerprint: Fingerprint = args.fingerprint.parse().map_err(|e: ParseFingerprintError| {
        Error::new(Exit::Usage, e.to_string()).hint("Run `rekey keys status` to list the retired keys")
    })?;
    let place = subject(args.source.as_deref(), None, (AppKey::Encryption, &args.layout), context)?.source;
    let (secret, file) = (place.aws(), place.dotenv());
    if secret.is_none() && file.is_none() {
        return Err(Error::new(Exit::Usage, format!("{place} can't hold retired keys")).hint(
            "Name the secret or the file: `rekey keys destroy --fingerprint F aws:SECRET_ID` or `dotenv:PATH#VAR`",
        ));
    }
    if confirm::is_needed(args.yes)? {
        let question = format!(
            "This destroys the retired key {fingerprint} in {place}.\nWithout a backup of the key, the \
             credentials in database backups from its time are lost."
        );
        confirm::ask(&question, Answer::Word(&fingerprint.to_string()))?;
    }
    // What is begun is recorded; only a hang is cut short.
    signals::listen()?;
    if let Some(variable) = file {
        let done = destroy_copy(context, &place, variable, fingerprint).await?;
        if context.json() {
            context.print_json(&Document::new(Exit::Ok, &done)?)?;
        } else {
            println!("{} is removed", done.file);
            print_head(done.head.as_deref());
        }
        return Ok(Exit::Ok);
    }
    let Some(secret) = secret else { return Ok(Exit::Ok) };
    let done = destroy(context, secret, fingerprint).await?;
    if context.json() {
        context.print_json(&Document::new(Exit::Ok, &done)?)?;
        return Ok(Exit::Ok);
    }
    println!("{} was removed from version {}", done.label, done.version);
    if done.still_at.is_empty() {
        println!("No staging label holds the version now. AWS will delete it");
    } else {
        println!(
            "The version still has {}. AWS will delete it after that label moves",
            done.still_at.join(", ")
        );
    }
    print_head(done.head.as_deref());
    Ok(Exit::Ok)
}
