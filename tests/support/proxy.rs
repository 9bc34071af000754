//! A TCP proxy before PostgreSQL that loses COMMITs: the client's connection is cut where it waits for the answer,
//! and whether the transaction is in is known to the server alone.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::Db;

/// A COMMIT as sqlx sends it, a simple query: type, length, text.
const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";

/// What becomes of a COMMIT that is lost.
#[derive(Clone, Copy, Debug)]
pub enum Loss {
    /// It reaches the server, its answer reaches nobody.
    Answer,
    /// It never reaches the server, which sees the connection end.
    Request,
    /// The client is cut off at once, and the server gets it this much later: the old backend is still at it when the
    /// client is back.
    Late(Duration),
}

/// A running proxy. Its threads end with their connections.
pub struct Proxy {
    port: u16,
    state: Arc<State>,
}

struct State {
    server: u16,
    loss: Loss,
    /// Every how many COMMITs one is lost.
    every: i64,
    seen: AtomicI64,
    lost: AtomicUsize,
}

impl Proxy {
    /// Before the server of `db`; loses one in `every` COMMITs.
    pub fn before(db: &Db, loss: Loss, every: i64) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let state =
            State { server: db.port(), loss, every, seen: AtomicI64::new(0), lost: AtomicUsize::new(0) };
        let state = Arc::new(state);
        let shared = state.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let state = shared.clone();
                thread::spawn(move || pass(client, &state));
            }
        });
        Proxy { port, state }
    }

    /// The database's URL through this proxy.
    pub fn url(&self, db: &Db) -> String {
        db.url.replace(&format!(":{}/", self.state.server), &format!(":{}/", self.port))
    }

    /// How many COMMITs were lost so far.
    pub fn lost(&self) -> usize {
        self.state.lost.load(Ordering::Relaxed)
    }
}

fn pass(mut client: TcpStream, state: &State) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", state.server)) else { return };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let (Ok(mut back), Ok(mut answers)) = (client.try_clone(), server.try_clone()) else { return };
    thread::spawn(move || {
        std::io::copy(&mut answers, &mut back).ok();
        back.shutdown(Shutdown::Both).ok();
    });
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read @ 1..) = client.read(&mut buffer) {
        let part = &buffer[..read];
        // sqlx flushes a COMMIT by itself: it ends what was sent.
        if part.ends_with(COMMIT)
            && state.seen.fetch_add(1, Ordering::Relaxed) % state.every == state.every - 1
        {
            state.lost.fetch_add(1, Ordering::Relaxed);
            client.shutdown(Shutdown::Both).ok();
            match state.loss {
                Loss::Request => {}
                Loss::Answer => drop(server.write_all(part)),
                Loss::Late(delay) => {
                    thread::sleep(delay);
                    server.write_all(part).ok();
                }
            }
            break;
        }
        if server.write_all(part).is_err() {
            break;
        }
    }
    // What was forwarded is read before the end of the stream is.
    server.shutdown(Shutdown::Write).ok();
    client.shutdown(Shutdown::Both).ok();
}
