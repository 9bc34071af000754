//! Redis in a container, with stale entries of the application: purged by a pod, and waited for where it is silent.

use crate::engine::{self, Redis, Server};

#[test]
fn a_pod_purges_the_stale_entries_and_nothing_else() {
    if !engine::there_is_one() {
        return;
    }
    let server = Server::start();
    let redis = Redis::start(&server);
    for key in ["dashtam:provider:conn:1", "provider:conn:1", "secrets:1", "dashtam:session:1"] {
        redis.cli(&["SET", key, "ciphertext"]);
    }
    let url = redis.url();
    redis.freeze(true);
    let silent = server.pod(&["cache", "purge", "--yes", "--retry-for", "2s"], &[("REDIS_URL", &url)]);
    silent.ends(69);
    redis.freeze(false);
    server.pod(&["cache", "purge", "--yes"], &[("REDIS_URL", &url)]).ends(0);
    assert_eq!(redis.cli(&["KEYS", "*"]), "dashtam:session:1");
}
