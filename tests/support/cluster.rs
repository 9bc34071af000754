//! A PostgreSQL cluster of one's own: made by initdb, reached over 127.0.0.1, durable as a real one is, and gone when
//! the test process is, however that ends.

use std::fs::{self, File};
use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection as _, PgConnection};

use super::{block_on, until};

/// How a server is made to stop.
#[derive(Clone, Copy, Debug)]
pub enum Stop {
    /// Sessions are ended, a checkpoint is written.
    Fast,
    /// No checkpoint: the next start recovers from the WAL.
    Immediate,
    /// SIGKILL to the postmaster: nobody says goodbye.
    Kill,
    /// SIGKILL to all its processes: what was not written to a file is gone.
    Crash,
}

/// A running PostgreSQL, its data folder and its log.
pub struct Cluster {
    /// initdb and postgres, of one version.
    programs: PathBuf,
    folder: PathBuf,
    data: PathBuf,
    port: u16,
    log: PathBuf,
    server: Mutex<Option<Child>>,
    /// Waits while the pipe to its stdin is open; when this process ends, in whatever way, that closes.
    _watchdog: Option<Child>,
}

/// Stops every server under the folder `$1` once its stdin closes, then deletes the folder.
const WATCHDOG: &str = r#"
trap '' INT TERM HUP
cat >/dev/null
for file in "$1"/*/postmaster.pid; do
    [ -f "$file" ] || continue
    read -r pid <"$file"
    kill -QUIT "$pid" 2>/dev/null
    n=0; while kill -0 "$pid" 2>/dev/null && [ $n -lt 100 ]; do sleep 0.05; n=$((n + 1)); done
    kill -KILL "$pid" 2>/dev/null
done
sleep 0.2
rm -rf "$1"
"#;

const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 200
shared_buffers = 48MB
fsync = on
full_page_writes = on
wal_level = replica
max_wal_senders = 4
max_replication_slots = 4
hot_standby = on
log_line_prefix = '%m [%p] %d %a '
log_lock_waits = on
";

impl Cluster {
    /// One that the tests of a binary share. Hundreds of databases would fill the disk, and each that is dropped costs
    /// a checkpoint, which tests beside it would notice: so every so often there is a new one, and the one before is
    /// gone when its last database is.
    pub fn shared() -> Arc<Cluster> {
        const DATABASES: u32 = 50;
        static SHARED: Mutex<Option<(Arc<Cluster>, u32)>> = Mutex::new(None);
        let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (cluster, number) = match shared.take() {
            Some((cluster, number)) if number < DATABASES => (cluster, number),
            _ => (Arc::new(Cluster::start()), 0),
        };
        *shared = Some((cluster.clone(), number + 1));
        cluster
    }

    /// A new cluster, for a test that stops its server.
    pub fn start() -> Cluster {
        Cluster::of(&programs(), "")
    }

    /// A new cluster with `settings` after ours.
    pub fn with(settings: &str) -> Cluster {
        Cluster::of(&programs(), settings)
    }

    /// A new cluster of the version whose programs are in `programs`, with `settings` after ours.
    pub fn of(programs: &Path, settings: &str) -> Cluster {
        let folder = new_folder();
        let watchdog = watch(&folder);
        let data = folder.join("data");
        let output = as_server(&programs.join("initdb"))
            .args([
                "--no-sync",
                "--auth=trust",
                "--username=postgres",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "-D",
            ])
            .arg(&data)
            .output()
            .expect("initdb starts");
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        append(&data.join("postgresql.conf"), &format!("{SETTINGS}{settings}\n"));
        let cluster = Cluster::serve(programs.to_owned(), folder, data, Some(watchdog));
        cluster.prepare_template();
        cluster
    }

    fn serve(programs: PathBuf, folder: PathBuf, data: PathBuf, watchdog: Option<Child>) -> Cluster {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let log = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("postgres-{}-{number}.log", env!("CARGO_CRATE_NAME")));
        fs::remove_file(&log).ok();
        let cluster = Cluster {
            programs,
            folder,
            data,
            port: free_port(),
            log,
            server: Mutex::new(None),
            _watchdog: watchdog,
        };
        cluster.boot();
        cluster
    }

    /// Starts the server (again), and returns once it takes connections.
    pub fn boot(&self) {
        self.spawn();
        until("PostgreSQL to take connections", Duration::from_secs(60), || {
            // Not within the condition: there the lock would be held while the server is spawned again.
            let ended = self.server.lock().unwrap().as_mut().and_then(|server| server.try_wait().unwrap());
            if let Some(status) = ended {
                // After a SIGKILL the orphaned backends still hold the shared memory for a moment.
                let mut said = String::new();
                File::open(&self.log).and_then(|mut log| log.read_to_string(&mut said)).ok();
                let orphans = said
                    .trim_end()
                    .ends_with("HINT:  Terminate any old server processes associated with data directory")
                    || said.contains("pre-existing shared memory block");
                assert!(orphans, "postgres ended with {status}:\n{said}");
                self.spawn();
            }
            block_on(PgConnection::connect(&self.url("postgres"))).ok()
        });
    }

    /// Starts the server without waiting for it to take connections.
    pub fn spawn(&self) {
        let log = File::options().create(true).append(true).open(&self.log).expect("the log opens");
        let server = as_server(&self.programs.join("postgres"))
            .arg("-D")
            .arg(&self.data)
            .args(["-p", &self.port.to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("postgres starts");
        *self.server.lock().unwrap() = Some(server);
    }

    /// Stops the server and waits until it is gone.
    pub fn stop(&self, how: Stop) {
        let mut server = self.server.lock().unwrap();
        let Some(mut child) = server.take() else { return };
        let signal = match how {
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
            Stop::Kill | Stop::Crash => Signal::KILL,
        };
        let postmaster = Pid::from_child(&child);
        let children = children_of(postmaster);
        kill_process(postmaster, signal).expect("the server takes a signal");
        if matches!(how, Stop::Crash) {
            children.into_iter().for_each(|child| {
                kill_process(child, signal).ok();
            });
        }
        child.wait().expect("the server ends");
    }

    /// Suspends the WAL writer for good, to be followed by [`Stop::Crash`]. What is committed without waiting for the
    /// disk then stays in memory, until somebody commits who waits for it.
    pub fn freeze_wal_writer(&self) {
        let server = self.server.lock().unwrap();
        let children = children_of(Pid::from_child(server.as_ref().expect("the server runs")));
        let title =
            |pid: &Pid| fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
        let writer = children.into_iter().find(|pid| title(pid).starts_with(b"postgres: walwriter"));
        kill_process(writer.expect("there is a WAL writer"), Signal::STOP).expect("it takes a signal");
    }

    /// Suspends or continues the postmaster and all its children: a server that is there and does not answer.
    pub fn freeze(&self, frozen: bool) {
        let server = self.server.lock().unwrap();
        let postmaster = Pid::from_child(server.as_ref().expect("the server runs"));
        let signal = if frozen { Signal::STOP } else { Signal::CONT };
        for child in children_of(postmaster) {
            kill_process(child, signal).ok();
        }
        kill_process(postmaster, signal).expect("the server takes a signal");
    }

    /// A hot standby of this server, made with pg_basebackup and streaming from it.
    pub fn standby(&self) -> Cluster {
        let data = self.folder.join(format!("standby-{}", free_port()));
        let output = as_server(&self.programs.join("pg_basebackup"))
            .args([
                "-h",
                "127.0.0.1",
                "-U",
                "postgres",
                "-R",
                "-X",
                "stream",
                "-c",
                "fast",
                "--no-sync",
                "-p",
                &self.port.to_string(),
            ])
            .arg("-D")
            .arg(&data)
            .output()
            .expect("pg_basebackup starts");
        assert!(output.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&output.stderr));
        Cluster::serve(self.programs.clone(), self.folder.clone(), data, None)
    }

    /// Asks for a password from now on, whoever comes over 127.0.0.1, other than `postgres`.
    pub fn ask_for_passwords(&self) {
        let hba = self.data.join("pg_hba.conf");
        let rules = "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
        fs::write(hba, rules).expect("rules");
        let postmaster = Pid::from_child(self.server.lock().unwrap().as_ref().expect("the server runs"));
        kill_process(postmaster, Signal::HUP).expect("the server takes a signal");
        let stranger = self.url("postgres").replace("postgres@", "nobody@");
        until("the rules to be read", Duration::from_secs(60), || {
            let refused = block_on(PgConnection::connect(&stranger)).err()?;
            // Until then nobody is trusted, and does not exist.
            (refused.as_database_error()?.code()? == "28P01").then_some(())
        });
    }

    /// Makes a standby of this server, which is stopped and boots as one: what a failover leaves of the old primary.
    pub fn demote(&self) {
        let signal = self.data.join("standby.signal");
        File::create(&signal).expect("a signal file");
        if let Some((user, group)) = server_user() {
            chown(&signal, Some(user), Some(group)).expect("owners change");
        }
    }

    /// Overwrites a file of a stopped server's with zeros, which is how a lost block reads.
    pub fn zero(&self, path: &str) {
        let path = self.data.join(path);
        let bytes = fs::metadata(&path).expect("the file is there").len() as usize;
        File::options()
            .write(true)
            .open(&path)
            .and_then(|mut file| std::io::Write::write_all(&mut file, &vec![0; bytes]))
            .expect("it is overwritten");
    }

    /// Moves the WAL of a stopped server to a folder that is not there yet.
    pub fn move_wal(&self, to: &Path) {
        let from = self.data.join("pg_wal");
        let moved = Command::new("mv").arg(&from).arg(to).status().expect("mv starts");
        assert!(moved.success(), "mv {}", from.display());
        std::os::unix::fs::symlink(to, from).expect("a link");
    }

    /// Where `database` is reached, as a plain PostgreSQL URL.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The server's port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What the server has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn prepare_template(&self) {
        block_on(async {
            let mut connection = PgConnection::connect(&self.url("postgres")).await.expect("connects");
            sqlx::raw_sql("CREATE DATABASE application").execute(&mut connection).await.expect("a template");
            let mut application = PgConnection::connect(&self.url("application")).await.expect("connects");
            let schema = include_str!("../../fixtures/schema.sql");
            sqlx::raw_sql(schema).execute(&mut application).await.expect("the schema loads");
            application.close().await.expect("closes");
        });
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.lock().ok().and_then(|mut server| server.take()) {
            server.kill().ok();
            server.wait().ok();
        }
    }
}

/// A command of PostgreSQL's, as the user `postgres` where we are root (which PostgreSQL refuses to run as).
fn as_server(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_remove("PGDATA").env("LC_ALL", "C.UTF-8").current_dir("/");
    if let Some((user, group)) = server_user() {
        command.uid(user).gid(group);
    }
    command
}

fn programs() -> PathBuf {
    if let Some(folder) = std::env::var_os("PG_BIN") {
        return folder.into();
    }
    let versions = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed (or PG_BIN is set)");
    let newest = versions.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).max();
    PathBuf::from(format!("/usr/lib/postgresql/{}/bin", newest.expect("a version of PostgreSQL")))
}

/// Ids of the user `postgres`, where this process is root.
pub fn server_user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("users are listed");
    let line = users.lines().find(|line| line.starts_with("postgres:")).expect("a user postgres");
    let mut fields = line.split(':').skip(2).map(|field| field.parse().expect("a number"));
    Some((fields.next()?, fields.next()?))
}

fn new_folder() -> PathBuf {
    let folder = tempfile::Builder::new().prefix("rekey-test-").tempdir().expect("a folder").keep();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).expect("modes change");
    if let Some((user, group)) = server_user() {
        chown(&folder, Some(user), Some(group)).expect("owners change");
    }
    folder
}

fn watch(folder: &Path) -> Child {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", WATCHDOG, "watchdog"]).arg(folder).current_dir("/").process_group(0);
    shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    shell.spawn().expect("sh starts")
}

/// The first port that [`free_port`] gives, and the first one that the system gives to whoever asks for any.
const PORTS: (u16, u16) = (10_000, 32_768);

/// A port of 127.0.0.1 that nobody listens on, never the same twice, and below those that the system gives by itself: a
/// server that is down for a restart finds its own again. Test processes count on from places of their own, which lie
/// far apart for ids that are close.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let (first, count) = (PORTS.0, u64::from(PORTS.1 - PORTS.0));
    let place = (u64::from(std::process::id().wrapping_mul(0x9E37_79B9)) * count) >> 32;
    let mut ports = (0..count).map(|_| {
        let number = u64::from(NEXT.fetch_add(1, Ordering::Relaxed));
        first + ((place + number) % count) as u16
    });
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

fn append(file: &Path, text: &str) {
    use std::io::Write as _;
    File::options()
        .append(true)
        .open(file)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .expect("settings");
}

fn children_of(parent: Pid) -> Vec<Pid> {
    let pid = parent.as_raw_nonzero();
    let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    listed.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}
