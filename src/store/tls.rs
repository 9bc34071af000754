//! Why a TLS connection fails, with the file and the remedy. Waiting helps in no case.
//!
//! Certificate files are looked at before sqlx reads them: it would take a missing file for a lost connection, and one in
//! the wrong format for an empty one. Checks nothing itself; that is done by rustls.

use std::io;

use rustls::{AlertDescription, CertificateError, Error as TlsError};
use sqlx::postgres::PgSslMode;

use super::error::StoreError;

/// What a URL says of TLS, for messages.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Where the server is.
    pub host: String,
    /// How it is to be used.
    pub mode: PgSslMode,
    /// `sslrootcert`: a path, PEM text, or `system`.
    pub root_cert: Option<String>,
    /// `sslcert`.
    pub client_cert: Option<String>,
    /// `sslkey`.
    pub client_key: Option<String>,
}

/// What is wrong, and what to do about it.
type Trouble = (String, &'static str);

impl Tls {
    /// Refuses files that cannot be what they are named as.
    pub fn look_at_files(&self, server: &str) -> Result<(), StoreError> {
        let verifies = matches!(self.mode, PgSslMode::VerifyCa | PgSslMode::VerifyFull);
        let root = self.root_cert.as_deref().filter(|cert| verifies && *cert != "system");
        let files = [
            ("sslrootcert", root, CERTIFICATE),
            ("sslcert", self.client_cert.as_deref(), CERTIFICATE),
            ("sslkey", self.client_key.as_deref(), KEY),
        ];
        for (name, file, label) in files {
            let Some(file) = file.filter(|file| !file.trim_start().starts_with("-----BEGIN")) else {
                continue;
            };
            if let Some((cause, remedy)) = look_at(name, file, label) {
                return Err(StoreError::Tls { server: server.to_owned(), cause, remedy });
            }
        }
        Ok(())
    }

    /// What stands behind a failed attempt to connect, if it is TLS.
    pub fn explain(&self, server: &str, source: &sqlx::Error) -> Option<StoreError> {
        let (cause, remedy) = match source {
            sqlx::Error::Io(error) => self.handshake(error.get_ref()?.downcast_ref::<TlsError>()?)?,
            sqlx::Error::Tls(error) => match error.downcast_ref::<TlsError>() {
                Some(error) => self.handshake(error)?,
                None => (error.to_string(), SETTINGS),
            },
            _ => return None,
        };
        Some(StoreError::Tls { server: server.to_owned(), cause, remedy })
    }

    fn handshake(&self, error: &TlsError) -> Option<Trouble> {
        Some(match error {
            TlsError::InvalidCertificate(error) => self.certificate(error),
            TlsError::AlertReceived(AlertDescription::ProtocolVersion) | TlsError::PeerIncompatible(_) => (
                format!("{} offers no TLS version that rekey supports (1.2 and 1.3)", self.host),
                "On the server, set ssl_min_protocol_version and ssl_max_protocol_version to allow TLSv1.2 \
                 or later",
            ),
            TlsError::AlertReceived(
                AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateRequired
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::AccessDenied,
            ) => (
                match &self.client_cert {
                    Some(file) => {
                        format!("{} rejects the client certificate, sslcert={file}: {error}", self.host)
                    }
                    None => format!("{} requires a client certificate: {error}", self.host),
                },
                "Name a certificate that the server's ssl_ca_file signed, and its key, with sslcert and sslkey",
            ),
            TlsError::AlertReceived(
                AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity,
            ) => (
                format!("{} and rekey have no TLS cipher in common", self.host),
                "On the server, allow a cipher with ECDHE and AES-GCM or ChaCha20-Poly1305 in ssl_ciphers",
            ),
            TlsError::NoCertificatesPresented => (
                format!("{} presents no certificate", self.host),
                "Give the server a certificate (ssl_cert_file)",
            ),
            TlsError::InconsistentKeys(_) => (
                "sslkey does not belong to sslcert".to_owned(),
                "Name the key that belongs to the certificate",
            ),
            // Garbled bytes: the connection, and no setting.
            _ => return None,
        })
    }

    fn certificate(&self, error: &CertificateError) -> Trouble {
        let host = &self.host;
        match error {
            CertificateError::UnknownIssuer => match self.root_cert.as_deref() {
                None | Some("system") => (
                    format!("no public authority signed the certificate of {host}"),
                    "Name the file with its authority's certificate: sslrootcert=…",
                ),
                Some(file) => (
                    format!("no authority in sslrootcert={} signed the certificate of {host}", shown(file)),
                    "Name a file with the authority that signed the server's certificate, and any \
                     intermediates, with sslrootcert",
                ),
            },
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
                format!("the certificate of the server is not for {host}: {}", told(error)),
                "Use the name in the certificate as the host, or give the server a certificate for this \
                 name. sslmode=verify-ca does not compare names",
            ),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
                format!("the certificate of {host} has expired: {}", told(error)),
                "Give the server a new certificate",
            ),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
                format!("the certificate of {host} is not valid yet: {}", told(error)),
                "Correct this machine's clock, or give the server another certificate",
            ),
            CertificateError::Revoked => {
                (format!("the certificate of {host} was revoked"), "Give the server a new certificate")
            }
            CertificateError::Other(other) => match format!("{:?}", other.0).as_str() {
                "CaUsedAsEndEntity" => (
                    format!(
                        "the certificate of {host} is a CA certificate (CA:TRUE), which libpq accepts and \
                         rekey does not"
                    ),
                    "Give the server a certificate with CA:FALSE that this authority signed (`openssl req \
                     -x509` makes CA:TRUE by default)",
                ),
                "UnsupportedCertVersion" => (
                    format!(
                        "the certificate of {host} has version 1, which libpq accepts and rekey does not"
                    ),
                    "Give the server a version 3 certificate, which `openssl x509 -req -extfile FILE` makes",
                ),
                other => (format!("the certificate of {host} is refused: {other}"), SETTINGS),
            },
            error => (format!("the certificate of {host} is refused: {}", told(error)), SETTINGS),
        }
    }
}

const SETTINGS: &str =
    "Check sslmode, sslrootcert, sslcert and sslkey in DATABASE_URL, and the server's certificate";
const CERTIFICATE: &str = "CERTIFICATE";
const KEY: &str = "PRIVATE KEY";

fn told(error: &CertificateError) -> String {
    TlsError::InvalidCertificate(error.clone()).to_string()
}

fn shown(file: &str) -> &str {
    if file.starts_with("-----BEGIN") { "(PEM text)" } else { file }
}

fn look_at(name: &'static str, file: &str, label: &str) -> Option<Trouble> {
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) => {
            let why = match error.kind() {
                io::ErrorKind::NotFound => "the file does not exist".to_owned(),
                io::ErrorKind::PermissionDenied => "this user can't read it".to_owned(),
                _ => error.to_string(),
            };
            return Some((
                format!("can't read {name}={file}: {why}"),
                "Name a file that exists and is readable",
            ));
        }
    };
    let text = String::from_utf8_lossy(&bytes);
    let has = |label: &str| text.lines().any(|line| line.starts_with("-----BEGIN") && line.contains(label));
    if text.lines().any(|line| line.trim_end() == format!("-----BEGIN {label}-----"))
        || label == KEY && has(KEY)
    {
        return None;
    }
    Some(match bytes.first() {
        // The tag of a SEQUENCE, with which every certificate and key begins.
        Some(0x30) => (
            format!("{name}={file} is in DER; rekey reads PEM, as libpq does"),
            if label == KEY {
                "Convert it: `openssl pkey -inform DER -in FILE -out FILE.pem`"
            } else {
                "Convert it: `openssl x509 -inform DER -in FILE -out FILE.pem`"
            },
        ),
        _ if has("TRUSTED CERTIFICATE") || has("X509 CERTIFICATE") => (
            format!(
                "{name}={file} holds a certificate in OpenSSL's own format, which libpq accepts and rekey \
                 does not"
            ),
            "Convert it: `openssl x509 -in FILE -out FILE.pem`",
        ),
        _ => (format!("{name}={file} holds no {} in PEM", label.to_lowercase()), "Name the right file"),
    })
}
