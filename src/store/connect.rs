//! Connecting: session settings that make every later statement safe, and waiting for a database that is away.
//!
//! Session settings need a session: behind a pooler in transaction mode they would leak to the application or vanish.
//! So the first connection of a [`Connector`] is probed before anything is set in it, unless another of the same process
//! has been.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};

use super::dsn::{Dsn, PasswordError, Stored, TargetSession};
use super::error::{Class, StoreError, watched};
use super::login::Login;
use super::outage::Outage;
use super::pooling;
use super::refusal::{self, Answer};
use super::statement::{script, statements};
use super::tls::Tls;

/// Time for making a connection, and for setting its session up.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Connections that may lead to another server before the attempt counts as failed, once a command is bound to one.
const DETOURS: usize = 10;

/// How often a refused password is read anew before it is final: it may have changed between being read and being used.
const PASSWORDS: u32 = 3;
const PASSWORD_PAUSE: Duration = Duration::from_millis(500);

/// What a connection is for; it decides the session's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Ledger and questions.
    Control,
    /// Claims chunks and reads the application's rows.
    Read,
    /// Batches.
    Write,
    /// Reads only, enforced by the server; works on a hot standby.
    ReadOnly,
    /// The same, for walking over the heap in the order of its places.
    ReadByPlace,
}

/// What the server said about itself at the first connection.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    /// `server_version_num`.
    pub version: i32,
    /// A hot standby.
    pub in_recovery: bool,
    /// `deadlock_timeout`.
    pub deadlock_timeout: Duration,
}

statements! {
    fn kind() -> One<(bool, bool)> within CONNECT_LIMIT during "ask the server what it is":
        "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only')::bool";

    fn description() -> One<(i32, bool, i64)> within CONNECT_LIMIT during "ask the server what it is":
        "SELECT current_setting('server_version_num')::int, pg_is_in_recovery(), \
         (SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'deadlock_timeout')";

    /// Where the server itself says that it is; empty for a socket.
    fn address() -> One<String> within CONNECT_LIMIT during "ask the server where it is":
        "SELECT concat_ws(':', pg_catalog.inet_server_addr(), pg_catalog.inet_server_port())";
}

/// Makes connections that all behave alike.
pub struct Connector {
    options: PgConnectOptions,
    login: Arc<Login>,
    stored: Option<Stored>,
    tls: Tls,
    described: String,
    /// How long an unreachable database is waited for.
    pub retry_for: Duration,
    /// Lease lifetime; statement and idle timeouts are derived from it.
    pub lease_ttl: Duration,
    deadlock_timeout: std::sync::OnceLock<Duration>,
    connect_limit: Duration,
    wanted: TargetSession,
    /// The one server that may answer, where a name leads to several.
    only: Option<String>,
    /// How many connections may lead to another server in a row.
    detours: usize,
    /// No pooler in transaction mode stands in between, as far as anybody can tell.
    direct: AtomicBool,
    /// What is told of a database that is away.
    pub outage: Arc<Outage>,
}

impl Connector {
    /// A connector for this DSN. No connection is made yet.
    pub fn new(dsn: &Dsn, retry_for: Duration, lease_ttl: Duration) -> Connector {
        let options = dsn.connect_options().disable_statement_logging();
        Connector {
            options,
            login: Arc::default(),
            stored: dsn.stored(),
            tls: dsn.tls(),
            described: dsn.describe(),
            retry_for,
            lease_ttl,
            deadlock_timeout: std::sync::OnceLock::new(),
            connect_limit: dsn.connect_timeout().map_or(CONNECT_LIMIT, |limit| limit.min(CONNECT_LIMIT)),
            wanted: dsn.target_session(),
            only: None,
            detours: 0,
            direct: AtomicBool::new(false),
            outage: Arc::default(),
        }
    }

    /// Another connector to the same database.
    pub fn like(other: &Connector) -> Connector {
        Connector {
            options: other.options.clone(),
            login: Arc::clone(&other.login),
            stored: other.stored.clone(),
            tls: other.tls.clone(),
            described: other.described.clone(),
            retry_for: other.retry_for,
            lease_ttl: other.lease_ttl,
            deadlock_timeout: std::sync::OnceLock::new(),
            connect_limit: other.connect_limit,
            wanted: other.wanted,
            only: other.only.clone(),
            detours: other.detours,
            direct: AtomicBool::new(other.direct.load(Ordering::Relaxed)),
            outage: other.outage.clone(),
        }
    }

    /// The same, with what this process knows about getting in.
    pub fn with_login(self, login: &Arc<Login>) -> Connector {
        Connector { login: Arc::clone(login), ..self }
    }

    /// The same, where another connector of this process has looked for a pooler already.
    pub fn probed(self) -> Connector {
        Connector { direct: AtomicBool::new(true), ..self }
    }

    /// The same, to the server at the other end of `conn` and no other: to the primary, whichever that is by then, or to
    /// this very standby. What one of several standbys has replayed, another may not have.
    pub async fn to_the_same(self, conn: &mut PgConnection) -> Result<Connector, StoreError> {
        let in_recovery = self.server(conn).await?.in_recovery;
        Ok(match in_recovery {
            true => Connector { only: Some(address(conn).await?), detours: DETOURS, ..self },
            false => Connector { wanted: TargetSession::Primary, detours: DETOURS, ..self },
        })
    }

    /// `user@host:port/database`.
    pub fn describe(&self) -> &str {
        &self.described
    }

    /// Statements are cut off well before the lease they work under could expire.
    pub fn statement_timeout(&self) -> Duration {
        statement_timeout(self.lease_ttl)
    }

    /// Begins a transaction that locks rows of the application's: several waits, each shorter than `lock_timeout`, must
    /// not add up to what the server takes for a deadlock, whose victim would be the application.
    pub fn begin_batch(&self) -> String {
        let deadlock_timeout = self.deadlock_timeout.get().copied().unwrap_or(Duration::from_secs(1));
        let limit = (deadlock_timeout * 8 / 10).min(self.statement_timeout()).as_millis().max(1);
        format!("BEGIN; SET LOCAL statement_timeout = {limit}")
    }

    /// Maximum time to wait for the response to one statement before the connection counts as lost.
    pub fn answer_limit(&self) -> Duration {
        answer_limit(self.lease_ttl)
    }

    /// One attempt, without rekey's settings: nothing is left behind in a pooled session.
    pub async fn bare(&self) -> Result<PgConnection, StoreError> {
        let mut attempt = 1;
        loop {
            match self.with_password_of_now().await {
                Ok(conn) => {
                    self.login.admit();
                    return Ok(conn);
                }
                Err(error)
                    if error.is_refused_login() && self.is_password_renewed() && attempt < PASSWORDS =>
                {
                    tracing::debug!(%error, attempt, "reading the password again");
                    tokio::time::sleep(jitter(PASSWORD_PAUSE * attempt)).await;
                    attempt += 1;
                }
                // Rows may have moved: that is not what a wrong DATABASE_URL is.
                Err(error) if error.class() == Class::Denied && self.login.was_admitted() => {
                    return Err(StoreError::NoLonger { source: Box::new(error) });
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the password may be another one each time.
    fn is_password_renewed(&self) -> bool {
        self.login.is_renewed() || self.stored.is_some()
    }

    async fn with_password_of_now(&self) -> Result<PgConnection, StoreError> {
        self.tls.look_at_files(&self.described)?;
        let unread = |cause: PasswordError| StoreError::Password { server: self.described.clone(), cause };
        let password = match (self.login.password().await.map_err(unread)?, &self.stored) {
            (None, Some(stored)) => stored.password().map_err(unread)?,
            (password, _) => password,
        };
        let with_it = password.map(|password| self.options.clone().password(&password));
        let options = with_it.as_ref().unwrap_or(&self.options);
        match tokio::time::timeout(self.connect_limit, watched("connect", options.connect())).await {
            Ok(Ok(conn)) => Ok(conn),
            Ok(Err(source)) => Err(self.explain(source).await),
            Err(_) => Err(StoreError::Timeout { op: "connect", limit: self.connect_limit }),
        }
    }

    /// What an error of sqlx's means, where its own class or words mislead.
    async fn explain(&self, source: sqlx::Error) -> StoreError {
        let server = self.described.clone();
        if let Some(error) = self.tls.explain(&server, &source) {
            return error;
        }
        match &source {
            // sqlx shows the character of the password that it stumbled over.
            sqlx::Error::Configuration(why) if why.to_string().contains("saslprep") => {
                return StoreError::Unpreparable { server };
            }
            sqlx::Error::Protocol(why) if why.contains("non-UTF-8") => {
                let (host, port) = (self.options.get_host(), self.options.get_port());
                let database = self.options.get_database().unwrap_or_default();
                match refusal::ask(host, port, self.options.get_username(), database).await {
                    Some(Answer::Refused { sqlstate }) => {
                        return StoreError::Refused { server, sqlstate: Some(sqlstate) };
                    }
                    Some(Answer::AsksForPassword) => return StoreError::Refused { server, sqlstate: None },
                    None => {}
                }
            }
            _ => {}
        }
        StoreError::Connect { server, source }
    }

    /// One attempt.
    pub async fn try_connect(&self, purpose: Purpose) -> Result<PgConnection, StoreError> {
        // Others stay open until the right one is found: whoever deals connections out evenly goes on to the next server.
        let mut others = Vec::new();
        let mut conn = loop {
            let mut conn = self.bare().await?;
            match self.admit(&mut conn).await {
                Ok(()) => break conn,
                Err(StoreError::WrongServer { .. } | StoreError::OtherServer { .. })
                    if others.len() < self.detours =>
                {
                    others.push(conn);
                }
                Err(e) => return Err(e),
            }
        };
        for other in others {
            close(other).await;
        }
        if !self.direct.load(Ordering::Relaxed) {
            if pooling::probe(&mut conn, self).await? {
                return Err(StoreError::Pooled { server: self.described.clone() });
            }
            self.direct.store(true, Ordering::Relaxed);
        }
        let deadlock_timeout = match self.deadlock_timeout.get() {
            Some(t) => *t,
            None => {
                let server = self.server(&mut conn).await?;
                *self.deadlock_timeout.get_or_init(|| server.deadlock_timeout)
            }
        };
        // The application must never be the deadlock's victim: rekey gives up first.
        let settings = self.session(purpose, deadlock_timeout * 3 / 10);
        script(&mut conn, "configure the session", CONNECT_LIMIT, sqlx::AssertSqlSafe(settings)).await?;
        self.outage.connected();
        Ok(conn)
    }

    /// Refuses a server that is not the one, or not of the kind, that is wanted.
    async fn admit(&self, conn: &mut PgConnection) -> Result<(), StoreError> {
        if self.wanted != TargetSession::Any {
            let (in_recovery, read_only) = kind(conn).await?;
            if !self.wanted.admits(in_recovery, read_only) {
                return Err(StoreError::WrongServer { server: self.described.clone() });
            }
        }
        match &self.only {
            Some(only) if address(conn).await? != *only => {
                Err(StoreError::OtherServer { server: self.described.clone() })
            }
            _ => Ok(()),
        }
    }

    fn session(&self, purpose: Purpose, lock_timeout: Duration) -> String {
        // The system's own functions and operators first, whatever the role's search_path says; the rest of it stays,
        // for triggers and policies that rely on it.
        let idle = self.lease_ttl.mul_f64(0.6).as_millis();
        let mut sql = format!(
            "SET rekey.ledger = {}; SET default_transaction_isolation = 'read committed'; SET lock_timeout = {}; SET statement_timeout = {}; \
             SET idle_in_transaction_session_timeout = {idle}; SET row_security = off; SET jit = off; \
             SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3; \
             SET client_min_messages = error; SET default_transaction_deferrable = off; \
             SET quote_all_identifiers = off; SET standard_conforming_strings = on; \
             SET enable_tidscan = on; SET synchronize_seqscans = off; \
             SELECT pg_catalog.set_config('search_path', pg_catalog.concat_ws(', ', 'pg_catalog', \
             nullif(pg_catalog.current_setting('search_path'), '')), false); \
             SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'; \
             SELECT set_config(name, '0', false) FROM pg_settings \
             WHERE name IN ('idle_session_timeout', 'transaction_timeout'); \
             SELECT set_config(name, '2s', false) FROM pg_settings \
             WHERE name = 'client_connection_check_interval' AND version() !~ 'mingw|Visual C'; ",
            super::schema::newest(),
            lock_timeout.as_millis().max(1),
            self.statement_timeout().as_millis().max(500),
        );
        sql.push_str(match purpose {
            Purpose::Control => "SET default_transaction_read_only = off",
            // Plans flip with the size of a batch (docs/performance.md): hold them to the ones that were measured.
            Purpose::Read => {
                "SET default_transaction_read_only = off; SET plan_cache_mode = force_generic_plan; \
                 SET enable_seqscan = off; SET enable_bitmapscan = off"
            }
            // A crash takes a batch's rows and its checkpoint away together, so batches need not wait for the disk,
            // unless synchronous standbys are configured; what ends a chunk does, and all before it with it.
            // A value that goes out of line is tried for compression first; on ciphertext lz4 gives up sooner.
            Purpose::Write => {
                "SET default_transaction_read_only = off; SET plan_cache_mode = force_generic_plan; \
                 SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_seqscan = off; \
                 SELECT set_config(name, 'lz4', false) FROM pg_settings \
                 WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals); \
                 SELECT set_config('synchronous_commit', 'off', false) \
                 WHERE current_setting('synchronous_standby_names') = '' AND current_setting('synchronous_commit') = 'on'"
            }
            Purpose::ReadOnly => "SET default_transaction_read_only = on",
            Purpose::ReadByPlace => {
                "SET default_transaction_read_only = on; SET plan_cache_mode = force_generic_plan; \
                 SET enable_seqscan = off; SET enable_bitmapscan = off"
            }
        });
        sql
    }

    /// Connects, waiting up to `retry_for` with jittered back-off for a database that is away. Refusals that
    /// that waiting can't fix (password, database name, TLS) return immediately.
    pub async fn connect(&self, purpose: Purpose) -> Result<PgConnection, StoreError> {
        let deadline = Instant::now() + self.retry_for;
        let mut pause = Duration::from_millis(100);
        loop {
            let error = match self.try_connect(purpose).await {
                Ok(conn) => return Ok(conn),
                Err(e) => e,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if error.class() == Class::Denied || error.class() == Class::Fatal || left.is_zero() {
                return Err(error);
            }
            self.outage.unreachable(&self.described, &error, left);
            tokio::time::sleep(jitter(pause).min(left)).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    /// After a failed read that is simply repeated: waits a little, or reconnects. Gives the error
    /// back when trying again cannot help, or has not helped since `since` for as long as a database is waited for.
    pub async fn again(
        &self,
        purpose: Purpose,
        conn: &mut PgConnection,
        since: Instant,
        error: StoreError,
    ) -> Result<(), StoreError> {
        if since.elapsed() > self.retry_for {
            return Err(error);
        }
        tracing::debug!(%error, "Reading again");
        match error.class() {
            Class::Retry | Class::TookTooLong | Class::LockTimeout => {
                tokio::time::sleep(jitter(Duration::from_millis(200))).await;
            }
            Class::ConnectionLost => *conn = self.connect(purpose).await?,
            Class::Exhausted | Class::Data | Class::Denied | Class::Fatal => return Err(error),
        }
        Ok(())
    }

    /// Asks the server what it is.
    pub async fn server(&self, conn: &mut PgConnection) -> Result<Server, StoreError> {
        let (version, in_recovery, ms) = description(conn).await?;
        Ok(Server { version, in_recovery, deadlock_timeout: Duration::from_millis(ms.max(1) as u64) })
    }
}

fn statement_timeout(lease_ttl: Duration) -> Duration {
    lease_ttl.mul_f64(0.45)
}

/// [`Connector::answer_limit`] under a lease lifetime.
pub fn answer_limit(lease_ttl: Duration) -> Duration {
    statement_timeout(lease_ttl) + Duration::from_secs(5)
}

/// A random share, half to whole, of a pause, so that retrying processes do not march in step.
pub fn jitter(pause: Duration) -> Duration {
    let mut byte = [0u8; 1];
    // Not a secret: if the system's randomness fails here, the pause is simply whole.
    let _ = crate::entropy::fill(&mut byte);
    pause.mul_f64(0.5 + f64::from(byte[0]) / 512.0)
}

/// Closes politely; a connection that is already dead is no error.
pub async fn close(conn: PgConnection) {
    let _ = tokio::time::timeout(Duration::from_secs(1), conn.close()).await;
}
