//! A database of one's own with the application's schema, and short ways to ask it things.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::{AssertSqlSafe, Connection as _, FromRow, PgConnection, PgPool};

use super::{Cluster, SOON, block_on, until};

/// A database and a few connections to it.
#[derive(Clone)]
pub struct Db {
    /// Its name.
    pub name: String,
    /// Where it is, as `postgres://…`.
    pub url: String,
    pool: PgPool,
    /// One that tests share lives as long as its databases are in use.
    cluster: Option<Arc<Cluster>>,
}

impl Db {
    /// A new database on a cluster that this binary's tests share.
    pub fn new() -> Db {
        let cluster = Cluster::shared();
        Db { cluster: Some(cluster.clone()), ..Db::on(&cluster) }
    }

    /// The cluster that it shares with other tests.
    pub fn cluster(&self) -> &Cluster {
        self.cluster.as_ref().expect("a database on a shared cluster")
    }

    /// A new database on `cluster`.
    pub fn on(cluster: &Cluster) -> Db {
        Template { name: "application".to_owned(), cluster: None }.copy(cluster)
    }

    /// Gives up its connections, so that copies of it can be made.
    pub fn into_template(self) -> Template {
        block_on(self.pool.close());
        Template { name: self.name, cluster: self.cluster }
    }

    /// Deletes it: hundreds of them would fill the disk.
    pub fn discard(self) {
        block_on(self.pool.close());
        in_postgres(
            &self.url.replace(&format!("/{}", self.name), "/postgres"),
            format!("DROP DATABASE {} WITH (FORCE)", self.name),
        );
    }

    /// The database `name` on `cluster`, which may be a standby.
    pub fn existing(cluster: &Cluster, name: &str) -> Db {
        Db::at(name, cluster.url(name))
    }

    /// The database `name` at `url`, wherever that is.
    pub fn at(name: &str, url: String) -> Db {
        let runtime = block_on(async { tokio::runtime::Handle::current() });
        let _inside = runtime.enter();
        let options = PgPoolOptions::new().max_connections(4).acquire_timeout(Duration::from_secs(30));
        let connect: PgConnectOptions = url.parse().expect("a URL that parses");
        let pool = options.connect_lazy_with(connect.application_name("judge"));
        Db { name: name.to_owned(), url, pool, cluster: None }
    }

    /// The connections themselves.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// The server's port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        let after = self.url.rsplit_once(':').expect("a port").1;
        after.split_once('/').expect("a database").0.parse().expect("a number")
    }

    /// Runs one or more statements.
    pub fn execute(&self, sql: &str) {
        let run = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&self.pool);
        block_on(run).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// The single value that `sql` yields, or the error.
    pub fn try_value<T>(&self, sql: &str) -> Result<T, sqlx::Error>
    where
        T: Send + Unpin,
        (T,): for<'r> FromRow<'r, PgRow>,
    {
        block_on(sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).persistent(false).fetch_one(&self.pool))
    }

    /// The single value that `sql` yields.
    pub fn value<T>(&self, sql: &str) -> T
    where
        T: Send + Unpin,
        (T,): for<'r> FromRow<'r, PgRow>,
    {
        self.try_value(sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The first column of every row that `sql` yields.
    pub fn column<T>(&self, sql: &str) -> Vec<T>
    where
        T: Send + Unpin,
        (T,): for<'r> FromRow<'r, PgRow>,
    {
        let rows = sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).persistent(false).fetch_all(&self.pool);
        block_on(rows).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// A transaction of somebody else's, held open until it is told to end.
    pub fn hold(&self) -> Hold {
        Hold(Some(block_on(self.pool.begin()).expect("a transaction begins")))
    }

    /// Holds a row with a credential until it is let go of: it is put off again and again, and no pass ends meanwhile.
    pub fn hold_last(&self) -> Hold {
        let mut hold = self.hold();
        hold.execute(sqlx::query(
            "SELECT FROM provider_connections WHERE id = (SELECT id FROM provider_connections
             WHERE encrypted_credentials IS NOT NULL ORDER BY id DESC LIMIT 1) FOR UPDATE",
        ));
        hold
    }

    /// Makes every commit of later sessions last at least `delay` (at most 100 ms), so that a test can step in midway.
    /// The delay is only for commits that wait for the disk, and a run's batches do not unless they are told to.
    pub fn slow_batches(&self, delay: Duration) {
        let (name, micros) = (&self.name, delay.as_micros());
        self.execute(&format!("ALTER DATABASE {name} SET commit_siblings = 0"));
        self.execute(&format!("ALTER DATABASE {name} SET commit_delay = {micros}"));
        self.execute(&format!("ALTER DATABASE {name} SET synchronous_commit = 'local'"));
    }

    /// Commits of later sessions are as fast as they can be again.
    pub fn fast_commits(&self) {
        let name = &self.name;
        self.execute(&format!(
            "ALTER DATABASE {name} RESET commit_delay; ALTER DATABASE {name} RESET synchronous_commit"
        ));
    }

    /// Remembers which IV each row has now, for [`Db::moved`].
    pub fn mark(&self) {
        self.execute(
            "CREATE SCHEMA IF NOT EXISTS judge; DROP TABLE IF EXISTS judge.mark;
             CREATE TABLE judge.mark AS SELECT id, substr(encrypted_credentials, 1, 12) AS iv
             FROM provider_connections WHERE encrypted_credentials IS NOT NULL;
             ALTER TABLE judge.mark ADD PRIMARY KEY (id)",
        );
    }

    /// Ends every session on this database that is not one of ours.
    pub fn terminate_other_sessions(&self) {
        self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name <> 'judge'",
        );
    }

    /// Whether a session that is not one of ours waits for a lock of the backend `pid`.
    pub fn is_waited_for(&self, pid: i32) -> bool {
        self.value(&format!(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
             AND application_name <> 'judge' AND {pid} = ANY (pg_blocking_pids(pid)))"
        ))
    }

    /// How many sessions wait for a lock of the table.
    pub fn waiting_for_the_table(&self) -> i64 {
        // Databases that are copies of one another share the table's id.
        self.value(
            "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted
             AND relation = 'provider_connections'::regclass
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        )
    }

    /// Whether the backend `pid` waits for a lock of a session that is not one of ours.
    pub fn is_waiting(&self, pid: i32) -> bool {
        self.value(&format!(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name <> 'judge'
             AND pid = ANY (pg_blocking_pids({pid})))"
        ))
    }

    /// Waits until no worker holds a chunk: one that was told to pause has written its last batch.
    pub fn wait_at_rest(&self) {
        let leased = "SELECT count(*) FROM rekey.chunks WHERE state = 'open' AND owner IS NOT NULL";
        until("the leases to be given back", SOON, || (self.value::<i64>(leased) == 0).then_some(()));
    }

    /// Waits until nobody else is connected: what a killed process had asked for may still be done.
    #[track_caller]
    pub fn wait_alone(&self) {
        let others = "SELECT count(*) FROM pg_stat_activity
                      WHERE datname = current_database() AND application_name <> 'judge'";
        until("the others to be gone", SOON, || (self.value::<i64>(others) == 0).then_some(()));
    }

    /// How many rows have another IV than when they were marked.
    pub fn moved(&self) -> i64 {
        self.value(
            "SELECT count(*) FROM provider_connections p JOIN judge.mark m USING (id)
             WHERE substr(p.encrypted_credentials, 1, 12) IS DISTINCT FROM m.iv",
        )
    }

    /// Waits until at least `rows` rows have another IV than when they were marked.
    pub fn wait_moved(&self, rows: i64) {
        until(&format!("{rows} rows to be moved"), SOON, || (self.moved() >= rows).then_some(()));
    }

    /// Whether schema `rekey` exists.
    pub fn has_rekey_schema(&self) -> bool {
        self.value("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'rekey')")
    }

    /// One number over the whole content of `provider_connections`: equal means nothing was written.
    pub fn content(&self) -> String {
        self.value(
            "SELECT md5(string_agg(md5(p::text) || xmin::text, '' ORDER BY id)) FROM provider_connections p",
        )
    }
}

/// A database that nobody is connected to, to copy.
pub struct Template {
    name: String,
    cluster: Option<Arc<Cluster>>,
}

impl Template {
    /// A new database beside it, on the cluster that tests share.
    pub fn copy_beside(&self) -> Db {
        self.copy(self.cluster.as_ref().expect("a template on a shared cluster"))
    }

    /// A new database on `cluster` with all that is in this one, and that is the original to rekey.
    pub fn copy(&self, cluster: &Cluster) -> Db {
        let db = self.fork(cluster);
        db.execute(
            "DO $$ BEGIN IF to_regclass('rekey.rotations') IS NOT NULL THEN UPDATE rekey.rotations SET database_oid =
             (SELECT oid FROM pg_database WHERE datname = current_database()); END IF; END $$",
        );
        db
    }

    /// A new database on `cluster` with all that is in this one: a copy, to rekey too.
    pub fn fork(&self, cluster: &Cluster) -> Db {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let name = format!("t{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let _guard = ONE_AT_A_TIME.lock();
        in_postgres(&cluster.url("postgres"), format!("CREATE DATABASE {name} TEMPLATE {}", self.name));
        Db { cluster: self.cluster.clone(), ..Db::existing(cluster, &name) }
    }
}

impl Template {
    /// Gives it another name.
    pub fn rename(self, cluster: &Cluster, name: &str) {
        in_postgres(&cluster.url("postgres"), format!("ALTER DATABASE {} RENAME TO {name}", self.name));
    }
}

fn in_postgres(url: &str, sql: String) {
    block_on(async {
        let mut connection = PgConnection::connect(url).await.expect("connects");
        let since = std::time::Instant::now();
        // 55006 is object_in_use: a session that is ending has not gone yet.
        while let Err(error) = sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(&mut connection).await {
            let in_use = error.as_database_error().and_then(|e| e.code()).is_some_and(|code| code == "55006");
            assert!(in_use && since.elapsed() < super::SOON, "{sql}: {error}");
        }
        connection.close().await.expect("closes");
    });
}

/// An open transaction. Dropped, a panic included, it is rolled back: sqlx wants a runtime for that.
pub struct Hold(Option<sqlx::Transaction<'static, sqlx::Postgres>>);

impl Hold {
    /// Runs one statement in it.
    pub fn execute<'q>(
        &mut self,
        query: sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>,
    ) {
        self.try_execute(query).expect("the statement runs");
    }

    /// Runs one statement in it, which the server may refuse.
    pub fn try_execute<'q>(
        &mut self,
        query: sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>,
    ) -> sqlx::Result<()> {
        let transaction = self.0.as_mut().expect("it is open");
        block_on(query.execute(&mut **transaction)).map(drop)
    }

    /// The single value that `sql` yields in it.
    pub fn value<T>(&mut self, sql: &str) -> T
    where
        T: Send + Unpin,
        (T,): for<'r> FromRow<'r, PgRow>,
    {
        let transaction = self.0.as_mut().expect("it is open");
        let query = sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).persistent(false);
        block_on(query.fetch_one(&mut **transaction)).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Its backend.
    pub fn pid(&mut self) -> i32 {
        self.value("SELECT pg_backend_pid()")
    }

    /// Commits it.
    pub fn commit(mut self) {
        block_on(self.0.take().expect("it is open").commit()).expect("it commits");
    }

    /// Rolls it back.
    pub fn rollback(mut self) {
        block_on(self.0.take().expect("it is open").rollback()).expect("it rolls back");
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(transaction) = self.0.take() {
            block_on(async { drop(transaction) });
        }
    }
}
