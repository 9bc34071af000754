//! Work options of the commands that re-encrypt rows: workers, batch size, deadline.

use std::time::Duration;

use clap::Args;

use super::throttle::ThrottleArgs;
use super::values::{deadline, duration};
use crate::cli::variables::naming;
use crate::error::Result;
use crate::jobs::work::WorkRequest;
use crate::rotation::Deadline;
use crate::store::preflight::Allowed;

/// Workers, batch size, deadline and allowed findings.
#[derive(Args, Clone)]
#[command(next_help_heading = "Work")]
pub struct WorkArgs {
    /// Workers in this process
    #[arg(long, env = "REKEY_WORKERS", hide_env_values = true, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64), value_name = "N")]
    pub workers: u16,
    /// Rows that a worker leases at a time [default: 12k to 48k, by rows per page and bytes]
    #[arg(long, env = "REKEY_CHUNK_ROWS", hide_env_values = true, value_parser = clap::value_parser!(u32).range(1..=1_000_000), value_name = "N")]
    pub chunk_rows: Option<u32>,
    /// Maximum rows per transaction; reduced above two workers in total
    #[arg(long, env = "REKEY_BATCH_ROWS", hide_env_values = true, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=5000), value_name = "N")]
    pub batch_rows: u32,
    /// Target time for a batch to hold its row locks
    #[arg(long, env = "REKEY_LOCK_TARGET", hide_env_values = true, default_value = "50ms", value_parser = duration, value_name = "DURATION")]
    pub lock_target: Duration,
    /// Stop after this duration or at this RFC 3339 time: save a checkpoint, exit 9
    #[arg(long, env = "REKEY_DEADLINE", hide_env_values = true, value_parser = deadline, value_name = "WHEN")]
    pub deadline: Option<Deadline>,
    /// Maximum sweeps for rows that writers keep saving under the wrong key
    #[arg(long, env = "REKEY_MAX_SWEEPS", hide_env_values = true, default_value_t = 40, value_name = "N")]
    pub max_sweeps: i32,
    /// Allow a refused preflight finding by name; repeatable
    #[arg(long, env = "REKEY_ALLOW", hide_env_values = true, value_name = "FINDING", value_delimiter = ',')]
    pub allow: Vec<String>,
    #[command(flatten)]
    pub throttle: ThrottleArgs,
}

impl WorkArgs {
    /// The request for a job. Refuses unknown findings, and findings that can't be allowed.
    pub fn request(&self) -> Result<WorkRequest> {
        Ok(WorkRequest {
            workers: self.workers,
            chunk_rows: self.chunk_rows,
            batch_rows: self.batch_rows,
            lock_target: self.lock_target,
            deadline: self.deadline,
            max_sweeps: self.max_sweeps,
            allowed: naming("--allow", Allowed::parse(&self.allow))?,
            limits: self.throttle.limits(),
        })
    }
}
