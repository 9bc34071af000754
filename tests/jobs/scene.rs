//! A database of a test's own, a session on it, both keys in files, and requests with small steps.

use std::path::PathBuf;
use std::time::Duration;

use rekey::error::{Error, Exit, Result};
use rekey::jobs::key_pair::NamedKeys;
use rekey::jobs::rollback::{self, RollbackRequest};
use rekey::jobs::run::{self, RunRequest};
use rekey::jobs::verify::{self, Verified, VerifyRequest};
use rekey::jobs::work::WorkRequest;
use rekey::jobs::{Session, Settled};
use rekey::rotation::throttle::Limits;
use rekey::secrets::KeySource;
use rekey::store::preflight::Allowed;
use tempfile::TempDir;
use zeroize::Zeroizing;

use crate::support::load::Load;
use crate::support::{Db, NEW, OLD, block_on};
use crate::{never, session};

/// A database, a session on it, and two files with keys.
pub struct Scene {
    pub db: Db,
    pub session: Session,
    pub keys: NamedKeys,
    folder: TempDir,
}

impl Scene {
    /// `rows` connections on the old key.
    pub fn rows(rows: u64) -> Scene {
        let db = Db::new();
        Load::rows(rows).into(&db);
        let folder = TempDir::new().expect("a folder");
        let mut scene = Scene { session: on(&db), db, keys: NamedKeys::default(), folder };
        scene.keys.old = Some(scene.key_file("old", OLD));
        scene.keys.new = Some(scene.key_file("new", NEW));
        scene
    }

    /// A file with a key, as a source.
    pub fn key_file(&self, name: &str, key: &str) -> KeySource {
        let path = self.folder.path().join(name);
        std::fs::write(&path, key).expect("a file is written");
        let source = KeySource::parse(&format!("file:{}", path.display()));
        source.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Puts the old key into a dotenv file, which the application reads; its path.
    pub fn old_key_in_dotenv(&mut self) -> PathBuf {
        let path = self.path(".env");
        std::fs::write(&path, format!("A=1\nENCRYPTION_KEY={OLD}\nB=2\n")).expect("a file is written");
        let source = KeySource::parse(&format!("dotenv:{}#ENCRYPTION_KEY", path.display()));
        self.keys.old = Some(source.unwrap_or_else(|error| panic!("{error}")));
        path
    }

    /// A place in the folder of its keys.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What `rekey run` asks for.
    pub fn request(&self) -> RunRequest {
        RunRequest { compromised: false, also_key: None, keys: self.keys.clone(), work: work() }
    }

    /// Runs to whatever end.
    pub fn run(&self) -> Result<Settled> {
        block_on(run::run(&self.session, &self.request(), never().1))
    }

    /// Rolls back to whatever end.
    pub fn roll_back(&self) -> Result<Settled> {
        let request = RollbackRequest {
            despite_compromise: false,
            program: None,
            keys: self.keys.clone(),
            work: work(),
        };
        block_on(rollback::rollback(&self.session, &request, never().1))
    }

    /// Verifies with both keys.
    pub fn verify(&self) -> Result<Verified> {
        let request = VerifyRequest { workers: 2, keys: self.keys.clone() };
        block_on(verify::verify(&self.session, &request, never().1))
    }
}

/// A session of a process of its own.
pub fn on(db: &Db) -> Session {
    let database_url = Some(Zeroizing::new(db.url.clone()));
    Session {
        database_url,
        retry_for: Duration::from_secs(10),
        lease_ttl: Duration::from_secs(5),
        ..session()
    }
}

/// Small chunks and batches, so that there is a midst to stop in.
pub fn work() -> WorkRequest {
    WorkRequest {
        workers: 2,
        chunk_rows: Some(100),
        batch_rows: 25,
        lock_target: Duration::from_millis(50),
        deadline: None,
        max_sweeps: 3,
        allowed: Allowed::default(),
        limits: Limits { allow_unreadable: true, ..Limits::default() },
    }
}

/// How a refusal ended, and what it says to do.
#[track_caller]
pub fn refused<T>(outcome: Result<T>) -> (Exit, String) {
    let Err(Error { exit, hint, .. }) = outcome else { panic!("it was not refused") };
    (exit, hint.unwrap_or_default())
}
