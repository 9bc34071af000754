//! PgBouncer before a cluster, as Debian ships it; gone when dropped.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

use super::cluster::{free_port, server_user};
use super::{Db, block_on, until};

/// A running PgBouncer.
pub struct Pooler {
    server: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Pooler {
    /// Starts one in `mode` before the server that `db` is on.
    pub fn start(db: &Db, mode: &str) -> Pooler {
        use std::os::unix::process::CommandExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("modes change");
        let port = free_port();
        let address = url::Url::parse(&db.url).expect("a URL");
        let server_port = address.port().expect("a port");
        let file = folder.path().join("pgbouncer.ini");
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={server_port} user=postgres\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
             pool_mode = {mode}\nignore_startup_parameters = extra_float_digits\n"
        );
        fs::write(&file, settings).expect("settings");
        let mut command = Command::new("pgbouncer");
        command.arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Some((user, group)) = server_user() {
            command.uid(user).gid(group);
        }
        let path = std::env::var("PATH").unwrap_or_default();
        let server = command.env("PATH", format!("{path}:/usr/sbin")).spawn();
        let server = server.expect("pgbouncer is installed (scripts/test installs it)");
        until("PgBouncer to take connections", super::SOON, || TcpStream::connect(("127.0.0.1", port)).ok());
        Pooler { server, port, _folder: folder }
    }

    /// The URL of `db` through the pooler.
    pub fn url(&self, db: &Db) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{}", self.port, db.name)
    }

    /// What a client of the pool finds a setting at.
    pub fn show(&self, db: &Db, setting: &str) -> String {
        block_on(async {
            let mut client = PgConnection::connect(&self.url(db)).await.expect("connects");
            let sql = AssertSqlSafe(format!("SHOW {setting}"));
            sqlx::raw_sql(sql).fetch_one(&mut client).await.expect("an answer").get(0)
        })
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        self.server.kill().ok();
        self.server.wait().ok();
    }
}
