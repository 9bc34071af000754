//! Why a server refuses a connection in words that are no UTF-8.
//!
//! Until a session has an encoding, a server speaks in its own: with `lc_messages` in Latin-1, say, sqlx cannot read the
//! message and drops the SQLSTATE with it. Then this asks once more, by hand and unencrypted, as far as the question for a
//! password, and reads the SQLSTATE alone. It never sends a password.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

const LIMIT: Duration = Duration::from_secs(5);
/// Longer than any message before the first query.
const LONGEST: usize = 1 << 16;

/// What the server says to a client without a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// No.
    Refused {
        /// Its SQLSTATE.
        sqlstate: String,
    },
    /// It wants one: so it was the user, the password or the database that it refused.
    AsksForPassword,
}

/// Asks. `None` where nothing can be told.
pub async fn ask(host: &str, port: u16, user: &str, database: &str) -> Option<Answer> {
    let asking = async {
        if host.starts_with('/') {
            let socket = Path::new(host).join(format!(".s.PGSQL.{port}"));
            talk(UnixStream::connect(socket).await?, user, database).await
        } else {
            talk(TcpStream::connect((host, port)).await?, user, database).await
        }
    };
    tokio::time::timeout(LIMIT, asking).await.ok()?.ok()?
}

async fn talk(
    mut server: impl AsyncRead + AsyncWrite + Unpin,
    user: &str,
    database: &str,
) -> io::Result<Option<Answer>> {
    server.write_all(&startup(user, database)).await?;
    loop {
        let kind = server.read_u8().await?;
        let length = server.read_u32().await? as usize;
        if !(4..LONGEST).contains(&length) {
            return Ok(None);
        }
        let mut body = vec![0; length - 4];
        server.read_exact(&mut body).await?;
        match kind {
            b'E' => return Ok(sqlstate(&body).map(|sqlstate| Answer::Refused { sqlstate })),
            // AuthenticationOk is 0: whatever it refuses is still to come.
            b'R' if body.iter().any(|byte| *byte != 0) => return Ok(Some(Answer::AsksForPassword)),
            b'Z' => return Ok(None),
            _ => {}
        }
    }
}

/// StartupMessage of protocol 3.0 (PostgreSQL manual, 55.7).
fn startup(user: &str, database: &str) -> Vec<u8> {
    let mut body = 196_608u32.to_be_bytes().to_vec();
    for text in ["user", user, "database", database, ""] {
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    let mut message = (body.len() as u32 + 4).to_be_bytes().to_vec();
    message.append(&mut body);
    message
}

/// Field `C` of an ErrorResponse.
fn sqlstate(body: &[u8]) -> Option<String> {
    let fields = body.split(|byte| *byte == 0);
    let code = fields.filter_map(|field| field.split_first()).find(|(kind, _)| **kind == b'C')?.1;
    (code.len() == 5 && code.is_ascii()).then(|| String::from_utf8_lossy(code).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sqlstate_is_read_whatever_the_words_are_in() {
        let body = b"SFATAL\0VFATAL\0C28P01\0MPassw\xf6rter\0\0";
        assert_eq!(sqlstate(body).as_deref(), Some("28P01"));
        assert_eq!(sqlstate(b"M\xff\0\0"), None);
    }

    #[test]
    fn a_startup_message_says_its_own_length() {
        let message = startup("u", "d");
        assert_eq!(message.len(), 4 + 4 + "user\0u\0database\0d\0\0".len());
        assert_eq!(
            u32::from_be_bytes([message[0], message[1], message[2], message[3]]) as usize,
            message.len()
        );
    }
}
