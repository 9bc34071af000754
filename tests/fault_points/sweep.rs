//! The sweep itself.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;

use crate::scene::Scene;
use crate::support::{Db, Outcome, Random, Rekey};

/// How an operation fails: the server refuses for good, or for now; every connection is cut; the process is killed.
const KINDS: [&str; 4] = ["error", "error:40001", "drop", "abort"];

/// Sweeps a command: `prepare` makes what it starts from, anew for each n.
pub fn sweep(name: &str, sample: u64, prepare: impl Fn() -> Scene) {
    let stride = stride(sample);
    let mut random = Random::new(stride);
    let mut tried = [0; 2];
    for (index, kind) in KINDS.into_iter().enumerate() {
        // Each kind begins elsewhere, so that a sample is spread.
        let mut n = 1 + stride * index as u64 / KINDS.len() as u64;
        let mut points = 200;
        loop {
            let mut scene = prepare();
            let (outcome, reached) = fail(&mut scene, n, kind);
            points = points.max(reached);
            assert!(reached > 0, "this binary was built without fault points");
            if reached < n {
                outcome.expect(0);
                scene.reached();
                scene.db.discard();
                break;
            }
            tried[0] += 1;
            // Every other time it fails once more on the way to its end.
            if tried[0] % 2 == 0 {
                let (m, kind) = (1 + random.below(points), KINDS[random.below(4) as usize]);
                tried[1] += u64::from(fail(&mut scene, m, kind).1 >= m);
            }
            leases_run_out(&scene.db);
            let resumed = (scene.command)(&scene.db).run();
            assert!(
                [0, scene.again].map(Some).contains(&resumed.code()),
                "{kind} at {n}, resumed\n{resumed}"
            );
            scene.holds(&resumed);
            scene.reached();
            scene.db.discard();
            n += stride;
        }
    }
    println!("{name}: {} operations failed, {} of them twice in a row, stride {stride}", tried[0], tried[1]);
}

/// Every how many points one fails: `sample`, unless somebody says.
pub fn stride(sample: u64) -> u64 {
    std::env::var("REKEY_FAULT_STRIDE").map_or(sample, |n| n.parse().expect("a number"))
}

/// Starts the command with its n-th point failing; how it ended, and how many points it reached.
fn fail(scene: &mut Scene, n: u64, kind: &str) -> (Outcome, u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("trace");
    let outcome = armed((scene.command)(&scene.db), n, kind, &trace).run();
    let points = std::fs::read_to_string(&trace).unwrap_or_default();
    let points: Vec<&str> = points.lines().collect();
    let at = points.get(n as usize - 1).copied().unwrap_or("no point");
    eprintln!("{kind} at {at}: {}", outcome.status);
    let known = match outcome.code() {
        None => kind == "abort" && outcome.status.signal() == Some(9),
        // A key that cannot be read is a missing key.
        Some(3) => at.ends_with(" read"),
        // A goal reached all the same, a server or a file that fails for good, or something to try again.
        Some(code) => [0, 1, 2, 69, scene.again].contains(&code),
    };
    assert!(known, "{kind} at {at}\n{outcome}");
    scene.holds(&outcome);
    // Cleaning up at the very end is best effort: the next one does it.
    let cleaning = ["remove", "sync the folder"].iter().any(|operation| at.ends_with(operation))
        || at.contains("secretsmanager:");
    if outcome.code() == Some(0) && !cleaning {
        scene.reached();
    }
    (outcome, points.len() as u64)
}

/// The command with its n-th point failing.
pub fn armed(command: Rekey, n: u64, kind: &str, trace: &Path) -> Rekey {
    command
        .env("REKEY_FAULT_AT", n.to_string())
        .env("REKEY_FAULT_KIND", kind)
        .env("REKEY_FAULT_TRACE", trace.as_os_str())
}

/// Whoever is dead will not come back: no need to wait.
fn leases_run_out(db: &Db) {
    if db.value::<bool>("SELECT to_regclass('rekey.chunks') IS NOT NULL") {
        db.execute("UPDATE rekey.chunks SET lease_until = clock_timestamp() WHERE owner IS NOT NULL");
    }
}
