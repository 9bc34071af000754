//! Serving what the ledger says while a command works, or until it is stopped: metrics, readiness, and a page to watch the
//! rotation on. It looks on a connection of its own, and what it cannot read stops nobody.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{Notify, watch};

use super::Context;
use crate::error::{Error, Exit, Result};
use crate::jobs::board::{Board, Looking};
use crate::pages::{CSS, SCRIPT, fill};
use crate::store::connect::answer_limit;
use crate::store::with_answer_limit;
use crate::telemetry::http::{self, Served, Site};

/// Between two looks while somebody watches.
const OFTEN: Duration = Duration::from_secs(1);
/// Between two looks where nobody does: for the metrics.
const SELDOM: Duration = Duration::from_secs(10);
/// A look that takes longer than this is given up.
const LIMIT: Duration = Duration::from_secs(10);
/// The look for the metrics that a file is given at the end.
const LAST: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct Values<'a> {
    board: Option<&'a Board>,
    silent: Option<&'a str>,
}

/// Serves until the process ends. Without a database there is no page.
pub async fn start(address: SocketAddr, context: &Context) -> Result<SocketAddr> {
    let metrics = context.metrics.clone();
    let mut served = Served { metrics, silence: context.lease_ttl, site: None };
    if context.database_url.is_some() {
        let (page, asked) = (watch::Sender::new(page(None, None)?.into()), Arc::new(Notify::new()));
        served.site = Some(Site { page: page.subscribe(), style: CSS, script: SCRIPT, asked: asked.clone() });
        let looking = keep_looking(beside(context), page, asked);
        tokio::spawn(with_answer_limit(answer_limit(context.lease_ttl), looking));
    }
    http::serve(address, served).await.map_err(|e| {
        Error::new(Exit::Usage, format!("can't serve on {address}: {e}"))
            .hint("Choose another address and port, or leave the option out")
    })
}

/// Serves until a signal stops the command.
pub async fn forever(address: SocketAddr, context: &Context) -> Result<Exit> {
    context.know_database();
    context.connector()?;
    let bound = start(address, context).await?;
    eprintln!("Serving http://{bound}/ until this command is stopped");
    std::future::pending().await
}

/// What the ledger says in the end, for metrics that are written to a file.
pub async fn look_once(context: &Context) {
    if context.database_url.is_some() {
        let _ = tokio::time::timeout(LAST, Looking::of(context).look()).await;
    }
}

/// A session like this one with the same metrics, for a task of its own.
fn beside(context: &Context) -> Context {
    let mut beside = Context::new(context.global.clone(), None);
    beside.session.login = Arc::clone(&context.login);
    beside.session.metrics = context.metrics.clone();
    beside
}

async fn keep_looking(context: Context, shown: watch::Sender<Arc<str>>, asked: Arc<Notify>) {
    let mut looking = Looking::of(&context);
    let mut last = None;
    loop {
        let silent = match tokio::time::timeout(LIMIT, looking.look()).await {
            Ok(Ok(board)) => {
                last = Some(board);
                None
            }
            Ok(Err(error)) => {
                // Anyone who reaches the page reads it: what a server or a program said stays in the log.
                tracing::debug!(%error.message, "Couldn't look at the ledger for the page");
                Some("the database can't be read; the log says why".to_owned())
            }
            Err(_) => {
                looking.forget();
                Some(format!("no answer within {} s", LIMIT.as_secs()))
            }
        };
        match page(last.as_ref(), silent.as_deref()) {
            Ok(page) => drop(shown.send_replace(page.into())),
            Err(error) => tracing::warn!(%error.message, "Couldn't make the page"),
        }
        tokio::time::sleep(OFTEN).await;
        let _ = tokio::time::timeout(SELDOM, asked.notified()).await;
    }
}

fn page(board: Option<&Board>, silent: Option<&str>) -> Result<String> {
    fill("watch.html", Values { board, silent })
}
