//! The application and its secrets in one of the three shapes that are met, and `rekey` pointed at them.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use uuid::Uuid;

use crate::support::load::Load;
use crate::support::{Db, Judge, NEW, OLD, Rekey, block_on, rekey};
use crate::support_aws::Moto;

/// How the application's secrets are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `NAME/encryption_key` and `NAME/encryption_key_new`.
    Plain,
    /// One JSON secret `NAME`, the new key at AWSPENDING.
    Json,
    /// `/NAME/security/encryption_key` and `…_new`.
    Path,
}

impl Shape {
    fn layout(self) -> &'static str {
        match self {
            Shape::Plain => "plain",
            Shape::Json => "json",
            Shape::Path => "path",
        }
    }
}

/// A database with connections, the secrets that go with it, and a judge.
pub struct Application {
    pub moto: &'static Moto,
    pub shape: Shape,
    pub db: Db,
    pub judge: Judge,
    /// AWS_SECRET_NAME.
    pub name: String,
    /// The version that held the old key at the beginning.
    pub first: String,
}

/// One moto for all tests of this binary.
pub fn moto() -> &'static Moto {
    static MOTO: OnceLock<Moto> = OnceLock::new();
    MOTO.get_or_init(Moto::start)
}

impl Application {
    pub fn new(shape: Shape, rows: u64) -> Application {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        Application::named(
            &format!("dashtam/production{}", NUMBER.fetch_add(1, Ordering::Relaxed)),
            shape,
            rows,
        )
    }

    /// With this AWS_SECRET_NAME, on a moto of everybody's.
    pub fn named(name: &str, shape: Shape, rows: u64) -> Application {
        let moto = moto();
        let db = Db::new();
        Load::rows(rows).into(&db);
        let judge = Judge::look(&db, &[OLD]);
        let mut application =
            Application { moto, shape, db, judge, name: name.to_owned(), first: String::new() };
        let (secret, content) = (application.secret(), application.content(OLD, "s1"));
        application.first = block_on(moto.create(&secret, &content));
        match shape {
            Shape::Json => {
                let put = moto.sdk().put_secret_value().secret_id(&secret).version_stages("AWSPENDING");
                block_on(put.secret_string(application.content(NEW, "s1")).send()).unwrap();
            }
            Shape::Plain | Shape::Path => {
                block_on(moto.create(&application.temporary(), NEW));
            }
        }
        application
    }

    /// The secret that the application reads its key from.
    pub fn secret(&self) -> String {
        match self.shape {
            Shape::Plain => format!("{}/encryption_key", self.name),
            Shape::Json => self.name.clone(),
            Shape::Path => format!("/{}/security/encryption_key", self.name),
        }
    }

    /// The secret that the new key waits in, where that is one of its own.
    pub fn temporary(&self) -> String {
        format!("{}_new", self.secret())
    }

    /// What that secret holds with this key and this sibling, byte by byte.
    pub fn content(&self, key: &str, sibling: &str) -> String {
        match self.shape {
            Shape::Json => {
                format!("{{\n \"secret_key\": \"{sibling}\",\t\"encryption_key\" : \"{key}\",\"n\":1.0}}")
            }
            Shape::Plain | Shape::Path => key.to_owned(),
        }
    }

    /// What stands at a stage of it.
    pub fn at(&self, stage: &str) -> String {
        block_on(self.moto.at(&self.secret(), stage)).unwrap_or_else(|| panic!("nothing at {stage}"))
    }

    /// Versions and their labels, sorted.
    pub fn versions(&self, secret: &str) -> BTreeMap<String, Vec<String>> {
        let mut versions = block_on(self.moto.client().describe(secret)).unwrap().versions;
        versions.values_mut().for_each(|labels| labels.sort());
        versions
    }

    /// The version a label of the application's secret is on.
    pub fn holder(&self, label: &str) -> Option<String> {
        let versions = self.versions(&self.secret());
        versions.into_iter().find(|(_, labels)| labels.iter().any(|l| l == label)).map(|(version, _)| version)
    }

    /// Keys retired by rotations before, in versions of their own, until the secret bears this many labels in all.
    pub fn fill_labels(&self, total: usize) {
        let there = self.versions(&self.secret()).into_values().flatten().count();
        for _ in there..total {
            let label = format!("rekey-retired-{:016x}", Uuid::now_v7().as_u64_pair().1);
            let put = self.moto.sdk().put_secret_value().secret_id(self.secret()).version_stages(label);
            block_on(put.secret_string("retired").send()).unwrap();
        }
    }

    /// Labels of ours anywhere, the retired ones apart.
    pub fn our_labels(&self) -> Vec<String> {
        let mut secrets = vec![self.secret()];
        secrets.extend((self.shape != Shape::Json).then(|| self.temporary()));
        let all = secrets.iter().flat_map(|secret| self.versions(secret).into_values().flatten());
        all.filter(|l| l.starts_with("rekey-") && !l.starts_with("rekey-retired-")).collect()
    }

    /// `rekey …` as it is run beside the application: its settings, and no argument about keys.
    pub fn rekey<const N: usize>(&self, arguments: [&str; N]) -> Rekey {
        self.rekey_through(&self.moto.url, arguments)
    }

    /// The same, with Secrets Manager at another address.
    pub fn rekey_through<const N: usize>(&self, endpoint: &str, arguments: [&str; N]) -> Rekey {
        let rekey = rekey(&self.db, arguments)
            .without("ENCRYPTION_KEY")
            .without("NEW_ENCRYPTION_KEY")
            .env("AWS_ENDPOINT_URL", endpoint)
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("SECRETS_BACKEND", "aws")
            .env("AWS_SECRET_NAME", &self.name);
        match self.shape {
            Shape::Plain => rekey,
            other => rekey.env("REKEY_SECRET_LAYOUT", other.layout()),
        }
    }

    /// Where the rotation stands.
    pub fn state(&self) -> String {
        self.db.value("SELECT state FROM rekey.rotations ORDER BY id DESC LIMIT 1")
    }

    /// Somebody writes the whole secret, get-then-put, as consoles do.
    pub fn put(&self, content: &str) -> String {
        block_on(self.moto.put(&self.secret(), content))
    }
}
