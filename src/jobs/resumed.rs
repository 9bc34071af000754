//! What a process that resumes or joins a rotation logs first: how far the rotation is, who works on it, and whose lease
//! may be waited for. Decides nothing.

use std::time::Duration;

use sqlx::PgConnection;

use super::Session;
use crate::error::Result;
use crate::rotation::{Counters, Direction};
use crate::store::ledger::process::{self, Process};
use crate::store::ledger::{Rotation, pass};
use crate::store::waits::{self, Leased};
use crate::telemetry::progress::thousands;

/// A process that works says so at least once a second.
const HEARD_OF: Duration = Duration::from_secs(2);

/// Logs it.
pub async fn tell(
    session: &Session,
    conn: &mut PgConnection,
    rotation: &Rotation,
    direction: Direction,
    totals: &Counters,
) -> Result<()> {
    let pass = pass::latest(conn, rotation.id, direction).await?;
    let expected = match pass.filter(|pass| pass.first && pass.outcome.is_none()) {
        Some(pass) => Some(pass::extent(conn, &pass).await?.rows(pass.addressing, totals)),
        None => None,
    };
    let processes = process::alive(conn, rotation.id, session.lease_ttl.as_secs_f64()).await?;
    let at_work = |p: &&Process| p.seen_seconds_ago < HEARD_OF.as_secs_f64() && p.process != session.process;
    let others = processes.iter().filter(at_work).count();
    let leased = waits::leases(conn, rotation.id, &session.process).await?;
    let what = match direction {
        Direction::Forward => rotation.id.to_string(),
        Direction::Backward => format!("the rollback of {}", rotation.id),
    };
    tracing::info!("{}", said(&what, totals.settled(), expected, others, &leased));
    Ok(())
}

/// `resuming 01a2…: 32 164 of about 80 200 rows; waiting at most 27 s for the lease of vm-32359-… (silent)`.
fn said(what: &str, done: i64, expected: Option<i64>, others: usize, leased: &[Leased]) -> String {
    let verb = if others > 0 { "joining" } else { "resuming" };
    let rows = match expected {
        Some(expected) => format!("{} of about {} rows", thousands(done), thousands(expected.max(done))),
        None => format!("{} rows", thousands(done)),
    };
    let mut said = format!("{verb} {what}: {rows}");
    match others {
        0 => {}
        1 => said.push_str("; 1 other process at work"),
        n => said.push_str(&format!("; {n} other processes at work")),
    }
    // A process at work gives its leases back by itself; one that is silent keeps them until they expire.
    let silent = leased.iter().filter(|leased| leased.silent.is_none_or(|silent| silent >= HEARD_OF));
    if let Some(Leased { process, free_in, .. }) = silent.max_by_key(|leased| leased.free_in) {
        let seconds = free_in.as_secs_f64().ceil() as i64;
        said.push_str(&format!("; waiting at most {seconds} s for the lease of {process} (silent)"));
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_it_is_and_whose_lease_it_may_wait_for() {
        let lease = |process: &str, silent: u64, free_in| Leased {
            process: process.to_owned(),
            silent: Some(Duration::from_secs(silent)),
            free_in: Duration::from_millis(free_in),
        };
        assert_eq!(
            said("01a2", 32_164, Some(80_200), 0, &[lease("vm-1", 3, 26_300), lease("vm-2", 20, 9_000)]),
            "resuming 01a2: 32 164 of about 80 200 rows; waiting at most 27 s for the lease of vm-1 (silent)"
        );
        assert_eq!(
            said("01a2", 500, Some(400), 2, &[lease("vm-1", 1, 26_300)]),
            "joining 01a2: 500 of about 500 rows; 2 other processes at work"
        );
        assert_eq!(said("the rollback of 01a2", 7, None, 0, &[]), "resuming the rollback of 01a2: 7 rows");
    }
}
