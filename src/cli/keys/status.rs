//! `rekey keys status`: where keys are, how old, when due by the guide's schedule (90 days), who would change them.

use jiff::{Timestamp, ToSpan};
use serde::Serialize;
use serde_json::json;

use super::super::context::Context;
use super::args::StatusArgs;
use super::subject::{self, Subject};
use super::trail::{Trail, print_head};
use crate::crypto::Fingerprint;
use crate::error::{Error, Exit, Result};
use crate::secrets::aws::is_pin;
use crate::secrets::{AwsSource, KeySource};

/// The guide's section 3.1: quarterly.
const CRYPTOPERIOD_DAYS: i64 = 90;

#[derive(Default, Serialize)]
struct Status {
    key: Option<&'static str>,
    source: String,
    fingerprint: Option<Fingerprint>,
    bytes: Option<usize>,
    version: Option<String>,
    /// When the version was made, or the file last changed: the key is at least this old.
    since: Option<String>,
    age_days: Option<i64>,
    due: Option<String>,
    overdue: Option<bool>,
    automatic_rotation: Option<bool>,
    pins: Vec<Pin>,
    retired: Vec<Pin>,
    problem: Option<String>,
}

#[derive(Serialize)]
struct Pin {
    label: String,
    version: String,
}

/// Runs the command.
pub async fn run(args: StatusArgs, context: &Context) -> Result<Exit> {
    let subjects = if args.sources.is_empty() {
        subject::both(args.env_file.as_deref(), args.layout.secret_layout, &context.application)?
    } else {
        args.sources.iter().map(|text| Subject::given(text, None)).collect::<Result<_>>()?
    };
    let mut trail = Trail::open(context).await;
    let (mut keys, mut worst) = (Vec::new(), Exit::Ok);
    for s in &subjects {
        let mut status =
            Status { key: s.kind.map(|k| k.variable()), source: s.source.to_string(), ..Status::default() };
        if let Err(e) = look(&s.source, context, &mut status).await {
            worst = if e.exit == Exit::Unavailable || worst == Exit::Unavailable {
                Exit::Unavailable
            } else {
                e.exit
            };
            status.problem = Some(e.message);
        }
        keys.push(status);
    }
    let read = keys.iter().filter(|k| k.fingerprint.is_some()).map(|k| k.source.clone());
    let head = trail.accessed(read.collect(), json!({ "by": "status" })).await;
    if context.json() {
        context.print_json(&json!({ "keys": keys, "event_head": head }))?;
    } else {
        keys.iter().for_each(text);
        print_head(head.as_ref());
    }
    Ok(worst)
}

async fn look(source: &KeySource, context: &Context, status: &mut Status) -> Result<()> {
    let since = match source.aws() {
        Some(aws) => of_secret(aws, context, status).await?,
        None => {
            let fetched = context.sources.fetch(source).await?;
            status.fingerprint = Some(Fingerprint::of(&fetched.value));
            status.bytes = Some(fetched.value.len());
            changed_at(source)
        }
    };
    if let Some(since) = since {
        #[expect(
            clippy::disallowed_methods,
            reason = "an age in days, told to people; there may be no database"
        )]
        let now = Timestamp::now();
        let days = now.duration_since(since).as_hours() / 24;
        let due = since.checked_add((CRYPTOPERIOD_DAYS * 24).hours());
        let due = due.map_err(|e| Error::new(Exit::Internal, format!("cannot add days: {e}")))?;
        status.since = Some(since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        status.age_days = Some(days);
        status.due = Some(due.strftime("%Y-%m-%d").to_string());
        status.overdue = Some(due < now);
    }
    Ok(())
}

async fn of_secret(aws: &AwsSource, context: &Context, status: &mut Status) -> Result<Option<Timestamp>> {
    let client = context.sources.aws().await?;
    let info = client.describe(&aws.secret_id).await?;
    status.automatic_rotation = Some(info.rotation_enabled);
    for (version, labels) in &info.versions {
        for label in labels {
            let pin = || Pin { label: label.clone(), version: version.clone() };
            if is_pin(label) {
                status.pins.push(pin());
            } else if label.starts_with("rekey-retired-") {
                status.retired.push(pin());
            }
        }
    }
    let fetched = context.sources.fetch(&aws.clone().into()).await?;
    status.fingerprint = Some(Fingerprint::of(&fetched.value));
    status.bytes = Some(fetched.value.len());
    status.version = fetched.version_id;
    let created = client.version(aws).await?.created;
    Ok(created.and_then(|s| Timestamp::from_second(s).ok()))
}

/// When the file last changed.
fn changed_at(source: &KeySource) -> Option<Timestamp> {
    let modified = std::fs::metadata(source.file()?).ok()?.modified().ok()?;
    Timestamp::try_from(modified).ok()
}

fn text(s: &Status) {
    println!("{}", s.key.unwrap_or("key"));
    let line = |name: &str, value: &str| println!("  {name:<20}{value}");
    line("source", &s.source);
    if let Some(problem) = &s.problem {
        line("problem", problem);
    }
    if let (Some(fingerprint), Some(bytes)) = (&s.fingerprint, s.bytes) {
        line("fingerprint", &format!("{fingerprint}, {bytes} bytes"));
    }
    if let Some(version) = &s.version {
        line("version", version);
    }
    match (&s.since, s.age_days, &s.due, s.overdue) {
        (Some(since), Some(days), Some(due), overdue) => {
            line("age", &format!("{days} days at least, since {since}"));
            let late = if overdue == Some(true) { ": overdue" } else { "" };
            line("due", &format!("{due}{late} (every {CRYPTOPERIOD_DAYS} days)"));
        }
        _ if s.problem.is_none() => line("age", "not known here"),
        _ => {}
    }
    match s.automatic_rotation {
        Some(true) => line(
            "automatic rotation",
            "on: AWS would change the key without re-encrypting; aws secretsmanager cancel-rotate-secret ends it",
        ),
        Some(false) => line("automatic rotation", "off"),
        None => {}
    }
    for pin in s.pins.iter().chain(&s.retired) {
        line("pinned", &format!("{} on version {}", pin.label, pin.version));
    }
}
