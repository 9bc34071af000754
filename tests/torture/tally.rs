//! What was done so far, and the line that says so.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::plan::{Blow, plan};
use crate::support::Stop;

/// After so many crashes of the server, one of them has handed transaction ids out again, or none can.
const ENOUGH_CRASHES: u64 = 50;

/// Counts of everything done.
pub struct Tally {
    seed: u64,
    started: Instant,
    /// Blows begun. Each is followed by one check, however many processes it killed.
    blows: u64,
    pub killed: u64,
    pub asked: u64,
    pub frozen: u64,
    immediate: u64,
    postmasters: u64,
    pub backends: u64,
    /// Transaction ids that were in use before a crash and free after it.
    pub used_again: u64,
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
            blows: 0,
            killed: 0,
            asked: 0,
            frozen: 0,
            immediate: 0,
            postmasters: 0,
            backends: 0,
            used_again: 0,
            checks: 0,
            turns: 0,
            ends: 0,
            exits: BTreeMap::new(),
            finished: false,
        }
    }

    pub fn next_blow(&mut self) -> Blow {
        self.blows += 1;
        plan(self.seed, self.blows - 1)
    }

    /// Everything that ends a process or a server; freezing is counted apart.
    pub fn kills(&self) -> u64 {
        self.killed + self.asked + self.crashes()
    }

    fn crashes(&self) -> u64 {
        self.immediate + self.postmasters + self.backends
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

    /// Everything held. `lost` of the application's `writes` were lost by crashes, as they may be.
    pub fn done(mut self, writes: u64, lost: u64) {
        let tested = self.used_again > 0 || self.crashes() < ENOUGH_CRASHES;
        assert!(tested, "no crash handed transaction ids out again: this tests nothing");
        self.finished = true;
        println!("{self}, {writes} writes of the application, {lost} of them lost by crashes: 0 faults");
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "seed {}: {} kills in {} blows (SIGKILL {}, up to four at once; SIGTERM {}, server immediate {}, \
             postmaster {}, backend {}), {} transaction ids used again, {} freezes, {} checks (one a blow, two an \
             end), {} turns, {} ends, in {} s; exits by themselves: {:?}",
            self.seed,
            self.kills(),
            self.blows,
            self.killed,
            self.asked,
            self.immediate,
            self.postmasters,
            self.backends,
            self.used_again,
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
            let blow = self.blows.saturating_sub(1);
            eprintln!("FAULT at blow {blow}, {:?}, after {self}", plan(self.seed, blow));
        }
    }
}
