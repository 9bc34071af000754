//! What a swept command starts from, and what must be true of it at any moment and at the end.

use serde_json::Value;

use crate::support::judge::count_on;
use crate::support::{Db, Judge, NEW, OLD, Outcome, Rekey, status};

/// Rows of every kind that a run tells apart.
pub const ON_OLD: i64 = 150;
pub const NULLS: i64 = 6;
pub const ON_NEW: i64 = 3;

/// A command about to be swept.
pub struct Scene {
    pub db: Db,
    pub judge: Judge,
    /// Rows on the new key before rekey came.
    pub on_new_before: i64,
    /// The command, ready to be started, and started again.
    pub command: Box<dyn Fn(&Db) -> Rekey>,
    /// Its exit code where it reaches its goal.
    pub ends: i32,
    /// Its exit code once its goal is reached already.
    pub again: i32,
    /// Asserts what holds at every moment, beside the rows.
    pub always: Box<dyn Fn(&Db)>,
    /// Asserts the command's goal.
    pub goal: Box<dyn Fn(&mut Scene)>,
}

impl Scene {
    /// True at every moment: no row is lost, no IV used twice, and what is counted is what is moved.
    #[track_caller]
    pub fn holds(&mut self, after: &Outcome) {
        after.says_none_of(&[OLD, NEW]);
        self.judge.none_lost(&self.db, &[OLD, NEW]);
        // Somebody may be at work: then look until nothing was committed while looking.
        let (mut before, mut moved, mut now) = (0, 0, 1);
        while before != now {
            before = counted(&self.db);
            moved = count_on(&self.db, NEW) as i64 - self.on_new_before;
            now = counted(&self.db);
        }
        assert_eq!(now, moved, "what is counted is what is moved, after\n{after}");
        (self.always)(&self.db);
    }

    /// The goal is reached.
    #[track_caller]
    pub fn reached(&mut self) {
        let goal = std::mem::replace(&mut self.goal, Box::new(|_| ()));
        goal(self);
        self.goal = goal;
    }
}

/// Rows moved forward less rows moved back, as the ledger has it.
fn counted(db: &Db) -> i64 {
    if !db.value::<bool>("SELECT to_regclass('rekey.chain') IS NOT NULL") {
        return 0;
    }
    db.value(
        "SELECT coalesce(sum(c.re_encrypted * CASE p.direction WHEN 'forward' THEN 1 ELSE -1 END), 0)::bigint
         FROM rekey.chunks c JOIN rekey.passes p USING (rotation, pass)",
    )
}

/// Every total that `status` shows is this.
#[track_caller]
pub fn totals_are(db: &Db, wanted: &[(&str, i64)]) -> Value {
    let status = status(db);
    for (name, rows) in wanted {
        assert_eq!(status["totals"][name], *rows, "{name} in {status:#}");
    }
    status
}

/// `rekey ARGUMENTS` in steps so small that a few rows make many, with leases that run out soon.
pub fn in_steps<const N: usize>(command: Rekey, arguments: [&str; N]) -> Rekey {
    let steps = ["--chunk-rows", "60", "--batch-rows", "25", "--lease-ttl", "5s", "--retry-for", "20s"];
    command.args(arguments).args(steps)
}
