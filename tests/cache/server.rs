//! A Redis of one's own, gone when the test is.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::until;

pub struct Redis {
    process: Child,
    folder: tempfile::TempDir,
    pub port: u16,
    tls: bool,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Redis {
    /// A server with further settings.
    pub fn start(settings: &[&str]) -> Redis {
        let port = free_port();
        Redis::on(
            port,
            false,
            tempfile::tempdir().unwrap(),
            &[&["--port", &port.to_string()], settings].concat(),
        )
    }

    /// A server that speaks TLS alone; its CA is `ca.pem` in its folder.
    pub fn with_tls() -> Redis {
        let folder = tempfile::tempdir().unwrap();
        certificate(folder.path());
        let port = free_port();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (cert, key, ca) = (path("cert.pem"), path("key.pem"), path("ca.pem"));
        let tls = ["--port", "0", "--tls-port", &port.to_string(), "--tls-auth-clients", "no"];
        let files = ["--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
        let settings = [&tls[..], &files].concat();
        Redis::on(port, true, folder, &settings)
    }

    fn on(port: u16, tls: bool, folder: tempfile::TempDir, settings: &[&str]) -> Redis {
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no"])
            .args(settings);
        let process =
            command.current_dir(folder.path()).stdout(Stdio::null()).spawn().expect("redis-server starts");
        let redis = Redis { process, folder, port, tls };
        until("Redis to answer", crate::support::SOON, || {
            std::net::TcpStream::connect(("127.0.0.1", redis.port)).ok()
        });
        redis
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    pub fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// redis-cli, as an administrator.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        if self.tls {
            command.args(["--tls", "--cacert", &self.file("ca.pem")]);
        }
        let output = command.args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// `n` keys `{prefix}1` … in one go.
    pub fn fill(&self, prefix: &str, n: u32) {
        let script = "for i = 1, tonumber(ARGV[2]) do redis.call('SET', ARGV[1] .. i, '{}') end return 'OK'";
        assert_eq!(self.cli(&["EVAL", script, "0", prefix, &n.to_string()]), "OK");
    }

    pub fn size(&self) -> u32 {
        self.cli(&["DBSIZE"]).parse().unwrap()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn certificate(folder: &Path) {
    let script = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-ca -keyout ca.key -out ca.pem \
                    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=keyCertSign \
                  && openssl req -newkey rsa:2048 -nodes -subj /CN=redis -keyout key.pem -out req.pem \
                  && openssl x509 -req -days 2 -in req.pem -CA ca.pem -CAkey ca.key -CAcreateserial -extfile ext -out cert.pem";
    fs::write(folder.join("ext"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").unwrap();
    let done = Command::new("sh").args(["-c", script]).current_dir(folder).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}
