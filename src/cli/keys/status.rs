//! `rekey keys status`: where keys are, how old, when due by the guide's schedule (90 days), and what would change them.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::super::context::Context;
use super::super::envelope::Document;
use super::super::last_lines::print_head;
use super::subject::Layout;
use crate::error::{Exit, Result};
use crate::jobs::keys::status::{CRYPTOPERIOD_DAYS, KeyStatus, status};
use crate::jobs::keys::subject::{Subject, both};
use crate::secrets::KeySource;

/// `keys status`
#[derive(Args)]
pub struct StatusArgs {
    /// Key sources [default: both keys, from the application's settings]
    #[arg(value_name = "SOURCE")]
    pub sources: Vec<String>,
    /// Dotenv file with SECRET_KEY and ENCRYPTION_KEY
    #[arg(
        long,
        env = "REKEY_ENV_FILE",
        hide_env_values = true,
        value_name = "PATH",
        conflicts_with = "sources"
    )]
    pub env_file: Option<PathBuf>,
    #[command(flatten)]
    pub layout: Layout,
}

/// Runs the command.
pub async fn run(args: StatusArgs, context: &Context) -> Result<Exit> {
    let subjects = if args.sources.is_empty() {
        both(args.env_file.as_deref(), args.layout.secret_layout, &context.application)?
    } else {
        let given = |text: &String| Ok(Subject::given(KeySource::parse(text)?, None));
        args.sources.iter().map(given).collect::<Result<_>>()?
    };
    let found = status(context, subjects).await;
    if context.json() {
        let result = json!({ "keys": found.keys, "event_head": found.head });
        context.print_json(&Document::new(found.exit, &result)?)?;
    } else {
        found.keys.iter().for_each(text);
        print_head(found.head.as_deref());
    }
    Ok(found.exit)
}

fn text(s: &KeyStatus) {
    println!("{}", s.key.unwrap_or("key"));
    let line = |name: &str, value: &str| println!("  {name:<20}{value}");
    line("source", &s.source.to_string());
    if let Some(problem) = &s.problem {
        line("problem", problem);
    }
    if let (Some(fingerprint), Some(bytes)) = (&s.fingerprint, s.bytes) {
        line("fingerprint", &format!("{fingerprint}, {bytes} bytes"));
    }
    if let Some(version) = &s.version {
        line("version", version);
    }
    match (&s.since, s.age_days, &s.due, s.due_in_days) {
        (Some(since), Some(days), Some(due), Some(left)) => {
            line("age", &format!("at least {days} days, since {since}"));
            let when = match s.overdue {
                Some(true) => format!("{} days overdue", -left),
                _ => format!("in {left} days"),
            };
            line("due", &format!("{due}, {when} (every {CRYPTOPERIOD_DAYS} days)"));
        }
        _ if s.problem.is_none() => line("age", "unknown"),
        _ => {}
    }
    match s.automatic_rotation {
        Some(true) => line(
            "automatic rotation",
            "on: AWS would replace the key without re-encrypting rows. Run `aws secretsmanager \
             cancel-rotate-secret`",
        ),
        Some(false) => line("automatic rotation", "off"),
        None => {}
    }
    for copy in &s.retired_files {
        line("retired", &format!("{} in {}", copy.fingerprint, copy.path));
    }
    for pin in s.pins.iter().chain(&s.retired) {
        line("pinned", &format!("{} on version {}", pin.label, pin.version));
    }
}
