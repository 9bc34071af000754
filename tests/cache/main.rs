//! `rekey cache purge` against real Redis servers: plain, with a password, with TLS, with users, away.

#[path = "../support/mod.rs"]
mod support;

mod purge;
mod server;
