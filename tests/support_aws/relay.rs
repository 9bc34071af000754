//! A relay that loses chosen messages: the request before it arrives, or the answer after it took effect.
//!
//! "Killed between any two outside effects" is the n-th message lost and every later one too; a network fault is
//! the n-th message alone.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What to lose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lose {
    Nothing,
    /// The n-th request (from 0) and all that follow never arrive: killed before an effect.
    RequestsFrom(usize),
    /// The n-th request takes effect, its answer and all that follows is lost: killed after an effect.
    AnswersFrom(usize),
    /// The n-th answer alone is lost: the client tries again.
    Answer(usize),
    /// As `RequestsFrom`, counting only requests that change something.
    ChangesFrom(usize),
    /// As `AnswersFrom`, counting only requests that change something: that change takes effect, nothing after it.
    ChangedFrom(usize),
    /// The first `times` requests of this action (`PutSecretValue`, say) are answered with this error instead.
    Refused {
        action: &'static str,
        times: usize,
        status: u16,
        code: &'static str,
    },
}

/// Actions that change nothing.
const READS: [&str; 4] = ["GetSecretValue", "DescribeSecret", "ListSecrets", "ListSecretVersionIds"];

pub struct Relay {
    pub url: String,
    count: Arc<AtomicUsize>,
    lost: Arc<AtomicUsize>,
    /// Every request as it came.
    requests: Arc<Mutex<Vec<Vec<u8>>>>,
}

#[derive(Clone, Default)]
struct Counters {
    all: Arc<AtomicUsize>,
    changes: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
    lost: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Relay {
    pub async fn start(upstream: &str, lose: Lose) -> Relay {
        let upstream = upstream.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let counters = Counters::default();
        let (count, lost) = (counters.all.clone(), counters.lost.clone());
        let requests = counters.requests.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, upstream.clone(), lose, counters.clone()));
            }
        });
        Relay { url, count, lost, requests }
    }

    /// Whether a message was lost by now.
    pub fn has_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst) > 0
    }

    /// Requests seen so far.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// What was asked since the last time: each action with its body.
    pub fn calls(&self) -> Vec<(String, serde_json::Value)> {
        let requests = std::mem::take(&mut *self.requests.lock().unwrap());
        requests.iter().filter_map(|request| call(request)).collect()
    }
}

/// The action and the JSON after the head.
fn call(request: &[u8]) -> Option<(String, serde_json::Value)> {
    let head = request.windows(4).position(|w| w == b"\r\n\r\n")?;
    let action = Some(action(&request[..head])).filter(|action| !action.is_empty())?;
    Some((action, serde_json::from_slice(&request[head + 4..]).ok()?))
}

async fn serve(mut client: TcpStream, upstream: String, lose: Lose, counters: Counters) -> Option<()> {
    let request = message(&mut client).await?;
    counters.requests.lock().unwrap().push(request.clone());
    let n = counters.all.fetch_add(1, Ordering::SeqCst);
    let action = action(&request);
    let reads = READS.contains(&action.as_str());
    // Which change this is; for a read, how many there were before it.
    let change = match reads {
        true => counters.changes.load(Ordering::SeqCst),
        false => counters.changes.fetch_add(1, Ordering::SeqCst),
    };
    let (request_lost, answer_lost) = match lose {
        Lose::Nothing => (false, false),
        Lose::RequestsFrom(from) => (n >= from, false),
        Lose::AnswersFrom(from) => (n > from, n >= from),
        Lose::Answer(only) => (false, n == only),
        Lose::ChangesFrom(from) => (change > from || (!reads && change == from), false),
        Lose::ChangedFrom(from) => (change > from, !reads && change == from),
        Lose::Refused { action: which, times, status, code } => {
            if action == which && counters.refused.fetch_add(1, Ordering::SeqCst) < times {
                let body = format!("{{\"__type\":\"{code}\",\"message\":\"{code} for {which}\"}}");
                let answer = format!(
                    "HTTP/1.1 {status} Refused\r\nContent-Type: application/x-amz-json-1.1\r\nConnection: close\r\n\
                     Content-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                client.write_all(answer.as_bytes()).await.ok()?;
                return Some(());
            }
            (false, false)
        }
    };
    if request_lost {
        counters.lost.fetch_add(1, Ordering::SeqCst);
        return None;
    }
    let mut server = TcpStream::connect(upstream).await.ok()?;
    server.write_all(&request).await.ok()?;
    let answer = message(&mut server).await?;
    if answer_lost {
        counters.lost.fetch_add(1, Ordering::SeqCst);
    } else {
        // The client is told to close, so that every request comes as a connection of its own.
        let split = answer.windows(2).position(|w| w == b"\r\n")? + 2;
        client.write_all(&answer[..split]).await.ok()?;
        client.write_all(b"Connection: close\r\n").await.ok()?;
        client.write_all(&answer[split..]).await.ok()?;
    }
    Some(())
}

/// What a request asks for: the end of its X-Amz-Target.
fn action(request: &[u8]) -> String {
    let text = String::from_utf8_lossy(request);
    let target = text.lines().find(|line| line.to_ascii_lowercase().starts_with("x-amz-target:"));
    target
        .and_then(|line| line.rsplit_once('.'))
        .map(|(_, action)| action.trim().to_owned())
        .unwrap_or_default()
}

/// One HTTP/1.1 message with a Content-Length.
async fn message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16384];
    loop {
        if let Some(head) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
            let length = text.lines().find_map(|l| l.strip_prefix("content-length:")?.trim().parse().ok());
            if bytes.len() >= head + 4 + length.unwrap_or(0usize) {
                return Some(bytes);
            }
        }
        match stream.read(&mut buffer).await.ok()? {
            0 => return None,
            n => bytes.extend_from_slice(&buffer[..n]),
        }
    }
}
