//! A table with a value that the server itself cannot read any more.

use uuid::Uuid;

use super::load::{Load, some_ids, store};
use super::{Cluster, Db, OLD, Stop};

/// `rows` rows on the old key, on a server of their own; of one, the part of its value that lies out of line is gone.
pub fn damaged(rows: u64) -> (Cluster, Db, Uuid) {
    damaged_value(rows, 5000)
}

/// The same with a value of about so many bytes.
pub fn damaged_value(rows: u64, bytes: usize) -> (Cluster, Db, Uuid) {
    let cluster = Cluster::start();
    let db = Db::on(&cluster);
    Load::rows(rows).into(&db);
    let id = some_ids(&db, 1, 5)[0];
    let long = format!("{{\"access_token\":\"{}\"}}", "long ".repeat(bytes / 5));
    store(&db, id, OLD, long.as_bytes());
    let path: String = db.value(
        "SELECT pg_relation_filepath(reltoastrelid) FROM pg_class WHERE oid = 'provider_connections'::regclass",
    );
    cluster.stop(Stop::Fast);
    cluster.zero(&path);
    cluster.boot();
    let lost = format!("SELECT encrypted_credentials FROM provider_connections WHERE id = '{id}'");
    assert!(db.try_value::<Vec<u8>>(&lost).is_err(), "the value is damaged");
    (cluster, db, id)
}
