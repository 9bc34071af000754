//! Kills rekey, and the server under it, at random moments, again and again, while an application writes beside it.
//! After every blow the whole table is judged with cryptography of its own, and the counters are compared with what a
//! trigger saw moved. Forward runs, rollbacks, the turn between them, and verify come in turns.
//!
//! `scripts/torture --kills N --seed S`. The seed decides what is done in which order (plan.rs; `--seed S --plan N`
//! lists the first N blows); the moments are the machine's, and so is what is there to be hit. A fault ends it with a
//! panic that names the seed and the blow.

#[path = "../support/mod.rs"]
mod support;

mod application;
mod herd;
mod options;
mod plan;
mod tally;

use std::time::Duration;

use application::{Application, State};
use herd::{Direction, Herd};
use options::Options;
use plan::{Kind, plan};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::Connection as _;
use support::load::Load;
use support::{Cluster, Db, Judge, NEW, OLD, Stop, block_on, rekey, status, until};
use tally::Tally;

fn main() {
    let Some(options) = Options::parse() else { return };
    if let Some(blows) = options.plan {
        return (0..blows).for_each(|number| println!("{number}: {:?}", plan(options.seed, number)));
    }
    let mut torture = Torture::new(&options);
    let mut tally = Tally::new(options.seed);
    while tally.kills() < options.kills {
        torture.blow(&mut tally);
    }
    torture.end(&mut tally);
    let state = torture.application.pause();
    tally.done(state.writes, state.lost);
}

struct Torture {
    // Dropped first: it would wait for a server that is gone.
    application: Application,
    cluster: Cluster,
    db: Db,
    herd: Herd,
    direction: Direction,
}

impl Torture {
    fn new(options: &Options) -> Torture {
        let cluster = Cluster::start();
        let db = Db::on(&cluster);
        // Commits that do not wait for the disk stay in memory for long, and a crash loses many: their transaction
        // ids are used again.
        db.execute("ALTER SYSTEM SET wal_writer_delay = '2s'");
        db.execute("ALTER SYSTEM SET wal_writer_flush_after = '1GB'");
        db.execute("ALTER SYSTEM SET autovacuum_naptime = '3s'");
        db.execute("SELECT pg_reload_conf()");
        Load::rows(options.rows).mixed().nulls(4).seed(options.seed).into(&db);
        db.execute(
            "CREATE SCHEMA judge; CREATE TABLE judge.moves (id uuid);
             CREATE TABLE judge.earlier (rows bigint); INSERT INTO judge.earlier VALUES (0);
             CREATE TABLE judge.written (number bigint); INSERT INTO judge.written VALUES (0);
             CREATE FUNCTION judge.note() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN INSERT INTO judge.moves VALUES (NEW.id); RETURN NULL; END $$;
             CREATE TRIGGER note AFTER UPDATE ON provider_connections FOR EACH ROW
                 WHEN (current_setting('application_name') <> 'judge') EXECUTE FUNCTION judge.note()",
        );
        let judge = Judge::look(&db, &[OLD]);
        let application = Application::start(&db, judge, options.seed);
        Torture { cluster, db, application, herd: Herd::new(options.seed), direction: Direction::Forward }
    }

    /// Lets processes work for a moment, strikes, and looks at everything.
    fn blow(&mut self, tally: &mut Tally) {
        let blow = tally.next_blow();
        let reached = self.herd.reap(self.direction, tally);
        if blow.end {
            self.end(tally);
        } else if reached || (blow.turn && self.direction == Direction::Forward) {
            self.turn(tally);
        }
        self.herd.fill(&self.db, blow.wanted, self.direction);
        std::thread::sleep(blow.pause);
        match blow.kind {
            Kind::KillOne => self.herd.kill_one(blow.choice, tally),
            Kind::KillAll => self.herd.kill_all(tally),
            Kind::AskToStop => self.herd.ask_to_stop(blow.choice, tally),
            Kind::FreezeOrThaw => self.herd.freeze_or_thaw(blow.choice, tally),
            Kind::Restart(how) => self.restart(how, tally),
            Kind::KillBackend => self.kill_a_backend(blow.choice, tally),
        }
        let mut state = self.application.pause();
        self.check(&mut state, &[OLD, NEW]);
        tally.checks += 1;
    }

    fn turn(&mut self, tally: &mut Tally) {
        let begun =
            "SELECT EXISTS (SELECT FROM rekey.rotations WHERE state NOT IN ('finalized', 'rolled_back'))";
        if self.direction == Direction::Forward && !(self.has_ledger() && self.db.value::<bool>(begun)) {
            return;
        }
        if self.direction == Direction::Backward {
            // A rollback that has not looked yet would turn the next rotation round as well.
            self.herd.kill_all(tally);
        }
        self.direction = self.direction.turned();
        tally.turns += 1;
    }

    fn restart(&mut self, how: Stop, tally: &mut Tally) {
        let next = self.next_transaction();
        self.cluster.stop(how);
        tally.server(how);
        self.cluster.boot();
        tally.used_again += next - self.next_transaction().min(next);
    }

    /// The next transaction id that the server will hand out.
    fn next_transaction(&self) -> u64 {
        let next: i64 = self.db.value("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint");
        next as u64
    }

    /// A backend that dies takes every session with it: the server recovers from its log.
    fn kill_a_backend(&mut self, choice: u64, tally: &mut Tally) {
        let backends: Vec<i32> = self.db.column(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name <> 'judge'",
        );
        if backends.is_empty() {
            return;
        }
        let victim = backends[choice as usize % backends.len()];
        let next = self.next_transaction();
        // A session of our own tells when the others have been taken along.
        let mut mine = block_on(self.db.pool().acquire()).expect("a session");
        if kill_process(Pid::from_raw(victim).expect("a process id"), Signal::KILL).is_err() {
            return block_on(async { drop(mine) });
        }
        tally.backends += 1;
        // It may have been about to end by itself: then nothing happens. A postmaster that has little to run on takes its time.
        for _ in 0..4000 {
            if block_on(sqlx::query("SELECT 1").execute(&mut *mine)).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        block_on(async { drop(mine) });
        // A new session is let in once every old one is gone; one of the pool's may answer once more before it goes.
        until("the server to recover", support::SOON, || {
            block_on(async { sqlx::PgConnection::connect(&self.db.url).await?.close().await }).ok()
        });
        tally.used_again += next - self.next_transaction().min(next);
    }

    /// Every row opens to what the application last wrote; what is counted is what was moved.
    fn check(&self, state: &mut State, keys: &[&str]) {
        state.settle(&self.db);
        state.judge.none_lost(&self.db, keys);
        if self.has_ledger() {
            // One statement, one snapshot: they are equal at every instant.
            let uncounted: i64 = self.db.value(
                "SELECT (SELECT count(*) FROM judge.moves) + (SELECT sum(rows) FROM judge.earlier)::bigint
                     - (SELECT coalesce(sum(re_encrypted), 0) FROM rekey.chunks)::bigint",
            );
            assert_eq!(uncounted, 0, "rows moved less rows counted");
        }
    }

    fn has_ledger(&self) -> bool {
        self.db.value("SELECT to_regclass('rekey.chain') IS NOT NULL")
    }

    /// The maintenance window: writers stop, the command is run to its end, and everything is exactly so.
    fn end(&mut self, tally: &mut Tally) {
        self.herd.kill_all(tally);
        let mut state = self.application.pause();
        self.check(&mut state, &[OLD, NEW]);
        let mut first = herd::command(&self.db, self.direction).run();
        // A machine with too much to do, and short leases.
        for _ in 0..3 {
            if first.code() == Some(69) {
                first = herd::command(&self.db, self.direction).run();
            }
        }
        // The pass it joined may have swept often enough, after the writers of a moment ago: then the next one is the last.
        if first.code() == Some(6) {
            herd::command(&self.db, self.direction).exits(0);
        } else {
            first.expect(0);
        }
        let key = if self.direction == Direction::Forward { NEW } else { OLD };
        state.judge.all_on(&self.db, key);
        rekey(&self.db, ["verify"]).exits(0);
        let shown = status(&self.db);
        let of_direction: i64 = self.db.value(&format!(
            "SELECT coalesce(sum(c.re_encrypted), 0)::bigint FROM rekey.chunks c JOIN rekey.passes p USING (rotation, pass)
             WHERE p.direction = '{}' AND rotation = (SELECT id FROM rekey.rotations ORDER BY id DESC LIMIT 1)",
            self.direction.word()
        ));
        assert_eq!(shown["totals"]["re_encrypted"], of_direction, "{shown:#}");
        assert_eq!(shown["totals"]["quarantined"], 0, "{shown:#}");
        self.check(&mut state, &[key]);
        drop(state);
        self.db.execute(
            "BEGIN; INSERT INTO judge.earlier SELECT count(*) FROM judge.moves; TRUNCATE judge.moves; COMMIT",
        );
        tally.checks += 2;
        tally.ends += 1;
        self.turn(tally);
    }
}
