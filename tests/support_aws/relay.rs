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
}

pub struct Relay {
    pub url: String,
    count: Arc<AtomicUsize>,
    /// Every request as it came.
    requests: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Relay {
    pub async fn start(upstream: &str, lose: Lose) -> Relay {
        let upstream = upstream.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let count = Arc::new(AtomicUsize::new(0));
        let counter = count.clone();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, upstream.clone(), lose, counter.clone(), seen.clone()));
            }
        });
        Relay { url, count, requests }
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

/// `X-Amz-Target: secretsmanager.GetSecretValue` and the JSON after the head.
fn call(request: &[u8]) -> Option<(String, serde_json::Value)> {
    let head = request.windows(4).position(|w| w == b"\r\n\r\n")?;
    let text = String::from_utf8_lossy(&request[..head]).into_owned();
    let target = text.lines().find(|line| line.to_ascii_lowercase().starts_with("x-amz-target:"))?;
    let action = target.rsplit_once('.')?.1.trim().to_owned();
    Some((action, serde_json::from_slice(&request[head + 4..]).ok()?))
}

async fn serve(
    mut client: TcpStream,
    upstream: String,
    lose: Lose,
    count: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
) -> Option<()> {
    let request = message(&mut client).await?;
    seen.lock().unwrap().push(request.clone());
    let n = count.fetch_add(1, Ordering::SeqCst);
    let (request_lost, answer_lost) = match lose {
        Lose::Nothing => (false, false),
        Lose::RequestsFrom(from) => (n >= from, true),
        Lose::AnswersFrom(from) => (n > from, n >= from),
        Lose::Answer(only) => (false, n == only),
    };
    let (request_lost, answer_lost) =
        (request_lost, answer_lost && !matches!(lose, Lose::RequestsFrom(f) if n < f));
    if request_lost {
        return None;
    }
    let mut server = TcpStream::connect(upstream).await.ok()?;
    server.write_all(&request).await.ok()?;
    let answer = message(&mut server).await?;
    if !answer_lost {
        // The client is told to close, so that every request comes as a connection of its own.
        let split = answer.windows(2).position(|w| w == b"\r\n")? + 2;
        client.write_all(&answer[..split]).await.ok()?;
        client.write_all(b"Connection: close\r\n").await.ok()?;
        client.write_all(&answer[split..]).await.ok()?;
    }
    Some(())
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
