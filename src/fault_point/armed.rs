//! Fault points that work. All they know comes from the environment:
//!
//! - `REKEY_FAULT_AT=N[,M…]`: the N-th point that this process reaches fails, counted from 1, and the M-th.
//! - `REKEY_FAULT_KIND=error|error:SQLSTATE|drop|abort|freeze|panic`: how. `abort` is SIGKILL; `freeze` is SIGSTOP,
//!   and the sender of SIGCONT decides what happened meanwhile; `panic` is a bug in rekey.
//! - `REKEY_FAULT_TRACE=PATH`: every point reached is appended there as a line, so that they can be counted.

use std::fs::File;
use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::sync::{Mutex, OnceLock};

use rustix::process::{self, PidfdFlags, PidfdGetfdFlags, Signal};

use super::{Fault, Side};

/// An input/output error of the server: retrying can't help.
const IO_ERROR: &str = "58030";

struct Plan {
    at: Vec<u64>,
    kind: Kind,
    progress: Mutex<Progress>,
}

enum Kind {
    Error(&'static str),
    Drop,
    Abort,
    Freeze,
    Panic,
}

struct Progress {
    reached: u64,
    trace: Option<File>,
}

/// Passes the point on one side of `operation`; says what happened there, if anything did.
pub fn reach(side: Side, operation: &str) -> Option<Fault> {
    static PLAN: OnceLock<Plan> = OnceLock::new();
    let plan = PLAN.get_or_init(Plan::from_env);
    let mut progress = plan.progress.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    progress.reached += 1;
    let reached = progress.reached;
    if let Some(trace) = &mut progress.trace {
        // One write a line: it must be there when the next moment is a SIGKILL.
        let _ = trace.write_all(format!("{reached} {side:?} {operation}\n").as_bytes());
    }
    if !plan.at.contains(&reached) {
        return None;
    }
    match plan.kind {
        Kind::Error(sqlstate) => Some(Fault::Error(sqlstate)),
        Kind::Drop => {
            cut_connections();
            Some(Fault::Dropped)
        }
        Kind::Freeze => {
            let _ = process::kill_process(process::getpid(), Signal::STOP);
            None
        }
        Kind::Panic => {
            drop(progress);
            panic!("fault point {reached}: {side:?} {operation}")
        }
        Kind::Abort => loop {
            let _ = process::kill_process(process::getpid(), Signal::KILL);
        },
    }
}

impl Plan {
    fn from_env() -> Plan {
        let var = |name| std::env::var(name).ok();
        let at = var("REKEY_FAULT_AT").unwrap_or_default();
        let at = at.split_terminator(',').map(|n| n.parse().expect("REKEY_FAULT_AT is numbers")).collect();
        let kind = match var("REKEY_FAULT_KIND").as_deref() {
            None | Some("error") => Kind::Error(IO_ERROR),
            Some("drop") => Kind::Drop,
            Some("abort") => Kind::Abort,
            Some("freeze") => Kind::Freeze,
            Some("panic") => Kind::Panic,
            Some(other) => match other.strip_prefix("error:") {
                Some(sqlstate) => Kind::Error(sqlstate.to_owned().leak()),
                None => panic!("REKEY_FAULT_KIND is error, error:SQLSTATE, drop, abort, freeze or panic"),
            },
        };
        let trace = var("REKEY_FAULT_TRACE")
            .map(|path| File::options().create(true).append(true).open(path).expect("REKEY_FAULT_TRACE"));
        Plan { at, kind, progress: Mutex::new(Progress { reached: 0, trace }) }
    }
}

/// Shuts every TCP connection of this process down, as a network that went away would. The descriptors stay open:
/// their owners find out at their next use.
fn cut_connections() {
    let myself = process::pidfd_open(process::getpid(), PidfdFlags::empty()).expect("a pidfd of our own");
    for entry in std::fs::read_dir("/proc/self/fd").expect("/proc").flatten() {
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(copy) = process::pidfd_getfd(&myself, number, PidfdGetfdFlags::empty()) else { continue };
        let stream = TcpStream::from(copy);
        if stream.peer_addr().is_ok() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}
