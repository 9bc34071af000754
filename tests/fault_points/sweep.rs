//! The sweep itself.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;

use crate::scene::Scene;
use crate::support::{Db, Outcome, Random, Rekey};

/// How an operation fails: the server refuses for good, or for now; every connection is cut; the process is killed.
#[derive(Clone, Copy, Debug)]
enum Kind {
    ForGood,
    ForNow,
    Drop,
    Abort,
}

const KINDS: [Kind; 4] = [Kind::ForGood, Kind::ForNow, Kind::Drop, Kind::Abort];

/// Serialization failure, lock timeout, statement timeout, disk full.
const FOR_NOW: [&str; 4] = ["error:40001", "error:55P03", "error:57014", "error:53100"];

impl Kind {
    /// Its name at the n-th operation.
    fn at(self, n: u64) -> &'static str {
        match self {
            Kind::ForGood => "error",
            Kind::ForNow => FOR_NOW[n as usize % FOR_NOW.len()],
            Kind::Drop => "drop",
            Kind::Abort => "abort",
        }
    }
}

/// Sweeps a command: `prepare` makes what it starts from, anew for each n.
pub fn sweep(name: &str, sample: u64, prepare: impl Fn() -> Scene) {
    let (stride, from) = (stride(sample), number("REKEY_FAULT_FROM").unwrap_or(1));
    let mut random = Random::new(stride + from);
    let mut tried = [0; 3];
    let only = std::env::var("REKEY_FAULT_ONLY").ok();
    for (index, kind) in KINDS.into_iter().enumerate() {
        if only.as_ref().is_some_and(|only| *only != format!("{kind:?}")) {
            continue;
        }
        // Each kind begins elsewhere, so that a sample is spread.
        let mut n = from + stride * index as u64 / KINDS.len() as u64;
        let (mut points, mut cut_offs) = (200, 0);
        loop {
            let mut scene = prepare();
            // Every third time it fails once more in the same process, on its way out of the first failure.
            let again = (tried[0] % 3 == 1 && !matches!(kind, Kind::Abort)).then(|| n + 1 + random.below(12));
            let (outcome, reached) = fail(&mut scene, kind, n, again);
            points = points.max(reached);
            assert!(reached > 0, "this binary was built without fault points");
            if reached < n {
                if cut_off(&outcome) && cut_offs < 5 {
                    cut_offs += 1;
                    scene.db.discard();
                    continue;
                }
                outcome.expect(scene.ends);
                scene.reached();
                scene.db.discard();
                break;
            }
            tried[0] += 1;
            tried[1] += u64::from(again.is_some_and(|m| reached >= m));
            // And every third time in the next one.
            if tried[0] % 3 == 0 {
                let (m, kind) = (1 + random.below(points), KINDS[random.below(4) as usize]);
                tried[2] += u64::from(fail(&mut scene, kind, m, None).1 >= m);
            }
            leases_run_out(&scene.db);
            let resumed = available(|| (scene.command)(&scene.db));
            assert!(
                [scene.ends, scene.again].map(Some).contains(&resumed.code()),
                "{kind:?} at {n}, resumed\n{resumed}"
            );
            scene.holds(&resumed);
            scene.reached();
            scene.db.discard();
            n += stride;
        }
    }
    let [once, same, next] = tried;
    println!(
        "{name}: {once} operations failed, after {same} of them another one in the same process, after {next} one in the next, stride {stride}"
    );
}

/// Every how many points one fails: `sample`, unless somebody says.
pub fn stride(sample: u64) -> u64 {
    number("REKEY_FAULT_STRIDE").unwrap_or(sample)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|n| n.parse().expect("a number"))
}

/// Starts the command with its n-th point failing, and perhaps a later one; how it ended, and how many points it reached.
fn fail(scene: &mut Scene, kind: Kind, n: u64, again: Option<u64>) -> (Outcome, u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("trace");
    let word = kind.at(n);
    let command = armed((scene.command)(&scene.db), n, word, &trace);
    let outcome = match again {
        Some(m) => command.env("REKEY_FAULT_AT", format!("{n},{m}")).run(),
        None => command.run(),
    };
    let points = std::fs::read_to_string(&trace).unwrap_or_default();
    let points: Vec<&str> = points.lines().collect();
    let at = |n: u64| points.get(n as usize - 1).copied().unwrap_or("no point");
    let failed = [Some(n), again].into_iter().flatten().map(at).collect::<Vec<_>>();
    eprintln!("{word} at {}: {}", failed.join(", then "), outcome.status);
    let outside = failed.iter().any(|at| is_a_file(at) || at.contains("secretsmanager:"));
    let known = match (outcome.code(), kind) {
        (None, Kind::Abort) => outcome.status.signal() == Some(9),
        (None, _) => false,
        // A key that cannot be read is a missing key.
        (Some(3), _) if failed.iter().any(|at| at.ends_with(" read")) => true,
        // A goal reached all the same, or reached before.
        (Some(code), _) if code == scene.ends || code == scene.again => true,
        // A server, a file or a secret that fails for good.
        (Some(code), Kind::ForGood) => [1, 2, 69].contains(&code),
        // Something to try again.
        (Some(code), _) => code == 69 || (outside && [1, 2].contains(&code)),
    };
    assert!(known, "{word} at {failed:?}\n{outcome}");
    scene.holds(&outcome);
    // Cleaning up at the very end is best effort: the next one does it.
    let cleaning = failed.iter().any(|at| {
        at.ends_with("remove") || at.ends_with("sync the folder") || at.contains("secretsmanager:")
    });
    if outcome.code() == Some(scene.ends) && !cleaning {
        scene.reached();
    }
    (outcome, points.len() as u64)
}

/// Is this a point at a file operation?
fn is_a_file(at: &str) -> bool {
    const OPERATIONS: [&str; 9] = [
        "create a temporary file",
        "write",
        "set owner and mode",
        "sync",
        "replace",
        "create",
        "remove",
        "rename",
        "sync the folder",
    ];
    let operation = at.splitn(3, ' ').nth(2).unwrap_or_default();
    OPERATIONS.contains(&operation)
}

/// The command with its n-th point failing.
pub fn armed(command: Rekey, n: u64, kind: &str, trace: &Path) -> Rekey {
    command
        .env("REKEY_FAULT_AT", n.to_string())
        .env("REKEY_FAULT_KIND", kind)
        .env("REKEY_FAULT_TRACE", trace.as_os_str())
}

/// Whether a machine that has too much to do took longer than the short leases of these tests allow.
fn cut_off(outcome: &Outcome) -> bool {
    outcome.code() == Some(69)
        && ["57014", "25P03", "no response"].iter().any(|limit| outcome.stderr.contains(limit))
}

/// Runs it to its end, and again where it was cut off.
pub fn available(command: impl Fn() -> Rekey) -> Outcome {
    for _ in 0..4 {
        let outcome = command().run();
        if !cut_off(&outcome) {
            return outcome;
        }
    }
    command().run()
}

/// Whoever is dead will not come back: no need to wait.
pub fn leases_run_out(db: &Db) {
    if db.value::<bool>("SELECT to_regclass('rekey.chunks') IS NOT NULL") {
        db.execute("UPDATE rekey.chunks SET lease_until = clock_timestamp() WHERE owner IS NOT NULL");
    }
}
