//! What a verify found, for people: one line that judges, then every count that is not nothing.

use super::last_lines::{print_head, print_next};
use crate::error::Exit;
use crate::jobs::verify::Verified;
use crate::rotation::State;
use crate::store::reindex;
use crate::telemetry::progress::thousands;

/// What was found, in one line. Rows that a rotation has still to move are no damage.
pub fn headline(v: &Verified, exit: Exit) -> String {
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
            format!(
                "damaged: {}",
                rows(
                    r.other_bytes,
                    "that rekey wrote and that don't match their \
                pre-rotation contents"
                )
            )
        }
        _ if r.unseen > 0 => {
            let index = r.index.as_deref().unwrap_or("of the primary key");
            format!("not clean: {}", rows(r.unseen, &format!("that index {index} does not find")))
        }
        _ if matches!(v.rotation.state, State::Migrating | State::RollingBack) => {
            format!(
                "not finished: {}; nothing is damaged",
                rows(r.wrong_key, &format!("not yet on the {key} key"))
            )
        }
        _ => format!("not clean: {}", rows(r.wrong_key, "on the wrong key")),
    }
}

/// The whole of it.
pub fn print(v: &Verified, exit: Exit) {
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
        ("no key decrypts", r.unreadable),
        ("other contents", r.other_bytes),
        ("not found by index", r.unseen),
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
        println!("  Contents were not compared, because that requires the new key");
    }
    for (kind, ids) in &r.examples {
        for id in ids {
            println!("  {kind}: {id}");
        }
    }
    if let Some(index) = &r.index {
        println!("  {}", reindex(index));
    }
    println!();
    print_next(&v.next);
    if !v.recorded {
        println!("printed only, not recorded");
    }
    print_head(v.event_head.as_deref());
}
