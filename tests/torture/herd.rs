//! One to four rekey processes at a time, and what is done to them.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::plan::{Of, random};
use crate::support::{Db, Rekey, Running, rekey};
use crate::tally::Tally;

/// Frozen for longer than this, a process has lost its leases, and its transactions.
const PAST_THE_LEASE: Duration = Duration::from_millis(2600);

/// Whoever is asked to stop has ended by then: ten seconds (docs/design.md), and what a busy machine adds.
const TO_STOP: Duration = Duration::from_secs(30);

/// Which way rows are to move.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Direction {
    Forward,
    Backward,
}

impl Direction {
    pub fn turned(self) -> Direction {
        match self {
            Direction::Forward => Direction::Backward,
            Direction::Backward => Direction::Forward,
        }
    }

    /// The word in rekey's tables.
    pub fn word(self) -> &'static str {
        match self {
            Direction::Forward => "forward",
            Direction::Backward => "backward",
        }
    }
}

/// The command that moves rows this way.
pub fn command(db: &Db, direction: Direction) -> Rekey {
    let command = match direction {
        Direction::Forward => rekey(db, ["run"]),
        Direction::Backward => rekey(db, ["rollback", "--yes"]),
    };
    command.args(["--allow", "user-triggers", "--lease-ttl", "2s", "--max-sweeps", "6"])
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Task {
    Move(Direction),
    Verify,
    Status,
}

struct Process {
    task: Task,
    running: Running,
    frozen: Option<Instant>,
}

/// The processes at work.
pub struct Herd {
    at_work: Vec<Process>,
    seed: u64,
    /// Processes ever started.
    started: u64,
}

impl Herd {
    pub fn new(seed: u64) -> Herd {
        Herd { at_work: Vec::new(), seed, started: 0 }
    }

    /// Starts processes until there are `wanted`. What the n-th is told to do is the seed's to say.
    pub fn fill(&mut self, db: &Db, wanted: usize, direction: Direction) {
        while self.at_work.len() < wanted {
            let mut random = random(self.seed, Of::Processes, self.started);
            self.started += 1;
            let task = match random.below(20) {
                0 => Task::Verify,
                1 => Task::Status,
                _ => Task::Move(direction),
            };
            let workers = (1 + random.below(3)).to_string();
            let (chunk, batch) = ((40 + random.below(300)).to_string(), (8 + random.below(60)).to_string());
            let command = match task {
                Task::Verify => rekey(db, ["verify", "--output", "json"]),
                Task::Status => rekey(db, ["status", "--output", "json"]),
                Task::Move(direction) => {
                    let steps = ["--workers", &workers, "--chunk-rows", &chunk, "--batch-rows", &batch];
                    command(db, direction).args(steps)
                }
            };
            self.at_work.push(Process { task, running: command.start(), frozen: None });
        }
    }

    /// Takes away those that have ended by themselves; whether one of them had reached the goal.
    pub fn reap(&mut self, direction: Direction, tally: &mut Tally) -> bool {
        let mut reached = false;
        let mut at_work = Vec::new();
        for mut process in self.at_work.drain(..) {
            if process.frozen.is_some() || process.running.running() {
                at_work.push(process);
                continue;
            }
            let task = process.task;
            let outcome = process.running.wait();
            // Goal reached, writers kept writing, the state is another by now, somebody is at it, stopped, no server.
            let known: &[i32] = match task {
                Task::Move(_) => &[0, 6, 7, 8, 69, 75],
                Task::Verify => &[0, 6, 7, 8, 69],
                Task::Status => &[0, 69],
            };
            let code = outcome.code().unwrap_or(-1);
            assert!(known.contains(&code), "{outcome}");
            // Beside a run, a sweep, a rollback or a restart: none of them writes other bytes than it read.
            if task == Task::Verify && [0, 6].contains(&code) {
                assert_eq!(outcome.json()["other_bytes"], 0, "{outcome}");
            }
            tally.exited(outcome.title.split(' ').next().unwrap_or_default(), code);
            reached |= task == Task::Move(direction) && code == 0;
        }
        self.at_work = at_work;
        reached
    }

    /// SIGKILL to one, frozen or not.
    pub fn kill_one(&mut self, choice: u64, tally: &mut Tally) {
        if !self.at_work.is_empty() {
            let process = self.at_work.swap_remove(choice as usize % self.at_work.len());
            kill(process, tally);
        }
    }

    /// SIGKILL to all in the same moment.
    pub fn kill_all(&mut self, tally: &mut Tally) {
        self.at_work.iter().for_each(|process| process.running.signal(Signal::KILL));
        self.at_work.drain(..).for_each(|process| kill(process, tally));
    }

    /// SIGTERM to one that can hear it: it saves its checkpoint and ends.
    pub fn ask_to_stop(&mut self, choice: u64, tally: &mut Tally) {
        let awake: Vec<usize> =
            (0..self.at_work.len()).filter(|n| self.at_work[*n].frozen.is_none()).collect();
        if awake.is_empty() {
            return;
        }
        let process = self.at_work.swap_remove(awake[choice as usize % awake.len()]);
        process.running.signal(Signal::TERM);
        let outcome = process.running.wait_for(TO_STOP);
        tally.asked += 1;
        // It had come to its end by itself, or it listened: the signal was not sent before.
        let code = outcome.code().unwrap_or(-1);
        assert!([0, 6, 7, 8, 69, 75].contains(&code), "{outcome}");
        tally.exited(&format!("asked {}", outcome.title.split(' ').next().unwrap_or_default()), code);
    }

    /// SIGSTOP to one, for a moment or past its lease; or SIGCONT to one that has been frozen for long enough.
    pub fn freeze_or_thaw(&mut self, choice: u64, tally: &mut Tally) {
        for process in &mut self.at_work {
            if process.frozen.is_some_and(|since| since.elapsed() > PAST_THE_LEASE) {
                process.running.signal(Signal::CONT);
                process.frozen = None;
            }
        }
        if self.at_work.is_empty() {
            return;
        }
        let index = choice as usize % self.at_work.len();
        let process = &mut self.at_work[index];
        if process.frozen.is_some() {
            return;
        }
        process.running.signal(Signal::STOP);
        tally.frozen += 1;
        if choice.is_multiple_of(3) {
            std::thread::sleep(Duration::from_millis(choice % 100));
            process.running.signal(Signal::CONT);
        } else {
            process.frozen = Some(Instant::now());
        }
    }
}

fn kill(process: Process, tally: &mut Tally) {
    let outcome = process.running.kill();
    match outcome.code() {
        None => tally.killed += 1,
        Some(code) => tally.exited(outcome.title.split(' ').next().unwrap_or_default(), code),
    }
}
