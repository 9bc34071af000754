//! What people see: the real binary on a pseudo-terminal, in a pipe and in a pod, through an emulator of a terminal.

#[path = "../support/mod.rs"]
mod support;

mod bars; // log lines and the bar: nothing cut, no ghosts
mod resumed; // what a process says that carries on another one's work
mod streams; // off a terminal: text, JSON, colours, -q and -v
mod variables;
mod watch; // status --watch: in place, Ctrl-C, a rotation that begins later // wrong names, bad values
