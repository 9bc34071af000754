//! Credentials that rotate: the role's password changes under a run, and each connection is made with the one of now.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::load::Load;
use crate::support::{Cluster, Db, Judge, NEW, OLD, Rekey, Running, rekey};

/// A server that asks for passwords, a role whose password rotates, and the file that has it.
struct Scene {
    db: Db,
    folder: tempfile::TempDir,
    /// The server, which ends with this.
    _cluster: Cluster,
}

impl Scene {
    fn new(rows: u64) -> Scene {
        let cluster = Cluster::start();
        let db = Db::on(&cluster);
        Load::rows(rows).into(&db);
        db.execute("CREATE ROLE rotating SUPERUSER LOGIN PASSWORD 'first'");
        cluster.ask_for_passwords();
        let scene = Scene { db, folder: tempfile::tempdir().unwrap(), _cluster: cluster };
        scene.write("first");
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Each form of file that has a password, replaced at once.
    fn write(&self, password: &str) {
        let write = |name: &str, text: String| {
            let beside = self.path("new");
            fs::write(&beside, text).unwrap();
            fs::set_permissions(&beside, fs::Permissions::from_mode(0o600)).unwrap();
            fs::rename(beside, self.path(name)).unwrap();
        };
        write("password", format!("{password}\n"));
        write("pgpass", format!("127.0.0.1:*:*:rotating:{password}\n"));
        let (port, name) = (self.db.port(), &self.db.name);
        let service = format!(
            "[other]\npassword=no\n[rekey]\nhost=127.0.0.1\nport={port}\ndbname={name}\nuser=rotating\npassword={password}\n"
        );
        write("services", service);
    }

    /// The role has another password, and no session goes on with the former one.
    fn rotate(&self, password: &str) {
        self.db.execute(&format!("ALTER ROLE rotating PASSWORD '{password}'"));
        self.db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'rotating'");
    }

    /// `rekey …` as that role, with no password in the URL.
    fn rekey(&self, arguments: &[&str]) -> Rekey {
        let url = format!("postgresql://rotating@127.0.0.1:{}/{}", self.db.port(), self.db.name);
        rekey(&self.db, []).more(arguments).env("DATABASE_URL", url)
    }

    fn command(&self) -> String {
        format!("cat {}", self.path("password").display())
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn each_place_of_a_password_is_read_at_every_connection() {
    let scene = Scene::new(10);
    let service = format!("postgresql://127.0.0.1:{}/?service=rekey", scene.db.port());
    let ways = |arguments: &[&str]| {
        [
            scene.rekey(arguments).args(["--database-password-command", &scene.command()]),
            scene
                .rekey(arguments)
                .env("REKEY_DATABASE_PASSWORD", format!("file:{}", text(&scene.path("password")))),
            scene.rekey(arguments).env("REKEY_DATABASE_PASSWORD", format!("command:{}", scene.command())),
            scene.rekey(arguments).env("PGPASSFILE", scene.path("pgpass")),
            scene.rekey(arguments).env("PGSERVICEFILE", scene.path("services")).env("DATABASE_URL", &service),
            scene.rekey(arguments).env("PGSERVICEFILE", scene.path("services")).env("PGSERVICE", "rekey"),
        ]
    };
    for password in ["first", "second: with \\ signs"] {
        scene.db.execute(&format!("ALTER ROLE rotating PASSWORD '{password}'"));
        scene.write(&password.replace('\\', "\\\\").replace(':', "\\:"));
        fs::write(scene.path("password"), password).unwrap();
        fs::write(
            scene.path("services"),
            fs::read_to_string(scene.path("services")).unwrap().replace("\\:", ":").replace("\\\\", "\\"),
        )
        .unwrap();
        for way in ways(&["status"]) {
            way.exits(0).says_none_of(&[password]);
        }
    }
    // What is wrong from the beginning is final, and says so.
    scene.db.execute("ALTER ROLE rotating PASSWORD 'third'");
    for way in ways(&["status", "--retry-for", "20s"]) {
        let refused = way.exits(2);
        assert!(refused.stderr.contains("28P01"), "{refused}");
        assert!(refused.took < Duration::from_secs(15), "{refused}");
    }
    scene.rekey(&["status"]).exits(2);
    let typed = scene.rekey(&["status", "--database-password", "third"]).exits(2);
    assert!(!typed.stderr.contains("third"), "{typed}");
    let absent = scene.rekey(&["status", "--database-password", "file:/nowhere/password"]).exits(2);
    assert!(absent.stderr.contains("/nowhere/password"), "{absent}");
    let away =
        scene.rekey(&["status", "--retry-for", "1s", "--database-password-command", "sh -c 'exit 75'"]);
    away.exits(69);
}

/// Every two seconds, and each time all sessions end: the window is longer than any token lives.
#[test]
fn a_password_that_rotates_through_a_run() {
    let scene = Scene::new(6000);
    let mut judge = Judge::look(&scene.db, &[OLD]);
    scene.db.mark();
    scene.db.slow_batches(Duration::from_millis(60));
    let run = ["run", "--batch-rows", "50", "--retry-for", "60s"];
    let mut run: Running = scene.rekey(&run).args(["--database-password-command", &scene.command()]).start();
    let mut rotations = 0;
    for moved in (500..).step_by(500) {
        while run.running() && scene.db.moved() < moved {
            std::thread::sleep(Duration::from_millis(20));
        }
        if !run.running() {
            break;
        }
        let password = format!("password-{moved}");
        scene.rotate(&password);
        // For a while the file has the former one: what is refused is read again.
        std::thread::sleep(Duration::from_millis(300));
        scene.write(&password);
        rotations += 1;
    }
    run.wait().expect(0);
    assert!(rotations > 3, "{rotations} rotations");
    judge.all_on(&scene.db, NEW);
}

/// Rows have moved: that is not how a wrong DATABASE_URL ends.
#[test]
fn what_is_refused_in_the_middle_ends_with_69() {
    let scene = Scene::new(6000);
    let mut judge = Judge::look(&scene.db, &[OLD]);
    scene.db.mark();
    scene.db.slow_batches(Duration::from_millis(60));
    let run = ["run", "--batch-rows", "50", "--retry-for", "3s"];
    let running = scene.rekey(&run).args(["--database-password-command", &scene.command()]).start();
    scene.db.wait_moved(100);
    scene.rotate("second");
    let refused = running.wait().expect(69);
    assert!(
        refused.stderr.contains("it was accepted before") && refused.stderr.contains("checkpoint is saved"),
        "{refused}"
    );
    let moved = scene.db.moved();
    assert!((100..6000).contains(&moved), "{moved}");
    scene.write("second");
    scene.db.fast_commits();
    scene.rekey(&["run"]).args(["--database-password-command", &scene.command()]).exits(0);
    judge.all_on(&scene.db, NEW);
}
