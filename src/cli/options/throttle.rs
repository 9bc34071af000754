//! How far the database may be burdened: one limit a signal, each with a default, each of them can be `off`.

use std::str::FromStr;
use std::time::Duration;

use clap::Args;

use super::values::duration;
use crate::rotation::throttle::Limits;
use crate::rotation::{Rate, Window};

/// `off`, or a limit.
#[derive(Clone, Copy, Debug)]
pub struct Limit<T>(Option<T>);

/// Limits of `run`, `rollback` and `quarantine retry`.
#[derive(Args, Clone)]
#[command(
    next_help_heading = "Throttle (rekey slows down from half of a limit and waits at the limit; `off` \
        disables one)"
)]
pub struct ThrottleArgs {
    /// Work only during these hours, such as "01:00-05:00 Europe/Berlin"; the default zone is UTC
    #[arg(long, env = "REKEY_WINDOW", hide_env_values = true, value_parser = Window::parse, value_name = "HH:MM-HH:MM ZONE")]
    pub window: Option<Window>,
    /// Maximum rows per second that this process writes
    #[arg(long, env = "REKEY_MAX_RATE", hide_env_values = true, value_parser = rate, value_name = "ROWS/S")]
    pub max_rate: Option<Rate>,
    /// Maximum replica lag in time
    #[arg(long, env = "REKEY_MAX_REPLICA_LAG", hide_env_values = true, default_value = "10s", value_parser = time, value_name = "DURATION")]
    pub max_replica_lag: Limit<Duration>,
    /// Maximum replica lag in WAL
    #[arg(long, env = "REKEY_MAX_REPLICA_LAG_BYTES", hide_env_values = true, default_value = "256MiB", value_parser = size, value_name = "SIZE")]
    pub max_replica_lag_bytes: Limit<u64>,
    /// Ignore the lag of this replica (application_name), such as a delayed one; repeatable
    #[arg(
        long,
        env = "REKEY_IGNORE_REPLICA",
        hide_env_values = true,
        value_delimiter = ',',
        value_name = "NAME"
    )]
    pub ignore_replica: Vec<String>,
    /// Maximum WAL that a replication slot may retain
    #[arg(long, env = "REKEY_MAX_SLOT_WAL", hide_env_values = true, default_value = "4GiB", value_parser = size, value_name = "SIZE")]
    pub max_slot_wal: Limit<u64>,
    /// Maximum age of a replication slot's xmin, in transactions
    #[arg(long, env = "REKEY_MAX_SLOT_XMIN_AGE", hide_env_values = true, default_value = "1000000", value_parser = count::<u64>, value_name = "N")]
    pub max_slot_xmin_age: Limit<u64>,
    /// Maximum WAL waiting to be archived; while archiving fails, rekey pauses after every batch
    #[arg(long, env = "REKEY_MAX_ARCHIVE_BACKLOG", hide_env_values = true, default_value = "1GiB", value_parser = size, value_name = "SIZE")]
    pub max_archive_backlog: Limit<u64>,
    /// Maximum sessions waiting for rekey's locks; above it, rekey pauses longer and longer
    #[arg(long, env = "REKEY_MAX_BLOCKED_SESSIONS", hide_env_values = true, default_value = "4", value_parser = count::<u32>, value_name = "N")]
    pub max_blocked_sessions: Limit<u32>,
    /// Maximum PostgreSQL checkpoints per minute forced by WAL; above it, rekey pauses longer and longer
    #[arg(long, env = "REKEY_MAX_CHECKPOINTS", hide_env_values = true, default_value = "60", value_parser = count::<u32>, value_name = "N")]
    pub max_checkpoints: Limit<u32>,
}

impl ThrottleArgs {
    /// The limits as given; `--allow` and the direction of the work may take some off.
    pub fn limits(&self) -> Limits {
        Limits {
            replica_bytes: self.max_replica_lag_bytes.0,
            replica_delay: self.max_replica_lag.0,
            ignored_replicas: self.ignore_replica.clone(),
            slot_bytes: self.max_slot_wal.0,
            slot_xmin_age: self.max_slot_xmin_age.0,
            archive_bytes: self.max_archive_backlog.0,
            blocked_sessions: self.max_blocked_sessions.0,
            checkpoints_a_minute: self.max_checkpoints.0,
            window: self.window.clone(),
            max_rate: self.max_rate,
            allow_unreadable: false,
        }
    }
}

/// `None` for `off`, or what `read` makes of it.
fn or_off<T>(text: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Result<Limit<T>, String> {
    if text == "off" { Ok(Limit(None)) } else { read(text).map(|limit| Limit(Some(limit))) }
}

fn time(text: &str) -> Result<Limit<Duration>, String> {
    or_off(text, duration)
}

fn count<T: FromStr>(text: &str) -> Result<Limit<T>, String> {
    or_off(text, |text| text.parse().map_err(|_| "write a number, or off".to_owned()))
}

fn rate(text: &str) -> Result<Rate, String> {
    let rate = text.parse::<u32>().ok().and_then(|rate| Rate::new(rate.into()));
    rate.ok_or_else(|| "write rows per second as a whole number, at least 1".to_owned())
}

/// Bytes; the units are PostgreSQL's, of 1024 each.
fn size(text: &str) -> Result<Limit<u64>, String> {
    or_off(text, |text| {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let shift = match unit.trim_start().to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "kb" | "kib" | "k" => 10,
            "mb" | "mib" | "m" => 20,
            "gb" | "gib" | "g" => 30,
            "tb" | "tib" | "t" => 40,
            _ => u32::MAX,
        };
        let bytes = number.parse::<u64>().ok().and_then(|n| n.checked_mul(1u64.checked_shl(shift)?));
        bytes.ok_or_else(|| "write a size like 512kB, 64MiB or 4GiB, or off".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let bytes = |text| size(text).map(|limit| limit.0);
        assert_eq!(bytes("off"), Ok(None));
        assert_eq!(bytes("17"), Ok(Some(17)));
        assert_eq!(bytes("16MB"), Ok(Some(16 << 20)));
        assert_eq!(bytes("2 GiB"), Ok(Some(2 << 30)));
        for text in ["", "MB", "-1", "1.5GB", "1XB", "99999999999TB", "MB1"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates() {
        assert_eq!(rate("500").map(Rate::rows_per_second), Ok(500.0));
        assert!(["0", "-1", "1.5", "", "fast"].into_iter().all(|text| rate(text).is_err()));
    }
}
