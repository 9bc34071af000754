//! A state machine: generated lists of what an operator, the application and bad luck may do to one rotation, run with
//! the real binary on a real PostgreSQL, and compared after every step with a model that knows what each row must hold.
//!
//! A list that fails is shrunk, and printed. `REKEY_MODEL_SEQUENCES` says how many lists (default 10), `REKEY_MODEL_SEED`
//! which ones: the same seed gives the same lists, though not the same moments.

mod machine;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::support::Cluster;
use machine::Machine;

/// One thing that happens. Rows are named by a number that is taken modulo how many there are.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A run begins and goes on beside what follows. At most three at a time.
    Start {
        workers: u8,
        batch: u8,
    },
    /// SIGKILL for one of them, so many milliseconds later.
    Kill {
        after: u8,
    },
    /// SIGTERM for one of them; it ends in time.
    Term,
    /// A run to its end.
    Finish,
    Pause,
    Resume,
    Abort,
    /// Rolled back to the end.
    Rollback,
    /// A rollback, killed so many milliseconds later.
    RollbackKilled {
        after: u8,
    },
    Verify,
    /// The new key is made current in the dotenv file that the application reads, if the rows are all on it.
    Promote,
    /// The server dies and comes back: commits that did not wait for the disk are lost.
    Crash,
    /// The server ends all sessions that are not ours.
    DropConnections,
    /// The table is rewritten: every row moves, no xmin changes.
    Rewrite,
    /// The application saves a new credential under a key.
    Refresh {
        row: u8,
        new_key: bool,
    },
    /// The application saves a row as it was loaded before everything.
    StaleSave {
        row: u8,
    },
    /// The application changes another column.
    Touch {
        row: u8,
    },
    Insert {
        new_key: bool,
    },
    Delete {
        row: u8,
    },
    /// The credential is removed.
    Disconnect {
        row: u8,
    },
    /// Bytes that no key opens.
    Damage {
        row: u8,
    },
    /// All damaged rows are restored, under the old key.
    Repair,
}

fn step() -> impl Strategy<Value = Step> {
    let row = any::<u8>;
    prop_oneof![
        4 => (1..4_u8, 5..60_u8).prop_map(|(workers, batch)| Step::Start { workers, batch }),
        3 => row().prop_map(|after| Step::Kill { after }),
        1 => Just(Step::Term),
        2 => Just(Step::Finish),
        1 => Just(Step::Pause),
        2 => Just(Step::Resume),
        1 => Just(Step::Abort),
        1 => Just(Step::Rollback),
        1 => row().prop_map(|after| Step::RollbackKilled { after }),
        1 => Just(Step::Verify),
        2 => Just(Step::Promote),
        1 => Just(Step::Crash),
        1 => Just(Step::DropConnections),
        1 => Just(Step::Rewrite),
        2 => (row(), any::<bool>()).prop_map(|(row, new_key)| Step::Refresh { row, new_key }),
        3 => row().prop_map(|row| Step::StaleSave { row }),
        1 => row().prop_map(|row| Step::Touch { row }),
        2 => any::<bool>().prop_map(|new_key| Step::Insert { new_key }),
        1 => row().prop_map(|row| Step::Delete { row }),
        1 => row().prop_map(|row| Step::Disconnect { row }),
        1 => row().prop_map(|row| Step::Damage { row }),
        1 => Just(Step::Repair),
    ]
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn whatever_happens_every_row_is_what_the_model_says() {
    let seed = from_environment("REKEY_MODEL_SEED", 6);
    let cases = from_environment("REKEY_MODEL_SEQUENCES", 10) as u32;
    let config = Config { cases, max_shrink_iters: 24, failure_persistence: None, ..Config::default() };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    // Its own: it is made to crash. Commits that do not wait for the disk stay in memory for long.
    let cluster = Cluster::with("wal_writer_delay = '2s'\nwal_writer_flush_after = '1GB'");
    let steps = prop::collection::vec(step(), 4..12);
    let result = runner.run(&steps, |steps| {
        // Printed only where the test fails, and then the last list is the one to look at.
        println!("seed {seed}: {steps:?}");
        let mut machine = Machine::new(&cluster);
        for (n, step) in steps.iter().enumerate() {
            machine.take(n, *step);
        }
        machine.settle();
        Ok(())
    });
    if let Err(error) = result {
        panic!("REKEY_MODEL_SEED={seed}: {error}");
    }
}
