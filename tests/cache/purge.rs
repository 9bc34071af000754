//! What goes, what stays, and every server that does not let us.

use std::time::Duration;

use rustix::process::Signal;

use crate::server::Redis;
use crate::support::load::Load;
use crate::support::{Contract, Db, Rekey, rekey, rekey_without_database};

fn purge<const N: usize>(url: &str, more: [&str; N]) -> Rekey {
    rekey_without_database(["cache", "purge"]).env("REDIS_URL", url).args(more)
}

#[test]
fn three_patterns_go_and_nothing_else() {
    let redis = Redis::start(&[]);
    redis.fill("dashtam:provider:conn:", 100_000);
    redis.fill("provider:conn:", 10);
    redis.fill("secrets:", 10);
    for bystander in [
        "dashtam:provider:conn",
        "dashtam:session:1",
        "xdashtam:provider:conn:1",
        "other:provider:conn:1",
        "provider:connections:1",
        "my:secrets:1",
        "secrets",
        "Secrets:1",
    ] {
        redis.cli(&["SET", bystander, "1"]);
    }
    redis.cli(&["-n", "1", "SET", "secrets:1", "another database"]);
    purge(&redis.url(), []).exits(2);
    let mut contract = Contract::default();
    let dry = contract.see(&purge(&redis.url(), ["--dry-run", "--output", "json"]).exits(0));
    assert_eq!(dry["command"], "cache purge");
    contract.holds();
    assert_eq!(dry["purged"][0]["found"], 100_000);
    assert_eq!(redis.size(), 100_028);
    let done = purge(&redis.url(), ["--yes"]).exits(0);
    assert!(done.stdout.contains("100 000 deleted"), "{done}");
    assert!(done.stderr.contains("audit trail got no entry"), "{done}");
    assert!(done.took < Duration::from_secs(60), "{:?}", done.took);
    assert_eq!(redis.size(), 8);
    assert_eq!(redis.cli(&["-n", "1", "DBSIZE"]), "1");
    assert_eq!(purge(&redis.url(), ["--yes"]).json(0)["purged"][0]["deleted"], 0);
}

/// What is left undone is said, unless no log at all is wanted.
#[test]
fn a_narrow_filter_of_logs_leaves_warnings_in() {
    let redis = Redis::start(&[]);
    for (asked, said) in [("aws_config=debug", true), ("warn", true), ("off", false), ("rekey=error", false)]
    {
        let done = purge(&redis.url(), ["--yes"]).env("RUST_LOG", asked).exits(0);
        assert_eq!(done.stderr.contains("audit trail got no entry"), said, "RUST_LOG={asked}: {done}");
    }
}

/// Templates of pods leave empty variables behind.
#[test]
fn an_empty_prefix_in_the_environment_is_none() {
    let db = Db::new();
    Load::rows(5).into(&db);
    let redis = Redis::start(&[]);
    redis.fill("dashtam:provider:conn:", 3);
    rekey(&db, ["run"]).exits(0);
    let back = rekey(&db, ["rollback", "--yes"]).env("REDIS_URL", redis.url()).env("REKEY_PREFIX", "");
    let back = back.exits(0);
    assert!(back.stdout.contains("3 stale cache entries deleted"), "{back}");
    assert_eq!(redis.size(), 0);
}

#[test]
fn a_prefix_is_no_pattern() {
    let redis = Redis::start(&[]);
    redis.fill("dashtam:provider:conn:", 3);
    redis.fill("d*:provider:conn:", 3);
    purge(&redis.url(), ["--yes", "--prefix", "d*"]).exits(0);
    assert_eq!(redis.size(), 3);
    purge(&redis.url(), ["--yes", "--prefix", ""]).exits(2);
}

#[test]
fn passwords_and_users() {
    let redis = Redis::start(&["--requirepass", "canary@1"]);
    let refused = purge(&redis.url(), ["--yes"]).exits(2);
    assert!(refused.stderr.contains("password") || refused.stderr.contains("AUTH"), "{refused}");
    let wrong = purge(&format!("redis://:canary-wrong@127.0.0.1:{}/0", redis.port), ["--yes"]).exits(2);
    wrong.says_none_of(&["canary"]);
    let url = format!("redis://:canary%401@127.0.0.1:{}/0", redis.port);
    let done = purge(&url, ["--yes"]).env("RUST_LOG", "trace").exits(0);
    done.says_none_of(&["canary"]);
    // A user who may do what is needed and no more.
    let user = ["ACL", "SETUSER", "purger", "on", ">canary2", "~*", "+scan", "+unlink"];
    redis.cli(&[&["-a", "canary@1", "--no-auth-warning"], &user[..]].concat());
    purge(&format!("redis://purger:canary2@127.0.0.1:{}/0", redis.port), ["--yes"]).exits(0);
    let denied = ["ACL", "SETUSER", "reader", "on", ">canary3", "~*", "+get"];
    redis.cli(&[&["-a", "canary@1", "--no-auth-warning"], &denied[..]].concat());
    purge(&format!("redis://reader:canary3@127.0.0.1:{}/0", redis.port), ["--yes"]).exits(2);
}

#[test]
fn tls_is_checked() {
    let redis = Redis::with_tls();
    redis.fill("secrets:", 5);
    let url = format!("rediss://127.0.0.1:{}/0", redis.port);
    let refused = purge(&url, ["--yes"]).exits(2);
    assert!(refused.stderr.contains("SSL_CERT_FILE"), "{refused}");
    purge(&format!("{url}#insecure"), ["--yes"]).exits(2);
    assert_eq!(redis.size(), 5);
    purge(&format!("{url}?ssl_ca_certs={}", redis.file("ca.pem")), ["--yes"]).exits(0);
    assert_eq!(redis.size(), 0);
    purge(&url, ["--yes"]).env("SSL_CERT_FILE", redis.file("ca.pem")).exits(0);
}

#[test]
fn what_is_away_is_waited_for_and_then_69() {
    let away = purge("redis://:canary@127.0.0.1:9/0", ["--yes", "--retry-for", "2s"]).exits(69);
    assert!(away.took < Duration::from_secs(60), "{:?}", away.took);
    away.says_none_of(&["canary"]);
    // A server that accepts and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://127.0.0.1:{}/0", silent.local_addr().unwrap().port());
    let silent = purge(&url, ["--yes", "--retry-for", "2s"]).exits(69);
    assert!(silent.took < Duration::from_secs(60), "{:?}", silent.took);
    for url in ["", "canary", "http://:canary@cache"] {
        purge(url, ["--yes"]).exits(2).says_none_of(&["canary"]);
    }
    rekey_without_database(["cache", "purge", "--yes"]).exits(2);
}

#[test]
fn a_signal_ends_the_wait_for_an_answer() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://127.0.0.1:{}/0", silent.local_addr().unwrap().port());
    let process = purge(&url, ["--yes"]).start();
    let _held = silent.accept().unwrap();
    process.signal(Signal::TERM);
    process.wait_for(Duration::from_secs(20)).expect(75);
}

#[test]
fn a_replica_and_a_cluster_are_not_what_is_meant() {
    let primary = Redis::start(&[]);
    primary.fill("secrets:", 5);
    let replica = Redis::start(&["--replicaof", &format!("127.0.0.1 {}", primary.port)]);
    crate::support::until("the replica", crate::support::SOON, || (replica.size() == 5).then_some(()));
    purge(&replica.url(), ["--yes"]).exits(2);
    assert_eq!(primary.size(), 5);
    let node = Redis::start(&["--cluster-enabled", "yes"]);
    let refused = purge(&node.url(), ["--yes"]).exits(2);
    assert!(refused.stderr.contains("cluster"), "{refused}");
}

#[test]
fn the_purge_is_audited() {
    let db = Db::new();
    Load::rows(5).into(&db);
    rekey(&db, ["run"]).exits(0);
    let redis = Redis::start(&[]);
    let done = rekey(&db, ["cache", "purge", "--yes"]).env("REDIS_URL", redis.url()).exits(0);
    assert!(done.stdout.lines().last().unwrap().starts_with("audit chain head: "), "{done}");
    assert_eq!(db.value::<i64>("SELECT count(*) FROM rekey.events WHERE action = 'purge'"), 1);
    assert_eq!(db.value::<i64>("SELECT count(*) FROM audit_logs WHERE action = 'CACHE_PURGED'"), 1);
}

/// As the application's own client reads it: `db` goes before the path.
#[test]
fn the_database_that_the_url_names_and_no_other() {
    let redis = Redis::start(&[]);
    for db in ["0", "2", "3"] {
        redis.cli(&["-n", db, "SET", "secrets:1", "1"]);
    }
    let address = format!("redis://127.0.0.1:{}", redis.port);
    let sizes = || ["0", "2", "3"].map(|db| redis.cli(&["-n", db, "DBSIZE"]));
    purge(&format!("{address}?db=3"), ["--yes"]).exits(0);
    assert_eq!(sizes(), ["1", "1", "0"]);
    redis.cli(&["-n", "3", "SET", "secrets:1", "1"]);
    purge(&format!("{address}/2?db=3"), ["--yes"]).exits(0);
    assert_eq!(sizes(), ["1", "1", "0"]);
    purge(&format!("{address}/2"), ["--yes"]).exits(0);
    assert_eq!(sizes(), ["1", "0", "0"]);
    let refused = purge(&format!("{address}?db=three"), ["--yes"]).exits(2);
    assert!(refused.stderr.contains("db"), "{refused}");
    assert_eq!(sizes(), ["1", "0", "0"]);
}

/// A node of a cluster is told apart by whoever may do no more than the work.
#[test]
fn a_cluster_whose_user_may_not_ask_info() {
    for (settings, code) in [(&["--cluster-enabled", "yes"][..], 2), (&[], 0)] {
        let redis = Redis::start(settings);
        redis.cli(&["ACL", "SETUSER", "app", "on", ">secret", "~*", "+scan", "+unlink", "+select"]);
        let url = format!("redis://app:secret@127.0.0.1:{}/0", redis.port);
        let outcome = purge(&url, ["--yes"]).exits(code);
        assert_eq!(outcome.stderr.contains("cluster"), code == 2, "{outcome}");
        assert_eq!(outcome.stderr.contains("xargs"), code == 2, "{outcome}");
    }
}
