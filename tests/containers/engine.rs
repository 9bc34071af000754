//! A Docker engine, the images the tests need, PostgreSQL as a container, and rekey pods beside it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use testcontainers::core::Mount;
use testcontainers::runners::AsyncRunner as _;
use testcontainers::{ContainerAsync, GenericImage, Image, ImageExt as _};
use testcontainers_modules::postgres::Postgres;
use testcontainers_modules::redis::Redis as RedisImage;

use crate::support::{Db, NEW, OLD, SOON, block_on, cluster, until};

const RUNTIME: &str = "gcr.io/distroless/cc-debian12:nonroot";
/// The binary under test on the runtime image.
pub const IMAGE: (&str, &str) = ("rekey", "test");

/// Runs `docker …`, which must succeed, and returns what it printed.
pub fn docker<const N: usize>(arguments: [&str; N]) -> String {
    let output = Command::new("docker").args(arguments).output().expect("docker starts");
    assert!(
        output.status.success(),
        "docker {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Whether there is an engine. Its images are made on the first call; where there is none, that is said aloud.
pub fn there_is_one() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    static SKIPPED: AtomicU32 = AtomicU32::new(0);
    let found = *FOUND.get_or_init(|| {
        let asked =
            Command::new("docker").arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        let found = asked.is_ok_and(|status| status.success());
        assert!(
            found || std::env::var_os("REKEY_REQUIRE_DOCKER").is_none(),
            "REKEY_REQUIRE_DOCKER is set, and there is no Docker engine"
        );
        if found {
            prepare();
        }
        found
    });
    if !found {
        use std::io::Write as _;
        let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
        // Written, not printed: the test harness would swallow it.
        let _ =
            writeln!(std::io::stderr(), "SKIPPED: {count} container tests so far, there is no Docker engine");
    }
    found
}

/// The images: PostgreSQL, and the binary under test on the runtime image, which takes seconds. The Dockerfile itself
/// is built by scripts/image.
fn prepare() {
    let made = Command::new("scripts/stand-in")
        .args([RUNTIME, "postgres:15", "redis:7"])
        .status()
        .expect("it starts");
    assert!(made.success(), "scripts/stand-in: {made}");
    let folder = tempfile::tempdir().expect("a folder");
    let binary = folder.path().join("rekey");
    std::fs::copy(env!("CARGO_BIN_EXE_rekey"), &binary).expect("the binary is there");
    let recipe = format!(
        "FROM {RUNTIME}\nCOPY rekey /usr/local/bin/rekey\nUSER 65532:65532\nENTRYPOINT [\"/usr/local/bin/rekey\"]\n"
    );
    std::fs::write(folder.path().join("Dockerfile"), recipe).expect("a Dockerfile");
    let built = Command::new("docker")
        .args(["build", "--quiet", "--tag", &format!("{}:{}", IMAGE.0, IMAGE.1)])
        .arg(folder.path())
        .env("DOCKER_BUILDKIT", "0")
        .stdout(Stdio::null())
        .output()
        .expect("docker starts");
    assert!(built.status.success(), "docker build: {}", String::from_utf8_lossy(&built.stderr));
}

/// A container that is removed when dropped.
struct Held<I: Image>(Option<ContainerAsync<I>>);

impl<I: Image> Drop for Held<I> {
    fn drop(&mut self) {
        if let Some(container) = self.0.take() {
            block_on(async { container.rm().await.ok() });
        }
    }
}

/// PostgreSQL in a container, in a network of its own, with the application's tables.
pub struct Server {
    name: String,
    network: String,
    /// From out here.
    pub db: Db,
    _container: Held<Postgres>,
}

impl Server {
    /// Starts one.
    pub fn start() -> Server {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("rekey-test-{}-{number}", std::process::id());
        let (network, port) = (format!("{name}-net"), cluster::free_port());
        let request = Postgres::default()
            .with_db_name("app")
            .with_host_auth()
            .with_fsync_enabled()
            .with_tag("15")
            .with_container_name(&name)
            .with_network(&network)
            // The same port again after a crash.
            .with_mapped_port(port, 5432.into());
        let container = block_on(async { request.start().await }).expect("PostgreSQL starts");
        let db = Db::at("app", format!("postgres://postgres@127.0.0.1:{port}/app"));
        db.execute(include_str!("../../fixtures/schema.sql"));
        Server { name, network, db, _container: Held(Some(container)) }
    }

    /// Freezes or thaws every process of the server.
    pub fn freeze(&self, frozen: bool) {
        docker([if frozen { "pause" } else { "unpause" }, &self.name]);
    }

    /// SIGKILL to the server, and a new start, which recovers from the WAL.
    pub fn crash(&self) {
        docker(["kill", "--signal", "KILL", &self.name]);
        docker(["start", &self.name]);
        until("PostgreSQL to recover", SOON, || self.db.try_value::<i32>("SELECT 1").ok());
    }

    /// A pod as Kubernetes would start it: read-only root, no capabilities, numeric user, memory limit.
    pub fn pod(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Pod {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("{}-pod-{}", self.name, NUMBER.fetch_add(1, Ordering::Relaxed));
        let log = tempfile::NamedTempFile::new().expect("a file");
        open_to_all(log.path());
        let mut request = GenericImage::new(IMAGE.0, IMAGE.1)
            .with_cmd(arguments.iter().copied())
            .with_container_name(&name)
            .with_network(&self.network)
            .with_user("65532:65532")
            .with_readonly_rootfs(true)
            .with_cap_drop("ALL")
            .with_security_opt("no-new-privileges")
            .with_mount(Mount::bind_mount(log.path().display().to_string(), "/dev/termination-log"))
            .with_env_var("DATABASE_URL", format!("postgresql+asyncpg://postgres@{}:5432/app", self.name))
            .with_env_var("ENCRYPTION_KEY", OLD)
            .with_env_var("NEW_ENCRYPTION_KEY", NEW)
            .with_host_config_modifier(|host| {
                host.memory = Some(256 << 20);
                host.memory_swap = Some(256 << 20);
                host.pids_limit = Some(64);
            });
        for (name, value) in environment {
            request = request.with_env_var(*name, *value);
        }
        let container = block_on(async { request.start().await }).expect("the pod starts");
        Pod { name, network: self.network.clone(), log, _container: Held(Some(container)) }
    }
}

/// Redis in a container, in the network of a server.
pub struct Redis {
    name: String,
    _container: Held<RedisImage>,
}

impl Redis {
    /// Starts one.
    pub fn start(beside: &Server) -> Redis {
        let name = format!("{}-redis", beside.name);
        let request =
            RedisImage::default().with_tag("7").with_container_name(&name).with_network(&beside.network);
        let container = block_on(async { request.start().await }).expect("Redis starts");
        Redis { name, _container: Held(Some(container)) }
    }

    /// Where pods reach it.
    pub fn url(&self) -> String {
        format!("redis://{}:6379/0", self.name)
    }

    /// Freezes or thaws it.
    pub fn freeze(&self, frozen: bool) {
        docker([if frozen { "pause" } else { "unpause" }, &self.name]);
    }

    /// Asks it something.
    pub fn cli(&self, words: &[&str]) -> String {
        let output = Command::new("docker")
            .args(["exec", &self.name, "redis-cli"])
            .args(words)
            .output()
            .expect("starts");
        assert!(output.status.success(), "redis-cli {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).expect("modes change");
}

/// A rekey process in a container.
pub struct Pod {
    name: String,
    network: String,
    log: tempfile::NamedTempFile,
    _container: Held<GenericImage>,
}

impl Pod {
    /// Sends a signal.
    pub fn signal(&self, signal: &str) {
        docker(["kill", "--signal", signal, &self.name]);
    }

    /// Freezes it at a moment when a transaction of its own is open that has written rows. Stopped by signals until
    /// that moment comes, since Docker takes a container paused and unpaused in quick succession for one that runs:
    /// it learns of both a while later.
    pub fn freeze_in_transaction(&self, db: &Db) {
        let address = self.address();
        let some =
            format!("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE client_addr = '{address}' AND ");
        let busy = format!("{some} state = 'active')");
        let open = format!("{some} backend_xid IS NOT NULL AND state = 'idle in transaction')");
        until("a transaction to be open", SOON, || {
            self.signal("STOP");
            // What was on its way to the server when it stopped arrives, and ends.
            until("its statements to end", SOON, || (!db.value::<bool>(&busy)).then_some(()));
            let caught = db.value(&open);
            if caught {
                docker(["pause", &self.name]);
            } else {
                self.signal("CONT");
            }
            caught.then_some(())
        });
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        docker(["unpause", &self.name]);
        self.signal("CONT");
    }

    fn address(&self) -> String {
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        docker(["inspect", "--format", format, &self.name]).trim().to_owned()
    }

    /// Cuts it off from the network, or heals that.
    pub fn cut_off(&self, cut: bool) {
        docker(["network", if cut { "disconnect" } else { "connect" }, &self.network, &self.name]);
    }

    /// What it wrote.
    pub fn logs(&self) -> String {
        docker(["logs", "--tail", "40", &self.name])
    }

    /// Waits for its exit code.
    pub fn code_within(&self, limit: Duration) -> i32 {
        let code = || {
            let state = docker(["inspect", "--format", "{{.State.Running}} {{.State.ExitCode}}", &self.name]);
            state.trim().strip_prefix("false ").map(|code| code.parse().expect("a number"))
        };
        let started = std::time::Instant::now();
        loop {
            if let Some(code) = code() {
                return code;
            }
            assert!(started.elapsed() < limit, "{} still runs after {limit:?}:\n{}", self.name, self.logs());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Asserts its exit code.
    #[track_caller]
    pub fn ends(&self, code: i32) {
        let found = self.code_within(SOON * 2);
        assert_eq!(found, code, "the exit code of\n{}", self.logs());
    }

    /// Whether it still runs.
    pub fn running(&self) -> bool {
        docker(["inspect", "--format", "{{.State.Running}}", &self.name]).trim() == "true"
    }

    /// The termination message.
    pub fn last_word(&self) -> serde_json::Value {
        let text = std::fs::read_to_string(self.log.path()).expect("it reads");
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {text}\n{}", self.logs()))
    }
}
