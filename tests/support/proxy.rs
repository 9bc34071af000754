//! A TCP proxy before PostgreSQL that loses COMMITs: the client's connection is cut, or falls silent, where it waits for
//! the answer, and whether the transaction is in is known to the server alone.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicI64, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
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
    /// It reaches the server, the first bytes of its answer arrive, and then the connection ends.
    HalfAnswer,
    /// It never reaches the server, which sees the connection end.
    Request,
    /// Half of it reaches the server, and then the connection ends.
    HalfRequest,
    /// The client is cut off at once, and the server gets it this much later: the old backend is still at it when the
    /// client is back.
    Late(Duration),
    /// It reaches the server, and from then on nothing passes either way, on a connection that stays open.
    SilentAnswer,
    /// It does not even reach the server.
    SilentRequest,
    /// Nothing is lost; every message takes this much longer, both ways.
    Delay(Duration),
}

/// What becomes of the server's answers on one connection.
#[derive(Clone, Copy, PartialEq)]
enum Answers {
    Pass,
    Half,
    Swallow,
}

/// A running proxy. Its threads end with their connections.
pub struct Proxy {
    port: u16,
    state: Arc<State>,
}

struct State {
    /// The server's port, which may be another one from some moment on.
    server: AtomicU16,
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
        let state = State {
            server: AtomicU16::new(db.port()),
            loss,
            every,
            seen: AtomicI64::new(0),
            lost: AtomicUsize::new(0),
        };
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

    /// Before the server of `db`, and loses nothing.
    pub fn faithful(db: &Db) -> Proxy {
        Proxy::before(db, Loss::Answer, i64::MAX)
    }

    /// From now on, new connections go to the server of `db`.
    pub fn turn_to(&self, db: &Db) {
        self.state.server.store(db.port(), Ordering::Relaxed);
    }

    /// The database's URL through this proxy.
    pub fn url(&self, db: &Db) -> String {
        db.url.replace(&format!(":{}/", db.port()), &format!(":{}/", self.port))
    }

    /// How many COMMITs were lost so far.
    pub fn lost(&self) -> usize {
        self.state.lost.load(Ordering::Relaxed)
    }
}

fn pass(mut client: TcpStream, state: &State) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", state.server.load(Ordering::Relaxed))) else {
        return;
    };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let (Ok(back), Ok(from)) = (client.try_clone(), server.try_clone()) else { return };
    let answers = Arc::new(Mutex::new(Answers::Pass));
    let delay = if let Loss::Delay(delay) = state.loss { delay } else { Duration::ZERO };
    let towards_client = answers.clone();
    thread::spawn(move || pass_answers(from, back, &towards_client, delay));
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read @ 1..) = client.read(&mut buffer) {
        let part = &buffer[..read];
        thread::sleep(delay);
        // sqlx flushes a COMMIT by itself: it ends what was sent.
        let commit = part.ends_with(COMMIT)
            && state.seen.fetch_add(1, Ordering::Relaxed) % state.every == state.every - 1;
        if !commit || matches!(state.loss, Loss::Delay(_)) {
            if server.write_all(part).is_err() {
                break;
            }
            continue;
        }
        state.lost.fetch_add(1, Ordering::Relaxed);
        let silent = matches!(state.loss, Loss::SilentAnswer | Loss::SilentRequest);
        *answers.lock().unwrap() =
            if matches!(state.loss, Loss::HalfAnswer) { Answers::Half } else { Answers::Swallow };
        if !silent && !matches!(state.loss, Loss::HalfAnswer) {
            client.shutdown(Shutdown::Both).ok();
        }
        match state.loss {
            Loss::Request | Loss::SilentRequest | Loss::Delay(_) => {}
            Loss::HalfRequest => drop(server.write_all(&part[..read - COMMIT.len() / 2])),
            Loss::Answer | Loss::HalfAnswer | Loss::SilentAnswer => drop(server.write_all(part)),
            Loss::Late(delay) => {
                thread::sleep(delay);
                server.write_all(part).ok();
            }
        }
        if silent {
            // Until the client gives up.
            while let Ok(1..) = client.read(&mut buffer) {}
        }
        break;
    }
    // What was forwarded is read before the end of the stream is.
    server.shutdown(Shutdown::Write).ok();
    if !matches!(*answers.lock().unwrap(), Answers::Half) {
        client.shutdown(Shutdown::Both).ok();
    }
}

fn pass_answers(mut server: TcpStream, mut client: TcpStream, answers: &Mutex<Answers>, delay: Duration) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read @ 1..) = server.read(&mut buffer) {
        thread::sleep(delay);
        let now = *answers.lock().unwrap();
        match now {
            Answers::Pass if client.write_all(&buffer[..read]).is_ok() => {}
            Answers::Swallow => continue,
            Answers::Half => {
                client.write_all(&buffer[..read / 2]).ok();
                break;
            }
            Answers::Pass => break,
        }
    }
    if !matches!(*answers.lock().unwrap(), Answers::Swallow) {
        client.shutdown(Shutdown::Both).ok();
    }
}
