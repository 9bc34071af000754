//! `--metrics-listen` and `status --watch --listen`: a page to watch the rotation on, `/metrics`, `/livez` and `/readyz`, over
//! plain HTTP/1.1, one answer a connection.
//!
//! Small on purpose: it parses a request line and the Host, nothing else, and never blocks the work: connections, bytes and
//! time are bounded. Reads only, no TLS, no secrets. The pages are made elsewhere; here they are handed out, and only under
//! the names of this machine and of a cluster ([`is_ours`]).

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use super::metrics::Metrics;

/// Longest head of a request worth reading, bytes: a browser sends the cookies of every server on this machine.
const MAX_HEAD: usize = 16 * 1024;

/// Connections at a time. One more ends the oldest, so that those that say nothing keep no probe out.
const MAX_CONNECTIONS: usize = 32;

/// How long one may take, from its first byte to its last.
const LIMIT: Duration = Duration::from_secs(5);

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
        let mut open = VecDeque::<AbortHandle>::new();
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    open.retain(|one| !one.is_finished());
                    if open.len() >= MAX_CONNECTIONS
                        && let Some(oldest) = open.pop_front()
                    {
                        oldest.abort();
                    }
                    let served = served.clone();
                    let talk = async move {
                        let _ = tokio::time::timeout(LIMIT, answer(stream, &served)).await;
                    };
                    open.push_back(tokio::spawn(talk).abort_handle());
                }
                // Out of file descriptors, most likely: wait for some to come back.
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    });
    Ok(bound)
}

async fn answer(mut stream: TcpStream, served: &Served) -> std::io::Result<()> {
    let mut request = Vec::with_capacity(1024);
    let mut reading = (&mut stream).take(MAX_HEAD as u64);
    let is_whole = loop {
        if request.windows(4).any(|w| w == b"\r\n\r\n") {
            break true;
        }
        if reading.read_buf(&mut request).await? == 0 {
            break false;
        }
    };
    let answer = match is_whole {
        true => respond(&String::from_utf8_lossy(&request), served),
        false if request.len() < MAX_HEAD => plain("400 Bad Request", "not a request\n"),
        false => plain("431 Request Header Fields Too Large", "at most 16 KiB\n"),
    };
    let allow = if answer.status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {}\r\nContent-Type: {}; charset=utf-8\r\nContent-Length: {}\r\n{allow}Content-Security-Policy: {POLICY}\r\n\
         X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n",
        answer.status,
        answer.kind,
        answer.body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    if !request.starts_with(b"HEAD ") {
        stream.write_all(answer.body.as_bytes()).await?;
    }
    stream.shutdown().await
}

struct Answer {
    status: &'static str,
    kind: &'static str,
    body: Arc<str>,
}

fn answer_with(status: &'static str, kind: &'static str, body: &str) -> Answer {
    Answer { status, kind, body: body.into() }
}

fn plain(status: &'static str, body: &str) -> Answer {
    answer_with(status, "text/plain", body)
}

/// Answers the head of a request.
fn respond(head: &str, served: &Served) -> Answer {
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if !matches!(method, "GET" | "HEAD") {
        return plain("405 Method Not Allowed", "only GET and HEAD\n");
    }
    let path = target.split('?').next().unwrap_or_default();
    let is_page = matches!(path, "/" | "/page.css" | "/page.js") && served.site.is_some();
    if is_page && !hosts(lines).all(is_ours) {
        let why = "the page is served under an IP address, localhost, and names of a cluster only\n";
        return plain("421 Misdirected Request", why);
    }
    match (path, &served.site) {
        ("/metrics", _) => answer_with("200 OK", "text/plain; version=0.0.4", &served.metrics.text()),
        ("/livez", _) => plain("200 OK", "alive\n"),
        ("/readyz", _) => match served.metrics.ready(served.silence) {
            Ok(()) => plain("200 OK", "working\n"),
            Err(why) => plain("503 Service Unavailable", &format!("{why}\n")),
        },
        ("/", Some(site)) => {
            site.asked.notify_one();
            Answer { status: "200 OK", kind: "text/html", body: site.page.borrow().clone() }
        }
        ("/page.css", Some(site)) => answer_with("200 OK", "text/css", site.style),
        ("/page.js", Some(site)) => answer_with("200 OK", "text/javascript", site.script),
        _ => plain("404 Not Found", "/, /metrics, /livez or /readyz\n"),
    }
}

/// What a request says of the host that it is for.
fn hosts<'a>(headers: impl Iterator<Item = &'a str>) -> impl Iterator<Item = &'a str> {
    headers.filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("host").then(|| value.trim())
    })
}

/// Whether the page may be shown under this name. A site on the internet may give its own name the address of this machine
/// (DNS rebinding) and would read the page through a visitor's browser; it cannot give it an address as its name, nor one
/// of those that never lead outside: `localhost`, a name without a dot, and Kubernetes' own. Metrics and probes hold nothing
/// worth that, and are asked for under any name.
fn is_ours(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    if bare.parse::<IpAddr>().is_ok() {
        return true;
    }
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    name.split('.').all(is_label)
        && (!name.contains('.')
            || [".localhost", ".svc", ".cluster.local"].iter().any(|end| name.ends_with(end)))
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

    #[test]
    fn the_page_is_shown_under_names_that_lead_nowhere_else() {
        let asked =
            |path: &str, host: &str| ask(&format!("GET {path} HTTP/1.1\r\nhOST: {host}\r\n\r\n"), true).0;
        for host in [
            "127.0.0.1:9090",
            "[::1]:9090",
            "10.1.2.3",
            "localhost:9090",
            "app.localhost",
            "rekey",
            "rekey-run-7k2xq:9090",
            "rekey.dashtam.svc:9090",
            "10-1-2-3.dashtam.pod.cluster.local.",
        ] {
            for path in ["/", "/page.js", "/metrics"] {
                assert_eq!(asked(path, host), "200 OK", "{path} {host}");
            }
        }
        for host in [
            "rebind.example.com:9090",
            "127.0.0.1.example.com",
            "localhost.example.com",
            "svc.example.com",
            "::1.example.com",
            "[::1].example.com",
            "127.0.0.1:9090\r\nHost: example.com",
            "example.com:80:9090",
            "",
            ".svc",
        ] {
            for path in ["/", "/?x", "/page.css", "/page.js"] {
                assert_eq!(asked(path, host), "421 Misdirected Request", "{path} {host}");
            }
            for path in ["/metrics", "/livez"] {
                assert_eq!(asked(path, host), "200 OK", "{path} {host}");
            }
        }
    }
}
