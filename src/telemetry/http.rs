//! `--metrics-listen` and `status --watch --listen`: a page to watch the rotation on, `/metrics`, `/livez` and `/readyz`, over
//! plain HTTP/1.1, one answer a connection.
//!
//! Small on purpose: it parses a request line, nothing else, and never blocks the work. Reads only, no TLS, no secrets. The
//! pages are made elsewhere; here they are handed out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

use super::metrics::Metrics;

/// Longest request line worth reading, bytes.
const MAX_REQUEST: usize = 4096;

/// What a page may do: show itself, and ask this server for it again.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page to watch, and what it is dressed with.
#[derive(Clone)]
pub struct Site {
    /// The page as it is now, whole.
    pub page: watch::Receiver<Arc<str>>,
    /// Its style sheet, at `/page.css`.
    pub style: &'static str,
    /// Its script, at `/page.js`.
    pub script: &'static str,
    /// Told whenever the page is asked for: it is made anew more often while somebody looks at it.
    pub asked: Arc<Notify>,
}

/// What is served.
#[derive(Clone)]
pub struct Served {
    /// At `/metrics`, `/livez` and `/readyz`.
    pub metrics: Metrics,
    /// How old news from the ledger may be before `/readyz` says no.
    pub silence: Duration,
    /// At `/`.
    pub site: Option<Site>,
}

/// Serves until the process ends.
pub async fn serve(address: SocketAddr, served: Served) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let served = served.clone();
                    tokio::spawn(async move {
                        let talk = answer(stream, &served);
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

async fn answer(mut stream: TcpStream, served: &Served) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|w| w == b"\r\n\r\n") {
        if request.len() >= MAX_REQUEST || stream.read_buf(&mut request).await? == 0 {
            break;
        }
    }
    let line = request.split(|b| *b == b'\r').next().unwrap_or_default();
    let answer = respond(&String::from_utf8_lossy(line), served);
    let allow = if answer.status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {}\r\nContent-Type: {}; charset=utf-8\r\nContent-Length: {}\r\n{allow}Content-Security-Policy: {POLICY}\r\n\
         X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n",
        answer.status,
        answer.kind,
        answer.body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    if !line.starts_with(b"HEAD ") {
        stream.write_all(answer.body.as_bytes()).await?;
    }
    stream.shutdown().await
}

struct Answer {
    status: &'static str,
    kind: &'static str,
    body: Arc<str>,
}

fn respond(line: &str, served: &Served) -> Answer {
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let answer = |status, kind, body: &str| Answer { status, kind, body: body.into() };
    let plain = |status, body: &str| answer(status, "text/plain", body);
    if !matches!(method, "GET" | "HEAD") {
        return plain("405 Method Not Allowed", "only GET and HEAD\n");
    }
    let path = target.split('?').next().unwrap_or_default();
    match (path, &served.site) {
        ("/metrics", _) => answer("200 OK", "text/plain; version=0.0.4", &served.metrics.text()),
        ("/livez", _) => plain("200 OK", "alive\n"),
        ("/readyz", _) => match served.metrics.ready(served.silence) {
            Ok(()) => plain("200 OK", "working\n"),
            Err(why) => plain("503 Service Unavailable", &format!("{why}\n")),
        },
        ("/", Some(site)) => {
            site.asked.notify_one();
            Answer { status: "200 OK", kind: "text/html", body: site.page.borrow().clone() }
        }
        ("/page.css", Some(site)) => answer("200 OK", "text/css", site.style),
        ("/page.js", Some(site)) => answer("200 OK", "text/javascript", site.script),
        _ => plain("404 Not Found", "/, /metrics, /livez or /readyz\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(line: &str, site: bool) -> (&'static str, String) {
        let site = site.then(|| Site {
            page: watch::channel("<!doctype html>".into()).1,
            style: "body {}",
            script: "",
            asked: Arc::default(),
        });
        let served = Served { metrics: Metrics::default(), silence: Duration::from_secs(30), site };
        let answer = respond(line, &served);
        (answer.status, answer.body.to_string())
    }

    #[test]
    fn paths_and_methods() {
        assert!(ask("GET /metrics HTTP/1.1", false).1.contains("rekey_build_info"));
        assert_eq!(ask("GET /livez?verbose HTTP/1.1", false).0, "200 OK");
        let (status, why) = ask("GET /readyz HTTP/1.1", false);
        assert!(status.starts_with("503") && why.starts_with("starting"), "{status} {why}");
        assert!(ask("GET / HTTP/1.1", false).0.starts_with("404"));
        assert_eq!(ask("GET / HTTP/1.1", true), ("200 OK", "<!doctype html>".to_owned()));
        assert_eq!(ask("HEAD /page.css HTTP/1.1", true).0, "200 OK");
        assert!(ask("GET /../etc/passwd HTTP/1.1", true).0.starts_with("404"));
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "get"] {
            assert!(ask(&format!("{method} / HTTP/1.1"), true).0.starts_with("405"), "{method}");
        }
        assert!(ask("", true).0.starts_with("405"));
    }
}
