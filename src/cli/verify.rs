//! `rekey verify`: arguments, and what is printed of what was found.

use clap::Args;
use serde::Serialize;

use super::context::Context;
use super::last_lines::{print_head, print_next};
use super::options::KeyArgs;
use crate::engine::VerifyReport;
use crate::error::{Exit, Result};
use crate::jobs::verify::{self, Verified, VerifyRequest};
use crate::rotation::{State, Step};
use crate::store::ledger::Rotation;
use crate::telemetry::progress::thousands;

#[derive(Args)]
pub struct VerifyArgs {
    /// Readers
    #[arg(long, env = "REKEY_WORKERS", hide_env_values = true, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64), value_name = "N")]
    pub workers: u16,
    #[command(flatten)]
    pub keys: KeyArgs,
}

#[derive(Serialize)]
struct Printed<'a> {
    rotation: &'a Rotation,
    key: &'static str,
    exit_code: u8,
    recorded: bool,
    #[serde(flatten)]
    report: &'a VerifyReport,
    next: &'a [Step],
    event_head: Option<&'a str>,
}

/// Runs the command.
pub async fn run(args: VerifyArgs, context: &Context) -> Result<Exit> {
    let request = VerifyRequest { workers: args.workers.into(), keys: args.keys.named()? };
    let verified = verify::verify(context, &request).await?;
    let exit = verified.report.exit();
    context.say_next(&headline(&verified, exit), &verified.next);
    if context.json() {
        context.print_json(&Printed {
            rotation: &verified.rotation,
            key: verified.rotation.direction().target(),
            exit_code: exit.code(),
            recorded: verified.recorded,
            report: &verified.report,
            next: &verified.next,
            event_head: verified.event_head.as_deref(),
        })?;
    } else {
        text(&verified, exit);
    }
    Ok(exit)
}

/// What was found, in one line. Rows that a rotation has still to move are no damage.
fn headline(v: &Verified, exit: Exit) -> String {
    let (r, key) = (&v.report, v.rotation.direction().target());
    let rows =
        |n: i64, what: &str| format!("{} {} {what}", thousands(n), if n == 1 { "row" } else { "rows" });
    match exit {
        Exit::Ok if r.accepted > 0 => {
            format!(
                "clean: every row is on the {key} key, except {} that an operator accepted",
                thousands(r.accepted)
            )
        }
        Exit::Ok => format!("clean: every row is on the {key} key"),
        Exit::Quarantined => format!("not clean: {}", rows(r.unreadable, "that no key decrypts")),
        _ if r.other_bytes > 0 => {
            format!("damaged: {}", rows(r.other_bytes, "that rekey wrote with other bytes than before"))
        }
        _ if r.unseen > 0 => format!("not clean: {}", rows(r.unseen, "that the primary key does not find")),
        _ if matches!(v.rotation.state, State::Migrating | State::RollingBack) => {
            format!(
                "not finished: {}; nothing is damaged",
                rows(r.wrong_key, &format!("not yet on the {key} key"))
            )
        }
        _ => format!("not clean: {}", rows(r.wrong_key, "on the wrong key")),
    }
}

fn text(v: &Verified, exit: Exit) {
    let r = &v.report;
    println!("{}", headline(v, exit));
    println!();
    let mut lines = vec![
        ("rows", r.rows),
        ("byte-identical", r.identical),
        ("changed since", r.changed_since),
        ("inserted since", r.inserted_since),
        ("deleted since", r.deleted_since),
        ("already on the key", r.already_on_key),
        ("without a credential", r.null),
        ("accepted", r.accepted),
    ];
    for trouble in [
        ("on the wrong key", r.wrong_key),
        ("no key opens", r.unreadable),
        ("other bytes", r.other_bytes),
        ("not seen", r.unseen),
    ] {
        if trouble.1 > 0 {
            lines.push(trouble);
        }
    }
    for (name, rows) in lines {
        println!("  {name:<22}{:>14}", thousands(rows));
    }
    println!("  {:<22}{:>14.1} s", "time", r.seconds);
    if !r.bytes_compared {
        println!("  bytes were not compared: that needs the new key");
    }
    for (kind, ids) in &r.examples {
        for id in ids {
            println!("  {kind}: {id}");
        }
    }
    println!();
    print_next(&v.next);
    if !v.recorded {
        println!("printed only, not recorded");
    }
    print_head(v.event_head.as_deref());
}
