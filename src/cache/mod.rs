//! The application's cache in Redis: connections cached with their ciphertext, and secrets. After a rotation they
//! are stale. SCAN and UNLINK, in small steps: the server is never blocked, and nothing else is touched.
//!
//! SCAN returns every key that was there throughout; one the application caches meanwhile may stay. So purge
//! after the application was restarted, or once more.

mod error;
mod target;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Value};

pub use error::CacheError;
pub use target::Target;

/// Keys asked for, and deleted, in one step.
const STEP: usize = 1000;

/// One answer's limit: SCAN with COUNT 1000 takes a millisecond.
const ANSWER: Duration = Duration::from_secs(10);

/// Whether to delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Count only.
    DryRun,
    /// Delete.
    Delete,
}

/// What was found under one pattern.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Purged {
    /// The pattern, as people write it.
    pub pattern: String,
    /// Keys found.
    pub found: u64,
    /// Keys deleted; fewer than found where they expired meanwhile.
    pub deleted: u64,
}

/// Deletes the stale entries. An unreachable server is waited for, `retry_for` or a minute at most; interrupted
/// midway it begins again, which is harmless.
pub async fn purge(target: &Target, mode: Mode, retry_for: Duration) -> Result<Vec<Purged>, CacheError> {
    let deadline = Instant::now() + retry_for.min(Duration::from_secs(60));
    let mut pause = Duration::from_millis(100);
    let mut before: Option<Vec<Purged>> = None;
    loop {
        let mut purged = target.patterns().map(|pattern| Purged { pattern, found: 0, deleted: 0 }).to_vec();
        let limit = deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
        let error = match once(target, mode, limit, &mut purged).await {
            Ok(()) => {
                // What an interrupted try had deleted counts, too.
                for (now, then) in purged.iter_mut().zip(before.iter().flatten()) {
                    now.found += then.deleted;
                    now.deleted += then.deleted;
                }
                return Ok(purged);
            }
            Err(e) => e,
        };
        match &mut before {
            None => before = Some(purged),
            Some(before) => before.iter_mut().zip(purged).for_each(|(b, p)| b.deleted += p.deleted),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if !error.is_transient() || left.is_zero() {
            return Err(error);
        }
        tracing::warn!(server = %target, %error, seconds_left = left.as_secs(), "Redis is unreachable; \
            retrying");
        tokio::time::sleep(pause.min(left)).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

async fn once(target: &Target, mode: Mode, limit: Duration, purged: &mut [Purged]) -> Result<(), CacheError> {
    let failed = |source| CacheError::Redis { server: target.to_string(), source };
    let client: Client = target.client()?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(limit.min(Duration::from_secs(5))))
        .set_response_timeout(Some(ANSWER));
    let connect = client.get_multiplexed_async_connection_with_config(&config);
    let mut conn = match tokio::time::timeout(limit, connect).await {
        Ok(conn) => conn.map_err(failed)?,
        Err(_) => return Err(CacheError::Silent { server: target.to_string() }),
    };
    // A cluster's node knows its own keys only: one purged of many would look like success.
    match is_alone(&mut conn).await.map_err(failed)? {
        Some(true) => {}
        Some(false) => return Err(CacheError::Cluster { server: target.to_string() }),
        None => return Err(CacheError::Unknown { server: target.to_string() }),
    }
    for (scope, purged) in target.scopes().iter().zip(purged) {
        sweep(&mut conn, scope, mode, purged).await.map_err(failed)?;
    }
    Ok(())
}

/// Whether this server has all of the application's keys; `None` where it does not say. HELLO takes no right, whatever the
/// user may do; before Redis 6 there were no users, and INFO tells.
async fn is_alone(conn: &mut MultiplexedConnection) -> redis::RedisResult<Option<bool>> {
    let hello: redis::RedisResult<HashMap<String, Value>> = redis::cmd("HELLO").query_async(conn).await;
    match hello {
        Ok(answer) => {
            let mode = match answer.get("mode") {
                Some(Value::BulkString(mode)) => Some(String::from_utf8_lossy(mode).into_owned()),
                Some(Value::SimpleString(mode)) => Some(mode.clone()),
                _ => None,
            };
            if let Some(mode) = mode {
                return Ok(Some(mode == "standalone"));
            }
        }
        Err(e) if !is_refusal(&e) => return Err(e),
        Err(_) => {}
    }
    let info: redis::RedisResult<String> = redis::cmd("INFO").arg("cluster").query_async(conn).await;
    match info {
        Ok(text) if text.contains("cluster_enabled:0") => Ok(Some(true)),
        Ok(text) if text.contains("cluster_enabled:1") => Ok(Some(false)),
        Err(e) if !is_refusal(&e) => Err(e),
        _ => Ok(None),
    }
}

/// The server does not know the command, or not for this user; or its answer is another than expected.
fn is_refusal(e: &redis::RedisError) -> bool {
    !e.is_io_error() && e.code().is_none_or(|code| ["ERR", "NOPERM"].contains(&code))
}

async fn sweep(
    conn: &mut MultiplexedConnection,
    scope: &target::Scope,
    mode: Mode,
    purged: &mut Purged,
) -> redis::RedisResult<()> {
    let mut cursor = 0_u64;
    // SCAN may return a key twice; deleting twice does nothing, counting twice would.
    let mut seen = std::collections::HashSet::new();
    loop {
        let (next, mut keys): (u64, Vec<Vec<u8>>) = redis::cmd("SCAN")
            .arg(cursor)
            .arg("MATCH")
            .arg(&scope.pattern)
            .arg("COUNT")
            .arg(STEP)
            .query_async(conn)
            .await?;
        // The server matched already; this is what makes "and nothing else" hold whatever it thinks of patterns.
        keys.retain(|key| key.starts_with(scope.prefix.as_bytes()));
        for key in &keys {
            if mode == Mode::Delete || seen.insert(hash(key)) {
                purged.found += u64::from(mode == Mode::DryRun);
            }
        }
        if mode == Mode::Delete && !keys.is_empty() {
            let deleted: u64 = redis::cmd("UNLINK").arg(&keys).query_async(conn).await?;
            purged.found += deleted;
            purged.deleted += deleted;
        }
        cursor = next;
        if cursor == 0 {
            return Ok(());
        }
    }
}

/// Eight bytes a key: memory stays small whatever the keys are.
fn hash(key: &[u8]) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}
