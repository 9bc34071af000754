//! Where a scenario plays: a database with connections, an emulated Secrets Manager, a Redis, a folder, and an environment
//! in which the page's commands are run by a shell, as typed. What the page calls `db.internal` is the scratch database.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use serde_json::Value;
use uuid::Uuid;

use crate::normal::Names;
use crate::server::Redis;
use crate::support::load::{Load, insert, some_ids, store};
use crate::support::{Db, NEW, OLD, OTHER, block_on, run_in_small_steps};
use crate::support_aws::Moto;

const SECRET: &str = "kT4_wZ8-qN1xV6bR3mJ9sD0fH5gL2yPcE7uA_oIe8KtQXvWn4Mz-Yh3Bj6Rd1GpS";
const ROWS: u64 = 2000;
const OLD_NAME: &str = "dashtam/production/encryption_key";
const NEW_NAME: &str = "dashtam/production/encryption_key_new";
/// The row that the page speaks of.
const BAD_ROW: &str = "01900000-0000-7000-8000-0000000000aa";

/// A place for one scenario.
pub struct Scene {
    db: Db,
    moto: Moto,
    _redis: Redis,
    backup: Option<Db>,
    folder: tempfile::TempDir,
    environment: BTreeMap<String, String>,
    names: Names,
}

impl Scene {
    /// The application as it is, on the old key; no new key anywhere.
    pub fn before_a_rotation() -> Scene {
        let (db, moto, redis) = (Db::new(), Moto::start(), Redis::start(&[]));
        Load::rows(ROWS).nulls(5).into(&db);
        block_on(async {
            moto.create("dashtam/production/secret_key", SECRET).await;
            moto.create(OLD_NAME, OLD).await;
        });
        redis.fill("dashtam:provider:conn:", 120);
        let folder = tempfile::tempdir().expect("a folder");
        let rekey = std::env::var_os("REKEY_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_rekey").into());
        std::fs::create_dir(folder.path().join("bin")).expect("a folder");
        symlink(rekey, folder.path().join("bin/rekey")).expect("a link");
        let path = format!("{}/bin:{}", folder.path().display(), std::env::var("PATH").unwrap_or_default());
        let environment = [
            ("PATH", path.as_str()),
            ("LC_ALL", "C.UTF-8"),
            ("REKEY_LOG_FORMAT", "pretty"),
            ("REKEY_OPERATOR", "alice"),
            ("REKEY_REASON", "quarterly rotation"),
            ("DATABASE_URL", &db.url),
            ("REDIS_URL", &redis.url()),
            ("AWS_ENDPOINT_URL", &moto.url),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_REGION", "us-east-1"),
            ("SECRETS_BACKEND", "aws"),
            ("AWS_SECRET_NAME", "dashtam/production"),
            ("REKEY_BACKUP_PASSPHRASE", "correct horse battery staple"),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let words = vec![
            (
                format!("postgres@127.0.0.1:{}/{}", db.port(), db.name),
                "rekey@db.internal:5432/dashtam".into(),
            ),
            (format!("127.0.0.1:{}", redis.port), "redis.internal:6379".into()),
        ];
        let names = Names { words, loose: false };
        let mut scene = Scene { db, moto, _redis: redis, backup: None, folder, environment, names };
        scene.knows(&format!("aws:{OLD_NAME}"), "OLD_FINGERPRINT");
        scene.knows("aws:dashtam/production/secret_key", "SECRET_KEY_FINGERPRINT");
        scene
    }

    /// The new key beside the old one.
    pub fn with_two_keys() -> Scene {
        let mut scene = Scene::before_a_rotation();
        block_on(scene.moto.create(NEW_NAME, NEW));
        scene.knows(&format!("aws:{NEW_NAME}"), "NEW_FINGERPRINT");
        scene
    }

    /// A run that was killed midway, its leases over.
    pub fn cut_short() -> Scene {
        let mut scene = Scene::with_two_keys();
        scene.names.loose = true;
        scene.cut();
        scene
    }

    fn cut(&mut self) {
        let db = &self.db;
        db.mark();
        db.slow_batches(std::time::Duration::from_millis(40));
        let mut run = run_in_small_steps(db).without("ENCRYPTION_KEY").without("NEW_ENCRYPTION_KEY");
        for (name, value) in &self.environment {
            run = run.env(name, value);
        }
        let hold = db.hold_last();
        let run = run.start();
        db.wait_moved(200);
        run.kill();
        db.wait_alone();
        hold.rollback();
        db.fast_commits();
        // As if its lease were over.
        db.execute(
            "DELETE FROM rekey.processes;
             UPDATE rekey.chunks SET lease_until = clock_timestamp() WHERE owner IS NOT NULL",
        );
    }

    /// A run that its deadline ended.
    pub fn past_its_deadline() -> Scene {
        let mut scene = Scene::cut_short();
        scene.expect(9, "rekey run --deadline 2020-01-01T00:00:00Z");
        scene
    }

    /// Both keys in the environment of the application, which rekey cannot write.
    pub fn keys_in_the_environment() -> Scene {
        let mut scene = Scene::with_two_keys();
        scene.environment.insert("SECRETS_BACKEND".into(), "env".into());
        scene.environment.insert("ENCRYPTION_KEY".into(), OLD.into());
        scene.environment.insert("NEW_ENCRYPTION_KEY".into(), NEW.into());
        scene
    }

    /// The application reads its key from a dotenv file, and AWS is not used.
    pub fn keys_in_dotenv_files() -> Scene {
        let mut scene = Scene::before_a_rotation();
        let folder = scene.folder.path().join("env");
        std::fs::create_dir(&folder).expect("a folder");
        std::fs::write(folder.join(".env.prod"), format!("SECRET_KEY={SECRET}\nENCRYPTION_KEY={OLD}\n"))
            .expect("a file");
        scene.environment.insert("SECRETS_BACKEND".into(), "env".into());
        scene.environment.remove("AWS_SECRET_NAME");
        scene
    }

    /// Half-way, and the new key's secret is gone for good; its backup is there.
    pub fn new_key_lost() -> Scene {
        let mut scene = Scene::cut_short();
        scene.expect(
            0,
            &format!("rekey keys backup aws:{OLD_NAME} aws:{NEW_NAME} --out keys-before-rotation.gpg"),
        );
        let delete = scene.moto.sdk().delete_secret().secret_id(NEW_NAME);
        block_on(delete.force_delete_without_recovery(true).send()).expect("the secret goes");
        scene
    }

    /// No rotation, and what the application's secret yields opens nothing.
    pub fn both_keys_lost() -> Scene {
        let scene = Scene::before_a_rotation();
        block_on(scene.moto.put(OLD_NAME, OTHER));
        scene
    }

    /// Long after the end of a rotation, the database comes back from before it.
    pub fn restored() -> Scene {
        let mut scene = Scene::with_two_keys();
        for command in ["rekey run", "rekey promote --yes", "rekey finalize --yes"] {
            scene.expect(0, command);
        }
        scene.db = Db::new();
        Load::rows(ROWS).nulls(5).into(&scene.db);
        scene.environment.insert("DATABASE_URL".into(), scene.db.url.clone());
        let address = format!("postgres@127.0.0.1:{}/{}", scene.db.port(), scene.db.name);
        scene.names.words.push((address, "rekey@db.internal:5432/dashtam".into()));
        scene
    }

    /// A database restored from a backup of before the bad row was damaged.
    pub fn and_its_backup(mut self) -> Scene {
        let backup = Db::new();
        Load::rows(10).into(&backup);
        insert(&backup, BAD_ROW.parse::<Uuid>().expect("an id"), OLD, b"{}");
        self.environment.insert("BACKUP_URL".into(), backup.url.clone());
        self.backup = Some(backup);
        self
    }

    /// This command was run before, and ended so.
    pub fn after_exit(mut self, code: i32, command: &str) -> Scene {
        self.expect(code, command);
        self
    }

    /// These commands were run before.
    pub fn after(mut self, commands: &[&str]) -> Scene {
        commands.iter().for_each(|command| self.expect(0, command));
        self
    }

    /// Something saved a row under the old key since.
    pub fn late_writer(self) -> Scene {
        store(&self.db, some_ids(&self.db, 1, 1)[0], OLD, b"{}");
        self
    }

    /// A row that neither key opens.
    pub fn bad_row(self) -> Scene {
        insert(&self.db, BAD_ROW.parse::<Uuid>().expect("an id"), OTHER, b"{}");
        self
    }

    /// The process died after it had written this state, and before it touched anything outside.
    pub fn left_in(self, state: &str) -> Scene {
        self.db.execute(&format!(
            "UPDATE rekey.rotations SET state = '{state}', promoting_at = clock_timestamp(),
                 target_source = coalesce(target_source, old_source);
             SELECT rekey.append_event(id, action, 'killed', NULL, jsonb_build_object('target', target_source))
                 FROM rekey.rotations, unnest(ARRAY['promoting', nullif('{state}', 'promoting')]) action
                 WHERE action IS NOT NULL"
        ));
        self
    }

    /// Runs a command of the page; what it printed, made to read the same every time.
    pub fn run(&mut self, command: &str) -> String {
        if let Some(assignments) = command.strip_prefix("export ") {
            self.export(assignments);
            return String::new();
        }
        let mut typed = command.to_owned();
        for (real, name) in &self.names.words {
            typed = typed.replace(name, real);
        }
        let (code, output) = self.shell(&typed);
        if command.starts_with("rekey keys generate") {
            for (secret, name) in [(OLD_NAME, "ANOTHER_FINGERPRINT"), (NEW_NAME, "NEW_FINGERPRINT")] {
                self.knows(&format!("aws:{secret}"), name);
            }
            self.knows("dotenv:env/.env.new#ENCRYPTION_KEY", "NEW_FINGERPRINT");
        }
        let mut shown = self.names.normal(&output);
        if code != 0 {
            shown.push_str(&format!("[exit {code}]\n"));
        }
        shown
    }

    /// What the page exports is checked to be something this scene has, unless it only names somebody.
    fn export(&mut self, assignments: &str) {
        let script = format!(
            "export {assignments}; for name in \"$@\"; do printf '%s=%s\\n' \"$name\" \"${{!name}}\"; done"
        );
        let names =
            assignments.split_whitespace().filter_map(|word| word.split_once('=')).map(|(name, _)| name);
        let told = Command::new("bash").args(["-c", &script, "bash"]).args(names).output().expect("bash");
        for (name, value) in
            String::from_utf8_lossy(&told.stdout).lines().filter_map(|line| line.split_once('='))
        {
            if name == "DATABASE_URL" {
                continue;
            }
            match self.environment.get(name) {
                Some(known) => assert_eq!(known, value, "{name}"),
                None => drop(self.environment.insert(name.to_owned(), value.to_owned())),
            }
        }
    }

    fn expect(&mut self, code: i32, command: &str) {
        let (ended, output) = self.shell(command);
        assert_eq!(ended, code, "`{command}`:\n{output}");
    }

    /// The fingerprint of the key in this source is called by a name from here on, unless it has one.
    fn knows(&mut self, source: &str, name: &str) {
        let (code, output) =
            self.shell(&format!("rekey keys fingerprint '{source}' --output json 2>/dev/null"));
        let fingerprint = serde_json::from_str::<Value>(output.trim()).ok();
        if let (0, Some(Value::String(fingerprint))) = (code, fingerprint.map(|f| f["fingerprint"].clone()))
            && !self.names.words.iter().any(|(known, _)| *known == fingerprint)
        {
            self.names.words.push((fingerprint, name.to_owned()));
        }
    }

    /// stdout and stderr in one, as a terminal shows them.
    fn shell(&self, command: &str) -> (i32, String) {
        let done = Command::new("bash")
            .args(["-c", &format!("exec 2>&1; {command}")])
            .current_dir(self.folder.path())
            .env_clear()
            .envs(&self.environment)
            .stdin(Stdio::null())
            .output()
            .expect("bash");
        (done.status.code().unwrap_or(-1), String::from_utf8_lossy(&done.stdout).into_owned())
    }
}
