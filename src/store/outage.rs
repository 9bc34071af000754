//! A database that is away, told in a few lines however often it is tried: that it went, every so often for how long
//! and how often it was tried, and that it is back. All workers of a process share one of these.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::error::{Class, StoreError};

/// Between two lines about the same trouble.
const TELL_EVERY: Duration = Duration::from_secs(15);

/// What is wrong at present, if anything.
#[derive(Debug, Default)]
pub struct Outage(Mutex<Option<Trouble>>);

#[derive(Debug)]
struct Trouble {
    since: Instant,
    told: Instant,
    attempts: u32,
    /// SQLSTATE; none for a connection that could not be made, or went away.
    sqlstate: Option<String>,
    /// It ends with the next connection; other trouble ends with the next piece of work.
    unreachable: bool,
}

/// What is to be said of one more failure.
#[derive(Debug, PartialEq, Eq)]
enum Say {
    /// The error: this trouble is new.
    News,
    /// That it goes on.
    Still { attempts: u32, seconds: u64 },
    /// Nothing.
    Nothing,
}

impl Outage {
    /// No connection could be made; it is tried for `left` longer.
    pub(super) fn unreachable(&self, server: &str, error: &StoreError, left: Duration) {
        let seconds_left = left.as_secs();
        match self.count(error.sqlstate(), true, Instant::now()) {
            Say::News => tracing::warn!(server, %error, seconds_left, "Database unreachable; retrying"),
            Say::Still { attempts, seconds } => {
                tracing::warn!(attempts, seconds, seconds_left, "Database still unreachable; retrying");
            }
            Say::Nothing => tracing::debug!(server, %error, seconds_left, "Database unreachable; retrying"),
        }
    }

    /// Work under way failed, and is done again.
    pub fn interrupted(&self, error: &StoreError) {
        let sqlstate = error.sqlstate();
        let lost = error.class() == Class::ConnectionLost;
        match self.count(sqlstate.clone(), lost, Instant::now()) {
            Say::News => tracing::warn!(%error, sqlstate, "retrying"),
            Say::Still { attempts, seconds } => {
                tracing::warn!(%error, sqlstate, attempts, seconds, "Still retrying");
            }
            Say::Nothing => tracing::debug!(%error, sqlstate, "retrying"),
        }
    }

    /// A connection stands.
    pub(super) fn connected(&self) {
        self.end(|trouble| trouble.unreachable);
    }

    /// A piece of work is done.
    pub fn worked(&self) {
        self.end(|_| true);
    }

    /// For how long the database has been unreachable, and how often it was tried since.
    pub fn lasting(&self) -> Option<(Duration, u32)> {
        let trouble = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let away = trouble.as_ref().filter(|trouble| trouble.unreachable)?;
        Some((away.since.elapsed(), away.attempts))
    }

    fn count(&self, sqlstate: Option<String>, unreachable: bool, now: Instant) -> Say {
        let mut trouble = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match trouble.as_mut() {
            Some(known) if known.unreachable && unreachable || known.sqlstate == sqlstate => {
                known.attempts += 1;
                known.unreachable |= unreachable;
                if now.duration_since(known.told) < TELL_EVERY {
                    return Say::Nothing;
                }
                known.told = now;
                let seconds = now.duration_since(known.since).as_secs();
                Say::Still { attempts: known.attempts, seconds }
            }
            _ => {
                *trouble = Some(Trouble { since: now, told: now, attempts: 1, sqlstate, unreachable });
                Say::News
            }
        }
    }

    fn end(&self, ends: impl Fn(&Trouble) -> bool) {
        let ended = self.0.lock().unwrap_or_else(PoisonError::into_inner).take_if(|trouble| ends(trouble));
        let Some(Trouble { since, attempts, unreachable, .. }) = ended else { return };
        let seconds = since.elapsed().as_secs();
        if unreachable {
            tracing::info!(attempts, seconds, "Database reachable again");
        } else {
            tracing::debug!(attempts, seconds, "Working again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_one_line_that_counts() {
        let outage = Outage::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(outage.count(None, true, at(0)), Say::News);
        // Each of the workers, and each way in which the server says that it is away.
        for (sqlstate, seconds) in [(None, 0), (Some("57P03"), 1), (None, 14)] {
            assert_eq!(outage.count(sqlstate.map(str::to_owned), true, at(seconds)), Say::Nothing);
        }
        assert_eq!(outage.count(None, true, at(15)), Say::Still { attempts: 5, seconds: 15 });
        assert_eq!(outage.count(None, true, at(16)), Say::Nothing);
        assert_eq!(outage.lasting().map(|(_, attempts)| attempts), Some(6));
        outage.connected();
        assert!(outage.lasting().is_none());
        assert_eq!(outage.count(None, true, at(17)), Say::News);
    }

    #[test]
    fn other_trouble_is_told_once_too_and_lasts_until_work_is_done() {
        let outage = Outage::default();
        let now = Instant::now();
        let full = || Some("53100".to_owned());
        assert_eq!(outage.count(full(), false, now), Say::News);
        outage.connected();
        assert_eq!(outage.count(full(), false, now), Say::Nothing);
        assert!(outage.lasting().is_none());
        assert_eq!(outage.count(Some("40P01".to_owned()), false, now), Say::News);
        outage.worked();
        assert_eq!(outage.count(full(), false, now), Say::News);
    }
}
