//! The whole life of a rotation, with the real binary: PostgreSQL, Secrets Manager (moto), Redis, dotenv files, and
//! what is left when a process dies anywhere in between.

#[path = "../support/mod.rs"]
mod support;
#[path = "../support_aws/mod.rs"]
mod support_aws;

mod advice;
mod application;
mod audit;
mod commands;
mod ends;
mod external;
mod faults;
mod files;
mod foreign;
mod guide;
mod killed;
mod quiet;
mod recipes;
#[path = "../cache/server.rs"]
#[allow(dead_code, reason = "TLS is the other test crate's part")]
mod server;
mod several;
mod shapes;
