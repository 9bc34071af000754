//! Starts a program apart from rekey: in a session of its own, so that there is no terminal to ask on and one signal
//! ends all that it started, and without the files that rekey has open. Beside `crypto::locked` the one module with
//! `unsafe`: the child has to do this for itself between `fork` and `exec`.

#![expect(unsafe_code, reason = "pre_exec; the rest of the crate denies it")]

use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::setsid;

use super::environment;

/// The first descriptor that is not one of the standard three.
const FIRST: RawFd = 3;

/// Starts it. Its stdin is a pipe where it is to be fed, and else empty.
pub(super) fn start(words: &[String], fed: bool) -> io::Result<Child> {
    let mut command = Command::new(&words[0]);
    command
        .args(&words[1..])
        .env_clear()
        .envs(environment::of_a_child())
        .stdin(if fed { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let open = open_files();
    // SAFETY: between fork and exec the closure makes system calls only: it allocates nothing and takes no lock. A
    // descriptor that was closed since is refused with EBADF, and none is used beyond this call.
    unsafe {
        command.pre_exec(move || {
            setsid()?;
            for &file in &open {
                let _ = fcntl_setfd(BorrowedFd::borrow_raw(file), FdFlags::CLOEXEC);
            }
            Ok(())
        });
    }
    command.spawn()
}

/// What rekey was started with besides the standard three: a passphrase's pipe, say.
fn open_files() -> Vec<RawFd> {
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else { return (FIRST..256).collect() };
    open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&file| file >= FIRST)
        .collect()
}
