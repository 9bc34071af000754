//! Commands that change what the application reads: promote, rollback after it, finalize; in a dotenv file and in
//! Secrets Manager.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::rows::table;
use crate::scene::{ON_NEW, Scene, in_steps};
use crate::support::database::Template;
use crate::support::{Db, Judge, NEW, OLD, Rekey, block_on, rekey, rekey_without_database, state};
use crate::support_aws::Moto;
use crate::sweep::{armed, available, sweep};

/// How far a rotation has come before the swept command, and which one that is.
#[derive(Clone, Copy, PartialEq)]
pub enum Step {
    Promote,
    Rollback,
    Finalize,
}

impl Step {
    pub fn arguments(self) -> [&'static str; 2] {
        match self {
            Step::Promote => ["promote", "--yes"],
            Step::Rollback => ["rollback", "--yes"],
            Step::Finalize => ["finalize", "--yes"],
        }
    }

    /// A rotation is finalized once.
    fn again(self) -> i32 {
        if self == Step::Finalize { 7 } else { 0 }
    }

    fn goal(self, db: &Db, judge: &mut Judge) {
        let (key, wanted) = match self {
            Step::Promote => (NEW, "promoted"),
            Step::Rollback => (OLD, "rolled_back"),
            Step::Finalize => (NEW, "finalized"),
        };
        judge.all_on(db, key);
        assert_eq!(state(db), wanted);
    }
}

/// A dotenv file that the application reads, with a rotation that has come as far as `step`.
pub struct Place {
    step: Step,
    folder: TempDir,
    before: String,
    template: Template,
    judge: Judge,
    /// The folder as it is before the swept command.
    files: Vec<(String, Vec<u8>)>,
}

impl Place {
    pub fn new(step: Step) -> Place {
        let folder = tempfile::tempdir().expect("a folder");
        let before = format!("# keys\nSECRET_KEY=s3cr3t\nENCRYPTION_KEY={OLD}\n");
        fs::write(folder.path().join(".env"), &before).expect("a file");
        let db = table();
        let judge = Judge::look(&db, &[OLD, NEW]);
        available(|| in_steps(with_dotenv(&db, folder.path()), ["run"])).expect(0);
        if step != Step::Promote {
            available(|| with_dotenv(&db, folder.path()).args(["promote", "--yes"])).expect(0);
        }
        let files = read_all(folder.path());
        Place { step, folder, before, template: db.into_template(), judge, files }
    }

    /// `rekey …` with the old key where the application reads it.
    pub fn command(&self, db: &Db) -> Rekey {
        with_dotenv(db, self.folder.path())
    }

    /// The application reads the old key, and nothing else is left.
    pub fn is_back(&self) {
        let left = read_all(self.folder.path());
        assert_eq!((left.len(), &left[0].1[..]), (1, self.before.as_bytes()));
    }

    /// A copy of it all, at the same path.
    pub fn scene(&self) -> Scene {
        let path = self.folder.path().to_owned();
        for (name, _) in read_all(&path) {
            fs::remove_file(path.join(name)).expect("it goes");
        }
        for (name, bytes) in &self.files {
            fs::write(path.join(name), bytes).expect("it is there again");
        }
        let (old, new) = (self.before.clone(), self.before.replace(OLD, NEW));
        let (file, either) = (path.join(".env"), [old.clone(), new.clone()]);
        let always = move |_: &Db| {
            let now = fs::read_to_string(&file).expect("the file is there at every moment");
            assert!(either.contains(&now), "a part of a file: {} bytes", now.len());
        };
        let (folder, step) = (path.clone(), self.step);
        let goal = move |scene: &mut Scene| {
            step.goal(&scene.db, &mut scene.judge);
            let now = fs::read_to_string(folder.join(".env")).expect("the file reads");
            let left: Vec<_> = read_all(&folder).into_iter().map(|(name, _)| name).collect();
            match step {
                Step::Promote => {
                    assert_eq!(now, new);
                    let backup = left.iter().find(|name| name.ends_with(".bak")).expect("a backup");
                    assert_eq!(fs::read_to_string(folder.join(backup)).expect("it reads"), old);
                    assert_eq!(left.len(), 2, "{left:?}");
                }
                Step::Rollback => {
                    // Where the new key was nowhere else, it stays in a copy of the file.
                    let (copies, left): (Vec<_>, Vec<_>) =
                        left.into_iter().partition(|name| name.ends_with(".new.bak"));
                    assert_eq!((now, left.len()), (old.clone(), 1), "{left:?}");
                    for copy in copies {
                        assert_eq!(fs::read_to_string(folder.join(copy)).expect("it reads"), new);
                    }
                }
                Step::Finalize => {
                    assert_eq!((now, left.len()), (new.clone(), 2), "{left:?}");
                    let kept =
                        left.iter().find(|name| name.contains(".rekey-retired-")).expect("the old key");
                    assert_eq!(fs::read_to_string(folder.join(kept)).expect("it reads"), old);
                }
            }
        };
        let command = move |db: &Db| {
            let command = with_dotenv(db, &path).args(step.arguments());
            // The file is all that has the new key then.
            if step == Step::Rollback { command.without("NEW_ENCRYPTION_KEY") } else { command }
        };
        scene(&self.template, &self.judge, step.again(), command, always, goal)
    }
}

fn with_dotenv(db: &Db, folder: &Path) -> Rekey {
    let source = format!("dotenv:{}#ENCRYPTION_KEY", folder.join(".env").display());
    rekey(db, []).without("ENCRYPTION_KEY").env("REKEY_OLD_KEY", source)
}

fn dotenv(step: Step) {
    let place = Place::new(step);
    sweep(&format!("dotenv {}", step.arguments()[0]), 53, || place.scene());
}

fn scene(
    template: &Template,
    judge: &Judge,
    again: i32,
    command: impl Fn(&Db) -> Rekey + 'static,
    always: impl Fn(&Db) + 'static,
    goal: impl Fn(&mut Scene) + 'static,
) -> Scene {
    Scene {
        db: template.copy_beside(),
        judge: judge.clone(),
        on_new_before: ON_NEW,
        command: Box::new(move |db| command(db).args(["--lease-ttl", "5s", "--retry-for", "20s"])),
        ends: 0,
        again,
        always: Box::new(always),
        goal: Box::new(goal),
    }
}

fn read_all(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).expect("the folder lists").flatten();
    let name = |entry: &fs::DirEntry| entry.file_name().into_string().expect("UTF-8");
    entries.map(|entry| (name(&entry), fs::read(entry.path()).expect("it reads"))).collect()
}

#[test]
fn promote_in_a_dotenv_file() {
    dotenv(Step::Promote);
}

#[test]
fn rollback_in_a_dotenv_file() {
    dotenv(Step::Rollback);
}

#[test]
fn finalize_in_a_dotenv_file() {
    dotenv(Step::Finalize);
}

const NAME: &str = "dashtam/production/encryption_key";
const TEMPORARY: &str = "dashtam/production/encryption_key_new";

fn on_aws(db: &Db, url: &str) -> Rekey {
    let command = rekey(db, []).without("ENCRYPTION_KEY").without("NEW_ENCRYPTION_KEY");
    let settings = [
        ("AWS_ENDPOINT_URL", url),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("SECRETS_BACKEND", "aws"),
        ("AWS_SECRET_NAME", "dashtam/production"),
    ];
    settings.into_iter().fold(command, |command, (name, value)| command.env(name, value))
}

fn aws(step: Step) {
    let moto = Moto::start();
    let db = table();
    let judge = Judge::look(&db, &[OLD, NEW]);
    let template = db.into_template();
    sweep(&format!("AWS {}", step.arguments()[0]), 79, || {
        moto.forget();
        block_on(async {
            moto.create(NAME, OLD).await;
            moto.create(TEMPORARY, NEW).await;
        });
        let url = moto.url.clone();
        let (sdk, looking) = (moto.sdk(), moto.sdk());
        let always = move |_: &Db| {
            let now =
                block_on(looking.get_secret_value().secret_id(NAME).send()).expect("the secret is there");
            let now = now.secret_string.expect("a string");
            assert!(now == OLD || now == NEW, "the application reads another key");
        };
        let goal = move |scene: &mut Scene| {
            step.goal(&scene.db, &mut scene.judge);
            let info = block_on(sdk.describe_secret().secret_id(NAME).send()).expect("the secret is there");
            let labels: Vec<String> =
                info.version_ids_to_stages.unwrap_or_default().into_values().flatten().collect();
            let has = |start: &str| labels.iter().any(|label| label.starts_with(start));
            let now = block_on(sdk.get_secret_value().secret_id(NAME).send()).expect("it reads");
            let now = now.secret_string.expect("a string");
            let temporary = block_on(sdk.describe_secret().secret_id(TEMPORARY).send()).expect("it is there");
            match step {
                Step::Promote => {
                    assert!(now == NEW && has("rekey-old-"), "{labels:?}");
                    assert!(temporary.deleted_date.is_none());
                }
                Step::Rollback => {
                    assert!(now == OLD && !has("rekey-"), "{labels:?}");
                    assert!(temporary.deleted_date.is_none());
                }
                Step::Finalize => {
                    let of_ours = labels.iter().filter(|label| label.starts_with("rekey-")).count();
                    assert!(now == NEW && has("rekey-retired-") && of_ours == 1, "{labels:?}");
                    assert!(temporary.deleted_date.is_some());
                }
            }
        };
        let scene = scene(
            &template,
            &judge,
            step.again(),
            move |db| on_aws(db, &url).args(step.arguments()),
            always,
            goal,
        );
        available(|| in_steps(on_aws(&scene.db, &moto.url), ["run"])).expect(0);
        if step != Step::Promote {
            available(|| on_aws(&scene.db, &moto.url).args(["promote", "--yes"])).expect(0);
        }
        scene
    });
}

#[test]
fn promote_in_secrets_manager() {
    aws(Step::Promote);
}

#[test]
fn rollback_in_secrets_manager() {
    aws(Step::Rollback);
}

#[test]
fn finalize_in_secrets_manager() {
    aws(Step::Finalize);
}

/// Killed before any file operation and repeated: the way back leads to the key that was there at first. Once the first
/// try had settled, to the one it made.
#[test]
fn rotate_secret_key_in_a_dotenv_file() {
    let before = format!("# keys\nSECRET_KEY=s3cr3t-s3cr3t-s3cr3t-s3cr3t\nENCRYPTION_KEY={OLD}\n");
    let mut killed = 0;
    for n in 1.. {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, trace) = (folder.path().join(".env"), folder.path().join("trace"));
        fs::write(&file, &before).expect("a file");
        let rotate = || {
            let path = file.to_str().expect("UTF-8");
            rekey_without_database(["keys", "rotate-secret-key", "--yes", "--env-file", path])
        };
        let read = |path: &Path| fs::read_to_string(path).expect("it reads");
        let outcome = armed(rotate(), n, "abort", &trace).run();
        let (made, settled) = (read(&file), folder.path().join(".env.secret-key.bak").exists());
        if outcome.code() == Some(0) {
            assert!(settled && made != before);
            break;
        }
        assert_eq!(outcome.code(), None, "{outcome}");
        killed += 1;
        rotate().exits(0);
        assert!(![&before, &made].contains(&&read(&file)), "a new key, killed at {n}");
        rotate().args(["--rollback"]).exits(0);
        let (back, wanted) = (read(&file), if settled { &made } else { &before });
        assert_eq!(&back, wanted, "killed at {n}: {}", read(&trace));
        let kept = read_all(folder.path()).into_iter().any(|(_, bytes)| bytes == made.as_bytes());
        assert!(kept, "killed at {n}, and what the first try wrote is lost");
    }
    assert!(killed > 20, "too few points: {killed}");
}
