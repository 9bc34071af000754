//! What the seed decides: each blow, each process and each write by its number alone, whatever came of those before.
//! When things happen, and what is there to be hit by then, is not decided here.

use std::time::Duration;

use crate::support::{Random, Stop};

/// What is decided. Each has random numbers of its own.
#[derive(Clone, Copy)]
pub enum Of {
    Blows = 1,
    Processes,
    Writes,
}

/// The random numbers for the `number`-th of its kind.
pub fn random(seed: u64, of: Of, number: u64) -> Random {
    let first = Random::new(seed ^ ((of as u64) << 56)).bits();
    Random::new(first.wrapping_add(number))
}

/// One blow, and what comes before it.
#[derive(Debug)]
pub struct Blow {
    /// Everything is brought to its end first.
    pub end: bool,
    /// The direction is turned first, if rows move forward.
    pub turn: bool,
    /// How many processes are to be at work.
    pub wanted: usize,
    /// How long they work before the blow.
    pub pause: Duration,
    pub kind: Kind,
    /// Which one is hit, modulo how many there are, and how long a short freeze is.
    pub choice: u64,
}

/// What is done.
#[derive(Debug)]
pub enum Kind {
    KillOne,
    KillAll,
    AskToStop,
    FreezeOrThaw,
    Restart(Stop),
    KillBackend,
}

/// The blow with this number, counted from 0.
pub fn plan(seed: u64, number: u64) -> Blow {
    let mut random = random(seed, Of::Blows, number);
    Blow {
        // Chance alone would now and then leave it out for hundreds of blows.
        end: random.below(60) == 0 || number % 150 == 149,
        turn: random.below(30) == 0,
        wanted: 1 + random.below(4) as usize,
        pause: {
            let longest = if random.below(8) == 0 { 1200 } else { 400 };
            Duration::from_millis(random.below(longest))
        },
        kind: match random.below(100) {
            0..37 => Kind::KillOne,
            37..68 => Kind::KillAll,
            68..79 => Kind::AskToStop,
            79..94 => Kind::FreezeOrThaw,
            94..96 => Kind::Restart(Stop::Immediate),
            96..98 => Kind::Restart(Stop::Kill),
            _ => Kind::KillBackend,
        },
        choice: random.bits(),
    }
}
