//! TLS that cannot work, and passwords that are refused: exit 2 at once, naming the file or the host and the cause. A server
//! that is merely starting is waited for, whatever language it says so in.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::cluster::{free_port, server_user};
use crate::support::load::Load;
use crate::support::{Cluster, Db, Judge, NEW, OLD, Outcome, SOON, rekey, until};

/// Certificates made by openssl, the program, in a folder that the server can read.
struct Certificates(tempfile::TempDir);

impl Certificates {
    fn new() -> Certificates {
        let folder = tempfile::Builder::new().prefix("rekey-tls-").tempdir().expect("a folder");
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))
            .expect("modes change");
        let made = Certificates(folder);
        made.authority("ca");
        made.authority("other");
        made
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(self.0.path())
            .output()
            .expect("openssl starts");
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn authority(&self, name: &str) {
        self.openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.pem -days 9 -subj /CN={name} \
             -addext basicConstraints=critical,CA:TRUE"
        ));
    }

    /// A certificate of the authority `ca`, with these extensions; without any it is of version 1.
    fn signed(&self, name: &str, extensions: &str) {
        self.openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"
        ));
        let sign = format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {name}.pem -days 9"
        );
        if extensions.is_empty() {
            return self.openssl(&sign);
        }
        std::fs::write(self.path(&format!("{name}.ext")), extensions).expect("a file");
        self.openssl(&format!("{sign} -extfile {name}.ext"));
    }

    /// A server that shows this certificate.
    fn server(&self, name: &str, more: &str) -> Cluster {
        let (certificate, key) = (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")));
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("modes change");
        if let Some((user, group)) = server_user() {
            chown(&key, Some(user), Some(group)).expect("owners change");
        }
        Cluster::with(&format!(
            "ssl_cert_file = '{}'\nssl_key_file = '{}'\n{more}",
            certificate.display(),
            key.display()
        ))
    }
}

const FOR_LOCALHOST: &str = "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE";

/// A database of a server that speaks TLS from now on: with some of these certificates the test itself could not connect.
fn over_tls(cluster: &Cluster) -> Db {
    let db = Db::on(cluster);
    db.execute("ALTER SYSTEM SET ssl = on");
    db.execute("SELECT pg_reload_conf()");
    let plain = Db::at(&db.name, format!("{}?sslmode=disable", db.url));
    until("TLS to be switched on", SOON, || {
        (plain.value::<String>("SELECT current_setting('ssl')") == "on").then_some(())
    });
    db
}

/// Refused at once, whatever patience there is, in words that hold each of `told`.
#[track_caller]
fn refused(url: &str, told: &[&str]) -> Outcome {
    let run = crate::support::rekey_without_database(["status"]).env("DATABASE_URL", url);
    let outcome = run.start().wait_for(Duration::from_secs(20)).expect(2);
    assert!(outcome.took < Duration::from_secs(8), "{outcome}");
    for told in told {
        assert!(outcome.stderr.contains(told), "{told}: {outcome}");
    }
    outcome
}

fn with(db: &Db, mode: &str, root: &Path) -> String {
    format!("{}?sslmode={mode}&sslrootcert={}", db.url, root.display())
}

#[test]
fn a_server_with_a_good_certificate_and_what_can_be_wrong_with_it() {
    let made = Certificates::new();
    made.signed("good", FOR_LOCALHOST);
    let cluster = made.server("good", "");
    let db = over_tls(&cluster);
    Load::rows(60).into(&db);

    let (ca, other) = (made.path("ca.pem"), made.path("other.pem"));
    let other_name = db.url.replace("127.0.0.1", "127.0.0.2");
    assert!(other_name.contains("127.0.0.2"));
    refused(&with(&db, "verify-full", &other), &["no authority in sslrootcert=", "other.pem"]);
    refused(&with(&db, "verify-ca", &other), &["no authority in sslrootcert=", "other.pem"]);
    refused(&format!("{}?sslmode=verify-full", db.url), &["no public authority signed", "sslrootcert=…"]);
    refused(&with(&db, "verify-ca", &made.path("absent.pem")), &["absent.pem", "the file does not exist"]);
    made.openssl("x509 -in ca.pem -outform DER -out ca.der");
    refused(&with(&db, "verify-ca", &made.path("ca.der")), &["ca.der is in DER", "openssl x509 -inform DER"]);
    refused(&with(&db, "verify-ca", &made.path("ca.key")), &["ca.key holds no certificate in PEM"]);
    made.openssl("x509 -in ca.pem -trustout -out trusted.pem");
    refused(&with(&db, "verify-ca", &made.path("trusted.pem")), &["OpenSSL's own form"]);

    let mut judge = Judge::look(&db, &[OLD]);
    rekey(&db, ["run"]).env("DATABASE_URL", with(&db, "verify-full", &ca)).exits(0);
    judge.all_on(&db, NEW);
    // A name in the text that libpq itself takes.
    let text = format!(
        "host=127.0.0.1 port={} user=postgres dbname={} sslmode=verify-full sslrootcert='{}'",
        db.port(),
        db.name,
        ca.display()
    );
    rekey(&db, ["verify"]).env("DATABASE_URL", text).exits(0);
}

#[test]
fn certificates_that_libpq_takes_and_rekey_does_not() {
    let made = Certificates::new();
    made.signed("first-version", "");
    made.signed("elsewhere", "subjectAltName=DNS:db.internal\nbasicConstraints=CA:FALSE");
    made.openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout self.key -out self.pem -days 9 -subj /CN=localhost \
         -addext subjectAltName=IP:127.0.0.1",
    );
    for (server, root, modes, told) in [
        ("first-version", "ca.pem", &["verify-full", "verify-ca", "require"][..], "has version 1"),
        ("self", "self.pem", &["verify-full", "verify-ca"], "is a CA certificate (CA:TRUE)"),
        ("elsewhere", "ca.pem", &["verify-full"], "is not for 127.0.0.1"),
    ] {
        let cluster = made.server(server, "");
        let db = over_tls(&cluster);
        for mode in modes {
            let root = made.path(root);
            refused(&with(&db, mode, &root), &[told]);
        }
    }
}

#[test]
fn a_protocol_that_is_too_old() {
    let made = Certificates::new();
    made.signed("good", FOR_LOCALHOST);
    let old = "ssl_min_protocol_version = 'TLSv1'\nssl_max_protocol_version = 'TLSv1.1'\nssl_ciphers = 'ALL:@SECLEVEL=0'";
    let cluster = made.server("good", old);
    let db = over_tls(&cluster);
    refused(&with(&db, "verify-full", &made.path("ca.pem")), &["no TLS version that rekey supports"]);
}

#[test]
fn a_server_that_wants_a_certificate_or_has_no_tls_at_all() {
    let made = Certificates::new();
    let cluster = Cluster::start();
    let db = Db::on(&cluster);
    refused(&with(&db, "verify-full", &made.path("ca.pem")), &["does not support TLS"]);
    let url = format!("{}?sslmode=require&sslcert=/nowhere/c.pem&sslkey=/nowhere/c.key", db.url);
    refused(&url, &["sslcert=/nowhere/c.pem", "the file does not exist"]);
}

/// A server that answers what it is told to, in Latin-1: real ones do until a session has an encoding.
fn speaks_latin1(asks_for_password: bool, sqlstate: &'static str, then_goes: bool) -> u16 {
    let port = free_port();
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut buffer = [0u8; 4096];
            if client.read(&mut buffer).unwrap_or(0) == 0 {
                continue;
            }
            if asks_for_password {
                client.write_all(b"R\0\0\0\x08\0\0\0\x03").ok();
                if client.read(&mut buffer).unwrap_or(0) == 0 {
                    continue;
                }
            }
            let mut body = b"SFATAL\0VFATAL\0C".to_vec();
            body.extend_from_slice(sqlstate.as_bytes());
            body.extend_from_slice(b"\0MPassw\xf6rter und \xc4hnliches\0\0");
            let mut message = vec![b'E'];
            message.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
            message.append(&mut body);
            client.write_all(&message).ok();
            if then_goes {
                return;
            }
        }
    });
    port
}

#[test]
fn a_password_that_is_refused_in_another_encoding() {
    for (asks, sqlstate) in [(true, "28P01"), (false, "28000"), (false, "3D000")] {
        let port = speaks_latin1(asks, sqlstate, false);
        let url = format!("postgresql://u:topsecret@127.0.0.1:{port}/d?sslmode=disable");
        let outcome = refused(&url, &["refuses", "The server's log shows the reason"]);
        outcome.says_none_of(&["topsecret"]);
    }
}

#[test]
fn a_server_that_starts_in_another_encoding_is_waited_for() {
    let port = speaks_latin1(false, "57P03", false);
    let url = format!("postgresql://u:p@127.0.0.1:{port}/d?sslmode=disable");
    let status =
        crate::support::rekey_without_database(["status", "--retry-for", "2s"]).env("DATABASE_URL", url);
    let outcome = status.exits(69);
    assert!(outcome.took > Duration::from_secs(2), "{outcome}");
}

/// SCRAM, with a password that SASLprep forbids: sqlx would show the character.
#[test]
fn no_character_of_an_odd_password_is_shown() {
    let cluster = Cluster::start();
    let db = Db::on(&cluster);
    db.execute("CREATE ROLE odd LOGIN PASSWORD 'pass😀word'");
    cluster.ask_for_passwords();
    let url = format!("postgresql://odd:pass%F0%9F%98%80word@127.0.0.1:{}/{}", db.port(), db.name);
    let outcome = refused(&url, &["SASLprep", "Give the role a password of ASCII letters"]);
    outcome.says_none_of(&["😀", "1f600", "1F600", "pass😀"]);
}
