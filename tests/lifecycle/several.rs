//! Three databases under one pair of keys, as RUNBOOK has it: there, back, there again, and the end.

use crate::application::{Application, Shape};
use crate::support::load::Load;
use crate::support::{Db, Judge, NEW, OLD, Outcome, Rekey, block_on};

struct Three {
    app: Application,
    others: Vec<(Db, Judge)>,
}

impl Three {
    fn new() -> Three {
        let app = Application::new(Shape::Plain, 15);
        let other = |rows| {
            let db = Db::new();
            Load::rows(rows).into(&db);
            let judge = Judge::look(&db, &[OLD]);
            (db, judge)
        };
        Three { app, others: vec![other(10), other(20)] }
    }

    /// `rekey …` on one of them.
    fn on(&self, database: usize, arguments: &[&str]) -> Rekey {
        let rekey = self.app.rekey([]).more(arguments);
        match database {
            0 => rekey,
            other => rekey.env("DATABASE_URL", &self.others[other - 1].0.url),
        }
    }

    fn each(&self, arguments: &[&str]) -> [Outcome; 3] {
        [0, 1, 2].map(|database| self.on(database, arguments).exits(0))
    }

    fn all_on(&mut self, key: &str) {
        self.app.judge.all_on(&self.app.db, key);
        for (db, judge) in &mut self.others {
            judge.all_on(db, key);
        }
        assert_eq!(self.app.at("AWSCURRENT"), key);
    }

    /// Every database first, then the key.
    fn there(&self) {
        self.each(&["run"]);
        self.each(&["verify"]);
        // Whoever's hand it is.
        for hand in [&[][..], &["--promote-command", "false"], &["--external"]] {
            let refused = self.on(0, &[&["promote", "--yes"], hand].concat()).exits(4);
            assert!(refused.stderr.contains("shared-key"), "{refused}");
        }
        assert_eq!(self.app.at("AWSCURRENT"), OLD);
        let first = self.on(0, &["promote", "--yes", "--allow", "shared-key"]).json(0);
        assert_eq!(first["already"], false, "{first:#}");
        for other in [1, 2] {
            let recognised = self.on(other, &["promote", "--yes"]).json(0);
            assert_eq!(recognised["already"], true, "{recognised:#}");
        }
        self.each(&["verify"]);
    }
}

#[test]
fn three_databases_there_and_back_and_to_the_end() {
    let mut three = Three::new();
    three.there();
    three.all_on(NEW);

    let refused = three.on(0, &["rollback", "--yes"]).exits(4);
    assert!(refused.stderr.contains("shared-key"), "{refused}");
    for database in [0, 1, 2] {
        three.on(database, &["rollback", "--yes", "--allow", "shared-key"]).exits(0);
    }
    three.each(&["verify"]);
    three.all_on(OLD);

    three.there();
    let temporary = three.app.temporary();
    let client = three.app.moto.client();
    for database in [0, 1, 2] {
        let done = three.on(database, &["finalize", "--yes"]).json(0);
        let is_last = database == 2;
        assert_eq!(done["ending"]["deletion_scheduled"].is_string(), is_last, "{done:#}");
        assert_eq!(done["ending"]["left_alone"].is_string(), !is_last, "{done:#}");
        assert_eq!(block_on(client.describe(&temporary)).unwrap().deletion.is_some(), is_last);
    }
    three.all_on(NEW);
}
