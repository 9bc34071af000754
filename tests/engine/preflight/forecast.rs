//! The growth that a plan forecasts is about what a run then costs: the heap, its TOAST, its indexes and rekey's own tables.

use crate::support::credentials::Mix;
use crate::support::load::Load;
use crate::support::{Cluster, Db, Ids, rekey};

/// All that the table and rekey hold on the disk, in bytes.
fn size(db: &Db) -> i64 {
    db.value(
        "SELECT (pg_total_relation_size('provider_connections') + coalesce((SELECT sum(pg_total_relation_size(c.oid))
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'rekey' AND c.relkind = 'r'), 0))::int8",
    )
}

#[test]
fn growth_is_about_what_was_forecast() {
    // A snapshot that another session holds, and be it for a moment, would keep dead rows where they are.
    let cluster = Cluster::with("autovacuum = off");
    let mut wrong = Vec::new();
    for (what, load) in [
        ("UUIDv7, 250 bytes", Load::rows(40_000)),
        ("UUIDv4, 250 bytes", Load::rows(40_000).ids(Ids::V4)),
        ("UUIDv7, mixed", Load::rows(40_000).mixed()),
        ("UUIDv7, 900 bytes", Load::rows(15_000).bytes(900)),
        ("UUIDv7, 4000 bytes", Load::rows(8_000).bytes(4000)),
        ("UUIDv7, sizes as in real tables", Load::rows(30_000).bytes(430).mix(Mix::Spread).nulls(2)),
        ("UUIDv7, half of them out of line", Load::rows(15_000).bytes(430).mix(Mix::HalfLarge)),
        ("UUIDv7, half of them NULL", Load::rows(40_000).nulls(50)),
    ] {
        // How much grows is a matter of who looks when: on a busy machine the best of three counts.
        let mut seen = Vec::new();
        for _ in 0..3 {
            let db = Db::on(&cluster);
            load.clone().into(&db);
            let plan = rekey(&db, ["plan"]).json(0);
            let forecast = plan["forecast"]["growth_bytes"].as_f64().expect("a forecast");
            rekey(&db, ["init"]).exits(0);
            let before = size(&db);
            rekey(&db, ["run"]).exits(0);
            let grown = (size(&db) - before) as f64;
            db.discard();
            if (0.6..1.7).contains(&(forecast / grown)) {
                seen.clear();
                break;
            }
            seen.push((forecast, grown));
        }
        if !seen.is_empty() {
            wrong.push(format!("{what}: forecast and growth: {seen:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
