//! What was done so far, and the line that says so.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::support::Stop;

/// Counts of everything done.
pub struct Tally {
    seed: u64,
    started: Instant,
    pub killed: u64,
    pub asked: u64,
    pub frozen: u64,
    immediate: u64,
    postmasters: u64,
    pub backends: u64,
    pub checks: u64,
    pub turns: u64,
    pub ends: u64,
    /// How processes ended that were not killed.
    pub exits: BTreeMap<String, u64>,
    finished: bool,
}

impl Tally {
    pub fn new(seed: u64) -> Tally {
        Tally {
            seed,
            started: Instant::now(),
            killed: 0,
            asked: 0,
            frozen: 0,
            immediate: 0,
            postmasters: 0,
            backends: 0,
            checks: 0,
            turns: 0,
            ends: 0,
            exits: BTreeMap::new(),
            finished: false,
        }
    }

    /// Everything that ends a process or a server; freezing is counted apart.
    pub fn kills(&self) -> u64 {
        self.killed + self.asked + self.immediate + self.postmasters + self.backends
    }

    pub fn server(&mut self, how: Stop) {
        match how {
            Stop::Kill => self.postmasters += 1,
            _ => self.immediate += 1,
        }
    }

    pub fn exited(&mut self, command: &str, code: i32) {
        *self.exits.entry(format!("{command} {code}")).or_default() += 1;
    }

    /// Everything held.
    pub fn done(mut self, writes: u64) {
        self.finished = true;
        println!("{self}, {writes} writes of the application: 0 faults");
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "seed {}: {} kills (SIGKILL {}, SIGTERM {}, server immediate {}, postmaster {}, backend {}), {} freezes, \
             {} checks, {} turns, {} ends, in {} s; exits by themselves: {:?}",
            self.seed,
            self.kills(),
            self.killed,
            self.asked,
            self.immediate,
            self.postmasters,
            self.backends,
            self.frozen,
            self.checks,
            self.turns,
            self.ends,
            self.started.elapsed().as_secs(),
            self.exits
        )
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        if !self.finished {
            eprintln!("FAULT after {self}");
        }
    }
}
