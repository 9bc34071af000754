//! `--metrics-listen`: `/metrics`, `/livez` and `/readyz`, over plain HTTP/1.1, one answer a connection.
//!
//! Small on purpose: it parses a request line, nothing else, and never blocks the work. No TLS, no secrets: everything
//! served is a number or a reason.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::metrics::Metrics;

/// Longest request line worth reading, bytes.
const MAX_REQUEST: usize = 4096;

/// Serves until the process ends. `silence` is how old news from the ledger may be before `/readyz` says no.
pub async fn serve(address: SocketAddr, metrics: Metrics, silence: Duration) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let metrics = metrics.clone();
                    tokio::spawn(async move {
                        let talk = answer(stream, &metrics, silence);
                        let _ = tokio::time::timeout(Duration::from_secs(5), talk).await;
                    });
                }
                // Out of file descriptors, most likely: wait for some to come back.
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    });
    Ok(bound)
}

async fn answer(mut stream: TcpStream, metrics: &Metrics, silence: Duration) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|w| w == b"\r\n\r\n") {
        if request.len() >= MAX_REQUEST || stream.read_buf(&mut request).await? == 0 {
            break;
        }
    }
    let line = request.split(|b| *b == b'\r').next().unwrap_or_default();
    let (status, body) = respond(&String::from_utf8_lossy(line), metrics, silence);
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    if !line.starts_with(b"HEAD ") {
        stream.write_all(body.as_bytes()).await?;
    }
    stream.shutdown().await
}

fn respond(line: &str, metrics: &Metrics, silence: Duration) -> (&'static str, String) {
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if !matches!(method, "GET" | "HEAD") {
        return ("405 Method Not Allowed", "only GET\n".into());
    }
    match target.split('?').next().unwrap_or_default() {
        "/metrics" => ("200 OK", metrics.text()),
        "/livez" => ("200 OK", "alive\n".into()),
        "/readyz" => match metrics.ready(silence) {
            Ok(()) => ("200 OK", "working\n".into()),
            Err(why) => ("503 Service Unavailable", format!("{why}\n")),
        },
        _ => ("404 Not Found", "/metrics, /livez or /readyz\n".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_methods() {
        let metrics = Metrics::default();
        let ask = |line| respond(line, &metrics, Duration::from_secs(30));
        assert!(ask("GET /metrics HTTP/1.1").1.contains("rekey_build_info"));
        assert_eq!(ask("GET /livez?verbose HTTP/1.1").0, "200 OK");
        let (status, why) = ask("GET /readyz HTTP/1.1");
        assert!(status.starts_with("503") && why.starts_with("starting"), "{status} {why}");
        assert!(ask("GET / HTTP/1.1").0.starts_with("404"));
        assert!(ask("POST /metrics HTTP/1.1").0.starts_with("405"));
        assert!(ask("").0.starts_with("405"));
    }
}
