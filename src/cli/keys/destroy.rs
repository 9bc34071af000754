//! `rekey keys destroy --fingerprint F`: the label that keeps a retired key comes off, and AWS lets go of it.
//!
//! Database backups taken before that key's rotation can then never be read again.

use serde_json::json;

use super::super::confirm::confirm;
use super::super::context::Context;
use super::super::signals;
use super::args::DestroyArgs;
use super::subject::Subject;
use super::trail::{Action, Trail, print_head};
use crate::crypto::Fingerprint;
use crate::error::{Error, Exit, Result};
use crate::secrets::aws::{is_pin, retired_label};
use crate::secrets::{AppKey, AwsSource};

/// Runs the command.
pub async fn run(args: DestroyArgs, context: &Context) -> Result<Exit> {
    let fingerprint: Fingerprint =
        args.fingerprint.parse().map_err(|e: crate::crypto::ParseFingerprintError| {
            Error::new(Exit::Usage, e.to_string()).hint("rekey keys status lists the retired keys")
        })?;
    let subject = match &args.source {
        Some(text) => Subject::given(text, None)?,
        None => Subject::application(AppKey::Encryption, args.layout.secret_layout, &context.application)?,
    };
    let Some(secret) = subject.source.aws() else {
        return Err(Error::new(Exit::Usage, format!("{} keeps no retired keys", subject.source))
            .hint("name the secret: rekey keys destroy --fingerprint F aws:SECRET_ID"));
    };
    let first = format!(
        "Destroy the retired key {fingerprint} in {}? Database backups from its time can then never be read again.",
        subject.source
    );
    confirm(args.yes, &first)?;
    confirm(args.yes, "This cannot be undone. Are all those backups gone, or is there a backup of the key?")?;

    // What is begun is recorded; only a hang is cut short.
    signals::listen()?;
    let LetGo { mut trail, label, arn, version, others } =
        let_go(&subject, secret, fingerprint, context).await?;
    let detail = json!({
        "fingerprint": fingerprint, "source": subject.source.to_string(), "secret": arn,
        "version": version, "still_at": others,
    });
    let head = trail.record(Action::DESTROY, detail.clone()).await;
    if context.json() {
        let mut result = detail;
        result["event_head"] = json!(head);
        context.print_json(&result)?;
        return Ok(Exit::Ok);
    }
    println!("{label} is off version {version}");
    if others.is_empty() {
        println!("no label holds the version any more: AWS deletes it in its own time");
    } else {
        println!("still at {}: AWS deletes the version once that moves on", others.join(", "));
    }
    print_head(head.as_ref());
    Ok(Exit::Ok)
}

/// The version that the label is off, and what else holds it.
struct LetGo {
    trail: Trail,
    label: String,
    arn: String,
    version: String,
    others: Vec<String>,
}

/// Takes the label off, unless somebody needs the key.
async fn let_go(
    subject: &Subject,
    secret: &AwsSource,
    fingerprint: Fingerprint,
    context: &Context,
) -> Result<LetGo> {
    let (trail, mut needed) = super::open(context).await?;
    let client = context.sources.aws().await?;
    let info = client.describe(&secret.secret_id).await?;
    let label = retired_label(fingerprint);
    let Some(version) = info.holder(&label).map(str::to_owned) else {
        return Err(Error::new(Exit::Key, format!("{} keeps no retired key {fingerprint}", subject.source))
            .hint("rekey keys status lists the retired keys"));
    };
    needed.add_pins(&context.sources, secret).await?;
    needed.refuse(&subject.source, fingerprint)?;
    let others: Vec<String> = info.versions[&version].iter().filter(|l| **l != label).cloned().collect();
    if let Some(holds) = others.iter().find(|l| *l == "AWSCURRENT" || (is_pin(l) && !needed.is_over(l))) {
        return Err(Error::new(
            Exit::State,
            format!("the key {fingerprint} is in use: its version is at {holds}"),
        )
        .hint("rekey status, rekey keys status"));
    }
    client.detach(&secret.secret_id, &label).await?;
    Ok(LetGo { trail, label, arn: info.arn, version, others })
}
